"""What only rendering shows: rows that a model's chat template refuses, and rows longer than --max_length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..records import Comparison, Message, Record, Solution, answers_of, in_steps
from .findings import Check, Material, hashed, table_of

REFUSED, OVER_LENGTH = "refused", "over_length"
Render = Callable[[list, list], list]
"""Conversations (or prompts with steps) and a list that gets (place, error) of those that cannot be rendered -> what is
rendered, as `BaseRenderer.render_all`."""

RENDERED_CHECKS = table_of(
    Check(
        REFUSED,
        "error",
        "{count} of {total} {called} cannot be rendered; the first: {refused}",
        "Training and scoring stop at them.",
        "fix them, or leave them out",
    ),
    Check(
        OVER_LENGTH,
        "warning",
        "{count} of {total} {called} have a side longer than {max_length} tokens",
        "They are dropped or truncated, as the policy says; TRL alone drops them without a count.",
        "raise --max_length, or choose what is cut with --overlong",
    ),
)


def rendered_checks(kind: type, render: Render, render_steps: Render | None, max_length: int | None) -> list[Check]:
    """RENDERED_CHECKS for records of a type, with a model's templates. render_steps: renders solutions as a process model
    reads them, for their lengths.
    """
    flawed: dict[str, set[int]] = {REFUSED: set(), OVER_LENGTH: set()}

    def find(name: str) -> Callable[[Material], list[int]]:
        def find_one(material: Material) -> list[int]:
            if name == REFUSED:  # the first of the two renders for both
                _render(material, render, render_steps, max_length, flawed)
            rows = enumerate(material.records)
            return [i for i, row in rows if any(_key(row, answer) in flawed[name] for answer in _answers(row))]

        return find_one

    checks = []
    for name, check in RENDERED_CHECKS.items():
        if name == OVER_LENGTH and kind is not Comparison:
            check = replace(check, what=check.what.replace("have a side", "are"))
        of_answer = lambda row, answer, name=name: _key(row, answer) in flawed[name]  # noqa: E731
        checks.append(replace(check, find=find(name), of_answer=of_answer))
    return checks[: 1 if max_length is None else 2]


def _render(
    material: Material,
    render: Render,
    render_steps: Render | None,
    max_length: int | None,
    flawed: dict[str, set[int]],
) -> None:
    """Add the keys of the conversations that are refused or too long, and the first error to the material's notes."""
    rows = {_key(row, answer): (row, answer) for row in material.records for answer in _answers(row)}
    keys, faults = list(rows), []
    tools = [getattr(row, "tools", None) for row, _ in rows.values()]
    asked = [(row.prompt, answer, tool, row.origin) for (row, answer), tool in zip(rows.values(), tools, strict=True)]
    done = render(asked, faults)
    if render_steps and max_length is not None and isinstance(material.records[0], Solution):
        done = render_steps([(row.prompt, row.steps, row.origin) for row, _ in rows.values()], [])
    flawed[REFUSED] |= {keys[place] for place, _ in faults}
    material.notes["max_length"] = max_length
    if faults:
        material.notes[REFUSED] = faults[0][1].message
    if max_length is not None:
        flawed[OVER_LENGTH] |= {
            keys[at] for at, one in enumerate(done) if one is not None and len(one.ids) > max_length
        }


def _key(row: Record, answer: list[Message]) -> int:
    return hashed((row.prompt, answer, getattr(row, "tools", None)))


def _answers(record: Record) -> list[list[dict[str, Any]]]:
    """What is rendered of a record after its prompt; a prompt alone is rendered with an answer of one character."""
    if isinstance(record, Solution):
        return [in_steps(record.steps)]
    return answers_of(record) or [[{"role": "assistant", "content": "-"}]]
