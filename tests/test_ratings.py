"""Ratings and attributes through the scripts: trained, saved, scored, weighed and evaluated."""

import json
import math
from itertools import pairwise

import attribute_world
import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from scipy import stats

from conftest import run_main, user, write_jsonl
from reward_modeling import RewardModel, checkpoints
from reward_modeling.attributes import of_card
from reward_modeling.ensemble import Rewards
from reward_modeling.errors import DataError
from reward_modeling.evaluation.ratings import AttributeSummary, RatingSummary
from reward_modeling.golden import read_card
from reward_modeling.results import to_json

FLAGS = ("--learning_rate", "3e-3", "--max_steps", "40", "--per_device_train_batch_size", "16", "--save_strategy", "no")
WORDS = ["apples", "basket", "red", "blue", "green", "one", "two", "three", "four", "five", "six", "world"]
POLITE = {"no": 0.0, "maybe": 2.0, "thank you": 4.0}


def rated_rows(prompts: int, seed: int, answers: int = 2, missing: bool = True) -> list[dict]:
  """`polite`: 0, 2 or 4 by the first words; `long`: the number of the others, missing in every third answer."""
  import random

  rng, made = random.Random(seed), []
  for _ in range(prompts):
    prompt = "hello " + " ".join(rng.choice(WORDS) for _ in range(4))
    for opening in rng.sample(list(POLITE), answers):
      body = [rng.choice(WORDS) for _ in range(rng.randint(1, 5))]
      long = None if missing and len(made) % 3 == 0 else len(body)
      ratings = {"polite": POLITE[opening], "long": long}
      made.append({"prompt": prompt, "completion": " ".join([opening, *body]), "ratings": ratings})
  return made


def train(base, data, out, *flags):
  done = run_main("train.py", "--model_name_or_path", base, "--dataset_name", data, "--output_dir", out, *FLAGS, *flags)
  assert done.returncode == 0, done.stderr
  return done.json


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  folder = tmp_path_factory.mktemp("ratings")
  return write_jsonl(folder / "train.jsonl", rated_rows(100, 0)), write_jsonl(folder / "test.jsonl", rated_rows(40, 1))


@pytest.fixture(scope="module")
def rated_model(tiny, files, tmp_path_factory):
  """A model with the heads polite and long, by regression: (folder, the script's JSON)."""
  out = tmp_path_factory.mktemp("rated") / "model"
  weights = ("--attribute_weights", "polite=0.65", "long=-0.4")
  flags = ("--objective", "regression", "--eval_dataset_name", files[1], "--eval_strategy", "no")
  return out, train(tiny("qwen2"), files[0], out, *flags, *weights)


def test_two_attributes_are_learned_and_saved(rated_model):
  out, said = rated_model
  assert said["attribute_weights"] == {"polite": 0.65, "long": -0.4}
  assert said["counts"] == {
    **{"answers": 200, "dropped_over_length": 0, "truncated": 0, "answers_used": 200, "answers_held_out": 80},
  }
  found = said["evaluation"]["attributes"]
  assert found["polite"]["pearson"]["low"] > 0.9 and found["polite"]["n"] == 80
  assert found["long"]["pearson"]["value"] > 0.6 and found["long"]["n"] == sum(i % 3 > 0 for i in range(80))
  config = json.loads((out / "config.json").read_text())
  assert config["id2label"] == {"0": "polite", "1": "long"} and config["problem_type"] == "regression"
  polite, long = of_card(read_card(str(out)))
  values = [row["ratings"]["long"] for row in rated_rows(100, 0) if row["ratings"]["long"] is not None]
  assert (long.mean, long.std) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values)))
  assert [polite.weight, long.weight] == [0.65, -0.4]


def test_scores_are_those_of_the_pipeline_in_units_of_the_ratings(rated_model, files, tmp_path):
  """The reference is transformers' own pipeline, one text at a time."""
  from transformers import pipeline

  out, _ = rated_model
  done = run_main("score.py", "--model_name_or_path", out, "--input", files[1], "--output", tmp_path / "scored.jsonl")
  assert done.returncode == 0, done.stderr
  scored = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
  pipe, heads = pipeline("text-classification", model=str(out)), of_card(read_card(str(out)))
  for row, given in zip(scored[:6], rated_rows(40, 1), strict=False):
    text = pipe.tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)
    logits = {one["label"]: one["score"] for one in pipe(text, top_k=None, add_special_tokens=False)}
    expected = {head.name: head.mean + head.std * logits[head.name] for head in heads}
    assert row["attributes"] == pytest.approx(expected, abs=1e-5)
    assert row["reward"] == pytest.approx(0.65 * expected["polite"] - 0.4 * expected["long"], abs=1e-5)
    assert row["ratings"] == given["ratings"], "the labels come back"


def test_weights_at_use_are_the_same_in_every_script(rated_model, files, tmp_path):
  out, _ = rated_model
  prompts, answers = (
    [[user("hello red")]] * 2,
    [[{"role": "assistant", "content": c}] for c in ("no red", "thank you")],
  )
  model = RewardModel.from_pretrained(str(out))
  values = model.score_attributes(_asked(prompts, answers))
  expected = [2.0 * own[2] for own in values]
  rewards = Rewards.from_pretrained(str(out), attribute_weights={"long": 2.0})  # as PPO and GRPO call it
  assert rewards(prompts, answers) == pytest.approx(expected, abs=1e-5)
  done = run_main(
    *("score.py", "--model_name_or_path", out, "--prompt", "hello red", "--completions", "no red", "thank you"),
    *("--attribute_weights", "long=2"),
  )
  assert done.json["rows"][0]["rewards"] == pytest.approx(expected, abs=1e-5)
  done = run_main(
    *("score.py", "--model_name_or_path", out, "--prompt", "hello red", "--rank"),
    *("--completions", "no one two three", "thank you", "--attribute_weights", "polite=1,long=0"),
  )
  assert done.json["rows"][0]["order"] == [1, 0]
  done = run_main(
    "score.py", "--reward_model_path", out, "--prompt", "x", "--completions", "y", "--attribute_weights", "l=1"
  )
  assert done.returncode == 2 and "--attribute_weights names `l`" in done.stderr and "polite, long" in done.stderr


