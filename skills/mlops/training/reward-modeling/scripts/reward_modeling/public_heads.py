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


class Head(nn.Module):
    """What every head is made of. config: of the trunk; shapes: of its tensors; options: of its family."""

    attributes: tuple[str, ...] = ()

    def __init__(self, config: Any, shapes: Shapes, **options: Any):
        super().__init__()
        self.width, self.shapes = config.get_text_config().hidden_size, shapes
        self.build(config, **options)

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


class Steps(Stack):
    """The log-odds of a step, or its two logits (incorrect, correct), at any position: rows have as many as steps."""

    combine = None


class Validity(Steps):
    """The log-odds that a step is not of the first of three classes (ReasonEval, arXiv:2404.05692, section 3.1)."""

    def numbers(self, hidden: torch.Tensor) -> torch.Tensor:
        wrong, *valid = super().numbers(hidden).split(1, -1)
        return torch.cat(valid, -1).logsumexp(-1, keepdim=True) - wrong


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
