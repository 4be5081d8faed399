"""A model's card, `reward_model.json`, and its golden scores of fixed texts, compared after saving and on other machines."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import attributes
from .data.records import in_steps
from .errors import ModelError, RunError
from .heads import unwrapped
from .hf import Model
from .kinds import KINDS, OUTCOME, Kind, kind_of_architecture
from .lengths import positions
from .model_folder import hub_file, read_json, snapshot, tensors
from .output_folder import CARD
from .outputs import write_whole
from .packing import TokenRow
from .rendering import Conversation
from .results import to_json

if TYPE_CHECKING:
  from .scoring import Scorer

RELOAD_TOLERANCE = 1e-5
MERGE_TOLERANCE = 1e-4
GOLDEN_TOLERANCE = {"float32": 5e-4, "float16": 0.1, "F16": 0.1, "bfloat16": 0.5, "BF16": 0.5}
"""How far golden scores may lie apart on another machine, relative to scores above 1. Measured at rewards of about 5, 24 layers: AVX2
against AVX-512 8e-6, fp16 0.02, bf16 0.18; merging an adapter may add 1e-4."""
CARD_VERSION = 1


def read_card(path: str, *, expected: bool = False) -> dict[str, Any] | None:
  """The card, or None. expected: it is a ModelError when neither the hub nor the cache can tell."""
  from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

  file = Path(path) / CARD if Path(path).is_dir() else hub_file(path, CARD, ask=True)
  if file is None and expected and try_to_load_from_cache(path, CARD) is not _CACHED_NO_EXIST:
    what = f"the {CARD} of {path} is not in the cache, and the hub cannot be asked"
    raise ModelError(what, hint=f"fetch it once where there is a network: hf download {path} {CARD}")
  if file is None or not file.exists():
    return None
  card = read_json(file)
  if fault := _fault(card):
    hint = f"restore the {CARD} that was saved with the model"
    raise ModelError(f"the model's card is not valid: {fault}", where=file, hint=hint)
  return card


def _fault(card: dict[str, Any]) -> str | None:
  kind, rendering, reward, golden = (card.get(name) for name in ("kind", "rendering", "reward", "golden"))
  if str(kind) not in KINDS:
    return f"`kind` is not {' or '.join(KINDS)}"
  if not isinstance(card.get("fingerprint"), str):
    return "`fingerprint` is not text"
  if not isinstance(rendering, dict):
    return "`rendering` is not an object"
  longest, separator = rendering.get("max_length"), rendering.get("step_separator")
  if longest is not None and not (isinstance(longest, int) and _is_number(longest) and longest > 0):
    return "`max_length` is not a positive whole number"
  if separator is not None and not (isinstance(separator, str) and separator):
    return "`step_separator` is not text"
  if not isinstance(reward, dict) or not all(
    _is_number(reward.get(name, 0)) for name in ("mean", "std", "n", "threshold", "auroc_low")
  ):
    return "`mean`, `std`, `n`, `threshold` and `auroc_low` of its `reward` are not finite numbers"
  if reward and ("mean" not in reward or reward.get("std", 0) < 0 or reward.get("n", 0) < 0):
    return "its `reward` has a negative `std` or `n`, or no `mean`"
  texts = golden if isinstance(golden, list) and all(isinstance(entry, dict) for entry in golden) else []
  if [{name: text[name] for name in text if name != "score"} for text in texts] != [*KINDS[kind].golden]:
    return "`golden` is not the list of fixed texts with their scores"
  try:
    heads = attributes.of_card(card)
    sound = all(_is_number(n) for one in heads for n in (one.weight, one.mean, one.std, *one.levels))
  except TypeError:
    sound = False
  if not sound:
    return "`attributes` is not a list of heads with finite numbers"
  if not all(_has_scores(text, len(attributes.labels_of(heads))) for text in texts):
    return "a golden score is not a finite number"
  return None


def _has_scores(text: dict[str, Any], heads: int) -> bool:
  scores, several = text.get("score"), len(text.get("steps") or ()) or heads
  found = scores if isinstance(scores, list) and (heads > 1 or text.get("steps")) else [scores]
  return all(map(_is_number, found)) and len(found) == (several or 1)


def _is_number(value) -> bool:
  """A whole number of 400 digits is not finite."""
  return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300


def golden_scores(model: Model, renderer: Any) -> list[float | list[float]]:
  """Each row alone: raw logits, several of several heads, or scores of steps."""
  import torch

  from .forward import padded_logits

  kind, was_training = kind_of_architecture(type(unwrapped(model)).__name__), model.training
  precision = torch.get_float32_matmul_precision()
  torch.set_float32_matmul_precision("highest")  # TF32 would make them those of one kind of GPU
  model.eval()
  with torch.inference_mode():
    texts = [_rows(model, renderer, kind, example) for example in kind.golden]
    logits = [[padded_logits(model, [row], pad_token_id=0).float() for row in rows] for rows in texts]
  model.train(was_training)
  torch.set_float32_matmul_precision(precision)
  if kind is OUTCOME:
    return [row.item() if row.numel() == 1 else row[0].tolist() for (row,) in logits]
  return [[score for row in rows for score in row.softmax(-1)[:, 1].tolist()] for rows in logits]


def _rows(model: Model, renderer, kind: Kind, example: dict[str, Any]) -> list[TokenRow]:
  most = positions(model)
  if kind is OUTCOME:
    (ids,) = renderer.tokens([renderer.text(example["messages"])])
    ids = ids[-(most or len(ids)) :]
    return [(ids, [len(ids) - 1])]
  unlimited = kind.renderer(renderer.tokenizer, renderer.scored_at, renderer.contract())
  unlimited.max_length, unlimited.overlong = most, "truncate_prompt"
  solution = unlimited.render(example["prompt"], example["steps"])
  return unlimited.rows(solution) if solution else []


def check_unchanged(path: str, card: dict[str, Any], model: Model, renderer, dtype: str) -> None:
  """Raises ModelError when the golden scores are not the card's, as closely as `dtype` and that of the files allow."""
  folder = snapshot(path)
  stored = {tensor.dtype for tensor in tensors(folder).values()} if folder else ()
  tolerance = max(GOLDEN_TOLERANCE.get(name, 5e-4) for name in (dtype, *stored))
  difference = largest_difference(golden_scores(model, renderer), [entry["score"] for entry in card["golden"]])
  if not difference <= tolerance:
    what = f"{path} does not score as when it was saved: {_exceeds(difference, tolerance)}"
    hint = f"restore weights and config.json; after a change that was meant, delete {CARD}"
    raise ModelError(what, where=f"{path}/{CARD}", hint=hint)


