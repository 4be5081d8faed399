"""The meaning of numbers in a winner column is said, never guessed."""

import json

import pytest

from conftest import write_jsonl
from reward_modeling import cli
from reward_modeling.data.reading import load, load_prompts, stream
from reward_modeling.data.records import to_score
from reward_modeling.errors import DataError, UsageError
from reward_modeling.settings import WinnerSettings

ROW = {"prompt": "p", "response_a": "A", "response_b": "B"}


@pytest.fixture
def read(tmp_path):
  def write_and_load(winners, row=ROW, **options):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row | {"winner": winner}) + "\n" for winner in winners))
    return load([str(path)], **options)

  return write_and_load


BARE = {
  "0 and 1": ([0, 1, 1], "1 (2 rows), 0 (1 rows)", "--winner_values 1=a,0=b, or 1=b,0=a;"),
  "as text": (["1", " 0", "1.0"], "1 (2 rows), 0 (1 rows)", "--winner_values 1=a,0=b, or"),
  "from 1": ([1, 2], "1 (1 rows), 2 (1 rows)", "--winner_values 2=a,1=b, or"),
  "signs": ([-1, 1, 0], "-1 (1 rows), 1 (1 rows), 0 (1 rows)", "--winner_values 1=a,0=tie,-1=b, or 1=b,0=tie,-1=a;"),
  "floats": ([0.0, 1.0], "0 (1 rows), 1 (1 rows)", "1=a,0=b"),
  "truth": ([True, False], "true (1 rows), false (1 rows)", "true=a,false=b"),
  "one value": ([0, 0], "0 (2 rows)", "0=a, or 0=b"),
  "beside words": (["model_a", 1], "model_a (1 rows), 1 (1 rows)", "1=a"),
}


@pytest.mark.parametrize("name", BARE)
def test_bare_numbers_stop_the_run_with_their_counts_and_the_flag(read, name):
  winners, counts, hint = BARE[name]
  with pytest.raises(DataError) as caught:
    read(winners, leave_out_unreadable=True)
  assert caught.value.message == f"`winner` holds numbers, which do not say which answer is better: {counts}"
  assert hint in caught.value.hint


@pytest.mark.parametrize(
  "row", [ROW, {f"conversation_{side}": [{"role": "assistant", "content": side.upper()}] for side in "ab"}]
)
def test_the_meaning_that_was_said_is_used_and_counted(read, row, capsys):
  records = read([1, 0, "1", 2.0, "model_b", None, float("nan")], row, winner_values={"1": "a", "0": "b", "2": "tie"})
  assert [pair.chosen[0]["content"] for pair in records.rows] == ["A", "B", "A", "B"]
  assert records.set_aside == {"tie": 1, "unlabeled": 2}
  assert records.winner_values == {"1=a": 2, "0=b": 1, "2=tie": 1, "model_b=b": 1}
  assert "winner: 1 -> a (2 rows), 0 -> b (1 rows), 2 -> tie (1 rows), model_b -> b (1 rows)" in capsys.readouterr().err


def test_the_opposite_meaning_gives_the_opposite_pairs(read):
  for side, content in (("a", "A"), ("b", "B")):
    (pair,) = read([1], winner_values={"1": side}).rows
    assert pair.chosen[0]["content"] == content
    (ranking,) = to_score(read([1], winner_values={"1": side})).rows
    assert ranking.scores == ([1.0, 0.0] if side == "a" else [0.0, 1.0])


def test_a_value_that_was_not_said_stops_the_run_and_is_never_left_out(read):
  with pytest.raises(DataError) as caught:
    read([1, 0, 0, 3], winner_values={"1": "a", "0": "b"}, leave_out_unreadable=True)
  assert caught.value.message.startswith("`winner` is 3, which --winner_values 1=a, 0=b does not say")
  assert caught.value.where.endswith("rows.jsonl:4")


