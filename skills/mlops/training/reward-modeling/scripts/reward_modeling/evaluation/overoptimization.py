"""What maximizing a reward does to the reward that was meant: proxy and gold against KL, fitted curves, their peak and a verdict.

With d = sqrt(KL(policy || initial policy)) and rewards measured from the initial policy's mean, Gao et al. find

    best-of-n               R(d) = d (alpha - beta d)
    reinforcement learning  R(d) = d (alpha - beta log d)

The gold curve turns down where beta > 0; `peak_kl` says where.

Sources
    Gao et al. 2022, "Scaling Laws for Reward Model Overoptimization", arXiv:2210.10760: both forms of R(d)
    Stiennon et al. 2020, arXiv:2009.01325 appendix G.3: the KL of best-of-n, log n - (n - 1)/n, an upper bound that is
        tight while no single answer is likely (arXiv:2401.01879)
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from ..errors import DataError
from ..terminal import table
from .best_of_n import best_of
from .plots import Panel, Series

CURVE_POINTS = 60
DROP = 0.05
"""How far gold must lie below its best, as a share of its best gain, before a report calls it over-optimized."""


def best_of_n_kl(n: float) -> float:
    """log n - (n - 1)/n, in nats.

    >>> round(best_of_n_kl(16), 4)
    1.8351
    """
    return math.log(n) - (n - 1) / n


@dataclass(frozen=True)
class Point:
    """Mean proxy and gold reward at one KL from the initial policy."""

    kl: float
    proxy: float
    gold: float
    n: int | None
    """Of best-of-n."""


def best_of_n_points(proxy: Sequence[Sequence[float]], gold: Sequence[Sequence[float]]) -> list[Point]:
    """Points of best-of-n for n of 1, 2, 4, ... up to the answers a prompt has, mean over prompts.

    proxy, gold: [prompts][N], with the same N for each prompt. Each point is the mean over all subsets of n of a prompt's
    N answers, in closed form (`best_of`), and so unbiased.
    """
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


@dataclass(frozen=True)
class Form:
    """R(d) = alpha d - beta g(d). g: the second term; peak: (alpha, beta) -> the d at which R is highest, beta > 0."""

    second: Callable[[float], float]
    peak: Callable[[float, float], float]
    formula: str


FORMS: dict[str, Form] = {
    "best_of_n": Form(lambda d: d * d, lambda a, b: a / (2 * b), "d(a - b d)"),
    "rl": Form(lambda d: d * math.log(d) if d > 0 else 0.0, lambda a, b: math.exp(a / b - 1), "d(a - b log d)"),
}
"""Method -> the form that Gao et al. 2022 (arXiv:2210.10760, section 1) fit to it."""


@dataclass(frozen=True)
class Fit:
    """A fitted curve."""

    form: str
    formula: str
    alpha: float
    beta: float
    rmse: float
    """Of the residuals at KL above zero."""
    start: float
    """R's zero, the reward of the initial policy."""
    peak_kl: float | None
    """The KL at which the curve is highest; null when it only rises or only falls."""
    residuals: list[float]
    """At every point."""

    def __call__(self, kl: float) -> float:
        return self.start + rise(self.form, self.alpha, self.beta, kl)


def rise(form: str, alpha: float, beta: float, kl: float) -> float:
    """R(d) above its start."""
    d = math.sqrt(max(kl, 0.0))
    return alpha * d - beta * FORMS[form].second(d)


def peak_kl(form: str, alpha: float, beta: float) -> float | None:
    if not (beta > 0 and (form == "rl" or alpha > 0)):
        return None
    try:
        return FORMS[form].peak(alpha, beta) ** 2
    except OverflowError:  # a straight line in d: beta is what rounding left of it
        return None


def fit_curve(kls: Sequence[float], rewards: Sequence[float], form: str, start: float) -> Fit | None:
    """Least squares of R(d) = rewards - start. None with fewer than three points of different KL above zero.

    Both forms are linear in alpha and beta, so the fit is exact; with two points it would pass through both and say
    nothing.
    """
    pairs = [(math.sqrt(kl), reward - start) for kl, reward in zip(kls, rewards, strict=True) if kl > 0]
    if len({d for d, _ in pairs}) < 3:
        return None
    design = np.array([[d, -FORMS[form].second(d)] for d, _ in pairs])
    target = np.array([reward for _, reward in pairs])
    solution, *_ = np.linalg.lstsq(design, target, rcond=None)
    alpha, beta = map(float, solution)
    return Fit(
        form=form,
        formula=FORMS[form].formula,
        alpha=alpha,
        beta=beta,
        rmse=float(np.sqrt(np.mean((target - design @ solution) ** 2))),
        start=float(start),
        peak_kl=peak_kl(form, alpha, beta),
        residuals=[reward - start - rise(form, alpha, beta, kl) for kl, reward in zip(kls, rewards, strict=True)],
    )


@dataclass(frozen=True)
class Study:
    """One run against one reward model: its points in order of KL, and the curves fitted to proxy and gold."""

    name: str
    form: str
    points: list[Point]
    proxy: Fit | None
    gold: Fit | None
    best: Point
    """Where gold is highest."""
    overoptimised: bool
    """Whether gold ends below its best by more than a twentieth of its best gain, while proxy rose on."""


