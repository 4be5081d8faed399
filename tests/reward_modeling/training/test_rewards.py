"""The reward that reinforcement learning maximises: it is score.py's, whatever the models and however combined."""

from __future__ import annotations

import math
import shutil

import pytest
from folders import as_saved
from hypothesis import given
from hypothesis import strategies as st

from conftest import run_main, save_tiny, write_jsonl
from reward_modeling.ensemble import COMBINATIONS, Rewards, unique_names
from reward_modeling.errors import ModelError, RunError, UsageError

PROMPTS = [[{"role": "user", "content": text}] for text in ("hello red", "hello one two", "hello world")]
ANSWERS = [[{"role": "assistant", "content": text}] for text in ("thank you three", "no blue", "")]


@pytest.fixture(scope="module")
def models(toy_model, tmp_path_factory):
  """Two reward models whose folders are both called model: the toy one, and the same with its head turned round."""
  import torch
  from safetensors.torch import load_file, save_file

  first = toy_model[0]
  second = tmp_path_factory.mktemp("second") / "model"
  shutil.copytree(first, second, ignore=shutil.ignore_patterns("checkpoint-*"))
  weights = load_file(second / "model.safetensors")
  weights["score.weight"] = -2 * weights["score.weight"] + 0.1 * torch.ones_like(weights["score.weight"])
  save_file(weights, second / "model.safetensors", metadata={"format": "pt"})
  return [str(first), str(as_saved(second))]


def test_equal_to_score_py(models, tmp_path):
  """Catches another rendering, another scored position, train mode."""
  rows = [{"prompt": p, "completion": c[0]["content"]} for p, c in zip(PROMPTS, ANSWERS, strict=True)]
  file = write_jsonl(tmp_path / "rows.jsonl", rows)
  printed = [
    row["reward"] for row in run_main("score.py", "--model_name_or_path", models[0], "--input", file).json["rows"]
  ]
  rewards = Rewards.from_pretrained(models[0])
  next(iter(rewards.models.values())).model.train()  # as a trainer leaves a module that it was handed
  assert rewards(PROMPTS, ANSWERS) == pytest.approx(printed, abs=1e-5)


def test_score_py_combines_as_ppo_does(models, tmp_path):
  rows = [{"prompt": p, "completions": [c[0]["content"] for c in ANSWERS]} for p in PROMPTS]
  file = write_jsonl(tmp_path / "rows.jsonl", rows)
  flags = ["--reward_model_path", *models, "--reward_weights", "0.7", "-0.3", "--input", file]
  plain, best = run_main("score.py", *flags).json, run_main("score.py", *flags, "--best_of", "3").json
  prompts, answers = [p for p in PROMPTS for _ in ANSWERS], ANSWERS * len(PROMPTS)
  expected = Rewards.from_pretrained(models, weights=[0.7, -0.3])(prompts, answers)
  assert [reward for row in plain["rows"] for reward in row["rewards"]] == pytest.approx(expected, abs=1e-5)
  assert [row["reward"] for row in best["rows"]] == [max(row["rewards"]) for row in plain["rows"]]
  assert plain["reward_weights"] == [0.7, -0.3] and len(plain["reward_models"]) == 2
  scaled = run_main("score.py", *flags, "--normalize").json["rows"]
  expected = Rewards.from_pretrained(models, weights=[0.7, -0.3], normalize=True)(prompts, answers)
  assert [reward for row in scaled for reward in row["rewards"]] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    (["--model_name_or_path", "{0}", "--reward_model_path", "{1}"], "give one of them"),
    (["--model_name_or_path", "{0}", "--reward_combine", "min"], "are for several models"),
    (["--reward_model_path", "{0}", "{0}"], "given twice"),
    (["--reward_model_path", "{0}", "{1}", "--reward_weights", "1"], "1 reward weights for 2"),
    ([], "--model_name_or_path is required"),
  ],
)
def test_score_py_says_which_models_it_takes(models, flags, said):
  asked = [flag.format(*models) for flag in flags]
  done = run_main("score.py", *asked, "--prompt", "hello", "--completions", "red")
  assert done.returncode == 2 and said in done.stderr


