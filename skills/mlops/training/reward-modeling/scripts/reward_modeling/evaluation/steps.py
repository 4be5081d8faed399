"""Judge a process reward model on solutions whose steps are labelled.

A step is wrong when its label is under one half, and flagged when its score is under the threshold. "Positive" is a wrong
step. Where labels stop at the first error, the steps behind it count nowhere; figures of solutions need no label there,
since only the first flag counts. A solution without an error counts as correct when its last step is labelled.

The threshold must come from other solutions than those it is judged on: from a file, or each half of the prompts from the
other half. It is the one with the highest ProcessBench F1.

Sources
    ProcessBench, arXiv:2412.06559, section 3: the first wrong step, and the harmonic mean of the two accuracies
    DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44:837-845: the variance of the AUROC from placements
    Obuchowski 1997, Biometrics 53:567-578: the same with clustered data
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from ..console import DataError, progress
from ..metadata import with_metadata
from ..process import step_rewards
from ..records import Solution, split_by_prompt
from . import metrics
from .metrics import Estimate
from .report import prompt_keys, subsets

NO_ERROR, UNKNOWN = -1, -2
SUBSET_COLUMNS = ("subject", "subset", "category", "domain", "source", "task", "generator")
FIXED = 0.5


# ---- data ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelledSteps:
    """Every labelled and scored step, flat. wrong: [steps] bool. place: [steps] its number within the solution.

    owner: [steps] number of its solution. first_error: [solutions] place of the first wrong step, NO_ERROR for a correct
    solution, UNKNOWN where labels or scores do not tell. groups: [solutions] what solutions of one prompt share.
    """

    wrong: np.ndarray
    place: np.ndarray
    owner: np.ndarray
    first_error: np.ndarray
    groups: np.ndarray

    def of(self, chosen: np.ndarray) -> tuple[LabelledSteps, np.ndarray]:
        """The solutions where `chosen` [solutions] is true, and [steps] which of the steps are theirs."""
        kept = chosen[self.owner]
        owner = (np.cumsum(chosen) - 1)[self.owner[kept]]
        return LabelledSteps(
            self.wrong[kept], self.place[kept], owner, self.first_error[chosen], self.groups[chosen]
        ), kept


def labelled_steps(
    solutions: Sequence[Solution], scores: Sequence[Sequence[float | None]]
) -> tuple[LabelledSteps, np.ndarray, dict[str, int]]:
    """(the labelled and scored steps, [steps] their scores, counts of what was left out).

    scores: [solutions][steps] probability of being correct, None for a step that was not scored.
    Raises DataError without a labelled step that was scored.
    """
    wrong, place, owner, first_error, values, not_scored = [], [], [], [], [], 0
    for number, (solution, row) in enumerate(zip(solutions, scores, strict=True)):
        labels = list(solution.labels or ())
        found, missing = NO_ERROR if _is_complete(solution) else UNKNOWN, 0
        for i, (label, score) in enumerate(zip(labels, row, strict=False)):
            if label is None:
                continue
            missing += score is None
            if label < FIXED and found < 0:
                found = UNKNOWN if missing else i
            if score is not None:
                wrong.append(label < FIXED)
                place.append(i)
                owner.append(number)
                values.append(score)
        not_scored += missing
        first_error.append(UNKNOWN if missing and found == NO_ERROR else found)
    if not values:
        raise DataError(
            "no labelled step could be scored",
            hint="rows need `labels`, one for each step; if they have them, raise --max_length",
        )
    data = LabelledSteps(
        np.array(wrong),
        np.array(place),
        np.array(owner),
        np.array(first_error),
        metrics.group_index(prompt_keys(solutions), len(solutions)),
    )
    left_out = {"not_scored_steps": not_scored, "not_judged_solutions": int(np.sum(data.first_error == UNKNOWN))}
    return data, np.array(values), left_out


def _is_complete(solution: Solution) -> bool:
    """Whether labels reach the last step, so that a solution without an error is known to be correct."""
    labels = solution.labels or ()
    return len(labels) == len(solution.steps) and labels[-1] is not None


# ---- figures ------------------------------------------------------------------------------------------------------


def auroc(wrongness, wrong, groups: metrics.Groups = None) -> Estimate | None:
    """Probability that a wrong step has the higher wrongness than a correct one, ties one half. 0.5 for a blind model.

    wrongness: [n], higher for steps that look wrong; wrong: [n] bool. None without steps of both kinds. The interval is
    from DeLong's placements, summed by group.
    """
    wrongness, wrong = metrics.floats(wrongness), np.asarray(wrong, dtype=bool)
    positive, negative = int(wrong.sum()), int((~wrong).sum())
    if not positive or not negative:
        return None
    ranks = stats.rankdata(wrongness)
    placement = np.empty(len(wrong))
    placement[wrong] = (ranks[wrong] - stats.rankdata(wrongness[wrong])) / negative
    placement[~wrong] = 1 - (ranks[~wrong] - stats.rankdata(wrongness[~wrong])) / positive
    value = float(placement[wrong].mean())
    return metrics.smooth(value, (placement - value) / np.where(wrong, positive, negative), groups)


def harmonic_mean(outcomes, wrong, groups: metrics.Groups = None) -> Estimate | None:
    """2 a c / (a + c) of the accuracies on erroneous and on correct solutions: the F1 of ProcessBench. 0 if both are 0.

    outcomes: [solutions] 1 where the first error was found or rightly none; wrong: [solutions] bool. None without
    solutions of both kinds. The interval is by the delta method.
    """
    outcomes, wrong = metrics.floats(outcomes), np.asarray(wrong, dtype=bool)
    if not wrong.any() or wrong.all():
        return None
    a, c = outcomes[wrong].mean(), outcomes[~wrong].mean()
    if a + c == 0:
        return metrics.smooth(0.0, np.zeros(len(wrong)), groups)
    slope = np.where(wrong, c**2, a**2) * 2 / (a + c) ** 2
    influence = slope * (outcomes - np.where(wrong, a, c)) / np.where(wrong, wrong.sum(), (~wrong).sum())
    return metrics.smooth(float(2 * a * c / (a + c)), influence, groups)


def first_flagged(data: LabelledSteps, flagged: np.ndarray) -> np.ndarray:
    """[solutions] place of the first flagged step, NO_ERROR where none is. flagged: [steps] bool."""
    nothing = np.iinfo(np.int64).max
    first = np.full(len(data.first_error), nothing, dtype=np.int64)
    np.minimum.at(first, data.owner[flagged], data.place[flagged])
    return np.where(first == nothing, NO_ERROR, first)


def figures(data: LabelledSteps, scores: np.ndarray, thresholds: np.ndarray) -> dict[str, dict | None]:
    """Every figure of one judge. scores: [steps]; thresholds: [solutions]. Estimates, or None where nothing is to judge.

    step_accuracy        share of steps rightly flagged or rightly not
    precision, recall    of the flags: flagged steps that are wrong, wrong steps that are flagged
    f1                   their harmonic mean: a weighted mean over steps, true flags twice, other flags and misses once
    auroc                needs no threshold
    first_error_accuracy share of solutions whose first flag is the first error, or that have neither
    erroneous, correct   the same among solutions with and without an error; processbench_f1 their harmonic mean
    """
    groups = data.groups[data.owner]
    flagged = scores < thresholds[data.owner]
    hit = flagged & data.wrong
    known = data.first_error != UNKNOWN
    right = (first_flagged(data, flagged) == data.first_error)[known]
    bad, prompts = (data.first_error != NO_ERROR)[known], data.groups[known]
    estimates = {
        "step_accuracy": _share(flagged == data.wrong, groups),
        "precision": _share(hit, groups, flagged),
        "recall": _share(hit, groups, data.wrong),
        "f1": _share(hit, groups, flagged.astype(float) + data.wrong),
        "auroc": auroc(-scores, data.wrong, groups),
        "first_error_accuracy": _share(right, prompts),
        "erroneous": _share(right, prompts, bad),
        "correct": _share(right, prompts, ~bad),
        "processbench_f1": harmonic_mean(right, bad, prompts),
    }
    return {name: None if estimate is None else asdict(estimate) for name, estimate in estimates.items()}


def _share(hits, groups, weights=None) -> Estimate | None:
    """The mean of hits where there is weight, or None where there is none."""
    weights = np.ones(len(hits)) if weights is None else metrics.floats(weights)
    used = weights > 0
    if not used.any():
        return None
    return metrics.accuracy(hits[used], groups[used], weights[used])


# ---- the threshold ------------------------------------------------------------------------------------------------


def choose_threshold(data: LabelledSteps, scores: np.ndarray) -> tuple[float, float]:
    """(threshold, its ProcessBench F1 here): the best of those between two neighbouring scores; of equal ones the middle.

    A correct solution is judged rightly up to its lowest score, an erroneous one above the score of its first error and
    up to the lowest before it. Raises DataError without solutions of both kinds.
    """
    n = len(data.first_error)
    lowest_before, at_error = np.full(n, np.inf), np.full(n, -np.inf)
    ends = np.where(data.first_error == NO_ERROR, np.iinfo(np.int64).max, data.first_error)[data.owner]
    before, at = data.place < ends, data.place == ends
    np.minimum.at(lowest_before, data.owner[before], scores[before])
    at_error[data.owner[at]] = scores[at]
    correct, erroneous = data.first_error == NO_ERROR, data.first_error >= 0
    if not correct.any() or not erroneous.any():
        raise DataError(
            "a threshold is chosen on solutions with an error and solutions without; of those whose steps are all labelled "
            f"and scored, {int(erroneous.sum())} have one and {int(correct.sum())} have none",
            hint="where steps were longer than the model reads raise --max_length; otherwise give other solutions with "
            "--threshold_data, or a number with --threshold",
        )
    distinct = np.unique(scores)
    candidates = np.concatenate([[distinct[0]], (distinct[1:] + distinct[:-1]) / 2, [np.nextafter(distinct[-1], 2)]])

    def share_above(values: np.ndarray) -> np.ndarray:
        """[candidates] share of the values that are at least the candidate."""
        return 1 - np.searchsorted(np.sort(values), candidates, side="left") / len(values)

    c = share_above(lowest_before[correct])
    window = lowest_before[erroneous] > at_error[erroneous]
    a = share_above(np.where(window, lowest_before[erroneous], -np.inf)) - share_above(
        np.where(window, at_error[erroneous], -np.inf)
    )
    f1 = np.divide(2 * a * c, a + c, out=np.zeros_like(a), where=a + c > 0)
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    chosen = best[len(best) // 2]
    return float(candidates[chosen]), float(f1[chosen])


def halves(solutions: Sequence[Solution]) -> np.ndarray:
    """[solutions] which half a solution's prompt belongs to, by its hash: the same in every run and from every file."""
    second = {id(solution) for solution in split_by_prompt(solutions, 0.5, seed=0)[1]}
    return np.array([id(solution) in second for solution in solutions])


