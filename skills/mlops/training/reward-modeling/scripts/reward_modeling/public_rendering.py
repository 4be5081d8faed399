"""Conversations and solutions written as the authors of a public reward model wrote them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from .base_rendering import opening_ids
from .completeness import ASKED
from .data.records import Message
from .errors import DataError, ModelError, UsageError
from .hf import Tokenizer
from .public_table import Family, as_text
from .rendering import Rendered, Renderer, Written
from .step_rendering import RenderedSolution, StepRenderer


def _with_system(messages: Sequence[Message], family: Family) -> Sequence[Message]:
  if family.system is None or (messages and messages[0]["role"] == "system"):
    return messages
  return [{"role": "system", "content": family.system}, *messages]


def _found(ids: list[int], part: list[int]) -> list[int]:
  return [start for start in range(len(ids) - len(part) + 1) if ids[start : start + len(part)] == part]


def one_token(path: str, tokenizer: Tokenizer, token: str, why: str) -> int:
  """Its id."""
  ids = tokenizer(token, add_special_tokens=False)["input_ids"]
  if len(ids) != 1:
    what = f"the tokenizer of {path} has no token {token!r}, {why}"
    raise ModelError(what, hint="restore the tokenizer that was saved with it")
  return ids[0]


def with_token_types(separator: int) -> Callable[[Any, tuple, dict], tuple[tuple, dict]]:
  """A hook that tells an encoder which tokens are of the second text: all after the first separator."""

  def hook(model, args: tuple, named: dict[str, Any]) -> tuple[tuple, dict]:
    ends = (named["input_ids"] == separator).long()
    return args, {**named, "token_type_ids": ((ends.cumsum(1) - ends) > 0).long() * named["attention_mask"]}

  return hook


class PublicRenderer(Renderer):
  places = (*Renderer.places, "end")

  def __init__(self, tokenizer, family: Family, *, path: str, **rules):
    super().__init__(tokenizer, **rules)
    self.family, self._templated = family, self.text_format != "rendered"
    self._is_pair = family.pair and self._templated
    self.reads_reference = family.reads_reference
    self.reads_written = not (self._is_pair or family.compares)
    self._opening = [] if family.bos == "template" else opening_ids(tokenizer)
    if family.compares and not self._templated:
      raise UsageError("--text_format rendered is not for a model that compares answers: it writes two of them")
    self._reply: list[int] = []
    if family.gate:
      self._opens = self._write(ASKED, None, True).removeprefix(self._write(ASKED, None, False))
      if not self._opens:
        raise ModelError(f"the chat template of {path} opens no answer, before which the weights of numbers are read")
      self._reply = self.tokens([self._opens])[0]
    self._appended = None
    if family.append:
      self.closing = next(filter(tokenizer.get_vocab().__contains__, family.append), family.append[0])
      self._appended = one_token(path, tokenizer, self.closing, "after which the reward is read")
    for mark in re.findall(r"<\|\w+\|>", family.template or ""):
      one_token(path, tokenizer, mark, "which its authors write between the texts")

  def places_of(self, ids: list[int]) -> list[int]:
    """Where the gate reads, if there is one, and the last."""
    opened = self._reply and _found(ids, self._reply)[:: 1 if self.family.compares else -1]
    return [*(start - self.family.gate for start in opened[:1]), len(ids) - 1]

  def _filled(self, messages: Sequence[Message], tools, prompt_only: bool, count: bool = False) -> str:
    family = self.family
    messages = _with_system(messages, family)
    if not prompt_only and family.turns and messages[-1]["role"] == "assistant":
      messages = family.turns(list(messages))
    written = super()._filled(messages, tools, prompt_only or family.prompt_only, count)
    if prompt_only or family.end is None:
      return written
    written, end = written.rstrip("\n"), family.end.format(eos=self.tokenizer.eos_token)
    return written if written.endswith(end.strip()) else written + end

  def _parts_of(self, prompt, completion, tools, origin) -> list[str | list[int]]:
    is_written = isinstance(completion, Written)  # with its reference
    if self.reads_reference and not is_written and not isinstance(completion[-1].get("reference"), str):
      what = "the answer has no `reference`, a text that this model compares it with"
      raise DataError(
        what, where=origin, hint="give rows a column `reference`, or the answer's message a field of that name"
      )
    if not self._is_pair:
      return super()._parts_of(prompt, completion, tools, origin)
    if tools:
      raise DataError("a text pair has no place for `tools`", where=origin, hint="drop them: --columns tools=")
    return [self.tokenizer(as_text(prompt), as_text(completion))["input_ids"]]

  def prompt_ids(self, prompt: Sequence[Message], tools: list[dict] | None = None, *, where=None) -> list[int]:
    if self._is_pair:
      return self.tokenizer(as_text(prompt), "")["input_ids"]
    return self._opened(super().prompt_ids(prompt, tools, where=where))

  def _opened(self, ids: list[int]) -> list[int]:
    opening, bos = self._opening, self.family.bos
    has = ids[: len(opening)] == opening
    if bos == "none":
      return ids[len(opening) :] if has else ids
    return [*opening, *ids] if self._templated and (bos == "both" or not has) else ids

  def _fit(self, parts: list[list[int]], prompt, completion, tools, origin) -> Rendered | None:
    ids = self._opened(parts[0])
    if ids and self._templated and self._appended not in (None, ids[-1]):
      ids = [*ids, self._appended]
    if self.family.head == "Embedding":
      ids = [*ids[:-1], self.tokenizer.eos_token_id]  # as its authors set it
    fitted = super()._fit([ids], prompt, completion, tools, origin)
    if fitted and self._reply and not _found(fitted.ids, self._reply):
      what = f"the text lacks {self._opens!r}, where the weights of the attributes are read"
      hint = "raise --max_length: the start of the answer was cut off" if fitted.cut else None
      raise DataError(what, where=origin, hint=hint)
    return fitted


class PublicStepRenderer(StepRenderer):
  """separator: over the family's, for models that were trained with another."""

  def __init__(self, tokenizer, family: Family, *, path: str, separator: str | None = None, **rules):
    self.family = family
    self.needs_separator = bool(family.tag)
    tag = separator if separator and family.tag and family.pieces else family.tag
    super().__init__(tokenizer, step_separator=tag, **rules)
    self.of_pieces = family.pieces or self.text_format == "rendered"
    self.from_start = family.reference is not None and self.text_format == "chat"
    if len(self.separator_ids) != 1 and not (self.of_pieces or self.from_start or family.replies):
      one_token(path, tokenizer, tag, "where the score of a step is read")

  @property
  def split_at(self) -> str:
    return self.family.split

  def _texts(self, prompt: Sequence[Message], steps: Sequence[str], origin: object) -> list[str]:
    if self.of_pieces:
      return [self._literal(prompt, origin), *steps]
    return self._prefixes(prompt, steps, origin) if self.from_start else [self._whole(prompt, steps, origin)]

  def _literal(self, prompt, origin) -> str:
    if any(message["role"] == "assistant" for message in prompt):
      what = "the prompt has turns of the assistant, for which its authors had no form"
      raise DataError(what, where=origin, hint="give the problem as one user turn")
    opening = (self.family.opening or "{}").replace("{bos}", self.tokenizer.bos_token or "")
    return opening.replace("{}", as_text(prompt))

  def _whole(self, prompt, steps, origin) -> str:
    family, tag = self.family, self.step_separator
    if family.opening is not None:
      tagged = sum(tag.strip() in step for step in steps)
      if tag.strip() and tagged:
        raise DataError(f"{tagged} steps hold {tag.strip()!r}, which stands after a step here", where=origin)
      return self._literal(prompt, origin) + "".join(family.step.replace("{}", step) for step in steps)
    if not family.replies:
      answer = {"role": "assistant", "content": "".join(step + tag for step in steps)}
      return self.text([*_with_system(prompt, family), answer], where=origin)
    *turns, question = prompt or [{"role": "user", "content": ""}]
    asked = [f"{question['content']} {steps[0].strip()}", *(step.strip() for step in steps[1:])]
    for step in asked:
      turns += [{"role": "user", "content": step}, {"role": "assistant", "content": "+"}]
    return self.text(turns, where=origin)

  def _prefixes(self, prompt, steps, origin) -> list[str]:
    """The whole, then what the authors count the tokens of: the text without, and up to each, step, stripped."""
    answers = ({"role": "assistant", "content": "\n\n".join(steps[:k])} for k in range(len(steps) + 1))
    texts = [self.text([*prompt, answer], where=origin) for answer in answers]
    return [texts[-1], *(text.strip() + "\n\n" * (0 < k < len(steps)) for k, text in enumerate(texts))]

  def _fit(self, parts: list[list[int]], prompt, steps, origin) -> RenderedSolution | None:
    if self.family.bos == "tokenizer" and self.text_format == "chat":
      parts = [opening_ids(self.tokenizer) + parts[0], *parts[1:]]
    if self.of_pieces:
      fitted, early = super()._fit(parts, prompt, steps, origin), self.family.early
      return fitted and replace(fitted, positions=[place - early for place in fitted.positions])
    row, *ends = parts
    places = [min(len(end), len(row)) - 1 for end in ends] if ends else self._tags(row, len(steps), origin)
    if ends:  # sums start before the first token of the answer
      places[0] = max(places[0] - 1, 0)
    if not self._is_over_length(places[-1] + 1, "solution", origin):
      return RenderedSolution(row[: places[-1] + 1], places)
    if self.overlong == "truncate_prompt":
      what = "--overlong truncate_prompt is not for a model whose template holds its steps"
      raise UsageError(what, hint="choose drop_steps")
    kept = [place for place in places if place < self.max_length]
    if self.overlong == "drop" or len(kept) <= len(places) - len(steps):
      self._count("dropped", origin)
      return None
    dropped = len(places) - len(kept)
    self.counts["steps_dropped"] += dropped
    return RenderedSolution(row[: kept[-1] + 1], kept, dropped)

  def _tags(self, ids: list[int], wanted: int, origin) -> list[int]:
    found = _found(ids, self.separator_ids)[-wanted:]
    if len(found) < wanted:
      what = f"{wanted - len(found)} steps end so that {self.step_separator!r} after them is another token"
      raise DataError(what, where=origin, hint="take whitespace off their ends")
    return [start + len(self.separator_ids) - 1 for start in found]


