"""The rows of one JSON document, as people, pandas and the dataset viewer of the hub write them."""

from typing import Any

from ..errors import DataError
from .cells import are_messages

UNDER = ("data", "rows", "examples", "instances", "records")
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}


def rows_of(found: Any, where: str) -> tuple[list | None, dict[str, int]]:
    """(rows or None, what stands beside them, counted)."""
    if not isinstance(found, dict):
        return (found if isinstance(found, list) else None), {}
    key = next((name for name in UNDER if isinstance(found.get(name), list)), None)
    beside = {name: value for name, value in found.items() if name != key}
    rows, names = found.get(key), beside.get("columns")
    if key and _are_split(names, rows):
        beside = {name: value for name, value in beside.items() if name not in ("columns", "index")}
        rows = [dict(zip(names, row, strict=True)) if len(row) == len(names) else row for row in rows]
    elif rows and all(isinstance(row, dict) and isinstance(row.get("row"), dict) for row in rows):
        rows = [row["row"] for row in rows]
    elif key and _is_column(rows, list(beside.values())):
        key = None
    if key:
        return rows, {f"`{name}` beside `{key}`": len(v) if isinstance(v, list) else 1 for name, v in beside.items()}
    groups = list(found.values())
    if not all(isinstance(rows, list) and all(isinstance(row, dict) for row in rows) for rows in groups):
        return _columns(found) or [found], {}
    if not all(name.lower().partition("_")[0] in SPLITS for name in found):
        rows = [row for group in groups for row in group]
        shared = rows and all(set(rows[0]) & row.keys() for row in rows)
        return (rows if len(groups) > 1 and shared and not any(map(are_messages, groups)) else [found]), {}
    if len(groups) > 1:
        hint = "write the one you mean to a file of its own: "
        hint += f"json.dump(json.load(open(FILE))[{next(iter(found))!r}], ...)"
        raise DataError(f"the file holds several splits ({', '.join(found)})", where=where, hint=hint)
    return groups[0] if groups else [found], {}


def _is_column(rows: list, others: list) -> bool:
    of_one_length = all(isinstance(value, list) and len(value) == len(rows) for value in others)
    return bool(others) and of_one_length and not all(isinstance(item, dict) for item in rows)


def _are_split(names: Any, rows: list) -> bool:
    texts = isinstance(names, list) and bool(names) and all(isinstance(name, str) for name in names)
    return texts and len(set(names)) == len(names) and all(isinstance(row, list) for row in rows)


def _columns(found: dict[str, Any]) -> list[dict[str, Any]] | None:
    values = list(found.values())
    if all(isinstance(value, dict) for value in values):
        if all(map(str.isdecimal, found)):
            return values  # pandas, orient="index"
        if any(list(value) != list(values[0]) or not all(map(str.isdecimal, value)) for value in values):
            return None
        values = [list(value.values()) for value in values]
    if len(values) < 2 or not all(isinstance(value, list) and value and not are_messages(value) for value in values):
        return None
    if len(set(map(len, values))) > 1:
        return None
    return [dict(zip(found, row, strict=True)) for row in zip(*values, strict=True)]
