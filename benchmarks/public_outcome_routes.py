"""As `public_routes.py`, for outcome reward models: classes of reward-bench, xtuner and RLHFlow, read as their cards say."""

from __future__ import annotations

import argparse
import importlib
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from public_routes_inputs import ANSWERS, REFERENCE
from public_saved_routes import RB, SAVED, Ids, causal, chat, literal, scores_of
from safetensors.torch import load_file
from transformers import (
  AutoConfig,
  AutoModelForSequenceClassification,
  AutoTokenizer,
  PreTrainedModel,
)


def cut_bos(tokenizer: Any, question: str, answer: str) -> Ids:
  """Skywork-Reward and FsfairX: the template's BOS is cut, the tokenizer puts its own."""
  return tokenizer(chat(tokenizer, question, answer).removeprefix(tokenizer.bos_token))["input_ids"]


def twice(tokenizer: Any, question: str, answer: str) -> Ids:
  return tokenizer(chat(tokenizer, question, answer))["input_ids"]


def as_written(tokenizer: Any, question: str, answer: str) -> Ids:
  return tokenizer(chat(tokenizer, question, answer), add_special_tokens=False)["input_ids"]


def boxed(tokenizer: Any, question: str, answer: str) -> Ids:
  system = "Please reason step by step, and put your final answer within \\boxed{}."
  return tokenizer(chat(tokenizer, question, answer, system), add_special_tokens=False)["input_ids"]


def without_system(tokenizer: Any, question: str, answer: str) -> Ids:
  return tokenizer(chat(tokenizer, question, answer, ""), add_special_tokens=False)["input_ids"]


def without_thinking(tokenizer: Any, question: str, answer: str) -> Ids:
  """Qwen-3-Nemotron: the turns as a peer writes them for it."""
  return as_written(tokenizer, f"{question} /nothink", f"<think>\n\n</think>\n\n{answer}")


def as_pair(tokenizer: Any, question: str, answer: str) -> Ids:
  return tokenizer(question, answer)["input_ids"]


def with_cls(tokenizer: Any, question: str, answer: str) -> Ids:
  """Athene: the CLS token after what the template writes."""
  return tokenizer(chat(tokenizer, question, answer) + "<|reserved_special_token_1|>")["input_ids"]


@dataclass(frozen=True)
class Route:
  """module: of the authors, in this folder of SOURCES. made: the model. ids: of one conversation. read: its number."""

  module: tuple[str, str] | None
  made: str | Callable[[Any, Path], Any]
  ids: Callable[[Any, str, str], Ids]
  read: Callable[[Any, torch.Tensor], torch.Tensor] = lambda model, row: model(
    input_ids=row, attention_mask=torch.ones_like(row)
  ).logits.flatten()[-1]


def classifier(module: Any, path: Path) -> Any:
  return AutoModelForSequenceClassification.from_pretrained(path, torch_dtype=torch.float32, num_labels=1)


def of_pattern(name: str) -> Callable[[Any, Path], Any]:
  """A class that finds where its gate reads by ids, which are those of the tiny tokenizer here."""

  def make(module: Any, path: Path) -> Any:
    opening = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    module.token_pattern = AutoTokenizer.from_pretrained(path)(opening, add_special_tokens=False)["input_ids"]
    kind = getattr(module, name)
    model = PreTrainedModel.from_pretrained.__func__(kind, path, torch_dtype=torch.float32).float()
    if hasattr(model, "quantiles"):  # it multiplies, for a result that nobody reads, as if both were equal
      model.num_objectives = model.num_quantiles
    return model

  return make


def of_gemma(module: Any, path: Path) -> Any:
  opening, kind = "<end_of_turn>\n<start_of_turn>model\n", module.Gemma2ForQuantileSequenceClassification
  ids = AutoTokenizer.from_pretrained(path)(opening, add_special_tokens=False)["input_ids"]
  config = AutoConfig.from_pretrained(path)
  config.gating_token_pattern = ids
  return kind.from_pretrained(path, config=config, attn_implementation="eager")


def urm(module: Any, path: Path) -> Any:
  """A trunk, a head and a network under the names of its checkpoint, run by a peer's forward."""
  from transformers import LlamaModel

  own, config = load_file(path / "model.safetensors"), AutoConfig.from_pretrained(path)
  model = torch.nn.Module()
  model.config, model.model = config, LlamaModel(config)
  model.score = torch.nn.Linear(config.hidden_size, 10, bias=False)
  sizes = [own[f"weights.fc.{i}.weight"].shape for i in (0, 2, 4)]
  layers = [torch.nn.Linear(size[1], size[0]) for size in sizes]
  model.weights = torch.nn.Module()
  model.weights.fc = torch.nn.Sequential(layers[0], torch.nn.SELU(), layers[1], torch.nn.SELU(), layers[2])
  model.weights.forward = model.weights.fc.forward
  model.load_state_dict(own)
  model.read = module.LlamaForSequenceClassificationWithNormal_Weights
  return model


