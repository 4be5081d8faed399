"""How fast the steps of solutions are scored in one pass, against one call for each prefix, at the same scores.

    uv run python benchmarks/process_scoring.py
    uv run python benchmarks/process_scoring.py --hidden 512 --rounds 5

A Qwen2 token classifier of 4 layers with random fp32 weights scores random tokens: prompts of 60 tokens, steps of 20 to 40.
"one call a prefix" runs the plain transformers model on each beginning of each solution alone, as published cards do.
One thread, processor time; the contenders take turns in one process, in a new order each round; the median of the ratios
round by round is printed with its range. "error" is the largest difference of a step's probability to that of its own call.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "scripts"))

VOCABULARY, PAD, PROMPT, STEP = 4096, 0, 60, (20, 40)

Row = tuple[list[int], list[int]]


@dataclass(frozen=True)
class Shape:
  """`prompts` prompts with `n` solutions each, of so many steps."""

  prompts: int
  n: int
  steps: int

  def rows(self, seed: int) -> list[Row]:
    """(ids, positions of the scored tokens) of each solution."""
    rng = random.Random(seed)
    rows = []
    for _ in range(self.prompts):
      prompt = [rng.randrange(1, VOCABULARY) for _ in range(PROMPT)]
      for _ in range(self.n):
        ids, positions = list(prompt), []
        for _ in range(self.steps):
          ids += [rng.randrange(1, VOCABULARY) for _ in range(rng.randint(*STEP))]
          positions.append(len(ids) - 1)
        rows.append((ids, positions))
    return rows


SHAPES = {
  "1 solution of 10 steps": Shape(1, 1, 10),
  "1 solution of 30 steps": Shape(1, 1, 30),
  "4 solutions of 10 steps": Shape(1, 4, 10),
  "4 solutions of 30 steps": Shape(1, 4, 30),
}


def process_model(hidden: int):
  """A ProcessRewardModel with random weights and no tokenizer: rows are token ids already."""
  import torch
  from transformers import Qwen2Config, Qwen2ForTokenClassification

  from reward_modeling.process import ProcessRewardModel

  torch.manual_seed(0)
  config = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=hidden, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=2,
        intermediate_size=hidden * 11 // 4, max_position_embeddings=4096, pad_token_id=PAD, num_labels=2,
    )  # fmt: skip
  return ProcessRewardModel(Qwen2ForTokenClassification(config).eval(), renderer=None)


def one_call_a_prefix(model, rows: list[Row]) -> list[list[float]]:
  import torch

  scores = []
  with torch.inference_mode():
    for ids, positions in rows:
      calls = [model(input_ids=torch.tensor([ids[: end + 1]])).logits[0, -1] for end in positions]
      scores.append([logits.softmax(-1)[1].item() for logits in calls])
  return scores


def one_pass(model, rows: list[Row]) -> list[list[float]]:
  from reward_modeling.aggregation import probability

  return [list(map(probability, logits)) for logits in model.score_rows(rows)]


def measure(model, shape: Shape, rounds: int) -> dict:
  contenders = {
    "one call a prefix": lambda rows: one_call_a_prefix(model.model, rows),
    "one pass": lambda rows: one_pass(model, rows),
  }
  times: dict[str, list[float]] = {name: [] for name in contenders}
  error, order = 0.0, list(contenders)
  for turn in range(rounds):
    rows, found = shape.rows(turn), {}
    random.Random(turn).shuffle(order)
    for name in order:
      start = time.process_time()
      found[name] = contenders[name](rows)
      times[name].append(time.process_time() - start)
    pairs = zip(found["one call a prefix"], found["one pass"], strict=True)
    error = max(error, *(abs(a - b) for alone, packed in pairs for a, b in zip(alone, packed, strict=True)))
  ratios = [slow / fast for slow, fast in zip(*times.values(), strict=True)]
  return {
    "seconds": {name: statistics.median(taken) for name, taken in times.items()},
    "speedup": statistics.median(ratios),
    "range": [min(ratios), max(ratios)],
    "error": error,
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument("--hidden", type=int, default=256)
  parser.add_argument("--rounds", type=int, default=3)
  args = parser.parse_args()

  import torch

  from reward_modeling.terminal import table

  torch.set_num_threads(1)
  model = process_model(args.hidden)
  model.score_rows(Shape(1, 1, 2).rows(0))  # the check of the architecture is made once, not timed
  results = {name: measure(model, shape, args.rounds) for name, shape in SHAPES.items()}
  rows = [
    [
      name,
      *result["seconds"].values(),
      f"{result['speedup']:.1f} ({result['range'][0]:.1f} to {result['range'][1]:.1f})",
      f"{result['error']:.1e}",
    ]
    for name, result in results.items()
  ]
  columns = ["", "one call a prefix, s", "one pass, s", "speedup", "error"]
  table(f"Qwen2, hidden {args.hidden}, 4 layers, 1 thread", columns, rows)
  print(json.dumps(results, indent=2))


if __name__ == "__main__":
  main()
