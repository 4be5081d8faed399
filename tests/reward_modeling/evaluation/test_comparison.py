"""Two models on the same pairs: Holm's correction by hand, subsets, and the sentence that says which is better."""

import numpy as np
import pytest

from reward_modeling.data.records import Comparison
from reward_modeling.evaluation.pairs import PairEvaluation, compare, holm


def evaluation(right, subsets=None):
  """Of a model that is right (1), wrong (0) or undecided (None: not scored) on each pair."""
  pairs = [
    Comparison([{"role": "user", "content": str(i)}], [], [], metadata={"subset": subsets[i]} if subsets else {})
    for i in range(len(right))
  ]
  scored = [(pair, None if one is None else float(one), 0.5) for pair, one in zip(pairs, right, strict=True)]
  return PairEvaluation(np.array([]), np.array([]), None, scored)


def test_holm_by_hand():
  """Of three: the smallest times 3, the next times 2, the largest times 1, and none below the one before."""
  assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
  assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_the_better_model_is_named_first_whichever_it_is():
  better, worse = [1] * 20, [0] * 12 + [1] * 8
  for names, (a, b) in ((("good", "bad"), (better, worse)), (("bad", "good"), (worse, better))):
    whole, by_subset, verdict = compare(evaluation(a), evaluation(b), names)
    assert verdict.startswith("good is better than bad: accuracy 1.000 against 0.400, difference +0.600 [+0.")
    assert by_subset == {}
    assert whole.only_a + whole.only_b == 12


def test_a_difference_that_could_be_luck_is_called_so():
  _, _, verdict = compare(evaluation([1] * 3 + [0] * 3), evaluation([0, 1, 1, 0, 0, 0]), ("a", "b"))
  assert verdict.startswith("it is not shown which of a and b is better: accuracy 0.500 against 0.333")


def test_subsets_that_differ_in_opposite_ways_are_told_where_the_whole_is_even():
  a, b = [1] * 10 + [0] * 10, [0] * 10 + [1] * 10
  whole, by_subset, verdict = compare(
    evaluation(a, ["x"] * 10 + ["y"] * 10), evaluation(b, ["x"] * 10 + ["y"] * 10), ("a", "b")
  )
  assert whole.difference.value == 0 and by_subset["x"].difference.value == 1 and by_subset["y"].only_b == 10
  assert by_subset["x"].p == pytest.approx(2 * by_subset["x"].prompt_sign_test_p) == 2 * 2 / 2**10
  assert verdict.endswith("but they differ on x, y")


def test_a_pair_that_one_model_could_not_score_counts_for_neither():
  subsets = ["x", "x", "y"]
  whole, by_subset, _ = compare(evaluation([1, 1, None], subsets), evaluation([1, 0, 1], subsets), ("a", "b"))
  assert whole.n_pairs == 2 and set(by_subset) == {"x"}
