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

`Renderer.fingerprint` names all of this in a few characters; it is saved with a model and compared when one is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .console import DataError, ModelError
from .records import Message

# "User:" and "Assistant:" on their own lines, and an end token after each answer. The generation prompt is a prefix of
# the finished conversation, so that a prompt is tokenised alike with and without an answer behind it.
DEFAULT_TEMPLATE = (
    "{{ START }}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}{{ 'Assistant: ' + message['content'] + END }}"
    "{%- else -%}{{ message['role'].capitalize() + ': ' + message['content'] + '\\n\\n' }}{%- endif -%}"
    "{%- if message['role'] == 'assistant' and not loop.last -%}{{ '\\n\\n' }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}"
)

# Tokens that model families set aside for padding, tried before a new one is added to the vocabulary.
PAD_CANDIDATES = ("<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|fim_pad|>", "<|PAD_TOKEN|>")

# A template that writes today's date makes a score depend on the day. This macro, put before such a template, fixes it.
FIXED_DATE = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"

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
OVERLONG = ("drop", "truncate_prompt", "truncate_left", "error")


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
    `counts` says what happened to the conversations rendered so far.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_length: int | None,
        overlong: str = "truncate_prompt",
        scored_at: str = "last_token",
    ):
        if overlong not in OVERLONG:
            raise ValueError(f"overlong is one of {OVERLONG}, not {overlong!r}")
        if scored_at not in SCORED_AT:
            raise ValueError(f"scored_at is one of {SCORED_AT}, not {scored_at!r}")
        self.tokenizer, self.max_length, self.overlong, self.scored_at = tokenizer, max_length, overlong, scored_at
        self.counts: Counter[str] = Counter()
        self._fingerprint: str | None = None

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

        Raises DataError when the template refuses the conversation, ModelError when it has no place for `tools`.
        """
        if tools and "tools" not in self.tokenizer.chat_template:
            raise ModelError(
                "the data has `tools`, but the chat template of this model has no place for them",
                where=str(where) if where else None,
                hint="use a model whose template knows tools, or drop them with --columns tools=",
            )
        messages = list(messages)
        try:
            return self._apply_template(messages, tools, prompt_only)
        except _template_errors() as error:
            folded = _fold_system(messages)
            if folded is None:
                raise DataError(
                    f"the chat template refuses this conversation: {error}", where=str(where) if where else None
                ) from error
        try:
            text = self._apply_template(folded, tools, prompt_only)
        except _template_errors() as error:
            raise DataError(
                f"the chat template refuses this conversation: {error}", where=str(where) if where else None
            ) from error
        self.counts["system_prompt_moved_into_user_turn"] += not prompt_only
        return text

    def _apply_template(self, messages: list[Message], tools: list[dict] | None, prompt_only: bool) -> str:
        return self.tokenizer.apply_chat_template(
            messages, tools=tools or None, tokenize=False, add_generation_prompt=prompt_only
        )

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

    def render_all(self, conversations: Sequence[tuple]) -> list[Rendered | None]:
        """`render` for many (prompt, completion, tools, where), tokenised together. In input order."""
        if not conversations:
            return []
        texts = [
            self.text([*prompt, *completion], tools, where=where) for prompt, completion, tools, where in conversations
        ]
        encoded = self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        return [self._fit(ids, conversation) for ids, conversation in zip(encoded, conversations, strict=True)]

    def _fit(self, ids: list[int], conversation: tuple) -> Rendered | None:
        prompt, _, tools, where = conversation
        self.counts["rendered"] += 1
        if self.scored_at == "last_token" and ids and ids[-1] == self.tokenizer.pad_token_id:
            raise DataError(
                "the conversation ends with the pad token, which would hide its end from the model",
                where=str(where) if where else None,
            )
        if not ids:
            raise DataError("the conversation renders to no token at all", where=str(where) if where else None)
        if self.max_length is None or len(ids) <= self.max_length:
            return Rendered(ids)
        self.counts["over_length"] += 1
        if self.overlong == "error":
            raise DataError(
                f"the conversation has {len(ids)} tokens, more than --max_length {self.max_length}",
                where=str(where) if where else None,
                hint="raise --max_length, or choose --overlong truncate_prompt or drop",
            )
        head = self._leading_special(ids)
        room = self.max_length - head
        if self.overlong == "drop" or (
            self.overlong == "truncate_prompt" and len(ids) - self._answer_start(ids, prompt, tools, where) > room
        ):
            self.counts["dropped"] += 1
            return None
        self.counts["truncated"] += 1
        return Rendered(ids[:head] + ids[len(ids) - room :], cut=len(ids) - self.max_length)

    def _leading_special(self, ids: list[int]) -> int:
        """1 when the conversation opens with BOS or CLS, which a cut must leave in place."""
        return int(ids[0] in (self.tokenizer.bos_token_id, self.tokenizer.cls_token_id) and ids[0] is not None)

    def prompt_ids(self, prompt: Sequence[Message], tools: list[dict] | None = None, *, where: Any = None) -> list[int]:
        """Ids of a conversation up to where the answer would begin: what a policy continues."""
        text = self.text(prompt, tools, where=where, prompt_only=True)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _answer_start(self, ids: list[int], prompt: Sequence[Message], tools: list[dict] | None, where: Any) -> int:
        """How many leading tokens belong to the prompt: those it has in common with the prompt rendered alone."""
        if not prompt:
            return 0
        alone = self.prompt_ids(prompt, tools, where=where)
        shared = 0
        while shared < min(len(ids), len(alone)) and ids[shared] == alone[shared]:
            shared += 1
        return shared

    # ---- identity ---------------------------------------------------------------------------------------------

    def contract(self) -> dict[str, Any]:
        """What decides a conversation's ids, in JSON. `max_length` and `overlong` may be changed by the caller, the rest not."""
        tokenizer = self.tokenizer
        return {
            "chat_template_sha256": _sha256(tokenizer.chat_template),
            "probe_ids_sha256": _sha256(json.dumps(self._probe_ids())),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "padding_side": "right",
            "scored_at": self.scored_at,
        }

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change when any conversation could render to other ids or be scored elsewhere."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint_of(self.contract())
        return self._fingerprint

    def _probe_ids(self) -> list[list[int]]:
        return [
            self.tokenizer(self._apply_template(list(probe), None, False), add_special_tokens=False)["input_ids"]
            for probe in PROBES
        ]


