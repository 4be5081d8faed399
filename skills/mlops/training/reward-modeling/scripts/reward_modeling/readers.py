"""Reward models that others published, and how each is read: one frozen entry a family in PUBLIC.

`recognize(path)` finds the family of a folder or hub id by its config and the names of its weights. `public_models`
loads it and renders for it, `public_heads` holds the few heads. To add a family, add an entry:

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
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .console import ModelError
from .model_folder import ADAPTER_CONFIG, CONFIG, check_config, check_folder, hub_file, read_json, tensors

INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"
Turns = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


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
    gate: str | None = None
    """The text at whose last occurrence the head's weights are read."""
    text: Text = Text()
    checked: str = "formula in the tests"
    refused: str | None = None


@dataclass(frozen=True)
class Checkpoint:
    """What recognition sees of a model: its path, its config.json, and the shapes of its tensors, None where unknown."""

    path: str
    config: Mapping[str, Any]
    tensors: Mapping[str, tuple[int, ...] | None]

    def fits(self, family: Family) -> bool:
        architecture = (self.config.get("architectures") or [""])[0]
        names = f"{self.path} {self.config.get('_name_or_path', '')}".lower()
        return (
            re.fullmatch(family.architectures, architecture) is not None
            and all(self.config.get(key) == value for key, value in family.config.items())
            and (family.named is None or re.search(family.named, names) is not None)
            and all(any(re.search(pattern, name) for name in self.tensors) for pattern in family.tensors)
            and not (family.lacks and any(re.search(family.lacks, name) for name in self.tensors))
        )


def recognize(path: str) -> Family | None:
    """The family of a public model at this folder or hub id; None for any other, ours among them. Reads no weights.

    Raises ModelError for a family that cannot be scored here, with the reason.
    """
    checkpoint = _checkpoint(str(path))
    family = next((one for one in PUBLIC.values() if checkpoint and checkpoint.fits(one)), None)
    if family and family.refused:
        raise ModelError(f"{path} cannot be scored here: {family.refused}", hint=f"it is {family.called}: {family.how}")
    return family


def _checkpoint(path: str) -> Checkpoint | None:
    folder = Path(path)
    if folder.is_dir():
        check_folder(path)
        if (
            (folder / ADAPTER_CONFIG).exists()
            or (folder / "reward_model.json").exists()
            or not (folder / CONFIG).is_file()
        ):
            return None
        return Checkpoint(path, read_json(folder / CONFIG), {name: own.shape for name, own in tensors(folder).items()})
    if folder.exists() or path.count("/") > 1:
        return None
    config = hub_file(path, CONFIG) or hub_file(path, CONFIG, ask=True)
    if config is None or hub_file(path, "reward_model.json", ask=True):
        return None
    found = read_json(config)
    check_config(found, config)
    index = hub_file(path, INDEX, ask=True)
    if index:
        names = dict.fromkeys(read_json(index).get("weight_map") or {})
    else:  # one file: it is needed anyway
        weights = hub_file(path, WEIGHTS, ask=True)
        names = {name: own.shape for name, own in tensors(weights.parent, WEIGHTS).items()} if weights else {}
    return Checkpoint(path, found, names)


# ---- text ------------------------------------------------------------------------------------------------------------


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


# ---- the table -------------------------------------------------------------------------------------------------------

CLASSIFIER = r"\w+ForSequenceClassification"
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
LINEAR = (r"^(v|value|reward|score|regression|rm)_head(\.summary)?\.(?=weight|bias)", "score.0.")
LAST = "a linear head at the last token"

PUBLIC: dict[str, Family] = {
    "skywork-v2": Family(
        "Skywork/Skywork-Reward-V2-*",
        "SkyworkAI/Skywork-Reward-V2 README",
        LAST,
        architectures=CLASSIFIER,
        named="skywork-reward-v2",
        text=Text(bos="tokenizer", max_length=16_384),
    ),
    "linear head": Family(
        "any model with one linear head (v_head, value_head, regression_head, score_head, reward_head)",
        "LLaMA-Factory valuehead.py, TRL",
        LAST,
        tensors=(LINEAR[0],),
        lacks=r"^score\.",
        head="Stack",
        weights=(LINEAR,),
    ),
}
"""Name -> family, the most particular first."""


def families() -> Sequence[dict[str, str]]:
    """What `--list_public_models` shows of each family."""
    return [
        {
            "family": name,
            "models": one.called,
            "kind": one.kind,
            "reward": (one.refused and f"refused: {one.refused}") or one.how,
            "text": one.text.described(),
            "max_length": str(one.text.max_length or "its config's"),
            "checked": one.checked,
            "source": one.source,
        }
        for name, one in PUBLIC.items()
    ]
