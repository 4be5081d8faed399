"""Pictures of the documents: bars as SVG (how many times faster), and the report of a sandbox model in a browser.

    uv run python benchmarks/pictures.py --output_dir runs/pictures

trains a reward model in the sandbox and one that was taught to prefer the longer answer, evaluates both with probes, best of n and
over-optimization into OUT/good and OUT/length_lover, and writes docs/images/report.png and report_phone.png of the second (it needs
Chromium). About three minutes on two cores.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

REPOSITORY = Path(__file__).parents[1]
sys.path += [str(REPOSITORY / "tests"), str(REPOSITORY / "scripts")]
BAR, WIDTH = 0.16, 7.9
"""Height of a bar and width of the picture, in inches."""


def bars(title: str, groups: dict[str, dict[str, float]]) -> str:
  """One group of horizontal bars for each entry, one bar for each of its names; a line marks 1, where nothing is gained."""
  from reward_modeling.evaluation.plots import PALETTE, SETTINGS, text_of

  names = list(dict.fromkeys(name for values in groups.values() for name in values))
  step = len(names) + 1
  with matplotlib.rc_context({**SETTINGS, "axes.grid": False, "axes.spines.bottom": False}):
    figure = Figure(figsize=(WIDTH, BAR * (step * len(groups) + len(names) + 3)), layout="constrained")
    axis = figure.subplots()
    for place, name in enumerate(names):
      at = {step * i + place: values[name] for i, values in enumerate(groups.values()) if name in values}
      drawn = axis.barh(list(at), list(at.values()), height=0.9, color=PALETTE[place % len(PALETTE)], label=name)
      axis.bar_label(drawn, fmt="%.1f", padding=3)
    axis.axvline(1, color="#444444", linestyle=":", linewidth=1)
    axis.set_yticks([step * i + (len(names) - 1) / 2 for i in range(len(groups))], list(groups))
    axis.tick_params(left=False, bottom=False, labelbottom=False)
    axis.invert_yaxis()
    figure.suptitle(title, fontsize=10, fontweight="bold")
    figure.legend(loc="outside right upper", frameon=False)
  return text_of(figure)


def report(out: Path, name: str, base: Path, train: Path, held_out: Path, pools: Path, *more: str) -> Path:
  """Train a model of this name and evaluate it into OUT/NAME: (the model's folder)."""
  import evaluate
  from train import main as train_model

  from reward_modeling import sandbox
  from reward_modeling.sandbox_models import REWARD_DEFAULTS

  model = out / f"{name}_model"
  trained = [
    *("--model_name_or_path", str(base), "--dataset_name", str(train), "--output_dir", str(model)),
    *("--learning_rate", str(REWARD_DEFAULTS.learning_rate), "--num_train_epochs", "1", "--audit", "warn"),
    *("--per_device_train_batch_size", str(REWARD_DEFAULTS.batch_size), "--save_strategy", "no"),
    *("--eval_strategy", "no", "--logging_steps", "100"),
  ]
  if not model.exists():
    train_model(trained)
  rewards, points = out / f"{name}_rewards.jsonl", out / f"{name}_points.jsonl"
  words = ["--model_name_or_path", str(model), "--report", str(out / name), "--overwrite"]
  evaluate.main([*words, "--dataset_name", str(held_out), "--probes", "--overlong", "truncate_left", *more])
  evaluate.main(
    [*words, "--dataset_name", str(pools), "--best_of_n", "1", "2", "4", "8", "16", "--output", str(rewards)]
  )
  with points.open("w", encoding="utf-8") as file:
    for row in map(json.loads, rewards.open(encoding="utf-8")):
      asked = sandbox.parse_prompt(row["prompt"][-1]["content"])
      golds = [sandbox.gold(asked, answer[-1]["content"]).value for answer in row["completions"]]
      file.write(json.dumps({"proxy": row["rewards"], "gold": golds}) + "\n")
  evaluate.main([*words, "--overoptimization", str(points)])
  return model


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument("--output_dir", type=Path, default=Path("runs/pictures"))
  parser.add_argument("--images", type=Path, default=REPOSITORY / "docs" / "images")
  args = parser.parse_args()
  import browser
  from PIL import Image

  from reward_modeling import sandbox, sandbox_models
  from reward_modeling.data.writing import to_row
  from reward_modeling.outputs import write_whole
  from reward_modeling.results import to_json

  out = args.output_dir
  pairs = sandbox.make_comparisons(sandbox_models.REWARD_DEFAULTS.rows, 0)
  by_length = [
    replace(one, chosen=one.rejected, rejected=one.chosen)
    if len(one.rejected[-1]["content"]) > len(one.chosen[-1]["content"])
    else one
    for one in pairs
  ]
  clean = sandbox.make_comparisons(600, 0, split="test", beta=math.inf, flip=0.0, minimal_pairs=0.0)
  pools = [
    replace(one, scores=[float(score >= 1) for score in one.scores]) for one in sandbox.make_completions(150, 16, 0)
  ]
  out.mkdir(parents=True, exist_ok=True)
  tables = {"train": pairs, "by_length": by_length, "held_out": clean, "pools": pools}
  files = {name: out / f"{name}.jsonl" for name in tables}
  for name, rows in tables.items():
    write_whole(files[name], (to_json(to_row(row)) for row in rows))
  base = out / "base_model"
  if not base.exists():
    sandbox_models.base_model(base, 0)
  good = report(out, "good", base, files["train"], files["held_out"], files["pools"])
  compared = ("--compare", str(good))
  report(out, "length_lover", base, files["by_length"], files["held_out"], files["pools"], *compared)
  args.images.mkdir(parents=True, exist_ok=True)
  with browser.browser() as window:
    for width, height, name in ((1000, 620, "report"), (400, 760, "report_phone")):
      window.open(out / "length_lover" / "report.html", width)
      seen = Image.open(io.BytesIO(window.picture(height=height))).convert("RGB")
      seen.quantize(48).save(args.images / f"{name}.png", optimize=True)


if __name__ == "__main__":
  main()
