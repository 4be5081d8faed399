"""What people are told of an evaluation: sentences that say what to do next, and tables of estimates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..terminal import Cell, log, table
from .intervals import Estimate

SUBSET_ROWS = 30
"""Rows of a table of subsets; the JSON has them all."""
Summary = TypeVar("Summary")
"""An object with what an evaluation found."""


@dataclass(frozen=True)
class Diagnostic(Generic[Summary]):
    """When it `applies` to a summary, `sentence` (a format string over its attributes) is worth saying, and `next` doing.

    An `Estimate` in a sentence, as {gain:+.3f}, is its value and its interval.
    """

    applies: Callable[[Summary], bool]
    sentence: str
    next: str


def diagnosed(summary: Summary, diagnostics: Mapping[str, Diagnostic[Summary]]) -> list[str]:
    """One sentence, and what to try next, for every diagnostic that applies, in their order."""
    known = vars(summary)
    applying = [one for one in diagnostics.values() if one.applies(summary)]
    return [f"{one.sentence.format(**known)}. Next: {one.next.format(**known)}." for one in applying]


def estimates_table(title: str, rows: Mapping[str, Estimate | None], chance: bool = False) -> None:
    """Name, value and interval, one row an estimate; an estimate that no pair could give shows as dashes."""
    names = ("value", "low", "high", "n")
    cells: list[list[Cell]] = [[name, *(getattr(row, key, None) for key in names)] for name, row in rows.items()]
    if chance:
        cells.append(["chance", 0.5, None, None, None])
    table(title, ["", "value", "95 % low", "high", "n"], cells)


def tell_more(subsets: Sized) -> None:
    """Say how many subsets a table had no room for."""
    if len(subsets) > SUBSET_ROWS:
        log(f"{len(subsets) - SUBSET_ROWS} more subsets are not shown; the JSON has them all")


def value(estimate: Estimate | None) -> float | None:
    return estimate and estimate.value
