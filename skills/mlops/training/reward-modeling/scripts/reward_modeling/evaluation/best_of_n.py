"""How good is the best-scored of n answers? Expected accuracies over all draws of n from a prompt's pool, in closed form.

A pool is one prompt's completions with known correctness. A curve from one random draw of n, or from the first n, is
noisy and depends on the order of the file; here every subset of size n counts the same, without replacement, so the
numbers are those that enumerating all subsets would give. n = 1 is random choice for every selector.

Sources
    Chen et al. 2021, "Evaluating Large Language Models Trained on Code", arXiv:2107.03374 Eq. 1: the oracle, pass@n
    Lightman et al. 2023, "Let's Verify Step by Step", arXiv:2305.20050, section 3: best-of-n by a reward model against
        majority vote, of random subsets of a pool
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..console import DataError, UsageError
from ..records import Ranking
from . import intervals
from .comparisons import answer_length, prompt_keys, score_distinct

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
        name: None if values is None else asdict(intervals.accuracy(np.clip(values, 0, 1), groups))
        for name, values in curves.items()
    }
    gain = asdict(intervals.difference(model, random, groups))
    return {"n": n, "prompts": len(places), **estimates, "gain": gain}
