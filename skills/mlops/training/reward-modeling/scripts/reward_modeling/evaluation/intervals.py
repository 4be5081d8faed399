"""Means, differences and rank correlations with 95 % intervals. Arrays [n]: a value an observation."""

import contextlib
import functools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import correlation

import numpy as np
from scipy import special

from ..errors import DataError
from ..results import Number

Z = float(special.ndtri(0.975))

floats = functools.partial(np.asarray, dtype=np.float64)
STEP = 1e-6
"""Of the numeric gradient: ratios are about 1, and the functions of them smooth."""

Groups = Sequence[Hashable] | np.ndarray | None
"""One key an observation, the same for those of one prompt. None: each has its own."""
Counts = dict[str, tuple[float, float]]
"""{ratio: (numerator, denominator)} that one observation adds."""
Ratios = Mapping[str, float]
"""{ratio: its value over all observations}, NaN without any."""


@dataclass(frozen=True)
class Estimate:
  """A number with its 95 % interval, from `n` observations of `groups` different prompts."""

  value: float
  low: Number
  """Null where nothing bounds it, as of one prompt."""
  high: Number
  n: int
  groups: int

  def __post_init__(self) -> None:  # JSON has no infinity
    for end, open_ in (("low", -math.inf), ("high", math.inf)):
      if getattr(self, end) is None:
        object.__setattr__(self, end, open_)

  def __format__(self, spec: str) -> str:
    return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def accuracy(outcomes, groups: Groups = None, weights=None) -> Estimate:
  """Weighted mean of the outcomes [n], with a Wilson interval at the effective sample size."""
  outcomes = floats(outcomes)
  weights = weights_of(weights, len(outcomes))
  value = float(min(weights @ outcomes / weights.sum(), 1.0))
  return smooth(value, weights * (outcomes - value) / weights.sum(), groups, weights)


def accuracy_where(weights: np.ndarray, outcomes: np.ndarray, groups: np.ndarray) -> Estimate | None:
  """Of the observations with a weight above 0; None where there is none."""
  kept = weights > 0
  return accuracy(outcomes[kept], groups[kept], weights[kept]) if kept.any() else None


def wilson(value: float, n: float) -> tuple[float, float]:
  """Score interval of a proportion of n, also a fraction. Wilson 1927, JASA 22:209-212."""
  center = value + Z**2 / (2 * n)
  half = Z * math.sqrt(value * (1 - value) / n + Z**2 / (4 * n**2))
  scale = 1 + Z**2 / n
  return min(max((center - half) / scale, 0.0), value), max(min((center + half) / scale, 1.0), value)


def effective_size(value: float, influence: np.ndarray, index: np.ndarray, weights: np.ndarray) -> float:
  """How many independent right-or-wrong observations inform as much: value (1 - value) / clustered variance."""
  variance, prompts = clustered_variance(influence, index), effective_groups(index, weights)
  return prompts if variance < 1e-15 else _shrunk(value * (1 - value) / variance, prompts, index)


def _shrunk(size: float, prompts: float, index: np.ndarray) -> float:
  """Above the number of prompts by (z / t)^2, as these scatter (Korn and Graubard 1998, Survey Methodology 24:193-201)."""
  return min(size, max(prompts, size * (Z / t_quantile(int(index.max()))) ** 2))


def smooth(value: float, influence, groups: Groups = None, weights=None) -> Estimate:
  """A number from 0 to 1 with Wilson's interval at its effective size. influence: [n] how much each observation moves it."""
  influence = floats(influence)
  index = group_index(groups, len(influence))
  size = effective_size(value, influence, index, weights_of(weights, len(influence)))
  return Estimate(value, *wilson(value, size), len(influence), int(index.max()) + 1)


