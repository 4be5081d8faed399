"""Sections of text, tables and plots as one HTML page without a network, or as Markdown."""

import re
from collections.abc import Sequence
from html import escape

from ..data.cells import short
from .intervals import Estimate
from .panels import Panel
from .plots import svg
from .sections import Cell, Section

Verdicts = Sequence[tuple[str, str]]
"""Questions that a user has, and their answers in plain words."""

HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"/>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 62rem; margin: auto; padding: 1rem; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; line-height: 1.2 }
.said { border-left: .3rem solid #999; padding-left: .6rem; margin-bottom: .5rem }
.Yes { border-color: #009e73 } .No, .Fooled, .Only, .Probably { border-color: #d55e00 }
div { overflow-x: auto } table { border-collapse: collapse; font-size: .8rem; overflow-wrap: break-word }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #ddd; vertical-align: top }
td { white-space: nowrap } .text { white-space: normal; min-width: 9rem }
figure { margin: 0; display: flex; flex-wrap: wrap } svg { max-width: 100%; height: auto } td svg { width: 130px }
pre { white-space: pre-wrap; background: #f6f6f6; padding: .5rem }
@media screen and (max-width: 40rem) {
  table, tr, td:first-child { display: block } tr { border-bottom: 1px solid #ddd } tr:first-child { display: none }
  td { border: 0; padding: 0 .8rem 0 0; display: inline-block; white-space: normal } td:first-child { font-weight: bold }
  [data-of]::before { content: attr(data-of) ": "; color: #666 }
}
h2 { break-after: avoid } tr { break-inside: avoid }
@media print { html { font-size: 11px } figure svg { max-width: 48% } details::details-content { content-visibility: visible } }
</style>
"""
FRONT_MATTER = "---\npipeline_tag: text-classification\ntags:\n- reward-model\n---\n"
QUOTED = 600
"""Characters of a text that is quoted."""
END = "Intervals are 95%, clustered by prompt."


def page(title: str, verdicts: Verdicts, sections: Sequence[Section], end: str = "") -> str:
  """The HTML page; every text in it is escaped."""
  lines = [f"<title>{escape(title)}</title></head><body>", _tag("h1", title)]
  for asked, said in verdicts:
    color = escape(said.split()[0].strip(":,"))
    lines.append(f'<div class="said {color}">{_tag("b", asked)}<br/>{escape(said)}</div>')
  for number, section in enumerate(sections):
    lines += [_tag("h2", section.title), *(_tag("p", text) for text in section.texts)]
    data = _html_table(section) if section.rows else ""
    if section.panels:
      drawn = "\n".join(_drawn(panel, f"p{number}-{place}-") for place, panel in enumerate(section.panels))
      data = f"<figure>{drawn}</figure><details><summary>The data of the plot</summary>{data}</details>"
    lines += [data, *(_tag("b", name) + _tag("pre", short(text, QUOTED)) for name, text in section.quotes)]
  return HEAD + "\n".join([*lines, _tag("p", end), "</body></html>\n"])


def card(title: str, verdicts: Verdicts, sections: Sequence[Section]) -> str:
  """The same as a model card in Markdown, without plots and quotes."""
  parts = [f"{FRONT_MATTER}\n# {_plain(title)}", *(f"**{asked}** {_plain(said)}" for asked, said in verdicts)]
  for section in sections:
    if section.quotes:
      continue
    parts += [f"## {_plain(section.title)}", *map(_plain, section.texts)]
    rows = [section.columns, ["---"] * len(section.columns), *section.rows] if section.rows else ()
    parts.append("\n".join(f"| {' | '.join(map(_plain, row))} |" for row in rows))
  return "\n\n".join([*filter(None, parts), f"{END} Plots and examples: report.html.\n"])


def _drawn(panel: Panel, unique: str) -> str:
  """With ids that no other plot of the page has."""
  return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{unique}", svg([panel]))


def _tag(name: str, text: str, more: str = "") -> str:
  return f"<{name}{more}>{escape(text)}</{name}>"


def _shown(cell: Cell) -> str:
  if cell is None:
    return "–"
  if isinstance(cell, Estimate) or (isinstance(cell, float) and 1e-3 <= abs(cell) < 1e4):
    return f"{cell:.3f}"
  return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def _plain(cell: Cell) -> str:
  """For Markdown, in tables too."""
  return re.sub(r"([|<\\`])", r"\\\1", " ".join(_shown(cell).split()))


def _html_table(section: Section) -> str:
  """On a phone each row is a block, in which a cell says what its column is (data-of)."""
  rows, scale = [[_tag("th", name, ' scope="col"') for name in section.columns]], section.scale
  for row in section.rows:
    cells = []
    for name, cell in zip(section.columns, row, strict=True):
      more = f' data-of="{escape(name)}"' if cells and name else ""
      more += ' class="text"' if isinstance(cell, str) and len(cell) > 24 else ""
      cells.append(_tag("td", _shown(cell), more))
    rows.append(cells)
    if scale:
      cells.insert(1, f"<td>{_bar(row, *scale)}</td>")
  if scale:
    rows[0].insert(1, _tag("th", f"{scale[0]:g} to {scale[2]:g}"))
  lines = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
  return f"<div><table>{lines}</table></div>"


def _bar(row: Sequence[Cell], lowest: float, reference: float, highest: float) -> str:
  """The interval of the first estimate of a row, with a line at the reference."""
  one = next((cell for cell in row if isinstance(cell, Estimate)), None)
  if one is None:
    return ""
  ends = (min(max(value, lowest), highest) for value in (reference, one.low, one.high, one.value))
  middle, low, high, value = (f"{150 * (end - lowest) / (highest - lowest) + 5:.1f}" for end in ends)
  return (
    f'<svg viewBox="0 0 160 14" aria-hidden="true"><path stroke="#999" d="M{middle} 0V14"/>'
    f'<path stroke="#0072B2" stroke-width="3" d="M{low} 7H{high}M{value} 2V12"/></svg>'
  )
