"""FlexAttention by blocks gives the numbers of PyTorch's own attention called segment by segment, and both those of one mask."""

import contextlib
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, MistralConfig, Qwen2Config

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
  layout, length = Layout(row), len(row.ids)
  if way == "by block":
    missing = attention.row_length(length) - length
    qkv = [torch.nn.functional.pad(tensor.detach(), (0, 0, 0, missing)) for tensor in qkv]
  with choosing(way):
    out, _ = shared_prefix_attention(None, *qkv, None, layout=layout, **arguments)
  if way == "by block":
    return (out[:, :length],)
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
  assert length % attention.BLOCK == 0 and length - len(row.ids) < max(attention.BLOCK, len(row.ids) / 16)
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


@given(st.integers(1, 10**6))
def test_rows_have_few_lengths_and_little_filling(tokens):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(attention, "BLOCK", 128)
    length = attention.row_length(tokens)
    assert 0 <= length - tokens < max(128, tokens / 16) and length % 128 == 0
    assert attention.row_length(length) == length
    assert len({attention.row_length(n) for n in range(16384, 32768, 97)}) <= 17


@pytest.mark.parametrize("window", [None, 3])
def test_kernels_are_compiled_three_times_at_most(window):
  """Whatever the lengths of the rows: counted by the compiler, without making machine code."""
  from torch._dynamo.testing import CompileCounter
  from torch.nn.attention.flex_attention import flex_attention

  torch._dynamo.reset()
  counter, lengths = CompileCounter(), set()
  compiled = torch.compile(flex_attention, backend=counter)
  for answers in (1, 2, 3, 5, 8, 13, 21, 34):
    row = pack_together([[1] * 9 + [2 + i % 3] * (i + 1) for i in range(answers)])
    mask = Layout(row).blocks(window, torch.device("cpu"))
    lengths.add(mask.seq_lengths[0])
    query = torch.zeros(1, 4, mask.seq_lengths[0], 16)
    compiled(query, query[:, :2], query[:, :2], block_mask=mask, scale=0.3, enable_gqa=True)
  assert len(lengths) > 5 and counter.frame_count <= 3


@given(tries(), st.sampled_from([None, 3]))
@settings(max_examples=30, deadline=None)
def test_masks_made_in_advance_are_those_made_on_demand(sequences, window):
  """As the loader's worker makes them, and accelerate moves them."""
  from accelerate.utils import send_to_device

  row, cpu = pack_together(sequences), torch.device("cpu")
  config = Qwen2Config(use_sliding_window=True, sliding_window=3, max_window_layers=1, num_hidden_layers=2)
  with choosing("by block"):
    made = send_to_device({"layout": pickle.loads(pickle.dumps(Layout(row, config)))}, cpu)["layout"]
    assert set(made._made) == {(None, cpu), (3, cpu)}
    mask, other = (layout.blocks(window, cpu) for layout in (made, Layout(row)))
  for name in attention.BLOCK_TABLES:
    assert torch.equal(getattr(mask, name), getattr(other, name)) and getattr(mask, name).dtype == torch.int32
  assert mask.seq_lengths == other.seq_lengths


def test_windows_are_those_of_the_layers():
  assert attention.windows_of(Qwen2Config(sliding_window=None)) == {None}
  both = Qwen2Config(use_sliding_window=True, sliding_window=7, max_window_layers=1, num_hidden_layers=2)
  assert attention.windows_of(both) == {None, 7}
  assert attention.windows_of(MistralConfig(sliding_window=9)) == {9}
  assert attention.windows_of(GPT2Config()) == {None}


def test_tensors_of_any_shape_are_sent_together():
  tensors = [torch.arange(6).view(2, 3), torch.tensor([7]), torch.empty(0, 2, dtype=torch.long), torch.tensor(8)]
  for mine, theirs in zip(attention.sent(tensors, torch.device("cpu")), tensors, strict=True):
    assert torch.equal(mine, theirs) and mine.dtype == theirs.dtype
