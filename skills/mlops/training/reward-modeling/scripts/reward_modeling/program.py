"""How a script ends: `main_guard` turns its result into JSON on stdout, and errors and signals into lines and exit codes."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from os import environ
from pathlib import Path
from types import FrameType

from . import packages
from .errors import RunError, UsageError, UserError, is_full_disk
from .results import discard, emit, emit_error, keep_stdout_for_results
from .terminal import is_first_process

EXIT_INTERRUPTED = 130
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
SIGNAL_SECONDS = 10.0


def quiet_libraries() -> None:
    """Keep the logs of the libraries to what a user can act on."""
    # Set only here, before the first import of these libraries, and only where the user has not chosen.
    defaults = {"HF_HUB_DISABLE_TELEMETRY": "1", "TRANSFORMERS_VERBOSITY": "error"}
    if sys.stderr is None or not sys.stderr.isatty():
        defaults |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}
    environ.update({name: value for name, value in defaults.items() if name not in environ})
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    for name in ("huggingface_hub", "datasets"):
        logging.getLogger(name).propagate = False  # they write to stderr themselves: else every warning appears twice


def main_guard(main: Callable[[], object]) -> None:
    """Run a script's `main`, print its result as JSON and leave with the exit code of its end."""
    if sys.flags.optimize > 1:  # `python -OO`: transformers reads its own docstrings
        environ["PYTHONOPTIMIZE"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    _open_closed_streams()
    keep_stdout_for_results()
    quiet_libraries()
    keep_freed_memory()
    interrupted = _interrupt_on_signals()
    try:
        result = main()
        if result is not None:
            emit(result)
        code = 0
    except UserError as error:
        told = packages.missing(error) or error
        code = _tell(told)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of stdout or of stderr has left, as `head` does: there is nobody to tell
        discard(sys.stderr)
        code = RunError.exit_code
    except Exception as error:  # some libraries turn an interruption into an error of their own
        code = EXIT_INTERRUPTED if interrupted else explain_unexpected(error)
    if code == EXIT_INTERRUPTED and is_first_process():
        print("interrupted: nothing half-written was kept", file=sys.stderr)
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    raise SystemExit(code)


def _open_closed_streams() -> None:
    """Give streams that the caller closed (`2>&-`) a place to go. Else the next file opened, such as a checkpoint, would
    get the number of stderr, and with it what libraries print there."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the life of the process


def _interrupt_on_signals() -> list[int]:
    """Let SIGTERM (a scheduler, torchrun, `kill`) and SIGHUP (a closed terminal) end a run as Ctrl-C does: cleaned up, exit 130.

    Returns a list that holds the signals that came. A repeated one is ignored for some seconds, in which files are cleared
    away, and interrupts again after them. What the caller chose to ignore (nohup) stays ignored.
    """
    came: list[int] = []
    since, owner = [-math.inf], os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a fork, such as a worker that loads data, just ends
            os._exit(EXIT_INTERRUPTED)
        came.append(number)
        if time.monotonic() - since[0] > SIGNAL_SECONDS:
            since[0] = time.monotonic()
            raise KeyboardInterrupt

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        with contextlib.suppress(ValueError):  # not in the main thread
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, interrupt)
    return came


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors for the next ones, on Linux; elsewhere nothing changes.

    By default it returns every freed block above 32 MB, and smaller ones at the end of its heap, to the system, which
    then clears each page again: on CPUs the layers of one forward pass pay that over and over (references/scaling.md has
    the measurement). For the process of a script only: a program that imports the package keeps its own settings.
    """
    import ctypes

    largest = 2**31 - 1
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, largest)


def explain_unexpected(error: Exception) -> int:
    """One line for a failure that nobody foresaw; the traceback only for those who ask for it."""
    code = _tell(known_run_error(error))
    if os.environ.get("REWARD_MODELING_DEBUG"):
        import traceback

        traceback.print_exception(error)
    return code


def _tell(error: UserError) -> int:
    """The lines of an error on stderr, and unless the flags are wrong its JSON on stdout. Returns the exit code."""
    print(error.render(), file=sys.stderr)
    if not isinstance(error, UsageError) and is_first_process():
        emit_error(error)
    return error.exit_code


def known_run_error(error: Exception) -> UserError:
    """What to tell of an error of the system or of a library."""
    if found := packages.missing(error):
        return found
    text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    named = getattr(error, "filename", None)
    if is_full_disk(error):
        return RunError("the disk is full", where=named, hint="free some space, then run again")
    if isinstance(error, PermissionError) and named and Path(named).exists() and not os.access(named, os.R_OK):
        return RunError(f"not allowed to read: {named}", hint="change its permissions, or name another")
    if isinstance(error, PermissionError):
        return RunError(f"not allowed to write: {named}", hint="choose another --output_dir")
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return RunError(
            f"out of memory: {text}", hint="lower --per_device_train_batch_size, --max_tokens_per_batch or --max_length"
        )
    return RunError(text, hint="set REWARD_MODELING_DEBUG=1 to see where this happened")
