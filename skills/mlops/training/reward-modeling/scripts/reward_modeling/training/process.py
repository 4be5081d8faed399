"""The trainer of process reward models: the loss of labeled steps, its batches, and transformers' Trainer on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import EvalPrediction, Trainer

from ..attention import at_least_fp32
from ..errors import DataError
from ..packing import right_padded

IGNORED = -100.0
"""The label of a token at which no step is scored."""


def step_loss(
  logits: Tensor, labels: Tensor, *, weights: tuple[float, float] = (1.0, 1.0), count: Tensor | int | None = None
) -> Tensor:
  """Cross-entropy of a step's label with the softmax of its two logits: mean over labeled tokens, in fp32. Returns [].

  logits: [S, T, 2] (of packed rows [S, K, 2]), label 1 is "correct". labels: [S, T], the probability that the step is correct, IGNORED elsewhere.
  weights: of an incorrect and of a correct step. count: what the sum is divided by (the labeled tokens here).
  arXiv:2312.08935; for probabilities estimated by rollouts its soft form, y log p + (1 - y) log (1 - p).

  >>> step_loss(torch.tensor([[[0.0, 2.0], [0.0, 0.0]]]), torch.tensor([[1.0, IGNORED]]))
  tensor(0.1269)
  """
  labeled = labels != IGNORED
  target = labels[labeled]
  log_p = F.log_softmax(at_least_fp32(logits[labeled]), dim=-1)
  losses = -(weights[0] * (1 - target) * log_p[:, 0] + weights[1] * target * log_p[:, 1])
  return losses.sum() / (labeled.sum() if count is None else count)


@dataclass
class StepCollator:
  """Right-padded batches: `input_ids`, `attention_mask` [S, T] and float `labels` [S, T], IGNORED at all other tokens."""

  pad_token_id: int

  @staticmethod
  def flat(rows: list[dict[str, list]]) -> tuple[list[list[int]], Tensor, dict[str, Tensor]]:
    """With `labels` [S, K], IGNORED after those of a row."""
    positions = pad_sequence([torch.tensor(row["positions"]) for row in rows], batch_first=True)
    labels = [torch.tensor(row["labels"], dtype=torch.float32) for row in rows]
    labels = pad_sequence(labels, batch_first=True, padding_value=IGNORED)
    return [row["input_ids"] for row in rows], positions, {"labels": labels}

  def __call__(self, rows: list[dict[str, list]]) -> dict[str, Tensor]:
    ids, mask = right_padded([row["input_ids"] for row in rows], self.pad_token_id)
    labels = torch.full(ids.shape, IGNORED)
    for i, row in enumerate(rows):
      labels[i, row["positions"]] = torch.tensor(row["labels"], dtype=torch.float32)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class ProcessTrainer(Trainer):
  """transformers' Trainer with `step_loss`."""

  def __init__(self, *, weights: tuple[float, float] = (1.0, 1.0), **kwargs: Any):
    def loss(outputs: dict[str, Tensor], labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
      return step_loss(outputs["logits"], labels, weights=weights, count=num_items_in_batch)

    super().__init__(
      compute_loss_func=loss,
      compute_metrics=step_metrics,
      preprocess_logits_for_metrics=lambda logits, labels: logits.float().softmax(-1)[..., 1],
      **kwargs,
    )


def step_metrics(prediction: EvalPrediction) -> dict[str, float]:
  labeled = prediction.label_ids != IGNORED
  correct = prediction.label_ids[labeled] >= 0.5
  called = prediction.predictions[labeled] >= 0.5
  return {"accuracy": float((called == correct).mean()), "all_correct": float(correct.mean())}


def class_weights(labels: Sequence[Sequence[float]], weighting: str) -> tuple[float, float]:
  """Weights of an incorrect and of a correct step. `balanced`: both classes weigh half of all steps together; soft labels
  count for both by their share. Raises DataError when a class does not occur.
  """
  if weighting == "none":
    return 1.0, 1.0
  total = sum(map(len, labels))
  correct = sum(map(sum, labels))
  if not 0 < correct < total:
    what = f"all {total} labeled steps are {'correct' if correct else 'incorrect'}: there is nothing to balance"
    raise DataError(what, hint="leave out --class_weighting, or give data with both")
  return total / (2 * (total - correct)), total / (2 * correct)