def _asked(prompts, answers):
  from reward_modeling.rendering import Conversation

  return [Conversation(*one) for one in zip(prompts, answers, strict=True)]


def test_a_card_of_heads_is_checked(rated_model, tmp_path):
  import shutil

  out, _ = rated_model
  shutil.copytree(out, tmp_path / "m")
  card = json.loads((out / "reward_model.json").read_text())
  for change in ({"weight": "much"}, {"mean": math.nan}, {"levels": 3}, {"unknown": 1}):
    broken = card | {"attributes": [card["attributes"][0] | change, card["attributes"][1]]}
    (tmp_path / "m" / "reward_model.json").write_text(json.dumps(broken))
    done = run_main("score.py", "--model_name_or_path", tmp_path / "m", "--prompt", "x", "--completions", "y")
    assert done.returncode == 4 and "the model's card is not valid" in done.stderr, done.stderr


def test_bradley_terry_goes_on_from_the_weighted_heads(rated_model, tmp_path):
  out, _ = rated_model
  loaded, saved = checkpoints.load_for_training(str(out)), RewardModel.from_pretrained(str(out))
  assert loaded.head == "loaded" and loaded.model.config.num_labels == 1
  one = RewardModel(loaded.model.eval(), saved.renderer)
  texts = ["no red", "thank you one two", "maybe three four five"]
  before, after = (np.array(model.score(["hello red"], [texts])[0]) for model in (saved, one))
  assert np.diff(after) == pytest.approx(np.diff(before), abs=1e-4), "the reward is the same up to its zero"
  pairs = [{"prompt": f"hello {word}", "chosen": f"thank you {word}", "rejected": f"no {word}"} for word in WORDS]
  said = train(out, write_jsonl(tmp_path / "pairs.jsonl", pairs), tmp_path / "bt", "--max_steps", "2")
  assert said["head"] == "loaded" and "attribute_weights" not in said
  assert said["training"]["train_loss"] < 0.5, "it had learned politeness already"
  assert RewardModel.from_pretrained(str(tmp_path / "bt")).attributes == ()


def test_regression_goes_on_with_the_same_heads(rated_model, files, tmp_path):
  out, _ = rated_model
  said = train(out, files[1], tmp_path / "more", "--objective", "regression", "--max_steps", "1")
  assert said["head"] == "loaded" and said["attribute_weights"] == {"polite": 0.65, "long": -0.4}
  assert of_card(read_card(str(tmp_path / "more"))) == of_card(read_card(str(out))), "the scale of its logits stays"
  said = train(out, files[1], tmp_path / "one", "--objective", "regression", "--attributes", "long", "--max_steps", "1")
  assert said["head"] == "new" and said["attribute_weights"] == {"long": 1.0}


@pytest.mark.parametrize("family", ["qwen2", "bert"])
def test_ordinal_heads_give_expected_ratings(tiny, files, family, tmp_path):
  said = train(tiny(family), files[0], tmp_path / "m", "--objective", "ordinal", "--use_peft", "--max_steps", "20")
  model = RewardModel.from_pretrained(str(tmp_path / "m"))
  assert said["attribute_weights"] == {"polite": 0.5, "long": 0.5}
  assert [list(one.levels) for one in model.heads] == [[0, 2, 4], [1, 2, 3, 4, 5]]
  values = np.array(
    model.score_attributes(_asked([[user("hello red")]] * 9, [[user(w) | {"role": "assistant"}] for w in WORDS[:9]]))
  )
  assert (
    (values[:, 1] >= 0).all() and (values[:, 1] <= 4).all() and (values[:, 2] >= 1).all() and (values[:, 2] <= 5).all()
  )
  assert values[:, 0] == pytest.approx(values[:, 1:].mean(1), abs=1e-5)


def test_labels_of_kto_are_learned_and_the_reward_is_their_log_odds(tiny, tmp_path):
  rows = [
    {"prompt": row["prompt"], "completion": row["completion"], "label": row["ratings"]["polite"] > 2}
    for row in rated_rows(100, 2)
  ]
  data = write_jsonl(tmp_path / "kto.jsonl", rows)
  said = train(tiny("qwen2"), data, tmp_path / "m", "--objective", "binary", "--val_set_size", "0.2")
  found = said["evaluation"]["attributes"]["desirable"]
  assert found["pearson"]["value"] > 0.8 and found["rmse"]["value"] < 0.4
  done = run_main(
    "score.py", "--model_name_or_path", tmp_path / "m", "--prompt", "hello", "--completions", "thank you red", "no"
  )
  good, bad = done.json["rows"][0]["rewards"]
  assert good > 0 > bad and "attributes" not in done.json["rows"][0]
  done = run_main(
    "train.py", "--model_name_or_path", tiny("qwen2"), "--dataset_name", data, "--output_dir", tmp_path / "no"
  )
  assert done.returncode == 3 and "--objective binary trains on them" in done.stderr


