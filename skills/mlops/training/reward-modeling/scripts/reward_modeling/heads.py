"""The part of a reward model that makes the score: where it reads, its name and last layer, in fp32."""

from typing import Any

from .errors import ModelError
from .hf import Model
from .kinds import PROCESS, kind_of_architecture

HEAD_NAMES = ("score", "classifier", "classification_head")


def scored_at(model: Model) -> str:
  """A decoder is read at the last token of an answer or separator, an encoder at its pooled state; of steps, at the end of
  a row for each ("prefix")."""
  base = unwrapped(model)
  if kind_of_architecture(type(base).__name__) is PROCESS:
    return "prefix" if reads_ahead(base) else "last_token"
  return "last_token" if hasattr(base, "score") else "pooled"


def reads_ahead(model: Model) -> bool:
  """Whether a later token changes what the model makes of an earlier one, by two passes: class names do not tell."""
  import torch

  device, was_training = next(model.parameters()).device, model.training
  model.eval()
  with torch.inference_mode():
    rows = torch.tensor([[[1, 2, 1, last]] for last in (1, 2)], device=device)
    trunk = getattr(model, model.base_model_prefix)
    states = [trunk(input_ids=row, attention_mask=torch.ones_like(row))[0][:, :-1] for row in rows]
  model.train(was_training)
  return not torch.allclose(states[0].float(), states[1].float(), rtol=0.0, atol=1e-4)


def head_name(model: Model) -> str:
  """Name of the module that makes the score, as PEFT's `modules_to_save` wants it."""
  base = unwrapped(model)
  name = next((name for name in HEAD_NAMES if hasattr(base, name)), None)
  if name is None:
    hint = "use an AutoModelForSequenceClassification or AutoModelForTokenClassification architecture"
    raise ModelError(f"{type(base).__name__} has no score head this project knows", hint=hint)
  return name


def head_projection(model: Model) -> Any:
  import torch

  base = unwrapped(model)
  modules = [module for module in getattr(base, head_name(model)).modules() if isinstance(module, torch.nn.Linear)]
  return [module for module in modules if module.out_features == base.config.num_labels][-1]


def keep_head_in_float32(model: Model) -> None:
  """bf16 leaves few distinct rewards, and so ties."""
  import torch

  projection = head_projection(model).float()

  def forward(hidden: torch.Tensor) -> torch.Tensor:
    weight, bias = projection.weight, projection.bias
    with torch.autocast(hidden.device.type, enabled=False):  # FSDP lends the weight in the precision of its layers
      return torch.nn.functional.linear(hidden.float(), weight.float(), bias if bias is None else bias.float())

  projection.forward = forward


def unwrapped(model: Model) -> Any:
  return model.get_base_model() if hasattr(model, "get_base_model") else model
