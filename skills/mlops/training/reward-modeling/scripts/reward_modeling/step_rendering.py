"""Solutions in steps -> token ids and the place of each label.

1. Prompt, steps and separator are tokenized one by one, so that a decoder scores every step in one pass. An encoder would see
   what follows: each prefix is a row of its own.
2. The scored token is the separator's last, not a closing SEP or EOS, which would say whether the solution ended.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

from .base_rendering import BaseRenderer, check_one_text
from .data.records import Message
from .errors import DataError, ModelError
from .hf import Tokenizer
from .packing import TokenRow

STEP_SEPARATOR = "\n"
STEPS_OVERLONG = ("drop_steps", "truncate_prompt", "drop", "error")


class Steps(NamedTuple):
  prompt: Sequence[Message]
  steps: Sequence[str]
  origin: object = None


@dataclass(frozen=True)
class RenderedSolution:
  """positions: where each kept step is scored. dropped: last steps that did not fit. cut: tokens of the prompt."""

  ids: list[int]
  positions: list[int]
  dropped: int = 0
  cut: int = 0


class StepRenderer(BaseRenderer):
  """overlong: `drop_steps` (the last ones), `truncate_prompt` (cut its start, then last steps), `drop` or `error`."""

  takes = Steps
  policies, advised = STEPS_OVERLONG, "truncate_prompt"
  places = ("last_token", "prefix")
  needs_separator = of_pieces = True
  from_start = False
  """Whether the first position is the start of the answer, which scores are counted from."""

  def __init__(
    self, tokenizer: Tokenizer, *, overlong: str = "drop_steps", step_separator: str = STEP_SEPARATOR, **rules: Any
  ):
    super().__init__(tokenizer, overlong=overlong, **rules)
    self.step_separator = step_separator
    self.separator_ids = self.tokens([step_separator])[0] if step_separator else []
    if not self.separator_ids and self.needs_separator:
      what = f"the step separator {step_separator!r} is not a token of this tokenizer, where a step could be scored"
      hint = f"give another, as in --step_separator {tokenizer.sep_token or tokenizer.eos_token or '###'}"
      raise ModelError(what, hint=hint)

  @property
  def split_at(self) -> str:
    return self.step_separator if self.step_separator.isspace() else STEP_SEPARATOR

  def _parts_of(self, prompt: Sequence[Message], steps: Sequence[str], origin: object) -> list[str | list[int]]:
    check_steps(steps, origin)
    if self.of_pieces and self.separator_ids:
      self.counts["separator_in_step"] += sum(self.step_separator in step for step in steps)
    if self.text_format == "rendered":
      check_one_text(prompt, [{}], origin)
      return [self.text(prompt, where=origin), *steps]
    self._count_templated(prompt, origin)
    token = self.special.inside([prompt, steps])
    marks = token and self.special_tokens_in_content == "text"
    if token:
      self._count_special(token, origin)
    if marks:
      prompt, steps = self.special.marked([prompt, steps])
    texts = self._texts(prompt, steps, origin)
    return [self.special.ids(text) for text in texts] if marks else texts

  def _texts(self, prompt: Sequence[Message], steps: Sequence[str], origin: object) -> list[str]:
    if not prompt:
      return ["", *steps]
    return [self.text(prompt, where=origin, prompt_only=True), self._lead + steps[0], *steps[1:]]

  def rows(self, solution: RenderedSolution) -> list[TokenRow]:
    if self.scored_at == "last_token":
      return [(solution.ids, solution.positions)]
    return [(solution.ids[: position + 1], [position]) for position in solution.positions]

  @cached_property
  def _lead(self) -> str:
    """Whitespace that the template writes before an answer: it belongs to the first step."""
    lead, _ = self.around_answer
    return lead if lead.isspace() else ""

  def _fit(self, parts: list[list[int]], prompt, steps, origin) -> RenderedSolution | None:
    prompt, *steps = parts
    sizes = [len(step) + len(self.separator_ids) for step in steps]
    needed, cut, kept = len(prompt) + sum(sizes), 0, len(steps)
    if self._is_over_length(needed, "solution", origin):
      head = self._leading_special(prompt) if prompt else 0
      if self.overlong == "truncate_prompt":
        cut = min(needed - self.max_length, len(prompt) - head)
      ends = accumulate(sizes, initial=len(prompt) - cut)
      kept = sum(end <= self.max_length for end in ends) - 1
      if self.overlong == "drop" or kept < 1:
        self._count("dropped", origin)
        return None
      self.counts["truncated"] += bool(cut)
      self.counts["steps_dropped"] += len(steps) - kept
      prompt = prompt[:head] + prompt[head + cut :]
    ids, positions = list(prompt), []
    for step in steps[:kept]:
      ids += step + self.separator_ids
      positions.append(len(ids) - 1)
    return RenderedSolution(ids, positions, len(steps) - kept, cut)

  def contract(self) -> dict[str, Any]:
    own = {"step_separator": self.step_separator, "separator_ids": self.separator_ids}
    return {**super().contract(), **own}


def default_separator(tokenizer: Tokenizer) -> str:
  """The SEP token for a tokenizer that reads line breaks as spaces, as WordPiece does."""
  if tokenizer(STEP_SEPARATOR, add_special_tokens=False)["input_ids"] or not tokenizer.sep_token:
    return STEP_SEPARATOR
  return tokenizer.sep_token


def split_steps(text: str, separator: str = STEP_SEPARATOR) -> list[str]:
  return [step for step, _ in steps_and_ends(text, separator)]


def steps_and_ends(text: str, separator: str) -> list[tuple[str, int]]:
  """The steps, each with the characters of the text up to the end of its separator."""
  pieces = text.split(separator)
  ends = accumulate(len(piece) + len(separator) for piece in pieces)
  return [(piece, end) for piece, end in zip(pieces, ends, strict=True) if piece.strip()]


def supervised_text(tokenizer: Tokenizer, ids: Sequence[int], positions: Iterable[int]) -> list[tuple[str, str]]:
  """(the text since the token scored before, the scored token) of each step."""
  shown, start = [], 0
  for position in positions:
    shown.append((tokenizer.decode(ids[start : position + 1]), tokenizer.convert_ids_to_tokens(ids[position])))
    start = position + 1
  return shown


def check_steps(steps: Sequence[str], where: object) -> None:
  if not steps:
    raise DataError("the solution has no steps", where=where)
  for number, step in enumerate(steps, 1):
    if not step.strip():
      raise DataError(f"step {number} is empty", where=where, hint="drop it and its label")
