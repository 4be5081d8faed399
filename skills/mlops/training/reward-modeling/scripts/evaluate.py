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
#     "matplotlib>=3.10,<4",
# ]
# ///
"""Evaluate a reward model: on labelled comparisons, on labelled steps, or by the answers it would choose.

    uv run scripts/evaluate.py --model_name_or_path runs/mine --dataset_name held_out.jsonl
    uv run scripts/evaluate.py --model_name_or_path runs/mine --dataset_name held_out.jsonl --compare runs/other --output pairs.jsonl
    uv run scripts/evaluate.py --model_name_or_path runs/prm --dataset_name steps.jsonl --subset_column subject
    uv run scripts/evaluate.py --model_name_or_path runs/mine --dataset_name pools.jsonl --best_of_n 1 4 16
    uv run scripts/evaluate.py --overoptimization points.jsonl --picture curves.svg

Reads   comparisons and rankings, solutions with step labels for a process reward model, or with --best_of_n completions of
        known correctness, in any format of references/data.md
Writes  a report on stderr, one JSON object on stdout, a row with its rewards for each row of the data to --output
A pair counts 1 when the chosen answer scores higher, 1/2 for a tie. references/evaluation.md says how to read the numbers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reward_modeling import arguments as flags
from reward_modeling.console import DataError, UsageError, check_output_file, log, main_guard, to_json, write_whole
from reward_modeling.data.writing import counted, tell_moved, with_metadata

if TYPE_CHECKING:
    from reward_modeling.data.records import Records
    from reward_modeling.evaluation.results import Output, OverOptimizationReport, PairReport, PoolReport, StepReport


def parser() -> flags.Parser:
    parser = flags.Parser(__doc__, prog="evaluate.py")
    flags.add_scoring_arguments(parser)
    flags.add_process_arguments(parser)
    data = flags.add_dataset_arguments(parser, split_default="test", stepwise=True)
    data.add_argument(
        "--subset_column",
        metavar="COLUMN",
        help="metadata column that names the subsets (subset, category, domain, source, tranche or task; subject)",
    )
    group = parser.add_argument_group("evaluation")
    group.add_argument(
        "--compare", metavar="MODEL", help="a second reward model, evaluated on the same pairs, with a paired test"
    )
    group.add_argument("--output", metavar="FILE", help="JSONL file with the rewards of every row")
    flags.add_flag(group, "--overwrite", "replace --output if it exists")
    steps = parser.add_argument_group("step labels")
    steps.add_argument(
        "--threshold",
        type=flags.fraction,
        metavar="P",
        help="a step is flagged as wrong under this score (chosen: each half of the prompts from the other half)",
    )
    steps.add_argument(
        "--threshold_data", nargs="+", metavar="DATA", help="other solutions with step labels, to choose it on"
    )
    pools = parser.add_argument_group("best of n")
    pools.add_argument(
        "--best_of_n",
        nargs="*",
        type=flags.positive_int,
        metavar="N",
        help="how often the best-scored of N completions is correct, for these N (1 4 16 64 100, up to the pool)",
    )
    pools.add_argument(
        "--answer_column", metavar="COLUMN", help="column with one final answer a completion, for the majority vote"
    )
    pools.add_argument(
        "--answer_pattern",
        metavar="REGEX",
        help=r"where a completion states its final answer, as group 1 (\boxed{}, ####, A:, the answer is)",
    )
    optimised = parser.add_argument_group("over-optimisation")
    optimised.add_argument(
        "--overoptimization",
        nargs="+",
        metavar="DATA",
        help="rows with `kl` (nats) or `n`, `proxy` and `gold`, and `run` where there are several: no model is run",
    )
    optimised.add_argument("--picture", metavar="FILE", help="SVG file for the curves")
    return parser


def main(argv: list[str] | None = None) -> Output:
    args = flags.parse(parser(), argv)
    if args.overoptimization:
        return evaluate_overoptimization(args)
    flags.check_required(args, ("model_name_or_path", "dataset_name"), "evaluate.py")
    check_together(args)
    read = [*args.dataset_name, *(args.threshold_data or ())]
    output = check_output_file(args.output, args.overwrite, read) if args.output else None
    from reward_modeling import checkpoints
    from reward_modeling.data.reading import load
    from reward_modeling.data.records import Solution

    if args.best_of_n is not None:
        report, rows = evaluate_pools(args)
    else:
        records = load(args.dataset_name, neutral=args.neutral, **reading(args))
        of_steps = checkpoints.kind_of(args.model_name_or_path) is checkpoints.PROCESS
        of_steps = of_steps and any(isinstance(row, Solution) for row in records.rows)
        report, rows = (evaluate_steps if of_steps else evaluate_pairs)(args, records)
    for sentence in report.diagnostics:
        log(f"- {sentence}")
    if output:
        moved: Counter[str] = Counter()
        write_whole(output, map(to_json, counted(rows, moved)))
        report = replace(report, metadata_moved=tell_moved(moved))
    return report


def common(args, records: Records, diagnostics: list[str]) -> dict[str, object]:
    """What every report says."""
    return {
        "model": args.model_name_or_path,
        "dataset": args.dataset_name,
        "format": records.format,
        "set_aside": records.set_aside,
        "diagnostics": diagnostics,
        "output": str(Path(args.output)) if args.output else None,
    }


def check_together(args) -> None:
    """Raises UsageError for flags that do nothing together."""
    if args.threshold is not None and args.threshold_data:
        raise UsageError(
            "--threshold gives the threshold that --threshold_data is there to choose", hint="give one of them"
        )
    for name in ("answer_column", "answer_pattern"):
        if getattr(args, name) and args.best_of_n is None:
            raise UsageError(f"--{name} does nothing without --best_of_n")
    if args.answer_column and args.answer_pattern:
        raise UsageError(
            "--answer_column and --answer_pattern both say where final answers are", hint="give one of them"
        )
    if args.best_of_n is not None and args.compare:
        raise UsageError("--compare evaluates two models on pairs", hint="run --best_of_n for each model")


def evaluate_overoptimization(args) -> OverOptimizationReport:
    """Proxy and gold against KL, with the curves of arXiv:2210.10760 fitted to them."""
    from reward_modeling.data.sources import read
    from reward_modeling.evaluation import overoptimization
    from reward_modeling.evaluation.plots import svg
    from reward_modeling.evaluation.results import OverOptimizationReport

    picture = check_output_file(args.picture, args.overwrite, args.overoptimization) if args.picture else None
    rows = [
        (f"{table.name}:{number}", row)
        for source in args.overoptimization
        for table in read(source, args.dataset_split, args.dataset_config)
        for number, row in zip(table.numbers, table.complete().rows, strict=True)
    ]
    studies = overoptimization.read_studies(rows)
    overoptimization.show_studies(studies)
    diagnostics = [overoptimization.diagnose_study(study) for study in studies]
    for sentence in diagnostics:
        log(f"- {sentence}")
    if picture:
        write_whole(picture, [svg(overoptimization.panels(studies))])
    return OverOptimizationReport(studies, diagnostics, str(picture) if picture else None)


def reading(args) -> dict:
    """How the flags want the data read, for `reading.load`."""
    return {
        "split": args.dataset_split,
        "config": args.dataset_config,
        "format": args.format,
        "columns": args.columns,
        "winner_values": args.winner_values,
    }


def evaluate_pairs(args, records: Records) -> tuple[PairReport, list[dict]]:
    """The report on labeled comparisons, and a row for each."""
    from reward_modeling import checkpoints, process
    from reward_modeling.data.records import comparisons
    from reward_modeling.evaluation import pairs as measure
    from reward_modeling.evaluation.results import ComparisonWith, PairReport

    if args.threshold is not None or args.threshold_data:
        raise UsageError(
            "a threshold is for step labels and a process reward model",
            hint="leave out --threshold and --threshold_data",
        )
    pairs = comparisons(records)
    if not pairs:
        raise DataError(
            "the data holds no comparison",
            where=", ".join(records.files),
            hint="rows need a preferred and a rejected answer, or scores that differ",
        )
    if args.compare:  # before the first model is run
        of_steps = checkpoints.kind_of(args.compare) is checkpoints.PROCESS
        checkpoints.check(args.compare, checkpoints.PROCESS if of_steps else checkpoints.OUTCOME)

    def evaluated(path: str) -> measure.PairEvaluation:
        return measure.evaluate_pairs(process.from_arguments(args, path), pairs, subset_column=args.subset_column)

    found, comparison = evaluated(args.model_name_or_path), None
    measure.show_pairs(found.summary, f"{args.model_name_or_path} on {len(pairs)} comparisons")
    if args.compare:
        paired = measure.compare_models(found, evaluated(args.compare))
        measure.show_comparison(paired, args.model_name_or_path, args.compare)
        comparison = ComparisonWith(**vars(paired), model=args.compare)
    said = common(args, records, measure.diagnose_pairs(found.summary))
    return PairReport(**said, **vars(found.summary), comparison=comparison), found.rows()


def evaluate_steps(args, records: Records) -> tuple[StepReport, list[dict]]:
    """The report on solutions with step labels, and a row for each."""
    from reward_modeling.data.reading import load
    from reward_modeling.data.records import solutions
    from reward_modeling.evaluation import steps as measure
    from reward_modeling.evaluation.results import StepReport
    from reward_modeling.process import ProcessRewardModel

    if args.compare:
        raise UsageError("--compare evaluates two models on pairs", hint="evaluate each on the steps by itself")
    labelled = solutions(records)
    others = None
    if args.threshold_data:
        others = solutions(load(args.threshold_data, neutral=args.neutral, **reading(args)))
    found = measure.evaluate_steps(
        ProcessRewardModel.from_arguments(args),
        labelled,
        threshold=args.threshold,
        threshold_data=others,
        subset_column=args.subset_column,
    )
    measure.show_steps(found.summary, args.model_name_or_path)
    said = common(args, records, measure.diagnose_steps(found.summary))
    return StepReport(**said, **vars(found.summary)), found.rows


def evaluate_pools(args) -> tuple[PoolReport, list[dict]]:
    """The report on completions of known correctness, and a row for each prompt."""
    from reward_modeling import process
    from reward_modeling.data.reading import load
    from reward_modeling.data.records import to_score
    from reward_modeling.evaluation import best_of_n
    from reward_modeling.evaluation.results import PoolReport
    from reward_modeling.evaluation.votes import find_answers

    records = to_score(load(args.dataset_name, **reading(args)))
    pools = records.rows
    sizes = best_of_n.check_pools(pools, args.best_of_n)
    answers = find_answers(pools, column=args.answer_column, pattern=args.answer_pattern)
    rewards = best_of_n.score_pools(process.from_arguments(args), pools)
    summary = best_of_n.summarize_pools(pools, rewards, sizes, answers)
    best_of_n.show_best_of_n(summary, args.model_name_or_path)
    rows = [
        with_metadata(
            {"id": pool.id, "origin": str(pool.origin), "correct": pool.scores, "rewards": row},
            {name: value for name, value in pool.metadata.items() if name != "correct"},  # as it was read: the scores
        )
        for pool, row in zip(pools, rewards, strict=True)
    ]
    return PoolReport(**common(args, records, best_of_n.diagnose_best_of_n(summary)), **vars(summary)), rows


if __name__ == "__main__":
    main_guard(main)
