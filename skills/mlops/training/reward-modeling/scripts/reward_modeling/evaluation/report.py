"""Can a reward model be trusted for what is planned? A folder with report.html and README.md for people, and report.json, to which
each evaluation of one model adds its part."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from ..errors import DataError, UsageError
from ..outputs import check_output_file, write_whole
from ..results import to_json
from ..terminal import log, warn
from .intervals import Estimate
from .pairs import PAIR_DIAGNOSTICS, PairEvaluation
from .probes import ProbeSummary, by_verdict
from .ratings import AttributeSummary, RatingEvaluation
from .report_page import END, card, page
from .results import (
  EVALUATIONS,
  Evaluated,
  EvaluationOutput,
  OverOptimizationReport,
  PairReport,
  PoolReport,
  RatingReport,
  StepReport,
)
from .sections import SECTIONS, Section, sections_of
from .steps import StepEvaluation
from .studies import GOLD

Parts = Mapping[type, Any]
Quotes = Sequence[tuple[str, str]]
LARGEST_BY_CHANCE = 0.05
"""Expected calibration error of a calibrated model, from which on its pairs are too few to tell."""
STRONG = 0.5
"""Correlation with ratings from which on a reward says how an answer was rated: a quarter of their variance."""
EXAMPLES = 3
"""Pairs that are quoted."""


class HeldOut(Protocol):
  """Settings of a training."""

  dataset_name: Sequence[str]
  eval_dataset_name: Sequence[str] | None
  dataset_test_split: str | None
  val_set_size: float


class Folder:
  """Checked and held before a model is run. Raises UsageError where it holds another model's report, or files of no report."""

  def __init__(self, path: str, model: str | None, overwrite: bool = False):
    file = Path(path) / "report.json"
    ours = file.exists()
    self.found = json.loads(file.read_text(encoding="utf-8")) if ours else {"parts": {}, "quotes": []}
    known = self.found.get("model") or model
    if model and known != model:
      raise UsageError(f"{path} holds the report of {known}", hint="give another folder for this model")
    self.found["model"] = known
    names = ("report.json", "report.html", "README.md")
    self.files = [check_output_file(Path(path) / name, overwrite or ours) for name in names]

  def add(self, part: EvaluationOutput, quotes: Quotes | None = None) -> None:
    """Write the report anew with this part in it. quotes: of pairs."""
    name = type(part).__name__
    before = self.found["parts"].get(name, {}).get("dataset")
    if before and before != getattr(part, "dataset", before):
      warn(f"the report's part on {', '.join(before)} is replaced; another folder keeps both")
    self.found["parts"][name] = json.loads(to_json(part))
    if quotes is not None:
      self.found["quotes"] = quotes
    parts = self._parts()
    title = f"Can {self.found['model'] or 'the reward'} be trusted?"
    what = title, list(verdicts(parts)), list(sections(parts, self.found["quotes"]))
    texts = to_json(self.found, indent=1), page(*what, f"{END} As JSON: report.json."), card(*what)
    for file, text in zip(self.files, texts, strict=True):
      write_whole(file, [text])
    log(f"report: {self.files[1]}")

  def add_held_out(
    self, found: PairEvaluation | RatingEvaluation | StepEvaluation, settings: HeldOut, folds: int | None, **said
  ) -> None:
    """What training found on its held-out rows. said: what an evaluation says of its data."""
    kind, *_ = EVALUATIONS[type(found)]
    part = kind(**vars(found.summary), **said, dataset=evaluated_on(settings, folds), output=None)
    self.add(part, worst(found.rows()) if kind is PairReport else None)

  def _parts(self) -> Parts:
    from pydantic import TypeAdapter, ValidationError

    kept = self.found["parts"]
    try:
      known = [kind for kind in SECTIONS if kept.get(kind.__name__)]
      return {kind: TypeAdapter(kind).validate_python(kept[kind.__name__]) for kind in known}
    except ValidationError as error:
      hint = "remove it, and evaluate again"
      raise DataError("it is of another version", where=self.files[0], hint=hint) from error


def evaluated_on(settings: HeldOut, folds: int | None = None) -> list[str]:
  """What the held-out rows of a training are."""
  split, others = settings.dataset_test_split, settings.eval_dataset_name
  if split or others:
    return [f"{name} (split {split})" if split else name for name in others or settings.dataset_name]
  how = f"--folds {folds}" if folds else f"--val_set_size {settings.val_set_size:g}"
  return [f"{name} (held out by {how})" for name in settings.dataset_name]


