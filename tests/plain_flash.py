"""FlashAttention's variable-length kernel by its definition, for tests of what a GPU runs: in any precision, on a CPU."""

import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # after tests, which have modules of the same names

from gpu_kernels import Spans, plain_backward, plain_forward

from reward_modeling import attention


@torch.library.custom_op("reward_modeling_tests::flash", mutates_args={})
def flash(
  q: Tensor, k: Tensor, v: Tensor, queries: Tensor, keys: Tensor, longest: list[int], scale: float, window: int
) -> tuple[Tensor, Tensor]:
  assert longest == [starts.diff().max().item() for starts in (queries, keys)], "the kernel computes no more than that"
  return plain_forward(q, k, v, Spans(queries, keys, *longest), scale, True, window or None)


@torch.library.custom_op("reward_modeling_tests::flash_backward", mutates_args={})
def flash_backward(
  grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, queries: Tensor, keys: Tensor,
  longest: list[int], scale: float, window: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
  return plain_backward(grad, q, k, v, out, lse, Spans(queries, keys, *longest), scale, True, window or None)


@flash.register_fake
def _(q, *more):
  dtype = torch.promote_types(q.dtype, torch.float32)
  return torch.empty_like(q), q.new_empty((q.shape[1], q.shape[0]), dtype=dtype)


@flash_backward.register_fake
def _(grad, q, k, v, *more):
  return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def keep(ctx, inputs, output):
  tensors, ctx.more = inputs[:5], inputs[5:]
  ctx.save_for_backward(*tensors[:3], *output, *tensors[3:])


def gradients(ctx, grad, _):
  return *flash_backward(grad, *ctx.saved_tensors, *ctx.more), None, None, None, None, None


flash.register_autograd(gradients, setup_context=keep)


def plain(query, key, value, paths, scaling, window):
  scale = query.shape[-1] ** -0.5 if scaling is None else scaling
  assert query.stride(-1) == key.stride(-1) == value.stride(-1) == 1, "as the kernel asks"
  return flash(
    query, key, value, paths.query_starts, paths.key_starts, list(paths[3:]), scale, window or 0
  )[0]  # fmt: skip


def use(patch) -> None:
  """CPUs compute rows as a GPU does, in any precision."""
  patch.setattr(attention, "FLASH_DEVICES", ("cpu",))
  patch.setattr(attention, "FLASH_DTYPES", (torch.float64, torch.float32, torch.bfloat16))
  patch.setattr(attention, "flash_attention", plain)
