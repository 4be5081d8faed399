"""The sandbox's stepwise task: small sums one after the other, with an error of a known kind in most of the solutions.

    prompt   Start with five. Then add one, take one, take one.
    steps    five add one is six / six take one is seven / seven take one is six
    labels   1, 0, None                                                 error "sign" in the second step

`gold` reads nothing but the texts, so any solution can be judged. Labels stop at the first error, as those of human
annotators do. Prompts of the train and the test split are disjoint: a hash of a prompt decides its split.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator

from reward_modeling.data.records import Message, Solution
from reward_modeling.errors import DataError

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven")
OPERATIONS = {"add": 1, "take": -1}
OPERANDS = (1,)
"""Larger sums, and steps that start from another number, were not learned by three layers within a minute."""
LENGTHS = range(2, 5)
ERRORS = {"result": 2, "sign": 1}
"""Another number near the result, twice as often as the result of the opposite operation."""
ERROR_SHARE = 0.8
TEST_SHARE = 0.2

_VALUE = {word: value for value, word in enumerate(NUMBERS)}
_STEP = re.compile(r"(\w+) (\w+) (\w+) is (\w+)")


def chains(n: int, seed: int, *, split: str = "train", error_share: float = ERROR_SHARE) -> list[Solution]:
  """n labelled solutions of distinct draws; `metadata["error"]` names the kind of the injected error, or is None.

  The same seed gives the same solutions on every machine.
  """
  rng, solutions = random.Random(f"{split}:{seed}"), []
  while len(solutions) < n:
    start, asked = rng.choice(range(len(NUMBERS))), []
    value = start
    for _ in range(rng.choice(LENGTHS)):
      operation, operand = rng.choice(list(_possible(value)))
      value += OPERATIONS[operation] * operand
      asked.append((operation, operand))
    prompt = _prompt(start, asked)
    if _split(prompt) != split:
      continue
    error = rng.choices(list(ERRORS), list(ERRORS.values()))[0] if rng.random() < error_share else None
    steps = _solve(start, asked, error, rng)
    messages = [{"role": "user", "content": prompt}]
    solutions.append(Solution(messages, steps, gold(prompt, steps), metadata={"error": error}))
  return solutions


def gold(prompt: str, steps: list[str]) -> list[float | None]:
  """The true label of each step, from the texts alone; None behind the first error. Raises DataError for another prompt."""
  found = re.fullmatch(r"Start with (\w+)\. Then (.+)\.", prompt)
  if not found or found[1] not in _VALUE:
    raise DataError(f"this is no prompt of the sandbox's chains: {prompt!r}")
  value, asked = _VALUE[found[1]], [one.split() for one in found[2].split(", ")]
  labels: list[float | None] = []
  for number, step in enumerate(steps):
    right = number < len(asked) and _follows(step, value, *asked[number])
    labels.append(float(right))
    if not right:
      break
    value = _VALUE[_STEP.fullmatch(step)[4]]
  return labels + [None] * (len(steps) - len(labels))


def answer(prompt: str) -> str:
  """The last number of a right solution."""
  start, asked = re.fullmatch(r"Start with (\w+)\. Then (.+)\.", prompt).groups()
  changes = (OPERATIONS[how] * _VALUE[what] for how, what in map(str.split, asked.split(", ")))
  return NUMBERS[_VALUE[start] + sum(changes)]


def conversations(n: int, seed: int) -> list[list[Message]]:
  """Chains without an error as conversations, one step a line: what the decoder reads before it judges steps."""
  return [
    [*one.prompt, {"role": "assistant", "content": "\n".join(one.steps) + "\n"}]
    for one in chains(n, seed, error_share=0.0)
  ]


def every_text() -> Iterator[str]:
  """Texts that hold every word of the task wherever it can stand, for the tokenizer."""
  for number in NUMBERS:
    yield f"Start with {number}. Then add {number}, take {number}."
    yield f"{number} add {number} is {number}"
    yield f"{number} take {number} is {number}\n"


def _follows(step: str, value: int, operation: str, operand: str) -> bool:
  found = _STEP.fullmatch(step)
  if not found or found[1] != NUMBERS[value] or (found[2], found[3]) != (operation, operand):
    return False
  return _VALUE.get(found[4]) == value + OPERATIONS[operation] * _VALUE[operand]


def _possible(value: int) -> Iterator[tuple[str, int]]:
  """Operations that stay within the numbers there are words for."""
  for operation, sign in OPERATIONS.items():
    for operand in OPERANDS:
      if 0 <= value + sign * operand < len(NUMBERS):
        yield operation, operand


def _prompt(start: int, asked: list[tuple[str, int]]) -> str:
  return f"Start with {NUMBERS[start]}. Then {', '.join(f'{how} {NUMBERS[what]}' for how, what in asked)}."


def _split(prompt: str) -> str:
  return "test" if zlib.crc32(prompt.encode()) / 2**32 < TEST_SHARE else "train"


def _solve(start: int, asked: list[tuple[str, int]], error: str | None, rng: random.Random) -> list[str]:
  """The steps of a solution, with this error in one of them; later steps go on from what was written."""
  wrong_at = rng.randrange(len(asked)) if error else None
  value, steps = start, []
  for number, (operation, operand) in enumerate(asked):
    kind = error if number == wrong_at else None
    first, change = value, OPERATIONS[operation] * operand
    value = _within(first + change)
    if kind == "sign" and _within(first - change) == first - change:
      value = first - change
    elif kind in ("result", "sign"):
      value = _other(value, rng)
    steps.append(f"{NUMBERS[first]} {operation} {NUMBERS[operand]} is {NUMBERS[value]}")
  return steps


def _within(value: int) -> int:
  return min(max(value, 0), len(NUMBERS) - 1)


def _other(value: int, rng: random.Random) -> int:
  """A number near this one: what a slip would give."""
  return rng.choice([near for near in range(value - 3, value + 4) if near != value and 0 <= near < len(NUMBERS)])
