"""What is in a file and cannot be read is told with its row, the rest is read, and no file takes more than its share."""

import datetime
import gzip
import json
import os
from decimal import Decimal

import pytest

from conftest import run_main
from reward_modeling.data import files
from reward_modeling.data.converting import Reading
from reward_modeling.data.reading import load, load_prompts, slices, stream
from reward_modeling.errors import DataError

GOOD = '{"prompt": "p", "chosen": "a", "rejected": "b"}'
ROW = json.loads(GOOD)


def test_lines_that_cannot_be_read_are_reported_together_and_can_be_left_out(tmp_path):
  path = tmp_path / "rows.jsonl"
  bad = {
    2: ("[" * 100_000, "the row nests lists and objects too deep"),
    3: ('{"a": ' + "9" * 5000 + "}", "a number of 5000 digits"),
    4: ('{"prompt": "p", "prompt": "q", "chosen": "a", "rejected": "b"}', "the key `prompt` occurs twice"),
    5: ('{"prompt": {"a": 1, "a": 2}, "chosen": "a", "rejected": "b"}', "the key `a` occurs twice"),
    6: ('{"prompt": "\\ud83d", "chosen": "a", "rejected": "b"}', "one half of a surrogate pair"),
    7: (b'{"prompt": "\xed\xa0\x80"}', "byte 13 of the row (0xed) is not UTF-8"),
    8: ("{", "broken JSON"),
    9: ("3", "the row is a number, not an object with columns"),
    10: ('{"prompt": "p", "chosen": 3, "rejected": "b"}', "`chosen` is a number (3)"),
  }
  lines = [bad[number][0] if number in bad else GOOD for number in range(1, 21)]
  path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
  records = load([str(path)], leave_out_unreadable=True)
  assert [row.origin.row for row in records.rows] == [1, *range(11, 21)]
  assert records.set_aside == {"unreadable": 9}
  for (place, reason), (number, (_, expected)) in zip(records.unreadable, bad.items(), strict=True):
    assert place == f"{path}:{number}" and expected in reason
  with pytest.raises(DataError, match="9 of 20 rows cannot be read") as caught:
    load([str(path)])
  assert caught.value.where == f"{path}:2 (also 3, 4, 5, 6, ...)"
  with pytest.raises(DataError, match="9 of 20 rows"):
    stream([str(path)])


def test_check_data_drops_lines_that_cannot_be_read(tmp_path):
  path = tmp_path / "rows.jsonl"
  path.write_text(f"{GOOD}\n{{\n{GOOD.replace('p', 'q', 1).replace('qrompt', 'prompt')}\n")
  done = run_main("check_data.py", path, "--drop", "unreadable", "--output", tmp_path / "clean.jsonl")
  assert done.returncode == 0, done.stderr
  assert (done.json["rows"], done.json["dropped_rows"], done.json["dropped"]) == (3, {"unreadable": 1}, 1)
  assert len((tmp_path / "clean.jsonl").read_text().splitlines()) == 2


JSON = {
  "a row": (f'[{GOOD}, {GOOD[:-1]}, "chosen": "c"}}, {GOOD}]', ":2", "the key `chosen` occurs twice in one object"),
  "half a pair": (f'[{GOOD}, {{"prompt": "\\ud83d"}}, {GOOD}]', ":2", "one half of a surrogate pair"),
  "many digits": (f'[{GOOD}, {{"prompt": {"9" * 5000}}}, {GOOD}]', ":2", "a number of 5000 digits"),
  "the whole": (f'{{"data": [{GOOD}], "data": []}}', "", "the key `data` occurs twice in one object"),
  "deep": (f"[{GOOD},\n{'[' * 100_000}]", ":2", "the file nests lists and objects too deep"),
}


@pytest.mark.parametrize("name", JSON)
def test_rows_of_a_json_file_are_told_too(tmp_path, name):
  text, place, message = JSON[name]
  path = tmp_path / "rows.json"
  path.write_text(text)
  with pytest.raises(DataError) as caught:
    load([str(path)])
  assert message in caught.value.message and caught.value.where == f"{path}{place}"
  if place and name != "deep":
    assert len(load([str(path)], leave_out_unreadable=True).rows) == 2


def test_what_stands_beside_the_data_is_counted(tmp_path, capsys):
  path = tmp_path / "rows.json"
  path.write_text(json.dumps({"version": 1, "data": [ROW], "validation": [ROW, ROW]}))
  records = load([str(path)])
  assert records.set_aside == {"`version` beside `data`": 1, "`validation` beside `data`": 2}
  done = run_main("check_data.py", path)
  assert done.json["rows"] == 4 and "2 more rows are set aside: `validation` beside `data`" in done.stderr
  path.write_text(json.dumps({"version": 1, "data": [{"prompt": "p", "completion": "a"}]}))
  assert stream([str(path)]).rows == 1
  assert "not read: `version` beside `data` (1)" in capsys.readouterr().err


