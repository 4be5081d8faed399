"""What a script says and how it ends: rich on stderr, one JSON object on stdout, an exit code.

    UserError                 the base: a mistake that the user can mend, told without a traceback
    |-- UsageError    exit 2  flags, configuration, paths the user named
    |-- DataError     exit 3  a file, a row, a column
    |-- ModelError    exit 4  a model or tokenizer folder
    `-- RunError      exit 5  the run itself: disk, memory, a loss that is no number

`main_guard` wraps a script's `main`, turns these into two or three lines on stderr, and keeps stdout clean:
whatever a library prints there goes to stderr, so that stdout holds exactly the object given to `emit`. SCHEMAS, at the
end, says what that object holds: `--json_schema` prints it, and the tests hold real output to it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import re
import shutil
import signal
import stat
import sys
import time
import warnings
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator
from os import environ
from pathlib import Path
from typing import Any

EXIT_INTERRUPTED = 130
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
SIGNAL_SECONDS = 10.0
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
    if is_first_process():
        console().print(message, markup=False)


def warn(message: str) -> None:
    if is_first_process():
        console().print(f"warning: {message}", markup=False, style="yellow")


def is_first_process() -> bool:
    """Whether this is the process of a distributed run that speaks for all of them."""
    return os.environ.get("RANK", "0") == "0"


def listed(values: dict[str, Any]) -> str:
    """{"pairs": 12, "epochs": 1} -> "pairs 12, epochs 1", for a line of the log."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """A small table on stderr; numbers are right-aligned, floats shown with four digits."""
    from rich.table import Table
    from rich.text import Text

    if not is_first_process():
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
    text = to_json(result, indent=2) + "\n"
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


def to_json(value: Any, **how: Any) -> str:
    """JSON text of anything, with null for what JSON cannot carry: every file and stdout is written by this."""
    return json.dumps(finite(value), ensure_ascii=False, default=str, allow_nan=False, **how)


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
    # A name of a file that is not UTF-8 must not end the run: its bytes are escaped, which JSON reads.
    _results = os.fdopen(saved, "w", encoding="utf-8", errors="backslashreplace")


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
        told = _missing_package(error) or error
        print(told.render(), file=sys.stderr)
        code = told.exit_code
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of stdout or of stderr has left, as `head` does: there is nobody to tell
        _discard(sys.stderr)
        code = RunError.exit_code
    except Exception as error:  # some libraries turn an interruption into an error of their own
        code = EXIT_INTERRUPTED if interrupted else _explain_unexpected(error)
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

    def interrupt(number: int, frame: Any) -> None:
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


def _explain_unexpected(error: Exception) -> int:
    """One line for a failure that nobody foresaw; the traceback only for those who ask for it."""
    known = _known_run_error(error)
    print(known.render(), file=sys.stderr)
    if os.environ.get("REWARD_MODELING_DEBUG"):
        import traceback

        traceback.print_exception(error)
    return known.exit_code


def _missing_package(error: Exception) -> UserError | None:
    from .packages import missing  # here, because it knows this module's errors

    return missing(error)


def _known_run_error(error: Exception) -> UserError:
    if found := _missing_package(error):
        return found
    text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    if is_full_disk(error):
        return RunError(
            "the disk is full", where=getattr(error, "filename", None), hint="free some space, then run again"
        )
    named = getattr(error, "filename", None)
    if isinstance(error, PermissionError) and named and Path(named).exists() and not os.access(named, os.R_OK):
        return RunError(f"not allowed to read: {error.filename}", hint="change its permissions, or name another")
    if isinstance(error, PermissionError):
        return RunError(f"not allowed to write: {error.filename}", hint="choose another --output_dir")
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return RunError(
            f"out of memory: {text}", hint="lower --per_device_train_batch_size, --max_tokens_per_batch or --max_length"
        )
    return RunError(text, hint="set REWARD_MODELING_DEBUG=1 to see where this happened")


def is_full_disk(error: BaseException) -> bool:
    """Whether this error, or one that it was raised from, is a write that found no space."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # safetensors says it in words; torch.save says only that its zip file has not become as long as it should.
    signs = ("No space left on device", "PytorchStreamWriter failed writing", ". unexpected pos ")
    if any(sign in str(error) for sign in signs):
        return True
    before = error.__cause__ or error.__context__
    return before is not None and is_full_disk(before)