def first_generated(model: Any, row: torch.Tensor) -> torch.Tensor:
  """As the card of Nemotron-Reward: the score of token 0 for the first new token."""
  made = model.generate(
    row,
    attention_mask=torch.ones_like(row),
    max_new_tokens=1,
    return_dict_in_generate=True,
    output_scores=True,
    do_sample=False,
  )
  return made.scores[0][0][0]


def masked(model: Any, row: torch.Tensor) -> torch.Tensor:
  return model(input_ids=row, attention_mask=torch.ones_like(row))[0, 0]


def athene(module: Any, path: Path) -> Any:
  model = module.AtheneForSequenceClassification.from_pretrained(path)
  model.CLS_ID = AutoTokenizer.from_pretrained(path).convert_tokens_to_ids("<|reserved_special_token_1|>")
  return model


def padded_at(name: str, pad: int) -> Callable[[Any, Path], Any]:
  """Starling reads before the first pad token, which is that of the tiny tokenizer here."""

  def make(module: Any, path: Path) -> Any:
    model = getattr(module, name).from_pretrained(path)
    model.PAD_ID = pad
    return model

  return make


ROUTES: dict[str, Route] = {
  "skywork-v2": Route(None, classifier, cut_bos),
  "plain": Route(None, classifier, cut_bos),
  "grm": Route(None, classifier, twice),
  "qwen-math-rm": Route(
    ("authors", "qwen_prm"), "Qwen2ForProcessRewardModel", boxed, lambda m, row: m(input_ids=row).logits[0, -1, 0]
  ),
  "qwen-rm": Route(
    ("authors", "qwen_prm"),
    "Qwen2ForProcessRewardModel",
    without_system,
    lambda m, row: m(input_ids=row).logits[0, -1, 0],
  ),
  "inf-orm": Route((RB, "inform"), "INFORMForSequenceClassification", as_written),
  "ultrarm": Route(
    (RB, "openbmb"),
    "LlamaRewardModel",
    literal("Human: {}\n\nAssistant: {}"),
    lambda m, row: m(input_ids=row, attention_mask=torch.ones_like(row))[0, 0],
  ),
  "eurus-rm": Route(("authors", "eurus"), "EurusRewardModel", literal("[INST] {} [/INST] {}"), masked),
  "starling-34b": Route((RB, "starling"), padded_at("LlamaForSequenceClassification", -1), cut_bos, scores_of),
  "athene": Route(("authors", "athene"), athene, with_cls, scores_of),
  "qrm-gemma": Route(("authors", "qrm_gemma"), of_gemma, as_written),
  "nemotron-qwen3": Route(None, causal, without_thinking, first_generated),
  "deberta-pair": Route(None, classifier, as_pair),
  "oasst-mean": Route(
    (RB, "openassistant"),
    "GPTNeoXRewardModel",
    literal("<|prompter|>{}<|endoftext|><|assistant|>{}<|endoftext|>"),
    lambda m, row: m(input_ids=row).logits[0, 0],  # with a mask it cannot: it lacks a dimension
  ),
  "oasst": Route(
    (RB, "openassistant"), "GPTNeoXRewardModel", literal("<|prompter|>{}<|endoftext|><|assistant|>{}<|endoftext|>")
  ),
  "beaver": Route(
    (RB, "beaver"),
    "LlamaForScore",
    literal("BEGINNING OF CONVERSATION: USER: {} ASSISTANT:{}"),
    lambda m, row: m(input_ids=row, attention_mask=torch.ones_like(row)).end_scores[0, 0],
  ),
  "beaver-cost": Route(
    (RB, "beaver"),
    "LlamaForScore",
    literal("BEGINNING OF CONVERSATION: USER: {} ASSISTANT:{}"),
    lambda m, row: -m(input_ids=row, attention_mask=torch.ones_like(row)).end_scores[0, 0],
  ),
  "grm-sftreg": Route(
    (RB, "grm"), "GRewardModel", cut_bos, lambda m, row: m(input_ids=row, attention_mask=torch.ones_like(row))[0]
  ),
  "armorm": Route(("authors", "armorm"), of_pattern("LlamaForRewardModelWithGating"), as_written),
  "qrm": Route((RB, "qrm"), of_pattern("LlamaForRewardModelWithGating31"), as_written),
  "urm": Route(
    ("authors", "urm_forward"), urm, twice, lambda m, row: m.read(row, torch.ones_like(row), None, m).logits[0, -1]
  ),
  "nemotron": Route(None, causal, as_written, first_generated),
}
# Fields that the authors' classes read and that the sizes of the tiny checkpoints decide.
FIELDS = {
  "armorm": {"num_objectives": 19, "gating_hidden_dim": 12},
  "qrm": {"num_objectives": 5, "gating_hidden_dim": 12},
  "qrm-gemma": {"gating_hidden_dim": 12},
  "grm-sftreg": {"vhead_num_neurons": 24},
  "qwen-math-rm": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}},
  "qwen-rm": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}},
}


