"""Rewards of labelled pairs -> numbers with error bars. Pure functions on arrays; `summarise` calls them all.

One pair is one comparison: `chosen` is the answer that people preferred. Pairs that share a prompt share a `group`
and are not independent, so every interval is built from sums over groups. Ties count half. Arrays of shape [pairs] hold
one value a pair.

Sources
    Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22:209-212
    Kish 1965, "Survey Sampling": effective sample size under weights, (sum w)^2 / sum w^2
    Korn and Graubard 1998, "Confidence intervals for proportions with small expected number of positive counts
        estimated from survey data", Survey Methodology 24:193-201: effective sample size from a clustered variance
    Miller 2024, "Adding Error Bars to Evals", arXiv:2411.00640: clustered standard errors, paired differences
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import special, stats

from reward_modeling.console import DataError, RunError

CONFIDENCE = 0.95
Z = float(special.ndtri(0.5 + CONFIDENCE / 2))

Groups = Sequence[Hashable] | np.ndarray | None
"""One key a pair, the same for pairs of one prompt. No keys at all, or None as a key: a prompt of its own."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, from `n` pairs of `groups` different prompts."""

    value: float
    low: float
    high: float
    n: int
    groups: int


def accuracy(outcomes, groups: Groups = None, weights=None) -> Estimate:
    """Weighted mean of the outcomes, sum w o / sum w, with a Wilson interval at the effective sample size.

    outcomes, weights: [pairs]. A perfect model gets 1, a blind one 0.5. The interval is Wilson's for independent
    pairs without ties; see `effective_size` for all others. Raises DataError without pairs or with unusable weights.
    """
    outcomes = floats(outcomes)
    weights = weights_of(weights, len(outcomes))
    index = group_index(groups, len(outcomes))
    value = float(min(weights @ outcomes / weights.sum(), 1.0))
    low, high = wilson(value, effective_size(outcomes, value, index, weights))
    return Estimate(value, low, high, len(outcomes), int(index.max()) + 1)


def wilson(value: float, n: float) -> tuple[float, float]:
    """Score interval of a proportion: all p with |value - p| <= z sqrt(p (1 - p) / n). Wilson 1927.

    n may be a fraction. Never empty, not even at 0 or 1.
    >>> [round(end, 4) for end in wilson(1.0, 10)]
    [0.7225, 1.0]
    """
    centre = value + Z**2 / (2 * n)
    half = Z * math.sqrt(value * (1 - value) / n + Z**2 / (4 * n**2))
    scale = 1 + Z**2 / n
    return min(max((centre - half) / scale, 0.0), value), max(min((centre + half) / scale, 1.0), value)


def effective_size(outcomes: np.ndarray, value: float, index: np.ndarray, weights: np.ndarray) -> float:
    """How many independent right-or-wrong pairs would be as informative: value (1 - value) / clustered variance.

    Two departures from that ratio (Korn and Graubard 1998), both without effect on independent untied pairs:
    (1) where it exceeds the number of prompts, the variance is known only from how the prompts scatter, so the ratio
    shrinks by (z / t)^2 with prompts - 1 degrees of freedom, but not below the number of prompts;
    (2) where the variance is 0 (all right, all wrong, all tied) it is the number of prompts.
    Prompts of unequal weight are counted as Kish does. outcomes, index, weights: [pairs].
    """
    variance = clustered_variance(weights * (outcomes - value), index) / weights.sum() ** 2
    return _size_of_variance(value, variance, index, effective_groups(index, weights))


def _size_of_variance(value: float, variance: float, index: np.ndarray, prompts: float) -> float:
    if variance < 1e-15:
        return prompts
    ratio = value * (1 - value) / variance
    known_scatter = (Z / t_quantile(int(index.max()))) ** 2
    return min(ratio, max(prompts, ratio * known_scatter))


