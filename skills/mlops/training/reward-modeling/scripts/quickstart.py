# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch>=2.13,<2.16", "transformers>=5.23,<5.25", "trl>=1.16,<1.17", "datasets>=5.2,<6", "peft>=0.21,<0.22",
#   "accelerate>=1.15,<1.16", "rich>=14,<16", "pyyaml>=6,<7", "scipy>=1.14,<2", "pydantic>=2.10,<3", "jinja2>=3.1.6,<4",
#   "matplotlib>=3.10,<4",
# ]
# ///
"""See a reward model made, evaluated and used, in under three minutes, with no GPU, no downloads and no flags.

    uv run scripts/quickstart.py
    uv run scripts/quickstart.py --output_dir runs/second --seed 1

Makes a small world with a known gold reward, audits preferences with noisy labels, trains a reward model on them, evaluates
it on clean held-out pairs, ranks fresh answers, and optimizes a policy against it. Every step is the script of the same
name, called with the flags that are printed.

Writes  OUT/base_model, OUT/reward_model, OUT/policy and its run.html; train.jsonl, held_out.jsonl, completions.jsonl,
        ranked.jsonl and prompts.jsonl, in the formats of references/data.md
"""

from __future__ import annotations

import importlib
import json
import math
import time
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from reward_modeling import cli, sandbox, sandbox_models
from reward_modeling.data.writing import to_row
from reward_modeling.errors import UsageError
from reward_modeling.output_folder import claim
from reward_modeling.outputs import write_whole
from reward_modeling.program import main_guard
from reward_modeling.results import to_json
from reward_modeling.sandbox import gold, parse_prompt
from reward_modeling.sandbox_models import PPO_DEFAULTS, REWARD_DEFAULTS, policy_answers
from reward_modeling.terminal import log, table

if TYPE_CHECKING:
  from reward_modeling.training.results import Quickstart

HELD_OUT_PAIRS = 1000
PROMPTS, ANSWERS = 50, 8
UPDATES, POLICY_PROMPTS, FRESH_PROMPTS = 25, 2000, 256
"""Of the policy: updates of 64 answers, prompts to learn from, fresh ones to evaluate on."""
ARTEFACTS = {
  "preferences": "train.jsonl",
  "held-out pairs": "held_out.jsonl",
  "base model": "base_model",
  "reward model": "reward_model",
  "rewards of the held-out pairs": "held_out_rewards.jsonl",
  "ranked answers": "ranked.jsonl",
  "policy": "policy",
  "page of its run": "policy/run.html",
}
CLOSING = """\
accuracy on held-out pairs {accuracy:.3f}
gold reward of the answer it ranks first {choice[chosen]:.2f}; a random answer {choice[random]:.2f}, the best \
{choice[best]:.2f}
gold reward of the policy: {policy[before]:.2f} before PPO, {policy[after]:.2f} after, at most \
{policy[most]:.2f} ({policy[kl]:.1f} nats from where it began)"""


@dataclass(frozen=True, kw_only=True)
class Settings:
  group: ClassVar = "options"
  output_dir: str | None = cli.flag(
    None, "where everything goes (runs/quickstart, or the next free number)", metavar="OUT"
  )
  seed: int = cli.flag(0, "of the world, the models and the order", type=cli.whole_number)


def parser() -> cli.Parser:
  return cli.Parser(__doc__, "quickstart.py", Settings)


