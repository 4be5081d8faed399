"""Model folders changed by hand, as others may have left them."""

import json
import shutil
from pathlib import Path


def copied(folder: Path, to: Path, **config) -> Path:
  """A copy of a model folder without its checkpoints, with these fields in its config.json."""
  shutil.copytree(folder, to, ignore=shutil.ignore_patterns("checkpoint-*"))
  edited(to / "config.json", **config)
  return to


def edited(file: Path, **values) -> None:
  """Set keys of a JSON file; None takes a key away."""
  content = {**json.loads(file.read_text()), **values}
  file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def reweighted(folder: Path, change) -> Path:
  """The folder, whose weights went through change(weights) -> weights."""
  from safetensors.torch import load_file, save_file

  weights = change(load_file(folder / "model.safetensors"))
  save_file({key: value.contiguous() for key, value in weights.items()}, folder / "model.safetensors", {"format": "pt"})
  return folder


def as_saved(folder: Path) -> Path:
  """The folder, whose card holds the golden scores of its changed weights, as if it had been saved with them."""
  from reward_modeling import checkpoints
  from reward_modeling.kinds import KINDS

  card = checkpoints.read_card(str(folder))
  kind = KINDS[card["kind"]]
  loaded = checkpoints.load(str(folder), kind=kind, compare=False)
  renderer = kind.renderer(loaded.tokenizer, checkpoints.scored_at(loaded.model), card["rendering"])
  scores = checkpoints.golden_scores(loaded.model, renderer)
  golden = [{**entry, "score": score} for entry, score in zip(card["golden"], scores, strict=True)]
  edited(folder / "reward_model.json", golden=golden)
  return folder