def smooth(value: float, influence, groups: Groups = None) -> Estimate:
    """A number from 0 to 1 that depends smoothly on means, with Wilson's interval at its effective size.

    influence: [n] how much each observation moves the number, summing to about 0; the variance is the sum over groups
    of the squared sums (the delta method). For a mean it is (outcome - mean) / n, and this is `accuracy`.
    """
    influence = floats(influence)
    index = group_index(groups, len(influence))
    prompts = effective_groups(index, np.ones(len(influence)))
    size = _size_of_variance(value, clustered_variance(influence, index), index, prompts)
    return Estimate(value, *wilson(value, size), len(influence), int(index.max()) + 1)


def clustered_variance(residuals: np.ndarray, index: np.ndarray) -> float:
    """Sum over groups of the squared sum of residuals: the variance of a weighted sum, Miller 2024.

    residuals: [pairs] weight * (outcome - mean). Over (sum w)^2 it is the variance of the weighted mean: p (1 - p) / n
    when every pair is its own group and none ties.
    """
    return float(np.sum(np.bincount(index, weights=residuals) ** 2))


def effective_groups(index: np.ndarray, weights: np.ndarray) -> float:
    """(sum W)^2 / sum W^2 over the groups' total weights W: their number, where all weigh the same. Kish 1965."""
    totals = np.bincount(index, weights=weights)
    return float(totals.sum() ** 2 / np.sum(totals**2))


def group_index(groups: Groups, n: int) -> np.ndarray:
    """Any hashable keys -> [pairs] integers 0, 1, ... in order of first appearance."""
    if groups is None:
        return np.arange(n)
    require_length(n, groups=groups)
    seen: dict[Hashable, int] = {}
    keys = (("pair", row) if key is None else key for row, key in enumerate(groups))
    return np.array([seen.setdefault(key, len(seen)) for key in keys], dtype=np.int64)


def difference(outcomes_a, outcomes_b, groups: Groups = None, weights=None) -> Estimate:
    """Mean of a - b over the same pairs, with its clustered 95 % interval. Miller 2024, paired differences.

    value +- t sqrt(V + 1 / G^2), t with G - 1 degrees of freedom for G prompts, cut at -1 and 1. The 1 / G^2 is half a
    made-up prompt for each model (Agresti and Min 2005, Statistics in Medicine 24:729-740): two models that agree
    everywhere on a few prompts are not proven equal. Swapping a and b changes only signs.
    """
    differences = floats(outcomes_a) - floats(outcomes_b)
    weights = weights_of(weights, len(differences))
    index = group_index(groups, len(differences))
    value = float(weights @ differences / weights.sum())
    variance = clustered_variance(weights * (differences - value), index) / weights.sum() ** 2
    half = t_quantile(int(index.max())) * math.sqrt(variance + effective_groups(index, weights) ** -2)
    low, high = max(value - half, -1.0), min(value + half, 1.0)
    return Estimate(value, low, high, len(differences), int(index.max()) + 1)


def spearman(x, y, groups: Groups = None) -> Estimate | None:
    """Rank correlation: Pearson's r of the ranks (ties share their mean rank), with a clustered interval.

    x, y: [n]. None where it is undefined: under 4 values, or one side constant. The interval is Fisher's z with the
    variance (1 + r^2 / 2) / (n - 3) of Bonett and Wright 2000, Psychometrika 65:23-28, at n over the design effect:
    the clustered over the independent variance of r's influence function u v - r (u^2 + v^2) / 2 (u, v: standardised
    ranks). A perfect correlation takes its interval from 1 - 12 / (n^3 - n), one swap of neighbours away.
    """
    x, y = floats(x), floats(y)
    n = len(x)
    index = group_index(groups, n)
    if n < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    u, v = (stats.zscore(stats.rankdata(values)) for values in (x, y))
    r = float(np.clip(np.mean(u * v), -1.0, 1.0))
    influence = u * v - r * (u**2 + v**2) / 2
    clustered, independent = clustered_variance(influence, index), float(np.sum(influence**2))
    effective = effective_groups(index, np.ones(n))
    if clustered > 1e-12 * n:
        effective = min(n, n * independent / clustered)
    low, high = _fisher_interval(r, effective, limit=1 - 12 / (n**3 - n))
    return Estimate(r, min(low, r), max(high, r), n, int(index.max()) + 1)


