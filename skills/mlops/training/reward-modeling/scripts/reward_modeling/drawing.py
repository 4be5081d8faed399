"""Line charts as SVG text: the picture of a run, without a plotting library.

panel = Panel("reward", "update", "reward", [Series("gold", [(0, 0.1), (1, 0.4)])])
write_whole("run.svg", [svg_lines([panel])])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

STYLES = {"line": "", "dashed": 'stroke-dasharray="6 4"', "dots": ""}
"""How the points of a series are joined; `dots` are not."""

# The colours of Okabe and Ito, which the colour-blind can tell apart too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 52, 40
TICKS = 5


@dataclass(frozen=True)
class Series:
    """Points (x, y) under one name, "" for none. colour: a place in COLOURS, else that of the series in its panel."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "line"
    colour: int | None = None


@dataclass(frozen=True)
class Panel:
    """One chart: a title, axis labels, any number of series."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series] = field(default_factory=tuple)


def svg_lines(panels: Sequence[Panel], columns: int = 2) -> str:
    """The panels side by side, `columns` in a row. Points that are no finite numbers are left out."""
    columns = max(1, min(columns, len(panels)))
    rows = math.ceil(len(panels) / columns)
    width, height = columns * WIDTH, max(1, rows) * HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for place, panel in enumerate(panels):
        x, y = (place % columns) * WIDTH, (place // columns) * HEIGHT
        parts += [f'<g transform="translate({x} {y})">', *_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>"])


def ticks(low: float, high: float, about: int = TICKS) -> list[float]:
    """Round numbers from within [low, high]: steps of 1, 2 or 5 times a power of ten.

    >>> ticks(0, 9)
    [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _panel(panel: Panel) -> list[str]:
    shown = [
        (series, [(x, y) for x, y in series.points if math.isfinite(x) and math.isfinite(y)]) for series in panel.series
    ]
    parts = [f'<text x="{LEFT}" y="18" font-size="13" font-weight="bold">{escape(panel.title)}</text>']
    points = [point for _, kept in shown for point in kept]
    if not points:
        return [*parts, f'<text x="{LEFT}" y="{HEIGHT // 2}">nothing to show</text>']
    (left, right), (low, high) = (_range([point[axis] for point in points]) for axis in (0, 1))

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - left) / (right - left), (y - low) / (high - low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts += _axes(panel, (left, right), (low, high), place)
    legend_x = LEFT
    for number, (series, kept) in enumerate(shown):
        colour = COLOURS[(number if series.colour is None else series.colour) % len(COLOURS)]
        parts += _curve(series.style, colour, [place(*point) for point in kept])
        if series.name:
            parts += _legend(series, colour, legend_x)
            legend_x += 30 + 6 * len(series.name)
    return parts


def _range(values: Sequence[float]) -> tuple[float, float]:
    """From the least to the largest value with a little room; never empty."""
    low, high = min(values), max(values)
    room = 0.04 * (high - low) or 0.5 * max(abs(high), 1.0)
    return low - room, high + room


def _axes(panel: Panel, across: tuple[float, float], up: tuple[float, float], place) -> list[str]:
    parts, right, bottom = [], WIDTH - RIGHT, HEIGHT - BOTTOM
    for value in ticks(*up):
        _, y = place(across[0], value)
        parts.append(f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in ticks(*across):
        x, _ = place(value, up[0])
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#666"/>')
    middle = (LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(panel.x_label)}</text>')
    turned = f'transform="rotate(-90 14 {(TOP + bottom) / 2})"'
    label = f'<text x="14" y="{(TOP + bottom) / 2}" text-anchor="middle" {turned}>{escape(panel.y_label)}</text>'
    return [*parts, label]


def _curve(style: str, colour: str, places: Sequence[tuple[float, float]]) -> list[str]:
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in places]
    if style == "dots" or len(places) < 2:
        return dots
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return [f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6" {STYLES[style]}/>']


def _legend(series: Series, colour: str, x: float) -> list[str]:
    mark = (
        f'<circle cx="{x + 8}" cy="34" r="2.5" fill="{colour}"/>'
        if series.style == "dots"
        else f'<line x1="{x}" x2="{x + 16}" y1="34" y2="34" stroke="{colour}" stroke-width="1.6" {STYLES[series.style]}/>'
    )
    return [mark, f'<text x="{x + 20}" y="38">{escape(series.name)}</text>']
