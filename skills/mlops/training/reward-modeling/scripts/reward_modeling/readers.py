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
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from .console import ModelError
from .model_folder import ADAPTER_CONFIG, CONFIG, check_config, check_folder, hub_file, read_json, tensors
from .output_folder import CARD

INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"
ANY = object()
"""Of a field of the config: that it is there."""
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
    pooled: bool = False
    """The head reads the mean of all tokens."""
    gate: str | None = None
    """The text at whose last occurrence the head's weights are read."""
    text: Text = Text()
    compares: bool = False
    """Whether it compares two answers: its rewards hold within a prompt only."""
    checked: str = "formula in the tests"
    refused: str | None = None


class Checkpoint:
    """What recognition sees of a model: its path, its config.json, and, where that does not tell, the names of its tensors."""

    def __init__(self, path: str, config: Mapping[str, Any]):
        self.path, self.config = path, config
        listed = config.get("architectures")  # of anybody's config, not checked yet
        self.architecture = str(listed[0]) if isinstance(listed, list) and listed else ""
        name = Path(path).resolve().name if Path(path).is_dir() else path
        self.names = f"{name} {config.get('_name_or_path', '')}".lower()

    def fits(self, family: Family) -> bool:
        if not re.fullmatch(family.architectures, self.architecture):
            return False
        if not all(key in self.config and value in (ANY, self.config[key]) for key, value in family.config.items()):
            return False
        if family.named and not re.search(family.named, self.names):
            return False
        return all(map(self.holds, family.tensors)) and not (family.lacks and self.holds(family.lacks))

    def holds(self, pattern: str) -> bool:
        """Whether the name of a tensor fits."""
        return any(re.search(pattern, name) for name in self.tensors)

    @cached_property
    def tensors(self) -> list[str]:
        if Path(self.path).is_dir():
            return list(tensors(Path(self.path)))
        if index := hub_file(self.path, INDEX, ask=True):
            return list(read_json(index).get("weight_map") or ())
        weights = hub_file(self.path, WEIGHTS, ask=True)  # one file, which is needed anyway
        return list(tensors(weights.parent, WEIGHTS)) if weights else []


def recognize(path: str) -> Family | None:
    """The family of a public model at this folder or hub id; None for any other, ours among them. Reads no weights.

    Raises ModelError for a family that cannot be scored here, with the reason, and for a hub that does not answer.
    """
    config = _foreign_config(str(path))
    checkpoint = config and Checkpoint(str(path), config)
    family = next((one for one in every_family().values() if checkpoint and checkpoint.fits(one)), None)
    if family and family.refused:
        raise ModelError(f"{path} cannot be scored here: {family.refused}", hint=f"it is {family.called}: {family.how}")
    return family


def every_family() -> dict[str, Family]:
    """The whole table, the most particular first."""
    from .public_processes import PROCESSES

    return {**PROCESSES, **PUBLIC}


def _foreign_config(path: str) -> dict[str, Any] | None:
    """The config.json of a model without a card of ours; None where there is none."""
    folder = Path(path)
    if folder.exists() or path.count("/") > 1:
        check_folder(path)
        own = any((folder / name).exists() for name in (ADAPTER_CONFIG, CARD)) or not (folder / CONFIG).is_file()
        return None if own else read_json(folder / CONFIG)
    from .pretrained import check_reachable

    check_reachable(path)
    config = hub_file(path, CONFIG) or hub_file(path, CONFIG, ask=True)
    found = read_json(config) if config and not hub_file(path, CARD, ask=True) else None
    if found:
        check_config(found, config)
    return found


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


