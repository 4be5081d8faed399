"""The trainers of outcome reward models: their batches, and TRL's RewardTrainer on them."""

import math
from collections import Counter
from dataclasses import dataclass

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import Trainer
from trl import RewardConfig, RewardTrainer

from ..attributes import Attributes
from ..packing import right_padded
from .objectives import OBJECTIVES, centering, of_ratings

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


@dataclass
class PaddedCollator:
  """One right-padded batch: `input_ids`, `attention_mask` [S, T] and what `flattened` gives."""

  pad_token_id: int

  @staticmethod
  def flat(rows: list[dict[str, list]]) -> tuple[list[list[int]], Tensor, dict[str, Tensor]]:
    sequences, pairs = flattened(rows)
    return sequences, torch.full((len(sequences),), -1), pairs

  def __call__(self, rows: list[dict[str, list]]) -> dict[str, Tensor]:
    sequences, pairs = flattened(rows)
    ids, mask = right_padded(sequences, self.pad_token_id)
    return {"input_ids": ids, "attention_mask": mask, **pairs}


class OutcomeTrainer(RewardTrainer):
  """TRL's RewardTrainer on rendered rows. Overridden, each for a reason that a test holds it to:

  - `_prepare_dataset`: the rows are rendered already, by the project's own contract, and none is dropped in silence.
  - `_set_signature_columns_if_needed`: the rows carry weights and rankings of any length.
  - `compute_loss`, `log`: OBJECTIVES, weights, rankings; metrics are means over pairs, not over batches, ties count half.
  """

  def __init__(self, *args: object, label_smoothing: float = 0.0, objective: str = "bradley_terry", **kwargs: object):
    super().__init__(*args, **kwargs)
    self.label_smoothing, self.objective = label_smoothing, objective
    self._not_logged: list[tuple[str, Tensor, Tensor, Tensor]] = []

  def _prepare_dataset(
    self, dataset: Dataset, processing_class: object, args: RewardConfig, dataset_name: str
  ) -> Dataset:
    return dataset

  def _set_signature_columns_if_needed(self) -> None:
    self._signature_columns = ["sequences", *PAIR_FIELDS]

  def compute_loss(
    self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: object = None
  ):
    pairs = {name: inputs.pop(name) for name in (*PAIR_FIELDS, "stage")}
    tokens = inputs.pop("tokens")
    outputs = model(**inputs, use_cache=False)
    rewards = outputs.logits.squeeze(-1).float()
    chosen, rejected = rewards[pairs["chosen"]], rewards[pairs["rejected"]]
    loss = OBJECTIVES[self.objective].loss(rewards, pairs, self.label_smoothing)
    if self.args.center_rewards_coefficient is not None:
      loss = loss + self.args.center_rewards_coefficient * centering(chosen, rejected, pairs["weight"])
    self._collect_metrics(rewards.detach(), (chosen - rejected).detach(), tokens)
    return (loss, outputs) if return_outputs else loss

  def _collect_metrics(self, rewards: Tensor, difference: Tensor, tokens: Tensor) -> None:
    """They stay where they are until `log`: no step waits for a GPU."""
    self._not_logged.append(("train" if self.model.training else "eval", rewards, difference, tokens))

  def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
    """TRL's averages the lists, so its means are over pairs."""
    for mode, rewards, difference, tokens in self._not_logged:
      metrics = self._metrics[mode]
      if mode == "train":  # every token of every sequence, shared or not, as TRL counts
        self._total_train_tokens += self.accelerator.gather(tokens).sum().item()
      metrics["num_tokens"] = [self._total_train_tokens]
      difference, rewards = self._gather_ragged(difference).cpu(), self._gather_ragged(rewards).cpu()
      metrics["accuracy"] += ((difference > 0).float() + 0.5 * (difference == 0).float()).tolist()
      metrics["margin"] += difference.tolist()
      metrics["mean_reward"] += rewards.tolist()
      metrics["min_reward"] = [min([*metrics["min_reward"], rewards.min().item()])]
      metrics["max_reward"] = [max([*metrics["max_reward"], rewards.max().item()])]
    self._not_logged = []
    super().log(logs, start_time)

  def _gather_ragged(self, values: Tensor) -> Tensor:
    gathered = self.accelerator.gather(self.accelerator.pad_across_processes(values, pad_index=float("nan")))
    return gathered[~gathered.isnan()]


class RatingTrainer(Trainer):
  """transformers' Trainer with a loss of ratings: TRL's takes models with one label only."""

  def __init__(self, *, objective: str, heads: Attributes, **kwargs: object):
    super().__init__(**kwargs)
    self.objective, self.heads = objective, heads
    self.label_names, self.model_accepts_loss_kwargs = [TARGETS], False

  def compute_loss(
    self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: object = None
  ):
    own = {name: value for name, value in inputs.items() if name not in (TARGETS, "tokens")}
    outputs = model(**own, use_cache=False)
    loss = of_ratings(self.objective, outputs.logits.float(), inputs[TARGETS], self.heads)
    return (loss, outputs) if return_outputs else loss
