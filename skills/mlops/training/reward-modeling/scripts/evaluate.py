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
    uv run scripts/evaluate.py --model_name_or_path runs/mine --benchmark rewardbench2 judgebench --benchmark_data DIR
    uv run scripts/evaluate.py --overoptimization points.jsonl --picture curves.svg

Reads   comparisons and rankings, solutions with step labels for a process reward model, or with --best_of_n completions of
        known correctness, in any format of references/data.md
Writes  a report on stderr, one JSON object on stdout, a row with its rewards for each row of the data to --output
A pair counts 1 when the chosen answer scores higher, 1/2 for a tie. references/evaluation.md says how to read the numbers.
"""

from __future__ import annotations

from collections import Counter

from reward_modeling import arguments as flags
from reward_modeling.console import DataError, UsageError, check_output_file, log, main_guard, to_json, write_whole
from reward_modeling.data.writing import counted, tell_moved, with_metadata


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
        "--compare", metavar="MODEL", help="a second reward model, judged on the same pairs, with a paired test"
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
    official = parser.add_argument_group("benchmarks")
    official.add_argument(
        "--benchmark",
        nargs="+",
        metavar="NAME",
        help="rewardbench, rewardbench2, rm-bench, judgebench, ppe, rmb, llmbar; of steps: processbench, prmbench, mr-ben",
    )
    official.add_argument(
        "--benchmark_data",
        metavar="DIR",
        help="folder with the authors' files, in DIR/NAME or by their names (the hub)",
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


def main(argv: list[str] | None = None) -> dict:
    args = flags.parse(parser(), argv)
    if args.overoptimization:
        return judge_overoptimization(args)
    if args.benchmark:
        return evaluate_benchmarks(args)
    flags.check_required(args, ("model_name_or_path", "dataset_name"), "evaluate.py")
    check_together(args)
    read = [*args.dataset_name, *(args.threshold_data or ())]
    output = check_output_file(args.output, args.overwrite, read) if args.output else None
    from reward_modeling import checkpoints
    from reward_modeling.data.reading import load
    from reward_modeling.data.records import Solution

    if args.best_of_n is not None:
        summary, rows, records = judge_best_of_n(args)
    else:
        records = load(args.dataset_name, neutral=args.neutral, **reading(args))
        of_steps = checkpoints.kind_of(args.model_name_or_path) is checkpoints.PROCESS
        of_steps = of_steps and any(isinstance(row, Solution) for row in records.rows)
        summary, rows = (judge_steps if of_steps else judge_pairs)(args, records)
    result = {
        "model": args.model_name_or_path,
        "dataset": args.dataset_name,
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
        raise UsageError("--compare judges two models on pairs", hint="run --best_of_n for each model")


def judge_overoptimization(args) -> dict:
    """Proxy and gold against KL, with the curves of arXiv:2210.10760 fitted to them."""
    from reward_modeling.data.sources import read
    from reward_modeling.evaluation import overoptimization
    from reward_modeling.evaluation.plots import svg

    picture = check_output_file(args.picture, args.overwrite, args.overoptimization) if args.picture else None
    rows = [
        (f"{table.name}:{number}", row)
        for source in args.overoptimization
        for table in read(source, args.dataset_split, args.dataset_config)
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


def evaluate_benchmarks(args) -> dict:
    """The official numbers of benchmarks. All data are read before the model is loaded."""
    from dataclasses import asdict

    from reward_modeling import process
    from reward_modeling.evaluation import benchmark_runs as runs

    flags.check_required(args, ("model_name_or_path",), "evaluate.py")
    runs.check_names(args.benchmark)
    for name in ("dataset_name", "compare", "best_of_n"):
        if getattr(args, name):
            raise UsageError(f"--{name} does nothing with --benchmark, which brings its own data", hint="leave it out")
    output = check_output_file(args.output, args.overwrite) if args.output else None
    loaded = {name: runs.load_benchmark(name, args.benchmark_data) for name in dict.fromkeys(args.benchmark)}
    of_steps = any(runs.BENCHMARKS[name].of_steps for name in loaded)
    model = process.ProcessRewardModel.from_arguments(args) if of_steps else process.from_arguments(args)
    if not args.overlong and "truncate_left" in model.renderer.policies:
        model.renderer.overlong = "truncate_left"  # as RewardBench, RM-Bench and RMB do: every item counts
    threshold = threshold_of(args, model) if of_steps else None
    results, rows, warnings = {}, [], []
    for name, items in loaded.items():
        results[name], found = runs.run_benchmark(model, name, items, threshold)
        rows += found
        warnings += runs.diagnose_benchmark(results[name])
        runs.show_benchmark(results[name])
    for sentence in warnings:
        log(f"- {sentence}")
    if output:
        write_whole(output, map(to_json, rows))
    return {
        "model": args.model_name_or_path,
        "benchmarks": {name: asdict(result) for name, result in results.items()},
        "scores": runs.flat_scores(results),
        "settings": {"dtype": args.dtype, "overlong": model.renderer.overlong},
        "warnings": warnings,
        "output": str(output) if output else None,
    }


def threshold_of(args, model) -> tuple[float, str] | None:
    """The threshold that the flags give or choose on other solutions, and where it is from."""
    from reward_modeling.data.reading import load
    from reward_modeling.data.records import solutions
    from reward_modeling.evaluation.step_measures import choose_threshold, labelled_steps
    from reward_modeling.evaluation.steps import score_steps

    if args.threshold is not None:
        return args.threshold, "given"
    if not args.threshold_data:
        return None
    others = solutions(load(args.threshold_data, neutral=args.neutral, **reading(args)))
    return choose_threshold(labelled_steps(others, score_steps(model, others)))[0], f"{len(others)} other solutions"


def reading(args) -> dict:
    """How the flags want the data read, for `reading.load`."""
    return {
        "split": args.dataset_split,
        "config": args.dataset_config,
        "format": args.format,
        "columns": args.columns,
        "winner_values": args.winner_values,
    }


def judge_pairs(args, records) -> tuple[dict, list[dict]]:
    """The summary of labelled comparisons, and a row for each."""
    from reward_modeling import checkpoints
    from reward_modeling.data.records import comparisons
    from reward_modeling.evaluation.pairs import diagnose_pairs, show_pairs

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
        (checkpoints.check_process_model if of_steps else checkpoints.check_reward_model)(args.compare)
    judgement = judge_model(args.model_name_or_path, args, pairs)
    show_pairs(judgement.summary, f"{args.model_name_or_path} on {len(pairs)} comparisons")
    summary = {**judgement.summary, "readings": diagnose_pairs(judgement.summary)}
    if args.compare:
        summary["comparison"] = compare_with(args, judgement, pairs)
    return summary, judgement.rows()


def judge_model(path: str, args, pairs):
    """One model's judgement of the pairs."""
    from reward_modeling import process
    from reward_modeling.evaluation.pairs import evaluate_pairs

    return evaluate_pairs(process.from_arguments(args, path), pairs, subset_column=args.subset_column)


