"""Formats of step data as data sets publish it: PRM800K, Math-Shepherd and its relatives, ProcessBench, PRMBench, Mr-Ben."""

from __future__ import annotations

import re
from functools import partial
from itertools import pairwise
from typing import Any

from .cells import RowError, decoded, short, wrong_type
from .conversations import messages_of, prompt_of, said, with_system
from .entries import Format, Row, SetAsideError, are_lists, are_texts, entry, one_each
from .formats_steps import rated, steps_of
from .records import Solution

PUBLISHED_STEPS: dict[str, Format] = {}
published = partial(entry, PUBLISHED_STEPS)

STEP_TAG = "ки"
"""What stands at the end of a step in Math-Shepherd, where the label's text has + or -."""
_FIRST_STEP = re.compile(r"(?:#+ *|\*\*)?\bstep *1\b *[:.)]", re.IGNORECASE)
MARKS = {"+": 1.0, "-": 0.0}


@published(
    "rows of PRM800K as published: the solution that its labeler followed, then each rated alternative of a step after the "
    "steps before it, which have no label there; what a rating of 0 means is said with --neutral",
    ("question", "label"),
    {
        "question": {"problem": "2+2+2?"},
        "label": {"steps": [{"completions": [{"text": "2+2=4", "rating": 1}], "chosen_completion": 0}]},
    },
    lambda row: isinstance(row["question"], dict) and isinstance(row["label"], dict) and "steps" in row["label"],
    optional=("is_quality_control_question", "is_initial_screening_question"),
)
def prm800k(row: Row) -> list[Solution]:
    """Every rating is the label of one step of one solution. Raises SetAsideError for rows that checked the labelers."""
    for kind in ("quality_control", "initial_screening"):
        if row.get(f"is_{kind}_question"):
            raise SetAsideError(kind.replace("_", " "))
    steps, labels, others = [], [], []
    try:
        prompt = prompt_of({"prompt": row["question"]["problem"]})
        for place, step in enumerate(row["label"]["steps"], 1):
            followed = _followed(step, place)
            if followed is None:
                break
            text, rating, last, index = followed
            for other in (one for at, one in enumerate(step["completions"] or []) if at != index):
                label = rated(other["rating"], place, row.get("neutral"))
                if label is not None:
                    others.append(([*steps, other["text"]], [None] * len(steps) + [label]))
            steps.append(text)
            labels.append(rated(rating, place, row.get("neutral")))
            if last:
                break
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise RowError(f"the row is not as in PRM800K: {type(error).__name__} at {error}") from None
    whole = [(steps, labels), *others]
    return [Solution(prompt, steps_of(texts, "label.steps"), given) for texts, given in whole]


def _followed(step: Row, place: int) -> tuple[Any, Any, bool, int | None] | None:
    """(text, rating, whether the solution ends with it, its place) of the completion that the labeler followed: the chosen
    one, or the one written by hand, which is right. Where there is neither, the solution ends with the one rated worst.
    """
    given, chosen, by_hand = step["completions"] or [], step.get("chosen_completion"), step.get("human_completion")
    if chosen is None and by_hand:
        return by_hand["text"] if isinstance(by_hand, dict) else by_hand, 1, False, None
    if chosen is None and not given:
        return None
    if chosen is not None and (type(chosen) is not int or not 0 <= chosen < len(given)):
        raise RowError(
            f"`chosen_completion` of step {place} is {short(chosen)}: expected the place of one of "
            f"{len(given)} completions, counted from 0, or null"
        )
    last = chosen is None
    if last:
        chosen = min(range(len(given)), key=lambda at: 2 if given[at]["rating"] is None else given[at]["rating"])
    return given[chosen]["text"], given[chosen]["rating"], last, chosen


def _solution(texts: list[str], column: str, labels: list[float], system: str | None = None) -> Solution:
    """A solution whose first text still holds the problem, before "Step 1:", or on lines or in a question of its own."""
    text = texts[0].strip() if texts else ""
    first = _FIRST_STEP.search(text)
    ends = [text.rfind("\n\n"), text.rfind("\n"), text.rfind("? ") + 1]
    cut = first.start() if first else next((end for end in ends if end > 0), 0)
    problem, step = text[:cut].strip(), text[cut:].strip()
    if not problem and not (first and system):
        raise RowError(
            f"`{column}` has no problem before 'Step 1:'"
            if first
            else f"the first text of `{column}` is one line without 'Step 1:' or a question: where the problem ends cannot be told"
        )
    asked = [said("user", problem)] if problem else []
    steps = [step, *(text.strip() for text in texts[1:])]
    return Solution(with_system(asked, system), steps_of(steps, column), labels)


