"""Load a public reward model of `PUBLIC` by classes of transformers and `public_heads` alone, and render for it."""

import re
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from . import checkpoints
from .base_rendering import BaseRenderer
from .errors import ModelError, UsageError
from .heads import scored_at
from .hf import Config, Model, Tensor, Tokenizer
from .kinds import Kind
from .model_folder import CONFIG, HEAD_FILES, check_folder, pickled_weights, read_json
from .output_folder import CARD
from .precision import usable
from .pretrained import from_pretrained, loaded_by, notes_of_files, read_chat_template, read_tokenizer, without_reports
from .public_rendering import MarkedRenderer, PublicRenderer, PublicStepRenderer, one_token, with_token_types
from .public_table import Family
from .readers import INDEX, pickled, recognize_family
from .tokenizer_setup import check_embedded, prepare_tokenizer
from .weights import check_loaded

TRUNK = re.compile(r"^((model|transformer|gpt_neox|pretrained_model|backbone|base_model)\.)?(language_model\.)?")
UNUSED = re.compile(
  r"^(model\.)?(lm_head|embed_out|output|visual|vision_\w+|multi_modal_projector)\.|^normalizer\.count$"
  r"|\.inv_freq$|\.masked_bias$|\.attention\.bias$"
)


def load_any(
  path: str, reference: str | None, *, kind: Kind, compares: bool = False, **run
) -> tuple[checkpoints.Loaded, Family | None]:
  """A model of ours or of others, with its family if any. reference: of a log-ratio. compares: whether one that compares answers
  is wanted; another is a ModelError."""
  family = recognize_family(path)
  if compares != bool(family and family.compares):
    found = "scores each answer alone" if compares else "compares answers: its rewards hold within a prompt only"
    hint = "load it with RewardModel" if compares else "rank with score.py, or give a model that scores each answer"
    raise ModelError(f"{path} {found}", hint=hint)
  needed = family and family.reference
  reference = reference or (family and family.own.get("reference"))
  if needed and not reference:
    what = f"the reward of {path} is a log-ratio with a reference model"
    raise UsageError(what, hint=f"give --reference_model_name_or_path, by its authors {needed}")
  if reference and not needed and (family or checkpoints.kind_of(path)):
    raise UsageError(f"{path} has a reward of its own", hint="leave out --reference_model_name_or_path")
  if reference:
    from .implicit import load_log_ratio

    run["scale"] = family.scale if family else 1.0
    return made_ready(*load_log_ratio(path, reference, of_steps=bool(family), **run)), family
  if family and family.head:
    checkpoints.check_kind(path, family, kind)
    return load_family(path, family, **run), family
  return checkpoints.load(path, kind=kind, family=family, **run), family


def load_family(path: str, family: Family, *, dtype: str, device: str | None) -> checkpoints.Loaded:
  """A public model with a head of its own, which stays in fp32. Raises ModelError where a tensor or token is missing."""
  import torch

  from . import public_heads

  device = usable(device)
  folder = fetched(path)
  tokenizer, config = tokenizer_and_config(folder, family)
  state = under_own_names(path, loaded_by(path, lambda: read_tensors(folder)), family, tokenizer)
  split_attention(state, config)
  shapes = {name.removeprefix("score."): tuple(own.shape) for name, own in state.items() if name.startswith("score.")}
  if not shapes:
    raise ModelError(f"{path} lacks its head ({family.called})", hint="fetch all of its files")
  made = model_class(config, family, getattr(public_heads, str(family.head)), shapes)
  asked = {"dtype": getattr(torch, dtype), "output_loading_info": True, "ignore_mismatched_sizes": True}
  with without_reports():
    model, info = loaded_by(path, lambda: made.from_pretrained(None, config=config, state_dict=state, **asked))
  model.score.to(torch.float64 if dtype == "float64" else torch.float32)
  notes = [family.read_by(path), *check_loaded(path, model, info, scores=False, strict=True)]
  missing = sorted(name for name in info["missing_keys"] if not name.endswith(".num_batches_tracked"))
  if missing:
    raise ModelError(f"{path} lacks {len(missing)} tensors, the first is {missing[0]}")
  notes += notes_of_files(str(folder))
  check_embedded(path, tokenizer, model.get_input_embeddings().num_embeddings)
  return made_ready(model.to(device), tokenizer, notes)


