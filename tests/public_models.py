"""Tiny random checkpoints with the names, shapes and config fields of published reward models, and how each is read.

One `Example` a family: what its folder holds, the text that its authors would give it, and its reward in plain torch.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from conftest import CHATML, tiny_tokenizer

HIDDEN = 16
REFERENCE = "Paris is it."
QUESTION, ANSWER = "What is the capital of France?", "It is Paris."
BOS = "<|begin_of_text|>"
LLAMA3 = (
  "{{ '<|begin_of_text|>' }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
  " + message['content'] + '<|eot_id|>' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA3_TOKENS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|reserved_special_token_1|>")


def tokenizer(template=CHATML, add_bos=False, tokens=()):
  """The tokenizer of the tests, with more tokens, and BOS of its own where asked."""
  from tokenizers import processors

  made = tiny_tokenizer("qwen2")
  made.model_max_length, made.chat_template = 10**30, template
  made.add_tokens([*tokens, *([BOS] if add_bos else [])], special_tokens=True)
  if add_bos:
    made.bos_token = BOS
    made._tokenizer.post_processor = processors.TemplateProcessing(
      single=f"{BOS} $A", special_tokens=[(BOS, made.bos_token_id)]
    )
  return made


def trunk(model_type: str, made, *, causal=False, prefix="model.", **fields):
  """(a tiny trunk of transformers with random weights, its tensors under the names of a checkpoint)."""
  from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

  sizes = {
        "vocab_size": len(made), "hidden_size": HIDDEN, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 512,
        "pad_token_id": None, "initializer_range": 0.3, "tie_word_embeddings": False,
    }  # fmt: skip
  config = AutoConfig.for_model(model_type, **{**sizes, **fields})
  torch.manual_seed(0)
  model = (AutoModelForCausalLM if causal else AutoModel).from_config(config).eval()
  own = model.state_dict()
  return model, {(name if causal else prefix + name): tensor.clone() for name, tensor in own.items()}


def save(folder: Path, config, tensors, made, **fields) -> Path:
  """Write a model folder: config.json with these fields, one safetensors file, the tokenizer."""
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "config.json").write_text(json.dumps({**config.to_dict(), **fields}))
  whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
  save_file(whole, folder / "model.safetensors", {"format": "pt"})
  made.save_pretrained(folder)
  return folder


def deberta_pair(folder: Path) -> Path:
  """A tiny encoder with one label that read question and answer as two texts, named as OpenAssistant's."""
  from transformers import AutoConfig, AutoModelForSequenceClassification

  made = tiny_tokenizer("bert")
  sizes = {
    "vocab_size": len(made),
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "pooler_hidden_size": 16,
  }
  more = {
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    "num_labels": 1,
    "type_vocab_size": 0,
    "pooler_dropout": 0.0,
  }
  torch.manual_seed(0)
  model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("deberta-v2", **sizes, **more))
  model.save_pretrained(folder)
  made.save_pretrained(folder)
  return folder


def numbers(*shape, seed=1):
  return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.5


@dataclass
class Example:
  """text: of question and answer. reward: of hidden states [T, H], tensors by name, ids. attributes: alike."""

  folder: str
  heads: dict[str, torch.Tensor]
  text: Callable[[str, str], str]
  reward: Callable[[torch.Tensor, dict[str, torch.Tensor], list[int]], Any]
  architecture: str = "LlamaForSequenceClassification"
  trunk: str = "llama"
  fields: dict[str, Any] = field(default_factory=dict)
  tokenizer: dict[str, Any] = field(default_factory=dict)
  causal: bool = False
  prefix: str = "model."
  attributes: Callable[[torch.Tensor, dict[str, torch.Tensor], list[int]], dict[str, float]] | None = None
  renamed: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] = dict
  sizes: dict[str, Any] = field(default_factory=dict)
  beside: tuple[str, ...] = ()
  """Prefixes of tensors in a pickle each, as in NAME.pt."""

  def write(self, root: Path) -> tuple[Path, Any, dict[str, torch.Tensor], Any]:
    """(its folder, the trunk, its heads by name, the tokenizer)."""
    made = tokenizer(**self.tokenizer)
    model, tensors = trunk(self.trunk, made, causal=self.causal, prefix=self.prefix, **self.sizes)
    fields = {"architectures": [self.architecture], **self.fields}
    content = self.renamed({**tensors, **self.heads})
    parts = {part: {n: content.pop(n) for n in list(content) if n.startswith(f"{part}.")} for part in self.beside}
    folder = save(root / self.folder, model.config, content, made, **fields)
    for part, own in parts.items():
      torch.save({name.removeprefix(f"{part}."): tensor for name, tensor in own.items()}, folder / f"{part}.pt")
    return folder, model, {**tensors, **self.heads}, made