def compare_with(args, judgement, pairs) -> dict:
    """A paired comparison with a second model, on the pairs that both could score."""
    from reward_modeling.evaluation.pairs import compare_models, show_comparison

    comparison = compare_models(judgement, judge_model(args.compare, args, pairs))
    show_comparison(comparison, args.model_name_or_path, args.compare)
    return {"model": args.compare, **comparison}


def judge_steps(args, records) -> tuple[dict, list[dict]]:
    """The summary of solutions with step labels, and a row for each."""
    from reward_modeling.data.reading import load
    from reward_modeling.data.records import solutions
    from reward_modeling.evaluation.steps import diagnose_steps, evaluate_steps, show_steps
    from reward_modeling.process import ProcessRewardModel

    if args.compare:
        raise UsageError("--compare judges two models on pairs", hint="evaluate each on the steps by itself")
    labelled = solutions(records)
    others = None
    if args.threshold_data:
        others = solutions(load(args.threshold_data, neutral=args.neutral, **reading(args)))
    judgement = evaluate_steps(
        ProcessRewardModel.from_arguments(args),
        labelled,
        threshold=args.threshold,
        threshold_data=others,
        subset_column=args.subset_column,
    )
    show_steps(judgement.summary, args.model_name_or_path)
    return {**judgement.summary, "readings": diagnose_steps(judgement.summary)}, judgement.rows


def judge_best_of_n(args) -> tuple[dict, list[dict], object]:
    """The summary of completions of known correctness, a row for each prompt, and the records."""
    from reward_modeling import process
    from reward_modeling.data.reading import load
    from reward_modeling.data.records import to_score
    from reward_modeling.evaluation import best_of_n
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
    return {**summary, "readings": best_of_n.diagnose_best_of_n(summary)}, rows, records


if __name__ == "__main__":
    main_guard(main)
