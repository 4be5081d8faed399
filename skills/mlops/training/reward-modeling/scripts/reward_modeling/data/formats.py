"""The one table of data formats, FORMATS, and which of them rows are.

A new format is a new entry beside its converter in formats_pairs.py, formats_rankings.py, formats_steps.py,
formats_published_steps.py or formats_unlabeled.py. `recognize` finds out which format rows have.
"""

from __future__ import annotations

import difflib

from ..console import DataError, UsageError
from .cells import RowError
from .entries import Format, Row, always, never
from .formats_datasets import DATASETS
from .formats_pairs import PAIRS
from .formats_published_steps import PUBLISHED_STEPS
from .formats_ranked import RANKED
from .formats_rankings import RANKINGS
from .formats_steps import STEPS
from .formats_unlabeled import OPEN, UNLABELED

LABELED = DATASETS | RANKED | PAIRS | RANKINGS | STEPS | PUBLISHED_STEPS
FORMATS: dict[str, Format] = LABELED | UNLABELED | OPEN
"""In order: of two formats that fit a file equally well the earlier one is taken."""

Tiers = tuple[dict[str, Format], ...]
"""The formats that are tried, in groups: the first group with a format that fits decides."""
ANSWERS: Tiers = (LABELED, UNLABELED)
ANYTHING: Tiers = (LABELED, {"open_conversation": OPEN["open_conversation"]} | UNLABELED, OPEN)
PROMPTS: Tiers = (LABELED, OPEN, UNLABELED)

NAMES = frozenset(name for entry in FORMATS.values() for names in entry.columns for name in names.split("|"))
"""Columns that a format reads."""
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
LABEL_NAMES = frozenset(
    ("label", "kto_tag", "tie", "winner", "scores", "correct", "ranks", "labels", "ratings", "margin", "weight")
)
NULLABLE = ("winner", "scores|correct", "labels|step_labels", "ranks|rank", "parent_id", "rank", "label|kto_tag")
"""Labels: null means that the row has none."""
HEAD = 20
"""How many rows vote on the format."""


def named(name: str) -> Format:
    if name not in FORMATS:
        close = difflib.get_close_matches(name, FORMATS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the formats are {', '.join(FORMATS)}"
        raise UsageError(f"unknown format {name}", hint=hint)
    return FORMATS[name]


def recognize(rows: list[Row], where: str, tiers: Tiers = ANSWERS) -> Format:
    """The format that most of the first rows fit; when none fits, the one whose columns they have, for its messages.

    Raises DataError when no format has these columns.
    """
    head = rows[:HEAD]
    for tier in tiers:
        fitting = {name: [row for row in head if fits(entry, row)] for name, entry in tier.items()}
        votes = {name: (sum(_reads_all(tier[name], row) for row in rows), len(rows)) for name, rows in fitting.items()}
        best = max(votes, key=votes.get)
        if fitting[best]:
            return tier[best]
    present = {name for row in head for name in row}
    for entry in (entry for tier in tiers for entry in tier.values()):
        is_shaped = (
            entry.matches is never
            or (entry.name in DATASETS | RANKED and entry.matches is not always)
            or entry.beside is not always
        )
        if not is_shaped and all(any(name in present for name in names.split("|")) for names in entry.needs):
            return entry
    raise DataError(
        f"no format has the columns {', '.join(sorted(present)) or '(none)'}",
        where=where,
        hint="name them, as in --columns prompt=A,chosen=B,rejected=C (or prompt=A,completions=B to score); "
        "check_data.py --list_formats shows every format",
    )


def fits(entry: Format, row: Row) -> bool:
    picked, _ = entry.pick(row)
    try:
        return entry.beside(row) and not lacks(entry, row, picked) and entry.matches(picked)
    except RowError:  # text in a cell that no row may hold
        return False


def _reads_all(entry: Format, row: Row) -> bool:
    """Whether the format reads every column that could be part of the input: one that leaves some out fits less well."""
    _, used = entry.pick(row)
    return not any(value and name.lower() in INPUT_LIKE for name, value in row.items() if name not in used.values())


def lacks(entry: Format, row: Row, picked: Row) -> str | None:
    """The first column that the format needs and the row lacks. A label may be null: then the row is set aside."""
    for names in entry.needs:
        alternatives = names.split("|")
        nullable = names in NULLABLE or (entry.winner and alternatives[0] in entry.winner.columns)
        if alternatives[0] not in picked and not (nullable and any(name in row for name in alternatives)):
            return names
    return None
