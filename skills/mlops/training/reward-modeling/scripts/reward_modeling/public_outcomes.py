"""Outcome reward models that others published: a frozen entry a family, in the form of `public_families`."""

from __future__ import annotations

from dataclasses import replace

from .data.records import Message
from .public_families import ANY, BOXED, CAUSAL, CLASSIFIER, LINEAR, Family, Text, frame


def _merged(messages: list[Message]) -> list[Message]:
    """The answer after the question in one user turn."""
    *before, question, answer = messages
    return [*before, {**question, "content": f"{question['content']} {answer['content']}"}]


def _without_thinking(messages: list[Message]) -> list[Message]:
    """Qwen3's way of saying that the answer was not thought about."""
    *before, question, answer = messages
    question = {**question, "content": f"{question['content']} /nothink"}
    return [*before, question, {**answer, "content": f"<think>\n\n</think>\n\n{answer['content']}"}]


def _asked_of(messages: list[Message]) -> list[Message]:
    """A last turn that asks whether the answer is correct."""
    asks = "Evaluate the response to the previous prompt in terms of whether it satisfies this principle: correctness."
    return [*messages, {"role": "user", "content": f"{asks} Only answer Yes or No."}]


LAST, MLP = "a linear head at the last token", "two linear layers with ReLU at the last token"
VALUE = (r"^(v|value)_head\.(summary\.)?(?=\d)", "score.")
ONE, TWO = {"head": "Stack", "weights": (LINEAR,)}, {"head": "Stack", "tensors": (r"^score\.2\.weight",)}
REGRESSION = {**ONE, "tensors": (r"^regression_head\.weight",)}
STARLING = {**ONE, "tensors": (r"^transformer\.", r"^v_head\.weight")}
ONCE, TWICE, TO_4096 = Text(bos="tokenizer"), Text(bos="both"), Text(max_length=4096)
BEAVER = Family(
    "PKU-Alignment/beaver-7b-v*-reward", "its card, reward-bench beaver.py",
    LAST + ", normalized where its config says so",
    architectures="LlamaForScore",
    tensors=(r"^score_head\.weight",),
    head="Normalized",
    weights=(LINEAR, (r"^normalizer\.", "score.")),
    text=Text(frame("BEGINNING OF CONVERSATION: USER: {} ", "ASSISTANT:{}", "</s>"), bos="tokenizer"),
)  # fmt: skip
OASST = Family(
    "OpenAssistant/oasst-rm-2*-pythia-*", "reward-bench openassistant.py", LAST,
    architectures="GPTNeoXRewardModel",
    tensors=(r"^out_proj\.weight",),
    head="Stack",
    weights=((r"^out_proj\.", "score.0."),),
    trunk="gpt_neox",
    text=Text(frame("<|prompter|>{}<|endoftext|>", "<|assistant|>{}<|endoftext|>")),
)  # fmt: skip
QRM = Family(
    "nicolinho/QRM-Llama3-8B, QRM-Llama3.1-8B, QRM-Llama3.1-8B-v2", "reward-bench qrm.py",
    "the mean of quantiles of each attribute, mixed by a gate that reads the end of the prompt",
    architectures=r"Llama\w+WithGating\w*",
    tensors=(r"^regression_layer\.weight", r"^gating\.layers\.\d\.running_mean"),
    head="Gated",
    weights=(
        (r"^regression_layer\.", "score.objectives.0."),
        (r"^gating\.layers\.(?=\d)", "score.gate."),
        (r"^gating\.logit_scale$", "score.scale"),
        (r"^reward_transform_matrix$", "score.transform"),
    ),
    options={"adjusted": True},
    gate="<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    text=TO_4096,
)  # fmt: skip
NEMOTRON = Family(
    "nvidia/Llama-3.1-Nemotron-70B-Reward-HF, Llama-3.3-Nemotron-70B-Reward*, Qwen-2.5-Nemotron-32B-Reward", "its card",
    "the logit of token 0 after the whole text",
    architectures=CAUSAL, named=r"nemotron.*reward", head="Stack", tokens=(0,), text=TO_4096,
)  # fmt: skip

