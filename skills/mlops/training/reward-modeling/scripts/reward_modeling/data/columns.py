"""--columns, as in {"prompt": "question.text", "ranks": "answers[].rank", "chosen": "answers[0]"}. Objects may be text."""

import re
from collections.abc import Iterable

from ..errors import DataError, did_you_mean
from .cells import RowError, structure, type_of
from .entries import COMMON, Row, number
from .files import Table
from .formats import COLUMN_NAMES
from .writing import METADATA, is_read

_STEP = re.compile(r"(?:\A|\.)([^.\[\]]+)|\[(-?\d*)\]")


_BETTER = "chosen/rejected chosen/reject accepted/rejected preferred/dispreferred preferred/rejected better/worse"
SAME = {
  ("chosen", "rejected"): f"{_BETTER} best/worst winning/losing positive/negative good/bad",
  ("response_a", "response_b"): "a/b",
  ("conversation_a", "conversation_b"): "messages_a/messages_b conv_a/conv_b",
}
"""Alone or as in preferred_response, answer_a."""
_HOLDS = "responses?|answers?|completions?|outputs?|texts?"
_AFFIX = re.compile(rf"\A(?:(?:{_HOLDS})_(?P<last>\w+)|(?P<first>\w+?)_?(?:{_HOLDS}))\Z")


def same_columns(rows: list[Row]) -> dict[str, str]:
  """As in {"prompt": "Prompt", "chosen": "preferred_response", ...}; not where a format reads them by their own names."""
  first = {name: value for row in reversed(rows) for name, value in row.items() if value is not None}
  found = {}
  if COLUMN_NAMES.difference(COMMON).isdisjoint(first):  # a file in capitals; one such name is a column of its own
    found = {name.strip().lower(): name for name in first if name.strip().lower() in COLUMN_NAMES}
    first = {name: first[column] for name, column in found.items()} | first
  words: dict[str, str] = {}
  for name, value in first.items():
    if isinstance(value, (str, list, dict)):
      words.setdefault(_AFFIX.sub(r"\g<last>\g<first>", name.lower()), name)
  for wanted, pairs in SAME.items():
    for pair in (one.split("/") for one in pairs.split() if not first.keys() >= set(wanted)):
      columns = {name: words.get(word, "") for name, word in zip(wanted, pair, strict=True)}
      free = first.keys().isdisjoint({"completions", "chosen", *wanted} - {*pair})
      if free and all(len(column) > 1 for column in columns.values()) and not COLUMN_NAMES.issuperset(columns.values()):
        return found | columns
  return found


WINNER = "winner preference preferred choice better label chosen pick picked vote verdict"
"""Words in the names of columns, the likeliest first."""
_NUMBERED = re.compile(
  r"(answer|candidate|completion|draft|generation|output|response|score|rating|reward|rank)s?[_ ]?(\d+|[ab])",
  re.IGNORECASE,
)


def answers_in_columns(head: list[Row], told: bool = False) -> tuple[dict[str, str], str]:
  """({answer_1: score_1 or "", ...}, scores or ranks), as spreadsheets have them; two answers must have scores and no winner, nor be told of."""
  names = dict.fromkeys(name for row in head for name in row)
  found: dict[str, dict[str, str]] = {}
  for match in filter(None, map(_NUMBERED.fullmatch, names)):
    found.setdefault(match[1].lower(), {})[match[2].lower()] = match[0]
  kinds = {kind: found.pop(kind, {}) for kind in ("score", "rating", "reward", "rank")}
  kind = max(kinds, key=lambda kind: len(kinds[kind]))
  most = max(found.values(), key=len, default={})
  words = re.findall(r"[a-z]+", " ".join(names).lower())
  two = not told and len(most) == len(kinds[kind]) == 2 and "0" not in most and set(words).isdisjoint(WINNER.split())
  if (len(most) < 3 and not two) or not names.keys().isdisjoint(("completions", "chosen")):
    return {}, ""
  return {name: kinds[kind].get(place, "") for place, name in most.items()}, "ranks" if kind == "rank" else "scores"


def in_one_list(row: Row, columns: dict[str, str], labels: str) -> Row:
  """Scores of some of the answers only stay columns of their own."""
  there = {name: score for name, score in columns.items() if row.get(name) not in (None, "")}
  scored = all(there.values())
  gone = {*columns, *(columns.values() if scored else ())}
  new = {name: value for name, value in row.items() if name not in gone}
  new["completions"] = [row[name] for name in there]
  return new | ({labels: [number(row.get(score), score) for score in there.values()]} if scored else {})


def root_of(column: str, present: Iterable[str]) -> str:
  return column if column in present else re.split(r"[.\[]", column, maxsplit=1)[0]


def check_columns(table: Table, columns: dict[str, str]) -> dict[str, str]:
  """{column or path: its root}."""
  present = dict.fromkeys(name for row in table.rows for name in row)
  roots = {}
  for name, column in columns.items():
    wanted = column or name
    root = root_of(wanted, present)
    if root not in present:
      hint = did_you_mean(root, present, f"the columns are {', '.join(present)}")
      raise DataError(f"there is no column `{root}`", where=table.name, hint=hint)
    if root != wanted and "".join(match[0] for match in _STEP.finditer(wanted)) != wanted:
      hint = "write a.b, a[].b or a[0].b in --columns"
      raise DataError(f"`{wanted}` is not a valid path", where=table.name, hint=hint)
    if column:
      roots[column] = root
  return roots


def renamed(row: Row, columns: dict[str, str], roots: dict[str, str]) -> Row:
  """A column read in parts stays as metadata."""
  gone = {column or name for name, column in columns.items()} | columns.keys()
  new = {name: value for name, value in row.items() if name not in gone}
  nested = dict.fromkeys(root for column, root in roots.items() if root != column and root in row)
  for name in filter(is_read, nested):
    new.pop(name, None)
    if METADATA not in row and name not in gone:
      new[METADATA] = new.get(METADATA, {}) | {name: row[name]}
  for name, column in columns.items():
    if column and roots[column] in row:
      new[name] = row[column] if roots[column] == column else part_of(row, column)
  return new


def part_of(row: Row, path: str) -> object:
  root, *steps = (match[1] or f"[{match[2]}]" for match in _STEP.finditer(path))
  return _follow(row[root], steps, path, root)


def _follow(value, steps: list[str], path: str, at: str) -> object:
  if not steps or value is None:
    return value
  step, *rest = steps
  value = structure(value)
  wanted, kind = (list, "a list") if step.startswith("[") else (dict, "an object")
  if not isinstance(value, wanted):
    raise RowError(f"`{path}`: `{at}` is {type_of(value)}, not {kind}")
  if step == "[]":
    return [_follow(item, rest, path, f"{at}[{place}]") for place, item in enumerate(value)]
  if wanted is list:
    key, there, what, has = int(step[1:-1]), range(-len(value), len(value)), "entry", f"it has {len(value)}"
  else:
    key, there, what, has = step, value, "key", f"it has {', '.join(map(str, value)) or 'nothing'}"
  if key not in there:
    raise RowError(f"`{path}`: `{at}` has no {what} `{key}` ({has[:80]})")
  return _follow(value[key], rest, path, f"{at}{step}" if wanted is list else f"{at}.{step}")
