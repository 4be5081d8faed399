"""Progress of a transformers Trainer: a bar on a terminal, one quiet line each time it logs elsewhere."""

from __future__ import annotations

from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from ..console import console, log

SHOWN_BESIDE_BAR = ("loss", "accuracy", "eval_accuracy")
SHOWN = ("loss", "eval_loss", "accuracy", "eval_accuracy", "margin", "eval_margin", "learning_rate")


class ProgressLog(TrainerCallback):
    """Replaces transformers' own progress, which prints Python dictionaries to stdout."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.task: Any = None

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
        elif shown:
            log(f"step {state.global_step}/{state.max_steps}  {shown}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None
