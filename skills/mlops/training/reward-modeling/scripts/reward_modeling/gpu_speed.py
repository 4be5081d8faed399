"""Whether packed rows are faster than padded batches on a GPU, by what was measured on one."""

from collections.abc import Sequence

from .packing import unique_tokens

Speed = tuple[float, float, float, float]
"""Seconds a padded token, a packed (unique) one, and at least a batch of each, where the host sets the pace."""
SCORING: dict[int, Speed] = {896: (3.1e-6, 4.3e-6, 0, 0), 4096: (32e-6, 33e-6, 0, 0)}
TRAINING: dict[int, Speed] = {896: (9.2e-6, 12e-6, 0.09, 0.12)}
"""By the least hidden size: bf16 on an NVIDIA H200 (references/scaling.md). Scoring sorts, so tokens there are real ones."""
COMPILING = 7.0
"""Seconds before the first packed row."""


def seconds_saved(speeds: dict[int, Speed], hidden: int, padded: int, packed: int, batches: int = 1) -> float | None:
  """By computing `packed` tokens instead of `padded` ones; None where no model so small was measured."""
  measured = [speed for size, speed in speeds.items() if size <= hidden]
  if not measured:
    return None
  slow, fast, slow_batch, fast_batch = measured[-1]
  return max(slow * padded, slow_batch * batches) - max(fast * packed, fast_batch * batches)


class Gain:
  """Asked call after call: kernels are compiled once they would have saved the time that takes."""

  seconds = 0.0

  def reason_against(self, saved: float | None, half: bool) -> str | None:
    """None where packed rows are faster. half: whether matrix products are in 16 bits."""
    if not half or saved is None:
      return f"{'a model so small' if half else 'float32'} was not measured on a GPU (try --shared_prefix true)"
    if saved <= 0:
      return "packed rows are not faster with so little shared"
    self.seconds += saved
    return "packed rows save less time than compiling takes" if self.seconds < COMPILING else None


def saved_in_training(
  hidden: int, rows: Sequence[Sequence[Sequence[int]]], per_batch: int, batches: float, share: bool
) -> float | None:
  """Seconds in so many batches like those of `rows`, each of sequences of token ids."""
  padded = packed = 0
  starts = range(0, len(rows), per_batch)
  for start in starts:
    sequences = [sequence for row in rows[start : start + per_batch] for sequence in row]
    padded += len(sequences) * max(map(len, sequences))
    packed += unique_tokens(sequences) if share else sum(map(len, sequences))
  saved = seconds_saved(TRAINING, hidden, padded, packed, len(starts))
  return saved and saved * batches / len(starts)
