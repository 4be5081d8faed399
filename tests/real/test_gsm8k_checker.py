"""GSM8K with four solutions a problem: the checker of final answers against the labels of the data."""

import gzip
import json

from conftest import run_main, save_tiny, write_jsonl
from reward_modeling.checkers import Checker


def rows(shared_data):
  with gzip.open(shared_data / "best_of_n/gsm8k_n4.jsonl.gz", "rt") as file:
    return [json.loads(line) for line in file]


def test_the_checker_agrees_with_every_label(shared_data):
  """By the final answer, and by a reference solution that states it. What was cut before its answer is undecided."""
  with (
    Checker("answer", "answer", None, seconds=10) as short,
    Checker("answer", "reference", None, seconds=10) as whole,
  ):
    for row in rows(shared_data):
      for completion, correct in zip(row["completions"], row["correct"], strict=True):
        found = short(completion, row)[0]
        assert found is (correct if "\nA: " in completion else None), (row["id"], completion)
        assert found is whole(completion, row)[0]
        assert bool(found) == correct


def test_label_steps_checks_the_solutions_themselves(shared_data, tmp_path):
  taken = rows(shared_data)[:100]
  data = write_jsonl(tmp_path / "gsm8k.jsonl", taken)
  policy = save_tiny("qwen2", tmp_path / "policy")
  done = run_main("label_steps.py", "--model_name_or_path", policy, "--input", data, "--dry_run")
  assert done.returncode == 0, done.stderr
  right = sum(map(sum, (row["correct"] for row in taken)))
  cut = sum("\nA: " not in completion for row in taken for completion in row["completions"])
  found = [done.json[name] for name in ("solutions", "right", "wrong", "undecided")]
  assert found == [400, right, 400 - right - cut, cut] and cut > 0