# ---- files that are written ---------------------------------------------------------------------------------------


class Held(type(Path())):
    """A path that this process alone may write to while the object lives: it is locked, for a file by its partial one."""


def locked(path: str | Path, file: Path, flags: int = os.O_RDONLY) -> Path:
    """`path`, held by a lock on `file` (the folder itself, or the partial file). Raises UsageError when another run has it.

    The kernel takes the lock away when the process ends, however it ends. Where the file system has no locks: a warning.
    """
    descriptor = os.open(file, flags, 0o666)
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # not on Windows
        pass
    except BlockingIOError as error:
        os.close(descriptor)
        raise UsageError(
            f"another run is writing to {path}", hint="wait until it has ended, stop it, or choose another place"
        ) from error
    except OSError as error:
        warn(f"{path} cannot be locked ({error.strerror}): see to it that no second run writes there")
    held = Held(path)
    held.descriptor = descriptor
    held.let_go = weakref.finalize(held, _let_go, descriptor, file if flags & os.O_CREAT else None, os.getpid())
    return held


def _let_go(descriptor: int, partial: Path | None, owner: int) -> None:
    with contextlib.suppress(OSError):  # a fork of the owner, such as a worker that loads data, closes its copy alone
        if partial is not None and os.getpid() == owner and os.path.samestat(os.fstat(descriptor), os.lstat(partial)):
            partial.unlink()
    os.close(descriptor)


def _held_file(path: str | Path) -> Path:
    """The path of a file, held by its partial file, which lies beside it (a link's target) until it takes its place."""
    while True:
        partial = _partial(path)
        held = locked(path, partial, os.O_RDWR | os.O_CREAT)
        with contextlib.suppress(FileNotFoundError):  # the run before has just moved it into place
            if os.path.samestat(os.fstat(held.descriptor), partial.stat()):
                return held


def _partial(path: str | Path) -> Path:
    target = Path(os.path.realpath(path))
    name = target.name if len(os.fsencode(target.name)) < 240 else f"{zlib.crc32(os.fsencode(target.name)):08x}"
    return target.with_name(f".{name}.partial")


def is_standard_stream(path: Path) -> bool:
    """Whether stdout or stderr of this process is redirected to this file."""
    for stream in (1, 2, _results):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if os.path.samestat(os.fstat(stream if isinstance(stream, int) else stream.fileno()), path.stat()):
                return True
    return False


def sweep(folder: str | Path, names: str) -> None:
    """Remove what killed runs left in a folder: entries whose name is matched by the regular expression `names`, but for
    those that carry the number of a process (as `.write-test-17` and `.x.17.partial` do) which still runs."""
    for path in Path(folder).iterdir():
        if re.fullmatch(names, path.name) and not _is_alive(
            re.search(r"\.(?:write-test-)?(\d+)(?:\.partial)?$", path.name)
        ):
            remove(path)


