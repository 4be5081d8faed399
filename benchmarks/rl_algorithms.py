"""PPO, GRPO, RLOO and best-of-16 beside each other in the sandbox: same seeds, same number of answers, KL reported.

    uv run python benchmarks/rl_algorithms.py --seeds 100 101 102 103 104

The world, the taught policy, the reward model and the PPO run are those of benchmarks/ppo.py. GRPO and RLOO write as many
answers (3,840, eight to a prompt) and take as many optimizer steps on each; best-of-n trains nothing and writes n answers to
each prompt it is asked: 16, and 48, whose KL is about that of the trained policies. GRPO went furthest with the setting chosen
for it, so it stands there with twice the penalty too, to be compared at like KL. `KL` is measured alike for all: nats per
answer from the taught policy, summed over whole next-token distributions, on 512 fresh prompts (best-of-n: its bound,
log n - (n - 1)/n). The settings were chosen on seeds 0 and 1 by gold reward on fresh prompts, from two each for GRPO and RLOO
(`--tune`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from reward_modeling.sandbox_models import PPO_DEFAULTS  # noqa: E402 - from the path above


def _neighbour(name: str) -> Any:
  """Another benchmark of this folder, as a module (`ppo` alone would be the script)."""
  spec = importlib.util.spec_from_file_location(f"benchmark_{name}", Path(__file__).with_name(f"{name}.py"))
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


BENCHMARK = _neighbour("ppo")
LONGEST = PPO_DEFAULTS["response_length"]
BEST_OF = (16, 48)
GENERATIONS = 60
# fmt: off
COMMON = (
    "--per_device_train_batch_size", 32, "--steps_per_generation", 2, "--num_iterations", 2, "--num_generations", 8,
    "--max_completion_length", LONGEST, "--max_steps", 4 * GENERATIONS, "--lr_scheduler_type", "linear",
    "--normalize_rewards", "--save_strategy", "no",
)
# fmt: on
GRPO = ("--algorithm", "grpo", *COMMON)
RLOO = ("--algorithm", "rloo", *COMMON, "--normalize_advantages", "true")
TUNING = {
  f"{name}, beta {beta:g}": (*settings, "--learning_rate", 1e-3, "--beta", beta)
  for name, settings, betas in (("grpo", GRPO, (0.2, 0.4)), ("rloo", RLOO, (0.05, 0.1)))
  for beta in betas
}
CHOSEN = {name: TUNING[name] for name in ("grpo, beta 0.2", "grpo, beta 0.4", "rloo, beta 0.1")}


def kept_by(folder: Path) -> dict[str, Any] | None:
  """What `benchmarks/ppo.py --keep` left of this seed."""
  made = {"policy": folder / "policy", "reward_model": folder / "reward_model", "prompts": folder / "prompts.jsonl"}
  return made if all(path.exists() for path in made.values()) else None


def optimise(made: dict[str, Any], out: Path, seed: int, settings: tuple) -> tuple[Path, float]:
  """(the trained policy, processor seconds) of grpo.py."""
  import grpo

  started = time.process_time()
  words = ("--model_name_or_path", made["policy"], "--reward_model_path", made["reward_model"], "--seed", seed)
  words += ("--dataset_name", made["prompts"], "--output_dir", out, *settings)
  summary = grpo.main([str(word) for word in words])
  return Path(summary.output_dir), time.process_time() - started


def kl_from(start: Any, path: Path, seed: int) -> float:
  """Nats per answer that the policy at `path` is away from `start`, on fresh prompts and its own samples."""
  import torch

  from reward_modeling import sandbox
  from reward_modeling.attention import language_logits
  from reward_modeling.training.actor_critic import AnswerBatch
  from reward_modeling.training.policy import Policy, sample

  policy = Policy.from_pretrained(str(path))
  asked = [policy.renderer.prompt_ids(p.messages) for p in sandbox.make_questions(BENCHMARK.JUDGED, seed, split="test")]
  answers = sample(policy, asked, max_new_tokens=LONGEST, seed=seed, batch_size=256)
  total = 0.0
  with torch.inference_mode():
    for first in range(0, len(asked), 64):
      rows = answers[first : first + 64]
      pad = policy.tokenizer.pad_token_id
      batch = AnswerBatch.of(asked[first : first + 64], rows, policy.model, pad, packed=False)
      read = batch.inputs, batch.rows, batch.places
      log_p, log_q = (language_logits(model, *read)[0].log_softmax(-1) for model in (policy.model, start.model))
      total += (log_p.exp() * (log_p - log_q)).sum().item()
  return total / len(asked)


def best_of_n(made: dict[str, Any], rewards: Any, seed: int, n: int) -> dict[str, float]:
  """Gold and proxy of the best of n samples of the taught policy, on the prompts that the other policies are judged on."""
  from reward_modeling import sandbox
  from reward_modeling.evaluation.overoptimization import best_of_n_kl
  from reward_modeling.sandbox_models import policy_answers

  started = time.process_time()
  several = [p for p in sandbox.make_questions(BENCHMARK.JUDGED, seed, split="test") for _ in range(n)]
  answers = policy_answers(made["policy"], several, seed)
  proxy = rewards([p.messages for p in several], [[{"role": "assistant", "content": text}] for text, _ in answers])
  best = [max(range(i, i + n), key=lambda place: proxy[place]) for i in range(0, len(several), n)]
  return {
    "gold": fmean(answers[place][1].value for place in best),
    "proxy": fmean(proxy[place] for place in best),
    "kl": best_of_n_kl(n),
    "seconds": time.process_time() - started,
  }


def study(folder: Path, seed: int, settings: dict[str, tuple], everything: bool) -> list[dict[str, Any]]:
  """One row for each algorithm. everything: PPO and best-of-n, too."""
  from reward_modeling.ensemble import Rewards
  from reward_modeling.sandbox import MAX_GOLD
  from reward_modeling.training.policy import Policy

  made = kept_by(folder) or BENCHMARK.prepare(folder, seed)
  rewards = Rewards.from_pretrained(str(made["reward_model"]))
  start = Policy.from_pretrained(str(made["policy"]))
  before = BENCHMARK.judge(made["policy"], seed, rewards)
  rows = [{"seed": seed, "algorithm": "taught", **before, "kl": 0.0}]
  trained = {}
  if everything and (folder / "main" / "config.json").exists():
    trained["ppo"] = folder / "main", None
  elif everything:
    summary, seconds = BENCHMARK.optimise(made, folder / "main", seed, BENCHMARK.flags_of())
    trained["ppo"] = Path(summary.output_dir), seconds
  for name, flags in settings.items():
    trained[name] = optimise(made, folder / name.replace(", ", "_").replace(" ", "_"), seed, flags)
  for name, (path, seconds) in trained.items():
    after = BENCHMARK.judge(path, seed, rewards)
    rows.append({"seed": seed, "algorithm": name, **after, "kl": kl_from(start, path, seed), "seconds": seconds})
  for n in BEST_OF if everything else ():
    rows.append({"seed": seed, "algorithm": f"best of {n}", **best_of_n(made, rewards, seed, n)})
  for row in rows:
    row["closed"] = (row["gold"] - before["gold"]) / (MAX_GOLD - before["gold"])
    print(json.dumps(row), file=sys.stderr, flush=True)
  return rows


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument("--seeds", nargs="+", type=int, default=[100, 101, 102, 103, 104])
  parser.add_argument("--tune", action="store_true", help="the settings that were tried, instead of those chosen")
  parser.add_argument(
    "--keep", help="a folder for the models and runs; those that benchmarks/ppo.py kept there are used"
  )
  args = parser.parse_args()
  import torch

  torch.set_num_threads(1)
  import reward_modeling.training.grpo
  import reward_modeling.training.ppo  # noqa: F401 - imports are no part of a timing
  from reward_modeling.program import quiet_libraries
  from reward_modeling.results import emit, keep_stdout_for_results
  from reward_modeling.terminal import table

  keep_stdout_for_results()
  quiet_libraries()
  rows = []
  with tempfile.TemporaryDirectory() as temporary:
    for seed in args.seeds:
      rows += study(Path(args.keep or temporary) / str(seed), seed, TUNING if args.tune else CHOSEN, not args.tune)
  columns = ["algorithm", "seed", "gold", "greedy", "closed", "proxy", "kl", "seconds"]
  names = list(dict.fromkeys(row["algorithm"] for row in rows))
  means = [
    {"seed": "mean", "algorithm": name}
    | {
      column: fmean(row[column] for row in rows if row["algorithm"] == name)
      for column in columns[2:]
      if all(column in row for row in rows if row["algorithm"] == name)
    }
    for name in names
  ]
  ordered = [row for name in names for row in (*rows, *means) if row["algorithm"] == name]
  table("algorithms in the sandbox", columns, [[row.get(column) for column in columns] for row in ordered])
  emit({"rows": rows, "means": means})


if __name__ == "__main__":
  main()
