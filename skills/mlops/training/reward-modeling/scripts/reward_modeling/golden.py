"""Golden scores: those of a few fixed texts, compared after a model was saved and loaded, and on other machines."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ModelError, RunError
from .heads import unwrapped
from .hf import Model
from .kinds import OUTCOME, Kind, kind_of_architecture
from .lengths import positions
from .model_folder import read_json, snapshot, tensors
from .output_folder import CARD
from .outputs import write_whole
from .rendering import Conversation
from .results import to_json

if TYPE_CHECKING:
    from .forward import TokenRow
    from .scoring import Scorer

RELOAD_TOLERANCE = 1e-5
MERGE_TOLERANCE = 1e-4
GOLDEN_TOLERANCE = {"float32": 5e-4, "float16": 0.1, "F16": 0.1, "bfloat16": 0.5, "BF16": 0.5}
"""How far golden scores may lie apart on another machine, relative to scores above 1. Measured on rewards of about 5 by
24 layers: AVX2 against AVX-512 8e-6, fp16 0.02, bf16 0.18; merging an adapter may add 1e-4."""


def golden_scores(model: Model, renderer: Any) -> list[float | list[float]]:
    """Each row alone: raw logits, a list of those of several heads, or for a process reward model a list of step scores."""
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


def _rows(model: Model, renderer: Any, kind: Kind, example: dict[str, Any]) -> list[TokenRow]:
    most = positions(model)
    if kind is OUTCOME:
        ids = renderer.tokenizer(renderer.text(example["messages"]), add_special_tokens=False)["input_ids"]
        ids = ids[-(most or len(ids)) :]
        return [(ids, [len(ids) - 1])]
    unlimited = kind.renderer(renderer.tokenizer, renderer.scored_at, renderer.contract())
    unlimited.max_length, unlimited.overlong = most, "truncate_prompt"
    solution = unlimited.render(example["prompt"], example["steps"])
    return unlimited.rows(solution) if solution else []


def check_unchanged(path: str, card: dict[str, Any], model: Model, renderer: Any, dtype: str) -> None:
    """Raises ModelError when the golden scores are not those of the card.

    dtype: in memory; weights stored in less precision are compared as loosely as that allows.
    """
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


def keep_card(model: Scorer, name: str, file: Path, dtype: str) -> float | None:
    """Write a hash of the rendered golden texts and their rewards (-> None), or compare with it (-> the largest difference).

    Raises ModelError when the model renders or scores otherwise.
    """
    conversations = [
        Conversation(text["prompt"], [{"role": "assistant", "content": "", "steps": text["steps"]}])
        if "steps" in text
        else Conversation(text["messages"][:-1], text["messages"][-1:])
        for text in model.kind.golden
    ]
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
        raise ModelError(
            f"{name} does not score as {known.get('model')} did: {why}",
            where=file,
            hint="use the same model, tokenizer and flags; to write the file anew, delete it",
        )
    return difference
