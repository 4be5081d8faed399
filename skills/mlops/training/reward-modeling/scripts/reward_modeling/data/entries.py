"""What a format is. Its tables are formats_*.py."""

import contextlib
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..errors import DataError
from ..results import Row
from .cells import RowError, expect, short, wrong_type
from .records import Message, Record

Numbered = list[tuple[int, Row]]
Problems = list[tuple[int, str]]


_NOUNS = ("model", "response", "conversation", "answer", "assistant", "option", "completion")


def _called(letter: str, digit: str, ordinal: str, hand: str) -> list[str]:
  forms = (f"{{}} {letter}", f"{{}} {digit}", f"{ordinal} {{}}")
  return [letter, ordinal, hand, *(form.format(noun) for noun in _NOUNS for form in forms)]


_TIES = "tie|tie inconsistent|tie bothbad|tie both bad|bothbad|a=b|b=a|both|both bad|both good|draw|equal|neither"
_SIDES = {
  "a": [*_called("a", "1", "first", "left"), "a>b", "a>>b", "b<a"],
  "b": [*_called("b", "2", "second", "right"), "b>a", "b>>a", "a<b"],
  "tie": [*_TIES.split("|"), "no preference", "same"],
}
WINNER_WORDS = {name.replace(" ", gap): side for side, names in _SIDES.items() for name in names for gap in " _"}
_AROUND = re.compile(
  r"\b(is|are|was|wins|won|better|preferred|much|far|a lot|a (little )?bit|slightly|somewhat|moderately|significantly|"
  r"considerably|clearly|strongly|marginally|about|the|answers|responses)\b|(?!^[-+!~])[^\w<>=]+"
)
"""In "response 2 is slightly better", "significantly better: a", "tie (bothbad)"."""


_PKU_SAFERLHF = {"0": "response_0", "1": "response_1"}
KNOWN = {
  "labels": {"1": "human_ref_A", "0": "human_ref_B"},  # SHP
  "better_response_id": _PKU_SAFERLHF,
  "safer_response_id": _PKU_SAFERLHF,
}
"""Public data sets."""


def key(value) -> str:
  """As in --winner_values: "1" for 1.0, "true" for True."""
  text = str(value).strip(" \n[]").lower()
  with contextlib.suppress(ValueError):
    number = float(text)
    if abs(number) < 1e6 and number == int(number):
      return f"{number:g}"
  return text


_WORDS = (
  "true 1 yes good positive desirable chosen correct right + up thumbs_up 👍",
  "false 0 -1 no bad negative undesirable rejected incorrect wrong - down thumbs_down 👎",
)
DESIRABLE = {word: 1.0 - place for place, words in enumerate(_WORDS) for word in words.split()}

VAGUE = ("yes", "no", "positive", "negative")
"""Of what nobody knows: is it good, or is it toxic?"""


def desirable(value, unclear: Sequence[str] = ()) -> float | None:
  """1 or 0 of a word as thumbs up, but for those that are unclear here."""
  word = key(value).replace(" ", "_")
  return None if word in unclear else DESIRABLE.get(word)


@dataclass(frozen=True)
class Winner:
  columns: tuple[str, ...] = ("winner",)
  means: dict[str, str] | None = None
  """{value: "a", "b" or "tie"} of a known data set. None: words say it themselves, numbers are asked about."""
  read: Callable[..., object] = lambda value: value

  def value(self, row: Row) -> object:
    values = [row.get(column) for column in self.columns]
    if all(value in (None, "") for value in values):
      return None
    try:
      return self.read(*values)
    except RowError:  # it has no meaning, which stops the run
      return ", ".join(map(short, values))


def _number_of(value: str) -> float | None:
  """Of a number, whose meaning is never guessed: 1 is the first answer in SHP, the second in PKU-SafeRLHF."""
  with contextlib.suppress(ValueError):
    return float({"true": 1, "false": 0}.get(value, value))
  return None


