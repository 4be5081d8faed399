"""Config, tokenizer, weights and chat template of a folder or hub id, by the classes of transformers and no other code."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import hub, weights
from .errors import ModelError, UsageError, UserError
from .hf import Config, Dtype
from .model_folder import CONFIG, check_config, check_folder, hub_file, own_code, pickled_weights, read_json, snapshot
from .tokenizer_setup import check_tells_apart

# Words in what the hub's client says -> the next thing to try.
HUB_HINTS = {
  "uantiz": weights.PLAIN,
  "`tiktoken` is": "its tokenizer.model is of SentencePiece: add `--with sentencepiece` to `uv run`",
  "gated repo": "accept the terms on the model's page, then log in with `hf auth login`",
  "problem_type=": 'set "problem_type": "regression" in its config.json: one label is a reward, not a class',
  "couldn't connect": "there is no folder of that name here, and no network; only what is in the cache loads without it. "
  "Where there is one: `hf download ID --local-dir DIR`, then give DIR here",
  "Unrecognized configuration class": "transformers has no class of this architecture that gives scores",
}


def read_config(path: str) -> Any:
  from transformers import AutoConfig

  check_folder(path)
  weights.check_is_model(path)
  check_reachable(path)
  try:
    config = from_pretrained(AutoConfig, path)
  except ModelError as error:
    if any(words in error.message for words in ("does not appear to have a file named", "Unrecognized model")):
      weights.check_is_no_adapter_on_the_hub(path)
    raise
  if not Path(path).is_dir() and (folder := snapshot(path)):
    check_config(read_json(folder / CONFIG), folder / CONFIG)
  _check_no_own_class(path, CONFIG, "architectures")
  return config


def read_tokenizer(path: str) -> Any:
  from transformers import AutoTokenizer

  check_folder(path)
  check_reachable(path)
  tokenizer = from_pretrained(AutoTokenizer, path)
  if not tokenizer.chat_template and (file := hub_file(path, "chat_template.json", ask=True)):
    tokenizer.chat_template = read_json(file).get("chat_template")
  _check_no_own_class(path, "tokenizer_config.json", "tokenizer_class")
  check_tells_apart(path, tokenizer)
  return tokenizer


def read_model(
  auto_class: Any,
  path: str,
  *,
  scores: bool,
  strict: bool,
  dtype: Any,
  more: dict[str, Any] | None = None,
  **labels: int,
) -> tuple[Any, list[str], list[str]]:
  """(model, names of its weights that the files lack, notes). scores, strict: as in `weights.check_loaded`."""
  options = {"trust_remote_code": False, "output_loading_info": True, "ignore_mismatched_sizes": True, **(more or {})}
  with without_reports():
    if Path(path).is_dir():
      loaded_by(path, lambda: weights.check_size(path, auto_class, **labels))
    model, info = loaded_by(path, lambda: auto_class.from_pretrained(path, dtype=dtype, **options, **labels))
  notes = weights.check_loaded(path, model, info, scores=scores, strict=strict)
  return model, sorted(info["missing_keys"]), [*notes, *notes_of_files(path)]


def read_language_model(path: str, dtype: Dtype) -> tuple[Any, list[str]]:
  from transformers import AutoModelForCausalLM

  model, missing, notes = read_model(AutoModelForCausalLM, path, scores=False, strict=True, dtype=dtype)
  if missing:
    what = f"{path} is not a language model: it lacks the weights of {len(missing)} layers ({missing[0]})"
    raise ModelError(what, hint="they would be random: give a folder that was saved with them")
  return model, notes


def notes_of_files(path: str) -> list[str]:
  folder, files = snapshot(path), own_code(path)
  notes = [f"{', '.join(files)}: not run, the classes of transformers are used instead"] if files else []
  if folder and (pickles := pickled_weights(folder)):
    notes.append(f"weights: {pickles[0]} is a pickle, of which only tensors are read; safetensors are safer")
  return notes


def check_reachable(path: str) -> None:
  if not (Path(path).is_dir() or hub.answers(path) or snapshot(path)):
    raise ModelError(f"cannot load {path}: the hub does not answer", hint=HUB_HINTS["couldn't connect"])


@contextlib.contextmanager
def without_reports() -> Iterator[None]:
  """transformers reports a new head and an unused one: both are meant."""
  from transformers.utils import logging

  verbosity = logging.get_verbosity()
  logging.set_verbosity_error()
  try:
    yield
  finally:
    logging.set_verbosity(verbosity)


def _check_no_own_class(path: str, file: str, key: str) -> None:
  import transformers

  folder = snapshot(path)
  config = read_json(folder / file) if folder and (folder / file).is_file() else {}
  names = config.get(key)
  for name in names if isinstance(names, list) else [names]:
    if not isinstance(name, str) or not config.get("auto_map"):
      continue
    if not any(hasattr(transformers, one) for one in (name, name.removesuffix("Fast"))):
      raise _own_code_error(path, f"{name} is not part of transformers")


def _own_code_error(path: str, why: str) -> ModelError:
  what = f"{path} needs code of its own ({', '.join(own_code(path)) or 'in its repository'}), which is never run: {why}"
  return ModelError(what, hint="use a model whose classes are part of transformers")


def from_pretrained(made: Any, path: str | Path) -> Any:
  return loaded_by(str(path), lambda: made.from_pretrained(path, trust_remote_code=False))


def loaded_by(path: str, load_it: Callable[[], Any]) -> Any:
  """Run a `from_pretrained`, turning what it raises into ModelError."""
  try:
    return load_it()
  except UserError:
    raise
  except Exception as error:  # tokenizers and safetensors raise classes of their own, derived from Exception only
    said = str(error)
    if "No space left" in said or "out of memory" in said.lower():
      raise
    if "trust_remote_code" in said:
      raise _own_code_error(path, "no class of transformers reads it") from error
    reason = (said.strip() or type(error).__name__).splitlines()[0].rstrip(".")
    hint = next((hint for words, hint in HUB_HINTS.items() if words in reason), None)
    if "weights_only" in said or "torch.load" in said:  # whose text says how to switch the protection off
      reason = "a pickle among its files holds more than tensors, or is broken"
      hint = "only tensors are read from a pickle: ask its authors for safetensors"
    if hint is None:
      reason += "" if Path(path).exists() else ", and there is no such folder here"
      hint = "give a folder with config.json, weights and a tokenizer, or a hub id"
    raise ModelError(f"cannot load {path}: {reason}", hint=hint) from error


def architecture_of(config: Config) -> str:
  return (config.architectures or [""])[0]


def read_chat_template(path: str | None) -> str | None:
  if path is None:
    return None
  if path.endswith((".jinja", ".j2")):
    try:
      if Path(path).exists() and not Path(path).is_file():
        raise UsageError(f"the chat template {path} is not a regular file")
      return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
      reason = getattr(error, "strerror", "it is not UTF-8 text")
      raise UsageError(f"cannot read the chat template {path}: {reason}") from error
  template = read_tokenizer(path).chat_template
  if not template:
    hint = "name a model that has one, or a .jinja file"
    raise ModelError(f"the tokenizer of {path} has no chat template", hint=hint)
  return template
