"""Judge a reward model on labelled comparisons, and tell people: tables, a sentence for each thing worth knowing, pictures.

judgement = judge(model, pairs)                     both sides scored, then counted by `metrics.summarise`
write_whole("run.svg", [svg_lines([Panel("reward", "update", "reward", [Series("gold", [(0, 0.1), (1, 0.4)])])])])
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from reward_modeling import console

from ..console import DataError, progress
from ..metadata import with_metadata
from ..records import Comparison
from ..scoring import RewardModel
from . import metrics

SUBSET_COLUMNS = ("subset", "category", "domain", "source", "tranche", "task")
STATISTICS_SAMPLE = 256


@dataclass(frozen=True)
class Judgement:
    """What a reward model made of labelled comparisons.

    pairs: [n] those both of whose sides got a score. chosen, rejected: [n] raw rewards. summary: see `metrics.summarise`.
    scored: every pair in input order with both rewards, None where the over-length policy left a side out.
    """

    pairs: list[Comparison]
    chosen: np.ndarray
    rejected: np.ndarray
    summary: dict[str, Any]
    scored: list[tuple[Comparison, float | None, float | None]]

    def rows(self) -> list[dict[str, Any]]:
        """One JSON row for each pair of the input: where it came from, its metadata and both rewards."""
        return [
            with_metadata(
                {
                    "id": pair.id,
                    "origin": str(pair.origin) if pair.origin else None,
                    "reward_chosen": chosen,
                    "reward_rejected": rejected,
                },
                pair.metadata,
            )
            for pair, chosen, rejected in self.scored
        ]


def judge(model: RewardModel, comparisons: Sequence[Comparison], *, subset_column: str | None = None) -> Judgement:
    """Score every pair and summarise. Identical conversations are computed once.

    Pairs of which the over-length policy leaves out a side are counted in `summary["not_scored"]`. Raises DataError
    when no pair is left.
    """
    before = dict(model.renderer.counts)
    scores = score_distinct(
        model, [(p.prompt, side, p.tools, p.origin) for p in comparisons for side in (p.chosen, p.rejected)]
    )
    scored = list(zip(comparisons, scores[::2], scores[1::2], strict=True))
    kept = [(pair, c, r) for pair, c, r in scored if c is not None and r is not None]
    if not kept:
        raise DataError(
            f"none of {len(comparisons)} pairs fits into {model.renderer.max_length} tokens",
            hint="raise --max_length, or choose --overlong truncate_left",
        )
    pairs = [pair for pair, _, _ in kept]
    chosen, rejected = np.array([c for _, c, _ in kept]), np.array([r for _, _, r in kept])
    summary = metrics.summarise(
        chosen,
        rejected,
        chosen_lengths=[answer_length(pair.chosen) for pair in pairs],
        rejected_lengths=[answer_length(pair.rejected) for pair in pairs],
        groups=prompt_keys(pairs),
        subsets=subsets(pairs, subset_column),
        weights=[pair.weight for pair in pairs],
    )
    summary["not_scored"] = len(comparisons) - len(kept)
    summary |= {name: model.renderer.counts[name] - before.get(name, 0) for name in ("truncated", "not_rendered")}
    model.warn_of_losses(before)
    return Judgement(pairs, chosen, rejected, summary, scored)


def score_distinct(model: Any, conversations: Sequence[tuple]) -> list[float | None]:
    """`model.score_conversations`, with identical conversations computed once: they tie to the last digit."""
    places: dict[str, int] = {}
    distinct: list[tuple] = []
    order = []
    for prompt, completion, tools, where in conversations:
        key = json.dumps([prompt, completion, tools], sort_keys=True, default=str)
        if key not in places:
            places[key] = len(distinct)
            distinct.append((prompt, completion, tools, where))
        order.append(places[key])
    with progress("scoring", len(distinct)) as advance:
        scores = model.score_conversations(distinct, advance)
    return [scores[place] for place in order]


def compare(first: Judgement, second: Judgement) -> dict[str, Any]:
    """Two models on the pairs that both could score: see `metrics.compare`. Both must have judged the same pair objects."""
    places = {id(pair): i for i, pair in enumerate(second.pairs)}
    shared = [(i, places[id(pair)]) for i, pair in enumerate(first.pairs) if id(pair) in places]
    if not shared:
        raise DataError(
            "no pair was scored by both models", hint="raise --max_length, or choose --overlong truncate_left"
        )
    a, b = (np.array(side) for side in zip(*shared, strict=True))
    pairs = [first.pairs[i] for i in a]
    return metrics.compare(
        metrics.pair_outcomes(first.chosen[a], first.rejected[a]),
        metrics.pair_outcomes(second.chosen[b], second.rejected[b]),
        groups=prompt_keys(pairs),
        weights=[pair.weight for pair in pairs],
    )


def prompt_keys(pairs: Sequence[Comparison]) -> list[str]:
    """What pairs of the same prompt have in common."""
    return [json.dumps(pair.prompt, sort_keys=True, default=str) for pair in pairs]


def answer_length(completion: Sequence[dict]) -> int:
    """Characters of an answer."""
    return sum(len(message.get("content") or "") for message in completion)


def subsets(pairs: Sequence[Comparison], column: str | None) -> list[str] | None:
    """The subset of each pair, from this metadata column or from the first usual one that is there."""
    if column is None:
        column = next((name for name in SUBSET_COLUMNS if any(name in pair.metadata for pair in pairs)), None)
        if column is None:
            return None
    elif not any(column in pair.metadata for pair in pairs):
        known = sorted({name for pair in pairs for name in pair.metadata})
        raise DataError(
            f"no pair has the column {column}", hint=f"the data has {', '.join(known) or 'no metadata columns'}"
        )
    return [pair.metadata.get(column) for pair in pairs]


def reward_statistics(
    model: RewardModel, judgement: Judgement | None, training_pairs: Sequence[Comparison]
) -> dict[str, Any]:
    """Mean and standard deviation of the rewards of held-out answers, or of some training answers when none are held out."""
    source = "held-out pairs"
    if judgement is None:
        judgement, source = judge(model, training_pairs[:STATISTICS_SAMPLE]), "training pairs"
    rewards = np.concatenate([judgement.chosen, judgement.rejected])
    return {"mean": float(rewards.mean()), "std": float(rewards.std()), "n": len(rewards), "from": source}


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


def _judged(summary: Summary, name: str) -> bool:
    return summary[name] is not None


STEP_FIGURES = {
    "step_accuracy": "step accuracy",
    "precision": "precision of flags",
    "recall": "recall of wrong steps",
    "f1": "F1 of wrong steps",
    "auroc": "AUROC",
    "first_error_accuracy": "first error found, or rightly none",
    "erroneous": "of solutions with an error",
    "correct": "of correct solutions",
    "processbench_f1": "ProcessBench F1",
}


def _best_baseline(summary: Summary, figure: str) -> dict[str, Any] | None:
    """The estimate of the baseline with the largest value, with its `name`; None where the figure judges nothing."""
    judged = {name: one[figure] for name, one in summary["baselines"].items() if _judged(one, figure)}
    if not judged:
        return None
    name = max(judged, key=lambda name: judged[name]["value"])
    return {"name": _words(name), **judged[name]}


def _words(name: str) -> str:
    """A baseline's key in the JSON, as people read it and as a narrow table can wrap it."""
    return name.replace("_", " ")


