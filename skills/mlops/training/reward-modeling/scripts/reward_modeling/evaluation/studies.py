"""The curves of a run: its points, what was fitted to them, and where the reward that was meant is highest."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

GOLD = "Gold: the reward that was meant, as by people, a larger model or a verifier; proxy: the one that was maximized."


@dataclass(frozen=True)
class Point:
  kl: float
  proxy: float
  gold: float
  n: int | None
  """Of best-of-n."""


class Form(NamedTuple):
  """R(d) = alpha d - beta second(d). peak: (alpha, beta > 0) -> the d at which R is highest."""

  second: Callable[[float], float]
  peak: Callable[[float, float], float]
  formula: str


FORMS: dict[str, Form] = {
  "best_of_n": Form(lambda d: d * d, lambda a, b: a / (2 * b), "d(a - b d)"),
  "rl": Form(lambda d: d * math.log(d) if d > 0 else 0.0, lambda a, b: math.exp(a / b - 1), "d(a - b log d)"),
}


@dataclass(frozen=True)
class Fit:
  form: str
  formula: str
  alpha: float
  beta: float
  rmse: float
  """Of the residuals at KL above zero."""
  start: float
  """R's zero, the reward of the initial policy."""
  peak_kl: float | None
  """The KL at which the curve is highest; null when it only rises or only falls."""
  residuals: list[float]
  """At every point."""
  extrapolated: bool = False
  """The peak lies beyond all points."""

  def __call__(self, kl: float) -> float:
    d = math.sqrt(max(kl, 0.0))
    return self.start + self.alpha * d - self.beta * FORMS[self.form].second(d)


@dataclass(frozen=True)
class Study:
  name: str
  form: str
  points: list[Point]
  proxy: Fit | None
  gold: Fit | None
  best: Point
  """Where gold is highest."""
  overoptimized: bool
  """Gold ends below its best by more than a twentieth of its best gain, while proxy rose on."""
