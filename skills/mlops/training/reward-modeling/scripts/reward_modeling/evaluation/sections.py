"""What each kind of result shows as tables and plots, on stderr and on the page of a report."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..terminal import log, table
from . import results
from .inputs import spelled
from .intervals import Estimate
from .panels import Panel, Series
from .probes import SMALL, ProbeSummary
from .studies import GOLD

Cell = str | float | bool | Estimate | None
ROWS_SHOWN = 32
CHOICES = ("random", "longest", "majority", "oracle")
"""Other ways to choose one of n answers."""
MEASURES = {
  "Steps": ("step_accuracy", "precision", "recall", "f1", "auroc"),
  "Solutions": ("first_error_accuracy", "erroneous", "correct", "processbench_f1"),
}


@dataclass(frozen=True)
class Section:
  """scale: (lowest, reference, highest) of a bar for each row's first estimate. quotes: (name, text) of rows of the data."""

  title: str
  columns: Sequence[str] = ()
  rows: Sequence[Sequence[Cell]] = ()
  texts: Sequence[str] = ()
  panels: Sequence[Panel] = ()
  scale: tuple[float, float, float] | None = None
  quotes: Sequence[tuple[str, str]] = ()
  narrow: int | None = None

  def show(self) -> None:
    """On stderr: at most ROWS_SHOWN rows, the `narrow` first columns, and the intervals of a row's first two estimates."""
    for text in self.texts:
      log(text)
    rows = []
    for row in self.rows[:ROWS_SHOWN]:
      places = [place for place, cell in enumerate(row) if isinstance(cell, Estimate)]
      told = {place: f"{row[place]:.4f}" if place in places[:2] else row[place].value for place in places}
      rows.append([told.get(place, cell) for place, cell in enumerate(row[: self.narrow])])
    table(self.title, self.columns[: self.narrow], rows)
    if (more := len(self.rows) - ROWS_SHOWN) > 0:
      log(f"{more} more rows are not shown; the JSON has them all")


def sections_of(part: results.EvaluationOutput) -> Iterable[Section]:
  return SECTIONS[type(part)](part)


def _beside(title: str, columns: Mapping[str, Mapping[str, Cell]], *texts: str) -> Section:
  """A column for each model, baseline or attribute, a row for each number of the first of them."""
  rows = [[spelled(key), *(of.get(key) for of in columns.values())] for key in next(iter(columns.values()), ())]
  return Section(title, ["", *columns], rows, texts)


def _short(*models: str) -> list[str]:
  """The ends of long paths, where these differ."""
  ends = [model if len(model) < 40 else "/".join(Path(model).parts[-2:]) for model in models]
  return ends if len(set(ends)) == len(models) else list(models)


def _pairs(report: results.PairReport) -> Iterator[Section]:
  other = report.comparison
  own, *others = _short(report.model, *([other.model] if other else ()))
  models = {own: report} | dict.fromkeys(others, other and other.other)
  lengths, numbers = {}, {}
  for name, one in models.items():
    found = {key: value for key, value in vars(one.length).items() if not key.endswith("share")}
    lengths[name] = {"accuracy": one.accuracy, **found}
    numbers[name] = {key: value for key, value in vars(one).items() if type(value) is float}
    numbers[name]["mean_margin"] = one.margin.mean
  data = f"{report.n_pairs} pairs of {report.n_prompts} prompts: {', '.join(report.dataset)}. Chance is 0.5."
  yield _beside("Ranking and length", lengths, data)
  if other:
    yield _comparison(own, others[0], other)
  if report.subsets:
    means = {"macro: mean over subsets": report.macro_accuracy, "micro: mean over pairs": report.micro_accuracy}
    ordered = means | dict(sorted(report.subsets.items(), key=lambda item: (item[1].value, item[0])))
    rows = [[name, one.n, one] for name, one in ordered.items()]
    said = ["The smallest first."]
    yield Section("Accuracy by subset", ["subset", "pairs", "accuracy"], rows, said, scale=(0.0, 0.5, 1.0))
  yield _beside("Calibration and margins", {**numbers, "blind model": {**vars(report.blind), "mean_margin": 0.0}})
  rows = [[name, bin.n, bin.confidence, bin.accuracy] for name, one in models.items() for bin in one.reliability]
  drawn = [Series(name, [tuple(row[2:]) for row in rows if row[0] == name]) for name in models]
  drawn.append(Series("calibrated", [(0.5, 0.5), (1, 1)], "dashed", 6))
  columns = ["model", "pairs", "mean confidence", "accuracy"]
  yield Section("Calibration: how sure, how right", columns, rows, panels=[Panel("", *columns[2:], drawn)])
  yield from _probed(report, own, *others)


def _comparison(a: str, b: str, found: results.ComparisonWith) -> Section:
  whole = ("all", found, found.prompt_sign_test_p)
  rows = [
    [name, one.n_pairs, one.difference, one.accuracy_a, one.accuracy_b, one.mcnemar_p, p]
    for name, one, p in (whole, *((name, one, one.p) for name, one in found.by_subset.items()))
  ]
  columns = ["", "pairs", "A - B", f"A: {a}", f"B: {b}", "McNemar p", "p, by prompt"]
  alone = f"A alone is right on {found.only_a} pairs, B on {found.only_b}"
  both = f"both are on {found.both_right}, wrong on {found.both_wrong}, tied on {found.both_tied}."
  said = [f"{found.verdict}.", f"{alone}; {both} p by prompt is corrected for the number of subsets."]
  return Section("Two models", columns, rows, said, scale=(-0.5, 0.0, 0.5))


def _probed(report: results.PairReport | results.RatingReport, *models: str | None) -> Iterator[Section]:
  for model, one in zip(models, (report, report.comparison), strict=False):
    if one and one.probes:
      yield _probes(model, one.probes)


