"""Rows of a file, or what a policy writes for prompts, scored window by window and written with their rewards."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from . import checkpoints, process
from .aggregation import step_rewards
from .base_rendering import refused_together
from .cli import check_required, flag, non_negative_number, utf8
from .data.reading import Stream, stream
from .data.records import Ranking
from .data.writing import counted, tell_moved, with_metadata
from .ensemble import Rewards
from .errors import DataError, UsageError
from .golden import keep_card
from .outputs import check_output_file, write_whole
from .packing import WINDOW
from .process import ProcessRewardModel
from .readers import families
from .rendering import Conversation
from .results import Number, Result, to_json
from .scoring import Ranked, RewardModel, as_messages, ranked
from .settings import FormatSettings, RewardsSettings, ScoringSettings, WinnerSettings, split_flag
from .terminal import log, progress, table, warn

SHOWN_PROMPTS = 5
WRITTEN_HERE = {"group": "completions written here"}
Model = RewardModel | ProcessRewardModel | Rewards
ScoredRanking = tuple[Ranking, list[float | None], list[dict[str, Any]] | None]
"""With its rewards, and columns of each completion: "steps" and "step_rewards", or "attributes"."""


@dataclass(frozen=True, kw_only=True)
class ScoreSettings(ScoringSettings, RewardsSettings, FormatSettings, WinnerSettings):
    group: ClassVar = "result"
    input: Sequence[str] | None = flag(
        None, "files, folders or hub ids with prompts and completions", group="data", metavar="DATA"
    )
    dataset_split: str | None = split_flag(None)
    prompt: str | None = flag(None, "one prompt, instead of --input", group="data", type=utf8)
    completions: Sequence[str] | None = flag(None, "its completions", group="data", type=utf8)
    generate_with: str | None = flag(
        None, "policy that writes --best_of N completions for each prompt", metavar="POLICY", **WRITTEN_HERE
    )
    temperature: float = flag(
        1.0,
        "of sampling; 0 takes the likeliest; ppo.py samples at 0.7 unless told",
        type=non_negative_number,
        **WRITTEN_HERE,
    )
    max_new_tokens: int | None = flag(
        None,
        "longest completion (256, or half of what the policy reads; ppo.py trains with 53 unless told)",
        metavar="TOKENS",
        **WRITTEN_HERE,
    )
    seed: int = flag(0, "of sampling", type=int, **WRITTEN_HERE)
    rank: bool = flag(False, "order each prompt's completions, best first; a row is a prompt: rows are not grouped")
    best_of: int | None = flag(None, "keep the best of each prompt's first N completions")
    normalize: bool = flag(False, "subtract the mean and divide by the standard deviation saved with the model")
    output: str | None = flag(
        None, "JSONL file for the scored rows (they are printed in the JSON on stdout without it)", metavar="FILE"
    )
    overwrite: bool = flag(False, "replace --output if it exists")
    write_card: str | None = flag(
        None,
        "file for a hash of the rendering and the rewards of fixed texts; where it is there already, it is compared with",
        metavar="FILE",
    )
    list_public_models: bool = flag(False, "show the known public reward models and how each is read, then stop")

    def __post_init__(self) -> None:
        if self.list_public_models:
            return
        if self.reward_model_path and self.model_name_or_path:
            raise UsageError("--model_name_or_path is one reward model, --reward_model_path several: give one of them")
        if self.write_card and (self.reward_model_path or self.rendered):
            what = "--write_card is of one model and its chat text"
            raise UsageError(what, hint="give one with --model_name_or_path")
        if not self.reward_model_path:
            check_required(self, ("model_name_or_path",), "score.py")
            if self.reward_weights or self.reward_combine != "sum":
                what = "--reward_weights and --reward_combine are for several models"
                raise UsageError(what, hint="give them with --reward_model_path A B")
        if bool(self.input) == bool(self.prompt is not None):
            raise UsageError("give either --input, or --prompt with --completions")
        if self.generate_with:
            self._check_generation()
        elif (self.prompt is None) != (self.completions is None):
            raise UsageError("--prompt and --completions belong together")
        if self.rank and self.best_of:
            raise UsageError(
                "--rank orders all completions, --best_of keeps one: choose one of them",
                hint=f"--rank writes all completions of a row, best first; --best_of {self.best_of} the best of its first "
                f"{self.best_of} alone",
            )

    def _check_generation(self) -> None:
        if self.completions:
            raise UsageError("--completions are given, --generate_with writes them: choose one of them")
        if not self.best_of:
            raise UsageError("--generate_with needs --best_of N: how many completions to write for each prompt")
        if self.seed < 0:
            raise UsageError(f"--seed is a whole number of at least 0, got {self.seed}")


@dataclass(frozen=True, kw_only=True)
class ScoringResult(Result):
    model: str
    prompts: int
    completions: int
    not_scored: int
    prompts_with_unscored: int
    truncated: int
    not_rendered: int
    templated: int
    special_tokens_in_content: int
    """Conversations that hold special tokens such as `<|im_end|>` in their texts."""
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


@dataclass(frozen=True)
class PublicModels(Result):
    public_models: list[dict[str, str]]


Output = ScoringResult | PublicModels


def list_public_models() -> PublicModels:
    found, names = families(), ["family", "models", "reward"]
    table("public models", names, [[one[name] for name in names] for one in found])
    return PublicModels(found)


def score(settings: ScoreSettings) -> ScoringResult:
    output = settings.output and check_output_file(settings.output, settings.overwrite, settings.input or ())
    several = settings.reward_model_path
    of_steps = not several and checkpoints.kind_of(settings.model_name_or_path) is checkpoints.PROCESS
    if of_steps and settings.normalize:
        raise UsageError("--normalize is for outcome reward models: step scores are probabilities")
    if settings.generate_with:
        from .training.prompts import written_rankings

        rankings, completions = written_rankings(settings)
    else:
        rankings, completions = read_rankings(settings, of_steps)
    if several:
        how = {"weights": settings.reward_weights, "combine": settings.reward_combine, "normalise": settings.normalize}
        model = Rewards.from_pretrained(several, **how, **settings.loading)
    else:
        model = process.from_settings(settings)
    if settings.write_card:
        difference = keep_card(model, settings.model_name_or_path, Path(settings.write_card), settings.dtype)
        state = "written" if difference is None else f"golden scores differ by at most {difference:.1e}"
        log(f"card {settings.write_card}: {state}")
    summary, moved, rows = RowSummary(settings), Counter(), None
    with progress("scoring", completions) as advance:
        scored = scored_rankings(model, rankings, settings, advance)
        lines = map(to_json, counted(summary.of(scored), moved))
        if output:
            write_whole(output, lines)
        else:
            rows = [json.loads(line) for line in lines]
    summary.show()
    model.warn_of_losses()
    summary.warn_of_lost_candidates()
    if output:
        log(f"wrote {summary.counts['prompts']} rows to {output}")
    counts = sum((one.renderer.counts for one in getattr(model, "models", {"": model}).values()), summary.counts)
    told = ["prompts", "completions", "not_scored", "prompts_with_unscored", "truncated"]
    told += ["not_rendered", "templated", "refused", "special_tokens_in_content"]
    more = {}
    if several:
        more |= {"reward_models": model.names, "reward_combine": model.combine, "reward_weights": model.weights}
    if settings.generate_with:
        more["policy"] = settings.generate_with
        told.append("unfinished")
    if of_steps:
        more["aggregate"] = model.aggregate
        told += ["steps", "steps_not_scored"]
    n = counts["completions"] - counts["not_scored"]
    return ScoringResult(
        model=settings.model_name_or_path or ", ".join(several),
        reward_mean=summary.total / n if n else None,
        output=str(output) if output else None,
        metadata_moved=tell_moved(moved),
        rows=rows,
        **{name: counts[name] for name in told},
        **more,
    )


def read_rankings(settings: ScoreSettings, of_steps: bool) -> tuple[Stream | list[Ranking], int]:
    """And how many completions. A file, which may be larger than memory, is read again slice by slice."""
    if settings.input:
        how = {"winner_values": settings.winner_values, "steps": of_steps, **settings.reading}
        rankings = stream(settings.input, split=settings.dataset_split, **how)
        log(f"{rankings.rows} rows of format {rankings.format}")
        return rankings, rankings.rows * settings.best_of if settings.best_of else rankings.completions
    completions = [as_messages(text, "assistant") for text in settings.completions]
    return [Ranking(as_messages(settings.prompt, "user"), completions)], len(completions)


def scored_rankings(
    model: Model, rankings: Iterable[Ranking], settings: ScoreSettings, advance: Callable[[int], None]
) -> Iterator[ScoredRanking]:
    """In input order. Raises DataError, which names all that the template refuses, where --refused stops."""
    refused: list[tuple[int, DataError]] = []
    seen, stops = 0, settings.refused == "stop"
    if renderer := getattr(model, "renderer", None):  # several models have one each, and stop at the first that refuses
        renderer.refused = refused
    for together in in_windows(rankings, settings.best_of):
        conversations = [
            Conversation(ranking.prompt, completion, ranking.tools, ranking.origin)
            for ranking in together
            for completion in ranking.completions
        ]
        seen += len(conversations)
        if refused and stops:  # look for the others, so that all are told
            model.render(conversations)
            continue
        scored = list(score_together(model, together, conversations, settings.normalize, advance))
        if not (refused and stops):
            yield from scored
    if refused and stops:
        error = refused_together(refused, seen)
        hint = f"score the others with --refused unscored, or {error.hint}"
        raise DataError(error.message, where=error.where, hint=hint)


def in_windows(rankings: Iterable[Ranking], best_of: int | None) -> Iterator[list[Ranking]]:
    """About WINDOW completions each, of each ranking the first `best_of`."""
    together, waiting = [], 0
    for ranking in rankings:
        n = best_of or len(ranking.completions)
        if len(ranking.completions) < n:
            what = f"the prompt has {len(ranking.completions)} completions, fewer than --best_of {n}"
            raise DataError(what, where=ranking.origin)
        together.append(
            replace(ranking, completions=ranking.completions[:n], scores=(ranking.scores or [])[:n] or None)
        )
        waiting += n
        if waiting >= WINDOW:
            yield together
            together, waiting = [], 0
    yield together


def score_together(
    model: Model, rankings: Sequence[Ranking], conversations: Sequence[Conversation], normalise: bool, advance: Callable
) -> Iterator[ScoredRanking]:
    columns = None
    if isinstance(model, ProcessRewardModel):
        scored = model.score_in_steps(conversations, advance)
        flat = [model.reward(scores) for _, scores in scored]
        columns = iter([{"steps": own, "step_rewards": step_rewards(own, scores)} for own, scores in scored])
    elif names := getattr(model, "attributes", ()):
        found = model.score_attributes(conversations, advance)
        flat = [own and own[0] for own in found]
        columns = iter([{"attributes": own and dict(zip(names, own[1:], strict=True))} for own in found])
    else:
        flat = model.score_conversations(conversations, advance)
    if normalise and not isinstance(model, Rewards):  # which does so with each model's own statistics
        flat = model.normalise(flat)
    scores = iter(flat)
    for ranking in rankings:
        several = len(ranking.completions)
        yield ranking, list(islice(scores, several)), columns and list(islice(columns, several))


class RowSummary:
    def __init__(self, settings: ScoreSettings):
        self.settings, self.counts, self.total, self.first_lost = settings, Counter(), 0.0, None
        self.first: list[list[Ranked]] = []

    def of(self, scored: Iterable[ScoredRanking]) -> Iterator[dict[str, Any]]:
        for ranking, scores, columns in scored:
            known = [score for score in scores if score is not None]
            rewards = [reward for own in columns or () for reward in own.get("step_rewards", ())]
            lost = len(scores) - len(known)
            counts = {
                "prompts": 1,
                "completions": len(scores),
                "not_scored": lost,
                "prompts_with_unscored": int(lost > 0),
            }
            self.counts.update(counts, steps=len(rewards), steps_not_scored=rewards.count(None))
            self.total += sum(known)
            if lost:
                self.first_lost = self.first_lost or ranking.origin
            if self.settings.generate_with:
                self.counts["unfinished"] += ranking.metadata["finished"].count(False)
            ordered = [Ranked(i, *pair) for i, pair in enumerate(zip(scores, ranking.completions, strict=True))]
            if self.settings.rank or self.settings.best_of:
                ordered = ranked(scores, ranking.completions)[: 1 if self.settings.best_of else None]
            if len(self.first) < SHOWN_PROMPTS:
                self.first.append(ordered)
            yield result_row(ranking, ordered, columns, self.settings)

    def warn_of_lost_candidates(self) -> None:
        lost, best = self.counts["prompts_with_unscored"], self.settings.best_of
        if lost and (self.settings.rank or best):
            first = f" (the first: {self.first_lost})" if self.first_lost else ""
            done = "the best is the best of the others" if best else "they stand last"
            prompts = self.counts["prompts"]
            warn(f"{lost} of {prompts} prompts lost candidates, which have no score: {done}{first}")

    def show(self) -> None:
        rows = [
            [i, item.score, " ".join(message.get("content") or "" for message in item.completion)[:80]]
            for i, items in enumerate(self.first, 1)
            for item in items
        ]
        prompts, completions = self.counts["prompts"], self.counts["completions"]
        which = f" of the first {SHOWN_PROMPTS} prompts" if prompts > SHOWN_PROMPTS else ""
        table(f"rewards{which}", ["prompt", "reward", "completion"], rows)
        if prompts < completions == self.counts["steps"]:
            warn(
                "no completion has more than one step: if a row's `completions` are the steps of one solution, "
                "say --columns steps=completions; if steps end otherwise, --step_separator"
            )


def result_row(
    ranking: Ranking, ordered: Sequence[Ranked], columns: list[dict[str, Any]] | None, settings: ScoreSettings
) -> dict[str, Any]:
    row = {name: value for name, value in (("id", ranking.id), ("tools", ranking.tools)) if value is not None}
    row["prompt"], metadata = ranking.prompt, dict(ranking.metadata)
    finished = metadata.pop("finished") if settings.generate_with else None
    own = [columns[item.index] for item in ordered] if columns else None
    if settings.best_of or (len(ordered) == 1 and not settings.rank):
        (best,) = ordered
        row |= {"finished": finished[best.index]} if finished else {}
        row |= {"completion": best.completion, "reward": best.score}
        row |= {"index": best.index} if settings.best_of else {}
        return with_metadata(row | (own[0] if own else {}), metadata)
    row |= {"completions": [item.completion for item in ordered], "rewards": [item.score for item in ordered]}
    if own:
        row |= {name: [one[name] for one in own] for name in own[0]}
    return with_metadata(row | ({"order": [item.index for item in ordered]} if settings.rank else {}), metadata)
