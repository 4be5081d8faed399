"""Packed batches in training: one flat row of unique tokens in place of a padded batch, with the same losses."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from transformers import Trainer

from ..attention import flashes, packed_inputs, shared_prefix
from ..gpu_speed import (
  CHECKPOINTED,
  COMPILING,
  TRAINING,
  Gain,
  Speed,
  compile_layers,
  restore_layers,
  speed_of,
  spent_in_training,
)
from ..guard import reason_against
from ..heads import head_name, scored_at, unwrapped
from ..hf import Model
from ..packing import pack_together, place_at
from ..terminal import log

TrainingRow = Mapping[str, list]
Flat = Callable[[list[TrainingRow]], tuple[list[list[int]], Tensor, dict[str, Tensor]]]
"""Rows -> the S sequences of all, the positions [S] or [S, K] in each whose logits the loss reads, and what else it takes."""


class PackedCollator:
  """`ends`, where the positions of `Flat` lie in the flat row, the inputs of a model, and what else the loss takes.

  `share` is off while dropout is on: a token that two sequences share would draw one mask for both.
  """

  def __init__(self, flat: Flat, share: bool, model: Model):
    self.flat, self.share, self.device = flat, share, next(model.parameters()).device

  def __call__(self, rows: list[TrainingRow]) -> dict[str, object]:
    sequences, wanted, rest = self.flat(rows)
    row = pack_together(sequences, share=self.share)
    runs = dict(zip(row.sequences, row.runs, strict=True))
    each = zip(sequences, wanted.view(len(sequences), -1).tolist(), strict=True)
    ends = [place_at(runs[i], one % len(ids)) for i, (ids, own) in enumerate(each) for one in own]  # -1 is the last
    ends = torch.tensor(ends).view_as(wanted)
    # `ends` first: transformers takes a batch's size from it.
    return {"ends": ends, **packed_inputs(row, self.device), **rest}


def _spent(trainer: Trainer, share: bool) -> Speed | None:
  """Seconds of this run on a GPU, in each way."""
  args, data = trainer.args, trainer.train_dataset
  batch = args.per_device_train_batch_size
  batches = args.num_train_epochs * len(data) / (batch * args.world_size)
  if args.max_steps > 0:
    batches = args.max_steps * args.gradient_accumulation_steps
  speed = speed_of(TRAINING, trainer.model.config.get_text_config().hidden_size)
  rows = [trainer.data_collator.flat([data[i]])[0] for i in range(min(len(data), 32 * batch))]
  return speed and spent_in_training(speed, rows, batch, batches, share)


def drops_attention(module: torch.nn.Module) -> bool:
  """By a number that it uses, without a layer of dropout."""
  rate = getattr(module, "attention_dropout", None)
  return isinstance(rate, float) and rate > 0


def _wrapped(trainer: Trainer) -> bool:
  """In what has its own hold on layers."""
  return trainer.args.torch_compile or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled


@contextlib.contextmanager
def packed_batches(trainer: Trainer, wanted: bool | None = None) -> Iterator[str | None]:
  """Let a trainer whose collator has a `flat` run on packed batches inside the block, where its model allows it.

  Yields why not, or None.
  """
  base = unwrapped(trainer.model)
  share = not any(isinstance(part, torch.nn.Dropout) and part.p > 0 for part in trainer.model.modules())
  language = base.get_output_embeddings() is not None  # whose logits its trainer reads itself, at `ends`
  reason = reason_against(base, wanted, "last_token" if language else scored_at(base))
  if any(map(drops_attention, trainer.model.modules())):
    reason = "attention dropout is on"
  if trainer.args.neftune_noise_alpha:
    reason = "--neftune_noise_alpha measures its noise by the length of a row"
  gain = Gain(CHECKPOINTED if trainer.args.gradient_checkpointing else COMPILING)
  if reason is None and flashes(base.device):
    slower = gain.reason_against(_spent(trainer, share), trainer.args.bf16 or trainer.args.fp16)
    if wanted is None:
      reason = slower or reason_against(base, True)
  if reason:
    log(f"batches are padded, since {reason}")
    yield reason
    return
  log("shared prefixes are computed once" if share else "rows are packed without padding; dropout forbids sharing")
  kept: list[Tensor] = []

  def at_ends(module: Model, inputs: tuple, named: dict[str, Tensor], output: dict[str, Tensor]) -> dict[str, Tensor]:
    output["logits"] = kept.pop()[0, named["ends"]]
    return output

  collator, trainer.data_collator = trainer.data_collator, PackedCollator(trainer.data_collator.flat, share, base)
  hooks = []
  if not language:
    head = getattr(base, head_name(base))
    hooks.append(head.register_forward_hook(lambda module, inputs, scores: kept.append(scores)))
    hooks.append(base.register_forward_hook(at_ends, with_kwargs=True))
  try:
    if gain.compiles and not _wrapped(trainer):
      compile_layers(base)
    with shared_prefix(base):
      yield None
  finally:
    restore_layers(base)
    trainer.data_collator = collator
    for hook in hooks:
      hook.remove()
