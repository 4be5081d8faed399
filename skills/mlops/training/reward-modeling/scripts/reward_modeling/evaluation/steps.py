"""Evaluate a process reward model on labeled steps. A threshold comes from other solutions than those it is used on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..aggregation import NO_ERROR, step_rewards
from ..data.records import Solution, split_by_prompt
from ..errors import DataError
from ..results import Number
from ..step_rendering import Steps
from ..terminal import progress
from .inputs import AnswerRewards, Diagnostic, diagnosed, output_row, prompt_keys, spelled, subsets
from .intervals import Estimate, Groups, accuracy_where, floats, group_index, measure, smooth

if TYPE_CHECKING:
  from ..process import ProcessRewardModel

UNKNOWN = -2
FIXED = 0.5
NEVER = np.iinfo(np.int64).max
TOO_FEW = "too few solutions here have an error or have none"


@dataclass(frozen=True)
class LabeledSteps:
  """Every labeled and scored step: scores, wrong, place in its solution, owner (number of the solution): [steps].

  first_error: [solutions] place of the first wrong step, NO_ERROR, or UNKNOWN where labels or scores do not tell. groups:
  [solutions] what solutions of one prompt share."""

  scores: np.ndarray
  wrong: np.ndarray
  place: np.ndarray
  owner: np.ndarray
  first_error: np.ndarray
  groups: np.ndarray

  def of(self, chosen: np.ndarray) -> LabeledSteps:
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
    hint = "rows need `labels`, one for each step; if they have them, raise --max_length"
    raise DataError("no labeled step could be scored", hint=hint)
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
  found, _ = measure(counts, lambda ratios: {"f1": harmonic_mean(*(ratios.get(n, np.nan) for n in ("True", "False")))})
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
  groups = data.groups[data.owner]
  flagged = data.scores < thresholds[data.owner]
  hit = flagged & data.wrong
  known = data.first_error != UNKNOWN
  right = (first_flagged(data, flagged) == data.first_error)[known]
  bad, prompts = (data.first_error != NO_ERROR)[known], data.groups[known]
  return StepMeasures(
    step_accuracy=accuracy_where(np.ones(len(hit)), flagged == data.wrong, groups),
    precision=accuracy_where(flagged, hit, groups),
    recall=accuracy_where(data.wrong, hit, groups),
    f1=accuracy_where(flagged.astype(float) + data.wrong, hit, groups),  # true flags weigh 2, other flags and misses 1
    auroc=auroc(-data.scores, data.wrong, groups),
    first_error_accuracy=accuracy_where(np.ones(len(right)), right, prompts),
    erroneous=accuracy_where(bad, right, prompts),
    correct=accuracy_where(~bad, right, prompts),
    processbench_f1=processbench_f1(right, bad, prompts),
  )


def choose_threshold(data: LabeledSteps) -> tuple[float, float]:
  """(threshold, its ProcessBench F1 here): the best between two neighboring scores; of equal ones the middle.

  A correct solution is told rightly up to its lowest score, an erroneous one above that of its first error and up to the
  lowest before it. Raises DataError without both kinds."""
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
      hint="give more solutions, --threshold 0.5 or --threshold_data; raise --max_length where steps did not fit",
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


def halves(solutions: Sequence[Solution]) -> np.ndarray:
  """[solutions] which half a solution's prompt belongs to, by its hash."""
  second = {id(solution) for solution in split_by_prompt(solutions, 0.5, seed=0)[1]}
  return np.array([id(solution) in second for solution in solutions])


def cross_fitted(data: LabeledSteps, half: np.ndarray) -> np.ndarray:
  """[solutions] thresholds: each half's chosen on the other. half: [solutions] bool."""
  thresholds = np.empty(len(half))
  for side in (False, True):
    thresholds[half == side], _ = choose_threshold(data.of(half != side))
  return thresholds


class Baseline(NamedTuple):
  """chosen: flagged under a threshold that is chosen as the model's is; else under 0.5."""

  scores: Callable[[Sequence[str]], list[float]]
  chosen: bool = False


STEP_BASELINES: dict[str, Baseline] = {
  "all_correct": Baseline(lambda steps: [1.0] * len(steps)),
  "all_wrong": Baseline(lambda steps: [0.0] * len(steps)),
  "longest_step": Baseline(lambda steps: [float(i != steps.index(max(steps, key=len))) for i in range(len(steps))]),
  "longer_steps": Baseline(lambda steps: [-float(len(step)) for step in steps], chosen=True),
  # Where labels stop at the first error, wrong steps are the later ones.
  "later_steps": Baseline(lambda steps: [-float(i) for i in range(len(steps))], chosen=True),
}


