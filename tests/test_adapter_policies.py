"""ppo.py and grpo.py from a LoRA adapter that something else trained, and what they refuse before they train."""

import json

import pytest
import torch

from conftest import SAMPLED, run_main


@pytest.fixture(scope="module")
def adapter(tiny, tmp_path_factory):
  """Which moves the model: its B is not zero, as that of a fresh adapter is."""
  from peft import LoraConfig, get_peft_model
  from transformers import AutoModelForCausalLM

  torch.manual_seed(0)
  model = AutoModelForCausalLM.from_pretrained(tiny("qwen2"))
  model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"))
  for name, weights in model.named_parameters():
    if "lora_B" in name:
      torch.nn.init.normal_(weights, std=0.3)
  folder = tmp_path_factory.mktemp("adapter")
  model.save_pretrained(folder)
  return folder


def run(script, policy, toy_prompts, out, *more):
  named = ("--model_name_or_path", policy, "--dataset_name", toy_prompts, "--output_dir", out)
  return run_main(script, *named, "--learning_rate", 1e-3, "--per_device_train_batch_size", 8, *SAMPLED[script], *more)


@pytest.mark.parametrize("peft", [(), ("--use_peft",)])
@pytest.mark.parametrize("script", SAMPLED)
def test_an_adapter_is_where_training_starts_and_the_reference_stays(
  script, peft, adapter, tiny, toy_prompts, tmp_path
):
  """Merged weights were frozen, and TRL read its reference from the adapter's base."""
  from peft import PeftModel
  from safetensors.torch import load_file
  from transformers import AutoModelForCausalLM

  done = run(script, adapter, toy_prompts, tmp_path / "out", "--reward_model_path", tiny("qwen2", head=1), *peft)
  assert done.returncode == 0, done.stderr
  log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
  assert log[0]["kl"] == pytest.approx(0, abs=1e-5), "the first answers are the reference's"
  base = AutoModelForCausalLM.from_pretrained(tiny("qwen2"))
  start = PeftModel.from_pretrained(base, adapter).merge_and_unload().state_dict()
  learned = load_file(tmp_path / "out" / "model.safetensors")
  name = "model.layers.0.mlp.up_proj.weight"
  assert 0 < (learned[name] - start[name]).abs().max() < 0.02


def test_a_temperature_of_zero_is_refused_before_data_is_read(tiny, tmp_path):
  nowhere = tmp_path / "nowhere.jsonl"
  done = run(
    "grpo.py", tiny("qwen2"), nowhere, tmp_path / "out", "--reward_functions", "think_format", "--temperature", 0
  )
  assert done.returncode == 2 and "temperature is a number above 0" in done.stderr


@pytest.mark.parametrize("script", SAMPLED)
def test_a_column_that_a_function_needs_is_missed_before_training(script, tiny, toy_prompts, tmp_path):
  done = run(
    script, tiny("qwen2"), toy_prompts, tmp_path / "out", "--reward_functions", "length_penalty", "same_answer"
  )
  assert done.returncode == 3, done.stderr
  assert "the reward function same_answer needs the column answer" in done.stderr
  assert not (tmp_path / "out" / "log.jsonl").exists()
