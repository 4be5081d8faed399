"""FSDP2 through accelerate: fp32 master weights, gradients and optimizer sharded over the processes of torchrun."""

import copy
from collections.abc import Callable

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, parse_flag_from_env
from transformers import Trainer

from ..errors import UsageError
from ..heads import unwrapped
from ..hf import Arguments
from ..precision import where_it_fits


def shard_on_cpus_too(arguments: Arguments) -> None:
  """Before the trainer is made. accelerate 1.15 would leave FSDP aside on CPUs, in silence, and run DDP."""
  state = PartialState()
  wanted = arguments.fsdp or parse_flag_from_env("ACCELERATE_USE_FSDP")  # of accelerate launch
  if wanted and state.distributed_type == DistributedType.MULTI_CPU:
    state.distributed_type = DistributedType.MULTI_GPU


def skeleton(trainer: Trainer) -> torch.nn.Module | None:
  """Before training: the model without its numbers, which `gathered` gives it. None where nothing is sharded.

  Autocast does not reach a sharded model: its layers compute in the precision of the run, the reward stays fp32.
  """
  plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
  if plugin is None:
    return None
  if plugin.fsdp_version != 2 or plugin.cpu_ram_efficient_loading:
    hint = "fsdp_version: 2, fsdp_cpu_ram_efficient_loading: false, as in assets/accelerate/fsdp2.yaml"
    raise UsageError("only FSDP2 is supported, with weights that every process reads", hint=hint)
  if plugin.mixed_precision_policy is not None:
    from torch.distributed.fsdp import MixedPrecisionPolicy

    fp32 = {"reduce_dtype": torch.float32, "output_dtype": torch.float32}
    computed_in = torch.bfloat16 if trainer.args.bf16 else torch.float16
    plugin.mixed_precision_policy = MixedPrecisionPolicy(param_dtype=computed_in, **fp32)
  layers = unwrapped(trainer.model)._no_split_modules or ()
  if plugin.transformer_cls_names_to_wrap is None and any("Embeddings" in name for name in layers):
    # accelerate 1.15 shards an encoder's table by itself, and then finds nothing left in its embeddings
    plugin.transformer_cls_names_to_wrap = [name for name in layers if "Embeddings" not in name]
  return copied(trainer.model, lambda tensor: tensor.to("meta"))


def copied(
  model: torch.nn.Module, made: Callable[[torch.Tensor], torch.Tensor], *, buffers: bool = False
) -> torch.nn.Module:
  """With parameters, and `buffers`, that are made of its own; tied ones stay tied."""
  memo = {id(one): torch.nn.Parameter(made(one), one.requires_grad) for one in model.parameters()}
  return copy.deepcopy(model, {**memo, **{id(one): made(one) for one in model.buffers() if buffers}})


def gathered(trainer: Trainer, plain: torch.nn.Module) -> torch.nn.Module:
  """`plain` with the whole weights, in the first process, on the device if they fit. All processes must call it."""
  state = trainer.accelerator.get_state_dict(trainer.model)
  if not PartialState().is_main_process:
    return plain
  plain.load_state_dict(state, assign=True)
  unwrapped(plain).tie_weights()
  return plain.to(where_it_fits(sum(tensor.nbytes for tensor in state.values()), trainer.args.device))
