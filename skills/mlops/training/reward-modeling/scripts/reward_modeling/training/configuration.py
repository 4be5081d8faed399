"""Settings of the trainer: the user's over those for the size of the model, and the LoRA configuration."""

import math
from collections.abc import Mapping

from accelerate.utils import parse_flag_from_env

from ..base_rendering import BaseRenderer
from ..errors import UsageError
from ..heads import head_name
from ..hf import Arguments, Dataset, LoraConfig, Model
from ..kinds import kind_of_architecture
from ..precision import precision
from ..settings import EVALUATE_ON
from .settings import LoraSettings, Settings

SIZES = (
  (1e8, "under 100M", 1e-4, 8, 2),  # measured: references/hyperparameters.md
  (1e9, "under 1B", 2e-5, 8, 2),
  (7e9, "1B to 7B", 1e-5, 4, 1),
  (math.inf, "7B and more", 5e-6, 2, 1),
)
"""Below so many parameters: name, learning rate (ten times that with LoRA), batch size and epochs to start from."""
POLICY_RATES = {"ppo": 3e-6, "grpo": 1e-6, "rloo": 1e-6}
"""TRL's learning rates; ten times that with LoRA, and a hundred times for a policy under SMALL_POLICY parameters, which hardly moves
otherwise (measured: references/hyperparameters.md)."""
SMALL_POLICY = 1e7
CHECKPOINT_ACTIVATIONS_FROM = 1e9
TOLD = (
  *("learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs"),
  *("max_steps", "bf16", "fp16", "gradient_checkpointing", "lr_scheduler_type", "seed"),
)
PLANNED = (
  *("warmup_steps", "weight_decay", "eval_strategy", "eval_steps", "save_strategy", "save_steps", "logging_steps"),
)


def default_arguments(parameters: int, lora: bool) -> tuple[dict[str, object], str]:
  _, name, rate, batch, epochs = next(size for size in SIZES if parameters < size[0])
  chosen = {
    "learning_rate": rate * (10 if lora else 1),
    "per_device_train_batch_size": batch,
    "num_train_epochs": epochs,
    "gradient_checkpointing": parameters >= CHECKPOINT_ACTIVATIONS_FROM,
  }
  return chosen, f"{parameters / 1e6:.1f}M parameters ({name}{', LoRA' if lora else ''})"


def policy_rate(algorithm: str, parameters: int, lora: bool) -> tuple[float, str]:
  """(the learning rate of a policy where none is given, a note about it)."""
  small = parameters < SMALL_POLICY
  rate = float(f"{POLICY_RATES[algorithm] * (100 if small else 10 if lora else 1):g}")  # 1e-5, not 9.99e-6
  return (
    rate,
    f"learning_rate {rate:g} ({parameters / 1e6:.1f}M parameters{', under 10M' if small else ', LoRA' if lora else ''})",
  )


def trainer_config(
  config_class: type[Arguments],
  settings: Settings,
  fields: Mapping[str, object],
  parameters: int,
  *,
  has_eval: bool,
  **own: object,
) -> tuple[Arguments, str]:
  """(the user's fields over the defaults for this size and hardware, the reason of the defaults).

  own: fields that the kind sets and nobody else. Raises UsageError when the trainer refuses them.
  """
  size, reason = default_arguments(parameters, settings.use_peft)
  fields = {**fields, **{name: value for name in (*size, "bf16") if (value := getattr(settings, name)) is not None}}
  defaults = {
    **size,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.05,
    "save_total_limit": 2,
    "max_grad_norm": 1.0,
    "logging_steps": 10,
    "logging_nan_inf_filter": False,  # it waits for the GPU at every step; `loop.Watch` checks losses
    "per_device_eval_batch_size": 2
    * (fields.get("per_device_train_batch_size") or size["per_device_train_batch_size"]),
  }
  if has_eval and settings.eval_steps is not None:
    defaults |= {"eval_strategy": "steps", "eval_steps": settings.eval_steps}
  elif has_eval:
    defaults["eval_strategy"] = "epoch"
  own |= {"output_dir": settings.output_dir, "seed": settings.seed, "remove_unused_columns": False}
  if "fsdp" in fields:  # the trainer would take "true" for a strategy
    fields["fsdp"] = {"true": True, "false": None}.get(str(fields["fsdp"]).lower(), fields["fsdp"])
  try:
    config = config_class(**own, **{**defaults, **fields, **precision(fields, parameters)})
  except (ValueError, TypeError) as error:
    raise UsageError(f"the trainer refuses these settings: {error}") from error
  check_whole(config, may_shard=True)
  if config.fsdp and config.parallel_mode.value != "distributed":
    hint = "torchrun --nproc_per_node N scripts/train.py ... (references/scaling.md#large-models)"
    raise UsageError("--fsdp shards over several processes, and this is one", hint=hint)
  if config.fsdp and settings.load_in_4bit:
    raise UsageError("--fsdp does not shard 4-bit weights", hint="leave out one of --fsdp and --load_in_4bit")
  if config.eval_strategy != "no" and not has_eval:
    raise UsageError("--eval_strategy needs something to evaluate on", hint=EVALUATE_ON)
  return config, reason


