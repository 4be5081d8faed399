"""Small models of many architectures, with weights large enough that every part of them matters."""

import torch

SMALL = {
    "vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256, "pad_token_id": 0, "num_labels": 1,
    "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
GOOD = {
  "qwen2": {},
  "qwen2 with a window": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
  "qwen3": {},
  "llama": {},
  "mistral": {"sliding_window": 5},
  "gemma2": {"sliding_window": 5, "query_pre_attn_scalar": 16},
  "gemma3_text": {"sliding_window": 5, "query_pre_attn_scalar": 16},
  "phi3": {},
  "gpt2": {},
  "gpt_neox": {},
  "olmo2": {},
  "smollm3": {},
  "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
  "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
}
WRONG = {
  "falcon": {"num_kv_heads": 4, "new_decoder_architecture": False},
  "bloom": {},
  "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 5},
  "qwen3_next": {"num_experts": 4, "num_experts_per_tok": 2, "linear_num_value_heads": 4, "linear_num_key_heads": 2},
  "jamba": {"num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
}


class Norm(torch.nn.Module):
  """RMSNorm in the precision of its input: transformers' is fp32."""

  def __init__(self, old):
    super().__init__()
    self.weight, self.epsilon = old.weight, old.variance_epsilon

  def forward(self, x):
    return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon)


def exact(model):
  """A float64 Qwen2 in which what is left is only the order of additions."""
  for parent in list(model.modules()):
    for child, module in list(parent.named_children()):
      if type(module).__name__ == "Qwen2RMSNorm":
        setattr(parent, child, Norm(module))
  return model


def build(name, fields, dtype=torch.float64, seed=0, auto="AutoModelForSequenceClassification", labels=1):
  import transformers
  from transformers import AutoConfig

  family = name.split()[0]
  sizes = {name: value for name, value in SMALL.items() if (family, name) != ("falcon", "head_dim")}
  config = AutoConfig.for_model(family, **{**sizes, **fields})
  config._experts_implementation = "eager"  # the fast paths take no float64
  config.pad_token_id, config.num_labels = 0, labels
  torch.manual_seed(seed)
  model = getattr(transformers, auto).from_config(config).to(dtype).eval()
  for parameter in model.parameters():
    if parameter.dim() > 1:
      torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
  return model
