"""Evaluate a reward model on rated answers: each attribute by its correlation, error, calibration and pairs of a prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from ..data.records import Comparison, Rated, averaged, rated_names, weighted
from ..rendering import Conversation
from ..results import Number
from ..terminal import log, progress
from .inputs import Diagnostic, answer_length, diagnosed, nothing_fits, output_row, prompt_keys
from .intervals import Estimate, Z, accuracy, correlated, difference, floats, jackknife, pearson, spearman
from .pair_measures import against_length
from .pairs import LEVEL, holm
from .probes import ProbeSummary, ScoreAnswers, probe_pairs

if TYPE_CHECKING:
  from ..scoring import RewardModel


@dataclass(frozen=True)
class AttributeSummary:
  n: int
  pearson: Estimate | None
  spearman: Estimate | None
  pair_accuracy: Estimate | None
  """Of answers to one prompt with different ratings: mean over prompts."""
  micro_accuracy: Estimate | None = None
  """Of these: mean over pairs, without weights."""
  baseline_longer: Estimate | None = None
  """`pair_accuracy` of always the longer answer."""
  gain_over_baseline: Estimate | None = None
  """`pair_accuracy` minus the better of this and the shorter, paired."""
  rmse: Estimate | None = None
  """Of the head of that name, as the next ones."""
  rmse_of_mean: Number = None
  """Of always predicting the mean of these ratings."""
  bias: Number = None
  """Mean prediction less mean rating."""
  slope: Estimate | None = None
  """Of the rating by the prediction: 1 if calibrated, below 1 if overconfident."""


@dataclass(frozen=True)
class RatingSummary:
  n_answers: int
  not_scored: int
  attributes: dict[str, AttributeSummary]
  """By the head of that name, else by the reward; `reward`: against the sum of the ratings by the weights."""
  averaged: int | None = None
  """Ratings by several people that became a mean with another one."""


@dataclass(frozen=True)
class AttributeComparison:
  pearson: Estimate | None
  """The correlation of a less that of b, on the same answers; null where one has none."""
  p: Number
  """Of that difference, corrected for the number of attributes (Holm 1979)."""
  pair_accuracy: Estimate | None


@dataclass(frozen=True)
class RatingEvaluation:
  """columns: by attribute [answers] predictions and ratings, NaN where there is none. keys: [answers] of their prompts."""

  summary: RatingSummary
  answers: Sequence[Rated]
  numbers: list[list[float] | None]
  names: tuple[str, ...]
  columns: dict[str, tuple[np.ndarray, np.ndarray]]
  keys: np.ndarray

  @property
  def rewards(self) -> list[float]:
    return [own[0] for own in self.numbers if own]

  def probed(self, score: ScoreAnswers) -> ProbeSummary:
    """Answers rated at least the mean are damaged, the others embellished; by the reward, or else the first attribute."""
    name = "reward" if "reward" in self.columns else next(iter(self.columns))
    ratings = self.columns[name][1]
    mean = np.nanmean(ratings)
    log(f"probes: answers whose {name} is rated {mean:.3g} or more are damaged, others embellished; none are paired")
    sides = []
    for one, own, rating in zip(self.answers, self.numbers, ratings, strict=True):
      if own and not np.isnan(rating):
        both = [(one.completion, own[0]), ([], None)]
        texts, rewards = zip(*(both if rating >= mean else reversed(both)), strict=True)
        sides.append((Comparison(one.prompt, *texts, tools=one.tools, origin=one.origin), *rewards))
    return probe_pairs(sides, score)

  def compared(self, other: RatingEvaluation, names: tuple[str, str], _: str | None) -> dict[str, object]:
    """The attributes that both are evaluated on by the same ratings; which is better, and whether it could be luck."""
    found = {
      name: _compared(x, other.columns[name][0], y, self.keys)
      for name, (x, y) in self.columns.items()
      if name in other.columns and np.array_equal(y, other.columns[name][1], equal_nan=True)
    }
    tested = [name for name, one in found.items() if one.pearson]
    for name, p in zip(tested, holm([found[name].p for name in tested]), strict=True):
      found[name] = replace(found[name], p=p)
    said = [
      f"{name}: {names[one.pearson.value < 0]} is better, p {one.p:.2g}"
      if one.pearson and one.p < LEVEL
      else f"{name}: it is not shown which is better"
      for name, one in found.items()
    ]
    return {"attributes": found, "verdict": "; ".join(said) or "no attribute is rated for both"}

  def rows(self, other: RatingEvaluation | None = None) -> list[dict[str, object]]:
    """One JSON row for each answer, with the reward of the `other` model too."""
    rows = []
    for place, (row, own) in enumerate(zip(self.answers, self.numbers, strict=True)):
      found: dict[str, object] = {"reward": own and own[0]}
      found |= {"attributes": own and dict(zip(self.names, own[1:], strict=True))} if self.names else {}
      if other:
        found["other_reward"] = (scored := other.numbers[place]) and scored[0]
      rows.append(output_row(row, "completion", "ratings", **found))
    return rows


def evaluate_ratings(model: RewardModel, answers: Sequence[Rated]) -> RatingEvaluation:
  before, all_ratings = dict(model.renderer.counts), len(answers)
  answers = averaged(answers)
  asked = [Conversation(one.prompt, one.completion, one.tools, one.origin) for one in answers]
  with progress("scoring", len(asked)) as advance:
    numbers = model.score_attributes(asked, advance)
  model.warn_of_losses(before)
  scored = sum(own is not None for own in numbers)
  if not scored:
    raise nothing_fits(model, f"{len(answers)} answers")
  width = next(len(own) for own in numbers if own)
  values = np.array([own or [math.nan] * width for own in numbers]).T
  heads, given = {one.name: one for one in model.heads}, [row.ratings for row in answers]
  by_name = dict(zip(model.attributes or heads, values[1:], strict=False))
  ratings = {name: floats([one.get(name) for one in given]) for name in rated_names(answers)}
  columns = {name: (by_name.get(name, values[0]), own) for name, own in ratings.items()}
  for name in columns.keys() & heads:
    if heads[name].objective == "binary":
      columns[name] = 1 / (1 + np.exp(-columns[name][0])), columns[name][1]
  if len(heads) > 1:
    weights = zip(heads, model.weights or [one.weight for one in model.heads], strict=True)
    summed = {name: weight for name, weight in weights if weight}
    columns.setdefault("reward", (values[0], floats([weighted(one, summed) for one in given])))
  keys = np.array(prompt_keys(answers))
  lengths = floats([answer_length(one.completion) for one in answers])
  found = {name: _summary(*own, keys, lengths, in_units=name in heads) for name, own in columns.items()}
  summary = RatingSummary(scored, len(answers) - scored, found, all_ratings - len(answers) or None)
  return RatingEvaluation(summary, answers, numbers, tuple(model.attributes), columns, keys)


def _summary(*columns: np.ndarray, in_units: bool) -> AttributeSummary:
  """columns: predictions, ratings, keys and lengths [answers]."""
  kept = np.isfinite(columns[0] + columns[1])
  x, y, keys, lengths = (one[kept] for one in columns)
  found = AttributeSummary(len(x), pearson(x, y, keys), spearman(x, y, keys), *_ranked(x, y, keys, lengths))
  if not (in_units and len(x)):
    return found
  u, v, ones = x - x.mean(), y - y.mean(), np.ones(len(x))
  slope = jackknife([ones, u, v, u * u, u * v], _slope, keys) if np.ptp(x) > 0 else None
  # On the logarithmic scale it is nearly symmetric.
  errors = (x - y) ** 2
  log = jackknife([ones, errors], lambda sums: np.log(np.maximum(sums[1], 1e-300) / sums[0]) / 2, keys)
  ends = ("value", "low", "high")
  rmse = replace(log, **{end: float(np.exp(getattr(log, end))) if errors.any() else 0.0 for end in ends})
  return replace(found, rmse=rmse, rmse_of_mean=float(y.std()), bias=float(np.mean(x - y)), slope=slope)


def _ranked(x: np.ndarray, y: np.ndarray, keys: np.ndarray, lengths: np.ndarray) -> list[Estimate | None]:
  right, owners, weights = _pair_outcomes(x, y, keys)
  if not right:
    return [None]
  longer, _, gain = against_length(right, floats(_pair_outcomes(lengths, y, keys)[0]), owners, weights)
  return [accuracy(right, owners, weights), accuracy(right, owners), longer, gain]


def _slope(sums: np.ndarray) -> np.ndarray:
  n, x, y, xx, xy = sums
  return (xy - x * y / n) / (xx - x * x / n)


def _pair_outcomes(x: np.ndarray, y: np.ndarray, keys: Sequence[str]) -> tuple[list[float], list[str], list[float]]:
  """(1, 0 or for a tie 0.5; the prompt; the weight) of each two answers to one prompt whose ratings differ."""
  places: dict[str, list[int]] = {}
  for place in np.flatnonzero(np.isfinite(x + y)):
    places.setdefault(keys[place], []).append(place)
  outcomes, owners, weights = [], [], []
  for key, own in places.items():
    signs = [np.sign((x[a] - x[b]) * (y[a] - y[b])) for a, b in combinations(own, 2) if y[a] != y[b]]
    outcomes += [(1 + sign) / 2 for sign in signs]
    owners += [key] * len(signs)
    weights += [1 / len(signs) for _ in signs]
  return outcomes, owners, weights


def _compared(a: np.ndarray, b: np.ndarray, y: np.ndarray, keys: np.ndarray) -> AttributeComparison:
  kept = np.isfinite(a + b + y)
  both = [np.where(kept, x, math.nan) for x in (a, b)]
  (right, owners, weights), (other, *_) = (_pair_outcomes(x, y, keys) for x in both)
  pairs = difference(right, other, owners, weights) if right else None
  r, s = (correlated(x[kept], y[kept]) for x in both)
  if r is None or s is None:
    return AttributeComparison(None, None, pairs)
  gap = r.minus(s, keys[kept])
  half = gap.high - gap.value
  p = math.erfc(abs(gap.value) * Z / half / math.sqrt(2)) if half else float(gap.value == 0)
  return AttributeComparison(gap, p, pairs)


RATING_DIAGNOSTICS = (
  Diagnostic(
    lambda s: s.gain_over_baseline is not None and s.gain_over_baseline.low <= 0,
    "pair accuracy {pair_accuracy:.3f} is not shown to be above the better length baseline (longer "
    "{baseline_longer.value:.3f}): gain {gain_over_baseline:+.3f}",
    "evaluate on more prompts, or train on answers whose length says less",
  ),
  Diagnostic(
    lambda s: s.rmse is not None and s.rmse.low > s.rmse_of_mean,
    "rmse {rmse:.3f} is above the {rmse_of_mean:.3f} of always predicting the mean rating",
    "look at `bias` and `slope`, or use it to rank only",
  ),
  Diagnostic(
    lambda s: s.pearson is not None and s.pearson.low <= 0,
    "correlation {pearson:.3f} is not shown to be above 0",
    "evaluate on more prompts, check that high ratings mean good answers, or train on more ratings",
  ),
  Diagnostic(
    lambda s: s.slope is not None and s.slope.high < 0.5 and s.pearson is not None and s.pearson.low > 0,
    "predictions spread too far: ratings rise by {slope:.2f} where they rise by 1",
    "train for fewer epochs, or on more ratings",
  ),
)


def diagnose_ratings(summary: RatingSummary) -> list[str]:
  return [f"{name}: {said}" for name, one in summary.attributes.items() for said in diagnosed(one, RATING_DIAGNOSTICS)]
