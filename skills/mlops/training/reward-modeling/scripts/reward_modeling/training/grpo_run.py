"""A run of GRPO or RLOO from settings to a saved policy: prompts, models, TRL's trainer, summary and picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..console import UsageError, log
from . import reinforcement, resuming
from .prompts import Prompt, new_tokens, read_prompts, render_prompts
from .results import PlannedGRPO, TrainedGRPO
from .run_log import draw_run, start_and_end
from .settings import GRPOSettings

PANELS = {
    "reward": ("reward",),
    "KL to the reference (nats per token)": ("kl",),
    "answers (tokens)": ("completions/mean_length",),
    "entropy (nats per token)": ("entropy",),
}
"""What the picture of a run shows: title -> names in the log."""
LIMIT = "--max_completion_length"


def train(settings: GRPOSettings, fields: dict[str, Any]) -> PlannedGRPO | TrainedGRPO | None:
    """One run; the result that grpo.py prints, or None in all processes but the first. fields: of TRL's configuration.

    Errors are those of its parts: UsageError, DataError, ModelError and RunError.
    """
    output_dir, resume = reinforcement.begin(settings)
    reading = {"split": settings.dataset_split, **settings.reading}
    records = None if fields else read_prompts(settings.dataset_name, **reading)

    from . import grpo  # here: trl takes seconds to import

    if records is None:  # what the trainer refuses is refused before data is read
        grpo.make_config(settings, fields, parameters=0)
        records = read_prompts(settings.dataset_name, **reading)
    policy = reinforcement.load_policy(settings, "cpu")
    default = settings.config_class().max_completion_length
    length = new_tokens(policy, fields.get("max_completion_length"), default, LIMIT)
    fields = {**fields, "max_completion_length": length}
    config, notes = grpo.make_config(settings, fields, parameters=policy.model.num_parameters())
    for note in notes:
        log(f"setting: {note}")
    longest, overlong = settings.max_prompt_length, settings.overlong
    prompts = render_prompts(records, policy, length, longest=longest, overlong=overlong, limit=LIMIT)
    refuse_tools(prompts)
    rewards = reinforcement.load_rewards(settings, str(config.device))
    lora = reinforcement.lora_of(settings)
    reward = grpo.RewardFunction(rewards, policy, settings.missing_eos_penalty)
    trainer = grpo.make_trainer(settings.algorithm, policy, prompts, reward, config, lora)
    log(
        f"{len(prompts)} prompts; {config.generation_batch_size} answers at a time, {config.num_generations} to a prompt; "
        f"{config.world_size} process(es)"
    )
    result = {
        "output_dir": str(output_dir),
        "algorithm": settings.algorithm,
        "policy": settings.model_name_or_path,
        "reward_models": settings.reward_model_path,
        "prompts": len(prompts),
        "settings": {name: getattr(config, name) for name in grpo.IDENTITY if hasattr(config, name)},
    }
    if settings.dry_run:
        return PlannedGRPO(**result, dry_run=True)
    identity = grpo.identity(settings.algorithm, config, prompts, rewards, lora)
    resuming.start_run(output_dir, config.process_index, identity, resume)
    summary = grpo.run(trainer, policy, resume)
    if config.process_index != 0:
        return None
    summary.pop("log")
    ends = summarise(trainer.state.log_history)
    lost = reinforcement.truncated(rewards)
    trained = TrainedGRPO(**result, **summary, **ends, resumed_from=resume, reward_inputs_truncated=lost)
    reinforcement.finish(policy, output_dir, trained, "grpo.json")
    draw_run(output_dir / "run.svg", trainer.state.log_history, PANELS)
    return trained


def refuse_tools(prompts: Sequence[Prompt]) -> None:
    """Raises UsageError for prompts with tools: TRL's trainers take one set of tools for all prompts."""
    if any(prompt.tools for prompt in prompts):
        raise UsageError(
            "the data has `tools`, which TRL's trainers cannot give to each prompt",
            hint="use ppo.py, or drop them with --columns tools=",
        )


def summarise(history: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The first step, whose answers the untrained policy wrote, and means over the last tenth of those that wrote some."""
    names = ("reward", "reward_std", "kl", "entropy", "completions/mean_length", "completions/clipped_ratio")
    return start_and_end([entry for entry in history if "reward" in entry], names)
