"""What training takes of a device's memory, from the config alone: tensors without numbers go through one forward pass."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ..heads import head_name, unwrapped
from ..kinds import OUTCOME
from ..lengths import DEFAULT_MAX_LENGTH, positions
from ..pretrained import read_config
from ..terminal import log
from . import configuration, loop
from .results import Memory, MemoryEstimate

if TYPE_CHECKING:
    from peft import LoraConfig

    from ..hf import Config, Model
    from .pairs import Pairs
    from .settings import Settings
    from .steps import StepLabels

ADAM = 8
"""Bytes of a trained parameter: two moments in fp32. Beside them each tensor has a step, of four bytes."""
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a parameter: four bits, a byte for the scale of 64, and a number in fp32 for the scale of 256 of these."""


def estimate(kind: Pairs | StepLabels, settings: Settings) -> MemoryEstimate:
    """For the flags of a run, on --estimate_memory devices: a batch of the longest rows, without shared prefixes."""
    devices, bf16 = settings.estimate_memory, settings.bf16 is not False
    config = read_config(settings.model_name_or_path)
    config.num_labels, config.pad_token_id = len(kind.model.labels), 0
    config.get_text_config().pad_token_id = 0
    model = _model(kind, config)
    parameters, most = model.num_parameters(), positions(model)
    lora = configuration.lora_of(replace(settings, use_peft=True, lora_dropout=0.0), kind.task_type, head_name(model))
    chosen, _ = configuration.default_arguments(parameters, settings.use_peft)
    chosen |= {name: value for name in chosen if (value := getattr(settings, name)) is not None}
    sides, length = 2 if kind.model is OUTCOME else 1, min(settings.max_length or DEFAULT_MAX_LENGTH, most or 10**9)
    shape, checkpointing = (sides * chosen["per_device_train_batch_size"], length), chosen["gradient_checkpointing"]
    found = {}
    for name, adapter in (("full", None), ("lora", lora)):
        model = _model(kind, config, adapter)
        kept = _activations(model, shape, bf16, checkpointing)
        found[name] = _memory(model, kept, devices)
        if adapter:
            found["qlora"] = _memory(model, kept, devices, in_4bit=True)
        if devices > 1:
            found[f"{name}_fsdp"] = _memory(model, kept, devices, sharded=True, computed_in=2 if bf16 else 4)
    for name, memory in found.items():
        log(f"{name}: {memory.total / 1e9:.1f} GB on each of {devices} device(s)")
    how = {"sequences": shape[0], "length": length, "gradient_checkpointing": checkpointing, "bf16": bf16}
    return MemoryEstimate(parameters=parameters, devices=devices, **how, bytes_per_device=found)


def _model(kind: Pairs | StepLabels, config: Config, lora: LoraConfig | None = None) -> Model:
    with torch.device("meta"):
        model = kind.model.auto_class.from_config(config, dtype=torch.float32, trust_remote_code=False).train()
    loop.without_dropout(model)
    if lora:
        from peft import get_peft_model

        model = get_peft_model(model, lora)
    return model


def _activations(model: Model, shape: tuple[int, int], bf16: bool, checkpointing: bool) -> int:
    """Bytes that autograd keeps for the backward pass; of a checkpointed model with one layer's, while it is repeated."""
    kept = _kept(model, shape, bf16)
    if not checkpointing:
        return kept
    layers = unwrapped(model).config.get_text_config().num_hidden_layers
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()  # of a frozen embedding
    return _kept(model, shape, bf16) + kept // layers


def _kept(model: Model, shape: tuple[int, int], bf16: bool) -> int:
    # They go the ways of real ones on a CPU, autocast and fused attention among them, but for a mask that transformers
    # makes where it cannot read positions.
    with FakeTensorMode(), mock.patch("transformers.masking_utils.find_packed_sequence_indices", lambda *_: None):
        return _kept_of(_as_if_real(model), shape, bf16)


def _as_if_real(model: Model) -> Model:
    made: dict[int, Any] = {
        id(one): torch.nn.Parameter(torch.empty(one.shape), one.requires_grad) for one in model.parameters()
    }
    made |= {id(one): torch.empty(one.shape, dtype=one.dtype) for one in model.buffers()}
    return copy.deepcopy(model, made)


def _kept_of(model: Model, shape: tuple[int, int], bf16: bool) -> int:
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # which lives on, or another would get its number
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        model(input_ids=torch.ones(shape, dtype=torch.long), attention_mask=None, use_cache=False)
    return sum(storage.nbytes() for storage in kept.values())


def _memory(
    model: Model, activations: int, devices: int, *, in_4bit: bool = False, sharded: bool = False, computed_in: int = 4
) -> Memory:
    parameters, parts = list(model.parameters()), devices if sharded else 1
    trained = [one.numel() for one in parameters if one.requires_grad]
    count, gradients = sum(one.numel() for one in parameters), 4 * sum(trained)
    weights, working = 4 * count, gradients if devices > 1 else 0  # DDP's buckets
    if in_4bit:
        linear = [one.weight.numel() for one in model.modules() if isinstance(one, torch.nn.Linear)]
        frozen = [one.numel() for name, one in model.named_parameters() if _is_quantized(model, name, one)]
        weights = int(4 * (count - sum(frozen)) + NF4 * sum(frozen))
        working += 4 * max(linear)
    if sharded:
        layers = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
        sizes = [sum(one.numel() for one in layer.parameters()) for among in layers for layer in among]
        working = computed_in * max(2 * max(sizes), model.get_input_embeddings().weight.numel())
    optimizer = ADAM * sum(trained) // parts + 4 * len(trained)
    own = (weights // parts, gradients // parts, optimizer, activations, working)
    return Memory(*own, total=sum(own))


def _is_quantized(model: Model, name: str, parameter: torch.nn.Parameter) -> bool:
    module, _, own = name.rpartition(".")
    linear = isinstance(model.get_submodule(module), torch.nn.Linear)
    return linear and own == "weight" and not parameter.requires_grad and "original_module" not in name