def study(points: Sequence[Point], form: str, name: str = "") -> Study:
    """Fit the curves of one run. The point of lowest KL is taken for the initial policy when its KL is (nearly) zero."""
    points = sorted(points, key=lambda point: point.kl)
    first, last = points[0], points[-1]
    if first.kl > 1e-3:
        raise DataError(
            f"{name or 'the run'} has no row for the initial policy: its lowest KL is {first.kl:.3g}",
            hint="add a row with kl 0 (or n 1): the curves are measured from there",
        )
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
        overoptimised=fell and last.proxy > best.proxy,
    )


def read_studies(rows: Sequence[tuple[str, Mapping[str, object]]]) -> list[Study]:
    """Studies from (file and number, row) with `kl` or `n`, `proxy` and `gold`, grouped by `run` where there is one.

    n: best-of-n, whose KL follows from it; kl: reinforcement learning, in nats a response. Rows that hold lists in
    `proxy` and `gold`, one prompt's answers each, are turned into best-of-n points first (`best_of_n_points`).
    Raises DataError naming the row for a value that is missing or no finite number.
    """
    groups: dict[str, list[tuple[str, Mapping[str, object]]]] = defaultdict(list)
    for where, row in rows:
        groups[str(row.get("run") or "")].append((where, row))
    return [_read_study(name, members) for name, members in groups.items()]


def _read_study(name: str, members: list[tuple[str, Mapping[str, object]]]) -> Study:
    if all(isinstance(row.get("proxy"), list) and isinstance(row.get("gold"), list) for _, row in members):
        lists = [
            [[_finite(value, key, where) for value in row[key]] for where, row in members] for key in ("proxy", "gold")
        ]
        return study(best_of_n_points(*lists), "best_of_n", name or "best_of_n")
    forms = {"best_of_n" if row.get("n") is not None else "rl" for _, row in members}
    if len(forms) > 1:
        raise DataError(f"the rows of run {name!r} have `n` in some and `kl` in others", where=members[0][0])
    form = forms.pop()
    points = []
    for where, row in members:
        n = int(_finite(row["n"], "n", where)) if form == "best_of_n" else None
        if n is not None and n < 1:
            raise DataError(f"`n` is {n}, not a number of answers", where=where)
        kl = best_of_n_kl(n) if n is not None else _finite(row.get("kl"), "kl", where)
        points.append(Point(kl, *(_finite(row.get(key), key, where) for key in ("proxy", "gold")), n))
    return study(points, form, name or form)


def _finite(value: object, name: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise DataError(
            f"`{name}` is {value!r}, not a finite number",
            where=where,
            hint="rows need `kl` or `n`, and `proxy` and `gold`",
        )
    return float(value)


def show_studies(studies: Sequence[Study]) -> None:
    """A table of every point with the fitted gold, and one of the fits, on stderr."""
    rows = [
        [one.name, point.n, point.kl, point.proxy, point.gold, one.gold(point.kl) if one.gold else None]
        for one in studies
        for point in one.points
    ]
    table("proxy and gold against KL", ["run", "n", "KL", "proxy", "gold", "fitted gold"], rows)
    rows = [
        [one.name, one.gold.formula, one.gold.alpha, one.gold.beta, one.gold.rmse, one.gold.peak_kl]
        for one in studies
        if one.gold
    ]
    if rows:
        table("fitted gold", ["run", "R(d) - R(0)", "a", "b", "residual (rms)", "peak at KL"], rows)


def diagnose_study(study: Study) -> str:
    """One sentence about where gold is best, and whether the run went on beyond it."""
    best, last = study.best, study.points[-1]
    of_n = f" (n = {best.n})" if best.n is not None else ""
    found = f"{study.name}: gold is best, {best.gold:.3f}, at a KL of {best.kl:.2f}{of_n}"
    if study.overoptimised:
        found += f", and falls to {last.gold:.3f} at {last.kl:.2f} while proxy rises from {best.proxy:.2f} to {last.proxy:.2f}: over-optimised"
    elif best is last:
        found += ", the last point: nothing shows that more optimisation would hurt"
    return found


def panels(studies: Sequence[Study]) -> list[Panel]:
    """One panel a study: measured proxy and gold as dots, the fitted curves through them."""
    drawn = []
    for one in studies:
        most = max(point.kl for point in one.points)
        grid = [most * (i / CURVE_POINTS) ** 2 for i in range(CURVE_POINTS + 1)]  # even steps in d
        series = []
        for color, (name, curve) in enumerate((("proxy", one.proxy), ("gold", one.gold))):
            series.append(Series(name, [(p.kl, getattr(p, name)) for p in one.points], "dots", color))
            if curve:
                line = [(kl, curve(kl)) for kl in grid]
                series.append(Series(f"{name}, fitted", line, "dashed" if name == "proxy" else "line", color))
        drawn.append(Panel(one.name, "KL (nats per response)", "reward", series))
    return drawn
