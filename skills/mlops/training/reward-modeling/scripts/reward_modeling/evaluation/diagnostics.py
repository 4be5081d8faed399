"""What people are told of an evaluation: sentences with what to do next, and tables of estimates by their JSON keys."""

from collections.abc import Callable, Mapping, Sized
from typing import Any, NamedTuple

from ..terminal import Cell, log, table
from .intervals import Estimate

SUBSET_ROWS = 30


class Diagnostic(NamedTuple):
    """Where it `applies` to a summary, `sentence` (a format string over its attributes) is worth saying, and `next` doing."""

    applies: Callable[[Any], bool]
    sentence: str
    next: str


def diagnosed(summary: object, diagnostics: Mapping[str, Diagnostic]) -> list[str]:
    applying = [one for one in diagnostics.values() if one.applies(summary)]
    return [f"{one.sentence}. Next: {one.next}.".format(**vars(summary)) for one in applying]


def spelled(name: str) -> str:
    return name.replace("_", " ")


def values_for(summary: object, *kinds: type) -> dict[str, Any]:
    """{key: value} of those of these types."""
    return {spelled(name): value for name, value in vars(summary).items() if type(value) in kinds}


def estimates_table(title: str, rows: Mapping[str, Estimate], chance: bool = False) -> None:
    cells: list[list[Cell]] = [[name, one.value, one.low, one.high, one.n] for name, one in rows.items()]
    if chance:
        cells.append(["chance", 0.5, None, None, None])
    table(title, ["", "value", "95 % low", "high", "n"], cells)


def tell_more(subsets: Sized) -> None:
    if len(subsets) > SUBSET_ROWS:
        log(f"{len(subsets) - SUBSET_ROWS} more subsets are not shown; the JSON has them all")


def value(estimate: Estimate | None) -> float | None:
    return estimate and estimate.value
