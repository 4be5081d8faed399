"""Models that version 0.1 saved (tests/saved_by_0_1) keep their rendering and their scores."""

import importlib.util
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "saved_by_0_1"
SAVED = json.loads((FOLDER / "scores.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def inputs():
  spec = importlib.util.spec_from_file_location("saved_by_0_1_make", FOLDER / "make.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def flat(rows):
  return [value for row in rows for value in row]


@pytest.mark.parametrize("kind", ["outcome", "process"])
def test_same_fingerprint_and_scores(kind, inputs):
  from reward_modeling import ProcessRewardModel, RewardModel

  if kind == "outcome":
    model = RewardModel.from_pretrained(str(FOLDER / kind))
    scores = model.score(inputs.PROMPTS, inputs.COMPLETIONS)
  else:
    model = ProcessRewardModel.from_pretrained(str(FOLDER / kind))
    scores = model.score_steps(inputs.PROMPTS, inputs.STEPS)
  assert model.renderer.fingerprint == SAVED[kind]["fingerprint"]
  assert flat(scores) == pytest.approx(flat(SAVED[kind]["scores"]), abs=1e-5)
