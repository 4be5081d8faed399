"""Run the entries of benchmarks.py: rows found and read, scored, added up as officially, with intervals and baselines.

A number is a function of ratios of sums over items (`benchmarks`), so its interval is by the delta method: what each item
moves the ratios, times the gradient over them, summed over the items of a prompt.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.cells import RowError
from ..data.entries import SetAsideError
from ..data.files import READERS, Table, suffix
from ..data.records import Origin, Solution
from ..data.sources import read
from ..errors import DataError, UsageError
from ..rendering import Conversation
from ..results import Number
from ..terminal import table
from .benchmarks import BENCHMARKS, Benchmark, Counts, Item, Part, Rewards, Values
from .inputs import prompt_keys, score_distinct
from .intervals import Estimate, Z, clustered_variance, group_index, smooth
from .step_measures import FIXED, NO_ERROR, choose_threshold, labeled_steps
from .steps import score_steps

if TYPE_CHECKING:
    from ..process import ProcessRewardModel
    from ..scoring import RewardModel

STEP = 1e-6
"""Of the numeric gradient: ratios are about 1, and the functions of them smooth."""
LONG_STEP = 200

BASELINES: dict[bool, dict[str, Callable[[Sequence[str]], list[float]]]] = {
    False: {
        "longest": lambda answers: [float(len(one)) for one in answers],
        "shortest": lambda answers: [-float(len(one)) for one in answers],
    },
    True: {
        "no_step_wrong": lambda steps: [1.0] * len(steps),
        # Under one half from LONG_STEP characters on, where the threshold is fixed.
        "long_steps_wrong": lambda steps: [LONG_STEP / (LONG_STEP + len(one)) for one in steps],
    },
}
"""Scorers that look at lengths alone, by whether they score steps."""


@dataclass(frozen=True)
class Loaded:
    """The items of one benchmark. rows: read and published; set_aside: rows that the authors leave out."""

    items: list[Item]
    rows: int
    published_rows: int
    set_aside: dict[str, int]


@dataclass(frozen=True)
class BenchmarkResult:
    """What one benchmark found.

    complete: whether as many rows were read as were published. ties: items whose best reward is shared. unscored_steps: those
    that did not fit, which cannot be flagged. numbers: the official one first, None where it lacks items. subsets: the ratios
    behind them. baselines: the numbers of scorers that look at lengths alone; gain: the official number minus the best of
    theirs, paired. published: {model: numbers}.
    """

    title: str
    rows: int
    published_rows: int
    complete: bool
    items: int
    set_aside: dict[str, int]
    ties: int
    truncated: int
    unscored_steps: int
    max_length: int | None
    threshold: float | None
    threshold_from: str | None
    numbers: dict[str, Estimate | None]
    subsets: dict[str, Number]
    baselines: dict[str, dict[str, float]]
    gain: Estimate | None
    published: dict[str, dict[str, float]]
    published_in: str


# ---- rows --------------------------------------------------------------------------------------------------------------


def check_names(names: Sequence[str]) -> None:
    """Raises UsageError for a name that is not one of BENCHMARKS, and for benchmarks of answers and of steps together."""
    for name in names:
        if name not in BENCHMARKS:
            raise UsageError(f"{name} is not a valid --benchmark", hint=f"choose from {', '.join(BENCHMARKS)}")
    if len({BENCHMARKS[name].of_steps for name in names}) > 1:
        raise UsageError(
            "--benchmark names benchmarks of answers and of steps", hint="run each kind with its own model"
        )


def load_benchmark(name: str, folder: str | None) -> Loaded:
    """Every item of a benchmark, from the authors' files in the folder, or from the hub.

    Raises DataError where nothing is found, and with FILE:ROW for a row that is not as published.
    """
    benchmark, rows = BENCHMARKS[name], 0
    items: dict[object, Item] = {}
    set_aside: Counter[str] = Counter()
    for part, origin, row in _rows(name, benchmark, folder):
        rows += not part.optional
        try:
            item = replace(benchmark.item(row, part.name, origin.file), origin=origin)
        except SetAsideError as reason:
            set_aside[str(reason)] += 1
        except (RowError, KeyError, TypeError, AttributeError) as error:
            said = str(error) if isinstance(error, RowError) else f"{type(error).__name__} at {error}"
            raise DataError(
                f"the row is not one of {benchmark.title}: {said}",
                where=str(origin),
                hint=f"give the files as the authors publish them, in {name}/ of --benchmark_data",
            ) from error
        else:
            key = item.id if benchmark.repeats else origin
            set_aside["repeated"] += key in items
            items.setdefault(key, item)
    published = sum(part.rows for part in benchmark.parts if not part.optional)
    return Loaded(list(items.values()), rows, published, dict(+set_aside))


def _rows(name: str, benchmark: Benchmark, folder: str | None) -> Iterator[tuple[Part, Origin, dict[str, object]]]:
    """The rows of each part. A folder may lack some parts, not all that are needed."""
    for part, source in _sources(name, benchmark, folder):
        for one in _tables(source, None if folder else part.split):
            for number, row in zip(one.numbers, one.complete().rows, strict=True):
                yield part, Origin(one.name, number), row


def _tables(source: str, split: str | None) -> Iterator[Table]:
    try:
        yield from read(source, split)
    except DataError as error:
        hint = error.hint if split is None else "check the network, or give the authors' files with --benchmark_data"
        raise DataError(error.message, where=error.where, hint=hint) from error


def _sources(name: str, benchmark: Benchmark, folder: str | None) -> list[tuple[Part, str]]:
    """The files or the hub id of each part."""
    if folder:
        found = [(part, str(path)) for part in benchmark.parts for path in _files(Path(folder), name, part)]
        missing, hint = f"{folder} holds no file of {benchmark.title}", f"put the authors' files into {folder}/{name}"
    else:
        found = [(part, part.hub) for part in benchmark.parts if part.hub]
        missing, hint = f"{benchmark.title} is not on the hub as its authors publish it", "give --benchmark_data"
    needed = [(part, source) for part, source in found if folder or not part.optional]
    if all(part.optional for part, _ in needed):
        raise DataError(missing, hint=hint)
    return needed


def _files(folder: Path, name: str, part: Part) -> list[Path]:
    """The files of a part: in the subfolder of the benchmark's name, where there is one, else anywhere in the folder."""
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}", hint="--benchmark_data names a folder with the authors' files")
    folder = next((one for one in folder.iterdir() if one.is_dir() and _plain(one.name) == _plain(name)), folder)
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and suffix(path) in READERS]
    plain = {path: _plain(f"{folder.resolve().name}/{path.relative_to(folder)}") for path in paths}
    by_pattern = ([path for path in paths if re.search(one, plain[path])] for one in part.files)
    return next(filter(None, by_pattern), [])


