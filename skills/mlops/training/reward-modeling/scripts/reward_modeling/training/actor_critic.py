"""A policy with its value function, and the batches that both read: padded, or packed so that answers share prompts."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import checkpoints
from ..attention import Layout, at_least_fp32, by_blocks, filled, sent
from ..errors import UsageError
from ..guard import reason_against, speed_decides
from ..heads import unwrapped
from ..hf import Model
from ..packing import pack_together, right_padded
from .loop import without_dropout
from .policy import Policy, left_padded

if TYPE_CHECKING:
  from peft import LoraConfig, PeftModel
  from transformers import PreTrainedModel


@dataclass(frozen=True)
class AnswerBatch:
  """Prompts and answers as models read them. inputs: R rows, with a mask or a layout. keep: transformers' logits_to_keep.

  where: row and column, among what is kept, of what predicts each of the L answer tokens, answer after answer. tokens: [L].
  """

  inputs: dict[str, Any]
  keep: int | Tensor
  where: tuple[Tensor, Tensor]
  tokens: Tensor

  @classmethod
  def padded(
    cls, prompts: Sequence[list[int]], answers: Sequence[list[int]], pad_token_id: int, device: torch.device
  ) -> AnswerBatch:
    """[B, P + N]: prompts padded on the left to P, answers on the right to N, of which N + 1 columns are kept."""
    first, first_mask = left_padded(prompts, pad_token_id)
    second, live = right_padded(answers, pad_token_id)
    mask = torch.cat([first_mask, live], 1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    tensors = [torch.cat([first, second], 1), mask, positions, *live.nonzero(as_tuple=True), second[live.bool()]]
    ids, mask, positions, rows, columns, tokens = sent(tensors, device)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    return cls(inputs, second.shape[1] + 1, (rows, columns), tokens)

  @classmethod
  def packed(cls, prompts: Sequence[list[int]], answers: Sequence[list[int]], model: Model) -> AnswerBatch:
    """[1, T]: what answers share stands once, and last tokens, which predict nothing, not at all."""
    row = pack_together([prompt + answer[:-1] for prompt, answer in zip(prompts, answers, strict=True)])
    places: list[list[int]] = [[] for _ in prompts]
    for number, own in zip(row.sequences, row.places, strict=True):
      places[number] = own[len(prompts[number]) - 1 :]
    keep, columns = torch.tensor([*chain(*places)]).unique(return_inverse=True)
    tensors = [
      *filled(row, model.device),
      keep,
      columns,
      columns.new_zeros(len(columns)),
      torch.tensor([*chain(*answers)]),
    ]
    ids, positions, keep, columns, rows, tokens = sent(tensors, model.device)
    layout = Layout(row, model.config if by_blocks(model.device) else None)
    return cls({"input_ids": ids, "position_ids": positions, "layout": layout}, keep, (rows, columns), tokens)


def _kept(states: Tensor, keep: int | Tensor) -> Tensor:
  return states[:, -keep:] if isinstance(keep, int) else states[:, keep]


def _forward(model: torch.nn.Module, batch: AnswerBatch, **more: bool) -> Any:
  """With the inputs that it takes: some know no position ids, some compute all logits or none."""
  parameters = inspect.signature(unwrapped(model).forward).parameters
  inputs = batch.inputs | {"use_cache": False, "logits_to_keep": batch.keep}
  for name in ("position_ids", "use_cache", "logits_to_keep"):
    if name not in parameters:
      del inputs[name]
  out = model(**inputs, **more)
  if "logits_to_keep" not in parameters and "logits" in out:
    out.logits = _kept(out.logits, batch.keep)
  return out


def answer_logits(model: torch.nn.Module, batch: AnswerBatch, *, hidden: bool = False) -> tuple[Tensor, Tensor | None]:
  """What is kept of (logits [R, K, V] in fp32, the hidden states [R, K, d] under them)."""
  out = _forward(model, batch, output_hidden_states=hidden)
  return at_least_fp32(out.logits), _kept(out.hidden_states[-1], batch.keep) if hidden else None


def log_probs_and_entropy(logits: Tensor, batch: AnswerBatch, temperature: float) -> tuple[Tensor, Tensor]:
  """(log-probability of each answer token, entropy of each step in nats), both [L], under softmax(logits / temperature).

  No gradient flows through the entropy.
  """
  log_p = torch.log_softmax(logits / temperature, dim=-1)
  with torch.no_grad():
    entropy = -(log_p.exp() * log_p).sum(-1)
  return log_p[*batch.where, batch.tokens], entropy[batch.where]


class ActorCritic(torch.nn.Module):
  """The policy and its value function, in one module for one distributed wrapper.

  forward(batch) -> (log_probs, entropy, values), each [L]: the value is that before the answer token.
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

  def forward(self, batch: AnswerBatch) -> tuple[Tensor, Tensor, Tensor]:
    logits, states = answer_logits(self.policy, batch, hidden=self.trunk is None)
    if self.trunk is not None:
      states = _kept(_forward(self.trunk, batch).last_hidden_state, batch.keep)
    values = at_least_fp32(self.head(states).squeeze(-1)[batch.where])
    return *log_probs_and_entropy(logits, batch, self.temperature), values

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
  return "PPO was not measured on a GPU (try --shared_prefix true)" if speed_decides(policy.model, wanted) else None
