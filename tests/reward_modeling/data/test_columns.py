"""--columns reaches into objects and lists, and says what is not there."""

import json

import pytest

from reward_modeling.data.reading import load, stream
from reward_modeling.data.writing import to_row
from reward_modeling.errors import DataError

ROW = {
  "question": {"id": "q", "full_text": "2+2?"},
  "answers": [{"answer": "4", "rank": 1, "meta": {"score": 3}}, {"answer": "5", "rank": 2, "meta": {"score": -1}}],
  "source": "x",
}


def written(folder, *rows):
  path = folder / "rows.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


def texts(row):
  return row.prompt[0]["content"], [answer[0]["content"] for answer in row.completions], row.scores


@pytest.mark.parametrize(
  ("columns", "scores"),
  [
    ("prompt=question.full_text,completions=answers[].answer,ranks=answers[].rank", [-1, -2]),
    ("prompt=question.full_text,completions=answers[].answer,scores=answers[].meta.score", [3, -1]),
  ],
)
@pytest.mark.parametrize("write", [lambda value: value, json.dumps, str])
def test_parts_of_nested_columns(tmp_path, columns, scores, write):
  row = ROW | {name: write(ROW[name]) for name in ("question", "answers")}
  path, columns = written(tmp_path, row, row), dict(part.split("=") for part in columns.split(","))
  records = load(path, columns=columns)
  assert [texts(one) for one in records.rows] == [("2+2?", ["4", "5"], scores)] * 2
  assert records.rows[0].metadata == {key: row[key] for key in ("question", "answers", "source")}
  assert [texts(one) for one in stream([path], columns=columns)] == [("2+2?", ["4", "5"], scores)] * 2
  again = load(written(tmp_path, to_row(records.rows[0])))
  assert again.rows[0].scores == scores and again.rows[0].metadata == records.rows[0].metadata


def test_one_entry_of_a_list_and_a_column_with_a_dot(tmp_path):
  row = {"a.b": "2+2?", "a": {"b": "wrong"}, "answers": [{"text": "4"}, {"text": "?"}, {"text": "5"}]}
  columns = {"prompt": "a.b", "chosen": "answers[0].text", "rejected": "answers[-1].text"}
  (pair,) = load(written(tmp_path, row), columns=columns).rows
  assert [pair.prompt[0]["content"], pair.chosen[0]["content"], pair.rejected[0]["content"]] == ["2+2?", "4", "5"]


BAD = {
  "question.text": "`question.text`: `question` has no key `text` \\(it has id, full_text\\)",
  "answers[].text": "`answers\\[\\].text`: `answers\\[0\\]` has no key `text`",
  "answers.answer": "`answers` is a list, not an object",
  "source.text": "`source` is text, not an object",
  "question[0]": "`question` is an object, not a list",
  "answers[7]": "`answers` has no entry `7` \\(it has 2\\)",
}


@pytest.mark.parametrize("path", BAD)
def test_a_part_that_is_not_there_names_path_and_row(tmp_path, path):
  columns = {"prompt": path, "completions": "answers[].answer"}
  with pytest.raises(DataError, match=BAD[path]) as caught:
    load(written(tmp_path, ROW), columns=columns)
  assert caught.value.where.endswith("rows.jsonl:1") and "--columns" in caught.value.hint


@pytest.mark.parametrize(
  ("path", "message"),
  [
    ("qestion.text", "there is no column `qestion`"),
    ("question..text", "is not a valid path"),
    ("answers[x]", "path"),
  ],
)
def test_what_is_no_path_is_said(tmp_path, path, message):
  with pytest.raises(DataError, match=message):
    load(written(tmp_path, ROW), columns={"prompt": path})


def test_one_row_that_lacks_a_part_is_one_row(tmp_path):
  path = written(tmp_path, ROW, ROW | {"question": {"id": 1}}, ROW)
  columns = {"prompt": "question.full_text", "completions": "answers[].answer", "ranks": "answers[].rank"}
  records = load(path, columns=columns, leave_out_unreadable=True)
  assert len(records.rows) == 2 and records.unreadable[0][0] == f"{path}:2"
