"""What every evaluation takes from records: which share a prompt or a subset, how long answers are, and their rewards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..data.records import Comparison, Message, Ranking, Solution
from ..errors import DataError
from ..rendering import Conversation
from ..terminal import progress

if TYPE_CHECKING:  # torch, which over-optimization and the measures do without
    from ..process import ProcessRewardModel
    from ..scoring import RewardModel

SUBSET_COLUMNS = ("subset", "category", "domain", "source", "tranche", "task")


def prompt_keys(rows: Sequence[Comparison | Ranking | Solution]) -> list[str]:
    """What rows of the same prompt have in common."""
    return [json.dumps(row.prompt, sort_keys=True, default=str) for row in rows]


def source_of(row: Comparison | Ranking | Solution) -> dict[str, object]:
    """What a row of results says of where it comes from. Its metadata are added by `with_metadata`."""
    return {"id": row.id, "origin": str(row.origin) if row.origin else None}


def answer_length(completion: Sequence[Message]) -> int:
    """Characters of an answer."""
    return sum(len(message.get("content") or "") for message in completion)


def subsets(
    rows: Sequence[Comparison | Solution], column: str | None, usual: Sequence[str] = SUBSET_COLUMNS
) -> list[str] | None:
    """The subset of each row, from this metadata column or from the first usual one that is there."""
    known = {name for row in rows for name in row.metadata}
    if column is None:
        column = next((name for name in usual if name in known), None)
        if column is None:
            return None
    elif column not in known:
        listed = ", ".join(sorted(known)) or "no metadata columns"
        raise DataError(f"no pair has the column {column}", hint=f"the data has {listed}")
    return [row.metadata.get(column) for row in rows]


def score_distinct(
    model: RewardModel | ProcessRewardModel, conversations: Sequence[Conversation]
) -> list[float | None]:
    """`model.score_conversations`, with identical conversations computed once: they tie to the last digit."""
    if getattr(model, "compares", False):  # whose rewards depend on the other answers of the row
        return model.score_conversations(conversations)
    distinct: dict[str, Conversation] = {}
    keys = [json.dumps(one[:3], sort_keys=True, default=str) for one in conversations]
    for key, one in zip(keys, conversations, strict=True):
        distinct.setdefault(key, one)
    with progress("scoring", len(distinct)) as advance:
        scores = model.score_conversations(list(distinct.values()), advance)
    by_key = dict(zip(distinct, scores, strict=True))
    return [by_key[key] for key in keys]
