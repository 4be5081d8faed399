"""Proxy and gold against KL: estimators by hand and by enumeration, fits that return what they were made of."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import run_main, write_jsonl
from reward_modeling.errors import DataError
from reward_modeling.evaluation.overoptimization import (
  best_of_n_kl,
  best_of_n_points,
  diagnose_study,
  fit_curve,
  panels,
  read_studies,
  study,
)
from reward_modeling.evaluation.results import OverOptimizationReport
from reward_modeling.evaluation.sections import _studies
from reward_modeling.evaluation.studies import FORMS, GOLD, Point


def test_kl_of_best_of_n_by_enumeration():
  """KL of the best of 3 of M equally likely answers approaches log 3 - 2/3 from below (the bound, arXiv:2401.01879)."""
  m = 4000
  chances = [(k**3 - (k - 1) ** 3) / m**3 for k in range(1, m + 1)]
  kl = sum(p * math.log(p * m) for p in chances)
  assert kl <= best_of_n_kl(3)
  assert kl == pytest.approx(best_of_n_kl(3), abs=1e-3)
  assert best_of_n_kl(1) == 0


def test_best_of_n_points_with_the_proxy_as_gold():
  points = best_of_n_points([[0, 1, 2, 3]], [[0, 1, 2, 3]])
  assert [point.n for point in points] == [1, 2, 4]
  assert [point.gold for point in points] == pytest.approx([1.5, (1 * 1 + 2 * 2 + 3 * 3) / 6, 3.0])
  with pytest.raises(DataError, match="as many answers"):
    best_of_n_points([[0, 1], [0]], [[0, 1], [0]])


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None)
@given(a=st.floats(-2, 3), b=st.floats(-2, 2))
def test_fit_returns_the_curve_it_was_given(form, a, b):
  kls = [0.0, 0.2, 0.6, 1.2, 2.5, 4.0]
  d = [math.sqrt(kl) for kl in kls]
  exact = {
    "best_of_n": [x * (a - b * x) for x in d],
    "rl": [x * (a - b * math.log(x)) if x else 0.0 for x in d],
  }[form]
  found = fit_curve(kls, [value + 0.3 for value in exact], form, start=0.3)
  assert (found.alpha, found.beta) == pytest.approx((a, b), abs=1e-8)
  assert found.rmse == pytest.approx(0, abs=1e-8)
  assert [found(kl) for kl in kls] == pytest.approx([value + 0.3 for value in exact], abs=1e-7)


@pytest.mark.parametrize("form", FORMS)
def test_peak_is_where_the_curve_is_highest(form):
  curve = fit_curve([0.1, 1.0, 3.0, 6.0], [0.4, 1.0, 1.1, 0.7], form, start=0.0)
  grid = [i / 1000 for i in range(1, 12000)]
  assert curve.peak_kl == pytest.approx(max(grid, key=curve), abs=2e-3)


def test_a_curve_that_bends_upwards_has_no_peak_and_two_points_no_fit():
  assert fit_curve([1.0, 4.0, 9.0], [1.0, 3.0, 6.0], "best_of_n", 0.0).peak_kl is None
  # A straight line in d: beta is rounding, and a peak at exp(alpha / beta) is no number.
  assert fit_curve([1.0, 4.0, 9.0, 25.0], [1.0, 2.0, 3.0, 5.0], "rl", 0.0).peak_kl is None
  assert fit_curve([0.0, 1.0, 4.0], [0.0, 1.0, 2.0], "rl", 0.0) is None


def test_a_peak_beyond_the_points_is_called_an_extrapolation():
  """d(1 - 0.1 d) peaks at d = 5, a KL of 25; the points end at 9 or at 36."""
  far, near = (
    study([Point(d * d, d, d * (1 - 0.1 * d), None) for d in range(last + 1)], "best_of_n") for last in (3, 6)
  )
  assert far.gold.extrapolated and not near.gold.extrapolated and near.gold.peak_kl == pytest.approx(25)
  assert "that the fitted gold peaks at 25, beyond all points, is an extrapolation" in diagnose_study(far)
  assert "extrapolation" not in diagnose_study(near)
  tables = [list(_studies(OverOptimizationReport([one], [], None))) for one in (far, near)]
  assert tables[0][0].texts == [GOLD] and tables[0][1].rows[0][-1] == "25, extrapolated"
  assert tables[1][1].rows[0][-1] == pytest.approx(25)


def test_overoptimized_needs_gold_to_fall_while_proxy_rises():
  up = [Point(0, 0, 0, None), Point(1, 1, 1, None), Point(4, 2, 1.2, None)]
  down = [Point(0, 0, 0, None), Point(1, 1, 1, None), Point(4, 2, 0.5, None)]
  both_fall = [Point(0, 0, 0, None), Point(1, 1, 1, None), Point(4, 0.5, 0.5, None)]
  assert [study(points, "rl").overoptimized for points in (up, down, both_fall)] == [False, True, False]


def numbered(rows: list[dict]) -> list[tuple[str, dict]]:
  return [(f"f:{number}", row) for number, row in enumerate(rows, start=1)]


def test_rows_are_read_by_run():
  rows = [
    {"run": "bon", "n": 1, "proxy": 0, "gold": 0.1},
    {"run": "bon", "n": 4, "proxy": 1, "gold": 0.5},
    {"run": "ppo", "kl": 2.0, "proxy": 1.5, "gold": 0.7},
    {"run": "ppo", "kl": 0, "proxy": 0, "gold": 0.1},
  ]
  bon, ppo = read_studies(numbered(rows))
  assert (bon.form, ppo.form) == ("best_of_n", "rl")
  assert bon.points[1].kl == pytest.approx(math.log(4) - 3 / 4)
  assert [point.kl for point in ppo.points] == [0, 2.0]


def test_rows_of_answers_become_points():
  (one,) = read_studies(numbered([{"proxy": [0, 1], "gold": [1, 0]}, {"proxy": [5, 2], "gold": [1, 1]}]))
  assert [(point.n, point.proxy, point.gold) for point in one.points] == [(1, 2.0, 0.75), (2, 3.0, 0.5)]


@pytest.mark.parametrize(
  ("rows", "message", "where"),
  [
    ([{"kl": 0, "proxy": 1}], "`gold` is None, not a finite number", "f:1"),
    ([{"kl": 0, "proxy": 1, "gold": 1}, {"kl": math.nan, "proxy": 1, "gold": 1}], "`kl` is nan", "f:2"),
    ([{"n": 0, "proxy": 1, "gold": 1}], "`n` is 0, not a number of answers", "f:1"),
    ([{"n": 1, "proxy": 1, "gold": 1}, {"kl": 1, "proxy": 1, "gold": 1}], "`n` in some and `kl` in others", "f:1"),
    ([{"kl": 1, "proxy": 1, "gold": 1}], "no row for the initial policy", None),
  ],
)
def test_bad_rows_are_named(rows, message, where):
  with pytest.raises(DataError) as caught:
    read_studies(numbered(rows))
  assert message in caught.value.message
  assert caught.value.where == where


def test_the_panels_hold_the_points_and_the_fitted_curves():
  points = [Point(kl, kl, math.sqrt(kl) - 0.2 * kl, None) for kl in (0, 0.5, 1, 2, 4)]
  one = study(points, "rl", "a < b & c")
  (panel,) = panels([one])
  assert [(s.name, s.style, s.color) for s in panel.series] == [
    ("proxy", "dots", 0),
    ("proxy, fitted", "dashed", 0),
    ("gold", "dots", 1),
    ("gold, fitted", "line", 1),
  ]
  assert panel.title == "a < b & c" and panel.series[2].points == [(p.kl, p.gold) for p in points]
  assert panel.series[3].points[-1] == (4, one.gold(4)) and len(panel.series[3].points) == 61


def test_evaluate_draws_and_tells_it(tmp_path):
  rows = [
    {"run": "bon", "n": n, "proxy": math.log(n), "gold": gold} for n, gold in ((1, 0), (4, 0.8), (16, 0.9), (64, 0.5))
  ]
  file, picture = write_jsonl(tmp_path / "points.jsonl", rows), tmp_path / "curves.svg"
  done = run_main("evaluate.py", "--overoptimization", file, "--picture", picture)
  assert done.returncode == 0, done.stderr
  assert done.json["diagnostics"] == [
    "bon: gold is best, 0.900 from 0.000, at a KL of 1.84 (n = 16), and falls to 0.500 at 3.17 while proxy rises from 2.77 to 4.16: "
    "over-optimized"
  ]
  gold = done.json["studies"][0]["gold"]
  residuals = gold["residuals"]
  assert gold["rmse"] == pytest.approx(math.sqrt(sum(r * r for r in residuals[1:]) / 3))
  ElementTree.parse(picture)
  again = run_main("evaluate.py", "--overoptimization", file, "--picture", picture)
  assert (again.returncode, "exists already" in again.stderr) == (2, True)
  none = run_main("evaluate.py", "--overoptimization", write_jsonl(tmp_path / "bad.jsonl", [{"kl": 0, "proxy": 1}]))
  assert (none.returncode, "`gold` is None, not a finite number" in none.stderr) == (3, True)
