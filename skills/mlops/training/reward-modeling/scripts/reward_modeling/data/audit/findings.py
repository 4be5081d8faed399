"""What a check is and what it finds: the machinery that the tables of checks share.

A check is one frozen entry in the table of its record type (pairs.py, steps.py, unlabeled.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from typing import Any, Literal

from ..records import Comparison, Message, Ranking, Record, Solution

SHOWN = 5
SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True)
class AuditFinding:
    """What one check found."""

    check: str
    severity: Literal["error", "warning", "info"]
    count: int
    share: float
    """`count` as a part of what was looked at."""
    rows: tuple[str, ...]
    """The first five places."""
    message: str
    advice: str


@dataclass(frozen=True)
class Finding(AuditFinding):
    """indices: all places in the audited list."""

    indices: tuple[int, ...] = field(default=(), repr=False)
    of_answer: Callable[[Record, list[Message]], bool] | None = field(default=None, repr=False, compare=False)
    """As in `Check`, where the check alone cannot say it."""


@dataclass(frozen=True)
class Material:
    """The audited records, what they are called, and what is computed from them once. Pairs also have lengths, truncated_pairs
    and max_length (see `audit`); solutions the separator that will stand after each step, where that is known.
    """

    records: Sequence[Record]
    called: str
    eval_records: Sequence[Record] | None = None
    lengths: Callable[[Comparison], tuple[int, int]] | None = None
    max_length: int | None = None
    truncated_pairs: Sequence[bool] | None = None
    separator: str | None = None

    @cached_property
    def keys(self) -> list[tuple]:
        """Digests of prompt and answers of each record, or of a solution's prompt, and its steps."""
        memo: dict[int, bytes] = {}
        return [
            (digest(record.prompt, memo), *record.steps)
            if isinstance(record, Solution)
            else tuple(digest(messages, memo) for messages in (record.prompt, *answers_of(record)))
            for record in self.records
        ]

    @cached_property
    def eval_prompts(self) -> set[bytes]:
        memo: dict[int, bytes] = {}
        return {digest(record.prompt, memo) for record in self.eval_records or ()}


@dataclass(frozen=True)
class Check:
    """One thing that can be wrong. `find` gives the positions of the records that have it."""

    name: str
    severity: str
    what: str
    """The finding in one line; {count}, {total} and {called}, what the records are called, are filled in."""
    why: str
    advice: str
    find: Callable[[Material], list[int]]
    of_answer: Callable[[Record, list[Message]], bool] | None = None
    """Whether an answer of a found record has the flaw; None: two answers have it together."""
    of: Callable[[Material], int] | None = None
    """How many records were looked at, when not all."""
    grade: Callable[[float], str] | None = None
    """The severity by share, when it depends on it: such a check always reports, and is about the data, not its rows."""
    needs_tokens: bool = False
    """Whether it can find anything only where the pairs have been rendered."""
    of_chat: bool = False
    """Whether it is about turns and templates, which text that is rendered already must have."""

    @property
    def about_rows(self) -> bool:
        return self.grade is None


def findings_of(checks: Iterable[Check], material: Material, *, rendered: bool = False) -> list[Finding]:
    """What these checks find, errors first. rendered: the texts are taken as they are, so none of the checks of chats."""
    wanted = [check for check in checks if not (rendered and check.of_chat)]
    findings = [finding for check in wanted if (finding := finding_of(check, material))]
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def finding_of(check: Check, material: Material) -> Finding | None:
    total = check.of(material) if check.of else len(material.records)
    indices = check.find(material) if total else []
    if not indices and not (check.grade and total):
        return None
    share = len(indices) / total
    filled = {"count": len(indices), "total": total, "called": material.called, "max_length": material.max_length}
    return Finding(
        check=check.name,
        severity=check.grade(share) if check.grade else check.severity,
        count=len(indices),
        share=share,
        rows=_places(material.records, indices) if check.about_rows else (),
        message=check.what.format(**filled, percent=f"{share:.1%}"),
        advice=check.advice,
        indices=tuple(indices) if check.about_rows else (),
    )


def _places(records: Sequence[Record], indices: list[int]) -> tuple[str, ...]:
    """The first few places; the pairs of one ranking come from one row."""
    places = (str(records[index].origin or f"pair {index + 1}") for index in indices)
    return tuple(islice(dict.fromkeys(places), SHOWN))


# ---- what checks look at -----------------------------------------------------------------------------------------------


def answers_of(record: Record) -> list[list[Message]]:
    """The completions of a record; a solution's steps are the messages of its one."""
    if isinstance(record, Comparison):
        return [record.chosen, record.rejected]
    if isinstance(record, Ranking):
        return record.completions
    return [[{"role": "assistant", "content": step} for step in record.steps]]


def digest(messages: list[Message], memo: dict[int, bytes]) -> bytes:
    """A digest of messages, blind to whitespace after their contents. Pairs of a ranking share lists: each is read once."""
    known = memo.get(id(messages))
    if known is None:
        text = json.dumps(
            [message | {"content": message["content"].rstrip()} for message in messages], sort_keys=True, default=str
        )
        known = memo[id(messages)] = blake2b(text.encode(), digest_size=16).digest()
    return known


def where(test: Callable[[Any], Any]) -> Callable[[Material], list[int]]:
    """The `find` of a check that looks at one record at a time."""
    return lambda material: [index for index, record in enumerate(material.records) if test(record)]


def each_answer(test: Callable[[Record, list[Message]], bool]) -> dict[str, Callable]:
    """`find` and `of_answer` of a check that looks at one answer at a time."""
    return {"find": where(lambda record: any(test(record, each) for each in answers_of(record))), "of_answer": test}


def repeated(keys: Iterable[Any]) -> list[int]:
    """The places of keys that were there before: the first of equals is not among them."""
    seen, found = set(), []
    for index, key in enumerate(keys):
        if key in seen:
            found.append(index)
        seen.add(key)
    return found


def outside(low: float, high: float) -> Callable[[float], str]:
    """The `grade` of a check whose share is a warning outside of a range."""
    return lambda share: "info" if low <= share <= high else "warning"


def table_of(*checks: Check) -> dict[str, Check]:
    """{name: check}, in this order."""
    return {check.name: check for check in checks}
