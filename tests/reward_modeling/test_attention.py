"""A row as one call of FlashAttention gives the numbers of PyTorch's own attention called segment by segment, and both those of
one mask."""

import pickle

import plain_flash
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_modeling import attention
from reward_modeling.attention import Layout, shared_prefix_attention
from reward_modeling.packing import pack_together
from tries import tries


def drawn(row, key_heads, shared_by, dtype=torch.float64):
  """query [1, H, T, D], key and value [1, K, T, D], in the memory order of a model's projections."""
  generator = torch.Generator().manual_seed(0)
  heads = (key_heads * shared_by, key_heads, key_heads)
  make = lambda n: torch.randn(1, len(row.ids), n, 4, generator=generator, dtype=dtype)  # noqa: E731
  return [make(n).transpose(1, 2).requires_grad_() for n in heads]


def run(way, row, qkv, **arguments):
  """The output, and the gradients of a weighted sum of it. The kernel is in its plain form here."""
  with pytest.MonkeyPatch.context() as patch:
    if way == "flash":
      plain_flash.use(patch)
    out, _ = shared_prefix_attention(None, *qkv, None, layout=Layout(row).to("cpu"), **arguments)
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
  expected = by_one_mask(row, *qkv, window, 0.3)
  weights = torch.linspace(-1, 1, expected.numel(), dtype=expected.dtype).view_as(expected)
  exact = expected, *torch.autograd.grad((expected * weights).sum(), qkv)
  for way, atol in (("by segment", 1e-12), ("flash", 1e-6)):  # flash adds up gradients of keys in fp32
    for mine, theirs in zip(run(way, row, qkv, sliding_window=window, scaling=0.3), exact, strict=True):
      assert mine.shape == theirs.shape
      assert torch.allclose(mine, theirs, atol=atol, rtol=atol)


@given(tries(), st.sampled_from([None, 3]))
@settings(max_examples=30, deadline=None)
def test_layouts_made_in_advance_are_those_made_on_demand(sequences, window):
  """As the loader's worker makes them, and accelerate moves them."""
  from accelerate.utils import send_to_device

  row, cpu = pack_together(sequences), torch.device("cpu")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(attention, "FLASH_DEVICES", ("cpu",))
    ahead = Layout(row, cpu)
    made = send_to_device({"layout": pickle.loads(pickle.dumps(ahead))}, cpu)["layout"]
    other = Layout(row).to(cpu)
  assert ahead.paths is not None
  for mine, theirs in zip(made.paths, other.paths, strict=True):
    assert torch.equal(mine, theirs) if isinstance(theirs, torch.Tensor) else mine == theirs
  assert (other.paths.keys is None) == all(segment.depth == 0 for segment in row.segments)


@pytest.mark.parametrize(
  ("change", "flash"),
  [({}, True), ({"softcap": 0.7}, False), ({"width": 264}, False), ({"dtype": torch.float32}, False)],
)
def test_what_the_kernel_cannot_do_goes_by_segment(change, flash, monkeypatch):
  """Also under autocast, which decides the precision."""
  plain_flash.use(monkeypatch)
  monkeypatch.setattr(attention, "FLASH_DTYPES", (torch.bfloat16,))
  called = []
  plain = attention.flash_attention
  monkeypatch.setattr(attention, "flash_attention", lambda *given: called.append(given) or plain(*given))
  row = pack_together([[*range(1, 20), 30 + i] for i in range(3)])
  layout = Layout(row).to("cpu")
  width, dtype = change.get("width", 8), change.get("dtype", torch.bfloat16)
  query, key = (torch.randn(1, n, len(row.ids), width, dtype=dtype) for n in (4, 2))
  run = {"layout": layout, "softcap": change.get("softcap")}
  out, _ = shared_prefix_attention(None, query, key, key, None, **run)
  assert bool(called) == flash and out.shape == (1, len(row.ids), 4, width)
  with torch.autocast("cpu", torch.bfloat16):
    shared_prefix_attention(None, query.float(), key.float(), key.float(), None, **run)
  assert len(called) == 2 * flash + (dtype == torch.float32)


def test_tensors_of_any_shape_are_sent_together():
  tensors = [torch.arange(6).view(2, 3), torch.tensor([7]), torch.empty(0, 2, dtype=torch.long), torch.tensor(8)]
  for mine, theirs in zip(attention.sent(tensors, torch.device("cpu")), tensors, strict=True):
    assert torch.equal(mine, theirs) and mine.dtype == theirs.dtype