def _is_alive(number: re.Match | None) -> bool:
    try:
        return number is not None and os.kill(int(number[1]), 0) is None
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all it holds, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def check_output_file(path: str | Path, overwrite: bool = False, inputs: Iterable[str | None] = ()) -> Path:
    """The path, if a file can be written there, and held for this run while the returned object lives.

    inputs: files that the run reads. Raises UsageError when it is one of them, a folder, a device or a pipe, when its
    folder cannot be written to, when another run is writing it, or when it exists and may not be replaced. Of a link, the
    target is meant.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise UsageError(f"{path} is a folder, not a file")
        if path.exists() and (not path.is_file() or is_standard_stream(path)):
            raise UsageError(f"{path} is not a regular file", hint="give the name of a file, or leave the flag out")
        if path.exists() and not overwrite:
            raise UsageError(f"{path} exists already", hint="give another name, or add --overwrite")
        target = Path(os.path.realpath(path))
        if any(target == Path(os.path.realpath(name)) for name in inputs if name):
            raise UsageError(f"{path} is what the run reads", hint="write to another file: the original would be lost")
        if target.is_symlink():
            raise UsageError(f"cannot write {path}: its links go in a circle")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.exists()  # which fails for a name that is too long
        sweep(target.parent, rf"\.write-test-\d+|\.{re.escape(target.name)}\.\d+\.partial")
        return _held_file(path) if is_first_process() else path  # only a write says whether it can be written to
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot write {path}: {reason}", hint="choose another place for the file") from error


def write_whole(path: str | Path, lines) -> int:
    """Write text lines to `path` so that it appears complete or not at all. Returns the number of lines.

    A link stays one: its target is written. A file that is replaced keeps its permissions.
    """
    held = path if hasattr(path, "descriptor") else _held_file(path)
    partial, target = _partial(held), Path(os.path.realpath(held))
    count = 0
    try:
        with contextlib.suppress(FileNotFoundError):
            os.fchmod(held.descriptor, stat.S_IMODE(target.stat().st_mode))
        os.ftruncate(held.descriptor, 0)
        with open(
            held.descriptor, "w", encoding="utf-8", newline="\n", errors="backslashreplace", closefd=False
        ) as file:
            for line in lines:
                file.write(line + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        del held.descriptor  # it is that of the file itself now: the next text needs a partial file of its own
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return count


# ---- the shape of what stdout carries ---------------------------------------------------------------------------------


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """The schema of an object with these keys, some of which may be missing, and no others."""
    properties = {**required, **optional}
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _map(values: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object whose keys come from the data or from the settings."""
    return {"type": "object", "additionalProperties": values}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


_TEXT, _COUNT, _FLAG, _ANY = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}, {}
_NUMBER = {"type": ["number", "null"]}  # null stands for what JSON cannot carry
_ESTIMATE = _or_null({"$ref": "#/$defs/estimate"})
_FINDINGS = _list({"$ref": "#/$defs/finding"})
_FILE = _or_null(_TEXT)

DEFINITIONS = {
    "estimate": _object(
        {"value": _NUMBER, "low": _NUMBER, "high": _NUMBER, "n": _COUNT, "groups": _COUNT}  # 95 %; groups: prompts
    ),
    "finding": _object(
        dict.fromkeys(("check", "message", "advice"), _TEXT)
        | {"severity": {"enum": ["error", "warning", "info"]}, "count": _COUNT, "share": _NUMBER, "rows": _list(_TEXT)}
    ),
}

