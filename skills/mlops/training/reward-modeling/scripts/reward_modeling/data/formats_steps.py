"""Formats of answers in steps, each step labeled as right or wrong."""

from __future__ import annotations

from functools import partial
from typing import Any

from .cells import RowError, short, wrong_type
from .conversations import prompt_of
from .entries import Format, Row, are_lists, entry, one_each
from .records import Solution

STEPS: dict[str, Format] = {}
_steps = partial(entry, STEPS)

NEUTRAL = {"good": 1.0, "bad": 0.0, "ignore": None}
"""What a step rated 0, neither right nor wrong, is taken for."""


def steps_of(value: Any, column: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(step, str) for step in value):
        raise wrong_type(column, value, "a list of steps in text")
    for place, step in enumerate(value, 1):
        if not step.strip():
            raise RowError(f"step {place} of `{column}` is empty")
    return value


def _one_a_step(value: Any, column: str, steps: list[str]) -> list:
    return one_each(value, column, "a list with an entry for each step", len(steps), "steps")


def _labels(value: Any, steps: list[str]) -> list[float | None]:
    """One label a step; null where it has none. A list that ends with the first error leaves the rest without."""
    if isinstance(value, list) and len(value) < len(steps) and value and value[-1] == 0 and all(value[:-1]):
        value = value + [None] * (len(steps) - len(value))
    given = [label for label in _one_a_step(value, "labels", steps) if label is not None]
    if len({isinstance(label, bool) for label in given}) > 1:
        raise RowError("`labels` mixes true or false with numbers")
    if not given:
        raise RowError("`labels` holds nothing but null")
    for label in given:
        if not isinstance(label, (bool, int, float)) or not 0 <= label <= 1:
            raise RowError(f"`labels` holds {short(label)}: expected true or false, 0 or 1, or probabilities")
    return [None if label is None else float(label) for label in value]


@_steps(
    "a prompt and an answer in steps with one label each, or up to the first error (TRL, axolotl): "
    "true or false, 0 or 1, probabilities, null for no label",
    ("prompt|question|problem", "completions|steps", "labels|step_labels"),
    {"prompt": "2+2+2?", "completions": ["2+2=4", "4+2=7"], "labels": [True, False]},
    are_lists("completions", "labels"),
)
def stepwise(row: Row) -> Solution:
    steps = steps_of(row["completions"], "completions")
    return Solution(prompt_of(row), steps, _labels(row["labels"], steps) if "labels" in row else None)


class NeutralError(RowError):
    """A step is rated 0 and nobody has said what that means."""


def rated(rating: Any, place: int, neutral: str | None) -> float | None:
    """The label of a step that was rated -1, 0 or 1, or not at all (null)."""
    if rating is None:
        return None
    if isinstance(rating, bool) or rating not in (-1, 0, 1):
        raise RowError(f"step {place} is rated {short(rating)}: expected -1, 0 or 1")
    if rating == 0 and neutral is None:
        raise NeutralError(f"step {place} is rated 0, neither right nor wrong: say what that means with --neutral")
    return NEUTRAL[neutral] if rating == 0 else float(rating == 1)


@_steps(
    "a prompt and an answer in steps rated -1, 0 or 1; what 0 means is said with --neutral",
    ("prompt|question|problem", "completions|steps", "ratings"),
    {"prompt": "2+2+2?", "completions": ["2+2=4", "4+2=7"], "ratings": [1, -1]},
    are_lists("completions", "ratings"),
)
def ratings(row: Row) -> Solution:
    steps = steps_of(row["completions"], "completions")
    given = _one_a_step(row["ratings"], "ratings", steps)
    labels = [rated(rating, place, row.get("neutral")) for place, rating in enumerate(given, 1)]
    return Solution(prompt_of(row), steps, labels)
