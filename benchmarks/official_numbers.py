"""What the authors' own code makes of the invented rows of tests/official_rows.py: the fixture that the tests compare with.

    uv run python benchmarks/official_numbers.py --repositories DIR > tests/official_numbers.json

DIR holds clones: reward-bench, PRMBench and Mr-Ben, and rewardbench-wheel, the package of the same name unpacked. RM-Bench's
function stands in its README and ProcessBench's lines in its script: both are repeated here in numpy, as they are there.
"""

from __future__ import annotations

import argparse
import ast
import json
import logging
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import official_rows


def functions(file: Path, *names: str, **more) -> SimpleNamespace:
  """These functions and constants of a module, without its imports."""
  found = [
    node
    for node in ast.parse(file.read_text()).body
    if getattr(node, "name", None) in names
    or (isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) in names)
  ]
  space = {"np": np, "pd": pd, "math": math, "Dataset": datasets.Dataset, **more}
  import collections
  import typing

  space |= {"defaultdict": collections.defaultdict, **vars(typing)}
  exec(compile(ast.Module(found, []), str(file), "exec"), space)
  return SimpleNamespace(**space)


def rewardbench(package: Path) -> dict[str, float]:
  rows, scores = official_rows.rewardbench()
  code = functions(package / "utils.py", "calculate_scores_per_section")
  constants = functions(package / "constants.py", "EXAMPLE_COUNTS", "SUBSET_MAPPING")
  metrics = {}
  for subset in official_rows.SECTIONS:
    won = [s[0] > s[1] for row, s in zip(rows, scores, strict=True) if row["subset"] == subset]
    metrics[subset] = sum(won) / len(won)  # as its run_rm script does
  found = code.calculate_scores_per_section(constants.EXAMPLE_COUNTS, constants.SUBSET_MAPPING, metrics)
  return {"score": float(np.mean(list(found.values())))} | {
    name.lower().replace(" ", "_"): value for name, value in found.items()
  }


