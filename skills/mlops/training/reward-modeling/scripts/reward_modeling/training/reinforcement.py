"""A run of reinforcement learning from settings to a saved policy, and its log; `ppo_run` and `grpo` are what differs."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..evaluation.intervals import has_trend
from ..outputs import write_whole
from ..results import to_json
from ..terminal import log, warn
from . import configuration, resuming
from .policy import Policy, save_policy
from .prompts import new_tokens, read_prompts, render_prompts
from .results import PolicyRun, TrainedPolicy
from .rewards import PolicyRewards, check_rewards
from .settings import PolicySettings

if TYPE_CHECKING:
  from .grpo import GRPORun
  from .ppo_run import PPORun

REWARDED_BY = (
  *("reward_model_path", "reward_weights", "reward_combine", "normalize_rewards", "reward_functions"),
  *("reward_function_weights", "step_rewards", "step_temperature", "attribute_weights", "reference_model_name_or_path"),
)
Entries = list[dict[str, Any]]
STILL = 0.01
"""Nats per answer below which a policy has hardly moved: fewer than 8 % of its answers differ (Pinsker's inequality).

Of those whose reward has a trend a hundredth of that."""


def train_policy(run: PPORun | GRPORun, settings: PolicySettings) -> PolicyRun | None:
  """One run; the result that its script prints, or None in all processes but the first.

  Errors are those of its parts: UsageError, DataError, ModelError and RunError.
  """
  check_rewards(settings)
  output_dir, resume = settings.begin(*settings.inputs, *run.inputs)
  run.prepare()
  records = read_prompts(settings.dataset_name, run.split, **settings.reading)
  policy = Policy.from_pretrained(
    settings.model_name_or_path,
    chat_template_path=settings.chat_template_path,
    stop_token_id=settings.stop_token_id,
    device=run.device,
  )
  length = new_tokens(policy, run.length, run.default_length, run.limit)
  run.configure(policy, length)
  longest, overlong = settings.max_prompt_length, settings.overlong
  prompts = render_prompts(records, policy, length, longest=longest, overlong=overlong, limit=run.limit)
  rewards = PolicyRewards(settings, policy, prompts, run.reward_device)
  if settings.use_peft:
    from accelerate.utils import set_seed

    set_seed(settings.seed)  # of the adapter's weights
  lora = configuration.lora_of(settings, policy.model)
  log(f"{len(prompts)} prompts; {run.make(policy, prompts, rewards, lora)}")
  result = {
    "output_dir": str(output_dir),
    "policy": settings.model_name_or_path,
    "reward_models": settings.reward_model_path or [],
    "reward_functions": settings.reward_functions or [],
    "prompts": len(prompts),
  }
  if settings.dry_run:
    steps, answers = run.extent()
    plan = {"optimizer_steps": steps, "answers": answers, "answer_tokens": answers * length}
    return run.planned(**result, **run.told, **plan, dry_run=True)
  identity = run.identity() | {name: str(getattr(settings, name)) for name in REWARDED_BY}
  identity["prompts_sha256"] = resuming.rows_digest([prompt.ids for prompt in prompts])
  resuming.start_run(output_dir, run.process_index, identity, resume)
  found, history = run.train(output_dir, resume)
  if run.process_index != 0:
    return None
  numbers, more = rewards.finish()
  found = {**run.told, **found, **numbers, "warnings": found["warnings"] + more}
  for one in found["warnings"]:
    warn(one)
  trained = run.trained(**result, **found, resumed_from=resume)
  files = {run.summary: to_json(trained, indent=2) + "\n", "README.md": readme(trained, run.summary)}
  save_policy(policy, output_dir, files)
  log(f"saved: {output_dir}")
  draw(output_dir, history, run.panels, trained)
  return trained


def readme(trained: TrainedPolicy, summary: str) -> str:
  """The model card. summary: the file with settings and numbers."""
  algorithm = getattr(trained, "algorithm", "ppo")
  front = ["library_name: transformers", "pipeline_tag: text-generation", f"tags: [{algorithm}]"]
  if not Path(trained.policy).exists():
    front.append(f"base_model: {trained.policy}")
  by = ", ".join(map("`{}`".format, trained.reward_models + trained.reward_functions))
  numbers = [f"| {name} | {trained.beginning[name]:.4g} | {value:.4g} |" for name, value in trained.end.items()]
  told = f"`{trained.policy}`, trained with {algorithm.upper()} on {trained.prompts} prompts for the reward of {by}."
  table = ["| | untrained | last tenth of the run |", "|---|---|---|", *numbers]
  ending = [*(f"Warning: {one}.\n" for one in trained.warnings), f"Settings and all numbers: `{summary}`."]
  return "\n".join(["---", *front, "---", "", "# Policy", "", told, "", *table, "", *ending, ""])


def draw(folder: Path, history: Entries, panels: Mapping[str, Sequence[str]], trained: TrainedPolicy) -> None:
  """run.svg and run.html; a run is not lost for want of matplotlib, or of the modules that draw pages."""
  try:
    from . import run_report

    run_report.write(folder, history, panels, trained)
  except ImportError as error:
    warn(f"the run is not drawn: {error}")


# ---- the log ----


class RunLog:
  """A file with one JSON object a step, and its entries so far. write: whether this process is the one that writes."""

  def __init__(self, file: Path, entries: Entries, *, write: bool):
    self.file, self.entries, self.write = file, entries, write
    if write:
      write_whole(file, map(to_json, entries))

  def add(self, entry: dict[str, object]) -> None:
    self.entries.append(entry)
    if self.write:
      with open(self.file, "a", encoding="utf-8") as file:
        file.write(to_json(entry) + "\n")


def entries_until(file: Path, done: int) -> Entries:
  entries = []
  if file.exists():
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
      with contextlib.suppress(ValueError):  # of a killed run the last line may be half-written
        entries.append(json.loads(line))
  return [entry for entry in entries if entry["step"] <= done]


def best_of_for(kl: float) -> float:
  """The n whose best-of-n lies this many nats from its samples: log n - (n - 1)/n = kl, for large n."""
  return math.exp(min(kl + 1, 700.0))


def concerns(
  start: dict[str, float],
  end: dict[str, float],
  warn_kl: float,
  closer: str = "raise --kl_coef, or set --max_kl",
  limit: str = "--response_length",
  rewards: Sequence[float] = (),
) -> list[str]:
  """One sentence for each sign that the reward was gamed, or nothing learned. start, end: of whole answers, `kl` where known.

  closer: how to stay near the reference. limit: the flag of lengths. rewards: of all steps in the log.
  """
  found, kl = [], end.get("kl", 0.0)
  near, trend = end.get("kl_k3", end.get("kl")), has_trend(rewards)
  near = near if near is None else abs(near)  # k1, which RLOO logs, is a difference that is near 0 by chance only
  if len(rewards) > 1 and (not trend if near is None else near < (STILL / 100 if trend else STILL)):
    told = "its reward has no trend" if near is None else f"it is {near:.2g} nats per answer from the reference"
    found.append(f"the policy learned nothing that shows: {told}. Raise --learning_rate, or train for more steps")
  if kl > warn_kl:
    found.append(
      f"the policy is {kl:.1f} nats from the reference, as far as the best of {best_of_for(kl):.0g} "
      f"samples, and its reward went from {start['reward']:.2f} to {end['reward']:.2f}: the reward is probably "
      f"over-optimized. Evaluate the policy by something else than this reward, {closer}"
    )
  if end["eos_rate"] < 0.9 * start["eos_rate"] or end["eos_rate"] < 0.5:
    found.append(f"only {end['eos_rate']:.0%} of the answers end by themselves: raise {limit} or --missing_eos_penalty")
  if end["length"] > 2 * start["length"]:
    found.append(
      f"answers grew from {start['length']:.0f} to {end['length']:.0f} tokens: is the reward one for length?"
    )
  return found


def start_and_end(history: Entries, names: Sequence[str]) -> dict[str, dict[str, float]]:
  """The named numbers of the first entry, whose answers the untrained policy wrote, and means over the last tenth."""
  parts = {"beginning": history[:1], "end": history[-max(1, len(history) // 10) :]}
  return {
    end: {name: sum(entry[name] for entry in part) / len(part) for name in names if part and name in part[0]}
    for end, part in parts.items()
  }
