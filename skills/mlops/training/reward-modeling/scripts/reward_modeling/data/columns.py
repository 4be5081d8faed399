"""--columns: which column of the file, or which part of one, is read under which name of a format.

    {"prompt": "question.full_text", "completions": "answers[].answer", "ranks": "answers[].rank"}

`a.b` is the value under b in the object a, `a[]` each entry of the list a, `a[0]` and `a[-1]` one of them. Objects and lists
may be written as JSON or Python text. A column whose own name has dots or brackets is that column.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from ..console import DataError
from .cells import RowError, structure, type_of
from .entries import Row
from .files import Table
from .formats import NAMES
from .writing import METADATA, is_read

_STEP = re.compile(r"(?:\A|\.)([^.\[\]]+)|\[(-?\d*)\]")


# fmt: off
SAME = {
    ("chosen", "rejected"): (
        ("chosen", "rejected"), ("chosen", "reject"), ("accepted", "rejected"), ("preferred", "dispreferred"),
        ("preferred", "rejected"), ("better", "worse"), ("best", "worst"), ("winning", "losing"),
        ("positive", "negative"), ("good", "bad"),
    ),
    ("response_a", "response_b"): (("a", "b"),),
}
# fmt: on
"""Columns of formats, and words by which others name them, alone or as in preferred_response, answer_a."""
_HOLDS = "responses?|answers?|completions?|outputs?|texts?"
_AFFIX = re.compile(rf"(?:{_HOLDS})_(?P<last>\w+)|(?P<first>\w+?)_?(?:{_HOLDS})")


def same_columns(rows: list[Row]) -> dict[str, str]:
    """Columns whose names say what they hold in other words, as in --columns: {"chosen": "preferred_response", ...}.

    Only where no format reads both of them by their own names, and where they hold texts or messages.
    """
    first = {name: value for row in reversed(rows) for name, value in row.items() if value is not None}
    words: dict[str, str] = {}
    for name in (name for name, value in first.items() if isinstance(value, (str, list, dict))):
        found = _AFFIX.fullmatch(name.lower())
        words.setdefault((found["last"] or found["first"]) if found else name.lower(), name)
    for wanted, pairs in SAME.items():
        for pair in pairs if not first.keys() >= set(wanted) else ():
            taken = {"completions", "chosen", *wanted} - {pair[0], pair[1]}
            if not first.keys().isdisjoint(taken):
                continue
            columns = {name: words.get(word) for name, word in zip(wanted, pair, strict=True)}
            named = [column for column in columns.values() if column and len(column) > 1]
            if len(named) == 2 and not all(column in NAMES for column in named):
                return columns
    return {}


def root_of(column: str, present: Iterable[str]) -> str:
    """The column that a path begins in: the path itself where a column has that name."""
    return column if column in present else re.split(r"[.\[]", column, maxsplit=1)[0]


def check_columns(table: Table, columns: dict[str, str]) -> dict[str, str]:
    """{column or path: its root} of what is read. Raises DataError for columns that no row has and for what is not a valid path."""
    present = dict.fromkeys(name for row in table.rows for name in row)
    roots = {}
    for name, column in columns.items():
        wanted = column or name
        root = root_of(wanted, present)
        if root not in present:
            close = difflib.get_close_matches(root, present, n=1)
            hint = f"did you mean {close[0]}?" if close else f"the columns are {', '.join(present)}"
            raise DataError(f"there is no column `{root}`", where=table.name, hint=hint)
        if root != wanted and "".join(match[0] for match in _STEP.finditer(wanted)) != wanted:
            raise DataError(
                f"`{wanted}` is not a valid path", where=table.name, hint="write a.b, a[].b or a[0].b in --columns"
            )
        if column:
            roots[column] = root
    return roots


def renamed(row: Row, columns: dict[str, str], roots: dict[str, str]) -> Row:
    """The row with the mapped columns under their new names, without those that were dropped.

    A column of which parts are read stays as metadata. Raises RowError for a part that is not there.
    """
    gone = {column or name for name, column in columns.items()} | columns.keys()
    new = {name: value for name, value in row.items() if name not in gone}
    nested = {root: row[root] for column, root in roots.items() if root != column and root in row}
    for name in [name for name in nested if is_read(name)]:
        new.pop(name, None)
        if METADATA not in row and name not in gone:
            new[METADATA] = new.get(METADATA, {}) | {name: nested[name]}
    for name, column in columns.items():
        if column and roots[column] in row:
            new[name] = row[column] if roots[column] == column else part_of(row, column)
    return new


def part_of(row: Row, path: str) -> Any:
    """The part of a row at a path, null where the path meets null."""
    steps = [match[1] if match[1] is not None else f"[{match[2]}]" for match in _STEP.finditer(path)]
    return _follow(row[steps[0]], steps[1:], path, steps[0])


def _follow(value: Any, steps: list[str], path: str, at: str) -> Any:
    if not steps or value is None:
        return value
    step, *rest = steps
    value = structure(value)
    wanted, kind = (list, "a list") if step.startswith("[") else (dict, "an object")
    if not isinstance(value, wanted):
        raise RowError(f"`{path}`: `{at}` is {type_of(value)}, not {kind}")
    if step == "[]":
        return [_follow(item, rest, path, f"{at}[{place}]") for place, item in enumerate(value)]
    key, there = (int(step[1:-1]), range(-len(value), len(value))) if wanted is list else (step, value)
    if key not in there:
        has = f"it has {len(value)}" if wanted is list else f"it has {', '.join(map(str, value)) or 'nothing'}"
        raise RowError(f"`{path}`: `{at}` has no {'entry' if wanted is list else 'key'} `{key}` ({has[:80]})")
    return _follow(value[key], rest, path, f"{at}{step}" if wanted is list else f"{at}.{step}")
