"""One table of rows -> records. A column that could be part of the input and is not read is an error."""

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from types import ModuleType

from ..errors import DataError
from ..results import finite
from ..terminal import warn
from .cells import RowError, decoded, lists_in_cells, short, structure, turns, wrong_type
from .columns import answers_in_columns, check_columns, in_one_list, renamed, same_columns
from .entries import COMMON, Format, Numbered, Problems, Row, SetAsideError, key, meaning
from .files import Table, suffix
from .formats import (
  ANSWERS,
  ANYTHING,
  COLUMN_NAMES,
  FIRST_ROWS,
  INPUT_LIKE,
  LABEL_NAMES,
  LABELED,
  OPEN,
  PROMPTS,
  Tiers,
  fits,
  is_input,
  is_system,
  lacks,
  named,
  recognize,
)
from .formats_steps import ZERO_RATED, NeutralError
from .records import Comparison, Origin, Ranking, Record, Records, answers_of
from .writing import unwrapped_metadata

Made = tuple[int, Row, Record | None]


@dataclass(frozen=True)
class Reading:
  split: str | None = None
  config: str | None = None
  format: str | None = None
  columns: dict[str, str] | None = None
  """{name in the format: column of the file, or empty: drop}."""
  neutral: str | None = None
  winner_values: dict[str, str] | None = None
  tiers: Tiers = ANSWERS
  leave_out_unreadable: bool = False
  """But not more than half of a file: then its format is another one."""

  @property
  def labels(self) -> bool:
    return self.tiers is not PROMPTS


def is_one_piece(table: Table, reading: Reading) -> bool:
  rows = [row for _, row in _decoded(_head(table), reading, [])]
  with contextlib.suppress(DataError):
    return (named(reading.format) if reading.format else recognize(rows, table.name, reading.tiers)).one_piece
  return False


def _head(table: Table) -> Table:
  return replace(table, rows=table.rows[:FIRST_ROWS], numbers=table.numbers[:FIRST_ROWS], problems=[])


def records_of(table: Table, reading: Reading, *, first: bool = True) -> Records:
  """first: in later slices of a file any number of rows may be unreadable."""
  problems = list(table.problems)
  numbered = _decoded(table, reading, problems)
  chosen = reader = _format_of(table, [row for _, row in numbered], problems, reading)
  told = reading.format or reading.tiers is not ANYTHING or chosen.name in LABELED
  unread = () if told else _unread(table, chosen.name, reading)
  if chosen.expand:
    numbered, reader = chosen.expand(numbered, problems), LABELED["ranks"]
  picked = [reader.pick(row) for _, row in numbered]
  used = dict.fromkeys(column for _, names in picked for column in names.values())
  winners = _say_winners(table.name, chosen, numbered, [values for values, _ in picked], reading)
  made: list[Made] = []
  aside: Counter[str] = Counter()
  for (number, row), (values, names) in zip(numbered, picked, strict=True):
    try:
      found = _records(reader, row, values | {"neutral": reading.neutral}, used, Origin(table.name, number))
      made += [(number, row, record) for record in (found if reading.labels else found[:1])]
    except SetAsideError as reason:
      aside[str(reason)] += 1
    except NeutralError:
      raise _say_neutral(chosen, [values for values, _ in picked], f"{table.name}:{number}") from None
    except RowError as error:
      made.append((number, row, None))
      problems.append((number, f"{_in_their_names(error, names, reading)}{_other_format(reader, row)}"))
  unused = [name for name in dict.fromkeys(name for _, row, _ in made for name in row) if name not in used]
  _refuse_lost_input(table, chosen, unused, made, reading)
  problems.sort()
  few = not first or 2 * len(problems) <= len(table)
  if problems and not (reading.leave_out_unreadable and few):
    hint = None if len(problems) == len(table.problems) else _hint(chosen, reading)
    if not reading.format and not any(record for *_, record in made):
      hint = _guess(table, reading, "labeled" if chosen.name in LABELED else "any") or hint
    raise table.refused(problems, hint)
  every = [record for *_, record in made if record]
  aside.update(record.undecided for record in every if record.undecided)
  return Records(
    rows=[record for record in every if not record.undecided],
    every=every,
    formats={table.name: chosen.name},
    columns_used=chosen.needs if chosen.expand else tuple(used),
    metadata_columns=tuple(unused),
    set_aside=table.set_aside | ({"unreadable": len(problems)} if problems else {}) | aside,
    unreadable=tuple((f"{table.name}:{number}", reason) for number, reason in problems),
    winner_values=winners,
    unread=unread,
  )


