"""Text and chat messages of any dialect -> message lists with the roles system, user, assistant, tool.

Every function raises RowError for what it cannot read; the loader adds file and row.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

Message = dict[str, Any]

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
}

_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


class RowError(Exception):
    """Why one row cannot be read."""


def kind_of(value: Any) -> str:
    """The type of a value in words of the data, for messages."""
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def short(value: Any, width: int = 40) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= width else text[: width - 3] + "..."


def messages(value: Any, column: str) -> list[Message]:
    """A list of {role, content} or {from, value} objects -> messages with known roles and text contents."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise RowError(f"`{column}` is {kind_of(value)} ({short(value)}), not a list of messages")
    return [_message(item, column) for item in value]


def _message(item: Any, column: str) -> Message:
    if not isinstance(item, dict):
        raise RowError(
            f"`{column}` holds {kind_of(item)} ({short(item)}) where a message with role and content belongs"
        )
    role_key, content_key = ("from", "value") if "from" in item and "role" not in item else ("role", "content")
    role = item.get(role_key)
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise RowError(
            f"`{column}` holds a message whose {role_key} is {short(role)}: expected one of {', '.join(ROLES)}"
        )
    # Parquet and Arrow fill the fields that only other messages have with null.
    rest = {key: part for key, part in item.items() if key not in (role_key, content_key) and part is not None}
    content = item.get(content_key)
    if content is None and rest.get("tool_calls"):
        content = ""
    return {"role": ROLES[role.lower()], "content": _text(content, column), **rest}


def _text(content: Any, column: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RowError(f"`{column}` holds a message whose content is {kind_of(content)} ({short(content)}), not text")
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str) and part.get("type", "text") == "text":
            texts.append(part["text"])
        else:
            named = part.get("type") if isinstance(part, dict) else None
            raise RowError(f"`{column}` holds content of type {named or kind_of(part)}: only text can be read")
    return "".join(texts)


def prompt(value: Any, system: Any = None, column: str = "prompt") -> list[Message]:
    """A prompt given as text (one user message) or as messages, after an optional system text."""
    found = [{"role": "user", "content": value}] if isinstance(value, str) else messages(value, column)
    return with_system(found, system)


def with_system(conversation: list[Message], system: Any) -> list[Message]:
    """The conversation with a system message in front; null and "" mean that there is none."""
    if system is None or system == "":
        return conversation
    if not isinstance(system, str):
        raise RowError(f"`system` is {kind_of(system)} ({short(system)}), not text")
    if conversation and conversation[0]["role"] == "system":
        if conversation[0]["content"] == system:
            return conversation
        raise RowError("the `system` column differs from the system message that the conversation starts with")
    return [{"role": "system", "content": system}, *conversation]


def answer(value: Any, column: str) -> list[Message]:
    """A completion given as text (one assistant message), as one message, or as messages."""
    if isinstance(value, str):
        return [{"role": "assistant", "content": value}]
    if not isinstance(value, (list, dict)):
        raise RowError(
            f"`{column}` is {kind_of(value)}{'' if value is None else f' ({short(value)})'}, not text or messages"
        )
    return messages(value, column)


def is_whole(conversation: list[Message]) -> bool:
    """Whether messages given as an answer are a whole conversation: they begin with the system or the user."""
    return bool(conversation) and conversation[0]["role"] in ("system", "user")


def same(first: Message, second: Message) -> bool:
    if first["role"] != second["role"] or first["content"].strip() != second["content"].strip():
        return False
    return len(first) == len(second) == 2 or first == second


def starts_with(conversation: list[Message], beginning: list[Message]) -> bool:
    return len(conversation) > len(beginning) and all(map(same, conversation, beginning))


def split_shared(first: list[Message], second: list[Message]) -> tuple[list[Message], list[Message], list[Message]]:
    """Two whole conversations -> the messages they share from the start (the prompt) and what remains of each.

    At least one message remains on each side. When the sides part before the last answer, what remains holds user
    messages too: the audit compares those.
    """
    if not first or not second:
        raise RowError("a conversation without messages")
    shared = 0
    while shared < min(len(first), len(second)) - 1 and same(first[shared], second[shared]):
        shared += 1
    return first[:shared], first[shared:], second[shared:]


def is_transcript(value: Any) -> bool:
    """Whether a text is a dialogue of "\\n\\nHuman:" and "\\n\\nAssistant:" turns (Anthropic HH, arXiv:2204.05862)."""
    return isinstance(value, str) and value.lstrip().startswith("Human:") and "\n\nAssistant:" in value


def transcript(text: Any, column: str) -> list[Message]:
    """A Human/Assistant transcript -> messages; the blanks around each turn are no part of it."""
    if not is_transcript(text):
        found = f"text ({short(text)})" if isinstance(text, str) else kind_of(text)
        raise RowError(f"`{column}` is {found}, not a transcript of `Human:` and `Assistant:` turns")
    pieces = _TURN.split(text)
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[speaker], "content": turn.strip()}
        for speaker, turn in zip(pieces[1::2], pieces[2::2], strict=True)
    ]


def split_text(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Two texts that begin alike -> the shared beginning (the prompt) and the two endings.

    The cut is the last line break inside the shared beginning, or the last blank when there is none, so that answers
    which happen to begin with the same words keep them where the prompt ends with its line.
    """
    shared = os.path.commonprefix([chosen, rejected])
    if len(shared) == min(len(chosen), len(rejected)):
        shared = shared.rstrip()[:-1]
    lines, blanks = shared.rfind("\n"), max(shared.rfind(" "), shared.rfind("\t"))
    cut = lines if shared[: max(lines, 0)].strip() else blanks
    if not shared[: max(cut, 0)].strip():
        raise RowError("`chosen` and `rejected` share no beginning, so no prompt can be told from the answers")
    return chosen[:cut].rstrip(), chosen[cut:].lstrip(), rejected[cut:].lstrip()
