"""Token ids -> logits: the one place of the project that calls a reward model for a score."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice, pairwise

import torch

from .attention import at_least_fp32, outputs_at, sent, shared_prefix
from .heads import head_name, unwrapped
from .hf import Model
from .packing import TokenRow, pack, padded_batches, place_at, right_padded

PADDED_TOKENS = 8192
"""In a padded batch. On a GPU twice as many, in a packed row too."""


@torch.inference_mode()
def logits_at(
  model: Model, rows: Sequence[TokenRow], *, padded: bool, pad_token_id: int, max_tokens: int | None = None
) -> Iterator[tuple[list[int], torch.Tensor]]:
  """(numbers of rows, [all their positions, labels] logits in fp32 or float64) of batch after batch.

  padded: do not share prefixes (`guard.reason_against`). A model that pools has one position a row, whichever.
  """
  cpu = model.device.type == "cpu"
  if not max_tokens and (padded or not cpu):  # else `pack` chooses
    max_tokens = PADDED_TOKENS if cpu else 2 * PADDED_TOKENS
  batches = (_in_batches if padded else _in_rows)(model, rows, pad_token_id, max_tokens)
  # The next is laid out while a GPU computes.
  for (numbers, logits), _ in pairwise(chain(batches, [None])):
    yield numbers, at_least_fp32(logits)


def scores_of(logits: torch.Tensor) -> torch.Tensor:
  """[n] of [n, labels] logits: rewards of one label, log p / (1 - p) of the second of two."""
  return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]


@torch.inference_mode()
def values_of(model: Model, logits: torch.Tensor, counts: Sequence[int]) -> list[list[float]]:
  """A score a position, or of a public model the reward and attributes."""
  combine = getattr(getattr(model, "score", None), "combine", None)
  if combine:
    return combine(logits.unflatten(0, (len(counts), -1))).tolist()
  scores = iter(scores_of(logits).tolist())
  return [list(islice(scores, count)) for count in counts]


def _in_rows(model: Model, rows: Sequence[TokenRow], pad_token_id: int, max_tokens: int | None) -> Iterator:
  base = unwrapped(model)
  head = getattr(base, head_name(base))
  with shared_prefix(base):
    for packed in pack([ids for ids, _ in rows], max_tokens):
      own = zip(packed.runs, packed.sequences, strict=True)
      places = [place_at(runs, position) for runs, number in own for position in rows[number][1]]
      yield packed.sequences, outputs_at(base, head, packed, places)


def _in_batches(model: Model, rows: Sequence[TokenRow], pad_token_id: int, max_tokens: int) -> Iterator:
  keys = [(tuple(ids), tuple(positions)) for ids, positions in rows]
  for batch in padded_batches(keys, [ids for ids, _ in rows], max_tokens):
    distinct = [rows[equal[0]] for equal in batch]
    own = padded_logits(model, distinct, pad_token_id).split([len(positions) for _, positions in distinct])
    copies = [part for part, equal in zip(own, batch, strict=True) for _ in equal]
    yield list(chain(*batch)), torch.cat(copies)


def padded_logits(model: Model, rows: Sequence[TokenRow], pad_token_id: int) -> torch.Tensor:
  """[positions of all rows, labels] logits of one right-padded batch."""
  device = next(model.parameters()).device
  places = [(i, place) for i, (_, positions) in enumerate(rows) for place in positions]
  tensors = [
    *right_padded([ids for ids, _ in rows], pad_token_id),
    torch.tensor(places, dtype=torch.long).view(-1, 2),
  ]
  ids, mask, places = sent(tensors, device)
  logits = model(input_ids=ids, attention_mask=mask).logits
  return logits if logits.dim() == 2 else logits[places[:, 0], places[:, 1]]
