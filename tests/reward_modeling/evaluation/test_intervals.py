"""Intervals: numbers worked by hand, scipy as a second route, laws, and coverage counted by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reward_modeling.errors import DataError
from reward_modeling.evaluation.intervals import (
  Measured,
  Z,
  accuracy,
  correlated,
  difference,
  effective_size,
  group_index,
  jackknife,
  pearson,
  smooth,
  spearman,
  wilson,
)

pytestmark = pytest.mark.filterwarnings("error")

law = settings(deadline=None)  # a busy machine is no failure

outcome_lists = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=30)
grouped_outcomes = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 6)), min_size=1, max_size=30)


def ends(estimate):
  return estimate.value, estimate.low, estimate.high


# Worked by hand


def test_wilson_at_one_is_n_over_n_plus_z_squared():
  assert wilson(1.0, 10) == pytest.approx((10 / (10 + Z**2), 1.0))
  assert wilson(0.0, 10) == pytest.approx((0.0, Z**2 / (10 + Z**2)))


def test_wilson_at_one_half_of_a_hundred():
  assert wilson(0.5, 100) == pytest.approx((0.40383, 0.59617), abs=1e-5)


def test_ties_count_half():
  assert accuracy([1, 0.5, 0, 0.5]).value == 0.5


def test_weights_weigh_the_mean():
  assert accuracy([1, 0], weights=[3, 1]).value == 0.75


def test_perfectly_shared_prompts_are_worth_one_pair_each():
  """Sums by prompt (1/2 + 1/2)^2 twice over 4^2 = 1/8; 1/4 over 1/8 = 2 independent pairs."""
  estimate = accuracy([1, 1, 0, 0], groups=["a", "a", "b", "b"])
  assert ends(estimate) == pytest.approx((0.5, 0.09453, 0.90547), abs=1e-5)
  assert (estimate.n, estimate.groups) == (4, 2)


def test_effective_size_shrinks_by_z_over_t_squared():
  """Two right in 3 of the pairs: ratio (2/9) / (12/9 / 144) = 24, times (1.95996 / 2.57058)^2 with 5 degrees."""
  outcomes = np.array([1, 0] * 4 + [1, 1] * 2, dtype=float)
  index = np.repeat(np.arange(6), 2)
  assert effective_size(2 / 3, (outcomes - 2 / 3) / 12, index, np.ones(12)) == pytest.approx(
    24 * (1.959964 / 2.570582) ** 2, rel=1e-5
  )


def test_effective_size_does_not_fall_below_the_number_of_prompts():
  """Ratio 12, and 12 * (1.95996 / 4.30265)^2 = 2.49 is under 3 prompts."""
  index = np.repeat(np.arange(3), 2)
  assert effective_size(2 / 3, (np.array([1.0, 0, 1, 0, 1, 1]) - 2 / 3) / 6, index, np.ones(6)) == pytest.approx(3.0)


@pytest.mark.parametrize("outcome", [0.0, 0.5, 1.0])
def test_without_scatter_the_number_of_prompts_decides(outcome):
  estimate = accuracy([outcome] * 12, groups=[row // 3 for row in range(12)])
  assert ends(estimate) == (outcome, *wilson(outcome, 4))


def test_a_prompt_with_nearly_all_the_weight_leaves_one_prompt():
  estimate = accuracy([1, 1], weights=[1, 1e-9])
  assert ends(estimate) == pytest.approx((1.0, *wilson(1.0, 1)))


def test_difference_of_one_pair_in_four():
  """V = (0.75^2 + 3 * 0.25^2) / 16 = 0.046875, plus 1 / 4^2; t with 3 degrees is 3.18245; cut at 1."""
  estimate = difference([1, 1, 1, 0], [0, 1, 1, 0])
  assert ends(estimate) == pytest.approx((0.25, 0.25 - 3.18245 * math.sqrt(0.109375), 1.0), abs=1e-5)


def test_models_that_agree_everywhere_are_not_proven_equal():
  estimate = difference([1] * 100, [1] * 100)
  assert ends(estimate) == pytest.approx((0.0, -0.0198422, 0.0198422), abs=1e-6)


def test_one_prompt_says_nothing_about_a_difference():
  assert ends(difference([1, 1], [0, 0], groups=["a", "a"])) == (1.0, -1.0, 1.0)


def test_spearman_of_two_swaps_in_five():
  """r = 1 - 6 * 4 / (5 * 24) = 0.8, standard error of z sqrt(1.32 / 2)."""
  estimate = spearman([1, 2, 3, 4, 5], [2, 1, 4, 3, 5])
  half = 1.959964 * math.sqrt(0.66)
  assert ends(estimate) == pytest.approx((0.8, math.tanh(1.0986123 - half), math.tanh(1.0986123 + half)), abs=1e-6)


def test_a_perfect_correlation_still_has_an_interval():
  estimate = spearman(range(10), range(10))
  assert estimate.value == pytest.approx(1.0) and estimate.high == pytest.approx(1.0)
  assert estimate.low == pytest.approx(
    math.tanh(math.atanh(1 - 12 / 990) - Z * math.sqrt((1 + 0.98788**2 / 2) / 7)), abs=1e-4
  )


@pytest.mark.parametrize("x, y", [([1, 1, 1, 1], [1, 2, 3, 4]), ([1, 2, 3, 4], [7, 7, 7, 7]), ([1, 2, 3], [1, 2, 3])])
def test_spearman_is_none_where_undefined(x, y):
  assert spearman(x, y) is None


def test_groups_of_any_hashable_kind():
  assert group_index(["b", ("a", 1), "b", 1], 4).tolist() == [0, 1, 0, 2]
  assert group_index(None, 2).tolist() == [0, 1]


@pytest.mark.parametrize("weights", [[0, 0], [1, -1], [1, math.nan], [math.inf, 1]])
def test_unusable_weights(weights):
  with pytest.raises(DataError, match=r"^weights must be finite, not negative, and not all zero$"):
    accuracy([1, 0], weights=weights)


def test_no_pairs():
  with pytest.raises(DataError, match=r"^no pairs to evaluate$"):
    accuracy([])


# A second route


def test_smooth_of_a_mean_is_the_accuracy():
  outcomes, groups = np.array([1, 0, 1, 1, 0.5, 1]), [0, 0, 1, 2, 2, 3]
  expected = accuracy(outcomes, groups)
  found = smooth(outcomes.mean(), (outcomes - outcomes.mean()) / 6, groups)
  assert [found.value, found.low, found.high] == pytest.approx([expected.value, expected.low, expected.high])


@law
@given(st.integers(1, 400), st.data())
def test_independent_pairs_give_scipys_wilson_interval(n, data):
  right = data.draw(st.integers(0, n))
  expected = stats.binomtest(right, n).proportion_ci(confidence_level=0.95, method="wilson")
  assert ends(accuracy([1] * right + [0] * (n - right))) == pytest.approx(
    (right / n, expected.low, expected.high), abs=1e-9
  )


@law
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=4, max_size=40))
def test_spearman_is_scipys(pairs):
  x, y = zip(*pairs, strict=True)
  if len(set(x)) > 1 and len(set(y)) > 1:
    estimate = spearman(x, y)
    assert estimate.value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)
    assert -1 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_clustered_width_is_the_bootstrap_over_prompts():
  """Whole prompts drawn again and again: their accuracies scatter as the interval says. Catches sums over pairs."""
  rng = np.random.default_rng(3)
  outcomes = rankings(rng, prompts=200, spread=1.0)
  estimate = accuracy(outcomes.ravel(), groups=np.repeat(np.arange(200), 6))
  scatter = np.std([outcomes[rng.integers(0, 200, 200)].mean() for _ in range(2000)])
  assert (estimate.high - estimate.low) / 2 == pytest.approx(Z * scatter, rel=0.06)


def test_correlation_width_is_the_bootstrap_over_prompts():
  """A level that x and y share within a prompt is no error of r. Catches an influence of u v alone (+ 30 % width)."""
  rng = np.random.default_rng(0)
  groups = np.repeat(np.arange(150), 5)
  x, y = rng.normal(size=150)[groups] + 0.5 * rng.normal(size=(2, 750))
  estimate = spearman(x, y, groups)
  rows = np.arange(750).reshape(150, 5)
  drawn = [rows[rng.integers(0, 150, 150)].ravel() for _ in range(400)]
  scatter = np.std([math.atanh(stats.spearmanr(x[some], y[some]).statistic) for some in drawn])
  assert (math.atanh(estimate.high) - math.atanh(estimate.low)) / 2 == pytest.approx(Z * scatter, rel=0.15)


# Laws


@law
@given(grouped_outcomes)
def test_duplicating_every_pair_changes_nothing(rows):
  outcomes, groups = zip(*rows, strict=True)
  assert ends(accuracy(outcomes * 2, groups * 2)) == pytest.approx(ends(accuracy(outcomes, groups)))


@law
@given(grouped_outcomes, st.randoms(use_true_random=False))
def test_order_changes_nothing(rows, random):
  shuffled = random.sample(rows, len(rows))
  first, second = (accuracy(*zip(*some, strict=True)) for some in (rows, shuffled))
  assert ends(first) == pytest.approx(ends(second)) and (first.n, first.groups) == (second.n, second.groups)


@law
@given(grouped_outcomes)
def test_the_value_lies_in_an_interval_that_is_never_empty(rows):
  estimate = accuracy(*zip(*rows, strict=True))
  assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1 and estimate.high - estimate.low > 1e-3


@law
@given(grouped_outcomes, st.floats(0.01, 100))
def test_the_scale_of_the_weights_changes_nothing(rows, scale):
  outcomes, groups = zip(*rows, strict=True)
  weights = np.arange(1, len(rows) + 1)
  assert ends(accuracy(outcomes, groups, weights * scale)) == pytest.approx(ends(accuracy(outcomes, groups, weights)))


@law
@given(st.lists(st.tuples(*[st.sampled_from([0.0, 0.5, 1.0])] * 2, st.integers(0, 6)), min_size=1, max_size=30))
def test_swapping_the_models_changes_only_signs(rows):
  a, b, groups = zip(*rows, strict=True)
  forward, backward = difference(a, b, groups), difference(b, a, groups)
  assert ends(forward) == pytest.approx((-backward.value, -backward.high, -backward.low))


@law
@given(outcome_lists, st.integers(2, 5))
def test_repeated_pairs_of_a_prompt_bring_no_certainty_but_strangers_do(outcomes, times):
  """Copies under their own prompt leave the interval; the same copies taken as new prompts never widen it."""
  alone, copies = accuracy(outcomes), accuracy(outcomes * times)
  assert copies.high - copies.low <= alone.high - alone.low + 1e-12


# Coverage: the interval holds the truth in at least 92 of 100 repetitions (95 is nominal)


def rankings(rng, prompts, spread, step=0.5, answers=4):
  """[prompts, 6] outcomes of all pairs of 4 answers; how well a prompt is understood varies by `spread`."""
  skill = step + spread * rng.normal(size=(prompts, 1))
  rewards = skill * np.arange(answers) + rng.normal(size=(prompts, answers))
  worse, better = np.triu_indices(answers, 1)
  return (rewards[:, better] > rewards[:, worse]).astype(float)


@pytest.mark.parametrize("p", [0.5, 0.62, 0.9])
@pytest.mark.parametrize("n", [100, 600])
def test_coverage_of_independent_pairs(p, n):
  drawn = np.random.default_rng(n).binomial(n, p, size=3000)
  by_count = {right: accuracy(np.arange(n) < right) for right in set(drawn.tolist())}
  assert np.mean([by_count[right].low <= p <= by_count[right].high for right in drawn.tolist()]) >= 0.92


@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("prompts", [10, 100])
def test_coverage_of_rankings(prompts, spread):
  """Pairs of one ranking taken as independent cover only 0.84 to 0.92 of the time, and 0.7 at spread 2."""
  rng = np.random.default_rng(prompts)
  truth = rankings(rng, 200_000, spread).mean()
  groups = np.repeat(np.arange(prompts), 6)
  estimates = [accuracy(rankings(rng, prompts, spread).ravel(), groups) for _ in range(1000)]
  assert np.mean([e.low <= truth <= e.high for e in estimates]) >= 0.92


def test_coverage_of_ties_and_of_differences():
  rng = np.random.default_rng(0)
  ties, gaps = [], []
  for _ in range(1000):
    estimate = accuracy(rng.choice([0, 0.5, 1], 60, p=[0.2, 0.3, 0.5]))
    ties.append(estimate.low <= 0.65 <= estimate.high)
    gap = difference(rankings(rng, 50, 0.5).ravel(), rankings(rng, 50, 0.5).ravel(), np.repeat(np.arange(50), 6))
    gaps.append(gap.low <= 0 <= gap.high)
  assert min(np.mean(ties), np.mean(gaps)) >= 0.92


def test_coverage_of_clustered_correlations():
  """40 prompts of 5 values, 60 % of the variance shared within the prompt; Spearman's rho of a normal pair."""
  rng = np.random.default_rng(0)
  mixing = np.linalg.cholesky([[1, 0.4], [0.4, 1]]).T
  groups = np.repeat(np.arange(40), 5)
  truth, hits = 6 / math.pi * math.asin(0.2), []
  for _ in range(600):
    shared, own = rng.normal(size=(40, 2)) @ mixing, rng.normal(size=(200, 2)) @ mixing
    x, y = (math.sqrt(0.6) * shared[groups] + math.sqrt(0.4) * own).T
    estimate = spearman(x, y, groups)
    hits.append(estimate.low <= truth <= estimate.high)
  assert np.mean(hits) >= 0.9


