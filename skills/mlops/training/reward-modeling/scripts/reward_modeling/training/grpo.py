"""GRPO (arXiv:2402.03300) and RLOO (arXiv:2402.14740) by TRL's trainers, with our rendering, rewards and checks for NaN.

TRL's own reward models score a whole batch in one forward pass, never truncate, stay in training mode and share a name.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from ..errors import ModelError, RunError, UsageError
from ..hf import LoraConfig
from ..precision import precision
from ..terminal import log
from . import configuration, loop, resuming
from .policy import Policy
from .prompts import Prompt
from .reinforcement import RunLog, concerns, start_and_end
from .results import PlannedGRPO, TrainedGRPO
from .rewards import PolicyRewards
from .settings import GRPOSettings
from .step_rewards import step_advantages

BETA = {"grpo": {"beta": 0.04}, "rloo": {}}
WHY = "TRL's default of no KL penalty is for verifiable rewards; a learned one is soon over-optimized (0.04: arXiv:2402.03300)"
FEW_PROMPTS = 8
"""A step below which numbers of two steps say little of two policies."""
WARN_KL = 10.0  # nats per answer, as ppo.py's --warn_kl
IDENTITY = (
  *resuming.IDENTITY_FIELDS,
  *("steps_per_generation", "num_generations", "num_iterations", "max_completion_length", "beta", "epsilon"),
  *("temperature", "top_p", "top_k", "loss_type", "scale_rewards", "normalize_advantages"),
)
"""Must be the same for a run to be resumed."""


def _per_answer(numbers: dict[str, float]) -> dict[str, float]:
  """TRL's log by the names of ppo.py's, whose KL is that of whole answers. Without --beta there is none."""
  length, clipped = numbers["completions/mean_length"], numbers["completions/clipped_ratio"]
  found = {"reward": numbers["reward"], "length": length, "eos_rate": 1 - clipped}
  return found | ({"kl": numbers["kl"] * length} if "kl" in numbers else {})


class _Ours:
  run: "GRPORun"
  policy: Policy

  def _tokenize_prompts(self, prompts: list) -> tuple[list[list[int]], None, dict]:
    asked = [[{key: own for key, own in one.items() if own is not None} for one in prompt] for prompt in prompts]
    return [*map(self.policy.renderer.prompt_ids, asked)], None, {}

  def create_model_card(self, *_: object, **__: object) -> None:
    """Ours is written with the policy; TRL's, in the output folder at each checkpoint, knows nothing of the run."""

  def _generate_and_score_completions(self, inputs: list[dict]) -> dict[str, Any]:
    """Under step rewards with advantages [B, N], as TRL's loss takes from subclasses."""
    output = super()._generate_and_score_completions(inputs)
    if self.run.in_steps:
      from accelerate.utils import gather_object

      config, first, width = self.args, len(inputs) * self.args.process_index, output["completion_ids"].shape[1]
      rewards, lengths = zip(*gather_object(self.run.rewarded), strict=True)
      longest = max(width, *lengths)  # of all processes
      found = step_advantages(rewards, lengths, longest, config.num_generations, config.scale_rewards)
      output["advantages"] = found[first : first + len(inputs), :width].to(output["advantages"].device)
    return output