def _plain(path: str) -> str:
    return re.sub(r"[-_ ]", "", path.lower())


# ---- numbers -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """One number. influence: [items] how much each moves it; counted: [items] whether it enters at all."""

    value: float
    influence: np.ndarray
    counted: np.ndarray

    def estimate(self, groups: np.ndarray, signed: bool) -> Estimate:
        """With Wilson's interval at the effective size, from -1 to 1 where it is signed. The Ties of RewardBench 2 can leave
        0 to 1 by a hundredth; there, the interval is that of as many prompts which agree."""
        scale = 2 if signed else 1
        value = min(max((self.value + scale - 1) / scale, 0.0), 1.0)
        influence = self.influence[self.counted] / scale
        found = smooth(value, influence if 0 < value < 1 else 0 * influence, groups[self.counted])
        low, high = (scale * end - scale + 1 for end in (found.low, found.high))
        return Estimate(self.value, min(low, self.value), max(high, self.value), found.n, found.groups)

    def minus(self, other: Measured, groups: np.ndarray) -> Estimate:
        """The difference on the same items, with a normal interval."""
        value, kept = self.value - other.value, self.counted | other.counted
        index = group_index(groups[kept], int(kept.sum()))
        half = Z * math.sqrt(clustered_variance((self.influence - other.influence)[kept], index))
        return Estimate(value, value - half, value + half, len(index), int(index.max()) + 1)


