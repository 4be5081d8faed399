"""How good is the best-scored of n answers? Expected accuracies over all draws of n from a prompt's pool, in closed form.

A pool is one prompt's completions with known correctness. A curve from one random draw of n, or from the first n, is
noisy and depends on the order of the file; here every subset of size n counts the same, without replacement, so the
numbers are those that enumerating all subsets would give. n = 1 is random choice for every selector.

The second half asks what maximising a reward does to the reward that was meant: proxy and gold against KL. With
d = sqrt(KL(policy || initial policy)) and rewards measured from the initial policy's mean, Gao et al. find

    best-of-n               R(d) = d (alpha - beta d)
    reinforcement learning  R(d) = d (alpha - beta log d)

The gold curve turns down where beta > 0; `peak` says where.

Sources
    Chen et al. 2021, "Evaluating Large Language Models Trained on Code", arXiv:2107.03374 Eq. 1: the oracle, pass@n
    Lightman et al. 2023, "Let's Verify Step by Step", arXiv:2305.20050, section 3: best-of-n by a reward model against
        majority vote, of random subsets of a pool
    Gao et al. 2022, "Scaling Laws for Reward Model Overoptimization", arXiv:2210.10760: both forms of R(d)
    Stiennon et al. 2020, arXiv:2009.01325 appendix G.3: the KL of best-of-n, log n - (n - 1)/n, an upper bound that is
        tight while no single answer is likely (arXiv:2401.01879)
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from ..console import DataError, UsageError, table
from ..records import Ranking
from . import metrics
from .report import Panel, Series, answer_length, prompt_keys, score_distinct

SIZES = (1, 4, 16, 64, 100)
ENOUGH_ANSWERS = 0.5
"""A vote needs final answers to compare: this share of the completions must have one."""
LARGEST_VOTE = 1000
"""Completions in a pool up to which the number of subsets fits a float."""

# What writes a final answer down: the last match in a completion counts, its group 1 is the answer.
ANSWER_PATTERNS: dict[str, str] = {
    "boxed": r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}",
    "gsm8k": r"^####\s*(.+)$",
    "A:": r"^A(?:nswer)?:\s*(.+)$",
    "the answer is": r"[Tt]he (?:final )?answer is:?\s*(.+?)\.?$",
}


# One pool


def best_of(scores: Sequence[float | None], correct: Sequence[float], n: int) -> float:
    """Expected correctness of the best-scored of n drawn without replacement; of tied best ones, any with equal chance.

    scores: [pool], None (not scored) ranks last. correct: [pool], 0 to 1. The best is in a group of equal scores with
    probability (C(at most that score, n) - C(lower, n)) / C(pool, n), and is any of the group with equal chance.
    >>> best_of([0.9, 0.5, 0.1], [0, 1, 1], 2)  # the first is in two of three draws
    0.3333333333333333
    """
    groups = defaultdict(list)
    for score, right in zip(scores, correct, strict=True):
        groups[-math.inf if score is None else score].append(right)
    expected, below, draws = 0.0, 0, math.comb(len(correct), n)
    for score in sorted(groups):
        rights = groups[score]
        best_here = math.comb(below + len(rights), n) - math.comb(below, n)
        expected += best_here / draws * (sum(rights) / len(rights))
        below += len(rights)
    return expected


def oracle(correct: Sequence[float], n: int) -> float:
    """Probability that a correct one is among n drawn: 1 - C(wrong, n) / C(pool, n). arXiv:2107.03374 Eq. 1.

    correct: [pool]; a share between 0 and 1 is taken as its own best-of-n score.
    """
    return best_of(correct, correct, n)


def majority_vote(answers: Sequence[str | None], correct: Sequence[float], n: int) -> float:
    """Expected correctness of the most frequent answer among n drawn, ties broken at random; no answer casts no vote.

    answers: [pool]. An answer is as correct as its completions are on average. For answer a drawn k times, the draws of
    the others are coefficients of products of polynomials in z, with x marking each answer that is drawn k times too;
    integrating over x from 0 to 1 turns T ties into 1 / (T + 1), and Gauss-Legendre nodes do so without error.
    """
    pool, counts = len(answers), Counter(answer for answer in answers if answer is not None)
    silent = pool - sum(counts.values())
    expected = 0.0
    for answer, count in counts.items():
        right = sum(c for a, c in zip(answers, correct, strict=True) if a == answer) / count
        others = [number for other, number in counts.items() if other != answer]
        if right:
            won = sum(
                math.comb(count, k) * _draws_without_more(others, silent, k, n - k) for k in range(1, min(count, n) + 1)
            )
            expected += right * won / math.comb(pool, n)
    return expected


def _draws_without_more(counts: list[int], silent: int, k: int, size: int) -> float:
    """Number of draws of `size` in which no answer comes more than k times, T of them exactly k times: sum of 1 / (T + 1)."""
    ties = min(len(counts), size // k)
    nodes, weights = np.polynomial.legendre.leggauss(ties // 2 + 1)
    total = 0.0
    for x, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        product = np.array([float(math.comb(silent, j)) for j in range(min(silent, size) + 1)])
        for count in counts:
            ways = np.array([float(math.comb(count, j)) for j in range(min(count, k) + 1)])
            if len(ways) > k:
                ways[k] *= x
            product = np.convolve(product, ways)[: size + 1]
        total += weight * (product[size] if len(product) > size else 0.0)
    return total


# Final answers


def final_answer(text: str, pattern: str | None = None) -> str | None:
    """The final answer a completion states, in a form that can be compared, or None.

    pattern: a regular expression whose group 1 is the answer; otherwise the first of ANSWER_PATTERNS that matches.
    >>> final_answer("so 2 + 1 = 3.0\\nA: $1,003.0")
    '1003'
    """
    for expression in [pattern] if pattern else ANSWER_PATTERNS.values():
        found = re.findall(expression, text, re.MULTILINE)
        if found:
            return comparable(found[-1])
    return None


def comparable(answer: Any) -> str | None:
    """An answer without what does not change it: blanks, a closing full stop, currency and thousands signs; 3.0 is 3."""
    text = str(answer).strip().rstrip(".").replace("$", "").replace(",", "").strip().casefold()
    try:
        number = float(text)
    except ValueError:
        return " ".join(text.split()) or None
    return f"{number:.12g}" if math.isfinite(number) else text


@dataclass(frozen=True)
class Answers:
    """Final answers of every completion, [prompts][pool], or None and the reason why there is no vote."""

    answers: list[list[str | None]] | None
    source: str


def find_answers(rankings: Sequence[Ranking], *, column: str | None = None, pattern: str | None = None) -> Answers:
    """The final answers to vote on: from a column with one a completion, or taken from the texts.

    Raises UsageError for a pattern that is no regular expression with a group, DataError for a column of other length.
    """
    if column is not None:
        return Answers([_column_answers(ranking, column) for ranking in rankings], f"the column {column}")
    if pattern is not None:
        _check_pattern(pattern)
    if max(len(ranking.completions) for ranking in rankings) > LARGEST_VOTE:
        return Answers(None, f"a pool has over {LARGEST_VOTE} completions")
    found = [[final_answer(_text(completion), pattern) for completion in r.completions] for r in rankings]
    share = float(np.mean([answer is not None for answers in found for answer in answers]))
    if share < ENOUGH_ANSWERS:
        return Answers(None, f"only {share:.1%} of the completions state a final answer that could be compared")
    return Answers(found, f"the texts, {share:.1%} of which state one")


def _check_pattern(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise UsageError(f"--answer_pattern is no regular expression: {error}") from error
    if groups != 1:
        raise UsageError(
            f"--answer_pattern has {groups} groups; one must hold the answer", hint=r"as in --answer_pattern 'A: (.*)'"
        )


def _column_answers(ranking: Ranking, column: str) -> list[str | None]:
    answers = ranking.metadata.get(column)
    if not isinstance(answers, list) or len(answers) != len(ranking.completions):
        raise DataError(
            f"{column} does not hold one final answer for each of the {len(ranking.completions)} completions",
            where=str(ranking.origin) if ranking.origin else None,
        )
    return [None if answer is None else comparable(answer) for answer in answers]


def _text(completion: Sequence[dict]) -> str:
    return "\n".join(message.get("content") or "" for message in completion)


# Many pools


def check_pools(rankings: Sequence[Ranking], sizes: Sequence[int] | None) -> list[int]:
    """The sizes to report: those asked for, or of SIZES those that some pool reaches.

    Raises DataError for a prompt whose completions have no correctness, UsageError for a size beyond every pool.
    """
    for ranking in rankings:
        if ranking.scores is None or not all(0 <= score <= 1 for score in ranking.scores):
            raise DataError(
                "best-of-n needs to know which completions are correct",
                where=str(ranking.origin) if ranking.origin else None,
                hint="give a column `correct` with true or false (1 or 0) for each of the `completions`",
            )
    if not rankings:
        raise DataError("no prompts to evaluate", hint="check_data.py shows what the file holds")
    largest = max(len(ranking.completions) for ranking in rankings)
    if sizes and max(sizes) > largest:
        raise UsageError(
            f"--best_of_n {max(sizes)} is more than the {largest} completions of the largest pool",
            hint="name sizes up to the pool",
        )
    return sorted(set(sizes)) if sizes else [n for n in SIZES if n <= largest]


def judge(model: Any, rankings: Sequence[Ranking]) -> list[list[float | None]]:
    """The reward of every completion, [prompts][pool], from an outcome or a process reward model."""
    conversations = [(r.prompt, completion, r.tools, r.origin) for r in rankings for completion in r.completions]
    rewards = iter(score_distinct(model, conversations))
    model.warn_of_losses()
    return [[next(rewards) for _ in ranking.completions] for ranking in rankings]


def summarise(
    rankings: Sequence[Ranking], rewards: Sequence[Sequence[float | None]], sizes: Sequence[int], answers: Answers
) -> dict[str, Any]:
    """The curves and their 95 % intervals, clustered by prompt, as plain values that JSON can carry.

    mixed_prompts: those with correct and wrong completions, where alone it matters which is chosen.
    curve: one entry a size n, over the prompts whose pool holds n completions: `model` (best-scored of n), `random`,
    `longest` (the longest of n), `majority` (None where answers cannot be compared), `oracle` (any of n is right) and
    `gain` (model - random, paired).
    """
    flat = [reward for row in rewards for reward in row]
    return {
        "prompts": len(rankings),
        "completions": len(flat),
        "not_scored": sum(reward is None for reward in flat),
        "pool": {
            "smallest": min(len(r.completions) for r in rankings),
            "largest": max(len(r.completions) for r in rankings),
        },
        "mixed_prompts": sum(min(r.scores) < max(r.scores) for r in rankings),
        "majority_answers": answers.source,
        "majority_possible": answers.answers is not None,
        "curve": [_at(n, rankings, rewards, answers) for n in sizes],
    }


def _at(n: int, rankings, rewards, answers: Answers) -> dict[str, Any]:
    places = [i for i, ranking in enumerate(rankings) if len(ranking.completions) >= n]
    groups = prompt_keys([rankings[i] for i in places])

    def expected(function, columns) -> np.ndarray:
        return np.array([function(columns[i], rankings[i].scores, n) for i in places])

    lengths = {i: [float(answer_length(completion)) for completion in rankings[i].completions] for i in places}
    model = expected(best_of, rewards)
    random = np.array([np.mean(rankings[i].scores) for i in places])
    curves = {
        "model": model,
        "random": random,
        "longest": expected(best_of, lengths),
        "majority": None if answers.answers is None else expected(majority_vote, answers.answers),
        "oracle": np.array([oracle(rankings[i].scores, n) for i in places]),
    }
    estimates = {
        name: None if values is None else asdict(metrics.accuracy(np.clip(values, 0, 1), groups))
        for name, values in curves.items()
    }
    gain = asdict(metrics.difference(model, random, groups))
    return {"n": n, "prompts": len(places), **estimates, "gain": gain}


# ---- over-optimisation ------------------------------------------------------------------------------------------------


CURVE_POINTS = 60
DROP = 0.05
"""How far gold must lie below its best, as a share of its best gain, before a report calls it over-optimised."""


# ---- best-of-n ----------------------------------------------------------------------------------------------------


def best_of_n_kl(n: float) -> float:
    """log n - (n - 1)/n, in nats.

    >>> round(best_of_n_kl(16), 4)
    1.8351
    """
    if not n >= 1:
        raise ValueError(f"best-of-n needs n of at least 1, not {n}")
    return math.log(n) - (n - 1) / n


@dataclass(frozen=True)
class Point:
    """Mean proxy and gold reward at one KL from the initial policy. n: of best-of-n, else None."""

    kl: float
    proxy: float
    gold: float
    n: int | None = None


def best_of_n_points(
    proxy: Sequence[Sequence[float]], gold: Sequence[Sequence[float]], ns: Sequence[int] | None = None
) -> list[Point]:
    """Points of best-of-n for each n (powers of two up to the answers a prompt has), mean over prompts.

    proxy, gold: [prompts][N], with the same N for each prompt. Each point is the mean over all subsets of n of a prompt's
    N answers, in closed form (`best_of`), and so unbiased.
    """
    answers = {len(row) for row in (*proxy, *gold)}
    if len(answers) != 1:
        raise DataError(f"best-of-n needs as many answers for each prompt, not {sorted(answers)}")
    most = answers.pop()
    ns = ns or [2**k for k in range(most.bit_length()) if 2**k <= most]
    return [
        Point(
            best_of_n_kl(n),
            fmean(best_of(row, row, n) for row in proxy),
            fmean(best_of(row, values, n) for row, values in zip(proxy, gold, strict=True)),
            n,
        )
        for n in ns
    ]


# ---- curves -------------------------------------------------------------------------------------------------------


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
    """A fitted curve. rmse: of its residuals; start: R's zero, the reward of the initial policy."""

    form: str
    alpha: float
    beta: float
    rmse: float
    start: float

    def __call__(self, kl: float) -> float:
        d = math.sqrt(max(kl, 0.0))
        return self.start + self.alpha * d - self.beta * FORMS[self.form].second(d)

    @property
    def peak_kl(self) -> float | None:
        """The KL at which the curve is highest; None when it only rises or only falls."""
        if not (self.beta > 0 and (self.form == "rl" or self.alpha > 0)):
            return None
        try:
            return FORMS[self.form].peak(self.alpha, self.beta) ** 2
        except OverflowError:  # a straight line in d: beta is what rounding left of it
            return None


