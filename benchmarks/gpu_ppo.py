"""The part "ppo" of gpu.py: this project's PPO beside the last one that TRL had (trl.experimental.ppo of 1.12.0).

    python -m pip install --no-deps --target trl112 trl==1.12.0
    uv run python benchmarks/gpu.py --parts ppo --trl_path trl112 --out runs/gpu

A random policy and a random reward model of 0.5B with 17,000 tokens; every side runs in a process of its own. Prompts have 100 to 300 tokens, and
nearly all answers the full length, since a random policy hardly ever writes the end token. Timed are the updates after the
first, from the end of one to the end of the next: loading and saving are left out.

Ours has fp32 weights; on a GPU, bf16 autocast in sampling, probabilities and learning; its reward model computes in fp32. TRL
makes its Accelerator without the config's bf16 (transformers 5 no longer hands it on), so there are two ways to have bf16:
all models in bf16, its fastest, Adam's states then bf16, too; or ACCELERATE_MIXED_PRECISION, as `accelerate launch` sets it:
autocast in learning alone, all else in fp32.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from gpu_machine import SIZES, TINY, Found, Machine, OutOfTimeError, Row, attempted

UPDATES = 3
TRL_WAYS = {
  "TRL 1.12, bf16 weights": ("bfloat16", {}),
  "TRL 1.12, bf16 autocast": ("float32", {"ACCELERATE_MIXED_PRECISION": "bf16"}),
}
"""Row -> precision of all weights, and what the process finds in its environment."""


def course(tiny: bool) -> dict[str, Any]:
  """Named alike in both."""
  return {
    "per_device_train_batch_size": 8 if tiny else 64,
    "response_length": 8 if tiny else 128,
    "total_episodes": UPDATES * (8 if tiny else 64),
    "num_ppo_epochs": 2,
    "num_mini_batches": 2,
    "learning_rate": 1e-6,
    "temperature": 1.0,
  }


class Clock:
  """Seconds of the updates after the first, and in which phase of them. Waits for the device at each mark.

  lengths: mean tokens of each update's answers.
  """

  def __init__(self) -> None:
    self.ends: list[float] = []
    self.lengths: list[float] = []
    self.seconds: dict[str, float] = defaultdict(float)
    self.phase, self.since = "rest", time.perf_counter()

  def begin(self, phase: str) -> None:
    if torch.cuda.is_available():
      torch.cuda.synchronize()
    now = time.perf_counter()
    self.seconds[self.phase] += now - self.since
    self.phase, self.since = phase, now

  def end_update(self) -> None:
    self.begin("rest")
    self.ends.append(self.since)
    if len(self.ends) == 1:
      self.seconds.clear()
      if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()

  def row(self, answers: int, precision: str) -> Row:
    """answers: of one update."""
    times = [end - start for start, end in zip(self.ends, self.ends[1:], strict=False)]
    return {
      "answers a second": answers / fmean(times),
      "seconds an update": fmean(times),
      "range": [min(times), max(times)],
      **{f"{phase}, s": seconds / len(times) for phase, seconds in sorted(self.seconds.items())},
      "GiB": torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None,
      "tokens an answer": fmean(self.lengths[1:]),
      "precision": precision,
    }


# ---- models and prompts ----


def make(machine: Machine, folder: Path) -> None:
  from transformers import AutoModelForCausalLM

  from reward_modeling import checkpoints
  from reward_modeling.rendering import Renderer
  from reward_modeling.sandbox_models import tiny_config, tokenizer

  words = [spelled(number) for number in range(500 if machine.tiny else 16000)]
  made = tokenizer([f" {' '.join(words)}"])  # every word is a token: an answer's text has about as many as the answer
  fields = TINY if machine.tiny else SIZES["0.5B"][1]
  torch.manual_seed(0)
  with machine.device:
    model = AutoModelForCausalLM.from_config(tiny_config(made, initializer_range=0.02, **fields))
  model.save_pretrained(folder / "policy")
  made.save_pretrained(folder / "policy")
  loaded = checkpoints.load_for_training(str(folder / "policy"))
  checkpoints.save(loaded.model, Renderer(loaded.tokenizer, max_length=512), folder / "reward", training={}, reward={})
  rng, rows = random.Random(0), []
  lengths = (10, 30) if machine.tiny else (100, 300)
  for _ in range(course(machine.tiny)["total_episodes"]):
    asked = " ".join(rng.choices(words, k=rng.randint(*lengths)))
    rows.append(json.dumps({"prompt": [{"role": "user", "content": asked}]}) + "\n")
  (folder / "prompts.jsonl").write_text("".join(rows), encoding="utf-8")


def spelled(number: int) -> str:
  return "".join(chr(ord("a") + number // 26**place % 26) for place in range(3))


# ---- the sides, each in its process ----


def ours(models: Path, tiny: bool) -> Row:
  import ppo as script

  from reward_modeling.training import ppo

  clock, update = Clock(), ppo.PPO.update

  @contextlib.contextmanager
  def timed(_: ppo.PPO, phase: str) -> Iterator[None]:
    clock.begin(phase)
    yield
    clock.begin("rest")

  def updated(*args: Any, **kwargs: Any) -> Any:
    found = update(*args, **kwargs)
    clock.end_update()
    clock.lengths.append(found[0]["length"])
    return found

  ppo.PPO._timed, ppo.PPO.update = timed, updated
  settings = course(tiny) | {
        "model_name_or_path": models / "policy", "reward_model_path": models / "reward", "value_model": "reward",
        "value_learning_rate": 1e-6, "dataset_name": models / "prompts.jsonl", "output_dir": models / "ours",
    }  # fmt: skip
  script.main([str(word) for name, value in settings.items() for word in (f"--{name}", value)])
  how = "fp32 weights, bf16 autocast, rewards in fp32" if torch.cuda.is_available() else "fp32"
  return clock.row(settings["per_device_train_batch_size"], how)


def trl(models: Path, tiny: bool, dtype: str) -> Row:
  from datasets import Dataset
  from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
  from trl.experimental.ppo import PPOConfig, PPOTrainer

  clock = Clock()

  class Ends(TrainerCallback):
    def on_step_end(self, *_: Any, **__: Any) -> None:
      clock.end_update()

  tokenizer = AutoTokenizer.from_pretrained(models / "policy", padding_side="left", trust_remote_code=False)
  rows = [json.loads(line) for line in (models / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
  ids = [
    tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
    for row in rows
  ]
  how = {"dtype": getattr(torch, dtype), "trust_remote_code": False}
  policies = [AutoModelForCausalLM.from_pretrained(models / "policy", **how) for _ in range(2)]
  scalars = [
    AutoModelForSequenceClassification.from_pretrained(models / "reward", num_labels=1, **how) for _ in range(2)
  ]
  config = PPOConfig(
        **course(tiny), output_dir=str(models / "trl"), stop_token="eos", missing_eos_penalty=1.0, bf16=False,
        gradient_checkpointing=False, num_sample_generations=0, report_to=[], save_strategy="no", logging_steps=1,
        use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
  trainer = PPOTrainer(
        args=config, processing_class=tokenizer, model=policies[0], ref_model=policies[1], reward_model=scalars[0],
        value_model=scalars[1], train_dataset=Dataset.from_dict({"input_ids": ids}),
        eval_dataset=Dataset.from_dict({"input_ids": ids[:8]}), callbacks=[Ends()],
    )  # fmt: skip
  mark_phases(clock, scalars[0])
  trainer.train()
  learning = trainer.accelerator.mixed_precision
  return clock.row(config.per_device_train_batch_size, f"{dtype} weights, mixed precision in learning: {learning}")


def mark_phases(clock: Clock, reward_model: torch.nn.Module) -> None:
  """TRL samples; then come log-probabilities, values and rewards; the first forward pass with gradients begins to learn."""
  from trl.experimental.ppo import ppo_trainer

  generation, truncation = ppo_trainer.batch_generation, ppo_trainer.truncate_response
  reward, forward = ppo_trainer.get_reward, ppo_trainer.forward

  def sampled(*args: Any) -> Any:
    clock.begin("sampling")
    found = generation(*args)
    clock.begin("probabilities")
    return found

  def truncated(stop: int, pad: int, responses: torch.Tensor) -> torch.Tensor:
    found = truncation(stop, pad, responses)
    clock.lengths.append((found != pad).sum(1).float().mean().item())
    return found

  def rewarded(model: torch.nn.Module, *args: Any) -> Any:
    clock.begin("rewards" if model is reward_model else "probabilities")
    found = reward(model, *args)
    clock.begin("probabilities")
    return found

  def forwarded(*args: Any) -> Any:
    if torch.is_grad_enabled() and clock.phase != "learning":
      clock.begin("learning")
    return forward(*args)

  ppo_trainer.batch_generation, ppo_trainer.truncate_response = sampled, truncated
  ppo_trainer.get_reward, ppo_trainer.forward = rewarded, forwarded


# ---- the part ----


def ppo(machine: Machine, trl_path: Path | None) -> Found:
  """trl_path: a folder with TRL 1.12 unpacked, and what of its needs differs from the packages that are here."""
  size, answers = "tiny" if machine.tiny else "0.5B", course(machine.tiny)["per_device_train_batch_size"]
  heading = f"{size}, {answers} answers an update: "
  with tempfile.TemporaryDirectory() as folder:
    make(machine, Path(folder))
    machine.free()
    own = attempted(partial(measured, machine, Path(folder), "ours", {}))
    found = {f"{heading}ours": own}
    if trl_path is None:
      return found | {"TRL 1.12": {"note": "needs --trl_path, a folder that holds it"}}
    first = os.pathsep.join(filter(None, (str(trl_path.resolve()), os.environ.get("PYTHONPATH"))))
    for name, (dtype, environment) in TRL_WAYS.items():
      environment = environment | {"PYTHONPATH": first}
      found[heading + name] = attempted(partial(measured, machine, Path(folder), "trl", environment, dtype))
  rate = "answers a second"
  ratios = {
    f"ours / {name}": {rate: own[rate] / found[heading + name][rate]}
    for name in TRL_WAYS
    if rate in own and rate in found[heading + name]
  }
  return found | ratios


def measured(machine: Machine, models: Path, side: str, environment: dict[str, str], dtype: str = "float32") -> Row:
  if time.perf_counter() - machine.started > machine.limit:
    raise OutOfTimeError(f"left out: {machine.limit:.0f} seconds are over")
  hidden = {} if machine.cuda else {"CUDA_VISIBLE_DEVICES": ""}
  words = ["--side", side, "--models", str(models), "--dtype", dtype, *["--tiny"] * machine.tiny]
  started = time.perf_counter()
  run = subprocess.run(
    [sys.executable, __file__, *words], env=os.environ | environment | hidden, capture_output=True, text=True
  )
  if run.returncode:
    raise RuntimeError(" ".join(run.stderr.split())[-180:])
  return json.loads((models / f"{side}.json").read_text(encoding="utf-8")) | {
    "process, s": time.perf_counter() - started
  }


def main() -> None:
  parser = argparse.ArgumentParser(description="one side of gpu.py's part ppo, in this process", allow_abbrev=False)
  parser.add_argument("--side", choices=("ours", "trl"), required=True)
  parser.add_argument("--models", type=Path, required=True, help="the folder that `make` filled")
  parser.add_argument("--dtype", default="float32", help="of the weights of TRL's models")
  parser.add_argument("--tiny", action="store_true")
  args = parser.parse_args()
  row = ours(args.models, args.tiny) if args.side == "ours" else trl(args.models, args.tiny, args.dtype)
  (args.models / f"{args.side}.json").write_text(json.dumps(row), encoding="utf-8")


if __name__ == "__main__":
  main()
