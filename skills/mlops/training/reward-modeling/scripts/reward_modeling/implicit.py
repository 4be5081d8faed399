"""Rewards of language models: scale times the log-probability of the answer less that by a reference model.

A DPO model is the reward model of its own training (arXiv:2305.18290, equation 5), up to what depends on the prompt alone;
ImplicitPRM and EurusPRM sum the same up to the end of each step (arXiv:2412.01981, equation 4).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import TokenClassifierOutput

from . import checkpoints
from .console import ModelError
from .precision import best_device, usable
from .pretrained import read_model, read_tokenizer
from .rendering import Rendered, Renderer

TOKENS_TOGETHER = 1024
"""Tokens whose logits over the vocabulary are in memory at a time."""


class Since(nn.Module):
    """The sum at the last of two positions less that at the first."""

    attributes = ()

    def combine(self, sums: torch.Tensor) -> torch.Tensor:
        return sums[:, -1] - sums[:, 0]


class LogRatio(nn.Module):
    """Two causal language models of one vocabulary. Logits are [B, T, 1] sums, in float64, of the tokens up to each position.

    The first token of a row has no probability and counts nothing.
    """

    why_padded = "a log-ratio reads two models"

    def __init__(self, policy: Any, reference: Any, scale: float, *, of_steps: bool):
        super().__init__()
        self.policy, self.reference, self.scale, self.config = policy, reference, scale, policy.config
        self.score = None if of_steps else Since()

    @property
    def device(self) -> torch.device:
        return self.policy.device

    def get_input_embeddings(self) -> nn.Module:
        return self.policy.get_input_embeddings()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> TokenClassifierOutput:
        ratio = _log_probs(self.policy, input_ids, attention_mask) - _log_probs(
            self.reference, input_ids, attention_mask
        )
        sums = nn.functional.pad(self.scale * ratio.double().cumsum(-1), (1, 0))
        return TokenClassifierOutput(logits=sums[..., None])


def _log_probs(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[B, T - 1] log-probabilities, in fp32, of each token but the first."""
    states = model.get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state[:, :-1]
    wanted, head, cap = ids[:, 1:].flatten(), model.get_output_embeddings(), model.config.get_text_config()
    softcap, parts = getattr(cap, "final_logit_softcapping", None), []
    for part, tokens in zip(states.flatten(0, 1).split(TOKENS_TOGETHER), wanted.split(TOKENS_TOGETHER), strict=True):
        logits = head(part).float()
        if softcap:
            logits = softcap * torch.tanh(logits / softcap)
        parts.append(logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1))
    return torch.cat([*parts, states.new_zeros(0)]).view(len(ids), -1)


def load_log_ratio(
    path: str, reference: str, *, dtype: str, device: str | None, scale: float = 1.0, of_steps: bool = False
) -> checkpoints.Loaded:
    """A language model and its reference, as one reward model. Raises ModelError when they do not share a vocabulary."""
    from transformers import AutoModelForCausalLM

    device, tokenizer = usable(device or best_device()), read_tokenizer(path)
    own, other = tokenizer.get_vocab(), read_tokenizer(reference).get_vocab()
    if own != other:
        differ = len(own.items() ^ other.items())
        raise ModelError(
            f"{path} and {reference} have other vocabularies ({differ} tokens differ): their log-probabilities are not of the same tokens",
            hint="give the model that its training started from as --reference_model_name_or_path",
        )
    models, notes = (
        [],
        [f"reward: {scale:g} times the log-probability of the answer by {path} less that by {reference}"],
    )
    for name in (path, reference):
        model, missing, more = read_model(
            AutoModelForCausalLM, name, scores=False, strict=True, dtype=getattr(torch, dtype)
        )
        if missing:
            raise ModelError(
                f"{name} lacks {len(missing)} weights, the first is {missing[0]}: it is not a language model"
            )
        models.append(model.eval().to(device))
        notes += more
    if tokenizer.pad_token is None:  # any token will do after the mask
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    tokenizer.padding_side, models[0].config.get_text_config().pad_token_id = "right", tokenizer.pad_token_id
    return checkpoints.Loaded(LogRatio(*models, scale, of_steps=of_steps).eval(), tokenizer, "loaded", notes)


class AnswerRenderer(Renderer):
    """Conversations with the place where the answer starts: what the template writes after it counts as the answer."""

    def _fit(self, parts: list[list[int]], prompt: Any, completion: Any, tools: Any, origin: Any) -> Rendered | None:
        fitted = super()._fit(parts, prompt, completion, tools, origin)
        start = self._answer_start(parts[0], prompt, tools, origin)
        return fitted and replace(fitted, start=max(start - fitted.cut, 1))