def measure(
    counts: Sequence[Counts], numbers: Callable[[Values], dict[str, float]]
) -> tuple[dict[str, Measured], Values]:
    """({number: what it is}, {ratio: its value}); a number that lacks items is left out."""
    names = sorted({name for one in counts for name in one})
    sums = np.array([[one.get(name, (0.0, 0.0)) for name in names] for one in counts])  # [items, ratios, 2]
    above, below = sums[..., 0], sums[..., 1]
    totals = np.maximum(below.sum(0), 1e-300)
    ratios = np.where(below.any(0), above.sum(0) / totals, np.nan)
    influence = np.where(below.any(0), (above - ratios * below) / totals, 0.0)

    def at(values: np.ndarray) -> dict[str, float]:
        return numbers(Values(zip(names, values.tolist(), strict=True)))

    steps = np.eye(len(names)) * STEP
    up, down = ([at(ratios + sign * step) for step in steps] for sign in (1, -1))
    without = [at(np.where(step > 0, np.nan, ratios)) for step in steps]  # tells use where the gradient is 0
    found = {}
    for name, value in at(ratios).items():
        gradient = np.array([(u[name] - d[name]) / (2 * STEP) for u, d in zip(up, down, strict=True)])
        used = (np.abs(gradient) > 1e-9) | np.isnan([one[name] for one in without])
        if math.isfinite(value):
            found[name] = Measured(value, influence[:, used] @ gradient[used], (below[:, used] > 0).any(1))
    return found, Values(zip(names, ratios.tolist(), strict=True))


def summarize(
    name: str,
    loaded: Loaded,
    rewards: Sequence[Rewards],
    *,
    threshold: tuple[float, str] | None = None,
    truncated: int = 0,
    max_length: int | None = None,
) -> tuple[BenchmarkResult, list[Counts]]:
    """(the result, what each item counts), from the rewards of every answer or step: [items][answers].

    threshold: under which a step is wrong, and where it is from; None: as the authors choose it.
    """
    benchmark, items = BENCHMARKS[name], loaded.items
    at, chosen_on = threshold or _threshold(benchmark, items, rewards)
    counts = benchmark.count(items, rewards, at)
    measured, subsets = measure(counts, benchmark.numbers)
    groups = group_index([item.group or key for item, key in zip(items, prompt_keys(items), strict=True)], len(items))
    blind: dict[str, dict[str, Measured]] = {}
    for baseline, scores in BASELINES[benchmark.of_steps].items():
        scored = [scores(item.answers) for item in items]
        blind_counts = benchmark.count(items, scored, _threshold(benchmark, items, scored)[0])
        blind[baseline] = measure(blind_counts, benchmark.numbers)[0]
    named = list(benchmark.numbers(Values()))
    official = measured.get(named[0])
    best = max((one[named[0]] for one in blind.values() if official), key=lambda one: one.value, default=None)
    result = BenchmarkResult(
        title=benchmark.title,
        rows=loaded.rows,
        published_rows=loaded.published_rows,
        complete=loaded.rows == loaded.published_rows and official is not None,
        items=len(items),
        set_aside=loaded.set_aside,
        ties=0 if benchmark.of_steps else sum(row.count(max(row)) > 1 for row in rewards),
        truncated=truncated,
        unscored_steps=sum(score is None for row in rewards for score in row),
        max_length=max_length,
        threshold=at if benchmark.of_steps else None,
        threshold_from=chosen_on if benchmark.of_steps else None,
        numbers={named[0]: None}
        | {number: one.estimate(groups, number in benchmark.signed) for number, one in measured.items()},
        subsets=subsets,
        baselines={baseline: {number: one.value for number, one in of.items()} for baseline, of in blind.items()},
        gain=official.minus(best, groups) if official and best else None,
        published={
            model: {number: value / 100 for number, value in zip(named, row, strict=False) if value is not None}
            for model, row in benchmark.published.items()
        },
        published_in=benchmark.published_in,
    )
    return result, counts


def _threshold(benchmark: Benchmark, items: Sequence[Item], rewards: Sequence[Rewards]) -> tuple[float, str]:
    section = benchmark.threshold_from
    chosen = [(item, row) for item, row in zip(items, rewards, strict=True) if item.section == section]
    if not chosen:
        return FIXED, "fixed"
    solutions = [Solution(item.prompt, item.answers, _labels(item)) for item, _ in chosen]
    value, _ = choose_threshold(labeled_steps(solutions, [row for _, row in chosen]))
    return value, f"the best on {section}, as the authors do; so {section} itself is not held out"


def _labels(item: Item) -> list[float]:
    """Labels up to the first wrong step, whose place is the label of the item."""
    return [1.0] * len(item.answers) if item.label == NO_ERROR else [1.0] * item.label + [0.0]