def _fisher_interval(r: float, n: float, limit: float) -> tuple[float, float]:
    if n <= 3:
        return -1.0, 1.0
    r = min(max(r, -limit), limit)
    half = Z * math.sqrt((1 + r**2 / 2) / (n - 3))
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


# Inputs


def weights_of(weights, n: int) -> np.ndarray:
    """[pairs] weights, all 1 when there are none. Raises DataError without pairs, or when weights cannot weigh."""
    if n == 0:
        raise DataError("no pairs to evaluate")
    if weights is None:
        return np.ones(n)
    weights = floats(weights)
    require_length(n, weights=weights)
    if not np.all(np.isfinite(weights)) or np.any(weights < 0) or weights.sum() <= 0:
        raise DataError("weights must be finite, not negative, and not all zero")
    return weights


def t_quantile(degrees: int) -> float:
    return float(special.stdtrit(degrees, 0.5 + CONFIDENCE / 2)) if degrees > 0 else math.inf


def floats(values) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)


def require_length(n: int, **arrays) -> None:
    for name, values in arrays.items():
        if len(values) != n:
            raise ValueError(f"{name} has {len(values)} entries for {n} pairs")


BINS = 10
QUANTILES = (5, 25, 50, 75, 95)
NO_SUBSET = "(none)"


# Accuracy


def pair_outcomes(chosen, rejected) -> np.ndarray:
    """1 where chosen > rejected, 1/2 where they tie exactly, 0 where chosen < rejected.

    chosen, rejected: [pairs] rewards. Returns [pairs].
    >>> pair_outcomes([2.0, 1.0, 0.0], [1.0, 1.0, 1.0])
    array([1. , 0.5, 0. ])
    """
    return (np.sign(floats(chosen) - floats(rejected)) + 1) / 2


# Margins and calibration


def margin_summary(margins) -> dict[str, float]:
    """Mean, standard deviation (of the pairs, divisor n) and quantiles of chosen - rejected. margins: [pairs]."""
    margins = floats(margins)
    quantiles = np.percentile(margins, QUANTILES)
    named = {f"q{q:02d}": float(at) for q, at in zip(QUANTILES, quantiles, strict=True)}
    return {"mean": float(margins.mean()), "std": float(margins.std()), **named}


def log_loss(margins, weights=None) -> float:
    """Mean of -log sigmoid(margin) = log(1 + exp(-margin)), in nats. Bradley and Terry; arXiv:2203.02155 Eq. 1.

    margins: [pairs]. 0 for a perfect model that is sure, log 2 for a blind one. Does not overflow.
    >>> round(log_loss([0.0, 0.0]), 4)
    0.6931
    """
    margins = floats(margins)
    return float(np.average(np.logaddexp(0.0, -margins), weights=weights_of(weights, len(margins))))


def brier(margins, weights=None) -> float:
    """Mean of (1 - sigmoid(margin))^2. Brier 1950. 0 for a perfect model that is sure, 0.25 for a blind one."""
    margins = floats(margins)
    return float(np.average(special.expit(-margins) ** 2, weights=weights_of(weights, len(margins))))


