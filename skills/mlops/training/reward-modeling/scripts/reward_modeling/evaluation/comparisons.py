"""Judge a reward model on labelled comparisons: score both sides, then count."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..console import DataError, progress
from ..records import Comparison
from ..scoring import RewardModel
from . import metrics

SUBSET_COLUMNS = ("subset", "category", "domain", "source", "tranche", "task")
STATISTICS_SAMPLE = 256


@dataclass(frozen=True)
class Judgement:
    """What a reward model made of labelled comparisons.

    pairs: [n] those both of whose sides got a score. chosen, rejected: [n] raw rewards. summary: see `metrics.summarise`.
    scored: every pair in input order with both rewards, None where the over-length policy left a side out.
    """

    pairs: list[Comparison]
    chosen: np.ndarray
    rejected: np.ndarray
    summary: dict[str, Any]
    scored: list[tuple[Comparison, float | None, float | None]]

    def rows(self) -> list[dict[str, Any]]:
        """One JSON row for each pair of the input: where it came from, its metadata and both rewards."""
        return [
            {
                **pair.metadata,
                "id": pair.id,
                "origin": str(pair.origin) if pair.origin else None,
                "reward_chosen": chosen,
                "reward_rejected": rejected,
            }
            for pair, chosen, rejected in self.scored
        ]


def judge(model: RewardModel, comparisons: Sequence[Comparison], *, subset_column: str | None = None) -> Judgement:
    """Score every pair and summarise. Identical conversations are computed once.

    Pairs of which the over-length policy leaves out a side are counted in `summary["not_scored"]`. Raises DataError
    when no pair is left.
    """
    truncated_before = model.renderer.counts["truncated"]
    scores = score_distinct(
        model, [(p.prompt, side, p.tools, p.origin) for p in comparisons for side in (p.chosen, p.rejected)]
    )
    scored = list(zip(comparisons, scores[::2], scores[1::2], strict=True))
    kept = [(pair, c, r) for pair, c, r in scored if c is not None and r is not None]
    if not kept:
        raise DataError(
            f"none of {len(comparisons)} pairs fits into {model.renderer.max_length} tokens",
            hint="raise --max_length, or choose --overlong truncate_left",
        )
    pairs = [pair for pair, _, _ in kept]
    chosen, rejected = np.array([c for _, c, _ in kept]), np.array([r for _, _, r in kept])
    summary = metrics.summarise(
        chosen,
        rejected,
        chosen_lengths=[answer_length(pair.chosen) for pair in pairs],
        rejected_lengths=[answer_length(pair.rejected) for pair in pairs],
        groups=prompt_keys(pairs),
        subsets=subsets(pairs, subset_column),
        weights=[pair.weight for pair in pairs],
    )
    summary["not_scored"] = len(comparisons) - len(kept)
    summary["truncated"] = model.renderer.counts["truncated"] - truncated_before
    return Judgement(pairs, chosen, rejected, summary, scored)


def score_distinct(model: Any, conversations: Sequence[tuple]) -> list[float | None]:
    """`model.score_conversations`, with identical conversations computed once: they tie to the last digit."""
    places: dict[str, int] = {}
    distinct: list[tuple] = []
    order = []
    for prompt, completion, tools, where in conversations:
        key = json.dumps([prompt, completion, tools], sort_keys=True, default=str)
        if key not in places:
            places[key] = len(distinct)
            distinct.append((prompt, completion, tools, where))
        order.append(places[key])
    with progress("scoring", len(distinct)) as advance:
        scores = model.score_conversations(distinct, advance)
    return [scores[place] for place in order]


def compare(first: Judgement, second: Judgement) -> dict[str, Any]:
    """Two models on the pairs that both could score: see `metrics.compare`. Both must have judged the same pair objects."""
    places = {id(pair): i for i, pair in enumerate(second.pairs)}
    shared = [(i, places[id(pair)]) for i, pair in enumerate(first.pairs) if id(pair) in places]
    if not shared:
        raise DataError(
            "no pair was scored by both models", hint="raise --max_length, or choose --overlong truncate_left"
        )
    a, b = (np.array(side) for side in zip(*shared, strict=True))
    pairs = [first.pairs[i] for i in a]
    return metrics.compare(
        metrics.pair_outcomes(first.chosen[a], first.rejected[a]),
        metrics.pair_outcomes(second.chosen[b], second.rejected[b]),
        groups=prompt_keys(pairs),
        weights=[pair.weight for pair in pairs],
    )


def prompt_keys(pairs: Sequence[Comparison]) -> list[str]:
    """What pairs of the same prompt have in common."""
    return [json.dumps(pair.prompt, sort_keys=True, default=str) for pair in pairs]


def answer_length(completion: Sequence[dict]) -> int:
    """Characters of an answer."""
    return sum(len(message.get("content") or "") for message in completion)


def subsets(pairs: Sequence[Comparison], column: str | None) -> list[str] | None:
    """The subset of each pair, from this metadata column or from the first usual one that is there."""
    if column is None:
        column = next((name for name in SUBSET_COLUMNS if any(name in pair.metadata for pair in pairs)), None)
        if column is None:
            return None
    elif not any(column in pair.metadata for pair in pairs):
        known = sorted({name for pair in pairs for name in pair.metadata})
        raise DataError(
            f"no pair has the column {column}", hint=f"the data has {', '.join(known) or 'no metadata columns'}"
        )
    return [pair.metadata.get(column) for pair in pairs]


def reward_statistics(
    model: RewardModel, judgement: Judgement | None, training_pairs: Sequence[Comparison]
) -> dict[str, Any]:
    """Mean and standard deviation of the rewards of held-out answers, or of some training answers when none are held out."""
    source = "held-out pairs"
    if judgement is None:
        judgement, source = judge(model, training_pairs[:STATISTICS_SAMPLE]), "training pairs"
    rewards = np.concatenate([judgement.chosen, judgement.rejected])
    return {"mean": float(rewards.mean()), "std": float(rewards.std()), "n": len(rewards), "from": source}
