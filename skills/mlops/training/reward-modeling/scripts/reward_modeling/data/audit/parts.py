"""Data of any kind, audited: each row by the checks of what it is, and what is left when findings are dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..records import Comparison, Records, Solution, comparisons_of
from . import UNREADABLE, Finding, audit, audit_steps, audit_unlabeled
from .dropping import drop_rows
from .refused import Rendering


def kind_of(row: Any) -> str:
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
    """Rows that are audited together. numbers: where they are in the data; audited: what the checks look at."""

    numbers: list[int]
    rows: list[Any]
    audited: list[Any]
    look: Callable[..., list[Finding]]
    findings: list[Finding]

    def audit(self, held_out: list | None, rendered: bool) -> None:
        self.findings = self.look(self.audited, eval_records=held_out, rendered=rendered)

    def render(self, rendering: Rendering) -> None:
        """Add what a model's chat template refuses to the findings."""
        called = {audit: "pairs", audit_steps: "solutions"}.get(self.look, "rows")
        self.findings = [*rendering.finding(self.audited, called), *self.findings]

    def counts(self) -> dict[str, int]:
        """How many there are of what the rows hold, for the result."""
        if self.look is audit:
            return {"comparisons": len(self.audited)}
        if self.look is audit_unlabeled:
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
    looks = {"pairs": audit, "rankings": audit}
    looks |= {"steps": audit_steps, "unlabeled_steps": audit_steps}
    parts = [Part([], [], [], look, []) for look in (audit, audit_steps, audit_unlabeled)]
    for number, row in enumerate(records.rows):
        look = looks.get(kind_of(row), audit_unlabeled)
        part = next(part for part in parts if part.look is look)
        part.numbers.append(number)
        part.rows.append(row)
        part.audited += comparisons_of(row) if look is audit else [row]
    return parts


def dropped(records: Records, parts: list[Part], checks: list[str]) -> tuple[list, Counter[str], Counter[str]]:
    """The rows that are left, in order; the rows and the completions that are gone, by check."""
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
    return [left[number] for number in sorted(left)], by_check, completions
