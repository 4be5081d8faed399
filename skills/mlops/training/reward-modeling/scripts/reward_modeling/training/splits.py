"""Hold data out for validation, prompt by prompt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from ..records import Comparison


def split_by_prompt(
    comparisons: Sequence[Comparison], share: float, seed: int
) -> tuple[list[Comparison], list[Comparison]]:
    """(train, validation): about `share` of the prompts, with all their pairs, go to validation.

    A prompt is placed by its hash and the seed: it lands on the same side in every run and from every file, so no
    prompt is on both sides.
    """
    sides: tuple[list[Comparison], list[Comparison]] = ([], [])
    for pair in comparisons:
        text = f"{seed}:{json.dumps(pair.prompt, sort_keys=True, default=str)}"
        place = int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8]) / 2**64
        sides[place < share].append(pair)
    return sides
