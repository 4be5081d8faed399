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
"""Judge a reward model on labelled comparisons: accuracy with its interval, calibration, length bias, subsets.

    evaluate.py --model_name_or_path runs/mine --dataset_name held_out.jsonl
    evaluate.py --model_name_or_path runs/mine --dataset_name held_out.jsonl --compare runs/other --output pairs.jsonl

Reads   comparisons and rankings in any format of references/data.md
Writes  a report on stderr, one JSON object on stdout, the rewards of every pair to --output
A pair counts 1 when the chosen answer scores higher, 1/2 for a tie. references/evaluation.md says how to read the numbers.
"""

from __future__ import annotations

import json

from reward_modeling import arguments as flags
from reward_modeling.console import DataError, check_output_file, finite, log, main_guard, write_whole


def parser() -> flags.Parser:
    parser = flags.Parser(__doc__, prog="evaluate.py")
    flags.add_scoring_arguments(parser)
    data = flags.add_dataset_arguments(parser, split_default="test")
    data.add_argument(
        "--subset_column",
        metavar="COLUMN",
        help="metadata column that names the subsets (subset, category, domain, source, tranche or task)",
    )
    group = parser.add_argument_group("evaluation")
    group.add_argument(
        "--compare", metavar="MODEL", help="a second reward model, judged on the same pairs, with a paired test"
    )
    group.add_argument("--output", metavar="FILE", help="JSONL file with the rewards of every pair")
    flags.add_flag(group, "--overwrite", "replace --output if it exists")
    return parser


def main(argv: list[str] | None = None) -> dict:
    args = flags.parse(parser(), argv, required=("model_name_or_path", "dataset_name"))
    output = check_output_file(args.output, args.overwrite) if args.output else None
    from reward_modeling import checkpoints
    from reward_modeling.records import comparisons, load

    records = load(
        args.dataset_name,
        split=args.dataset_split,
        config=args.dataset_config,
        format=args.format,
        columns=args.columns,
    )
    pairs = comparisons(records)
    if not pairs:
        raise DataError(
            "the data holds no comparison",
            where=", ".join(records.files),
            hint="rows need a preferred and a rejected answer, or scores that differ",
        )

    if args.compare:
        checkpoints.check_reward_model(args.compare)  # before the first model is run

    from reward_modeling.evaluation import report

    judgement = judge_model(args.model_name_or_path, args, pairs)
    report.show(judgement.summary, f"{args.model_name_or_path} on {len(pairs)} comparisons")
    readings = report.verdict(judgement.summary)
    for reading in readings:
        log(f"- {reading}")
    result = {
        "model": args.model_name_or_path,
        "dataset": args.dataset_name,
        "format": records.format,
        "set_aside": records.set_aside,
        **judgement.summary,
        "readings": readings,
        "output": str(output) if output else None,
    }
    if args.compare:
        result["comparison"] = compare_with(args, judgement, pairs)
    if output:
        write_whole(output, (json.dumps(finite(row), ensure_ascii=False, default=str) for row in judgement.rows()))
    return result


def judge_model(path: str, args, pairs):
    """One model's judgement of the pairs."""
    from reward_modeling.evaluation.comparisons import judge
    from reward_modeling.scoring import RewardModel

    return judge(RewardModel.from_arguments(args, path), pairs, subset_column=args.subset_column)


def compare_with(args, judgement, pairs) -> dict:
    """A paired comparison with a second model, on the pairs that both could score."""
    from reward_modeling.evaluation import report
    from reward_modeling.evaluation.comparisons import compare

    comparison = compare(judgement, judge_model(args.compare, args, pairs))
    report.show_comparison(comparison, args.model_name_or_path, args.compare)
    return {"model": args.compare, **comparison}


if __name__ == "__main__":
    main_guard(main)
