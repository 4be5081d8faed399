"""Two other ways to attend over a packed row, to be compared on a GPU with FlexAttention, which the project uses.

"gather": the keys of each segment's path are gathered before its own, and FlashAttention's variable-length kernel
(`torch.nn.attention.varlen`) runs over the segments. "merge": one call over the segments by themselves, one over all segments
that share a path, whose keys then stand once; the two are merged by their log-sum-exp, and so are their backward passes, as in
ring attention. On a CPU both run in a plain form of the kernel, in any precision, which tests compare with one at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
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
  sides = [-1 if window is None else window - 1, 0 if causal else -1]
  run = torch.ops.torch_attn._varlen_attn
  return run(query, key, value, *where, causal, scale, sides, query.shape[1] != key.shape[1])[:2]


def backward(grad, query, key, value, out, lse, where: Spans, scale: float, causal: bool, window: int | None = None):
  if not query.is_cuda:
    return plain_backward(grad, query, key, value, out, lse, where, scale, causal, window)
  sides = [-1 if window is None else window - 1, 0 if causal else -1]
  state = torch.zeros(2, dtype=torch.uint64, device=query.device)  # of dropout, which there is none of
  run = torch.ops.torch_attn._varlen_attn_backward
  return run(grad.contiguous(), query, key, value, out, lse, *where, causal, state, scale, sides)


class Gathered(torch.autograd.Function):
  """Causal attention of each span's queries, which are the last of its keys."""

  @staticmethod
  def forward(ctx, query, key, value, where: Spans, scale: float, window: int | None):
    out, lse = forward(query, key, value, where, scale, True, window)
    ctx.save_for_backward(query, key, value, out, lse)
    ctx.more = where, scale, True, window
    return out

  @staticmethod
  def backward(ctx, grad):
    return *backward(grad, *ctx.saved_tensors, *ctx.more), None, None, None


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
  """gathered: keys of all paths and segments [K]. own, shared: see `Merged`."""

  gathered: Tensor
  with_path: Spans
  own: Spans
  queries: Tensor
  keys: Tensor
  shared: Spans


def plan(layout: Layout, device: torch.device) -> Plan:
  if made := layout._made.get(("plan", device)):
    return made
  groups: dict[tuple[int, ...], list[int]] = {}
  gathered, sizes, lengths = [], [], []
  for segment in layout.segments:
    own = range(segment.start, segment.start + segment.size)
    gathered += [*segment.path, *own]
    sizes.append(segment.size)
    lengths.append(len(segment.path) + segment.size)
    if segment.path:
      groups.setdefault(tuple(segment.path), []).extend(own)
  shared = spans([len(own) for own in groups.values()], list(map(len, groups)))
  lists = gathered, [place for own in groups.values() for place in own], [place for path in groups for place in path]
  all_spans = spans(sizes, lengths), spans(sizes, sizes), shared
  tensors = [torch.tensor(places, dtype=torch.int32) for places in lists]
  on = iter(sent([*tensors, *(end for one in all_spans for end in one[:2])], device))
  gathered, queries, keys = (next(on) for _ in lists)
  with_path, own, shared = (Spans(next(on), next(on), *one[2:]) for one in all_spans)
  made = layout._made["plan", device] = Plan(gathered, with_path, own, queries, keys, shared)
  return made


def by(kernel: str):
  """The attention of a packed row by this kernel, as `attention._by_blocks` is called."""

  def way(
    query, key, value, layout: Layout, scaling: float | None, window: int | None, softcap: float | None
  ) -> Tensor:
    if softcap is not None or (window is not None and kernel == "merge"):
      raise UnsupportedAttentionError(f"a soft cap or a window, which {kernel} has not")
    if torch.is_autocast_enabled(query.device.type):
      query, key, value = (one.to(torch.get_autocast_dtype(query.device.type)) for one in (query, key, value))
    where, length = plan(layout, query.device), query.shape[2]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    end = int(sum(segment.size for segment in layout.segments))  # what fills the row attends to nothing
    flat = [tensor[0, :, :end].transpose(0, 1).contiguous() for tensor in (query, key, value)]
    if kernel == "gather":
      k, v = (tensor.index_select(0, where.gathered) for tensor in flat[1:])
      out = Gathered.apply(flat[0], k, v, where.with_path, scale, window)
    else:
      out = Merged.apply(*flat, where, scale)
    return torch.nn.functional.pad(out, (0, 0, 0, 0, 0, length - end))[None]

  return way


KERNELS = ("flex", "gather", "merge")


@contextlib.contextmanager
def attending_by(kernel: str) -> Iterator[None]:
  """Packed rows on a GPU go by this kernel. On a CPU "flex" leaves attention as it is, segment by segment."""
  names = "_by_blocks", "_by_segment"
  before: list[Any] = [getattr(attention, name) for name in names]
  try:
    if kernel != "flex":
      for name in names:
        setattr(attention, name, by(kernel))
    yield
  finally:
    for name, plain in zip(names, before, strict=True):
      setattr(attention, name, plain)
