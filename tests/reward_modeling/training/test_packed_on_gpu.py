"""Packed training as a GPU runs it, by blocks: what a CPU can show, which is all but the backward pass."""

import pytest
import torch
from datasets import Dataset
from trl import RewardConfig

from reward_modeling import attention, checkpoints, guard
from reward_modeling.heads import keep_head_in_float32
from reward_modeling.training import outcome, packed
from reward_modeling.training.outcome import PaddedCollator
from reward_modeling.training.packed import packed_batches


def trainer_of(folder, output, **fields):
  torch.manual_seed(0)
  draw = lambda n: torch.randint(4, 60, (n,)).tolist()  # noqa: E731
  rows = []
  for i in range(12):
    prompt = draw(10 + i)
    row = {"chosen": [0], "rejected": [1], "margin": [0.1], "weight": [1.0]}
    rows.append({"sequences": [prompt + draw(5), prompt + draw(9)], **row})
  loaded = checkpoints.load_for_training(str(folder))
  args = {"per_device_train_batch_size": 6, "report_to": [], "bf16": False, "use_cpu": True, "max_length": None}
  return outcome.OutcomeTrainer(
        model=loaded.model, args=RewardConfig(str(output), **{**args, **fields}), train_dataset=Dataset.from_list(rows),
        processing_class=loaded.tokenizer, data_collator=PaddedCollator(3),
    )  # fmt: skip


@pytest.fixture
def blocks_on_cpu(monkeypatch):
  monkeypatch.setattr(attention, "BLOCK_DEVICES", ("cpu",))
  monkeypatch.setattr(attention, "BLOCK", 16)


def losses(trainer):
  """Of every batch, through the trainer's own loader."""
  trainer.model.eval()
  with torch.no_grad():
    loader = trainer.get_eval_dataloader(trainer.train_dataset)
    return [trainer.compute_loss(trainer.model, trainer._prepare_inputs(dict(batch))).item() for batch in loader]


@pytest.mark.parametrize("workers", [0, 1])
def test_losses_are_those_of_padded_batches(workers, tiny, tmp_path, blocks_on_cpu):
  """Also where masks are made in a worker of the loader."""
  trainer = trainer_of(tiny("gemma2"), tmp_path, dataloader_num_workers=workers)
  expected = losses(trainer)
  with packed_batches(trainer, True) as reason:
    assert reason is None
    (batch, *_) = trainer.get_train_dataloader()
    assert batch["layout"]._made, "accelerate brought the masks to the device"
    assert batch["input_ids"].shape[1] % 16 == 0
    assert losses(trainer) == pytest.approx(expected, abs=1e-5)
  assert len(expected) > 1


@pytest.mark.parametrize(
  ("fields", "saved", "wanted", "expected"),
  [
    ({"bf16": True}, 1e9, None, None),
    ({"bf16": True}, 5.0, None, "compil"),
    ({"bf16": True}, -5.0, None, "so little"),
    ({"bf16": True}, None, None, "so small"),
    ({}, 1e9, None, "float32"),
    ({}, -5.0, True, None),
    ({"bf16": True}, 1e9, False, "asks for it"),
  ],
)
def test_the_rule_decides_unless_told(fields, saved, wanted, expected, tiny, tmp_path, blocks_on_cpu, monkeypatch):
  asked = []
  monkeypatch.setattr(packed, "saved_in_training", lambda *given: asked.append(given) or saved)
  trainer = trainer_of(tiny("qwen2"), tmp_path, num_train_epochs=3, **fields)
  with packed_batches(trainer, wanted) as reason:
    assert reason is None if expected is None else expected in reason
  if wanted is None:
    ((hidden, rows, per_batch, batches, share),) = asked
    assert (hidden, len(rows), per_batch, share) == (trainer.model.config.hidden_size, 12, 6, True)
    assert batches == pytest.approx(3 * 12 / 6)
  else:
    assert not asked


def test_a_small_model_that_fails_on_the_device_is_padded(tiny, tmp_path, blocks_on_cpu, monkeypatch):
  monkeypatch.setattr(packed, "saved_in_training", lambda *_: 1e9)
  monkeypatch.setattr(guard, "self_check", lambda cls, config, like: float(like.dtype != torch.float64))
  with packed_batches(trainer_of(tiny("qwen2"), tmp_path, bf16=True)) as reason:
    assert "other rewards on packed rows on cpu" in reason


@pytest.mark.parametrize("packed", [False, True])
def test_head_and_loss_are_in_float32_under_bf16_autocast(packed, tiny, tmp_path):
  """Of what bf16 rounds there are hidden states alone: rewards are their product with the fp32 head, added up in fp32."""
  trainer = trainer_of(tiny("qwen2"), tmp_path)
  keep_head_in_float32(trainer.model)
  rewards, hidden = [], []
  trainer._collect_metrics = lambda found, *_: rewards.append(found)
  with packed_batches(trainer, packed) as reason, torch.autocast("cpu", torch.bfloat16):
    assert (reason is None) == packed
    trainer.model.score.register_forward_hook(lambda module, inputs, output: hidden.append((inputs[0], output)))
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(dict(batch)))
  loss.backward()
  assert loss.dtype == rewards[0].dtype == trainer.model.score.weight.grad.dtype == torch.float32
  ((states, scores),) = hidden
  exact = states.double() @ trainer.model.score.weight.detach().double().T
  assert scores.dtype == torch.float32 and (scores - exact).abs().max() < 1e-5 * exact.abs().max()