def reliability(margins, weights=None) -> list[dict[str, Any]]:
    """How often the preferred answer is right, by how sure the model says it is. The table under the ECE.

    Pairs are stored chosen first, so the probability p = sigmoid(margin) of the label is turned into the probability
    of the model's own pick: confidence = max(p, 1 - p), correctness = 1, 1/2 (tie) or 0. Confidence cannot be under
    one half, so the 10 bins are equally wide over [0.5, 1], each open above, the last closed. Empty bins are left out.
    Guo et al. 2017, arXiv:1706.04599, section 2.
    """
    margins = floats(margins)
    weights = weights_of(weights, len(margins))
    confidence, correct = special.expit(np.abs(margins)), pair_outcomes(margins, 0.0)
    edges = np.linspace(0.5, 1.0, BINS + 1)
    bins = np.digitize(confidence, edges[1:-1])
    rows = []
    for number in np.unique(bins):
        inside = bins == number
        weight = float(weights[inside].sum())
        if weight > 0:
            rows.append(
                {
                    "from": float(edges[number]),
                    "to": float(edges[number + 1]),
                    "n": int(inside.sum()),
                    "share": weight / float(weights.sum()),
                    "confidence": float(weights[inside] @ confidence[inside] / weight),
                    "accuracy": float(weights[inside] @ correct[inside] / weight),
                }
            )
    return rows


def calibration(table: list[dict[str, Any]]) -> dict[str, float]:
    """Expected calibration error and its direction, from a reliability table.

    ece                sum over bins of share * |accuracy - confidence|. arXiv:1706.04599 Eq. 3. 0 is perfect.
    ece_if_calibrated  what a perfectly calibrated model would show with so few pairs, in expectation: the absolute
                       error of a binomial proportion is about sqrt(2 c (1 - c) / (pi n)) (normal approximation,
                       independent pairs). An ECE near this number says nothing.
    overconfidence     mean confidence - accuracy: above 0 too sure, below 0 not sure enough.
    """
    gaps = [(row["share"], row["confidence"] - row["accuracy"]) for row in table]
    spreads = [row["confidence"] * (1 - row["confidence"]) / row["n"] for row in table]
    noise = sum(row["share"] * math.sqrt(2 * spread / math.pi) for row, spread in zip(table, spreads, strict=True))
    return {
        "ece": sum(share * abs(gap) for share, gap in gaps),
        "ece_if_calibrated": noise,
        "overconfidence": sum(share * gap for share, gap in gaps),
    }


# Length


def length_summary(
    chosen, rejected, chosen_lengths, rejected_lengths, groups: Groups = None, weights=None
) -> dict[str, Any]:
    """What of the accuracy is length. Lengths: [pairs] characters of the answers.

    baseline_longer, baseline_shorter  the accuracy of a model that only compares lengths (equal lengths: a tie)
    gain_over_baseline                 accuracy minus that of the better of the two, paired
    accuracy_*_chosen                  accuracy where the chosen answer is the longer, the shorter, as long as the other
    spearman_reward_length             over all answers: long answers get high rewards, whatever the prompt
    spearman_margin_length_difference  over pairs, chosen minus rejected on both sides: within a prompt, the more length
                                       the more reward. That people chose the longer answers does not raise it by itself
    """
    chosen, rejected = floats(chosen), floats(rejected)
    lengths, others = floats(chosen_lengths), floats(rejected_lengths)
    index = group_index(groups, len(lengths))
    weights = weights_of(weights, len(lengths))
    outcomes, longer = pair_outcomes(chosen, rejected), pair_outcomes(lengths, others)
    baselines = accuracy(longer, index, weights), accuracy(1 - longer, index, weights)
    better = longer if baselines[0].value >= baselines[1].value else 1 - longer

    def accuracy_where(mask: np.ndarray) -> dict[str, Any] | None:
        kept = weights[mask]
        return asdict(accuracy(outcomes[mask], _reindexed(index[mask]), kept)) if kept.sum() > 0 else None

    rewards_of_all, lengths_of_all = np.concatenate([chosen, rejected]), np.concatenate([lengths, others])
    return {
        "longer_chosen_share": float(np.mean(longer == 1)),
        "same_length_share": float(np.mean(longer == 0.5)),
        "baseline_longer": asdict(baselines[0]),
        "baseline_shorter": asdict(baselines[1]),
        "gain_over_baseline": asdict(difference(outcomes, better, index, weights)),
        "accuracy_longer_chosen": accuracy_where(longer == 1),
        "accuracy_shorter_chosen": accuracy_where(longer == 0),
        "accuracy_same_length": accuracy_where(longer == 0.5),
        "spearman_reward_length": _plain(spearman(rewards_of_all, lengths_of_all, np.tile(index, 2))),
        "spearman_margin_length_difference": _plain(spearman(chosen - rejected, lengths - others, index)),
    }


