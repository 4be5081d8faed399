"""A prompt and two answers -> ids, as the authors of models that compare two answers wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

from .base_rendering import BaseRenderer
from .console import ModelError, UsageError
from .data.records import Message
from .public_families import Family
from .rendering import Rendered

PAIR_MARKS = ("<|source|>", "<|candidate1|>", "<|candidate2|>")
LIMITS = {"better-pairrm": (2030, 670)}
"""Part of a name -> the most tokens of a source and of an answer; what a source leaves is shared by the answers."""
PAIRRM_LIMITS = (1224, 412)
WHICH_IS_BETTER = "[CONTEXT] {} [RESPONSE A] {} [RESPONSE B] {} \n"


class AnswerPair(NamedTuple):
    """Two answers to one prompt, in the order in which the model reads them."""

    prompt: Sequence[Message]
    first: str
    second: str
    origin: Any = None


class MarkedRenderer(BaseRenderer):
    """Prompt and two answers as LLM-Blender writes them: each after a mark, within [CLS] and [SEP], cut at its end."""

    policies, places = ("truncate_left",), ("prefix",)

    def __init__(self, tokenizer: Any, family: Family, *, path: str, **rules: Any):
        super().__init__(tokenizer, overlong="truncate_left", scored_at="prefix", **rules)
        self.family = family
        self.limits = next((limits for name, limits in LIMITS.items() if name in path.lower()), PAIRRM_LIMITS)
        self.marks = [ids[0] for ids in self._tokens(list(PAIR_MARKS)) if len(ids) == 1]
        if len(self.marks) < len(PAIR_MARKS):
            raise ModelError(
                f"the tokenizer of {path} lacks one of {', '.join(PAIR_MARKS)}, where the model is read",
                hint="restore the tokenizer that was saved with it",
            )

    def _parts_of(self, prompt, first, second, origin) -> list[list[int]]:
        asked = [message["content"] or "" for message in prompt]
        if len(prompt) > 1:
            turns = [f"{message['role'].upper()}: {text}" for message, text in zip(prompt, asked, strict=True)]
            asked = ["\n".join(turns)]
        texts = [mark + text for mark, text in zip(PAIR_MARKS, ["".join(asked), first, second], strict=True)]
        return self.tokenizer(texts)["input_ids"]

    def _fit(self, parts: list[list[int]], prompt, first, second, origin) -> Rendered:
        """Each text cut at its end, before its [SEP], to what is left for it."""
        self.counts["rendered"] += 1
        source, answer = self.limits
        kept, cut = [], 0
        for part in parts:
            limit = (source + 2 * answer - len(kept[0])) // 2 if kept else source
            cut += max(len(part) - limit, 0)
            kept.append(part if len(part) <= limit else part[: limit - 1] + part[-1:])
        if cut:
            self._count("truncated", origin)
        return Rendered([*chain(*kept)], cut)

    def places_of(self, ids: list[int]) -> list[int]:
        return [ids.index(mark) for mark in self.marks]


class AskedRenderer(BaseRenderer):
    """Prompt and two answers as RLHFlow asks which is better: one user turn of the chat template, without BOS."""

    policies, places = ("drop", "error"), ("last_token",)

    def __init__(self, tokenizer: Any, family: Family, **rules: Any):
        super().__init__(tokenizer, overlong="drop", **rules)
        self.family = family

    def _parts_of(self, prompt, first, second, origin) -> list[str | list[int]]:
        token = self.special.inside([prompt, first, second])
        if token:
            self._count_special(token, origin)
            prompt, first, second = self.special.marked([prompt, first, second])
        turns = "".join(f"\n<turn> {message['role']}\n {message['content']}" for message in prompt)
        asked = WHICH_IS_BETTER.format(f"\n{turns}\n", first, second)
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


def pair_renderer(tokenizer: Any, family: Family, path: str, rules: dict[str, Any]) -> MarkedRenderer | AskedRenderer:
    """The renderer of a model of this family that compares answers."""
    if rules["text_format"] == "rendered":
        raise UsageError("--text_format rendered is not for a model that compares answers: it writes two of them")
    if family.head == "Marked":
        return MarkedRenderer(tokenizer, family, path=path, **rules)
    return AskedRenderer(tokenizer, family, **rules)
