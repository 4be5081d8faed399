"""What training takes of a device's memory, from the config alone: tensors without numbers go through one forward pass."""

from dataclasses import replace
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ..hf import Config, LoraConfig, Model
from ..kinds import OUTCOME
from ..lengths import DEFAULT_MAX_LENGTH, positions
from ..pretrained import read_config
from ..terminal import log
from . import configuration, loop, sharding
from .data import Learner
from .results import Memory, MemoryEstimate
from .settings import Settings

NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a parameter: four bits, a byte for the scale of 64, and a number in fp32 for the scale of 256 of these."""


def estimate(kind: Learner, settings: Settings) -> MemoryEstimate:
  """For the flags of a run, on --estimate_memory devices: a batch of the longest rows, without shared prefixes."""
  devices, bf16 = settings.estimate_memory, settings.bf16 is not False
  config = read_config(settings.model_name_or_path)
  config.num_labels, config.pad_token_id = len(kind.model.labels), 0
  config.get_text_config().pad_token_id = 0
  model = _model(kind, config)
  parameters, most = model.num_parameters(), positions(model)
  lora = configuration.lora_of(replace(settings, use_peft=True, lora_dropout=0.0), model)
  chosen, _ = configuration.default_arguments(parameters, settings.use_peft)
  chosen |= {name: value for name in chosen if (value := getattr(settings, name)) is not None}
  sequences = chosen["per_device_train_batch_size"] * (2 if kind.model is OUTCOME else 1)
  length = min(settings.max_length or DEFAULT_MAX_LENGTH, most or DEFAULT_MAX_LENGTH)
  how = {"sequences": sequences, "length": length, "bf16": bf16}
  found = {}
  for name, adapter in (("full", None), ("lora", lora)):
    model = _model(kind, config, adapter)
    kept = _kept(model, **how)
    if chosen["gradient_checkpointing"]:  # what is kept, and one layer's while it is repeated
      kept //= config.get_text_config().num_hidden_layers
      model.gradient_checkpointing_enable()
      model.enable_input_require_grads()  # of a frozen embedding
      kept += _kept(model, **how)
    found[name] = _memory(model, kept, devices)
    if adapter:
      found["qlora"] = _memory(model, kept, devices, in_4bit=True)
    if devices > 1:
      found[f"{name}_fsdp"] = _memory(model, kept, devices, computed_in=2 if bf16 else 4)
  for name, memory in found.items():
    log(f"{name}: {memory.total / 1e9:.1f} GB on each of {devices} device(s)")
  how["gradient_checkpointing"] = chosen["gradient_checkpointing"]
  return MemoryEstimate(parameters=parameters, devices=devices, **how, bytes_per_device=found)


def _model(kind: Learner, config: Config, lora: LoraConfig | None = None) -> Model:
  with torch.device("meta"):
    model = kind.model.auto_class.from_config(config, dtype=torch.float32, trust_remote_code=False).train()
  loop.without_dropout(model)
  if lora:
    from peft import get_peft_model

    model = get_peft_model(model, lora)
  return model


def _kept(model: Model, sequences: int, length: int, bf16: bool) -> int:
  """Bytes that autograd keeps for the backward pass. Tensors without numbers go the ways of real ones on a CPU, autocast and
  fused attention among them, but for a mask that transformers makes where it cannot read positions.
  """
  kept: dict[int, torch.UntypedStorage] = {}  # which live on, or another would get the number of one

  def keep(tensor: torch.Tensor) -> torch.Tensor:
    storage = tensor.untyped_storage()
    kept[storage._cdata] = storage
    return tensor

  with FakeTensorMode(), mock.patch("transformers.masking_utils.find_packed_sequence_indices", lambda *_: None):
    model = sharding.copied(model, lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype), buffers=True)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
      model(input_ids=torch.ones(sequences, length, dtype=torch.long), use_cache=False)
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
  return sum(storage.nbytes() for number, storage in kept.items() if number not in own)


def _memory(model: Model, activations: int, devices: int, *, in_4bit: bool = False, computed_in: int = 0) -> Memory:
  """computed_in: bytes of a number while a layer is whole, of a sharded model."""
  count, trained = _size(model), [one.numel() for one in model.parameters() if one.requires_grad]
  weights, gradients, parts = 4 * count, 4 * sum(trained), devices if computed_in else 1
  working = gradients if devices > 1 else 0  # DDP's buckets
  if in_4bit:  # all but the head, of one or two outputs
    linear = [one for one in model.modules() if isinstance(one, torch.nn.Linear)]
    frozen = [one.weight.numel() for one in linear if one.out_features > 2 and not one.weight.requires_grad]
    weights, working = int(weights - (4 - NF4) * sum(frozen)), working + 4 * max(frozen)
  if computed_in:  # this layer and the next, or the embeddings
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    layers = [_size(layer) for layers in lists for layer in layers]
    working = computed_in * max(2 * max(layers), model.get_input_embeddings().weight.numel())
  optimizer = 8 * sum(trained) // parts + 4 * len(trained)  # AdamW: two moments, and a step for each tensor
  own = (weights // parts, gradients // parts, optimizer, activations, working)
  return Memory(*own, total=sum(own))


def _size(module: torch.nn.Module) -> int:
  return sum(map(torch.numel, module.parameters()))
