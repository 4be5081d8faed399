"""Conversations written as the authors of a public outcome reward model wrote them (`public_families.Text`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from .base_rendering import opening_ids
from .console import DataError
from .data.records import Message
from .public_families import Family
from .rendering import Rendered, Renderer

Named = dict[str, Any]


class PublicRenderer(Renderer):
    """Writes a conversation as the authors of a family did. Arguments: see `BaseRenderer`; the policies are those of ours."""

    places = (*Renderer.places, "end")

    def __init__(self, tokenizer: Any, family: Family, **rules: Any):
        self.family = family
        super().__init__(tokenizer, **rules)

    @cached_property
    def _opening(self) -> list[int]:
        return opening_ids(self.tokenizer)

    @cached_property
    def appended(self) -> int | None:
        vocabulary = self.tokenizer.get_vocab()
        return next((vocabulary[token] for token in self.family.text.append if token in vocabulary), None)

    @cached_property
    def _gate(self) -> list[int]:
        return self._tokens([self.family.gate or ""])[0]

    def places_of(self, ids: list[int]) -> list[int]:
        """The positions that the head reads, ascending: where a gate is read, and the last."""
        last, size = len(ids) - 1, len(self._gate)
        gates = (start for start in range(len(ids) - size, -1, -1) if ids[start : start + size] == self._gate)
        return [next(gates), last] if size else [last]

    def _filled(self, messages: Sequence[Message], tools: Any, prompt_only: bool, count: bool = False) -> str:
        text = self.family.text
        if text.system is not None and (not messages or messages[0]["role"] != "system"):
            messages = [{"role": "system", "content": text.system}, *messages]
        if not prompt_only and text.turns:
            messages = text.turns(list(messages))
        written = super()._filled(messages, tools, prompt_only or text.prompt_only, count)
        if prompt_only or text.end is None:
            return written
        written, end = written.rstrip("\n"), text.end.format(eos=self.tokenizer.eos_token)
        return written if written.endswith(end.strip()) else written + end

    def _parts_of(self, prompt: Any, completion: Any, tools: Any, origin: Any) -> list[str | list[int]]:
        if not self.family.text.pair or self.text_format == "rendered":
            return super()._parts_of(prompt, completion, tools, origin)
        if tools:
            raise DataError(
                "a text pair has no place for `tools`", where=origin, hint="drop them with --columns tools="
            )
        return [_as_text(prompt), _as_text(completion)]

    @cached_property
    def _borders(self) -> list[list[int]]:
        """What the tokenizer puts before, between and after the two texts of a pair."""
        (word,) = self._tokens(["a"])
        ids, borders = list(self.tokenizer("a", "a")["input_ids"]), []
        for _ in range(2):
            at = next(i for i in range(len(ids)) if ids[i : i + len(word)] == word)
            borders, ids = [*borders, ids[:at]], ids[at + len(word) :]
        return [*borders, ids]

    def prompt_ids(self, prompt: Sequence[Message], tools: list[dict] | None = None, *, where: Any = None) -> list[int]:
        if self.family.text.pair and self.text_format != "rendered":
            return [*self._borders[0], *self._tokens([_as_text(prompt)])[0], *self._borders[1]]
        return self._opened(super().prompt_ids(prompt, tools, where=where))

    def _opened(self, ids: list[int]) -> list[int]:
        """The ids after the BOS that the family's policy puts there."""
        if self.text_format == "rendered":
            return ids
        bos, opening = self.family.text.bos, self._opening
        return [*opening, *ids] if bos == "both" or (bos == "tokenizer" and ids[: len(opening)] != opening) else ids

    def _fit(self, parts: list[list[int]], prompt: Any, completion: Any, tools: Any, origin: Any) -> Rendered | None:
        ids = self._opened(parts[0])
        if len(parts) == 2:
            ids = [*self._borders[0], *parts[0], *self._borders[1], *parts[1], *self._borders[2]]
        if ids and self.text_format != "rendered" and self.appended not in (None, ids[-1]):
            ids = [*ids, self.appended]
        fitted = super()._fit([ids], prompt, completion, tools, origin)
        if fitted and self._gate:
            try:
                self.places_of(fitted.ids)
            except StopIteration:
                raise DataError(
                    f"the text lacks {self.family.gate!r}, where the weights of the attributes are read",
                    where=origin,
                    hint="raise --max_length: the start of the answer was cut off" if fitted.cut else None,
                ) from None
        return fitted


def _as_text(messages: Sequence[Message]) -> str:
    return "\n".join(message["content"] or "" for message in messages)


def with_token_types(separator: int) -> Callable[[Any, tuple, Named], tuple[tuple, Named]]:
    """A hook that tells an encoder which tokens are those of the second text: all after the first separator."""

    def hook(model: Any, args: tuple, named: Named) -> tuple[tuple, Named]:
        ends = (named["input_ids"] == separator).long()
        return args, {**named, "token_type_ids": ((ends.cumsum(1) - ends) > 0).long() * named["attention_mask"]}

    return hook
