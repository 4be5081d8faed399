"""Evaluating steps: a scorer that knows the labels, baselines worked by hand, and every sentence with its numbers."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from reward_modeling.aggregation import StepScores, probability
from reward_modeling.data.records import Solution
from reward_modeling.errors import DataError
from reward_modeling.evaluation import steps
from reward_modeling.evaluation.results import StepReport
from reward_modeling.evaluation.sections import sections_of


def solution(labels, prompt="2+2?", texts=None, **metadata):
  texts = texts or [f"step {i}" for i in range(len(labels))]
  return Solution([{"role": "user", "content": prompt}], texts, labels, metadata=metadata)


class Scorer:
  """Gives the first steps' probabilities from a table keyed by the prompt; nothing was left out or cut."""

  renderer, saved_threshold, value = SimpleNamespace(counts=Counter()), None, staticmethod(probability)

  def warn_of_losses(self, before):
    assert before == {}

  def __init__(self, table):
    self.table = table

  def score_solutions(self, solutions, progress=None):
    return [
      StepScores([float(np.log(p / (1 - p))) for p in self.table[prompt[0]["content"]]]) for prompt, _, _ in solutions
    ]


def world(n, seed=0):
  """Solutions of two to four steps, and a scorer that knows every wrong step but is off in its zero: 0.9 and 0.7."""
  rng, rows, table = np.random.default_rng(seed), [], {}
  for i in range(n):
    labels = [1.0] * int(rng.integers(1, 4)) + [float(rng.random() < 0.5)]
    rows.append(solution(labels, f"prompt {i}", subject="math" if i % 3 else "law"))
    table[f"prompt {i}"] = [0.9 if label else 0.7 for label in labels]
  return rows, Scorer(table)


def test_halves_choose_for_each_other():
  rows, scorer = world(40)
  evaluation = steps.evaluate_steps(scorer, rows)
  summary = evaluation.summary
  assert summary.threshold.values == [pytest.approx(0.8)], "0.5, the usual threshold, would find nothing"
  assert summary.processbench_f1.value == summary.auroc.value == 1.0
  assert set(summary.subsets) == {"law", "math"} and summary.subsets["law"].f1.value == 1.0
  assert summary.n_solutions == summary.erroneous_solutions + summary.correct_solutions == 40
  assert evaluation.rows[0]["first_flagged"] == evaluation.rows[0]["first_error"]
  half = steps.halves(rows)
  assert 8 <= half.sum() <= 32 and (steps.halves(rows[::-1])[::-1] == half).all()


def test_where_no_threshold_can_be_chosen_it_is_fixed_or_that_of_the_training_run():
  rows, scorer = world(40)
  right = [row for row in rows if min(row.labels) == 1]
  summary = steps.evaluate_steps(scorer, right).summary
  assert summary.threshold.values == [0.5] and summary.threshold.chosen_on.startswith("fixed")
  assert summary.threshold.best is None
  assert summary.step_accuracy.value == 1.0 == summary.baselines["all_correct"].step_accuracy.value
  scorer.saved_threshold = 0.95
  summary = steps.evaluate_steps(scorer, right).summary
  assert summary.threshold.values == [0.95] and summary.step_accuracy.value == 0
  (said,) = [line for line in steps.diagnose_steps(summary) if "flagged under 0.95" in line]
  assert "that of the training run, since too few solutions" in said
  with pytest.raises(DataError, match="a threshold is chosen on"):
    steps.evaluate_steps(scorer, rows, threshold_data=right)


def test_the_threshold_for_others_is_the_best_on_all():
  rows, scorer = world(40)
  best = steps.evaluate_steps(scorer, rows).summary.threshold.best
  data = steps.labeled_steps(rows, [[0.9 if label else 0.7 for label in row.labels] for row in rows])
  assert best == pytest.approx(steps.choose_threshold(data)[0]) == pytest.approx(0.8)
  right, wrong = (
    [row for row, low in zip(rows, map(min, (row.labels for row in rows)), strict=True) if low == one] for one in (1, 0)
  )
  half = dict(zip(map(id, rows), steps.halves(rows), strict=True))
  few = [*[row for row in right if half[id(row)]][:4], *[row for row in wrong if not half[id(row)]][:3]]
  assert len(few) == 7
  found = steps.evaluate_steps(scorer, few).summary.threshold
  assert found.best == pytest.approx(0.8) and found.chosen_on.startswith("fixed"), "each half lacks a kind"


