"""Any dataset -> typed records.

    records = load(["pairs.jsonl.gz"])       rows in the order of the file, every format to the same three types
    pairs = comparisons(records)             rankings taken apart into pairs
    to_row(pairs[0])                         the canonical JSON form, which `load` reads back to an equal record

The formats are in formats.py, the files and hubs in sources.py. `split_by_prompt` holds rows out for validation.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from ..console import DataError, UsageError, log
from .metadata import with_metadata
from .winners import said

Message = dict[str, Any]
"""One chat message: {"role": "system" | "user" | "assistant" | "tool", "content": str, ...}."""


@dataclass(frozen=True)
class Origin:
    """Where a record was read: printed as FILE:ROW, rows counted from 1."""

    file: str
    row: int

    def __str__(self) -> str:
        return f"{self.file}:{self.row}"


@dataclass(frozen=True)
class Comparison:
    """One prompt, a preferred and a rejected completion.

    `margin` is how much better `chosen` is, in the units of the labels, or None. `weight` counts the pair in a mean:
    the pairs of one ranking share a weight of 1.
    """

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    margin: float | None = None
    weight: float = 1.0
    tools: list[dict] | None = None
    id: str | int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    origin: Origin | None = None


@dataclass(frozen=True)
class Ranking:
    """One prompt and any number of completions; `scores` are the labels, higher is better, or None when unlabelled."""

    prompt: list[Message]
    completions: list[list[Message]]
    scores: list[float] | None = None
    tools: list[dict] | None = None
    id: str | int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    origin: Origin | None = None


@dataclass(frozen=True)
class Solution:
    """One prompt and an answer in steps.

    `labels` holds one label a step (1 good, 0 bad, a probability, or None where nobody judged it), or is None.
    """

    prompt: list[Message]
    steps: list[str]
    labels: list[float | None] | None = None
    id: str | int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    origin: Origin | None = None


@dataclass(frozen=True)
class Records:
    """What was read. `rows` are in input order; `set_aside` counts the rows kept out of them, by reason."""

    rows: list[Comparison | Ranking | Solution]
    format: str
    """The formats found, joined by " and " when the sources differ."""
    columns_used: tuple[str, ...] = ()
    metadata_columns: tuple[str, ...] = ()
    set_aside: dict[str, int] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    """(FILE:ROW, reason) of the rows that were left out because they cannot be read, where `load` was asked to."""
    winner_values: dict[str, int] = field(default_factory=dict)
    """Rows by the value of their winner column and what it was taken for: {"1=a": 123, "tie=tie": 4}."""


def load(
    sources: list[str],
    *,
    split: str | None = None,
    config: str | None = None,
    format: str | None = None,
    columns: dict[str, str] | None = None,
    kind: str | None = None,
    neutral: str | None = None,
    leave_out_unreadable: bool = False,
    winner_values: dict[str, str] | None = None,
) -> Records:
    """Read files, folders, datasets saved to disk and hub ids, one after the other.

    `columns` maps a name of the format to a column of the file; an empty column drops the name. `kind` "comparison"
    asks for labelled rows without step labels. "scoring" asks for any rows that hold completions: they come back as
    Rankings in the order of the file, with their labels as scores where there are any (chosen 1, rejected 0). Ties and
    rows whose label is null are set aside and counted, except for scoring and prompts, where nothing is. "step_scoring" is
    scoring that takes answers in steps too, which keep their steps (`in_steps`). "stepwise" asks for Solutions, labelled
    or not. "any" takes all of these as they are: rows without labels as Rankings without scores or Solutions without
    labels, prompts alone as Rankings without completions. "prompts" asks for prompts alone, of rows in any format, and a
    blank one is an error. `neutral` is what a step rated 0 is taken for: "good", "bad" or "ignore" (no label).
    `leave_out_unreadable` keeps rows that cannot be read in `Records.unreadable` and counts them as set aside, unless
    they are more than half of a file: then its format is another one. `winner_values` says what the values of a winner
    column mean, as in {"1": "a", "0": "b", "2": "tie"}: without it, numbers are refused (`winners.meaning`).

    Raises UsageError for an unknown format or kind, and DataError, with file and row, for what cannot be read.
    """
    from .formats import convert  # here, because the formats build the types above
    from .sources import read

    if kind not in (None, "any", "comparison", "stepwise", "prompts", *SCORING):
        raise UsageError(f"unknown kind of records: {kind}")
    if isinstance(sources, str):
        sources = [sources]
    parts = [
        convert(
            t,
            format,
            columns or {},
            kind,
            neutral,
            leave_out_unreadable=leave_out_unreadable,
            winner_values=winner_values,
        )
        for source in sources
        for t in read(source, split, config)
    ]
    if not parts:
        raise UsageError("no dataset was named", hint="give a file, a folder or a hub id")
    winners = _total(part.winner_values for part in parts)
    if winners:
        log(said(winners))
    return Records(
        rows=[row for part in parts for row in part.rows],
        format=" and ".join(_distinct([part.format] for part in parts)),
        columns_used=_distinct(part.columns_used for part in parts),
        metadata_columns=_distinct(part.metadata_columns for part in parts),
        set_aside=_total(part.set_aside for part in parts),
        files=_distinct(part.files for part in parts),
        unreadable=tuple(row for part in parts for row in part.unreadable),
        winner_values=winners,
    )


SLICE = 4096
"""Rows of a stream that are in memory together."""


SCORING = ("scoring", "step_scoring")
"""Kinds of rows that hold completions to be scored, by an outcome or by a process reward model."""


@dataclass(frozen=True)
class Stream:
    """Rows to be scored that may be more than memory holds: all of them were checked, and each pass reads them again."""

    sources: tuple[str, ...]
    reading: dict[str, Any]
    """split, config, columns and, for each file, the format found in its first rows."""
    rows: int
    completions: int

    @property
    def format(self) -> str:
        return " and ".join(_distinct([name] for name in self.reading["formats"].values()))

    def __iter__(self) -> Iterator[Ranking]:
        for records in _slices(self.sources, **self.reading):
            yield from records.rows


def stream(
    sources: list[str],
    *,
    split: str | None = None,
    config: str | None = None,
    format: str | None = None,
    columns: dict[str, str] | None = None,
    kind: str = "scoring",
    winner_values: dict[str, str] | None = None,
) -> Stream:
    """Check all rows as `load` with this kind (one of SCORING) does, and keep none: what is wrong is said before the work begins.

    Raises what `load` raises; the rows counted in an error are those of one slice of SLICE rows.
    """
    formats: dict[str, str] = {}
    reading = {"split": split, "config": config, "columns": columns or {}, "formats": formats, "format": format}
    reading |= {"kind": kind, "winner_values": winner_values}
    rows = completions = 0
    set_aside, winners = Counter(), Counter()
    for records in _slices(tuple(sources), **reading):
        rows += len(records.rows)
        completions += sum(len(row.completions) for row in records.rows)
        set_aside.update(records.set_aside)
        winners.update(records.winner_values)
    if winners:
        log(said(winners))
    for reason, count in set_aside.items():
        log(f"not read: {reason} ({count})")
    return Stream(tuple(sources), reading, rows, completions)


def _slices(
    sources: tuple[str, ...],
    *,
    split: str | None,
    config: str | None,
    columns: dict[str, str],
    formats: dict[str, str],
    format: str | None,
    kind: str,
    winner_values: dict[str, str] | None,
) -> Iterator[Records]:
    """Slice after slice as records. The first of a file decides its format (noted in `formats`) and must have all columns."""
    from .formats import convert
    from .sources import read

    for source in sources:
        for table in read(source, split, config, SLICE):
            known = formats.get(table.name)
            present = {name for row in table.rows for name in row}
            mapped = {name: column for name, column in columns.items() if not known or (column or name) in present}
            records = convert(table, format or known, mapped, kind, winner_values=winner_values)
            formats.setdefault(table.name, records.format)
            yield records


def _total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in counts:
        total.update(part)
    return dict(total)


def _distinct(lists) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in lists for name in names))


def comparisons(records: Records) -> list[Comparison]:
    """Every row as pairs: comparisons as they are, a ranking as all pairs of completions with different scores.

    The pairs of one ranking weigh 1 / (number of its pairs), so that each prompt counts once, as in arXiv:2203.02155
    Eq. 1; they have no margin. `equal_scores` counts the pairs that made none. Raises DataError for step labels.
    """
    pairs = []
    for row in records.rows:
        if isinstance(row, Solution):
            raise steps_refused(str(row.origin))
        pairs += comparisons_of(row)
    return pairs


def comparisons_of(row: Comparison | Ranking) -> list[Comparison]:
    """A comparison as it is, a ranking as its pairs."""
    return [row] if isinstance(row, Comparison) else _pairs(row)


def steps_refused(where: str) -> DataError:
    """The error for stepwise rows where comparisons are needed."""
    return DataError(
        "these rows label the steps of one answer: step labels are for process reward models",
        where=where,
        hint="give rows with a chosen and a rejected answer, or completions with scores",
    )


def solutions(records: Records) -> list[Solution]:
    """The rows whose steps are labelled, for training and judging. Raises DataError when there are none."""
    labelled = [row for row in records.rows if isinstance(row, Solution) and row.labels is not None]
    if not labelled:
        raise DataError(
            "no row labels its steps",
            where=records.files[0] if records.files else None,
            hint="give `labels`, one a step",
        )
    return labelled


def ordered_pairs(ranking: Ranking) -> list[tuple[int, int]]:
    """(place of the better, place of the worse) of every two completions with different scores."""
    scores = ranking.scores or [0.0] * len(ranking.completions)
    return [
        (i, j) if scores[i] > scores[j] else (j, i)
        for i, j in combinations(range(len(scores)), 2)
        if scores[i] != scores[j]
    ]


def _pairs(ranking: Ranking) -> list[Comparison]:
    ordered = ordered_pairs(ranking)
    return [
        Comparison(
            prompt=ranking.prompt,
            chosen=ranking.completions[better],
            rejected=ranking.completions[worse],
            weight=1 / len(ordered),
            tools=ranking.tools,
            id=None if ranking.id is None else f"{ranking.id}:{better}>{worse}",
            metadata=ranking.metadata,
            origin=ranking.origin,
        )
        for better, worse in ordered
    ]


def equal_scores(records: Records) -> int:
    """How many pairs of completions in the rankings have equal scores, and so make no comparison."""
    rankings = [row for row in records.rows if isinstance(row, Ranking)]
    possible = sum(len(row.completions) * (len(row.completions) - 1) // 2 for row in rankings)
    return possible - sum(len(ordered_pairs(row)) for row in rankings)


def as_comparison(ranking: Ranking) -> Comparison:
    """A ranking of two answers with different scores -> the comparison it stands for."""
    better = 0 if ranking.scores[0] > ranking.scores[1] else 1
    answers = ranking.completions
    return Comparison(ranking.prompt, answers[better], answers[1 - better])


def in_steps(steps: list[str]) -> list[Message]:
    """An answer that is given in steps, as messages: the one message keeps them beside its text."""
    return [{"role": "assistant", "content": "\n".join(steps), "steps": steps}]


def as_ranking(record: Comparison | Ranking | Solution) -> Ranking:
    """A record to be scored: a comparison becomes a ranking of chosen and rejected with the scores 1 and 0."""
    if isinstance(record, Ranking):
        return record
    if isinstance(record, Solution):
        return Ranking(record.prompt, [in_steps(record.steps)])
    return Ranking(record.prompt, [record.chosen, record.rejected], [1.0, 0.0])


def to_row(record: Comparison | Ranking | Solution) -> dict[str, Any]:
    """The canonical form: formats `explicit`, `ranking`, `stepwise`, without labels `completions` and `steps`, or `prompt`.

    Fields without a value are left out, metadata follow under their own names, or in the object `metadata` where a format
    would read them as part of the record. `load` reads it back to an equal record.
    """
    if isinstance(record, Comparison):
        row = {"prompt": record.prompt, "chosen": record.chosen, "rejected": record.rejected, "margin": record.margin}
        row["weight"] = record.weight if record.weight != 1 else None
    elif isinstance(record, Ranking):
        row = {"prompt": record.prompt, "completions": record.completions or None, "scores": record.scores}
    else:
        steps = "completions" if record.labels is not None else "steps"
        row = {"prompt": record.prompt, steps: record.steps, "labels": record.labels}
    row |= {"tools": getattr(record, "tools", None), "id": record.id}
    row = {name: value for name, value in row.items() if value is not None}
    return with_metadata(row, record.metadata, canonical=True)


VERBATIM = ("explicit", "axolotl", "question", "pairwise", "pair", "ranking", "ranks", "completions", "completion")
VERBATIM += ("stepwise", "ratings", "processbench", "steps", "prompt")
"""Formats whose texts reach the model as they stand in the file."""


def check_verbatim(records: Records | Stream) -> None:
    """Raises UsageError where reading takes texts apart, which text that is rendered already must not be."""
    changed = [name for name in records.format.split(" and ") if name not in VERBATIM]
    if changed:
        raise UsageError(
            f"--text_format rendered needs prompt and answer in columns of their own: format `{changed[0]}` takes texts apart",
            hint="name the columns, as in --format explicit --columns prompt=A,chosen=B,rejected=C",
        )


# ---- splits -----------------------------------------------------------------------------------------------------------


def split_by_prompt(
    comparisons: Sequence[Comparison], share: float, seed: int
) -> tuple[list[Comparison], list[Comparison]]:
    """(train, validation): about `share` of the prompts, with all their pairs, go to validation.

    A prompt is placed by its hash and the seed: it lands on the same side in every run and from every file, so no
    prompt is on both sides.
    """
    sides: tuple[list[Comparison], list[Comparison]] = ([], [])
    for pair in comparisons:
        text = f"{seed}:{json.dumps(pair.prompt, sort_keys=True, default=str)}"
        place = int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8]) / 2**64
        sides[place < share].append(pair)
    return sides
