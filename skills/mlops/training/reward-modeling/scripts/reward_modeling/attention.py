"""Attention over a packed row: each segment attends to the path that leads to it and to itself.

Registered with transformers' `AttentionInterface`: no model code is patched.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from .heads import unwrapped
from .hf import Config, Model
from .packing import PackedRow

NAME = "reward_modeling_shared_prefix"
BLOCK_DEVICES = ("cuda",)
"""Where FlexAttention is called once a layer: a call a segment would leave a GPU idle."""
BLOCK = 128
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


def by_blocks(device: torch.device) -> bool:
  return device.type in BLOCK_DEVICES


def row_length(tokens: int) -> int:
  """Few lengths occur, and less than a sixteenth is filling."""
  step = max(BLOCK, (1 << tokens.bit_length() - 1) // 16)
  return tokens + -tokens % step


def filled(row: PackedRow, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
  """(ids, positions), both [1, T]; by blocks to `row_length`, or each layer would have to."""
  filling = [0] * (row_length(len(row.ids)) - len(row.ids) if by_blocks(device) else 0)
  return torch.tensor([row.ids + filling]), torch.tensor([row.positions + filling])


def sent(tensors: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
  """On the device in one transfer, for which a GPU does not wait."""
  flat, cuda = torch.cat([tensor.flatten() for tensor in tensors]), device.type == "cuda"
  flat = (flat.pin_memory() if cuda else flat).to(device, non_blocking=cuda)
  parts = flat.split([tensor.numel() for tensor in tensors])
  return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


class Layout:
  """callers: modules that followed it. config: by blocks, whose masks a loader's worker makes here, of a model's windows."""

  def __init__(self, row: PackedRow, config: Config | None = None):
    self.sizes, self.keys = ([], []) if config else row.pieces()
    self.segments, self._row = row.segments, row
    self.callers: set[int] = set()
    self._made: dict[Any, Any] = {}
    self._tables = {window: block_tables(row, window) for window in (windows_of(config) if config else ())}

  def to(self, device: torch.device | str) -> Self:
    """Accelerate calls it."""
    device = torch.device(device)
    if self._tables and by_blocks(device):
      own = iter(sent([table for tables in self._tables.values() for table in tables], device))
      for window, tables in self._tables.items():
        self._made[window, device] = block_mask([next(own) for _ in tables], window)
      self._tables = {}
    return self

  def mask(self, segment: int, window: int | None, like: torch.Tensor) -> torch.Tensor | None:
    """Additive [queries, keys] of a segment, None where plain causal attention says the same.

    A token at offset i of a segment at depth d sees the keys 0 to d + i, the last `window` of them.
    """
    depth, size = len(self.segments[segment].path), self.segments[segment].size
    if depth == 0 and (window is None or size <= window):
      return None
    made = (segment, window, like.dtype, like.device)
    if made not in self._made:
      keys = torch.arange(depth + size, device=like.device)[None]
      ahead = keys.mT[depth:] - keys
      hidden = ahead < 0 if window is None else (ahead < 0) | (ahead >= window)
      mask = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
      self._made[made] = mask.masked_fill_(hidden, float("-inf"))
    return self._made[made]

  def blocks(self, window: int | None, device: torch.device) -> Any:
    self.to(device)
    if (window, device) not in self._made:
      self._made[window, device] = block_mask(sent(block_tables(self._row, window), device), window)
    return self._made[window, device]


PackedInputs = dict[str, torch.Tensor | Layout]


def packed_inputs(row: PackedRow, device: torch.device, config: Config) -> PackedInputs:
  """Of a model with this config: `input_ids` and `position_ids` [1, T], and the `layout` that its attention follows."""
  ids, positions = filled(row, device)
  return {"input_ids": ids, "position_ids": positions, "layout": Layout(row, config if by_blocks(device) else None)}


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
  layout.callers.add(id(module))
  way = _by_blocks if by_blocks(query.device) else _by_segment
  return way(query, key, value, layout, scaling, sliding_window, softcap), None


def _by_segment(query, key, value, layout: Layout, scaling: float | None, window: int | None, softcap: float | None):
  groups = query.shape[1] // key.shape[1]
  if groups > 1:
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
  # Unlike slicing, split has one concatenation as its backward.
  queries = query.split([segment.size for segment in layout.segments], 2)
  keys, values = key.split(layout.sizes, 2), value.split(layout.sizes, 2)
  outputs = []
  for i, q in enumerate(queries):
    k, v = (torch.cat([pieces[piece] for piece in layout.keys[i]], -2) for pieces in (keys, values))
    mask = layout.mask(i, window, query)
    if softcap is None:
      how = {"attn_mask": mask, "is_causal": mask is None, "scale": scaling}
      outputs.append(F.scaled_dot_product_attention(q, k, v, **how))
    else:
      outputs.append(_softcapped(q, k, v, mask, scaling, softcap))
  return torch.cat(outputs, 2).transpose(1, 2).contiguous()


def _by_blocks(query, key, value, layout: Layout, scaling: float | None, window: int | None, softcap: float | None):
  """FlexAttention (arXiv:2412.05496) of a row that is `filled`."""
  if torch.is_autocast_enabled(query.device.type):
    dtype = torch.get_autocast_dtype(query.device.type)
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
  options = {"block_mask": layout.blocks(window, query.device), "scale": scaling, "enable_gqa": True}
  out = _flex_attention(query.is_cuda)(query, key, value, score_mod=_capped_at(softcap, query.device), **options)
  return out.transpose(1, 2).contiguous()


@functools.cache
def _flex_attention(compiled: bool) -> Callable:
  from torch.nn.attention.flex_attention import flex_attention

  # From the second length on the compiler makes one kernel for rows of all lengths.
  return torch.compile(flex_attention) if compiled else flex_attention


@functools.cache
def _capped_at(softcap: float | None, device: torch.device) -> Callable | None:
  """Cached, since kernels are compiled anew for another object."""
  if softcap is None:
    return None
  # The compiler refuses a captured number. The tensor is cached, so training must be able to use it too.
  with torch.inference_mode(False):
    cap = torch.tensor(softcap, device=device)

  def capped(score, batch, head, query, key):
    return cap * torch.tanh(score / cap)

  return capped


def windows_of(config: Config) -> set[int | None]:
  """Of sliding attention in its layers, None for full attention."""
  config = config.get_text_config()
  sliding, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
  return {sliding if kind == "sliding_attention" else None for kind in kinds} if kinds else {sliding}


BLOCK_TABLES = [
  f"{full}{side}_{what}" for side in ("kv", "q") for full in ("", "full_") for what in ("num_blocks", "indices")
]


def block_tables(row: PackedRow, window: int | None) -> list[torch.Tensor]:
  """`until` and positions [T] of the filled row, then BLOCK_TABLES, all int32, without the [T, T] mask.

  An earlier block of keys is seen in part when some key's `until` reaches into the queries, in full when all reach their end.
  """
  from torch.nn.attention.flex_attention import BlockMask

  until, positions = row.until(), torch.tensor(row.positions)
  fill = torch.arange(len(until), row_length(len(until)))
  until, positions = torch.cat([until, fill + 1]), torch.cat([positions, fill - fill])
  ends, places = until.view(-1, BLOCK), positions.view(-1, BLOCK)
  blocks = torch.arange(len(ends))
  first, last = blocks[:, None] * BLOCK, blocks[:, None] * BLOCK + BLOCK - 1
  before, same = blocks[None] < blocks[:, None], blocks[None] == blocks[:, None]
  full = before & (ends.amin(1)[None] > last)
  seen = same | (before & (ends.amax(1)[None] > first))
  if window is not None:
    full &= places.amax(1)[:, None] - places.amin(1)[None] < window
    seen &= same | (places.amin(1)[:, None] - places.amax(1)[None] < window)

  def listed(chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    order = chosen.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    return chosen.sum(1, dtype=torch.int32)[None, None], order.to(torch.int32)[None, None]

  made = BlockMask.from_kv_blocks(*listed(seen & ~full), *listed(full), BLOCK_SIZE=BLOCK)
  return [tensor.to(torch.int32) for tensor in (until, positions, *(getattr(made, name) for name in BLOCK_TABLES))]


def block_mask(tables: Sequence[torch.Tensor], window: int | None) -> Any:
  """Of `block_tables`, on any device."""
  from torch.nn.attention.flex_attention import BlockMask

  until, positions, *listed = tables

  def visible(batch, head, query, key):
    mask = (key <= query) & (query < until[key])
    return mask if window is None else mask & (positions[query] - positions[key] < window)

  lengths, named = (len(until), len(until)), dict(zip(BLOCK_TABLES, listed, strict=True))
  return BlockMask(lengths, BLOCK_SIZE=(BLOCK, BLOCK), mask_mod=visible, **named)


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
  ids, positions, layout = (inputs or packed_inputs(row, device, model.config)).values()
  distinct, which = torch.tensor(places).unique(return_inverse=True)
  ids, positions, distinct, which = sent([ids, positions, distinct, which], device)
  trunk = getattr(model, model.base_model_prefix)
  hidden = getattr(trunk, "language_model", trunk)(  # of a model of text and images: its text alone
    input_ids=ids, position_ids=positions, use_cache=False, layout=layout
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
