"""What can be wrong with rows that are to be scored or answered, whose labels nobody knows: one table, UNLABELED_CHECKS."""

from __future__ import annotations

from dataclasses import replace

from ..records import Ranking
from .findings import table_of, where
from .pairs import CHECKS, out_of_turn


def _stumbles(row: Ranking) -> bool:
    """A prompt without completions is looked at as if it were answered."""
    answers = row.completions or [[{"role": "assistant", "content": ""}]]
    return any(out_of_turn(row.prompt + answer) for answer in answers)


UNLABELED_CHECKS = table_of(
    replace(CHECKS["empty_answer"], severity="warning"),
    CHECKS["duplicate"],
    CHECKS["train_eval_overlap"],
    replace(CHECKS["roles"], find=where(_stumbles)),
    CHECKS["leaked_turn"],
    CHECKS["templated"],
    CHECKS["encoding"],
)
