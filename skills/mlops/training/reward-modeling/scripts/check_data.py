# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "torch>=2.13,<2.16",
#     "transformers>=5.23,<5.25",
#     "trl>=1.16,<1.17",
#     "datasets>=5.2,<6",
#     "peft>=0.21,<0.22",
#     "accelerate>=1.15,<1.16",
#     "rich>=14,<16",
#     "pyyaml>=6,<7",
#     "scipy>=1.14,<2",
#     "pydantic>=2.10,<3",
# ]
# ///
"""Say which format data has and what its rows are, convert them, and list what is wrong with them.

    uv run scripts/check_data.py pairs.jsonl --output canonical.jsonl
    uv run scripts/check_data.py train.parquet --eval_dataset_name held_out.jsonl --drop identical duplicate --output clean.jsonl
    uv run scripts/check_data.py pairs.csv --model_name_or_path MODEL --max_length 1024 --drop over_length --layout original --output clean.csv

Reads   JSONL, JSON, CSV, TSV (each also .gz), Parquet, folders, datasets saved to disk, hub ids
Writes  findings on stderr, one JSON object on stdout, JSON Lines or the files' own layout to --output
Exits   0 without error findings, 3 with them (the JSON is printed all the same) or when the data cannot be read (the JSON
        is then {"error": {"message", "where", "hint"}})
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

from reward_modeling import cli
from reward_modeling.console import (
    DataError,
    Result,
    UsageError,
    check_output_file,
    emit,
    listed,
    log,
    main_guard,
    table,
    to_json,
    write_whole,
)
from reward_modeling.data.audit import (
    CHECKS,
    STEP_CHECKS,
    UNLABELED_CHECKS,
    UNREADABLE,
    AuditFinding,
    Finding,
    show,
    unreadable,
)
from reward_modeling.data.audit.parts import Part, dropped, kind_of, parts_of
from reward_modeling.data.audit.rendered import OVER_LENGTH, REFUSED, Render
from reward_modeling.data.formats import ANYTHING, FORMATS
from reward_modeling.data.original import kept_places, original_lines
from reward_modeling.data.reading import check_verbatim, load
from reward_modeling.data.records import Records, Solution, equal_scores
from reward_modeling.data.writing import counted, tell_moved, to_row
from reward_modeling.settings import ReadingSettings, TextSettings, neutral_flag, split_flag

DROPPABLE = (
    *(UNREADABLE, REFUSED, OVER_LENGTH),
    *(name for name, check in (CHECKS | STEP_CHECKS).items() if check.about_rows and not check.needs_tokens),
)
"""Findings whose rows --drop leaves out."""


@dataclass(frozen=True, kw_only=True)
class CheckSettings(ReadingSettings, TextSettings):
    """What to check, for which model, and what to write. Raises UsageError for settings that do nothing together."""

    group: ClassVar = "result"
    data: Sequence[str] = cli.flag(
        (), "the same as --dataset_name", group="positional arguments", name="data", nargs="*", metavar="DATA"
    )
    dataset_split: str | None = split_flag(None)
    neutral: str | None = neutral_flag()
    eval_dataset_name: Sequence[str] | None = cli.flag(
        None, "evaluation data, whose prompts must not occur in DATA", group="data", metavar="DATA"
    )
    model_name_or_path: str | None = cli.flag(
        None,
        "also find rows that the chat template of this model refuses (reads its tokenizer alone)",
        group="data",
        metavar="MODEL",
    )
    chat_template_path: str | None = cli.flag(
        None, "a .jinja file, or a model whose chat template to use instead", group="data", metavar="PATH"
    )
    max_length: int | None = cli.flag(
        None,
        "also find rows with more tokens than this, counted by the tokenizer and chat template of --model_name_or_path",
        group="data",
    )
    output: str | None = cli.flag(None, "write the rows as canonical JSON Lines", metavar="FILE")
    layout: str = cli.flag(
        "canonical",
        "of --output; original: the rows as they were read, with their own columns, as CSV where FILE ends in .csv or .tsv",
        choices=("canonical", "original"),
    )
    findings: str | None = cli.flag(None, "write every finding with each of its rows as JSON Lines", metavar="FILE")
    overwrite: bool = cli.flag(False, "replace --output and --findings if they exist")
    drop: Sequence[str] = cli.flag(
        (),
        "leave out of --output what these findings are about, whole rows or single completions of a ranking: "
        f"{', '.join(DROPPABLE)}",
        choices=DROPPABLE,
        metavar="CHECK",
    )
    strict: bool = cli.flag(False, "exit with 3 on warnings too")
    list_formats: bool = cli.flag(False, "show every format and a row of each, then stop")
    list_checks: bool = cli.flag(False, "show every check, why it matters and what to do, then stop")

    def __post_init__(self) -> None:
        if self.list_formats or self.list_checks:
            return
        if not self.sources:
            raise UsageError("no dataset was named", hint="check_data.py FILE, or check_data.py --list_formats")
        if self.drop and not self.output:
            raise UsageError("--drop leaves rows out of --output, which is not given", hint="add --output clean.jsonl")
        if self.chat_template_path and not self.model_name_or_path:
            raise UsageError("--chat_template_path needs --model_name_or_path, whose tokenizer it is for")
        if REFUSED in self.drop and not self.model_name_or_path:
            raise UsageError("--drop refused needs --model_name_or_path, whose chat template refuses rows")
        if self.max_length and not self.model_name_or_path:
            raise UsageError("--max_length needs --model_name_or_path, whose tokenizer counts the tokens")
        if OVER_LENGTH in self.drop and not self.max_length:
            raise UsageError("--drop over_length needs --max_length and --model_name_or_path")
        if self.layout == "original" and not self.output:
            raise UsageError(
                "--layout says how --output is written, which is not given", hint="add --output clean.jsonl"
            )

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
class ErrorText:
    message: str
    where: str | None
    hint: str | None


@dataclass(frozen=True)
class NotChecked(Result):
    error: ErrorText


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


Output = Checked | NotChecked | FormatList | CheckList


def parser() -> cli.Parser:
    return cli.Parser(__doc__, "check_data.py", CheckSettings)


def main(argv: list[str] | None = None) -> Output:
    settings = cli.settings(CheckSettings, parser().parse(argv))
    if settings.list_formats or settings.list_checks:
        return list_formats() if settings.list_formats else list_checks()
    try:
        result, bad = checked(settings)
    except DataError as error:
        emit(NotChecked(ErrorText(error.message, error.where, error.hint)))
        raise
    return finish(result, bad)


def checked(settings: CheckSettings) -> tuple[Checked, list[Finding]]:
    """The result, and the findings that stop training, after --drop. Writes --output."""
    sources = settings.sources
    inputs = [*sources, *(settings.eval_dataset_name or ())]
    output, found = (
        check_output_file(path, settings.overwrite, inputs) if path else None
        for path in (settings.output, settings.findings)
    )
    reading = {"split": settings.dataset_split, "tiers": ANYTHING, "winner_values": settings.winner_values}
    reading |= {"neutral": settings.neutral, **settings.reading}
    records = load(sources, leave_out_unreadable=True, **reading)
    if settings.rendered:
        check_verbatim(records)
    lost = unreadable(records)
    if lost and output and UNREADABLE not in settings.drop:
        raise DataError(lost[0].message, where=", ".join(lost[0].rows), hint=f"fix them, or add --drop {UNREADABLE}")
    held_out = load(settings.eval_dataset_name, **reading).rows if settings.eval_dataset_name else None
    if settings.model_name_or_path:
        render, render_steps = renderers(settings, any(isinstance(row, Solution) for row in records.rows))
    parts = parts_of(records)
    for part in parts:
        part.audit(held_out, settings.rendered)
        if settings.model_name_or_path:
            part.render(render, render_steps, settings.max_length)
    findings = [*lost, *(finding for part in parts for finding in part.findings)]
    left = [finding for finding in findings if finding.check not in settings.drop]
    kept, dropped_rows, dropped_completions = dropped(records, parts, settings.drop)
    moved: Counter[str] = Counter()
    if found:
        write_whole(found, map(to_json, places(records, lost, parts)))
    if output and settings.layout == "original":
        write_whole(output, original_lines(sources, reading, kept_places(records, kept), output))
    elif output:
        write_whole(output, map(to_json, counted(map(to_row, kept.values()), moved)))
    kinds = Counter(kind_of(row) for row in records.rows)
    report(records, kinds, findings, (dropped_rows, dropped_completions), len(kept), output)
    result = Checked(
        format=records.format,
        files=records.files,
        rows=len(records.rows) + sum(records.set_aside.values()),
        kept=len(kept),
        kinds=kinds,
        **{name: count for part in parts for name, count in part.counts().items()},
        equal_scores=equal_scores(records),
        set_aside={reason: n for reason, n in records.set_aside.items() if reason not in dropped_rows},
        winner_values=records.winner_values,
        columns_used=records.columns_used,
        metadata_columns=records.metadata_columns,
        metadata_moved=tell_moved(moved),
        findings=findings,
        dropped=sum(dropped_rows.values()),
        dropped_rows=dropped_rows,
        dropped_completions=dropped_completions,
        output=str(output) if output else None,
        errors=sum(finding.severity == "error" for finding in left),
        warnings=sum(finding.severity == "warning" for finding in left),
    )
    return result, [finding for finding in left if finding.severity in ("error", *["warning"] * settings.strict)]


def renderers(settings: CheckSettings, steps: bool) -> tuple[Render, Render | None]:
    """What renders as training and scoring with the model of --model_name_or_path would: conversations, and solutions in
    steps where there are any. Reads its tokenizer alone.
    """
    from reward_modeling.checkpoints import read_chat_template, read_tokenizer
    from reward_modeling.rendering import Renderer
    from reward_modeling.step_rendering import STEP_SEPARATOR, StepRenderer
    from reward_modeling.tokenizer_setup import prepare_tokenizer

    tokenizer = read_tokenizer(settings.model_name_or_path)
    for note in prepare_tokenizer(tokenizer, read_chat_template(settings.chat_template_path)):
        log(note)
    how = {"max_length": None, "text_format": settings.text_format or "chat"}
    render = Renderer(tokenizer, **how).render_all
    if not (steps and settings.max_length):
        return render, None
    separator = STEP_SEPARATOR if tokenizer(STEP_SEPARATOR, add_special_tokens=False).input_ids else tokenizer.sep_token
    return render, StepRenderer(tokenizer, step_separator=separator, **how).render_all


def places(records: Records, lost: list[Finding], parts: list[Part]) -> Iterator[dict]:
    """Every finding with each row it is about."""
    for row, reason in records.unreadable:
        yield {"check": lost[0].check, "severity": lost[0].severity, "row": row, "message": reason}
    for part in parts:
        yield from part.places()


def report(records: Records, kinds: Counter[str], findings: list[Finding], lost: tuple, kept: int, output) -> None:
    log(f"{len(records.rows)} rows of format {records.format}: {listed(kinds)}")
    for reason, count in records.set_aside.items():
        log(f"{count} more rows are set aside: {reason}")
    if records.metadata_columns:
        log(f"kept as metadata: {', '.join(records.metadata_columns)}")
    show(findings)
    for what, counts in zip(("rows", "completions of rankings that stay"), lost, strict=True):
        if counts:
            log(f"dropped {what}: {listed(counts)}")
    if output:
        log(f"wrote {kept} rows to {output}")


def finish(result: Checked, bad: list[Finding]) -> Checked:
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
    entries = [
        CheckEntry(about, *(getattr(check, name) for name in names))
        for about, checks in tables.items()
        for check in checks.values()
    ]
    table("checks", ["about", *names], [list(vars(entry).values()) for entry in entries])
    return CheckList(entries)


if __name__ == "__main__":
    main_guard(main)
