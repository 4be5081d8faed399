"""grpo.py: TRL's trainers with our rewards. Each trap of section 5 of TRL's behaviour has its counterpart here."""

from __future__ import annotations

import json
import shutil

import pytest

from conftest import run_main, run_script, save_tiny, write_jsonl

STEPS = (
  "--per_device_train_batch_size",
  8,
  "--num_generations",
  4,
  "--max_completion_length",
  8,
  "--learning_rate",
  1e-3,
)
PROMPTS = [
  {"prompt": [{"role": "user", "content": f"hello {word}"}]}
  for word in ("red", "blue", "green", "one two", "three", "world", "apples", "basket")
]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
  return write_jsonl(tmp_path_factory.mktemp("prompts") / "prompts.jsonl", PROMPTS)


@pytest.fixture(scope="module")
def flags(tiny, toy_model, prompts):
  return (
    "--model_name_or_path",
    tiny("qwen2"),
    "--reward_model_path",
    toy_model[0],
    "--dataset_name",
    prompts,
    *STEPS,
  )


def entries(out) -> list[dict]:
  return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def weights(folder) -> dict:
  from safetensors.torch import load_file

  return load_file(folder / "model.safetensors")


def rewards_by_score_py(model, samples: list[dict], tmp_path) -> list[float]:
  rows = [{"prompt": sample["prompt"], "completion": sample["completion"]} for sample in samples]
  file = write_jsonl(tmp_path / "samples.jsonl", rows)
  return [row["reward"] for row in run_main("score.py", "--model_name_or_path", model, "--input", file).json["rows"]]


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_rewards_inside_the_trainer_are_those_of_score_py(flags, toy_model, tmp_path, algorithm):
  """Catches another rendering, another scored position, train mode: the reward the trainer learned from, in its log."""
  out = tmp_path / "out"
  done = run_main(
    "grpo.py", *flags, "--algorithm", algorithm, "--output_dir", out, "--max_steps", 3, "--missing_eos_penalty", 0
  )
  assert done.returncode == 0, done.stderr
  samples = [entry["sample"] for entry in entries(out) if "sample" in entry]
  assert len(samples) == 3
  expected = rewards_by_score_py(toy_model[0], samples, tmp_path)
  assert [sample["reward"] for sample in samples] == pytest.approx(expected, abs=1e-5)
  assert done.json["settings"]["beta"] == {"grpo": 0.04, "rloo": 0.05}[algorithm]
  assert (out / "run.svg").read_text().startswith("<svg")
  assert json.loads((out / "grpo.json").read_text())["end"] == done.json["end"]
  from transformers import AutoModelForCausalLM

  AutoModelForCausalLM.from_pretrained(out)


def test_defaults_fit_the_policy_and_the_summary_begins_with_the_untrained_one(flags, tmp_path):
  """TRL's default of 512 new tokens leaves a small policy no room for a prompt."""
  kept = [
    word for pair in zip(flags[::2], flags[1::2], strict=True) if pair[0] != "--max_completion_length" for word in pair
  ]
  done = run_main("grpo.py", *kept, "--output_dir", tmp_path / "dry", "--dry_run")
  assert done.returncode == 0 and done.json["settings"]["max_completion_length"] == 64, done.stderr
  assert "--max_completion_length 64: half of the 128 tokens that the policy reads (otherwise 512)" in done.stderr
  out = tmp_path / "out"
  done = run_main("grpo.py", *flags, "--output_dir", out, "--max_steps", 6, "--logging_steps", 3)
  assert done.returncode == 0, done.stderr
  log = [entry for entry in entries(out) if "reward" in entry]
  assert [entry["step"] for entry in log] == [1, 3, 6], "the first step is logged alone"
  assert done.json["beginning"]["reward"] == log[0]["reward"] and done.json["beginning"]["kl"] == pytest.approx(
    0, abs=1e-6
  )


