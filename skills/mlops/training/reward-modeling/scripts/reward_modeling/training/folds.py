"""Cross-validation on little data: each row is evaluated by a model that never saw its prompt, and all are pooled."""

from __future__ import annotations

import gc
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import checkpoints
from ..attributes import Attributes
from ..data.records import Comparison, Rated
from ..errors import DataError
from ..evaluation.pair_measures import PairSummary
from ..heads import head_name
from ..outputs import write_whole
from ..rendering import Conversation, Renderer
from ..results import sorted_json, to_json
from ..scoring import Progress, RewardModel
from ..terminal import log
from . import configuration
from .results import Fold
from .settings import Settings

if TYPE_CHECKING:
  from ..evaluation.pairs import PairEvaluation
  from ..evaluation.ratings import RatingEvaluation, RatingSummary
  from ..hf import Model
  from .pairs import Pairs

Known = dict[str, list[float] | None]


def folds_of(rows: Sequence[Comparison | Rated], count: int, seed: int) -> list[int]:
  """0 to count - 1 for each row. No prompt is in two, and they differ by one prompt at most, whatever the order of the rows.
  Raises DataError for fewer prompts than folds.
  """
  prompts = [sorted_json(row.prompt) for row in rows]
  order = sorted(set(prompts), key=lambda text: hashlib.sha256(f"{seed}:{text}".encode()).digest())
  if len(order) < count:
    raise DataError(f"{len(order)} different prompts cannot make {count} folds", hint="lower --folds or add data")
  fold = {text: place % count for place, text in enumerate(order)}
  return [fold[text] for text in prompts]


class Pooled(RewardModel):
  """Keeps in `known` what it scored, and gives that again: over all folds, of each row by the model that did not see it."""

  def __init__(self, known: Known, model: Model | None, renderer: Renderer, heads: Attributes):
    super().__init__(model, renderer, attributes=heads)
    self.known = known

  def score_attributes(
    self, conversations: Sequence[Conversation], progress: Progress = None
  ) -> list[list[float] | None]:
    keys = [sorted_json(one[:3]) for one in conversations]
    if not self.known.keys() >= set(keys):
      self.known.update(zip(keys, super().score_attributes(conversations, progress), strict=True))
    return [self.known[key] for key in keys]


def journal_of(
  kind: Pairs, settings: Settings, fields: Mapping[str, object], rows: Sequence[Comparison | Rated]
) -> Path:
  """Of what the folds of this command on these rows have said; deleted when its model is saved."""
  asked = replace(settings, resume_from_checkpoint=None, overwrite_output_dir=False)
  identity = repr((kind, asked, sorted(fields.items()), rows)).encode()
  return Path(settings.output_dir) / f".folds-{hashlib.sha256(identity).hexdigest()[:8]}"


def headline(summary: PairSummary | RatingSummary) -> dict[str, object]:
  if isinstance(summary, PairSummary):
    return {"accuracy": summary.accuracy}
  return {"pearson": {name: one.pearson for name, one in summary.attributes.items()}}


def cross_validate(
  kind: Pairs,
  settings: Settings,
  fields: Mapping[str, object],
  rows: Sequence[Comparison | Rated],
  load: Callable[[], tuple[checkpoints.Loaded, Renderer]],
) -> tuple[PairEvaluation | RatingEvaluation, list[Fold]] | None:
  """(the evaluation of all rows as held-out ones, each fold's counts and numbers); None in all processes but the first.

  load: the model to start from, anew. Heads of ratings have the scale of all rows.
  """
  log(
    f"--folds {kind.folds}: trains {kind.folds} models to evaluate on all {kind.called}, then the one that is kept on all"
  )
  place_of = folds_of(rows, kind.folds, settings.seed)
  fields = {**fields, "save_strategy": "no", "report_to": "none"}
  journal, found = journal_of(kind, settings, fields, rows), []
  known, losses = json.loads(journal.read_text("utf-8")) if journal.exists() else ({}, [])
  if losses:
    log(f"{len(losses)} folds of an interrupted run are kept")
  begun = time.monotonic()
  for fold in range(kind.folds):
    train = [row for row, place in zip(rows, place_of, strict=True) if place != fold]
    held_out = [row for row, place in zip(rows, place_of, strict=True) if place == fold]
    log(f"fold {fold + 1} of {kind.folds}: {len(train)} {kind.called} to train on, {len(held_out)} held out")
    loaded, renderer = load()
    model = loaded.model
    with tempfile.TemporaryDirectory() as folder:
      own, parameters = replace(settings, output_dir=folder), model.num_parameters()
      config, _ = configuration.trainer_config(
        kind.config_class(), own, fields, parameters, has_eval=False, **kind.own_fields()
      )
      if fold >= len(losses):
        rendered = kind.render(train, renderer, settings.drop_refused)
        lora = configuration.lora_of(settings, kind.task_type, head_name(model))
        model, training = kind.fit(model, renderer, rendered, config, head=loaded.head, peft_config=lora)
        losses.append(training["train_loss"])
    if config.process_index == 0:
      evaluation = kind.evaluated(Pooled(known, model.eval(), renderer, kind.heads), held_out)
      found.append(Fold(len(train), len(held_out), losses[fold], **headline(evaluation.summary)))
      write_whole(journal, [to_json([known, losses])])
    del model, loaded
    gc.collect()
    one = (time.monotonic() - begun) / (fold + 1)
    log(f"about {one * (kind.folds - fold):.0f} s more")  # the last model has a fold's rows more
  if config.process_index != 0:
    return None
  evaluation = kind.evaluated(Pooled(known, None, renderer, kind.heads), rows)
  log(f"{kind.folds} folds: evaluated on {len(rows)} {kind.called}, each by a model that did not see its prompt")
  return evaluation, found
