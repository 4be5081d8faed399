"""Train a process reward model: a token classifier that says after each step how likely the step is correct.

transformers' Trainer runs the loop with the loss below; overridden is `compute_loss` alone, to stop when the loss is no
number. A decoder learns all steps of a solution from one row, an encoder from one row a step (see `steps`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from ..console import DataError, ModelError, log
from ..data.records import Solution
from ..packing import right_padded
from ..step_rendering import StepRenderer, supervised_text
from .resuming import run_identity, start_run
from .runs import check_finite, run, settle_refused, without_dropout

IGNORED = -100.0
"""The label of a token at which no step is scored."""
STATISTICS_SAMPLE = 256


# ---- rows ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepRows:
    """A rendered training set: rows of `input_ids`, `positions` and `labels`, one label a position.

    `solutions` are those that gave a row, `counts` says what happened on the way.
    """

    dataset: Dataset
    solutions: list[Solution]
    counts: dict[str, int]


def render_solutions(
    solutions: Sequence[Solution],
    renderer: StepRenderer,
    *,
    last_step_only: bool = False,
    steps_per_solution: int | None = None,
    seed: int = 42,
    chunk: int = 1024,
    drop_refused: bool = False,
) -> StepRows:
    """Render labelled solutions. What stands behind the last labelled step is left out, since nothing is learned from it.

    last_step_only: use the last label of each solution that fits. steps_per_solution: use at most so many of its labels,
    drawn at random with this seed. drop_refused: leave out solutions that cannot be rendered. Every solution, step and label
    that is not used is counted. Raises DataError for those that cannot be rendered otherwise, and when nothing is left.
    """
    before = dict(renderer.counts)
    counts = {"solutions": len(solutions), "solutions_used": 0, "rows": 0, "steps": 0}
    counts |= {"steps_unlabelled": 0, "labels_not_drawn": 0, "labels_used": 0, "correct_steps": 0}
    rows, kept, refused = [], [], []
    for start in range(0, len(solutions), chunk):
        part = solutions[start : start + chunk]
        judged = [max(i for i, label in enumerate(one.labels, 1) if label is not None) for one in part]
        rendered = renderer.render_all(
            [(one.prompt, one.steps[:end], one.origin) for one, end in zip(part, judged, strict=True)], refused
        )
        for number, (one, solution) in enumerate(zip(part, rendered, strict=True), start):
            counts["steps"] += len(one.steps)
            counts["steps_unlabelled"] += one.labels.count(None) + len(one.steps) - len(one.labels)
            if solution is None:
                continue
            judgements = zip(solution.positions, one.labels, strict=False)
            labels = {place: label for place, label in judgements if label is not None}
            chosen = _drawn(sorted(labels), last_step_only, steps_per_solution, random.Random(f"{seed}:{number}"))
            counts["labels_not_drawn"] += len(labels) - len(chosen)
            if not chosen:
                continue
            for ids, positions in renderer.rows(solution):
                positions = [place for place in positions if place in chosen]
                if positions:
                    rows.append(_row(ids, positions, [labels[place] for place in positions]))
            kept.append(one)
            counts["labels_used"] += len(chosen)
            counts["correct_steps"] += sum(labels[place] >= 0.5 for place in chosen)
    if refused:
        settle_refused(refused, len(solutions), f"{len(refused)} solutions", drop_refused)
        counts["dropped_refused"] = len(refused)
    if not rows:
        raise DataError(
            f"no labelled step is left of {len(solutions)} solutions: at most {renderer.max_length} tokens are read",
            hint="raise --max_length, or choose --overlong truncate_prompt",
        )
    done = {name: renderer.counts[name] - before.get(name, 0) for name in ("dropped", "truncated", "steps_dropped")}
    counts |= {"solutions_used": len(kept), "rows": len(rows), "solutions_dropped_over_length": done["dropped"]}
    counts |= {"prompts_truncated": done["truncated"], "steps_dropped_over_length": done["steps_dropped"]}
    return StepRows(Dataset.from_list(rows), kept, counts)


def _drawn(places: list[int], last_only: bool, limit: int | None, rng: random.Random) -> set[int]:
    if last_only:
        return set(places[-1:])
    return set(rng.sample(places, limit)) if limit and limit < len(places) else set(places)


def _row(ids: list[int], positions: list[int], labels: list[float]) -> dict[str, list]:
    """What is behind the last position is left out: a decoder learns nothing from it."""
    return {"input_ids": ids[: positions[-1] + 1], "positions": positions, "labels": labels}


def show_labels(rows: StepRows, tokenizer: Any, n: int) -> list[list[dict[str, Any]]]:
    """Of the first n rows each supervised position: the text up to it, the token itself, and its label. Also logged."""
    shown = []
    for number, row in enumerate(rows.dataset.select(range(min(n, len(rows.dataset)))), 1):
        texts = supervised_text(tokenizer, row["input_ids"], row["positions"])
        shown.append(
            [
                {"text": text, "token": token, "position": place, "label": label}
                for (text, token), place, label in zip(texts, row["positions"], row["labels"], strict=True)
            ]
        )
        log(f"row {number}: {len(row['input_ids'])} tokens")
        for entry in shown[-1]:
            log(f"  label {entry['label']:g} at token {entry['position']} {entry['token']!r} behind {entry['text']!r}")
    return shown


class StepCollator:
    """Right-padded batches: `input_ids`, `attention_mask` [S, T] and float `labels` [S, T], IGNORED at all other tokens."""

    def __init__(self, pad_token_id: int):
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[dict[str, list]]) -> dict[str, torch.Tensor]:
        ids, mask = right_padded([row["input_ids"] for row in rows], self.pad_token_id)
        labels = torch.full(ids.shape, IGNORED)
        for i, row in enumerate(rows):
            labels[i, row["positions"]] = torch.tensor(row["labels"], dtype=torch.float32)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


# ---- the loss -----------------------------------------------------------------------------------------------------


def step_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    weights: tuple[float, float] = (1.0, 1.0),
    count: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Cross-entropy of a step's label with the softmax of its two logits: mean over labelled tokens, in fp32.

    logits: [S, T, 2], label 1 is "correct". labels: [S, T], the probability that the step is correct (0 and 1 for hard
    labels), IGNORED elsewhere. weights: of an incorrect and of a correct step. count: what the sum is divided by, for a
    mean over several batches; by default the labelled tokens here. Returns [].
    log 2 for a model that knows nothing. For hard labels and no weights this is the loss of arXiv:2312.08935; for
    probabilities estimated by rollouts its soft form, y log p + (1 - y) log (1 - p).

    >>> step_loss(torch.tensor([[[0.0, 2.0], [0.0, 0.0]]]), torch.tensor([[1.0, IGNORED]]))
    tensor(0.1269)
    """
    labelled = labels != IGNORED
    target = labels[labelled]
    log_p = F.log_softmax(logits[labelled].float(), dim=-1)
    losses = -(weights[0] * (1 - target) * log_p[:, 0] + weights[1] * target * log_p[:, 1])
    return losses.sum() / (labelled.sum() if count is None else count)


