"""A summary of `metrics.summarise` for people: tables on stderr, and one sentence for each thing worth knowing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reward_modeling import console

SUBSET_ROWS = 30
STRONG_CORRELATION = 0.5
LARGE_ECE = 0.1
MANY_TIES = 0.05

Summary = dict[str, Any]


# Readings


@dataclass(frozen=True)
class Reading:
    """When `applies` to a summary, `sentence` (a format string over the summary) is worth saying, and `next` doing."""

    applies: Callable[[Summary], bool]
    sentence: str
    next: str


def _miscalibrated(summary: Summary) -> bool:
    """Over the limit, and by more than few pairs produce: a calibrated model on 50 pairs shows about 0.1 by chance."""
    return summary["ece"] > LARGE_ECE and summary["ece"] > 2 * summary["ece_if_calibrated"]


def _strong(estimate: dict[str, Any] | None) -> bool:
    return estimate is not None and abs(estimate["value"]) > STRONG_CORRELATION


READINGS: dict[str, Reading] = {
    "chance": Reading(
        lambda s: s["accuracy"]["low"] <= 0.5 <= s["accuracy"]["high"],
        "accuracy {accuracy[value]:.3f} [{accuracy[low]:.3f}, {accuracy[high]:.3f}] is not distinguishable from chance",
        "evaluate on more prompts ({n_prompts} here), or train on more pairs",
    ),
    "below_chance": Reading(
        lambda s: s["accuracy"]["high"] < 0.5,
        "accuracy {accuracy[value]:.3f} [{accuracy[low]:.3f}, {accuracy[high]:.3f}] is below chance",
        "check that chosen and rejected are not swapped; a set built to fool judges also does this",
    ),
    "length_baseline": Reading(
        lambda s: s["length"]["gain_over_baseline"]["low"] <= 0,
        "accuracy is not shown to be above the better length baseline (longer {length[baseline_longer][value]:.3f}, "
        "shorter {length[baseline_shorter][value]:.3f}): gain {length[gain_over_baseline][value]:+.3f} "
        "[{length[gain_over_baseline][low]:+.3f}, {length[gain_over_baseline][high]:+.3f}]",
        "compare accuracy where the chosen answer is longer and where it is shorter",
    ),
    "length_bias": Reading(
        lambda s: _strong(s["length"]["spearman_reward_length"]),
        "length bias: over all answers, reward and length have rank correlation "
        "{length[spearman_reward_length][value]:+.2f}",
        "balance the training pairs by length; check that it holds within a prompt too",
    ),
    "length_bias_within_prompts": Reading(
        lambda s: _strong(s["length"]["spearman_margin_length_difference"]),
        "length bias: within pairs, difference of rewards and difference of lengths have rank correlation "
        "{length[spearman_margin_length_difference][value]:+.2f}",
        "balance the training pairs by length: as many with the shorter answer chosen as with the longer",
    ),
    "overconfident": Reading(
        lambda s: _miscalibrated(s) and s["overconfidence"] > 0,
        "overconfident: confidence minus accuracy is {overconfidence:+.3f} (ECE {ece:.3f}, where chance alone would "
        "give {ece_if_calibrated:.3f})",
        "train for fewer epochs or with label smoothing, or divide rewards by a temperature fitted on held-out pairs",
    ),
    "underconfident": Reading(
        lambda s: _miscalibrated(s) and s["overconfidence"] < 0,
        "underconfident: confidence minus accuracy is {overconfidence:+.3f} (ECE {ece:.3f}, where chance alone would "
        "give {ece_if_calibrated:.3f})",
        "train longer, or divide rewards by a temperature fitted on held-out pairs; the ranking is not affected",
    ),
    "ties": Reading(
        lambda s: s["tie_share"] > MANY_TIES,
        "{ties} of {n_pairs} pairs ({tie_share:.1%}) tie exactly: likely low-precision scores, or identical answers",
        "score with --dtype float32; check_data.py counts identical and truncated-to-identical pairs",
    ),
}


def verdict(summary: Summary) -> list[str]:
    """One sentence, and what to try next, for every reading that applies, in the order of READINGS."""
    applying = [reading for reading in READINGS.values() if reading.applies(summary)]
    return [f"{reading.sentence.format(**summary)}. Next: {reading.next.format(**summary)}." for reading in applying]


# Tables


def show(summary: Summary, title: str) -> None:
    """Print a summary on stderr: headline, calibration, length, subsets. The sentences of `verdict` are not printed."""
    length = summary["length"]
    headline = {
        "accuracy": summary["accuracy"],
        "pick the longer": length["baseline_longer"],
        "pick the shorter": length["baseline_shorter"],
        "gain over the better": length["gain_over_baseline"],
    }
    _estimates(f"{title}: {summary['n_pairs']} pairs of {summary['n_prompts']} prompts", headline, chance=True)
    _calibration(summary)
    by_length = {
        "accuracy, chosen is longer": length["accuracy_longer_chosen"],
        "accuracy, chosen is shorter": length["accuracy_shorter_chosen"],
        "accuracy, same length": length["accuracy_same_length"],
        "rank correlation, reward and length": length["spearman_reward_length"],
        "rank correlation within pairs": length["spearman_margin_length_difference"],
    }
    _estimates("length", by_length)
    if summary["subsets"]:
        _subsets(summary)


def show_comparison(comparison: dict[str, Any], first: str, second: str) -> None:
    """Print what `metrics.compare` found about two models on the same pairs, on stderr."""
    rows = {
        f"A: {first}": comparison["accuracy_a"],
        f"B: {second}": comparison["accuracy_b"],
        "A - B": comparison["difference"],
    }
    _estimates(f"two models on {comparison['n_pairs']} pairs of {comparison['n_prompts']} prompts", rows)
    columns = {
        "both_right": "both right",
        "only_a": "A better",
        "only_b": "B better",
        "both_wrong": "both wrong",
        "both_tied": "both tied",
        "mcnemar_p": "McNemar p",
        "prompt_sign_test_p": "p by prompt",
    }
    console.table("pairs and exact tests", list(columns.values()), [[comparison[key] for key in columns]])


def _estimates(title: str, rows: dict[str, dict[str, Any] | None], chance: bool = False) -> None:
    """Name, value and interval, one row an estimate; an estimate that no pair could give shows as dashes."""
    empty = dict.fromkeys(("value", "low", "high", "n"))
    cells = [[name, *((row or empty)[key] for key in empty)] for name, row in rows.items()]
    if chance:
        cells.append(["chance", 0.5, None, None, None])
    console.table(title, ["", "value", "95 % low", "high", "n"], cells)


def _calibration(summary: Summary) -> None:
    blind = summary["blind"]
    rows = [
        ["log-loss", summary["log_loss"], blind["log_loss"]],
        ["Brier score", summary["brier"], blind["brier"]],
        ["ECE", summary["ece"], None],
        ["ECE if calibrated, with so few pairs", summary["ece_if_calibrated"], None],
        ["confidence - accuracy", summary["overconfidence"], None],
        ["mean margin", summary["margin"]["mean"], 0.0],
        ["exact ties", float(summary["tie_share"]), None],
    ]
    console.table("calibration and margins", ["", "value", "blind model"], rows)
    bins = [
        [f"{row['from']:.2f} to {row['to']:.2f}", row["n"], row["confidence"], row["accuracy"]]
        for row in summary["reliability"]
    ]
    console.table("how sure, how right", ["confidence", "n", "mean confidence", "accuracy"], bins)


def _subsets(summary: Summary) -> None:
    """The subsets with the smallest accuracy, at most SUBSET_ROWS of them, and both means."""
    ordered = sorted(summary["subsets"].items(), key=lambda item: (item[1]["value"], item[0]))
    rows = dict(ordered[:SUBSET_ROWS])
    _estimates("subsets, smallest accuracy first", rows)
    cut = len(ordered) - len(rows)
    if cut:
        console.log(f"{cut} more subsets are not shown; the JSON has them all")
    means = {"macro: mean over subsets": summary["macro_accuracy"], "micro: mean over pairs": summary["micro_accuracy"]}
    _estimates("all subsets", means)
