"""What a script says on stderr while it works: lines, warnings, tables and progress, by rich, which is imported late."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Cell = str | float | bool | None
QUIET_SECONDS = 5.0  # between two progress lines where there is no terminal

_console: Console | None = None


def console() -> Console:
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


def listed(values: Mapping[str, object]) -> str:
    """{"pairs": 12, "epochs": 1} -> "pairs 12, epochs 1", for a line of the log."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
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
        drawn.add_row(*[_shown(value) for value in row])
    console().print(drawn, markup=False)


def _shown(value: Cell) -> str:
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
