"""Bars as SVG text, for the pictures in the README: how many times faster, group by group."""

from __future__ import annotations

from html import escape

BAR, GAP, LABEL, WIDTH, SCALE_END = 15, 14, 210, 760, 470
# The colours of Okabe and Ito, which the colour-blind can tell apart too.
COLOURS = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#CC79A7", "#999999")


def bars(title: str, groups: dict[str, dict[str, float]]) -> str:
    """One group of horizontal bars for each entry, one bar for each of its names; a line marks 1, where nothing is gained."""
    names = list(dict.fromkeys(name for values in groups.values() for name in values))
    unit = SCALE_END / max(value for values in groups.values() for value in values.values())
    top, parts = 34 + 18 * len(names), []
    y = top
    for group, values in groups.items():
        middle = y + BAR * len(values) / 2 + 4
        parts.append(f'<text x="{LABEL - 10}" y="{middle:.0f}" text-anchor="end">{escape(group)}</text>')
        for name, value in values.items():
            colour = COLOURS[names.index(name) % len(COLOURS)]
            parts.append(
                f'<rect x="{LABEL}" y="{y}" width="{value * unit:.1f}" height="{BAR - 2}" fill="{colour}"/>'
                f'<text x="{LABEL + value * unit + 5:.1f}" y="{y + BAR - 4}">{value:.1f}</text>'
            )
            y += BAR
        y += GAP
    legend = [
        f'<rect x="{LABEL}" y="{32 + 18 * i}" width="12" height="12" fill="{COLOURS[i % len(COLOURS)]}"/>'
        f'<text x="{LABEL + 18}" y="{42 + 18 * i}">{escape(name)}</text>'
        for i, name in enumerate(names)
    ]
    one = f'<line x1="{LABEL + unit:.1f}" x2="{LABEL + unit:.1f}" y1="{top - 6}" y2="{y - GAP}" stroke="#444" stroke-dasharray="3 3"/>'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" '
            'font-family="sans-serif" font-size="11">',
            f'<rect width="{WIDTH}" height="{y}" fill="white"/>',
            f'<text x="12" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
            *legend,
            *parts,
            one,
            "</svg>",
        ]
    )
