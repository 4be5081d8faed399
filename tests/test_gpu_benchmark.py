"""benchmarks/gpu.py: its kernels in plain form are those of one sequence at a time, and its command runs on a CPU."""

import json
import subprocess
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
sys.path.append(str(BENCHMARKS))

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


@given(tries(), st.sampled_from([1, 2]), st.sampled_from([1, 3]), st.sampled_from(["flex", "merge"]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_kernels_are_one_at_a_time_forward_and_backward(sequences, key_heads, shared_by, kernel, windowed):
  """FlexAttention has no backward pass on a CPU."""
  row, window = pack_together(sequences), 3 if windowed and kernel == "flex" else None
  generator = torch.Generator().manual_seed(0)
  qkv = [
    torch.randn(1, n, len(row.ids), 4, generator=generator, dtype=torch.float64, requires_grad=kernel != "flex")
    for n in (key_heads * shared_by, key_heads, key_heads)
  ]
  expected = alone(row, *qkv, window, 0.3)
  with attending_by(kernel):
    out, _ = shared_prefix_attention(None, *qkv, None, layout=Layout(row), scaling=0.3, sliding_window=window)
  assert torch.allclose(out, expected, atol=1e-12, rtol=1e-12)
  if kernel == "flex":
    return
  weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
  mine, theirs = (torch.autograd.grad((one * weights).sum(), qkv) for one in (out, expected))
  for a, b in zip(mine, theirs, strict=True):
    assert torch.allclose(a, b, atol=1e-12, rtol=1e-12)


def test_a_model_gives_the_rewards_and_gradients_it_gives_by_segment():
  model = build("qwen2", GOOD["qwen2"])
  prompt = list(range(1, 20))
  row = pack_together([[*prompt, 30, 31, 32], [*prompt, 40], [*prompt, 40, 41, 42], [*prompt[:10], 7]])
  found = []
  for name in ("flash", "merge"):
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
  for kernel, more in (("flex", {"softcap": 1.0}), ("merge", {"sliding_window": 2})):
    with attending_by(kernel), pytest.raises(UnsupportedAttentionError):
      shared_prefix_attention(None, *qkv, None, layout=Layout(row), **more)


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
  """gpu.json and gpu.md of the command with tiny models on this CPU."""
  folder = tmp_path_factory.mktemp("gpu") / "out"
  words = ["--device", "cpu", "--tiny", "--rounds", "1", "--out", str(folder)]
  command = [sys.executable, str(BENCHMARKS / "gpu.py"), *words]
  run = subprocess.run(command, capture_output=True, text=True)
  assert run.returncode == 0, run.stderr[-2000:]
  return json.loads((folder / "gpu.json").read_text("utf-8")), (folder / "gpu.md").read_text("utf-8")


def test_every_part_runs_on_a_cpu_and_says_that_it_is_none(tried):
  told, table = tried
  assert list(told["parts"]) == ["env", "train", "score", "ppo", "precision", "guard", "pipeline"]
  notes = {name: row["note"] for part in told["parts"].values() for name, row in part.items() if "note" in row}
  assert list(notes) == ["TRL 1.12"], notes
  assert table.startswith("# CPU (no GPU was used)") and "not a measurement" in table
  assert all(f"## {part}" in table for part in told["parts"])


def test_all_ways_score_alike_and_the_shares_are_shares(tried):
  told = tried[0]["parts"]["score"]
  ways = {name.rpartition(": ")[2] for name in told}
  assert {
    "padded, 16 by length",
    "packed, nothing shared, 16384",
    "shared, 16384, merge",
    "RewardModel, compiled",
  } <= ways
  for name, row in told.items():
    assert row["largest difference"] < (1e-5 if "float32" in name else 0.1) * row["spread"], name
    assert 0 < row["share"] < 2 and row["tokens a second"] > 0, name


def test_packed_gradients_are_those_of_fp32_and_as_near_in_bf16_as_padded_ones(tried):
  found = tried[0]["parts"]["precision"]
  for work in ("pairs like HH", "pairs of single turns"):
    assert found[f"0.5B, {work}: fp32, shared"]["gradient"] < 1e-5
    padded, *packed = (
      found[f"0.5B, {work}: bf16, {way}"]["gradient"] for way in ("padded", "shared", "shared, compiled")
    )
    assert 1e-4 < padded < 0.05 and max(packed) < 2 * padded


def test_the_phases_of_ppo_are_all_of_its_updates(tried):
  row = tried[0]["parts"]["ppo"]["tiny, 8 answers an update: ours"]
  phases = {name.removesuffix(", s"): row[name] for name in row if name.endswith(", s") and name != "process, s"}
  assert set(phases) == {"sampling", "rewards", "probabilities", "learning", "rest"}
  assert sum(phases.values()) == pytest.approx(row["seconds an update"])
  assert row["answers a second"] == pytest.approx(8 / row["seconds an update"]) and 1 <= row["tokens an answer"] <= 8


def test_the_time_of_planning_is_that_of_rows_with_their_pieces():
  from scoring import planning_seconds

  prompt = list(range(1, 300))
  assert planning_seconds([[*prompt, *[i] * 20] for i in range(8)]) > 0
