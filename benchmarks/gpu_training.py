"""The parts "train" and "precision" of gpu.py: a step of training beside TRL's, and how far its numbers are from fp32."""

from __future__ import annotations

import contextlib
import math
import tempfile
from functools import partial
from typing import Any

from gpu_kernels import KERNELS, attending_by
from gpu_machine import Found, Machine, Row, attempted, linear_weights, pair_rows
from scoring import PAD


class Contender:
  """A trainer on a model of its own; `step` is one optimizer step. ahead: batches were made by a worker of the loader."""

  def __init__(self, machine: Machine, ours: bool, checkpointing: bool):
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import RewardConfig, RewardTrainer

    from reward_modeling.training.outcome import OutcomeTrainer, PaddedCollator

    words = Tokenizer(models.WordLevel({"[PAD]": PAD, "[UNK]": 1}, unk_token="[UNK]"))
    config = RewardConfig(
            tempfile.mkdtemp(), max_length=None, gradient_checkpointing=checkpointing, report_to=[],
            bf16=machine.cuda, use_cpu=not machine.cuda,
        )  # fmt: skip
    self.machine, self.ahead = machine, {}
    self.model = machine.model("0.5B", torch.float32)
    own = {"data_collator": PaddedCollator(PAD)} if ours else {}
    self.trainer = (OutcomeTrainer if ours else RewardTrainer)(
            model=self.model, args=config, processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]"),
            train_dataset=Dataset.from_list(pair_rows(machine.shape("pairs of single turns"), 4, 1)[0]), **own,
        )  # fmt: skip
    if checkpointing:
      self.model.gradient_checkpointing_enable()
    self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, fused=machine.cuda)

  def backward(self, batch: list[Row], half: bool) -> None:
    import torch
    from accelerate.utils import send_to_device

    self.model.train()
    self.optimizer.zero_grad()
    made = self.ahead.pop(id(batch), None) or self.trainer.data_collator(batch)
    with torch.autocast(self.machine.device.type, torch.bfloat16, enabled=half):
      loss = self.trainer.compute_loss(self.model, send_to_device(made, self.machine.device))
    loss.backward()

  def run(self, batches: list[list[Row]]) -> None:
    for batch in batches:
      self.backward(batch, self.machine.cuda)
      self.optimizer.step()


CONTENDERS = {
  "TRL as documented": ("trl", "flash"),
  "TRL, by length": ("sorted", "flash"),
  "ours, padded": ("padded", "flash"),
  "packed, nothing shared": ("unshared", "flash"),
  "shared": ("shared", "flash"),
  "shared, compiled": ("compiled", "flash"),
  "shared, compiled, laid out ahead": ("ahead", "flash"),
  **{f"shared, {kernel}": ("shared", kernel) for kernel in list(KERNELS)[1:]},
}
STEPS = 4


def trained(machine: Machine, work: str, pairs: int, checkpointing: bool, how: str, kernel: str) -> Row:
  from reward_modeling.gpu_speed import compile_layers
  from reward_modeling.packing import unique_tokens
  from reward_modeling.training.outcome import PaddedCollator
  from reward_modeling.training.packed import PackedCollator, packed_batches

  batches = pair_rows(machine.shape(work), pairs, STEPS, by_length=how == "sorted")
  contender = Contender(machine, how not in ("trl", "sorted"), checkpointing)
  packed = how in ("unshared", "shared", "compiled", "ahead")
  ours = packed_batches(contender.trainer, True) if packed else contextlib.nullcontext()
  with attending_by(kernel), ours as why:
    if why:
      return {"note": why}
    if how == "unshared":
      contender.trainer.data_collator = PackedCollator(PaddedCollator.flat, False, contender.model)
    if how in ("compiled", "ahead"):
      compile_layers(contender.model)

    def before() -> None:
      contender.ahead = {id(batch): contender.trainer.data_collator(batch) for batch in batches if how == "ahead"}

    times = machine.timed(lambda: contender.run(batches), STEPS, before)
  each = [[sequence for row in batch for sequence in row["sequences"]] for batch in batches]
  operations = 6 * linear_weights(contender.model) * sum(map(unique_tokens, each))
  share = machine.share(operations, times["seconds"], machine.half if machine.cuda else contender.model.dtype)
  return {"tokens a second": sum(len(one) for own in each for one in own) / times["seconds"], "share": share, **times}