_ON_PAIRS = {
    **dict.fromkeys(("n_pairs", "n_prompts", "ties", "not_scored", "truncated", "not_rendered"), _COUNT),
    **dict.fromkeys(("accuracy", "macro_accuracy", "micro_accuracy"), _ESTIMATE),
    **dict.fromkeys(("tie_share", "log_loss", "brier", "ece", "ece_if_calibrated", "overconfidence"), _NUMBER),
    **{"margin": _map(_NUMBER), "length": _map(_ANY), "subsets": _map(_ESTIMATE), "blind": _map(_NUMBER)},
    "reliability": _list(_map(_NUMBER)),
}
_MEASURES_OF_STEPS = (
    *("step_accuracy", "precision", "recall", "f1", "auroc"),
    *("first_error_accuracy", "erroneous", "correct", "processbench_f1"),
)
_ON_STEPS = {
    **dict.fromkeys(("n_solutions", "n_prompts", "n_steps", "wrong_steps", "erroneous_solutions"), _COUNT),
    **dict.fromkeys(("correct_solutions", "not_scored_steps", "not_judged_solutions"), _COUNT),
    **dict.fromkeys(_MEASURES_OF_STEPS, _ESTIMATE),
    "threshold": _object({"values": _list(_NUMBER), "chosen_on": _TEXT}),
    "subsets": _map(_ANY),
    "baselines": _map(_object(dict.fromkeys(_MEASURES_OF_STEPS, _ESTIMATE))),
}
_CURVES = ("model", "random", "longest", "majority", "oracle", "gain")
_ON_POOLS = {
    **dict.fromkeys(("prompts", "completions", "not_scored", "mixed_prompts"), _COUNT),
    "pool": _object({"smallest": _COUNT, "largest": _COUNT}),
    "majority_answers": _TEXT,
    "majority_possible": _FLAG,
    "curve": _list(_object({"n": _COUNT, "prompts": _COUNT, **dict.fromkeys(_CURVES, _ESTIMATE)})),
}
_ON_BENCHMARK = {
    **dict.fromkeys(("title", "published_in"), _TEXT),
    **dict.fromkeys(("rows", "published_rows", "items", "ties", "truncated", "unscored_steps"), _COUNT),
    **{"complete": _FLAG, "set_aside": _map(_COUNT), "max_length": {"type": ["integer", "null"]}},
    **{"threshold": _NUMBER, "threshold_from": _FILE, "numbers": _map(_ESTIMATE), "subsets": _map(_NUMBER)},
    **{"baselines": _map(_map(_NUMBER)), "gain": _ESTIMATE, "published": _map(_map(_NUMBER))},
}
_MOVED = {"metadata_moved": _map(_COUNT)}
_JUDGED = {
    **{"model": _TEXT, "dataset": _list(_TEXT), "format": _TEXT, "set_aside": _map(_COUNT)},
    **{"readings": _list(_TEXT), "output": _FILE},
}

_TRAINS = {
    **{"output_dir": _TEXT, "head": _TEXT, "format": _TEXT, "counts": _map(_COUNT), "audit": _FINDINGS},
    **{"set_aside": _map(_COUNT), "left_out": _COUNT},
}
_TRAINED = {
    **{"resumed_from": _FILE, "training": _map(_ANY), "reward": _map(_ANY)},
    **{"fingerprint": _TEXT, "reload_difference": _NUMBER},
}
_OPTIMISES = {"output_dir": _TEXT, "policy": _TEXT, "reward_models": _list(_TEXT), "prompts": _COUNT}
_OPTIMISED = {
    **{"resumed_from": _FILE, "reward_inputs_truncated": _COUNT},
    **dict.fromkeys(("beginning", "end"), _map(_NUMBER)),
}
_DRY = {"dry_run": {"const": True}}
_CHECKED = {
    **{"format": _TEXT, "files": _list(_TEXT), "columns_used": _list(_TEXT), "metadata_columns": _list(_TEXT)},
    **dict.fromkeys(("rows", "kept", "equal_scores", "dropped", "errors", "warnings"), _COUNT),
    **dict.fromkeys(("kinds", "set_aside", "winner_values", "dropped_rows", "dropped_completions"), _map(_COUNT)),
    **{"findings": _FINDINGS, "output": _FILE},
}

