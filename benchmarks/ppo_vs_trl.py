# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "trl==1.12.0",
#     "torch==2.15.0",
#     "transformers==5.23.0",
#     "datasets==5.2.0",
#     "peft==0.21.2",
#     "accelerate==1.15.0",
#     "rich==15.0.0",
#     "pyyaml==6.0.3",
#     "scipy==1.17.1",
# ]
# ///
"""This project's PPO beside the last one that TRL had (trl.experimental.ppo of 1.12.0): speed, memory, gold reward.

    uv run python benchmarks/ppo.py --seeds 0 --keep runs/sandbox
    uv run benchmarks/ppo_vs_trl.py --models runs/sandbox/0

Both optimise the same tiny policy against the same reward model on the same prompts with the same hyperparameters, each in
a process of its own, on one thread. Speed is answers per processor second of the training alone: imports, loading and
saving are left out. Memory is the peak of the process, and how much of it training added. Gold is judged on fresh prompts.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "scripts"), str(HERE)]

SIDES = ("ours", "trl")
LONGEST, JUDGED = 28, 512
# Named alike in both. One forward pass holds a whole rollout: with accumulation TRL 1.12 steps less often than it says.
SAME = {
  "per_device_train_batch_size": 64,
  "gradient_accumulation_steps": 1,
  "num_mini_batches": 2,
  "num_ppo_epochs": 2,
  "local_rollout_forward_batch_size": 64,
  "learning_rate": 1e-3,
  "response_length": LONGEST,
  "temperature": 1.0,
  "kl_coef": 0.1,
  "vf_coef": 0.5,
  "cliprange": 0.2,
  "cliprange_value": 0.2,
  "gamma": 1.0,
  "lam": 0.95,
  "missing_eos_penalty": 1.0,
  "save_steps": 100000,
}


def peak() -> float:
  """The largest resident size of this process so far, in MB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ours(models: Path, out: Path, episodes: int, seed: int) -> dict[str, Any]:
  import ppo

  from reward_modeling.training import ppo_run

  measured: dict[str, Any] = {}
  run = ppo_run.run_ppo

  def timed(*args: Any, **kwargs: Any) -> Any:
    measured["memory before"], started = peak(), time.process_time()
    summary = run(*args, **kwargs)
    measured.update(seconds=time.process_time() - started, memory=peak())
    return summary

  ppo_run.run_ppo = timed
  named = {"model_name_or_path": models / "policy", "reward_model_path": models / "reward_model", **SAME}
  named |= {
    "dataset_name": models / "prompts.jsonl",
    "value_model": "reward",
    "total_episodes": episodes,
    "seed": seed,
  }
  words = [str(word) for name, value in (named | {"output_dir": out}).items() for word in (f"--{name}", value)]
  summary = ppo.main(words)
  entries = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
  curve = [(entry["episode"], entry["reward"], entry["kl"]) for entry in entries]
  return {**measured, "answers": summary.updates * 64, "curve": curve}


def trl(models: Path, out: Path, episodes: int, seed: int) -> dict[str, Any]:
  import torch
  from datasets import Dataset
  from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
  from trl.experimental.ppo import PPOConfig, PPOTrainer

  tokenizer = AutoTokenizer.from_pretrained(models / "policy", padding_side="left", trust_remote_code=False)
  rows = [json.loads(line) for line in (models / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
  ids = [
    tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
    for row in rows
  ]
  policies = [
    AutoModelForCausalLM.from_pretrained(models / "policy", dtype=torch.float32, trust_remote_code=False)
    for _ in range(2)
  ]
  scalars = [
    AutoModelForSequenceClassification.from_pretrained(
      models / "reward_model", num_labels=1, dtype=torch.float32, trust_remote_code=False
    )
    for _ in range(2)
  ]
  config = PPOConfig(
        output_dir=str(out), total_episodes=episodes, seed=seed, stop_token="eos", use_cpu=True, bf16=False,
        gradient_checkpointing=False, num_sample_generations=0, report_to=[], save_strategy="no", logging_steps=1, **SAME,
    )  # fmt: skip
  trainer = PPOTrainer(
        args=config, processing_class=tokenizer, model=policies[0], ref_model=policies[1], reward_model=scalars[0],
        value_model=scalars[1], train_dataset=Dataset.from_dict({"input_ids": ids}),
        eval_dataset=Dataset.from_dict({"input_ids": ids[:8]}),
    )  # fmt: skip
  before, started = peak(), time.process_time()
  trainer.train()
  measured = {"seconds": time.process_time() - started, "memory": peak(), "memory before": before}
  trainer.save_model(str(out))
  tokenizer.save_pretrained(out)
  entries = [entry for entry in trainer.state.log_history if "objective/scores" in entry]
  curve = [(entry["episode"], entry["objective/scores"], entry["objective/kl"]) for entry in entries]
  return {**measured, "answers": episodes, "curve": curve}


def gold(path: Path, seed: int) -> float:
  """Mean gold reward of sampled answers to fresh prompts."""
  from reward_modeling import sandbox
  from reward_modeling.sandbox_models import policy_answers

  return fmean(
    found.value for _, found in policy_answers(path, sandbox.make_questions(JUDGED, seed, split="test"), seed)
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument("--models", type=Path, required=True, help="a folder that benchmarks/ppo.py --keep has left")
  parser.add_argument("--out", type=Path, default=Path("runs/ppo_vs_trl"))
  parser.add_argument("--episodes", type=int, default=60 * 64)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--side", choices=SIDES, help="run this one alone, in this process")
  args = parser.parse_args()
  from reward_modeling.evaluation.panels import Panel, Series
  from reward_modeling.evaluation.plots import svg
  from reward_modeling.outputs import write_whole
  from reward_modeling.program import quiet_libraries
  from reward_modeling.results import keep_stdout_for_results
  from reward_modeling.terminal import table

  keep_stdout_for_results()
  quiet_libraries()
  if args.side:
    import torch

    torch.set_num_threads(1)
    found = globals()[args.side](args.models, args.out / args.side, args.episodes, args.seed)
    write_whole(args.out / f"{args.side}.json", [json.dumps(found)])
    return
  found = {"start": gold(args.models / "policy", args.seed)}
  args.out.mkdir(parents=True, exist_ok=True)
  for side in SIDES:
    subprocess.run([sys.executable, __file__, *sys.argv[1:], "--side", side], check=True)
    found[side] = json.loads((args.out / f"{side}.json").read_text(encoding="utf-8"))
    found[side]["gold"] = gold(args.out / side, args.seed)
  rows = []
  for side in SIDES:
    one = found[side]
    one["rate"], one["added"] = one["answers"] / one["seconds"], one["memory"] - one["memory before"]
    rows.append([side, one["rate"], one["memory"], one["added"], found["start"], one["gold"]])
  first, second = rows
  rows.append(["ours / trl", first[1] / second[1], first[2] / second[2], first[3] / second[3], None, None])
  columns = ["", "answers per processor second", "peak MB", "of it training", "gold before", "gold after"]
  table(f"PPO, {args.episodes} answers, one thread", columns, rows)
  panels = [
    Panel(title, "answers", title, [Series(s, [(p[0], p[at]) for p in found[s]["curve"]]) for s in SIDES])
    for title, at in (("reward", 1), ("KL", 2))
  ]
  write_whole(args.out / "curves.svg", [svg(panels)])
  from reward_modeling.results import emit

  emit(found)


if __name__ == "__main__":
  main()
