"""Conversations and solutions written as the authors of a public reward model wrote them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import Any

from .base_rendering import opening_ids
from .data.records import Message
from .errors import DataError, ModelError, UsageError
from .packing import shared_length
from .public_table import Family, as_text
from .rendering import Rendered, Renderer
from .step_rendering import RenderedSolution, StepRenderer, check_steps


def _with_system(messages: Sequence[Message], family: Family) -> Sequence[Message]:
  if family.system is None or (messages and messages[0]["role"] == "system"):
    return messages
  return [{"role": "system", "content": family.system}, *messages]


def _found(ids: list[int], part: list[int]) -> list[int]:
  return [start for start in range(len(ids) - len(part) + 1) if ids[start : start + len(part)] == part]


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
    self.reads_written = not (self._is_pair or family.reads_reference or family.compares)
    self._opening = [] if family.bos == "template" else opening_ids(tokenizer)
    if family.compares and not self._templated:
      raise UsageError("--text_format rendered is not for a model that compares answers: it writes two of them")
    self._gate = self._tokens([family.gate])[0] if family.gate else []
    vocabulary = tokenizer.get_vocab() if family.append else {}
    self.closing = next((token for token in family.append if token in vocabulary), "")
    self._appended = vocabulary.get(self.closing)
    if family.append and self._appended is None:
      raise ModelError(f"the tokenizer of {path} has no {family.append[0]}, after which the reward is read")
    marks = re.findall(r"<\|\w+\|>", family.template or "")
    if absent := [mark for mark in marks if len(self._tokens([mark])[0]) != 1]:
      raise ModelError(f"the tokenizer of {path} has no {absent[0]}, which its authors write between the texts")

  def places_of(self, ids: list[int]) -> list[int]:
    """Where the gate is read, if there is one, and the last."""
    return [*([_found(ids, self._gate)[-1]] if self._gate else ()), len(ids) - 1]

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
    if self.reads_reference and not isinstance(completion[-1].get("reference"), str):
      what = "the answer has no `reference`, a text that this model compares it with"
      raise DataError(
        what, where=origin, hint="give rows a column `reference`, or the answer's message a field of that name"
      )
    if not self._is_pair:
      return super()._parts_of(prompt, completion, tools, origin)
    if tools:
      raise DataError("a text pair has no place for `tools`", where=origin, hint="drop them: --columns tools=")
    return [as_text(prompt), as_text(completion)]

  @cached_property
  def _borders(self) -> list[list[int]]:
    (word,) = self._tokens(["a"])
    ids = list(self.tokenizer("a", "a")["input_ids"])
    first, second = _found(ids, word)[:2]
    return [ids[:first], ids[first + len(word) : second], ids[second + len(word) :]]

  def prompt_ids(self, prompt: Sequence[Message], tools: list[dict] | None = None, *, where=None) -> list[int]:
    if self._is_pair:
      return [*self._borders[0], *self._tokens([as_text(prompt)])[0], *self._borders[1]]
    return self._opened(super().prompt_ids(prompt, tools, where=where))

  def _opened(self, ids: list[int]) -> list[int]:
    opening, bos = self._opening, self.family.bos
    has = ids[: len(opening)] == opening
    if bos == "none":
      return ids[len(opening) :] if has else ids
    return [*opening, *ids] if self._templated and (bos == "both" or not has) else ids

  def _fit(self, parts: list[list[int]], prompt, completion, tools, origin) -> Rendered | None:
    ids = self._opened(parts[0])
    if len(parts) == 2:
      before, between, after = self._borders
      ids = [*before, *parts[0], *between, *parts[1], *after]
    if ids and self._templated and self._appended not in (None, ids[-1]):
      ids = [*ids, self._appended]
    if self.family.head == "Embedding":
      ids = [*ids[:-1], self.tokenizer.eos_token_id]  # as its authors set it
    fitted = super()._fit([ids], prompt, completion, tools, origin)
    if fitted and self._gate and not _found(fitted.ids, self._gate):
      what = f"the text lacks {self.family.gate!r}, where the weights of the attributes are read"
      hint = "raise --max_length: the start of the answer was cut off" if fitted.cut else None
      raise DataError(what, where=origin, hint=hint)
    if fitted and self.family.head == "Embedding":
      asked = prompt[: 1 + (prompt[0]["role"] == "system")] if prompt else []
      before = self._opened(self._tokens([self.text(asked, where=origin)])[0])
      return replace(fitted, start=max(shared_length(ids, before) - fitted.cut, 1))
    return fitted


class PublicStepRenderer(StepRenderer):
  """separator: over the family's, for models that were trained with another."""

  _lead = ""

  def __init__(self, tokenizer, family: Family, *, path: str, separator: str | None = None, **rules):
    self.family = self.written = family
    self.needs_separator = bool(family.tag)
    tag = separator if separator and family.tag and family.pieces else family.tag
    super().__init__(tokenizer, step_separator=tag, **rules)
    self._of_pieces = family.pieces or self.text_format == "rendered"
    self.from_start = family.reference is not None and self.text_format == "chat"
    if len(self.separator_ids) != 1 and not (self._of_pieces or self.from_start or family.replies):
      what = f"the tokenizer of {path} has no token {tag!r}, where the score of a step is read"
      raise ModelError(what, hint="restore the tokenizer that was saved with it")

  @property
  def split_at(self) -> str:
    return self.written.split

  def _parts_of(self, prompt, steps, origin) -> list[str | list[int]]:
    if self.text_format == "rendered":
      return super()._parts_of(prompt, steps, origin)
    check_steps(steps, origin)
    token = self.special.inside([prompt, steps])
    if token:
      self._count_special(token, origin)
      prompt, steps = self.special.marked(prompt), self.special.marked(steps)
    if self._of_pieces:
      self._count_separators(steps)
      texts = [self._literal(prompt, origin), *steps]
    elif self.from_start:
      texts = self._prefixes(prompt, steps, origin)
    else:
      texts = [self._whole(prompt, steps, origin)]
    return [self.special.ids(text) for text in texts] if token else texts

  def _literal(self, prompt, origin) -> str:
    if any(message["role"] == "assistant" for message in prompt):
      what = "the prompt has turns of the assistant, for which its authors had no form"
      raise DataError(what, where=origin, hint="give the problem as one user turn")
    opening = (self.written.opening or "{}").replace("{bos}", self.tokenizer.bos_token or "")
    return opening.replace("{}", as_text(prompt))

  def _whole(self, prompt, steps, origin) -> str:
    written, tag = self.written, self.step_separator
    if written.opening is not None:
      tagged = sum(tag.strip() in step for step in steps)
      if tag.strip() and tagged:
        raise DataError(f"{tagged} steps hold {tag.strip()!r}, which stands after a step here", where=origin)
      return self._literal(prompt, origin) + "".join(written.step.replace("{}", step) for step in steps)
    if not written.replies:
      answer = {"role": "assistant", "content": "".join(step + tag for step in steps)}
      return self.text([*_with_system(prompt, written), answer], where=origin)
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
    if self.written.bos == "tokenizer" and self.text_format == "chat":
      parts = [opening_ids(self.tokenizer) + parts[0], *parts[1:]]
    if self._of_pieces:
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
    self.marks = [ids[0] for ids in self._tokens(list(PAIR_MARKS)) if len(ids) == 1]
    if len(self.marks) < len(PAIR_MARKS):
      what = f"the tokenizer of {path} lacks one of {', '.join(PAIR_MARKS)}, where the model is read"
      raise ModelError(what, hint="restore the tokenizer that was saved with it")

  def _parts_of(self, prompt, completion, tools, origin) -> list[list[int]]:
    several = len(prompt) > 1
    asked = "\n".join(f"{one['role'].upper()}: " * several + (one["content"] or "") for one in prompt)
    texts = [asked, *(one["content"] for one in completion)]
    return self.tokenizer([mark + text for mark, text in zip(PAIR_MARKS, texts, strict=True)])["input_ids"]

  def _fit(self, parts: list[list[int]], prompt, completion, tools, origin) -> Rendered:
    self.counts["rendered"] += 1
    source, answer = self.limits
    limits = [source, *2 * [(source + 2 * answer - min(len(parts[0]), source)) // 2]]
    kept = [
      part if len(part) <= limit else part[: limit - 1] + part[-1:] for part, limit in zip(parts, limits, strict=True)
    ]
    cut = sum(map(len, parts)) - sum(map(len, kept))
    if cut:
      self._count("truncated", origin)
    return Rendered([*chain(*kept)], cut)

  def places_of(self, ids: list[int]) -> list[int]:
    return [ids.index(mark) for mark in self.marks]