def _wrong_way(judged: Iterable[Summary]) -> str:
    """What an AUROC below 0.5 means, if one of these has it."""
    below = any(_judged(one, "auroc") and one["auroc"]["value"] < 0.5 for one in judged)
    return " (an AUROC below 0.5 ranks the wrong way round)" if below else ""


def _no_better_flags(figure: str) -> Reading:
    """For a figure of flags: its interval reaches down to that of the best baseline, whose threshold is chosen alike."""
    return Reading(
        lambda s: _judged(s, figure) and s[figure]["low"] <= s["best"][figure]["high"],
        f"{STEP_FIGURES[figure]} {{{figure}[value]:.3f}} [{{{figure}[low]:.3f}}, {{{figure}[high]:.3f}}] is not shown to be "
        f"above that of the best baseline: {{best[{figure}][name]}} {{best[{figure}][value]:.3f}} "
        f"[{{best[{figure}][low]:.3f}}, {{best[{figure}][high]:.3f}}]",
        "evaluate on more solutions ({n_solutions} here), or train on more",
    )


STEP_READINGS: dict[str, Reading] = {
    "blind": Reading(
        lambda s: _judged(s, "auroc") and s["auroc"]["low"] <= 0.5 <= s["auroc"]["high"],
        "AUROC {auroc[value]:.3f} [{auroc[low]:.3f}, {auroc[high]:.3f}]: wrong steps are not told from correct ones better "
        "than by chance",
        "train on more solutions, on data like this, or from a larger model",
    ),
    "reversed": Reading(
        lambda s: _judged(s, "auroc") and s["auroc"]["high"] < 0.5,
        "AUROC {auroc[value]:.3f} [{auroc[low]:.3f}, {auroc[high]:.3f}]: wrong steps score higher than correct ones",
        "check what 1 means in the labels of the training data and of this file",
    ),
    "shortcut": Reading(
        lambda s: _judged(s, "auroc") and s["auroc"]["low"] <= s["best"]["auroc"]["value"],
        "AUROC {auroc[value]:.3f} [{auroc[low]:.3f}, {auroc[high]:.3f}] is not shown to be above that of length and "
        "position alone: longest step {baselines[longest_step][auroc][value]:.3f}, longer steps "
        "{baselines[longer_steps][auroc][value]:.3f}, later steps {baselines[later_steps][auroc][value]:.3f}{wrong_way}",
        "judge on solutions that are labelled to their end, of steps of like length",
    ),
    "majority_class": Reading(
        lambda s: s["step_accuracy"]["low"] <= s["baselines"]["all_correct"]["step_accuracy"]["value"],
        "step accuracy {step_accuracy[value]:.3f} is not shown to be above calling every step correct "
        "({baselines[all_correct][step_accuracy][value]:.3f})",
        "go by F1 and ProcessBench F1, each against its best baseline",
    ),
    "f1_baseline": _no_better_flags("f1"),
    "processbench_baseline": _no_better_flags("processbench_f1"),
    "not_judged": Reading(
        lambda s: s["not_judged_solutions"] > 0,
        "{not_judged_solutions} of {n_solutions} solutions count in no figure of solutions: labels or scores stop before "
        "it is clear where their first error is",
        "raise --max_length if steps did not fit ({not_scored_steps} of them)",
    ),
}
"""Over a summary with what `step_verdict` adds."""

