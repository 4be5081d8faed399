"""What packed rows give on a GPU, beside what people use today: speed, share of the card's limit, memory, numbers.

    uv run python benchmarks/gpu.py --out runs/gpu
    uv run python benchmarks/gpu.py --parts env train precision --out runs/gpu
    uv run python benchmarks/gpu.py --device cpu --tiny --out runs/try

Writes gpu.json and gpu.md, headed by the card's name, after every part. "tokens" are all of the sequences, shared ones each
time; "share" is the arithmetic of the linear layers for unique tokens (three times that in training) over the rate of a large
matrix product in the same precision, measured by the part env. "host" is the time of a step until Python has launched it. The
first run of each is not timed; kernels compile there. Parts: env, train (TRL as documented, TRL by length, ours padded, packed
without sharing, shared, in compiled layers, and laid out ahead, as a worker of the loader does), score (padded ways, packed
ones, vLLM where it can be imported), ppo (`gpu_ppo.py`: answers a second, beside TRL's with --trl_path), precision (how far
padded and packed bf16 are from fp32), guard (which models may be packed here), pipeline. Two other attention kernels
(`gpu_kernels.py`) stand beside the one in use in train and score.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

from gpu_machine import Found, Machine, Row, attempted, word_tokenizer
from gpu_ppo import ppo
from gpu_scoring import score
from gpu_training import precision, train
from scoring import spelled


def env(machine: Machine) -> Found:
  import accelerate
  import transformers
  import trl

  found = {module.__name__: {"version": module.__version__} for module in (trl, transformers, accelerate)}
  import torch

  found["torch"] = {"version": torch.__version__}
  for dtype, rate in machine.rates.items():
    found[f"matrix product, {dtype}"] = {"TFLOP/s": rate / 1e12}
  return found


def guard(machine: Machine) -> Found:
  import torch
  from transformers import AutoConfig, AutoModelForSequenceClassification

  from reward_modeling.guard import reason_against

  def checked(family: str) -> Row:
    fields = {"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    fields |= {"head_dim": 64, "intermediate_size": 256, "vocab_size": 512, "pad_token_id": 0, "num_labels": 1}
    config = AutoConfig.for_model(family, **fields)
    model = AutoModelForSequenceClassification.from_config(config).to(machine.device, torch.bfloat16)
    start = time.perf_counter()
    why = reason_against(model, True)
    return {"packed": why or "yes", "seconds": time.perf_counter() - start}

  families = ("qwen2", "qwen3", "llama", "mistral", "gemma2", "gemma3_text", "phi3", "gpt2", "mixtral")
  return {family: attempted(partial(checked, family)) for family in families[: 3 if machine.tiny else 9]}


def pipeline(machine: Machine) -> Found:
  import torch
  from transformers import pipeline as made

  model, tokenizer, found = machine.model("0.5B", torch.bfloat16), word_tokenizer(), {}
  for work in ("pairs like HH", "best of 16, 1000-token prompts"):
    rows = machine.shape(work, 1 / 8).sequences(0)
    texts = [spelled(row) for row in rows]
    for size in (1, 16):
      classify = made("text-classification", model=model, tokenizer=tokenizer, device=machine.device)
      measured = partial(classified, machine, classify, texts, size, sum(map(len, rows)))
      found[f"0.5B bfloat16, {work}: pipeline, batch_size={size}"] = attempted(measured)
  return found


def classified(machine: Machine, classify: Any, texts: list[str], size: int, tokens: int) -> Row:
  options = {"function_to_apply": "none", "add_special_tokens": False, "batch_size": size}
  times = machine.timed(lambda: classify(texts, **options))
  return {"tokens a second": tokens / times["seconds"], **times}


PARTS = {
  "env": env,
  "train": train,
  "score": score,
  "ppo": partial(ppo, trl_path=None),
  "precision": precision,
  "guard": guard,
  "pipeline": pipeline,
}


def markdown(machine: Machine, parts: dict[str, Found]) -> str:
  lines = [f"# {machine.name()}", ""]
  lines += ["Tiny models and texts: a trial of the command, not a measurement.", ""] * machine.tiny
  for part, found in parts.items():
    columns = list(dict.fromkeys(column for row in found.values() for column in row))
    lines += [f"## {part}", "", f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(shown(row.get(column)) for column in columns)} |" for name, row in found.items()]
    lines.append("")
  return "\n".join(lines)


def shown(value: Any) -> str:
  if isinstance(value, list):
    return " to ".join(map(shown, value))
  if isinstance(value, float):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
  return "" if value is None else str(value).replace("|", "/")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
  parser.add_argument("--device", default="cuda")
  parser.add_argument("--tiny", action="store_true", help="small models and short texts, to try the command")
  parser.add_argument("--rounds", type=int, default=2)
  parser.add_argument("--limit", type=float, default=460, help="seconds after which nothing new is measured")
  parser.add_argument("--trl_path", type=Path, help="folder of TRL 1.12, the last with PPO, for the part ppo")
  parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json and gpu.md")
  args = parser.parse_args()
  import torch

  from reward_modeling.program import quiet_libraries
  from reward_modeling.results import keep_stdout_for_results
  from reward_modeling.terminal import log

  keep_stdout_for_results()
  quiet_libraries()
  if args.device.startswith("cuda") and not torch.cuda.is_available():
    parser.error("torch finds no GPU: --device cpu --tiny tries the command")
  if not args.device.startswith("cuda"):  # machine code for a CPU takes minutes and shows nothing of a GPU
    torch.nn.Module.compile = partialmethod(torch.nn.Module.compile, backend="eager")
  machine = Machine(torch.device(args.device), args.tiny, args.rounds, args.limit)
  machine.measure_rates()
  args.out.mkdir(parents=True, exist_ok=True)
  run = PARTS | {"ppo": partial(ppo, trl_path=args.trl_path)}
  parts: dict[str, Found] = {}
  for name in args.parts:
    start = time.perf_counter()
    try:
      parts[name] = run[name](machine)
    except Exception as error:
      parts[name] = {"all": {"note": f"{type(error).__name__}: {error}"}}
    machine.free()
    log(f"{name}: {time.perf_counter() - start:.0f} s")
    told = {"card": machine.name(), "tiny": machine.tiny, "rates": machine.rates, "parts": parts}
    (args.out / "gpu.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    (args.out / "gpu.md").write_text(markdown(machine, parts), encoding="utf-8")


if __name__ == "__main__":
  main()
