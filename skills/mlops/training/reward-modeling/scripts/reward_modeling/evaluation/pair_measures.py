"""Rewards of labeled pairs -> numbers with error bars. Pure functions on arrays; `summarize_pairs` calls them all.

Ties count half. Arrays of shape [pairs] hold one value a pair; pairs of one prompt share a group (`intervals`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ..console import DataError, RunError
from .intervals import (
    Estimate,
    Groups,
    accuracy,
    accuracy_where,
    difference,
    floats,
    group_index,
    require_length,
    spearman,
    weights_of,
)

BINS = 10
QUANTILES = (5, 25, 50, 75, 95)
NO_SUBSET = "(none)"


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
    """Expected calibration error: the sum over bins of share * |accuracy - confidence| (arXiv:1706.04599 Eq. 3)."""
    ece_if_calibrated: float
    """The `ece` that a calibrated model would show by chance with so few pairs."""
    overconfidence: float
    """Mean confidence - accuracy: above 0 too sure, below not sure enough."""


@dataclass(frozen=True)
class Margins:
    """Mean, standard deviation (divisor n) and quantiles of chosen - rejected."""

    mean: float
    std: float
    q05: float
    q25: float
    q50: float
    q75: float
    q95: float


@dataclass(frozen=True)
class LengthSummary:
    """What of the accuracy is length."""

    longer_chosen_share: float
    """How often the chosen answer is the longer."""
    same_length_share: float
    baseline_longer: Estimate
    """Accuracy of always picking the longer answer; equal lengths tie."""
    baseline_shorter: Estimate
    """Accuracy of always picking the shorter."""
    gain_over_baseline: Estimate
    """Accuracy minus the better of these two, paired."""
    accuracy_longer_chosen: Estimate | None
    """Accuracy where the chosen answer is the longer."""
    accuracy_shorter_chosen: Estimate | None
    """Accuracy where it is the shorter."""
    accuracy_same_length: Estimate | None
    spearman_reward_length: Estimate | None
    """Rank correlation of reward and length over all answers."""
    spearman_margin_length_difference: Estimate | None
    """The same within pairs: difference of rewards against difference of lengths. Chosen answers that are long do not raise it."""


@dataclass(frozen=True)
class Blind:
    """What a model that knows nothing gets."""

    accuracy: float = 0.5
    log_loss: float = math.log(2)
    brier: float = 0.25


@dataclass(frozen=True, kw_only=True)
class PairSummary(Calibration):
    """What a reward model makes of labeled pairs."""

    n_pairs: int
    n_prompts: int
    accuracy: Estimate
    """Share of pairs whose chosen answer scores higher, a tie counts one half; 0.5 for a blind model."""
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
    """Mean of -log sigmoid(margin); 0.693 for a blind model."""
    brier: float
    """Mean of (1 - sigmoid(margin)) squared; 0.25 for a blind model."""
    margin: Margins
    """Of chosen minus rejected."""
    length: LengthSummary
    subsets: dict[str, Estimate]
    """Accuracy for each value of --subset_column."""
    macro_accuracy: Estimate | None
    """Mean over subsets; null without any."""
    micro_accuracy: Estimate
    """Mean over pairs, without weights."""
    reliability: list[Bin]
    """The bins of `ece`: how sure, how right."""
    blind: Blind


@dataclass(frozen=True)
class PairedComparison:
    """Two models on the same pairs: who is more often right, and could it be chance?"""

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
    """Exact two-sided McNemar test, binomial(only_a + only_b, 1/2) at only_a: a sign test that takes pairs as independent."""
    prompt_sign_test_p: float
    """The same test with one vote a prompt, the sign of its summed difference: valid when pairs share prompts."""


def pair_outcomes(chosen, rejected) -> np.ndarray:
    """1 where chosen > rejected, 1/2 where they tie exactly, 0 where chosen < rejected.

    chosen, rejected: [pairs] rewards. Returns [pairs].
    >>> pair_outcomes([2.0, 1.0, 0.0], [1.0, 1.0, 1.0])
    array([1. , 0.5, 0. ])
    """
    return (np.sign(floats(chosen) - floats(rejected)) + 1) / 2


def margin_summary(margins) -> Margins:
    """margins: [pairs], chosen - rejected."""
    margins = floats(margins)
    return Margins(float(margins.mean()), float(margins.std()), *map(float, np.percentile(margins, QUANTILES)))


def log_loss(margins, weights=None) -> float:
    """Mean of -log sigmoid(margin) = log(1 + exp(-margin)), in nats. Bradley and Terry; arXiv:2203.02155 Eq. 1.

    margins: [pairs]. log 2 for a blind model. Does not overflow.
    >>> round(log_loss([0.0, 0.0]), 4)
    0.6931
    """
    margins = floats(margins)
    return float(np.average(np.logaddexp(0.0, -margins), weights=weights_of(weights, len(margins))))


def brier(margins, weights=None) -> float:
    """Mean of (1 - sigmoid(margin))^2. Brier 1950. 0.25 for a blind model."""
    margins = floats(margins)
    return float(np.average(special.expit(-margins) ** 2, weights=weights_of(weights, len(margins))))


def reliability(margins, weights=None) -> list[Bin]:
    """How often the model's own pick is right, by how sure it is: the table under the ECE. arXiv:1706.04599, section 2.

    Of p = sigmoid(margin) the confidence is max(p, 1 - p), so the 10 bins are equally wide over [0.5, 1], each open above,
    the last closed. Empty bins are left out.
    """
    margins = floats(margins)
    weights = weights_of(weights, len(margins))
    confidence, correct = special.expit(np.abs(margins)), pair_outcomes(margins, 0.0)
    edges = np.linspace(0.5, 1.0, BINS + 1)
    bins = np.digitize(confidence, edges[1:-1])
    number, weight, sure, right = (
        np.bincount(bins, of, BINS) for of in (None, weights, weights * confidence, weights * correct)
    )
    return [
        Bin(
            from_=float(edges[i]),
            to=float(edges[i + 1]),
            n=int(number[i]),
            share=float(weight[i] / weights.sum()),
            confidence=float(sure[i] / weight[i]),
            accuracy=float(right[i] / weight[i]),
        )
        for i in np.flatnonzero(weight)
    ]


def calibration(bins: Sequence[Bin]) -> Calibration:
    """Expected calibration error and its direction, from a reliability table.

    The absolute error of a binomial proportion is about sqrt(2 c (1 - c) / (pi n)) (normal approximation, independent
    pairs), which gives `ece_if_calibrated`.
    """
    gaps = [(bin.share, bin.confidence - bin.accuracy) for bin in bins]
    return Calibration(
        ece=sum(share * abs(gap) for share, gap in gaps),
        ece_if_calibrated=sum(
            bin.share * math.sqrt(2 * bin.confidence * (1 - bin.confidence) / bin.n / math.pi) for bin in bins
        ),
        overconfidence=sum(share * gap for share, gap in gaps),
    )


def length_summary(
    chosen, rejected, chosen_lengths, rejected_lengths, groups: Groups = None, weights=None
) -> LengthSummary:
    """Lengths: [pairs] characters of the answers."""
    chosen, rejected = floats(chosen), floats(rejected)
    lengths, others = floats(chosen_lengths), floats(rejected_lengths)
    index = group_index(groups, len(lengths))
    weights = weights_of(weights, len(lengths))
    outcomes, longer = pair_outcomes(chosen, rejected), pair_outcomes(lengths, others)
    baselines = accuracy(longer, index, weights), accuracy(1 - longer, index, weights)
    better = longer if baselines[0].value >= baselines[1].value else 1 - longer
    rewards_of_all, lengths_of_all = np.concatenate([chosen, rejected]), np.concatenate([lengths, others])
    return LengthSummary(
        longer_chosen_share=float(np.mean(longer == 1)),
        same_length_share=float(np.mean(longer == 0.5)),
        baseline_longer=baselines[0],
        baseline_shorter=baselines[1],
        gain_over_baseline=difference(outcomes, better, index, weights),
        accuracy_longer_chosen=accuracy_where(longer == 1, outcomes, index, weights),
        accuracy_shorter_chosen=accuracy_where(longer == 0, outcomes, index, weights),
        accuracy_same_length=accuracy_where(longer == 0.5, outcomes, index, weights),
        spearman_reward_length=spearman(rewards_of_all, lengths_of_all, np.tile(index, 2)),
        spearman_margin_length_difference=spearman(chosen - rejected, lengths - others, index),
    )


def subset_table(outcomes, subsets: Sequence[Hashable], groups: Groups = None, weights=None) -> dict[str, Estimate]:
    """Accuracy of every value of a metadata column, by name. Pairs without a value stand under `NO_SUBSET`."""
    outcomes = floats(outcomes)
    require_length(len(outcomes), subsets=subsets)
    names = np.array(_subset_names(subsets), dtype=object)
    index, weights = group_index(groups, len(outcomes)), weights_of(weights, len(outcomes))
    found = {name: accuracy_where(names == name, outcomes, index, weights) for name in sorted(set(names))}
    return {name: estimate for name, estimate in found.items() if estimate}


def macro_accuracy(outcomes, subsets: Sequence[Hashable], groups: Groups = None, weights=None) -> Estimate:
    """Mean of the subsets' accuracies: the accuracy under weights that sum to the same in every subset.

    The interval includes the scatter between subsets, so it is a little wide when they differ much.
    """
    outcomes = floats(outcomes)
    require_length(len(outcomes), subsets=subsets)
    index = group_index(_subset_names(subsets), len(outcomes))
    weights = weights_of(weights, len(outcomes))
    totals = np.bincount(index, weights=weights)[index]
    return accuracy(outcomes, groups, np.divide(weights, totals, out=np.zeros_like(weights), where=totals > 0))


def _subset_names(subsets: Sequence[Hashable]) -> list[str]:
    return [NO_SUBSET if name is None else str(name) for name in subsets]


def compare_outcomes(outcomes_a, outcomes_b, groups: Groups = None, weights=None) -> PairedComparison:
    """Two models on the same pairs.

    A tie against a right or a wrong is discordant like any other difference; pairs with equal outcomes do not count in
    the tests, which give 1 when nothing is discordant.
    """
    a, b = floats(outcomes_a), floats(outcomes_b)
    require_length(len(a), outcomes_b=b)
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
    **lost: int,
) -> PairSummary:
    """Every number above for one model.

    chosen, rejected: [pairs] rewards; lengths: [pairs] characters; groups: [pairs] prompt keys; subsets: [pairs] values
    of one metadata column; weights: [pairs]. Weights enter all accuracies except `micro_accuracy`, and log-loss, Brier
    and calibration; counts, shares, margins and correlations are of plain pairs. lost: `not_scored`, `truncated` and
    `not_rendered` (0).

    Raises DataError without pairs, RunError when a reward is NaN or infinite.
    """
    chosen, rejected = floats(chosen), floats(rejected)
    n = len(chosen)
    require_length(n, rejected=rejected, chosen_lengths=chosen_lengths, rejected_lengths=rejected_lengths)
    if n == 0:
        raise DataError("no pairs to evaluate", hint="check_data.py shows what the file holds")
    _require_finite(chosen, rejected)
    outcomes, margins = pair_outcomes(chosen, rejected), chosen - rejected
    index = group_index(groups, n)
    bins = reliability(margins, weights)
    return PairSummary(
        n_pairs=n,
        n_prompts=int(index.max()) + 1,
        **{"not_scored": 0, "truncated": 0, "not_rendered": 0, **lost},
        accuracy=accuracy(outcomes, index, weights),
        ties=int(np.sum(outcomes == 0.5)),
        tie_share=float(np.mean(outcomes == 0.5)),
        log_loss=log_loss(margins, weights),
        brier=brier(margins, weights),
        **vars(calibration(bins)),
        margin=margin_summary(margins),
        length=length_summary(chosen, rejected, chosen_lengths, rejected_lengths, index, weights),
        subsets={} if subsets is None else subset_table(outcomes, subsets, index, weights),
        macro_accuracy=None if subsets is None else macro_accuracy(outcomes, subsets, index, weights),
        micro_accuracy=accuracy(outcomes, index),
        reliability=bins,
        blind=Blind(),
    )


def _require_finite(chosen: np.ndarray, rejected: np.ndarray) -> None:
    bad = np.flatnonzero(~(np.isfinite(chosen) & np.isfinite(rejected)))
    if len(bad):
        raise RunError(
            f"{len(bad)} of {len(chosen)} pairs have a reward that is NaN or infinite, the first at index {bad[0]}",
            hint="score in fp32 (--dtype float32); if it stays, the training run diverged: look at its loss",
        )
