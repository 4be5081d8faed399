"""Run the entries of benchmarks.py: rows found and read, scored, added up as officially, with intervals and baselines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..aggregation import NO_ERROR
from ..data.cells import RowError
from ..data.entries import Row, SetAsideError
from ..data.files import READERS, Table, suffix
from ..data.records import Origin, Ranking, Solution
from ..data.sources import read
from ..errors import DataError, UsageError, did_you_mean
from .benchmark_entries import Benchmark, Item, ItemRewards, Part
from .benchmarks import BENCHMARKS
from .inputs import TOO_LONG, prompt_keys, score_answers, spelled
from .intervals import Counts, Measured, group_index, measure
from .results import BenchmarkResult
from .steps import FIXED, TOO_FEW, choose_threshold, labeled_steps, score_steps

if TYPE_CHECKING:
  from ..process import ProcessRewardModel
  from ..scoring import RewardModel

AUTHORS_FILES = "give the authors' files"
LONG_STEP = 200
BASELINES: dict[bool, dict[str, Callable[[str], float]]] = {
  False: {"longest": len, "shortest": lambda answer: -len(answer)},
  # Under one half, where the threshold is fixed, from LONG_STEP characters on.
  True: {"no_step_wrong": lambda step: 1.0, "long_steps_wrong": lambda step: LONG_STEP / (LONG_STEP + len(step))},
}
"""Scorers that look at lengths alone, by whether they score steps."""


class LoadedBenchmark(NamedTuple):
  """set_aside: rows that the authors leave out, by reason."""

  items: list[Item]
  rows: int
  published_rows: int
  set_aside: dict[str, int]


def check_names(names: Sequence[str]) -> None:
  for name in names:
    if name not in BENCHMARKS:
      raise UsageError(f"{name} is not a valid --benchmark", hint=did_you_mean(name, BENCHMARKS))
  if len({BENCHMARKS[name].of_steps for name in names}) > 1:
    raise UsageError("--benchmark names benchmarks of answers and of steps", hint="run each kind alone")


def load_benchmark(name: str, folder: str | None) -> LoadedBenchmark:
  """From the authors' files in the folder, or from the hub. Raises DataError where there are none, or a row is not theirs."""
  benchmark, rows = BENCHMARKS[name], 0
  items: dict[object, Item] = {}
  set_aside: Counter[str] = Counter()
  for part, found in _tables(name, benchmark, folder):
    for number, row in zip(found.numbers, found.complete().rows, strict=True):
      rows += not part.optional
      origin = Origin(found.name, number)
      try:
        item = _item(benchmark, row, part.name or origin.file, origin)
      except SetAsideError as reason:
        set_aside[str(reason)] += 1
        continue
      key = item.id if benchmark.repeats else origin
      set_aside["repeated"] += key in items
      items.setdefault(key, item)
  if not items:
    why = ", ".join(f"{n} {reason}" for reason, n in set_aside.items())
    raise DataError(f"no row of {benchmark.title} is left: {why}", hint=AUTHORS_FILES)
  published = sum(part.rows for part in benchmark.parts if not part.optional)
  return LoadedBenchmark([*items.values()], rows, published, dict(+set_aside))


def _item(benchmark: Benchmark, row: Row, place: str, origin: Origin) -> Item:
  try:
    item = replace(benchmark.item(row, place), origin=origin)
    if len(item.answers) < 2 and not benchmark.of_steps:
      raise RowError("there is one answer alone")
  except (RowError, LookupError, TypeError, ValueError, AttributeError) as error:
    said = f"it lacks {error}" if isinstance(error, KeyError) else error
    raise DataError(f"the row is not one of {benchmark.title}: {said}", where=origin, hint=AUTHORS_FILES) from error
  return item


