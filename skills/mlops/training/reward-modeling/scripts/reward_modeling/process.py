"""Rewards for the steps of solutions, and one for each solution made of them.

A step's is softmax(logits)[1], fp32, at the last token of the separator after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from . import checkpoints, readers
from .aggregation import AGGREGATIONS, DEFAULT_AGGREGATE, StepScores, aggregated, probability, step_rewards
from .completeness import spoken_fields
from .errors import DataError, ModelError, UsageError
from .hf import Model
from .kinds import PROCESS
from .packing import TokenRow
from .rendering import Conversation
from .scoring import Asked, Completion, Progress, RewardModel, Scorer, Scores, Text, as_messages
from .step_rendering import STEP_SEPARATOR, RenderedSolution, StepRenderer, Steps, split_steps
from .terminal import log

if TYPE_CHECKING:
  from .settings import ScoringSettings


def from_settings(settings: ScoringSettings, path: str | None = None) -> RewardModel | ProcessRewardModel:
  path = path or settings.model_name_or_path
  kind = ProcessRewardModel if checkpoints.kind_of(path) is PROCESS else RewardModel
  if (family := readers.recognize_family(path)) and family.compares:
    from .pairwise import PairwiseModel  # here, since some loaders leave it out: main_guard says so

    kind = PairwiseModel
  own = {name: value for name in ("aggregate", "step_separator") if (value := getattr(settings, name)) is not None}
  if own and kind is not ProcessRewardModel:
    what = f"--{next(iter(own))} is for process reward models, which score steps"
    raise UsageError(what, hint="leave it out, or give a model that train_process.py made")
  model = kind.from_pretrained(path, **settings.loading, **own)
  for note in model.described():
    log(note)
  return model


class ProcessRewardModel(Scorer):
  """Made by `from_pretrained`, with the verbs of `RewardModel`.

  step_separator: where texts are split, by default at the model's separator if that is whitespace, else at line breaks;
  without a card it is the model's too.
  """

  kind = PROCESS

  def __init__(
    self,
    model: Model,
    renderer: StepRenderer,
    *,
    aggregate: str | None = None,
    step_separator: str | None = None,
    **run: object,
  ):
    super().__init__(model, renderer, **run)
    family = getattr(renderer, "family", None)  # of a public model
    self.value = family.value if family else probability
    self.aggregate = aggregate or (family and family.aggregate) or DEFAULT_AGGREGATE
    if self.aggregate not in AGGREGATIONS:
      raise ValueError(f"aggregate is one of {tuple(AGGREGATIONS)}, not {aggregate!r}")
    if self.aggregate == "prod" and self.value is not probability:
      raise UsageError("--aggregate prod is of probabilities, which the steps of this model do not get")
    self.split_at = step_separator or (renderer.split_at if renderer else STEP_SEPARATOR)

  @property
  def saved(self) -> dict[str, Any]:
    """Of the training run: the `threshold` under which a step is flagged as wrong, the `auroc_low` of its evaluation."""
    return (self.card or {}).get("reward") or getattr(getattr(self.renderer, "family", None), "own", None) or {}

  @property
  def saved_threshold(self) -> float | None:
    return self.saved.get("threshold")

  def check_threshold(self, threshold: float | None) -> None:
    low, high = self.value(-math.inf), self.value(math.inf)
    if threshold is not None and not low <= threshold <= high:
      raise UsageError(f"--threshold {threshold:g}: step scores of this model lie between {low:g} and {high:g}")

  def score_steps(self, prompts: Sequence[Text], solutions: Sequence[Completion]) -> list:
    """The probability that each step is correct; None for steps that did not fit.

    solutions: [n], each a text or list of steps (-> a list of floats), or a list of these (-> a list of such lists).
    """

    def score(asked: list[Asked]) -> list[list[float | None]]:
      solutions = self._solutions(asked)
      scored = zip(solutions, self.score_solutions(solutions), strict=True)
      return [step_rewards(solution.steps, scores) for solution, scores in scored]

    return self._shaped(prompts, solutions, None, score)

  def reward(self, scores: StepScores | None) -> float | None:
    return None if scores is None else aggregated(self.aggregate, scores.logits, self.value)

  def split(self, solution: str | Sequence[str]) -> list[str]:
    return split_steps(solution, self.split_at) if isinstance(solution, str) else list(solution)

  def score_conversations(self, conversations: Sequence[Conversation], progress: Progress = None) -> Scores:
    return [self.reward(scores) for _, scores in self.score_in_steps(conversations, progress)]

  def score_in_steps(
    self, conversations: Sequence[Conversation], progress: Progress = None
  ) -> list[tuple[list[str], StepScores | None]]:
    """(steps, their scores) of each conversation; None for what was left out and for an empty completion."""
    inputs = self._inputs(conversations)
    empty = inputs.count(None)
    self.renderer.counts["without_steps"] += empty
    scored = iter(self.score_solutions([one for one in inputs if one], progress))
    found = [(one.steps, next(scored)) if one else ([], None) for one in inputs]
    if progress and empty:
      progress(empty)
    return found

  def score_solutions(self, solutions: Sequence[Steps], progress: Progress = None) -> list[StepScores | None]:
    scored = self._scored(solutions, progress)
    return [found and StepScores(found[1], found[0], self.value) for found in scored]

  def _inputs(self, conversations: Sequence[Conversation]) -> list[Steps | None]:
    split = [Steps(one.prompt, steps_in(one, self.split_at), one.origin) for one in conversations]
    return [solution if solution.steps else None for solution in split]

  def _solutions(self, asked: Sequence[Asked]) -> list[Steps]:
    for _, _, tools in asked:
      _check_no_tools(tools, None)
    return [Steps(as_messages(prompt, "user"), self.split(one)) for prompt, one, _ in asked]

  def _rewards(self, asked: Sequence[Asked]) -> Scores:
    return [self.reward(scores) for scores in self.score_solutions(self._solutions(asked))]

  def _is_several(self, completion: Completion | Sequence[Completion]) -> bool:
    return not isinstance(completion, str) and bool(completion) and not isinstance(completion[0], str)

  def score_rows(
    self, rows: Sequence[TokenRow], progress: Callable[[list[int]], None] | None = None
  ) -> list[list[float]]:
    found = super().score_rows(rows, progress)
    return [[own - start for own in rest] for start, *rest in found] if self.renderer.from_start else found

  def _rows(self, rendered: RenderedSolution) -> list[TokenRow]:
    return self.renderer.rows(rendered)

  def described(self) -> list[str]:
    return [*super().described(), f"reward of a solution: {self.aggregate} of its steps"]

  def way(self) -> str:
    if self.renderer.scored_at == "prefix":
      return "one row for each step, since an encoder would otherwise see the steps that follow"
    return f"all steps of a solution in one pass, {super().way()}"


def steps_in(conversation: Conversation, separator: str) -> list[str]:
  """Those of its one answer; [] of an empty one. Raises DataError for an answer with more than a text of steps."""
  _, completion, tools, origin = conversation
  _check_no_tools(tools, origin)
  if len(completion) != 1:
    raise DataError(f"the completion has {len(completion)} messages, not one text of steps", where=origin)
  if unread := spoken_fields(completion[0]):
    what = f"a process reward model reads steps, not `{'` and `'.join(unread)}`"
    raise DataError(what, where=origin, hint="move them into the steps, or drop these rows")
  given = completion[0].get("steps")
  return list(given) if given else split_steps(completion[0].get("content") or "", separator)


def _check_no_tools(tools: list[dict] | None, origin: object) -> None:
  if tools:
    what = "a process reward model reads no `tools`"
    raise ModelError(what, where=origin, hint="drop them: --columns tools=")
