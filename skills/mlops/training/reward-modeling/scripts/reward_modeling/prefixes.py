"""How much two sequences have in common from their start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def shared_length(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Of texts, bytes or lists: by bisection on slices, which compare in C."""
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
