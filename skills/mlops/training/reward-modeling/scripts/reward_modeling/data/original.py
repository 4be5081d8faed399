"""The rows of the files again, with their own columns, without those that were dropped (`check_data.py --layout original`)."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from ..console import DataError, to_json
from .files import suffix
from .records import Records
from .sources import read

SEPARATORS = {".csv": ",", ".tsv": "\t"}


def kept_places(records: Records, left: dict[int, Any]) -> Counter[tuple[str, int]]:
    """How often each (file, row) is written: once for each time that it was read and stayed. left: the records that stay, by
    their place.

    Raises DataError for a row of which only a part stays, which its own columns cannot say.
    """
    kept: Counter[tuple[str, int]] = Counter()
    for _, places in groupby(range(len(records.rows)), key=lambda place: records.rows[place].origin):
        for group in _readings(list(places), records):
            origin = records.rows[group[0]].origin
            whole = [place for place in group if left.get(place) is records.rows[place]]
            if whole and len(whole) == len(group):
                kept[origin.file, origin.row] += 1
            elif any(place in left for place in group):
                raise DataError(
                    "only a part of this row stays (completions of a ranking, or alternatives of a step, are dropped)",
                    where=str(origin),
                    hint="--layout canonical can say that, the file's own columns cannot",
                )
    return kept


def _readings(places: list[int], records: Records) -> list[list[int]]:
    """The records of one row, by reading of the row: a file of one row that is named twice is read twice in a row."""
    times = sum(records.rows[place] == records.rows[places[0]] for place in places)
    size = len(places) // times if len(places) % times == 0 else len(places)
    parts = [places[start : start + size] for start in range(0, len(places), size)]
    alike = all([records.rows[a] for a in part] == [records.rows[a] for a in parts[0]] for part in parts)
    return parts if alike else [places]


def original_rows(
    sources: Iterable[str], how: dict[str, Any], kept: Counter[tuple[str, int]]
) -> Iterator[dict[str, Any]]:
    """The rows as they were read, in order. how: split and config."""
    left = Counter(kept)
    for source in sources:
        for table in read(source, how["split"], how["config"], 4096):
            for number, row in zip(table.numbers, table.rows, strict=True):
                if left[table.name, number]:
                    left[table.name, number] -= 1
                    yield row


def original_lines(
    sources: list[str], how: dict[str, Any], kept: Counter[tuple[str, int]], output: Path
) -> Iterator[str]:
    """The rows that are kept, as lines: CSV where the output is named so, else JSON."""
    separator = SEPARATORS.get(suffix(output))
    rows = original_rows(sources, how, kept)
    if not separator:
        yield from map(to_json, rows)
        return
    columns = dict.fromkeys(name for row in original_rows(sources, how, kept) for name in row)
    for row in ([*columns], *([_cell(row.get(name)) for name in columns] for row in rows)):
        text = io.StringIO()
        csv.writer(text, delimiter=separator, lineterminator="\r\n").writerow(row)
        yield text.getvalue().removesuffix("\r\n")


def _cell(value: Any) -> Any:
    return "" if value is None else value if isinstance(value, str) else to_json(value)
