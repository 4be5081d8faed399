"""The rows of one JSON document, however it lays them out.

[{"prompt": ...}, ...]                            rows
{"data": [...]}                                   also `rows`, `examples`, `instances`, `records`; what stands beside is counted
{"prompt": [...], "chosen": [...]}                columns, as lists or as pandas writes them ({"prompt": {"0": ...}})
{"0": {...}, "1": {...}}                          pandas, orient="index"
{"columns": [...], "index": [...], "data": [[...]]}      pandas, orient="split"
{"rows": [{"row_idx": 0, "row": {...}}]}          the dataset viewer of the hub
{"one id": [{...}], "another": [{...}]}           rows in groups
{"prompt": ..., "chosen": ...}                    one row
"""

from __future__ import annotations

from typing import Any

from ..console import DataError
from .cells import are_messages

UNDER = ("data", "rows", "examples", "instances", "records")
SPLITS = frozenset(("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation"))


def rows_of(found: Any, where: str) -> tuple[list | None, dict[str, int]]:
    """(rows or None, what stands beside them and is not read, counted). Raises DataError for several splits."""
    if isinstance(found, list):
        return found, {}
    if not isinstance(found, dict):
        return None, {}
    key = next((name for name in UNDER if isinstance(found.get(name), list)), None)
    if key and (_are_split(found.get("columns"), found[key]) or not _is_column(found, key)):
        rows = found[key]
        beside = {name: value for name, value in found.items() if name != key}
        names = beside.get("columns")
        if _are_split(names, rows):
            beside.pop("columns")
            beside.pop("index", None)
            rows = [dict(zip(names, row, strict=True)) if len(row) == len(names) else row for row in rows]
        elif rows and all(isinstance(row, dict) and isinstance(row.get("row"), dict) for row in rows):
            rows = [row["row"] for row in rows]
        counts = {f"`{name}` beside `{key}`": len(v) if isinstance(v, list) else 1 for name, v in beside.items()}
        return rows, counts
    names = _splits(found)
    if len(names) > 1:
        raise DataError(
            f"the file holds several splits ({', '.join(names)})",
            where=where,
            hint=f"write the one you mean to a file of its own: json.dump(json.load(open(FILE))[{names[0]!r}], ...)",
        )
    if names:
        return found[names[0]], {}
    return _columns(found) or _groups(found) or [found], {}


def _is_column(found: dict[str, Any], key: str) -> bool:
    """Whether the list under this key is one of several columns."""
    others = [value for name, value in found.items() if name != key]
    columns = [value for value in others if isinstance(value, list) and len(value) == len(found[key])]
    return len(others) == len(columns) > 0 and not all(isinstance(item, dict) for item in found[key])


def _are_split(names: Any, rows: list) -> bool:
    texts = isinstance(names, list) and bool(names) and all(isinstance(name, str) for name in names)
    return texts and len(set(names)) == len(names) and all(isinstance(row, list) for row in rows)


def _columns(found: dict[str, Any]) -> list[dict[str, Any]] | None:
    """A list of messages is a value, not a column."""
    values = list(found.values())
    if values and all(isinstance(value, dict) and key.isdecimal() for key, value in found.items()):
        return values  # pandas, orient="index"
    if len(values) > 1 and all(isinstance(value, dict) for value in values):
        keys = [list(value) for value in values]
        if not keys[0] or any(key != keys[0] for key in keys) or not all(key.isdecimal() for key in keys[0]):
            return None
        values = [list(value.values()) for value in values]
    elif len(values) < 2 or not all(isinstance(value, list) and value for value in values):
        return None
    if any(are_messages(value) for value in values) or len({len(value) for value in values}) > 1:
        return None
    if all(isinstance(item, dict) for value in values for item in value):  # groups of rows
        return None
    return [dict(zip(found, row, strict=True)) for row in zip(*values, strict=True)]


def _groups(found: dict[str, Any]) -> list[dict[str, Any]] | None:
    lists = list(found.values())
    if len(lists) < 2 or not all(isinstance(value, list) for value in lists):
        return None
    rows = [row for value in lists for row in value]
    if not rows or not all(isinstance(row, dict) for row in rows) or any(are_messages(value) for value in lists):
        return None
    names = set(rows[0])
    return rows if all(names & row.keys() for row in rows) else None


def _splits(found: dict[str, Any]) -> list[str]:
    are_rows = all(isinstance(value, list) and all(isinstance(row, dict) for row in value) for value in found.values())
    return list(found) if are_rows and all(name.lower().partition("_")[0] in SPLITS for name in found) else []
