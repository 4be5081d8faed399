"""Two other ways to attend over a packed row, compared on a GPU with the one that the project uses.

The project gathers the keys of each segment's path before its own and runs FlashAttention's variable-length kernel over the
segments. "merge": one call over the segments by themselves, one over all segments that share a path, whose keys then stand
once; the two are merged by their log-sum-exp, and so are their backward passes, as in ring attention. "flex": FlexAttention
(arXiv:2412.05496) with the row's mask. On a CPU kernels run in a plain form, in any precision, which tests compare with one
sequence at a time.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reward_modeling import attention
from reward_modeling.attention import Layout, UnsupportedAttentionError, sent


class Spans(NamedTuple):
  """Which queries of a flat row attend to which keys of another: `to_keys[i]` to `to_keys[i + 1]` for those of span i."""

  to_queries: Tensor
  to_keys: Tensor
  longest_query: int
  longest_key: int


def spans(queries: Sequence[int], keys: Sequence[int]) -> Spans:
  """Of their sizes."""
  ends = [torch.tensor([0, *sizes]).cumsum(0).to(torch.int32) for sizes in (queries, keys)]
  return Spans(*ends, max(queries, default=0), max(keys, default=0))


def seen(queries: int, keys: int, causal: bool, window: int | None, device: torch.device) -> Tensor:
  """[queries, keys]; causal: the last query sees the last key, and each at most `window` keys."""
  ahead = torch.arange(queries, device=device)[:, None] + keys - queries - torch.arange(keys, device=device)
  visible = ahead >= 0 if causal else torch.ones_like(ahead, dtype=torch.bool)
  return visible if window is None else visible & (ahead < window)


def _precise(tensor: Tensor) -> Tensor:
  return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _pieces(
  query: Tensor, key: Tensor, value: Tensor, where: Spans
) -> Iterator[tuple[slice, slice, Tensor, Tensor, Tensor]]:
  groups = query.shape[1] // key.shape[1]
  bounds = zip(where.to_queries.tolist(), where.to_keys.tolist(), strict=True)
  first = next(bounds)
  for last in bounds:
    q, k = slice(first[0], last[0]), slice(first[1], last[1])
    wide = [_precise(tensor[k]).repeat_interleave(groups, 1).transpose(0, 1) for tensor in (key, value)]
    yield q, k, _precise(query[q]).transpose(0, 1), *wide
    first = last


def plain_forward(
  query: Tensor, key: Tensor, value: Tensor, where: Spans, scale: float, causal: bool, window: int | None
):
  """(out [T, H, D], lse [H, T]): the kernel by its definition, added up in fp32 or more."""
  out, lse = torch.empty_like(query), _precise(query.new_empty(query.shape[1], len(query)))
  for own, _, q, k, v in _pieces(query, key, value, where):
    mask = seen(q.shape[1], k.shape[1], causal, window, q.device)
    scores = (scale * q @ k.mT).masked_fill(~mask, float("-inf"))
    lse[:, own] = scores.logsumexp(-1)
    out[own] = (scores.softmax(-1) @ v).transpose(0, 1)
  return out, lse


def plain_backward(
  grad: Tensor, query, key, value, out, lse, where: Spans, scale: float, causal: bool, window: int | None
):
  """Gradients of query, key, value where probabilities are exp(score - lse), as FlashAttention's backward pass has it: `out`
  and `lse` may be those of more keys than these (arXiv:2205.14135, algorithm 4)."""
  grads = [torch.zeros_like(tensor) for tensor in (query, key, value)]
  inner = (_precise(grad) * out).sum(-1).T
  for own, its, q, k, v in _pieces(query, key, value, where):
    mask = seen(q.shape[1], k.shape[1], causal, window, q.device)
    weights = (scale * q @ k.mT - lse[:, own, None]).masked_fill(~mask, float("-inf")).exp()
    g = _precise(grad[own]).transpose(0, 1)
    scores = weights * (g @ v.mT - inner[:, own, None])
    grads[0][own] = (scale * scores @ k).transpose(0, 1)
    for made, found in ((1, scale * scores.mT @ q), (2, weights.mT @ g)):
      grads[made][its] = found.unflatten(0, (key.shape[1], -1)).sum(1).transpose(0, 1)
  return tuple(grads)


def forward(query, key, value, where: Spans, scale: float, causal: bool, window: int | None = None):
  if not query.is_cuda:
    return plain_forward(query, key, value, where, scale, causal, window)
  run = torch.ops.aten._flash_attention_forward
  return run(query, key, value, *where, 0.0, causal, False, scale=scale)[:2]


def backward(grad, query, key, value, out, lse, where: Spans, scale: float, causal: bool, window: int | None = None):
  if not query.is_cuda:
    return plain_backward(grad, query, key, value, out, lse, where, scale, causal, window)
  state = torch.zeros(2, dtype=torch.uint64, device=query.device)  # of dropout, which there is none of
  run = torch.ops.aten._flash_attention_backward
  unused = torch.empty(0, device=query.device)
  return run(grad.contiguous(), query, key, value, out, lse, *where, 0.0, causal, state, unused, scale=scale)


class Merged(torch.autograd.Function):
  """Segments by themselves, and with their paths: `queries` [Q] of those that have one, `keys` [K] of the paths."""

  @staticmethod
  def forward(ctx, query, key, value, plan: Plan, scale: float):
    out, lse = forward(query, key, value, plan.own, scale, True)
    if len(plan.queries):
      paths = query[plan.queries], key[plan.keys], value[plan.keys]
      other, other_lse = forward(*paths, plan.shared, scale, False)
      mine = lse[:, plan.queries]
      total = torch.logaddexp(mine, other_lse)
      parts = [(part - total).exp().T[..., None] for part in (mine, other_lse)]  # fp32, as lse is
      out[plan.queries] = (out[plan.queries] * parts[0] + other * parts[1]).to(out.dtype)
      lse[:, plan.queries] = total
    ctx.save_for_backward(query, key, value, out, lse)
    ctx.more = plan, scale
    return out

  @staticmethod
  def backward(ctx, grad):
    query, key, value, out, lse = ctx.saved_tensors
    plan, scale = ctx.more
    grads = backward(grad, query, key, value, out, lse, plan.own, scale, True)
    if len(plan.queries):
      q, k = plan.queries, plan.keys
      at = grad[q], query[q], key[k], value[k], out[q], lse[:, q].contiguous()
      for whole, part, places in zip(grads, backward(*at, plan.shared, scale, False), (q, k, k), strict=True):
        whole.index_add_(0, places, part)  # a path's keys may stand in several groups
    return *grads, None, None


class Plan(NamedTuple):
  """See `Merged`."""

  own: Spans
  queries: Tensor
  keys: Tensor
  shared: Spans


def plan(layout: Layout, device: torch.device) -> Plan:
  if made := layout._masks.get(("plan", device)):
    return made
  groups: dict[tuple[tuple[int, int], ...], list[int]] = {}
  for segment in layout.segments:
    if segment.path:
      groups.setdefault(tuple(segment.path), []).extend(range(segment.start, segment.start + segment.size))
  paths = [[place for run in runs for place in range(*run)] for runs in groups]
  shared = spans([len(own) for own in groups.values()], list(map(len, paths)))
  sizes = [segment.size for segment in layout.segments]
  lists = [place for own in groups.values() for place in own], [place for path in paths for place in path]
  both = spans(sizes, sizes), shared
  tensors = [torch.tensor(places, dtype=torch.int32) for places in lists]
  on = iter(sent([*tensors, *(end for one in both for end in one[:2])], device))
  queries, keys = (next(on) for _ in lists)
  own, shared = (Spans(next(on), next(on), *one[2:]) for one in both)
  made = layout._masks["plan", device] = Plan(own, queries, keys, shared)
  return made


def by_merge(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float, window: int | None) -> Tensor:
  if window is not None:
    raise UnsupportedAttentionError("a window, which merge has not")
  flat = [tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value)]
  return Merged.apply(*flat, plan(layout, query.device), scale)[None]


BLOCK = 128


def block_mask(layout: Layout, length: int, window: int | None, device: torch.device) -> Any:
  """Of a row filled up to whole blocks: token k is seen by k, k + 1, ... until[k] - 1, since the sequences are sorted."""
  from torch.nn.attention.flex_attention import create_block_mask

  if made := layout._masks.get(("blocks", window, device)):
    return made
  until, positions = torch.arange(1, length + 1), torch.zeros(length, dtype=torch.long)
  for segment in layout.segments:
    end = segment.start + segment.size
    for first, last in segment.runs:
      until[first:last] = end
    positions[segment.start : end] = torch.arange(segment.depth, segment.depth + segment.size)
  until, positions = until.to(device), positions.to(device)

  def visible(batch, head, query, key):
    mask = (key <= query) & (query < until[key])
    return mask if window is None else mask & (positions[query] - positions[key] < window)

  made = create_block_mask(visible, None, None, length, length, device=device, BLOCK_SIZE=BLOCK)
  layout._masks["blocks", window, device] = made
  return made


@functools.cache
def flex_attention(compiled: bool) -> Callable:
  from torch.nn.attention.flex_attention import flex_attention as plain

  return torch.compile(plain) if compiled else plain


def by_flex(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float, window: int | None) -> Tensor:
  tokens = query.shape[2]
  query, key, value = (torch.nn.functional.pad(one, (0, 0, 0, -tokens % BLOCK)) for one in (query, key, value))
  mask = block_mask(layout, query.shape[2], window, query.device)
  out = flex_attention(query.is_cuda)(query, key, value, block_mask=mask, scale=scale, enable_gqa=True)
  return out[:, :, :tokens].transpose(1, 2)


KERNELS = {"flash": None, "flex": by_flex, "merge": by_merge}


def by(kernel: str) -> Callable:
  """As `attention._by_flash` and `attention._by_segment` are called."""

  def way(query, key, value, layout: Layout, scaling: float | None, window: int | None, softcap: float | None = None):
    if softcap is not None:
      raise UnsupportedAttentionError(f"capped scores, which {kernel} has not")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return KERNELS[kernel](query, key, value, layout, scale, window)

  return way


@contextlib.contextmanager
def attending_by(kernel: str) -> Iterator[None]:
  """Packed rows go by this kernel; "flash" leaves attention as it is, on a CPU segment by segment."""
  names = "_by_flash", "_by_segment"
  before = [getattr(attention, name) for name in names]
  try:
    if KERNELS[kernel]:
      for name in names:
        setattr(attention, name, by(kernel))
    yield
  finally:
    for name, plain in zip(names, before, strict=True):
      setattr(attention, name, plain)
