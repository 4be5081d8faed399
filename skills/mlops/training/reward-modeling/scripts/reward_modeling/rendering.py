"""Messages, or a prompt and steps -> token ids and what is scored. The one place of the project that tokenises.

A reward depends on every token up to the scored one, so training, scoring, evaluation and reinforcement learning must
turn the same conversation into the same ids. The rules:

1. The tokenizer's chat template writes the text; where there is none, `DEFAULT_TEMPLATE` is installed and saved.
2. The text is tokenised without adding special tokens: the template has written them, so BOS cannot appear twice.
3. No generation prompt. The conversation ends as the template ends it, with a token that says that the answer ended.
4. Padding is on the right, with a mask, by a token that is neither EOS nor ever last in a conversation: transformers'
   sequence classifiers pool the right-most token that is not the pad token, so padding with EOS would hide EOS.
5. A decoder is scored at its last token, an encoder at its pooled one.
6. What is longer than `max_length` follows one stated policy, and is counted.
7. Special tokens in what people wrote are text (`special_tokens`), and what a template leaves out is told (`completeness`).

`Renderer.fingerprint` names all of this in a few characters; it is saved with a model and compared when one is loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from .chat_templates import TemplateFaultError, apply, template_text
from .completeness import Arguments, Completeness
from .console import DataError, ModelError
from .data.audit.text import is_templated
from .data.records import Message
from .special_tokens import SpecialTokens
from .tokenizer_setup import FIXED_DATE as FIXED_DATE
from .tokenizer_setup import default_template as default_template
from .tokenizer_setup import prepare_tokenizer as prepare_tokenizer

# Rendered once to identify a tokenizer by what it does: several turns, a system prompt, digits, accents, code, blanks.
PROBES: tuple[tuple[Message, ...], ...] = (
    ({"role": "user", "content": "What is 17 + 25?"}, {"role": "assistant", "content": "17 + 25 = 42."}),
    (
        {"role": "user", "content": "Schreibe  zwei Wörter:\n\tnaïve café 東京"},
        {"role": "assistant", "content": "Hello, world!"},
        {"role": "user", "content": "def f(x):\n    return x**2  # squared"},
        {"role": "assistant", "content": " It squares x. "},
    ),
)

SCORED_AT = ("last_token", "pooled")
TEXT_FORMATS = ("chat", "rendered")
OVERLONG = ("drop", "truncate_prompt", "truncate_left", "error")
CONTENT_RULE = "special_tokens_in_content"
"""Key of the contract: "text". Cards without it are of models that were trained when such tokens were parsed."""
LONG_PROMPT = 8192
"""Characters from which a prompt of several completions is tokenised once for all."""
SHOWN = 5


def content_rule(card: dict[str, Any] | None) -> str:
    """How a model reads special tokens in content, by the `rendering` of its card: "text", or "parsed" in older cards."""
    return "text" if not card or "pad_token_id" not in card else card.get(CONTENT_RULE, "parsed")


def place_of(where: Any) -> str | None:
    return str(where) if where else None


@dataclass(frozen=True)
class Rendered:
    """Token ids of one conversation, at most `max_length`. `cut` tokens were removed from its start."""

    ids: list[int]
    cut: int = 0


class Renderer:
    """Turns conversations into token ids by the rules above.

    tokenizer: with a chat template and a pad token (see `prepare_tokenizer`). max_length: tokens, or None for no limit.
    overlong: `drop` (no ids), `truncate_prompt` (cut the start of the prompt, keep the answer whole; no ids when the
    answer alone is too long), `truncate_left` (cut whatever comes first, the answer's start too) or `error`.
    special_tokens_in_content: "text", or "parsed" for models whose card says nothing of it.
    text_format: "chat", or "rendered" for texts that a template has made already: prompt and answer, one message each, are read
    one after the other as they are, special tokens included.
    `counts` says what happened to the conversations rendered so far, `first` where it happened first; `longest` is the most
    that `max_length` could be, where known. `losses.sentences` tells people.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_length: int | None,
        overlong: str = "truncate_prompt",
        scored_at: str = "last_token",
        special_tokens_in_content: str = "text",
        text_format: str = "chat",
    ):
        if text_format not in TEXT_FORMATS:
            raise ValueError(f"text_format is one of {TEXT_FORMATS}, not {text_format!r}")
        if overlong not in OVERLONG:
            raise ValueError(f"overlong is one of {OVERLONG}, not {overlong!r}")
        if scored_at not in SCORED_AT:
            raise ValueError(f"scored_at is one of {SCORED_AT}, not {scored_at!r}")
        self.tokenizer, self.max_length, self.overlong, self.scored_at = tokenizer, max_length, overlong, scored_at
        self.text_format, self.longest = text_format, None
        self.special_tokens_in_content = "parsed" if text_format == "rendered" else special_tokens_in_content
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}
        self._fingerprint: str | None = None
        self._completeness, self._arguments = Completeness(self._write), Arguments(self._filled)
        self.refused: list[tuple[int, DataError]] | None = None
        self._last_templated: tuple[Any, bool] = (None, False)
        self._last_prompt: tuple[tuple, list[int]] = ((), [])

    @cached_property
    def special(self) -> SpecialTokens:
        return SpecialTokens(self.tokenizer)

    # ---- text -------------------------------------------------------------------------------------------------

    def text(
        self,
        messages: Sequence[Message],
        tools: list[dict] | None = None,
        *,
        where: Any = None,
        prompt_only: bool = False,
    ) -> str:
        """The templated conversation. With `prompt_only`, up to where the answer would begin.

        Raises DataError when the template refuses the conversation or fails on it, ModelError when it has no place for
        `tools`.
        """
        if self.text_format == "rendered":
            return _joined(messages, tools, where)
        if tools and "tools" not in template_text(self.tokenizer):
            raise ModelError(
                "the data has `tools`, but the chat template of this model has no place for them",
                where=place_of(where),
                hint="use a model whose template knows tools, or drop them with --columns tools=",
            )
        try:
            return self._write(messages, tools, prompt_only, count=not prompt_only)
        except TemplateFaultError as error:
            raise DataError(
                f"the chat template refuses this conversation: {error}",
                where=place_of(where),
                hint="drop the row, or use a model whose chat template takes such conversations",
            ) from error

    def _write(self, messages: Sequence[Message], tools: Any, prompt_only: bool, count: bool = False) -> str:
        """`text`, with the arguments of tool calls as the template wants them."""
        if self.special_tokens_in_content == "text":
            messages = self._arguments.as_wanted(messages)
        return self._filled(messages, tools, prompt_only, count)

    def _filled(self, messages: Sequence[Message], tools: Any, prompt_only: bool, count: bool = False) -> str:
        """The template's text; where it refuses, with null content as an empty one, then without a system turn."""
        try:
            return apply(self.tokenizer, messages, tools, prompt_only)
        except TemplateFaultError:
            filled = _without_null(messages)
            for other in (filled, _fold_system(filled)):
                if other is not None and other != messages:
                    with contextlib.suppress(TemplateFaultError):
                        text = apply(self.tokenizer, other, tools, prompt_only)
                        if count and len(other) < len(messages):
                            self.counts["system_prompt_moved_into_user_turn"] += 1
                        return text
            raise

    # ---- ids --------------------------------------------------------------------------------------------------

    def render(
        self,
        prompt: Sequence[Message],
        completion: Sequence[Message],
        tools: list[dict] | None = None,
        *,
        where: Any = None,
    ) -> Rendered | None:
        """Ids of one prompt with one completion, or None when the policy leaves it out."""
        return self.render_all([(prompt, completion, tools, where)])[0]

    def render_all(
        self, conversations: Sequence[tuple], refused: list[tuple[int, DataError]] | None = None
    ) -> list[Rendered | None]:
        """`render` for many (prompt, completion, tools, where), tokenised together. In input order.

        refused: a list that gets (place, error) of what cannot be rendered, whose entries are None, by default the
        renderer's own `refused`; without any they are one DataError, which counts them and names the first.
        """
        refused = self.refused if refused is None else refused
        faults: list[tuple[int, DataError]] = []
        texts: list[str | None] = [None] * len(conversations)
        ids: list[list[int] | None] = [None] * len(conversations)
        for i, conversation in enumerate(conversations):
            try:
                texts[i], marked = self._complete_text(*conversation)
                if marked is not None:
                    ids[i], texts[i] = self.special.ids(marked), None
            except DataError as error:
                faults.append((i, error))
        for i, row in self._encoded(texts, conversations):
            ids[i] = row
        rendered: list[Rendered | None] = [None] * len(ids)
        for i, row in enumerate(ids):
            try:
                rendered[i] = None if row is None else self._fit(row, conversations[i])
            except DataError as error:
                faults.append((i, error))
        if faults and refused is None:
            raise refused_together(sorted(faults, key=lambda fault: fault[0]), len(conversations))
        if refused is not None:
            refused += faults
            for _, error in faults:
                self._count("refused", f"{error.where}: {error.message}" if error.where else error.message)
        return rendered

    def _complete_text(self, prompt, completion, tools, where) -> tuple[str, str | None]:
        """(text, text with special tokens of the content marked, or None without any). Counts what is not in the text."""
        text = self.text([*prompt, *completion], tools, where=where)
        if self.text_format == "rendered":
            check_one_text(prompt, completion, where)
            return text, None
        if self._last_templated[0] is not prompt:  # of several completions of one prompt, once
            self._last_templated = (prompt, is_templated(message["content"] or "" for message in prompt))
        if self._last_templated[1]:
            self._count("templated", where)
        if self.special_tokens_in_content == "text":
            completion = self._arguments.as_wanted(completion)
        absent = self._completeness.missing(prompt, completion, tools, text)
        if absent:
            fields = " and ".join(f"`{field}`" for field in absent)
            if self._completeness.nothing_left(prompt, completion, tools, text):
                raise DataError(
                    f"nothing of the completion reaches the model: its chat template leaves out {fields}",
                    where=place_of(where),
                    hint="use a model whose chat template writes them, move them into `content`, or drop these rows",
                )
            self._count("not_rendered", f"{fields} of {where}" if where else fields)
        return text, self._marked([*prompt, *completion], tools, where)

    def _marked(self, messages: Sequence[Message], tools: Any, where: Any, prompt_only: bool = False) -> str | None:
        """The text with marks around special tokens of the content, None where there are none or they are to be parsed."""
        if self.text_format == "rendered" or not self.special.inside([messages, tools or []]):
            return None
        if not prompt_only:
            self._count(CONTENT_RULE, where)
        if self.special_tokens_in_content != "text":
            return None
        return self.text(
            self.special.marked(messages), self.special.marked(tools), where=where, prompt_only=prompt_only
        )

    def _encoded(self, texts: list[str | None], conversations: Sequence[tuple]):
        """(place, ids) of each text. What completions of one long prompt begin with alike is tokenised once."""
        places, wanted, heads = [], [], []
        present = [i for i, text in enumerate(texts) if text is not None]
        for _, run in groupby(present, key=_Run(conversations)):
            run = list(run)
            own = [texts[i] for i in run]
            cut = self.special.cut_at(own) if len(run) > 1 and min(map(len, own)) > LONG_PROMPT else 0
            cut = cut if cut > LONG_PROMPT // 2 and self._splits_exactly(own[0], cut) else 0
            heads += [(own[0][:cut], len(run))] if cut else [("", len(run))]
            places += run
            wanted += [text[cut:] for text in own]
        tails = iter(self._tokens(wanted))
        known = dict(zip(long := [head for head, _ in heads if head], self._tokens(long), strict=True))
        place = iter(places)
        for head, count in heads:
            for _ in range(count):
                yield next(place), [*known.get(head, ()), *next(tails)]

    def _splits_exactly(self, text: str, cut: int) -> bool:
        """Whether this tokenizer gives the two parts of a text the ids that they have in the whole: asked of a short one."""
        start = max(0, cut - LONG_PROMPT // 8)
        whole, head, tail = self._tokens([text[start : cut + 256], text[start:cut], text[cut : cut + 256]])
        return whole == head + tail

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        return self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]

    def _fit(self, ids: list[int], conversation: tuple) -> Rendered | None:
        prompt, _, tools, where = conversation
        self.counts["rendered"] += 1
        if self.scored_at == "last_token" and ids and ids[-1] == self.tokenizer.pad_token_id:
            raise DataError(
                "the conversation ends with the pad token, which would hide its end from the model",
                where=place_of(where),
            )
        if not ids:
            raise DataError("the conversation renders to no token at all", where=place_of(where))
        if self.max_length is None or len(ids) <= self.max_length:
            return Rendered(ids)
        self.counts["over_length"] += 1
        if self.overlong == "error":
            raise DataError(
                f"the conversation has {len(ids)} tokens, more than --max_length {self.max_length}",
                where=place_of(where),
                hint="raise --max_length, or choose --overlong truncate_prompt or drop",
            )
        head = self._leading_special(ids)
        room = self.max_length - head
        if self.overlong == "drop" or (
            self.overlong == "truncate_prompt" and len(ids) - self._answer_start(ids, prompt, tools, where) > room
        ):
            self._count("dropped", where)
            return None
        self._count("truncated", where)
        return Rendered(ids[:head] + ids[len(ids) - room :], cut=len(ids) - self.max_length)

    def _count(self, name: str, where: Any) -> None:
        self.counts[name] += 1
        self.first.setdefault(name, str(where) if where else "a conversation")

    def _leading_special(self, ids: list[int]) -> int:
        """1 when the conversation opens with BOS or CLS, which a cut must leave in place."""
        return int(ids[0] in (self.tokenizer.bos_token_id, self.tokenizer.cls_token_id) and ids[0] is not None)

    def prompt_ids(self, prompt: Sequence[Message], tools: list[dict] | None = None, *, where: Any = None) -> list[int]:
        """Ids of a conversation up to where the answer would begin: what a policy continues."""
        marked = self._marked(prompt, tools, where, prompt_only=True)
        if marked is not None:
            return self.special.ids(marked)
        return self._tokens([self.text(prompt, tools, where=where, prompt_only=True)])[0]

    def _answer_start(self, ids: list[int], prompt: Sequence[Message], tools: list[dict] | None, where: Any) -> int:
        """How many leading tokens belong to the prompt: those it has in common with the prompt rendered alone."""
        if not prompt:
            return 0
        if self._last_prompt[0] != (prompt, tools):  # of several completions of one prompt, once
            self._last_prompt = ((prompt, tools), self.prompt_ids(prompt, tools, where=where))
        alone = self._last_prompt[1]
        shared = 0
        while shared < min(len(ids), len(alone)) and ids[shared] == alone[shared]:
            shared += 1
        return shared

    # ---- identity ---------------------------------------------------------------------------------------------

    def contract(self) -> dict[str, Any]:
        """What decides a conversation's ids, in JSON. `max_length` and `overlong` may be changed by the caller, the rest not.

        Raises ModelError when the chat template fails on plain conversations.
        """
        tokenizer = self.tokenizer
        rule = {CONTENT_RULE: "text"} if self.special_tokens_in_content == "text" else {}
        return {
            "chat_template_sha256": _sha256(template_text(tokenizer)),
            "probe_ids_sha256": _sha256(json.dumps(self.probe_ids())),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "padding_side": "right",
            "scored_at": self.scored_at,
            **rule,
            **({"text_format": "rendered"} if self.text_format == "rendered" else {}),
        }

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change when any conversation could render to other ids or be scored elsewhere."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint_of(self.contract())
        return self._fingerprint

    def probe_ids(self) -> list[list[int]]:
        """Ids of two plain conversations. Raises ModelError when the template cannot render them."""
        try:
            return self._tokens([apply(self.tokenizer, probe) for probe in PROBES])
        except TemplateFaultError as error:
            raise ModelError(
                f"the model has a broken chat template: {error}", hint="restore the one that came with it"
            ) from error


