"""Reward models as a program uses them: conversations in, rewards out. Rendered by `rendering`, computed by `forward`.

>>> from reward_modeling import RewardModel                                         # doctest: +SKIP
>>> model = RewardModel.from_pretrained("runs/hh")                                  # doctest: +SKIP
>>> model.score(["What is 2 + 2?"], ["4."])                                         # doctest: +SKIP
[1.31]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar, Self

from . import checkpoints, losses, public_models
from .console import RunError, UsageError
from .data.records import Message
from .hf import Model
from .kinds import KINDS, OUTCOME, Kind
from .lengths import DEFAULT_MAX_LENGTH, longest_input, positions
from .packing import WINDOW
from .rendering import Conversation

Text = str | Sequence[Message]
"""A prompt or a completion: a string (one user or assistant turn) or a list of messages."""


@dataclass(frozen=True)
class Ranked:
    """One completion of a prompt: its place in the input, its reward, and itself."""

    index: int
    score: float | None
    completion: Text


class Scorer:
    """What both kinds of reward model have in common: how they are loaded, and their verbs.

    Scores do not depend on the batch they were computed in, on order or on padding: the difference to scoring one at a
    time stays under 1e-5 in fp32. A completion that the over-length policy leaves out scores None.
    """

    kind: ClassVar[Kind]
    compares: ClassVar[bool] = False
    """Whether it compares the answers of a prompt, so that its rewards hold there only."""

    def __init__(
        self,
        model: Model,
        renderer: Any,
        *,
        card: dict[str, Any] | None = None,
        max_tokens_per_batch: int | None = None,
        shared_prefix: bool | None = None,
    ):
        self.model, self.renderer, self.card = model, renderer, card
        self.max_tokens_per_batch, self.shared_prefix = max_tokens_per_batch, shared_prefix
        self.notes: list[str] = []

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
        chat_template_path: str | None = None,
        refused: str = "stop",
        reference_model_name_or_path: str | None = None,
        **own: Any,
    ) -> Self:
        """Load a reward model from a folder or hub id.

        max_length, overlong, text_format ("chat", "rendered", "pair"): as in training unless given; a model without a card
        reads what its authors did (`readers.PUBLIC`), or all that its config and tokenizer allow. chat_template_path: over
        that of such a model. refused: "stop" raises DataError for conversations that cannot be rendered, "unscored" gives
        them no score. dtype: of the weights; the head stays fp32. shared_prefix: compute shared prefixes once; None does so
        on CPUs, True also on a GPU. reference_model_name_or_path: of a language model whose reward is a log-ratio. own:
        arguments of this kind of model, those of its class. Raises ModelError when it is not a reward model of this kind or
        renders text otherwise than it did in training, UsageError for an `overlong` of the other kind.
        """
        policies = cls.kind.renders.policies
        if overlong not in (None, *policies):
            other = next(kind for kind in KINDS.values() if kind is not cls.kind)
            what = f"--overlong {overlong} is for {other.name} reward models"
            raise UsageError(what, hint=f"choose {', '.join(policies)}")
        run = {"dtype": dtype, "device": device, "kind": cls.kind, "compares": cls.compares}
        loaded, family = public_models.load_any(path, reference_model_name_or_path, **run)
        trained = loaded.rendering or own
        trained = {**trained, "text_format": text_format or trained.get("text_format")}
        family = public_models.overridden(path, loaded, family, text_format, chat_template_path)
        if family or reference_model_name_or_path:
            renderer = public_models.renderer_of(loaded, family, path, text_format, own.get("step_separator"))
        else:
            renderer = cls.kind.renderer(loaded.tokenizer, checkpoints.scored_at(loaded.model), trained)
        renderer.refused = [] if refused == "unscored" else None
        renderer.overlong = overlong or trained.get("overlong") or renderer.overlong
        _set_length(renderer, loaded, max_length)
        run = {"max_tokens_per_batch": max_tokens_per_batch, "shared_prefix": shared_prefix}
        made = cls(loaded.model, renderer, card=loaded.card, **run, **own)
        made.notes = [*loaded.notes, *made._described()]
        return made

    # ---- verbs ------------------------------------------------------------------------------------------------

    def score(
        self, prompts: Sequence[Text], completions: Sequence[Any], *, tools: Sequence[list[dict] | None] | None = None
    ) -> list[Any]:
        """The reward of each completion, in input order.

        prompts: [n] strings or message lists. completions: [n], each one completion (-> one float) or a list of
        completions (-> a list of floats). One is a string, or a list of messages, of a process reward model of steps.
        """
        return self._shaped(prompts, completions, tools, self._rewards)

    def rank(self, prompt: Text, completions: Sequence[Any], *, tools: list[dict] | None = None) -> list[Ranked]:
        """The completions of one prompt, best first; equal scores keep their input order, unscored ones come last."""
        return ranked(self._telling(self._rewards, [(prompt, one, tools) for one in completions]), completions)

    def score_conversations(
        self, conversations: Sequence[Conversation], progress: Callable[[int], None] | None = None
    ) -> list[float | None]:
        """Rewards in input order; None for what was left out. Raises RunError for a reward that is not finite.

        `progress` is called with the number of conversations that a forward pass has finished.
        """
        raise NotImplementedError

    def render(self, conversations: Sequence[Conversation]) -> list[Any]:
        """What the renderer makes of the conversations that have something to score, None for what it leaves out."""
        return self.renderer.render_all([one for one in self._inputs(conversations) if one])

    @property
    def truncated(self) -> int:
        """Conversations cut so far because they were longer than the model reads."""
        return self.renderer.counts["truncated"]

    def warn_of_losses(self, before: dict[str, int] | None = None) -> None:
        """Say on stderr what was lost after `before`, a copy of `renderer.counts`, or ever."""
        losses.warn_of(self.renderer, before)

    def why_padded(self) -> str | None:
        """Why shared prefixes are computed again for each row, or None where they are computed once."""
        return self._why_padded

    # ---- what a kind of model says ----------------------------------------------------------------------------

    _inputs: Callable[[Sequence[Conversation]], list[Any]]
    """What the renderer takes, None where there is nothing to score."""
    _rewards: Callable[[Sequence[tuple[Text, Any, Any]]], list[float | None]]
    """Of (prompt, one completion, tools)."""
    _is_several: Callable[[Any], bool]
    """Whether this is a list of completions rather than one."""
    _rows: Callable[[Any], list[tuple[list[int], list[int]]]]
    """(ids, positions) of each row to compute, of what the renderer made."""

    def _described(self) -> list[str]:
        """How it is run, for the log."""
        return [f"scoring: {self._way()}"]

    # ---- the path of all scores -------------------------------------------------------------------------------

    @cached_property
    def _why_padded(self) -> str | None:
        from .guard import reason_against

        scored_at = self.renderer.scored_at if self.renderer else "last_token"
        return reason_against(checkpoints.unwrapped(self.model), self.shared_prefix, scored_at)

    def _way(self) -> str:
        padded = self.why_padded()
        return "shared prefixes are computed once" if padded is None else f"batches are padded, since {padded}"

    def _shaped(self, prompts, completions, tools, score: Callable[[list[tuple]], list]) -> list[Any]:
        """`score` of each completion, in lists where several were given. Says what was lost on the way."""
        if len(prompts) != len(completions):
            raise ValueError(f"{len(prompts)} prompts but {len(completions)} completions")
        several = [self._is_several(completion) for completion in completions]
        asked = [
            (prompt, one, tools[i] if tools else None)
            for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
            for one in (completion if several[i] else [completion])
        ]
        flat = iter(self._telling(score, asked))
        return [
            [next(flat) for _ in completion] if many else next(flat)
            for completion, many in zip(completions, several, strict=True)
        ]

    def _telling(self, score: Callable[[list[tuple]], list], asked: list[tuple]) -> list[Any]:
        before = dict(self.renderer.counts)
        scores = score(asked)
        self.warn_of_losses(before)
        return scores

    def _scored(self, inputs: Sequence[Any], progress: Callable[[int], None] | None) -> list[Any]:
        """(what the renderer made of it, the scores at its positions) of each input; None for what was left out.

        As many as are planned together are rendered together, so that memory is bounded.
        """
        found: list[Any] = []
        for start in range(0, len(inputs), WINDOW):
            part = inputs[start : start + WINDOW]
            rendered = self.renderer.render_all(part)
            rows = [[] if one is None else self._rows(one) for one in rendered]
            flat = iter(self.score_rows(list(chain(*rows)), progress and _by_input(rows, progress)))
            scores = [[score for _ in own for score in next(flat)] for own in rows]
            _check_finite(scores, [one.origin for one in part], start)
            found += [one and (one, own) for one, own in zip(rendered, scores, strict=True)]
        return found

    def score_rows(
        self, rows: Sequence[tuple[list[int], list[int]]], progress: Callable[[list[int]], None] | None = None
    ) -> list[list[float]]:
        """The scores at the positions of each row of (ids, ascending positions); those of steps are log-odds.

        `progress` is called with the numbers of the rows that are done.
        """
        from .forward import logits_at, values_of

        scores: list[list[float]] = [[] for _ in rows]
        run = {"pad_token_id": self._pad_token_id, "max_tokens": self.max_tokens_per_batch}
        for numbers, logits in logits_at(self.model, rows, padded=bool(self.why_padded()), **run):
            own = values_of(self.model, logits, [len(rows[number][1]) for number in numbers])
            for number, values in zip(numbers, own, strict=True):
                scores[number] = values
            if progress:
                progress(numbers)
        return scores

    @property
    def _pad_token_id(self) -> int:
        """The token by which the model finds the end of a row: its config's, which a foreign tokenizer may not share."""
        configured = self.model.config.get_text_config().pad_token_id
        return self.renderer.tokenizer.pad_token_id if configured is None else configured


