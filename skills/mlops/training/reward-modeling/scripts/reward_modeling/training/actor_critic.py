"""A policy with its value function, and the batches that both read: padded, or packed so that answers share prompts."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Self

import torch
from torch import Tensor

from .. import checkpoints
from ..attention import PackedInputs, at_least_fp32, flashes, language_logits, packed_inputs
from ..errors import UsageError
from ..guard import reason_against
from ..heads import unwrapped
from ..hf import LoraConfig, Model
from ..packing import pack_together, right_padded
from .loop import without_dropout
from .policy import Policy


@dataclass(frozen=True)
class AnswerBatch:
  """Prompts and answers as models read them, without last tokens, which predict nothing.

  inputs: ids, and a mask or a layout. rows, places: of what predicts each of the L tokens of all answers. tokens: these, [L].
  """

  inputs: PackedInputs
  rows: Tensor
  places: Tensor
  tokens: Tensor

  @classmethod
  def of(
    cls, prompts: Sequence[list[int]], answers: Sequence[list[int]], model: Model, pad_token_id: int, *, packed: bool
  ) -> Self:
    """One padded row an answer, or one flat row in which what they share stands once."""
    sequences = [prompt + answer[:-1] for prompt, answer in zip(prompts, answers, strict=True)]
    where = [(i, place) for i, own in enumerate(sequences) for place in range(len(prompts[i]) - 1, len(own))]
    if packed:
      row = pack_together(sequences)
      own = dict(zip(row.sequences, row.places, strict=True))
      where = [(0, own[i][place]) for i, place in where]
      inputs = packed_inputs(row, model.device)
    else:
      inputs = dict(zip(("input_ids", "attention_mask"), right_padded(sequences, pad_token_id), strict=True))
    inputs = {name: part.to(model.device) for name, part in inputs.items()}
    return cls(inputs, *torch.tensor(where).mT.to(model.device), torch.tensor([*chain(*answers)]).to(model.device))


def log_probs_and_entropy(logits: Tensor, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
  """(log-probability of each token, entropy of each step in nats), both [L], under softmax(logits / temperature).

  logits: [L, V]; tokens: [L]. No gradient flows through the entropy.
  """
  log_p = torch.log_softmax(logits / temperature, dim=-1)
  with torch.no_grad():
    entropy = -(log_p.exp() * log_p).sum(-1)
  return log_p.gather(-1, tokens[:, None]).squeeze(-1), entropy


class ActorCritic(torch.nn.Module):
  """The policy and its value function, in one module for one distributed wrapper.

  forward(batch) -> (log_probs, entropy, values), each [L]: the value is that before the answer token.
  trunk: the value model's own decoder, or None when its head reads the policy's hidden states.
  """

  def __init__(self, policy: Model, trunk: torch.nn.Module | None, head: torch.nn.Module, temperature: float):
    super().__init__()
    self.policy, self.trunk, self.head, self.temperature = policy, trunk, head, temperature

  def forward(self, batch: AnswerBatch) -> tuple[Tensor, Tensor, Tensor]:
    logits, states = language_logits(self.policy, batch.inputs, batch.rows, batch.places)
    if self.trunk is not None:
      states = self.trunk(**batch.inputs, use_cache=False).last_hidden_state[batch.rows, batch.places]
    values = at_least_fp32(self.head(states).squeeze(-1))
    return *log_probs_and_entropy(logits, batch.tokens, self.temperature), values

  def parameter_groups(self, rate: float, value_rate: float) -> list[dict[str, Any]]:
    own = [p for p in self.policy.parameters() if p.requires_grad]
    return [{"params": own, "lr": rate}, {"params": list(self.trained_values().values()), "lr": value_rate}]

  def trained_values(self) -> dict[str, torch.nn.Parameter]:
    own = {id(p) for p in self.policy.parameters()}
    return {name: p for name, p in self.named_parameters() if p.requires_grad and id(p) not in own}


def actor_critic(
  policy: Policy, value_model: str, temperature: float, peft_config: LoraConfig | None = None
) -> ActorCritic:
  """value_model: "policy" (a copy of its trunk with a head of zeros), "shared" (such a head on the policy's own trunk), or
  the path of a decoder with one label, as a reward model is. Raises UsageError when it has another tokenizer.
  """
  base = policy.model
  width = base.config.get_text_config().hidden_size
  head = torch.nn.Linear(width, 1, bias=False)
  torch.nn.init.zeros_(head.weight)
  trunk = copy.deepcopy(base.base_model) if value_model == "policy" else None
  if value_model not in ("policy", "shared"):
    trunk, head = _value_from(value_model, policy)
  if peft_config is not None:
    from peft import get_peft_model

    policy.model = get_peft_model(base, copy.deepcopy(peft_config))
    if trunk is not None:
      value_config = copy.deepcopy(peft_config)
      value_config.task_type = None
      trunk = get_peft_model(trunk, value_config)
  return without_dropout(ActorCritic(policy.model, trunk, head, temperature)).to(policy.device).eval()


def _value_from(path: str, policy: Policy) -> tuple[torch.nn.Module, torch.nn.Module]:
  loaded, reason = checkpoints.load(path, device="cpu"), None
  if checkpoints.scored_at(loaded.model) != "last_token":
    reason = "is an encoder, which sees the whole answer at once and so gives no value for its prefix"
  elif loaded.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
    reason = "has another tokenizer than the policy, so it cannot read the policy's tokens as a value model"
  elif loaded.model.config.num_labels != 1:
    reason = "has several heads, not one value"
  if reason:
    hint = "leave --value_model out: the value model is then made from the policy"
    raise UsageError(f"{path} {reason}", hint=hint)
  return loaded.model.base_model, loaded.model.score


def reference_of(policy: Policy) -> Callable[[], contextlib.AbstractContextManager[torch.nn.Module]]:
  """What opens the reference policy: a frozen copy, or a LoRA policy with its adapters off."""

  @contextlib.contextmanager
  def without_adapter() -> Iterator[torch.nn.Module]:
    with policy.model.disable_adapter():
      yield policy.model

  if hasattr(policy.model, "disable_adapter"):
    return without_adapter
  frozen = copy.deepcopy(policy.model).requires_grad_(False)
  return lambda: contextlib.nullcontext(frozen)


def why_padded(policy: Policy, actor: ActorCritic, wanted: bool | None) -> str | None:
  """None where all models may read packed rows. wanted: None decides by what was measured."""
  for model in map(unwrapped, filter(None, (policy.model, actor.trunk))):
    if reason := reason_against(model, wanted):
      return reason
  unmeasured = wanted is None and flashes(policy.model.device)
  return "PPO was not measured on a GPU (try --shared_prefix true)" if unmeasured else None
