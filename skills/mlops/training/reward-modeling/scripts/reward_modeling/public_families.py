"""What a family of public reward models is: one head, one text format. To add one, add an entry to `public_table.PUBLIC`.

Its fields say how it is recognized, where its head is, and how its text is written; or `refused`, why it cannot be scored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .aggregation import probability
from .data.records import Message

ANY = object()
"""Of a field of the config: that it is there."""
LAST = "a linear head at the last token"


@dataclass(frozen=True)
class Text:
    """How the authors wrote a conversation.

    template: over the tokenizer's own. system: the turn that opens a conversation without one. bos: "template" (only what
    it writes), "tokenizer" (the tokenizer's, once) or "both". append: a token at the end, the first of these that the
    vocabulary has. turns: changes the messages of prompt and answer. prompt_only: the answer is part of a prompt, read
    where the model would reply. end: what every text ends with, {eos} in it. pair: prompt and answer are the two texts of
    an encoder.
    """

    template: str | None = None
    system: str | None = None
    bos: str = "template"
    append: tuple[str, ...] = ()
    turns: Callable[[list[Message]], list[Message]] | None = None
    prompt_only: bool = False
    end: str | None = None
    pair: bool = False
    max_length: int | None = None

    def described(self) -> str:
        """In words, for the log and the list."""
        template = "prompt and answer as a text pair" if self.pair else "its own chat template"
        words = {
            "a literal frame of its authors" if self.template else template: True,
            f"system prompt {self.system!r}": self.system is not None,
            "one BOS": self.bos == "tokenizer",
            "a second BOS, as its authors had it": self.bos == "both",
            f"{''.join(self.append[:1])} at the end": self.append,
            "the turns rewritten as the authors had them": self.turns,
            "EOS at the end": self.end,
        }
        return ", ".join(word for word, holds in words.items() if holds)


@dataclass(frozen=True)
class StepText(Text):
    """How the authors wrote a solution.

    tag: what stands after a step and is read at its last token. opening: of a literal text, {} for the prompt; None for the
    chat template. step: of each step there, {} for it. pieces: prompt, steps and tags are tokenized one by one. replies:
    each step is a user turn and "+" the reply to it. split: where a solution in one text is split. value: of the log-odds
    of a step. aggregate: of the authors. reference: the model whose log-probabilities are subtracted, times `scale`.
    """

    tag: str = "\n"
    opening: str | None = None
    step: str = ""
    pieces: bool = False
    replies: bool = False
    split: str = "\n\n"
    value: Callable[[float], float] = probability
    aggregate: str | None = None
    reference: str | None = None
    scale: float = 1.0

    def described(self) -> str:
        form = "its own chat template" if self.opening is None else f"a literal text, {self.opening!r}"
        return f"{form}, {'each step a turn' if self.replies else f'{self.tag!r} after each step'}"


@dataclass(frozen=True)
class Family:
    """Models of one head and one text format.

    called: its published ids, or what they have in common. how: the reward is read.
    architectures, config, tensors (patterns parted by spaces, each fits one) and lacks (fits none) must all fit; `named`, of
    the name, only where other models have the same tensors.
    head: a class of `public_heads` with these options, None for one of transformers. weights: pattern -> new name, `model.*`
    (the trunk) or `score.*` (the head, whose sizes are theirs). tokens: whose logits are the head, ids or texts.
    trunk: `model_type` of transformers, where the config's is unknown. tokenizer: its class, likewise.
    pooled: the mean of all tokens is read. gate: the text at whose last occurrence the head's weights are read.
    compares: two answers, so that rewards hold within a prompt only.
    """

    called: str
    source: str
    how: str = LAST
    kind: str = "outcome"
    architectures: str = ".*"
    config: Mapping[str, Any] = field(default_factory=dict)
    tensors: str = ""
    lacks: str | None = None
    named: str | None = None
    head: str | None = None
    weights: tuple[tuple[str, str], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    trunk: str | None = None
    tokenizer: str | None = None
    tokens: tuple[int | str, ...] = ()
    pooled: bool = False
    gate: str | None = None
    text: Text = Text()
    compares: bool = False
    refused: str | None = None


def frame(user: str, assistant: str, between: str = "") -> str:
    """A chat template of two literal turns, {} for what is said; a system prompt is put before the first user turn."""

    def written(turn: str) -> str:
        before, _, after = map(json.dumps, turn.partition("{}"))
        return f"{{{{ {before} + message['content'] + {after} }}}}"

    return (
        "{%- for message in messages -%}{%- if message['role'] == 'user' -%}"
        + written(user)
        + "{%- elif message['role'] == 'assistant' -%}"
        + written(assistant)
        + f"{{%- if not loop.last -%}}{{{{ {json.dumps(between)} }}}}{{%- endif -%}}"
        + "{%- else -%}{{ raise_exception('it has no such turn') }}{%- endif -%}{%- endfor -%}"
        + f"{{%- if add_generation_prompt -%}}{{{{ {json.dumps(assistant.partition('{}')[0])} }}}}{{%- endif -%}}"
    )
