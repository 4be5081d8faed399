"""What a family of public reward models is: one head, one text format. The entries are in `public_outcomes` and
`public_processes`, `readers` recognizes them.

To add a family, add an entry:

1. How it is recognized: `architectures`, `config` and `tensors` must all fit; `named` too where the same tensors are also
   those of other models (a language model whose token logit is a reward says so nowhere else). The first that fits counts.
2. Its head: None for a class of transformers, else the name of a class in `public_heads`; `weights` renames the tensors of
   its files to `model.*` (the trunk) and `score.*` (the head, whose sizes come from these tensors).
3. Its `text`: chat template and BOS policy, system prompt, an appended token, the length. Where the reward is read: at the
   last token, and at `gate` where the head mixes with a second position.
4. `refused`: the reason, in place of all that, for what cannot be scored here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .data.records import Message

ANY = object()
"""Of a field of the config: that it is there."""
Turns = Callable[[list[Message]], list[Message]]
CLASSIFIER, CAUSAL = r"\w+ForSequenceClassification", r"\w+ForCausalLM"
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
LINEAR = (r"^(v|value|reward|score|regression|rm)_head(\.summary)?\.(?=weight|bias)", "score.0.")
"""Names of one linear head -> its own in `model_class`."""


@dataclass(frozen=True)
class Text:
    """How the authors wrote a conversation.

    template: over the tokenizer's own. system: the turn that opens a conversation without one. bos: "template" (only what
    it writes), "tokenizer" (the tokenizer's, once) or "both". append: a token at the end, the first of these that the
    vocabulary has. turns: changes the messages of prompt and answer. prompt_only: the answer is read as part of a prompt,
    at the place where the model would reply. end: what every text ends with, {eos} in it. pair: prompt and answer as the
    two texts of an encoder.
    """

    template: str | None = None
    system: str | None = None
    bos: str = "template"
    append: tuple[str, ...] = ()
    turns: Turns | None = None
    prompt_only: bool = False
    end: str | None = None
    pair: bool = False
    max_length: int | None = None

    def described(self) -> str:
        """In words, for the log and the list."""
        template = "prompt and answer as a text pair" if self.pair else "its own chat template"
        words = ["a literal frame of its authors" if self.template else template]
        words += [f"system prompt {self.system!r}"] if self.system is not None else []
        words += {"tokenizer": ["one BOS"], "both": ["a second BOS, as its authors had it"]}.get(self.bos, [])
        words += [f"{self.append[0]} at the end"] if self.append else []
        words += ["the turns rewritten as the authors had them"] if self.turns else []
        words += ["EOS at the end"] if self.end else []
        return ", ".join(words)


@dataclass(frozen=True)
class Family:
    """Models of one head and one text format. See the module for how an entry is made."""

    called: str
    """Its published ids, or what they have in common."""
    source: str
    how: str
    """How the reward is read, in a line."""
    kind: str = "outcome"
    architectures: str = ".*"
    config: Mapping[str, Any] = field(default_factory=dict)
    tensors: tuple[str, ...] = ()
    lacks: str | None = None
    """A pattern that no tensor may fit."""
    named: str | None = None
    head: str | None = None
    weights: tuple[tuple[str, str], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the head."""
    trunk: str | None = None
    """`model_type` of transformers, where that of the config is unknown to it."""
    tokenizer: str | None = None
    """Class of transformers, where that of the tokenizer's own code is needed."""
    tokens: tuple[int | str, ...] = ()
    """Whose logits are the head: ids, or texts of one token."""
    pooled: bool = False
    """The head reads the mean of all tokens."""
    gate: str | None = None
    """The text at whose last occurrence the head's weights are read."""
    text: Text = Text()
    compares: bool = False
    """Whether it compares two answers: its rewards hold within a prompt only."""
    refused: str | None = None

    @property
    def literal(self) -> bool:
        """Whether its text takes no chat template."""
        return self.head == "Marked" or self.text.pair or getattr(self.text, "opening", None) is not None


def frame(user: str, assistant: str, between: str = "") -> str:
    """A chat template of two literal turns, {} for what is said; a system prompt is put before the first user turn."""

    def written(text: str, content: str = "message['content']") -> str:
        before, _, after = text.partition("{}")
        return "{{ " + " + ".join((json.dumps(before), content, json.dumps(after))) + " }}"

    return (
        "{%- for message in messages -%}{%- if message['role'] == 'user' -%}"
        + written(user)
        + "{%- elif message['role'] == 'assistant' -%}"
        + written(assistant)
        + "{%- if not loop.last -%}{{ "
        + json.dumps(between)
        + " }}{%- endif -%}{%- else -%}{{ raise_exception('it has no such turn') }}{%- endif -%}{%- endfor -%}"
        + "{%- if add_generation_prompt -%}{{ "
        + json.dumps(assistant.partition("{}")[0])
        + " }}{%- endif -%}"
    )
