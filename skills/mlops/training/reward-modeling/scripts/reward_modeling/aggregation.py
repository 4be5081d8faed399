"""Scores of steps, and how those of a solution become one reward."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from statistics import fmean


def probability(logit: float) -> float:
  """1 / (1 + exp(-logit)), without overflow."""
  if logit >= 0:
    return 1 / (1 + math.exp(-logit))
  return math.exp(logit) / (1 + math.exp(logit))


Value = Callable[[float], float]
"""From a step's log p / (1 - p) to its score: p, but of some public models another number."""


AGGREGATIONS: dict[str, Callable[[Sequence[float]], float]] = {
  "min": min,  # arXiv:2312.08935 (Math-Shepherd)
  "prod": math.prod,  # all are correct, if they were independent: arXiv:2305.20050 (Let's Verify Step by Step)
  "mean": fmean,
  "last": itemgetter(-1),  # for a model trained on how solutions end: arXiv:2408.03314
  "max": max,
  "sum_logit": math.fsum,
}
"""Of the scores of steps; `sum_logit` of their logits."""
DEFAULT_AGGREGATE = "min"
"""One wrong step makes a solution wrong, however many there are."""


@dataclass(frozen=True)
class StepScores:
  """logits: of each step that fitted; the last `dropped` did not."""

  logits: list[float]
  dropped: int = 0
  value: Value = probability

  @property
  def probabilities(self) -> list[float | None]:
    return [*map(self.value, self.logits), *[None] * self.dropped]


def step_rewards(steps: Sequence[str], scores: StepScores | None) -> list[float | None]:
  return scores.probabilities if scores else [None] * len(steps)


NO_ERROR = -1


def first_flag(rewards: Sequence[float | None], threshold: float) -> int:
  """Place of the first step under the threshold, or NO_ERROR."""
  return next((place for place, one in enumerate(rewards) if one is not None and one < threshold), NO_ERROR)


def aggregated(name: str, logits: Sequence[float], value: Value = probability) -> float:
  return AGGREGATIONS[name](logits if name == "sum_logit" else [*map(value, logits)])


def differences(scores: Sequence[float], temperature: float) -> list[float]:
  return [after - before for before, after in pairwise((0.0, *scores))]


def min_form(scores: Sequence[float], temperature: float) -> list[float]:
  weights = [math.exp((min(scores) - score) / temperature) for score in scores]
  return [weight / math.fsum(weights) * score for weight, score in zip(weights, scores, strict=True)]


STEP_FORMS: dict[str, Callable[[Sequence[float], float], list[float]] | None] = {
  "outcome": None,
  "difference": differences,
  "min": min_form,
}
"""What the ends of steps with the scores s_1 ... s_n earn a policy at temperature T, unless the aggregate comes at its end.

difference: s_k - s_{k-1}, s_0 = 0. Of implicit process rewards these are PRIME's (arXiv:2502.01456).
min: softmax(-s / T)_k s_k, of PURE (arXiv:2504.15275).
"""