def test_an_encoder_with_another_tokenizer_drives_a_decoder(tiny, minilm, prompts, tmp_path):
  from reward_modeling import checkpoints
  from reward_modeling.rendering import Renderer

  loaded = checkpoints.load_for_training(str(minilm))
  renderer = Renderer(loaded.tokenizer, max_length=128, scored_at=checkpoints.scored_at(loaded.model))
  encoder = tmp_path / "encoder"
  checkpoints.save(loaded.model, renderer, encoder, training={}, reward={"mean": 0.0, "std": 1.0, "n": 1})
  out = tmp_path / "out"
  names = ("--model_name_or_path", tiny("qwen2"), "--reward_model_path", encoder, "--dataset_name", prompts)
  done = run_main("grpo.py", *names, *STEPS, "--output_dir", out, "--max_steps", 3, "--missing_eos_penalty", 0)
  assert done.returncode == 0, done.stderr
  samples = [entry["sample"] for entry in entries(out) if "sample" in entry]
  assert [sample["reward"] for sample in samples] == pytest.approx(
    rewards_by_score_py(encoder, samples, tmp_path), abs=1e-5
  )


def answers_of_checkpoint(checkpoint, reward_model, tmp_path):
  """The policy of a checkpoint, the adapter of one here, writes answers that score.py scores."""
  file = write_jsonl(tmp_path / "asked.jsonl", [{"prompt": [{"role": "user", "content": "hello"}]}])
  names = ("--model_name_or_path", reward_model, "--input", file, "--generate_with", checkpoint)
  done = run_main("score.py", *names, "--best_of", 2, "--max_new_tokens", 4, "--output", tmp_path / "best.jsonl")
  assert done.returncode == 0, done.stderr
  assert done.json["policy"] == str(checkpoint)


def test_two_reward_models_of_one_name_lora_and_the_penalty_for_no_end(flags, toy_model, tmp_path):
  """TRL logs two reward models with the same folder name under one name, averaged, and cannot take LoRA in one call."""
  second = tmp_path / "second" / "model"
  shutil.copytree(toy_model[0], second, ignore=shutil.ignore_patterns("checkpoint-*"))
  out = tmp_path / "out"
  done = run_main(
    "grpo.py",
    *flags[:3],
    toy_model[0],
    second,
    *flags[4:],
    *("--reward_weights", 1, -0.5, "--use_peft", "--lora_r", 4, "--max_steps", 2, "--output_dir", out),
    *("--save_steps", 1),
  )
  assert done.returncode == 0, done.stderr
  answers_of_checkpoint(out / "checkpoint-2", toy_model[0], tmp_path)
  first, *_ = [entry for entry in entries(out) if "reward" in entry]
  parts = {name: value for name, value in first.items() if name.startswith("rewards/") and name.endswith("/model")}
  assert len(parts) == 2
  mean, other = parts.values()
  assert mean == pytest.approx(other)
  assert [first[f"{name}/std"] > 0 for name in parts] == [True, True], "each model's spread is logged"
  # Half the reward is left, less the penalty of the answers that were cut at the limit.
  assert first["reward"] == pytest.approx(0.5 * mean - first["completions/clipped_ratio"], abs=1e-5)
  base, trained = weights(flags[1]), weights(out)
  assert base.keys() == trained.keys()
  assert any((base[name] != trained[name]).any() for name in base)
  assert (out / "adapter" / "adapter_config.json").exists()


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_a_resumed_run_ends_where_the_undisturbed_one_does(flags, tmp_path, algorithm):
  """--save_steps 1 falls between two passes over one batch of answers, so checkpoints are moved to every second step."""
  settings = (*flags, "--algorithm", algorithm, "--max_steps", 4, "--num_iterations", 2, "--save_steps", 1)
  whole, killed = tmp_path / "whole", tmp_path / "killed"
  done = run_main("grpo.py", *settings, "--output_dir", whole)
  assert done.returncode == 0, done.stderr
  assert "save_steps 2: a checkpoint between two generations" in done.stderr
  shutil.copytree(whole, killed)
  shutil.rmtree(killed / "checkpoint-4")
  for file in ("config.json", "model.safetensors"):
    (killed / file).unlink()
  resumed = run_main("grpo.py", *settings, "--output_dir", killed, "--resume_from_checkpoint")
  assert resumed.returncode == 0, resumed.stderr
  expected = weights(whole)
  assert all((expected[name] == value).all() for name, value in weights(killed).items())
  assert [entry["step"] for entry in entries(killed)] == [entry["step"] for entry in entries(whole)]
  other = run_main("grpo.py", *settings, "--beta", 0.7, "--output_dir", killed, "--resume_from_checkpoint", "true")
  assert (other.returncode, "is finished" in other.stderr) == (2, True)
  (killed / "config.json").unlink()
  shutil.rmtree(killed / "checkpoint-4")
  other = run_main("grpo.py", *settings, "--beta", 0.7, "--output_dir", killed, "--resume_from_checkpoint")
  assert other.returncode == 5
  assert "cannot resume: beta (" in other.stderr
  other = run_main("grpo.py", *settings, "--reward_weights", -1, "--output_dir", killed, "--resume_from_checkpoint")
  assert (other.returncode, "cannot resume: reward_weights (" in other.stderr) == (5, True), other.stderr


