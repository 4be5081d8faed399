"""Train an outcome reward model: one score for a whole answer, from comparisons, by the Bradley-Terry loss.

TRL's RewardTrainer runs the loop. Overridden, each for one reason that a test holds it to:

- `_prepare_dataset`: the rows are rendered already, by the project's own contract, and none is dropped in silence.
- `_set_signature_columns_if_needed`: the rows carry weights and rankings of any length.
- `compute_loss`: weights, label smoothing, rankings; metrics are means over pairs, not over batches, ties count half.

One row of the training set is one prompt with all its completions and all their pairs: a completion that takes part in
several pairs is computed once, as InstructGPT does (arXiv:2203.02155, section 3.5).

A batch is padded, or packed so that a shared prompt is computed once. Both give the trainer the same loss in the same
order; a test compares them. `tokens` counts what TRL counts: every token of every sequence, shared or not.
"""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset
from trl import RewardConfig, RewardTrainer

from ..checkpoints import unwrapped
from ..console import DataError, ModelError, log
from ..data.records import Comparison
from ..packing import pack_together, right_padded
from ..rendering import Renderer
from .resuming import run_identity, start_run
from .runs import check_finite, run, settle_refused

PAIR_FIELDS = ("chosen", "rejected", "margin", "weight")


def flattened(rows: list[dict[str, list]]) -> tuple[list[list[int]], dict[str, torch.Tensor]]:
    """The S sequences of all rows, and for each of P pairs the places `chosen`, `rejected` of its sides among them, its
    `margin` and its `weight`.

    Weights are scaled by P / rows, so that a mean over pairs is the sum of weighted pairs over the number of prompts:
    a ranking counts as one prompt however many pairs it makes.
    """
    sequences: list[list[int]] = []
    pairs: dict[str, list] = {name: [] for name in PAIR_FIELDS}
    for row in rows:
        offset = len(sequences)
        sequences += row["sequences"]
        pairs["chosen"] += [offset + place for place in row["chosen"]]
        pairs["rejected"] += [offset + place for place in row["rejected"]]
        pairs["margin"] += row["margin"]
        pairs["weight"] += row["weight"]
    count = len(pairs["weight"])
    return sequences, {
        "chosen": torch.tensor(pairs["chosen"]),
        "rejected": torch.tensor(pairs["rejected"]),
        "margin": torch.tensor(pairs["margin"], dtype=torch.float32),
        "weight": torch.tensor(pairs["weight"], dtype=torch.float32) * count / len(rows),
        "tokens": torch.tensor(sum(map(len, sequences))),
    }


class PaddedCollator:
    """One right-padded batch: `input_ids`, `attention_mask` [S, T] and what `flattened` gives."""

    def __init__(self, pad_token_id: int):
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[dict[str, list]]) -> dict[str, torch.Tensor]:
        sequences, pairs = flattened(rows)
        ids, mask = right_padded(sequences, self.pad_token_id)
        return {"input_ids": ids, "attention_mask": mask, **pairs}


class PackedCollator:
    """One flat row of unique tokens: `input_ids`, `position_ids` [1, T], the `layout` that attention follows, `ends`
    [S], where each sequence's last token lies, and what `flattened` gives.

    `ends` comes first: transformers takes the size of a batch from its first tensor. `share` is off while dropout is on,
    since a token that two sequences share would draw one mask for both.
    """

    def __init__(self, share: bool):
        self.share = share

    def __call__(self, rows: list[dict[str, list]]) -> dict[str, Any]:
        from ..attention import Layout

        sequences, pairs = flattened(rows)
        row = pack_together(sequences, share=self.share)
        ends = torch.empty(len(sequences), dtype=torch.long)
        ends[row.sequences] = torch.tensor(row.ends)
        return {
            "ends": ends,
            "input_ids": torch.tensor([row.ids]),
            "position_ids": torch.tensor([row.positions]),
            "layout": Layout(row),
            **pairs,
        }