def cross_fitted(data: LabelledSteps, scores: np.ndarray, half: np.ndarray) -> np.ndarray:
    """[solutions] thresholds: each half's chosen on the other. half: [solutions] bool."""
    thresholds = np.empty(len(half))
    for side in (False, True):
        other, kept = data.of(half != side)
        thresholds[half == side] = choose_threshold(other, scores[kept])[0]
    return thresholds


# ---- baselines ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Baseline:
    """A judge that looks at no content. scores: the steps of a solution -> [steps]; flagged under 0.5, or with
    `chosen` under a threshold chosen as the model's is, by halves of the prompts where the model's is given."""

    scores: Callable[[Sequence[str]], list[float]]
    description: str
    chosen: bool = False


def _longest(steps: Sequence[str]) -> list[float]:
    longest = max(range(len(steps)), key=lambda i: len(steps[i]))
    return [0.0 if i == longest else 1.0 for i in range(len(steps))]


BASELINES: dict[str, Baseline] = {
    "all_correct": Baseline(lambda steps: [1.0] * len(steps), "flags nothing"),
    "all_wrong": Baseline(lambda steps: [0.0] * len(steps), "flags every step"),
    "longest_step": Baseline(_longest, "flags the longest step of each solution, in characters"),
    "longer_steps": Baseline(
        lambda steps: [-float(len(step)) for step in steps], "flags steps from a number of characters on", chosen=True
    ),
    "later_steps": Baseline(
        lambda steps: [-float(i) for i in range(len(steps))],
        "flags from a step number on: where labels stop at the first error, wrong steps are the later ones",
        chosen=True,
    ),
}


