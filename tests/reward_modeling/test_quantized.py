"""QLoRA: refused where it cannot run; with bitsandbytes, what is saved scores as what was trained."""

import importlib.util

import pytest

from conftest import run_main

WITHOUT = importlib.util.find_spec("bitsandbytes") is None
STEPS = ("--max_steps", "6", "--learning_rate", "3e-3", "--save_strategy", "no", "--load_in_4bit")


def train(tiny, data, out, *more):
  return run_main("train.py", "--model_name_or_path", tiny("qwen2"), "--dataset_name", data, "--output_dir", out, *more)


def test_without_an_adapter_it_is_refused(tiny, toy_file, tmp_path):
  done = train(tiny, toy_file, tmp_path / "out", *STEPS)
  assert done.returncode == 2 and "error: --load_in_4bit trains an adapter only" in done.stderr


@pytest.mark.skipif(not WITHOUT, reason="bitsandbytes is installed")
def test_without_bitsandbytes_it_is_refused_before_anything_is_read(tiny, tmp_path):
  done = train(tiny, "/nowhere.jsonl", tmp_path / "out", *STEPS, "--use_peft")
  assert done.returncode == 2 and "error: --load_in_4bit: bitsandbytes is not installed" in done.stderr
  assert "uv run --with bitsandbytes" in done.stderr


@pytest.mark.skipif(WITHOUT, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("bf16", ["false", "true"])
def test_the_saved_model_is_a_plain_one_that_scores_as_the_trained_one(bf16, tiny, toy_file, tmp_path):
  import torch
  from bitsandbytes.functional import dequantize_4bit, quantize_4bit
  from safetensors.torch import load_file

  out = tmp_path / "out"
  done = train(tiny, toy_file, out, *STEPS, "--use_peft", "--bf16", bf16)
  assert done.returncode == 0, done.stderr
  assert done.json["reload_difference"] <= 1e-4 and (out / "adapter").is_dir()
  saved, base = load_file(out / "model.safetensors"), load_file(tiny("qwen2") / "model.safetensors")
  assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
  adapter = load_file(out / "adapter" / "adapter_model.safetensors")
  name = "model.layers.0.mlp.up_proj"
  a, b = (adapter[f"base_model.{name}.lora_{side}.weight".replace("base_model.", "base_model.model.")] for side in "AB")
  rounded = dequantize_4bit(*quantize_4bit(base[f"{name}.weight"], quant_type="nf4", compress_statistics=True))
  torch.testing.assert_close(saved[f"{name}.weight"], rounded + 2.0 * b @ a, atol=1e-5, rtol=0)  # alpha / r = 2
  scored = run_main("score.py", "--model_name_or_path", out, "--input", toy_file)
  assert scored.returncode == 0, scored.stderr
