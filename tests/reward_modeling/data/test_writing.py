"""Metadata never change a record, and come back from a canonical copy as they were."""

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from reward_modeling.data.formats import ANYTHING, FORMATS, INPUT_LIKE
from reward_modeling.data.reading import load
from reward_modeling.data.records import Comparison, Ranking, Solution
from reward_modeling.data.writing import RESULTS, to_row, unwrapped_metadata, with_metadata
from reward_modeling.results import to_json

USER, X, Y = (
  [{"role": role, "content": text}] for role, text in (("user", "q"), ("assistant", "x"), ("assistant", "y"))
)
RECORDS = (
  Comparison(USER, X, Y),
  Comparison(USER, X, Y, margin=0.5, weight=0.25, id=7),
  Ranking(USER, [X, Y], [1.0, 0.0], tools=[{"name": "add"}]),
  Ranking(USER, [X, Y]),
  Ranking(USER, []),
  Solution(USER, ["one", "two"], [1.0, None]),
  Solution(USER, ["one", "two"]),
)
NAMES = sorted(
  {name for entry in FORMATS.values() for names in entry.columns for name in names}
  | INPUT_LIKE
  | RESULTS
  | {"metadata", "tie", "label", "Prompt", "subset", "source"}
)
LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3) | st.lists(st.integers(0, 1), max_size=3)
VALUES = LEAVES | st.dictionaries(st.sampled_from(["metadata", "labels", "reward", "other"]), LEAVES, max_size=3)
METADATA = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(RECORDS), METADATA)
@example(Solution(USER, ["one", "two"], [1.0, 0.0]), {"labels": [1, 1], "steps": ["three"], "prompt": "other"})
@example(RECORDS[0], {"metadata": {"metadata": {"reward": 1}}})
@example(RECORDS[0], {"metadata": {"source": "web"}})
@example(RECORDS[4], {"Model_Solution_Correctness": None, "reward_chosen": "0", "reward_rejected": "0"})
@example(RECORDS[4], {"length_chosen": "0", "length_rejected": "0"})
def test_a_canonical_copy_gives_the_record_and_its_metadata(tmp_path_factory, record, metadata):
  from dataclasses import replace

  record = replace(record, metadata=metadata)
  path = tmp_path_factory.getbasetemp() / "copy.jsonl"
  path.write_text(to_json(to_row(record)) + "\n")
  (again,) = load([str(path)], tiers=ANYTHING).rows
  assert replace(again, origin=None) == record


@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4), METADATA)
def test_a_row_of_results_keeps_its_own_columns_and_loses_no_metadata(row, metadata):
  row.pop("metadata", None)
  written = with_metadata(row, metadata)
  assert row.items() <= written.items()
  apart = written.get("metadata") if written.get("metadata") != metadata.get("metadata") else None
  beside = {name: value for name, value in written.items() if name not in row and (apart is None or name != "metadata")}
  assert beside | (apart or {}) == metadata


def test_usual_columns_stand_under_their_own_names():
  row = to_row(Comparison(USER, X, Y, metadata={"subset": "a", "metadata": {"source": "web"}, "index": 3}))
  assert (row["subset"], row["metadata"], row["index"]) == ("a", {"source": "web"}, 3)
  assert unwrapped_metadata({"metadata": {"source": "web"}}) == {"metadata": {"source": "web"}}
  assert json.loads(to_json({"x": float("nan")})) == {"x": None}
