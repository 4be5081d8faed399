"""A prompt and two answers -> ids, as the authors of models that compare two answers wrote them."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

from .base_rendering import BaseRenderer
from .data.records import Message
from .errors import ModelError, UsageError
from .public_table import Family
from .rendering import Rendered

PAIR_MARKS = ("<|source|>", "<|candidate1|>", "<|candidate2|>")
PAIRRM_LIMITS, BETTER_PAIRRM_LIMITS = (1224, 412), (2030, 670)
"""The most tokens of a source and of an answer; the answers share what the source leaves."""


class AnswerPair(NamedTuple):
    prompt: Sequence[Message]
    first: str
    second: str
    origin: Any = None


class AskedRenderer(BaseRenderer):
    """As RLHFlow asks which answer is better: one user turn of the chat template, without BOS."""

    policies, places = ("drop", "error"), ("last_token",)

    def __init__(self, tokenizer: Any, family: Family, *, path: str, **rules: Any):
        super().__init__(tokenizer, overlong=self.policies[0], scored_at=self.places[0], **rules)
        if self.text_format == "rendered":
            raise UsageError("--text_format rendered is not for a model that compares answers: it writes two of them")
        self.family = family

    def _parts_of(self, prompt, first, second, origin) -> list[str | list[int]]:
        token = self.special.inside([prompt, first, second])
        if token:
            self._count_special(token, origin)
            prompt, first, second = self.special.marked([prompt, first, second])
        turns = "".join(f"\n<turn> {message['role']}\n {message['content']}" for message in prompt)
        asked = f"[CONTEXT] \n{turns}\n [RESPONSE A] {first} [RESPONSE B] {second} \n"
        text = self.text([{"role": "user", "content": asked}], where=origin)
        text = text.replace(self.tokenizer.bos_token or "\0", "")
        return [self.special.ids(text) if token else text]

    def _fit(self, parts: list[list[int]], prompt, first, second, origin) -> Rendered | None:
        if not self._is_over_length(len(parts[0]), "comparison", origin):
            return Rendered(parts[0])
        self._count("dropped", origin)
        return None

    def places_of(self, ids: list[int]) -> list[int]:
        return [len(ids) - 1]


class MarkedRenderer(AskedRenderer):
    """As LLM-Blender writes them: each text after a mark, within [CLS] and [SEP], cut at its end before [SEP]."""

    policies, places = ("truncate_left",), ("prefix",)

    def __init__(self, tokenizer: Any, family: Family, *, path: str, **rules: Any):
        super().__init__(tokenizer, family, path=path, **rules)
        self.limits = BETTER_PAIRRM_LIMITS if "better-pairrm" in path.lower() else PAIRRM_LIMITS
        self.marks = [ids[0] for ids in self._tokens(list(PAIR_MARKS)) if len(ids) == 1]
        if len(self.marks) < len(PAIR_MARKS):
            what = f"the tokenizer of {path} lacks one of {', '.join(PAIR_MARKS)}, where the model is read"
            raise ModelError(what, hint="restore the tokenizer that was saved with it")

    def _parts_of(self, prompt, first, second, origin) -> list[list[int]]:
        several = len(prompt) > 1
        asked = [f"{one['role'].upper()}: " * several + (one["content"] or "") for one in prompt]
        texts = [mark + text for mark, text in zip(PAIR_MARKS, ["\n".join(asked), first, second], strict=True)]
        return self.tokenizer(texts)["input_ids"]

    def _fit(self, parts: list[list[int]], prompt, first, second, origin) -> Rendered:
        self.counts["rendered"] += 1
        source, answer = self.limits
        limits = [source, *2 * [(source + 2 * answer - min(len(parts[0]), source)) // 2]]
        kept = [
            part if len(part) <= limit else part[: limit - 1] + part[-1:]
            for part, limit in zip(parts, limits, strict=True)
        ]
        cut = sum(map(len, parts)) - sum(map(len, kept))
        if cut:
            self._count("truncated", origin)
        return Rendered([*chain(*kept)], cut)

    def places_of(self, ids: list[int]) -> list[int]:
        return [ids.index(mark) for mark in self.marks]
