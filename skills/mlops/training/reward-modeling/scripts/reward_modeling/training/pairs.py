"""Comparisons for training: one row is one prompt with all its completions and pairs (arXiv:2203.02155, section 3.5)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ..base_rendering import Faults
from ..cli import flag, fraction, non_negative_number
from ..data.records import Comparison, answers_of, comparisons, ranked_by_ratings
from ..errors import DataError, UsageError
from ..hf import Arguments, Model, Tokenizer
from ..kinds import OUTCOME
from ..rendering import OVERLONG, Conversation, Rendered, Renderer
from ..results import sorted_json
from ..settings import WinnerSettings, rating_range_flag
from ..terminal import listed, log, warn
from .data import CHUNK, Data, Learner, Rows, read_data, settle_refused
from .objectives import OBJECTIVES
from .settings import DataSettings

if TYPE_CHECKING:
  from ..evaluation.pairs import PairEvaluation
  from ..scoring import RewardModel


REFUSED = Rendered([])


@dataclass(frozen=True, kw_only=True)
class Pairs(Learner, WinnerSettings):
  """An outcome reward model, by a loss of comparisons."""

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
  rating_range: Sequence[float] | None = rating_range_flag()
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
  folds: int | None = flag(
    None,
    "for little data: cross-validate in K folds of the prompts, pool all held-out pairs or answers, then train on all",
    group="data",
    metavar="K",
  )
  model: ClassVar = OUTCOME
  called: ClassVar = "pairs"

  @property
  def loss(self) -> dict[str, Any]:
    of_fit = {name: getattr(self, name) for name in ("center_rewards_coefficient", "label_smoothing")}
    return {"objective": self.objective, **of_fit, "margin": self.use_margin}

  @staticmethod
  def config_class() -> type[Arguments]:
    from trl import RewardConfig

    return RewardConfig

  def own_fields(self) -> dict[str, Any]:
    return {"center_rewards_coefficient": self.center_rewards_coefficient or None, "max_length": None}

  def check_folds(self, settings: DataSettings) -> None:
    if self.folds is not None and (self.folds < 2 or settings.has_evaluation):
      what = f"--folds {self.folds} makes its own held-out {self.called}, from at least 2 folds"
      hint = "leave out --val_set_size, --eval_dataset_name and --dataset_test_split, or leave out --folds"
      raise UsageError(what, hint=hint)

  def read(self, settings: DataSettings) -> Data:
    self.check_folds(settings)
    of_ratings = ("attributes", "fit_attribute_weights", "rating_range")
    self.refuse(*of_ratings, *["label_smoothing"] * (self.objective == "plackett_luce"))
    prepare = partial(ranked_by_ratings, weights=self.attribute_weights)
    data, _ = read_data(settings, self.called, comparisons, prepare, winner_values=self.winner_values)
    data = data.audited(settings)
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

  def evaluated(self, scorer: RewardModel, rows: Sequence[Comparison]) -> PairEvaluation:
    from ..evaluation.pairs import evaluate_pairs

    return evaluate_pairs(scorer, rows)

  def renderer(self, tokenizer: Tokenizer, **common: object) -> Renderer:
    return Renderer(tokenizer, overlong=self.overlong, **common)

  @staticmethod
  def render(records: Sequence[Comparison], renderer: Renderer, drop: bool, *, held_out: bool = False) -> Rows:
    called = "held-out pair" if held_out else "pair"
    return render_comparisons(records, renderer, called=called, drop_refused=drop)

  def cut(self, counts: dict[str, int]) -> tuple[int, int, str]:
    """How many texts are cut, of how many that are learned, and what they are."""
    return counts["truncated_sides"], 2 * counts["pairs_used"], "sides"

  def found(self, rows: Rows, renderer: Renderer) -> dict[str, Any]:
    counts, limit = rows.counts, renderer.max_length
    log(f"rendered: {listed(counts)}; longest allowed {limit} tokens, {listed(renderer.counts)}")
    cut, used, name = self.cut(counts)
    if 10 * cut > used:
      how = f"--overlong {renderer.overlong}"
      warn(f"{cut} of {used} {name} are cut to {limit} tokens, by {how}: what is cut is not learned")
    return {}

  def fit(
    self, model: Model, renderer: Renderer, rows: Rows, config: Arguments, **run: object
  ) -> tuple[Model, dict[str, Any]]:
    from . import loop, outcome

    if config.disable_dropout:  # TRL leaves that of attention on
      loop.without_dropout(model)
    trainer, own = self._trainer()
    return loop.fit(
      trainer,
      model,
      renderer,
      rows,
      config,
      data_collator=outcome.PaddedCollator(renderer.tokenizer.pad_token_id),
      loss=self.loss | {"center_rewards_coefficient": config.center_rewards_coefficient},
      objective=self.objective,
      **own,
      shared_prefix=self.shared_prefix,
      **run,
    )

  def evaluate(
    self, model: Model, renderer: Renderer, held_out: Sequence[Comparison], trained_on: Sequence[Comparison]
  ) -> tuple[PairEvaluation | None, list[float], str]:
    """(of held-out records, the rewards of these or of those trained on, what they are rewards of)."""
    from ..scoring import RewardModel

    scorer = RewardModel(model, renderer, attributes=self.heads)
    evaluation = self.evaluated(scorer, held_out) if held_out else None
    return evaluation, (evaluation or self.evaluated(scorer, trained_on)).rewards, self.called

  def _trainer(self) -> tuple[type, dict[str, Any]]:
    """Its class, and arguments that are its own."""
    from .outcome import OutcomeTrainer

    return OutcomeTrainer, {"label_smoothing": self.label_smoothing}


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
    what = f"no {called} is left of {len(comparisons)}: {long} are longer than {most} tokens"
    raise DataError(what, hint="raise --max_length, or choose --overlong truncate_left, which cuts long answers too")
  counts["pairs_used"] = len(kept)
  return Rows(Dataset.from_list(rows), kept, counts, f"{len(kept)} pairs")


def _rendered(renderer: Renderer) -> int:
  return renderer.counts["rendered"] + renderer.counts["refused"]


def _render_groups(
  groups: list[list[Comparison]], renderer: Renderer, counts: dict[str, int], refused: Faults
) -> Iterator[tuple[dict[str, list], list[Comparison]]]:
  """The row of each group and its pairs; equal completions of a group are one sequence."""
  asked = [
    {
      sorted_json(side): Conversation(pair.prompt, side, pair.tools, pair.origin)
      for pair in own
      for side in answers_of(pair)
    }
    for own in groups
  ]
  faults: Faults = []
  rendered = renderer.render_all([one for own in asked for one in own.values()], faults)
  for place, _ in faults:
    rendered[place] = REFUSED
  refused += faults
  done = iter(rendered)
  for own, group in zip(asked, groups, strict=True):
    texts = {key: next(done) for key in own}
    row: dict[str, list] = {"chosen": [], "rejected": [], "margin": [], "weight": []}
    places: dict[str, int] = {}  # of the completions in this row
    kept = []
    for pair in group:
      keys = [*map(sorted_json, answers_of(pair))]
      chosen, rejected = (texts[key] for key in keys)
      if reason := _why_not(chosen, rejected):
        counts[reason] = counts.get(reason, 0) + 1
        continue
      counts["truncated_sides"] += bool(chosen.cut) + bool(rejected.cut)
      for name, key in zip(("chosen", "rejected"), keys, strict=True):
        row[name].append(places.setdefault(key, len(places)))
      row["margin"].append(pair.margin or 0.0)
      row["weight"].append(pair.weight)
      kept.append(pair)
    if kept:
      yield {"sequences": [texts[key].ids for key in places], **row}, kept


def _why_not(chosen: Rendered | None, rejected: Rendered | None) -> str | None:
  if REFUSED in (chosen, rejected):
    return "dropped_refused"
  if chosen is None or rejected is None:
    return "dropped_over_length"
  return "identical_after_truncation" if chosen.ids == rejected.ids else None