@dataclass(frozen=True)
class Measured:
  """A number. influence: see `smooth`; counted: [n] what enters at all."""

  value: float
  influence: np.ndarray
  counted: np.ndarray

  def estimate(self, groups: Groups, signed: bool = False) -> Estimate:
    """signed: from -1 to 1. Ties of RewardBench 2 can leave 0 to 1 by a hundredth: then all prompts count as agreeing."""
    scale = 2 if signed else 1
    value = min(max((self.value + scale - 1) / scale, 0.0), 1.0)
    influence = self.influence[self.counted] / scale
    index = group_index(groups, len(self.counted))[self.counted]
    found = smooth(value, influence if 0 < value < 1 else 0 * influence, index)
    low, high = (scale * end - scale + 1 for end in (found.low, found.high))
    return Estimate(self.value, min(low, self.value), max(high, self.value), found.n, found.groups)

  def minus(self, other: "Measured", groups: np.ndarray) -> Estimate:
    """The difference on the same observations."""
    kept = self.counted | other.counted
    index = group_index(groups[kept], int(kept.sum()))
    variance, others = clustered_variance((self.influence - other.influence)[kept], index), max(int(index.max()), 1)
    return by_t(self.value - other.value, variance * (others + 1) / others, index)


def measure(counts: Sequence[Counts], numbers: Callable[[Ratios], Ratios]) -> tuple[dict[str, Measured], Ratios]:
  """({number: what it is}, the ratios), by the delta method; a number that is not finite is left out."""
  names = sorted({name for one in counts for name in one})
  sums = [[one.get(name, (0.0, 0.0)) for name in names] for one in counts]
  above, below = np.moveaxis(np.reshape(sums, (len(counts), len(names), 2)), 2, 0)
  totals = np.maximum(below.sum(0), 1e-300)
  ratios = np.where(below.any(0), above.sum(0) / totals, np.nan)
  influence = np.where(below.any(0), (above - ratios * below) / totals, 0.0)

  def at(values: np.ndarray) -> dict[str, float]:
    return numbers(dict(zip(names, values.tolist(), strict=True)))

  steps = np.eye(len(names)) * STEP
  up, down = ([at(ratios + sign * step) for step in steps] for sign in (1, -1))
  without = [at(np.where(step > 0, np.nan, ratios)) for step in steps]  # tells use where the gradient is 0
  found = {}
  for name, value in at(ratios).items():
    gradient = np.array([(u[name] - d[name]) / (2 * STEP) for u, d in zip(up, down, strict=True)])
    used = (np.abs(gradient) > 1e-9) | np.isnan([one[name] for one in without])
    if math.isfinite(value):
      found[name] = Measured(value, influence[:, used] @ gradient[used], (below[:, used] > 0).any(1))
  return found, dict(zip(names, ratios.tolist(), strict=True))


def clustered_variance(residuals: np.ndarray, index: np.ndarray) -> float:
  """The variance of a sum of residuals [n] that sum to 0: squared sums over groups. Miller 2024, arXiv:2411.00640."""
  return float(np.sum(np.bincount(index, weights=residuals) ** 2))


def effective_groups(index: np.ndarray, weights: np.ndarray) -> float:
  """(sum W)^2 / sum W^2 over the groups' total weights W. Kish 1965, "Survey Sampling"."""
  totals = np.bincount(index, weights=weights)
  return float(totals.sum() ** 2 / np.sum(totals**2))


def group_index(groups: Groups, n: int) -> np.ndarray:
  if groups is None:
    return np.arange(n)
  seen: dict[Hashable, int] = {}
  return np.array([seen.setdefault(key, len(seen)) for key in groups], dtype=np.int64)


def difference(outcomes_a, outcomes_b, groups: Groups = None, weights=None, *, bound: float = 1.0) -> Estimate:
  """Mean of a - b, from -bound to bound, over the same pairs: value +- t sqrt(V + 1 / G^2), t with G - 1 degrees of freedom.

  G: prompts. 1 / G^2 is half a made-up prompt for each model (Agresti and Min 2005, Statistics in Medicine 24:729-740): a few
  prompts on which two agree do not prove them equal."""
  differences = floats(outcomes_a) - floats(outcomes_b)
  weights = weights_of(weights, len(differences))
  index = group_index(groups, len(differences))
  value = float(weights @ differences / weights.sum())
  variance = clustered_variance(weights * (differences - value), index) / weights.sum() ** 2
  found = by_t(value, variance + effective_groups(index, weights) ** -2, index)
  return replace(found, low=max(found.low, -bound), high=min(found.high, bound))


