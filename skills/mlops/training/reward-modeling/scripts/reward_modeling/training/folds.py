"""Cross-validation on few comparisons: each pair is evaluated by a model that never saw its prompt, and all are pooled.

A dozen held-out pairs prove nothing; by K models every pair is a held-out one, and the model to keep is trained on all.
"""

from __future__ import annotations

import gc
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .. import checkpoints
from ..console import DataError, log
from ..data.records import Comparison
from ..heads import head_name
from ..rendering import Conversation, Renderer
from . import configuration
from .results import Fold
from .settings import Settings

if TYPE_CHECKING:
    from ..evaluation.pairs import PairEvaluation
    from .pairs import Pairs


def folds_of(pairs: Sequence[Comparison], count: int, seed: int) -> list[int]:
    """The fold of each pair, 0 to count - 1. No prompt is in two, and they differ by one prompt at most, whatever the order
    of the rows. Raises DataError for fewer prompts than folds.
    """
    prompts = [_text(pair.prompt) for pair in pairs]
    order = sorted(set(prompts), key=lambda text: hashlib.sha256(f"{seed}:{text}".encode()).digest())
    if len(order) < count:
        raise DataError(f"{len(order)} different prompts cannot make {count} folds", hint="lower --folds or add data")
    fold = {text: place % count for place, text in enumerate(order)}
    return [fold[text] for text in prompts]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


class HeldOutScores:
    """The rewards by the model of the fold that held a pair out, as a scorer for `evaluation.pairs.evaluate_pairs`."""

    def __init__(self, renderer: Renderer):
        self.renderer = renderer
        self.known: dict[str, float | None] = {}

    def add(self, evaluation: PairEvaluation) -> None:
        for pair, *rewards in evaluation.scored:
            for side, reward in zip((pair.chosen, pair.rejected), rewards, strict=True):
                self.known[_text((pair.prompt, side, pair.tools))] = reward

    def score_conversations(
        self, conversations: Sequence[Conversation], progress: Callable[[int], None] | None = None
    ) -> list[float | None]:
        return [self.known[_text(one[:3])] for one in conversations]

    def warn_of_losses(self, before: dict[str, int] | None = None) -> None:
        """Nothing: it was told while the folds were scored."""


def cross_validate(
    kind: Pairs,
    settings: Settings,
    fields: Mapping[str, Any],
    pairs: Sequence[Comparison],
    load: Callable[[], tuple[checkpoints.Loaded, Renderer]],
) -> tuple[PairEvaluation, list[Fold]] | None:
    """(the evaluation of all pairs as held-out ones, each fold's counts and accuracy); None in all processes but the first.

    load: the model to start from, anew. Nothing of the models of the folds is kept.
    """
    from ..evaluation.pairs import evaluate_pairs

    place_of = folds_of(pairs, kind.folds, settings.seed)
    fields = {**fields, "save_strategy": "no", "report_to": "none"}
    pooled, found = None, []
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
            pooled = pooled or HeldOutScores(renderer)
            evaluation = evaluate_pairs(kind.scorer(model.eval(), renderer), held_out)
            pooled.add(evaluation)
            found.append(Fold(len(train), len(held_out), training["train_loss"], evaluation.summary.accuracy))
        del model, loaded
        gc.collect()
    if pooled is None:
        return None
    evaluation = evaluate_pairs(pooled, pairs)
    log(
        f"{kind.folds} folds: accuracy {evaluation.summary.accuracy:.3f} on "
        f"{len(pairs)} pairs, each by a model that did not see its prompt; now a model is trained on all of them"
    )
    return evaluation, found
