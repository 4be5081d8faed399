"""Line charts as SVG, by matplotlib, which is imported when something is drawn."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from .panels import Panel

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Of Okabe and Ito, for the color-blind too."""
STYLES = {"line": {"linestyle": "-"}, "dashed": {"linestyle": "--"}, "dots": {"linestyle": "", "marker": "."}}
PANEL = (4.4, 3.2)  # inches
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
LARGEST_DRAWN = 1e100
"""Axes multiply values: beyond it one is left out as infinite ones are."""
SETTINGS = {
  "font.size": 8,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.grid": True,
  "grid.color": "#e4e4e4",
  "axes.axisbelow": True,
  "lines.linewidth": 1.4,
  "text.parse_math": False,  # a name may hold dollars
  "svg.fonttype": "none",  # text stays text: small, and can be searched
  "svg.hashsalt": "reward modeling",  # the same picture is the same file
}


def draw_panels(panels: Sequence[Panel]) -> Figure:
  import matplotlib
  from matplotlib.figure import Figure

  columns, rows = min(2, len(panels) or 1), (len(panels) + 1) // 2 or 1
  with matplotlib.rc_context(SETTINGS):
    figure = Figure(figsize=(columns * PANEL[0], rows * PANEL[1]), layout="constrained")
    for axis, panel in zip_longest(figure.subplots(rows, columns, squeeze=False).flat, panels):
      _draw_panel(axis, panel) if panel else axis.set_axis_off()
  return figure


def _draw_panel(axis: Axes, panel: Panel) -> None:
  named = {}
  for number, series in enumerate(panel.series):
    points = [point for point in series.points if all(abs(value) < LARGEST_DRAWN for value in point)]  # no NaN
    style = STYLES["dots" if len(points) < 2 else series.style]
    color = PALETTE[(number if series.color is None else series.color) % len(PALETTE)]
    (drawn,) = axis.plot([x for x, _ in points], [y for _, y in points], color=color, **style)
    if series.name and points:
      named[drawn] = series.name
  if panel.doubling:
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter("{x:g}")
  axis.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
  if named:
    axis.legend(named.keys(), named.values(), frameon=False)


def svg(panels: Sequence[Panel]) -> str:
  return text_of(draw_panels(panels))


def text_of(figure: Figure) -> str:
  """The same for the same figure: without a date, and without the lines before `<svg`."""
  import matplotlib

  text = io.StringIO()
  with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
    warnings.simplefilter("ignore")  # a letter that the font for measuring lacks
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
  found = text.getvalue()
  return NOT_XML.sub(" ", found[found.index("<svg") :])
