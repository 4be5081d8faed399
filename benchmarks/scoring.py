"""How fast completions are scored, against the ways people score them today, at the same rewards.

    uv run python benchmarks/scoring.py
    uv run python benchmarks/scoring.py --shapes "best of 16, 300-token prompts" --rounds 5 --layers 8

A Qwen2 of hidden 512 with random fp32 weights scores random tokens; lengths are drawn from the ranges in the name of each
shape. One thread, processor time; the contenders take turns in one process, in a new order each round, and the median of
the ratios round by round is printed with its range. "limit" is the share of the time that the arithmetic alone would take:
2 x linear parameters x unique tokens + attention, over the matrix-multiply rate measured in the same process. "error" is
the largest difference of a reward to scoring one at a time.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "scripts"))

HIDDEN, VOCABULARY, PAD = 512, 16384, 0


@dataclass(frozen=True)
class Shape:
    """Groups of `n` completions: prompts and completions of so many tokens, drawn uniformly."""

    n: int
    groups: int
    prompt: tuple[int, int]
    completion: tuple[int, int]

    def sequences(self, seed: int) -> list[list[int]]:
        rng = random.Random(seed)

        def draw(lengths: tuple[int, int]) -> list[int]:
            return [rng.randrange(1, VOCABULARY) for _ in range(rng.randint(*lengths))]

        prompts = [draw(self.prompt) for _ in range(self.groups)]
        rows = [prompt + draw(self.completion) for prompt in prompts for _ in range(self.n)]
        rng.shuffle(rows)
        return rows


SHAPES = {
    "pairs like HH": Shape(2, 16, (100, 400), (20, 150)),
    "pairs of single turns": Shape(2, 16, (15, 45), (50, 350)),
    "best of 4, 50-token prompts": Shape(4, 8, (50, 50), (50, 150)),
    "best of 16, 50-token prompts": Shape(16, 3, (50, 50), (50, 150)),
    "best of 64, 50-token prompts": Shape(64, 1, (50, 50), (50, 150)),
    "best of 4, 300-token prompts": Shape(4, 6, (300, 300), (50, 150)),
    "best of 16, 300-token prompts": Shape(16, 2, (300, 300), (50, 150)),
    "best of 4, 1000-token prompts": Shape(4, 3, (1000, 1000), (50, 150)),
    "best of 16, 1000-token prompts": Shape(16, 1, (1000, 1000), (50, 150)),
}


def reward_model(layers: int):
    """A RewardModel with random weights and no tokenizer: rows are token ids already."""
    import torch
    from transformers import Qwen2Config, Qwen2ForSequenceClassification

    from reward_modeling.scoring import RewardModel

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, num_hidden_layers=layers, num_attention_heads=8,
        num_key_value_heads=2, intermediate_size=1408, max_position_embeddings=4096, pad_token_id=PAD, num_labels=1,
    )  # fmt: skip
    model = Qwen2ForSequenceClassification(config).eval()
    return RewardModel(model, renderer=None)


def contenders(model) -> dict[str, Callable[[list[list[int]]], list[float]]]:
    """The ways to score, each from token ids to rewards in input order."""
    import torch

    from reward_modeling.packing import token_budget_batches

    def padded(batches: Callable[[list[list[int]]], object]) -> Callable[[list[list[int]]], list[float]]:
        def score(rows: list[list[int]]) -> list[float]:
            found = torch.empty(len(rows))
            with torch.inference_mode():
                for batch in batches(rows):
                    found[batch] = model._forward([rows[i] for i in batch])
            return found.tolist()

        return score

    def in_order(size: int):
        return lambda rows: [list(range(i, min(i + size, len(rows)))) for i in range(0, len(rows), size)]

    def by_length(rows: list[list[int]]) -> list[list[int]]:
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        return [order[i : i + 16] for i in range(0, len(order), 16)]

    return {
        "one at a time (pipeline default)": padded(in_order(1)),
        "16 in order (pipeline, batch_size=16)": padded(in_order(16)),
        "16, sorted by length": padded(by_length),
        "token budget": padded(lambda rows: token_budget_batches([len(row) for row in rows], 4096)),
        "shared prefixes": model.score_ids,
    }


def multiply_rate() -> float:
    """fp32 multiply-adds x 2 a second of processor time, on matrices of the size of this model's layers."""
    import torch

    a, b = torch.randn(2048, HIDDEN), torch.randn(HIDDEN, 1408)
    best = 0.0
    for _ in range(5):
        start = time.process_time()
        for _ in range(10):
            a @ b
        best = max(best, 10 * 2 * a.numel() * b.shape[1] / (time.process_time() - start))
    return best


def arithmetic(model, rows: list[list[int]]) -> float:
    """Floating-point operations that no way of scoring these rows can avoid: each unique token once, causal attention."""
    import torch

    from reward_modeling.packing import pack_together

    row = pack_together(rows)
    linear = sum(module.weight.numel() for module in model.model.modules() if isinstance(module, torch.nn.Linear))
    width = model.model.config.num_hidden_layers * HIDDEN
    attended = sum(segment.size * (segment.depth + (segment.size + 1) / 2) for segment in row.segments)
    return 2 * linear * len(row.ids) + 4 * width * attended


def measure(model, rows: list[list[int]], rounds: int, seed: int) -> dict[str, dict]:
    """Processor seconds of each contender in each round, and the largest difference to one at a time."""
    ways = contenders(model)
    reference = next(iter(ways.values()))(rows)
    rng, seconds = random.Random(seed), {name: [] for name in ways}
    errors = {}
    for _ in range(rounds):
        for name in rng.sample(list(ways), len(ways)):
            start = time.process_time()
            scores = ways[name](rows)
            seconds[name].append(time.process_time() - start)
            errors[name] = max(abs(a - b) for a, b in zip(scores, reference, strict=True))
    return {name: {"seconds": seconds[name], "error": errors[name]} for name in ways}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    import torch

    from reward_modeling.console import log, table

    torch.set_num_threads(1)
    model, results, lines = reward_model(args.layers), {}, []
    model.score_ids([[1, 2, 3]] * 2)  # the guard's check is not part of a timing
    for name in args.shapes:
        rows = SHAPES[name].sequences(args.seed)
        found = measure(model, rows, args.rounds, args.seed)
        rate, ours = multiply_rate(), found["shared prefixes"]
        share = arithmetic(model, rows) / rate / statistics.median(ours["seconds"])
        results[name] = {"limit": share, "error": ours["error"], "speedup": {}}
        line = [name]
        for other in list(found)[:-1]:
            ratios = [theirs / mine for theirs, mine in zip(found[other]["seconds"], ours["seconds"], strict=True)]
            results[name]["speedup"][other] = {"median": statistics.median(ratios), "range": [min(ratios), max(ratios)]}
            line.append(f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")
        lines.append([*line, f"{share:.2f}", f"{ours['error']:.1e}"])
        log("  ".join(lines[-1]))
    columns = ["shape", *(f"x {name}" for name in list(contenders(model))[:-1]), "limit", "error"]
    table(f"times faster than each way, {args.layers} layers, 1 thread", columns, lines)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
