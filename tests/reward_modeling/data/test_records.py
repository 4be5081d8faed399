"""Files of every kind to the same records, rankings to pairs, and the canonical form there and back."""

import dataclasses
import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reward_modeling.data import reading
from reward_modeling.data.reading import load, stream
from reward_modeling.data.records import Comparison, Ranking, Records, Solution, comparisons, equal_scores, to_score
from reward_modeling.data.writing import to_row
from reward_modeling.errors import DataError, UsageError
from warm_process import HANG

REPOSITORY = Path(__file__).resolve().parents[3]
REAL = REPOSITORY.parent / "shared" / "data"
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"the real labelled data are not at {REAL}")

ROWS = [{"prompt": f"p{i}", "chosen": f"good\n{i}, é", "rejected": "bad", "subset": "s"} for i in range(3)]


def jsonl(rows):
  return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def csv_text(rows):
  def quote(cell):
    return '"' + str(cell).replace('"', '""') + '"'

  return "\r\n".join([",".join(rows[0]), *(",".join(map(quote, row.values())) for row in rows)])


def write(path, text):
  data = text.encode() if isinstance(text, str) else text
  path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
  return str(path)


def without_origin(rows):
  return [dataclasses.replace(row, origin=None) for row in rows]


@pytest.fixture
def expected(tmp_path):
  return without_origin(load([write(tmp_path / "expected.jsonl", jsonl(ROWS))]).rows)


KINDS = {
  "a.jsonl": jsonl(ROWS),
  "a.jsonl.gz": jsonl(ROWS),
  "a.json": json.dumps(ROWS),
  "b.json": json.dumps({"data": ROWS}),
  "c.json": jsonl(ROWS),
  "a.json.gz": json.dumps(ROWS, indent=1),
  "a.csv": csv_text(ROWS),
  "a.csv.gz": csv_text(ROWS),
  "bom.jsonl": b"\xef\xbb\xbf" + jsonl(ROWS).encode(),
  "windows.jsonl": jsonl(ROWS).replace("\n", "\r\n"),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_the_same_records(tmp_path, expected, name):
  path = write(tmp_path / name, KINDS[name])
  records = load([path])
  assert without_origin(records.rows) == expected
  assert [str(row.origin) for row in records.rows] == [f"{path}:{i}" for i in (1, 2, 3)]
  assert (records.format, records.files) == ("explicit", (path,))


def test_parquet_gives_the_same_records_and_drops_the_nulls_it_adds_to_messages(tmp_path, expected):
  import pyarrow
  import pyarrow.parquet

  path = tmp_path / "a.parquet"
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
  assert without_origin(load([str(path)]).rows) == expected
  spoken = [
    [{"role": "user", "content": "q", "name": None}, {"role": "assistant", "content": text, "name": "bot"}]
    for text in ("x", "y")
  ]
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"chosen": spoken[0], "rejected": spoken[1]}]), path)
  (pair,) = load([str(path)]).rows
  assert pair.prompt == [{"role": "user", "content": "q"}]
  assert pair.chosen == [{"role": "assistant", "content": "x", "name": "bot"}]


def test_csv_cells_hold_messages_and_lists_as_json(tmp_path):
  message = json.dumps([{"role": "user", "content": "q"}])
  rows = [{"prompt": message, "completions": '["[1]", "y"]', "scores": "[1, 0.5]"}]
  (ranking,) = load([write(tmp_path / "a.csv", csv_text(rows))]).rows
  assert ranking.prompt == [{"role": "user", "content": "q"}]
  assert ranking.completions[0] == [{"role": "assistant", "content": "[1]"}]
  assert ranking.scores == [1.0, 0.5]
  (pair,) = load([write(tmp_path / "b.csv", csv_text([{"prompt": "[1, 2]", "chosen": "x", "rejected": "y"}]))]).rows
  assert pair.prompt == [{"role": "user", "content": "[1, 2]"}]


