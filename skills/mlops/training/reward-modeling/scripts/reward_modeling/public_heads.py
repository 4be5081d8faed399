"""Heads of public reward models: hidden states -> numbers -> a reward. In fp32 whatever the trunk runs in.

A head is built of the shapes of its tensors in the checkpoint, so that no size is written twice. `forward` makes
[..., k] numbers of [..., H] hidden states, position by position, so rows can be packed; `combine` makes
[rows, 1 + attributes] of the [rows, positions, k] numbers of whole rows: the reward, then the attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .errors import ModelError

Shapes = Mapping[str, tuple[int, ...]]


def stack(width: int, shapes: Shapes, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """The layers whose tensors these are: `0.weight`, `0.bias`, `2.weight`, ... with the activation at the other numbers."""
    layers = nn.Sequential()
    for number in range(1 + max(int(name.split(".")[0]) for name in shapes)):
        weight = shapes.get(f"{number}.weight")
        if weight is None:
            layers.append(activation())
        elif f"{number}.running_mean" in shapes:
            layers.append(nn.BatchNorm1d(width))
        else:
            layers.append(nn.Linear(width, weight[0], bias=f"{number}.bias" in shapes))
            width = weight[0]
    return layers


def part(shapes: Shapes, name: str) -> Shapes:
    """The shapes of one part of a head, under their names in it."""
    return {key.removeprefix(f"{name}."): shape for key, shape in shapes.items() if key.startswith(f"{name}.")}


ATTRIBUTES = (
    *(f"helpsteer-{name}" for name in ("helpfulness", "correctness", "coherence", "complexity", "verbosity")),
    *(
        f"ultrafeedback-{name}"
        for name in ("overall_score", "instruction_following", "truthfulness", "honesty", "helpfulness")
    ),
    *("beavertails-is_safe", "prometheus-score", "argilla-overall_quality", "argilla-judge_lm"),
    *(f"code-{name}" for name in ("complexity", "style", "explanation", "instruction-following", "readability")),
)
"""Of ArmoRM (arXiv:2406.12845, table 1), of which the first five are HelpSteer2's."""