def test_plackett_luce_of_pairs_trains_as_bradley_terry_does(tiny, toy_file, tmp_path):
  def learned(objective):
    flags = ("--objective", objective, "--max_steps", "3", "--seed", "7")
    return train(tiny("qwen2"), toy_file, tmp_path / objective, *flags)

  one, other = learned("bradley_terry"), learned("plackett_luce")
  assert one["training"]["train_loss"] == pytest.approx(other["training"]["train_loss"], abs=1e-6)


def test_rankings_are_learned_by_plackett_luce(tiny, tmp_path):
  rows = rated_rows(60, 3, answers=3)
  rankings = [
    {
      "prompt": group[0]["prompt"],
      "completions": [one["completion"] for one in group],
      "scores": [one["ratings"]["polite"] for one in group],
    }
    for group in (rows[i : i + 3] for i in range(0, len(rows), 3))
  ]
  data = write_jsonl(tmp_path / "rankings.jsonl", rankings)
  flags = ("--objective", "plackett_luce", "--val_set_size", "0.2", "--center_rewards_coefficient", "0")
  said = train(tiny("qwen2"), data, tmp_path / "m", *flags)
  assert said["evaluation"]["accuracy"]["value"] > 0.9


def test_ratings_make_pairs_by_the_weights_that_are_given(tiny, files, tmp_path):
  """HelpSteer's rows: two answers to a prompt are a pair where the weighted sum differs; others are counted."""
  names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")

  def row(prompt, completion, *ratings):
    return {"prompt": prompt, "response": completion, **dict(zip(names, ratings, strict=True))}

  rows = [row("p", "thank you", 4, 4, 4, 1, 1), row("p", "no", 1, 4, 4, 1, 1)]
  rows += [row("q", "one", 3, 3, 3, 3, 4), row("q", "two", 3, 3, 3, 3, 1), row("r", "three", 2, 2, 2, 2, 2)]
  data = write_jsonl(tmp_path / "helpsteer.jsonl", rows)
  run = (
    "train.py",
    "--model_name_or_path",
    tiny("qwen2"),
    "--dataset_name",
    data,
    "--output_dir",
    tmp_path / "m",
    "--dry_run",
  )
  done = run_main(*run)
  assert done.returncode == 3 and "these rows rate helpfulness, correctness" in done.stderr
  done = run_main(*run, "--attribute_weights", "helpfulness=1")
  alike = {"one rated answer to its prompt": 1, "answers rated alike": 1}
  assert done.json["counts"]["pairs"] == 1 and done.json["set_aside"] == alike
  done = run_main(*run, "--attribute_weights", "helpfulness=0.65", "verbosity=-0.4")
  assert done.json["counts"]["pairs"] == 2


def test_aspects_beside_a_score_make_other_pairs_by_weights(tiny, tmp_path):
  """UltraFeedback: the overall score says one answer is better, the aspect that is asked for the other."""

  def answer(text, overall, honesty):
    return {"response": text, "overall_score": overall, "annotations": {"honesty": {"Rating": honesty}}}

  row = {
    "instruction": "hello",
    "completions": [answer("one", 9, "1"), answer("two", 2, "5"), answer("three", 1, "N/A")],
  }
  data = write_jsonl(tmp_path / "uf.jsonl", [row])
  run = ("--model_name_or_path", tiny("qwen2"), "--dataset_name", data, "--output_dir", tmp_path / "m", "--dry_run")
  assert run_main("train.py", *run).json["counts"]["pairs"] == 3, "by the overall score, as ever"
  assert run_main("train.py", *run, "--attribute_weights", "honesty=1").json["counts"]["pairs"] == 1
  done = run_main("train.py", *run, "--objective", "regression")
  assert done.json["counts"]["answers"] == 3 and done.json["settings"]["attributes"] == ["overall_score", "honesty"]


def test_an_attribute_that_no_row_has_can_be_passed_over(tiny, tmp_path):
  data = write_jsonl(tmp_path / "r.jsonl", [GOOD | {"ratings": {"a": i, "b": None}} for i in range(3)])
  run = ("--model_name_or_path", tiny("qwen2"), "--dataset_name", data, "--output_dir", tmp_path / "m", "--dry_run")
  done = run_main("train.py", *run, "--objective", "regression", "--audit", "warn")
  assert done.returncode == 0 and done.json["settings"]["attributes"] == ["a"], done.stderr


SHORT = {
  "ppo.py": (
    *("--response_length", 6, "--per_device_train_batch_size", 12, "--total_episodes", 24),
    *("--num_sample_generations", 9, "--learning_rate", 1e-3),
  ),
  "grpo.py": (
    *("--max_completion_length", 6, "--per_device_train_batch_size", 8, "--num_generations", 4, "--max_steps", 2),
    *("--missing_eos_penalty", 0, "--save_strategy", "no"),
  ),
}


@pytest.mark.parametrize("script", SHORT)
def test_a_policy_is_rewarded_by_named_weights_as_score_py_does(rated_model, tiny, script, tmp_path):
  prompts = write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": f"hello {word}"} for word in WORDS])
  run = ("--model_name_or_path", tiny("qwen2"), "--reward_model_path", rated_model[0], "--dataset_name", prompts)
  weights = ("--attribute_weights", "polite=2", "long=-0.3")
  done = run_main(script, *run, "--output_dir", tmp_path / "p", *SHORT[script], *weights)
  assert done.returncode == 0, done.stderr
  entries = [json.loads(line) for line in (tmp_path / "p" / "log.jsonl").open()]
  samples = [one for entry in entries for one in entry.get("samples", [entry.get("sample")]) if one]
  rows = write_jsonl(
    tmp_path / "rows.jsonl", [{name: one[name] for name in ("prompt", "completion")} for one in samples]
  )
  scored = run_main("score.py", "--model_name_or_path", rated_model[0], "--input", rows, *weights)
  assert len(samples) > 1 and len({one["reward"] for one in samples}) > 1
  assert [one["reward"] for one in samples] == pytest.approx([row["reward"] for row in scored.json["rows"]], abs=1e-5)
  done = run_main(script, *run, "--output_dir", tmp_path / "q", *SHORT[script], "--attribute_weights", "wit=1")
  assert done.returncode == 2 and "names `wit`" in done.stderr


