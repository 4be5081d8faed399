"""Answers of a policy, each drawn by its own random numbers.

answers = sample(policy, prompts, max_new_tokens=32, seed=0)        # token ids; policy.reply(ids) are the messages
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy
import torch

from ..console import progress
from ..heads import unwrapped
from ..packing import right_padded
from .policy import Policy


class Draw:
    """A logits processor that draws the next token itself, by one uniform number a row and step: all others become minus
    infinity, so that greedy search takes it. A row's answer depends on its own numbers only, not on its batch."""

    def __init__(self, uniforms: torch.Tensor, temperature: float):
        self.uniforms, self.temperature, self.step = uniforms, temperature, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        cumulative = torch.softmax(scores.float() / self.temperature, dim=-1).cumsum(dim=-1)
        threshold = self.uniforms[:, self.step, None] * cumulative[:, -1:]
        drawn = torch.searchsorted(cumulative, threshold, right=True).clamp(max=scores.shape[-1] - 1)
        self.step += 1
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)


def uniforms(seed: int, number: int, count: int) -> torch.Tensor:
    """[count] numbers in [0, 1) of answer `number` of a run with this seed, wherever it is computed."""
    return torch.from_numpy(numpy.random.default_rng([seed, number]).random(count, dtype=numpy.float32))


def _generate(
    policy: Policy, prompts: list[list[int]], max_new_tokens: int, temperature: float, draws: torch.Tensor
) -> list[list[int]]:
    """B rows of ids. vLLM and transformers' continuous batching cannot draw by given numbers, as `Draw` does."""
    from transformers import GenerationConfig, LogitsProcessorList

    ids, mask = left_padded(prompts, policy.tokenizer.pad_token_id)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=list(policy.end_tokens),
        pad_token_id=policy.tokenizer.pad_token_id,
    )
    drawing = [Draw(draws.to(policy.device), temperature)] if temperature else []
    written = unwrapped(policy.model).generate(
        input_ids=ids.to(policy.device),
        attention_mask=mask.to(policy.device),
        generation_config=config,
        logits_processor=LogitsProcessorList(drawing),
    )
    return written[:, ids.shape[1] :].tolist()


def sample(
    policy: Policy,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
    batch_size: int = 64,
    label: str | None = None,
) -> list[list[int]]:
    """One answer for each prompt, as token ids with the end token where it came. In input order.

    prompts: rendered by `Policy.prompt_ids`; for several answers repeat a prompt. numbers: of each answer's random draws
    (0, 1, 2, ...): the same seed and number give the same answer in any batch, up to rounding of probabilities.
    temperature 0 takes the most likely token. label: of a progress bar, if one is wanted.
    """
    numbers = range(len(prompts)) if numbers is None else numbers
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    answers: list[list[int]] = [[] for _ in prompts]
    bar = progress(label, len(prompts)) if label else contextlib.nullcontext(lambda done: None)
    with torch.inference_mode(), bar as advance:
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            draws = torch.stack([uniforms(seed, numbers[place], max_new_tokens) for place in places])
            rows = _generate(policy, [prompts[place] for place in places], max_new_tokens, temperature, draws)
            for place, row in zip(places, rows, strict=True):
                answers[place] = up_to_end(row, policy.end_tokens)
            advance(len(places))
    return answers


def up_to_end(row: list[int], end_tokens: Sequence[int]) -> list[int]:
    """The row up to and with its first end token; what follows in a batch is padding."""
    return next((row[: place + 1] for place, token in enumerate(row) if token in end_tokens), row)


def left_padded(rows: Sequence[Sequence[int]], pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask), both [rows, longest row]: every row ends in the last column."""
    ids, mask = right_padded([row[::-1] for row in rows], pad_token_id)
    return ids.flip(1), mask.flip(1)
