"""Rated answers for training: a head for each attribute, by regression, ordinal regression or cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..attributes import Attribute, Attributes, reweighted, same_heads
from ..checkpoints import saved_attributes
from ..data.audit import audit
from ..data.reading import load
from ..data.records import Rated, check_attributes, comparisons, rated_answers, rated_names
from ..errors import DataError, UsageError
from ..rendering import Conversation, Renderer
from ..terminal import listed, log
from .data import CHUNK, Data, Rows, read_data, settle_refused
from .objectives import OBJECTIVES
from .pairs import Pairs
from .settings import DataSettings, Settings

if TYPE_CHECKING:
    import torch

MOST_LEVELS = 20
RIDGE = 1e-3
"""Of fitted weights of standardized attributes: pairs that no weights contradict would make them infinite."""


def learner_of(given: Pairs) -> Pairs:
    """The settings as what their objective learns from."""
    if OBJECTIVES[given.objective].takes == "pairs":
        return given
    return Ratings(**{one.name: getattr(given, one.name) for one in fields(given)})


@dataclass(frozen=True, kw_only=True)
class Ratings(Pairs):
    """An outcome reward model with a head for each attribute, for `runs.train`."""

    @property
    def loss(self) -> dict[str, Any]:
        return {"objective": self.objective, "attributes": [one.name for one in self.heads]}

    def read(self, settings: DataSettings) -> Data:
        for given, name in (
            (self.folds, "folds"),
            (settings.report, "report"),
            (self.label_smoothing, "label_smoothing"),
        ):
            if given:
                raise UsageError(f"--{name} is for pairs, --objective {self.objective} learns from ratings")
        if self.attribute_weights and self.fit_attribute_weights:
            raise UsageError(
                "--attribute_weights and --fit_attribute_weights exclude each other", hint="give one of them"
            )
        data, _ = read_data(settings, "answers", rated_answers)
        names = rated_names(data.train)
        check_attributes(self.attributes or (), names, "attributes")
        chosen = tuple(self.attributes or names)
        data = replace(data, train=_of(data.train, chosen), held_out=_of(data.held_out, chosen))
        self._check(data.train)
        findings = audit(data.train, eval_records=data.held_out or None, rendered=settings.rendered)
        data = data.audited(findings, settings)
        known = [row for row in data.train if set(row.ratings.values()) != {None}]
        if unrated := len(data.train) - len(known):
            data = replace(data, train=known, set_aside=data.set_aside | {"without ratings": unrated})
        return data.split(settings)

    def _check(self, rows: Sequence[Rated]) -> None:
        """Raises DataError for ratings that the objective or --rating_range does not have."""
        low, high = self.rating_range or (-np.inf, np.inf)
        for row in rows:
            for name, value in row.ratings.items():
                if value is not None and not low <= value <= high:
                    what = f"`{name}` is {value:g}, outside of --rating_range {low:g} {high:g}"
                    raise DataError(what, where=row.origin, hint="fix the row, or widen the range")
                if self.objective == "binary" and value not in (None, 0, 1):
                    what = f"`{name}` is {value:g}: --objective binary learns from 0 and 1, true and false"
                    raise DataError(what, where=row.origin, hint="choose --objective regression or ordinal for ratings")

    def prepared(self, data: Data, settings: Settings) -> Ratings:
        names = rated_names(data.train)
        ratings = {name: [v for row in data.train if (v := row.ratings.get(name)) is not None] for name in names}
        check_attributes(self.attribute_weights or (), names, "attribute_weights")
        heads = tuple(self._head(name, values, len(names)) for name, values in ratings.items())
        saved = saved_attributes(settings.model_name_or_path)
        if same_heads(saved, heads):  # whose scale its logits have
            heads = saved
        if self.attribute_weights:
            heads = reweighted(heads, self.attribute_weights)
        elif len(heads) > 1 and heads is not saved and not self.fit_attribute_weights:
            log("the reward is the mean of all attributes: --attribute_weights says what each counts")
        told = (
            f"{name}: {len(own)} ratings, mean {np.mean(own):.3g}, std {np.std(own):.3g}"
            for name, own in ratings.items()
        )
        log("; ".join(told))
        return replace(self, heads=heads)

    def _head(self, name: str, values: list[float], several: int) -> Attribute:
        head = Attribute(name, self.objective, 1 / several)
        if self.objective == "regression":
            return replace(head, mean=float(np.mean(values)), std=float(np.std(values)) or 1.0)
        levels = tuple(sorted(set(values)))
        if self.objective == "ordinal" and not 1 < len(levels) <= MOST_LEVELS:
            what = f"`{name}` has {len(levels)} different ratings, --objective ordinal takes 2 to {MOST_LEVELS}"
            raise DataError(what, hint="choose --objective regression, or others with --attributes")
        return replace(head, levels=levels) if self.objective == "ordinal" else head

    def render(self, records: Sequence[Rated], renderer: Renderer, drop: bool, *, held_out: bool = False) -> Rows:
        from datasets import Dataset

        names, rows, kept, refused = [one.name for one in self.heads], [], [], []
        before = dict(renderer.counts)
        for start in range(0, len(records), CHUNK):
            part = records[start : start + CHUNK]
            asked = [Conversation(one.prompt, one.completion, one.tools, one.origin) for one in part]
            for one, done in zip(part, renderer.render_all(asked, refused), strict=True):
                if done is not None:
                    rows.append({"sequences": [done.ids], "targets": [[one.ratings.get(name) for name in names]]})
                    kept.append(one)
        counts = {"answers": len(records), "dropped_over_length": len(records) - len(kept) - len(refused)}
        if refused:
            settle_refused(refused, len(records), f"{len(refused)} answers", drop)
            counts["dropped_refused"] = len(refused)
        if not rows:
            what = f"no answer is left of {len(records)}: at most {renderer.max_length} tokens are read"
            raise DataError(what, hint="raise --max_length, or choose --overlong truncate_left")
        counts |= {"truncated": renderer.counts["truncated"] - before.get("truncated", 0), "answers_used": len(kept)}
        return Rows(Dataset.from_list(rows), kept, counts, f"{len(kept)} answers")

    def found(self, rows: Rows, renderer: Renderer) -> dict[str, Any]:
        log(f"rendered: {listed(rows.counts)}; longest allowed {renderer.max_length} tokens, {listed(renderer.counts)}")
        return {}

    def _trainer(self) -> tuple[type, dict[str, Any]]:
        from .outcome import RatingTrainer

        return RatingTrainer, {"heads": self.heads}

    def weighed(self, model: torch.nn.Module, renderer: Renderer, settings: Settings) -> Attributes:
        """The heads, with weights fitted on pairs where --fit_attribute_weights asks."""
        if not self.fit_attribute_weights:
            return self.heads
        from ..scoring import RewardModel

        pairs = comparisons(load(self.fit_attribute_weights, winner_values=self.winner_values))
        scorer = RewardModel(model, renderer, attributes=self.heads)
        sides = [Conversation(one.prompt, side, one.tools) for one in pairs for side in (one.chosen, one.rejected)]
        values = scorer.score_attributes(sides)
        both = [(a[1:], b[1:]) for a, b in zip(values[::2], values[1::2], strict=True) if a and b]
        if not both:
            raise DataError("no pair of --fit_attribute_weights could be scored", hint="raise --max_length")
        chosen, rejected = (np.array(side) for side in zip(*both, strict=True))
        weights = fitted_weights(chosen - rejected)
        right = float(np.mean((chosen - rejected) @ weights > 0))
        told = ", ".join(f"{one.name} {weight:.3g}" for one, weight in zip(self.heads, weights, strict=True))
        log(f"weights fitted on {len(both)} of {len(pairs)} pairs, of which they order {right:.1%}: {told}")
        return reweighted(self.heads, dict(zip([one.name for one in self.heads], weights.tolist(), strict=True)))


def _of(rows: Sequence[Rated], names: Sequence[str]) -> list[Rated]:
    return [replace(row, ratings={name: row.ratings.get(name) for name in names}) for row in rows]


def fitted_weights(differences: np.ndarray) -> np.ndarray:
    """[K] weights by which the Bradley-Terry loss of [n, K] chosen less rejected values is least, by Newton's method."""
    scale = np.sqrt(np.mean(differences**2, 0)) + 1e-12
    x = differences / scale
    weights = np.zeros(x.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(x @ weights))
        gradient = RIDGE * weights - x.T @ p / len(x)
        hessian = RIDGE * np.eye(len(weights)) + (x.T * (p * (1 - p))) @ x / len(x)
        step = np.linalg.solve(hessian, gradient)
        weights -= step / max(1.0, np.abs(step).max())
    return weights / scale
