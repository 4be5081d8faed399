"""What is wrong with comparisons, labeled steps or rows to be scored, before a model learns or scores them.

    findings = audit(pairs, eval_records=held_out)      one Finding a check that found something
    clean = drop(pairs, findings)                       without the pairs of these findings
    findings = audit_steps(solutions, separator="\\n", eval_records=held_out)
    findings = audit_unlabeled(rankings)                rows without labels, or prompts alone

Each check is one entry in CHECKS (pairs.py), STEP_CHECKS (steps.py) or UNLABELED_CHECKS (unlabeled.py): what it looks for, why
that matters, what to do. Every check takes time linear in the text. Token counts are not made here: whoever renders the
pairs hands in `lengths`, `max_length` and `truncated_pairs`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ... import console
from ..records import Comparison, Ranking, Records, Solution
from .findings import SHOWN, Check, Finding, digest, findings_of
from .pairs import CHECKS, Material
from .steps import STEP_CHECKS, StepMaterial
from .unlabeled import UNLABELED_CHECKS, UnlabeledMaterial

__all__ = ["CHECKS", "STEP_CHECKS", "UNLABELED_CHECKS", "Check", "Finding", "digest"]

UNREADABLE = "unreadable"


def warn_of_templates(rows: Sequence[Ranking]) -> None:
    """Say on stderr which prompts are templated already, for those who only answer or score them."""
    for finding in findings_of({"templated": UNLABELED_CHECKS["templated"]}, UnlabeledMaterial(rows)):
        console.warn(f"{finding.message} ({_short_places(finding.rows)}): {finding.advice}")


def audit(
    records: Sequence[Comparison],
    *,
    lengths: Callable[[Comparison], tuple[int, int]] | None = None,
    max_length: int | None = None,
    truncated_pairs: Sequence[bool] | None = None,
    eval_records: Sequence[Comparison] | None = None,
    rendered: bool = False,
) -> list[Finding]:
    """Every finding on these pairs, errors first.

    lengths: comparison -> tokens of prompt and chosen, tokens of prompt and rejected; with `max_length` it finds the
    pairs over length. truncated_pairs: [pairs], True where the two sides are the same once truncated.
    eval_records: the pairs of the evaluation set, whose prompts must not be trained on. rendered: the texts
    are taken as they are (--text_format rendered), so that turns and templates in them are meant.
    """
    material = Material(records, lengths, max_length, truncated_pairs, eval_records)
    return findings_of(CHECKS, material, rendered=rendered)


def audit_steps(
    records: Sequence[Solution],
    *,
    separator: str | None = None,
    eval_records: Sequence[Solution] | None = None,
    rendered: bool = False,
) -> list[Finding]:
    """Every finding on these solutions, errors first."""
    return findings_of(STEP_CHECKS, StepMaterial(records, separator, eval_records), rendered=rendered)


def audit_unlabeled(
    records: Sequence[Ranking], *, eval_records: Sequence[Ranking] | None = None, rendered: bool = False
) -> list[Finding]:
    """Every finding on these rows to be scored or answered."""
    return findings_of(UNLABELED_CHECKS, UnlabeledMaterial(records, eval_records), rendered=rendered)


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
    rows = [
        [finding.severity, finding.check, f"{finding.message}: {finding.advice}", _short_places(finding.rows)]
        for finding in findings
    ]
    console.table("audit", ["severity", "check", "finding", "first rows"], rows)


def _short_places(rows: Sequence[str]) -> str:
    """a/FILE:3, a/FILE:4, OTHER:1 -> FILE:3, 4, OTHER:1."""
    shown, last = [], None
    for row in rows:
        file, _, number = row.rpartition(":")
        shown.append(number if file and file == last else row.rpartition("/")[2])
        last = file
    return ", ".join(shown)
