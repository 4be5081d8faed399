"""Rated answers for training: a head for each attribute, by regression, ordinal regression or cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..attributes import Attribute, Attributes, reweighted
from ..checkpoints import saved_attributes
from ..data.reading import load
from ..data.records import Rated, check_attributes, comparisons, rated_answers, rated_names
from ..errors import DataError
from ..evaluation.inputs import TOO_LONG
from ..hf import Model
from ..rendering import Renderer, conversations_of
from ..terminal import log
from .data import Data, Rows, read_data, rendered, settle_refused
from .objectives import OBJECTIVES
from .pairs import Pairs
from .settings import DataSettings

if TYPE_CHECKING:
  from ..evaluation.ratings import RatingEvaluation
  from ..scoring import RewardModel

MOST_LEVELS = 20
ANSWERS_TOGETHER = 8
RIDGE = 1e-4
"""Of fitted weights: pairs that no weights contradict would make them infinite."""


def learner_of(given: Pairs) -> Pairs:
  """The settings as what their objective learns from."""
  return given if OBJECTIVES[given.objective].takes == "pairs" else Ratings(**vars(given))


@dataclass(frozen=True, kw_only=True)
class Ratings(Pairs):
  """An outcome reward model with a head for each attribute, for `runs.train`."""

  called: ClassVar = "answers"

  @property
  def loss(self) -> dict[str, Any]:
    return {"objective": self.objective, "attributes": [one.name for one in self.heads]}

  def read(self, settings: DataSettings) -> Data:
    self.check_folds(settings)
    self.refuse("label_smoothing")
    for name in ("attribute_weights", "folds"):
      if getattr(self, name):
        self.refuse("fit_attribute_weights", beside=f"--{name}")
    data, _ = read_data(settings, self.called, partial(rated_answers, range_=self.rating_range))
    names = rated_names(data.train)
    check_attributes(self.attributes or (), names, "attributes")
    chosen = self.attributes or names
    check_attributes(self.attribute_weights or (), chosen, "attribute_weights")
    for rows in (data.train, data.held_out):
      rows[:] = [replace(row, ratings={name: row.ratings.get(name) for name in chosen}) for row in rows]
    data = data.audited(settings)
    known = [row for row in data.train if any(value is not None for value in row.ratings.values())]
    if unrated := len(data.train) - len(known):
      data = replace(data, train=known, set_aside=data.set_aside | {"without ratings": unrated})
    return data.split(settings)

  def evaluated(self, scorer: RewardModel, rows: Sequence[Rated]) -> RatingEvaluation:
    from ..evaluation.ratings import evaluate_ratings

    return evaluate_ratings(scorer, rows)

  def prepared(self, data: Data, path: str) -> Ratings:
    names = [name for name in rated_names(data.train) if any(row.ratings[name] is not None for row in data.train)]
    heads = tuple(self._head(name, data.train, 1 / len(names)) for name in names)
    saved = saved_attributes(path)
    if [(one.name, one.labels) for one in saved] == [(one.name, one.labels) for one in heads]:
      heads = tuple(replace(one, objective=self.objective) for one in saved)  # with the scale of their logits
    if self.attribute_weights:
      heads = reweighted(heads, self.attribute_weights)
    log(f"reward: {' + '.join(f'{one.weight:.3g} {one.name}' for one in heads)}")
    return replace(self, heads=heads)

  def _head(self, name: str, rows: Sequence[Rated], weight: float) -> Attribute:
    values = [value for row in rows if (value := row.ratings[name]) is not None]
    levels = sorted(set(values))
    log(f"{name}: {len(values)} ratings from {levels[0]:g} to {levels[-1]:g}, mean {np.mean(values):.3g}")
    if self.objective == "regression":
      return Attribute(name, self.objective, weight, float(np.mean(values)), float(np.std(values)) or 1.0)
    if self.objective == "binary":
      for row in rows:
        if row.ratings[name] not in (None, 0, 1):
          what = f"`{name}` is {row.ratings[name]:g}: --objective binary learns from 0 and 1, true and false"
          raise DataError(what, where=row.origin, hint="choose --objective regression or ordinal")
      return Attribute(name, self.objective, weight)
    if not 1 < len(levels) <= MOST_LEVELS:
      what = f"`{name}` has {len(levels)} different ratings, --objective ordinal takes 2 to {MOST_LEVELS}"
      raise DataError(what, hint="choose --objective regression, or name others with --attributes")
    return Attribute(name, self.objective, weight, levels=levels)

  def render(self, records: Sequence[Rated], renderer: Renderer, drop: bool, *, held_out: bool = False) -> Rows:
    from datasets import Dataset

    refused, cut = [], renderer.counts["truncated"]
    done = rendered(records, lambda one: (one.prompt, one.completion, one.tools, one.origin), renderer, refused)
    kept = [(one, found.ids) for one, found in done if found]
    counts = {"answers": len(records), "dropped_over_length": len(records) - len(kept) - len(refused)}
    if refused:
      settle_refused(refused, len(records), f"{len(refused)} answers", drop)
      counts["dropped_refused"] = len(refused)
    if not kept:
      what = f"no answer is left of {len(records)}: at most {renderer.max_length} tokens are read"
      raise DataError(what, hint=TOO_LONG)
    counts |= {"truncated": renderer.counts["truncated"] - cut, "answers_used": len(kept)}
    return Rows(Dataset.from_list(self._together(kept)), [one for one, _ in kept], counts, f"{len(kept)} answers")

  def _together(self, answers: Sequence[tuple[Rated, list[int]]]) -> list[dict[str, list]]:
    """A row holds answers to a prompt that follow each other, up to ANSWERS_TOGETHER: it is computed once. Others stay apart, since
    what needs the prompt is learned from batches of many prompts.
    """
    rows = []
    for _, group in groupby(answers, key=lambda one: (one[0].prompt, one[0].tools)):
      same = list(group)
      for own in (same[i : i + ANSWERS_TOGETHER] for i in range(0, len(same), ANSWERS_TOGETHER)):
        targets = [[one.ratings.get(head.name) for head in self.heads] for one, _ in own]
        rows.append({"sequences": [ids for _, ids in own], "targets": targets})
    return rows

  def cut(self, counts: dict[str, int]) -> tuple[int, int, str]:
    return counts["truncated"], counts["answers_used"], "answers"

  def _trainer(self) -> tuple[type, dict[str, Any]]:
    from .outcome import RatingTrainer

    return RatingTrainer, {"heads": self.heads}

  def weighed(self, model: Model, renderer: Renderer) -> Attributes:
    if not self.fit_attribute_weights:
      return self.heads
    from ..scoring import RewardModel

    pairs = comparisons(load(self.fit_attribute_weights, winner_values=self.winner_values))
    values = RewardModel(model, renderer, attributes=self.heads).score_attributes(conversations_of(pairs))
    both = [(a[1:], b[1:]) for a, b in zip(values[::2], values[1::2], strict=True) if a and b]
    if not both:
      raise DataError("no pair of --fit_attribute_weights could be scored", hint="raise --max_length")
    differences = np.subtract(*map(np.array, zip(*both, strict=True)))
    weights = fitted_weights(differences)
    heads = reweighted(self.heads, dict(zip([one.name for one in self.heads], weights, strict=True)))
    told = " + ".join(f"{one.weight:.3g} {one.name}" for one in heads)
    right = np.mean(differences @ weights > 0)
    log(f"reward, fitted on {len(both)} of {len(pairs)} pairs, of which it orders {right:.1%}: {told}")
    return heads


def fitted_weights(differences: np.ndarray) -> list[float]:
  """Those of [n, K] chosen less rejected values by which the Bradley-Terry loss is least."""
  from scipy.optimize import minimize

  def loss(weights: np.ndarray) -> float:
    return float(np.logaddexp(0, -differences @ weights).mean() + RIDGE * weights @ weights)

  return minimize(loss, np.zeros(differences.shape[1])).x.tolist()
