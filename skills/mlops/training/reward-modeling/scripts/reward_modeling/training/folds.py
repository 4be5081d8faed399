"""Cross-validation on few comparisons: each pair is evaluated by a model that never saw its prompt, and all are pooled."""

from __future__ import annotations

import gc
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from .. import checkpoints
from ..data.records import Comparison
from ..errors import DataError
from ..heads import head_name
from ..rendering import Conversation, Renderer
from ..terminal import log
from . import configuration
from .results import Fold
from .settings import Settings

if TYPE_CHECKING:
  from ..evaluation.pairs import PairEvaluation
  from .pairs import Pairs


def folds_of(pairs: Sequence[Comparison], count: int, seed: int) -> list[int]:
  """0 to count - 1 for each pair. No prompt is in two, and they differ by one prompt at most, whatever the order of the rows.
  Raises DataError for fewer prompts than folds.
  """
  prompts = [_text(pair.prompt) for pair in pairs]
  order = sorted(set(prompts), key=lambda text: hashlib.sha256(f"{seed}:{text}".encode()).digest())
  if len(order) < count:
    raise DataError(f"{len(order)} different prompts cannot make {count} folds", hint="lower --folds or add data")
  fold = {text: place % count for place, text in enumerate(order)}
  return [fold[text] for text in prompts]


def _text(value: Any) -> str:
  return json.dumps(value, sort_keys=True, default=str)


def cross_validate(
  kind: Pairs,
  settings: Settings,
  fields: Mapping[str, Any],
  pairs: Sequence[Comparison],
  load: Callable[[], tuple[checkpoints.Loaded, Renderer]],
) -> tuple[PairEvaluation, list[Fold]] | None:
  """(the evaluation of all pairs as held-out ones, each fold's counts and accuracy); None in all processes but the first.

  load: the model to start from, anew.
  """
  from ..evaluation.pairs import evaluate_pairs
  from ..scoring import RewardModel

  log(f"--folds {kind.folds}: trains {kind.folds} models to evaluate every pair, then the one that is kept on all")
  place_of = folds_of(pairs, kind.folds, settings.seed)
  fields = {**fields, "save_strategy": "no", "report_to": "none"}
  known: dict[str, float | None] = {}  # the reward of each side by the model that did not see it
  found = []
  for fold in range(kind.folds):
    train = [pair for pair, place in zip(pairs, place_of, strict=True) if place != fold]
    held_out = [pair for pair, place in zip(pairs, place_of, strict=True) if place == fold]
    log(f"fold {fold + 1} of {kind.folds}: {len(train)} pairs to train on, {len(held_out)} held out")
    loaded, renderer = load()
    rows = kind.render(train, renderer, settings.drop_refused)
    lora = configuration.lora_of(settings, kind.task_type, head_name(loaded.model))
    with tempfile.TemporaryDirectory() as folder:
      own, parameters = replace(settings, output_dir=folder), loaded.model.num_parameters()
      config, _ = configuration.trainer_config(
        kind.config_class(), own, fields, parameters, has_eval=False, **kind.own_fields()
      )
      model, training = kind.fit(loaded.model, renderer, rows, config, head=loaded.head, peft_config=lora)
    if config.process_index == 0:
      evaluation = evaluate_pairs(RewardModel(model.eval(), renderer), held_out)
      for pair, chosen, rejected in evaluation.scored:
        known[_text((pair.prompt, pair.chosen, pair.tools))] = chosen
        known[_text((pair.prompt, pair.rejected, pair.tools))] = rejected
      found.append(Fold(len(train), len(held_out), training["train_loss"], evaluation.summary.accuracy))
    del model, loaded
    gc.collect()
  if config.process_index != 0:
    return None

  def score_conversations(conversations: Sequence[Conversation], progress: Callable[[int], None]) -> list[float | None]:
    return [known[_text(one[:3])] for one in conversations]

  told = {"renderer": renderer, "warn_of_losses": lambda before: None}  # of losses in the folds
  evaluation = evaluate_pairs(SimpleNamespace(score_conversations=score_conversations, **told), pairs)
  log(
    f"{kind.folds} folds: accuracy {evaluation.summary.accuracy:.3f} on "
    f"{len(pairs)} pairs, each by a model that did not see its prompt; now a model is trained on all of them"
  )
  return evaluation, found
