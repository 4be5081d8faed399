"""How fast a step of reward-model training is, against TRL's RewardTrainer, at the same loss and gradients.

    uv run python benchmarks/training.py
    uv run python benchmarks/training.py --shapes "pairs like HH" --rounds 5 --gradient_checkpointing

A Qwen2 of hidden 512 with random fp32 weights, batches of 8 pairs of random tokens, AdamW. One thread, processor time of
collating, forward, backward and optimizer step; the contenders take turns in one process. "by length" gives TRL batches of
pairs of like length, which changes the batches; its time is scaled to the same number of tokens. "gradient" is the largest
difference of a gradient to TRL's on the same batch, relative to the largest value of that tensor.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from scoring import OURS, PAD, SHAPES, allocator_of, reward_model

PAIRS = 8
BATCHES = 2


def batches(name: str, seed: int, by_length: bool) -> list[list[dict[str, Any]]]:
  """BATCHES batches of PAIRS pairs with TRL's columns and ours; sorted by length they come from eight times as many."""
  shape = SHAPES[name]
  rng, rows = random.Random(seed), []
  for _ in range(PAIRS * BATCHES * (8 if by_length else 1)):
    prompt, *answers = (
      [rng.randrange(1, 16384) for _ in range(rng.randint(*lengths))]
      for lengths in (shape.prompt, shape.completion, shape.completion)
    )
    chosen, rejected = (prompt + answer for answer in answers)
    ours = {"sequences": [chosen, rejected], "chosen": [0], "rejected": [1], "margin": [0.0], "weight": [1.0]}
    rows.append({"chosen_ids": chosen, "rejected_ids": rejected, **ours})
  if by_length:
    rows.sort(key=lambda row: max(len(row["chosen_ids"]), len(row["rejected_ids"])))
  made = [rows[i : i + PAIRS] for i in range(0, len(rows), PAIRS)]
  return rng.sample(made, BATCHES)


def tokens(made: list[list[dict[str, Any]]]) -> int:
  return sum(len(row["chosen_ids"]) + len(row["rejected_ids"]) for batch in made for row in batch)


class Contender:
  """A trainer on its own copy of the model; `step` is one optimizer step on one batch."""

  def __init__(self, trainer: Any, optimizer: Any):
    self.trainer, self.optimizer = trainer, optimizer

  def backward(self, batch: list[dict[str, Any]]) -> Any:
    model = self.trainer.model
    model.train()
    self.optimizer.zero_grad()
    loss = self.trainer.compute_loss(model, self.trainer.data_collator(batch))
    loss.backward()
    return loss.detach()

  def step(self, batch: list[dict[str, Any]]) -> None:
    self.backward(batch)
    self.optimizer.step()


def contenders(model: Any, gradient_checkpointing: bool) -> tuple[Contender, Contender]:
  """TRL's trainer as documented, and ours."""
  import torch
  from datasets import Dataset
  from transformers import PreTrainedTokenizerFast
  from trl import RewardConfig, RewardTrainer

  from reward_modeling.precision import precision
  from reward_modeling.training.outcome import OutcomeTrainer, PaddedCollator

  tokenizer = PreTrainedTokenizerFast(tokenizer_object=_no_tokenizer(), pad_token="[PAD]")
  config = RewardConfig(
    tempfile.mkdtemp(), max_length=None, gradient_checkpointing=gradient_checkpointing, report_to=[], **precision()
  )
  data = Dataset.from_list(batches("pairs of single turns", 0, False)[0])
  made = []
  for trainer_class, more in ((RewardTrainer, {}), (OutcomeTrainer, {"data_collator": PaddedCollator(PAD)})):
    twin = copy.deepcopy(model)
    trainer = trainer_class(model=twin, args=config, train_dataset=data, processing_class=tokenizer, **more)
    if gradient_checkpointing:
      twin.gradient_checkpointing_enable()
    made.append(Contender(trainer, torch.optim.AdamW(twin.parameters(), lr=1e-5)))
  return made[0], made[1]


def _no_tokenizer() -> Any:
  from tokenizers import Tokenizer, models

  return Tokenizer(models.WordLevel({"[PAD]": PAD, "[UNK]": 1}, unk_token="[UNK]"))


def gradient_difference(trls: Contender, ours: Contender, batch: list[dict[str, Any]]) -> float:
  for contender in (trls, ours):
    contender.backward(batch)
  pairs = zip(trls.trainer.model.parameters(), ours.trainer.model.parameters(), strict=True)
  return max(((a.grad - b.grad).abs().max() / a.grad.abs().max()).item() for a, b in pairs if a.grad is not None)


def seconds(name: str, contender: Contender, made: list[list[dict[str, Any]]]) -> float:
  allocator_of(name)
  start = time.process_time()
  for batch in made:
    contender.step(batch)
  return time.process_time() - start


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument("--shapes", nargs="+", default=["pairs like HH", "pairs of single turns"], choices=list(SHAPES))
  parser.add_argument("--layers", type=int, default=8)
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--gradient_checkpointing", action="store_true")
  args = parser.parse_args()
  import torch

  from reward_modeling.terminal import table
  from reward_modeling.training.packed import packed_batches

  torch.set_num_threads(1)
  results, lines = {}, []
  for name in args.shapes:
    trls, ours = contenders(reward_model(args.layers).model, args.gradient_checkpointing)
    with packed_batches(ours.trainer):
      plain, sorted_ = batches(name, args.seed, False), batches(name, args.seed, True)
      difference = gradient_difference(trls, ours, plain[0])
      against = {"TRL as documented": [], "TRL, by length": []}
      for _ in range(args.rounds):
        mine = seconds(OURS[0], ours, plain)
        against["TRL as documented"].append(seconds("TRL", trls, plain) / mine)
        against["TRL, by length"].append(seconds("TRL", trls, sorted_) / mine * tokens(plain) / tokens(sorted_))
    results[name] = {"gradient": difference, "speedup": against}
    medians = [f"{statistics.median(r):.2f} [{min(r):.2f}, {max(r):.2f}]" for r in against.values()]
    lines.append([name, *medians, f"{difference:.1e}"])
  columns = ["shape", "x TRL as documented", "x TRL, by length", "gradient"]
  table(f"times faster in training, {args.layers} layers, 1 thread", columns, lines)
  print(json.dumps(results, indent=2))


if __name__ == "__main__":
  main()