def fit(kls: Sequence[float], rewards: Sequence[float], form: str, start: float) -> Fit | None:
    """Least squares of R(d) = rewards - start. None with fewer than three points of different KL above zero.

    Both forms are linear in alpha and beta, so the fit is exact; with two points it would pass through both and say
    nothing.
    """
    pairs = [(math.sqrt(kl), reward - start) for kl, reward in zip(kls, rewards, strict=True) if kl > 0]
    if len({d for d, _ in pairs}) < 3:
        return None
    import numpy as np

    design = np.array([[d, -FORMS[form].second(d)] for d, _ in pairs])
    target = np.array([reward for _, reward in pairs])
    (alpha, beta), *_ = np.linalg.lstsq(design, target, rcond=None)
    residuals = target - design @ np.array([alpha, beta])
    return Fit(form, float(alpha), float(beta), float(np.sqrt(np.mean(residuals**2))), float(start))


@dataclass(frozen=True)
class Study:
    """One run against one reward model: its points in order of KL, and the curves fitted to proxy and gold."""

    name: str
    form: str
    points: list[Point]
    proxy: Fit | None
    gold: Fit | None

    @property
    def best(self) -> Point:
        return max(self.points, key=lambda point: point.gold)

    @property
    def overoptimised(self) -> bool:
        """Whether gold ends below its best by more than DROP of its best gain, while proxy rose on."""
        last, gain = self.points[-1], self.best.gold - self.points[0].gold
        return self.best.gold - last.gold > DROP * max(gain, 1e-9) and last.proxy > self.best.proxy

    def to_dict(self) -> dict[str, Any]:
        def described(curve: Fit | None, values: list[float]) -> dict[str, Any] | None:
            if curve is None:
                return None
            residuals = [value - curve(point.kl) for value, point in zip(values, self.points, strict=True)]
            formula = FORMS[self.form].formula
            return {**asdict(curve), "formula": formula, "peak_kl": curve.peak_kl, "residuals": residuals}

        return {
            "name": self.name,
            "form": self.form,
            "points": [asdict(point) for point in self.points],
            "proxy": described(self.proxy, [point.proxy for point in self.points]),
            "gold": described(self.gold, [point.gold for point in self.points]),
            "best": asdict(self.best),
            "overoptimised": self.overoptimised,
        }


