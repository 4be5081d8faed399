"""Flags of transformers' trainer and settings of launchers that users bring: they work, or one line says why not."""

import json

import pytest
import torch
import transformers

import warm_process
from conftest import SAMPLED, SCRIPTS, run_main, toy_pairs, write_jsonl
from reward_modeling.errors import UsageError
from reward_modeling.training import configuration

STEPS = ("--max_steps", 3, "--logging_steps", 1, "--save_strategy", "no", "--learning_rate", 1e-3, "--use_cpu")
POLICY = ("--learning_rate", 1e-3, "--per_device_train_batch_size", 8)


def train(tiny, toy_file, out, *more):
  named = ("--model_name_or_path", tiny("qwen2"), "--dataset_name", toy_file, "--output_dir", out)
  return run_main("train.py", *named, *STEPS, *more)


def policy_words(script, tiny, toy_prompts, out):
  named = ("--model_name_or_path", tiny("qwen2"), "--reward_functions", "length_penalty", "--dataset_name", toy_prompts)
  return [*named, "--output_dir", out, *POLICY, *SAMPLED[script]]


def losses(out):
  log = json.loads((out / "reward_model.json").read_text())["training"]["log"]
  return [entry["loss"] for entry in log if "loss" in entry]


# ---- the trainer's own ----


@pytest.mark.parametrize("strategy", ["group_by_length", "batch_rebalance"])
def test_rows_are_grouped_by_all_their_tokens(strategy, tiny, tmp_path):
  """Of two lengths, far apart, batches of one length each: in random order few would be."""
  rows = toy_pairs(32)
  for row in rows[::2]:
    row["prompt"] = [{"role": "user", "content": "hello " * 15}]
  data, seen, plain = write_jsonl(tmp_path / "rows.jsonl", rows), [], transformers.Trainer.training_step

  def step(self, model, inputs, *more):
    seen.append(inputs["tokens"].item())
    return plain(self, model, inputs, *more)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(transformers.Trainer, "training_step", step)
    more = ("--train_sampling_strategy", strategy, "--per_device_train_batch_size", 4, "--max_steps", 8)
    done = train(tiny, data, tmp_path / "out", *more)
  assert done.returncode == 0, done.stderr
  if strategy == "group_by_length":
    assert max(seen) > 2 * min(seen), "an even mixture would make all batches alike"
  else:
    assert len(seen) == 8


def test_an_old_name_of_it_is_answered(tiny, toy_file, tmp_path):
  done = train(tiny, toy_file, tmp_path / "out", "--group_by_length")
  assert done.returncode == 2 and "use --train_sampling_strategy group_by_length" in done.stderr


def test_noise_in_embeddings_is_that_of_padded_rows(tiny, toy_file, tmp_path):
  """Its size falls with the length of a row, and a packed row holds a whole batch."""
  for name, more in (("own", ()), ("padded", ("--shared_prefix", "false"))):
    done = train(tiny, toy_file, tmp_path / name, "--neftune_noise_alpha", 5, *more)
    assert done.returncode == 0, done.stderr
  assert "batches are padded, since" in done.stderr
  assert losses(tmp_path / "own") == losses(tmp_path / "padded")


def test_the_batch_that_fits_is_the_one_that_is_told(tiny, toy_file, tmp_path, monkeypatch):
  plain = transformers.Trainer.training_step

  def step(self, model, inputs, *more):
    if len(inputs["chosen"]) > 2:
      raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
    return plain(self, model, inputs, *more)

  monkeypatch.setattr(transformers.Trainer, "training_step", step)
  done = train(tiny, toy_file, tmp_path / "out", "--auto_find_batch_size")
  assert done.returncode == 0, done.stderr
  assert done.json["training"]["per_device_train_batch_size"] == 2


def test_a_batch_is_that_of_one_device_under_data_parallel(tiny, tmp_path, monkeypatch):
  """Two devices of one process, of which the trainer makes one batch of twice the size; a CPU computes it whole."""
  monkeypatch.setattr(transformers.TrainingArguments, "n_gpu", property(lambda self: 2))
  rows = [{"prompt": f"hello {n}", "completions": ["one", "two"], "labels": [True, n % 2 == 0]} for n in range(16)]
  data = write_jsonl(tmp_path / "steps.jsonl", rows)
  named = ("--model_name_or_path", tiny("qwen2"), "--dataset_name", data, "--output_dir", tmp_path / "out")
  done = run_main("train_process.py", *named, *STEPS, "--per_device_train_batch_size", 4, "--audit", "warn")
  assert done.returncode == 0, done.stderr
  assert done.json["training"]["per_device_train_batch_size"] == 4


