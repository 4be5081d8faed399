"""One table of rows -> records: recognize the format, rename, convert, and say what cannot be read.

Lost input is an error: a column that could be part of it and that the format does not use is named.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..console import DataError, finite, warn
from .cells import RowError, clean, decoded, lists_in_cells, loads, short, turns, wrong_type
from .columns import check_columns, renamed, same_columns
from .entries import Format, Row, SetAsideError
from .files import Table, suffix
from .formats import (
    ANSWERS,
    ANYTHING,
    HEAD,
    INPUT_LIKE,
    LABEL_NAMES,
    LABELED,
    NAMES,
    OPEN,
    PROMPTS,
    Tiers,
    fits,
    lacks,
    named,
    recognize,
)
from .formats_steps import NEUTRAL, NeutralError
from .records import Comparison, Origin, Ranking, Record, Records, Solution, Undecided, answers_of
from .unknown import conversion, guess, nearest, seen
from .winners import key, meaning
from .writing import unwrapped


@dataclass(frozen=True)
class Reading:
    """How sources are read."""

    split: str | None = None
    config: str | None = None
    format: str | None = None
    """Of all sources; None: what their rows look like."""
    columns: dict[str, str] | None = None
    """Names of the format -> columns of the file; an empty column drops the name."""
    neutral: str | None = None
    """What a step rated 0 is taken for: "good", "bad" or "ignore" (no label)."""
    winner_values: dict[str, str] | None = None
    """What the values of a winner column mean, as in {"1": "a", "0": "b", "2": "tie"}. Without it numbers are refused."""
    tiers: Tiers = ANSWERS
    """Which formats are tried."""
    leave_out_unreadable: bool = False
    """Keep rows that cannot be read in `Records.unreadable` and count them as set aside, unless they are more than half of
    a file: then its format is another one."""

    @property
    def labels(self) -> bool:
        """Whether the labels of rows are read."""
        return self.tiers is not PROMPTS


def is_one_piece(table: Table, reading: Reading) -> bool:
    """Whether the rows of the file that a table begins can be read together only."""
    head = replace(table, rows=table.rows[:HEAD], numbers=table.numbers[:HEAD], problems=[])
    rows = [row for _, row in _decoded(head, reading.columns or {}, [])]
    with contextlib.suppress(DataError):
        return (named(reading.format) if reading.format else recognize(rows, table.name, reading.tiers)).one_piece
    return False


def records_of(table: Table, reading: Reading, format: str | None, *, first: bool = True) -> Records:
    """The records of one table. Raises DataError for what cannot be read.

    first: it is a whole file or the first slice of one; in others any number of rows may be unreadable.
    """
    problems = list(table.problems)
    numbered = _decoded(table, reading.columns or {}, problems)
    chosen = _format_of(table, format, [row for _, row in numbered], problems, reading)
    reader = chosen
    if chosen.expand:
        numbered, reader = chosen.expand(numbered, problems), LABELED["ranks"]
    picked = [reader.pick(row) for _, row in numbered]
    used = dict.fromkeys(column for _, names in picked for column in names.values())
    judged = chosen.winner.columns if chosen.winner else ()
    labels = [name for name in used if name in judged or name in LABEL_NAMES or "score" in name]
    winners = _say_winners(table.name, chosen, numbered, picked, reading)
    for values, _ in picked:
        values["neutral"] = reading.neutral
    made: list[tuple[tuple[int, Row], Record | None]] = []
    aside: Counter[str] = Counter()
    for (number, row), (values, _) in zip(numbered, picked, strict=True):
        try:
            found = _records(reader, row, values, used, labels, Origin(table.name, number))
            made += [((number, row), record) for record in (found if reading.labels else found[:1])]
        except SetAsideError as reason:
            aside[str(reason)] += 1
        except NeutralError:
            raise _say_neutral(chosen, [values for values, _ in picked], f"{table.name}:{number}") from None
        except RowError as error:
            made.append(((number, row), None))
            problems.append((number, f"{error}{_other_format(reader, row)}"))
    numbered, records = [one for one, _ in made], [record for _, record in made]
    unused = [name for name in dict.fromkeys(name for _, row in numbered for name in row) if name not in used]
    _refuse_lost_input(table.name, chosen, [name for name in unused if name.lower() in INPUT_LIKE], numbered, records)
    problems.sort()
    few = not first or 2 * len(problems) <= len(table)
    if problems and not (reading.leave_out_unreadable and few):
        hint = table.hint if len(problems) == len(table.problems) else _hint(chosen, reading.columns)
        if format is None and not any(records):
            hint = _guess(table, reading) or hint
        raise table.refused(problems, hint)
    rows, undecided = [], []
    for (_, row), record in zip(numbered, records, strict=True):
        reason = record and chosen.name in LABELED and _undecided(reader, row, record)
        if reason:
            undecided.append(Undecided(len(rows) + len(undecided), record, reason))
        elif record:
            rows.append(_of_two(record) if chosen.winner and reading.labels else record)
    reasons = aside + Counter(one.reason for one in undecided)
    return Records(
        rows=rows,
        formats={table.name: chosen.name},
        columns_used=chosen.needs if chosen.expand else tuple(used),
        metadata_columns=tuple(unused),
        set_aside=table.set_aside | ({"unreadable": len(problems)} if problems else {}) | reasons,
        undecided=tuple(undecided),
        unreadable=tuple((f"{table.name}:{number}", reason) for number, reason in problems),
        winner_values=winners,
    )


def _decoded(table: Table, columns: dict[str, str], problems: list[tuple[int, str]]) -> list[tuple[int, Row]]:
    """The numbered rows under the names of --columns, with messages and lists that were written as text; adds to problems."""
    head = table.rows[:HEAD]
    columns = same_columns(head) | columns
    roots = check_columns(table, columns) if columns else {}
    lists = lists_in_cells(head) if suffix(Path(table.name)) in (".csv", ".tsv") else ()
    lists = () if INPUT_LIKE.issuperset(lists) else lists
    numbered = []
    for number, row in zip(table.numbers, table.rows, strict=True):
        try:
            row = renamed(row, columns, roots) if columns else dict(row)
            row |= {name: turns(row[name]) or row[name] for name in lists if name in row}
            values = {name: decoded(value, name) if name in NAMES else value for name, value in row.items()}
            numbered.append((number, values))
        except RowError as error:
            problems.append((number, str(error)))
    return numbered


def _format_of(
    table: Table, format: str | None, rows: list[Row], problems: list[tuple[int, str]], reading: Reading
) -> Format:
    """The format named or recognized. Raises DataError where none fits, with the rows that cannot be read if any: they may be
    the reason.
    """
    if not rows:
        raise table.refused(problems, None if len(problems) == len(table.problems) else "fix --columns, or these rows")
    if format:
        return named(format)
    try:
        found = recognize(rows, table.name, reading.tiers)
        if reading.tiers is ANYTHING and found.name not in LABELED:
            _tell_unread(table, found, reading)
        return found
    except _UnreadAnswersError:
        raise
    except DataError as error:
        if problems:
            raise table.refused(problems) from None
        head = rows[:HEAD]
        way = _guess(table, reading) or f"{error.hint}\n{conversion(table.name, head)}"
        raise DataError(error.message + seen(head), where=table.name, hint=way + nearest(head, reading.tiers)) from None


class _UnreadAnswersError(DataError):
    """Rows that could be read as prompts alone say which answer is better."""


def _tell_unread(table: Table, found: Format, reading: Reading) -> None:
    """Warn of labels, or of answers, that stand beside what is read. Raises DataError where they are pairs or rankings of
    which only the prompt would be read.
    """
    way = _guess(table, reading, labeled=True)
    if way and found.name in OPEN:
        what = (
            f"only the prompts of these rows fit a format (`{found.name}`), and they seem to say which answer is better"
        )
        raise _UnreadAnswersError(what, where=table.name, hint=f"{way}; for the prompts alone, --format {found.name}")
    way = way or (_guess(table, reading) if found.name == "prompt" else None)
    if way:
        warn(f"{table.name} is read as format `{found.name}`, without some of its columns: {way}")


def _guess(table: Table, reading: Reading, *, labeled: bool = False) -> str | None:
    """A --columns line with which the first rows can be read, where none is given and one is found."""
    if reading.columns:
        return None
    head = replace(table, rows=table.rows[:HEAD], numbers=table.numbers[:HEAD], problems=[])

    def works(columns: dict[str, str], format: str | None) -> bool:
        try:
            records = records_of(head, replace(reading, columns=columns, leave_out_unreadable=False), format)
        except DataError as error:
            return "--winner_values" in (error.hint or "")
        return bool(records.rows) and (not labeled or records.format in LABELED)

    return guess(head.rows, works, labeled=labeled)


def _records(
    chosen: Format, row: Row, picked: Row, used: Iterable[str], labels: Iterable[str], origin: Origin
) -> list[Record]:
    """What a row says: one record, of some formats several."""
    missing = lacks(chosen, row, picked)
    if missing:
        there = any(name in row for name in missing.split("|"))
        raise RowError(f"column `{missing.replace('|', '` or `')}` is {'null' if there else 'missing'}")
    found = chosen.convert(picked)
    metadata = finite(unwrapped({name: value for name, value in row.items() if name not in used}))
    given = finite({name: row[name] for name in labels if name in row})
    shared = {"origin": origin, "metadata": metadata, "given": given, "id": finite(picked.get("id"))}
    found = found if isinstance(found, list) else [found]
    tools = picked.get("tools")
    return [
        replace(record, **shared, **({} if isinstance(record, Solution) else {"tools": _tools(tools or record.tools)}))
        for record in found
    ]


def _tools(value: Any) -> list[dict] | None:
    """The tools the model may call, as a list or as that list written in JSON."""
    if isinstance(value, str) and value.strip():
        try:
            value = clean(loads(value))
        except (ValueError, RecursionError):
            raise RowError(f"`tools` is text that is not valid JSON ({short(value)})") from None
    if value in (None, "", []):
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise wrong_type("tools", value, "a list of objects")
    return value


def _undecided(chosen: Format, row: Row, record: Record) -> str | None:
    """Why a row's label does not say which answer is better, if so."""
    ranked = record.scores if isinstance(record, Ranking) else ()
    if ranked is None and (chosen.winner or not {"scores", "correct", "ranks"}.isdisjoint(row)):
        return "unlabelled"
    if any(row.get(name, "") is None for name in ("label", "kto_tag")):
        return "unlabelled"
    tied = chosen.winner and ranked and len(set(ranked)) == 1
    said = str(row.get("tie")).lower() == "true" or (isinstance(record, Comparison) and _says_tie(row.get("status")))
    return "tie" if tied or said else None