def test_weights_are_fitted_on_pairs(rated_model, tmp_path):
  """Pairs that prefer short answers, however polite: the fitted weight of `long` is negative, and decides."""
  out, _ = rated_model
  rows = rated_rows(60, 4, missing=False)
  pairs = []
  for a, b in zip(rows[::2], rows[1::2], strict=True):
    short, long = sorted((a, b), key=lambda row: row["ratings"]["long"])
    if short["ratings"]["long"] < long["ratings"]["long"]:
      pairs.append({"prompt": a["prompt"], "chosen": short["completion"], "rejected": long["completion"]})
  data, preferred = write_jsonl(tmp_path / "t.jsonl", rows), write_jsonl(tmp_path / "pairs.jsonl", pairs)
  flags = (
    "--objective",
    "regression",
    "--fit_attribute_weights",
    preferred,
    "--max_steps",
    "1",
    "--learning_rate",
    "1e-6",
  )
  weights = train(out, data, tmp_path / "m", *flags)["attribute_weights"]
  assert weights["long"] < -1 and abs(weights["polite"]) < -weights["long"] / 2
  assert {one.name: one.weight for one in of_card(read_card(str(tmp_path / "m")))} == pytest.approx(weights)


def test_evaluation_has_the_numbers_of_scipy(rated_model, files, tmp_path):
  out, _ = rated_model
  flags = ("--dataset_name", files[1], "--output", tmp_path / "rows.jsonl")
  done = run_main("evaluate.py", "--model_name_or_path", out, *flags)
  assert done.returncode == 0, done.stderr
  rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
  for name, found in done.json["attributes"].items():
    kept = [row for row in rows if row["ratings"]["long"] is not None or name == "polite"]
    x = np.array([row["reward"] if name == "reward" else row["attributes"][name] for row in kept])
    y = np.array([_rating(row["ratings"], name) for row in kept])
    assert found["n"] == len(kept)
    assert found["pearson"]["value"] == pytest.approx(stats.pearsonr(x, y).statistic)
    assert found["spearman"]["value"] == pytest.approx(stats.spearmanr(x, y).statistic)
    if name != "reward":
      assert found["rmse"]["value"] == pytest.approx(math.sqrt(np.mean((x - y) ** 2)))
      assert found["rmse_of_mean"] == pytest.approx(np.std(y))
      assert found["bias"] == pytest.approx(np.mean(x - y))
      assert found["slope"]["value"] == pytest.approx(stats.linregress(x, y).slope)
    right, longer, prompts = 0, 0, 0
    for a, b in pairwise(kept):
      differ = a["prompt"] == b["prompt"] and _rating(a["ratings"], name) != _rating(b["ratings"], name)
      if differ:
        i = kept.index(a)
        prompts += 1
        right += (x[i] > x[i + 1]) == (y[i] > y[i + 1])
        lengths = [len(one["completion"][-1]["content"]) for one in (a, b)]
        longer += 0.5 if lengths[0] == lengths[1] else (lengths[0] > lengths[1]) == (y[i] > y[i + 1])
    assert found["pair_accuracy"]["value"] == found["micro_accuracy"]["value"] == pytest.approx(right / prompts)
    assert found["baseline_longer"]["value"] == pytest.approx(longer / prompts)


def _rating(ratings, name):
  return 0.65 * ratings["polite"] - 0.4 * ratings["long"] if name == "reward" else ratings[name]


def test_a_model_with_one_score_is_evaluated_on_every_attribute(toy_model, files):
  done = run_main("evaluate.py", "--model_name_or_path", toy_model[0], "--dataset_name", files[1])
  assert done.returncode == 0, done.stderr
  found = done.json["attributes"]
  assert set(found) == {"polite", "long"} and "rmse" not in found["polite"]
  assert found["polite"]["spearman"]["value"] > 0.5, "its reward is for being polite"


