"""The queue: what it scores together, whom a failure costs, and what a full or closed one does."""

import threading
from concurrent.futures import wait

import pytest

from reward_modeling.data.records import Ranking
from reward_modeling.serving.batching import Batcher, FullError


def row(text: str, completions: int = 1) -> Ranking:
  return Ranking([{"role": "user", "content": text}], [[{"role": "assistant", "content": "."}]] * completions)


def text_of(one: Ranking) -> str:
  return one.prompt[0]["content"]


class Scorer:
  """Gives each row its own text, and fails on those named bad. `go` holds it back."""

  def __init__(self):
    self.go, self.batches = threading.Event(), []
    self.go.set()

  def __call__(self, rows):
    self.go.wait()
    self.batches.append([text_of(one) for one in rows])
    if any(text_of(one).startswith("bad") for one in rows):
      raise ValueError(next(text_of(one) for one in rows if text_of(one).startswith("bad")))
    return [{"rewards": [text_of(one)]} for one in rows]


def test_each_gets_its_own_and_a_failure_is_only_whose_row_it_is():
  score = Scorer()
  batcher = Batcher(score, max_tokens=10**6, max_waiting=1000)
  score.go.clear()
  names = [f"bad {i}" if i in (3, 17) else str(i) for i in range(40)]
  futures = [batcher.submit([row(name)])[0] for name in names]
  score.go.set()
  wait(futures)
  for name, future in zip(names, futures, strict=True):
    if name.startswith("bad"):
      assert str(future.exception()) == name
    else:
      assert future.result() == {"rewards": [name]}
  batcher.close()
  assert max(map(len, score.batches)) > 30, "they were scored together"


def test_a_batch_holds_no_more_tokens_than_asked_for_but_always_one_row():
  score = Scorer()
  batcher = Batcher(score, max_tokens=250, max_waiting=1000)
  score.go.clear()
  held = batcher.submit([row("first")])
  while batcher.waiting:  # until the thread has taken it
    pass
  futures = batcher.submit([row("a" * 400) for _ in range(4)] + [row("b" * 4000)])
  score.go.set()
  wait(held + futures)
  batcher.close()
  assert [[name[0] for name in batch] for batch in score.batches] == [["f"], ["a", "a"], ["a", "a"], ["b"]]


def test_a_full_queue_takes_all_rows_of_a_request_or_none():
  score = Scorer()
  batcher = Batcher(score, max_tokens=10**6, max_waiting=10)
  score.go.clear()
  batcher.submit([row("held")])
  while batcher.waiting:
    pass
  taken = batcher.submit([row("a", 4), row("b", 4)])
  with pytest.raises(FullError) as full:
    batcher.submit([row("c", 1), row("d", 2)])
  assert full.value.args[0] >= 1
  taken += batcher.submit([row("e", 2)])
  score.go.set()
  wait(taken)
  batcher.close()
  assert batcher.waiting == 0 and "c" not in str(score.batches) and "e" in str(score.batches)


def test_what_was_cancelled_before_its_turn_is_not_scored():
  score = Scorer()
  batcher = Batcher(score, max_tokens=10**6, max_waiting=100)
  score.go.clear()
  batcher.submit([row("held")])
  while batcher.waiting:
    pass
  left, stays = batcher.submit([row("left")])[0], batcher.submit([row("stays")])[0]
  assert left.cancel() and batcher.waiting == 1, "its room is free at once"
  score.go.set()
  assert stays.result() == {"rewards": ["stays"]}
  batcher.close()
  assert score.batches == [["held"], ["stays"]]


def test_closing_scores_what_waits():
  score = Scorer()
  batcher = Batcher(score, max_tokens=10, max_waiting=100)
  score.go.clear()
  futures = [batcher.submit([row(str(i))])[0] for i in range(20)]
  threading.Timer(0.05, score.go.set).start()
  batcher.close()
  assert [future.result()["rewards"] for future in futures] == [[str(i)] for i in range(20)]
  assert not batcher.is_alive
