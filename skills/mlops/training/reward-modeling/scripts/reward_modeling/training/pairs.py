"""Comparisons for training an outcome reward model: read, audited, and rendered into rows.

One row is one prompt with all its completions and pairs: a completion in several pairs is computed once, as InstructGPT
does (arXiv:2203.02155, section 3.5).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..cli import flag, fraction, non_negative_number
from ..console import DataError, UsageError, listed, log, warn
from ..data.audit import audit
from ..data.records import Comparison, comparisons
from ..kinds import OUTCOME
from ..rendering import OVERLONG, Conversation, Renderer
from ..settings import SHARED_PREFIX_HELP, WinnerSettings
from .data import STATISTICS_SAMPLE, Data, Rows, read, settle_refused
from .settings import DataSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase
    from trl import RewardConfig

    from ..evaluation.pairs import PairEvaluation
    from ..scoring import RewardModel
    from .results import RewardStatistics


@dataclass(frozen=True, kw_only=True)
class Pairs(WinnerSettings):
    """An outcome reward model, by the Bradley-Terry loss on comparisons, for `runs.train`."""

    group: ClassVar = "loss"
    center_rewards_coefficient: float = flag(
        0.01, "pull the mean reward to zero; 0 switches it off", type=non_negative_number, metavar="C"
    )
    label_smoothing: float = flag(0.0, "share of labels believed wrong", type=fraction, metavar="E")
    use_margin: bool = flag(True, "use the margin or score columns of the data, where there are any")
    overlong: str = flag(
        "truncate_prompt",
        "what to do with longer ones; always counted; truncate_prompt: cut the start of the prompt, keep the answer",
        group="model",
        choices=OVERLONG,
    )
    shared_prefix: bool | None = flag(None, SHARED_PREFIX_HELP, group="run")
    folds: int | None = flag(
        None,
        "for few pairs: cross-validate in K folds of the prompts, pool all held-out pairs into one evaluation, then train on all",
        group="data",
        metavar="K",
    )
    model: ClassVar = OUTCOME
    task_type: ClassVar = "SEQ_CLS"

    @property
    def loss(self) -> dict[str, Any]:
        return {
            "center_rewards_coefficient": self.center_rewards_coefficient,
            "label_smoothing": self.label_smoothing,
            "margin": self.use_margin,
        }

    @staticmethod
    def config_class() -> type[RewardConfig]:
        from trl import RewardConfig

        return RewardConfig

    def own_fields(self) -> dict[str, Any]:
        return {"center_rewards_coefficient": self.center_rewards_coefficient or None, "max_length": None}

    def read(self, settings: DataSettings) -> Data:
        """The split comes after the audit, which looks at the held-out pairs too."""
        if self.folds is not None and (self.folds < 2 or settings.has_evaluation):
            raise UsageError(
                f"--folds {self.folds} makes its own held-out pairs, from at least 2 folds",
                hint="leave out --val_set_size, --eval_dataset_name and --dataset_test_split, or leave out --folds",
            )
        data, _ = read(settings, "pairs", comparisons, winner_values=self.winner_values)
        findings = audit(data.train, eval_records=data.held_out or None, rendered=settings.rendered)
        data = data.audited(findings, settings)
        if not self.use_margin:
            data = replace(data, train=[replace(pair, margin=None) for pair in data.train])
        return data.split(settings)

    def renderer(self, tokenizer: PreTrainedTokenizerBase, **common: Any) -> Renderer:
        return Renderer(tokenizer, overlong=self.overlong, **common)

    def audited(self, data: Data, renderer: Renderer, settings: DataSettings) -> Data:
        return data

    def render(
        self, records: Sequence[Comparison], renderer: Renderer, drop_refused: bool, *, held_out: bool = False
    ) -> Rows:
        called = "held-out pair" if held_out else "pair"
        return render_comparisons(records, renderer, called=called, drop_refused=drop_refused)

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

        return loop.fit(
            outcome.OutcomeTrainer,
            model,
            renderer,
            rows,
            config,
            data_collator=outcome.PaddedCollator(renderer.tokenizer.pad_token_id),
            label_smoothing=self.label_smoothing,
            loss={
                "center_rewards_coefficient": config.center_rewards_coefficient,
                "label_smoothing": self.label_smoothing,
            },
            within=lambda trainer: outcome.packed_batches(trainer, self.shared_prefix),
            **run,
        )

    def evaluate(
        self, model: torch.nn.Module, renderer: Renderer, held_out: list[Comparison], trained_on: list[Comparison]
    ) -> tuple[PairEvaluation | None, RewardStatistics]:
        from ..evaluation.pairs import evaluate_pairs
        from ..scoring import RewardModel

        scorer = RewardModel(model, renderer)
        evaluation = evaluate_pairs(scorer, held_out) if held_out else None
        return evaluation, reward_statistics(scorer, evaluation, trained_on)


def reward_statistics(
    model: RewardModel, evaluation: PairEvaluation | None, trained_on: Sequence[Comparison]
) -> RewardStatistics:
    """Of the rewards of held-out answers, or of some training answers when none are held out."""
    import numpy as np

    from ..evaluation.pairs import evaluate_pairs
    from .results import RewardStatistics

    source = "held-out pairs"
    if evaluation is None:
        evaluation, source = evaluate_pairs(model, trained_on[:STATISTICS_SAMPLE]), "training pairs"
    rewards = np.concatenate([evaluation.chosen, evaluation.rejected])
    return RewardStatistics(float(rewards.mean()), float(rewards.std()), len(rewards), source)


def render_comparisons(
    comparisons: Sequence[Comparison],
    renderer: Renderer,
    chunk: int = 1024,
    *,
    called: str = "pair",
    drop_refused: bool = False,
) -> Rows:
    """Render comparisons into rows of token ids, one row for each prompt of a ranking and one for each other pair.

    A pair is left out, and counted, when the over-length policy leaves out one of its sides, or when truncation made
    both sides the same (it would teach nothing), and with `drop_refused` when a side cannot be rendered. Raises DataError for
    all that cannot be rendered together otherwise, and when no pair is left; `called` names one there.
    """
    from datasets import Dataset

    groups: dict[Any, list[Comparison]] = defaultdict(list)
    for place, pair in enumerate(comparisons):
        groups[(pair.origin, id(pair.prompt)) if pair.weight != 1.0 and pair.origin else place].append(pair)
    zeros = ("dropped_over_length", "identical_after_truncation", "truncated_sides")
    counts = {"pairs": len(comparisons), **dict.fromkeys(zeros, 0)}
    rows, kept, refused, before = [], [], [], _rendered(renderer)
    ordered = list(groups.values())
    for start in range(0, len(ordered), chunk):
        for row, pairs in _render_groups(ordered[start : start + chunk], renderer, counts, refused):
            rows.append(row)
            kept += pairs
    if refused:
        settle_refused(refused, _rendered(renderer) - before, f"{counts['dropped_refused']} {called}s", drop_refused)
    if not rows:
        raise DataError(
            f"no {called} is left of {len(comparisons)}: {counts['dropped_over_length']} are longer than {renderer.max_length} tokens",
            hint="raise --max_length, or choose --overlong truncate_left, which cuts long answers too",
        )
    counts["pairs_used"] = len(kept)
    return Rows(Dataset.from_list(rows), kept, counts, f"{len(kept)} pairs")


def _rendered(renderer: Renderer) -> int:
    return renderer.counts["rendered"] + renderer.counts["refused"]


def _render_groups(
    groups: list[list[Comparison]], renderer: Renderer, counts: dict[str, int], refused: list[tuple[int, DataError]]
) -> Iterator[tuple[dict[str, list], list[Comparison]]]:
    """(row, pairs kept) for each group that has a pair left. Each distinct completion of a group is rendered once."""
    conversations: dict[tuple[int, str], Conversation] = {}
    for g, pair in ((g, pair) for g, group in enumerate(groups) for pair in group):
        for completion in (pair.chosen, pair.rejected):
            conversations.setdefault(
                _key(g, completion), Conversation(pair.prompt, completion, pair.tools, pair.origin)
            )
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
            if not lost.isdisjoint(sides):
                counts["dropped_refused"] = counts.get("dropped_refused", 0) + 1
                continue
            if chosen is None or rejected is None:
                counts["dropped_over_length"] += 1
                continue
            if chosen.ids == rejected.ids:
                counts["identical_after_truncation"] += 1
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
