"""Whether packed rows are faster than padded batches on a GPU, by what was measured on one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .hf import Model
from .packing import unique_tokens


@dataclass(frozen=True)
class Speed:
    """Seconds a token, and of a batch at least, where the host sets the pace. Packed tokens are unique ones."""

    padded: float
    packed: float
    padded_batch: float = 0.0
    packed_batch: float = 0.0


SCORING = {896: Speed(3.1e-6, 4.3e-6), 4096: Speed(32e-6, 33e-6)}
TRAINING = {896: Speed(9.2e-6, 12e-6, 0.09, 0.12)}
"""By the hidden size that was measured, which stands for all up to the next: Qwen2 0.5B and Llama 3 8B in bf16 on an NVIDIA H200,
torch 2.11, November 2026 (references/scaling.md). In training the padding counts, in scoring batches are sorted by length.
"""
COMPILING = 7.0
"""Seconds before the first packed row."""


def seconds_saved(speeds: Mapping[int, Speed], hidden: int, padded: int, packed: int, batches: int = 1) -> float | None:
    """By computing `packed` tokens instead of `padded` ones; None where no model so small was measured."""
    measured = [speed for size, speed in speeds.items() if size <= hidden]
    if not measured:
        return None
    speed = measured[-1]
    times = ((speed.padded * padded, speed.padded_batch), (speed.packed * packed, speed.packed_batch))
    slow, fast = (max(seconds, batches * least) for seconds, least in times)
    return slow - fast


class Gain:
    """Asked call after call. Kernels are compiled when what they would have saved so far is what compiling takes."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def reason_against(self, saved: float | None, half: bool) -> str | None:
        """None where packed rows are faster. half: whether matrix products are in 16 bits."""
        if not half or saved is None:
            return f"{'a model so small' if half else 'float32'} was not measured on a GPU (try --shared_prefix true)"
        if saved <= 0:
            return "too few tokens are shared for packed rows to be faster on a GPU"
        self.seconds += saved
        return (
            None if self.seconds >= COMPILING else "packed rows would save less time than their kernels take to compile"
        )


def hidden_size(model: Model) -> int:
    return model.config.get_text_config().hidden_size


def saved_in_training(
    hidden: int, rows: Sequence[Sequence[Sequence[int]]], per_batch: int, batches: float, share: bool
) -> float | None:
    """Seconds in a run of so many batches like those of `rows`, the first of its data: sequences of token ids each."""
    padded = packed = made = 0
    for start in range(0, len(rows), per_batch):
        sequences = [sequence for row in rows[start : start + per_batch] for sequence in row]
        padded += len(sequences) * max(map(len, sequences))
        packed += unique_tokens(sequences) if share else sum(map(len, sequences))
        made += 1
    saved = seconds_saved(TRAINING, hidden, padded, packed, made)
    return saved and saved * batches / made
