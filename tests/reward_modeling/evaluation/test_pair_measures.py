"""Measures of pairs: numbers worked by hand, laws, second routes, and data at the edge of what can be measured."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_modeling.data.records import Comparison
from reward_modeling.errors import DataError, RunError
from reward_modeling.evaluation import inputs
from reward_modeling.evaluation.intervals import Estimate
from reward_modeling.evaluation.pair_measures import (
  Bin,
  calibration,
  compare_outcomes,
  pair_outcomes,
  reliability,
  summarize_pairs,
)
from reward_modeling.results import finite, to_json

pytestmark = pytest.mark.filterwarnings("error")

law = settings(deadline=None)  # a busy machine is no failure

rewards = st.integers(-8, 8)
rows_of_pairs = st.lists(
  st.tuples(
    rewards, rewards, st.integers(0, 5), st.integers(0, 5), st.integers(0, 4), st.sampled_from(["a", "b", "(none)"])
  ),
  min_size=1,
  max_size=25,
)


def summary_of(rows):
  return summarize_pairs(
    *(np.array(column) for column in list(zip(*rows, strict=True))[:4]), *list(zip(*rows, strict=True))[4:]
  )


def of_margins(margins, **more):
  """A summary of pairs with these margins and equal lengths."""
  n = len(margins)
  return summarize_pairs(margins, [0.0] * n, [1] * n, [1] * n, **more)


def flat(value, prefix=""):
  """A nested result as {path: leaf}, to compare two summaries within rounding."""
  value = finite(value)
  if isinstance(value, dict):
    return {k: v for key, item in value.items() for k, v in flat(item, f"{prefix}/{key}").items()}
  if isinstance(value, list):
    return flat(dict(enumerate(value)), prefix)
  return {prefix: value}


def assert_same(first, second):
  assert flat(first) == {path: pytest.approx(value, abs=1e-9) for path, value in flat(second).items()}


# Worked by hand


def test_pair_outcomes():
  assert pair_outcomes([2, 1, 0], [1, 1, 1]).tolist() == [1, 0.5, 0]


def test_margins():
  assert vars(of_margins([-1, 0, 1, 2, 3]).margin) == pytest.approx(
    {"mean": 1, "std": math.sqrt(2), "q05": -0.8, "q25": 0, "q50": 1, "q75": 2, "q95": 2.8}, abs=1e-12
  )


def test_log_loss_and_brier_of_a_tie_and_of_three_to_one():
  """sigmoid(log 3) = 3/4: (log 2 + log 4/3) / 2 and (1/4 + 1/16) / 2."""
  found = of_margins([0, math.log(3)])
  assert found.log_loss == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
  assert found.brier == pytest.approx(0.15625)


def test_log_loss_and_brier_take_weights():
  found = of_margins([0, 1e9], weights=[3, 1])
  assert (found.log_loss, found.brier) == pytest.approx((0.75 * math.log(2), 0.1875))


def test_log_loss_of_a_huge_wrong_margin_is_the_margin():
  assert of_margins([-1e6]).log_loss == pytest.approx(1e6)


def test_ece_of_three_sure_pairs_and_a_tie():
  """Three pairs 0.72 sure, two of them right: |2/3 - 0.72| * 3/4 = 0.04; the tie is 1/2 sure and half right."""
  sure = math.log(0.72 / 0.28)
  table = reliability([sure, sure, -sure, 0])
  assert table == [
    Bin(0.5, pytest.approx(0.55), n=1, share=0.25, confidence=0.5, accuracy=0.5),
    Bin(
      pytest.approx(0.7),
      pytest.approx(0.75),
      n=3,
      share=0.75,
      confidence=pytest.approx(0.72),
      accuracy=pytest.approx(2 / 3),
    ),
  ]
  found = calibration(table)
  assert found.ece == pytest.approx(0.04) and found.overconfidence == pytest.approx(0.04)
  assert found.ece_if_calibrated == pytest.approx(0.75 * 0.206835 + 0.25 * 0.398942, abs=1e-5)


def test_a_timid_model_is_underconfident():
  assert calibration(reliability([0.1] * 10)).overconfidence < -0.4


def test_certainty_falls_into_the_last_bin():
  assert [row.to for row in reliability([1e4, -1e4])] == [1.0]


def test_length_by_hand():
  """Longer chosen in 3 of 5 pairs, as long in 1: baseline (3 + 1/2) / 5. Right in 2 of 3 and 1 of 1, tied in 1."""
  chosen, rejected = [3, 3, 0, 5, 1], [1, 1, 1, 1, 1]
  found = summarize_pairs(chosen, rejected, [9, 8, 7, 2, 4], [1, 2, 3, 6, 4]).length
  assert (found.longer_chosen_share, found.same_length_share) == (0.6, 0.2)
  assert (found.baseline_longer.value, found.baseline_shorter.value) == pytest.approx((0.7, 0.3))
  assert found.accuracy_longer_chosen.value == pytest.approx(2 / 3)
  assert found.accuracy_shorter_chosen.value == 1.0
  assert found.accuracy_same_length.value == 0.5
  assert found.gain_over_baseline.value == pytest.approx(0.0)


def test_gain_is_over_the_better_baseline_even_if_that_is_the_shorter():
  found = summarize_pairs([1, 1, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1], [2, 2, 2, 2]).length
  assert found.gain_over_baseline.value == -0.25


def test_a_model_that_reads_only_lengths_has_correlation_one():
  lengths, others = [3, 9, 4, 7, 5], [8, 2, 6, 1, 10]
  found = summarize_pairs(lengths, others, lengths, others).length
  assert found.spearman_reward_length.value == pytest.approx(1.0)
  assert found.spearman_margin_length_difference.value == pytest.approx(1.0)
  assert found.spearman_reward_length.n == 10 and found.spearman_reward_length.groups == 5


def test_both_answers_of_a_pair_belong_to_one_prompt():
  """Lengths and rewards differ between prompts only: 4 prompts are too few to exclude 0, 8 answers would not be."""
  found = summarize_pairs([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]).length.spearman_reward_length
  assert found.value == pytest.approx(1.0) and found.low < 0


def test_macro_and_micro():
  """Subset a: 3 of 4 right; b: 0 of 1. Macro (0.75 + 0) / 2, micro 3 / 5."""
  found = summarize_pairs([1, 1, 1, 0, 0], [0, 0, 0, 1, 1], [1] * 5, [1] * 5, subsets=["a", "a", "a", "a", "b"])
  assert {name: (row.value, row.n) for name, row in found.subsets.items()} == {"a": (0.75, 4), "b": (0.0, 1)}
  assert (found.macro_accuracy.value, found.micro_accuracy.value) == pytest.approx((0.375, 0.6))


def test_weights_move_accuracy_but_not_micro_accuracy():
  found = summarize_pairs([1, 0], [0, 1], [1, 1], [1, 1], weights=[3, 1])
  assert (found.accuracy.value, found.micro_accuracy.value) == (0.75, 0.5)


def test_pairs_without_a_subset_are_counted_under_a_name():
  pairs = [Comparison([], [], [], metadata=one) for one in ({"subset": "x"}, {}, {"subset": None}, {"subset": 3})]
  names = inputs.subsets(pairs, None)
  assert names == ["x", "(none)", "(none)", "3"] and inputs.subsets(pairs[1:2], None) is None
  assert {name: one.n for name, one in of_margins([1, -1, 1, 1], subsets=names).subsets.items()} == {
    **{"(none)": 2, "3": 1, "x": 1}
  }


def test_mcnemar_by_hand():
  """1 against 8 discordant pairs: 2 * (C(9,0) + C(9,1)) / 2^9 = 20 / 512."""
  found = compare_outcomes([1] * 8 + [0] * 2 + [1, 0.5], [0] * 8 + [1] + [0] + [1, 0.5])
  counts = {name: getattr(found, name) for name in ("both_right", "only_a", "only_b", "both_wrong", "both_tied")}
  assert counts == {"both_right": 1, "only_a": 8, "only_b": 1, "both_wrong": 1, "both_tied": 1}
  assert found.mcnemar_p == found.prompt_sign_test_p == pytest.approx(20 / 512)
  assert found.difference.value == pytest.approx(7 / 12)


def test_a_tie_against_a_right_answer_is_discordant():
  found = compare_outcomes([1, 0.5], [0.5, 0])
  assert (found.only_a, found.only_b, found.mcnemar_p) == (2, 0, 0.5)


def test_eight_wins_on_one_prompt_are_one_vote():
  found = compare_outcomes([1] * 8, [0] * 8, groups=["p"] * 8)
  assert found.mcnemar_p == pytest.approx(2 / 256) and found.prompt_sign_test_p == 1.0


# Second routes


@pytest.mark.parametrize("seed", range(3))
def test_calibration_and_losses_by_a_plain_loop(seed):
  margins = [*np.random.default_rng(seed).normal(0.4, 1.5, size=200).tolist(), 0.0, 0.0]
  loss = square = ece = signed = 0.0
  bins = {}
  for margin in margins:
    p = 1 / (1 + math.exp(-margin))
    loss -= math.log(p)
    square += (1 - p) ** 2
    correct = 0.5 if margin == 0 else float(margin > 0)
    bins.setdefault(min(math.floor((max(p, 1 - p) - 0.5) / 0.05), 9), []).append((max(p, 1 - p), correct))
  for inside in bins.values():
    gap = sum(confidence - correct for confidence, correct in inside)
    ece, signed = ece + abs(gap), signed + gap
  found = of_margins(margins)
  assert (found.log_loss, found.brier) == pytest.approx((loss / len(margins), square / len(margins)))
  assert (found.ece, found.overconfidence) == pytest.approx((ece / len(margins), signed / len(margins)))


def test_ece_if_calibrated_is_what_calibrated_models_show():
  """Labels drawn from the model's own probabilities, 150 pairs, 400 times."""
  rng = np.random.default_rng(0)
  shown, expected = [], []
  for _ in range(400):
    sure = np.abs(rng.normal(0, 1.5, size=150))
    right = rng.random(150) < 1 / (1 + np.exp(-sure))
    found = calibration(reliability(np.where(right, sure, -sure)))
    shown.append(found.ece)
    expected.append(found.ece_if_calibrated)
  assert np.mean(shown) == pytest.approx(np.mean(expected), rel=0.1)


