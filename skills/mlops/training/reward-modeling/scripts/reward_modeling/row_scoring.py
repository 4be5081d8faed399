"""Rows of a file, or what a policy writes for prompts, scored window by window and written with their rewards."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path

from . import process, processes
from .aggregation import NO_ERROR, first_flag, step_rewards
from .base_rendering import Faults, refused_together
from .data.audit.checks import says_nothing
from .data.reading import Stream, stream
from .data.records import Ranking
from .data.writing import counted, tell_moved, with_metadata
from .ensemble import Rewards
from .errors import DataError, UsageError
from .golden import keep_card, read_card
from .kinds import OUTCOME
from .outputs import check_output_file, write_whole
from .packing import WINDOW
from .pretrained import read_tokenizer
from .process import ProcessRewardModel
from .readers import families
from .rendering import Conversation, Renderer, conversations_of
from .results import to_json
from .score_settings import SERVE, Model, PublicModels, ScoreSettings, ScoringResult, key_in
from .scoring import Ranked, RewardModel, as_messages, ranked
from .terminal import is_first_process, log, progress, table, warn

SHOWN_PROMPTS = 5
NO_STEPS = "--threshold is for one process reward model, which scores steps"
Columns = list[dict[str, object]]
"""Of each completion: {"steps", "step_rewards"}, {"attributes"} or {}."""
ScoredRanking = tuple[Ranking, list[float | None], Columns]


def list_public_models() -> PublicModels:
  found, names = families(), ["family", "models", "kind", "reward", "checked"]
  table("public models", names, [[one[name] for name in names] for one in found])
  return PublicModels(found)


def score(settings: ScoreSettings) -> ScoringResult | None:
  """None in all processes but the first."""
  team, several = processes.team(), settings.reward_model_path
  if team and (settings.generate_with or settings.server or not settings.output):
    hint = "add --output FILE; leave out --generate_with and --server, or torchrun"
    raise UsageError("several processes score the rows of files, and the first writes one", hint=hint)
  output = settings.output and check_output_file(settings.output, settings.overwrite, settings.input or ())
  if settings.generate_with:
    from .training.prompts import written_rankings

    rankings, completions = written_rankings(settings)
  else:
    rankings, completions = read_rankings(settings, check=not (team and team.rank))
  model = _loaded(settings)
  if team:
    team.keep(output, settings, [*(settings.input or ()), *(several or [settings.model_name_or_path])])
    for one in parts_of(model):
      one.team = team
  summary, moved, rows = RowSummary(settings, _flags_under(settings, model)), Counter(), None
  with progress("scoring", completions) as advance:
    scored = summary.of(scored_rankings(model, rankings, settings, advance))
    lines = map(to_json, counted(scored, moved))
    if team and team.rank:
      for _ in lines:
        pass
      return None
    if output:
      write_whole(output, lines)
    else:
      rows = [json.loads(line) for line in lines]
  if team:
    team.forget()
  summary.show()
  model.warn_of_losses()
  summary.warn_of_lost_candidates()
  if output:
    log(f"wrote {summary.counts['prompts']} rows to {output}")
  return _result(settings, model, summary, output=output and str(output), rows=rows, metadata_moved=tell_moved(moved))


def _flags_under(settings: ScoreSettings, model: Model) -> float | None:
  given = settings.threshold
  if not isinstance(model, ProcessRewardModel):
    if given is not None and not settings.server:
      raise UsageError(NO_STEPS, hint="leave it out")
    return given
  model.check_threshold(given)
  threshold, auroc_low = model.saved_threshold if given is None else given, model.saved.get("auroc_low")
  if threshold is not None and auroc_low is not None and auroc_low <= 0.5:
    model.notes.append("flags may be chance: training did not show that it tells wrong steps from right ones")
    warn(model.notes[-1])
  return threshold


def parts_of(model: Model) -> list[RewardModel | ProcessRewardModel]:
  return [*getattr(model, "models", {"": model}).values()]


def _loaded(settings: ScoreSettings) -> Model:
  if settings.server:
    from .remote import ServerRewards

    renderer = None if settings.api == SERVE else _renderer(settings)
    how = {"api": settings.api, "concurrency": settings.concurrency, "key": key_in(settings.key_file)}
    return ServerRewards(settings.server, renderer=renderer, **how)
  model = settings.load()
  if settings.write_card and is_first_process():
    difference = keep_card(model, settings.model_name_or_path, Path(settings.write_card), settings.dtype)
    state = "written" if difference is None else f"golden scores differ by at most {difference:.1e}"
    log(f"card {settings.write_card}: {state}")
  return model


def _renderer(settings: ScoreSettings) -> Renderer:
  """Without the weights, where a card says how the model renders."""
  path = settings.model_name_or_path
  if settings.of_steps:
    raise UsageError("steps are scored by serve.py alone", hint="leave --api out")
  if not (card := read_card(path)):
    return process.from_settings(settings).renderer
  rendering = card["rendering"]
  renderer = OUTCOME.renderer(read_tokenizer(path), rendering["scored_at"], rendering)
  renderer.max_length = settings.max_length or rendering["max_length"]
  renderer.overlong = settings.overlong or rendering["overlong"]
  return renderer


def _result(settings: ScoreSettings, model: Model, summary: "RowSummary", **more: object) -> ScoringResult:
  counts = sum((one.renderer.counts for one in parts_of(model) if one.renderer), summary.counts)
  told = [field.name for field in fields(ScoringResult) if field.type == "int"]
  if several := settings.reward_model_path:
    more |= {"reward_models": model.names, "reward_combine": model.combine, "reward_weights": model.weights}
    more["notes"] = [note for one in parts_of(model) for note in one.notes] or None
  elif not settings.server:
    more |= model.how()
  if settings.generate_with:
    more["policy"] = settings.generate_with
    told.append("unfinished")
  if isinstance(model, ProcessRewardModel) or counts["steps"]:
    more |= {"aggregate": getattr(model, "aggregate", None), "threshold": summary.threshold}
    told += ["steps", "steps_not_scored", *(["solutions_flagged"] if summary.threshold is not None else [])]
  n = counts["completions"] - counts["not_scored"]
  return ScoringResult(
    model=settings.model_name_or_path or ", ".join(several or settings.server),
    reward_mean=summary.total / n if n else None,
    **{name: counts[name] for name in told},
    **more,
  )


def read_rankings(settings: ScoreSettings, check: bool = True) -> tuple[Stream | list[Ranking], int]:
  """And how many completions. A file, which may be larger than memory, is read again slice by slice."""
  if settings.input:
    how = {"winner_values": settings.winner_values, "steps": settings.of_steps, "check": check, **settings.reading}
    rankings = stream(settings.input, split=settings.dataset_split, **how)
    log(f"{rankings.rows} rows of format {rankings.format}")
    return rankings, rankings.rows * settings.best_of if settings.best_of else rankings.completions
  completions = [as_messages(text, "assistant") for text in settings.completions]
  return [Ranking(as_messages(settings.prompt, "user"), completions)], len(completions)


def scored_rankings(
  model: Model, rankings: Iterable[Ranking], settings: ScoreSettings, advance: Callable[[int], None]
) -> Iterator[ScoredRanking]:
  """In input order. Raises DataError, which names all that the template refuses, where --refused stops."""
  refused: Faults = []
  seen, stops = 0, settings.refused == "stop"
  if renderer := getattr(model, "renderer", None):  # several models have one each, and stop at the first that refuses
    renderer.refused = refused
  for together in in_windows(rankings, settings.best_of):
    conversations = conversations_of(together, renderer)
    seen += len(conversations)
    if refused and stops:  # look for the others, so that all are told
      model.render(conversations)
      continue
    scored = list(score_together(model, together, conversations, settings.normalize, advance))
    if not (refused and stops):
      yield from scored
  if refused and stops:
    error = refused_together(refused, seen)
    hint = f"score the others with --refused unscored, or {error.hint}"
    raise DataError(error.message, where=error.where, hint=hint)


def in_windows(rankings: Iterable[Ranking], best_of: int | None) -> Iterator[list[Ranking]]:
  """About WINDOW completions each, of each ranking the first `best_of`."""
  together, waiting = [], 0
  for ranking in rankings:
    n = best_of or len(ranking.completions)
    if len(ranking.completions) < n:
      what = f"the prompt has {len(ranking.completions)} completions, fewer than --best_of {n}"
      raise DataError(what, where=ranking.origin)
    together.append(replace(ranking, completions=ranking.completions[:n], scores=None))
    waiting += n
    if waiting >= WINDOW:
      yield together
      together, waiting = [], 0
  yield together


def score_together(
  model: Model, rankings: Sequence[Ranking], conversations: Sequence[Conversation], normalize: bool, advance: Callable
) -> Iterator[ScoredRanking]:
  rewards, columns = _in_columns(model, conversations, advance)
  if normalize and not isinstance(model, Rewards):  # which does so with each model's own statistics
    rewards = model.normalize(rewards)
  rewards, columns = iter(rewards), iter(columns)
  for ranking in rankings:
    n = len(ranking.completions)
    yield ranking, list(islice(rewards, n)), list(islice(columns, n))


def _in_columns(
  model: Model, conversations: Sequence[Conversation], advance: Callable
) -> tuple[list[float | None], Columns]:
  if hasattr(model, "score_in_columns"):  # of servers
    return model.score_in_columns(conversations, advance)
  if isinstance(model, ProcessRewardModel):
    scored = model.score_in_steps(conversations, advance)
    columns = [{"steps": own, "step_rewards": step_rewards(own, scores)} for own, scores in scored]
    return [model.reward(scores) for _, scores in scored], columns
  if names := getattr(model, "attributes", ()):
    found = model.score_attributes(conversations, advance)
    columns = [{"attributes": own and dict(zip(names, own[1:], strict=True))} for own in found]
    return [own and own[0] for own in found], columns
  return model.score_conversations(conversations, advance), [{} for _ in conversations]


class RowSummary:
  def __init__(self, settings: ScoreSettings, threshold: float | None = None):
    self.settings, self.counts, self.total, self.first_lost = settings, Counter(), 0.0, None
    self.threshold = threshold
    self.first: list[list[tuple[Ranked, int | None]]] = []

  def of(self, scored: Iterable[ScoredRanking]) -> Iterator[dict[str, object]]:
    settings = self.settings
    for ranking, scores, columns in scored:
      steps = [reward for own in columns for reward in own.get("step_rewards", ())]
      lost = scores.count(None)
      self.counts.update(prompts=1, completions=len(scores), not_scored=lost, prompts_with_unscored=min(lost, 1))
      self.counts["empty_completions"] += sum(says_nothing(ranking, answer) for answer in ranking.completions)
      self.counts.update(steps=len(steps), steps_not_scored=steps.count(None))
      for own in columns if self.threshold is not None else ():
        if "step_rewards" not in own:  # of a server's
          raise UsageError(NO_STEPS, hint="leave it out")
        own["first_flagged"] = place = _first_flagged(own["step_rewards"], self.threshold)
        self.counts["solutions_flagged"] += place not in (None, NO_ERROR)
      self.total += sum(score for score in scores if score is not None)
      if lost:
        self.first_lost = self.first_lost or ranking.origin
      if settings.generate_with:
        self.counts["unfinished"] += ranking.metadata["finished"].count(False)
      ordered = [Ranked(i, *pair) for i, pair in enumerate(zip(scores, ranking.completions, strict=True))]
      if settings.rank or settings.best_of:
        ordered = ranked(scores, ranking.completions)[: None if settings.rank else 1]
      if len(self.first) < SHOWN_PROMPTS:
        self.first.append([(item, columns[item.index].get("first_flagged")) for item in ordered])
      yield result_row(ranking, ordered, columns, settings)

  def warn_of_lost_candidates(self) -> None:
    lost, best = self.counts["prompts_with_unscored"], not self.settings.rank
    if lost and (self.settings.rank or self.settings.best_of):
      first = f" (the first: {self.first_lost})" if self.first_lost else ""
      done = "the best is the best of the others" if best else "they stand last"
      prompts = self.counts["prompts"]
      warn(f"{lost} of {prompts} prompts lost candidates, which have no score: {done}{first}")

  def show(self) -> None:
    flags = self.threshold is not None
    rows = [
      [i, item.score, *[place] * flags, " ".join(message.get("content") or "" for message in item.completion)[:80]]
      for i, items in enumerate(self.first, 1)
      for item, place in items
    ]
    prompts, completions = self.counts["prompts"], self.counts["completions"]
    which = f" of the first {SHOWN_PROMPTS} prompts" if prompts > SHOWN_PROMPTS else ""
    table(f"rewards{which}", ["prompt", "reward", *["first flagged"] * flags, "completion"], rows)
    if empty := self.counts["empty_completions"]:
      warn(f"{empty} of {completions} completions are empty: what they score says nothing")
    if prompts < completions == self.counts["steps"]:
      warn(
        "no completion has more than one step: if a row's `completions` are the steps of one solution, "
        "say --columns steps=completions; if steps end otherwise, --step_separator"
      )


def _first_flagged(rewards: list[float | None] | None, threshold: float) -> int | None:
  """None where steps without a score may hold it."""
  place = first_flag(rewards or (), threshold)
  return None if place == NO_ERROR and (not rewards or None in rewards) else place


def by_name(columns: Columns) -> dict[str, list]:
  return {name: [one[name] for one in columns] for name in (columns[0] if columns else ())}


def result_row(
  ranking: Ranking, ordered: Sequence[Ranked], columns: Columns, settings: ScoreSettings
) -> dict[str, object]:
  row = {name: value for name, value in (("id", ranking.id), ("tools", ranking.tools)) if value is not None}
  row["prompt"], metadata = ranking.prompt, dict(ranking.metadata)
  finished = metadata.pop("finished") if settings.generate_with else None
  own = [columns[item.index] for item in ordered]
  if not settings.rank and (settings.best_of or len(ordered) == 1):
    (best,) = ordered
    row |= {"finished": finished[best.index]} if finished else {}
    row |= {"completion": best.completion, "reward": best.score}
    row |= {"index": best.index} if settings.best_of else {}
    return with_metadata(row | own[0], metadata)
  row |= {"finished": [finished[item.index] for item in ordered]} if finished else {}
  row |= {"completions": [item.completion for item in ordered], "rewards": [item.score for item in ordered]}
  return with_metadata(
    row | by_name(own) | ({"order": [item.index for item in ordered]} if settings.rank else {}), metadata
  )
