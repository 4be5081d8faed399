"""Data of any kind and size, audited slice by slice: each row by the checks of what it is, and what is left of it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from ...results import Row
from .. import records as data
from ..records import (
  Comparison,
  Ranking,
  Rated,
  Record,
  Records,
  Solution,
  comparisons_of,
  is_rated,
  ordered_pairs,
  ratings_of,
)
from . import TABLES, Audit, about_attributes, note_ratings
from .findings import Check, Finding, Material, Test, digest

Pair = tuple[int, int]
"""Places of the better and the worse completion."""


class Dropped(NamedTuple):
  rows: dict[int, Record]
  """What is left, by place."""
  by_check: Counter[str]
  """Rows that are gone, under the finding that took each first."""
  completions: Counter[str]
  """Those that are gone from rankings that stay."""


def drop_rows(rows: Mapping[int, Record], findings: Iterable[Finding]) -> Dropped:
  """A ranking loses the completions that have the flaw (of a pair that has it together one); others go as a whole."""
  audited = [(number, *one) for number, row in rows.items() for one in _audited(row)]
  gone: dict[int, str] = {}
  cut: dict[int, dict[int, str]] = defaultdict(dict)
  for finding in findings:
    found: dict[int, list[tuple[Comparison, Pair]]] = defaultdict(list)
    for index in finding.indices:
      number, record, pair = audited[index]
      found[number].append((record, pair))
    for number, pairs in found.items():
      if number in gone:
        continue
      if pairs[0][1] is None:
        gone[number] = finding.check
        continue
      new = _completions(rows[number], pairs, finding.of_answer, set(cut[number]))
      cut[number] |= dict.fromkeys(new, finding.check)
      if not ordered_pairs(_without(rows[number], cut[number])):
        gone[number] = finding.check
  kept = {number: _without(row, cut.get(number)) for number, row in rows.items() if number not in gone}
  completions = Counter(check for number, lost in cut.items() if number not in gone for check in lost.values())
  return Dropped(kept, Counter(gone.values()), completions)


def _completions(
  ranking: Ranking, found: list[tuple[Comparison, Pair]], flawed: Test | None, lost: set[int]
) -> set[int]:
  if flawed:
    sides = [(record, zip(pair, (record.chosen, record.rejected), strict=True)) for record, pair in found]
    return {place for record, two in sides for place, answer in two if flawed(record, answer)} - lost
  texts = [digest(completion, {}) for completion in ranking.completions]
  pairs = [pair for _, pair in found if lost.isdisjoint(pair)]
  chosen: set[int] = set()
  while pairs:
    degree = Counter(place for pair in pairs for place in pair)
    worst = max(degree, key=lambda place: (texts.index(texts[place]) < place, degree[place], place))
    chosen.add(worst)
    pairs = [pair for pair in pairs if worst not in pair]
  return chosen


def _without(row: Record, lost: dict[int, str] | None) -> Record:
  if not lost:
    return row
  count = len(row.completions)

  def left(values) -> object:
    if not isinstance(values, list) or len(values) != count:
      return values
    return [value for place, value in enumerate(values) if place not in lost]

  metadata = {name: left(value) for name, value in row.metadata.items()}
  names = ("completions", "scores", "ratings")
  return replace(row, metadata=metadata, **{name: left(getattr(row, name)) for name in names})


def kind_of_row(row: Record) -> str:
  if isinstance(row, Comparison):
    return "pairs"
  if isinstance(row, Solution):
    return "steps" if row.labels is not None else "unlabeled_steps"
  if row.is_labeled_answer:
    return "labeled_completions"
  if row.scores is not None:
    return "rankings"
  if row.ratings is not None:
    return "rated_completions"
  return "completions" if row.completions else "prompts"


AUDITED_AS = {"rankings": Comparison, "labeled_completions": Rated, "rated_completions": Rated}


def _audited(row: Record) -> list[tuple[Record, Pair | None]]:
  """The pairs of a ranking, each with its places in it; the answers that are rated by themselves; else the row."""
  if kind_of_row(row) == "rankings":
    return list(zip(comparisons_of(row), ordered_pairs(row), strict=True))
  return [(one, None) for one in (ratings_of(row) if kind_of_row(row) in AUDITED_AS else [row])]


def _by_type(rows: list[Record]) -> dict[type, dict[int, Record]]:
  """{what they are audited as: {place: row}}."""
  parts: defaultdict[type, dict[int, Record]] = defaultdict(dict)
  for place, row in enumerate(rows):
    parts[AUDITED_AS.get(kind_of_row(row), type(row))][place] = row
  return parts


def _counts(kind: type, rows: Collection[Record], audited: list[Record]) -> dict[str, int]:
  if kind is Comparison:
    return {"comparisons": len(audited)}
  if kind in (Ranking, Rated):
    return {"completions": sum(len(row.completions) for row in rows)}
  labels = [label for one in rows for label in one.labels or () if label is not None]
  steps = {"solutions": len(rows), "steps": sum(len(one.steps) for one in rows)}
  return steps | {"labeled_steps": len(labels), "incorrect_steps": sum(label < 0.5 for label in labels)}


class Survey:
  """What slices of records hold and what is wrong with them; in a second pass, with `left`, what remains without it."""

  def __init__(self, eval_prompts: frozenset[bytes], *, rendered: bool, more: Callable[[type], list[Check]]):
    self.eval_prompts, self.rendered, self.more = eval_prompts, rendered, more
    self.audits: dict[type, Audit] = {}
    self.findings: dict[type, list[Finding]] = {}
    self.summary = Records([])
    self.kinds: Counter[str] = Counter()
    self.counts: Counter[str] = Counter()
    self.equal_scores = 0
    self.prompts: set[bytes] = set()
    self.ratings: dict[str, list[float]] = {}
    self.passed: Counter[type] = Counter()
    self.rows_dropped: Counter[str] = Counter()
    self.completions_dropped: Counter[str] = Counter()

  def add(self, records: Records) -> None:
    for kind, rows in _by_type(records.rows).items():
      if kind not in self.audits:
        called, checks = TABLES[kind]
        self.audits[kind] = Audit(called, [*self.more(kind), *checks.values()], rendered=self.rendered)
      audited = [one for row in rows.values() for one, _ in _audited(row)]
      material = Material(audited, self.eval_prompts)
      self.audits[kind].add(material)
      self.prompts.update(key[0] for key in material.keys)
      self.counts.update(_counts(kind, rows.values(), audited))
    self.kinds.update(map(kind_of_row, records.rows))
    self.equal_scores += data.equal_scores(records)
    note_ratings(self.ratings, (one for row in records.rows if is_rated(row) for one in ratings_of(row)))
    self.summary = data.joined([self.summary, records], rows=False)

  def close(self) -> list[Finding]:
    self.findings = {kind: self.audits[kind].findings() for kind in TABLES if kind in self.audits}
    return [*about_attributes(self.ratings), *(one for found in self.findings.values() for one in found)]

  def places(self) -> Iterator[Row]:
    for kind, found in self.findings.items():
      for one in found:
        for row in self.audits[kind].places(one.indices) if one.indices else [None]:
          yield {"check": one.check, "severity": one.severity, "row": row, "message": one.message}

  def left(self, records: Records, checks: Iterable[str]) -> dict[int, Record]:
    """What these checks leave of the next slice, by its place; counts the rest."""
    kept: dict[int, Record] = {}
    for kind, rows in _by_type(records.rows).items():
      here, count = self.passed[kind], sum(len(_audited(row)) for row in rows.values())
      done = drop_rows(rows, [one.within(here, count) for one in self.findings[kind] if one.check in checks])
      self.passed[kind] += count
      kept |= done.rows
      self.rows_dropped += done.by_check
      self.completions_dropped += done.completions
    return dict(sorted(kept.items()))