def test_saved_datasets_and_their_splits(tmp_path, expected):
  datasets = pytest.importorskip("datasets")
  one = datasets.Dataset.from_list(ROWS)
  one.save_to_disk(tmp_path / "one")
  assert without_origin(load([str(tmp_path / "one")], split="train").rows) == expected
  datasets.DatasetDict({"train": one, "test": one.select([0])}).save_to_disk(tmp_path / "two")
  assert len(load([str(tmp_path / "two")]).rows) == 3
  assert len(load([str(tmp_path / "two")], split="test").rows) == 1
  with pytest.raises(DataError, match=r"has no split dev \(train, test\)"):
    load([str(tmp_path / "two")], split="dev")


def test_hub_ids_go_to_datasets_with_config_and_split(monkeypatch, tmp_path, expected):
  datasets = pytest.importorskip("datasets")
  asked = []

  def load_dataset(path, **options):
    asked.append((path, options))
    if path == "org/absent":
      raise ConnectionError("the hub cannot be reached\nand more lines")
    return datasets.Dataset.from_list(ROWS)

  monkeypatch.setattr(datasets, "load_dataset", load_dataset)
  monkeypatch.chdir(tmp_path)
  records = load(["org/pairs"], split="train[:3]", config="en")
  assert asked == [("org/pairs", {"name": "en", "split": "train[:3]"})]
  assert without_origin(records.rows) == expected
  assert str(records.rows[2].origin) == "org/pairs:3"
  with pytest.raises(DataError) as caught:
    load(["org/absent"])
  assert (
    caught.value.message
    == "org/absent is neither a file here nor a dataset that the hub gave: there is no network, and it is not in the cache"
  )


def test_folders_are_read_in_sorted_order_and_only_one_split_of_them(tmp_path):
  for name, row in (("b.jsonl", ROWS[1]), ("a.jsonl", ROWS[0]), (".hidden.jsonl", ROWS[2])):
    write(tmp_path / name, jsonl([row]))
  write(tmp_path / "README.md", "about")
  assert [row.prompt[0]["content"] for row in load([str(tmp_path)]).rows] == ["p0", "p1"]
  write(tmp_path / "test.jsonl", jsonl([ROWS[2]]))
  with pytest.raises(DataError, match="files of several splits"):
    load([str(tmp_path)])
  assert [row.prompt[0]["content"] for row in load([str(tmp_path)], split="test").rows] == ["p2"]
  write(tmp_path / "c.csv", csv_text(ROWS))
  with pytest.raises(DataError, match=r"several kinds \(.csv, .jsonl\)"):
    load([str(tmp_path)])


def test_a_folder_of_training_files_is_not_read_as_a_test_split(tmp_path):
  write(tmp_path / "train-00000-of-00001.jsonl", jsonl(ROWS))
  assert len(load([str(tmp_path)]).rows) == 3
  with pytest.raises(DataError, match=r"no files of the split test \(train\)"):
    load([str(tmp_path)], split="test")


def test_sources_of_different_formats_are_concatenated(tmp_path):
  first = write(tmp_path / "a.jsonl", jsonl(ROWS))
  second = write(tmp_path / "b.jsonl", jsonl([{"question": "q", "chosen": "x", "rejected": "y", "hard": True}]))
  records = load([second, first])
  assert records.format == "question and explicit"
  assert [row.prompt[0]["content"] for row in records.rows] == ["q", "p0", "p1", "p2"]
  assert records.metadata_columns == ("hard", "subset")
  assert records.files == (second, first)


