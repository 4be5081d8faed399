"""Formats of answers in steps, each step labeled as right or wrong."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from .cells import RowError, short, wrong_type
from .conversations import prompt_of
from .entries import Format, Row, are_lists, are_texts, entry, one_each
from .records import Solution

STEPS: dict[str, Format] = {}
_steps = partial(entry, STEPS)

STEP_TAG = "ки"
"""What stands at the end of a step in Math-Shepherd, where the label's text has + or -."""
FIRST_STEP = "Step 1:"
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
    """One label a step; null where nobody judged it. A list that ends with the first error leaves the rest unjudged."""
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
    "true or false, 0 or 1, probabilities, null for not judged",
    ("prompt", "completions", "labels"),
    {"prompt": "2+2+2?", "completions": ["2+2=4", "4+2=7"], "labels": [True, False]},
    are_lists("completions", "labels"),
)
def stepwise(row: Row) -> Solution:
    steps = steps_of(row["completions"], "completions")
    return Solution(prompt_of(row), steps, _labels(row["labels"], steps) if "labels" in row else None)


class NeutralError(RowError):
    """A step is rated 0 and nobody has said what that means."""


def _rated(rating: Any, place: int, neutral: str | None) -> float | None:
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
    ("prompt", "completions|steps", "ratings"),
    {"prompt": "2+2+2?", "completions": ["2+2=4", "4+2=7"], "ratings": [1, -1]},
    are_lists("completions", "ratings"),
)
def ratings(row: Row) -> Solution:
    steps = steps_of(row["completions"], "completions")
    given = _one_a_step(row["ratings"], "ratings", steps)
    labels = [_rated(rating, place, row.get("neutral")) for place, rating in enumerate(given, 1)]
    return Solution(prompt_of(row), steps, labels)


@_steps(
    "rows of PRM800K as published: the solution its labeller followed; what a rating of 0 means is said with --neutral",
    ("question", "label"),
    {
        "question": {"problem": "2+2+2?"},
        "label": {"steps": [{"completions": [{"text": "2+2=4", "rating": 1}], "chosen_completion": 0}]},
    },
    lambda row: isinstance(row["question"], dict) and isinstance(row["label"], dict) and "steps" in row["label"],
    optional=(),
)
def prm800k(row: Row) -> Solution:
    steps, labels = [], []
    try:
        problem = row["question"]["problem"]
        for place, step in enumerate(row["label"]["steps"], 1):
            followed = _followed(step, place)
            if followed is None:
                break
            text, rating, last = followed
            steps.append(text)
            labels.append(_rated(rating, place, row.get("neutral")))
            if last:
                break
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise RowError(f"the row is not as in PRM800K: {type(error).__name__} at {error}") from None
    return Solution(prompt_of({"prompt": problem}), steps_of(steps, "label.steps"), labels)


def _followed(step: Row, place: int) -> tuple[Any, Any, bool] | None:
    """(text, rating, whether the solution ends with it) of the completion that the labeler followed: the chosen one, or the
    one written by hand, which is right. Where there is neither, the solution ends with the completion rated worst.
    """
    rated, chosen, by_hand = step["completions"] or [], step.get("chosen_completion"), step.get("human_completion")
    if chosen is None and by_hand:
        return by_hand["text"] if isinstance(by_hand, dict) else by_hand, 1, False
    if chosen is None and not rated:
        return None
    if chosen is not None and (type(chosen) is not int or not 0 <= chosen < len(rated)):
        raise RowError(
            f"`chosen_completion` of step {place} is {short(chosen)}: expected the place of one of "
            f"{len(rated)} completions, counted from 0, or null"
        )
    if chosen is not None:
        return rated[chosen]["text"], rated[chosen]["rating"], False
    worst = min(rated, key=lambda one: 2 if one["rating"] is None else one["rating"])
    return worst["text"], worst["rating"], True


@_steps(
    "Math-Shepherd: a problem and steps in one text, a tag behind each, and that text with + or - for each tag",
    ("input", "label"),
    {"input": "2+2+2? Step 1: 2+2=4 ки\nStep 2: 4+2=7 ки", "label": "2+2+2? Step 1: 2+2=4 +\nStep 2: 4+2=7 -"},
    lambda row: are_texts("input", "label")(row) and STEP_TAG in row["input"],
    optional=(),
)
def math_shepherd(row: Row) -> Solution:
    """The steps between the tags; the label is the same text with + or - in the place of each tag."""
    for name in ("input", "label"):
        if not isinstance(row[name], str):
            raise wrong_type(name, row[name], "text")
    parts, end, steps, labels = row["input"].split(STEP_TAG), 0, [], []
    if parts[-1].strip():
        raise RowError(f"`input` does not end with the step tag {STEP_TAG}")
    for place, part in enumerate(parts[:-1], 1):
        end += len(part)
        mark = row["label"][end : end + 1]
        if row["label"][end - len(part) : end] != part or mark not in ("+", "-"):
            raise RowError(f"`label` does not repeat step {place} of `input` with + or - behind it")
        end += 1
        steps.append(part.strip())
        labels.append(float(mark == "+"))
    prompt, found, first = steps[0].partition(FIRST_STEP) if steps else ("", "", "")
    if not found:
        raise RowError(f"`input` has no {FIRST_STEP!r}, where the answer would begin")
    return Solution(prompt_of({"prompt": prompt.strip()}), steps_of([found + first, *steps[1:]], "input"), labels)


@_steps(
    "a problem, steps, and the place of the first error, counted from 0, or -1 (ProcessBench)",
    ("problem|prompt", "steps", "label"),
    {"problem": "2+2+2?", "steps": ["2+2=4", "4+2=7"], "label": 1},
    are_lists("steps"),
)
def processbench(row: Row) -> Solution:
    """What follows an error is not judged."""
    steps, error = steps_of(row["steps"], "steps"), row["label"]
    if isinstance(error, str) and re.fullmatch(r"\s*-?\d{1,9}\s*", error):  # as CSV holds it
        error = int(error)
    if isinstance(error, bool) or not isinstance(error, int) or not -1 <= error < len(steps):
        raise RowError(
            f"`label` is {short(error)}: expected the place of the first error among {len(steps)} steps, or -1"
        )
    judged = [1.0] * len(steps) if error < 0 else [1.0] * error + [0.0]
    return Solution(prompt_of(row, "problem"), steps, judged + [None] * (len(steps) - len(judged)))
