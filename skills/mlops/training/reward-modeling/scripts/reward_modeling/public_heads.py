"""Heads of public reward models, built of the shapes of their tensors, in fp32.

`forward`: [..., H] states -> [..., k]; `combine`: [rows, positions, k] -> [rows, 1 + attributes], the reward first."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .errors import ModelError
from .hf import Config

ATTRIBUTES = tuple(
  f"{data}-{name}"
  for data, names in {
    "helpsteer": "helpfulness correctness coherence complexity verbosity",
    "ultrafeedback": "overall_score instruction_following truthfulness honesty helpfulness",
    "beavertails": "is_safe",
    "prometheus": "score",
    "argilla": "overall_quality judge_lm",
    "code": "complexity style explanation instruction-following readability",
  }.items()
  for name in names.split()
)
"""Of ArmoRM (arXiv:2406.12845, table 1), of which the first five are HelpSteer2's."""


class Head(nn.Module):
  attributes: tuple[str, ...] = ()
  activation: type[nn.Module] = nn.ReLU

  def __init__(self, config: Config, shapes: Mapping[str, tuple[int, ...]], **options: Any):
    super().__init__()
    self.width, self.shapes = config.hidden_size, shapes
    try:
      self.build(config, **options)
    except (KeyError, ValueError) as error:  # a shape, or all shapes of a part, that are not there
      what = f"the head lacks a tensor ({error}): it has {', '.join(sorted(shapes))}"
      raise ModelError(what, hint="fetch all files of the model") from error

  def layers(self, name: str = "", width: int | None = None) -> nn.Sequential:
    """Of NAME0.weight, NAME0.bias, NAME2.weight, ...; between them an activation, then dropout. width: of the input."""
    found, width, own = nn.Sequential(), width or self.width, self.shapes
    numbers = [int(key.removeprefix(name).split(".")[0]) for key in own if re.match(rf"{name}\d+\.", key)]
    for number in range(1 + max(numbers)):
      weight = own.get(f"{name}{number}.weight")
      if weight is None:
        found.append(self.activation() if number and isinstance(found[-1], nn.Linear) else nn.Identity())
      elif f"{name}{number}.running_mean" in own:
        found.append(nn.BatchNorm1d(width))
      else:
        found.append(nn.Linear(width, weight[0], bias=f"{name}{number}.bias" in own))
        width = weight[0]
    return found

  def forward(self, hidden: Tensor) -> Tensor:
    flat = hidden.flatten(0, -2).to(next(self.parameters()).dtype)
    with torch.autocast(hidden.device.type, enabled=False):
      return self.numbers(flat).unflatten(0, hidden.shape[:-1])

  def combine(self, numbers: Tensor) -> Tensor:
    return numbers[:, -1, :1]


class Stack(Head):
  """One linear layer, or several with an activation between them."""

  outputs: tuple[int, ...] = (1,)

  def build(self, config: Config) -> None:
    layers = self.layers()
    if (found := layers[-1].out_features) not in self.outputs:
      raise ModelError(f"the head gives {found} numbers, of which none is known to be the reward")
    for name, layer in layers.named_children():
      self.add_module(name, layer)

  def numbers(self, hidden: Tensor) -> Tensor:
    for layer in self.children():
      hidden = layer(hidden)
    return hidden


class StepLogits(Stack):
  """The log-odds of a step, or its two logits (incorrect, correct), at any number of positions."""

  outputs = (1, 2)
  combine = None


class Validity(StepLogits):
  """The log-odds that a step is not the first of three classes, negative, neutral and positive (arXiv:2404.05692)."""

  outputs = (3,)

  def numbers(self, hidden: Tensor) -> Tensor:
    wrong, *right = super().numbers(hidden).unbind(-1)
    return (torch.logaddexp(*right) - wrong)[..., None]


class Sigmoid(Stack):
  def combine(self, numbers: Tensor) -> Tensor:
    return super().combine(numbers).sigmoid()


class Difference(Stack):
  outputs = (2,)

  def combine(self, numbers: Tensor) -> Tensor:
    return numbers[:, -1, :1] - numbers[:, -1, 1:]


class Probability(Sigmoid, Difference):
  pass


class Normalized(Stack):
  """A linear layer normalized by saved statistics, where the config says so; a cost is negated, and only scaled (Safe-RLHF,
  arXiv:2310.12773; OpenRLHF)."""

  def build(self, config: Config, cost: bool = False) -> None:
    self.cost, self.attributes = cost, ("cost",) if cost else ()
    self.used = getattr(config, "do_normalize", False) or getattr(config, "normalize_reward", False)
    self.statistics = {name: getattr(config, name) for name in ("mean", "var", "std") if hasattr(config, name)}
    for name in self.shapes.keys() & {"mean", "var"}:
      self.register_buffer(name, torch.ones(self.shapes[name]))
    super().build(config)

  def numbers(self, hidden: Tensor) -> Tensor:
    number = super().numbers(hidden)
    if not self.used:
      return number
    saved = {name: number.new_tensor(value) for name, value in self.statistics.items()} | dict(self.named_buffers())
    shifted = number if self.cost else number - saved["mean"]
    return shifted / (saved["std"] if "std" in saved else saved["var"].sqrt() + 1e-8)

  def combine(self, numbers: Tensor) -> Tensor:
    number = numbers[:, -1]
    return torch.cat([-number, number], 1) if self.cost else number


