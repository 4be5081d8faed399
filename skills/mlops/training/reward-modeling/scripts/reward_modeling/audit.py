"""What is wrong with comparisons, or with labelled steps, before a model learns it.

    findings = audit(pairs, eval_records=held_out)      one Finding a check that found something
    clean = drop(pairs, findings)                       without the rows of these findings
    findings = audit_steps(solutions, separator="\\n", eval_records=held_out)

Each check is one entry in CHECKS, or in STEP_CHECKS for solutions: what it looks for, why that matters, what to do. Every
check takes time linear in the text. Token counts are not made here: whoever renders the pairs hands in `lengths`,
`max_length` and `truncated_pairs`.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from typing import Any

from . import console
from .records import Comparison, Message, Records, Solution

SHOWN = 5
LONGER_WARNING = (0.3, 0.7)
"""Shares of pairs with the longer answer chosen outside of this range are a warning: length alone would score well."""

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")
# UTF-8 read as Latin-1 or Windows-1252: the lead byte of a two-byte letter and its second byte (Ã©, Â£), the start of a
# typographic sign (â€™), the start of an emoji (ðŸ˜€).
_MOJIBAKE = re.compile("[\u00c2\u00c3][\u0080-\u00bf]|\u00e2(?:\u20ac|\u0080)|\u00f0(?:\u0178|\u009f)")
# What begins or ends a turn: of HH transcripts, of ChatML, Llama 3 and DeepSeek, of Gemma, of Llama 2, of Alpaca and Vicuna.
_TURN = re.compile(
    r"(?:\A\s*|\n\n(?:\w+ )?)(?:Human|Assistant):|<[|｜][\w▁]+[|｜]>|<(?:start|end)_of_turn>|\[/?INST\]|</s>\s*\Z"
    r"|^###\s?(?:Instruction|Response|Human|Assistant|User)\b",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Finding:
    """What one check found. `rows` are the first five places, `indices` all of them in the audited list."""

    check: str
    severity: str
    """"error", "warning" or "info"."""
    count: int
    share: float
    """`count` as a part of what was looked at."""
    rows: tuple[str, ...]
    message: str
    advice: str
    indices: tuple[int, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        names = ("check", "severity", "count", "share", "rows", "message", "advice")
        return {name: list(value) if isinstance(value := getattr(self, name), tuple) else value for name in names}


@dataclass(frozen=True)
class Material:
    """The audited pairs and what is computed from them once, shared by the checks."""

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


def digest(messages: list[Message], memo: dict[int, bytes]) -> bytes:
    """A digest of messages, blind to blanks after their contents. Pairs of a ranking share lists: each is read once."""
    known = memo.get(id(messages))
    if known is None:
        text = json.dumps(
            [message | {"content": message["content"].rstrip()} for message in messages], sort_keys=True, default=str
        )
        known = memo[id(messages)] = blake2b(text.encode(), digest_size=16).digest()
    return known


def _size(messages: list[Message]) -> int:
    return sum(len(message["content"]) for message in messages if message["role"] == "assistant")


@dataclass(frozen=True)
class Check:
    """One thing that can be wrong. `find` gives the positions of the pairs that have it."""

    name: str
    severity: str
    what: str
    """The finding in one line; {count} and {total} are filled in."""
    why: str
    advice: str
    find: Callable[[Any], list[int]]
    of: Callable[[Any], int] | None = None
    """How many pairs were looked at, when not all."""
    grade: Callable[[float], str] | None = None
    """The severity by share, when it depends on it: such a check always reports, and judges the data, not its rows."""
    needs_tokens: bool = False
    """Whether it can find anything only where the pairs have been rendered."""

    @property
    def about_rows(self) -> bool:
        return self.grade is None


def audit(
    records: Sequence[Comparison],
    *,
    lengths: Callable[[Comparison], tuple[int, int]] | None = None,
    max_length: int | None = None,
    truncated_pairs: Sequence[bool] | None = None,
    eval_records: Sequence[Comparison] | None = None,
) -> list[Finding]:
    """Every finding on these pairs, errors first.

    lengths: comparison -> tokens of prompt and chosen, tokens of prompt and rejected; with `max_length` it finds the
    pairs over length. truncated_pairs: [pairs], True where the two sides are the same once truncated.
    eval_records: the pairs of the evaluation set, whose prompts must not be trained on.
    """
    return findings_of(CHECKS, Material(records, lengths, max_length, truncated_pairs, eval_records))


def findings_of(checks: dict[str, Check], material: Any) -> list[Finding]:
    """What these checks find, errors first."""
    findings = [finding for check in checks.values() if (finding := _finding(check, material))]
    return sorted(findings, key=lambda finding: ("error", "warning", "info").index(finding.severity))


UNREADABLE = "unreadable"


def unreadable(records: Records) -> list[Finding]:
    """The rows that `load` left out because they cannot be read, as one more finding, or nothing."""
    if not records.unreadable:
        return []
    count = len(records.unreadable)
    read = len(records.rows) + sum(records.set_aside.values())
    return [
        Finding(
            check=UNREADABLE,
            severity="error",
            count=count,
            share=count / read,
            rows=tuple(place for place, _ in records.unreadable[:5]),
            message=f"{count} of {read} rows cannot be read; the first: {records.unreadable[0][1]}",
            advice="mend them, or leave them out",
        )
    ]


def drop(records: Sequence[Any], findings: Iterable[Finding]) -> list[Any]:
    """The audited records without the rows of the findings."""
    gone = {index for finding in findings for index in finding.indices}
    return [record for index, record in enumerate(records) if index not in gone]


def without_errors(records: Sequence[Any], findings: Sequence[Finding], how: str, called: str) -> list[Any]:
    """What a training run keeps of audited records, by its --audit (`how`): with "drop" those without errors, with "warn"
    all. Shows the findings. Raises DataError for errors under "stop". called: the records, for messages.
    """
    show(findings)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors and how == "stop":
        worst = errors[0]
        raise console.DataError(
            worst.message,
            where=", ".join(worst.rows),
            hint=f"{worst.advice}; leave such rows out with --audit drop, or look closer with check_data.py",
        )
    kept = drop(records, errors) if how == "drop" else list(records)
    if len(kept) < len(records):
        console.warn(f"left out {len(records) - len(kept)} of {len(records)} {called} with errors")
    return kept


def show(findings: Sequence[Finding]) -> None:
    """The findings as a table on stderr."""
    if not findings:
        console.log("the audit found nothing")
        return
    rows = [
        [finding.severity, finding.check, f"{finding.message}: {finding.advice}", _short_places(finding.rows)]
        for finding in findings
    ]
    console.table("audit", ["severity", "check", "finding", "first rows"], rows)


def _short_places(rows: Sequence[str]) -> str:
    """a/FILE:3, a/FILE:4, OTHER:1 -> FILE:3, 4, OTHER:1."""
    shown, last = [], None
    for row in rows:
        file, _, number = row.rpartition(":")
        shown.append(number if file and file == last else row.rpartition("/")[2])
        last = file
    return ", ".join(shown)


def _finding(check: Check, material: Any) -> Finding | None:
    total = check.of(material) if check.of else len(material.records)
    indices = check.find(material) if total else []
    if not indices and not (check.grade and total):
        return None
    share = len(indices) / total
    return Finding(
        check=check.name,
        severity=check.grade(share) if check.grade else check.severity,
        count=len(indices),
        share=share,
        rows=_places(material.records, indices) if check.about_rows else (),
        message=check.what.format(
            count=len(indices), total=total, percent=f"{share:.1%}", max_length=material.max_length
        ),
        advice=check.advice,
        indices=tuple(indices) if check.about_rows else (),
    )


def _places(records: Sequence[Any], indices: list[int]) -> tuple[str, ...]:
    """The first few places; the pairs of one ranking come from one row."""
    places = (str(records[index].origin or f"pair {index + 1}") for index in indices)
    return tuple(islice(dict.fromkeys(places), SHOWN))


def _where(test: Callable[[Comparison], bool]) -> Callable[[Material], list[int]]:
    """The `find` of a check that looks at one pair at a time."""
    return lambda material: [index for index, record in enumerate(material.records) if test(record)]


def _sides(record: Comparison) -> tuple[list[Message], list[Message]]:
    return record.chosen, record.rejected


def _is_empty(record: Comparison) -> bool:
    return any(not any(_says_something(message) for message in side) for side in _sides(record))


def _says_something(message: Message) -> bool:
    return message["role"] == "assistant" and bool(message["content"].strip() or message.get("tool_calls"))


def _lacks_final_answer(record: Comparison) -> bool:
    return any(not side or side[-1]["role"] != "assistant" for side in _sides(record))


def _prompts_differ(record: Comparison) -> bool:
    """Messages that the two sides do not share are answers; those of the user or the system among them must agree."""
    asked = [[_said(message) for message in side if message["role"] in ("user", "system")] for side in _sides(record)]
    return asked[0] != asked[1]


def _said(message: Message) -> tuple[str, str]:
    return message["role"], message["content"].strip()


def _roles_stumble(record: Comparison) -> bool:
    return any(_out_of_turn([message["role"] for message in record.prompt + side]) for side in _sides(record))


def _out_of_turn(roles: list[str]) -> bool:
    """Whether roles break the order: a system message, then user and assistant in turn, tools after the assistant."""
    follows = {"start": ("user",), "user": ("assistant",), "assistant": ("user", "tool"), "tool": ("tool", "assistant")}
    before = "start"
    for role in roles[1:] if roles[:1] == ["system"] else roles:
        if role not in follows[before]:
            return True
        before = role
    return False


def _is_garbled(record: Comparison) -> bool:
    return is_garbled(
        message["content"] for side in (record.prompt, record.chosen, record.rejected) for message in side
    )


def is_garbled(texts: Iterable[str]) -> bool:
    """Whether a text went through the wrong encoding, or holds control characters."""
    return any(_CONTROL.search(text) or (not text.isascii() and _MOJIBAKE.search(text)) for text in texts)


def _leaks_turn(record: Comparison) -> bool:
    """Whether an answer holds the marker of another turn: generation went on, or the template stands in the text."""
    answers = (message for side in _sides(record) for message in side if message["role"] == "assistant")
    return any(_TURN.search(message["content"]) for message in answers)


def _identical(material: Material) -> list[int]:
    return [index for index, (_, chosen, rejected) in enumerate(material.keys) if chosen == rejected]


def _identical_after_truncation(material: Material) -> list[int]:
    before = set(_identical(material))
    return [index for index, same in enumerate(material.truncated_pairs or ()) if same and index not in before]


def _duplicates(material: Material) -> list[int]:
    """Every pair that was there before: the first of equals is not among them."""
    seen, found = set(), []
    for index, key in enumerate(material.keys):
        if key in seen:
            found.append(index)
        seen.add(key)
    return found


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
    return _where(lambda record: max(material.lengths(record)) > material.max_length)(material)


def _longer_chosen(material: Material) -> list[int]:
    return [index for index, (chosen, rejected) in enumerate(material.answer_lengths) if chosen > rejected]


def _of_different_length(material: Material) -> int:
    return sum(chosen != rejected for chosen, rejected in material.answer_lengths)


def _grade_length(share: float) -> str:
    low, high = LONGER_WARNING
    return "info" if low <= share <= high else "warning"


CHECKS: dict[str, Check] = {
    check.name: check
    for check in (
        Check(
            "empty_answer",
            "error",
            "{count} of {total} pairs have an answer that says nothing",
            "The model learns to score the absence of text: a failed generation, or a column read wrongly.",
            "drop these rows, or mend the column they come from",
            _where(_is_empty),
        ),
        Check(
            "no_final_answer",
            "error",
            "{count} of {total} pairs have a side that does not end with an assistant message",
            "The score is read at the end of the answer: here it would judge the user's or a tool's words.",
            "cut the conversations after their last assistant message, or drop these rows",
            _where(_lacks_final_answer),
        ),
        Check(
            "prompts_differ",
            "error",
            "{count} of {total} pairs do not ask the same on both sides",
            "A difference in reward then measures the question and not the answer.",
            "drop these rows; if all have it, chosen and rejected come from different rows of the source",
            _where(_prompts_differ),
        ),
        Check(
            "identical",
            "error",
            "{count} of {total} pairs have identical chosen and rejected answers",
            "They teach nothing, keep the loss above zero and count as half right at best.",
            "drop these rows",
            _identical,
        ),
        Check(
            "identical_after_truncation",
            "warning",
            "{count} of {total} pairs become identical when truncated",
            "What distinguishes the answers lies beyond the maximum length, so the label is noise.",
            "raise --max_length, or truncate the prompt and keep the answers",
            _identical_after_truncation,
            needs_tokens=True,
        ),
        Check(
            "duplicate",
            "warning",
            "{count} of {total} pairs repeat an earlier pair",
            "They count twice in training, and when one of them lands in the evaluation set, it has been seen.",
            "drop them, unless they are separate judgements of the same answers",
            _duplicates,
        ),
        Check(
            "contradiction",
            "warning",
            "{count} of {total} pairs also occur with the opposite label",
            "No model can satisfy both: they bound the accuracy that can be reached.",
            "keep the majority's label, or drop both",
            _contradictions,
        ),
        Check(
            "train_eval_overlap",
            "warning",
            "{count} of {total} pairs have a prompt of the evaluation set",
            "Accuracy on prompts that were trained on says little about new ones.",
            "drop these rows from the training set",
            _overlap,
        ),
        Check(
            "roles",
            "warning",
            "{count} of {total} pairs have roles that do not alternate",
            "Chat templates raise errors on such conversations, or render them in a way the base model never saw.",
            "merge consecutive messages of one role; put the system message first and once",
            _where(_roles_stumble),
        ),
        Check(
            "leaked_turn",
            "warning",
            "{count} of {total} pairs have an answer that holds the marker of a turn (Human:, <|im_end|>, [INST], ...)",
            "The answer went on into the user's next turn, or a template was written into it: the marker predicts the label.",
            "cut the answer at the marker, or drop these rows",
            _where(_leaks_turn),
        ),
        Check(
            "over_length",
            "warning",
            "{count} of {total} pairs have a side longer than {max_length} tokens",
            "They are dropped or truncated, as the policy says; TRL alone drops them without a count.",
            "raise --max_length, or choose what is cut with --overlong",
            _over_length,
            needs_tokens=True,
        ),
        Check(
            "longer_chosen",
            "info",
            "the longer answer is chosen in {count} of {total} pairs whose answers differ in length ({percent})",
            "Far from one half, length alone predicts the label, and the model may learn length instead of quality.",
            "judge accuracy beside the length baseline, and on pairs where the shorter answer is chosen",
            _longer_chosen,
            of=_of_different_length,
            grade=_grade_length,
        ),
        Check(
            "negative_margin",
            "warning",
            "{count} of {total} pairs have a margin below zero",
            "The scores contradict the labels: the rejected answer has the higher one.",
            "check that the score columns are not swapped, or drop these rows",
            _where(lambda record: record.margin is not None and record.margin < 0),
        ),
        Check(
            "encoding",
            "warning",
            "{count} of {total} pairs hold control characters, replacement characters or wrongly decoded text",
            "The text went through the wrong encoding once (Ã© for é): tokens the base model hardly knows.",
            "read the source again as UTF-8, or drop these rows",
            _where(_is_garbled),
        ),
    )
}


# ---- labelled steps ---------------------------------------------------------------------------------------------------


WRONG_WARNING = (0.05, 0.95)
"""Shares of incorrect steps outside of this range are a warning: calling all steps alike is then nearly right."""


@dataclass(frozen=True)
class StepMaterial:
    """The audited solutions. separator: what will stand behind each step, where that is known."""

    records: Sequence[Solution]
    separator: str | None = None
    eval_records: Sequence[Solution] | None = None
    max_length: int | None = None


def audit_steps(
    records: Sequence[Solution], *, separator: str | None = None, eval_records: Sequence[Solution] | None = None
) -> list[Finding]:
    """Every finding on these solutions, errors first."""
    return findings_of(STEP_CHECKS, StepMaterial(records, separator, eval_records))


def _where(test: Callable[[Solution], bool]) -> Callable[[StepMaterial], list[int]]:
    return lambda material: [index for index, record in enumerate(material.records) if test(record)]


def _separator_inside(blank: bool) -> Callable[[StepMaterial], list[int]]:
    def find(material: StepMaterial) -> list[int]:
        mark = material.separator
        if not mark or mark.isspace() != blank:
            return []
        return _where(lambda record: any(mark in step for step in record.steps))(material)

    return find


def _duplicates(material: StepMaterial) -> list[int]:
    seen, found = set(), []
    for index, record in enumerate(material.records):
        place = (digest(record.prompt, {}), tuple(record.steps))
        if place in seen:
            found.append(index)
        seen.add(place)
    return found


def _contradictions(material: StepMaterial) -> list[int]:
    """Solutions with a step that another solution labels otherwise, after the same steps of the same prompt."""
    labels, owners = defaultdict(set), defaultdict(set)
    for index, record in enumerate(material.records):
        prompt = digest(record.prompt, {})
        for end, label in enumerate(record.labels or (), 1):
            if label is not None:
                beginning = (prompt, tuple(record.steps[:end]))
                labels[beginning].add(label >= 0.5)
                owners[beginning].add(index)
    return sorted({index for beginning, found in labels.items() if len(found) > 1 for index in owners[beginning]})


def _overlap(material: StepMaterial) -> list[int]:
    held_out = {digest(record.prompt, {}) for record in material.eval_records or ()}
    return _where(lambda record: digest(record.prompt, {}) in held_out)(material)


def _judged(record: Solution) -> list[float]:
    return [label for label in record.labels or () if label is not None]


def _steps(material: StepMaterial) -> int:
    return sum(len(_judged(record)) for record in material.records)


def _wrong_steps(material: StepMaterial) -> list[int]:
    """The owner of each incorrect step."""
    return [index for index, record in enumerate(material.records) for label in _judged(record) if label < 0.5]


def _grade_balance(share: float) -> str:
    low, high = WRONG_WARNING
    return "info" if low <= share <= high else "warning"


def _ends_wrong(record: Solution) -> bool:
    judged = _judged(record)
    return bool(judged) and judged[-1] < 0.5 and all(label >= 0.5 for label in judged[:-1])


STEP_CHECKS: dict[str, Check] = {
    check.name: check
    for check in (
        Check(
            "separator_in_step",
            "error",
            "{count} of {total} solutions have a step that holds the step separator",
            "Inside a step the separator has no label, behind it it has one: the model learns that it means nothing.",
            "choose a --step_separator that occurs in no step, or split these steps",
            _separator_inside(blank=False),
        ),
        Check(
            "line_break_in_step",
            "warning",
            "{count} of {total} solutions have a step that holds the blank step separator",
            "Labels stay in their places, but a text split at the separator has other steps than the training data.",
            "score steps rather than texts, or choose another --step_separator",
            _separator_inside(blank=True),
        ),
        Check(
            "duplicate",
            "warning",
            "{count} of {total} solutions repeat an earlier one",
            "They count twice in training, and when one of them lands in the evaluation set, it has been seen.",
            "drop them, unless they are separate judgements of the same steps",
            _duplicates,
        ),
        Check(
            "contradiction",
            "warning",
            "{count} of {total} solutions have a step that is labelled otherwise elsewhere, after the same steps",
            "No model can satisfy both: they bound the accuracy that can be reached.",
            "average the labels to a probability, or drop these rows",
            _contradictions,
        ),
        Check(
            "train_eval_overlap",
            "warning",
            "{count} of {total} solutions have a prompt of the evaluation set",
            "Accuracy on prompts that were trained on says little about new ones.",
            "drop these rows from the training set",
            _overlap,
        ),
        Check(
            "wrong_steps",
            "info",
            "{count} of {total} labelled steps are incorrect ({percent})",
            "Where nearly all steps are alike, calling all of them so is nearly right, and the model learns just that.",
            "judge beside the baselines that call every step correct or wrong; consider --class_weighting balanced",
            _wrong_steps,
            of=_steps,
            grade=_grade_balance,
        ),
        Check(
            "ends_at_first_error",
            "info",
            "in {count} of {total} solutions the last labelled step is the first wrong one",
            "Late steps are then wrong more often than early ones, and position alone predicts some labels.",
            "judge beside a baseline that looks at the position alone",
            _where(_ends_wrong),
        ),
        Check(
            "encoding",
            "warning",
            "{count} of {total} solutions hold control characters, replacement characters or wrongly decoded text",
            "The text went through the wrong encoding once (Ã© for é): tokens the base model hardly knows.",
            "read the source again as UTF-8, or drop these rows",
            _where(lambda record: is_garbled([message["content"] for message in record.prompt] + record.steps)),
        ),
    )
}
