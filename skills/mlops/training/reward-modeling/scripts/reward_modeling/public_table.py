"""Reward models that others published, a family an entry."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from .aggregation import probability
from .data.records import Message

LAST = "a linear head at the last token"


@dataclass(frozen=True)
class Family:
  """Models of one head and one text format.

  called: published ids. Patterns of classes (of `architectures`), config (of values), tensors (parted by spaces, each fits one) and
  lacks (fits none) must fit; `named`, of the name, only where other models have the same tensors.
  head: of `public_heads`, with these options; None for one of transformers. weights: pattern -> `model.*` (the trunk) or `score.*`.
  tokens: ids or texts whose logits are the head. trunk: `model_type`, where transformers does not know the config's.
  pooled: the mean of all tokens is read. gate: so many tokens before what opens the answer the numbers' weights are read.
  compares: two answers, so that rewards hold within a prompt only. reads_reference: the answer's message has a `reference`.
  template: over the tokenizer's. system: opens a conversation without one. bos: "template" (what it writes), "tokenizer" (the
  tokenizer's, once), "both" or "none". append: a last token, the first of these in the vocabulary. turns: changes the messages.
  prompt_only: the answer is part of a prompt, read where the model would reply. end: of every text, with {eos}. pair: the two texts
  of an encoder.
  tag: after a step, read at its last token, or `early` tokens before; what follows is of process models, too. opening, step: of a
  literal text, {} for the prompt or step; without, the chat template. pieces: prompt, steps and tags are tokenized one by one.
  replies: each step is a user turn and "+" the reply. split: where one text is split. value: of a step's log-odds.
  reference: the model whose log-probabilities are subtracted, times `scale`. own: `implicit_reward` of a config by train_process.py.
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
  pooled: bool = False
  gate: int = 0
  compares: bool = False
  reads_reference: bool = False

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
  early: int = 0
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
    return "outcome" if self.tag is None else "process"

  def read_by(self, path: str) -> str:
    return f"{path}: {self.called}, read by {self.how}"

  def text(self) -> str:
    if self.head == "Marked":
      return "prompt and both answers, each after a mark and cut at its end (PairRM: 1,224 and 412 tokens)"
    template = "prompt and answer as a text pair" if self.pair else "its own chat template"
    if self.tag is not None:
      form = template if self.opening is None else f"a literal text, {self.opening!r}"
      steps = f"{self.tag!r} after each step" if self.tag else "then the steps"
      return f"{form}, {'each step a turn' if self.replies else steps}"
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


def as_text(messages: Sequence[Message]) -> str:
  return "\n".join(message["content"] or "" for message in messages)


def implicit_family(own: Mapping[str, Any]) -> Family:
  how = f"{own['beta']:g} times the log-ratio with {own['reference']}, summed from the start of the answer"
  tag = own["step_separator"]
  read = {"tag": tag, "split": tag if tag.isspace() else "\n", "pieces": True, "value": float, "aggregate": "last"}
  more = {"reference": own["reference"], "scale": own["beta"], "max_length": own["max_length"], "own": own}
  return Family("an implicit process reward model of train_process.py", "arXiv:2412.01981", how, **read, **more)


FRAME = (
  "{% for message in messages %}{% if message['role'] == 'user' %}{{ USER }}{% elif message['role'] == 'assistant' %}{{ ANSWER }}"
  "{% if not loop.last %}{{ BETWEEN }}{% endif %}{% else %}{{ raise_exception('it has no such turn') }}{% endif %}{% endfor %}"
  "{% if add_generation_prompt %}{{ OPENING }}{% endif %}"
)


def frame(user: str, answer: str, between: str = "") -> str:
  """A chat template of two literal turns, {} for what is said; a system prompt is put before the first user turn."""
  opening = answer.partition("{}")[0]
  texts = {"USER": user, "ANSWER": answer, "BETWEEN": between, "OPENING": opening}
  written = {name: " + message['content'] + ".join(map(json.dumps, text.split("{}"))) for name, text in texts.items()}
  return re.sub("|".join(texts), lambda name: written[name[0]], FRAME)


def _merged(messages: list[Message]) -> list[Message]:
  *before, question, answer = messages
  return [*before, question | {"content": f"{question['content']} {answer['content']}"}]


