"""Step labels from rollouts, and from outcomes alone, against gold step labels, in the sandbox's arithmetic.

    uv run python benchmarks/rollouts.py --seeds 0 1 2

A tiny decoder is taught chains of small sums (tests/arithmetic.py) and is the policy. On the same solutions, most of which
hold an error, models of steps are trained from it: on gold labels, which stop at the first error; on labels of
`label_steps.py`, which knows the final answers alone, from 4 rollouts a prefix, of the first error (`binary`) or soft ones of
all steps; and by `--objective implicit` on whether each solution is right. All are evaluated on gold labels of problems that
no one has seen. About 7 CPU minutes a seed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
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


def run(name: str, *words: object) -> dict:
  command = [sys.executable, str(SCRIPTS / name), *map(str, words)]
  return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


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


def of_seed(folder: Path, seed: int) -> dict[str, dict]:
  import arithmetic

  from reward_modeling import sandbox_models

  folder.mkdir(parents=True)
  data, base = data_of(folder, seed), folder / "base"
  taught = sandbox_models.TrainingSettings(steps=150, batch_size=32, learning_rate=4e-3)
  task = {"rows": arithmetic.conversations(taught.rows, seed), "texts": arithmetic.every_text()}
  sandbox_models.base_model(base, seed, taught, **task, num_hidden_layers=3)
  found: dict[str, dict] = {"labeling": {}}
  sources = {"gold": data["gold"], "binary": folder / "binary.jsonl", "all": folder / "all.jsonl"}
  for search in ("binary", "all"):
    began = time.monotonic()
    labeled = run(
      *(
        "label_steps.py",
        "--model_name_or_path",
        base,
        "--input",
        data["solutions"],
        "--output",
        sources[search],
      ),
      *("--num_rollouts", 4, "--answer_pattern", r"is (\w+)", "--max_new_tokens", 32, "--batch_size", 256),
      *("--search", search),
    )
    found["labeling"][search] = {name: labeled[name] for name in ("rollouts", "tokens")}
    found["labeling"][search]["seconds"] = time.monotonic() - began
  for name, trained_on in (sources | {"implicit": data["outcomes"]}).items():
    where = ("--model_name_or_path", base, "--output_dir", folder / name)
    flags = IMPLICIT if name == "implicit" else TRAINING
    run("train_process.py", *where, "--dataset_name", trained_on, *flags, *QUIET)
    result = run("evaluate.py", "--model_name_or_path", folder / name, "--dataset_name", data["test"])
    keys = ("step_accuracy", "auroc", "first_error_accuracy", "processbench_f1")
    found[name] = {key: result[key]["value"] for key in keys}
  return found


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
  parser.add_argument("--output_dir", type=Path, default=Path("runs/rollouts"))
  args = parser.parse_args()
  for seed in args.seeds:
    found = of_seed(args.output_dir / f"seed-{seed}", seed)
    ratios = {name: found[name]["step_accuracy"] / found["gold"]["step_accuracy"] for name in ("rollouts", "implicit")}
    print(json.dumps({"seed": seed, **found, "of_gold_step_accuracy": ratios}), flush=True)


if __name__ == "__main__":
  main()
