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
from collections.abc import Callable, Iterator
from dataclasses import replace

from reward_modeling import arguments as flags
from reward_modeling.console import (
    DataError,
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
    Check,
    Finding,
    prompt_digests,
    show,
    unreadable,
)
from reward_modeling.data.audit.parts import Survey
from reward_modeling.data.audit.rendered import OVER_LENGTH, REFUSED, RENDERED_CHECKS, rendered_checks
from reward_modeling.data.converting import Reading
from reward_modeling.data.formats import ANYTHING, FORMATS
from reward_modeling.data.original import kept_rows, lines
from reward_modeling.data.reading import check_verbatim, slices
from reward_modeling.data.records import Solution
from reward_modeling.data.winners import said
from reward_modeling.data.writing import counted, tell_moved, to_row


def parser() -> flags.Parser:
    parser = flags.Parser(__doc__, prog="check_data.py")
    parser.add_argument("data", nargs="*", metavar="DATA", help="the same as --dataset_name")
    data = flags.add_dataset_arguments(parser, stepwise=True)
    data.add_argument(
        "--eval_dataset_name", nargs="+", metavar="DATA", help="evaluation data, whose prompts must not occur in DATA"
    )
    flags.add_text_format_argument(data)
    data.add_argument(
        "--model_name_or_path",
        metavar="MODEL",
        help="also find rows that the chat template of this model refuses (reads its tokenizer alone)",
    )
    data.add_argument(
        "--chat_template_path", metavar="PATH", help="a .jinja file, or a model whose chat template to use instead"
    )
    data.add_argument(
        "--max_length",
        type=flags.positive_int,
        metavar="N",
        help="also find rows with more tokens than this, counted by the tokenizer and chat template of --model_name_or_path",
    )
    group = parser.add_argument_group("result")
    group.add_argument("--output", metavar="FILE", help="write the rows as canonical JSON Lines")
    group.add_argument(
        "--layout",
        choices=("canonical", "original"),
        default="canonical",
        help="of --output; original: the rows as they were read, with their own columns, as CSV where FILE ends in .csv or .tsv",
    )
    group.add_argument("--findings", metavar="FILE", help="write every finding with each of its rows as JSON Lines")
    flags.add_flag(group, "--overwrite", "replace --output and --findings if they exist")
    checks = CHECKS | STEP_CHECKS
    droppable = [
        UNREADABLE,
        REFUSED,
        OVER_LENGTH,
        *(name for name, check in checks.items() if check.about_rows),
    ]
    group.add_argument(
        "--drop",
        nargs="+",
        default=[],
        choices=droppable,
        metavar="CHECK",
        help="leave out of --output what these findings are about, whole rows or single completions of a ranking: "
        f"{', '.join(droppable)}",
    )
    flags.add_flag(group, "--strict", "exit with 3 on warnings too")
    flags.add_flag(group, "--list_formats", "show every format and a row of each, then stop")
    flags.add_flag(group, "--list_checks", "show every check, why it matters and what to do, then stop")
    return parser


def main(argv: list[str] | None = None) -> dict | None:
    args = flags.parse(parser(), argv)
    if args.list_formats or args.list_checks:
        return list_formats() if args.list_formats else list_checks()
    try:
        result, bad = checked(args)
    except DataError as error:
        emit({"error": {"message": error.message, "where": error.where, "hint": error.hint}})
        raise
    return finish(result, bad)


