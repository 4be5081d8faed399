"""Rewards of language models: scale times the log-probability of the answer less that by a reference model.

DPO (arXiv:2305.18290, equation 5); ImplicitPRM and EurusPRM: the sum to the end of each step (arXiv:2412.01981, equation 4).
"""

from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import TokenClassifierOutput

from .errors import ModelError
from .golden import GOLDEN_TOLERANCE, largest_difference
from .hf import Model, Tokenizer
from .kinds import PROCESS
from .precision import usable
from .pretrained import read_language_model, read_tokenizer
from .public_table import Family
from .rendering import Rendered, Renderer
from .step_rendering import RenderedSolution, StepRenderer

TOKENS_TOGETHER = 1024
"""Whose logits over the vocabulary are in memory at a time."""


class Since(nn.Module):
  attributes = ()

  def combine(self, sums: Tensor) -> Tensor:
    return sums[:, -1] - sums[:, 0]


class LogRatio(nn.Module):
  """Two causal language models. Logits are [B, T, 1] sums, in float64, of the tokens up to each position but the first."""

  why_padded = "a log-ratio reads two models"

  def __init__(self, policy: Model, reference: Model, scale: float, *, of_steps: bool):
    super().__init__()
    self.policy, self.reference, self.scale, self.config = policy, reference, scale, policy.config
    self.score = None if of_steps else Since()

  @property
  def device(self) -> torch.device:
    return self.policy.device

  def get_input_embeddings(self) -> nn.Module:
    return self.policy.get_input_embeddings()

  def forward(self, input_ids: Tensor, attention_mask: Tensor) -> TokenClassifierOutput:
    own, other = (_log_probs(model, input_ids, attention_mask) for model in (self.policy, self.reference))
    sums = nn.functional.pad(self.scale * (own - other).double().cumsum(-1), (1, 0))
    return TokenClassifierOutput(logits=sums[..., None])


def _log_probs(model: Model, ids: Tensor, mask: Tensor) -> Tensor:
  states = model.get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state[:, :-1]
  wanted, head, parts = ids[:, 1:].flatten(), model.get_output_embeddings(), []
  softcap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
  for part, tokens in zip(states.flatten(0, 1).split(TOKENS_TOGETHER), wanted.split(TOKENS_TOGETHER), strict=True):
    logits = head(part).float()
    if softcap:
      logits = softcap * torch.tanh(logits / softcap)
    parts.append(logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1))
  return torch.cat([*parts, states.new_zeros(0)]).view(len(ids), -1)


def load_log_ratio(
  path: str, reference: str, *, dtype: str, device: str | None, scale: float = 1.0, of_steps: bool = False
) -> tuple[LogRatio, Tokenizer, list[str]]:
  """(a language model and its reference as one, tokenizer, notes). Raises ModelError when they share no vocabulary."""
  device, tokenizer = usable(device), read_tokenizer(path)
  differ = len(tokenizer.get_vocab().items() ^ read_tokenizer(reference).get_vocab().items())
  if differ:
    what = f"{path} and {reference} have other vocabularies ({differ} tokens differ), so no log-ratio"
    raise ModelError(what, hint="--reference_model_name_or_path is the model that its training started from")
  notes = [f"reward: {scale:g} times the log-probability of the answer by {path} less that by {reference}"]
  models, more = zip(*(read_language_model(name, getattr(torch, dtype)) for name in (path, reference)), strict=True)
  return LogRatio(*models, scale, of_steps=of_steps).to(device), tokenizer, [*notes, *chain(*more)]


class AnswerRenderer(Renderer):
  """Tells where the answer starts; what the template writes after it counts as the answer."""

  reads_written = False

  def _fit(self, parts: list[list[int]], *given: object) -> Rendered | None:
    fitted, (prompt, _, tools, origin) = super()._fit(parts, *given), given
    start = self._answer_start(parts[0], prompt, tools, origin)
    return fitted and replace(fitted, start=max(start - fitted.cut, 1))


class LogRatioRenderer(StepRenderer):
  """Of a model made by train_process.py: the first position is that before the answer."""

  from_start = True

  def _fit(self, parts: list[list[int]], *given: object) -> RenderedSolution | None:
    fitted = super()._fit(parts, *given)
    if fitted is None:
      return None
    before = fitted.positions[0] - len(parts[1]) - len(self.separator_ids)
    return replace(fitted, positions=[max(before, 0), *fitted.positions])


def golden_ratios(model: LogRatio, renderer: StepRenderer) -> list[list[float]]:
  """Of fixed texts: by them a reference that is not the one of training is told."""
  plain, found = LogRatioRenderer(renderer.tokenizer, max_length=None, step_separator=renderer.step_separator), []
  with torch.inference_mode():
    for text in PROCESS.golden:
      one = plain.render(text["prompt"], text["steps"])
      ids = torch.tensor([one.ids], device=model.device)
      start, *ends = model(ids, torch.ones_like(ids)).logits[0, one.positions, 0] / model.scale
      found.append([float(end - start) for end in ends])
  return found


def own_renderer(model: LogRatio, tokenizer: Tokenizer, family: Family, path: str, **rules: object) -> LogRatioRenderer:
  """Raises ModelError where the log-ratios of fixed texts are not those of the saved model."""
  renderer = LogRatioRenderer(tokenizer, step_separator=family.tag, **rules)
  renderer.family = family
  dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
  difference = largest_difference(golden_ratios(model, renderer), family.own["golden"])
  if not difference <= GOLDEN_TOLERANCE[dtype]:
    what = f"{path} does not score as when it was saved: log-ratios of fixed texts differ by {difference:.2g}"
    raise ModelError(what, hint=f"its reference was {family.reference}: give that as --reference_model_name_or_path")
  return renderer
