"""What the tensors of a model folder say it is, whether they fit the class that reads them, and what helps where not.

transformers leaves out a tensor without a place in silence: those that would change a score are refused."""

import copy
import math
import re
from pathlib import Path
from typing import Any

from .errors import ModelError
from .hf import Config, Model
from .kinds import OUTCOME, PROCESS, Kind, kind_of_architecture
from .model_folder import ADAPTER_CONFIG, CONFIG, FLOATS, Tensor, hub_file, read_json, snapshot, tensors

CLEAN_UP = "save the plain model again: unwrap it (`accelerator.unwrap_model`), then `save_pretrained`"
MERGE = "merge the adapter before saving: `model.merge_and_unload()`, then `save_pretrained`"
OTHER_HEAD = "move that head to `score.weight` first: references/troubleshooting.md#move-another-head-to-scoreweight"
NOT_OURS = "score with the code of its authors, or train a reward model from its base"
PLAIN = "give the model without quantization: its weights in fp32, bf16 or fp16"
BOTH = f"holds an adapter beside its model ({ADAPTER_CONFIG}): which of both is meant?"
WRAPPERS = {
  r"(^|\.)base_model\.model\.|lora_|\.(base_layer|modules_to_save|original_module|ia3_\w+|vera_\w+)(\.|$)"
  r"|\.(hada|lokr|oft|boft|randlora|fourierft|adaption)_|(^|\.)prompt_(embeddings|encoder)\b": (
    "they come from an adapter",
    MERGE,
  ),
  r"^(module|model\.module)\.|_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.|_forward_module\.": (
    "they come from a wrapper (DistributedDataParallel, torch.compile, FSDP)",
    CLEAN_UP,
  ),
  r"\.(weight_(scale|scale_inv|packed|shape|zero_point|format)|(input|output|k|v)_scale|qweight|qzeros|scales|g_idx|absmax"
  r"|nested_absmax|quant_map|nested_quant_map|quant_state\.\S+|SCB|qscale_\w+)$": (
    "they come from quantization",
    PLAIN,
  ),
}
"""Names of tensors -> why they are refused, and the hint."""
HEAD_TENSORS = re.compile(
  r"(^|\.)((v|value|rm|reward|score|regression|cost|classification)_?(head|model_head|layer)|score|classifier|critic)\."
)


def check_size(path: str, auto_class, **fields) -> None:
  """Raises ModelError where the config describes a far larger model than the weights, which would fill the memory."""
  import torch
  from transformers import AutoConfig

  found = tensors(Path(path))
  config = AutoConfig.from_pretrained(path, trust_remote_code=False, **fields)
  if not found or getattr(config, "quantization_config", None):
    return
  layers, held = config.get_text_config().num_hidden_layers, sum(math.prod(tensor.shape) for tensor in found.values())
  too_large = layers > len(found) and f"{layers} layers; its weights have {len(found)} tensors"
  if not too_large:
    with torch.device("meta"):
      wanted = auto_class.from_config(config, trust_remote_code=False).num_parameters()
    too_large = wanted > 4 * held + 10**7 and f"{wanted:.1e} parameters; its weights have {held:.1e}"
  if too_large:
    raise ModelError(f"{path} does not fit its {CONFIG}, which describes {too_large}", where=Path(path) / CONFIG)