# ---- everything ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepJudgement:
    """summary: see `judge`. rows: one JSON row a solution."""

    summary: dict[str, Any]
    rows: list[dict[str, Any]]


def score(model: Any, solutions: Sequence[Solution]) -> list[list[float | None]]:
    """[solutions][steps] the probability that each step is correct, None for what the over-length policy left out."""
    with progress("scoring", len(solutions)) as advance:
        scored = model.score_solutions([(s.prompt, s.steps, s.origin) for s in solutions], advance)
    return [step_rewards(solution.steps, row) for row, solution in zip(scored, solutions, strict=True)]


def judge(
    model: Any,
    solutions: Sequence[Solution],
    *,
    threshold: float | None = None,
    threshold_data: Sequence[Solution] | None = None,
    subset_column: str | None = None,
) -> StepJudgement:
    """Score every step and summarise.

    threshold: a fixed one; threshold_data: solutions to choose it on; neither: halves of the prompts, see `cross_fitted`.
    summary: counts, `threshold` ({"values", "chosen_on"}), the keys of `figures`, `subsets` {name: figures}, `baselines`
    {name: figures}, on the same steps. Raises DataError without labels or with labels of one kind only to choose on.
    """
    before = dict(model.renderer.counts)
    scores = score(model, solutions)
    model.warn_of_losses(before)
    data, values, left_out = labelled_steps(solutions, scores)
    choose = _chooser(model, solutions, threshold, threshold_data)
    thresholds = choose.thresholds(data, values, None)
    names = subsets(solutions, subset_column or _usual_column(solutions))
    summary = {
        "n_solutions": len(solutions),
        "n_prompts": int(data.groups.max()) + 1,
        "n_steps": len(values),
        "wrong_steps": int(data.wrong.sum()),
        "erroneous_solutions": int(np.sum(data.first_error >= 0)),
        "correct_solutions": int(np.sum(data.first_error == NO_ERROR)),
        **left_out,
        "threshold": {"values": sorted(set(thresholds.tolist())), "chosen_on": choose.on},
        **figures(data, values, thresholds),
        "subsets": _by_subset(data, values, thresholds, names),
        "baselines": {
            name: _baseline_figures(baseline, solutions, scores, choose) for name, baseline in BASELINES.items()
        },
    }
    flags = first_flagged(data, values < thresholds[data.owner])
    rows = [
        with_metadata(
            {
                "id": solution.id,
                "origin": str(solution.origin) if solution.origin else None,
                "labels": solution.labels,
                "step_rewards": row,
                "threshold": float(at),
                "first_flagged": int(flag),
                "first_error": None if error == UNKNOWN else int(error),
            },
            solution.metadata,
        )
        for solution, row, at, flag, error in zip(solutions, scores, thresholds, flags, data.first_error, strict=True)
    ]
    return StepJudgement(summary, rows)


