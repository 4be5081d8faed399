"""Formats without labels: completions to be scored (UNLABELED), and prompts to be answered (OPEN)."""

from __future__ import annotations

from functools import partial

from .cells import RowError
from .conversations import Message, messages_of, prompt_and_answers, prompt_of
from .entries import GOOD, USER, Format, Row, are_lists, entry
from .formats_rankings import unlabeled
from .formats_steps import steps_of
from .records import Ranking, Solution

UNLABELED: dict[str, Format] = {}
OPEN: dict[str, Format] = {}
_unlabeled, _open = partial(entry, UNLABELED), partial(entry, OPEN)


@_unlabeled(
    "a prompt and any number of completions, to be scored",
    ("prompt", "completions|responses"),
    {"prompt": "2+2?", "completions": ["4", "5"]},
    are_lists("completions"),
)
def completions(row: Row) -> Ranking:
    return unlabeled(row)


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
    said = messages_of(row["messages"], "messages")
    if not said or said[-1]["role"] != "assistant":
        raise RowError("`messages` does not end with an assistant message: there is nothing to score")
    return Ranking(said[:-1], [said[-1:]])


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
    try:
        return messages_of(row["messages"], "messages")[-1]["role"] != "assistant"
    except (RowError, IndexError):
        return False


@_open(
    "a conversation whose last message is the user's, to be answered by a policy",
    ("messages|conversations",),
    {"messages": USER},
    _is_open,
    optional=(),
)
def open_conversation(row: Row) -> Ranking:
    return _to_be_answered(messages_of(row["messages"], "messages"), "messages")