@contextlib.contextmanager
def packed_batches(trainer: Any, wanted: bool | None = None) -> Iterator[str | None]:
    """Let a trainer run on packed batches inside the block, where its model allows it and `wanted` (see
    `guard.reason_against`). Yields why not, or None.

    Two forward hooks do it, so that a distributed wrapper around the model still sees an ordinary forward pass: one keeps
    the head's output for every token, the other replaces the model's output by the scores at `ends`.
    """
    from ..attention import shared_prefix
    from ..guard import reason_against

    base = unwrapped(trainer.model)
    reason = reason_against(base, wanted)
    if reason:
        log(f"batches are padded, since {reason}")
        yield reason
        return
    share = not has_dropout(trainer.model)
    log(
        "prompts are computed once for both sides"
        if share
        else "batches are packed without padding; dropout forbids sharing"
    )
    kept: dict[str, torch.Tensor] = {}

    def keep(module: Any, inputs: Any, output: torch.Tensor) -> None:
        kept["scores"] = output

    def at_ends(module: Any, inputs: Any, named: dict[str, Any], output: Any) -> Any:
        output["logits"] = kept.pop("scores")[0, named["ends"]]
        return output

    collator, trainer.data_collator = trainer.data_collator, PackedCollator(share)
    hooks = [base.score.register_forward_hook(keep), base.register_forward_hook(at_ends, with_kwargs=True)]
    try:
        with shared_prefix(base):
            yield None
    finally:
        trainer.data_collator = collator
        for hook in hooks:
            hook.remove()


def has_dropout(model: torch.nn.Module) -> bool:
    """Whether any layer of the model drops values in training."""
    return any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())


def bradley_terry(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    *,
    margin: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Pairwise logistic loss: -log sigmoid(chosen - rejected - margin), weighted mean over pairs.

    chosen, rejected: [P] rewards. margin: [P], how much better the chosen answer must be, or None. weight: [P], or
    None for all ones; the sum is divided by P, not by the sum of the weights.
    label_smoothing: the share e of labels believed wrong; the loss becomes (1 - e) l(d) + e l(-d). Returns [].
    log 2 when every pair ties. Unchanged by a constant added to all rewards: scores of two runs share no zero.
    arXiv:2203.02155 Eq. 1; margin: arXiv:2307.09288 Eq. 2; smoothing: arXiv:2403.00409 gives it for preference data.

    >>> bradley_terry(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0]))
    tensor(0.4100)
    """
    difference = chosen - rejected
    if margin is not None:
        difference = difference - margin
    loss = -F.logsigmoid(difference)
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * F.logsigmoid(-difference)
    if weight is not None:
        loss = loss * weight
    return loss.mean()


def centering(chosen: torch.Tensor, rejected: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Mean squared sum of a pair's rewards, which pulls their mean to zero. chosen, rejected, weight: [P]. Returns [].

    Bradley-Terry leaves the zero of the rewards free; this fixes it. Multiplied by `center_rewards_coefficient`, for
    which 0.01 is usual. arXiv:2312.09244 Eq. 2.

    >>> centering(torch.tensor([1.0, 2.0]), torch.tensor([-1.0, 0.0]))
    tensor(2.)
    """
    squared = (chosen + rejected) ** 2
    return (squared if weight is None else squared * weight).mean()


# ---- rows ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """A rendered training set. `pairs` is what is left of the comparisons, `counts` what happened on the way."""

    dataset: Dataset
    pairs: list[Comparison]
    counts: dict[str, int]


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
    groups: dict[Any, list[Comparison]] = defaultdict(list)
    for place, pair in enumerate(comparisons):
        groups[(pair.origin, id(pair.prompt)) if pair.weight != 1.0 and pair.origin else place].append(pair)
    counts = {
        "pairs": len(comparisons),
        "dropped_over_length": 0,
        "identical_after_truncation": 0,
        "truncated_sides": 0,
    }
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
    return Rows(Dataset.from_list(rows), kept, counts)


def _rendered(renderer: Renderer) -> int:
    return renderer.counts["rendered"] + renderer.counts["refused"]


def _render_groups(groups: list[list[Comparison]], renderer: Renderer, counts: dict[str, int], refused: list):
    """(row, pairs kept) for each group that has a pair left. Each distinct completion of a group is rendered once."""
    conversations, where_is = [], {}
    for g, group in enumerate(groups):
        for pair in group:
            for completion in (pair.chosen, pair.rejected):
                key = (g, json.dumps(completion, sort_keys=True, default=str))
                if key not in where_is:
                    where_is[key] = len(conversations)
                    conversations.append((pair.prompt, completion, pair.tools, pair.origin))
    faults: list[tuple[int, DataError]] = []
    rendered = renderer.render_all(conversations, faults)
    lost = {place for place, _ in faults}
    refused += faults
    for g, group in enumerate(groups):
        row: dict[str, list] = {"sequences": [], "chosen": [], "rejected": [], "margin": [], "weight": []}
        places: dict[int, int] = {}
        kept = []
        for pair in group:
            sides = [
                where_is[(g, json.dumps(side, sort_keys=True, default=str))] for side in (pair.chosen, pair.rejected)
            ]
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
                if side not in places:
                    places[side] = len(row["sequences"])
                    row["sequences"].append(rendered[side].ids)
                row[name].append(places[side])
            row["margin"].append(pair.margin or 0.0)
            row["weight"].append(pair.weight)
            kept.append(pair)
        if kept:
            yield row, kept