def _decoded(table: Table, reading: Reading, problems: Problems) -> Numbered:
  columns = reading.columns or {}
  told = bool(reading.format) or not columns.keys() <= {"prompt", "system", *COMMON}
  head = table.rows[:FIRST_ROWS]
  in_columns, labels = answers_in_columns(head, told)
  columns = ({} if in_columns else same_columns(head)) | columns
  roots = check_columns(table, columns) if columns else {}
  lists = lists_in_cells(head) if suffix(Path(table.name)) in (".csv", ".tsv") else []
  if INPUT_LIKE.issuperset(lists):
    lists = []
  numbered = []
  for number, row in zip(table.numbers, table.rows, strict=True):
    try:
      row = renamed(row, columns, roots) if columns else dict(row)
      row = in_one_list(row, in_columns, labels) if in_columns else row
      row |= {name: turns(row[name]) or row[name] for name in lists if name in row}
      values = {name: decoded(value, name) if name in COLUMN_NAMES else value for name, value in row.items()}
      numbered.append((number, values))
    except RowError as error:
      problems.append((number, str(error)))
  return numbered


def _format_of(table: Table, rows: list[Row], problems: Problems, reading: Reading) -> Format:
  if reading.format:
    return named(reading.format)
  if problems and not rows:
    raise table.refused(problems, None if len(problems) == len(table.problems) else "fix --columns, or these rows")
  try:
    found = recognize(rows, table.name, reading.tiers)
  except DataError as error:
    if problems:
      raise table.refused(problems) from None
    head = rows[:FIRST_ROWS]
    module, way, what = _suggestions(), _guess(table, reading) or error.hint, error.message
    if module:
      what += module.seen(head)
      way += f"\n{module.conversion(table.name, head[0])}" * (way == error.hint) + module.nearest(head, reading.tiers)
    raise DataError(what, where=table.name, hint=way) from None
  if question := found.ask([found.pick(row)[0] for row in rows]):
    what, _, way = question.partition(": ")
    raise DataError(what, where=table.name, hint=way)
  return found


def _suggestions() -> ModuleType | None:
  """Not in every installed copy."""
  with contextlib.suppress(ImportError):
    from . import suggestions

    return suggestions
  return None


def _unread(table: Table, name: str, reading: Reading) -> tuple[tuple[str, str, str], ...]:
  """(FILE:ROW, what, what to do) where columns seem to rate answers. Raises DataError where these are not read either."""
  used, module = [column for names in named(name).columns for column in names], _suggestions()
  way = _guess(table, reading, "labeled")
  if name in OPEN:
    asked = [str([row.get(column) for column in used]) for row in _head(table).rows]
    by_values = None if way else _guess(table, reading, "valued")
    if way or (by_values and len(set(asked)) < len(asked)):
      what = f"only the prompts of these rows fit a format (`{name}`), and they seem to say which answer is better"
      raise DataError(what, where=table.name, hint=f"{way or by_values}; for the prompts alone, --format {name}")
    way = by_values or (name == "prompt" and _guess(table, reading, "answers"))
  unread = [column for row in table.rows[:1] for column in row if column not in used]
  unread = list(filter(module.may_label, unread)) if module else []
  if unread and not way and not reading.columns:
    way = (
      "give scores of `completions`, `best` (a place from 0), or `chosen` and `rejected`, if these say which is better: "
      + ", ".join(unread)
    )
  if not way:
    return ()
  what = f"{table.name} is read as format `{name}`, without some of its columns"
  warn(f"{what}: {way}")
  return ((f"{table.name}:{table.numbers[0]}", what, way),)


