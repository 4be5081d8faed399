"""The rule for packed rows on a GPU: what an H200 measured, read from its tables, and how a run applies it."""

import random

import pytest
import torch
from hypothesis import given

from architectures import build
from reward_modeling import attention, guard
from reward_modeling.gpu_speed import COMPILING, SCORING, TRAINING, Gain, saved_in_training, seconds_saved
from reward_modeling.packing import pack, unique_tokens
from reward_modeling.scoring import RewardModel
from tries import tries

SCORED = {
  ("0.5B", "HH pairs"): (896, 343_000, 215_000, 1.22),
  ("0.5B", "single turns"): (896, 237_000, 221_000, 0.87),
  ("0.5B", "best of 16, 300"): (896, 307_000, 91_000, 2.34),
  ("0.5B", "best of 16, 1000"): (896, 423_000, 63_000, 4.67),
  ("8B", "HH pairs"): (4096, 27_000, 17_000, 1.83),
  ("8B", "best of 16, 1000"): (4096, 18_000, 2_600, 6.5),
}
"""Hidden size, tokens, unique ones, and how many times as fast packed rows were as the best padded batches."""
TRAINED = {
  "HH, 8 pairs": (8, (100, 400), (20, 150), 0.358, 0.492),
  "HH, 32 pairs": (32, (100, 400), (20, 150), 1.270, 0.619),
  "single turns, 32 pairs": (32, (15, 45), (50, 350), 0.908, 0.670),
}
"""Pairs a batch, lengths of prompts and answers, and seconds of four batches of 0.5B, padded and packed."""


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
def test_scoring_is_chosen_as_it_was_measured(work):
  hidden, tokens, unique, faster = SCORED[work]
  saved = seconds_saved(SCORING, hidden, tokens, unique)
  assert (saved > 0) == (faster > 1)
  padded = seconds_saved(SCORING, hidden, tokens, 0)
  assert padded / (padded - saved) == pytest.approx(faster, rel=0.2)


@pytest.mark.parametrize("work", TRAINED)
def test_training_is_chosen_as_it_was_measured(work):
  pairs, prompt, completion, slow, fast = TRAINED[work]
  saved = saved_in_training(896, drawn(pairs, prompt, completion), pairs, 4, True)
  assert (saved > 0) == (fast < slow)
  assert saved == pytest.approx(slow - fast, abs=0.1 * slow)


def test_what_was_not_measured_is_padded():
  assert seconds_saved(SCORING, 895, 10**9, 1) is None
  assert "so small" in Gain().reason_against(None, True)
  assert "float32" in Gain().reason_against(1e9, False)
  assert seconds_saved(SCORING, 2048, 343_000, 215_000) == seconds_saved(SCORING, 896, 343_000, 215_000)


def test_kernels_are_compiled_when_they_would_have_paid():
  gain = Gain()
  assert "compil" in gain.reason_against(COMPILING * 0.6, True)
  assert "so little" in gain.reason_against(-COMPILING, True), "what is lost elsewhere does not count"
  assert gain.reason_against(COMPILING * 0.6, True) is None
  assert gain.reason_against(1e-9, True) is None, "compiled once, anything gained is gained"
  assert "so little" in gain.reason_against(-1e-9, True)


@given(tries())
def test_unique_tokens_are_those_that_are_laid_out(sequences):
  assert unique_tokens(sequences) == sum(len(row.ids) for row in pack(sequences, 10**9))


def test_a_run_of_training_is_estimated_from_its_first_batches():
  prompt = list(range(300))
  rows = [[[*prompt, *[i] * 100], [*prompt, *[i + 1] * 60]] for i in range(0, 64, 2)]
  per_batch = seconds_saved(TRAINING, 896, 64 * 400, 300 + 32 * 160)
  assert saved_in_training(896, rows, 32, 10, True) == pytest.approx(10 * per_batch)
  alone = seconds_saved(TRAINING, 896, 64 * 400, 32 * 760)
  assert saved_in_training(896, rows, 32, 10, False) == pytest.approx(10 * alone)
  assert saved_in_training(896, rows, 4, 10, True) < 0, "the host sets the pace of small batches"


class Renderer:
  """What scoring of token ids asks of one."""

  scored_at, counts, overlong = "last_token", {}, None


@pytest.fixture
def blocks_on_cpu(monkeypatch):
  monkeypatch.setattr(attention, "BLOCK_DEVICES", ("cpu",))


@pytest.mark.parametrize(
  ("saved", "shared_prefix", "expected"),
  [
    (2 * COMPILING, None, ["packed", "packed"]),
    (0.6 * COMPILING, None, ["padded", "packed"]),
    (-1.0, None, ["padded", "padded"]),
    (-1.0, True, ["packed", "packed"]),
    (2 * COMPILING, False, ["padded", "padded"]),
  ],
)
def test_scoring_on_such_a_device_asks_the_rule_unless_told(saved, shared_prefix, expected, blocks_on_cpu, monkeypatch):
  from reward_modeling import forward, scoring

  monkeypatch.setattr(scoring, "seconds_saved", lambda *_: saved)
  ways, plain = [], forward.logits_at

  def logits_at(*args, padded, **more):
    ways.append("padded" if padded else "packed")
    return plain(*args, padded=padded, **more)

  monkeypatch.setattr(forward, "logits_at", logits_at)
  model = RewardModel(build("qwen2", {}).to(torch.bfloat16), Renderer(), shared_prefix=shared_prefix)
  rows = [[*range(1, 20), 1 + i] for i in range(4)]
  found = [model.score_ids(rows) for _ in expected]
  assert ways == expected
  assert found[0] == pytest.approx(found[1], abs=0.1)
  told = model.way()
  assert ("padded, since" in told) == ("padded" in expected)
  assert ("computed once" in told) == ("packed" in expected)
  assert ("; later" in told) == (len(set(expected)) == 2)


def test_a_small_model_must_pass_on_the_device_before_the_rule_is_followed(blocks_on_cpu, monkeypatch):
  from reward_modeling import scoring

  monkeypatch.setattr(scoring, "seconds_saved", lambda *_: 1e9)
  checked = []

  def failing(model_class, config, like):
    checked.append(like.dtype)
    return 0.0 if like.dtype == torch.float64 else 1.0

  monkeypatch.setattr(guard, "self_check", failing)
  model = RewardModel(build("qwen2", {}).to(torch.bfloat16), Renderer())
  model.score_ids([[1, 2, 3]])
  assert checked == [torch.float64, torch.float64, torch.bfloat16]
  assert "other rewards on packed rows on cpu" in model.way()


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