def test_combinations_of_two_models(models):
  one, two = (Rewards.from_pretrained(path)(PROMPTS, ANSWERS) for path in models)
  together = {name: Rewards.from_pretrained(models, combine=name)(PROMPTS, ANSWERS) for name in COMBINATIONS}
  assert together["sum"] == pytest.approx([a + b for a, b in zip(one, two, strict=True)])
  assert together["mean"] == pytest.approx([(a + b) / 2 for a, b in zip(one, two, strict=True)])
  assert together["min"] == [min(pair) for pair in zip(one, two, strict=True)]
  assert together["mean_minus_std"] == pytest.approx(
    [(a + b) / 2 - abs(a - b) / 2 for a, b in zip(one, two, strict=True)]
  )
  weighted = Rewards.from_pretrained(models, weights=[0.7, -0.3])
  assert weighted(PROMPTS, ANSWERS) == pytest.approx([0.7 * a - 0.3 * b for a, b in zip(one, two, strict=True)])
  assert list(weighted.parts) == weighted.names
  assert list(weighted.parts.values()) == pytest.approx([sum(one) / 3, sum(two) / 3])
  assert len(set(weighted.names)) == 2
  assert all(name.endswith("/model") for name in weighted.names)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=5), st.floats(-3, 3))
def test_combinations_move_with_the_rewards_and_bound_each_other(values, shift):
  """A shift of every member shifts the ensemble (sum: by as many); the cautious ones never exceed the mean."""
  ones = [1.0] * len(values)
  for name, entry in COMBINATIONS.items():
    moved = entry.combine([value + shift for value in values], ones) - entry.combine(values, ones)
    assert moved == pytest.approx(shift * (len(values) if name == "sum" else 1), abs=1e-9)
  mean = COMBINATIONS["mean"].combine(values, ones)
  for name in ("min", "mean_minus_std"):
    assert COMBINATIONS[name].combine(values, ones) <= mean + 1e-9
  assert COMBINATIONS["mean_minus_std"].combine(values[:1], ones[:1]) == values[0]


def test_normalised_rewards_use_the_saved_mean_and_std(models, toy_model):
  import json

  card = json.loads((toy_model[0] / "reward_model.json").read_text())["reward"]
  raw = Rewards.from_pretrained(models[0])(PROMPTS, ANSWERS)
  normalised = Rewards.from_pretrained(models[0], normalize=True)(PROMPTS, ANSWERS)
  assert normalised == pytest.approx([(value - card["mean"]) / card["std"] for value in raw])


def test_a_long_answer_keeps_a_reward_and_is_counted(models):
  """`truncate_prompt` would score None, and a missing reward is silently skipped by TRL's trainers."""
  rewards = Rewards.from_pretrained(models[0], max_length=40)
  long = [{"role": "assistant", "content": "apples " * 40}]
  values = rewards([PROMPTS[0], PROMPTS[0]], [long, ANSWERS[0]])
  assert all(math.isfinite(value) for value in values)
  assert rewards.truncated == 1
  dropping = Rewards.from_pretrained(models[0], max_length=40, overlong="drop")
  with pytest.raises(RunError, match="left out completion 1: it cannot be rendered, or is longer than 40 tokens"):
    dropping([PROMPTS[0]], [long])


def test_a_reward_that_is_no_number_names_model_and_completion(models):
  import torch

  rewards = Rewards.from_pretrained(models[0])
  with torch.no_grad():
    next(iter(rewards.models.values())).model.score.weight.fill_(math.nan)
  with pytest.raises(RunError) as caught:
    rewards(PROMPTS, ANSWERS)
  assert caught.value.message == (
    "reward model model: the model gave 3 rewards that are not finite numbers, the first for completion 1"
  )


