"""benchmarks/gpu.py: its kernels in plain form are those of one sequence at a time, and its command runs on a CPU."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from architectures import GOOD, build
from reward_modeling import attention
from reward_modeling.attention import Layout, UnsupportedAttentionError, shared_prefix, shared_prefix_attention
from reward_modeling.packing import pack_together
from tries import tries

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import gpu_kernels  # noqa: E402
from gpu_kernels import attending_by  # noqa: E402


def alone(row, query, key, value, window, scaling):
    """Softmax attention of each token to those before it in its own sequence, written down from the definition."""
    out = torch.zeros(len(row.ids), query.shape[1], query.shape[3], dtype=query.dtype)
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    for places in row.places:
        for i, place in enumerate(places):
            own = places[max(0, i + 1 - (window or i + 1)) : i + 1]
            weights = (scaling * (query[0, :, place, None] * key[0, :, own]).sum(-1)).softmax(-1)
            out[place] = (weights[..., None] * value[0, :, own]).sum(1)
    return out[None]


@given(tries(), st.sampled_from([1, 2]), st.sampled_from([1, 3]), st.sampled_from(["gather", "merge"]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_kernels_are_one_at_a_time_forward_and_backward(sequences, key_heads, shared_by, kernel, windowed):
    row, window = pack_together(sequences), 3 if windowed and kernel == "gather" else None
    generator = torch.Generator().manual_seed(0)
    qkv = [
        torch.randn(1, n, len(row.ids), 4, generator=generator, dtype=torch.float64, requires_grad=True)
        for n in (key_heads * shared_by, key_heads, key_heads)
    ]
    expected = alone(row, *qkv, window, 0.3)
    with attending_by(kernel):
        out, _ = shared_prefix_attention(None, *qkv, None, layout=Layout(row), scaling=0.3, sliding_window=window)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    assert torch.allclose(out, expected, atol=1e-12, rtol=1e-12)
    mine, theirs = (torch.autograd.grad((one * weights).sum(), qkv) for one in (out, expected))
    for a, b in zip(mine, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("kernel", ["gather", "merge"])
def test_a_model_gives_the_rewards_and_gradients_it_gives_by_segment(kernel):
    model = build("qwen2", GOOD["qwen2"])
    prompt = list(range(1, 20))
    row = pack_together([[*prompt, 30, 31, 32], [*prompt, 40], [*prompt, 40, 41, 42], [*prompt[:10], 7]])
    found = []
    for name in ("flex", kernel):
        model.zero_grad()
        with attending_by(name), shared_prefix(model):
            rewards = attention.outputs_at(model, model.score, row, row.ends)[:, 0]
        rewards.square().sum().backward()
        found.append([rewards.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert found[0][0].std() > 0.01
    for mine, theirs in zip(*found, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-10, rtol=1e-10)


def test_kernels_refuse_what_they_do_not_do():
    row, qkv = pack_together([[1, 2, 3]]), [torch.ones(1, 1, 3, 4)] * 3
    for kernel, more in (("gather", {"softcap": 1.0}), ("merge", {"sliding_window": 2})):
        with attending_by(kernel), pytest.raises(UnsupportedAttentionError):
            shared_prefix_attention(None, *qkv, None, layout=Layout(row), **more)
    assert gpu_kernels.KERNELS[0] == "flex"
