"""Labelled solutions for training a process reward model: read, audited, and rendered into rows.

A decoder learns all steps of a solution from one row, an encoder from one row a step.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ..cli import escaped, flag
from ..console import DataError, listed, log
from ..data.audit import audit
from ..data.records import Solution, solutions
from ..kinds import PROCESS
from ..settings import neutral_flag
from ..step_rendering import STEPS_OVERLONG, RenderedSolution, StepRenderer, default_separator, supervised_text
from .data import STATISTICS_SAMPLE, Data, Rows, read, settle_refused
from .settings import DataSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase, TrainingArguments

    from ..evaluation.steps import StepEvaluation
    from ..process import ProcessRewardModel
    from .results import RewardStatistics, ShownLabel

ROWS_OF = {
    "last_token": "all steps of a solution in one row",
    "prefix": "one row for each step, since the model reads in both directions",
}


@dataclass(frozen=True, kw_only=True)
class Steps:
    """A process reward model, by the cross-entropy of labeled steps, for `runs.train`."""

    group: ClassVar = "loss"
    class_weighting: str = flag(
        "none", "balanced: incorrect steps weigh as much as correct ones together", choices=("none", "balanced")
    )
    train_on_last_step_only: bool = flag(False, "use the last label of each solution alone")
    steps_per_solution: int | None = flag(
        None,
        "use at most N labels of each solution, drawn at random; an encoder computes a row for each (all)",
    )
    disable_dropout: bool = flag(True, "switch every dropout of the model off")
    overlong: str = flag(
        "drop_steps",
        "what to do with longer ones; always counted; drop_steps: leave out the last steps, keep prompt and first steps whole",
        group="model",
        choices=STEPS_OVERLONG,
    )
    step_separator: str | None = flag(
        None,
        r"stands after each step; its last token is scored (\n, or the SEP token where \n is no token)",
        group="model",
        type=escaped,
    )
    neutral: str | None = neutral_flag()
    show_labels: int | None = flag(None, "decode the first N rows at every labeled token, before training", group="run")
    seed: int = 42
    model: ClassVar = PROCESS
    task_type: ClassVar = "TOKEN_CLS"
    folds: ClassVar = None

    @property
    def loss(self) -> dict[str, Any]:
        return {
            "class_weighting": self.class_weighting,
            "train_on_last_step_only": self.train_on_last_step_only,
            "steps_per_solution": self.steps_per_solution,
        }

    @staticmethod
    def config_class() -> type[TrainingArguments]:
        from transformers import TrainingArguments

        return TrainingArguments

    def own_fields(self) -> dict[str, Any]:
        return {}

    def read(self, settings: DataSettings) -> Data:
        data, records = read(settings, "solutions", solutions, neutral=self.neutral)
        unlabeled = sum(isinstance(row, Solution) for row in records.rows) - len(data.train)
        if unlabeled:
            data = replace(data, set_aside=data.set_aside | {"without labels": unlabeled})
        return data.split(settings)

    def renderer(self, tokenizer: PreTrainedTokenizerBase, **common: Any) -> StepRenderer:
        separator = self.step_separator or default_separator(tokenizer)
        return StepRenderer(tokenizer, step_separator=separator, overlong=self.overlong, **common)

    def audited(self, data: Data, renderer: StepRenderer, settings: DataSettings) -> Data:
        """Only the renderer knows the separator, which must not stand in a step."""
        separator, held_out = renderer.step_separator, data.held_out or None
        findings = audit(data.train, separator=separator, eval_records=held_out, rendered=settings.rendered)
        return data.audited(findings, settings).checked(settings)

    def render(
        self, records: Sequence[Solution], renderer: StepRenderer, drop_refused: bool, *, held_out: bool = False
    ) -> Rows:
        drawing = {"last_step_only": self.train_on_last_step_only, "steps_per_solution": self.steps_per_solution}
        drawing = {} if held_out else drawing  # all labels of those
        return render_solutions(records, renderer, drop_refused=drop_refused, seed=self.seed, **drawing)

    def found(self, rows: Rows, renderer: StepRenderer) -> dict[str, Any]:
        log(
            f"rendered: {listed(rows.counts)}; longest allowed {renderer.max_length} tokens, "
            f"separator {renderer.step_separator!r}, {ROWS_OF[renderer.scored_at]}"
        )
        found: dict[str, Any] = {"step_separator": renderer.step_separator}
        if self.show_labels:
            found["labels_shown"] = show_labels(rows, renderer.tokenizer, self.show_labels)
        return found

    def fit(
        self, model: torch.nn.Module, renderer: StepRenderer, rows: Rows, config: TrainingArguments, **run: Any
    ) -> tuple[torch.nn.Module, dict[str, Any]]:
        from . import loop, process

        weights = process.class_weights(rows.dataset["labels"], self.class_weighting)
        if self.disable_dropout:  # token classifiers made of decoders drop a tenth of the last hidden state by default
            loop.without_dropout(model)
        model, summary = loop.fit(
            process.ProcessTrainer,
            model,
            renderer,
            rows,
            config,
            data_collator=process.StepCollator(renderer.tokenizer.pad_token_id),
            weights=weights,
            loss={"class_weighting": self.class_weighting, "disable_dropout": self.disable_dropout},
            **run,
        )
        return model, summary | {"class_weights": list(weights)}

    def evaluate(
        self, model: torch.nn.Module, renderer: StepRenderer, held_out: list[Solution], trained_on: list[Solution]
    ) -> tuple[StepEvaluation | None, RewardStatistics]:
        from ..evaluation.steps import evaluate_steps
        from ..process import ProcessRewardModel

        scorer = ProcessRewardModel(model, renderer)
        evaluation = evaluate_steps(scorer, held_out, threshold=0.5) if held_out else None
        return evaluation, step_statistics(scorer, evaluation, trained_on)


def render_solutions(
    solutions: Sequence[Solution],
    renderer: StepRenderer,
    *,
    last_step_only: bool = False,
    steps_per_solution: int | None = None,
    seed: int = 42,
    chunk: int = 1024,
    drop_refused: bool = False,
) -> Rows:
    """Render labeled solutions. What stands after the last labeled step is left out, since nothing is learned from it.

    last_step_only: use the last label of each solution that fits. steps_per_solution: use at most so many of its labels,
    drawn at random with this seed. drop_refused: leave out solutions that cannot be rendered. Every solution, step and label
    that is not used is counted. Raises DataError for those that cannot be rendered otherwise, and when nothing is left.
    """
    from datasets import Dataset

    before = dict(renderer.counts)
    zeros = ("solutions_used", "rows", "steps", "steps_unlabelled", "labels_not_drawn", "labels_used", "correct_steps")
    counts = {"solutions": len(solutions), **dict.fromkeys(zeros, 0)}

    def draw(number: int, places: list[int]) -> set[int]:
        """The labels to use of a solution, each by the place of its token."""
        if last_step_only:
            return set(places[-1:])
        if steps_per_solution and steps_per_solution < len(places):
            return set(random.Random(f"{seed}:{number}").sample(places, steps_per_solution))
        return set(places)

    rows, kept, refused = [], [], []
    for start in range(0, len(solutions), chunk):
        part = solutions[start : start + chunk]
        labeled = [max(i for i, label in enumerate(one.labels, 1) if label is not None) for one in part]
        rendered = renderer.render_all(
            [(one.prompt, one.steps[:end], one.origin) for one, end in zip(part, labeled, strict=True)], refused
        )
        for number, (one, solution) in enumerate(zip(part, rendered, strict=True), start):
            counts["steps"] += len(one.steps)
            counts["steps_unlabelled"] += one.labels.count(None) + len(one.steps) - len(one.labels)
            if solution is not None and (own := _rows_of(one, solution, renderer, partial(draw, number), counts)):
                kept.append(one)
                rows += own
    if refused:
        settle_refused(refused, len(solutions), f"{len(refused)} solutions", drop_refused)
        counts["dropped_refused"] = len(refused)
    if not rows:
        raise DataError(
            f"no labeled step is left of {len(solutions)} solutions: at most {renderer.max_length} tokens are read",
            hint="raise --max_length, or choose --overlong truncate_prompt",
        )
    done = {name: renderer.counts[name] - before.get(name, 0) for name in ("dropped", "truncated", "steps_dropped")}
    counts |= {"solutions_used": len(kept), "rows": len(rows), "solutions_dropped_over_length": done["dropped"]}
    counts |= {"prompts_truncated": done["truncated"], "steps_dropped_over_length": done["steps_dropped"]}
    return Rows(Dataset.from_list(rows), kept, counts, f"{counts['labels_used']} labeled steps")


def _rows_of(
    one: Solution,
    rendered: RenderedSolution,
    renderer: StepRenderer,
    draw: Callable[[list[int]], set[int]],
    counts: dict[str, int],
) -> list[dict[str, list]]:
    """The rows of a solution with the labels that are drawn of those that fit. What stands after the last position of a row
    is left out: a decoder learns nothing from it."""
    labeled = zip(rendered.positions, one.labels, strict=False)
    labels = {place: label for place, label in labeled if label is not None}
    chosen = draw(sorted(labels))
    counts["labels_not_drawn"] += len(labels) - len(chosen)
    counts["labels_used"] += len(chosen)
    counts["correct_steps"] += sum(labels[place] >= 0.5 for place in chosen)
    rows = ((ids, [place for place in positions if place in chosen]) for ids, positions in renderer.rows(rendered))
    return [
        {"input_ids": ids[: places[-1] + 1], "positions": places, "labels": [labels[place] for place in places]}
        for ids, places in rows
        if places
    ]


def show_labels(rows: Rows, tokenizer: PreTrainedTokenizerBase, n: int) -> list[list[ShownLabel]]:
    """Of the first n rows each supervised position: the text up to it, the token itself, and its label. Also logged."""
    from .results import ShownLabel

    shown = []
    for number, row in enumerate(rows.dataset.select(range(min(n, len(rows.dataset)))), 1):
        texts = supervised_text(tokenizer, row["input_ids"], row["positions"])
        shown.append(
            [
                ShownLabel(text, token, place, label)
                for (text, token), place, label in zip(texts, row["positions"], row["labels"], strict=True)
            ]
        )
        log(f"row {number}: {len(row['input_ids'])} tokens")
        for entry in shown[-1]:
            log(f"  label {entry.label:g} at token {entry.position} {entry.token!r} after {entry.text!r}")
    return shown


def step_statistics(
    scorer: ProcessRewardModel, evaluation: StepEvaluation | None, trained_on: Sequence[Solution]
) -> RewardStatistics:
    """Of the scores of held-out steps, or of some training steps when none are held out."""
    import torch

    from ..evaluation.steps import score_steps
    from .results import RewardStatistics

    if evaluation is not None:
        source, scores = "held-out steps", [row["step_rewards"] for row in evaluation.rows]
    else:
        source, scores = "training steps", score_steps(scorer, trained_on[:STATISTICS_SAMPLE])
    values = torch.tensor([value for row in scores for value in row if value is not None])
    return RewardStatistics(values.mean().item(), values.std(correction=0).item(), len(values), source)
