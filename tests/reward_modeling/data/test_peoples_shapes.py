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


AB = {"prompt": "Q", "response_a": "A", "response_b": "B"}


def test_winners_that_are_names_of_models_are_shown_as_these(read):
  names = {"model_a": "gpt", "model_b": "llama"}
  rows = [AB | names | {"winner": "gpt"}, AB | names | {"winner": "neither"}, AB | names | {"winner": "llama"}]
  records = read(*rows)
  assert records.winner_values == {"gpt=a": 1, "neither=tie": 1, "llama=b": 1}
  assert [said(pair.chosen) for pair in comparisons(records)] == [[("a", "A")], [("a", "B")]]
  swapped = [AB | {"model_a": "llama", "model_b": "gpt", "winner": "gpt"}]
  assert read(*swapped, *rows).winner_values == {"gpt=b": 1, "gpt=a": 1, "neither=tie": 1, "llama=b": 1}


@pytest.mark.parametrize("word", ["inconclusive", "无", "tie (all bad)"])
def test_an_unknown_word_for_a_tie_suggests_the_line_that_says_so(read, word):
  rows = AB | {"winner": "A is better"}, AB | {"winner": word}
  with pytest.raises(DataError) as caught:
    read(*rows)
  assert f"--winner_values '{word}=tie'" in caught.value.message
  records = read(*rows, winner_values={word: "tie"})
  assert records.set_aside == {"tie": 1} and len(records.rows) == 1


def test_a_column_named_in_words_may_be_the_winner(read):
  names = {"prompt": "question", "response_a": "answer_1", "response_b": "answer_2", "winner": "preferred"}
  row = {"question": "Q", "answer_1": "B", "answer_2": "A", "preferred": "Answer 2"}
  assert pair_of(read(row, columns=names)) == ONE_TURN


STEPS = {"prompt": "Q", "steps": ["x", "y", "z"]}


@pytest.mark.parametrize(
  ("labels", "expected"),
  [
    ([1, -1, -1], [1, 0, 0]),  # VersaPRM
    (["+", "-"], [1, 0, None]),
    (["correct", "Incorrect", None], [1, 0, None]),
    ([1, 1, -1], [1, 1, 0]),
    (["1", "0", "1"], [1, 0, 1]),
  ],
)
def test_labels_of_steps(read, labels, expected):
  (row,) = read(STEPS | {"labels": labels}).rows
  assert row.labels == expected


def test_a_zero_beside_minus_one_is_asked_about(read):
  with pytest.raises(DataError, match="--neutral says what that means"):
    read(STEPS | {"labels": [1, 0, -1]})


@pytest.mark.parametrize("column", ["label", "first_error_step", "error_step"])
def test_a_first_error_that_may_be_counted_from_1_is_asked_about(read, column):
  rows = [STEPS | {column: place} for place in (3, 1, -1)]
  with pytest.raises(DataError) as caught:
    read(*rows)
  assert "first_error_from_1" in caught.value.hint and "processbench" in caught.value.hint
  labels = [row.labels for row in read(*rows, format="first_error_from_1").rows]
  assert labels == [[1, 1, 0], [0, None, None], [1, 1, 1]]


def test_a_first_error_that_is_never_in_the_first_step_of_many_rows(read):
  rows = [STEPS | {"label": place} for place in (1, 2) * 10]
  with pytest.raises(DataError, match="never 0"):
    read(*rows)
  assert read(*rows[:19]).format == read(*rows, STEPS | {"label": 0}).format == "processbench"
  assert read(*rows, format="processbench").rows[0].labels == [1, 0, None]


def test_a_null_place_means_no_error_and_a_null_label_none_at_all(read):
  assert read(STEPS | {"first_error_step": None}, STEPS | {"first_error_step": 0.0}).rows[0].labels == [1, 1, 1]
  assert read(STEPS | {"label": None}, STEPS | {"label": 0}).set_aside == {"unlabeled": 1}


def test_places_beyond_the_steps_are_refused(read):
  with pytest.raises(DataError, match="counted from 1"):
    read(STEPS | {"label": 4}, format="first_error_from_1")


def test_steps_that_both_answers_begin_with_belong_to_them(read):
  row = {"prompt": "Q", "initial_reason_steps": "x\n", "chosen": "A", "rejected": "B", "full_chosen": "x\nA"}
  assert pair_of(read(row)) == ([("u", "Q")], [("a", "x\nA")], [("a", "x\nB")])


@pytest.mark.parametrize("name", ["sys", "system_message", "systemInstruction", "retrieved_context", "pair_images"])
def test_input_under_other_names_is_not_lost(read, name):
  with pytest.raises(DataError, match="could be part of the input") as caught:
    read({"prompt": "Q", name: "S", **SIDES})
  assert f"--columns {name}=" in caught.value.hint
  assert ("only text" in caught.value.hint) == ("image" in name)
  assert pair_of(read({"prompt": "Q", name: "S", **SIDES}, columns={"system": name})) == WITH_SYSTEM


@pytest.mark.parametrize(("good", "bad"), [(1, 0), (True, False), ("chosen", "rejected"), ("Up", "DOWN"), ("1", "0")])
def test_labels_of_single_answers(read, good, bad):
  rows = [{"prompt": "Q", "response": text, "label": label} for text, label in (("A", good), ("B", bad))]
  records = read(*rows, format="kto")
  assert [row.scores for row in records.rows] == [[1.0], [0.0]]
  assert read(*rows).format == ("completion" if good in (1, "1") and good is not True else "kto")


def test_a_label_that_says_nothing_is_refused(read):
  with pytest.raises(DataError, match="`label` is text"):
    read({"prompt": "Q", "completion": "A", "label": "maybe"}, format="kto")


def test_a_better_conversation_and_a_worse_answer(read):
  assert pair_of(read({"messages": [user("Q"), assistant("A")], "rejected": "B"})) == ONE_TURN
