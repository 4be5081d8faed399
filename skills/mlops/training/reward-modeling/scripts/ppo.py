# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch>=2.13,<2.16", "transformers>=5.23,<5.25", "trl>=1.16,<1.17", "datasets>=5.2,<6", "peft>=0.21,<0.22",
#   "accelerate>=1.15,<1.16", "rich>=14,<16", "pyyaml>=6,<7", "scipy>=1.14,<2", "pydantic>=2.10,<3", "jinja2>=3.1.6,<4",
#   "matplotlib>=3.10,<4",
# ]
# ///
"""Optimize a policy against a reward model by PPO, with a penalty on its KL to the policy it started from.

    uv run scripts/ppo.py --model_name_or_path runs/sft --reward_model_path runs/rm --dataset_name prompts.jsonl --output_dir runs/ppo
    uv run scripts/ppo.py --config ppo.yaml --use_peft --learning_rate 3e-5
    uv run --with-requirements scripts/ppo.py torchrun --nproc_per_node 2 scripts/ppo.py --config ppo.yaml

Reads   prompts as text or messages; of comparisons and rankings, their prompts (references/data.md)
Writes  OUT/ a plain Hugging Face causal language model, OUT/ppo.json, OUT/log.jsonl, OUT/run.html, OUT/checkpoint-*
Method  arXiv:1707.06347 with the per-token KL penalty of arXiv:1909.08593. What to watch: references/reinforcement-learning.md

The flags of TRL's PPO script and PPOConfig keep their names; defaults in parentheses. A rollout is
per_device_train_batch_size x gradient_accumulation_steps x processes answers, split into num_mini_batches optimizer steps.
"""

from dataclasses import replace

from reward_modeling import cli
from reward_modeling.errors import UsageError
from reward_modeling.program import main_guard
from reward_modeling.results import Result
from reward_modeling.terminal import log
from reward_modeling.training.settings import PPORunSettings, PPOSettings


def parser() -> cli.Parser:
  required = ("dataset_name", "output_dir")
  return cli.Parser(__doc__, "ppo.py", PPORunSettings, PPOSettings, required=required)


def main(argv: list[str] | None = None) -> Result | None:
  args = parser().parse(argv)
  settings, course = cli.settings(PPORunSettings, args), cli.settings(PPOSettings, args)
  old_name, name = settings.sft_model_path, settings.model_name_or_path
  if not (old_name or name):
    raise UsageError("--model_name_or_path is required", hint="ppo.py --help shows an example")
  if old_name and name not in (None, old_name):
    log(f"policy: {old_name} (--sft_model_path); --model_name_or_path is not used")
  settings = replace(settings, model_name_or_path=old_name or name)
  from reward_modeling.training import ppo_run, reinforcement

  return reinforcement.train_policy(ppo_run.PPORun(settings, course), settings)


if __name__ == "__main__":
  main_guard(main)
