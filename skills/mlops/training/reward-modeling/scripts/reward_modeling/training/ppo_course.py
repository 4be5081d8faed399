"""The course of a PPO run: one update after the other, its log and checkpoints, how it ends, and what it was."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from .. import output_folder
from ..console import RunError, log, to_json, warn
from . import resuming
from .ppo import PPO
from .results import PPOSummary
from .run_log import RunLog, concerns, start_and_end

SHOWN = ("reward", "kl", "entropy", "length", "eos_rate", "explained_variance")
PER_PROCESS = ("per_device_train_batch_size", "gradient_accumulation_steps", "local_rollout_forward_batch_size")
"""One process with twice the batch is the same run as two."""


def run(
    ppo: PPO,
    output_dir: str | Path,
    resume: str | None = None,
    *,
    save_steps: int,
    save_total_limit: int,
    log_every: int,
    shown: int = 0,
) -> tuple[PPOSummary, list[dict[str, Any]]]:
    """Train to the end, to the KL budget, or to an error. Returns the summary of the run and the entries of its log.

    save_steps: updates between checkpoints. log_every: between lines on stderr. shown: in how many of the updates sample
    completions are logged. Raises RunError, naming the update; the checkpoints written before stay.
    """
    folder, stopped = Path(output_dir), None
    if resume:
        load(ppo, Path(resume))
    run_log = RunLog(folder / "log.jsonl")
    run_log.start(ppo.done, write=ppo.process_index == 0)
    while ppo.done < ppo.updates:
        with _naming_update(ppo, folder):
            sampled = bool(shown) and ppo.done % max(1, ppo.updates // shown) == 0
            entry, stopped = ppo.update(ppo.done, sampled=sampled)
        step = entry["step"]
        ppo.accelerator.log({name: value for name, value in entry.items() if name not in ("step", "samples")}, step)
        run_log.add(entry)
        if step % log_every == 0 or step in (1, ppo.updates):
            numbers = "  ".join(f"{name} {entry[name]:.3g}" for name in SHOWN if name in entry)
            log(f"update {step}/{ppo.updates}  {numbers}")
        if stopped:
            log(f"stopped before update {step} of {ppo.updates}: {stopped}")
            break
        ppo.done = step
        if step % save_steps == 0 and step < ppo.updates:
            save(ppo, folder, save_total_limit)
    return summarize(ppo, run_log.entries, stopped), run_log.entries


@contextlib.contextmanager
def _naming_update(ppo: PPO, output_dir: Path) -> Iterator[None]:
    """Let an error say in which update it happened, and what is left of the run."""
    try:
        yield
    except RunError as error:
        kept = output_folder.last_complete_checkpoint(output_dir)
        raise RunError(
            f"update {ppo.done + 1} of {ppo.updates}: {error.message}",
            where=kept and f"{kept} is the last good checkpoint",
            hint=error.hint or "lower --learning_rate, or raise --kl_coef",
        ) from error


def summarize(ppo: PPO, history: Sequence[dict[str, Any]], stopped: str | None) -> PPOSummary:
    """What the run was. Warns where its reward was probably gamed. stopped: why it ended early, if it did."""
    ends = start_and_end(history, ("reward", "kl", "length", "eos_rate"))
    warnings = concerns(ends["beginning"], ends["end"], ppo.settings.warn_kl)
    for warning in warnings:
        warn(warning)
    seconds = sum(entry["seconds"] for entry in history)
    return PPOSummary(
        updates=ppo.done,
        episodes=history[-1]["episode"],
        stopped=stopped,
        **ends,
        kl_coef=ppo.kl_coef,
        warnings=warnings,
        seconds={**ppo.seconds, "all": seconds},
        samples_per_second=history[-1]["episode"] / max(seconds, 1e-9),
        settings=asdict(ppo.settings) | {"world_size": ppo.world, "batch_size": ppo.batch_size},
    )


# ---- checkpoints: what is trained, the optimizer, and how far it came. Random states follow from the seed ----------


def identify(ppo: PPO, output_dir: Path, resume: str | None, **more: Any) -> None:
    """Write down what must be the same for a resumed run to end where the undisturbed one would have.

    Raises RunError when the run to be resumed was another one.
    """
    prompts = resuming.digest([prompt.ids for prompt in ppo.prompts])
    named = asdict(ppo.settings) | {"batch_size": ppo.batch_size, "prompts_sha256": prompts} | more
    identity = {name: str(value) for name, value in named.items() if name not in PER_PROCESS}
    resuming.start_run(output_dir, ppo.process_index, identity, resume)


def save(ppo: PPO, output_dir: Path, limit: int) -> None:
    """Write a checkpoint; it appears complete. The oldest over `limit` go.

    Its policy is a plain causal language model, or the adapter of one; what is trained of the value model is in optimizer.pt.
    """
    if ppo.process_index == 0:
        partial = output_dir / output_folder.CHECKPOINT_STAGING
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        ppo.policy.write(partial)
        state = {"optimizer": ppo.optimizer.state_dict(), "scheduler": ppo.scheduler.state_dict()}
        state["value"] = {name: p.detach() for name, p in ppo.plain.trained_values().items()}
        torch.save(state, partial / "optimizer.pt")
        state = {"global_step": ppo.done, "max_steps": ppo.updates, "kl_coef": ppo.kl_coef}
        (partial / "trainer_state.json").write_text(to_json(state), encoding="utf-8")
        resuming.seal(partial)
        complete = output_dir / f"checkpoint-{ppo.done}"
        shutil.rmtree(complete, ignore_errors=True)
        partial.rename(complete)
        for old in output_folder.checkpoints(output_dir)[:-limit]:
            shutil.rmtree(old, ignore_errors=True)
    ppo.accelerator.wait_for_everyone()


def load(ppo: PPO, checkpoint: Path) -> None:
    """Continue from a checkpoint. Raises RunError when it cannot be read."""
    try:
        state = torch.load(checkpoint / "optimizer.pt", map_location=ppo.accelerator.device, weights_only=True)
        if "value" in state:
            ppo.policy.read(checkpoint)
            ppo.plain.load_state_dict(state["value"], strict=False)
        else:  # of an older version
            from safetensors.torch import load_file

            ppo.plain.load_state_dict(load_file(checkpoint / "actor.safetensors"), strict=False)
        ppo.optimizer.load_state_dict(state["optimizer"])
        ppo.scheduler.load_state_dict(state["scheduler"])
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        ppo.done, ppo.kl_coef = state["global_step"], state["kl_coef"]
    except Exception as error:
        resuming.explain_unreadable(error, checkpoint)
        raise
