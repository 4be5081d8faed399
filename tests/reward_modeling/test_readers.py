"""Public reward models: recognized, rendered and read as their authors do; the formula by hand in plain torch."""

import pytest
import torch
from public_models import HIDDEN, linear, save, tokenizer, trunk

from reward_modeling import RewardModel

ASKED = [
    ("What is the capital of France?", "It is Paris."),
    ("How many apples?", "There are twelve apples in the basket."),
]


def hidden(model, ids):
    """[T, H] last hidden states of one row alone."""
    with torch.no_grad():
        return getattr(model, "model", model)(input_ids=torch.tensor([ids])).last_hidden_state[0]


def scored(folder, **given):
    model = RewardModel.from_pretrained(str(folder), device="cpu", **given)
    together = model.score([[{"role": "user", "content": p}] for p, _ in ASKED], [c for _, c in ASKED])
    alone = [model.score([p], [c])[0] for p, c in ASKED]
    model.shared_prefix = False
    model.__dict__.pop("_why_padded", None)
    padded = model.score([p for p, _ in ASKED], [c for _, c in ASKED])
    assert together == pytest.approx(alone, abs=1e-5) == padded
    return model, together


def test_linear_head(tmp_path):
    made = tokenizer()
    model, tensors = trunk(tmp_path, "llama", made)
    head = linear(1, HIDDEN)
    save(tmp_path, model.config, {**tensors, "v_head.weight": head}, made, architectures=["SomeRewardModel"])
    _, scores = scored(tmp_path)
    for score, (prompt, answer) in zip(scores, ASKED, strict=True):
        ids = made.apply_chat_template(
            [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}], return_dict=False
        )
        assert score == pytest.approx((hidden(model, ids)[-1] @ head[0]).item(), abs=1e-4)