def _guess(table: Table, reading: Reading, layouts: str = "any") -> str | None:
  head, module = _head(table), _suggestions()
  if reading.columns or not module:
    return None

  def works(columns: dict[str, str], format: str | None) -> bool:
    try:
      tried = replace(reading, columns=columns, format=format, leave_out_unreadable=False)
      records = records_of(head, tried)
    except DataError as error:
      asks = f"{error.message} {error.hint}"
      return "--winner_values" in asks or "--format first_error_from_1" in asks
    return bool(records.rows) and (layouts not in ("labeled", "valued") or records.format in LABELED)

  return module.guess(head.rows, works, layouts)


def _records(chosen: Format, row: Row, picked: Row, used: Iterable[str], origin: Origin) -> list[Record]:
  missing = lacks(chosen, row, picked)
  if missing:
    there = any(name in row for name in missing.split("|"))
    raise RowError(f"column `{missing.replace('|', '` or `')}` is {'null' if there else 'missing'}")
  known = LABEL_NAMES.union(chosen.winner.columns if chosen.winner else ())
  labels = [name for name in used if name in known or "score" in name]
  shared = {
    "origin": origin,
    "metadata": finite(unwrapped_metadata({name: value for name, value in row.items() if name not in used})),
    "given": finite({name: row[name] for name in labels if name in row}),
    "id": finite(picked.get("id")),
  }
  return [
    replace(one, **shared, tools=_tools(picked.get("tools") or one.tools), undecided=_undecided(chosen, row, one))
    for one in chosen.records(picked)
  ]


def _tools(value) -> list[dict] | None:
  value = structure(value)
  if value in (None, "", "null", []):
    return None
  if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
    raise wrong_type("tools", value, "a list of objects")
  return value


def _undecided(chosen: Format, row: Row, record: Record) -> str | None:
  if chosen.name not in LABELED:
    return None
  ranked = record.scores if isinstance(record, Ranking) else ()
  if ranked is None and record.ratings is not None:
    return "unlabeled" if all(value is None for one in record.ratings for value in one.values()) else None
  if ranked is None and (chosen.winner or not {"scores", "correct", "ranks"}.isdisjoint(row)):
    return "unlabeled"
  if chosen.name != "first_error_from_1" and any(row.get(name, "") is None for name in ("label", "kto_tag")):
    return "unlabeled"
  # distilabel writes pairs whose order means nothing, with the status tie.
  tied = isinstance(record, Comparison) and str(row.get("status")).strip().lower() == "tie"
  tied = tied or str(row.get("tie")).lower() == "true" or (chosen.winner and ranked and len(set(ranked)) == 1)
  return "tie" if tied else None


def _say_winners(name: str, chosen: Format, numbered: Numbered, picked: list[Row], reading: Reading) -> dict[str, int]:
  if not chosen.winner:
    return {}
  found = [chosen.winner.value(row) if reading.labels else None for row in picked]
  sides = [_side_of(value, row) for value, (_, row) in zip(found, numbered, strict=True)]
  written = [(number, side) for (number, _), side in zip(numbered, sides, strict=True) if side is not None]
  means = meaning(written, chosen, reading.winner_values, reading.columns or {}, name)
  counts: Counter[str] = Counter()
  for row, value, side in zip(picked, found, sides, strict=True):
    row.pop("winner", None)
    if value is not None:
      row["winner"] = means.get(key(side), short(value))
    if key(side) in means:
      counts[f"{short(key(value))}={means[key(side)]}"] += 1
  return dict(counts)


