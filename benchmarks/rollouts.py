"""Step labels from rollouts, and from outcomes alone, against gold step labels, in the sandbox's arithmetic.

    uv run python benchmarks/rollouts.py --seeds 0 1 2

A tiny decoder is taught chains of small sums (tests/arithmetic.py) and is the policy. On the same solutions, most of which
hold an error, models of steps are trained from it: on gold labels, which stop at the first error; on labels of
`label_steps.py`, which knows the final answers alone, from 4 rollouts a prefix: of the first error (`binary`), soft ones up to it
(`soft`), or of all steps (`after`, by the rollouts of `soft`); and by `--objective implicit` on whether each solution is right. All are
evaluated on gold labels of problems that no one has seen.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
SCRIPTS = REPOSITORY / "scripts"
sys.path[:0] = [str(SCRIPTS), str(REPOSITORY / "tests")]

TRAINING = ("--learning_rate", "2e-3", "--num_train_epochs", "3", "--per_device_train_batch_size", "16")
IMPLICIT = ("--objective", "implicit", "--learning_rate", "5e-4", "--num_train_epochs", "3")
QUIET = ("--save_strategy", "no", "--audit", "warn")
SOLUTIONS, HELD_OUT = 4000, 500
METHODS = ("gold", "binary", "soft", "after", "implicit")
KEYS = ("step_accuracy", "auroc", "first_error_accuracy", "processbench_f1")


def run(script: str, *words: object):
  return importlib.import_module(script).main([str(word) for word in words])


def write(path: Path, rows: list[dict]) -> Path:
  path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
  return path


def data_of(folder: Path, seed: int) -> dict[str, Path]:
  import arithmetic

  from reward_modeling.data.writing import to_row

  made = {"gold": [], "solutions": [], "outcomes": []}
  for one in arithmetic.chains(SOLUTIONS, seed):
    answer = arithmetic.answer(one.prompt[0]["content"])
    right = one.steps[-1].endswith(f" is {answer}")
    made["gold"].append(to_row(one))
    made["solutions"].append({"prompt": one.prompt, "steps": one.steps, "answer": answer})
    made["outcomes"].append({"prompt": one.prompt, "completion": "\n".join(one.steps), "label": right})
  made["test"] = [to_row(one) for one in arithmetic.chains(HELD_OUT, seed + 100, split="test")]
  return {name: write(folder / f"{name}.jsonl", rows) for name, rows in made.items()}


def labeled(folder: Path, base: Path, data: Path, search: str) -> tuple[Path, dict[str, float]]:
  out, began = folder / f"{search}.jsonl", time.process_time()
  rollouts = ("--num_rollouts", 4, "--answer_pattern", r"is (\w+)", "--max_new_tokens", 32, "--batch_size", 256)
  named = ("--model_name_or_path", base, "--input", data, "--output", out, "--search", search)
  found = run("label_steps", *named, *rollouts)
  spent = time.process_time() - began
  return out, {"rollouts": found.rollouts, "tokens": found.tokens, "cpu_seconds": spent}


def with_all_labels(soft: Path) -> Path:
  """The same rollouts as labels of all steps, as `--label_after_error` gives them."""
  rows = [json.loads(line) for line in soft.open(encoding="utf-8")]
  for row in rows:
    row["labels"] = [own[0] / own[1] if own and own[1] else None for own in row["rollouts"]]
  return write(soft.with_name("after.jsonl"), rows)


def of_seed(folder: Path, seed: int, methods: list[str]) -> dict[str, dict]:
  import arithmetic

  from reward_modeling import sandbox_models

  folder.mkdir(parents=True)
  data, base = data_of(folder, seed), folder / "base"
  taught = sandbox_models.TrainingSettings(steps=150, batch_size=32, learning_rate=4e-3)
  task = {"rows": arithmetic.conversations(taught.rows, seed), "texts": arithmetic.every_text()}
  sandbox_models.base_model(base, seed, taught, **task, num_hidden_layers=3)
  found: dict[str, dict] = {}
  sources = {"gold": data["gold"], "implicit": data["outcomes"]}
  for name, search in (("binary", "binary"), ("soft", "all")):
    if name in methods:
      sources[name], found[f"labels of {name}"] = labeled(folder, base, data["solutions"], search)
  if "after" in methods:
    sources["after"] = with_all_labels(sources["soft"])
  for name in methods:
    where = ("--model_name_or_path", base, "--output_dir", folder / name, "--dataset_name", sources[name])
    run("train_process", *where, *(IMPLICIT if name == "implicit" else TRAINING), *QUIET)
    result = run("evaluate", "--model_name_or_path", folder / name, "--dataset_name", data["test"])
    found[name] = {key: getattr(result, key).value for key in KEYS}
    print(json.dumps({"seed": seed, "labels": name, **found[name]}), file=sys.stderr, flush=True)
  return found


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
  parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="`after` needs `soft`")
  parser.add_argument("--output_dir", type=Path, default=Path("runs/rollouts"))
  args = parser.parse_args()
  import torch

  torch.set_num_threads(1)
  for seed in args.seeds:
    found = of_seed(args.output_dir / f"seed-{seed}", seed, list(args.methods))
    accuracy = {name: found[name]["step_accuracy"] for name in args.methods}
    ratios = {name: value / accuracy["gold"] for name, value in accuracy.items()} if "gold" in accuracy else {}
    print(json.dumps({"seed": seed, **found, "of_gold_step_accuracy": ratios}), flush=True)


if __name__ == "__main__":
  main()