def test_folds_pool_held_out_answers_and_a_report_shows_them(tiny, files, tmp_path):
  """The pooled correlation is that of predictions which each fold's own model gives: trained here without --folds."""
  flags = ("--objective", "regression", "--attributes", "polite", "--max_steps", "15", "--seed", "3")
  said = train(tiny("qwen2"), files[1], tmp_path / "m", *flags, "--folds", "2", "--report", tmp_path / "r")
  assert [one["held_out"] + one["pairs"] for one in said["folds"]] == [80, 80] and "accuracy" not in said["folds"][0]
  pooled = said["evaluation"]["attributes"]["polite"]
  assert pooled["n"] == 80 == said["evaluation"]["n_answers"]
  assert said["training"]["cross_validation"] == {"folds": 2, "pearson": {"polite": pooled["pearson"]}}
  page, report = ((tmp_path / "r" / name).read_text() for name in ("README.md", "report.json"))
  assert f"correlation with polite {pooled['pearson']['value']:.2f} [" in page and "on 80 answers" in page
  assert f"80 rated answers: {files[1]} (held out by --folds 2)." in page
  assert json.loads(report)["parts"]["RatingReport"]["attributes"]["polite"]["pearson"] == pooled["pearson"]
  from reward_modeling.data.reading import load
  from reward_modeling.data.records import rated_answers
  from reward_modeling.training.folds import folds_of

  rows = rated_answers(load(str(files[1])))
  given, places = rated_rows(40, 1), folds_of(rows, 2, 3)
  half = write_jsonl(tmp_path / "half.jsonl", [row for row, place in zip(given, places, strict=True) if place])
  assert places.count(0) == said["folds"][0]["held_out"]
  train(tiny("qwen2"), half, tmp_path / "half", *flags)  # what fold 1 trains, but for the scale of its ratings
  other = [row for row, place in zip(given, places, strict=True) if not place]
  held = write_jsonl(
    tmp_path / "held.jsonl", [row | {"ratings": {"polite": row["ratings"]["polite"]}} for row in other]
  )
  done = run_main("evaluate.py", "--model_name_or_path", tmp_path / "half", "--dataset_name", held)
  alone = done.json["attributes"]["polite"]["pearson"]["value"]
  assert said["folds"][0]["pearson"]["polite"]["value"] == pytest.approx(alone, abs=0.05)


def test_two_models_are_compared_on_each_attribute_and_probed(rated_model, tiny, files, tmp_path):
  """A model that was trained against one that was not: the difference is that of their correlations."""
  out, said = rated_model
  train(
    tiny("qwen2"),
    files[0],
    tmp_path / "poor",
    "--objective",
    "regression",
    "--max_steps",
    "1",
    "--learning_rate",
    "1e-9",
  )
  flags = ("--dataset_name", files[1], "--compare", tmp_path / "poor", "--probes", "--report", tmp_path / "r")
  flags += ("--output", tmp_path / "rows.jsonl")
  done = run_main("evaluate.py", "--model_name_or_path", out, *flags)
  assert done.returncode == 0, done.stderr
  comparison, rows = done.json["comparison"], [json.loads(line) for line in (tmp_path / "rows.jsonl").open()]
  found, other = comparison["attributes"], comparison["other"]["attributes"]
  assert set(found) == {"polite", "long"}, "the weights of `reward` differ"
  for name, one in found.items():
    mine = said["evaluation"]["attributes"][name]["pearson"]["value"]
    assert one["pearson"]["value"] == pytest.approx(mine - other[name]["pearson"]["value"], abs=1e-6)
    assert one["pearson"]["low"] < one["pearson"]["value"] < one["pearson"]["high"]
  assert found["polite"]["p"] < 0.05 and f"polite: {out} is better, p " in comparison["verdict"]
  alone = run_main("score.py", "--model_name_or_path", tmp_path / "poor", "--input", files[1])
  assert [row["other_reward"] for row in rows] == pytest.approx([row["reward"] for row in alone.json["rows"]], abs=1e-5)
  probes = done.json["probes"]["probes"]
  assert done.json["probes"]["n_pairs"] == 80 - sum(row["ratings"]["long"] is None for row in rows)
  assert "flipped" not in probes["flattery"] and probes["empty"]["shift"]["n"] + probes["flattery"]["shift"]["n"] > 50
  assert "answers whose reward is rated" in done.stderr and "none are paired" in done.stderr
  page = (tmp_path / "r" / "README.md").read_text()
  assert "Does it rate answers as they were rated?" in page and "is better, p" in page and "Probes of" in page


def test_the_difference_of_two_correlations_is_tested_at_its_level():
  """Two predictions that are equally good: p is under 0.05 about one time in twenty, and the interval covers 0 else."""
  from reward_modeling.evaluation.ratings import _compared

  rng, below, times = np.random.default_rng(0), 0, 600
  for _ in range(times):
    truth = rng.normal(size=120)
    a, b = (truth + rng.normal(size=120) for _ in range(2))
    one = _compared(a, b, truth, np.arange(120))
    assert (one.p < 0.05) == (one.pearson.low > 0 or one.pearson.high < 0)
    below += one.p < 0.05
  assert 0.03 < below / times < 0.08


def _clustered_ratings(rng, prompts, each=3):
  """Predictions and ratings 0 to 4 of answers that share half of their scatter with the others to their prompt."""
  u, v = (np.repeat(rng.normal(size=prompts), each) for _ in range(2))
  x = (u + rng.normal(size=prompts * each)) / math.sqrt(2)
  noise = (v + rng.normal(size=prompts * each)) / math.sqrt(2)
  return x + 2, np.clip(np.round(2 + 0.7 * x + 0.8 * noise), 0, 4), np.repeat(np.arange(prompts), each)


@pytest.mark.parametrize("prompts", [6, 40])
def test_intervals_of_rmse_and_slope_cover_the_truth(prompts):
  from reward_modeling.evaluation.ratings import _summary

  rng, times = np.random.default_rng(1), 400
  x, y, _ = _clustered_ratings(rng, 100_000)
  truth = {"rmse": math.sqrt(np.mean((x - y) ** 2)), "slope": stats.linregress(x, y).slope}
  covered = dict.fromkeys(truth, 0)
  for _ in range(times):
    found = _summary(*_clustered_ratings(rng, prompts), np.ones(3 * prompts), in_units=True)
    for name, value in truth.items():
      covered[name] += getattr(found, name).low <= value <= getattr(found, name).high
  assert all(0.92 < one / times < 0.98 for one in covered.values()), covered


