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
    save_file(
        {key: value.contiguous() for key, value in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    return folder