def _says_tie(status: Any) -> bool:
    """As in the pairs that distilabel writes: their `chosen` and `rejected` are then in the order in which they came."""
    return isinstance(status, str) and status.strip().lower() == "tie"


def _of_two(ranking: Ranking) -> Comparison:
    """A ranking of two answers with different scores -> the comparison it stands for."""
    better = 0 if ranking.scores[0] > ranking.scores[1] else 1
    pair = Comparison(ranking.prompt, ranking.completions[better], ranking.completions[1 - better])
    shared = {name: getattr(ranking, name) for name in ("tools", "id", "metadata", "origin", "given", "margin")}
    return replace(pair, rejected_first=better == 1, **shared)


# ---- what is said about a table, and what goes wrong -------------------------------------------------------------------


def _say_winners(
    name: str,
    chosen: Format,
    numbered: list[tuple[int, Row]],
    picked: list[tuple[Row, dict[str, str]]],
    reading: Reading,
) -> dict[str, int]:
    """Write a, b or tie into the rows that say the winner otherwise. Returns {"value=a": its rows}."""
    if not chosen.winner:
        return {}
    values = [values for values, _ in picked]
    found = [chosen.winner.value(row) if reading.labels else None for row in values]
    for row in values:
        row.pop("winner", None)
    written = [(number, value) for (number, _), value in zip(numbered, found, strict=True) if value is not None]
    known = chosen.winner.means
    means, counts = meaning(written, reading.winner_values, reading.columns or {}, name, known, chosen.name)
    for row, value in zip(values, found, strict=True):
        if value is not None:
            row["winner"] = means.get(key(value), short(value))
    return counts


