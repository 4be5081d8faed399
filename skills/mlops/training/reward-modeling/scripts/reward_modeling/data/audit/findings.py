"""What a check is and what it finds: an `Audit` looks at records slice by slice, and keeps hashes, not texts."""

from array import array
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from typing import Literal

from ...results import Number, Row, sorted_json
from ..records import Comparison, Message, Origin, Record, Solution, answers_of

SHOWN_ROWS = 5
Link = tuple[int, int]
"""The hash of what records may share, and the side of it on which this one stands, a power of 2."""
Test = Callable[[Record, list[Message]], bool]


@dataclass(frozen=True)
class AuditFinding:
  check: str
  severity: Literal["error", "warning", "info"]
  count: int
  share: float
  """Of what was looked at."""
  rows: tuple[str, ...]
  """The first five."""
  message: str
  advice: str
  agreement: Number = None
  """The majorities' share of the labels of what is labeled several times: no model agrees with more."""


@dataclass(frozen=True)
class Finding(AuditFinding):
  """indices: all places in the audited list."""

  indices: tuple[int, ...] = field(default=(), repr=False)
  of_answer: Test | None = field(default=None, repr=False, compare=False)

  def within(self, start: int, count: int) -> "Finding":
    first, end = (bisect_left(self.indices, index) for index in (start, start + count))
    return replace(self, indices=tuple(index - start for index in self.indices[first:end]))


@dataclass(frozen=True)
class Material:
  """A slice of the audited records, and what is computed from them once."""

  records: Sequence[Record]
  eval_prompts: frozenset[bytes] = frozenset()
  separator: str | None = None
  notes: Row = field(default_factory=dict)
  """What checks fill into their messages."""

  @cached_property
  def keys(self) -> list[tuple]:
    """Digests of prompt and answers, or of a solution's prompt, and its steps."""
    memo: dict[int, bytes] = {}
    return [
      (digest(record.prompt, memo), *record.steps)
      if isinstance(record, Solution)
      else tuple(digest(messages, memo) for messages in (record.prompt, *answers_of(record)))
      for record in self.records
    ]

  @property
  def seen(self) -> list[int]:
    """Places of the records whose prompts are in `eval_prompts`."""
    memo: dict[int, bytes] = {}
    own = enumerate(self.records if self.eval_prompts else ())
    return [place for place, record in own if digest(record.prompt, memo, as_asked) in self.eval_prompts]

  @cached_property
  def links(self) -> list[list[Link]]:
    """To equal records; comparisons with opposite labels stand on two sides."""
    return [
      [(hashed((key[0], key[2], key[1])), 2)]
      if isinstance(record, Comparison) and key[1] > key[2]
      else [(hashed(key), 1)]
      for record, key in zip(self.records, self.keys, strict=True)
    ]


@dataclass(frozen=True)
class Check:
  name: str
  severity: str
  what: str
  """What {count} of {total} {called} do or have."""
  why: str
  advice: str
  find: Callable[[Material], list[int]] | None = None
  """Positions of the records that have it."""
  of_answer: Test | None = None
  """Whether an answer has the flaw; None: two have it together."""
  of: Callable[[Material], int] | None = None
  """How many are looked at, when not all."""
  grade: Callable[[float], str] | None = None
  """The severity by share: such a check always reports, and is about the data, not its rows."""
  of_chat: bool = False
  """About turns and templates, which rendered text must have."""
  links: Callable[[Material], list[list[Link]]] | None = None
  """In place of `find`: found are records whose links an earlier one has on the same sides."""
  opposes: bool = False
  """Found are records that share a link with one on its other side."""

  @property
  def about_rows(self) -> bool:
    return self.grade is None


