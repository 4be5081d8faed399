"""Rows that several processes score: windows of them are claimed, written one file each beside the output, and joined in order."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from .errors import RunError
from .outputs import write_whole
from .processes import Team
from .results import to_json
from .terminal import log

T = TypeVar("T")
IDENTITY = "run.json"


class Shards:
    """Of one run, which goes on when it is started again with the same identity. The last line of a file is its summary."""

    def __init__(self, team: Team, output: Path, identity: dict[str, Any]):
        self.team, self.folder, self.windows = team, output.with_name(f".{output.name}.shards"), 0
        team.first(lambda: self._start(json.loads(to_json(identity))))

    def _start(self, identity: dict[str, Any]) -> None:
        file = self.folder / IDENTITY
        if file.is_file() and json.loads(file.read_text(encoding="utf-8")) == identity:
            log(f"going on with the {len(list(self.folder.glob('*.jsonl')))} shards of {self.folder}")
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        write_whole(file, [to_json(identity)])

    def claimed(self, windows: Iterable[T]) -> Iterator[tuple[int, T]]:
        """Those that this process has to score, with their numbers."""
        mine = self._claim()
        for number, window in enumerate(windows):
            self.windows = number + 1
            if number == mine:
                self.team.check()
                yield number, window
                mine = self._claim()

    def _claim(self) -> int:
        while self._file(number := self.team.claim("window")).exists():
            pass
        return number

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06}.jsonl"

    def write(self, number: int, rows: Iterable[str], summary: Callable[[], dict[str, Any]]) -> None:
        """summary: asked for after the last row."""

        def lines() -> Iterator[str]:
            yield from rows
            yield to_json(summary())

        write_whole(self._file(number), lines())

    def rows(self, add: Callable[[dict[str, Any]], None]) -> Iterator[str]:
        """All rows. add: gets each summary after its rows."""
        for number in range(self.windows):
            try:
                with open(self._file(number), encoding="utf-8", newline="\n") as file:
                    last = next(file)
                    for line in file:
                        yield last.removesuffix("\n")
                        last = line
            except FileNotFoundError as error:
                hint = "all processes need one file system; then start the same command again"
                raise RunError(f"shard {number} of {self.windows} is missing", where=self.folder, hint=hint) from error
            add(json.loads(last))

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def state_of(names: Iterable[str]) -> dict[str, list[Any]]:
    """Size and time of the files under these names; a hub id has none."""
    found = {}
    for name in names:
        path = Path(name).expanduser()
        files = [path, *sorted(path.rglob("[!.]*"))]
        stats = [(file.name, file.stat()) for file in files if file.is_file()]
        found[name] = [[called, stat.st_size, stat.st_mtime_ns] for called, stat in stats]
    return found
