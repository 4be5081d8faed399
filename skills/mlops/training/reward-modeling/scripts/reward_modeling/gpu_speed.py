"""What is fastest on a GPU, padded batches, packed rows or packed rows in compiled layers, by what was measured on one."""

from collections.abc import Sequence
from typing import NamedTuple, Self

from .hf import Model
from .packing import unique_tokens
from .terminal import log


class Speed(NamedTuple):
  """Seconds a padded token, a packed (unique) one and one in compiled layers, and at least a batch of each, where the host
  sets the pace."""

  padded: float
  packed: float
  compiled: float
  padded_batch: float = 0.0
  packed_batch: float = 0.0
  compiled_batch: float = 0.0

  def seconds(self, padded: int, packed: int, batches: int = 1) -> Self:
    tokens = (padded, packed, packed)
    whole = [max(rate * count, batch * batches) for rate, count, batch in zip(self[:3], tokens, self[3:], strict=True)]
    return Speed(*whole)


SCORING = {896: Speed(3.2e-6, 3.3e-6, 2.2e-6), 4096: Speed(31e-6, 30e-6, 25e-6)}
TRAINING = {896: Speed(9.3e-6, 10.5e-6, 6.2e-6, 0.09, 0.09, 0.053)}
"""By the least hidden size: bf16 on an NVIDIA H200 (references/scaling.md). Scoring sorts, so tokens there are real ones."""
COMPILING, CHECKPOINTED = 10.0, 75.0
"""Seconds before the first row in compiled layers, without and with gradient checkpointing."""


def speed_of(speeds: dict[int, Speed], hidden: int) -> Speed | None:
  """None where no model so small was measured."""
  return next((speed for size, speed in reversed(speeds.items()) if size <= hidden), None)


class Gain:
  """Asked call after call: layers are compiled once that would have saved the time it takes."""

  def __init__(self, compiling: float = COMPILING):
    self.compiling, self.seconds = compiling, 0.0

  def reason_against(self, spent: Speed | None, half: bool) -> str | None:
    """None where packed rows are faster. spent: seconds in each way. half: whether matrix products are in 16 bits."""
    if not half or spent is None:
      return f"{'a model so small' if half else 'float32'} was not measured on a GPU (try --shared_prefix true)"
    self.seconds += max(0.0, min(spent.padded, spent.packed) - spent.compiled)
    if not self.compiles and spent.packed >= spent.padded:
      return "packed rows are not faster with so little shared"
    return None

  @property
  def compiles(self) -> bool:
    return self.seconds > self.compiling


def spent_in_training(
  speed: Speed, rows: Sequence[Sequence[Sequence[int]]], per_batch: int, batches: float, share: bool
) -> Speed:
  """Seconds of so many batches like those of `rows`, each of sequences of token ids."""
  padded = packed = 0
  starts = range(0, len(rows), per_batch)
  for start in starts:
    sequences = [sequence for row in rows[start : start + per_batch] for sequence in row]
    padded += len(sequences) * max(map(len, sequences))
    packed += unique_tokens(sequences) if share else sum(map(len, sequences))
  return Speed(*(one * batches / len(starts) for one in speed.seconds(padded, packed, len(starts))))


def compile_layers(model: Model) -> None:
  """Decoder layers, in place: their norms, rotations and activations become few kernels. What cannot be compiled runs as it
  is, as do modules that are not plain: quantized, on several devices, or with experts."""
  import torch._dynamo

  config, experts = model.config.get_text_config(), ("num_experts", "num_local_experts", "n_routed_experts")
  special = getattr(model, "hf_quantizer", None) or getattr(model, "hf_device_map", None)
  if special or any(getattr(config, name, None) for name in experts):
    return
  torch._dynamo.config.suppress_errors = True
  torch._dynamo.config.recompile_limit = 16  # for the models, modes and precisions of one process together
  plain = [layer for layer in _layers(model) if layer._compiled_call_impl is None]
  if plain:
    log("decoder layers are compiled (TORCH_COMPILE_DISABLE=1 prevents it)")
  for layer in plain:
    layer.compile(dynamic=True)


def restore_layers(model: Model) -> None:
  for layer in _layers(model):
    layer._compiled_call_impl = None


def _layers(model: Model) -> list[Model]:
  from transformers.modeling_layers import GradientCheckpointingLayer

  return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
