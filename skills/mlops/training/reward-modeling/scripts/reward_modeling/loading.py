"""One table of rows -> records: which format it is, which columns it uses, which rows cannot be read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from . import conversations as talk
from .adapters import Row, tools
from .console import DataError, UsageError
from .conversations import RowError
from .formats import FORMATS, INPUT_LIKE, Format, Record
from .records import SCORING, Comparison, Origin, Ranking, Records, Solution, as_comparison, as_ranking, steps_refused
from .sources import Table, bad_rows

HEAD = 20
"""How many rows vote on the format."""

NULLABLE = ("winner", "scores|correct", "ranks", "labels")
"""Labels: null means that nobody judged the row."""


def convert(
    table: Table, format: str | None, columns: dict[str, str], kind: str | None, neutral: str | None = None
) -> Records:
    """The records of one table. Raises UsageError for an unknown format, DataError for what cannot be read."""
    rows = _rename(table, columns)
    chosen = _named(format) if format else recognise(rows, table.name, prompts=kind == "prompts")
    if chosen.stepwise and kind in ("comparison", "scoring"):
        raise steps_refused(table.name)
    if kind == "stepwise" and not chosen.stepwise:
        raise DataError(
            f"these rows (format `{chosen.name}`) have no steps",
            where=table.name,
            hint="give `prompt`, `completions` (the steps) and `labels`; check_data.py --list_formats shows every format",
        )
    if not chosen.answered and kind != "prompts":
        raise DataError(f"these rows (format `{chosen.name}`) hold prompts only, no answers", where=table.name)
    if not chosen.labelled and kind not in ("stepwise", "prompts", *SCORING):
        raise DataError(
            f"these rows (format `{chosen.name}`) do not say which answer is better",
            where=table.name,
            hint="give chosen and rejected, or completions with scores; completions without labels can be scored",
        )
    used_by_row = [chosen.pick(row) for row in rows]
    used = dict.fromkeys(column for _, names in used_by_row for column in names.values())
    records, problems = [], []
    for number, row, (picked, _) in zip(table.numbers, rows, used_by_row, strict=True):
        try:
            unused = kind in ("prompts", "step_scoring")
            rated = {"neutral": "ignore" if unused else neutral} if chosen.rated else {}
            record = _record(chosen, row, picked, used, Origin(table.name, number), rated)
            if kind == "prompts":
                _refuse_blank(record.prompt)
            records.append(record)
        except RowError as error:
            records.append(None)
            problems.append((number, f"{error}{_other_format(chosen, row)}"))
    unused = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in used]
    _refuse_lost_input(table, chosen, [name for name in unused if name.lower() in INPUT_LIKE], rows, records)
    if problems:
        raise bad_rows(table.name, problems, hint=_hint(chosen, columns), total=len(rows))
    kept, set_aside = [], {}
    for row, record in zip(rows, records, strict=True):
        reason = _why_set_aside(row, record)
        if reason and kind not in ("prompts", *SCORING):
            set_aside[reason] = set_aside.get(reason, 0) + 1
        else:
            kept.append(_as_kind(record, chosen, kind, reason))
    return Records(
        rows=kept,
        format=chosen.name,
        columns_used=tuple(used),
        metadata_columns=tuple(unused),
        set_aside=set_aside,
        files=(table.name,),
    )


def _record(chosen: Format, row: Row, picked: Row, used: Iterable[str], origin: Origin, rated: Row) -> Record:
    missing = _missing(chosen, row, picked)
    if missing:
        there = any(name in row for name in missing.split("|"))
        raise RowError(f"column `{missing.replace('|', '` or `')}` is {'null' if there else 'missing'}")
    record = chosen.convert(picked | rated)
    fields: dict[str, Any] = {
        "origin": origin,
        "metadata": {name: value for name, value in row.items() if name not in used},
        "id": picked.get("id"),
    }
    if not isinstance(record, Solution):
        fields["tools"] = tools(picked.get("tools"))
    return replace(record, **fields)


def _refuse_blank(prompt: list[dict]) -> None:
    if not any(message["content"].strip() for message in prompt):
        raise RowError("the prompt is empty")


def _why_set_aside(row: Row, record: Record) -> str | None:
    if (
        isinstance(record, Ranking)
        and record.scores is None
        and not {"winner", "scores", "correct", "ranks"}.isdisjoint(row)
    ):
        return "unlabelled"
    if "label" in row and row["label"] is None:
        return "unlabelled"
    tied_winner = (
        "winner" in row and isinstance(record, Ranking) and record.scores is not None and len(set(record.scores)) == 1
    )
    if tied_winner or row.get("tie") is True or str(row.get("tie")).lower() == "true":
        return "tie"
    return None


def _as_kind(record: Record, chosen: Format, kind: str | None, reason: str | None) -> Record:
    shared = {
        "tools": getattr(record, "tools", None),
        "id": record.id,
        "metadata": record.metadata,
        "origin": record.origin,
    }
    if kind == "prompts":
        return Ranking(record.prompt, [], **shared)
    if kind in SCORING:
        ranking = as_ranking(record)
        labels = [0.0] * len(ranking.completions) if reason == "tie" else ranking.scores
        return replace(ranking, scores=None if reason == "unlabelled" else labels, **shared)
    return replace(as_comparison(record), **shared) if chosen.winner else record


def _named(name: str) -> Format:
    if name not in FORMATS:
        close = difflib.get_close_matches(name, FORMATS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the formats are {', '.join(FORMATS)}"
        raise UsageError(f"unknown format {name}", hint=hint)
    return FORMATS[name]


def recognise(rows: list[Row], where: str, *, prompts: bool = False) -> Format:
    """The format that most of the first rows fit; when none fits, the one whose columns they have, for its messages.

    Labelled formats come first: rows with chosen, rejected and `messages` are comparisons. Formats without answers are
    tried only where `prompts` are asked for. Raises DataError when no format has these columns.
    """
    head = rows[:HEAD]
    tried = {name: entry for name, entry in FORMATS.items() if prompts or entry.answered}
    tiers = [
        [name for name, entry in tried.items() if entry.labelled],
        [name for name, entry in tried.items() if not entry.answered],
        [name for name, entry in tried.items() if entry.answered and not entry.labelled],
    ]
    for tier in filter(None, tiers):
        votes = {name: sum(_fits(FORMATS[name], row) for row in head) for name in tier}
        best = max(votes, key=lambda name: votes[name])
        if votes[best]:
            return FORMATS[best]
    present = {name for row in head for name in row}
    for entry in tried.values():
        if all(any(name in present for name in names.split("|")) for names in entry.needs):
            return entry
    raise _no_format(present, where)


def _fits(entry: Format, row: Row) -> bool:
    picked, _ = entry.pick(row)
    return not _missing(entry, row, picked) and entry.matches(picked)


def _missing(entry: Format, row: Row, picked: Row) -> str | None:
    """The first column that the format needs and the row lacks. A label may be null: then the row is set aside."""
    for names in entry.needs:
        alternatives = names.split("|")
        if alternatives[0] not in picked and not (names in NULLABLE and any(name in row for name in alternatives)):
            return names
    return None


def _no_format(present: set[str], where: str) -> DataError:
    return DataError(
        f"no format has the columns {', '.join(sorted(present)) or '(none)'}",
        where=where,
        hint="name them, as in --columns prompt=A,chosen=B,rejected=C (or prompt=A,completions=B to score); "
        "check_data.py --list_formats shows every format",
    )


def _rename(table: Table, columns: dict[str, str]) -> list[Row]:
    """The rows with the columns the user mapped under their new names, and without those the user dropped."""
    present = dict.fromkeys(name for row in table.rows for name in row)
    for name, column in columns.items():
        if (column or name) not in present:
            close = difflib.get_close_matches(column or name, present, n=1)
            hint = f"did you mean {close[0]}?" if close else f"the columns are {', '.join(present)}"
            raise DataError(f"there is no column `{column or name}`", where=table.name, hint=hint)
    if not columns:
        return table.rows
    gone = {column or name for name, column in columns.items()} | columns.keys()
    renamed = {name: column for name, column in columns.items() if column}
    return [
        {name: value for name, value in row.items() if name not in gone}
        | {name: row[column] for name, column in renamed.items() if column in row}
        for row in table.rows
    ]


def _other_format(chosen: Format, row: Row) -> str:
    """A note for a row that cannot be read because it is written in another format than the rows before it."""
    for entry in FORMATS.values():
        if entry is not chosen and entry.labelled and not _fits(chosen, row) and _fits(entry, row):
            return f" (the row looks like format `{entry.name}` and the first rows like `{chosen.name}`: mixed formats)"
    return ""


def _hint(chosen: Format, columns: dict[str, str]) -> str:
    needs = ", ".join(names.replace("|", " or ") for names in chosen.needs)
    mapped = "" if columns else ", or --columns to name them"
    return (
        f"the rows were read as format `{chosen.name}` ({needs}); use --format for another{mapped}, or mend these rows"
    )


def _refuse_lost_input(
    table: Table, chosen: Format, names: list[str], rows: list[Row], records: list[Record | None]
) -> None:
    """Raise DataError for columns that could be part of the input, are not read, and hold what no message says."""
    for name in names:
        lost = [
            number
            for number, row, record in zip(table.numbers, rows, records, strict=True)
            if not _already_there(row.get(name), record)
        ]
        if not lost:
            continue
        raise DataError(
            f"column `{name}` could be part of the input, but format `{chosen.name}` does not use it "
            f"({len(lost)} of {len(rows)} rows)",
            where=f"{table.name}:{lost[0]}",
            hint=f"{_ways_to_use(chosen, name)}, or leave it out with --columns {name}=",
        )


def _ways_to_use(chosen: Format, name: str) -> str:
    """How a column that the format does not know can still reach the model, for hints."""
    if "system" in chosen.columns:
        return f"read it as the system text with --columns system={name}, or put it into the prompt yourself"
    return "put it into the prompt yourself"


def _already_there(value: Any, record: Record | None) -> bool:
    """Whether a column's value is empty or repeats what the record's messages say."""
    if value is None or value in ("", [], {}) or (isinstance(value, str) and not value.strip()):
        return True
    if record is None:
        return False
    if isinstance(value, str):
        return any(value.strip() in message["content"] for message in record.prompt)
    try:
        given = talk.messages(value, "")
    except RowError:
        return False
    if isinstance(record, Comparison):
        answers = [record.chosen, record.rejected]
    else:
        answers = record.completions if isinstance(record, Ranking) else [[]]
    # One message more, since a beginning is shorter than the conversation it begins.
    end = [{"role": "user", "content": ""}]
    return any(talk.starts_with([*record.prompt, *answer, *end], given) for answer in answers)
