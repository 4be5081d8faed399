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
"""Judge a reward model: on labelled comparisons, on labelled steps, or by the answers it would choose.

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

from reward_modeling import cli
from reward_modeling.console import DataError, UsageError, check_output_file, log, main_guard, to_json, write_whole
from reward_modeling.data.writing import counted, tell_moved, with_metadata
from reward_modeling.evaluation.settings import EvaluationSettings


def parser() -> cli.Parser:
    return cli.Parser(__doc__, "evaluate.py", EvaluationSettings)


def main(argv: list[str] | None = None) -> dict:
    settings = cli.settings(EvaluationSettings, parser().parse(argv))
    if settings.overoptimization:
        return judge_overoptimization(settings)
    read = [*settings.dataset_name, *(settings.threshold_data or ())]
    output = check_output_file(settings.output, settings.overwrite, read) if settings.output else None
    from reward_modeling import checkpoints
    from reward_modeling.data.reading import load
    from reward_modeling.data.records import Solution

    if settings.best_of_n is not None:
        summary, rows, records = judge_best_of_n(settings)
    else:
        records = load(settings.dataset_name, neutral=settings.neutral, **settings.all_reading)
        of_steps = checkpoints.kind_of(settings.model_name_or_path) is checkpoints.PROCESS
        of_steps = of_steps and any(isinstance(row, Solution) for row in records.rows)
        summary, rows = (judge_steps if of_steps else judge_pairs)(settings, records)
    result = {
        "model": settings.model_name_or_path,
        "dataset": settings.dataset_name,
        "format": records.format,
        "set_aside": records.set_aside,
        **summary,
        "output": str(output) if output else None,
    }
    for sentence in summary["readings"]:
        log(f"- {sentence}")
    if output:
        moved: Counter[str] = Counter()
        write_whole(output, map(to_json, counted(rows, moved)))
        result |= tell_moved(moved)
    return result


def judge_overoptimization(settings: EvaluationSettings) -> dict:
    """Proxy and gold against KL, with the curves of arXiv:2210.10760 fitted to them."""
    from reward_modeling.data.sources import read
    from reward_modeling.evaluation import overoptimization
    from reward_modeling.evaluation.plots import svg

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
    readings = [overoptimization.verdict(study) for study in studies]
    for sentence in readings:
        log(f"- {sentence}")
    if picture:
        write_whole(picture, [svg(overoptimization.panels(studies))])
    return {
        "studies": [study.to_dict() for study in studies],
        "readings": readings,
        "picture": str(picture) if picture else None,
    }


def judge_pairs(settings: EvaluationSettings, records) -> tuple[dict, list[dict]]:
    """The summary of labelled comparisons, and a row for each."""
    from reward_modeling import checkpoints
    from reward_modeling.data.records import comparisons
    from reward_modeling.evaluation.pairs import diagnose_pairs, show_pairs

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
        (checkpoints.check_process_model if of_steps else checkpoints.check_reward_model)(settings.compare)
    judgement = judge_model(settings.model_name_or_path, settings, pairs)
    show_pairs(judgement.summary, f"{settings.model_name_or_path} on {len(pairs)} comparisons")
    summary = {**judgement.summary, "readings": diagnose_pairs(judgement.summary)}
    if settings.compare:
        summary["comparison"] = compare_with(settings, judgement, pairs)
    return summary, judgement.rows()


def judge_model(path: str, settings: EvaluationSettings, pairs):
    """One model's judgement of the pairs."""
    from reward_modeling import process
    from reward_modeling.evaluation.pairs import evaluate_pairs

    return evaluate_pairs(process.from_settings(settings, path), pairs, subset_column=settings.subset_column)


def compare_with(settings: EvaluationSettings, judgement, pairs) -> dict:
    """A paired comparison with a second model, on the pairs that both could score."""
    from reward_modeling.evaluation.pairs import compare_models, show_comparison

    comparison = compare_models(judgement, judge_model(settings.compare, settings, pairs))
    show_comparison(comparison, settings.model_name_or_path, settings.compare)
    return {"model": settings.compare, **comparison}


def judge_steps(settings: EvaluationSettings, records) -> tuple[dict, list[dict]]:
    """The summary of solutions with step labels, and a row for each."""
    from reward_modeling import process
    from reward_modeling.data.reading import load
    from reward_modeling.data.records import solutions
    from reward_modeling.evaluation.steps import diagnose_steps, evaluate_steps, show_steps

    if settings.compare:
        raise UsageError("--compare evaluates two models on pairs", hint="evaluate each on the steps by itself")
    labelled = solutions(records)
    others = None
    if settings.threshold_data:
        others = solutions(load(settings.threshold_data, neutral=settings.neutral, **settings.all_reading))
    judgement = evaluate_steps(
        process.from_settings(settings),
        labelled,
        threshold=settings.threshold,
        threshold_data=others,
        subset_column=settings.subset_column,
    )
    show_steps(judgement.summary, settings.model_name_or_path)
    return {**judgement.summary, "readings": diagnose_steps(judgement.summary)}, judgement.rows


def judge_best_of_n(settings: EvaluationSettings) -> tuple[dict, list[dict], object]:
    """The summary of completions of known correctness, a row for each prompt, and the records."""
    from reward_modeling import process
    from reward_modeling.data.reading import load
    from reward_modeling.data.records import to_score
    from reward_modeling.evaluation import best_of_n
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
    return {**summary, "readings": best_of_n.diagnose_best_of_n(summary)}, rows, records


if __name__ == "__main__":
    main_guard(main)
