"""Files, folders, datasets saved to disk and hub ids -> tables of numbered rows."""

import difflib
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import hub
from ..errors import DataError
from .cells import short
from .files import AGAIN, READERS, Table, arrow_tables, first_line, suffix
from .folders import data_files


def read(source: str, split: str | None = None, config: str | None = None, size: int | None = None) -> Iterator[Table]:
    """One table a file, or slices of at most `size` rows."""
    path = Path(source).expanduser()
    mode = _mode(path)
    if mode and stat.S_ISREG(mode):
        yield from _file(path, size)
    elif mode and stat.S_ISDIR(mode):
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            yield from _saved(path, split, size)
        else:
            for file in data_files(path, split, config):
                yield from _file(file, size)
    elif mode:
        raise DataError(f"{source} is a pipe or a device, not a file", hint="write the rows into a file")
    elif _looks_like_path(source):
        close = difflib.get_close_matches(path.name, (entry.name for entry in path.parent.glob("*")), n=1)
        hint = (
            f"did you mean {path.with_name(close[0])}?" if close else f"{path.parent} holds nothing of a similar name"
        )
        if not path.parent.is_dir():
            hint = f"there is no folder {path.parent}"
        raise DataError(f"no such file or folder: {source}", hint=hint)
    else:
        yield from _hub(source, split, config, size)


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a zero byte in the name
        return None
    except OSError as error:
        what = f"cannot read {short(str(path), 200)}: {error.strerror}"
        raise DataError(what, hint="check the name and the permissions") from error


def _looks_like_path(source: str) -> bool:
    if suffix(Path(source)) in READERS or source.startswith((".", "~", "/")) or "\\" in source:
        return True
    return re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source) is None


def _file(path: Path, size: int | None) -> Iterator[Table]:
    kind = suffix(path)
    if kind not in READERS:
        hint = f"files end in {', '.join(READERS)}; all but Parquet may end in .gz"
        raise DataError(f"unknown kind of file: {path.name}", where=path, hint=hint)
    there = False
    for part in READERS[kind](path, size):
        there = there or len(part) > 0
        yield part
    if not there:
        raise DataError("the file holds no rows", where=path, hint=AGAIN)


def _saved(path: Path, split: str | None, size: int | None) -> Iterator[Table]:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"not a readable saved dataset: {first_line(error)}", where=path) from error
    yield from _from_datasets(loaded, str(path), split, size)


# What `datasets` says of a dataset that is there -> the flag that was wrong.
_WRONG_CHOICES = {
    "Unknown split": "choose one with --dataset_split (train.py: --dataset_train_split, --dataset_test_split)",
    **dict.fromkeys(("Config name is missing", "BuilderConfig"), "choose one with --dataset_config"),
}
_DOWNLOAD = "where there is a network: `hf download ID --repo-type dataset --local-dir DIR`, then give DIR here"


def _hub(name: str, split: str | None, config: str | None, size: int | None) -> Iterator[Table]:
    reached = hub.answers(name, "dataset")  # before datasets is imported, which looks once whether it is offline
    import datasets

    datasets.config.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE or not reached
    try:
        loaded = datasets.load_dataset(name, name=config, split=split)
    except Exception as error:  # every layer below (HTTP, hub, cache, arrow) raises its own kinds
        for words, flag in _WRONG_CHOICES.items():
            if str(error).startswith(words):
                said = " ".join(str(error).splitlines()[:2])  # the second line lists the configurations
                raise DataError(said, where=name, hint=flag) from error
        close = difflib.get_close_matches(name, [entry.name for entry in Path().iterdir()], n=1)
        hint = "check the spelling and the network, or name a file" if reached else _DOWNLOAD
        hint = f"did you mean the file {close[0]}?" if close else hint
        why = first_line(error) if reached else "there is no network, and it is not in the cache"
        what = f"{name} is neither a file here nor a dataset that the hub gave: {why}"
        raise DataError(what, hint=hint) from error
    yield from _from_datasets(loaded, name, split, size)


def _from_datasets(loaded: Any, name: str, split: str | None, size: int | None) -> Iterator[Table]:
    if isinstance(loaded, dict):
        wanted = split or ("train" if "train" in loaded else next(iter(loaded)) if len(loaded) == 1 else None)
        if wanted not in loaded:
            asked = f"has no split {split}" if split else "has several splits"
            raise DataError(f"{name} {asked} ({', '.join(loaded)})", hint="choose one with --dataset_split")
        loaded = loaded[wanted]
    if not len(loaded):
        raise DataError("the dataset holds no rows", where=name)
    yield from arrow_tables(name, loaded.with_format("arrow").iter(min(size or 1024, 1024)), size)
