"""The language model that reinforcement learning trains, and how its prompts and answers are written."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList

from .. import checkpoints
from ..data.records import Message
from ..errors import ModelError
from ..heads import unwrapped
from ..hf import Model, Tokenizer
from ..kinds import kind_of_architecture
from ..lengths import positions
from ..model_folder import ADAPTER_CONFIG, CONFIG, read_json
from ..output_folder import staged
from ..precision import usable
from ..pretrained import read_language_model
from ..rendering import Renderer
from ..terminal import log
from .loop import without_dropout


@dataclass
class Policy:
  """A causal language model (or a PEFT model around one), in fp32, without dropout.

  end_tokens: any of them ends an answer. gap: what the chat template writes between the generation prompt and an answer.
  generation_config: as it came, put back on saving.
  """

  model: Model
  renderer: Renderer
  end_tokens: tuple[int, ...]
  gap: str
  generation_config: GenerationConfig

  @classmethod
  def from_pretrained(
    cls,
    path: str,
    *,
    chat_template_path: str | None = None,
    stop_token_id: int | None = None,
    device: str | None = None,
  ) -> Self:
    """From a folder or hub id, or the folder of a LoRA adapter, which is merged.

    stop_token_id: the only token that ends an answer, instead of all known ones.
    Raises ModelError when it is not a causal language model, has no chat template or nothing that ends an answer.
    """
    adapter, path = path, _base_of(path)
    architecture = checkpoints.architecture_of(checkpoints.read_config(path))
    if kind_of_architecture(architecture):
      what = f"{path} is not a policy: its architecture is {architecture}, which writes no text"
      raise ModelError(what, hint="give the model to be optimized here, and the reward model as --reward_model_path")
    tokenizer = checkpoints.read_tokenizer(adapter if (Path(adapter) / "tokenizer_config.json").exists() else path)
    tokenizer.chat_template = checkpoints.read_chat_template(chat_template_path) or tokenizer.chat_template
    if not tokenizer.chat_template:
      what = f"the tokenizer of {path} has no chat template: how the policy was asked in its fine-tuning is not known"
      raise ModelError(what, hint="name it with --chat_template_path (a .jinja file, or a model that has it)")
    model, notes = read_language_model(path, torch.float32)
    checkpoints.check_embedded(path, tokenizer, model.get_input_embeddings().num_embeddings)
    for note in notes:
      log(f"policy {path}: {note}")
    if adapter != path:
      from peft import PeftModel

      model = PeftModel.from_pretrained(model, adapter).merge_and_unload().requires_grad_(True)  # which PEFT froze
    renderer = Renderer(tokenizer, max_length=None)
    gap, rest = renderer.around_answer
    (ids,) = renderer.tokens([rest])
    after = ids[0] if ids and ids[0] in tokenizer.all_special_ids else None
    listed = model.generation_config.eos_token_id
    listed = listed if isinstance(listed, list) else [listed]
    several = [stop_token_id] if stop_token_id is not None else [tokenizer.eos_token_id, *listed, after]
    known = tuple(dict.fromkeys(token for token in several if token is not None))
    if not known:
      what = f"{path} has no EOS token: nothing would end an answer"
      raise ModelError(what, hint="name the token that ends its answers with --stop_token_id")
    if tokenizer.pad_token is None:  # only ever masked
      tokenizer.pad_token = tokenizer.convert_ids_to_tokens(known[0])
    without_dropout(model).eval().to(usable(device))
    own, model.generation_config = model.generation_config, GenerationConfig()  # nothing but what `sample` asks for
    return cls(model, renderer, known, gap, own)

  @property
  def tokenizer(self) -> Tokenizer:
    return self.renderer.tokenizer

  @property
  def device(self) -> torch.device:
    return self.model.device

  @property
  def context(self) -> int | None:
    return positions(unwrapped(self.model))

  def finished(self, ids: Sequence[int]) -> bool:
    return bool(ids) and ids[-1] in self.end_tokens

  def reply(self, ids: Sequence[int]) -> list[Message]:
    """An answer as one assistant message, without special tokens and the gap."""
    text = self.tokenizer.decode(list(ids)[: -1 if self.finished(ids) else None], skip_special_tokens=True)
    return [{"role": "assistant", "content": text.removeprefix(self.gap)}]

  def tokens_at(self, ids: list[int], ends: Sequence[int]) -> list[int]:
    """The token that completes so many characters of the reply, or the last, for each number of `ends`."""

    def text(tokens: int) -> str:
      return self.tokenizer.decode(ids[:tokens], skip_special_tokens=True)

    gap = len(self.gap) if text(len(ids)).startswith(self.gap) else 0
    return [bisect_left(range(1, len(ids)), end + gap, key=lambda tokens: len(text(tokens))) for end in ends]

  def write(self, folder: Path) -> None:
    sampling, self.model.generation_config = self.model.generation_config, self.generation_config
    self.model.save_pretrained(folder)
    self.model.generation_config = sampling
    self.tokenizer.save_pretrained(folder)

  def read(self, folder: Path) -> None:
    if hasattr(self.model, "merge_and_unload"):
      from peft import set_peft_model_state_dict
      from safetensors.torch import load_file

      set_peft_model_state_dict(self.model, load_file(folder / "adapter_model.safetensors"))
    else:
      self.model.load_state_dict(read_language_model(str(folder), torch.float32)[0].state_dict())


def _base_of(path: str) -> str:
  adapter = Path(path) / ADAPTER_CONFIG
  if not adapter.is_file() or (Path(path) / CONFIG).is_file():
    return path
  config = read_json(adapter)
  return config["base_model_name_or_path"] if config.get("task_type") == "CAUSAL_LM" else path


def save_policy(policy: Policy, output_dir: Path, files: Mapping[str, str]) -> None:
  """A plain causal language model, its adapter merged (and kept in `adapter`), with these files."""
  with staged(output_dir) as folder:
    if hasattr(policy.model, "merge_and_unload"):
      policy.model.save_pretrained(folder / checkpoints.ADAPTER)
      policy = replace(policy, model=policy.model.merge_and_unload())
    policy.write(folder)
    for name, text in files.items():
      (folder / name).write_text(text, encoding="utf-8")


# ---- answers, each drawn by its own random numbers ----


@dataclass
class Draw:
  """A logits processor that draws the next token by one uniform number a row and step, and leaves greedy search no other."""

  uniforms: Tensor
  temperature: float
  step: int = 0

  def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
    cumulative = torch.softmax(scores.float() / self.temperature, dim=-1).cumsum(dim=-1)
    threshold = self.uniforms[:, self.step, None] * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, threshold, right=True).clamp(max=scores.shape[-1] - 1)
    self.step += 1
    return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)


def uniforms(seed: int, number: int, count: int) -> Tensor:
  """[count] numbers in [0, 1) of answer `number` of a run with this seed, wherever it is computed."""
  return torch.from_numpy(numpy.random.default_rng([seed, number]).random(count, dtype=numpy.float32))


def _generate(
  policy: Policy, prompts: list[list[int]], max_new_tokens: int, temperature: float, draws: Tensor
) -> list[list[int]]:
  # Not by vLLM or transformers' continuous batching, which cannot draw by given numbers.
  tokenizer = policy.tokenizer
  how = {"padding_side": "left", "return_attention_mask": True, "return_tensors": "pt"}
  asked = tokenizer.pad({"input_ids": prompts}, **how).to(policy.device)
  config = GenerationConfig(
    max_new_tokens=max_new_tokens,
    do_sample=False,
    eos_token_id=list(policy.end_tokens),
    pad_token_id=tokenizer.pad_token_id,
  )
  drawing = [Draw(draws.to(policy.device), temperature)] if temperature else []
  written = unwrapped(policy.model).generate(
    **asked, generation_config=config, logits_processor=LogitsProcessorList(drawing)
  )
  return written[:, asked["input_ids"].shape[1] :].tolist()


def sample(
  policy: Policy,
  prompts: Sequence[list[int]],
  *,
  max_new_tokens: int,
  temperature: float = 1.0,
  seed: int = 0,
  numbers: Sequence[int] | None = None,
  batch_size: int = 64,
) -> list[list[int]]:
  """One answer for each prompt, as token ids with the end token where it came. In input order.

  numbers: of each answer's random draws (0, 1, 2, ...): the same seed and number give the same answer in any batch, up to
  rounding of probabilities. temperature 0 takes the most likely token.
  """
  numbers = range(len(prompts)) if numbers is None else numbers
  order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
  answers: list[list[int]] = [[] for _ in prompts]
  with torch.no_grad():  # autocast keeps no cast weights in inference mode, but casts them again for every token
    for start in range(0, len(order), batch_size):
      places = order[start : start + batch_size]
      draws = torch.stack([uniforms(seed, numbers[place], max_new_tokens) for place in places])
      rows = _generate(policy, [prompts[place] for place in places], max_new_tokens, temperature, draws)
      for place, row in zip(places, rows, strict=True):
        answers[place] = up_to_end(row, policy.end_tokens)
  return answers


def up_to_end(row: list[int], end_tokens: Sequence[int]) -> list[int]:
  """With the token; padding follows it."""
  return next((row[: place + 1] for place, token in enumerate(row) if token in end_tokens), row)