def test_an_encoder_and_a_decoder_together(models, tiny, tmp_path):
  """Each renders the conversation by its own contract: nothing is shared but the messages."""
  encoder = str(save_tiny("bert", tmp_path / "encoder", head=1))
  alone = Rewards.from_pretrained(encoder)(PROMPTS, ANSWERS)
  both = Rewards.from_pretrained([models[0], encoder])(PROMPTS, ANSWERS)
  first = Rewards.from_pretrained(models[0])(PROMPTS, ANSWERS)
  assert both == pytest.approx([a + b for a, b in zip(first, alone, strict=True)], abs=1e-6)


def test_wrong_kinds_are_refused_before_any_weights_are_read(models, tiny, tmp_path):
  import json

  two_labels = save_tiny("qwen2", tmp_path / "two", head=2)
  process = save_tiny("qwen2", tmp_path / "process", head=2)
  config = json.loads((process / "config.json").read_text())
  (process / "config.json").write_text(json.dumps({**config, "architectures": ["Qwen2ForTokenClassification"]}))
  for path, message in (
    (tiny("qwen2"), "is not a reward model"),
    (two_labels, "has 2 labels"),
    (process, "is a process reward model"),
  ):
    with pytest.raises(ModelError, match=message):
      Rewards.from_pretrained([models[0], str(path)])
  foreign = str(save_tiny("qwen2", tmp_path / "foreign", head=1))
  with pytest.raises(ModelError, match="reward model foreign: the model's card has no reward mean and std"):
    Rewards.from_pretrained(foreign, normalize=True)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"weights": [1.0]}, "1 reward weights for 2 reward models"),
    ({"weights": [1.0, 2.0], "combine": "min"}, "--reward_combine min takes no weights"),
    ({"weights": [1.0, -1.0], "combine": "mean"}, "weights of a mean add up to more than 0"),
    ({"combine": "median"}, "no combination 'median'"),
  ],
)
def test_weights_that_do_not_fit(models, options, message):
  with pytest.raises(UsageError, match=message):
    Rewards.from_pretrained(models, **options)


def test_names():
  assert unique_names(["runs/a", "runs/b"]) == ["a", "b"]
  assert unique_names(["x/a/rm", "x/b/rm", "other"]) == ["a/rm", "b/rm", "other"]
  with pytest.raises(UsageError, match="the reward model runs/a/ is given twice"):
    unique_names(["runs/a", "runs/b", "runs/a/"])


def test_spreads_far_apart_are_warned_of_once(models, capfd, tmp_path):
  from safetensors.torch import load_file, save_file

  wide = tmp_path / "wide"
  shutil.copytree(models[1], wide)
  weights = load_file(wide / "model.safetensors")
  weights["score.weight"] *= 100
  save_file(weights, wide / "model.safetensors", metadata={"format": "pt"})
  as_saved(wide)
  for second, warnings in ((wide, 1), (models[1], 0)):
    rewards = Rewards.from_pretrained([models[0], str(second)], weights=[0.7, 0.3])
    rewards(PROMPTS, ANSWERS)
    rewards(PROMPTS, ANSWERS)
    assert " ".join(capfd.readouterr().err.split()).count("the widest decides") == warnings


def test_an_ensemble_with_shifted_zeros_is_warned_of(models, capfd, tmp_path):
  import json

  shifted = tmp_path / "shifted"
  shutil.copytree(models[1], shifted)
  card = json.loads((shifted / "reward_model.json").read_text())
  card["reward"]["mean"] += 10 * card["reward"]["std"]
  (shifted / "reward_model.json").write_text(json.dumps(card))
  Rewards.from_pretrained([models[0], str(shifted)], combine="min")
  assert "their zeros differ" in " ".join(capfd.readouterr().err.split())
