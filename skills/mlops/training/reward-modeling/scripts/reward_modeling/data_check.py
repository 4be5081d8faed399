"""check_data.py: what data is, what is wrong with it, and the rows that are left, a slice at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import ClassVar, TypeVar

from .cli import flag, fraction
from .data import audit
from .data.audit import CHECKS, RATED_CHECKS, STEP_CHECKS, UNLABELED_CHECKS, UNREADABLE, AuditFinding, Check
from .data.audit.checks import OVER_LENGTH, REFUSED, RENDERED_CHECKS, rendered_checks
from .data.audit.parts import Survey
from .data.cells import short
from .data.converting import Reading
from .data.entries import said
from .data.formats import ANYTHING, FORMATS, named
from .data.reading import check_verbatim, slices
from .data.records import Solution, split_by_prompt
from .data.writing import counted, kept_rows, lines, tell_moved, to_row
from .errors import DataError, UsageError
from .outputs import check_output_file, write_whole
from .results import Number, Result, Row, emit, to_json
from .settings import ReadingSettings, TextSettings, WinnerSettings, neutral_flag, split_flag
from .terminal import listed, log, table, warn

_OF_ROWS = (name for name, check in (CHECKS | STEP_CHECKS).items() if check.about_rows)
DROPPABLE = (UNREADABLE, REFUSED, OVER_LENGTH, *_OF_ROWS)

SEED = 42
"""As train.py has it: --val_set_size there holds out the same prompts."""
_Entry = TypeVar("_Entry")
SAID = ("format", "files", "winner_values", "columns_used", "metadata_columns")
"""Of `Records`, in the result under the same names."""


@dataclass(frozen=True, kw_only=True)
class CheckSettings(ReadingSettings, WinnerSettings, TextSettings):
  group: ClassVar = "result"
  data: Sequence[str] = flag(
    (), "the same as --dataset_name", group="positional arguments", name="data", nargs="*", metavar="DATA"
  )
  dataset_split: str | None = split_flag(None)
  neutral: str | None = neutral_flag()
  eval_dataset_name: Sequence[str] | None = flag(
    None, "evaluation data, whose prompts must not occur in DATA", group="data", metavar="DATA"
  )
  model_name_or_path: str | None = flag(
    None,
    "also find rows that this model's chat template refuses (reads its tokenizer alone)",
    group="data",
    metavar="MODEL",
  )
  chat_template_path: str | None = flag(
    None, "a .jinja file or a model with another chat template", group="data", metavar="PATH"
  )
  max_length: int | None = flag(
    None, "also find rows with more tokens than this, as --model_name_or_path counts them", group="data"
  )
  output: str | None = flag(None, "write the rows as canonical JSON Lines", metavar="FILE")
  layout: str = flag(
    "canonical",
    "of --output; original: the rows with their own columns, as CSV where FILE ends in .csv or .tsv",
    choices=("canonical", "original"),
  )
  findings: str | None = flag(None, "write every finding with each of its rows as JSON Lines", metavar="FILE")
  held_out: str | None = flag(
    None, "write the rows of some prompts here and not to --output: data to evaluate on", metavar="FILE"
  )
  val_set_size: float = flag(0.1, "the share of the prompts in --held_out", type=fraction, metavar="SHARE")
  overwrite: bool = flag(False, "replace --output, --held_out and --findings if they exist")
  drop: Sequence[str] = flag(
    (),
    f"leave out of --output what these findings are about, rows or completions of a ranking: {', '.join(DROPPABLE)}",
    choices=DROPPABLE,
    metavar="CHECK",
  )
  strict: bool = flag(False, "exit with 3 on warnings too")
  list_formats: Sequence[str] | None = flag(
    None, "name every format, or show the columns and a row of these, then stop", nargs="*", metavar="NAME"
  )
  list_checks: bool = flag(False, "show every check, why it matters and what to do, then stop")

  def __post_init__(self) -> None:
    if self.list_formats is not None or self.list_checks:
      return
    if not self.sources:
      raise UsageError("no dataset was named", hint="check_data.py FILE, or check_data.py --list_formats")
    model, output = "--model_name_or_path", "--output"
    for given, name, needed, is_there in (
      (self.drop, "--drop", output, self.output),
      (self.layout == "original", "--layout original", output, self.output),
      (self.held_out, "--held_out", output, self.output),
      (self.val_set_size != CheckSettings.val_set_size, "--val_set_size", "--held_out", self.held_out),
      (self.chat_template_path, "--chat_template_path", model, self.model_name_or_path),
      (REFUSED in self.drop, "--drop refused", model, self.model_name_or_path),
      (self.max_length, "--max_length", model, self.model_name_or_path),
      (OVER_LENGTH in self.drop, "--drop over_length", "--max_length", self.max_length),
    ):
      if given and not is_there:
        hint = "add --output clean.jsonl" if needed == output else None
        raise UsageError(f"{name} needs {needed}, which is not given", hint=hint)
    if self.held_out and Path(self.held_out).resolve() == Path(self.output).resolve():
      raise UsageError("--held_out and --output are the same file")

  @property
  def sources(self) -> list[str]:
    return [*self.data, *(self.dataset_name or ())]


@dataclass(frozen=True, kw_only=True)
class Checked(Result):
  format: str
  files: list[str]
  rows: int
  kept: int
  """After --drop."""
  held_out: int | None = None
  """Of them, in --held_out."""
  kinds: dict[str, int]
  comparisons: int | None = None
  prompts: int | None = None
  """Different ones."""
  completions: int | None = None
  solutions: int | None = None
  steps: int | None = None
  labeled_steps: int | None = None
  incorrect_steps: int | None = None
  ratings: dict[str, list[Number]] | None = None
  """How many, the lowest and the highest, by attribute."""
  equal_scores: int
  """Pairs of completions that make no comparison."""
  set_aside: dict[str, int]
  winner_values: dict[str, int]
  columns_used: list[str]
  metadata_columns: list[str]
  metadata_moved: dict[str, int] | None = None
  findings: list[AuditFinding]
  dropped: int
  dropped_rows: dict[str, int]
  dropped_completions: dict[str, int]
  output: str | None
  errors: int
  """After --drop, as `warnings`."""
  warnings: int


@dataclass(frozen=True)
class FormatEntry:
  name: str
  description: str
  needs: list[str] | None = None
  optional: list[str] | None = None
  example: dict[str, object] | None = None


@dataclass(frozen=True)
class FormatList(Result):
  formats: list[FormatEntry]


@dataclass(frozen=True)
class CheckEntry:
  about: str
  name: str
  severity: str
  why: str
  advice: str


@dataclass(frozen=True)
class CheckList(Result):
  checks: list[CheckEntry]


CheckOutput = Checked | FormatList | CheckList


def check_data(settings: CheckSettings) -> Checked:
  """Checks the data, writes --output and --findings. Raises DataError where the data cannot be read, and, after printing the
  result, where findings are left that stop training.
  """
  result, set_aside = _checked(settings)
  _report(result, set_aside)
  left = [finding for finding in result.findings if finding.check not in settings.drop]
  bad = [finding for finding in left if finding.severity in ("error", *["warning"] * settings.strict)]
  droppable = dict.fromkeys(finding.check for finding in bad if finding.check in DROPPABLE)
  if bad:
    emit(result)
    raise DataError(
      f"{len(bad)} of the findings stop training; the first: {bad[0].message}",
      where=", ".join(bad[0].rows),
      hint=f"leave the rows out with --drop {' '.join(droppable)} --output clean.jsonl, or fix them"
      if bad[0].check in DROPPABLE
      else bad[0].advice,
    )
  return result


def _checked(settings: CheckSettings) -> tuple[Checked, dict[str, int]]:
  """(the result, what was set aside, dropped rows among it)."""
  inputs = [*settings.sources, *(settings.eval_dataset_name or ())]
  output, found, held_out = (
    check_output_file(path, settings.overwrite, inputs) if path else None
    for path in (settings.output, settings.findings, settings.held_out)
  )
  reading = Reading(
    split=settings.dataset_split,
    neutral=settings.neutral,
    winner_values=settings.winner_values,
    tiers=ANYTHING,
    leave_out_unreadable=True,
    **settings.reading,
  )
  survey, columns = _surveyed(settings, reading)
  summary, rows = survey.summary, sum(survey.kinds.values())
  lost = audit.unreadable(summary, rows)
  if lost and output and UNREADABLE not in settings.drop:
    raise DataError(lost[0].message, where=", ".join(lost[0].rows), hint=f"fix them, or add --drop {UNREADABLE}")
  if summary.winner_values:
    log(said(summary.winner_values))
  unread = audit.unread(summary)
  findings = [*lost, *unread, *survey.close()]
  if unread:
    advice = "read the other columns first (unread_columns): rows that differ there are not duplicates"
    findings = [replace(one, advice=advice) if one.check == "duplicate" else one for one in findings]
  if found:
    of = {"check": UNREADABLE, "severity": "error"}
    places = [of | {"row": row, "message": reason} for row, reason in summary.unreadable]
    places += [{"check": one.check, "severity": one.severity, "row": None, "message": one.message} for one in unread]
    write_whole(found, map(to_json, chain(places, survey.places())))
  how = output, held_out, survey, settings, reading, columns
  moved, apart = _write_rows(*how) if output else (None, 0)
  dropped = Counter({UNREADABLE: lost[0].count} if lost and UNREADABLE in settings.drop else {}) + survey.rows_dropped
  severities = Counter(finding.severity for finding in findings if finding.check not in settings.drop)
  result = Checked(
    rows=rows + sum(summary.set_aside.values()),
    kept=rows - sum(survey.rows_dropped.values()),
    kinds=survey.kinds,
    **survey.counts,
    prompts=len(survey.prompts),
    held_out=apart if held_out else None,
    equal_scores=survey.equal_scores,
    ratings=survey.ratings or None,
    set_aside={reason: n for reason, n in summary.set_aside.items() if reason not in dropped},
    **{name: getattr(summary, name) for name in SAID},
    metadata_moved=moved,
    findings=findings,
    dropped=sum(dropped.values()),
    dropped_rows=dropped,
    dropped_completions=survey.completions_dropped,
    output=str(output) if output else None,
    errors=severities["error"],
    warnings=severities["warning"],
  )
  return result, summary.set_aside


def _surveyed(settings: CheckSettings, reading: Reading) -> tuple[Survey, dict[str, None]]:
  held_out: frozenset[bytes] = frozenset()
  for _, records in slices(settings.eval_dataset_name or (), replace(reading, leave_out_unreadable=False)):
    held_out |= audit.prompt_digests(records.rows)
  more = _render_checks(settings) if settings.model_name_or_path else lambda kind: []
  survey = Survey(held_out, rendered=settings.rendered, more=more)
  columns: dict[str, None] = {}
  for raw, records in slices(settings.sources, reading):
    if settings.rendered:
      check_verbatim(records)
    survey.add(records)
    columns |= dict.fromkeys(name for row in raw.rows for name in row)
  return survey, columns


def _write_rows(
  output: Path,
  held_out: Path | None,
  survey: Survey,
  settings: CheckSettings,
  reading: Reading,
  columns: dict[str, None],
) -> tuple[dict[str, int] | None, int]:
  """(moved metadata, the rows in held_out)."""
  moved: Counter[str] = Counter()
  aside: list[Row] = []
  original = settings.layout == "original"
  made = kept_rows if original else lambda raw, records, left: map(to_row, left.values())

  def kept() -> Iterator[Row]:
    for raw, records in slices(settings.sources, reading):
      left, gone = survey.left(records, settings.drop), {}
      for place, row in left.items() if held_out else ():
        gone |= {place: row} if split_by_prompt([row], settings.val_set_size, SEED)[1] else {}
      aside.extend(made(raw, records, gone))
      yield from made(raw, records, {place: row for place, row in left.items() if place not in gone})

  for path, rows in ((output, kept()), *([(held_out, aside)] * bool(held_out))):
    write_whole(path, lines(rows, columns, path) if original else map(to_json, counted(rows, moved)))
  return tell_moved(moved), len(aside)


def _render_checks(settings: CheckSettings) -> Callable[[type], list[Check]]:
  from .checkpoints import read_chat_template, read_tokenizer
  from .rendering import Renderer
  from .step_rendering import StepRenderer, default_separator
  from .tokenizer_setup import prepare_tokenizer

  tokenizer = read_tokenizer(settings.model_name_or_path)
  for note in prepare_tokenizer(tokenizer, read_chat_template(settings.chat_template_path)):
    log(note)
  how = {"max_length": None, "text_format": settings.text_format or "chat"}
  render = Renderer(tokenizer, **how).render_all

  def checks(kind: type) -> list[Check]:
    steps = kind is Solution and settings.max_length
    separator = default_separator(tokenizer)
    render_steps = StepRenderer(tokenizer, step_separator=separator, **how).render_all if steps else None
    return rendered_checks(render, render_steps, settings.max_length)

  return checks


def _report(result: Checked, set_aside: dict[str, int]) -> None:
  log(f"{sum(result.kinds.values())} rows of format {result.format}: {listed(result.kinds)}")
  for reason, count in set_aside.items():
    log(f"{count} more rows are set aside: {reason}")
  if result.metadata_columns:
    log(f"kept as metadata: {', '.join(result.metadata_columns)}")
  audit.show(result.findings)
  if result.dropped_rows:
    log(f"dropped rows: {listed(result.dropped_rows)}")
  if result.dropped_completions:
    log(f"dropped completions of rankings that stay: {listed(result.dropped_completions)}")
  if result.held_out in (0, result.kept):
    which = "--output" if result.held_out else "--held_out"
    warn(f"{which} has no rows: change --val_set_size, or give more prompts ({result.prompts} here)")
  if result.output:
    apart = f", and {result.held_out} of other prompts to --held_out" if result.held_out else ""
    log(f"wrote {result.kept - (result.held_out or 0)} rows to {result.output}{apart}")


def _entry(kind: type[_Entry], one: object, *about: str) -> _Entry:
  return kind(*about, *(getattr(one, field.name) for field in fields(kind)[len(about) :]))


def list_formats(names: Sequence[str]) -> FormatList:
  if not names:
    log("\n".join(f"{one.name}: {short(one.description, 90)}" for one in FORMATS.values()))
    log("--list_formats NAME shows the columns and a row")
    return FormatList([FormatEntry(one.name, one.description) for one in FORMATS.values()])
  entries = [_entry(FormatEntry, named(name)) for name in names]
  log("\n".join(f"{one.name}: {one.description}\n  {to_json(one.example)}" for one in entries))
  return FormatList(entries)


def list_checks() -> CheckList:
  tables = {
    "comparisons": CHECKS,
    "rated answers": RATED_CHECKS,
    "solutions in steps": STEP_CHECKS,
    "rows without labels": UNLABELED_CHECKS,
    "what a model reads (--model_name_or_path)": RENDERED_CHECKS,
  }
  entries = [_entry(CheckEntry, check, about) for about, checks in tables.items() for check in checks.values()]
  table("checks", [field.name for field in fields(CheckEntry)], [list(vars(entry).values()) for entry in entries])
  return CheckList(entries)
