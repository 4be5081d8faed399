"""The learning rate of a policy where none is given: TRL's, more with LoRA, and more for the smallest."""

import pytest

from conftest import SAMPLED, run_main, tiny_config, tiny_tokenizer
from reward_modeling.training.configuration import policy_rate


@pytest.mark.parametrize(
  ("algorithm", "parameters", "lora", "rate"),
  [
    ("ppo", 1e9, False, 3e-6),
    ("ppo", 1e9, True, 3e-5),
    ("grpo", 1e7, False, 1e-6),
    ("rloo", 1e9, True, 1e-5),
    ("ppo", 1e5, False, 3e-4),
    ("grpo", 1e5, True, 1e-4),
  ],
)
def test_rates_by_size(algorithm, parameters, lora, rate):
  """Exactly: a run of an older version with LoRA resumes."""
  assert policy_rate(algorithm, parameters, lora)[0] == rate


@pytest.mark.parametrize(("script", "rate"), [("ppo.py", 3e-4), ("grpo.py", 1e-4)])
def test_a_default_is_told_and_a_given_rate_is_taken_as_it_is(script, rate, tiny, toy_prompts, tmp_path):
  named = ("--model_name_or_path", tiny("qwen2"), "--reward_functions", "length_penalty", "--dataset_name", toy_prompts)
  words = (*named, "--output_dir", tmp_path / "out", "--per_device_train_batch_size", 8, *SAMPLED[script], "--dry_run")
  done = run_main(script, *words)
  assert done.json["settings"]["learning_rate"] == rate, done.stderr
  assert f"setting: learning_rate {rate:g} (0.0M parameters, under 10M)" in done.stderr
  given = run_main(script, *words, "--learning_rate", 3e-6)
  assert given.json["settings"]["learning_rate"] == 3e-6 and "setting: learning_rate" not in given.stderr


def test_a_reward_model_as_value_model_takes_the_rate_of_its_own_size(tiny, toy_prompts, tmp_path):
  """Of 20M parameters beside a policy of a few thousand; a given rate of the policy is that of both."""
  large = widened(tmp_path / "large")
  named = ("--model_name_or_path", tiny("qwen2"), "--reward_model_path", large, "--dataset_name", toy_prompts)
  words = (*named, "--output_dir", tmp_path / "out", *SAMPLED["ppo.py"], "--dry_run")
  for more, rates in (
    (("--value_model", "reward"), (3e-4, 3e-6)),
    (("--value_model", "policy"), (3e-4, 3e-4)),
    (("--value_model", "reward", "--learning_rate", 1e-5), (1e-5, 1e-5)),
    (("--value_model", "reward", "--value_learning_rate", 1e-5), (3e-4, 1e-5)),
  ):
    done = run_main("ppo.py", *words, *more)
    assert done.returncode == 0, done.stderr
    found = done.json["settings"]
    assert (found["learning_rate"], found["value_learning_rate"]) == rates
    assert ("setting: value_learning_rate 3e-06 (" in done.stderr) == (rates[1] == 3e-6)


def widened(folder):
  import torch
  from transformers import AutoModelForSequenceClassification

  tokenizer = tiny_tokenizer("qwen2")
  config = tiny_config("qwen2", len(tokenizer))
  config.hidden_size, config.intermediate_size, config.num_labels = 1024, 3072, 1
  torch.manual_seed(0)
  AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
  tokenizer.save_pretrained(folder)
  return folder