def meaning(
  winners: Sequence[tuple[int, object]],
  chosen: "Format",
  given: dict[str, str] | None,
  columns: dict[str, str],
  where: str,
) -> dict[str, str]:
  """{value: "a", "b" or "tie"} of (row number, value) pairs. Raises DataError for values without a meaning."""
  counts, known = Counter(key(value) for _, value in winners), chosen.winner.means or {}
  for value in counts:
    told, stated = (given or {}).get(value), known.get(value)
    if told and stated and told != stated:
      raise DataError(
        f"--winner_values says {value}={told}, but in `{chosen.name}` {value} means {stated}",
        where=where,
        hint="read this file without --winner_values, or, if it is another data set, name its columns with --columns",
      )
  plain = {value: " ".join(_AROUND.sub(" ", value).split()) for value in counts}
  words = {value: WINNER_WORDS[name] for value, name in plain.items() if name in WINNER_WORDS}
  means = (known or words) | (given or {})
  if given is None and not known:
    means |= _of_columns(columns)
  closed = given is not None or known
  unsaid = [value for value in counts if value not in means and (closed or _number_of(value) is not None)]
  if unsaid:
    where = f"{where}:{next(number for number, value in winners if key(value) in unsaid)}"
    raise _unsaid(counts, unsaid[0], chosen, given, where)
  return means


def _of_columns(columns: dict[str, str]) -> dict[str, str]:
  """A winner may name the column of the better answer."""
  sides = {columns.get("response_a"): "a", columns.get("response_b"): "b"}
  values = KNOWN.get(columns.get("winner", ""), {})
  known = {value: sides[column] for value, column in values.items()} if set(values.values()) == sides.keys() else {}
  return known | {key(c.replace("_", gap)): side for c, side in sides.items() if c for gap in "_ "}


def _meanings(means: dict[str, str], equals: str) -> str:
  return ", ".join(f"{value}{equals}{side}" for value, side in means.items())


def _unsaid(counts: Counter[str], unsaid: str, chosen: "Format", given: dict[str, str] | None, where: str) -> DataError:
  seen = ", ".join(f"{value[:40]} ({count} rows)" for value, count in counts.most_common(8))
  if known := chosen.winner.means:
    what = f"the preference is {unsaid[:40]} ({counts[unsaid]} rows), which has no meaning in `{chosen.name}`: "
    what += _meanings(known, " = ")
    hint = "say what the values mean, as in --winner_values 1=a,2=b, or remove these rows"
  elif given is not None:
    said = _meanings(given, "=")
    what = f"`winner` is {unsaid[:40]}, which --winner_values {said} does not say; the values are {seen}"
    hint = f"add it, as in --winner_values {said.replace(', ', ',')},{unsaid}=tie, or remove these rows"
  else:
    numbers = {value: number for value in counts if (number := _number_of(value)) is not None}
    ordered = sorted(numbers, key=numbers.get, reverse=True)
    middle = (numbers[ordered[0]] + numbers[ordered[-1]]) / 2
    sides = ["tie" if numbers[one] == middle and ordered[1:] else "ab"[numbers[one] < middle] for one in ordered]
    swapped = [{"a": "b", "b": "a"}.get(side, side) for side in sides]
    one, other = (",".join(map("=".join, zip(ordered, names, strict=True))) for names in (sides, swapped))
    what = f"`winner` holds numbers, which do not say which answer is better: {seen}"
    hint = f"say what they mean: --winner_values {one}, or {other}"
    if len(ordered) > 12:
      hint = "these are too many to name: write the winner into a column, or answers into `completions` and `scores`"
    hint += "; to score without labels, --columns winner="
  return DataError(what, where=where, hint=hint)


def said(counts: dict[str, int]) -> str:
  most = Counter(counts).most_common(12)
  shown = [f"{' -> '.join(pair.rsplit('=', 1))} ({count} rows)" for pair, count in most]
  return "winner: " + ", ".join([*shown, *[f"{len(counts) - len(most)} more"] * (len(counts) > len(most))])


PAIR = ("chosen", "rejected")
MARGINS = "margin weight score_chosen|chosen_score score_rejected|rejected_score"
COMMON = ("id", "tools")
LARGEST = (2 - 2**-23) * 2.0**127
"""In fp32."""

