"""Tiny random checkpoints that look as published process, pairwise and implicit reward models do.

Names of files, tensors and config fields are the real ones; sizes are tiny. Each entry of MODELS writes one folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

QWEN_TEMPLATE = (
  "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nPlease reason step by step, and put your final answer "
  "within \\boxed{}.<|im_end|>\n{% endif %}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + "
  "message['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_TEMPLATE = (
  "{{ bos_token }}{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}"
  "{{ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: ' + date_string + "
  "'\n\n<|eot_id|>' }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + "
  "message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# That of Qwen2 and, but for how many digits stand together, of Llama 3.
WORDS = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXT = [
  "What is the sum of two and three and four? First add two and three, which gives five. + - Step 1: then add four.",
  "user assistant system the answer is nine \n\n so \n\n\n\n and \n\n\n\n\n here A B : . \n\n \n\n \n\n\n\n \n\n\n\n\n",
] * 3
SIZES = {
  "hidden_size": 32,
  "num_hidden_layers": 2,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "intermediate_size": 64,
  "max_position_embeddings": 512,
}


def byte_level(special: list[str], template: str, *, bos: str | None = None, eos: str):
  """A byte-level BPE with the pre-tokenizer of Qwen2 and Llama 3; `bos` is put before every text, as Llama's is."""
  from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
  from transformers import PreTrainedTokenizerFast

  tokenizer = Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(Regex(WORDS), "isolated"),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  tokenizer.decoder = decoders.ByteLevel()
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  tokenizer.train_from_iterator(
    TEXT,
    trainers.BpeTrainer(vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
  )
  if bos:
    tokenizer.post_processor = processors.TemplateProcessing(
      single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
  names = {"bos_token": bos} if bos else {}
  wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, pad_token=special[0], **names)
  wrapped.chat_template = template
  return wrapped


def qwen_tokenizer():
  special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>"]
  return byte_level(special, QWEN_TEMPLATE, eos="<|im_end|>")


def skywork_tokenizer():
  made = qwen_tokenizer()
  made.bos_token = "<|endoftext|>"
  return made


def llama_tokenizer():
  special = ["<|end_of_text|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
  return byte_level(special, LLAMA_TEMPLATE, bos="<|begin_of_text|>", eos="<|eot_id|>")


def mistral_tokenizer(pad="</s>"):
  """As SentencePiece: a blank before the text, blanks as U+2581, and bytes for what has no token."""
  from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
  from transformers import PreTrainedTokenizerFast

  special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
  trained = Tokenizer(models.BPE(unk_token="<unk>"))
  trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
  text = [line.replace("\n", " ") + " ки ки + - ки" for line in TEXT] * 4
  trained.train_from_iterator(text, trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False))
  state = json.loads(trained.to_str())
  state["model"]["byte_fallback"], state["pre_tokenizer"] = True, None
  state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < 3]
  tokenizer = Tokenizer.from_str(json.dumps(state))
  tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
  tokenizer.decoder = decoders.Sequence(
    [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
  )
  tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
  return PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token=pad
  )


def t5_tokenizer():
  """It puts EOS after every text."""
  from tokenizers import processors

  made = byte_level(["<pad>", "</s>"], None, eos="</s>")
  made._tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
  return made


def deberta_tokenizer():
  """Words with [CLS] and [SEP] around each text, and the three marks that PairRM added."""
  from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
  from transformers import PreTrainedTokenizerFast

  special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
  tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
  tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
  tokenizer.train_from_iterator(
    TEXT, trainers.WordLevelTrainer(vocab_size=200, special_tokens=special, show_progress=False)
  )
  tokenizer.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
  )
  wrapped = PreTrainedTokenizerFast(
    tokenizer_object=tokenizer,
    **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "cls", "sep", "unk", "mask")},
  )
  wrapped.add_special_tokens(
    {"additional_special_tokens": ["<|source|>", "<|candidate|>", "<|candidate1|>", "<|candidate2|>"]}
  )
  return wrapped


