"""Settings of an evaluation: the data, the reward model, and what is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .. import settings
from ..cli import check_required, flag, positive_int
from ..errors import UsageError


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(settings.ReadingSettings, settings.WinnerSettings, settings.ScoringSettings):
  group: ClassVar = "evaluation"
  dataset_split: str | None = settings.split_flag("test")
  neutral: str | None = settings.neutral_flag()
  rating_range: Sequence[float] | None = settings.rating_range_flag()
  subset_column: str | None = flag(
    None,
    "metadata column that names the subsets (subset, subject, category, domain, source, tranche, task or generator)",
    group="data",
    metavar="COLUMN",
  )
  compare: str | None = flag(
    None, "a second reward model, evaluated on the same pairs, with a paired test", metavar="MODEL"
  )
  probes: bool = flag(False, "is the model fooled by length, flattery, lists, ..., does it notice damage")
  report: str | None = flag(
    None, "folder for a page (report.html) and a model card; later runs of the model add to them", metavar="DIR"
  )
  output: str | None = flag(None, "JSONL file with the rewards of every row, and with texts of pairs", metavar="FILE")
  overwrite: bool = flag(False, "replace --output, or what is in the way of --report, if it exists")
  threshold: float | None = settings.threshold_flag(
    "a step is flagged as wrong under this score (chosen: each half of the prompts from the other half, where they suffice)",
    "step labels",
  )
  threshold_data: Sequence[str] | None = flag(
    None, "other solutions with step labels, to choose it on", group="step labels", metavar="DATA"
  )
  best_of_n: Sequence[int] | None = flag(
    None,
    "how often the best-scored of N completions is correct, for these N (1 4 16 64 100, up to the pool)",
    group="best of n",
    nargs="*",
    type=positive_int,
  )
  answer_column: str | None = flag(
    None, "column with one final answer a completion, for the majority vote", group="best of n", metavar="COLUMN"
  )
  answer_pattern: str | None = flag(
    None,
    r"where a completion states its final answer, as group 1 (\boxed{}, ####, A:, the answer is)",
    group="best of n",
    metavar="REGEX",
  )
  benchmark: Sequence[str] | None = flag(
    None,
    "rewardbench, rewardbench2, rm-bench, judgebench, ppe, rmb, llmbar; of steps: processbench, prmbench, mr-ben",
    group="benchmarks",
    metavar="NAME",
  )
  benchmark_data: str | None = flag(
    None, "folder with the authors' files, in DIR/NAME or by their names (the hub)", group="benchmarks", metavar="DIR"
  )
  overoptimization: Sequence[str] | None = flag(
    None,
    "rows with `kl` (nats) or `n`, `proxy` and `gold`, and `run` where there are several: no model is run",
    group="over-optimization",
    metavar="DATA",
  )
  picture: str | None = flag(None, "SVG file for the curves", group="over-optimization", metavar="FILE")

  def __post_init__(self) -> None:
    if self.overoptimization:
      return
    data = () if self.benchmark else ("dataset_name",)
    check_required(self, ("model_name_or_path", *data), "evaluate.py")
    for name in ("dataset_name", "compare", "best_of_n"):
      if self.benchmark and getattr(self, name):
        hint = "evaluate each model, or compare on the benchmark's file as --dataset_name"
        what = f"--{name} does nothing with --benchmark, which brings its own data"
        raise UsageError(what, hint=hint if name == "compare" else None)
    for name in ("answer_column", "answer_pattern"):
      if getattr(self, name) and self.best_of_n is None:
        raise UsageError(f"--{name} does nothing without --best_of_n")
    for one, other in (("threshold", "threshold_data"), ("answer_column", "answer_pattern")):
      if getattr(self, one) is not None and getattr(self, other):
        raise UsageError(f"--{one} and --{other} exclude each other", hint="give one of them")
    if self.probes and (self.benchmark or self.best_of_n is not None):
      hint = "run it without --benchmark and --best_of_n"
      raise UsageError("--probes change the answers of labeled pairs", hint=hint)
    if self.best_of_n is not None and self.compare:
      raise UsageError("--compare evaluates two models on pairs", hint="run --best_of_n for each model")

  @property
  def all_reading(self) -> dict[str, Any]:
    """How the data is read, for `reading.load`."""
    return {"split": self.dataset_split, "winner_values": self.winner_values, **self.reading}
