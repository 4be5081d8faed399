"""Files, folders, datasets saved to disk and hub ids -> tables of plain rows, numbered as a reader counts them.

JSON, JSON Lines and CSV need the standard library only; Parquet loads pyarrow, saved and hub datasets load `datasets`.
JSON Lines, Parquet and datasets can be read in slices, so that a file may be larger than memory; JSON and CSV are read
whole.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .adapters import kind_of
from .console import DataError

SHOWN = 5
"""How many bad rows an error shows; all of them are counted."""

BOOKKEEPING = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
SPLITS = {
    "train": "train",
    "test": "test",
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval"), "validation"),
}
"""Words in file names, and the split they mean."""

# Columns of a CSV file whose cells hold lists, written in JSON.
_LIST_CELLS = ("completions", "responses", "scores", "ranks", "correct", "labels", "tools")


Slices = Iterator[tuple[list, list[int]]]
"""Rows and their numbers, slice after slice."""


@dataclass(frozen=True)
class Table:
    """The rows of one file or one hub split, or a slice of them; `numbers` are their row numbers, counted from 1."""

    name: str
    rows: list[dict[str, Any]]
    numbers: list[int]


def bad_rows(
    name: str, problems: list[tuple[int, str]], *, total: int | None = None, hint: str | None = None
) -> DataError:
    """The error for rows that cannot be read: all are counted, the first five are shown."""
    numbers = [number for number, _ in problems[1:SHOWN]]
    more = ", ..." if len(problems) > SHOWN else ""
    where = f"{name}:{problems[0][0]}" + (f" (also {', '.join(map(str, numbers))}{more})" if numbers else "")
    if len(problems) == 1:
        return DataError(problems[0][1], where=where, hint=hint)
    of = f" of {total}" if total else ""
    if len({reason for _, reason in problems}) == 1:
        return DataError(f"{len(problems)}{of} rows: {problems[0][1]}", where=where, hint=hint)
    listed = "".join(f"\n  row {number}: {reason}" for number, reason in problems[:SHOWN])
    return DataError(f"{len(problems)}{of} rows cannot be read{listed}", where=where, hint=hint)


def read(source: str, split: str | None = None, config: str | None = None, size: int | None = None) -> Iterator[Table]:
    """The tables of one source: one for each file, or slices of at most `size` rows where it is given.

    Raises DataError for anything that cannot be read or holds no rows.
    """
    path = Path(source).expanduser()
    if path.is_file():
        yield from _file(path, size)
    elif path.is_dir():
        saved = (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()
        if saved:
            yield from _saved(path, split, size)
        else:
            for file in _data_files(path, split):
                yield from _file(file, size)
    elif _looks_like_path(source):
        raise _no_such_file(source, path)
    else:
        yield from _hub(source, split, config, size)


def _looks_like_path(source: str) -> bool:
    if _suffix(Path(source)) in READERS or source.startswith((".", "~", "/")) or "\\" in source:
        return True
    return re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source) is None


def _no_such_file(source: str, path: Path) -> DataError:
    neighbours = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, neighbours, n=1)
    if close:
        hint = f"did you mean {path.with_name(close[0])}?"
    else:
        hint = (
            f"{path.parent} holds nothing of a similar name"
            if path.parent.is_dir()
            else f"there is no folder {path.parent}"
        )
    return DataError(f"no such file or folder: {source}", hint=hint)


def _suffix(path: Path) -> str:
    """The kind of a file by its name: ".jsonl" for pairs.jsonl and for pairs.jsonl.gz."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _data_files(folder: Path, split: str | None) -> list[Path]:
    """The data files in a folder, sorted, all of one kind and of one split."""
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and _suffix(path) in READERS
        and path.name not in BOOKKEEPING
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not found:
        raise DataError(
            f"{folder} holds no data files",
            hint=f"data files end in {', '.join(READERS)}, or are datasets saved to disk",
        )
    kinds = sorted({_suffix(path) for path in found})
    if len(kinds) > 1:
        raise DataError(
            f"{folder} holds files of several kinds ({', '.join(kinds)})",
            hint=f"name the files you mean, as in {found[0]}",
        )
    by_split: dict[str | None, list[Path]] = {}
    for path in found:
        by_split.setdefault(_split_of(path), []).append(path)
    asked_for = SPLITS.get(split, split) if split else None
    if asked_for and asked_for in by_split:
        return by_split[asked_for]
    if len(by_split) > 1 or (split and None not in by_split):
        named = ", ".join(name for name in by_split if name)
        asked = f"no files of the split {split}" if split else "files of several splits"
        raise DataError(
            f"{folder} holds {asked} ({named})", hint="choose one with --dataset_split, or name the files you mean"
        )
    return found


