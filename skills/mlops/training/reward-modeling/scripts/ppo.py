# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "torch>=2.13,<2.16",
#     "transformers>=5.23,<5.25",
#     "trl>=1.16,<1.17",
#     "datasets>=5.2,<6",
#     "peft>=0.21,<0.22",
#     "accelerate>=1.15,<1.16",
#     "rich>=14,<16",
#     "pyyaml>=6,<7",
#     "scipy>=1.14,<2",
#     "matplotlib>=3.10,<4",
# ]
# ///
"""Optimise a policy against a reward model by PPO, the classic RLHF way, with a penalty for leaving the start behind.

    uv run scripts/ppo.py --model_name_or_path runs/sft --reward_model_path runs/rm --dataset_name prompts.jsonl --output_dir runs/ppo
    uv run scripts/ppo.py --config ppo.yaml --use_peft --learning_rate 3e-5
    uv run --with-requirements scripts/ppo.py torchrun --nproc_per_node 2 scripts/ppo.py --config ppo.yaml

Reads   prompts as text or messages; of comparisons and rankings, their prompts (references/data.md)
Writes  OUT/ a plain Hugging Face causal language model, OUT/ppo.json, OUT/log.jsonl, OUT/run.svg, OUT/checkpoint-*
Method  arXiv:1707.06347 with the per-token KL penalty of arXiv:1909.08593. What to watch: references/reinforcement-learning.md

The flags of TRL's PPO script and PPOConfig keep their names; defaults in parentheses. A rollout is
per_device_train_batch_size x gradient_accumulation_steps x processes answers, split into num_mini_batches optimizer steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reward_modeling import arguments as flags
from reward_modeling.console import UsageError, log, main_guard
from reward_modeling.training.ppo_settings import BatchSettings, RunSettings, Settings
from reward_modeling.training.settings import LoraSettings, OutputSettings, PolicySettings, RewardSettings

if TYPE_CHECKING:
    from reward_modeling.training.results import PPOOutput


def parser() -> flags.Parser:
    parser = flags.Parser(__doc__, prog="ppo.py")
    model = parser.add_argument_group("policy")
    model.add_argument("--sft_model_path", metavar="MODEL", help="--model_name_or_path by its old name; goes before it")
    model.add_argument("--stop_token", choices=("eos",), default="eos", help="answers end at their end token (eos)")
    flags.add_several_models_arguments(parser.add_argument_group("reward"))
    flags.add_dataset_arguments(parser, training=True)
    flags.add_settings(parser, RewardSettings, PolicySettings, OutputSettings, BatchSettings, RunSettings, Settings)
    flags.add_settings(parser, LoraSettings)
    return parser


def main(argv: list[str] | None = None) -> PPOOutput | None:
    args = flags.parse(parser(), argv, required=("reward_model_path", "dataset_name", "output_dir"))
    args.model_name_or_path = policy_path(args.sft_model_path, args.model_name_or_path)
    settings, course = flags.settings(RunSettings, args), flags.settings(Settings, args)
    rows = course.per_device_train_batch_size * course.gradient_accumulation_steps
    if rows % course.num_mini_batches:
        raise UsageError(
            f"{rows} answers a process (per_device_train_batch_size x gradient_accumulation_steps) cannot be split into "
            f"{course.num_mini_batches} mini-batches",
            hint="make the product a multiple of --num_mini_batches",
        )
    if course.seed < 0:
        raise UsageError(f"--seed is a whole number of at least 0, got {course.seed}")
    from reward_modeling.training import ppo_run

    return ppo_run.train(settings, course)


def policy_path(old_name: str | None, name: str | None) -> str:
    """The path of the policy, by either of its names."""
    path = old_name or name
    if path is None:
        raise UsageError("--model_name_or_path is required", hint="ppo.py --help shows an example")
    if old_name and name not in (None, old_name):
        log(f"policy: {path} (--sft_model_path); --model_name_or_path is not used")
    return path


if __name__ == "__main__":
    main_guard(main)
