"""Attention by tiles gives the numbers and gradients of PyTorch's own attention, called segment by segment."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_modeling import attention
from reward_modeling.attention import Layout, shared_prefix_attention
from reward_modeling.packing import pack_together
from tries import tries

WAYS = {"by segment": 0, "by tile": 10**6}
"""The most threads on which tiles are used."""


@pytest.fixture(autouse=True, scope="module")
def small_tiles():
    """Tiles of three queries, so that short sequences have several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "TILE", 3)
        yield


def drawn(row, key_heads, shared_by, dtype=torch.float64):
    """query [1, H, T, D], key and value [1, K, T, D], in the memory order of a model's projections."""
    generator = torch.Generator().manual_seed(0)
    heads = (key_heads * shared_by, key_heads, key_heads)
    make = lambda n: torch.randn(1, len(row.ids), n, 4, generator=generator, dtype=dtype)  # noqa: E731
    return [make(n).transpose(1, 2).requires_grad_() for n in heads]


def run(way, row, qkv, **arguments):
    """The output, and the gradients of a weighted sum of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "TILED_THREADS", WAYS[way])
        out, _ = shared_prefix_attention(None, *qkv, None, layout=Layout(row), **arguments)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return out, *torch.autograd.grad((out * weights).sum(), qkv)


@given(tries(), st.sampled_from([1, 2]), st.sampled_from([1, 3]), st.sampled_from([None, 1, 2, 5, 64]))
@settings(max_examples=100, deadline=None)
def test_both_ways_agree(sequences, key_heads, shared_by, window):
    row = pack_together(sequences)
    qkv = drawn(row, key_heads, shared_by)
    expected = run("by segment", row, qkv, sliding_window=window, scaling=0.3)
    found = run("by tile", row, qkv, sliding_window=window, scaling=0.3)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.shape == theirs.shape
        assert torch.allclose(mine, theirs, atol=1e-12, rtol=1e-12)


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
    monkeypatch.setattr(attention, "TILED_THREADS", WAYS["by tile"])
    out, _ = shared_prefix_attention(None, *drawn(row, 1, 1, torch.bfloat16), None, layout=Layout(row))
    assert out.dtype == torch.bfloat16
