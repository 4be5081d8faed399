"""What a policy is rewarded by: reward models and functions, each with its weight, and the ends of steps."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Any

from .. import checkpoints
from ..aggregation import STEP_FORMS
from ..data.records import Message, Origin
from ..ensemble import Rewards, check_models, unique_names
from ..errors import ModelError, UsageError
from ..kinds import OUTCOME, PROCESS
from ..process import ProcessRewardModel
from ..rendering import Conversation
from ..step_rendering import steps_and_ends
from .policy import Policy
from .prompts import Prompt
from .settings import RewardSettings
from .step_rewards import Reward

UNSPLIT = 0.9
"""Share of answers that end no step from which on a run warns."""


def check_rewards(settings: RewardSettings) -> None:
  """Before data is read. Raises UsageError and ModelError."""
  paths, functions = settings.reward_model_path or (), settings.reward_functions or ()
  if not (paths or functions):
    raise UsageError("--reward_model_path or --reward_functions is required")
  if len(settings.reward_function_weights or functions) != len(functions):
    raise UsageError(f"{len(settings.reward_function_weights)} weights for {len(functions)} reward functions")
  kinds = [checkpoints.kind_of(path) or OUTCOME for path in paths]
  for path, kind in zip(paths, kinds, strict=True):
    if kind is PROCESS and not settings.step_rewards:
      hint = f"say what its steps are worth: --step_rewards {', '.join(STEP_FORMS)}"
      raise ModelError(f"{path} is a process reward model: it scores steps, not whole answers", hint=hint)
  check_models(paths, kinds, settings.reference_model_name_or_path)
  if settings.step_rewards and PROCESS not in kinds:
    raise UsageError("--step_rewards is for process reward models, and --reward_model_path names none")
  if settings.step_rewards and (settings.reward_combine != "sum" or settings.normalize_rewards):
    raise UsageError("--step_rewards adds rewards up as they are: no --reward_combine or --normalize_rewards")


class PolicyRewards:
  """(prompts, replies, their ids) -> a Reward each. met: counts of what process reward models were given."""

  def __init__(self, settings: RewardSettings, policy: Policy, prompts: Sequence[Prompt], device: str):
    self.settings, self.policy, self.met = settings, policy, Counter[str]()
    self.columns = {name for prompt in prompts for name in prompt.metadata}
    self.functions = {}
    if specs := settings.reward_functions:
      from .function_rewards import function_of, refuse_lacking

      self.functions = dict(zip(unique_names(specs, "reward function"), map(function_of, specs), strict=True))
      for name, function in self.functions.items():
        refuse_lacking(name, function, self.columns)
    self.models = settings.reward_model_path and Rewards.from_pretrained(
      settings.reward_model_path,
      weights=settings.reward_weights,
      combine=settings.reward_combine,
      normalize=settings.normalize_rewards,
      attribute_weights=settings.attribute_weights,
      reference_model_name_or_path=settings.reference_model_name_or_path,
      of_steps=self._of_steps if settings.step_rewards else None,
      dtype=settings.reward_dtype,
      max_length=settings.reward_max_length,
      max_tokens_per_batch=settings.reward_max_tokens_per_batch,
      shared_prefix=settings.shared_prefix,
      device=device,
    )

  def __call__(
    self, prompts: Sequence[Prompt], replies: Sequence[list[Message]], ids: Sequence[list[int]], **more: object
  ) -> list[Reward]:
    """more: by keyword to functions."""
    asked, before, parts = [prompt.messages for prompt in prompts], self.met.copy(), []
    self.ids, self.earned, self.logs = ids, [[] for _ in ids], {}
    if self.models:
      parts.append(self.models(asked, replies, [prompt.tools for prompt in prompts]))
      self.logs = {name: (mean, self.models.spreads[name]) for name, mean in self.models.parts.items()}
    more |= {name: [prompt.metadata.get(name) for prompt in prompts] for name in self.columns}
    more |= {"prompts": asked, "completions": replies, "completion_ids": ids}
    if self.functions:
      parts += self._of_functions([prompt.origin for prompt in prompts], more)
    self.steps = _shares(self.met - before)
    totals = [math.fsum(known) if (known := _known(own)) else math.nan for own in zip(*parts, strict=True)]
    return [Reward(total, tuple(earned)) for total, earned in zip(totals, self.earned, strict=True)]

  def _of_functions(self, rows: list[Origin | None], more: dict[str, object]) -> list[list[float]]:
    from .function_rewards import call

    parts, limit = [], self.settings.reward_function_seconds
    weights = self.settings.reward_function_weights or [1.0] * len(self.functions)
    for weight, (name, function) in zip(weights, self.functions.items(), strict=True):
      values = call(name, function, limit, rows, **more)
      parts.append([weight * value for value in values])
      if applied := _known(values):
        self.logs[name] = fmean(applied), pstdev(applied)
    return parts

  def _of_steps(self, model: ProcessRewardModel, weight: float, asked: Sequence[Conversation]) -> list[float]:
    """0 for an answer of which no step is scored, as before its first step."""
    form, totals = STEP_FORMS[self.settings.step_rewards], []
    for row, (steps, scores) in enumerate(model.score_in_steps(asked)):
      text, logits = asked[row].completion[0]["content"], scores.logits if scores else []
      ends = [end for _, end in steps_and_ends(text, model.split_at)]
      unsplit = bool(steps) and ends[0] > len(text)
      self.met.update(
        answers=1, steps=len(steps), unsplit=unsplit, unscored=len(steps) - len(logits), empty=int(not steps)
      )
      if not logits or form is None:
        totals.append(model.reward(scores) or 0.0)
        continue
      earned = form([*map(scores.value, logits)], self.settings.step_temperature)
      tokens = self.policy.tokens_at(self.ids[row], ends[: len(logits)])
      self.earned[row] += [(token, weight * value) for token, value in zip(tokens, earned, strict=True)]
      totals.append(math.fsum(earned))
    return totals

  def logged(self, prefix: str) -> dict[str, float]:
    """Of the last call: mean and standard deviation by source, where there are several, and what it had of steps."""
    logs = self.logs if len(self.logs) > 1 else {}
    found = {f"{prefix}/{name}": mean for name, (mean, _) in logs.items()}
    found |= {f"{prefix}/{name}/std": spread for name, (_, spread) in logs.items()}
    return found | {f"steps/{name}": value for name, value in self.steps.items()}

  def finish(self) -> tuple[dict[str, Any], list[str]]:
    """Numbers and warnings for the summary."""
    if self.models:
      self.models.warn_of_losses()
    found, warnings = _shares(self.met), []
    if found and found["unsplit"] >= UNSPLIT:
      told = f"{found['unsplit']:.0%} of the answers end no step, so each is rewarded as one"
      warnings.append(f"{told}: teach the policy to write the separator of steps")
    truncated = self.models.truncated if self.models else 0
    return {"reward_inputs_truncated": truncated, "answer_steps": found or None}, warnings


def _known(values: Sequence[float]) -> list[float]:
  return [value for value in values if not math.isnan(value)]


def _shares(met: Counter[str]) -> dict[str, float]:
  if not (answers := met["answers"]):
    return {}
  shares = {"mean": met["steps"] / answers, "unsplit": met["unsplit"] / answers}
  return shares | {name: met[name] for name in ("unscored", "empty")}
