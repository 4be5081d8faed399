"""Rewards of labeled pairs -> numbers with intervals. Arrays of shape [pairs] hold one value a pair."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ..errors import RunError
from .intervals import Estimate, Groups, accuracy, accuracy_where, difference, floats, group_index, spearman, weights_of

BINS = 10
QUANTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class Bin:
  """Pairs by how sure the model is of its own pick."""

  from_: float
  to: float
  n: int
  share: float
  confidence: float
  accuracy: float
  """How often that pick is right."""


@dataclass(frozen=True)
class Calibration:
  ece: float
  """Expected calibration error: mean of |accuracy - confidence| over bins (arXiv:1706.04599 Eq. 3)."""
  ece_if_calibrated: float
  """The `ece` that a calibrated model would show by chance with so few pairs."""
  overconfidence: float
  """Mean confidence - accuracy: above 0 too sure, below not sure enough."""


@dataclass(frozen=True)
class Margins:
  """Of chosen - rejected; std with divisor n."""

  mean: float
  std: float
  q05: float
  q25: float
  q50: float
  q75: float
  q95: float


@dataclass(frozen=True)
class LengthSummary:
  longer_chosen_share: float
  """How often the chosen answer is the longer."""
  same_length_share: float
  baseline_longer: Estimate
  """Accuracy of always picking the longer answer; equal lengths tie."""
  baseline_shorter: Estimate
  gain_over_baseline: Estimate
  """Accuracy minus the better of these two, paired."""
  accuracy_longer_chosen: Estimate | None
  """Accuracy where the chosen answer is the longer."""
  accuracy_shorter_chosen: Estimate | None
  accuracy_same_length: Estimate | None
  spearman_reward_length: Estimate | None
  """Rank correlation over all answers."""
  spearman_margin_length_difference: Estimate | None
  """The same within pairs, of differences: long chosen answers alone do not raise it."""


@dataclass(frozen=True)
class Blind:
  accuracy: float = 0.5
  log_loss: float = math.log(2)
  brier: float = 0.25


@dataclass(frozen=True, kw_only=True)
class PairSummary(Calibration):
  n_pairs: int
  n_prompts: int
  accuracy: Estimate
  """Share of pairs whose chosen answer scores higher, a tie counts one half."""
  not_scored: int
  """Pairs of which the over-length policy left out a side."""
  truncated: int
  """Sides that it cut."""
  not_rendered: int
  """Sides of which the chat template leaves out a part, such as tool calls."""
  ties: int
  """Pairs with exactly equal rewards."""
  tie_share: float
  log_loss: float
  """Mean of -log sigmoid(margin)."""
  brier: float
  """Mean of (1 - sigmoid(margin)) squared."""
  margin: Margins
  length: LengthSummary
  subsets: dict[str, Estimate]
  macro_accuracy: Estimate | None
  """Mean over subsets; null without any."""
  micro_accuracy: Estimate
  """Mean over pairs, without weights."""
  reliability: list[Bin]
  """The bins of `ece`: how sure, how right."""
  blind: Blind
  """What a model that knows nothing gets."""
  ceiling: float = 1.0
  """The highest `micro_accuracy` there can be: below 1 where pairs are labeled both ways."""


@dataclass(frozen=True)
class PairedComparison:
  n_pairs: int
  n_prompts: int
  accuracy_a: Estimate
  accuracy_b: Estimate
  difference: Estimate
  """a - b."""
  both_right: int
  only_a: int
  """Pairs on which a's outcome is the higher."""
  only_b: int
  both_wrong: int
  both_tied: int
  mcnemar_p: float
  """Exact two-sided McNemar test, which takes pairs as independent; ties of both do not count."""
  prompt_sign_test_p: float
  """The same with one vote a prompt, the sign of its summed difference: valid when pairs share prompts."""


def pair_outcomes(chosen, rejected) -> np.ndarray:
  """[pairs] 1 where chosen > rejected, 1/2 where they tie, else 0."""
  return (np.sign(floats(chosen) - floats(rejected)) + 1) / 2


def reliability(margins, weights=None) -> list[Bin]:
  """The table under the ECE (arXiv:1706.04599, section 2), without empty bins: equally wide over [0.5, 1] of the confidence
  max(p, 1 - p), p = sigmoid(margin), open above but for the last."""
  margins = floats(margins)
  weights = weights_of(weights, len(margins))
  confidence, correct = special.expit(np.abs(margins)), pair_outcomes(margins, 0.0)
  edges = np.linspace(0.5, 1.0, BINS + 1)
  bins = np.digitize(confidence, edges[1:-1])
  counted = None, weights, weights * confidence, weights * correct
  number, weight, sure, right = (np.bincount(bins, of, BINS) for of in counted)
  with np.errstate(invalid="ignore"):
    columns = edges[:-1], edges[1:], number, weight / weights.sum(), sure / weight, right / weight
  return [Bin(*row) for row in zip(*(column[weight > 0].tolist() for column in columns), strict=True)]


def calibration(bins: Sequence[Bin]) -> Calibration:
  """By chance, the absolute error of a share is about sqrt(2 c (1 - c) / (pi n)): normal approximation, independent pairs."""
  share, sure, right, n = np.array([(bin.share, bin.confidence, bin.accuracy, bin.n) for bin in bins]).T
  return Calibration(
    ece=float(share @ np.abs(sure - right)),
    ece_if_calibrated=float(share @ np.sqrt(2 * sure * (1 - sure) / n / math.pi)),
    overconfidence=float(share @ (sure - right)),
  )