def test_no_solution_sees_its_own_threshold():
  """In one half wrong steps score 0.7, in the other 0.5 of 0.6: judged by the other's threshold both halves fail."""
  rows, scorer = world(40)
  for row, second in zip(rows, steps.halves(rows), strict=True):
    if second:
      name = row.prompt[0]["content"]
      scorer.table[name] = [0.6 if label else 0.5 for label in row.labels]
  summary = steps.evaluate_steps(scorer, rows).summary
  assert summary.threshold.values == [pytest.approx(0.55), pytest.approx(0.8)]
  assert summary.processbench_f1.value < 0.5


def test_a_threshold_from_other_data_or_given():
  rows, scorer = world(30)
  others, other_scorer = world(30, seed=1)
  scorer.table |= {f"other {name}": values for name, values in other_scorer.table.items()}
  others = [solution(s.labels, f"other {s.prompt[0]['content']}") for s in others]
  chosen = steps.evaluate_steps(scorer, rows, threshold_data=others).summary
  assert chosen.threshold.values == [pytest.approx(0.8)]
  assert chosen.threshold.chosen_on == "30 solutions of other data"
  given_one = steps.evaluate_steps(scorer, rows, threshold=0.5).summary
  assert given_one.recall.value == 0.0 and given_one.threshold == steps.Threshold([0.5], "given")
  # The baselines that count characters or steps have scales of their own, on which 0.5 means nothing.
  by_halves = steps.evaluate_steps(scorer, rows).summary.baselines
  assert given_one.baselines == by_halves
  assert (
    by_halves["longer_steps"].f1 != by_halves["all_wrong"].f1
    or by_halves["later_steps"].f1 != by_halves["all_wrong"].f1
  )


def test_baselines_by_hand():
  texts = ["long, very long", "short"]
  rows = [solution([1, 0], "a", texts), solution([1, 1], "b", texts), solution([0], "c", ["one"])]
  scorer = Scorer({"a": [0.5, 0.5], "b": [0.5, 0.5], "c": [0.5]})
  baselines = steps.evaluate_steps(scorer, rows, threshold=0.5).summary.baselines
  value = {
    name: {key: estimate and estimate.value for key, estimate in vars(table).items()}
    for name, table in baselines.items()
  }
  assert value["all_correct"]["step_accuracy"] == pytest.approx(3 / 5) and value["all_correct"]["precision"] is None
  assert value["all_wrong"]["step_accuracy"] == pytest.approx(2 / 5) and value["all_wrong"]["recall"] == 1
  assert value["all_wrong"]["erroneous"] == 0.5, "the first step is the error of the third solution only"
  assert value["longest_step"]["step_accuracy"] == pytest.approx(2 / 5)
  for name in ("all_correct", "all_wrong", "longest_step"):
    assert value[name]["processbench_f1"] == 0
  assert value["all_correct"]["auroc"] == value["all_wrong"]["auroc"] == 0.5
  # The wrong steps have 5 and 3 characters, the correct ones 15, 15 and 5: one tie in six pairs, the rest the wrong way.
  assert value["longer_steps"]["auroc"] == pytest.approx(0.5 / 6)
  # Wrong steps are number 1 and 0, correct ones 0, 0 and 1: two pairs right, three ties, one wrong.
  assert value["later_steps"]["auroc"] == pytest.approx(3.5 / 6)


def test_what_is_not_labelled_or_not_scored_is_counted():
  rows = [
    solution([1, 1], "a", ["a", "b", "c"]),  # labels stop without an error: nobody knows
    solution([1, 1, 0], "b"),  # the error itself was not scored
    solution([0, 1], "c"),  # scored up to the error
  ]
  fitted = {"a": StepScores([1.0] * 3), "b": StepScores([1.0, 1.0], 1), "c": StepScores([-1.0], 1)}
  model = Scorer({})
  model.score_solutions = lambda rows, advance: [fitted[row[0][0]["content"]] for row in rows]
  evaluation = steps.evaluate_steps(model, rows, threshold=0.5)
  summary = evaluation.summary
  assert (summary.n_steps, summary.not_scored_steps, summary.not_judged_solutions) == (5, 2, 2)
  assert [row["first_error"] for row in evaluation.rows] == [None, None, 0]
  assert evaluation.rows[1]["step_rewards"][2] is None


# ---- sentences ----------------------------------------------------------------------------------------------------


