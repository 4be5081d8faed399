"""Process reward models: one pass gives the scores of one call for each prefix, and aggregations are what they say."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import DECODERS, TEXT, computed_rows, process_model
from reward_modeling import ProcessRewardModel, checkpoints
from reward_modeling.aggregation import AGGREGATIONS, StepScores, aggregated, probability
from reward_modeling.errors import DataError, ModelError, RunError, UsageError
from reward_modeling.packing import pack, pack_together
from reward_modeling.rendering import Conversation
from reward_modeling.step_rendering import Steps
from tries import tries

WORDS = TEXT[0].split()


def toy_solutions(n: int, seed: int = 0) -> list[Steps]:
  """Three solutions a prompt, which share first steps, of one to five steps."""
  rng = random.Random(seed)
  solutions = []
  for i in range(n):
    prompt = [{"role": "user", "content": f"{i} " + " ".join(rng.choices(WORDS, k=6))}]
    first = " ".join(rng.choices(WORDS, k=3))
    for _ in range(3):
      steps = [first, *(" ".join(rng.choices(WORDS, k=rng.randint(1, 4))) for _ in range(rng.randint(0, 4)))]
      solutions.append(Steps(prompt, steps))
  return solutions


def one_call_a_prefix(model: ProcessRewardModel, solution: Steps) -> list[float]:
  """The second route: the plain model on each beginning alone, softmax at its last token."""
  scores = []
  prompt, steps, _ = solution
  with torch.inference_mode():
    for k in range(1, len(steps) + 1):
      ids = model.renderer.render(prompt, steps[:k]).ids
      logits = model.model(input_ids=torch.tensor([ids])).logits[0, -1]
      scores.append(logits.softmax(-1)[1].item())
  return scores


def assert_same(model: ProcessRewardModel, solutions: list[Steps], tolerance: float) -> None:
  for scored, solution in zip(model.score_solutions(solutions), solutions, strict=True):
    assert scored.probabilities == pytest.approx(one_call_a_prefix(model, solution), abs=tolerance)


@pytest.mark.parametrize("family", DECODERS)
def test_one_pass_gives_the_scores_of_one_call_a_prefix(family):
  model = process_model(family)
  assert model.why_padded is None and model.renderer.scored_at == "last_token"
  solutions = toy_solutions(5)
  assert_same(model, solutions, 1e-5)
  computed = sum(len(row.ids) for row in pack([model.renderer.render(*s[:2]).ids for s in solutions]))
  rendered = sum(len(model.renderer.render(*s[:2]).ids) for s in solutions)
  assert computed < 0.7 * rendered, "the prompt and the first step of three solutions are computed once"


@pytest.mark.parametrize("family", ["qwen2", "bert", "modernbert"])
def test_padded_rows_give_the_scores_of_one_call_a_prefix(family):
  model = process_model(family, max_tokens_per_batch=200)
  if family == "qwen2":
    model.why_padded = "it is asked for here"
  else:
    assert model.renderer.scored_at == "prefix" and "both directions" in model.why_padded
  assert_same(model, toy_solutions(3), 1e-5)


def test_steps_that_follow_do_not_change_an_encoders_score():
  model = process_model("bert")
  prompt, steps = "hello", ["one two", "three", "red blue"]
  assert model.score_steps([prompt], [steps])[0][:2] == pytest.approx(model.score_steps([prompt], [steps[:2]])[0])


@pytest.fixture(scope="module")
def double():
  """GPT-2: its layer norms stay in float64, so nothing but the layout could make a difference."""
  return process_model("gpt2", dtype=torch.float64)


@settings(deadline=None, max_examples=25)
@given(tries(), st.randoms(use_true_random=False))
def test_packed_rows_in_float64(double, sequences, rng):
  """Any sequences, any scored tokens: the packed row gives what each sequence gives alone."""
  rows = [
    (ids, sorted({len(ids) - 1, *rng.choices(range(len(ids)), k=min(3, len(ids)))}))
    for ids in [[token + 10 for token in sequence] for sequence in sequences]
  ]
  assert double.why_padded is None
  for (ids, positions), scores in zip(rows, double.score_rows(rows), strict=True):
    with torch.inference_mode():
      logits = double.model(input_ids=torch.tensor([ids])).logits[0, positions]
    assert scores == pytest.approx((logits[:, 1] - logits[:, 0]).tolist(), abs=1e-12, rel=0)


@given(tries(), st.one_of(st.none(), st.integers(1, 60)))
def test_every_token_of_a_sequence_is_found_in_its_row(sequences, budget):
  for row in [*pack(sequences, budget), pack_together(sequences)]:
    for i, index in enumerate(row.sequences):
      places = row.places[i]
      assert [row.ids[place] for place in places] == sequences[index]
      assert [row.positions[place] for place in places] == list(range(len(sequences[index])))
      assert places[-1] == row.ends[i]


def logit(p: float) -> float:
  return math.log(p / (1 - p))


BY_HAND = {"min": 0.2, "prod": 0.08, "mean": 0.5, "last": 0.5, "max": 0.8, "sum_logit": 0.0}


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_aggregations_by_hand(name):
  """Steps of 0.8, 0.2 and 0.5; the logits of 0.8 and 0.2 cancel."""
  logits = [logit(0.8), logit(0.2), logit(0.5)]
  assert aggregated(name, logits) == pytest.approx(BY_HAND[name], abs=1e-12)


@given(st.lists(st.floats(-800, 800), min_size=1, max_size=9))
def test_rewards_are_ordered_and_finite(logits):
  rewards = {name: aggregated(name, logits) for name in AGGREGATIONS}
  assert all(map(math.isfinite, rewards.values()))
  assert 0 <= rewards["prod"] <= rewards["min"] <= rewards["mean"] + 1e-12 <= rewards["max"] + 2e-12
  assert rewards["min"] <= rewards["last"] <= rewards["max"] <= 1


def test_a_probability_close_to_one_still_orders():
  """In fp32 both would be 1: the weakest of two sure solutions must not tie."""
  assert probability(20.0) < probability(21.0) < 1 and probability(-900.0) == 0.0


def test_verbs_agree():
  model = process_model("qwen2", aggregate="prod")
  solutions = ["one two\nthree", "red\nblue\ngreen", ""]
  with pytest.raises(DataError, match="no steps"):
    model.score(["hello"], [""])
  steps = [solution.split("\n") for solution in solutions[:2]]
  apart = [model.score_steps(["hello"], [one])[0] for one in steps]
  assert [len(row) for row in apart] == [2, 3]
  together = model.score_steps(["hello"], [steps])[0]
  assert together[0] == pytest.approx(apart[0], abs=1e-6) and together[1] == pytest.approx(apart[1], abs=1e-6)
  rewards = model.score(["hello"], [steps])[0]
  assert rewards == pytest.approx([math.prod(row) for row in apart], abs=1e-6)
  assert model.score(["hello", "hello"], solutions[:2]) == pytest.approx(rewards, abs=1e-6)
  ranked = model.rank("hello", solutions[:2])
  assert [item.score for item in ranked] == sorted((item.score for item in ranked), reverse=True)
  assert ranked[0].completion == solutions[ranked[0].index]
  conversations = [
    Conversation([{"role": "user", "content": "hello"}], [{"role": "assistant", "content": text}]) for text in solutions
  ]
  scored = model.score_conversations(conversations)
  assert scored[:2] == pytest.approx(rewards, abs=1e-6) and scored[2] is None
  assert model.renderer.counts["without_steps"] == 1


def test_steps_that_do_not_fit_score_none():
  model = process_model("qwen2", max_length=30)
  steps = ["red blue", "green", "one two three four five six " * 4]
  scored = model.score_steps(["hello"], [steps])[0]
  assert scored[2] is None and scored[:2] == pytest.approx(model.score_steps(["hello"], [steps[:2]])[0], abs=1e-6)
  assert model.score(["hello"], [steps])[0] == pytest.approx(min(scored[:2]))
  assert model.score_steps(["hello"], [["one two three four five six " * 8]]) == [[None]]
  assert model.score(["hello"], [["one two three four five six " * 8]]) == [None]
  assert StepScores([0.0], dropped=1).probabilities == [0.5, None]


def test_progress_counts_each_solution_once():
  for family in ("qwen2", "bert"):
    model, done = process_model(family, max_tokens_per_batch=64), []
    model.score_solutions(toy_solutions(4), done.append)
    assert sum(done) == 12 and len(done) > 1


def test_an_encoder_computes_a_beginning_of_several_solutions_once(monkeypatch):
  model = process_model("bert", max_tokens_per_batch=64)
  solutions = [["red blue", "green one"], ["red blue", "two"], ["red blue", "green one"]]
  alone = [model.score_steps(["hello"], [steps])[0] for steps in solutions]
  rows = computed_rows(monkeypatch)
  assert [score for steps in model.score_steps(["hello"] * 3, solutions) for score in steps] == pytest.approx(
    [score for steps in alone for score in steps], abs=1e-6
  )
  assert len(rows) == 3, "six steps, three beginnings"


def test_what_a_process_model_cannot_read():
  model = process_model("qwen2")
  answer = [{"role": "assistant", "content": "one\ntwo"}]
  with pytest.raises(ModelError, match="reads no `tools`"):
    model.score_conversations([Conversation([], answer, [{"type": "function"}])])
  with pytest.raises(DataError, match="has 2 messages"):
    model.score_conversations([Conversation([], answer * 2)])
  with pytest.raises(ValueError, match="one of"):
    process_model("qwen2", aggregate="median")
  model.model.score.weight.data.fill_(float("nan"))
  with pytest.raises(RunError, match="not finite"):
    model.score(["hello"], ["one\ntwo"])


@pytest.mark.parametrize("family", ["qwen2", "bert"])
def test_from_pretrained_scores_as_before_saving(family, tmp_path):
  made = process_model(family, max_length=64)
  checkpoints.save(made.model, made.renderer, tmp_path / "prm", training={}, reward={"mean": 0, "std": 1, "n": 1})
  loaded = ProcessRewardModel.from_pretrained(str(tmp_path / "prm"), aggregate="last")
  solution = (["hello"], [["red blue", "green one"]])
  assert loaded.score_steps(*solution)[0] == pytest.approx(made.score_steps(*solution)[0], abs=1e-6)
  assert loaded.score(*solution)[0] == loaded.score_steps(*solution)[0][-1]
  assert loaded.renderer.max_length == 64 and loaded.renderer.overlong == "drop_steps"
  assert ("one row for each step" in " ".join(loaded.described())) == (family == "bert")
  with pytest.raises(UsageError, match="is for outcome reward models"):
    ProcessRewardModel.from_pretrained(str(tmp_path / "prm"), overlong="truncate_left")


def test_texts_are_split_where_asked():
  model = process_model("bert")
  assert model.split("one\ntwo\n\n") == ["one", "two"], "[SEP] is no separator of texts"
  assert process_model("qwen2", step_separator="##").split("one##two\n") == ["one", "two\n"]
  assert model.split(["one\ntwo"]) == ["one\ntwo"]