def made_ready(model: Model, tokenizer: Tokenizer, notes: list[str]) -> checkpoints.Loaded:
  if tokenizer.pad_token is None:  # any token will do after the mask
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
  model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
  return checkpoints.Loaded(model.eval(), tokenizer, "loaded", notes)


def fetched(path: str) -> Path:
  folder = Path(path)
  if not folder.is_dir():
    from huggingface_hub import snapshot_download

    kinds = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", HEAD_FILES]
    folder = loaded_by(path, lambda: Path(snapshot_download(path, allow_patterns=kinds)))
    if not any(folder.glob("*.safetensors")):
      loaded_by(path, lambda: snapshot_download(path, allow_patterns=["*.bin"]))
  check_folder(str(folder))
  return folder


def tokenizer_and_config(folder: Path, family: Family) -> tuple[Tokenizer, Config]:
  """The config of the text part alone."""
  import transformers

  if family.trunk is None:
    return read_tokenizer(str(folder)), from_pretrained(transformers.AutoConfig, folder).get_text_config()
  is_whole, fields = (folder / "tokenizer.json").is_file(), read_json(folder / CONFIG)
  made = transformers.PreTrainedTokenizerFast if is_whole else transformers.LlamaTokenizer
  fields = {key: value for key, value in fields.items() if key not in ("model_type", "auto_map")}
  return from_pretrained(made, folder), transformers.AutoConfig.for_model(family.trunk, **fields)


def model_class(config: Config, family: Family, head: type, shapes: dict[str, tuple[int, ...]]) -> type:
  """The trunk of this config as `model`, the head as `score`. Logits are [B, T, k]; pooled, and where an encoder-decoder would
  write its first token, [B, k]."""
  from transformers import AutoModel, PreTrainedModel
  from transformers.modeling_outputs import TokenClassifierOutput

  trunk, start = AutoModel._model_mapping[type(config)], getattr(config, "decoder_start_token_id", None)
  parent = next(base for base in trunk.__mro__[1:] if issubclass(base, PreTrainedModel))

  class Public(parent):
    base_model_prefix = "model"
    _keep_in_fp32_modules_strict = frozenset(("score",))

    def __init__(self, config):
      super().__init__(config)
      self.model, self.score = trunk(config), head(config, shapes, **family.options)
      self.post_init()

    def forward(self, input_ids, attention_mask=None) -> TokenClassifierOutput:
      first = {"decoder_input_ids": input_ids.new_full((len(input_ids), 1), start)} if start is not None else {}
      hidden = self.model(
        input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **first
      ).last_hidden_state
      if first:
        hidden = hidden[:, 0]
      if family.pooled:
        mask = attention_mask[..., None]
        hidden = (hidden * mask).sum(1) / mask.sum(1)
      return TokenClassifierOutput(logits=self.score(hidden))

  return Public


def read_tensors(folder: Path) -> dict[str, Tensor]:
  """Of a head in a file of its own by the name of that file, too."""
  from safetensors.torch import load_file

  index, files = folder / INDEX, sorted(folder.glob("*.safetensors"))
  if index.is_file():  # beside its shards lies a head, or the same weights in another layout
    shards = set(read_json(index)["weight_map"].values())
    files = [file for file in files if file.name in shards or "head" in file.name]
  state: dict[str, Tensor] = {}
  for file in files:
    state |= load_file(file)
  for name in pickled_weights(folder):
    is_head = fnmatch(name, HEAD_FILES)
    state |= {f"{Path(name).stem}.{one}" if is_head else one: own for one, own in pickled(folder / name).items()}
  return state


