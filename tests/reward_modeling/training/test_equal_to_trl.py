"""Packed training is TRL's own: the same gradients on the same batch, the same losses over fifty steps."""

import copy
import logging
import random

import pytest
import torch

from architectures import GOOD, build
from reward_modeling.precision import precision
from reward_modeling.training import configuration
from reward_modeling.training.outcome import OutcomeTrainer, PaddedCollator
from reward_modeling.training.packed import packed_batches
from reward_modeling.training.settings import LoraSettings

LORA = LoraSettings(use_peft=True, lora_r=4, lora_alpha=8, lora_dropout=0.0)

logging.getLogger("transformers").setLevel(logging.ERROR)

PAIRS, STEPS = 4, 50
FAMILIES = ("qwen2", "qwen3", "llama", "mistral", "gemma2", "gemma3_text", "gpt2", "phi3", "qwen3_moe", "mixtral")


def batches(count: int, seed: int = 0) -> list[list[dict]]:
  """Batches of pairs with long shared prompts, in TRL's columns and in ours."""
  rng = random.Random(seed)

  def draw(low: int, high: int) -> list[int]:
    return [rng.randrange(1, 64) for _ in range(rng.randint(low, high))]

  made = []
  for _ in range(count):
    rows = []
    for _ in range(PAIRS):
      prompt = draw(10, 30)
      chosen, rejected = prompt + draw(1, 12), prompt + draw(1, 12)
      ours = {"sequences": [chosen, rejected], "chosen": [0], "rejected": [1], "margin": [0.0], "weight": [1.0]}
      rows.append({"chosen_ids": chosen, "rejected_ids": rejected, **ours})
    made.append(rows)
  return made


def trainers(model, folder, lora: bool):
  """TRL's RewardTrainer as it is, and ours, on two copies of a model."""
  from datasets import Dataset
  from tokenizers import Tokenizer, models
  from transformers import PreTrainedTokenizerFast
  from trl import RewardConfig, RewardTrainer

  words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))
  tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]")
  arguments = RewardConfig(
        str(folder), max_length=None, gradient_checkpointing=False, report_to=[], center_rewards_coefficient=0.01,
        **precision(),
    )  # fmt: skip
  given = {"args": arguments, "train_dataset": Dataset.from_list(batches(1)[0]), "processing_class": tokenizer}
  made = []
  for trainer, more in ((RewardTrainer, {}), (OutcomeTrainer, {"data_collator": PaddedCollator(0)})):
    torch.manual_seed(0)
    peft = configuration.lora_of(LORA, model) if lora else None
    made.append(trainer(model=copy.deepcopy(model), peft_config=peft, **given, **more))
  return made


def backward(trainer, rows) -> float:
  trainer.model.train()
  trainer.model.zero_grad()
  loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
  loss.backward()
  return loss.item()


@pytest.mark.parametrize("name", [*FAMILIES, "qwen2 with LoRA"])
def test_gradients_and_fifty_steps_are_trls(name, tmp_path):
  family, lora = name.split()[0], name.endswith("LoRA")
  theirs, ours = trainers(build(family, GOOD[family], torch.float32), tmp_path, lora)
  made = batches(10)
  with packed_batches(ours) as reason:
    assert reason is None
    assert backward(ours, made[0]) == pytest.approx(backward(theirs, made[0]), abs=1e-6)
    gradients = [
      (mine.grad, other.grad)
      for mine, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True)
      if other.grad is not None
    ]
    # Relative to each tensor; one whose gradient is nothing but rounding (the bias of keys) to the largest of all.
    largest = max(other.abs().max() for _, other in gradients)
    for mine, other in gradients:
      assert (mine - other).abs().max() <= 5e-6 * other.abs().max().clamp(min=1e-3 * largest)
    optimizers = [
      torch.optim.AdamW([p for p in trainer.model.parameters() if p.requires_grad], lr=1e-3 if lora else 1e-4)
      for trainer in (ours, theirs)
    ]
    losses = []
    for step in range(STEPS):
      losses.append([backward(trainer, made[step % len(made)]) for trainer in (ours, theirs)])
      for optimizer in optimizers:
        optimizer.step()
  assert max(abs(mine - other) for mine, other in losses) <= 1e-5
  first, last = (sum(other for _, other in part) for part in (losses[:10], losses[-10:]))
  assert last < first, "the model learns, so that the losses are worth comparing"
