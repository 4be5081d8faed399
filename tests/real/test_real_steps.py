"""Real weights and real step labels, in small: a few rows of MR-Ben through training, saving and judging."""

import gzip

import pytest

from conftest import run_script

ROWS = 24


@pytest.mark.real
def test_minilm_on_mr_ben(shared_data, minilm, tmp_path):
  files = {}
  for part in ("train", "valid"):
    with gzip.open(shared_data / "steps" / f"mr_ben.{part}.jsonl.gz", "rt", encoding="utf-8") as file:
      files[part] = tmp_path / f"{part}.jsonl"
      files[part].write_text("".join(next(file) for _ in range(ROWS)), encoding="utf-8")
  done = run_script(
    *("train_process.py", "--model_name_or_path", minilm, "--dataset_name", files["train"]),
    *("--eval_dataset_name", files["valid"], "--output_dir", tmp_path / "out", "--max_length", "128"),
    *("--overlong", "truncate_prompt", "--steps_per_solution", "1", "--max_steps", "3", "--save_strategy", "no"),
  )
  assert done.returncode == 0, done.stderr
  assert done.json["step_separator"] == "[SEP]" and done.json["counts"]["solutions"] == ROWS
  assert done.json["reload_difference"] <= 1e-5
  evaluation = done.json["evaluation"]
  assert evaluation["n_solutions"] == ROWS and set(evaluation["baselines"]) >= {
    "all_correct",
    "all_wrong",
    "longest_step",
  }
  both = [evaluation["baselines"][name]["step_accuracy"]["value"] for name in ("all_correct", "all_wrong")]
  assert sum(both) == pytest.approx(1)
