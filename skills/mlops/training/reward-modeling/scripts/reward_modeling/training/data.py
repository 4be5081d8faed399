"""What a model learns from: records to train and to evaluate on, the rows of token ids that they become, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from .. import checkpoints
from ..attributes import Attributes
from ..base_rendering import BaseRenderer, Faults, refused_together
from ..cli import flag
from ..data.audit import Finding, audit, unreadable, without_errors
from ..data.reading import check_verbatim, load
from ..data.records import Record, Records, split_by_prompt
from ..errors import DataError, UsageError
from ..hf import Arguments, Dataset, Model
from ..kinds import Kind
from ..settings import SHARED_PREFIX_HELP
from ..terminal import listed, warn
from .settings import DataSettings, Settings

CHUNK = 1024
"""Records whose texts are in memory at a time."""
FEW = 20
MANY_DROPPED = 0.05


@dataclass(frozen=True)
class Data:
  """What was read. called: its records, in the plural. left_out: how many of them had errors."""

  called: str
  train: list[Record]
  held_out: list[Record]
  format: str
  set_aside: dict[str, int]
  findings: list[Finding]
  left_out: int = 0

  def split(self, settings: DataSettings) -> Data:
    """Raises DataError where a side is empty."""
    made = self
    if settings.val_set_size and not self.held_out:
      train, held_out = split_by_prompt(self.train, settings.val_set_size, settings.seed)
      made = replace(self, train=train, held_out=held_out)
      if len(held_out) < FEW:
        share = f"--val_set_size {settings.val_set_size:g} holds out {len(held_out)} {self.called}"
        warn(f"{share}: an accuracy on fewer than {FEW} says little; hold out more, or give --eval_dataset_name")
    return made.checked(settings)

  def audited(self, settings: DataSettings, **more: str) -> Data:
    """Without the records that --audit leaves out. Raises DataError for errors under --audit stop."""
    found = audit(self.train, eval_records=self.held_out or None, rendered=settings.rendered, **more)
    findings = [*self.findings, *found]
    kept = without_errors(self.train, findings, settings.audit, self.called)
    return replace(self, train=kept, findings=findings, left_out=len(self.train) - len(kept))

  def checked(self, settings: DataSettings) -> Data:
    if not self.train or (settings.val_set_size and not self.held_out):
      aside = f" ({listed(self.set_aside)} set aside)" if self.set_aside else ""
      what = f"{len(self.train)} {self.called} to train on and {len(self.held_out)} to evaluate on are too few{aside}"
      raise DataError(what, hint="change --val_set_size or add data")
    return self


def read_data(
  settings: DataSettings,
  called: str,
  take: Callable[[Records], list[Record]],
  prepare: Callable[[Records], Records] = lambda records: records,
  **reading: object,
) -> tuple[Data, Records]:
  """(the data that the settings name, all that was read to train on). take: what of it is wanted, after `prepare`."""
  reading |= settings.reading
  split = settings.dataset_train_split
  records = prepare(load(settings.dataset_name, split=split, leave_out_unreadable=settings.drop_refused, **reading))
  if settings.rendered:
    check_verbatim(records)
  train, held_out = take(records), []
  if settings.names_evaluation:
    source, split = settings.eval_dataset_name or settings.dataset_name, settings.dataset_test_split or "test"
    held_out = take(prepare(load(source, split=split, **reading)))
    if not settings.eval_dataset_name and held_out == train:
      hint = "hold some out with --val_set_size 0.1, or name another file with --eval_dataset_name"
      raise UsageError(f"{source} has no split {split}: these are the rows to train on", hint=hint)
  return Data(called, train, held_out, records.format, records.set_aside, unreadable(records)), records


@dataclass(frozen=True)
class Rows:
  dataset: Dataset
  records: list[Record]
  counts: dict[str, int]
  size: str


def rendered(
  records: Sequence[Record], asked: Callable[[Record], tuple], renderer: BaseRenderer, refused: Faults
) -> Iterator[tuple[Record, Any]]:
  """Each with what the renderer makes of it."""
  for start in range(0, len(records), CHUNK):
    part = records[start : start + CHUNK]
    yield from zip(part, renderer.render_all([*map(asked, part)], refused), strict=True)


def settle_refused(refused: Faults, total: int, lost: str, drop: bool) -> None:
  """Of conversations that could not be rendered: one DataError, or with `drop` a warning that `lost` is gone."""
  error = refused_together(refused, total)
  if not drop:
    hint = f"leave such rows out with --audit drop, or fix them: {error.hint}"
    raise DataError(error.message, where=error.where, hint=hint)
  warn(f"left out {lost}: {error.message}")


def not_learned(counts: dict[str, int], called: str, renderer: BaseRenderer) -> list[str]:
  """Warns of what is over the longest length. Returns these sentences where it is much."""
  many = []
  for key, lost in counts.items():
    name, counted, _ = key.partition("dropped_over_length")
    if counted and lost:
      total = counts[name := name.rstrip("_") or called]
      said = f"{lost} of {total} {name} ({lost / total:.1%}) are not learned from: {renderer.over_length()}"
      warn(said)
      many += [said] * (lost > MANY_DROPPED * total)
  return many


@dataclass(frozen=True, kw_only=True)
class Learner:
  """A kind of model and its loss. `runs.train` calls, in this order: config_class, own_fields (of the trainer's configuration), read,
  prepared, load, renderer, audited (by what the renderer knows), render, found, fit, weighed, evaluate, save."""

  group: ClassVar = "loss"
  shared_prefix: bool | None = flag(None, SHARED_PREFIX_HELP, group="run")
  heads: Attributes = ()
  folds: ClassVar[int | None] = None
  model: ClassVar[Kind]

  def config(
    self, settings: Settings, fields: Mapping[str, object], parameters: int, *, has_eval: bool
  ) -> tuple[Arguments, str]:
    from .configuration import trainer_config

    return trainer_config(self.config_class(), settings, fields, parameters, has_eval=has_eval, **self.own_fields())

  def own_fields(self) -> dict[str, Any]:
    return {}

  def prepared(self, data: Data, path: str) -> Learner:
    """With the heads that the data asks for. path: of the model to start from."""
    return self

  def load(self, settings: Settings) -> checkpoints.Loaded:
    how = {"chat_template_path": settings.chat_template_path, "seed": settings.seed, "in_4bit": settings.load_in_4bit}
    return checkpoints.load_for_training(settings.model_name_or_path, **how, kind=self.model, attributes=self.heads)

  def audited(self, data: Data, renderer: BaseRenderer, settings: DataSettings) -> Data:
    return data

  def weighed(self, model: Model, renderer: BaseRenderer) -> Attributes:
    """The heads after training."""
    return self.heads

  def save(self, model: Model, renderer: BaseRenderer, output_dir: Path, **card: object) -> dict[str, Any]:
    return checkpoints.save(model, renderer, output_dir, **card, attributes=self.heads)
