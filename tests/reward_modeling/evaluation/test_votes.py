"""Votes: seeded draws against enumeration, the hypergeometric and hands, and the answers that texts state."""

import math
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from reward_modeling.data.records import Ranking
from reward_modeling.errors import DataError, UsageError
from reward_modeling.evaluation.best_of_n import DRAWS, final_answer, find_answers, majority_vote

STANDARD_ERROR = 0.5 / math.sqrt(DRAWS)

pools = st.lists(st.tuples(st.sampled_from("abc-"), st.booleans()), min_size=1, max_size=8).flatmap(
  lambda pool: st.tuples(st.just(pool), st.integers(1, len(pool)))
)


def mean(values):
  values = list(values)
  return sum(values) / len(values)


def enumerated(pool, n):
  """The mean over all subsets of size n; a vote for an answer is as good as its completions are on average."""
  answers = [None if answer == "-" else answer for answer, _ in pool]
  correct = [right for _, right in pool]
  share = {a: mean(c for b, c in zip(answers, correct, strict=True) if b == a) for a in answers}

  def accuracy(subset):
    votes = {a: sum(answers[i] == a for i in subset) for a in {answers[i] for i in subset} - {None}}
    top = [a for a, count in votes.items() if count == max(votes.values())]
    return mean(share[a] for a in top) if top else 0.0

  return answers, correct, mean(accuracy(subset) for subset in combinations(range(len(pool)), n))


@settings(deadline=None)
@given(pools)
def test_majority_equals_enumeration(drawn):
  """Exactly where one draw is all, within five standard errors elsewhere."""
  pool, n = drawn
  answers, correct, expected = enumerated(pool, n)
  tolerance = 1e-12 if n in (1, len(pool)) else 5 * STANDARD_ERROR
  assert majority_vote(answers, correct, n) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("n", [2, 3, 5, 7])
def test_errors_of_many_prompts_average_out(n):
  """300 prompts alike: draws of their own each, so the mean is 17 times as near. Catches a bias that one pool hides:
  draws with replacement are off by 0.01 and more here, a tie that goes to the first answer by 0.02 and more."""
  answers, correct, expected = enumerated([*zip("aaabbc--", [1, 0, 1, 1, 1, 0, 0, 0], strict=True)], n)
  votes = [majority_vote(answers, correct, n, f"prompt {i}") for i in range(300)]
  assert mean(votes) == pytest.approx(expected, abs=4 * STANDARD_ERROR / math.sqrt(300))
  assert len(set(votes)) > 30 and votes[7] == majority_vote(answers, correct, n, "prompt 7")


def test_by_hand():
  assert majority_vote(["4", "4", "5"], [1, 1, 0], 3) == 1 and majority_vote(["4", "5"], [1, 0], 2) == 0.5
  assert majority_vote(["4", None, None, None], [1, 1, 1, 1], 1) == 0.25, "no answer casts no vote"
  assert majority_vote([None] * 3, [1, 1, 1], 2) == 0


def test_large_pools():
  """Two answers: by the hypergeometric. A hundred: one in a hundred, whatever n. Two thousand need no more draws."""
  right = hypergeom(100, 40, 15)
  answers, labels = ["r"] * 40 + ["w"] * 60, [1] * 40 + [0] * 60
  assert majority_vote(answers, labels, 15) == pytest.approx(right.sf(7), abs=4 * STANDARD_ERROR)
  distinct = [str(i) for i in range(100)]
  assert majority_vote(distinct, [1] + [0] * 99, 64) == pytest.approx(1 / 100, abs=6e-4)
  assert majority_vote(answers * 20, labels * 20, 15) == pytest.approx(hypergeom(2000, 800, 15).sf(7), abs=0.032)


def test_final_answers():
  assert final_answer("It is 2+1=3\nA: 3.0") == final_answer("so #### 9\n#### 3") == final_answer(r"\boxed{3}") == "3"
  assert final_answer("The answer is 1,200.") == "1200" and final_answer(r"\boxed{\frac{1}{2}}") == r"\frac{1}{2}"
  assert final_answer("def f(x): return x") is None
  assert final_answer("result=7;", r"result=(\d+)") == "7"


def ranking(correct, texts, **metadata):
  completions = [[{"role": "assistant", "content": text}] for text in texts]
  return Ranking([{"role": "user", "content": "2+2?"}], completions, correct, metadata=metadata)


def test_where_there_is_nothing_to_vote_on():
  code = [ranking([1.0, 0.0], ["return x", "return y"])]
  answers = find_answers(code)
  assert answers.answers is None and answers.source.startswith("only 0.0% of the completions state")
  given_column = find_answers([ranking([1.0, 0.0], ["A: 0", "A: 1"], final=["4", 4.0])], column="final")
  assert given_column.answers == [["4", "4"]]
  with pytest.raises(DataError, match="does not hold one final answer for each of the 2"):
    find_answers(code, column="final")
  with pytest.raises(UsageError, match="not a regular expression"):
    find_answers(code, pattern="(")
  with pytest.raises(UsageError, match="has 0 groups"):
    find_answers(code, pattern="x")
