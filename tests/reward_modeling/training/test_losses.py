"""Each loss against a number worked by hand, a law and its definition."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reward_modeling.training.objectives import bradley_terry, centering

finite = st.floats(-20, 20, width=32)
pairs = st.lists(st.tuples(finite, finite), min_size=1, max_size=8)


def columns(rows):
  chosen, rejected = zip(*rows, strict=True)
  return torch.tensor(chosen, dtype=torch.float64), torch.tensor(rejected, dtype=torch.float64)


def test_by_hand():
  # log(1 + e^-2) = 0.126928, log 2 = 0.693147: their mean. Swapped arguments would give 1.410.
  loss = bradley_terry(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0]))
  assert loss.item() == pytest.approx((math.log(1 + math.exp(-2)) + math.log(2)) / 2, abs=1e-6)
  # A margin of 2 makes the first pair a tie: log 2. The weights 1.5 and 0.5 sum to the number of pairs.
  loss = bradley_terry(
    torch.tensor([2.0, 2.0]), torch.zeros(2), margin=torch.tensor([2.0, 0.0]), weight=torch.tensor([1.5, 0.5])
  )
  assert loss.item() == pytest.approx((1.5 * math.log(2) + 0.5 * 0.126928) / 2, abs=1e-6)
  # One label in ten believed wrong: 0.9 * 0.126928 + 0.1 * 2.126928.
  loss = bradley_terry(torch.tensor([2.0]), torch.tensor([0.0]), label_smoothing=0.1)
  assert loss.item() == pytest.approx(0.9 * 0.126928 + 0.1 * 2.126928, abs=1e-5)
  assert centering(torch.tensor([1.0, 2.0]), torch.tensor([-1.0, 0.0])).item() == 2.0
  assert centering(torch.tensor([1.0, 2.0]), torch.tensor([-1.0, 0.0]), torch.tensor([2.0, 0.5])).item() == 1.0


@given(pairs, st.floats(-30, 30))
def test_a_shared_shift_changes_nothing(rows, shift):
  chosen, rejected = columns(rows)
  assert bradley_terry(chosen + shift, rejected + shift).item() == pytest.approx(
    bradley_terry(chosen, rejected).item(), abs=1e-9
  )


@given(pairs, st.floats(0, 0.5))
def test_is_the_negative_log_likelihood_of_the_labels(rows, smoothing):
  chosen, rejected = columns(rows)
  expected = 0.0
  for c, r in rows:
    total = math.exp(c) + math.exp(r)
    expected -= (1 - smoothing) * math.log(math.exp(c) / total) + smoothing * math.log(math.exp(r) / total)
  assert bradley_terry(chosen, rejected, label_smoothing=smoothing).item() == pytest.approx(
    expected / len(rows), abs=1e-9
  )


def test_gradients_agree_with_finite_differences():
  chosen = torch.tensor([0.3, -1.0], dtype=torch.float64, requires_grad=True)
  rejected = torch.tensor([0.1, 2.0], dtype=torch.float64, requires_grad=True)
  margin, weight = torch.tensor([0.5, 0.0], dtype=torch.float64), torch.tensor([1.0, 0.3], dtype=torch.float64)

  def loss(c, r):
    return bradley_terry(c, r, margin=margin, weight=weight, label_smoothing=0.1) + 0.01 * centering(c, r, weight)

  assert torch.autograd.gradcheck(loss, (chosen, rejected))


def test_label_smoothing_has_its_optimum_at_the_share_it_believes():
  # With smoothing e the loss is least where sigmoid(difference) = 1 - e.
  difference = torch.linspace(-6, 6, 4801, dtype=torch.float64)
  losses = [bradley_terry(d[None], torch.zeros(1, dtype=torch.float64), label_smoothing=0.2).item() for d in difference]
  best = difference[losses.index(min(losses))]
  assert torch.sigmoid(best).item() == pytest.approx(0.8, abs=1e-3)


def test_one_ranking_weighs_as_much_as_one_pair():
  # Three completions make three pairs with weight 1/3 each; the collator scales by P / prompts = 3.
  chosen, rejected = torch.tensor([2.0, 2.0, 1.0]), torch.tensor([1.0, 0.0, 0.0])
  ranking = bradley_terry(chosen, rejected, weight=torch.full((3,), 1 / 3) * 3)
  assert ranking.item() == pytest.approx(sum(math.log(1 + math.exp(-d)) for d in (1, 2, 1)) / 3, abs=1e-6)
