"""Files, folders, datasets saved to disk and hub ids -> tables of numbered rows."""

import difflib
import re
import stat
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from .. import hub
from ..errors import DataError
from ..results import Row
from .cells import short
from .files import AGAIN, READERS, SPLITS, Table, arrow_tables, first_line, suffix

BOOKKEEPING = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json")
Splits = dict[str | None, list[Path]]

_SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}")
_COUNTED = re.compile(r"[\W_]*\d+$")


def data_files(folder: Path, split: str | None, config: str | None) -> list[Path]:
  """Raises DataError, with the choices, where the folder leaves one."""
  by_config = _configurations(folder)
  chosen = config or ("default" if "default" in by_config or len(by_config) > 1 else next(iter(by_config)))
  if chosen not in by_config:
    what = f"no configuration {config}" if config else "several configurations"
    raise _choose(folder, what, by_config, "--dataset_config")
  by_split = by_config[chosen]
  kinds = sorted({suffix(path) for files in by_split.values() for path in files})
  if len(kinds) > 1:
    what = f"{folder} holds files of several kinds ({', '.join(kinds)})"
    raise DataError(what, hint=f"name the files you mean, as in {next(iter(by_split.values()))[0]}")
  if len(by_split) == 1 and (split is None or None in by_split):
    return next(iter(by_split.values()))
  meant = [name for name in by_split if name and split and _keyword(name) == SPLITS.get(split, split)]
  meant = [split] if split in by_split else meant
  if split is None or len(meant) != 1:
    what = f"no files of the split {split}" if split else "files of several splits"
    raise _choose(folder, what, filter(None, by_split), "--dataset_split")
  return by_split[meant[0]]


def _choose(folder: Path, what: str, there: Iterable[str], flag: str) -> DataError:
  hint = f"choose one with {flag}, or name the files you mean"
  return DataError(f"{folder} holds {what} ({', '.join(there)})", hint=hint)


def _keyword(name: str) -> str | None:
  return next((SPLITS[word] for word in _words(name) if word in SPLITS), None)


def _words(name: str) -> list[str]:
  return re.split(r"[^a-z]+", name.lower())


def _configurations(folder: Path) -> dict[str, Splits]:
  found = (path for path in sorted(folder.rglob("*")) if path.name not in BOOKKEEPING)
  files = {path: path.relative_to(folder) for path in found if path.is_file() and suffix(path) in READERS}
  files = {path: inside for path, inside in files.items() if not any(part.startswith(".") for part in inside.parts)}
  if not files:
    hint = f"data files end in {', '.join(READERS)}, or are datasets saved to disk"
    raise DataError(f"{folder} holds no data files", hint=hint)
  configs = _written_configurations(folder)
  if not configs:
    for path, inside in files.items():
      config, split = _place(inside)
      configs.setdefault(config, {}).setdefault(split, []).append(path)
  return configs


def _place(path: Path) -> tuple[str, str | None]:
  """("en", "train") for en/train-00000-of-00001.parquet; part-000 is not a configuration."""
  folders = list(path.parts[:-1])
  split = _split_in(path.name.removesuffix(".gz").rpartition(".")[0], sharded=folders[-1:] == ["data"])
  if split is None:
    part, split = next(((part, found) for part in reversed(folders) if (found := _split_in(part))), (None, None))
    folders = [folder for folder in folders if folder != part]
  named = [_COUNTED.sub("", part) for part in folders if part != "data"]
  return "/".join(filter(None, named)) or "default", split


def _split_in(name: str, sharded: bool = False) -> str | None:
  """train_prefs and train_sft are two splits, pairs.test and math-test-2 parts of one."""
  shard, keyword = _SHARD.fullmatch(name), _keyword(name)
  if shard and (sharded or _keyword(shard[1])):
    return shard[1]
  return _COUNTED.sub("", name) if _words(name)[0] in SPLITS else keyword