PAIR_MARKS = ("<|source|>", "<|candidate1|>", "<|candidate2|>")
PAIRRM_LIMITS, BETTER_PAIRRM_LIMITS = (1224, 412), (2030, 670)
"""The most tokens of a source and of an answer; the answers share what the source leaves."""


class MarkedRenderer(PublicRenderer):
  """As LLM-Blender writes them: each text after a mark, within [CLS] and [SEP], cut at its end before [SEP]."""

  def __init__(self, tokenizer, family: Family, *, path: str, **rules):
    super().__init__(tokenizer, family, path=path, **rules)
    self.scored_at = "prefix"
    self.limits = BETTER_PAIRRM_LIMITS if "better-pairrm" in path.lower() else PAIRRM_LIMITS
    self.marks = [one_token(path, tokenizer, mark, "where the model is read") for mark in PAIR_MARKS]

  def _parts_of(self, prompt, completion, tools, origin) -> list[list[int]]:
    several = len(prompt) > 1
    asked = "\n".join(f"{one['role'].upper()}: " * several + (one["content"] or "") for one in prompt)
    texts = [asked, *(one["content"] for one in completion)]
    return self.tokenizer([mark + text for mark, text in zip(PAIR_MARKS, texts, strict=True)])["input_ids"]

  def _fit(self, parts: list[list[int]], prompt, completion, tools, origin) -> Rendered | None:
    source, answer = self.limits
    limits = [source, *2 * [(source + 2 * answer - min(len(parts[0]), source)) // 2]]
    kept = [
      part if len(part) <= limit else part[: limit - 1] + part[-1:] for part, limit in zip(parts, limits, strict=True)
    ]
    self.counts["rendered"] += 1
    cut = sum(map(len, parts)) - sum(map(len, kept))
    if cut and self.overlong == "error":
      what = f"a text is longer than its authors read: {source} tokens of a prompt, {answer} of an answer"
      raise DataError(what, where=origin)
    dropped = cut and self.overlong == "drop"
    if cut:
      self._count("dropped" if dropped else "truncated", origin)
    return None if dropped else Rendered([*chain(*kept)], cut)

  def places_of(self, ids: list[int]) -> list[int]:
    return [ids.index(mark) for mark in self.marks]
