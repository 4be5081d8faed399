"""Rows that a model's chat template refuses, as one more finding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..records import Record, Solution, in_steps
from .findings import Check, Finding, Material, answers_of, finding_of

REFUSED = "refused"


def refused(records: Sequence[Record], called: str, render_all: Callable[[list, list], Any]) -> list[Finding]:
    """The records that the template refuses, as one finding, or nothing. render_all: renders conversations and adds those it
    cannot to a list, as `Renderer.render_all`.
    """
    owners, conversations = [], []
    for index, record in enumerate(records):
        answers = [in_steps(record.steps)] if isinstance(record, Solution) else answers_of(record)
        for completion in answers or [[{"role": "assistant", "content": "-"}]]:
            owners.append(index)
            conversations.append((record.prompt, completion, getattr(record, "tools", None), record.origin))
    faults: list = []
    render_all(conversations, faults)
    if not faults:
        return []
    first = faults[0][1].message.replace("{", "{{").replace("}", "}}")
    check = Check(
        REFUSED,
        "error",
        "{count} of {total} {called} cannot be rendered; the first: " + first,
        "Training and scoring stop at them.",
        "fix them, or leave them out",
        lambda material: sorted({owners[place] for place, _ in faults}),
    )
    return [finding_of(check, Material(records, called))]
