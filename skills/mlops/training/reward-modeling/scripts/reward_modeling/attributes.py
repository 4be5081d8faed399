"""Heads of rated attributes: what their logits say in units of the ratings, and one reward of all, by weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

CARD_KEY = "attributes"
"""Key of a card."""


@dataclass(frozen=True)
class Attribute:
    """objective: that it was trained by. mean, std: of its ratings, by which regression is standardized.

    levels: of ordinal regression, whose logits are the log-odds that the rating is above each but the last.
    """

    name: str
    objective: str
    weight: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    levels: tuple[float, ...] = ()

    @property
    def labels(self) -> list[str]:
        """One a logit."""
        return [f"{self.name} > {level:g}" for level in self.levels[:-1]] or [self.name]

    def value(self, logits: Tensor) -> Tensor:
        """[...] ratings (of binary labels: log-odds) of [..., own labels] logits; ordinal ones are expected values."""
        if self.levels:
            return self.levels[0] + (logits.sigmoid() * logits.new_tensor(self._steps)).sum(-1)
        return self.mean + self.std * logits[..., 0]

    @property
    def slopes(self) -> list[float]:
        """Of the value by each logit, where it is 0."""
        return [step / 4 for step in self._steps] or [self.std]

    @property
    def _steps(self) -> list[float]:
        return [high - low for low, high in pairwise(self.levels)]


Attributes = tuple[Attribute, ...]


def labels_of(attributes: Attributes) -> list[str]:
    return [label for one in attributes for label in one.labels]


def by_head(logits: Tensor, attributes: Attributes) -> Sequence[Tensor]:
    return logits.split([len(one.labels) for one in attributes], -1)


def combined(logits: Tensor, attributes: Attributes) -> Tensor:
    """[n, 1 + attributes] the reward and the value of each attribute, of [n, labels] logits."""
    import torch

    parts = by_head(logits, attributes)
    values = torch.stack([one.value(part) for one, part in zip(attributes, parts, strict=True)], -1)
    weights = values.new_tensor([one.weight for one in attributes])
    return torch.cat([(values * weights).sum(-1, keepdim=True), values], -1)


def reweighted(attributes: Attributes, weights: Mapping[str, float]) -> Attributes:
    """An attribute without a weight does not count."""
    return tuple(replace(one, weight=weights.get(one.name, 0.0)) for one in attributes)


def collapsed(weight: Tensor, attributes: Attributes) -> Tensor:
    """[1, H] of a [labels, H] head: the reward up to its zero; of ordinal regression, its tangent at logits of 0."""
    slopes = [one.weight * slope for one in attributes for slope in one.slopes]
    return (weight.new_tensor(slopes)[:, None] * weight).sum(0, keepdim=True)


def same_heads(one: Attributes, other: Attributes) -> bool:
    return [(a.name, a.objective, a.levels) for a in one] == [(b.name, b.objective, b.levels) for b in other]


def to_card(attributes: Attributes) -> list[dict[str, Any]]:
    return [asdict(one) for one in attributes]


def of_card(card: Mapping[str, Any] | None) -> Attributes:
    """Raises TypeError and ValueError for what no card of ours says."""
    made = []
    for entry in (card or {}).get(CARD_KEY) or ():
        numbers = {name: float(entry[name]) for name in ("weight", "mean", "std")}
        levels = tuple(map(float, entry["levels"]))
        made.append(Attribute(str(entry["name"]), str(entry["objective"]), **numbers, levels=levels))
    return tuple(made)