def test_rmse_stands_beside_that_of_the_mean_and_one_prompt_bounds_nothing():
  """Errors 1, 0, 1, 2 against ratings 1, 2, 3, 4, whose mean is off by 1.5, 0.5, 0.5, 1.5."""
  from reward_modeling.evaluation.ratings import _summary, diagnose_ratings

  x, y = np.array([2.0, 2.0, 2.0, 2.0]), np.array([1.0, 2.0, 3.0, 4.0])
  found = _summary(x, y, np.arange(4), np.ones(4), in_units=True)
  assert (found.rmse.value, found.rmse_of_mean) == pytest.approx((math.sqrt(6 / 4), math.sqrt(5 / 4)))
  assert found.slope is None and found.rmse.low < found.rmse.value < found.rmse.high
  one = _summary(x, y, np.zeros(4), np.ones(4), in_units=True)
  assert (one.rmse.low, one.rmse.high, one.rmse.groups) == (0, math.inf, 1)
  assert json.loads(to_json(one))["rmse"]["high"] is None
  assert TypeAdapter(AttributeSummary).validate_json(to_json(one)) == one, "as a report keeps it"
  assert _summary(y, y, np.arange(4), np.ones(4), in_units=True).rmse.high == 0
  far = _summary(y + 9, y, np.arange(4), np.ones(4), in_units=True)
  (said,) = diagnose_ratings(RatingSummary(4, 0, {"polite": far}))[:1]
  assert said.startswith("polite: rmse 9.000 [9.000, 9.000] is above the 1.118 of always predicting the mean rating")


def test_pairs_of_ratings_are_counted_by_prompt_by_pair_and_against_length():
  """A prompt of 3 answers, of whose 3 pairs 1 is right, and one of 2, right: 2/3 by prompt, 2/4 by pair. By length 1 and 1/2."""
  from reward_modeling.evaluation.ratings import _summary, diagnose_ratings

  x, y = np.array([3.0, 1.0, 2.0, 5.0, 4.0, 9.0]), np.array([1.0, 2.0, 3.0, 2.0, 1.0, math.nan])
  keys, lengths = np.array(list("aaabbb")), np.array([1.0, 2.0, 3.0, 7.0, 7.0, 1.0])
  found = _summary(x, y, keys, lengths, in_units=True)
  assert (found.pair_accuracy.value, found.pair_accuracy.groups, found.pair_accuracy.n) == (pytest.approx(2 / 3), 2, 4)
  assert (found.micro_accuracy.value, found.baseline_longer.value) == (0.5, 0.75)
  assert found.gain_over_baseline.value == pytest.approx(2 / 3 - 3 / 4)
  shorter = _summary(x, y, keys, -lengths, in_units=True)
  assert (shorter.baseline_longer.value, shorter.gain_over_baseline) == (0.25, found.gain_over_baseline)
  said = "a: pair accuracy 0.667 ["
  assert any(
    one.startswith(said) and "length baseline (longer 0.750)" in one
    for one in diagnose_ratings(RatingSummary(5, 0, {"a": found}))
  )
  ratings = np.tile(y[:3], 40)
  better = _summary(ratings, ratings, np.repeat(np.arange(40), 3), np.ones(120), in_units=True)
  assert better.baseline_longer.value == pytest.approx(0.5) and better.gain_over_baseline.low > 0
  assert "length" not in "".join(diagnose_ratings(RatingSummary(120, 0, {"a": better})))


def test_a_rated_conversation_is_its_last_answer(tiny, tmp_path):
  from reward_modeling.data.reading import load
  from reward_modeling.data.records import rated_answers

  turns = [user("hello"), {"role": "assistant", "content": "thank you"}]
  rows = [{"messages": turns, "score": 3}, {"messages": turns, "score": None}]
  data = write_jsonl(tmp_path / "m.jsonl", rows)
  records = load(str(data))
  (one,) = rated_answers(records)
  assert (one.prompt, one.completion, one.ratings) == (turns[:1], turns[1:], {"score": 3.0})
  assert records.set_aside == {"unlabeled": 1}
  one, *_ = rated_answers(load(str(write_jsonl(tmp_path / "n.jsonl", [{"conversations": turns, **HELPSTEER}]))))
  assert one.ratings == HELPSTEER
  with pytest.raises(DataError, match="does not end with an assistant message"):
    load(str(write_jsonl(tmp_path / "o.jsonl", [rows[0], rows[0] | {"messages": turns[:1]}])))


@pytest.mark.parametrize(
  ("good", "bad"),
  [(True, False), (1, 0), (1, -1), ("True", "false"), ("👍", "👎"), ("yes", "no"), ("Good", "bad"), ("up", "down")],
)
def test_a_label_says_whether_an_answer_is_desirable(good, bad, tmp_path):
  from reward_modeling.data.reading import load
  from reward_modeling.data.records import rated_answers

  rows = [GOOD | {"thumb": label} for label in (good, bad, None)]
  records = load(str(write_jsonl(tmp_path / "kto.jsonl", rows)), columns={"label": "thumb"}, format="kto")
  assert [one.ratings for one in rated_answers(records)] == [{"desirable": 1.0}, {"desirable": 0.0}]
  assert records.set_aside == {"unlabeled": 1}


def test_not_available_is_missing(tmp_path):
  from reward_modeling.data.reading import load
  from reward_modeling.data.records import rated_answers

  rows = [
    GOOD | {"ratings": {"a": "N/A", "b": 3}},
    GOOD | {"ratings": {"a": "n/a "}},
    {**ULTRA, "completions": [ASPECT("n/a"), ASPECT("2")]},
  ]
  for row, expected in zip(rows, ([{"a": None, "b": 3}], [], [None, 2]), strict=True):
    records = load(str(write_jsonl(tmp_path / "r.jsonl", [row])))
    found = [one.ratings for one in rated_answers(records)]
    assert [one.get("honesty") if "honesty" in one else one for one in found] == expected
    assert records.set_aside == ({} if expected else {"unlabeled": 1})