def checked(args) -> tuple[dict, list[Finding]]:
    """The result, and the findings that stop training, after --drop. Writes --output."""
    sources = args.data + (args.dataset_name or [])
    if not sources:
        raise UsageError("no dataset was named", hint="check_data.py FILE, or check_data.py --list_formats")
    if args.drop and not args.output:
        raise UsageError("--drop leaves rows out of --output, which is not given", hint="add --output clean.jsonl")
    if args.chat_template_path and not args.model_name_or_path:
        raise UsageError("--chat_template_path needs --model_name_or_path, whose tokenizer it is for")
    if REFUSED in args.drop and not args.model_name_or_path:
        raise UsageError("--drop refused needs --model_name_or_path, whose chat template refuses rows")
    if args.max_length and not args.model_name_or_path:
        raise UsageError("--max_length needs --model_name_or_path, whose tokenizer counts the tokens")
    if OVER_LENGTH in args.drop and not args.max_length:
        raise UsageError("--drop over_length needs --max_length and --model_name_or_path")
    if args.layout == "original" and not args.output:
        raise UsageError("--layout says how --output is written, which is not given", hint="add --output clean.jsonl")
    inputs = [*sources, *(args.eval_dataset_name or ())]
    output, found = (
        check_output_file(path, args.overwrite, inputs) if path else None for path in (args.output, args.findings)
    )
    reading = Reading(
        split=args.dataset_split,
        config=args.dataset_config,
        format=args.format,
        columns=args.columns,
        neutral=args.neutral,
        winner_values=args.winner_values,
        tiers=ANYTHING,
        leave_out_unreadable=True,
    )
    rendered = args.text_format == "rendered"
    held_out: frozenset[bytes] = frozenset()
    for _, records in slices(args.eval_dataset_name or (), replace(reading, leave_out_unreadable=False)):
        held_out |= prompt_digests(records.rows)
    survey = Survey(
        held_out, rendered=rendered, more=render_checks(args) if args.model_name_or_path else lambda kind: []
    )
    columns: dict[str, None] = {}
    for raw, records in slices(sources, reading):
        if rendered:
            check_verbatim(records)
        survey.add(records)
        columns |= dict.fromkeys(name for row in raw.rows for name in row)
    summary = survey.summary
    lost = unreadable(summary, sum(survey.kinds.values()))
    if lost and output and UNREADABLE not in args.drop:
        raise DataError(lost[0].message, where=", ".join(lost[0].rows), hint=f"fix them, or add --drop {UNREADABLE}")
    if summary.winner_values:
        log(said(summary.winner_values))
    findings = [*lost, *survey.close()]
    left = [finding for finding in findings if finding.check not in args.drop]
    moved: Counter[str] = Counter()
    if found:
        write_whole(found, map(to_json, places(lost, survey)))
    if output and args.layout == "original":
        write_whole(output, lines(kept_originals(survey, sources, reading, args.drop), columns, output))
    elif output:
        kept_records = (
            row for _, records in slices(sources, reading) for row in survey.left(records, args.drop).values()
        )
        write_whole(output, map(to_json, counted(map(to_row, kept_records), moved)))
    dropped_rows = survey.rows_dropped
    if lost and UNREADABLE in args.drop:
        dropped_rows = Counter({UNREADABLE: lost[0].count}) + dropped_rows
    rows = sum(survey.kinds.values())
    kept = rows - sum(survey.rows_dropped.values())
    report(survey, findings, (dropped_rows, survey.completions_dropped), kept, output)
    result = {
        "format": summary.format,
        "files": summary.files,
        "rows": rows + sum(summary.set_aside.values()),
        "kept": kept,
        "kinds": dict(survey.kinds),
        **{name: count for part in survey.parts.values() for name, count in part.counts.items()},
        "equal_scores": survey.equal_scores,
        "set_aside": {reason: n for reason, n in summary.set_aside.items() if reason not in dropped_rows},
        "winner_values": summary.winner_values,
        "columns_used": summary.columns_used,
        "metadata_columns": summary.metadata_columns,
        **tell_moved(moved),
        "findings": [finding.to_dict() for finding in findings],
        "dropped": sum(dropped_rows.values()),
        "dropped_rows": dict(dropped_rows),
        "dropped_completions": dict(survey.completions_dropped),
        "output": str(output) if output else None,
        "errors": sum(finding.severity == "error" for finding in left),
        "warnings": sum(finding.severity == "warning" for finding in left),
    }
    return result, [finding for finding in left if finding.severity in ("error", *["warning"] * args.strict)]


def kept_originals(survey: Survey, sources: list[str], reading: Reading, checks: list[str]) -> Iterator[dict]:
    for raw, records in slices(sources, reading):
        yield from kept_rows(raw, records, survey.left(records, checks))


def render_checks(args) -> Callable[[type], list[Check]]:
    """Checks by rendering as training and scoring with the model of --model_name_or_path would. Reads its tokenizer alone."""
    from reward_modeling.checkpoints import read_chat_template, read_tokenizer
    from reward_modeling.rendering import Renderer
    from reward_modeling.step_rendering import STEP_SEPARATOR, StepRenderer
    from reward_modeling.tokenizer_setup import prepare_tokenizer

    tokenizer = read_tokenizer(args.model_name_or_path)
    for note in prepare_tokenizer(tokenizer, read_chat_template(args.chat_template_path)):
        log(note)
    how = {"max_length": None, "text_format": args.text_format or "chat"}
    render = Renderer(tokenizer, **how).render_all
    separator = STEP_SEPARATOR if tokenizer(STEP_SEPARATOR, add_special_tokens=False).input_ids else tokenizer.sep_token

    def checks(kind: type) -> list[Check]:
        steps = kind is Solution and args.max_length
        render_steps = StepRenderer(tokenizer, step_separator=separator, **how).render_all if steps else None
        return rendered_checks(kind, render, render_steps, args.max_length)

    return checks


def places(lost: list[Finding], survey: Survey) -> Iterator[dict]:
    """Every finding with each row it is about."""
    for row, reason in survey.summary.unreadable:
        yield {"check": lost[0].check, "severity": lost[0].severity, "row": row, "message": reason}
    for part in survey.parts.values():
        yield from part.places()


def report(survey: Survey, findings: list[Finding], lost: tuple, kept: int, output) -> None:
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


def finish(result: dict, bad: list[Finding]) -> dict | None:
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


def list_formats() -> dict:
    entries = [
        {
            "name": entry.name,
            "description": entry.description,
            "needs": entry.needs,
            "optional": entry.optional,
            "example": entry.example,
        }
        for entry in FORMATS.values()
    ]
    table(
        "formats",
        ["name", "columns", "description"],
        [[e["name"], ", ".join(e["needs"]), e["description"]] for e in entries],
    )
    return {"formats": entries}


def list_checks() -> dict:
    names = ("name", "severity", "why", "advice")
    tables = {"comparisons": CHECKS, "solutions in steps": STEP_CHECKS, "rows without labels": UNLABELED_CHECKS}
    tables["what a model reads (--model_name_or_path)"] = RENDERED_CHECKS
    entries = [
        {"about": about, **{name: getattr(check, name) for name in names}}
        for about, checks in tables.items()
        for check in checks.values()
    ]
    table("checks", ["about", *names], [list(entry.values()) for entry in entries])
    return {"checks": entries}


if __name__ == "__main__":
    main_guard(main)
