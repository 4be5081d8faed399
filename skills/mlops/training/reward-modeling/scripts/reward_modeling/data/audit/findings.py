"""What a check is and what it finds: the machinery that the tables of checks share.

A check is one frozen entry in the table of its record type (pairs.py, steps.py, unlabeled.py). Its material is whatever
holds `records`, the audited ones, how they are `called`, and what is computed from them once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import Any

from ..records import Message

SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """What one check found. `rows` are the first five places, `indices` all of them in the audited list."""

    check: str
    severity: str
    """"error", "warning" or "info"."""
    count: int
    share: float
    """`count` as a part of what was looked at."""
    rows: tuple[str, ...]
    message: str
    advice: str
    indices: tuple[int, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        names = ("check", "severity", "count", "share", "rows", "message", "advice")
        return {name: list(value) if isinstance(value := getattr(self, name), tuple) else value for name in names}


@dataclass(frozen=True)
class Check:
    """One thing that can be wrong. `find` gives the positions of the pairs that have it."""

    name: str
    severity: str
    what: str
    """The finding in one line; {count}, {total} and {called}, what the records are called, are filled in."""
    why: str
    advice: str
    find: Callable[[Any], list[int]]
    of: Callable[[Any], int] | None = None
    """How many pairs were looked at, when not all."""
    grade: Callable[[float], str] | None = None
    """The severity by share, when it depends on it: such a check always reports, and is about the data, not its rows."""
    needs_tokens: bool = False
    """Whether it can find anything only where the pairs have been rendered."""
    of_chat: bool = False
    """Whether it is about turns and templates, which text that is rendered already must have."""
    sides: Callable[[Any], list[str]] | None = None
    """Which answers of a found pair have the flaw, of "chosen" and "rejected"; None: the two of them together."""

    @property
    def about_rows(self) -> bool:
        return self.grade is None


def findings_of(checks: dict[str, Check], material: Any, *, rendered: bool = False) -> list[Finding]:
    """What these checks find, errors first. rendered: the texts are taken as they are, so none of the checks of chats."""
    wanted = [check for check in checks.values() if not (rendered and check.of_chat)]
    findings = [finding for check in wanted if (finding := finding_of(check, material))]
    return sorted(findings, key=lambda finding: ("error", "warning", "info").index(finding.severity))


def finding_of(check: Check, material: Any) -> Finding | None:
    total = check.of(material) if check.of else len(material.records)
    indices = check.find(material) if total else []
    if not indices and not (check.grade and total):
        return None
    share = len(indices) / total
    return Finding(
        check=check.name,
        severity=check.grade(share) if check.grade else check.severity,
        count=len(indices),
        share=share,
        rows=_places(material.records, indices) if check.about_rows else (),
        message=check.what.format(
            count=len(indices),
            total=total,
            called=material.called,
            percent=f"{share:.1%}",
            max_length=getattr(material, "max_length", None),
        ),
        advice=check.advice,
        indices=tuple(indices) if check.about_rows else (),
    )


def _places(records: Sequence[Any], indices: list[int]) -> tuple[str, ...]:
    """The first few places; the pairs of one ranking come from one row."""
    places = (str(records[index].origin or f"pair {index + 1}") for index in indices)
    return tuple(islice(dict.fromkeys(places), SHOWN))


def digest(messages: list[Message], memo: dict[int, bytes]) -> bytes:
    """A digest of messages, blind to whitespace after their contents. Pairs of a ranking share lists: each is read once."""
    known = memo.get(id(messages))
    if known is None:
        text = json.dumps(
            [message | {"content": message["content"].rstrip()} for message in messages], sort_keys=True, default=str
        )
        known = memo[id(messages)] = blake2b(text.encode(), digest_size=16).digest()
    return known


def where(test: Callable[[Any], Any]) -> Callable[[Any], list[int]]:
    """The `find` of a check that looks at one record at a time."""
    return lambda material: [index for index, record in enumerate(material.records) if test(record)]


def repeated(keys: Iterable[Any]) -> list[int]:
    """The places of keys that were there before: the first of equals is not among them."""
    seen, found = set(), []
    for index, key in enumerate(keys):
        if key in seen:
            found.append(index)
        seen.add(key)
    return found


def table_of(*checks: Check) -> dict[str, Check]:
    """{name: check}, in this order."""
    return {check.name: check for check in checks}
