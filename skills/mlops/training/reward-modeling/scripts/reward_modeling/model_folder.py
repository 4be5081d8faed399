"""What lies in a model folder, read without running any of it: its JSON, its tensors' shapes, code that it would bring.

A folder may come from anyone. So only regular files are opened, JSON is bounded and must be an object, and no file that a
folder names lies outside it. Code of its own is named, and never run.
"""

from __future__ import annotations

import functools
import json
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .console import ModelError

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
READ_BY_LIBRARIES = (
    *(CONFIG, ADAPTER_CONFIG, "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "preprocessor_config.json", "processor_config.json", "chat_template.json"),
)
LARGEST_JSON = 2**26  # bytes; the index of the largest public model has 2 ** 23
LARGEST_HEADER = 10**8  # bytes of a safetensors header, as the library has it
COUNTS = dict.fromkeys(("vocab_size", "hidden_size", "num_attention_heads", "max_position_embeddings"), 2**31)
COUNTS["num_hidden_layers"] = MOST = 10_000
"""Numbers of a config that are counts -> the largest that is read."""
MADE = re.compile(r"num_(\w+_)?(layers|experts)|(n|encoder|decoder)_layers?")
"""Numbers of a config of which libraries make so many layers, or lists so long."""
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Tensor:
    """A tensor as a safetensors header describes it."""

    dtype: str
    shape: tuple[int, ...]


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ModelError, naming the file, for anything else."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise ModelError(f"{file.name} is not a regular file", where=str(file))
        if file.stat().st_size > LARGEST_JSON:
            raise ModelError(f"{file.name} has more than {LARGEST_JSON >> 20} MiB", where=str(file))
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read {file.name}: {error.strerror}", where=str(file)) from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        raise ModelError(f"{file.name} is not valid JSON: {reason}", where=str(file)) from error
    if not isinstance(found, dict):
        raise ModelError(f"{file.name} is not a JSON object", where=str(file))
    return found


def snapshot(path: str) -> Path | None:
    """The folder at this path, or that of a hub id in the cache, once something of it was fetched."""
    if Path(path).is_dir():
        return Path(path)
    found = next(filter(None, (hub_file(path, name) for name in (CONFIG, "tokenizer_config.json"))), None)
    return found and found.parent


@functools.cache
def hub_answers(path: str) -> bool:
    """Whether the hub can be asked for this id. If not, libraries read from the cache alone from here on: the hub's client
    would try each file for 24 seconds."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        HfApi().model_info(path, timeout=10)
    except OfflineModeIsEnabled:
        return False
    except (HfHubHTTPError, HFValidationError):  # whoever loads it says more
        return True
    except Exception:  # of the HTTP client, which is another one in other versions
        constants.HF_HUB_OFFLINE = True
        return False
    return True


def hub_file(path: str, name: str, *, ask: bool = False) -> Path | None:
    """A file of a hub repository in the cache, or None. ask: the hub, where the cache does not have it."""
    from transformers.utils import cached_file

    try:
        found = cached_file(path, name, local_files_only=not (ask and hub_answers(path)))
    except (OSError, ValueError):
        return None
    return Path(found) if found else None


# ---- before the libraries open it ---------------------------------------------------------------------------------


def check_folder(path: str) -> None:
    """Raises ModelError when a file of this folder would block a reader, is broken, or leads out of the folder."""
    folder = Path(path)
    if not folder.is_dir():
        return
    for file in sorted((*folder.iterdir(), *folder.glob("additional_chat_templates/*"))):
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise ModelError(f"{file.name} is not a regular file", where=str(file))
        if file.is_file() and file.name in READ_BY_LIBRARIES:
            found = read_json(file)
            if file.name == CONFIG:
                check_config(found, file)
        if file.is_file() and file.name.endswith(".index.json"):
            _check_index(read_json(file), file)


def check_config(config: dict[str, Any], file: Path) -> None:
    """Raises ModelError for values that transformers would stumble over, or take for something else."""

    def refuse(name: str, value: object, why: str) -> None:
        raise ModelError(f"{file.name} is not that of a model: `{name}` {why.format(_short(value))}", where=str(file))

    wanted: dict[str, tuple[Callable[[Any], bool], str]] = {
        "architectures": (_is_names, "a list of class names"),
        "model_type": (lambda name: isinstance(name, str), "a name"),
        "id2label": (_is_labels, "label numbers with their names"),
        "num_labels": (_is_size, "a positive whole number"),
        "transformers_weights": (
            lambda name: isinstance(name, str) and _inside(file.parent, name),
            "a file of the folder",
        ),
    }
    for name, (is_valid, what) in wanted.items():
        value = config.get(name)
        if not is_valid(value) and (value is not None or (name == "model_type" and name in config)):
            refuse(name, value, f"is {{}}, not {what}")
    for part_name, part in {"": config, **config}.items():  # of several models in one, each has its own object
        for name, value in part.items() if isinstance(part, dict) else ():
            if (
                part_name in ("", "text_config")
                and name in COUNTS
                and not (value is None or _is_size(value, COUNTS[name]))
            ):
                refuse(name, value, f"is {{}}, not a whole number from 1 to {COUNTS[name]}")
            if MADE.fullmatch(name) and isinstance(value, int) and value > MOST:
                refuse(name, value, f"is {{}}, more than {MOST}")
            kernels = value.values() if isinstance(value, dict) else [value]
            # A repository of compiled code.
            if name.endswith(("attn_implementation", "experts_implementation")) and any("/" in str(k) for k in kernels):
                refuse(name, value, "names code to be fetched ({}), which is never run")


def _check_index(index: dict[str, Any], file: Path) -> None:
    """Raises ModelError unless each shard that the index names is a file of its folder."""
    shards = index.get("weight_map")
    named = isinstance(shards, dict) and shards and all(isinstance(shard, str) for shard in shards.values())
    if not named or not isinstance(index.get("metadata"), dict):
        raise ModelError(f"{file.name} is not an index of weights: no `weight_map` or no `metadata`", where=str(file))
    for shard in sorted(set(shards.values())):
        if not _inside(file.parent, shard):
            raise ModelError(
                f"{file.name} names a file outside its folder: {_short(shard)}",
                where=str(file),
                hint="put the shard itself into the folder, and its name alone into the index",
            )
        if not (file.parent / shard).is_file():
            raise ModelError(f"{file.name} names {_short(shard)}, which is not there", where=str(file))


def _inside(folder: Path, name: str) -> bool:
    """Whether a file of this name lies in the folder, links followed; the hub's cache links to its own `blobs`."""
    try:
        place, home = (folder / name).resolve(), folder.resolve()
    except (OSError, ValueError, RuntimeError):  # a name too long, a null character, links in a circle
        return False
    return place.is_relative_to(home) or (Path(name).name == name and place.parent == home.parents[1] / "blobs")


def _is_size(value: object, largest: int = 10**5) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= largest


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_labels(value: object) -> bool:
    return isinstance(value, dict) and bool(value) and all(re.fullmatch(r"[0-9]{1,6}", str(key)) for key in value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---- code of its own ----------------------------------------------------------------------------------------------


def own_code(path: str) -> list[str]:
    """Names of the files whose code transformers would run for this model, if it were allowed to."""
    folder, files = snapshot(path), []
    for name in (CONFIG, "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"):
        if folder and (folder / name).is_file():
            classes = read_json(folder / name).get("auto_map")
            files += _modules(list(classes.values()) if isinstance(classes, dict) else classes)
    generate = "custom_generate/generate.py"
    return list(dict.fromkeys(files)) + ([generate] if folder and (folder / generate).is_file() else [])


def _modules(classes: Any) -> list[str]:
    """The files of "MODULE.CLASS", or of "OWNER/NAME--MODULE.CLASS" of another repository; lists alike."""
    if isinstance(classes, list):
        return [file for entry in classes for file in _modules(entry)]
    if not isinstance(classes, str):
        return []
    repository, _, place = classes.rpartition("--")
    return [f"{repository}: " * bool(repository) + f"{place.rpartition('.')[0] or place}.py"]


# ---- weights ------------------------------------------------------------------------------------------------------


def tensors(folder: Path, pattern: str = "*.safetensors") -> dict[str, Tensor]:
    """Name -> dtype and shape of every tensor in the safetensors files of a folder, from their headers alone.

    A file whose header cannot be read is left out: loading it says what is wrong with it.
    """
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob(pattern)):
        found.update(_header(file) if file.is_file() else {})
    return found


def _header(file: Path) -> dict[str, Tensor]:
    try:
        with open(file, "rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(size)) if size <= LARGEST_HEADER else {}
        return {
            name: Tensor(str(entry["dtype"]), tuple(map(int, entry["shape"])))
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def pickled_weights(folder: Path) -> list[str]:
    """Names of the pickles that transformers reads as weights, since there are no safetensors."""
    if any(folder.glob("model*.safetensors*")):
        return []
    return sorted(file.name for file in folder.glob("pytorch_model*.bin"))