BEST_OF_N_READINGS: dict[str, Reading] = {
    "worse_than_random": Reading(
        lambda s: s["gain"]["high"] < 0,
        "best of {n}: {model[value]:.3f} is below random choice ({random[value]:.3f}); gain {gain[value]:+.3f} "
        "[{gain[low]:+.3f}, {gain[high]:+.3f}]: it prefers wrong answers",
        "do not choose by it; train on answers of the generator that is to be ranked",
    ),
    "random": Reading(
        lambda s: s["gain"]["low"] <= 0 <= s["gain"]["high"],
        "best of {n}: {model[value]:.3f} is not shown to be above random choice ({random[value]:.3f}); gain "
        "{gain[value]:+.3f} [{gain[low]:+.3f}, {gain[high]:+.3f}]",
        "train on answers of the generator that is to be ranked",
    ),
    "majority": Reading(
        lambda s: _judged(s, "majority") and s["majority"]["value"] >= s["model"]["value"],
        "best of {n}: majority vote ({majority[value]:.3f}) is at least as good as the model ({model[value]:.3f})",
        "vote, which needs no model",
    ),
    "longest": Reading(
        lambda s: s["longest"]["value"] >= s["model"]["value"],
        "best of {n}: taking the longest ({longest[value]:.3f}) is at least as good as the model ({model[value]:.3f})",
        "balance the training data by length",
    ),
    "not_scored": Reading(
        lambda s: s["not_scored"] > 0,
        "{not_scored} of {completions} completions were not scored and are never preferred",
        "raise --max_length, or choose another --overlong",
    ),
}
"""Of the largest n: its entry in the curve, over the summary."""


