"""Bars as SVG text, for the pictures in the README: how many times faster, group by group."""

from __future__ import annotations

import matplotlib
from matplotlib.figure import Figure

from reward_modeling.evaluation.plots import PALETTE, SETTINGS, text_of

BAR, WIDTH = 0.16, 7.9
"""Height of a bar and width of the picture, in inches."""


def bars(title: str, groups: dict[str, dict[str, float]]) -> str:
  """One group of horizontal bars for each entry, one bar for each of its names; a line marks 1, where nothing is gained."""
  names = list(dict.fromkeys(name for values in groups.values() for name in values))
  step = len(names) + 1
  with matplotlib.rc_context({**SETTINGS, "axes.grid": False, "axes.spines.bottom": False}):
    figure = Figure(figsize=(WIDTH, BAR * (step * len(groups) + len(names) + 3)), layout="constrained")
    axis = figure.subplots()
    for place, name in enumerate(names):
      at = {step * i + place: values[name] for i, values in enumerate(groups.values()) if name in values}
      drawn = axis.barh(list(at), list(at.values()), height=0.9, color=PALETTE[place % len(PALETTE)], label=name)
      axis.bar_label(drawn, fmt="%.1f", padding=3)
    axis.axvline(1, color="#444444", linestyle=":", linewidth=1)
    axis.set_yticks([step * i + (len(names) - 1) / 2 for i in range(len(groups))], list(groups))
    axis.tick_params(left=False, bottom=False, labelbottom=False)
    axis.invert_yaxis()
    figure.suptitle(title, fontsize=10, fontweight="bold")
    figure.legend(loc="outside right upper", frameon=False)
  return text_of(figure)
