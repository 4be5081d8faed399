"""One file of rows (JSON, JSON Lines, CSV, TSV, Parquet; packed by gzip) -> slices of numbered rows, and the rows that cannot be read.

JSON Lines, CSV and Parquet are read in slices, so that a file may be larger than memory; JSON is read whole. What a file can
make this process hold is bounded: by the length of a line, and for packed files read whole by how well they unpack.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ..console import DataError
from .cells import Refused, RowError, clean, loads, type_of
from .json_shapes import rows_of

MIB = 2**20
LINE_LIMIT = 64 * MIB
"""Bytes of one line, which is one row of JSON Lines, and of one cell of a CSV file."""
STRETCH, RATIO = 4 * MIB, 200
"""A .gz file that is read whole may not unpack to more than STRETCH bytes and RATIO times its own: text packs ten to one,
and what packs better can fill the memory from a small file."""
_Piece = TypeVar("_Piece", bytes, str)

SHOWN = 5
"""How many bad rows an error shows; all of them are counted."""
_QUOTE = "quote cells that hold commas, quotes or line breaks"
_LINE = "every line is one JSON object, in UTF-8"
HINTS = {".jsonl": _LINE, ".ndjson": _LINE, ".csv": _QUOTE, ".tsv": _QUOTE}
"""What to do about rows that cannot be read, by the kind of file."""


@dataclass(frozen=True)
class Table:
    """The rows of one file or one hub split, or a slice of them; `numbers` are their row numbers, counted from 1."""

    name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)
    """(number, reason) of the rows that cannot be read, which are not in `rows`."""
    set_aside: dict[str, int] = field(default_factory=dict)
    """What else the file holds that is not read, counted."""

    def __len__(self) -> int:
        return len(self.rows) + len(self.problems)

    @property
    def hint(self) -> str:
        """What to do about the problems."""
        return HINTS.get(suffix(Path(self.name)), 'a row looks like {"prompt": ..., "chosen": ..., "rejected": ...}')

    def refused(self, problems: list[tuple[int, str]], hint: str | None = None) -> DataError:
        """The error for rows that cannot be read: all are counted, the first SHOWN are shown."""
        numbers, reasons = zip(*problems, strict=True)
        where = f"{self.name}:{numbers[0]}"
        if len(numbers) > 1:
            more = ", ..." if len(numbers) > SHOWN else ""
            where += f" (also {', '.join(map(str, numbers[1:SHOWN]))}{more})"
        several = f"{len(numbers)} of {len(self)} rows" if len(numbers) > 1 else ""
        if len(set(reasons)) == 1:
            message = f"{several}: {reasons[0]}" if several else reasons[0]
        else:
            listed = "".join(f"\n  row {number}: {reason}" for number, reason in problems[:SHOWN])
            message = f"{several} cannot be read{listed}"
        return DataError(message, where=where, hint=hint or self.hint)

    def complete(self) -> Table:
        """The table itself. Raises DataError where some of its rows cannot be read."""
        if self.problems:
            raise self.refused(self.problems)
        return self

    def joined(self, other: Table) -> Table:
        """This slice of a file and the next as one."""
        lists = {name: getattr(self, name) + getattr(other, name) for name in ("rows", "numbers", "problems")}
        return Table(self.name, **lists, set_aside=self.set_aside | other.set_aside)


def sliced(
    name: str, numbered: Iterable[tuple[int, Any]], size: int | None, set_aside: dict[str, int] | None = None
) -> Iterator[Table]:
    """(number, row) pairs as tables of `size` rows, or as one. Every row is checked (`cells.clean`); what is no object is no
    row, and a row that cannot be read is the RowError that says why.
    """
    part = Table(name, set_aside=set_aside or {})
    for number, row in numbered:
        try:
            if isinstance(row, RowError):
                raise row
            if not isinstance(row, (dict, Refused)):
                raise RowError(f"the row is {type_of(row)}, not an object with columns")
            part.rows.append(clean(row))
            part.numbers.append(number)
        except RowError as error:
            part.problems.append((number, str(error)))
        if len(part) == size:
            yield part
            part = Table(name)
    if len(part) or part.set_aside:
        yield part


def suffix(path: Path) -> str:
    """The kind of a file by its name: ".jsonl" for pairs.jsonl and for pairs.jsonl.gz."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


