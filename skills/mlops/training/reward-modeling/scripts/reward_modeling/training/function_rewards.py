"""Reward functions of the user's own, called with a time limit and distrusted."""

import contextlib
import inspect
import math
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence

from .. import reward_functions
from ..errors import DataError, RunError, UsageError, UserError
from ..user_functions import load_function

Returned = Sequence[float | None]
GIVEN = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")
"""By keyword, with the other columns; the last three by TRL's trainers alone."""
AS_MANY = "it returns a list with one number for each completion, or None where it does not apply"


class _TookTooLong(BaseException):
  """Not an Exception, which the function may catch."""


def function_of(spec: str) -> Callable[..., Returned]:
  """spec: FILE:NAME, or a function of `reward_functions`."""
  own = {one.__name__: one for one in reward_functions.SHIPPED}
  if ":" not in spec and spec not in own:
    raise UsageError(f"no reward function {spec!r}", hint=f"give FILE:NAME, or one of {', '.join(own)}")
  return own.get(spec) or load_function(spec)


def refuse_lacking(name: str, function: Callable[..., Returned], columns: Iterable[str]) -> None:
  """Before anything is trained. Raises DataError for columns that the data lacks."""
  try:
    parameters, given = inspect.signature(function).parameters.values(), {*GIVEN, *columns}
  except ValueError:  # of a function that is written in C
    return
  takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)  # another is told at its first call
  needed = [
    one.name for one in parameters if one.default is one.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
  ]
  if takes_any and (lacks := [one for one in needed if one not in given]):
    told = f"the reward function {name} needs the column {' and '.join(lacks)}, which the data lacks"
    raise DataError(told, hint=f"its columns, beside the prompt: {', '.join(columns) or 'none'}")


def call(
  name: str, function: Callable[..., Returned], seconds: float, where: Sequence[object], **given: object
) -> list[float]:
  """NaN where it does not apply. where: the row of each completion. Raises RunError where anything else is not as it should."""
  called, count = f"the reward function {name}", len(where)
  try:
    with _within(seconds):
      found = function(**given)
      found = [*found] if isinstance(found, Iterable) else found  # a generator works now
  except UserError:
    raise
  except _TookTooLong as error:
    told = f"{called} took more than {seconds:g} seconds for {count} completions"
    raise RunError(told, where=_line(error), hint="raise --reward_function_seconds") from None
  except Exception as error:
    told = f"{called} raised {type(error).__name__}: {error}"
    raise RunError(told, where=_line(error), hint=f"it is given {', '.join(given)}") from error
  try:
    values = [math.nan if value is None else float(value) for value in found]
  except (TypeError, ValueError) as error:
    raise RunError(f"{called} did not return a list of numbers and None: {error}", hint=AS_MANY) from error
  if len(values) != count:
    raise RunError(f"{called} returned {len(values)} rewards for {count} completions", hint=AS_MANY)
  for place, value in enumerate(values):
    if not math.isfinite(value) and found[place] is not None:
      told = "NaN" if math.isnan(value) else value
      raise RunError(f"{called} returned {told} for completion {place + 1}", where=where[place], hint=AS_MANY)
  return values


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
  """Interrupts Python in the main thread, where the system has timers, unless the function sets the timer itself."""
  if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
    yield
    return

  def interrupt(*_: object) -> None:
    raise _TookTooLong

  before = signal.signal(signal.SIGALRM, interrupt)
  signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def _line(error: BaseException) -> str | None:
  frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
  return f"{frames[0].filename}:{frames[0].lineno}" if frames else None