def _without_thinking(messages: list[Message]) -> list[Message]:
  *before, question, answer = messages
  question = question | {"content": f"{question['content']} /nothink"}
  return [*before, question, answer | {"content": f"<think>\n\n</think>\n\n{answer['content']}"}]


def _beside_reference(messages: list[Message]) -> list[Message]:
  *prompt, answer = messages
  asked = {"role": "user", "content": as_text(prompt)}
  return [asked, answer | {"content": answer.get("reference")}, asked, answer]


def _in_context(messages: list[Message]) -> list[Message]:
  *prompt, first, second = messages
  turns = "".join(f"\n<turn> {one['role']}\n {one['content']}" for one in prompt)
  asked = f"[CONTEXT] \n{turns}\n [RESPONSE A] {first['content']} [RESPONSE B] {second['content']} \n"
  return [{"role": "user", "content": asked}]


def _posted(messages: list[Message]) -> list[Message]:
  *prompt, first, second = [one["content"] for one in messages]
  answers = f"RESPONSE A: {first}\n\n RESPONSE B: {second}"
  return [{"role": "user", "content": f"POST: {' '.join(prompt)}\n\n {answers}\n\n Which response is better? RESPONSE"}]


def _asked_of(messages: list[Message]) -> list[Message]:
  asks = "Evaluate the response to the previous prompt in terms of whether it satisfies this principle: correctness."
  return [*messages, {"role": "user", "content": f"{asks} Only answer Yes or No."}]


def signed(logit: float) -> float:
  return 2 * probability(logit) - 1


CLASSIFIER, CAUSAL = r"\w+ForSequenceClassification", r"\w+ForCausalLM"
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
HEADS = r"^(v|value|reward|score|regression|rm)_head(\.summary)?\."
LINEAR_HEAD = HEADS + "(?=weight|bias)"
LINEAR = {LINEAR_HEAD: "score.0."}
VALUE = {r"^(v|value)_head\.(summary\.)?(?=\d)": "score."} | LINEAR
AT_TAG = "the probability of the second of two labels at the tag after each step"
PLUS = 'the probability of "+" against "-" '

classifier = partial(Family, classes=CLASSIFIER)
linear = partial(Family, head="Stack", weights=LINEAR)
regression = partial(linear, tensors=r"^regression_head\.weight")
starling = partial(linear, tensors=r"^transformer\. ^v_head\.weight")
mlp = partial(Family, how="two linear layers with ReLU at the last token", head="Stack", tensors=r"^score\.2\.weight")
prm = partial(Family, head="StepLogits")
step_layers = partial(prm, tensors=r"^score\.2\.weight")
step_tokens = partial(prm, tokens=("-", "+"))
classified_steps = partial(Family, tensors=r"^score\.weight")
comparing = partial(Family, compares=True)

