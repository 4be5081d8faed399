"""What is dropped is what the finding is about, the first of equals stays, and every count is exact."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_modeling.data.audit import CHECKS, audit
from reward_modeling.data.audit.parts import drop_rows
from reward_modeling.data.records import Comparison, Origin, Ranking, comparisons_of


def said(text):
  return [{"role": "assistant", "content": text}]


def asked(text):
  return [{"role": "user", "content": text}]


def ranking(*completions, prompt="q", scores=None, **fields):
  scores = scores or [float(-place) for place in range(len(completions))]
  return Ranking(asked(prompt), [said(text) for text in completions], scores, origin=Origin("f", 1), **fields)


def dropped(rows, *checks):
  pairs = [pair for row in rows for pair in comparisons_of(row)]
  return drop_rows(dict(enumerate(rows)), [finding for finding in audit(pairs) if finding.check in checks])


def texts(row):
  return [completion[0]["content"] for completion in row.completions]


CASES = {
  "a repeated completion": (["a", "b", "b"], [2.0, 1.0, 1.0], "duplicate", ["a", "b"]),
  "repeated at the top": (["a", "a", "b"], [2.0, 2.0, 1.0], "duplicate", ["a", "b"]),
  "two scores for one text": (["a", "b", "a"], [2.0, 1.0, 0.0], "identical", ["a", "b"]),
  "empty in the middle": (["a", "", "b", " "], [2.0, 1.0, 1.5, 0.0], "empty_answer", ["a", "b"]),
  "empty at both ends": (["", "a", "", "b"], [0.0, 1.0, 0.0, 2.0], "empty_answer", ["a", "b"]),
  "a leaked turn": (["a", "b\n\nHuman: c", "d"], [2.0, 1.0, 0.0], "leaked_turn", ["a", "d"]),
  "garbled": (["cafÃ©", "b", "d"], [2.0, 1.0, 0.0], "encoding", ["b", "d"]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_ranking_loses_the_completion_that_has_the_flaw_and_stays(name):
  completions, scores, check, left = CASES[name]
  result = dropped([ranking(*completions, scores=scores)], check)
  (row,) = result.rows.values()
  assert texts(row) == left
  assert row.scores == [scores[completions.index(text)] for text in left]
  assert (result.by_check, result.completions) == ({}, {check: len(completions) - len(left)})


def test_a_flaw_of_the_prompt_takes_the_whole_ranking_and_a_repeated_ranking_goes_whole():
  templated = ranking("a", "b", "c", prompt="<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
  result = dropped([templated, ranking("a", "b", "c"), ranking("a", "b", "c")], "templated", "duplicate")
  assert (list(result.rows), result.by_check) == ([1], {"templated": 1, "duplicate": 1})
  assert not result.completions


def test_a_ranking_that_makes_no_pair_any_more_is_counted_as_a_row():
  result = dropped([ranking("a", ""), ranking("a", "", "c", scores=[1.0, 0.0, 1.0])], "empty_answer")
  assert (result.rows, result.by_check, result.completions) == ({}, {"empty_answer": 2}, {})


def test_lists_of_metadata_with_an_entry_for_each_completion_keep_to_them():
  row = ranking("a", "", "c", metadata={"models": ["A", "B", "C"], "note": ["x", "y"]})
  (kept,) = dropped([row], "empty_answer").rows.values()
  assert kept.metadata == {"models": ["A", "C"], "note": ["x", "y"]}


TEXTS = st.sampled_from(["a", "b", "c", "a ", "", "x\n\nHuman: y", "cafÃ©"])
PROMPTS = st.sampled_from(["p", "q", "[INST] p [/INST]"])
PAIRS = st.builds(
  lambda prompt, chosen, rejected, margin: Comparison(asked(prompt), said(chosen), said(rejected), margin=margin),
  PROMPTS,
  TEXTS,
  TEXTS,
  st.sampled_from([None, -1.0, 1.0]),
)
RANKINGS = st.builds(
  lambda prompt, entries: ranking(*(text for text, _ in entries), prompt=prompt, scores=[float(s) for _, s in entries]),
  PROMPTS,
  st.lists(st.tuples(TEXTS, st.integers(0, 2)), min_size=1, max_size=5),
)


@settings(max_examples=300, deadline=None)
@given(
  st.lists(PAIRS | RANKINGS, max_size=8),
  st.sets(st.sampled_from([name for name, check in CHECKS.items() if check.about_rows])),
)
def test_rows_in_are_rows_out_and_rows_counted_and_nothing_of_the_findings_is_left(rows, checks):
  result = dropped(rows, *checks)
  assert len(rows) == len(result.rows) + sum(result.by_check.values())
  before = sum(len(rows[place].completions) for place in result.rows if isinstance(rows[place], Ranking))
  after = sum(len(row.completions) for row in result.rows.values() if isinstance(row, Ranking))
  assert before - after == sum(result.completions.values())
  left = [pair for row in result.rows.values() for pair in comparisons_of(row)]
  assert not checks & {finding.check for finding in audit(left)}


@given(st.lists(PAIRS, max_size=8))
def test_what_was_said_once_is_still_said_once(pairs):
  def said_in(rows):
    return [tuple(part[0]["content"].rstrip() for part in (p.prompt, p.chosen, p.rejected)) for p in rows]

  left = said_in(dropped(pairs, "duplicate").rows.values())
  assert left == list(dict.fromkeys(said_in(pairs)))
