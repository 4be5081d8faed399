"""Evaluate a process reward model on solutions whose steps are labeled: baselines, diagnostics and tables.

The threshold must come from other solutions than those it is used on: from a file, or each half of the prompts from the
other half. It is the one with the highest ProcessBench F1. `step_measures` has the numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..aggregation import step_rewards
from ..data.records import Solution, split_by_prompt
from ..data.writing import with_metadata
from ..errors import DataError
from ..step_rendering import Steps
from ..terminal import log, progress, table
from .diagnostics import SUBSET_ROWS, Diagnostic, diagnosed, estimates_table, tell_more, value
from .inputs import source_of, subsets
from .intervals import Estimate
from .step_measures import (
    FIXED,
    NO_ERROR,
    UNKNOWN,
    LabeledSteps,
    StepMeasures,
    choose_threshold,
    first_flagged,
    labeled_steps,
    measures,
)

if TYPE_CHECKING:
    from ..process import ProcessRewardModel

STEP_SUBSET_COLUMNS = ("subject", "subset", "category", "domain", "source", "task", "generator", "tranche")


def halves(solutions: Sequence[Solution]) -> np.ndarray:
    """[solutions] which half a solution's prompt belongs to, by its hash: the same in every run and from every file."""
    second = {id(solution) for solution in split_by_prompt(solutions, 0.5, seed=0)[1]}
    return np.array([id(solution) in second for solution in solutions])


def cross_fitted(data: LabeledSteps, half: np.ndarray) -> np.ndarray:
    """[solutions] thresholds: each half's chosen on the other. half: [solutions] bool."""
    thresholds = np.empty(len(half))
    for side in (False, True):
        thresholds[half == side] = choose_threshold(data.of(half != side))[0]
    return thresholds


class Baseline(NamedTuple):
    """A scorer that looks at no content. scores: the steps of a solution -> [steps]; flagged under 0.5, or with
    `chosen` under a threshold chosen as the model's is, by halves of the prompts where the model's is given."""

    scores: Callable[[Sequence[str]], list[float]]
    chosen: bool = False


def _longest(steps: Sequence[str]) -> list[float]:
    longest = max(range(len(steps)), key=lambda i: len(steps[i]))
    return [0.0 if i == longest else 1.0 for i in range(len(steps))]


STEP_BASELINES: dict[str, Baseline] = {
    "all_correct": Baseline(lambda steps: [1.0] * len(steps)),
    "all_wrong": Baseline(lambda steps: [0.0] * len(steps)),
    "longest_step": Baseline(_longest),
    "longer_steps": Baseline(lambda steps: [-float(len(step)) for step in steps], chosen=True),
    # Where labels stop at the first error, wrong steps are the later ones.
    "later_steps": Baseline(lambda steps: [-float(i) for i in range(len(steps))], chosen=True),
}


@dataclass(frozen=True)
class Threshold:
    values: list[float]
    """A step is flagged as wrong under it; several where halves of the prompts choose for each other."""
    chosen_on: str


@dataclass(frozen=True, kw_only=True)
class StepSummary(StepMeasures):
    """What a process reward model makes of solutions with step labels."""

    n_solutions: int
    n_prompts: int
    n_steps: int
    """Steps that are labeled and scored."""
    wrong_steps: int
    erroneous_solutions: int
    correct_solutions: int
    not_scored_steps: int
    not_judged_solutions: int
    """Solutions that count in no measure of solutions: labels or scores do not tell where their first error is."""
    threshold: Threshold
    subsets: dict[str, StepMeasures]
    baselines: dict[str, StepMeasures]
    """Scorers that look at no content, on the same steps."""


@dataclass(frozen=True)
class StepEvaluation:
    """rows: one JSON row a solution."""

    summary: StepSummary
    rows: list[dict[str, object]]


def score_steps(model: ProcessRewardModel, solutions: Sequence[Solution]) -> list[list[float | None]]:
    """[solutions][steps] the probability that each step is correct, None for what the over-length policy left out."""
    with progress("scoring", len(solutions)) as advance:
        scored = model.score_solutions([Steps(s.prompt, s.steps, s.origin) for s in solutions], advance)
    return [step_rewards(solution.steps, row) for row, solution in zip(scored, solutions, strict=True)]


@dataclass(frozen=True)
class Scored:
    """Solutions and the scores of their steps, [solutions][steps], None for what was not scored."""

    solutions: Sequence[Solution]
    scores: list[list[float | None]]

    @cached_property
    def data(self) -> LabeledSteps:
        return labeled_steps(self.solutions, self.scores)

    def by(self, baseline: Baseline | None) -> Scored:
        """The same with a baseline's scores, of the steps that the model has scored too."""
        if baseline is None:
            return self
        scores = [
            [None if seen is None else value for value, seen in zip(baseline.scores(one.steps), row, strict=True)]
            for one, row in zip(self.solutions, self.scores, strict=True)
        ]
        return Scored(self.solutions, scores)


