"""Rewards for completions: the one place of the project that calls a reward model for a score.

>>> from reward_modeling import RewardModel                                         # doctest: +SKIP
>>> model = RewardModel.from_pretrained("runs/hh")                                  # doctest: +SKIP
>>> model.score(["What is 2 + 2?"], ["4."])                                         # doctest: +SKIP
[1.31]

`Rewards` is what reinforcement learning maximises: one reward model, several with weights, or an ensemble.

>>> rewards = Rewards.from_pretrained(["runs/helpful", "runs/harmless"], weights=[0.7, 0.3])  # doctest: +SKIP
>>> rewards(prompts, completions)  # [n] floats; message lists in                             # doctest: +SKIP

Each of its models renders the conversation again by its own contract and scores it as above, so a reward is what score.py
prints, whatever the policy's tokenizer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePath
from statistics import fmean, pstdev
from typing import Any

from . import checkpoints, losses
from .console import ModelError, RunError, UsageError, UserError, log, warn
from .lengths import DEFAULT_MAX_LENGTH, longest_input, positions, published_length
from .packing import WINDOW, pack, padded_batches, right_padded
from .records import Message
from .rendering import Renderer, content_rule

Text = str | Sequence[Message]
"""A prompt or a completion: a string (one user or assistant turn) or a list of messages."""

PADDED_TOKENS = 8192
_NOT_ASKED = object()
SCORING_ARGUMENTS = (
    *("dtype", "device", "max_length", "overlong", "max_tokens_per_batch", "shared_prefix"),
    *("text_format", "refused"),
)
"""Arguments of `from_pretrained` that are flags of every script that scores."""


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
        shared_prefix: bool | None = None,
    ):
        self.model, self.renderer, self.card = model, renderer, card
        self.max_tokens_per_batch, self.shared_prefix = max_tokens_per_batch, shared_prefix
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
    ) -> RewardModel:
        """Load a reward model from a folder or hub id.

        max_length, overlong: as in training unless given (see `Renderer`); a model without a card of this project reads all
        that its config and tokenizer allow. text_format: "chat" or "rendered", as in training unless given. refused: "stop"
        raises DataError for conversations that cannot be rendered, "unscored" gives them no score. dtype: of the weights; the head stays fp32.
        shared_prefix: compute shared beginnings once; None does so on CPUs, True also on a GPU (not measured there).
        Raises ModelError when it is no reward model or renders text otherwise than it did in training.
        """
        loaded = checkpoints.load(path, dtype=dtype, device=device)
        trained = (loaded.card or {}).get("rendering", {})
        renderer = Renderer(
            loaded.tokenizer,
            max_length=None,
            overlong=overlong or trained.get("overlong", "truncate_prompt"),
            scored_at=checkpoints.scored_at(loaded.model),
            special_tokens_in_content=content_rule(trained),
            text_format=text_format or trained.get("text_format") or "chat",
        )
        renderer.refused = [] if refused == "unscored" else None
        set_length(renderer, loaded, path, max_length)
        run = {"max_tokens_per_batch": max_tokens_per_batch, "shared_prefix": shared_prefix}
        reward_model = cls(loaded.model, renderer, card=loaded.card, **run)
        padded = reward_model.why_padded()
        path = "shared beginnings are computed once" if padded is None else f"batches are padded, since {padded}"
        reward_model.notes = [*loaded.notes, f"scoring: {path}"]
        return reward_model

    @classmethod
    def from_arguments(cls, args: Any, path: str | None = None) -> RewardModel:
        """The reward model that the flags of `arguments.add_scoring_arguments` describe, or another one run in its way."""
        model = cls.from_pretrained(
            path or args.model_name_or_path, **{name: getattr(args, name) for name in SCORING_ARGUMENTS}
        )
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
        before = dict(self.renderer.counts)
        flat = iter(self.score_conversations(conversations))
        self.warn_of_losses(before)
        return [
            [next(flat) for _ in completion] if several[i] else next(flat) for i, completion in enumerate(completions)
        ]

    def rank(self, prompt: Text, completions: Sequence[Text], *, tools: list[dict] | None = None) -> list[Ranked]:
        """The completions of one prompt, best first; equal scores keep their input order, unscored ones come last."""
        scores = self.score([prompt], [list(completions)], tools=[tools])[0]
        return ranked(scores, completions)

    @property
    def truncated(self) -> int:
        """Conversations cut so far because they were longer than the model reads."""
        return self.renderer.counts["truncated"]

    def warn_of_losses(self, before: dict[str, int] | None = None) -> None:
        """Say on stderr what was unscored, cut or left out after `before`, a copy of `renderer.counts`, or ever."""
        losses.warn_of(self.renderer, before)

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
        rendered = self.render(conversations)
        kept = [i for i, row in enumerate(rendered) if row is not None]
        scores: list[float | None] = [None] * len(rendered)
        found = self.score_ids([rendered[i].ids for i in kept], progress, where=[conversations[i][3] for i in kept])
        for place, score in zip(kept, found, strict=True):
            scores[place] = score
        return scores

    def render(self, conversations: Sequence[tuple]) -> list[Any]:
        """The token ids of (prompt messages, completion messages, tools, where), None for what is left out."""
        return self.renderer.render_all(conversations)

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
            from .attention import reason_against

            self._why_padded = reason_against(checkpoints.unwrapped(self.model), self.shared_prefix)
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
        from .attention import rewards, shared_prefix

        base = checkpoints.unwrapped(self.model)
        with shared_prefix(base):
            for packed in pack([self._up_to_scored(row) for row in rows], row_tokens(base, self.max_tokens_per_batch)):
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


def set_length(renderer: Any, loaded: checkpoints.Loaded, path: str, asked: int | None) -> None:
    """Let the renderer keep as many tokens as asked for, as in training, or of a model without a card as it can read."""
    trained, name = (loaded.card or {}).get("rendering", {}).get("max_length"), str(path)
    default = DEFAULT_MAX_LENGTH if loaded.card else published_length(name)
    renderer.max_length = longest_input(loaded.model, loaded.tokenizer, asked or trained, default)
    renderer.longest = positions(loaded.model)
    if not loaded.card:
        renderer.probe_ids()  # a broken template should show before the data is read
        loaded.notes.append(f"longest input: {renderer.max_length or 'unlimited'} tokens")


def row_tokens(model: Any, asked: int | None) -> int | None:
    """Tokens in a packed row: what was asked for, or on a CPU None (see `pack`), on a GPU enough to keep it busy."""
    return asked or (None if model.device.type == "cpu" else PADDED_TOKENS)


def ranked(scores: Sequence[float | None], completions: Sequence[Text]) -> list[Ranked]:
    """Completions with their scores, best first; a stable sort, None last."""
    order = sorted(range(len(scores)), key=lambda i: (scores[i] is None, -(scores[i] or 0.0)))
    return [Ranked(i, scores[i], completions[i]) for i in order]


def as_messages(text: Text, role: str) -> list[Message]:
    """A string as one message of this role; messages as they are. An empty prompt is no message."""
    if isinstance(text, str):
        return [{"role": role, "content": text}] if text or role == "assistant" else []
    return list(text)


def _is_several(completion: Any) -> bool:
    """Whether this is a list of completions rather than one: a list of strings or of message lists."""
    return not isinstance(completion, str) and not (completion and isinstance(completion[0], dict))


# ---- rewards for reinforcement learning -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Combination:
    """How the rewards of several models become one. combine: (one completion's reward by each model, weights) -> reward."""

    combine: Callable[[Sequence[float], Sequence[float]], float]
    description: str
    takes_weights: bool = False


def weighted_sum(rewards: Sequence[float], weights: Sequence[float]) -> float:
    return sum(weight * reward for weight, reward in zip(weights, rewards, strict=True))


def weighted_mean(rewards: Sequence[float], weights: Sequence[float]) -> float:
    return weighted_sum(rewards, weights) / sum(weights)


def lowest(rewards: Sequence[float], weights: Sequence[float]) -> float:
    return min(rewards)


def mean_minus_std(rewards: Sequence[float], weights: Sequence[float]) -> float:
    """The mean less the standard deviation over the models (divided by their number, so one model alone loses nothing)."""
    return fmean(rewards) - pstdev(rewards)


COMBINATIONS: dict[str, Combination] = {
    "sum": Combination(weighted_sum, "weighted sum: models of different goals", takes_weights=True),
    "mean": Combination(weighted_mean, "weighted mean: an ensemble of one goal", takes_weights=True),
    "min": Combination(lowest, "the most pessimistic of an ensemble (worst case, arXiv:2310.02743)"),
    "mean_minus_std": Combination(
        mean_minus_std,
        "mean less the standard deviation: disagreement of an ensemble costs (arXiv:2310.02743 takes the variance)",
    ),
}

NORMALISE = "--normalise_rewards (of score.py: --normalise)"
SPREAD_APART = 4.0
"""How many times as far one model's rewards may spread as another's before a warning: weights say little then."""
SHIFTED = 0.5
"""How far apart, in standard deviations, the zeros of an ensemble's members may lie before a warning."""


class Rewards:
    """Rewards of completions by one reward model or several. Made by `from_pretrained`.

    names: one a model, unique, short. parts: name -> mean reward of the last call, before weights, for logs.
    normalise: (reward - mean) / std with the statistics saved with each model.
    """

    def __init__(
        self,
        models: dict[str, Any],
        *,
        weights: Sequence[float] | None = None,
        combine: str = "sum",
        normalise: bool = False,
    ):
        self.models, self.combine, self.normalise = models, combine, normalise
        self.weights = check_weights(weights, len(models), combine)
        self.combination = COMBINATIONS[combine]
        self.parts: dict[str, float] = {}
        self._compared = len(models) == 1
        for name, model in models.items():
            _check_statistics(name, model, normalise)
        if not normalise and combine != "sum":
            _warn_of_shifted_zeros(models)

    @property
    def names(self) -> list[str]:
        return list(self.models)

    @classmethod
    def from_pretrained(
        cls,
        paths: str | Sequence[str],
        *,
        weights: Sequence[float] | None = None,
        combine: str = "sum",
        normalise: bool = False,
        **loading: Any,
    ) -> Rewards:
        """Load reward models from folders or hub ids. loading: arguments of `RewardModel.from_pretrained`.

        No completion is left out: what is longer than `max_length` loses its beginning (`truncate_left`), which is what
        `truncate_prompt` does wherever the answer itself fits, and is counted in `truncated`. `overlong="error"` stops.
        Raises ModelError when one is no outcome reward model, UsageError for weights that do not fit.
        """
        paths = [str(path) for path in ([paths] if isinstance(paths, str | PurePath) else paths)]
        check_weights(weights, len(paths), combine)
        names = unique_names(paths)
        for path in paths:  # all of them before the weights of the first are read
            checkpoints.check_reward_model(path)
        loading = {"overlong": "truncate_left"} | {key: value for key, value in loading.items() if value is not None}
        models = {}
        for name, path in zip(names, paths, strict=True):
            models[name] = RewardModel.from_pretrained(path, **loading)
            for note in models[name].notes:
                log(f"reward model {name}: {note}")
        return cls(models, weights=weights, combine=combine, normalise=normalise)

    def __call__(
        self,
        prompts: Sequence[list[Message]],
        completions: Sequence[list[Message]],
        tools: Sequence[list[dict] | None] | None = None,
    ) -> list[float]:
        """[n] rewards of [n] prompts, each continued by its completion; both are message lists.

        Raises RunError for a reward that is no finite number, naming the model and the completion.
        """
        tools = tools or [None] * len(prompts)
        conversations = [
            (prompt, completion, tool, None)
            for prompt, completion, tool in zip(prompts, completions, tools, strict=True)
        ]
        known = self._losses()
        rewards = self.score_conversations(conversations)
        if known != self._losses():  # the first of a kind is told at once: a run takes hours
            self.warn_of_losses()
        return rewards

    def score_conversations(
        self, conversations: Sequence[tuple], progress: Callable[[int], None] | None = None
    ) -> list[float]:
        """[n] combined rewards of (prompt messages, completion messages, tools, where), in input order.

        `progress` is called with the number of conversations that the last of the models has finished.
        """
        *_, last = self.models
        by_model = [
            self._score(name, model, conversations, progress if name == last else None)
            for name, model in self.models.items()
        ]
        self.parts = {name: fmean(scores) for name, scores in zip(self.models, by_model, strict=True) if scores}
        if not self._compared and len(conversations) > 1:
            self._compared = True
            _warn_of_spreads({name: pstdev(scores) for name, scores in zip(self.models, by_model, strict=True)})
        return [self.combination.combine(rewards, self.weights) for rewards in zip(*by_model, strict=True)]

    @property
    def truncated(self) -> int:
        """Conversations cut so far because they were longer than a model reads."""
        return sum(model.truncated for model in self.models.values())

    def warn_of_losses(self) -> None:
        """Say on stderr what was cut or left out so far, by each model."""
        for name, model in self.models.items():
            losses.warn_of(model.renderer, called=f"reward model {name}: " if len(self.models) > 1 else "")

    def _losses(self) -> list[set[str]]:
        return [losses.kinds(model.renderer) for model in self.models.values()]

    def _score(self, name: str, model: Any, conversations: Sequence[tuple], progress: Any = None) -> list[float]:
        model.model.eval()  # a trainer may have been handed the module and put it into training mode
        try:
            scores = model.score_conversations(conversations, progress)
        except RunError as error:
            raise RunError(f"reward model {name}: {error.message}", where=error.where, hint=error.hint) from error
        left_out = [i for i, score in enumerate(scores) if score is None]
        if left_out:  # only where the caller chose such a policy: a reward of a missing completion would be made up
            raise RunError(
                f"reward model {name} left out completion {left_out[0] + 1}: it cannot be rendered, or is longer than "
                f"{model.renderer.max_length} tokens",
                hint="choose truncate_left, raise the reward model's maximum length or shorten the responses",
            )
        return model.normalise(scores) if self.normalise else scores


def check_weights(weights: Sequence[float] | None, models: int, combine: str) -> list[float]:
    """The weights, 1 for each model unless given. Raises UsageError when they do not fit the models or the combination."""
    if combine not in COMBINATIONS:
        raise UsageError(f"no combination {combine!r}", hint=f"choose one of {', '.join(COMBINATIONS)}")
    if weights is None:
        return [1.0] * models
    if len(weights) != models:
        raise UsageError(f"{len(weights)} reward weights for {models} reward models", hint="give one weight a model")
    if not COMBINATIONS[combine].takes_weights:
        raise UsageError(
            f"--reward_combine {combine} takes no weights: it treats its models alike",
            hint="leave the weights out, or combine by sum or mean",
        )
    if not all(math.isfinite(weight) for weight in weights):
        raise UsageError(f"the reward weights {list(weights)} are not all finite")
    if combine == "mean" and sum(weights) <= 0:
        raise UsageError(f"the weights of a mean add up to more than 0, not {sum(weights):g}")
    return [float(weight) for weight in weights]


def unique_names(paths: Sequence[str]) -> list[str]:
    """The shortest ends of the paths that tell them apart: runs/a/rm, runs/b/rm -> a/rm, b/rm.

    Raises UsageError for a path given twice: its weight would be counted twice, in silence.
    """
    parts = [PurePath(path).parts for path in paths]
    twice = [path for i, path in enumerate(paths) if parts[i] in parts[:i]]
    if twice:
        raise UsageError(f"the reward model {twice[0]} is given twice", hint="give it once, with a larger weight")
    depth = 1
    while len({part[-depth:] for part in parts}) < len(parts):
        depth += 1
    return ["/".join(part[-depth:]) for part in parts]


def _check_statistics(name: str, model: Any, normalise: bool) -> None:
    if not normalise:
        return
    try:
        model.normalise([])
    except UserError as error:
        raise ModelError(
            f"reward model {name}: {error.message}", hint=f"leave out {NORMALISE}, or train the model with train.py"
        ) from error


def _warn_of_spreads(spreads: dict[str, float]) -> None:
    """A reward's scale means as little as its zero: the model whose rewards spread furthest decides, whatever its weight."""
    if max(spreads.values()) > SPREAD_APART * min(spreads.values()):
        told = ", ".join(f"{name} {spread:.2g}" for name, spread in spreads.items())
        warn(
            f"the first rewards have standard deviations of {told}: the widest decides. Normalise ({NORMALISE}) or weigh them"
        )


def _warn_of_shifted_zeros(models: dict[str, Any]) -> None:
    """A reward's zero means nothing, so members of an ensemble may be shifted: then `min` is one member's reward."""
    known = [(model.card or {}).get("reward") for model in models.values()]
    known = [reward for reward in known if reward and reward.get("std")]
    means = [reward["mean"] for reward in known]
    if len(known) > 1 and max(means) - min(means) > SHIFTED * min(reward["std"] for reward in known):
        warn(
            f"the saved means of the ensemble's rewards lie {max(means) - min(means):.2f} apart: their zeros differ, so they "
            f"should be normalised before they are combined: {NORMALISE}"
        )
