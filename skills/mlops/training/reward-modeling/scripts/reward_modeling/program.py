"""How a script ends: `main_guard` turns its result into JSON on stdout, and errors and signals into lines and exit codes."""

import contextlib
import logging
import math
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable
from os import environ
from pathlib import Path
from types import FrameType

from . import packages, processes
from .errors import RunError, UsageError, UserError, is_full_disk
from .results import discard, emit, emit_error, keep_stdout_for_results
from .terminal import interrupted, is_first_process

EXIT_INTERRUPTED = 130
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
SIGNAL_SECONDS = 10.0
NO_MEMORY = "out of memory|(not|can't) allocate memory|not enough memory|failed to map segment"
"""As CUDA, the system, torch on a CPU and the loader of shared libraries say it."""


def quiet_libraries() -> None:
  environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
  environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
  if sys.stderr is None or not sys.stderr.isatty():
    environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    environ.setdefault("TQDM_DISABLE", "1")
  warnings.filterwarnings("ignore", category=FutureWarning)
  logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
  for name in ("huggingface_hub", "datasets"):
    logging.getLogger(name).propagate = False  # they write to stderr themselves: else every warning appears twice


def main_guard(main: Callable[[], object]) -> None:
  if sys.flags.optimize > 1:  # `python -OO`: transformers reads its own docstrings
    environ["PYTHONOPTIMIZE"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.argv])
  _open_closed_streams()
  keep_stdout_for_results()
  quiet_libraries()
  keep_freed_memory()
  _interrupt_on_signals()
  code = 0
  try:
    _refuse_lost_folder()
    result = main()
    if result is not None:
      emit(result)
  except UserError as error:
    code = _tell(packages.missing(error) or error)
  except KeyboardInterrupt:
    code = EXIT_INTERRUPTED
  except BrokenPipeError:  # the reader of stdout or of stderr has left, as `head` does: there is nobody to tell
    discard(sys.stderr)
    code = RunError.exit_code
  except Exception as error:  # some libraries turn an interruption into an error of their own
    code = EXIT_INTERRUPTED if interrupted else explain_unexpected(error)
  if code == EXIT_INTERRUPTED and is_first_process():
    print("interrupted: nothing half-written was kept", file=sys.stderr)
  interrupted.clear()
  with contextlib.suppress(OSError):
    sys.stderr.flush()
  raise SystemExit(code)


def _refuse_lost_folder() -> None:
  """Else the libraries fail in ways of their own, oneMKL by ending the process."""
  try:
    os.getcwd()  # noqa: PTH109
  except OSError as error:
    raise UsageError("the folder that this was started in is gone", hint="`cd` to one that exists") from error


def _open_closed_streams() -> None:
  """Else a file opened next would get what libraries print."""
  for number in range(3):
    try:
      os.fstat(number)
    except OSError:
      os.dup2(os.open(os.devnull, os.O_RDWR), number)
  if sys.stderr is None:
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the life of the process


def _interrupt_on_signals() -> None:
  """SIGTERM and SIGHUP end a run as Ctrl-C does.

  A repeated one is ignored while files are cleared away; what the caller ignores (nohup) stays ignored.
  """
  since, owner = -math.inf, os.getpid()

  def interrupt(number: int, frame: FrameType | None) -> None:
    nonlocal since
    if os.getpid() != owner:  # a fork, such as a worker that loads data, just ends
      os._exit(EXIT_INTERRUPTED)
    interrupted.append(number)
    if time.monotonic() - since > SIGNAL_SECONDS:
      since = time.monotonic()
      raise KeyboardInterrupt

  for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    with contextlib.suppress(ValueError, AttributeError):  # not in the main thread; not on Windows
      if signal.getsignal(number := getattr(signal, name)) is not signal.SIG_IGN:
        signal.signal(number, interrupt)


def keep_freed_memory() -> None:
  """Let glibc keep the memory of freed tensors, on Linux, in the process of a script only.

  By default it gives large blocks back, and each forward pass pays for clearing their pages (references/scaling.md).
  """
  import ctypes

  with contextlib.suppress(OSError, AttributeError):
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(M_MMAP_THRESHOLD, 2**30)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def explain_unexpected(error: Exception) -> int:
  """One line; the traceback only for those who ask for it."""
  code = _tell(known_run_error(error))
  if environ.get("REWARD_MODELING_DEBUG"):
    import traceback

    traceback.print_exception(error)
  return code


def _tell(error: UserError) -> int:
  if processes.is_told_elsewhere(error):
    return error.exit_code
  try:
    print(error.render(), file=sys.stderr, flush=True)
  except OSError:  # a log on a full disk; the exit code and stdout still tell
    discard(sys.stderr)
  if not isinstance(error, UsageError) and is_first_process():
    emit_error(error)
  processes.set_told()
  return error.exit_code


def known_run_error(error: Exception) -> UserError:
  if found := packages.missing(error):
    return found
  text = f"{type(error).__name__}: {error}".strip()
  text = re.sub(r":\n+", ": ", text).splitlines()[0]  # some libraries put the cause below
  named = getattr(error, "filename", None)
  if is_full_disk(error):
    hint = "free some space (or raise the limit: a quota, `ulimit -f`), then run again"
    return RunError("the disk is full", where=named, hint=hint)
  if isinstance(error, PermissionError):
    if named and Path(named).exists() and not os.access(named, os.R_OK):
      return RunError(f"not allowed to read: {named}", hint="change its permissions, or name another")
    return RunError(f"not allowed to write: {named}", hint="choose another --output_dir")
  if isinstance(error, MemoryError) or re.search(NO_MEMORY, str(error), re.IGNORECASE):
    smaller = "lower --per_device_train_batch_size, --max_tokens_per_batch or --max_length"
    return RunError(f"out of memory: {text}", hint=smaller)
  return RunError(text, hint="set REWARD_MODELING_DEBUG=1 to see where this happened")
