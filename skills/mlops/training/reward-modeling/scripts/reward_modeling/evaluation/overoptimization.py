"""What maximizing a reward does to the one that was meant: curves R(sqrt(KL)) and their peak (arXiv:2210.10760, section 1)."""

import contextlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from ..errors import DataError
from .best_of_n import best_of
from .panels import Panel, Series
from .studies import FORMS, Fit, Point, Study

CURVE_POINTS = 60
DROP = 0.05
"""How far below its best, as a share of its best gain, gold ends when it is over-optimized."""


def best_of_n_kl(n: float) -> float:
  """In nats (arXiv:2009.01325 appendix G.3); an upper bound, tight while no single answer is likely (arXiv:2401.01879)."""
  return math.log(n) - (n - 1) / n


def best_of_n_points(proxy: Sequence[Sequence[float]], gold: Sequence[Sequence[float]]) -> list[Point]:
  """For n of 1, 2, 4, ... up to N, over all subsets. proxy, gold: [prompts][N], with the same N for each prompt."""
  answers = {len(row) for row in (*proxy, *gold)}
  if len(answers) != 1:
    raise DataError(f"best-of-n needs as many answers for each prompt, not {sorted(answers)}")
  return [
    Point(
      best_of_n_kl(n),
      fmean(best_of(row, row, n) for row in proxy),
      fmean(best_of(row, values, n) for row, values in zip(proxy, gold, strict=True)),
      n,
    )
    for n in (2**k for k in range(answers.pop().bit_length()))
  ]


def fit_curve(kls: Sequence[float], rewards: Sequence[float], form: str, start: float) -> Fit | None:
  """Least squares of R(d) = rewards - start. None with fewer than three points of different KL above zero."""
  pairs = [(math.sqrt(kl), reward - start) for kl, reward in zip(kls, rewards, strict=True) if kl > 0]
  if len({d for d, _ in pairs}) < 3:
    return None
  design = np.array([[d, -FORMS[form].second(d)] for d, _ in pairs])
  target = np.array([reward for _, reward in pairs])
  solution, *_ = np.linalg.lstsq(design, target, rcond=None)
  rmse = float(np.sqrt(np.mean((target - design @ solution) ** 2)))
  (alpha, beta), peak = map(float, solution), None
  if beta > 0 and (form == "rl" or alpha > 0):
    with contextlib.suppress(OverflowError):  # a straight line in d: beta is what rounding left of it
      peak = FORMS[form].peak(alpha, beta) ** 2
  found = Fit(form, FORMS[form].formula, alpha, beta, rmse, float(start), peak, [])
  residuals = [reward - found(kl) for kl, reward in zip(kls, rewards, strict=True)]
  return replace(found, residuals=residuals, extrapolated=peak is not None and peak > max(kls))


def study(points: Sequence[Point], form: str, name: str = "") -> Study:
  points = sorted(points, key=lambda point: point.kl)
  first, last = points[0], points[-1]
  if first.kl > 1e-3:
    what = f"{name or 'the run'} has no row for the initial policy: its lowest KL is {first.kl:.3g}"
    raise DataError(what, hint="add a row with kl 0 (or n 1): the curves are measured from there")
  kls = [point.kl for point in points]
  best = max(points, key=lambda point: point.gold)
  fell = best.gold - last.gold > DROP * max(best.gold - first.gold, 1e-9)
  return Study(
    name=name,
    form=form,
    points=points,
    proxy=fit_curve(kls, [point.proxy for point in points], form, first.proxy),
    gold=fit_curve(kls, [point.gold for point in points], form, first.gold),
    best=best,
    overoptimized=fell and last.proxy > best.proxy,
  )


def read_studies(rows: Sequence[tuple[str, Mapping[str, object]]]) -> list[Study]:
  """Of (FILE:ROW, row) with `kl` (nats a response, of RL) or `n` (of best-of-n), `proxy`, `gold` and, of several, `run`. Lists in
  `proxy` and `gold` are one prompt's answers each."""
  groups: dict[str, list[tuple[str, Mapping[str, object]]]] = defaultdict(list)
  for where, row in rows:
    groups[str(row.get("run") or "")].append((where, row))
  return [_read_study(name, members) for name, members in groups.items()]


def _read_study(name: str, members: list[tuple[str, Mapping[str, object]]]) -> Study:
  if all(isinstance(row.get(key), list) for _, row in members for key in ("proxy", "gold")):
    proxy, gold = (
      [[_finite({key: value}, key, where) for value in row[key]] for where, row in members] for key in ("proxy", "gold")
    )
    return study(best_of_n_points(proxy, gold), "best_of_n", name or "best_of_n")
  forms = {"best_of_n" if row.get("n") is not None else "rl" for _, row in members}
  if len(forms) > 1:
    raise DataError(f"the rows of run {name!r} have `n` in some and `kl` in others", where=members[0][0])
  (form,), points = forms, []
  for where, row in members:
    n = int(_finite(row, "n", where)) if form == "best_of_n" else None
    if n is not None and n < 1:
      raise DataError(f"`n` is {n}, not a number of answers", where=where)
    kl = best_of_n_kl(n) if n else _finite(row, "kl", where)
    points.append(Point(kl, _finite(row, "proxy", where), _finite(row, "gold", where), n))
  return study(points, form, name or form)


def _finite(row: Mapping[str, object], name: str, where: str) -> float:
  value = row.get(name)
  if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
    hint = "rows need `kl` or `n`, and `proxy` and `gold`"
    raise DataError(f"`{name}` is {value!r}, not a finite number", where=where, hint=hint)
  return float(value)


def diagnose_study(study: Study) -> str:
  first, best, last = study.points[0], study.best, study.points[-1]
  if best == first:
    return f"{study.name}: gold never rises above that of the start, {first.gold:.3f}; it ends at {last.gold:.3f}"
  of_n = f" (n = {best.n})" if best.n is not None else ""
  found = f"{study.name}: gold is best, {best.gold:.3f} from {first.gold:.3f}, at a KL of {best.kl:.2f}{of_n}"
  if study.overoptimized:
    found += f", and falls to {last.gold:.3f} at {last.kl:.2f} while proxy rises from {best.proxy:.2f} to {last.proxy:.2f}: over-optimized"
  elif best == last:
    found += ", the last point: nothing shows that more optimization would hurt"
  if study.gold and study.gold.extrapolated:
    found += f"; that the fitted gold peaks at {study.gold.peak_kl:.3g}, beyond all points, is an extrapolation"
  return found


def panels(studies: Sequence[Study]) -> list[Panel]:
  drawn = []
  for one in studies:
    most = max(point.kl for point in one.points)
    grid = [most * (i / CURVE_POINTS) ** 2 for i in range(CURVE_POINTS + 1)]  # even steps in d
    series = []
    for color, (name, style) in enumerate({"proxy": "dashed", "gold": "line"}.items()):
      series.append(Series(name, [(at.kl, getattr(at, name)) for at in one.points], "dots", color))
      if curve := getattr(one, name):
        series.append(Series(f"{name}, fitted", [(kl, curve(kl)) for kl in grid], style, color))
    drawn.append(Panel(one.name, "KL (nats per response)", "reward", series))
  return drawn
