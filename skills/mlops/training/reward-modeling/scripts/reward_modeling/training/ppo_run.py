"""A run of PPO from settings to a saved policy: device, prompts, models, the algorithm of ppo.py, summary and picture."""

from __future__ import annotations

import warnings
from dataclasses import replace

from accelerate import Accelerator

from ..console import UsageError, log
from ..precision import precision
from . import ppo_course, reinforcement
from .actor_critic import ActorCritic, actor_critic
from .ppo import PPO
from .ppo_settings import RESPONSE_LENGTH, VALUE_MODELS, RunSettings, Settings
from .prompts import new_tokens, read_prompts, render_prompts
from .results import PlannedPPO, TrainedPPO
from .run_log import draw_run

PANELS = {
    "reward": ("reward", "objective"),
    "KL to the reference (nats per answer)": ("kl",),
    "length of the answers (tokens)": ("length",),
    "entropy (nats per token)": ("entropy",),
}
"""What the picture of a run shows: title -> names in the log."""


def train(settings: RunSettings, course: Settings) -> PlannedPPO | TrainedPPO | None:
    """One run; the result that ppo.py prints, or None in all processes but the first. course: what decides its course.

    Errors are those of its parts: UsageError, DataError, ModelError and RunError.
    """
    output_dir, resume = reinforcement.begin(settings, *{settings.value_model}.difference(VALUE_MODELS))
    accelerator = make_accelerator(settings)
    device = str(accelerator.device)
    records = read_prompts(settings.dataset_name, settings.dataset_train_split, **settings.reading)
    policy = reinforcement.load_policy(settings, device)
    length = new_tokens(policy, course.response_length, RESPONSE_LENGTH, "--response_length")
    prompts = render_prompts(records, policy, length, longest=settings.max_prompt_length, overlong=settings.overlong)
    course = replace(
        course,
        response_length=length,
        total_episodes=course.total_episodes or max(1, round(settings.num_train_epochs * len(prompts))),
        value_learning_rate=course.value_learning_rate or course.learning_rate,
    )
    rewards = reinforcement.load_rewards(settings, device)
    value_model = settings.reward_model_path[0] if settings.value_model == "reward" else settings.value_model
    actor = actor_critic(policy, value_model, course.temperature, reinforcement.lora_of(settings))
    if settings.gradient_checkpointing:
        checkpoint_activations(actor)
    run = PPO(policy, actor, rewards, prompts, course, accelerator)
    log(
        f"{len(prompts)} prompts; {run.updates} updates of {run.batch_size} answers in {course.num_ppo_epochs} passes of "
        f"{course.num_mini_batches} steps; {accelerator.num_processes} process(es) on {device}; "
        f"value model: {settings.value_model}"
    )
    names = {"policy": settings.model_name_or_path, "reward_models": settings.reward_model_path}
    result = {"output_dir": str(output_dir), "prompts": len(prompts), **names}
    if settings.dry_run:
        return PlannedPPO(**result, dry_run=True, updates=run.updates, settings=vars(course))
    started_from = {"policy": settings.model_name_or_path, "rewards": settings.reward_model_path}
    ppo_course.identify(run, output_dir, resume, **started_from, value_model=value_model)
    summary, history = ppo_course.run(
        run,
        output_dir,
        resume,
        save_steps=settings.save_steps,
        save_total_limit=settings.save_total_limit,
        log_every=settings.logging_steps,
        shown=settings.num_sample_generations,
    )
    accelerator.end_training()
    if accelerator.process_index != 0:
        return None
    lost = reinforcement.truncated(rewards)
    trained = TrainedPPO(**result, **vars(summary), resumed_from=resume, reward_inputs_truncated=lost)
    reinforcement.finish(policy, output_dir, trained, "ppo.json")
    draw_run(output_dir / "run.svg", history, PANELS)
    return trained


def make_accelerator(settings: RunSettings) -> Accelerator:
    """Device, precision, processes and trackers: fp32 on a CPU unless asked, bf16 autocast on a GPU that has it."""
    warnings.filterwarnings("ignore", message="`log_with=")  # said below, in our words
    hardware = precision({"bf16": settings.bf16})
    trackers = [] if list(settings.report_to) == ["none"] else list(settings.report_to)
    try:
        accelerator = Accelerator(
            cpu=hardware["use_cpu"],
            mixed_precision="bf16" if hardware["bf16"] else "no",
            log_with=trackers or None,
            project_dir=settings.output_dir,
        )
    except ValueError as error:
        raise UsageError(
            f"--report_to {' '.join(settings.report_to)}: {error}", hint="install it, or leave the flag out"
        ) from error
    accelerator.init_trackers("ppo")
    return accelerator


def checkpoint_activations(actor: ActorCritic) -> None:
    """Keep fewer activations, and compute them again going backward."""
    for model in filter(None, (actor.policy, actor.trunk)):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
