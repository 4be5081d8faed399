"""What a family of public reward models is: one head, one text format. Its entry in `public_table.PUBLIC` is all it takes."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .aggregation import probability
from .data.records import Message

ANY = object()
"""Of a field of the config: that it is there."""
LAST = "a linear head at the last token"


@dataclass(frozen=True)
class Family:
    """Models of one head and one text format.

    called: their published ids. how: the reward is read. refused: why it cannot be scored.
    classes (of `architectures`), config, tensors (each of these patterns, parted by spaces, fits one) and lacks (fits none)
    must all fit; `named`, of the name, only where other models have the same tensors.
    head: a class of `public_heads` with these options, None for one of transformers. weights: pattern -> new name, `model.*`
    (the trunk) or `score.*` (the head, whose sizes are theirs). tokens: whose logits are the head, ids or texts.
    trunk: `model_type` of transformers, where the config's is unknown. tokenizer: its class, likewise.
    pooled: the mean of all tokens is read. gate: the text at whose last place the attributes' weights are read.
    compares: two answers, so that rewards hold within a prompt only.
    template: over the tokenizer's own. system: the turn that opens a conversation without one. bos: "template" (what it
    writes), "tokenizer" (the tokenizer's, once) or "both". append: a last token, the first of these in the vocabulary.
    turns: changes the messages. prompt_only: the answer is part of a prompt, read where the model would reply. end: of
    every text, with {eos}. pair: the two texts of an encoder.
    tag: after a step, read at its last token; all that follows is of process models. opening: of a literal text, {} for the
    prompt; None for the chat template. step: of each step there, {} for it. pieces: prompt, steps and tags are tokenized one
    by one. replies: each step is a user turn and "+" the reply. split: where one text is split. value: of a step's log-odds.
    reference: the model whose log-probabilities are subtracted, times `scale`. own: `implicit_reward` of a config written by
    train_process.py, where that model is known.
    """

    called: str
    source: str
    how: str = LAST
    refused: str | None = None

    classes: str = ".*"
    config: Mapping[str, Any] = field(default_factory=dict)
    tensors: str = ""
    lacks: str | None = None
    named: str | None = None

    head: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    tokens: tuple[int | str, ...] = ()
    trunk: str | None = None
    tokenizer: str | None = None
    pooled: bool = False
    gate: str | None = None
    compares: bool = False

    template: str | None = None
    system: str | None = None
    bos: str = "template"
    append: tuple[str, ...] = ()
    turns: Callable[[list[Message]], list[Message]] | None = None
    prompt_only: bool = False
    end: str | None = None
    pair: bool = False
    max_length: int | None = None

    tag: str | None = None
    opening: str | None = None
    step: str = ""
    pieces: bool = False
    replies: bool = False
    split: str = "\n\n"
    value: Callable[[float], float] = probability
    aggregate: str | None = None
    reference: str | None = None
    scale: float = 1.0
    own: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return "process" if self.tag else "outcome"

    def text(self) -> str:
        """Its text format in words, for the log and the list."""
        if self.head == "Marked":
            return "prompt and both answers, each after a mark and cut at its end (PairRM: 1,224 and 412 tokens)"
        template = "prompt and answer as a text pair" if self.pair else "its own chat template"
        if self.tag:
            form = template if self.opening is None else f"a literal text, {self.opening!r}"
            return f"{form}, {'each step a turn' if self.replies else f'{self.tag!r} after each step'}"
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


def implicit_family(own: Mapping[str, Any]) -> Family:
    how = f"{own['beta']:g} times the log-ratio with {own['reference']}, summed from the start of the answer"
    tag = own["step_separator"]
    read = {"tag": tag, "split": tag if tag.isspace() else "\n", "pieces": True, "value": float, "aggregate": "last"}
    more = {"reference": own["reference"], "scale": own["beta"], "max_length": own["max_length"], "own": own}
    return Family("an implicit process reward model of train_process.py", "arXiv:2412.01981", how, **read, **more)


FRAME = (
    "{%- for message in messages -%}{%- if message['role'] == 'user' -%}{{ USER }}"
    "{%- elif message['role'] == 'assistant' -%}{{ ANSWER }}{%- if not loop.last -%}{{ BETWEEN }}{%- endif -%}"
    "{%- else -%}{{ raise_exception('it has no such turn') }}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ OPENING }}{%- endif -%}"
)


def frame(user: str, answer: str, between: str = "") -> str:
    """A chat template of two literal turns, {} for what is said; a system prompt is put before the first user turn."""
    opening = answer.partition("{}")[0]
    texts = {"USER": user, "ANSWER": answer, "BETWEEN": between, "OPENING": opening}
    written = {name: " + message['content'] + ".join(map(json.dumps, text.split("{}"))) for name, text in texts.items()}
    return re.sub("|".join(texts), lambda name: written[name[0]], FRAME)
