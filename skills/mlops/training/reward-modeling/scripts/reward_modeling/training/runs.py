"""Train a reward model of any kind: read, audit, render, fit, evaluate, save. What a kind adds are the methods of a `data.Learner`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import checkpoints
from ..base_rendering import OF_TEXTS, BaseRenderer
from ..data.records import Record
from ..errors import UsageError
from ..evaluation.inputs import Seen, hashed_prompts, seen_prompts, trained_prompts
from ..evaluation.pairs import PairEvaluation
from ..evaluation.ratings import RatingEvaluation
from ..evaluation.results import EVALUATIONS
from ..evaluation.steps import StepEvaluation
from ..hf import Model
from ..lengths import longest_input, positions
from ..output_folder import FOLDS, TRAINED_ON
from ..output_folder import checkpoints as checkpoints_in
from ..outputs import write_whole
from ..results import to_json
from ..terminal import listed, log, warn
from . import configuration
from .data import Learner, not_learned
from .results import Fold, ModelOutput, PlannedModel, RewardStatistics, TrainedModel
from .settings import EVALUATE_ON, Settings

AnyEvaluation = PairEvaluation | RatingEvaluation | StepEvaluation
STATISTICS_SAMPLE = 256
"""Records whose rewards stand for all, where none are held out."""


def train(kind: Learner, settings: Settings, fields: Mapping[str, object]) -> ModelOutput | None:
  """The result that its script prints, or None in all processes but the first. fields: of the trainer's configuration."""
  if settings.estimate_memory:
    from .memory import estimate

    return estimate(kind, settings)
  (output_dir, resume), report = settings.begin(*settings.inputs), _report(kind, settings)
  # What the trainer refuses is refused before data is read.
  kind.config(settings, fields, 0, has_eval=settings.has_evaluation)
  data = kind.read(settings)
  kind = kind.prepared(data, settings.model_name_or_path)
  loaded, renderer = _model(kind, settings)
  data = kind.audited(data, renderer, settings)
  drop = settings.drop_refused
  rows = kind.render(data.train, renderer, drop)
  found = kind.found(rows, renderer)
  renderer.warn_of_losses(only=OF_TEXTS)
  eval_rows = kind.render(data.held_out, renderer, drop, held_out=True) if data.held_out else None
  held_out = eval_rows.records if eval_rows and drop else data.held_out
  config, reason = kind.config(settings, fields, loaded.model.num_parameters(), has_eval=bool(eval_rows))
  configuration.save_short_runs(config, fields, len(rows.dataset))
  log(f"settings for {reason}: {listed(configuration.config_summary(config, fields))}")
  seen = _seen(settings.model_name_or_path, rows.records if kind.folds else held_out)
  result = {
    "output_dir": str(output_dir),
    "head": loaded.head,
    "format": data.format,
    "counts": rows.counts | {f"{data.called}_held_out": len(held_out)},
    "audit": data.findings,
    "set_aside": data.set_aside,
    "diagnostics": [*not_learned(rows.counts, data.called, renderer), *seen.told()],
    "left_out": data.left_out + rows.counts.get("dropped_refused", 0),
    **found,
  }
  lora = configuration.lora_of(settings, loaded.model)
  if settings.dry_run:
    planned = configuration.planned(settings, config, fields, renderer, rows.dataset, lora)
    planned |= kind.loss | ({"folds": kind.folds, "models_trained": kind.folds + 1} if kind.folds else {})
    return PlannedModel(**result, dry_run=True, settings=planned)
  validation = None
  if kind.folds:
    from .folds import cross_validate  # here, since some loaders leave it out: main_guard says so

    validation = cross_validate(kind, settings, fields, rows.records, lambda: _model(kind, settings))
  known = sorted(trained_prompts(settings.model_name_or_path) | hashed_prompts(rows.records))
  run = {"head": loaded.head, "eval_rows": eval_rows, "peft_config": lora, "resume": resume, "trained_on": known}
  model, training = kind.fit(loaded.model, renderer, rows, config, **run)
  if config.process_index != 0:
    return None
  training |= {"head": loaded.head, "counts": result["counts"], "base_model": settings.model_name_or_path}
  training |= {"dataset": settings.dataset_name, "loss": kind.loss}
  evaluation, made = _saved(kind, model.eval(), renderer, held_out, rows.records, output_dir, training, validation)
  write_whole(output_dir / TRAINED_ON, known)
  for journal in output_dir.glob(".folds-*"):
    journal.unlink()
  if evaluation:
    said = {"model": str(output_dir), "format": data.format, "set_aside": data.set_aside}
    result["diagnostics"] += _told(evaluation, seen, report, settings, kind.folds, said)
  return TrainedModel(**result, **made, resumed_from=resume)


