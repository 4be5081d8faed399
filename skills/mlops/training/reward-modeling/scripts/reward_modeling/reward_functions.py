"""Functions for --reward_functions NAME, and examples of what FILE:NAME may name.

As in TRL a function gets `prompts`, `completions` (lists of messages), `completion_ids` and every other column of the data
by keyword, each a list with one entry a completion, and returns as many numbers; None where it does not apply.
"""

import re
from collections.abc import Sequence
from typing import Any

from .data.records import Message
from .packages import is_installed, not_installed

Completions = Sequence[Sequence[Message]]


def length_penalty(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    """-0.001 for each token; its weight sets another price."""
    return [-0.001 * len(ids) for ids in completion_ids]


def think_format(completions: Completions, **_: Any) -> list[float]:
    """1 for <think>...</think> and an answer after it, else 0."""
    return [float(bool(re.fullmatch(r"\s*<think>.+?</think>\s*\S.*", _text(one), re.DOTALL))) for one in completions]


def same_answer(completions: Completions, answer: Sequence[Any], **_: Any) -> list[float | None]:
    r"""1 where the final answer (\boxed{}, ####, "the answer is") is that of the column `answer`, as text or number."""
    from .evaluation.votes import comparable, final_answer

    def right(text: str, reference: Any) -> float | None:
        known, found = str(reference), final_answer(text)
        expected = final_answer(known) or comparable(known)
        return None if reference is None else float(found is not None and found == expected)

    return [right(_text(one), reference) for one, reference in zip(completions, answer, strict=True)]


def math_correct(completions: Completions, answer: Sequence[Any], **_: Any) -> list[float | None]:
    """1 where the answer equals the column `answer` by math-verify, for which 1/2 is 0.5; None where it cannot read that."""
    if not is_installed("math_verify"):
        raise not_installed("math_verify")
    from math_verify import parse, verify

    from .evaluation.votes import final_answer

    def right(text: str, reference: Any) -> float | None:
        known = parse(f"${final_answer(str(reference)) or reference}$")
        return float(verify(known, parse(text))) if known and reference is not None else None

    return [right(_text(one), reference) for one, reference in zip(completions, answer, strict=True)]


def _text(completion: Sequence[Message]) -> str:
    return completion[-1]["content"]
