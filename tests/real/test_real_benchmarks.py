"""The authors' files through evaluate.py with a real encoder: what is read, and numbers counted again from the rows of --output."""

import gzip
import json
from statistics import fmean

import pytest
import sklearn.metrics

from conftest import run_main, write_jsonl
from reward_modeling.evaluation.benchmark_runs import load_benchmark, summarize

TRAINING = ("--max_steps", "1", "--save_strategy", "no", "--audit", "warn")


def rows_of(path, places=None) -> list[dict]:
  with gzip.open(path, "rt", encoding="utf-8") as file:
    return [json.loads(line) for place, line in enumerate(file) if places is None or place in places]


def evaluated(model, names, data, folder) -> tuple[dict, list[dict]]:
  """(the JSON, the rows of --output by benchmark)."""
  output = folder / "rows.jsonl"
  words = ("--model_name_or_path", model, "--benchmark", *names, "--benchmark_data", data, "--output", output)
  done = run_main("evaluate.py", *words)
  assert done.returncode == 0, done.stderr
  rows = [json.loads(line) for line in output.open(encoding="utf-8")]
  return done.json, {name: [row for row in rows if row["benchmark"] == name] for name in names}


@pytest.mark.real
def test_judgebench_and_llmbar_are_read_whole_and_counted_rightly(shared_data, minilm, tmp_path):
  pairs = write_jsonl(
    tmp_path / "pairs.jsonl", rows_of(shared_data / "preference/hh_helpful.train.jsonl.gz", range(16))
  )
  words = ("--model_name_or_path", minilm, "--dataset_name", pairs, "--output_dir", tmp_path / "model", *TRAINING)
  done = run_main("train.py", *words, "--overlong", "truncate_left", "--max_length", "64")
  assert done.returncode == 0, done.stderr
  found, rows = evaluated(tmp_path / "model", ("judgebench", "llmbar"), shared_data, tmp_path)
  assert all(found["benchmarks"][name]["complete"] for name in rows)
  right = [
    (row["rewards"][0] > row["rewards"][1]) == (given["label"] == "A>B")
    for row, given in zip(rows["judgebench"], rows_of(shared_data / "benchmarks/judgebench_gpt.jsonl.gz"), strict=True)
  ]
  assert found["scores"]["judgebench"] == pytest.approx(fmean(right)) and len(right) == 350
  by = {}
  for row, given in zip(rows["llmbar"], rows_of(shared_data / "eval/llmbar.jsonl.gz"), strict=True):
    by.setdefault(given["subset"].lower(), []).append(row["rewards"][0] > row["rewards"][1])
  assert {name: len(won) for name, won in by.items()} == {
    **{"natural": 100, "neighbor": 134, "gptinst": 92, "gptout": 47, "manual": 46}
  }
  for name, won in by.items():
    assert found["scores"][f"llmbar/{name}"] == pytest.approx(fmean(won))
  longest = found["benchmarks"]["llmbar"]["baselines"]["longest"]
  counted = {"natural": 56 / 100, "neighbor": 16 / 134, "gptinst": 12 / 92, "gptout": 21 / 47, "manual": 8 / 46}
  assert {name: longest[name] for name in counted} == pytest.approx(counted), "as counted outside this project"


@pytest.mark.real
def test_steps_of_processbench_and_prmbench_are_counted_rightly(shared_data, minilm, tmp_path):
  (tmp_path / "data").mkdir()
  folder, taken = shared_data / "benchmarks", range(0, 1800, 60)
  given = rows_of(folder / "processbench_gsm8k400_math1000_part400.jsonl.gz", taken)
  write_jsonl(tmp_path / "data" / "processbench.jsonl", given)
  marked = rows_of(folder / "prmbench_preview_6216.jsonl.gz", range(0, 6216, 240))
  write_jsonl(tmp_path / "data" / "prmbench.jsonl", marked)
  steps = write_jsonl(tmp_path / "steps.jsonl", rows_of(shared_data / "steps/mr_ben.train.jsonl.gz", range(16)))
  words = ("--model_name_or_path", minilm, "--dataset_name", steps, "--output_dir", tmp_path / "model", *TRAINING)
  done = run_main("train_process.py", *words, "--overlong", "truncate_prompt", "--max_length", "256")
  assert done.returncode == 0, done.stderr
  found, rows = evaluated(tmp_path / "model", ("processbench", "prmbench"), tmp_path / "data", tmp_path)
  assert not found["benchmarks"]["processbench"]["complete"] and "30 of 3400 rows were read" in found["diagnostics"][0]
  scores = []
  for split in ("gsm8k", "math", "olympiadbench", "omnimath"):
    hits = {True: [], False: []}
    for row, one in zip(rows["processbench"], given, strict=True):
      first = next((place for place, reward in enumerate(row["rewards"]) if reward is not None and reward < 0.5), -1)
      if one["id"].startswith(split):
        hits[one["label"] == -1].append(first == one["label"])
    error, correct = fmean(hits[False]), fmean(hits[True])
    scores.append(2 * error * correct / (error + correct) if error + correct else 0.0)
  assert found["scores"]["processbench/score_at_0.5"] == pytest.approx(fmean(scores))
  cells = [
    (reward is None or reward > 0.5, number not in one["error_steps"])
    for row, one in zip(rows["prmbench"], marked, strict=True)
    for number, reward in enumerate(row["rewards"], 1)
  ]
  f1 = [sklearn.metrics.f1_score(*zip(*cells, strict=True), pos_label=kind, zero_division=0) for kind in (True, False)]
  assert found["scores"]["prmbench"] == pytest.approx(fmean(f1))


@pytest.mark.real
def test_processbench_at_hand_has_the_published_labels(shared_data):
  """Its gsm8k and math are whole: 207 and 594 solutions with an error. Without a flag the correct ones are all that is right."""
  data = load_benchmark("processbench", str(shared_data / "benchmarks"))
  result, _ = summarize(
    "processbench", data, [[1.0] * len(item.answers) for item in data.items], threshold=(0.5, "given")
  )
  wrong = {name: sum(item.label >= 0 for item in data.items if item.section == name) for name in ("gsm8k", "math")}
  assert wrong == {"gsm8k": 207, "math": 594} and data.rows == 1800
  assert result.subsets["gsm8k/correct"] == 1 and result.numbers["gsm8k"].value == 0
