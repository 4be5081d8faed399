"""Packed batches in training: one flat row of unique tokens in place of a padded batch, with the same losses."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from transformers import Trainer

from ..attention import packed_inputs, shared_prefix
from ..gpu_speed import Gain, saved_in_training
from ..guard import reason_against, speed_decides
from ..heads import head_name, scored_at, unwrapped
from ..hf import Model
from ..packing import pack_together
from ..terminal import log

TrainingRow = Mapping[str, list]
Flat = Callable[[list[TrainingRow]], tuple[list[list[int]], Tensor, dict[str, Tensor]]]
"""Rows -> the S sequences of all, the positions [S] or [S, K] in each whose logits the loss reads, and what else it takes."""


class PackedCollator:
  """`ends`, where the positions of `Flat` lie in the flat row, the inputs of a model, and what else the loss takes.

  `share` is off while dropout is on: a token that two sequences share would draw one mask for both.
  """

  def __init__(self, flat: Flat, share: bool, model: Model):
    self.flat, self.share, self.config, self.device = flat, share, model.config, next(model.parameters()).device

  def __call__(self, rows: list[TrainingRow]) -> dict[str, object]:
    sequences, wanted, rest = self.flat(rows)
    row = pack_together(sequences, share=self.share)
    ends = torch.empty_like(wanted)
    for number, places in zip(row.sequences, row.places, strict=True):
      ends[number] = torch.tensor(places)[wanted[number]]
    # `ends` first: transformers takes a batch's size from it.
    return {"ends": ends, **packed_inputs(row, self.device, self.config), **rest}


def _slower(trainer: Trainer, share: bool) -> str | None:
  """Why packed rows would not be faster on a GPU."""
  args, data = trainer.args, trainer.train_dataset
  batch = args.per_device_train_batch_size
  batches = args.num_train_epochs * len(data) / (batch * args.world_size)
  if args.max_steps > 0:
    batches = args.max_steps * args.gradient_accumulation_steps
  hidden = trainer.model.config.get_text_config().hidden_size
  rows = [trainer.data_collator.flat([data[i]])[0] for i in range(min(len(data), 32 * batch))]
  saved = saved_in_training(hidden, rows, batch, batches, share)
  return Gain().reason_against(saved, args.bf16 or args.fp16)


def drops_attention(module: torch.nn.Module) -> bool:
  """By a number that it uses, without a layer of dropout."""
  rate = getattr(module, "attention_dropout", None)
  return isinstance(rate, float) and rate > 0


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
  if reason is None and speed_decides(base, wanted):
    reason = _slower(trainer, share) or reason_against(base, True)
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
    with shared_prefix(base):
      yield None
  finally:
    trainer.data_collator = collator
    for hook in hooks:
      hook.remove()
