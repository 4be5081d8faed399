"""Best of n in closed form equals counting over all subsets."""

import math
from itertools import combinations
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_modeling.data.records import Ranking
from reward_modeling.errors import DataError, UsageError
from reward_modeling.evaluation import best_of_n
from reward_modeling.evaluation.best_of_n import best_of, find_answers
from reward_modeling.evaluation.inputs import score_answers

PROMPT = [{"role": "user", "content": "2+2?"}]

pools = st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.9, None]), st.booleans()), min_size=1, max_size=8).flatmap(
  lambda pool: st.tuples(st.just(pool), st.integers(1, len(pool)))
)


def mean(values):
  values = list(values)
  return sum(values) / len(values)


def enumerated(pool, n, winners):
  """The mean over all subsets of size n of the mean correctness of the winners among them."""
  return mean(mean(pool[i][1] for i in winners(subset)) for subset in combinations(range(len(pool)), n))


@given(pools)
def test_best_of_equals_enumeration(drawn):
  pool, n = drawn

  def winners(subset):
    ranks = {i: -math.inf if pool[i][0] is None else pool[i][0] for i in subset}
    return [i for i in subset if ranks[i] == max(ranks.values())]

  scores, correct = zip(*pool, strict=True)
  assert best_of(scores, correct, n) == pytest.approx(enumerated(pool, n, winners), abs=1e-12)


@given(pools)
def test_oracle_equals_enumeration(drawn):
  pool, n = drawn
  correct = [right for _, right in pool]
  found = mean(any(correct[i] for i in subset) for subset in combinations(range(len(pool)), n))
  assert best_of(correct, correct, n) == pytest.approx(found, abs=1e-12)


def test_by_hand():
  """Of four, one right: it has the second highest score. Of 6 draws of two it is best in the two without the first."""
  scores, correct = [0.9, 0.8, 0.3, 0.1], [0, 1, 0, 0]
  assert [best_of(scores, correct, n) for n in (1, 2, 4)] == pytest.approx([1 / 4, 2 / 6, 0])
  assert [best_of(correct, correct, n) for n in (1, 2, 4)] == pytest.approx([1 / 4, 1 / 2, 1])
  assert best_of([0.5, 0.5, 0.1], [1, 0, 0], 3) == 0.5, "ties: any of the best"
  assert best_of([None, 0.1], [1, 0], 2) == 0, "what was not scored is never preferred"


def test_large_pools_stay_exact():
  """100 completions, 22 of them right, one score: a random choice whatever n."""
  correct = [1] * 22 + [0] * 78
  for n in (1, 50, 100):
    assert best_of([0.0] * 100, correct, n) == pytest.approx(0.22, abs=1e-12)


def ranking(correct, texts=None, **metadata):
  texts = texts or [f"A: {i}" for i in range(len(correct))]
  return Ranking(PROMPT, [[{"role": "assistant", "content": t}] for t in texts], correct, metadata=metadata)


def test_summary_by_hand():
  """Two prompts: the model is right at n = 2 on the first, wrong on the second."""
  first = ranking([1.0, 0.0], ["A: 4", "A: 5"])
  second = Ranking([{"role": "user", "content": "other"}], first.completions, [0.0, 1.0])
  rewards = [[0.9, 0.1], [0.9, 0.1]]
  answers = find_answers([first, second])
  summary = best_of_n.summarize_pools([first, second], rewards, [1, 2], answers)
  at_two = summary.curve[1]
  assert [getattr(at_two, name).value for name in ("model", "random", "majority", "oracle")] == [0.5, 0.5, 0.5, 1.0]
  assert at_two.model.groups == at_two.prompts == 2
  assert summary.mixed_prompts == 2 and summary.majority_answers == "the texts, 100.0% of which state one"
  assert summary.curve[0].gain.value == 0 and summary.not_scored == 0


def test_a_smaller_pool_is_left_out_of_larger_sizes():
  pools = [ranking([1.0, 0.0]), ranking([0.0, 1.0, 1.0, 0.0])]
  rewards = [[1.0, 0.0], [1.0, 0.5, 0.2, 0.0]]
  summary = best_of_n.summarize_pools(pools, rewards, [2, 4], find_answers(pools))
  assert [at.prompts for at in summary.curve] == [2, 1]
  assert summary.curve[1].model.value == 0.0


def test_sizes():
  pool = [ranking([1.0] * 20)]
  assert best_of_n.check_pools(pool, None) == [1, 4, 16]
  assert best_of_n.check_pools(pool, [8, 2, 8]) == [2, 8]
  with pytest.raises(UsageError, match="more than the 20 completions"):
    best_of_n.check_pools(pool, [21])
  for scores in (None, [2.5] * 20):
    with pytest.raises(DataError, match="which completions are correct"):
      best_of_n.check_pools([Ranking(PROMPT, pool[0].completions, scores)], None)


def test_score_gives_rewards_in_the_order_of_the_pools():
  model = SimpleNamespace(
    score_conversations=lambda rows, advance: [float(len(row[1][0]["content"])) for row in rows],
  )
  rows = [ranking([1.0, 0.0], ["abc", "a"]), ranking([1.0], ["ab"])]
  assert score_answers(model, rows) == [[3.0, 1.0], [2.0]]
