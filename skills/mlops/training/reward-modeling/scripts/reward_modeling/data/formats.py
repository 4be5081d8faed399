"""The one table of data formats, FORMATS, and which of them rows are."""

import re

from ..errors import DataError, UsageError, did_you_mean
from .cells import RowError, are_messages
from .entries import Format, Row, always, never
from .formats_datasets import DATASETS
from .formats_pairs import PAIRS
from .formats_rankings import HELPSTEER, OPEN, RANKED, RANKINGS, UNLABELED
from .formats_steps import PUBLISHED_STEPS, STEPS

LABELED = DATASETS | RANKED | PAIRS | RANKINGS | STEPS | PUBLISHED_STEPS
PUBLISHED = DATASETS | RANKED | PUBLISHED_STEPS
FORMATS: dict[str, Format] = LABELED | UNLABELED | OPEN
"""Of two formats that fit a file equally well the earlier one is taken."""

Tiers = tuple[dict[str, Format], ...]
"""The formats that are tried: the first group with one that fits decides."""
ANSWERS: Tiers = (LABELED, UNLABELED)
ANYTHING: Tiers = (LABELED, {"open_conversation": OPEN["open_conversation"]} | UNLABELED, OPEN)
PROMPTS: Tiers = (LABELED, OPEN, UNLABELED)

COLUMN_NAMES = frozenset(name for entry in FORMATS.values() for names in entry.columns for name in names)
"""Columns that a format reads."""
# Columns that could be part of the input, an error if unused: TRL's RewardTrainer drops them in silence.
_INPUTS = (
  "prompt prompts system system_prompt preamble persona instruction instructions input inputs question questions query "
  "context contexts history conversation conversations messages dialogue dialog document documents passage passages "
  "background article post selftext prefix options choices premise image images audios videos functions tools"
)
_LABELS = "label kto_tag tie winner scores correct ranks labels rating ratings margin weight"
_SYSTEM = re.compile(r"sys|system(_?(prompt|message|msg|instruction|text|content)s?)?")
_NO_INPUT = re.compile(r"reference$|(labell?|annotat|judg|evaluat|grad)(|e|e?ment|er|or|ing|ion)s?(_|$)")
_MATERIAL = re.compile(r"\w+_(context|passage|document|history|image)s?")
INPUT_LIKE, LABEL_NAMES = frozenset(_INPUTS.split()), frozenset(_LABELS.split()).union(HELPSTEER)
_NULLABLE = "winner scores|correct labels|step_labels ranks|rank parent_id rank label|kto_tag mistake_index"
_NULLABLE += " label|first_error_step|first_incorrect_step|error_step"
NULLABLE = frozenset(_NULLABLE.split())
"""Labels: null means that the row has none."""
FIRST_ROWS = 20
"""How many rows vote on the format."""


def named(name: str) -> Format:
  if name not in FORMATS:
    raise UsageError(f"unknown format {name}", hint=did_you_mean(name, FORMATS))
  return FORMATS[name]


def recognize(rows: list[Row], where: str, tiers: Tiers = ANSWERS) -> Format:
  """The format that most of the first rows fit, else the one whose columns they have, for its messages, else a DataError."""
  head = rows[:FIRST_ROWS]
  for tier in tiers:
    fitting = {name: _fitting(entry, head) for name, entry in tier.items()}
    votes = {name: (sum(_reads_all(tier[name], row) for row in rows), len(rows)) for name, rows in fitting.items()}
    best = max(votes, key=votes.get)
    if fitting[best]:
      return tier[best]
  present = {name for row in head for name in row}
  for entry in (entry for tier in tiers for entry in tier.values()):
    by_shape = entry.matches is never or (entry.name in PUBLISHED and entry.matches is not always)
    if by_shape or entry.beside is not always:
      continue
    if not any(present.isdisjoint(names.split("|")) for names in entry.needs):
      return entry
  raise DataError(
    f"no format has the columns {', '.join(sorted(present)) or '(none)'}",
    where=where,
    hint="name them, as in --columns prompt=A,chosen=B,rejected=C (or prompt=A,completions=B to score); "
    "check_data.py --list_formats shows all formats",
  )


def _fitting(entry: Format, head: list[Row]) -> list[Row]:
  found = [row for row in head if fits(entry, row)]
  by_chance = entry.whole and (len(found) < len(head) or not entry.whole([entry.pick(row)[0] for row in found]))
  return [] if by_chance else found


def fits(entry: Format, row: Row) -> bool:
  picked, _ = entry.pick(row)
  try:
    return entry.beside(row) and not lacks(entry, row, picked) and entry.matches(picked)
  except RowError:  # text in a cell that no row may hold
    return False


def _reads_all(entry: Format, row: Row) -> bool:
  _, used = entry.pick(row)
  return not any(value and is_input(name, value) for name, value in row.items() if name not in used.values())


def is_input(name: str, value) -> bool:
  """Whether a column could be part of the input: by its name, or as messages under any name but that of a known answer."""
  if isinstance(value, (str, list, dict)) and (is_system(name) or _MATERIAL.fullmatch(name.lower())):
    return True
  return name.lower() in INPUT_LIKE or (are_messages(value) and not _NO_INPUT.match(name.lower()))


def is_system(name: str) -> bool:
  return bool(_SYSTEM.fullmatch(name.lower()))


def lacks(entry: Format, row: Row, picked: Row) -> str | None:
  """The first column that the format needs and the row lacks. A null label sets the row aside."""
  for names in entry.needs:
    alternatives = names.split("|")
    nullable = names in NULLABLE or (entry.winner and alternatives[0] in entry.winner.columns)
    if alternatives[0] not in picked and not (nullable and any(name in row for name in alternatives)):
      return names
  return None
