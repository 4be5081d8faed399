"""Checkpoints of a run: sealed when complete, checked before a run goes on from one, and refused for another run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import output_folder
from ..console import RunError, UsageError, UserError, is_first_process, is_full_disk, log, to_json, write_whole
from ..output_folder import SEAL, checkpoints, is_complete_checkpoint, last_complete_checkpoint, read_record

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import TrainingArguments

    from ..rendering import Renderer


def seal(folder: str | Path) -> None:
    """Write down size and hash of all files of a complete checkpoint: neither safetensors nor torch notices a flipped bit."""
    folder = Path(folder)
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != SEAL)
    write_whole(
        folder / SEAL, [to_json({"files": {path.relative_to(folder).as_posix(): _facts(path) for path in files}})]
    )


def _facts(path: Path) -> list[Any]:
    import xxhash  # which datasets needs; as fast as memory

    with open(path, "rb", buffering=0) as file:
        return [path.stat().st_size, hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()]


def damaged(folder: str | Path) -> str | None:
    """The first file of a sealed checkpoint that is not as it was written, if there is one."""
    folder = Path(folder)
    try:
        files = json.loads((folder / SEAL).read_text(encoding="utf-8"))["files"].items()
        return next((name for name, facts in files if _facts(folder / name) != facts), None)
    except FileNotFoundError as error:
        return None if Path(error.filename).name == SEAL else Path(error.filename).name
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return SEAL


def resume_point(resume: str | bool | None, output_dir: str | Path) -> str | None:
    """The checkpoint to continue from, or None for a fresh start. Raises UsageError when there is none, or when that run is
    finished; RunError when one of its files is damaged."""
    if not resume:
        return None
    if resume is True or resume in ("true", "True"):
        found = last_complete_checkpoint(output_dir)
        if output_folder.is_finished(output_dir):
            _refuse_finished(found, output_dir)
        for folder in checkpoints(output_dir):
            if not is_complete_checkpoint(folder):
                log(f"{folder} is not complete, and passed over")
        if found is None and not (read_record(output_dir) or checkpoints(output_dir)):
            raise UsageError(
                f"{output_dir} holds no complete checkpoint to resume from",
                hint="start without --resume_from_checkpoint, and set --save_steps below the number of steps",
            )
        newest = checkpoints(output_dir)[-1:]
        if found is None and newest and (newest[0] / SEAL).exists():  # it was complete
            _refuse_damaged(newest[0])
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
    """Raises UsageError when the run that wrote this checkpoint has reached its end and saved its model."""
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
        raise RunError(
            f"the checkpoint is damaged: {name} is not as it was written",
            where=str(checkpoint / name),
            hint=way_on(checkpoint),
        )


def explain_unreadable(error: BaseException, checkpoint: str | Path) -> None:
    """Raises RunError in place of what a library says of a checkpoint without a seal that it cannot read."""
    ours = isinstance(error, UserError) or not isinstance(error, Exception)
    if ours or is_full_disk(error) or "out of memory" in str(error).lower():
        return
    raise RunError(
        f"the checkpoint cannot be read ({type(error).__name__})", where=str(checkpoint), hint=way_on(checkpoint)
    ) from error


def way_on(checkpoint: str | Path) -> str:
    """What to do when a checkpoint cannot be used."""
    folder = Path(checkpoint)
    others = [path for path in checkpoints(folder.parent) if path != folder and is_complete_checkpoint(path)]
    good = [path for path in others if damaged(path) is None]
    if good:
        return f"continue from the one before: --resume_from_checkpoint {good[-1]}"
    return "there is no other checkpoint: start again with --overwrite_output_dir, without --resume_from_checkpoint"


# ---- which run it is ----------------------------------------------------------------------------------------------


def run_identity(
    arguments: TrainingArguments,
    rows: Iterable[dict[str, Any]],
    renderer: Renderer,
    head: str,
    *,
    peft_config: LoraConfig | None = None,
    **loss: Any,
) -> dict[str, Any]:
    """What must be the same for a resumed run to end where the undisturbed one would have. loss: settings of the loss."""
    names = (
        *("seed", "learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs"),
        *("max_steps", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "optim"),
        *("bf16", "fp16", "world_size"),
    )
    settings = {name: str(getattr(arguments, name)) for name in names} | {name: str(loss[name]) for name in loss}
    settings["lora"] = str(peft_config and list(lora_summary(peft_config).values()))
    return {"data_sha256": digest(rows), "fingerprint": renderer.fingerprint, "head": head, **settings}


def digest(rows: Iterable[Any]) -> str:
    """Sixteen hex digits of rows that JSON can carry."""
    found = hashlib.sha256()
    for row in rows:
        found.update(json.dumps(row, sort_keys=True).encode())
    return found.hexdigest()[:16]


def lora_summary(lora: LoraConfig) -> dict[str, Any]:
    targets = lora.target_modules if isinstance(lora.target_modules, str) else sorted(lora.target_modules)
    return {"r": lora.r, "alpha": lora.lora_alpha, "dropout": lora.lora_dropout, "target_modules": targets}


def check_same_run(output_dir: Path, identity: dict[str, Any]) -> None:
    """Raises RunError when the run in `output_dir` was started with other data or settings."""
    before = read_record(output_dir) or {}
    changed = [
        f"{name} ({before[name]} -> {value})"
        for name, value in identity.items()
        if name in before and before[name] != value
    ]
    if changed:
        raise RunError(
            f"cannot resume: {', '.join(changed)}",
            where=str(Path(output_dir) / output_folder.RECORD),
            hint="repeat the flags of the first run; to train its model further, give it as --model_name_or_path with a new --output_dir",
        )


def start_run(output_dir: str | Path, process_index: int, identity: dict[str, Any], resume: str | None) -> None:
    """Clear the output folder for a run, and write down its identity. Raises RunError when it cannot be resumed."""
    if resume:
        check_same_run(Path(output_dir), identity)
    if process_index == 0:
        output_folder.start(output_dir, identity, resuming=bool(resume))
        for folder in checkpoints(output_dir):  # of an older version, or killed between the last file and the seal
            if not (folder / SEAL).exists() and is_complete_checkpoint(folder):
                seal(folder)