def worst(rows: Sequence[Mapping[str, Any]]) -> Quotes:
  """The pairs on which the model is most wrong, as (what it is, text). rows: those of --output."""
  scored = [row for row in rows if None not in (row["reward_chosen"], row["reward_rejected"])]
  wrong = [row for row in scored if row["reward_chosen"] < row["reward_rejected"]]
  wrong.sort(key=lambda row: row["reward_chosen"] - row["reward_rejected"])
  quotes = []
  for row in wrong[:EXAMPLES]:
    for side in ("prompt", "chosen", "rejected"):
      reward = row.get(f"reward_{side}")
      name = side if reward is None else f"{side}, reward {reward:.3f}"
      quotes.append((name, str((row[side] and row[side][-1].get("content")) or "")))
  return quotes


def verdicts(parts: Parts) -> Iterator[tuple[str, str]]:
  """The questions of people who plan to use the model, each with its answer or what would answer it."""
  pairs: PairReport | None = parts.get(PairReport)
  ratings: RatingReport | None = parts.get(RatingReport)
  steps: StepReport | None = parts.get(StepReport)
  for part in filter(None, (pairs, ratings)):
    if part.comparison:
      yield "Which of the two models is better?", f"{part.comparison.verdict}."
  if ratings:
    yield "Does it rate answers as they were rated?", _of_new(ratings, _rating(ratings))
  if steps:
    yield "Does it find wrong steps?", _of_new(steps, _finds(steps))
  if pairs or not steps:
    ranks = _ranking_of(ratings) if ratings and not pairs else _ranking(pairs)
    yield "Does it rank answers to one prompt?", _of_new(pairs or ratings, ranks)
  pools = parts.get(PoolReport)
  yield "Is it good for best of n, and up to which n?", _of_new(pools, _best_of_n(pools))
  probed = next((part for part in (pairs, ratings) if part and part.probes), None)
  probes = probed and probed.probes
  limit = _limit(parts.get(OverOptimizationReport), probes, pools)
  yield "Is it good for reinforcement learning, and up to which KL?", limit
  yield "What fools it?", _fooled(probes, probed is not pairs or bool(pairs and pairs.accuracy.low > 0.5))
  if pairs:
    off = [name for name in ("overconfident", "underconfident") if PAIR_DIAGNOSTICS[name].applies(pairs)]
    found = f"ECE {pairs.ece:.3f}, {pairs.ece_if_calibrated:.3f} by chance alone"
    few = pairs.ece_if_calibrated > LARGEST_BY_CHANCE
    lacks = "too few pairs" if few else "" if pairs.accuracy.low > 0.5 else "no better than chance"
    answer = f"No: {off[0]}" if off else f"Not shown: {lacks}" if lacks else "Yes"
    yield "Is sigmoid(difference of rewards) a probability?", f"{answer}; {found}."


def _of_new(part: Evaluated | None, answer: str) -> str:
  """What was found on prompts of the training says little of others."""
  seen = part and part.prompts_trained_on
  return f"Not shown on new prompts, since it was trained on {seen} of these. On these: {answer}" if seen else answer


def _rating(report: RatingReport) -> str:
  found = {name: one.pearson for name, one in report.attributes.items()}
  lines = [f"{name} {one:.2f}" if one else f"{name} cannot be told" for name, one in found.items()]
  shown = [one.value for one in found.values() if one and one.low > 0]
  answer = "Yes" if len(shown) == len(found) and min(shown) >= STRONG else "In part" if shown else "Not shown"
  return f"{answer}: correlation with {', '.join(lines)}, on {report.n_answers} answers."


def _shown(one: Estimate) -> str:
  return "Yes" if one.low > 0.5 else "No" if one.high < 0.5 else "Not shown"


def _ranking(pairs: PairReport | None) -> str:
  if pairs is None:
    return "Not measured: evaluate it on labeled pairs."
  right, gain = pairs.accuracy, pairs.length.gain_over_baseline
  found = f"it is right on {right:.1%} of {pairs.n_pairs} pairs"
  found += f" ({pairs.not_scored} more were not scored)" if pairs.not_scored else ""
  if right.low <= 0.5:
    return f"{_shown(right)}: {found}; chance is 50%."
  shown = gain.low > 0
  return f"{'Yes' if shown else 'Not shown'}: {found}, {gain:+.1%} over {'' if shown else 'choosing by '}length alone."


