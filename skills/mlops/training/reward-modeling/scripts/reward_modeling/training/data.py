"""Data of a training run: records to train and to evaluate on, and the rows of token ids that they become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..base_rendering import refused_together
from ..data.audit import Finding, unreadable, without_errors
from ..data.reading import check_verbatim, load
from ..data.records import Record, Records, split_by_prompt
from ..errors import DataError
from ..terminal import listed, warn
from .settings import DataSettings

if TYPE_CHECKING:
  from datasets import Dataset


CHUNK = 1024


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
    return made.checked(settings)

  def audited(self, findings: Sequence[Finding], settings: DataSettings) -> Data:
    """Without the records that --audit leaves out. Raises DataError for errors under --audit stop."""
    findings = [*self.findings, *findings]
    kept = without_errors(self.train, findings, settings.audit, self.called)
    return replace(self, train=kept, findings=findings, left_out=len(self.train) - len(kept))

  def checked(self, settings: DataSettings) -> Data:
    if not self.train or (settings.val_set_size and not self.held_out):
      aside = f" ({listed(self.set_aside)} set aside)" if self.set_aside else ""
      raise DataError(
        f"{len(self.train)} {self.called} to train on and {len(self.held_out)} to evaluate on are too few{aside}",
        hint="change --val_set_size or add data",
      )
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
  return Data(called, train, held_out, records.format, records.set_aside, unreadable(records)), records


@dataclass(frozen=True)
class Rows:
  dataset: Dataset
  records: list[Record]
  counts: dict[str, int]
  size: str


def settle_refused(refused: list[tuple[int, DataError]], total: int, lost: str, drop: bool) -> None:
  """Of conversations that could not be rendered: one DataError, or with `drop` a warning that `lost` is gone."""
  error = refused_together(sorted(refused, key=lambda fault: fault[0]), total)
  if not drop:
    hint = f"leave such rows out with --audit drop, or fix them: {error.hint}"
    raise DataError(error.message, where=error.where, hint=hint)
  warn(f"left out {lost}: {error.message}")
