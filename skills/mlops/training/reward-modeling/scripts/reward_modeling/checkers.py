"""Is the final answer of a text right? Checkers, and a process of its own that runs one with a time limit."""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection

from .errors import UsageError
from .packages import is_installed, not_installed
from .reward_functions import answer_agrees, mathematics_agree
from .terminal import warn
from .user_functions import load_function

Given = Mapping[str, object]


CHECKERS: dict[str, Callable[..., bool | None]] = {"answer": answer_agrees, "math_verify": mathematics_agree}


def check_of(name: str, column: str, pattern: str | None) -> Callable[[str, Given], bool | None]:
  """(solution, row) -> whether its answer is right, None where that cannot be said. name: of CHECKERS, or FILE:NAME."""
  from .evaluation.best_of_n import check_pattern  # here, since it takes a third of a second

  if name == "math_verify" and not is_installed(name):
    raise not_installed(name, "--checker math_verify: ")
  if name in CHECKERS:
    check_pattern(pattern)
    return lambda text, row: CHECKERS[name](text, str(row[column]), pattern)
  if ":" in name:
    return load_function(name)
  raise UsageError(f"--checker {name} is not known", hint=f"choose {', '.join(CHECKERS)} or FILE:NAME")


class Checker(contextlib.AbstractContextManager):
  """A context. Its process is killed, and started anew for the next text, when a check takes more than `seconds`."""

  def __init__(self, *check: str | None, seconds: float):
    check_of(*check)  # which may raise
    self.check, self.seconds, self.process, self.told = check, seconds, None, False

  def __exit__(self, *_: object) -> None:
    if self.process:
      self.process.kill()
      self.process.join()
      self.process = None

  def __call__(self, text: str, row: Given) -> tuple[bool | None, str]:
    """(whether it is right, or None and why: `without_answer`, `checker_errors` or `checker_timeouts`)."""
    try:
      if not self.process:
        self._start()
      self.channel.send((text, row))
      in_time = self.channel.poll(self.seconds)
      right, why, told = self.channel.recv() if in_time else (None, "checker_timeouts", "it takes too long")
    except (EOFError, OSError):
      in_time, right, why, told = False, None, "checker_errors", "it ended its process"
    if not in_time:
      self.__exit__()
    if told and not self.told:
      warn(f"the checker fails, the first time by this: {told}; after {text[-200:]!r}")
      self.told = True
    return right, why

  def _start(self) -> None:
    spawned = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    self.channel, other = spawned.Pipe()
    self.process = spawned.Process(target=_serve, args=(other, self.check, self.seconds), daemon=True)
    self.process.start()
    other.close()
    self.channel.recv()  # its imports take as long as they take


def _serve(channel: Connection, check: tuple[str, str, str | None], seconds: float) -> None:
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this process
  alarm = getattr(signal, "alarm", lambda _: None)  # ends a check that hangs after its parent was killed
  function = check_of(*check)
  channel.send(True)
  with contextlib.suppress(EOFError, OSError):
    while True:
      text, row = channel.recv()
      alarm(int(2 * seconds) + 2)
      verdict = _verdict(function, text, row)
      alarm(0)
      channel.send(verdict)


def _verdict(function: Callable, text: str, row: Given) -> tuple[bool | None, str, str]:
  try:
    right = function(text, row)
    if right is not None and right not in (0, 1):
      raise ValueError(f"it returned {right!r}, not True, False or None")
  except (Exception, SystemExit) as error:
    return None, "checker_errors", f"{type(error).__name__}: {error}"
  return (None, "without_answer", "") if right is None else (bool(right), "", "")
