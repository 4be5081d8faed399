"""Which public reward model lies at a path: `recognize` finds its family by its config and the names of its weights.

`public_models` loads what was recognized and renders for it. PUBLIC is the table, made of entries as `public_families` says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from .console import ModelError
from .model_folder import ADAPTER_CONFIG, CONFIG, check_config, check_folder, hub_file, read_json, tensors
from .output_folder import CARD
from .public_families import ANY, Family
from .public_outcomes import OUTCOMES
from .public_processes import PROCESSES

INDEX, PICKLED_INDEX = "model.safetensors.index.json", "pytorch_model.bin.index.json"
WEIGHTS, PICKLED = "model.safetensors", "pytorch_model.bin"
PUBLIC: dict[str, Family] = {**PROCESSES, **OUTCOMES}
"""Name -> family, the most particular first."""
ROUTED = frozenset(
    (
        *("qwen-prm", "math-shepherd", "rlhflow-prm", "skywork-o1-prm", "versa-prm", "math-psa", "trl-blank-line"),
        *(
            "implicit-prm",
            "pair-rm",
            "pair-preference",
            "skywork-v2",
            "plain",
            "grm",
            "qwen-math-rm",
            "qwen-rm",
            "inf-orm",
        ),
        *(
            "internlm2",
            "ultrarm",
            "beaver",
            "beaver-cost",
            "grm-sftreg",
            "armorm",
            "qrm",
            "urm",
            "nemotron",
            "oasst",
            "rlhflow-orm",
        ),
    )
)
"""Families whose tiny checkpoints get the numbers that their authors' or a peer's code gives (benchmarks/public_models.md)."""


class Checkpoint:
    """What recognition sees of a model: its path, its config.json, and, where that does not tell, the names of its tensors."""

    def __init__(self, path: str, config: Mapping[str, Any]):
        self.path, self.config = path, config
        listed = config.get("architectures")  # of anybody's config, not checked yet
        self.architecture = str(listed[0]) if isinstance(listed, list) and listed else ""
        name = Path(path).resolve().name if Path(path).is_dir() else path
        self.names = f"{name} {config.get('_name_or_path', '')}".lower()

    def fits(self, family: Family) -> bool:
        if not re.fullmatch(family.architectures, self.architecture):
            return False
        if not all(key in self.config and value in (ANY, self.config[key]) for key, value in family.config.items()):
            return False
        if family.named and not re.search(family.named, self.names):
            return False
        return all(map(self.holds, family.tensors)) and not (family.lacks and self.holds(family.lacks))

    def holds(self, pattern: str) -> bool:
        """Whether the name of a tensor fits."""
        return any(re.search(pattern, name) for name in self.tensors)

    @cached_property
    def tensors(self) -> list[str]:
        if file := self._file(INDEX) or self._file(PICKLED_INDEX):
            listed = list(read_json(file).get("weight_map") or ())
        else:  # one file, which is needed anyway
            file = self._file(WEIGHTS) or self._file(PICKLED)
            listed = list(pickled(file)) if file and file.name == PICKLED else []
        self._file("value_head.safetensors")  # LLaMA-Factory's head lies beside the weights
        folder = Path(self.path) if Path(self.path).is_dir() else file and file.parent
        return [*listed, *(tensors(folder) if folder else ())]

    def _file(self, name: str) -> Path | None:
        file = Path(self.path) / name
        return (file if file.is_file() else None) if file.parent.is_dir() else hub_file(self.path, name, ask=True)


def pickled(file: Path) -> dict[str, Any]:
    """The tensors in a pickle, mapped into memory. Raises ModelError for one that holds more than tensors."""
    import torch

    from .pretrained import loaded_by

    return loaded_by(str(file), lambda: torch.load(file, weights_only=True, mmap=True, map_location="cpu"))


def recognize(path: str) -> Family | None:
    """The family of a public model at this folder or hub id; None for any other, ours among them. Reads no weights.

    Raises ModelError for a family that cannot be scored here, with the reason, and for a hub that does not answer.
    """
    config = _foreign_config(str(path))
    checkpoint = config and Checkpoint(str(path), config)
    family = next((one for one in PUBLIC.values() if checkpoint and checkpoint.fits(one)), None)
    if family and family.refused:
        raise ModelError(f"{path} cannot be scored here: {family.refused}", hint=f"it is {family.called}: {family.how}")
    return family


def _foreign_config(path: str) -> dict[str, Any] | None:
    """The config.json of a model without a card of ours; None where there is none."""
    folder = Path(path)
    if folder.exists() or path.count("/") > 1:
        check_folder(path)
        own = any((folder / name).exists() for name in (ADAPTER_CONFIG, CARD)) or not (folder / CONFIG).is_file()
        return None if own else read_json(folder / CONFIG)
    from .pretrained import check_reachable

    check_reachable(path)
    config = hub_file(path, CONFIG) or hub_file(path, CONFIG, ask=True)
    found = read_json(config) if config and not hub_file(path, CARD, ask=True) else None
    if found:
        check_config(found, config)
    return found


def families() -> Sequence[dict[str, str]]:
    """What `--list_public_models` shows of each family."""
    return [
        {
            "family": name,
            "models": one.called,
            "kind": one.kind,
            "reward": (one.refused and f"refused: {one.refused}") or one.how,
            "text": one.text.described(),
            "max_length": str(one.text.max_length or "its config's"),
            "checked": f"{'code of its authors or a peer, and ' * (name in ROUTED)}formula, on tiny weights",
            "source": one.source,
        }
        for name, one in PUBLIC.items()
    ]
