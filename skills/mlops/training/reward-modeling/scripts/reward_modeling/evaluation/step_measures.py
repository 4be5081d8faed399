"""Step labels and scores -> numbers with error bars, and the threshold under which a step is flagged.

A step is wrong when its label is under one half, and flagged when its score is under the threshold. "Positive" is a wrong
step. Where labels stop at the first error, the steps after it count nowhere; measures of solutions need no label there,
since only the first flag counts. A solution without an error counts as correct when its last step is labeled.

Sources
    ProcessBench, arXiv:2412.06559, section 3: the first wrong step, and the harmonic mean of the two accuracies
    DeLong et al. 1988, Biometrics 44:837-845: the variance of the AUROC from placements; Obuchowski 1997, Biometrics
        53:567-578: the same with clustered data
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.records import Solution
from ..errors import DataError
from .inputs import prompt_keys
from .intervals import Estimate, Groups, accuracy_where, floats, group_index, smooth

NO_ERROR, UNKNOWN = -1, -2
FIXED = 0.5
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class LabeledSteps:
    """Every labeled and scored step, flat. scores, wrong: [steps]. place: [steps] its number within the solution.

    owner: [steps] number of its solution. first_error: [solutions] place of the first wrong step, NO_ERROR for a correct
    solution, UNKNOWN where labels or scores do not tell. groups: [solutions] what solutions of one prompt share.
    """

    scores: np.ndarray
    wrong: np.ndarray
    place: np.ndarray
    owner: np.ndarray
    first_error: np.ndarray
    groups: np.ndarray

    def of(self, chosen: np.ndarray) -> LabeledSteps:
        """The steps of the solutions where `chosen` [solutions] is true."""
        kept = chosen[self.owner]
        owner = (np.cumsum(chosen) - 1)[self.owner[kept]]
        steps = self.scores[kept], self.wrong[kept], self.place[kept], owner
        return LabeledSteps(*steps, self.first_error[chosen], self.groups[chosen])


def labeled_steps(solutions: Sequence[Solution], scores: Sequence[Sequence[float | None]]) -> LabeledSteps:
    """scores: [solutions][steps] probability of being correct, None for a step that was not scored.

    Raises DataError without a labeled step that was scored.
    """
    steps, first_error = [], []
    for number, (solution, row) in enumerate(zip(solutions, scores, strict=True)):
        found, missing = NO_ERROR if _is_complete(solution) else UNKNOWN, False
        for i, (label, score) in enumerate(zip(solution.labels or (), row, strict=False)):
            if label is None:
                missing |= i == 0  # nobody labeled how it begins, as in an alternative of a late step
                continue
            missing |= score is None
            if label < FIXED and found < 0:
                found = UNKNOWN if missing else i
            if score is not None:
                steps.append((score, label < FIXED, i, number))
        first_error.append(UNKNOWN if missing and found == NO_ERROR else found)
    if not steps:
        raise DataError(
            "no labeled step could be scored",
            hint="rows need `labels`, one for each step; if they have them, raise --max_length",
        )
    groups = group_index(prompt_keys(solutions), len(solutions))
    return LabeledSteps(*map(np.array, zip(*steps, strict=True)), np.array(first_error), groups)


def _is_complete(solution: Solution) -> bool:
    """Whether labels reach the last step, so that a solution without an error is known to be correct."""
    labels = solution.labels or ()
    return len(labels) == len(solution.steps) and labels[-1] is not None


def auroc(wrongness, wrong, groups: Groups = None) -> Estimate | None:
    """Probability that a wrong step has the higher wrongness than a correct one, ties one half. 0.5 for a blind model.

    wrongness: [n], higher for steps that look wrong; wrong: [n] bool. None without steps of both kinds. The interval is
    from DeLong's placements, summed by group.
    """
    wrongness, wrong = floats(wrongness), np.asarray(wrong, dtype=bool)
    positive, negative = int(wrong.sum()), int((~wrong).sum())
    if not positive or not negative:
        return None
    from scipy import stats

    ranks = stats.rankdata(wrongness)
    placement = np.empty(len(wrong))
    placement[wrong] = (ranks[wrong] - stats.rankdata(wrongness[wrong])) / negative
    placement[~wrong] = 1 - (ranks[~wrong] - stats.rankdata(wrongness[~wrong])) / positive
    value = float(placement[wrong].mean())
    return smooth(value, (placement - value) / np.where(wrong, positive, negative), groups)


def harmonic_mean(outcomes, wrong, groups: Groups = None) -> Estimate | None:
    """2 a c / (a + c) of the accuracies on erroneous and on correct solutions: the F1 of ProcessBench. 0 if both are 0.

    outcomes: [solutions] 1 where the first error was found or rightly none; wrong: [solutions] bool. None without
    solutions of both kinds. The interval is by the delta method.
    """
    outcomes, wrong = floats(outcomes), np.asarray(wrong, dtype=bool)
    if not wrong.any() or wrong.all():
        return None
    a, c = outcomes[wrong].mean(), outcomes[~wrong].mean()
    if a + c == 0:
        return smooth(0.0, np.zeros(len(wrong)), groups)
    slope = np.where(wrong, c**2, a**2) * 2 / (a + c) ** 2
    influence = slope * (outcomes - np.where(wrong, a, c)) / np.where(wrong, wrong.sum(), (~wrong).sum())
    return smooth(float(2 * a * c / (a + c)), influence, groups)


def first_flagged(data: LabeledSteps, flagged: np.ndarray) -> np.ndarray:
    """[solutions] place of the first flagged step, NO_ERROR where none is. flagged: [steps] bool."""
    first = np.full(len(data.first_error), NEVER)
    np.minimum.at(first, data.owner[flagged], data.place[flagged])
    return np.where(first == NEVER, NO_ERROR, first)


@dataclass(frozen=True)
class StepMeasures:
    """How well wrong steps are told; an estimate is null where nothing is to measure."""

    step_accuracy: Estimate | None
    """Share of steps rightly flagged or rightly not."""
    precision: Estimate | None
    """Share of flagged steps that are wrong."""
    recall: Estimate | None
    """Share of wrong steps that are flagged."""
    f1: Estimate | None
    """Harmonic mean of precision and recall."""
    auroc: Estimate | None
    """Probability that a wrong step scores lower than a correct one; 0.5 for a blind model. Needs no threshold."""
    first_error_accuracy: Estimate | None
    """Share of solutions whose first flag is the first error, or that have neither."""
    erroneous: Estimate | None
    """The same among solutions with an error."""
    correct: Estimate | None
    """The same among solutions without."""
    processbench_f1: Estimate | None
    """Harmonic mean of `erroneous` and `correct` (arXiv:2412.06559)."""


def measures(data: LabeledSteps, thresholds: np.ndarray) -> StepMeasures:
    """Every measure of one scorer. thresholds: [solutions]."""
    groups = data.groups[data.owner]
    flagged = data.scores < thresholds[data.owner]
    hit = flagged & data.wrong
    known = data.first_error != UNKNOWN
    right = (first_flagged(data, flagged) == data.first_error)[known]
    bad, prompts = (data.first_error != NO_ERROR)[known], data.groups[known]
    return StepMeasures(
        step_accuracy=_share(flagged == data.wrong, groups),
        precision=_share(hit, groups, flagged),
        recall=_share(hit, groups, data.wrong),
        f1=_share(hit, groups, flagged.astype(float) + data.wrong),  # true flags weigh two, other flags and misses one
        auroc=auroc(-data.scores, data.wrong, groups),
        first_error_accuracy=_share(right, prompts),
        erroneous=_share(right, prompts, bad),
        correct=_share(right, prompts, ~bad),
        processbench_f1=harmonic_mean(right, bad, prompts),
    )


def _share(hits: np.ndarray, groups: np.ndarray, weights: np.ndarray | None = None) -> Estimate | None:
    """The mean of hits where there is weight, or None where there is none."""
    weights = np.ones(len(hits)) if weights is None else floats(weights)
    return accuracy_where(weights > 0, hits, groups, weights)


def choose_threshold(data: LabeledSteps) -> tuple[float, float]:
    """(threshold, its ProcessBench F1 here): the best of those between two neighboring scores; of equal ones the middle.

    A correct solution is told rightly up to its lowest score, an erroneous one above the score of its first error and
    up to the lowest before it. Raises DataError without solutions of both kinds.
    """
    scores, n = data.scores, len(data.first_error)
    lowest_before, at_error = np.full(n, np.inf), np.full(n, -np.inf)
    ends = np.where(data.first_error == NO_ERROR, NEVER, data.first_error)[data.owner]
    before, at = data.place < ends, data.place == ends
    np.minimum.at(lowest_before, data.owner[before], scores[before])
    at_error[data.owner[at]] = scores[at]
    correct, erroneous = data.first_error == NO_ERROR, data.first_error >= 0
    if not correct.any() or not erroneous.any():
        raise DataError(
            "a threshold is chosen on solutions with an error and solutions without; of those whose steps are all labeled "
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
