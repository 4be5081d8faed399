"""The trainers of outcome reward models: padded or packed batches, and TRL's RewardTrainer on them."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import Trainer
from transformers.utils import ModelOutput
from trl import RewardConfig, RewardTrainer

from ..attention import Layout, by_blocks, filled
from ..attention import shared_prefix as sharing
from ..attributes import Attributes
from ..gpu_speed import Gain, saved_in_training
from ..heads import unwrapped
from ..packing import pack_together, right_padded
from ..terminal import log
from . import loop
from .objectives import OBJECTIVES, bradley_terry, centering, of_ratings

__all__ = ["bradley_terry", "centering"]

if TYPE_CHECKING:
  from peft import PeftConfig

Count = Tensor | int | None
PAIR_FIELDS = {"chosen": torch.long, "rejected": torch.long, "margin": torch.float32, "weight": torch.float32}
TARGETS = "targets"


def flattened(rows: list[dict[str, list]]) -> tuple[list[list[int]], dict[str, Tensor]]:
  """(the S sequences of all rows; for each of P pairs the places of its sides among them, its margin, weight and `stage` (`plackett_luce`)).

  Of rated answers, `targets` [S, attributes], NaN where a rating is missing.

  Weights are scaled by P / rows: in the mean over pairs, a ranking counts as one prompt.
  """
  sequences: list[list[int]] = []
  if TARGETS in rows[0]:
    sequences = [ids for row in rows for ids in row["sequences"]]
    given = [[math.nan if one is None else one for one in own] for row in rows for own in row[TARGETS]]
    return sequences, {TARGETS: torch.tensor(given), "tokens": torch.tensor(sum(map(len, sequences)))}
  pairs: dict[str, list] = {name: [] for name in PAIR_FIELDS}
  stages: list[float] = []
  for row in rows:
    for side in ("chosen", "rejected"):
      pairs[side] += [len(sequences) + place for place in row[side]]
    sequences += row["sequences"]
    pairs["margin"] += row["margin"]
    pairs["weight"] += row["weight"]
    same = Counter(row["chosen"])
    stages += [sum(row["weight"]) / len(same) / same[one] for one in row["chosen"]]
  tensors = {name: torch.tensor(pairs[name], dtype=dtype) for name, dtype in PAIR_FIELDS.items()}
  tensors["stage"] = torch.tensor(stages)
  for name in ("weight", "stage"):
    tensors[name] = tensors[name] * len(stages) / len(rows)
  return sequences, {**tensors, "tokens": torch.tensor(sum(map(len, sequences)))}


class PaddedCollator:
  """One right-padded batch: `input_ids`, `attention_mask` [S, T] and what `flattened` gives."""

  def __init__(self, pad_token_id: int):
    self.pad_token_id = pad_token_id

  def __call__(self, rows: list[dict[str, list]]) -> dict[str, Tensor]:
    sequences, pairs = flattened(rows)
    ids, mask = right_padded(sequences, self.pad_token_id)
    return {"input_ids": ids, "attention_mask": mask, **pairs}


class OutcomeTrainer(RewardTrainer):
  """TRL's RewardTrainer on rendered rows. Overridden, each for a reason that a test holds it to:

  - `_prepare_dataset`: the rows are rendered already, by the project's own contract, and none is dropped in silence.
  - `_set_signature_columns_if_needed`: the rows carry weights and rankings of any length.
  - `compute_loss`: OBJECTIVES, weights, rankings; metrics are means over pairs, not over batches, ties count half.
  """

  def __init__(self, *args: object, label_smoothing: float = 0.0, objective: str = "bradley_terry", **kwargs: object):
    super().__init__(*args, **kwargs)
    self.label_smoothing, self.objective = label_smoothing, objective

  def _prepare_dataset(
    self, dataset: Dataset, processing_class: object, args: RewardConfig, dataset_name: str
  ) -> Dataset:
    return dataset

  def _set_signature_columns_if_needed(self) -> None:
    self._signature_columns = ["sequences", *PAIR_FIELDS]

  def compute_loss(
    self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Count = None
  ):
    pairs = {name: inputs.pop(name) for name in (*PAIR_FIELDS, "stage")}
    tokens = inputs.pop("tokens")
    outputs = model(**inputs, use_cache=False)
    rewards = outputs.logits.squeeze(-1).float()
    chosen, rejected = rewards[pairs["chosen"]], rewards[pairs["rejected"]]
    loss = OBJECTIVES[self.objective].loss(rewards, pairs, self.label_smoothing)
    if self.args.center_rewards_coefficient is not None:
      loss = loss + self.args.center_rewards_coefficient * centering(chosen, rejected, pairs["weight"])
    loop.check_finite(loss, model, self.state)
    self._collect_metrics(rewards.detach(), (chosen - rejected).detach(), tokens)
    return (loss, outputs) if return_outputs else loss

  def _collect_metrics(self, rewards: Tensor, difference: Tensor, tokens: Tensor) -> None:
    """TRL's `log` averages the lists, so its means are over pairs."""
    mode = "train" if self.model.training else "eval"
    metrics = self._metrics[mode]
    if mode == "train":  # every token of every sequence, shared or not, as TRL counts
      self._total_train_tokens += self.accelerator.gather(tokens).sum().item()
    metrics["num_tokens"] = [self._total_train_tokens]
    difference, rewards = self._gather_ragged(difference), self._gather_ragged(rewards)
    difference, rewards = torch.cat([difference, rewards]).cpu().split([len(difference), len(rewards)])
    metrics["accuracy"] += ((difference > 0).float() + 0.5 * (difference == 0).float()).tolist()
    metrics["margin"] += difference.tolist()
    metrics["mean_reward"] += rewards.tolist()
    metrics["min_reward"] = [min([*metrics["min_reward"], rewards.min().item()])]
    metrics["max_reward"] = [max([*metrics["max_reward"], rewards.max().item()])]

  def _gather_ragged(self, values: Tensor) -> Tensor:
    if self.accelerator.num_processes == 1:
      return values
    gathered = self.accelerator.gather(self.accelerator.pad_across_processes(values, pad_index=float("nan")))
    return gathered[~gathered.isnan()]


