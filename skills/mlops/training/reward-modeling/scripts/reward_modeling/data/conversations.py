"""Text and messages of any dialect -> messages with known roles and text contents."""

import os
import re
from itertools import takewhile

from ..results import Row, finite
from .cells import ROLES, RowError, expect, short, speech, structure, turns, type_of, wrong_type
from .records import Message

_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):|\A\s*(System):")


def messages_of(value, column: str) -> list[Message]:
  if isinstance(value, dict):
    value = [value]
  return [_message(item, column) for item in expect(value, list, column, "a list of messages")]


def _message(item, column: str) -> Message:
  if not isinstance(item, dict):
    raise RowError(f"`{column}` holds {type_of(item)} ({short(item)}), not a message with role and content")
  names = speech(item)
  role, content = map(item.get, names)
  if not isinstance(role, str) or role.lower() not in ROLES:
    wrong = f"`{column}` holds a message whose {names[0]} is {short(role)}"
    raise RowError(f"{wrong}: expected one of {', '.join(ROLES)}")
  # Parquet and Arrow fill the fields that only other messages have with null.
  rest = {key: part for key, part in item.items() if key not in names and part is not None}
  calls = _calls(rest, column)
  content = _text("" if content is None and calls else content, column)
  return {"role": ROLES[role.lower()], "content": content, **finite(rest | ({"tool_calls": calls} if calls else {}))}


def _calls(rest: Message, column: str) -> list[Message]:
  """As chat templates read them: arguments in JSON text would be encoded twice."""
  calls, old = (structure(rest.pop(name, None)) for name in ("tool_calls", "function_call"))
  calls = calls or ([{"type": "function", "function": old}] if old else [])
  if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
    raise RowError(f"`{column}` holds tool calls that are {type_of(calls)} ({short(calls)}), not a list of objects")
  return [
    {name: _with_arguments(part) if name == "function" else part for name, part in _with_arguments(call).items()}
    for call in calls
  ]


def _with_arguments(call) -> object:
  with_text = isinstance(call, dict) and "arguments" in call
  return call | {"arguments": structure(call["arguments"])} if with_text else call


def _text(content, column: str) -> str:
  if isinstance(content, str):
    return content
  if not isinstance(content, list):
    raise RowError(f"`{column}` holds a message whose content is {type_of(content)} ({short(content)}), not text")
  texts = []
  for part in content:
    fields = part if isinstance(part, dict) else {"text": part}
    kind, text = fields.get("type"), fields.get("text")
    if kind not in (None, "text", "input_text", "output_text") or not isinstance(text, str):
      raise RowError(f"`{column}` holds content of type {kind or type_of(part)}: only text can be read")
    texts.append(text)
  return "".join(texts)


def spoken(role: str, text: str) -> Message:
  return {"role": role, "content": text}


def prompt_of(row: Row, column: str = "prompt") -> list[Message]:
  value = row[column]
  found = [spoken("user", value)] if isinstance(value, str) else messages_of(value, column)
  return with_system(found, row.get("system"))


def with_system(conversation: list[Message], system) -> list[Message]:
  if system is None or system == "":
    return conversation
  expect(system, str, "system", "text")
  if not conversation or conversation[0]["role"] != "system":
    return [spoken("system", system), *conversation]
  if conversation[0]["content"] != system:
    raise RowError("the `system` column differs from the system message that the conversation starts with")
  return conversation


_HELD = ("answer", "response", "completion", "output", "text", "content")


def held_answer(value) -> str | None:
  """The text in {"answer": "4", "llm_name": "m"}."""
  if not isinstance(value, dict) or not all(isinstance(item, str | None) for item in value.values()):
    return None
  held = [value[name] for name in _HELD if name in value]
  return held[0] if len(held) == 1 and value.keys().isdisjoint(("role", "from")) else None


def answer_of(value, column: str) -> list[Message]:
  held = held_answer(value)
  value = value if held is None else held
  if isinstance(value, str):
    return [spoken("assistant", value)]
  return messages_of(expect(value, (list, dict), column, "text or messages"), column)


def prompt_and_answers(row: Row, prompt: str, *names: str) -> tuple[list[Message], list[list[Message]]]:
  asked, answered = turns(row[prompt]), [turns(row[name], silent=True) for name in names]
  if asked is None or None in answered:
    return prompt_of(row, prompt), [answer_of(row[name], name) for name in names]
  for name, given in zip(names, answered, strict=True):
    if len(given) != len(asked):
      raise RowError(f"`{prompt}` has {len(asked)} turns and `{name}` {len(given)}")
  sides = [
    [turn for pair in zip(asked, given, strict=True) for turn in map(spoken, ("user", "assistant"), pair)]
    for given in answered
  ]
  shared, first, second = split_shared(sides[0], sides[-1])
  return with_system(shared, row.get("system")), [first, second][: len(names)]


def same(first: Message, second: Message) -> bool:
  alike = first["role"] == second["role"] and first["content"].strip() == second["content"].strip()
  return alike and (len(first) == len(second) == 2 or first == second)


def starts_with(conversation: list[Message], prefix: list[Message]) -> bool:
  return len(conversation) > len(prefix) and all(map(same, conversation, prefix))


def split_shared(first: list[Message], second: list[Message]) -> tuple[list[Message], list[Message], list[Message]]:
  """(the messages they share from the start, at least one that remains of each)."""
  if not first or not second:
    raise RowError("a conversation without messages")
  alike = takewhile(lambda pair: same(*pair), zip(first[:-1], second[:-1], strict=False))
  shared = sum(1 for _ in alike)
  return first[:shared], first[shared:], second[shared:]


def is_transcript(value) -> bool:
  """Of Human: and Assistant: turns (Anthropic HH, arXiv:2204.05862)."""
  return isinstance(value, str) and value.lstrip().startswith(("Human:", "System:")) and "\n\nAssistant:" in value


def transcript_of(text, column: str) -> list[Message]:
  if not is_transcript(text):
    raise wrong_type(column, text, "a transcript of `Human:` and `Assistant:` turns")
  pieces, roles = _TURN.split(text), {"Human": "user", "Assistant": "assistant", None: "system"}
  return [spoken(roles[who], turn.strip()) for who, turn in zip(pieces[1::3], pieces[3::3], strict=True)]


def split_text(chosen: str, rejected: str) -> tuple[str, str, str]:
  """Two texts -> their shared prefix (the prompt), to its last line break or else space, and the two endings."""
  shared = os.path.commonprefix([chosen, rejected])
  if len(shared) == min(len(chosen), len(rejected)):
    shared = shared.rstrip()[:-1]
  lines, spaces = shared.rfind("\n"), max(shared.rfind(" "), shared.rfind("\t"))
  cut = lines if shared[: max(lines, 0)].strip() else spaces
  if not shared[: max(cut, 0)].strip():
    raise RowError("`chosen` and `rejected` share no prefix, so no prompt can be told from the answers")
  return chosen[:cut].rstrip(), chosen[cut:].lstrip(), rejected[cut:].lstrip()
