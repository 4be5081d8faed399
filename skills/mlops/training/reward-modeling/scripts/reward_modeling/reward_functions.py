"""Functions for --reward_functions NAME, and examples of what FILE:NAME may name, in TRL's signature.

Each gets `prompts`, `completions` (lists of messages), `completion_ids` and the other columns of the data by keyword, and
returns one number a completion, or None where it does not apply.
"""

import re
from collections.abc import Callable, Sequence

from .data.records import Message
from .packages import is_installed, not_installed

_Completions = Sequence[Sequence[Message]]


def length_penalty(completion_ids: Sequence[Sequence[int]], **_: object) -> list[float]:
  """-0.001 a token."""
  return [-0.001 * len(ids) for ids in completion_ids]


def think_format(completions: _Completions, **_: object) -> list[float]:
  """1 for <think>...</think> and an answer after it, else 0."""
  form = re.compile(r"\s*<think>.+?</think>\s*\S.*", re.DOTALL)
  return [float(bool(form.fullmatch(one[-1]["content"]))) for one in completions]


def answer_agrees(text: str, reference: str, pattern: str | None = None, *, without: bool | None = None) -> bool | None:
  """Whether the last match of the pattern is the reference, as text or as a number. without: of a text without an answer.
  None where the reference is none.
  """
  from .evaluation.best_of_n import comparable, final_answer

  known, found = final_answer(reference, pattern) or comparable(reference), final_answer(text, pattern)
  return None if not known else without if found is None else found == known


def mathematics_agree(
  text: str, reference: str, pattern: str | None = None, *, without: bool | None = None
) -> bool | None:
  """By math-verify, for which 1/2 is 0.5."""
  from math_verify import parse, verify

  from .evaluation.best_of_n import final_answer

  known, found = parse(f"${final_answer(reference, pattern) or reference}$"), parse(text)
  return None if not known else verify(known, found) if found else without


def _same(check: Callable[..., bool | None], completions: _Completions, answer: Sequence[object]) -> list[float | None]:
  told = [
    None if known is None else check(one[-1]["content"], str(known), without=False)
    for one, known in zip(completions, answer, strict=True)
  ]
  return [None if right is None else float(right) for right in told]


def same_answer(completions: _Completions, answer: Sequence[object], **_: object) -> list[float | None]:
  r"""1 where the final answer (\boxed{}, ####, "the answer is") is that of the column `answer`, as text or number."""
  return _same(answer_agrees, completions, answer)


def math_correct(completions: _Completions, answer: Sequence[object], **_: object) -> list[float | None]:
  """1 where the answer is the column `answer` by math-verify, for which 1/2 is 0.5; None where it cannot read that."""
  if not is_installed("math_verify"):
    raise not_installed("math_verify")
  return _same(mathematics_agree, completions, answer)


SHIPPED = (length_penalty, think_format, same_answer, math_correct)
