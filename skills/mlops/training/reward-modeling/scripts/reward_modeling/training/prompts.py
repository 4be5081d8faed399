"""Prompts of a policy: read, and rendered as far as its context allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..base_rendering import refused_together
from ..console import DataError, UsageError, log, warn
from ..data.audit import warn_of_templates
from ..data.reading import load_prompts
from ..data.records import Message, Ranking
from .policy import Policy


@dataclass(frozen=True)
class Prompt:
    """One prompt as the policy reads it and as a reward model gets it."""

    ids: list[int]
    messages: list[Message]
    tools: list[dict] | None = None


def read_prompts(sources: list[str], split: str | None = None, **reading: Any) -> list[Ranking]:
    """The prompts of these datasets as records, logged. reading: see `reading.load`."""
    records = load_prompts(sources, split=split, **reading)
    log(f"{len(records.rows)} rows of format {records.format}")
    warn_of_templates(records.rows)
    return records.rows


def new_tokens(policy: Policy, given: int | None, default: int, flag: str) -> int:
    """The longest answer in tokens: as given, else the default, or half the context of a policy too small for it."""
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
    """The prompts as the policy reads them, in input order. longest: in tokens, at most what the context leaves beside the
    answer. overlong: "error" or "drop" (counted) for longer ones. limit: the flag that sets max_new_tokens, for messages.
    Raises DataError for long prompts."""
    room = None if policy.context is None else policy.context - max_new_tokens
    if room is not None and room < 1:
        raise UsageError(
            f"{limit} {max_new_tokens} leaves no room for a prompt: the policy reads {policy.context} tokens"
        )
    longest = min(filter(None, (longest, room)), default=None)
    prompts, refused = [], []
    for place, record in enumerate(records):
        try:
            ids = policy.prompt_ids(record.prompt, record.tools, record.origin)
            prompts.append(Prompt(ids, record.prompt, record.tools))
        except DataError as error:
            refused.append((place, error))
    if refused:
        raise refused_together(refused, len(records))
    over = [place for place, prompt in enumerate(prompts) if longest is not None and len(prompt.ids) > longest]
    if over and (overlong == "error" or len(over) == len(prompts)):
        first = over[0]
        raise DataError(
            f"{len(over)} of {len(prompts)} prompts are longer than {longest} tokens, the first has {len(prompts[first].ids)}",
            where=str(records[first].origin),
            hint=f"lower {limit}, raise --max_prompt_length, or use a policy with a longer context"
            if len(over) == len(prompts)
            else f"leave them out with --overlong drop, or lower {limit}",
        )
    if over:
        warn(f"left out {len(over)} of {len(prompts)} prompts, longer than {longest} tokens")
    return [prompt for prompt in prompts if longest is None or len(prompt.ids) <= longest]
