"""The estimate of memory against parameters and optimizer states that are really there, and what autograd really keeps."""

import pytest
import torch

from conftest import run_main, run_script
from reward_modeling.training import configuration
from reward_modeling.training.memory import NF4
from reward_modeling.training.settings import LoraSettings


def estimated(model, *more: str, script: str = "train.py") -> dict:
  done = run_main(script, "--model_name_or_path", model, "--estimate_memory", *more)
  assert done.returncode == 0, done.stderr
  return done.json


def trained(folder, *, lora: bool = False) -> torch.nn.Module:
  from peft import get_peft_model
  from transformers import AutoModelForSequenceClassification

  model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32)
  if lora:
    settings = LoraSettings(use_peft=True, lora_dropout=0.0)
    model = get_peft_model(model, configuration.lora_of(settings, model))
  return model.train()


def kept_bytes(model: torch.nn.Module, batch: int, length: int, bf16: bool) -> int:
  """Of the tensors that a real forward pass saves, each storage once, without the model's own."""
  own = {one.data_ptr() for one in (*model.parameters(), *model.buffers())}
  saved = []
  with (
    torch.autograd.graph.saved_tensors_hooks(lambda one: saved.append(one) or one, lambda one: one),
    torch.autocast("cpu", torch.bfloat16, enabled=bf16),
  ):
    model(input_ids=torch.randint(4, 300, (batch, length)), use_cache=False)
  storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in saved}
  return sum(size for place, size in storages.items() if place not in own)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_weights_gradients_and_optimizer_are_those_of_a_real_step(family, lora, tiny):
  model = trained(tiny(family), lora=lora)
  own = [one for one in model.parameters() if one.requires_grad]
  optimizer = torch.optim.AdamW(own)
  model(input_ids=torch.randint(4, 300, (2, 8))).logits.sum().backward()
  optimizer.step()
  state = sum(value.nbytes for one in optimizer.state.values() for value in one.values())
  found = estimated(tiny(family))["bytes_per_device"]["lora" if lora else "full"]
  assert found["weights"] == sum(one.nbytes for one in model.parameters())
  assert found["gradients"] == sum(one.grad.nbytes for one in own)
  assert found["optimizer"] == state
  assert found["total"] == sum(size for name, size in found.items() if name != "total")


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("lora", [False, True])
def test_activations_are_what_a_real_forward_pass_keeps(lora, bf16, tiny):
  more = ("--per_device_train_batch_size", "3", "--max_length", "40", "--bf16", str(bf16).lower())
  found = estimated(tiny("qwen2"), *more)
  assert (found["sequences"], found["length"]) == (6, 40), "both sides of each pair"
  kept = kept_bytes(trained(tiny("qwen2"), lora=lora), 6, 40, bf16)
  assert found["bytes_per_device"]["lora" if lora else "full"]["activations"] == pytest.approx(kept, rel=0.01)


def test_checkpointing_keeps_the_inputs_of_layers_and_one_layer(tiny):
  batch = ("--per_device_train_batch_size", "4", "--max_length", "64", "--bf16", "false")
  whole = estimated(tiny("qwen2"), *batch)["bytes_per_device"]["full"]["activations"]
  found = estimated(tiny("qwen2"), *batch, "--gradient_checkpointing", "true")["bytes_per_device"]["full"][
    "activations"
  ]
  inputs = 2 * (8 * 64 * 32) * 4  # two layers, hidden states of 32 numbers in fp32
  assert whole / 2 + inputs <= found < whole / 2 + 3 * inputs


def test_by_hand_on_four_devices(tiny):
  found = estimated(tiny("qwen2"), "4")
  model, by_way = trained(tiny("qwen2")), found["bytes_per_device"]
  count, tensors = sum(one.numel() for one in model.parameters()), len(list(model.parameters()))
  assert found["parameters"] == count and found["devices"] == 4
  assert list(by_way) == ["full", "full_fsdp", "lora", "qlora", "lora_fsdp"]
  assert by_way["full"]["working"] == 4 * count, "the buckets of DDP"
  assert by_way["full_fsdp"]["weights"] == by_way["full_fsdp"]["gradients"] == 4 * count // 4
  assert by_way["full_fsdp"]["optimizer"] == 8 * count // 4 + 4 * tensors
  linear = sum(
    module.weight.numel()
    for name, module in model.named_modules()
    if isinstance(module, torch.nn.Linear) and name != "score"
  )
  assert by_way["lora"]["weights"] - by_way["qlora"]["weights"] == pytest.approx((4 - NF4) * linear, abs=2)


def test_as_a_user_asks_for_a_process_model(tiny):
  done = run_script("train_process.py", "--model_name_or_path", tiny("bert"), "--estimate_memory", "--use_peft")
  assert done.returncode == 0, done.stderr
  assert done.json["sequences"] == 8 and done.json["length"] == 128
  assert "lora: 0.0 GB on each of 1 device(s)" in done.stderr
  refused = run_script("train.py", "--estimate_memory")
  assert refused.returncode == 2 and "error: --model_name_or_path is required" in refused.stderr
