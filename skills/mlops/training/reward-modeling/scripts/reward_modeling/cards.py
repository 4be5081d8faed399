"""A reward model's card, `reward_model.json`: read, checked, and its golden scores compared with the model's own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from .console import ModelError, RunError
from .kinds import KINDS, golden_scores
from .model_folder import read_json, snapshot, tensors
from .output_folder import CARD

CARD_VERSION = 1

RELOAD_TOLERANCE = 1e-5
MERGE_TOLERANCE = 1e-4
GOLDEN_TOLERANCE = {"float32": 5e-4, "float16": 0.1, "bfloat16": 0.5}
"""How far a golden score may lie from the card's on another machine, relative to scores above 1, by precision. Measured
on rewards of about 5 by 24 layers: AVX2 against AVX-512 8e-6, fp16 0.02, bf16 0.18; merging an adapter may add 1e-4."""
_STORED = {"F16": "float16", "BF16": "bfloat16"}


def read_card(path: str, *, expected: bool = False) -> dict[str, Any] | None:
    """The card of a model folder or hub repository, or None when it has none. Raises ModelError for one that cannot be.

    expected: the model was saved by this project. Then it is a ModelError when neither the hub nor the cache can tell.
    """
    folder = Path(path)
    file = folder / CARD if folder.is_dir() else _card_on_the_hub(path, expected)
    if file is None or not file.exists():
        return None
    card = read_json(file)
    _check(card, file)
    return card


def _card_on_the_hub(path: str, expected: bool) -> Path | None:
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(path, CARD))
    except LocalEntryNotFoundError as error:  # no answer from the hub, and no copy here
        if expected and try_to_load_from_cache(path, CARD) is not _CACHED_NO_EXIST:
            raise ModelError(
                f"the {CARD} of {path} is not in the cache, and the hub cannot be asked",
                hint=f"fetch it once where there is a network: hf download {path} {CARD}",
            ) from error
    except EntryNotFoundError:
        pass
    return None


def _check(card: dict[str, Any], file: Path) -> None:
    """Raises ModelError for a card that this project cannot have written."""

    def refuse(what: str) -> None:
        raise ModelError(
            f"the model's card is not valid: {what}",
            where=str(file),
            hint=f"restore the {CARD} that was saved with the model",
        )

    kind, rendering, reward = KINDS.get(str(card.get("kind"))), card.get("rendering"), card.get("reward")
    if kind is None:
        refuse(f"`kind` is not {' or '.join(KINDS)}")
    if not isinstance(card.get("fingerprint"), str):
        refuse("`fingerprint` is not text")
    if not isinstance(rendering, dict):
        refuse("`rendering` is not an object")
    longest = rendering.get("max_length")
    if longest is not None and not (_is_number(longest) and isinstance(longest, int) and longest > 0):
        refuse("`max_length` is not a positive whole number")
    separator = rendering.get("step_separator")
    if separator is not None and not (isinstance(separator, str) and separator):
        refuse("`step_separator` is not text")
    if not isinstance(reward, dict) or not all(
        _is_number(reward[name]) for name in ("mean", "std", "n") if name in reward
    ):
        refuse("`mean`, `std` and `n` of its `reward` are not finite numbers")
    if reward and (reward.get("std", 0) < 0 or reward.get("n", 0) < 0 or "mean" not in reward):
        refuse("its `reward` has a negative `std` or `n`, or no `mean`")
    golden = card.get("golden")
    texts = golden if isinstance(golden, list) and all(isinstance(entry, dict) for entry in golden) else []
    if [{name: text[name] for name in text if name != "score"} for text in texts] != [
        dict(text) for text in kind.golden
    ]:
        refuse("`golden` is not the list of fixed texts with their scores")
    for text in texts:
        scores, steps = text.get("score"), text.get("steps")
        found = scores if isinstance(scores, list) and steps else [scores]
        if not all(map(_is_number, found)) or len(found) != len(steps or [0]):
            refuse("a golden score is not a finite number")


def _is_number(value: Any) -> bool:
    """A finite number; a whole one of 400 digits is none, and neither is a truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300


def check_unchanged(path: str, card: dict[str, Any], model: Any, renderer: Any, dtype: str) -> None:
    """Raises ModelError when the model does not give the golden scores of its card: weights or config were changed.

    dtype: of the weights in memory; weights stored in less precision are compared as loosely as that allows.
    """
    folder = snapshot(path)
    stored = {_STORED.get(tensor.dtype, "float32") for tensor in tensors(folder).values()} if folder else set()
    tolerance = max(GOLDEN_TOLERANCE[name] for name in {dtype, *stored})
    difference = largest_difference(golden_scores(model, renderer), [entry["score"] for entry in card["golden"]])
    if not difference <= tolerance:
        raise ModelError(
            f"{path} does not score as when it was saved: golden scores differ by {difference:.2g}, more than {tolerance:.0e}",
            where=f"{path}/{CARD}",
            hint=f"restore weights and config.json; after a change that was meant, take {CARD} away: it is then read as a "
            "model from elsewhere",
        )


def check_golden(scores: list, golden: list, tolerance: float = RELOAD_TOLERANCE) -> float:
    """The largest difference, relative to scores above 1. Raises RunError when it exceeds the tolerance or is NaN."""
    difference = largest_difference(scores, golden)
    if not difference <= tolerance:
        raise RunError(
            f"the saved model scores differently from the one in memory: golden scores differ by {difference:.2e}, more than {tolerance:.0e}"
        )
    return difference


def largest_difference(scores: list, golden: list) -> float:
    """The largest |score - golden| / max(1, |golden|) of rewards, or of the step scores of several solutions; NaN for NaN."""
    pairs = list(zip(_flat(scores), _flat(golden), strict=True))
    differences = [abs(new - old) / max(1.0, abs(old)) for new, old in pairs]
    return math.nan if any(map(math.isnan, differences)) else max(differences)


def _flat(scores: list) -> list[float]:
    return [value for score in scores for value in (score if isinstance(score, list) else [score])]