HELPSTEER = dict.fromkeys(("helpfulness", "correctness", "coherence", "complexity", "verbosity"), 3)
GOOD = {"prompt": "hello", "completion": "thank you"}
ULTRA = {"instruction": "q", "completions": [{"response": r, "overall_score": s} for r, s in (("a", 1), ("b", 10))]}


def ASPECT(rating):  # noqa: N802 - beside the constants
  return {"response": "a", "overall_score": 5, "annotations": {"honesty": {"Rating": rating}}}


BAD_RATINGS = {
  "out of range": ("regression", [GOOD | HELPSTEER, GOOD | HELPSTEER | {"coherence": 7}], 3, "`coherence` is 7", 2),
  "beyond UltraFeedback": (
    *("regression", [ULTRA, {**ULTRA, "completions": [{"response": "a", "overall_score": 85}] * 2}], 3),
    *("`overall_score` is 85: UltraFeedback rates from 1 to 10", 2),
  ),
  "an aspect beyond it": (
    *("regression", [{**ULTRA, "completions": [ASPECT("0"), ASPECT("5")]}], 3),
    *("`Rating` is 0: UltraFeedback rates from 1 to 5", 1),
  ),
  "outside a range": (
    *("regression --rating_range 1 10", [GOOD | {"score": 1}, GOOD | {"score": 11}], 3),
    *("`score` is 11, outside --rating_range 1 10", 2),
  ),
  "not a number": (
    "regression",
    [GOOD | {"ratings": {"a": 1}}, GOOD | {"ratings": {"a": "high"}}],
    3,
    "`ratings.a` is text",
    2,
  ),
  "infinite": ("regression", [GOOD | {"score": 1}, GOOD | {"score": 1e999}], 3, "larger than a number can be", 2),
  "missing everywhere": (
    *("regression", [GOOD | {"ratings": {"a": 1, "b": None}}, GOOD | {"ratings": {"a": 2, "b": None}}], 3),
    *("no answer has a rating of `b`", None),
  ),
  "no label": ("binary", [GOOD | {"score": 1}, GOOD | {"score": 3}], 3, "`score` is 3: --objective binary", 2),
  "many levels": ("ordinal", [GOOD | {"score": i} for i in range(40)], 3, "`score` has 40 different ratings", None),
  "as text": (
    "regression",
    [GOOD | {"rating": "4/5"}, GOOD | {"rating": "80%"}],
    3,
    "`rating` is text (4/5), not a number",
    1,
  ),
  "a later label": (
    *("binary", [GOOD | {"label": label} for label in (True, "false", "maybe")], 3),
    *("`label` is text (maybe), not one of true, 1, yes", 3),
  ),
  "another column": ("regression", [GOOD | {"stars": 4}], 3, "what was not read: stars (--columns score=NAME", None),
  "none at all": ("regression", [GOOD | {"ratings": {"a": None}}] * 3, 3, "are too few (unlabeled 3 set aside)", None),
  "weights of 0": (
    *("regression --attribute_weights a=0", [GOOD | {"ratings": {"a": i, "b": 1}} for i in range(3)], 2),
    *("--attribute_weights are all 0", None),
  ),
  "pairs": ("regression", [{"prompt": "p", "chosen": "a", "rejected": "b"}], 3, "do not rate each answer", None),
  "no margin": (
    *("scaled_bradley_terry", [{"prompt": "p", "chosen": "a", "rejected": "b", "margin": m} for m in (1, None)], 3),
    *("the pair has no margin above 0", 2),
  ),
}


@pytest.mark.parametrize("name", BAD_RATINGS)
def test_bad_ratings_are_one_line_with_their_row(tiny, name, tmp_path):
  objective, rows, code, said, row = BAD_RATINGS[name]
  data = write_jsonl(tmp_path / "bad.jsonl", rows)
  run = (
    "--model_name_or_path",
    tiny("qwen2"),
    "--dataset_name",
    data,
    "--output_dir",
    tmp_path / "m",
    "--objective",
    *objective.split(),
  )
  done = run_main("train.py", *run)
  (line,) = [line for line in done.stderr.splitlines() if line.startswith(("error:", f"{data}"))][:1]
  assert done.returncode == code and said in done.stderr, done.stderr
  assert row is None or f"{data}:{row}" in done.stderr, line
  assert not (tmp_path / "m" / "config.json").exists()


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    (("--objective", "regression", "--attribute_weights", "kind=1"), "names `kind`"),
    (("--objective", "regression", "--attributes", "kind"), "--attributes names `kind`"),
    (("--objective", "regression", "--attribute_weights", "polite=nan"), "expected a finite number"),
    (("--objective", "regression", "--attribute_weights", "polite"), "expected NAME=NUMBER"),
    (("--objective", "ordinal", "--folds", "3", "--val_set_size", "0.1"), "makes its own held-out answers"),
    (("--objective", "ordinal", "--folds", "2", "--fit_attribute_weights", "p"), "does nothing with --folds"),
    (("--objective", "regression", "--rating_range", "4", "0"), "--rating_range is the lowest and the highest"),
    (("--rating_range", "0", "4"), "--rating_range does nothing with --objective bradley_terry"),
    (
      ("--objective", "ordinal", "--attribute_weights", "polite=1", "--fit_attribute_weights", "p.jsonl"),
      "--fit_attribute_weights does nothing with --attribute_weights",
    ),
    (("--attributes", "polite"), "--attributes does nothing with --objective bradley_terry"),
    (("--objective", "plackett_luce", "--label_smoothing", "0.1"), "--label_smoothing does nothing"),
  ],
)
def test_flags_that_do_not_fit(tiny, files, flags, said, tmp_path):
  run = ("--model_name_or_path", tiny("qwen2"), "--dataset_name", files[0], "--output_dir", tmp_path / "m")
  done = run_main("train.py", *run, *flags)
  assert done.returncode == 2 and said in done.stderr, done.stderr


