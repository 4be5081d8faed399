"""Rewards for the steps of solutions, and one reward for each solution made of them.

>>> from reward_modeling import ProcessRewardModel                                  # doctest: +SKIP
>>> model = ProcessRewardModel.from_pretrained("runs/prm")                          # doctest: +SKIP
>>> model.score_steps(["What is 2 + 2 + 2?"], [["2 + 2 = 4.", "4 + 2 = 7."]])       # doctest: +SKIP
[[0.97, 0.04]]
>>> model.score(["What is 2 + 2 + 2?"], [["2 + 2 = 4.", "4 + 2 = 7."]])             # doctest: +SKIP
[0.04]

The score of a step is softmax(logits)[1] at the last token of the separator behind it, in fp32: the probability that it is
correct given what came before. A decoder scores all steps of a solution in one pass, and the prompt of several solutions
once; an encoder needs a row for each step (`step_rendering.StepRenderer.rows`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from . import checkpoints, losses
from .completeness import said
from .console import DataError, ModelError, RunError, UsageError, log
from .data.records import Message
from .kinds import PROCESS
from .packing import pack, padded_batches, right_padded
from .rendering import OVERLONG
from .scoring import (
    PADDED_TOKENS,
    SCORING_ARGUMENTS,
    Ranked,
    RewardModel,
    Text,
    as_messages,
    ranked,
    row_tokens,
    set_length,
)
from .step_rendering import STEP_SEPARATOR, STEPS_OVERLONG, StepRenderer, split_steps

SolutionText = str | Sequence[str]
"""A solution: its steps, or one text that is split into steps."""

_NOT_ASKED = object()


def probability(logit: float) -> float:
    """1 / (1 + exp(-logit)): the softmax of two labels, from the difference of their logits. Does not overflow."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    return math.exp(logit) / (1 + math.exp(logit))


def from_arguments(args: Any, path: str | None = None) -> RewardModel | ProcessRewardModel:
    """The reward model that the flags describe, of whichever kind lies at `path`, by default `args.model_name_or_path`.

    Raises UsageError for flags of the other kind, ModelError when there is no reward model.
    """
    if checkpoints.kind_of(path or args.model_name_or_path) is PROCESS:
        return ProcessRewardModel.from_arguments(args, path)
    for name in ("aggregate", "step_separator"):
        if getattr(args, name) is not None:
            raise UsageError(
                f"--{name} is for process reward models, which score steps",
                hint="leave it out, or give a model that train_process.py made",
            )
    if args.overlong not in (None, *OVERLONG):
        raise UsageError(
            f"--overlong {args.overlong} is for process reward models", hint=f"choose {', '.join(OVERLONG)}"
        )
    return RewardModel.from_arguments(args, path)


# ---- one reward for a solution ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Aggregation:
    """How the steps of a solution become one reward: `reward` of their logits, log p / (1 - p)."""

    reward: Callable[[Sequence[float]], float]
    description: str
    source: str | None = None


AGGREGATIONS: dict[str, Aggregation] = {
    "min": Aggregation(lambda logits: probability(min(logits)), "the weakest step", "arXiv:2312.08935 (Math-Shepherd)"),
    "prod": Aggregation(
        lambda logits: math.prod(map(probability, logits)),
        "the probability that all steps are correct, if they were independent; prefers few steps",
        "arXiv:2305.20050 (Let's Verify Step by Step)",
    ),
    "mean": Aggregation(
        lambda logits: math.fsum(map(probability, logits)) / len(logits),
        "the mean over steps; many good steps hide one bad one",
    ),
    "last": Aggregation(
        lambda logits: probability(logits[-1]),
        "the last step, for a model trained on how solutions end",
        "arXiv:2408.03314",
    ),
    "max": Aggregation(lambda logits: probability(max(logits)), "the strongest step"),
    "sum_logit": Aggregation(math.fsum, "the sum of log p / (1 - p): evidence adds up, prefers many good steps"),
}
DEFAULT_AGGREGATE = "min"
"""One wrong step makes a solution wrong, and unlike `prod` and `sum_logit` it does not depend on how many steps there are."""


