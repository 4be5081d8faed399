"""Any dataset -> typed records."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import groupby

from ..errors import UsageError
from ..terminal import log
from .columns import root_of
from .converting import Reading, is_one_piece, records_of
from .entries import said
from .files import Table
from .formats import PROMPTS
from .records import Ranking, Records, joined, prompts, to_score
from .sources import read

SLICE = 4096

VERBATIM = "explicit axolotl question pairwise pair ranking ranks completions completion kto rated shp helpsteer3 "
VERBATIM += "pku_saferlhf pku_saferlhf_safer judgebench ppe stack_exchange_paired rewardbench rmb rmb_best_of_n "
VERBATIM += "nemo_rl ultrafeedback stepwise ratings processbench prmbench steps prompt best scored_pair"
VERBATIM = frozenset(VERBATIM.split())
"""Formats whose texts reach the model unchanged."""


def load(sources: list[str] | str, **how) -> Records:
  """Ties and rows whose label is null are set aside. how: the fields of `Reading`.

  Raises UsageError for an unknown format, DataError (FILE:ROW) for what cannot be read."""
  reading = Reading(**how)
  sources = [sources] if isinstance(sources, str) else sources
  tables = (table for source in sources for table in read(source, reading.split, reading.config))
  records = joined(records_of(table, reading) for table in tables)
  if not records.formats:
    raise UsageError("no dataset was named", hint="give a file, a folder or a hub id")
  if records.winner_values:
    log(said(records.winner_values))
  return records


def slices(sources: Iterable[str], reading: Reading) -> Iterator[tuple[Table, Records]]:
  """The first slice of a file decides its format and must have all columns."""
  tables = (table for source in sources for table in read(source, reading.split, reading.config, SLICE))
  for _, of_file in groupby(tables, key=lambda table: table.name):
    yield from _slices_of_file(of_file, reading)


def _slices_of_file(tables: Iterator[Table], reading: Reading) -> Iterator[tuple[Table, Records]]:
  first = next(tables)
  if len(first) == SLICE and is_one_piece(first, reading):
    first = reduce(Table.joined, tables, first)
  records = records_of(first, reading)
  yield first, records
  for table in tables:
    present = {name for row in table.rows for name in row}
    given = (reading.columns or {}).items()
    columns = {name: col for name, col in given if root_of(col or name, present) in present}
    here = replace(reading, columns=columns, format=records.formats[first.name])
    yield table, records_of(table, here, first=False)


def load_prompts(sources: list[str] | str, **how) -> Records:
  return prompts(load(sources, tiers=PROMPTS, neutral="ignore", **how))


@dataclass(frozen=True)
class Stream:
  """Checked rows that may be more than memory holds: each pass reads them again."""

  sources: tuple[str, ...]
  reading: Reading
  steps: bool
  formats: dict[str, str] = field(default_factory=dict)
  rows: int = 0
  completions: int = 0

  format = Records.format

  def slices(self) -> Iterator[Records]:
    for _, records in slices(self.sources, self.reading):
      self.formats.update(records.formats)
      yield to_score(records, steps=self.steps)

  def __iter__(self) -> Iterator[Ranking]:
    for records in self.slices():
      yield from records.rows


def stream(sources: list[str], *, steps: bool = False, check: bool = True, **how: object) -> Stream:
  """Check as `to_score(load(sources, **how), steps=steps)` does, and keep nothing; without, nothing is counted either."""
  checked = Stream(tuple(sources), Reading(neutral="ignore", **how), steps)
  if not check:
    return checked
  rows = completions = 0
  summary = Records([])
  for records in checked.slices():
    rows += len(records.rows)
    completions += sum(len(row.completions) for row in records.rows)
    summary = joined([summary, records], rows=False)
  if summary.winner_values:
    log(said(summary.winner_values))
  for reason, count in summary.set_aside.items():
    log(f"not read: {reason} ({count})")
  return replace(checked, rows=rows, completions=completions)


def check_verbatim(records: Records | Stream) -> None:
  for name in records.formats.values():
    if name not in VERBATIM:
      what = f"--text_format rendered needs columns of prompt and answer: format `{name}` takes texts apart"
      raise UsageError(what, hint="name them, as in --format explicit --columns prompt=A,chosen=B,rejected=C")
