"""Which public reward model lies at a path, by its config and the names of its weights."""

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from .errors import ModelError
from .model_folder import ADAPTER_CONFIG, CONFIG, VALUE_HEAD, check_config, check_folder, hub_file, read_json, tensors
from .output_folder import CARD
from .public_table import PUBLIC, Family, implicit_family

INDEX, PICKLED = "model.safetensors.index.json", "pytorch_model.bin"


class Checkpoint:
  def __init__(self, path: str, config: Mapping[str, Any]):
    self.path, self.config, self.is_folder = path, config, Path(path).is_dir()
    listed = config.get("architectures")  # of anybody's config, not checked yet
    self.architecture = str(listed[0]) if isinstance(listed, list) and listed else ""
    name = Path(path).resolve().name if self.is_folder else path
    self.names = f"{name} {config.get('_name_or_path', '')}".lower()

  def fits(self, family: Family) -> bool:
    return bool(
      re.fullmatch(family.classes, self.architecture)
      and all(re.fullmatch(str(value), str(self.config.get(key, ""))) for key, value in family.config.items())
      and re.search(family.named or "", self.names)
      and all(map(self._holds, family.tensors.split()))
      and not (family.lacks and self._holds(family.lacks))
    )

  def _holds(self, pattern: str) -> bool:
    return any(re.search(pattern, name) for name in self.tensors)

  @cached_property
  def tensors(self) -> list[str]:
    listed: list[str] = []
    if file := self._file(INDEX) or self._file(f"{PICKLED}.index.json"):
      listed = list(read_json(file).get("weight_map") or ())
    elif not (file := self._file("model.safetensors")) and (file := self._file(PICKLED)):
      listed = list(pickled(file))  # one file, which is needed anyway
    self._file("value_head.safetensors")  # LLaMA-Factory's head lies beside the weights
    if head := self._file(VALUE_HEAD):
      listed += pickled(head)
    folder = Path(self.path) if self.is_folder else file and file.parent
    return [*listed, *(tensors(folder) if folder else ())]

  def _file(self, name: str) -> Path | None:
    return hub_file(self.path, name, ask=not self.is_folder)


def pickled(file: Path) -> dict[str, Any]:
  """The tensors in a pickle, mapped into memory. Raises ModelError where it holds more than tensors."""
  import torch

  from .pretrained import loaded_by

  return loaded_by(str(file), lambda: torch.load(file, weights_only=True, mmap=True, map_location="cpu"))


def recognize_family(path: str) -> Family | None:
  """The family of a public model; None for any other, ours among them. Reads no weights. Raises ModelError for a family that cannot
  be scored here, and for a hub that does not answer."""
  config = _foreign_config(path := str(path))
  own = (config or {}).get("implicit_reward")
  if isinstance(own, dict) and "golden" in own:  # which a checkpoint of its training lacks
    return implicit_family(own)
  checkpoint = config and Checkpoint(path, config)
  family = next((one for one in PUBLIC.values() if checkpoint and checkpoint.fits(one)), None)
  if family and family.refused:
    raise ModelError(f"{path} cannot be scored here: {family.refused}", hint=f"it is {family.called}: {family.how}")
  return family


def _foreign_config(path: str) -> dict[str, Any] | None:
  folder = Path(path)
  if folder.exists() or path.count("/") > 1:
    check_folder(path)
    own = any((folder / name).exists() for name in (ADAPTER_CONFIG, CARD)) or not (folder / CONFIG).is_file()
    return None if own else read_json(folder / CONFIG)
  from .pretrained import check_reachable

  check_reachable(path)
  config = hub_file(path, CONFIG) or hub_file(path, CONFIG, ask=True)
  if not config or hub_file(path, CARD, ask=True):
    return None
  check_config(found := read_json(config), config)
  return found


def families() -> list[dict[str, str]]:
  """What `--list_public_models` shows of each family. checked: on tiny weights, against what."""
  return [
    {
      "family": name,
      "models": one.called,
      "kind": "refused" if one.refused else "pairs" if one.compares else one.kind,
      "reward": f"refused: {one.refused}" if one.refused else one.how,
      "text": one.text(),
      "max_length": str(one.max_length or "its config's"),
      "checked": "" if one.refused else "formula" if name == "urm-fixed" else "authors' or a peer's code, formula",
      "source": one.source,
    }
    for name, one in PUBLIC.items()
  ]
