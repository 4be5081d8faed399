"""Accuracy of the best-scored of n answers of a prompt's pool, over all draws of n, in closed form (arXiv:2305.20050, section 3)."""

import math
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from ..data.records import Ranking
from ..errors import DataError, UsageError
from .inputs import Diagnostic, answer_length, diagnosed, prompt_keys
from .intervals import Estimate, accuracy, difference

POOL_SIZES = (1, 4, 16, 64, 100)
ENOUGH_ANSWERS = 0.5
"""The share of the completions that must have a final answer."""
DRAWS = 4096
"""Draws of n that stand for all: the standard error is at most 0.008 for a prompt, 1/64 of what the choice of prompts leaves open."""

ANSWER_PATTERNS = (
  r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}",
  r"^####\s*(.+)$",
  r"^A(?:nswer)?:\s*(.+)$",
  r"[Tt]he (?:final )?answer is:?\s*(.+?)\.?$",
)


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


@dataclass(frozen=True, kw_only=True)
class PoolSummary:
  prompts: int
  completions: int
  not_scored: int
  pool: dict[str, int]
  """Completions of a prompt: smallest and largest."""
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


def majority_vote(answers: Sequence[str | None], correct: Sequence[float], n: int, key: str = "") -> float:
  """Expected correctness of the most frequent of n answers drawn (arXiv:2203.11171), ties at random; None casts no vote.

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


class Answers(NamedTuple):
  """[prompts][pool], or None and why there is no vote."""

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
    what = f"--answer_pattern has {groups} groups; one must hold the answer"
    raise UsageError(what, hint=r"as in --answer_pattern 'A: (.*)'")


def _column_answers(ranking: Ranking, column: str) -> list[str | None]:
  answers = ranking.metadata.get(column)
  if not isinstance(answers, list) or len(answers) != len(ranking.completions):
    what = f"{column} does not hold one final answer for each of the {len(ranking.completions)} completions"
    raise DataError(what, where=ranking.origin)
  return [None if answer is None else comparable(answer) for answer in answers]


def check_pools(rankings: Sequence[Ranking], sizes: Sequence[int] | None) -> list[int]:
  """The sizes to report: those asked for, or of POOL_SIZES those that some pool reaches."""
  for ranking in rankings:
    if ranking.scores is None or not all(0 <= score <= 1 for score in ranking.scores):
      what = "best-of-n needs to know which completions are correct"
      hint = "give a column `correct` with true or false for each of the `completions`"
      raise DataError(what, where=ranking.origin, hint=hint)
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
    pool={"smallest": min(pools), "largest": max(pools)},
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


def _as_good(other: str, name: str, then: str) -> Diagnostic:
  return Diagnostic(
    lambda s: getattr(s, other) and getattr(s, other).value >= s.model.value,
    f"best of {{n}}: {name} ({{{other}.value:.3f}}) is at least as good as the model ({{model.value:.3f}})",
    then,
  )


BEST_OF_N_DIAGNOSTICS = (
  Diagnostic(
    lambda s: s.gain.high < 0,
    "best of {n}: {model.value:.3f} is below random choice ({random.value:.3f}); gain {gain:+.3f}",
    "do not choose by it; train on answers of the generator that is to be ranked",
  ),
  Diagnostic(
    lambda s: s.gain.low <= 0 <= s.gain.high,
    "best of {n}: {model.value:.3f} is not shown to be above random choice ({random.value:.3f}); gain {gain:+.3f}",
    "train on answers of the generator that is to be ranked",
  ),
  _as_good("majority", "majority vote", "vote, which needs no model"),
  _as_good("longest", "taking the longest", "balance the training data by length"),
  Diagnostic(
    lambda s: s.not_scored > 0,
    "{not_scored} of {completions} completions were not scored and are never preferred",
    "raise --max_length, or choose another --overlong",
  ),
)


def diagnose_best_of_n(summary: PoolSummary) -> list[str]:
  return diagnosed(SimpleNamespace(**{**vars(summary), **vars(summary.curve[-1])}), BEST_OF_N_DIAGNOSTICS)
