"""Plots: what is drawn is what was given, any numbers make a valid picture, and the same points the same file."""

import math
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reward_modeling.evaluation.panels import Panel, Series
from reward_modeling.evaluation.plots import PALETTE, draw_panels, svg


def texts(picture: str) -> list[str]:
  return [node.text for node in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]


def test_the_points_lines_and_colors_given_are_drawn():
  dots = Series("measured", [(0, 1), (1, 3)], "dots", color=1)
  curve, dashed = Series("", [(0, 1), (1, 2), (2, math.nan)], color=1), Series("other", [(5, 5), (6, 7)], "dashed")
  first, second, empty, unused = draw_panels(
    [Panel("t", "x", "y", [dots, curve, dashed]), Panel("u", "x", "y"), Panel("v", "", "")]
  ).axes
  assert [line.get_xydata().tolist() for line in first.lines] == [
    [[0, 1], [1, 3]],
    [[0, 1], [1, 2]],
    [[5, 5], [6, 7]],
  ]
  assert [line.get_linestyle() for line in first.lines] == ["None", "-", "--"]
  assert [line.get_color() for line in first.lines] == [PALETTE[1], PALETTE[1], PALETTE[2]]
  assert [text.get_text() for text in first.get_legend().get_texts()] == ["measured", "other"], '"" is no entry'
  assert (first.get_title(), first.get_xlabel(), first.get_ylabel()) == ("t", "x", "y")
  assert second.get_legend() is None and empty.axison and not unused.axison


def test_a_single_point_is_seen():
  (axis,) = draw_panels([Panel("t", "x", "y", [Series("s", [(1, 2), (2, math.inf)])])]).axes
  assert axis.lines[0].get_marker() == "."


@pytest.mark.parametrize("name", ["a < b & c", "cost in $ and $x^{", "\\frac{1}{2}", "_hidden", "正しい 🙂"])
def test_any_name_is_shown_as_it_is(name, recwarn):
  found = texts(svg([Panel(name, name, name, [Series(name, [(0, 0), (1, 1)])])]))
  assert found.count(name) == 4 and not recwarn.list


def test_control_characters_leave_the_picture_valid():
  assert "a b" in texts(svg([Panel("a\x1bb", "x\x00", "y", [Series("s\x07", [(0, 0)])])]))


@settings(deadline=None, max_examples=12)
@example([(1e308, -1e308), (0, 1e100), (math.inf, math.nan)])
@example([(0, 5e-324), (1, 0), (2, 1e99)])
@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=6))
def test_any_points_make_a_valid_picture(points):
  picture = svg([Panel("t", "x", "y", [Series("s", points)])])
  ElementTree.fromstring(picture)
  assert "nan" not in picture and "inf" not in picture


def test_no_panels_are_a_picture_too():
  ElementTree.fromstring(svg([]))


def test_the_same_points_make_the_same_file():
  panels = [Panel("t", "x", "y", [Series("s", [(0, 0.5), (1, 0.25)])])]
  assert svg(panels) == svg(panels) and "<dc:date>" not in svg(panels)
