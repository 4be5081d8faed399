"""Does what a completion says reach the model? Templates leave out what they have no place for, without a word."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .chat_templates import TemplateFaultError
from .data.records import Message
from .packing import shared_length

SPEAKING = ("reasoning_content", "reasoning", "thinking", "tool_calls", "function_call", "refusal")
"""Fields of a message, beside its content, that are part of what it says."""
_REASONING = SPEAKING[:3]  # three names of one thing: transformers writes each under all
_LABELS = ("id", "type", "index")

ASKED: tuple[Message, ...] = ({"role": "user", "content": "Is it?"},)
ANSWERED = "Indeed"
_SIGN = "QZ{}ZQ"


def spoken_fields(message: Message) -> list[str]:
  filled = [field for field in SPEAKING if message.get(field)]
  return [field for field in filled if field not in [name for name in filled if name in _REASONING][1:]]


Write = Callable[[Sequence[Message], Any, bool], str]
"""(messages, tools, prompt_only) -> what a template writes."""


@dataclass
class Completeness:
  write: Write

  def missing(self, prompt: Sequence[Message], completion: Sequence[Message], tools, text: str) -> list[str]:
    """The fields of which something is not in the text; quick where the text ends with the answer."""
    fields = [(place, field) for place, message in enumerate(completion) for field in spoken_fields(message)]
    content = completion[0].get("content") if len(completion) == 1 else None
    if not fields and isinstance(content, str):
      kept = (content, content.strip(), content.lstrip(), content.rstrip())
      if text.endswith(tuple(own + self._after_answer for own in kept)):
        return []
    start = 0
    with contextlib.suppress(TemplateFaultError):
      start = shared_length(text, self.write(prompt, tools, False)) if prompt else 0
    region = _squeezed(text[start:])
    absent = ["content" for message in completion if not _stands_in(message.get("content") or "", region)]
    absent += self._missing_fields(prompt, completion, tools, fields, region) if fields else []
    return list(dict.fromkeys(absent))

  def nothing_left(self, prompt: Sequence[Message], completion: Sequence[Message], tools, text: str) -> bool:
    for content in ("", _SIGN):
      emptied = [
        {**{key: value for key, value in one.items() if key not in SPEAKING}, "content": content} for one in completion
      ]
      with contextlib.suppress(TemplateFaultError):
        if text == self.write([*prompt, *emptied], tools, False):
          return True
    return False

  @cached_property
  def _after_answer(self) -> str:
    with contextlib.suppress(TemplateFaultError):
      text = self.write([*ASKED, {"role": "assistant", "content": ANSWERED}], None, False)
      return text.rpartition(ANSWERED)[2]
    return ""

  def _missing_fields(self, prompt, completion, tools, fields, region: str) -> list[str]:
    """Each is replaced by a sign of its own, since a word may stand elsewhere by chance."""
    signs: dict[str, str] = {}
    swapped = list(completion)
    for place, field in fields:
      swapped[place] = {**swapped[place], field: _signed(completion[place][field], field, signs)}
    try:
      shown = self.write([*prompt, *swapped], tools, False)
    except TemplateFaultError:
      return [field for place, field in fields if not _stands_in(completion[place][field], region)]
    return [field for sign, field in signs.items() if sign not in shown]


def _texts_in(value: object) -> Iterator[str]:
  if isinstance(value, dict):
    for key, item in value.items():
      if key not in _LABELS:
        yield from _texts_in(item)
  elif isinstance(value, (list, tuple)):
    for item in value:
      yield from _texts_in(item)
  elif value is not None:
    yield value if isinstance(value, str) else json.dumps(value, default=str)


def _signed(value: object, field: str, signs: dict[str, str]) -> Any:
  if isinstance(value, dict):
    return {key: item if key in _LABELS else _signed(item, field, signs) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_signed(item, field, signs) for item in value]
  if value is None or value == "":
    return value
  sign = _SIGN.format(len(signs))
  signs[sign] = field
  return sign


def _stands_in(value: object, region: str) -> bool:
  return all(
    _squeezed(leaf) in region or _squeezed(json.dumps(leaf, ensure_ascii=False)[1:-1]) in region
    for leaf in _texts_in(value)
  )


def _squeezed(text: str) -> str:
  return "".join(text.split())


@dataclass
class Arguments:
  """Arguments of tool calls as one template wants them: OpenAI's format has JSON text, which many would encode again."""

  write: Write

  @cached_property
  def _takes(self) -> str:
    text, sign = '{"QZ": "ZQ1QZ"}', "ZQ1QZ"
    of_text, of_object = self._shown(text), self._shown(json.loads(text))
    if sign in of_object:
      return "any" if of_text == of_object else "object"
    return "text" if text in of_text else "any"

  def _shown(self, arguments) -> str:
    call = {"id": "call00001", "type": "function", "function": {"name": "look", "arguments": arguments}}
    try:
      return self.write([*ASKED, {"role": "assistant", "content": "", "tool_calls": [call]}], None, False)
    except TemplateFaultError:
      return ""

  def as_wanted(self, messages: Sequence[Message]) -> Sequence[Message]:
    return [
      {**message, "tool_calls": list(map(self._call, message["tool_calls"]))}
      if isinstance(message.get("tool_calls"), (list, tuple))
      else message
      for message in messages
    ]

  def _call(self, call) -> Any:
    if not isinstance(call, dict):
      return call
    if isinstance(call.get("function"), dict):
      return {**call, "function": self._call(call["function"])}
    arguments = call.get("arguments")
    if isinstance(arguments, str) and self._takes == "object":
      with contextlib.suppress(ValueError):
        read = json.loads(arguments)
        arguments = read if isinstance(read, dict) else arguments
    elif isinstance(arguments, dict) and self._takes == "text":
      arguments = json.dumps(arguments, ensure_ascii=False)
    return {**call, "arguments": arguments} if "arguments" in call else call