def test_macro_is_the_mean_of_the_table():
  rng = np.random.default_rng(1)
  found = of_margins(rng.choice([-1, 0, 1], 90), subsets=rng.choice(list("abcd"), 90), weights=rng.random(90))
  mean = sum(row.value for row in found.subsets.values()) / len(found.subsets)
  assert found.macro_accuracy.value == pytest.approx(mean)


# Laws


@law
@given(rows_of_pairs)
def test_swapping_every_pair_mirrors_the_accuracy(rows):
  mirrored = [(r, c, rl, cl, *rest) for c, r, cl, rl, *rest in rows]
  one, other = summary_of(rows).accuracy, summary_of(mirrored).accuracy
  assert (one.value + other.value, one.low + other.high) == pytest.approx((1, 1))


@law
@given(rows_of_pairs, st.integers(-100, 100))
def test_a_constant_added_to_all_rewards_changes_nothing(rows, shift):
  assert_same(summary_of([(c + shift, r + shift, *rest) for c, r, *rest in rows]), summary_of(rows))


@law
@given(rows_of_pairs)
def test_a_monotone_transform_leaves_accuracy_and_reward_ranks(rows):
  one, other = summary_of(rows), summary_of([(c**3 + c, r**3 + r, *rest) for c, r, *rest in rows])
  for key in ("accuracy", "ties", "subsets", "macro_accuracy", "micro_accuracy"):
    assert_same(getattr(one, key), getattr(other, key))
  assert_same(one.length.spearman_reward_length, other.length.spearman_reward_length)


