"""Rows that are written: a record in its canonical form, and metadata beside a row's own columns, never over them.

    to_row(pair)                                                     what `load` reads back to an equal record
    with_metadata({"reward": 0.5}, {"subset": "a", "reward": 1})     {"reward": 0.5, "subset": "a", "metadata": {"reward": 1}}
    unwrapped({"metadata": {"reward": 1}, "subset": "a"})            {"subset": "a", "reward": 1}

Metadata stand under their own names. Those whose name the row itself uses stand in the object
`metadata`, which reading takes apart again, so that a canonical copy gives equal records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from ..console import listed, log
from .formats import INPUT_LIKE, LABEL_NAMES, NAMES
from .records import Comparison, Ranking, Record

METADATA = "metadata"
# fmt: off
RESULTS = frozenset((
    "id", "origin", "reward", "rewards", "order", "index", "step_rewards", "attributes", "finished", "reward_chosen", "reward_rejected",
    "threshold", "first_flagged", "first_error", "other_reward_chosen", "other_reward_rejected", "length_chosen", "length_rejected",
))
# fmt: on
"""Names that score.py and evaluate.py write."""


def to_row(record: Record) -> dict[str, Any]:
    """The canonical form: formats `explicit`, `ranking`, `stepwise`, without labels `completions` and `steps`, or `prompt`.

    Fields without a value are left out, metadata follow under their own names, or in the object `metadata` where a format
    would read them as part of the record. `load` reads it back to an equal record.
    """
    if isinstance(record, Comparison):
        row = {"prompt": record.prompt, "chosen": record.chosen, "rejected": record.rejected, "margin": record.margin}
    elif isinstance(record, Ranking) and record.is_labeled_answer:
        row = {"prompt": record.prompt, "completion": record.completions[0], "label": record.scores[0] > 0}
    elif isinstance(record, Ranking):
        row = {"prompt": record.prompt, "completions": record.completions or None, "scores": record.scores}
        row["margin"] = record.margin
    else:
        steps = "completions" if record.labels is not None else "steps"
        row = {"prompt": record.prompt, steps: record.steps, "labels": record.labels}
    row["weight"] = None if getattr(record, "weight", 1) == 1 else record.weight
    row |= {"tools": getattr(record, "tools", None), "id": record.id}
    row = {name: value for name, value in row.items() if value is not None}
    return with_metadata(row, record.metadata, canonical=True)


def with_metadata(row: dict[str, Any], metadata: dict[str, Any], *, canonical: bool = False) -> dict[str, Any]:
    """The row and its metadata. canonical: names by which a format would read the row's own columns are taken too."""
    apart = {name: value for name, value in metadata.items() if name in row or (canonical and is_read(name))}
    if METADATA in metadata and (apart or _is_apart(metadata[METADATA])):
        apart[METADATA] = metadata[METADATA]
    kept = {name: value for name, value in metadata.items() if name not in apart}
    return {**row, **kept, METADATA: apart} if apart else {**row, **kept}


def unwrapped(metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a row that `with_metadata` wrote, as they were; of any other row unchanged."""
    apart = metadata.get(METADATA)
    kept = {name: value for name, value in metadata.items() if name != METADATA}
    if not _is_apart(apart) or apart.keys() & kept.keys():
        return metadata
    return kept | apart


def counted(rows: Iterable[dict[str, Any]], moved: Counter[str]) -> Iterator[dict[str, Any]]:
    """The rows of `with_metadata`, one by one; `moved` counts the names that stand in `metadata`."""
    for row in rows:
        if _is_apart(row.get(METADATA)):
            moved.update(row[METADATA].keys())
        yield row


def tell_moved(moved: Counter[str]) -> dict[str, int] | None:
    """Say which metadata columns were moved, and in how many rows. The same for a script's JSON, None without any."""
    if not moved:
        return None
    log(f"metadata whose names the rows themselves use are in the column `{METADATA}` (rows): {listed(moved)}")
    return dict(moved)


def _is_apart(value: Any) -> bool:
    known = lambda name: name == METADATA or name in RESULTS or is_read(name)  # noqa: E731
    return isinstance(value, dict) and bool(value) and all(isinstance(name, str) and known(name) for name in value)


def is_read(name: str) -> bool:
    """Whether a format may read a column of this name."""
    return name in NAMES or name in LABEL_NAMES or name.lower() in INPUT_LIKE