def fingerprint_of(contract: dict[str, Any]) -> str:
    """Sixteen hex digits of a rendering contract."""
    return _sha256(json.dumps(contract, sort_keys=True))[:16]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _template_errors() -> tuple[type[Exception], ...]:
    from jinja2 import TemplateError

    return (TemplateError, TypeError)


def _fold_system(messages: list[Message]) -> list[Message] | None:
    """The conversation with its system prompt put before the first user turn, for templates that know no system role."""
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return None
    first = {**messages[1], "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
    return [first, *messages[2:]]


# ---- making a tokenizer fit for the rules -------------------------------------------------------------------------


def prepare_tokenizer(tokenizer: Any, chat_template: str | None = None) -> list[str]:
    """Give a tokenizer what the rules need: a chat template, an end token, a pad token of its own, a fixed date.

    Changes the tokenizer in place, and returns one sentence for each change. When a pad token had to be added,
    the vocabulary has grown by one and the model's embeddings must follow (`checkpoints.load_for_training` does that).
    Raises ModelError when there is neither a chat template nor a token that could end an answer.
    """
    notes = []
    if chat_template:
        tokenizer.chat_template = chat_template
        notes.append("chat template: the one given")
    if not tokenizer.chat_template:
        tokenizer.chat_template = default_template(tokenizer)
        notes.append("chat template: the tokenizer has none, so the project's default is used and saved")
    if "strftime_now" in tokenizer.chat_template and FIXED_DATE not in tokenizer.chat_template:
        tokenizer.chat_template = FIXED_DATE + tokenizer.chat_template
        notes.append("chat template: it writes today's date, which is fixed so that a score does not depend on the day")
    pad = tokenizer.pad_token
    if pad is None or pad == tokenizer.eos_token:
        tokenizer.pad_token = _own_pad_token(tokenizer)
        notes.append(
            f"pad token: {tokenizer.pad_token} (it was {'missing' if pad is None else 'the same as EOS, which hides EOS from the model'})"
        )
    tokenizer.padding_side = "right"
    return notes


def default_template(tokenizer: Any) -> str:
    """`DEFAULT_TEMPLATE` with this tokenizer's start and end tokens written in.

    Start: CLS, or BOS where the tokenizer itself would put it. End: EOS, or SEP for an encoder.
    """
    end = tokenizer.eos_token or tokenizer.sep_token
    if not end:
        raise ModelError(
            "the tokenizer has neither a chat template nor an EOS or SEP token: nothing would tell the model where an answer ends",
            hint="give a template that ends answers with --chat_template_path, or use a tokenizer with an EOS token",
        )
    opening = tokenizer("a", add_special_tokens=True)["input_ids"][0]
    start = next(
        (
            token
            for token in (tokenizer.cls_token, tokenizer.bos_token)
            if token and tokenizer.convert_tokens_to_ids(token) == opening
        ),
        "",
    )
    return DEFAULT_TEMPLATE.replace("START", json.dumps(start)).replace("END", json.dumps(end))


def _own_pad_token(tokenizer: Any) -> str:
    vocabulary = tokenizer.get_vocab()
    for token in PAD_CANDIDATES:
        if token in vocabulary and token != tokenizer.eos_token:
            return token
    tokenizer.add_special_tokens({"pad_token": PAD_CANDIDATES[0]})
    return PAD_CANDIDATES[0]


# ---- solutions in steps -----------------------------------------------------------------------------------------------
#
# The prompt is rendered as everywhere, up to where the answer begins. Behind it stand, for each step, the step's own tokens
# and the separator's. The score of a step is read at the last token of its separator:
#
# 1. Prompt, steps and separator are tokenised one by one, so that no token spans two of them: the ids of the first k steps
#    are the beginning of the ids of all steps, whatever follows. A decoder therefore scores every step in one pass.
# 2. An encoder reads in both directions: at the end of step k it would see step k + 1, and where labels stop at the first
#    error the mere fact that nothing follows. So each beginning of a solution is a row of its own, up to the same token.
# 3. The scored token is the separator's for both kinds of model, not a closing SEP or EOS: what stands there is the same
#    after every step, and does not say whether the solution ended.
# 4. What is longer than `max_length` loses whole steps at its end, or the start of its prompt, and is counted. A step that
#    is kept is kept whole, with its own label.


STEP_SEPARATOR = "\n"
STEPS_SCORED_AT = ("last_token", "prefix")
STEPS_OVERLONG = ("drop_steps", "truncate_prompt", "drop", "error")

_ANSWER = "ANSWER"
_ASKED: tuple[Message, ...] = ({"role": "user", "content": "QUESTION"},)


@dataclass(frozen=True)
class RenderedSolution:
    """Token ids of a prompt and its steps. The last steps, `dropped` of them, did not fit.

    positions: for each kept step the index in `ids` of the token it is scored at. cut: tokens removed from the prompt.
    """

    ids: list[int]
    positions: list[int]
    dropped: int = 0
    cut: int = 0


class StepRenderer:
    """Turns a prompt and its steps into token ids by the rules above.

    tokenizer: with a chat template and a pad token (see `rendering.prepare_tokenizer`). max_length: tokens, or None for
    no limit. overlong: `drop_steps` (leave out the last steps), `truncate_prompt` (cut the start of the prompt, and leave
    out last steps when they do not fit without any prompt), `drop` (leave out the solution) or `error`.
    scored_at: `last_token` for decoders (all steps in one row) or `prefix` for encoders (a row for each step).
    `counts` says what happened to the solutions rendered so far. Raises ModelError when the separator is no token.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_length: int | None,
        overlong: str = "drop_steps",
        scored_at: str = "last_token",
        step_separator: str = STEP_SEPARATOR,
    ):
        if overlong not in STEPS_OVERLONG:
            raise ValueError(f"overlong is one of {STEPS_OVERLONG}, not {overlong!r}")
        if scored_at not in STEPS_SCORED_AT:
            raise ValueError(f"scored_at is one of {STEPS_SCORED_AT}, not {scored_at!r}")
        self.tokenizer, self.max_length, self.overlong, self.scored_at = tokenizer, max_length, overlong, scored_at
        self.step_separator = step_separator
        self.separator_ids = self._tokens([step_separator])[0] if step_separator else []
        if not self.separator_ids:
            raise ModelError(
                f"the step separator {step_separator!r} is no token of this tokenizer, so that no step has a token to be scored at",
                hint=f"give another, as in --step_separator {tokenizer.sep_token or tokenizer.eos_token or '###'}",
            )
        self.counts: Counter[str] = Counter()
        self._conversations = Renderer(tokenizer, max_length=None)

    # ---- ids --------------------------------------------------------------------------------------------------

    def render_solution(
        self, prompt: Sequence[Message], steps: Sequence[str], *, where: Any = None
    ) -> RenderedSolution | None:
        """Ids of one prompt with its steps, or None when the policy leaves it out. Raises DataError for an empty step."""
        return self.render_all([(prompt, steps, where)])[0]

    def render_all(self, solutions: Sequence[tuple]) -> list[RenderedSolution | None]:
        """`render_solution` for many (prompt, steps, where), tokenised together. In input order."""
        texts: list[str] = []
        for prompt, steps, where in solutions:
            _check_steps(steps, where)
            self.counts["separator_in_step"] += sum(self.step_separator in step for step in steps)
            texts.append(self._conversations.text(prompt, where=where, prompt_only=True) if prompt else "")
            texts += [self._lead + step if i == 0 and prompt else step for i, step in enumerate(steps)]
        pieces = iter(self._tokens(texts))
        rendered = []
        for _, steps, where in solutions:
            prompt_ids, step_ids = next(pieces), [next(pieces) for _ in steps]
            rendered.append(self._fit(prompt_ids, step_ids, where))
        return rendered

    def rows(self, solution: RenderedSolution) -> list[tuple[list[int], list[int]]]:
        """(ids, positions) of each row to compute: the whole solution for a decoder, for an encoder one a step."""
        if self.scored_at == "last_token":
            return [(solution.ids, solution.positions)]
        return [(solution.ids[: position + 1], [position]) for position in solution.positions]

    def text(self, messages: Sequence[Message], **kwargs: Any) -> str:
        """The templated conversation (see `Renderer.text`)."""
        return self._conversations.text(messages, **kwargs)

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        return self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]

    @cached_property
    def _lead(self) -> str:
        """The blanks that the template writes between the generation prompt and an answer: they belong to the first step."""
        opening = self.text(_ASKED, prompt_only=True)
        whole = self.text([*_ASKED, {"role": "assistant", "content": _ANSWER}])
        lead, found, _ = whole.removeprefix(opening).partition(_ANSWER)
        return lead if found and whole.startswith(opening) and lead.isspace() else ""

    def _fit(self, prompt: list[int], steps: list[list[int]], where: Any) -> RenderedSolution | None:
        self.counts["rendered"] += 1
        sizes = [len(step) + len(self.separator_ids) for step in steps]
        needed = len(prompt) + sum(sizes)
        if self.max_length is None or needed <= self.max_length:
            return self._join(prompt, steps)
        self.counts["over_length"] += 1
        if self.overlong == "error":
            raise DataError(
                f"the solution has {needed} tokens, more than --max_length {self.max_length}",
                where=str(where) if where else None,
                hint="raise --max_length, or choose --overlong drop_steps, truncate_prompt or drop",
            )
        head, cut = self._conversations._leading_special(prompt) if prompt else 0, 0
        if self.overlong == "truncate_prompt":
            cut = min(needed - self.max_length, len(prompt) - head)
        kept, used = 0, len(prompt) - cut
        while kept < len(steps) and used + sizes[kept] <= self.max_length:
            used += sizes[kept]
            kept += 1
        if self.overlong == "drop" or not kept:
            self.counts["dropped"] += 1
            return None
        self.counts["truncated"] += bool(cut)
        self.counts["steps_dropped"] += len(steps) - kept
        return self._join(prompt[:head] + prompt[head + cut :], steps[:kept], len(steps) - kept, cut)

    def _join(self, prompt: list[int], steps: list[list[int]], dropped: int = 0, cut: int = 0) -> RenderedSolution:
        ids, positions = list(prompt), []
        for step in steps:
            ids += step + self.separator_ids
            positions.append(len(ids) - 1)
        return RenderedSolution(ids, positions, dropped, cut)

    # ---- identity ---------------------------------------------------------------------------------------------

    def contract(self) -> dict[str, Any]:
        """What decides a solution's ids and scored tokens, in JSON. `max_length` and `overlong` may be changed by the caller."""
        return {
            **self._conversations.contract(),
            "scored_at": self.scored_at,
            "step_separator": self.step_separator,
            "separator_ids": self.separator_ids,
        }

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change when any solution could render to other ids or be scored elsewhere."""
        return fingerprint_of(self.contract())


def default_separator(tokenizer: Any) -> str:
    """A line break; the SEP token for a tokenizer that reads line breaks as blanks, as WordPiece does."""
    if tokenizer(STEP_SEPARATOR, add_special_tokens=False)["input_ids"] or not tokenizer.sep_token:
        return STEP_SEPARATOR
    return tokenizer.sep_token


def split_steps(text: str, separator: str = STEP_SEPARATOR) -> list[str]:
    """The steps of a plain-text solution; what is blank between two separators is no step."""
    return [step for step in text.split(separator) if step.strip()]


def supervised_text(tokenizer: Any, ids: Sequence[int], positions: Iterable[int]) -> list[tuple[str, str]]:
    """(text, token) of each step: what is decoded from behind the token scored before, and the scored token itself."""
    shown, start = [], 0
    for position in positions:
        shown.append((tokenizer.decode(ids[start : position + 1]), tokenizer.convert_ids_to_tokens(ids[position])))
        start = position + 1
    return shown


def _check_steps(steps: Sequence[str], where: Any) -> None:
    if not steps:
        raise DataError("the solution has no steps", where=str(where) if where else None)
    for number, step in enumerate(steps, 1):
        if not step.strip():
            raise DataError(
                f"step {number} is empty", where=str(where) if where else None, hint="drop it and its label"
            )
