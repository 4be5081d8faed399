"""Data of any kind and size, audited slice by slice: each row by the checks of what it is, and what is left of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..records import Comparison, Ranking, Record, Records, Solution, comparisons_of, equal_scores, joined
from . import TABLES, Audit, Finding
from .dropping import drop_rows
from .findings import Check, Material


def kind_of(row: Record) -> str:
    if isinstance(row, Comparison):
        return "pairs"
    if isinstance(row, Solution):
        return "steps" if row.labels is not None else "unlabeled_steps"
    if row.is_labeled_answer:
        return "labeled_completions"
    if row.scores is not None:
        return "rankings"
    return "completions" if row.completions else "prompts"


def _by_type(rows: list[Record]) -> dict[type, tuple[list[int], list[Record], list[Record]]]:
    """{type: (places, rows, what is audited of them)}: labeled rankings are audited as their pairs."""
    parts: dict[type, tuple[list[int], list[Record], list[Record]]] = {}
    for place, row in enumerate(rows):
        kind = Comparison if kind_of(row) == "rankings" else type(row)
        places, whole, audited = parts.setdefault(kind, ([], [], []))
        places.append(place)
        whole.append(row)
        audited += comparisons_of(row) if kind is Comparison else [row]
    return parts


def _counts(kind: type, rows: list[Record], audited: list[Record]) -> dict[str, int]:
    if kind is Comparison:
        return {"comparisons": len(audited)}
    if kind is Ranking:
        return {"prompts": len(rows), "completions": sum(len(row.completions) for row in rows)}
    labels = [label for one in rows for label in one.labels or () if label is not None]
    steps = {"solutions": len(rows), "steps": sum(len(one.steps) for one in rows)}
    return steps | {"labelled_steps": len(labels), "incorrect_steps": sum(label < 0.5 for label in labels)}


class Survey:
    """What slices of records hold and what is wrong with them; in a second pass, with `left`, what remains without it.

    more: further checks for records of a type.
    """

    def __init__(self, eval_prompts: frozenset[bytes], *, rendered: bool, more: Callable[[type], list[Check]]):
        self.eval_prompts, self.rendered, self.more = eval_prompts, rendered, more
        self.audits: dict[type, Audit] = {}
        self.findings: dict[type, list[Finding]] = {}
        self.summary = Records([])
        """Without the rows."""
        self.kinds: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.equal_scores = 0
        self.passed: Counter[type] = Counter()
        """By `left`."""
        self.rows_dropped: Counter[str] = Counter()
        self.completions_dropped: Counter[str] = Counter()

    def add(self, records: Records) -> None:
        for kind, (_, rows, audited) in _by_type(records.rows).items():
            if kind not in self.audits:
                called, checks = TABLES[kind]
                self.audits[kind] = Audit(called, [*self.more(kind), *checks.values()], rendered=self.rendered)
            self.audits[kind].add(Material(audited, self.eval_prompts))
            self.counts.update(_counts(kind, rows, audited))
        self.kinds.update(map(kind_of, records.rows))
        self.equal_scores += equal_scores(records)
        self.summary = joined([self.summary, records], rows=False)

    def close(self) -> list[Finding]:
        self.findings = {kind: self.audits[kind].findings() for kind in TABLES if kind in self.audits}
        return [one for found in self.findings.values() for one in found]

    def places(self) -> Iterator[dict[str, Any]]:
        """Every finding with each row it is about; null where it is about the data as a whole."""
        for kind, found in self.findings.items():
            for one in found:
                for row in self.audits[kind].places(one.indices) if one.indices else [None]:
                    yield {"check": one.check, "severity": one.severity, "row": row, "message": one.message}

    def left(self, records: Records, checks: Iterable[str]) -> dict[int, Record]:
        """What these checks leave of the next slice, by its place; counts the rest."""
        kept: dict[int, Record] = {}
        for kind, (places, rows, audited) in _by_type(records.rows).items():
            here = [one for one in self.findings[kind] if one.check in checks]
            done = drop_rows(rows, audited, [one.within(self.passed[kind], len(audited)) for one in here])
            self.passed[kind] += len(audited)
            kept |= {places[place]: row for place, row in done.rows.items()}
            self.rows_dropped += done.by_check
            self.completions_dropped += done.completions
        return dict(sorted(kept.items()))
