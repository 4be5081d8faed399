"""Formats of pairs: a prompt, and two answers of which one is better."""

from __future__ import annotations

from functools import partial
from typing import Any

from .cells import RowError, are_messages, short, structure, turns, wrong_type
from .conversations import (
    Message,
    answer_of,
    is_answer,
    is_transcript,
    messages_of,
    prompt_and_answers,
    prompt_of,
    said,
    split_shared,
    split_text,
    starts_with,
    transcript_of,
    with_system,
)
from .entries import BAD, GOOD, MARGINS, PAIR, USER, Format, Row, are_lists, are_texts, entry, margin_and_weight
from .records import Comparison, Ranking
from .winners import SCORES, Winner

PAIRS: dict[str, Format] = {}
_pairs = partial(entry, PAIRS, optional=("system", *MARGINS))
PROMPT_NAMES = "question|query|problem|context|messages|conversation|dialogue|history"
_HUMAN = "\n\nHuman: 2+2?\n\nAssistant:"


def comparison(row: Row, prompt: list[Message], chosen: Any, rejected: Any) -> Comparison | Ranking:
    """chosen and rejected: text or messages, or lists of these, of which each makes a pair with each of the other side."""
    sides = [_answers(chosen, "chosen", prompt), _answers(rejected, "rejected", prompt)]
    margin, weight = margin_and_weight(row)
    if [len(side) for side in sides] == [1, 1]:
        return Comparison(prompt, sides[0][0], sides[1][0], margin=margin, weight=weight)
    scores = [1.0] * len(sides[0]) + [0.0] * len(sides[1])
    return Ranking(prompt, sides[0] + sides[1], scores, margin=margin, weight=weight)


def are_answers(value: Any) -> bool:
    """Whether a value is a list of answers and not one: texts, lists of messages, or objects that hold an answer."""
    return isinstance(value, list) and bool(value) and all(isinstance(i, (str, list)) or is_answer(i) for i in value)


def _answers(value: Any, column: str, prompt: list[Message]) -> list[list[Message]]:
    if value == []:
        raise RowError(f"`{column}` is an empty list")
    if not are_answers(value):
        return [answer_of(value, column)]
    found = [answer_of(item, column) for item in value]
    return [answer[len(prompt) :] if starts_with(answer, prompt) else answer for answer in found]


def columns(
    table: dict[str, Format],
    name: str,
    description: str,
    names: tuple[str, str, str],
    *,
    winner: Winner | None = None,
    labels: tuple[str, ...] = (),
    example: Row | None = None,
    optional: tuple[str, ...] = ("system",),
    **more: Any,
) -> None:
    """An entry for rows whose texts need no taking apart: the names are those of the prompt and the two answers.

    Without a winner the first answer is the better one. labels: the columns of the winner, where several names are theirs.
    example: of columns that hold something else than a short text.
    """
    needs = names + (labels or (winner.columns if winner else ()))
    names = tuple(name.partition("|")[0] for name in names)
    shown = ("5", "4") if winner else ("4", "5")
    example = dict(zip(names, ("2+2?", *shown), strict=True)) | (example or {})

    def convert(row: Row) -> Comparison | Ranking:
        if winner:
            return Ranking(*prompt_and_answers(row, *names), scores_of(row))
        return comparison(row, prompt_of(row, names[0]), row[names[1]], row[names[2]])

    convert.__name__ = name
    entry(table, description, needs, example, optional=optional, winner=winner, **more)(convert)


_TEXT_AND_MARGINS = ("system", *MARGINS)


@_pairs(
    "Human:/Assistant: dialogues (Anthropic HH), whole on both sides or with the prompt in its own column",
    PAIR,
    {"chosen": f"{_HUMAN} 4", "rejected": f"{_HUMAN} 5"},
    lambda row: is_transcript(row.get("prompt", row["chosen"])),
    optional=("prompt", *MARGINS),
)
def transcript(row: Row) -> Comparison | Ranking:
    if "prompt" not in row:
        return comparison(row, *split_shared(*(transcript_of(row[name], name) for name in PAIR)))
    prompt = transcript_of(row["prompt"], "prompt")
    if prompt[-1] == {"role": "assistant", "content": ""}:  # the prompt ends with "Assistant:", where the answer goes
        prompt = prompt[:-1]
    if not all(is_transcript(row[name]) for name in PAIR):
        stripped = [row[name].strip() if isinstance(row[name], str) else row[name] for name in PAIR]
        return comparison(row, prompt, *stripped)
    answers = [transcript_of(row[name], name) for name in PAIR]
    if not all(starts_with(answer, prompt) for answer in answers):
        raise RowError("`chosen` and `rejected` are whole transcripts that do not begin with `prompt`")
    return comparison(row, prompt, *(answer[len(prompt) :] for answer in answers))


