"""What lies in a model folder: its JSON, its tensors' shapes, code that it would bring. It may come from anyone: nothing is run, only
regular files inside it are opened, and JSON is bounded."""

import json
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from . import hub
from .errors import ModelError

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
READ_BY_LIBRARIES = (
  *(CONFIG, ADAPTER_CONFIG, "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"),
  *("added_tokens.json", "preprocessor_config.json", "processor_config.json", "chat_template.json"),
)
LARGEST_JSON = 2**26  # bytes; the index of the largest public model has 2 ** 23
LARGEST_HEADER = 10**8  # bytes of a safetensors header, as the library has it
SIZE_FIELDS = dict.fromkeys(("vocab_size", "hidden_size", "num_attention_heads", "max_position_embeddings"), 2**31)
SIZE_FIELDS["num_hidden_layers"] = MOST = 10_000
"""Counts in a config -> the largest that is read."""
MADE = re.compile(r"num_(\w+_)?(layers|experts)|(n|encoder|decoder)_layers?")
"""Numbers of which libraries make so many layers, or lists so long."""
HEAD_FILES = "*_[lh]*[ae][dr].pt"  # *_layer, *_head
VALUE_HEAD = "value_head.bin"
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Tensor:
  dtype: str
  shape: tuple[int, ...]


def _refuse(file: Path, why: str, hint: str | None = None) -> NoReturn:
  raise ModelError(f"{file.name} {why}", where=file, hint=hint)


def read_json(file: Path) -> dict[str, Any]:
  """Raises ModelError for what is not an object."""
  try:
    if not stat.S_ISREG(file.stat().st_mode):
      _refuse(file, "is not a regular file")
    if file.stat().st_size > LARGEST_JSON:
      _refuse(file, f"has more than {LARGEST_JSON >> 20} MiB")
    found = json.loads(file.read_text(encoding="utf-8"))
  except OSError as error:
    raise ModelError(f"cannot read {file.name}: {error.strerror}", where=file) from error
  except (ValueError, RecursionError) as error:
    reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
    raise ModelError(f"{file.name} is not valid JSON: {reason}", where=file) from error
  return found if isinstance(found, dict) else _refuse(file, "is not a JSON object")


def snapshot(path: str) -> Path | None:
  """This folder, or that of a hub id in the cache."""
  if Path(path).is_dir():
    return Path(path)
  found = next(filter(None, (hub_file(path, name) for name in (CONFIG, "tokenizer_config.json"))), None)
  return found and found.parent


def hub_file(path: str, name: str, *, ask: bool = False) -> Path | None:
  """A file of a hub repository in the cache, or None. ask: the hub too."""
  from transformers.utils import cached_file

  try:
    found = cached_file(path, name, local_files_only=not (ask and hub.answers(path)))
  except (OSError, ValueError):
    return None
  return Path(found) if found else None


def check_folder(path: str) -> None:
  """Raises ModelError when a file would block a reader, is broken, or leads out."""
  folder = Path(path)
  for file in sorted((*folder.glob("*"), *folder.glob("additional_chat_templates/*"))):
    if file.exists() and not (file.is_file() or file.is_dir()):
      _refuse(file, "is not a regular file")
    is_index = file.name.endswith(".index.json")
    if not (file.is_file() and (is_index or file.name in READ_BY_LIBRARIES)):
      continue
    found = read_json(file)
    if is_index:
      _check_index(found, file)
    elif file.name == CONFIG:
      check_config(found, file)


def check_config(config: dict[str, Any], file: Path) -> None:
  """Raises ModelError for values that transformers would take for something else."""

  def refuse(name: str, value: object, why: str) -> None:
    _refuse(file, f"is not that of a model: `{name}` {why.format(_short(value))}")

  wanted = {
    "architectures": (lambda names: isinstance(names, list) and _are_texts(names), "a list of class names"),
    "model_type": (lambda name: _are_texts([name]), "a name"),
    "id2label": (_is_labels, "label numbers with their names"),
    "num_labels": (_is_size, "a positive whole number"),
    "transformers_weights": (lambda name: _are_texts([name]) and _inside(file.parent, name), "a file of the folder"),
  }
  for name, (is_valid, what) in wanted.items():
    value = config.get(name)
    if (value is not None or (name == "model_type" and name in config)) and not is_valid(value):
      refuse(name, value, f"is {{}}, not {what}")
  # Of several models in one, each has its own object.
  parts = {"": config, **{name: part for name, part in config.items() if isinstance(part, dict)}}
  for part, name, value in ((part, *item) for part, values in parts.items() for item in values.items()):
    largest = SIZE_FIELDS.get(name) if part in ("", "text_config") else None
    if largest and value is not None and not _is_size(value, largest):
      refuse(name, value, f"is {{}}, not a whole number from 1 to {largest}")
    if MADE.fullmatch(name) and isinstance(value, int) and value > MOST:
      refuse(name, value, f"is {{}}, more than {MOST}")
    # A repository of compiled code.
    kernels = value.values() if isinstance(value, dict) else [value]
    if name.endswith(("attn_implementation", "experts_implementation")) and any("/" in str(k) for k in kernels):
      refuse(name, value, "names code to be fetched ({}), which is never run")


