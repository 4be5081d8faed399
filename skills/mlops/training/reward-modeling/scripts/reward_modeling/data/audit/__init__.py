"""What is wrong with comparisons, rated answers, labeled steps or rows to be scored. Every check takes time linear in the text."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from ...errors import DataError
from ...terminal import log, table, warn
from ..records import Comparison, Ranking, Rated, Record, Records, Solution
from .checks import CHECKS, RATED_CHECKS, STEP_CHECKS, UNLABELED_CHECKS
from .findings import SHOWN_ROWS, Audit, AuditFinding, Check, Finding, Material, as_asked, digest

__all__ = ["AuditFinding", "Check"]

TABLES = {
  Comparison: ("pairs", CHECKS),
  Rated: ("answers", RATED_CHECKS),
  Solution: ("solutions", STEP_CHECKS),
  Ranking: ("rows", UNLABELED_CHECKS),
}
"""What records are called, and their checks. Labeled rankings are audited as their pairs."""
UNREADABLE = "unreadable"
_Kept = TypeVar("_Kept", bound=Record)


def warn_of_templates(rows: Sequence[Ranking]) -> None:
  checked = Audit("rows", [CHECKS["templated"]])
  checked.add(Material(rows))
  for finding in checked.findings():
    warn(f"{finding.message} ({_short_places(finding.rows)}): {finding.advice}")


def audit(
  records: Sequence[Record],
  *,
  eval_records: Sequence[Record] | None = None,
  rendered: bool = False,
  separator: str | None = None,
) -> list[Finding]:
  """Findings on records of one type, errors first. rendered: turns and templates in the texts are meant."""
  if not records:
    return []
  called, checks = TABLES[type(records[0])]
  whole = Audit(called, checks.values(), rendered=rendered)
  whole.add(Material(records, prompt_digests(eval_records or ()), separator))
  ranges: dict[str, list[float]] = {}
  note_ratings(ranges, (row for row in records if isinstance(row, Rated)))
  return [*about_attributes(ranges), *whole.findings()]


def note_ratings(ranges: dict[str, list[float]], rows: Iterable[Rated]) -> None:
  """Keep [how many, the lowest, the highest] of each attribute."""
  for row in rows:
    for name, value in row.ratings.items():
      own = ranges.setdefault(name, [0, math.inf, -math.inf])
      if value is not None:
        own[:] = own[0] + 1, min(own[1], value), max(own[2], value)


def about_attributes(ranges: dict[str, list[float]]) -> Iterator[Finding]:
  for name, (count, low, high) in ranges.items():
    if not count:
      what, advice = f"no answer has a rating of `{name}`", "fix its column, or name others with --attributes"
      yield Finding("attribute_missing", "error", 0, 0.0, (), what, advice)
    elif low == high and count > 1:
      what, advice = f"all {count} ratings of `{name}` are {low:g}", "name others with --attributes"
      yield Finding("attribute_constant", "warning", count, 1.0, (), what, advice)


def prompt_digests(records: Iterable[Record]) -> frozenset[bytes]:
  """Blind to case and whitespace. Of prompts without text, which would all be one, there are none."""
  memo: dict[int, bytes] = {}
  asked = (one.prompt for one in records if any(as_asked(message["content"]) for message in one.prompt))
  return frozenset(digest(prompt, memo, as_asked) for prompt in asked)


def unreadable(records: Records, read: int | None = None) -> list[Finding]:
  """One finding, or none. read: how many rows can be read, where `records` does not hold them."""
  count = len(records.unreadable)
  read = (len(records.rows) if read is None else read) + sum(records.set_aside.values())
  return [
    Finding(
      check=UNREADABLE,
      severity="error",
      count=count,
      share=count / read,
      rows=tuple(place for place, _ in records.unreadable[:SHOWN_ROWS]),
      message=f"{count} of {read} rows cannot be read; the first: {reason}",
      advice="fix them, or leave them out",
    )
    for _, reason in records.unreadable[:1]
  ]


def unread(records: Records) -> list[Finding]:
  """Columns that seem to rate answers."""
  count, used = len(records.metadata_columns), len(records.columns_used)
  return [
    Finding("unread_columns", "warning", count, count / (count + used), (place,), what, advice)
    for place, what, advice in records.unread
  ]


def drop(records: Sequence[_Kept], findings: Iterable[Finding]) -> list[_Kept]:
  gone = {index for finding in findings for index in finding.indices}
  return [record for index, record in enumerate(records) if index not in gone]


def without_errors(records: Sequence[_Kept], findings: Sequence[Finding], how: str, called: str) -> list[_Kept]:
  """What a training run keeps of audited records by its --audit (`how`). Raises DataError for errors under "stop"."""
  show(findings)
  errors = [finding for finding in findings if finding.severity == "error"]
  if errors and how == "stop":
    worst = errors[0]
    raise DataError(
      worst.message,
      where=", ".join(worst.rows),
      hint=f"{worst.advice}; leave such rows out with --audit drop, or look closer with check_data.py",
    )
  kept = drop(records, errors) if how == "drop" else list(records)
  if len(kept) < len(records):
    warn(f"left out {len(records) - len(kept)} of {len(records)} {called} with errors")
  return kept


def show(findings: Sequence[Finding]) -> None:
  if not findings:
    log("the audit found nothing")
    return
  rows = [[one.severity, one.check, f"{one.message}: {one.advice}", _short_places(one.rows)] for one in findings]
  table("audit", ["severity", "check", "finding", "first rows"], rows)


def _short_places(rows: Sequence[str]) -> str:
  shown, last = [], None
  for row in rows:
    file, _, number = row.rpartition(":")
    shown.append(number if file and file == last else row.rpartition("/")[2])
    last = file
  return ", ".join(shown)
