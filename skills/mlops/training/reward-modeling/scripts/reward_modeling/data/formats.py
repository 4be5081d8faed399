"""The table of data formats, one frozen entry each from a row to a record, and how a table of rows is read by it.

A new format is a new entry in FORMATS. `convert` finds out which format rows have, which columns it uses and which rows
cannot be read.

A format names the columns it needs and may use (`a|b`: either name), tells its rows from rows with the same columns
(`matches`), and turns a row into a record (`convert`, which raises RowError). Both get the row's non-null columns under
the first of their names. `tools` and `id` are read alike for all of them.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from ..console import DataError, UsageError, finite
from . import adapters, cells
from .adapters import PAIR, Row, RowError, tools
from .metadata import LABEL_NAMES, unwrapped
from .records import SCORING, Comparison, Origin, Ranking, Records, Solution, as_comparison, as_ranking, steps_refused
from .sources import Table, bad_rows
from .winners import key, meaning

Record = Comparison | Ranking | Solution

COMMON = ("id", "tools")
MARGINS = ("margin", "weight", "score_chosen|chosen_score", "score_rejected|rejected_score")

# Columns that could be part of what the model reads. Left unused, they are an error: TRL's RewardTrainer drops them in
# silence and trains on half of the input.
# fmt: off
INPUT_LIKE = frozenset((
    "prompt", "prompts", "system", "system_prompt", "preamble", "persona", "instruction", "instructions", "input",
    "inputs", "question", "questions", "query", "context", "contexts", "history", "conversation", "conversations",
    "messages", "dialogue", "dialog", "document", "documents", "passage", "passages", "background", "article", "post",
    "image", "images", "functions", "tools",
))
# fmt: on


@dataclass(frozen=True)
class Format:
    """One way of writing rows down."""

    name: str
    description: str
    needs: tuple[str, ...]
    optional: tuple[str, ...]
    example: Row
    matches: Callable[[Row], bool]
    convert: Callable[[Row], Record]
    labelled: bool = True
    """Whether the rows say which completion is better: without labels they can be scored, not trained on."""
    stepwise: bool = False
    """Whether a record is a solution in steps, for process reward models."""
    rated: bool = False
    """Whether `convert` reads `neutral`, what a step rated 0 is taken for."""
    answered: bool = True
    """Whether the rows hold completions: those that hold none are prompts, for a policy to answer."""
    winner: bool = False
    """Whether a record is a ranking of two answers, in the order of the file, to be read as a comparison."""

    @property
    def columns(self) -> tuple[str, ...]:
        return self.needs + self.optional + COMMON

    def pick(self, row: Row) -> tuple[Row, dict[str, str]]:
        """The row's non-null columns under the format's names, and {name: column of the row} for those it has."""
        used = {}
        for names in self.columns:
            alternatives = names.split("|")
            present = [name for name in alternatives if name in row]
            if present:
                used[alternatives[0]] = next((name for name in present if row[name] is not None), present[0])
        return {name: row[column] for name, column in used.items() if row[column] is not None}, used


def _are_lists(*names: str) -> Callable[[Row], bool]:
    return lambda row: all(isinstance(row.get(name, []), list) for name in names)


def _are_texts(*names: str) -> Callable[[Row], bool]:
    return lambda row: all(isinstance(row[name], str) for name in names)


def _always(row: Row) -> bool:
    return True


def _is_concatenated(row: Row) -> bool:
    return all(adapters.repeats_prompt(row["prompt"], row[name]) for name in PAIR)


def _is_transcript(row: Row) -> bool:
    return adapters.is_transcript(row.get("prompt", row["chosen"]))


def _is_sharegpt(row: Row) -> bool:
    return "conversations" in row or all(_speaks_from_value(row[name]) for name in PAIR)


def _speaks_from_value(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "from" in value[0]


def _is_prm800k(row: Row) -> bool:
    return isinstance(row["question"], dict) and isinstance(row["label"], dict) and "steps" in row["label"]


def _is_math_shepherd(row: Row) -> bool:
    return _are_texts("input", "label")(row) and adapters.STEP_TAG in row["input"]


def _is_open(row: Row) -> bool:
    try:
        return adapters.messages_of(row["messages"], "messages")[-1]["role"] != "assistant"
    except (adapters.RowError, IndexError):
        return False


_USER = [{"role": "user", "content": "2+2?"}]
_GOOD, _BAD = ([{"role": "assistant", "content": "4"}], [{"role": "assistant", "content": "5"}])
_HUMAN = "\n\nHuman: 2+2?\n\nAssistant:"

# In order: of two formats that fit a file equally well the earlier one is taken.
FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        Format(
            "transcript",
            "Human:/Assistant: dialogues (Anthropic HH), whole on both sides or with the prompt in its own column",
            PAIR,
            ("prompt", *MARGINS),
            {"chosen": f"{_HUMAN} 4", "rejected": f"{_HUMAN} 5"},
            _is_transcript,
            adapters.transcript,
        ),
        Format(
            "concatenated",
            "texts in which both answers repeat the prompt",
            ("prompt", *PAIR),
            ("system", *MARGINS),
            {"prompt": "2+2 is", "chosen": "2+2 is 4", "rejected": "2+2 is 5"},
            _is_concatenated,
            adapters.concatenated,
        ),
        Format(
            "explicit",
            "a prompt and two answers, each as text or as messages; answers that repeat the prompt as messages are cut",
            ("prompt", *PAIR),
            ("system", *MARGINS),
            {"prompt": _USER, "chosen": _GOOD, "rejected": _BAD},
            _always,
            adapters.explicit,
        ),
        Format(
            "sharegpt",
            "from/value messages; the prompt in `conversations` (LLaMA-Factory), or shared by both sides",
            PAIR,
            ("conversations", "system", *MARGINS),
            {
                "conversations": [{"from": "human", "value": "2+2?"}],
                "chosen": {"from": "gpt", "value": "4"},
                "rejected": {"from": "gpt", "value": "5"},
            },
            _is_sharegpt,
            adapters.sharegpt,
        ),
        Format(
            "alpaca",
            "an instruction with an optional input below it, and two answers",
            ("instruction", *PAIR),
            ("input", "system", *MARGINS),
            {"instruction": "Add.", "input": "2+2", "chosen": "4", "rejected": "5"},
            _always,
            adapters.alpaca,
        ),
        Format(
            "axolotl",
            "an input, an optional system text, and two answers (axolotl bradley_terry.chat_template)",
            ("input", *PAIR),
            ("system", *MARGINS),
            {"system": "Be brief.", "input": "2+2?", "chosen": "4", "rejected": "5"},
            _always,
            adapters.asked_in("input"),
        ),
        Format(
            "question",
            "a question, an optional system text, and two answers (Intel Orca pairs)",
            ("question", *PAIR),
            ("system", *MARGINS),
            {"system": "Be brief.", "question": "2+2?", "chosen": "4", "rejected": "5"},
            _always,
            adapters.asked_in("question"),
        ),
        Format(
            "implicit",
            "two whole conversations as messages; what they share from the start is the prompt",
            PAIR,
            ("system", *MARGINS),
            {"chosen": _USER + _GOOD, "rejected": _USER + _BAD},
            _are_lists(*PAIR),
            adapters.implicit,
        ),
        Format(
            "text",
            "two texts that begin alike; the prompt is what they share, up to its last line break or blank",
            PAIR,
            MARGINS,
            {"chosen": "2+2 is 4", "rejected": "2+2 is 5"},
            _are_texts(*PAIR),
            adapters.text,
        ),
        Format(
            "pairwise",
            "a prompt, answers a and b, and which of them won; ties are set aside",
            ("prompt", "response_a", "response_b", "winner"),
            ("system",),
            {"prompt": "2+2?", "response_a": "5", "response_b": "4", "winner": "model_b"},
            _always,
            adapters.pairwise,
            winner=True,
        ),
        Format(
            "arena",
            "conversations a and b, and which of them won (Chatbot Arena); ties are set aside",
            ("conversation_a", "conversation_b", "winner"),
            (),
            {"conversation_a": _USER + _GOOD, "conversation_b": _USER + _BAD, "winner": "model_a"},
            _always,
            adapters.arena,
            winner=True,
        ),
        Format(
            "ranking",
            "a prompt and any number of completions with scores, higher is better, or with true and false in `correct`",
            ("prompt", "completions|responses", "scores|correct"),
            ("system",),
            {"prompt": "2+2?", "completions": ["4", "5", "four"], "scores": [1.0, 0.0, 1.0]},
            _are_lists("completions", "scores"),
            adapters.ranking,
        ),
        Format(
            "ranks",
            "a prompt and any number of completions with ranks, 1 is best",
            ("prompt", "completions|responses", "ranks"),
            ("system",),
            {"prompt": "2+2?", "completions": ["4", "5", "four"], "ranks": [1, 3, 2]},
            _are_lists("completions", "ranks"),
            adapters.ranks,
        ),
        Format(
            "stepwise",
            "a prompt and an answer in steps with one label each, or up to the first error (TRL, axolotl): "
            "true or false, 0 or 1, probabilities, null for not judged",
            ("prompt", "completions", "labels"),
            ("system",),
            {"prompt": "2+2+2?", "completions": ["2+2=4", "4+2=7"], "labels": [True, False]},
            _are_lists("completions", "labels"),
            adapters.stepwise,
            stepwise=True,
        ),
        Format(
            "ratings",
            "a prompt and an answer in steps rated -1, 0 or 1; what 0 means is said with --neutral",
            ("prompt", "completions|steps", "ratings"),
            ("system",),
            {"prompt": "2+2+2?", "completions": ["2+2=4", "4+2=7"], "ratings": [1, -1]},
            _are_lists("completions", "ratings"),
            adapters.ratings,
            stepwise=True,
            rated=True,
        ),
        Format(
            "prm800k",
            "rows of PRM800K as published: the solution its labeller followed; what a rating of 0 means is said with --neutral",
            ("question", "label"),
            (),
            {
                "question": {"problem": "2+2+2?"},
                "label": {
                    "steps": [{"completions": [{"text": "2+2=4", "rating": 1}], "chosen_completion": 0}],
                },
            },
            _is_prm800k,
            adapters.prm800k,
            stepwise=True,
            rated=True,
        ),
        Format(
            "math_shepherd",
            "Math-Shepherd: a problem and steps in one text, a tag behind each, and that text with + or - for each tag",
            ("input", "label"),
            (),
            {"input": "2+2+2? Step 1: 2+2=4 ки\nStep 2: 4+2=7 ки", "label": "2+2+2? Step 1: 2+2=4 +\nStep 2: 4+2=7 -"},
            _is_math_shepherd,
            adapters.math_shepherd,
            stepwise=True,
        ),
        Format(
            "processbench",
            "a problem, steps, and the place of the first error, counted from 0, or -1 (ProcessBench)",
            ("problem|prompt", "steps", "label"),
            ("system",),
            {"problem": "2+2+2?", "steps": ["2+2=4", "4+2=7"], "label": 1},
            _are_lists("steps"),
            adapters.processbench,
            stepwise=True,
        ),
        Format(
            "completions",
            "a prompt and any number of completions, to be scored",
            ("prompt", "completions|responses"),
            ("system",),
            {"prompt": "2+2?", "completions": ["4", "5"]},
            _are_lists("completions"),
            adapters.completions,
            labelled=False,
        ),
        Format(
            "pair",
            "a prompt and answers a and b, to be scored",
            ("prompt", "response_a", "response_b"),
            ("system",),
            {"prompt": "2+2?", "response_a": "5", "response_b": "4"},
            _always,
            adapters.pairwise,
            labelled=False,
        ),
        Format(
            "steps",
            "a prompt and an answer in steps, each of which is to be scored",
            ("prompt|problem", "steps"),
            ("system",),
            {"prompt": "2+2+2?", "steps": ["2+2=4", "4+2=6"]},
            _are_lists("steps"),
            adapters.steps,
            labelled=False,
            stepwise=True,
        ),
        Format(
            "completion",
            "a prompt and one completion, to be scored",
            ("prompt", "completion|response"),
            ("system",),
            {"prompt": "2+2?", "completion": "4"},
            _always,
            adapters.completion,
            labelled=False,
        ),
        Format(
            "conversation",
            "a whole conversation whose last message, the assistant's, is to be scored",
            ("messages|conversations",),
            (),
            {"messages": _USER + _GOOD},
            _always,
            adapters.conversation,
            labelled=False,
        ),
        Format(
            "prompt",
            "a prompt alone, to be answered by a policy",
            ("prompt|question|query",),
            ("system",),
            {"prompt": "2+2?"},
            _always,
            adapters.prompt,
            labelled=False,
            answered=False,
        ),
        Format(
            "open_conversation",
            "a conversation whose last message is the user's, to be answered by a policy",
            ("messages|conversations",),
            (),
            {"messages": _USER},
            _is_open,
            adapters.open_conversation,
            labelled=False,
            answered=False,
        ),
    )
}


# ---- rows to records --------------------------------------------------------------------------------------------------


NAMES = frozenset(name for entry in FORMATS.values() for names in entry.columns for name in names.split("|"))
"""Columns that a format reads."""

HEAD = 20
"""How many rows vote on the format."""

NULLABLE = ("winner", "scores|correct", "ranks", "labels")
"""Labels: null means that nobody judged the row."""


def convert(
    table: Table,
    format: str | None,
    columns: dict[str, str],
    kind: str | None,
    neutral: str | None = None,
    *,
    leave_out_unreadable: bool = False,
    winner_values: dict[str, str] | None = None,
) -> Records:
    """The records of one table. Raises UsageError for an unknown format, DataError for what cannot be read."""
    total = len(table.rows) + len(table.problems)
    problems = list(table.problems)
    numbered = _decoded(table, columns, problems)
    chosen = _format_of(table, format, [row for _, row in numbered], problems, kind)
    picked_rows = [chosen.pick(row) for _, row in numbered]
    used = dict.fromkeys(column for _, names in picked_rows for column in names.values())
    winners = {}
    if "winner" in chosen.needs:
        given = [(number, picked) for (number, _), (picked, _) in zip(numbered, picked_rows, strict=True)]
        winners = _say_winners(given, kind, winner_values, columns, table.name)
    if chosen.rated:
        for picked, _ in picked_rows:
            picked["neutral"] = "ignore" if kind in ("prompts", "step_scoring") else neutral
    # Labels of rows to be scored are no part of what is scored: they are kept as any other column is.
    owned = [name for name in used if kind not in SCORING or name not in _labels_of(chosen)]
    records = _records(table.name, chosen, numbered, picked_rows, owned, kind, problems)
    unused = [name for name in dict.fromkeys(name for _, row in numbered for name in row) if name not in used]
    _refuse_lost_input(table.name, chosen, [name for name in unused if name.lower() in INPUT_LIKE], numbered, records)
    problems.sort()
    if problems and not (leave_out_unreadable and 2 * len(problems) <= total):
        hint = table.hint if len(problems) == len(table.problems) else _hint(chosen, columns)
        raise bad_rows(table.name, problems, hint=hint, total=total)
    kept, set_aside = [], table.set_aside | ({"unreadable": len(problems)} if problems else {})
    for (_, row), record in zip(numbered, records, strict=True):
        if record is None:
            continue
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
        unreadable=tuple((f"{table.name}:{number}", reason) for number, reason in problems),
        winner_values=winners,
    )


def _format_of(
    table: Table, format: str | None, rows: list[Row], problems: list[tuple[int, str]], kind: str | None
) -> Format:
    """The format named or recognised. Raises DataError where none fits, or where it has no records of this kind."""
    total = len(table.rows) + len(table.problems)
    if not rows:
        raise bad_rows(table.name, problems, total=total, hint=table.hint)
    try:
        chosen = _named(format) if format else recognise(rows, table.name, kind)
    except DataError:
        if problems:  # they may be the reason
            raise bad_rows(table.name, problems, total=total, hint=table.hint) from None
        raise
    _refuse_kind(chosen, kind, table.name)
    return chosen


def _records(
    name: str,
    chosen: Format,
    numbered: list[tuple[int, Row]],
    picked_rows: list[tuple[Row, dict[str, str]]],
    used: Iterable[str],
    kind: str | None,
    problems: list[tuple[int, str]],
) -> list[Record | None]:
    """A record for each row, or None for one that cannot be read, which is added to `problems`."""
    records: list[Record | None] = []
    for (number, row), (picked, _) in zip(numbered, picked_rows, strict=True):
        try:
            record = _record(chosen, row, picked, used, Origin(name, number))
            if kind == "prompts" or not chosen.answered:
                _refuse_blank(record.prompt)
            records.append(record)
        except adapters.NeutralError:
            raise _say_neutral(chosen, [picked for picked, _ in picked_rows], f"{name}:{number}") from None
        except RowError as error:
            records.append(None)
            problems.append((number, f"{error}{_other_format(chosen, row)}"))
    return records


def _decoded(table: Table, columns: dict[str, str], problems: list[tuple[int, str]]) -> list[tuple[int, Row]]:
    """The numbered rows under the names of --columns, with messages and lists that were written as text; adds to problems."""
    numbered = []
    for number, row in zip(table.numbers, _rename(table, columns), strict=True):
        try:
            read = {name: cells.decoded(value, name) if name in NAMES else value for name, value in row.items()}
            numbered.append((number, read))
        except RowError as error:
            problems.append((number, str(error)))
    return numbered


def _refuse_kind(chosen: Format, kind: str | None, where: str) -> None:
    """Raises DataError for a format that has no records of this kind."""
    if chosen.stepwise and kind in ("comparison", "scoring"):
        raise steps_refused(where)
    if kind == "stepwise" and not chosen.stepwise:
        raise DataError(
            f"these rows (format `{chosen.name}`) have no steps",
            where=where,
            hint="give `prompt`, `completions` (the steps) and `labels`; check_data.py --list_formats shows every format",
        )
    if not chosen.answered and kind not in ("prompts", "any"):
        raise DataError(f"these rows (format `{chosen.name}`) hold prompts only, no answers", where=where)
    if not chosen.labelled and kind not in ("any", "stepwise", "prompts", *SCORING):
        raise DataError(
            f"these rows (format `{chosen.name}`) do not say which answer is better",
            where=where,
            hint="give chosen and rejected, or completions with scores; completions without labels can be scored",
        )


def _say_winners(
    given: list[tuple[int, Row]],
    kind: str | None,
    winner_values: dict[str, str] | None,
    columns: dict[str, str],
    where: str,
) -> dict[str, int]:
    """Write a, b or tie into the rows that say the winner otherwise. Returns {"value=a": its rows}."""
    if kind == "prompts":  # nobody asks who won
        for _, row in given:
            row.pop("winner", None)
    said = [(number, row) for number, row in given if row.get("winner") not in (None, "")]
    means, counts = meaning([(number, row["winner"]) for number, row in said], winner_values, columns, where)
    for _, row in given:
        value = row.pop("winner", "")
        if value != "":
            row["winner"] = means.get(key(value), adapters.short(value))
    return counts


def _say_neutral(chosen: Format, rows: list[Row], where: str) -> DataError:
    """The error for steps rated 0 without --neutral, with what each choice does to the counts."""
    counts = {}
    for neutral in adapters.NEUTRAL:
        labels = []
        for row in rows:
            with contextlib.suppress(RowError, KeyError):  # a KeyError: a column is missing, another error will say so
                labels += chosen.convert(row | {"neutral": neutral}).labels
        counts[neutral] = (labels.count(1.0), labels.count(0.0), len(labels))
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


def _record(chosen: Format, row: Row, picked: Row, used: Iterable[str], origin: Origin) -> Record:
    missing = _missing(chosen, row, picked)
    if missing:
        there = any(name in row for name in missing.split("|"))
        raise RowError(f"column `{missing.replace('|', '` or `')}` is {'null' if there else 'missing'}")
    record = chosen.convert(picked)
    fields: dict[str, Any] = {
        "origin": origin,
        "metadata": finite(unwrapped({name: value for name, value in row.items() if name not in used})),
        "id": picked.get("id"),
    }
    if not isinstance(record, Solution):
        fields["tools"] = tools(picked.get("tools"))
    return replace(record, **fields)


def _labels_of(chosen: Format) -> set[str]:
    """The columns of a format that say how good answers or steps are, by all of their names."""
    return {name for names in chosen.columns for name in names.split("|") if name in LABEL_NAMES or "score" in name}


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


def recognise(rows: list[Row], where: str, kind: str | None = None) -> Format:
    """The format that most of the first rows fit; when none fits, the one whose columns they have, for its messages.

    Labelled formats come first: rows with chosen, rejected and `messages` are comparisons. Formats without answers are
    tried only for the kinds "prompts" and "any", there last. Raises DataError when no format has these columns.
    """
    head = rows[:HEAD]
    tried = {name: entry for name, entry in FORMATS.items() if kind in ("prompts", "any") or entry.answered}
    open_ones = [name for name, entry in tried.items() if not entry.answered]
    unlabelled = [name for name, entry in tried.items() if entry.answered and not entry.labelled]
    tiers = [[name for name, entry in tried.items() if entry.labelled]]
    tiers += [["open_conversation", *unlabelled], open_ones] if kind == "any" else [open_ones, unlabelled]
    for tier in filter(None, tiers):
        fitting = {name: [row for row in head if _fits(FORMATS[name], row)] for name in tier}
        votes = {
            name: (sum(_reads_all(FORMATS[name], row) for row in rows), len(rows)) for name, rows in fitting.items()
        }
        best = max(votes, key=lambda name: votes[name])
        if fitting[best]:
            return FORMATS[best]
    present = {name for row in head for name in row}
    for entry in tried.values():
        if all(any(name in present for name in names.split("|")) for names in entry.needs):
            return entry
    raise _no_format(present, where)


def _fits(entry: Format, row: Row) -> bool:
    picked, _ = entry.pick(row)
    return not _missing(entry, row, picked) and entry.matches(picked)


def _reads_all(entry: Format, row: Row) -> bool:
    """Whether the format reads every column that could be part of the input: one that leaves some out fits less well."""
    _, used = entry.pick(row)
    return not any(value and name.lower() in INPUT_LIKE for name, value in row.items() if name not in used.values())


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
    where: str, chosen: Format, names: list[str], numbered: list[tuple[int, Row]], records: list[Record | None]
) -> None:
    """Raise DataError for columns that could be part of the input, are not read, and hold what no message says."""
    for name in names:
        lost = [
            number
            for (number, row), record in zip(numbered, records, strict=True)
            if not _already_there(row.get(name), record)
        ]
        if not lost:
            continue
        raise DataError(
            f"column `{name}` could be part of the input, but format `{chosen.name}` does not use it "
            f"({len(lost)} of {len(numbered)} rows)",
            where=f"{where}:{lost[0]}",
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
        given = adapters.messages_of(value, "")
    except RowError:
        return False
    if isinstance(record, Comparison):
        answers = [record.chosen, record.rejected]
    else:
        answers = record.completions if isinstance(record, Ranking) else [[]]
    # One message more, since a beginning is shorter than the conversation it begins.
    end = [{"role": "user", "content": ""}]
    return any(adapters.starts_with([*record.prompt, *answer, *end], given) for answer in answers)
