"""The sandbox's chains: labels follow from the texts, and a tiny decoder learns them."""

import json

import arithmetic
import pytest
from arithmetic import chains, gold

from conftest import run_script, write_jsonl
from reward_modeling import sandbox_models
from reward_modeling.data.writing import to_row
from reward_modeling.errors import DataError

PROMPT = "Start with five. Then add one, take one, take one."
RIGHT = ["five add one is six", "six take one is five", "five take one is four"]


@pytest.mark.parametrize(
  ("steps", "labels"),
  [
    (RIGHT, [1, 1, 1]),
    (["five add one is seven", "seven take one is six", "six take one is five"], [0, None, None]),
    ([RIGHT[0], "seven take one is six", "six take one is five"], [1, 0, None]),
    ([RIGHT[0], "six add one is seven"], [1, 0]),
    ([*RIGHT, "four take one is three"], [1, 1, 1, 0]),
    (["five and one is six"], [0]),
  ],
)
def test_gold_labels_by_hand(steps, labels):
  assert gold(PROMPT, steps) == labels


def test_the_injected_error_is_where_the_labels_stop():
  solutions = chains(400, seed=1)
  assert solutions == chains(400, seed=1) != chains(400, seed=2)
  for one in solutions:
    wrong = [label for label in one.labels if label == 0]
    assert len(wrong) == (one.metadata["error"] is not None)
  found = {one.metadata["error"] for one in solutions}
  assert found == {None, *arithmetic.ERRORS}


def test_no_prompt_is_in_both_splits():
  train, test = ({one.prompt[0]["content"] for one in chains(500, 0, split=split)} for split in ("train", "test"))
  assert train.isdisjoint(test)


def test_another_prompt_is_refused():
  with pytest.raises(DataError, match="no prompt of the sandbox's chains"):
    gold("What is 2 + 2?", [])


@pytest.mark.real
def test_a_tiny_decoder_learns_the_chains(tmp_path):
  """Held-out problems, over 95 % of the steps. Measured: 100 % after 11 + 34 CPU seconds, where all correct gets 64 %."""
  taught = sandbox_models.TrainingSettings(steps=150, batch_size=32, learning_rate=4e-3)
  sandbox_models.base_model(
    *(tmp_path / "base", 0, taught),
    rows=arithmetic.conversations(taught.rows, 0),
    texts=arithmetic.every_text(),
    num_hidden_layers=3,
  )
  train = write_jsonl(tmp_path / "train.jsonl", [to_row(one) for one in chains(12_000, 0)])
  test = write_jsonl(tmp_path / "test.jsonl", [to_row(one) for one in chains(500, 1, split="test")])
  arguments = ("--learning_rate", "2e-3", "--num_train_epochs", "1", "--per_device_train_batch_size", "16")
  done = run_script(
    *("train_process.py", "--model_name_or_path", tmp_path / "base", "--dataset_name", train),
    *("--eval_dataset_name", test, "--output_dir", tmp_path / "out", "--save_strategy", "no", *arguments),
  )
  assert done.returncode == 0, done.stderr
  assert done.json["evaluation"]["step_accuracy"]["value"] > 0.95
  assert json.loads((tmp_path / "out" / "reward_model.json").read_text())["kind"] == "process"
