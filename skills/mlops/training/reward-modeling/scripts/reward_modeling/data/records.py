"""What a dataset is read to: comparisons, rankings and solutions in steps, and what each use takes of them.

    records = load(["pairs.jsonl.gz"])       (reading.py) rows in the order of the file, every format to the same three types
    comparisons(records)                     to train and evaluate an outcome model; rankings are taken apart into pairs
    solutions(records)                       to train and evaluate a process model
    to_score(records)                        all that holds completions, as rankings
    prompts(records)                         what a policy is asked

A use raises DataError for rows that it cannot take. `split_by_prompt` holds rows out for validation.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, combinations
from typing import Any, NamedTuple, TypeVar

from ..console import DataError

Message = dict[str, Any]
"""One chat message: {"role": "system" | "user" | "assistant" | "tool", "content": str, ...}."""


@dataclass(frozen=True)
class Origin:
    """Where a record was read: printed as FILE:ROW, rows counted from 1."""

    file: str
    row: int

    def __str__(self) -> str:
        return f"{self.file}:{self.row}"


@dataclass(frozen=True, kw_only=True)
class _Row:
    """What every record has."""

    id: str | int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    origin: Origin | None = None
    given: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """The label columns of the row as they were read, which `to_score` keeps as metadata."""


@dataclass(frozen=True)
class Comparison(_Row):
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
    rejected_first: bool = field(default=False, compare=False, repr=False)
    """Whether the row names the rejected completion first."""


@dataclass(frozen=True)
class Ranking(_Row):
    """One prompt and any number of completions, also none; `scores` are the labels, higher is better, or None."""

    prompt: list[Message]
    completions: list[list[Message]]
    scores: list[float] | None = None
    tools: list[dict] | None = None
    margin: float | None = None
    """Of each of its pairs, where the row says one."""
    weight: float = 1.0
    """Which its pairs share."""

    @property
    def is_labeled_answer(self) -> bool:
        """Whether it is one answer with a label (KTO) and no ranking: it makes no pair."""
        return (
            len(self.completions) == 1
            and self.scores is not None
            and not self.given.keys().isdisjoint(("label", "kto_tag"))
        )


@dataclass(frozen=True)
class Solution(_Row):
    """One prompt and an answer in steps.

    `labels` holds one label a step (1 good, 0 bad, a probability, or None where it has none), or is None.
    """

    prompt: list[Message]
    steps: list[str]
    labels: list[float | None] | None = None


Record = Comparison | Ranking | Solution
_Split = TypeVar("_Split", Comparison, Solution)


class Undecided(NamedTuple):
    """A row whose label does not say which answer is better."""

    place: int
    """Its index among all rows that could be read."""
    row: Record
    reason: str
    """"tie" or "unlabelled"."""


@dataclass(frozen=True)
class Records:
    """What was read. `rows` are in input order; `set_aside` counts the rows kept out of them, by reason."""

    rows: list[Record]
    formats: dict[str, str] = field(default_factory=dict)
    """{file: its format}."""
    columns_used: tuple[str, ...] = ()
    metadata_columns: tuple[str, ...] = ()
    set_aside: dict[str, int] = field(default_factory=dict)
    undecided: tuple[Undecided, ...] = ()
    """The rows that are set aside for their labels: they can be scored."""
    unreadable: tuple[tuple[str, str], ...] = ()
    """(FILE:ROW, reason) of the rows that were left out because they cannot be read, where `load` was asked to."""
    winner_values: dict[str, int] = field(default_factory=dict)
    """Rows by the value of their winner column and what it was taken for: {"1=a": 123, "tie=tie": 4}."""

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(self.formats)

    @property
    def format(self) -> str:
        """The formats found, joined by " and " when the sources differ."""
        return " and ".join(dict.fromkeys(self.formats.values()))


def joined(parts: Iterable[Records], *, rows: bool = True) -> Records:
    """The records of several parts as one. rows: also those themselves, and not what is said of them alone."""
    whole = list(parts)
    starts = accumulate((len(part.rows) + len(part.undecided) for part in whole), initial=0)
    undecided = (
        one._replace(place=start + one.place)
        for start, part in zip(starts, whole, strict=False)
        for one in part.undecided
    )
    return Records(
        rows=[row for part in whole for row in part.rows] if rows else [],
        formats={file: format for part in whole for file, format in part.formats.items()},
        columns_used=tuple(dict.fromkeys(name for part in whole for name in part.columns_used)),
        metadata_columns=tuple(dict.fromkeys(name for part in whole for name in part.metadata_columns)),
        set_aside=dict(sum((Counter(part.set_aside) for part in whole), Counter())),
        undecided=tuple(undecided) if rows else (),
        unreadable=tuple(row for part in whole for row in part.unreadable),
        winner_values=dict(sum((Counter(part.winner_values) for part in whole), Counter())),
    )


# ---- uses --------------------------------------------------------------------------------------------------------------


def comparisons(records: Records) -> list[Comparison]:
    """Every row as pairs: comparisons as they are, a ranking as all pairs of completions with different scores.

    The pairs of one ranking weigh 1 / (number of its pairs), so that each prompt counts once, as in arXiv:2203.02155
    Eq. 1; they have the margin of the ranking. `equal_scores` counts the pairs that made none. Raises DataError for rows without labels and
    for labels of steps.
    """
    for row in records.rows:
        if isinstance(row, Solution):
            raise _steps_refused(str(row.origin))
        if isinstance(row, Ranking) and row.is_labeled_answer:
            raise _not_enough(
                records,
                row,
                "label one answer each as desirable or not (KTO): a loss of pairs needs two answers to one prompt",
                "put answers to the same prompt into one row, as completions with scores; these rows can be scored",
            )
        if isinstance(row, Ranking) and row.scores is None:
            raise _not_enough(
                records,
                row,
                "do not say which answer is better",
                "give chosen and rejected, or completions with scores; completions without labels can be scored",
            )
    return [pair for row in records.rows for pair in comparisons_of(row)]


def solutions(records: Records) -> list[Solution]:
    """The rows whose steps are labeled, for training and evaluation. Raises DataError for rows without steps, and when no
    row has labels.
    """
    for row in records.rows:
        if not isinstance(row, Solution):
            raise _not_enough(
                records,
                row,
                "have no steps",
                "give `prompt`, `completions` (the steps) and `labels`; check_data.py --list_formats shows every format",
            )
    labelled = [row for row in records.rows if row.labels is not None]
    if not labelled:
        where = records.files[0] if records.files else None
        raise DataError("no row labels its steps", where=where, hint="give `labels`, one a step")
    return labelled


def to_score(records: Records, *, steps: bool = False) -> Records:
    """All rows as rankings in the order of the file, ties and unlabeled rows too, with the label columns as metadata.

    A comparison has the scores 1 and 0. steps: answers in steps are taken, and keep their steps (`in_steps`). Raises
    DataError for rows without completions and for other steps.
    """
    rows = _all_rows(records)
    for row, _ in rows:
        if isinstance(row, Solution) and not steps:
            raise _steps_refused(row.origin.file if row.origin else None)
        if isinstance(row, Ranking) and not row.completions:
            raise _not_enough(records, row, "hold prompts only, no answers")
    return _with_all(records, [_to_score(row, reason) for row, reason in rows])


def _to_score(row: Record, reason: str | None) -> Ranking:
    clash = not row.given.keys().isdisjoint(row.metadata)
    shared = {"id": row.id, "origin": row.origin}
    shared["metadata"] = row.given | ({"metadata": row.metadata} if clash else row.metadata)
    if isinstance(row, Solution):
        return Ranking(row.prompt, [in_steps(row.steps)], **shared)
    if isinstance(row, Ranking):
        answers, scores = row.completions, row.scores
    else:
        answers, scores = [row.chosen, row.rejected], [1.0, 0.0]
        if row.rejected_first:
            answers, scores = answers[::-1], scores[::-1]
    if reason:
        scores = [0.0] * len(answers) if reason == "tie" else None
    return Ranking(row.prompt, answers, scores, row.tools, **shared)


def prompts(records: Records) -> Records:
    """The prompts of all rows, as rankings without completions. Raises DataError for empty ones."""
    rows = [row for row, _ in _all_rows(records)]
    empty = [row for row in rows if not any(message["content"].strip() for message in row.prompt)]
    if empty:
        raise DataError(
            "the prompt is empty" if len(empty) == 1 else f"{len(empty)} of {len(rows)} rows: the prompt is empty",
            where=", ".join(str(row.origin) for row in empty[:5]),
            hint="fix these rows, or leave them out",
        )
    names = ("tools", "id", "metadata", "origin")
    asked = [Ranking(row.prompt, [], **{name: getattr(row, name, None) for name in names}) for row in rows]
    return _with_all(records, asked)


def _all_rows(records: Records) -> list[tuple[Record, str | None]]:
    """Every row that could be read, in the order of the file, and why its label does not decide, if so."""
    undecided = {place: (row, reason) for place, row, reason in records.undecided}
    decided = iter(records.rows)
    return [undecided.get(place) or (next(decided), None) for place in range(len(records.rows) + len(undecided))]


def _with_all(records: Records, rows: list[Ranking]) -> Records:
    """The records with these for all of their rows: none is set aside for its label."""
    reasons = {reason for _, _, reason in records.undecided}
    left = {reason: count for reason, count in records.set_aside.items() if reason not in reasons}
    return replace(records, rows=rows, set_aside=left, undecided=())


def _not_enough(records: Records, row: Record, what: str, hint: str | None = None) -> DataError:
    file = row.origin.file if row.origin else None
    return DataError(f"these rows (format `{records.formats.get(file)}`) {what}", where=file, hint=hint)


def _steps_refused(where: str | None) -> DataError:
    return DataError(
        "these rows label the steps of one answer: step labels are for process reward models",
        where=where,
        hint="give rows with a chosen and a rejected answer, or completions with scores",
    )


# ---- rankings and pairs ------------------------------------------------------------------------------------------------


def ordered_pairs(ranking: Ranking) -> list[tuple[int, int]]:
    """(place of the better, place of the worse) of every two completions with different scores."""
    scores = ranking.scores or [0.0] * len(ranking.completions)
    return [
        (i, j) if scores[i] > scores[j] else (j, i)
        for i, j in combinations(range(len(scores)), 2)
        if scores[i] != scores[j]
    ]


def comparisons_of(row: Comparison | Ranking) -> list[Comparison]:
    """A comparison as it is, a ranking as its pairs."""
    if isinstance(row, Comparison):
        return [row]
    ordered = ordered_pairs(row)
    return [
        Comparison(
            prompt=row.prompt,
            chosen=row.completions[better],
            rejected=row.completions[worse],
            margin=row.margin,
            weight=row.weight / len(ordered),
            tools=row.tools,
            id=None if row.id is None else f"{row.id}:{better}>{worse}",
            metadata=row.metadata,
            origin=row.origin,
        )
        for better, worse in ordered
    ]


def equal_scores(records: Records) -> int:
    """How many pairs of completions in the rankings have equal scores, and so make no comparison."""
    rankings = [row for row in records.rows if isinstance(row, Ranking)]
    possible = sum(len(row.completions) * (len(row.completions) - 1) // 2 for row in rankings)
    return possible - sum(len(ordered_pairs(row)) for row in rankings)


def answers_of(record: Record) -> list[list[Message]]:
    """The completions of a record; a solution's steps are the messages of its one."""
    if isinstance(record, Comparison):
        return [record.chosen, record.rejected]
    if isinstance(record, Ranking):
        return record.completions
    return [[{"role": "assistant", "content": step} for step in record.steps]]


def in_steps(steps: list[str]) -> list[Message]:
    """An answer that is given in steps, as messages: the one message keeps them beside its text."""
    return [{"role": "assistant", "content": "\n".join(steps), "steps": steps}]


def split_by_prompt(rows: Sequence[_Split], share: float, seed: int) -> tuple[list[_Split], list[_Split]]:
    """(train, validation): about `share` of the prompts, with all their pairs, go to validation.

    A prompt is placed by its hash and the seed: it lands on the same side in every run and from every file, so no
    prompt is on both sides.
    """
    sides: tuple[list[_Split], list[_Split]] = ([], [])
    for row in rows:
        text = f"{seed}:{json.dumps(row.prompt, sort_keys=True, default=str)}"
        place = int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8]) / 2**64
        sides[place < share].append(row)
    return sides
