"""What is wrong with comparisons, labeled steps or rows to be scored, before a model learns or scores them.

    findings = audit(pairs, eval_records=held_out)      one Finding a check that found something
    clean = drop(pairs, findings)                       without the pairs of these findings

Each check is one entry in CHECKS (pairs.py), STEP_CHECKS (steps.py) or UNLABELED_CHECKS (unlabeled.py): what it looks for, why
that matters, what to do. Every check takes time linear in the text. Token counts are not made here: whoever renders the
pairs hands in `lengths`, `max_length` and `truncated_pairs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ... import console
from ..records import Comparison, Ranking, Record, Records, Solution
from .findings import SHOWN, AuditFinding, Check, Finding, Material, findings_of
from .pairs import CHECKS
from .steps import STEP_CHECKS
from .unlabeled import UNLABELED_CHECKS

__all__ = ["CHECKS", "STEP_CHECKS", "UNLABELED_CHECKS", "AuditFinding", "Check", "Finding"]

TABLES = {Comparison: ("pairs", CHECKS), Solution: ("solutions", STEP_CHECKS), Ranking: ("rows", UNLABELED_CHECKS)}
"""What records of a type are called, and their checks. Rankings are rows to be scored or answered: labeled ones are audited
as their pairs.
"""
UNREADABLE = "unreadable"


def warn_of_templates(rows: Sequence[Ranking]) -> None:
    """Say on stderr which prompts are templated already, for those who only answer or score them."""
    for finding in findings_of([CHECKS["templated"]], Material(rows, "rows")):
        console.warn(f"{finding.message} ({_short_places(finding.rows)}): {finding.advice}")


def audit(records: Sequence[Record], *, rendered: bool = False, **known: Any) -> list[Finding]:
    """Every finding on these records, which are of one type, errors first.

    rendered: the texts are taken as they are (--text_format rendered), so that turns and templates in them are meant.
    known: eval_records, the evaluation set, whose prompts must not be trained on; of solutions the separator; of pairs
    lengths (comparison -> tokens of prompt and chosen, tokens of prompt and rejected), max_length, with which it finds the
    pairs over length, and truncated_pairs ([pairs], True where the two sides are the same once truncated).
    """
    if not records:
        return []
    called, checks = TABLES[type(records[0])]
    return findings_of(checks.values(), Material(records, called, **known), rendered=rendered)


def unreadable(records: Records) -> list[Finding]:
    """The rows that `load` left out because they cannot be read, as one more finding, or nothing."""
    if not records.unreadable:
        return []
    count = len(records.unreadable)
    read = len(records.rows) + sum(records.set_aside.values())
    return [
        Finding(
            check=UNREADABLE,
            severity="error",
            count=count,
            share=count / read,
            rows=tuple(place for place, _ in records.unreadable[:SHOWN]),
            message=f"{count} of {read} rows cannot be read; the first: {records.unreadable[0][1]}",
            advice="fix them, or leave them out",
        )
    ]


def drop(records: Sequence[Any], findings: Iterable[Finding]) -> list[Any]:
    """The audited records without the rows of the findings."""
    gone = {index for finding in findings for index in finding.indices}
    return [record for index, record in enumerate(records) if index not in gone]


def without_errors(records: Sequence[Any], findings: Sequence[Finding], how: str, called: str) -> list[Any]:
    """What a training run keeps of audited records, by its --audit (`how`): with "drop" those without errors, with "warn"
    all. Shows the findings. Raises DataError for errors under "stop". called: the records, for messages.
    """
    show(findings)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors and how == "stop":
        worst = errors[0]
        raise console.DataError(
            worst.message,
            where=", ".join(worst.rows),
            hint=f"{worst.advice}; leave such rows out with --audit drop, or look closer with check_data.py",
        )
    kept = drop(records, errors) if how == "drop" else list(records)
    if len(kept) < len(records):
        console.warn(f"left out {len(records) - len(kept)} of {len(records)} {called} with errors")
    return kept


def show(findings: Sequence[Finding]) -> None:
    """The findings as a table on stderr."""
    if not findings:
        console.log("the audit found nothing")
        return
    rows = [[one.severity, one.check, f"{one.message}: {one.advice}", _short_places(one.rows)] for one in findings]
    console.table("audit", ["severity", "check", "finding", "first rows"], rows)


def _short_places(rows: Sequence[str]) -> str:
    """a/FILE:3, a/FILE:4, OTHER:1 -> FILE:3, 4, OTHER:1."""
    shown, last = [], None
    for row in rows:
        file, _, number = row.rpartition(":")
        shown.append(number if file and file == last else row.rpartition("/")[2])
        last = file
    return ", ".join(shown)
