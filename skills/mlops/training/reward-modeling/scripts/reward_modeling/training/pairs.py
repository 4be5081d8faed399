"""Comparisons for training: one row is one prompt with all its completions and pairs (arXiv:2203.02155, section 3.5)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ..attributes import Attributes
from ..cli import flag, fraction, non_negative_number
from ..data.audit import audit
from ..data.records import Comparison, comparisons, ranked_by_ratings
from ..errors import DataError, UsageError
from ..kinds import OUTCOME
from ..rendering import OVERLONG, Conversation, Renderer
from ..settings import SHARED_PREFIX_HELP, WinnerSettings
from ..terminal import listed, log, warn
from .data import CHUNK, Data, Rows, read_data, settle_refused
from .objectives import OBJECTIVES
from .settings import DataSettings

if TYPE_CHECKING:
  import torch
  from transformers import PreTrainedTokenizerBase
  from trl import RewardConfig


@dataclass(frozen=True, kw_only=True)
class Pairs(WinnerSettings):
  """An outcome reward model, by a loss of comparisons, for `runs.train`."""

  group: ClassVar = "loss"
  objective: str = flag(
    "bradley_terry", "what is learned from pairs and rankings, or from ratings", choices=tuple(OBJECTIVES)
  )
  attributes: Sequence[str] | None = flag(None, "ratings to learn, a head for each (all)", metavar="NAME")
  attribute_weights: Mapping[str, float] | None = flag(
    None,
    "the reward is this sum of the attributes (their mean); with an objective of pairs: by which answers are compared",
  )
  fit_attribute_weights: Sequence[str] | None = flag(
    None, "pairs on which the weights are fitted after training, by Bradley-Terry", metavar="DATA"
  )
  center_rewards_coefficient: float = flag(
    0.01, "pull the mean reward to zero; 0 switches it off", type=non_negative_number, metavar="C"
  )
  label_smoothing: float = flag(0.0, "share of labels believed wrong", type=fraction, metavar="E")
  use_margin: bool = flag(True, "use the margin or score columns of the data, where there are any")
  overlong: str = flag(
    "truncate_prompt",
    "for longer ones; always counted; truncate_prompt: cut the start of the prompt, keep the answer",
    group="model",
    choices=OVERLONG,
  )
  shared_prefix: bool | None = flag(None, SHARED_PREFIX_HELP, group="run")
  folds: int | None = flag(
    None,
    "for few pairs: cross-validate in K folds of the prompts, pool all held-out pairs, then train on all",
    group="data",
    metavar="K",
  )
  heads: Attributes = ()
  model: ClassVar = OUTCOME
  task_type: ClassVar = "SEQ_CLS"

  @property
  def loss(self) -> dict[str, Any]:
    of_fit = {name: getattr(self, name) for name in ("center_rewards_coefficient", "label_smoothing")}
    return {"objective": self.objective, **of_fit, "margin": self.use_margin}

  @staticmethod
  def config_class() -> type[RewardConfig]:
    from trl import RewardConfig

    return RewardConfig

  def own_fields(self) -> dict[str, Any]:
    return {"center_rewards_coefficient": self.center_rewards_coefficient or None, "max_length": None}

  def read(self, settings: DataSettings) -> Data:
    if self.folds is not None and (self.folds < 2 or settings.has_evaluation):
      raise UsageError(
        f"--folds {self.folds} makes its own held-out pairs, from at least 2 folds",
        hint="leave out --val_set_size, --eval_dataset_name and --dataset_test_split, or leave out --folds",
      )
    self.refuse("attributes", "fit_attribute_weights", *["label_smoothing"] * (self.objective == "plackett_luce"))
    prepare = partial(ranked_by_ratings, weights=self.attribute_weights)
    data, _ = read_data(settings, "pairs", comparisons, prepare, winner_values=self.winner_values)
    findings = audit(data.train, eval_records=data.held_out or None, rendered=settings.rendered)
    data = data.audited(findings, settings)
    if not self.use_margin:
      data = replace(data, train=[replace(pair, margin=None) for pair in data.train])
    for pair in [*data.train, *data.held_out] if self.objective == "scaled_bradley_terry" else ():
      if not (pair.margin or 0) > 0:
        what, hint = "the pair has no margin above 0 to scale by", "give `margin`, or choose bradley_terry"
        raise DataError(what, where=pair.origin, hint=hint)
    return data.split(settings)  # the audit looks at held-out pairs too

  def refuse(self, *names: str, beside: str | None = None) -> None:
    other = beside or f"--objective {self.objective}"
    for name in names:
      if getattr(self, name):
        raise UsageError(f"--{name} does nothing with {other}", hint="leave one of them out")

  def prepared(self, data: Data, path: str) -> Pairs:
    """With the heads that the data asks for. path: of the model to start from."""
    return self

  def weighed(self, model: torch.nn.Module, renderer: Renderer) -> Attributes:
    """The heads after training."""
    return self.heads

  def renderer(self, tokenizer: PreTrainedTokenizerBase, **common: Any) -> Renderer:
    return Renderer(tokenizer, overlong=self.overlong, **common)

  @staticmethod
  def audited(data: Data, renderer: Renderer, settings: DataSettings) -> Data:
    return data

  @staticmethod
  def render(records: Sequence[Comparison], renderer: Renderer, drop: bool, *, held_out: bool = False) -> Rows:
    called = "held-out pair" if held_out else "pair"
    return render_comparisons(records, renderer, called=called, drop_refused=drop)

  def found(self, rows: Rows, renderer: Renderer) -> dict[str, Any]:
    counts, limit, how = rows.counts, renderer.max_length, f"--overlong {renderer.overlong}"
    log(f"rendered: {listed(counts)}; longest allowed {limit} tokens, {listed(renderer.counts)}")
    if dropped := counts["dropped_over_length"]:
      warn(f"{dropped} of {counts['pairs']} pairs are left out: over {limit} tokens, with {how}")
    sides, cut = 2 * counts["pairs_used"], counts["truncated_sides"]
    if 10 * cut > sides:
      warn(f"{cut} of {sides} sides are cut to {limit} tokens, by {how}: what is cut is not learned")
    return {}

  def fit(
    self, model: torch.nn.Module, renderer: Renderer, rows: Rows, config: RewardConfig, **run: Any
  ) -> tuple[torch.nn.Module, dict[str, Any]]:
    from . import loop, outcome

    trainer, own = self._trainer()
    return loop.fit(
      trainer,
      model,
      renderer,
      rows,
      config,
      data_collator=outcome.PaddedCollator(renderer.tokenizer.pad_token_id),
      label_smoothing=self.label_smoothing,
      loss=self.loss | {"center_rewards_coefficient": config.center_rewards_coefficient},
      objective=self.objective,
      **own,
      shared_prefix=self.shared_prefix,
      **run,
    )

  def _trainer(self) -> tuple[type, dict[str, Any]]:
    """Its class, and arguments that are its own."""
    from .outcome import OutcomeTrainer

    return OutcomeTrainer, {}


def render_comparisons(
  comparisons: Sequence[Comparison], renderer: Renderer, *, called: str = "pair", drop_refused: bool = False
) -> Rows:
  """One row of token ids for each prompt of a ranking and for each other pair.

  Left out, and counted, are pairs with a side that is too long, sides made the same by truncation, and with
  `drop_refused` sides that cannot be rendered. Raises DataError for those otherwise, and when no pair is left.
  """
  from datasets import Dataset

  groups: dict[Any, list[Comparison]] = defaultdict(list)
  for place, pair in enumerate(comparisons):
    groups[(pair.origin, id(pair.prompt)) if pair.origin else place].append(pair)
  zeros = ("dropped_over_length", "identical_after_truncation", "truncated_sides")
  counts = {"pairs": len(comparisons), **dict.fromkeys(zeros, 0)}
  rows, kept, refused, before = [], [], [], _rendered(renderer)
  ordered = list(groups.values())
  for start in range(0, len(ordered), CHUNK):
    for row, pairs in _render_groups(ordered[start : start + CHUNK], renderer, counts, refused):
      rows.append(row)
      kept += pairs
  if refused:
    settle_refused(refused, _rendered(renderer) - before, f"{counts['dropped_refused']} {called}s", drop_refused)
  if not rows:
    long, most = counts["dropped_over_length"], renderer.max_length
    raise DataError(
      f"no {called} is left of {len(comparisons)}: {long} are longer than {most} tokens",
      hint="raise --max_length, or choose --overlong truncate_left, which cuts long answers too",
    )
  counts["pairs_used"] = len(kept)
  return Rows(Dataset.from_list(rows), kept, counts, f"{len(kept)} pairs")


def _rendered(renderer: Renderer) -> int:
  return renderer.counts["rendered"] + renderer.counts["refused"]


def _render_groups(
  groups: list[list[Comparison]], renderer: Renderer, counts: dict[str, int], refused: list[tuple[int, DataError]]
) -> Iterator[tuple[dict[str, list], list[Comparison]]]:
  conversations = {
    _key(g, side): Conversation(pair.prompt, side, pair.tools, pair.origin)
    for g, group in enumerate(groups)
    for pair in group
    for side in (pair.chosen, pair.rejected)
  }
  where_is = {key: place for place, key in enumerate(conversations)}
  faults: list[tuple[int, DataError]] = []
  rendered = renderer.render_all(list(conversations.values()), faults)
  lost = {place for place, _ in faults}
  refused += faults
  for g, group in enumerate(groups):
    row: dict[str, list] = {"chosen": [], "rejected": [], "margin": [], "weight": []}
    places: dict[int, int] = {}  # of a completion among all -> in this row
    kept = []
    for pair in group:
      sides = [where_is[_key(g, side)] for side in (pair.chosen, pair.rejected)]
      chosen, rejected = (rendered[side] for side in sides)
      reason = None
      if not lost.isdisjoint(sides):
        reason = "dropped_refused"
      elif chosen is None or rejected is None:
        reason = "dropped_over_length"
      elif chosen.ids == rejected.ids:
        reason = "identical_after_truncation"
      if reason:
        counts[reason] = counts.get(reason, 0) + 1
        continue
      counts["truncated_sides"] += bool(chosen.cut) + bool(rejected.cut)
      for name, side in zip(("chosen", "rejected"), sides, strict=True):
        row[name].append(places.setdefault(side, len(places)))
      row["margin"].append(pair.margin or 0.0)
      row["weight"].append(pair.weight)
      kept.append(pair)
    if kept:
      yield {"sequences": [rendered[side].ids for side in places], **row}, kept


def _key(group: int, completion: list[dict]) -> tuple[int, str]:
  return group, json.dumps(completion, sort_keys=True, default=str)
