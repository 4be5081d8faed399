"""Functions for --reward_functions NAME, and examples of what FILE:NAME may name, in TRL's signature.

Each gets `prompts`, `completions` (lists of messages), `completion_ids` and the other columns of the data by keyword, and
returns one number a completion, or None where it does not apply.
"""

import re
from collections.abc import Sequence

from .data.records import Message
from .packages import is_installed, not_installed

Completions = Sequence[Sequence[Message]]


def length_penalty(completion_ids: Sequence[Sequence[int]], **_: object) -> list[float]:
  """-0.001 a token."""
  return [-0.001 * len(ids) for ids in completion_ids]


def think_format(completions: Completions, **_: object) -> list[float]:
  """1 for <think>...</think> and an answer after it, else 0."""
  form = re.compile(r"\s*<think>.+?</think>\s*\S.*", re.DOTALL)
  return [float(bool(form.fullmatch(one[-1]["content"]))) for one in completions]


def same_answer(completions: Completions, answer: Sequence[str | float | None], **_: object) -> list[float | None]:
  r"""1 where the final answer (\boxed{}, ####, "the answer is") is that of the column `answer`, as text or number."""
  from .evaluation.best_of_n import comparable, final_answer

  known = [final_answer(str(one)) or comparable("" if one is None else one) for one in answer]
  found = [final_answer(one[-1]["content"]) for one in completions]
  return [None if right is None else float(own == right) for own, right in zip(found, known, strict=True)]


def math_correct(completions: Completions, answer: Sequence[str | float | None], **_: object) -> list[float | None]:
  """1 where the answer is the column `answer` by math-verify, for which 1/2 is 0.5; None where it cannot read that."""
  if not is_installed("math_verify"):
    raise not_installed("math_verify")
  from math_verify import parse, verify

  from .evaluation.best_of_n import final_answer

  known = ["" if one is None else parse(f"${final_answer(str(one)) or one}$") for one in answer]
  found = [parse(one[-1]["content"]) for one in completions]
  return [float(verify(right, own)) if right else None for own, right in zip(found, known, strict=True)]


SHIPPED = (length_penalty, think_format, same_answer, math_correct)
