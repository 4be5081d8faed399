"""Are the attributes of the sandbox's answers recovered from ratings? Each objective, within two CPU minutes, on fresh seeds.

    uv run python benchmarks/attributes.py --seeds 1 2 3 --objectives regression ordinal
    uv run python benchmarks/attributes.py --seeds 1 2 3 --objectives regression --ratings_only

A tiny decoder that was taught right answers (sandbox_models.SFT_DEFAULTS) learns pairs made of the ratings of `correctness` of answers to 51,200
prompts, a fifth of which are missing, then a head for each attribute from the ratings of the first 19,200. With --ratings_only it learns
ratings alone, of all 51,200. It is evaluated on new prompts. Printed: for each attribute the Pearson correlation with its closed form,
and the processor seconds of `train.py`, reading, saving and evaluation included.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

PROMPTS, RATED, FRESH = 51_200, 19_200, 300
REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "tests")]
SETTINGS = (
  *("--adam_beta2", "0.98", "--lr_scheduler_type", "cosine", "--per_device_train_batch_size", "32"),
  *("--num_train_epochs", "1", "--save_strategy", "no", "--eval_strategy", "no"),
)


def pairs_of(rows: list[dict], attribute: str) -> list[dict]:
  """Of the two answers to each question, where both ratings are there and differ. The sandbox asks its questions many times: made by
  `--attribute_weights` all answers to one would be a ranking, and a batch would hold fewer questions.
  """
  made = []
  for one, other in zip(rows[::2], rows[1::2], strict=True):
    ratings = [answer["ratings"][attribute] for answer in (one, other)]
    if None not in ratings and ratings[0] != ratings[1]:
      chosen, rejected = (one, other) if ratings[0] > ratings[1] else (other, one)
      made.append({"prompt": one["prompt"], "chosen": chosen["completion"], "rejected": rejected["completion"]})
  return made


def trained(model: Path, out: Path, *flags: object) -> dict:
  from conftest import run_main

  done = run_main("train.py", "--model_name_or_path", model, "--output_dir", out, *SETTINGS, *flags)
  if done.returncode:
    sys.exit(done.stderr)
  return done.json


def of_seed(folder: Path, seed: int, objectives: list[str], ratings_only: bool) -> None:
  import attribute_world

  from conftest import write_jsonl
  from reward_modeling import sandbox, sandbox_models

  folder.mkdir()
  right = sandbox.sft_conversations(sandbox_models.SFT_DEFAULTS.rows, seed, mix={None: 1.0})
  base = sandbox_models.base_model(folder / "base", seed=seed, rows=right)
  rows = attribute_world.rows(PROMPTS, seed, missing=0.2, minimal=0.8)
  test = write_jsonl(folder / "test.jsonl", attribute_world.rows(FRESH, seed + 1000, split="test"))
  weights = [f"{name}={weight}" for name, weight in attribute_world.WEIGHTS.items()]
  start, rate = time.process_time(), "3e-3"
  if not ratings_only:
    pairs = write_jsonl(folder / "pairs.jsonl", pairs_of(rows, "correctness"))
    trained(base, folder / "pairs", "--dataset_name", pairs, "--learning_rate", "1.5e-3", "--seed", seed)
    base, rows, rate = folder / "pairs", rows[: 2 * RATED], "1.5e-3"
  spent, train = time.process_time() - start, write_jsonl(folder / "train.jsonl", rows)
  for objective in objectives:
    start = time.process_time()
    data = ("--dataset_name", train, "--eval_dataset_name", test, "--seed", seed, "--attribute_weights", *weights)
    told = trained(base, folder / objective, "--objective", objective, "--learning_rate", rate, *data)
    seconds = spent + time.process_time() - start
    found = {name: one["pearson"] for name, one in told["evaluation"]["attributes"].items()}
    shown = [f"{found[name]['value']:.3f}" for name in ("information", "politeness", "length")]
    interval = "{value:.3f} ({low:.3f} to {high:.3f})".format(**found["correctness"])
    print(f"| {objective} | {seed} | {seconds:.0f} | {' | '.join(shown)} | {interval} |", flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
  parser.add_argument("--objectives", nargs="+", default=["regression", "ordinal"])
  parser.add_argument("--ratings_only", action="store_true", help="without pairs first")
  args = parser.parse_args()
  import torch

  torch.set_num_threads(1)
  print(
    "| objective | seed | CPU seconds | information | politeness | length | correctness |\n|---|---|---|---|---|---|---|"
  )
  with tempfile.TemporaryDirectory() as folder:
    for seed in args.seeds:
      of_seed(Path(folder) / str(seed), seed, args.objectives, args.ratings_only)


if __name__ == "__main__":
  main()