MOST = ("TRL as documented", "shared", "shared, compiled")
PLAN = [
  ("pairs like HH", 8, False, [*MOST, "shared, compiled, laid out ahead", "ours, padded", "packed, nothing shared"]),
  ("pairs like HH", 32, False, [*MOST, "TRL, by length", "packed, nothing shared", "shared, flex", "shared, merge"]),
  ("pairs of single turns", 32, False, MOST),
  ("pairs like HH", 32, True, MOST),
]


def train(machine: Machine) -> Found:
  found: Found = {}
  for work, pairs, checkpointing, contenders in PLAN[:: 3 if machine.tiny else 1]:
    name = f"0.5B, {work}, {pairs} a batch{', checkpointing' * checkpointing}"
    for called in (
      contenders if machine.cuda else set(CONTENDERS) - {"shared, flex"}
    ):  # it has no backward pass on a CPU
      pairs = min(pairs, 4) if machine.tiny else pairs
      measured = partial(trained, machine, work, pairs, checkpointing, *CONTENDERS[called])
      found[f"{name}: {called}"] = attempted(measured)
      machine.free()
  return found


# ---- numbers ----


def gradients(contender: Contender, batch: list[Row], half: bool) -> tuple[Any, dict[str, Any]]:
  """(the rewards of a batch, the gradient of its loss by parameter), both on the CPU in fp32."""
  import torch

  kept: list[Any] = []
  collect = contender.trainer._collect_metrics
  contender.trainer._collect_metrics = lambda rewards, *_: kept.append(rewards.float().cpu())
  try:
    contender.backward(batch, half)
  finally:
    contender.trainer._collect_metrics = collect
  grads = {name: p.grad.float().cpu() for name, p in contender.model.named_parameters() if p.grad is not None}
  return torch.cat(kept), grads


def precision(machine: Machine) -> Found:
  """How far bf16 autocast, padded and packed, is from fp32 on the same batch, and fp32 from itself when packed."""
  found: Found = {}
  for work in ("pairs like HH", "pairs of single turns")[: None if machine.tiny else 1]:
    (batch,) = pair_rows(machine.shape(work), 8, 1)
    reference: list[Any] = []
    plan = [("fp32, padded", False, False, "flash"), ("fp32, shared", False, True, "flash")]
    plan += [("bf16, padded", True, False, "flash"), ("bf16, shared", True, True, "flash")]
    plan += [("bf16, shared, compiled", True, True, "compiled")]
    for name, half, packed, how in plan:
      measured = partial(compared, machine, batch, half, packed, how, reference)
      found[f"0.5B, {work}: {name}"] = attempted(measured)
      machine.free()
  return found


def compared(machine: Machine, batch: list[Row], half: bool, packed: bool, how: str, reference: list[Any]) -> Row:
  """reference: rewards and gradients of the first way, which are kept here."""
  from reward_modeling.gpu_speed import compile_layers
  from reward_modeling.heads import keep_head_in_float32
  from reward_modeling.training.packed import packed_batches

  contender = Contender(machine, True, False)
  if half:
    keep_head_in_float32(contender.model)
  ours = packed_batches(contender.trainer, True) if packed else contextlib.nullcontext()
  with ours as why:
    if why:
      return {"note": why}
    if how == "compiled":
      compile_layers(contender.model)
    rewards, grads = gradients(contender, batch, half)
  if not reference:
    reference.extend((rewards, grads))
  return distances(rewards, grads, *reference)


def distances(rewards: Any, grads: dict[str, Any], exact: Any, exact_grads: dict[str, Any]) -> Row:
  """Of rewards, relative to their spread; of gradients, relative to their length, of all and of the layer farthest off."""
  total = sum((grads[name] - exact).square().sum().item() for name, exact in exact_grads.items())
  length = sum(exact.square().sum().item() for exact in exact_grads.values())
  each = {name: ((grads[name] - one).norm() / one.norm().clamp_min(1e-30)).item() for name, one in exact_grads.items()}
  worst = max(each, key=each.__getitem__)
  off = (rewards - exact).abs()
  spread = exact.std().item()
  return {
        "largest reward difference": off.max().item() / spread, "mean reward difference": off.mean().item() / spread,
        "spread": spread, "gradient": math.sqrt(total / length), "farthest layer": each[worst], "which": worst,
    }  # fmt: skip
