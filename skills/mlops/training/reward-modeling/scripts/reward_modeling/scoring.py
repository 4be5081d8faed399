"""Rewards for completions: the one place of the project that calls a reward model for a score.

>>> from reward_modeling import RewardModel                                         # doctest: +SKIP
>>> model = RewardModel.from_pretrained("runs/hh")                                  # doctest: +SKIP
>>> model.score(["What is 2 + 2?"], ["4."])                                         # doctest: +SKIP
[1.31]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from . import checkpoints
from .console import RunError, UsageError, log
from .packing import WINDOW, pack, padded_batches, right_padded
from .records import Message
from .rendering import Renderer

Text = str | Sequence[Message]
"""A prompt or a completion: a string (one user or assistant turn) or a list of messages."""

PADDED_TOKENS = 8192
_NOT_ASKED = object()
DEFAULT_MAX_LENGTH = 1024


@dataclass(frozen=True)
class Ranked:
    """One completion of a prompt: its place in the input, its reward, and itself."""

    index: int
    score: float
    completion: Text


class RewardModel:
    """A reward model and its rendering contract. Made by `from_pretrained`.

    Scores are raw fp32 logits. They do not depend on the batch they were computed in, on order or on padding: the
    difference to scoring one at a time stays under 1e-5 in fp32.
    """

    def __init__(
        self,
        model: Any,
        renderer: Renderer,
        *,
        card: dict[str, Any] | None = None,
        max_tokens_per_batch: int | None = None,
    ):
        self.model, self.renderer, self.card = model, renderer, card
        self.max_tokens_per_batch = max_tokens_per_batch
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
    ) -> RewardModel:
        """Load a reward model from a folder or hub id.

        max_length, overlong: as in training unless given (see `Renderer`). dtype: of the weights; the head stays fp32.
        Raises ModelError when it is no reward model or renders text otherwise than it did in training.
        """
        loaded = checkpoints.load(path, dtype=dtype, device=device)
        trained = (loaded.card or {}).get("rendering", {})
        renderer = Renderer(
            loaded.tokenizer,
            max_length=longest_input(loaded.model, loaded.tokenizer, max_length or trained.get("max_length")),
            overlong=overlong or trained.get("overlong", "truncate_prompt"),
            scored_at=checkpoints.scored_at(loaded.model),
        )
        reward_model = cls(loaded.model, renderer, card=loaded.card, max_tokens_per_batch=max_tokens_per_batch)
        padded = reward_model.why_padded()
        path = "shared beginnings are computed once" if padded is None else f"batches are padded, since {padded}"
        reward_model.notes = [*loaded.notes, f"scoring: {path}"]
        return reward_model

    @classmethod
    def from_arguments(cls, args: Any, path: str | None = None) -> RewardModel:
        """The reward model that the flags of `arguments.add_scoring_arguments` describe, or another one run in its way."""
        names = ("dtype", "device", "max_length", "overlong", "max_tokens_per_batch")
        model = cls.from_pretrained(path or args.model_name_or_path, **{name: getattr(args, name) for name in names})
        for note in model.notes:
            log(note)
        return model

    def score(
        self, prompts: Sequence[Text], completions: Sequence[Any], *, tools: Sequence[list[dict] | None] | None = None
    ) -> list[Any]:
        """The reward of each completion, in input order.

        prompts: [n] strings or message lists. completions: [n], each one completion (-> one float) or a list of
        strings or of message lists (-> a list of floats). A completion that the over-length policy leaves out scores None.
        """
        if len(prompts) != len(completions):
            raise ValueError(f"{len(prompts)} prompts but {len(completions)} completions")
        several = [_is_several(completion) for completion in completions]
        conversations = []
        for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            for answer in completion if several[i] else [completion]:
                conversations.append(
                    (as_messages(prompt, "user"), as_messages(answer, "assistant"), tools[i] if tools else None, None)
                )
        flat = iter(self.score_conversations(conversations))
        return [
            [next(flat) for _ in completion] if several[i] else next(flat) for i, completion in enumerate(completions)
        ]

    def rank(self, prompt: Text, completions: Sequence[Text], *, tools: list[dict] | None = None) -> list[Ranked]:
        """The completions of one prompt, best first; equal scores keep their input order, unscored ones come last."""
        scores = self.score([prompt], [list(completions)], tools=[tools])[0]
        return ranked(scores, completions)

    def normalise(self, scores: Sequence[float | None]) -> list[float | None]:
        """(score - mean) / std, with the mean and standard deviation that were saved with the model."""
        reward = (self.card or {}).get("reward")
        if not reward or not reward.get("std"):
            raise RunError(
                "the model's card has no reward mean and std",
                hint="score without normalising, or train the model with train.py",
            )
        return [None if score is None else (score - reward["mean"]) / reward["std"] for score in scores]

    def score_conversations(
        self, conversations: Sequence[tuple], progress: Callable[[int], None] | None = None
    ) -> list[float | None]:
        """Rewards of (prompt messages, completion messages, tools, where), in input order; None for what was left out.

        `progress` is called with the number of conversations that a forward pass has finished.
        """
        scores: list[float | None] = []
        for start in range(0, len(conversations), WINDOW):
            scores += self._score_window(conversations[start : start + WINDOW], progress)
        return scores

    def _score_window(
        self, conversations: Sequence[tuple], progress: Callable[[int], None] | None
    ) -> list[float | None]:
        """`score_conversations` for as many as are rendered and planned together, so that memory is bounded."""
        rendered = self.renderer.render_all(conversations)
        kept = [i for i, row in enumerate(rendered) if row is not None]
        scores: list[float | None] = [None] * len(rendered)
        found = self.score_ids([rendered[i].ids for i in kept], progress, where=[conversations[i][3] for i in kept])
        for place, score in zip(kept, found, strict=True):
            scores[place] = score
        return scores

    def score_ids(
        self,
        rows: Sequence[list[int]],
        progress: Callable[[int], None] | None = None,
        *,
        where: Sequence[Any] | None = None,
    ) -> list[float]:
        """Rewards of rendered token ids, in input order. Raises RunError when a reward is not a finite number.

        where: what an error calls each row, FILE:ROW for one.
        """
        import torch

        scores = torch.empty(len(rows), dtype=torch.float32)
        with torch.inference_mode():
            for places, rewards in self._batches(rows):
                scores[places] = rewards.cpu()
                if progress:
                    progress(len(places))
        bad = (~torch.isfinite(scores)).nonzero().flatten().tolist()
        if bad:
            raise RunError(
                f"the model gave {len(bad)} rewards that are not finite numbers, the first for completion {bad[0] + 1}",
                where=str(where[bad[0]]) if where and where[bad[0]] else None,
                hint="score with --dtype float32",
            )
        return scores.tolist()

    def why_padded(self) -> str | None:
        """Why shared beginnings are computed again for each completion, or None where they are computed once."""
        if self._why_padded is _NOT_ASKED:
            from .sharing import reason_against

            self._why_padded = reason_against(checkpoints.unwrapped(self.model))
        return self._why_padded

    def _batches(self, rows: Sequence[list[int]]) -> Iterator[tuple[list[int], Any]]:
        """(places, fp32 rewards) of batch after batch, packed where the model allows it."""
        import torch

        if self.why_padded():
            keys = [tuple(row) for row in rows]
            for batch in padded_batches(keys, rows, self.max_tokens_per_batch or PADDED_TOKENS):
                scores = self._forward([rows[equal[0]] for equal in batch]).cpu()
                yield list(chain(*batch)), scores.repeat_interleave(torch.tensor([len(equal) for equal in batch]))
            return
        from .attention import shared_prefix
        from .sharing import rewards

        base = checkpoints.unwrapped(self.model)
        with shared_prefix(base):
            for packed in pack([self._up_to_scored(row) for row in rows], self.max_tokens_per_batch):
                yield packed.sequences, rewards(base, packed)

    def _up_to_scored(self, row: list[int]) -> list[int]:
        """The row without trailing pad tokens: a foreign model that pads with EOS is scored before it, as by transformers."""
        end = len(row)
        while end > 1 and row[end - 1] == self._pad_token_id:
            end -= 1
        return row[:end]

    def _forward(self, rows: list[list[int]]) -> Any:
        """[rows] fp32 logits of one right-padded batch."""
        device = next(self.model.parameters()).device
        ids, mask = right_padded(rows, self._pad_token_id)
        return self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits[:, 0].float()

    @property
    def _pad_token_id(self) -> int:
        """The token by which the model finds the end of a row: its config's, which a foreign tokenizer may not share."""
        configured = self.model.config.get_text_config().pad_token_id
        return self.renderer.tokenizer.pad_token_id if configured is None else configured


