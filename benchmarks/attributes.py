"""Are the attributes of the sandbox's answers recovered from ratings? Each objective, within two CPU minutes.

    uv run python benchmarks/attributes.py [OBJECTIVE ...]

A tiny decoder that was taught to answer (sandbox_models.SFT_DEFAULTS) learns 102,400 answers to 51,200 prompts, a fifth of whose ratings
are missing, and is evaluated on new prompts. Printed: for each attribute the Pearson correlation with its closed form and the RMSE.
Whether an answer is right is learned late, and at a step that varies from run to run: benchmarks/RESULTS.md has several.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

PROMPTS = 51_200
REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "tests")]


def main(objectives: list[str]) -> None:
  import attribute_world

  from conftest import run_main, write_jsonl
  from reward_modeling import sandbox_models

  with tempfile.TemporaryDirectory() as folder:
    made = Path(folder)
    base = sandbox_models.base_model(made / "base", seed=0)
    train = write_jsonl(made / "train.jsonl", attribute_world.rows(PROMPTS, 0, missing=0.2))
    test = write_jsonl(made / "test.jsonl", attribute_world.rows(300, 1, split="test"))
    weights = [f"{name}={weight}" for name, weight in attribute_world.WEIGHTS.items()]
    print("| objective | attribute | Pearson | RMSE | CPU seconds |\n|---|---|---|---|---|")
    for objective in objectives or ["regression", "ordinal"]:
      start, data = time.process_time(), ["--dataset_name", train, "--eval_dataset_name", test]
      how = ["--objective", objective, "--attribute_weights", *weights, "--learning_rate", "3e-3"]
      size = ["--per_device_train_batch_size", "32", "--num_train_epochs", "1", "--save_strategy", "no"]
      size += ["--eval_strategy", "no"]
      done = run_main("train.py", "--model_name_or_path", base, "--output_dir", made / objective, *data, *how, *size)
      if done.returncode:
        sys.exit(done.stderr)
      spent = time.process_time() - start
      for name, one in done.json["evaluation"]["attributes"].items():
        pearson = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**one["pearson"])
        rmse = f"{one['rmse']['value']:.2f}" if one.get("rmse") is not None else ""
        print(f"| {objective} | {name} | {pearson} | {rmse} | {spent:.0f} |", flush=True)
      print(json.dumps(done.json["counts"]), file=sys.stderr)


if __name__ == "__main__":
  main(sys.argv[1:])
