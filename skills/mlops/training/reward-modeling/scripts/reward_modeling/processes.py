"""The processes of torchrun that score together: each computes a part, all know all of it, an error of one ends them all."""

import contextlib
import json
import pickle
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from itertools import count
from os import environ
from pathlib import Path
from typing import TypeVar

from .errors import UsageError, UserError
from .hf import Store
from .outputs import remove, write_whole
from .results import to_json
from .terminal import is_first_process, log

_T = TypeVar("_T")
FREE = ("output", "overwrite", "report", "write_card", "device", "max_tokens_per_batch")
"""Settings that may change when a run is started again."""
POLL_SECONDS = 0.005
TELL_SECONDS, LEAVE_SECONDS = 60.0, 5.0
"""How long one waits for the first, which may be busy with a forward pass, to tell an error; and the first for all to leave."""


class Team:
  """Its store is torch's, which torchrun starts: only the processes of this run reach it, and what they leave is trusted."""

  def __init__(self, store: Store, rank: int, size: int):
    self.store, self.rank, self.size = store, rank, size
    self.folder: Path | None = None
    self._gathered, self._shards = count(), count()

  def keep(self, output: str | Path, settings: object, files: Iterable[str | None]) -> None:
    """Keep what is computed in shards beside the output, for a run that is started again with like settings and files."""
    state = [[name, *_state(Path(name).expanduser())] for name in files if name]
    own = {name: value for name, value in asdict(settings).items() if name not in FREE}
    written = to_json({**own, "files": state})
    self.folder = Path(output).with_name(f".{Path(output).name}.shards")
    run = self.folder / "run.json"
    if self.rank == 0 and run.is_file() and run.read_text(encoding="utf-8").strip() == written:
      log(f"going on with the {len(list(self.folder.glob('[0-9]*.json')))} shards in {self.folder}")
    elif self.rank == 0:
      self.forget()
      self.folder.mkdir()
      write_whole(run, [written])
    self.gather(None)

  def forget(self) -> None:
    if self.folder and self.rank == 0:
      remove(self.folder)

  def shared(self, n: int, compute: Callable[[slice], _T]) -> list[_T]:
    """What each process makes of its part of n inputs, in order. All must call it alike, with what JSON can hold."""
    shard = self.folder and self.folder / f"{next(self._shards):06}.json"
    if shard and self.gather(shard.exists())[0]:
      return json.loads(shard.read_text(encoding="utf-8"))
    parts = self.gather(compute(slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)))
    if shard and self.rank == 0:
      write_whole(shard, [json.dumps(parts)])
    return parts

  def gather(self, mine: _T) -> list[_T]:
    """What each process gives, in order of rank."""
    number = next(self._gathered)
    self.store.set(f"{number}/{self.rank}", pickle.dumps(mine))
    found = [pickle.loads(self._get(f"{number}/{rank}")) for rank in range(self.size)]
    self.store.delete_key(f"{number - 1}/{self.rank}")  # who is here has read those before
    return found

  def _get(self, key: str) -> bytes:
    while not self.store.check([key]):
      if self.store.check(["error"]):
        raise pickle.loads(self.store.get("error"))
      time.sleep(POLL_SECONDS)
    return self.store.get(key)


def _state(path: Path) -> list[tuple[str, int, int]]:
  """Name, size and time of its files; a hub id has none."""
  files = [path, *sorted(path.rglob("[!.]*"))]
  return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]


_team: Team | None = None


def team() -> Team | None:
  """None in a run of one process."""
  global _team
  if _team is None and int(environ.get("WORLD_SIZE", "1")) > 1:
    from torch.distributed import rendezvous

    _team = Team(*next(rendezvous("env://")))
  return _team


def is_told_elsewhere(error: UserError) -> bool:
  """Ends the other processes with this error, which the first alone tells; False where this one has to."""
  first = is_first_process()
  if _team is None:
    return not first and isinstance(error, UsageError) and _is_ended()  # all have the same flags
  with contextlib.suppress(RuntimeError):  # the store is gone with the first process
    if not _team.store.check(["error"]):
      _team.store.set("error", pickle.dumps(error))
    if not first:
      told = _waited(lambda: _team.store.check(["told"]), TELL_SECONDS)
      _team.store.add("left", 1)
      return told
  return not first


def _is_ended() -> bool:
  """Waits for the launcher, which ends all as soon as one of them ends: before the first has told, if this one hurries."""
  with contextlib.suppress(KeyboardInterrupt):
    time.sleep(TELL_SECONDS)
    return False
  return True


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