def best_of_n_verdict(summary: Summary) -> list[str]:
    """`verdict` of a summary of `best_of_n.summarise`."""
    return verdict({**summary, **summary["curve"][-1]}, BEST_OF_N_READINGS)


def step_verdict(summary: Summary) -> list[str]:
    """`verdict` of a summary of `steps.judge`, with `best`, the best baseline of a figure, and `wrong_way`."""
    best = {figure: _best_baseline(summary, figure) for figure in ("auroc", "f1", "processbench_f1")}
    return verdict({**summary, "best": best, "wrong_way": _wrong_way(summary["baselines"].values())}, STEP_READINGS)


def verdict(summary: Summary, readings: dict[str, Reading] | None = None) -> list[str]:
    """One sentence, and what to try next, for every reading that applies, in the order of `readings` (READINGS)."""
    applying = [reading for reading in (readings or READINGS).values() if reading.applies(summary)]
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


def show_steps(summary: Summary, name: str) -> None:
    """Print a summary of `steps.judge` on stderr: figures, baselines, subsets. The sentences of `verdict` are not printed."""
    title = (
        f"{name}: {summary['n_steps']} labelled steps ({summary['wrong_steps']} wrong) of {summary['n_solutions']} "
        f"solutions ({summary['erroneous_solutions']} with an error), {summary['n_prompts']} prompts"
    )
    _estimates(title, {label: summary[key] for key, label in STEP_FIGURES.items()})
    at = ", ".join(f"{value:.4f}" for value in summary["threshold"]["values"])
    console.log(f"threshold {at}: {summary['threshold']['chosen_on']}")
    _figures_of("baselines", {"the model": summary, **{_words(key): one for key, one in summary["baselines"].items()}})
    if summary["subsets"]:
        shown = dict(list(summary["subsets"].items())[:SUBSET_ROWS])
        _figures_of("subsets", shown)
        if len(shown) < len(summary["subsets"]):
            console.log(f"{len(summary['subsets']) - len(shown)} more subsets are not shown; the JSON has them all")


def _figures_of(title: str, judged: dict[str, Summary]) -> None:
    """One row a judge or subset, a column a figure: two tables, since one is too wide for a terminal of 80 columns."""
    of_steps = {"step_accuracy": "accuracy", "f1": "F1", "auroc": "AUROC"}
    of_solutions = {
        "first_error_accuracy": "all",
        "erroneous": "with an error",
        "correct": "correct",
        "processbench_f1": "ProcessBench F1",
    }
    tables = {
        f"{title}: steps{_wrong_way(judged.values())}": of_steps,
        f"{title}: solutions whose first error is found, or rightly none": of_solutions,
    }
    for heading, columns in tables.items():
        rows = [[name, *_values(one, columns)] for name, one in judged.items()]
        console.table(heading, ["", *columns.values()], rows)


def _values(judged: Summary, figures: Iterable[str]) -> list[float | None]:
    return [(judged[key] or {}).get("value") for key in figures]


def show_best_of_n(summary: Summary, name: str) -> None:
    """Print the curves of `best_of_n.summarise` on stderr: the model's, then what it is to be compared with."""
    console.table(
        f"{name}: accuracy of the best-scored of n, {summary['completions']} completions of {summary['prompts']} prompts, "
        f"{summary['mixed_prompts']} of which have correct and wrong ones",
        ["n", "prompts", "model [95 %]", "gain over random [95 %]"],
        [[at["n"], at["prompts"], _interval(at["model"]), _interval(at["gain"])] for at in summary["curve"]],
    )
    rows = [[at["n"], *_values(at, BEST_OF_N_CURVES)] for at in summary["curve"]]
    console.table("accuracy of other choices", ["n", *BEST_OF_N_CURVES], rows)
    vote = "final answers are from" if summary["majority_possible"] else "no majority vote:"
    console.log(f"{vote} {summary['majority_answers']}")


BEST_OF_N_CURVES = ("random", "longest", "majority", "oracle")


def _interval(estimate: dict[str, Any]) -> str:
    return f"{estimate['value']:.4f} [{estimate['low']:.4f}, {estimate['high']:.4f}]"


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


