"""What people are told of an evaluation: sentences that say what to do next, and tables of estimates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..console import table

SUBSET_ROWS = 30
"""Rows of a table of subsets; the JSON has them all."""
Summary = Mapping[str, Any]
"""What an evaluation found, as JSON carries it."""


@dataclass(frozen=True)
class Diagnostic:
    """When it `applies` to a summary, `sentence` (a format string over the summary) is worth saying, and `next` doing."""

    applies: Callable[[Summary], bool]
    sentence: str
    next: str


def sentences(summary: Summary, diagnostics: Mapping[str, Diagnostic]) -> list[str]:
    """One sentence, and what to try next, for every diagnostic that applies, in their order."""
    applying = [one for one in diagnostics.values() if one.applies(summary)]
    return [f"{one.sentence.format(**summary)}. Next: {one.next.format(**summary)}." for one in applying]


def estimates_table(title: str, rows: Mapping[str, Summary | None], chance: bool = False) -> None:
    """Name, value and interval, one row an estimate; an estimate that no pair could give shows as dashes."""
    empty = dict.fromkeys(("value", "low", "high", "n"))
    cells = [[name, *((row or empty)[key] for key in empty)] for name, row in rows.items()]
    if chance:
        cells.append(["chance", 0.5, None, None, None])
    table(title, ["", "value", "95 % low", "high", "n"], cells)


def interval(estimate: Summary) -> str:
    return f"{estimate['value']:.4f} [{estimate['low']:.4f}, {estimate['high']:.4f}]"


def values(summary: Summary, names: Iterable[str]) -> list[float | None]:
    """The value of each of these estimates, None for those that could not be made."""
    return [(summary[name] or {}).get("value") for name in names]
