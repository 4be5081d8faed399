"""Solutions in steps -> token ids and the place of each label.

The prompt is rendered as everywhere, up to where the answer begins. After it stand, for each step, the step's own tokens
and the separator's. The score of a step is read at the last token of its separator:

1. Prompt, steps and separator are tokenised one by one, so that no token spans two of them: the ids of the first k steps
   are the beginning of the ids of all steps, whatever follows. A decoder therefore scores every step in one pass.
2. An encoder reads in both directions: at the end of step k it would see step k + 1, and where labels stop at the first
   error the mere fact that nothing follows. So each beginning of a solution is a row of its own, up to the same token.
3. The scored token is the separator's for both kinds of model, not a closing SEP or EOS: what stands there is the same
   after every step, and does not say whether the solution ended.
4. What is longer than `max_length` loses whole steps at its end, or the start of its prompt, and is counted. A step that
   is kept is kept whole, with its own label.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .console import DataError, ModelError
from .data.audit.text import is_templated
from .data.records import Message
from .rendering import CONTENT_RULE, Renderer, check_one_text, fingerprint_of, place_of, refused_together

STEP_SEPARATOR = "\n"
STEPS_SCORED_AT = ("last_token", "prefix")
STEPS_OVERLONG = ("drop_steps", "truncate_prompt", "drop", "error")

_ANSWER = "ANSWER"
_ASKED: tuple[Message, ...] = ({"role": "user", "content": "QUESTION"},)


@dataclass(frozen=True)
class RenderedSolution:
    """Token ids of a prompt and its steps. The last steps, `dropped` of them, did not fit.

    positions: for each kept step the index in `ids` of the token it is scored at. cut: tokens removed from the prompt.
    """

    ids: list[int]
    positions: list[int]
    dropped: int = 0
    cut: int = 0


class StepRenderer:
    """Turns a prompt and its steps into token ids by the rules above.

    tokenizer: with a chat template and a pad token (see `rendering.prepare_tokenizer`). max_length: tokens, or None for
    no limit. overlong: `drop_steps` (leave out the last steps), `truncate_prompt` (cut the start of the prompt, and leave
    out last steps when they do not fit without any prompt), `drop` (leave out the solution) or `error`.
    scored_at: `last_token` for decoders (all steps in one row) or `prefix` for encoders (a row for each step).
    `counts` says what happened to the solutions rendered so far. Raises ModelError when the separator is no token.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_length: int | None,
        overlong: str = "drop_steps",
        scored_at: str = "last_token",
        step_separator: str = STEP_SEPARATOR,
        special_tokens_in_content: str = "text",
        text_format: str = "chat",
    ):
        if overlong not in STEPS_OVERLONG:
            raise ValueError(f"overlong is one of {STEPS_OVERLONG}, not {overlong!r}")
        if scored_at not in STEPS_SCORED_AT:
            raise ValueError(f"scored_at is one of {STEPS_SCORED_AT}, not {scored_at!r}")
        self.tokenizer, self.max_length, self.overlong, self.scored_at = tokenizer, max_length, overlong, scored_at
        self.step_separator, self.special_tokens_in_content = step_separator, special_tokens_in_content
        self.refused: list[tuple[int, DataError]] | None = None
        self._conversations = Renderer(
            tokenizer,
            max_length=None,
            special_tokens_in_content=special_tokens_in_content,
            text_format=text_format,
        )
        self.counts, self.first, self.longest = self._conversations.counts, self._conversations.first, None
        self.separator_ids = self._conversations._tokens([step_separator])[0] if step_separator else []
        if not self.separator_ids:
            raise ModelError(
                f"the step separator {step_separator!r} is no token of this tokenizer, so that no step has a token to be scored at",
                hint=f"give another, as in --step_separator {tokenizer.sep_token or tokenizer.eos_token or '###'}",
            )

    # ---- ids --------------------------------------------------------------------------------------------------

    def render_solution(
        self, prompt: Sequence[Message], steps: Sequence[str], *, where: Any = None
    ) -> RenderedSolution | None:
        """Ids of one prompt with its steps, or None when the policy leaves it out. Raises DataError for an empty step."""
        return self.render_all([(prompt, steps, where)])[0]

    def render_all(
        self, solutions: Sequence[tuple], refused: list[tuple[int, DataError]] | None = None
    ) -> list[RenderedSolution | None]:
        """`render_solution` for many (prompt, steps, where), tokenised together. In input order. refused: as in `Renderer`."""
        refused = self.refused if refused is None else refused
        pieces: list[list[str]] = []
        known: dict[str, list[int]] = {"": []}
        faults: list[tuple[int, DataError]] = []
        for i, (prompt, steps, where) in enumerate(solutions):
            try:
                _check_steps(steps, where)
                pieces.append(self._pieces(prompt, steps, where, known))
            except DataError as error:
                faults.append((i, error))
                pieces.append([])
        plain = [text for text in dict.fromkeys(text for own in pieces for text in own) if text not in known]
        known.update(zip(plain, self._conversations._tokens(plain), strict=True))
        rendered: list[RenderedSolution | None] = []
        for i, (own, (_, _, where)) in enumerate(zip(pieces, solutions, strict=True)):
            try:
                rendered.append(self._fit(known[own[0]], [known[text] for text in own[1:]], where) if own else None)
            except DataError as error:
                faults.append((i, error))
                rendered.append(None)
        if faults and refused is None:
            raise refused_together(sorted(faults, key=lambda fault: fault[0]), len(solutions))
        if refused is not None:
            refused += faults
            for _, error in faults:
                self._conversations._count(
                    "refused", f"{error.where}: {error.message}" if error.where else error.message
                )
        return rendered

    def _pieces(
        self, prompt: Sequence[Message], steps: Sequence[str], where: Any, known: dict[str, list[int]]
    ) -> list[str]:
        """The text of the prompt and of each step. `known` gets the ids of those that hold special tokens as text."""
        self.counts["separator_in_step"] += sum(self.step_separator in step for step in steps)
        texts = [self._conversations.text(prompt, where=where, prompt_only=True) if prompt else ""]
        texts += [self._lead + step if i == 0 and prompt else step for i, step in enumerate(steps)]
        special = self._conversations.special
        if self._conversations.text_format == "rendered":
            check_one_text(prompt, [{}], where)
        elif is_templated(message["content"] or "" for message in prompt):
            self._conversations._count("templated", where)
        if self._conversations.text_format != "rendered" and special.inside([prompt, steps]):
            self._conversations._count(CONTENT_RULE, where)
            if self.special_tokens_in_content == "text":
                marked = self._conversations._marked(prompt, None, where, prompt_only=True)
                if marked is not None:
                    texts[0] = marked
                    known[marked] = special.ids(marked)
                for text in texts[1:]:
                    if special.inside(text):
                        known[text] = special.ids(special.marked(text))
        return texts

    def rows(self, solution: RenderedSolution) -> list[tuple[list[int], list[int]]]:
        """(ids, positions) of each row to compute: the whole solution for a decoder, for an encoder one a step."""
        if self.scored_at == "last_token":
            return [(solution.ids, solution.positions)]
        return [(solution.ids[: position + 1], [position]) for position in solution.positions]

    def text(self, messages: Sequence[Message], **kwargs: Any) -> str:
        """The templated conversation (see `Renderer.text`)."""
        return self._conversations.text(messages, **kwargs)

    @cached_property
    def _lead(self) -> str:
        """The blanks that the template writes between the generation prompt and an answer: they belong to the first step."""
        if self._conversations.text_format == "rendered":
            return ""
        opening = self.text(_ASKED, prompt_only=True)
        whole = self.text([*_ASKED, {"role": "assistant", "content": _ANSWER}])
        lead, found, _ = whole.removeprefix(opening).partition(_ANSWER)
        return lead if found and whole.startswith(opening) and lead.isspace() else ""

    def _fit(self, prompt: list[int], steps: list[list[int]], where: Any) -> RenderedSolution | None:
        self.counts["rendered"] += 1
        sizes = [len(step) + len(self.separator_ids) for step in steps]
        needed = len(prompt) + sum(sizes)
        if self.max_length is None or needed <= self.max_length:
            return self._join(prompt, steps)
        self.counts["over_length"] += 1
        if self.overlong == "error":
            raise DataError(
                f"the solution has {needed} tokens, more than --max_length {self.max_length}",
                where=place_of(where),
                hint="raise --max_length, or choose --overlong drop_steps, truncate_prompt or drop",
            )
        head, cut = self._conversations._leading_special(prompt) if prompt else 0, 0
        if self.overlong == "truncate_prompt":
            cut = min(needed - self.max_length, len(prompt) - head)
        kept, used = 0, len(prompt) - cut
        while kept < len(steps) and used + sizes[kept] <= self.max_length:
            used += sizes[kept]
            kept += 1
        if self.overlong == "drop" or not kept:
            self._conversations._count("dropped", where)
            return None
        self.counts["truncated"] += bool(cut)
        self.counts["steps_dropped"] += len(steps) - kept
        return self._join(prompt[:head] + prompt[head + cut :], steps[:kept], len(steps) - kept, cut)

    def _join(self, prompt: list[int], steps: list[list[int]], dropped: int = 0, cut: int = 0) -> RenderedSolution:
        ids, positions = list(prompt), []
        for step in steps:
            ids += step + self.separator_ids
            positions.append(len(ids) - 1)
        return RenderedSolution(ids, positions, dropped, cut)

    # ---- identity ---------------------------------------------------------------------------------------------

    def contract(self) -> dict[str, Any]:
        """What decides a solution's ids and scored tokens, in JSON. `max_length` and `overlong` may be changed by the caller."""
        return {
            **self._conversations.contract(),
            "scored_at": self.scored_at,
            "step_separator": self.step_separator,
            "separator_ids": self.separator_ids,
        }

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change when any solution could render to other ids or be scored elsewhere."""
        return fingerprint_of(self.contract())


def default_separator(tokenizer: Any) -> str:
    """A line break; the SEP token for a tokenizer that reads line breaks as blanks, as WordPiece does."""
    if tokenizer(STEP_SEPARATOR, add_special_tokens=False)["input_ids"] or not tokenizer.sep_token:
        return STEP_SEPARATOR
    return tokenizer.sep_token


def split_steps(text: str, separator: str = STEP_SEPARATOR) -> list[str]:
    """The steps of a plain-text solution; what is blank between two separators is no step."""
    return [step for step in text.split(separator) if step.strip()]


def supervised_text(tokenizer: Any, ids: Sequence[int], positions: Iterable[int]) -> list[tuple[str, str]]:
    """(text, token) of each step: what is decoded from behind the token scored before, and the scored token itself."""
    shown, start = [], 0
    for position in positions:
        shown.append((tokenizer.decode(ids[start : position + 1]), tokenizer.convert_ids_to_tokens(ids[position])))
        start = position + 1
    return shown


def _check_steps(steps: Sequence[str], where: Any) -> None:
    if not steps:
        raise DataError("the solution has no steps", where=place_of(where))
    for number, step in enumerate(steps, 1):
        if not step.strip():
            raise DataError(f"step {number} is empty", where=place_of(where), hint="drop it and its label")
