"""The table of data formats: one frozen entry each, from a row to a record. A new format is a new entry in FORMATS.

A format names the columns it needs and may use (`a|b`: either name), tells its rows from rows with the same columns
(`matches`), and turns a row into a record (`convert`, which raises RowError). Both get the row's non-null columns under
the first of their names. `tools` and `id` are read alike for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import adapters
from . import conversations as talk
from .adapters import PAIR, Row
from .records import Comparison, Ranking, Solution

Record = Comparison | Ranking | Solution

COMMON = ("id", "tools")
MARGINS = ("margin", "weight", "score_chosen|chosen_score", "score_rejected|rejected_score")

# Columns that could be part of what the model reads. Left unused, they are an error: TRL's RewardTrainer drops them in
# silence and trains on half of the input.
# fmt: off
INPUT_LIKE = frozenset((
    "prompt", "prompts", "system", "system_prompt", "preamble", "persona", "instruction", "instructions", "input",
    "inputs", "question", "questions", "query", "context", "contexts", "history", "conversation", "conversations",
    "messages", "dialogue", "dialog", "document", "documents", "passage", "passages", "background", "article", "post",
    "image", "images", "functions", "tools",
))
# fmt: on


@dataclass(frozen=True)
class Format:
    """One way of writing rows down."""

    name: str
    description: str
    needs: tuple[str, ...]
    optional: tuple[str, ...]
    example: Row
    matches: Callable[[Row], bool]
    convert: Callable[[Row], Record]
    labelled: bool = True
    """Whether the rows say which completion is better: without labels they can be scored, not trained on."""
    stepwise: bool = False
    """Whether a record is a solution in steps, for process reward models."""
    rated: bool = False
    """Whether `convert` reads `neutral`, what a step rated 0 is taken for."""
    answered: bool = True
    """Whether the rows hold completions: those that hold none are prompts, for a policy to answer."""
    winner: bool = False
    """Whether a record is a ranking of two answers, in the order of the file, to be read as a comparison."""

    @property
    def columns(self) -> tuple[str, ...]:
        return self.needs + self.optional + COMMON

    def pick(self, row: Row) -> tuple[Row, dict[str, str]]:
        """The row's non-null columns under the format's names, and {name: column of the row} for those it has."""
        used = {}
        for names in self.columns:
            alternatives = names.split("|")
            present = [name for name in alternatives if name in row]
            if present:
                used[alternatives[0]] = next((name for name in present if row[name] is not None), present[0])
        return {name: row[column] for name, column in used.items() if row[column] is not None}, used


def _are_lists(*names: str) -> Callable[[Row], bool]:
    return lambda row: all(isinstance(row.get(name, []), list) for name in names)


def _are_texts(*names: str) -> Callable[[Row], bool]:
    return lambda row: all(isinstance(row[name], str) for name in names)


def _always(row: Row) -> bool:
    return True


def _is_concatenated(row: Row) -> bool:
    return all(adapters.repeats_prompt(row["prompt"], row[name]) for name in PAIR)


def _is_transcript(row: Row) -> bool:
    return talk.is_transcript(row.get("prompt", row["chosen"]))


def _is_sharegpt(row: Row) -> bool:
    return "conversations" in row or all(_speaks_from_value(row[name]) for name in PAIR)


def _speaks_from_value(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "from" in value[0]


def _is_prm800k(row: Row) -> bool:
    return isinstance(row["question"], dict) and isinstance(row["label"], dict) and "steps" in row["label"]


def _is_math_shepherd(row: Row) -> bool:
    return _are_texts("input", "label")(row) and adapters.STEP_TAG in row["input"]


def _is_open(row: Row) -> bool:
    try:
        return talk.messages(row["messages"], "messages")[-1]["role"] != "assistant"
    except (talk.RowError, IndexError):
        return False


_USER = [{"role": "user", "content": "2+2?"}]
_GOOD, _BAD = ([{"role": "assistant", "content": "4"}], [{"role": "assistant", "content": "5"}])
_HUMAN = "\n\nHuman: 2+2?\n\nAssistant:"

# In order: of two formats that fit a file equally well the earlier one is taken.
FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        Format(
            "transcript",
            "Human:/Assistant: dialogues (Anthropic HH), whole on both sides or with the prompt in its own column",
            PAIR,
            ("prompt", *MARGINS),
            {"chosen": f"{_HUMAN} 4", "rejected": f"{_HUMAN} 5"},
            _is_transcript,
            adapters.transcript,
        ),
        Format(
            "concatenated",
            "texts in which both answers repeat the prompt",
            ("prompt", *PAIR),
            ("system", *MARGINS),
            {"prompt": "2+2 is", "chosen": "2+2 is 4", "rejected": "2+2 is 5"},
            _is_concatenated,
            adapters.concatenated,
        ),
        Format(
            "explicit",
            "a prompt and two answers, each as text or as messages; answers that repeat the prompt as messages are cut",
            ("prompt", *PAIR),
            ("system", *MARGINS),
            {"prompt": _USER, "chosen": _GOOD, "rejected": _BAD},
            _always,
            adapters.explicit,
        ),
        Format(
            "sharegpt",
            "from/value messages; the prompt in `conversations` (LLaMA-Factory), or shared by both sides",
            PAIR,
            ("conversations", "system", *MARGINS),
            {
                "conversations": [{"from": "human", "value": "2+2?"}],
                "chosen": {"from": "gpt", "value": "4"},
                "rejected": {"from": "gpt", "value": "5"},
            },
            _is_sharegpt,
            adapters.sharegpt,
        ),
        Format(
            "alpaca",
            "an instruction with an optional input below it, and two answers",
            ("instruction", *PAIR),
            ("input", "system", *MARGINS),
            {"instruction": "Add.", "input": "2+2", "chosen": "4", "rejected": "5"},
            _always,
            adapters.alpaca,
        ),
        Format(
            "axolotl",
            "an input, an optional system text, and two answers (axolotl bradley_terry.chat_template)",
            ("input", *PAIR),
            ("system", *MARGINS),
            {"system": "Be brief.", "input": "2+2?", "chosen": "4", "rejected": "5"},
            _always,
            adapters.asked_in("input"),
        ),
        Format(
            "question",
            "a question, an optional system text, and two answers (Intel Orca pairs)",
            ("question", *PAIR),
            ("system", *MARGINS),
            {"system": "Be brief.", "question": "2+2?", "chosen": "4", "rejected": "5"},
            _always,
            adapters.asked_in("question"),
        ),
        Format(
            "implicit",
            "two whole conversations as messages; what they share from the start is the prompt",
            PAIR,
            ("system", *MARGINS),
            {"chosen": _USER + _GOOD, "rejected": _USER + _BAD},
            _are_lists(*PAIR),
            adapters.implicit,
        ),
        Format(
            "text",
            "two texts that begin alike; the prompt is what they share, up to its last line break or blank",
            PAIR,
            MARGINS,
            {"chosen": "2+2 is 4", "rejected": "2+2 is 5"},
            _are_texts(*PAIR),
            adapters.text,
        ),
        Format(
            "pairwise",
            "a prompt, answers a and b, and which of them won; ties are set aside",
            ("prompt", "response_a", "response_b", "winner"),
            ("system",),
            {"prompt": "2+2?", "response_a": "5", "response_b": "4", "winner": "model_b"},
            _always,
            adapters.pairwise,
            winner=True,
        ),
        Format(
            "arena",
            "conversations a and b, and which of them won (Chatbot Arena); ties are set aside",
            ("conversation_a", "conversation_b", "winner"),
            (),
            {"conversation_a": _USER + _GOOD, "conversation_b": _USER + _BAD, "winner": "model_a"},
            _always,
            adapters.arena,
            winner=True,
        ),
        Format(
            "ranking",
            "a prompt and any number of completions with scores, higher is better, or with true and false in `correct`",
            ("prompt", "completions|responses", "scores|correct"),
            ("system",),
            {"prompt": "2+2?", "completions": ["4", "5", "four"], "scores": [1.0, 0.0, 1.0]},
            _are_lists("completions", "scores"),
            adapters.ranking,
        ),
        Format(
            "ranks",
            "a prompt and any number of completions with ranks, 1 is best",
            ("prompt", "completions|responses", "ranks"),
            ("system",),
            {"prompt": "2+2?", "completions": ["4", "5", "four"], "ranks": [1, 3, 2]},
            _are_lists("completions", "ranks"),
            adapters.ranks,
        ),
        Format(
            "stepwise",
            "a prompt and an answer in steps with one label each, or up to the first error (TRL, axolotl): "
            "true or false, 0 or 1, probabilities, null for not judged",
            ("prompt", "completions", "labels"),
            ("system",),
            {"prompt": "2+2+2?", "completions": ["2+2=4", "4+2=7"], "labels": [True, False]},
            _are_lists("completions", "labels"),
            adapters.stepwise,
            stepwise=True,
        ),
        Format(
            "ratings",
            "a prompt and an answer in steps rated -1, 0 or 1; what 0 means is said with --neutral",
            ("prompt", "completions|steps", "ratings"),
            ("system",),
            {"prompt": "2+2+2?", "completions": ["2+2=4", "4+2=7"], "ratings": [1, -1]},
            _are_lists("completions", "ratings"),
            adapters.ratings,
            stepwise=True,
            rated=True,
        ),
        Format(
            "prm800k",
            "rows of PRM800K as published: the solution its labeller followed; what a rating of 0 means is said with --neutral",
            ("question", "label"),
            (),
            {
                "question": {"problem": "2+2+2?"},
                "label": {
                    "steps": [{"completions": [{"text": "2+2=4", "rating": 1}], "chosen_completion": 0}],
                },
            },
            _is_prm800k,
            adapters.prm800k,
            stepwise=True,
            rated=True,
        ),
        Format(
            "math_shepherd",
            "Math-Shepherd: a problem and steps in one text, a tag behind each, and that text with + or - for each tag",
            ("input", "label"),
            (),
            {"input": "2+2+2? Step 1: 2+2=4 ки\nStep 2: 4+2=7 ки", "label": "2+2+2? Step 1: 2+2=4 +\nStep 2: 4+2=7 -"},
            _is_math_shepherd,
            adapters.math_shepherd,
            stepwise=True,
        ),
        Format(
            "processbench",
            "a problem, steps, and the place of the first error, counted from 0, or -1 (ProcessBench)",
            ("problem|prompt", "steps", "label"),
            ("system",),
            {"problem": "2+2+2?", "steps": ["2+2=4", "4+2=7"], "label": 1},
            _are_lists("steps"),
            adapters.processbench,
            stepwise=True,
        ),
        Format(
            "completions",
            "a prompt and any number of completions, to be scored",
            ("prompt", "completions|responses"),
            ("system",),
            {"prompt": "2+2?", "completions": ["4", "5"]},
            _are_lists("completions"),
            adapters.completions,
            labelled=False,
        ),
        Format(
            "pair",
            "a prompt and answers a and b, to be scored",
            ("prompt", "response_a", "response_b"),
            ("system",),
            {"prompt": "2+2?", "response_a": "5", "response_b": "4"},
            _always,
            adapters.pairwise,
            labelled=False,
        ),
        Format(
            "steps",
            "a prompt and an answer in steps, each of which is to be scored",
            ("prompt|problem", "steps"),
            ("system",),
            {"prompt": "2+2+2?", "steps": ["2+2=4", "4+2=6"]},
            _are_lists("steps"),
            adapters.steps,
            labelled=False,
            stepwise=True,
        ),
        Format(
            "completion",
            "a prompt and one completion, to be scored",
            ("prompt", "completion|response"),
            ("system",),
            {"prompt": "2+2?", "completion": "4"},
            _always,
            adapters.completion,
            labelled=False,
        ),
        Format(
            "conversation",
            "a whole conversation whose last message, the assistant's, is to be scored",
            ("messages|conversations",),
            (),
            {"messages": _USER + _GOOD},
            _always,
            adapters.conversation,
            labelled=False,
        ),
        Format(
            "prompt",
            "a prompt alone, to be answered by a policy",
            ("prompt|question|query",),
            ("system",),
            {"prompt": "2+2?"},
            _always,
            adapters.prompt,
            labelled=False,
            answered=False,
        ),
        Format(
            "open_conversation",
            "a conversation whose last message is the user's, to be answered by a policy",
            ("messages|conversations",),
            (),
            {"messages": _USER},
            _is_open,
            adapters.open_conversation,
            labelled=False,
            answered=False,
        ),
    )
}
