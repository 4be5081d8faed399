"""What can be wrong with rows that are to be scored or answered, whose labels nobody knows: one table, UNLABELED_CHECKS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..records import Ranking
from .findings import digest, repeated, table_of, where
from .pairs import CHECKS, out_of_turn, says_something
from .text import contents, is_garbled, leaks_turn


@dataclass(frozen=True)
class UnlabeledMaterial:
    """The audited rows: a prompt with any number of completions, also none."""

    called = "rows"

    records: Sequence[Ranking]
    eval_records: Sequence[Ranking] | None = None

    @cached_property
    def keys(self) -> list[tuple[bytes, ...]]:
        """Digests of the prompt and of each completion."""
        return [(digest(row.prompt, {}), *(digest(each, {}) for each in row.completions)) for row in self.records]


def _overlap(material: UnlabeledMaterial) -> list[int]:
    held_out = {digest(row.prompt, {}) for row in material.eval_records or ()}
    return [index for index, (prompt, *_) in enumerate(material.keys) if prompt in held_out]


def _whole(row: Ranking) -> list[list[dict]]:
    """Each conversation of the row; without completions the prompt, as if it were answered."""
    answers = row.completions or [[{"role": "assistant", "content": ""}]]
    return [row.prompt + answer for answer in answers]


UNLABELED_CHECKS = table_of(
    replace(
        CHECKS["empty_answer"],
        severity="warning",
        find=where(lambda row: not all(any(map(says_something, each)) for each in row.completions)),
    ),
    replace(CHECKS["duplicate"], find=lambda material: repeated(material.keys)),
    replace(CHECKS["train_eval_overlap"], find=_overlap),
    replace(CHECKS["roles"], find=where(lambda row: any(map(out_of_turn, _whole(row))))),
    replace(
        CHECKS["leaked_turn"],
        find=where(lambda row: any(leaks_turn(contents(each, "assistant")) for each in row.completions)),
    ),
    CHECKS["templated"],
    replace(
        CHECKS["encoding"],
        find=where(lambda row: is_garbled(text for each in [row.prompt, *row.completions] for text in contents(each))),
    ),
)
