"""What evaluate.py prints: one type for each kind of evaluation."""

from dataclasses import dataclass, field

from ..results import Number, Result
from .best_of_n import PoolSummary
from .intervals import Estimate
from .pair_measures import PairedComparison, PairSummary
from .pairs import PairEvaluation, SubsetComparison, diagnose_pairs
from .probes import ProbeSummary
from .ratings import AttributeComparison, RatingEvaluation, RatingSummary, diagnose_ratings
from .steps import StepEvaluation, StepSummary, diagnose_steps
from .studies import Study


@dataclass(frozen=True, kw_only=True)
class Evaluated(Result):
  model: str
  dataset: list[str]
  format: str
  set_aside: dict[str, int]
  """Rows by why they are not evaluated, as labeled ties."""
  diagnostics: list[str]
  output: str | None
  prompts_trained_on: int | None = field(default_factory=lambda: None)  # not left out
  """How many of the prompts the model was trained on (but for case and whitespace); null: it has no `trained_on.txt` that says so."""
  batches: str | None = None
  """How rows were computed, and why."""
  notes: list[str] | None = None
  """How a model without a card is read: what is known or assumed of its text, head and length."""
  metadata_moved: dict[str, int] | None = None
  """Rows of `output` by metadata column that is in its column `metadata`, since a result has its name."""


@dataclass(frozen=True, kw_only=True)
class Compared:
  """b is this model."""

  model: str
  verdict: str
  """Which is better, and whether it could be luck."""
  probes: ProbeSummary | None = None


@dataclass(frozen=True, kw_only=True)
class ComparisonWith(Compared, PairedComparison):
  by_subset: dict[str, SubsetComparison]
  other: PairSummary
  """The numbers of this model by itself."""


@dataclass(frozen=True, kw_only=True)
class PairReport(PairSummary, Evaluated):
  comparison: ComparisonWith | None = None
  probes: ProbeSummary | None = None
  """Under --probes: what fools the model."""


@dataclass(frozen=True, kw_only=True)
class StepReport(StepSummary, Evaluated):
  pass


@dataclass(frozen=True, kw_only=True)
class RatingComparison(Compared):
  attributes: dict[str, AttributeComparison]
  other: RatingSummary


@dataclass(frozen=True, kw_only=True)
class RatingReport(RatingSummary, Evaluated):
  comparison: RatingComparison | None = None
  probes: ProbeSummary | None = None


@dataclass(frozen=True, kw_only=True)
class PoolReport(PoolSummary, Evaluated):
  pass


@dataclass(frozen=True)
class OverOptimizationReport(Result):
  studies: list[Study]
  diagnostics: list[str]
  picture: str | None


@dataclass(frozen=True)
class BenchmarkResult:
  """complete: with all published rows. ties: items whose best reward is shared. unscored_steps: those that did not fit.
  numbers: the official one first, null where it lacks items. subsets: the ratios below them. baselines: scorers of lengths
  alone; gain: the official number minus the best of theirs, paired."""

  title: str
  rows: int
  published_rows: int
  complete: bool
  items: int
  set_aside: dict[str, int]
  ties: int
  truncated: int
  unscored_steps: int
  max_length: int | None
  threshold: float | None
  threshold_from: str | None
  numbers: dict[str, Estimate | None]
  subsets: dict[str, Number]
  baselines: dict[str, dict[str, float]]
  gain: Estimate | None
  published: dict[str, dict[str, float]]
  published_in: str


@dataclass(frozen=True, kw_only=True)
class BenchmarkReport(Result):
  model: str
  benchmarks: dict[str, BenchmarkResult]
  settings: dict[str, str]
  scores: dict[str, Number]
  """The numbers of all, by benchmark and benchmark/number, for leaderboards; null for one that lacks items."""
  diagnostics: list[str]
  output: str | None
  batches: str
  """How rows were computed, and why."""
  notes: list[str] | None = None


EvaluationOutput = PairReport | RatingReport | StepReport | PoolReport | BenchmarkReport | OverOptimizationReport


EVALUATIONS = {
  PairEvaluation: (PairReport, ComparisonWith, diagnose_pairs),
  RatingEvaluation: (RatingReport, RatingComparison, diagnose_ratings),
  StepEvaluation: (StepReport, None, diagnose_steps),
}
"""What each is reported as, two models of it, and the sentences about its summary."""
