"""Which models may be run on packed rows (`attention`): those that give there the rewards of one at a time.

Others would be wrong in silence: only full or sliding attention will do, and a shrunken random float64 copy must pass.
"""

import contextlib
import copy
import math
from typing import Any

import torch

from . import attention
from .attention import (
  PackedInputs,
  UnsupportedAttentionError,
  language_logits,
  outputs_at,
  packed_inputs,
  shared_prefix,
)
from .heads import head_name
from .hf import Config, Model
from .packing import PackedRow, pack_together

LAYER_TYPES = frozenset(("full_attention", "sliding_attention"))
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.05}
"""In float64 transformers' fp32 norms leave 1e-7, and wrong models differ by 1e-4. The others only check the device."""
SHORT_WINDOW = 6
VOCABULARY_SIZE = 64
FLASH_BLOCK = 128


def reason_against(model: Model, wanted: bool | None = None, scored_at: str = "last_token") -> str | None:
  """None when it is run on them. Takes about a tenth of a second.

  wanted: True on a GPU, where a small model in this precision must pass too. None there leaves open what is faster.
  """
  if why := getattr(model, "why_padded", None):
    return why
  if scored_at == "prefix":
    return "it reads in both directions, as encoders do"
  if wanted is False:
    return "--shared_prefix false asks for it"
  config, weights = model.config.get_text_config(), next(model.parameters())
  no_score = model.base_model is model or model.get_output_embeddings() is not None  # a trunk, a language model
  by_token = no_score or hasattr(model, "score") or type(model).__name__.endswith("ForTokenClassification")
  if scored_at == "pooled" or not by_token or not hasattr(model, "base_model_prefix"):
    return "it reads its score from the whole text"
  device, flashes = weights.device.type, attention.flashes(weights.device)
  if device != "cpu" and not flashes:
    return "it does not run on this device"
  if flashes and wanted is None and getattr(config, "attn_logit_softcapping", None):
    return "it caps attention scores, which FlashAttention does not (try --shared_prefix true)"
  if foreign := set(getattr(config, "layer_types", None) or ()) - LAYER_TYPES:
    return f"it has layers of the type {', '.join(sorted(foreign))}"
  likes = {"": torch.empty(0, dtype=torch.float64)}
  if flashes and wanted:
    half = weights.dtype if weights.dtype in attention.FLASH_DTYPES else torch.bfloat16  # as autocast makes it
    likes[f" on {device}"] = torch.empty(0, dtype=half, device=weights.device)
  for where, like in likes.items():
    try:
      difference = self_check(text_class(model), config, like)
    except UnsupportedAttentionError as error:
      return f"its attention asks for {error}"
    except Exception as error:
      return f"a small model of its class could not be checked{where} ({type(error).__name__})"
    if not difference <= TOLERANCES[like.dtype]:
      return f"a small model of its class gives other rewards on packed rows{where} (by {difference:.0e})"
  return None


def text_class(model: Model) -> type:
  """Of a model of text and images the class of its text alone, which is all that runs on packed rows; of a trunk a
  classifier's."""
  import transformers

  config = model.config.get_text_config()
  if config is model.config and model.base_model is not model:
    return type(model)
  of_tokens = type(model).__name__.endswith("ForTokenClassification")
  kind = "TOKEN" if of_tokens else "SEQUENCE"
  return getattr(transformers, f"MODEL_FOR_{kind}_CLASSIFICATION_MAPPING")[type(config)]


def self_check(model_class: type, config: Config, like: torch.Tensor) -> float:
  """Largest difference of rewards, relative to their spread, of a shrunken model of the precision and device of `like`.

  Where FlashAttention runs, heads keep their width and sequences fill several of its blocks: both choose the kernel.
  """
  length, width = 12, 16
  if attention.flashes(like.device):
    length = min(FLASH_BLOCK, (getattr(config, "max_position_embeddings", None) or 3 * FLASH_BLOCK) // 3)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
  config = shrunken(config, width)
  with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    model = model_class(config).eval()
    for parameter in model.parameters():
      if parameter.dim() > 1:
        torch.nn.init.normal_(parameter, std=1 / math.sqrt(parameter.shape[-1]))
    sequences = _sequences(length)
  model = model.to(like.device, like.dtype)
  row = pack_together(sequences)
  inputs = packed_inputs(row, like.device)
  with torch.no_grad():
    # A sequence classifier has one logit, others are read at the last token.
    logits = [model(input_ids=torch.tensor([own], device=model.device)).logits for own in sequences]
    alone = torch.stack([own.reshape(-1, own.shape[-1])[-1, 0] for own in logits])
    packed = torch.empty_like(alone)
    with shared_prefix(model):
      packed[row.sequences] = _outputs(model, row, inputs)[:, 0].to(packed.dtype)
  if missing := config.num_hidden_layers - len(inputs["layout"].callers):
    raise UnsupportedAttentionError(f"nothing in {missing} of its layers")
  return ((packed - alone).abs().max() / alone.std()).item()


def _outputs(model: Model, row: PackedRow, inputs: PackedInputs) -> torch.Tensor:
  if model.get_output_embeddings() is None:
    return outputs_at(model, getattr(model, head_name(model)), row, row.ends, inputs)
  inputs = {name: part.to(model.device) for name, part in inputs.items()}
  ends = torch.tensor(row.ends, device=model.device)
  return language_logits(model, inputs, 0 * ends, ends)[0]


def shrunken(config: Config, head_dim: int = 16) -> Any:
  """Every layer type is there, heads are grouped as they were."""
  small = copy.deepcopy(config)
  kinds = list(getattr(config, "layer_types", None) or ())
  layers = max((kinds.index(kind) + 1 for kind in kinds), default=2)
  layers = max(2, min(layers, config.num_hidden_layers))
  heads = config.num_attention_heads
  groups = max(1, heads // (getattr(config, "num_key_value_heads", None) or heads))
  widths = ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size")
  sizes = {
    **{"vocab_size": VOCABULARY_SIZE, "num_hidden_layers": layers, "query_pre_attn_scalar": 16},
    **{"num_attention_heads": 2 * groups, "num_key_value_heads": 2, "head_dim": head_dim},
    **{"hidden_size": 2 * head_dim * groups, **dict.fromkeys(widths, 32)},
    **{"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": SHORT_WINDOW},
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0),
  }
  for name, size in sizes.items():
    if getattr(small, name, None) is not None:
      with contextlib.suppress(AttributeError):  # a property of some configs, derived from the others
        setattr(small, name, size)
  if kinds:
    small.layer_types = kinds[:layers]
  rope = getattr(small, "rope_parameters", None) or {}
  if sections := rope.get("mrope_section"):  # of the half of a head, for time, height and width
    small.rope_parameters = rope | {"mrope_section": [one * head_dim // (2 * sum(sections)) for one in sections]}
  small.num_labels = 1
  # The fast paths of expert layers take no float64.
  small._experts_implementation = "eager"
  return small


def _sequences(length: int) -> list[list[int]]:
  """They share prefixes at two depths, longer than the window; one is a prefix of another."""
  drawn = torch.randint(1, VOCABULARY_SIZE, (5, length)).tolist()
  stem, left, right = drawn[0], drawn[0] + drawn[1], drawn[0] + drawn[2]
  return [stem, left, left + drawn[3], left + drawn[4][:3], right, drawn[4]]
