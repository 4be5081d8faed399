"""Rendered rows -> batches for one forward pass each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def token_budget_batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices of rows, longest first, in batches of at most `max_tokens` padded tokens (rows x longest row).

    Sorted by length a batch holds rows of nearly one length, so hardly any padding is computed. The longest come first:
    a batch that does not fit into memory fails at once, not after an hour. A row longer than `max_tokens` gets a batch
    of its own.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        rows = max(1, max_tokens // max(1, lengths[order[start]]))
        yield order[start : start + rows]
        start += rows
