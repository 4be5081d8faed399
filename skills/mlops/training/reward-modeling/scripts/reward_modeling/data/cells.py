"""The values of one row, made safe to use."""

import ast
import contextlib
import json
import re
import warnings
from collections import Counter
from decimal import Decimal
from typing import NamedTuple, TypeVar

from ..results import Row

MAX_DEPTH = 64
MAX_CELL = 4_000_000
"""Characters of a text that is parsed."""

LISTS = "answers summaries completions responses steps tools scores ranks rank correct labels step_labels ratings"
LISTS = frozenset(LISTS.split())
"""Columns of lists, also written as text."""
_T = TypeVar("_T")


class RowError(Exception):
  """Why one row cannot be read."""


_TYPES = {type(None): "null", bool: "true or false", str: "text", int: "a number", float: "a number"}
_TYPES |= {list: "a list", dict: "an object"}


def type_of(value) -> str:
  return _TYPES.get(type(value), type(value).__name__)


def short(value, width: int = 40) -> str:
  text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
  return text if len(text) <= width else text[: width - 3] + "..."


def wrong_type(column: str, value, wanted: str) -> RowError:
  shown = "" if value is None else f" ({short(value)})"
  return RowError(f"`{column}` is {type_of(value)}{shown}, not {wanted}")


def expect(value, kind: type[_T] | tuple[type, ...], column: str, wanted: str) -> _T:
  """The value. Raises RowError where it is of another type."""
  if not isinstance(value, kind):
    raise wrong_type(column, value, wanted)
  return value


class Refused(NamedTuple):
  """Stands for a value that no row may hold."""

  reason: str


def _object(pairs: list[tuple[str, object]]) -> Row | Refused:
  found = dict(pairs)
  if len(found) == len(pairs):
    return found
  name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
  return Refused(f"the key `{name}` occurs twice in one object")


def _whole_number(digits: str) -> int | Refused:
  try:
    return int(digits)
  except ValueError:  # Python converts no more than some thousand digits
    return Refused(f"a number of {len(digits)} digits")


loads = json.JSONDecoder(object_pairs_hook=_object, parse_int=_whole_number).decode
"""Raises json.JSONDecodeError, and RecursionError. `Refused` stands for objects that repeat a key and for huge numbers."""


def clean(value, depth: int = 0) -> object:
  """A copy with NaN as null. Raises RowError for what no file and no model can hold."""
  kind = type(value)
  if kind is str:
    if not value.isascii():
      _check_encoding(value)
    return value
  if kind is dict or kind is list or kind is tuple:
    if depth == MAX_DEPTH:
      raise RowError(f"the row nests lists and objects more than {MAX_DEPTH} deep")
    if kind is dict:
      return {clean(name, depth): clean(item, depth + 1) for name, item in value.items()}
    return [clean(item, depth + 1) for item in value]
  if kind is float:
    return value if value == value else None
  if kind is Decimal:
    return clean(int(value) if value.is_finite() and value == int(value) else float(value))
  if kind is Refused:
    raise RowError(value.reason)
  return value


def _check_encoding(text: str) -> None:
  try:
    text.encode("utf-8")
  except UnicodeEncodeError as error:
    code = ord(text[error.start])
    if 0xDC80 <= code <= 0xDCFF:  # how `surrogateescape` keeps a byte
      raise RowError(f"the byte 0x{code - 0xDC00:02x} is not UTF-8") from None
    raise RowError(f"the row holds one half of a surrogate pair (\\u{code:04x} without its partner)") from None


_OPENS = re.compile(r'\s*"?\s*(?:array\(\s*)?(\[\s*\{|[\[{])')
_FIRST_KEY = re.compile(r"""\s*"?\s*\{\s*\\?["'](?:role|content|from|value|messages|conversations)\\?["']\s*:""")
_PAIRS = (("role", "content"), ("from", "value"))
_KEYS = [[re.compile(rf"""["']{key}\\?["']\s*:""") for key in pair] for pair in _PAIRS]
_OTHER_NAMES = {
  "system": "developer",
  "user": "human prompter",
  "assistant": "gpt model bot chatgpt chatbot ai function_call tool_call",
  "tool": "function observation ipython tool_response",
}
ROLES = {name: role for role, others in _OTHER_NAMES.items() for name in (role, *others.split())}
_WHO = ("role", "from", "speaker", "author", "sender", "who", "type")
_SAID = ("content", "value", "text", "said", "utterance", "message", "body", "parts")
_TALKS = "prompt messages conversations conversation dialogue history context question"
_TALKS = LISTS.union(_TALKS.split())
_UNSURE = ("type", "author")
"""In text elsewhere, objects that have these are what an answer says."""
_EXCHANGES = (("human", "assistant"), ("user", "assistant"), ("input", "output"))

# Python as pandas and numpy print it: arrays without commas, array(...), dtype=..., nan. Strings are tokens of their own, so
# that nothing inside them is changed.
_TOKEN = re.compile(
  r"""(,\s*dtype=(?:\w+|'[^']*')|array(?=\()|'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*"|[\w.+-]+|[\]})])"""
  r"""(\s+(?=['"\w\[{+.-]))?""",
  re.DOTALL,
)
_WORDS = {"nan": "None", "NaN": "None", "null": "None", "true": "True", "false": "False", "array": ""}


