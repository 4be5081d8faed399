"""What can be wrong with solutions in steps, labeled or not: one table, STEP_CHECKS."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..records import Solution
from .findings import Check, digest, repeated, table_of, where
from .pairs import CHECKS
from .text import contents, is_garbled, leaks_turn

WRONG_WARNING = (0.05, 0.95)
"""Shares of incorrect steps outside of this range are a warning: calling all steps alike is then nearly right."""


@dataclass(frozen=True)
class StepMaterial:
    """The audited solutions. separator: what will stand after each step, where that is known."""

    called = "solutions"

    records: Sequence[Solution]
    separator: str | None = None
    eval_records: Sequence[Solution] | None = None

    @cached_property
    def prompts(self) -> list[bytes]:
        """The digest of each solution's prompt."""
        return [digest(record.prompt, {}) for record in self.records]


def _separator_inside(whitespace: bool) -> Callable[[StepMaterial], list[int]]:
    def find(material: StepMaterial) -> list[int]:
        mark = material.separator
        if not mark or mark.isspace() != whitespace:
            return []
        return where(lambda record: any(mark in step for step in record.steps))(material)

    return find


def _duplicates(material: StepMaterial) -> list[int]:
    return repeated(
        (prompt, tuple(record.steps)) for prompt, record in zip(material.prompts, material.records, strict=True)
    )


def _contradictions(material: StepMaterial) -> list[int]:
    """Solutions with a step that another solution labels otherwise, after the same steps of the same prompt."""
    labels, owners = defaultdict(set), defaultdict(set)
    for index, record in enumerate(material.records):
        for end, label in enumerate(record.labels or (), 1):
            if label is not None:
                prefix = (material.prompts[index], tuple(record.steps[:end]))
                labels[prefix].add(label >= 0.5)
                owners[prefix].add(index)
    return sorted({index for prefix, found in labels.items() if len(found) > 1 for index in owners[prefix]})


def _overlap(material: StepMaterial) -> list[int]:
    held_out = {digest(record.prompt, {}) for record in material.eval_records or ()}
    return [index for index, prompt in enumerate(material.prompts) if prompt in held_out]


def _labels(record: Solution) -> list[float]:
    return [label for label in record.labels or () if label is not None]


def _steps(material: StepMaterial) -> int:
    return sum(len(_labels(record)) for record in material.records)


def _wrong_steps(material: StepMaterial) -> list[int]:
    """The owner of each incorrect step."""
    return [index for index, record in enumerate(material.records) for label in _labels(record) if label < 0.5]


def _grade_balance(share: float) -> str:
    low, high = WRONG_WARNING
    return "info" if low <= share <= high else "warning"


def _ends_wrong(record: Solution) -> bool:
    judged = _labels(record)
    return bool(judged) and judged[-1] < 0.5 and all(label >= 0.5 for label in judged[:-1])


STEP_CHECKS = table_of(
    Check(
        "separator_in_step",
        "error",
        "{count} of {total} {called} have a step that holds the step separator",
        "Inside a step the separator has no label, after it it has one: the model learns that it means nothing.",
        "choose a --step_separator that occurs in no step, or split these steps",
        _separator_inside(whitespace=False),
    ),
    Check(
        "line_break_in_step",
        "warning",
        "{count} of {total} {called} have a step that holds the whitespace step separator",
        "Labels stay in their places, but a text split at the separator has other steps than the training data.",
        "score steps rather than texts, or choose another --step_separator",
        _separator_inside(whitespace=True),
    ),
    replace(CHECKS["duplicate"], find=_duplicates),
    Check(
        "contradiction",
        "warning",
        "{count} of {total} {called} have a step that is labelled otherwise elsewhere, after the same steps",
        "No model can satisfy both: they bound the accuracy that can be reached.",
        "average the labels to a probability, or drop these rows",
        _contradictions,
    ),
    replace(CHECKS["train_eval_overlap"], find=_overlap, sides=None),
    replace(CHECKS["leaked_turn"], find=where(lambda record: leaks_turn(record.steps)), sides=None),
    CHECKS["templated"],
    Check(
        "wrong_steps",
        "info",
        "{count} of {total} labelled steps are incorrect ({percent})",
        "Where nearly all steps are alike, calling all of them so is nearly right, and the model learns just that.",
        "compare with the baselines that call every step correct or wrong; consider --class_weighting balanced",
        _wrong_steps,
        of=_steps,
        grade=_grade_balance,
    ),
    Check(
        "ends_at_first_error",
        "info",
        "in {count} of {total} {called} the last labelled step is the first wrong one",
        "Late steps are then wrong more often than early ones, and position alone predicts some labels.",
        "compare with a baseline that looks at the position alone",
        where(_ends_wrong),
    ),
    replace(
        CHECKS["encoding"],
        find=where(lambda record: is_garbled(contents(record.prompt) + record.steps)),
        sides=None,
    ),
)
