"""Checkpoints of a run: sealed when complete, checked before a run goes on from one, and refused for another run."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .. import output_folder
from ..errors import RunError, UsageError, UserError, is_full_disk
from ..output_folder import SEAL, checkpoints, is_complete_checkpoint, last_complete_checkpoint, read_record
from ..outputs import write_whole
from ..results import sorted_json, to_json
from ..terminal import is_first_process, log

IDENTITY_FIELDS = (
  *("seed", "learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs"),
  *("max_steps", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "optim"),
  *("bf16", "fp16", "world_size", "fsdp"),
)
"""Must be the same for a resumed run to end where the undisturbed one would have."""


def seal(folder: str | Path) -> None:
  """Write down size and hash of all files of a checkpoint: neither safetensors nor torch notices a flipped bit."""
  folder = Path(folder)
  paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != SEAL]
  files = {path.relative_to(folder).as_posix(): _facts(path) for path in paths}
  write_whole(folder / SEAL, [to_json({"files": files})])


def _facts(path: Path) -> list[Any]:
  import xxhash  # which datasets needs; as fast as memory

  with open(path, "rb", buffering=0) as file:
    return [path.stat().st_size, hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()]


def damaged(folder: str | Path) -> str | None:
  folder = Path(folder)
  try:
    files = json.loads((folder / SEAL).read_text(encoding="utf-8"))["files"].items()
    return next((name for name, facts in files if _facts(folder / name) != facts), None)
  except FileNotFoundError as error:
    return None if Path(error.filename).name == SEAL else Path(error.filename).name
  except (OSError, ValueError, AttributeError, TypeError, KeyError):
    return SEAL


def resume_point(resume: str | bool | None, output_dir: str | Path) -> str | None:
  """Raises UsageError when there is no checkpoint to continue from, or the run is finished; RunError when one is damaged."""
  if not resume:
    return None
  if str(resume) in ("true", "True"):
    found, folders = last_complete_checkpoint(output_dir), checkpoints(output_dir)
    if output_folder.is_finished(output_dir):
      _refuse_finished(found, output_dir)
    for folder in folders:
      if not is_complete_checkpoint(folder):
        log(f"{folder} is not complete, and passed over")
    if found is None and not (read_record(output_dir) or folders):
      raise UsageError(
        f"{output_dir} holds no complete checkpoint to resume from",
        hint="start without --resume_from_checkpoint, and set --save_steps below the number of steps",
      )
    if found is None and folders and (folders[-1] / SEAL).exists():  # it was complete
      _refuse_damaged(folders[-1])
  elif is_complete_checkpoint(resume):
    found = resume
  else:
    raise UsageError(
      f"{resume} is not a complete checkpoint",
      hint="--resume_from_checkpoint alone takes the newest complete one of --output_dir",
    )
  if found and is_first_process():
    _refuse_damaged(Path(found))
  return found


def _refuse_finished(checkpoint: str | None, output_dir: str | Path) -> None:
  state = json.loads((Path(checkpoint) / "trainer_state.json").read_text(encoding="utf-8")) if checkpoint else {}
  steps = state.get("global_step", 0)
  if checkpoint is None or steps >= state.get("max_steps", 0):
    after = f" after {steps} steps" if checkpoint else ""
    raise UsageError(
      f"the run in {output_dir} is finished: its model was saved{after}",
      hint=f"to train it further, start from it: --model_name_or_path {output_dir} --output_dir NEW",
    )


def _refuse_damaged(checkpoint: Path) -> None:
  name = damaged(checkpoint)
  if name is not None:
    told = f"the checkpoint is damaged: {name} is not as it was written"
    raise RunError(told, where=str(checkpoint / name), hint=_way_on(checkpoint))


def explain_unreadable(error: BaseException, checkpoint: str | Path) -> None:
  ours = isinstance(error, UserError) or not isinstance(error, Exception)
  if ours or is_full_disk(error) or "out of memory" in str(error).lower():
    return
  told = f"the checkpoint cannot be read ({type(error).__name__})"
  raise RunError(told, where=str(checkpoint), hint=_way_on(Path(checkpoint))) from error


def _way_on(checkpoint: Path) -> str:
  others = [path for path in checkpoints(checkpoint.parent) if path != checkpoint and is_complete_checkpoint(path)]
  if good := [path for path in others if damaged(path) is None]:
    return f"continue from the one before: --resume_from_checkpoint {good[-1]}"
  return "there is no other checkpoint: start again with --overwrite_output_dir, without --resume_from_checkpoint"


# ---- which run it is ----


def rows_digest(rows: Iterable[object]) -> str:
  found = hashlib.sha256()
  for row in rows:
    found.update(sorted_json(row).encode())
  return found.hexdigest()[:16]


def start_run(output_dir: str | Path, process_index: int, identity: dict[str, object], resume: str | None) -> None:
  """Clear the output folder for a run, and write down its identity. Raises RunError when another run would be resumed."""
  before = (read_record(output_dir) or {}) if resume else {}
  known = [(name, before[name], value) for name, value in identity.items() if name in before]
  if changed := [f"{name} ({old} -> {new})" for name, old, new in known if old != new]:
    raise RunError(
      f"cannot resume: {', '.join(changed)}",
      where=str(Path(output_dir) / output_folder.RECORD),
      hint="repeat the flags of the first run, and give what was a default then as a flag; to train its model further, give it "
      "as --model_name_or_path with a new --output_dir",
    )
  if process_index == 0:
    output_folder.start(output_dir, identity, resuming=bool(resume))
    for folder in checkpoints(output_dir):  # of an older version, or killed between the last file and the seal
      if not (folder / SEAL).exists() and is_complete_checkpoint(folder):
        seal(folder)