# ---- the trainer --------------------------------------------------------------------------------------------------


class OutcomeTrainer(RewardTrainer):
    """TRL's RewardTrainer on rendered rows. `label_smoothing`: see `bradley_terry`."""

    def __init__(self, *args: Any, label_smoothing: float = 0.0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.label_smoothing = label_smoothing

    def _prepare_dataset(
        self, dataset: Dataset, processing_class: Any, args: RewardConfig, dataset_name: str
    ) -> Dataset:
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["sequences", "chosen", "rejected", "margin", "weight"]

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ):
        pairs = {name: inputs.pop(name) for name in PAIR_FIELDS}
        tokens = inputs.pop("tokens")
        outputs = model(**inputs, use_cache=False)
        rewards = outputs.logits.squeeze(-1).float()
        chosen, rejected = rewards[pairs["chosen"]], rewards[pairs["rejected"]]
        loss = bradley_terry(
            chosen, rejected, margin=pairs["margin"], weight=pairs["weight"], label_smoothing=self.label_smoothing
        )
        if self.args.center_rewards_coefficient is not None:
            loss = loss + self.args.center_rewards_coefficient * centering(chosen, rejected, pairs["weight"])
        check_finite(loss, model, self.state)
        self._collect_metrics(rewards.detach(), (chosen - rejected).detach(), tokens)
        return (loss, outputs) if return_outputs else loss

    def _collect_metrics(self, rewards: torch.Tensor, difference: torch.Tensor, tokens: torch.Tensor) -> None:
        """Keep one value for each pair and each reward: TRL's `log` averages the lists, so its means are over pairs."""
        mode = "train" if self.model.training else "eval"
        metrics = self._metrics[mode]
        if mode == "train":
            self._total_train_tokens += self.accelerator.gather(tokens).sum().item()
        metrics["num_tokens"] = [self._total_train_tokens]
        difference, rewards = self._gather_ragged(difference), self._gather_ragged(rewards)
        metrics["accuracy"] += ((difference > 0).float() + 0.5 * (difference == 0).float()).tolist()
        metrics["margin"] += difference.tolist()
        metrics["mean_reward"] += rewards.tolist()
        metrics["min_reward"] = [min([*metrics["min_reward"], rewards.min().item()])]
        metrics["max_reward"] = [max([*metrics["max_reward"], rewards.max().item()])]

    def _gather_ragged(self, values: torch.Tensor) -> torch.Tensor:
        """The values of all processes, which may hold different numbers of them: padded with NaN, gathered, cleaned."""
        if self.accelerator.num_processes == 1:
            return values
        gathered = self.accelerator.gather(self.accelerator.pad_across_processes(values, pad_index=float("nan")))
        return gathered[~gathered.isnan()]


# ---- one call -----------------------------------------------------------------------------------------------------


def fit(
    model: Any,
    renderer: Renderer,
    rows: Rows,
    arguments: RewardConfig,
    *,
    head: str,
    eval_rows: Rows | None = None,
    peft_config: Any = None,
    label_smoothing: float = 0.0,
    resume: str | None = None,
    shared_prefix: bool | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Train. Returns the model in memory (a PEFT model when `peft_config` is given) and a summary of the run.

    The beginning that the sides of a pair share is computed once where the model allows it: the same loss and gradients
    in less time (see `packed_batches`). `shared_prefix` False forbids it, True asks for it on a GPU too.

    Raises ModelError when the trainer refuses the model, RunError when the loss is no number.
    """
    identity = run_identity(
        arguments,
        rows.dataset,
        renderer,
        head,
        peft_config=peft_config,
        center_rewards_coefficient=arguments.center_rewards_coefficient,
        label_smoothing=label_smoothing,
    )
    start_run(arguments.output_dir, arguments.process_index, identity, resume)
    try:
        trainer = OutcomeTrainer(
            model=model,
            args=arguments,
            data_collator=PaddedCollator(renderer.tokenizer.pad_token_id),
            train_dataset=rows.dataset,
            eval_dataset=eval_rows.dataset if eval_rows else None,
            processing_class=renderer.tokenizer,
            peft_config=peft_config,
            label_smoothing=label_smoothing,
        )
    except (ValueError, TypeError) as error:
        raise ModelError(f"the model cannot be trained: {error}") from error
    log(f"training: {len(rows.pairs)} pairs in {len(rows.dataset)} rows, {arguments.world_size} process(es)")
    return run(trainer, resume, packed_batches(trainer, shared_prefix))
