"""How results look: sections of text, tables and plots as one HTML page without a network, as Markdown, or on stderr."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..terminal import table
from .intervals import Estimate
from .plots import Panel, svg

Cell = str | float | bool | Estimate | None

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 54rem; margin: 0 auto; padding: 1rem; color: #1a1a1a; background: #fff }
h1 { font-size: 1.4rem; overflow-wrap: anywhere } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #ccc }
dt { font-weight: 600; margin-top: .8rem } dd { margin: 0; overflow-wrap: anywhere }
.yes, .no, .open { border-left: .3rem solid #009e73; padding-left: .6rem } .no { border-color: #d55e00 } .open { border-color: #999 }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid #e4e4e4; vertical-align: top }
td:first-child { min-width: 7rem } td { white-space: nowrap } td.text { white-space: normal; min-width: 12rem }
figure { margin: 1rem 0 } svg { max-width: 100%; height: auto } td svg { width: 160px; height: 14px; max-width: none }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f6f6; padding: .5rem; font-size: .85rem }
summary { cursor: pointer; color: #0072b2 }
@media print { body { max-width: none; padding: 0 } section, figure, tr { break-inside: avoid } td { white-space: normal }
  details::details-content { content-visibility: visible; display: block } }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<dl>{% for asked, said in verdicts %}<div class="{{ marks.get(said.split(":")[0], "open") }}"><dt>{{ asked }}</dt><dd>{{ said }}</dd></div>
{% endfor %}</dl>
{% for section in sections %}<section>
<h2>{{ section.title }}</h2>
{% for text in section.texts %}<p>{{ text }}</p>
{% endfor %}{% if section.panels %}<figure>{{ drawn(section.panels, loop.index) }}</figure>
<details><summary>The data of the plot</summary>{% endif %}
{% if section.rows %}<div class="wide"><table>
<tr>{% for name in section.columns %}<th scope="col">{{ name }}</th>
{% if section.scale and loop.first %}<th scope="col">{{ "%g to %g"|format(section.scale[0], section.scale[2]) }}</th>{% endif %}{% endfor %}</tr>
{% for row in section.rows %}<tr>{% for cell in row %}
<td{% if cell is string and cell|length > 24 %} class="text"{% endif %}>{{ shown(cell) }}</td>
{% if section.scale and loop.first %}<td>{{ bar(row, section.scale) }}</td>{% endif %}{% endfor %}</tr>
{% endfor %}</table></div>{% endif %}
{% if section.panels %}</details>{% endif %}
{% for name, text in section.quotes %}<p><b>{{ name }}</b></p><pre>{{ text }}</pre>
{% endfor %}</section>
{% endfor %}<p>Intervals are 95 %, clustered by prompt. Numbers as JSON: report.json beside this page.</p>
</body>
</html>"""

CARD = """---
pipeline_tag: text-classification
tags:
- reward-model
---

# {{ title|plain }}

{% for asked, said in verdicts %}**{{ asked }}** {{ said|plain }}

{% endfor %}{% for section in sections if not section.quotes %}## {{ section.title|plain }}

{% for text in section.texts %}{{ text|plain }}

{% endfor %}{% if section.rows %}| {{ section.columns|map("plain")|join(" | ") }} |
|{{ "---|" * section.columns|length }}
{% for row in section.rows %}| {% for cell in row %}{{ cell|plain }} | {% endfor %}
{% endfor %}
{% endif %}{% endfor %}Intervals are 95 %, clustered by prompt. Plots and examples: report.html.
"""


MARKS = {"Yes": "yes", "No": "no", "Fooled": "no", "Only so far": "no"}
"""How an answer begins -> its color; gray for any other."""
Verdicts = Sequence[tuple[str, str]]
"""Questions that a user has, and their answers in plain words."""


@dataclass(frozen=True)
class Section:
    """scale: (lowest, reference, highest) of a bar for each row's first estimate. quotes: (name, text) of rows of the data."""

    title: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()
    texts: Sequence[str] = ()
    panels: Sequence[Panel] = ()
    scale: tuple[float, float, float] | None = None
    quotes: Sequence[tuple[str, str]] = ()

    def show(self, columns: int | None = None) -> None:
        """The table on stderr, with only the first columns where they are too many."""
        table(self.title, self.columns[:columns], [[_shown(cell) for cell in row[:columns]] for row in self.rows])


def page(title: str, verdicts: Verdicts, sections: Sequence[Section]) -> str:
    """The HTML page; every text in it is escaped."""
    return _filled(PAGE, True, title=title, verdicts=verdicts, sections=sections)


def card(title: str, verdicts: Verdicts, sections: Sequence[Section]) -> str:
    """The same as a model card in Markdown, without plots and quotes."""
    return _filled(CARD, False, title=title, verdicts=verdicts, sections=sections)


def _filled(template: str, html: bool, **what: object) -> str:
    import jinja2

    environment = jinja2.Environment(autoescape=html, undefined=jinja2.StrictUndefined)
    environment.filters["plain"] = _plain
    tools = {"shown": _shown, "bar": _bar, "drawn": _drawn, "marks": MARKS}
    return environment.from_string(template).render(**tools, **what)


def _shown(cell: Cell) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, Estimate) or (isinstance(cell, float) and 1e-3 <= abs(cell) < 1e4):
        return f"{cell:.3f}"
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def _plain(cell: Cell) -> str:
    """For Markdown, in tables too."""
    return re.sub(r"([|<\\`])", r"\\\1", " ".join(_shown(cell).split()))


def _bar(row: Sequence[Cell], scale: tuple[float, float, float]) -> str:
    """The interval of the first estimate of a row, with a line at the reference."""
    from markupsafe import Markup

    one = next((cell for cell in row if isinstance(cell, Estimate)), None)
    if one is None:
        return ""
    ends = {"low": one.low, "high": one.high, "value": one.value, "middle": scale[1]}
    at = {
        name: 150 * (min(max(value, scale[0]), scale[2]) - scale[0]) / (scale[2] - scale[0]) + 5
        for name, value in ends.items()
    }
    return Markup(
        '<svg viewBox="0 0 160 14" role="img" aria-label="interval"><path stroke="#999" d="M{middle:.1f} 0V14"/>'
        '<path stroke="#0072B2" stroke-width="3" d="M{low:.1f} 7H{high:.1f}"/><circle fill="#0072B2" cx="{value:.1f}" cy="7" r="4"/></svg>'
    ).format(**at)


def _drawn(panels: Sequence[Panel], number: int) -> str:
    """The plot, with ids that no other plot of the page has."""
    from markupsafe import Markup

    return Markup(re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>p{number}-", svg(panels)))
