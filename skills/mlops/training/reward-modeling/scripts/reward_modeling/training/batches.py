"""Rows of comparisons -> one training batch: padded, or packed so that a shared prompt is computed once.

Both give the trainer the same loss in the same order; a test compares them. `tokens` counts what TRL counts: every token
of every sequence, shared or not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from ..checkpoints import unwrapped
from ..console import log
from ..packing import pack_together, right_padded

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
def packed_batches(trainer: Any) -> Iterator[str | None]:
    """Let a trainer run on packed batches inside the block, where its model allows it. Yields why not, or None.

    Two forward hooks do it, so that a distributed wrapper around the model still sees an ordinary forward pass: one keeps
    the head's output for every token, the other replaces the model's output by the scores at `ends`.
    """
    from ..attention import shared_prefix
    from ..sharing import reason_against

    base = unwrapped(trainer.model)
    reason = reason_against(base)
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
