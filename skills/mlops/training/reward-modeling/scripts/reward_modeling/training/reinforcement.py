"""What runs of reinforcement learning have in common: what they start from, and their end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .. import checkpoints
from ..console import log
from ..ensemble import Rewards
from . import configuration
from .policy import Policy, save
from .results import TrainedPolicy
from .settings import PolicySettings

if TYPE_CHECKING:
    from peft import LoraConfig


def begin(settings: PolicySettings, *inputs: str) -> tuple[Path, str | None]:
    """(the output folder, the checkpoint to continue from): whatever can be wrong with folders is told first.

    inputs: paths that the run reads beside those in the settings.
    """
    begun = settings.begin(*settings.inputs, *inputs)
    for path in settings.reward_model_path:
        checkpoints.check(path)
    return begun


def load_policy(settings: PolicySettings, device: str) -> Policy:
    return Policy.from_pretrained(
        settings.model_name_or_path,
        chat_template_path=settings.chat_template_path,
        stop_token_id=settings.stop_token_id,
        device=device,
    )


def load_rewards(settings: PolicySettings, device: str) -> Rewards:
    return Rewards.from_pretrained(
        settings.reward_model_path,
        weights=settings.reward_weights,
        combine=settings.reward_combine,
        normalise=settings.normalize_rewards,
        dtype=settings.reward_dtype,
        max_length=settings.reward_max_length,
        max_tokens_per_batch=settings.reward_max_tokens_per_batch,
        device=device,
    )


def lora_of(settings: PolicySettings) -> LoraConfig | None:
    """The LoRA configuration of a policy, without dropout, or None. Seeds what is drawn for it."""
    if not settings.use_peft:
        return None
    from accelerate.utils import set_seed

    set_seed(settings.seed)
    return configuration.lora_of(settings, "CAUSAL_LM", None, dropout=0.0)


def truncated(rewards: Rewards) -> int:
    """How many texts were cut for the reward models, which is also said."""
    rewards.warn_of_losses()
    return rewards.truncated


def finish(policy: Policy, output_dir: Path, trained: TrainedPolicy, name: str) -> None:
    """Save the policy with the summary of its run under this name."""
    save(policy, output_dir, trained, name)
    log(f"saved: {output_dir}")