class Marked(Head):
  """A against B, by the states at the marks of source, A and B (arXiv:2306.02561, section 3.3)."""

  activation = nn.Tanh

  def build(self, config: Config) -> None:
    self.pair = self.layers("pair.", 2 * self.width)

  def numbers(self, hidden: Tensor) -> Tensor:
    return hidden

  def combine(self, numbers: Tensor) -> Tensor:
    source, first, second = numbers.unbind(1)
    first, second = (self.pair(torch.cat([source, answer], -1)) for answer in (first, second))
    return (first - second).mean(-1, keepdim=True)


class Embedding(Head):
  """Of each answer a unit vector of pairs of numbers, times the root of their weights, read at the end of the prompt: one beats
  another by the sum of the cross products of pairs, over a temperature of 0.1 (arXiv:2410.02197, section 4)."""

  def build(self, config: Config) -> None:
    self.value, self.prompt = self.layers("value."), self.layers("prompt.")
    if (size := self.value[-1].out_features) != 2 * self.prompt[-1].out_features:
      raise ModelError(f"the head gives {size} numbers, which are not pairs with a weight each")

  def numbers(self, hidden: Tensor) -> Tensor:
    return torch.cat([self.value(hidden), self.prompt(hidden).softmax(-1)], -1)

  def combine(self, numbers: Tensor) -> Tensor:
    size = 2 * numbers.shape[-1] // 3
    own, weights = nn.functional.normalize(numbers[:, -1, :size], dim=-1), numbers[:, 0, size:]
    return own * (10 * weights).sqrt().repeat_interleave(2, -1)


class Weighted(Head):
  """Means of attributes beside their spreads, summed with weights, fixed or of a gate (URM, arXiv:2410.00847)."""

  attributes, activation = ATTRIBUTES[:5], nn.SELU

  def build(self, config: Config, weights: tuple[float, ...] = ()) -> None:
    self.fixed = weights
    self.objectives, self.gate = self.layers("objectives."), None if weights else self.layers("gate.")

  def mean_of(self, values: Tensor) -> Tensor:
    return values[..., 0]

  def numbers(self, hidden: Tensor) -> Tensor:
    means = self.mean_of(self.objectives(hidden).unflatten(-1, (len(self.attributes), -1)))
    weights = self.gate(hidden) if self.gate else means.new_tensor(self.fixed).expand_as(means)
    return torch.cat([means, weights], -1)

  def combine(self, numbers: Tensor) -> Tensor:
    means, weights = numbers[:, -1].chunk(2, -1)
    return torch.cat([(means * weights).sum(-1, keepdim=True), means], -1)


class Gated(Weighted):
  """Attributes, mixed by the softmax of a gate that reads another token (ArmoRM, arXiv:2406.12845, section 3.2); of quantiles their
  mean (QRM, arXiv:2409.10164). adjusted: attributes after the transform. plain: there is none."""

  activation = nn.ReLU

  def build(self, config: Config, adjusted: bool = False, plain: bool = False) -> None:
    super().build(config)
    self.adjusted, self.temperature = adjusted, getattr(config, "gating_temperature", 1 if plain else 10)
    self.transform = None if plain else nn.Parameter(torch.empty(self.shapes["transform"]))
    self.scale = nn.Parameter(torch.ones(self.shapes["scale"]))
    self.attributes = ATTRIBUTES[: self.gate[-1].out_features]

  def mean_of(self, values: Tensor) -> Tensor:
    return values.mean(-1)

  def combine(self, numbers: Tensor) -> Tensor:
    attributes, gate = numbers[:, -1].chunk(2, -1)[0], numbers[:, 0].chunk(2, -1)[1]
    weights = torch.softmax(gate / self.temperature, -1) * self.scale[0]
    adjusted = attributes if self.transform is None else attributes @ self.transform
    reward = (weights * adjusted).sum(-1, keepdim=True)
    return torch.cat([reward, adjusted if self.adjusted else attributes], -1)


class Distributions(Weighted):
  """Of each objective a distribution over ten levels from 0 to 1, and a weight (LDL-Reward)."""

  activation = nn.LeakyReLU

  def build(self, config: Config) -> None:
    super().build(config)
    self.attributes = tuple(f"objective-{number}" for number in range(1, 1 + self.gate[-1].out_features))
    self.temperature = getattr(config, "softmax", False) and getattr(config, "temperature", 1.0)

  def mean_of(self, values: Tensor) -> Tensor:
    return values.softmax(-1) @ torch.linspace(0, 1, values.shape[-1], dtype=values.dtype, device=values.device)

  def numbers(self, hidden: Tensor) -> Tensor:
    means, weights = super().numbers(hidden).chunk(2, -1)
    return torch.cat([means, (weights / self.temperature).softmax(-1) if self.temperature else weights], -1)
