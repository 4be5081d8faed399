"""Each objective against a number worked by hand, a law, and finite differences."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reward_modeling.attributes import Attribute, by_head, collapsed, combined, labels_of, of_card, reweighted
from reward_modeling.training.objectives import OBJECTIVES, bradley_terry, of_ratings, plackett_luce
from reward_modeling.training.ratings import fitted_weights

finite = st.floats(-8, 8, width=32)


def pairs_of(*rankings, weights=None):
  """Tensors of rankings given as lists of scores, as the collator lays them out; their answers follow each other."""
  found = {name: [] for name in ("chosen", "rejected", "weight", "margin", "stage")}
  start, total = 0, 0
  for row, scores in enumerate(rankings):
    own = [(i, j) for i in range(len(scores)) for j in range(len(scores)) if scores[i] > scores[j]]
    for i, j in own:
      found["chosen"].append(start + i)
      found["rejected"].append(start + j)
      weight = (weights or [1.0] * len(rankings))[row]
      found["weight"].append(weight / len(own))
      stages = len({one for one, _ in own})
      found["stage"].append(weight / stages / sum(one == i for one, _ in own))
      found["margin"].append(scores[i] - scores[j])
    start, total = start + len(scores), total + len(own)
  of_floats = ("weight", "margin", "stage")
  made = {name: torch.tensor(v, dtype=torch.float64 if name in of_floats else None) for name, v in found.items()}
  for name in ("weight", "stage"):
    made[name] = made[name] * total / len(rankings)
  return made


def test_plackett_luce_by_hand():
  # Three answers, best first, rewards 2, 1, 0: -log(e^2 / (e^2 + e + 1)) = 0.40761, -log(e / (e + 1)) = 0.31326.
  loss = plackett_luce(torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64), pairs_of([3.0, 2.0, 1.0]))
  assert loss.item() == pytest.approx((0.4076059 + 0.3132617) / 2, abs=1e-6)
  # A second prompt of two equal rewards, log 2, counts as much; the answers of one prompt are not compared with another's.
  rewards = torch.tensor([2.0, 1.0, 0.0, 5.0, 5.0], dtype=torch.float64)
  both = plackett_luce(rewards, pairs_of([3.0, 2.0, 1.0], [1.0, 0.0]))
  assert both.item() == pytest.approx((loss.item() + math.log(2)) / 2, abs=1e-9)
  heavy = plackett_luce(rewards, pairs_of([3.0, 2.0, 1.0], [1.0, 0.0], weights=[1.0, 3.0]))
  assert heavy.item() == pytest.approx((loss.item() + 3 * math.log(2)) / 2, abs=1e-9)


@given(st.lists(finite, min_size=2, max_size=5, unique=True), finite)
def test_plackett_luce_is_the_probability_of_the_ranking(rewards, shift):
  """By enumeration: drawing without replacement, with probabilities exp(reward)."""
  order, left = range(len(rewards)), list(rewards)
  log_p = 0.0
  for reward in rewards[:-1]:
    log_p += reward - math.log(sum(map(math.exp, left)))
    left = left[1:]
  pairs = pairs_of([-float(place) for place in order])
  given_rewards = torch.tensor(rewards, dtype=torch.float64)
  loss = plackett_luce(given_rewards, pairs)
  assert loss.item() == pytest.approx(-log_p / (len(rewards) - 1), abs=1e-9)
  assert plackett_luce(given_rewards + shift, pairs).item() == pytest.approx(loss.item(), abs=1e-9)


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=4))
def test_plackett_luce_of_two_answers_is_bradley_terry(rows):
  rewards = torch.tensor([one for row in rows for one in row], dtype=torch.float64)
  pairs = pairs_of(*[[1.0, 0.0] for _ in rows])
  expected = bradley_terry(rewards[::2], rewards[1::2])
  assert plackett_luce(rewards, pairs).item() == pytest.approx(expected.item(), abs=1e-9)


def test_equal_scores_are_not_compared():
  pairs = pairs_of([1.0, 0.0, 0.0])
  rewards = torch.tensor([0.5, 3.0, -1.0], dtype=torch.float64, requires_grad=True)
  plackett_luce(rewards, pairs).backward()
  # Two worse answers are pushed down by their share of what was not the best: softmax, whatever their own order.
  share = torch.softmax(rewards.detach(), 0)
  assert rewards.grad.tolist() == pytest.approx((share - torch.tensor([1.0, 0.0, 0.0])).tolist(), abs=1e-9)


def test_scaled_bradley_terry_by_hand():
  # HelpSteer2-Preference: -m log sigmoid(d); margins 3 and 1, differences 2 and 0.
  rewards = torch.tensor([2.0, 0.0, 0.0, 0.0], dtype=torch.float64)
  pairs = pairs_of([3.0, 0.0], [1.0, 0.0])
  loss = OBJECTIVES["scaled_bradley_terry"].loss(rewards, pairs, 0.0)
  assert loss.item() == pytest.approx((3 * 0.126928 + math.log(2)) / 2, abs=1e-6)
  # The margin that is subtracted gives another loss: -log sigmoid(2 - 3), -log sigmoid(-1).
  loss = OBJECTIVES["bradley_terry"].loss(rewards, pairs, 0.0)
  assert loss.item() == pytest.approx(math.log(1 + math.e), abs=1e-6)


HEADS = {
  "regression": (Attribute("help", "regression", 0.5, mean=2.0, std=2.0), Attribute("long", "regression", -1.0)),
  "ordinal": (
    Attribute("help", "ordinal", 0.5, levels=(0.0, 1.0, 4.0)),
    Attribute("long", "ordinal", levels=(1.0, 2.0)),
  ),
  "binary": (Attribute("help", "binary", 0.5), Attribute("long", "binary")),
}
NAN = math.nan


def test_losses_of_ratings_by_hand():
  # (1 - (4 - 2) / 2)^2 = 0, (0 - (3 - 0) / 1)^2 = 9, and one rating is missing: their mean is of two.
  logits, ratings = torch.tensor([[1.0, 0.0], [5.0, 7.0]]), torch.tensor([[4.0, 3.0], [NAN, NAN]])
  assert of_ratings("regression", logits, ratings, HEADS["regression"]).item() == pytest.approx(4.5)
  # help = 1 is above 0 and not above 1: log(1 + e^-2) + log(1 + e^-1); long = 1 is not above 1: log(1 + e^3).
  logits, ratings = torch.tensor([[2.0, -1.0, 3.0]]), torch.tensor([[1.0, 1.0]])
  expected = (0.126928 + 0.313262 + 3.048587) / 2
  assert of_ratings("ordinal", logits, ratings, HEADS["ordinal"]).item() == pytest.approx(expected, abs=1e-5)
  logits, ratings = torch.tensor([[2.0, 2.0]]), torch.tensor([[1.0, 0.0]])
  expected = (0.126928 + 2.126928) / 2
  assert of_ratings("binary", logits, ratings, HEADS["binary"]).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("objective", HEADS)
def test_missing_ratings_move_nothing(objective):
  heads = HEADS[objective]
  logits = torch.randn(3, len(labels_of(heads)), dtype=torch.float64, requires_grad=True)
  of_ratings(objective, logits, torch.tensor([[1.0, NAN], [NAN, 1.0], [NAN, NAN]]), heads).backward()
  first, second = by_head(logits.grad, heads)
  assert first[0].abs().min() > 0 and second[1].abs().min() > 0
  assert not first[1:].any() and not second[[0, 2]].any()


@pytest.mark.parametrize("objective", HEADS)
def test_gradients_of_ratings_agree_with_finite_differences(objective):
  heads = HEADS[objective]
  logits = torch.linspace(-2, 2, 3 * len(labels_of(heads)), dtype=torch.float64).reshape(3, -1).requires_grad_()
  ratings = torch.tensor([[1.0, NAN], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
  assert torch.autograd.gradcheck(lambda given: of_ratings(objective, given, ratings, heads), (logits,))


@pytest.mark.parametrize("objective", ["bradley_terry", "scaled_bradley_terry", "plackett_luce"])
def test_gradients_of_pairs_agree_with_finite_differences(objective):
  rewards = torch.tensor([0.3, -1.0, 2.0, 0.1, 0.1], dtype=torch.float64, requires_grad=True)
  pairs = pairs_of([2.0, 1.0, 0.0], [1.0, 0.5])
  assert torch.autograd.gradcheck(lambda given: OBJECTIVES[objective].loss(given, pairs, 0.0), (rewards,))


@pytest.mark.parametrize("ratings", [[0.0, 0.0, 1.0, 4.0], [4.0, 4.0, 4.0, 1.0]])
def test_ordinal_regression_of_one_number_finds_the_mean_rating(ratings):
  """Without inputs the best logits are the log-odds of each level, whose expected value is the mean."""
  (head, _), logits = HEADS["ordinal"], torch.zeros(2, dtype=torch.float64, requires_grad=True)
  targets = torch.tensor(ratings, dtype=torch.float64)[:, None]
  optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

  def closure():
    optimizer.zero_grad()
    loss = of_ratings("ordinal", logits.expand(4, 2), targets, (head,))
    loss.backward()
    return loss

  optimizer.step(closure)
  assert head.value(logits.detach()).item() == pytest.approx(sum(ratings) / 4, abs=1e-3)


def test_values_and_reward_of_heads_by_hand():
  (value,) = combined(torch.tensor([[1.0, 3.0]]), HEADS["regression"]).tolist()
  assert value == [0.5 * 4.0 - 3.0, 4.0, 3.0]
  # 0 + 1 sigmoid(0) + 3 sigmoid(0), and 1 + sigmoid(0).
  (value,) = combined(torch.zeros(1, 3), HEADS["ordinal"]).tolist()
  assert value == [0.5 * 2.0 + 1.5, 2.0, 1.5]
  (value,) = combined(torch.tensor([[1.0, -2.0]]), HEADS["binary"]).tolist()
  assert value == [0.5 - 2.0, 1.0, -2.0]


@given(st.lists(finite, min_size=3, max_size=3), st.integers(0, 2), st.floats(0.01, 5))
def test_a_higher_logit_never_lowers_an_attribute(logits, place, more):
  heads = HEADS["ordinal"]
  before = torch.tensor([logits], dtype=torch.float64)
  after = before.clone()
  after[0, place] += more
  assert (combined(after, heads) >= combined(before, heads)).all()


@pytest.mark.parametrize("objective", HEADS)
def test_one_reward_of_the_heads_has_their_slope(objective):
  heads = reweighted(HEADS[objective], {"help": 0.65, "long": -0.4})
  weight = torch.randn(len(labels_of(heads)), 7, dtype=torch.float64)
  one = collapsed(weight, heads)

  def reward(state):
    return combined((weight @ state)[None], heads)[0, 0]

  slope = torch.autograd.functional.jacobian(reward, torch.zeros(7, dtype=torch.float64))
  assert torch.allclose(one[0], slope, atol=1e-9)
  if objective != "ordinal":  # linear: the difference of two rewards is that of the heads everywhere
    state = torch.randn(2, 7, dtype=torch.float64)
    assert (one @ (state[0] - state[1])).item() == pytest.approx((reward(state[0]) - reward(state[1])).item(), abs=1e-6)


@pytest.mark.parametrize("objective", HEADS)
def test_a_card_keeps_heads(objective):
  assert of_card({"attributes": [vars(one) for one in HEADS[objective]]}) == HEADS[objective]
  assert of_card({}) == of_card(None) == ()


def test_fitted_weights_are_those_that_made_the_pairs():
  generator = torch.Generator().manual_seed(0)
  true = torch.tensor([0.65, -0.4, 0.0], dtype=torch.float64)
  differences = torch.randn(20_000, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.5])
  won = torch.rand(20_000, generator=generator) < torch.sigmoid(differences @ true)
  signed = differences * torch.where(won, 1.0, -1.0)[:, None]
  found = fitted_weights(signed.numpy())
  assert found == pytest.approx(true.tolist(), abs=0.1) and found[0] == pytest.approx(0.65, abs=0.05)

  def loss(weights):
    return -torch.nn.functional.logsigmoid(signed @ torch.as_tensor(weights, dtype=torch.float64)).mean().item()

  for place in range(3):  # no step from it is better, but for the small ridge
    for step in (-0.05, 0.05):
      moved = [value + step * (i == place) for i, value in enumerate(found)]
      assert loss(moved) > loss(found) - 1e-4


def test_pairs_that_weights_order_perfectly_give_finite_weights():
  found = fitted_weights(torch.tensor([[1.0, 0.0], [2.0, 0.0]]).numpy())
  assert 0 < found[0] < 100 and abs(found[1]) < 1e-3