def check_loaded(path: str, model: Model, info: dict[str, Any], *, scores: bool, strict: bool) -> list[str]:
  """Notes on unused tensors. Raises ModelError for those that change what the model computes.

  info: of `from_pretrained`. scores: another head beside ours is refused. strict: so are layers left out."""
  if getattr(model, "_hf_peft_config_loaded", False):
    raise ModelError(f"{path} {BOTH}", hint=MERGE)
  unused, called = sorted(info["unexpected_keys"]), type(model).__name__
  left = {key: {_left_at(model, name) for name in (key, f"{model.base_model_prefix}.{key}")} for key in unused}
  correct = f"correct its {CONFIG}"
  faults = [
    *((lambda key, pattern=pattern: re.search(pattern, key), *fault) for pattern, fault in WRAPPERS.items()),
    (lambda key: "layer" in left[key], "what they would change is left out", f"{correct}, or {CLEAN_UP}"),
    (lambda key: scores and HEAD_TENSORS.search(key), "they make a score that would be lost", OTHER_HEAD),
    (lambda key: strict and "list" in left[key], f"its {CONFIG} names fewer layers", correct),
  ]
  for is_wrong, why, hint in faults:
    if keys := list(filter(is_wrong, unused)):
      what = f"{path} holds {len(keys)} tensors that {called} has no place for ({keys[0]}): {why}"
      raise ModelError(what, hint=hint)
  for key, has, wants in sorted(info["mismatched_keys"]):
    what = f"{path} does not fit its {CONFIG}: {key} is {list(has)}, {called} wants {list(wants)}"
    raise ModelError(what, hint="use the config that was saved with the weights")
  _check_numbers(path, model)
  rest = [key for key in unused if not key.startswith(("lm_head.", "cls."))]
  return [f"weights: {len(rest)} tensors of the file are not used, the first is {rest[0]}"] if rest else []


def _left_at(model: Model, key: str) -> str:
  """Where its path leaves the model: in a "layer" (it has parameters), beyond the end of a "list", or "none"."""
  import torch

  module = model
  for name in key.split(".")[:-1]:
    child = module._modules.get(name)
    if child is None:
      if isinstance(module, torch.nn.ModuleList) and name.isdigit():
        return "list"
      break
    module = child
  return "layer" if next(module.parameters(recurse=False), None) is not None else "none"


def _check_numbers(path: str, model: Model) -> None:
  folder = snapshot(path)
  if folder is None or getattr(model.config, "quantization_config", None):
    return
  known, odd = set(model.state_dict()), [key for key, one in tensors(folder).items() if one.dtype not in FLOATS]
  if odd := [key for key in odd if key.endswith((".weight", ".bias")) or key in known]:
    raise ModelError(f"{path} holds {len(odd)} weights that are not floating-point numbers ({odd[0]})", hint=PLAIN)


def check_is_model(path: str) -> None:
  """Raises ModelError when this is an adapter, or a folder without a model."""
  folder = Path(path)
  adapter, has_config = folder / ADAPTER_CONFIG, (folder / CONFIG).is_file()
  if adapter.is_file() and has_config:
    hint = f"without the adapter: move {ADAPTER_CONFIG} and adapter_model.* away; with it: {MERGE}"
    raise ModelError(f"{path} {BOTH}", where=adapter, hint=hint)
  if adapter.is_file():
    raise _adapter(path, read_json(adapter), tensors(folder, "adapter_model*.safetensors"))
  if path.endswith(".gguf") or (any(folder.glob("*.gguf")) and not any(folder.glob("*.safetensors"))):
    raise ModelError(f"{path} holds GGUF weights", hint=PLAIN)
  if folder.is_dir() and not has_config:
    hint = "finish the run with --resume_from_checkpoint" if any(folder.glob("checkpoint-*")) else None
    raise ModelError(f"{path} is not a model folder: it has no {CONFIG}", hint=hint)
  if not folder.is_dir() and (folder.exists() or path.startswith((".", "/", "~")) or path.count("/") > 1):
    raise ModelError(f"there is no model folder {path}")


def check_is_no_adapter_on_the_hub(path: str) -> None:
  if adapter := hub_file(path, ADAPTER_CONFIG, ask=True):
    weights = hub_file(path, "adapter_model.safetensors", ask=True)
    raise _adapter(path, read_json(adapter), tensors(weights.parent, weights.name) if weights else {})