BEAVER = Family(
  "PKU-Alignment/beaver-7b-v*-reward", "its card, reward-bench", LAST + ", normalized where its config says so",
  classes="LlamaForScore", tensors=r"^score_head\.weight", head="Normalized", weights={**LINEAR, r"^normalizer\.": "score."},
  template=frame("BEGINNING OF CONVERSATION: USER: {} ", "ASSISTANT:{}", "</s>"), bos="tokenizer",
)  # fmt: skip
OASST = Family(
  "OpenAssistant/oasst-rm-2*-pythia-*", "reward-bench",
  classes="GPTNeoXRewardModel", tensors=r"^out_proj\.weight", head="Stack", weights={r"^out_proj\.": "score.0."}, trunk="gpt_neox",
  template=frame("<|prompter|>{}<|endoftext|>", "<|assistant|>{}<|endoftext|>"),
)  # fmt: skip
VALID = "the probability that a step is neutral or positive, of three classes, "
REASON_EVAL = prm(
  "GAIR/ReasonEval-7B", "GAIR-NLP/ReasonEval", VALID + "one token before its end, as its authors' script counts",
  config={"score_dimension": 3}, tensors=LINEAR_HEAD, head="Validity", weights=LINEAR, bos="tokenizer",
  opening="Question:\n{}\nAnswer:\nLet's think step by step.\n", tag="", early=1, pieces=True, split="\n",
)  # fmt: skip
INTERNLM2 = Family(
  "internlm/internlm2-1_8b-reward, -7b-reward, -20b-reward", "xtuner",
  "a linear head at an appended reward token", classes="InternLM2ForRewardModel", tensors=r"^v_head\.weight", head="Stack",
  weights={
    **LINEAR,
    r"^model\.tok_embeddings\.": "model.embed_tokens.",
    r"\.attention\.wo\.": ".self_attn.o_proj.",
    r"\.feed_forward\.w1\.": ".mlp.gate_proj.",
    r"\.feed_forward\.w3\.": ".mlp.up_proj.",
    r"\.feed_forward\.w2\.": ".mlp.down_proj.",
    r"\.attention_norm\.": ".input_layernorm.",
    r"\.ffn_norm\.": ".post_attention_layernorm.",
  }, trunk="llama", append=("<|reward|>", "[UNUSED_TOKEN_130]"),
)  # fmt: skip
QRM = Family(
  "nicolinho/QRM-Llama3-8B, QRM-Llama3.1-8B, QRM-Llama3.1-8B-v2", "reward-bench",
  "the mean of quantiles of each attribute, mixed by a gate that reads the end of the prompt",
  classes=r"Llama\w+WithGating\w*", tensors=r"^regression_layer\.weight ^gating\.layers\.\d\.running_mean",
  head="Gated",
  weights={
    r"^regression_layer\.": "score.objectives.0.",
    r"^gating\.layers\.(?=\d)": "score.gate.",
    r"^gating\.logit_scale$": "score.scale",
    r"^reward_transform_matrix$": "score.transform",
  },
  options={"adjusted": True}, gate=1, max_length=4096,
)  # fmt: skip
NEMOTRON = Family(
  "nvidia/Llama-3.1-Nemotron-70B-Reward-HF, Llama-3.3-Nemotron-70B-Reward*, Qwen-2.5-Nemotron-32B-Reward", "its card",
  "the logit of token 0 after the whole text",
  classes=CAUSAL, named=r"nemotron.*reward", head="Stack", tokens=(0,), max_length=4096,
)  # fmt: skip

