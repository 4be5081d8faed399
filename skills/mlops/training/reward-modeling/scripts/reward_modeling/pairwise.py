"""Models that compare two answers to one prompt, run over all pairs: win rates, and a reward that holds within the prompt.

The reward of an answer is the mean, over the answers of its prompt, of the log-odds that it beats each of them (itself: 0):
the Bradley-Terry scores that fit the log-odds of all pairs best, by least squares. So the difference of two answers alone
is their log-odds. Both orders of a pair are computed, which takes out what a model gives to a place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby, permutations
from typing import Any

from .aggregation import probability
from .console import DataError, UsageError
from .pair_rendering import AnswerPair
from .rendering import Conversation
from .scoring import RewardModel


class PairwiseModel(RewardModel):
    """A model that compares two answers. Its rewards hold within a prompt: what has one answer is a DataError."""

    attributes = ("win_rate",)
    compares = True

    def score_attributes(
        self, conversations: Sequence[Conversation], progress: Callable[[int], None] | None = None
    ) -> list[list[float] | None]:
        """[reward, win rate] of each conversation among those beside it that have its prompt and origin."""
        groups = [list(group) for _, group in groupby(conversations, key=lambda one: (one.prompt, one.origin))]
        pairs = [pair for group in groups for pair in self._pairs(group)]
        odds = iter(self._scored(pairs, None))
        found: list[list[float] | None] = []
        for group in groups:
            n = len(group)
            first = {pair: own and own[1][0] for pair, own in zip(permutations(range(n), 2), odds, strict=False)}
            for i in range(n):
                found.append(_among([self._of_both(first[i, j], first[j, i]) for j in range(n) if j != i]))
            if progress:
                progress(n)
        return found

    def _pairs(self, group: list[Conversation]) -> list[AnswerPair]:
        origin = group[0].origin
        if len(group) < 2:
            raise DataError(
                "this model compares the answers of one prompt, which has only one here: it has no reward of its own",
                where=origin,
                hint="give two or more completions to each prompt",
            )
        texts = []
        for one in group:
            if len(one.completion) != 1 or one.tools:
                raise DataError("a model that compares answers reads one text, without tools", where=origin)
            texts.append(one.completion[0].get("content") or "")
        return [AnswerPair(group[0].prompt, texts[i], texts[j], origin) for i, j in permutations(range(len(texts)), 2)]

    def _of_both(self, one: float | None, other: float | None) -> float | None:
        """The log-odds of the first answer, of those read in both orders."""
        if one is None or other is None:
            return None
        if self.renderer.family.head == "Marked":
            return (one - other) / 2
        p = (probability(one) + probability(-other)) / 2  # as its authors do
        return math.log(p) - math.log1p(-p)

    def normalise(self, scores: Sequence[float | None]) -> list[float | None]:
        raise UsageError("--normalize is not for a model that compares answers: its rewards hold within a prompt only")

    def _rows(self, rendered: Any) -> list[tuple[list[int], list[int]]]:
        return [(rendered.ids, self.renderer.places_of(rendered.ids))]


def _among(odds: list[float | None]) -> list[float] | None:
    """Reward and win rate by the log-odds against every other answer; None when some could not be computed."""
    if None in odds:
        return None
    wins = [probability(one) for one in odds]
    return [math.fsum(odds) / (len(odds) + 1), math.fsum(wins) / len(wins)]