def evaluate_steps(
    model: ProcessRewardModel,
    solutions: Sequence[Solution],
    *,
    threshold: float | None = None,
    threshold_data: Sequence[Solution] | None = None,
    subset_column: str | None = None,
) -> StepEvaluation:
    """Score every step and summarize.

    threshold: a fixed one; threshold_data: solutions to choose it on; neither: halves of the prompts, see `cross_fitted`.
    Raises DataError without labels or with labels of one kind only to choose on.
    """
    before = dict(model.renderer.counts)
    scored = Scored(solutions, score_steps(model, solutions))
    model.warn_of_losses(before)
    data, half, others = scored.data, halves(solutions), None
    chosen_on = f"halves of the prompts by hash ({sum(~half)} and {sum(half)} solutions), each on the other"
    if threshold is not None:
        chosen_on = "given"
    elif threshold_data is not None:
        others = Scored(threshold_data, score_steps(model, threshold_data))
        chosen_on = f"{len(threshold_data)} solutions of other data"

    def measured(baseline: Baseline | None) -> StepMeasures:
        scorer = scored.by(baseline)
        return measures(scorer.data, _thresholds(scorer, half, threshold, others, baseline))

    thresholds = _thresholds(scored, half, threshold, others)
    names = subsets(solutions, subset_column, STEP_SUBSET_COLUMNS)
    summary = StepSummary(
        n_solutions=len(solutions),
        n_prompts=int(data.groups.max()) + 1,
        n_steps=len(data.scores),
        wrong_steps=int(data.wrong.sum()),
        erroneous_solutions=int(np.sum(data.first_error >= 0)),
        correct_solutions=int(np.sum(data.first_error == NO_ERROR)),
        not_scored_steps=sum(label is not None for s in solutions for label in s.labels or ()) - len(data.scores),
        not_judged_solutions=int(np.sum(data.first_error == UNKNOWN)),
        threshold=Threshold(sorted(set(thresholds.tolist())), chosen_on),
        **vars(measures(data, thresholds)),
        subsets={} if names is None else _by_subset(data, thresholds, names),
        baselines={name: measured(one) for name, one in STEP_BASELINES.items()},
    )
    return StepEvaluation(summary, _written_rows(scored, thresholds))


def _thresholds(
    scored: Scored, half: np.ndarray, given: float | None, others: Scored | None, baseline: Baseline | None = None
) -> np.ndarray:
    """[solutions] the given threshold, or one chosen on the others or on the other half of the prompts."""
    if baseline and not baseline.chosen:
        given = FIXED
    elif others is not None:
        given = choose_threshold(others.by(baseline).data)[0]
    elif given is None:
        return cross_fitted(scored.data, half)
    elif baseline:  # its scores have another scale than the one that is given
        with contextlib.suppress(DataError):
            return cross_fitted(scored.data, half)
    return np.full(len(half), given)


def _by_subset(data: LabeledSteps, thresholds: np.ndarray, names: list[str]) -> dict[str, StepMeasures]:
    labels = np.array([str(name) for name in names])
    return {
        name: measures(data.of(labels == name), thresholds[labels == name]) for name in sorted(set(labels[data.owner]))
    }


def _written_rows(scored: Scored, thresholds: np.ndarray) -> list[dict[str, object]]:
    data = scored.data
    flags = first_flagged(data, data.scores < thresholds[data.owner])
    columns = zip(scored.solutions, scored.scores, thresholds, flags, data.first_error, strict=True)
    return [
        with_metadata(
            {
                **source_of(solution),
                "labels": solution.labels,
                "step_rewards": row,
                "threshold": float(at),
                "first_flagged": int(flag),
                "first_error": None if error == UNKNOWN else int(error),
            },
            solution.metadata,
        )
        for solution, row, at, flag, error in columns
    ]


