"""Settings of the trainer: the user's over those for the size of the model, and the LoRA configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..console import UsageError
from ..precision import precision
from ..settings import EVALUATE_ON
from .resuming import lora_summary
from .settings import LoraSettings, Settings

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import TrainingArguments

    from ..rendering import Renderer


@dataclass(frozen=True)
class SizeDefaults:
    """What to start from for models below `parameters`; LoRA multiplies the learning rate by ten."""

    name: str
    parameters: float
    learning_rate: float
    per_device_train_batch_size: int
    num_train_epochs: int


SIZES = (
    SizeDefaults("under 100M", 1e8, 1e-4, 8, 2),  # measured: references/training.md
    SizeDefaults("under 1B", 1e9, 2e-5, 8, 2),
    SizeDefaults("1B to 7B", 7e9, 1e-5, 4, 1),
    SizeDefaults("7B and more", float("inf"), 5e-6, 2, 1),
)
LORA_LEARNING_RATE_FACTOR = 10
CHECKPOINT_ACTIVATIONS_FROM = 1e9


def default_arguments(parameters: int, lora: bool) -> tuple[dict[str, Any], str]:
    """Learning rate, batch size, epochs and activation checkpointing for a model of this many parameters, and why."""
    size = next(size for size in SIZES if parameters < size.parameters)
    rate = size.learning_rate * (LORA_LEARNING_RATE_FACTOR if lora else 1)
    chosen = {field: value for field, value in asdict(size).items() if field not in ("name", "parameters")}
    chosen |= {"learning_rate": rate, "gradient_checkpointing": parameters >= CHECKPOINT_ACTIVATIONS_FROM}
    return chosen, f"{parameters / 1e6:.1f}M parameters ({size.name}{', LoRA' if lora else ''})"


def trainer_config(
    config_class: type[TrainingArguments],
    settings: Settings,
    fields: Mapping[str, Any],
    parameters: int,
    *,
    has_eval: bool,
    **own: Any,
) -> tuple[TrainingArguments, str]:
    """The trainer's configuration: the user's fields over the defaults for this size and hardware, and their reason.

    fields: of the trainer, given by their own names. parameters: of the model. own: fields that the kind sets and nobody
    else. Raises UsageError when the trainer refuses them.
    """
    named = ("learning_rate", "per_device_train_batch_size", "num_train_epochs", "gradient_checkpointing", "bf16")
    fields = {**fields, **{name: value for name in named if (value := getattr(settings, name)) is not None}}
    size, reason = default_arguments(parameters, settings.use_peft)
    evaluation = {"eval_strategy": "epoch"}
    if settings.eval_steps is not None:
        evaluation = {"eval_strategy": "steps", "eval_steps": settings.eval_steps}
    batch = fields.get("per_device_train_batch_size") or size["per_device_train_batch_size"]
    defaults = {
        **size,
        **(evaluation if has_eval else {}),
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,
        "save_total_limit": 2,
        "max_grad_norm": 1.0,
        "logging_steps": 10,
        "per_device_eval_batch_size": 2 * batch,
    }
    own |= {"output_dir": settings.output_dir, "seed": settings.seed, "remove_unused_columns": False}
    try:
        config = config_class(**own, **{**defaults, **fields, **precision(fields, parameters)})
    except (ValueError, TypeError) as error:
        raise UsageError(f"the trainer refuses these settings: {error}") from error
    if config.eval_strategy != "no" and not has_eval:
        raise UsageError("--eval_strategy needs something to evaluate on", hint=EVALUATE_ON)
    return config, reason


def config_summary(config: TrainingArguments, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that matter most, and all that were given by their own names."""
    names = (
        *("learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs"),
        *("max_steps", "bf16", "fp16", "gradient_checkpointing", "lr_scheduler_type", "seed"),
        *given,
    )
    values = {name: getattr(config, name) for name in names}
    return {name: getattr(value, "value", value) for name, value in values.items()}  # enumerations by their value


def planned(
    settings: Settings,
    config: TrainingArguments,
    given: Mapping[str, Any],
    renderer: Renderer,
    rows: int,
    lora: LoraConfig | None,
) -> dict[str, Any]:
    """What a dry run says of the run it stands for. rows: of the training set; `given` as in `config_summary`; lora: its
    configuration, or None.
    """
    names = ("warmup_steps", "weight_decay", "eval_strategy", "eval_steps", "save_strategy", "save_steps")
    batch = config.per_device_train_batch_size * config.gradient_accumulation_steps * config.world_size
    steps = config.max_steps if config.max_steps > 0 else math.ceil(math.ceil(rows / batch) * config.num_train_epochs)
    return {
        "model_name_or_path": settings.model_name_or_path,
        "max_length": renderer.max_length,
        "overlong": renderer.overlong,
        "val_set_size": settings.val_set_size,
        **config_summary(config, {**dict.fromkeys((*names, "logging_steps")), **given}),
        "optimizer_steps": steps,
        "lora": lora and lora_summary(lora),
    }


def lora_of(settings: LoraSettings, task_type: str, head: str | None, dropout: float = 0.05) -> LoraConfig | None:
    """A LoRA configuration that trains and saves the head, or None without --use_peft. dropout: unless given by its flag.

    head: without it the head would stay random, and be lost on saving; None for a model that has no new one, as a policy.
    """
    if not settings.use_peft:
        return None
    from peft import LoraConfig

    targets = settings.lora_target_modules or ["all-linear"]
    return LoraConfig(
        task_type=task_type,
        r=settings.lora_r or 16,
        lora_alpha=settings.lora_alpha or 32,
        lora_dropout=dropout if settings.lora_dropout is None else settings.lora_dropout,
        target_modules=targets[0] if targets == ["all-linear"] else targets,
        modules_to_save=[head] if head else None,
    )