def _is_list(value: Any) -> bool:
    """A list, or that list written as text."""
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("["))


@published(
    "a problem and steps in one text, a tag after each, and a list with +, -, true, false or a probability for each step "
    "(OpenRLHF, ER-PRM)",
    ("input|text", "value|labels|label"),
    {"input": "2+2+2? Step 1: 2+2=4 ки\nStep 2: 4+2=7 ки", "value": ["+", "-"]},
    lambda row: are_texts("input")(row) and STEP_TAG in row["input"] and _is_list(row["value"]),
    optional=(),
)
def tagged_steps(row: Row) -> Solution:
    if not isinstance(row["input"], str):
        raise wrong_type("input", row["input"], "text")
    *steps, rest = row["input"].split(STEP_TAG)
    if rest.strip():
        raise RowError(f"`input` does not end with the step tag {STEP_TAG}")
    value = one_each(
        decoded(row["value"], "labels"), "value", "a list with an entry for each step", len(steps), "steps"
    )
    labels = [_mark(label, place) for place, label in enumerate(value, 1)]
    return _solution(steps, "input", labels)


def _mark(label: Any, place: int) -> float:
    found = MARKS.get(label, label) if isinstance(label, str) else label
    if not isinstance(found, (bool, int, float)) or not 0 <= found <= 1:
        raise RowError(f"the value of step {place} is {short(label)}: expected +, -, true, false or a probability")
    return float(found)


def _is_marked(value: Any) -> bool:
    """Whether every second turn is + or -, nothing else."""
    try:
        turns = messages_of(value, "")
    except RowError:
        return False
    turns = turns[1:] if turns and turns[0]["role"] == "system" else turns
    return len(turns) > 1 and all(turn["content"].strip() in MARKS for turn in turns[1::2])


@published(
    "a conversation in which the user says step after step, the first after the problem, and + or - answers each (RLHFlow)",
    ("conversations|messages",),
    {
        "conversations": [
            {"role": "user", "content": "2+2+2? Step 1: 2+2=4"},
            {"role": "assistant", "content": "+"},
            {"role": "user", "content": "Step 2: 4+2=7"},
            {"role": "assistant", "content": "-"},
        ]
    },
    lambda row: _is_marked(row["conversations"]),
    optional=(),
)
def marked_turns(row: Row) -> Solution:
    turns = messages_of(row["conversations"], "conversations")
    system = turns.pop(0)["content"] if turns and turns[0]["role"] == "system" else None
    for place, turn in enumerate(turns):
        wanted = ("user", "assistant")[place % 2]
        if turn["role"] != wanted or (place % 2 and turn["content"].strip() not in MARKS):
            raise RowError(f"turn {place + 1} of `conversations` is not " + ("+ or -" if place % 2 else "a step"))
    if len(turns) % 2:
        raise RowError("the last step of `conversations` has no + or -")
    labels = [MARKS[turn["content"].strip()] for turn in turns[1::2]]
    return _solution([turn["content"] for turn in turns[::2]], "conversations", labels, system)


@published(
    "Math-Shepherd: a problem and steps in one text, a tag after each, and that text with + or - for each tag",
    ("input", "label"),
    {"input": "2+2+2? Step 1: 2+2=4 ки\nStep 2: 4+2=7 ки", "label": "2+2+2? Step 1: 2+2=4 +\nStep 2: 4+2=7 -"},
    lambda row: are_texts("input", "label")(row) and STEP_TAG in row["input"],
    optional=(),
)
def math_shepherd(row: Row) -> Solution:
    """The steps between the tags; the label is the same text with + or - in the place of each tag."""
    for name in ("input", "label"):
        if not isinstance(row[name], str):
            raise wrong_type(name, row[name], "text")
    parts, end, steps, labels = row["input"].split(STEP_TAG), 0, [], []
    if parts[-1].strip():
        raise RowError(f"`input` does not end with the step tag {STEP_TAG}")
    for place, part in enumerate(parts[:-1], 1):
        end += len(part)
        mark = row["label"][end : end + 1]
        if row["label"][end - len(part) : end] != part or mark not in ("+", "-"):
            raise RowError(f"`label` does not repeat step {place} of `input` with + or - after it")
        end += 1
        steps.append(part.strip())
        labels.append(float(mark == "+"))
    return _solution(steps, "input", labels)


