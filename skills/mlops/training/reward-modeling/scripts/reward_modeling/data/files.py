"""One file of rows -> slices of numbered rows. Memory is bounded by the length of a line, or how well a .gz file unpacks."""

import contextlib
import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, chain, count
from pathlib import Path
from typing import TYPE_CHECKING, AnyStr, BinaryIO

from ..errors import DataError
from ..results import Row
from .cells import Refused, RowError, are_messages, clean, loads, type_of

if TYPE_CHECKING:
  import pyarrow

MIB = 2**20
LINE_LIMIT = 64 * MIB
# A .gz file that is read whole may not unpack to more than both: text packs ten to one.
STRETCH, RATIO = 4 * MIB, 200
SHOWN = 5
EMPTY = "row of empty cells"
AGAIN = "fetch or write it again"
_QUOTE = "quote cells that hold commas, quotes or line breaks"
_LINE = "every line is one JSON object, in UTF-8"
_HINTS = {".jsonl": _LINE, ".ndjson": _LINE, ".csv": _QUOTE, ".tsv": _QUOTE}


@dataclass(frozen=True)
class Table:
  """`numbers`: of the rows, from 1."""

  name: str
  rows: list[Row] = field(default_factory=list)
  numbers: list[int] = field(default_factory=list)
  problems: list[tuple[int, str]] = field(default_factory=list)
  """(number, reason)."""
  set_aside: dict[str, int] = field(default_factory=dict)

  def __len__(self) -> int:
    return len(self.rows) + len(self.problems)

  def refused(self, problems: list[tuple[int, str]], hint: str | None = None) -> DataError:
    numbers, reasons = zip(*problems, strict=True)
    where, several = f"{self.name}:{numbers[0]}", f"{len(numbers)} of {len(self)} rows"
    if len(numbers) > 1:
      more = ", ..." if len(numbers) > SHOWN else ""
      where += f" (also {', '.join(map(str, numbers[1:SHOWN]))}{more})"
    if len(set(reasons)) > 1:
      listed = (f"\n  row {number}: {reason}" for number, reason in problems[:SHOWN])
      message = f"{several} cannot be read{''.join(listed)}"
    else:
      message = f"{several}: {reasons[0]}" if len(numbers) > 1 else reasons[0]
    hint = "save the file as UTF-8" if reasons[0].endswith("is not UTF-8") else hint
    like = 'a row looks like {"prompt": ..., "chosen": ..., "rejected": ...}'
    return DataError(message, where=where, hint=hint or _HINTS.get(suffix(Path(self.name)), like))

  def complete(self) -> "Table":
    if self.problems:
      raise self.refused(self.problems)
    return self

  def joined(self, other: "Table") -> "Table":
    lists = {name: getattr(self, name) + getattr(other, name) for name in ("rows", "numbers", "problems")}
    return Table(self.name, **lists, set_aside=self.set_aside | other.set_aside)


def sliced(name: str, rows: Iterable[tuple[int, object]], size: int | None, set_aside=()) -> Iterator[Table]:
  """Tables of `size` rows, or one. A RowError may stand for a row, or EMPTY for one that is set aside."""
  part = Table(name, set_aside=dict(set_aside))
  for number, row in rows:
    if row is EMPTY:
      part.set_aside[EMPTY] = part.set_aside.get(EMPTY, 0) + 1
      continue
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


UNDER = ("data", "rows", "examples", "instances", "records")
SPLITS = {
  **dict.fromkeys(("train", "training"), "train"),
  **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
  **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}


def rows_of(found, where: str) -> tuple[list | None, dict[str, int]]:
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
  of_one_length = others and all(isinstance(value, list) and len(value) == len(rows) for value in others)
  return of_one_length and not all(isinstance(item, dict) for item in rows)


def _are_split(names, rows: list) -> bool:
  texts = isinstance(names, list) and bool(names) and all(isinstance(name, str) for name in names)
  return texts and len(set(names)) == len(names) and all(isinstance(row, list) for row in rows)


def _columns(found: Row) -> list[Row] | None:
  values = list(found.values())
  if all(isinstance(value, dict) for value in values):
    first = list(values[0]) if values else []
    alike = len(values) > 1 and len(first) > 1 and all(value.keys() == values[0].keys() for value in values)
    if all(map(str.isdecimal, found)) or (alike and not are_messages(values) and not first[0].isdecimal()):
      return values  # pandas, orient="index"
    if any(list(value) != first or not all(map(str.isdecimal, value)) for value in values):
      return None
    values = [list(value.values()) for value in values]
  if len(values) < 2 or not all(isinstance(value, list) and value and not are_messages(value) for value in values):
    return None
  if len(set(map(len, values))) > 1:
    return None
  return [dict(zip(found, row, strict=True)) for row in zip(*values, strict=True)]