@dataclass(frozen=True)
class Threshold:
  values: list[float]
  """A step is flagged under it; several where halves of the prompts choose for each other."""
  chosen_on: str
  best: Number = None
  """Then that of all solutions, for others: training saves it with the model."""


@dataclass(frozen=True, kw_only=True)
class StepSummary(StepMeasures):
  n_solutions: int
  n_prompts: int
  n_steps: int
  """Steps that are labeled and scored."""
  wrong_steps: int
  erroneous_solutions: int
  correct_solutions: int
  not_scored_steps: int
  not_judged_solutions: int
  """Those that count in no measure of solutions: labels or scores do not tell where their first error is."""
  threshold: Threshold
  subsets: dict[str, StepMeasures]
  baselines: dict[str, StepMeasures]
  """Scorers that look at no content, on the same steps."""


@dataclass(frozen=True)
class StepEvaluation:
  summary: StepSummary
  rows: list[dict[str, object]]


def score_steps(model: ProcessRewardModel, solutions: Sequence[Solution]) -> AnswerRewards:
  """[solutions][steps] probability of being correct; None for what did not fit."""
  with progress("scoring", len(solutions)) as advance:
    scored = model.score_solutions([Steps(s.prompt, s.steps, s.origin) for s in solutions], advance)
  return [step_rewards(solution.steps, row) for row, solution in zip(scored, solutions, strict=True)]


def evaluate_steps(
  model: ProcessRewardModel,
  solutions: Sequence[Solution],
  *,
  threshold: float | None = None,
  threshold_data: Sequence[Solution] | None = None,
  subset_column: str | None = None,
) -> StepEvaluation:
  """threshold_data: solutions to choose it on. Where the solutions here are too few to choose one, that of the training run serves,
  or that of even odds."""
  before = dict(model.renderer.counts)
  scores = score_steps(model, solutions)
  model.warn_of_losses(before)
  data, half, others, best = labeled_steps(solutions, scores), halves(solutions), None, None
  chosen_on = f"halves of the prompts by hash ({sum(~half)} and {sum(half)} solutions), each on the other"
  if threshold is not None:
    chosen_on = "given"
  elif threshold_data is not None:
    others = threshold_data, score_steps(model, threshold_data)
    chosen_on = f"{len(threshold_data)} solutions of other data"
  if threshold is None and not others:
    with contextlib.suppress(DataError):
      best, _ = choose_threshold(data)
  try:
    thresholds = _thresholds(data, half, threshold, others)
  except DataError:
    if others:
      raise
    known = model.saved_threshold is not None
    threshold = model.saved_threshold if known else model.value(0.0)
    chosen_on = f"{'that of the training run' if known else 'fixed'}, since {TOO_FEW}"
    thresholds = np.full(len(half), threshold)
  baselines = {}
  for name, one in STEP_BASELINES.items():
    blind = _labeled(one, solutions, scores)
    baselines[name] = measures(blind, _thresholds(blind, half, threshold, others, one))
  names = np.array(subsets(solutions, subset_column) or ())
  found = sorted(set(names[data.owner])) if len(names) else ()
  summary = StepSummary(
    n_solutions=len(solutions),
    n_prompts=int(data.groups.max()) + 1,
    n_steps=len(data.scores),
    wrong_steps=int(data.wrong.sum()),
    erroneous_solutions=int(np.sum(data.first_error >= 0)),
    correct_solutions=int(np.sum(data.first_error == NO_ERROR)),
    not_scored_steps=sum(label is not None for s in solutions for label in s.labels or ()) - len(data.scores),
    not_judged_solutions=int(np.sum(data.first_error == UNKNOWN)),
    threshold=Threshold(sorted(set(thresholds.tolist())), chosen_on, best),
    **vars(measures(data, thresholds)),
    subsets={name: measures(data.of(names == name), thresholds[names == name]) for name in found},
    baselines=baselines,
  )
  return StepEvaluation(summary, _rows(solutions, scores, data, thresholds))


