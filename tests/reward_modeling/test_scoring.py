"""Rewards do not depend on batch size, order, padding or company."""

import random

import pytest
import torch

from conftest import DECODERS, ENCODERS, computed_rows
from reward_modeling import checkpoints
from reward_modeling.errors import RunError
from reward_modeling.rendering import Renderer
from reward_modeling.scoring import RewardModel, ranked


@pytest.fixture(scope="module")
def model_of(tiny):
  def make(family, **kwargs):
    loaded = checkpoints.load_for_training(str(tiny(family)))
    renderer = Renderer(
      loaded.tokenizer, **{"max_length": 128, "scored_at": checkpoints.scored_at(loaded.model), **kwargs}
    )
    return RewardModel(loaded.model.eval(), renderer, card={"reward": {"mean": 1.0, "std": 2.0}})

  return make


def sample(n, seed=0):
  rng = random.Random(seed)
  words = ["apples", "basket", "red", "blue", "green", "one", "two", "three", "hello", "world", "thank", "you"]
  prompts = [" ".join(rng.choice(words) for _ in range(rng.randint(1, 12))) for _ in range(n)]
  answers = [" ".join(rng.choice(words) for _ in range(rng.randint(1, 20))) for _ in range(n)]
  return prompts, answers


@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
def test_scores_equal_one_at_a_time(family, model_of):
  model = model_of(family)
  prompts, answers = sample(24)
  alone = []
  for prompt, answer in zip(prompts, answers, strict=True):  # one forward pass each, no padding, no mask
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    ids = model.renderer.tokenizer(model.renderer.text(messages), add_special_tokens=False, return_tensors="pt")[
      "input_ids"
    ]
    with torch.no_grad():
      alone.append(model.model(input_ids=ids).logits[0, 0].item())
  assert torch.tensor(alone).std() > 0.05, "a head that gives one score to all would pass any test"
  assert (model.why_padded is None) == (family in DECODERS), "the wrong path would be tested below"
  for budget in (1, 64, 100_000, None):
    model.max_tokens_per_batch = budget
    assert model.score(prompts, answers) == pytest.approx(alone, abs=1e-5)
  order = list(range(24))
  random.Random(1).shuffle(order)
  shuffled = model.score([prompts[i] for i in order], [answers[i] for i in order])
  assert shuffled == pytest.approx([alone[i] for i in order], abs=1e-5)


def test_completions_may_be_one_or_several_in_text_or_messages(model_of):
  model = model_of("qwen2")
  flat = model.score(["hello", "hello", "world"], ["one", "two", "red"])
  assert model.score(["hello", "world"], [["one", "two"], "red"]) == [pytest.approx(flat[:2]), pytest.approx(flat[2])]
  messages = [[{"role": "user", "content": "hello"}]], [[{"role": "assistant", "content": "one"}]]
  assert model.score(*messages) == pytest.approx(flat[:1])
  nested = [[[{"role": "assistant", "content": "one"}], [{"role": "assistant", "content": "two"}]]]
  assert model.score(["hello"], nested)[0] == pytest.approx(flat[:2])
  with pytest.raises(ValueError, match="2 prompts but 1"):
    model.score(["a", "b"], ["c"])


def test_rank_orders_by_score_and_keeps_ties_in_input_order(model_of):
  model = model_of("qwen2")
  answers = ["one", "two", "one", "three apples"]
  order = model.rank("hello", answers)
  scores = model.score(["hello"], [answers])[0]
  assert [item.score for item in order] == sorted(scores, reverse=True)
  places = [item.index for item in order]
  assert places.index(0) + 1 == places.index(2), "equal answers tie, the first stays first"
  assert [item.completion for item in order] == [answers[i] for i in places]


def test_equal_completions_are_computed_once_where_batches_are_padded(model_of, monkeypatch):
  model = model_of("bert")
  answers = ["red", "blue", "red", "red", "green blue"]
  alone = [model.score(["hello"], [answer])[0] for answer in answers]
  rows = computed_rows(monkeypatch)
  assert model.score(["hello"], [answers])[0] == pytest.approx(alone, abs=1e-6)
  assert len(rows) == 3


def test_ranked_puts_what_was_not_scored_last():
  assert [item.index for item in ranked([None, -1.0, 2.0], ["a", "b", "c"])] == [2, 1, 0]


def test_left_out_completions_score_none(model_of):
  model = model_of("qwen2", max_length=24, overlong="drop")
  scores = model.score(["hello", "hello"], ["one", "one two three four five six " * 4])
  assert scores[0] is not None and scores[1] is None
  assert model.renderer.counts["dropped"] == 1


def test_normalise_uses_the_saved_mean_and_std(model_of):
  model = model_of("qwen2")
  assert model.normalize([1.0, 5.0, None]) == [0.0, 2.0, None]
  model.card = None
  with pytest.raises(RunError, match="no reward mean"):
    model.normalize([1.0])


@pytest.mark.parametrize("padded", [False, True])
def test_a_model_that_pads_with_eos_is_scored_where_transformers_scores_it(padded, model_of, monkeypatch):
  """A foreign model may have been trained so: its score is that of the token before EOS."""
  model = model_of("llama")
  eos = model.renderer.tokenizer.eos_token_id
  monkeypatch.setattr(model.model.config, "pad_token_id", eos)
  if padded:
    model.why_padded = "a test says so"
  rows = [[5, 6, 7, eos], [5, 6, 7, 8, 9, eos, eos], [5, 6]]
  with torch.no_grad():
    expected = [model.model(input_ids=torch.tensor([row])).logits[0, 0].item() for row in rows]
  assert model.score_ids(rows) == pytest.approx(expected, abs=1e-5)


def test_a_reward_that_is_no_number_stops_the_run(model_of):
  model = model_of("llama")
  model.model.score.weight.data[:] = float("nan")
  with pytest.raises(RunError, match="2 rewards that are not finite"):
    model.score(["a", "b"], ["c", "d"])
