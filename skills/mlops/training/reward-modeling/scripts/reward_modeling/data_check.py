"""check_data.py: what data is, what is wrong with it, and the rows that are left, a slice at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar

from .cli import flag
from .console import (
    DataError,
    Result,
    UsageError,
    check_output_file,
    emit,
    listed,
    log,
    table,
    to_json,
    write_whole,
)
from .data.audit import (
    CHECKS,
    STEP_CHECKS,
    UNLABELED_CHECKS,
    UNREADABLE,
    AuditFinding,
    Check,
    Finding,
    prompt_digests,
    show,
    unreadable,
)
from .data.audit.parts import Survey
from .data.audit.rendered import OVER_LENGTH, REFUSED, RENDERED_CHECKS, rendered_checks
from .data.converting import Reading
from .data.formats import ANYTHING, FORMATS
from .data.original import kept_rows, lines
from .data.reading import check_verbatim, slices
from .data.records import Solution
from .data.winners import said
from .data.writing import counted, tell_moved, to_row
from .settings import ReadingSettings, TextSettings, WinnerSettings, neutral_flag, split_flag

DROPPABLE = (
    *(UNREADABLE, REFUSED, OVER_LENGTH),
    *(name for name, check in (CHECKS | STEP_CHECKS).items() if check.about_rows),
)
"""Findings whose rows --drop leaves out."""


@dataclass(frozen=True, kw_only=True)
class CheckSettings(ReadingSettings, WinnerSettings, TextSettings):
    """What to check, for which model, and what to write. Raises UsageError for settings that do nothing together."""

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
        "also find rows that the chat template of this model refuses (reads its tokenizer alone)",
        group="data",
        metavar="MODEL",
    )
    chat_template_path: str | None = flag(
        None, "a .jinja file, or a model whose chat template to use instead", group="data", metavar="PATH"
    )
    max_length: int | None = flag(
        None,
        "also find rows with more tokens than this, counted by the tokenizer and chat template of --model_name_or_path",
        group="data",
    )
    output: str | None = flag(None, "write the rows as canonical JSON Lines", metavar="FILE")
    layout: str = flag(
        "canonical",
        "of --output; original: the rows as they were read, with their own columns, as CSV where FILE ends in .csv or .tsv",
        choices=("canonical", "original"),
    )
    findings: str | None = flag(None, "write every finding with each of its rows as JSON Lines", metavar="FILE")
    overwrite: bool = flag(False, "replace --output and --findings if they exist")
    drop: Sequence[str] = flag(
        (),
        "leave out of --output what these findings are about, whole rows or single completions of a ranking: "
        f"{', '.join(DROPPABLE)}",
        choices=DROPPABLE,
        metavar="CHECK",
    )
    strict: bool = flag(False, "exit with 3 on warnings too")
    list_formats: bool = flag(False, "show every format and a row of each, then stop")
    list_checks: bool = flag(False, "show every check, why it matters and what to do, then stop")

    def __post_init__(self) -> None:
        if self.list_formats or self.list_checks:
            return
        model, output, clean = self.model_name_or_path, self.output, "add --output clean.jsonl"
        for wrong, message, hint in (
            (not self.sources, "no dataset was named", "check_data.py FILE, or check_data.py --list_formats"),
            (self.drop and not output, "--drop leaves rows out of --output, which is not given", clean),
            (
                self.layout == "original" and not output,
                "--layout says how --output is written, which is not given",
                clean,
            ),
            (
                self.chat_template_path and not model,
                "--chat_template_path needs --model_name_or_path, whose tokenizer it is for",
                None,
            ),
            (
                REFUSED in self.drop and not model,
                "--drop refused needs --model_name_or_path, whose chat template refuses rows",
                None,
            ),
            (
                self.max_length and not model,
                "--max_length needs --model_name_or_path, whose tokenizer counts the tokens",
                None,
            ),
            (
                OVER_LENGTH in self.drop and not self.max_length,
                "--drop over_length needs --max_length and --model_name_or_path",
                None,
            ),
        ):
            if wrong:
                raise UsageError(message, hint=hint)

    @property
    def sources(self) -> list[str]:
        return [*self.data, *(self.dataset_name or ())]


@dataclass(frozen=True, kw_only=True)
class Checked(Result):
    format: str
    files: list[str]
    rows: int
    kept: int
    """Rows that are left after --drop."""
    kinds: dict[str, int]
    comparisons: int | None = None
    prompts: int | None = None
    completions: int | None = None
    solutions: int | None = None
    steps: int | None = None
    labelled_steps: int | None = None
    incorrect_steps: int | None = None
    equal_scores: int
    """Pairs of completions whose scores are equal, from which no comparison is made."""
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
    """Findings of this severity that are left after --drop."""
    warnings: int


@dataclass(frozen=True)
class FormatEntry:
    name: str
    description: str
    needs: list[str]
    optional: list[str]
    example: dict[str, object]


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
    """Check the data and write --output and --findings; the result that check_data.py prints.

    Raises DataError where the data cannot be read, and, after printing the result, where findings are left that stop training.
    """
    return told_result(*checked(settings))


def checked(settings: CheckSettings) -> tuple[Checked, list[Finding]]:
    """The result, and the findings that stop training, after --drop. Writes --output."""
    inputs = [*settings.sources, *(settings.eval_dataset_name or ())]
    output, found = (
        check_output_file(path, settings.overwrite, inputs) if path else None
        for path in (settings.output, settings.findings)
    )
    reading = Reading(
        split=settings.dataset_split,
        neutral=settings.neutral,
        winner_values=settings.winner_values,
        tiers=ANYTHING,
        leave_out_unreadable=True,
        **settings.reading,
    )
    survey, columns = surveyed(settings, reading)
    summary, rows = survey.summary, sum(survey.kinds.values())
    lost = unreadable(summary, rows)
    if lost and output and UNREADABLE not in settings.drop:
        raise DataError(lost[0].message, where=", ".join(lost[0].rows), hint=f"fix them, or add --drop {UNREADABLE}")
    if summary.winner_values:
        log(said(summary.winner_values))
    findings = [*lost, *survey.close()]
    left = [finding for finding in findings if finding.check not in settings.drop]
    if found:
        write_whole(found, map(to_json, places(lost, survey)))
    moved = write_rows(output, survey, settings, reading, columns) if output else None
    dropped_rows = survey.rows_dropped
    if lost and UNREADABLE in settings.drop:
        dropped_rows = Counter({UNREADABLE: lost[0].count}) + dropped_rows
    kept = rows - sum(survey.rows_dropped.values())
    report(survey, findings, (dropped_rows, survey.completions_dropped), kept, output)
    result = Checked(
        format=summary.format,
        files=summary.files,
        rows=rows + sum(summary.set_aside.values()),
        kept=kept,
        kinds=survey.kinds,
        **{name: count for part in survey.parts.values() for name, count in part.counts.items()},
        equal_scores=survey.equal_scores,
        set_aside={reason: n for reason, n in summary.set_aside.items() if reason not in dropped_rows},
        winner_values=summary.winner_values,
        columns_used=summary.columns_used,
        metadata_columns=summary.metadata_columns,
        metadata_moved=moved,
        findings=findings,
        dropped=sum(dropped_rows.values()),
        dropped_rows=dropped_rows,
        dropped_completions=survey.completions_dropped,
        output=str(output) if output else None,
        errors=sum(finding.severity == "error" for finding in left),
        warnings=sum(finding.severity == "warning" for finding in left),
    )
    return result, [finding for finding in left if finding.severity in ("error", *["warning"] * settings.strict)]


def surveyed(settings: CheckSettings, reading: Reading) -> tuple[Survey, dict[str, None]]:
    """(what a pass over all rows finds, the columns that they have)."""
    held_out: frozenset[bytes] = frozenset()
    for _, records in slices(settings.eval_dataset_name or (), replace(reading, leave_out_unreadable=False)):
        held_out |= prompt_digests(records.rows)
    more = render_checks(settings) if settings.model_name_or_path else lambda kind: []
    survey = Survey(held_out, rendered=settings.rendered, more=more)
    columns: dict[str, None] = {}
    for raw, records in slices(settings.sources, reading):
        if settings.rendered:
            check_verbatim(records)
        survey.add(records)
        columns |= dict.fromkeys(name for row in raw.rows for name in row)
    return survey, columns


def write_rows(
    output: Path, survey: Survey, settings: CheckSettings, reading: Reading, columns: dict[str, None]
) -> dict[str, int] | None:
    """Write the rows that are left after --drop, in a second pass. Returns what `tell_moved` tells."""
    kept = ((raw, records, survey.left(records, settings.drop)) for raw, records in slices(settings.sources, reading))
    if settings.layout == "original":
        rows = (row for raw, records, left in kept for row in kept_rows(raw, records, left))
        write_whole(output, lines(rows, columns, output))
        return None
    moved: Counter[str] = Counter()
    rows = (to_row(row) for _, _, left in kept for row in left.values())
    write_whole(output, map(to_json, counted(rows, moved)))
    return tell_moved(moved)


def render_checks(settings: CheckSettings) -> Callable[[type], list[Check]]:
    """Checks by rendering as training and scoring with the model of --model_name_or_path would. Reads its tokenizer alone."""
    from .checkpoints import read_chat_template, read_tokenizer
    from .rendering import Renderer
    from .step_rendering import STEP_SEPARATOR, StepRenderer
    from .tokenizer_setup import prepare_tokenizer

    tokenizer = read_tokenizer(settings.model_name_or_path)
    for note in prepare_tokenizer(tokenizer, read_chat_template(settings.chat_template_path)):
        log(note)
    how = {"max_length": None, "text_format": settings.text_format or "chat"}
    render = Renderer(tokenizer, **how).render_all
    separator = STEP_SEPARATOR if tokenizer(STEP_SEPARATOR, add_special_tokens=False).input_ids else tokenizer.sep_token

    def checks(kind: type) -> list[Check]:
        steps = kind is Solution and settings.max_length
        render_steps = StepRenderer(tokenizer, step_separator=separator, **how).render_all if steps else None
        return rendered_checks(kind, render, render_steps, settings.max_length)

    return checks


def places(lost: list[Finding], survey: Survey) -> Iterator[dict]:
    """Every finding with each row it is about."""
    for row, reason in survey.summary.unreadable:
        yield {"check": lost[0].check, "severity": lost[0].severity, "row": row, "message": reason}
    for part in survey.parts.values():
        yield from part.places()


def report(
    survey: Survey, findings: list[Finding], lost: tuple[Counter[str], Counter[str]], kept: int, output: Path | None
) -> None:
    summary = survey.summary
    log(f"{sum(survey.kinds.values())} rows of format {summary.format}: {listed(survey.kinds)}")
    for reason, count in summary.set_aside.items():
        log(f"{count} more rows are set aside: {reason}")
    if summary.metadata_columns:
        log(f"kept as metadata: {', '.join(summary.metadata_columns)}")
    show(findings)
    for what, counts in zip(("rows", "completions of rankings that stay"), lost, strict=True):
        if counts:
            log(f"dropped {what}: {listed(counts)}")
    if output:
        log(f"wrote {kept} rows to {output}")


def told_result(result: Checked, bad: list[Finding]) -> Checked:
    """The result, or, when findings are left that stop training, the result on stdout and then the lines that say so."""
    if not bad:
        return result
    emit(result)
    checks = " ".join(dict.fromkeys(finding.check for finding in bad))
    raise DataError(
        f"{len(bad)} of the findings stop training; the first: {bad[0].message}",
        where=", ".join(bad[0].rows),
        hint=f"leave the rows out with --drop {checks} --output clean.jsonl, or fix them",
    )


def list_formats() -> FormatList:
    names = [field.name for field in fields(FormatEntry)]
    entries = [FormatEntry(*(getattr(entry, name) for name in names)) for entry in FORMATS.values()]
    rows = [[entry.name, ", ".join(entry.needs), entry.description] for entry in entries]
    table("formats", ["name", "columns", "description"], rows)
    return FormatList(entries)


def list_checks() -> CheckList:
    names = ("name", "severity", "why", "advice")
    tables = {"comparisons": CHECKS, "solutions in steps": STEP_CHECKS, "rows without labels": UNLABELED_CHECKS}
    tables["what a model reads (--model_name_or_path)"] = RENDERED_CHECKS
    entries = [
        CheckEntry(about, *(getattr(check, name) for name in names))
        for about, checks in tables.items()
        for check in checks.values()
    ]
    table("checks", ["about", *names], [list(vars(entry).values()) for entry in entries])
    return CheckList(entries)
