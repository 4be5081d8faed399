"""Rows that no format fits get an answer that helps: each suggested line is tried here."""

import csv
import gzip
import json
import re

import pytest

from reward_modeling.data.reading import load
from reward_modeling.data.records import comparisons
from reward_modeling.errors import DataError

SHAPES = {
  "prompt=task.ask,chosen=good_answer,rejected=bad_answer": {
    "task": {"ask": "2+2?"},
    "good_answer": "4",
    "bad_answer": "5",
  },
  "prompt=question.full_text,completions=answers[].text,scores=answers[].score": {
    "question": {"full_text": "2+2?", "id": 1},
    "answers": [{"text": "4", "score": 3}, {"text": "5", "score": -1}],
  },
  "prompt=post,completions=candidates,ranks=ranking": {"post": "2+2?", "candidates": ["4", "5"], "ranking": [1, 2]},
  "prompt=title,chosen=posAnswer,rejected=negAnswer": {"title": "2+2?", "posAnswer": "4", "negAnswer": "5"},
  "prompt=prompt,completions=completions[].text,ranks=completions[].rank": {
    "prompt": "2+2?",
    "completions": [{"text": "4", "rank": 1}, {"text": "5", "rank": 2}],
  },
}
STRANGE = {"foo": 1, "bar": "2+2?", "baz": {"q": "4"}, "qux": "5", "long": "x" * 500}


def refused(path) -> DataError:
  with pytest.raises(DataError) as caught:
    load(str(path))
  return caught.value


@pytest.mark.parametrize("columns", SHAPES)
def test_a_columns_line_that_works(tmp_path, columns):
  path = tmp_path / "rows.jsonl"
  path.write_text((json.dumps(SHAPES[columns]) + "\n") * 3)
  error = refused(path)
  suggested = re.search(r"--columns '([^']+)'", error.hint)[1]
  assert suggested == columns
  (pair, *_) = comparisons(load(str(path), columns=dict(part.split("=") for part in suggested.split(","))))
  assert [pair.prompt[0]["content"], pair.chosen[0]["content"], pair.rejected[0]["content"]] == ["2+2?", "4", "5"]
  for name, meaning in (("scores", "a higher score must be better"), ("ranks", "rank 1 must be best")):
    assert (f"{name}=" in columns) == (meaning in error.hint)


def test_what_was_seen_and_the_nearest_formats(tmp_path):
  path = tmp_path / "rows.jsonl"
  path.write_text(json.dumps(STRANGE | {"question": ["a", "b"]}) + "\n")
  error = refused(path)
  assert error.message.startswith("no format has the columns ")
  for line in (
    "foo: number, as in 1",
    'baz: object with q (text), as in {"q": "4"}',
    "question: list of 2: text, as in",
    f"long: text, as in {'x' * 57}...",
  ):
    assert f"\n  {line}" in error.message
  assert "`best_first` (lacks completions or responses or answers)" in error.hint


def write_csv(path, rows):
  with open(path, "w", newline="") as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)


WRITE = {
  "a.jsonl": lambda path, rows: path.write_text("".join(json.dumps(row) + "\n" for row in rows)),
  "a.json": lambda path, rows: path.write_text(json.dumps(rows)),
  "a.csv": write_csv,
  "a.jsonl.gz": lambda path, rows: path.write_bytes(
    gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode())
  ),
}


@pytest.mark.parametrize("name", WRITE)
def test_a_conversion_in_three_lines_that_runs(tmp_path, monkeypatch, name):
  monkeypatch.chdir(tmp_path)
  rows = [{"bar": "2+2?", "qux": "4", "zip": "5"}] * 2
  WRITE[name](tmp_path / name, rows)
  lines = [line.strip() for line in refused(name).hint.splitlines() if line.startswith("  ")]
  assert len(lines) == 3
  exec("\n".join(lines), {})
  (pair, _) = load("pairs.jsonl").rows
  assert [pair.prompt[0]["content"], pair.chosen[0]["content"], pair.rejected[0]["content"]] == ["2+2?", "4", "5"]
