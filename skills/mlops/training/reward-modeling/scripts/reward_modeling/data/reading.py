"""Any dataset -> typed records.

records = load(["pairs.jsonl.gz"])                     all rows
for ranking in stream(["completions.jsonl"]): ...      rows to be scored, a slice at a time
load_prompts(["questions.parquet"])                    what the rows ask, in any format
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

from ..console import UsageError, log
from .columns import root_of
from .converting import Reading, records_of
from .formats import PROMPTS
from .records import Ranking, Records, prompts, to_score
from .sources import read
from .winners import said

SLICE = 4096
"""Rows of a stream that are in memory together."""

VERBATIM = ("explicit", "axolotl", "question", "pairwise", "pair", "ranking", "ranks", "completions", "completion")
VERBATIM += (
    "shp",
    "helpsteer3",
    "pku_saferlhf",
    "judgebench",
    "ppe",
    "stack_exchange_paired",
    "nemo_rl",
    "ultrafeedback",
)
VERBATIM += ("stepwise", "ratings", "processbench", "prmbench", "steps", "prompt")
"""Formats whose texts reach the model as they stand in the file."""


def load(sources: list[str] | str, **how: Any) -> Records:
    """Read files, folders, datasets saved to disk and hub ids, one after the other. how: the fields of `Reading`.

    Ties and rows whose label is null are set aside and counted. Rows without labels are Rankings without scores or Solutions
    without labels; the uses in records.py take or refuse them. Raises UsageError for an unknown format, and DataError, with
    file and row, for what cannot be read.
    """
    reading = Reading(**how)
    sources = [sources] if isinstance(sources, str) else sources
    tables = (table for source in sources for table in read(source, reading.split, reading.config))
    parts = [records_of(table, reading, reading.format) for table in tables]
    if not parts:
        raise UsageError("no dataset was named", hint="give a file, a folder or a hub id")
    winners = _total(part.winner_values for part in parts)
    if winners:
        log(said(winners))
    starts = accumulate((len(part.rows) + len(part.undecided) for part in parts), initial=0)
    return Records(
        rows=[row for part in parts for row in part.rows],
        formats={file: format for part in parts for file, format in part.formats.items()},
        columns_used=_distinct(part.columns_used for part in parts),
        metadata_columns=_distinct(part.metadata_columns for part in parts),
        set_aside=_total(part.set_aside for part in parts),
        undecided=tuple(
            one._replace(place=start + one.place)
            for start, part in zip(starts, parts, strict=False)
            for one in part.undecided
        ),
        unreadable=tuple(row for part in parts for row in part.unreadable),
        winner_values=winners,
    )


def load_prompts(sources: list[str] | str, **how: Any) -> Records:
    """What the rows ask, in any format and also without answers, as Rankings without completions. Nobody asks who won."""
    return prompts(load(sources, tiers=PROMPTS, neutral="ignore", **how))


@dataclass(frozen=True)
class Stream:
    """Rows to be scored that may be more than memory holds: all of them were checked, and each pass reads them again."""

    sources: tuple[str, ...]
    reading: Reading
    steps: bool
    formats: dict[str, str] = field(default_factory=dict)
    """{file: the format found in its first rows}."""
    rows: int = 0
    completions: int = 0

    format = Records.format

    def slices(self) -> Iterator[Records]:
        """Slice after slice as records. The first of a file decides its format and must have all columns."""
        for source in self.sources:
            for table in read(source, self.reading.split, self.reading.config, SLICE):
                known, reading = self.formats.get(table.name), self.reading
                if known:
                    present = {name for row in table.rows for name in row}
                    given = (reading.columns or {}).items()
                    columns = {name: col for name, col in given if root_of(col or name, present) in present}
                    reading = replace(reading, columns=columns)
                records = records_of(table, reading, reading.format or known)
                self.formats.update(records.formats)
                yield to_score(records, steps=self.steps)

    def __iter__(self) -> Iterator[Ranking]:
        for records in self.slices():
            yield from records.rows


def stream(sources: list[str], *, steps: bool = False, **how: Any) -> Stream:
    """Check all rows as `to_score(load(sources, **how), steps=steps)` does, and keep none: what is wrong is said before the
    work begins.

    Raises what `load` raises; the rows counted in an error are those of one slice of SLICE rows.
    """
    checked = Stream(tuple(sources), Reading(neutral="ignore", **how), steps)
    rows = completions = 0
    set_aside, winners = Counter(), Counter()
    for records in checked.slices():
        rows += len(records.rows)
        completions += sum(len(row.completions) for row in records.rows)
        set_aside.update(records.set_aside)
        winners.update(records.winner_values)
    if winners:
        log(said(winners))
    for reason, count in set_aside.items():
        log(f"not read: {reason} ({count})")
    return replace(checked, rows=rows, completions=completions)


def check_verbatim(records: Records | Stream) -> None:
    """Raises UsageError where reading takes texts apart, which text that is rendered already must not be."""
    for name in records.formats.values():
        if name not in VERBATIM:
            raise UsageError(
                f"--text_format rendered needs prompt and answer in columns of their own: format `{name}` takes texts apart",
                hint="name the columns, as in --format explicit --columns prompt=A,chosen=B,rejected=C",
            )


def _total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    return dict(sum(map(Counter, counts), Counter()))


def _distinct(lists: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in lists for name in names))