def under_own_names(path: str, state: dict[str, Tensor], family: Family, tokenizer: Tokenizer) -> dict[str, Tensor]:
  """The tensors that take part, under the names of `model_class`."""
  found = {}
  if family.tokens:
    tied = (own for name, own in state.items() if name.endswith("model.embed_tokens.weight"))
    rows = state["lm_head.weight"] if "lm_head.weight" in state else next(tied, None)
    if rows is not None:
      read = "whose logit is the reward"
      ids = [one if isinstance(one, int) else one_token(path, tokenizer, one, read) for one in family.tokens]
      found["score.0.weight"] = rows[ids]
  for name, tensor in state.items():
    if not UNUSED.search(name):
      renamed = (re.sub(*rule, name) for rule in family.weights.items())
      new = next((new for new in renamed if new != name), name)
      found[new if new.startswith("score.") else TRUNK.sub("model.", new)] = tensor
  return found


def split_attention(state: dict[str, Tensor], config: Config) -> None:
  """InternLM2's `wqkv` as Llama's three projections: of each key head its queries, then its key, then its value."""
  for name in [name for name in state if name.endswith(".attention.wqkv.weight")]:
    fused, keys = state.pop(name), config.num_key_value_heads
    grouped = fused.view(keys, config.num_attention_heads // keys + 2, -1, fused.shape[-1])
    for part, own in zip("qkv", (grouped[:, :-2], grouped[:, -2], grouped[:, -1]), strict=True):
      state[name.replace("attention.wqkv", f"self_attn.{part}_proj")] = own.reshape(-1, fused.shape[-1])


def overridden(
  path: str, loaded: checkpoints.Loaded, family: Family | None, text_format: str | None, template_path: str | None
) -> Family | None:
  if text_format != "pair" and not template_path:
    return replace(family, pair=False) if family and family.pair and text_format == "chat" else family
  if loaded.card:
    what = f"{path} renders text as in training, which its {CARD} describes"
    raise UsageError(what, hint="leave out --chat_template_path and --text_format pair")
  family = family or Family(path, "the flags", "the head of transformers")
  if text_format != "pair":
    return replace(family, template=read_chat_template(template_path), pair=False)
  if scored_at(loaded.model) != "pooled":
    raise UsageError("--text_format pair is for encoders", hint="leave it out, or give --chat_template_path")
  return replace(family, pair=True)


def renderer_of(
  loaded: checkpoints.Loaded, family: Family | None, path: str, text_format: str | None, separator: str | None = None
) -> BaseRenderer:
  tokenizer, notes = loaded.tokenizer, loaded.notes
  rules = {"max_length": None, "text_format": "chat" if text_format in (None, "pair") else text_format}
  if family and family.template:
    tokenizer.chat_template = family.template
  elif not tokenizer.chat_template:
    prepared = prepare_tokenizer(tokenizer)
    if not (family and (family.head == "Marked" or family.opening is not None)):
      notes += prepared  # else no text takes a template
  if family is None:
    from .implicit import AnswerRenderer

    return AnswerRenderer(tokenizer, **rules)
  if family.own:
    from .implicit import own_renderer

    return own_renderer(loaded.model, tokenizer, family, path, **rules)
  own, rules["path"] = None if family.head else scored_at(loaded.model), path
  if family.kind == "process":
    made = PublicStepRenderer(tokenizer, family, separator=separator, scored_at=own or "last_token", **rules)
  else:
    if family.pair and getattr(loaded.model.config, "type_vocab_size", 0) > 1:
      if tokenizer.sep_token is None:
        what = f"the tokenizer of {path} has no SEP token between two texts"
        raise ModelError(what, hint="give --chat_template_path")
      loaded.model.register_forward_pre_hook(with_token_types(tokenizer.sep_token_id), with_kwargs=True)
    place = "pooled" if family.pooled else own or "end"
    renders = MarkedRenderer if family.head == "Marked" else PublicRenderer
    made = renders(tokenizer, family, scored_at=place, **rules)
  notes.append(f"text: {family.text()}")
  return made
