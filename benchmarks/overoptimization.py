"""How far can a reward model be optimized? Its size and its data against KL, after Gao et al. 2022 (arXiv:2210.10760).

    uv run python benchmarks/overoptimization.py --picture best_of_n.svg

In the sandbox the gold reward is known and only measured. One policy is taught FLAWED_MIX; reward models of three sizes and
of three amounts of data are trained on noisy preferences; each is maximised by best-of-n (n up to 64, the mean over all
subsets) and by PPO with a small KL penalty and without. Points of PPO are means over the answers of consecutive updates.
`a` and `b` are those of d(a - b d) for best-of-n and d(a - b log d) for PPO, fitted to the gold gain, d = sqrt(KL).
One seed, about ten CPU minutes: it shows the mechanism, not constants of nature.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from rl_algorithms import BENCHMARK


@dataclass(frozen=True)
class Model:
  """A reward model: width of its trunk, pairs it is trained on, and in how many passes."""

  width: int
  pairs: int
  epochs: int = 1


FULL = 19200
MODELS = {
  "width 16": Model(16, FULL),
  "width 32": Model(32, FULL),
  "width 64": Model(64, FULL),
  "1,200 pairs": Model(64, 1200, 8),
  "4,800 pairs": Model(64, 4800, 2),
}
BY_SIZE, BY_DATA = ("width 16", "width 32", "width 64"), ("1,200 pairs", "4,800 pairs", "width 64")
METHODS = {"best of n": None, "PPO, KL penalty 0.02": 0.02, "PPO, no penalty": 0.0}
PROMPTS, ANSWERS = 128, 64
UPDATES, WINDOW = 120, 10


def taught(folder: Path, width: int, seed: int) -> Path:
  """A decoder of this width, taught the flawed mix. The one of width 64 is also the policy."""
  from reward_modeling.sandbox_models import SFT_DEFAULTS, base_model

  path, settings = folder / f"base-{width}", replace(SFT_DEFAULTS, steps=BENCHMARK.TEACHING)
  sizes = {"hidden_size": width, "intermediate_size": 3 * width}
  return path if path.exists() else base_model(path, seed, settings, BENCHMARK.flawed(settings, seed), **sizes)


def reward_model(folder: Path, name: str, model: Model, seed: int) -> Path:
  """A reward model on the first of the noisy pairs, by train.py."""
  import train

  from reward_modeling import sandbox
  from reward_modeling.data.writing import to_row
  from reward_modeling.outputs import write_whole
  from reward_modeling.sandbox_models import REWARD_DEFAULTS

  file, out = folder / f"pairs-{model.pairs}.jsonl", folder / name.replace(" ", "_").replace(",", "")
  pairs = sandbox.make_comparisons(model.pairs, seed)
  write_whole(file, (json.dumps(to_row(row)) for row in pairs))
  # fmt: off
  train.main([str(word) for word in (
        "--model_name_or_path", taught(folder, model.width, seed), "--dataset_name", file, "--output_dir", out,
        "--seed", seed, "--num_train_epochs", model.epochs, "--learning_rate", REWARD_DEFAULTS.learning_rate,
        "--per_device_train_batch_size", REWARD_DEFAULTS.batch_size,
        "--eval_strategy", "no", "--save_strategy", "no", "--logging_steps", 200,
    )])
  # fmt: on
  return out


def clean_accuracy(rewards: Any, seed: int) -> float:
  """Share of held-out pairs without label noise in which the better answer gets more."""
  from reward_modeling import sandbox

  pairs = sandbox.make_comparisons(500, seed, split="test", beta=float("inf"), flip=0.0)
  sides = [rewards([p.prompt for p in pairs], [getattr(p, side) for p in pairs]) for side in ("chosen", "rejected")]
  return fmean(chosen > rejected for chosen, rejected in zip(*sides, strict=True))


class Answers:
  """Many answers of the taught policy to each of a few prompts, and their gold: shared by all reward models."""

  def __init__(self, policy: Path, seed: int):
    from reward_modeling import sandbox
    from reward_modeling.sandbox_models import policy_answers

    asked = [p for p in sandbox.make_questions(PROMPTS, seed, split="test") for _ in range(ANSWERS)]
    answers = policy_answers(policy, asked, seed)
    self.prompts = [prompt.messages for prompt in asked]
    self.replies = [[{"role": "assistant", "content": text}] for text, _ in answers]
    self.gold = [gold.value for _, gold in answers]

  def points(self, rewards: Any) -> list:
    """Points of best-of-n against this reward."""
    from reward_modeling.evaluation.overoptimization import best_of_n_points

    proxy = rewards(self.prompts, self.replies)
    return best_of_n_points(
      *([flat[i : i + ANSWERS] for i in range(0, len(flat), ANSWERS)] for flat in (proxy, self.gold))
    )


class Recorder:
  """A reward that notes down the gold of what it is asked about. The optimiser sees the reward alone."""

  def __init__(self, rewards: Any):
    self.rewards, self.gold = rewards, []

  def __getattr__(self, name: str) -> Any:
    return getattr(self.rewards, name)

  def __call__(self, prompts: list, completions: list, tools: Any = None) -> list[float]:
    from reward_modeling import sandbox

    texts = zip(prompts, completions, strict=True)
    self.gold.append(
      fmean(sandbox.gold(sandbox.parse_prompt(p[-1]["content"]), c[0]["content"]).value for p, c in texts)
    )
    return self.rewards(prompts, completions, tools)


def ppo_points(folder: Path, policy: Path, rewards: Any, model: Path, seed: int, kl_coef: float, start: Any) -> list:
  """Points of one PPO run: the taught policy, then means over WINDOW updates. start: best of 1, of many more answers than
  the 64 of the first update."""
  from reward_modeling.ensemble import Rewards
  from reward_modeling.evaluation.overoptimization import Point

  recorder, made_by = Recorder(rewards), Rewards.__dict__["from_pretrained"]
  made = {"policy": policy, "reward_model": model, "prompts": folder / "prompts.jsonl"}
  settings = BENCHMARK.flags_of(kl_coef=kl_coef, total_episodes=UPDATES * 64, normalize_rewards=False)
  out = folder / f"{model.name}-ppo-{kl_coef}"
  Rewards.from_pretrained = staticmethod(lambda *given, **more: recorder)
  try:
    BENCHMARK.optimise(made, out, seed, settings)
  finally:
    Rewards.from_pretrained = made_by
  history = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
  steps = [(entry["kl"], entry["reward"], gold) for entry, gold in zip(history, recorder.gold, strict=True)]
  windows = [steps[i : i + WINDOW] for i in range(1, len(steps), WINDOW)]
  return [Point(0.0, start.proxy, start.gold, None)] + [
    Point(*(fmean(step[i] for step in window) for i in range(3)), None) for window in windows
  ]


def picture(studies: dict[tuple[str, str], Any]) -> str:
  """Gold against KL: a row for each method, on the left by size and on the right by data. Lines are the fitted curves."""
  from reward_modeling.evaluation.panels import Panel, Series
  from reward_modeling.evaluation.plots import svg

  panels = []
  for method in METHODS:
    for title, names in (("by size", BY_SIZE), ("by data", BY_DATA)):
      series = []
      for color, name in enumerate(names):
        study = studies[name, method]
        label = f"{FULL:,} pairs" if title == "by data" and name == "width 64" else name
        series.append(Series(label, [(point.kl, point.gold) for point in study.points], "dots", color))
        most = max(point.kl for point in study.points)
        if study.gold:
          grid = [most * (i / 60) ** 2 for i in range(61)]
          series.append(Series("", [(kl, study.gold(kl)) for kl in grid], "line", color))
      panels.append(Panel(f"{method}, {title}", "KL (nats per answer)", "gold reward", series))
  return svg(panels)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument("--seed", type=int, default=200)
  parser.add_argument("--picture", default="overoptimization.svg", help="where the picture goes (best_of_n.svg)")
  args = parser.parse_args()
  import torch

  torch.set_num_threads(1)
  import reward_modeling.training.outcome
  import reward_modeling.training.ppo  # noqa: F401 - imports are no part of the timing
  from reward_modeling import sandbox
  from reward_modeling.ensemble import Rewards
  from reward_modeling.evaluation import overoptimization
  from reward_modeling.outputs import write_whole
  from reward_modeling.program import quiet_libraries
  from reward_modeling.results import emit, keep_stdout_for_results, to_json
  from reward_modeling.terminal import table

  keep_stdout_for_results()
  quiet_libraries()
  started, studies, accuracy = time.process_time(), {}, {}
  with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    policy = taught(folder, 64, args.seed)
    lines = (json.dumps({"prompt": asked.messages}) for asked in sandbox.make_questions(4000, args.seed))
    write_whole(folder / "prompts.jsonl", lines)
    answers = Answers(policy, args.seed)
    for name, model in MODELS.items():
      path = reward_model(folder, name, model, args.seed)
      rewards = Rewards.from_pretrained(str(path))
      accuracy[name] = clean_accuracy(rewards, args.seed)
      sampled = answers.points(rewards)
      for method, kl_coef in METHODS.items():
        points = sampled
        if kl_coef is not None:
          points = ppo_points(folder, policy, rewards, path, args.seed, kl_coef, sampled[0])
        form = "best_of_n" if kl_coef is None else "rl"
        studies[name, method] = overoptimization.study(points, form, f"{name}, {method}")
        print(to_json(studies[name, method]), file=sys.stderr, flush=True)
  rows = []
  for (name, method), study in studies.items():
    first, best, last = study.points[0], study.best, study.points[-1]
    fitted = (study.gold.alpha, study.gold.beta, study.gold.rmse) if study.gold else (None, None, None)
    rows.append([name, accuracy[name], method, first.gold, best.gold, best.kl, last.gold, last.kl, last.proxy, *fitted])
  columns = ["reward model", "accuracy", "method", "gold before", "best gold", "at KL", "last gold", "at KL", "proxy"]
  table("over-optimisation in the sandbox", [*columns, "a", "b", "residual"], rows)
  write_whole(args.picture, [picture(studies)])
  emit(
    {
      "seed": args.seed,
      "cpu_seconds": time.process_time() - started,
      "accuracy": accuracy,
      "studies": list(studies.values()),
      "picture": args.picture,
    }
  )


if __name__ == "__main__":
  main()