def study(points: Sequence[Point], form: str, name: str = "") -> Study:
    """Fit the curves of one run. The point of lowest KL is taken for the initial policy when its KL is (nearly) zero."""
    points = sorted(points, key=lambda point: point.kl)
    if points[0].kl > 1e-3:
        raise DataError(
            f"{name or 'the run'} has no row for the initial policy: its lowest KL is {points[0].kl:.3g}",
            hint="add a row with kl 0 (or n 1): the curves are measured from there",
        )
    kls, start = [point.kl for point in points], points[0]
    proxy = fit(kls, [point.proxy for point in points], form, start.proxy)
    gold = fit(kls, [point.gold for point in points], form, start.gold)
    return Study(name, form, list(points), proxy, gold)


# ---- rows of a file -----------------------------------------------------------------------------------------------


def read_studies(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Study]:
    """Studies from (file and number, row) with `kl` or `n`, `proxy` and `gold`, grouped by `run` where there is one.

    n: best-of-n, whose KL follows from it; kl: reinforcement learning, in nats a response. Rows that hold lists in
    `proxy` and `gold`, one prompt's answers each, are turned into best-of-n points first (`best_of_n_points`).
    Raises DataError naming the row for a value that is missing or no finite number.
    """
    groups: dict[str, list[tuple[str, Mapping[str, Any]]]] = defaultdict(list)
    for where, row in rows:
        groups[str(row.get("run") or "")].append((where, row))
    return [_read_study(name, members) for name, members in groups.items()]


