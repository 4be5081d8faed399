"""Attention over a packed row: each segment attends to the path that leads to it and to itself.

Registered with transformers' `AttentionInterface`: no model code is patched.
"""

import contextlib
from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from .heads import unwrapped
from .hf import Model
from .packing import PackedRow, Segment, pieces

NAME = "reward_modeling_shared_prefix"
FLASH_DEVICES = ("cuda",)
"""Where a row is one call of FlashAttention a layer: a call a segment would leave a GPU idle."""
FLASH_DTYPES = (torch.bfloat16, torch.float16)
FLASH_HEAD = 256
"""The widest head that it takes. Others, fp32 and capped scores are computed segment by segment there too."""
WITHOUT_EFFECT = frozenset(
  (
    *("position_ids", "cache_position", "use_cache", "output_attentions", "is_causal", "position_embeddings"),
    *("output_router_logits", "ends", "num_items_in_batch"),
  )
)
"""Passed along without effect here; `ends` is for the hook that reads scores in training, the last for the loss."""


class UnsupportedAttentionError(ValueError):
  """A model asks its attention for something that this one does not do."""


def at_least_fp32(numbers: torch.Tensor) -> torch.Tensor:
  return numbers.to(torch.promote_types(numbers.dtype, torch.float32))


def flashes(device: torch.device) -> bool:
  return device.type in FLASH_DEVICES


