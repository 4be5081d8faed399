"""Heads of rated attributes: what their logits say in units of the ratings, and one reward of all, by weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from .hf import Tensor


@dataclass(frozen=True)
class Attribute:
  """mean, std: of its ratings, by which regression is standardized. levels: of ordinal regression, whose logits are the
  log-odds that the rating is above each but the last.
  """

  name: str
  objective: str
  weight: float = 1.0
  mean: float = 0.0
  std: float = 1.0
  levels: Sequence[float] = ()

  @property
  def labels(self) -> list[str]:
    return [f"{self.name} > {level:g}" for level in self.levels[:-1]] or [self.name]

  @property
  def steps(self) -> list[float]:
    return [high - low for low, high in pairwise(self.levels)]

  def value(self, logits: Tensor) -> Tensor:
    """[n] ratings, expected ones of levels, or of binary labels log-odds, of [n, labels] logits."""
    if self.levels:
      return self.levels[0] + (logits.sigmoid() * logits.new_tensor(self.steps)).sum(-1)
    return self.mean + self.std * logits[:, 0]


Attributes = tuple[Attribute, ...]


def labels_of(attributes: Attributes) -> list[str]:
  return [label for one in attributes for label in one.labels]


def by_head(logits: Tensor, attributes: Attributes) -> Sequence[Tensor]:
  return logits.split([len(one.labels) for one in attributes], -1)


def combined(logits: Tensor, attributes: Attributes) -> Tensor:
  """[n, 1 + attributes] the reward and the value of each attribute, of [n, labels] logits."""
  values = [one.value(own) for one, own in zip(attributes, by_head(logits, attributes), strict=True)]
  reward = sum(one.weight * value for one, value in zip(attributes, values, strict=True))
  import torch

  return torch.stack([reward, *values], -1)


def reweighted(attributes: Attributes, weights: Mapping[str, float]) -> Attributes:
  return tuple(replace(one, weight=weights.get(one.name, 0.0)) for one in attributes)


def collapsed(weight: Tensor, attributes: Attributes) -> Tensor:
  """[1, H] of a [labels, H] head: the reward up to its zero; with levels, its tangent where all logits are 0."""
  slopes = [one.weight * slope for one in attributes for slope in [step / 4 for step in one.steps] or [one.std]]
  return weight.new_tensor([slopes]) @ weight


def of_card(card: Mapping[str, Sequence[Mapping[str, object]]] | None) -> Attributes:
  """Raises TypeError for what no card says."""
  return tuple(Attribute(**entry) for entry in (card or {}).get("attributes") or ())
