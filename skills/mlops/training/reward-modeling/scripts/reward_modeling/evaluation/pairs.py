"""Evaluate a reward model on labeled comparisons: measures, diagnostics and tables.

evaluation = evaluate_pairs(model, pairs)       both sides scored, then counted by `pair_measures.summarize_pairs`
show_pairs(evaluation.summary, "mine")          tables on stderr
diagnose_pairs(evaluation.summary)              a sentence for each thing worth knowing
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..data.records import Comparison
from ..data.writing import with_metadata
from ..errors import DataError
from ..rendering import Conversation
from ..terminal import table
from .diagnostics import SUBSET_ROWS, Diagnostic, diagnosed, estimates_table, tell_more
from .inputs import answer_length, prompt_keys, score_distinct, source_of, subsets
from .intervals import Estimate
from .pair_measures import PairedComparison, PairSummary, compare_outcomes, pair_outcomes, summarize_pairs

if TYPE_CHECKING:
    from ..scoring import RewardModel

STRONG_CORRELATION = 0.5
LARGE_ECE = 0.1
MANY_TIES = 0.05


@dataclass(frozen=True)
class PairEvaluation:
    """What a reward model made of labeled comparisons.

    chosen, rejected: [n] raw rewards of the pairs both of whose sides got one.
    scored: every pair in input order with both rewards, None where the over-length policy left a side out.
    """

    chosen: np.ndarray
    rejected: np.ndarray
    summary: PairSummary
    scored: list[tuple[Comparison, float | None, float | None]]

    def rows(self, other: PairEvaluation | None = None) -> list[dict[str, object]]:
        """One JSON row for each pair of the input: where it came from, its texts, rewards (those of the `other` model
        too), lengths and metadata."""
        rows = []
        for place, (pair, chosen, rejected) in enumerate(self.scored):
            row = {**source_of(pair), "prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}
            row |= {"reward_chosen": chosen, "reward_rejected": rejected}
            if other:
                row |= dict(zip(("other_reward_chosen", "other_reward_rejected"), other.scored[place][1:], strict=True))
            row |= {f"length_{side}": answer_length(getattr(pair, side)) for side in ("chosen", "rejected")}
            rows.append(with_metadata(row, pair.metadata))
        return rows


def evaluate_pairs(
    model: RewardModel, comparisons: Sequence[Comparison], *, subset_column: str | None = None
) -> PairEvaluation:
    """Score every pair and summarize. Identical conversations are computed once.

    Raises DataError when the over-length policy leaves no pair.
    """
    before = dict(model.renderer.counts)
    sides = ((pair, side) for pair in comparisons for side in (pair.chosen, pair.rejected))
    scores = score_distinct(model, [Conversation(pair.prompt, side, pair.tools, pair.origin) for pair, side in sides])
    scored = list(zip(comparisons, scores[::2], scores[1::2], strict=True))
    kept = [(pair, c, r) for pair, c, r in scored if c is not None and r is not None]
    if not kept:
        raise DataError(
            f"none of {len(comparisons)} pairs fits into {model.renderer.max_length} tokens",
            hint="raise --max_length, or choose --overlong truncate_left",
        )
    pairs = [pair for pair, _, _ in kept]
    chosen, rejected = np.array([c for _, c, _ in kept]), np.array([r for _, _, r in kept])
    counts = model.renderer.counts
    summary = summarize_pairs(
        chosen,
        rejected,
        chosen_lengths=[answer_length(pair.chosen) for pair in pairs],
        rejected_lengths=[answer_length(pair.rejected) for pair in pairs],
        groups=prompt_keys(pairs),
        subsets=subsets(pairs, subset_column),
        weights=[pair.weight for pair in pairs],
        not_scored=len(comparisons) - len(kept),
        **{name: counts[name] - before.get(name, 0) for name in ("truncated", "not_rendered")},
    )
    model.warn_of_losses(before)
    return PairEvaluation(chosen, rejected, summary, scored)


def compare_models(first: PairEvaluation, second: PairEvaluation) -> PairedComparison:
    """Two models, which have evaluated the same pairs, on those that both could score."""
    both = zip(first.scored, second.scored, strict=True)
    shared = [(pair, a, b) for (pair, *a), (_, *b) in both if None not in (*a, *b)]
    if not shared:
        raise DataError(
            "no pair was scored by both models", hint="raise --max_length, or choose --overlong truncate_left"
        )
    pairs, *rewards = zip(*shared, strict=True)
    return compare_outcomes(
        *(pair_outcomes(*np.transpose(of_model)) for of_model in rewards),
        groups=prompt_keys(pairs),
        weights=[pair.weight for pair in pairs],
    )


def _miscalibrated(summary: PairSummary) -> bool:
    """Over the limit, and by more than few pairs produce: a calibrated model on 50 pairs shows about 0.1 by chance."""
    return summary.ece > LARGE_ECE and summary.ece > 2 * summary.ece_if_calibrated


def _strong(estimate: Estimate | None) -> bool:
    return estimate is not None and abs(estimate.value) > STRONG_CORRELATION


_CALIBRATION = (
    "confident: confidence minus accuracy is {overconfidence:+.3f} (ECE {ece:.3f}, where chance alone would give "
    "{ece_if_calibrated:.3f})"
)

PAIR_DIAGNOSTICS: dict[str, Diagnostic[PairSummary]] = {
    "chance": Diagnostic(
        lambda s: s.accuracy.low <= 0.5 <= s.accuracy.high,
        "accuracy {accuracy:.3f} is not distinguishable from chance",
        "evaluate on more prompts ({n_prompts} here), or train on more pairs",
    ),
    "below_chance": Diagnostic(
        lambda s: s.accuracy.high < 0.5,
        "accuracy {accuracy:.3f} is below chance",
        "check that chosen and rejected are not swapped; a set built to fool reward models also does this",
    ),
    "length_baseline": Diagnostic(
        lambda s: s.length.gain_over_baseline.low <= 0,
        "accuracy is not shown to be above the better length baseline (longer {length.baseline_longer.value:.3f}, "
        "shorter {length.baseline_shorter.value:.3f}): gain {length.gain_over_baseline:+.3f}",
        "compare accuracy where the chosen answer is longer and where it is shorter",
    ),
    "length_bias": Diagnostic(
        lambda s: _strong(s.length.spearman_reward_length),
        "length bias: over all answers, reward and length have rank correlation "
        "{length.spearman_reward_length.value:+.2f}",
        "balance the training pairs by length; check that it holds within a prompt too",
    ),
    "length_bias_within_prompts": Diagnostic(
        lambda s: _strong(s.length.spearman_margin_length_difference),
        "length bias: within pairs, difference of rewards and difference of lengths have rank correlation "
        "{length.spearman_margin_length_difference.value:+.2f}",
        "balance the training pairs by length: as many with the shorter answer chosen as with the longer",
    ),
    "overconfident": Diagnostic(
        lambda s: _miscalibrated(s) and s.overconfidence > 0,
        f"over{_CALIBRATION}",
        "train for fewer epochs or with label smoothing, or divide rewards by a temperature fitted on held-out pairs",
    ),
    "underconfident": Diagnostic(
        lambda s: _miscalibrated(s) and s.overconfidence < 0,
        f"under{_CALIBRATION}",
        "train longer, or divide rewards by a temperature fitted on held-out pairs; the ranking is not affected",
    ),
    "ties": Diagnostic(
        lambda s: s.tie_share > MANY_TIES,
        "{ties} of {n_pairs} pairs ({tie_share:.1%}) tie exactly: likely low-precision scores, or identical answers",
        "score with --dtype float32; check_data.py counts identical and truncated-to-identical pairs",
    ),
}


def diagnose_pairs(summary: PairSummary) -> list[str]:
    return diagnosed(summary, PAIR_DIAGNOSTICS)


def show_pairs(summary: PairSummary, title: str) -> None:
    """Print a summary on stderr: headline, calibration, length, subsets. The sentences of `diagnose_pairs` are not printed."""
    length = summary.length
    headline = {
        "accuracy": summary.accuracy,
        "pick the longer": length.baseline_longer,
        "pick the shorter": length.baseline_shorter,
        "gain over the better": length.gain_over_baseline,
    }
    estimates_table(f"{title}: {summary.n_pairs} pairs of {summary.n_prompts} prompts", headline, chance=True)
    _show_calibration(summary)
    by_length = {
        "accuracy, chosen is longer": length.accuracy_longer_chosen,
        "accuracy, chosen is shorter": length.accuracy_shorter_chosen,
        "accuracy, same length": length.accuracy_same_length,
        "rank correlation, reward and length": length.spearman_reward_length,
        "rank correlation within pairs": length.spearman_margin_length_difference,
    }
    estimates_table("length", by_length)
    if summary.subsets:
        _show_subsets(summary)


def show_comparison(found: PairedComparison, first: str, second: str) -> None:
    """Print two models on the same pairs, on stderr."""
    rows = {f"A: {first}": found.accuracy_a, f"B: {second}": found.accuracy_b, "A - B": found.difference}
    estimates_table(f"two models on {found.n_pairs} pairs of {found.n_prompts} prompts", rows)
    cells = {
        "both right": found.both_right,
        "A better": found.only_a,
        "B better": found.only_b,
        "both wrong": found.both_wrong,
        "both tied": found.both_tied,
        "McNemar p": found.mcnemar_p,
        "p by prompt": found.prompt_sign_test_p,
    }
    table("pairs and exact tests", list(cells), [list(cells.values())])


def _show_calibration(summary: PairSummary) -> None:
    rows = [
        ["log-loss", summary.log_loss, summary.blind.log_loss],
        ["Brier score", summary.brier, summary.blind.brier],
        ["ECE", summary.ece, None],
        ["ECE if calibrated, with so few pairs", summary.ece_if_calibrated, None],
        ["confidence - accuracy", summary.overconfidence, None],
        ["mean margin", summary.margin.mean, 0.0],
        ["exact ties", summary.tie_share, None],
    ]
    table("calibration and margins", ["", "value", "blind model"], rows)
    bins = [[f"{bin.from_:.2f} to {bin.to:.2f}", bin.n, bin.confidence, bin.accuracy] for bin in summary.reliability]
    table("how sure, how right", ["confidence", "n", "mean confidence", "accuracy"], bins)


def _show_subsets(summary: PairSummary) -> None:
    """The subsets with the smallest accuracy, and both means."""
    ordered = sorted(summary.subsets.items(), key=lambda item: (item[1].value, item[0]))
    estimates_table("subsets, smallest accuracy first", dict(ordered[:SUBSET_ROWS]))
    tell_more(ordered)
    means = {"macro: mean over subsets": summary.macro_accuracy, "micro: mean over pairs": summary.micro_accuracy}
    estimates_table("all subsets", means)