def saved(folder: Path, tokenizer, config: dict, weights: dict) -> Path:
  from safetensors.torch import save_file

  folder.mkdir(parents=True, exist_ok=True)
  (folder / "config.json").write_text(json.dumps(config, indent=2))
  save_file(
    {name: tensor.contiguous().clone() for name, tensor in weights.items()},
    folder / "model.safetensors",
    {"format": "pt"},
  )
  tokenizer.save_pretrained(folder)
  settings = folder / "tokenizer_config.json"  # as older versions write and read it
  fields = json.loads(settings.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
  if extra := fields.pop("extra_special_tokens", None):
    fields["additional_special_tokens"] = extra
  settings.write_text(
    json.dumps(fields | ({"chat_template": tokenizer.chat_template} if tokenizer.chat_template else {}))
  )
  return folder


def trunk(model_type: str, vocabulary: int, seed: int, **fields):
  """(config as JSON, weights of its causal language model) with random weights large enough to tell texts apart."""
  import torch
  from transformers import AutoConfig, AutoModelForCausalLM

  sizes = {**SIZES, "vocab_size": vocabulary, "initializer_range": 0.2, "rms_norm_eps": 1e-6, **fields}
  torch.manual_seed(seed)
  model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes))
  return {"model_type": model_type, **sizes}, model.state_dict()


def linear(seed: int, **shapes):
  """Random tensors of a head, by name ("__" for a point) and shape."""
  import torch

  torch.manual_seed(seed + 1)
  return {name.replace("__", "."): torch.randn(shape) * 0.3 for name, shape in shapes.items()}


def causal(architecture: str, model_type: str, tokenizer: Callable) -> Callable[[Path], Path]:
  """A maker of a plain language model, whose tokens are the labels."""

  def make(folder: Path, seed: int = 0) -> Path:
    made = tokenizer()
    config, weights = trunk(model_type, len(made) + 3, seed)
    return saved(folder, made, {"architectures": [architecture], **config}, weights)

  return make


def headed(
  architecture: str,
  model_type: str,
  tokenizer: Callable,
  *,
  keep_lm_head: bool = False,
  fields: dict | None = None,
  **shapes,
) -> Callable[[Path], Path]:
  """A maker of a trunk with another head, of these tensors."""

  def make(folder: Path, seed: int = 0) -> Path:
    made = tokenizer()
    config, weights = trunk(model_type, len(made) + 3, seed)
    kept = {name: value for name, value in weights.items() if keep_lm_head or not name.startswith("lm_head")}
    return saved(
      folder,
      made,
      {"architectures": [architecture], **config, **(fields or {})},
      {**kept, **linear(seed, **shapes)},
    )

  return make


def pair_rm(folder: Path, seed: int = 0) -> Path:
  import torch
  from transformers import DebertaV2Config, DebertaV2Model

  made, hidden = deberta_tokenizer(), SIZES["hidden_size"]
  fields = {
    **{name: value for name, value in SIZES.items() if name != "num_key_value_heads"},
    "vocab_size": len(made) + 3,
    "initializer_range": 0.2,
    "type_vocab_size": 0,
    "relative_attention": True,
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "max_relative_positions": -1,
    "position_biased_input": False,
    "layer_norm_eps": 1e-7,
  }
  torch.manual_seed(seed)
  weights = DebertaV2Model(DebertaV2Config(**fields)).state_dict()
  weights = {f"pretrained_model.{name}": value for name, value in weights.items()}
  marks = dict(
    zip(("source", "cand", "cand1", "cand2"), ("source", "candidate", "candidate1", "candidate2"), strict=True)
  )
  config = {
    "architectures": ["DebertaV2PairRM"],
    "model_type": "deberta-v2",
    **fields,
    "n_tasks": 1,
    "drop_out": 0.05,
    "sep_token_id": made.sep_token_id,
    **{f"{name}_prefix_id": made.convert_tokens_to_ids(f"<|{mark}|>") for name, mark in marks.items()},
  }
  shapes = {
    "head_layer__1__weight": (hidden, 2 * hidden),
    "head_layer__1__bias": (hidden,),
    "head_layer__4__weight": (1, hidden),
    "head_layer__4__bias": (1,),
  }
  return saved(folder, made, config, {**weights, **linear(seed, **shapes)})