def _merged(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answer behind the question in one user turn."""
    *before, question, answer = messages
    return [*before, {**question, "content": f"{question['content']} {answer['content']}"}]


def _without_thinking(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Qwen3's way of saying that the answer was not thought about."""
    *before, question, answer = messages
    question = {**question, "content": f"{question['content']} /nothink"}
    return [*before, question, {**answer, "content": f"<think>\n\n</think>\n\n{answer['content']}"}]


def _asked_of(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A last turn that asks whether the answer is correct."""
    asks = "Evaluate the response to the previous prompt in terms of whether it satisfies this principle: correctness. Only answer Yes or No."
    return [*messages, {"role": "user", "content": asks}]


CLASSIFIER, CAUSAL = r"\w+ForSequenceClassification", r"\w+ForCausalLM"
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
LAST, MLP = "a linear head at the last token", "two linear layers with ReLU at the last token"
LINEAR = (r"^(v|value|reward|score|regression|rm)_head(\.summary)?\.(?=weight|bias)", "score.0.")
VALUE = (r"^(v|value)_head\.(summary\.)?(?=\d)", "score.")
LLAMA3_GATE = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
GATED = (
    (r"^regression_layer\.", "score.objectives.0."),
    (r"^gating\.layers\.(?=\d)", "score.gate."),
    (r"^gating\.logit_scale$", "score.scale"),
    (r"^reward_transform_matrix$", "score.transform"),
)
ONCE, TWICE = Text(bos="tokenizer"), Text(bos="both")
OASST = Family(
    "OpenAssistant/oasst-rm-2*-pythia-*",
    "reward-bench openassistant.py",
    LAST,
    architectures="GPTNeoXRewardModel",
    tensors=(r"^out_proj\.weight",),
    head="Stack",
    weights=((r"^out_proj\.", "score.0."),),
    trunk="gpt_neox",
    text=Text(template=frame("<|prompter|>{}<|endoftext|>", "<|assistant|>{}<|endoftext|>")),
)

PUBLIC: dict[str, Family] = {
    # ---- heads of transformers
    "skywork-v2": Family(
        "Skywork/Skywork-Reward-V2-*",
        "SkyworkAI/Skywork-Reward-V2 README",
        LAST,
        architectures=CLASSIFIER,
        named=r"skywork-reward-v2",
        text=Text(bos="tokenizer", max_length=16_384),
    ),
    "grm": Family(
        "Ray2333/GRM-*-rewardmodel-ft",
        "JudgeBench judges.py (double BOS)",
        LAST,
        architectures=CLASSIFIER,
        named=r"grm-.*rewardmodel",
        text=TWICE,
    ),
    "plain": Family(
        "Skywork/Skywork-Reward-*, sfairXC/FsfairX-LLaMA3-RM-v0.1, weqweasdas/RM-*, NCSOFT/Llama-3-OffsetBias-RM-8B, "
        "allenai/*-RM and *-RM-RB2, HFXM/RAMO-*, SultanR/SmolTulu-*-RM",
        "Skywork-Reward README, reward-bench pipeline.py",
        LAST,
        architectures=CLASSIFIER,
        named=r"skywork-reward|fsfairx|weqweasdas/rm-|offsetbias|tulu.*-rm|-rm-rb2|\bramo-|smoltulu",
        text=ONCE,
    ),
    "deberta-pair": Family(
        "OpenAssistant/reward-model-deberta-v3-*",
        "its card",
        "the head of transformers at the first token",
        architectures=r"DebertaV2ForSequenceClassification",
        named=r"reward-model-deberta",
        text=Text(pair=True),
    ),
    # ---- two layers
    "qwen-math-rm": Family(
        "Qwen/Qwen2.5-Math-RM-72B",
        "its card, vLLM qwen2_rm.py",
        MLP,
        architectures="Qwen2ForRewardModel",
        tensors=(r"^score\.2\.weight",),
        named=r"2\.5-math",
        head="Stack",
        text=Text(system=BOXED),
    ),
    "qwen-rm": Family(
        "Qwen/Qwen2-Math-RM-72B, Qwen/WorldPM-72B*",
        "its card, QwenLM/WorldPM README",
        MLP,
        architectures=r"Qwen2ForRewardModel|WorldPM\w*",
        tensors=(r"^score\.2\.weight",),
        head="Stack",
        text=Text(system=""),
    ),
    "inf-orm": Family(
        "infly/INF-ORM-Llama3.1-70B",
        "reward-bench inform.py",
        MLP,
        architectures="INFORMForSequenceClassification",
        tensors=(r"^score\.2\.weight",),
        head="Stack",
    ),
    # ---- one layer under another name
    "polar": Family(
        "internlm/POLAR-*",
        "InternLM/POLAR",
        "its distance to a reference answer",
        architectures="InternLM2ForRewardModel",
        named="polar",
        refused="it compares an answer with a reference answer, which a row of prompt and answer does not have",
    ),
    "internlm2": Family(
        "internlm/internlm2-1_8b-reward, -7b-reward, -20b-reward",
        "xtuner modeling_internlm2_reward, reward-bench internlm.py",
        "a linear head at an appended reward token",
        architectures="InternLM2ForRewardModel",
        tensors=(r"^v_head\.weight",),
        head="Stack",
        weights=(
            LINEAR,
            (r"^model\.tok_embeddings\.", "model.embed_tokens."),
            (r"\.attention\.wo\.", ".self_attn.o_proj."),
            (r"\.feed_forward\.w1\.", ".mlp.gate_proj."),
            (r"\.feed_forward\.w3\.", ".mlp.up_proj."),
            (r"\.feed_forward\.w2\.", ".mlp.down_proj."),
            (r"\.attention_norm\.", ".input_layernorm."),
            (r"\.ffn_norm\.", ".post_attention_layernorm."),
        ),
        trunk="llama",
        tokenizer="LlamaTokenizer",
        text=Text(append=("<|reward|>", "[UNUSED_TOKEN_130]")),
    ),
    "ultrarm": Family(
        "openbmb/UltraRM-13b",
        "its card; the examples there have one newline between the turns",
        LAST,
        architectures="LlamaRewardModel",
        tensors=(r"^regression_head\.weight",),
        head="Stack",
        weights=(LINEAR,),
        text=Text(template=frame("Human: {}\n\n", "Assistant: {}", "\n\n"), bos="tokenizer"),
    ),
    "eurus-rm": Family(
        "openbmb/Eurus-RM-7b",
        "OpenBMB/Eurus, reward-bench openbmb.py",
        LAST,
        config={"model_type": "mistral"},
        tensors=(r"^regression_head\.weight",),
        head="Stack",
        weights=(LINEAR,),
        text=Text(template=frame("[INST] {} [/INST] ", "{}", " "), bos="tokenizer"),
    ),
    "starling-34b": Family(
        "Nexusflow/Starling-RM-34B",
        "reward-bench starling.py",
        LAST,
        config={"vocab_size": 64_000},
        tensors=(r"^transformer\.", r"^v_head\.weight"),
        head="Stack",
        weights=(LINEAR,),
        text=Text(bos="tokenizer", max_length=2048),
    ),
    "starling": Family(
        "berkeley-nest/Starling-RM-7B-alpha",
        "its card, reward-bench starling.py",
        LAST,
        config={"model_type": "llama"},
        tensors=(r"^transformer\.", r"^v_head\.weight"),
        head="Stack",
        weights=(LINEAR,),
        text=Text(template=frame("<s>[INST] {} </s> [/INST] ", "{}</s>"), bos="both", max_length=2048),
    ),
    "athene": Family(
        "Nexusflow/Athene-RM-8B, -70B",
        "reward-bench athene.py",
        "a linear head at an appended CLS token",
        architectures="AtheneForSequenceClassification",
        tensors=(r"^v_head\.weight",),
        head="Stack",
        weights=(LINEAR,),
        text=Text(bos="both", append=("<|reserved_special_token_1|>",), max_length=4096),
    ),
    "beaver-cost": Family(
        "PKU-Alignment/beaver-7b-v*-cost",
        "reward-bench beaver.py",
        "minus the cost, a linear head at the last token",
        architectures="LlamaForScore",
        config={"score_type": "cost"},
        tensors=(r"^score_head\.weight",),
        head="Normalized",
        weights=(LINEAR, (r"^normalizer\.", "score.")),
        options={"cost": True},
        text=Text(template=frame("BEGINNING OF CONVERSATION: USER: {} ", "ASSISTANT:{}", "</s>"), bos="tokenizer"),
    ),
    "beaver": Family(
        "PKU-Alignment/beaver-7b-v*-reward",
        "its card, reward-bench beaver.py",
        LAST + ", normalized where its config says so",
        architectures="LlamaForScore",
        tensors=(r"^score_head\.weight",),
        head="Normalized",
        weights=(LINEAR, (r"^normalizer\.", "score.")),
        text=Text(template=frame("BEGINNING OF CONVERSATION: USER: {} ", "ASSISTANT:{}", "</s>"), bos="tokenizer"),
    ),
    "oasst-mean": replace(
        OASST, how="a linear head on the mean of all tokens", config={"pooling": "mean"}, pooled=True
    ),
    "oasst": OASST,
    "odin": Family(
        "gemma_9b_odin_v2",
        "ODIN, arXiv:2402.07319",
        "the second of two linear heads at the last token; the first is of length",
        architectures=CLASSIFIER,
        tensors=(r"^score\.weight",),
        named="odin",
        head="Second",
        weights=((r"^score\.", "score.0."),),
    ),
    "skywork-vl": Family(
        "Skywork/Skywork-VL-Reward-7B",
        "reward-bench skyvl.py",
        LAST,
        architectures=r"\w*VL\w*",
        tensors=(LINEAR[0],),
        refused="its trunk reads images, which the engine does not",
    ),
    "grm-sftreg": Family(
        "Ray2333/GRM-*-sftreg, Ray2333/GRM-llama3-8B-distill",
        "reward-bench grm.py",
        "the value head (linear or two layers with ReLU) at the last token",
        tensors=(r"^v_head\.summary\.\d?",),
        named=r"grm-",
        lacks=r"^score\.",
        head="Stack",
        weights=(VALUE, LINEAR),
        text=Text(bos="tokenizer", max_length=2048),
    ),
    "openrlhf": Family(
        "any model that OpenRLHF saved",
        "OpenRLHF models/model.py, datasets/reward_dataset.py",
        LAST + ", which is EOS",
        architectures=r"(?!\w+ForSequenceClassification)\w*",
        tensors=(r"^(score|value_head)\.weight",),
        config={"value_head_prefix": ANY},
        head="Normalized",
        weights=((r"^(score|value_head)\.", "score.0."),),
        text=Text(end=" {eos}"),
    ),
    # ---- many heads
    "ldl": Family(
        "ShikaiChen/LDL-Reward-Gemma-2-27B-v0.1",
        "reward-bench ldlreward.py",
        "distributions over ten levels, mixed by a gate",
        architectures=r"Gemma2\w*|LDL\w*",
        named=r"ldl-reward",
        refused="its two heads are pickles beside its weights (regression_layer.pt, gating_layer.pt), which are not opened",
    ),
    "qrm": Family(
        "nicolinho/QRM-Llama3-8B, QRM-Llama3.1-8B, QRM-Llama3.1-8B-v2",
        "reward-bench qrm.py",
        "the mean of quantiles of each attribute, mixed by a gate that reads the end of the prompt",
        architectures=r"Llama\w+WithGating\w*",
        tensors=(r"^regression_layer\.weight", r"^gating\.layers\.\d\.running_mean"),
        head="Gated",
        weights=GATED,
        options={"adjusted": True},
        gate=LLAMA3_GATE,
        text=Text(max_length=4096),
    ),
    "qrm-gemma": Family(
        "nicolinho/QRM-Gemma-2-27B",
        "reward-bench qrm.py; its gate's place is inferred",
        "as qrm",
        architectures=r"Gemma2\w+WithGating\w*",
        tensors=(r"^regression_layer\.weight", r"^gating\.layers\.\d\.running_mean"),
        head="Gated",
        weights=GATED,
        options={"adjusted": True},
        gate="<end_of_turn>\n<start_of_turn>model\n",
        text=Text(max_length=4096),
    ),
    "armorm": Family(
        "RLHFlow/ArmoRM-Llama3-8B-v0.1",
        "RLHFlow/RLHF-Reward-Modeling armo-rm",
        "19 attributes at the last token, mixed by a gate that reads the end of the prompt",
        architectures=r"\w+WithGating",
        tensors=(r"^regression_layer\.weight", r"^gating\.layers\.1\.weight", r"^reward_transform_matrix"),
        head="Gated",
        weights=(
            (r"^gating\.layers\.1\.", "score.gate.2."),
            (r"^gating\.layers\.2\.", "score.gate.4."),
            (r"^gating\.layers\.3\.", "score.gate.6."),
            *GATED,
        ),
        gate=LLAMA3_GATE,
        text=Text(max_length=4096),
    ),
    "urm": Family(
        "LxzGordon/URM-LLaMa-3.1-8B",
        "its card, SGLang llama_reward.py",
        "the means of five attributes at the last token, weighted by a network on the same state",
        architectures=r"\w+WithNormal_Weights",
        tensors=(r"^weights\.fc\.4\.weight",),
        head="Weighted",
        weights=((r"^score\.", "score.objectives.0."), (r"^weights\.fc\.", "score.gate.")),
        text=TWICE,
    ),
    "urm-fixed": Family(
        "LxzGordon/URM-LLaMa-3-8B",
        "SGLang llama_reward.py, Nemotron-4's weights",
        "the means of five attributes at the last token, with fixed weights",
        architectures=r"\w+WithNormal",
        tensors=(r"^score\.weight",),
        head="Weighted",
        weights=((r"^score\.", "score.objectives.0."),),
        options={"weights": (0.3, 0.74, 0.46, 0.47, -0.33)},
        text=TWICE,
    ),
    # ---- logits of tokens
    "nemotron-principle": Family(
        "nvidia/Llama-3.3-Nemotron-70B-Reward-Principle",
        "its card",
        'the logit of "Yes" minus that of "No" after the question whether the answer is correct',
        architectures=CAUSAL,
        named=r"nemotron.*reward-principle",
        head="Difference",
        tokens=("Yes", "No"),
        text=Text(turns=_asked_of, prompt_only=True, max_length=4096),
    ),
    "nemotron-qwen3": Family(
        "nvidia/Qwen-3-Nemotron-32B-Reward",
        "its card",
        "the logit of token 0 after the whole text",
        architectures="Qwen3ForCausalLM",
        named=r"qwen-?3-nemotron.*reward",
        head="Stack",
        tokens=(0,),
        text=Text(turns=_without_thinking, max_length=4096),
    ),
    "nemotron": Family(
        "nvidia/Llama-3.1-Nemotron-70B-Reward-HF, Llama-3.3-Nemotron-70B-Reward*, Qwen-2.5-Nemotron-32B-Reward",
        "its card",
        "the logit of token 0 after the whole text",
        architectures=CAUSAL,
        named=r"nemotron.*reward",
        head="Stack",
        tokens=(0,),
        text=Text(max_length=4096),
    ),
    "rlhflow-orm": Family(
        "RLHFlow/Llama3.1-8B-ORM-Mistral-Data, -Deepseek-Data",
        "RLHFlow/RLHF-Reward-Modeling math-rm/orm_evaluate.py",
        'the probability of "+" against "-" as the reply to question and answer in one turn',
        architectures=CAUSAL,
        named=r"8b-orm-",
        head="Probability",
        tokens=("+", "-"),
        text=Text(turns=_merged, prompt_only=True),
    ),
    # ---- refused
    "steamshp": Family(
        "stanfordnlp/SteamSHP-flan-t5-*",
        "reward-bench shp.py",
        "the token A or B that it writes",
        architectures=r"T5\w*",
        named=r"steamshp",
        refused="an encoder-decoder that writes which of two answers is better",
    ),
    "ziya": Family(
        "IDEA-CCNL/Ziya-LLaMA-7B-Reward",
        "reward-bench ziya.py",
        "code of its own",
        named=r"ziya-llama.*reward",
        refused="its head is known only to code of its own, which is never run",
    ),
    "gpm": Family(
        "general-preference/GPM-*",
        "reward-bench gpm.py",
        "a skew-symmetric product of two embeddings",
        named=r"(^|/)gpm-",
        refused="it compares two answers by embeddings of several dimensions and gives none of them a reward",
    ),
    # ---- what nobody named
    "linear head": Family(
        "any model with one linear head (v_head, value_head, regression_head, score_head, reward_head): LLaMA-Factory, TRL",
        "LLaMA-Factory model_utils/valuehead.py",
        LAST,
        architectures=r"(?!\w+For(Sequence|Token)Classification$)\w*",
        tensors=(r"^(v|value|reward|score|regression|rm)_head(\.summary)?\.(\d\.)?weight",),
        lacks=r"^score\.",
        head="Stack",
        weights=(VALUE, LINEAR),
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
        for name, one in every_family().items()
    ]
