"""Models that compare two answers to one prompt, run over all pairs: win rates, and a reward within the prompt."""

import math
from collections.abc import Sequence
from itertools import groupby, islice, permutations

from .aggregation import probability
from .errors import DataError, UsageError
from .rendering import Conversation
from .scoring import Progress, RewardModel


class PairwiseModel(RewardModel):
  """Its rewards hold within a prompt: what has one answer is a DataError.

  An answer's is the mean log-odds that it beats each answer of its prompt (itself: 0): the Bradley-Terry scores that fit
  all pairs best, by least squares. Both orders of a pair are computed: a place is no advantage.
  """

  attributes = ("win_rate",)
  compares = True

  def score_attributes(
    self, conversations: Sequence[Conversation], progress: Progress = None
  ) -> list[list[float] | None]:
    """[reward, win rate] of each conversation among those beside it that have its prompt and origin."""
    odds, found = iter(self._odds(conversations)), []
    for group in _groups(conversations):
      first = dict(zip(permutations(range(len(group)), 2), odds, strict=False))
      for i in range(len(group)):
        found.append(_among([self._of_both(first[i, j], first[j, i]) for j in range(len(group)) if j != i]))
      if progress:
        progress(len(group))
    return found

  def _inputs(self, conversations: Sequence[Conversation]) -> list[Conversation]:
    """Of each ordered pair of a prompt's answers one that has both; embeddings are read alone."""
    pairs = [pair for group in _groups(conversations) for pair in _pairs(group)]
    return list(conversations) if self._embeds else pairs

  @property
  def _embeds(self) -> bool:
    return self.renderer.family.head == "Embedding"

  def _odds(self, conversations: Sequence[Conversation]) -> list[float | None]:
    """Of each ordered pair: that the first is better."""
    scored = [own and own[1] for own in self._scored(self._inputs(conversations), None)]
    if not self._embeds:
      return [own and own[0] for own in scored]
    rest, groups = iter(scored), _groups(conversations)
    pairs = (pair for group in groups for pair in permutations(islice(rest, len(group)), 2))
    return [a and b and _product(a, b) for a, b in pairs]

  def _of_both(self, one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
      return None
    if self.renderer.family.head != "Difference":
      return (one - other) / 2
    p = (probability(one) + probability(-other)) / 2  # as its authors do
    return math.log(p) - math.log1p(-p)

  def normalize(self, scores: Sequence[float | None]) -> list[float | None]:
    raise UsageError("--normalize is not for a model that compares answers: its rewards hold within a prompt only")


def _groups(conversations: Sequence[Conversation]) -> list[list[Conversation]]:
  return [list(group) for _, group in groupby(conversations, key=lambda one: (one.prompt, one.origin))]


def _pairs(group: Sequence[Conversation]) -> list[Conversation]:
  """Each has two answers, the first and the other."""
  prompt, origin = group[0].prompt, group[0].origin
  if len(group) < 2:
    what = "this model compares the answers of one prompt, which has only one here"
    raise DataError(what, where=origin, hint="give two or more completions to each prompt")
  if any(len(one.completion) != 1 or one.tools for one in group):
    raise DataError("a model that compares answers reads one text, without tools", where=origin)
  said = [{"role": "assistant", "content": one.completion[0].get("content") or ""} for one in group]
  return [Conversation(prompt, list(pair), None, origin) for pair in permutations(said, 2)]


def _product(a: list[float], b: list[float]) -> float:
  return math.fsum(a[k] * b[k + 1] - a[k + 1] * b[k] for k in range(0, len(a), 2))


def _among(odds: list[float | None]) -> list[float] | None:
  if None in odds:
    return None
  return [math.fsum(odds) / (len(odds) + 1), math.fsum(map(probability, odds)) / len(odds)]