@law
@given(rows_of_pairs, st.randoms(use_true_random=False))
def test_the_order_of_pairs_changes_nothing(rows, random):
  assert_same(summary_of(random.sample(rows, len(rows))), summary_of(rows))


@law
@given(rows_of_pairs)
def test_every_summary_is_json(rows):
  found = summary_of(rows)
  told = json.loads(to_json(found))
  assert told == finite(found)
  assert list(told["length"]) == list(vars(found.length)) and set(told) == set(vars(found))


@law
@given(st.integers(1, 50))
def test_a_blind_model_scores_log_two(n):
  found = summarize_pairs([0.0] * n, [0.0] * n, [1] * n, [1] * n)
  assert found.log_loss == pytest.approx(math.log(2)) == found.blind.log_loss
  assert (found.brier, found.accuracy.value, found.ece) == (0.25, 0.5, 0.0)
  assert found.ties == n and found.tie_share == 1.0


@law
@given(st.lists(st.tuples(*[st.sampled_from([0.0, 0.5, 1.0])] * 2), min_size=1, max_size=30))
def test_the_counts_of_a_comparison_partition_the_pairs(rows):
  a, b = zip(*rows, strict=True)
  found, swapped = compare_outcomes(a, b), compare_outcomes(b, a)
  assert sum(getattr(found, k) for k in ("both_right", "only_a", "only_b", "both_wrong", "both_tied")) == len(rows)
  assert found.mcnemar_p == pytest.approx(swapped.mcnemar_p) and 0 <= found.mcnemar_p <= 1
  assert found.only_a == swapped.only_b


# At the edge


def test_one_pair():
  found = summarize_pairs([1.0], [0.0], [5], [5])
  assert found.accuracy == Estimate(1.0, pytest.approx(0.20655, abs=1e-5), 1.0, n=1, groups=1)
  assert found.length.accuracy_longer_chosen is None and found.length.spearman_reward_length is None
  assert found.subsets == {} and found.macro_accuracy is None


def test_constant_lengths_have_no_correlation():
  found = summarize_pairs(range(9), [4] * 9, [7] * 9, [7] * 9).length
  assert found.spearman_reward_length is None and found.spearman_margin_length_difference is None
  assert found.baseline_longer.value == 0.5


def test_no_pairs():
  with pytest.raises(DataError, match=r"^no pairs to evaluate$"):
    summarize_pairs([], [], [], [])
  with pytest.raises(DataError, match=r"^no pairs to evaluate$"):
    compare_outcomes([], [])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rewards_that_are_no_numbers_are_counted(bad):
  with pytest.raises(RunError) as caught:
    summarize_pairs([0.0, 1.0, bad, 1.0], [0.0, 1.0, bad, bad], [1] * 4, [1] * 4)
  assert str(caught.value) == "2 of 4 pairs have a reward that is NaN or infinite, the first at index 2"


def test_arrays_of_different_length_are_a_mistake_of_the_caller():
  with pytest.raises(ValueError):
    summarize_pairs([1, 2], [1, 2], [1], [1, 2])
