"""What only rendering shows: rows that a model's chat template refuses, and rows longer than --max_length."""

from collections.abc import Callable
from dataclasses import replace

from ..records import Message, Record, Solution, answers_of, in_steps
from .findings import Check, Material, hashed, table_of, where

REFUSED, OVER_LENGTH = "refused", "over_length"
Render = Callable[[list, list], list]
"""`BaseRenderer.render_all`: the list gets (place, error) of what cannot be rendered."""

RENDERED_CHECKS = table_of(
    Check(
        REFUSED,
        "error",
        "cannot be rendered; the first: {refused}",
        "Training and scoring stop at them.",
        "fix them, or leave them out",
    ),
    Check(
        OVER_LENGTH,
        "warning",
        "hold a conversation longer than {max_length} tokens",
        "They are dropped or truncated, by --overlong; TRL alone drops them without a count.",
        "raise --max_length, or choose what is cut with --overlong",
    ),
)


def rendered_checks(render: Render, render_steps: Render | None, max_length: int | None) -> list[Check]:
    """RENDERED_CHECKS with a model's templates. render_steps: of solutions, for their lengths."""
    flawed: dict[str, set[int]] = {REFUSED: set(), OVER_LENGTH: set()}

    def look(material: Material) -> None:
        rows = {_key(row, answer): (row, answer) for row in material.records for answer in _answers(row)}
        keys, faults = list(rows), []
        asked = [(row.prompt, answer, getattr(row, "tools", None), row.origin) for row, answer in rows.values()]
        done = render(asked, faults)
        flawed[REFUSED] |= {keys[place] for place, _ in faults}
        material.notes["max_length"] = max_length
        if faults:
            material.notes[REFUSED] = faults[0][1].message
        if max_length is None:
            return
        if render_steps:
            done = render_steps([(row.prompt, row.steps, row.origin) for row, _ in rows.values()], [])
        flawed[OVER_LENGTH] |= {
            key for key, one in zip(keys, done, strict=True) if one is not None and len(one.ids) > max_length
        }

    def check_of(name: str) -> Check:
        def of_answer(row: Record, answer: list[Message]) -> bool:
            return _key(row, answer) in flawed[name]

        def find(material: Material) -> list[int]:
            if name == REFUSED:  # the first of the two renders for both
                look(material)
            return where(lambda row: any(of_answer(row, answer) for answer in _answers(row)))(material)

        return replace(RENDERED_CHECKS[name], find=find, of_answer=of_answer)

    return [check_of(name) for name in ([REFUSED] if max_length is None else RENDERED_CHECKS)]


def _key(row: Record, answer: list[Message]) -> int:
    return hashed((row.prompt, answer, getattr(row, "tools", None)))


def _answers(record: Record) -> list[list[Message]]:
    if isinstance(record, Solution):
        return [in_steps(record.steps)]
    return answers_of(record) or [[{"role": "assistant", "content": "-"}]]
