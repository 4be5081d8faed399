"""What a report says first: may the model be used, and up to where."""

import math

import pytest

from reward_modeling.evaluation.best_of_n import CurvePoint
from reward_modeling.evaluation.intervals import Estimate
from reward_modeling.evaluation.overoptimization import diagnose_study, read_studies
from reward_modeling.evaluation.probes import ProbeResult, ProbeSummary, diagnose_probes
from reward_modeling.evaluation.ratings import AttributeSummary, RatingSummary
from reward_modeling.evaluation.report import verdicts
from reward_modeling.evaluation.results import OverOptimizationReport, PoolReport, RatingComparison, RatingReport
from reward_modeling.evaluation.sections import sections_of
from reward_modeling.evaluation.studies import GOLD


def estimate(value, half=0.01):
  return Estimate(value, value - half, value + half, 100, 100)


def pools(gains):
  """A report in which n answers are better than a random one of 0.5 by so much."""
  half = estimate(0.5)
  curve = [
    CurvePoint(n, 100, estimate(0.5 + gain), half, half, None, half, estimate(gain)) for n, gain in gains.items()
  ]
  counts = {"prompts": 100, "completions": 800, "not_scored": 0, "pool": {}, "mixed_prompts": 100, "set_aside": {}}
  said = {"model": "m", "dataset": ["data/pools.jsonl"], "format": "ranking", "diagnostics": [], "output": None}
  return PoolReport(curve=curve, majority_answers="", majority_possible=False, **counts, **said)


def studies(*golds):
  points = [
    ("f:1", {"run": str(run), "n": 4**i, "proxy": i, "gold": gold})
    for run, of in enumerate(golds)
    for i, gold in enumerate(of)
  ]
  found = read_studies(points)
  return OverOptimizationReport(found, [diagnose_study(study) for study in found], None)


def answer(question, *parts):
  return next(said for asked, said in verdicts({type(part): part for part in parts}) if question in asked)


@pytest.mark.parametrize(
  ("gains", "start", "end"),
  [
    ({1: 0, 4: 0.1, 16: 0.2}, "Yes: up to n = 16, 0.700 [", "pools.jsonl: better at n = 4, 16; larger n: unknown."),
    ({1: 0, 4: 0.1, 16: -0.1}, "Yes: up to n = 4, 0.600 [", "better at n = 4; worse at n = 16; larger n: unknown."),
    ({1: 0, 4: -0.1, 16: -0.2}, "No: at n = 16, 0.300 [", "worse at n = 4, 16; larger n: unknown."),
    ({1: 0, 4: 0.005}, "Not shown: at n = 4, 0.505 [", "not shown to be better; larger n: unknown."),
  ],
)
def test_best_of_n_is_answered_for_every_n_that_was_measured(gains, start, end):
  said = answer("best of n", pools(gains))
  assert said.startswith(start) and said.endswith(end) and "correct, 0.500 at random" in said


@pytest.mark.parametrize(
  ("golds", "start"),
  [
    ([(0, 1, 2)], "As far as measured: 0: gold is best, 2.000 from 0.000, at a KL of 1.84 (n = 16), the last point"),
    ([(0, 2, 1)], "Only so far: 0: gold is best, 2.000 from 0.000, at a KL of 0.64 (n = 4), and falls to 1.000"),
    ([(2, 1, 0)], "No: 0: gold never rises above that of the start, 2.000; it ends at 0.000."),
    ([(2, 1, 0), (0, 1, 2)], "Only so far: 0: gold never rises"),
  ],
)
def test_reinforcement_learning_is_answered_by_gold(golds, start):
  assert answer("reinforcement learning", studies(*golds)).startswith(start)
  assert math.isclose(studies((0, 1, 2)).studies[0].best.kl, math.log(16) - 15 / 16)


def test_a_best_of_n_that_makes_answers_worse_forbids_reinforcement_learning():
  worse, better = pools({1: 0, 4: -0.1, 16: -0.2}), pools({1: 0, 4: 0.1})
  assert answer("reinforcement learning", studies((0, 1, 2)), worse).startswith("No: its best of n is worse")
  assert answer("reinforcement learning", studies((0, 1, 2)), better).startswith("As far as measured")


def test_what_was_not_measured_is_called_so():
  said = dict(verdicts({}))
  assert len(said) == 4 and all(text.startswith("Not ") for text in said.values())


