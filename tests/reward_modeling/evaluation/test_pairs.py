"""Pairs: each diagnostic on a summary that deserves it and on one that does not, and what the tables say."""

import numpy as np
import pytest

from reward_modeling.evaluation.pair_measures import compare_outcomes, summarize_pairs
from reward_modeling.evaluation.pairs import PAIR_DIAGNOSTICS, diagnose_pairs
from reward_modeling.evaluation.results import ComparisonWith, PairReport
from reward_modeling.evaluation.sections import ROWS_SHOWN, sections_of

N = 400
RIGHT = np.arange(N) % 5 != 0  # 80 % right
LENGTHS, OTHERS = 100 + np.arange(N) % 7, 100 + np.arange(N) % 11


def summary(margins, lengths=LENGTHS, others=OTHERS, **keys):
  """Margins as rewards of the chosen answer. A rejected reward that varies keeps them off the lengths."""
  base = np.random.default_rng(0).normal(size=len(margins))
  return summarize_pairs(base + margins, base, lengths, others, **keys)


def calibrated():
  """80 % right at log 4, the margin at which sigmoid says 80 %."""
  return summary(np.where(RIGHT, 1, -1) * np.log(4))


HALF = np.where(np.arange(N) % 2, 1.0, -1.0)

# What each diagnostic must be said of; one without a line here fails the test.
DESERVING = {
  "not_scored": lambda: summary(np.where(RIGHT, 1, -1) * np.log(4), not_scored=N),
  "chance": lambda: summary(HALF * 0.1),
  "below_chance": lambda: summary(np.where(RIGHT, -1.0, 1.0)),
  "length_baseline": lambda: summary(np.where(RIGHT, 1.0, -1.0), np.where(RIGHT, 9, 1), np.where(RIGHT, 1, 9)),
  "length_bias": lambda: summarize_pairs(LENGTHS, OTHERS, LENGTHS, OTHERS),
  "length_bias_within_prompts": lambda: summary((LENGTHS - OTHERS) * 0.1),
  "overconfident": lambda: summary(np.where(RIGHT, 1, -1) * 6.0),
  "underconfident": lambda: summary(np.where(RIGHT, 1, -1) * 0.1),
  "ties": lambda: summary(np.where(np.arange(N) % 10 == 0, 0.0, 1.0)),
}


def test_a_good_calibrated_model_needs_no_remark():
  assert diagnose_pairs(calibrated()) == []


@pytest.mark.parametrize("name", PAIR_DIAGNOSTICS)
def test_each_diagnostic_is_said_of_a_summary_that_deserves_it(name):
  diagnostic = PAIR_DIAGNOSTICS[name]
  deserving = DESERVING[name]()
  assert diagnostic.applies(deserving) and not diagnostic.applies(calibrated())
  assert any(line.startswith(diagnostic.sentence.format(**vars(deserving))) for line in diagnose_pairs(deserving))


def test_the_sentences_about_a_model_that_reads_only_lengths():
  """Whole lines, so that a number in the wrong slot is seen. The longer is chosen in 9 of 12 pairs."""
  lengths, others = [9, 8, 7, 6, 5, 9, 8, 7, 6, 1, 2, 3], [1, 2, 3, 1, 2, 3, 1, 2, 3, 9, 8, 7]
  lines = diagnose_pairs(summarize_pairs(lengths, others, lengths, others))
  assert lines[1] == (
    "accuracy is not shown to be above the better length baseline (longer 0.750, shorter 0.250): gain +0.000 "
    "[-0.183, +0.183]. Next: compare accuracy where the chosen answer is longer and where it is shorter."
  )
  assert lines[2] == (
    "length bias: over all answers, reward and length have rank correlation +1.00. "
    "Next: balance the training pairs by length; check that it holds within a prompt too."
  )


def test_chance_names_the_interval():
  assert diagnose_pairs(summary(HALF * 0.1))[0].startswith(
    "accuracy 0.500 [0.451, 0.549] is not distinguishable from chance. Next: evaluate on more prompts (400 here)"
  )


def test_a_large_ece_of_few_pairs_is_not_called_miscalibration():
  """8 pairs 0.62 sure, 6 right: ECE 0.13 is what a calibrated model shows by chance."""
  few = summary(np.array([1, 1, 1, 1, 1, 1, -1, -1]) * 0.49, LENGTHS[:8], OTHERS[:8])
  assert few.ece > 0.1 and not PAIR_DIAGNOSTICS["underconfident"].applies(few)


def show(found, model, **more):
  said = {"dataset": ["hh.jsonl"], "format": "explicit", "set_aside": {}, "diagnostics": [], "output": None}
  for section in sections_of(PairReport(model=model, **vars(found), **said, **more)):
    section.show()


def test_show_prints_each_table_on_stderr(capsys):
  show(calibrated(), "runs/[/a]")
  out, err = capsys.readouterr()
  assert out == ""
  assert "runs/[/a]" in err and "400 pairs of 400 prompts: hh.jsonl" in err
  for row in (
    "accuracy ",
    "baseline longer",
    "baseline shorter",
    "Chance is 0.5",
    "log loss",
    "ece",
    "0.8000",
    "spearman reward length",
    "blind model",
  ):
    assert row in err
  assert "0.7580" in err and "0.8363" in err  # the Wilson interval of 320 in 400
  assert "subset" not in err


def test_show_cuts_long_subset_tables_at_the_easy_end(capsys):
  shown = ROWS_SHOWN - 2  # and two means
  names = [f"s{row % (shown + 10):02d}[/b]" for row in range(N)]
  wrong = np.array([name.startswith("s07") for name in names])
  show(summary(np.where(wrong, -1.0, 1.0), subsets=names), "t")
  err = capsys.readouterr().err
  table = err[err.index("The smallest first") :]
  assert table.index("s07[/b]") < table.index("s00[/b]") and f"s{shown + 9}[/b]" not in table
  assert "10 more rows are not shown; the JSON has them all" in table
  assert "macro: mean over subsets" in table and "0.9750" in table


def test_show_survives_one_pair(capsys):
  show(summarize_pairs([1.0], [0.0], [1], [1], subsets=["only"]), "one")
  assert "only" in capsys.readouterr().err


def test_show_comparison(capsys):
  found = compare_outcomes([1] * 8 + [0] * 2, [0] * 8 + [1, 0])
  other = ComparisonWith(**vars(found), model="old/[b]", verdict="it is so", by_subset={}, other=calibrated())
  show(calibrated(), "new", comparison=other)
  out, err = capsys.readouterr()
  assert out == "" and "A: new" in err and "B: old/[b]" in err and "0.0391" in err and "it is so." in err
  assert "A alone is right on 8 pairs, B on 1; both are on 0, wrong on 1, tied on 0." in err
