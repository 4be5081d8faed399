"""Arguments of tool calls as a chat template wants them: OpenAI's format has JSON text, which many would encode again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from .chat_templates import TemplateFaultError
from .completeness import ASKED
from .data.records import Message


class Arguments:
    def __init__(self, write: Callable[[Sequence[Message], Any, bool], str]):
        self._write = write

    @cached_property
    def _takes(self) -> str:
        """An "object", only "text", or "any" where both read alike."""
        text, sign = '{"QZ": "ZQ1QZ"}', "ZQ1QZ"
        of_text, of_object = self._shown(text), self._shown(json.loads(text))
        if sign in of_object:
            return "any" if of_text == of_object else "object"
        return "text" if text in of_text else "any"

    def _shown(self, arguments: Any) -> str:
        call = {"id": "call00001", "type": "function", "function": {"name": "look", "arguments": arguments}}
        try:
            return self._write([*ASKED, {"role": "assistant", "content": "", "tool_calls": [call]}], None, False)
        except TemplateFaultError:
            return ""

    def as_wanted(self, messages: Sequence[Message]) -> Sequence[Message]:
        return [
            {**message, "tool_calls": list(map(self._call, message["tool_calls"]))}
            if isinstance(message.get("tool_calls"), (list, tuple))
            else message
            for message in messages
        ]

    def _call(self, call: Any) -> Any:
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
