"""QLoRA (arXiv:2305.14314): frozen weights in 4 bits in training, a plain fp32 model at the end."""

import os

from .heads import HEAD_NAMES, unwrapped
from .hf import Dtype, LoraConfig, Model, Module


def loading() -> dict[str, object]:
  """Arguments of `from_pretrained`. The head stays fp32."""
  import torch
  from transformers import BitsAndBytesConfig

  config = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=torch.float32,
    llm_int8_skip_modules=list(HEAD_NAMES),
  )
  device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
  return {"quantization_config": config, "device_map": {"": device}}


def is_quantized(model: Model) -> bool:
  return getattr(unwrapped(model), "quantization_method", None) is not None


def compute_in(model: Model, dtype: Dtype) -> None:
  for module in model.modules():
    if _in_4bit(module):
      module.compute_dtype = dtype
      module.support_avx512bf16_for_cpu = False  # it would round the scales
      if module.bias is not None:  # else cast at its next use, perhaps in inference mode
        module.bias.data = module.bias.data.to(dtype)


def with_adapter(model: Model, lora: LoraConfig) -> Model:
  """Its adapter and head stay fp32: TRL would round both to bf16."""
  from peft import get_peft_model

  model = get_peft_model(model, lora)
  unwrapped(model).is_loaded_in_4bit = False
  return model


def merged(model: Model) -> Model:
  """The plain fp32 model, on the CPU: PEFT would round the merged weights to 4 bits once more."""
  import torch
  from bitsandbytes.functional import dequantize_4bit

  changes = {
    id(layer.base_layer): sum(layer.get_delta_weight(name).cpu() for name in layer.active_adapters)
    for layer in model.modules()
    if hasattr(layer, "get_delta_weight") and _in_4bit(layer.base_layer)
  }
  base = model.unload()
  for name, layer in [(name, module) for name, module in base.named_modules() if _in_4bit(module)]:
    weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float().cpu()
    plain = torch.nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
    plain.weight = torch.nn.Parameter(weight + changes.get(id(layer), 0.0))
    if layer.bias is not None:
      plain.bias = torch.nn.Parameter(layer.bias.float().cpu())
    base.set_submodule(name, plain)
  base.hf_quantizer.remove_quantization_config(base)
  return base.float().to("cpu")


def _in_4bit(module: Module) -> bool:
  return hasattr(getattr(module, "weight", None), "quant_state")
