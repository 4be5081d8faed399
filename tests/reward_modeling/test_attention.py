"""FlexAttention by blocks gives the numbers of PyTorch's own attention called segment by segment, and both those of one mask."""

import contextlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_modeling import attention
from reward_modeling.attention import Layout, shared_prefix_attention
from reward_modeling.packing import pack_together
from tries import tries

DEVICES = {"by segment": (), "by block": ("cpu",)}
"""The BLOCK_DEVICES that choose each way. FlexAttention is not compiled here: its plain form has the same mask."""


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    """Blocks of four tokens, so that short sequences have several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "BLOCK", 4)
        yield


@contextlib.contextmanager
def choosing(way):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "BLOCK_DEVICES", DEVICES[way])
        yield


def drawn(row, key_heads, shared_by, dtype=torch.float64):
    """query [1, H, T, D], key and value [1, K, T, D], in the memory order of a model's projections."""
    generator = torch.Generator().manual_seed(0)
    heads = (key_heads * shared_by, key_heads, key_heads)
    make = lambda n: torch.randn(1, len(row.ids), n, 4, generator=generator, dtype=dtype)  # noqa: E731
    return [make(n).transpose(1, 2).requires_grad_() for n in heads]


def run(way, row, qkv, **arguments):
    """The output, and the gradients of a weighted sum of it. FlexAttention has no backward pass on a CPU: only the output."""
    with choosing(way), torch.set_grad_enabled(way != "by block"):
        out, _ = shared_prefix_attention(None, *qkv, None, layout=Layout(row), **arguments)
    if way == "by block":
        return (out,)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return out, *torch.autograd.grad((out * weights).sum(), qkv)


def by_one_mask(row, query, key, value, window, scaling):
    """The second route: plain softmax attention of every token of a sequence on its own, written down from the definition."""
    out = torch.zeros(len(row.ids), query.shape[1], query.shape[3], dtype=query.dtype)
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    for places in row.places:
        for i, place in enumerate(places):
            seen = places[max(0, i + 1 - (window or i + 1)) : i + 1]
            weights = (scaling * (query[0, :, place, None] * key[0, :, seen]).sum(-1)).softmax(-1)
            out[place] = (weights[..., None] * value[0, :, seen]).sum(1)
    return out[None]


@given(tries(), st.sampled_from([1, 2]), st.sampled_from([1, 3]), st.sampled_from([None, 1, 2, 5, 64]))
@settings(max_examples=100, deadline=None)
def test_all_ways_agree(sequences, key_heads, shared_by, window):
    row = pack_together(sequences)
    qkv = drawn(row, key_heads, shared_by)
    out, *gradients = run("by segment", row, qkv, sliding_window=window, scaling=0.3)
    (blocks,) = run("by block", row, qkv, sliding_window=window, scaling=0.3)
    expected = by_one_mask(row, *qkv, window, 0.3)
    for mine in (out, blocks):
        assert mine.shape == expected.shape
        assert torch.allclose(mine, expected, atol=1e-12, rtol=1e-12)
    weights = torch.linspace(-1, 1, expected.numel(), dtype=expected.dtype).view_as(expected)
    for mine, theirs in zip(gradients, torch.autograd.grad((expected * weights).sum(), qkv), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-12, rtol=1e-12)


@given(tries(), st.sampled_from([None, 3]))
@settings(max_examples=30, deadline=None)
def test_soft_capping_agrees(sequences, window):
    row = pack_together(sequences)
    qkv = drawn(row, 1, 2)
    mine, theirs = (run(way, row, qkv, sliding_window=window, softcap=0.7)[0] for way in ("by block", "by segment"))
    assert torch.allclose(mine, theirs, atol=1e-6, rtol=0), "capped scores are reduced in fp32"


@given(tries(), st.sampled_from([None, 1, 3, 9]))
@settings(max_examples=100, deadline=None)
def test_blocks_are_what_the_mask_says(sequences, window):
    """Every block with a visible pair is listed, as full only if all of its pairs are visible."""
    row = pack_together(sequences)
    mask = Layout(row).blocks(window, torch.device("cpu"))
    length = mask.seq_lengths[0]
    assert length % attention.BLOCK == 0 and length - len(row.ids) < attention.BLOCK
    query, key = torch.arange(length)[:, None], torch.arange(length)[None]
    by_block = mask.mask_mod(0, 0, query, key).unflatten(1, (-1, attention.BLOCK)).unflatten(0, (-1, attention.BLOCK))
    some, every = by_block.any(3).any(1), by_block.all(3).all(1)
    partial, full = torch.zeros_like(some), torch.zeros_like(some)
    for listed, counts, places in (
        (partial, mask.kv_num_blocks, mask.kv_indices),
        (full, mask.full_kv_num_blocks, mask.full_kv_indices),
    ):
        for q, count in enumerate(counts[0, 0].tolist()):
            listed[q, places[0, 0, q, :count].long()] = True
    assert not (full & ~every).any(), "a hidden pair would be seen"
    assert not (some & ~(partial | full)).any(), "a visible pair would be missed"
    assert not (partial & full).any(), "a pair would count twice"
    if window is None:
        assert torch.equal(full, every) and torch.equal(partial | full, some), "no block is computed for nothing"
