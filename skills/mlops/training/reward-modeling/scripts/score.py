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
"""Score completions with a reward model, rank them, or keep the best.

    uv run scripts/score.py --model_name_or_path runs/mine --input completions.jsonl --output scored.jsonl
    uv run scripts/score.py --model_name_or_path runs/mine --input completions.jsonl --rank
    uv run scripts/score.py --model_name_or_path runs/mine --input prompts.jsonl --generate_with runs/sft --best_of 16 --output best.jsonl
    uv run scripts/score.py --model_name_or_path runs/mine --prompt "What is 2 + 2?" --completions "4." "A fish."
    uv run scripts/score.py --model_name_or_path runs/prm --input solutions.jsonl --aggregate prod --rank
    uv run scripts/score.py --reward_model_path runs/helpful runs/harmless --reward_weights 0.7 0.3 --input completions.jsonl --rank

Reads   rows with prompt and completion, completions or responses; messages; chosen and rejected (references/scoring.md);
        for a process reward model also prompt and steps, and completions that are lists of steps (references/process.md)
Writes  the input rows with `reward` or `rewards`, in input order, ids and every other column kept; a process reward model
        adds `steps` and `step_rewards`, the probability that each step is correct, null where it did not fit
Scores are raw fp32 rewards: higher is better, their zero means nothing, compare them within a prompt only.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

from reward_modeling import arguments as flags
from reward_modeling.console import (
    DataError,
    Number,
    Result,
    UsageError,
    check_output_file,
    log,
    main_guard,
    progress,
    table,
    to_json,
    warn,
    write_whole,
)
from reward_modeling.data.writing import counted, tell_moved, with_metadata

SHOWN_PROMPTS = 5
WRITTEN_TOGETHER = 256
"""Completions that a policy writes before they are scored."""
MAX_NEW_TOKENS = 256


@dataclass(frozen=True, kw_only=True)
class Scored(Result):
    model: str
    prompts: int
    completions: int
    not_scored: int
    prompts_with_unscored: int
    truncated: int
    not_rendered: int
    templated: int
    refused: int
    """Completions that cannot be rendered, under --refused unscored."""
    reward_mean: Number
    output: str | None
    metadata_moved: dict[str, int] | None = None
    reward_models: list[str] | None = None
    """Of several: their names, how they are combined, and their weights."""
    reward_combine: str | None = None
    reward_weights: list[float] | None = None
    policy: str | None = None
    """That wrote the completions, and how many did not end."""
    unfinished: int | None = None
    aggregate: str | None = None
    """Of a process reward model: how step scores become a reward, and the steps."""
    steps: int | None = None
    steps_not_scored: int | None = None
    rows: list[dict[str, object]] | None = None
    """The scored rows, without --output."""


def parser() -> flags.Parser:
    parser = flags.Parser(__doc__, prog="score.py")
    flags.add_scoring_arguments(parser)
    flags.add_several_models_arguments(parser.add_argument_group("several outcome reward models, instead of one"))
    flags.add_process_arguments(parser)
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
    data.add_argument(
        "--winner_values", type=flags.parse_winner_values, metavar="1=a,0=b", help=flags.WINNER_VALUES_HELP
    )
    data.add_argument("--prompt", type=flags.utf8, help="one prompt, instead of --input")
    data.add_argument("--completions", type=flags.utf8, nargs="+", metavar="TEXT", help="its completions")
    writing = parser.add_argument_group("completions written here")
    writing.add_argument(
        "--generate_with",
        metavar="POLICY",
        help="folder or hub id of a policy that writes --best_of N completions for each prompt of --input or --prompt",
    )
    writing.add_argument(
        "--temperature", type=flags.non_negative_number, default=1.0, help="of sampling; 0 takes the likeliest (1)"
    )
    writing.add_argument(
        "--max_new_tokens",
        type=flags.positive_int,
        metavar="TOKENS",
        help=f"longest completion ({MAX_NEW_TOKENS}, or half of what the policy reads)",
    )
    writing.add_argument("--seed", type=int, default=0, help="of sampling (0)")
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


def main(argv: list[str] | None = None) -> Scored:
    args = flags.parse(parser(), argv)
    check_models(args)
    if bool(args.input) == bool(args.prompt is not None):
        raise UsageError("give either --input, or --prompt with --completions")
    if args.generate_with:
        check_generation(args)
    elif (args.prompt is None) != (args.completions is None):
        raise UsageError("--prompt and --completions belong together")
    if args.rank and args.best_of:
        raise UsageError(
            "--rank orders all completions, --best_of keeps one: choose one of them",
            hint=f"--rank writes all completions of a row, best first; --best_of {args.best_of} writes one, the best of its "
            f"first {args.best_of} (in a row of {args.best_of}, the first of --rank)",
        )
    output = check_output_file(args.output, args.overwrite, args.input or ()) if args.output else None

    from reward_modeling import checkpoints
    from reward_modeling.ensemble import Rewards

    of_steps = not args.reward_model_path and checkpoints.kind_of(args.model_name_or_path) is checkpoints.PROCESS
    if of_steps and args.normalise:
        raise UsageError("--normalise is for outcome reward models: step scores are probabilities")
    rankings, completions = written_rankings(args) if args.generate_with else read_rankings(args, of_steps)
    model = load_model(args)
    summary, moved, rows = Summary(), Counter(), None
    with progress("scoring", completions) as advance:
        scored = scored_rankings(model, rankings, args, advance)
        lines = map(to_json, counted(summary.of(scored, args), moved))
        if output:
            write_whole(output, lines)
        else:
            rows = [json.loads(line) for line in lines]
    summary.show()
    model.warn_of_losses()
    summary.warn_of_lost_candidates(args)
    if output:
        log(f"wrote {summary.prompts} rows to {output}")
    counts = sum((one.renderer.counts for one in getattr(model, "models", {"": model}).values()), Counter())
    more = {}
    if isinstance(model, Rewards):
        more |= {"reward_models": model.names, "reward_combine": model.combine, "reward_weights": model.weights}
    if args.generate_with:
        more |= {"policy": args.generate_with, "unfinished": summary.unfinished}
    if of_steps:
        more |= {"aggregate": model.aggregate, "steps": summary.steps, "steps_not_scored": summary.steps_not_scored}
    return Scored(
        model=args.model_name_or_path or ", ".join(args.reward_model_path),
        prompts=summary.prompts,
        completions=summary.completions,
        not_scored=summary.completions - summary.scored,
        prompts_with_unscored=summary.lost,
        truncated=model.truncated,
        **{name: counts[name] for name in ("not_rendered", "templated", "refused")},
        reward_mean=summary.total / summary.scored if summary.scored else None,
        output=str(output) if output else None,
        metadata_moved=tell_moved(moved),
        rows=rows,
        **more,
    )


def check_models(args) -> None:
    """Raises UsageError unless one reward model of either kind is given, or one or more outcome models to combine."""
    if args.reward_model_path and args.model_name_or_path:
        raise UsageError("--model_name_or_path is one reward model, --reward_model_path several: give one of them")
    if not args.reward_model_path:
        flags.check_required(args, ("model_name_or_path",), "score.py")
        if args.reward_weights or args.reward_combine != "sum":
            raise UsageError(
                "--reward_weights and --reward_combine are for several models",
                hint="give them with --reward_model_path A B",
            )


def load_model(args):
    """The one reward model, or `Rewards` of several, that the flags describe."""
    from reward_modeling import process
    from reward_modeling.ensemble import Rewards
    from reward_modeling.scoring import SCORING_ARGUMENTS

    if not args.reward_model_path:
        return process.from_arguments(args)
    return Rewards.from_pretrained(
        args.reward_model_path,
        weights=args.reward_weights,
        combine=args.reward_combine,
        normalise=args.normalise,
        **{name: getattr(args, name) for name in SCORING_ARGUMENTS},
    )


def read_rankings(args, of_steps: bool) -> tuple:
    """What to score, as rankings (a prompt with one or more completions each), and how many completions it is in all.

    The rankings of a file are read again from it, a slice at a time: it may be larger than memory.
    """
    from reward_modeling.data.reading import stream
    from reward_modeling.data.records import Ranking

    if args.input:
        rankings = stream(
            args.input,
            split=args.dataset_split,
            config=args.dataset_config,
            format=args.format,
            columns=args.columns,
            winner_values=args.winner_values,
            steps=of_steps,
        )
        log(f"{rankings.rows} rows of format {rankings.format}")
        return rankings, rankings.rows * args.best_of if args.best_of else rankings.completions
    prompt = [{"role": "user", "content": args.prompt}] if args.prompt else []
    completions = [[{"role": "assistant", "content": text}] for text in args.completions]
    return [Ranking(prompt, completions)], len(completions)


def check_generation(args) -> None:
    """Raises UsageError for flags that do not go with a policy that writes the completions."""
    if args.completions:
        raise UsageError("--completions are given, --generate_with writes them: choose one of them")
    if not args.best_of:
        raise UsageError("--generate_with needs --best_of N: how many completions to write for each prompt")
    if args.seed < 0:
        raise UsageError(f"--seed is a whole number of at least 0, got {args.seed}")


def written_rankings(args) -> tuple:
    """What a policy writes for each prompt, as rankings that are made as they are asked for, and how many it is in all."""
    from reward_modeling.data.records import Ranking
    from reward_modeling.training.policy import Policy
    from reward_modeling.training.prompts import new_tokens, read_prompts, render_prompts

    records = [Ranking([{"role": "user", "content": args.prompt}], [])] if args.prompt else []
    if args.input:
        reading = {"config": args.dataset_config, "format": args.format, "columns": args.columns}
        records = read_prompts(args.input, args.dataset_split, **reading)
    policy = Policy.from_pretrained(args.generate_with, device=args.device)
    limit = "--max_new_tokens"
    args.max_new_tokens = new_tokens(policy, args.max_new_tokens, MAX_NEW_TOKENS, limit)
    prompts = render_prompts(records, policy, args.max_new_tokens, limit=limit)
    return write_completions(policy, records, prompts, args), len(records) * args.best_of


def write_completions(policy, records, prompts, args):
    """Each record with its completions; metadata `finished`: which of them ended by themselves."""
    from dataclasses import replace

    from reward_modeling.training.sampling import sample

    n = args.best_of
    together = max(1, WRITTEN_TOGETHER // n)
    for start in range(0, len(records), together):
        places = range(start, min(start + together, len(records)))
        answers = sample(
            policy,
            [prompts[place].ids for place in places for _ in range(n)],
            max_new_tokens=args.max_new_tokens,
            temperature=args.temperature,
            seed=args.seed,
            numbers=[i * len(records) + place for place in places for i in range(n)],  # a larger N only adds
        )
        for row, place in enumerate(places):
            own = answers[row * n : (row + 1) * n]
            metadata = with_metadata({"finished": [policy.finished(answer) for answer in own]}, records[place].metadata)
            yield replace(records[place], completions=[policy.reply(answer) for answer in own], metadata=metadata)


def first_completions(ranking, n: int):
    """The ranking with only its first n completions. Raises DataError when it has fewer."""
    from dataclasses import replace

    if len(ranking.completions) < n:
        raise DataError(
            f"the prompt has {len(ranking.completions)} completions, fewer than --best_of {n}",
            where=str(ranking.origin) if ranking.origin else None,
        )
    return replace(ranking, completions=ranking.completions[:n], scores=ranking.scores[:n] if ranking.scores else None)


def scored_rankings(model, rankings, args, advance):
    """What `score_together` yields, in input order, scored together as many as a plan takes."""
    from reward_modeling.packing import WINDOW
    from reward_modeling.rendering import refused_together

    renderer = getattr(model, "renderer", None)  # several models have one each, and stop at the first that refuses
    refused, seen, scored = [], 0, []
    if renderer:
        renderer.refused = refused
    for together in in_windows(rankings, args.best_of, WINDOW):
        if refused and args.refused == "stop":  # look for the others, so that all are told
            model.render(conversations_of(together))
        else:
            scored = list(score_together(model, together, args.normalise, advance))
        seen += sum(len(ranking.completions) for ranking in together)
        if not refused or args.refused == "unscored":
            yield from scored
    if refused and args.refused == "stop":
        error = refused_together(refused, seen)
        raise DataError(
            error.message, where=error.where, hint=f"score the others with --refused unscored, or {error.hint}"
        )


def in_windows(rankings, best_of: int | None, window: int):
    """Lists of rankings with about `window` completions, only the first `best_of` of each ranking."""
    together, waiting = [], 0
    for ranking in rankings:
        if best_of:
            ranking = first_completions(ranking, best_of)
        together.append(ranking)
        waiting += len(ranking.completions)
        if waiting >= window:
            yield together
            together, waiting = [], 0
    yield together


def conversations_of(rankings) -> list:
    """The conversation of every completion."""
    from reward_modeling.rendering import Conversation

    return [
        Conversation(ranking.prompt, completion, ranking.tools, ranking.origin)
        for ranking in rankings
        for completion in ranking.completions
    ]


def score_together(model, rankings, normalise: bool, advance):
    """(ranking, the rewards of its completions, their steps) of rankings that are in memory.

    Steps are what `step_columns` reads, one entry a completion, and None from an outcome reward model.
    """
    from reward_modeling.aggregation import step_rewards
    from reward_modeling.ensemble import Rewards
    from reward_modeling.process import ProcessRewardModel

    conversations = conversations_of(rankings)
    if isinstance(model, ProcessRewardModel):
        scored = model.score_in_steps(conversations, advance)
        flat = [model.reward(scores) for _, scores in scored]
        steps = iter([{"steps": own, "step_rewards": step_rewards(own, scores)} for own, scores in scored])
    else:
        flat, steps = model.score_conversations(conversations, advance), None
    if normalise and not isinstance(model, Rewards):  # which does so with each model's own statistics
        flat = model.normalise(flat)
    scores = iter(flat)
    for ranking in rankings:
        several = range(len(ranking.completions))
        yield ranking, [next(scores) for _ in several], steps and [next(steps) for _ in several]


def shown(ranking, scores: list[float | None], args) -> list:
    """The completions of a prompt as the table shows them: best first with --rank, the best alone with --best_of."""
    from reward_modeling.scoring import Ranked, ranked

    if args.rank or args.best_of:
        return ranked(scores, ranking.completions)[: 1 if args.best_of else None]
    return [Ranked(i, *pair) for i, pair in enumerate(zip(scores, ranking.completions, strict=True))]


class Summary:
    """What is said of all rows after the last: counts, the mean, and the first few for a look."""

    def __init__(self):
        self.prompts = self.completions = self.scored = self.unfinished = self.steps = self.steps_not_scored = 0
        self.total, self.lost, self.first_lost = 0.0, 0, None
        self.first: list[list] = []

    def of(self, scored, args):
        """The output rows, counted as they pass."""
        for ranking, scores, steps in scored:
            known = [score for score in scores if score is not None]
            self.prompts += 1
            self.completions += len(scores)
            self.scored += len(known)
            self.total += sum(known)
            if len(known) < len(scores):
                self.lost += 1
                self.first_lost = self.first_lost or ranking.origin
            rewards = [reward for own in steps or () for reward in own["step_rewards"]]
            self.steps += len(rewards)
            self.steps_not_scored += rewards.count(None)
            if args.generate_with:
                self.unfinished += ranking.metadata["finished"].count(False)
            if len(self.first) < SHOWN_PROMPTS:
                self.first.append(shown(ranking, scores, args))
            yield result_row(ranking, scores, steps, args)

    def warn_of_lost_candidates(self, args) -> None:
        """Say when a prompt's best was chosen without all of its candidates: a better one may have been left out."""
        if self.lost and (args.rank or args.best_of):
            first = f" (the first: {self.first_lost})" if self.first_lost else ""
            done = "the best is the best of the others" if args.best_of else "they stand last"
            warn(f"{self.lost} of {self.prompts} prompts lost candidates, which have no score: {done}{first}")

    def show(self) -> None:
        """The first prompts with their completions and rewards, on stderr."""
        rows = [
            [i + 1, item.score, " ".join(message.get("content") or "" for message in item.completion)[:80]]
            for i, items in enumerate(self.first)
            for item in items
        ]
        table(
            "rewards" if self.prompts <= SHOWN_PROMPTS else f"rewards of the first {SHOWN_PROMPTS} prompts",
            ["prompt", "reward", "completion"],
            rows,
        )
        if self.completions > self.prompts and self.steps == self.completions:
            warn(
                "no completion has more than one step: if a row's `completions` are the steps of one solution, "
                "say --columns steps=completions; if steps end otherwise, --step_separator"
            )