def test_what_is_no_number_ends_the_run_and_names_the_step(flags, toy_model, tmp_path):
  import torch
  from safetensors.torch import load_file, save_file

  broken = tmp_path / "broken"
  shutil.copytree(toy_model[0], broken, ignore=shutil.ignore_patterns("checkpoint-*"))
  tensors = load_file(broken / "model.safetensors")
  tensors["score.weight"] = torch.full_like(tensors["score.weight"], float("inf"))
  save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
  (broken / "reward_model.json").unlink()  # whose golden scores would refuse it before
  done = run_main("grpo.py", *flags[:3], broken, *flags[4:], "--output_dir", tmp_path / "a", "--max_steps", 2)
  assert done.returncode == 5
  assert "error: step 1: reward model broken: the model gave 8 rewards that are not finite numbers" in done.stderr

  out = tmp_path / "b"
  done = run_main(
    "grpo.py",
    *flags,
    "--output_dir",
    out,
    "--max_steps",
    4,
    "--save_steps",
    1,
    "--learning_rate",
    1e38,
    "--max_grad_norm",
    0,
  )
  assert done.returncode == 5
  assert "at step 2" in done.stderr
  assert (out / "checkpoint-1" / "trainer_state.json").exists()
  assert not (out / "config.json").exists()


def bad(edit):
  """A tiny policy whose tokenizer is changed before it is saved."""
  return lambda folder: save_tiny("qwen2", folder, edit=edit)


def no_template(tokenizer):
  tokenizer.chat_template = None


def no_end(folder):
  """A policy with no token that could end an answer, in tokenizer, template, config or generation config."""

  def edit(tokenizer):
    tokenizer.eos_token = None
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"

  save_tiny("qwen2", folder, edit=edit)
  for name in ("config.json", "generation_config.json"):
    settings = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**settings, "eos_token_id": None}))
  return folder


def with_tools(tokenizer):
  tokenizer.chat_template = "{% if tools %}{{ tools }}{% endif %}" + tokenizer.chat_template


