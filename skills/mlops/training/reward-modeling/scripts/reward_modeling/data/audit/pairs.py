"""What can be wrong with comparisons (CHECKS), and with rows to be scored or answered (UNLABELED_CHECKS)."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from operator import attrgetter

from ..records import Comparison, Message, Ranking, Record, answers_of
from .findings import Check, Material, each_answer, outside, table_of, where
from .text import contents, is_garbled, is_templated, leaks_turn

LONGER_WARNING = (0.3, 0.7)
"""Range of shares of pairs with the longer answer chosen outside of which length alone would score well."""
_FOLLOWS = {"start": ("user",), "user": ("assistant",), "assistant": ("user", "tool"), "tool": ("tool", "assistant")}


def _says_nothing(record: Record, answer: list[Message]) -> bool:
    said = [message for message in answer if message["role"] == "assistant"]
    return not any(message["content"].strip() or message.get("tool_calls") for message in said)


def _both(record: Record, answer: list[Message]) -> bool:
    return True  # what is wrong with the prompt is wrong with both sides


def _asked(side: list[Message]) -> list[tuple[str, str]]:
    """What an answer holds of the user or the system."""
    return [(message["role"], message["content"].strip()) for message in side if message["role"] in ("user", "system")]


def _is_out_of_turn(messages: list[Message]) -> bool:
    """Whether roles break the order: system, then user and assistant in turn, tools after the assistant."""
    roles = [message["role"] for message in messages]
    roles = roles[1:] if roles[:1] == ["system"] else roles
    return any(role not in _FOLLOWS[before] for before, role in zip(["start", *roles], roles, strict=False))


def _identical(material: Material) -> list[int]:
    return [index for index, (_, chosen, rejected) in enumerate(material.keys) if chosen == rejected]


def _overlap(material: Material) -> list[int]:
    return [index for index, (prompt, *_) in enumerate(material.keys) if prompt in material.eval_prompts]


def _longer(pair: Comparison) -> int:
    """How many more characters chosen says than rejected."""
    chosen, rejected = (sum(map(len, contents(side, "assistant"))) for side in (pair.chosen, pair.rejected))
    return chosen - rejected


CHECKS = table_of(
    Check(
        "empty_answer",
        "error",
        "have an answer that says nothing",
        "The model learns to score the absence of text: a failed generation, or a column read wrongly.",
        "drop these rows, or fix the column they come from",
        **each_answer(_says_nothing),
    ),
    Check(
        "no_final_answer",
        "error",
        "have a side that does not end with an assistant message",
        "The score is read at the end of the answer: here it would be of the user's or a tool's words.",
        "cut the conversations after their last assistant message, or drop these rows",
        **each_answer(lambda pair, answer: not answer or answer[-1]["role"] != "assistant"),
    ),
    Check(
        "prompts_differ",
        "error",
        "do not ask the same on both sides",
        "A difference in reward then measures the question and not the answer.",
        "drop these rows; if all have it, chosen and rejected come from different rows of the source",
        where(lambda pair: _asked(pair.chosen) != _asked(pair.rejected)),
    ),
    Check(
        "identical",
        "error",
        "have identical chosen and rejected answers",
        "They teach nothing, keep the loss above zero and count as half right at best.",
        "drop these rows",
        _identical,
    ),
    Check(
        "duplicate",
        "warning",
        "repeat an earlier pair",
        "They count twice in training, and when one of them lands in the evaluation set, it has been seen.",
        "drop them, unless they are separate labels of the same answers",
        links=attrgetter("links"),
    ),
    Check(
        "contradiction",
        "warning",
        "also occur with the opposite label",
        "No model can satisfy both: they bound the accuracy that can be reached.",
        "keep the majority's label, or drop both",
        links=attrgetter("links"),
        opposes=True,
    ),
    Check(
        "train_eval_overlap",
        "warning",
        "have a prompt of the evaluation set",
        "Accuracy on prompts that were trained on says little about new ones.",
        "drop these rows from the training set",
        _overlap,
        of_answer=_both,
    ),
    Check(
        "roles",
        "warning",
        "have roles that do not alternate",
        "Chat templates raise errors on such conversations, or render them in a way the base model never saw.",
        "merge consecutive messages of one role; put the system message first and once",
        **each_answer(lambda record, answer: _is_out_of_turn(record.prompt + answer)),
        of_chat=True,
    ),
    Check(
        "leaked_turn",
        "warning",
        "have an answer that holds the marker of a turn (Human:, <|im_end|>, [INST], ...)",
        "The answer went on into the user's next turn, or a template was written into it: the marker predicts the label.",
        "cut the answer at the marker, or drop these rows",
        **each_answer(lambda record, answer: leaks_turn(contents(answer, "assistant"))),
        of_chat=True,
    ),
    Check(
        "templated",
        "warning",
        "have a prompt that is templated already (<|im_start|>user, [INST], Human: ... Assistant:)",
        "The chat template is written around it a second time: the model reads a text that no one else gives it.",
        "give the messages alone, or take the text as it is with --text_format rendered",
        where(lambda pair: is_templated(contents(pair.prompt))),
        of_chat=True,
        of_answer=_both,
    ),
    Check(
        "longer_chosen",
        "info",
        "the longer answer is chosen in {count} of {total} {called} whose answers differ in length ({percent})",
        "Far from one half, length alone predicts the label, and the model may learn length instead of quality.",
        "compare accuracy with the length baseline, and on pairs where the shorter answer is chosen",
        where(lambda pair: _longer(pair) > 0),
        of=lambda material: sum(_longer(pair) != 0 for pair in material.records),
        grade=outside(*LONGER_WARNING),
    ),
    Check(
        "negative_margin",
        "warning",
        "have a margin below zero",
        "The scores contradict the labels: the rejected answer has the higher one.",
        "check that the score columns are not swapped, or drop these rows",
        where(lambda record: record.margin is not None and record.margin < 0),
    ),
    Check(
        "encoding",
        "warning",
        "hold control characters, replacement characters or wrongly decoded text",
        "The text went through the wrong encoding once (Ã© for é): tokens the base model hardly knows.",
        "read the source again as UTF-8, or drop these rows",
        where(lambda record: is_garbled(contents([*record.prompt, *chain(*answers_of(record))]))),
        of_answer=lambda record, answer: is_garbled(contents(record.prompt + answer)),
    ),
)


def _stumbles(row: Ranking) -> bool:
    """A prompt without completions is looked at as if it were answered."""
    answers = row.completions or [[{"role": "assistant", "content": ""}]]
    return any(_is_out_of_turn(row.prompt + answer) for answer in answers)


UNLABELED_CHECKS = table_of(
    replace(CHECKS["empty_answer"], severity="warning"),
    CHECKS["duplicate"],
    CHECKS["train_eval_overlap"],
    replace(CHECKS["roles"], find=where(_stumbles)),
    *(CHECKS[name] for name in ("leaked_turn", "templated", "encoding")),
)
