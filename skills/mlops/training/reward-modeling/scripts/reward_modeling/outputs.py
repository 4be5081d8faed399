"""Files that are written: checked and locked before a run, complete or absent after it, and never by two runs at once."""

import contextlib
import os
import shutil
import stat
import weakref
import zlib
from collections.abc import Iterable
from pathlib import Path

from .errors import UsageError
from .results import stdout
from .terminal import is_first_process, warn


class Held(type(Path())):
  """A path that this process alone may write to while the object lives."""


def locked(path: str | Path, file: Path, flags: int = os.O_RDONLY) -> Path:
  """`path`, held by a lock on `file`, which the kernel takes away when the process ends.

  Raises UsageError when another run has it. Where the file system has no locks: a warning.
  """
  descriptor = os.open(file, flags, 0o666)
  try:
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except ImportError:  # not on Windows
    pass
  except BlockingIOError as error:
    os.close(descriptor)
    hint = "wait for its end, or choose another place"
    raise UsageError(f"another run is writing to {path}", hint=hint) from error
  except OSError as error:
    warn(f"{path} cannot be locked ({error.strerror}): see to it that no second run writes there")
  held = Held(path)
  held.descriptor = descriptor
  held.let_go = weakref.finalize(held, _let_go, descriptor, file if flags & os.O_CREAT else None, os.getpid())
  return held


def _let_go(descriptor: int, partial: Path | None, owner: int) -> None:
  with contextlib.suppress(OSError):  # a fork, such as a worker that loads data, closes its copy alone
    if partial is not None and os.getpid() == owner and os.path.samestat(os.fstat(descriptor), os.lstat(partial)):
      partial.unlink()
  os.close(descriptor)


def _held_file(path: str | Path) -> Path:
  while True:
    partial = _partial(path)
    held = locked(path, partial, os.O_RDWR | os.O_CREAT)
    with contextlib.suppress(FileNotFoundError):  # the run before has just moved it into place
      if os.path.samestat(os.fstat(held.descriptor), partial.stat()):
        return held


def _partial(path: str | Path) -> Path:
  target = Path(os.path.realpath(path))
  name = os.fsencode(target.name)
  return target.with_name(f".{target.name if len(name) < 240 else f'{zlib.crc32(name):08x}'}.partial")


def is_standard_stream(path: Path) -> bool:
  for stream in (1, 2, stdout()):
    with contextlib.suppress(OSError, ValueError, AttributeError):
      if os.path.samestat(os.fstat(stream if isinstance(stream, int) else stream.fileno()), path.stat()):
        return True
  return False


def remove(path: Path) -> None:
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path, ignore_errors=True)
  else:
    path.unlink(missing_ok=True)


def check_output_file(path: str | Path, overwrite: bool = False, inputs: Iterable[str | None] = ()) -> Path:
  """The path (of a link, its target is meant), held while the returned object lives. inputs: what the run reads."""
  path = Path(path)
  try:
    if path.is_dir():
      raise UsageError(f"{path} is a folder, not a file")
    if path.exists() and (not path.is_file() or is_standard_stream(path)):
      raise UsageError(f"{path} is not a regular file", hint="name a file, or leave the flag out")
    if path.exists() and not overwrite:
      raise UsageError(f"{path} exists already", hint="choose another, or add --overwrite")
    target = Path(os.path.realpath(path))
    if any(target == Path(os.path.realpath(name)) for name in inputs if name):
      raise UsageError(f"{path} is what the run reads", hint="write to another file")
    if target.is_symlink():
      raise UsageError(f"cannot write {path}: its links go in a circle")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.exists()  # which fails for a name that is too long
    return _held_file(path) if is_first_process() else path  # only a write says whether it can be written to
  except (OSError, ValueError) as error:
    reason = getattr(error, "strerror", None) or error
    raise UsageError(f"cannot write {path}: {reason}", hint="choose another place") from error


def write_whole(path: str | Path, lines: Iterable[str]) -> int:
  """The file appears complete or not at all, with its old permissions. Returns the number of lines."""
  held = path if hasattr(path, "descriptor") else _held_file(path)
  partial, target = _partial(held), Path(os.path.realpath(held))
  how = {"encoding": "utf-8", "newline": "\n", "errors": "backslashreplace", "closefd": False}
  count = 0
  try:
    with contextlib.suppress(FileNotFoundError):
      os.fchmod(held.descriptor, stat.S_IMODE(target.stat().st_mode))
    os.ftruncate(held.descriptor, 0)
    with open(held.descriptor, "w", **how) as file:
      for count, line in enumerate(lines, 1):  # noqa: B007 - it is what is returned
        file.write(line + "\n")
      file.flush()
      os.fsync(file.fileno())
    partial.replace(target)
    del held.descriptor  # it is that of the file itself now: the next text needs a partial file of its own
  except BaseException:
    partial.unlink(missing_ok=True)
    raise
  return count
