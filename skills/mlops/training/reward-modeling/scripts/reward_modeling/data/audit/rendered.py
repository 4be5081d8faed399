"""What only rendering shows: rows that a model's chat template refuses, and rows longer than --max_length, as findings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..records import Comparison, Record, Solution, in_steps
from .findings import Check, Finding, Material, answers_of, finding_of
from .pairs import CHECKS

REFUSED, OVER_LENGTH = "refused", "over_length"
Render = Callable[[list, list], list]
"""Conversations (or prompts with steps) and a list that gets (place, error) of those that cannot be rendered -> what is
rendered, as `BaseRenderer.render_all`."""


def rendered(
    records: Sequence[Record], called: str, render: Render, render_steps: Render | None, max_length: int | None
) -> list[Finding]:
    """The records that the template refuses and those with more tokens than max_length, one finding each, or none.

    render_steps: renders solutions as a process model reads them, for their lengths.
    """
    owners: list[list[tuple[int, int]]] = []
    conversations, places, long = [], {}, set()
    for index, record in enumerate(records):
        for answer in _answers(record):
            place = places.setdefault((id(record.prompt), id(answer)), len(conversations))
            if place == len(conversations):
                conversations.append((record.prompt, answer, getattr(record, "tools", None), record.origin))
                owners.append([])
            owners[place].append((index, id(answer)))
    faults: list = []
    done = render(conversations, faults)
    if max_length is not None:
        if render_steps and isinstance(records[0], Solution):
            done = render_steps([(record.prompt, record.steps, record.origin) for record in records], [])
        long = {place for place, one in enumerate(done) if one is not None and len(one.ids) > max_length}
    refused = {place for place, _ in faults}
    first = faults[0][1].message.replace("{", "{{").replace("}", "}}") if faults else ""
    checks = (
        (refused, _refused_check(first)),
        (long, replace(CHECKS[OVER_LENGTH], needs_tokens=False, **_words(records))),
    )
    return [
        finding for wrong, check in checks if (finding := _finding(check, records, called, owners, wrong, max_length))
    ]


def _answers(record: Record) -> list[list]:
    """What is rendered of a record after its prompt; a prompt alone is rendered with an answer of one character."""
    if isinstance(record, Solution):
        return [in_steps(record.steps)]
    return answers_of(record) or [[{"role": "assistant", "content": "-"}]]


def _words(records: Sequence[Record]) -> dict[str, str]:
    if records and isinstance(records[0], Comparison):
        return {}
    return {"what": "{count} of {total} {called} are longer than {max_length} tokens"}


def _refused_check(first: str) -> Check:
    return Check(
        REFUSED,
        "error",
        "{count} of {total} {called} cannot be rendered; the first: " + first,
        "Training and scoring stop at them.",
        "fix them, or leave them out",
        lambda material: [],
    )


def _finding(
    check: Check,
    records: Sequence[Record],
    called: str,
    owners: list[list[tuple[int, int]]],
    wrong: set[int],
    max_length: int | None,
) -> Finding | None:
    """One finding on the records that own these conversations. It knows which of a ranking's completions have the flaw."""
    found = [one for place in wrong for one in owners[place]]
    answers = {answer for _, answer in found}
    check = replace(check, find=lambda material: sorted({index for index, _ in found}))
    finding = finding_of(check, Material(records, called, max_length=max_length))
    return finding and replace(finding, of_answer=lambda record, answer: id(answer) in answers)
