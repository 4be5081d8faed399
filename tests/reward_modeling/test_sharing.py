"""Packed rows give the rewards and gradients of one-at-a-time scoring, for models that may use them; others are refused."""

import plain_flash
import pytest
import torch
from hypothesis import given, settings

import architectures
from architectures import GOOD, WRONG, build
from reward_modeling import attention, guard
from reward_modeling.attention import Layout, UnsupportedAttentionError, shared_prefix, shared_prefix_attention
from reward_modeling.packing import pack, pack_together
from tries import tries


def alone(model, sequences):
  with torch.no_grad():
    return torch.stack([model(input_ids=torch.tensor([s])).logits[0, 0] for s in sequences])


def rewards(model, row):
  return attention.outputs_at(model, model.score, row, row.ends)[:, 0]


def packed(model, sequences, **kwargs):
  found = torch.empty(len(sequences), dtype=next(model.parameters()).dtype)
  with torch.no_grad(), shared_prefix(model):
    for row in pack(sequences, **kwargs):
      found[row.sequences] = rewards(model, row)
  return found


def groups(seed=0, prompts=3, answers=4):
  generator = torch.Generator().manual_seed(seed)
  draw = lambda n: torch.randint(1, 64, (n,), generator=generator).tolist()  # noqa: E731
  made = []
  for p in range(prompts):
    prompt = draw(10 + 3 * p)
    made += [prompt + draw(1 + 4 * a) for a in range(answers)]
  return made


@pytest.fixture(params=["by segment", "flash"])
def way(request, monkeypatch):
  """Attention in one of its ways."""
  if request.param == "flash":
    plain_flash.use(monkeypatch)


@pytest.mark.parametrize("name", GOOD)
def test_rewards_are_those_of_one_at_a_time(name, way):
  model = build(name, GOOD[name])
  assert guard.reason_against(model, True) is None
  sequences = groups()
  expected = alone(model, sequences)
  assert expected.std() > 0.01
  assert torch.allclose(packed(model, sequences), expected, atol=1e-6, rtol=0)
  assert model.config._attn_implementation != "reward_modeling_shared_prefix", "the model is left as it was"


@pytest.mark.parametrize("name", WRONG)
def test_models_that_would_be_wrong_are_refused(name):
  model = build(name, WRONG[name])
  assert guard.reason_against(model), f"{name} must not be packed"


@pytest.mark.parametrize("name", ["falcon", "bloom", "gpt_oss"])
def test_the_guard_is_what_stands_between_them_and_wrong_rewards(name, monkeypatch):
  """Without the guard these models run and are silently wrong, or only our attention's refusal stops them."""
  model = build(name, WRONG[name])
  sequences = groups()
  try:
    difference = (packed(model, sequences) - alone(model, sequences)).abs().max()
  except UnsupportedAttentionError:
    return
  assert difference > 1e-5


@pytest.fixture(scope="module")
def exact():
  return architectures.exact(build("qwen2", {}))


@given(tries())
@settings(max_examples=40, deadline=None)
def test_any_trie_gives_the_rewards_of_one_at_a_time(exact, sequences):
  sequences = [[token + 1 for token in sequence] for sequence in sequences]
  assert torch.allclose(packed(exact, sequences), alone(exact, sequences), atol=1e-12, rtol=0)
  assert torch.allclose(packed(exact, sequences, max_tokens=16), alone(exact, sequences), atol=1e-12, rtol=0)
  assert torch.allclose(packed(exact, sequences, share=False), alone(exact, sequences), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["qwen2", "gemma2", "gpt2"])
def test_gradients_are_those_of_one_at_a_time(name, way, request):
  if "by block" in request.node.name:
    pytest.skip("FlexAttention has no backward pass on a CPU")
  model = build(name, GOOD[name])
  sequences = groups()
  weights = torch.linspace(-1, 1, len(sequences), dtype=torch.float64)

  def gradients(loss):
    model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

  single = torch.stack([model(input_ids=torch.tensor([s])).logits[0, 0] for s in sequences])
  expected = gradients((single * weights).sum())
  row = pack_together(sequences)
  with shared_prefix(model):
    found = gradients((rewards(model, row) * weights[row.sequences]).sum())
  for mine, theirs in zip(found, expected, strict=True):
    assert torch.allclose(mine, theirs, atol=1e-6 * (1 + theirs.abs().max().item()), rtol=0)


@pytest.mark.parametrize(
  "arguments",
  [{"s_aux": torch.ones(1)}, {"dropout": 0.1}, {"position_bias": torch.ones(1)}, {"attention_mask": torch.ones(1)}],
)
def test_attention_refuses_what_it_does_not_do(arguments):
  layout = Layout(pack_together([[1, 2, 3]]))
  mask = arguments.pop("attention_mask", None)
  qkv = [torch.ones(1, 1, 3, 4)] * 3
  with pytest.raises(UnsupportedAttentionError):
    shared_prefix_attention(None, *qkv, mask, layout=layout, **arguments)


def test_a_config_that_cannot_be_shrunken_is_no_crash():
  """Its batches are padded: a guard that raises would keep the model from scoring at all."""
  model = build("qwen2", {})
  model.config = type("Unusual", (), {"layer_types": None, "get_text_config": lambda self: self})()
  assert "could not be checked" in guard.reason_against(model)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_encoders_are_refused(family, tiny):
  from transformers import AutoModelForSequenceClassification

  model = AutoModelForSequenceClassification.from_pretrained(tiny(family), num_labels=1)
  assert "whole text" in guard.reason_against(model)


def test_equal_completions_tie_to_the_last_bit(way):
  """A product of many rows may round equal rows differently: a tie would be decided by chance."""
  model = build("qwen2", GOOD["qwen2"]).float()
  sequences = [sequence for sequence in groups() for _ in range(3)]
  found = packed(model, sequences).view(-1, 3)
  assert torch.equal(found[:, 0], found[:, 1]) and torch.equal(found[:, 0], found[:, 2])


def test_autocast_trains_packed_rows(way, request):
  """Under autocast queries and keys come in fp32 and values in bfloat16: attention must bring them together."""
  model = build("qwen2", GOOD["qwen2"]).float()
  sequences = groups()
  row = pack_together(sequences)
  grad = "by block" not in request.node.name  # FlexAttention has no backward pass on a CPU
  with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16), shared_prefix(model):
    found = rewards(model, row)
  expected = alone(model, sequences)[row.sequences]
  assert (found - expected).abs().max() < 0.1 * expected.std()
  if grad:
    found.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", GOOD)
def test_a_language_model_and_its_trunk_may_be_packed_where_a_reward_model_may(name):
  model = build(name, GOOD[name], auto="AutoModelForCausalLM")
  assert guard.reason_against(model) is None
  assert guard.reason_against(model.base_model) is None


@pytest.mark.parametrize("name", WRONG)
def test_language_models_that_would_be_wrong_are_refused(name):
  assert guard.reason_against(build(name, WRONG[name], auto="AutoModelForCausalLM"))
