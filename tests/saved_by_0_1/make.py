"""Two small reward models as version 0.1 saves them, and what they score: the folders `outcome` and `process` beside this file.

    PYTHONPATH=scripts:tests uv run python tests/saved_by_0_1/make.py

Run once, at commit 2a636a4, with transformers 5.23.0 and torch 2.15.0. Later versions must load these folders and give the
same scores (tests/reward_modeling/test_saved_before.py), so running it again with later code would prove nothing.
"""

import json
import shutil
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from conftest import tiny_config, tiny_tokenizer
from reward_modeling import ProcessRewardModel, RewardModel, checkpoints
from reward_modeling.rendering import Renderer
from reward_modeling.step_rendering import StepRenderer, default_separator
from reward_modeling.tokenizer_setup import prepare_tokenizer

HERE = Path(__file__).parent
PROMPTS = ["How many apples are there?", "What is the capital of France? " * 4, ""]
COMPLETIONS = [["There are twelve apples.", "no"], ["It is Paris.", "one two three three four"], ["hello world"]]
STEPS = [["one plus two is three", "three plus three is six"], ["twelve red apples", "no", "maybe yes"], ["sorry"]]
REWARD = {"mean": 0.25, "std": 1.5, "n": 10}


def made(family, labels, auto_class):
  tokenizer = tiny_tokenizer(family)
  prepare_tokenizer(tokenizer)
  config = tiny_config(family, len(tokenizer))
  config.num_labels = labels
  torch.manual_seed(0)
  return tokenizer, auto_class.from_config(config).eval()


def outcome():
  tokenizer, model = made("qwen2", 1, AutoModelForSequenceClassification)
  renderer = Renderer(tokenizer, max_length=64, scored_at=checkpoints.scored_at(model))
  checkpoints.save(model, renderer, HERE / "outcome", training={"steps": 0}, reward=REWARD)
  loaded = RewardModel.from_pretrained(str(HERE / "outcome"))
  return {"fingerprint": loaded.renderer.fingerprint, "scores": loaded.score(PROMPTS, COMPLETIONS)}


def process():
  tokenizer, model = made("bert", 2, AutoModelForTokenClassification)
  renderer = StepRenderer(
    tokenizer,
    max_length=64,
    scored_at=checkpoints.scored_at(model),
    step_separator=default_separator(tokenizer),
  )
  checkpoints.save(model, renderer, HERE / "process", training={"steps": 0}, reward=REWARD)
  loaded = ProcessRewardModel.from_pretrained(str(HERE / "process"))
  return {"fingerprint": loaded.renderer.fingerprint, "scores": loaded.score_steps(PROMPTS, STEPS)}


if __name__ == "__main__":
  for folder in ("outcome", "process"):
    shutil.rmtree(HERE / folder, ignore_errors=True)
  text = json.dumps({"outcome": outcome(), "process": process()}, indent=2)
  (HERE / "scores.json").write_text(text + "\n", encoding="utf-8")
