"""Train a policy against a reward with TRL's trainers of GRPO (arXiv:2402.03300) and RLOO (arXiv:2402.14740).

TRL's trainers run the loop. What this module adds, each for one reason that a test holds it to:

- `_tokenize_prompts`: prompts are rendered by the policy's own contract, as in PPO.
- `compute_loss`: a NaN or infinite loss ends the run, with its step named.
- `RewardFunction`: completions become messages again from their ids and are scored by `ensemble.Rewards`. TRL's own
  reward models score a whole batch in one forward pass, never truncate, stay in training mode and share a name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from ..console import ModelError, RunError, UsageError, to_json, write_whole
from ..ensemble import Rewards
from ..precision import precision
from . import configuration, loop, resuming
from .policy import Policy
from .prompts import Prompt
from .settings import GRPOSettings


@dataclass(frozen=True)
class Algorithm:
    """One of TRL's trainers, and the settings that this project starts from instead of TRL's own, with their reason."""

    trainer: type
    defaults: dict[str, Any]
    why: str


class _Ours:
    """What both trainers get: our rendering of prompts, and an end to a run whose loss is NaN or infinite."""

    policy: Policy

    def _tokenize_prompts(self, prompts: list) -> tuple[list[list[int]], None, dict]:
        return [self.policy.prompt_ids(_messages(prompt)) for prompt in prompts], None, {}

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loop.check_finite(loss, model, self.state)
        return loss


ALGORITHMS: dict[str, Algorithm] = {
    "grpo": Algorithm(
        GRPOTrainer,
        {"beta": 0.04},
        "TRL's default of no KL penalty is for verifiable rewards; a learned one is soon over-optimized (0.04: arXiv:2402.03300)",
    ),
    "rloo": Algorithm(RLOOTrainer, {}, "TRL's defaults: its KL penalty of 0.05 is part of the reward"),
}
LORA_LEARNING_RATE = 1e-5
"""Ten times the 1e-6 that both trainers start from."""

IDENTITY = (
    *("seed", "learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "steps_per_generation"),
    *("num_generations", "num_iterations", "num_train_epochs", "max_steps", "max_completion_length"),
    *("lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "optim"),
    *("beta", "epsilon", "temperature", "top_p", "top_k", "loss_type", "scale_rewards", "normalize_advantages"),
    *("bf16", "fp16", "world_size"),
)
"""Fields that must be the same for a resumed run to continue the one that was killed."""


# ---- settings -----------------------------------------------------------------------------------------------------


def make_config(
    settings: GRPOSettings, fields: dict[str, Any], *, parameters: int
) -> tuple[GRPOConfig | RLOOConfig, list[str]]:
    """The trainer's configuration: `fields` over our defaults over TRL's. (config, notes on what was chosen).

    Checkpoints fall between generations: one within would let a resumed run answer again what it had half learned from,
    so save_steps is rounded up. Raises UsageError when the trainer refuses the fields.
    """
    entry = ALGORITHMS[settings.algorithm]
    defaults = {
        **entry.defaults,
        **({"learning_rate": LORA_LEARNING_RATE} if settings.use_peft else {}),
        "gradient_checkpointing": parameters >= configuration.CHECKPOINT_ACTIVATIONS_FROM,
        "logging_steps": 1,
        "logging_first_step": True,  # alone: these answers are the untrained policy's
        "save_total_limit": 2,
        "disable_dropout": True,
    }
    try:
        config = settings.config_class()(
            output_dir=settings.output_dir,
            seed=settings.seed,
            remove_unused_columns=False,
            **{**defaults, **fields, **precision(fields)},
        )
    except (ValueError, TypeError) as error:
        raise UsageError(f"the trainer refuses these settings: {error}") from error
    notes = [f"{name} {value} ({entry.why})" for name, value in entry.defaults.items() if name not in fields]
    between = config.steps_per_generation * config.num_iterations
    steps = -(-between // config.gradient_accumulation_steps)
    if config.save_strategy == "steps" and config.save_steps >= 1 and config.save_steps % steps:
        config.save_steps = int(-(-config.save_steps // steps) * steps)
        notes.append(f"save_steps {config.save_steps}: a checkpoint between two generations of answers")
    return config, notes


def identity(
    algorithm: str,
    config: GRPOConfig | RLOOConfig,
    prompts: Sequence[Prompt],
    rewards: Rewards,
    peft_config: LoraConfig | None,
) -> dict[str, str]:
    """What must be the same for a run to be resumed."""
    settings = {name: str(getattr(config, name)) for name in IDENTITY if hasattr(config, name)}
    return {
        "algorithm": algorithm,
        "prompts_sha256": resuming.digest([prompt.ids for prompt in prompts]),
        "rewards": str([rewards.names, rewards.weights, rewards.combine, rewards.normalise]),
        "lora": str(peft_config and [peft_config.r, peft_config.lora_alpha, peft_config.target_modules]),
        **settings,
    }


# ---- the reward ---------------------------------------------------------------------------------------------------


class RewardFunction:
    """`Rewards` as TRL calls a reward function. last: prompt, completion and reward of the last batch's first answer.

    missing_eos_penalty: taken from the reward of an answer that did not end. A reward model is shown every answer as its
    template ends it, so without a penalty an answer cut at the limit looks finished.
    """

    __name__ = "reward"  # under which TRL logs it

    def __init__(self, rewards: Rewards, policy: Policy, missing_eos_penalty: float = 0.0):
        self.rewards, self.policy, self.missing_eos_penalty = rewards, policy, missing_eos_penalty
        self.last: dict[str, Any] = {}

    def __call__(self, prompts: list, completion_ids: list[list[int]], **columns: Any) -> list[float]:
        replies = [self.policy.reply(ids) for ids in completion_ids]
        messages = [_messages(prompt) for prompt in prompts]
        try:
            values = self.rewards(messages, replies)
        except RunError as error:
            step = columns["trainer_state"].global_step + 1 if "trainer_state" in columns else "?"
            raise RunError(f"step {step}: {error.message}", where=error.where, hint=error.hint) from error
        for name, value in self.rewards.logged("rewards").items() if columns.get("log_metric") else ():
            columns["log_metric"](name, value)
        ended = [self.policy.finished(ids) for ids in completion_ids]
        values = [value - self.missing_eos_penalty * (not end) for value, end in zip(values, ended, strict=True)]
        self.last = {"prompt": messages[0], "completion": replies[0], "reward": values[0]}
        return values


def _messages(prompt: list[dict]) -> list[dict]:
    """The messages of a row of a dataset, without the nulls that Arrow writes for keys that other messages have."""
    return [{key: value for key, value in message.items() if value is not None} for message in prompt]


# ---- the run ------------------------------------------------------------------------------------------------------


class RunLog(TrainerCallback):
    """OUT/log.jsonl: every entry the trainer logs, with a sample completion; and an end where a gradient is NaN or infinite."""

    def __init__(self, output_dir: str, reward: RewardFunction):
        self.file, self.reward = Path(output_dir) / "log.jsonl", reward

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:  # a resumed state holds the entries up to its checkpoint: later ones are undone
            write_whole(self.file, map(to_json, state.log_history))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        entry = state.log_history[-1]
        if "reward" in entry:  # this step wrote new answers
            entry = {**entry, "sample": self.reward.last}
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(to_json(entry) + "\n")

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if args.fp16:  # its scaler meets infinite gradients as a rule, and skips the step
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        if not torch.stack([gradient.sum() for gradient in gradients]).isfinite().all():
            raise RunError(
                f"a gradient is NaN or infinite at step {state.global_step + 1}",
                hint="lower --learning_rate, or continue from the last checkpoint with --resume_from_checkpoint",
            )


def make_trainer(
    algorithm: str,
    policy: Policy,
    prompts: Sequence[Prompt],
    reward: RewardFunction,
    config: GRPOConfig | RLOOConfig,
    peft_config: LoraConfig | None = None,
) -> Trainer:
    """TRL's trainer around the policy. Raises ModelError when it refuses the model, UsageError for too few prompts."""
    needed = config.generation_batch_size // config.num_generations
    if len(prompts) < needed:
        raise UsageError(
            f"a step answers {needed} prompts, but there are only {len(prompts)}",
            hint="lower --per_device_train_batch_size or --gradient_accumulation_steps, or raise --num_generations",
        )
    tokenizer = policy.tokenizer
    policy.model.generation_config.eos_token_id = list(policy.end_tokens)
    if tokenizer.eos_token is None:  # TRL would put a null among the tokens that end an answer
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(policy.end_tokens[0])
    kind = type("Trainer", (_Ours, ALGORITHMS[algorithm].trainer), {"policy": policy})
    try:
        trainer = kind(
            model=policy.model,
            reward_funcs=reward,
            args=config,
            train_dataset=Dataset.from_list([{"prompt": prompt.messages} for prompt in prompts]),
            processing_class=tokenizer,
            peft_config=peft_config,
        )
    except (ValueError, TypeError) as error:
        raise ModelError(f"the policy cannot be trained: {error}") from error
    trainer.add_callback(RunLog(config.output_dir, reward))
    return trainer


def run(trainer: Trainer, policy: Policy, resume: str | None) -> dict[str, Any]:
    """Run it. `policy.model` is the trained model afterwards (a PEFT model where one is trained). Returns a summary.

    Raises RunError, naming the step, for rewards, losses, gradients or probabilities that are NaN or infinite.
    """
    try:
        policy.model, summary = loop.run(trainer, resume, scalar_head=False)
    except RuntimeError as error:
        if "probability tensor" not in str(error):
            raise
        raise RunError(
            f"the policy's probabilities are NaN or infinite at step {trainer.state.global_step + 1}",
            hint="lower --learning_rate, or continue from the last checkpoint with --resume_from_checkpoint",
        ) from error
    return summary
