"""Process and pairwise reward models that others published: their entries, in the form of `public_families`.

A step's score is read at a tag after the step, by two logits (incorrect, correct), one log-odds, or a log-ratio of two
language models. `StepText` says how prompt and steps are written. `public_steps` renders them, `pairwise` compares answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .aggregation import probability
from .public_families import BOXED, CAUSAL, LINEAR, Family, Text

ASSISTANT = "<|start_header_id|>assistant<|end_header_id|>\n\n"
AT_TAG, TWO = "at the tag after each step", "the probability of the second of two labels "


def signed(logit: float) -> float:
    """p(correct) - p(incorrect)."""
    return 2 * probability(logit) - 1


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


def _process(called: str, source: str, how: str, text: StepText, **fields) -> Family:
    return Family(called, source, how, kind="process", text=text, **fields)


PROCESSES: dict[str, Family] = {
    "reasonflux-prm": _process(
        "Gen-Verse/ReasonFlux-PRM-7B",
        "Gen-Verse/ReasonFlux README",
        TWO + AT_TAG,
        StepText(tag="<extra_0>"),
        architectures="Qwen2ForProcessRewardModel",
        named="reasonflux",
        tensors=(r"^score\.2\.weight",),
        head="StepLogits",
    ),
    "qwen-prm": _process(
        "Qwen/Qwen2.5-Math-PRM-7B, -72B, Qwen/Qwen2.5-Math-7B-PRM800K",
        "its card, search-and-learn reward_models.py, ms-swift",
        TWO + AT_TAG,
        StepText(tag="<extra_0>", system=BOXED),
        architectures="Qwen2ForProcessRewardModel",
        tensors=(r"^score\.2\.weight",),
        head="StepLogits",
    ),
    "skywork-o1-prm": _process(
        "Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B, -7B",
        "SkyworkAI/skywork-o1-prm-inference model_utils",
        "the sigmoid of the value head at the line break after each step",
        StepText(tag="\n", opening="{bos}{}\n", pieces=True, split="\n", aggregate="mean"),
        architectures=r"Qwen2For(Prm|Reward)Model",
        named="prm",
        tensors=(LINEAR[0],),
        head="StepLogits",
        weights=(LINEAR,),
    ),
    "reason-eval": Family(
        "GAIR/ReasonEval-7B, -34B",
        "GAIR-NLP/ReasonEval codes/examples.py",
        "three classes of each step",
        architectures=r"ReasonEval_\w+",
        refused="its authors' script reads a step of the 7B one token before its end and one of the 34B at its end",
    ),
    "pure": _process(
        "jinachris/PURE-PRM-7B",
        "its card; CJReinforce/PURE trains with TRL",
        "p(correct) - p(incorrect) at the blank line after each step",
        StepText(tag="\n\n", opening="{}\n\n", pieces=True, value=signed),
        architectures="Qwen2ForTokenClassification",
        tensors=(r"^score\.2\.weight",),
        head="StepLogits",
    ),
    "trl-blank-line": _process(
        "HuggingFaceH4/Qwen2.5-Math-*-Instruct-PRM-0.2",
        "search-and-learn recipes/training",
        TWO + AT_TAG,
        StepText(tag="\n\n", opening="{bos}{}", pieces=True, aggregate="last"),
        architectures=r"\w+ForTokenClassification",
        tensors=(r"^score\.weight",),
        named=r"prm-0\.2",
    ),
    "trl": _process(
        "token classifiers with two labels of TRL's PRMTrainer and of axolotl",
        "trl/experimental/prm",
        TWO + AT_TAG + ", a line break unless --step_separator says otherwise",
        StepText(tag="\n", opening="{bos}{}", pieces=True, split="\n"),
        architectures=r"(Qwen|Llama|Mistral|Gemma|Phi)\w*ForTokenClassification",
        tensors=(r"^score\.weight",),
    ),
    "math-shepherd": _process(
        "peiyi9979/math-shepherd-mistral-7b-prm",
        'its card, OpenR prm/infer_fns.py; steps begin with "Step 1: " there',
        'the probability of "+" against "-" at " ки" after each step',
        StepText(tag="ки", opening="{} ", step="{} ки\n", split="\n", bos="tokenizer"),
        architectures="MistralForCausalLM",
        named="math-shepherd.*prm",
        head="StepLogits",
        tokens=("-", "+"),
    ),
    "rlhflow-prm": _process(
        "RLHFlow/Llama3.1-8B-PRM-Mistral-Data, -Deepseek-Data",
        "RLHFlow/RLHF-Reward-Modeling math-rm/prm_evaluate.py",
        'the probability of "+" against "-" as the reply to each step',
        StepText(tag=ASSISTANT, replies=True, aggregate="mean", max_length=8192),
        architectures="LlamaForCausalLM",
        named="8b-prm-",
        head="StepLogits",
        tokens=("-", "+"),
    ),
    "versa-prm": _process(
        "UW-Madison-Lee-Lab/VersaPRM*, Llama-PRM800K, Qwen-PRM800K",
        "UW-Madison-Lee-Lab/VersaPRM evaluation",
        'the probability of "+" against "-" at four line breaks after each step',
        StepText(tag=" \n\n\n\n", opening="{} \n\n", step="{} \n\n\n\n", bos="tokenizer"),
        architectures=CAUSAL,
        named=r"versaprm|(llama|qwen)-prm800k",
        head="StepLogits",
        tokens=("-", "+"),
    ),
    "math-psa": _process(
        "openreasoner/Math-psa, merged into its base",
        "OpenR prm/infer_fns.py",
        'the probability of " +" against " -" at five line breaks after each step',
        StepText(tag=" \n\n\n\n\n", opening="{} \n\n", step="{} \n\n\n\n\n ", bos="tokenizer"),
        architectures="Qwen2ForCausalLM",
        named="math-psa",
        head="StepLogits",
        tokens=(" -", " +"),
    ),
    "implicit-prm": _process(
        "PRIME-RL/EurusPRM-Stage1, -Stage2, Windy0822/ImplicitPRM_DPO, _CE",
        "their cards, PRIME-RL/ImplicitPRM eval/processbench.py",
        "0.001 times the log-ratio with a reference model, summed from the start of the answer to each step's end",
        StepText(
            tag="\n\n", value=float, reference="Qwen/Qwen2.5-Math-7B-Instruct, or Llama-3.1-8B-Instruct", scale=0.001
        ),
        architectures=CAUSAL,
        named=r"eurusprm|implicitprm",
    ),
    # ---- pairwise
    "pair-rm": Family(
        "llm-blender/PairRM-hf, mightbe/Better-PairRM",
        "LLM-Blender pairrm.py, reward-bench pairrm.py",
        "the difference of two heads, at the marks of both answers, mean over both orders",
        architectures="DebertaV2PairRM",
        tensors=(r"^head_layer\.4\.weight",),
        head="Marked",
        weights=((r"^head_layer\.1\.", "score.layers.0."), (r"^head_layer\.4\.", "score.layers.2.")),
        compares=True,
    ),
    "pair-preference": Family(
        "RLHFlow/pair-preference-model-LLaMA3-8B",
        "RLHFlow pair-pm, reward-bench slicpairpm.py",
        'the probability of "A" against "B" after both answers, mean over both orders',
        architectures="LlamaForCausalLM",
        named="pair-preference",
        head="Difference",
        tokens=("A", "B"),
        compares=True,
    ),
}
"""Name -> family, the most particular first."""
