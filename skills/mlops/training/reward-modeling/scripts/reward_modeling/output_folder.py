"""What a run may write into its output folder, and delete there: its own names and no others.

OUT/run.json is the record of the folder: what must be the same for a run to be resumed, `files`, the names that the saved
model consists of, and `finished`, whether the last run saved one. Folders of older versions have no `files`: there OLDER
says which names are ours. A run locks its folder; the kernel takes the lock away when the process ends, however it ends.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from .console import UsageError, is_first_process, is_standard_stream, locked, log, remove, sweep, to_json, write_whole

RECORD = "run.json"
CARD = "reward_model.json"
STAGING = ".model.partial"
CHECKPOINT_STAGING = ".checkpoint.partial"
SEAL = "checkpoint.json"
"""The last file of a checkpoint: size and hash of all others."""

BESIDE = (RECORD, "README.md", "log.jsonl", "run.svg", "runs", "ppo", "completions")
"""What runs write beside a model and its checkpoints; the last three are folders of trackers."""
# What transformers' save_pretrained of a model and of its tokenizer, and these scripts, write for a model.
OLDER = (
    *("config.json", "generation_config.json", CARD, "ppo.json", "grpo.json", "adapter"),
    *("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "*.bpe.model", "spiece.model", "chat_template.jinja"),
    *("chat_template.json", "additional_chat_templates"),
)
# Read by transformers beside the files of another model, or counted as a checkpoint of it.
READ_ALONG = (
    *("adapter_*", "pytorch_model*", "*.safetensors", "*.safetensors.index.json", "*token*.json", "checkpoint-*"),
)
_BESIDE = "|".join(map(re.escape, BESIDE))
OF_KILLED_RUNS = rf"{re.escape(STAGING)}|{re.escape(CHECKPOINT_STAGING)}|\.({_BESIDE})(\.\d+)?\.partial"


def read_record(output_dir: str | Path) -> dict[str, Any] | None:
    """The content of OUT/run.json, or None where there is none, or one that another program wrote."""
    found = _json_of(Path(output_dir) / RECORD)
    ours = isinstance(found, dict) and not {"files", "fingerprint", "prompts_sha256"}.isdisjoint(found)
    return found if ours else None


def write_record(output_dir: str | Path, record: dict[str, Any]) -> None:
    write_whole(Path(output_dir) / RECORD, [to_json(record, indent=2)])


def _json_of(file: Path) -> Any:
    with contextlib.suppress(OSError, ValueError):
        return json.loads(file.read_text(encoding="utf-8"))


# ---- whose files they are -----------------------------------------------------------------------------------------


def checkpoints(output_dir: str | Path) -> list[Path]:
    """The checkpoints in a folder, oldest first, complete or not."""
    found = [folder for folder in Path(output_dir).glob("checkpoint-*") if folder.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=lambda folder: int(folder.name.rpartition("-")[2]))


def is_complete_checkpoint(folder: str | Path) -> bool:
    """Whether it was written to its end, and nothing of it was deleted since. What is in its files is not read.

    Those of older versions have no seal: trainer_state.json was the last of their files.
    """
    folder = Path(folder)
    if _json_of(folder / "trainer_state.json") is None:
        return False
    seal = _json_of(folder / SEAL)
    if not isinstance(seal, dict):
        processes = int((read_record(folder.parent) or {}).get("world_size", 1))
        states = len(list(folder.glob("rng_state_*.pth")))  # written by each process for itself
        return any(folder.glob("*.safetensors")) and (not states or states >= processes)
    return all((folder / name).exists() for name in seal.get("files", ()))


def last_complete_checkpoint(output_dir: str | Path) -> str | None:
    """The newest checkpoint that was written to its end."""
    complete = [folder for folder in checkpoints(output_dir) if is_complete_checkpoint(folder)]
    return str(complete[-1]) if complete else None


def model_files(output_dir: str | Path) -> set[str]:
    """The names in the folder that make up a model saved by these scripts."""
    folder, record = Path(output_dir), read_record(output_dir)
    if record is not None and "files" in record:
        return {name for name in record["files"] if os.path.lexists(folder / name)}
    card = _json_of(folder / CARD)
    if record is None and not (isinstance(card, dict) and "fingerprint" in card):
        return set()
    own = {path.name for path in folder.iterdir() if _matches(path.name, OLDER)}
    return own | ({"README.md"} if record is None else set())


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def foreign_files(output_dir: str | Path) -> list[str]:
    """The names in the folder that no run of these scripts wrote. Hidden ones are left out: no run reads or deletes them.

    So is the file that this process's output is redirected to.
    """
    folder, model = Path(output_dir), model_files(output_dir)
    started = read_record(folder) is not None

    def is_own(path: Path) -> bool:
        if re.fullmatch(r"checkpoint-\d+", path.name):
            return started or (path / SEAL).exists() or not any(path.iterdir())
        return path.name in model or (started and path.name in BESIDE)

    visible = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path.name for path in visible if not is_own(path) and not is_standard_stream(path))


# ---- before a run -------------------------------------------------------------------------------------------------


def claim(
    output_dir: str | Path,
    *,
    overwrite: bool = False,
    resuming: bool = False,
    dry_run: bool = False,
    inputs: Iterable[str | None] = (),
) -> Path:
    """The folder, made if need be, and locked for this run while the returned object lives.

    It is removed on leaving if nothing came into it. inputs: paths and hub ids that the run reads. A dry run asks what a
    run with `overwrite` would, and locks nothing. Raises UsageError when it holds a model or files of others, or an input,
    when another run is writing there, and when it cannot be written to.
    """
    folder = Path(output_dir)
    if os.path.exists(folder) and not folder.is_dir():  # noqa: PTH110 - False for a name that cannot be
        raise UsageError(f"{folder} is a file, not a folder")
    _refuse_inputs(folder, filter(None, inputs))
    held = _writable(folder)
    if not dry_run and is_first_process():
        held = locked(folder, folder)
        sweep(folder, OF_KILLED_RUNS)
    try:
        _refuse_content(folder, overwrite or dry_run, resuming)
    except UsageError:
        if held is not folder:
            held.let_go()  # at once: the error itself may live on
        raise
    return held


def _refuse_inputs(folder: Path, inputs: Iterable[str]) -> None:
    own = Path(os.path.realpath(folder))
    for name in inputs:
        path = Path(os.path.realpath(name))
        if path.exists() and (path == own or own in path.parents):
            raise UsageError(
                f"{folder} is where the run would write, and it holds what the run reads: {name}",
                hint="give a folder of its own as --output_dir",
            )


def _writable(folder: Path) -> Path:
    try:
        target = Path(os.path.realpath(folder))  # of a link whose target is not there yet, too
        made = [path.absolute() for path in (target, *target.parents) if not path.exists()]
        atexit.register(_remove_empty, made)
        target.mkdir(parents=True, exist_ok=True)
        # Permission bits do not say it all (root, read-only mounts): only a write does.
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}", hint="choose another --output_dir") from error


def _remove_empty(folders: list[Path]) -> None:
    """Remove these folders, innermost first, up to the first that is not empty."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _refuse_content(folder: Path, overwrite: bool, resuming: bool) -> None:
    foreign, newest = foreign_files(folder), last_complete_checkpoint(folder)
    replaced = [name for name in foreign if _matches(name, (*OLDER, *BESIDE, *READ_ALONG))]
    held = [name for name in ("config.json", CARD) if (folder / name).exists()] or [Path(p).name for p in [newest] if p]
    away = f"choose another --output_dir, or move away what no run of these scripts wrote: {_some(foreign)}"
    if held and not (overwrite or resuming):
        raise UsageError(
            f"{folder} already holds a model ({held[0]})",
            hint=f"{away} (--overwrite_output_dir replaces only what they wrote)"
            if replaced
            else "choose another --output_dir, continue with --resume_from_checkpoint, or add --overwrite_output_dir",
        )
    if replaced:
        raise UsageError(
            f"{folder} holds a model or files that no run of these scripts wrote: {_some(replaced)}", hint=away
        )
    if foreign and not (overwrite or resuming):
        raise UsageError(
            f"{folder} holds files that no run of these scripts wrote: {_some(foreign)}",
            hint="choose another --output_dir, or add --overwrite_output_dir: they then stay beside the model",
        )
    if not held and (read_record(folder) or checkpoints(folder)):
        log(f"{folder} holds a run that ended before its first complete checkpoint: it is started anew")


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# ---- during and after a run ---------------------------------------------------------------------------------------