def _tables(name: str, benchmark: Benchmark, folder: str | None) -> Iterator[tuple[Part, Table]]:
  if folder:
    found = [(part, str(path)) for part in benchmark.parts for path in _files(Path(folder), name, part)]
    patterns = ", ".join(pattern for part in benchmark.parts for pattern in part.files)
    missing = f"{folder} holds no file of {benchmark.title}: no path in it fits {patterns} (without - and _)"
    hint = f"put the authors' files into {folder}/{name}"
  else:
    found = [(part, part.hub) for part in benchmark.parts if part.hub and not part.optional]
    missing, hint = f"{benchmark.title} is not on the hub", "give the authors' files with --benchmark_data"
  if all(part.optional for part, _ in found):  # a folder may lack others
    raise DataError(missing, hint=hint)
  for part, source in found:
    try:
      for one in read(source, None if folder else part.split):
        yield part, one
    except DataError as error:
      error.hint = error.hint if folder else "check the network, or give --benchmark_data"
      raise


def _files(folder: Path, name: str, part: Part) -> list[Path]:
  """In the subfolder of the benchmark's name, or else anywhere."""
  if not folder.is_dir():
    raise DataError(f"no such folder: {folder}", hint="give another --benchmark_data")
  folder = next((one for one in folder.iterdir() if one.is_dir() and _plain(one.name) == _plain(name)), folder)
  files = [path for path in sorted(folder.rglob("*")) if path.is_file() and suffix(path) in READERS]
  # By the folder's own name, or by those above it.
  whole = folder.resolve()
  plain = [[_plain(f"/{of}/{path.relative_to(folder)}") for path in files] for of in (whole.name, whole)]
  by_pattern = ([*compress(files, (re.search(pattern, one) for one in of))] for of in plain for pattern in part.files)
  return next(filter(None, by_pattern), [])


def _plain(path: str) -> str:
  """`--` is a slash in the hub's cache."""
  return re.sub(r"[-_ ]", "", path.lower().replace("--", "/"))


def summarize(
  name: str,
  loaded: LoadedBenchmark,
  rewards: Sequence[ItemRewards],
  *,
  threshold: tuple[float, str] | None = None,
  truncated: int = 0,
  max_length: int | None = None,
) -> tuple[BenchmarkResult, list[Counts]]:
  """(the result, what each item counts). rewards: [items][answers or steps]. threshold: (value, where it is from), else as the
  authors choose it."""
  benchmark, items = BENCHMARKS[name], loaded.items
  at, chosen_on = threshold or _threshold(benchmark, items, rewards)
  counts = benchmark.count(items, rewards, at)
  measured, subsets = measure(counts, benchmark.numbers)
  groups = group_index([item.group or key for item, key in zip(items, prompt_keys(items), strict=True)], len(items))
  blind: dict[str, dict[str, Measured]] = {}
  for baseline, score in BASELINES[benchmark.of_steps].items():
    scored = [[float(score(one)) for one in item.answers] for item in items]
    blind_counts = benchmark.count(items, scored, _threshold(benchmark, items, scored)[0])
    blind[baseline], _ = measure(blind_counts, benchmark.numbers)
  official, gain = next(iter(benchmark.table)), None
  if official in measured:
    best = max((one[official] for one in blind.values()), key=lambda one: one.value)
    gain = measured[official].minus(best, groups)
  result = BenchmarkResult(
    title=benchmark.title,
    complete=loaded.rows == loaded.published_rows and official in measured,
    **loaded._asdict() | {"items": len(items)},
    ties=0 if benchmark.of_steps else sum(row.count(max(row)) > 1 for row in rewards),
    truncated=truncated,
    unscored_steps=sum(score is None for row in rewards for score in row),
    max_length=max_length,
    threshold=at if benchmark.of_steps else None,
    threshold_from=chosen_on if benchmark.of_steps else None,
    numbers={official: None}
    | {number: one.estimate(groups, number in benchmark.signed) for number, one in measured.items()},
    subsets=subsets,
    baselines={baseline: {number: one.value for number, one in of.items()} for baseline, of in blind.items()},
    gain=gain,
    published={
      model: {number: one / 100 for number, one in zip(benchmark.table, row, strict=False) if one is not None}
      for model, row in benchmark.published.items()
    },
    published_in=benchmark.published_in,
  )
  return result, counts


