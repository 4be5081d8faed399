"""Solutions in steps, written as the authors of a public process reward model wrote them (`public_processes.StepText`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .base_rendering import opening_ids
from .console import DataError, ModelError, UsageError
from .data.records import Message
from .public_families import Family
from .public_processes import StepText
from .step_rendering import RenderedSolution, StepRenderer, check_steps


class PublicStepRenderer(StepRenderer):
    """Ids and scored tokens of a public process reward model. Arguments: see `BaseRenderer`.

    separator: over the family's, for models that were trained with another. A text of several turns cannot be written
    literally, which is a DataError; a tag that the tokenizer lacks is a ModelError.
    """

    def __init__(self, tokenizer: Any, family: Family, *, path: str, separator: str | None = None, **rules: Any):
        assert isinstance(family.text, StepText)
        self.family, self.written = family, family.text
        tag = separator if separator and family.text.pieces else family.text.tag
        super().__init__(tokenizer, step_separator=tag, **rules)
        read_at_tag = not (self._of_pieces or self.from_start or family.text.replies)
        if read_at_tag and len(self.separator_ids) != 1:
            raise ModelError(
                f"the tokenizer of {path} has no token {tag!r}, where the score of a step is read",
                hint="restore the tokenizer that was saved with it",
            )

    @property
    def from_start(self) -> bool:
        return self.written.reference is not None and self.text_format == "chat"

    @property
    def split_at(self) -> str:
        return self.written.split

    @property
    def _lead(self) -> str:
        return ""

    @property
    def _of_pieces(self) -> bool:
        return self.written.pieces or self.text_format == "rendered"

    def _parts_of(self, prompt, steps, origin) -> list[str | list[int]]:
        if self.text_format == "rendered":
            return super()._parts_of(prompt, steps, origin)
        check_steps(steps, origin)
        token = self.special.inside([prompt, steps])
        if token:
            self._count_special(token, origin)
            prompt, steps = self.special.marked(prompt), self.special.marked(steps)
        if self._of_pieces:
            self.counts["separator_in_step"] += sum(self.step_separator in step for step in steps)
            texts = [self._opened(prompt, origin), *steps]
        elif self.from_start:
            texts = self._prefixes(prompt, steps, origin)
        else:
            texts = [self._whole(prompt, steps, origin)]
        return [self.special.ids(text) for text in texts] if token else list(texts)

    def _opened(self, prompt: Sequence[Message], origin: Any) -> str:
        """A literal text up to the first step."""
        if any(message["role"] == "assistant" for message in prompt):
            raise DataError(
                "the prompt has turns of the assistant, for which its authors had no form",
                where=origin,
                hint="give the problem as one user turn",
            )
        question = "\n".join(message["content"] or "" for message in prompt)
        opening = (self.written.opening or "{}").replace("{bos}", self.tokenizer.bos_token or "")
        return opening.replace("{}", question)

    def _whole(self, prompt: Sequence[Message], steps: Sequence[str], origin: Any) -> str:
        written, tag = self.written, self.step_separator
        if written.opening is not None:
            tagged = sum(tag.strip() in step for step in steps) if tag.strip() else 0
            if tagged:
                raise DataError(f"{tagged} steps hold {tag.strip()!r}, which stands after a step here", where=origin)
            return self._opened(prompt, origin) + "".join(written.step.replace("{}", step) for step in steps)
        if not written.replies:
            answer = {"role": "assistant", "content": "".join(step + tag for step in steps)}
            if written.system is not None and (not prompt or prompt[0]["role"] != "system"):
                prompt = [{"role": "system", "content": written.system}, *prompt]
            return self.text([*prompt, answer], where=origin)
        *turns, question = prompt or [{"role": "user", "content": ""}]
        asked = [f"{question['content']} {steps[0].strip()}", *(step.strip() for step in steps[1:])]
        for step in asked:
            turns += [{"role": "user", "content": step}, {"role": "assistant", "content": "+"}]
        return self.text(turns, where=origin)

    def _prefixes(self, prompt: Sequence[Message], steps: Sequence[str], origin: Any) -> list[str]:
        """The whole, then what the authors count the tokens of: the text without, and up to each, step, stripped."""
        texts = []
        for k in range(len(steps) + 1):
            answer = {"role": "assistant", "content": "\n\n".join(steps[:k])}
            texts.append(self.text([*prompt, answer], where=origin))
        ends = [text.strip() + "\n\n" * (0 < k < len(steps)) for k, text in enumerate(texts)]
        return [texts[-1], *ends]

    def _fit(self, parts: list[list[int]], prompt, steps, origin) -> RenderedSolution | None:
        if self.written.bos == "tokenizer" and self.text_format == "chat":
            parts = [opening_ids(self.tokenizer) + parts[0], *parts[1:]]
        if self._of_pieces:
            return super()._fit(parts, prompt, steps, origin)
        row, *ends = parts
        places = [min(len(end), len(row)) - 1 for end in ends] if ends else self._tags(row, len(steps), origin)
        if ends:  # sums start before the first token of the answer
            places[0] = max(places[0] - 1, 0)
        if not self._is_over_length(places[-1] + 1, "solution", origin):
            return RenderedSolution(row[: places[-1] + 1], places)
        if self.overlong == "truncate_prompt":
            raise UsageError(
                "--overlong truncate_prompt is not for a model whose template holds its steps", hint="choose drop_steps"
            )
        kept = [place for place in places if place < self.max_length]
        if self.overlong == "drop" or len(kept) <= len(places) - len(steps):
            self._count("dropped", origin)
            return None
        self.counts["steps_dropped"] += len(places) - len(kept)
        return RenderedSolution(row[: kept[-1] + 1], kept, len(places) - len(kept))

    def _tags(self, ids: list[int], wanted: int, origin: Any) -> list[int]:
        """The last token of each tag: of those that steps made, the last ones."""
        tag, size = self.separator_ids, len(self.separator_ids)
        found = [i + size - 1 for i in range(len(ids) - size + 1) if ids[i : i + size] == tag]
        if len(found) < wanted:
            raise DataError(
                f"{wanted - len(found)} steps end so that {self.step_separator!r} after them is another token",
                where=origin,
                hint="take whitespace off their ends",
            )
        return found[-wanted:]
