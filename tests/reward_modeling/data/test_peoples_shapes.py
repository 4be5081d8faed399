"""Shapes that people have on the hub and in spreadsheets: each is read as a person reads it, or refused with what to do."""

import json

import pytest

from conftest import assistant, user, write_jsonl
from reward_modeling.data.formats import ANYTHING
from reward_modeling.data.reading import load
from reward_modeling.data.records import comparisons
from reward_modeling.errors import DataError


@pytest.fixture
def read(tmp_path):
  return lambda *rows, **how: load([str(write_jsonl(tmp_path / "rows.jsonl", rows))], **{"tiers": ANYTHING} | how)


def system(text):
  return {"role": "system", "content": text}


def said(messages):
  return [(message["role"][0], message["content"]) for message in messages]


def pair_of(records):
  (pair,) = comparisons(records)
  return said(pair.prompt), said(pair.chosen), said(pair.rejected)


ONE_TURN = ([("u", "Q")], [("a", "A")], [("a", "B")])
TWO_TURNS = ([("u", "P"), ("a", "R"), ("u", "Q")], [("a", "A")], [("a", "B")])
WITH_SYSTEM = ([("s", "S"), ("u", "Q")], [("a", "A")], [("a", "B")])
WHOLE = {"chosen": [user("Q"), assistant("A")], "rejected": [user("Q"), assistant("B")]}
SIDES = {"chosen": "A", "rejected": "B"}


@pytest.mark.parametrize(
  ("row", "expected"),
  [
    ({"instruction": "Q", **WHOLE}, ONE_TURN),  # Magpie
    ({"system": "S", "instruction": "Q", **WHOLE}, WITH_SYSTEM),
    ({"conversations": [user("Q")], **WHOLE}, ONE_TURN),
    ({"messages": WHOLE["chosen"], **WHOLE}, ONE_TURN),
    ({"prompt": [system("S"), user("Q")], **WHOLE}, WITH_SYSTEM),
    ({"prompt": [user("Q")]} | {name: [system("S"), *side] for name, side in WHOLE.items()}, WITH_SYSTEM),
  ],
)
def test_answers_that_are_whole_conversations_do_not_repeat_the_prompt(read, row, expected):
  assert pair_of(read(row)) == expected


def turns_of(who, what, user_is="user", assistant_is="assistant"):
  names = (user_is, assistant_is, user_is)
  return [{who: name, what: text} for name, text in zip(names, ("P", "R", "Q"), strict=True)]


@pytest.mark.parametrize(
  "turns",
  [
    turns_of("speaker", "said"),
    turns_of("author", "text", "human", "bot"),
    turns_of("from", "body", "User", "Assistant"),
    turns_of("sender", "message", "human", "ai"),
    turns_of("who", "utterance"),
    turns_of("role", "text"),
    turns_of("type", "content", "human", "ai"),
    [turn | {"parts": [{"text": turn.pop("text")}]} for turn in turns_of("role", "text", "user", "model")],  # Gemini
    [{"human": "P", "assistant": "R"}, {"human": "Q", "assistant": None}],
    [{"input": "P", "output": "R"}, {"input": "Q", "output": ""}],
    json.dumps(turns_of("speaker", "said")),
  ],
)
@pytest.mark.parametrize("column", ["prompt", "dialogue"])
def test_turns_under_other_names(read, column, turns):
  assert pair_of(read({column: turns, **SIDES})) == TWO_TURNS


def test_answers_under_other_names(read):
  answer = lambda text: [{"speaker": "bot", "utterance": text}]  # noqa: E731
  assert pair_of(read({"prompt": "Q", "chosen": answer("A"), "rejected": json.dumps(answer("B"))})) == ONE_TURN


def test_speakers_without_a_role_are_named(read):
  with pytest.raises(DataError, match="a message whose who is Alice"):
    read({"dialogue": turns_of("who", "utterance", "Alice", "Bob"), **SIDES})


def test_history_of_turns_before_an_instruction(read):
  row = {"history": [{"human": "P", "assistant": "R"}], "instruction": "Q", **SIDES}
  assert pair_of(read(row)) == TWO_TURNS