OUTCOMES: dict[str, Family] = {
    # ---- heads of transformers
    "skywork-v2": Family(
        "Skywork/Skywork-Reward-V2-*", "SkyworkAI/Skywork-Reward-V2 README", LAST,
        architectures=CLASSIFIER, named=r"skywork-reward-v2", text=Text(bos="tokenizer", max_length=16_384),
    ),
    "grm": Family(
        "Ray2333/GRM-*-rewardmodel-ft", "JudgeBench judges.py (double BOS)", LAST,
        architectures=CLASSIFIER, named=r"grm-.*rewardmodel", text=TWICE,
    ),
    "plain": Family(
        "Skywork/Skywork-Reward-*, sfairXC/FsfairX-LLaMA3-RM-v0.1, weqweasdas/RM-*, NCSOFT/Llama-3-OffsetBias-RM-8B, "
        "allenai/*-RM and *-RM-RB2, HFXM/RAMO-*, SultanR/SmolTulu-*-RM",
        "Skywork-Reward README, reward-bench pipeline.py", LAST,
        architectures=CLASSIFIER, text=ONCE,
        named=r"skywork-reward|fsfairx|weqweasdas/rm-|offsetbias|tulu.*-rm|-rm-rb2|\bramo-|smoltulu",
    ),
    "deberta-pair": Family(
        "OpenAssistant/reward-model-deberta-v3-*", "its card", "the head of transformers at the first token",
        architectures=r"DebertaV2ForSequenceClassification", named=r"reward-model-deberta", text=Text(pair=True),
    ),
    "odin": Family(
        "gemma_9b_odin_v2", "ODIN, arXiv:2402.07319",
        "the second of two linear heads at the last token; the first is of length",
        architectures=CLASSIFIER, named="odin", tensors=(r"^score\.weight",),
        head="Second", weights=((r"^score\.", "score.0."),),
    ),
    # ---- two layers
    "qwen-math-rm": Family(
        "Qwen/Qwen2.5-Math-RM-72B", "its card, vLLM qwen2_rm.py", MLP,
        architectures="Qwen2ForRewardModel", named=r"2\.5-math", text=Text(system=BOXED), **TWO,
    ),
    "qwen-rm": Family(
        "Qwen/Qwen2-Math-RM-72B, Qwen/WorldPM-72B*", "its card, QwenLM/WorldPM README", MLP,
        architectures=r"Qwen2ForRewardModel|WorldPM\w*", text=Text(system=""), **TWO,
    ),
    "inf-orm": Family(
        "infly/INF-ORM-Llama3.1-70B", "reward-bench inform.py", MLP, architectures="INFORMForSequenceClassification", **TWO,
    ),
    # ---- one layer under another name
    "polar": Family(
        "internlm/POLAR-*", "InternLM/POLAR", "its distance to a reference answer",
        architectures="InternLM2ForRewardModel", named="polar",
        refused="it compares an answer with a reference answer, which a row of prompt and answer does not have",
    ),
    "internlm2": Family(
        "internlm/internlm2-1_8b-reward, -7b-reward, -20b-reward", "xtuner modeling_internlm2_reward",
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
        "openbmb/UltraRM-13b", "its card, whose examples have one newline between the turns", LAST,
        architectures="LlamaRewardModel",
        text=Text(frame("Human: {}\n\n", "Assistant: {}", "\n\n"), bos="tokenizer"), **REGRESSION,
    ),
    "eurus-rm": Family(
        "openbmb/Eurus-RM-7b", "OpenBMB/Eurus, reward-bench openbmb.py", LAST,
        config={"model_type": "mistral"}, text=Text(frame("[INST] {} [/INST] ", "{}", " "), bos="tokenizer"), **REGRESSION,
    ),
    "starling-34b": Family(
        "Nexusflow/Starling-RM-34B", "reward-bench starling.py", LAST,
        config={"vocab_size": 64_000}, text=Text(bos="tokenizer", max_length=2048), **STARLING,
    ),
    "starling": Family(
        "berkeley-nest/Starling-RM-7B-alpha", "its card, reward-bench starling.py", LAST,
        config={"model_type": "llama"},
        text=Text(frame("<s>[INST] {} </s> [/INST] ", "{}</s>"), bos="both", max_length=2048), **STARLING,
    ),
    "athene": Family(
        "Nexusflow/Athene-RM-8B, -70B", "reward-bench athene.py", "a linear head at an appended CLS token",
        architectures="AtheneForSequenceClassification", tensors=(r"^v_head\.weight",),
        text=Text(bos="both", append=("<|reserved_special_token_1|>",), max_length=4096), **ONE,
    ),
    "beaver-cost": replace(
        BEAVER, called="PKU-Alignment/beaver-7b-v*-cost", how="minus the cost, a linear head at the last token",
        config={"score_type": "cost"}, options={"cost": True},
    ),
    "beaver": BEAVER,
    "oasst-mean": replace(OASST, how="a linear head on the mean of all tokens", config={"pooling": "mean"}, pooled=True),
    "oasst": OASST,
    "skywork-vl": Family(
        "Skywork/Skywork-VL-Reward-7B", "reward-bench skyvl.py", LAST, architectures=r"\w*VL\w*", tensors=(LINEAR[0],),
        refused="its trunk reads images, which the engine does not",
    ),
    "grm-sftreg": Family(
        "Ray2333/GRM-*-sftreg, Ray2333/GRM-llama3-8B-distill", "reward-bench grm.py",
        "the value head (linear or two layers with ReLU) at the last token",
        tensors=(r"^v_head\.summary\.",), lacks=r"^score\.", named=r"grm-", head="Stack", weights=(VALUE, LINEAR),
        text=Text(bos="tokenizer", max_length=2048),
    ),
    "openrlhf": Family(
        "any model that OpenRLHF saved", "OpenRLHF models/model.py, datasets/reward_dataset.py", LAST + ", which is EOS",
        architectures=r"(?!\w+ForSequenceClassification)\w*", config={"value_head_prefix": ANY},
        tensors=(r"^(score|value_head)\.weight",), head="Normalized", weights=((r"^(score|value_head)\.", "score.0."),),
        text=Text(end=" {eos}"),
    ),
    # ---- many heads
    "ldl": Family(
        "ShikaiChen/LDL-Reward-Gemma-2-27B-v0.1", "reward-bench ldlreward.py", "distributions mixed by a gate",
        architectures=r"Gemma2\w*|LDL\w*", named=r"ldl-reward",
        refused="its two heads are pickles beside its weights (regression_layer.pt, gating_layer.pt), which are not opened",
    ),
    "qrm": QRM,
    "qrm-gemma": replace(
        QRM, called="nicolinho/QRM-Gemma-2-27B", source="reward-bench qrm.py; its gate's place is inferred",
        architectures=r"Gemma2\w+WithGating\w*", gate="<end_of_turn>\n<start_of_turn>model\n",
    ),
    "armorm": replace(
        QRM, called="RLHFlow/ArmoRM-Llama3-8B-v0.1", source="RLHFlow/RLHF-Reward-Modeling armo-rm",
        how="19 attributes at the last token, mixed by a gate that reads the end of the prompt",
        architectures=r"\w+WithGating",
        tensors=(r"^regression_layer\.weight", r"^gating\.layers\.1\.weight", r"^reward_transform_matrix"),
        # between its gate's layers stands ReLU without a number
        weights=(*((rf"^gating\.layers\.{i}\.", f"score.gate.{2 * i}.") for i in (1, 2, 3)), *QRM.weights),
        options={},
    ),
    "urm": Family(
        "LxzGordon/URM-LLaMa-3.1-8B", "its card, SGLang llama_reward.py",
        "the means of five attributes at the last token, weighted by a network on the same state",
        architectures=r"\w+WithNormal_Weights", tensors=(r"^weights\.fc\.4\.weight",), head="Weighted",
        weights=((r"^score\.", "score.objectives.0."), (r"^weights\.fc\.", "score.gate.")), text=TWICE,
    ),
    "urm-fixed": Family(
        "LxzGordon/URM-LLaMa-3-8B", "SGLang llama_reward.py, Nemotron-4's weights",
        "the means of five attributes at the last token, with fixed weights",
        architectures=r"\w+WithNormal", tensors=(r"^score\.weight",), head="Weighted",
        weights=((r"^score\.", "score.objectives.0."),), options={"weights": (0.3, 0.74, 0.46, 0.47, -0.33)}, text=TWICE,
    ),
    # ---- logits of tokens
    "nemotron-principle": replace(
        NEMOTRON, called="nvidia/Llama-3.3-Nemotron-70B-Reward-Principle",
        how='the logit of "Yes" minus that of "No" after the question whether the answer is correct',
        named=r"nemotron.*reward-principle", head="Difference", tokens=("Yes", "No"),
        text=Text(turns=_asked_of, prompt_only=True, max_length=4096),
    ),
    "nemotron-qwen3": replace(
        NEMOTRON, called="nvidia/Qwen-3-Nemotron-32B-Reward", architectures="Qwen3ForCausalLM",
        text=Text(turns=_without_thinking, max_length=4096),
    ),
    "nemotron": NEMOTRON,
    "rlhflow-orm": Family(
        "RLHFlow/Llama3.1-8B-ORM-Mistral-Data, -Deepseek-Data", "RLHFlow/RLHF-Reward-Modeling orm_evaluate.py",
        'the probability of "+" against "-" as the reply to question and answer in one turn',
        architectures=CAUSAL, named=r"8b-orm-", head="Probability", tokens=("+", "-"),
        text=Text(turns=_merged, prompt_only=True),
    ),
    # ---- refused
    "steamshp": Family(
        "stanfordnlp/SteamSHP-flan-t5-*", "reward-bench shp.py", "the token A or B that it writes",
        architectures=r"T5\w*", named=r"steamshp", refused="an encoder-decoder that writes which of two answers is better",
    ),
    "ziya": Family(
        "IDEA-CCNL/Ziya-LLaMA-7B-Reward", "reward-bench ziya.py", "code of its own", named=r"ziya-llama.*reward",
        refused="its head is known only to code of its own, which is never run",
    ),
    "gpm": Family(
        "general-preference/GPM-*", "reward-bench gpm.py", "a skew-symmetric product of two embeddings", named=r"(^|/)gpm-",
        refused="it compares two answers by embeddings of several dimensions and gives none of them a reward",
    ),
    # ---- what nobody named
    "linear head": Family(
        "any model with one linear head (v_head, value_head, regression_head, score_head, reward_head)",
        "LLaMA-Factory model_utils/valuehead.py, TRL", LAST,
        architectures=r"(?!\w+For(Sequence|Token)Classification$)\w*",
        tensors=(r"^(v|value|reward|score|regression|rm)_head(\.summary)?\.(\d\.)?weight",), lacks=r"^score\.",
        head="Stack", weights=(VALUE, LINEAR),
    ),
}  # fmt: skip
"""Name -> family, the most particular first."""
