"""Reward functions of the user's own, called with a time limit and distrusted."""

from __future__ import annotations

import contextlib
import inspect
import math
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .. import reward_functions
from ..errors import RunError, UsageError, UserError
from ..user_functions import load_function

GIVEN = ("prompts", "completions", "completion_ids")
"""By keyword to every function, beside the columns of the data."""

AS_MANY = "it returns a list with one number for each completion, or None where it does not apply"


class _TookTooLong(BaseException):
    """Not an Exception, which the function may catch."""


@dataclass(frozen=True)
class RewardFunction:
    name: str
    call: Callable[..., Any]
    seconds: float

    @classmethod
    def load(cls, spec: str, seconds: float) -> RewardFunction:
        """spec: FILE:NAME, or a function of `reward_functions`."""
        own = {
            name: function
            for name, function in inspect.getmembers(reward_functions, inspect.isfunction)
            if function.__module__ == reward_functions.__name__ and not name.startswith("_")
        }
        if ":" not in spec and spec not in own:
            raise UsageError(f"no reward function {spec!r}", hint=f"give FILE:NAME, or one of {', '.join(own)}")
        return cls(spec, own.get(spec) or load_function(spec), seconds)

    def check(self, given: Sequence[str]) -> None:
        """Raises UsageError for a parameter that nothing is given for."""
        missing = [
            name
            for name, one in inspect.signature(self.call).parameters.items()
            if one.default is one.empty
            and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
            and name not in given
        ]
        if missing:
            told = f"the reward function {self.name} needs `{'` and `'.join(missing)}`, and there is {', '.join(given)}"
            raise UsageError(told, hint=f"read another column as it: --columns {missing[0]}=COLUMN")

    def __call__(self, origins: Sequence[object], **given: Any) -> list[float | None]:
        """Raises RunError where it raises, takes too long or returns anything but a finite number or None a completion."""
        called, count = f"the reward function {self.name}", len(origins)
        try:
            with _within(self.seconds):
                found = self.call(**given)
        except UserError:
            raise
        except (Exception, _TookTooLong) as error:
            told = f"{called} raised {type(error).__name__}: {error}"
            if late := isinstance(error, _TookTooLong):
                told = f"{called} took more than {self.seconds:g} seconds for {count} completions"
            hint = "raise --reward_function_seconds" if late else None
            raise RunError(told, where=_line(error), hint=hint) from None
        try:
            values = [None if value is None else float(value) for value in found]
        except (TypeError, ValueError) as error:
            raise RunError(f"{called} did not return a list of numbers and None: {error}", hint=AS_MANY) from error
        if len(values) != count:
            raise RunError(f"{called} returned {len(values)} rewards for {count} completions", hint=AS_MANY)
        for number, value in enumerate(values):
            if value is not None and not math.isfinite(value):
                told = (
                    f"{called} returned {'NaN' if math.isnan(value) else value} for completion {number + 1} of {count}"
                )
                raise RunError(told, where=origins[number], hint=AS_MANY)
        return values


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Python in the main thread is interrupted, where the system has timers, unless it sets the timer itself."""
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
    """Where it was raised, as far as it is not here."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    return f"{frames[0].filename}:{frames[0].lineno}" if frames else None