def test_what_fools_it_is_told_from_damage_that_it_does_not_notice():
  from reward_modeling.evaluation.report import _fooled, _limit

  probes = {
    "flattery": ProbeResult("praise", "not rise", "", "fooled", estimate(0.5)),
    "self_praise": ProbeResult("own praise", "not rise", "", "unsure", estimate(0.5)),
    "shuffled": ProbeResult("other order", "fall", "", "fooled", estimate(0.0)),
  }
  found = ProbeSummary(100, 1.0, ["flattery", "shuffled"], probes)
  said = (
    "Fooled: flattery (praise: +0.50 sd). Notices no damage: shuffled (other order: +0.00 sd). Unsure: self praise."
  )
  assert _fooled(found, True) == said and _fooled(found, False).startswith(f"{said} It is not shown to rank better")
  assert _limit(None, found).endswith("an optimizer finds out how.") and "fooled" not in _limit(None, None)
  assert diagnose_probes(found) == [
    "fooled: flattery (praise: +0.50 sd). Next: add pairs whose better answer lacks it; an optimizer will find it.",
    "notices no damage: shuffled (other order: +0.00 sd). Next: add pairs whose rejected answer is damaged so.",
  ]
  assert diagnose_probes(None) == [] and GOLD in _limit(None, found)
  blind = ProbeSummary(100, 1.0, ["shuffled"], probes)
  assert "fooled" not in _limit(None, blind)


@pytest.mark.parametrize(
  ("correlations", "start"),
  [((0.8, 0.6), "Yes"), ((0.8, 0.22), "In part"), ((0.22,), "In part"), ((0.05,), "Not shown"), ((-0.4,), "Not shown")],
)
def test_a_weak_correlation_with_ratings_is_no_yes(correlations, start):
  summaries = {
    f"a{place}": AttributeSummary(100, estimate(r, 0.1), estimate(r, 0.1), None) for place, r in enumerate(correlations)
  }
  said = {"model": "m", "dataset": ["r.jsonl"], "format": "rated", "set_aside": {}, "diagnostics": [], "output": None}
  report = RatingReport(n_answers=100, not_scored=0, attributes=summaries, **said)
  assert answer("rate answers", report).startswith(f"{start}: correlation with a0 {correlations[0]:.2f}")


@pytest.mark.parametrize(
  ("accuracies", "start"),
  [((0.8, 0.6), "Yes"), ((0.8, 0.505), "In part"), ((0.505,), "Not shown"), ((0.4,), "No"), ((None,), "Not measured")],
)
def test_ratings_answer_whether_answers_to_one_prompt_are_ranked(accuracies, start):
  summaries = {
    f"a{place}": AttributeSummary(100, None, None, one and estimate(one)) for place, one in enumerate(accuracies)
  }
  said = {"model": "m", "dataset": ["r.jsonl"], "format": "rated", "set_aside": {}, "diagnostics": [], "output": None}
  text = answer("rank answers", RatingReport(n_answers=100, not_scored=0, attributes=summaries, **said))
  assert text.startswith(f"{start}: ") and ("by a0 on" in text) == (accuracies[0] is not None)


@pytest.mark.parametrize(("gain", "start"), [(0.02, "Yes"), (0.005, "Not shown")])
def test_ratings_say_what_a_share_of_pairs_is_a_mean_of_and_what_length_does(gain, start):
  by_prompt, by_pair = Estimate(0.641, 0.6, 0.7, 92, 16), Estimate(0.522, 0.5, 0.6, 92, 16)
  one = AttributeSummary(100, None, None, by_prompt, by_pair, estimate(0.641 - gain), estimate(gain))
  said = {"model": "m", "dataset": ["r.jsonl"], "format": "rated", "set_aside": {}, "diagnostics": [], "output": None}
  text = answer("rank answers", RatingReport(n_answers=100, not_scored=0, attributes={"a": one}, **said))
  assert text.startswith(f"{start}: ") and f"always the longer one: {one.baseline_longer.value:.1%}" in text
  assert "by a on 64.1%, the mean over 16 prompts (52.2% of their 92 pairs;" in text


def test_two_models_that_share_no_attribute_are_still_shown():
  one = {"a": AttributeSummary(9, None, None, None)}
  both = RatingComparison(
    model="n", verdict="no attribute is rated for both", attributes={}, other=RatingSummary(9, 0, one)
  )
  said = {"model": "m", "dataset": ["r"], "format": "rated", "set_aside": {}, "diagnostics": [], "output": None}
  found = list(sections_of(RatingReport(n_answers=9, not_scored=0, attributes=one, comparison=both, **said)))
  assert [len(section.rows) for section in found] == [11, 11, 0] and "rated for both" in found[2].texts[0]