BROKEN = {
  "empty.jsonl": ("", "the file is empty", "empty.jsonl"),
  "blank.csv": ("prompt,chosen,rejected\n", "the file holds no rows", "blank.csv"),
  "json.jsonl": (jsonl(ROWS)[:-1] + "x\n", "broken JSON: Extra data at column", "json.jsonl:3"),
  "array.jsonl": ("[1]\n", "the row is a list, not an object with columns", "array.jsonl:1"),
  "whole.json": ('[{"a": 1},\n {"a": }]', "broken JSON: Expecting value at column 8", "whole.json:2"),
  "number.json": ("5", "a JSON file holds a list of rows, or that list under `data`", "number.json"),
  "latin.jsonl": (
    jsonl(ROWS).encode("latin-1"),
    "3 of 3 rows: byte 38 of the row (0xe9) is not UTF-8",
    "latin.jsonl:1 (also 2, 3)",
  ),
  "latin.csv": (b"a,b\nx,y\nz,\xe9\n", "the byte 0xe9 is not UTF-8", "latin.csv:2"),
  "utf16.csv": ("a,b\n".encode("utf-16"), "the file is written in UTF-16", "utf16.csv"),
  "wide.csv": ("prompt,chosen\na,b\nc,d,e\n", "the row has more cells than the 2 columns", "wide.csv:2"),
  "narrow.csv": ("prompt,chosen\na,b\nc\n", "the row has fewer cells than the 2 columns", "narrow.csv:2"),
  "half.jsonl": ('{"prompt": "\\ud83d"}\n', "one half of a surrogate pair", "half.jsonl:1"),
  "bad.parquet": ("PAR0", "not a readable Parquet file", "bad.parquet"),
  "notes.txt": ("hello", "unknown kind of file: notes.txt", "notes.txt"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_say_what_and_where(tmp_path, name):
  text, message, where = BROKEN[name]
  path = write(tmp_path / name, text)
  with pytest.raises(DataError) as caught:
    load([path])
  assert message in caught.value.message
  assert caught.value.where.endswith(where)


def test_a_cut_gzip_file_is_an_error(tmp_path):
  path = tmp_path / "cut.jsonl.gz"
  path.write_bytes(gzip.compress(jsonl(ROWS * 100).encode())[:-20])
  with pytest.raises(DataError, match="gzip file is truncated or corrupt"):
    load([str(path)])


def test_row_numbers_are_lines_also_after_blank_lines(tmp_path):
  path = write(tmp_path / "a.jsonl", "\n" + jsonl(ROWS[:1]) + "\n\n" + '{"prompt": }\n')
  with pytest.raises(DataError) as caught:
    load([path])
  assert caught.value.where == f"{path}:5"


WRITERS = {
  "rows.jsonl": lambda path, rows: path.write_text("".join(json.dumps(row) + "\n" for row in rows)),
  "rows.jsonl.gz": lambda path, rows: path.write_bytes(
    gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
  ),
  "rows.json": lambda path, rows: path.write_text(json.dumps(rows)),
  "rows.parquet": lambda path, rows: _parquet_of(path, rows),
  "saved": lambda path, rows: _saved_of(path, rows),
}


def _parquet_of(path, rows):
  import pyarrow
  import pyarrow.parquet

  pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def _saved_of(path, rows):
  import datasets

  datasets.Dataset.from_list(rows).save_to_disk(path)


@pytest.mark.parametrize("name", WRITERS)
def test_a_stream_gives_what_loading_gives_slice_by_slice(tmp_path, monkeypatch, name):
  monkeypatch.setattr(reading, "SLICE", 3)
  rows = [{"id": i, "prompt": f"p{i}", "completions": ["a", f"b{i}"][: 1 + i % 2]} for i in range(10)]
  WRITERS[name](tmp_path / name, rows)
  streamed, loaded = stream([str(tmp_path / name)]), to_score(load([str(tmp_path / name)]))
  assert list(streamed) == loaded.rows
  assert list(streamed) == loaded.rows  # it can be read again
  assert (streamed.rows, streamed.completions, streamed.format) == (10, 15, loaded.format)
  assert [row.origin.row for row in streamed] == list(range(1, 11))


def test_a_stream_finds_a_bad_row_in_a_later_slice_before_anything_is_done(tmp_path, monkeypatch):
  monkeypatch.setattr(reading, "SLICE", 3)
  rows = [{"prompt": f"p{i}", "completions": ["a"]} for i in range(7)] + [{"prompt": "p", "completions": [3]}]
  path = tmp_path / "rows.jsonl"
  WRITERS[path.name](path, rows)
  with pytest.raises(DataError) as error:
    stream([str(path)])
  assert error.value.where == f"{path}:8"


def test_a_column_that_is_absent_from_a_later_slice_is_no_error_but_an_unknown_one_is(tmp_path, monkeypatch):
  monkeypatch.setattr(reading, "SLICE", 2)
  rows = [{"q": "p", "completions": ["a"], "note": "x"}] * 2 + [{"q": "p", "completions": ["a"]}] * 2
  path = tmp_path / "rows.jsonl"
  WRITERS[path.name](path, rows)
  assert stream([str(path)], columns={"prompt": "q", "note": ""}).rows == 4
  with pytest.raises(DataError, match="no column `Q`"):
    stream([str(path)], columns={"prompt": "Q"})


def test_a_missing_file_is_told_with_a_name_that_exists(tmp_path):
  write(tmp_path / "pairs.jsonl", jsonl(ROWS))
  with pytest.raises(DataError) as caught:
    load([str(tmp_path / "pair.jsonl")])
  assert caught.value.message == f"no such file or folder: {tmp_path / 'pair.jsonl'}"
  assert caught.value.hint == f"did you mean {tmp_path / 'pairs.jsonl'}?"
  (tmp_path / "bare").mkdir()
  with pytest.raises(DataError, match="holds no data files"):
    load([str(tmp_path / "bare")])


def test_no_source_is_a_usage_error():
  with pytest.raises(UsageError):
    load([])


# Rankings to pairs


def answer(text):
  return [{"role": "assistant", "content": text}]


def ranking(scores, **fields):
  return Ranking([{"role": "user", "content": "q"}], [answer(str(i)) for i in range(len(scores))], scores, **fields)


def test_a_ranking_becomes_its_pairs_by_hand():
  records = Records(
    [ranking([1.0, 3.0, 1.0], id="r", metadata={"subset": "s"}, tools=[{"name": "t"}])], {"a": "ranking"}
  )
  pairs = comparisons(records)
  assert [(pair.id, pair.chosen, pair.rejected) for pair in pairs] == [
    ("r:1>0", answer("1"), answer("0")),
    ("r:1>2", answer("1"), answer("2")),
  ]
  assert all((p.weight, p.margin, p.metadata, p.tools) == (0.5, None, {"subset": "s"}, [{"name": "t"}]) for p in pairs)
  assert equal_scores(records) == 1


@given(st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=6))
def test_pairs_of_a_ranking_weigh_one_together_and_reproduce_the_order(scores):
  records = Records([ranking(scores, id="r")], {"a": "ranking"})
  pairs = comparisons(records)
  different = sum(a != b for a in scores for b in scores) // 2
  assert len(pairs) == different
  assert len(pairs) + equal_scores(records) == len(scores) * (len(scores) - 1) // 2
  if pairs:
    assert sum(pair.weight for pair in pairs) == pytest.approx(1)
  wins = Counter(int(pair.chosen[0]["content"]) for pair in pairs)
  # Second route: the number of completions that each one beats, from the scores alone.
  assert [wins[i] for i in range(len(scores))] == [sum(other < score for other in scores) for score in scores]


def test_unlabeled_rankings_are_refused_and_comparisons_pass_unchanged():
  pair = Comparison([], answer("x"), answer("y"), margin=2.0)
  assert comparisons(Records([pair])) == [pair]
  with pytest.raises(DataError, match="do not say which answer is better"):
    comparisons(Records([pair, Ranking([], [answer("x"), answer("y")])]))


# The canonical form

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def message_of(*roles):
  optional = {"name": text, "tool_calls": st.just([{"id": "1"}])}
  return st.fixed_dictionaries({"role": st.sampled_from(roles), "content": text}, optional=optional)


prompts = st.lists(message_of("system", "user", "assistant", "tool"), max_size=3).map(
  lambda messages: [{"role": "user", "content": "q"}, *messages]
)
answers = st.tuples(message_of("assistant"), st.lists(message_of("user", "tool", "assistant"), max_size=2)).map(
  lambda parts: [parts[0], *parts[1]]
)
shared = {
  "prompt": prompts,
  "tools": st.none() | st.lists(st.fixed_dictionaries({"name": text}), min_size=1, max_size=2),
  "id": st.none() | text,
  "metadata": st.dictionaries(
    st.sampled_from(["subset", "tranche", "note"]), st.none() | text | st.integers() | st.booleans()
  ),
}
finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
comparison_rows = st.builds(
  Comparison,
  chosen=answers,
  rejected=answers,
  margin=st.none() | finite,
  weight=st.floats(0.001, 10),
  **shared,
)
ranking_rows = st.integers(1, 4).flatmap(
  lambda n: st.builds(
    Ranking,
    completions=st.lists(answers, min_size=n, max_size=n),
    scores=st.lists(finite, min_size=n, max_size=n),
    **shared,
  )
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(comparison_rows, min_size=1, max_size=4) | st.lists(ranking_rows, min_size=1, max_size=4))
def test_reading_the_canonical_form_back_gives_equal_records(tmp_path, rows):
  path = write(tmp_path / "canonical.jsonl", jsonl(map(to_row, rows)))
  assert without_origin(load([path]).rows) == rows


def test_the_canonical_form_leaves_out_what_has_no_value():
  pair = Comparison([{"role": "user", "content": "q"}], answer("x"), answer("y"))
  assert to_row(pair) == {"prompt": pair.prompt, "chosen": answer("x"), "rejected": answer("y")}
  solution = Solution([], ["one"], [1.0], id="s", metadata={"a": 1})
  assert to_row(solution) == {"prompt": [], "completions": ["one"], "labels": [1.0], "id": "s", "a": 1}


# Real data

FOUND = {
  "best_of_n/gsm8k_n4": ("ranking", 654, {}),
  "best_of_n/humaneval_codegen16b_n100": ("ranking", 164, {}),
  "eval/llmbar": ("explicit", 419, {}),
  "eval/pandalm_3annotators": ("explicit", 836, {"tie": 103}),
  "preference/gsm8k_verified.train": ("explicit", 2011, {}),
  "preference/gsm8k_verified.valid": ("explicit", 213, {}),
  "preference/hh_helpful.raw_transcripts.valid500": ("transcript", 500, {}),
  "preference/hh_helpful.train": ("explicit", 4840, {}),
  "preference/hh_helpful.valid": ("explicit", 595, {}),
  "steps/big_bench_mistake": ("stepwise", 2186, {}),
  "steps/mr_ben.train": ("stepwise", 3415, {}),
  "steps/mr_ben.valid": ("stepwise", 425, {}),
}


@needs_real_data
@pytest.mark.parametrize("name", FOUND)
def test_real_files_are_recognised_and_counted(name):
  records = load([str(REAL / f"{name}.jsonl.gz")])
  assert (records.format, len(records.rows), records.set_aside) == FOUND[name]


@needs_real_data
def test_raw_transcripts_say_the_same_as_the_messages_made_from_them_elsewhere():
  raw = load([str(REAL / "preference/hh_helpful.raw_transcripts.valid500.jsonl.gz")]).rows
  messages = load([str(REAL / "preference/hh_helpful.valid.jsonl.gz")]).rows[:500]
  assert [(r.prompt, r.chosen, r.rejected) for r in raw] == [(m.prompt, m.chosen, m.rejected) for m in messages]


@needs_real_data
def test_pairs_of_verified_solutions_are_those_that_were_paired_elsewhere():
  pairs = comparisons(load([str(REAL / "best_of_n/gsm8k_n4.jsonl.gz")]))
  valid = load([str(REAL / "preference/gsm8k_verified.valid.jsonl.gz")]).rows

  def key(pair):
    return json.dumps([pair.prompt, pair.chosen, pair.rejected])

  assert Counter(map(key, valid)) == Counter(map(key, pairs))


def test_reading_json_lines_loads_no_heavy_library(tmp_path):
  path = write(tmp_path / "a.jsonl", jsonl(ROWS))
  code = f"""
import sys; sys.path.insert(0, {str(REPOSITORY / "scripts")!r})
from reward_modeling.data.reading import load; load([{path!r}])
print(sorted({{"torch", "transformers", "datasets", "pandas", "pyarrow", "numpy"}} & set(sys.modules)))
"""
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG)
  assert (done.stdout.strip(), done.stderr) == ("[]", "")