def jackknife(
  columns: Sequence[np.ndarray], number: Callable[[np.ndarray], np.ndarray], groups: Groups = None
) -> Estimate:
  """A number of the sums of columns [n], by leaving out each prompt in turn.

  number: sums [columns, ...] -> [...]. Efron and Stein 1981, Annals of Statistics 9:586-596."""
  index = group_index(groups, len(columns[0]))
  sums = np.array([np.bincount(index, weights=column) for column in columns])
  total, n = sums.sum(axis=1), sums.shape[1]
  with np.errstate(all="ignore"):
    return by_t(float(number(total)), (n - 1) * float(np.var(number(total[:, None] - sums))), index)


def by_t(value: float, variance: float, index: np.ndarray) -> Estimate:
  """With the variance's G - 1 degrees of freedom; one prompt bounds nothing."""
  prompts = int(index.max()) + 1
  half = t_quantile(prompts - 1) * math.sqrt(variance)
  half = math.inf if math.isnan(half) else half
  return Estimate(value, value - half, value + half, len(index), prompts)


def correlated(x, y, *, ranks: bool = False) -> Measured | None:
  """Of x and y [n]; None under 4 values or where one side is constant."""
  x, y = floats(x), floats(y)
  if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
    return None
  from scipy import stats  # late, since it takes a second to import

  u, v = (stats.zscore(stats.rankdata(values) if ranks else values) for values in (x, y))
  r = float(np.clip(np.mean(u * v), -1.0, 1.0))
  return Measured(r, (u * v - r * (u**2 + v**2) / 2) / len(x), np.ones(len(x), dtype=bool))


def spearman(x, y, groups: Groups = None, *, ranks: bool = True) -> Estimate | None:
  """Rank correlation, as `correlated`.

  Fisher's z with the variance (1 + r^2 / 2) / (n - 3) of Bonett and Wright 2000, Psychometrika 65:23-28, at n over the
  design effect. A perfect correlation takes its interval from 1 - 12 / (n^3 - n), one swap of neighbors away.
  """
  found = correlated(x, y, ranks=ranks)
  if found is None:
    return None
  r, n = found.value, len(found.influence)
  index = group_index(groups, n)
  clustered, independent = clustered_variance(found.influence, index), float(np.sum(found.influence**2))
  effective = prompts = effective_groups(index, np.ones(n))
  if clustered > 1e-12 / n:
    effective = _shrunk(min(n, n * independent / clustered), prompts, index)
  limit = 1 - 12 / (n**3 - n)
  inner = min(max(r, -limit), limit)
  variance = 1 + inner**2 / 2 if ranks else 1.0
  half = Z * math.sqrt(variance / (effective - 3)) if effective > 3 else math.inf
  low, high = (math.tanh(math.atanh(inner) + sign * half) for sign in (-1, 1))
  return Estimate(r, min(low, r), max(high, r), n, int(index.max()) + 1)


pearson = functools.partial(spearman, ranks=False)
"""Linear correlation, with the variance 1 / (n - 3) of Fisher 1921, Metron 1:3-32."""


def weights_of(weights, n: int) -> np.ndarray:
  """[n] all 1 when there are none. Raises DataError where none can weigh."""
  if n == 0:
    raise DataError("no pairs to evaluate", hint="check_data.py shows what the file holds")
  if weights is None:
    return np.ones(n)
  weights = floats(weights)
  if not np.all(np.isfinite(weights)) or np.any(weights < 0) or weights.sum() <= 0:
    raise DataError("weights must be finite, not negative, and not all zero")
  return weights


def t_quantile(degrees: int) -> float:
  return float(special.stdtrit(degrees, 0.975)) if degrees > 0 else math.inf


def has_trend(values: Sequence[float | None]) -> bool:
  """Whether the slope of a series, without its None, is more than two standard errors from 0."""
  steps = [step for step, value in enumerate(values) if value is not None]
  known = [values[step] for step in steps]
  with contextlib.suppress(ValueError, OverflowError):  # what is too small or too large to square
    return len({*known}) > 1 and correlation(steps, known) ** 2 > 4 / (len(known) + 2)
  return False