def diagnostics(scorer, rows, **keys):
  return steps.diagnose_steps(steps.evaluate_steps(scorer, rows, **keys).summary)


def test_flags_that_the_step_number_gives_too_are_no_achievement():
  """Twenty errors at the second step, twenty solutions of one right step. The scorer finds each second error only."""
  rows = [solution([1, 0] if i % 2 else [1], str(i)) for i in range(40)]
  scorer = Scorer({str(i): [0.9, 0.1 if i % 4 == 1 else 0.9] if i % 2 else [0.9] for i in range(40)})
  lines = diagnostics(scorer, rows, threshold_data=rows)
  # 10 of 20 wrong steps are flagged and nothing else; of solutions one half and all are told rightly: 2/3 both times.
  best = "is not shown to be above that of the best baseline: later steps 1.000 ["
  for name in ("F1 of wrong steps", "ProcessBench F1"):
    (line,) = [line for line in lines if line.startswith(f"{name} ")]
    assert line.startswith(f"{name} 0.667 [") and best in line
    assert line.endswith("Next: evaluate on more solutions (40 here), or train on more.")


def test_what_gets_0_itself_is_not_sent_to_measures_of_which_the_baseline_gets_0():
  """Wrong steps score higher and are shorter: every measure of the scorer is 0, with a threshold that flags nothing wrong."""
  texts = ["long, very long", "short"]
  rows = [solution([1, 0] if i % 2 else [1, 1], str(i), texts) for i in range(40)]
  scorer = Scorer({str(i): [0.6, 0.9 if i % 2 else 0.7] for i in range(40)})
  lines = diagnostics(scorer, rows, threshold=0.65)
  zero = "0.000 [0.000, 0.088]"
  assert (
    f"ProcessBench F1 {zero} is not shown to be above that of the best baseline: all correct {zero}. "
    "Next: evaluate on more solutions (40 here), or train on more."
  ) in lines
  (f1,) = [line for line in lines if line.startswith("F1 of wrong steps 0.000 [")]
  assert "best baseline: later steps 0.667 [" in f1, "flags 40 second steps, 20 of them wrong: 2 * 20 / (40 + 20)"
  (accuracy,) = [line for line in lines if line.startswith("step accuracy 0.250 ")]
  assert accuracy.endswith("(0.750). Next: go by F1 and ProcessBench F1, each against its best baseline.")
  (shortcut,) = [line for line in lines if "length and position alone" in line]
  assert "alone: later steps 0.833 [" in shortcut and "labeled to their end" in shortcut


def test_overlapping_intervals_count_as_not_above():
  """The same scorer, right in nine of ten, beside a baseline that gets 0: enough solutions, and the sentence goes."""

  def said(n):
    rows = [solution([0, 1] if i % 2 else [1, 1], str(i)) for i in range(n)]
    table = {str(i): [0.1 if (i % 2 == 1) != (i % 20 > 17) else 0.9, 0.9] for i in range(n)}
    return "".join(diagnostics(Scorer(table), rows, threshold=0.5))

  assert "above that of the best baseline" in said(4) and "above that of the best baseline" not in said(200)


def test_a_good_scorer_needs_no_remark_and_measures_without_a_value_get_none():
  rows, scorer = world(200)
  assert diagnostics(scorer, rows) == []
  right = [solution([1, 1], str(i)) for i in range(5)]
  lines = diagnostics(Scorer({str(i): [0.9, 0.8] for i in range(5)}), right, threshold=0.5)
  assert [line.split()[0] for line in lines] == ["step"], "there is no wrong step that flags could find"


def test_the_table_of_baselines_says_what_an_auroc_below_one_half_means(capsys):
  rows, scorer = world(200)
  summary = replace(steps.evaluate_steps(scorer, rows).summary, subsets={})
  said = "Steps: the model and baselines (an AUROC below 0.5 ranks the wrong way round)"
  of_data = {"model": "m", "dataset": [], "format": "prm800k", "set_aside": {}, "diagnostics": [], "output": None}
  for value, expected in ((0.5, False), (0.2, True)):
    baselines = {name: replace(one, auroc=replace(one.auroc, value=value)) for name, one in summary.baselines.items()}
    report = StepReport(**vars(replace(summary, baselines=baselines)), **of_data)
    for section in sections_of(report):
      section.show()
    assert (said in capsys.readouterr().err) == expected