class RewardModel(Scorer):
    """An outcome reward model and its rendering contract. Made by `from_pretrained`. Scores are raw fp32 logits."""

    kind = OUTCOME

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of what a public model gives beside its reward."""
        return getattr(getattr(self.model, "score", None), "attributes", ())

    def score_conversations(
        self, conversations: Sequence[Conversation], progress: Callable[[int], None] | None = None
    ) -> list[float | None]:
        return [numbers and numbers[0] for numbers in self.score_attributes(conversations, progress)]

    def score_attributes(
        self, conversations: Sequence[Conversation], progress: Callable[[int], None] | None = None
    ) -> list[list[float] | None]:
        """[the reward, then each of `attributes`] of each conversation; None for what was left out."""
        return [found and found[1] for found in self._scored(conversations, progress)]

    def score_ids(self, rows: Sequence[list[int]]) -> list[float]:
        """Rewards of rendered token ids, in input order. Raises RunError when a reward is not a finite number."""
        scores = self.score_rows([self._row(ids) for ids in rows])
        _check_finite(scores, [None] * len(rows))
        return [own[0] for own in scores]

    def normalise(self, scores: Sequence[float | None]) -> list[float | None]:
        """(score - mean) / std, with the mean and standard deviation that were saved with the model."""
        reward = (self.card or {}).get("reward")
        if not reward or not reward.get("std"):
            raise RunError(
                "the model's card has no reward mean and std",
                hint="score without normalizing, or train the model with train.py",
            )
        return [None if score is None else (score - reward["mean"]) / reward["std"] for score in scores]

    def _inputs(self, conversations: Sequence[Conversation]) -> list[Conversation]:
        return list(conversations)

    def _rewards(self, asked: Sequence[tuple[Text, Any, Any]]) -> list[float | None]:
        return self.score_conversations(
            [
                Conversation(as_messages(prompt, "user"), as_messages(one, "assistant"), tools)
                for prompt, one, tools in asked
            ]
        )

    def _is_several(self, completion: Any) -> bool:
        return not isinstance(completion, str) and not (completion and isinstance(completion[0], dict))

    def _rows(self, rendered: Any) -> list[tuple[list[int], list[int]]]:
        if rendered.start is not None:
            return [(rendered.ids, [rendered.start - 1, len(rendered.ids) - 1])]
        return [self._row(rendered.ids)]

    def _row(self, ids: list[int]) -> tuple[list[int], list[int]]:
        """Without trailing pad tokens: a foreign decoder that pads with EOS is scored before it, as by transformers."""
        if self.renderer.scored_at == "end":
            return ids, self.renderer.places_of(ids)
        end = len(ids)
        while self.renderer.scored_at == "last_token" and end > 1 and ids[end - 1] == self._pad_token_id:
            end -= 1
        return ids[:end], [end - 1]


def _set_length(renderer: Any, loaded: checkpoints.Loaded, asked: int | None) -> None:
    """Let the renderer keep as many tokens as asked for, as in training, or of a model without a card as it can read."""
    trained, family = loaded.rendering.get("max_length"), getattr(renderer, "family", None)
    default = DEFAULT_MAX_LENGTH if loaded.card else family and family.max_length
    renderer.max_length = longest_input(loaded.model, loaded.tokenizer, asked or trained, default)
    renderer.longest = positions(loaded.model)
    if not loaded.card:
        renderer.probe_ids()  # a broken template should show before the data is read
        loaded.notes.append(f"longest input: {renderer.max_length or 'unlimited'} tokens")


def _check_finite(scores: Sequence[list[float]], origins: Sequence[Any], before: int = 0) -> None:
    """Raises RunError that names the first with a score that is not finite, counted from after `before`."""
    bad = [i for i, own in enumerate(scores) if not all(map(math.isfinite, own))]
    if bad:
        raise RunError(
            f"the model gave {len(bad)} rewards that are not finite numbers, the first for completion {before + bad[0] + 1}",
            where=origins[bad[0]],
            hint="score with --dtype float32",
        )


def _by_input(rows: Sequence[Sequence[Any]], progress: Callable[[int], None]) -> Callable[[list[int]], None]:
    """Turns the numbers of rows that are done into the number of inputs, with the rows of each, that are now done."""
    owner = [i for i, own in enumerate(rows) for _ in own]
    left = [len(own) for own in rows]

    def done(numbers: list[int]) -> None:
        finished = 0
        for number in numbers:
            left[owner[number]] -= 1
            finished += left[owner[number]] == 0
        progress(finished)

    return done


def ranked(scores: Sequence[float | None], completions: Sequence[Any]) -> list[Ranked]:
    """Completions with their scores, best first; a stable sort, None last."""
    order = sorted(range(len(scores)), key=lambda i: (scores[i] is None, -(scores[i] or 0.0)))
    return [Ranked(i, scores[i], completions[i]) for i in order]


def as_messages(text: Text, role: str) -> list[Message]:
    """A string as one message of this role; messages as they are. An empty prompt is no message."""
    if isinstance(text, str):
        return [{"role": role, "content": text}] if text or role == "assistant" else []
    return list(text)