def sent(tensors: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
  """On the device in one transfer, for which a GPU does not wait."""
  flat, cuda = torch.cat([tensor.flatten() for tensor in tensors]), device.type == "cuda"
  flat = (flat.pin_memory() if cuda else flat).to(device, non_blocking=cuda)
  parts = flat.split([tensor.numel() for tensor in tensors])
  return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


class Paths(NamedTuple):
  """What each segment sees, as FlashAttention reads it.

  keys: places of the keys of all, one segment's after the other's, None where they are the row. query_starts, key_starts:
  where each segment's begin in the row and in `keys`, and the end [segments + 1].
  """

  keys: torch.Tensor | None
  query_starts: torch.Tensor
  key_starts: torch.Tensor
  most_queries: int
  most_keys: int

  @classmethod
  def of(cls, segments: Sequence[Segment]) -> Self:
    sizes = [segment.size for segment in segments]
    seen = [segment.depth + segment.size for segment in segments]
    starts = [torch.tensor([0, *accumulate(lengths)], dtype=torch.int32) for lengths in (sizes, seen)]
    runs = [torch.arange(*run, dtype=torch.int32) for segment in segments for run in segment.runs]
    return cls(torch.cat(runs) if seen != sizes else None, *starts, max(sizes), max(seen))

  def to(self, device: torch.device) -> Self:
    if self.query_starts.device.type == device.type:
      return self
    keys, *starts = sent([self.query_starts[:0] if self.keys is None else self.keys, *self[1:3]], device)
    return Paths(None if self.keys is None else keys, *starts, *self[3:])


class Layout:
  """callers: modules that followed it. paths: made in a worker of the loader for a device that `flashes`."""

  def __init__(self, row: PackedRow, device: torch.device | None = None):
    self.segments = row.segments
    self.callers: set[int] = set()
    self.paths = Paths.of(row.segments) if device is not None and flashes(device) else None
    self._masks: dict[tuple[object, ...], torch.Tensor] = {}

  def to(self, device: torch.device | str) -> Self:
    """Accelerate calls it."""
    device = torch.device(device)
    if flashes(device):
      self.paths = (self.paths or Paths.of(self.segments)).to(device)
    return self

  @cached_property
  def pieces(self) -> tuple[list[int], list[list[int]]]:
    return pieces(self.segments)

  def mask(self, segment: int, window: int | None, like: torch.Tensor) -> torch.Tensor | None:
    """Additive [queries, keys] of a segment, None where plain causal attention says the same.

    A token at offset i of a segment at depth d sees the keys 0 to d + i, the last `window` of them.
    """
    depth, size = self.segments[segment].depth, self.segments[segment].size
    if depth == 0 and (window is None or size <= window):
      return None
    made = (segment, window, like.dtype, like.device)
    if made not in self._masks:
      keys = torch.arange(depth + size, device=like.device)[None]
      ahead = keys.mT[depth:] - keys
      hidden = ahead < 0 if window is None else (ahead < 0) | (ahead >= window)
      mask = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
      self._masks[made] = mask.masked_fill_(hidden, float("-inf"))
    return self._masks[made]


PackedInputs = dict[str, torch.Tensor | Layout]


def packed_inputs(row: PackedRow, device: torch.device) -> PackedInputs:
  """Of a model there: `input_ids` and `position_ids` [1, T], and the `layout` that its attention follows."""
  # Five times as fast as torch.tensor.
  ids, positions = (torch.frombuffer(array("q", own), dtype=torch.long)[None] for own in (row.ids, row.positions))
  return {"input_ids": ids, "position_ids": positions, "layout": Layout(row, device)}


def shared_prefix_attention(
  module: torch.nn.Module,
  query: torch.Tensor,
  key: torch.Tensor,
  value: torch.Tensor,
  attention_mask: torch.Tensor | None,
  *,
  layout: Layout | None = None,
  scaling: float | None = None,
  dropout: float = 0.0,
  sliding_window: int | None = None,
  softcap: float | None = None,
  **others: object,
) -> tuple[torch.Tensor, None]:
  """Causal attention along each sequence. query: [1, H, T, D]; key, value: [1, K, T, D] -> [1, T, H, D].

  Raises UnsupportedAttentionError for any argument it does not implement, and for dropout, which would draw one mask for
  tokens that several sequences share.
  """
  if layout is None or attention_mask is not None:
    raise UnsupportedAttentionError("called without a layout, or with a mask of its own")
  if dropout:
    raise UnsupportedAttentionError("attention dropout")
  unknown = [name for name, given in others.items() if given is not None and name not in WITHOUT_EFFECT]
  if unknown:
    raise UnsupportedAttentionError(", ".join(sorted(unknown)))
  if not torch.compiler.is_compiling():  # or every module would be compiled by itself
    layout.callers.add(id(module))
  device = query.device.type
  dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
  flash = layout.paths is not None and dtype in FLASH_DTYPES and query.shape[-1] <= FLASH_HEAD and softcap is None
  if flash:
    return _by_flash(query.to(dtype), key.to(dtype), value.to(dtype), layout, scaling, sliding_window), None
  return _by_segment(query, key, value, layout, scaling, sliding_window, softcap), None


def _by_flash(query, key, value, layout: Layout, scaling: float | None, window: int | None) -> torch.Tensor:
  paths = layout.paths
  query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
  if paths.keys is not None:
    both = torch.cat([key, value], 1)
    if both.requires_grad:  # the gradients of a key that several segments see are added up in fp32
      both = both.float()
    key, value = both.index_select(0, paths.keys).to(query.dtype).chunk(2, 1)
  return flash_attention(query, key, value, paths, scaling, window)[None]


def flash_attention(query, key, value, paths: Paths, scaling: float | None, window: int | None) -> torch.Tensor:
  """query [T, H, D], key and value [keys, K, D] -> [T, H, D]: the queries of a segment are the last of its keys.

  The kernel of FlashAttention-2 (arXiv:2307.08691) for sequences of various lengths that PyTorch has, with its gradients.
  """
  sides = {} if window is None else {"window_size_left": window - 1, "window_size_right": 0}
  run = torch.ops.aten._flash_attention_forward
  return run(query, key, value, *paths[1:], 0.0, window is None, False, scale=scaling, **sides)[0]


def _by_segment(query, key, value, layout: Layout, scaling: float | None, window: int | None, softcap: float | None):
  groups = query.shape[1] // key.shape[1]
  if groups > 1:
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
  # Unlike slicing, split has one concatenation as its backward.
  queries = query.split([segment.size for segment in layout.segments], 2)
  sizes, seen = layout.pieces
  keys, values = key.split(sizes, 2), value.split(sizes, 2)
  outputs = []
  for i, q in enumerate(queries):
    k, v = (torch.cat([pieces[piece] for piece in seen[i]], -2) for pieces in (keys, values))
    mask = layout.mask(i, window, query)
    if softcap is None:
      how = {"attn_mask": mask, "is_causal": mask is None, "scale": scaling}
      outputs.append(F.scaled_dot_product_attention(q, k, v, **how))
    else:
      outputs.append(_softcapped(q, k, v, mask, scaling, softcap))
  return torch.cat(outputs, 2).transpose(1, 2).contiguous()


def _softcapped(q, k, v, mask, scaling: float | None, softcap: float) -> torch.Tensor:
  """As Gemma 2 does (arXiv:2408.00118)."""
  logits = q @ k.transpose(2, 3) * (scaling if scaling is not None else q.shape[-1] ** -0.5)
  logits = torch.tanh(logits / softcap) * softcap
  if mask is None:
    mask = torch.full_like(logits[0, 0], float("-inf")).triu(1)
  return torch.softmax((logits + mask).float(), -1).to(q.dtype) @ v


AttentionInterface.register(NAME, shared_prefix_attention)


@contextlib.contextmanager
def shared_prefix(model: Model) -> Iterator[None]:
  """Run the model with this attention: by its config, so not thread-safe."""
  before = model.config._attn_implementation
  model.set_attn_implementation(NAME)
  try:
    yield
  finally:
    model.set_attn_implementation(before)


def outputs_at(
  model: Model, head: torch.nn.Module, row: PackedRow, places: Sequence[int], inputs: PackedInputs | None = None
) -> torch.Tensor:
  """[places, labels] outputs of the head, inside `shared_prefix(model)`. Gradients flow."""
  device = next(model.parameters()).device
  ids, positions, layout = (inputs or packed_inputs(row, device)).values()
  distinct, which = torch.tensor(places).unique(return_inverse=True)
  ids, positions, distinct, which = sent([ids, positions, distinct, which], device)
  trunk = getattr(model, model.base_model_prefix)
  hidden = getattr(trunk, "language_model", trunk)(  # of a model of text and images: its text alone
    input_ids=ids, position_ids=positions, use_cache=False, layout=layout.to(device)
  ).last_hidden_state
  return head(hidden[0, distinct])[which]


def language_logits(
  model: Model, inputs: PackedInputs, rows: torch.Tensor, places: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
  """(logits [L, V] in at least fp32, the states [L, d] under them) of a language model at rows and places [L], no others."""
  states: list[torch.Tensor] = []

  def chosen(head: torch.nn.Module, read: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    states.append(read[0][rows, places])
    return (states[0][None],)

  hook = unwrapped(getattr(model, "module", model)).get_output_embeddings().register_forward_pre_hook(chosen)
  try:
    logits = model(**inputs, use_cache=False).logits[0]
  finally:
    hook.remove()
  return at_least_fp32(logits), states[0]
