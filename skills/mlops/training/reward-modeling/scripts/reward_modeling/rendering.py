"""Messages, or a prompt and steps -> token ids and what is scored. The one place of the project that tokenizes.

A reward depends on every token up to the scored one, so training, scoring, evaluation and reinforcement learning must
turn the same conversation into the same ids. The rules:

1. The tokenizer's chat template writes the text; where there is none, `DEFAULT_TEMPLATE` is installed and saved.
2. The text is tokenized without adding special tokens: the template has written them, so BOS cannot appear twice.
3. No generation prompt. The conversation ends as the template ends it, with a token that says that the answer ended.
4. Padding is on the right, with a mask, by a token that is neither EOS nor ever last in a conversation: transformers'
   sequence classifiers pool the right-most token that is not the pad token, so padding with EOS would hide EOS.
5. A decoder is scored at its last token, an encoder at its pooled one.
6. What is longer than `max_length` follows one stated policy, and is counted.
7. Special tokens in what people wrote are text (`special_tokens`), and what a template leaves out is told (`completeness`).

A `fingerprint` names all of this in a few characters; it is saved with a model and compared when one is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from .base_rendering import BaseRenderer, check_one_text, place_of
from .base_rendering import refused_together as refused_together
from .completeness import Completeness
from .console import DataError
from .data.records import Message
from .prefixes import shared_length
from .tokenizer_setup import FIXED_DATE as FIXED_DATE
from .tokenizer_setup import default_template as default_template
from .tokenizer_setup import prepare_tokenizer as prepare_tokenizer

OVERLONG = ("drop", "truncate_prompt", "truncate_left", "error")
LONG_PROMPT = 8192
"""Characters from which a prompt of several completions is tokenized once for all."""


class Conversation(NamedTuple):
    """One completion in its context. origin: where it comes from, FILE:ROW, as errors call it."""

    prompt: Sequence[Message]
    completion: Sequence[Message]
    tools: list[dict] | None = None
    origin: Any = None


@dataclass(frozen=True)
class Rendered:
    """Token ids of one conversation, at most `max_length`. `cut` tokens were removed from its start.

    start: where the answer begins, for a reward that counts its tokens alone.
    """

    ids: list[int]
    cut: int = 0
    start: int | None = None


class Renderer(BaseRenderer):
    """Turns conversations into token ids by the rules above. Arguments: see `BaseRenderer`.

    overlong: `drop` (no ids), `truncate_prompt` (cut the start of the prompt, keep the answer whole; no ids when the
    answer alone is too long), `truncate_left` (cut whatever comes first, the answer's start too) or `error`.
    """

    policies = OVERLONG
    places = ("last_token", "pooled")

    def __init__(self, tokenizer: Any, *, max_length: int | None, overlong: str = "truncate_prompt", **rules: Any):
        super().__init__(tokenizer, max_length=max_length, overlong=overlong, **rules)
        self._completeness = Completeness(self._write)
        self._last_prompt: tuple[tuple, list[int]] = ((), [])

    def render(
        self,
        prompt: Sequence[Message],
        completion: Sequence[Message],
        tools: list[dict] | None = None,
        *,
        where: Any = None,
    ) -> Rendered | None:
        """Ids of one prompt with one completion, or None when the policy leaves it out."""
        return self.render_all([Conversation(prompt, completion, tools, where)])[0]

    def _text_of(self, prompt, completion, tools, origin) -> str | list[int]:
        text = self.text([*prompt, *completion], tools, where=origin)
        if self.text_format == "rendered":
            check_one_text(prompt, completion, origin)
            return text
        self._count_templated(prompt, origin)
        if self.special_tokens_in_content == "text":
            completion = self._arguments.as_wanted(completion)
        absent = self._completeness.missing(prompt, completion, tools, text)
        if absent:
            fields = " and ".join(f"`{field}`" for field in absent)
            if self._completeness.nothing_left(prompt, completion, tools, text):
                raise DataError(
                    f"nothing of the completion reaches the model: its chat template leaves out {fields}",
                    where=place_of(origin),
                    hint="use a model whose chat template writes them, move them into `content`, or drop these rows",
                )
            self._count("not_rendered", f"{fields} of {origin}" if origin else fields)
        marked = self._marked([*prompt, *completion], tools, origin)
        return text if marked is None else self.special.ids(marked)

    def _ids_of(self, texts: list[str | list[int] | None], inputs: Sequence[Conversation]) -> list[list[int] | None]:
        present = [i for i, text in enumerate(texts) if isinstance(text, str)]
        heads, ids = {}, list(texts)
        for _, run in groupby(present, key=lambda i: (inputs[i][0], inputs[i][2])):  # of one prompt and its tools
            run = list(run)
            head = self._shared_head([texts[i] for i in run])
            for i in run:
                heads[i], ids[i] = head, texts[i][len(head) :]
        distinct = list(dict.fromkeys(filter(None, heads.values())))
        known = {"": [], **dict(zip(distinct, self._tokens(distinct), strict=True))}
        tails = self._tokens([ids[i] for i in present])
        for i, tail in zip(present, tails, strict=True):
            ids[i] = known[heads[i]] + tail
        return ids

    def _shared_head(self, texts: list[str]) -> str:
        """What several long texts begin with and can be tokenized once for all; nothing where that would not pay."""
        cut = self.special.cut_at(texts) if len(texts) > 1 and min(map(len, texts)) > LONG_PROMPT else 0
        return texts[0][:cut] if cut > LONG_PROMPT // 2 and self._splits_exactly(texts[0], cut) else ""

    def _splits_exactly(self, text: str, cut: int) -> bool:
        """Whether this tokenizer gives the two parts of a text the ids that they have in the whole: asked of a short one."""
        start = max(0, cut - LONG_PROMPT // 8)
        whole, head, tail = self._tokens([text[start : cut + 256], text[start:cut], text[cut : cut + 256]])
        return whole == head + tail

    def _fit(self, ids: list[int], prompt, completion, tools, origin) -> Rendered | None:
        self.counts["rendered"] += 1
        if self.scored_at == "last_token" and ids and ids[-1] == self.tokenizer.pad_token_id:
            raise DataError(
                "the conversation ends with the pad token, which would hide its end from the model",
                where=place_of(origin),
            )
        if not ids:
            raise DataError("the conversation renders to no token at all", where=place_of(origin))
        if self.max_length is None or len(ids) <= self.max_length:
            return Rendered(ids)
        self.counts["over_length"] += 1
        if self.overlong == "error":
            raise DataError(
                f"the conversation has {len(ids)} tokens, more than --max_length {self.max_length}",
                where=place_of(origin),
                hint="raise --max_length, or choose --overlong truncate_prompt or drop",
            )
        head = self._leading_special(ids)
        room = self.max_length - head
        if self.overlong == "drop" or (
            self.overlong == "truncate_prompt" and len(ids) - self._answer_start(ids, prompt, tools, origin) > room
        ):
            self._count("dropped", origin)
            return None
        self._count("truncated", origin)
        return Rendered(ids[:head] + ids[len(ids) - room :], cut=len(ids) - self.max_length)

    def _answer_start(self, ids: list[int], prompt: Sequence[Message], tools: list[dict] | None, origin: Any) -> int:
        """How many leading tokens belong to the prompt: those it has in common with the prompt rendered alone."""
        if not prompt:
            return 0
        if self._last_prompt[0] != (prompt, tools):  # of several completions of one prompt, once
            self._last_prompt = ((prompt, tools), self.prompt_ids(prompt, tools, where=origin))
        return shared_length(ids, self._last_prompt[1])
