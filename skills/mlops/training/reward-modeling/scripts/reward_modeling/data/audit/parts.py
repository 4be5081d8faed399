"""Data of any kind, audited: each row by the checks of what it is, and what is left when findings are dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..records import Comparison, Ranking, Record, Records, Solution, comparisons_of
from . import TABLES, UNREADABLE, Finding, audit
from .dropping import drop_rows
from .rendered import Render, rendered


def kind_of(row: Record) -> str:
    """What a row is: pairs, rankings, steps, completions to be scored, or prompts to be answered."""
    if isinstance(row, Comparison):
        return "pairs"
    if isinstance(row, Solution):
        return "steps" if row.labels is not None else "unlabeled_steps"
    if row.scores is not None:
        return "rankings"
    return "completions" if row.completions else "prompts"


@dataclass
class Part:
    """Rows that are audited together, as records of one type. numbers: where they are in the data."""

    type: type
    numbers: list[int] = field(default_factory=list)
    rows: list[Record] = field(default_factory=list)
    audited: list[Record] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def audit(self, held_out: list | None, rendered: bool) -> None:
        self.findings = audit(self.audited, eval_records=held_out, rendered=rendered)

    def render(self, render: Render, render_steps: Render | None, max_length: int | None) -> None:
        """Add what a model's chat template refuses, and what is longer than max_length tokens, to the findings."""
        found = rendered(self.audited, TABLES[self.type][0], render, render_steps, max_length)
        self.findings = [*found, *self.findings]

    def places(self) -> Iterator[dict[str, Any]]:
        """Every finding with each row it is about, FILE:ROW; row is null for what is about the data as a whole."""
        for one in self.findings:
            rows = dict.fromkeys(str(self.audited[index].origin) for index in one.indices)
            for row in rows or [None]:
                yield {"check": one.check, "severity": one.severity, "row": row, "message": one.message}

    def counts(self) -> dict[str, int]:
        """How many there are of what the rows hold, for the result."""
        if self.type is Comparison:
            return {"comparisons": len(self.audited)}
        if self.type is Ranking:
            return {"prompts": len(self.rows), "completions": sum(len(row.completions) for row in self.rows)}
        labels = [label for one in self.rows for label in one.labels or () if label is not None]
        return {
            "solutions": len(self.rows),
            "steps": sum(len(one.steps) for one in self.rows),
            "labelled_steps": len(labels),
            "incorrect_steps": sum(label < 0.5 for label in labels),
        }


def parts_of(records: Records) -> list[Part]:
    """The rows by what looks at them: labeled answers, solutions in steps, rows without labels."""
    parts = {type: Part(type) for type in TABLES}
    for number, row in enumerate(records.rows):
        labeled = isinstance(row, Ranking) and row.scores is not None
        part = parts[Comparison if labeled else type(row)]
        part.numbers.append(number)
        part.rows.append(row)
        part.audited += comparisons_of(row) if part.type is Comparison else [row]
    return [part for part in parts.values() if part.numbers]


def dropped(
    records: Records, parts: list[Part], checks: list[str]
) -> tuple[dict[int, Any], Counter[str], Counter[str]]:
    """The rows that are left, by their place and in order; the rows and the completions that are gone, by check."""
    left: dict[int, Any] = {}
    by_check: Counter[str] = Counter()
    completions: Counter[str] = Counter()
    if records.unreadable and UNREADABLE in checks:
        by_check[UNREADABLE] = len(records.unreadable)
    for part in parts:
        done = drop_rows(part.rows, part.audited, [one for one in part.findings if one.check in checks])
        left |= {part.numbers[place]: row for place, row in done.rows.items()}
        by_check += done.by_check
        completions += done.completions
    return {number: left[number] for number in sorted(left)}, by_check, completions