def steam_shp(folder: Path, seed: int = 0) -> Path:
  import torch
  from transformers import T5Config, T5ForConditionalGeneration

  made = t5_tokenizer()
  sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": len(made) + 3}
  more = {"feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0, "n_positions": 512, "initializer_factor": 2.5}
  fields = {**sizes, **more, "tie_word_embeddings": False, "pad_token_id": 0, "eos_token_id": 1}
  torch.manual_seed(seed)
  model = T5ForConditionalGeneration(T5Config(**fields))
  config = {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "is_encoder_decoder": True, **fields}
  own = model.state_dict()
  own["lm_head.weight"] *= 0.05  # so that neither token is sure
  return saved(folder, made, config, own)


MLP = {"score__0__weight": (32, 32), "score__0__bias": (32,), "score__2__weight": (2, 32), "score__2__bias": (2,)}
MODELS: dict[str, Callable[[Path], Path]] = {
  "Qwen/Qwen2.5-Math-PRM-7B": headed(
    "Qwen2ForProcessRewardModel",
    "qwen2",
    qwen_tokenizer,
    keep_lm_head=True,
    fields={"auto_map": {"AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel"}, "num_labels": 2},
    **MLP,
  ),
  "GAIR/ReasonEval-7B": headed(
    "ReasonEval_7B",
    "mistral",
    lambda: mistral_tokenizer("<s>"),
    fields={"score_dimension": 3, "use_bias": True},
    score_head__weight=(3, 32),
    score_head__bias=(3,),
  ),
  "GAIR/ReasonEval-34B": headed(
    "ReasonEval_34B", "llama", mistral_tokenizer, fields={"score_dim": 3, "bias": False}, score_head__weight=(3, 32)
  ),
  "Gen-Verse/ReasonFlux-PRM-7B": headed("Qwen2ForProcessRewardModel", "qwen2", qwen_tokenizer, **MLP),
  "Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B": headed(
    "Qwen2ForPrmModel",
    "qwen2",
    skywork_tokenizer,
    keep_lm_head=True,
    v_head__summary__weight=(1, 32),
    v_head__summary__bias=(1,),
  ),
  "jinachris/PURE-PRM-7B": headed(
    "Qwen2ForTokenClassification", "qwen2", qwen_tokenizer, fields={"auto_map": {"AutoModel": "x.Y"}}, **MLP
  ),
  "HuggingFaceH4/Qwen2.5-Math-1.5B-Instruct-PRM-0.2": headed(
    "Qwen2ForTokenClassification", "qwen2", qwen_tokenizer, score__weight=(2, 32), score__bias=(2,)
  ),
  "peiyi9979/math-shepherd-mistral-7b-prm": causal("MistralForCausalLM", "mistral", mistral_tokenizer),
  "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data": causal("LlamaForCausalLM", "llama", llama_tokenizer),
  "UW-Madison-Lee-Lab/VersaPRM": causal("LlamaForCausalLM", "llama", llama_tokenizer),
  "openreasoner/Math-psa": causal("Qwen2ForCausalLM", "qwen2", qwen_tokenizer),
  "PRIME-RL/EurusPRM-Stage2": causal("Qwen2ForCausalLM", "qwen2", qwen_tokenizer),
  "Qwen/Qwen2.5-Math-7B-Instruct": causal("Qwen2ForCausalLM", "qwen2", qwen_tokenizer),
  "llm-blender/PairRM-hf": pair_rm,
  "stanfordnlp/SteamSHP-flan-t5-large": steam_shp,
  "general-preference/GPM-Llama-3.1-8B": headed(
    "LlamaForCausalLM",
    "llama",
    llama_tokenizer,
    keep_lm_head=True,
    value_head__weight=(6, 32),
    prompt_head__weight=(3, 32),
  ),
  "RLHFlow/pair-preference-model-LLaMA3-8B": causal("LlamaForCausalLM", "llama", llama_tokenizer),
}
"""Published id -> a maker of a folder that looks alike: MODELS[id](folder, seed=0)."""