# ---- bytes -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked where it is packed, without the mark that some editors put at the start.

    Raises DataError for empty files and those that cannot be read.
    """
    packed = path.name.lower().endswith(".gz")
    try:
        with (gzip.open if packed else open)(path, "rb") as file:
            start = file.peek(3)[:3]
            if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise DataError("the file is written in UTF-16", where=str(path), hint="save it as UTF-8")
            if not start:
                raise empty(path)
            if start == b"\xef\xbb\xbf":
                file.read(3)
            yield file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"the gzip file is truncated or corrupt: {error}", where=str(path), hint="fetch or write it again"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read the file: {error.strerror}", where=str(path)) from error


def _bounded(pieces: Iterator[_Piece], file: BinaryIO, path: Path) -> Iterator[_Piece]:
    """The pieces of a file whose rows will all be in memory. Raises DataError for a .gz file that unpacks too well."""
    packed, size = getattr(file, "fileobj", None), 0
    for piece in pieces:
        size += len(piece)
        if packed and size > max(STRETCH, RATIO * packed.tell()):
            raise DataError(
                f"the file unpacks to more than {RATIO} times its size",
                where=str(path),
                hint="if that is right, unpack it with gunzip and name the unpacked file",
            )
        yield piece


def empty(path: Path) -> DataError:
    return DataError("the file is empty", where=str(path), hint="check that it was written to the end")


def _line_by_line(path: Path, readline: Callable[[int], _Piece]) -> Iterator[_Piece]:
    for number, line in enumerate(iter(lambda: readline(LINE_LIMIT + 1), readline(0)), start=1):
        if len(line) > LINE_LIMIT:
            raise DataError(
                f"the line is longer than {LINE_LIMIT // MIB} MiB",
                where=f"{path}:{number}",
                hint="one row stands on one line",
            )
        yield line


# ---- kinds of files ----------------------------------------------------------------------------------------------------


def _jsonl(path: Path, size: int | None) -> Iterator[Table]:
    yield from (_json if _is_one_document(path) else _lines)(path, size)


def _is_one_document(path: Path) -> bool:
    """Whether a .jsonl file is one JSON document after all, which its first lines show: a list that goes on after its line or
    is all there is, or an object that opens on a line of its own.
    """
    with _opened(path) as file:
        lines = (line.strip() for line in _line_by_line(path, file.readline))
        first, second = next(filter(None, lines), b""), next(filter(None, lines), b"")
    if not first.startswith((b"[", b"{")):
        return False
    found = _row(first)
    if isinstance(found, RowError):
        return (first.startswith(b"[") or first == b"{") and bool(second) and not isinstance(_row(second), dict)
    return isinstance(found, list) and not second and any(isinstance(row, dict) for row in found)


def _lines(path: Path, size: int | None) -> Iterator[Table]:
    with _opened(path) as file:
        lines = _line_by_line(path, file.readline)
        numbered = enumerate(lines if size else _bounded(lines, file, path), start=1)
        yield from sliced(str(path), ((number, _row(line)) for number, line in numbered if line.strip()), size)


def _row(line: bytes) -> Any:
    try:
        return loads(line.rstrip(b"\r\n").decode("utf-8"))
    except UnicodeDecodeError as error:
        return RowError(f"byte {error.start + 1} of the row (0x{error.object[error.start]:02x}) is not UTF-8")
    except json.JSONDecodeError as error:
        return RowError(f"broken JSON: {error.msg} at column {error.colno}")
    except RecursionError:
        return RowError("the row nests lists and objects too deep")


def _json(path: Path, size: int | None) -> Iterator[Table]:
    with _opened(path) as file:
        content = b"".join(_bounded(iter(lambda: file.read(STRETCH), b""), file, path))
    if not content.strip():
        raise empty(path)
    text = _decode(content, path)
    try:
        found = loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # one object a line under the name .json
            yield from _lines(path, size)
            return
        raise DataError(f"broken JSON: {error.msg} at column {error.colno}", where=f"{path}:{error.lineno}") from error
    except RecursionError as error:
        raise DataError("the file nests lists and objects too deep", where=f"{path}:{_too_deep(text)}") from error
    if isinstance(found, Refused):
        raise DataError(found.reason, where=str(path))
    rows, beside = rows_of(found, str(path))
    if rows is None:
        raise DataError("a JSON file holds a list of rows, or that list under `data`", where=str(path))
    yield from sliced(str(path), enumerate(rows, start=1), size, beside)


def _decode(content: bytes, path: Path) -> str:
    """The text of a file. An undecodable byte is reported with its line and its place in the line."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start)
        begin = content.rfind(b"\n", 0, error.start) + 1
        raise DataError(
            f"byte {error.start - begin + 1} of the line (0x{content[error.start]:02x}) is not UTF-8",
            where=f"{path}:{line + 1}",
            hint="save the file as UTF-8",
        ) from error


