"""The loop of transformers' trainer, for every run that uses one."""

import contextlib
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback
from transformers.trainer_utils import rotate_checkpoints

from .. import quantized
from ..base_rendering import BaseRenderer
from ..errors import ModelError, RunError
from ..hf import Arguments, Dataset, LoraConfig
from ..output_folder import TRAINED_ON, discard_checkpoints, last_complete_checkpoint
from ..outputs import write_whole
from ..terminal import QUIET_SECONDS, check_interrupted, console, log, progress
from . import configuration, resuming, sharding
from .data import Rows
from .packed import drops_attention, packed_batches

SHOWN_VALUES = (
  *("loss", "eval_loss", "accuracy", "eval_accuracy", "margin", "eval_margin"),
  *("reward", "kl", "entropy", "completions/mean_length", "learning_rate"),
)
SUMMARIZED = (
  *("learning_rate", "gradient_accumulation_steps", "num_train_epochs"),
  *("bf16", "fp16", "seed", "world_size"),
)


def without_dropout(model: torch.nn.Module) -> torch.nn.Module:
  for module in model.modules():
    if isinstance(module, torch.nn.Dropout):
      module.p = 0.0
    if drops_attention(module):
      module.attention_dropout = 0.0
  return model


def not_finite(what: str, step: int) -> RunError:
  return RunError(
    f"{what} at step {step}",
    hint="lower --learning_rate, or continue from the last checkpoint with --resume_from_checkpoint",
  )


def fit(
  trainer_class: type[Trainer],
  model: torch.nn.Module,
  renderer: BaseRenderer,
  rows: Rows,
  arguments: Arguments,
  *,
  head: str,
  eval_rows: Rows | None = None,
  peft_config: LoraConfig | None = None,
  resume: str | None = None,
  loss: dict[str, object],
  shared_prefix: bool | None = None,
  trained_on: Iterable[str] = (),
  **own: object,
) -> tuple[torch.nn.Module, dict[str, Any]]:
  """Train a reward model. Returns what `run` returns.

  loss: settings that must be the same for a run to be resumed. shared_prefix: None where it is faster. own: of this trainer.
  Raises ModelError when it refuses the model, RunError for a NaN or infinite loss or a run that cannot be resumed.
  """
  identity = {name: getattr(arguments, name) for name in resuming.IDENTITY_FIELDS} | loss
  lora = peft_config and list(configuration.lora_summary(peft_config).values())
  identity |= {"lora": lora, "in_4bit": quantized.is_quantized(model)}
  identity = {name: str(value) for name, value in identity.items()}
  identity |= {"data_sha256": resuming.rows_digest(rows.dataset), "fingerprint": renderer.fingerprint, "head": head}
  resuming.start_run(Path(arguments.output_dir), arguments.process_index, identity, resume)
  sharding.shard_on_cpus_too(arguments)
  try:
    if quantized.is_quantized(model):
      model = quantized.with_adapter(model, peft_config)
      quantized.compute_in(model, torch.bfloat16 if arguments.bf16 else torch.float32)
    elif peft_config is not None:
      from peft import get_peft_model

      model = get_peft_model(model, peft_config)
    trainer = trainer_class(
      model=model,
      args=arguments,
      train_dataset=_with_lengths(rows.dataset, arguments),
      eval_dataset=eval_rows and _with_lengths(eval_rows.dataset, arguments),
      processing_class=renderer.tokenizer,
      **own,
    )
  except (ValueError, TypeError) as error:
    raise ModelError(f"the model cannot be trained: {error}") from error
  for name, module in trainer.model.named_modules():
    if peft_config and "lora_dropout" in name and isinstance(module, torch.nn.Dropout):
      module.p = peft_config.lora_dropout  # which TRL's trainer switches off with those of the model
  log(f"training: {rows.size} in {len(rows.dataset)} rows, {arguments.world_size} process(es)")
  plain = sharding.skeleton(trainer)
  if (arguments.bf16 or arguments.fp16) and head in ("new", "loaded"):
    from ..heads import keep_head_in_float32

    keep_head_in_float32(trainer.model)
  with packed_batches(trainer, shared_prefix) as why_padded:
    model, summary = run(trainer, resume, trained_on)
  summary["batches"] = f"padded, since {why_padded}" if why_padded else "packed"
  quantized.compute_in(model, torch.float32)
  return (sharding.gathered(trainer, plain) if plain is not None else model), summary


def _with_lengths(dataset: Dataset, arguments: Arguments) -> Dataset:
  """The tokens of each row, of which the trainer takes those of `input_ids` alone."""
  if arguments.train_sampling_strategy in ("random", "sequential") or "sequences" not in dataset.column_names:
    return dataset
  return dataset.add_column(arguments.length_column_name, configuration.tokens_of(dataset))