def _repeats_prompt(prompt: Any, text: Any) -> bool:
    """Whether a text is the prompt, whitespace, and more: "Hello" and "Hello! How are you" are a prompt and an answer."""
    if not isinstance(prompt, str) or not isinstance(text, str) or not prompt.strip() or not text.startswith(prompt):
        return False
    return prompt[-1].isspace() or text[len(prompt) : len(prompt) + 1].isspace()


@_pairs(
    "texts in which both answers repeat the prompt",
    ("prompt", *PAIR),
    {"prompt": "2+2 is", "chosen": "2+2 is 4", "rejected": "2+2 is 5"},
    lambda row: all(_repeats_prompt(row["prompt"], row[name]) for name in PAIR),
)
def concatenated(row: Row) -> Comparison | Ranking:
    for name in PAIR:
        if not _repeats_prompt(row["prompt"], row[name]):
            raise RowError(f"`{name}` does not begin with the text of `prompt`")
    answers = [row[name][len(row["prompt"]) :].lstrip() for name in PAIR]
    return comparison(row, prompt_of(row | {"prompt": row["prompt"].rstrip()}), *answers)


def _is_whole(conversation: list[Message]) -> bool:
    """Whether messages given as an answer are a whole conversation: they begin with the system or the user."""
    return bool(conversation) and conversation[0]["role"] in ("system", "user")


@_pairs(
    "a prompt and two answers, each as text, as messages or as a list of answers (RewardBench 2, RM-Bench: all pairs); "
    "answers that repeat the prompt as messages are cut",
    ("prompt", *PAIR),
    {"prompt": USER, "chosen": GOOD, "rejected": BAD},
)
def explicit(row: Row) -> Comparison | Ranking:
    if any(map(are_answers, map(row.get, PAIR))) and turns(row["prompt"]) is None:
        return comparison(row, prompt_of(row), row["chosen"], row["rejected"])
    prompt, (chosen, rejected) = prompt_and_answers(row, "prompt", *PAIR)
    if not (_is_whole(chosen) and _is_whole(rejected)):
        return comparison(row, prompt, chosen, rejected)
    # Answers that are whole conversations, as in UltraFeedback: the prompt they repeat is cut off.
    if starts_with(chosen, prompt) and starts_with(rejected, prompt):
        return comparison(row, prompt, chosen[len(prompt) :], rejected[len(prompt) :])
    if not isinstance(row["prompt"], str):
        return comparison(row, prompt, chosen, rejected)
    asked = row["prompt"].strip()
    for name, conversation in (("chosen", chosen), ("rejected", rejected)):
        if not any(message["content"].strip() == asked for message in conversation[:-1]):
            raise RowError(f"`{name}` is a whole conversation in which `prompt` does not occur")
    shared, chosen, rejected = split_shared(chosen, rejected)
    return comparison(row, with_system(shared, row.get("system")), chosen, rejected)


