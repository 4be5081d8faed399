"""Data of any kind and size, audited slice by slice: each row by the checks of what it is, and what is left without findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..records import Comparison, Ranking, Record, Records, Solution, comparisons_of, equal_scores, joined
from . import TABLES, Audit, Finding
from .dropping import drop_rows
from .findings import Check, Material


def kind_of(row: Record) -> str:
    """What a row is: pairs, rankings, answers with a label each, steps, completions to be scored, or prompts to be answered."""
    if isinstance(row, Comparison):
        return "pairs"
    if isinstance(row, Solution):
        return "steps" if row.labels is not None else "unlabeled_steps"
    if row.is_labeled_answer:
        return "labeled_completions"
    if row.scores is not None:
        return "rankings"
    return "completions" if row.completions else "prompts"


class Part:
    """Rows that are audited together, as records of one type."""

    def __init__(self, kind: type, audit: Audit):
        self.kind, self.audit = kind, audit
        self.counts: Counter[str] = Counter()
        self.findings: list[Finding] = []
        self.passed = 0
        """Of the audited records, how many `left` has passed."""

    def add(self, rows: list[Record], material: Material) -> None:
        self.audit.add(material)
        if self.kind is Comparison:
            self.counts.update(comparisons=len(material.records))
        elif self.kind is Ranking:
            self.counts.update(prompts=len(rows), completions=sum(len(row.completions) for row in rows))
        else:
            labels = [label for one in rows for label in one.labels or () if label is not None]
            self.counts.update(solutions=len(rows), steps=sum(len(one.steps) for one in rows))
            self.counts.update(labelled_steps=len(labels), incorrect_steps=sum(label < 0.5 for label in labels))

    def places(self) -> Iterator[dict[str, Any]]:
        """Every finding with each row it is about, FILE:ROW; row is null for what is about the data as a whole."""
        for one in self.findings:
            for row in self.audit.places(one.indices) if one.indices else [None]:
                yield {"check": one.check, "severity": one.severity, "row": row, "message": one.message}


def _by_type(rows: list[Record]) -> dict[type, tuple[list[int], list[Record], list[Record]]]:
    """{type: (places, rows, what is audited of them)}: labeled answers are audited as their pairs."""
    parts: dict[type, tuple[list[int], list[Record], list[Record]]] = {}
    for place, row in enumerate(rows):
        ranked = isinstance(row, Ranking) and row.scores is not None and not row.is_labeled_answer
        kind = Comparison if ranked else type(row)
        places, whole, audited = parts.setdefault(kind, ([], [], []))
        places.append(place)
        whole.append(row)
        audited += comparisons_of(row) if kind is Comparison else [row]
    return parts


class Survey:
    """What slices of records hold and what is wrong with them. Keeps hashes and counts, not texts.

    A second pass over the same slices, with `left`, gives what remains when findings are dropped.
    """

    def __init__(
        self,
        eval_prompts: frozenset[bytes] = frozenset(),
        *,
        rendered: bool = False,
        more: Callable[[type], list[Check]] = lambda kind: [],
    ):
        self.eval_prompts, self.rendered, self.more = eval_prompts, rendered, more
        self.parts: dict[type, Part] = {}
        self.summary = Records([])
        """All slices without their rows."""
        self.kinds: Counter[str] = Counter()
        self.equal_scores = 0
        self.rows_dropped: Counter[str] = Counter()
        self.completions_dropped: Counter[str] = Counter()

    def add(self, records: Records) -> None:
        for kind, (_, rows, audited) in _by_type(records.rows).items():
            if kind not in self.parts:
                called, checks = TABLES[kind]
                audit = Audit(called, [*self.more(kind), *checks.values()], rendered=self.rendered)
                self.parts[kind] = Part(kind, audit)
            self.parts[kind].add(rows, Material(audited, self.eval_prompts))
        self.kinds.update(map(kind_of, records.rows))
        self.equal_scores += equal_scores(records)
        self.summary = joined([self.summary, records], rows=False)

    def close(self) -> list[Finding]:
        """All findings, after the last slice."""
        self.parts = {kind: self.parts[kind] for kind in TABLES if kind in self.parts}
        for part in self.parts.values():
            part.findings = part.audit.findings()
        return [finding for part in self.parts.values() for finding in part.findings]

    def left(self, records: Records, checks: Iterable[str]) -> dict[int, Record]:
        """What is left of the next slice without what the findings of these checks are about, by its place; counts the rest."""
        kept: dict[int, Record] = {}
        for kind, (places, rows, audited) in _by_type(records.rows).items():
            part = self.parts[kind]
            here = [one.within(part.passed, len(audited)) for one in part.findings if one.check in checks]
            part.passed += len(audited)
            done = drop_rows(rows, audited, here)
            kept |= {places[place]: row for place, row in done.rows.items()}
            self.rows_dropped += done.by_check
            self.completions_dropped += done.completions
        return dict(sorted(kept.items()))