def suffix(path: Path) -> str:
  """pairs.jsonl.gz -> .jsonl"""
  return Path(path.name.lower().removesuffix(".gz")).suffix


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
  try:
    with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb") as file:
      start = file.peek(3)[:3]
      if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError("the file is written in UTF-16", where=path, hint="save it as UTF-8")
      if not start:
        raise _empty(path)
      if start == b"\xef\xbb\xbf":
        file.read(3)
      yield file
  except (gzip.BadGzipFile, EOFError, zlib.error) as error:
    raise DataError(f"the gzip file is truncated or corrupt: {error}", where=path, hint=AGAIN) from error
  except OSError as error:
    raise DataError(f"cannot read the file: {error.strerror}", where=path) from error


def _empty(path: Path) -> DataError:
  return DataError("the file is empty", where=path, hint=AGAIN)


def _bounded(pieces: Iterator[AnyStr], file: BinaryIO, path: Path) -> Iterator[AnyStr]:
  packed, size = getattr(file, "fileobj", None), 0
  for piece in pieces:
    size += len(piece)
    if packed and size > max(STRETCH, RATIO * packed.tell()):
      what = f"the file unpacks to more than {RATIO} times its size"
      hint = "if that is right, unpack it with gunzip"
      raise DataError(what, where=path, hint=hint)
    yield piece


def _line_by_line(path: Path, readline: Callable[[int], AnyStr]) -> Iterator[AnyStr]:
  for number, line in enumerate(iter(lambda: readline(LINE_LIMIT + 1), readline(0)), start=1):
    if len(line) > LINE_LIMIT:
      what = f"the line is longer than {LINE_LIMIT // MIB} MiB"
      raise DataError(what, where=f"{path}:{number}", hint="write one row a line")
    yield line


def _jsonl(path: Path, size: int | None) -> Iterator[Table]:
  """The file may be one JSON document after all."""
  with _opened(path) as file:
    lines = filter(None, (line.strip() for line in _line_by_line(path, file.readline)))
    first, second = next(lines, b""), next(lines, b"")
  found = _row(first)
  if isinstance(found, RowError):
    document = (first.startswith(b"[") or first == b"{") and second and not isinstance(_row(second), dict)
  else:
    document = isinstance(found, list) and not second and any(isinstance(row, dict) for row in found)
  yield from (_json if document else _lines)(path, size)


def _lines(path: Path, size: int | None) -> Iterator[Table]:
  with _opened(path) as file:
    lines = _line_by_line(path, file.readline)
    numbered = enumerate(lines if size else _bounded(lines, file, path), start=1)
    yield from sliced(str(path), ((number, _row(line)) for number, line in numbered if line.strip()), size)


def _row(line: bytes) -> object:
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
    raise _empty(path)
  try:
    text = content.decode("utf-8")
    found = loads(text)
  except UnicodeDecodeError as error:
    line, place = content.count(b"\n", 0, error.start) + 1, error.start - content.rfind(b"\n", 0, error.start)
    what = f"byte {place} of the line (0x{content[error.start]:02x}) is not UTF-8"
    raise DataError(what, where=f"{path}:{line}", hint="save the file as UTF-8") from error
  except json.JSONDecodeError as error:
    if error.msg == "Extra data":  # one object a line under the name .json
      yield from _lines(path, size)
      return
    raise DataError(f"broken JSON: {error.msg} at column {error.colno}", where=f"{path}:{error.lineno}") from error
  except RecursionError as error:
    depths = accumulate((sign in "[{") - (sign in "]}") for sign in text)
    _, deepest = max(zip(depths, count(0, -1), strict=False))
    line = text.count("\n", 0, -deepest) + 1
    raise DataError("the file nests lists and objects too deep", where=f"{path}:{line}") from error
  if isinstance(found, Refused):
    raise DataError(found.reason, where=path)
  rows, beside = rows_of(found, str(path))
  if rows is None:
    raise DataError("a JSON file holds a list of rows, or that list under `data`", where=path)
  yield from sliced(str(path), enumerate(rows, start=1), size, beside)


