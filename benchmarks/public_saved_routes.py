"""As `public_outcome_routes.py`, where the code of others writes the checkpoint, too, or more than a class is run: Starling, OpenRLHF,
LLaMA-Factory, Skywork-VL, ReasonFlux, Nemotron-Principle."""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import inspect
import io
import json
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from public_routes_inputs import ANSWERS
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

Ids = list[int]
RB = "rb/rewardbench/models"


def chat(tokenizer: Any, question: str, answer: str, system: str | None = None, **how: Any) -> str:
  turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
  return tokenizer.apply_chat_template(
    [{"role": "system", "content": system}] * (system is not None) + turns, tokenize=False, **how
  )


def literal(text: str) -> Callable[[Any, str, str], Ids]:
  return lambda tokenizer, question, answer: tokenizer(text.format(question, answer))["input_ids"]


def causal(module: Any, path: Path) -> Any:
  return AutoModelForCausalLM.from_pretrained(path, torch_dtype=torch.float32)


def scores_of(model: Any, row: torch.Tensor) -> torch.Tensor:
  """Of Starling's and Athene's classes."""
  found = model(input_ids=row, attention_mask=torch.ones_like(row))
  return (found["scores"] if isinstance(found, dict) else found)[0]


def starling(path: Path, sources: Path) -> list[float]:
  """reward-bench's `GPTRewardModel`, which writes the one pickle that ours then reads, as the authors published one."""
  sys.path.insert(0, str(sources / RB))
  own = importlib.import_module("starling")
  weights, tokenizer = path / "model.safetensors", AutoTokenizer.from_pretrained(path)
  tensors, base = load_file(weights), path.parent.parent / "starling-base"
  if base.is_dir():
    shutil.rmtree(base)
  shutil.copytree(path, base)
  named = {name.replace("transformer.", "model.", 1): tensor for name, tensor in tensors.items()}
  plain = {"lm_head.weight": torch.zeros_like(tensors["transformer.embed_tokens.weight"]), **named}
  save_file(plain, base / "model.safetensors", {"format": "pt"})
  config = json.loads((base / "config.json").read_text()) | {"architectures": ["LlamaForCausalLM"]}
  (base / "config.json").write_text(json.dumps(config))
  with contextlib.redirect_stdout(io.StringIO()):
    made = own.AutoTokenizer.from_pretrained(str(base))
  made.unk_token = made.unk_token or made.pad_token
  own.AutoTokenizer = types.SimpleNamespace(from_pretrained=lambda *_: made)
  model = own.GPTRewardModel(str(base)).float().eval()
  model.load_state_dict(tensors, strict=False)
  model.PAD_ID = -1  # none of the tiny tokenizer's ids
  torch.save(model.state_dict(), path / "pytorch_model.bin")
  weights.unlink()
  rows = [literal("<s>[INST] {} </s> [/INST] {}</s>")(tokenizer, q, a) for q, *both in ANSWERS for a in both]
  with torch.no_grad():
    return [scores_of(model, torch.tensor([row])).item() for row in rows]


def openrlhf(path: Path, sources: Path) -> list[float]:
  """OpenRLHF's `RewardDataset` and `get_llm_for_sequence_regression`, saved as its trainer does."""
  for name in (
    "deepspeed",
    "flash_attn",
    "flash_attn.bert_padding",
    "flash_attn.utils",
    "flash_attn.utils.distributed",
  ):
    sys.modules[name] = MagicMock(__spec__=importlib.machinery.ModuleSpec(name, None))
  for name in [name for name in sys.modules if name.startswith("openrlhf")]:  # PURE's package has its name
    del sys.modules[name]
  for name in ("openrlhf", "openrlhf.models", "openrlhf.utils", "openrlhf.datasets"):  # whose own files import ray
    stand_in = types.ModuleType(name)
    stand_in.__path__ = [str(sources / "openrlhf" / name.replace(".", "/"))]
    sys.modules[name] = stand_in
  own, data = (importlib.import_module(f"openrlhf.{name}") for name in ("models.model", "datasets.reward_dataset"))
  how = {"param_dtype": "fp32", "attn_implementation": "eager", "normalize_reward": True}
  own_dtype = importlib.import_module("openrlhf.utils.utils")
  own_dtype.convert_to_torch_dtype = lambda name: torch.float32
  tokenizer = AutoTokenizer.from_pretrained(path)
  model = own.get_llm_for_sequence_regression(str(path), "reward", **how).eval()
  model.save_pretrained(path)
  rows = object.__new__(data.RewardDataset)
  turns = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, *both in ANSWERS for a in both]
  rows.tokenizer, rows.max_length, rows.extras = tokenizer, 512, [0] * len(turns)
  rows.prompts = [""] * len(turns)
  rows.chosens = rows.rejects = [tokenizer.apply_chat_template(one, tokenize=False) for one in turns]
  with torch.no_grad():
    return [model(*rows[i][:2]).item() for i in range(len(turns))]


