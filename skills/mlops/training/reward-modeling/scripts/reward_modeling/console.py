"""What a script says and how it ends: rich on stderr, one JSON object on stdout, an exit code.

    UserError                 the base: a mistake that the user can mend, told without a traceback
    |-- UsageError    exit 2  flags, configuration, paths the user named
    |-- DataError     exit 3  a file, a row, a column
    |-- ModelError    exit 4  a model or tokenizer folder
    `-- RunError      exit 5  the run itself: disk, memory, a loss that is no number

`main_guard` wraps a script's `main`, turns these into two or three lines on stderr, and keeps stdout clean:
whatever a library prints there goes to stderr, so that stdout holds exactly the object given to `emit`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from os import environ
from pathlib import Path
from typing import Any

EXIT_INTERRUPTED = 130
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
QUIET_SECONDS = 5.0  # between two progress lines where there is no terminal


class UserError(Exception):
    """A mistake the user can mend. `where` is a file and row, `hint` the next thing to try."""

    exit_code = 1

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None):
        super().__init__(message)
        self.message, self.where, self.hint = message, where, hint

    def render(self) -> str:
        lines = [f"error: {self.message}"]
        if self.where:
            lines.append(f"  --> {self.where}")
        if self.hint:
            lines += ["", f"hint: {self.hint}"]
        return "\n".join(lines)


class UsageError(UserError):
    exit_code = 2


class DataError(UserError):
    exit_code = 3


class ModelError(UserError):
    exit_code = 4


class RunError(UserError):
    exit_code = 5


_console: Any = None
_results = sys.stdout


def results():
    """The stream behind stdout, also after `keep_stdout_for_results`: for what a script was asked to print."""
    return _results


def console():
    """The one rich console, on stderr. Made on first use: `--help` does not pay for rich."""
    global _console
    if _console is None:
        from rich.console import Console

        _console = Console(stderr=True, highlight=False, soft_wrap=True)
    return _console


def log(message: str) -> None:
    """One plain progress line on stderr, never styled: a path with brackets stays a path."""
    if _is_first_process():
        console().print(message, markup=False)


def warn(message: str) -> None:
    if _is_first_process():
        console().print(f"warning: {message}", markup=False, style="yellow")


def _is_first_process() -> bool:
    """Whether this is the process of a distributed run that speaks for all of them."""
    return os.environ.get("RANK", "0") == "0"


def listed(values: dict[str, Any]) -> str:
    """{"pairs": 12, "epochs": 1} -> "pairs 12, epochs 1", for a line of the log."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """A small table on stderr; numbers are right-aligned, floats shown with four digits."""
    from rich.table import Table
    from rich.text import Text

    if not _is_first_process():
        return
    # A Text is never read as markup: a title may hold a path with brackets.
    drawn = Table(title=Text(title, style="table.title"), title_justify="left", pad_edge=False)
    numeric = [all(isinstance(row[i], (int, float)) or row[i] is None for row in rows) for i in range(len(columns))]
    for name, right in zip(columns, numeric, strict=True):
        drawn.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*[_cell(value) for value in row])
    console().print(drawn, markup=False)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


@contextlib.contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of items just done: a bar on a terminal, elsewhere a line at each tenth."""
    if console().is_terminal:
        from rich.progress import Progress

        with Progress(console=console(), transient=True) as bar:
            task = bar.add_task(label, total=total)
            yield lambda done: bar.advance(task, done)
        return
    state = {"done": 0, "shown": 0, "since": time.monotonic()}

    def advance(done: int) -> None:
        state["done"] += done
        tenth = 10 * state["done"] // max(1, total)
        if tenth > state["shown"] and time.monotonic() - state["since"] > QUIET_SECONDS:
            state.update(shown=tenth, since=time.monotonic())
            log(f"{label}: {state['done']} of {total}")

    yield advance


