"""Accuracy of the best-scored of n answers of a prompt's pool, over all draws of n, in closed form (arXiv:2305.20050, section 3)."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from ..data.records import Ranking
from ..errors import DataError, UsageError
from ..terminal import log, table
from .diagnostics import Diagnostic, diagnosed, value
from .inputs import answer_length, prompt_keys
from .intervals import Estimate, accuracy, difference
from .votes import Answers, majority_vote

POOL_SIZES = (1, 4, 16, 64, 100)
OTHERS = ("random", "longest", "majority", "oracle")


@dataclass(frozen=True)
class CurvePoint:
    n: int
    prompts: int
    """Those that have n completions."""
    model: Estimate
    """Expected accuracy of the best-scored of n; of tied ones any."""
    random: Estimate
    """Of any completion."""
    longest: Estimate
    """Of the longest of n, by characters."""
    majority: Estimate | None
    """Of the most frequent final answer of n, ties at random; null where answers cannot be compared."""
    oracle: Estimate
    """Whether some of n is correct: pass@n, arXiv:2107.03374 Eq. 1."""
    gain: Estimate
    """`model` minus `random`, paired: below zero the model prefers wrong answers."""


@dataclass(frozen=True)
class PoolSize:
    smallest: int
    largest: int


@dataclass(frozen=True, kw_only=True)
class PoolSummary:
    prompts: int
    completions: int
    not_scored: int
    pool: PoolSize
    """Completions of a prompt."""
    mixed_prompts: int
    """Those with correct and wrong completions, where alone it matters which is chosen."""
    majority_answers: str
    """Where the final answers are from, or why there is no vote."""
    majority_possible: bool
    curve: list[CurvePoint]


def best_of(scores: Sequence[float | None], correct: Sequence[float], n: int) -> float:
    """Expected correctness [0, 1] of the best-scored of n; ties by chance. scores: [pool], None ranks last. correct: [pool]."""
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


def check_pools(rankings: Sequence[Ranking], sizes: Sequence[int] | None) -> list[int]:
    """The sizes to report: those asked for, or of POOL_SIZES those that some pool reaches."""
    for ranking in rankings:
        if ranking.scores is None or not all(0 <= score <= 1 for score in ranking.scores):
            raise DataError(
                "best-of-n needs to know which completions are correct",
                where=str(ranking.origin) if ranking.origin else None,
                hint="give a column `correct` with true or false for each of the `completions`",
            )
    if not rankings:
        raise DataError("no prompts to evaluate", hint="check_data.py shows what the file holds")
    largest = max(len(ranking.completions) for ranking in rankings)
    if sizes and max(sizes) > largest:
        raise UsageError(f"--best_of_n {max(sizes)} is more than the {largest} completions of the largest pool")
    return sorted(set(sizes)) if sizes else [n for n in POOL_SIZES if n <= largest]


def summarize_pools(
    rankings: Sequence[Ranking], rewards: Sequence[Sequence[float | None]], sizes: Sequence[int], answers: Answers
) -> PoolSummary:
    """rewards: [prompts][pool]."""
    pools = [len(ranking.completions) for ranking in rankings]
    return PoolSummary(
        prompts=len(rankings),
        completions=sum(pools),
        not_scored=sum(reward is None for row in rewards for reward in row),
        pool=PoolSize(min(pools), max(pools)),
        mixed_prompts=sum(min(r.scores) < max(r.scores) for r in rankings),
        majority_answers=answers.source,
        majority_possible=answers.answers is not None,
        curve=[_at(n, rankings, rewards, answers) for n in sizes],
    )


def _at(n: int, rankings: Sequence[Ranking], rewards: Sequence[Sequence[float | None]], answers: Answers) -> CurvePoint:
    places = [i for i, ranking in enumerate(rankings) if len(ranking.completions) >= n]
    pools, groups = [rankings[i] for i in places], prompt_keys([rankings[i] for i in places])

    def best(scores: Iterable[Sequence[float | None]]) -> np.ndarray:
        return np.clip([best_of(row, pool.scores, n) for row, pool in zip(scores, pools, strict=True)], 0, 1)

    model, random = best(rewards[i] for i in places), best([0.0] * len(pool.scores) for pool in pools)
    votes = answers.answers and [
        majority_vote(answers.answers[i], rankings[i].scores, n, key) for i, key in zip(places, groups, strict=True)
    ]
    return CurvePoint(
        n=n,
        prompts=len(places),
        model=accuracy(model, groups),
        random=accuracy(random, groups),
        longest=accuracy(best([answer_length(answer) for answer in pool.completions] for pool in pools), groups),
        majority=votes and accuracy(np.clip(votes, 0, 1), groups),
        oracle=accuracy(best(pool.scores for pool in pools), groups),
        gain=difference(model, random, groups),
    )


BEST_OF_N_DIAGNOSTICS: dict[str, Diagnostic] = {
    "worse_than_random": Diagnostic(
        lambda s: s.gain.high < 0,
        "best of {n}: {model.value:.3f} is below random choice ({random.value:.3f}); gain {gain:+.3f}",
        "do not choose by it; train on answers of the generator that is to be ranked",
    ),
    "random": Diagnostic(
        lambda s: s.gain.low <= 0 <= s.gain.high,
        "best of {n}: {model.value:.3f} is not shown to be above random choice ({random.value:.3f}); gain {gain:+.3f}",
        "train on answers of the generator that is to be ranked",
    ),
    "majority": Diagnostic(
        lambda s: s.majority and s.majority.value >= s.model.value,
        "best of {n}: majority vote ({majority.value:.3f}) is at least as good as the model ({model.value:.3f})",
        "vote, which needs no model",
    ),
    "longest": Diagnostic(
        lambda s: s.longest.value >= s.model.value,
        "best of {n}: taking the longest ({longest.value:.3f}) is at least as good as the model ({model.value:.3f})",
        "balance the training data by length",
    ),
    "not_scored": Diagnostic(
        lambda s: s.not_scored > 0,
        "{not_scored} of {completions} completions were not scored and are never preferred",
        "raise --max_length, or choose another --overlong",
    ),
}


def diagnose_best_of_n(summary: PoolSummary) -> list[str]:
    return diagnosed(SimpleNamespace(**{**vars(summary), **vars(summary.curve[-1])}), BEST_OF_N_DIAGNOSTICS)


def show_best_of_n(summary: PoolSummary, name: str) -> None:
    table(
        f"{name}: accuracy of the best-scored of n, {summary.completions} completions of {summary.prompts} prompts, "
        f"{summary.mixed_prompts} of which have correct and wrong ones",
        ["n", "prompts", "model [95 %]", "gain over random [95 %]"],
        [[at.n, at.prompts, f"{at.model:.4f}", f"{at.gain:.4f}"] for at in summary.curve],
    )
    rows = [[at.n, *(value(getattr(at, other)) for other in OTHERS)] for at in summary.curve]
    table("accuracy of other choices", ["n", *OTHERS], rows)
    vote = "final answers are from" if summary.majority_possible else "no majority vote:"
    log(f"{vote} {summary.majority_answers}")
