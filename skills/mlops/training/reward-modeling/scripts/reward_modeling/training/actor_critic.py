"""A policy with its value function. Batches [B, P + N]: prompts padded on the left to P, answers on the right to N."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import checkpoints
from ..errors import UsageError
from ..heads import unwrapped
from ..packing import right_padded
from .loop import without_dropout
from .policy import Policy, left_padded

if TYPE_CHECKING:
  from peft import LoraConfig, PeftModel
  from transformers import PreTrainedModel


def joined_rows(
  prompts: Sequence[list[int]], answers: Sequence[list[int]], pad_token_id: int
) -> tuple[Tensor, Tensor, int]:
  """(ids [B, P + N], mask [B, P + N], N)."""
  first, first_mask = left_padded(prompts, pad_token_id)
  second, second_mask = right_padded(answers, pad_token_id)
  return torch.cat([first, second], 1), torch.cat([first_mask, second_mask], 1), second.shape[1]


def _forward(model: torch.nn.Module, ids: Tensor, mask: Tensor, width: int, **more: bool) -> Any:
  """With the inputs that it takes: some know no position ids, some compute all logits or none."""
  inputs = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0), "use_cache": False, "logits_to_keep": width + 1}
  parameters = inspect.signature(unwrapped(model).forward).parameters
  taken = {name: value for name, value in inputs.items() if name in parameters}
  return model(input_ids=ids, attention_mask=mask, **taken, **more)


def answer_logits(
  model: torch.nn.Module, ids: Tensor, mask: Tensor, width: int, *, hidden: bool = False
) -> tuple[Tensor, Tensor | None]:
  """(logits [B, N, V] in fp32 that predict the last `width` = N columns, the hidden states [B, N, d] under them)."""
  out = _forward(model, ids, mask, width, output_hidden_states=hidden)
  states = out.hidden_states[-1][:, -width - 1 : -1] if hidden else None
  return out.logits[:, -width - 1 : -1].float(), states


def log_probs_and_entropy(logits: Tensor, answers: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
  """(log-probability of each answer token, entropy of each step in nats), both [B, N], under softmax(logits / temperature).

  logits: [B, N, V]; answers: [B, N].
  """
  log_p = torch.log_softmax(logits / temperature, dim=-1)
  return log_p.gather(-1, answers[..., None]).squeeze(-1), -(log_p.exp() * log_p).sum(-1)


class ActorCritic(torch.nn.Module):
  """The policy and its value function, in one module for one distributed wrapper.

  forward(ids, mask, N) -> (log_probs, entropy, values), each [B, N]; values[:, t] is the value before answer token t.
  trunk: the value model's own decoder, or None when its head reads the policy's hidden states.
  """

  def __init__(
    self,
    policy: PreTrainedModel | PeftModel,
    trunk: torch.nn.Module | None,
    head: torch.nn.Module,
    temperature: float,
  ):
    super().__init__()
    self.policy, self.trunk, self.head, self.temperature = policy, trunk, head, temperature

  def forward(self, ids: Tensor, mask: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    logits, states = answer_logits(self.policy, ids, mask, width, hidden=self.trunk is None)
    if self.trunk is not None:
      states = _forward(self.trunk, ids, mask, width).last_hidden_state[:, -width - 1 : -1]
    values = self.head(states).squeeze(-1).float()
    return *log_probs_and_entropy(logits, ids[:, -width:], self.temperature), values

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
