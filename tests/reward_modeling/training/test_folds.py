"""Cross-validation by prompt: every pair is held out once, by a model that did not see its prompt."""

import json
import random
import signal
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import warm_process
from conftest import SCRIPTS, run_main, toy_pairs, write_jsonl
from reward_modeling.data.records import Comparison
from reward_modeling.errors import DataError
from reward_modeling.training.folds import folds_of


def pair(prompt: int) -> Comparison:
  asked = [{"role": "user", "content": f"question {prompt}"}]
  return Comparison(asked, [{"role": "assistant", "content": "a"}], [{"role": "assistant", "content": "b"}])


@given(st.lists(st.integers(0, 8), min_size=1), st.integers(2, 5), st.integers(0, 3))
def test_folds_split_prompts_evenly_and_whatever_the_order_of_the_rows(prompts, count, seed):
  pairs = [pair(prompt) for prompt in prompts]
  if len(set(prompts)) < count:
    with pytest.raises(DataError, match="cannot make"):
      folds_of(pairs, count, seed)
    return
  found = dict(zip(prompts, folds_of(pairs, count, seed), strict=True))
  sizes = [list(found.values()).count(fold) for fold in range(count)]
  assert max(sizes) - min(sizes) <= 1 and sum(sizes) == len(found)
  shuffled = random.Random(seed).sample(prompts, len(prompts))
  assert folds_of([pair(prompt) for prompt in shuffled], count, seed) == [found[prompt] for prompt in shuffled]


def test_train_pools_the_held_out_pairs_and_keeps_the_model_of_all_rows(tiny, tmp_path):
  from safetensors.torch import load_file

  file = write_jsonl(tmp_path / "pairs.jsonl", toy_pairs(24))
  names = (
    "--model_name_or_path",
    tiny("qwen2"),
    "--dataset_name",
    file,
    "--num_train_epochs",
    1,
    "--save_strategy",
    "no",
  )
  done = run_main("train.py", *names, "--output_dir", tmp_path / "folds", "--folds", 3)
  assert done.returncode == 0, done.stderr
  assert [fold["held_out"] + fold["pairs"] for fold in done.json["folds"]] == [24] * 3
  assert sum(fold["held_out"] for fold in done.json["folds"]) == 24 == done.json["evaluation"]["n_pairs"]
  right = sum(fold["held_out"] * fold["accuracy"]["value"] for fold in done.json["folds"])
  assert done.json["evaluation"]["accuracy"]["value"] == pytest.approx(right / 24), (
    "the pooled pairs are those of the folds"
  )
  assert done.json["training"]["cross_validation"]["folds"] == 3 and "pairs 24" in done.stderr
  rows = [json.loads(line) for line in (tmp_path / "folds" / "folds.jsonl").read_text().splitlines()]
  asked = toy_pairs(24)
  assert [row["id"] for row in rows] == [row["id"] for row in asked] and rows[0]["chosen"] == asked[0]["chosen"]
  hits = [row["reward_chosen"] > row["reward_rejected"] for row in rows]
  assert sum(hits) / 24 == pytest.approx(done.json["evaluation"]["accuracy"]["value"])
  kept = run_main("score.py", "--model_name_or_path", tmp_path / "folds", "--input", file).json["rows"]
  assert kept[0]["rewards"] != pytest.approx([rows[0]["reward_chosen"], rows[0]["reward_rejected"]], abs=1e-6)
  plain = run_main("train.py", *names, "--output_dir", tmp_path / "plain")
  assert plain.json["evaluation"] is None and "folds" not in plain.json
  one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("folds", "plain"))
  assert all((one[name] == two[name]).all() for name in one), "the model that is kept is the one without folds"


def test_folds_and_other_held_out_data_are_refused_together(tiny, tmp_path):
  file = write_jsonl(tmp_path / "pairs.jsonl", toy_pairs(8))
  names = ("--model_name_or_path", tiny("qwen2"), "--dataset_name", file, "--output_dir", tmp_path / "out")
  for more in (("--folds", 3, "--val_set_size", 0.1), ("--folds", 1)):
    done = run_main("train.py", *names, *more)
    assert done.returncode == 2 and "makes its own held-out pairs" in done.stderr


def test_a_killed_run_keeps_the_folds_that_it_finished(tiny, tmp_path):
  file = write_jsonl(tmp_path / "pairs.jsonl", toy_pairs(24))
  names = ("--model_name_or_path", tiny("qwen2"), "--dataset_name", file, "--num_train_epochs", 1, "--folds", 3)
  whole = run_main("train.py", *names, "--output_dir", tmp_path / "whole")
  assert whole.returncode == 0 and not list((tmp_path / "whole").glob(".folds-*")), whole.stderr
  out = tmp_path / "out"
  run = warm_process.shared().start(["python", SCRIPTS / "train.py", *names, "--output_dir", out])
  while run.poll() is None and not list(out.glob(".folds-*")):
    time.sleep(0.005)
  run.send_signal(signal.SIGKILL)
  run.wait()
  assert not (out / "config.json").exists()
  (journal,) = out.glob(".folds-*")
  kept = len(json.loads(journal.read_text())[1])
  other = run_main("train.py", *names, "--output_dir", out, "--seed", 7, "--dry_run")
  assert other.returncode == 0 and journal.exists()
  done = run_main("train.py", *names, "--output_dir", out, "--save_strategy", "no")
  assert done.returncode == 0, done.stderr
  assert f"{kept} folds of an interrupted run are kept" in done.stderr and done.stderr.count("training: ") == 4 - kept
  for name in ("folds", "evaluation"):
    assert done.json[name] == whole.json[name]
  assert not list(out.glob(".folds-*"))