SCHEMAS: dict[str, tuple[dict[str, Any], ...]] = {
    "check_data.py": (
        _object(
            _CHECKED,
            **dict.fromkeys(("comparisons", "solutions", "steps", "labelled_steps", "incorrect_steps"), _COUNT),
            **{"prompts": _COUNT, "completions": _COUNT, **_MOVED},
        ),
        _object({"error": _object({"message": _TEXT, "where": _FILE, "hint": _FILE})}),
        _object({"formats": _list(_map(_ANY))}),
        _object({"checks": _list(_map(_TEXT))}),
    ),
    "train.py": (
        _object({**_TRAINS, **_DRY, "settings": _map(_ANY)}),
        _object({**_TRAINS, **_TRAINED, "evaluation": _or_null(_object(_ON_PAIRS))}),
    ),
    "train_process.py": (
        _object({**_TRAINS, **_DRY, "step_separator": _TEXT, "settings": _map(_ANY)}, labels_shown=_list(_ANY)),
        _object(
            {**_TRAINS, **_TRAINED, "step_separator": _TEXT, "evaluation": _or_null(_object(_ON_STEPS))},
            labels_shown=_list(_ANY),
        ),
    ),
    "score.py": (
        _object(
            {
                **dict.fromkeys(("refused", "templated"), _COUNT),
                **dict.fromkeys(("prompts", "completions", "not_scored", "truncated"), _COUNT),
                **{"prompts_with_unscored": _COUNT, "not_rendered": _COUNT},
                **{"model": _TEXT, "reward_mean": _NUMBER, "output": _FILE},
            },
            rows=_list(
                {
                    "type": "object",
                    "properties": {
                        "reward": _NUMBER,
                        "rewards": _list(_NUMBER),
                        "order": _list(_COUNT),
                        "index": _COUNT,
                    },
                    "anyOf": [{"required": ["reward"]}, {"required": ["rewards"]}],
                }
            ),
            **{"reward_models": _list(_TEXT), "reward_combine": _TEXT, "reward_weights": _list(_NUMBER)},
            **{"policy": _TEXT, "unfinished": _COUNT, **_MOVED},
            **{"aggregate": _TEXT, "steps": _COUNT, "steps_not_scored": _COUNT},
        ),
    ),
    "evaluate.py": (
        _object({**_JUDGED, **_ON_PAIRS}, comparison=_map(_ANY), **_MOVED),
        _object({**_JUDGED, **_ON_STEPS}, **_MOVED),
        _object({**_JUDGED, **_ON_POOLS}, **_MOVED),
        _object(
            {
                **{"model": _TEXT, "benchmarks": _map(_object(_ON_BENCHMARK)), "scores": _map(_NUMBER)},
                **{"settings": _map(_TEXT), "warnings": _list(_TEXT), "output": _FILE},
            }
        ),
        _object({"studies": _list(_map(_ANY)), "readings": _list(_TEXT), "picture": _FILE}),
    ),
    "ppo.py": (
        _object({**_OPTIMISES, **_DRY, "updates": _COUNT, "settings": _map(_ANY)}),
        _object(
            {
                **{**_OPTIMISES, **_OPTIMISED, "settings": _map(_ANY), "stopped": _FILE, "warnings": _list(_TEXT)},
                **{"updates": _COUNT, "episodes": _COUNT, "seconds": _map(_NUMBER)},
                **{"kl_coef": _NUMBER, "samples_per_second": _NUMBER},
            }
        ),
    ),
    "grpo.py": (
        _object({**_OPTIMISES, **_DRY, "algorithm": _TEXT, "settings": _map(_ANY)}),
        _object(
            {
                **{**_OPTIMISES, **_OPTIMISED, "algorithm": _TEXT, "settings": _map(_ANY), "steps": _COUNT},
                **dict.fromkeys(("train_loss", "seconds", "learning_rate", "num_train_epochs"), _NUMBER),
                **dict.fromkeys(("per_device_train_batch_size", "gradient_accumulation_steps"), _COUNT),
                **{"seed": _COUNT, "world_size": _COUNT, "bf16": _FLAG, "fp16": _FLAG},
            }
        ),
    ),
    "quickstart.py": (
        _object(
            {
                **{"seconds": _NUMBER, "accuracy": _ESTIMATE, "length_baseline": _ESTIMATE, "subsets": _map(_ESTIMATE)},
                **{"gold_reward": _map(_NUMBER), "policy_gold_reward": _map(_NUMBER), "audit": _map(_COUNT)},
                **{"reload_difference": _NUMBER, "artefacts": _map(_TEXT)},
            }
        ),
    ),
}
"""What each script emits, one schema for each kind of run; `json_schema` makes one document of them."""


def json_schema(script: str) -> dict[str, Any]:
    """The JSON Schema of the object that this script writes to stdout."""
    kinds = SCHEMAS[script]
    shape = kinds[0] if len(kinds) == 1 else {"anyOf": list(kinds)}
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, "title": f"stdout of {script}", **shape, "$defs": DEFINITIONS}
