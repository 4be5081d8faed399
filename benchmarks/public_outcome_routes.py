"""As `public_routes.py`, for outcome reward models: classes of reward-bench, xtuner, RLHFlow, OpenRLHF, LLaMA-Factory and TRL."""

from __future__ import annotations

import argparse
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from public_routes_inputs import ANSWERS, REFERENCE
from safetensors.torch import load_file, save_file
from transformers import (
  AutoConfig,
  AutoModelForCausalLM,
  AutoModelForSequenceClassification,
  AutoTokenizer,
  PreTrainedModel,
)

Ids = list[int]


def chat(tokenizer: Any, question: str, answer: str, system: str | None = None, **how: Any) -> str:
  turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
  return tokenizer.apply_chat_template(
    [{"role": "system", "content": system}] * (system is not None) + turns, tokenize=False, **how
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


def literal(text: str) -> Callable[[Any, str, str], Ids]:
  return lambda tokenizer, question, answer: tokenizer(text.format(question, answer))["input_ids"]


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


def causal(module: Any, path: Path) -> Any:
  return AutoModelForCausalLM.from_pretrained(path, torch_dtype=torch.float32)


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


def scores_of(model: Any, row: torch.Tensor) -> torch.Tensor:
  """Of Starling's and Athene's classes."""
  found = model(input_ids=row, attention_mask=torch.ones_like(row))
  return (found["scores"] if isinstance(found, dict) else found)[0]


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


RB = "rb/rewardbench/models"
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
  "starling": starling,
  "openrlhf": openrlhf,
  "linear head": llama_factory,
  "skywork-vl": skywork_vl,
  "nemotron-principle": principle,
  "reasonflux-orm": reason_flux,
}
NAMES = (*ROUTES, *OWN)
