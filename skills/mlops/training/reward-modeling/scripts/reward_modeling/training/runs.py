"""What every training run has in common: settings by model size, checkpoints, resuming, progress, the loop around the trainer."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from ..arguments import EVALUATE_ON
from ..console import QUIET_SECONDS, DataError, RunError, UsageError, console, log, to_json, warn, write_whole
from ..output_folder import discard_checkpoints
from ..precision import precision
from ..rendering import refused_together
from . import resuming

# ---- choices made for the user ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SizeDefaults:
    """What to start from for models below `parameters`; LoRA multiplies the learning rate by ten."""

    name: str
    parameters: float
    learning_rate: float
    per_device_train_batch_size: int
    num_train_epochs: int


SIZES = (
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
    chosen = {
        "learning_rate": rate,
        "per_device_train_batch_size": size.per_device_train_batch_size,
        "num_train_epochs": size.num_train_epochs,
        "gradient_checkpointing": parameters >= CHECKPOINT_ACTIVATIONS_FROM,
    }
    return chosen, f"{parameters / 1e6:.1f}M parameters ({size.name}{', LoRA' if lora else ''})"


def trainer_config(
    config_class: Any, args: Any, fields: dict[str, Any], parameters: int, *, has_eval: bool, **own: Any
) -> tuple[Any, str]:
    """The trainer's configuration: the user's fields over the defaults for this size and hardware, and their reason.

    args: parsed flags of `arguments.add_size_arguments`. fields: trainer fields given by their own names. parameters: of
    the model. own: fields that the script sets and nobody else. Raises UsageError when the trainer refuses them.
    """
    named = ("learning_rate", "per_device_train_batch_size", "num_train_epochs", "gradient_checkpointing", "bf16")
    fields = fields | {name: getattr(args, name) for name in named if getattr(args, name) is not None}
    size, reason = default_arguments(parameters, args.use_peft)
    evaluation = {"eval_strategy": "epoch"}
    if args.eval_steps is not None:
        evaluation = {"eval_strategy": "steps", "eval_steps": args.eval_steps}
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
    own |= {"output_dir": args.output_dir, "seed": args.seed, "remove_unused_columns": False}
    try:
        config = config_class(**own, **{**defaults, **fields, **precision(fields, parameters)})
    except (ValueError, TypeError) as error:
        raise UsageError(f"the trainer refuses these settings: {error}") from error
    if config.eval_strategy != "no" and not has_eval:
        raise UsageError("--eval_strategy needs something to evaluate on", hint=EVALUATE_ON)
    return config, reason


def config_summary(config: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The settings that matter most, and all that were given by their own names."""
    names = (
        "learning_rate",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "num_train_epochs",
        "max_steps",
        "bf16",
        "fp16",
        "gradient_checkpointing",
        "lr_scheduler_type",
        "seed",
        *given,
    )
    values = {name: getattr(config, name) for name in names}
    return {name: getattr(value, "value", value) for name, value in values.items()}  # enumerations by their value


def planned(args: Any, config: Any, given: dict[str, Any], renderer: Any, rows: int, lora: Any) -> dict[str, Any]:
    """What a dry run says of the run it stands for. rows: of the training set; `given` as in `config_summary`; lora: its
    configuration, or None.
    """
    names = (
        "warmup_steps",
        "weight_decay",
        "eval_strategy",
        "eval_steps",
        "save_strategy",
        "save_steps",
        "logging_steps",
    )
    batch = config.per_device_train_batch_size * config.gradient_accumulation_steps * config.world_size
    steps = config.max_steps if config.max_steps > 0 else math.ceil(math.ceil(rows / batch) * config.num_train_epochs)
    adapted = lora and (lora.target_modules if isinstance(lora.target_modules, str) else sorted(lora.target_modules))
    return {
        "model_name_or_path": args.model_name_or_path,
        "max_length": renderer.max_length,
        "overlong": renderer.overlong,
        "val_set_size": args.val_set_size,
        **config_summary(config, {**dict.fromkeys(names), **given}),
        "optimizer_steps": steps,
        "lora": lora
        and {"r": lora.r, "alpha": lora.lora_alpha, "dropout": lora.lora_dropout, "target_modules": adapted},
    }


def lora_from_arguments(args: Any, task_type: str, head: str | None, dropout: float = 0.05) -> Any:
    """The LoRA configuration that the flags describe, or None without --use_peft. dropout: unless given by its flag."""
    if not args.use_peft:
        return None
    targets = args.lora_target_modules or ["all-linear"]
    return lora_config(
        head,
        task_type=task_type,
        r=args.lora_r or 16,
        alpha=args.lora_alpha or 32,
        dropout=dropout if args.lora_dropout is None else args.lora_dropout,
        target_modules=targets[0] if targets == ["all-linear"] else targets,
    )