@dataclass(frozen=True)
class StepScores:
    """What the model made of one solution. logits: one for each step that fitted; the last `dropped` steps did not."""

    logits: list[float]
    dropped: int = 0

    @property
    def probabilities(self) -> list[float | None]:
        """The probability that each step is correct, None for those that did not fit."""
        return [*map(probability, self.logits), *[None] * self.dropped]


def step_rewards(steps: Sequence[str], scores: StepScores | None) -> list[float | None]:
    """The probability that each of the steps is correct; None for those that did not fit, and all of a solution left out."""
    return scores.probabilities if scores else [None] * len(steps)


# ---- the model ----------------------------------------------------------------------------------------------------


class ProcessRewardModel:
    """A process reward model and its rendering contract. Made by `from_pretrained`; the verbs are those of `RewardModel`.

    Step scores do not depend on the batch, on order or padding, or on the steps that follow. `aggregate` is the entry of
    AGGREGATIONS that makes a solution's reward, of the steps that fitted; a solution left out scores None.
    """

    def __init__(
        self,
        model: Any,
        renderer: StepRenderer,
        *,
        card: dict[str, Any] | None = None,
        max_tokens_per_batch: int | None = None,
        shared_prefix: bool | None = None,
        aggregate: str = DEFAULT_AGGREGATE,
        split_at: str | None = None,
    ):
        if aggregate not in AGGREGATIONS:
            raise ValueError(f"aggregate is one of {tuple(AGGREGATIONS)}, not {aggregate!r}")
        self.model, self.renderer, self.card, self.aggregate = model, renderer, card, aggregate
        self.max_tokens_per_batch, self.shared_prefix = max_tokens_per_batch, shared_prefix
        own = renderer.step_separator if renderer else STEP_SEPARATOR
        self.split_at = split_at or (own if own.isspace() else STEP_SEPARATOR)
        self.notes: list[str] = []
        self._why_padded: Any = _NOT_ASKED

    @classmethod
    def from_pretrained(
        cls,
        path: str,
        *,
        dtype: str = "float32",
        device: str | None = None,
        max_length: int | None = None,
        overlong: str | None = None,
        max_tokens_per_batch: int | None = None,
        shared_prefix: bool | None = None,
        text_format: str | None = None,
        refused: str = "stop",
        aggregate: str = DEFAULT_AGGREGATE,
        step_separator: str | None = None,
    ) -> ProcessRewardModel:
        """Load a process reward model from a folder or hub id.

        max_length, overlong: as in training unless given (see `StepRenderer`). shared_prefix, text_format, refused: as in
        `RewardModel.from_pretrained`. step_separator: where texts are split into
        steps, by default at the separator of the model if that is blank, else at line breaks; for a model without a card
        it is the model's separator too. Raises ModelError when it is no process reward model or renders text otherwise
        than it did in training, UsageError for an `overlong` of outcome models.
        """
        if overlong not in (None, *STEPS_OVERLONG):
            raise UsageError(
                f"--overlong {overlong} is for outcome reward models", hint=f"choose {', '.join(STEPS_OVERLONG)}"
            )
        loaded = checkpoints.load_process(path, dtype=dtype, device=device)
        trained = (loaded.card or {"rendering": {"step_separator": step_separator}}).get("rendering", {})
        trained = {**trained, "text_format": text_format or trained.get("text_format")}
        renderer = PROCESS.renderer(loaded.tokenizer, checkpoints.scored_at(loaded.model), trained)
        renderer.refused = [] if refused == "unscored" else None
        set_length(renderer, loaded, path, max_length)
        renderer.overlong = overlong or trained.get("overlong") or renderer.overlong
        made = cls(
            loaded.model,
            renderer,
            card=loaded.card,
            max_tokens_per_batch=max_tokens_per_batch,
            shared_prefix=shared_prefix,
            aggregate=aggregate,
            split_at=step_separator,
        )
        made.notes = [*loaded.notes, f"scoring: {made._way()}", f"reward of a solution: {aggregate} of its steps"]
        return made

    @classmethod
    def from_arguments(cls, args: Any, path: str | None = None) -> ProcessRewardModel:
        """The model that the flags of `arguments.add_scoring_arguments` and `add_process_arguments` describe."""
        model = cls.from_pretrained(
            path or args.model_name_or_path,
            aggregate=args.aggregate or DEFAULT_AGGREGATE,
            **{name: getattr(args, name) for name in (*SCORING_ARGUMENTS, "step_separator")},
        )
        for note in model.notes:
            log(note)
        return model

    def score_steps(self, prompts: Sequence[Text], solutions: Sequence[Any]) -> list[Any]:
        """The probability that each step is correct, in input order; None for steps that did not fit.

        prompts: [n] strings or message lists. solutions: [n], each one text or list of steps (-> a list of floats) or a
        list of lists of steps (-> a list of such lists).
        """
        return self._score(prompts, solutions, step_rewards)

    def score(self, prompts: Sequence[Text], solutions: Sequence[Any]) -> list[Any]:
        """The reward of each solution, in input order: its steps, aggregated. Shapes as in `score_steps`."""
        return self._score(prompts, solutions, lambda steps, scores: self.reward(scores))

    def rank(self, prompt: Text, solutions: Sequence[SolutionText]) -> list[Ranked]:
        """The solutions of one prompt, best first; equal rewards keep their input order, unscored ones come last."""
        split = [self.split(solution) for solution in solutions]
        before = dict(self.renderer.counts)
        scores = self.score_solutions([(as_messages(prompt, "user"), steps, None) for steps in split])
        self.warn_of_losses(before)
        return ranked([self.reward(row) for row in scores], solutions)

    def reward(self, scores: StepScores | None) -> float | None:
        """One reward for the solution, or None when it was not scored."""
        return None if scores is None else AGGREGATIONS[self.aggregate].reward(scores.logits)

    def split(self, solution: SolutionText) -> list[str]:
        """The steps of a solution: a text is split, steps stay as they are."""
        return split_steps(solution, self.split_at) if isinstance(solution, str) else list(solution)

    def score_conversations(
        self, conversations: Sequence[tuple], progress: Callable[[int], None] | None = None
    ) -> list[float | None]:
        """Rewards of (prompt messages, completion messages, tools, where), as `RewardModel` gives. See `score_in_steps`."""
        return [self.reward(scores) for _, scores in self.score_in_steps(conversations, progress)]

    def render(self, conversations: Sequence[tuple]) -> list[Any]:
        """As `RewardModel.render`, for completions that have steps."""
        split = [
            (prompt, self._steps_of(answer, tools, where), where) for prompt, answer, tools, where in conversations
        ]
        return self.renderer.render_all([solution for solution in split if solution[1]])

    def score_in_steps(
        self, conversations: Sequence[tuple], progress: Callable[[int], None] | None = None
    ) -> list[tuple[list[str], StepScores | None]]:
        """(steps, their scores) of (prompt messages, completion messages, tools, where): texts are split into steps.

        The scores are None for what was left out, and for a blank completion, which has no step. Raises DataError for a
        completion of several turns, ModelError for tools: process reward models are trained without.
        """
        split = [self._steps_of(completion, tools, where) for _, completion, tools, where in conversations]
        kept = [i for i, steps in enumerate(split) if steps]
        blank = len(split) - len(kept)
        self.renderer.counts["without_steps"] += blank
        scored: list[StepScores | None] = [None] * len(split)
        solutions = [(conversations[i][0], split[i], conversations[i][3]) for i in kept]
        for place, scores in zip(kept, self.score_solutions(solutions, progress), strict=True):
            scored[place] = scores
        if progress and blank:
            progress(blank)
        return list(zip(split, scored, strict=True))

    def score_solutions(
        self, solutions: Sequence[tuple], progress: Callable[[int], None] | None = None
    ) -> list[StepScores | None]:
        """Step scores of (prompt messages, steps, where), in input order; None for what the over-length policy left out.

        `progress` is called with the number of solutions whose last step a forward pass has finished.
        """
        rendered = self.renderer.render_all(solutions)
        rows = [[] if solution is None else self.renderer.rows(solution) for solution in rendered]
        flat = iter(self.score_rows([row for own in rows for row in own], progress and _by_solution(rows, progress)))
        return [
            StepScores([logit for _ in own for logit in next(flat)], solution.dropped) if solution else None
            for solution, own in zip(rendered, rows, strict=True)
        ]

    def score_rows(
        self, rows: Sequence[tuple[list[int], list[int]]], progress: Callable[[list[int]], None] | None = None
    ) -> list[list[float]]:
        """The logits at each row's positions. rows: (ids, ascending positions), the last position at the end of the ids.

        `progress` is called with the numbers of the rows that are done. Raises RunError when a logit is no finite number.
        """
        import torch

        scores: list[list[float]] = [[] for _ in rows]
        with torch.inference_mode():
            for places, logits in self._batches(rows):
                values = iter(logits.tolist())
                for place in places:
                    scores[place] = [next(values) for _ in rows[place][1]]
                if progress:
                    progress(places)
        bad = [i for i, row in enumerate(scores) if not all(map(math.isfinite, row))]
        if bad:
            raise RunError(
                f"the model gave scores that are not finite numbers in {len(bad)} rows, the first is {bad[0] + 1}",
                hint="score with --dtype float32",
            )
        return scores

    @property
    def truncated(self) -> int:
        """Solutions whose prompt was cut so far because they were longer than the model reads."""
        return self.renderer.counts["truncated"]

    def warn_of_losses(self, before: dict[str, int] | None = None) -> None:
        """Say on stderr what was unscored or cut after `before`, a copy of `renderer.counts`, or ever."""
        losses.warn_of(self.renderer, before)

    def why_padded(self) -> str | None:
        """Why shared beginnings are computed again for each row, or None where they are computed once."""
        if self._why_padded is _NOT_ASKED:
            self._why_padded = reason_against(checkpoints.unwrapped(self.model), self.renderer, self.shared_prefix)
        return self._why_padded

    def _score(self, prompts, solutions, result: Callable[[list[str], StepScores | None], Any]) -> list[Any]:
        if len(prompts) != len(solutions):
            raise ValueError(f"{len(prompts)} prompts but {len(solutions)} solutions")
        several = [_is_several(solution) for solution in solutions]
        rows = [
            (as_messages(prompt, "user"), self.split(one), None)
            for prompt, solution, many in zip(prompts, solutions, several, strict=True)
            for one in (solution if many else [solution])
        ]
        before = dict(self.renderer.counts)
        scored = self.score_solutions(rows)
        self.warn_of_losses(before)
        flat = iter(result(steps, scores) for scores, (_, steps, _) in zip(scored, rows, strict=True))
        return [
            [next(flat) for _ in solution] if many else next(flat)
            for solution, many in zip(solutions, several, strict=True)
        ]

    def _steps_of(self, completion: Sequence[Message], tools: Any, where: Any) -> list[str]:
        place = str(where) if where else None
        if tools:
            raise ModelError("a process reward model reads no `tools`", where=place, hint="drop them: --columns tools=")
        if len(completion) != 1:
            raise DataError(f"the completion has {len(completion)} messages, not one text of steps", where=place)
        unread = said(completion[0])
        if unread:
            raise DataError(
                f"a process reward model reads steps, not `{'` and `'.join(unread)}`",
                where=place,
                hint="move them into the steps, or drop these rows",
            )
        return self.split(completion[0].get("steps") or completion[0].get("content") or "")

    def _way(self) -> str:
        if self.renderer.scored_at == "prefix":
            return "one row for each step, since an encoder would otherwise see the steps that follow"
        padded = self.why_padded()
        way = "shared beginnings are computed once" if padded is None else f"batches are padded, since {padded}"
        return f"all steps of a solution in one pass, {way}"

    def _batches(self, rows: Sequence[tuple[list[int], list[int]]]) -> Iterator[tuple[list[int], Any]]:
        """(numbers of rows, the fp32 logits of all their positions, one row after the other) of batch after batch."""
        import torch

        if self.why_padded():
            keys = [(tuple(ids), tuple(positions)) for ids, positions in rows]
            for batch in padded_batches(keys, [ids for ids, _ in rows], self.max_tokens_per_batch or PADDED_TOKENS):
                logits = self._forward([rows[equal[0]] for equal in batch])
                own = logits.split([len(rows[equal[0]][1]) for equal in batch])
                copies = [part for part, equal in zip(own, batch, strict=True) for _ in equal]
                yield list(chain(*batch)), torch.cat(copies)
            return
        from .attention import shared_prefix

        base = checkpoints.unwrapped(self.model)
        with shared_prefix(base):
            for packed in pack([ids for ids, _ in rows], row_tokens(base, self.max_tokens_per_batch)):
                yield packed.sequences, packed_logits(base, packed, [rows[i][1] for i in packed.sequences])

    def _forward(self, rows: list[tuple[list[int], list[int]]]) -> Any:
        """[positions of all rows] logits of one right-padded batch."""
        device = next(self.model.parameters()).device
        ids, mask = right_padded([ids for ids, _ in rows], self.renderer.tokenizer.pad_token_id)
        logits = self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
        owners = [i for i, (_, positions) in enumerate(rows) for _ in positions]
        return _log_odds(logits[owners, [place for _, positions in rows for place in positions]])


