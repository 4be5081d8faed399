# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch>=2.13,<2.16", "transformers>=5.23,<5.25", "trl>=1.16,<1.17", "datasets>=5.2,<6", "peft>=0.21,<0.22",
#   "accelerate>=1.15,<1.16", "rich>=14,<16", "pyyaml>=6,<7", "scipy>=1.14,<2", "pydantic>=2.10,<3", "jinja2>=3.1.6,<4",
#   "matplotlib>=3.10,<4",
# ]
# ///
"""Optimize a policy against a reward model with TRL's GRPO or RLOO: no value model, several answers to each prompt.

    uv run scripts/grpo.py --model_name_or_path runs/sft --reward_model_path runs/rm --dataset_name prompts.jsonl --output_dir runs/grpo
    uv run scripts/grpo.py --algorithm rloo --reward_model_path runs/a runs/b --reward_weights 0.7 0.3 --config grpo.yaml
    uv run scripts/grpo.py --config grpo.yaml --beta 0.1 --num_generations 16 --use_peft

Reads   prompts as text or messages; of comparisons and rankings, their prompts (references/data.md)
Writes  OUT/ a plain Hugging Face causal language model, OUT/grpo.json, OUT/log.jsonl, OUT/run.html, OUT/checkpoint-*
Method  GRPO arXiv:2402.03300, RLOO arXiv:2402.14740, by trl.GRPOTrainer and trl.RLOOTrainer. Which one, and what to
        watch: references/reinforcement-learning.md

Any other field of trl.GRPOConfig or trl.RLOOConfig is accepted by its own name: --beta 0.1 --num_generations 8
--max_completion_length 256 --learning_rate 1e-6 --max_steps 200 --report_to tensorboard
All of them: https://huggingface.co/docs/trl/grpo_trainer#trl.GRPOConfig and rloo_trainer#trl.RLOOConfig
"""

from reward_modeling import cli
from reward_modeling.program import main_guard
from reward_modeling.results import Result
from reward_modeling.training.settings import GRPOSettings


def parser() -> cli.Parser:
  required = ("model_name_or_path", "dataset_name", "output_dir")
  trainer = lambda: GRPOSettings.config_classes().values()  # noqa: E731
  return cli.Parser(__doc__, "grpo.py", GRPOSettings, required=required, trainer=trainer)


def main(argv: list[str] | None = None) -> Result | None:
  args = parser().parse(argv)
  settings = cli.settings(GRPOSettings, args)
  from reward_modeling.training import grpo, reinforcement

  fields = cli.trainer_fields(settings.config_class, args.trainer_arguments, "grpo.py")
  return reinforcement.train_policy(grpo.GRPORun(settings, fields), settings)


if __name__ == "__main__":
  main_guard(main)