# Subsets


def subset_table(outcomes, subsets: Sequence[Any], groups: Groups = None, weights=None) -> dict[str, Estimate]:
    """Accuracy of every value of a metadata column, by name. Pairs without a value stand under `NO_SUBSET`."""
    outcomes = floats(outcomes)
    require_length(len(outcomes), subsets=subsets)
    names = np.array(_subset_names(subsets), dtype=object)
    index, weights = group_index(groups, len(outcomes)), weights_of(weights, len(outcomes))
    table = {}
    for name in sorted(set(names)):
        inside = names == name
        if weights[inside].sum() > 0:
            table[name] = accuracy(outcomes[inside], _reindexed(index[inside]), weights[inside])
    return table


def macro_accuracy(outcomes, subsets: Sequence[Any], groups: Groups = None, weights=None) -> Estimate:
    """Mean of the subsets' accuracies, each subset counting the same however many pairs it has.

    It is the accuracy under weights that sum to the same in every subset. The interval includes the scatter between
    subsets, so it is a little wide when they differ much.
    """
    outcomes = floats(outcomes)
    require_length(len(outcomes), subsets=subsets)
    index = group_index(_subset_names(subsets), len(outcomes))
    weights = weights_of(weights, len(outcomes))
    totals = np.bincount(index, weights=weights)[index]
    return accuracy(outcomes, groups, np.divide(weights, totals, out=np.zeros_like(weights), where=totals > 0))


def _subset_names(subsets: Sequence[Any]) -> list[str]:
    return [NO_SUBSET if name is None else str(name) for name in subsets]


# Two models


def compare(outcomes_a, outcomes_b, groups: Groups = None, weights=None) -> dict[str, Any]:
    """Two models on the same pairs: who is more often right, and could it be chance?

    accuracy_a, accuracy_b, difference (a - b): estimates. Counts of pairs, which sum to n_pairs: both_right,
    both_wrong, both_tied, and the discordant ones only_a (a's outcome is the higher) and only_b.
    mcnemar_p: exact two-sided McNemar test, binomial(only_a + only_b, 1/2) at only_a; a tie against a right or a wrong
    counts as discordant like any other difference (a sign test), pairs with equal outcomes do not count. It takes pairs
    as independent. prompt_sign_test_p: the same test with one vote a prompt (the sign of its summed difference), valid
    when pairs share prompts and equal to mcnemar_p when none do. Both are 1 when nothing is discordant.
    """
    a, b = floats(outcomes_a), floats(outcomes_b)
    require_length(len(a), outcomes_b=b)
    weights = weights_of(weights, len(a))
    index = group_index(groups, len(a))
    votes = np.bincount(index, weights=a - b)
    only_a, only_b = int(np.sum(a > b)), int(np.sum(a < b))
    return {
        "n_pairs": len(a),
        "n_prompts": int(index.max()) + 1,
        "accuracy_a": asdict(accuracy(a, index, weights)),
        "accuracy_b": asdict(accuracy(b, index, weights)),
        "difference": asdict(difference(a, b, index, weights)),
        "both_right": int(np.sum((a == b) & (a == 1))),
        "only_a": only_a,
        "only_b": only_b,
        "both_wrong": int(np.sum((a == b) & (a == 0))),
        "both_tied": int(np.sum((a == b) & (a == 0.5))),
        "mcnemar_p": _sign_test(only_a, only_b),
        "prompt_sign_test_p": _sign_test(int(np.sum(votes > 0)), int(np.sum(votes < 0))),
    }