def rewardbench2(package: Path) -> dict[str, float]:
  rows, scores = official_rows.rewardbench2()
  names = ("reroll_and_score_dataset", "process_single_model", "_compute_prompt_stats", "sample_stats")
  code = functions(package / "utils.py", *names)
  pairs = list(zip(rows, scores, strict=True))
  found = {}
  for subset in ("Factuality", "Precise IF", "Math", "Safety", "Focus"):
    flat = [
      {"text": "x", "scores": value, "id": row["id"]} for row, own in pairs if row["subset"] == subset for value in own
    ]
    rolled = code.reroll_and_score_dataset(datasets.Dataset.from_list(flat), [4] * (len(flat) // 4))
    found[subset.lower().replace(" ", "_")] = float(np.mean(rolled["results"]))
  ties = [row | {"scores": own} for row, own in pairs if row["subset"] == "Ties"]
  with np.errstate(divide="ignore", invalid="ignore"):
    found["ties"] = code.process_single_model(datasets.Dataset.from_list(ties))[1]
  return {"score": float(np.mean(list(found.values())))} | found


def rm_bench() -> dict[str, float]:
  rows, scores = official_rows.rm_bench()
  levels: dict[str, dict[str, float]] = {}
  for domain in ("chat", "math", "code", "safety"):
    own = [s for row, s in zip(rows, scores, strict=True) if row["id"].startswith(domain)]
    matrix = np.zeros((3, 3))
    for result in own:
      for i in range(3):
        for j in range(3):
          matrix[i][j] += result[i] > result[3 + j]
    matrix /= len(own)
    hard, easy = np.sum(np.triu(matrix, 1)) / 3, np.sum(np.tril(matrix, -1)) / 3
    levels[domain] = {"hard": hard, "normal": np.mean(np.diag(matrix)), "easy": easy}
  domains = {domain: float(np.mean(list(own.values()))) for domain, own in levels.items()}
  by_level = {name: float(np.mean([own[name] for own in levels.values()])) for name in ("easy", "normal", "hard")}
  return {"score": float(np.mean(list(domains.values())))} | domains | by_level


def processbench() -> dict[str, float]:
  """At 0.5, which is the argmax of two classes."""
  rows, scores = official_rows.processbench()
  found = []
  for split in ("gsm8k", "math", "olympiadbench", "omnimath"):
    own = [(row, s) for row, s in zip(rows, scores, strict=True) if row["id"].startswith(split)]
    matches = [(row["label"], next((j for j, x in enumerate(s) if x < 0.5), -1) == row["label"]) for row, s in own]
    acc1 = np.mean([match for label, match in matches if label != -1]) * 100
    acc2 = np.mean([match for label, match in matches if label == -1]) * 100
    found.append(2 * acc1 * acc2 / (acc1 + acc2))
  return {"score_at_0.5": float(np.mean(found)) / 100}


def prmbench(repository: Path) -> dict[str, float]:
  rows, scores = official_rows.prmbench()
  file = repository / "mr_eval/tasks/prmtest_classified/task.py"
  names = ("load_data_function", "evaluate_function", "eval_on_hallucination_step")
  load = {"load_dir_of_jsonl_data_function_default": lambda config: rows, "task_config": None}
  code = functions(file, *names, logger=logging.getLogger(), **load)
  meta = code.load_data_function()
  by_id = {}
  for row, own in zip(rows, scores, strict=True):
    by_id.setdefault(f"{row['classification']}_{row['idx']}", [int(value > 0.5) for value in own])
  results = [
    {
      "idx": item["idx"],
      "scores": {"step_level_validity_labels": by_id.get(item["idx"]) or [1] * len(item["steps"])},
    }
    for item in meta
  ]
  found = code.evaluate_function(results, meta)
  total, kinds = found["total_hallucination_results"], found["hallucination_type_results"]
  short = {"redundency": "NR", "circular": "NCL", "counterfactual": "ES", "step_contradiction": "SC"}
  short |= {"domain_inconsistency": "DC", "confidence": "CI", "missing_condition": "PS", "deception": "DR"}
  own = {name: (kinds["f1"][kind] + kinds["negative_f1"][kind]) / 2 for kind, name in short.items()}
  return {"score": (total["f1"] + total["negative_f1"]) / 2, **own, "MS": kinds["f1"]["multi_solutions"]}


def mr_ben(repository: Path) -> dict[str, float]:
  rows, scores = official_rows.mr_ben()
  code = functions(repository / "script/utils.py", "MCC_score", "construct_eval_stats")
  mcc, steps = [], []
  for subject in dict.fromkeys(row["Subject"] for row in rows):
    stats = dict.fromkeys(
      ("t1-tp", "t1-tn", "t2_corr_num", "t3_corr_num_auto", "correct_sol_num", "incorrect_sol_num"), 0
    )
    for row, own in zip(rows, scores, strict=True):  # evaluate.py: calculate_mr_score
      if row["Subject"] != subject:
        continue
      right = row["Model_Solution_Correctness"] == "correct"
      first = next((str(j) for j, value in enumerate(own, 1) if value < 0.5), None)
      stats["correct_sol_num" if right else "incorrect_sol_num"] += 1
      stats["t1-tp"] += right and first is None
      stats["t1-tn"] += not right and first is not None
      stats["t2_corr_num"] += not right and first == row["Model_Solution_First_Error_Step"]
    full = code.construct_eval_stats(stats)
    mcc.append(code.MCC_score(*(full[f"t1-{one}"] for one in ("tp", "tn", "fp", "fn"))))
    steps.append(full["t2-accuracy"])
  return {"step_accuracy": float(np.mean(steps)), "mcc": float(np.mean(mcc))}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--repositories", type=Path, required=True)
  folder = parser.parse_args().repositories
  wheel, newest = (folder / name / "rewardbench" for name in ("rewardbench-wheel", "reward-bench"))
  found = {"rewardbench": rewardbench(newest), "rewardbench2": rewardbench2(newest), "rm-bench": rm_bench()}
  found |= {
    "processbench": processbench(),
    "prmbench": prmbench(folder / "PRMBench"),
    "mr-ben": mr_ben(folder / "Mr-Ben"),
  }
  of_wheel = {"rewardbench": rewardbench(wheel), "rewardbench2": rewardbench2(wheel)}
  print(json.dumps({"newest": found, "wheel": of_wheel}, indent=1))


if __name__ == "__main__":
  main()