def test_nan_is_a_missing_rating(tiny, tmp_path):
  rows = [json.dumps(row) for row in rated_rows(4, 5, missing=False)]
  rows[1] = rows[1].replace('"polite": ', '"polite": NaN, "was": ')
  (tmp_path / "nan.jsonl").write_text("\n".join(rows) + "\n")
  flags = ("--objective", "regression", "--attributes", "polite", "--dry_run")
  run = (
    "--model_name_or_path",
    tiny("qwen2"),
    "--dataset_name",
    tmp_path / "nan.jsonl",
    "--output_dir",
    tmp_path / "m",
  )
  done = run_main("train.py", *run, *flags)
  assert done.returncode == 0, done.stderr
  assert done.json["counts"]["answers"] == 7 and done.json["set_aside"] == {"without ratings": 1}


def test_check_data_tells_of_ratings_and_keeps_them(tmp_path):
  rows = [GOOD | {"ratings": {"a": 1, "b": 2}}, GOOD | {"ratings": {"a": 3, "b": 2}}]
  rows += [{"prompt": "p", "completion": "q", "ratings": {"a": None, "b": 2}}]
  data = write_jsonl(tmp_path / "rows.jsonl", rows)
  done = run_main("check_data.py", data, "--output", tmp_path / "canonical.jsonl")
  assert done.returncode == 0, done.stderr
  assert done.json["ratings"] == {"a": [2, 1, 3], "b": [3, 2, 2]}
  assert {one["check"]: one["count"] for one in done.json["findings"]} == {
    **{"attribute_constant": 3, "contradiction": 2},  # another rating of the same answer repeats nothing
  }
  again = run_main("check_data.py", tmp_path / "canonical.jsonl")
  assert again.json["ratings"] == done.json["ratings"] and again.json["kinds"] == {"rated_completions": 3}


def test_ratings_by_several_people_are_one_answer_with_their_mean():
  """A: 2, 4 and one without `b`; B: 3. Their pairs are by the means, and no answer is paired with itself."""
  from reward_modeling.data.records import Ranking, Records, averaged, ranked_by_ratings, ratings_of

  asked = [{"role": "user", "content": "q"}]
  rows = [
    Ranking(asked, [[{"role": "assistant", "content": text}]], ratings=[ratings])
    for text, ratings in (("A", {"a": 2.0, "b": 1.0}), ("B", {"a": 2.5}), ("A", {"a": 4.0, "b": None}))
  ]
  means = averaged(one for row in rows for one in ratings_of(row))
  assert [one.ratings for one in means] == [{"a": 3.0, "b": 1.0}, {"a": 2.5}]
  (ranked,) = ranked_by_ratings(Records(rows), {"a": 1.0}).rows
  assert [answer[0]["content"] for answer in ranked.completions] == ["A", "B"] and ranked.scores == [3.0, 2.5]


def test_an_evaluation_on_several_raters_is_that_on_their_means(toy_model, files, tmp_path):
  rows = [json.loads(line) for line in files[1].read_text().splitlines()]
  each = [row | {"ratings": {"polite": row["ratings"]["polite"] + off}} for off in (-1, 1, 0) for row in rows]
  alone = [row | {"ratings": {"polite": row["ratings"]["polite"]}} for row in rows]
  found = []
  for name, own in (("each", each), ("alone", alone)):
    data = write_jsonl(tmp_path / f"{name}.jsonl", own)
    found.append(run_main("evaluate.py", "--model_name_or_path", toy_model[0], "--dataset_name", data).json)
  several, one = found
  assert several["averaged"] == 2 * len(rows) and "averaged" not in one
  assert several["attributes"] == one["attributes"] and several["n_answers"] == one["n_answers"] == len(rows)


def test_attributes_of_the_sandbox_are_recovered(tmp_path):
  """Those of one answer alone; benchmarks/attributes.py has the one that needs the prompt."""
  from transformers import AutoModelForCausalLM

  from reward_modeling import sandbox_models

  words = sandbox_models.tokenizer()
  torch.manual_seed(0)
  for part in (AutoModelForCausalLM.from_config(sandbox_models.tiny_config(words)), words):
    part.save_pretrained(tmp_path / "base")
  data = write_jsonl(tmp_path / "train.jsonl", attribute_world.rows(1000, 0, missing=0.2))
  test = write_jsonl(tmp_path / "test.jsonl", attribute_world.rows(150, 1, split="test"))
  flags = ("--objective", "regression", "--attributes", "politeness", "length", "--max_steps", "60")
  size = ("--per_device_train_batch_size", "32", "--eval_dataset_name", test, "--eval_strategy", "no")
  found = train(tmp_path / "base", data, tmp_path / "m", *flags, *size)["evaluation"]["attributes"]
  assert found["politeness"]["pearson"]["value"] > 0.9 and found["length"]["pearson"]["value"] > 0.9, found