def llama_factory(path: Path, sources: Path) -> list[float]:
  """A model of TRL's value head, saved by LLaMA-Factory's `fix_valuehead_checkpoint`, its head loaded by `load_valuehead_params`,
  read by its engine's `_get_scores`."""
  from trl import AutoModelForCausalLMWithValueHead

  root = sources / "llamafactory/src/llamafactory"
  names = ("llamafactory", "llamafactory.extras", "llamafactory.chat", "llamafactory.train", "llamafactory.model")
  for name in (*names, "llamafactory.model.model_utils"):  # whose own files import far more
    stand_in = types.ModuleType(name)
    stand_in.__path__ = [str(root.parent / name.replace(".", "/"))]
    sys.modules[name] = stand_in
  for name in ("load_model", "load_tokenizer"):
    setattr(sys.modules["llamafactory.model"], name, None)
  for name in ("llamafactory.data", "llamafactory.chat.base_engine", "llamafactory.extras.misc"):
    sys.modules[name] = MagicMock()
  sys.modules["llamafactory.chat.base_engine"].BaseEngine = object
  callbacks, heads, engine = (
    importlib.import_module(f"llamafactory.{name}")
    for name in ("train.callbacks", "model.model_utils.valuehead", "chat.hf_engine")
  )
  tokenizer, base = AutoTokenizer.from_pretrained(path), causal(None, path)
  head = {name: tensor for name, tensor in load_file(path / "model.safetensors").items() if name.startswith("v_head.")}
  trained = AutoModelForCausalLMWithValueHead.from_pretrained(base)
  trained.load_state_dict(head, strict=False)
  whole = {f"pretrained_model.{name}": tensor.clone() for name, tensor in base.state_dict().items()} | head
  save_file(whole, path / "model.safetensors", {"format": "pt"})
  callbacks.fix_valuehead_checkpoint(trained, str(path), True)
  model = AutoModelForCausalLMWithValueHead.from_pretrained(causal(None, path)).eval()
  read = types.SimpleNamespace(cache_dir=None, hf_hub_token=None)
  model.load_state_dict(heads.load_valuehead_params(str(path), read), strict=False)
  texts = [chat(tokenizer, question, answer) for question, *both in ANSWERS for answer in both]
  tokenizer.padding_side = "right"
  read_scores = inspect.unwrap(engine.HuggingfaceEngine._get_scores)
  return read_scores(model, tokenizer, texts).flatten().tolist()


def skywork_vl(path: Path, sources: Path) -> list[float]:
  """reward-bench's `SkyVLPipeline` on a tiny Qwen2.5-VL that the transformers of that time wrote."""
  from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

  sys.path.insert(0, str(sources / RB))
  own, tokenizer = importlib.import_module("skyvl"), AutoTokenizer.from_pretrained(path)
  fields, tensors = json.loads((path / "config.json").read_text()), load_file(path / "model.safetensors")
  kept = {
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
  }
  sizes = {name: fields[name] for name in kept} | {"max_position_embeddings": 512, "tie_word_embeddings": False}
  vision = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_heads": 2,
    "out_hidden_size": 16,
    "fullatt_block_indexes": [0],
  }
  torch.manual_seed(0)
  rope = {"type": "mrope", "mrope_section": [1, 1, 0]}
  config = Qwen2_5_VLConfig(**sizes, rope_scaling=rope, vision_config=vision, rope_theta=1e4, rms_norm_eps=1e-6)
  config.image_token_id, config.video_token_id, config.vision_start_token_id = -1, -2, -3
  base = Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="eager").float()
  base.load_state_dict({name: tensor for name, tensor in tensors.items() if name.startswith("model.")}, strict=False)
  head = {name: tensor for name, tensor in tensors.items() if name.startswith("v_head.")}
  base.save_pretrained(path)
  save_file(head, path / "value_head.safetensors", {"format": "pt"})
  own.cached_file = lambda path_or_repo_id, filename: str(path / filename)
  texts = [chat(tokenizer, question, answer) for question, *both in ANSWERS for answer in both]
  tokenizer.model_input_names = ["input_ids", "attention_mask"]
  found, there = [], own.AutoModelForCausalLMWithValueHead
  pipeline = own.SkyVLPipeline("", base, tokenizer)
  own.AutoModelForCausalLMWithValueHead = there
  kept_to = type(tokenizer([""])).to
  type(tokenizer([""])).to = lambda self, device: self
  for text in texts:
    found.append(pipeline([text]).item())
  type(tokenizer([""])).to = kept_to
  return found


def reason_flux(path: Path, sources: Path) -> list[float]:
  """ReasonFlux's `RewardModel`, which reads prompt and answer as one text."""
  sys.path.insert(0, str(sources / "reasonflux/ReasonFlux_PRM"))
  own, tokenizer = importlib.import_module("utils.rm_utils"), AutoTokenizer.from_pretrained(path)
  own.hf_hub_download = lambda repo_id, filename, **_: str(Path(repo_id) / filename)
  model, found = own.RewardModel.from_pretrained(str(path), auth_token=None).eval(), []
  for question, *answers in ANSWERS:
    for answer in answers:
      row = tokenizer(question + answer, return_tensors="pt", truncation=True, max_length=2048)
      with torch.no_grad():
        found.append(model(row["input_ids"], row["attention_mask"]).item())
  return found


def principle(path: Path, sources: Path) -> list[float]:
  """A peer's `PrincipleJudge`, whose probability of "Yes" against "No" ours must be the log-odds of."""
  sys.path.insert(0, str(sources / "authors"))
  own = importlib.import_module("principle")
  judge, found = own.PrincipleJudge(str(path), torch.float32, "cpu"), []
  with contextlib.redirect_stdout(sys.stderr):
    judge.load_model()
  for question, *answers in ANSWERS:
    for answer in answers:
      (p,) = judge.judge([question], [answer], ["correctness"])
      found.append(torch.tensor(p, dtype=torch.float64).logit().item())
  return found


SAVED = {
  "starling": starling,
  "openrlhf": openrlhf,
  "linear head": llama_factory,
  "skywork-vl": skywork_vl,
  "nemotron-principle": principle,
  "reasonflux-orm": reason_flux,
}
