"""Rendered rows -> batches for one forward pass each, without computing a token twice.

In a flat row a shared prefix stands once: each sorted sequence adds a `Segment`, what it does not share with the one before it.
"""

import struct
import sys
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from .hf import Tensor

TokenRow = tuple[list[int], list[int]]
"""Token ids, and the ascending positions whose logits are wanted."""
SHORTEST_SHARED = 8
"""A shorter shared prefix is computed again: its own attention call would cost more."""
ROW_TOKENS = 1024
"""Enough to keep matrix products busy, few enough that activations stay near the processor."""
RECOMPUTED = 8
"""A row grows past that while cutting it would compute more than one token in eight again."""
WINDOW = 8192
"""Sequences planned together: memory does not grow with the input."""


def shared_length(a: Sequence[object], b: Sequence[object]) -> int:
  """By bisection on slices, which compare in C."""
  low, high = 0, min(len(a), len(b))
  if a[:high] == b[:high]:
    return high
  while high - low > 1:
    middle = (low + high) // 2
    if a[low:middle] == b[low:middle]:
      low = middle
    else:
      high = middle
  return low


def padded_batches(
  rows: Sequence[Hashable], ids: Sequence[Sequence[int]], max_tokens: int
) -> Iterator[list[list[int]]]:
  """For each row to compute, the indices of all equal to it, in batches of at most `max_tokens` padded tokens.

  ids: of each row. The longest come first: what does not fit into memory fails at once.
  """
  equal: dict[Hashable, list[int]] = {}
  for i, row in enumerate(rows):
    equal.setdefault(row, []).append(i)
  groups = sorted(equal.values(), key=lambda group: -len(ids[group[0]]))
  while groups:
    size = max(1, max_tokens // max(1, len(ids[groups[0][0]])))
    yield groups[:size]
    del groups[:size]


def right_padded(rows: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
  """(ids, mask), both [rows, longest row]."""
  import torch
  from torch.nn.utils.rnn import pad_sequence

  tokens = [torch.tensor(row, dtype=torch.long) for row in rows]
  ids = pad_sequence(tokens, batch_first=True, padding_value=pad_token_id)
  return ids, pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True)


Run = tuple[int, int]
"""The places of a row from the first to before the last."""


@dataclass(frozen=True)
class Segment:
  """The `size` tokens from `start` in the row that one sequence adds, after the `depth` tokens of its path."""

  start: int
  size: int
  depth: int
  path: list[Run]

  @property
  def runs(self) -> list[Run]:
    return merged_runs([*self.path, (self.start, self.start + self.size)])


def merged_runs(runs: Sequence[Run]) -> list[Run]:
  """The same places in as few runs as possible."""
  found: list[Run] = []
  for first, last in runs:
    if found and found[-1][1] == first:
      first, _ = found.pop()
    found.append((first, last))
  return found


@dataclass
class PackedRow:
  """Unique tokens. ids, positions: [T]. sequences: which inputs are here, in the order of `runs`, where their tokens are."""

  ids: list[int] = field(default_factory=list)
  positions: list[int] = field(default_factory=list)
  segments: list[Segment] = field(default_factory=list)
  sequences: list[int] = field(default_factory=list)
  runs: list[list[Run]] = field(default_factory=list)

  def add(self, index: int, sequence: Sequence[int], shared: int) -> None:
    start, size, path = len(self.ids), len(sequence) - shared, first_places(self.runs[-1], shared) if shared else []
    if size:
      self.ids.extend(sequence[shared:])
      self.positions.extend(range(shared, len(sequence)))
      self.segments.append(Segment(start, size, shared, path))
      path = self.segments[-1].runs
    self.sequences.append(index)
    self.runs.append(path)

  @property
  def ends(self) -> list[int]:
    return [runs[-1][1] - 1 for runs in self.runs]

  @property
  def places(self) -> list[list[int]]:
    """Of each token of each sequence."""
    return [[place for run in runs for place in range(*run)] for runs in self.runs]


def first_places(runs: Sequence[Run], count: int) -> list[Run]:
  found = []
  for first, last in runs:
    if count <= 0:
      break
    found.append((first, min(last, first + count)))
    count -= last - first
  return found


def place_at(runs: Sequence[Run], position: int) -> int:
  for first, last in runs:
    if position < last - first:
      return first + position
    position -= last - first
  raise IndexError("past the end of a sequence")


def pieces(segments: Sequence[Segment]) -> tuple[list[int], list[list[int]]]:
  """(sizes, keys): a row cut at every border of a run, and the pieces that each segment attends to."""
  runs = [segment.runs for segment in segments]
  ordered = sorted({border for own in runs for run in own for border in run})
  number = {border: i for i, border in enumerate(ordered)}
  keys = [[i for first, last in own for i in range(number[first], number[last])] for own in runs]
  return [end - start for start, end in pairwise(ordered)], keys


def pack(
  sequences: Sequence[Sequence[int]], max_tokens: int | None = None, *, share: bool = True
) -> Iterator[PackedRow]:
  """None may be empty. max_tokens: unique ones in a row, None chooses."""
  for start in range(0, len(sequences), WINDOW):
    window = range(start, min(start + WINDOW, len(sequences)))
    yield from _pack_window(sequences, window, max_tokens, share)


def pack_together(sequences: Sequence[Sequence[int]], *, share: bool = True) -> PackedRow:
  """For training, where a batch is one step whatever its size."""
  return next(_pack_window(sequences, range(len(sequences)), sys.maxsize, share))


def unique_tokens(sequences: Sequence[Sequence[int]]) -> int:
  """Without laying them out."""
  return sum(map(len, sequences)) - sum(_sorted_with_shared(sequences, range(len(sequences)), True)[1])


def _pack_window(sequences, window: range, max_tokens: int | None, share: bool) -> Iterator[PackedRow]:
  order, shared = _sorted_with_shared(sequences, window, share)
  first = 0
  while first < len(order):
    last, row = _row_end(first, sequences, order, shared, max_tokens), PackedRow()
    for place in range(first, last):
      row.add(order[place], sequences[order[place]], shared[place] if place > first else 0)
    yield row
    first = last


def _row_end(first: int, sequences, order: list[int], shared: list[int], max_tokens: int | None) -> int:
  """Where the least is shared in the second half of the row from `first`, once it is full."""
  limit = max_tokens or ROW_TOKENS
  tokens, cut = len(sequences[order[first]]), first + 1
  for place in range(first + 1, len(order)):
    new = len(sequences[order[place]]) - shared[place]
    if 2 * tokens < limit or shared[place] <= shared[cut]:
      cut = place
    if tokens + new > limit and (max_tokens or RECOMPUTED * shared[cut] <= tokens):
      return cut
    tokens += new
  return len(order)


def _sorted_with_shared(sequences, window: Sequence[int], share: bool) -> tuple[list[int], list[int]]:
  if not share:
    return list(window), [0] * len(window)
  # Four big-endian bytes a token are compared by memcmp, a hundred times faster than lists of integers.
  keys = {index: struct.pack(f">{len(sequences[index])}I", *sequences[index]) for index in window}
  order = sorted(window, key=keys.__getitem__)
  shared = [0]
  for before, index in pairwise(order):
    prefix = shared_length(keys[before], keys[index]) // 4
    shared.append(prefix if prefix >= SHORTEST_SHARED or prefix == len(sequences[index]) else 0)
  return order, shared
