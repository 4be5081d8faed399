"""What a line chart shows."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Series:
  """Points (x, y); those that are not finite are left out. color: a place in PALETTE, else that of the series."""

  name: str
  points: Sequence[tuple[float, float]]
  style: str = "line"
  color: int | None = None


@dataclass(frozen=True)
class Panel:
  title: str
  x_label: str
  y_label: str
  series: Sequence[Series] = ()
  doubling: bool = False
  """x on a logarithmic scale."""
