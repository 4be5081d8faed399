"""A reward model's card, `reward_model.json`: read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .console import ModelError
from .kinds import KINDS
from .model_folder import hub_answers, read_json
from .output_folder import CARD

CARD_VERSION = 1


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
        return Path(hf_hub_download(path, CARD, local_files_only=not hub_answers(path)))
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
    kind, rendering, reward = KINDS.get(str(card.get("kind"))), card.get("rendering"), card.get("reward")
    golden, rules = card.get("golden"), rendering if isinstance(rendering, dict) else {}
    longest, separator = rules.get("max_length", 1), rules.get("step_separator")
    is_reward = isinstance(reward, dict) and all(
        _is_number(reward[name]) for name in ("mean", "std", "n") if name in reward
    )
    texts = golden if isinstance(golden, list) and all(isinstance(entry, dict) for entry in golden) else []
    inputs = [{name: text[name] for name in text if name != "score"} for text in texts]
    checks = (
        (kind is None, f"`kind` is not {' or '.join(KINDS)}"),
        (not isinstance(card.get("fingerprint"), str), "`fingerprint` is not text"),
        (rules is not rendering, "`rendering` is not an object"),
        (
            not (longest is None or (_is_number(longest) and isinstance(longest, int) and longest > 0)),
            "`max_length` is not a positive whole number",
        ),
        (not (separator is None or (isinstance(separator, str) and separator)), "`step_separator` is not text"),
        (not is_reward, "`mean`, `std` and `n` of its `reward` are not finite numbers"),
        (
            is_reward and reward and (reward.get("std", 0) < 0 or reward.get("n", 0) < 0 or "mean" not in reward),
            "its `reward` has a negative `std` or `n`, or no `mean`",
        ),
        (kind and inputs != [*kind.golden], "`golden` is not the list of fixed texts with their scores"),
        (not all(map(_has_scores, texts)), "a golden score is not a finite number"),
    )
    for is_wrong, what in checks:
        if is_wrong:
            raise ModelError(
                f"the model's card is not valid: {what}",
                where=str(file),
                hint=f"restore the {CARD} that was saved with the model",
            )


def _has_scores(text: dict[str, Any]) -> bool:
    """Whether a golden text has its number, or one for each of its steps."""
    scores, steps = text.get("score"), text.get("steps")
    found = scores if isinstance(scores, list) and steps else [scores]
    return all(map(_is_number, found)) and len(found) == len(steps or [0])


def _is_number(value: Any) -> bool:
    """A finite number; a whole one of 400 digits is none, and neither is a truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300
