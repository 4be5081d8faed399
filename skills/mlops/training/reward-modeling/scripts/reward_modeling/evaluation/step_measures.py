"""Step labels and scores -> numbers with intervals, and the threshold for flags. "Positive": wrong, a label under 1/2."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.records import Solution
from ..errors import DataError
from .inputs import prompt_keys
from .intervals import Estimate, Groups, accuracy_where, floats, group_index, measure, smooth

NO_ERROR, UNKNOWN = -1, -2
FIXED = 0.5
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class LabeledSteps:
    """Every labeled and scored step: scores, wrong, place in its solution, owner (number of the solution): [steps].

    first_error: [solutions] place of the first wrong step, NO_ERROR where all steps to the last are labeled and right, UNKNOWN
    where labels or scores do not tell. groups: [solutions] what solutions of one prompt share.
    """

    scores: np.ndarray
    wrong: np.ndarray
    place: np.ndarray
    owner: np.ndarray
    first_error: np.ndarray
    groups: np.ndarray

    def of(self, chosen: np.ndarray) -> "LabeledSteps":
        kept = chosen[self.owner]
        owner = (np.cumsum(chosen) - 1)[self.owner[kept]]
        steps = self.scores[kept], self.wrong[kept], self.place[kept], owner
        return LabeledSteps(*steps, self.first_error[chosen], self.groups[chosen])


def labeled_steps(solutions: Sequence[Solution], scores: Sequence[Sequence[float | None]]) -> LabeledSteps:
    """scores: [solutions][steps] probability of being correct, or None. Raises DataError without a labeled, scored step."""
    steps, first_error = [], []
    for number, (solution, row) in enumerate(zip(solutions, scores, strict=True)):
        labels = solution.labels or ()
        complete = len(labels) == len(solution.steps) and labels[-1] is not None
        found, missing = NO_ERROR if complete else UNKNOWN, False
        for i, (label, score) in enumerate(zip(labels, row, strict=False)):
            if label is None:
                missing |= i == 0  # nobody labeled how it starts, as in an alternative of a late step
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


def auroc(wrongness, wrong, groups: Groups = None) -> Estimate | None:
    """None without both kinds. wrongness: [n]; wrong: [n] bool. The interval is from placements (DeLong et al. 1988, Biometrics
    44:837-845), summed by group (Obuchowski 1997, Biometrics 53:567-578)."""
    wrongness, wrong = floats(wrongness), np.asarray(wrong, dtype=bool)
    of_kind = np.where(wrong, wrong.sum(), (~wrong).sum())
    if wrong.all() or not wrong.any():
        return None
    from scipy import stats

    higher = stats.rankdata(wrongness)  # than how many of the other kind
    for kind in (wrong, ~wrong):
        higher[kind] -= stats.rankdata(wrongness[kind])
    placement = np.where(wrong, higher, len(wrong) - of_kind - higher) / (len(wrong) - of_kind)
    value = float(placement[wrong].mean())
    return smooth(value, (placement - value) / of_kind, groups)


def harmonic_mean(a: float, b: float) -> float:
    return 0.0 if a == b == 0 else 2 * a * b / (a + b)


def processbench_f1(outcomes, wrong, groups: Groups = None) -> Estimate | None:
    """outcomes: [solutions] whether the first error was found, or rightly none; wrong: [solutions]. None without both kinds."""
    counts = [{str(bad): (float(hit), 1.0)} for hit, bad in zip(outcomes, np.asarray(wrong, bool), strict=True)]
    found, _ = measure(
        counts, lambda ratios: {"f1": harmonic_mean(*(ratios.get(n, np.nan) for n in ("True", "False")))}
    )
    return found["f1"].estimate(groups) if found else None


def first_flagged(data: LabeledSteps, flagged: np.ndarray) -> np.ndarray:
    """[solutions] place of the first flagged step, or NO_ERROR. flagged: [steps] bool."""
    first = np.full(len(data.first_error), NEVER)
    np.minimum.at(first, data.owner[flagged], data.place[flagged])
    return np.where(first == NEVER, NO_ERROR, first)


@dataclass(frozen=True)
class StepMeasures:
    """An estimate is null where nothing is to measure."""

    step_accuracy: Estimate | None
    """Share of steps rightly flagged or not."""
    precision: Estimate | None
    """Share of flagged steps that are wrong."""
    recall: Estimate | None
    """Share of wrong steps that are flagged."""
    f1: Estimate | None
    """Harmonic mean of precision and recall."""
    auroc: Estimate | None
    """Probability that a wrong step scores lower than a correct one; 0.5 for a blind model."""
    first_error_accuracy: Estimate | None
    """Share of solutions whose first flag is the first error, or that have neither."""
    erroneous: Estimate | None
    """The same among solutions with an error."""
    correct: Estimate | None
    """The same among solutions without."""
    processbench_f1: Estimate | None
    """Harmonic mean of `erroneous` and `correct` (arXiv:2412.06559)."""


def measures(data: LabeledSteps, thresholds: np.ndarray) -> StepMeasures:

    def share(hits: np.ndarray, groups: np.ndarray, weights: np.ndarray) -> Estimate | None:
        weights = floats(weights)
        return accuracy_where(weights > 0, hits, groups, weights)

    groups = data.groups[data.owner]
    flagged = data.scores < thresholds[data.owner]
    hit = flagged & data.wrong
    known = data.first_error != UNKNOWN
    right = (first_flagged(data, flagged) == data.first_error)[known]
    bad, prompts = (data.first_error != NO_ERROR)[known], data.groups[known]
    return StepMeasures(
        step_accuracy=share(flagged == data.wrong, groups, np.ones(len(hit))),
        precision=share(hit, groups, flagged),
        recall=share(hit, groups, data.wrong),
        f1=share(hit, groups, flagged.astype(float) + data.wrong),  # true flags weigh two, other flags and misses one
        auroc=auroc(-data.scores, data.wrong, groups),
        first_error_accuracy=share(right, prompts, np.ones(len(right))),
        erroneous=share(right, prompts, bad),
        correct=share(right, prompts, ~bad),
        processbench_f1=processbench_f1(right, bad, prompts),
    )


def choose_threshold(data: LabeledSteps) -> tuple[float, float]:
    """(threshold, its ProcessBench F1 here): the best of those between two neighboring scores; of equal ones the middle.

    A correct solution is told rightly up to its lowest score, an erroneous one above that of its first error and up to the
    lowest before it. Raises DataError without both kinds.
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
            hint="raise --max_length where steps did not fit, or give --threshold_data or --threshold",
        )
    distinct = np.unique(scores)
    candidates = np.concatenate([[distinct[0]], (distinct[1:] + distinct[:-1]) / 2, [np.nextafter(distinct[-1], 2)]])

    def share_above(values: np.ndarray) -> np.ndarray:
        return 1 - np.searchsorted(np.sort(values), candidates, side="left") / len(values)

    c = share_above(lowest_before[correct])
    ends_of = lowest_before[erroneous], at_error[erroneous]
    upper, lower = (np.where(ends_of[0] > ends_of[1], end, -np.inf) for end in ends_of)
    a = share_above(upper) - share_above(lower)
    f1 = np.divide(2 * a * c, a + c, out=np.zeros_like(a), where=a + c > 0)
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    chosen = best[len(best) // 2]
    return float(candidates[chosen]), float(f1[chosen])
