"""Models that compare two answers to one prompt, run over all pairs: win rates, and a reward within the prompt."""

import math
from collections.abc import Callable, Sequence
from itertools import groupby, permutations
from typing import Any

from .aggregation import probability
from .errors import DataError, UsageError
from .public_rendering import AnswerPair
from .rendering import Conversation
from .scoring import RewardModel


class PairwiseModel(RewardModel):
  """Its rewards hold within a prompt: what has one answer is a DataError.

  An answer's is the mean log-odds that it beats each answer of its prompt (itself: 0): the Bradley-Terry scores that fit
  all pairs best, by least squares. Both orders of a pair are computed: a place is no advantage.
  """

  attributes = ("win_rate",)
  compares = True

  def score_attributes(
    self, conversations: Sequence[Conversation], progress: Callable[[int], None] | None = None
  ) -> list[list[float] | None]:
    """[reward, win rate] of each conversation among those beside it that have its prompt and origin."""
    groups = [list(group) for _, group in groupby(conversations, key=lambda one: (one.prompt, one.origin))]
    odds = iter(self._scored([pair for group in groups for pair in _pairs(group)], None))
    found: list[list[float] | None] = []
    for group in groups:
      n = len(group)
      first = {pair: own and own[1][0] for pair, own in zip(permutations(range(n), 2), odds, strict=False)}
      for i in range(n):
        found.append(_among([self._of_both(first[i, j], first[j, i]) for j in range(n) if j != i]))
      if progress:
        progress(n)
    return found

  def _of_both(self, one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
      return None
    if self.renderer.family.head == "Marked":
      return (one - other) / 2
    p = (probability(one) + probability(-other)) / 2  # as its authors do
    return math.log(p) - math.log1p(-p)

  def normalize(self, scores: Sequence[float | None]) -> list[float | None]:
    raise UsageError("--normalize is not for a model that compares answers: its rewards hold within a prompt only")

  def _rows(self, rendered: Any) -> list[tuple[list[int], list[int]]]:
    return [(rendered.ids, self.renderer.places_of(rendered.ids))]


def _pairs(group: list[Conversation]) -> list[AnswerPair]:
  prompt, origin = group[0].prompt, group[0].origin
  if len(group) < 2:
    what = "this model compares the answers of one prompt, which has only one here"
    raise DataError(what, where=origin, hint="give two or more completions to each prompt")
  if any(len(one.completion) != 1 or one.tools for one in group):
    raise DataError("a model that compares answers reads one text, without tools", where=origin)
  texts = [one.completion[0].get("content") or "" for one in group]
  return [AnswerPair(prompt, first, second, origin) for first, second in permutations(texts, 2)]


def _among(odds: list[float | None]) -> list[float] | None:
  if None in odds:
    return None
  return [math.fsum(odds) / (len(odds) + 1), math.fsum(map(probability, odds)) / len(odds)]
