"""An evaluation from its settings to its report."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from .. import checkpoints, process, processes
from ..data import records as data
from ..data.reading import load
from ..data.sources import read
from ..data.writing import counted, tell_moved
from ..ensemble import check_models
from ..errors import DataError, UsageError
from ..outputs import check_output_file, write_whole
from ..results import to_json
from ..scoring import RewardModel, Scorer
from ..terminal import is_first_process, log
from . import best_of_n, pairs, ratings, results, steps
from .inputs import answer_length, output_row, score_answers, seen_prompts
from .probes import ProbeSummary, diagnose_probes
from .sections import sections_of
from .settings import EvaluationSettings
from .steps import choose_threshold, labeled_steps

_STEPS = "labels of steps"
OutputRows = list[dict[str, object]]
Evaluation = pairs.PairEvaluation | ratings.RatingEvaluation


def evaluate(settings: EvaluationSettings) -> results.EvaluationOutput | None:
  """None in all processes but the first."""
  team, folder = processes.team(), None
  if team and settings.overoptimization:
    raise UsageError("--overoptimization runs no model", hint="run it without torchrun")
  if settings.report and is_first_process():
    from .report import Folder, worst

    folder = Folder(settings.report, settings.model_name_or_path, settings.overwrite)
  inputs, output = [*(settings.dataset_name or ()), *(settings.threshold_data or ())], None
  if settings.output and not settings.overoptimization:
    output = check_output_file(settings.output, settings.overwrite, inputs)
  if team and (kept := output or (settings.report and Path(settings.report, "report"))):
    team.keep(kept, settings, [*inputs, settings.model_name_or_path, settings.compare, settings.benchmark_data])
  report, rows = _evaluated_by(settings)
  if team and team.rank:
    return None
  for section in sections_of(report):
    section.show()
  for sentence in report.diagnostics:
    log(f"- {sentence}")
  if output:
    moved: Counter[str] = Counter()
    write_whole(output, map(to_json, counted(rows, moved)))
    if moved:
      report = replace(report, metadata_moved=tell_moved(moved))
  if folder:
    folder.add(report, worst(rows) if isinstance(report, results.PairReport) else None)
  if team:
    team.forget()
  return report


def _evaluated_by(settings: EvaluationSettings) -> tuple[results.EvaluationOutput, OutputRows]:
  if settings.overoptimization:
    return report_overoptimization(settings), []
  if settings.benchmark:
    return report_benchmarks(settings)
  if settings.best_of_n is not None:
    return report_pools(settings)
  records = load(settings.dataset_name, neutral=settings.neutral, **settings.all_reading)
  of_steps = checkpoints.kind_of(settings.model_name_or_path) is checkpoints.PROCESS
  if of_steps and any(isinstance(row, data.Solution) for row in records.rows):
    return report_steps(settings, records)
  if not of_steps and records.rows and all(map(data.is_rated, records.rows)):
    has_pairs = all(len(row.completions) > 1 and row.scores for row in records.rows)
    if not has_pairs or checkpoints.saved_attributes(settings.model_name_or_path):
      return report_ratings(settings, records)
  return report_pairs(settings, records)


def _loaded(settings: EvaluationSettings, path: str | None = None) -> Scorer:
  model = process.from_settings(settings, path)
  model.team = processes.team()
  return model


def _evaluated(
  settings: EvaluationSettings, records: data.Records, how: dict[str, object], diagnostics: list[str]
) -> dict[str, object]:
  seen = seen_prompts(settings.model_name_or_path, records.rows)
  return {
    "model": settings.model_name_or_path,
    "dataset": settings.dataset_name,
    "format": records.format,
    "set_aside": records.set_aside,
    "diagnostics": [*seen.told(), *diagnostics],
    "prompts_trained_on": seen.count,
    "output": settings.output and str(Path(settings.output)),
    **how,
  }


def report_overoptimization(settings: EvaluationSettings) -> results.OverOptimizationReport:
  from . import overoptimization

  sources, picture = settings.overoptimization, settings.picture
  if picture:
    from .plots import svg

    picture = check_output_file(picture, settings.overwrite, sources)
  rows = [
    (f"{table.name}:{number}", row)
    for source in sources
    for table in read(source, settings.dataset_split, settings.dataset_config)
    for number, row in zip(table.numbers, table.complete().rows, strict=True)
  ]
  studies = overoptimization.read_studies(rows)
  if picture:
    write_whole(picture, [svg(overoptimization.panels(studies))])
  diagnostics = [overoptimization.diagnose_study(study) for study in studies]
  return results.OverOptimizationReport(studies, diagnostics, picture and str(picture))


def _refuse(settings: EvaluationSettings, **only_for: str) -> None:
  for name, what in only_for.items():
    if getattr(settings, name) is not None:
      raise UsageError(f"--{name} is for {what}, which the data does not hold for this model")


def report_pairs(settings: EvaluationSettings, records: data.Records) -> tuple[results.PairReport, OutputRows]:
  _refuse(settings, rating_range="answers that are rated", threshold=_STEPS, threshold_data=_STEPS)
  compared = data.comparisons(records)
  if not compared:
    hint = "rows need a preferred and a rejected answer, or scores that differ"
    raise DataError("the data holds no comparison", where=", ".join(records.files), hint=hint)
  return _of_models(settings, records, compared, partial(pairs.evaluate_pairs, subset_column=settings.subset_column))


def report_ratings(settings: EvaluationSettings, records: data.Records) -> tuple[results.RatingReport, OutputRows]:
  _refuse(settings, threshold=_STEPS, threshold_data=_STEPS, subset_column="pairs and steps")
  answers = data.rated_answers(records, settings.rating_range)
  return _of_models(settings, records, answers, ratings.evaluate_ratings)


def _of_models(
  settings: EvaluationSettings,
  records: data.Records,
  rows: list[data.Comparison] | list[data.Rated],
  evaluate: Callable[[RewardModel, list], Evaluation],
) -> tuple[results.PairReport | results.RatingReport, OutputRows]:
  """Of one model, or of two on the same rows."""
  names, reference = [settings.model_name_or_path], settings.reference_model_name_or_path
  references = {names[0]: reference}
  if settings.compare:  # before the first model is run
    names.append(settings.compare)
    found = [isinstance(rows[0], data.Comparison) and checkpoints.kind_of(path) for path in names]
    kinds = [one if one is checkpoints.PROCESS else checkpoints.OUTCOME for one in found]
    references = dict(zip(names, check_models(names, kinds, reference), strict=True))

  def evaluated(path: str) -> tuple[dict[str, object], Evaluation, ProbeSummary | None]:
    model = _loaded(replace(settings, reference_model_name_or_path=references[path]), path)
    if settings.probes and getattr(model, "compares", False):
      raise UsageError(f"{path} compares answers, and --probes needs the reward of one", hint="leave out --probes")
    found = evaluate(model, rows)
    probed = found.probed(partial(score_answers, model)) if settings.probes else None
    return model.how(), found, probed

  (how, found, probes), other, comparison, others = evaluated(names[0]), None, None, []
  kind, compared, diagnose = results.EVALUATIONS[type(found)]
  if settings.compare:
    _, other, other_probes = evaluated(settings.compare)
    said = found.compared(other, tuple(names), settings.subset_column)
    comparison = compared(**said, model=settings.compare, other=other.summary, probes=other_probes)
    said_of_other = *seen_prompts(settings.compare, records.rows).told(), *diagnose_probes(other_probes)
    others = [f"{settings.compare}: {one}" for one in said_of_other]
  said = _evaluated(settings, records, how, [*diagnose(found.summary), *diagnose_probes(probes), *others])
  return kind(**said, **vars(found.summary), comparison=comparison, probes=probes), found.rows(other)


def report_steps(settings: EvaluationSettings, records: data.Records) -> tuple[results.StepReport, OutputRows]:
  if settings.compare:
    raise UsageError("--compare evaluates two models on pairs", hint="evaluate each on the steps by itself")
  labeled, others = data.solutions(records), _threshold_data(settings)
  model = _loaded(settings)
  model.check_threshold(settings.threshold)
  chosen = {"threshold": settings.threshold, "threshold_data": others}
  found = steps.evaluate_steps(model, labeled, **chosen, subset_column=settings.subset_column)
  said = _evaluated(settings, records, model.how(), steps.diagnose_steps(found.summary))
  return results.StepReport(**said, **vars(found.summary)), found.rows


def _threshold_data(settings: EvaluationSettings) -> list[data.Solution] | None:
  if not settings.threshold_data:
    return None
  return data.solutions(load(settings.threshold_data, neutral=settings.neutral, **settings.all_reading))


def report_pools(settings: EvaluationSettings) -> tuple[results.PoolReport, OutputRows]:
  records = data.to_score(load(settings.dataset_name, **settings.all_reading))
  pools = records.rows
  sizes = best_of_n.check_pools(pools, settings.best_of_n)
  answers = best_of_n.find_answers(pools, column=settings.answer_column, pattern=settings.answer_pattern)
  model = _loaded(settings)
  rewards = score_answers(model, pools)
  model.warn_of_losses()
  summary = best_of_n.summarize_pools(pools, rewards, sizes, answers)
  lengths = [list(map(answer_length, pool.completions)) for pool in pools]
  rows = [
    output_row(pool, "completions", correct=pool.scores, rewards=row, lengths=own)
    for pool, row, own in zip(pools, rewards, lengths, strict=True)
  ]
  said = _evaluated(settings, records, model.how(), best_of_n.diagnose_best_of_n(summary))
  return results.PoolReport(**said, **vars(summary)), rows


def report_benchmarks(settings: EvaluationSettings) -> tuple[results.BenchmarkReport, OutputRows]:
  """All data are read before the model is loaded."""
  from .benchmark_runs import BENCHMARKS, check_names, diagnose_benchmark, flat_scores, load_benchmark, run_benchmark

  names = list(dict.fromkeys(settings.benchmark))
  check_names(names)
  loaded = {name: load_benchmark(name, settings.benchmark_data) for name in names}
  of_steps, others = BENCHMARKS[names[0]].of_steps, _threshold_data(settings)
  if of_steps:
    checkpoints.check(settings.model_name_or_path, checkpoints.PROCESS)
  model, threshold = _loaded(settings), None
  if not settings.overlong and "truncate_left" in model.renderer.policies:
    model.renderer.overlong = "truncate_left"  # as RewardBench, RM-Bench and RMB do: every item counts
  if settings.threshold is not None:
    if of_steps:
      model.check_threshold(settings.threshold)
    threshold = settings.threshold, "given"
  elif of_steps and others is not None:
    chosen, _ = choose_threshold(labeled_steps(others, steps.score_steps(model, others)))
    threshold = chosen, f"{len(others)} other solutions"
  found, rows, diagnostics = {}, [], []
  for name, items in loaded.items():
    found[name], own = run_benchmark(model, name, items, threshold)
    rows += own
    diagnostics += diagnose_benchmark(found[name])
  asked = [item for one in loaded.values() for item in one.items]
  diagnostics += seen_prompts(settings.model_name_or_path, asked).told()
  report = results.BenchmarkReport(
    model=settings.model_name_or_path,
    benchmarks=found,
    scores=flat_scores(found),
    settings={"dtype": settings.dtype, "overlong": model.renderer.overlong},
    diagnostics=diagnostics,
    output=settings.output and str(Path(settings.output)),
    **model.how(),
  )
  return report, rows
