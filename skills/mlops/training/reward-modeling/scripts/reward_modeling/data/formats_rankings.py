"""Formats of rankings: a prompt and any number of completions with scores or ranks, or without (UNLABELED, OPEN)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from .cells import RowError, wrong_type
from .conversations import Message, answer_of, messages_of, prompt_and_answers, prompt_of
from .entries import GOOD, USER, Format, Row, are_lists, entry, margin_and_weight, never, number, one_each
from .formats_steps import steps_of
from .records import Ranking, Solution, in_steps

RANKINGS: dict[str, Format] = {}
UNLABELED: dict[str, Format] = {}
"""Completions to be scored."""
OPEN: dict[str, Format] = {}
"""Prompts to be answered."""
_rankings, _unlabeled, _open = (partial(entry, table) for table in (RANKINGS, UNLABELED, OPEN))


def _answer(given: Any) -> list[Message]:
    """A list of texts is an answer in steps."""
    if isinstance(given, list) and given and all(isinstance(step, str) for step in given):
        return in_steps(steps_of(given, "completions"))
    return answer_of(given, "completions")


def _ranked(row: Row, column: str, sign: float = 1) -> Ranking:
    """Completions with the numbers of a column, true and false too, or without if it is null."""
    found = completions(row)
    if column not in row:
        return found
    given = one_each(row[column], column, "a list of numbers", len(found.completions), "completions")
    numbers = [number(item, column) for item in given]
    if None in numbers:
        raise RowError(f"`{column}` holds null")
    return replace(found, scores=[sign * value for value in numbers])


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
    found = completions(row)
    return replace(found, scores=[-float(place) for place in range(len(found.completions))])


@_rankings(
    "a prompt and any number of completions with ranks, 1 is best",
    ("prompt", "completions|responses", "ranks|rank"),
    {"prompt": "2+2?", "completions": ["4", "5", "four"], "ranks": [1, 3, 2]},
    are_lists("completions", "ranks"),
)
def ranks(row: Row) -> Ranking:
    return _ranked(row, "ranks", -1)


@_unlabeled(
    "a prompt and any number of completions, to be scored",
    ("prompt", "completions|responses"),
    {"prompt": "2+2?", "completions": ["4", "5"]},
    are_lists("completions"),
)
def completions(row: Row) -> Ranking:
    given = row["completions"]
    if not isinstance(given, list) or not given:
        raise wrong_type("completions", given, "a list of completions")
    return Ranking(prompt_of(row), [_answer(item) for item in given])


@_unlabeled(
    "a prompt and answers a and b, to be scored",
    ("prompt", "response_a", "response_b"),
    {"prompt": "2+2?", "response_a": "5", "response_b": "4"},
)
def pair(row: Row) -> Ranking:
    return Ranking(*prompt_and_answers(row, "prompt", "response_a", "response_b"))


@_unlabeled(
    "a prompt and an answer in steps, each of which is to be scored",
    ("prompt|problem", "steps"),
    {"prompt": "2+2+2?", "steps": ["2+2=4", "4+2=6"]},
    are_lists("steps"),
)
def steps(row: Row) -> Solution:
    return Solution(prompt_of(row), steps_of(row["steps"], "steps"))


@_unlabeled(
    "a prompt and one completion, to be scored",
    ("prompt", "completion|response"),
    {"prompt": "2+2?", "completion": "4"},
)
def completion(row: Row) -> Ranking:
    return Ranking(*prompt_and_answers(row, "prompt", "completion"))


@_unlabeled(
    "a whole conversation whose last message, the assistant's, is to be scored",
    ("messages|conversations",),
    {"messages": USER + GOOD},
    optional=(),
)
def conversation(row: Row) -> Ranking:
    prompt, answer = answered(row, "there is nothing to score")
    return Ranking(prompt, [answer])


def answered(row: Row, otherwise: str) -> tuple[list[Message], list[Message]]:
    """`messages` before the last one, and the last one, the assistant's."""
    whole = messages_of(row["messages"], "messages")
    if not whole or whole[-1]["role"] != "assistant":
        raise RowError(f"`messages` does not end with an assistant message: {otherwise}")
    return whole[:-1], whole[-1:]


def _to_be_answered(said: list[Message], column: str) -> Ranking:
    if said and said[-1]["role"] == "assistant":
        raise RowError(f"`{column}` ends with an assistant message: there is nothing to answer")
    if not any(message["content"].strip() for message in said):
        raise RowError("the prompt is empty")
    return Ranking(said, [])


@_open("a prompt alone, to be answered by a policy", ("prompt|question|query",), {"prompt": "2+2?"})
def prompt(row: Row) -> Ranking:
    return _to_be_answered(prompt_of(row), "prompt")


def _is_open(row: Row) -> bool:
    said = messages_of(row["messages"], "messages")
    return bool(said) and said[-1]["role"] != "assistant"


@_open(
    "a conversation whose last message is the user's, to be answered by a policy",
    ("messages|conversations",),
    {"messages": USER},
    _is_open,
    optional=(),
)
def open_conversation(row: Row) -> Ranking:
    return _to_be_answered(messages_of(row["messages"], "messages"), "messages")
