"""The reward of one model, of several with weights, or of an ensemble: what score.py prints, whatever the policy."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from statistics import fmean, pstdev
from typing import Self

from . import checkpoints
from .base_rendering import COUNTED
from .data.records import Message
from .errors import ModelError, RunError, UsageError, UserError
from .kinds import OUTCOME, PROCESS, Kind
from .process import ProcessRewardModel
from .rendering import Conversation
from .scoring import Progress, RewardModel
from .terminal import log, warn

OfSteps = Callable[[ProcessRewardModel, float, Sequence[Conversation]], list[float]]
"""(a process reward model, its weight, conversations) -> their rewards."""


@dataclass(frozen=True)
class Combination:
  """combine: (one completion's reward by each model, weights) -> reward."""

  combine: Callable[[Sequence[float], Sequence[float]], float]
  description: str
  takes_weights: bool = False


def _sum(rewards: Sequence[float], weights: Sequence[float]) -> float:
  return sum(weight * reward for weight, reward in zip(weights, rewards, strict=True))


COMBINATIONS: dict[str, Combination] = {
  "sum": Combination(_sum, "weighted sum: models of different goals", takes_weights=True),
  "mean": Combination(
    lambda rewards, weights: _sum(rewards, weights) / sum(weights),
    "weighted mean: an ensemble of one goal",
    takes_weights=True,
  ),
  "min": Combination(
    lambda rewards, _: min(rewards), "the most pessimistic of an ensemble (worst case, arXiv:2310.02743)"
  ),
  "mean_minus_std": Combination(  # divided by the number of models, so one alone loses nothing
    lambda rewards, _: fmean(rewards) - pstdev(rewards),
    "mean less the standard deviation: disagreement of an ensemble costs (arXiv:2310.02743 takes the variance)",
  ),
}

NORMALIZE = "--normalize_rewards (of score.py: --normalize)"
SPREAD_APART = 4.0
"""Times as far as another's that one model's rewards may spread before a warning."""
SHIFTED = 0.5
"""Standard deviations that the zeros of an ensemble's members may lie apart before a warning."""


class Rewards:
  """Made by `from_pretrained`. parts, spreads: mean and standard deviation by model in the last call, before weights."""

  def __init__(
    self,
    models: dict[str, RewardModel | ProcessRewardModel],
    *,
    weights: Sequence[float] | None = None,
    combine: str = "sum",
    normalize: bool = False,
    of_steps: OfSteps | None = None,
  ):
    self.models, self.combine, self.normalize, self.of_steps = models, combine, normalize, of_steps
    self.weights = check_weights(weights, len(models), combine)
    self.parts: dict[str, float] = {}
    self.spreads: dict[str, float] = {}
    self._compared = len(models) == 1
    if normalize:
      for name, model in models.items():
        try:
          model.normalize([])
        except UserError as error:
          hint = f"leave out {NORMALIZE}, or train the model with train.py"
          raise ModelError(f"reward model {name}: {error.message}", hint=hint) from error
    elif combine != "sum":
      _warn_of_shifted_zeros(models)

  @property
  def names(self) -> list[str]:
    return list(self.models)

  @classmethod
  def from_pretrained(
    cls,
    paths: str | Sequence[str],
    *,
    weights: Sequence[float] | None = None,
    combine: str = "sum",
    normalize: bool = False,
    of_steps: OfSteps | None = None,
    reference_model_name_or_path: str | None = None,
    **loading: object,
  ) -> Self:
    """What is longer than `max_length` loses its start, and is counted. of_steps: for process reward models.

    reference_model_name_or_path: of those whose reward is a log-ratio.
    """
    paths = [str(path) for path in ([paths] if isinstance(paths, str | PurePath) else paths)]
    check_weights(weights, len(paths), combine)
    names = unique_names(paths)
    kinds = [PROCESS if of_steps and checkpoints.kind_of(path) is PROCESS else OUTCOME for path in paths]
    references = check_models(paths, kinds, reference_model_name_or_path)  # before the weights of the first are read
    loading = {key: value for key, value in loading.items() if value is not None}
    models = {}
    for name, path, kind, reference in zip(names, paths, kinds, references, strict=True):
      how = loading | ({"reference_model_name_or_path": reference} if reference else {})
      scorer = RewardModel if kind is OUTCOME else ProcessRewardModel
      models[name] = scorer.from_pretrained(path, **{"overlong": kind.renders.advised} | how)
      for note in models[name].described():
        log(f"reward model {name}: {note}")
    return cls(models, weights=weights, combine=combine, normalize=normalize, of_steps=of_steps)

  def __call__(
    self,
    prompts: Sequence[list[Message]],
    completions: Sequence[list[Message]],
    tools: Sequence[list[dict] | None] | None = None,
  ) -> list[float]:
    asked = zip(prompts, completions, tools or [None] * len(prompts), strict=True)
    known = self._lost()
    rewards = self.score_conversations([Conversation(*one) for one in asked])
    if known != self._lost():  # the first of a kind is told at once: a run takes hours
      self.warn_of_losses()
    return rewards

  def score_conversations(self, conversations: Sequence[Conversation], progress: Progress = None) -> list[float]:
    last = self.names[-1]
    by_model = {name: self._score(name, conversations, progress if name == last else None) for name in self.models}
    if conversations:
      self.parts = {name: fmean(scores) for name, scores in by_model.items()}
      self.spreads = {name: pstdev(scores) for name, scores in by_model.items()}
    if not self._compared and len(conversations) > 1:
      self._compared = True
      _warn_of_spreads(self.spreads)
    combine = COMBINATIONS[self.combine].combine
    return [combine(rewards, self.weights) for rewards in zip(*by_model.values(), strict=True)]

  @property
  def truncated(self) -> int:
    return sum(model.truncated for model in self.models.values())

  def warn_of_losses(self) -> None:
    for name, model in self.models.items():
      model.renderer.warn_of_losses(called=f"reward model {name}: " if len(self.models) > 1 else "")

  def _lost(self) -> list[set[str]]:
    return [{kind for kind in COUNTED if model.renderer.counts[kind]} for model in self.models.values()]

  def _score(self, name: str, conversations: Sequence[Conversation], progress: Progress) -> list[float]:
    model = self.models[name]
    model.model.eval()  # a trainer may have been handed the module and put it into training mode
    try:
      if isinstance(model, ProcessRewardModel):
        return self.of_steps(model, self.weights[self.names.index(name)], conversations)
      scores = model.score_conversations(conversations, progress)
    except RunError as error:
      raise RunError(f"reward model {name}: {error.message}", where=error.where, hint=error.hint) from error
    if None in scores:  # only where the caller chose such a policy: a reward of a missing completion would be made up
      raise RunError(
        f"reward model {name} left out completion {scores.index(None) + 1}: it cannot be rendered, or is longer "
        f"than {model.renderer.max_length} tokens",
        hint="choose truncate_left, raise the reward model's maximum length or shorten the responses",
      )
    return model.normalize(scores) if self.normalize else scores


def check_models(paths: Sequence[str], kinds: Sequence[Kind], reference: str | None) -> list[str | None]:
  """The reference of each. Raises ModelError for what is no such reward model, UsageError for a reference that none takes."""
  takes = [checkpoints.is_log_ratio(path) for path in paths]
  if reference and not any(takes):
    what = f"--reference_model_name_or_path is of log-ratios: {', '.join(paths) or 'no model'} has a reward of its own"
    raise UsageError(what, hint="leave it out")
  for path, kind, one in zip(paths, kinds, takes, strict=True):
    if not (reference and one and checkpoints.kind_of(path) is None):
      checkpoints.check(path, kind)
  return [reference if one else None for one in takes]


def check_weights(weights: Sequence[float] | None, models: int, combine: str) -> list[float]:
  if combine not in COMBINATIONS:
    raise UsageError(f"no combination {combine!r}", hint=f"choose one of {', '.join(COMBINATIONS)}")
  if weights is None:
    return [1.0] * models
  if len(weights) != models:
    raise UsageError(f"{len(weights)} reward weights for {models} reward models", hint="give one weight a model")
  if not COMBINATIONS[combine].takes_weights:
    what = f"--reward_combine {combine} takes no weights: it treats its models alike"
    raise UsageError(what, hint="leave the weights out, or combine by sum or mean")
  if not all(math.isfinite(weight) for weight in weights):
    raise UsageError(f"the reward weights {list(weights)} are not all finite")
  if combine == "mean" and sum(weights) <= 0:
    raise UsageError(f"the weights of a mean add up to more than 0, not {sum(weights):g}")
  return [float(weight) for weight in weights]


def unique_names(paths: Sequence[str], what: str = "reward model") -> list[str]:
  """The shortest ends that tell the paths apart: runs/a/rm, runs/b/rm -> a/rm, b/rm."""
  parts = [PurePath(path).parts for path in paths]
  twice = [path for i, path in enumerate(paths) if parts[i] in parts[:i]]
  if twice:
    raise UsageError(f"the {what} {twice[0]} is given twice", hint="give it once, with a larger weight")
  depth = 1
  while len({part[-depth:] for part in parts}) < len(parts):
    depth += 1
  return ["/".join(part[-depth:]) for part in parts]


def _warn_of_spreads(spreads: dict[str, float]) -> None:
  """The model whose rewards spread furthest decides, whatever its weight."""
  if max(spreads.values()) > SPREAD_APART * min(spreads.values()):
    told = ", ".join(f"{name} {spread:.2g}" for name, spread in spreads.items())
    advice = f"the widest decides. Normalize ({NORMALIZE}) or weigh them"
    warn(f"the first rewards have standard deviations of {told}: {advice}")


def _warn_of_shifted_zeros(models: dict[str, RewardModel]) -> None:
  """A reward's zero means nothing: if members are shifted, `min` is one member's reward."""
  known = [(model.card or {}).get("reward") or {} for model in models.values()]
  known = [reward for reward in known if reward.get("std")]
  means = [reward["mean"] for reward in known]
  if len(known) > 1 and max(means) - min(means) > SHIFTED * min(reward["std"] for reward in known):
    apart = f"the saved means of the ensemble's rewards lie {max(means) - min(means):.2f} apart"
    warn(f"{apart}: their zeros differ, so they should be normalized before they are combined: {NORMALIZE}")
