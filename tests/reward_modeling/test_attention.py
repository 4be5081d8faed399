"""Attention by tiles, and FlexAttention by blocks, give the numbers and gradients of PyTorch's own, called segment by segment."""

import contextlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_modeling import attention
from reward_modeling.attention import Layout, shared_prefix_attention
from reward_modeling.packing import pack_together
from tries import tries

WAYS = {
    "by segment": {"TILED_THREADS": 0},
    "by tile": {"TILED_THREADS": 10**6},
    "by block": {"BLOCK_DEVICES": ("cpu",)},
}
"""What chooses each way. FlexAttention is not compiled here: its plain form has the same mask."""


@pytest.fixture(autouse=True, scope="module")
def small_tiles():
    """Tiles of three queries and blocks of four tokens, so that short sequences have several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "TILE", 3)
        patch.setattr(attention, "BLOCK", 4)
        yield


@contextlib.contextmanager
def choosing(way):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in WAYS[way].items():
            patch.setattr(attention, name, value)
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


@given(tries(), st.sampled_from([1, 2]), st.sampled_from([1, 3]), st.sampled_from([None, 1, 2, 5, 64]))
@settings(max_examples=100, deadline=None)
def test_all_ways_agree(sequences, key_heads, shared_by, window):
    row = pack_together(sequences)
    qkv = drawn(row, key_heads, shared_by)
    expected = run("by segment", row, qkv, sliding_window=window, scaling=0.3)
    for way in ("by tile", "by block"):
        for mine, theirs in zip(run(way, row, qkv, sliding_window=window, scaling=0.3), expected, strict=False):
            assert mine.shape == theirs.shape
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


@given(tries(), st.sampled_from([None, 2]), st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_read_is_all_that_is_computed(sequences, window, data):
    row = pack_together(sequences)
    read = data.draw(st.sets(st.integers(0, len(row.ids) - 1), min_size=1))
    qkv = drawn(row, 2, 2)
    with choosing("by segment"):
        every, _ = shared_prefix_attention(None, *qkv, None, layout=Layout(row), sliding_window=window)
        layout = Layout(row, read=read).of_last_layer()
        some, _ = shared_prefix_attention(None, *qkv, None, layout=layout, sliding_window=window)
    places = sorted(read)
    assert torch.allclose(some[:, places], every[:, places], atol=1e-12, rtol=1e-12)
    others = sorted(set(range(len(row.ids))) - read)
    assert not some[:, others].any()
    mine, theirs = (torch.autograd.grad(out[:, places].sin().sum(), qkv) for out in (some, every))
    assert all(torch.allclose(a, b, atol=1e-12, rtol=1e-12) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("window", [None, 4])
def test_gradients_are_those_of_finite_differences(window):
    row = pack_together([list(range(10)), [*range(9), 20, 21], [30, 31]])
    assert len(row.segments) == 3
    layout = Layout(row)

    def attend(*qkv):
        return attention.TiledAttention.apply(*qkv, layout, window, 0.5)

    assert torch.autograd.gradcheck(attend, drawn(row, 2, 2))


def test_full_tiles_agree_in_fp32(monkeypatch):
    monkeypatch.setattr(attention, "TILE", 64)
    prompt = list(range(150))
    row = pack_together([[*prompt, *range(1000 * i, 1000 * i + 90)] for i in range(1, 4)])
    qkv = drawn(row, 2, 4, torch.float32)
    for mine, theirs in zip(run("by tile", row, qkv), run("by segment", row, qkv), strict=True):
        assert torch.allclose(mine, theirs, atol=2e-6 * theirs.abs().max().item(), rtol=0)


def test_half_precision_keeps_its_scores_in_fp32(monkeypatch):
    """Tiles would round them: PyTorch's attention is called, however few the threads."""
    row = pack_together([list(range(12))])
    monkeypatch.setattr(attention.TiledAttention, "apply", lambda *_: pytest.fail("by tile"))
    with choosing("by tile"):
        out, _ = shared_prefix_attention(None, *drawn(row, 1, 1, torch.bfloat16), None, layout=Layout(row))
    assert out.dtype == torch.bfloat16
