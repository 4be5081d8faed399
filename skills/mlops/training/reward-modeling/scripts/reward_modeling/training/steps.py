"""Labeled solutions as rows: a decoder learns all steps of a solution from one row, an encoder from one row a step."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..cli import escaped, flag
from ..data.records import Solution, solutions
from ..errors import DataError
from ..hf import Arguments, Model, Tokenizer
from ..kinds import PROCESS
from ..settings import neutral_flag
from ..step_rendering import STEPS_OVERLONG, StepRenderer, default_separator, supervised_text
from ..terminal import listed, log
from .data import Data, Learner, Rows, read_data, rendered, settle_refused
from .settings import DataSettings

if TYPE_CHECKING:
  from ..evaluation.steps import StepEvaluation
  from .results import ShownLabel


@dataclass(frozen=True, kw_only=True)
class StepLabels(Learner):
  """A process reward model, by the cross-entropy of labeled steps."""

  group: ClassVar = "loss"
  objective: str = flag(
    "steps", "labels of steps, or implicit: of answers, and steps get a log-ratio", choices=("steps", "implicit")
  )
  beta: float = flag(0.05, "times the log-ratio is an implicit reward")
  class_weighting: str = flag(
    "none", "balanced: incorrect steps weigh as much as correct ones together", choices=("none", "balanced")
  )
  train_on_last_step_only: bool = flag(False, "use the last label of each solution alone")
  steps_per_solution: int | None = flag(
    None, "use at most N labels of each solution, drawn at random; an encoder computes a row for each (all)"
  )
  disable_dropout: bool = flag(True, "switch every dropout of the model off")
  overlong: str = flag(
    "drop_steps",
    "for longer ones; always counted; drop_steps: leave out the last steps, keep prompt and first steps whole",
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

  @property
  def loss(self) -> dict[str, Any]:
    return {name: getattr(self, name) for name in ("class_weighting", "train_on_last_step_only", "steps_per_solution")}

  @staticmethod
  def config_class() -> type[Arguments]:
    from transformers import TrainingArguments

    return TrainingArguments

  def read(self, settings: DataSettings) -> Data:
    data, records = read_data(settings, "solutions", solutions, neutral=self.neutral)
    if unlabeled := sum(isinstance(row, Solution) for row in records.rows) - len(data.train):
      data = replace(data, set_aside=data.set_aside | {"without labels": unlabeled})
    return data.split(settings)

  def renderer(self, tokenizer: Tokenizer, **common: object) -> StepRenderer:
    separator = self.step_separator or default_separator(tokenizer)
    return StepRenderer(tokenizer, step_separator=separator, overlong=self.overlong, **common)

  def audited(self, data: Data, renderer: StepRenderer, settings: DataSettings) -> Data:
    separator = renderer.step_separator  # it must not stand in a step
    return data.audited(settings, separator=separator).checked(settings)

  def render(
    self, records: Sequence[Solution], renderer: StepRenderer, drop_refused: bool, *, held_out: bool = False
  ) -> Rows:
    drawing = {"last_step_only": self.train_on_last_step_only, "steps_per_solution": self.steps_per_solution}
    drawing = {} if held_out else drawing  # all labels of those
    return render_solutions(records, renderer, drop_refused=drop_refused, seed=self.seed, **drawing)

  def found(self, rows: Rows, renderer: StepRenderer) -> dict[str, Any]:
    in_one = renderer.scored_at == "last_token"
    how = "all steps of a solution in one row" if in_one else "one row for each step, since it reads in both directions"
    separator = renderer.step_separator
    log(
      f"rendered: {listed(rows.counts)}; longest allowed {renderer.max_length} tokens, separator {separator!r}, {how}"
    )
    found: dict[str, Any] = {"step_separator": separator}
    if self.show_labels:
      found["labels_shown"] = show_labels(rows, renderer.tokenizer, self.show_labels)
    return found

  def fit(
    self, model: Model, renderer: StepRenderer, rows: Rows, config: Arguments, **run: object
  ) -> tuple[Model, dict[str, Any]]:
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
      shared_prefix=self.shared_prefix,
      **run,
    )
    return model, summary | {"class_weights": list(weights)}

  def evaluate(
    self, model: Model, renderer: StepRenderer, held_out: Sequence[Solution], trained_on: Sequence[Solution]
  ) -> tuple[StepEvaluation | None, list[float], str]:
    from ..evaluation.steps import evaluate_steps, score_steps
    from ..process import ProcessRewardModel

    scorer = ProcessRewardModel(model, renderer)
    evaluation = evaluate_steps(scorer, held_out) if held_out else None
    rows = [row["step_rewards"] for row in evaluation.rows] if evaluation else score_steps(scorer, trained_on)
    return evaluation, [value for row in rows for value in row if value is not None], "steps"


def render_solutions(
  solutions: Sequence[Solution],
  renderer: StepRenderer,
  *,
  last_step_only: bool = False,
  steps_per_solution: int | None = None,
  seed: int = 42,
  drop_refused: bool = False,
) -> Rows:
  """Up to their last labeled step; all that is not used is counted. Raises DataError when nothing is left."""
  from datasets import Dataset

  before = dict(renderer.counts)
  zeros = ("solutions_used", "rows", "steps", "steps_unlabeled", "labels_not_drawn", "labels_used", "correct_steps")
  counts = {"solutions": len(solutions), **dict.fromkeys(zeros, 0)}

  def drawn(number: int, places: list[int]) -> set[int]:
    if last_step_only:
      return set(places[-1:])
    if steps_per_solution and steps_per_solution < len(places):
      return set(random.Random(f"{seed}:{number}").sample(places, steps_per_solution))
    return set(places)

  def labeled(one: Solution) -> tuple:
    end = max(i for i, label in enumerate(one.labels, 1) if label is not None)
    return one.prompt, one.steps[:end], one.origin

  rows, kept, refused = [], [], []
  for number, (one, solution) in enumerate(rendered(solutions, labeled, renderer, refused)):
    counts["steps"] += len(one.steps)
    counts["steps_unlabeled"] += one.labels.count(None) + len(one.steps) - len(one.labels)
    if solution is None:
      continue
    at = zip(solution.positions[renderer.from_start :], one.labels, strict=False)
    labels = {place: label for place, label in at if label is not None}
    chosen = drawn(number, sorted(labels))
    counts["labels_not_drawn"] += len(labels) - len(chosen)
    counts["labels_used"] += len(chosen)
    counts["correct_steps"] += sum(labels[place] >= 0.5 for place in chosen)
    if chosen:
      kept.append(one)
      made = _rows_of(renderer.rows(solution), {place: labels[place] for place in chosen})
      start = {"start": solution.positions[0]} if renderer.from_start else {}
      rows += [row | start for row in made]
  if refused:
    settle_refused(refused, len(solutions), f"{len(refused)} solutions", drop_refused)
    counts["dropped_refused"] = len(refused)
  if not rows:
    told = f"no labeled step is left of {len(solutions)} solutions: at most {renderer.max_length} tokens are read"
    raise DataError(told, hint="raise --max_length, or choose --overlong truncate_prompt")
  done = {name: renderer.counts[name] - before.get(name, 0) for name in ("dropped", "truncated", "steps_dropped")}
  counts |= {"solutions_used": len(kept), "rows": len(rows), "solutions_dropped_over_length": done["dropped"]}
  counts |= {"prompts_truncated": done["truncated"], "steps_dropped_over_length": done["steps_dropped"]}
  return Rows(Dataset.from_list(rows), kept, counts, f"{counts['labels_used']} labels")


def _rows_of(rows: Iterable[tuple[list[int], list[int]]], labels: dict[int, float]) -> list[dict[str, list]]:
  own = ((ids, [place for place in positions if place in labels]) for ids, positions in rows)
  return [
    {"input_ids": ids[: places[-1] + 1], "positions": places, "labels": [labels[place] for place in places]}
    for ids, places in own
    if places
  ]


def show_labels(rows: Rows, tokenizer: Tokenizer, n: int) -> list[list[ShownLabel]]:
  from .results import ShownLabel

  shown = []
  for number, row in enumerate(rows.dataset.select(range(min(n, len(rows.dataset)))), 1):
    log(f"row {number}: {len(row['input_ids'])} tokens")
    texts = supervised_text(tokenizer, row["input_ids"], row["positions"])
    shown.append([])
    for (text, token), place, label in zip(texts, row["positions"], row["labels"], strict=True):
      log(f"  label {label:g} at token {place} {token!r} after {text!r}")
      shown[-1].append(ShownLabel(text, token, place, label))
  return shown
