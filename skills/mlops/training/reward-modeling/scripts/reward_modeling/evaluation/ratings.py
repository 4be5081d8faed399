"""Evaluate a reward model on rated answers: each attribute by its correlation, error, calibration and pairs of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from ..data.records import Rated, rated_names, weighted
from ..rendering import Conversation
from ..results import Number
from ..terminal import progress
from .inputs import nothing_fits, output_row, prompt_keys
from .intervals import Estimate, accuracy, pearson, spearman

if TYPE_CHECKING:
  from ..scoring import RewardModel


@dataclass(frozen=True)
class AttributeSummary:
  n: int
  pearson: Estimate | None
  spearman: Estimate | None
  pair_accuracy: Estimate | None
  """Of answers to one prompt with different ratings; each prompt counts once."""
  rmse: Number = None
  """Of the head of that name, as the next two."""
  bias: Number = None
  """Mean prediction less mean rating."""
  slope: Number = None
  """Of the rating by the prediction: 1 if calibrated, below 1 if overconfident."""


@dataclass(frozen=True)
class RatingSummary:
  n_answers: int
  not_scored: int
  attributes: dict[str, AttributeSummary]
  """By the head of that name, else by the reward; `reward`: against the sum of the ratings by the weights."""


@dataclass(frozen=True)
class RatingEvaluation:
  rewards: list[float]
  summary: RatingSummary
  rows: list[dict[str, object]]


def evaluate_ratings(model: RewardModel, answers: Sequence[Rated]) -> RatingEvaluation:
  before = dict(model.renderer.counts)
  asked = [Conversation(one.prompt, one.completion, one.tools, one.origin) for one in answers]
  with progress("scoring", len(asked)) as advance:
    numbers = model.score_attributes(asked, advance)
  model.warn_of_losses(before)
  rows = [row for row, own in zip(answers, numbers, strict=True) if own]
  if not rows:
    raise nothing_fits(model, f"{len(answers)} answers")
  values, keys = np.array([own for own in numbers if own]), prompt_keys(rows)
  heads = {one.name: one for one in model.heads}
  columns = dict(zip(model.attributes or heads, values[:, 1:].T, strict=False))
  found = {}
  for name in rated_names(rows):
    predicted, head = columns.get(name, values[:, 0]), heads.get(name)
    if head and head.objective == "binary":
      predicted = 1 / (1 + np.exp(-predicted))
    found[name] = _summary(predicted, [row.ratings.get(name) for row in rows], keys, in_units=bool(head))
  if len(heads) > 1:
    weights = dict(zip(heads, model.weights or [one.weight for one in model.heads], strict=True))
    sums = [weighted(row.ratings, {name: one for name, one in weights.items() if one}) for row in rows]
    found.setdefault("reward", _summary(values[:, 0], sums, keys, in_units=False))
  told = [_row(*one, model.attributes) for one in zip(answers, numbers, strict=True)]
  return RatingEvaluation(values[:, 0].tolist(), RatingSummary(len(rows), len(answers) - len(rows), found), told)


def _row(row: Rated, numbers: list[float] | None, names: tuple[str, ...]) -> dict[str, object]:
  attributes = {"attributes": numbers and dict(zip(names, numbers[1:], strict=True))} if names else {}
  return output_row(row, "completion", "ratings", reward=numbers and numbers[0], **attributes)


def _summary(
  x: np.ndarray, ratings: Sequence[float | None], keys: Sequence[str], *, in_units: bool
) -> AttributeSummary:
  kept = [place for place, rating in enumerate(ratings) if rating is not None]
  x, y, groups = x[kept], np.array([ratings[place] for place in kept], dtype=float), [keys[place] for place in kept]
  found = AttributeSummary(len(kept), pearson(x, y, groups), spearman(x, y, groups), _pair_accuracy(x, y, groups))
  if not (in_units and kept):
    return found
  slope = float(np.cov(x, y, bias=True)[0, 1] / np.var(x)) if np.ptp(x) > 0 else None
  return replace(found, rmse=float(np.sqrt(np.mean((x - y) ** 2))), bias=float(np.mean(x - y)), slope=slope)


def _pair_accuracy(x: np.ndarray, y: np.ndarray, groups: Sequence[str]) -> Estimate | None:
  places: dict[str, list[int]] = {}
  for place, group in enumerate(groups):
    places.setdefault(group, []).append(place)
  outcomes, owners, weights = [], [], []
  for group, own in places.items():
    signs = [np.sign((x[a] - x[b]) * (y[a] - y[b])) for a, b in combinations(own, 2) if y[a] != y[b]]
    outcomes += [(1 + sign) / 2 for sign in signs]
    owners += [group] * len(signs)
    weights += [1 / len(signs) for _ in signs]
  return accuracy(outcomes, owners, weights) if outcomes else None