class _Run:
    """A key for `groupby`: the same for conversations one after the other that share prompt and tools."""

    def __init__(self, conversations: Sequence[tuple]):
        self.conversations, self.last, self.number = conversations, None, 0

    def __call__(self, place: int) -> int:
        prompt, _, tools, _ = self.conversations[place]
        if self.last is None or self.last[0] != prompt or self.last[1] != tools:
            self.last, self.number = (prompt, tools), self.number + 1
        return self.number


def refused_together(faults: Sequence[tuple[int, DataError]], total: int) -> DataError:
    """One error for all of them: the only one as it is, else their number, the first places and the first reason."""
    first = faults[0][1]
    if len(faults) == 1:
        return first
    places = list(dict.fromkeys(error.where for _, error in faults if error.where))
    shown = ", ".join(places[:SHOWN]) + (f" and {len(places) - SHOWN} more" if len(places) > SHOWN else "")
    return DataError(
        f"{len(faults)} of {total} conversations cannot be rendered{f' ({shown})' if shown else ''}; the first: {first.message}",
        where=first.where,
        hint=first.hint,
    )


def _joined(messages: Sequence[Message], tools: Any, where: Any) -> str:
    """The texts of messages one after the other."""
    if tools:
        raise DataError(
            "the data has `tools`, which text that is rendered already must hold itself",
            where=place_of(where),
            hint="drop them with --columns tools=",
        )
    return "".join(message["content"] or "" for message in messages)


def check_one_text(prompt: Sequence[Message], completion: Sequence[Message], where: Any) -> None:
    """Raises DataError for turns: only a template can say what stands between them."""
    if len(prompt) > 1 or len(completion) != 1:
        raise DataError(
            "a conversation of several messages is not a text that is rendered already",
            where=place_of(where),
            hint="give prompt and answer as texts, or leave out --text_format rendered",
        )


def fingerprint_of(contract: dict[str, Any]) -> str:
    """Sixteen hex digits of a rendering contract."""
    return _sha256(json.dumps(contract, sort_keys=True))[:16]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _without_null(messages: Sequence[Message]) -> list[Message]:
    """Null content as an empty text: a message that calls a tool has none, and few templates know."""
    return [{**message, "content": ""} if message.get("content") is None else message for message in messages]


def _fold_system(messages: list[Message]) -> list[Message] | None:
    """The conversation with its system prompt put before the first user turn, for templates that know no system role."""
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return None
    first = {**messages[1], "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
    return [first, *messages[2:]]