def _side_of(value: object, row: Row) -> object:
  """Of a winner that is the name of one of the two models."""
  for pair in (("model_a", "model_b"), ("model_1", "model_2")):
    names = [row.get(name) for name in pair]
    if value is not None and value in names and names[0] != names[1]:
      return "ab"[names.index(value)]
  return value


def _say_neutral(chosen: Format, rows: list[Row], where: str) -> DataError:
  def labels(neutral: str) -> Iterator[float | None]:
    for row in rows:
      # A KeyError: a column is missing, another error will say so.
      with contextlib.suppress(RowError, SetAsideError, KeyError):
        yield from [label for one in chosen.records(row | {"neutral": neutral}) for label in one.labels]

  good, bad, ignore = (Counter(labels(neutral)) for neutral in ZERO_RATED)
  return DataError(
    f"{good[1.0] - ignore[1.0]} of {good.total() - good[None]} steps are rated 0, neither right nor wrong: --neutral says what that means",
    where=where,
    hint=f"--neutral good counts them as right (then {good[1.0]} right, {ignore[0.0]} wrong), bad as wrong "
    f"({ignore[1.0]} right, {bad[0.0]} wrong), ignore gives them no label ({ignore[1.0]} right, {ignore[0.0]} wrong)",
  )


def _in_their_names(error: RowError, names: dict[str, str], reading: Reading) -> str:
  """What is wrong, with the file's names in place of the format's."""
  told = {name: (reading.columns or {}).get(column) or column for name, column in names.items()}
  return re.sub(r"`(\w+)`", lambda found: f"`{told.get(found[1], found[1])}`", str(error))


def _other_format(chosen: Format, row: Row) -> str:
  if fits(chosen, row):
    return ""
  other = next((entry.name for entry in LABELED.values() if entry is not chosen and fits(entry, row)), None)
  like = f"the row looks like format `{other}` and the first rows like `{chosen.name}`"
  return f" ({like}: mixed formats)" if other else ""


def _hint(chosen: Format, reading: Reading) -> str:
  needs = ", ".join(names.replace("|", " or ") for names in chosen.needs)
  mapped = "" if reading.columns else ", or --columns to name them"
  return f"these are read as format `{chosen.name}` ({needs}); use --format for another{mapped}, or fix these rows"


def _refuse_lost_input(table: Table, chosen: Format, unused: list[str], made: list[Made], reading: Reading) -> None:
  for name in unused:
    read = [(number, row.get(name), record) for number, row, record in made]
    if lost := [number for number, value, record in read if is_input(name, value) and not _is_there(value, record)]:
      texts = all(isinstance(row.get(name), str | None) and "system" not in row for _, row, _ in made)
      way = f"read it as the system text with --columns system={name}, " * (texts and ["system"] in chosen.columns)
      way = "only text can be scored: " if "image" in name.lower() else f"{way}put it into the prompt yourself, or "
      raise DataError(
        f"column `{name}` could be part of the input, but format `{chosen.name}` does not use it ({len(lost)} of {len(made)} rows)",
        where=f"{table.name}:{lost[0]}",
        hint=(not is_system(name) and _guess(table, reading)) or f"{way}leave it out with --columns {name}=",
      )


def _is_there(value, record: Record | None) -> bool:
  if value in (None, [], {}) or (isinstance(value, str) and not value.strip()):
    return True
  if record is None:
    return False
  messages = record.prompt if isinstance(value, str) else chain(record.prompt, *answers_of(record))
  said = [message["content"] for message in messages]
  return all(any(text.strip() in one for one in said) for text in _texts(value))


def _texts(value) -> Iterator[str]:
  if isinstance(value, dict):
    inside = (item for name, item in value.items() if name not in ("role", "from"))
    value = [item for item in inside if isinstance(item, (str, list, dict))]
  if isinstance(value, list):
    return chain.from_iterable(map(_texts, value))
  return iter([value if isinstance(value, str) else repr(value)])
