"""Step data as data sets publish it. Labels were checked by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from reward_modeling.data.formats import PROMPTS
from reward_modeling.data.reading import load
from reward_modeling.data.records import prompts, solutions, to_score
from reward_modeling.data.writing import to_row
from reward_modeling.errors import DataError

Q = [{"role": "user", "content": "2+2+2?"}]
GOOD, BAD = "Step 1: 2+2=4", "Step 2: 4+2=7"


def written(folder: Path, *rows: dict) -> str:
  path = folder / "rows.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


def turn(role: str, content: str) -> dict:
  return {"role": role, "content": content}


MARKED = [turn("user", f"2+2+2? {GOOD}"), turn("assistant", "+"), turn("user", BAD), turn("assistant", "-")]
TAGGED = f"2+2+2? {GOOD} ки\n{BAD} ки"
BEN = {
  "Question": "2+2+2?",
  "Options": "",
  "Sampled_Model": "m",
  "Model_Solution_Steps": [GOOD, BAD, "so seven", "Step 3: 7", "Solution: B"],
  "Model_Solution_Correctness": "incorrect",
  "Model_Solution_First_Error_Step": "2",
}
BEN_STEPS = [GOOD, f"{BAD}\nso seven", "Step 3: 7\nSolution: B"]
BENCH = {
  "original_question": "2+2+2=?",
  "modified_question": "2+2+2?",
  "original_process": ["6"],
  "modified_process": [GOOD, BAD, "So 7."],
  "modified_steps": [1, 2],
  "error_steps": [2, 9],
  "question": "2+2+2 is what?",
  "idx": "circular_0",
  "classification": "circular",
}
ROWS = {
  # huggingface.co/datasets/RLHFlow/Mistral-PRM-Data
  "marked_turns": ({"conversations": MARKED}, [GOOD, BAD], [1, 0]),
  # RLHFlow's ER-PRM data: soft values
  "tagged_steps": ({"text": TAGGED + "\n", "value": [0.9, 0.05]}, [GOOD, BAD], [0.9, 0.05]),
  # OpenRLHF examples/scripts/train_prm_mistral.sh: zhuzilin/Math-Shepherd, --input_key input --label_key value
  "tagged_steps +": ({"input": TAGGED, "value": ["+", "-"]}, [GOOD, BAD], [1, 0]),
  "tagged_steps bool": ({"input": TAGGED, "labels": [True, False]}, [GOOD, BAD], [1, 0]),
  "tagged_steps text": ({"input": TAGGED, "value": "['+', '-']"}, [GOOD, BAD], [1, 0]),
  # github.com/ssmisya/PRMBench mr_eval/tasks/prmtest_classified/data: counted from 1, places after the end ignored
  "prmbench": (BENCH, [GOOD, BAD, "So 7."], [1, 0, 1]),
  # github.com/WHGTyen/BIG-Bench-Mistake: counted from 0, null where all steps are right
  "big_bench_mistake": (
    {"input": "2+2+2?", "steps": [GOOD, BAD], "mistake_index": 1, "target": "6"},
    [GOOD, BAD],
    [1, 0],
  ),
  "big_bench_mistake first": ({"input": "2+2+2?", "steps": [BAD, GOOD], "mistake_index": 0}, [BAD, GOOD], [0, None]),
  "big_bench_mistake none": ({"input": "2+2+2?", "steps": [GOOD], "mistake_index": None}, [GOOD], [1]),
  # github.com/dvlab-research/Mr-Ben data/math.json
  "mr_ben": (BEN, BEN_STEPS, [1, 0, None]),
  "mr_ben correct": (
    BEN | {"Model_Solution_Correctness": "correct", "Model_Solution_First_Error_Step": "N/A"},
    BEN_STEPS,
    [1, 1, 1],
  ),
  "mr_ben empty lines": (BEN | {"Model_Solution_Steps": ["", GOOD, " ", BAD, "so seven", ""]}, BEN_STEPS[:2], [1, 0]),
  "mr_ben preface": (BEN | {"Model_Solution_Steps": ["The steps:", GOOD, BAD]}, [f"The steps:\n{GOOD}", BAD], [1, 0]),
  "mr_ben plain empty lines": (
    BEN | {"Model_Solution_Steps": ["a", "", "b", "c"], "Model_Solution_First_Error_Step": "3"},
    ["a", "b", "c"],
    [1, 0, None],
  ),
  "mr_ben plain": (
    BEN | {"Model_Solution_Steps": ["a", "b"], "Model_Solution_First_Error_Step": "1"},
    ["a", "b"],
    [0, None],
  ),
}


@pytest.mark.parametrize("name", ROWS)
def test_each_data_set_is_read_without_a_flag(tmp_path, name):
  row, steps, labels = ROWS[name]
  for order in (row, dict(reversed(row.items())) | {"unknown": 1}):
    records = load(written(tmp_path, order))
    assert records.format == name.split()[0] and not records.set_aside
    (one,) = solutions(records)
    assert (one.prompt, one.steps, one.labels) == (Q, steps, labels)


@pytest.mark.parametrize("name", ROWS)
def test_the_same_rows_from_csv(tmp_path, name):
  row, steps, labels = ROWS[name]
  path = tmp_path / "rows.csv"
  with path.open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(row)
    writer.writerow([json.dumps(value) if isinstance(value, list) else value for value in row.values()])
  (one,) = solutions(load(str(path)))
  assert (one.prompt, one.steps, one.labels) == (Q, steps, labels)


def test_options_belong_to_the_question_of_mr_ben(tmp_path):
  (one,) = load(written(tmp_path, BEN | {"Options": "A: 6 \nB: 7 "})).rows
  assert one.prompt[0]["content"] == "2+2+2?\n\nA: 6 \nB: 7"


def test_a_system_message_before_marked_turns_is_kept(tmp_path):
  (one,) = load(written(tmp_path, {"messages": [turn("system", "Think."), *MARKED]})).rows
  assert one.prompt == [turn("system", "Think."), *Q] and one.labels == [1, 0]


def rated(text: str, rating: int | None) -> dict:
  return {"text": text, "rating": rating, "flagged": None}


def prm800k(*steps: tuple, **more) -> dict:
  return {
    "labeler": "l",
    "is_quality_control_question": False,
    "is_initial_screening_question": False,
    "question": {"problem": "2+2+2?", "ground_truth_answer": "6"},
    "label": {
      "steps": [
        {"completions": given, "human_completion": None, "chosen_completion": chosen} for given, chosen in steps
      ],
      "finish_reason": "solution",
    },
  } | more


WHOLE = prm800k(
  ([rated("2+2=4", 1), rated("2+2=5", -1), rated("2+2=3", -1)], 0),
  ([rated("4+2=7", -1), rated("4+2=6", 1), rated("?", None)], 1),
  ([rated("6", 1), rated("9", -1)], 0),
)


def test_every_rating_of_prm800k_labels_one_step_of_one_solution(tmp_path):
  records = load(written(tmp_path, WHOLE))
  assert [(one.steps, one.labels) for one in records.rows] == [
    (["2+2=4", "4+2=6", "6"], [1, 1, 1]),
    (["2+2=5"], [0]),
    (["2+2=3"], [0]),
    (["2+2=4", "4+2=7"], [None, 0]),
    (["2+2=4", "4+2=6", "9"], [None, None, 0]),
  ]
  assert {str(one.origin) for one in records.rows} == {f"{records.files[0]}:1"}
  labels = [label for one in records.rows for label in one.labels if label is not None]
  assert (labels.count(1), labels.count(0)) == (3, 4)


def test_an_alternative_after_unjudged_steps_says_nothing_about_the_first_error(tmp_path):
  from reward_modeling.evaluation.steps import UNKNOWN, labeled_steps

  rows = solutions(load(written(tmp_path, WHOLE)))
  data = labeled_steps(rows, [[0.5] * len(one.steps) for one in rows])
  assert data.first_error.tolist() == [-1, 0, 0, UNKNOWN, UNKNOWN] and len(data.scores) == 7


def test_rows_that_checked_the_labelers_are_left_out_and_counted(tmp_path):
  aside = [WHOLE | {"is_quality_control_question": True}, WHOLE | {"is_initial_screening_question": True}]
  records = load(written(tmp_path, aside[0], WHOLE, *aside))
  assert records.set_aside == {"quality control": 2, "initial screening": 1} and len(records.rows) == 5
  assert {str(one.origin).rpartition(":")[2] for one in records.rows} == {"2"}


def test_a_row_of_prm800k_asks_once(tmp_path):
  assert [one.prompt for one in prompts(load(written(tmp_path, WHOLE, WHOLE), tiers=PROMPTS)).rows] == [Q, Q]


def test_steps_rated_0_among_alternatives_are_counted_too(tmp_path):
  row = prm800k(([rated("a", 1), rated("b", 0)], 0), ([rated("c", 0), rated("d", -1)], 0))
  with pytest.raises(DataError, match="2 of 4 steps are rated 0") as caught:
    load(written(tmp_path, row))
  assert "good counts them as right (then 3 right, 1 wrong), bad as wrong (1 right, 3 wrong)" in caught.value.hint
  assert len(load(written(tmp_path, row), neutral="ignore").rows) == 2


BROKEN = {
  "no mark": ({"conversations": MARKED[:3]}, "no format|the last step of `conversations` has no"),
  "not a mark": (
    {"conversations": [*MARKED, turn("user", "x"), turn("assistant", "?")]},
    "turn 6 .* is not \\+ or -",
  ),
  "no problem": ({"conversations": [turn("user", GOOD), turn("assistant", "+")]}, "no problem before 'Step 1:'"),
  "no start": ({"conversations": [turn("user", "2+2=4"), turn("assistant", "+")]}, "is one line without 'Step 1:'"),
  "too few": ({"input": TAGGED, "value": ["+"]}, "`value` has 1 entries for 2 steps"),
  "a word": ({"input": TAGGED, "value": ["+", "x"]}, "`value` holds x: expected"),
  "too large": ({"input": TAGGED, "value": [1, 2]}, "`value` holds 2: expected"),
  "no last tag": ({"input": TAGGED + " more", "value": [1, 0]}, "does not end with the step tag"),
  "place": (BENCH | {"error_steps": [0]}, "`error_steps` is a list .* counted from 1"),
  "code line": (BEN | {"Model_Solution_First_Error_Step": "x = 1"}, "expected the number of one of 3 steps"),
  "after the end": (BEN | {"Model_Solution_First_Error_Step": "4"}, "expected the number of one of 3 steps"),
  "verdict": (BEN | {"Model_Solution_Correctness": "N/A"}, "not correct or incorrect"),
  "both": (BEN | {"Model_Solution_Correctness": "correct"}, "a correct solution has a first error step"),
  "numbers": (BEN | {"Model_Solution_Steps": [GOOD, "Step 3: x"]}, "not numbered 1, 2, 3"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_row_that_disagrees_is_named(tmp_path, name):
  row, message = BROKEN[name]
  whole = next(good for good, _, _ in ROWS.values() if good.keys() == row.keys() or "conversations" in row)
  with pytest.raises(DataError, match=message) as caught:
    load(written(tmp_path, whole, row))
  assert caught.value.where.endswith("rows.jsonl:2")


TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]


def test_tools_of_solutions_are_kept_and_refused_where_no_model_reads_them(tmp_path):
  """They were taken for read, and lost without a word."""
  row = {"prompt": "2+2?", "completions": ["4"], "labels": [True], "tools": json.dumps(TOOLS)}
  records = load(written(tmp_path, row))
  assert [one.tools for one in records.rows] == [TOOLS]
  assert load(written(tmp_path, to_row(records.rows[0]))).rows[0].tools == TOOLS
  assert prompts(records).rows[0].tools == to_score(records, steps=True).rows[0].tools == TOOLS
  with pytest.raises(DataError, match="have `tools`, which a process reward model does not read") as caught:
    solutions(records)
  assert caught.value.hint == "drop them: --columns tools="
  assert solutions(load(written(tmp_path, row), columns={"tools": ""}))[0].labels == [1.0]