def _read_study(name: str, members: list[tuple[str, Mapping[str, Any]]]) -> Study:
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


def _finite(value: Any, name: str, where: str) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number:
        raise DataError(
            f"`{name}` is {value!r}, not a finite number",
            where=where,
            hint="rows need `kl` or `n`, and `proxy` and `gold`",
        )
    return float(value)


# ---- showing ------------------------------------------------------------------------------------------------------


def show(studies: Sequence[Study]) -> None:
    """A table of every point with the fitted gold, and one of the fits, on stderr."""
    rows = [
        [one.name, point.n, point.kl, point.proxy, point.gold, one.gold(point.kl) if one.gold else None]
        for one in studies
        for point in one.points
    ]
    table("proxy and gold against KL", ["run", "n", "KL", "proxy", "gold", "fitted gold"], rows)
    rows = [
        [one.name, FORMS[one.form].formula, one.gold.alpha, one.gold.beta, one.gold.rmse, one.gold.peak_kl]
        for one in studies
        if one.gold
    ]
    if rows:
        table("fitted gold", ["run", "R(d) - R(0)", "a", "b", "residual (rms)", "peak at KL"], rows)


def verdict(study: Study) -> list[str]:
    """One sentence about where gold is best, and whether the run went on beyond it."""
    best, last = study.best, study.points[-1]
    of_n = f" (n = {best.n})" if best.n is not None else ""
    found = f"{study.name}: gold is best, {best.gold:.3f}, at a KL of {best.kl:.2f}{of_n}"
    if study.overoptimised:
        found += f", and falls to {last.gold:.3f} at {last.kl:.2f} while proxy rises from {best.proxy:.2f} to {last.proxy:.2f}: over-optimised"
    elif best is last:
        found += ", the last point: nothing shows that more optimisation would hurt"
    return [found]


def picture(studies: Sequence[Study]) -> list[Panel]:
    """One panel a study: measured proxy and gold as dots, the fitted curves through them."""
    panels = []
    for one in studies:
        most = max(point.kl for point in one.points)
        grid = [most * (i / CURVE_POINTS) ** 2 for i in range(CURVE_POINTS + 1)]  # even steps in d
        series = []
        for colour, (name, curve) in enumerate((("proxy", one.proxy), ("gold", one.gold))):
            series.append(Series(name, [(p.kl, getattr(p, name)) for p in one.points], "dots", colour))
            if curve:
                line = [(kl, curve(kl)) for kl in grid]
                series.append(Series(f"{name}, fitted", line, "dashed" if name == "proxy" else "line", colour))
        panels.append(Panel(one.name, "KL (nats per response)", "reward", series))
    return panels