def emit(result: dict[str, Any]) -> None:
    """Write the script's one JSON object to stdout. NaN and infinity become null: they are not JSON."""
    if _results is None:
        raise RunError(
            "stdout is closed: there is nowhere to write the result", hint="redirect stdout to a file, or to /dev/null"
        )
    text = json.dumps(finite(result), ensure_ascii=False, indent=2, default=str) + "\n"
    try:
        _results.write(text)
        _results.flush()
    except OSError:
        _discard(_results)
        raise


def _discard(stream: Any) -> None:
    """Let what is left in a stream that cannot be written go to nowhere, or Python complains about it on leaving."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def finite(value: Any) -> Any:
    """A copy of `value` in which every float that JSON cannot carry is None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if hasattr(value, "item") and callable(value.item) and getattr(value, "ndim", 0) == 0:
        return finite(value.item())
    return value


def keep_stdout_for_results() -> None:
    """Send everything that libraries, child processes and C code print to stderr; `emit` alone keeps stdout."""
    global _results
    if _results is not sys.stdout or sys.stdout is None:  # None: the caller closed it (`>&-`)
        return
    try:
        sys.stdout.flush()
        saved = os.dup(1)
        os.dup2(2, 1)
    except OSError:
        return
    _results = os.fdopen(saved, "w", encoding="utf-8")


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


def main_guard(main: Callable[[], dict[str, Any] | None]) -> None:
    """Run a script's `main`, print its result as JSON and leave with the exit code of DESIGN contract 6."""
    if sys.stderr is None:  # the caller closed it (`2>&-`)
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the life of the process
    keep_stdout_for_results()
    quiet_libraries()
    keep_freed_memory()
    try:
        result = main()
        if result is not None:
            emit(result)
        code = 0
    except UserError as error:
        print(error.render(), file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted: nothing half-written was kept", file=sys.stderr)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of stdout or of stderr has left, as `head` does: there is nobody to tell
        _discard(sys.stderr)
        code = RunError.exit_code
    except Exception as error:
        code = _explain_unexpected(error)
    sys.stderr.flush()
    raise SystemExit(code)


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


def _explain_unexpected(error: Exception) -> int:
    """One line for a failure that nobody foresaw; the traceback only for those who ask for it."""
    known = _known_run_error(error)
    print(known.render(), file=sys.stderr)
    if os.environ.get("REWARD_MODELING_DEBUG"):
        import traceback

        traceback.print_exception(error)
    return known.exit_code


def _known_run_error(error: Exception) -> UserError:
    text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    if _is_full_disk(error):
        return RunError(
            "the disk is full", where=getattr(error, "filename", None), hint="free some space, then run again"
        )
    if isinstance(error, PermissionError):
        return RunError(f"not allowed to write: {error.filename}", hint="choose another --output_dir")
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return RunError(
            f"out of memory: {text}", hint="lower --per_device_train_batch_size, --max_tokens_per_batch or --max_length"
        )
    return RunError(text, hint="set REWARD_MODELING_DEBUG=1 to see where this happened")


def _is_full_disk(error: BaseException) -> bool:
    """Whether this error, or one that it was raised from, is a write that found no space."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # safetensors says it in words; torch.save says only that its zip file has not become as long as it should.
    signs = ("No space left on device", "PytorchStreamWriter failed writing", ". unexpected pos ")
    if any(sign in str(error) for sign in signs):
        return True
    before = error.__cause__ or error.__context__
    return before is not None and _is_full_disk(before)


def check_output_file(path: str | Path, overwrite: bool = False) -> Path:
    """The path, if a file can be written there.

    Raises UsageError when it is a folder, when its folder cannot be written to, or when it exists and may not be replaced.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path} is a folder, not a file")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already", hint="give another name, or add --overwrite")
    parent = path.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        # Permission bits do not say it all (root, read-only mounts, /proc): only a write does.
        probe = parent / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", hint="choose another place for the file") from error
    return path


def write_whole(path: str | Path, lines) -> int:
    """Write text lines to `path` so that it appears complete or not at all. Returns the number of lines."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    count = 0
    try:
        with open(partial, "w", encoding="utf-8", newline="\n") as file:
            for line in lines:
                file.write(line + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count
