# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch>=2.13,<2.16", "transformers>=5.23,<5.25", "trl>=1.16,<1.17", "datasets>=5.2,<6", "peft>=0.21,<0.22",
#   "accelerate>=1.15,<1.16", "rich>=14,<16", "pyyaml>=6,<7", "scipy>=1.14,<2", "pydantic>=2.10,<3", "jinja2>=3.1.6,<4",
#   "matplotlib>=3.10,<4",
# ]
# ///
"""Train an outcome reward model: one score for a whole answer, from human or verifier preferences.

    uv run scripts/train.py --model_name_or_path Qwen/Qwen2.5-0.5B-Instruct --dataset_name trl-lib/ultrafeedback_binarized --output_dir runs/uf
    uv run scripts/train.py --config assets/recipes/qwen.yaml --dataset_name pairs.jsonl --output_dir runs/qwen

Reads   comparisons, rankings and rated answers in any format of references/data.md
Writes  OUT/ a plain Hugging Face sequence classifier with reward_model.json beside it, OUT/run.json, OUT/checkpoint-*
Method  Bradley-Terry, arXiv:2203.02155 Eq. 1, or another --objective (references/training.md#loss).
        The saved model is reloaded and compared before it appears in OUT.

Any other field of trl.RewardConfig is accepted by its own name: --weight_decay 0.01 --logging_steps 5 --report_to tensorboard
All of them: https://huggingface.co/docs/trl/reward_trainer#trl.RewardConfig
"""

from reward_modeling import cli
from reward_modeling.program import main_guard
from reward_modeling.results import Result
from reward_modeling.training.pairs import Pairs
from reward_modeling.training.settings import Settings


def parser() -> cli.Parser:
  required = ("model_name_or_path", "dataset_name", "output_dir")
  return cli.Parser(__doc__, "train.py", Settings, Pairs, required=required, trainer=lambda: [Pairs.config_class()])


def main(argv: list[str] | None = None) -> Result | None:
  args = parser().parse(argv)
  settings, given = cli.settings(Settings, args), cli.settings(Pairs, args)
  from reward_modeling.training import runs
  from reward_modeling.training.ratings import learner_of

  kind = learner_of(given)

  return runs.train(kind, settings, cli.trainer_fields(kind.config_class, args.trainer_arguments, "train.py"))


if __name__ == "__main__":
  main_guard(main)
