"""Evaluate a reward model on labeled comparisons. `pair_measures` has the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from ..data.audit.findings import Material, agreement
from ..data.records import Comparison
from ..errors import DataError
from .inputs import (
  TOO_LONG,
  Diagnostic,
  answer_length,
  diagnosed,
  nothing_fits,
  output_row,
  prompt_keys,
  score_answers,
  subsets,
)
from .intervals import Estimate
from .pair_measures import PairedComparison, PairSummary, compare_outcomes, pair_outcomes, summarize_pairs
from .probes import ProbeSummary, ScoreAnswers, probe_pairs

if TYPE_CHECKING:
  from ..scoring import RewardModel

STRONG_CORRELATION = 0.5
LARGE_ECE = 0.1
MANY_TIES = 0.05
LEVEL = 0.05


@dataclass(frozen=True)
class PairEvaluation:
  """chosen, rejected: [n] rewards of the pairs of which both sides got one. scored: all pairs, each with both rewards or None."""

  chosen: np.ndarray
  rejected: np.ndarray
  summary: PairSummary
  scored: list[tuple[Comparison, float | None, float | None]]

  @property
  def rewards(self) -> list[float]:
    return [*self.chosen, *self.rejected]

  def probed(self, score: ScoreAnswers) -> ProbeSummary:
    return probe_pairs(self.scored, score)

  def compared(self, other: PairEvaluation, names: tuple[str, str], subset_column: str | None) -> dict[str, object]:
    whole, parts, verdict = compare(self, other, names, subset_column)
    return {**vars(whole), "verdict": verdict, "by_subset": parts}

  def rows(self, other: PairEvaluation | None = None) -> list[dict[str, object]]:
    """One JSON row for each pair of the input, with the rewards of the `other` model too."""
    rows = []
    for place, (pair, *rewards) in enumerate(self.scored):
      found = dict(zip(("reward_chosen", "reward_rejected"), rewards, strict=True))
      if other:
        found |= dict(zip(("other_reward_chosen", "other_reward_rejected"), other.scored[place][1:], strict=True))
      found |= {f"length_{side}": answer_length(getattr(pair, side)) for side in ("chosen", "rejected")}
      rows.append(output_row(pair, "chosen", "rejected", **found))
    return rows


def evaluate_pairs(
  model: RewardModel, comparisons: Sequence[Comparison], *, subset_column: str | None = None
) -> PairEvaluation:
  before = dict(model.renderer.counts)
  scored = [(pair, *both) for pair, both in zip(comparisons, score_answers(model, comparisons), strict=True)]
  kept = [row for row in scored if None not in row[1:]]
  if not kept:
    raise nothing_fits(model, f"{len(comparisons)} pairs")
  pairs, chosen, rejected = zip(*kept, strict=True)
  counts = model.renderer.counts
  summary = summarize_pairs(
    chosen,
    rejected,
    chosen_lengths=[answer_length(pair.chosen) for pair in pairs],
    rejected_lengths=[answer_length(pair.rejected) for pair in pairs],
    groups=prompt_keys(pairs),
    subsets=subsets(pairs, subset_column),
    weights=[pair.weight for pair in pairs],
    not_scored=len(comparisons) - len(kept),
    ceiling=agreement(chain(*Material(pairs).links), 1),
    **{name: counts[name] - before.get(name, 0) for name in ("truncated", "not_rendered")},
  )
  model.warn_of_losses(before)
  return PairEvaluation(np.array(chosen), np.array(rejected), summary, scored)


@dataclass(frozen=True, kw_only=True)
class SubsetComparison(PairedComparison):
  p: float
  """`prompt_sign_test_p`, corrected for the number of subsets (Holm 1979): under 0.05 the difference is not luck."""


def compare(
  first: PairEvaluation, second: PairEvaluation, names: tuple[str, str], subset_column: str | None = None
) -> tuple[PairedComparison, dict[str, SubsetComparison], str]:
  """(on all pairs, on each subset where both scored some, which is better and whether it could be luck)."""
  pairs = [pair for pair, _, _ in first.scored]
  of_models = [[rewards for _, *rewards in one.scored] for one in (first, second)]
  both = [place for place, rewards in enumerate(zip(*of_models, strict=True)) if None not in chain(*rewards)]
  if not both:
    raise DataError("no pair was scored by both models", hint=TOO_LONG)

  def compared(places: list[int]) -> PairedComparison:
    kept = [pairs[place] for place in places]
    outcomes = [pair_outcomes(*np.transpose([rewards[place] for place in places])) for rewards in of_models]
    return compare_outcomes(*outcomes, groups=prompt_keys(kept), weights=[pair.weight for pair in kept])

  whole = compared(both)
  names_of = subsets(pairs, subset_column) or ()
  named = {name: [place for place in both if names_of[place] == name] for name in sorted(set(names_of))}
  found = {name: compared(places) for name, places in named.items() if places}
  corrected = holm([part.prompt_sign_test_p for part in found.values()])
  parts = {name: SubsetComparison(**vars(found[name]), p=p) for name, p in zip(found, corrected, strict=True)}
  return whole, parts, _verdict(whole, parts, names)


def holm(p_values: Sequence[float]) -> list[float]:
  """p-values corrected for their number: the k-th smallest of m times m - k + 1, never falling. Holm 1979.

  >>> holm([0.01, 0.04, 0.03])
  [0.03, 0.06, 0.06]
  """
  corrected, most = [0.0] * len(p_values), 0.0
  for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
    most = max(most, min(1.0, (len(p_values) - rank) * p_values[place]))
    corrected[place] = most
  return corrected


def _verdict(whole: PairedComparison, parts: dict[str, SubsetComparison], names: tuple[str, str]) -> str:
  p, gap = whole.prompt_sign_test_p, whole.difference
  shown = p < LEVEL and not gap.low <= 0 <= gap.high
  (a, right_a), (b, right_b) = zip(names, (whole.accuracy_a.value, whole.accuracy_b.value), strict=True)
  if shown and gap.value < 0:  # the better one first
    a, right_a, b, right_b = b, right_b, a, right_a
    gap = replace(gap, value=-gap.value, low=-gap.high, high=-gap.low)
  said = f"{a} is better than {b}" if shown else f"it is not shown which of {a} and {b} is better"
  said += f": accuracy {right_a:.3f} against {right_b:.3f}, difference {gap:+.3f}, p {p:.2g}"
  sign = whole.difference.value
  split = [name for name, part in parts.items() if part.p < LEVEL and (not shown or part.difference.value * sign < 0)]
  return f"{said}; but they differ on {', '.join(split)}" if split else said


def _miscalibrated(summary: PairSummary) -> bool:
  """By more than few pairs produce: a calibrated model on 50 pairs shows about 0.1 by chance."""
  return summary.ece > max(LARGE_ECE, 2 * summary.ece_if_calibrated)


def _strong(estimate: Estimate | None) -> bool:
  return estimate is not None and abs(estimate.value) > STRONG_CORRELATION


_CALIBRATION = "confident: confidence minus accuracy is {overconfidence:+.3f} (ECE {ece:.3f}, where chance alone would give {ece_if_calibrated:.3f})"

MANY_UNSCORED = 0.1
PAIR_DIAGNOSTICS: dict[str, Diagnostic] = {
  "not_scored": Diagnostic(
    lambda s: s.not_scored > MANY_UNSCORED * (s.not_scored + s.n_pairs),
    "{not_scored} pairs did not fit and were not scored: all numbers are of the other {n_pairs}",
    "raise --max_length if the model reads more, or evaluate with --overlong truncate_left",
  ),
  "chance": Diagnostic(
    lambda s: s.accuracy.low <= 0.5 <= s.accuracy.high,
    "accuracy {accuracy:.3f} is not distinguishable from chance",
    "evaluate on more prompts ({n_prompts} here), or train on more pairs",
  ),
  "below_chance": Diagnostic(
    lambda s: s.accuracy.high < 0.5,
    "accuracy {accuracy:.3f} is below chance",
    "check that chosen and rejected are not swapped",
  ),
  "length_baseline": Diagnostic(
    lambda s: s.length.gain_over_baseline.low <= 0,
    "accuracy is not shown to be above the better length baseline (longer {length.baseline_longer.value:.3f}, "
    "shorter {length.baseline_shorter.value:.3f}): gain {length.gain_over_baseline:+.3f}",
    "compare accuracy where the chosen answer is longer and where it is shorter",
  ),
  "length_bias": Diagnostic(
    lambda s: _strong(s.length.spearman_reward_length),
    "length bias: over all answers, reward and length have rank correlation {length.spearman_reward_length.value:+.2f}",
    "balance the training pairs by length; check that it holds within a prompt too",
  ),
  "length_bias_within_prompts": Diagnostic(
    lambda s: _strong(s.length.spearman_margin_length_difference),
    "length bias: within pairs, difference of rewards and difference of lengths have rank correlation "
    "{length.spearman_margin_length_difference.value:+.2f}",
    "balance the training pairs by length: as many with the shorter answer chosen as with the longer",
  ),
  "overconfident": Diagnostic(
    lambda s: _miscalibrated(s) and s.overconfidence > 0,
    f"over{_CALIBRATION}",
    "train for fewer epochs or with label smoothing, or divide rewards by a temperature fitted on held-out pairs",
  ),
  "underconfident": Diagnostic(
    lambda s: _miscalibrated(s) and s.overconfidence < 0,
    f"under{_CALIBRATION}",
    "train longer, or divide rewards by a temperature fitted on held-out pairs; the ranking is not affected",
  ),
  "ties": Diagnostic(
    lambda s: s.tie_share > MANY_TIES,
    "{ties} of {n_pairs} pairs ({tie_share:.1%}) tie exactly: likely low-precision scores, or identical answers",
    "score with --dtype float32; check_data.py counts identical and truncated-to-identical pairs",
  ),
}


def diagnose_pairs(summary: PairSummary) -> list[str]:
  return diagnosed(summary, PAIR_DIAGNOSTICS.values())