@published(
    "a problem, steps, and the place of the first error, counted from 0, or -1 (ProcessBench)",
    ("problem|prompt", "steps", "label"),
    {"problem": "2+2+2?", "steps": ["2+2=4", "4+2=7"], "label": 1},
    are_lists("steps"),
)
def processbench(row: Row) -> Solution:
    """What follows an error has no label."""
    steps, error = steps_of(row["steps"], "steps"), row["label"]
    if isinstance(error, str) and re.fullmatch(r"\s*-?\d{1,9}\s*", error):  # as CSV holds it
        error = int(error)
    if isinstance(error, bool) or not isinstance(error, int) or not -1 <= error < len(steps):
        raise RowError(
            f"`label` is {short(error)}: expected the place of the first error among {len(steps)} steps, or -1"
        )
    labels = [1.0] * len(steps) if error < 0 else [1.0] * error + [0.0]
    return Solution(prompt_of(row, "problem"), steps, labels + [None] * (len(steps) - len(labels)))


@published(
    "a question, the steps of a solution into which errors were put, and the places of these steps, counted from 1 (PRMBench)",
    ("modified_question|question", "modified_process", "error_steps"),
    {"modified_question": "2+2+2?", "modified_process": ["2+2=4", "4+2=7"], "error_steps": [2]},
    lambda row: _is_list(row["modified_process"]) and _is_list(row["error_steps"]),
    optional=("question",),
)
def prmbench(row: Row) -> Solution:
    """Places after the last step, which a hundred published rows have, are ignored, as the benchmark does."""
    steps, wrong = steps_of(decoded(row["modified_process"], "steps"), "modified_process"), row["error_steps"]
    wrong = decoded(wrong, "labels")
    if not isinstance(wrong, list) or not all(type(place) is int and place > 0 for place in wrong):
        raise wrong_type("error_steps", wrong, "a list of places, counted from 1")
    labels = [float(place not in wrong) for place in range(1, len(steps) + 1)]
    return Solution(prompt_of(row, "modified_question"), steps, labels)


@published(
    "a question with options, a model's steps and the number of the first wrong one, or N/A (Mr-Ben)",
    ("Question", "Model_Solution_Steps", "Model_Solution_First_Error_Step", "Model_Solution_Correctness"),
    {
        "Question": "2+2+2?",
        "Options": "A: 6\nB: 7",
        "Model_Solution_Steps": ["Step 1: 2+2=4", "Step 2: 4+2=7"],
        "Model_Solution_Correctness": "incorrect",
        "Model_Solution_First_Error_Step": "2",
    },
    lambda row: _is_list(row["Model_Solution_Steps"]),
    optional=("Options",),
)
def mr_ben(row: Row) -> Solution:
    """Lines without a number belong to the step before them, or to the first; empty ones are left out."""
    given = decoded(row["Model_Solution_Steps"], "steps")
    if not isinstance(given, list):
        raise wrong_type("Model_Solution_Steps", given, "a list of steps in text")
    places = [place for place, line in enumerate(given, 1) if not isinstance(line, str) or line.strip()]
    steps = steps_of([given[place - 1] for place in places], "Model_Solution_Steps")
    numbered = [re.match(r"\s*S?tep\s*(\d+)\s*[:.]", line) for line in steps]
    if any(numbered):
        starts = [at for at, found in enumerate(numbered) if found]
        places = [int(numbered[at][1]) for at in starts]
        steps = ["\n".join(steps[at:end]) for at, end in pairwise([0, *starts[1:], None])]
        if places != list(range(1, len(steps) + 1)):
            raise RowError("the steps are not numbered 1, 2, 3, ...: the number of the first error cannot be placed")
    prompt = prompt_of(row, "Question")
    if isinstance(row.get("Options"), str) and row["Options"].strip():
        prompt = prompt_of({"prompt": f"{row['Question']}\n\n{row['Options'].strip()}"})
    return Solution(prompt, steps, _until_error(row, places))


def _until_error(row: Row, places: list[int]) -> list[float | None]:
    """places: the number of each step."""
    verdict = str(row["Model_Solution_Correctness"]).strip().lower()
    error = str(row["Model_Solution_First_Error_Step"]).strip()
    if verdict not in ("correct", "incorrect"):
        raise RowError(f"`Model_Solution_Correctness` is {short(verdict)}, not correct or incorrect")
    if verdict == "correct":
        if error not in ("N/A", "NA", ""):
            raise RowError(f"a correct solution has a first error step ({short(error)})")
        return [1.0] * len(places)
    if not re.fullmatch(r"[1-9]\d{0,5}", error) or int(error) not in places:
        raise RowError(
            f"`Model_Solution_First_Error_Step` is {short(error)}: expected the number of one of {len(places)} steps"
        )
    right = places.index(int(error))
    return [1.0] * right + [0.0] + [None] * (len(places) - right - 1)
