"""What the training scripts print, of a dry run or of a whole one, and what quickstart.py prints."""

from dataclasses import dataclass
from typing import Literal

from ..data.audit import AuditFinding
from ..evaluation.intervals import Estimate
from ..evaluation.pair_measures import PairSummary
from ..evaluation.ratings import RatingSummary
from ..evaluation.steps import StepSummary
from ..results import Number, Result


@dataclass(frozen=True)
class RewardStatistics:
  """Mean and standard deviation of `n` rewards, by which a model's rewards are normalized."""

  mean: Number
  std: Number
  n: int
  from_: str
  """Held-out or training pairs, answers or steps."""
  threshold: Number = None
  """Under which a step is flagged as wrong: the best on the held-out solutions."""
  auroc_low: Number = None
  """Low end of the interval of their AUROC: up to 0.5, flags may be chance."""


@dataclass(frozen=True)
class ShownLabel:
  text: str
  token: str
  position: int
  label: float


@dataclass(frozen=True, kw_only=True)
class ModelRun(Result):
  output_dir: str
  head: str
  format: str
  """Of the data."""
  counts: dict[str, int]
  """Of what became of the rows."""
  audit: list[AuditFinding]
  set_aside: dict[str, int]
  """Rows by why they are not trained on."""
  left_out: int
  """Rows with errors, under --audit drop."""
  diagnostics: list[str]
  """Where more than 5 % is over --max_length, held-out prompts were trained on, or the evaluation shows a fault."""
  step_separator: str | None = None
  labels_shown: list[list[ShownLabel]] | None = None


@dataclass(frozen=True, kw_only=True)
class PlannedModel(ModelRun):
  dry_run: Literal[True]
  settings: dict[str, object]


@dataclass(frozen=True)
class Fold:
  pairs: int
  """Or rated answers, to train on."""
  held_out: int
  train_loss: Number
  accuracy: Estimate | None = None
  pearson: dict[str, Estimate | None] | None = None
  """Of rated answers, by attribute."""


@dataclass(frozen=True, kw_only=True)
class TrainedModel(ModelRun):
  resumed_from: str | None
  training: dict[str, object]
  """Also saved in reward_model.json."""
  reward: RewardStatistics
  evaluation: PairSummary | RatingSummary | StepSummary | None
  """On held-out data."""
  fingerprint: str
  """Of how texts are rendered."""
  reload_difference: Number
  """Largest difference of a score after saving and reloading."""
  attribute_weights: dict[str, Number] | None = None
  """Of a model with a head for each attribute."""
  folds: list[Fold] | None = None
  """Under --folds, whose evaluation is that of all pairs."""


@dataclass(frozen=True)
class Memory:
  """Bytes on each device."""

  weights: int
  gradients: int
  optimizer: int
  """Of AdamW."""
  activations: int
  """Kept for the backward pass."""
  working: int
  """Layers of a sharded model while whole, a layer out of its 4 bits, buckets of gradients."""
  total: int


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate(Result):
  parameters: int
  devices: int
  sequences: int
  """Of `length` tokens, in one forward pass."""
  length: int
  gradient_checkpointing: bool
  bf16: bool
  bytes_per_device: dict[str, Memory]
  """By way of training: full, lora, qlora, and with --fsdp full_fsdp, lora_fsdp."""


ModelOutput = PlannedModel | TrainedModel | MemoryEstimate


@dataclass(frozen=True, kw_only=True)
class PolicyRun(Result):
  output_dir: str
  policy: str
  reward_models: list[str]
  reward_functions: list[str]
  prompts: int
  settings: dict[str, object]


@dataclass(frozen=True, kw_only=True)
class PlannedPolicy(PolicyRun):
  dry_run: Literal[True]
  optimizer_steps: int
  answers: int
  """To be written in the whole run."""
  answer_tokens: int
  """At most."""


@dataclass(frozen=True, kw_only=True)
class PlannedPPO(PlannedPolicy):
  updates: int
  batches: str


@dataclass(frozen=True, kw_only=True)
class PlannedGRPO(PlannedPolicy):
  algorithm: str


@dataclass(frozen=True, kw_only=True)
class TrainedPolicy(PolicyRun):
  resumed_from: str | None
  reward_inputs_truncated: int
  answer_steps: dict[str, Number] | None
  """Under --step_rewards: steps an answer, share of answers that ended none, steps and answers without a score."""
  beginning: dict[str, Number]
  """Of answers that the untrained policy wrote."""
  end: dict[str, Number]
  """Means over the last tenth of the run."""
  warnings: list[str]
  """Signs that the reward was gamed, or nothing learned."""


@dataclass(frozen=True, kw_only=True)
class TrainedPPO(TrainedPolicy):
  updates: int
  episodes: int
  stopped: str | None
  """Why the run ended before its time."""
  kl_coef: Number
  """At the end."""
  seconds: dict[str, Number]
  samples_per_second: Number
  batches: str
  """How forward passes computed rows, and why."""


@dataclass(frozen=True, kw_only=True)
class TrainedGRPO(TrainedPolicy):
  algorithm: str
  steps: int
  train_loss: Number
  seconds: Number
  learning_rate: float
  num_train_epochs: float
  per_device_train_batch_size: int
  gradient_accumulation_steps: int
  seed: int
  world_size: int
  bf16: bool
  fp16: bool


@dataclass(frozen=True, kw_only=True)
class Quickstart(Result):
  seconds: float
  accuracy: Estimate
  """On held-out pairs with clean labels."""
  length_baseline: Estimate
  subsets: dict[str, Estimate]
  gold_reward: dict[str, float]
  """Of the answers ranked first, of random ones and of the best."""
  policy_gold_reward: dict[str, float]
  """Before and after PPO, the most that is possible, and the KL at the end."""
  audit: dict[str, int]
  reload_difference: Number
  artefacts: dict[str, str]


PPOOutput = PlannedPPO | TrainedPPO
GRPOOutput = PlannedGRPO | TrainedGRPO
