"""Messages, or a prompt and steps -> token ids and what is scored. The one place of the project that tokenizes.

A reward depends on every token up to the scored one, so everything turns the same conversation into the same ids:

1. The tokenizer's chat template writes the text, special tokens included: none are added, so BOS cannot appear twice.
2. No generation prompt: the conversation ends with the template's end of an answer.
3. Padding is on the right, by a token that is neither EOS nor ever last: transformers' classifiers pool the right-most
   token that is not the pad token.
4. A decoder is scored at its last token, an encoder at its pooled one.
5. What is longer than `max_length` follows one stated policy, and is counted.
6. Special tokens in what people wrote are text, and what a template leaves out is told (`completeness`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from os.path import commonprefix
from typing import Any, NamedTuple

from .base_rendering import BaseRenderer, check_one_text
from .completeness import ANSWERED, ASKED, Completeness
from .data.cells import are_messages
from .data.records import Comparison, Message, Ranking, answers_of
from .errors import DataError
from .hf import Tokenizer
from .packing import shared_length

OVERLONG = ("drop", "truncate_prompt", "truncate_left", "error")


class Written(NamedTuple):
  """A whole conversation as the chat template wrote it elsewhere: its text, or its token ids."""

  text: str = ""
  ids: Sequence[int] = ()


class Conversation(NamedTuple):
  """completion: `Written` where there is no prompt."""

  prompt: Sequence[Message]
  completion: Sequence[Message] | Written
  tools: list[dict] | None = None
  origin: object = None


def conversations_of(rows: Iterable[Comparison | Ranking], renderer: BaseRenderer | None = None) -> list[Conversation]:
  """One for each answer, which gets the column `reference` of its row as a field where the renderer reads it."""
  found = []
  for row in rows:
    given = row.metadata.get("reference") if getattr(renderer, "reads_reference", False) else None
    if are_messages(given) and all(isinstance(one.get("content"), str) for one in given):
      given = "\n".join(one["content"] for one in given)
    for answer in answers_of(row):
      whole = answer if given is None else [*answer[:-1], {"reference": given, **answer[-1]}]
      found.append(Conversation(row.prompt, whole, row.tools, row.origin))
  return found


@dataclass(frozen=True)
class Rendered:
  """cut: tokens removed from the start. start: of the answer, where a reward counts it alone."""

  ids: list[int]
  cut: int = 0
  start: int | None = None


class Renderer(BaseRenderer):
  """overlong: `drop`, `truncate_prompt` (nothing remains when the answer alone is too long), `truncate_left` or `error`."""

  takes = Conversation
  policies, advised = OVERLONG, "truncate_left"
  places = ("last_token", "pooled")
  reads_written = True
  closing = ""
  """A token that stands after all text."""

  def __init__(self, tokenizer: Tokenizer, *, overlong: str = "truncate_prompt", **rules: Any):
    super().__init__(tokenizer, overlong=overlong, **rules)
    self._completeness = Completeness(self._write)
    self._last_prompt: tuple[tuple, list[int]] = ((), [])

  def _parts_of(self, prompt, completion, tools, origin) -> list[str | list[int]]:
    if isinstance(completion, Written):
      return [self._ids_of(completion, origin) if completion.ids else self._completed(completion.text, origin)]
    text = self.text([*prompt, *completion], tools, where=origin)
    if self.text_format == "rendered":
      check_one_text(prompt, completion, origin)
      return [text]
    self._count_templated(prompt, origin)
    if self.special_tokens_in_content == "text":
      completion = self._arguments.as_wanted(completion)
    absent = self._completeness.missing(prompt, completion, tools, text)
    if absent:
      fields = " and ".join(f"`{field}`" for field in absent)
      if self._completeness.nothing_left(prompt, completion, tools, text):
        what = f"nothing of the completion reaches the model: its chat template leaves out {fields}"
        hint = "use a model whose chat template writes them, move them into `content`, or drop these rows"
        raise DataError(what, where=origin, hint=hint)
      self._count("not_rendered", f"{fields} of {origin}" if origin else fields)
    marked = self._marked([*prompt, *completion], tools, origin)
    return [text if marked is None else self.special.ids(marked)]

  def _ids_of(self, written: Written, origin: object) -> list[int]:
    if not all(0 <= one < len(self.tokenizer) for one in written.ids):
      raise DataError(f"token ids of this model are from 0 to {len(self.tokenizer) - 1}", where=origin)
    return list(written.ids)

  def _completed(self, text: str, origin: object) -> str:
    """With the BOS and the end of an answer that the template writes, which other tools take off or never write."""
    if self.text_format == "rendered":
      return text
    bos, opening, end = self._frame
    text = text.removesuffix(self.closing)
    while (token := self.tokenizer.bos_token) and text.startswith(token):
      text = text.removeprefix(token)
    if not text.startswith(opening):
      what = f"the text does not start with {opening!r}, as the chat template of this model starts a conversation"
      raise DataError(what, where=origin, hint="send messages, or text that this chat template wrote")
    mark = end.rstrip()
    ended = mark and text.rstrip().endswith(mark)
    answer = text.rstrip().removesuffix(mark) if ended else text.removesuffix(end)
    self.counts["completed"] += answer + end != text
    return bos + answer + end

  @cached_property
  def _frame(self) -> tuple[str, str, str]:
    """(BOS, what stands before the first turn of every conversation, what stands after an answer)."""
    answer = {"role": "assistant", "content": ANSWERED}
    whole = self.text([*ASKED, answer])
    bos = self.tokenizer.bos_token or ""
    bos = bos if whole.startswith(bos) else ""
    shared = commonprefix([whole, self.text([{"role": "system", "content": "Answer."}, *ASKED, answer])])
    opening = shared[len(bos) :].partition("\n")[0]
    if token := self.special.inside(opening):
      opening = opening[: opening.index(token) + len(token)]
    return bos, opening, self.around_answer[1]

  def _fit(self, parts: list[list[int]], prompt, completion, tools, origin) -> Rendered | None:
    (ids,) = parts
    if not ids:
      raise DataError("the conversation renders to no token at all", where=origin)
    if self.scored_at == "last_token" and ids[-1] == self.tokenizer.pad_token_id:
      what = "the conversation ends with the pad token, which would hide its end from the model"
      raise DataError(what, where=origin)
    if not self._is_over_length(len(ids), "conversation", origin):
      return Rendered(ids)
    head = self._leading_special(ids)
    room = self.max_length - head
    if self.overlong == "drop" or (
      self.overlong == "truncate_prompt" and len(ids) - self._answer_start(ids, prompt, tools, origin) > room
    ):
      self._count("dropped", origin)
      return None
    self._count("truncated", origin)
    return Rendered(ids[:head] + ids[len(ids) - room :], cut=len(ids) - self.max_length)

  def _answer_start(self, ids: list[int], prompt: Sequence[Message], tools: list[dict] | None, origin: object) -> int:
    if not prompt:
      return 0
    if self._last_prompt[0] != (prompt, tools):  # of several completions of one prompt, once
      self._last_prompt = ((prompt, tools), self.prompt_ids(prompt, tools, where=origin))
    return shared_length(ids, self._last_prompt[1])
