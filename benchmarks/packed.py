"""What packed rows spare where they came last: process models' training, and the forward and backward passes of PPO.

    uv run python benchmarks/packed.py
    uv run python benchmarks/packed.py --works process --rounds 5

A Qwen2 of hidden 512 with random fp32 weights, random tokens, one thread, processor time; padded and packed take turns in one
process on the same batches of 8 rows. process: collating, forward and backward of the loss of steps. ppo: the batch and one pass
without gradients of policy, reference and value model, then one with both losses backward (a value model of its own). Each
ratio is padded time over packed time, the median of the rounds with the least and the most; "tokens" the same of tokens computed.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import random
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from scoring import PAD

VOCABULARY, BATCH, STEPS = 16384, 8, 6
SHAPES = {  # work -> name -> tokens of a prompt, of an answer, answers of one prompt in a batch
  "process": {
    "GSM8K-like, 4 solutions a prompt": ((45, 150), (80, 200), 4),
    "GSM8K-like, shuffled": ((45, 150), (80, 200), 1),
    "MATH-like, 4 solutions a prompt": ((60, 200), (150, 500), 4),
    "MATH-like, shuffled": ((60, 200), (150, 500), 1),
  },
  "ppo": {
    "4 answers to 300 tokens": ((300, 300), (20, 128), 4),
    "prompts of 50 to 400 tokens": ((50, 400), (20, 128), 1),
    "short chats": ((15, 60), (20, 128), 1),
    "answers as long as may be": ((50, 400), (128, 128), 1),
  },
}


def drawn(shape: tuple, seed: int) -> list[tuple[list[int], list[int]]]:
  """BATCH prompts with an answer each."""
  rng = random.Random(seed)
  tokens = lambda least, most: [rng.randrange(1, VOCABULARY) for _ in range(rng.randint(least, most))]  # noqa: E731
  prompts, answers, together = shape
  groups = [tokens(*prompts) for _ in range(BATCH // together)]
  rows = [(prompt, tokens(*answers)) for prompt in groups for _ in range(together)]
  return rng.sample(rows, BATCH)


def made(auto: str, layers: int, labels: int = 1) -> Any:
  import torch
  import transformers

  fields = {"hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8, "num_key_value_heads": 2}
  fields |= {"vocab_size": VOCABULARY, "num_hidden_layers": layers, "pad_token_id": PAD, "num_labels": labels}
  torch.manual_seed(0)
  return getattr(transformers, auto).from_config(transformers.AutoConfig.for_model("qwen2", **fields)).eval()


def process(shape: tuple, layers: int, count: int) -> tuple[Callable[[bool], Any], Callable[[bool], int]]:
  """(one round, the tokens that it computes), padded or packed."""
  from reward_modeling.training.loop import without_dropout
  from reward_modeling.training.packed import packed_batches
  from reward_modeling.training.process import StepCollator, step_loss

  model = without_dropout(made("AutoModelForTokenClassification", layers, 2))
  trainer = SimpleNamespace(model=model, data_collator=StepCollator(PAD))
  batches = [[_solution(*row) for row in drawn(shape, seed)] for seed in range(count)]
  collators = {False: trainer.data_collator}
  with packed_batches(trainer, True) as reason:
    assert reason is None, reason
    collators[True] = trainer.data_collator

  def round_of(share: bool) -> None:
    with packed_batches(trainer, True) if share else contextlib.nullcontext():
      for rows in batches:
        batch = trainer.data_collator(rows)
        labels = batch.pop("labels")
        step_loss(model(**batch).logits, labels).backward()
        model.zero_grad()

  return round_of, lambda share: sum(collators[share](rows)["input_ids"].numel() for rows in batches)


def _solution(prompt: list[int], answer: list[int]) -> dict[str, list]:
  ends = [len(prompt) + len(answer) * (i + 1) // STEPS - 1 for i in range(STEPS)]
  return {"input_ids": prompt + answer, "positions": ends, "labels": [1.0] * STEPS}


def ppo(shape: tuple, layers: int, count: int) -> tuple[Callable[[bool], Any], Callable[[bool], int]]:
  import torch

  from reward_modeling.attention import language_logits, shared_prefix
  from reward_modeling.training.actor_critic import AnswerBatch, actor_critic, log_probs_and_entropy
  from reward_modeling.training.ppo import policy_loss, value_loss

  model = made("AutoModelForCausalLM", layers)
  actor = actor_critic(SimpleNamespace(model=model, device=torch.device("cpu")), "policy", 0.7)
  reference = copy.deepcopy(model).requires_grad_(False)
  batches = [sorted(drawn(shape, seed), key=lambda row: len(row[1])) for seed in range(count)]

  def batch_of(rows: list[tuple[list[int], list[int]]], share: bool) -> AnswerBatch:
    read = [prompt for prompt, _ in rows], [answer for _, answer in rows]
    return AnswerBatch.of(*read, model, PAD, packed=share)

  def round_of(share: bool) -> None:
    with contextlib.ExitStack() as stack:
      for one in (model, actor.trunk, reference) if share else ():
        stack.enter_context(shared_prefix(one))
      for rows in batches:
        batch = batch_of(rows, share)
        with torch.no_grad():
          old, _, values = actor(batch)
          logits, _ = language_logits(reference, batch.inputs, batch.rows, batch.places)
          log_probs_and_entropy(logits, batch.tokens, 0.7)
        batch = batch_of(rows, share)
        log_probs, _, now = actor(batch)
        loss = policy_loss(log_probs, old, values + 1, 0.2)[0] + value_loss(now, values, values + 1, 0.2)[0]
        loss.mean().backward()
        actor.zero_grad()

  return round_of, lambda share: sum(batch_of(rows, share).inputs["input_ids"].numel() for rows in batches)


WORKS = {"process": process, "ppo": ppo}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument("--works", nargs="+", choices=list(WORKS), default=list(WORKS))
  parser.add_argument("--shapes", nargs="+", choices=[name for shapes in SHAPES.values() for name in shapes])
  parser.add_argument("--layers", type=int, default=8)
  parser.add_argument("--batches", type=int, default=3)
  parser.add_argument("--rounds", type=int, default=3)
  args = parser.parse_args()
  import torch

  from reward_modeling.program import keep_freed_memory
  from reward_modeling.terminal import table

  keep_freed_memory()
  torch.set_num_threads(1)
  results, lines = {}, []
  for work in args.works:
    for name, shape in SHAPES[work].items():
      if args.shapes and name not in args.shapes:
        continue
      run, tokens = WORKS[work](shape, args.layers, args.batches)
      ratios = []
      for _ in range(args.rounds):
        times = []
        for share in (False, True):
          start = time.process_time()
          run(share)
          times.append(time.process_time() - start)
        ratios.append(times[0] / times[1])
      spared = tokens(False) / tokens(True)
      results[f"{work}: {name}"] = {"speedup": ratios, "tokens": spared}
      said = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
      lines.append([work, name, said, f"{spared:.2f}"])
      print(json.dumps({f"{work}: {name}": results[f"{work}: {name}"]}), flush=True)
  table(
    f"packed against padded, {args.layers} layers, 1 thread", ["work", "batches of 8", "times as fast", "tokens"], lines
  )


if __name__ == "__main__":
  main()