@dataclass(frozen=True)
class _Chooser:
    """thresholds: steps, their scores and a baseline (None: the model) -> [solutions]. `on` says from what."""

    thresholds: Callable[[LabelledSteps, np.ndarray, Baseline | None], np.ndarray]
    on: str


def _chooser(model: Any, solutions, threshold: float | None, others: Sequence[Solution] | None) -> _Chooser:
    if threshold is None and others is not None:
        return _on_others(model, others)
    half = halves(solutions)

    def by_halves(data: LabelledSteps, scores: np.ndarray, baseline: Baseline | None) -> np.ndarray:
        return cross_fitted(data, scores, half)

    def given(data: LabelledSteps, scores: np.ndarray, baseline: Baseline | None) -> np.ndarray:
        if baseline is not None:  # whose scores have another scale
            with contextlib.suppress(DataError):
                return by_halves(data, scores, baseline)
        return np.full(len(data.first_error), threshold)

    if threshold is not None:
        return _Chooser(given, "given")
    sizes = f"{int((~half).sum())} and {int(half.sum())} solutions"
    return _Chooser(by_halves, f"halves of the prompts by hash ({sizes}), each on the other")


def _on_others(model: Any, others: Sequence[Solution]) -> _Chooser:
    of_model = score(model, others)

    def chosen(data: LabelledSteps, scores: np.ndarray, baseline: Baseline | None) -> np.ndarray:
        rows = of_model if baseline is None else _baseline_scores(baseline, others, of_model)
        there, values, _ = labelled_steps(others, rows)
        return np.full(len(data.first_error), choose_threshold(there, values)[0])

    return _Chooser(chosen, f"{len(others)} solutions of other data")


def _baseline_scores(baseline: Baseline, solutions, scores) -> list[list[float | None]]:
    """The baseline's scores, of the steps that the model has scored too."""
    return [
        [None if seen is None else value for value, seen in zip(baseline.scores(solution.steps), row, strict=True)]
        for solution, row in zip(solutions, scores, strict=True)
    ]


def _baseline_figures(baseline: Baseline, solutions, scores, choose: _Chooser) -> dict[str, dict | None]:
    data, values, _ = labelled_steps(solutions, _baseline_scores(baseline, solutions, scores))
    fixed = np.full(len(data.first_error), FIXED)
    return figures(data, values, choose.thresholds(data, values, baseline) if baseline.chosen else fixed)


def _usual_column(solutions: Sequence[Solution]) -> str | None:
    return next((name for name in SUBSET_COLUMNS if any(name in s.metadata for s in solutions)), None)


def _by_subset(data, scores, thresholds, names) -> dict[str, dict[str, dict | None]]:
    if names is None:
        return {}
    labels = np.array([str(name) for name in names])
    table = {}
    for name in sorted(set(labels[data.owner])):
        inside, kept = data.of(labels == name)
        table[name] = figures(inside, scores[kept], thresholds[labels == name])
    return table
