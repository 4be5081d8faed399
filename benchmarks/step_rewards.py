"""Rewards at the ends of steps against one reward at the end, in PPO and GRPO, on the sandbox's sums.

    uv run python benchmarks/step_rewards.py --seeds 100 101 102 103 104

Killed, the same command goes on after the last run that `--output_dir` holds in rows.jsonl.

The world is tests/arithmetic.py. For each seed a tiny decoder learns solutions of which most have an error; a process reward
model is made of it with gold labels of steps; then each algorithm trains the decoder with `--step_rewards` outcome, difference and
min, alike in all else. Since a right prefix is a way to please a model of steps, `complete` below is a second reward in all of
them: 0 for a solution with as many steps as the prompt asks for, else -1. `solved` is the share of 512 fresh prompts whose sampled
solution is right and complete by the gold rules, `difference` that less the one of outcome rewards of the same seed, with the
95 % interval of its mean over the seeds (Student's t). The settings were chosen with outcome rewards on seed 0, of four for PPO and six for GRPO.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "tests")]

FORMS = ("outcome", "difference", "min")
PROMPTS, FRESH, LONGEST = 1024, 512, 30
# fmt: off
PPO = (
    "--response_length", LONGEST, "--temperature", 1, "--per_device_train_batch_size", 32, "--gradient_accumulation_steps", 2,
    "--num_mini_batches", 2, "--num_ppo_epochs", 2, "--learning_rate", 1e-3, "--value_learning_rate", 1e-3, "--kl_coef", 0.1,
    "--vf_coef", 0.5, "--save_steps", 1000,
)
GRPO = (
    "--per_device_train_batch_size", 32, "--steps_per_generation", 2, "--num_iterations", 2, "--num_generations", 8,
    "--max_completion_length", LONGEST, "--learning_rate", 5e-4, "--lr_scheduler_type", "linear", "--beta", 0.2,
    "--save_strategy", "no", "--temperature", 1,
)
# fmt: on


def complete(prompts: list, completions: list, **_: Any) -> list[float]:
  """0 for as many steps as asked, else -1."""
  asked = [prompt[-1]["content"].count(",") + 1 for prompt in prompts]
  written = [len([line for line in one[0]["content"].split("\n") if line.strip()]) for one in completions]
  return [float(a == b) - 1 for a, b in zip(asked, written, strict=True)]


def prepare(folder: Path, seed: int) -> dict[str, Path]:
  """The taught policy, the process reward model made of it, and prompts."""
  import arithmetic
  import train_process

  from reward_modeling import sandbox_models

  def flawed(n: int, seed: int) -> list:
    rows = arithmetic.chains(n, seed, error_share=0.7)
    texts = ["\n".join(one.steps) + "\n" for one in rows]
    return [[*one.prompt, {"role": "assistant", "content": text}] for one, text in zip(rows, texts, strict=True)]

  base = sandbox_models.base_model(
    *(folder / "policy", seed, sandbox_models.TrainingSettings(steps=150, batch_size=32, learning_rate=4e-3)),
    rows=flawed(4800, seed),
    texts=arithmetic.every_text(),
    num_hidden_layers=3,
  )
  made = {"policy": base, "data": folder / "steps.jsonl", "prompts": folder / "prompts.jsonl"}
  rows = [
    {"prompt": one.prompt, "completions": one.steps, "labels": one.labels} for one in arithmetic.chains(8000, seed)
  ]
  made["data"].write_text("".join(json.dumps(row) + "\n" for row in rows))
  prompts = [{"prompt": one.prompt} for one in arithmetic.chains(PROMPTS, seed + 1)]
  made["prompts"].write_text("".join(json.dumps(row) + "\n" for row in prompts))
  words = ("--model_name_or_path", base, "--dataset_name", made["data"], "--output_dir", folder / "prm")
  words += (
    "--learning_rate",
    2e-3,
    "--num_train_epochs",
    1,
    "--per_device_train_batch_size",
    16,
    "--save_strategy",
    "no",
  )
  train_process.main([str(word) for word in (*words, "--seed", seed)])
  return made | {"model": folder / "prm"}


def optimize(made: dict[str, Path], out: Path, algorithm: str, form: str, seed: int, updates: int) -> tuple[Path, dict]:
  import grpo
  import ppo

  words = ("--model_name_or_path", made["policy"], "--reward_model_path", made["model"], "--step_rewards", form)
  words += (
    "--reward_functions",
    f"{__file__}:complete",
    "--dataset_name",
    made["prompts"],
    "--output_dir",
    out,
    "--seed",
    seed,
  )
  if algorithm == "ppo":
    result = ppo.main([str(word) for word in (*words, *PPO, "--total_episodes", 64 * updates)])
  else:
    result = grpo.main([str(word) for word in (*words, *GRPO, "--max_steps", 4 * updates)])
  return out, {"kl": result.end["kl"], "steps": result.answer_steps["mean"]}


def solved(path: Path, seed: int) -> float:
  import arithmetic

  from reward_modeling.training.policy import Policy, sample

  policy = Policy.from_pretrained(str(path))
  asked = [one.prompt for one in arithmetic.chains(FRESH, seed + 2, split="test")]
  ids = [policy.renderer.prompt_ids(prompt) for prompt in asked]
  answers = sample(policy, ids, max_new_tokens=LONGEST, seed=seed, batch_size=256)
  right = 0
  for prompt, answer in zip(asked, answers, strict=True):
    steps = [line for line in policy.reply(answer)[0]["content"].split("\n") if line.strip()]
    text = prompt[0]["content"]
    right += policy.finished(answer) and len(steps) == text.count(",") + 1 and all(arithmetic.gold(text, steps))
  return right / FRESH


def study(folder: Path, seed: int, forms: tuple[str, ...], updates: int, rows: list[dict[str, Any]]) -> None:
  """Adds the runs of a seed to `rows`, and to rows.jsonl, but for those that are there."""
  done = {(row["algorithm"], row["rewards"]) for row in rows if row["seed"] == seed}
  wanted = [("taught", ""), *((algorithm, form) for algorithm in ("ppo", "grpo") for form in forms)]
  if done.issuperset(wanted):
    return
  shutil.rmtree(folder / str(seed), ignore_errors=True)
  (folder / str(seed)).mkdir()
  made = prepare(folder / str(seed), seed)
  for algorithm, form in wanted:
    if (algorithm, form) in done:
      continue
    started, path, more = time.process_time(), made["policy"], {}
    if form:
      path, more = optimize(made, folder / str(seed) / f"{algorithm}-{form}", algorithm, form, seed, updates)
      more["seconds"] = time.process_time() - started
    rows.append({"seed": seed, "algorithm": algorithm, "rewards": form, "solved": solved(path, seed), **more})
    with open(folder / "rows.jsonl", "a") as file:
      file.write(json.dumps(rows[-1]) + "\n")
    print(json.dumps(rows[-1]), file=sys.stderr, flush=True)


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  from scipy.stats import t

  found = []
  for algorithm, form in dict.fromkeys((row["algorithm"], row["rewards"]) for row in rows):
    own = [row for row in rows if (row["algorithm"], row["rewards"]) == (algorithm, form)]
    shown = {"seed": "mean", "algorithm": algorithm, "rewards": form, "solved": fmean(row["solved"] for row in own)}
    if form in FORMS[1:]:
      outcome = {
        row["seed"]: row["solved"] for row in rows if (row["algorithm"], row["rewards"]) == (algorithm, "outcome")
      }
      apart = [row["solved"] - outcome[row["seed"]] for row in own]
      half = t.ppf(0.975, len(apart) - 1) * stdev(apart) / len(apart) ** 0.5 if len(apart) > 1 else float("nan")
      shown["difference"] = f"{fmean(apart):+.3f} [{fmean(apart) - half:+.3f}, {fmean(apart) + half:+.3f}]"
    found.append(shown)
  return found


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument("--seeds", nargs="+", type=int, default=[100, 101, 102, 103, 104])
  parser.add_argument("--forms", nargs="+", default=FORMS, choices=FORMS)
  parser.add_argument("--updates", type=int, default=30, help="of 64 answers")
  parser.add_argument("--output_dir", type=Path, default=Path("runs/step_rewards"))
  args = parser.parse_args()
  import torch

  torch.set_num_threads(1)
  from reward_modeling.program import quiet_libraries
  from reward_modeling.results import emit, keep_stdout_for_results
  from reward_modeling.terminal import table

  keep_stdout_for_results()
  quiet_libraries()
  args.output_dir.mkdir(parents=True, exist_ok=True)
  kept = args.output_dir / "rows.jsonl"
  rows = [json.loads(line) for line in kept.open()] if kept.exists() else []
  for seed in args.seeds:
    study(args.output_dir, seed, tuple(args.forms), args.updates, rows)
  rows = [row for row in rows if row["seed"] in args.seeds and row["rewards"] in ("", *args.forms)]
  columns = ["algorithm", "rewards", "seed", "solved", "difference", "kl", "steps", "seconds"]
  ordered = sorted(
    [*rows, *means(rows)], key=lambda row: (row["algorithm"] != "taught", row["algorithm"], row["rewards"])
  )
  table("step rewards in the sandbox", columns, [[row.get(column) for column in columns] for row in ordered])
  emit({"rows": rows, "means": means(rows)})


if __name__ == "__main__":
  main()
