"""What a script says on stderr while it works: lines, warnings, tables and progress, by rich, which is imported late."""

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from .hf import Console

_Cell = str | float | bool | None
QUIET_SECONDS = 5.0  # between two progress lines where there is no terminal


@functools.cache
def console() -> Console:
  import rich.console

  return rich.console.Console(stderr=True, highlight=False, soft_wrap=True)


def log(message: str, style: str | None = None) -> None:
  """On stderr, never read as markup: a path with brackets stays a path."""
  if is_first_process():
    console().print(message, markup=False, style=style)


def warn(message: str) -> None:
  log(f"warning: {message}", "yellow")


def is_first_process() -> bool:
  return os.environ.get("RANK", "0") == "0"


def listed(values: Mapping[str, object]) -> str:
  """{"pairs": 12, "epochs": 1} -> "pairs 12, epochs 1"."""
  return ", ".join(f"{name} {value}" for name, value in values.items())


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[_Cell]]) -> None:
  from rich.table import Table
  from rich.text import Text

  if not is_first_process():
    return
  # A Text is never read as markup: a title may hold a path with brackets.
  drawn = Table(title=Text(title, style="table.title"), title_justify="left", pad_edge=False)
  for i, name in enumerate(columns):
    numeric = all(isinstance(row[i], (int, float)) or row[i] is None for row in rows)
    drawn.add_column(name, justify="right" if numeric else "left", overflow="fold")
  for row in rows:
    drawn.add_row(*map(_shown, row))
  console().print(drawn, markup=False)


def _shown(value: _Cell) -> str:
  if value is None or isinstance(value, bool):
    return {None: "-", True: "yes", False: "no"}[value]
  return f"{value:.4f}" if isinstance(value, float) else str(value)


interrupted: list[int] = []
"""Signals that came."""


def check_interrupted() -> None:
  """Once more, where a library swallowed what the signal raised."""
  if interrupted:
    raise KeyboardInterrupt


@contextlib.contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
  """A function to call with the number of items just done: a bar on a terminal, elsewhere a line at each tenth."""
  if console().is_terminal:
    from rich.progress import Progress

    with Progress(console=console(), transient=True) as bar:
      task = bar.add_task(label, total=total)

      def advance_bar(done: int) -> None:
        check_interrupted()
        bar.advance(task, done)

      yield advance_bar
    return
  finished, shown, since = 0, 0, time.monotonic()

  def advance(done: int) -> None:
    nonlocal finished, shown, since
    check_interrupted()
    finished += done
    tenth = 10 * finished // max(1, total)
    if tenth > shown and time.monotonic() - since > QUIET_SECONDS:
      shown, since = tenth, time.monotonic()
      log(f"{label}: {finished} of {total}")

  yield advance
