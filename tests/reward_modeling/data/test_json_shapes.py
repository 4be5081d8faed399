"""The same rows from every layout of a file."""

import gzip
import json

import pytest

from reward_modeling.data.reading import load, stream
from reward_modeling.errors import DataError

ROWS = [{"prompt": f"p{n}", "chosen": f"a; {n}", "rejected": f'b\t"{n}"'} for n in range(3)]
PAIRS = [(f"p{n}", f"a; {n}", f'b\t"{n}"') for n in range(3)]
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}
JSON = {
  "rows": ROWS,
  "data": {"data": ROWS},
  "examples": {"examples": ROWS},
  "columns": COLUMNS,
  "pandas": {name: {str(n): value for n, value in enumerate(column)} for name, column in COLUMNS.items()},
  "index": {str(n): row for n, row in enumerate(ROWS)},
  "split": {"columns": list(COLUMNS), "index": [0, 1, 2], "data": [list(row.values()) for row in ROWS]},
  "viewer": {"rows": [{"row_idx": n, "row": row} for n, row in enumerate(ROWS)]},
  "groups": {"q1": ROWS[:2], "q2": ROWS[2:]},
  "one split": {"train": ROWS},
}


def pairs(path) -> list[tuple]:
  records = load(str(path))
  assert [row.origin.row for row in records.rows] == [1, 2, 3] and not records.set_aside
  assert [row.origin.row for row in stream([str(path)])] == [1, 2, 3]
  return [(row.prompt[0]["content"], row.chosen[0]["content"], row.rejected[0]["content"]) for row in records.rows]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson", "a.jsonl.gz"])
@pytest.mark.parametrize("shape", JSON)
def test_a_json_document_under_any_name(tmp_path, shape, name):
  for indent in (None, 1) if name == "a.json" or shape == "rows" else (1,):
    text = json.dumps(JSON[shape], indent=indent).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert pairs(tmp_path / name) == PAIRS


def table(delimiter: str) -> str:
  quoted = ['"' + value.replace('"', '""') + '"' for row in ROWS for value in row.values()]
  lines = [delimiter.join(quoted[start : start + 3]) for start in (0, 3, 6)]
  return "\n".join([delimiter.join(ROWS[0]), *lines])


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("delimiter", list(",;\t"))
def test_the_delimiter_is_in_the_header(tmp_path, delimiter, name):
  (tmp_path / name).write_text(table(delimiter))
  assert pairs(tmp_path / name) == PAIRS


def test_a_comma_decides_and_quoted_names_do_not(tmp_path):
  (tmp_path / "a.csv").write_text('prompt;chosen;rejected;"a, b"\np;x, y;z;1\n')
  (row,) = load(str(tmp_path / "a.csv")).rows
  assert row.chosen[0]["content"] == "x, y" and row.metadata == {"a, b": "1"}


def test_lines_stay_lines(tmp_path):
  path = tmp_path / "a.jsonl"
  lines = [json.dumps(row) for row in ROWS]
  for first in ("[1, 2]", "[", "{", '{"prompt": "cut'):
    path.write_text("\n".join([first, *lines]))
    records = load(str(path), leave_out_unreadable=True)
    assert [row.origin.row for row in records.rows] == [2, 3, 4] and len(records.unreadable) == 1


def test_one_row_is_one_row(tmp_path):
  messages = [[{"role": "user", "content": "hi"}], [{"role": "assistant", "content": "a"}]]
  path = tmp_path / "a.json"
  for row in (
    {"prompt": messages[0], "chosen": messages[1], "rejected": [{"role": "assistant", "content": "b"}]},
    {"prompt": "hi", "completions": ["a", "b"], "scores": [1, 0]},
    {"prompt": messages[0], "completions": ["a"], "scores": [1]},
    {"prompt": "hi", "completions": ["s", "t"], "labels": [1, 0]},
  ):
    path.write_text(json.dumps(row))
    assert len(load(str(path)).rows) == 1


def test_splits_in_one_document_are_not_mixed(tmp_path):
  (tmp_path / "a.json").write_text(json.dumps({"train": ROWS, "test": ROWS}))
  with pytest.raises(DataError, match=r"several splits \(train, test\)"):
    load(str(tmp_path / "a.json"))
