"""Final answers of completions, and how often a majority vote over n of them is right (Wang et al. 2022, arXiv:2203.11171)."""

import math
import re
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.records import Ranking
from ..errors import DataError, UsageError

ENOUGH_ANSWERS = 0.5
"""The share of the completions that must have a final answer."""
DRAWS = 4096
"""Draws of n that stand for all: the standard error is at most 0.008 for a prompt, and at most 1/64 of what the choice of the
prompts leaves open, so the intervals need no room for it."""

ANSWER_PATTERNS = (
    r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}",
    r"^####\s*(.+)$",
    r"^A(?:nswer)?:\s*(.+)$",
    r"[Tt]he (?:final )?answer is:?\s*(.+?)\.?$",
)


def majority_vote(answers: Sequence[str | None], correct: Sequence[float], n: int, key: str = "") -> float:
    """Expected correctness of the most frequent answer among n drawn, ties broken at random; None casts no vote.

    answers, correct: [pool]. An answer is as correct as its completions are on average. key: a seed, of the prompt.
    """
    of_answer = defaultdict(list)
    for answer, right in zip(answers, correct, strict=True):
        of_answer[answer].append(right)
    silent = len(of_answer.pop(None, ()))
    if n == 1 or not of_answer:
        return sum(map(sum, of_answer.values())) / len(answers)
    sizes, shares = map(list, zip(*((len(rights), np.mean(rights)) for rights in of_answer.values()), strict=True))
    random = np.random.default_rng([n, zlib.crc32(key.encode())])
    votes = random.multivariate_hypergeometric([*sizes, silent], n, size=DRAWS, method="count")[:, :-1]
    most = votes.max(axis=1, keepdims=True)
    chosen = (votes == most) & (most > 0)
    return float(np.mean(chosen @ shares / np.maximum(chosen.sum(axis=1), 1)))


def final_answer(text: str, pattern: str | None = None) -> str | None:
    """In a form that can be compared, by group 1 of the pattern or of the first of ANSWER_PATTERNS that matches."""
    for expression in [pattern] if pattern else ANSWER_PATTERNS:
        if found := re.findall(expression, text, re.MULTILINE):
            return comparable(found[-1])
    return None


def comparable(answer: object) -> str | None:
    """Without whitespace, a closing full stop, currency and thousands signs; 3.0 is 3."""
    text = str(answer).strip().rstrip(".").replace("$", "").replace(",", "").strip().casefold()
    try:
        number = float(text)
    except ValueError:
        return " ".join(text.split()) or None
    return f"{number:.12g}" if math.isfinite(number) else text


@dataclass(frozen=True)
class Answers:
    """[prompts][pool], or None and the reason why there is no vote."""

    answers: list[list[str | None]] | None
    source: str


def find_answers(rankings: Sequence[Ranking], *, column: str | None = None, pattern: str | None = None) -> Answers:
    if column is not None:
        return Answers([_column_answers(ranking, column) for ranking in rankings], f"the column {column}")
    check_pattern(pattern)
    found = [
        [final_answer("\n".join(message.get("content") or "" for message in one), pattern) for one in row.completions]
        for row in rankings
    ]
    share = float(np.mean([answer is not None for answers in found for answer in answers]))
    if share < ENOUGH_ANSWERS:
        return Answers(None, f"only {share:.1%} of the completions state a final answer that could be compared")
    return Answers(found, f"the texts, {share:.1%} of which state one")


def check_pattern(pattern: str | None) -> None:
    try:
        groups = 1 if pattern is None else re.compile(pattern).groups
    except re.error as error:
        raise UsageError(f"--answer_pattern is not a regular expression: {error}") from error
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