def rlhflow_orm(path: Path, sources: Path) -> list[float]:
  """RLHFlow's `select_sample` of math-rm/orm_evaluate."""
  sys.path.insert(0, str(sources / "rlhflow/math-rm"))
  own, tokenizer = importlib.import_module("orm_evaluate"), AutoTokenizer.from_pretrained(path)
  how = argparse.Namespace(num_n=2, model_type="Deepseek")
  tokens, model, found = [tokenizer.encode("+")[-1], tokenizer.encode("-")[-1]], causal(None, path).eval(), []
  for question, *answers in ANSWERS:
    sample = {"prompt": question, "answers": answers, "label": [1, 0]}
    found += own.select_sample(how, sample, model, tokenizer, tokens, "cpu")[1]["step_scores"]
  return found


def internlm2(path: Path, sources: Path) -> list[float]:
  """xtuner's `get_score`; only the reward token's id is that of the tiny tokenizer."""
  sys.path.insert(0, str(sources / "authors"))
  package = importlib.import_module("internlm2.modeling_internlm2")
  tokenizer = AutoTokenizer.from_pretrained(path)
  reward = tokenizer.convert_tokens_to_ids("[UNUSED_TOKEN_130]")
  config = package.InternLM2Config.from_pretrained(path, reward_token_id=reward, attn_implementation="eager")
  model = package.InternLM2ForRewardModel.from_pretrained(path, config=config).eval()
  turns = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, *both in ANSWERS for a in both]
  return [model.get_score(tokenizer, own) for own in turns]


def polar(path: Path, sources: Path) -> list[float]:
  """The text of InternLM/POLAR's `RewardModelClient`, by xtuner's model."""
  sys.path[:0] = [str(sources / "authors"), str(sources / "polar/src")]
  package = importlib.import_module("internlm2.modeling_internlm2")
  sys.modules.setdefault("requests", types.ModuleType("requests"))
  client = importlib.import_module("polar.reward_func").RewardModelClient(str(path))
  client.tokenizer.model_input_names = ["input_ids", "attention_mask"]
  reward = client.tokenizer.convert_tokens_to_ids("[UNUSED_TOKEN_130]")
  config = package.InternLM2Config.from_pretrained(path, reward_token_id=reward, attn_implementation="eager")
  model, found = package.InternLM2ForRewardModel.from_pretrained(path, config=config).eval(), []
  for question, *answers in ANSWERS:
    prompt, other = ([{"role": "user", "content": text}] for text in (question, REFERENCE))
    for answer in answers:
      one = {"prompt": prompt, "reference": other, "output": [{"role": "assistant", "content": answer}]}
      with torch.no_grad():
        found.append(model(**client.tokenizer([client.encode(one)], return_tensors="pt"))[0].item())
  return found


def ldl(path: Path, sources: Path) -> list[float]:
  """reward-bench's `LDLRewardModel27B`, whose layers are as wide as those of the tiny checkpoint."""
  sys.path.insert(0, str(sources / RB))
  own = importlib.import_module("ldlreward")
  own.MultiOutputNN.__init__.__defaults__, own.GatingNN.__init__.__defaults__ = ([12, 12],), (12, 2, 1.0, 0.0, False)
  config, tokenizer = AutoConfig.from_pretrained(path, attn_implementation="eager"), AutoTokenizer.from_pretrained(path)
  model = own.LDLRewardModel27B(config).float().eval()
  model.model.load_state_dict(load_file(path / "model.safetensors"))
  for part in ("regression_layer", "gating_layer"):
    getattr(model, part).load_state_dict(torch.load(path / f"{part}.pt"))
  rows = [torch.tensor([cut_bos(tokenizer, q, answer)]) for q, *both in ANSWERS for answer in both]
  with torch.no_grad():
    return [model(row, attention_mask=torch.ones_like(row)).logits.item() for row in rows]


def run(name: str, path: Path, sources: Path) -> list[float]:
  """The number of each answer."""
  if name in OWN:
    return OWN[name](path, sources)
  route, module = ROUTES[name], None
  if route.module:
    sys.path.insert(0, str(sources / route.module[0]))
    module = importlib.import_module(route.module[1])
  made = route.made(module, path) if callable(route.made) else getattr(module, route.made).from_pretrained(path)
  tokenizer, model = AutoTokenizer.from_pretrained(path), made.eval()
  rows = [route.ids(tokenizer, question, answer) for question, *both in ANSWERS for answer in both]
  with torch.no_grad():
    return [route.read(model, torch.tensor([row])).item() for row in rows]


OWN = {
  "internlm2": internlm2,
  "polar": polar,
  "ldl": ldl,
  "rlhflow-orm": rlhflow_orm,
  **SAVED,
}
NAMES = (*ROUTES, *OWN)
