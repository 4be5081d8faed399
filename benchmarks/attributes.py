"""Are the attributes of the sandbox's answers recovered from ratings? Each objective, within two CPU minutes, on fresh seeds.

    uv run python benchmarks/attributes.py --seeds 1 2 3 --objectives regression ordinal

A tiny decoder that was taught right answers (sandbox_models.SFT_DEFAULTS) learns 102,400 answers to 51,200 prompts, a fifth of whose ratings
are missing, and is evaluated on new prompts. Printed: for each attribute the Pearson correlation with its closed form, and the
processor seconds of `train.py`, reading, saving and evaluation included. SETTINGS were chosen on seed 0.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

PROMPTS, FRESH = 51_200, 300
REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "tests")]
SETTINGS = (
  *("--learning_rate", "3e-3", "--adam_beta2", "0.98", "--lr_scheduler_type", "cosine", "--warmup_steps", "80"),
  *("--per_device_train_batch_size", "32", "--num_train_epochs", "1"),
  *("--save_strategy", "no", "--eval_strategy", "no"),
)
"""When `correctness` is learned varies from run to run: benchmarks/RESULTS.md says what was reached."""


def of_seed(folder: Path, seed: int, objectives: list[str]) -> None:
  import attribute_world

  from conftest import run_main, write_jsonl
  from reward_modeling import sandbox, sandbox_models

  folder.mkdir()
  right = sandbox.sft_conversations(sandbox_models.SFT_DEFAULTS.rows, seed, mix={None: 1.0})
  base = sandbox_models.base_model(folder / "base", seed=seed, rows=right)
  train = write_jsonl(folder / "train.jsonl", attribute_world.rows(PROMPTS, seed, missing=0.2, minimal=0.8))
  test = write_jsonl(folder / "test.jsonl", attribute_world.rows(FRESH, seed + 1000, split="test"))
  weights = [f"{name}={weight}" for name, weight in attribute_world.WEIGHTS.items()]
  for objective in objectives:
    start, out = time.process_time(), folder / objective
    data = ("--dataset_name", train, "--eval_dataset_name", test, "--seed", seed, "--attribute_weights", *weights)
    how = ("--model_name_or_path", base, "--output_dir", out, "--objective", objective)
    done = run_main("train.py", *how, *data, *SETTINGS)
    if done.returncode:
      sys.exit(done.stderr)
    spent = time.process_time() - start
    found = {name: one["pearson"] for name, one in done.json["evaluation"]["attributes"].items()}
    shown = [f"{found[name]['value']:.3f}" for name in ("information", "politeness", "length")]
    interval = "{value:.3f} ({low:.3f} to {high:.3f})".format(**found["correctness"])
    print(f"| {objective} | {seed} | {spent:.0f} | {' | '.join(shown)} | {interval} |", flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
  parser.add_argument("--objectives", nargs="+", default=["regression", "ordinal"])
  args = parser.parse_args()
  import torch

  torch.set_num_threads(1)
  print(
    "| objective | seed | CPU seconds | information | politeness | length | correctness |\n|---|---|---|---|---|---|---|"
  )
  with tempfile.TemporaryDirectory() as folder:
    for seed in args.seeds:
      of_seed(Path(folder) / str(seed), seed, args.objectives)


if __name__ == "__main__":
  main()
