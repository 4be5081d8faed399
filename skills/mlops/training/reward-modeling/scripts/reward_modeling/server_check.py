"""Does a server give this model's rewards? If not: what it does to the text or to the reward, and what sets it right."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import linear_regression
from typing import TYPE_CHECKING, Any

from .aggregation import probability
from .errors import DataError, RunError, UserError
from .golden import GOLDEN_TOLERANCE, golden_conversations
from .kinds import OUTCOME
from .remote import APIS, ServerRewards
from .rendering import Conversation, Renderer
from .results import Number, Result, emit
from .scoring import RewardModel
from .terminal import log, table

if TYPE_CHECKING:
    from .row_scoring import ScoreSettings

TOLERANCE = GOLDEN_TOLERANCE["float32"]
NOISE = 3.0
"""Times the difference that a lower precision makes here: another processor rounds otherwise."""
LENGTHS = (128, 256, 384, 512, 768, 1024, 2048, 3072, 4096, 8192)
LONGEST_PROBE = 4096
FEWEST_TO_FIT = 5

Messages = list[dict[str, Any]]
RAW = {
    "vllm": 'send "use_activation": false (it reads `activation` and `softmax` no longer), or start it with --pooler-config '
    "'{\"use_activation\": false}'",
    "sglang": "ask /classify; /v1/classify applies a softmax",
    "tei": 'send "raw_scores": true',
}
LONGER = {
    "vllm": "raise --max-model-len, send no truncate_prompt_tokens",
    "sglang": "raise --context-length, leave out --allow-auto-truncate",
    "tei": "leave out --auto-truncate",
    "openrlhf": "raise its max_len",
}


@dataclass(frozen=True)
class Cause:
    """What a server does. fix: by api, "" for any other. value: of a reward; text: of (renderer, messages, the right text)."""

    says: str
    fix: dict[str, str]
    value: Callable[[float], float] | None = None
    text: Callable[[Renderer, Messages, str], str] | None = None


CAUSES = {
    "equal": Cause("gives the rewards of this model", {}, value=lambda reward: reward),
    "sigmoid": Cause("squashes rewards by a sigmoid", RAW | {"": "ask for raw scores"}, value=probability),
    "softmax": Cause("gives 1.0: a softmax of one label", RAW | {"": "ask for raw scores"}, value=lambda reward: 1.0),
    "scaled": Cause(
        "shifts or scales rewards ({a:.4g} * reward {b:+.4g})",
        {
            "vllm": "take logit_mean and logit_sigma (logit_bias, logit_scale) out of --pooler-config",
            "": "switch its normalization off",
        },
    ),
    "special_tokens": Cause(
        "adds special tokens (BOS) to text that the template has finished",
        {
            "vllm": 'send "add_special_tokens": false, or token ids',
            "sglang": "send token ids, as `input_ids`",
            "": "its tokenizer adds them: take BOS off the text, or the post_processor out of its tokenizer.json",
        },
    ),
    "end_missing": Cause(
        "leaves out the token that ends an answer",
        {"": "send the whole text, with its end"},
        text=lambda renderer, messages, text: _without_end(renderer, text),
    ),
    "stripped": Cause(
        "strips the whitespace after the answer",
        {"": "send the text as it is"},
        text=lambda renderer, messages, text: text.rstrip(),
    ),
    "end_added": Cause(
        "adds an end token after the template's",
        {"": "let it add none"},
        text=lambda renderer, messages, text: text + (renderer.tokenizer.eos_token or ""),
    ),
    "generation_prompt": Cause(
        "adds a generation prompt",
        {"": "render with add_generation_prompt false"},
        text=lambda renderer, messages, text: renderer.text(messages, prompt_only=True),
    ),
    "templated_twice": Cause(
        "applies its chat template to text that is templated already",
        {"": "send the text as a completion, not as a chat"},
        text=lambda renderer, messages, text: renderer.text([{"role": "user", "content": text}]),
    ),
    "no_template": Cause(
        "writes messages without the chat template",
        {"": "give it the chat template of the model"},
        text=lambda renderer, messages, text: "\n".join(message.get("content") or "" for message in messages),
    ),
    "cut": Cause("cuts texts to {length} tokens ({side})", LONGER | {"": "raise its longest input"}),
    "refused": Cause("refuses texts of {length} tokens", LONGER | {"": "raise its longest input"}),
    "precision": Cause(
        "computes in {dtype}", {"": "start it in float32, or accept the difference: score.py --dtype {dtype}"}
    ),
    "unknown": Cause(
        "gives other rewards, for no reason that is known here",
        {"": "compare its weights, tokenizer and chat template with those of this model"},
    ),
}


@dataclass(frozen=True)
class Finding:
    asked_by: str
    """Whose form the requests had: that of score.py, or of a program that asks such servers."""
    equal: bool
    causes: list[str]
    says: str
    fix: str | None
    largest_difference: Number
    server: list[Number]
    """Its rewards; null for a text that it refused."""


@dataclass(frozen=True)
class ServerCheck(Result):
    model: str
    checked_server: str
    api: str
    equal: bool
    tokens: list[int | None]
    """Of each text: the golden ones, longer and longer ones, those of --input."""
    rewards: list[Number]
    """Of this model, computed here."""
    findings: list[Finding]


def check_server(settings: ScoreSettings, model: RewardModel, more: Sequence[Conversation]) -> ServerCheck:
    """Raises RunError, after the result was printed, when the server gives other rewards."""
    check = _Check(settings, model, [*golden_conversations(model.kind), *_longer(model), *more])
    others = APIS[settings.api].others if settings.api in APIS else {}
    findings = [check.finding(name, ask) for name, ask in {"score.py": None, **others}.items()]
    named = [one.asked_by for one in findings]
    lengths = [ids and len(ids) for ids in check.ids]
    given = zip(lengths, check.own, *(one.server for one in findings), strict=True)
    table("rewards here and there", ["text", "tokens", "here", *named], [[i, *row] for i, row in enumerate(given, 1)])
    wrong = [one for one in findings if not one.equal]
    told = settings.model_name_or_path, settings.check_server, settings.api, not wrong
    result = ServerCheck(*told, tokens=lengths, rewards=check.own, findings=findings)
    for one in findings:
        log(f"asked as {one.asked_by} does, {settings.check_server} {one.says}")
    if wrong:
        emit(result)
        what = f"{settings.check_server}, asked as {wrong[0].asked_by} does, {wrong[0].says}"
        raise RunError(what, hint=wrong[0].fix)
    return result


def _longer(model: RewardModel) -> Iterator[Conversation]:
    """Twice as long each, as far as the model reads; each part is another, so that a cut shows."""
    limit, n = min(model.renderer.max_length or LONGEST_PROBE, LONGEST_PROBE), 16
    while model.kind is OUTCOME and n < limit:
        listed = " ".join(f"{i} and" for i in range(n // 2))
        yield Conversation([{"role": "user", "content": listed}], [{"role": "assistant", "content": listed}])
        n *= 2


class _Check:
    """own, ids: the rewards and token ids here, of the conversations that are neither cut nor left out."""

    def __init__(self, settings: ScoreSettings, model: RewardModel, conversations: Sequence[Conversation]):
        self.settings, self.model = settings, model
        model.renderer.refused = []
        rendered = model.render(conversations)
        whole = [one and not getattr(one, "cut", 0) for one in rendered]
        self.texts = [one for one, is_in in zip(conversations, whole, strict=True) if is_in]
        kept = [one for one, is_in in zip(rendered, whole, strict=True) if is_in]
        self.ids = [one.ids if model.kind is OUTCOME else None for one in kept]
        self.own = model.score_conversations(self.texts)

    def finding(self, name: str, ask: Any) -> Finding:
        key, api, renderer = self.settings.key(), self.settings.api, self.model.renderer
        server = ServerRewards(self.settings.check_server, api=api, renderer=renderer, key=key, ask=ask)
        given = [_given(server, one) for one in self.texts]
        if None not in given:
            causes, told = self._causes(list(range(len(given))), given)
        elif any(one is not None for one in given):
            causes, told = self._causes(
                *zip(*((i, one) for i, one in enumerate(given) if one is not None), strict=True)
            )
            told["length"] = min(len(ids or ()) for ids, one in zip(self.ids, given, strict=True) if one is None)
            causes = [*(one for one in causes if one != "equal"), "refused"]
        else:
            raise RunError(f"{self.settings.check_server} refuses all texts", hint="is it another kind of server?")
        fixes = [CAUSES[cause].fix.get(api, CAUSES[cause].fix.get("")) for cause in causes]
        says = " and ".join(CAUSES[cause].says.format(**told) for cause in causes)
        fix = "; ".join(one.format(**told) if "{dtype}" in one else one for one in dict.fromkeys(filter(None, fixes)))
        off = max(_difference([one], [own]) for one, own in zip(given, self.own, strict=True) if one is not None)
        equal = causes in (["equal"], ["precision"]) and self.settings.dtype == told.get("dtype", self.settings.dtype)
        return Finding(name, equal, causes, says, fix or None, off, given)

    def _causes(self, places: Sequence[int], given: Sequence[float]) -> tuple[list[str], dict[str, Any]]:
        """Of rewards at these places, with what their sentences name."""
        closest, closest_told = (math.inf, "equal", "equal"), {}
        for variant, scores, told in self._variants(places):
            for name, cause in CAUSES.items():
                if cause.value:
                    found = _difference(given, list(map(cause.value, scores))), variant, name
                    if found[0] <= TOLERANCE:
                        return _named(variant, name), told
                    if found < closest:
                        closest, closest_told = found, told
            if len(set(given)) >= FEWEST_TO_FIT and len(set(scores)) > 1:
                a, b = linear_regression(scores, given)
                if _difference(given, [a * score + b for score in scores]) <= TOLERANCE * min(1, abs(a)):
                    return _named(variant, "scaled"), told | {"a": a, "b": b}
        off, variant, name = closest
        plain = [self.own[place] for place in places]
        for dtype in ("bfloat16", "float16"):
            loading = self.settings.loading | {"dtype": dtype}
            other = type(self.model).from_pretrained(self.settings.model_name_or_path, **loading)
            rounded = other.score_conversations([self.texts[place] for place in places])
            if off <= NOISE * _difference(*(list(map(CAUSES[name].value, scores)) for scores in (rounded, plain))):
                return _named(variant, name, "precision"), closest_told | {"dtype": dtype}
        return ["unknown"], {}

    def _variants(self, places: Sequence[int]) -> Iterator[tuple[str, list[float], dict[str, Any]]]:
        """(cause, what the model gives to the text that it makes, what its sentence names), where it makes another."""
        yield "equal", [self.own[place] for place in places], {}
        ids = [self.ids[place] for place in places]
        if self.model.kind is not OUTCOME:
            return
        for name, rows, told in self._changed(ids, [self.texts[place] for place in places]):
            if rows != ids and all(rows):
                yield name, self.model.score_ids(rows), told

    def _changed(self, ids: list[list[int]], conversations: list[Conversation]) -> Iterator[tuple[str, list, dict]]:
        renderer, tokenizer = self.model.renderer, self.model.renderer.tokenizer
        messages = [[*one.prompt, *one.completion] for one in conversations]
        texts = [renderer.text(own, one.tools) for own, one in zip(messages, conversations, strict=True)]
        yield "special_tokens", tokenizer(texts)["input_ids"], {}
        opening = [one for one in (tokenizer.bos_token_id, tokenizer.cls_token_id) if one is not None][:1]
        yield "special_tokens", [opening + row for row in ids], {}
        for name, cause in CAUSES.items():
            if cause.text:
                try:
                    made = [cause.text(renderer, *one) for one in zip(messages, texts, strict=True)]
                except UserError:  # of a template that takes no such conversation
                    continue
                yield name, tokenizer(made, add_special_tokens=False)["input_ids"], {}
        for length in (one for one in LENGTHS if one < max(map(len, ids))):
            yield "cut", [row[:length] for row in ids], {"length": length, "side": "their end is lost"}
            yield "cut", [row[-length:] for row in ids], {"length": length, "side": "their start is lost"}


def _given(server: ServerRewards, conversation: Conversation) -> float | None:
    try:
        return server.score_conversations([conversation])[0]
    except DataError:
        return None


def _named(*causes: str) -> list[str]:
    return [cause for cause in causes if cause != "equal"] or ["equal"]


def _difference(given: Sequence[float], own: Sequence[float]) -> float:
    return max(abs(one - other) / max(1.0, abs(other)) for one, other in zip(given, own, strict=True))


def _without_end(renderer: Renderer, text: str) -> str:
    text = text.rstrip()
    token = next((token for token in renderer.tokenizer.all_special_tokens if text.endswith(token)), "")
    return text.removesuffix(token)
