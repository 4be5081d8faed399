"""Means, differences and rank correlations with 95 % intervals that know which observations share a prompt.

Observations of one prompt share a `group` and are not independent: every interval is built from sums over groups.
Arrays of shape [n] hold one value an observation: a pair, a step, a solution or a prompt.

Sources
    Wilson 1927, JASA 22:209-212
    Kish 1965, "Survey Sampling": effective sample size under weights, (sum w)^2 / sum w^2
    Korn and Graubard 1998, Survey Methodology 24:193-201: effective sample size from a clustered variance
    Miller 2024, arXiv:2411.00640: clustered standard errors, paired differences
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ..console import DataError

CONFIDENCE = 0.95
Z = float(special.ndtri(0.5 + CONFIDENCE / 2))

Groups = Sequence[Hashable] | np.ndarray | None
"""One key an observation, the same for those of one prompt. No keys at all, or None as a key: a prompt of its own."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, from `n` observations of `groups` different prompts."""

    value: float
    low: float
    high: float
    n: int
    groups: int

    def __format__(self, spec: str) -> str:
        """Value and interval: 0.758 [0.701, 0.803] for `.3f`."""
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def accuracy(outcomes, groups: Groups = None, weights=None) -> Estimate:
    """Weighted mean of the outcomes, sum w o / sum w, with a Wilson interval at the effective sample size.

    outcomes, weights: [n]. Raises DataError without pairs or with unusable weights.
    """
    outcomes = floats(outcomes)
    weights = weights_of(weights, len(outcomes))
    value = float(min(weights @ outcomes / weights.sum(), 1.0))
    return smooth(value, weights * (outcomes - value) / weights.sum(), groups, weights)


def accuracy_where(kept: np.ndarray, outcomes: np.ndarray, groups: np.ndarray, weights: np.ndarray) -> Estimate | None:
    """`accuracy` of the observations where `kept` [n] is true; None where they have no weight."""
    return accuracy(outcomes[kept], groups[kept], weights[kept]) if weights[kept].sum() > 0 else None


def wilson(value: float, n: float) -> tuple[float, float]:
    """Score interval of a proportion: all p with |value - p| <= z sqrt(p (1 - p) / n). Wilson 1927.

    n may be a fraction. Never empty, not even at 0 or 1.
    >>> [round(end, 4) for end in wilson(1.0, 10)]
    [0.7225, 1.0]
    """
    center = value + Z**2 / (2 * n)
    half = Z * math.sqrt(value * (1 - value) / n + Z**2 / (4 * n**2))
    scale = 1 + Z**2 / n
    return min(max((center - half) / scale, 0.0), value), max(min((center + half) / scale, 1.0), value)


def effective_size(value: float, influence: np.ndarray, index: np.ndarray, weights: np.ndarray) -> float:
    """How many independent right-or-wrong observations would be as informative: value (1 - value) / clustered variance.

    Two departures from that ratio (Korn and Graubard 1998), both without effect on independent untied pairs:
    (1) where it exceeds the number of prompts, the variance is known only from how the prompts scatter, so the ratio
    shrinks by (z / t)^2 with prompts - 1 degrees of freedom, but not below the number of prompts;
    (2) where the variance is 0 (all right, all wrong, all tied) it is the number of prompts.
    Prompts of unequal weight are counted as Kish does. influence (see `smooth`), index, weights: [n].
    """
    variance, prompts = clustered_variance(influence, index), effective_groups(index, weights)
    if variance < 1e-15:
        return prompts
    ratio = value * (1 - value) / variance
    known_scatter = (Z / t_quantile(int(index.max()))) ** 2
    return min(ratio, max(prompts, ratio * known_scatter))


def smooth(value: float, influence, groups: Groups = None, weights=None) -> Estimate:
    """A number from 0 to 1 that depends smoothly on means, with Wilson's interval at its effective size.

    influence: [n] how much each observation moves the number, summing to about 0 (the delta method); (outcome - mean) / n
    for a mean.
    """
    influence = floats(influence)
    index = group_index(groups, len(influence))
    size = effective_size(value, influence, index, weights_of(weights, len(influence)))
    return Estimate(value, *wilson(value, size), len(influence), int(index.max()) + 1)


def clustered_variance(residuals: np.ndarray, index: np.ndarray) -> float:
    """Sum over groups of the squared sum of residuals: the variance of a weighted sum, Miller 2024.

    residuals: [n] weight * (outcome - mean). Over (sum w)^2 it is the variance of the weighted mean.
    """
    return float(np.sum(np.bincount(index, weights=residuals) ** 2))


