# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "trl==1.13.0",
#     "torch>=2.13,<2.16",
#     "transformers>=5.23,<5.24",
#     "datasets>=4,<6",
#     "peft>=0.21,<0.22",
#     "accelerate>=1.15,<1.16",
#     "rich>=14,<16",
#     "pyyaml>=6,<7",
# ]
# ///
"""Compare the training of process reward models with TRL's PRMTrainer, as last released (trl 1.13.0).

    uv run benchmarks/prm_equality.py

A tiny decoder with random weights, the sandbox's chains, and a chat template that imitates TRL's rendering: the prompt
glued to the first step, BOS before it, no turns. Printed are the largest differences of token ids and labels, of loss and
gradients on one batch, and of the weights after training, with and without gradient accumulation.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "tests")]

GLUED = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
STEPS = 8


def tokenizer():
  import arithmetic

  from reward_modeling import sandbox_models

  words = sandbox_models.tokenizer(arithmetic.every_text())
  words.bos_token = sandbox_models.ROLE_TOKENS[0]
  words.chat_template = GLUED
  return words


def model_of(words):
  import torch
  from transformers import AutoModelForTokenClassification

  from reward_modeling.sandbox_models import tiny_config

  torch.manual_seed(0)
  return AutoModelForTokenClassification.from_config(tiny_config(words, num_labels=2))


def settings(config_class, folder: str, accumulation: int):
  return config_class(
    output_dir=folder,
    max_steps=STEPS,
    per_device_train_batch_size=4,
    gradient_accumulation_steps=accumulation,
    learning_rate=1e-3,
    seed=1,
    use_cpu=True,
    bf16=False,
    gradient_checkpointing=False,
    report_to="none",
    save_strategy="no",
    disable_tqdm=True,
    logging_strategy="no",
  )


def trainers(words, solutions, folder: str, accumulation: int) -> dict:
  """Both trainers on the same solutions, from the same weights, with the same settings and seed."""
  from datasets import Dataset
  from transformers import TrainingArguments
  from trl.experimental.prm import PRMConfig, PRMTrainer

  from reward_modeling.step_rendering import StepRenderer
  from reward_modeling.training import process
  from reward_modeling.training.loop import without_dropout
  from reward_modeling.training.steps import render_solutions

  model = model_of(words)
  theirs = PRMTrainer(
    model=copy.deepcopy(model),
    args=settings(PRMConfig, folder, accumulation),
    train_dataset=Dataset.from_list(
      [
        {"prompt": one.prompt[0]["content"], "completions": one.steps, "labels": [bool(x) for x in one.labels]}
        for one in solutions
      ]
    ),
    processing_class=words,
  )
  arguments = settings(TrainingArguments, folder, accumulation)
  arguments.remove_unused_columns = False
  ours = process.ProcessTrainer(
    model=without_dropout(model),
    args=arguments,
    data_collator=process.StepCollator(words.pad_token_id),
    train_dataset=render_solutions(solutions, StepRenderer(words, max_length=None)).dataset,
    processing_class=words,
  )
  return {"trl": theirs, "ours": ours}


def first_batch(trainer) -> dict:
  batch = next(iter(trainer.get_train_dataloader()))
  return {name: value for name, value in batch.items() if hasattr(value, "shape")}


def largest(pairs) -> float:
  return max((a.float() - b.float()).abs().max().item() for a, b in pairs)


def compare(solutions, accumulation: int) -> dict[str, float]:
  words = tokenizer()
  with tempfile.TemporaryDirectory() as folder:
    both = trainers(words, solutions, folder, accumulation)
    batches = {name: first_batch(trainer) for name, trainer in both.items()}
    names = ("input_ids", "attention_mask", "labels")
    result = {f"batch: {name}": largest([(batches["trl"][name], batches["ours"][name])]) for name in names}
    losses = {}
    for name, trainer in both.items():
      trainer.model.train()
      losses[name] = trainer.compute_loss(trainer.model, dict(batches[name]))
      losses[name].backward()
    result["loss"] = abs(losses["trl"].item() - losses["ours"].item())
    weights = [trainer.model.parameters() for trainer in both.values()]
    result["gradients"] = largest((a.grad, b.grad) for a, b in zip(*weights, strict=True))
    for trainer in both.values():
      trainer.model.zero_grad()
      trainer.train()
    weights = [trainer.model.parameters() for trainer in both.values()]
    result[f"weights after {STEPS} steps"] = largest((a, b) for a, b in zip(*weights, strict=True))
  return result


def judged(solution) -> int:
  return sum(label is not None for label in solution.labels)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.parse_args()
  import trl
  from arithmetic import chains

  from reward_modeling.terminal import table

  # TRL knows no unjudged steps: what stands behind the first error is left out for both.
  solutions = [
    replace(one, steps=one.steps[: judged(one)], labels=one.labels[: judged(one)]) for one in chains(96, seed=3)
  ]
  results = {f"accumulation {n}": compare(solutions, n) for n in (1, 2)}
  names = list(results["accumulation 1"])
  table(
    f"largest difference to PRMTrainer of trl {trl.__version__}",
    ["", *results],
    [[name, *(f"{values[name]:.1e}" for values in results.values())] for name in names],
  )
  print(json.dumps({"trl": trl.__version__, **results}, indent=2))


if __name__ == "__main__":
  main()
