"""Scores of steps, and how those of a solution become one reward."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from statistics import fmean


def probability(logit: float) -> float:
    """1 / (1 + exp(-logit)), without overflow."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    return math.exp(logit) / (1 + math.exp(logit))


Value = Callable[[float], float]
"""From a step's log p / (1 - p) to its score: p, but of some public models another number."""


@dataclass(frozen=True)
class Aggregation:
    combine: Callable[[Sequence[float]], float]
    """Of the scores of steps, or of their logits."""
    description: str
    source: str | None = None
    of_logits: bool = False

    def reward(self, logits: Sequence[float], value: Value = probability) -> float:
        return self.combine(logits if self.of_logits else [*map(value, logits)])


AGGREGATIONS: dict[str, Aggregation] = {
    "min": Aggregation(min, "the weakest step", "arXiv:2312.08935 (Math-Shepherd)"),
    "prod": Aggregation(
        math.prod,
        "the probability that all steps are correct, if they were independent; prefers few steps",
        "arXiv:2305.20050 (Let's Verify Step by Step)",
    ),
    "mean": Aggregation(fmean, "the mean over steps; many good steps hide one bad one"),
    "last": Aggregation(itemgetter(-1), "the last step, for a model trained on how solutions end", "arXiv:2408.03314"),
    "max": Aggregation(max, "the strongest step"),
    "sum_logit": Aggregation(
        math.fsum, "the sum of log p / (1 - p): evidence adds up, prefers many good steps", of_logits=True
    ),
}
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
    """None for steps that did not fit."""
    return scores.probabilities if scores else [None] * len(steps)