def ranked(scores: Sequence[float | None], completions: Sequence[Text]) -> list[Ranked]:
    """Completions with their scores, best first; a stable sort, None last."""
    order = sorted(range(len(scores)), key=lambda i: (scores[i] is None, -(scores[i] or 0.0)))
    return [Ranked(i, scores[i], completions[i]) for i in order]


def as_messages(text: Text, role: str) -> list[Message]:
    """A string as one message of this role; messages as they are. An empty prompt is no message."""
    if isinstance(text, str):
        return [{"role": role, "content": text}] if text or role == "assistant" else []
    return list(text)


def longest_input(model: Any, tokenizer: Any, asked: int | None = None) -> int:
    """The max_length asked for, or by default 1024 tokens, or less where the model or its tokenizer ends earlier.

    Raises UsageError when more is asked for than the model has positions.
    """
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not asked:
        return min(DEFAULT_MAX_LENGTH, positions or DEFAULT_MAX_LENGTH, tokenizer.model_max_length)
    if positions and asked > positions:
        raise UsageError(
            f"--max_length {asked} is more than the {positions} tokens the model can read",
            hint=f"give --max_length {positions} or less: a flag overrides the recipe of --config",
        )
    return asked


def _is_several(completion: Any) -> bool:
    """Whether this is a list of completions rather than one: a list of strings or of message lists."""
    return not isinstance(completion, str) and not (completion and isinstance(completion[0], dict))
