"""Real weights and real human preferences, in small: the whole run is `benchmarks/real_preferences.py`."""

import json

import pytest
import torch

import warm_process
from conftest import REPOSITORY

PAIRS = 48


@pytest.fixture(scope="module")
def run(shared_data, minilm, tmp_path_factory):
  """(model folder, results) of the benchmark on the first PAIRS of each set."""
  out = tmp_path_factory.mktemp("real") / "model"
  command = ["python", str(REPOSITORY / "benchmarks" / "real_preferences.py"), "--data", str(shared_data)]
  done = warm_process.shared().run([*command, "--pairs", str(PAIRS), "--output_dir", str(out)])
  assert done.returncode == 0, done.stderr
  return out, json.loads(done.stdout)


@pytest.mark.real
def test_every_set_is_judged_beside_its_baselines(run):
  _, results = run
  assert len(results) == 4
  for name in ("preference/hh_helpful.valid.jsonl.gz", "eval/llmbar.jsonl.gz", "eval/pandalm_3annotators.jsonl.gz"):
    judged = results[name]
    assert judged["pairs"] == PAIRS and 0.25 < judged["accuracy"]["value"] < 0.75
    assert judged["accuracy"]["low"] < judged["accuracy"]["value"] < judged["accuracy"]["high"]
    assert judged["length_baseline"] >= 0.5 and 0 < judged["bag_of_words"] < 1


@pytest.mark.real
def test_the_trained_encoder_scores_alike_in_every_tool(run, shared_data):
  from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

  from reward_modeling import RewardModel
  from reward_modeling.data.reading import load
  from reward_modeling.data.records import comparisons

  folder = str(run[0])
  pairs = comparisons(load([str(shared_data / "preference" / "hh_helpful.valid.jsonl.gz")]))
  pairs = [pair for pair in pairs if sum(len(m["content"]) for m in pair.prompt + pair.chosen) < 500][:20]
  ours = RewardModel.from_pretrained(folder).score([p.prompt for p in pairs], [p.chosen for p in pairs])
  model, tokenizer = (
    AutoModelForSequenceClassification.from_pretrained(folder).eval(),
    AutoTokenizer.from_pretrained(folder),
  )
  pipe = pipeline("text-classification", model=folder)
  for pair, score in zip(pairs, ours, strict=True):
    text = tokenizer.apply_chat_template(pair.prompt + pair.chosen, tokenize=False)
    with torch.no_grad():
      plain = model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits[0, 0].item()
    assert score == pytest.approx(plain, abs=1e-5)
    assert pipe(text, add_special_tokens=False)[0]["score"] == pytest.approx(plain, abs=1e-5)