def _say_neutral(chosen: Format, rows: list[Row], where: str) -> DataError:
    """The error for steps rated 0 without --neutral, with what each choice does to the counts."""
    counts = {}
    for neutral in NEUTRAL:
        labels = []
        for row in rows:
            # A KeyError: a column is missing, another error will say so.
            with contextlib.suppress(RowError, SetAsideError, KeyError):
                found = chosen.convert(row | {"neutral": neutral})
                labels += [label for one in (found if isinstance(found, list) else [found]) for label in one.labels]
        counts[neutral] = (labels.count(1.0), labels.count(0.0), len(labels) - labels.count(None))
    (right, _, steps), (right_without, wrong_without, _) = counts["good"], counts["ignore"]
    wrong = counts["bad"][1]
    return DataError(
        f"{right - right_without} of {steps} steps are rated 0, neither right nor wrong: --neutral says what that means",
        where=where,
        hint=f"--neutral good counts them as right (then {right} right, {wrong_without} wrong), bad as wrong "
        f"({right_without} right, {wrong} wrong), ignore gives them no label ({right_without} right, "
        f"{wrong_without} wrong). good: such a step may stand in an answer; bad: only steps that help may; "
        "ignore: let the model learn from clear steps alone",
    )


def _other_format(chosen: Format, row: Row) -> str:
    """A note for a row that cannot be read because it is written in another format than the rows before it."""
    if fits(chosen, row):
        return ""
    other = next((entry.name for entry in LABELED.values() if entry is not chosen and fits(entry, row)), None)
    like = f"the row looks like format `{other}` and the first rows like `{chosen.name}`"
    return f" ({like}: mixed formats)" if other else ""


