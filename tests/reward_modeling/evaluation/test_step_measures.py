"""Measures of steps: numbers worked by hand, scikit-learn as the second route, enumeration for the threshold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from reward_modeling.data.records import Solution
from reward_modeling.errors import DataError
from reward_modeling.evaluation import steps as step_measures


def solution(labels, prompt="2+2?", texts=None, **metadata):
  texts = texts or [f"step {i}" for i in range(len(labels))]
  return Solution([{"role": "user", "content": prompt}], texts, labels, metadata=metadata)


# The first: an error at step 1, of which the first flag is at step 0. The second: correct, and nothing is flagged.
# The third: an error at step 1, found.
SOLUTIONS = [solution([1, 0, 1], "a"), solution([1, 1], "b"), solution([1, 0], "c")]
SCORES = [[0.4, 0.3, 0.9], [0.8, 0.7], [0.6, 0.2]]


def test_measures_by_hand():
  data = step_measures.labeled_steps(SOLUTIONS, SCORES)
  found = step_measures.measures(data, np.full(3, 0.5))
  value = {name: estimate.value for name, estimate in vars(found).items()}
  # Of 7 steps 3 are flagged, 2 of them rightly; both wrong steps are flagged.
  assert value["step_accuracy"] == pytest.approx(6 / 7)
  assert value["precision"] == pytest.approx(2 / 3) and value["recall"] == 1
  assert value["f1"] == pytest.approx(0.8)
  assert value["auroc"] == 1.0
  assert value["first_error_accuracy"] == pytest.approx(2 / 3)
  assert value["erroneous"] == 0.5 and value["correct"] == 1.0
  assert value["processbench_f1"] == pytest.approx(2 / 3)
  assert found.step_accuracy.n == 7 and found.step_accuracy.groups == 3


def test_what_is_not_labelled_or_not_scored():
  rows = [
    solution([1, 0], texts=["a", "b", "c", "d"]),  # labels stop at the error: all is known
    solution([1, 1], texts=["a", "b", "c"]),  # labels stop without an error: nobody knows
    solution([1, None, 1]),  # one label is missing within
    solution([1, 1, 0]),  # the error itself was not scored
    solution([0, 1]),  # scored up to the error
  ]
  scores = [[0.9, 0.1, 0.5, 0.5], [0.9] * 3, [0.9] * 3, [0.9, 0.9, None], [0.1, None]]
  data = step_measures.labeled_steps(rows, scores)
  assert data.first_error.tolist() == [1, step_measures.UNKNOWN, step_measures.NO_ERROR, step_measures.UNKNOWN, 0]
  assert data.owner.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4] and len(data.scores) == 9
  assert data.place.tolist() == [0, 1, 0, 1, 0, 2, 0, 1, 0]
  with pytest.raises(DataError, match="no labeled step could be scored"):
    step_measures.labeled_steps([solution([1])], [[None]])


def test_soft_labels_are_wrong_under_one_half():
  data = step_measures.labeled_steps([solution([0.9, 0.49, 0.5])], [[0.5] * 3])
  assert data.wrong.tolist() == [False, True, False]


flat = st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]), st.booleans()), min_size=2, max_size=40)


@settings(deadline=None)
@given(flat)
def test_step_measures_equal_scikit_learn(rows):
  scores, wrong = (np.array(column) for column in zip(*rows, strict=True))
  labels = [0.0 if bad else 1.0 for bad in wrong]
  data = step_measures.labeled_steps([solution(labels)], [scores.tolist()])
  found = step_measures.measures(data, np.array([0.5]))
  flagged = scores < 0.5

  def same(name, expected, possible):
    assert (getattr(found, name) is not None) == bool(possible)
    if possible:
      assert getattr(found, name).value == pytest.approx(expected(), abs=1e-12)

  same("step_accuracy", lambda: sklearn_metrics.accuracy_score(wrong, flagged), True)
  same("precision", lambda: sklearn_metrics.precision_score(wrong, flagged), flagged.any())
  same("recall", lambda: sklearn_metrics.recall_score(wrong, flagged), wrong.any())
  same("f1", lambda: sklearn_metrics.f1_score(wrong, flagged), (wrong | flagged).any())
  same("auroc", lambda: sklearn_metrics.roc_auc_score(wrong, -scores), wrong.any() and not wrong.all())


labelled = st.lists(
  st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.4, 0.6, 0.8]), st.booleans()), min_size=1, max_size=5),
  min_size=2,
  max_size=8,
)


@settings(max_examples=200)
@given(labelled)
def test_the_chosen_threshold_is_the_best_of_all(rows):
  """Every threshold between the scores is tried, with the measures that the tables print."""
  solutions = [solution([0.0 if bad else 1.0 for _, bad in row], str(i)) for i, row in enumerate(rows)]
  data = step_measures.labeled_steps(solutions, [[score for score, _ in row] for row in rows])
  if not (data.first_error >= 0).any() or (data.first_error >= 0).all():
    with pytest.raises(DataError, match=r"with an error and solutions without; of those .* 0 have"):
      step_measures.choose_threshold(data)
    return

  def f1(threshold):
    thresholds = np.full(len(solutions), threshold)
    return step_measures.measures(data, thresholds).processbench_f1.value

  threshold, reached = step_measures.choose_threshold(data)
  assert f1(threshold) == pytest.approx(reached, abs=1e-12)
  assert reached == pytest.approx(max(f1(t) for t in (0.05, 0.15, 0.3, 0.5, 0.7, 0.9)), abs=1e-12)


def test_intervals_cover_the_truth():
  """AUROC and harmonic mean with clusters: about 95 of 100 intervals hold the number of a large sample."""
  rng = np.random.default_rng(0)

  def sample(prompts):
    ease = np.repeat(rng.normal(0, 0.7, prompts), 3)
    wrong = rng.random(3 * prompts) < 0.4
    wrongness = rng.normal(0.8 * wrong + ease, 1)
    right = rng.random(3 * prompts) < 1 / (1 + np.exp(-ease - 0.5 * wrong))
    return wrongness, wrong, right, np.repeat(np.arange(prompts), 3)

  wrongness, wrong, right, groups = sample(60000)
  truth = step_measures.auroc(wrongness, wrong).value, step_measures.processbench_f1(right, wrong).value
  hits = np.zeros(2)
  for _ in range(400):
    wrongness, wrong, right, groups = sample(60)
    estimates = step_measures.auroc(wrongness, wrong, groups), step_measures.processbench_f1(right, wrong, groups)
    hits += [e.low <= t <= e.high for e, t in zip(estimates, truth, strict=True)]
  assert ((hits / 400 > 0.92) & (hits / 400 < 0.98)).all(), hits / 400
