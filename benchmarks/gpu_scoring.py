"""The part "score" of gpu.py: padded ways, vLLM where it can be imported, and shared prefixes, on the same rows."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any

from gpu_kernels import KERNELS, attending_by
from gpu_machine import Found, Machine, Row, attempted, linear_weights, word_tokenizer
from scoring import PAD


def padded_scores(model: Any, batches: Iterable[list[int]], rows: list[list[int]]) -> list[float]:
  import torch

  from reward_modeling.forward import padded_logits

  found = torch.empty(len(rows))
  with torch.inference_mode():
    for batch in batches:
      found[batch] = padded_logits(model, [(rows[i], [len(rows[i]) - 1]) for i in batch], PAD)[:, 0].float().cpu()
  return found.tolist()


def packed_scores(model: Any, rows: list[list[int]], tokens: int) -> list[float]:
  from reward_modeling.forward import logits_at

  found = [0.0] * len(rows)
  ends = [(row, [len(row) - 1]) for row in rows]
  for numbers, logits in logits_at(model, ends, padded=False, pad_token_id=PAD, max_tokens=tokens):
    for number, score in zip(numbers, logits[:, 0].tolist(), strict=True):
      found[number] = score
  return found


def unshared_scores(model: Any, rows: list[list[int]], tokens: int) -> list[float]:
  """As OpenRLHF packs: no padding, and every token of every sequence."""
  import torch

  from reward_modeling.attention import outputs_at, shared_prefix
  from reward_modeling.packing import pack

  found = torch.empty(len(rows))
  with torch.inference_mode(), shared_prefix(model):
    for row in pack(rows, tokens, share=False):
      found[row.sequences] = outputs_at(model, model.score, row, row.ends)[:, 0].float().cpu()
  return found.tolist()


Scored = Callable[[], list[float]]


def padded_ways(model: Any, rows: list[list[int]]) -> Iterator[tuple[str, Scored]]:
  from reward_modeling.packing import padded_batches

  by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))

  def budget(tokens: int) -> list[list[int]]:
    return [[i for (i,) in batch] for batch in padded_batches(range(len(rows)), rows, tokens)]

  sixteen = [by_length[i : i + 16] for i in range(0, len(rows), 16)]
  yield "padded, 8192 tokens", lambda: padded_scores(model, budget(8192), rows)
  yield "padded, 32768 tokens", lambda: padded_scores(model, budget(32768), rows)
  yield "padded, 16 by length", lambda: padded_scores(model, sixteen, rows)


def packed_ways(model: Any, rows: list[list[int]]) -> Iterator[tuple[str, Scored]]:
  from reward_modeling.gpu_speed import compile_layers, restore_layers
  from reward_modeling.rendering import Renderer
  from reward_modeling.scoring import RewardModel

  yield "packed, nothing shared, 16384", lambda: unshared_scores(model, rows, 16384)
  for kernel in KERNELS:

    def by_kernel(kernel: str = kernel) -> list[float]:
      with attending_by(kernel):
        return packed_scores(model, rows, 16384)

    yield f"shared, 16384{f', {kernel}' * (kernel != 'flash')}", by_kernel
  compile_layers(model)
  yield "packed, nothing shared, 16384, compiled", lambda: unshared_scores(model, rows, 16384)
  for tokens in (16384, 32768):
    yield f"shared, {tokens}, compiled", lambda tokens=tokens: packed_scores(model, rows, tokens)
  ours = RewardModel(model, Renderer(word_tokenizer(), max_length=None), shared_prefix=True)
  yield "RewardModel, compiled", lambda: ours.score_ids(rows)
  restore_layers(model)


def score(machine: Machine) -> Found:
  import torch

  from reward_modeling.heads import keep_head_in_float32
  from reward_modeling.packing import unique_tokens

  names = ("pairs like HH", "pairs of single turns", "best of 16, 1000-token prompts")
  plan = [("0.5B", torch.bfloat16, names, 0.6), ("8B", torch.bfloat16, (names[2], names[0]), 0.1)]
  plan.append(("0.5B", torch.float32, names[:1], 0.05))
  found: Found = {}
  for size, dtype, works, part in plan:
    model = machine.model(size, dtype)
    keep_head_in_float32(model)
    for work in works[: 1 if machine.tiny else None]:
      rows = machine.shape(work, part).sequences(0)
      tokens, unique = sum(map(len, rows)), unique_tokens(rows)
      operations = 2 * linear_weights(model) * unique
      reference: list[float] = []
      for way, run in chain(padded_ways(model, rows), packed_ways(model, rows), vllm_way(machine, model, rows)):
        measured = partial(measure, machine, run, tokens, operations, dtype, reference)
        found[f"{size} {str(dtype)[6:]}, {work} ({tokens} tokens, {unique} unique): {way}"] = attempted(measured)
    del model
    machine.free()
  return found


def measure(machine: Machine, run: Scored, tokens: int, operations: float, dtype: Any, reference: list[float]) -> Row:
  """reference: scores of the first way, which is kept here."""
  times, scores = machine.timed(run), run()
  reference[:] = reference or scores
  difference = max(abs(a - b) for a, b in zip(scores, reference, strict=True))
  more = {"largest difference": difference, "spread": statistics.pstdev(reference)}
  share = machine.share(operations, times["seconds"], dtype)
  return {"tokens a second": tokens / times["seconds"], "share": share, **times, **more}


def vllm_way(machine: Machine, model: Any, rows: list[list[int]]) -> Iterator[tuple[str, Scored]]:
  """vLLM reads a saved folder; its prefix cache shares prefixes too. Only where it is installed."""
  if not machine.cuda:
    return
  made: list[Any] = []

  def run() -> list[float]:
    if not made:
      from vllm import LLM

      folder = tempfile.mkdtemp()
      model.save_pretrained(folder)
      word_tokenizer().save_pretrained(folder)
      made.append(LLM(model=folder, runner="pooling", enable_prefix_caching=True, gpu_memory_utilization=0.5))
    outputs = made[0].classify([{"prompt_token_ids": row} for row in rows], use_tqdm=False)
    return [output.outputs.probs[0] for output in outputs]

  yield "vLLM, classify", run
