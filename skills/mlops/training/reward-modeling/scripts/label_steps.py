# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch>=2.13,<2.16", "transformers>=5.23,<5.25", "trl>=1.16,<1.17", "datasets>=5.2,<6", "peft>=0.21,<0.22",
#   "accelerate>=1.15,<1.16", "rich>=14,<16", "pyyaml>=6,<7", "scipy>=1.14,<2", "pydantic>=2.10,<3", "jinja2>=3.1.6,<4",
# ]
# ///
"""Label the steps of solutions by rollouts: a policy finishes each prefix, a checker says which final answers are right.

    uv run scripts/label_steps.py --model_name_or_path runs/sft --input solutions.jsonl --output labeled.jsonl --dry_run
    uv run scripts/label_steps.py --model_name_or_path runs/sft --input solutions.jsonl --output labeled.jsonl --checker checks.py:is_right

Reads   prompt and steps, or completions that are split at --step_separator, and a column with the right answer
Writes  prompt, completions (the steps), labels, and rollouts: [right, decided] after each step; what train_process.py reads
Method  Monte-Carlo estimates (Math-Shepherd, arXiv:2312.08935), binary search (OmegaPRM, arXiv:2406.06592). What does not end, or
        whose answer cannot be told, counts for no label. Killed, the same command goes on.
"""

from reward_modeling import cli
from reward_modeling.program import main_guard
from reward_modeling.results import Result


def parser() -> cli.Parser:
  from reward_modeling.rollouts import RolloutSettings  # here, since some loaders leave it out: main_guard says so

  return cli.Parser(__doc__, "label_steps.py", RolloutSettings)


def main(argv: list[str] | None = None) -> Result:
  from reward_modeling.rollouts import RolloutSettings, label_steps

  return label_steps(cli.settings(RolloutSettings, parser().parse(argv)))


if __name__ == "__main__":
  main_guard(main)
