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

from reward_modeling import cli
from reward_modeling.console import DataError, UsageError, check_output_file, log, main_guard, to_json, write_whole
from reward_modeling.data.writing import counted, tell_moved, with_metadata
from reward_modeling.evaluation.settings import EvaluationSettings

if TYPE_CHECKING:
    from reward_modeling.data.records import Records
    from reward_modeling.evaluation.results import Output, OverOptimizationReport, PairReport, PoolReport, StepReport


def parser() -> cli.Parser:
    return cli.Parser(__doc__, "evaluate.py", EvaluationSettings)


def main(argv: list[str] | None = None) -> Output:
    settings = cli.settings(EvaluationSettings, parser().parse(argv))
    if settings.overoptimization:
        return evaluate_overoptimization(settings)
    read = [*settings.dataset_name, *(settings.threshold_data or ())]
    output = check_output_file(settings.output, settings.overwrite, read) if settings.output else None
    from reward_modeling import checkpoints
    from reward_modeling.data.reading import load
    from reward_modeling.data.records import Solution

    if settings.best_of_n is not None:
        report, rows = evaluate_pools(settings)
    else:
        records = load(settings.dataset_name, neutral=settings.neutral, **settings.all_reading)
        of_steps = checkpoints.kind_of(settings.model_name_or_path) is checkpoints.PROCESS
        of_steps = of_steps and any(isinstance(row, Solution) for row in records.rows)
        report, rows = (evaluate_steps if of_steps else evaluate_pairs)(settings, records)
    for sentence in report.diagnostics:
        log(f"- {sentence}")
    if output:
        moved: Counter[str] = Counter()
        write_whole(output, map(to_json, counted(rows, moved)))
        report = replace(report, metadata_moved=tell_moved(moved))
    return report


def common(settings: EvaluationSettings, records: Records, diagnostics: list[str]) -> dict[str, object]:
    """What every report says."""
    return {
        "model": settings.model_name_or_path,
        "dataset": settings.dataset_name,
        "format": records.format,
        "set_aside": records.set_aside,
        "diagnostics": diagnostics,
        "output": str(Path(settings.output)) if settings.output else None,
    }


def evaluate_overoptimization(settings: EvaluationSettings) -> OverOptimizationReport:
    """Proxy and gold against KL, with the curves of arXiv:2210.10760 fitted to them."""
    from reward_modeling.data.sources import read
    from reward_modeling.evaluation import overoptimization
    from reward_modeling.evaluation.plots import svg
    from reward_modeling.evaluation.results import OverOptimizationReport

    picture = (
        check_output_file(settings.picture, settings.overwrite, settings.overoptimization) if settings.picture else None
    )
    rows = [
        (f"{table.name}:{number}", row)
        for source in settings.overoptimization
        for table in read(source, settings.dataset_split, settings.dataset_config)
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


def evaluate_pairs(settings: EvaluationSettings, records: Records) -> tuple[PairReport, list[dict]]:
    """The report on labeled comparisons, and a row for each."""
    from reward_modeling import checkpoints, process
    from reward_modeling.data.records import comparisons
    from reward_modeling.evaluation import pairs as measure
    from reward_modeling.evaluation.results import ComparisonWith, PairReport

    if settings.threshold is not None or settings.threshold_data:
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
    if settings.compare:  # before the first model is run
        of_steps = checkpoints.kind_of(settings.compare) is checkpoints.PROCESS
        checkpoints.check(settings.compare, checkpoints.PROCESS if of_steps else checkpoints.OUTCOME)

    def evaluated(path: str) -> measure.PairEvaluation:
        return measure.evaluate_pairs(
            process.from_settings(settings, path), pairs, subset_column=settings.subset_column
        )

    found, comparison = evaluated(settings.model_name_or_path), None
    measure.show_pairs(found.summary, f"{settings.model_name_or_path} on {len(pairs)} comparisons")
    if settings.compare:
        paired = measure.compare_models(found, evaluated(settings.compare))
        measure.show_comparison(paired, settings.model_name_or_path, settings.compare)
        comparison = ComparisonWith(**vars(paired), model=settings.compare)
    said = common(settings, records, measure.diagnose_pairs(found.summary))
    return PairReport(**said, **vars(found.summary), comparison=comparison), found.rows()


def evaluate_steps(settings: EvaluationSettings, records: Records) -> tuple[StepReport, list[dict]]:
    """The report on solutions with step labels, and a row for each."""
    from reward_modeling import process
    from reward_modeling.data.reading import load
    from reward_modeling.data.records import solutions
    from reward_modeling.evaluation import steps as measure
    from reward_modeling.evaluation.results import StepReport

    if settings.compare:
        raise UsageError("--compare evaluates two models on pairs", hint="evaluate each on the steps by itself")
    labelled = solutions(records)
    others = None
    if settings.threshold_data:
        others = solutions(load(settings.threshold_data, neutral=settings.neutral, **settings.all_reading))
    found = measure.evaluate_steps(
        process.from_settings(settings),
        labelled,
        threshold=settings.threshold,
        threshold_data=others,
        subset_column=settings.subset_column,
    )
    measure.show_steps(found.summary, settings.model_name_or_path)
    said = common(settings, records, measure.diagnose_steps(found.summary))
    return StepReport(**said, **vars(found.summary)), found.rows


def evaluate_pools(settings: EvaluationSettings) -> tuple[PoolReport, list[dict]]:
    """The report on completions of known correctness, and a row for each prompt."""
    from reward_modeling import process
    from reward_modeling.data.reading import load
    from reward_modeling.data.records import to_score
    from reward_modeling.evaluation import best_of_n
    from reward_modeling.evaluation.results import PoolReport
    from reward_modeling.evaluation.votes import find_answers

    records = to_score(load(settings.dataset_name, **settings.all_reading))
    pools = records.rows
    sizes = best_of_n.check_pools(pools, settings.best_of_n)
    answers = find_answers(pools, column=settings.answer_column, pattern=settings.answer_pattern)
    rewards = best_of_n.score_pools(process.from_settings(settings), pools)
    summary = best_of_n.summarize_pools(pools, rewards, sizes, answers)
    best_of_n.show_best_of_n(summary, settings.model_name_or_path)
    rows = [
        with_metadata(
            {"id": pool.id, "origin": str(pool.origin), "correct": pool.scores, "rewards": row},
            {name: value for name, value in pool.metadata.items() if name != "correct"},  # as it was read: the scores
        )
        for pool, row in zip(pools, rewards, strict=True)
    ]
    return PoolReport(**common(settings, records, best_of_n.diagnose_best_of_n(summary)), **vars(summary)), rows


if __name__ == "__main__":
    main_guard(main)