def start(output_dir: str | Path, identity: dict[str, Any], *, resuming: bool) -> None:
    """Write down that a run begins, and remove what an earlier one left that could be taken for its own.

    A model that is there stays until the new one is saved. identity: what must be the same for a run to be resumed.
    """
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    files = sorted(model_files(folder))
    discard_checkpoints(folder, only_incomplete=resuming)
    if not resuming and read_record(folder) is not None:
        for name in ("log.jsonl", "run.svg"):
            remove(folder / name)
    write_record(folder, {**identity, "files": files, "finished": False})


def discard_checkpoints(output_dir: str | Path, *, only_incomplete: bool) -> None:
    """Remove what a killed run left half-written, or everything an earlier run left, which could be resumed by mistake."""
    foreign = foreign_files(output_dir) if Path(output_dir).is_dir() else []
    for folder in checkpoints(output_dir):
        if folder.name not in foreign and not (only_incomplete and is_complete_checkpoint(folder)):
            remove(folder)


def is_finished(output_dir: str | Path) -> bool:
    """Whether the last run in the folder saved its model."""
    record = read_record(output_dir) or {}
    return bool(record.get("finished", True)) and (Path(output_dir) / "config.json").exists()


@contextlib.contextmanager
def staged(output_dir: str | Path) -> Iterator[Path]:
    """A folder to write a model into. Its files move to `output_dir` when the block ends well, and are gone otherwise.

    They move one by one, `config.json` last: a folder that can be loaded is complete. Of what is there, the model that
    these scripts saved before goes, and files of the same names are replaced; everything else stays.
    """
    folder = Path(output_dir)
    staging = folder / STAGING
    try:
        remove(staging)
        staging.mkdir(parents=True)
        yield staging
        _move_into_place(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _move_into_place(staging: Path, folder: Path) -> None:
    before, names = model_files(folder), sorted(path.name for path in staging.iterdir())
    record = read_record(folder) or {}
    foreign = [name for name in names if name not in before and (folder / name).is_dir()]
    if foreign:
        raise UsageError(f"{folder} holds a folder `{foreign[0]}` that is not of a saved model", hint="move it away")
    # Killed from here on, the record knows all the names, and the next run starts anew.
    write_record(folder, {**record, "files": sorted({*before, *names}), "finished": False})
    (folder / "config.json").unlink(missing_ok=True)
    for name in before:
        remove(folder / name)
    for name in sorted(names, key=lambda name: (name == "config.json", name == CARD)):
        (staging / name).replace(folder / name)
    write_record(folder, {**record, "files": names, "finished": True})
