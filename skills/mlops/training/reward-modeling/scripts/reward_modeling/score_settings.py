"""What score.py takes and what it prints; serve.py loads models by the same settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

from . import checkpoints, process
from .cli import check_required, flag, utf8
from .ensemble import Rewards
from .errors import UsageError
from .process import ProcessRewardModel
from .results import Number, Result
from .scoring import RewardModel
from .settings import (
  FormatSettings,
  RewardsSettings,
  SamplingSettings,
  ScoringSettings,
  WinnerSettings,
  split_flag,
  threshold_flag,
)

SERVER_KINDS = ("ours", "vllm", "sglang", "tei", "infinity", "openrlhf", "llamafactory")
Model = RewardModel | ProcessRewardModel | Rewards
"""Those of servers have the same verbs."""
SERVE, _SERVERS = SERVER_KINDS[0], {"group": "servers"}


def key_in(file: str | None) -> str | None:
  """Raises UsageError for a file that does not hold one key."""
  try:
    key = Path(file).read_text(encoding="utf-8").strip() if file else None
  except (OSError, UnicodeDecodeError) as error:
    raise UsageError(f"cannot read --key_file: {error}", where=file) from error
  if key is not None and len(key.split()) != 1:
    raise UsageError("--key_file holds one key and nothing else", where=file)
  return key


@dataclass(frozen=True, kw_only=True)
class ModelsSettings(ScoringSettings, RewardsSettings):
  """One reward model, or several as one."""

  normalize: bool = flag(
    False, "subtract the mean and divide by the standard deviation saved with the model", group="result"
  )

  def check_models(self, script: str) -> None:
    if self.reward_model_path:
      if self.model_name_or_path:
        what = "--model_name_or_path is one reward model, --reward_model_path several: give one of them"
        raise UsageError(what)
      return
    check_required(self, ("model_name_or_path",), script)
    if self.reward_weights or self.reward_combine != "sum":
      what = "--reward_weights and --reward_combine are for several models"
      raise UsageError(what, hint="give them with --reward_model_path A B")

  @property
  def of_steps(self) -> bool:
    path = None if self.reward_model_path else self.model_name_or_path
    return path is not None and checkpoints.kind_of(path) is checkpoints.PROCESS

  def load(self) -> Model:
    if self.of_steps and self.normalize:
      raise UsageError("--normalize is for outcome reward models: step scores are probabilities")
    if not self.reward_model_path:
      return process.from_settings(self)
    how = {"weights": self.reward_weights, "combine": self.reward_combine, "normalize": self.normalize}
    return Rewards.from_pretrained(self.reward_model_path, **how, **self.loading)


@dataclass(frozen=True, kw_only=True)
class ScoreSettings(ModelsSettings, SamplingSettings, FormatSettings, WinnerSettings):
  group: ClassVar = "result"
  input: Sequence[str] | None = flag(
    None, "files, folders or hub ids with prompts and completions", group="data", metavar="DATA"
  )
  dataset_split: str | None = split_flag(None)
  prompt: str | None = flag(None, "one prompt, instead of --input", group="data", type=utf8)
  completions: Sequence[str] | None = flag(None, "its completions", group="data", type=utf8)
  generate_with: str | None = flag(
    None,
    "policy that writes --best_of N completions for each prompt; --rank keeps them all",
    group=SamplingSettings.group,
    metavar="POLICY",
  )
  rank: bool = flag(False, "order each prompt's completions, best first; a row is a prompt: rows are not grouped")
  best_of: int | None = flag(None, "keep the best of each prompt's first N completions")
  threshold: float | None = threshold_flag(
    "name the first step under this score, as `first_flagged` (that of the training run)", "process reward model"
  )
  output: str | None = flag(
    None, "JSONL file for the scored rows (they are printed in the JSON on stdout without it)", metavar="FILE"
  )
  overwrite: bool = flag(False, "replace --output if it exists")
  write_card: str | None = flag(
    None,
    "file for a hash of the rendering and the rewards of fixed texts; where it is there already, it is compared with",
    metavar="FILE",
  )
  server: Sequence[str] | None = flag(None, "servers that score, instead of this process", metavar="URL", **_SERVERS)
  check_server: str | None = flag(
    None, "does it give the rewards of --model_name_or_path (of fixed texts and --input)", metavar="URL", **_SERVERS
  )
  api: str = flag(SERVE, "of these servers", choices=SERVER_KINDS, **_SERVERS)
  concurrency: int = flag(16, "requests at a time", **_SERVERS)
  key_file: str | None = flag(None, "file with the key that requests carry", metavar="FILE", **_SERVERS)
  list_public_models: bool = flag(False, "show the known public reward models and how each is read, then stop")

  def __post_init__(self) -> None:
    if self.list_public_models:
      return
    if self.server or self.check_server:
      self._check_servers()
    else:
      self.check_models("score.py")
    if self.check_server and not self.input:
      return
    n = self.best_of
    # fmt: off
    faults = (
      (self.write_card and (self.reward_model_path or self.rendered),
       "--write_card is of one model and its chat text", "give one with --model_name_or_path"),
      (bool(self.input) == (self.prompt is not None), "give either --input, or --prompt with --completions", None),
      (self.generate_with and self.completions,
       "--completions are given, --generate_with writes them: choose one of them", None),
      (self.generate_with and not n,
       "--generate_with needs --best_of N: how many completions to write for each prompt", None),
      (not self.generate_with and (self.prompt is None) != (self.completions is None),
       "--prompt and --completions belong together", None),
      (self.rank and n and not self.generate_with, "--rank orders all completions, --best_of keeps one: choose one of them",
       f"--rank writes all completions of a row, best first; --best_of {n} the best of its first {n} alone"),
    )
    # fmt: on
    for is_so, what, hint in faults:
      if is_so:
        raise UsageError(what, hint=hint)

  def _check_servers(self) -> None:
    which, unused = "server", ["check_server"]
    if not self.server:
      which, unused = "check_server", ["output", "prompt", "rank", "best_of", "generate_with"]
    elif self.api == SERVE:
      unused += [field.name for field in fields(ScoringSettings) if field.name != "model_name_or_path"]
    for name in (*unused, "reward_model_path", "reward_weights", "reward_combine", "normalize", "write_card"):
      if getattr(self, name) != getattr(ScoreSettings, name):
        raise UsageError(f"--{name} does nothing with --{which}")
    if self.check_server or self.api != SERVE:
      check_required(self, ("model_name_or_path",), "score.py")


@dataclass(frozen=True, kw_only=True)
class ScoringResult(Result):
  model: str
  prompts: int
  completions: int
  empty_completions: int
  """Those that say nothing."""
  not_scored: int
  prompts_with_unscored: int
  truncated: int
  not_rendered: int
  templated: int
  special_tokens_in_content: int
  """Conversations that hold special tokens such as `<|im_end|>` in their texts."""
  refused: int
  """Completions that cannot be rendered, under --refused unscored."""
  reward_mean: Number
  output: str | None
  batches: str | None = None
  """Whether shared prefixes were computed once, or why not."""
  notes: list[str] | None = None
  """How a model without a card is read: what is known or assumed of its text, head and length."""
  metadata_moved: dict[str, int] | None = None
  reward_models: list[str] | None = None
  """Of several: their names, how they are combined, and their weights."""
  reward_combine: str | None = None
  reward_weights: list[float] | None = None
  policy: str | None = None
  """That wrote the completions, and how many did not end."""
  unfinished: int | None = None
  aggregate: str | None = None
  """Of a process reward model: how step scores become a reward, and the steps."""
  steps: int | None = None
  steps_not_scored: int | None = None
  threshold: Number = None
  """Under which a step is flagged, and how many solutions have one."""
  solutions_flagged: int | None = None
  rows: list[dict[str, object]] | None = None
  """The scored rows, without --output."""


@dataclass(frozen=True)
class PublicModels(Result):
  public_models: list[dict[str, str]]


@dataclass(frozen=True)
class ServerFinding:
  asked_by: str
  """Whose form the requests had: that of score.py, or of a program that asks such servers."""
  equal: bool
  causes: list[str]
  says: str
  fix: str | None
  largest_difference: Number
  server: list[Number]
  """Its rewards; null for a text that it refused."""


@dataclass(frozen=True)
class ServerCheck(Result):
  model: str
  checked_server: str
  api: str
  equal: bool
  tokens: list[int | None]
  """Of each text: the golden ones, longer and longer ones, those of --input."""
  rewards: list[Number]
  """Of this model, computed here."""
  findings: list[ServerFinding]


Output = ScoringResult | PublicModels | ServerCheck
