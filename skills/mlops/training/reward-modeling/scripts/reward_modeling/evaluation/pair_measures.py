"""Rewards of labelled pairs -> numbers with error bars. Pure functions on arrays; `summarize_pairs` calls them all.

One pair is one comparison: `chosen` is the answer that people preferred. Ties count half. Arrays of shape [pairs] hold
one value a pair; pairs of one prompt share a group (`intervals`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special, stats

from ..console import DataError, RunError
from .intervals import (
    Estimate,
    Groups,
    accuracy,
    accuracy_where,
    difference,
    floats,
    group_index,
    plain,
    require_length,
    spearman,
    weights_of,
)

BINS = 10
QUANTILES = (5, 25, 50, 75, 95)
NO_SUBSET = "(none)"


def pair_outcomes(chosen, rejected) -> np.ndarray:
    """1 where chosen > rejected, 1/2 where they tie exactly, 0 where chosen < rejected.

    chosen, rejected: [pairs] rewards. Returns [pairs].
    >>> pair_outcomes([2.0, 1.0, 0.0], [1.0, 1.0, 1.0])
    array([1. , 0.5, 0. ])
    """
    return (np.sign(floats(chosen) - floats(rejected)) + 1) / 2


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
    number, weight, sure, right = (
        np.bincount(bins, of, BINS) for of in (None, weights, weights * confidence, weights * correct)
    )
    return [
        {
            "from": float(edges[i]),
            "to": float(edges[i + 1]),
            "n": int(number[i]),
            "share": float(weight[i] / weights.sum()),
            "confidence": float(sure[i] / weight[i]),
            "accuracy": float(right[i] / weight[i]),
        }
        for i in np.flatnonzero(weight)
    ]


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

    def where(kept: np.ndarray) -> dict[str, float] | None:
        return plain(accuracy_where(kept, outcomes, index, weights))

    rewards_of_all, lengths_of_all = np.concatenate([chosen, rejected]), np.concatenate([lengths, others])
    return {
        "longer_chosen_share": float(np.mean(longer == 1)),
        "same_length_share": float(np.mean(longer == 0.5)),
        "baseline_longer": plain(baselines[0]),
        "baseline_shorter": plain(baselines[1]),
        "gain_over_baseline": plain(difference(outcomes, better, index, weights)),
        "accuracy_longer_chosen": where(longer == 1),
        "accuracy_shorter_chosen": where(longer == 0),
        "accuracy_same_length": where(longer == 0.5),
        "spearman_reward_length": plain(spearman(rewards_of_all, lengths_of_all, np.tile(index, 2))),
        "spearman_margin_length_difference": plain(spearman(chosen - rejected, lengths - others, index)),
    }


def subset_table(outcomes, subsets: Sequence[Any], groups: Groups = None, weights=None) -> dict[str, Estimate]:
    """Accuracy of every value of a metadata column, by name. Pairs without a value stand under `NO_SUBSET`."""
    outcomes = floats(outcomes)
    require_length(len(outcomes), subsets=subsets)
    names = np.array(_subset_names(subsets), dtype=object)
    index, weights = group_index(groups, len(outcomes)), weights_of(weights, len(outcomes))
    found = {name: accuracy_where(names == name, outcomes, index, weights) for name in sorted(set(names))}
    return {name: estimate for name, estimate in found.items() if estimate}


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


def compare_outcomes(outcomes_a, outcomes_b, groups: Groups = None, weights=None) -> dict[str, Any]:
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
        "accuracy_a": plain(accuracy(a, index, weights)),
        "accuracy_b": plain(accuracy(b, index, weights)),
        "difference": plain(difference(a, b, index, weights)),
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


def summarize_pairs(
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
        "accuracy": plain(accuracy(outcomes, index, weights)),
        "ties": int(np.sum(outcomes == 0.5)),
        "tie_share": float(np.mean(outcomes == 0.5)),
        "log_loss": log_loss(margins, weights),
        "brier": brier(margins, weights),
        **calibration(table),
        "margin": margin_summary(margins),
        "length": length_summary(chosen, rejected, chosen_lengths, rejected_lengths, index, weights),
        "subsets": {name: plain(row) for name, row in by_subset.items()},
        "macro_accuracy": None if subsets is None else plain(macro_accuracy(outcomes, subsets, index, weights)),
        "micro_accuracy": plain(accuracy(outcomes, index)),
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