def test_columns_of_one_name_are_an_error(tmp_path):
  import pyarrow
  import pyarrow.parquet

  (tmp_path / "a.csv").write_text("prompt,chosen,rejected,chosen\np,a,b,c\n")
  table = pyarrow.table([["p"], ["a"], ["b"], ["c"]], names=["prompt", "chosen", "rejected", "chosen"])
  pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
  for name in ("a.csv", "a.parquet"):
    with pytest.raises(DataError) as caught:
      load([str(tmp_path / name)])
    assert caught.value.message == "the file has several columns of the name `chosen` (columns 2, 4)"


def test_bad_rows_of_csv_leave_the_others(tmp_path):
  path = tmp_path / "a.csv"
  path.write_bytes(
    b'\xef\xbb\xbfprompt,chosen,rejected\r\np,"a\r\nb",c\r\np,\xe9,c\r\np,a\r\np,\xed\xa0\x80,c\r\np,a,b,c\r\n'
    + b"p,a,b\r\n" * 5
  )
  records = load([str(path)], leave_out_unreadable=True)
  assert [row.origin.row for row in records.rows] == [1, 6, 7, 8, 9, 10]
  assert records.rows[0].chosen[0]["content"] == "a\r\nb"
  assert [reason.partition(",")[0] for _, reason in records.unreadable] == [
    "the byte 0xe9 is not UTF-8",
    "the row has fewer cells than the 3 columns of the header",
    "the byte 0xed is not UTF-8",
    "the row has more cells than the 3 columns of the header",
  ]


def parquet(path, columns):
  import pyarrow
  import pyarrow.parquet

  pyarrow.parquet.write_table(
    pyarrow.table({"prompt": ["p"] * 4, "chosen": ["a"] * 4, "rejected": ["b"] * 4} | columns), path
  )
  return str(path)


def test_odd_values_of_parquet(tmp_path):
  import pyarrow

  far = pyarrow.array([0, 2**61, -(2**61), None], pyarrow.timestamp("us"))
  margins = pyarrow.array([Decimal("1.50"), Decimal("2.00"), None, Decimal("-0.25")], pyarrow.decimal128(9, 2))
  days = pyarrow.array([datetime.date(2020, 1, 1)] * 4)
  pairs = pyarrow.array([[("a", 1)]] * 4, pyarrow.map_(pyarrow.string(), pyarrow.int64()))
  path = parquet(
    tmp_path / "a.parquet", {"when": far, "margin": margins, "day": days, "pairs": pairs, "raw": [b"\xff"] * 4}
  )
  records = load([path])
  assert [row.margin for row in records.rows] == [1.5, 2.0, None, -0.25]
  assert len(records.rows) == 4 and isinstance(records.rows[1].metadata["when"], str)
  done = run_main("check_data.py", path, "--drop", "duplicate", "--output", tmp_path / "out.jsonl")
  assert done.returncode in (0, 3) and "Traceback" not in done.stderr

  broken = pyarrow.array([b"a", b"\xed\xa0\x80", b"c", b"\xff"]).view(pyarrow.string())
  records = load([parquet(tmp_path / "b.parquet", {"chosen": broken})], leave_out_unreadable=True)
  assert [row.origin.row for row in records.rows] == [1, 3]
  assert "column `chosen` holds a value that cannot be read: 'utf-8' codec" in records.unreadable[0][1]
  with pytest.raises(DataError, match="`chosen` is bytes"):
    load([parquet(tmp_path / "c.parquet", {"chosen": [b"a"] * 4})])


# ---- bounds -------------------------------------------------------------------------------------------------------