@pytest.mark.parametrize(
  ("change", "code", "message"),
  [
    ({"--reward_model_path": lambda f: save_tiny("qwen2", f)}, 4, "is not a reward model"),
    ({"--reward_model_path": lambda f: save_tiny("qwen2", f, head=2)}, 4, "has 2 labels"),
    ({"--model_name_or_path": lambda f: save_tiny("qwen2", f, head=1)}, 4, "is not a policy"),
    ({"--model_name_or_path": bad(no_template)}, 4, "has no chat template"),
    ({"--model_name_or_path": no_end}, 4, "has no EOS token: nothing would end an answer"),
    ({"--dataset_name": [{"prompt": "hello"}, {"prompt": ""}]}, 3, "the prompt is empty"),
    ({"--dataset_name": [{"prompt": "hello " * 130}]}, 3, "1 of 1 prompts are longer than 120 tokens"),
    ({"--dataset_name": [{"prompt": "hello"}]}, 2, "a step answers 2 prompts, but there are only 1"),
    (
      {
        "--model_name_or_path": bad(with_tools),
        "--dataset_name": [{"prompt": "hi", "tools": [{"name": "f"}]}] * 4,
      },
      2,
      "the data has `tools`, which TRL's trainers cannot give to each prompt",
    ),
    ({"--max_completion_length": 128}, 2, "--max_completion_length 128 leaves no room for a prompt"),
    (
      {"--num_generations": 3},
      2,
      "the trainer refuses these settings: generation_batch_size (8) must be divisible",
    ),
    ({"--chat_template_kwargs": "{}"}, 2, "unknown flag --chat_template_kwargs"),
    ({"--lora_dropout": 0}, 2, "--lora_dropout does nothing without --use_peft"),
    ({"--loss_tipe": "grpo"}, 2, "unknown flag --loss_tipe"),
    ({"--algorithm": "rloo", "--loss_type": "grpo"}, 2, "--loss_type"),
    ({"--reward_weights": 1.5, "--reward_combine": "min"}, 2, "--reward_combine min takes no weights"),
  ],
)
def test_bad_input_is_told_in_one_line(flags, tmp_path, change, code, message):
  given = dict(zip(flags[::2], flags[1::2], strict=True))
  for name, value in change.items():
    if callable(value):
      value = value(tmp_path / "model")
    elif isinstance(value, list):
      value = write_jsonl(tmp_path / "rows.jsonl", value)
    given[name] = value
  words = [word for pair in given.items() for word in pair]
  done = run_main("grpo.py", *words, "--output_dir", tmp_path / "out", "--dry_run")
  errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
  assert done.returncode == code, done.stderr
  assert len(errors) == 1
  assert message in done.stderr
  assert "Traceback" not in done.stderr


def test_prompts_are_rendered_as_by_trl_and_system_prompts_are_folded_where_a_template_has_none(tiny, tmp_path):
  """The overridden method: it must exist with this signature, and differ from TRL's only where TRL cannot render."""
  import inspect

  from trl import GRPOTrainer, RLOOTrainer

  from reward_modeling.training.grpo import _Ours
  from reward_modeling.training.policy import Policy

  policy = Policy.from_pretrained(str(tiny("qwen2")), device="cpu")
  messages = [row["prompt"] for row in PROMPTS]
  ours = type("T", (_Ours,), {"policy": policy})()
  for trainer in (GRPOTrainer, RLOOTrainer):
    assert list(inspect.signature(trainer._tokenize_prompts).parameters) == ["self", "prompts"]
    assert list(inspect.signature(trainer.compute_loss).parameters)[:3] == ["self", "model", "inputs"]
    theirs = trainer.__new__(trainer)
    vars(theirs).update(
      processing_class=policy.tokenizer, chat_template=None, chat_template_kwargs={}, tools=None, _is_vlm=False
    )
    theirs.environment_factories = None
    assert trainer._tokenize_prompts(theirs, messages)[0] == ours._tokenize_prompts(messages)[0]
  policy.tokenizer.chat_template = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    + policy.tokenizer.chat_template
  )
  asked = [{"role": "system", "content": "sorry"}, {"role": "user", "content": "hello", "name": None}]
  (ids,), *_ = ours._tokenize_prompts([asked])
  assert policy.tokenizer.decode(ids) == "<|im_start|>user\nsorry\n\nhello<|im_end|>\n<|im_start|>assistant\n"


def test_as_a_user_runs_it(flags, tmp_path):
  done = run_script("grpo.py", *flags, "--output_dir", tmp_path / "out", "--max_steps", 2, cold=True)
  assert done.returncode == 0, done.stderr
  assert done.json["steps"] == 2
  assert set(done.json["end"]) >= {"reward", "kl", "entropy", "completions/mean_length"}
  again = run_script("grpo.py", *flags, "--output_dir", tmp_path / "out", "--max_steps", 2)
  assert again.returncode == 2
  assert "already holds a model" in again.stderr
