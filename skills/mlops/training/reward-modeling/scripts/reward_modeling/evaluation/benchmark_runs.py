"""Run the entries of benchmarks.py: rows found and read, scored, added up as officially, with intervals and baselines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.cells import RowError
from ..data.entries import SetAsideError
from ..data.files import READERS, Table, suffix
from ..data.records import Origin, Ranking, Solution
from ..data.sources import read
from ..errors import DataError, UsageError
from ..results import Number
from ..terminal import table
from .benchmarks import BENCHMARKS, Benchmark, Item, Part, Rewards
from .diagnostics import spelled
from .inputs import prompt_keys, score_answers
from .intervals import Counts, Estimate, Measured, group_index, measure
from .step_measures import FIXED, NO_ERROR, choose_threshold, labeled_steps
from .steps import score_steps

if TYPE_CHECKING:
    from ..process import ProcessRewardModel
    from ..scoring import RewardModel

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
    """rows: read; set_aside: those that the authors leave out, by reason."""

    items: list[Item]
    rows: int
    published_rows: int
    set_aside: dict[str, int]


@dataclass(frozen=True)
class BenchmarkResult:
    """complete: as many rows as were published. ties: items whose best reward is shared. unscored_steps: they did not fit and
    cannot be flagged. numbers: the official one first, null where it lacks items. subsets: the ratios they are made of.
    baselines: scorers of lengths alone; gain: the official number minus the best of theirs, paired. published: by model.
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


def check_names(names: Sequence[str]) -> None:
    for name in names:
        if name not in BENCHMARKS:
            raise UsageError(f"{name} is not a valid --benchmark", hint=f"choose from {', '.join(BENCHMARKS)}")
    if len({BENCHMARKS[name].of_steps for name in names}) > 1:
        raise UsageError("--benchmark names benchmarks of answers and of steps", hint="run each kind alone")


def load_benchmark(name: str, folder: str | None) -> Loaded:
    """From the authors' files in the folder, or from the hub. Raises DataError where nothing is found, and with FILE:ROW for a
    row that is not as published."""
    benchmark, rows = BENCHMARKS[name], 0
    items: dict[object, Item] = {}
    set_aside: Counter[str] = Counter()
    for part, found in _tables(name, benchmark, folder):
        for number, row in zip(found.numbers, found.complete().rows, strict=True):
            rows += not part.optional
            origin = Origin(found.name, number)
            try:
                item = replace(benchmark.item(row, part.name, origin.file), origin=origin)
            except SetAsideError as reason:
                set_aside[str(reason)] += 1
                continue
            except (RowError, KeyError, TypeError, AttributeError) as error:
                said = error if isinstance(error, RowError) else f"{type(error).__name__} at {error}"
                hint = f"give the authors' files, in {name}/ of --benchmark_data"
                raise DataError(
                    f"the row is not one of {benchmark.title}: {said}", where=str(origin), hint=hint
                ) from error
            key = item.id if benchmark.repeats else origin
            set_aside["repeated"] += key in items
            items.setdefault(key, item)
    published = sum(part.rows for part in benchmark.parts if not part.optional)
    return Loaded(list(items.values()), rows, published, dict(+set_aside))


def _tables(name: str, benchmark: Benchmark, folder: str | None) -> Iterator[tuple[Part, Table]]:
    """A folder may lack some parts, not all that are needed."""
    if folder:
        found = [(part, str(path)) for part in benchmark.parts for path in _files(Path(folder), name, part)]
        missing, hint = f"{folder} holds no file of {benchmark.title}", f"put them into {folder}/{name}"
    else:
        found = [(part, part.hub) for part in benchmark.parts if part.hub and not part.optional]
        missing, hint = f"{benchmark.title} is not on the hub as its authors publish it", "give --benchmark_data"
    if all(part.optional for part, _ in found):
        raise DataError(missing, hint=hint)
    for part, source in found:
        try:
            for one in read(source, None if folder else part.split):
                yield part, one
        except DataError as error:
            hint = error.hint if folder else "check the network, or give the authors' files with --benchmark_data"
            raise DataError(error.message, where=error.where, hint=hint) from error