def step_columns(steps: list[dict] | None, order=None) -> dict:
    """{"steps", "step_rewards"}: of the completions in this order, or of the only one. Nothing for an outcome model."""
    if steps is None:
        return {}
    if order is None:
        return steps[0]
    return {name: [steps[i][name] for i in order] for name in steps[0]}


def result_row(ranking, scores: list[float | None], steps: list[dict] | None, args) -> dict:
    """One output row: the ranking's own columns with its rewards, its order or its best completion."""
    kept = {"id": ranking.id, "tools": ranking.tools}
    row = {name: value for name, value in kept.items() if value is not None}
    row |= {"prompt": ranking.prompt, **scored_columns(ranking, scores, steps, args)}
    metadata = {name: value for name, value in ranking.metadata.items() if name != "finished" or not args.generate_with}
    return with_metadata(row, metadata)


def scored_columns(ranking, scores: list[float | None], steps: list[dict] | None, args) -> dict:
    """The completions with their rewards: all of them, in their order or best first, or the best alone."""
    from reward_modeling.scoring import ranked

    if args.best_of:
        best = ranked(scores, ranking.completions)[0]
        row = {"finished": ranking.metadata["finished"][best.index]} if args.generate_with else {}
        row |= {"completion": best.completion, "reward": best.score, "index": best.index}
        return row | step_columns(steps and [steps[best.index]])
    if args.rank:
        order = ranked(scores, ranking.completions)
        places = [item.index for item in order]
        row = {"completions": [item.completion for item in order], "rewards": [item.score for item in order]}
        return {**row, **step_columns(steps, places), "order": places}
    if len(ranking.completions) == 1:
        return {"completion": ranking.completions[0], "reward": scores[0], **step_columns(steps)}
    return {"completions": ranking.completions, "rewards": scores, **step_columns(steps, range(len(scores)))}


if __name__ == "__main__":
    main_guard(main)
