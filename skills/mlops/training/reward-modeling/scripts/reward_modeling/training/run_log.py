"""The log of a reinforcement learning run: its file, its ends, signs that the reward was gamed, and its picture."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..console import log, to_json, warn, write_whole


class RunLog:
    """A file with one JSON object a step, and its entries. A resumed run keeps those up to its checkpoint."""

    def __init__(self, file: Path):
        self.file, self.entries, self.write = file, [], False

    def start(self, done: int, *, write: bool) -> None:
        """Begin after step `done`. write: whether this process is the one that writes."""
        self.write = write
        if done and self.file.exists():
            for line in self.file.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError):  # of a killed run the last line may be half-written
                    self.entries.append(json.loads(line))
            self.entries = [entry for entry in self.entries if entry["step"] <= done]
        if write:
            write_whole(self.file, map(to_json, self.entries))

    def add(self, entry: dict[str, Any]) -> None:
        self.entries.append(entry)
        if self.write:
            with open(self.file, "a", encoding="utf-8") as file:
                file.write(to_json(entry) + "\n")


def best_of_for(kl: float) -> float:
    """The n whose best-of-n lies this many nats from its samples: log n - (n - 1)/n = kl, for large n."""
    return math.exp(min(kl + 1, 700.0))


def concerns(beginning: dict[str, float], end: dict[str, float], warn_kl: float) -> list[str]:
    """One sentence for each sign that the reward was gamed, from the numbers of a run's beginning and end.

    The policy's own reward cannot tell: it rises while answers get worse (Gao et al. 2022, arXiv:2210.10760).
    """
    found = []
    if end["kl"] > warn_kl:
        found.append(
            f"the policy is {end['kl']:.1f} nats from the reference, as far as the best of {best_of_for(end['kl']):.0g} "
            f"samples, and its reward went from {beginning['reward']:.2f} to {end['reward']:.2f}: the reward is probably "
            "over-optimized. Evaluate the policy by something else than this reward, raise --kl_coef, or set --max_kl"
        )
    if end["eos_rate"] < 0.9 * beginning["eos_rate"] or end["eos_rate"] < 0.5:
        found.append(
            f"only {end['eos_rate']:.0%} of the answers end by themselves: raise --response_length or --missing_eos_penalty"
        )
    if end["length"] > 2 * beginning["length"]:
        found.append(
            f"answers grew from {beginning['length']:.0f} to {end['length']:.0f} tokens: is the reward one for length?"
        )
    return found


def start_and_end(history: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """The named numbers of `beginning`, the first entry, whose answers the untrained policy wrote, and of `end`, means over
    the last tenth."""
    parts = {"beginning": history[:1], "end": history[-max(1, len(history) // 10) :]}
    return {
        end: {name: sum(entry[name] for entry in part) / len(part) for name in names if part and name in part[0]}
        for end, part in parts.items()
    }


def draw_run(file: Path, history: Sequence[Mapping[str, float]], panels: Mapping[str, Sequence[str]]) -> None:
    """The run as an SVG file, by step. panels: title -> the names of the numbers drawn together. Without matplotlib there is
    a warning and no file: the run is saved by then."""
    from ..evaluation.plots import Panel, Series, svg

    def series(name: str) -> Series:
        return Series(name, [(entry["step"], entry[name]) for entry in history if name in entry])

    try:
        picture = svg([Panel(title, "step", names[0], list(map(series, names))) for title, names in panels.items()])
    except ImportError as error:
        return warn(f"the run is not drawn: {error}")
    write_whole(file, [picture])
    log(f"the run is drawn in {file}")
