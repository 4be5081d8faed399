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
"""Score completions with a reward model, rank them, or keep the best.

    score.py --model_name_or_path runs/mine --input completions.jsonl --output scored.jsonl
    score.py --model_name_or_path runs/mine --input completions.jsonl --rank
    score.py --model_name_or_path runs/mine --prompt "What is 2 + 2?" --completions "4." "A fish."

Reads   rows with prompt and completion, completions or responses; messages; chosen and rejected (references/scoring.md)
Writes  the input rows with `reward` or `rewards`, in input order, ids and every other column kept
Scores are raw fp32 rewards: higher is better, their zero means nothing, compare them within a prompt only.
"""

from __future__ import annotations

import json

from reward_modeling import arguments as flags
from reward_modeling.console import UsageError, check_output_file, finite, log, main_guard, progress, table, write_whole

SHOWN_PROMPTS = 5


def parser() -> flags.Parser:
    parser = flags.Parser(__doc__, prog="score.py")
    flags.add_scoring_arguments(parser)
    data = parser.add_argument_group("what to score")
    data.add_argument(
        "--input", nargs="+", metavar="DATA", help="files, folders or hub ids with prompts and completions"
    )
    data.add_argument("--dataset_config", metavar="NAME", help="configuration of a hub dataset")
    data.add_argument("--dataset_split", metavar="SPLIT", help="split of a hub dataset")
    data.add_argument(
        "--format", metavar="NAME", help="format of the rows, instead of recognising it (check_data.py --list_formats)"
    )
    data.add_argument(
        "--columns",
        type=flags.parse_columns,
        metavar="A=B,...",
        help="read column B as A; an empty B drops the column A",
    )
    data.add_argument("--prompt", help="one prompt, instead of --input")
    data.add_argument("--completions", nargs="+", metavar="TEXT", help="its completions")
    out = parser.add_argument_group("result")
    flags.add_flag(out, "--rank", "order each prompt's completions, best first")
    out.add_argument(
        "--best_of", type=flags.positive_int, metavar="N", help="keep the best of each prompt's first N completions"
    )
    flags.add_flag(out, "--normalise", "subtract the mean and divide by the standard deviation saved with the model")
    out.add_argument(
        "--output",
        metavar="FILE",
        help="JSONL file for the scored rows (they are printed in the JSON on stdout without it)",
    )
    flags.add_flag(out, "--overwrite", "replace --output if it exists")
    return parser


def main(argv: list[str] | None = None) -> dict:
    args = flags.parse(parser(), argv, required=("model_name_or_path",))
    if bool(args.input) == bool(args.prompt is not None):
        raise UsageError("give either --input, or --prompt with --completions")
    if (args.prompt is None) != (args.completions is None):
        raise UsageError("--prompt and --completions belong together")
    if args.rank and args.best_of:
        raise UsageError("--rank orders all completions, --best_of keeps one: choose one of them")
    output = check_output_file(args.output, args.overwrite) if args.output else None
    rankings = read_rankings(args)
    if args.best_of:
        rankings = [first_completions(ranking, args.best_of) for ranking in rankings]

    from reward_modeling.scoring import RewardModel

    model = RewardModel.from_arguments(args)
    scores = score_rankings(model, rankings, normalise=args.normalise)
    rows = [result_row(ranking, row_scores, args) for ranking, row_scores in zip(rankings, scores, strict=True)]
    flat = [score for row_scores in scores for score in row_scores]
    known = [score for score in flat if score is not None]
    result = {
        "model": args.model_name_or_path,
        "prompts": len(rankings),
        "completions": len(flat),
        "not_scored": len(flat) - len(known),
        "truncated": model.renderer.counts["truncated"],
        "reward_mean": sum(known) / len(known) if known else None,
        "output": str(output) if output else None,
    }
    if output:
        write_whole(output, (json.dumps(finite(row), ensure_ascii=False, default=str) for row in rows))
        log(f"wrote {len(rows)} rows to {output}")
        return result
    show(rankings, scores)
    return {**result, "rows": rows}


def read_rankings(args) -> list:
    """What to score, as rankings: a prompt with one or more completions each."""
    from reward_modeling.records import Ranking, load

    if args.input:
        records = load(
            args.input,
            split=args.dataset_split,
            config=args.dataset_config,
            format=args.format,
            columns=args.columns,
            kind="scoring",
        )
        log(f"{len(records.rows)} rows of format {records.format}")
        return records.rows
    prompt = [{"role": "user", "content": args.prompt}] if args.prompt else []
    return [Ranking(prompt, [[{"role": "assistant", "content": text}] for text in args.completions])]


def first_completions(ranking, n: int):
    """The ranking with only its first n completions. Raises DataError when it has fewer."""
    from dataclasses import replace

    from reward_modeling.console import DataError

    if len(ranking.completions) < n:
        raise DataError(
            f"the prompt has {len(ranking.completions)} completions, fewer than --best_of {n}",
            where=str(ranking.origin) if ranking.origin else None,
        )
    return replace(ranking, completions=ranking.completions[:n], scores=ranking.scores[:n] if ranking.scores else None)


def score_rankings(model, rankings, *, normalise: bool) -> list[list[float | None]]:
    """The rewards of each ranking's completions, in input order."""
    conversations = [
        (ranking.prompt, completion, ranking.tools, ranking.origin)
        for ranking in rankings
        for completion in ranking.completions
    ]
    with progress("scoring", len(conversations)) as advance:
        flat = model.score_conversations(conversations, advance)
    scores = iter(model.normalise(flat) if normalise else flat)
    return [[next(scores) for _ in ranking.completions] for ranking in rankings]


def result_row(ranking, scores: list[float | None], args) -> dict:
    """One output row: the ranking's own columns with its rewards, its order or its best completion."""
    from reward_modeling.scoring import ranked

    kept = {"id": ranking.id, "tools": ranking.tools}
    row = {name: value for name, value in kept.items() if value is not None}
    row |= {**ranking.metadata, "prompt": ranking.prompt}
    if args.best_of or args.rank:
        order = ranked(scores, ranking.completions)
        if args.best_of:
            return {**row, "completion": order[0].completion, "reward": order[0].score, "index": order[0].index}
        return {
            **row,
            "completions": [item.completion for item in order],
            "rewards": [item.score for item in order],
            "order": [item.index for item in order],
        }
    if len(ranking.completions) == 1:
        return {**row, "completion": ranking.completions[0], "reward": scores[0]}
    return {**row, "completions": ranking.completions, "rewards": scores}


def show(rankings, scores) -> None:
    """The first prompts with their completions and rewards, on stderr."""
    rows = [
        [i + 1, score, " ".join(message.get("content") or "" for message in completion)[:80]]
        for i, (ranking, row_scores) in enumerate(zip(rankings[:SHOWN_PROMPTS], scores[:SHOWN_PROMPTS], strict=True))
        for completion, score in zip(ranking.completions, row_scores, strict=True)
    ]
    table(
        "rewards" if len(rankings) <= SHOWN_PROMPTS else f"rewards of the first {SHOWN_PROMPTS} prompts",
        ["prompt", "reward", "completion"],
        rows,
    )


if __name__ == "__main__":
    main_guard(main)
