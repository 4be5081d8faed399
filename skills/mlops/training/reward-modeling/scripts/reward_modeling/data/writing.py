"""Records as rows. Metadata whose names the row itself uses stand in the object `metadata`, which reading takes apart again."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from ..errors import DataError
from ..results import Row, to_json
from ..terminal import listed, log
from .files import Table, suffix
from .formats import COLUMN_NAMES, INPUT_LIKE, LABEL_NAMES
from .records import Comparison, Record, Records, Solution

METADATA = "metadata"
RESULTS = "id origin reward rewards order index step_rewards attributes finished reward_chosen reward_rejected "
RESULTS += "threshold first_flagged first_error other_reward_chosen other_reward_rejected length_chosen "
RESULTS += "length_rejected lengths"
RESULTS = frozenset(RESULTS.split())
"""Names of results."""


def to_row(record: Record) -> Row:
  """`load` reads it back to an equal record."""
  row = {"prompt": record.prompt} | _answers(record)
  row |= {name: getattr(record, name, None) for name in ("margin", "weight", "tools", "id")}
  row = {name: value for name, value in row.items() if value is not None and (name, value) != ("weight", 1)}
  return with_metadata(row, record.metadata, canonical=True)


def _answers(record: Record) -> Row:
  if isinstance(record, Comparison):
    return {"chosen": record.chosen, "rejected": record.rejected}
  if isinstance(record, Solution):
    return {"steps" if record.labels is None else "completions": record.steps, "labels": record.labels}
  answers, scores, ratings = record.completions, record.scores, record.ratings
  if record.is_labeled_answer:
    return {"completion": answers[0], "label": scores[0] > 0}
  if scores is None and ratings is not None and len(ratings) == 1:
    return {"completion": answers[0], "ratings": ratings[0]}
  return {"completions": answers or None, "scores": scores, "ratings": ratings}


def with_metadata(row: Row, metadata: Row, *, canonical: bool = False) -> Row:
  """canonical: names that a format would read are taken, too."""
  apart = {name: value for name, value in metadata.items() if name in row or (canonical and is_read(name))}
  if METADATA in metadata and (apart or _is_apart(metadata[METADATA])):
    apart[METADATA] = metadata[METADATA]
  kept = {name: value for name, value in metadata.items() if name not in apart}
  return row | kept | ({METADATA: apart} if apart else {})


def unwrapped_metadata(metadata: Row) -> Row:
  """Metadata before `with_metadata`."""
  apart = metadata.get(METADATA)
  kept = {name: value for name, value in metadata.items() if name != METADATA}
  return kept | apart if _is_apart(apart) and apart.keys().isdisjoint(kept) else metadata


def counted(rows: Iterable[Row], moved: Counter[str]) -> Iterator[Row]:
  for row in rows:
    if _is_apart(row.get(METADATA)):
      moved.update(row[METADATA].keys())
    yield row


def tell_moved(moved: Counter[str]) -> dict[str, int] | None:
  if not moved:
    return None
  log(f"metadata whose names the rows themselves use are in the column `{METADATA}` (rows): {listed(moved)}")
  return dict(moved)


def _is_apart(value) -> bool:
  if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
    return False
  return bool(value) and all(name == METADATA or name in RESULTS or is_read(name) for name in value)


def is_read(name: str) -> bool:
  return name in COLUMN_NAMES or name in LABEL_NAMES or name.lower() in INPUT_LIKE


def kept_rows(table: Table, records: Records, left: dict[int, Record]) -> Iterator[Row]:
  """left: {place in `records.rows`: record}."""
  stays: dict[int, bool] = {}
  for place, record in enumerate(records.rows):
    here = left.get(place) is record
    if stays.setdefault(record.origin.row, here) != here or left.get(place, record) is not record:
      what = "only a part of this row stays (completions of a ranking, or alternatives of a step, are dropped)"
      hint = "--layout canonical can say that, the file's own columns cannot"
      raise DataError(what, where=record.origin, hint=hint)
  yield from (row for number, row in zip(table.numbers, table.rows, strict=True) if stays.get(number))


def lines(rows: Iterable[Row], columns: Iterable[str], output: Path) -> Iterator[str]:
  separator = {".csv": ",", ".tsv": "\t"}.get(suffix(output))
  if not separator:
    yield from map(to_json, rows)
    return
  columns = list(columns)
  for cells in chain([columns], ([_cell(row.get(name)) for name in columns] for row in rows)):
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\r\n").writerow(cells)
    yield text.getvalue().removesuffix("\r\n")


def _cell(value) -> object:
  return "" if value is None else value if isinstance(value, str) else to_json(value)