def packed_logits(model: Any, row: Any, positions: Sequence[Sequence[int]]) -> Any:
    """[positions of all sequences] logits of a packed row. positions: of each sequence, in the order of `row.sequences`.

    Inside a `shared_prefix(model)` block. The head reads the scored tokens alone.
    """
    from .attention import outputs_at

    places = [place for i, offsets in enumerate(positions) for place in row.places(i, offsets)]
    return _log_odds(outputs_at(model, getattr(model, checkpoints.head_name(model)), row, places))


def reason_against(model: Any, renderer: StepRenderer | None = None, wanted: bool | None = None) -> str | None:
    """Why this model is not run on packed rows, or None when it is: `attention.reason_against`, of its trunk.

    The trunk is that of the same architecture's sequence classifier, so that a small one of those is checked. Only its
    head differs, and a token's head reads nothing but that token.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    from . import attention

    if renderer is not None and renderer.scored_at == "prefix":
        return "it reads in both directions, as encoders do"
    with torch.random.fork_rng(devices=[]):
        try:
            small = attention.shrunken(model.config, head_dim=attention.head_width(model.config))
            sibling = AutoModelForSequenceClassification.from_config(small)
        except Exception as error:
            return f"a small model of its architecture could not be made ({type(error).__name__})"
    trunks = [type(getattr(one, one.base_model_prefix)) for one in (model, sibling)]
    if trunks[0] is not trunks[1]:
        return f"its trunk {trunks[0].__name__} is not that of a sequence classifier"
    return attention.reason_against(sibling.to(model.device, model.dtype), wanted)


def _log_odds(logits: Any) -> Any:
    """[n] log p / (1 - p) of label 1 from [n, 2] logits, in fp32 (or float64)."""
    import torch

    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits[:, 1] - logits[:, 0]


def _by_solution(rows: list[list], progress: Callable[[int], None]) -> Callable[[list[int]], None]:
    """Turns the numbers of rows that are done into the number of solutions that are now done."""
    owner = [i for i, own in enumerate(rows) for _ in own]
    left = [len(own) for own in rows]

    def done(places: list[int]) -> None:
        finished = 0
        for place in places:
            left[owner[place]] -= 1
            finished += left[owner[place]] == 0
        progress(finished)

    return done


def _is_several(solution: Any) -> bool:
    """Whether this is a list of solutions, each a list of steps, rather than one."""
    return not isinstance(solution, str) and bool(solution) and not isinstance(solution[0], str)
