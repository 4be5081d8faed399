"""Train a reward model of any kind: read, audit, render, fit, evaluate, save. What a kind adds is a `Kind`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from .. import checkpoints, kinds, losses
from ..console import listed, log
from ..lengths import longest_input
from . import configuration
from .data import Data, Rows
from .settings import DataSettings, Settings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase, TrainingArguments

    from ..rendering import Renderer


class Kind(Protocol):
    """What a kind of reward model adds to `train`: `pairs.Pairs` and `steps.Steps`. Only `fit` and `evaluate` import torch.

    model: what it is once saved. task_type: for peft. loss: its settings, for the model's card. own_fields: of the trainer's
    configuration, which nobody else sets.
    """

    model: kinds.Kind
    task_type: str
    loss: dict[str, Any]

    def config_class(self) -> type[TrainingArguments]: ...
    def own_fields(self) -> dict[str, Any]: ...

    def read(self, settings: DataSettings) -> Data:
        """What to train and to evaluate on, as far as it can be known without the model."""

    def audited(self, data: Data, renderer: Renderer, settings: DataSettings) -> Data:
        """The data without what the renderer lets an audit find."""

    def renderer(self, tokenizer: PreTrainedTokenizerBase, **common: Any) -> Renderer: ...
    def render(self, records: list[Any], renderer: Renderer, drop_refused: bool, *, held_out: bool = False) -> Rows: ...

    def found(self, rows: Rows, renderer: Renderer) -> dict[str, Any]:
        """Log what was rendered, and warn of what was lost. More keys of the result."""

    def fit(
        self, model: torch.nn.Module, renderer: Renderer, rows: Rows, config: TrainingArguments, **run: Any
    ) -> tuple[torch.nn.Module, dict[str, Any]]:
        """`loop.fit`: (the model in memory, a summary of the run)."""

    def evaluate(
        self, model: torch.nn.Module, renderer: Renderer, held_out: list[Any], trained_on: list[Any]
    ) -> tuple[Any, dict[str, Any]]:
        """(the evaluation on held-out records or None, statistics of the rewards)."""


def train(kind: Kind, settings: Settings, fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """One training run; the result that its script prints, or None in all processes but the first.

    fields: of the trainer's configuration, given by their own names. Errors are those of its parts: UsageError, DataError,
    ModelError and RunError.
    """
    output_dir = settings.claim(*settings.inputs)
    if fields:  # what the trainer refuses is refused before data is read
        _config(kind, settings, fields, 0, settings.has_evaluation)
    data = kind.read(settings)
    resume = settings.resume_point()
    loaded, renderer = _model(kind, settings)
    data = kind.audited(data, renderer, settings)
    drop = settings.drop_refused
    rows = kind.render(data.train, renderer, drop)
    found = kind.found(rows, renderer)
    losses.warn_of(renderer, only=losses.OF_TEXTS)
    eval_rows = kind.render(data.held_out, renderer, drop, held_out=True) if data.held_out else None
    held_out = eval_rows.records if eval_rows and drop else data.held_out
    config, reason = _config(kind, settings, fields, loaded.model.num_parameters(), bool(eval_rows))
    log(f"settings for {reason}: {listed(configuration.config_summary(config, fields))}")
    result = {
        "output_dir": str(output_dir),
        "head": loaded.head,
        "format": data.format,
        "counts": rows.counts | {f"{data.called}_held_out": len(held_out)},
        "audit": [finding.to_dict() for finding in data.findings],
        "set_aside": data.set_aside,
        "left_out": data.left_out + rows.counts.get("dropped_refused", 0),
        **found,
    }
    lora = configuration.lora_of(settings, kind.task_type, checkpoints.head_name(loaded.model))
    if settings.dry_run:
        planned = configuration.planned(settings, config, fields, renderer, len(rows.dataset), lora)
        return {**result, "dry_run": True, "settings": planned | kind.loss}
    model, training = kind.fit(
        loaded.model, renderer, rows, config, head=loaded.head, eval_rows=eval_rows, peft_config=lora, resume=resume
    )
    if config.process_index != 0:
        return None
    evaluation, reward = kind.evaluate(model.eval(), renderer, held_out, rows.records)
    training |= {"head": loaded.head, "counts": result["counts"], "base_model": settings.model_name_or_path}
    training |= {"dataset": settings.dataset_name, "loss": kind.loss}
    card = checkpoints.save(model, renderer, settings.output_dir, training=training, reward=reward)
    difference = card["reload_difference"]
    log(f"saved and verified: {output_dir} (golden scores differ by {difference:.1e} after reloading)")
    training.pop("log")
    return {
        **result,
        "resumed_from": resume,
        "training": training,
        "reward": reward,
        "evaluation": evaluation and evaluation.summary,
        "fingerprint": card["fingerprint"],
        "reload_difference": difference,
    }


def _config(
    kind: Kind, settings: Settings, fields: Mapping[str, Any], parameters: int, has_eval: bool
) -> tuple[TrainingArguments, str]:
    own = kind.own_fields()
    return configuration.trainer_config(kind.config_class(), settings, fields, parameters, has_eval=has_eval, **own)


def _model(kind: Kind, settings: Settings) -> tuple[checkpoints.Loaded, Renderer]:
    """The model to start from, and how its inputs are written."""
    path, template = settings.model_name_or_path, settings.chat_template_path
    loaded = checkpoints.load_for_training(path, chat_template_path=template, seed=settings.seed, kind=kind.model)
    for note in [f"head: {loaded.head}", *loaded.notes]:
        log(note)
    return loaded, kind.renderer(
        loaded.tokenizer,
        max_length=longest_input(loaded.model, loaded.tokenizer, settings.max_length),
        scored_at=checkpoints.scored_at(loaded.model),
        text_format=settings.text_format or "chat",
    )