class GRPORun(TrainerCallback):
  """For `reinforcement.train`. fields: of TRL's configuration. trl is imported late: it takes seconds.

  As a callback it writes OUT/log.jsonl, each entry with a sample completion.
  """

  limit, summary, device = "--max_completion_length", "grpo.json", "cpu"
  inputs, planned, trained = (), PlannedGRPO, TrainedGRPO
  panels = {  # noqa: RUF012 - of the picture: title -> names in the log
    "reward": ("reward",),
    "KL to the reference (nats per token)": ("kl",),
    "answers (tokens)": ("completions/mean_length",),
    "entropy (nats per token)": ("entropy",),
  }

  def __init__(self, settings: GRPOSettings, fields: dict[str, object]):
    self.settings, self.fields = settings, fields
    self.split, self.length = settings.dataset_split, fields.get("max_completion_length")
    self.last: dict[str, Any] = {}
    self.in_steps = settings.algorithm == "grpo" and settings.step_rewards not in (None, "outcome")

  @property
  def default_length(self) -> int:
    return self.settings.config_class().max_completion_length

  def prepare(self) -> None:
    self._configure(self.fields, parameters=0)  # what the trainer refuses is refused before data is read

  def configure(self, policy: Policy, length: int) -> None:
    fields = {**self.fields, "max_completion_length": length}
    for note in self._configure(fields, parameters=policy.model.num_parameters()):
      log(f"setting: {note}")
    self.process_index, self.reward_device = self.config.process_index, str(self.config.device)

  def _configure(self, fields: dict[str, object], parameters: int) -> list[str]:
    """Make `config`, of fields over our defaults over TRL's. Returns notes on what was chosen.

    save_steps is rounded up to a whole generation: within one a resumed run would answer again what it half learned.
    """
    settings, own = self.settings, BETA[self.settings.algorithm]
    rate, rate_note = configuration.policy_rate(settings.algorithm, parameters, settings.use_peft)
    defaults = {
      **own,
      "learning_rate": rate,
      "gradient_checkpointing": parameters >= configuration.CHECKPOINT_ACTIVATIONS_FROM,
      "logging_steps": 1,
      "logging_first_step": True,  # alone: these answers are the untrained policy's
      "save_steps": 50,  # as PPO does
      "save_total_limit": 2,
      "disable_dropout": True,
    }
    fixed = {"output_dir": settings.output_dir, "seed": settings.seed, "remove_unused_columns": False}
    try:
      config = settings.config_class()(**fixed, **{**defaults, **fields, **precision(fields)})
      if config.temperature <= 0:
        raise ValueError("temperature is a number above 0")
    except (ValueError, TypeError) as error:
      raise UsageError(f"the trainer refuses these settings: {error}") from error
    configuration.check_whole(config)
    if self.in_steps and config.multi_objective_aggregation != "sum_then_normalize":
      raise UsageError(f"--step_rewards is not for --multi_objective_aggregation {config.multi_objective_aggregation}")
    notes = [f"{name} {value} ({WHY})" for name, value in own.items() if name not in fields]
    notes += [rate_note] * ("learning_rate" not in fields)
    between = config.steps_per_generation * config.num_iterations
    steps = -(-between // config.gradient_accumulation_steps)
    if config.save_strategy == "steps" and config.save_steps >= 1 and config.save_steps % steps:
      config.save_steps = int(-(-config.save_steps // steps) * steps)
      notes.append(f"save_steps {config.save_steps}: a checkpoint between two generations of answers")
    self.config = config
    return notes

  def make(self, policy: Policy, prompts: Sequence[Prompt], rewards: PolicyRewards, lora: LoraConfig | None) -> str:
    """Raises ModelError when the trainer refuses the model, UsageError for too few prompts, or with tools."""
    import trl
    from datasets import Dataset

    if any(prompt.tools for prompt in prompts):
      what = "the data has `tools`, which TRL's trainers cannot give to each prompt"
      raise UsageError(what, hint="use ppo.py, or drop them with --columns tools=")
    config, tokenizer, algorithm = self.config, policy.tokenizer, self.settings.algorithm
    self.policy, self.rewards, self.lora, self.prompts = policy, rewards, lora, prompts
    needed = config.generation_batch_size // config.num_generations
    if len(prompts) < needed:
      what = f"a step answers {needed} prompts, but there are only {len(prompts)}"
      hint = "lower --per_device_train_batch_size or --gradient_accumulation_steps, or raise --num_generations"
      raise UsageError(what, hint=hint)
    policy.model.generation_config.eos_token_id = list(policy.end_tokens)
    if tokenizer.eos_token is None:  # TRL would put a null among the tokens that end an answer
      tokenizer.eos_token = tokenizer.convert_ids_to_tokens(policy.end_tokens[0])
    theirs = {"grpo": trl.GRPOTrainer, "rloo": trl.RLOOTrainer}[algorithm]
    try:
      self.trainer = type("Trainer", (_Ours, theirs), {"run": self, "policy": policy})(
        model=policy.model,
        reward_funcs=self.reward,
        args=config,
        train_dataset=Dataset.from_list(
          [{"prompt": prompt.messages, "row": row} for row, prompt in enumerate(prompts)]
        ),
        processing_class=tokenizer,
        peft_config=lora,
      )
    except (ValueError, TypeError) as error:
      raise ModelError(f"the policy cannot be trained: {error}") from error
    if reference := self.trainer.ref_model:  # read again from the folder of an adapter's base
      self.trainer.accelerator.unwrap_model(reference).load_state_dict(policy.model.state_dict())
    self.trainer.add_callback(self)
    fields = {name: getattr(config, name) for name in IDENTITY if hasattr(config, name)}
    self.told = {"algorithm": algorithm, "settings": fields}
    if algorithm == "rloo" and self.settings.step_rewards:
      log("rloo takes one number an answer: the rewards of its steps are added up")
    return (
      f"{config.generation_batch_size} answers at a time, {config.num_generations} to a prompt; "
      f"{config.world_size} process(es)"
    )

  def extent(self) -> tuple[int, int]:
    """(optimizer steps, answers), as the trainer counts them: an epoch leaves out prompts that fill no generation."""
    config, accumulated = self.config, self.config.gradient_accumulation_steps
    between = config.steps_per_generation * config.num_iterations
    batches = len(self.prompts) // (config.generation_batch_size // config.num_generations) * between
    steps = (
      config.max_steps if config.max_steps > 0 else math.ceil(config.num_train_epochs * -(-batches // accumulated))
    )
    return steps, -(-steps * accumulated // between) * config.generation_batch_size

  def identity(self) -> dict[str, str]:
    lora = self.lora
    return {
      "algorithm": self.settings.algorithm,
      "lora": str(lora and [lora.r, lora.lora_alpha, lora.target_modules]),
      **{name: str(value) for name, value in self.told["settings"].items()},
    }

  def train(self, output_dir: Path, resume: str | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
      self.policy.model, summary = loop.run(self.trainer, resume)
    except RuntimeError as error:
      if "probability tensor" not in str(error):
        raise
      raise loop.not_finite(
        "the policy's probabilities are NaN or infinite", self.trainer.state.global_step + 1
      ) from error
    history = self.trainer.state.log_history
    answered = [entry for entry in history if "reward" in entry]
    names = ("reward", "reward_std", "kl", "entropy", "completions/mean_length", "completions/clipped_ratio")
    summary.pop("log")
    ends = start_and_end(answered, names)
    rewards, found = [entry["reward"] for entry in answered], []
    if answered:
      found = concerns(*map(_per_answer, ends.values()), WARN_KL, "raise --beta", self.limit, rewards)
    prompts = self.config.generation_batch_size // self.config.num_generations
    if answered and prompts < FEW_PROMPTS:
      found.append(
        f"`beginning` is of {prompts} prompt(s) and `end` of others, which may differ by more than the policies: compare "
        "these on the same prompts (references/reinforcement-learning.md#before-and-after)"
      )
    return summary | ends | {"warnings": found}, self.log.entries

  # ---- what the trainer calls ----

  def reward(self, prompts: list, completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
    """Less the penalty of those that did not end: the reward model's template ends them all."""
    replies = [self.policy.reply(ids) for ids in completion_ids]
    asked = [self.prompts[row] for row in columns.pop("row")]
    try:
      found = self.rewards(asked, replies, completion_ids, **columns)
    except RunError as error:
      step = columns["trainer_state"].global_step + 1 if "trainer_state" in columns else "?"
      raise RunError(f"step {step}: {error.message}", where=error.where, hint=error.hint) from error
    if log_metric := columns.get("log_metric"):
      for name, value in self.rewards.logged("rewards").items():
        log_metric(name, value)
    penalty, ended = self.settings.missing_eos_penalty, map(self.policy.finished, completion_ids)
    found = [one._replace(total=one.total - penalty * (not end)) for one, end in zip(found, ended, strict=True)]
    self.rewarded = [(one, len(ids)) for one, ids in zip(found, completion_ids, strict=True)]
    values = [None if math.isnan(one.total) else one.total for one in found]
    self.last = {"prompt": asked[0].messages, "completion": replies[0], "reward": values[0]}
    return values

  def on_train_begin(self, *_: object, **__: object) -> None:
    state = self.trainer.state  # of a resumed run its entries up to its checkpoint: later ones are undone
    file = Path(self.config.output_dir) / "log.jsonl"
    self.log = RunLog(file, list(state.log_history), write=state.is_world_process_zero)

  def on_log(self, *_: object, **__: object) -> None:
    entry = self.trainer.state.log_history[-1]
    answered = "reward" in entry  # this step wrote new answers
    self.log.add({**entry, "sample": self.last} if answered else entry)

  def on_pre_optimizer_step(self, *_: object, model: torch.nn.Module, **__: object) -> None:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]  # DeepSpeed shows none
    if self.config.fp16 or not gradients:  # the scaler of fp16 meets infinite gradients as a rule, and skips the step
      return
    if not torch.stack([gradient.sum() for gradient in gradients]).isfinite().all():
      raise loop.not_finite("a gradient is NaN or infinite", self.trainer.state.global_step + 1)
