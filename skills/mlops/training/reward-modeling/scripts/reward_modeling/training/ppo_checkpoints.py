"""Checkpoints of a PPO run: what is trained, the optimizer, and how far it came. Random states follow from the seed."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .. import output_folder
from ..console import to_json
from . import resuming

if TYPE_CHECKING:
    from .ppo import PPO

PER_PROCESS = ("per_device_train_batch_size", "gradient_accumulation_steps", "local_rollout_forward_batch_size")
"""One process with twice the batch is the same run as two."""


def identify(run: PPO, resume: str | None, **more: Any) -> None:
    """Write down what must be the same for a resumed run to end where the undisturbed one would have.

    Raises RunError when the run to be resumed was another one.
    """
    prompts = resuming.digest([prompt.ids for prompt in run.prompts])
    named = asdict(run.settings) | {"batch_size": run.batch_size, "prompts_sha256": prompts} | more
    identity = {name: str(value) for name, value in named.items() if name not in PER_PROCESS}
    resuming.start_run(run.output_dir, run.process_index, identity, resume)


def save(run: PPO, limit: int) -> None:
    """Write a checkpoint; it appears complete. Only what is trained is in it. The oldest over `limit` go."""
    from safetensors.torch import save_file

    if run.process_index == 0:
        partial = run.output_dir / output_folder.CHECKPOINT_STAGING
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        trained = {name: p.detach().contiguous() for name, p in run.plain.named_parameters() if p.requires_grad}
        save_file(trained, partial / "actor.safetensors")
        state = {"optimizer": run.optimizer.state_dict(), "scheduler": run.scheduler.state_dict()}
        torch.save(state, partial / "optimizer.pt")
        state = {"global_step": run.done, "max_steps": run.updates, "kl_coef": run.kl_coef}
        (partial / "trainer_state.json").write_text(to_json(state), encoding="utf-8")
        resuming.seal(partial)
        complete = run.output_dir / f"checkpoint-{run.done}"
        shutil.rmtree(complete, ignore_errors=True)
        partial.rename(complete)
        for old in output_folder.checkpoints(run.output_dir)[:-limit]:
            shutil.rmtree(old, ignore_errors=True)
    run.accelerator.wait_for_everyone()


def load(run: PPO, checkpoint: Path) -> None:
    """Continue from a checkpoint. Raises RunError when it cannot be read."""
    from safetensors.torch import load_file

    try:
        run.plain.load_state_dict(load_file(checkpoint / "actor.safetensors"), strict=False)
        state = torch.load(checkpoint / "optimizer.pt", map_location=run.accelerator.device, weights_only=True)
        run.optimizer.load_state_dict(state["optimizer"])
        run.scheduler.load_state_dict(state["scheduler"])
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        run.done, run.kl_coef = state["global_step"], state["kl_coef"]
    except Exception as error:
        resuming.explain_unreadable(error, checkpoint)
        raise
