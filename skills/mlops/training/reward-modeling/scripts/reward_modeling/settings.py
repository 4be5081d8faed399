"""Settings that several scripts share: which data and how it is read, the reward model and how it is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .aggregation import AGGREGATIONS, DEFAULT_AGGREGATE
from .cli import column_map, escaped, finite_number, flag, non_negative_number, whole_number, winner_values
from .ensemble import COMBINATIONS
from .rendering import OVERLONG
from .results import Row
from .step_rendering import STEPS_OVERLONG

EVALUATE_ON = "add --val_set_size 0.1 or --eval_dataset_name FILE"
DTYPES = ("float32", "bfloat16", "float16")
SHARED_PREFIX_HELP = "compute shared prefixes once (where the model allows it; on a GPU where it was measured to pay)"


@dataclass(frozen=True, kw_only=True)
class DatasetSettings:
  group: ClassVar = "data"
  dataset_name: Sequence[str] = flag(
    None,
    "files (JSONL, JSON, CSV, TSV, Parquet, .gz), folders, saved datasets or hub ids; several are concatenated",
    metavar="DATA",
  )


@dataclass(frozen=True, kw_only=True)
class FormatSettings:
  group: ClassVar = "data"
  dataset_config: str | None = flag(None, "configuration of a hub dataset", metavar="NAME")
  format: str | None = flag(
    None, "format of the rows, instead of recognizing it (check_data.py --list_formats)", metavar="NAME"
  )
  columns: Mapping[str, str] | None = flag(
    None,
    "read column B as A: prompt=question,chosen=good; B may reach into objects and lists: prompt=question.text,"
    "completions=answers[].answer; `context=` drops that column",
    type=column_map,
  )

  @property
  def reading(self) -> Row:
    return {"config": self.dataset_config, "format": self.format, "columns": self.columns}


@dataclass(frozen=True, kw_only=True)
class WinnerSettings:
  group: ClassVar = "data"
  winner_values: Mapping[str, str] | None = flag(
    None,
    "what the values of a winner column mean: a, b or tie (words such as model_a are known)",
    type=winner_values,
    metavar="1=a,0=b",
  )


@dataclass(frozen=True, kw_only=True)
class ReadingSettings(DatasetSettings, FormatSettings):
  pass


def split_flag(default: str | None) -> Any:
  return flag(default, "split of a hub dataset" + ("" if default else " (all of it)"), group="data", metavar="SPLIT")


def neutral_flag() -> Any:
  return flag(
    None,
    "what a step rated 0 is taken for; must be said where there are any (PRM800K)",
    group="data",
    choices=("good", "bad", "ignore"),
  )


def rating_range_flag() -> Any:
  return flag(None, "lowest and highest rating that there can be: others are errors", group="data", metavar="X")


def threshold_flag(what: str, group: str) -> Any:
  return flag(None, what, group=group, type=finite_number, metavar="X")


def text_format_flag(*more: str) -> Any:
  return flag(
    None,
    "rendered: the texts are templated already; chat: the chat template is written around them"
    f"{'; pair: the two texts of an encoder' * bool(more)} (what the model was trained with, else chat)",
    group="data",
    choices=("chat", "rendered", *more),
  )


@dataclass(frozen=True, kw_only=True)
class TextSettings:
  group: ClassVar = "data"
  text_format: str | None = text_format_flag()

  @property
  def rendered(self) -> bool:
    return self.text_format == "rendered"


@dataclass(frozen=True, kw_only=True)
class MeaningSettings:
  group: ClassVar = "reward"
  attribute_weights: Mapping[str, float] | None = flag(
    None,
    "the reward is this sum of the model's attributes: helpfulness=0.65 verbosity=-0.4 (the weights saved with it)",
  )
  reference_model_name_or_path: str | None = flag(
    None,
    "language model whose log-probabilities are subtracted: the reward of a DPO model, EurusPRM or ImplicitPRM",
    metavar="MODEL",
  )


@dataclass(frozen=True, kw_only=True)
class ScoringSettings(TextSettings, MeaningSettings):
  group: ClassVar = "reward model"
  model_name_or_path: str = flag(None, "folder or hub id of a reward model", metavar="MODEL")
  dtype: str = flag("float32", "precision of the weights", choices=DTYPES)
  device: str | None = flag(None, "cpu, cuda, cuda:1, mps (the best there is)", metavar="DEVICE")
  max_length: int | None = flag(
    None, "longest rendered conversation (what the model was trained with)", metavar="TOKENS"
  )
  overlong: str | None = flag(
    None,
    "what to do with longer ones (what the model was trained with)",
    choices=tuple(dict.fromkeys((*OVERLONG, *STEPS_OVERLONG))),
  )
  max_tokens_per_batch: int | None = flag(
    None, "in one forward pass, each shared one counted once (chosen from the data)", metavar="TOKENS"
  )
  shared_prefix: bool | None = flag(None, SHARED_PREFIX_HELP)
  refused: str = flag("stop", "what to do with rows that the chat template refuses", choices=("stop", "unscored"))
  chat_template_path: str | None = flag(
    None, "template over that of a model without a card: .jinja file, or folder or hub id", metavar="TEMPLATE"
  )
  text_format: str | None = text_format_flag("pair")
  aggregate: str | None = flag(
    None,
    f"how the steps of a solution make its reward ({DEFAULT_AGGREGATE}: one wrong step is enough)",
    group="process reward model",
    choices=tuple(AGGREGATIONS),
  )
  step_separator: str | None = flag(
    None,
    r"where solutions in text are split into steps (that of the model if it is whitespace, else \n)",
    group="process reward model",
    type=escaped,
  )

  @property
  def loading(self) -> Row:
    names = ("dtype", "device", "max_length", "overlong", "max_tokens_per_batch", "shared_prefix", "refused")
    more = ("text_format", "chat_template_path", "reference_model_name_or_path", "attribute_weights")
    return {name: getattr(self, name) for name in (*names, *more)}


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
  group: ClassVar = "completions written here"
  temperature: float = flag(
    1.0, "of sampling; 0 takes the likeliest; ppo.py samples at 0.7 unless told", type=non_negative_number
  )
  max_new_tokens: int | None = flag(
    None,
    "longest completion (256, or half of what the policy reads; ppo.py trains with 53 unless told)",
    metavar="TOKENS",
  )
  seed: int = flag(0, "of sampling", type=whole_number)


@dataclass(frozen=True, kw_only=True)
class RewardsSettings(MeaningSettings):
  group: ClassVar = "reward"
  reward_model_path: Sequence[str] = flag(None, "folders or hub ids of one or more reward models", metavar="MODEL")
  reward_weights: Sequence[float] | None = flag(
    None, "one for each reward model (1); -1 turns a reward round", metavar="W"
  )
  reward_combine: str = flag(
    "sum",
    "; ".join(f"{name}: {entry.description}" for name, entry in COMBINATIONS.items()),
    choices=tuple(COMBINATIONS),
  )
