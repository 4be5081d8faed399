"""Run the entries of benchmarks.py: rows found and read, scored, added up as officially, with intervals and baselines.

A number is a function of ratios of sums over items (`benchmarks`), so its interval is by the delta method: the gradient over
the ratios, times what each item moves them, summed over the items of a prompt.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..console import DataError, table
from ..data.cells import RowError
from ..data.entries import SetAsideError
from ..data.files import READERS, Table, suffix
from ..data.records import Origin, Solution
from ..data.sources import read
from ..rendering import Conversation
from .benchmarks import BENCHMARKS, FIXED, NO_ERROR, Benchmark, Counts, Item, Part, Place, Rewards, Values
from .inputs import prompt_keys, score_distinct
from .intervals import Estimate, Z, clustered_variance, group_index, smooth
from .step_measures import choose_threshold, labelled_steps
from .steps import score_steps

if TYPE_CHECKING:
    from ..process import ProcessRewardModel
    from ..scoring import RewardModel

STEP = 1e-6
"""Of the numeric gradient: the ratios are of the order of 1, and their functions smooth."""
SHOWN_MODELS = 3

BASELINES: dict[bool, dict[str, Callable[[Sequence[str]], list[float]]]] = {
    False: {
        "longest": lambda answers: [float(len(one)) for one in answers],
        "shortest": lambda answers: [-float(len(one)) for one in answers],
    },
    True: {
        "no_step_wrong": lambda steps: [1.0] * len(steps),
        "every_step_wrong": lambda steps: [0.0] * len(steps),
        "longest_step_wrong": lambda steps: [float(len(one) < max(map(len, steps))) for one in steps],
    },
}
"""What a scorer that looks at lengths alone would give, by whether it scores steps."""


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

    numbers: the official one first. subsets: the ratios behind them. baselines: the same numbers of scorers that look at
    lengths alone. gain: the official number minus the best baseline's, paired. complete: whether as many rows were read as
    were published. ties: items whose best reward is shared. unscored_steps: steps that did not fit, which cannot be flagged.
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
    threshold: dict[str, Any] | None
    numbers: dict[str, Estimate | None]
    subsets: dict[str, float]
    baselines: dict[str, dict[str, float]]
    gain: Estimate | None
    published: dict[str, dict[str, float]]
    published_in: str


# ---- rows --------------------------------------------------------------------------------------------------------------


def load_benchmark(name: str, folder: str | None) -> Loaded:
    """Every item of a benchmark, from the authors' files in the folder, or from the hub.

    Raises DataError where nothing is found, and with file and row for a row that is not as published.
    """
    benchmark = BENCHMARKS[name]
    items: list[Item] = []
    set_aside: Counter[str] = Counter()
    rows = 0
    for part, one in _tables(name, benchmark, folder):
        for number, row in zip(one.numbers, one.complete().rows, strict=True):
            origin = Origin(one.name, number)
            rows += not part.optional
            try:
                items += [_with_origin(item, origin) for item in benchmark.items(row, Place(part.name, one.name))]
            except SetAsideError as reason:
                set_aside[str(reason)] += 1
            except (RowError, KeyError) as error:
                said = f"the row has no column {error}" if isinstance(error, KeyError) else str(error)
                raise DataError(said, where=str(origin), hint=f"is this the file of {benchmark.title}?") from error
    return Loaded(items, rows, sum(part.rows for part in benchmark.parts if not part.optional), dict(set_aside))


def _with_origin(item: Item, origin: Origin) -> Item:
    from dataclasses import replace

    return replace(item, origin=origin)


def _tables(name: str, benchmark: Benchmark, folder: str | None) -> Iterator[tuple[Part, Table]]:
    """The tables of each part. A folder may lack some parts, not all that are needed."""
    if folder is None:
        for part in benchmark.parts:
            if not part.optional:
                yield from ((part, one) for one in _of_hub(benchmark, part))
        return
    found = [(part, _files(Path(folder), name, part)) for part in benchmark.parts]
    if not any(files for part, files in found if not part.optional):
        raise DataError(
            f"{folder} holds no file of {benchmark.title}",
            hint=f"put the authors' files into {Path(folder) / name}, by the names under which they are published",
        )
    for part, files in found:
        for path in files:
            yield from ((part, one) for one in read(str(path)))


def _of_hub(benchmark: Benchmark, part: Part) -> Iterator[Table]:
    hint = "fetch the authors' files and name their folder with --benchmark_data"
    if part.hub is None:
        raise DataError(f"{benchmark.title} is not on the hub as its authors publish it", hint=hint)
    try:
        yield from read(part.hub, part.split)
    except DataError as error:
        raise DataError(error.message, where=error.where, hint=hint) from error


def _files(folder: Path, name: str, part: Part) -> list[Path]:
    """The files of a part: in the folder's subfolder of the benchmark's name, if there is one, else anywhere in it."""
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}", hint="--benchmark_data names a folder of the authors' files")
    folder = next((one for one in folder.iterdir() if one.is_dir() and _plain(one.name) == _plain(name)), folder)
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and suffix(path) in READERS]
    start = folder.resolve().name
    by_pattern = (
        [p for p in paths if re.search(one, _plain(f"{start}/{p.relative_to(folder)}"))] for one in part.files
    )
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


def measure(
    counts: Sequence[Counts], numbers: Callable[[Values], dict[str, float]]
) -> tuple[dict[str, Measured], Values]:
    """({number: what it is}, {ratio: its value}); numbers that lack a ratio are left out."""
    names = sorted({name for one in counts for name in one})
    above, below = np.zeros((len(counts), len(names))), np.zeros((len(counts), len(names)))
    place = {name: column for column, name in enumerate(names)}
    for row, one in enumerate(counts):
        for name, (numerator, denominator) in one.items():
            above[row, place[name]], below[row, place[name]] = numerator, denominator
    totals = below.sum(0)
    ratios = np.divide(above.sum(0), totals, out=np.full(len(names), np.nan), where=totals > 0)
    influence = np.divide(above - ratios * below, totals, out=np.zeros_like(above), where=totals > 0)

    def at(values: np.ndarray) -> dict[str, float]:
        return numbers(
            Values((name, float(value)) for name, value in zip(names, values, strict=True) if value == value)
        )

    steps = np.eye(len(names)) * STEP
    up, down = [at(ratios + step) for step in steps], [at(ratios - step) for step in steps]
    found = {}
    for name, value in at(ratios).items():
        gradient = np.array([(u[name] - d[name]) / (2 * STEP) for u, d in zip(up, down, strict=True)])
        if math.isfinite(value):
            found[name] = Measured(value, influence @ gradient, (below[:, np.abs(gradient) > 1e-9] > 0).any(1))
    return found, Values(zip(names, map(float, ratios), strict=True))


def estimate(one: Measured, groups: np.ndarray, signed: bool) -> Estimate:
    """A number with its interval: Wilson's at the effective size, between -1 and 1 where it is signed. RewardBench 2's Ties
    may exceed 1 by a hundredth, and are taken for 1 there."""
    kept = one.counted
    value = (one.value + 1) / 2 if signed else min(max(one.value, 0.0), 1.0)
    found = smooth(value, one.influence[kept] / (2 if signed else 1), groups[kept])
    low, high = (2 * found.low - 1, 2 * found.high - 1) if signed else (found.low, found.high)
    return Estimate(one.value, low, max(high, one.value), found.n, found.groups)


def difference(first: Measured, second: Measured, groups: np.ndarray) -> Estimate:
    """first - second on the same items, with a normal interval."""
    value, kept = first.value - second.value, first.counted | second.counted
    half = Z * math.sqrt(
        clustered_variance((first.influence - second.influence)[kept], group_index(groups[kept], kept.sum()))
    )
    return Estimate(value, value - half, value + half, int(kept.sum()), len(set(groups[kept])))


def summarize(
    name: str,
    loaded: Loaded,
    rewards: Sequence[Rewards],
    threshold: float | None = None,
    chosen_on: str = "given",
    **told: Any,
) -> tuple[BenchmarkResult, list[Counts]]:
    """(the result, what each item counts), from the rewards of every answer or step: [items][answers].

    threshold: under which a step is wrong; None: the authors' rule. told: the other fields of the result.
    """
    benchmark, items = BENCHMARKS[name], loaded.items
    if threshold is None:
        threshold, chosen_on = _threshold(benchmark, items, rewards)
    counts = benchmark.count(items, rewards, threshold)
    measured, subsets = measure(counts, benchmark.numbers)
    keys = prompt_keys(items)
    groups = group_index([item.group or key for item, key in zip(items, keys, strict=True)], len(items))
    blind = {
        baseline: measure(benchmark.count(items, [scores(item.answers) for item in items], FIXED), benchmark.numbers)[0]
        for baseline, scores in BASELINES[benchmark.of_steps].items()
    }
    official = next(iter(benchmark.numbers(Values())))
    best = max((one[official] for one in blind.values() if official in one), key=lambda one: one.value, default=None)
    numbers = {number: estimate(one, groups, number in benchmark.signed) for number, one in measured.items()}
    published = {
        model: dict(zip(benchmark.numbers(Values()), row, strict=False)) for model, row in benchmark.published.items()
    }
    result = BenchmarkResult(
        title=benchmark.title,
        rows=loaded.rows,
        published_rows=loaded.published_rows,
        complete=loaded.rows == loaded.published_rows and official in measured,
        items=len(items),
        set_aside=loaded.set_aside,
        ties=0 if benchmark.of_steps else sum(row.count(max(row)) > 1 for row in rewards),
        unscored_steps=sum(score is None for row in rewards for score in row),
        threshold={"value": threshold, "chosen_on": chosen_on} if benchmark.of_steps else None,
        numbers={official: None} | numbers,
        subsets=subsets,
        baselines={baseline: {number: one.value for number, one in of.items()} for baseline, of in blind.items()},
        gain=difference(measured[official], best, groups) if best and official in measured else None,
        published={
            model: {number: value / 100 for number, value in row.items() if value is not None}
            for model, row in published.items()
        },
        published_in=benchmark.published_in,
        **told,
    )
    return result, counts


def _threshold(benchmark: Benchmark, items: Sequence[Item], rewards: Sequence[Rewards]) -> tuple[float, str]:
    section = benchmark.threshold_from
    chosen = [(item, row) for item, row in zip(items, rewards, strict=True) if item.section == section]
    if not chosen:
        return FIXED, "fixed, as the authors do"
    solutions = [Solution(item.prompt, item.answers, _labels(item)) for item, _ in chosen]
    value, _ = choose_threshold(labelled_steps(solutions, [row for _, row in chosen]))
    return value, f"{section}, as the authors do: its own F1 is the best there, not held out"


def _labels(item: Item) -> list[float | None]:
    """The labels up to the first wrong step, whose place is the label of the item."""
    if item.label == NO_ERROR:
        return [1.0] * len(item.answers)
    return [1.0] * item.label + [0.0] + [None] * (len(item.answers) - item.label - 1)


# ---- a run -------------------------------------------------------------------------------------------------------------


def run_benchmark(
    model: RewardModel | ProcessRewardModel,
    name: str,
    loaded: Loaded,
    *,
    threshold: float | None = None,
    chosen_on: str = "given",
) -> tuple[BenchmarkResult, list[dict[str, Any]]]:
    """(the result, a JSON row for each item). Raises DataError for an answer that the over-length policy left out: official
    numbers count every item."""
    before = dict(model.renderer.counts)
    if BENCHMARKS[name].of_steps:
        rewards = score_steps(model, [Solution(item.prompt, item.answers, origin=item.origin) for item in loaded.items])
    else:
        rewards = _score_answers(model, loaded.items)
    model.warn_of_losses(before)
    result, counts = summarize(
        name,
        loaded,
        rewards,
        threshold,
        chosen_on,
        truncated=model.renderer.counts["truncated"] - before.get("truncated", 0),
        max_length=model.renderer.max_length,
    )
    rows = [
        {
            **{"benchmark": name, "id": item.id, "origin": str(item.origin), "section": item.section},
            **{"rewards": row, "lengths": [len(answer) for answer in item.answers]},
            "counts": {ratio: list(pair) for ratio, pair in one.items()},
        }
        for item, row, one in zip(loaded.items, rewards, counts, strict=True)
    ]
    return result, rows


def _score_answers(model: RewardModel | ProcessRewardModel, items: Sequence[Item]) -> list[list[float]]:
    said = lambda answer: [{"role": "assistant", "content": answer}]  # noqa: E731
    rewards = score_distinct(
        model, [Conversation(item.prompt, said(answer), None, item.origin) for item in items for answer in item.answers]
    )
    unscored = rewards.count(None)
    if unscored:
        raise DataError(
            f"{unscored} of {len(rewards)} answers have no reward, and an official number counts every one",
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


def to_dict(result: BenchmarkResult) -> dict[str, Any]:
    return asdict(result)


def diagnose(name: str, result: BenchmarkResult) -> list[str]:
    """What keeps the numbers from being compared, or from meaning anything."""
    found = []
    if not result.complete:
        found.append(
            f"{name}: {result.rows} of {result.published_rows} rows are there, so no number is comparable with published ones. "
            "Next: give all files of the benchmark."
        )
    if result.gain and result.gain.low <= 0:
        best = max(result.baselines, key=lambda one: result.baselines[one].get(next(iter(result.numbers)), -1.0))
        found.append(
            f"{name}: not shown to be above the baseline {best.replace('_', ' ')}, gain {result.gain.value:+.3f} "
            f"[{result.gain.low:+.3f}, {result.gain.high:+.3f}]. Next: go by the other numbers of the table."
        )
    if result.truncated or result.unscored_steps:
        found.append(
            f"{name}: {result.truncated} inputs were truncated and {result.unscored_steps} steps not read at {result.max_length} "
            "tokens. Next: raise --max_length if the model reads more."
        )
    return found


def show(result: BenchmarkResult) -> None:
    """The table on stderr: each number, its interval, the baselines, and published models."""
    models = list(result.published)[:SHOWN_MODELS]
    rows = [
        [
            number.replace("_", " "),
            *((one.value, one.low, one.high) if one else (None, None, None)),
            *(of.get(number) for of in result.baselines.values()),
            *(result.published[model].get(number) for model in models),
        ]
        for number, one in result.numbers.items()
    ]
    title = f"{result.title}: {result.items} items of {result.rows} rows"
    if result.threshold:
        title += f", threshold {result.threshold['value']:.4f} ({result.threshold['chosen_on']})"
    columns = ["", "value", "95 % low", "high", *(one.replace("_", " ") for one in result.baselines), *models]
    table(title, columns, rows)