def decoded(value, column: str) -> object:
  """A cell, or the messages or list written in it; answers in JSON stay text.

  Raises RowError for text that looks like messages and cannot be read: it is never an answer."""
  if isinstance(value, dict):
    return unnested(value)
  if isinstance(value, list):
    items = [decoded(item, "") if isinstance(item, str) else item for item in value]
    return (column not in LISTS and _exchanges(value)) or items
  opens = _OPENS.match(value) if isinstance(value, str) else None
  if not opens:
    return value
  objects_open = len(opens[1]) > 1
  likely = _FIRST_KEY.match(value) or (objects_open and any(all(k.search(value) for k in pair) for pair in _KEYS))
  if not (likely or objects_open or column in LISTS):
    return value
  found = clean(_parsed(value))
  if not likely and column not in _TALKS and are_messages(found) and any(speech(one)[0] in _UNSURE for one in found):
    return value
  if isinstance(found, list) and (are_messages(found) or (column in LISTS and not likely)):
    return decoded(found, column)
  if isinstance(found, dict) and (_is_message(found) or any(are_messages(item) for item in found.values())):
    return unnested(found)
  if likely and (found is None or (isinstance(found, list) and any(map(_is_message, found)))):
    what = f"`{column}` is text that looks like messages written as JSON or Python, and cannot be read as them"
    raise RowError(f"{what} ({value[:40].strip()}...)")
  return value


def unnested(value: Row) -> object:
  """The messages in {"messages": [...]}, {"role": [...], "content": [...]} or {"system": "...", "user": "..."}."""
  if value.keys() == {"system", "user"} and all(isinstance(text, str) for text in value.values()):
    return [{"role": role, "content": value[role]} for role in ("system", "user")]
  filled = [item for item in value.values() if item not in (None, [], {}, "")]
  if len(filled) == 1 and are_messages(filled[0]):
    return filled[0]
  found = objects(value) if any(value.keys() >= set(pair) for pair in _PAIRS) else None
  return found if are_messages(found) else value


def structure(value) -> object:
  """The object or list that is written in a text."""
  found = _parsed(value) if isinstance(value, str) and _OPENS.match(value) else value
  return clean(found) if isinstance(found, (dict, list)) else value


def objects(value) -> list[Row] | None:
  value = structure(value)
  if isinstance(value, dict) and value and all(isinstance(item, list) for item in value.values()):
    if len(set(map(len, value.values()))) > 1:
      return None
    value = [dict(zip(value, items, strict=True)) for items in zip(*value.values(), strict=True)]
  return value if isinstance(value, list) and value and all(isinstance(item, dict) for item in value) else None


def turns(value, *, silent: bool = False) -> list[str] | None:
  """silent: also where all are."""
  if isinstance(value, str) and re.match(r"\s*\[", value):
    value = _parsed(value)
  if not isinstance(value, list) or not value or not all(isinstance(turn, str | None) for turn in value):
    return None
  return None if set(value) == {None} and not silent else [clean(turn) or "" for turn in value]


def lists_in_cells(rows: list[Row]) -> list[str]:
  """Where every cell is a list: one alone could be an answer in JSON."""
  names = dict.fromkeys(name for row in rows for name in row)
  held = {name: [row[name] for row in rows if row.get(name)] for name in names}
  return [name for name, cells in held.items() if cells and all(map(_listed, cells))]


def _listed(cell) -> bool:
  try:
    return turns(cell) is not None
  except RowError:  # told of where its row is read
    return True


def _exchanges(value: list) -> list[Row] | None:
  """The messages of [{"human": "2+2?", "assistant": "4"}, ...]; the last answer may be missing."""
  first = value[0].keys() if value and isinstance(value[0], dict) else ()
  pair = next((pair for pair in _EXCHANGES if first == set(pair)), None)
  if not pair or not all(isinstance(item, dict) and item.keys() == first for item in value):
    return None
  texts = [item[name] for item in value for name in pair]
  texts = texts[:-1] if texts[-1] in (None, "") else texts
  if not all(isinstance(text, str) for text in texts):
    return None
  return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


def are_messages(value) -> bool:
  return isinstance(value, list) and bool(value) and all(map(_is_message, value))


def _is_message(item) -> bool:
  if not isinstance(item, dict):
    return False
  if "role" in item and not item.keys().isdisjoint(("content", "tool_calls", "function_call")):
    return True
  who, said = speech(item)
  return said in item and str(item.get(who)).lower() in ROLES


def speech(item: Row) -> tuple[str, str]:
  """The keys of who speaks and of what is said."""
  if "role" in item and "content" in item:
    return "role", "content"
  who, said = (next((name for name in names if name in item), names[0]) for names in (_WHO, _SAID))
  return who, said


def _parsed(text: str) -> object:
  if len(text) > MAX_CELL:
    return None
  with contextlib.suppress(ValueError, RecursionError):
    found = loads(text)
    return loads(found) if isinstance(found, str) else found
  fixed = _TOKEN.sub(_literal, text.strip())
  try:
    with warnings.catch_warnings(action="ignore"):  # of escapes that Python does not know
      return json.loads(json.dumps(ast.literal_eval(fixed)))
  except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
    return None


def _literal(match: re.Match[str]) -> str:
  token = "" if match[1].startswith(",") else _WORDS.get(match[1], match[1])
  return f"{token},{match[2]}" if match[2] else token