class Audit:
  """Checks of records of one type, slice after slice. rendered: without those of chats."""

  def __init__(self, called: str, checks: Iterable[Check], *, rendered: bool = False):
    self.called = called
    self.checks = [check for check in checks if not (rendered and check.of_chat)]
    self.count = 0
    self._files: list[str | None] = []
    self._places = array("Q")
    self._totals: Counter[str] = Counter()
    self._found: dict[str, array] = {check.name: array("Q") for check in self.checks}
    self._sides: dict[str, dict[int, int]] = defaultdict(dict)
    self._linked: dict[str, tuple[array, array, array]] = defaultdict(lambda: (array("Q"), array("Q"), array("Q")))
    self._notes: Row = {}

  def add(self, material: Material) -> None:
    for check in self.checks:
      looked_at = check.of(material) if check.of else len(material.records)
      self._totals[check.name] += looked_at
      if check.links:
        found = self._link(check, material)
      else:
        found = check.find(material) if looked_at else []
      self._found[check.name].extend(self.count + index for index in found)
    self._notes = material.notes | self._notes
    for record in material.records:
      file, row = (record.origin.file, record.origin.row + 1) if record.origin else (None, 0)
      if file not in self._files[-1:]:
        self._files.append(file)
      self._places.append((len(self._files) - 1 << 40) + row)
    self.count += len(material.records)

  def _link(self, check: Check, material: Material) -> list[int]:
    sides, found = self._sides[check.name], []
    for index, links in enumerate(check.links(material)):
      if check.opposes:
        keys, labels, owners = self._linked[check.name]
        keys.extend(key for key, _ in links)
        labels.extend(side for _, side in links)
        owners.extend([self.count + index] * len(links))
      elif all(sides.get(key, 0) & side for key, side in links):
        found.append(index)
      for key, side in links:
        sides[key] = sides.get(key, 0) | side
    return found

  def findings(self) -> list[Finding]:
    for name, (keys, _, owners) in self._linked.items():
      opposed = {owner for key, owner in zip(keys, owners, strict=True) if self._sides[name][key].bit_count() > 1}
      self._found[name] = array("Q", sorted(opposed))
    findings = [finding for check in self.checks if (finding := self._finding(check))]
    return sorted(findings, key=lambda finding: ("error", "warning", "info").index(finding.severity))

  def _finding(self, check: Check) -> Finding | None:
    total, indices = self._totals[check.name], tuple(self._found[check.name])
    if not indices and not (check.grade and total):
      return None
    share = len(indices) / total
    filled = {"count": len(indices), "total": total, "called": self.called, "percent": f"{share:.1%}"}
    agreed = agreement(zip(*self._linked[check.name][:2], strict=True)) if check.opposes else None
    what = check.what if "{count}" in check.what else f"{{count}} of {{total}} {{called}} {check.what}"
    return Finding(
      check=check.name,
      severity=check.grade(share) if check.grade else check.severity,
      count=len(indices),
      share=share,
      rows=tuple(islice(self.places(indices), SHOWN_ROWS)) if check.about_rows else (),
      message=what.format(**filled, **self._notes) + (f" (agreement: {agreed:.1%})" if agreed else ""),
      advice=check.advice,
      agreement=agreed,
      indices=indices if check.about_rows else (),
      of_answer=check.of_answer,
    )

  def places(self, indices: Iterable[int]) -> Iterable[str]:
    rows = ((index, *divmod(self._places[index], 1 << 40)) for index in indices)
    named = (str(Origin(self._files[file], row - 1)) if row else f"pair {index + 1}" for index, file, row in rows)
    seen: set[str] = set()
    return (name for name in named if not (name in seen or seen.add(name)))


def agreement(labels: Iterable[Link], least: int = 2) -> float:
  """The share of the majorities, of labels of what has at least so many."""
  votes: dict[int, list[int]] = defaultdict(list)
  for (key, _), count in Counter(labels).items():
    votes[key].append(count)
  counted = [own for own in votes.values() if sum(own) >= least]
  return sum(map(max, counted)) / sum(map(sum, counted))


def hashed(value) -> int:
  return int.from_bytes(blake2b(repr(value).encode(), digest_size=8).digest())


def as_asked(text: str) -> str:
  """But for case and whitespace."""
  return " ".join(text.casefold().split())


def digest(messages: list[Message], memo: dict[int, bytes], read: Callable[[str], str] = str.rstrip) -> bytes:
  """Blind to whitespace after contents. Pairs of a ranking share lists of messages: each is read once."""
  known = memo.get(id(messages))
  if known is None:
    text = sorted_json([message | {"content": read(message["content"])} for message in messages])
    known = memo[id(messages)] = blake2b(text.encode(), digest_size=16).digest()
  return known


def where(test: Callable[[Record], object]) -> Callable[[Material], list[int]]:
  return lambda material: [index for index, record in enumerate(material.records) if test(record)]


def each_answer(test: Test) -> dict[str, Callable]:
  return {"find": where(lambda record: any(test(record, each) for each in answers_of(record))), "of_answer": test}


def outside(low: float, high: float) -> Callable[[float], str]:
  """A `grade`: a share outside of this range is a warning."""
  return lambda share: "info" if low <= share <= high else "warning"


def table_of(*checks: Check) -> dict[str, Check]:
  return {check.name: check for check in checks}