def _csv(path: Path, size: int | None) -> Iterator[Table]:
  csv.field_size_limit(LINE_LIMIT)
  with _opened(path) as file:
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    lines = _line_by_line(path, text.readline)
    lines = lines if size else _bounded(lines, file, path)
    start = next(lines, "")
    excel = re.fullmatch(r"sep=(.)\s*", start)
    start = next(lines, "") if excel else start
    outside = re.sub(r'"(?:[^"]|"")*"?', "", start)
    signs = "\t,;|" if suffix(path) == ".tsv" else ",\t;|"
    delimiter = excel[1] if excel else next((sign for sign in signs if sign in outside), ",")
    spaced = f"{delimiter} " in outside
    reader = csv.reader(chain([start], lines), delimiter=delimiter, strict=True, skipinitialspace=spaced)
    try:
      header = next(filter(None, reader), None)
      if header is None:
        raise _empty(path)
      if header.count("") > 1:
        header = [name or f"Unnamed: {place}" for place, name in enumerate(header)]
      _refuse_repeated(header, path)
      rows = (_cells(header, cells) for cells in filter(None, reader))
      yield from sliced(str(path), enumerate(rows, start=1), size)
    except csv.Error as error:
      raise DataError(f"broken CSV: {error}", where=f"{path}, line {reader.line_num}", hint=_QUOTE) from error


def _cells(header: list[str], cells: list[str]) -> dict[str, str] | RowError | str:
  if len(header) > 1 and not any(cells):  # as Excel ends
    return EMPTY
  if len(cells) != len(header):
    how = "more" if len(cells) > len(header) else "fewer"
    return RowError(f"the row has {how} cells than the {len(header)} columns of the header")
  return dict(zip(header, cells, strict=True))


def _refuse_repeated(columns: list[str], path: Path) -> None:
  twice = sorted(name for name, times in Counter(columns).items() if times > 1)
  if twice:
    places = ", ".join(str(place) for place, name in enumerate(columns, start=1) if name == twice[0])
    what = f"the file has several columns of the name `{'`, `'.join(twice[:5])}` (columns {places[:80]})"
    raise DataError(what, where=path, hint="rename or remove all but the one that is meant")


def _parquet(path: Path, size: int | None) -> Iterator[Table]:
  if path.name.lower().endswith(".gz"):
    hint = "gunzip it: Parquet is compressed inside"
    raise DataError("Parquet files are not read from .gz", where=path, hint=hint)
  import pyarrow
  import pyarrow.parquet

  try:
    with pyarrow.parquet.ParquetFile(path) as file:
      rows, held = file.metadata.num_rows, path.stat().st_size
      if size is None and rows > max(MIB, held):  # runs of one value may take no room
        raise DataError(f"the file of {held} bytes says that it has {rows} rows", where=path)
      _refuse_repeated(file.schema_arrow.names, path)
      yield from arrow_tables(str(path), file.iter_batches(min(size or 1024, 1024)), size)
  except (pyarrow.ArrowException, OSError, ValueError, RecursionError, OverflowError) as error:
    raise DataError(f"not a readable Parquet file: {first_line(error)}", where=path, hint=AGAIN) from error


def arrow_tables(name: str, batches: "Iterable[pyarrow.RecordBatch]", size: int | None) -> Iterator[Table]:
  return sliced(name, enumerate(chain.from_iterable(map(_arrow_rows, batches)), start=1), size)


def _arrow_rows(batch) -> Iterator[Row | RowError]:
  """A value without a Python form (dates after 9999, broken UTF-8) becomes text, or its row a RowError."""
  import pyarrow

  failures = (pyarrow.ArrowException, ValueError, OverflowError, RecursionError, TypeError)

  def value(name: str, scalar) -> object:
    try:
      return scalar.as_py()
    except failures as error:
      with contextlib.suppress(pyarrow.ArrowException, ValueError):
        if pyarrow.types.is_temporal(scalar.type):
          return scalar.cast(pyarrow.string()).as_py()
      return RowError(f"column `{name}` holds a value that cannot be read: {first_line(error)}")

  with contextlib.suppress(*failures):
    yield from batch.to_pylist()
    return
  names = batch.schema.names
  for cells in zip(*batch.columns, strict=True):
    row = dict(zip(names, map(value, names, cells), strict=True))
    yield next((found for found in row.values() if isinstance(found, RowError)), row)


def first_line(error: BaseException) -> str:
  return (str(error).strip() or type(error).__name__).splitlines()[0]


READERS: dict[str, Callable[[Path, int | None], Iterator[Table]]] = {
  **dict.fromkeys((".jsonl", ".ndjson"), _jsonl),
  ".json": _json,
  **dict.fromkeys((".csv", ".tsv"), _csv),
  ".parquet": _parquet,
}