def _threshold(benchmark: Benchmark, items: Sequence[Item], rewards: Sequence[ItemRewards]) -> tuple[float, str]:
  section, solutions, kept = benchmark.threshold_from, [], []
  for item, row in zip(items, rewards, strict=True):
    if item.section == section:  # labeled up to the first wrong step
      labels = [1.0] * len(item.answers) if item.label == NO_ERROR else [1.0] * item.label + [0.0]
      solutions.append(Solution(item.prompt, item.answers, labels))
      kept.append(row)
  if not solutions:
    return FIXED, "fixed"
  try:
    value, _ = choose_threshold(labeled_steps(solutions, kept))
  except DataError:
    return FIXED, f"fixed, since {TOO_FEW}"
  return value, f"the best on {section}, as the authors do; so {section} is not held out"


def run_benchmark(
  model: RewardModel | ProcessRewardModel,
  name: str,
  loaded: LoadedBenchmark,
  threshold: tuple[float, str] | None = None,
) -> tuple[BenchmarkResult, list[dict[str, object]]]:
  """(the result, a JSON row for each item). Raises DataError for an answer without a reward."""
  before, items = model.renderer.counts["truncated"], loaded.items
  if BENCHMARKS[name].of_steps:
    rewards = score_steps(model, [Solution(item.prompt, item.answers, origin=item.origin) for item in items])
  else:
    said = [[[{"role": "assistant", "content": answer}] for answer in item.answers] for item in items]
    asked = [Ranking(item.prompt, own, origin=item.origin) for item, own in zip(items, said, strict=True)]
    rewards = score_answers(model, asked)
    if lost := sum(row.count(None) for row in rewards):
      message = f"{lost} of {sum(map(len, rewards))} answers have no reward; an official number counts all"
      raise DataError(message, hint=TOO_LONG)
  truncated, length = model.renderer.counts["truncated"] - before, model.renderer.max_length
  result, counts = summarize(name, loaded, rewards, threshold=threshold, truncated=truncated, max_length=length)
  rows = [
    {"benchmark": name, "id": item.id, "origin": str(item.origin), "section": item.section, "rewards": row}
    | {"lengths": [len(answer) for answer in item.answers], "counts": one}
    for item, row, one in zip(items, rewards, counts, strict=True)
  ]
  return result, rows


def flat_scores(results: Mapping[str, BenchmarkResult]) -> dict[str, float | None]:
  """{"rewardbench": 0.92, "rewardbench/chat": 0.96, ...}; None for a number that lacks items."""
  return {
    name if number == "score" else f"{name}/{number}": one and one.value
    for name, result in results.items()
    for number, one in result.numbers.items()
  }


def diagnose_benchmark(result: BenchmarkResult) -> list[str]:
  official, found = next(iter(result.numbers)), []
  if not result.complete:
    read_rows = f"{result.rows} of {result.published_rows} rows were read"
    found.append(f"{read_rows}: its numbers do not compare with published ones. Next: give all files, each once.")
  if result.gain and result.gain.low <= 0:
    best = max(result.baselines, key=lambda name: result.baselines[name][official])
    gain = f"gain {result.gain:+.3f}. Next: do not rely on it here."
    found.append(f"not shown to beat the baseline {spelled(best)}: {gain}")
  if result.truncated or result.unscored_steps:
    lost = f"{result.truncated} inputs were truncated"
    lost += f" and {result.unscored_steps} steps not read" if result.unscored_steps else ""
    found.append(f"{lost} at {result.max_length} tokens. Next: raise --max_length if the model reads more.")
  return [f"{result.title}: {sentence}" for sentence in found]