def _too_deep(text: str) -> int:
    """The line of a text at which it is nested deepest."""
    depth = deepest = place = 0
    for index, sign in enumerate(text):
        depth += (sign in "[{") - (sign in "]}")
        if depth > deepest:
            deepest, place = depth, index
    return text.count("\n", 0, place) + 1


def _csv(path: Path, size: int | None) -> Iterator[Table]:
    csv.field_size_limit(LINE_LIMIT)
    with _opened(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        lines = _line_by_line(path, text.readline)
        lines = lines if size else _bounded(lines, file, path)
        start = list(islice(lines, 1))
        delimiter = _delimiter(start[0] if start else "", suffix(path) == ".tsv")
        reader = csv.reader(chain(start, lines), delimiter=delimiter, strict=True)
        try:
            header = next(filter(None, reader), None)
            if header is None:
                raise empty(path)
            refuse_repeated(header, path)
            rows = (_cells(header, cells) for cells in filter(None, reader))
            yield from sliced(str(path), enumerate(rows, start=1), size)
        except csv.Error as error:
            raise DataError(
                f"broken CSV: {error}",
                where=f"{path}, line {reader.line_num}",
                hint=_QUOTE,
            ) from error


def _delimiter(header: str, tabs: bool) -> str:
    """What separates the columns of a header: commas where it has any, else tabs or semicolons; in .tsv files tabs first."""
    outside = re.sub(r'"(?:[^"]|"")*"?', "", header)
    return next((sign for sign in ("\t,;" if tabs else ",\t;") if sign in outside), ",")


def _cells(header: list[str], cells: list[str]) -> dict[str, str] | RowError:
    if len(cells) != len(header):
        how = "more" if len(cells) > len(header) else "fewer"
        return RowError(f"the row has {how} cells than the {len(header)} columns of the header")
    return dict(zip(header, cells, strict=True))


def refuse_repeated(columns: list[str], path: Path) -> None:
    """Raises DataError for two columns of one name, of which only the last would be read."""
    twice = sorted({name for name in columns if columns.count(name) > 1}) if len(set(columns)) < len(columns) else []
    if twice:
        named = ", ".join(f"`{name}`" for name in twice[:5])
        places = ", ".join(str(place) for place, name in enumerate(columns, start=1) if name == twice[0])
        raise DataError(
            f"the file has several columns of the name {named} (columns {places[:80]})",
            where=str(path),
            hint="rename or remove all but one of them: which one is meant cannot be told",
        )


def _parquet(path: Path, size: int | None) -> Iterator[Table]:
    if path.name.lower().endswith(".gz"):
        raise DataError(
            "Parquet files are not read from .gz", where=str(path), hint="gunzip it: Parquet is compressed inside"
        )
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            count, held = file.metadata.num_rows, path.stat().st_size
            if size is None and count > max(MIB, held):  # runs of one value may take no room
                raise DataError(f"the file of {held} bytes says that it has {count} rows", where=str(path))
            refuse_repeated(file.schema_arrow.names, path)
            rows = (row for batch in file.iter_batches(min(size or 1024, 1024)) for row in arrow_rows(batch))
            yield from sliced(str(path), enumerate(rows, start=1), size)
    except (pyarrow.ArrowException, OSError, ValueError, RecursionError, OverflowError) as error:
        raise DataError(
            f"not a readable Parquet file: {first_line(error)}", where=str(path), hint="fetch or write it again"
        ) from error


def arrow_rows(batch: Any) -> Iterator[dict[str, Any] | RowError]:
    """The rows of an Arrow batch. Where a value has no Python form (dates after 9999, bytes that are not UTF-8) it is told
    with its row and column, and dates and times become text.
    """
    failures = _failures()
    try:
        yield from batch.to_pylist()
        return
    except failures:
        pass
    columns = [
        [_value(name, scalar) for scalar in column]
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    for values in zip(*columns, strict=True):
        wrong = next((value for value in values if isinstance(value, RowError)), None)
        yield wrong or dict(zip(batch.schema.names, values, strict=True))


def _failures() -> tuple[type[Exception], ...]:
    """What pyarrow raises for a value that has no Python form."""
    import pyarrow

    return pyarrow.ArrowException, ValueError, OverflowError, RecursionError, TypeError


def _value(name: str, scalar: Any) -> Any:
    import pyarrow

    try:
        return scalar.as_py()
    except _failures() as error:
        with contextlib.suppress(pyarrow.ArrowException, ValueError):
            if pyarrow.types.is_temporal(scalar.type):
                return scalar.cast(pyarrow.string()).as_py()
        return RowError(f"column `{name}` holds a value that cannot be read: {first_line(error)}")


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


READERS: dict[str, Callable[[Path, int | None], Iterator[Table]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