def chatml(*turns):
  return "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)


def llama3(question, answer, bos=1):
  said = (("user", question), ("assistant", answer))
  return BOS * bos + "".join(
    f"<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>" for role, content in said
  )


def mlp(h, t, ids, at="score", last=-1):
  hidden = torch.relu(h[last] @ t[f"{at}.0.weight"].T + t[f"{at}.0.bias"])
  return hidden @ t[f"{at}.2.weight"].T + t[f"{at}.2.bias"]


def two_layers(at, width=HIDDEN):
  return {
        f"{at}.0.weight": numbers(width, HIDDEN), f"{at}.0.bias": numbers(width, seed=2),
        f"{at}.2.weight": numbers(1, width, seed=3), f"{at}.2.bias": numbers(1, seed=4),
    }  # fmt: skip


def gate_place(ids, made, opening="<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"):
  """The first token of the last place where the assistant's turn opens."""
  pattern = made(opening, add_special_tokens=False)["input_ids"]
  return max(i for i in range(len(ids)) if ids[i : i + len(pattern)] == pattern)


def gated(h, t, ids, quantiles=1):
  """(reward, attributes, attributes after the transform) of ArmoRM and QRM."""
  attributes = (t["regression_layer.weight"] @ h[-1]).reshape(-1, quantiles).mean(1)
  x = h[gate_place(ids, tokenizer(**LLAMA))]
  numbers = sorted({int(name.split(".")[2]) for name in t if name.startswith("gating.layers.")})
  for number in numbers:
    own = {name.rpartition(".")[2]: tensor for name, tensor in t.items() if name.startswith(f"gating.layers.{number}.")}
    if "running_mean" in own:
      x = (x - own["running_mean"]) / (own["running_var"] + 1e-5).sqrt() * own["weight"] + own["bias"]
    else:
      x = own["weight"] @ x + own.get("bias", 0.0)
      x = torch.relu(x) if number != numbers[-1] else x
  weights = torch.softmax(x / 10, 0) * t["gating.logit_scale"][0]
  adjusted = attributes @ t["reward_transform_matrix"]
  return (weights * adjusted).sum(), attributes, adjusted


def gated_gemma(h, t, ids, quantiles=3):
  """(reward, attributes) of QRM-Gemma: three times a layer, ReLU and a batch norm, then one layer; no temperature, no transform."""
  attributes = (t["regression_layer.weight"] @ h[-1]).reshape(-1, quantiles).mean(1)
  x = h[gate_place(ids, tokenizer(**GEMMA), "<end_of_turn>\n<start_of_turn>model\n")]
  for layer, norm in ((0, 2), (4, 6), (8, 10)):
    x = torch.relu(t[f"gating.layers.{layer}.weight"] @ x)
    own = {name: t[f"gating.layers.{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")}
    x = (x - own["running_mean"]) / (own["running_var"] + 1e-5).sqrt() * own["weight"] + own["bias"]
  x = t["gating.layers.11.weight"] @ x + t["gating.layers.11.bias"]
  return (torch.softmax(x, 0) * t["gating.logit_scale"][0] * attributes).sum(), attributes