def _ranking_of(report: RatingReport) -> str:
  found = {name: one for name, one in report.attributes.items() if one.pair_accuracy}
  if not found:
    return "Not measured: no prompt has answers with different ratings."
  answers = set(map(_shown_of, found.values()))
  answer = answers.pop() if len(answers) == 1 else "In part" if "Yes" in answers else "No"
  told = ", ".join(map(_told_of, found, found.values()))
  return f"{answer}: it prefers the answer to a prompt that is rated higher by {told}; chance is 50%."


def _shown_of(one: AttributeSummary) -> str:
  """Not where length alone may do as well."""
  shown, gain = _shown(one.pair_accuracy), one.gain_over_baseline
  return "Not shown" if shown == "Yes" and gain and gain.low <= 0 else shown


def _told_of(name: str, one: AttributeSummary) -> str:
  right, each, longer = one.pair_accuracy, one.micro_accuracy, one.baseline_longer
  share = f"{each.value:.1%} of their {each.n} pairs" if each else f"{right.n} pairs"
  length = f"; always the longer one: {longer.value:.1%}" if longer else ""
  return f"{name} on {right.value:.1%}, the mean over {right.groups} prompts ({share}{length})"


def _finds(steps: StepReport) -> str:
  auroc, first = steps.auroc, steps.erroneous
  if not auroc or not first:
    return "Not shown: the solutions hold no wrong step, or no right one."
  found = f"AUROC {auroc:.3f}, 0.5 by chance; the first error of a solution is found in {first:.1%}"
  return f"{_shown(auroc)}: {found}."


def _best_of_n(pools: PoolReport | None) -> str:
  if pools is None:
    return "Not measured: evaluate it with --best_of_n on answers of known correctness."
  curve, answers = pools.curve, ", ".join(Path(source).name for source in pools.dataset)
  found = {"better": [at for at in curve if at.gain.low > 0], "worse": [at for at in curve if at.gain.high < 0]}
  good = found["better"]
  at = max(good, key=lambda at: at.model.value) if good else curve[-1]
  said = "Yes: up to" if good else "No: at" if at in found["worse"] else "Not shown: at"
  said += f" n = {at.n}, {at.model:.3f} correct, {at.random.value:.3f} at random."
  told = "; ".join(f"{how} at n = {', '.join(str(at.n) for at in some)}" for how, some in found.items() if some)
  return f"{said} Against a random choice, on {answers}: {told or 'not shown to be better'}; larger n: unknown."


def _limit(part: OverOptimizationReport | None, probes: ProbeSummary | None, pools: PoolReport | None = None) -> str:
  if pools and pools.curve[-1].gain.high < 0:
    return "No: its best of n is worse than a random choice, and an optimizer goes further the same way."
  fooled = probes and any(probes.probes[name].must != "fall" for name in probes.fooled_by)
  warned = " It can be fooled, see below: an optimizer finds out how." if fooled else ""
  if part is None:
    return f"Not measured: evaluate.py --overoptimization, on gold rewards of a run's answers. {GOLD}{warned}"
  rises = any(study.best != study.points[0] for study in part.studies)
  over = any(study.overoptimized for study in part.studies)
  told = "No" if not rises else "Only so far" if over else "As far as measured"
  return f"{told}: {'; '.join(part.diagnostics)}. {GOLD}{warned}"


def _fooled(probes: ProbeSummary | None, ranks: bool) -> str:
  if probes is None:
    return "Not tested: evaluate it with --probes."
  told = {verdict.capitalize(): ", ".join(names) for verdict, names in by_verdict(probes).items() if names}
  said = " ".join(f"{verdict}: {names}." for verdict, names in told.items())
  doubt = "It is not shown to rank better than chance, so little follows from what does not fool it."
  return said if ranks else f"{said} {doubt}"


def sections(parts: Parts, quotes: Quotes) -> Iterator[Section]:
  told = (part.diagnostics for kind, part in parts.items() if kind is not OverOptimizationReport)  # whose are verdicts
  if said := list(chain(*told)):
    yield Section("Warnings, and what to do", texts=said)
  for part in parts.values():
    yield from sections_of(part)
  if quotes:
    yield Section("Where it is most wrong", texts=["Ranked wrongly by the largest difference."], quotes=quotes)
