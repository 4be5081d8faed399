"""What a run may write into its output folder, and delete there: its own names and no others. OUT/run.json holds a run's identity,
the names of the saved model (older versions: OLDER) and whether the last run saved one."""

import atexit
import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from .errors import UsageError
from .outputs import is_standard_stream, locked, remove, write_whole
from .results import to_json
from .terminal import is_first_process, log

RECORD = "run.json"
CARD = "reward_model.json"
STAGING = ".model.partial"
CHECKPOINT_STAGING = ".checkpoint.partial"
SEAL = "checkpoint.json"
"""The last file of a checkpoint: size and hash of all others."""

TRAINED_ON = "trained_on.txt"
FOLDS = "folds.jsonl"
BESIDE = (RECORD, TRAINED_ON, FOLDS, "README.md", "log.jsonl", "run.svg", "run.html", "runs", "ppo", "completions")
"""What runs write beside a model and its checkpoints; the last three are folders of trackers."""
# What transformers' save_pretrained, and these scripts, write for a model.
OLDER = (
  *("config.json", "generation_config.json", CARD, "ppo.json", "grpo.json", "adapter"),
  *("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
  *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
  *("vocab.json", "vocab.txt", "merges.txt", "*.bpe.model", "spiece.model", "chat_template.jinja"),
  *("chat_template.json", "additional_chat_templates"),
)
# Read by transformers beside the files of another model, or counted as a checkpoint of it.
READ_ALONG = "adapter_*", "pytorch_model*", "*.safetensors", "*.safetensors.index.json", "*token*.json", "checkpoint-*"
OF_KILLED_RUNS = rf"\.(model|checkpoint)\.partial|\.({'|'.join(map(re.escape, BESIDE))})(\.\d+)?\.partial"


def read_record(folder: Path) -> dict[str, object] | None:
  """The content of OUT/run.json, or None where these scripts wrote none."""
  found = _json(folder / RECORD)
  return None if {"files", "fingerprint", "prompts_sha256"}.isdisjoint(found) else found


def _write_record(folder: Path, record: dict[str, object]) -> None:
  write_whole(folder / RECORD, [to_json(record, indent=2)])


def _json(file: Path) -> dict[str, object]:
  with contextlib.suppress(OSError, ValueError):
    found = json.loads(file.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}
  return {}


def checkpoints(folder: Path) -> list[Path]:
  """Oldest first, complete or not."""
  steps = {one: one.name.rpartition("-")[2] for one in folder.glob("checkpoint-*")}
  return sorted((one for one, step in steps.items() if step.isdigit()), key=lambda one: int(steps[one]))


def is_complete_checkpoint(folder: Path) -> bool:
  """Whether nothing of it is missing. Without a seal (older versions) trainer_state.json was written last."""
  if not _json(folder / "trainer_state.json"):
    return False
  if seal := _json(folder / SEAL):
    return all((folder / name).exists() for name in seal.get("files", ()))
  processes = int((read_record(folder.parent) or {}).get("world_size", 1))
  states = len(list(folder.glob("rng_state_*.pth")))  # written by each process for itself
  return any(folder.glob("*.safetensors")) and (not states or states >= processes)


def last_complete_checkpoint(folder: Path) -> Path | None:
  return next(filter(is_complete_checkpoint, reversed(checkpoints(folder))), None)


def model_files(folder: Path) -> set[str]:
  record = read_record(folder)
  if record and "files" in record:
    return {name for name in record["files"] if os.path.lexists(folder / name)}
  if not record and "fingerprint" not in _json(folder / CARD):
    return set()
  own = OLDER if record else (*OLDER, TRAINED_ON, "README.md")
  return {path.name for path in folder.iterdir() if _matches(path.name, own)}


def _matches(name: str, patterns: Iterable[str]) -> bool:
  return any(fnmatchcase(name, pattern) for pattern in patterns)


def foreign_files(folder: Path) -> list[str]:
  """But for hidden ones and the file that this process's output goes to."""
  own = model_files(folder)
  started = read_record(folder) is not None
  if started:
    own |= {*BESIDE}

  def is_foreign(path: Path) -> bool:
    if re.fullmatch(r"checkpoint-\d+", path.name):
      return not started and not (path / SEAL).exists() and any(path.iterdir())
    return not (path.name in own or path.name.startswith(".") or is_standard_stream(path))

  return sorted(path.name for path in folder.iterdir() if is_foreign(path))


def claim(
  output_dir: str | Path,
  *,
  overwrite: bool = False,
  resuming: bool = False,
  dry_run: bool = False,
  inputs: Iterable[str | None] = (),
) -> Path:
  """The folder, made if need be, locked while the returned object lives, gone on leaving if it is empty.

  inputs: what the run reads. A dry run asks what `overwrite` would, and locks nothing. Raises UsageError where a run may not write."""
  folder = Path(output_dir)
  if os.path.exists(folder) and not folder.is_dir():  # noqa: PTH110 - False for a name that cannot be
    raise UsageError(f"{folder} is a file, not a folder")
  own = Path(os.path.realpath(folder))
  for name in filter(None, inputs):
    path = Path(os.path.realpath(name))
    if path.exists() and (path == own or own in path.parents):
      raise UsageError(f"{folder} holds what the run reads: {name}", hint="choose another --output_dir")
  _check_writable(folder)
  held = folder
  if not dry_run and is_first_process():
    held = locked(folder, folder)
    for path in folder.iterdir():
      if re.fullmatch(OF_KILLED_RUNS, path.name):
        remove(path)
  try:
    _refuse_content(folder, overwrite or dry_run, resuming)
  except UsageError:
    if held is not folder:
      held.let_go()  # at once: the error itself may live on
    raise
  return held


def _check_writable(folder: Path) -> None:
  try:
    target = Path(os.path.realpath(folder))  # of a link whose target is not there yet, too
    atexit.register(_remove_empty, [path.absolute() for path in (target, *target.parents) if not path.exists()])
    target.mkdir(parents=True, exist_ok=True)
    # Permission bits do not say it all (root, read-only mounts): only a write does.
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise UsageError(f"cannot write to {folder}: {error.strerror}", hint="choose another --output_dir") from error


def _remove_empty(folders: list[Path]) -> None:
  with contextlib.suppress(OSError):
    for folder in folders:
      folder.rmdir()


def _refuse_content(folder: Path, overwrite: bool, resuming: bool) -> None:
  foreign, newest = foreign_files(folder), last_complete_checkpoint(folder)
  replaced = [name for name in foreign if _matches(name, (*OLDER, *BESIDE, *READ_ALONG))]
  held = next((name for name in ("config.json", CARD) if (folder / name).exists()), newest and newest.name)
  other, allowed = "choose another --output_dir", overwrite or resuming
  away = f"{other}, or move away what no run of these scripts wrote: {_some(foreign)}"
  if held and not allowed:
    hint = f"{other}, continue with --resume_from_checkpoint, or add --overwrite_output_dir"
    if replaced:
      hint = f"{away} (--overwrite_output_dir replaces only what they wrote)"
    raise UsageError(f"{folder} already holds a model ({held})", hint=hint)
  if replaced:
    what = f"{folder} holds a model or files that no run of these scripts wrote: {_some(replaced)}"
    raise UsageError(what, hint=away)
  if foreign and not allowed:
    hint = f"{other}, or add --overwrite_output_dir: they then stay beside the model"
    raise UsageError(f"{folder} holds files that no run of these scripts wrote: {_some(foreign)}", hint=hint)
  if not held and (read_record(folder) or checkpoints(folder)):
    log(f"{folder} holds a run without a complete checkpoint: it is started anew")


def _some(names: list[str]) -> str:
  return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def start(folder: Path, identity: dict[str, object], *, resuming: bool) -> None:
  """Remove what could be taken for this run's own; a model stays until the new one is saved.

  identity: what must be the same for a run to be resumed.
  """
  folder.mkdir(parents=True, exist_ok=True)
  files = sorted(model_files(folder))
  discard_checkpoints(folder, only_incomplete=resuming)
  if not resuming and read_record(folder) is not None:
    for name in (TRAINED_ON, FOLDS, "log.jsonl", "run.svg", "run.html"):
      remove(folder / name)
  _write_record(folder, {**identity, "files": files, "finished": False})


def discard_checkpoints(folder: Path, *, only_incomplete: bool) -> None:
  foreign = foreign_files(folder) if folder.is_dir() else []
  for one in checkpoints(folder):
    if one.name not in foreign and not (only_incomplete and is_complete_checkpoint(one)):
      remove(one)


def is_finished(folder: Path) -> bool:
  record = read_record(folder) or {}
  return bool(record.get("finished", True)) and (folder / "config.json").exists()


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
  """A folder for a model, whose files replace the model in `folder` when the block ends well; `config.json` last: what can be
  loaded is complete."""
  staging = folder / STAGING
  try:
    remove(staging)
    staging.mkdir(parents=True)
    yield staging
    _move_into_place(staging, folder)
  finally:
    remove(staging)


def _move_into_place(staging: Path, folder: Path) -> None:
  before, names = model_files(folder), sorted(path.name for path in staging.iterdir())
  record = read_record(folder) or {}
  foreign = [name for name in names if name not in before and (folder / name).is_dir()]
  if foreign:
    raise UsageError(f"{folder} holds a folder `{foreign[0]}` that is not of a saved model", hint="move it away")
  # If it is killed from here on, the record knows all the names.
  _write_record(folder, {**record, "files": sorted({*before, *names}), "finished": False})
  (folder / "config.json").unlink(missing_ok=True)
  for name in before:
    remove(folder / name)
  for name in sorted(names, key=lambda name: (name == "config.json", name == CARD)):
    (staging / name).replace(folder / name)
  _write_record(folder, {**record, "files": names, "finished": True})