def _speaks_from_value(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "from" in value[0]


@_pairs(
    "from/value messages; the prompt in `conversations` (LLaMA-Factory), or shared by both sides",
    PAIR,
    {
        "conversations": [{"from": "human", "value": "2+2?"}],
        "chosen": {"from": "gpt", "value": "4"},
        "rejected": {"from": "gpt", "value": "5"},
    },
    lambda row: "conversations" in row or all(_speaks_from_value(row[name]) for name in PAIR),
    optional=("conversations", "system", *MARGINS),
)
def sharegpt(row: Row) -> Comparison | Ranking:
    if "conversations" not in row:
        return implicit(row)
    prompt = with_system(messages_of(row["conversations"], "conversations"), row.get("system"))
    return comparison(row, prompt, row["chosen"], row["rejected"])


@_pairs(
    "an instruction with an optional input below it, and two answers",
    ("instruction", *PAIR),
    {"instruction": "Add.", "input": "2+2", "chosen": "4", "rejected": "5"},
    optional=("input", "history", "system", *MARGINS),
)
def alpaca(row: Row) -> Comparison | Ranking:
    prompt = prompt_of(row | {"prompt": after_history(row, instructed(row))})
    return comparison(row, prompt, row["chosen"], row["rejected"])


def instructed(row: Row) -> str:
    """An instruction, and its input below it."""
    parts = [row["instruction"], row.get("input") or ""]
    if not all(isinstance(part, str) for part in parts):
        raise RowError("`instruction` and `input` must be text")
    return "\n".join(part for part in parts if part)


def after_history(row: Row, asked: Any) -> list[Message]:
    """The question after the earlier turns in `history`, a list of [question, answer]."""
    history = structure(row.get("history") or [])
    if not isinstance(history, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in history):
        raise wrong_type("history", history, "a list of [question, answer]")
    texts = [*(text for turn in history for text in turn), asked]
    if not all(isinstance(text, str) for text in texts):
        raise wrong_type("history", history, "texts")
    return [said("assistant" if place % 2 else "user", text) for place, text in enumerate(texts)]


columns(
    PAIRS,
    "axolotl",
    "an input, an optional system text, and two answers (axolotl bradley_terry.chat_template)",
    ("input", *PAIR),
    example={"system": "Be brief."},
    optional=_TEXT_AND_MARGINS,
)


@_pairs(
    "a question, query, context or the messages so far, an optional system text, and two answers (Intel Orca pairs)",
    (PROMPT_NAMES, *PAIR),
    {"system": "Be brief.", "question": "2+2?", "chosen": "4", "rejected": "5"},
    lambda row: isinstance(row["question"], str) or are_messages(row["question"]),
)
def question(row: Row) -> Comparison | Ranking:
    return explicit(row | {"prompt": row["question"]})


@_pairs(
    "two whole conversations as messages; what they share from the start is the prompt",
    PAIR,
    {"chosen": USER + GOOD, "rejected": USER + BAD},
    are_lists(*PAIR),
)
def implicit(row: Row) -> Comparison | Ranking:
    prompt, chosen, rejected = split_shared(*(messages_of(row[name], name) for name in PAIR))
    return comparison(row, with_system(prompt, row.get("system")), chosen, rejected)


@_pairs(
    "two texts that begin alike; the prompt is what they share, up to its last line break or space",
    PAIR,
    {"chosen": "2+2 is 4", "rejected": "2+2 is 5"},
    are_texts(*PAIR),
    optional=MARGINS,
)
def text(row: Row) -> Comparison | Ranking:
    for name in PAIR:
        if not isinstance(row[name], str):
            raise wrong_type(name, row[name], "text")
        if is_transcript(row[name]):
            raise RowError(f"`{name}` is a transcript of `Human:` and `Assistant:` turns among rows that are not")
    prompt, chosen, rejected = split_text(row["chosen"], row["rejected"])
    return comparison(row, prompt_of({"prompt": prompt}), chosen, rejected)


def scores_of(row: Row) -> list[float] | None:
    """Scores of answers a and b by the winner, which is a, b or tie by now (`winners.meaning`)."""
    winner = row.get("winner")
    if winner is not None and winner not in SCORES:
        raise RowError(
            f"`winner` is {short(winner)}: expected model_a, model_b, a, b or tie, or what --winner_values says"
        )
    return None if winner is None else list(SCORES[winner])


columns(
    PAIRS,
    "pairwise",
    "a prompt, answers a and b, and which of them won; ties are set aside",
    (f"prompt|instruction|input|{PROMPT_NAMES}", "response_a", "response_b"),
    winner=Winner(),
    labels=("winner|preference|preferred|choice|better|chosen",),
    example={"winner": "model_b"},
)


@_pairs(
    "conversations a and b, and which of them won (Chatbot Arena); ties are set aside",
    ("conversation_a", "conversation_b", "winner"),
    {"conversation_a": USER + GOOD, "conversation_b": USER + BAD, "winner": "model_a"},
    optional=(),
    winner=Winner(),
)
def arena(row: Row) -> Ranking:
    conversations = [messages_of(row[name], name) for name in ("conversation_a", "conversation_b")]
    prompt, *answers = split_shared(*conversations)
    return Ranking(prompt, answers, scores_of(row))