# ---- pictures ---------------------------------------------------------------------------------------------------------


STYLES = {"line": "", "dashed": 'stroke-dasharray="6 4"', "dots": ""}
"""How the points of a series are joined; `dots` are not."""

# The colours of Okabe and Ito, which the colour-blind can tell apart too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 52, 40
TICKS = 5


@dataclass(frozen=True)
class Series:
    """Points (x, y) under one name, "" for none. colour: a place in COLOURS, else that of the series in its panel."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "line"
    colour: int | None = None


@dataclass(frozen=True)
class Panel:
    """One chart: a title, axis labels, any number of series."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series] = field(default_factory=tuple)


def svg_lines(panels: Sequence[Panel], columns: int = 2) -> str:
    """The panels side by side, `columns` in a row. Points that are no finite numbers are left out."""
    columns = max(1, min(columns, len(panels)))
    rows = math.ceil(len(panels) / columns)
    width, height = columns * WIDTH, max(1, rows) * HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for place, panel in enumerate(panels):
        x, y = (place % columns) * WIDTH, (place // columns) * HEIGHT
        parts += [f'<g transform="translate({x} {y})">', *_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>"])


def ticks(low: float, high: float, about: int = TICKS) -> list[float]:
    """Round numbers from within [low, high]: steps of 1, 2 or 5 times a power of ten.

    >>> ticks(0, 9)
    [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _panel(panel: Panel) -> list[str]:
    shown = [
        (series, [(x, y) for x, y in series.points if math.isfinite(x) and math.isfinite(y)]) for series in panel.series
    ]
    parts = [f'<text x="{LEFT}" y="18" font-size="13" font-weight="bold">{escape(panel.title)}</text>']
    points = [point for _, kept in shown for point in kept]
    if not points:
        return [*parts, f'<text x="{LEFT}" y="{HEIGHT // 2}">nothing to show</text>']
    (left, right), (low, high) = (_range([point[axis] for point in points]) for axis in (0, 1))

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - left) / (right - left), (y - low) / (high - low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts += _axes(panel, (left, right), (low, high), place)
    legend_x = LEFT
    for number, (series, kept) in enumerate(shown):
        colour = COLOURS[(number if series.colour is None else series.colour) % len(COLOURS)]
        parts += _curve(series.style, colour, [place(*point) for point in kept])
        if series.name:
            parts += _legend(series, colour, legend_x)
            legend_x += 30 + 6 * len(series.name)
    return parts


def _range(values: Sequence[float]) -> tuple[float, float]:
    """From the least to the largest value with a little room; never empty."""
    low, high = min(values), max(values)
    room = 0.04 * (high - low) or 0.5 * max(abs(high), 1.0)
    return low - room, high + room


def _axes(panel: Panel, across: tuple[float, float], up: tuple[float, float], place) -> list[str]:
    parts, right, bottom = [], WIDTH - RIGHT, HEIGHT - BOTTOM
    for value in ticks(*up):
        _, y = place(across[0], value)
        parts.append(f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in ticks(*across):
        x, _ = place(value, up[0])
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#666"/>')
    middle = (LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(panel.x_label)}</text>')
    turned = f'transform="rotate(-90 14 {(TOP + bottom) / 2})"'
    label = f'<text x="14" y="{(TOP + bottom) / 2}" text-anchor="middle" {turned}>{escape(panel.y_label)}</text>'
    return [*parts, label]


def _curve(style: str, colour: str, places: Sequence[tuple[float, float]]) -> list[str]:
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in places]
    if style == "dots" or len(places) < 2:
        return dots
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return [f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6" {STYLES[style]}/>']


def _legend(series: Series, colour: str, x: float) -> list[str]:
    mark = (
        f'<circle cx="{x + 8}" cy="34" r="2.5" fill="{colour}"/>'
        if series.style == "dots"
        else f'<line x1="{x}" x2="{x + 16}" y1="34" y2="34" stroke="{colour}" stroke-width="1.6" {STYLES[series.style]}/>'
    )
    return [mark, f'<text x="{x + 20}" y="38">{escape(series.name)}</text>']
