"""Outcome and process reward models from real weights on real reasoning data: step labels, and best of n.

    uv run python benchmarks/real_reasoning.py --data DIR
    uv run python benchmarks/real_reasoning.py --data DIR --models outcome --rows 20

The model is all-MiniLM-L6-v2 (22M parameters), an encoder. The outcome model learns pairs of right and wrong solutions
(preference/gsm8k_verified.train), the process model the first errors of solutions (steps/mr_ben.train). Both choose among
the four solutions of each problem of best_of_n/gsm8k_n4, none of which was trained on, and among the hundred programs of
each problem of best_of_n/humaneval_codegen16b_n100; the process model is judged on steps/mr_ben.valid and
steps/big_bench_mistake besides. On two cores the outcome model takes about 40 minutes, the process model, which reads
each beginning of each program, some hours. evaluate.py shows the tables, stdout gets all figures. Models that lie in
--output_dir already are not trained again.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path
from typing import Any

import real_preferences
from real_preferences import REPOSITORY, minilm

POOLS = {
  "best_of_n/gsm8k_n4.jsonl.gz": (1, 2, 3, 4),
  "best_of_n/humaneval_codegen16b_n100.jsonl.gz": (1, 4, 16, 64, 100),
}
STEPS = ("steps/mr_ben.valid.jsonl.gz", "steps/big_bench_mistake.jsonl.gz")
# Set before the first run, not tuned on any of the sets.
TRAINING = {
  "outcome": ("train", "preference/gsm8k_verified.train.jsonl.gz", real_preferences.RECIPE),
  "process": (
    "train_process",
    "steps/mr_ben.train.jsonl.gz",
    (
      *("--max_length", "256", "--overlong", "truncate_prompt", "--steps_per_solution", "1"),
      *("--class_weighting", "balanced", "--num_train_epochs", "1", "--per_device_train_batch_size", "16"),
      *("--learning_rate", "1e-4", "--train_sampling_strategy", "group_by_length"),
    ),
  ),
}


def first_rows(source: Path, rows: int | None, folder: Path) -> str:
  """The file, or a copy with its first rows."""
  if rows is None:
    return str(source)
  copy = folder / source.name.removesuffix(".gz")
  copy.parent.mkdir(parents=True, exist_ok=True)
  with gzip.open(source, "rt", encoding="utf-8") as file:
    copy.write_text("".join(line for line, _ in zip(file, range(rows), strict=False)), encoding="utf-8")
  return str(copy)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
  parser.add_argument("--output_dir", type=Path, default=Path("runs/reasoning-minilm"))
  parser.add_argument("--models", nargs="+", choices=tuple(TRAINING), default=tuple(TRAINING))
  parser.add_argument("--rows", type=int, help="use only the first so many rows of each set")
  args = parser.parse_args()

  import importlib

  import evaluate

  from reward_modeling.results import to_json

  results: dict[str, Any] = {}
  for kind in args.models:
    script, data, recipe = TRAINING[kind]
    folder = args.output_dir / kind
    if not (folder / "reward_model.json").exists():
      source = first_rows(args.data / data, args.rows, args.output_dir)
      command = ["--model_name_or_path", minilm(), "--dataset_name", source, "--output_dir", str(folder)]
      importlib.import_module(script).main([*command, *recipe])
    for name, sizes in POOLS.items():
      source = first_rows(args.data / name, args.rows, args.output_dir)
      command = ["--model_name_or_path", str(folder), "--dataset_name", source]
      results[f"{kind} {name}"] = evaluate.main([*command, "--best_of_n", *map(str, sizes)])
    for name in STEPS if kind == "process" else ():
      source = first_rows(args.data / name, args.rows, args.output_dir)
      results[f"{kind} {name}"] = evaluate.main(["--model_name_or_path", str(folder), "--dataset_name", source])
  print(to_json(results, indent=2))


if __name__ == "__main__":
  main()