# For the example rows.
USER: list[Message] = [{"role": "user", "content": "2+2?"}]
GOOD, BAD = [{"role": "assistant", "content": "4"}], [{"role": "assistant", "content": "5"}]


class SetAsideError(Exception):
  """Why a readable row is left out."""


def always(row: Row) -> bool:
  return True


def never(row: Row) -> bool:
  """Of formats that --format must name."""
  return False


@dataclass(frozen=True)
class Format:
  """In `needs` and `optional`, `a|b` stands for either name."""

  name: str
  description: str
  needs: tuple[str, ...]
  optional: tuple[str, ...]
  example: Row
  matches: Callable[[Row], bool]
  """Of rows with the same columns, under the format's names, without nulls."""
  convert: Callable[[Row], Record | list[Record]]
  """Raises RowError and SetAsideError."""
  winner: Winner | None = None
  """The converter finds a, b or tie in `winner`."""
  beside: Callable[[Row], bool] = always
  """By columns that it does not read."""
  expand: Callable[[Numbered, Problems], Numbered] | None = None
  ask: Callable[[list[Row]], str | None] = lambda rows: None
  """What the numbers of these rows leave open, unless --format names the format."""
  whole: Callable[[list[Row]], bool] | None = None
  """Whether these first rows, which must all match, are of this format: it could fit one row by chance."""
  one_piece: bool = False
  """Rows belong to others anywhere in the file."""

  @cached_property
  def columns(self) -> list[list[str]]:
    """The names of each, the format's own first."""
    return [names.split("|") for names in self.needs + self.optional + COMMON]

  def pick(self, row: Row) -> tuple[Row, dict[str, str]]:
    """The non-null columns under the format's names, and {name: column of the row}."""
    used = {}
    for names in self.columns:
      present = [name for name in names if name in row]
      if present:
        used[names[0]] = next((name for name in present if row[name] is not None), present[0])
    return {name: row[column] for name, column in used.items() if row[column] is not None}, used

  def records(self, picked: Row) -> list[Record]:
    found = self.convert(picked)
    return found if isinstance(found, list) else [found]


def are_lists(*names: str) -> Callable[[Row], bool]:
  return lambda row: all(isinstance(row.get(name, []), list) for name in names)


def are_texts(*names: str) -> Callable[[Row], bool]:
  return lambda row: all(isinstance(row[name], str) for name in names)


def entry(
  table: dict[str, Format],
  description: str,
  needs: str,
  example: Row,
  matches: Callable[[Row], bool] = always,
  optional: str = "system",
  **more,
) -> Callable[[Callable[[Row], Record]], Callable[[Row], Record]]:
  """needs, optional: names of columns, with spaces between."""

  def add(convert: Callable[[Row], Record]) -> Callable[[Row], Record]:
    name = convert.__name__
    names = tuple(needs.split()), tuple(optional.split())
    table[name] = Format(name, description, *names, example, matches, convert, **more)
    return convert

  return add


def number(value, column: str) -> float | None:
  """A finite fp32 number, also written as text; null and "" are None."""
  if value in (None, ""):
    return None
  try:
    found = float(value) if isinstance(value, (int, float, str)) else math.nan
  except (ValueError, OverflowError):
    found = math.inf if isinstance(value, int) else math.nan
  if abs(found) > LARGEST:
    raise RowError(f"`{column}` is {short(value)}: larger than a number can be in fp32")
  if math.isnan(found):
    raise wrong_type(column, value, "a number")
  return found


def one_each(value, column: str, wanted: str, count: int, of: str) -> list:
  if len(expect(value, list, column, wanted)) != count:
    raise RowError(f"`{column}` has {len(value)} entries for {count} {of}")
  return value


def margin_and_weight(row: Row) -> tuple[float | None, float]:
  margin = number(row.get("margin"), "margin")
  if margin is None:
    scores = [number(row.get(name), name) for name in ("score_chosen", "score_rejected")]
    margin = number(scores[0] - scores[1], "score_chosen - score_rejected") if None not in scores else None
  weight = number(row.get("weight"), "weight")
  if weight is not None and weight <= 0:
    raise RowError(f"`weight` is {weight:g}: a pair counts with a weight above 0")
  return margin, 1.0 if weight is None else weight