def _hint(chosen: Format, columns: dict[str, str] | None) -> str:
    needs = ", ".join(names.replace("|", " or ") for names in chosen.needs)
    mapped = "" if columns else ", or --columns to name them"
    return (
        f"the rows were read as format `{chosen.name}` ({needs}); use --format for another{mapped}, or fix these rows"
    )


def _refuse_lost_input(
    where: str, chosen: Format, names: list[str], numbered: list[tuple[int, Row]], records: list[Record | None]
) -> None:
    """Raise DataError for columns that could be part of the input, are not read, and hold what no message says."""
    for name in names:
        rows = zip(numbered, records, strict=True)
        lost = [number for (number, row), record in rows if not _already_there(row.get(name), record)]
        if not lost:
            continue
        use = "put it into the prompt yourself"
        if "system" in chosen.columns:
            use = f"read it as the system text with --columns system={name}, or {use}"
        raise DataError(
            f"column `{name}` could be part of the input, but format `{chosen.name}` does not use it "
            f"({len(lost)} of {len(numbered)} rows)",
            where=f"{where}:{lost[0]}",
            hint=f"{use}, or leave it out with --columns {name}=",
        )


def _already_there(value: Any, record: Record | None) -> bool:
    """Whether a column's value is empty or repeats what the record's messages say."""
    if value is None or value in ("", [], {}) or (isinstance(value, str) and not value.strip()):
        return True
    if record is None:
        return False
    answers = answers_of(record)
    said = [message["content"] for message in record.prompt]
    if isinstance(value, str):
        return any(value.strip() in text for text in said)
    said += [message["content"] for answer in answers for message in answer]
    return all(any(text.strip() in one for one in said) for text in _texts(value))


def _texts(value: Any) -> Iterator[str]:
    """What a value says: the texts in it but for the names of speakers. What is no text says something of its own."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name not in ("role", "from") and isinstance(item, (str, list, dict)):
                yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    else:
        yield value if isinstance(value, str) else repr(value)