def _sign_test(first: int, second: int) -> float:
    return float(stats.binomtest(first, first + second, 0.5).pvalue) if first + second else 1.0


# Everything


def summarise(
    chosen, rejected, chosen_lengths, rejected_lengths, groups: Groups = None, subsets=None, weights=None
) -> dict[str, Any]:
    """Every number above for one model, as plain Python values that JSON can carry.

    chosen, rejected: [pairs] rewards; lengths: [pairs] characters; groups: [pairs] prompt keys; subsets: [pairs] values
    of one metadata column; weights: [pairs]. Weights enter all accuracies except `micro_accuracy`, and log-loss, Brier
    and calibration; counts, shares, margins and correlations are of plain pairs.

    n_pairs, n_prompts, ties, tie_share          counts; a tie is an exact one
    accuracy                                     {"value", "low", "high", "n", "groups"}, as every estimate below
    log_loss, brier                              a blind model: the same keys under "blind"
    ece, ece_if_calibrated, overconfidence       see `calibration`
    reliability                                  list of bins, see `reliability`
    margin                                       {"mean", "std", "q05", "q25", "q50", "q75", "q95"}
    length                                       see `length_summary`; None for what no pair can tell
    subsets, macro_accuracy, micro_accuracy      {name: estimate}, mean over subsets (None without any), mean over pairs
    blind                                        {"accuracy": 0.5, "log_loss": log 2, "brier": 0.25}

    Raises DataError without pairs, RunError when a reward is no finite number.
    """
    chosen, rejected = floats(chosen), floats(rejected)
    n = len(chosen)
    require_length(n, rejected=rejected, chosen_lengths=chosen_lengths, rejected_lengths=rejected_lengths)
    if n == 0:
        raise DataError("no pairs to evaluate", hint="check_data.py shows what the file holds")
    _require_finite(chosen, rejected)
    outcomes, margins = pair_outcomes(chosen, rejected), chosen - rejected
    index = group_index(groups, n)
    table = reliability(margins, weights)
    by_subset = {} if subsets is None else subset_table(outcomes, subsets, index, weights)
    return {
        "n_pairs": n,
        "n_prompts": int(index.max()) + 1,
        "accuracy": asdict(accuracy(outcomes, index, weights)),
        "ties": int(np.sum(outcomes == 0.5)),
        "tie_share": float(np.mean(outcomes == 0.5)),
        "log_loss": log_loss(margins, weights),
        "brier": brier(margins, weights),
        **calibration(table),
        "margin": margin_summary(margins),
        "length": length_summary(chosen, rejected, chosen_lengths, rejected_lengths, index, weights),
        "subsets": {name: asdict(row) for name, row in by_subset.items()},
        "macro_accuracy": None if subsets is None else asdict(macro_accuracy(outcomes, subsets, index, weights)),
        "micro_accuracy": asdict(accuracy(outcomes, index)),
        "reliability": table,
        "blind": {"accuracy": 0.5, "log_loss": math.log(2), "brier": 0.25},
    }


def _require_finite(chosen: np.ndarray, rejected: np.ndarray) -> None:
    bad = np.flatnonzero(~(np.isfinite(chosen) & np.isfinite(rejected)))
    if len(bad):
        raise RunError(
            f"{len(bad)} of {len(chosen)} pairs have a reward that is NaN or infinite, the first at index {bad[0]}",
            hint="score in fp32 (--dtype float32); if it stays, the training run diverged: look at its loss",
        )


def _reindexed(index: np.ndarray) -> np.ndarray:
    """Group numbers of a selection of pairs, counted again from 0."""
    return np.unique(index, return_inverse=True)[1]


def _plain(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else asdict(estimate)
