"""What can be wrong with comparisons: one table, CHECKS.

A check says which side of a pair has the flaw, where it is one side's: of a ranking only that completion is then dropped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..records import Comparison, Message
from .findings import Check, digest, repeated, table_of, where
from .text import contents, is_garbled, is_templated, leaks_turn

LONGER_WARNING = (0.3, 0.7)
"""Shares of pairs with the longer answer chosen outside of this range are a warning: length alone would score well."""


@dataclass(frozen=True)
class Material:
    """The audited pairs and what is computed from them once, shared by the checks."""

    called = "pairs"

    records: Sequence[Comparison]
    lengths: Callable[[Comparison], tuple[int, int]] | None = None
    max_length: int | None = None
    truncated_pairs: Sequence[bool] | None = None
    eval_records: Sequence[Comparison] | None = None

    @cached_property
    def keys(self) -> list[tuple[bytes, bytes, bytes]]:
        """Digests of prompt, chosen and rejected of each pair."""
        memo: dict[int, bytes] = {}
        return [
            (digest(record.prompt, memo), digest(record.chosen, memo), digest(record.rejected, memo))
            for record in self.records
        ]

    @cached_property
    def eval_prompts(self) -> set[bytes]:
        memo: dict[int, bytes] = {}
        return {digest(record.prompt, memo) for record in self.eval_records or ()}

    @cached_property
    def answer_lengths(self) -> list[tuple[int, int]]:
        """Characters in what chosen and rejected say."""
        return [(_size(record.chosen), _size(record.rejected)) for record in self.records]


def _size(messages: list[Message]) -> int:
    return sum(len(message["content"]) for message in messages if message["role"] == "assistant")


def _both(pair: Comparison) -> list[str]:
    """What is wrong with the prompt is wrong with both sides."""
    return ["chosen", "rejected"]


def _sides(test: Callable[[Comparison, list[Message]], bool]) -> Callable[[Comparison], list[str]]:
    """The sides of a pair that have a flaw, by a test of (pair, messages of one side)."""
    return lambda pair: [side for side in _both(pair) if test(pair, getattr(pair, side))]


def says_something(message: Message) -> bool:
    return message["role"] == "assistant" and bool(message["content"].strip() or message.get("tool_calls"))


_empty_sides = _sides(lambda pair, side: not any(map(says_something, side)))
_unfinished_sides = _sides(lambda pair, side: not side or side[-1]["role"] != "assistant")
_stumbling_sides = _sides(lambda pair, side: out_of_turn(pair.prompt + side))
_garbled_sides = _sides(lambda pair, side: is_garbled(contents(pair.prompt + side)))
_leaking_sides = _sides(lambda pair, side: leaks_turn(contents(side, "assistant")))


def _prompts_differ(pair: Comparison) -> bool:
    """Messages that the two sides do not share are answers; those of the user or the system among them must agree."""
    asked = [
        [(message["role"], message["content"].strip()) for message in side if message["role"] in ("user", "system")]
        for side in (pair.chosen, pair.rejected)
    ]
    return asked[0] != asked[1]


def out_of_turn(messages: list[Message]) -> bool:
    """Whether roles break the order: a system message, then user and assistant in turn, tools after the assistant."""
    roles = [message["role"] for message in messages]
    follows = {"start": ("user",), "user": ("assistant",), "assistant": ("user", "tool"), "tool": ("tool", "assistant")}
    before = "start"
    for role in roles[1:] if roles[:1] == ["system"] else roles:
        if role not in follows[before]:
            return True
        before = role
    return False


def _identical(material: Material) -> list[int]:
    return [index for index, (_, chosen, rejected) in enumerate(material.keys) if chosen == rejected]


def _identical_after_truncation(material: Material) -> list[int]:
    before = set(_identical(material))
    return [index for index, same in enumerate(material.truncated_pairs or ()) if same and index not in before]


def _contradictions(material: Material) -> list[int]:
    """Pairs that also occur with chosen and rejected swapped, both of them."""
    orders = defaultdict(set)
    for prompt, chosen, rejected in material.keys:
        orders[prompt, frozenset((chosen, rejected))].add((chosen, rejected))
    return [
        index
        for index, (prompt, chosen, rejected) in enumerate(material.keys)
        if len(orders[prompt, frozenset((chosen, rejected))]) > 1
    ]


def _overlap(material: Material) -> list[int]:
    return [index for index, (prompt, _, _) in enumerate(material.keys) if prompt in material.eval_prompts]


def _over_length(material: Material) -> list[int]:
    if material.lengths is None or material.max_length is None:
        return []
    return where(lambda record: max(material.lengths(record)) > material.max_length)(material)


def _longer_chosen(material: Material) -> list[int]:
    return [index for index, (chosen, rejected) in enumerate(material.answer_lengths) if chosen > rejected]


def _of_different_length(material: Material) -> int:
    return sum(chosen != rejected for chosen, rejected in material.answer_lengths)


def _grade_length(share: float) -> str:
    low, high = LONGER_WARNING
    return "info" if low <= share <= high else "warning"


CHECKS = table_of(
    Check(
        "empty_answer",
        "error",
        "{count} of {total} {called} have an answer that says nothing",
        "The model learns to score the absence of text: a failed generation, or a column read wrongly.",
        "drop these rows, or fix the column they come from",
        where(_empty_sides),
        sides=_empty_sides,
    ),
    Check(
        "no_final_answer",
        "error",
        "{count} of {total} {called} have a side that does not end with an assistant message",
        "The score is read at the end of the answer: here it would be of the user's or a tool's words.",
        "cut the conversations after their last assistant message, or drop these rows",
        where(_unfinished_sides),
        sides=_unfinished_sides,
    ),
    Check(
        "prompts_differ",
        "error",
        "{count} of {total} {called} do not ask the same on both sides",
        "A difference in reward then measures the question and not the answer.",
        "drop these rows; if all have it, chosen and rejected come from different rows of the source",
        where(_prompts_differ),
    ),
    Check(
        "identical",
        "error",
        "{count} of {total} {called} have identical chosen and rejected answers",
        "They teach nothing, keep the loss above zero and count as half right at best.",
        "drop these rows",
        _identical,
    ),
    Check(
        "identical_after_truncation",
        "warning",
        "{count} of {total} {called} become identical when truncated",
        "What distinguishes the answers lies beyond the maximum length, so the label is noise.",
        "raise --max_length, or truncate the prompt and keep the answers",
        _identical_after_truncation,
        needs_tokens=True,
    ),
    Check(
        "duplicate",
        "warning",
        "{count} of {total} {called} repeat an earlier pair",
        "They count twice in training, and when one of them lands in the evaluation set, it has been seen.",
        "drop them, unless they are separate labels of the same answers",
        lambda material: repeated(material.keys),
    ),
    Check(
        "contradiction",
        "warning",
        "{count} of {total} {called} also occur with the opposite label",
        "No model can satisfy both: they bound the accuracy that can be reached.",
        "keep the majority's label, or drop both",
        _contradictions,
    ),
    Check(
        "train_eval_overlap",
        "warning",
        "{count} of {total} {called} have a prompt of the evaluation set",
        "Accuracy on prompts that were trained on says little about new ones.",
        "drop these rows from the training set",
        _overlap,
        sides=_both,
    ),
    Check(
        "roles",
        "warning",
        "{count} of {total} {called} have roles that do not alternate",
        "Chat templates raise errors on such conversations, or render them in a way the base model never saw.",
        "merge consecutive messages of one role; put the system message first and once",
        where(_stumbling_sides),
        of_chat=True,
        sides=_stumbling_sides,
    ),
    Check(
        "leaked_turn",
        "warning",
        "{count} of {total} {called} have an answer that holds the marker of a turn (Human:, <|im_end|>, [INST], ...)",
        "The answer went on into the user's next turn, or a template was written into it: the marker predicts the label.",
        "cut the answer at the marker, or drop these rows",
        where(_leaking_sides),
        of_chat=True,
        sides=_leaking_sides,
    ),
    Check(
        "templated",
        "warning",
        "{count} of {total} {called} have a prompt that is templated already (<|im_start|>user, [INST], Human: ... Assistant:)",
        "The chat template is written around it a second time: the model reads a text that no one else gives it.",
        "give the messages alone, or take the text as it is with --text_format rendered",
        where(lambda pair: is_templated(contents(pair.prompt))),
        of_chat=True,
        sides=_both,
    ),
    Check(
        "over_length",
        "warning",
        "{count} of {total} {called} have a side longer than {max_length} tokens",
        "They are dropped or truncated, as the policy says; TRL alone drops them without a count.",
        "raise --max_length, or choose what is cut with --overlong",
        _over_length,
        needs_tokens=True,
    ),
    Check(
        "longer_chosen",
        "info",
        "the longer answer is chosen in {count} of {total} {called} whose answers differ in length ({percent})",
        "Far from one half, length alone predicts the label, and the model may learn length instead of quality.",
        "compare accuracy with the length baseline, and on pairs where the shorter answer is chosen",
        _longer_chosen,
        of=_of_different_length,
        grade=_grade_length,
    ),
    Check(
        "negative_margin",
        "warning",
        "{count} of {total} {called} have a margin below zero",
        "The scores contradict the labels: the rejected answer has the higher one.",
        "check that the score columns are not swapped, or drop these rows",
        where(lambda record: record.margin is not None and record.margin < 0),
    ),
    Check(
        "encoding",
        "warning",
        "{count} of {total} {called} hold control characters, replacement characters or wrongly decoded text",
        "The text went through the wrong encoding once (Ã© for é): tokens the base model hardly knows.",
        "read the source again as UTF-8, or drop these rows",
        where(_garbled_sides),
        sides=_garbled_sides,
    ),
)
