"""The rows of a file with their own columns, without those dropped (`check_data.py --layout original`)."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..results import to_json
from .files import Table, suffix
from .records import Record, Records


def kept_rows(table: Table, records: Records, left: dict[int, Record]) -> Iterator[dict[str, Any]]:
    """left: {place in `records.rows`: record}."""
    stays: dict[int, list[bool]] = defaultdict(list)
    for place, record in enumerate(records.rows):
        stays[record.origin.row].append(left.get(place) is record)
        if any(stays[record.origin.row]) != all(stays[record.origin.row]) or left.get(place, record) is not record:
            what = "only a part of this row stays (completions of a ranking, or alternatives of a step, are dropped)"
            hint = "--layout canonical can say that, the file's own columns cannot"
            raise DataError(what, where=record.origin, hint=hint)
    yield from (row for number, row in zip(table.numbers, table.rows, strict=True) if all(stays.get(number, [False])))


def lines(rows: Iterable[dict[str, Any]], columns: Iterable[str], output: Path) -> Iterator[str]:
    separator = {".csv": ",", ".tsv": "\t"}.get(suffix(output))
    if not separator:
        yield from map(to_json, rows)
        return
    columns = list(columns)
    for cells in chain([columns], ([_cell(row.get(name)) for name in columns] for row in rows)):
        text = io.StringIO()
        csv.writer(text, delimiter=separator, lineterminator="\r\n").writerow(cells)
        yield text.getvalue().removesuffix("\r\n")


def _cell(value: Any) -> Any:
    return "" if value is None else value if isinstance(value, str) else to_json(value)