def class_weights(labels: Sequence[Sequence[float]], weighting: str) -> tuple[float, float]:
    """Weights of an incorrect and of a correct step. `balanced`: both classes weigh half of all steps together.

    Soft labels count for both classes by their share. Raises DataError when a class does not occur.
    """
    if weighting == "none":
        return 1.0, 1.0
    total = sum(map(len, labels))
    correct = sum(map(sum, labels))
    if not 0 < correct < total:
        raise DataError(
            f"all {total} labelled steps are {'correct' if correct else 'incorrect'}: there is nothing to balance",
            hint="leave out --class_weighting, or give data with both",
        )
    return total / (2 * (total - correct)), total / (2 * correct)


# ---- the trainer --------------------------------------------------------------------------------------------------


class ProcessTrainer(Trainer):
    """transformers' Trainer with `step_loss`. weights: see there."""

    def __init__(self, *args: Any, weights: tuple[float, float] = (1.0, 1.0), **kwargs: Any):
        def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
            return step_loss(outputs["logits"], labels, weights=weights, count=num_items_in_batch)

        super().__init__(
            *args,
            compute_loss_func=loss,
            compute_metrics=step_metrics,
            preprocess_logits_for_metrics=lambda logits, labels: logits.float().softmax(-1)[..., 1],
            **kwargs,
        )

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ):
        outcome = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        check_finite(outcome[0] if return_outputs else outcome, model, self.state)
        return outcome


def step_metrics(prediction: Any) -> dict[str, float]:
    """Over all labelled steps: share on the right side of 1/2, and that of calling every step correct."""
    labelled = prediction.label_ids != IGNORED
    correct = prediction.label_ids[labelled] >= 0.5
    called = prediction.predictions[labelled] >= 0.5
    return {"accuracy": float((called == correct).mean()), "all_correct": float(correct.mean())}


def step_statistics(scorer: Any, judgement: Any, training_solutions: Sequence[Solution]) -> dict[str, Any]:
    """Mean and standard deviation of the scores of held-out steps, or of some training steps when none are held out."""
    from ..evaluation.steps import score_steps

    if judgement is not None:
        source, scores = "held-out steps", [row["step_rewards"] for row in judgement.rows]
    else:
        source, scores = "training steps", score_steps(scorer, training_solutions[:STATISTICS_SAMPLE])
    values = torch.tensor([value for row in scores for value in row if value is not None])
    return {"mean": values.mean().item(), "std": values.std(correction=0).item(), "n": len(values), "from": source}


def fit(
    model: Any,
    renderer: StepRenderer,
    rows: StepRows,
    arguments: TrainingArguments,
    *,
    head: str,
    eval_rows: StepRows | None = None,
    peft_config: Any = None,
    class_weighting: str = "none",
    disable_dropout: bool = True,
    resume: str | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Train. Returns the model in memory (a PEFT model when `peft_config` is given) and a summary of the run.

    Raises ModelError when the trainer refuses the model, RunError when the loss is no number or the run cannot be resumed.
    """
    weights = class_weights(rows.dataset["labels"], class_weighting)
    identity = run_identity(
        arguments,
        rows.dataset,
        renderer,
        head,
        peft_config=peft_config,
        class_weighting=class_weighting,
        disable_dropout=disable_dropout,
    )
    start_run(arguments.output_dir, arguments.process_index, identity, resume)
    if disable_dropout:  # token classifiers made of decoders drop a tenth of the last hidden state by default
        without_dropout(model)
    try:
        if peft_config is not None:
            from peft import get_peft_model

            model = get_peft_model(model, peft_config)
        trainer = ProcessTrainer(
            model=model,
            args=arguments,
            data_collator=StepCollator(renderer.tokenizer.pad_token_id),
            train_dataset=rows.dataset,
            eval_dataset=eval_rows.dataset if eval_rows else None,
            processing_class=renderer.tokenizer,
            weights=weights,
        )
    except (ValueError, TypeError) as error:
        raise ModelError(f"the model cannot be trained: {error}") from error
    log(
        f"training: {rows.counts['labels_used']} labelled steps in {len(rows.dataset)} rows, "
        f"{arguments.world_size} process(es)"
    )
    model, summary = run(trainer, resume)
    return model, summary | {"class_weights": list(weights)}
