"""What PPO does to the gold reward of the sandbox, in a world whose most likely answer is flawed: several seeds, controls.

    uv run python benchmarks/ppo.py --seeds 100 101 102 103 104
    uv run python benchmarks/ppo.py --seeds 100 101 --controls

For each seed: teach a tiny policy FLAWED_MIX (2 good answers in 16, evasions the commonest), train a reward model on noisy
preferences with train.py, optimise with ppo.py, and measure the gold reward on fresh prompts, which the optimiser never
sees. `closed` is the share of the way from the taught policy to the largest gold reward. The greedy policies stand beside:
where they are as good, PPO has only sharpened the policy. `cpu` are processor seconds of the three stages, imports apart.

Controls: the reward turned round; and five times as many updates, with the KL penalty and without. THRESHOLDS were written before the
seeds that are judged by them were run; seeds below 10 were used to choose the settings.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

THRESHOLDS = {
  "closed, each seed": 0.60,
  "closed, mean": 0.75,
  "cpu": 120.0,
  "flipped falls by": 0.5,
  "no penalty ends lower by": 0.3,
}
TEACHING = 1000
"""Steps of supervised teaching: after 500 the policy could not add yet, and no reward can choose what it never writes."""
FLAWED_MIX = {None: 2.0, "evasive": 6.0, "offtopic": 3.0}
JUDGED = 512
HARD = {"total_episodes": 300 * 64}
"""A run that is long enough to be spoiled."""


def flags_of(**changed: Any) -> tuple:
  """Flags of ppo.py: those of the sandbox, with these changed."""
  from reward_modeling.sandbox_models import PPO_DEFAULTS

  settings = {**PPO_DEFAULTS, "total_episodes": 60 * 64, "save_steps": 1000, **changed}
  return tuple(word for name, value in settings.items() for word in (f"--{name}", value))


RUNS = {
  "main": {},
  "flipped": {"reward_weights": -1},
  "long": HARD,
  "long, no penalty": {**HARD, "kl_coef": 0},
}


def flawed(settings: Any, seed: int) -> list[list[dict[str, str]]]:
  """Conversations for a policy whose most likely answer is flawed: reinforcement learning must do more than sharpen it."""
  from reward_modeling.sandbox import SFT_MIX, sft_conversations

  return sft_conversations(settings.rows, seed, SFT_MIX | FLAWED_MIX)


def prepare(folder: Path, seed: int) -> dict[str, Any]:
  """The taught policy, the reward model and the prompts of one seed, and the processor seconds they took."""
  import train

  from reward_modeling import sandbox
  from reward_modeling.data.writing import to_row
  from reward_modeling.outputs import write_whole
  from reward_modeling.sandbox_models import REWARD_DEFAULTS, SFT_DEFAULTS, base_model

  started = time.process_time()
  teaching = replace(SFT_DEFAULTS, steps=TEACHING)
  policy = base_model(folder / "policy", seed, teaching, flawed(teaching, seed))
  taught = time.process_time()
  pairs, prompts = folder / "pairs.jsonl", folder / "prompts.jsonl"
  write_whole(pairs, (json.dumps(to_row(row)) for row in sandbox.make_comparisons(REWARD_DEFAULTS.rows, seed)))
  write_whole(prompts, (json.dumps({"prompt": asked.messages}) for asked in sandbox.make_questions(4000, seed)))
  # fmt: off
  train.main([str(word) for word in (
        "--model_name_or_path", policy, "--dataset_name", pairs, "--output_dir", folder / "reward_model", "--seed", seed,
        "--learning_rate", REWARD_DEFAULTS.learning_rate, "--per_device_train_batch_size", REWARD_DEFAULTS.batch_size,
        "--num_train_epochs", 1, "--eval_strategy", "no", "--save_strategy", "no", "--logging_steps", 200,
    )])
  # fmt: on
  seconds = {"sft": taught - started, "reward model": time.process_time() - taught}
  return {"policy": policy, "reward_model": folder / "reward_model", "prompts": prompts, "seconds": seconds}


def optimise(made: dict[str, Any], out: Path, seed: int, settings: tuple) -> tuple[dict[str, Any], float]:
  """(the summary of ppo.py, processor seconds)."""
  import ppo

  started = time.process_time()
  words = ("--model_name_or_path", made["policy"], "--reward_model_path", made["reward_model"], "--seed", seed)
  words += ("--dataset_name", made["prompts"], "--output_dir", out, *settings)
  return ppo.main([str(word) for word in words]), time.process_time() - started


def judge(path: Path, seed: int, rewards: Any) -> dict[str, float]:
  """Gold reward of sampled and of greedy answers to fresh prompts, and what the reward model makes of the sampled."""
  from reward_modeling import sandbox
  from reward_modeling.sandbox_models import policy_answers

  asked = sandbox.make_questions(JUDGED, seed, split="test")
  sampled, greedy = (policy_answers(path, asked, seed, temperature) for temperature in (1.0, 0.0))
  replies = [[{"role": "assistant", "content": text}] for text, _ in sampled]
  return {
    "gold": fmean(gold.value for _, gold in sampled),
    "greedy": fmean(gold.value for _, gold in greedy),
    "proxy": fmean(rewards([prompt.messages for prompt in asked], replies)),
  }


def study(folder: Path, seed: int, controls: bool) -> dict[str, Any]:
  from reward_modeling.ensemble import Rewards
  from reward_modeling.sandbox import MAX_GOLD

  made = prepare(folder, seed)
  rewards = Rewards.from_pretrained([str(made["reward_model"])])
  found = {"seed": seed, "before": judge(made["policy"], seed, rewards), "runs": {}}
  for name in RUNS if controls else ["main"]:
    summary, cpu = optimise(made, folder / name.replace(", ", "_").replace(" ", "_"), seed, flags_of(**RUNS[name]))
    after = judge(Path(summary.output_dir), seed, rewards)
    closed = (after["gold"] - found["before"]["gold"]) / (MAX_GOLD - found["before"]["gold"])
    found["runs"][name] = {
      **after,
      "closed": closed,
      "kl": summary.end["kl"],
      "cpu": sum(made["seconds"].values()) + cpu,
      "seconds": {**made["seconds"], "ppo": cpu},
      "phases": summary.seconds,
      "warnings": summary.warnings,
    }
  return found


def verdicts(found: list[dict[str, Any]]) -> dict[str, bool]:
  """Threshold -> whether it holds."""
  main = [one["runs"]["main"] for one in found]
  held = {
    "closed, each seed": min(run["closed"] for run in main) >= THRESHOLDS["closed, each seed"],
    "closed, mean": fmean(run["closed"] for run in main) >= THRESHOLDS["closed, mean"],
    "cpu": max(run["cpu"] for run in main) <= THRESHOLDS["cpu"],
  }
  for one in found:
    runs = one["runs"]
    if "flipped" in runs:
      fall = one["before"]["gold"] - runs["flipped"]["gold"]
      matched, free = runs["long"], runs["long, no penalty"]
      held[f"seed {one['seed']}: flipped falls by"] = fall >= THRESHOLDS["flipped falls by"]
      lower = matched["gold"] - free["gold"] >= THRESHOLDS["no penalty ends lower by"]
      held[f"seed {one['seed']}: no penalty ends lower, with more proxy"] = lower and free["proxy"] > matched["proxy"]
      held[f"seed {one['seed']}: and its report says so"] = any("over-optimized" in w for w in free["warnings"])
  return held


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument("--seeds", nargs="+", type=int, default=[100, 101, 102, 103, 104])
  parser.add_argument("--controls", action="store_true")
  parser.add_argument("--keep", help="a folder for the models and runs, instead of one that is removed")
  args = parser.parse_args()
  import torch

  torch.set_num_threads(1)
  import reward_modeling.training.outcome
  import reward_modeling.training.ppo  # noqa: F401
  from reward_modeling.program import quiet_libraries
  from reward_modeling.results import keep_stdout_for_results
  from reward_modeling.terminal import table

  keep_stdout_for_results()
  quiet_libraries()
  found = []
  with tempfile.TemporaryDirectory() as temporary:
    for seed in args.seeds:
      found.append(study(Path(args.keep or temporary) / str(seed), seed, args.controls))
      print(json.dumps(found[-1]), file=sys.stderr, flush=True)
  columns = ["seed", "run", "gold before", "greedy", "gold after", "greedy after", "closed", "proxy", "KL", "cpu"]
  measured = ("gold", "greedy", "closed", "proxy", "kl", "cpu")
  rows = [
    [one["seed"], name, one["before"]["gold"], one["before"]["greedy"], *(run[number] for number in measured)]
    for one in found
    for name, run in one["runs"].items()
  ]
  table("PPO in the sandbox", columns, rows)
  held = verdicts(found)
  table("thresholds", ["threshold", "holds"], [[name, "yes" if ok else "NO"] for name, ok in held.items()])
  from reward_modeling.results import emit

  emit({"thresholds": THRESHOLDS, "held": held, "seeds": found})


if __name__ == "__main__":
  main()
