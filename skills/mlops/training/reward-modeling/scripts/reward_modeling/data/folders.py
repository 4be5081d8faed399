"""Which files of a folder are read: those of one configuration and one split, named as `datasets` names them.

A split is in the file's name (train_prefs-00000-of-00002.parquet, test.jsonl, pairs.test.jsonl), in a folder's
(test_sft/0.jsonl), or in the `configs` of the README.md of a downloaded dataset. Several splits are never read together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..console import DataError
from .files import READERS, suffix

BOOKKEEPING = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json")
KEYWORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Words in the names of files and folders, and the split they mean to `datasets`."""

_SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}")


def data_files(folder: Path, split: str | None, config: str | None) -> list[Path]:
    """The data files of one split and one configuration in a folder, sorted, all of one kind.

    Raises DataError where the folder leaves a choice (with the choices), and where what was asked for is not there.
    """
    by_config = _configurations(folder)
    if config is not None and config not in by_config:
        raise _choose(folder, f"no configuration {config}", by_config, "--dataset_config")
    if config is None and len(by_config) > 1 and "default" not in by_config:
        raise _choose(folder, "several configurations", by_config, "--dataset_config")
    by_split = by_config[config or ("default" if "default" in by_config else next(iter(by_config)))]
    kinds = sorted({suffix(path) for files in by_split.values() for path in files})
    if len(kinds) > 1:
        raise DataError(
            f"{folder} holds files of several kinds ({', '.join(kinds)})",
            hint=f"name the files you mean, as in {next(iter(by_split.values()))[0]}",
        )
    found = _wanted(by_split, split)
    if found is None:
        what = f"no files of the split {split}" if split else "files of several splits"
        raise _choose(folder, what, filter(None, by_split), "--dataset_split")
    return found


def _choose(folder: Path, what: str, there: Iterable[str], flag: str) -> DataError:
    return DataError(
        f"{folder} holds {what} ({', '.join(there)})",
        hint=f"choose one with {flag}, or name the files you mean",
    )


def _wanted(by_split: dict[str | None, list[Path]], split: str | None) -> list[Path] | None:
    """The files of the split of that name, or of the only one whose name begins with that word; the only one without a name."""
    if len(by_split) == 1 and (split is None or None in by_split):
        return next(iter(by_split.values()))
    if split is None or split in by_split:
        return by_split[split] if split else None
    meant = [name for name in by_split if name and _keyword(name) == KEYWORDS.get(split, split)]
    return by_split[meant[0]] if len(meant) == 1 else None


def _keyword(name: str) -> str | None:
    """The first word of a name that means a split, as that split."""
    return next((KEYWORDS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in KEYWORDS), None)


def _configurations(folder: Path) -> dict[str, dict[str | None, list[Path]]]:
    """{configuration: {split, or None where no name says it: files}}."""
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and suffix(path) in READERS
        and path.name not in BOOKKEEPING
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not found:
        raise DataError(
            f"{folder} holds no data files",
            hint=f"data files end in {', '.join(READERS)}, or are datasets saved to disk",
        )
    written = _written_configurations(folder)
    if written:
        return written
    configs: dict[str, dict[str | None, list[Path]]] = {}
    for path in found:
        config, split = _place(path.relative_to(folder))
        configs.setdefault(config, {}).setdefault(split, []).append(path)
    return configs


def _place(path: Path) -> tuple[str, str | None]:
    """(configuration, split) of a file by its path in the folder: en/train-00000-of-00001.parquet is ("en", "train").

    Folders that only count (part-000) and `data` are no configurations.
    """
    folders = list(path.parts[:-1])
    split = _split_in(path.name.removesuffix(".gz").rpartition(".")[0], sharded=folders[-1:] == ["data"])
    for part in reversed(path.parts[:-1]) if split is None else ():
        split = _split_in(part)
        if split:
            folders.remove(part)
            break
    named = [re.sub(r"[\W_]*\d+$", "", part) for part in folders if part != "data"]
    return "/".join(filter(None, named)) or "default", split


def _split_in(name: str, sharded: bool = False) -> str | None:
    """The split that a name says: train_prefs and train_sft are two splits, pairs.test and math-test-2 parts of one."""
    shard = _SHARD.fullmatch(name)
    if shard and (sharded or _keyword(shard[1])):
        return shard[1]
    keyword = _keyword(name)
    begins = re.split(r"[^a-z]+", name.lower())[0] in KEYWORDS
    return re.sub(r"[\W_]*\d+$", "", name) if keyword and begins else keyword


def _written_configurations(folder: Path) -> dict[str, dict[str | None, list[Path]]]:
    """What the `configs` in the head of the folder's README.md say, as the hub reads them; {} where there are none."""
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    head = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|\Z)", text, re.DOTALL)
    if not head or "configs" not in head[1]:
        return {}
    import yaml

    try:
        entries = yaml.safe_load(head[1])["configs"]
        configs = {
            str(entry.get("config_name", "default")): _written_splits(folder, entry)
            for entry in entries
            if entry.get("data_files")
        }
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"the `configs` in {readme} cannot be read: {error}", hint="fix them, or name the files you mean"
        ) from error
    chosen = [str(entry.get("config_name")) for entry in entries if entry.get("default") is True]
    there = {name: splits for name, splits in configs.items() if splits}
    return {"default": there[chosen[0]]} | there if chosen and chosen[0] in there else there


def _written_splits(folder: Path, entry: dict[str, Any]) -> dict[str | None, list[Path]]:
    given, start = entry["data_files"], entry.get("data_dir") or "."
    if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
        given = [{"split": "train", "path": given}]
    splits: dict[str | None, list[Path]] = {}
    for item in given:
        patterns = item["path"] if isinstance(item["path"], list) else [item["path"]]
        if any(".." in Path(pattern).parts for pattern in (*patterns, start)):
            raise ValueError("a path leads out of the folder")
        files = sorted({path for pattern in patterns for path in (folder / start).glob(pattern) if path.is_file()})
        files = [path for path in files if suffix(path) in READERS]
        if files:  # a partial download lacks the others
            splits.setdefault(str(item["split"]), []).extend(files)
    return splits
