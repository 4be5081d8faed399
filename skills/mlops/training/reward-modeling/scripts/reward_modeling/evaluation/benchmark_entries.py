"""What a benchmark is: its parts, how a row becomes an item, what an item counts, and how the counts add up."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..data.cells import RowError, decoded, expect
from ..data.entries import Row
from ..data.records import Message, Origin
from .intervals import Counts, Ratios

ItemRewards = Sequence[float | None]
Counted = dict[str, float | tuple[float, float]]
"""{ratio: numerator, or (numerator, denominator)} that one item adds."""
Figure = str | Iterable[str] | Mapping[str, float] | Callable[[Ratios], float]
"""A ratio, the mean of ratios or numbers, also under weights, or a function of the ratios."""


@dataclass(frozen=True)
class Item:
  """A prompt with answers or steps. label: what the rule needs beside rewards. group: of dependent items (their prompt)."""

  prompt: list[Message]
  answers: list[str]
  section: str
  label: Any = None
  id: str | int | None = None
  group: str | None = None
  origin: Origin | None = None


class Part(NamedTuple):
  """One table. rows: published. files: patterns of a path in lower case without - and _: the first that fits any is used.
  optional: not in the official number, read from files only."""

  hub: str | None
  split: str
  rows: int
  files: tuple[str, ...]
  name: str = ""
  optional: bool = False


@dataclass(frozen=True)
class Benchmark:
  """item: of a row and the name of its part or file; SetAsideError for a row that the authors leave out. rule: what an item
  counts by its rewards and, of steps, the threshold; together: by other items too. table: the official number first.
  repeats: rows of one id count once. threshold_from: the section it is chosen on. signed: from -1 to 1. published: percent.
  """

  title: str
  parts: tuple[Part, ...]
  item: Callable[[Row, str], Item]
  rule: Callable[..., Counted]
  table: Mapping[str, Figure]
  published: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
  published_in: str = ""
  of_steps: bool = False
  threshold_from: str | None = None
  repeats: bool = False
  signed: tuple[str, ...] = ()
  together: Callable[[Sequence[Item], Sequence[ItemRewards], list[Counted]], None] | None = None

  def count(self, items: Sequence[Item], rewards: Sequence[ItemRewards], threshold: float) -> list[Counts]:
    at = (threshold,) if self.of_steps else ()
    found = [self.rule(item, row, *at) for item, row in zip(items, rewards, strict=True)]
    if self.together:
      self.together(items, rewards, found)
    return [{key: one if isinstance(one, tuple) else (float(one), 1.0) for key, one in of.items()} for of in found]

  def numbers(self, ratios: Ratios) -> dict[str, float]:
    """NaN where items lack."""
    known = defaultdict(lambda: math.nan, ratios)

    def value(name: str) -> float:
      of = self.table.get(name, name)
      if callable(of):
        return of(known)
      if isinstance(of, str):
        return known[of]
      weights = of if isinstance(of, Mapping) else dict.fromkeys(of, 1)
      return sum(weight * value(one) for one, weight in weights.items()) / sum(weights.values())

    return {name: value(name) for name in self.table}


def one_of(names: Iterable[str], text, column: str) -> str:
  """The last of the names that the text, as a path, holds; of those that end there the longest."""
  said = str(text).lower()
  found = [name for name in names if name in said]
  if not found:
    raise RowError(f"`{column}` says {str(text)!r}: expected one of {', '.join(names)}")
  return max(found, key=lambda name: (said.rfind(name) + len(name), len(name)))


def texts(row: Row, *columns: str) -> list[str]:
  for column in columns:
    expect(row[column], str, column, "text")
  return [row[column] for column in columns]


def lists(row: Row, *columns: str, of: type = str) -> list:
  """One after the other; each may be written as JSON."""
  found = []
  for column in columns:
    value = decoded(row[column], "steps") if isinstance(row[column], str) else row[column]
    expect(value, list, column, "a list")
    if not all(type(one) is of for one in value) or (of is str and not value):
      raise RowError(f"`{column}` is not a list of {'texts' if of is str else 'whole numbers'}")
    found += value
  return found


def itself(*names: str) -> dict[str, str]:
  return {name: name for name in names}
