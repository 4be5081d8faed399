"""Packed training as a GPU runs it: one call of FlashAttention a layer (here in its plain form), in compiled layers."""

import plain_flash
import pytest
import torch
from datasets import Dataset
from trl import RewardConfig

from reward_modeling import checkpoints, guard
from reward_modeling.gpu_speed import Speed
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
  args["gradient_checkpointing"] = False  # as train.py has it for small models
  return outcome.OutcomeTrainer(
        model=loaded.model, args=RewardConfig(str(output), **{**args, **fields}), train_dataset=Dataset.from_list(rows),
        processing_class=loaded.tokenizer, data_collator=PaddedCollator(3),
    )  # fmt: skip


@pytest.fixture
def like_a_gpu(monkeypatch):
  plain_flash.use(monkeypatch)
  compiled = []
  monkeypatch.setattr(packed, "compile_layers", compiled.append)
  return compiled


def losses(trainer):
  """Of every batch, through the trainer's own loader."""
  trainer.model.eval()
  with torch.no_grad():
    loader = trainer.get_eval_dataloader(trainer.train_dataset)
    return [trainer.compute_loss(trainer.model, trainer._prepare_inputs(dict(batch))).item() for batch in loader]


@pytest.mark.parametrize("workers", [0, 1])
def test_losses_are_those_of_padded_batches(workers, tiny, tmp_path, like_a_gpu):
  """Also where layouts are made in a worker of the loader."""
  trainer = trainer_of(tiny("gemma2"), tmp_path, dataloader_num_workers=workers)
  expected = losses(trainer)
  with packed_batches(trainer, True) as reason:
    assert reason is None
    (batch, *_) = trainer.get_train_dataloader()
    assert batch["layout"].paths is not None, "made by the collator"
    assert losses(trainer) == pytest.approx(expected, abs=1e-5)
  assert len(expected) > 1


@pytest.mark.parametrize(
  ("fields", "spent", "wanted", "expected", "compiles"),
  [
    ({"bf16": True}, (99, 50, 30), None, None, True),
    ({"bf16": True}, (99, 50, 45), None, None, False),
    ({"bf16": True}, (50, 51, 45), None, "so little", False),
    ({"bf16": True}, (50, 51, 30), None, None, True),
    ({"bf16": True}, None, None, "so small", False),
    ({}, (99, 50, 30), None, "float32", False),
    ({"bf16": True}, (50, 51, 49), True, None, False),
    ({"bf16": True}, (99, 50, 30), False, "asks for it", False),
    ({"bf16": True, "torch_compile": True}, (99, 50, 30), None, None, False),
    ({"bf16": True, "gradient_checkpointing": True}, (99, 50, 30), None, None, False),
    ({"bf16": True, "gradient_checkpointing": True}, (199, 150, 30), None, None, True),
  ],
)
def test_the_rule_decides_unless_told(
  fields, spent, wanted, expected, compiles, tiny, tmp_path, like_a_gpu, monkeypatch
):
  asked = []
  monkeypatch.setattr(packed, "speed_of", lambda speeds, hidden: asked.append(hidden) or (spent and Speed(*spent)))
  monkeypatch.setattr(packed, "spent_in_training", lambda speed, *given: asked.append(given) or speed)
  trainer = trainer_of(tiny("qwen2"), tmp_path, num_train_epochs=3, **fields)
  with packed_batches(trainer, wanted) as reason:
    assert reason is None if expected is None else expected in reason
  assert bool(like_a_gpu) == compiles
  if wanted is None and spent:
    hidden, (rows, per_batch, batches, share) = asked
    assert (hidden, len(rows), per_batch, share) == (trainer.model.config.hidden_size, 12, 6, True)
    assert batches == pytest.approx(3 * 12 / 6)


def test_compiled_layers_train_alike_and_are_restored(tiny, tmp_path, monkeypatch):
  """Losses and gradients, with one graph for rows of all lengths, counted by the compiler without machine code."""
  from torch._dynamo.testing import CompileCounterWithBackend

  from reward_modeling import gpu_speed

  plain_flash.use(monkeypatch)
  counter, found = CompileCounterWithBackend("aot_eager"), {}
  plain = torch.nn.Module.compile
  monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **how: plain(module, backend=counter, **how))
  for compiled in (False, True):
    torch._dynamo.reset()
    trainer = trainer_of(tiny("qwen2"), tmp_path)
    base = trainer.model
    with packed_batches(trainer, True), torch._dynamo.config.patch(suppress_errors=False):
      if compiled:
        gpu_speed.compile_layers(base)
        torch._dynamo.config.suppress_errors = False
      for batch in trainer.get_train_dataloader():
        trainer.compute_loss(base, trainer._prepare_inputs(dict(batch))).backward()
    found[compiled] = {name: p.grad.clone() for name, p in base.named_parameters() if p.grad is not None}
    assert all(layer._compiled_call_impl is None for layer in base.model.layers), "saving and scoring get a plain model"
  assert 1 <= counter.frame_count <= 2 and len(found[True]) > 10
  for name, exact in found[False].items():
    assert torch.allclose(found[True][name], exact, atol=1e-6, rtol=1e-4), name


def test_a_small_model_that_fails_on_the_device_is_padded(tiny, tmp_path, like_a_gpu, monkeypatch):
  monkeypatch.setattr(packed, "speed_of", lambda *_: Speed(99, 50, 45))
  monkeypatch.setattr(packed, "spent_in_training", lambda speed, *_: speed)
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
