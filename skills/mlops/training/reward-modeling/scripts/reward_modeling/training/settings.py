"""Typed settings of the training scripts: one frozen dataclass a group, whose fields are named as their flags are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..aggregation import STEP_FORMS
from ..cli import flag, fraction, non_negative_number, whole_number
from ..errors import UsageError
from ..hf import Arguments
from ..output_folder import claim
from ..packages import is_installed, not_installed
from ..settings import (
  DTYPES,
  EVALUATE_ON,
  SHARED_PREFIX_HELP,
  ReadingSettings,
  RewardsSettings,
  TextSettings,
  split_flag,
)

RESPONSE_LENGTH = 53
VALUE_MODELS = ("policy", "reward", "shared")


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
  group: ClassVar = "run"
  output_dir: str = flag(None, "where the model goes", metavar="OUT")
  overwrite_output_dir: bool = flag(False, "replace a model that is there; files that no run wrote stay beside it")
  resume_from_checkpoint: str | bool | None = flag(
    None,
    "continue from this checkpoint, or the newest complete one of --output_dir",
    nargs="?",
    const=True,
    metavar="CHECKPOINT",
  )
  dry_run: bool = flag(False, "read, audit and render the data, load the model, show the settings; train nothing")

  def begin(self, *inputs: str | None) -> tuple[Path, str | None]:
    """(the output folder, locked for this run; the checkpoint to continue from). inputs: paths and hub ids that it reads."""
    from .resuming import resume_point

    resume = self.resume_from_checkpoint
    more = {"overwrite": self.overwrite_output_dir, "dry_run": self.dry_run, "inputs": inputs}
    folder = claim(self.output_dir, resuming=bool(resume), **more)
    return folder, resume_point(resume, folder)


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
  group: ClassVar = "LoRA"
  use_peft: bool = flag(
    False, "train a LoRA adapter and the head; merged into the model on saving, kept beside it in OUT/adapter"
  )
  lora_r: int | None = flag(None, "rank (16)", metavar="R")
  lora_alpha: int | None = flag(None, "scale (32)", metavar="A")
  lora_dropout: float | None = flag(
    None, "dropout (0); above it training shares no prefixes", type=fraction, metavar="P"
  )
  lora_target_modules: Sequence[str] | None = flag(None, "layers that get an adapter (all-linear)", metavar="NAME")

  def __post_init__(self) -> None:
    names = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")
    given = [f"--{name}" for name in names if getattr(self, name) is not None]
    if given and not self.use_peft:  # the whole model would be trained
      told = f"{' and '.join(given)} {'does' if len(given) == 1 else 'do'} nothing without --use_peft"
      raise UsageError(told, hint="add --use_peft for LoRA, or leave it out")


@dataclass(frozen=True, kw_only=True)
class DataSettings(ReadingSettings, TextSettings):
  group: ClassVar = "data"
  dataset_train_split: str = flag("train", "split to train on", metavar="SPLIT")
  dataset_test_split: str | None = flag(None, "split to evaluate on, when there is one", metavar="SPLIT")
  eval_dataset_name: Sequence[str] | None = flag(None, "held-out data, read as --dataset_name is", metavar="DATA")
  val_set_size: float = flag(
    0.0, "share of the prompts held out when there is no other evaluation data", type=fraction, metavar="SHARE"
  )
  report: str | None = flag(
    None, "folder for a page (report.html) and a model card about the held-out rows, as of evaluate.py", metavar="DIR"
  )
  audit: str = flag(
    "stop",
    "for rows in which check_data.py finds errors, or which the chat template refuses",
    choices=("stop", "drop", "warn"),
  )
  seed: int = flag(
    42, "of the head, the order and the split", type=whole_number, group="chosen by model size unless given"
  )

  @property
  def has_evaluation(self) -> bool:
    return bool(self.val_set_size or self.names_evaluation)

  @property
  def names_evaluation(self) -> bool:
    return bool(self.eval_dataset_name or self.dataset_test_split)

  @property
  def drop_refused(self) -> bool:
    return self.audit == "drop"


def template_flag() -> Any:
  return flag(None, "a .jinja file, or a model whose chat template to use", metavar="PATH")


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
  group: ClassVar = "model"
  model_name_or_path: str = flag(
    None, "folder or hub id of a base, instruct or reward model; a trained reward head is kept", metavar="MODEL"
  )
  chat_template_path: str | None = template_flag()
  max_length: int | None = flag(
    None, "longest rendered conversation (1024, or what the model can read)", metavar="TOKENS"
  )


@dataclass(frozen=True, kw_only=True)
class SizeSettings:
  group: ClassVar = "chosen by model size unless given"
  learning_rate: float | None = flag(
    None, "1e-4 below 100M, 2e-5 to 1B, 1e-5 to 7B, 5e-6 above; ten times that with LoRA"
  )
  per_device_train_batch_size: int | None = flag(
    None, "pairs, rankings or solutions in one forward pass (8 below 1B, 4 to 7B, 2 above)"
  )
  num_train_epochs: float | None = flag(None, "2 below 1B, 1 above")
  gradient_checkpointing: bool | None = flag(None, "from 1B parameters on")
  bf16: bool | None = flag(None, "bfloat16 autocast (on a GPU or a CPU that has it)")
  eval_steps: float | None = flag(None, "evaluate every so many steps (once an epoch)")


@dataclass(frozen=True, kw_only=True)
class Settings(ModelSettings, DataSettings, OutputSettings, LoraSettings, SizeSettings):
  group: ClassVar = "run"
  load_in_4bit: bool = flag(
    False, "QLoRA: the frozen weights in 4 bits (NF4), by bitsandbytes; saved as a plain fp32 model", group="LoRA"
  )
  estimate_memory: int | None = flag(
    None,
    "print what a device needs, full, with LoRA, QLoRA and --fsdp on N devices; loads no weights and reads no data",
    nargs="?",
    const=1,
  )

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.eval_steps is not None and not self.has_evaluation:
      hint = f"{EVALUATE_ON}, or leave --eval_steps out of the command line and the recipe"
      raise UsageError("--eval_steps needs something to evaluate on", hint=hint)

    if self.load_in_4bit and not (self.use_peft or self.estimate_memory):
      raise UsageError("--load_in_4bit trains an adapter only", hint="add --use_peft, or leave it out")
    if self.load_in_4bit and not is_installed("bitsandbytes"):
      raise not_installed("bitsandbytes", "--load_in_4bit: ")

  @property
  def inputs(self) -> Iterable[str]:
    return (self.model_name_or_path, *self.dataset_name, *(self.eval_dataset_name or ()))


@dataclass(frozen=True, kw_only=True)
class RewardSettings(RewardsSettings):
  group: ClassVar = "reward"
  normalize_rewards: bool = flag(False, "subtract the mean and divide by the standard deviation saved with each")
  reward_dtype: str = flag("float32", "precision of the reward models' weights", choices=DTYPES)
  reward_max_length: int | None = flag(
    None,
    "longest conversation a reward model reads (as in training); the start of longer ones is cut",
    metavar="TOKENS",
  )
  reward_max_tokens_per_batch: int | None = flag(
    None, "tokens in one forward pass of a reward model (chosen from the data)", metavar="TOKENS"
  )
  shared_prefix: bool | None = flag(None, SHARED_PREFIX_HELP, group="run")
  reward_functions: Sequence[str] | None = flag(
    None, "beside models, or alone: FILE:NAME, or a NAME of reward_functions.py", metavar="FUNCTION"
  )
  reward_function_weights: Sequence[float] | None = flag(None, "one for each function (1)", metavar="W")
  reward_function_seconds: float = flag(60.0, "that one call of a function may take", metavar="SECONDS")
  step_rewards: str | None = flag(
    None,
    "of process reward models: outcome, the aggregate at the end; or at each step's end difference (PRIME) or min (PURE)",
    choices=tuple(STEP_FORMS),
  )
  step_temperature: float = flag(0.1, "of min: near 0 the lowest score counts alone")


@dataclass(frozen=True, kw_only=True)
class PolicySettings(ReadingSettings, RewardSettings, OutputSettings, LoraSettings):
  group: ClassVar = "policy"
  model_name_or_path: str = flag(None, "folder or hub id of the policy, also the reference", metavar="MODEL")
  chat_template_path: str | None = template_flag()
  stop_token_id: int | None = flag(None, "the one token that ends an answer", type=int, metavar="ID")
  max_prompt_length: int | None = flag(
    None, "longest rendered prompt (what the context leaves beside the answer)", group="data", metavar="TOKENS"
  )
  overlong: str = flag("error", "what to do with longer prompts", group="data", choices=("error", "drop"))
  seed: int = flag(42, "of prompts, answers and adapters", group="run", type=whole_number)

  @property
  def inputs(self) -> Iterable[str | None]:
    models = *(self.reward_model_path or ()), self.reference_model_name_or_path
    return (self.model_name_or_path, *models, *self.dataset_name)


def eos_penalty_flag(group: str | None = None) -> Any:
  told = "taken from the reward of an answer that did not end"
  return flag(1.0, told, group=group, type=non_negative_number)


@dataclass(frozen=True, kw_only=True)
class GRPOSettings(PolicySettings):
  algorithm: str = flag("grpo", "trainer of TRL", choices=("grpo", "rloo"))
  missing_eos_penalty: float = eos_penalty_flag("reward")
  dataset_split: str | None = split_flag("train")

  @staticmethod
  def config_classes() -> dict[str, type[Arguments]]:
    import trl

    return {"grpo": trl.GRPOConfig, "rloo": trl.RLOOConfig}

  def config_class(self) -> type[Arguments]:
    return self.config_classes()[self.algorithm]


@dataclass(frozen=True, kw_only=True)
class PPOSettings:
  """What decides the course of a run."""

  group: ClassVar = "PPO"
  seed: int
  total_episodes: int | None = flag(None, "answers in all (num_train_epochs x prompts)", group="run")
  per_device_train_batch_size: int = flag(8, "answers in one forward pass", group="run")
  gradient_accumulation_steps: int = flag(1, "", group="run")
  local_rollout_forward_batch_size: int = flag(64, "answers written together", group="run")
  learning_rate: float | None = flag(None, "of the policy (3e-6, ten times that with LoRA; 3e-4 under 10M parameters)")
  value_learning_rate: float | None = flag(
    None, "of the value model (that of the policy; where none is given, by its own size)"
  )
  lr_scheduler_type: str = flag("linear", "", choices=("linear", "cosine", "constant", "constant_with_warmup"))
  warmup_steps: int = flag(0, "updates", type=whole_number)
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


@dataclass(frozen=True, kw_only=True)
class PPORunSettings(PolicySettings):
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