def against_length(outcomes, longer: np.ndarray, groups: Groups, weights) -> tuple[Estimate, ...]:
  """Accuracy of always picking the longer answer, of the shorter, and the outcomes' gain over the better."""
  found = [accuracy(one, groups, weights) for one in (longer, 1 - longer)]
  better = longer if found[0].value >= found[1].value else 1 - longer
  return *found, difference(outcomes, better, groups, weights)


def _length_summary(rewards: np.ndarray, lengths: np.ndarray, index: np.ndarray, weights: np.ndarray) -> LengthSummary:
  outcomes, longer = pair_outcomes(*rewards), pair_outcomes(*lengths)
  by_length = [accuracy_where(weights * (longer == value), outcomes, index) for value in (1, 0, 0.5)]
  return LengthSummary(
    float(np.mean(longer == 1)),
    float(np.mean(longer == 0.5)),
    *against_length(outcomes, longer, index, weights),
    *by_length,
    spearman_reward_length=spearman(rewards.ravel(), lengths.ravel(), np.tile(index, 2)),
    spearman_margin_length_difference=spearman(rewards[0] - rewards[1], lengths[0] - lengths[1], index),
  )


def compare_outcomes(outcomes_a, outcomes_b, groups: Groups = None, weights=None) -> PairedComparison:
  """A tie against a right or a wrong is discordant; tests without any give 1."""
  a, b = floats(outcomes_a), floats(outcomes_b)
  weights = weights_of(weights, len(a))
  index = group_index(groups, len(a))
  votes = np.bincount(index, weights=a - b)
  only_a, only_b = int(np.sum(a > b)), int(np.sum(a < b))
  both = {value: int(np.sum((a == b) & (a == value))) for value in (0, 0.5, 1)}
  return PairedComparison(
    n_pairs=len(a),
    n_prompts=int(index.max()) + 1,
    accuracy_a=accuracy(a, index, weights),
    accuracy_b=accuracy(b, index, weights),
    difference=difference(a, b, index, weights),
    both_right=both[1],
    only_a=only_a,
    only_b=only_b,
    both_wrong=both[0],
    both_tied=both[0.5],
    mcnemar_p=_sign_test(only_a, only_b),
    prompt_sign_test_p=_sign_test(int(np.sum(votes > 0)), int(np.sum(votes < 0))),
  )


def _sign_test(first: int, second: int) -> float:
  from scipy import stats

  return float(stats.binomtest(first, first + second, 0.5).pvalue) if first + second else 1.0


def summarize_pairs(
  chosen,
  rejected,
  chosen_lengths,
  rejected_lengths,
  groups: Groups = None,
  subsets: Sequence[Hashable] | None = None,
  weights=None,
  **lost: float,
) -> PairSummary:
  """All arguments: [pairs]. Weights enter accuracies except `micro_accuracy`, log-loss, Brier and calibration.

  lost: `not_scored`, `truncated`, `not_rendered`, `ceiling`. Raises DataError without pairs, RunError for rewards that are not finite.
  """
  n = len(chosen)
  weights, index = weights_of(weights, n), group_index(groups, n)
  rewards, lengths = np.split(floats([chosen, rejected, chosen_lengths, rejected_lengths]), 2)
  if len(bad := np.flatnonzero(~np.isfinite(rewards).all(0))):
    what = f"{len(bad)} of {n} pairs have a reward that is NaN or infinite, the first at index {bad[0]}"
    hint = "score in fp32 (--dtype float32); if it stays, the training run diverged: look at its loss"
    raise RunError(what, hint=hint)
  outcomes, margins = pair_outcomes(*rewards), rewards[0] - rewards[1]
  bins = reliability(margins, weights)
  table, macro = ({}, None) if subsets is None else _by_subset(outcomes, subsets, index, weights)
  return PairSummary(
    n_pairs=n,
    n_prompts=int(index.max()) + 1,
    **{"not_scored": 0, "truncated": 0, "not_rendered": 0, **lost},
    accuracy=accuracy(outcomes, index, weights),
    ties=int(np.sum(outcomes == 0.5)),
    tie_share=float(np.mean(outcomes == 0.5)),
    log_loss=float(np.average(np.logaddexp(0.0, -margins), weights=weights)),
    brier=float(np.average(special.expit(-margins) ** 2, weights=weights)),
    **vars(calibration(bins)),
    margin=Margins(*map(float, (margins.mean(), margins.std(), *np.percentile(margins, QUANTILES)))),
    length=_length_summary(rewards, lengths, index, weights),
    subsets=table,
    macro_accuracy=macro,
    micro_accuracy=accuracy(outcomes, index),
    reliability=bins,
    blind=Blind(),
  )


def _by_subset(
  outcomes: np.ndarray, subsets: Sequence[Hashable], index: np.ndarray, weights: np.ndarray
) -> tuple[dict[str, Estimate], Estimate]:
  """(accuracy of each value of a metadata column, their mean, whose interval includes the scatter between subsets)."""
  names = np.array(subsets, dtype=object)
  found = {name: accuracy_where(weights * (names == name), outcomes, index) for name in sorted(set(names))}
  subset = group_index(names, len(names))
  totals = np.bincount(subset, weights=weights)[subset]
  even = np.divide(weights, totals, out=np.zeros_like(weights), where=totals > 0)
  return {name: estimate for name, estimate in found.items() if estimate}, accuracy(outcomes, index, even)
