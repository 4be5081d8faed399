"""The types every dataset is read to, and its uses, which raise DataError for rows they cannot take."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, combinations
from statistics import fmean
from typing import Any, TypeVar

from ..errors import DataError, UsageError, did_you_mean
from ..results import Row, sorted_json

Message = dict[str, Any]
"""{"role": "system" | "user" | "assistant" | "tool", "content": str, ...}."""


@dataclass(frozen=True)
class Origin:
  """FILE:ROW, rows counted from 1."""

  file: str
  row: int

  def __str__(self) -> str:
    return f"{self.file}:{self.row}"


@dataclass(frozen=True, kw_only=True)
class _Row:
  id: str | int | None = None
  tools: list[dict] | None = None
  metadata: Row = field(default_factory=dict)
  origin: Origin | None = None
  given: Row = field(default_factory=dict, compare=False, repr=False)
  """Label columns as they were read."""
  undecided: str | None = field(default=None, compare=False, repr=False)
  """Why its label does not say which answer is better."""

  def shared(self) -> Row:
    """What the records that are made of this one have of it."""
    return {name: getattr(self, name) for name in ("tools", "id", "metadata", "origin")}


@dataclass(frozen=True)
class Comparison(_Row):
  """`margin`: how much better `chosen` is, in units of the labels; `weight`: in a mean."""

  prompt: list[Message]
  chosen: list[Message]
  rejected: list[Message]
  margin: float | None = None
  weight: float = 1.0
  rejected_first: bool = field(default=False, compare=False, repr=False)


@dataclass(frozen=True)
class Ranking(_Row):
  """Any number of completions; `scores`: higher is better. Its pairs have its margin and share its weight.

  ratings: of each completion by attribute, None where it is missing.
  """

  prompt: list[Message]
  completions: list[list[Message]]
  scores: list[float] | None = None
  margin: float | None = None
  weight: float = 1.0
  ratings: list[dict[str, float | None]] | None = None

  @property
  def is_labeled_answer(self) -> bool:
    """Of KTO, which makes no pair."""
    labeled = self.scores is not None and not self.given.keys().isdisjoint(("label", "kto_tag"))
    return labeled and len(self.completions) == 1


@dataclass(frozen=True)
class Rated(_Row):
  """One answer of a ranking, rated by itself."""

  prompt: list[Message]
  completion: list[Message]
  ratings: dict[str, float | None]


@dataclass(frozen=True)
class Solution(_Row):
  """An answer in steps; `labels`: one a step (1 good, 0 bad, a probability, None: without a label), or None."""

  prompt: list[Message]
  steps: list[str]
  labels: list[float | None] | None = None


Record = Comparison | Ranking | Rated | Solution
_Split = TypeVar("_Split", Comparison, Rated, Solution)


@dataclass(frozen=True)
class Records:
  rows: list[Record]
  formats: dict[str, str] = field(default_factory=dict)
  columns_used: tuple[str, ...] = ()
  metadata_columns: tuple[str, ...] = ()
  set_aside: dict[str, int] = field(default_factory=dict)
  every: list[Record] = field(default_factory=list)
  """`rows` and, in their places, those that are undecided."""
  unreadable: tuple[tuple[str, str], ...] = ()
  """(FILE:ROW, reason)."""
  unread: tuple[tuple[str, str, str], ...] = ()
  """Columns that seem to rate answers: (FILE:ROW, what, what to do)."""
  winner_values: dict[str, int] = field(default_factory=dict)
  """{"1=a": 123, "tie=tie": 4}."""

  @property
  def files(self) -> tuple[str, ...]:
    return tuple(self.formats)

  @property
  def format(self) -> str:
    return " and ".join(dict.fromkeys(self.formats.values()))


def joined(parts: Iterable[Records], *, rows: bool = True) -> Records:
  whole = list(parts)

  def every(name: str) -> chain:
    return chain.from_iterable(getattr(part, name) for part in whole)

  def counts(name: str) -> dict[str, int]:
    return dict(sum((Counter(getattr(part, name)) for part in whole), Counter()))

  return Records(
    rows=list(every("rows")) if rows else [],
    formats={file: format for part in whole for file, format in part.formats.items()},
    columns_used=tuple(dict.fromkeys(every("columns_used"))),
    metadata_columns=tuple(dict.fromkeys(every("metadata_columns"))),
    set_aside=counts("set_aside"),
    every=list(every("every")) if rows else [],
    unreadable=tuple(every("unreadable")),
    unread=tuple(every("unread")),
    winner_values=counts("winner_values"),
  )


def comparisons(records: Records) -> list[Comparison]:
  """Pairs: a ranking makes all of different scores, each weighs 1 / (their number) (arXiv:2203.02155 Eq. 1)."""
  _refuse(
    records,
    _OF_STEPS,
    (
      lambda row: isinstance(row, Ranking) and row.is_labeled_answer,
      "label one answer each as desirable or not (KTO): a loss of pairs needs two answers to one prompt",
      "--objective binary trains on them; or put answers to one prompt into one row, as completions with scores",
    ),
    (
      lambda row: isinstance(row, Ranking) and row.scores is None,
      "do not say which answer is better",
      "give chosen and rejected, or completions with scores; completions without labels can be scored",
    ),
  )
  return [pair for row in records.rows for pair in comparisons_of(row)]


def rated_answers(records: Records, range_: Sequence[float] | None = None) -> list[Rated]:
  """range_: the lowest and the highest rating that there can be."""
  if range_ and not (len(range_) == 2 and range_[0] < range_[1]):
    raise UsageError("--rating_range is the lowest and the highest rating, as in --rating_range 1 10")
  hint = "give prompt, completion and score, or an object `ratings`; for pairs, --objective bradley_terry"
  if records.metadata_columns:
    left = ", ".join(records.metadata_columns[:8])
    hint += f"; what was not read: {left} (--columns score=NAME takes numbers, label=NAME good and bad)"
  unrated = (
    lambda row: isinstance(row, Comparison) or (row.ratings is None and row.scores is None),
    "do not rate each answer by itself",
    hint,
  )
  _refuse(records, _OF_STEPS, unrated)
  found = [one for row in records.rows for one in ratings_of(row)]
  for one in found if range_ else ():
    for name, value in one.ratings.items():
      if value is not None and not range_[0] <= value <= range_[1]:
        what = f"`{name}` is {value:g}, outside --rating_range {range_[0]:g} {range_[1]:g}"
        raise DataError(what, where=one.origin, hint="fix these rows, or state another range")
  return found


def averaged(rows: Iterable[Rated]) -> list[Rated]:
  """Equal answers to a prompt, which several people rated, become the first of them with the mean of each rating."""
  groups: dict[str, list[Rated]] = {}
  for row in rows:
    groups.setdefault(sorted_json([row.prompt, row.completion, row.tools]), []).append(row)
  return [replace(own[0], ratings={name: _mean(own, name) for name in rated_names(own)}) for own in groups.values()]


def _mean(rows: Iterable[Rated], name: str) -> float | None:
  values = [value for row in rows if (value := row.ratings.get(name)) is not None]
  return fmean(values) if values else None


def is_rated(row: Record) -> bool:
  return isinstance(row, Ranking) and (row.ratings is not None or row.is_labeled_answer)


def ratings_of(row: Ranking) -> list[Rated]:
  """By its attributes, else its `score`, or the label of KTO as `desirable`."""
  name = "desirable" if row.is_labeled_answer else "score"
  given = row.ratings or [{name: score} for score in row.scores]
  answers = zip(row.completions, given, strict=True)
  return [Rated(row.prompt, answer, ratings, **row.shared()) for answer, ratings in answers]


def rated_names(rows: Iterable[Rated]) -> tuple[str, ...]:
  return tuple(dict.fromkeys(name for row in rows for name in row.ratings))


def check_attributes(given: Iterable[str], known: Sequence[str], flag: str) -> None:
  if unknown := [name for name in given if name not in known]:
    hint = did_you_mean(unknown[0], known) if known else "leave the flag out"
    raise UsageError(f"--{flag} names `{unknown[0]}`, which is not an attribute here", hint=hint)
  if given and isinstance(given, Mapping) and not any(given.values()):
    raise UsageError(f"--{flag} are all 0: every reward would be", hint="weigh at least one attribute")


def weighted(ratings: Mapping[str, float | None], weights: Mapping[str, float]) -> float | None:
  """The sum, or None where a rating is missing."""
  values = [(ratings.get(name), weight) for name, weight in weights.items()]
  return None if any(value is None for value, _ in values) else sum(value * weight for value, weight in values)


def ranked_by_ratings(records: Records, weights: Mapping[str, float] | None) -> Records:
  """Rated answers become one ranking a prompt by the weighted sum of their ratings, where they have no other label or
  weights are given.

  `set_aside` counts prompts without two that differ. Raises DataError where several attributes have no weights.
  """
  rows: list[Record] = []
  groups: dict[str, list[Rated]] = {}
  for row in records.rows:
    if isinstance(row, Ranking) and row.ratings is not None and (weights or row.scores is None):
      key = sorted_json([row.prompt, row.tools])
      groups.setdefault(key, []).extend(ratings_of(row))
    else:
      rows.append(row)
  names = rated_names(chain(*groups.values()))
  check_attributes(weights or (), names, "attribute_weights")
  if len(names) > 1 and not weights:
    what = f"these rows rate {', '.join(names)}: which answer is better is not said"
    hint = f"--attribute_weights {names[0]}=1 makes pairs, --objective regression learns all"
    raise DataError(what, where=next(iter(records.files), None), hint=hint)
  aside: Counter[str] = Counter(records.set_aside)
  for answers in map(averaged, groups.values()):
    scores = [weighted(one.ratings, weights or dict.fromkeys(names, 1.0)) for one in answers]
    known = [(one.completion, score) for one, score in zip(answers, scores, strict=True) if score is not None]
    if len({score for _, score in known}) > 1:
      rows.append(Ranking(answers[0].prompt, *map(list, zip(*known, strict=True)), **answers[0].shared()))
    else:
      aside["answers rated alike" if len(known) > 1 else "one rated answer to its prompt"] += 1
  return replace(records, rows=rows, every=[], set_aside=dict(aside))


def solutions(records: Records) -> list[Solution]:
  hint = "give `prompt`, `completions` (the steps) and `labels`, or see check_data.py --list_formats"
  tools = "have `tools`, which a process reward model does not read"
  _refuse(
    records,
    (lambda row: not isinstance(row, Solution), "have no steps", hint),
    (lambda row: row.tools is not None, tools, "drop them: --columns tools="),
  )
  labeled = [row for row in records.rows if row.labels is not None]
  if not labeled:
    raise DataError("no row labels its steps", where=next(iter(records.files), None), hint="give `labels`, one a step")
  return labeled


def to_score(records: Records, *, steps: bool = False) -> Records:
  """All rows, with the label columns as metadata; a comparison has the scores 1 and 0. steps: take solutions, too."""
  unanswered = (lambda row: isinstance(row, Ranking) and not row.completions, "hold prompts only, no answers", None)
  rows = records.every or records.rows
  _refuse(replace(records, rows=rows), unanswered, *[_OF_STEPS] * (not steps))
  return _with_all(records, map(_to_score, rows))


def _to_score(row: Record) -> Ranking:
  clash = not row.given.keys().isdisjoint(row.metadata)
  metadata = row.given | ({"metadata": row.metadata} if clash else row.metadata)
  if isinstance(row, Solution):
    answers, scores = [in_steps(row.steps)], None
  elif isinstance(row, Ranking):
    answers, scores = row.completions, row.scores
  else:
    order = -1 if row.rejected_first else 1
    answers, scores = [row.chosen, row.rejected][::order], [1.0, 0.0][::order]
  if row.undecided:
    scores = [0.0] * len(answers) if row.undecided == "tie" else None
  return Ranking(row.prompt, answers, scores, **row.shared() | {"metadata": metadata})


def prompts(records: Records) -> Records:
  rows = records.every or records.rows
  empty = [row for row in rows if not any(message["content"].strip() for message in row.prompt)]
  if empty:
    several = f"{len(empty)} of {len(rows)} rows: " if len(empty) > 1 else ""
    where = ", ".join(str(row.origin) for row in empty[:5])
    raise DataError(f"{several}the prompt is empty", where=where, hint="fix these rows, or leave them out")
  return _with_all(records, (Ranking(row.prompt, [], **row.shared()) for row in rows))


def _with_all(records: Records, rows: Iterable[Ranking]) -> Records:
  reasons = {row.undecided for row in records.every}
  left = {reason: count for reason, count in records.set_aside.items() if reason not in reasons}
  return replace(records, rows=list(rows), set_aside=left, every=[])


_OF_STEPS = (
  lambda row: isinstance(row, Solution),
  "label the steps of one answer: step labels are for process reward models",
  "give a process reward model, or rows with answers and no steps",
)


def _refuse(records: Records, *faults: tuple[Callable[[Record], bool], str, str | None]) -> None:
  """faults: (of which rows, what is wrong with them, what to do)."""
  for row in records.rows:
    for of_row, what, hint in faults:
      if of_row(row):
        file = row.origin.file if row.origin else None
        raise DataError(f"these rows (format `{records.formats.get(file)}`) {what}", where=file, hint=hint)


def ordered_pairs(ranking: Ranking) -> list[tuple[int, int]]:
  """(better, worse) of completions with different scores."""
  scores = ranking.scores or []
  pairs = combinations(range(len(scores)), 2)
  return [(i, j) if scores[i] > scores[j] else (j, i) for i, j in pairs if scores[i] != scores[j]]


def comparisons_of(row: Comparison | Ranking) -> list[Comparison]:
  if isinstance(row, Comparison):
    return [row]
  pairs = []
  ordered, answers = ordered_pairs(row), row.completions
  for better, worse in ordered:
    own = row.shared() | {"id": None if row.id is None else f"{row.id}:{better}>{worse}"}
    weight = row.weight / len(ordered)
    pairs.append(Comparison(row.prompt, answers[better], answers[worse], row.margin, weight, **own))
  return pairs


def equal_scores(records: Records) -> int:
  rankings = [row for row in records.rows if isinstance(row, Ranking)]
  possible = sum(len(row.completions) * (len(row.completions) - 1) // 2 for row in rankings)
  return possible - sum(len(ordered_pairs(row)) for row in rankings)


def answers_of(record: Record) -> list[list[Message]]:
  if isinstance(record, Comparison):
    return [record.chosen, record.rejected]
  if isinstance(record, Ranking):
    return record.completions
  if isinstance(record, Rated):
    return [record.completion]
  return [[{"role": "assistant", "content": step} for step in record.steps]]


def in_steps(steps: list[str]) -> list[Message]:
  return [{"role": "assistant", "content": "\n".join(steps), "steps": steps}]


def split_by_prompt(rows: Sequence[_Split], share: float, seed: int) -> tuple[list[_Split], list[_Split]]:
  """(train, validation): the hash of prompt and seed decides, in every run and from every file."""
  sides: tuple[list[_Split], list[_Split]] = ([], [])
  for row in rows:
    text = f"{seed}:{sorted_json(row.prompt)}"
    place = int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8]) / 2**64
    sides[place < share].append(row)
  return sides
