"""Packed and padded batches give the same logits, at one position of a row or several, whatever the batches."""

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import process_model
from reward_modeling import forward
from reward_modeling.forward import logits_at, scores_of, values_of
from reward_modeling.packing import shared_length

ROWS = [
  ([5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [9]),
  ([5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16], [3, 8, 10]),
  ([20, 21], [0, 1]),
  ([20, 21], [1]),
  ([5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [9]),
]


@pytest.fixture(scope="module")
def model():
  return process_model("qwen2").model


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("max_tokens", [1, 12, None])
def test_logits_are_those_of_one_row_at_a_time(model, padded, max_tokens):
  found = {}
  for numbers, logits in logits_at(model, ROWS, padded=padded, pad_token_id=0, max_tokens=max_tokens):
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled(), "a caller keeps its own mode"
    own = logits.split([len(ROWS[number][1]) for number in numbers])
    assert not set(numbers) & set(found)
    found |= dict(zip(numbers, own, strict=True))
  for number, (ids, positions) in enumerate(ROWS):
    with torch.no_grad():
      alone = model(input_ids=torch.tensor([ids])).logits[0, positions]
    assert torch.allclose(found[number], alone, atol=1e-5, rtol=0)
  assert torch.equal(found[0], found[4]), "equal rows tie"


def test_scores_of_one_label_and_of_two():
  assert scores_of(torch.tensor([[3.0], [-1.0]])).tolist() == [3.0, -1.0]
  assert scores_of(torch.tensor([[1.0, 3.0]])).tolist() == [2.0]


@given(st.lists(st.integers(0, 1), max_size=9), st.lists(st.integers(0, 1), max_size=9))
def test_the_common_prefix_of_lists_and_texts(a, b):
  texts = ["".join(map(str, row)) for row in (a, b)]
  assert shared_length(a, b) == shared_length(*texts) == len(os.path.commonprefix(texts))


def test_the_device_is_waited_for_once_a_batch(model, monkeypatch):
  """Not once a row: each of these calls makes a program wait until a GPU is done."""
  waits = []
  for name in ("tolist", "item", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__"):
    plain = getattr(torch.Tensor, name)
    counted = lambda self, *args, plain=plain, **more: waits.append(plain) or plain(self, *args, **more)  # noqa: E731
    monkeypatch.setattr(torch.Tensor, name, counted)
  rows = [([*range(5, 14), i, i + 1], [8, 10]) for i in range(20, 50)]
  with torch.inference_mode():
    for _, logits in logits_at(model, rows, padded=False, pad_token_id=0, max_tokens=4096):
      assert not waits
      assert len(values_of(model, logits, [2] * 30)) == 30
  assert len(waits) == 1


def test_the_next_batch_is_launched_before_one_is_read(model, monkeypatch):
  launched, plain = [], forward.outputs_at
  monkeypatch.setattr(forward, "outputs_at", lambda *args: launched.append(args) or plain(*args))
  seen = [len(launched) for _ in logits_at(model, ROWS, padded=False, pad_token_id=0, max_tokens=1)]
  assert seen == [min(i + 2, len(seen)) for i in range(len(seen))] and len(seen) > 2