def _split_of(path: Path) -> str | None:
    """The split that a file's name says it belongs to: train-00000-of-00002.parquet, pairs.test.jsonl."""
    words = re.split(r"[^a-z]+", path.name.lower())
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def _file(path: Path, size: int | None) -> Iterator[Table]:
    kind = _suffix(path)
    if kind not in READERS:
        raise DataError(
            f"unknown kind of file: {path.name}",
            where=str(path),
            hint=f"files end in {', '.join(READERS)}; all but Parquet may end in .gz",
        )
    empty = True
    for rows, numbers in READERS[kind](path, size):
        if rows:
            empty = False
            _refuse_strangers(path, rows, numbers)
            yield Table(str(path), rows, numbers)
    if empty:
        raise DataError("the file holds no rows", where=str(path), hint="check that it was written to the end")


def _refuse_strangers(path: Path, rows: list, numbers: list[int]) -> None:
    strangers = [
        (number, f"the row is {kind_of(row)}, not an object with columns")
        for row, number in zip(rows, numbers, strict=True)
        if not isinstance(row, dict)
    ]
    if strangers:
        raise bad_rows(
            str(path),
            strangers,
            total=len(rows),
            hint='a row looks like {"prompt": ..., "chosen": ..., "rejected": ...}',
        )


def _sliced(rows: list, size: int | None) -> Slices:
    """Rows that are in memory already, numbered from 1, in slices."""
    size = size or max(1, len(rows))
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        yield part, list(range(start + 1, start + 1 + len(part)))


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, unpacked where it is packed, without the mark that some editors put before the first."""
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opened(path, "rb") as file:
            for number, line in enumerate(file):
                if number == 0 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise DataError("the file is written in UTF-16", where=str(path), hint="save it as UTF-8")
                yield line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"the file is no whole gzip file: {error}", where=str(path), hint="fetch or write it again"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read the file: {error.strerror}", where=str(path)) from error


def _bytes(path: Path) -> bytes:
    content = b"".join(_lines(path))
    if not content.strip():
        raise _empty(path)
    return content


def _empty(path: Path) -> DataError:
    return DataError("the file is empty", where=str(path), hint="check that it was written to the end")


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"byte {error.start + 1} of the row (0x{error.object[error.start]:02x}) is not UTF-8"


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


def _jsonl(path: Path, size: int | None = None) -> Slices:
    """Broken lines are reported together, at the end of the file."""
    rows, numbers, problems, read = [], [], [], 0
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        read += 1
        try:
            rows.append(_parse(line.rstrip(b"\r\n").decode("utf-8")))
            numbers.append(number)
        except UnicodeDecodeError as error:
            problems.append((number, _not_utf8(error)))
        except json.JSONDecodeError as error:
            problems.append((number, f"broken JSON: {error.msg} at column {error.colno}"))
        except ValueError as error:
            problems.append((number, str(error)))
        if len(rows) == size:
            yield rows, numbers
            rows, numbers = [], []
    if not read:
        raise _empty(path)
    if problems:
        raise bad_rows(str(path), problems, total=read, hint="every line is one JSON object, in UTF-8")
    yield rows, numbers


def _parse(text: str) -> Any:
    r"""JSON -> value. Raises ValueError for half an emoji (a lone \ud83d), which no file and no tokenizer can hold."""
    value = json.loads(text)
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("the row holds one half of a surrogate pair (\\ud83d without its partner)") from None
    return value


def _json(path: Path, size: int | None) -> Slices:
    text = _decode(_bytes(path), path)
    try:
        rows = _parse(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # one object a line under the name .json
            yield from _jsonl(path, size)
            return
        raise DataError(f"broken JSON: {error.msg} at column {error.colno}", where=f"{path}:{error.lineno}") from error
    except ValueError as error:
        raise DataError(str(error), where=str(path)) from error
    if isinstance(rows, dict):
        rows = rows["data"] if isinstance(rows.get("data"), list) else [rows]
    if not isinstance(rows, list):
        raise DataError("a JSON file holds a list of rows, or that list under `data`", where=str(path))
    yield from _sliced(rows, size)


def _csv(path: Path, size: int | None) -> Slices:
    text = _decode(_bytes(path), path)
    csv.field_size_limit(2**31 - 1)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows, problems = [], []
    try:
        for number, row in enumerate(reader, start=1):
            if None in row:
                problems.append(
                    (number, f"the row has more cells than the {len(reader.fieldnames)} columns of the header")
                )
            elif None in row.values():
                problems.append(
                    (number, f"the row has fewer cells than the {len(reader.fieldnames)} columns of the header")
                )
            rows.append({name: _cell(name, cell) for name, cell in row.items() if name is not None})
    except csv.Error as error:
        raise DataError(
            f"broken CSV: {error}",
            where=f"{path}:{len(rows) + 1}",
            hint="quote cells that hold commas, quotes or line breaks",
        ) from error
    if problems:
        raise bad_rows(str(path), problems, total=len(rows), hint="quote cells that hold commas, quotes or line breaks")
    yield from _sliced(rows, size)


def _cell(name: str, cell: Any) -> Any:
    """A cell as text, or the JSON list in it: messages anywhere, other lists in columns that hold lists."""
    if not isinstance(cell, str) or not cell.startswith(("[", "{")):
        return cell
    try:
        value = json.loads(cell)
    except ValueError:
        return cell
    items = value if isinstance(value, list) else [value]
    are_messages = all(isinstance(item, dict) and ("role" in item or "from" in item) for item in items)
    return value if name in _LIST_CELLS or (items and are_messages) else cell


def _parquet(path: Path, size: int | None) -> Slices:
    if path.name.lower().endswith(".gz"):
        raise DataError(
            "Parquet files are not read from .gz", where=str(path), hint="gunzip it: Parquet is compressed inside"
        )
    import pyarrow
    import pyarrow.parquet

    first = 1
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(size or max(1, file.metadata.num_rows)):
                rows = batch.to_pylist()
                yield rows, list(range(first, first + len(rows)))
                first += len(rows)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"no readable Parquet file: {_first_line(error)}", where=str(path), hint="fetch or write it again"
        ) from error


READERS: dict[str, Callable[[Path, int | None], Slices]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}


def _saved(path: Path, split: str | None, size: int | None) -> Iterator[Table]:
    """A folder written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`."""
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"no readable saved dataset: {_first_line(error)}", where=str(path)) from error
    yield from _from_datasets(loaded, str(path), split, size)


# What `datasets` says of a dataset that is there -> the flag that was wrong.
_WRONG_CHOICES = {
    "Unknown split": "choose one with --dataset_split (train.py: --dataset_train_split, --dataset_test_split)",
    "Config name is missing": "choose one with --dataset_config",
    "BuilderConfig": "choose one with --dataset_config",
}


def _hub(name: str, split: str | None, config: str | None, size: int | None) -> Iterator[Table]:
    import datasets

    try:
        loaded = datasets.load_dataset(name, name=config, split=split)
    except Exception as error:  # every layer below (HTTP, hub, cache, arrow) raises its own kinds
        for words, flag in _WRONG_CHOICES.items():
            if str(error).startswith(words):
                said = " ".join(str(error).splitlines()[:2])  # the second line lists the configurations
                raise DataError(said, where=name, hint=flag) from error
        close = difflib.get_close_matches(name, [entry.name for entry in Path().iterdir()], n=1)
        hint = (
            f"did you mean the file {close[0]}?"
            if close
            else "check the spelling and the network, or name a local file"
        )
        raise DataError(
            f"{name} is no file here, and no dataset that the hub gave: {_first_line(error)}", hint=hint
        ) from error
    yield from _from_datasets(loaded, name, split, size)


def _from_datasets(loaded: Any, name: str, split: str | None, size: int | None) -> Iterator[Table]:
    if isinstance(loaded, dict):
        wanted = split or ("train" if "train" in loaded else next(iter(loaded)) if len(loaded) == 1 else None)
        if wanted not in loaded:
            asked = f"has no split {split}" if split else "has several splits"
            raise DataError(f"{name} {asked} ({', '.join(loaded)})", hint="choose one with --dataset_split")
        loaded = loaded[wanted]
    if not len(loaded):
        raise DataError("the dataset holds no rows", where=name)
    size = size or len(loaded)
    for start in range(0, len(loaded), size):
        rows = loaded.select(range(start, min(start + size, len(loaded)))).to_list()
        yield Table(name, rows, list(range(start + 1, start + 1 + len(rows))))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
