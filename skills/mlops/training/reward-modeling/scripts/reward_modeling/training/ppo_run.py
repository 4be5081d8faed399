"""A run of PPO: device and models, the updates of ppo.py one after the other, their log, checkpoints and summary."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from .. import output_folder
from ..errors import RunError, UsageError
from ..hf import LoraConfig
from ..outputs import remove
from ..precision import precision
from ..results import to_json
from ..terminal import check_interrupted, log
from . import configuration, resuming
from .actor_critic import actor_critic
from .policy import Policy
from .ppo import PPO
from .prompts import Prompt
from .reinforcement import Entries, RunLog, concerns, entries_until, start_and_end
from .results import PlannedPPO, TrainedPPO
from .rewards import PolicyRewards
from .settings import RESPONSE_LENGTH, VALUE_MODELS, PPORunSettings, PPOSettings

TOLD_OF_UPDATE = ("reward", "kl", "entropy", "length", "eos_rate", "explained_variance")
PER_PROCESS = ("per_device_train_batch_size", "gradient_accumulation_steps", "local_rollout_forward_batch_size")
"""One process with twice the batch is the same run as two."""


class PPORun:
  """PPO for `reinforcement.train`. course: what decides the course of the run."""

  limit, default_length, summary = "--response_length", RESPONSE_LENGTH, "ppo.json"
  planned, trained = PlannedPPO, TrainedPPO
  panels = {  # noqa: RUF012 - of the picture: title -> names in the log
    "reward": ("reward", "objective"),
    "KL to the reference (nats per answer)": ("kl",),
    "length of the answers (tokens)": ("length",),
    "entropy (nats per token)": ("entropy",),
  }

  def __init__(self, settings: PPORunSettings, course: PPOSettings):
    self.settings, self.course = settings, course
    self.split, self.length = settings.dataset_train_split, course.response_length
    self.inputs = {settings.value_model}.difference(VALUE_MODELS)

  def prepare(self) -> None:
    """Device, precision, processes and trackers: fp32 on a CPU unless asked, bf16 autocast on a GPU that has it."""
    configuration.check_whole(None)
    settings, hardware = self.settings, precision({"bf16": self.settings.bf16})
    warnings.filterwarnings("ignore", message="`log_with=")  # said below, in our words
    try:
      self.accelerator = Accelerator(
        cpu=hardware["use_cpu"],
        mixed_precision="bf16" if hardware["bf16"] else "no",
        log_with=None if list(settings.report_to) == ["none"] else list(settings.report_to),
        project_dir=settings.output_dir,
      )
    except ValueError as error:
      told = f"--report_to {' '.join(settings.report_to)}: {error}"
      raise UsageError(told, hint="install it, or leave the flag out") from error
    self.accelerator.init_trackers("ppo")
    self.process_index, self.device = self.accelerator.process_index, str(self.accelerator.device)
    self.reward_device = self.device

  def configure(self, policy: Policy, length: int) -> None:
    self.length = length

  def make(self, policy: Policy, prompts: Sequence[Prompt], rewards: PolicyRewards, lora: LoraConfig | None) -> str:
    settings, course = self.settings, self.course
    rate, note = configuration.policy_rate("ppo", policy.model.num_parameters(), settings.use_peft)
    self.value_model = settings.value_model
    if settings.value_model == "reward":
      if not settings.reward_model_path:
        raise UsageError("--value_model reward needs --reward_model_path")
      self.value_model = settings.reward_model_path[0]
    actor = actor_critic(policy, self.value_model, course.temperature, lora)
    value_rate = course.value_learning_rate or course.learning_rate or rate
    if course.learning_rate is None:
      log(f"setting: {note}")
      if course.value_learning_rate is None and settings.value_model not in ("policy", "shared"):
        value_rate, note = configuration.policy_rate("ppo", actor.trunk.num_parameters(), settings.use_peft)
        log(f"setting: value_{note}")
    course = replace(
      course,
      learning_rate=course.learning_rate or rate,
      response_length=self.length,
      total_episodes=course.total_episodes or max(1, round(settings.num_train_epochs * len(prompts))),
      value_learning_rate=value_rate,
    )
    if settings.gradient_checkpointing:
      for model in filter(None, (actor.policy, actor.trunk)):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    self.ppo = PPO(policy, actor, rewards, prompts, course, self.accelerator, settings.shared_prefix)
    why = self.ppo.why_padded
    batches = f"padded, since {why}" if why else "packed"
    self.told = {"updates": self.ppo.updates, "settings": vars(course), "batches": batches}
    return (
      f"{self.ppo.updates} updates of {self.ppo.batch_size} answers in {course.num_ppo_epochs} passes of "
      f"{course.num_mini_batches} steps; {self.ppo.world} process(es) on {self.device}; "
      f"value model: {settings.value_model}"
    )

  def extent(self) -> tuple[int, int]:
    course, updates = self.ppo.settings, self.ppo.updates
    return updates * course.num_ppo_epochs * course.num_mini_batches, updates * self.ppo.batch_size

  def identity(self) -> dict[str, str]:
    named = asdict(self.ppo.settings) | {
      "batch_size": self.ppo.batch_size,
      "policy": self.settings.model_name_or_path,
      "value_model": self.value_model,
    }
    return {name: str(value) for name, value in named.items() if name not in PER_PROCESS}

  def train(self, output_dir: Path, resume: str | None) -> tuple[dict[str, Any], Entries]:
    found = run_ppo(self.ppo, output_dir, resume, self.settings)
    self.accelerator.end_training()
    return found


# ---- the course ----


def run_ppo(ppo: PPO, folder: Path, resume: str | None, settings: PPORunSettings) -> tuple[dict[str, Any], Entries]:
  """Train to the end, to the KL budget, or to an error. Returns the summary of the run and the entries of its log.

  Raises RunError, naming the update.
  """
  stopped, shown = None, settings.num_sample_generations
  if resume:
    load_checkpoint(ppo, Path(resume))
  file = folder / "log.jsonl"
  run_log = RunLog(file, entries_until(file, ppo.done), write=ppo.process_index == 0)
  while ppo.done < ppo.updates:
    check_interrupted()
    sampled = bool(shown) and ppo.done % max(1, ppo.updates // shown) == 0
    try:
      entry, stopped = ppo.update(ppo.done, sampled=sampled)
    except RunError as error:
      kept = output_folder.last_complete_checkpoint(folder)
      raise RunError(
        f"update {ppo.done + 1} of {ppo.updates}: {error.message}",
        where="; ".join(filter(None, (error.where, kept and f"{kept} is the last good checkpoint"))),
        hint=error.hint,
      ) from error
    step = entry["step"]
    ppo.accelerator.log({name: value for name, value in entry.items() if name not in ("step", "samples")}, step)
    run_log.add(entry)
    if step % settings.logging_steps == 0 or step in (1, ppo.updates):
      numbers = "  ".join(f"{name} {entry[name]:.3g}" for name in TOLD_OF_UPDATE if name in entry)
      log(f"update {step}/{ppo.updates}  {numbers}")
    if stopped:
      log(f"stopped before update {step} of {ppo.updates}: {stopped}")
      break
    ppo.done = step
    if step % settings.save_steps == 0 and step < ppo.updates:
      save_checkpoint(ppo, folder, settings.save_total_limit)
  return summarize_run(ppo, run_log.entries, stopped), run_log.entries


def summarize_run(ppo: PPO, history: Entries, stopped: str | None) -> dict[str, Any]:
  ends = start_and_end(history, ("reward", "kl", "kl_k3", "length", "eos_rate"))
  rewards = [entry["reward"] for entry in history]
  seconds = sum(entry["seconds"] for entry in history)
  return ends | {
    "updates": ppo.done,
    "episodes": history[-1]["episode"],
    "stopped": stopped,
    "kl_coef": ppo.kl_coef,
    "warnings": concerns(*ends.values(), ppo.settings.warn_kl, rewards=rewards),
    "seconds": {**ppo.seconds, "all": seconds},
    "samples_per_second": history[-1]["episode"] / max(seconds, 1e-9),
    "settings": asdict(ppo.settings) | {"world_size": ppo.world, "batch_size": ppo.batch_size},
  }


# ---- checkpoints: what is trained, the optimizer, and how far it came. Random states follow from the seed ----


def save_checkpoint(ppo: PPO, output_dir: Path, limit: int) -> None:
  """A plain causal language model, or the adapter of one; the value function is in optimizer.pt. It appears complete, and the
  oldest over `limit` go.
  """
  if ppo.process_index == 0:
    staging = output_dir / output_folder.CHECKPOINT_STAGING
    remove(staging)
    staging.mkdir(parents=True)
    ppo.policy.write(staging)
    state = {"optimizer": ppo.optimizer.state_dict(), "scheduler": ppo.scheduler.state_dict()}
    state["value"] = {name: p.detach() for name, p in ppo.plain.trained_values().items()}
    torch.save(state, staging / "optimizer.pt")
    state = {"global_step": ppo.done, "max_steps": ppo.updates, "kl_coef": ppo.kl_coef}
    (staging / "trainer_state.json").write_text(to_json(state), encoding="utf-8")
    resuming.seal(staging)
    complete = output_dir / f"checkpoint-{ppo.done}"
    remove(complete)
    staging.rename(complete)
    for old in output_folder.checkpoints(output_dir)[:-limit]:
      remove(old)
  ppo.accelerator.wait_for_everyone()


def load_checkpoint(ppo: PPO, checkpoint: Path) -> None:
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
