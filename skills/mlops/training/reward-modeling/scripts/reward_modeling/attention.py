"""Attention over a packed row: each segment attends to the path that leads to it and to itself.

Registered with transformers' `AttentionInterface`, so no model code is patched. Linear layers, norms and embeddings see
one flat row [1, T] of unique tokens and need no knowledge of the layout; only attention does. Under this name transformers
builds no mask, and hands the keyword `layout` down to every attention layer.

A model may be run this way only if its attention asks for nothing but what is implemented here: every other argument
raises. `sharing.py` decides which models those are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from .packing import PackedRow

NAME = "reward_modeling_shared_prefix"

# What models pass along and what changes nothing here: positions are in the rotary embedding already, and `ends` is for
# the hook that reads the scores in training.
HARMLESS = frozenset(
    (
        "position_ids",
        "cache_position",
        "use_cache",
        "output_attentions",
        "is_causal",
        "position_embeddings",
        "ends",
    )
)


class UnsupportedAttentionError(ValueError):
    """A model asks its attention for something that this one does not do."""


class Layout:
    """What attention needs to know of a packed row, computed once for all layers. `calls` counts the layers."""

    def __init__(self, row: PackedRow):
        self.sizes, self.keys = row.pieces()
        self.segments = row.segments
        self.calls = 0
        self._masks: dict[Any, torch.Tensor | None] = {}

    def mask(self, segment: int, window: int | None, like: torch.Tensor) -> torch.Tensor | None:
        """Additive mask [queries, keys] of a segment, or None where plain causal attention says the same.

        Query i of a segment at depth d sees the keys 0 to d + i, the last `window` of them where there is a window.
        """
        depth, size = self.segments[segment].depth, self.segments[segment].size
        if depth == 0 and (window is None or size <= window):
            return None
        key = (segment, window, like.dtype, like.device)
        if key not in self._masks:
            query = torch.arange(depth, depth + size, device=like.device)[:, None]
            keys = torch.arange(depth + size, device=like.device)[None]
            seen = keys <= query
            if window is not None:
                seen = seen & (query - keys < window)
            mask = torch.zeros(size, depth + size, dtype=like.dtype, device=like.device)
            self._masks[key] = mask.masked_fill_(~seen, float("-inf"))
        return self._masks[key]


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
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention along each sequence of a packed row. query: [1, H, T, D]; key, value: [1, K, T, D].

    Returns [1, T, H, D]. Raises UnsupportedAttentionError for any argument it does not implement, and for dropout, which
    would draw one mask for tokens that several sequences share.
    """
    if layout is None or attention_mask is not None:
        raise UnsupportedAttentionError("called without a layout, or with a mask of its own")
    if dropout:
        raise UnsupportedAttentionError("attention dropout")
    unknown = [name for name, given in others.items() if given is not None and name not in HARMLESS]
    if unknown:
        raise UnsupportedAttentionError(", ".join(sorted(unknown)))
    layout.calls += 1
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    # split, not slicing: its backward is one concatenation instead of a zero-filled tensor for each slice.
    queries = query.split([segment.size for segment in layout.segments], 2)
    keys, values = key.split(layout.sizes, 2), value.split(layout.sizes, 2)
    outputs = []
    for i, q in enumerate(queries):
        k, v = _gathered(keys, layout.keys[i]), _gathered(values, layout.keys[i])
        mask = layout.mask(i, sliding_window, query)
        if softcap is None:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling)
        else:
            out = _softcapped(q, k, v, mask, scaling, softcap)
        outputs.append(out)
    return torch.cat(outputs, 2).transpose(1, 2).contiguous(), None


def _gathered(pieces: tuple[torch.Tensor, ...], which: list[int]) -> torch.Tensor:
    return pieces[which[0]] if len(which) == 1 else torch.cat([pieces[i] for i in which], 2)


def _softcapped(q, k, v, mask, scaling: float | None, softcap: float) -> torch.Tensor:
    """Attention whose logits are bounded by softcap * tanh(logits / softcap), as Gemma 2 does (arXiv:2408.00118)."""
    logits = q @ k.transpose(2, 3) * (scaling if scaling is not None else q.shape[-1] ** -0.5)
    logits = torch.tanh(logits / softcap) * softcap
    if mask is None:
        size = q.shape[2]
        mask = torch.full((size, size), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
    return torch.softmax((logits + mask).float(), -1).to(q.dtype) @ v


AttentionInterface.register(NAME, shared_prefix_attention)


@contextlib.contextmanager
def shared_prefix(model: Any) -> Iterator[None]:
    """Run the model with this attention inside the block. The choice lives in the model's config: not thread-safe."""
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