def run(trainer: Trainer, resume: str | None, trained_on: Iterable[str] = ()) -> tuple[torch.nn.Module, dict[str, Any]]:
  """Returns the model in memory (a PEFT model where one is trained) and a summary. trained_on: hashes, kept in checkpoints."""
  arguments, folder = trainer.args, Path(trainer.args.output_dir)
  for other in (PrinterCallback, ProgressCallback):
    trainer.remove_callback(other)
  watch, batches, step = Watch(trainer, trained_on), trainer.get_batch_samples, trainer.training_step
  trainer.add_callback(watch)
  trainer.get_batch_samples = lambda *more: ([], None) if watch.was_complete else batches(*more)

  def watched_step(*more: object) -> torch.Tensor:
    watch.losses.append((trainer.state.global_step + 1, loss := step(*more)))
    return loss

  trainer.training_step = watched_step
  if resume:
    log(f"continuing from {resume}")
  try:
    with watch.shown:
      result = trainer.train(resume_from_checkpoint=resume)
  except BaseException as error:  # Ctrl-C and a full disk included: what was being written then is of no use
    if arguments.process_index == 0:
      discard_checkpoints(folder, only_incomplete=True)
    if resume and not watch.began:
      resuming.explain_unreadable(error, Path(resume))
    if isinstance(error, KeyboardInterrupt):
      newest = last_complete_checkpoint(folder)
      log(
        f"{newest} is complete: the same command with --resume_from_checkpoint continues from it"
        if newest
        else "no checkpoint is complete yet: --save_steps says how often one is written"
      )
    raise
  if resume and arguments.process_index == 0:  # killed before an old one was deleted, and no step was left to do it
    rotate_checkpoints(arguments.output_dir, arguments.save_total_limit, trainer.state.best_model_checkpoint)
  summary = {
    "train_loss": result.training_loss,  # of a resumed run, of the steps since its checkpoint
    "steps": result.global_step,
    "seconds": result.metrics.get("train_runtime"),
    "log": [entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry],
    **{name: getattr(arguments, name) for name in SUMMARIZED},
    # Less than asked under --auto_find_batch_size; of the trainer, times the devices of DataParallel.
    "per_device_train_batch_size": trainer.state.train_batch_size // max(1, arguments.n_gpu),
  }
  return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False), summary


class Watch(TrainerCallback):
  """losses: (step, its loss on the device) of each batch since they were last checked."""

  def __init__(self, trainer: Trainer, trained_on: Iterable[str]):
    self.trainer = trainer  # whose state is another one once a checkpoint is read
    self.trained_on = trained_on
    self.losses: list[tuple[int, torch.Tensor]] = []
    self.shown = contextlib.ExitStack()  # of a terminal's bar
    self.advance: Callable[[int], None] = lambda done: None
    self.last_line = -QUIET_SECONDS
    self.began = False  # a step, after all of a checkpoint was read
    self.was_complete = False

  def on_epoch_begin(self, *_: object, **__: object) -> None:
    """A checkpoint of the last step, in mid-epoch: transformers would train one more before it looks."""
    state = self.trainer.state
    self.was_complete = self.trainer.control.should_training_stop = state.global_step >= state.max_steps

  def on_step_begin(self, *_: object, **__: object) -> None:
    check_interrupted()
    self.began = True

  def on_step_end(self, *_: object, **__: object) -> None:
    """Losses are checked before they are logged or anything is saved: at each step a GPU would be waited for."""
    control = self.trainer.control
    if control.should_log or control.should_evaluate or control.should_save or control.should_training_stop:
      self.check_losses()
    self.advance(1)

  def on_epoch_end(self, *_: object, **__: object) -> None:
    self.check_losses()

  def check_losses(self) -> None:
    checked, self.losses = self.losses, []
    values = torch.stack([loss for _, loss in checked]).tolist() if checked else []
    for (step, _), value in zip(checked, values, strict=True):
      if not math.isfinite(value):
        raise not_finite(f"the loss became {value}", step)

  def on_save(self, *_: object, **__: object) -> None:
    self.trainer.accelerator.wait_for_everyone()  # each process writes a part
    if self.trainer.is_world_process_zero():
      folder = Path(self.trainer.args.output_dir) / f"checkpoint-{self.trainer.state.global_step}"
      if self.trained_on:
        write_whole(folder / TRAINED_ON, self.trained_on)
      resuming.seal(folder)

  def on_train_begin(self, *_: object, **__: object) -> None:
    state = self.trainer.state
    if state.is_world_process_zero and console().is_terminal:
      self.advance = self.shown.enter_context(progress("training", state.max_steps))
      self.advance(state.global_step)

  def on_log(self, *_: object, logs: dict[str, float], **__: object) -> None:
    state = self.trainer.state
    if not state.is_world_process_zero:
      return
    shown = "  ".join(f"{name} {float(logs[name]):.4g}" for name in SHOWN_VALUES if name in logs)
    # Where every step is logged, for a file, a line each few seconds is enough to read.
    due = self.trainer.args.logging_steps != 1 or time.monotonic() - self.last_line >= QUIET_SECONDS
    if shown and (due or "eval_loss" in logs or state.global_step == state.max_steps):
      self.last_line = time.monotonic()
      log(f"step {state.global_step}/{state.max_steps}  {shown}")
