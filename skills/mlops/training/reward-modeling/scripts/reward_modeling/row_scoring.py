"""Rows of a file, or what a policy writes for prompts, scored one window at a time, and written with their rewards."""

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
from .cli import check_required, flag, non_negative_number, utf8
from .console import DataError, UsageError, check_output_file, log, progress, table, to_json, warn, write_whole
from .data.reading import Stream, stream
from .data.records import Ranking
from .data.writing import counted, tell_moved, with_metadata
from .ensemble import Rewards
from .golden import keep_card
from .packing import WINDOW
from .process import ProcessRewardModel
from .readers import families
from .rendering import Conversation, refused_together
from .results import Number, Result
from .scoring import Ranked, RewardModel, ranked
from .settings import FormatSettings, RewardsSettings, ScoringSettings, WinnerSettings, split_flag

SHOWN_PROMPTS = 5
Model = RewardModel | ProcessRewardModel | Rewards
ScoredRanking = tuple[Ranking, list[float | None], list[dict[str, Any]] | None]
"""A ranking, the rewards of its completions, and columns of each: "steps" and "step_rewards", or "attributes"."""


@dataclass(frozen=True, kw_only=True)
class ScoreSettings(ScoringSettings, RewardsSettings, FormatSettings, WinnerSettings):
    """What to score, with what, and what to write. Raises UsageError for settings that do not go together."""

    group: ClassVar = "result"
    input: Sequence[str] | None = flag(
        None, "files, folders or hub ids with prompts and completions", group="data", metavar="DATA"
    )
    dataset_split: str | None = split_flag(None)
    prompt: str | None = flag(None, "one prompt, instead of --input", group="data", type=utf8)
    completions: Sequence[str] | None = flag(None, "its completions", group="data", type=utf8)
    generate_with: str | None = flag(
        None,
        "folder or hub id of a policy that writes --best_of N completions for each prompt of --input or --prompt",
        group="completions written here",
        metavar="POLICY",
    )
    temperature: float = flag(
        1.0,
        "of sampling; 0 takes the likeliest; ppo.py samples at 0.7 unless told",
        group="completions written here",
        type=non_negative_number,
    )
    max_new_tokens: int | None = flag(
        None,
        "longest completion (256, or half of what the policy reads; ppo.py trains with 53 unless told)",
        group="completions written here",
        metavar="TOKENS",
    )
    seed: int = flag(0, "of sampling", group="completions written here", type=int)
    rank: bool = flag(False, "order each prompt's completions, best first; a row is a prompt: rows are not grouped")
    best_of: int | None = flag(None, "keep the best of each prompt's first N completions")
    normalize: bool = flag(False, "subtract the mean and divide by the standard deviation saved with the model")
    output: str | None = flag(
        None,
        "JSONL file for the scored rows (they are printed in the JSON on stdout without it)",
        metavar="FILE",
    )
    overwrite: bool = flag(False, "replace --output if it exists")

    write_card: str | None = flag(
        None,
        "file for a hash of the rendering and the rewards of fixed texts; where it is there already, it is compared with",
        metavar="FILE",
    )
    list_public_models: bool = flag(
        False, "show the public reward models that are known and how each is read, then stop"
    )

    def __post_init__(self) -> None:
        if self.list_public_models:
            return
        self._check_models()
        if bool(self.input) == bool(self.prompt is not None):
            raise UsageError("give either --input, or --prompt with --completions")
        if self.generate_with:
            self._check_generation()
        elif (self.prompt is None) != (self.completions is None):
            raise UsageError("--prompt and --completions belong together")
        if self.rank and self.best_of:
            raise UsageError(
                "--rank orders all completions, --best_of keeps one: choose one of them",
                hint=f"--rank writes all completions of a row, best first; --best_of {self.best_of} writes one, the best of its "
                f"first {self.best_of} (in a row of {self.best_of}, the first of --rank)",
            )

    def _check_models(self) -> None:
        if self.reward_model_path and self.model_name_or_path:
            raise UsageError("--model_name_or_path is one reward model, --reward_model_path several: give one of them")
        if self.write_card and (self.reward_model_path or self.rendered):
            raise UsageError(
                "--write_card is of one model and its chat text", hint="give one with --model_name_or_path"
            )
        if self.reward_model_path:
            return
        check_required(self, ("model_name_or_path",), "score.py")
        if self.reward_weights or self.reward_combine != "sum":
            raise UsageError(
                "--reward_weights and --reward_combine are for several models",
                hint="give them with --reward_model_path A B",
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
    """The families of `readers.PUBLIC`, as a table on stderr too."""
    found = families()
    table(
        "public models",
        ["family", "models", "reward"],
        [[one[name] for name in ("family", "models", "reward")] for one in found],
    )
    return PublicModels(found)


def score(settings: ScoreSettings) -> ScoringResult:
    """Score all rows; the result that score.py prints. Errors are those of its parts: UsageError, DataError, ModelError."""
    output = None
    if settings.output:
        output = check_output_file(settings.output, settings.overwrite, settings.input or ())
    of_steps = (
        not settings.reward_model_path and checkpoints.kind_of(settings.model_name_or_path) is checkpoints.PROCESS
    )
    if of_steps and settings.normalize:
        raise UsageError("--normalize is for outcome reward models: step scores are probabilities")
    if settings.generate_with:
        from .training.prompts import written_rankings

        rankings, completions = written_rankings(settings)
    else:
        rankings, completions = read_rankings(settings, of_steps)
    model = load_model(settings)
    if settings.write_card and not isinstance(model, Rewards):
        difference = keep_card(model, settings.model_name_or_path, Path(settings.write_card), settings.dtype)
        told = "written" if difference is None else f"golden scores differ by at most {difference:.1e}"
        log(f"card {settings.write_card}: {told}")
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
        log(f"wrote {summary.prompts} rows to {output}")
    counts = sum((one.renderer.counts for one in getattr(model, "models", {"": model}).values()), Counter())
    more = {}
    if isinstance(model, Rewards):
        more |= {"reward_models": model.names, "reward_combine": model.combine, "reward_weights": model.weights}
    if settings.generate_with:
        more |= {"policy": settings.generate_with, "unfinished": summary.unfinished}
    if of_steps:
        more |= {"aggregate": model.aggregate, "steps": summary.steps, "steps_not_scored": summary.steps_not_scored}
    return ScoringResult(
        model=settings.model_name_or_path or ", ".join(settings.reward_model_path),
        prompts=summary.prompts,
        completions=summary.completions,
        not_scored=summary.completions - summary.scored,
        prompts_with_unscored=summary.lost,
        truncated=model.truncated,
        **{name: counts[name] for name in ("not_rendered", "templated", "refused", "special_tokens_in_content")},
        reward_mean=summary.total / summary.scored if summary.scored else None,
        output=str(output) if output else None,
        metadata_moved=tell_moved(moved),
        rows=rows,
        **more,
    )


def load_model(settings: ScoreSettings) -> Model:
    """The one reward model, or `Rewards` of several."""
    if not settings.reward_model_path:
        return process.from_settings(settings)
    how = {"weights": settings.reward_weights, "combine": settings.reward_combine, "normalise": settings.normalize}
    return Rewards.from_pretrained(settings.reward_model_path, **how, **settings.loading)


def read_rankings(settings: ScoreSettings, of_steps: bool) -> tuple[Stream | list[Ranking], int]:
    """What to score, as rankings (a prompt with one or more completions each), and how many completions it is in all.

    The rankings of a file are read again from it, a slice at a time: it may be larger than memory.
    """
    if settings.input:
        how = {"winner_values": settings.winner_values, "steps": of_steps, **settings.reading}
        rankings = stream(settings.input, split=settings.dataset_split, **how)
        log(f"{rankings.rows} rows of format {rankings.format}")
        return rankings, rankings.rows * settings.best_of if settings.best_of else rankings.completions
    prompt = [{"role": "user", "content": settings.prompt}] if settings.prompt else []
    completions = [[{"role": "assistant", "content": text}] for text in settings.completions]
    return [Ranking(prompt, completions)], len(completions)


# ---- scores ---------------------------------------------------------------------------------------------------------


def scored_rankings(
    model: Model, rankings: Iterable[Ranking], settings: ScoreSettings, advance: Callable[[int], None]
) -> Iterator[ScoredRanking]:
    """All rankings with their scores, in input order, scored together as many as a plan takes.

    Raises DataError where the chat template refuses some and --refused stops, after a look for all of them.
    """
    renderer = getattr(model, "renderer", None)  # several models have one each, and stop at the first that refuses
    refused: list[tuple[int, DataError]] = []
    seen, scored, stops = 0, [], settings.refused == "stop"
    if renderer:
        renderer.refused = refused
    for together in in_windows(rankings, settings.best_of):
        conversations = [
            Conversation(ranking.prompt, completion, ranking.tools, ranking.origin)
            for ranking in together
            for completion in ranking.completions
        ]
        if refused and stops:  # look for the others, so that all are told
            model.render(conversations)
        else:
            scored = list(score_together(model, together, conversations, settings.normalize, advance))
        seen += len(conversations)
        if not (refused and stops):
            yield from scored
    if refused and stops:
        error = refused_together(refused, seen)
        hint = f"score the others with --refused unscored, or {error.hint}"
        raise DataError(error.message, where=error.where, hint=hint)


def in_windows(rankings: Iterable[Ranking], best_of: int | None) -> Iterator[list[Ranking]]:
    """Lists of rankings with about WINDOW completions, only the first `best_of` of each ranking."""
    together, waiting = [], 0
    for ranking in rankings:
        together.append(first_completions(ranking, best_of) if best_of else ranking)
        waiting += len(together[-1].completions)
        if waiting >= WINDOW:
            yield together
            together, waiting = [], 0
    yield together


def first_completions(ranking: Ranking, n: int) -> Ranking:
    """The ranking with only its first n completions. Raises DataError when it has fewer."""
    if len(ranking.completions) < n:
        raise DataError(
            f"the prompt has {len(ranking.completions)} completions, fewer than --best_of {n}",
            where=str(ranking.origin) if ranking.origin else None,
        )
    return replace(ranking, completions=ranking.completions[:n], scores=ranking.scores[:n] if ranking.scores else None)


def score_together(
    model: Model,
    rankings: Sequence[Ranking],
    conversations: Sequence[Conversation],
    normalise: bool,
    advance: Callable[[int], None],
) -> Iterator[ScoredRanking]:
    """Rankings with the scores of their completions, which are the conversations."""
    steps = None
    if isinstance(model, ProcessRewardModel):
        scored = model.score_in_steps(conversations, advance)
        flat = [model.reward(scores) for _, scores in scored]
        steps = iter([{"steps": own, "step_rewards": step_rewards(own, scores)} for own, scores in scored])
    elif names := getattr(model, "attributes", ()):
        found = model.score_attributes(conversations, advance)
        flat = [own and own[0] for own in found]
        steps = iter([{"attributes": own and dict(zip(names, own[1:], strict=True))} for own in found])
    else:
        flat = model.score_conversations(conversations, advance)
    if normalise and not isinstance(model, Rewards):  # which does so with each model's own statistics
        flat = model.normalise(flat)
    scores = iter(flat)
    for ranking in rankings:
        several = len(ranking.completions)
        yield ranking, list(islice(scores, several)), steps and list(islice(steps, several))


# ---- rows and their summary -----------------------------------------------------------------------------------------


class RowSummary:
    """What is said of all rows after the last: counts, the mean, and the first few for a look."""

    def __init__(self, settings: ScoreSettings):
        self.settings = settings
        self.prompts = self.completions = self.scored = self.unfinished = self.steps = self.steps_not_scored = 0
        self.total, self.lost, self.first_lost = 0.0, 0, None
        self.first: list[list[Ranked]] = []

    def of(self, scored: Iterable[ScoredRanking]) -> Iterator[dict[str, Any]]:
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
            rewards = [reward for own in steps or () for reward in own.get("step_rewards", ())]
            self.steps += len(rewards)
            self.steps_not_scored += rewards.count(None)
            if self.settings.generate_with:
                self.unfinished += ranking.metadata["finished"].count(False)
            ordered = in_order(ranking, scores, self.settings)
            if len(self.first) < SHOWN_PROMPTS:
                self.first.append(ordered)
            yield result_row(ranking, ordered, steps, self.settings)

    def warn_of_lost_candidates(self) -> None:
        """Say when a prompt's best was chosen without all of its candidates: a better one may have been left out."""
        if self.lost and (self.settings.rank or self.settings.best_of):
            first = f" (the first: {self.first_lost})" if self.first_lost else ""
            done = "the best is the best of the others" if self.settings.best_of else "they stand last"
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


def in_order(ranking: Ranking, scores: Sequence[float | None], settings: ScoreSettings) -> list[Ranked]:
    """The completions as they are written: best first with --rank, the best alone with --best_of, else in their order."""
    if settings.rank or settings.best_of:
        return ranked(scores, ranking.completions)[: 1 if settings.best_of else None]
    return [Ranked(i, *pair) for i, pair in enumerate(zip(scores, ranking.completions, strict=True))]


def result_row(
    ranking: Ranking, ordered: Sequence[Ranked], steps: list[dict[str, Any]] | None, settings: ScoreSettings
) -> dict[str, Any]:
    """One output row: the ranking's own columns with its completions in their order, or the best, and their rewards."""
    row = {name: value for name, value in (("id", ranking.id), ("tools", ranking.tools)) if value is not None}
    row["prompt"], metadata = ranking.prompt, dict(ranking.metadata)
    finished = metadata.pop("finished") if settings.generate_with else None
    own = [steps[item.index] for item in ordered] if steps else None
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
