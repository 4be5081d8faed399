"""What a format is. Its tables are formats_*.py."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .cells import RowError, short, wrong_type
from .records import Message, Record
from .winners import Winner

Row = dict[str, Any]
Numbered = list[tuple[int, Row]]
Problems = list[tuple[int, str]]

PAIR = ("chosen", "rejected")
MARGINS = ("margin", "weight", "score_chosen|chosen_score", "score_rejected|rejected_score")
COMMON = ("id", "tools")
LARGEST = (2 - 2**-23) * 2.0**127
"""In fp32."""

# For the example rows.
USER: list[Message] = [{"role": "user", "content": "2+2?"}]
GOOD, BAD = [{"role": "assistant", "content": "4"}], [{"role": "assistant", "content": "5"}]


class SetAsideError(Exception):
    """Why a readable row is left out."""


def always(row: Row) -> bool:
    return True


def never(row: Row) -> bool:
    """Of formats that --format must name."""
    return False


@dataclass(frozen=True)
class Format:
    """In `needs` and `optional`, `a|b` stands for either name."""

    name: str
    description: str
    needs: tuple[str, ...]
    optional: tuple[str, ...]
    example: Row
    matches: Callable[[Row], bool]
    """Of rows with the same columns, under the format's names, without nulls."""
    convert: Callable[[Row], Record | list[Record]]
    """Raises RowError and SetAsideError."""
    winner: Winner | None = None
    """The converter finds a, b or tie in `winner`."""
    beside: Callable[[Row], bool] = always
    """By columns that it does not read."""
    expand: Callable[[Numbered, Problems], Numbered] | None = None
    one_piece: bool = False
    """Rows belong to others anywhere in the file."""

    @property
    def columns(self) -> tuple[str, ...]:
        return self.needs + self.optional + COMMON

    def pick(self, row: Row) -> tuple[Row, dict[str, str]]:
        """The non-null columns under the format's names, and {name: column of the row}."""
        used = {}
        for names in self.columns:
            alternatives = names.split("|")
            present = sorted((name for name in alternatives if name in row), key=lambda name: row[name] is None)
            if present:
                used[alternatives[0]] = present[0]
        return {name: row[column] for name, column in used.items() if row[column] is not None}, used

    def records(self, picked: Row) -> list[Record]:
        found = self.convert(picked)
        return found if isinstance(found, list) else [found]


def are_lists(*names: str) -> Callable[[Row], bool]:
    return lambda row: all(isinstance(row.get(name, []), list) for name in names)


def are_texts(*names: str) -> Callable[[Row], bool]:
    return lambda row: all(isinstance(row[name], str) for name in names)


def entry(
    table: dict[str, Format],
    description: str,
    needs: tuple[str, ...],
    example: Row,
    matches: Callable[[Row], bool] = always,
    optional: tuple[str, ...] = ("system",),
    **more: Any,
) -> Callable[[Callable[[Row], Record]], Callable[[Row], Record]]:

    def add(convert: Callable[[Row], Record]) -> Callable[[Row], Record]:
        name = convert.__name__
        table[name] = Format(name, description, needs, optional, example, matches, convert, **more)
        return convert

    return add


def number(value: Any, column: str) -> float | None:
    """A finite fp32 number, also written as text; null and "" are None."""
    if value in (None, ""):
        return None
    try:
        found = float(value) if isinstance(value, (int, float, str)) else math.nan
    except (ValueError, OverflowError):
        found = math.inf if isinstance(value, int) else math.nan
    if abs(found) > LARGEST:
        raise RowError(f"`{column}` is {short(value)}: larger than a number can be in fp32")
    if math.isnan(found):
        raise wrong_type(column, value, "a number")
    return found


def one_each(value: Any, column: str, wanted: str, count: int, of: str) -> list:
    if not isinstance(value, list):
        raise wrong_type(column, value, wanted)
    if len(value) != count:
        raise RowError(f"`{column}` has {len(value)} entries for {count} {of}")
    return value


def margin_and_weight(row: Row) -> tuple[float | None, float]:
    margin = number(row.get("margin"), "margin")
    if margin is None:
        scores = [number(row.get(name), name) for name in ("score_chosen", "score_rejected")]
        margin = number(scores[0] - scores[1], "score_chosen - score_rejected") if None not in scores else None
    weight = number(row.get("weight"), "weight")
    if weight is not None and weight <= 0:
        raise RowError(f"`weight` is {weight:g}: a pair counts with a weight above 0")
    return margin, 1.0 if weight is None else weight
