"""A reward model's card, `reward_model.json`: read and checked."""

from pathlib import Path
from typing import Any

from . import attributes
from .errors import ModelError
from .kinds import KINDS
from .model_folder import hub_file, read_json
from .output_folder import CARD

CARD_VERSION = 1


def read_card(path: str, *, expected: bool = False) -> dict[str, Any] | None:
    """The card, or None where there is none. Raises ModelError for one that is not valid.

    expected: this project saved the model; then it is an error when neither the hub nor the cache can tell.
    """
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

    file = Path(path) / CARD if Path(path).is_dir() else hub_file(path, CARD, ask=True)
    if file is None and expected and try_to_load_from_cache(path, CARD) is not _CACHED_NO_EXIST:
        raise ModelError(
            f"the {CARD} of {path} is not in the cache, and the hub cannot be asked",
            hint=f"fetch it once where there is a network: hf download {path} {CARD}",
        )
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
    if not isinstance(reward, dict) or not all(_is_number(reward.get(name, 0)) for name in ("mean", "std", "n")):
        return "`mean`, `std` and `n` of its `reward` are not finite numbers"
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
    """Its number, or one for each of its steps or of several heads."""
    scores, several = text.get("score"), len(text.get("steps") or ()) or heads
    found = scores if isinstance(scores, list) and (heads > 1 or text.get("steps")) else [scores]
    return all(map(_is_number, found)) and len(found) == (several or 1)


def _is_number(value: Any) -> bool:
    """A whole number of 400 digits is not finite."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300
