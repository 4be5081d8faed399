"""What a training run says of itself: progress while it runs, and of reinforcement learning a picture and its doubts."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from ..console import QUIET_SECONDS, console, log, write_whole

SHOWN_BESIDE_BAR = ("loss", "accuracy", "eval_accuracy")
SHOWN = (
    *("loss", "eval_loss", "accuracy", "eval_accuracy", "margin", "eval_margin"),
    *("reward", "kl", "entropy", "completions/mean_length"),
    "learning_rate",
)


class ProgressLog(TrainerCallback):
    """A bar on a terminal, elsewhere a quiet line each time the trainer logs: transformers' own prints dictionaries."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.task: Any = None
        self.last_line = -QUIET_SECONDS

    @classmethod
    def install(cls, trainer: Any) -> None:
        for other in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(other)
        trainer.add_callback(cls())

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not (state.is_world_process_zero and console().is_terminal):
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        self.bar = Progress(*columns, console=console())
        self.task = self.bar.add_task("", total=state.max_steps, completed=state.global_step)
        self.bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar:
            self.bar.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs:
            return
        names = SHOWN_BESIDE_BAR if self.bar else SHOWN
        shown = "  ".join(f"{name} {float(logs[name]):.4g}" for name in names if name in logs)
        if self.bar:
            self.bar.update(self.task, description=shown)
        elif shown and ("eval_loss" in logs or self._is_due(args, state)):
            self.last_line = time.monotonic()
            log(f"step {state.global_step}/{state.max_steps}  {shown}")

    def _is_due(self, args: Any, state: Any) -> bool:
        """Where every step is logged, for a file, a line each few seconds is enough to read."""
        waited = time.monotonic() - self.last_line
        return args.logging_steps != 1 or waited >= QUIET_SECONDS or state.global_step == state.max_steps

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None


# ---- reinforcement learning ---------------------------------------------------------------------------------------


class RunLog:
    """A file with one JSON object a step, and its entries. A resumed run keeps those up to its checkpoint."""

    def __init__(self, file: Path):
        self.file, self.entries, self.write = file, [], False

    def start(self, done: int, *, write: bool) -> None:
        """Begin after step `done`. write: whether this process is the one that writes."""
        self.write = write
        if done and self.file.exists():
            entries = map(json.loads, self.file.read_text(encoding="utf-8").splitlines())
            self.entries = [entry for entry in entries if entry["step"] <= done]
        if write:
            write_whole(self.file, map(json.dumps, self.entries))

    def add(self, entry: dict[str, Any]) -> None:
        self.entries.append(entry)
        if self.write:
            with open(self.file, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def best_of_for(kl: float) -> float:
    """The n whose best-of-n lies this many nats from its samples: log n - (n - 1)/n = kl, for large n."""
    return math.exp(min(kl + 1, 700.0))


def concerns(beginning: dict[str, float], end: dict[str, float], warn_kl: float) -> list[str]:
    """One sentence for each sign that the reward was gamed, from the means of a run's beginning and end.

    The policy's own reward cannot tell: it rises while answers get worse (Gao et al. 2022, arXiv:2210.10760).
    """
    found = []
    if end["kl"] > warn_kl:
        found.append(
            f"the policy is {end['kl']:.1f} nats from the reference, as far as the best of {best_of_for(end['kl']):.0g} "
            f"samples, and its reward went from {beginning['reward']:.2f} to {end['reward']:.2f}: the reward is probably "
            "over-optimised. Judge the policy by something else than this reward, raise --kl_coef, or set --max_kl"
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


def first_and_last_tenth(history: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Means of the named numbers over the `beginning` and the `end` of a run's log, a tenth of it each."""
    tenth = max(1, len(history) // 10)
    parts = {"beginning": history[:tenth], "end": history[-tenth:]}
    return {
        end: {name: sum(entry[name] for entry in part) / len(part) for name in names if part and name in part[0]}
        for end, part in parts.items()
    }


def picture(history: Sequence[dict[str, Any]], panels: Mapping[str, Sequence[str]]) -> str:
    """The run as SVG, by step. panels: title -> the names of the numbers drawn together."""
    from ..drawing import Panel, Series, svg_lines

    drawn = []
    for title, names in panels.items():
        lines = [Series(name, [(entry["step"], entry[name]) for entry in history if name in entry]) for name in names]
        drawn.append(Panel(title, "step", names[0], lines))
    return svg_lines(drawn)