def _written_configurations(folder: Path) -> dict[str, Splits]:
  readme = folder / "README.md"
  text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
  head = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|\Z)", text, re.DOTALL)
  if not head or "configs" not in head[1]:
    return {}
  import yaml

  try:
    entries = [entry for entry in yaml.safe_load(head[1])["configs"] if entry.get("data_files")]
    found = {str(entry.get("config_name", "default")): _written_splits(folder, entry) for entry in entries}
  except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, NotImplementedError) as error:
    hint = "fix them, or name the files you mean"
    raise DataError(f"the `configs` in {readme} cannot be read: {error}", hint=hint) from error
  configs = {name: splits for name, splits in found.items() if splits}
  default = next((str(entry.get("config_name")) for entry in entries if entry.get("default") is True), None)
  return {"default": configs[default]} | configs if default in configs else configs


def _written_splits(folder: Path, entry: Row) -> Splits:
  given, start = entry["data_files"], entry.get("data_dir") or "."
  if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
    given = [{"split": "train", "path": given}]
  splits: Splits = {}
  for item in given:
    patterns = item["path"] if isinstance(item["path"], list) else [item["path"]]
    if any(".." in Path(pattern).parts for pattern in (*patterns, start)):
      raise ValueError("a path leads out of the folder")
    files = sorted({path for pattern in patterns for path in (folder / start).glob(pattern) if path.is_file()})
    files = [path for path in files if suffix(path) in READERS]
    if files:  # a partial download lacks the others
      splits.setdefault(str(item["split"]), []).extend(files)
  return splits


def read(source: str, split: str | None = None, config: str | None = None, size: int | None = None) -> Iterator[Table]:
  """One table a file, or slices of at most `size` rows."""
  path = Path(source).expanduser()
  try:
    mode = path.stat().st_mode
  except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a zero byte in the name
    _refuse_missing(source, path)
    return _hub(source, split, config, size)
  except OSError as error:
    what = f"cannot read {short(str(path), 200)}: {error.strerror}"
    raise DataError(what, hint="check the name and the permissions") from error
  if stat.S_ISREG(mode):
    return _file(path, size)
  if not stat.S_ISDIR(mode):
    raise DataError(f"{source} is a pipe or a device, not a file", hint="write the rows into a file")
  if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
    return _saved(path, split, size)
  return chain.from_iterable(_file(file, size) for file in data_files(path, split, config))


def _refuse_missing(source: str, path: Path) -> None:
  """Raises DataError for what cannot be a hub id."""
  like_path = suffix(path) in READERS or source.startswith((".", "~", "/"))
  if not like_path and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source):
    return
  close = difflib.get_close_matches(path.name, (entry.name for entry in path.parent.glob("*")), n=1)
  hint = f"did you mean {path.with_name(close[0])}?" if close else f"{path.parent} holds nothing of a similar name"
  if not path.parent.is_dir():
    hint = f"there is no folder {path.parent}"
  raise DataError(f"no such file or folder: {source}", hint=hint)


def _file(path: Path, size: int | None) -> Iterator[Table]:
  kind = suffix(path)
  if kind not in READERS:
    hint = f"files end in {', '.join(READERS)}; all but Parquet may end in .gz"
    raise DataError(f"unknown kind of file: {path.name}", where=path, hint=hint)
  there = False
  for part in READERS[kind](path, size):
    there = there or len(part) > 0
    if there:
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


def _from_datasets(loaded, name: str, split: str | None, size: int | None) -> Iterator[Table]:
  if isinstance(loaded, dict):
    wanted = split or ("train" if "train" in loaded else next(iter(loaded)) if len(loaded) == 1 else None)
    if wanted not in loaded:
      asked = f"has no split {split}" if split else "has several splits"
      raise DataError(f"{name} {asked} ({', '.join(loaded)})", hint="choose one with --dataset_split")
    loaded = loaded[wanted]
  if not len(loaded):
    raise DataError("the dataset holds no rows", where=name)
  yield from arrow_tables(name, loaded.with_format("arrow").iter(min(size or 1024, 1024)), size)
