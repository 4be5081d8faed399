"""Text and messages of any dialect -> messages with the roles system, user, assistant, tool and a text as content.

All of it raises RowError for what it cannot read, with the column.
"""

from __future__ import annotations

import os
import re
from typing import Any

from ..console import finite
from .cells import RowError, object_in, short, turns, type_of, wrong_type
from .records import Message

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "ipython"), "tool"),
}

_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


def messages_of(value: Any, column: str) -> list[Message]:
    """A list of {role, content} or {from, value} objects -> messages with known roles and text contents."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise wrong_type(column, value, "a list of messages")
    return [_message(item, column) for item in value]


def _message(item: Any, column: str) -> Message:
    if not isinstance(item, dict):
        raise RowError(
            f"`{column}` holds {type_of(item)} ({short(item)}) where a message with role and content belongs"
        )
    role_key, content_key = ("from", "value") if "from" in item and "role" not in item else ("role", "content")
    role = item.get(role_key)
    if not isinstance(role, str) or role.lower() not in ROLES:
        expected = f"expected one of {', '.join(ROLES)}"
        raise RowError(f"`{column}` holds a message whose {role_key} is {short(role)}: {expected}")
    # Parquet and Arrow fill the fields that only other messages have with null.
    rest = {key: part for key, part in item.items() if key not in (role_key, content_key) and part is not None}
    if not rest.keys().isdisjoint(("tool_calls", "function_call")):
        rest = _with_calls(rest, column)
    content = item.get(content_key)
    if content is None and rest.get("tool_calls"):
        content = ""
    return {"role": ROLES[role.lower()], "content": _text(content, column), **finite(rest)}


def _with_calls(rest: Message, column: str) -> Message:
    """The other fields of a message with its calls as chat templates read them: a list, and arguments as objects.

    OpenAI writes arguments as JSON text, and wrote one call as `function_call` once: as text they would be encoded twice.
    """
    calls, old = object_in(rest.get("tool_calls")) or [], object_in(rest.get("function_call"))
    if old and not calls:
        calls = [{"type": "function", "function": old}]
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise RowError(f"`{column}` holds tool calls that are {type_of(calls)} ({short(calls)}), not a list of objects")
    read = []
    for call in calls:
        function = call.get("function")
        if isinstance(function, dict) and "arguments" in function:
            call = call | {"function": function | {"arguments": object_in(function["arguments"])}}
        elif "arguments" in call:
            call = call | {"arguments": object_in(call["arguments"])}
        read.append(call)
    others = {name: value for name, value in rest.items() if name not in ("tool_calls", "function_call")}
    return others | ({"tool_calls": read} if read else {})


def _text(content: Any, column: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RowError(f"`{column}` holds a message whose content is {type_of(content)} ({short(content)}), not text")
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str) and part.get("type", "text") == "text":
            texts.append(part["text"])
        else:
            named = part.get("type") if isinstance(part, dict) else None
            raise RowError(f"`{column}` holds content of type {named or type_of(part)}: only text can be read")
    return "".join(texts)


def said(role: str, text: str) -> Message:
    return {"role": role, "content": text}


def prompt_of(row: dict[str, Any], column: str = "prompt") -> list[Message]:
    """A prompt given as text (one user message) or as messages, after the system text of the row, if it has one."""
    value = row[column]
    found = [said("user", value)] if isinstance(value, str) else messages_of(value, column)
    return with_system(found, row.get("system"))


def with_system(conversation: list[Message], system: Any) -> list[Message]:
    """The conversation with a system message in front; null and "" mean that there is none."""
    if system is None or system == "":
        return conversation
    if not isinstance(system, str):
        raise wrong_type("system", system, "text")
    if not conversation or conversation[0]["role"] != "system":
        return [said("system", system), *conversation]
    if conversation[0]["content"] != system:
        raise RowError("the `system` column differs from the system message that the conversation starts with")
    return conversation


_HELD = ("answer", "response", "completion", "output", "text", "content")


def is_answer(value: Any) -> bool:
    """Whether an object holds one answer in text beside what is said about it: {"llm_name": ..., "answer": ...}."""
    if not isinstance(value, dict) or not all(isinstance(item, str | None) for item in value.values()):
        return False
    held = [value[name] for name in _HELD if name in value]
    return value.keys().isdisjoint(("role", "from")) and len(held) == 1 and held[0] is not None


def answer_of(value: Any, column: str) -> list[Message]:
    """A completion given as text (one assistant message), as an object that holds it, as one message, or as messages."""
    if is_answer(value):
        value = next(value[name] for name in _HELD if name in value)
    if isinstance(value, str):
        return [said("assistant", value)]
    if not isinstance(value, (list, dict)):
        raise wrong_type(column, value, "text or messages")
    return messages_of(value, column)


def prompt_and_answers(row: dict[str, Any], prompt: str, *names: str) -> tuple[list[Message], list[list[Message]]]:
    """The prompt and the answers of these columns. Lists of turns on all sides (Chatbot Arena's files) are conversations."""
    asked, answered = turns(row[prompt]), [turns(row[name], silent=True) for name in names]
    if asked is None or None in answered:
        return prompt_of(row, prompt), [answer_of(row[name], name) for name in names]
    for name, given in zip(names, answered, strict=True):
        if len(given) != len(asked):
            raise RowError(f"`{prompt}` has {len(asked)} turns and `{name}` {len(given)}")
    sides = [
        [turn for pair in zip(asked, given, strict=True) for turn in map(said, ("user", "assistant"), pair)]
        for given in answered
    ]
    shared, first, second = split_shared(sides[0], sides[-1])
    return with_system(shared, row.get("system")), [first, second][: len(names)]


def same(first: Message, second: Message) -> bool:
    if first["role"] != second["role"] or first["content"].strip() != second["content"].strip():
        return False
    return len(first) == len(second) == 2 or first == second


def starts_with(conversation: list[Message], prefix: list[Message]) -> bool:
    return len(conversation) > len(prefix) and all(map(same, conversation, prefix))


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


def transcript_of(text: Any, column: str) -> list[Message]:
    """A Human/Assistant transcript -> messages; the whitespace around each turn is not part of it."""
    if not is_transcript(text):
        raise wrong_type(column, text, "a transcript of `Human:` and `Assistant:` turns")
    pieces, roles = _TURN.split(text), {"Human": "user", "Assistant": "assistant"}
    return [said(roles[who], turn.strip()) for who, turn in zip(pieces[1::2], pieces[2::2], strict=True)]


def split_text(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Two texts with a shared prefix -> that prefix (the prompt) and the two endings.

    The cut is the last line break inside the prefix, or the last space when there is none, so that answers which
    happen to begin with the same words keep them where the prompt ends with its line.
    """
    shared = os.path.commonprefix([chosen, rejected])
    if len(shared) == min(len(chosen), len(rejected)):
        shared = shared.rstrip()[:-1]
    lines, spaces = shared.rfind("\n"), max(shared.rfind(" "), shared.rfind("\t"))
    cut = lines if shared[: max(lines, 0)].strip() else spaces
    if not shared[: max(cut, 0)].strip():
        raise RowError("`chosen` and `rejected` share no prefix, so no prompt can be told from the answers")
    return chosen[:cut].rstrip(), chosen[cut:].lstrip(), rejected[cut:].lstrip()
