"""Load, save and verify a reward model: a plain Hugging Face folder with a card, `reward_model.json`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import quantized
from .attributes import Attributes, collapsed, labels_of, of_card
from .chat_templates import DATE_NOTE, writes_the_date
from .errors import ModelError
from .golden import (
  CARD_VERSION,
  MERGE_TOLERANCE,
  RELOAD_TOLERANCE,
  check_golden,
  check_unchanged,
  golden_scores,
  read_card,
)
from .heads import head_name, head_projection, keep_head_in_float32, scored_at, unwrapped
from .hf import Model, Tokenizer
from .kinds import KINDS, OUTCOME, Kind, kind_of_architecture
from .kinds import PROCESS as PROCESS
from .model_folder import CONFIG, check_folder, read_json
from .output_folder import CARD, staged
from .precision import usable, where_it_fits
from .pretrained import architecture_of, read_chat_template, read_config, read_model, read_tokenizer
from .public_table import Family
from .readers import recognize_family
from .results import to_json
from .tokenizer_setup import check_embedded, prepare_tokenizer
from .weights import NOT_OURS, OTHER_HEAD, explain

ADAPTER = "adapter"


@dataclass
class Loaded:
  """head: "new" (drawn at random) or "loaded". card: None for a foreign model. rendering: as cards have it, or what is assumed."""

  model: Model
  tokenizer: Tokenizer
  head: str
  notes: list[str]
  card: dict[str, Any] | None = None
  rendering: dict[str, Any] = field(default_factory=dict)


def load_for_training(
  path: str,
  *,
  chat_template_path: str | None = None,
  seed: int = 42,
  kind: Kind = OUTCOME,
  in_4bit: bool = False,
  attributes: Attributes = (),
) -> Loaded:
  """A model with the head of this kind, or of these attributes, in fp32, and a tokenizer that obeys the rendering rules.

  A new head is drawn from N(0, 1/(d+1)) (Stiennon et al. 2020, arXiv:2009.01325, B.1). Heads of attributes become one
  where none are wanted (regression before Bradley-Terry: arXiv:2410.01257).
  """
  import torch
  from transformers import set_seed

  config = check(path, kind, to_train=True)
  is_trained = kind_of_architecture(architecture_of(config)) is kind
  saved = saved_attributes(path) if is_trained else ()
  labels = labels_of(attributes) or [*kind.labels.values()]
  tokenizer = read_tokenizer(path)
  notes = prepare_tokenizer(tokenizer, read_chat_template(chat_template_path))
  set_seed(seed)
  count = config.num_labels if is_trained else len(labels)
  how = {"num_labels": count, "dtype": torch.float32, "more": quantized.loading() if in_4bit else None}
  model, missing, more = read_model(kind.auto_class, path, scores=True, strict=False, **how)
  notes += more
  quantized.compute_in(model, torch.float32)
  trunk = f"{model.base_model_prefix}."
  lost = [key for key in missing if key.startswith(trunk) and ".pooler." not in key]
  if lost:
    raise ModelError(f"{path} lacks the weights of {len(lost)} layers, the first is {lost[0]}")
  new = bool(missing) or (attributes != saved and bool(attributes))
  old = head_projection(model)
  if new:
    drawn = torch.nn.init.normal_(torch.empty(len(labels), old.in_features), std=(old.in_features + 1) ** -0.5)
    _set_head(model, old, drawn)
  elif saved and not attributes:
    _set_head(model, old, collapsed(old.weight.data, saved))
    notes.append(f"head: {', '.join(labels_of(saved))} become one reward by their weights")
  if len(tokenizer) > model.get_input_embeddings().num_embeddings:
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    notes.append(f"embeddings: grown to {len(tokenizer)} for the new pad token")
  _write_contract_into_config(model, tokenizer, kind, labels)
  return Loaded(model, tokenizer, "new" if new else "loaded", notes)


def saved_attributes(path: str) -> Attributes:
  return of_card(read_card(path))


def _set_head(model: Model, old: Any, weight: Any) -> None:
  import torch

  base, has_bias = unwrapped(model), old.bias is not None
  head = torch.nn.utils.skip_init(torch.nn.Linear, weight.shape[1], len(weight), bias=has_bias)
  head.weight.data = weight
  if has_bias:
    torch.nn.init.zeros_(head.bias)
  base.set_submodule(next(name for name, module in base.named_modules() if module is old), head)
  base.num_labels = base.config.num_labels = len(weight)


def load(
  path: str,
  *,
  dtype: str = "float32",
  device: str | None = None,
  kind: Kind = OUTCOME,
  compare: bool = True,
  family: Family | None = None,
) -> Loaded:
  """A trained reward model, in eval mode; ModelError when it is not of this kind, or renders or (compare) scores otherwise than in
  training."""
  import torch

  path, device = str(path), usable(device)
  config = check(path, kind)
  tokenizer = read_tokenizer(path)
  card = read_card(path, expected=config.id2label == kind.labels)
  model, missing, notes = read_model(kind.auto_class, path, scores=True, strict=True, dtype=getattr(torch, dtype))
  if missing:
    what = f"{path} lacks the weights of {len(missing)} layers ({missing[0]}): its scores would be random"
    raise explain(path, config, kind) or ModelError(what, hint=f"train it with {kind.script}")
  rows, guess = model.get_input_embeddings().num_embeddings, {}
  if card is None:
    check_embedded(path, tokenizer, rows)
    paired = _reads_pairs(tokenizer, model)
    guess = {"text_format": "pair"} if paired and not family else {}  # as published
    notes += _adopt_foreign_tokenizer(path, tokenizer, model, kind, family, paired)
  model.eval().to(device)
  if dtype != "float32":
    keep_head_in_float32(model)
  if card is not None:
    renderer = kind.renderer(tokenizer, scored_at(model), card["rendering"])
    _check_fingerprint(path, card, renderer)
    check_embedded(path, tokenizer, rows)
    if compare:
      check_unchanged(path, card, model, renderer, dtype)
  return Loaded(model, tokenizer, "loaded", notes, card, card["rendering"] if card else guess)


def kind_of(path: str) -> Kind | None:
  """By its configuration alone; None for other models."""
  check_folder(path)
  if family := recognize_family(path):
    return KINDS[family.kind]
  if (Path(path) / CONFIG).is_file():
    return kind_of_architecture((read_json(Path(path) / CONFIG).get("architectures") or [""])[0])
  return kind_of_architecture(architecture_of(read_config(str(path))))


def is_log_ratio(path: str) -> bool:
  """Whether its reward, if it has one, takes a reference model."""
  family = recognize_family(path)
  return bool(family.reference) if family else kind_of(path) is None


def check(path: str, kind: Kind = OUTCOME, *, to_train: bool = False) -> Any:
  """Its configuration, or ModelError. to_train: one without a head will do, one whose head would be lost not."""
  import transformers

  family = recognize_family(path)
  if family and family.head and to_train:
    what = f"the head of {path} would be lost: training continues from one in `score.weight`, not from {family.how}"
    raise ModelError(what, hint=f"start from the base model it was made of, or {OTHER_HEAD}")
  if family and (family.head or family.reference):
    return check_kind(path, family, kind)
  config = read_config(path)
  architecture, labels = architecture_of(config), len(kind.labels)
  found = kind_of_architecture(architecture)
  if found is kind and config.num_labels != labels:
    labels = len(labels_of(saved_attributes(path))) or labels
  if found not in (None, kind):
    what = f"{path} is {found.called} ({architecture}): it scores {found.scores}, not {kind.scores}"
    other = f"start from the base model it was made of, or train it further with {found.script}"
    raise ModelError(what, hint=other if to_train else kind.wanted)
  if to_train and found is None:
    return config
  unknown = not to_train and not hasattr(transformers, architecture)
  if (found is None or config.num_labels != labels or unknown) and (explained := explain(path, config, kind)):
    raise explained
  if found is None:
    raise ModelError(
      f"{path} is not a reward model: its architecture is {architecture or 'not named'}, without a score head",
      hint=f"train one: {kind.script} --model_name_or_path {path} --dataset_name DATA; of a model that DPO made, give "
      "the one before as --reference_model_name_or_path",
    )
  if unknown:
    what = f"{path} was saved by a class that transformers does not have ({architecture}): how it scores is not known"
    raise ModelError(what, hint=NOT_OURS)
  if config.num_labels != labels:
    what = f"{path} has {config.num_labels} labels; {kind.called} has {labels}"
    other = "start from the base model it was made of, or " if to_train else ""
    raise ModelError(
      what, hint=f"{other}use a model with num_labels={labels}, or heads of ratings by train.py --objective regression"
    )
  return config


def check_kind(path: str, family: Family, kind: Kind) -> None:
  found = KINDS[family.kind]
  if found is not kind:
    what = f"{path} is {found.called} ({family.called}): it scores {found.scores}, not {kind.scores}"
    raise ModelError(what, hint=kind.wanted)


def _reads_pairs(tokenizer: Tokenizer, model: Model) -> bool:
  """An encoder without a chat template, whose tokenizer keeps two texts apart."""
  apart = tokenizer.num_special_tokens_to_add(pair=True) > 0
  return apart and not tokenizer.chat_template and scored_at(model) == "pooled"


def _adopt_foreign_tokenizer(
  path: str, tokenizer: Tokenizer, model: Model, kind: Kind, family: Family | None, paired: bool
) -> list[str]:
  told, text = bool(tokenizer.chat_template), "its own chat template"
  if not told:
    prepare_tokenizer(tokenizer)
    text = "prompt and answer as a text pair" if paired else "'User: ' and 'Assistant: ' before the turns"
    text += " (it has no chat template; --chat_template_path gives another)"
  head = f"its {head_name(model)} head, read at the {'first' if scored_at(model) == 'pooled' else 'last'} token"
  unknown = f"{path} has no {CARD} and is not a known public model (score.py --list_public_models)"
  notes = [family.read_by(path) if family else f"{unknown}: assumed are {text} and {head}"]
  if family and not told and not family.pair:
    notes.append(f"assumed are {text}")
  if writes_the_date(tokenizer):
    notes.append(DATE_NOTE)
  rows = model.get_input_embeddings().num_embeddings
  if tokenizer.pad_token is None or tokenizer.pad_token_id >= rows:
    why = "it was missing" if tokenizer.pad_token is None else "its own has no embedding"
    # Any will do after the mask ends; the last of the vocabulary is the least likely to end a text.
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(min(len(tokenizer), rows) - 1)
    notes.append(f"pad token: {tokenizer.pad_token} ({why})")
  if model.config.get_text_config().pad_token_id is None:
    _write_contract_into_config(model, tokenizer, kind)
  return notes


def _check_fingerprint(path: str, card: dict[str, Any], renderer) -> None:
  try:
    unchanged = renderer.fingerprint == card["fingerprint"]
  except ModelError as error:  # of the template
    raise ModelError(error.message.replace("the model", path, 1), hint="restore the one saved with it") from error
  if unchanged:
    return
  was, now = card["rendering"], renderer.contract()
  changed = ", ".join(key for key in now if was.get(key) != now[key]) or "the fingerprint"
  what = f"{path} renders text otherwise than it did in training: {changed} changed, so its scores would mean nothing"
  hint = "restore its tokenizer and chat template as saved, and the transformers version of its card"
  raise ModelError(what, where=f"{path}/{CARD}", hint=hint)


def _write_contract_into_config(model: Model, tokenizer: Tokenizer, kind: Kind, labels: Sequence[str] = ()) -> None:
  config = model.config
  config.get_text_config().pad_token_id = config.pad_token_id = tokenizer.pad_token_id
  config.problem_type = kind.problem_type
  config.id2label = dict(enumerate(labels)) or dict(kind.labels)
  config.label2id = {label: number for number, label in config.id2label.items()}


def save(
  model: Model,
  renderer: Any,
  output_dir: Path,
  *,
  training: dict[str, Any],
  reward: dict[str, float],
  attributes: Attributes = (),
) -> dict[str, Any]:
  """Save a reward model, reload it, and only if its golden scores are the same let it appear in `output_dir`. Returns its card.

  model: of PEFT it is merged, its adapter kept. reward: {"mean", "std", "n"} of held-out answers or steps.
  """
  import torch
  import transformers

  kind = kind_of_architecture(type(unwrapped(model)).__name__)
  golden, tolerance = golden_scores(model, renderer), RELOAD_TOLERANCE
  device = next(model.parameters()).device
  card = {
    "card_version": CARD_VERSION,
    "kind": kind.name,
    "fingerprint": renderer.fingerprint,
    "rendering": {**renderer.contract(), "max_length": renderer.max_length, "overlong": renderer.overlong},
    "reward": reward,
    **({"attributes": [vars(one) for one in attributes]} if attributes else {}),
    "golden": [{**example, "score": score} for example, score in zip(kind.golden, golden, strict=True)],
    "training": training,
    "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
  }
  with staged(output_dir) as folder:
    if hasattr(model, "merge_and_unload"):
      model.save_pretrained(folder / ADAPTER)
      merge = quantized.merged if quantized.is_quantized(model) else lambda own: own.merge_and_unload()
      model, tolerance = merge(model), MERGE_TOLERANCE
    _write_contract_into_config(model, renderer.tokenizer, kind, labels_of(attributes))
    model.save_pretrained(folder)
    renderer.tokenizer.save_pretrained(folder)
    (folder / CARD).write_text(to_json(card, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_readme(kind, card), encoding="utf-8")
    model.to("cpu")
    device = where_it_fits(sum(one.nbytes for one in model.parameters()), device)
    again = load(str(folder), device=str(device), kind=kind, compare=False)
    reloaded = kind.renderer(again.tokenizer, scored_at(again.model), again.card["rendering"])
    card["reload_difference"] = check_golden(golden_scores(again.model, reloaded), golden, tolerance)
    (folder / CARD).write_text(to_json(card, indent=2) + "\n", encoding="utf-8")
  return card


def _readme(kind: Kind, card: dict[str, Any]) -> str:
  base = card["training"].get("base_model")
  front = ["library_name: transformers", *kind.front]
  if objective := (card["training"].get("loss") or {}).get("objective"):
    front[-1] = front[-1].replace("bradley-terry", objective.replace("_", "-"))
  if base and not Path(base).exists():
    front.append(f"base_model: {base}")
  text = kind.readme.format(**card["rendering"])
  text += f"\n`{CARD}` holds the fingerprint of that rendering and golden scores to check against.\n"
  if heads := of_card(card):
    rule = "levels[0] + sum of steps * sigmoid(logit)" if heads[0].levels else "mean + std * logit"
    text += f"\nLogits: {', '.join(labels_of(heads))}. A rating is {rule}, the reward the sum of weight * rating (`{CARD}`).\n"
  if card["rendering"].get("text_format") == "rendered":
    text += "\nIts texts were rendered before training: give it prompt and answer as one such text, without a chat template.\n"
  return "\n".join(["---", *front, "---", "", text])
