"""Training across processes, as torchrun starts it: replicated or sharded (FSDP2), it learns what one process learns."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import warm_process
from conftest import SCRIPTS, run_main, toy_pairs, write_jsonl
from reward_modeling.output_folder import is_complete_checkpoint

TWO = ("--standalone", "--nproc_per_node", "2")
STEPS = ("--learning_rate", "3e-3", "--max_steps", "12", "--logging_steps", "1", "--save_strategy", "no", "--use_cpu")
DATA = {
  "train.py": toy_pairs(64),  # they fill every batch: where the last one is not full, accelerate repeats rows
  "train_process.py": [
    {
      "prompt": f"hello {i}",
      "completions": ["one red", "one blue"][: 1 + i % 2],
      "labels": [True, i % 4 == 0][: 1 + i % 2],
    }
    for i in range(64)
  ],
}
HALF, WHOLE = ("--per_device_train_batch_size", "4"), ("--per_device_train_batch_size", "8")


def words(script: str, model: Path, out: Path, *more: str) -> list[str]:
  data = write_jsonl(out.parent / "rows.jsonl", DATA[script])
  command = ["--model_name_or_path", model, "--dataset_name", data, "--output_dir", out, *STEPS, *more]
  return [str(word) for word in command]


def in_two(script: str, *arguments: str) -> dict:
  """What torchrun's first process prints; the processes are forks that have the libraries already."""
  done = warm_process.shared().run(["torchrun", *TWO, SCRIPTS / script, *arguments])
  assert done.returncode == 0, done.stderr
  assert done.stderr.count("head: new\n") == 1, "only the first process speaks"
  return json.loads(done.stdout)


def losses(out: Path) -> list[float]:
  card = json.loads((out / "reward_model.json").read_text())
  return [entry["loss"] for entry in card["training"]["log"] if "loss" in entry]


def scores(out: Path) -> list[float]:
  golden = [row["score"] for row in json.loads((out / "reward_model.json").read_text())["golden"]]
  return [value for score in golden for value in (score if isinstance(score, list) else [score])]


@pytest.mark.parametrize(
  ("script", "family", "more"),
  [
    ("train.py", "qwen2", ()),
    ("train.py", "qwen2", ("--fsdp", "--gradient_checkpointing", "true")),
    ("train.py", "bert", ("--fsdp", "true")),
    ("train.py", "qwen2", ("--fsdp", "--use_peft", "--gradient_accumulation_steps", "2")),
    ("train_process.py", "qwen2", ()),
    ("train_process.py", "qwen2", ("--fsdp",)),
  ],
)
def test_two_processes_learn_what_one_learns(script, family, more, tiny, tmp_path):
  arguments = words(script, tiny(family), tmp_path / "two", *HALF, *more)
  result = in_two(script, *arguments)
  assert (result["training"]["world_size"], result["training"]["steps"]) == (2, 12)
  alone = [word for word in more if word != "--fsdp" and (family, word) != ("bert", "true")]
  one = run_main(script, *words(script, tiny(family), tmp_path / "one", *WHOLE, *alone))
  assert one.returncode == 0, one.stderr
  assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
  assert scores(tmp_path / "two") == pytest.approx(scores(tmp_path / "one"), abs=1e-4)
  assert result["reload_difference"] <= (1e-4 if "--use_peft" in more else 1e-5)


def test_a_sharded_run_in_bf16_keeps_fp32_weights_and_a_fp32_head(tiny, tmp_path):
  import torch
  from safetensors.torch import load_file

  result = in_two("train.py", *words("train.py", tiny("qwen2"), tmp_path / "out", *HALF, "--fsdp", "--bf16", "true"))
  weights = load_file(tmp_path / "out" / "model.safetensors")
  assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
  layer = weights["model.layers.0.mlp.up_proj.weight"]
  assert not torch.equal(layer, layer.bfloat16().float()), "the optimizer steps in fp32"
  logged = [entry["loss"] for entry in result["training"].get("log", [])] or losses(tmp_path / "out")
  assert logged[-1] < 0.1 < logged[0]


def test_evaluation_checkpoints_and_the_best_model_of_a_sharded_run(tiny, tmp_path):
  held = write_jsonl(tmp_path / "held.jsonl", toy_pairs(16, seed=3))
  best = ("--eval_dataset_name", held, "--eval_steps", "4", "--save_strategy", "steps", "--save_steps", "4")
  best += ("--load_best_model_at_end", "true", "--greater_is_better", "true")  # here the one of the largest loss
  in_two("train.py", *words("train.py", tiny("qwen2"), tmp_path / "two", *HALF, *best, "--fsdp"))
  one = run_main("train.py", *words("train.py", tiny("qwen2"), tmp_path / "one", *WHOLE, *best))
  assert one.returncode == 0, one.stderr
  assert scores(tmp_path / "two") == pytest.approx(scores(tmp_path / "one"), abs=1e-4)
  assert one.json["training"]["steps"] == 12 and one.json["evaluation"]["n_pairs"] == 16


@pytest.mark.parametrize(("script", "more"), [("train.py", ("--fsdp",)), ("train_process.py", ())])
def test_killed_in_two_processes_and_resumed(script, more, tiny, tmp_path):
  saved = ("--save_strategy", "steps", "--save_steps", "4", "--save_total_limit", "9", *HALF, *more)
  whole, killed = tmp_path / "whole", tmp_path / "killed"
  in_two(script, *words(script, tiny("qwen2"), whole, *saved))
  arguments = words(script, tiny("qwen2"), killed, *saved)
  command = [sys.executable, "-m", "torch.distributed.run", *TWO, str(SCRIPTS / script), *arguments]
  said = (tmp_path / "said").open("w+")
  process = subprocess.Popen(command, stdout=said, stderr=said)
  try:
    while not is_complete_checkpoint(killed / "checkpoint-4"):
      assert process.poll() is None, (tmp_path / "said").read_text()
      time.sleep(0.005)
  finally:
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for number in (process.pid, *map(int, workers)):
      os.kill(number, signal.SIGKILL)
    process.wait()
  assert not (killed / "config.json").exists()
  for step in (8, 12):  # whatever came after the first
    shutil.rmtree(killed / f"checkpoint-{step}", ignore_errors=True)
  result = in_two(script, *arguments, "--resume_from_checkpoint")
  assert result["resumed_from"] == str(killed / "checkpoint-4")
  assert scores(killed) == pytest.approx(scores(whole), abs=1e-6)
  if more:
    other = run_main(script, *words(script, tiny("qwen2"), killed, *saved[:-1], "--resume_from_checkpoint"))
    assert other.returncode == 2 and "is finished" in other.stderr


def test_sharding_one_process_is_refused(tiny, tmp_path):
  done = run_main("train.py", *words("train.py", tiny("qwen2"), tmp_path / "out", "--fsdp"))
  assert done.returncode == 2
  assert "error: --fsdp shards over several processes, and this is one" in done.stderr
  assert "hint: torchrun --nproc_per_node N scripts/train.py" in done.stderr
