"""What can be wrong with solutions in steps, labeled or not: one table, STEP_CHECKS."""

from __future__ import annotations

from collections.abc import Callable

from ..records import Solution
from .findings import Check, Link, Material, hashed, outside, table_of, where
from .pairs import CHECKS

WRONG_WARNING = (0.05, 0.95)
"""Shares of incorrect steps outside of this range are a warning: calling all steps alike is then nearly right."""


def _separator_inside(whitespace: bool) -> Callable[[Material], list[int]]:
    def find(material: Material) -> list[int]:
        mark = material.separator
        if not mark or mark.isspace() != whitespace:
            return []
        return where(lambda record: any(mark in step for step in record.steps))(material)

    return find


def _labeled_prefixes(material: Material) -> list[list[Link]]:
    """The steps to each labeled one, which other solutions may share: on one side where it is right."""
    return [
        [
            (hashed(key[: 1 + end]), 1 if label >= 0.5 else 2)
            for end, label in enumerate(record.labels or (), 1)
            if label is not None
        ]
        for record, key in material.keyed()
    ]


def _labels(record: Solution) -> list[float]:
    return [label for label in record.labels or () if label is not None]


def _wrong_steps(material: Material) -> list[int]:
    """The owner of each incorrect step."""
    return [index for index, record in enumerate(material.records) for label in _labels(record) if label < 0.5]


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
    CHECKS["duplicate"],
    Check(
        "contradiction",
        "warning",
        "{count} of {total} {called} have a step that is labeled otherwise elsewhere, after the same steps",
        "No model can satisfy both: they bound the accuracy that can be reached.",
        "average the labels to a probability, or drop these rows",
        opposes=_labeled_prefixes,
    ),
    CHECKS["train_eval_overlap"],
    CHECKS["leaked_turn"],
    CHECKS["templated"],
    Check(
        "wrong_steps",
        "info",
        "{count} of {total} labeled steps are incorrect ({percent})",
        "Where nearly all steps are alike, calling all of them so is nearly right, and the model learns just that.",
        "compare with the baselines that call every step correct or wrong; consider --class_weighting balanced",
        _wrong_steps,
        of=lambda material: sum(len(_labels(record)) for record in material.records),
        grade=outside(*WRONG_WARNING),
    ),
    Check(
        "ends_at_first_error",
        "info",
        "in {count} of {total} {called} the last labeled step is the first wrong one",
        "Late steps are then wrong more often than early ones, and position alone predicts some labels.",
        "compare with a baseline that looks at the position alone",
        where(_ends_wrong),
    ),
    CHECKS["encoding"],
)