def helpsteer(values):
  names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
  return {f"helpsteer-{name}": value.item() for name, value in zip(names, values, strict=False)}


def gate_layers(k):
  sizes = [(12, HIDDEN), (12, 12), (12, 12), (k, 12)]
  layers = {f"gating.layers.{i}.weight": numbers(*size, seed=20 + i) for i, size in enumerate(sizes)}
  return layers | {f"gating.layers.{i}.bias": numbers(size[0], seed=30 + i) for i, size in enumerate(sizes)}


def quantile_gate(k, places=(0, 3, 6), last=9):
  found = {}
  for i, size in zip(places, [(12, HIDDEN), (12, 12), (12, 12)], strict=True):
    found[f"gating.layers.{i}.weight"] = numbers(*size, seed=40 + i)
    for j, name in enumerate(("weight", "bias", "running_mean")):
      found[f"gating.layers.{i + 2}.{name}"] = numbers(12, seed=50 + i + j)
    found[f"gating.layers.{i + 2}.running_var"] = numbers(12, seed=60 + i).abs() + 0.1
    found[f"gating.layers.{i + 2}.num_batches_tracked"] = torch.tensor(7)
  return {
    **found,
    f"gating.layers.{last}.weight": numbers(k, 12, seed=70),
    f"gating.layers.{last}.bias": numbers(k, seed=71),
  }


def fused(tensors):
  """Llama's tensors under InternLM2's names, queries, key and value of each key head in one."""
  found = {}
  for name, tensor in tensors.items():
    for before, after in (
            ("model.embed_tokens.", "model.tok_embeddings."), (".self_attn.o_proj.", ".attention.wo."),
            (".mlp.gate_proj.", ".feed_forward.w1."), (".mlp.up_proj.", ".feed_forward.w3."),
            (".mlp.down_proj.", ".feed_forward.w2."), (".input_layernorm.", ".attention_norm."),
            (".post_attention_layernorm.", ".ffn_norm."),
        ):  # fmt: skip
      name = name.replace(before, after)
    found[name] = tensor
  for layer in range(2):
    q, k, v = (found.pop(f"model.layers.{layer}.self_attn.{part}_proj.weight") for part in "qkv")
    heads = []
    for key in range(2):  # two key heads of four numbers, two query heads each
      heads += [q[8 * key : 8 * key + 8], k[4 * key : 4 * key + 4], v[4 * key : 4 * key + 4]]
    found[f"model.layers.{layer}.attention.wqkv.weight"] = torch.cat(heads)
  return found


def layers(at, sizes, seed):
  """{number: (outputs, inputs)} -> linear layers at these numbers."""
  found = {f"{at}.{number}.weight": numbers(*size, seed=seed + number) for number, size in sizes.items()}
  return found | {f"{at}.{number}.bias": numbers(size[0], seed=seed + 10 + number) for number, size in sizes.items()}


def distributions(h, t, ids):
  """(reward, mean of each objective) of LDL, whose layers stand at these numbers."""

  def through(at, numbers):
    x = h[-1]
    for number in numbers:
      x = t[f"{at}.network.{number}.weight"] @ x + t[f"{at}.network.{number}.bias"]
      x = torch.nn.functional.leaky_relu(x) if number != numbers[-1] else x
    return x

  spread = torch.softmax(through("regression_layer", (0, 2, 4)).view(3, 10), -1)
  weights = through("gating_layer", (0, 3, 6))
  reward = ((weights @ spread) * torch.linspace(0, 1, 10)).sum()
  return reward, spread @ torch.linspace(0, 1, 10)