@pytest.mark.parametrize(("prompts", "each"), [(8, 4), (20, 3)])
def test_coverage_with_few_prompts_that_share_their_scatter(prompts, each):
  """Correlations, the difference of two, and that of two means, of answers that share half of their scatter."""
  rng, groups = np.random.default_rng(5), np.repeat(np.arange(prompts), each)

  def drawn(n=3):
    shared, own = rng.normal(size=(n, prompts, 1)), rng.normal(size=(n, prompts, each))
    return ((shared + own) / math.sqrt(2)).reshape(n, -1)

  hits = dict.fromkeys(("pearson", "spearman", "minus", "gain"), 0)
  for _ in range(500):
    y, a, b = drawn()
    a, b = (0.6 * y + 0.8 * one for one in (a, b))
    means = [Measured(v.mean(), (v - v.mean()) / v.size, np.ones(v.size, dtype=bool)) for v in (a + 0.2, b)]
    found = {
      "pearson": (pearson(a, y, groups), 0.6),
      "spearman": (spearman(a, y, groups), 6 / math.pi * math.asin(0.3)),
      "minus": (correlated(a, y).minus(correlated(b, y), groups), 0.0),
      "gain": (means[0].minus(means[1], groups), 0.2),
    }
    for name, (estimate, truth) in found.items():
      hits[name] += estimate.low <= truth <= estimate.high
  assert all(0.92 <= hit / 500 <= 0.995 for hit in hits.values()), hits


def test_one_prompt_bounds_no_difference_of_two_numbers():
  rising, falling = (correlated([1, 2, 3, 4], y) for y in ([1, 2, 4, 3], [4, 3, 1, 2]))
  found = rising.minus(falling, np.zeros(4))
  assert (found.value, found.low, found.high) == (pytest.approx(1.6), -math.inf, math.inf)


def test_leaving_out_a_mean_gives_its_standard_error():
  """Of independent values the jackknife is s / sqrt(n), exactly."""
  x = np.array([1.0, 4.0, 2.0, 8.0, 5.0])
  found = jackknife([np.ones(5), x], lambda sums: sums[1] / sums[0])
  assert ends(found) == pytest.approx((4.0, *stats.t.interval(0.95, 4, loc=4.0, scale=stats.sem(x))))