def test_a_stream_asks_too_and_prompts_do_not(read, tmp_path, capsys):
  with pytest.raises(DataError, match="holds numbers"):
    read([0, 1])
  assert len(load_prompts([str(tmp_path / "rows.jsonl")]).rows) == 2
  with pytest.raises(DataError, match="holds numbers"):
    stream([str(tmp_path / "rows.jsonl")])
  rows = list(stream([str(tmp_path / "rows.jsonl")], winner_values={"0": "a", "1": "b"}))
  assert [row.scores for row in rows] == [[1.0, 0.0], [0.0, 1.0]]
  assert "winner: 0 -> a (1 rows), 1 -> b (1 rows)" in capsys.readouterr().err
  assert len(list(stream([str(tmp_path / "rows.jsonl")], columns={"winner": ""}))) == 2


SHP = {"history": "p", "human_ref_A": "A", "human_ref_B": "B", "labels": 1}
PKU = {"prompt": "p", "response_0": "A", "response_1": "B", "better_response_id": 1}


@pytest.mark.parametrize(
  ("row", "columns", "chosen"),
  [
    (SHP, "prompt=history,response_a=human_ref_A,response_b=human_ref_B,winner=labels", "A"),
    (SHP, "prompt=history,response_a=human_ref_B,response_b=human_ref_A,winner=labels", "A"),
    (PKU, "response_a=response_0,response_b=response_1,winner=better_response_id", "B"),
    (PKU, "response_a=response_1,response_b=response_0,winner=better_response_id", "B"),
  ],
)
def test_datasets_known_by_their_columns_mean_what_their_cards_say(tmp_path, row, columns, chosen):
  path = tmp_path / "rows.jsonl"
  path.write_text(json.dumps(row))
  (pair,) = load([str(path)], columns=dict(part.split("=") for part in columns.split(","))).rows
  assert pair.chosen[0]["content"] == chosen


def test_the_flag_is_read_and_checked():
  assert cli.winner_values("1=a, 0=b,2.0=tie,-1=model_b") == {"1": "a", "0": "b", "2": "tie", "-1": "b"}
  parser = cli.Parser("about", "x.py", WinnerSettings)
  for wrong in ("1", "1=foremost", "=a", ""):
    with pytest.raises(UsageError, match="expected VALUE=a"):
      parser.parse_args(["--winner_values", wrong])


@pytest.mark.parametrize(
  "word, chosen",
  [
    ("A>>B", "x"),
    ("[[B>A]]", "y"),
    ("Response A", "x"),
    ("assistant_b", "y"),
    ("Option B", "y"),
    ("A=B", None),
    ("No preference", None),
  ],
)
def test_words_that_say_it_themselves(tmp_path, word, chosen):
  row = {"prompt": "p", "response_a": "x", "response_b": "y", "winner": word}
  records = load(str(write_jsonl(tmp_path / "rows.jsonl", [row])))
  assert [pair.chosen[0]["content"] for pair in records.rows] == ([chosen] if chosen else [])
  assert records.set_aside == ({} if chosen else {"tie": 1})


def test_a_winner_may_be_a_model_or_a_column(tmp_path):
  row = {"prompt": "p", "response_a": "x", "response_b": "y", "model_a": "gpt", "model_b": "llama", "winner": "llama"}
  records = load(str(write_jsonl(tmp_path / "models.jsonl", [row])))
  assert records.rows[0].chosen[0]["content"] == "y" and records.winner_values == {"llama=b": 1}
  row = {"question": "p", "draft_one": "x", "draft_two": "y", "pick": "draft_two"}
  names = {"prompt": "question", "response_a": "draft_one", "response_b": "draft_two", "winner": "pick"}
  records = load(str(write_jsonl(tmp_path / "columns.jsonl", [row])), columns=names)
  assert records.rows[0].chosen[0]["content"] == "y"


def test_neither_and_both_are_ties(tmp_path):
  rows = [
    {"prompt": "p", "response_a": "x", "response_b": "y", "winner": word}
    for word in ("neither", "Both", "no_preference", "a")
  ]
  records = load(str(write_jsonl(tmp_path / "rows.jsonl", rows)))
  assert len(records.rows) == 1 and records.set_aside == {"tie": 3}