# ---- a run -------------------------------------------------------------------------------------------------------------


def run_benchmark(
    model: RewardModel | ProcessRewardModel, name: str, loaded: Loaded, threshold: tuple[float, str] | None = None
) -> tuple[BenchmarkResult, list[dict[str, object]]]:
    """(the result, a JSON row for each item). threshold: see `summarize`.

    Raises DataError for an answer that the over-length policy leaves out: an official number counts every item.
    """
    before = dict(model.renderer.counts)
    if BENCHMARKS[name].of_steps:
        rewards = score_steps(model, [Solution(item.prompt, item.answers, origin=item.origin) for item in loaded.items])
    else:
        rewards = _score_answers(model, loaded.items)
    truncated, length = model.renderer.counts["truncated"] - before.get("truncated", 0), model.renderer.max_length
    result, counts = summarize(name, loaded, rewards, threshold=threshold, truncated=truncated, max_length=length)
    rows = [
        {"benchmark": name, "id": item.id, "origin": str(item.origin), "section": item.section, "rewards": row}
        | {
            "lengths": [len(answer) for answer in item.answers],
            "counts": {ratio: list(pair) for ratio, pair in one.items()},
        }
        for item, row, one in zip(loaded.items, rewards, counts, strict=True)
    ]
    return result, rows


def _score_answers(model: RewardModel | ProcessRewardModel, items: Sequence[Item]) -> list[list[float]]:
    answers = [(item, [{"role": "assistant", "content": answer}]) for item in items for answer in item.answers]
    rewards = score_distinct(model, [Conversation(item.prompt, said, None, item.origin) for item, said in answers])
    if None in rewards:
        raise DataError(
            f"{rewards.count(None)} of {len(rewards)} answers have no reward, and an official number counts every one",
            hint="raise --max_length, or choose --overlong truncate_left",
        )
    following = iter(rewards)
    return [[next(following) for _ in item.answers] for item in items]


def flat_scores(results: Mapping[str, BenchmarkResult]) -> dict[str, float | None]:
    """{"rewardbench": 0.92, "rewardbench/chat": 0.96, ...}, for leaderboards; None for a number that lacks items."""
    return {
        name if number == "score" else f"{name}/{number}": one and one.value
        for name, result in results.items()
        for number, one in result.numbers.items()
    }


def diagnose_benchmark(result: BenchmarkResult) -> list[str]:
    """What keeps the numbers from being compared, or from meaning anything."""
    official, found = next(iter(result.numbers)), []
    if not result.complete:
        found.append(
            f"{result.title}: {result.rows} of {result.published_rows} rows were read, so its numbers are not comparable with "
            "published ones. Next: give all files of the benchmark."
        )
    if result.gain and result.gain.low <= 0:
        best = max(result.baselines, key=lambda name: result.baselines[name][official])
        found.append(
            f"{result.title}: not shown to be above the baseline {best.replace('_', ' ')}: gain {result.gain:+.3f}. "
            "Next: do not rely on the model here."
        )
    if result.truncated or result.unscored_steps:
        found.append(
            f"{result.title}: at {result.max_length} tokens {result.truncated} inputs were truncated and "
            f"{result.unscored_steps} steps not read. Next: raise --max_length if the model reads more."
        )
    return found


def show_benchmark(result: BenchmarkResult) -> None:
    """The table on stderr: each number, its interval, the baselines, and published models."""
    letters = dict(zip("ABCDE", result.published, strict=False))
    numbers = [
        [number.replace("_", " "), *((one.value, one.low, one.high) if one else (None,) * 3)]
        + [of.get(number) for of in (*result.baselines.values(), *result.published.values())]
        for number, one in result.numbers.items()
    ]
    rows = [[name, *(None if value is None else f"{value:.3f}" for value in values)] for name, *values in numbers]
    title = f"{result.title}: {result.items} items of {result.rows} rows"
    if result.threshold is not None:
        title += f"; a step is wrong under {result.threshold:.4f} ({result.threshold_from})"
    title += "".join(f"\n{letter}: {model}" for letter, model in letters.items())
    title += f" ({result.published_in})" if letters else ""
    columns = ["", "value", "low", "high", *(name.replace("_", " ") for name in result.baselines), *letters]
    table(title, columns, rows)
