"""Ratings made of real answers: UltraFeedback-like rows of HH, KTO's labels of verified GSM8K solutions."""

import gzip
import json

import pytest

from conftest import run_main, write_jsonl


def rows_of(path, count: int) -> list[dict]:
  with gzip.open(path, "rt", encoding="utf-8") as file:
    return [json.loads(line) for line, _ in zip(file, range(count), strict=False)]


def words(message: dict) -> int:
  return len(message["content"].split())


def like_ultrafeedback(row: dict) -> dict:
  """Two answers: helpfulness by the annotator's choice, length in words (at most 60), and an aspect that some lack."""
  completions = [
    {
      "response": answer[-1]["content"],
      "overall_score": 8 if side == "chosen" else 4,
      "annotations": {
        "helpfulness": {"Rating": "5" if side == "chosen" else "2"},
        "length": {"Rating": str(min(words(answer[-1]), 60)) if len(row["prompt"]) < 5 else "N/A"},
      },
    }
    for side, answer in (("chosen", row["chosen"]), ("rejected", row["rejected"]))
  ]
  return {"instruction": row["prompt"], "completions": completions}


@pytest.mark.real
def test_attributes_of_real_answers_are_learned(shared_data, minilm, tmp_path):
  made = [like_ultrafeedback(row) for row in rows_of(shared_data / "preference" / "hh_helpful.train.jsonl.gz", 150)]
  train, test = write_jsonl(tmp_path / "train.jsonl", made[:120]), write_jsonl(tmp_path / "test.jsonl", made[120:])
  flags = ("--objective", "regression", "--attributes", "length", "helpfulness", "--max_length", "64")
  run = (
    "--model_name_or_path",
    minilm,
    "--dataset_name",
    train,
    "--eval_dataset_name",
    test,
    "--eval_strategy",
    "no",
  )
  size = (
    "--learning_rate",
    "3e-4",
    "--per_device_train_batch_size",
    "16",
    "--save_strategy",
    "no",
    "--max_steps",
    "30",
  )
  done = run_main("train.py", *run, "--output_dir", tmp_path / "m", "--overlong", "truncate_left", *flags, *size)
  assert done.returncode == 0, done.stderr
  assert done.json["counts"]["answers_used"] + done.json["set_aside"].get("without ratings", 0) == 240
  found = done.json["evaluation"]["attributes"]
  assert found["length"]["pearson"]["value"] > 0.7
  assert found["helpfulness"]["n"] == 60 and 0.2 < found["helpfulness"]["pair_accuracy"]["value"] < 0.9


@pytest.mark.real
def test_labels_of_verified_solutions_are_read(shared_data, minilm, tmp_path):
  rows = rows_of(shared_data / "best_of_n" / "gsm8k_n4.jsonl.gz", 100)
  labeled = [
    {"prompt": row["prompt"], "completion": text, "label": correct}
    for row in rows
    for text, correct in zip(row["completions"], row["correct"], strict=True)
  ]
  data = write_jsonl(tmp_path / "kto.jsonl", labeled)
  checked = run_main("check_data.py", data)
  assert checked.json["ratings"] == {"desirable": [400, 0, 1]} and checked.json["errors"] == 0
  run = ("--model_name_or_path", minilm, "--dataset_name", data, "--output_dir", tmp_path / "m", "--dry_run")
  done = run_main("train.py", *run, "--objective", "binary", "--val_set_size", "0.1", "--overlong", "truncate_left")
  assert done.returncode == 0, done.stderr
  assert done.json["counts"]["answers_used"] + done.json["counts"]["answers_held_out"] == 400
