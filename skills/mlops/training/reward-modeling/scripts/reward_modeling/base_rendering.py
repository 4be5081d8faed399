"""Messages -> the text of a chat template and its ids: what all renderers have in common."""

import contextlib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar

from .chat_templates import TemplateFaultError, apply, template_text
from .completeness import ANSWERED, ASKED, Arguments
from .data.audit.checks import is_templated
from .data.records import Message
from .errors import DataError, ModelError
from .hf import Tokenizer
from .results import sorted_json
from .terminal import warn

Faults = list[tuple[int, DataError]]
"""(place, why it cannot be rendered)."""
_TAG = re.compile(r"</?\w+>")


class SpecialTokens:
  """And what else the template writes of added tokens, but not tags such as `<think>`, which answers hold rightly."""

  def __init__(self, tokenizer: Tokenizer):
    from transformers.utils import chat_template_utils as marking

    self.tokenizer, self._marking = tokenizer, marking
    written = template_text(tokenizer)
    self.tokens = tuple(
      token.content
      for token in tokenizer.added_tokens_decoder.values()
      if token.content.strip() and (token.special or (token.content in written and not _TAG.fullmatch(token.content)))
    )
    self._starts = {token[:2] for token in self.tokens}
    self._pattern = re.compile("|".join(map(re.escape, sorted(self.tokens, key=len, reverse=True))) or "(?!)")

  def inside(self, value: object) -> str | None:
    """The first special token in any of these texts."""
    if isinstance(value, str):
      found = any(start in value for start in self._starts) and self._pattern.search(value)
      return found[0] if found else None
    parts = chain(*value.items()) if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return next(filter(None, map(self.inside, parts)), None)

  def marked(self, value: object) -> Any:
    if isinstance(value, dict):  # a key of a tool call's arguments is text of the policy too
      return {self.marked(key): self.marked(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
      return [self.marked(item) for item in value]
    return self._marking.mark_control_tokens(value, self._pattern)

  def ids(self, marked: str) -> list[int]:
    try:
      return self._marking.encode_marked_chat(self.tokenizer, marked)
    except ValueError:  # a vocabulary that makes the token of its text too: break it after its first character
      first, last = self.marked(self.tokens[0]).split(self.tokens[0])
      pair = f"{first}({self._pattern.pattern}){last}"
      broken = re.sub(pair, lambda found: f"{found[1][0]}{first}{found[1][1:]}", marked)
      return self._marking.encode_marked_chat(self.tokenizer, broken)


# Rendered to identify a tokenizer by what it does.
PROBES: tuple[tuple[Message, ...], ...] = (
  ({"role": "user", "content": "What is 17 + 25?"}, {"role": "assistant", "content": "17 + 25 = 42."}),
  (
    {"role": "user", "content": "Schreibe  zwei Wörter:\n\tnaïve café 東京"},
    {"role": "assistant", "content": "Hello, world!"},
    {"role": "user", "content": "def f(x):\n    return x**2  # squared"},
    {"role": "assistant", "content": " It squares x. "},
  ),
)

CONTENT_RULE = "special_tokens_in_content"
"""Cards without this key are of models trained when such tokens were parsed."""
PLACES_SHOWN = 5
WITHOUT_TOOLS = "drop them with --columns tools="
OF_TEXTS = ("not_rendered", CONTENT_RULE)  # "templated" is a finding of the audit in training
COUNTED = ("dropped", "truncated", "steps_dropped", "without_steps", *OF_TEXTS, "templated", "refused")
"""What could not be given to the model."""


def content_rule(card: dict[str, Any] | None) -> str:
  """ "text", or "parsed" in older cards."""
  return "text" if not card or "pad_token_id" not in card else card.get(CONTENT_RULE, "parsed")


class BaseRenderer:
  """By the rules of `rendering`. `counts` what happened, `first` where first; `longest` is the most that max_length could be.

  `refused`: None, or gets what cannot be rendered."""

  takes: ClassVar[Callable[..., tuple]]
  policies: ClassVar[tuple[str, ...]]
  places: ClassVar[tuple[str, ...]]
  advised: ClassVar[str]
  """The policy that leaves out least."""
  reads_written = False
  """Whether it takes a conversation that is `rendering.Written`."""

  def __init__(
    self,
    tokenizer: Tokenizer,
    *,
    max_length: int | None,
    overlong: str,
    scored_at: str = "last_token",
    special_tokens_in_content: str = "text",
    text_format: str = "chat",
  ):
    for name, value, allowed in (
      ("text_format", text_format, ("chat", "rendered")),
      ("overlong", overlong, self.policies),
      ("scored_at", scored_at, self.places),
    ):
      if value not in allowed:
        raise ValueError(f"{name} is one of {allowed}, not {value!r}")
    self.tokenizer, self.max_length, self.overlong, self.scored_at = tokenizer, max_length, overlong, scored_at
    self.text_format, self.longest = text_format, None
    self.special_tokens_in_content = "parsed" if text_format == "rendered" else special_tokens_in_content
    self.counts: Counter[str] = Counter()
    self.first: dict[str, str] = {}
    self.refused: Faults | None = None
    self._arguments = Arguments(self._filled)
    self._last_templated: tuple[Any, bool] = (None, False)

  @cached_property
  def special(self) -> SpecialTokens:
    return SpecialTokens(self.tokenizer)

  def render(self, *one, where: object = None, **named) -> Any:
    return self.render_all([self.takes(*one, **named, origin=where)])[0]

  def render_all(self, inputs: Sequence[Any], refused: Faults | None = None) -> list[Any]:
    """None where the policy leaves one out. refused: by default the renderer's own; without any, a DataError."""
    refused = self.refused if refused is None else refused
    faults: Faults = []

    def tried(place: int, function: Callable, *arguments) -> Any:
      try:
        return function(*arguments)
      except DataError as error:
        faults.append((place, error))
        return None

    texts = [tried(i, self._parts_of, *one) for i, one in enumerate(inputs)]
    distinct = dict.fromkeys(part for parts in texts for part in parts or () if part and isinstance(part, str))
    known = {"": [], **dict(zip(distinct, self.tokens(list(distinct)), strict=True))}
    ids = [parts and [known[part] if isinstance(part, str) else part for part in parts] for parts in texts]
    rendered = [None if own is None else tried(i, self._fit, own, *inputs[i]) for i, own in enumerate(ids)]
    faults.sort(key=lambda fault: fault[0])
    if faults and refused is None:
      raise refused_together(faults, len(inputs))
    if refused is not None:
      refused += faults
      for _, error in faults:
        self._count("refused", f"{error.where}: {error.message}" if error.where else error.message)
    return rendered

  def _parts_of(self, *one) -> list[str | list[int]]:
    """Texts that are tokenized one by one; ids in place of one that holds special tokens."""
    raise NotImplementedError

  def _fit(self, parts: list[list[int]], *one) -> Any:
    raise NotImplementedError

  def _is_over_length(self, needed: int, called: str, origin: object) -> bool:
    self.counts["rendered"] += 1
    if self.max_length is None or needed <= self.max_length:
      return False
    self.counts["over_length"] += 1
    if self.overlong == "error":
      what = f"the {called} has {needed} tokens, more than --max_length {self.max_length}"
      hint = f"raise --max_length, or choose --overlong {' or '.join(self.policies[:2])}"
      raise DataError(what, where=origin, hint=hint)
    return True

  def _count_templated(self, prompt: Sequence[Message], origin: object) -> None:
    if self._last_templated[0] is not prompt:  # of several completions of one prompt, once
      self._last_templated = (prompt, is_templated(message["content"] or "" for message in prompt))
    if self._last_templated[1]:
      self._count("templated", origin)

  def _count(self, name: str, where: object) -> None:
    self.counts[name] += 1
    self.first.setdefault(name, str(where or "a conversation"))

  def _count_special(self, token: str, where: object) -> None:
    self._count(CONTENT_RULE, f"{token} in {where or 'a conversation'}")

  def over_length(self) -> str:
    """Why a text is lost, and what to do."""
    longer = f"Raise --max_length (the model reads {self.longest})"
    longer = longer if self.longest and self.max_length and self.longest > self.max_length else "Shorten them"
    other = (
      f"choose --overlong {self.advised}" if self.overlong != self.advised else "leave them out with --overlong drop"
    )
    return f"longer than {self.max_length} tokens under --overlong {self.overlong}. {longer}, or {other}"

  def warn_of_losses(
    self, before: dict[str, int] | None = None, called: str = "", only: Sequence[str] = COUNTED
  ) -> None:
    """How many, of how many, and what to do. before: a copy of `counts`."""
    lost = {name: count - (before or {}).get(name, 0) for name, count in self.counts.items()}
    rendered, over = lost.get("rendered", 0), self.over_length()
    total = rendered + lost.get("without_steps", 0) + lost.get("refused", 0)
    read = "text"
    if self.special_tokens_in_content != "text":
      read = "turns, as in the training of this model: whoever writes them moves its rewards"
    words = {
      "dropped": f"{{}} of {total} completions are unscored: {over}",
      "truncated": f"{{}} of {total} completions are scored with their start cut off: {over}",
      "steps_dropped": f"{{}} steps at the end of {total} solutions are unscored: {over}",
      "without_steps": f"{{}} of {total} completions are unscored: there is no step in them",
      "not_rendered": f"{{}} of {rendered} completions reach the model in part: its chat template leaves out {{}}. "
      "Use a model whose template writes them, or move them into `content`",
      "refused": f"{{}} of {total} completions are unscored: they cannot be rendered (the first: {{}})",
      "templated": f"{{}} of {rendered} conversations have a prompt that is templated already, and are templated twice "
      "(the first: {}). Give the messages alone, or take the texts as they are with --text_format rendered",
      CONTENT_RULE: f"{{}} of {rendered} conversations hold special tokens in their texts, read as {read} (the first: {{}})",
    }
    for name in only:
      if n := lost.get(name, 0):
        warn(called + words[name].format(n, self.first.get(name, "no row")))

  def _leading_special(self, ids: list[int]) -> int:
    """1 for BOS or CLS, which a cut must leave in place."""
    return int(ids[0] in (self.tokenizer.bos_token_id, self.tokenizer.cls_token_id))

  def text(
    self,
    messages: Sequence[Message],
    tools: list[dict] | None = None,
    *,
    where: object = None,
    prompt_only: bool = False,
  ) -> str:
    """With `prompt_only`, up to where the answer would begin."""
    if self.text_format == "rendered":
      if tools:
        what = "the data has `tools`, which text that is rendered already must hold itself"
        raise DataError(what, where=where, hint=WITHOUT_TOOLS)
      return "".join(message["content"] or "" for message in messages)
    if tools and "tools" not in template_text(self.tokenizer):
      what = "the data has `tools`, but the chat template of this model has no place for them"
      raise ModelError(what, where=where, hint=f"use a model whose template knows tools, or {WITHOUT_TOOLS}")
    try:
      return self._write(messages, tools, prompt_only, count=not prompt_only)
    except TemplateFaultError as error:
      what = f"the chat template refuses this conversation: {error}"
      hint = "drop the row, or use a model whose chat template takes such conversations"
      raise DataError(what, where=where, hint=hint) from error

  def _write(self, messages: Sequence[Message], tools, prompt_only: bool, count: bool = False) -> str:
    if self.special_tokens_in_content == "text":
      messages = self._arguments.as_wanted(messages)
    return self._filled(messages, tools, prompt_only, count)

  def _filled(self, messages: Sequence[Message], tools, prompt_only: bool, count: bool = False) -> str:
    """Where the template refuses, with empty content for null, then without a system turn."""
    try:
      return apply(self.tokenizer, messages, tools, prompt_only)
    except TemplateFaultError:
      # A message that calls a tool may have null content, and few templates know it.
      filled = [{**message, "content": ""} if message.get("content") is None else message for message in messages]
      for other in (filled, _fold_system(filled)):
        if other in (None, messages):
          continue
        with contextlib.suppress(TemplateFaultError):
          text = apply(self.tokenizer, other, tools, prompt_only)
          self.counts["system_prompt_moved_into_user_turn"] += count and len(other) < len(messages)
          return text
      raise

  def prompt_ids(
    self, prompt: Sequence[Message], tools: list[dict] | None = None, *, where: object = None
  ) -> list[int]:
    marked = self._marked(prompt, tools, where, prompt_only=True)
    if marked is not None:
      return self.special.ids(marked)
    return self.tokens([self.text(prompt, tools, where=where, prompt_only=True)])[0]

  def _marked(self, messages: Sequence[Message], tools, where: object, prompt_only: bool = False) -> str | None:
    """None where no special tokens are in the content, or they are parsed."""
    if self.text_format == "rendered" or not (token := self.special.inside([messages, tools or []])):
      return None
    if not prompt_only:
      self._count_special(token, where)
    if self.special_tokens_in_content != "text":
      return None
    messages, tools = self.special.marked(messages), self.special.marked(tools)
    return self.text(messages, tools, where=where, prompt_only=prompt_only)

  @cached_property
  def around_answer(self) -> tuple[str, str]:
    """What the template writes between a prompt and its answer, and after that."""
    whole, opening = self.text([*ASKED, {"role": "assistant", "content": ANSWERED}]), self.text(ASKED, prompt_only=True)
    before, _, after = whole.rpartition(ANSWERED)
    return before.removeprefix(opening) if before.startswith(opening) else "", after

  def tokens(self, texts: list[str]) -> list[list[int]]:
    if not texts:
      return []
    return self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]

  def contract(self) -> dict[str, Any]:
    """What decides the ids; the caller may change `max_length` and `overlong` alone."""
    tokenizer = self.tokenizer
    return {
      "chat_template_sha256": _sha256(template_text(tokenizer)),
      "probe_ids_sha256": _sha256(json.dumps(self.probe_ids())),
      **{name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
      "padding_side": "right",
      "scored_at": self.scored_at,
      **({CONTENT_RULE: "text"} if self.special_tokens_in_content == "text" else {}),
      **({"text_format": "rendered"} if self.text_format == "rendered" else {}),
    }

  @cached_property
  def fingerprint(self) -> str:
    return fingerprint_of(self.contract())

  def probe_ids(self) -> list[list[int]]:
    try:
      return self.tokens([apply(self.tokenizer, probe) for probe in PROBES])
    except TemplateFaultError as error:
      what = f"the model has a broken chat template: {error}"
      raise ModelError(what, hint="restore the one that came with it, or give --chat_template_path") from error


def opening_ids(tokenizer) -> list[int]:
  """What the tokenizer puts before every text, such as BOS."""
  plain = tokenizer("a", add_special_tokens=False)["input_ids"]
  ids = tokenizer("a")["input_ids"]
  return ids[: len(ids) - len(plain)] if ids[len(ids) - len(plain) :] == plain else ids[:1]


def refused_together(faults: Faults, total: int) -> DataError:
  first = faults[0][1]
  if len(faults) == 1:
    return first
  places = list(dict.fromkeys(error.where for _, error in faults if error.where))
  shown, more = ", ".join(places[:PLACES_SHOWN]), len(places) - PLACES_SHOWN
  shown = shown and f" ({shown}{f' and {more} more' if more > 0 else ''})"
  what = f"{len(faults)} of {total} conversations cannot be rendered{shown}; the first: {first.message}"
  return DataError(what, where=first.where, hint=first.hint)


def check_one_text(prompt: Sequence[Message], completion: Sequence[Message], where: object) -> None:
  if len(prompt) > 1 or len(completion) != 1:
    what = "a conversation of several messages is not a text that is rendered already"
    raise DataError(what, where=where, hint="give prompt and answer as texts, or leave out --text_format rendered")


def fingerprint_of(contract: dict[str, Any]) -> str:
  return _sha256(sorted_json(contract))[:16]


def _sha256(text: str) -> str:
  return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _fold_system(messages: list[Message]) -> list[Message] | None:
  if [message["role"] for message in messages[:2]] != ["system", "user"]:
    return None
  system, user, *rest = messages
  return [{**user, "content": f"{system['content']}\n\n{user['content']}"}, *rest]
