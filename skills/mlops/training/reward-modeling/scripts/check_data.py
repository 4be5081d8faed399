# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "torch>=2.13,<2.16",
#     "transformers>=5.23,<5.24",
#     "trl>=1.16,<1.17",
#     "datasets>=5.2,<6",
#     "peft>=0.21,<0.22",
#     "accelerate>=1.15,<1.16",
#     "rich>=14,<16",
#     "pyyaml>=6,<7",
#     "scipy>=1.14,<2",
# ]
# ///
"""Say which format preference or stepwise data has, convert it, and list what is wrong with it.

    uv run scripts/check_data.py pairs.jsonl --output canonical.jsonl
    uv run scripts/check_data.py train.parquet --eval_dataset_name held_out.jsonl --drop identical duplicate --output clean.jsonl

Reads   JSONL, JSON, CSV (each also .gz), Parquet, folders, datasets saved to disk, hub ids
Writes  findings on stderr, one JSON object on stdout, canonical JSON Lines to --output
Exits   0 without error findings, 3 with them (the JSON is printed all the same)
"""

from __future__ import annotations

import json

from reward_modeling import arguments as flags
from reward_modeling.audit import CHECKS, STEP_CHECKS, UNREADABLE, Finding, audit, audit_steps, show, unreadable
from reward_modeling.console import DataError, UsageError, check_output_file, emit, log, main_guard, table, write_whole
from reward_modeling.formats import FORMATS
from reward_modeling.records import Comparison, Records, Solution, comparisons, equal_scores, load, solutions, to_row


def parser() -> flags.Parser:
    parser = flags.Parser(__doc__, prog="check_data.py")
    parser.add_argument("data", nargs="*", metavar="DATA", help="the same as --dataset_name")
    data = flags.add_dataset_arguments(parser, stepwise=True)
    data.add_argument(
        "--eval_dataset_name", nargs="+", metavar="DATA", help="evaluation data, whose prompts must not occur in DATA"
    )
    group = parser.add_argument_group("result")
    group.add_argument("--output", metavar="FILE", help="write the rows as canonical JSON Lines")
    flags.add_flag(group, "--overwrite", "replace --output if it exists")
    checks = CHECKS | STEP_CHECKS
    droppable = [UNREADABLE, *(name for name, check in checks.items() if check.about_rows and not check.needs_tokens)]
    group.add_argument(
        "--drop",
        nargs="+",
        default=[],
        choices=droppable,
        metavar="CHECK",
        help=f"leave the rows of these findings out of --output: {', '.join(droppable)}",
    )
    flags.add_flag(group, "--strict", "exit with 3 on warnings too")
    flags.add_flag(group, "--list_formats", "show every format and a row of each, then stop")
    flags.add_flag(group, "--list_checks", "show every check, why it matters and what to do, then stop")
    return parser


def main(argv: list[str] | None = None) -> dict | None:
    args = flags.parse(parser(), argv)
    if args.list_formats or args.list_checks:
        return list_formats() if args.list_formats else list_checks()
    sources = args.data + (args.dataset_name or [])
    if not sources:
        raise UsageError("no dataset was named", hint="check_data.py FILE, or check_data.py --list_formats")
    if args.drop and not args.output:
        raise UsageError("--drop leaves rows out of --output, which is not given", hint="add --output clean.jsonl")
    output = check_output_file(args.output, args.overwrite) if args.output else None
    reading = {"config": args.dataset_config, "format": args.format, "columns": args.columns, "neutral": args.neutral}
    records = load(sources, split=args.dataset_split, leave_out_unreadable=True, **reading)
    lost = unreadable(records)
    if lost and output and UNREADABLE not in args.drop:
        raise DataError(lost[0].message, where=", ".join(lost[0].rows), hint=f"mend them, or add --drop {UNREADABLE}")
    stepwise = all(isinstance(row, Solution) for row in records.rows)
    taken_apart, look = (solutions, audit_steps) if stepwise else (comparisons, audit)
    pairs, held_out = taken_apart(records), None
    if args.eval_dataset_name:
        held_out = taken_apart(load(args.eval_dataset_name, split=args.dataset_split, **reading))
    findings = [*lost, *look(pairs, eval_records=held_out)]
    dropped = [finding for finding in findings if finding.check in args.drop]
    rows = without(records, pairs, dropped)
    if output:
        write_whole(output, (json.dumps(to_row(row), ensure_ascii=False, default=str) for row in rows))
    left = [finding for finding in findings if finding not in dropped]
    report(records, pairs, findings, len(rows), output)
    result = {
        "format": records.format,
        "files": records.files,
        "rows": len(records.rows) + sum(records.set_aside.values()),
        **({"solutions": len(pairs), **steps_of(pairs)} if stepwise else {"comparisons": len(pairs)}),
        "equal_scores": equal_scores(records),
        "set_aside": records.set_aside,
        "columns_used": records.columns_used,
        "metadata_columns": records.metadata_columns,
        "findings": [finding.to_dict() for finding in findings],
        "dropped": len(records.rows) - len(rows) + (len(records.unreadable) if UNREADABLE in args.drop else 0),
        "output": str(output) if output else None,
        "errors": sum(finding.severity == "error" for finding in left),
        "warnings": sum(finding.severity == "warning" for finding in left),
    }
    return finish(result, [finding for finding in left if finding.severity in ("error", *["warning"] * args.strict)])


def steps_of(solutions: list[Solution]) -> dict[str, int]:
    """How many steps there are, how many of them are judged, and how many of these are incorrect."""
    judged = [label for one in solutions for label in one.labels if label is not None]
    return {
        "steps": sum(len(one.steps) for one in solutions),
        "labelled_steps": len(judged),
        "incorrect_steps": sum(label < 0.5 for label in judged),
    }


def without(records: Records, pairs: list[Comparison] | list[Solution], findings: list[Finding]) -> list:
    """The rows of the data from which none of the findings' pairs came."""
    gone = {pairs[index].origin for finding in findings for index in finding.indices}
    return [row for row in records.rows if row.origin not in gone]


def report(records: Records, pairs: list, findings: list[Finding], kept: int, output) -> None:
    made = "solutions" if pairs and isinstance(pairs[0], Solution) else "comparisons"
    log(f"{len(records.rows)} rows of format {records.format} make {len(pairs)} {made}")
    for reason, count in records.set_aside.items():
        log(f"{count} more rows are set aside: {reason}")
    if records.metadata_columns:
        log(f"kept as metadata: {', '.join(records.metadata_columns)}")
    show(findings)
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
        hint=f"leave the rows out with --drop {checks} --output clean.jsonl, or mend them",
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
    entries = [
        {"about": about, **{name: getattr(check, name) for name in names}}
        for about, checks in (("comparisons", CHECKS), ("solutions in steps", STEP_CHECKS))
        for check in checks.values()
    ]
    table("checks", ["about", *names], [list(entry.values()) for entry in entries])
    return {"checks": entries}


if __name__ == "__main__":
    main_guard(main)