def main(argv: list[str] | None = None) -> Quickstart:
  settings = cli.settings(Settings, parser().parse(argv))
  out, seed = Path(settings.output_dir or free_folder(Path("runs/quickstart"))), settings.seed
  if out.is_dir() and any(out.iterdir()):
    raise UsageError(f"{out} is not empty", hint="give another --output_dir, or leave it out: a free one is taken")
  out, started = claim(out), time.perf_counter()
  files = make_data(out, seed)
  log("\nteaching a tiny decoder (two layers) to answer, well and badly: the model to start from")
  base = sandbox_models.base_model(out / "base_model", seed)  # what a pretrained model is elsewhere
  audit = step("check_data", files["train"], "--eval_dataset_name", files["held_out"])
  model, rewards, ranked = out / "reward_model", out / "held_out_rewards.jsonl", out / "ranked.jsonl"
  training = step(
    "train",
    *("--model_name_or_path", base, "--dataset_name", files["train"], "--eval_dataset_name", files["held_out"]),
    *("--output_dir", model, "--seed", seed, "--learning_rate", REWARD_DEFAULTS.learning_rate),
    *("--per_device_train_batch_size", REWARD_DEFAULTS.batch_size, "--num_train_epochs", 1),
    *("--eval_strategy", "no", "--save_strategy", "no", "--logging_steps", 50),
  )
  of_model = ("--model_name_or_path", model)
  held_out = ("--dataset_name", files["held_out"], "--subset_column", "subset", "--output", rewards)
  evaluation = step("evaluate", *of_model, *held_out)
  step("score", *of_model, "--input", files["completions"], "--rank", "--output", ranked)
  choice, policy = gold_of_choice(ranked), optimize(out, base, model, files["prompts"], seed)
  artefacts = {name: str(out / file) for name, file in ARTEFACTS.items()}
  table("where everything lies", ["what", "where"], list(artefacts.items()))
  log(CLOSING.format(accuracy=evaluation.accuracy, choice=choice, policy=policy))
  seconds = time.perf_counter() - started
  log(f"done in {seconds:.0f} s")
  from reward_modeling.training.results import Quickstart

  return Quickstart(
    seconds=seconds,
    accuracy=evaluation.accuracy,
    length_baseline=evaluation.length.baseline_longer,
    subsets=evaluation.subsets,
    gold_reward=choice,
    policy_gold_reward=policy,
    audit={"errors": audit.errors, "warnings": audit.warnings},
    reload_difference=training.reload_difference,
    artefacts=artefacts,
  )


def step(script: str, *arguments: object) -> Any:
  """Run the script of this name in this process, and show its command."""
  words = [str(word) for word in arguments]
  log(f"\n$ {script}.py {' '.join(words)}")
  return importlib.import_module(script).main(words)


def make_data(out: Path, seed: int) -> dict[str, Path]:
  log("making a small world: questions, good answers, answers with one of seven flaws, and a gold reward for each")
  records = {
    "train": sandbox.make_comparisons(REWARD_DEFAULTS.rows, seed),
    "held_out": sandbox.make_comparisons(
      HELD_OUT_PAIRS, seed, split="test", beta=math.inf, flip=0.0, minimal_pairs=0.0
    ),
    "completions": sandbox.make_completions(PROMPTS, ANSWERS, seed),
  }
  tables = {name: [to_row(row) for row in rows] for name, rows in records.items()}
  tables["prompts"] = [{"prompt": asked.messages} for asked in sandbox.make_questions(POLICY_PROMPTS, seed)]
  files = {name: out / f"{name}.jsonl" for name in tables}
  out.mkdir(parents=True, exist_ok=True)
  for name, rows in tables.items():
    write_whole(files[name], map(to_json, rows))
    log(f"  {files[name]}: {len(rows)} rows")
  return files


def optimize(out: Path, base: Path, reward_model: Path, prompts: Path, seed: int) -> dict[str, float]:
  """Train the base model as a policy. Mean gold reward before and after, on fresh prompts; the KL at the end."""
  run = step(
    "ppo",
    *("--model_name_or_path", base, "--reward_model_path", reward_model, "--dataset_name", prompts),
    *("--output_dir", out / "policy", "--seed", seed, "--total_episodes", 64 * UPDATES),
    *(word for name, value in PPO_DEFAULTS.items() for word in (f"--{name}", value)),
  )
  asked = sandbox.make_questions(FRESH_PROMPTS, seed, split="test")
  models = base, out / "policy"
  before, after = (fmean(gold.value for _, gold in policy_answers(path, asked, seed)) for path in models)
  return {"before": before, "after": after, "most": sandbox.MAX_GOLD, "kl": run.end["kl"]}


def gold_of_choice(ranked: Path) -> dict[str, float]:
  """Mean gold reward of the answers ranked first, of a random answer and of the best one."""
  golds = []
  for row in map(json.loads, ranked.read_text(encoding="utf-8").splitlines()):
    asked = parse_prompt(row["prompt"][-1]["content"])
    golds.append([gold(asked, completion[-1]["content"]).value for completion in row["completions"]])
  mean = {"chosen": lambda row: row[0], "random": fmean, "best": max}
  return {name: fmean(map(take, golds)) for name, take in mean.items()}


def free_folder(folder: Path) -> Path:
  """`folder`, or the first of folder-2, folder-3, ... that does not exist."""
  names = chain([folder.name], (f"{folder.name}-{number}" for number in count(2)))
  return next(path for path in map(folder.with_name, names) if not path.exists())


if __name__ == "__main__":
  main_guard(main)