def _thresholds(
  data: LabeledSteps,
  half: np.ndarray,
  given: float | None,
  others: tuple[Sequence[Solution], AnswerRewards] | None,
  baseline: Baseline | None = None,
) -> np.ndarray:
  """[solutions]. others: solutions and scores to choose it on. A baseline's scores have another scale than the one given."""
  if baseline and not baseline.chosen:
    return np.full(len(half), FIXED)
  if others:
    return np.full(len(half), choose_threshold(_labeled(baseline, *others))[0])
  if given is None:
    return cross_fitted(data, half)
  with contextlib.suppress(DataError):
    if baseline:
      return cross_fitted(data, half)
  return np.full(len(half), given)


def _labeled(baseline: Baseline | None, solutions: Sequence[Solution], scores: AnswerRewards) -> LabeledSteps:
  if baseline:
    scores = [
      [None if seen is None else value for value, seen in zip(baseline.scores(one.steps), row, strict=True)]
      for one, row in zip(solutions, scores, strict=True)
    ]
  return labeled_steps(solutions, scores)


def _rows(
  solutions: Sequence[Solution], scores: list[list[float | None]], data: LabeledSteps, thresholds: np.ndarray
) -> list[dict[str, object]]:
  flags = first_flagged(data, data.scores < thresholds[data.owner]).tolist()
  columns = zip(solutions, scores, thresholds.tolist(), flags, data.first_error.tolist(), strict=True)
  return [
    output_row(
      *(solution, "steps", "labels"),
      lengths=list(map(len, solution.steps)),
      step_rewards=row,
      threshold=at,
      first_flagged=flag,
      first_error=None if error == UNKNOWN else error,
    )
    for solution, row, at, flag, error in columns
  ]


def _no_better_flags(measure: str, label: str) -> Diagnostic:
  """Its interval reaches that of the best baseline."""
  return Diagnostic(
    lambda s: getattr(s, measure) and getattr(s, measure).low <= s.best[measure].estimate.high,
    f"{label} {{{measure}:.3f}} is not shown to be above that of the best baseline: {{best[{measure}].name}} {{best[{measure}].estimate:.3f}}",
    "evaluate on more solutions ({n_solutions} here), or train on more",
  )


STEP_DIAGNOSTICS = (
  Diagnostic(
    lambda s: s.threshold.chosen_on.endswith(TOO_FEW),
    "steps are flagged under {threshold.values[0]:.3g}: {threshold.chosen_on}",
    "evaluate on more solutions, or give --threshold or --threshold_data",
  ),
  Diagnostic(
    lambda s: s.auroc and s.auroc.low <= 0.5 <= s.auroc.high,
    "AUROC {auroc:.3f}: wrong steps are not told from correct ones better than by chance",
    "train on more solutions, on data like this, or from a larger model",
  ),
  Diagnostic(
    lambda s: s.auroc and s.auroc.high < 0.5,
    "AUROC {auroc:.3f}: wrong steps score higher than correct ones",
    "check what 1 means in the labels of the training data and of this file",
  ),
  Diagnostic(
    lambda s: s.auroc and s.auroc.low <= s.best["auroc"].estimate.value,
    "AUROC {auroc:.3f} is not shown to be above that of length and position alone: {best[auroc].name} {best[auroc].estimate:.3f}",
    "evaluate on solutions that are labeled to their end, of steps of like length",
  ),
  Diagnostic(
    lambda s: s.step_accuracy.low <= s.baselines["all_correct"].step_accuracy.value,
    "step accuracy {step_accuracy.value:.3f} is not shown to be above calling every step correct "
    "({baselines[all_correct].step_accuracy.value:.3f})",
    "go by F1 and ProcessBench F1, each against its best baseline",
  ),
  _no_better_flags("f1", "F1 of wrong steps"),
  _no_better_flags("processbench_f1", "ProcessBench F1"),
  Diagnostic(
    lambda s: s.not_judged_solutions > 0,
    "{not_judged_solutions} of {n_solutions} solutions count in no measure of solutions: labels or scores stop early",
    "raise --max_length if steps did not fit ({not_scored_steps} of them)",
  ),
)


def diagnose_steps(summary: StepSummary) -> list[str]:
  best = {}
  for key in ("auroc", "f1", "processbench_f1"):
    found = [(spelled(name), getattr(one, key)) for name, one in summary.baselines.items()]
    named = [SimpleNamespace(name=name, estimate=estimate) for name, estimate in found if estimate]
    best[key] = max(named, key=lambda one: one.estimate.value, default=None)
  return diagnosed(SimpleNamespace(**vars(summary), best=best), STEP_DIAGNOSTICS)
