"""What is wrong with labelled steps, before a process reward model learns it. The checks of `audit`, for solutions.

findings = audit_steps(solutions, separator="\\n", eval_records=held_out)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .audit import Check, Finding, digest, findings_of, is_garbled
from .records import Solution

WRONG_WARNING = (0.05, 0.95)
"""Shares of incorrect steps outside of this range are a warning: calling all steps alike is then nearly right."""


@dataclass(frozen=True)
class StepMaterial:
    """The audited solutions. separator: what will stand behind each step, where that is known."""

    records: Sequence[Solution]
    separator: str | None = None
    eval_records: Sequence[Solution] | None = None
    max_length: int | None = None


def audit_steps(
    records: Sequence[Solution], *, separator: str | None = None, eval_records: Sequence[Solution] | None = None
) -> list[Finding]:
    """Every finding on these solutions, errors first."""
    return findings_of(STEP_CHECKS, StepMaterial(records, separator, eval_records))


def _where(test: Callable[[Solution], bool]) -> Callable[[StepMaterial], list[int]]:
    return lambda material: [index for index, record in enumerate(material.records) if test(record)]


def _separator_inside(blank: bool) -> Callable[[StepMaterial], list[int]]:
    def find(material: StepMaterial) -> list[int]:
        mark = material.separator
        if not mark or mark.isspace() != blank:
            return []
        return _where(lambda record: any(mark in step for step in record.steps))(material)

    return find


def _duplicates(material: StepMaterial) -> list[int]:
    seen, found = set(), []
    for index, record in enumerate(material.records):
        place = (digest(record.prompt, {}), tuple(record.steps))
        if place in seen:
            found.append(index)
        seen.add(place)
    return found


def _contradictions(material: StepMaterial) -> list[int]:
    """Solutions with a step that another solution labels otherwise, after the same steps of the same prompt."""
    labels, owners = defaultdict(set), defaultdict(set)
    for index, record in enumerate(material.records):
        prompt = digest(record.prompt, {})
        for end, label in enumerate(record.labels or (), 1):
            if label is not None:
                beginning = (prompt, tuple(record.steps[:end]))
                labels[beginning].add(label >= 0.5)
                owners[beginning].add(index)
    return sorted({index for beginning, found in labels.items() if len(found) > 1 for index in owners[beginning]})


def _overlap(material: StepMaterial) -> list[int]:
    held_out = {digest(record.prompt, {}) for record in material.eval_records or ()}
    return _where(lambda record: digest(record.prompt, {}) in held_out)(material)


def _judged(record: Solution) -> list[float]:
    return [label for label in record.labels or () if label is not None]


def _steps(material: StepMaterial) -> int:
    return sum(len(_judged(record)) for record in material.records)


def _wrong_steps(material: StepMaterial) -> list[int]:
    """The owner of each incorrect step."""
    return [index for index, record in enumerate(material.records) for label in _judged(record) if label < 0.5]


def _grade_balance(share: float) -> str:
    low, high = WRONG_WARNING
    return "info" if low <= share <= high else "warning"


def _ends_wrong(record: Solution) -> bool:
    judged = _judged(record)
    return bool(judged) and judged[-1] < 0.5 and all(label >= 0.5 for label in judged[:-1])


STEP_CHECKS: dict[str, Check] = {
    check.name: check
    for check in (
        Check(
            "separator_in_step",
            "error",
            "{count} of {total} solutions have a step that holds the step separator",
            "Inside a step the separator has no label, behind it it has one: the model learns that it means nothing.",
            "choose a --step_separator that occurs in no step, or split these steps",
            _separator_inside(blank=False),
        ),
        Check(
            "line_break_in_step",
            "warning",
            "{count} of {total} solutions have a step that holds the blank step separator",
            "Labels stay in their places, but a text split at the separator has other steps than the training data.",
            "score steps rather than texts, or choose another --step_separator",
            _separator_inside(blank=True),
        ),
        Check(
            "duplicate",
            "warning",
            "{count} of {total} solutions repeat an earlier one",
            "They count twice in training, and when one of them lands in the evaluation set, it has been seen.",
            "drop them, unless they are separate judgements of the same steps",
            _duplicates,
        ),
        Check(
            "contradiction",
            "warning",
            "{count} of {total} solutions have a step that is labelled otherwise elsewhere, after the same steps",
            "No model can satisfy both: they bound the accuracy that can be reached.",
            "average the labels to a probability, or drop these rows",
            _contradictions,
        ),
        Check(
            "train_eval_overlap",
            "warning",
            "{count} of {total} solutions have a prompt of the evaluation set",
            "Accuracy on prompts that were trained on says little about new ones.",
            "drop these rows from the training set",
            _overlap,
        ),
        Check(
            "wrong_steps",
            "info",
            "{count} of {total} labelled steps are incorrect ({percent})",
            "Where nearly all steps are alike, calling all of them so is nearly right, and the model learns just that.",
            "judge beside the baselines that call every step correct or wrong; consider --class_weighting balanced",
            _wrong_steps,
            of=_steps,
            grade=_grade_balance,
        ),
        Check(
            "ends_at_first_error",
            "info",
            "in {count} of {total} solutions the last labelled step is the first wrong one",
            "Late steps are then wrong more often than early ones, and position alone predicts some labels.",
            "judge beside a baseline that looks at the position alone",
            _where(_ends_wrong),
        ),
        Check(
            "encoding",
            "warning",
            "{count} of {total} solutions hold control characters, replacement characters or wrongly decoded text",
            "The text went through the wrong encoding once (Ã© for é): tokens the base model hardly knows.",
            "read the source again as UTF-8, or drop these rows",
            _where(lambda record: is_garbled([message["content"] for message in record.prompt] + record.steps)),
        ),
    )
}
