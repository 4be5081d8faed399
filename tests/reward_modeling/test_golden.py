"""A model with our card gives the scores that it gave when it was saved, or is refused; so is a card that cannot be."""

import json

import pytest
import torch
from folders import copied, edited, reweighted

from conftest import process_model
from reward_modeling import ProcessRewardModel, RewardModel, checkpoints
from reward_modeling.errors import ModelError
from reward_modeling.rendering import Renderer

REWARD = {"mean": 0.5, "std": 2.0, "n": 2}


@pytest.fixture(scope="module")
def saved(tiny, toy_process_model, tmp_path_factory):
  """{"outcome": folder, "process": folder} of models with our card."""
  loaded = checkpoints.load_for_training(str(tiny("qwen2")))
  folder = tmp_path_factory.mktemp("saved") / "rm"
  checkpoints.save(loaded.model.eval(), Renderer(loaded.tokenizer, max_length=64), folder, training={}, reward=REWARD)
  return {"outcome": folder, "process": toy_process_model}


READ = {"outcome": RewardModel.from_pretrained, "process": ProcessRewardModel.from_pretrained}


def scaled(name, factor):
  return lambda weights: {key: value * (factor if key == name else 1) for key, value in weights.items()}


CHANGES = {
  "a scaled head": lambda folder: reweighted(folder, scaled("score.weight", 1.05)),
  "a scaled layer": lambda folder: reweighted(folder, scaled("model.layers.1.mlp.up_proj.weight", 1.5)),
  "a head of the other sign": lambda folder: reweighted(folder, scaled("score.weight", -1)),
  "a head of NaN": lambda folder: reweighted(folder, scaled("score.weight", float("nan"))),
  "rounded weights": lambda folder: reweighted(folder, lambda w: {k: v.round() for k, v in w.items()}),
  "another rotation": lambda folder: edited(
    folder / "config.json", rope_parameters={"rope_theta": 50.0, "rope_type": "default"}
  ),
  "another activation": lambda folder: edited(folder / "config.json", hidden_act="relu"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", READ)
def test_a_model_that_no_longer_scores_as_when_it_was_saved(kind, change, saved, tmp_path):
  copied(saved[kind], tmp_path / "m")
  CHANGES[change](tmp_path / "m")
  with pytest.raises(ModelError, match="does not score as when it was saved: golden scores differ by") as caught:
    READ[kind](str(tmp_path / "m"))
  assert caught.value.where == f"{tmp_path / 'm'}/reward_model.json"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", READ)
def test_less_precision_is_no_change(kind, dtype, saved, tmp_path):
  READ[kind](str(saved[kind]), dtype=dtype)
  copied(saved[kind], tmp_path / "m")
  reweighted(tmp_path / "m", lambda weights: {key: value.to(getattr(torch, dtype)) for key, value in weights.items()})
  READ[kind](str(tmp_path / "m"))


@pytest.mark.parametrize("family", ["llama", "gemma2", "bert", "modernbert"])
def test_every_family_gives_its_golden_scores_again(family, tiny, tmp_path):
  loaded = checkpoints.load_for_training(str(tiny(family)))
  renderer = Renderer(loaded.tokenizer, max_length=64, scored_at=checkpoints.scored_at(loaded.model))
  checkpoints.save(loaded.model.eval(), renderer, tmp_path / "rm", training={}, reward=REWARD)
  assert checkpoints.load(str(tmp_path / "rm")).card["reward"] == REWARD
  made = process_model(family, max_length=64)
  checkpoints.save(made.model, made.renderer, tmp_path / "prm", training={}, reward=REWARD)
  assert checkpoints.load(str(tmp_path / "prm"), kind=checkpoints.PROCESS).card["reward"] == REWARD


def reward(**values):
  return {"reward": {**REWARD, **values}}


def card_of(folder):
  return json.loads((folder / "reward_model.json").read_text())


BAD = {
  "std NaN": reward(std=float("nan")),
  "std -1": reward(std=-1.0),
  "std infinite": reward(std=float("inf")),
  "std text": reward(std="2"),
  "std null": reward(std=None),
  "std of 400 digits": reward(std=10**400),
  "mean NaN": reward(mean=float("nan")),
  "mean a list": reward(mean=[1.0]),
  "n negative": reward(n=-2),
  "no mean": {"reward": {"std": 1.0}},
  "reward a list": {"reward": [0.5, 2.0]},
  "no reward": {"reward": None},
  "another kind": {"kind": "process"},
  "kind a list": {"kind": []},
  "rendering a list": {"rendering": []},
  "no fingerprint": {"fingerprint": None},
  "fingerprint a number": {"fingerprint": 5},
  "max_length text": {"rendering": {"max_length": "64"}},
  "max_length 0": {"rendering": {"max_length": 0}},
  "golden missing": {"golden": None},
  "golden empty": {"golden": []},
  "golden numbers": {"golden": [1, 2, 3, 4]},
  "golden of other texts": {"golden": [{"messages": [], "score": 0.0}] * 4},
}


@pytest.mark.parametrize("bad", BAD)
def test_a_card_that_cannot_be(bad, saved, tmp_path):
  folder = tmp_path / "m"
  copied(saved["outcome"], folder)
  (folder / "reward_model.json").write_text(json.dumps({**card_of(folder), **BAD[bad]}))
  with pytest.raises(ModelError, match="the model's card is not valid") as caught:
    checkpoints.load(str(folder))
  assert caught.value.where == str(folder / "reward_model.json")


@pytest.mark.parametrize("score", [None, "1", [1.0], float("nan"), 10**400, True])
def test_a_golden_score_that_is_not_a_number(score, saved, tmp_path):
  folder = tmp_path / "m"
  copied(saved["outcome"], folder)
  card = card_of(folder)
  card["golden"][2]["score"] = score
  (folder / "reward_model.json").write_text(json.dumps(card))
  with pytest.raises(ModelError, match="a golden score is not a finite number"):
    checkpoints.load(str(folder))


@pytest.mark.parametrize("content", ["[" * 100_000, '"text"', '{"kind": 1' + "0" * 5000 + "}", "", "\x00"])
def test_a_card_that_is_not_an_object(content, saved, tmp_path):
  folder = tmp_path / "m"
  copied(saved["outcome"], folder)
  (folder / "reward_model.json").write_text(content)
  with pytest.raises(ModelError, match=r"reward_model\.json is not (valid JSON|a JSON object)"):
    checkpoints.load(str(folder))


def test_a_spread_of_0_is_refused_when_it_is_divided_by(saved, tmp_path):
  from reward_modeling.errors import RunError

  folder = tmp_path / "m"
  copied(saved["outcome"], folder)
  (folder / "reward_model.json").write_text(json.dumps({**card_of(folder), **reward(std=0)}))
  model = RewardModel.from_pretrained(str(folder))
  with pytest.raises(RunError, match="no reward mean and std"):
    model.normalize([1.0])
