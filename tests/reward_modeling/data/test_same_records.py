"""What must not change a record: the order of columns, columns that mean nothing, and the file that holds the rows."""

import csv
import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_modeling.data.formats import FORMATS, LABELED
from reward_modeling.data.reading import load

EXAMPLES = {name: entry.example for name, entry in LABELED.items() if not entry.expand and name != "rewardbench"}
JUNK = {"annotator": 7, "notes": "x", "model": None, "created": "2024-01-01", "extra": {"a": [1, 2]}}


def jsonl(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def as_csv(path, rows):
  with open(path, "w", newline="") as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(
      {name: value if isinstance(value, str) else json.dumps(value) for name, value in row.items()} for row in rows
    )


def parquet(path, rows):
  import pyarrow.parquet

  pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def saved(path, rows):
  import datasets

  datasets.Dataset.from_list(rows).save_to_disk(path)


WRITERS = {
  "rows.json": lambda path, rows: path.write_text(json.dumps(rows)),
  "rows.jsonl.gz": lambda path, rows: path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode())),
  "rows.csv": as_csv,
  "rows.tsv": as_csv,
  "rows.parquet": parquet,
  "saved": saved,
}


def records_of(path, **how):
  records = load([str(path)], neutral="bad", **how)
  kept = ("prompt", "chosen", "rejected", "completions", "scores", "ratings", "steps", "labels", "margin", "weight")
  return list(records.formats.values()), [
    {field: getattr(row, field) for field in kept if hasattr(row, field)} for row in records.every
  ]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
  found = {}
  for name, row in EXAMPLES.items():
    path = tmp_path_factory.mktemp("plain") / "rows.jsonl"
    jsonl(path, [row] * 2)
    found[name] = records_of(path, format=name)
  return found


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_file_that_holds_the_rows(name, expected, tmp_path):
  for file, write in WRITERS.items():
    write(tmp_path / file, [EXAMPLES[name]] * 2)
    assert (file, *records_of(tmp_path / file, format=name)) == (file, *expected[name])


RECOGNIZED = [name for name, row in EXAMPLES.items() if FORMATS[name].matches(FORMATS[name].pick(row)[0])]


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_columns_that_mean_nothing_and_their_order(data, expected, tmp_path_factory):
  name = data.draw(st.sampled_from(RECOGNIZED))
  junk = data.draw(st.sets(st.sampled_from(sorted(JUNK))))
  row = EXAMPLES[name] | {column: JUNK[column] for column in junk}
  row = {column: row[column] for column in data.draw(st.permutations(list(row)))}
  path = tmp_path_factory.mktemp("shuffled") / "rows.jsonl"
  jsonl(path, [row] * 2)
  assert records_of(path) == expected[name]


@pytest.mark.parametrize("name", EXAMPLES)
def test_columns_under_other_names(name, expected, tmp_path):
  row, prefix = EXAMPLES[name], "zz_"
  jsonl(tmp_path / "rows.jsonl", [{prefix + column: value for column, value in row.items()}] * 2)
  columns = {column: prefix + column for column in row}
  assert records_of(tmp_path / "rows.jsonl", format=name, columns=columns) == expected[name]


PAIRS = [name for name, row in EXAMPLES.items() if {"chosen", "rejected"} <= row.keys()]


@pytest.mark.parametrize("name", PAIRS)
def test_swapped_sides_swap_the_label(name, expected, tmp_path):
  row = EXAMPLES[name]
  jsonl(tmp_path / "rows.jsonl", [row | {"chosen": row["rejected"], "rejected": row["chosen"]}] * 2)
  _, (swapped, _) = records_of(tmp_path / "rows.jsonl", format=name)
  _, (plain, _) = expected[name]
  assert (swapped["prompt"], swapped["chosen"], swapped["rejected"]) == (
    plain["prompt"],
    plain["rejected"],
    plain["chosen"],
  )
