"""Prompts of a policy: read, rendered as far as its context allows, and completed where completions are to be scored."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from ..base_rendering import refused_together
from ..data.audit import warn_of_templates
from ..data.reading import load_prompts
from ..data.records import Message, Origin, Ranking
from ..data.writing import with_metadata
from ..errors import DataError, UsageError
from ..results import Row
from ..score_settings import ScoreSettings
from ..terminal import log, warn
from .policy import Policy, sample

TOGETHER = 256
"""Completions that are written before they are scored."""
MAX_NEW_TOKENS = 256


@dataclass(frozen=True)
class Prompt:
  ids: list[int]
  messages: list[Message]
  tools: list[dict] | None = None
  metadata: Row = field(default_factory=dict)
  origin: Origin | None = None


def read_prompts(sources: list[str], split: str | None = None, **reading: object) -> list[Ranking]:
  records = load_prompts(sources, split=split, **reading)
  log(f"{len(records.rows)} rows of format {records.format}")
  warn_of_templates(records.rows)
  return records.rows


def new_tokens(policy: Policy, given: int | None, default: int, flag: str) -> int:
  """As given, else the default, or half the context of a policy too small for it."""
  if given is not None or policy.context is None or 2 * default <= policy.context:
    return default if given is None else given
  half = max(1, policy.context // 2)
  log(f"{flag} {half}: half of the {policy.context} tokens that the policy reads (otherwise {default})")
  return half


def render_prompts(
  records: Sequence[Ranking],
  policy: Policy,
  max_new_tokens: int,
  *,
  longest: int | None = None,
  overlong: str = "error",
  limit: str = "--response_length",
) -> list[Prompt]:
  """In input order. longest: in tokens, at most what the context leaves beside the answer. overlong: "error" or "drop"
  (counted) for longer ones. limit: the flag that sets max_new_tokens. Raises DataError for long prompts."""
  room = None if policy.context is None else policy.context - max_new_tokens
  if room is not None and room < 1:
    told = f"{limit} {max_new_tokens} leaves no room for a prompt: the policy reads {policy.context} tokens"
    raise UsageError(told)
  longest = min(filter(None, (longest, room)), default=None)
  prompts, refused = [], []
  for place, record in enumerate(records):
    try:
      ids = policy.renderer.prompt_ids(record.prompt, record.tools, where=record.origin)
      prompts.append(Prompt(ids, record.prompt, record.tools, record.metadata, record.origin))
    except DataError as error:
      refused.append((place, error))
  if refused:
    raise refused_together(refused, len(records))
  over = [place for place, prompt in enumerate(prompts) if longest is not None and len(prompt.ids) > longest]
  if not over:
    return prompts
  if overlong == "error" or len(over) == len(prompts):
    hint = f"leave them out with --overlong drop, or lower {limit}"
    if len(over) == len(prompts):
      hint = f"lower {limit}, raise --max_prompt_length, or use a policy with a longer context"
    length = len(prompts[over[0]].ids)
    told = f"{len(over)} of {len(prompts)} prompts are longer than {longest} tokens, the first has {length}"
    raise DataError(told, where=str(records[over[0]].origin), hint=hint)
  warn(f"left out {len(over)} of {len(prompts)} prompts, longer than {longest} tokens")
  return [prompt for prompt in prompts if len(prompt.ids) <= longest]


def written_rankings(settings: ScoreSettings) -> tuple[Iterator[Ranking], int]:
  """(what a policy writes for each prompt, made as it is asked for; how many completions)."""
  records = [Ranking([{"role": "user", "content": settings.prompt}], [])] if settings.prompt else []
  if settings.input:
    records = read_prompts(settings.input, settings.dataset_split, **settings.reading)
  policy, limit = Policy.from_pretrained(settings.generate_with, device=settings.device), "--max_new_tokens"
  longest, n = new_tokens(policy, settings.max_new_tokens, MAX_NEW_TOKENS, limit), settings.best_of
  prompts = render_prompts(records, policy, longest, limit=limit)
  together = max(1, TOGETHER // n)

  def write(start: int) -> Iterator[Ranking]:
    places = range(start, min(start + together, len(records)))
    answers = sample(
      policy,
      [prompts[place].ids for place in places for _ in range(n)],
      max_new_tokens=longest,
      temperature=settings.temperature,
      seed=settings.seed,
      numbers=[i * len(records) + place for place in places for i in range(n)],  # a larger N only adds
    )
    for row, place in enumerate(places):
      own = answers[row * n : (row + 1) * n]
      metadata = with_metadata({"finished": [policy.finished(answer) for answer in own]}, records[place].metadata)
      yield replace(records[place], completions=[policy.reply(answer) for answer in own], metadata=metadata)

  return chain.from_iterable(map(write, range(0, len(records), together))), len(records) * n
