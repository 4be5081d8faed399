"""What the sandbox's world is learned with: a tokenizer, a tiny decoder, and the settings of quickstart and tests."""

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .data.records import Message
from .errors import UsageError
from .hf import Config, Model, Tokenizer
from .outputs import remove
from .sandbox import GoldReward, Question, every_text, gold, sft_conversations

PAD, END = "<|pad|>", "<|end|>"
ROLE_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>")
MAX_TOKENS = 512
CHAT_TEMPLATE = (
  "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '" + END + "' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True)
class TrainingSettings:
  """AdamW, 5 % warm-up, then a cosine down to zero, gradients clipped to 1. rows: so that none is seen twice."""

  steps: int
  batch_size: int
  learning_rate: float

  @property
  def rows(self) -> int:
    return self.steps * self.batch_size


SFT_DEFAULTS = TrainingSettings(steps=500, batch_size=32, learning_rate=4e-3)

REWARD_DEFAULTS = TrainingSettings(steps=600, batch_size=32, learning_rate=1.5e-3)
"""Held-out accuracy 0.88 to 0.93 on three seeds (30 CPU seconds); after 400 steps two had 0.76."""

PPO_DEFAULTS: dict[str, Any] = {
  "response_length": 28,
  "temperature": 1.0,
  "per_device_train_batch_size": 32,
  "gradient_accumulation_steps": 2,
  "num_mini_batches": 2,
  "num_ppo_epochs": 2,
  "learning_rate": 1e-3,
  "value_learning_rate": 1e-3,
  "kl_coef": 0.1,
  "vf_coef": 0.5,
  "normalize_rewards": True,
}
"""Of ppo.py: 64 answers an update. benchmarks/ppo.py measures them."""


def tokenizer(texts: Iterable[str] | None = None) -> Tokenizer:
  """A byte-level BPE in which every word of the world, or of these texts, is one token."""
  import tokenizers
  from tokenizers import models, pre_tokenizers, trainers
  from transformers import Qwen2Tokenizer

  special = {"eos_token": END, "pad_token": PAD, "unk_token": None, "additional_special_tokens": list(ROLE_TOKENS)}
  empty = Qwen2Tokenizer(vocab={}, merges=[], **special).backend_tokenizer
  words = sorted({word for text in texts or every_text() for word, _ in empty.pre_tokenizer.pre_tokenize_str(text)})

  bpe = tokenizers.Tokenizer(models.BPE())  # the words are split and spelled in the byte alphabet already
  trainer = trainers.BpeTrainer(
    vocab_size=1 << 16,  # never reached: merging stops when every word is one token
    show_progress=False,
    special_tokens=[PAD, END, *ROLE_TOKENS],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
  )
  bpe.train_from_iterator(words, trainer)
  model = json.loads(bpe.to_str())["model"]
  merges = [tuple(merge) for merge in model["merges"]]
  return Qwen2Tokenizer(
    vocab=model["vocab"], merges=merges, chat_template=CHAT_TEMPLATE, model_max_length=MAX_TOKENS, **special
  )


def tiny_config(tokenizer: Tokenizer, **overrides) -> Config:
  """Smaller initial weights learn copying more slowly, heads of width 16 mistake names."""
  from transformers import Qwen2Config

  fields = {
    "vocab_size": len(tokenizer),
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": MAX_TOKENS,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
    "initializer_range": 0.1,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": tokenizer.eos_token_id,
    "pad_token_id": tokenizer.pad_token_id,
  }
  return Qwen2Config(**{**fields, **overrides})


def base_model(
  path: str | Path,
  seed: int,
  settings: TrainingSettings = SFT_DEFAULTS,
  rows: list[list[Message]] | None = None,
  texts: Iterable[str] | None = None,
  **overrides,
) -> Path:
  """Teach a tiny decoder these rows, whose words are those of `texts`. overrides: fields of its config."""
  import torch
  from transformers import AutoModelForCausalLM

  path = Path(path)
  if path.exists():
    raise UsageError(f"{path} exists already", hint="give another path, or remove it")
  words = tokenizer(texts)
  with torch.random.fork_rng(devices=[]):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(words, **overrides))
    _teach(model, words, rows or sft_conversations(settings.rows, seed), settings)
  partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
  try:
    model.save_pretrained(partial)
    words.save_pretrained(partial)
    partial.replace(path)
  finally:
    remove(partial)
  return path


def _teach(model: Model, words: Tokenizer, rows: list[list[Message]], settings: TrainingSettings) -> None:
  import torch

  def warm_cosine(step: int) -> float:
    return min((step + 1) / (0.05 * settings.steps), 0.5 * (1 + math.cos(math.pi * step / settings.steps)))

  optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
  schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_cosine)
  answer_starts = words.convert_tokens_to_ids("<|assistant|>")
  model.train()
  for step in range(settings.steps):
    batch = rows[step * settings.batch_size : (step + 1) * settings.batch_size]
    ids = words(words.apply_chat_template(batch, tokenize=False), padding=True, return_tensors="pt").input_ids
    in_answer = (ids == answer_starts).cumsum(dim=1).bool() & (ids != words.pad_token_id)
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    is_target = in_answer[:, 1:] & (ids[:, 1:] != answer_starts)
    logits = model.lm_head(hidden[is_target])
    torch.nn.functional.cross_entropy(logits, ids[:, 1:][is_target]).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
  model.eval()


def policy_answers(
  path: str | Path, prompts: Sequence[Question], seed: int, temperature: float = 1.0
) -> list[tuple[str, GoldReward]]:
  from .training.policy import Policy, sample

  policy = Policy.from_pretrained(str(path))
  ids = [policy.renderer.prompt_ids(asked.messages) for asked in prompts]
  longest = PPO_DEFAULTS["response_length"]
  answers = sample(policy, ids, max_new_tokens=longest, temperature=temperature, seed=seed, batch_size=256)
  texts = [policy.reply(answer)[0]["content"] for answer in answers]
  return [
    (text, gold(asked, text, finished=policy.finished(answer)))
    for asked, text, answer in zip(prompts, texts, answers, strict=True)
  ]