PUBLIC: dict[str, Family] = {
  # ---- steps
  "reasonflux-prm": step_layers(
    "Gen-Verse/ReasonFlux-PRM-7B", "Gen-Verse/ReasonFlux README", AT_TAG,
    classes="Qwen2ForProcessRewardModel", named="reasonflux", tag="<extra_0>",
  ),
  "qwen-prm": step_layers(
    "Qwen/Qwen2.5-Math-PRM-7B, -72B, Qwen/Qwen2.5-Math-7B-PRM800K", "its card, search-and-learn, ms-swift", AT_TAG,
    classes="Qwen2ForProcessRewardModel", tag="<extra_0>", system=BOXED,
  ),
  "skywork-o1-prm": prm(
    "Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B, -7B", "SkyworkAI/skywork-o1-prm-inference",
    "the sigmoid of the value head at the line break after each step",
    classes=r"Qwen2For(Prm|Reward)Model", named="prm", tensors=LINEAR_HEAD, weights=LINEAR,
    tag="\n", opening="{bos}{}\n", pieces=True, split="\n", aggregate="mean",
  ),
  "reason-eval-7b": REASON_EVAL,
  "reason-eval-34b": replace(
    REASON_EVAL, called="GAIR/ReasonEval-34B", how=VALID + "at its last token", config={"score_dim": 3}, early=0,
  ),
  "pure": step_layers(
    "jinachris/PURE-PRM-7B", "its card, CJReinforce/PURE", "p(correct) - p(incorrect) at the line break after each step",
    classes="Qwen2ForTokenClassification", tag="\n", opening="{bos}{}", pieces=True, value=signed,
  ),
  "trl-blank-line": classified_steps(
    "HuggingFaceH4/Qwen2.5-Math-*-Instruct-PRM-0.2", "search-and-learn", AT_TAG,
    classes=r"\w+ForTokenClassification", named=r"prm-0\.2", tag="\n\n", opening="{bos}{}", pieces=True, aggregate="last",
  ),
  "trl": classified_steps(
    "token classifiers with two labels of TRL's PRMTrainer and of axolotl", "trl/experimental/prm",
    AT_TAG + ", a line break unless --step_separator says otherwise",
    classes=r"\w+ForTokenClassification", tag="\n", opening="{bos}{}", pieces=True, split="\n",
  ),
  "math-shepherd": step_tokens(
    "peiyi9979/math-shepherd-mistral-7b-prm", 'its card, OpenR; steps begin with "Step 1: " there',
    PLUS + 'at " ки" after each step', classes="MistralForCausalLM", named="math-shepherd.*prm",
    tag="ки", opening="{} ", step="{} ки\n", split="\n", bos="tokenizer",
  ),
  "rlhflow-prm": step_tokens(
    "RLHFlow/Llama3.1-8B-PRM-Mistral-Data, -Deepseek-Data", "RLHFlow math-rm",
    PLUS + "as the reply to each step", classes="LlamaForCausalLM", named="8b-prm-",
    tag="<|start_header_id|>assistant<|end_header_id|>\n\n", replies=True, aggregate="mean", max_length=8192,
  ),
  "versa-prm": step_tokens(
    "UW-Madison-Lee-Lab/VersaPRM*, Llama-PRM800K, Qwen-PRM800K", "UW-Madison-Lee-Lab/VersaPRM",
    PLUS + "at four line breaks after each step", classes=CAUSAL, named=r"versaprm|(llama|qwen)-prm800k",
    tag=" \n\n\n\n", opening="{} \n\n", step="{} \n\n\n\n", bos="tokenizer",
  ),
  "math-psa": prm(
    "openreasoner/Math-psa, merged into its base", "OpenR",
    'the probability of " +" against " -" at five line breaks after each step',
    classes="Qwen2ForCausalLM", named="math-psa", tokens=(" -", " +"),
    tag=" \n\n\n\n\n", opening="{} \n\n", step="{} \n\n\n\n\n ", bos="tokenizer",
  ),
  "implicit-prm": Family(
    "PRIME-RL/EurusPRM-Stage1, -Stage2, Windy0822/ImplicitPRM_DPO, _CE", "their cards, PRIME-RL/ImplicitPRM",
    "0.001 times the log-ratio with a reference model, summed from the start of the answer to each step's end",
    classes=CAUSAL, named=r"eurusprm|implicitprm",
    tag="\n\n", value=float, reference="Qwen/Qwen2.5-Math-7B-Instruct, or Llama-3.1-8B-Instruct", scale=0.001,
  ),
  # ---- two answers
  "pair-rm": comparing(
    "llm-blender/PairRM-hf, mightbe/Better-PairRM", "LLM-Blender, reward-bench",
    "the difference of two heads, at the marks of both answers, mean over both orders",
    classes="DebertaV2PairRM", tensors=r"^head_layer\.4\.weight", head="Marked",
    weights={r"^head_layer\.1\.": "score.pair.0.", r"^head_layer\.4\.": "score.pair.2."},
  ),
  "pair-preference": comparing(
    "RLHFlow/pair-preference-model-LLaMA3-8B", "RLHFlow pair-pm, reward-bench",
    'the probability of "A" against "B" after both answers, mean over both orders',
    classes="LlamaForCausalLM", named="pair-preference", head="Difference", tokens=("A", "B"), turns=_in_context, bos="none",
  ),
  "steamshp": comparing(
    "stanfordnlp/SteamSHP-flan-t5-large, -xl", "its card, reward-bench",
    'the probability that it writes "A" against "B", mean over both orders', classes="T5ForConditionalGeneration", named="steamshp",
    head="Difference", tokens=("A", "B"), turns=_posted, template="{{ messages[0]['content'] + eos_token }}",
  ),
  "gpm": comparing(
    "general-preference/GPM-*", "general-preference-model",
    "ten times the skew-symmetric product of both answers' embeddings, weighted by a head at the end of the prompt",
    tensors=r"^value_head\.weight", named=r"\bgpm-", head="Embedding",
    weights={r"^(value|prompt)_head\.": r"score.\1.0."}, gate=1, bos="both", max_length=4096,
  ),
  # ---- heads of transformers
  "skywork-v2": classifier(
    "Skywork/Skywork-Reward-V2-*", "SkyworkAI/Skywork-Reward-V2 README", named=r"skywork-reward-v2", bos="tokenizer", max_length=16_384,
  ),
  "grm": classifier("Ray2333/GRM-*-rewardmodel-ft", "JudgeBench (double BOS)", named=r"grm-.*rewardmodel", bos="both"),
  "plain": classifier(
    "Skywork/Skywork-Reward-*, sfairXC/FsfairX-LLaMA3-RM-v0.1, weqweasdas/RM-*, NCSOFT/Llama-3-OffsetBias-RM-8B, "
    "allenai/*-RM and *-RM-RB2, HFXM/RAMO-*, SultanR/SmolTulu-*-RM", "Skywork-Reward README, reward-bench", bos="tokenizer",
    named=r"skywork-reward|fsfairx|weqweasdas/rm-|offsetbias|tulu.*-rm|-rm-rb2|\bramo-|smoltulu",
  ),
  "deberta-pair": Family(
    "OpenAssistant/reward-model-deberta-v3-*", "its card", "the head of transformers at the first token",
    classes=r"DebertaV2ForSequenceClassification", named=r"reward-model-deberta", pair=True,
  ),
  # ---- two layers
  "qwen-math-rm": mlp("Qwen/Qwen2.5-Math-RM-72B", "its card, vLLM", classes="Qwen2ForRewardModel", named=r"2\.5-math", system=BOXED),
  "qwen-rm": mlp(
    "Qwen/Qwen2-Math-RM-72B, Qwen/WorldPM-72B*", "its card, QwenLM/WorldPM README", classes=r"Qwen2ForRewardModel|WorldPM\w*", system="",
  ),
  "inf-orm": mlp("infly/INF-ORM-Llama3.1-70B", "reward-bench", classes="INFORMForSequenceClassification"),
  # ---- one layer under another name
  "polar": replace(
    INTERNLM2, called="internlm/POLAR-1_8B, POLAR-7B", source="InternLM/POLAR",
    how="its likeness to a reference answer, the row's `reference`, at an appended reward token", named="polar", reads_reference=True,
    turns=_beside_reference, template=frame("{}\n", "{}", "<|reward|>"), bos="tokenizer", append=("[UNUSED_TOKEN_130]",),
    max_length=16_384,
  ),
  "internlm2": INTERNLM2,
  "ultrarm": regression(
    "openbmb/UltraRM-13b", "its card, whose examples have one newline between the turns",
    classes="LlamaRewardModel", template=frame("Human: {}\n\n", "Assistant: {}", "\n\n"), bos="tokenizer",
  ),
  "reasonflux-orm": linear(
    "Gen-Verse/ReasonFlux-PRM-1.5B", "Gen-Verse/ReasonFlux README", "the sigmoid of " + LAST, classes=CAUSAL, named=r"reasonflux-prm-1\.5b",
    head="Sigmoid", template=frame("{}", "{}"), bos="tokenizer", max_length=2048,
  ),
  "eurus-rm": regression(
    "openbmb/Eurus-RM-7b", "OpenBMB/Eurus, reward-bench",
    config={"model_type": "mistral"}, template=frame("[INST] {} [/INST] ", "{}", " "), bos="tokenizer",
  ),
  "starling-34b": starling(
    "Nexusflow/Starling-RM-34B", "reward-bench", config={"vocab_size": 64_000}, bos="tokenizer", max_length=2048,
  ),
  "starling": starling(
    "berkeley-nest/Starling-RM-7B-alpha", "its card, reward-bench",
    config={"model_type": "llama"}, template=frame("<s>[INST] {} </s> [/INST] ", "{}</s>"), bos="both", max_length=2048,
  ),
  "athene": linear(
    "Nexusflow/Athene-RM-8B, -70B", "reward-bench", "a linear head at an appended CLS token",
    classes="AtheneForSequenceClassification", tensors=r"^v_head\.weight", bos="both", append=("<|reserved_special_token_1|>",), max_length=4096,
  ),
  "beaver-cost": replace(
    BEAVER, called="PKU-Alignment/beaver-7b-v*-cost", how="minus the cost, a linear head at the last token",
    config={"score_type": "cost"}, options={"cost": True},
  ),
  "beaver": BEAVER,
  "oasst-mean": replace(OASST, how="a linear head on the mean of all tokens", config={"pooling": "mean"}, pooled=True),
  "oasst": OASST,
  "grm-sftreg": Family(
    "Ray2333/GRM-*-sftreg, Ray2333/GRM-llama3-8B-distill", "reward-bench",
    "the value head (linear or two layers with ReLU) at the last token",
    tensors=r"^v_head\.summary\.", lacks=r"^score\.", named=r"grm-", head="Stack", weights=VALUE, bos="tokenizer", max_length=2048,
  ),
  "openrlhf": Family(
    "any model that OpenRLHF saved", "OpenRLHF", LAST + ", which is EOS",
    classes=r"(?!\w+ForSequenceClassification)\w*", config={"value_head_prefix": ".+"},
    tensors=r"^(score|value_head)\.weight", head="Normalized", weights={r"^(score|value_head)\.": "score.0."}, end=" {eos}",
  ),
  # ---- many heads
  "ldl": Family(
    "ShikaiChen/LDL-Reward-Gemma-2-27B-v0.1", "reward-bench",
    "the means of the distributions of 22 objectives, weighted by a network on the same state",
    classes=r"Gemma2\w*|LDL\w*", named=r"ldl-reward", head="Distributions",
    weights={r"^gating_layer\.network\.": "score.gate.", r"^regression_layer\.network\.": "score.objectives."}, bos="tokenizer",
  ),
  "qrm": QRM,
  "qrm-gemma": replace(
    QRM, called="nicolinho/QRM-Gemma-2-27B", source="a peer's copy of its class", classes=r"Gemma2ForQuantile\w+|Gemma2\w+WithGating\w*",
    options={"plain": True}, gate=2,
  ),
  "armorm": replace(
    QRM, called="RLHFlow/ArmoRM-Llama3-8B-v0.1", source="RLHFlow armo-rm",
    how="19 attributes at the last token, mixed by a gate that reads the end of the prompt",
    classes=r"\w+WithGating", tensors=r"^regression_layer\.weight ^gating\.layers\.1\.weight ^reward_transform_matrix",
    # between its gate's layers stands ReLU without a number
    weights={rf"^gating\.layers\.{i}\.": f"score.gate.{2 * i}." for i in (1, 2, 3)} | QRM.weights, options={},
  ),
  "urm": Family(
    "LxzGordon/URM-LLaMa-3.1-8B", "its card, SGLang",
    "the means of five attributes at the last token, weighted by a network on the same state",
    classes=r"\w+WithNormal_Weights", tensors=r"^weights\.fc\.4\.weight", head="Weighted",
    weights={r"^score\.": "score.objectives.0.", r"^weights\.fc\.": "score.gate."}, bos="both",
  ),
  "urm-fixed": Family(
    "LxzGordon/URM-LLaMa-3-8B", "SGLang, Nemotron-4's weights",
    "the means of five attributes at the last token, with fixed weights", classes=r"\w+WithNormal", tensors=r"^score\.weight", head="Weighted",
    weights={r"^score\.": "score.objectives.0."}, options={"weights": (0.3, 0.74, 0.46, 0.47, -0.33)}, bos="both",
  ),
  # ---- logits of tokens
  "nemotron-principle": replace(
    NEMOTRON, called="nvidia/Llama-3.3-Nemotron-70B-Reward-Principle",
    how='the logit of "Yes" minus that of "No" after the question whether the answer is correct',
    named=r"nemotron.*reward-principle", head="Difference", tokens=("Yes", "No"), turns=_asked_of, prompt_only=True,
  ),
  "nemotron-qwen3": replace(NEMOTRON, called="nvidia/Qwen-3-Nemotron-32B-Reward", classes="Qwen3ForCausalLM", turns=_without_thinking),
  "nemotron": NEMOTRON,
  "rlhflow-orm": Family(
    "RLHFlow/Llama3.1-8B-ORM-Mistral-Data, -Deepseek-Data", "RLHFlow math-rm",
    PLUS + "as the reply to question and answer in one turn",
    classes=CAUSAL, named=r"8b-orm-", head="Probability", tokens=("+", "-"), turns=_merged, prompt_only=True,
  ),
  # ---- refused
  "ziya": Family(
    "IDEA-CCNL/Ziya-LLaMA-7B-Reward", "reward-bench", "code of its own", named=r"ziya-llama.*reward",
    refused="its head is known only to code of its own, which is never run",
  ),
  # ---- what nobody named
  "linear head": Family(
    "any model with one linear head (v_head, value_head, regression_head, score_head, reward_head), as Skywork/Skywork-VL-Reward-7B",
    "LLaMA-Factory, TRL", classes=r"(?!\w+For(Sequence|Token)Classification$)\w*",
    tensors=HEADS + r"(\d\.)?weight", lacks=r"^score\.", head="Stack", weights=VALUE,
  ),
}  # fmt: skip
"""Name -> family, the most particular first."""