class RatingTrainer(Trainer):
  """transformers' Trainer with a loss of ratings: TRL's takes models with one label only. Arguments as of `OutcomeTrainer`."""

  def __init__(
    self,
    model: nn.Module,
    *,
    objective: str,
    heads: Attributes,
    peft_config: PeftConfig | None = None,
    label_smoothing: float = 0.0,
    **kwargs: object,
  ):
    if peft_config is not None:
      from peft import get_peft_model

      model = get_peft_model(model, peft_config)
    super().__init__(loop.without_dropout(model) if kwargs["args"].disable_dropout else model, **kwargs)
    self.objective, self.heads = objective, heads
    self.label_names, self.model_accepts_loss_kwargs = [TARGETS], False

  def compute_loss(
    self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Count = None
  ):
    own = {name: value for name, value in inputs.items() if name not in (TARGETS, "tokens")}
    outputs = model(**own, use_cache=False)
    loss = of_ratings(self.objective, outputs.logits.float(), inputs[TARGETS], self.heads)
    loop.check_finite(loss, model, self.state)
    return (loss, outputs) if return_outputs else loss


class PackedCollator:
  """One flat row of unique tokens: `input_ids`, `position_ids` [1, T], the `layout` that attention follows, `ends`
  [S], where each sequence's last token lies, and what `flattened` gives.

  `share` is off while dropout is on: a token that two sequences share would draw one mask for both.
  """

  def __init__(self, share: bool, model: nn.Module):
    self.share, self.device = share, next(model.parameters()).device
    self.config = model.config if by_blocks(self.device) else None

  def __call__(self, rows: list[dict[str, list]]) -> dict[str, Any]:
    sequences, pairs = flattened(rows)
    row = pack_together(sequences, share=self.share)
    ends = torch.empty(len(sequences), dtype=torch.long)
    ends[row.sequences] = torch.tensor(row.ends)
    # `ends` first: transformers takes a batch's size from it.
    batch = {"ends": ends, **dict(zip(("input_ids", "position_ids"), filled(row, self.device), strict=True))}
    return {**batch, "layout": Layout(row, self.config), **pairs}


def _slower(trainer: Trainer, share: bool) -> str | None:
  """Why packed rows would not be faster on a GPU."""
  args, data = trainer.args, trainer.train_dataset
  batch = args.per_device_train_batch_size
  batches = args.num_train_epochs * len(data) / (batch * args.world_size)
  if args.max_steps > 0:
    batches = args.max_steps * args.gradient_accumulation_steps
  hidden = trainer.model.config.get_text_config().hidden_size
  saved = saved_in_training(hidden, data[: 32 * batch]["sequences"], batch, batches, share)
  return Gain().reason_against(saved, args.bf16 or args.fp16)


@contextlib.contextmanager
def packed_batches(trainer: Trainer, wanted: bool | None = None) -> Iterator[str | None]:
  """Let a trainer run on packed batches inside the block, where its model allows it. Yields why not, or None."""
  from ..guard import reason_against, speed_decides

  base = unwrapped(trainer.model)
  share = not any(isinstance(part, nn.Dropout) and part.p > 0 for part in trainer.model.modules())
  reason = reason_against(base, wanted)
  if reason is None and speed_decides(base, wanted):
    reason = _slower(trainer, share) or reason_against(base, True)
  if reason:
    log(f"batches are padded, since {reason}")
    yield reason
    return
  log(
    "prompts are computed once for both sides"
    if share
    else "batches are packed without padding; dropout forbids sharing"
  )
  kept: dict[str, Tensor] = {}

  def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    kept["scores"] = output

  def at_ends(module: nn.Module, inputs: tuple, named: dict[str, Tensor], output: ModelOutput) -> ModelOutput:
    output["logits"] = kept.pop("scores")[0, named["ends"]]
    return output

  collator, trainer.data_collator = trainer.data_collator, PackedCollator(share, base)
  hooks = [base.score.register_forward_hook(keep), base.register_forward_hook(at_ends, with_kwargs=True)]
  try:
    with sharing(base):
      yield None
  finally:
    trainer.data_collator = collator
    for hook in hooks:
      hook.remove()
