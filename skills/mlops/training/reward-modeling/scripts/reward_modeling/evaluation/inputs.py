"""What every evaluation needs: which records share a prompt or a subset, their rewards, and what people are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..data.audit import prompt_digests
from ..data.records import Comparison, Message, Ranking, Rated, Solution, answers_of
from ..data.writing import with_metadata
from ..errors import DataError
from ..model_folder import snapshot
from ..output_folder import TRAINED_ON
from ..rendering import Conversation, conversations_of
from ..results import sorted_json
from ..terminal import progress

if TYPE_CHECKING:  # torch, which over-optimization and the measures do without
  from ..process import ProcessRewardModel
  from ..scoring import RewardModel

AnswerRewards = list[list[float | None]]
"""[rows][answers] rewards, None for one that was not scored."""
TOO_LONG = "raise --max_length, or choose --overlong truncate_left"
NO_SUBSET = "(none)"
SUBSET_COLUMNS = ("subset", "subject", "category", "domain", "source", "tranche", "task", "generator")


def prompt_keys(rows: Sequence[Comparison | Ranking | Solution]) -> list[str]:
  """What rows of the same prompt have in common."""
  return [sorted_json(row.prompt) for row in rows]


def trained_prompts(path: str) -> set[str]:
  """Hashes of 48 bits; none of a model that does not say on what it was trained."""
  folder = snapshot(path)
  places = [folder] if folder else []
  if folder and folder.name.startswith("checkpoint-"):
    places.append(folder.parent)  # its run says it
  file = next(filter(Path.is_file, (place / TRAINED_ON for place in places)), None)
  return set(file.read_text("utf-8", "replace").split()) if file else set()


def hashed_prompts(rows: Iterable[Comparison | Ranking | Solution]) -> set[str]:
  return {one[:6].hex() for one in prompt_digests(rows)}


class Seen(NamedTuple):
  """Of the prompts of an evaluation, those that the model was trained on; None where it does not say."""

  count: int | None
  prompts: int

  def told(self) -> list[str]:
    if not self.count:
      return []
    what = f"the model was trained on {self.count} of the {self.prompts} prompts (but for case and whitespace)"
    return [f"{what}: the numbers say little about new ones. Next: evaluate on prompts that were held out."]


def seen_prompts(path: str, rows: Sequence[Comparison | Ranking | Solution]) -> Seen:
  known = trained_prompts(path)
  asked = hashed_prompts(rows) if known else ()
  return Seen(len(known.intersection(asked)) if known else None, len(asked))


def output_row(record: Comparison | Ranking | Rated | Solution, *texts: str, **found: object) -> dict[str, object]:
  """A row of --output: where it is from, its prompt and these other fields, what was found, and its metadata."""
  row: dict[str, object] = {"id": record.id, "origin": str(record.origin) if record.origin else None}
  row |= {name: getattr(record, name) for name in ("prompt", *texts)} | found
  same = {name for name, value in record.metadata.items() if name in row and row[name] == value}
  return with_metadata(row, {name: value for name, value in record.metadata.items() if name not in same})


def answer_length(completion: Sequence[Message]) -> int:
  """In characters."""
  return sum(len(message.get("content") or "") for message in completion)


def subsets(rows: Sequence[Comparison | Solution], column: str | None) -> list[str] | None:
  """From this metadata column, or from the first usual one that is there."""
  known = {name for row in rows for name in row.metadata}
  column = column or next((name for name in SUBSET_COLUMNS if name in known), None)
  if column and column not in known:
    listed = ", ".join(sorted(known)) or "no metadata columns"
    raise DataError(f"no pair has the column {column}", hint=f"the data has {listed}")
  return [NO_SUBSET if (name := row.metadata.get(column)) is None else str(name) for row in rows] if column else None


def nothing_fits(model: RewardModel | ProcessRewardModel, what: str) -> DataError:
  return DataError(f"none of {what} fits into {model.renderer.max_length} tokens", hint=TOO_LONG)


def score_answers(model: RewardModel | ProcessRewardModel, rows: Sequence[Comparison | Ranking]) -> AnswerRewards:
  """Identical answers to a prompt are computed once: they tie to the last digit."""
  conversations = conversations_of(rows, getattr(model, "renderer", None))
  if getattr(model, "compares", False):  # whose rewards depend on the other answers of the row
    rewards = iter(model.score_conversations(conversations))
  else:
    keys = [sorted_json(one[:3]) for one in conversations]
    distinct: dict[str, Conversation] = {}
    for key, one in zip(keys, conversations, strict=True):
      distinct.setdefault(key, one)
    with progress("scoring", len(distinct)) as advance:
      scores = model.score_conversations(list(distinct.values()), advance)
    rewards = map(dict(zip(distinct, scores, strict=True)).__getitem__, keys)
  return [[next(rewards) for _ in answers_of(row)] for row in rows]


class Diagnostic(NamedTuple):
  """Where it `applies` to a summary, `sentence` (a format string over its attributes) is worth saying, and `next` doing."""

  applies: Callable[[Any], bool]
  sentence: str
  next: str


def diagnosed(summary: object, diagnostics: Iterable[Diagnostic]) -> list[str]:
  applying = [one for one in diagnostics if one.applies(summary)]
  return [f"{one.sentence}. Next: {one.next}.".format(**vars(summary)) for one in applying]


def spelled(name: str) -> str:
  return name.replace("_", " ")