def effective_groups(index: np.ndarray, weights: np.ndarray) -> float:
    """(sum W)^2 / sum W^2 over the groups' total weights W. Kish 1965."""
    totals = np.bincount(index, weights=weights)
    return float(totals.sum() ** 2 / np.sum(totals**2))


def group_index(groups: Groups, n: int) -> np.ndarray:
    """Any hashable keys -> [n] integers 0, 1, ... in order of first appearance."""
    if groups is None:
        return np.arange(n)
    require_length(n, groups=groups)
    seen: dict[Hashable, int] = {}
    keys = (("pair", row) if key is None else key for row, key in enumerate(groups))
    return np.array([seen.setdefault(key, len(seen)) for key in keys], dtype=np.int64)


def difference(outcomes_a, outcomes_b, groups: Groups = None, weights=None, *, bound: float = 1.0) -> Estimate:
    """Mean of a - b over the same pairs, with its clustered 95 % interval. Miller 2024, paired differences.

    value +- t sqrt(V + 1 / G^2), t with G - 1 degrees of freedom for G prompts, cut at -bound and bound. The 1 / G^2 is half a
    made-up prompt for each model (Agresti and Min 2005, Statistics in Medicine 24:729-740): two models that agree
    everywhere on a few prompts are not proven equal.
    """
    differences = floats(outcomes_a) - floats(outcomes_b)
    weights = weights_of(weights, len(differences))
    index = group_index(groups, len(differences))
    value = float(weights @ differences / weights.sum())
    variance = clustered_variance(weights * (differences - value), index) / weights.sum() ** 2
    half = t_quantile(int(index.max())) * math.sqrt(variance + effective_groups(index, weights) ** -2)
    low, high = max(value - half, -bound), min(value + half, bound)
    return Estimate(value, low, high, len(differences), int(index.max()) + 1)


def spearman(x, y, groups: Groups = None) -> Estimate | None:
    """Rank correlation: Pearson's r of the ranks (ties share their mean rank), with a clustered interval.

    x, y: [n]. None where it is undefined: under 4 values, or one side constant. The interval is Fisher's z with the
    variance (1 + r^2 / 2) / (n - 3) of Bonett and Wright 2000, Psychometrika 65:23-28, at n over the design effect:
    the clustered over the independent variance of r's influence function u v - r (u^2 + v^2) / 2 (u, v: standardized
    ranks). A perfect correlation takes its interval from 1 - 12 / (n^3 - n), one swap of neighbours away.
    """
    x, y = floats(x), floats(y)
    n = len(x)
    index = group_index(groups, n)
    if n < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    from scipy import stats  # late, since it takes a second to import

    u, v = (stats.zscore(stats.rankdata(values)) for values in (x, y))
    r = float(np.clip(np.mean(u * v), -1.0, 1.0))
    influence = u * v - r * (u**2 + v**2) / 2
    clustered, independent = clustered_variance(influence, index), float(np.sum(influence**2))
    effective = effective_groups(index, np.ones(n))
    if clustered > 1e-12 * n:
        effective = min(n, n * independent / clustered)
    low, high = _fisher_interval(r, effective, limit=1 - 12 / (n**3 - n))
    return Estimate(r, min(low, r), max(high, r), n, int(index.max()) + 1)


def _fisher_interval(r: float, n: float, limit: float) -> tuple[float, float]:
    if n <= 3:
        return -1.0, 1.0
    r = min(max(r, -limit), limit)
    half = Z * math.sqrt((1 + r**2 / 2) / (n - 3))
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def weights_of(weights, n: int) -> np.ndarray:
    """[n] weights, all 1 when there are none. Raises DataError without pairs, or when weights cannot weigh."""
    if n == 0:
        raise DataError("no pairs to evaluate")
    if weights is None:
        return np.ones(n)
    weights = floats(weights)
    require_length(n, weights=weights)
    if not np.all(np.isfinite(weights)) or np.any(weights < 0) or weights.sum() <= 0:
        raise DataError("weights must be finite, not negative, and not all zero")
    return weights


def t_quantile(degrees: int) -> float:
    return float(special.stdtrit(degrees, 0.5 + CONFIDENCE / 2)) if degrees > 0 else math.inf


def floats(values) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)


def require_length(n: int, **arrays) -> None:
    for name, values in arrays.items():
        if len(values) != n:
            raise ValueError(f"{name} has {len(values)} entries for {n} pairs")