BOMBS = {
  "rows.csv.gz": (b"prompt,chosen,rejected\n", b",,\n"),
  "rows.json.gz": (b"[", b" "),
  "rows.jsonl.gz": (b"", GOOD.encode() + b"\n"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_packed_file_does_not_unpack_without_bound(tmp_path, monkeypatch, name):
  monkeypatch.setattr(files, "STRETCH", files.MIB // 2)
  start, more = BOMBS[name]
  path = tmp_path / name
  path.write_bytes(gzip.compress(start + more * (6 * files.MIB // len(more)), 6))
  rows = []
  monkeypatch.setattr(files, "clean", lambda row: rows.append(row) or row)
  with pytest.raises(DataError, match="unpacks to more than 200 times its size") as caught:
    load([str(path)])
  assert caught.value.hint.startswith("if that is right, unpack it")
  assert len(rows) <= 4 * files.MIB // len(more), "it stops soon, not at the end"


def test_a_packed_file_may_be_streamed_and_a_repetitive_small_one_read(tmp_path):
  path = tmp_path / "rows.jsonl.gz"
  path.write_bytes(gzip.compress(b'{"prompt": "p", "completion": "a"}\n' * 20_000))
  assert stream([str(path)]).rows == len(load([str(path)]).rows) == 20_000


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.csv"])
def test_one_line_is_bounded(tmp_path, monkeypatch, name):
  monkeypatch.setattr(files, "LINE_LIMIT", 1000)
  path = tmp_path / name
  content = f"prompt,chosen,rejected\np,{'a' * 2000},b\n" if name.endswith("csv") else GOOD.replace("p", "p" * 2000)
  path.write_bytes(gzip.compress(content.encode()) if name.endswith("gz") else content.encode())
  with pytest.raises(DataError, match="the line is longer than") as caught:
    load([str(path)])
  assert caught.value.where == f"{path}:{2 if name.endswith('csv') else 1}"


def test_a_parquet_file_whose_rows_take_no_room_is_not_unpacked(tmp_path, monkeypatch):
  import pyarrow
  import pyarrow.parquet

  path = tmp_path / "a.parquet"
  pyarrow.parquet.write_table(pyarrow.table({"prompt": pyarrow.nulls(3_000_000, pyarrow.string())}), path)
  with pytest.raises(DataError, match="bytes says that it has 3000000 rows"):
    load_prompts([str(path)])


# ---- places -------------------------------------------------------------------------------------------------------


def test_pipes_and_devices_are_refused_in_a_line(tmp_path):
  os.mkfifo(tmp_path / "pipe.jsonl")
  (tmp_path / "link.jsonl").symlink_to("/dev/zero")
  for name in (tmp_path / "pipe.jsonl", tmp_path / "link.jsonl", "/dev/null"):
    with pytest.raises(DataError, match="is a pipe or a device, not a file"):
      load([str(name)])


def test_names_that_no_file_can_have(tmp_path):
  for name in ("a" * 300, "a" * 300 + ".jsonl", str(tmp_path / ("a" * 300))):
    with pytest.raises(DataError, match="File name too long"):
      load([name])
  with pytest.raises(DataError, match="no such file"):
    load(["a\0b.jsonl"])


def test_a_name_that_is_not_utf8(tmp_path):
  name = os.fsdecode(os.fsencode(tmp_path) + b"/r\xe9.jsonl")
  with open(name, "w") as file:
    file.write(f"{GOOD}\n{GOOD}\n")
  done = run_main("check_data.py", name, "--output", tmp_path / "out.jsonl")
  assert done.returncode in (0, 3) and done.json["files"] == [name], done.stderr
  done = run_main("check_data.py", name + "x")
  assert (done.returncode, "Traceback" in done.stderr) == (3, False)


def test_what_may_not_be_read_is_said_so(tmp_path, monkeypatch):
  from reward_modeling import program
  from reward_modeling.data import sources

  path = tmp_path / "rows.jsonl"
  path.write_text(GOOD)

  def refused(*_, **__):
    raise PermissionError(13, "Permission denied", str(path))

  monkeypatch.setattr("builtins.open", refused)
  with pytest.raises(DataError, match="cannot read the file: Permission denied"):
    load([str(path)])
  monkeypatch.undo()
  monkeypatch.setattr(sources.Path, "stat", refused)
  with pytest.raises(DataError, match=r"cannot read .*rows.jsonl: Permission denied"):
    load([str(path)])
  monkeypatch.undo()
  monkeypatch.setattr(program.os, "access", lambda *_: False)
  error = PermissionError(13, "Permission denied", str(path))
  assert program.known_run_error(error).message == f"not allowed to read: {path}"


@pytest.mark.parametrize(
  ("name", "text"), {"a.json": '{"data": [], "meta": 1}', "a.csv": "prompt,chosen,rejected\n,,\n,,\n"}.items()
)
def test_a_file_of_which_all_is_set_aside_holds_no_rows(name, text, tmp_path):
  path = tmp_path / name
  path.write_text(text)
  for read in (load, stream):
    with pytest.raises(DataError, match="the file holds no rows"):
      read([str(path)])


def test_a_slice_of_which_all_is_set_aside_is_counted(tmp_path, monkeypatch):
  """As at the end of a spreadsheet, where the rows before it fill the slices."""
  monkeypatch.setattr("reward_modeling.data.reading.SLICE", 4)
  path = tmp_path / "a.csv"
  path.write_text("prompt,chosen,rejected\n" + "p,a,b\n" * 8 + ",,\n")
  parts = [records for _, records in slices([str(path)], Reading())]
  assert [len(part.rows) for part in parts] == [4, 4, 0]
  assert [part.set_aside for part in parts] == [{}, {}, {"row of empty cells": 1}]


def test_a_slice_of_unreadable_rows_is_left_out_as_others_are(tmp_path, monkeypatch):
  monkeypatch.setattr("reward_modeling.data.reading.SLICE", 4)
  path = tmp_path / "a.jsonl"
  path.write_text(f"{GOOD}\n" * 4 + "{\n")
  parts = [records for _, records in slices([str(path)], Reading(leave_out_unreadable=True))]
  assert [len(part.rows) for part in parts] == [4, 0] and parts[1].unreadable[0][0] == f"{path}:5"
  with pytest.raises(DataError, match="broken JSON"):
    list(slices([str(path)], Reading()))
