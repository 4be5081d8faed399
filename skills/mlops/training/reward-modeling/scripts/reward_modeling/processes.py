"""The processes of torchrun that score or evaluate together: what they tell each other, and an error that ends them all."""

from __future__ import annotations

import contextlib
import pickle
import time
from collections.abc import Callable
from os import environ
from typing import TYPE_CHECKING, TypeVar

from .errors import UsageError, UserError
from .terminal import is_first_process

if TYPE_CHECKING:
    from torch.distributed import Store

T = TypeVar("T")
POLL_SECONDS = 0.005
TELL_SECONDS, LEAVE_SECONDS = 60.0, 5.0
"""How long a process waits for the first, which may be busy with a forward pass, to tell its error; and the first for the
others to leave."""

_team: Team | None = None


class Team:
    """Its store is torch's, which torchrun starts: only the processes of this run reach it, and what they leave is trusted."""

    def __init__(self, store: Store, rank: int, size: int):
        self.store, self.rank, self.size = store, rank, size
        self._gathered = 0

    def gather(self, mine: T) -> list[T]:
        """What each process gives, in order of rank. All must call it equally often."""
        number, self._gathered = self._gathered, self._gathered + 1
        self.store.set(f"gather/{number}/{self.rank}", pickle.dumps(mine))
        found = [pickle.loads(self._get(f"gather/{number}/{rank}")) for rank in range(self.size)]
        self.store.delete_key(f"gather/{number - 1}/{self.rank}")  # who is here has read those before
        return found

    def first(self, make: Callable[[], T]) -> T:
        """What the first process makes."""
        return self.gather(make() if self.rank == 0 else None)[0]

    def share(self, n: int) -> slice:
        """This process's part of n things in order."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def claim(self, what: str) -> int:
        """0, 1, 2, ..., each for one process."""
        return self.store.add(what, 1) - 1

    def check(self) -> None:
        """Raises the error that another process ended with."""
        if self.store.check(["error"]):
            raise pickle.loads(self.store.get("error"))

    def _get(self, key: str) -> bytes:
        while not self.store.check([key]):
            self.check()
            time.sleep(POLL_SECONDS)
        return self.store.get(key)


def team() -> Team | None:
    """None in a run of one process."""
    global _team
    if _team is None and int(environ.get("WORLD_SIZE", "1")) > 1:
        from torch.distributed import rendezvous

        store, rank, size = next(rendezvous("env://"))
        _team = Team(store, rank, size)
    return _team


def is_told_elsewhere(error: UserError) -> bool:
    """Ends the other processes with this error, which the first alone tells; False where this one has to."""
    first = is_first_process()
    if _team is None:
        return not first and isinstance(error, UsageError)  # all have the same flags
    with contextlib.suppress(RuntimeError):  # the store is gone with the first process
        if not _team.store.check(["error"]):
            _team.store.set("error", pickle.dumps(error))
        if not first:
            told = _waited(lambda: _team.store.check(["told"]), TELL_SECONDS)
            _team.store.add("left", 1)
            return told
    return not first


def set_told() -> None:
    """Then wait for the others, which may need the store of this process."""
    if _team is not None and is_first_process():
        with contextlib.suppress(RuntimeError):
            _team.store.set("told", b"1")
            _waited(lambda: _team.store.add("left", 0) >= _team.size - 1, LEAVE_SECONDS)


def _waited(is_so: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not is_so() and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
    return is_so()


def check_one(reason: str) -> None:
    if int(environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(reason, hint="run it in one process, without torchrun")