def lora_config(
    head: str | None, *, r: int, alpha: int, dropout: float, target_modules: str | list[str], task_type: str = "SEQ_CLS"
) -> Any:
    """A LoRA configuration that trains and saves the head. Without it the head would stay random, and be lost on saving.

    head: None for a model that has no new one, such as a policy.
    """
    from peft import LoraConfig

    return LoraConfig(
        task_type=task_type,
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=target_modules,
        modules_to_save=[head] if head else None,
    )


# ---- the run ------------------------------------------------------------------------------------------------------


def without_dropout(model: torch.nn.Module) -> torch.nn.Module:
    """The model with every dropout set to 0, for good."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):  # used as a number, without a layer
            module.attention_dropout = 0.0
    return model


def settle_refused(refused: list[tuple[int, DataError]], total: int, lost: str, drop: bool) -> None:
    """What becomes of conversations that could not be rendered, of `total`: one DataError, or with `drop` a warning. lost: how
    many rows are gone with them, in words."""
    error = refused_together(sorted(refused, key=lambda fault: fault[0]), total)
    if not drop:
        hint = f"leave such rows out with --audit drop, or fix them: {error.hint}"
        raise DataError(error.message, where=error.where, hint=hint)
    warn(f"left out {lost}: {error.message}")


def check_finite(loss: torch.Tensor, model: Any, state: Any) -> None:
    """Raises RunError in training when the loss is no number.

    At every step: transformers logs the mean of the losses before instead of one that is no number.
    """
    if model.training and not torch.isfinite(loss):
        raise RunError(
            f"the loss became {loss.item()} at step {state.global_step + 1}",
            hint="lower --learning_rate, or continue from the last checkpoint with --resume_from_checkpoint",
        )


def run(
    trainer: Any,
    resume: str | None,
    within: contextlib.AbstractContextManager | None = None,
    *,
    scalar_head: bool = True,
) -> tuple[Any, dict[str, Any]]:
    """Train inside the block `within`. Returns the model in memory (a PEFT model where one is trained) and a summary.

    Raises RunError for a checkpoint that cannot be read.
    scalar_head: whether the model scores, and its head is to stay in fp32 under autocast; a policy has none.
    """
    from ..checkpoints import keep_head_in_float32

    arguments = trainer.args
    progress = ProgressLog.install(trainer)
    trainer.add_callback(Sealing())
    if scalar_head and (arguments.bf16 or arguments.fp16):
        keep_head_in_float32(trainer.model)
    try:
        with within or contextlib.nullcontext():
            result = trainer.train(resume_from_checkpoint=resume)
    except BaseException as error:  # Ctrl-C and a full disk included: what was being written then is of no use
        if arguments.process_index == 0:
            discard_checkpoints(arguments.output_dir, only_incomplete=True)
        if resume and not progress.began:
            resuming.explain_unreadable(error, resume)
        raise
    names = (
        "learning_rate",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "num_train_epochs",
        "bf16",
        "fp16",
        "seed",
        "world_size",
    )
    summary = {
        "train_loss": result.training_loss,
        "steps": result.global_step,
        "seconds": result.metrics.get("train_runtime"),
        "log": [entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry],
        **{name: getattr(arguments, name) for name in names},
    }
    return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False), summary


# ---- the end ------------------------------------------------------------------------------------------------------


def conclude(
    args: Any, model: Any, renderer: Any, training: dict[str, Any], *, loss: dict[str, Any], reward: dict, **found: Any
) -> dict[str, Any]:
    """Save and verify a trained reward model; the keys of a script's result that tell of it, `found` among them.

    training: the summary that `run` gave, with head and counts. loss: settings of the loss, for the model's card.
    Raises RunError when the saved model does not score as the one in memory.
    """
    from ..checkpoints import save

    training = {**training, "base_model": args.model_name_or_path, "dataset": args.dataset_name, "loss": loss}
    card = save(model, renderer, args.output_dir, training=training, reward=reward)
    log(
        f"saved and verified: {args.output_dir} (golden scores differ by {card['reload_difference']:.1e} after reloading)"
    )
    training.pop("log")
    told = {name: card[name] for name in ("fingerprint", "reload_difference")}
    return {"training": training, "reward": reward, **found, **told}


# ---- progress ---------------------------------------------------------------------------------------------------------


SHOWN_BESIDE_BAR = ("loss", "accuracy", "eval_accuracy")
SHOWN = (
    *("loss", "eval_loss", "accuracy", "eval_accuracy", "margin", "eval_margin"),
    *("reward", "kl", "entropy", "completions/mean_length"),
    "learning_rate",
)


class Sealing(TrainerCallback):
    """Each checkpoint is sealed when all processes have written their part of it."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        from accelerate import PartialState

        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            resuming.seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class ProgressLog(TrainerCallback):
    """A bar on a terminal, elsewhere a quiet line each time the trainer logs: transformers' own prints dictionaries."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.task: Any = None
        self.last_line = -QUIET_SECONDS
        self.began = False  # a step, after all of a checkpoint was read

    @classmethod
    def install(cls, trainer: Any) -> ProgressLog:
        for other in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(other)
        made = cls()
        trainer.add_callback(made)
        return made

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.began = True

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not (state.is_world_process_zero and console().is_terminal):
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        self.bar = Progress(*columns, console=console())
        self.task = self.bar.add_task("", total=state.max_steps, completed=state.global_step)
        self.bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar:
            self.bar.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs:
            return
        names = SHOWN_BESIDE_BAR if self.bar else SHOWN
        shown = "  ".join(f"{name} {float(logs[name]):.4g}" for name in names if name in logs)
        if self.bar:
            self.bar.update(self.task, description=shown)
        elif shown and ("eval_loss" in logs or self._is_due(args, state)):
            self.last_line = time.monotonic()
            log(f"step {state.global_step}/{state.max_steps}  {shown}")

    def _is_due(self, args: Any, state: Any) -> bool:
        """Where every step is logged, for a file, a line each few seconds is enough to read."""
        waited = time.monotonic() - self.last_line
        return args.logging_steps != 1 or waited >= QUIET_SECONDS or state.global_step == state.max_steps

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None


# ---- reinforcement learning ---------------------------------------------------------------------------------------


class RunLog:
    """A file with one JSON object a step, and its entries. A resumed run keeps those up to its checkpoint."""

    def __init__(self, file: Path):
        self.file, self.entries, self.write = file, [], False

    def start(self, done: int, *, write: bool) -> None:
        """Begin after step `done`. write: whether this process is the one that writes."""
        self.write = write
        if done and self.file.exists():
            for line in self.file.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError):  # of a killed run the last line may be half-written
                    self.entries.append(json.loads(line))
            self.entries = [entry for entry in self.entries if entry["step"] <= done]
        if write:
            write_whole(self.file, map(to_json, self.entries))

    def add(self, entry: dict[str, Any]) -> None:
        self.entries.append(entry)
        if self.write:
            with open(self.file, "a", encoding="utf-8") as file:
                file.write(to_json(entry) + "\n")


def best_of_for(kl: float) -> float:
    """The n whose best-of-n lies this many nats from its samples: log n - (n - 1)/n = kl, for large n."""
    return math.exp(min(kl + 1, 700.0))


def concerns(beginning: dict[str, float], end: dict[str, float], warn_kl: float) -> list[str]:
    """One sentence for each sign that the reward was gamed, from the numbers of a run's beginning and end.

    The policy's own reward cannot tell: it rises while answers get worse (Gao et al. 2022, arXiv:2210.10760).
    """
    found = []
    if end["kl"] > warn_kl:
        found.append(
            f"the policy is {end['kl']:.1f} nats from the reference, as far as the best of {best_of_for(end['kl']):.0g} "
            f"samples, and its reward went from {beginning['reward']:.2f} to {end['reward']:.2f}: the reward is probably "
            "over-optimised. Judge the policy by something else than this reward, raise --kl_coef, or set --max_kl"
        )
    if end["eos_rate"] < 0.9 * beginning["eos_rate"] or end["eos_rate"] < 0.5:
        found.append(
            f"only {end['eos_rate']:.0%} of the answers end by themselves: raise --response_length or --missing_eos_penalty"
        )
    if end["length"] > 2 * beginning["length"]:
        found.append(
            f"answers grew from {beginning['length']:.0f} to {end['length']:.0f} tokens: is the reward one for length?"
        )
    return found


def start_and_end(history: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """The named numbers of a run's log: `beginning`, its first entry, whose answers the untrained policy wrote, and `end`,
    means over its last tenth.
    """
    parts = {"beginning": history[:1], "end": history[-max(1, len(history) // 10) :]}
    return {
        end: {name: sum(entry[name] for entry in part) / len(part) for name in names if part and name in part[0]}
        for end, part in parts.items()
    }


def draw_run(file: Path, history: Sequence[Mapping[str, float]], panels: Mapping[str, Sequence[str]]) -> None:
    """The run as an SVG file, by step. panels: title -> the names of the numbers drawn together.

    Without matplotlib there is a warning and no file: the run, which is saved by then, is worth more than its picture.
    """
    from ..evaluation.plots import Panel, Series, svg

    def series(name: str) -> Series:
        return Series(name, [(entry["step"], entry[name]) for entry in history if name in entry])

    try:
        picture = svg([Panel(title, "step", names[0], list(map(series, names))) for title, names in panels.items()])
    except ImportError as error:
        return warn(f"the run is not drawn: {error}")
    write_whole(file, [picture])
    log(f"the run is drawn in {file}")