MEASURES = {
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


class Best(NamedTuple):
    """The baseline with the largest value of a measure."""

    name: str
    estimate: Estimate


def _best_baseline(summary: StepSummary, measure: str) -> Best | None:
    """None where there is nothing to measure."""
    found = [Best(_spelled(name), e) for name, one in summary.baselines.items() if (e := getattr(one, measure))]
    return max(found, key=lambda best: best.estimate.value, default=None)


def _spelled(name: str) -> str:
    """A baseline's key in the JSON, as people read it and as a narrow table can wrap it."""
    return name.replace("_", " ")


def _wrong_way(measured: Iterable[StepMeasures]) -> str:
    """What an AUROC below 0.5 means, if one of these has it."""
    below = any(one.auroc and one.auroc.value < 0.5 for one in measured)
    return " (an AUROC below 0.5 ranks the wrong way round)" if below else ""


def _no_better_flags(measure: str) -> Diagnostic[SimpleNamespace]:
    """For a measure of flags: its interval reaches down to that of the best baseline, whose threshold is chosen alike."""
    return Diagnostic(
        lambda s: getattr(s, measure) and getattr(s, measure).low <= s.best[measure].estimate.high,
        f"{MEASURES[measure]} {{{measure}:.3f}} is not shown to be above that of the best baseline: "
        f"{{best[{measure}].name}} {{best[{measure}].estimate:.3f}}",
        "evaluate on more solutions ({n_solutions} here), or train on more",
    )


STEP_DIAGNOSTICS: dict[str, Diagnostic[SimpleNamespace]] = {
    "blind": Diagnostic(
        lambda s: s.auroc and s.auroc.low <= 0.5 <= s.auroc.high,
        "AUROC {auroc:.3f}: wrong steps are not told from correct ones better than by chance",
        "train on more solutions, on data like this, or from a larger model",
    ),
    "reversed": Diagnostic(
        lambda s: s.auroc and s.auroc.high < 0.5,
        "AUROC {auroc:.3f}: wrong steps score higher than correct ones",
        "check what 1 means in the labels of the training data and of this file",
    ),
    "shortcut": Diagnostic(
        lambda s: s.auroc and s.auroc.low <= s.best["auroc"].estimate.value,
        "AUROC {auroc:.3f} is not shown to be above that of length and "
        "position alone: longest step {baselines[longest_step].auroc.value:.3f}, longer steps "
        "{baselines[longer_steps].auroc.value:.3f}, later steps {baselines[later_steps].auroc.value:.3f}{wrong_way}",
        "evaluate on solutions that are labeled to their end, of steps of like length",
    ),
    "majority_class": Diagnostic(
        lambda s: s.step_accuracy.low <= s.baselines["all_correct"].step_accuracy.value,
        "step accuracy {step_accuracy.value:.3f} is not shown to be above calling every step correct "
        "({baselines[all_correct].step_accuracy.value:.3f})",
        "go by F1 and ProcessBench F1, each against its best baseline",
    ),
    "f1_baseline": _no_better_flags("f1"),
    "processbench_baseline": _no_better_flags("processbench_f1"),
    "not_judged": Diagnostic(
        lambda s: s.not_judged_solutions > 0,
        "{not_judged_solutions} of {n_solutions} solutions count in no figure of solutions: labels or scores stop before "
        "it is clear where their first error is",
        "raise --max_length if steps did not fit ({not_scored_steps} of them)",
    ),
}
"""Over a `StepSummary` with what `diagnose_steps` adds."""


def diagnose_steps(summary: StepSummary) -> list[str]:
    best = {measure: _best_baseline(summary, measure) for measure in ("auroc", "f1", "processbench_f1")}
    known = SimpleNamespace(**vars(summary), best=best, wrong_way=_wrong_way(summary.baselines.values()))
    return diagnosed(known, STEP_DIAGNOSTICS)


def show_steps(summary: StepSummary, name: str) -> None:
    """Print a summary on stderr: measures, baselines, subsets. The sentences of `diagnose_steps` are not printed."""
    title = (
        f"{name}: {summary.n_steps} labeled steps ({summary.wrong_steps} wrong) of {summary.n_solutions} "
        f"solutions ({summary.erroneous_solutions} with an error), {summary.n_prompts} prompts"
    )
    estimates_table(title, {label: getattr(summary, key) for key, label in MEASURES.items()})
    at = ", ".join(f"{threshold:.4f}" for threshold in summary.threshold.values)
    log(f"threshold {at}: {summary.threshold.chosen_on}")
    _show_measures(
        "baselines", {"the model": summary, **{_spelled(key): one for key, one in summary.baselines.items()}}
    )
    if summary.subsets:
        _show_measures("subsets", dict(islice(summary.subsets.items(), SUBSET_ROWS)))
        tell_more(summary.subsets)


def _show_measures(title: str, measured: Mapping[str, StepMeasures]) -> None:
    """One row a scorer or subset, a column a measure: two tables, since one is too wide for a terminal of 80 columns."""
    of_steps = {"step_accuracy": "accuracy", "f1": "F1", "auroc": "AUROC"}
    of_solutions = {
        "first_error_accuracy": "all",
        "erroneous": "with an error",
        "correct": "correct",
        "processbench_f1": "ProcessBench F1",
    }
    tables = {
        f"{title}: steps{_wrong_way(measured.values())}": of_steps,
        f"{title}: solutions whose first error is found, or rightly none": of_solutions,
    }
    for heading, columns in tables.items():
        rows = [[name, *(value(getattr(one, key)) for key in columns)] for name, one in measured.items()]
        table(heading, ["", *columns.values()], rows)