def _probes(model: str, found: ProbeSummary) -> Section:
  columns = ["probe", "verdict", "shift (sd)", "over length", "flipped", "what is done"]
  rows = [
    [spelled(probe), one.verdict, one.shift, one.over_length, one.flipped, f"{one.what}; must {one.must}"]
    for probe, one in found.probes.items()
  ]
  said = (
    f"{found.n_pairs} pairs. Shift: of the reward, in sd of real answers ({found.spread:.3g}). Over length: beyond neutral "
    "sentences as long. Flipped: of pairs ranked rightly, the share it turns. Fooled, where a rejected answer must not rise: "
    f"both {SMALL} or more, and above 0 by the intervals; where a chosen one must fall: it falls by less, by the interval."
  )
  return Section(f"Probes of {model}", columns, rows, [said], scale=(-2.0, 0.0, 2.0), narrow=5)


def _pools(report: results.PoolReport) -> Iterator[Section]:
  names = ("model", *CHOICES)
  rows = [[at.n, at.prompts, *(getattr(at, name) for name in ("model", "gain", *CHOICES))] for at in report.curve]
  lines = {name: [(at.n, one.value) for at in report.curve if (one := getattr(at, name))] for name in names}
  drawn = [Series(name, line, "line" if name == "model" else "dashed") for name, line in lines.items()]
  mixed = f"{report.mixed_prompts} with correct and wrong ones."
  vote = "Final answers are from" if report.majority_possible else "No majority vote:"
  said = (
    f"{report.completions} completions of {report.prompts} prompts ({', '.join(report.dataset)}), {mixed}",
    f"{vote} {report.majority_answers}.",
  )
  columns = ["n", "prompts", "model", "gain over random", *CHOICES]
  panels = [Panel("", "n", "share correct", drawn, doubling=True)]
  yield Section("Best of n: accuracy of the best-scored of n", columns, rows, said, panels)


def _studies(report: results.OverOptimizationReport) -> Iterator[Section]:
  from .overoptimization import panels

  studies, columns = report.studies, ["run", "n", "KL", "proxy", "gold", "fitted gold"]
  points = [(one.name, one.gold, at) for one in studies for at in one.points]
  rows = [[name, at.n, at.kl, at.proxy, at.gold, fit and fit(at.kl)] for name, fit, at in points]
  yield Section("Over-optimization", columns, rows, [GOLD], panels(studies))
  fits = [(one.name, one.gold) for one in studies if one.gold]
  peaks = [f"{fit.peak_kl:.3g}, extrapolated" if fit.extrapolated else fit.peak_kl for _, fit in fits]
  rows = [[name, fit.formula, fit.alpha, fit.beta, fit.rmse, at] for (name, fit), at in zip(fits, peaks, strict=True)]
  yield Section("Fitted gold", ["run", "R(d) - R(0)", "a", "b", "residual (rms)", "peak at KL"], rows)


def _steps(report: results.StepReport) -> Iterator[Section]:
  at = ", ".join(f"{threshold:.4f}" for threshold in report.threshold.values)
  said = (
    f"{report.n_steps} labeled steps ({report.wrong_steps} wrong) of {report.n_solutions} solutions "
    f"({report.erroneous_solutions} with an error), {report.n_prompts} prompts: {', '.join(report.dataset)}.",
    f"Threshold {at}: {report.threshold.chosen_on}.",
  )
  scorers = {"the model": report} | {spelled(name): one for name, one in report.baselines.items()}
  for name, measured in {"the model and baselines": scorers, "subsets": report.subsets}.items():
    for kind, keys in MEASURES.items() if measured else ():
      below = any(one.auroc and one.auroc.value < 0.5 for one in measured.values())
      title = f"{kind}: {name}{' (an AUROC below 0.5 ranks the wrong way round)' * (below and kind == 'Steps')}"
      rows = [[scorer, *(getattr(one, key) for key in keys)] for scorer, one in measured.items()]
      yield Section(title, ["", *map(spelled, keys)], rows, said)
      said = ()


def _benchmark(result: results.BenchmarkResult) -> Section:
  letters = dict(zip("ABCDE", result.published, strict=False))
  others = [*result.baselines.values(), *result.published.values()]
  rows = [[spelled(number), one, *(of.get(number) for of in others)] for number, one in result.numbers.items()]
  texts = []
  if result.threshold is not None:
    texts.append(f"A step is wrong under {result.threshold:.4f} ({result.threshold_from}).")
  if letters:
    models = ", ".join(f"{letter}: {model}" for letter, model in letters.items())
    texts.append(f"Published: {models} ({result.published_in}).")
  title, columns = f"{result.title}: {result.items} items of {result.rows} rows", map(spelled, result.baselines)
  return Section(title, ["", "value", *columns, *letters], rows, texts, scale=(0.0, 0.5, 1.0))


def _ratings(report: results.RatingReport) -> Iterator[Section]:
  other = report.comparison
  for model, part in ((report.model, report), *([(other.model, other.other)] if other else ())):
    said = f"{part.n_answers} rated answers: {', '.join(report.dataset)}."
    yield _beside(f"Ratings: {model}", {name: vars(one) for name, one in part.attributes.items()}, said)
  if other:
    said = f"A: {report.model}. B: {other.model}. {other.verdict}."
    yield _beside("Two models, A - B", {name: vars(one) for name, one in other.attributes.items()}, said)
  yield from _probed(report, report.model, other and other.model)


SECTIONS = {
  results.PairReport: _pairs,
  results.PoolReport: _pools,
  results.OverOptimizationReport: _studies,
  results.StepReport: _steps,
  results.RatingReport: _ratings,
  results.BenchmarkReport: lambda report: map(_benchmark, report.benchmarks.values()),
}