def check_whole(config: Arguments | None, *, may_shard: bool = False) -> None:
  """Before data is read. Raises UsageError where a process would hold a part of the model that nothing gathers for saving.

  config: None of PPO, whose loop knows neither DeepSpeed nor FSDP. may_shard: by FSDP.
  """
  fsdp, deepspeed = (parse_flag_from_env(f"ACCELERATE_USE_{name}") for name in ("FSDP", "DEEPSPEED"))
  plugin = getattr(config, "deepspeed_plugin", None)
  if plugin.zero_stage == 3 if plugin else deepspeed:
    found, hint = "DeepSpeed's ZeRO-3" if plugin else "DeepSpeed", "--fsdp of train.py and train_process.py shards, too"
  elif not may_shard and (fsdp or getattr(config, "fsdp", None)):
    found, hint = "FSDP", "a larger policy: references/scaling.md#handing-the-model-to-other-engines"
  else:
    return
  raise UsageError(f"{found} is not for this run, which needs the whole model in each process", hint=hint)


def tokens_of(rows: Dataset) -> list[int]:
  """Of each row of training; one that two of its sequences share counts twice."""
  if "sequences" in rows.column_names:
    return [sum(map(len, sequences)) for sequences in rows["sequences"]]
  return [*map(len, rows["input_ids"])]


def config_summary(config: Arguments, given: Mapping[str, object], more: tuple[str, ...] = ()) -> dict[str, object]:
  values = {name: getattr(config, name) for name in (*TOLD, *more, *given)}
  return {name: getattr(value, "value", value) for name, value in values.items()}  # enumerations by their value


def steps_of(config: Arguments, rows: int) -> int:
  batch = config.per_device_train_batch_size * config.gradient_accumulation_steps * config.world_size
  return config.max_steps if config.max_steps > 0 else math.ceil(math.ceil(rows / batch) * config.num_train_epochs)


def save_short_runs(config: Arguments, given: Mapping[str, object], rows: int) -> None:
  """At each quarter, where nothing is said of saving."""
  if given.keys().isdisjoint(("save_steps", "save_strategy", "load_best_model_at_end")):
    config.save_steps = min(config.save_steps, math.ceil(steps_of(config, rows) / 4))


def planned(
  settings: Settings,
  config: Arguments,
  given: Mapping[str, object],
  renderer: BaseRenderer,
  rows: Dataset,
  lora: LoraConfig | None,
) -> dict[str, object]:
  return {
    "model_name_or_path": settings.model_name_or_path,
    "max_length": renderer.max_length,
    "overlong": renderer.overlong,
    "val_set_size": settings.val_set_size,
    **config_summary(config, given, PLANNED),
    "optimizer_steps": steps_of(config, len(rows)),
    "tokens_per_epoch": sum(tokens_of(rows)),
    "lora": lora and lora_summary(lora),
  }


def lora_of(settings: LoraSettings, model: Model) -> LoraConfig | None:
  """None without --use_peft. The head of a reward model is trained and saved too."""
  if not settings.use_peft:
    return None
  from peft import LoraConfig

  targets = settings.lora_target_modules or ["all-linear"]
  kind = kind_of_architecture(type(model).__name__)
  return LoraConfig(
    task_type=kind.task_type if kind else "CAUSAL_LM",
    r=settings.lora_r or 16,
    lora_alpha=settings.lora_alpha or 32,
    lora_dropout=settings.lora_dropout or 0.0,
    target_modules=targets[0] if targets == ["all-linear"] else targets,
    modules_to_save=[head_name(model)] if kind else None,
  )


def lora_summary(lora: LoraConfig) -> dict[str, object]:
  targets = lora.target_modules if isinstance(lora.target_modules, str) else sorted(lora.target_modules)
  return {"r": lora.r, "alpha": lora.lora_alpha, "dropout": lora.lora_dropout, "target_modules": targets}
