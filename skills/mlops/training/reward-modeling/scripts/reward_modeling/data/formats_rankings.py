"""Formats of rankings: a prompt and any number of completions with scores or ranks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from .cells import RowError, wrong_type
from .conversations import answer_of, prompt_of
from .entries import Format, Row, are_lists, entry, margin_and_weight, never, number, one_each
from .formats_steps import steps_of
from .records import Ranking, in_steps

RANKINGS: dict[str, Format] = {}
_rankings = partial(entry, RANKINGS)


def unlabeled(row: Row) -> Ranking:
    """The row's prompt and completions. A completion that is a list of texts is given in steps, and keeps them."""
    given = row["completions"]
    if not isinstance(given, list) or not given:
        raise wrong_type("completions", given, "a list of completions")
    answers = [
        in_steps(steps_of(item, "completions")) if _is_in_steps(item) else answer_of(item, "completions")
        for item in given
    ]
    return Ranking(prompt_of(row), answers)


def _is_in_steps(completion: Any) -> bool:
    return isinstance(completion, list) and bool(completion) and all(isinstance(step, str) for step in completion)


def _ranked(row: Row, column: str, sign: float = 1) -> Ranking:
    """The completions with the numbers of a column (true and false are 1 and 0), or without any where it is null."""
    ranking = unlabeled(row)
    if column not in row:
        return ranking
    given = one_each(row[column], column, "a list of numbers", len(ranking.completions), "completions")
    found = [number(item, column) for item in given]
    if None in found:
        raise RowError(f"`{column}` holds null")
    return Ranking(ranking.prompt, ranking.completions, [sign * value for value in found])


@_rankings(
    "a prompt and any number of completions with scores, higher is better, or with true and false in `correct`",
    ("prompt", "completions|responses", "scores|correct"),
    {"prompt": "2+2?", "completions": ["4", "5", "four"], "scores": [1.0, 0.0, 1.0]},
    are_lists("completions", "scores"),
    optional=("system", "margin", "weight"),
)
def ranking(row: Row) -> Ranking:
    margin, weight = margin_and_weight(row)
    return replace(_ranked(row, "scores"), margin=margin, weight=weight)


@_rankings(
    "a prompt and any number of completions, the best first; only where --format names it",
    ("prompt|question|instruction|query", "completions|responses|answers"),
    {"prompt": "2+2?", "completions": ["4", "four", "5"]},
    never,
)
def best_first(row: Row) -> Ranking:
    found = unlabeled(row)
    return replace(found, scores=[-float(place) for place in range(len(found.completions))])


@_rankings(
    "a prompt and any number of completions with ranks, 1 is best",
    ("prompt", "completions|responses", "ranks|rank"),
    {"prompt": "2+2?", "completions": ["4", "5", "four"], "ranks": [1, 3, 2]},
    are_lists("completions", "ranks"),
)
def ranks(row: Row) -> Ranking:
    return _ranked(row, "ranks", -1)
