# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch>=2.13,<2.16", "transformers>=5.23,<5.25", "trl>=1.16,<1.17", "datasets>=5.2,<6", "peft>=0.21,<0.22",
#   "accelerate>=1.15,<1.16", "rich>=14,<16", "pyyaml>=6,<7", "scipy>=1.14,<2", "pydantic>=2.10,<3", "jinja2>=3.1.6,<4",
#   "matplotlib>=3.10,<4",
# ]
# ///
"""Train a process reward model: after each step of a solution, how likely the step is correct.

    uv run scripts/train_process.py --model_name_or_path Qwen/Qwen2.5-3B --dataset_name trl-lib/math_shepherd --output_dir runs/prm
    uv run scripts/train_process.py --model_name_or_path Qwen/Qwen2.5-0.5B --dataset_name steps.jsonl --output_dir runs/mine --dry_run --show_labels 3

Reads   solutions with labeled steps in any stepwise format of references/process.md
Writes  OUT/ a plain Hugging Face token classifier with reward_model.json beside it, OUT/run.json, OUT/checkpoint-*
Method  cross-entropy at the last token of the separator after each step, arXiv:2305.20050, arXiv:2312.08935.
        The saved model is reloaded and compared before it appears in OUT.

Any other field of transformers.TrainingArguments is accepted by its own name: --weight_decay 0.01 --logging_steps 5
All of them: https://huggingface.co/docs/transformers/main_classes/trainer#transformers.TrainingArguments
"""

from reward_modeling import cli
from reward_modeling.program import main_guard
from reward_modeling.results import Result
from reward_modeling.training.settings import Settings
from reward_modeling.training.steps import StepLabels


def parser() -> cli.Parser:
  required, trainer = ("model_name_or_path", "dataset_name", "output_dir"), lambda: [StepLabels.config_class()]
  return cli.Parser(__doc__, "train_process.py", Settings, StepLabels, required=required, trainer=trainer)


def main(argv: list[str] | None = None) -> Result | None:
  args = parser().parse(argv)
  settings, kind = cli.settings(Settings, args), cli.settings(StepLabels, args)
  from reward_modeling.training import runs

  if kind.objective == "implicit":
    from reward_modeling.training.implicit import ImplicitRewards

    kind = cli.settings(ImplicitRewards, args)

  return runs.train(kind, settings, cli.trainer_fields(kind.config_class, args.trainer_arguments, "train_process.py"))


if __name__ == "__main__":
  main_guard(main)