def _seen(path: str, rows: list[Record]) -> Seen:
  seen = seen_prompts(path, rows)
  for one in seen.told():
    warn(one)
  return seen


def _told(
  evaluation: AnyEvaluation, seen: Seen, report: Any, settings: Settings, folds: int | None, said: dict[str, object]
) -> list[str]:
  """What the evaluation shows, in the log and the report."""
  *_, diagnose = EVALUATIONS[type(evaluation)]
  found = diagnose(evaluation.summary)
  for one in found:
    log(f"- {one}")
  if report:
    said |= {"diagnostics": [*seen.told(), *found], "prompts_trained_on": seen.count}
    report.add_held_out(evaluation, settings, folds, **said)
  return found


def _saved(
  kind: Learner,
  model: Model,
  renderer: BaseRenderer,
  held_out: list[Record],
  trained_on: list[Record],
  output_dir: Path,
  training: dict[str, object],
  validation: tuple[PairEvaluation, list[Fold]] | None,
) -> tuple[AnyEvaluation | None, dict[str, object]]:
  """(the evaluation of a model that is saved here, what the result says of both)."""
  kind, made = replace(kind, heads=kind.weighed(model, renderer)), {}
  if kind.heads:
    made["attribute_weights"] = {one.name: one.weight for one in kind.heads}
  evaluation, rewards, called = kind.evaluate(model, renderer, held_out, trained_on[:STATISTICS_SAMPLE])
  source = f"{'held-out' if held_out else 'training'} {called}"
  reward = RewardStatistics(float(np.mean(rewards)), float(np.std(rewards)), len(rewards), source)
  if isinstance(evaluation, StepEvaluation):
    found = evaluation.summary
    reward = replace(reward, threshold=found.threshold.best, auroc_low=found.auroc and max(found.auroc.low, 0.0))
  if validation:
    evaluation, made["folds"] = validation
    from .folds import headline

    write_whole(output_dir / FOLDS, map(to_json, evaluation.rows()))
    training["cross_validation"] = {"folds": kind.folds, **headline(evaluation.summary)}
  card = kind.save(model, renderer, output_dir, training=training, reward=reward)
  _say_what_is_saved(output_dir, card["reload_difference"])
  training.pop("log")
  made |= {name: card[name] for name in ("fingerprint", "reload_difference")}
  return evaluation, made | {"training": training, "reward": reward, "evaluation": evaluation and evaluation.summary}


def _report(kind: Learner, settings: Settings) -> Any:
  if not settings.report:
    return None
  if not (settings.has_evaluation or kind.folds):
    hint = f"{EVALUATE_ON}, train.py can take --folds 5, or use evaluate.py --report later"
    raise UsageError("--report needs something to evaluate on", hint=hint)
  from ..evaluation.report import Folder

  return Folder(settings.report, str(Path(settings.output_dir)), settings.overwrite_output_dir)


def _say_what_is_saved(output_dir: Path, difference: float) -> None:
  log(f"saved and verified: {output_dir} (golden scores differ by {difference:.1e} after reloading)")
  if left := checkpoints_in(output_dir):
    names = ", ".join(folder.name for folder in left)
    size = sum(file.stat().st_size for folder in left for file in folder.rglob("*")) / 1e6
    log(
      f"{names} stay in {output_dir} ({size:.0f} MB): they are for resuming only, "
      "delete them, or train with --save_strategy no"
    )


def _model(kind: Learner, settings: Settings) -> tuple[checkpoints.Loaded, BaseRenderer]:
  loaded = kind.load(settings)
  for note in [f"head: {loaded.head}", *loaded.notes]:
    log(note)
  renderer = kind.renderer(
    loaded.tokenizer,
    max_length=longest_input(loaded.model, loaded.tokenizer, settings.max_length),
    scored_at=checkpoints.scored_at(loaded.model),
    text_format=settings.text_format or "chat",
  )
  renderer.longest = positions(loaded.model)
  return loaded, renderer
