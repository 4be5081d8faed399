"""Settings of PPO and its run, each with the flag of its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..cli import flag, non_negative_number
from ..console import UsageError
from .settings import PolicySettings, eos_penalty_flag

RESPONSE_LENGTH = 53
VALUE_MODELS = ("policy", "reward", "shared")


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    group: ClassVar = "run"
    seed: int
    total_episodes: int | None = flag(None, "answers in all (num_train_epochs x prompts)")
    per_device_train_batch_size: int = flag(8, "answers in one forward pass")
    gradient_accumulation_steps: int = flag(1, "")
    local_rollout_forward_batch_size: int = flag(64, "answers written together")


@dataclass(frozen=True, kw_only=True)
class Settings(BatchSettings):
    """What decides the course of a run."""

    group: ClassVar = "PPO"
    learning_rate: float = flag(3e-6, "of the policy; LoRA wants about ten times that")
    value_learning_rate: float | None = flag(None, "of the value model (that of the policy)")
    lr_scheduler_type: str = flag("linear", "", choices=("linear", "cosine", "constant", "constant_with_warmup"))
    warmup_steps: int = flag(0, "updates", type=int)
    weight_decay: float = flag(0.0, "", type=non_negative_number)
    max_grad_norm: float = flag(1.0, "of policy and value model each")
    response_length: int | None = flag(
        None, f"longest answer ({RESPONSE_LENGTH} as in TRL, or half of what the policy reads)", metavar="TOKENS"
    )
    temperature: float = flag(0.7, "of sampling and of all probabilities; score.py samples at 1 unless told")
    num_ppo_epochs: int = flag(4, "passes over each rollout")
    num_mini_batches: int = flag(1, "optimizer steps a pass")
    kl_coef: float = flag(0.05, "price of a nat of KL to the reference", type=non_negative_number)
    kl_estimator: str = flag("k1", "per token; k3 pulls weakly when used as a penalty", choices=("k1", "k3"))
    target_kl: float | None = flag(None, "adapt kl_coef towards this KL, nats per answer", metavar="KL")
    max_kl: float | None = flag(None, "stop the run once the KL per answer is above this", metavar="KL")
    warn_kl: float = flag(10.0, "call the reward over-optimized above", metavar="KL")
    cliprange: float = flag(0.2, "of the ratio of new to old probability")
    cliprange_value: float = flag(0.2, "of the change of a value")
    vf_coef: float = flag(0.1, "weight of the value loss", type=non_negative_number)
    gamma: float = flag(1.0, "discount", type=non_negative_number)
    lam: float = flag(0.95, "lambda of GAE", type=non_negative_number)
    whiten_rewards: bool = flag(False, "divide the token rewards of a rollout by their standard deviation")
    whiten_advantages: bool = flag(True, "make their mean 0 and standard deviation 1")
    missing_eos_penalty: float = eos_penalty_flag()

    def __post_init__(self) -> None:
        rows = self.per_device_train_batch_size * self.gradient_accumulation_steps
        if rows % self.num_mini_batches:
            raise UsageError(
                f"{rows} answers a process (per_device_train_batch_size x gradient_accumulation_steps) cannot be split into "
                f"{self.num_mini_batches} mini-batches",
                hint="make the product a multiple of --num_mini_batches",
            )
        if self.seed < 0:
            raise UsageError(f"--seed is a whole number of at least 0, got {self.seed}")


@dataclass(frozen=True, kw_only=True)
class RunSettings(PolicySettings):
    group: ClassVar = "run"
    sft_model_path: str | None = flag(
        None, "--model_name_or_path by its old name; goes before it", group="policy", metavar="MODEL"
    )
    value_model: str = flag(
        "policy",
        "made of: policy (a copy, with a head of zeros), reward, shared (a head on the policy itself) or a path; reward and "
        "a path need the policy's tokenizer",
        group="policy",
        metavar="MODEL",
    )
    dataset_train_split: str = flag("train", "split to learn from", group="data", metavar="SPLIT")
    num_train_epochs: float = flag(3, "passes over the prompts, instead")
    gradient_checkpointing: bool = flag(False, "")
    bf16: bool | None = flag(None, "bfloat16 autocast (on a GPU that has it)")
    save_steps: int = flag(50, "updates between checkpoints")
    save_total_limit: int = flag(2, "checkpoints kept")
    logging_steps: int = flag(10, "updates between lines here")
    num_sample_generations: int = flag(10, "updates whose first answers are logged in full", type=int)
    report_to: Sequence[str] = flag(("none",), "tensorboard, wandb, ... beside OUT/log.jsonl", metavar="NAME")
