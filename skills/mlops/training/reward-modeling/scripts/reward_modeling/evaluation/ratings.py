"""Evaluate a reward model on rated answers: each attribute by its correlation, error, calibration and pairs of a prompt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from ..data.records import Rated, rated_names, weighted
from ..data.writing import with_metadata
from ..errors import DataError
from ..rendering import Conversation
from ..results import Number
from ..terminal import progress, table
from .inputs import prompt_keys, source_of
from .intervals import Estimate, accuracy, pearson, spearman

if TYPE_CHECKING:
    from ..scoring import RewardModel

REWARD = "reward"


@dataclass(frozen=True)
class AttributeSummary:
    n: int
    """Answers that have both the rating and a prediction."""
    pearson: Estimate | None
    spearman: Estimate | None
    pair_accuracy: Estimate | None
    """Of answers to one prompt with different ratings: how often the higher one is predicted higher; each prompt counts once."""
    pairs: int
    rmse: Number = None
    """Root of the mean squared error, of a model with a head for the attribute; of binary labels, of the probability."""
    bias: Number = None
    """Mean prediction minus mean rating."""
    slope: Number = None
    """Of the rating by the prediction: 1 where a model is calibrated, below 1 where it says too much."""


@dataclass(frozen=True)
class RatingSummary:
    n_answers: int
    n_prompts: int
    not_scored: int
    attributes: dict[str, AttributeSummary]
    """By the head of that name, else by the reward; `reward`: against the sum of the ratings by the model's weights."""


@dataclass(frozen=True)
class RatingEvaluation:
    """rewards: [n] of the answers that got one. rows: one JSON row for each answer."""

    rewards: list[float]
    summary: RatingSummary
    rows: list[dict[str, object]]


def evaluate_ratings(model: RewardModel, answers: Sequence[Rated]) -> RatingEvaluation:
    before = dict(model.renderer.counts)
    asked = [Conversation(one.prompt, one.completion, one.tools, one.origin) for one in answers]
    with progress("scoring", len(asked)) as advance:
        numbers = model.score_attributes(asked, advance)
    model.warn_of_losses(before)
    scored = [(row, own) for row, own in zip(answers, numbers, strict=True) if own is not None]
    if not scored:
        most = model.renderer.max_length
        hint = "raise --max_length, or choose --overlong truncate_left"
        raise DataError(f"none of {len(answers)} answers fits into {most} tokens", hint=hint)
    rows, values = [row for row, _ in scored], np.array([own for _, own in scored])
    keys, heads = prompt_keys(rows), {one.name: one for one in model.heads}
    columns = dict.fromkeys(rated_names(rows), values[:, 0]) | dict(
        zip(model.attributes or heads, values[:, 1:].T, strict=False)
    )
    found = {}
    for name in rated_names(rows):
        predicted, head = columns[name], heads.get(name)
        if head and head.objective == "binary":
            predicted = 1 / (1 + np.exp(-predicted))
        ratings = [row.ratings.get(name) for row in rows]
        found[name] = _summary(predicted, ratings, keys, in_units=head is not None)
    own = model.weights or [one.weight for one in model.heads]
    weights = {name: weight for name, weight in zip(heads, own, strict=True) if weight} if heads else {}
    if len(weights) > 1 and REWARD not in found:
        found[REWARD] = _summary(values[:, 0], [weighted(row.ratings, weights) for row in rows], keys, in_units=False)
    summary = RatingSummary(len(answers), len(set(keys)), len(answers) - len(rows), found)
    names = tuple(model.attributes)
    told = [_row(row, own, names) for row, own in zip(answers, numbers, strict=True)]
    return RatingEvaluation(values[:, 0].tolist(), summary, told)


def _row(row: Rated, numbers: list[float] | None, names: tuple[str, ...]) -> dict[str, object]:
    found = {**source_of(row), "prompt": row.prompt, "completion": row.completion, "ratings": row.ratings}
    found[REWARD] = numbers and numbers[0]
    if names:
        found["attributes"] = numbers and dict(zip(names, numbers[1:], strict=True))
    return with_metadata(found, row.metadata)


def _summary(
    predicted: np.ndarray, ratings: Sequence[float | None], keys: Sequence[str], *, in_units: bool
) -> AttributeSummary:
    kept = [place for place, rating in enumerate(ratings) if rating is not None]
    x, y = predicted[kept], np.array([ratings[place] for place in kept], dtype=float)
    groups = [keys[place] for place in kept]
    ordered, pairs = _pair_accuracy(x, y, groups)
    found = AttributeSummary(len(kept), pearson(x, y, groups), spearman(x, y, groups), ordered, pairs)
    if not (in_units and kept):
        return found
    slope = float(np.cov(x, y, bias=True)[0, 1] / np.var(x)) if np.ptp(x) > 0 else None
    return replace(found, rmse=float(np.sqrt(np.mean((x - y) ** 2))), bias=float(np.mean(x - y)), slope=slope)


def _pair_accuracy(x: np.ndarray, y: np.ndarray, groups: Sequence[str]) -> tuple[Estimate | None, int]:
    places = defaultdict(list)
    for place, group in enumerate(groups):
        places[group].append(place)
    outcomes, owners, weights = [], [], []
    for group, own in places.items():
        pairs = [(a, b) if y[a] > y[b] else (b, a) for a, b in combinations(own, 2) if y[a] != y[b]]
        outcomes += [float(x[a] > x[b]) + 0.5 * float(x[a] == x[b]) for a, b in pairs]
        owners += [group] * len(pairs)
        weights += [1 / len(pairs) for _ in pairs]
    return (accuracy(outcomes, owners, weights) if outcomes else None), len(outcomes)


def show_ratings(summary: RatingSummary, title: str) -> None:
    def told(estimate: Estimate | None) -> str:
        return f"{estimate:.3f}" if estimate else ""

    rows = [
        [name, one.n, told(one.pearson), told(one.spearman), told(one.pair_accuracy), one.rmse, one.bias, one.slope]
        for name, one in summary.attributes.items()
    ]
    columns = ["attribute", "n", "Pearson", "Spearman", "pairs of a prompt", "RMSE", "bias", "slope"]
    table(f"{title}: {summary.n_answers} answers to {summary.n_prompts} prompts", columns, rows)


def diagnose_ratings(summary: RatingSummary) -> list[str]:
    found = []
    for name, one in summary.attributes.items():
        if one.spearman is None:
            found.append(f"{name}: {one.n} ratings, or all alike: no correlation: add answers with other ratings")
        elif one.spearman.low <= 0 <= one.spearman.high:
            found.append(f"{name}: its correlation {one.spearman:.2f} may be chance: add answers, or train longer")
        elif one.spearman.high < 0:
            found.append(f"{name}: is predicted the wrong way round ({one.spearman:.2f}): check its column")
    return found