LLAMA = {"template": LLAMA3, "add_bos": True, "tokens": LLAMA3_TOKENS}
GEMMA2 = (
  "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role'])"
  " + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
GEMMA = {"template": GEMMA2, "add_bos": True, "tokens": ("<start_of_turn>", "<end_of_turn>")}
ONE = numbers(1, HIDDEN)


def last(name):
  return lambda h, t, ids: h[-1] @ t[name][0]


LABEL = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
BEAVER = {"score_dim": 1, "bias": False, "normalizer_type": "ExponentialMovingAverage", "momentum": 0.9}
NORMALIZER = {
    "normalizer.mean": torch.tensor([0.5]), "normalizer.var": torch.tensor([4.0]), "normalizer.count": torch.tensor([9]),
}  # fmt: skip


def beaver(q, a):
  return f"{BOS}BEGINNING OF CONVERSATION: USER: {q} ASSISTANT:{a}"


def qwen(system):
  return lambda q, a: chatml(("system", system), ("user", q), ("assistant", a))


EXAMPLES = {
    "skywork-v2": Example("Skywork-Reward-V2-Llama", {"score.weight": ONE}, llama3, last("score.weight"), tokenizer=LLAMA, fields=LABEL),
    "plain": Example(  # a template without BOS: the tokenizer's own is put there
        "FsfairX-LLaMA3-RM", {"score.weight": ONE}, lambda q, a: BOS + chatml(("user", q), ("assistant", a)),
        last("score.weight"), tokenizer={"add_bos": True}, fields=LABEL,
    ),
    "grm": Example(
        "GRM-Llama3-8B-rewardmodel-ft", {"score.weight": ONE}, lambda q, a: llama3(q, a, 2), last("score.weight"), tokenizer=LLAMA, fields=LABEL
    ),
    "qwen-math-rm": Example(
        "Qwen2.5-Math-RM-72B", two_layers("score"),
        qwen("Please reason step by step, and put your final answer within \\boxed{}."), mlp,
        "Qwen2ForRewardModel", "qwen2", {"auto_map": {"AutoModel": "modeling_qwen2_rm.Qwen2ForRewardModel"}}, causal=True,
    ),
    "qwen-rm": Example("WorldPM-72B", two_layers("score"), qwen(""), mlp, "Qwen2ForRewardModel", "qwen2"),
    "inf-orm": Example("INF-ORM", two_layers("score"), llama3, mlp, "INFORMForSequenceClassification", tokenizer=LLAMA),
    "internlm2": Example(
        "internlm2-1_8b-reward", {"v_head.weight": ONE},
        lambda q, a: chatml(("user", q), ("assistant", a)) + "[UNUSED_TOKEN_130]", last("v_head.weight"), "InternLM2ForRewardModel",
        fields={"model_type": "internlm2", "auto_map": {"AutoModel": "modeling_internlm2.InternLM2ForRewardModel"}, "bias": False},
        tokenizer={"tokens": ("[UNUSED_TOKEN_130]",)}, renamed=fused,
    ),
    "ultrarm": Example(
        "UltraRM-13b", {"regression_head.weight": ONE}, lambda q, a: f"{BOS}Human: {q}\n\nAssistant: {a}",
        lambda h, t, ids: h[-1] @ t["regression_head.weight"][0], "LlamaRewardModel", tokenizer={"add_bos": True, "template": None},
    ),
    "eurus-rm": Example(
        "Eurus-RM-7b", {"regression_head.weight": ONE}, lambda q, a: f"{BOS}[INST] {q} [/INST] {a}",
        lambda h, t, ids: h[-1] @ t["regression_head.weight"][0], "EurusRewardModel", "mistral",
        tokenizer={"add_bos": True, "template": None},
    ),
    "starling": Example(
        "Starling-RM-7B-alpha", {"v_head.weight": ONE}, lambda q, a: f"{BOS}<s>[INST] {q} </s> [/INST] {a}</s>", last("v_head.weight"),
        "GPTRewardModel", tokenizer={"add_bos": True, "template": None, "tokens": ("<s>", "</s>")}, prefix="transformer.",
    ),
    "starling-34b": Example(  # the size of its vocabulary tells it from the 7B's
        "Starling-RM-34B", {"v_head.weight": ONE}, lambda q, a: BOS + chatml(("user", q), ("assistant", a)), last("v_head.weight"),
        "LlamaForSequenceClassification", tokenizer={"add_bos": True}, prefix="transformer.", sizes={"vocab_size": 64_000},
    ),
    "athene": Example(
        "Athene-RM-8B", {"v_head.weight": ONE}, lambda q, a: llama3(q, a, 2) + "<|reserved_special_token_1|>", last("v_head.weight"),
        "AtheneForSequenceClassification", tokenizer=LLAMA,
    ),
    "beaver": Example(
        "beaver-7b-v1.0-reward", {"score_head.weight": ONE, **NORMALIZER}, beaver,
        lambda h, t, ids: (h[-1] @ t["score_head.weight"][0] - 0.5) / 2, "LlamaForScore",
        fields={**BEAVER, "score_type": "reward", "do_normalize": True}, tokenizer={"add_bos": True, "template": None},
    ),
    "beaver-cost": Example(
        "beaver-7b-v1.0-cost", {"score_head.weight": ONE, **NORMALIZER}, beaver,
        lambda h, t, ids: -(h[-1] @ t["score_head.weight"][0]), "LlamaForScore",
        fields={**BEAVER, "score_type": "cost", "do_normalize": False}, tokenizer={"add_bos": True, "template": None},
        attributes=lambda h, t, ids: {"cost": (h[-1] @ t["score_head.weight"][0]).item()},
    ),
    "oasst": Example(
        "oasst-rm-2.1-pythia", {"out_proj.weight": ONE, "out_proj.bias": numbers(1)},
        lambda q, a: f"<|prompter|>{q}<|endoftext|><|assistant|>{a}<|endoftext|>",
        lambda h, t, ids: h[-1] @ t["out_proj.weight"][0] + t["out_proj.bias"][0], "GPTNeoXRewardModel", "gpt_neox",
        {"model_type": "gpt_neox_reward_model", "pooling": "last"},
        {"template": None, "tokens": ("<|prompter|>", "<|assistant|>")}, prefix="gpt_neox.",
    ),
    "oasst-mean": Example(
        "oasst-rm-2-pythia", {"out_proj.weight": ONE, "out_proj.bias": numbers(1)},
        lambda q, a: f"<|prompter|>{q}<|endoftext|><|assistant|>{a}<|endoftext|>",
        lambda h, t, ids: h.mean(0) @ t["out_proj.weight"][0] + t["out_proj.bias"][0], "GPTNeoXRewardModel", "gpt_neox",
        {"model_type": "gpt_neox_reward_model", "pooling": "mean"},
        {"template": None, "tokens": ("<|prompter|>", "<|assistant|>")}, prefix="gpt_neox.",
    ),
    "grm-sftreg": Example(
        "GRM-llama3-8B-sftreg", two_layers("v_head.summary", 24), llama3, lambda h, t, ids: mlp(h, t, ids, "v_head.summary"),
        "LlamaForCausalLM", tokenizer=LLAMA, causal=True,
    ),
    "linear head": Example(
        "mine", {"v_head.summary.weight": ONE, "v_head.summary.bias": numbers(1)}, lambda q, a: chatml(("user", q), ("assistant", a)),
        lambda h, t, ids: h[-1] @ t["v_head.summary.weight"][0] + t["v_head.summary.bias"][0], "Qwen2ForCausalLM", "qwen2", causal=True,
    ),
    "reasonflux-orm": Example(
        "ReasonFlux-PRM-1.5B", {"reward_head.weight": ONE, "reward_head.bias": numbers(1)}, lambda q, a: BOS + q + a,
        lambda h, t, ids: torch.sigmoid(h[-1] @ t["reward_head.weight"][0] + t["reward_head.bias"][0]), "Qwen2ForCausalLM", "qwen2",
        tokenizer={"add_bos": True}, causal=True, beside=("reward_head",),
    ),
    "openrlhf": Example(
        "rm", {"score.weight": ONE}, lambda q, a: chatml(("user", q), ("assistant", a)),  # which ends with EOS but for a newline
        lambda h, t, ids: (h[-2] @ t["score.weight"][0] - 1.5) / 2, "RewardModel", "qwen2",
        {"value_head_prefix": "score", "normalize_reward": True, "mean": 1.5, "std": 2.0},
    ),
    "armorm": Example(
        "ArmoRM-Llama3-8B-v0.1",
        {"regression_layer.weight": numbers(19, HIDDEN), **gate_layers(19), "gating.logit_scale": torch.tensor([1.3]),
         "reward_transform_matrix": torch.eye(19) + 0.1 * numbers(19, 19)},
        llama3, lambda h, t, ids: gated(h, t, ids)[0], "LlamaForRewardModelWithGating", tokenizer=LLAMA,
        attributes=lambda h, t, ids: helpsteer(gated(h, t, ids)[1]),
    ),
    "qrm": Example(
        "QRM-Llama3.1-8B-v2",
        {"regression_layer.weight": numbers(5 * 3, HIDDEN), **quantile_gate(5), "gating.logit_scale": torch.tensor([0.7]),
         "reward_transform_matrix": torch.eye(5) + 0.1 * numbers(5, 5)},
        llama3, lambda h, t, ids: gated(h, t, ids, 3)[0], "LlamaForRewardModelWithGating31", fields={"num_quantiles": 3},
        tokenizer=LLAMA, attributes=lambda h, t, ids: helpsteer(gated(h, t, ids, 3)[2]),
    ),
    "qrm-gemma": Example(  # between the layers of its gate stands dropout, too
        "QRM-Gemma-2-27B",
        {"regression_layer.weight": numbers(5 * 3, HIDDEN), **quantile_gate(5, (0, 4, 8), 11), "gating.logit_scale": torch.tensor([1.3])},
        lambda q, a: f"{BOS}<start_of_turn>user\n{q}<end_of_turn>\n<start_of_turn>model\n{a}<end_of_turn>\n",
        lambda h, t, ids: gated_gemma(h, t, ids)[0], "Gemma2ForQuantileSequenceClassification", "gemma2",
        {"num_quantiles": 3, "auto_map": {"AutoModelForSequenceClassification": "modeling_custom.Gemma2ForQuantileSequenceClassification"}},
        GEMMA, attributes=lambda h, t, ids: helpsteer(gated_gemma(h, t, ids)[1]),
    ),
    "urm": Example(
        "URM-LLaMa-3.1-8B",
        {"score.weight": numbers(10, HIDDEN), **{
            f"weights.fc.{i}.{part}": numbers(*((5 if i == 4 else HIDDEN), HIDDEN)[: 2 if part == "weight" else 1], seed=80 + i)
            for i in (0, 2, 4) for part in ("weight", "bias")
        }},
        lambda q, a: llama3(q, a, 2),
        lambda h, t, ids: (
            (t["score.weight"] @ h[-1])[::2] * torch.nn.Sequential(*(  # an affine map, SELU, ...
                part for i in (0, 2, 4) for part in (Affine(t, f"weights.fc.{i}"), *([torch.nn.SELU()] if i < 4 else []))
            ))(h[-1])
        ).sum(),
        "LlamaForSequenceClassificationWithNormal_Weights", fields={"num_labels": 10}, tokenizer=LLAMA,
        attributes=lambda h, t, ids: helpsteer((t["score.weight"] @ h[-1])[::2]),
    ),
    "urm-fixed": Example(
        "URM-LLaMa-3-8B", {"score.weight": numbers(10, HIDDEN)}, lambda q, a: llama3(q, a, 2),
        lambda h, t, ids: (t["score.weight"] @ h[-1])[::2] @ torch.tensor([0.3, 0.74, 0.46, 0.47, -0.33]),
        "LlamaForSequenceClassificationWithNormal", tokenizer=LLAMA,
    ),
    "ldl": Example(
        "LDL-Reward-Gemma-2-27B-v0.1",
        {**layers("regression_layer.network", {0: (12, HIDDEN), 2: (12, 12), 4: (30, 12)}, 100),
         **layers("gating_layer.network", {0: (12, HIDDEN), 3: (12, 12), 6: (3, 12)}, 200)},
        lambda q, a: BOS + chatml(("user", q), ("assistant", a)), lambda h, t, ids: distributions(h, t, ids)[0],
        "Gemma2ForSequenceClassification", "gemma2", {"num_objectives": 30}, {"add_bos": True}, prefix="",
        attributes=lambda h, t, ids: {f"objective-{i + 1}": x.item() for i, x in enumerate(distributions(h, t, ids)[1])},
        beside=("regression_layer", "gating_layer"),
    ),
    "skywork-vl": Example(
        "Skywork-VL-Reward-7B", {"v_head.summary.weight": ONE, "v_head.summary.bias": numbers(1)},
        lambda q, a: chatml(("user", q), ("assistant", a)),
        lambda h, t, ids: h[-1] @ t["v_head.summary.weight"][0] + t["v_head.summary.bias"][0], "Qwen2_5_VLForConditionalGeneration",
        "qwen2_5_vl_text", {"model_type": "qwen2_5_vl"}, renamed=lambda t: {**t, "visual.patch_embed.proj.weight": torch.ones(2, 2)},
        sizes={"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 0]}},
    ),
    "polar": Example(
        "POLAR-1_8B", {"v_head.weight": ONE}, lambda q, a: f"{BOS}{q}\n{REFERENCE}<|reward|>{q}\n{a}[UNUSED_TOKEN_130]",
        last("v_head.weight"), "InternLM2ForRewardModel", fields={"model_type": "internlm2", "bias": False},
        tokenizer={"add_bos": True, "template": None, "tokens": ("<|reward|>", "[UNUSED_TOKEN_130]")}, renamed=fused,
    ),
    "nemotron": Example(
        "Llama-3.1-Nemotron-70B-Reward-HF", {}, llama3, lambda h, t, ids: h[-1] @ t["lm_head.weight"][0], "LlamaForCausalLM",
        tokenizer=LLAMA, causal=True,
    ),
    "nemotron-qwen3": Example(
        "Qwen-3-Nemotron-32B-Reward", {},
        lambda q, a: chatml(("user", f"{q} /nothink"), ("assistant", f"<think>\n\n</think>\n\n{a}")),
        lambda h, t, ids: h[-1] @ t["lm_head.weight"][0], "Qwen3ForCausalLM", "qwen3", causal=True,
    ),
    "nemotron-principle": Example(
        "Llama-3.3-Nemotron-70B-Reward-Principle", {},
        lambda q, a: llama3(q, a)
        + "<|start_header_id|>user<|end_header_id|>\n\nEvaluate the response to the previous prompt in terms of whether it satisfies "
        "this principle: correctness. Only answer Yes or No.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        lambda h, t, ids: h[-1] @ (lambda made: t["lm_head.weight"][made.convert_tokens_to_ids("Yes")] - t["lm_head.weight"][
            made.convert_tokens_to_ids("No")])(tokenizer(**YES)),
        "LlamaForCausalLM", tokenizer={**LLAMA, "tokens": (*LLAMA3_TOKENS, "Yes", "No")}, causal=True,
    ),
    "rlhflow-orm": Example(
        "Llama3.1-8B-ORM-Mistral-Data", {},
        lambda q, a: f"{BOS}<|start_header_id|>user<|end_header_id|>\n\n{q} {a}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        lambda h, t, ids: torch.softmax(h[-1] @ t["lm_head.weight"][tokenizer(**LLAMA).convert_tokens_to_ids(["+", "-"])].T, 0)[0],
        "LlamaForCausalLM", tokenizer=LLAMA, causal=True,
    ),
}  # fmt: skip
YES = {**LLAMA, "tokens": (*LLAMA3_TOKENS, "Yes", "No")}


class Affine(torch.nn.Module):
  def __init__(self, tensors, name):
    super().__init__()
    self.weight, self.bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]

  def forward(self, x):
    return self.weight @ x + self.bias