# ---- what a run will take ----


@pytest.mark.parametrize(
  ("script", "more"),
  [
    ("grpo.py", ("--max_steps", -1, "--num_iterations", 2, "--gradient_accumulation_steps", 2)),
    ("grpo.py", ("--max_steps", -1, "--num_train_epochs", 1.5, "--steps_per_generation", 2)),
    ("ppo.py", ("--num_mini_batches", 2, "--num_ppo_epochs", 3)),
  ],
)
def test_a_dry_run_counts_the_steps_and_answers_of_the_run(script, more, tiny, toy_prompts, tmp_path):
  words = [*policy_words(script, tiny, toy_prompts, tmp_path / "out"), *more]
  planned, done = run_main(script, *words, "--dry_run"), run_main(script, *words)
  assert (planned.returncode, done.returncode) == (0, 0), planned.stderr + done.stderr
  log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
  if script == "grpo.py":
    assert planned.json["optimizer_steps"] == done.json["steps"]
    written = 16 * sum("reward" in entry for entry in log)
  else:
    assert planned.json["optimizer_steps"] == 6 * done.json["updates"]
    written = log[-1]["episode"]
  assert planned.json["answers"] == written and planned.json["answer_tokens"] == 4 * written


def test_a_dry_run_of_training_counts_the_tokens_of_an_epoch(tiny, tmp_path):
  """Of each side, whole."""
  rows = [{**toy_pairs(1)[0], "id": str(i)} for i in range(8)]
  data = write_jsonl(tmp_path / "rows.jsonl", rows)
  done = train(tiny, data, tmp_path / "out", "--dry_run", "--audit", "warn")
  assert done.returncode == 0, done.stderr
  tokenizer = transformers.AutoTokenizer.from_pretrained(tiny("qwen2"))
  sides = [
    tokenizer.apply_chat_template(rows[0]["prompt"] + rows[0][side], tokenize=False) for side in ("chosen", "rejected")
  ]
  assert done.json["settings"]["tokens_per_epoch"] == 8 * sum(len(tokenizer(text)["input_ids"]) for text in sides)


# ---- launchers ----


def test_precision_and_accumulation_of_a_launcher_change_no_run(tiny, toy_prompts, tmp_path, monkeypatch):
  """PPO's loop divided its losses by the launcher's accumulation, on top of its own."""
  assert run_main("ppo.py", *policy_words("ppo.py", tiny, toy_prompts, tmp_path / "alone")).returncode == 0
  monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
  monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
  done = run_main("ppo.py", *policy_words("ppo.py", tiny, toy_prompts, tmp_path / "launched"))
  assert done.returncode == 0, done.stderr
  assert "warning: the launcher's mixed_precision bf16 has no effect" in done.stderr
  weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("alone", "launched")]
  assert weights[0] == weights[1]


def test_grpo_under_accelerate_launch_is_what_it_is_alone(tiny, toy_prompts, tmp_path):
  launch = ["accelerate", "launch", "--mixed_precision", "bf16", "--num_processes", "1", "--num_machines", "1", "--cpu"]
  launch += ["--dynamo_backend", "no"]
  for name, start in (("alone", ["python"]), ("launched", launch)):
    words = policy_words("grpo.py", tiny, toy_prompts, tmp_path / name)
    done = warm_process.shared().run([*start, SCRIPTS / "grpo.py", *words])
    assert done.returncode == 0, done.stderr
  assert "warning: the launcher's mixed_precision bf16 has no effect" in done.stderr
  weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("alone", "launched")]
  assert weights[0] == weights[1]


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_a_policy_in_parts_is_refused_before_data_is_read(name, tiny, tmp_path, monkeypatch):
  monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
  done = run_main("ppo.py", *policy_words("ppo.py", tiny, tmp_path / "nowhere.jsonl", tmp_path / "out"))
  assert done.returncode == 2 and "which needs the whole model in each process" in done.stderr


@pytest.mark.parametrize(
  ("stage", "fsdp", "may_shard", "refused"),
  [
    *((3, None, True, True), (2, None, True, False), (3, None, False, True), (2, None, False, False)),
    *((None, True, True, False), (None, True, False, True), (None, None, False, False)),
  ],
)
def test_what_is_gathered_for_saving(stage, fsdp, may_shard, refused):
  from types import SimpleNamespace

  config = SimpleNamespace(deepspeed_plugin=stage and SimpleNamespace(zero_stage=stage), fsdp=fsdp)
  if not refused:
    return configuration.check_whole(config, may_shard=may_shard)
  with pytest.raises(UsageError, match="the whole model in each process"):
    configuration.check_whole(config, may_shard=may_shard)