def check_golden(scores: list, golden: list, tolerance: float = RELOAD_TOLERANCE) -> float:
  """The largest difference; RunError when it exceeds the tolerance or is NaN."""
  difference = largest_difference(scores, golden)
  if not difference <= tolerance:
    raise RunError(f"the saved model scores differently from the one in memory: {_exceeds(difference, tolerance)}")
  return difference


def _exceeds(difference: float, tolerance: float) -> str:
  return f"golden scores differ by {difference:.2g}, more than {tolerance:.0e}"


def largest_difference(scores: list, golden: list) -> float:
  """Of |score - golden| / max(1, |golden|); NaN for NaN."""
  pairs = zip(_numbers(scores), _numbers(golden), strict=True)
  differences = (abs(new - old) / max(1.0, abs(old)) for new, old in pairs)
  return max(differences, key=lambda one: (math.isnan(one), one))


def _numbers(scores: list) -> list[float]:
  return [value for score in scores for value in (score if isinstance(score, list) else [score])]


def golden_conversations(kind: Kind) -> list[Conversation]:
  """With a reference, which few models read."""
  return [
    Conversation(text["prompt"], in_steps(text["steps"]))
    if "steps" in text
    else Conversation(text["messages"][:-1], [text["messages"][-1] | {"reference": "Paris."}])
    for text in kind.golden
  ]


def keep_card(model: Scorer, name: str, file: Path, dtype: str) -> float | None:
  """Write a hash of the rendered golden texts and their rewards (-> None), or compare with it (-> the largest difference)."""
  conversations = golden_conversations(model.kind)
  rows = [one and model._rows(one) for one in model.render(conversations)]
  rendering = hashlib.sha256(to_json(rows).encode()).hexdigest()[:16]
  scores = model.score_conversations(conversations)  # null for a text that does not fit
  card = {"model": name, "rendering": rendering, "dtype": dtype, "golden": scores}
  if not file.exists():
    write_whole(file, [to_json(card, indent=2)])
    return None
  known = read_json(file)
  golden = known.get("golden") or []
  both = [pair for pair in zip(scores, golden, strict=False) if None not in pair]
  alike = [score is None for score in scores] == [score is None for score in golden]
  difference = largest_difference(*zip(*both, strict=True)) if alike and both else math.inf
  tolerance = max(GOLDEN_TOLERANCE.get(str(own), 0.0) for own in (dtype, known.get("dtype")))
  same_text = known.get("rendering") == rendering
  if not same_text or not difference <= tolerance:
    why = _exceeds(difference, tolerance) if same_text else "it renders the golden texts otherwise"
    what = f"{name} does not score as {known.get('model')} did: {why}"
    hint = "use the same model, tokenizer and flags; to write the file anew, delete it"
    raise ModelError(what, where=file, hint=hint)
  return difference
