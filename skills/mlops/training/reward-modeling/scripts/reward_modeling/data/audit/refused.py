"""Rows that a model's chat template refuses, as one more finding. Reads the tokenizer alone, not the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..records import Comparison, Ranking, Solution
from .findings import Check, Finding, finding_of

REFUSED = "refused"


class Rendering:
    """Renders records of any kind as training and scoring with this model would."""

    def __init__(self, model_name_or_path: str, text_format: str):
        from ...checkpoints import read_tokenizer
        from ...rendering import Renderer
        from ...tokenizer_setup import prepare_tokenizer

        tokenizer = read_tokenizer(model_name_or_path)
        prepare_tokenizer(tokenizer)
        self.renderer = Renderer(tokenizer, max_length=None, text_format=text_format)

    def finding(self, records: Sequence[Any], called: str) -> list[Finding]:
        """The records that the template refuses, as one finding, or nothing."""
        owners, conversations = [], []
        for index, record in enumerate(records):
            for completion in _completions(record):
                owners.append(index)
                conversations.append((record.prompt, completion, getattr(record, "tools", None), record.origin))
        faults: list = []
        self.renderer.render_all(conversations, faults)
        found = sorted({owners[place] for place, _ in faults})
        reason = faults[0][1].message if faults else ""
        check = Check(
            REFUSED,
            "error",
            "{count} of {total} {called} cannot be rendered; the first: "
            + reason.replace("{", "{{").replace("}", "}}"),
            "Training and scoring stop at them.",
            "fix them, or leave them out",
            lambda material: found,
        )
        one = finding_of(check, _Material(records, called))
        return [one] if one else []


class _Material:
    def __init__(self, records: Sequence[Any], called: str):
        self.records, self.called = records, called


def _completions(record: Comparison | Ranking | Solution) -> list[list[dict]]:
    if isinstance(record, Comparison):
        return [record.chosen, record.rejected]
    if isinstance(record, Solution):
        return [[{"role": "assistant", "content": "\n".join(record.steps)}]]
    return record.completions or [[{"role": "assistant", "content": "-"}]]