def _check_index(index: dict[str, Any], file: Path) -> None:
  shards = index.get("weight_map")
  named = isinstance(shards, dict) and shards and _are_texts(shards.values())
  if not named or not isinstance(index.get("metadata"), dict):
    _refuse(file, "is not an index of weights: no `weight_map` or no `metadata`")
  for shard in sorted(set(shards.values())):
    if not _inside(file.parent, shard):
      hint = "put the shard into the folder, and its name alone into the index"
      _refuse(file, f"names a file outside its folder: {_short(shard)}", hint)
    if not (file.parent / shard).is_file():
      _refuse(file, f"names {_short(shard)}, which is not there")


def _inside(folder: Path, name: str) -> bool:
  """Links followed; the hub's cache links to its own `blobs`."""
  try:
    place, home = (folder / name).resolve(), folder.resolve()
  except (OSError, ValueError, RuntimeError):  # a name too long, a null character, links in a circle
    return False
  return place.is_relative_to(home) or (Path(name).name == name and place.parent == home.parents[1] / "blobs")


def _is_size(value: object, largest: int = 10**5) -> bool:
  return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= largest


def _are_texts(values: Iterable[object]) -> bool:
  return all(isinstance(value, str) for value in values)


def _is_labels(value: object) -> bool:
  return isinstance(value, dict) and bool(value) and all(re.fullmatch(r"[0-9]{1,6}", str(key)) for key in value)


def _short(value: object) -> str:
  text = repr(value)
  return text if len(text) <= 60 else f"{text[:57]}..."


def own_code(path: str) -> list[str]:
  """Of what `auto_map` and the like name, as in modeling_x.Class, [tokenization_x.Class, null] or owner/name--modeling_x.Class."""
  folder = snapshot(path)
  if folder is None:
    return []
  files = []
  for name in (CONFIG, "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"):
    classes = read_json(folder / name).get("auto_map") if (folder / name).is_file() else None
    named = json.dumps(list(classes.values()) if isinstance(classes, dict) else classes)
    places = re.findall(r'"(?:([^"]*)--)?([^"]+?)(?:\.\w+)?"', named)
    files += [f"{repository}: " * bool(repository) + f"{place}.py" for repository, place in places]
  generate = "custom_generate/generate.py"
  return list(dict.fromkeys(files)) + [generate] * (folder / generate).is_file()


def tensors(folder: Path, pattern: str = "*.safetensors") -> dict[str, Tensor]:
  """Name -> dtype and shape of every tensor, from the headers. A file without a valid one is left out: loading tells."""
  return {name: tensor for file in sorted(folder.glob(pattern)) if file.is_file() for name, tensor in _header(file)}


def _header(file: Path) -> list[tuple[str, Tensor]]:
  """Also of a file that is cut off, whose loading says so: safetensors would read nothing of it."""
  try:
    with open(file, "rb") as opened:
      size = int.from_bytes(opened.read(8), "little")
      header = json.loads(opened.read(size)) if size <= LARGEST_HEADER else {}
    header.pop("__metadata__", None)
    return [(name, Tensor(str(one["dtype"]), tuple(map(int, one["shape"])))) for name, one in header.items()]
  except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
    return []


def pickled_weights(folder: Path) -> list[str]:
  """Heads beside the trunk, and the trunk where it has no safetensors."""
  whole = () if any(folder.glob("model*.safetensors*")) else folder.glob("pytorch_model*.bin")
  return sorted(file.name for file in (*folder.glob(HEAD_FILES), *folder.glob(VALUE_HEAD), *whole))