class Head(nn.Module):
    """What every head is made of. config: of the trunk; shapes: of its tensors; options: of its family."""

    attributes: tuple[str, ...] = ()

    def __init__(self, config: Any, shapes: Shapes, **options: Any):
        super().__init__()
        self.width, self.shapes = config.get_text_config().hidden_size, shapes
        try:
            self.build(config, **options)
        except (KeyError, ValueError) as error:  # a shape, or all shapes of a part, that are not there
            raise ModelError(
                f"the head lacks a tensor ({error}): it has {', '.join(sorted(shapes))}",
                hint="fetch all files of the model",
            ) from error

    def build(self, config: Any) -> None:
        raise NotImplementedError

    def numbers(self, hidden: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        flat = hidden.flatten(0, -2).to(next(self.parameters()).dtype)
        with torch.autocast(hidden.device.type, enabled=False):
            return self.numbers(flat).unflatten(0, hidden.shape[:-1])

    def combine(self, numbers: torch.Tensor) -> torch.Tensor:
        return numbers[:, -1, :1]


class Stack(Head):
    """One linear layer, or several with an activation between them."""

    def build(self, config: Any) -> None:
        for name, layer in stack(self.width, self.shapes).named_children():
            self.add_module(name, layer)

    def numbers(self, hidden: torch.Tensor) -> torch.Tensor:
        for layer in self.children():
            hidden = layer(hidden)
        return hidden


class StepLogits(Stack):
    """The log-odds of a step, or its two logits (incorrect, correct), at any position: rows have as many as steps."""

    combine = None


class Marked(Head):
    """A against B, of the states at the marks of source, A and B (LLM-Blender, arXiv:2306.02561, section 3.3)."""

    def build(self, config: Any) -> None:
        self.layers = stack(2 * self.width, part(self.shapes, "layers"), nn.Tanh)

    def numbers(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden

    def combine(self, numbers: torch.Tensor) -> torch.Tensor:
        source, first, second = numbers.unbind(1)
        first, second = (self.layers(torch.cat([source, answer], -1)) for answer in (first, second))
        return (first - second).mean(-1, keepdim=True)


class Second(Stack):
    """The second number, beside it the first, which is of length (ODIN, arXiv:2402.07319)."""

    attributes = ("length",)

    def combine(self, numbers: torch.Tensor) -> torch.Tensor:
        return numbers[:, -1].flip(-1)


class Difference(Stack):
    """The first number minus the second."""

    def combine(self, numbers: torch.Tensor) -> torch.Tensor:
        return numbers[:, -1, :1] - numbers[:, -1, 1:2]


class Probability(Difference):
    """The probability of the first of two logits."""

    def combine(self, numbers: torch.Tensor) -> torch.Tensor:
        return super().combine(numbers).sigmoid()


class Normalized(Stack):
    """One linear layer whose number is normalized by saved statistics, where the config says so; a cost is negated.

    Safe-RLHF shifts a reward and scales it, and only scales a cost (arXiv:2310.12773); OpenRLHF shifts and scales.
    """

    def build(self, config: Any, cost: bool = False) -> None:
        self.cost, self.attributes = cost, ("cost",) if cost else ()
        self.used = any(getattr(config, name, False) for name in ("do_normalize", "normalize_reward"))
        self.statistics = {name: getattr(config, name) for name in ("mean", "var", "std") if hasattr(config, name)}
        for name in self.shapes.keys() & {"mean", "var"}:
            self.register_buffer(name, torch.ones(self.shapes[name]))
        self.shapes = {name: shape for name, shape in self.shapes.items() if name[0].isdigit()}
        super().build(config)

    def numbers(self, hidden: torch.Tensor) -> torch.Tensor:
        number = super().numbers(hidden)
        if not self.used:
            return number
        saved = {name: number.new_tensor(value) for name, value in self.statistics.items()} | dict(self.named_buffers())
        shifted = number if self.cost else number - saved["mean"]
        return shifted / (saved["std"] if "std" in saved else saved["var"].sqrt() + 1e-8)

    def combine(self, numbers: torch.Tensor) -> torch.Tensor:
        number = numbers[:, -1, :1]
        return torch.cat([-number, number], 1) if self.cost else number


class Gated(Head):
    """Attributes at the last token, mixed by a softmax gate that reads another one (ArmoRM, arXiv:2406.12845, section 3.2).

    With quantiles an attribute is their mean (QRM, arXiv:2409.10164). adjusted: attributes after the transform.
    """

    def build(self, config: Any, adjusted: bool = False) -> None:
        self.adjusted = adjusted
        self.temperature = getattr(config, "gating_temperature", 10)
        self.objectives = stack(self.width, part(self.shapes, "objectives"))
        self.gate = stack(self.width, part(self.shapes, "gate"))
        self.transform = nn.Parameter(torch.empty(self.shapes["transform"]))
        self.scale = nn.Parameter(torch.ones(self.shapes["scale"]))
        self.attributes = ATTRIBUTES[: len(self.transform)]

    def numbers(self, hidden: torch.Tensor) -> torch.Tensor:
        quantiles = self.objectives(hidden).unflatten(-1, (len(self.transform), -1))
        return torch.cat([quantiles.mean(-1), self.gate(hidden)], -1)

    def combine(self, numbers: torch.Tensor) -> torch.Tensor:
        attributes, gate = numbers[:, -1].chunk(2, -1)[0], numbers[:, 0].chunk(2, -1)[1]
        weights = torch.softmax(gate / self.temperature, -1) * self.scale[0]
        adjusted = attributes @ self.transform
        reward = (weights * adjusted).sum(-1, keepdim=True)
        return torch.cat([reward, adjusted if self.adjusted else attributes], -1)


class Weighted(Head):
    """Means and spreads of attributes, of which the means are summed with weights, fixed or of a network (URM, arXiv:2410.00847)."""

    attributes = ATTRIBUTES[:5]

    def build(self, config: Any, weights: tuple[float, ...] = ()) -> None:
        self.fixed = weights
        self.objectives = stack(self.width, part(self.shapes, "objectives"))
        gate = part(self.shapes, "gate")
        self.gate = stack(self.width, gate, nn.SELU) if gate else None

    def numbers(self, hidden: torch.Tensor) -> torch.Tensor:
        means = self.objectives(hidden)[:, ::2]
        weights = self.gate(hidden) if self.gate else means.new_tensor(self.fixed).expand_as(means)
        return torch.cat([means, weights], -1)

    def combine(self, numbers: torch.Tensor) -> torch.Tensor:
        means, weights = numbers[:, -1].chunk(2, -1)
        return torch.cat([(means * weights).sum(-1, keepdim=True), means], -1)
