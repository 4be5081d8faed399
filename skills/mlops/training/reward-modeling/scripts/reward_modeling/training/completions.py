"""Completions that a policy writes for prompts, a few prompts at a time, to be scored as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..data.records import Ranking
from ..data.writing import with_metadata
from .policy import Policy
from .prompts import Prompt, new_tokens, read_prompts, render_prompts
from .sampling import sample

if TYPE_CHECKING:
    from ..row_scoring import ScoreSettings

TOGETHER = 256
"""Completions that are written before they are scored."""
MAX_NEW_TOKENS = 256


def written_rankings(settings: ScoreSettings) -> tuple[Iterator[Ranking], int]:
    """What a policy writes for each prompt, as rankings that are made as they are asked for, and how many it is in all."""
    records = [Ranking([{"role": "user", "content": settings.prompt}], [])] if settings.prompt else []
    if settings.input:
        records = read_prompts(settings.input, settings.dataset_split, **settings.reading)
    policy, limit = Policy.from_pretrained(settings.generate_with, device=settings.device), "--max_new_tokens"
    longest = new_tokens(policy, settings.max_new_tokens, MAX_NEW_TOKENS, limit)
    prompts = render_prompts(records, policy, longest, limit=limit)
    return write_completions(policy, records, prompts, longest, settings), len(records) * settings.best_of


def write_completions(
    policy: Policy, records: Sequence[Ranking], prompts: Sequence[Prompt], longest: int, settings: ScoreSettings
) -> Iterator[Ranking]:
    """Each record with its completions; metadata `finished`: which of them ended by themselves."""
    n = settings.best_of
    together = max(1, TOGETHER // n)
    for start in range(0, len(records), together):
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
