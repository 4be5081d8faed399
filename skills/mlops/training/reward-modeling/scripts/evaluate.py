# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch>=2.13,<2.16", "transformers>=5.23,<5.25", "trl>=1.16,<1.17", "datasets>=5.2,<6", "peft>=0.21,<0.22",
#   "accelerate>=1.15,<1.16", "rich>=14,<16", "pyyaml>=6,<7", "scipy>=1.14,<2", "pydantic>=2.10,<3", "jinja2>=3.1.6,<4",
#   "matplotlib>=3.10,<4",
# ]
# ///
"""Evaluate a reward model: on labeled comparisons, on labeled steps, or by the answers it would choose.

    uv run scripts/evaluate.py --model_name_or_path runs/mine --dataset_name held_out.jsonl
    uv run scripts/evaluate.py --model_name_or_path runs/mine --dataset_name held_out.jsonl --compare runs/other --output pairs.jsonl
    uv run scripts/evaluate.py --model_name_or_path runs/mine --dataset_name held_out.jsonl --probes --report runs/report
    uv run scripts/evaluate.py --model_name_or_path runs/mine --dataset_name pools.jsonl --best_of_n 1 4 16
    uv run scripts/evaluate.py --model_name_or_path runs/mine --benchmark rewardbench2 judgebench --benchmark_data DIR
    uv run scripts/evaluate.py --overoptimization points.jsonl --picture curves.svg

Reads   comparisons, rankings, rated answers, solutions with step labels, or with --best_of_n completions of known correctness
Writes  tables on stderr, one JSON object on stdout, every row with its rewards to --output, a page and a card to --report
references/evaluation.md says how to read the numbers.
"""

from reward_modeling import cli
from reward_modeling.evaluation.settings import EvaluationSettings
from reward_modeling.program import main_guard
from reward_modeling.results import Result


def parser() -> cli.Parser:
  return cli.Parser(__doc__, "evaluate.py", EvaluationSettings)


def main(argv: list[str] | None = None) -> Result | None:
  settings = cli.settings(EvaluationSettings, parser().parse(argv))
  from reward_modeling.evaluation import runs

  return runs.evaluate(settings)


if __name__ == "__main__":
  main_guard(main)
