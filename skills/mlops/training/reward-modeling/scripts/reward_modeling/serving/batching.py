"""A bounded queue, and the one thread that takes from it what is scored together."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from ..data.records import Ranking

CHARACTERS = 4
"""Of a token, about."""
WAIT = 0.003
"""Seconds for which the first request to an idle model waits for others."""
Scored = dict[str, list]
"""{"rewards": [...]}, and other columns of a row's completions."""


class FullError(Exception):
  """Its argument: seconds until there is room, about."""


class Work(NamedTuple):
  row: Ranking
  tokens: int
  future: Future[Scored]


class Batcher:
  """score: rows to their results. Rows that it fails on are found by halving; a row whose future was cancelled is left out."""

  def __init__(self, score: Callable[[Sequence[Ranking]], list[Scored]], max_tokens: int, max_waiting: int):
    self._score_rows, self._max_tokens, self._max_waiting = score, max_tokens, max_waiting
    self._queue: OrderedDict[Future[Scored], Work] = OrderedDict()
    self._changed = threading.Condition()
    self._closed = False
    self.waiting, self._rate = 0, math.inf
    self._thread = threading.Thread(target=self._run, name="scoring", daemon=True)
    self._thread.start()

  @property
  def is_alive(self) -> bool:
    return self._thread.is_alive() and not self._closed

  def submit(self, rows: Sequence[Ranking]) -> list[Future[Scored]]:
    """All of them or, with FullError, none."""
    works = [Work(row, len(repr((row.prompt, row.completions))) // CHARACTERS, Future()) for row in rows]
    added = sum(len(row.completions) for row in rows)
    with self._changed:
      if self.waiting + added > self._max_waiting:
        raise FullError(min(60, 1 + int(self.waiting / self._rate)))
      self._queue.update((work.future, work) for work in works)
      self.waiting += added
      self._changed.notify()
    for work in works:
      work.future.add_done_callback(self._make_room)
    return [work.future for work in works]

  def _make_room(self, future: Future[Scored]) -> None:
    """At once, when a client has left."""
    with self._changed:
      if future.cancelled() and (work := self._queue.pop(future, None)):
        self.waiting -= len(work.row.completions)

  def close(self) -> None:
    """After what waits was scored."""
    with self._changed:
      self._closed = True
      self._changed.notify()
    self._thread.join()

  def _run(self) -> None:
    while (batch := self._next()) is not None:
      started = time.perf_counter()
      self._score(batch)
      done = sum(len(work.row.completions) for work in batch)
      self._rate = done / (time.perf_counter() - started) or self._rate

  def _next(self) -> list[Work] | None:
    """What is still wanted of the next rows; None once closed."""
    with self._changed:
      idle = not self._queue
      self._changed.wait_for(lambda: self._queue or self._closed)
      if not self._queue:
        return None
    if idle:
      time.sleep(WAIT)
    taken, tokens = [], 0
    with self._changed:
      while self._queue and (not taken or tokens + next(iter(self._queue.values())).tokens <= self._max_tokens):
        taken.append(self._queue.popitem(last=False)[1])
        tokens += taken[-1].tokens
      self.waiting -= sum(len(work.row.completions) for work in taken)
    return [work for work in taken if work.future.set_running_or_notify_cancel()]

  def _score(self, batch: list[Work]) -> None:
    try:
      found = self._score_rows([work.row for work in batch])
    except Exception as error:
      if len(batch) == 1:
        batch[0].future.set_exception(error)
        return
      middle = len(batch) // 2
      self._score(batch[:middle])
      self._score(batch[middle:])
      return
    for work, own in zip(batch, found, strict=True):
      work.future.set_result(own)