def _files(folder: Path, name: str, part: Part) -> list[Path]:
    """In the subfolder of the benchmark's name, where there is one, else anywhere in the folder."""
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}", hint="--benchmark_data names a folder with the authors' files")
    folder = next((one for one in folder.iterdir() if one.is_dir() and _plain(one.name) == _plain(name)), folder)
    plain = {
        path: _plain(f"{folder.resolve().name}/{path.relative_to(folder)}")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and suffix(path) in READERS
    }
    by_pattern = ([path for path, text in plain.items() if re.search(pattern, text)] for pattern in part.files)
    return next(filter(None, by_pattern), [])


def _plain(path: str) -> str:
    return re.sub(r"[-_ ]", "", path.lower())


def summarize(
    name: str,
    loaded: Loaded,
    rewards: Sequence[Rewards],
    *,
    threshold: tuple[float, str] | None = None,
    truncated: int = 0,
    max_length: int | None = None,
) -> tuple[BenchmarkResult, list[Counts]]:
    """(the result, what each item counts). rewards: [items][answers or steps]. threshold: (under which a step is wrong, where
    it is from); None: as the authors choose it."""
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
    official, *_ = named = list(benchmark.table)
    best = max(
        (one[official] for one in blind.values() if official in measured), key=lambda one: one.value, default=None
    )
    result = BenchmarkResult(
        title=benchmark.title,
        rows=loaded.rows,
        published_rows=loaded.published_rows,
        complete=loaded.rows == loaded.published_rows and official in measured,
        items=len(items),
        set_aside=loaded.set_aside,
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
        gain=measured[official].minus(best, groups) if best else None,
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
    solutions = []
    for item, _ in chosen:  # labeled up to the first wrong step
        labels = [1.0] * len(item.answers) if item.label == NO_ERROR else [1.0] * item.label + [0.0]
        solutions.append(Solution(item.prompt, item.answers, labels))
    value, _ = choose_threshold(labeled_steps(solutions, [row for _, row in chosen]))
    return value, f"the best on {section}, as the authors do; so {section} itself is not held out"


# ---- a run


def run_benchmark(
    model: RewardModel | ProcessRewardModel, name: str, loaded: Loaded, threshold: tuple[float, str] | None = None
) -> tuple[BenchmarkResult, list[dict[str, object]]]:
    """(the result, a JSON row for each item). Raises DataError for an answer that the over-length policy leaves out."""
    before, items = model.renderer.counts["truncated"], loaded.items
    if BENCHMARKS[name].of_steps:
        rewards = score_steps(model, [Solution(item.prompt, item.answers, origin=item.origin) for item in items])
    else:
        said = [[[{"role": "assistant", "content": answer}] for answer in item.answers] for item in items]
        rewards = score_answers(
            model, [Ranking(item.prompt, own, origin=item.origin) for item, own in zip(items, said, strict=True)]
        )
        if lost := sum(row.count(None) for row in rewards):
            raise DataError(
                f"{lost} of {sum(map(len, rewards))} answers have no reward, and an official number counts every one",
                hint="raise --max_length, or choose --overlong truncate_left",
            )
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
        found.append(
            f"{result.rows} of {result.published_rows} rows were read, so its numbers are not comparable with "
            "published ones. Next: give all files of the benchmark."
        )
    if result.gain and result.gain.low <= 0:
        best = max(result.baselines, key=lambda name: result.baselines[name][official])
        found.append(
            f"not shown to be above the baseline {spelled(best)}: gain {result.gain:+.3f}. "
            "Next: do not rely on the model here."
        )
    if result.truncated or result.unscored_steps:
        found.append(
            f"at {result.max_length} tokens {result.truncated} inputs were truncated and "
            f"{result.unscored_steps} steps not read. Next: raise --max_length if the model reads more."
        )
    return [f"{result.title}: {sentence}" for sentence in found]


def show_benchmark(result: BenchmarkResult) -> None:
    letters = dict(zip("ABCDE", result.published, strict=False))
    others = [*result.baselines.values(), *result.published.values()]
    rows = []
    for number, one in result.numbers.items():
        values = [getattr(one, key, None) for key in ("value", "low", "high")] + [of.get(number) for of in others]
        rows.append([spelled(number), *(None if value is None else f"{value:.3f}" for value in values)])
    title = f"{result.title}: {result.items} items of {result.rows} rows"
    if result.threshold is not None:
        title += f"; a step is wrong under {result.threshold:.4f} ({result.threshold_from})"
    title += "".join(f"\n{letter}: {model}" for letter, model in letters.items())
    title += f" ({result.published_in})" if letters else ""
    columns = ["", "value", "low", "high", *map(spelled, result.baselines), *letters]
    table(title, columns, rows)
