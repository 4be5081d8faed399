"""The rule for packed rows on a GPU: what an H200 measured, read from its tables, and how a run applies it."""

import random

import plain_flash
import pytest
import torch
from hypothesis import given

from architectures import GOOD, build
from reward_modeling import guard
from reward_modeling.gpu_speed import COMPILING, SCORING, TRAINING, Gain, Speed, speed_of, spent_in_training
from reward_modeling.packing import pack, unique_tokens
from reward_modeling.scoring import RewardModel
from tries import tries

SCORED = {
  ("0.5B", "HH pairs"): (896, 206_193, 129_867, (0.654, 0.425, 0.271)),
  ("0.5B", "single turns"): (896, 140_260, 131_259, (0.471, 0.354, 0.281)),
  ("0.5B", "best of 16, 1000"): (896, 246_379, 36_379, (0.797, 0.134, 0.092)),
  ("8B", "best of 16, 1000"): (4096, 52_608, 7_608, (1.642, 0.230, 0.192)),
}
"""Hidden size, tokens, unique ones, and seconds of the best padded batches, packed rows, and those in compiled layers."""
TRAINED = {
  "HH, 8 pairs": (8, (100, 400), (20, 150), (0.362, 0.368, 0.211)),
  "HH, 32 pairs": (32, (100, 400), (20, 150), (1.277, 0.579, 0.332)),
  "single turns, 32 pairs": (32, (15, 45), (50, 350), (0.915, 0.549, 0.343)),
}
"""Pairs a batch, lengths of prompts and answers, and seconds of four batches of 0.5B in each way."""


def drawn(pairs, prompt, completion):
  """The token ids of the four batches that were measured, drawn as they were."""
  rng = random.Random(1)
  draw = lambda lengths: [rng.randrange(1, 16384) for _ in range(rng.randint(*lengths))]  # noqa: E731
  rows = []
  for _ in range(4 * pairs):
    stem = draw(prompt)
    rows.append([stem + draw(completion), stem + draw(completion)])
  return rows


@pytest.mark.parametrize("work", SCORED)
def test_scoring_is_estimated_as_it_was_measured(work):
  hidden, tokens, unique, seconds = SCORED[work]
  spent = speed_of(SCORING, hidden).seconds(tokens, unique)
  assert spent[:3] == pytest.approx(seconds, rel=0.25)
  assert sorted(range(3), key=spent.__getitem__) == sorted(range(3), key=seconds.__getitem__)


@pytest.mark.parametrize("work", TRAINED)
def test_training_is_estimated_as_it_was_measured(work):
  pairs, prompt, completion, seconds = TRAINED[work]
  spent = spent_in_training(speed_of(TRAINING, 896), drawn(pairs, prompt, completion), pairs, 4, True)
  assert spent[:3] == pytest.approx(seconds, rel=0.1)


def test_what_was_not_measured_is_padded():
  assert speed_of(SCORING, 895) is None
  assert "so small" in Gain().reason_against(None, True)
  assert "float32" in Gain().reason_against(Speed(9, 1, 1), False)
  assert speed_of(SCORING, 2048) is SCORING[896]


def test_layers_are_compiled_when_that_would_have_paid():
  gain, part = Gain(), COMPILING * 0.6
  assert gain.reason_against(Speed(9 * part, 2 * part, part), True) is None and not gain.compiles
  assert "so little" in gain.reason_against(Speed(part, 2 * part, 9 * part), True)
  assert not gain.compiles, "what would be lost does not count"
  assert gain.reason_against(Speed(9 * part, 2 * part, part), True) is None and gain.compiles
  assert gain.reason_against(Speed(2.0, 3.0, 1.9), True) is None, "compiled once, anything gained is gained"
  assert not Gain(9 * part).compiles


@given(tries())
def test_unique_tokens_are_those_that_are_laid_out(sequences):
  assert unique_tokens(sequences) == sum(len(row.ids) for row in pack(sequences, 10**9))


def test_a_run_of_training_is_estimated_from_its_first_batches():
  prompt, speed = list(range(300)), speed_of(TRAINING, 896)
  rows = [[[*prompt, *[i] * 100], [*prompt, *[i + 1] * 60]] for i in range(0, 64, 2)]
  per_batch = speed.seconds(64 * 400, 300 + 32 * 160)
  assert spent_in_training(speed, rows, 32, 10, True)[:3] == pytest.approx([10 * one for one in per_batch[:3]])
  alone = speed.seconds(64 * 400, 32 * 760)
  assert spent_in_training(speed, rows, 32, 10, False)[:3] == pytest.approx([10 * one for one in alone[:3]])
  spent = spent_in_training(speed, rows, 4, 10, True)
  assert spent[:3] == pytest.approx([10 * 8 / 32 * 4 * one for one in speed[3:]]), (
    "the host sets the pace of small batches"
  )


class Renderer:
  """What scoring of token ids asks of one."""

  scored_at, counts, overlong = "last_token", {}, None


@pytest.fixture
def like_a_gpu(monkeypatch):
  plain_flash.use(monkeypatch)