def _adapter(path: str, config: dict[str, Any], found: dict[str, Tensor]) -> ModelError:
  base, merged = config.get("base_model_name_or_path") or "BASE", Path(path).parent
  what = f"{path} is a LoRA adapter without its model" + f" ({base})" * (base != "BASE")
  heads = [key for key in found if HEAD_TENSORS.search(key) and "lora_" not in key]
  writes_text = config.get("task_type") == "CAUSAL_LM"
  if (merged / "reward_model.json").is_file() or (merged / "ppo.json").is_file():
    hint = f"use {merged}, which holds the model with this adapter merged"
  elif found and not heads and not writes_text:
    what += ", and without a score head: it was neither trained nor saved"
    hint = "train again with train.py --use_peft, or with TaskType.SEQ_CLS in a LoraConfig"
  else:
    kind = PROCESS if config.get("task_type") == PROCESS.task_type else OUTCOME
    shapes = (found[key].shape for key in heads if key.endswith("weight") and found[key].shape)
    auto, labels = f"AutoModel{kind.architecture}", f", num_labels={next(shapes, [len(kind.labels)])[0]}"
    if writes_text and not heads:
      auto, labels = "AutoModelForCausalLM", ""
    hint = f"""merge it into its base, then give the folder MERGED instead:
  from peft import PeftModel
  from transformers import {auto}, AutoTokenizer
  base = {auto}.from_pretrained({base!r}{labels})
  PeftModel.from_pretrained(base, {path!r}).merge_and_unload().save_pretrained("MERGED")
  AutoTokenizer.from_pretrained({base!r}).save_pretrained("MERGED")"""
  return ModelError(what, hint=hint)


def explain(path: str, config: Config, kind: Kind) -> ModelError | None:
  """Why a model whose config is not that of `kind` may be one by its weights; or None."""
  folder = snapshot(path)
  found = tensors(folder).items() if folder else ()
  heads = {key: tensor.shape for key, tensor in found if HEAD_TENSORS.search(key)}
  if not heads:
    return None
  named = (config.architectures or ["no class"])[0]
  family, wanted = _head_of(config, kind)
  if heads == wanted:
    return ModelError(
      f"{path} is {kind.called} by its weights ({_shapes(heads)}), but its {CONFIG} names {named} with {config.num_labels} labels",
      where=folder / CONFIG,
      hint=f"if it was trained as {family}, let the config say so:\n  {_correct(folder, family, kind)}",
    )
  if heads.keys() == wanted.keys() and kind_of_architecture(named) is kind:
    return None
  if heads.keys() == wanted.keys():
    what = f"{path} has another number of labels than {kind.called}: {_shapes(heads)} instead of {_shapes(wanted)}"
    return ModelError(what, hint=f"use a model trained with num_labels={len(kind.labels)}")
  several = len({key.rpartition(".")[0] for key in heads}) > 1
  what = f"{path} was saved as {named} with a head that no class of transformers has: {_shapes(heads)}"
  return ModelError(what, hint=NOT_OURS if several else OTHER_HEAD)


def _shapes(heads: dict[str, tuple[int, ...]]) -> str:
  return ", ".join(f"{key} {list(shape)}" for key, shape in sorted(heads.items())[:3])


def _head_of(config: Config, kind: Kind) -> tuple[str, dict[str, tuple[int, ...]]]:
  import torch

  if type(config) not in kind.auto_class._model_mapping:
    return "", {}
  config = copy.deepcopy(config)
  config.num_labels, config.problem_type = len(kind.labels), kind.problem_type
  with torch.device("meta"):
    model = kind.auto_class.from_config(config, trust_remote_code=False)
  shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items() if HEAD_TENSORS.search(key)}
  return type(model).__name__, shapes


def _correct(folder: Path, family: str, kind: Kind) -> str:
  values = {
    "architectures": [family],
    "id2label": {str(number): label for number, label in kind.labels.items()},
    "label2id": kind.label2id,
  }
  return (
    f'python -c "import json, pathlib; f = pathlib.Path({str(folder / CONFIG)!r}); c = json.loads(f.read_text()); '
    f"c.pop('num_labels', 0); c.update({values}); f.write_text(json.dumps(c, indent=2))\""
  )