@pytest.mark.parametrize(
  ("spent", "shared_prefix", "expected", "compiled"),
  [
    ((99, 50, 30), None, ["packed", "packed"], 1),
    ((20, 21, 14), None, ["padded", "packed"], 1),
    ((20, 19, 12), None, ["packed", "packed"], 1),
    ((20, 21, 19), None, ["padded", "padded"], 0),
    ((20, 21, 14), True, ["packed", "packed"], 1),
    ((99, 50, 30), False, ["padded", "padded"], 0),
  ],
)
def test_scoring_on_such_a_device_asks_the_rule_unless_told(
  spent, shared_prefix, expected, compiled, like_a_gpu, monkeypatch
):
  from reward_modeling import forward, scoring

  monkeypatch.setattr(scoring, "speed_of", lambda *_: Speed(*spent, 0, 0, 0))
  monkeypatch.setattr(Speed, "seconds", lambda own, *_: own)
  calls = []
  monkeypatch.setattr(scoring, "compile_layers", calls.append)
  ways, plain = [], forward.logits_at

  def logits_at(*args, padded, **more):
    ways.append("padded" if padded else "packed")
    return plain(*args, padded=padded, **more)

  monkeypatch.setattr(forward, "logits_at", logits_at)
  model = RewardModel(build("qwen2", {}).to(torch.bfloat16), Renderer(), shared_prefix=shared_prefix)
  rows = [[*range(1, 20), 1 + i] for i in range(4)]
  found = [model.score_ids(rows) for _ in expected]
  assert ways == expected and len(calls) == compiled
  assert found[0] == pytest.approx(found[1], abs=0.1)
  told = model.way()
  assert ("padded, since" in told) == ("padded" in expected)
  assert ("computed once" in told) == ("packed" in expected)
  assert ("; later" in told) == (len(set(expected)) == 2)


def test_a_small_model_must_pass_on_the_device_before_the_rule_is_followed(like_a_gpu, monkeypatch):
  from reward_modeling import scoring

  monkeypatch.setattr(scoring, "speed_of", lambda *_: Speed(9, 8, 0))
  checked = []

  def failing(model_class, config, like):
    checked.append(like.dtype)
    return 0.0 if like.dtype == torch.float64 else 1.0

  monkeypatch.setattr(guard, "self_check", failing)
  model = RewardModel(build("qwen2", {}).to(torch.bfloat16), Renderer())
  for _ in range(2):  # a second time it would have paid to compile
    model.score_ids([[1, 2, 3]])
  assert model._gain.compiles and checked == [torch.float64, torch.float64, torch.bfloat16]
  assert "other rewards on packed rows on cpu" in model.way() and "once" not in model.way()


def test_capped_scores_are_padded_unless_told(like_a_gpu):
  """The kernel has no cap, and a call a segment would leave a GPU idle."""
  model = build("gemma2", GOOD["gemma2"])
  assert "caps attention scores" in guard.reason_against(model)
  assert guard.reason_against(model, True) is None
  model.config.attn_logit_softcapping = None
  assert guard.reason_against(model) is None


@pytest.mark.parametrize("name", ["qwen2", "mixtral"])
def test_layers_with_experts_are_not_compiled(name):
  from reward_modeling.gpu_speed import compile_layers, restore_layers

  model = build(name, GOOD[name])
  with torch._dynamo.config.patch(suppress_errors=False, recompile_limit=8):
    compile_layers(model)
  compiled = [layer for layer in model.model.layers if layer._compiled_call_impl]
  assert len(compiled) == (len(model.model.layers) if name == "qwen2" else 0)
  restore_layers(model)
  assert not any(layer._compiled_call_impl for layer in model.model.layers)


@pytest.mark.parametrize("device", ["mps", "meta"])
def test_other_devices_are_padded(device, monkeypatch):
  model = build("qwen2", {})
  monkeypatch.setattr(type(next(model.parameters())), "device", torch.device(device), raising=False)
  assert "does not run on this device" in guard.reason_against(model)


def test_the_sizes_are_those_of_the_models_measured():
  assert list(SCORING) == sorted(SCORING) and list(TRAINING) == sorted(TRAINING)
  assert build("gpt2", {}).config.get_text_config().hidden_size == 64


@pytest.mark.parametrize("shared_prefix", [None, "false"])
def test_scripts_say_how_rows_were_computed(shared_prefix, toy_model, toy_file):
  from conftest import run_main

  folder, trained = toy_model
  assert trained["training"]["batches"] == "packed"
  flags = ["--shared_prefix", shared_prefix] if shared_prefix else []
  done = run_main("score.py", "--model_name_or_path", folder, "--input", toy_file, *flags)
  expected = (
    "batches are padded, since --shared_prefix false asks for it" if flags else "shared prefixes are computed once"
  )
  assert done.json["batches"] == expected


def test_with_attention_dropout_rows_are_padded(tiny, toy_file, tmp_path):
  """A probability of attention that is dropped is another one for each row."""
  import json
  import shutil

  from conftest import run_main

  base = shutil.copytree(tiny("qwen2"), tmp_path / "base")
  config = json.loads((base / "config.json").read_text())
  (base / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.1}))
  run = ("--model_name_or_path", base, "--dataset_name", toy_file, "--max_steps", "1", "--save_strategy", "no")
  for dropped, batches in (("false", "padded, since attention dropout is on"), ("true", "packed")):
    done = run_main("train.py", *run, "--output_dir", tmp_path / dropped, "--disable_dropout", dropped)
    assert done.returncode == 0, done.stderr
    assert done.json["training"]["batches"] == batches
