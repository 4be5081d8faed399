"""One row -> one record: text and messages of any dialect, and the converters that the entries of FORMATS name.

First what reads a conversation: the roles become system, user, assistant, tool. Then the converters. Each gets the row's
non-null columns under the names of its format and raises RowError for what it cannot read. It fills prompt, answers, labels,
margin and weight; `formats.convert` adds id, tools, metadata and origin.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from typing import Any

from ..console import finite
from .cells import RowError, clean, loads, turns
from .records import Comparison, Ranking, Solution, in_steps
from .winners import SCORES

# ---- conversations ---------------------------------------------------------------------------------------------------


Message = dict[str, Any]

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
}

_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


def kind_of(value: Any) -> str:
    """The type of a value in words of the data, for messages."""
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def short(value: Any, width: int = 40) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= width else text[: width - 3] + "..."


def messages_of(value: Any, column: str) -> list[Message]:
    """A list of {role, content} or {from, value} objects -> messages with known roles and text contents."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise RowError(f"`{column}` is {kind_of(value)} ({short(value)}), not a list of messages")
    return [_message(item, column) for item in value]


def _message(item: Any, column: str) -> Message:
    if not isinstance(item, dict):
        raise RowError(
            f"`{column}` holds {kind_of(item)} ({short(item)}) where a message with role and content belongs"
        )
    role_key, content_key = ("from", "value") if "from" in item and "role" not in item else ("role", "content")
    role = item.get(role_key)
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise RowError(
            f"`{column}` holds a message whose {role_key} is {short(role)}: expected one of {', '.join(ROLES)}"
        )
    # Parquet and Arrow fill the fields that only other messages have with null.
    rest = {key: part for key, part in item.items() if key not in (role_key, content_key) and part is not None}
    if not rest.keys().isdisjoint(("tool_calls", "function_call")):
        rest = _with_calls(rest, column)
    content = item.get(content_key)
    if content is None and rest.get("tool_calls"):
        content = ""
    return {"role": ROLES[role.lower()], "content": _text(content, column), **finite(rest)}


def _with_calls(rest: Message, column: str) -> Message:
    """The other fields of a message with its calls as chat templates read them: a list, and arguments as objects.

    OpenAI writes arguments as JSON text, and wrote one call as `function_call` once: as text they would be encoded twice.
    """
    calls = _from_text(rest.get("tool_calls")) or []
    old = _from_text(rest.get("function_call"))
    if old and not calls:
        calls = [{"type": "function", "function": old}]
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise RowError(f"`{column}` holds tool calls that are {kind_of(calls)} ({short(calls)}), not a list of objects")
    read = []
    for call in calls:
        function = call.get("function")
        if isinstance(function, dict) and "arguments" in function:
            call = call | {"function": function | {"arguments": _from_text(function["arguments"])}}
        elif "arguments" in call:
            call = call | {"arguments": _from_text(call["arguments"])}
        read.append(call)
    others = {name: value for name, value in rest.items() if name not in ("tool_calls", "function_call")}
    return others | ({"tool_calls": read} if read else {})


def _from_text(value: Any) -> Any:
    """The object or list that a text holds as JSON; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        found = clean(loads(value))
    except (ValueError, RecursionError):
        return value
    return found if isinstance(found, (dict, list)) else value


def _text(content: Any, column: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RowError(f"`{column}` holds a message whose content is {kind_of(content)} ({short(content)}), not text")
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str) and part.get("type", "text") == "text":
            texts.append(part["text"])
        else:
            named = part.get("type") if isinstance(part, dict) else None
            raise RowError(f"`{column}` holds content of type {named or kind_of(part)}: only text can be read")
    return "".join(texts)


def prompt_of(value: Any, system: Any = None, column: str = "prompt") -> list[Message]:
    """A prompt given as text (one user message) or as messages, after an optional system text."""
    found = [{"role": "user", "content": value}] if isinstance(value, str) else messages_of(value, column)
    return with_system(found, system)


def with_system(conversation: list[Message], system: Any) -> list[Message]:
    """The conversation with a system message in front; null and "" mean that there is none."""
    if system is None or system == "":
        return conversation
    if not isinstance(system, str):
        raise RowError(f"`system` is {kind_of(system)} ({short(system)}), not text")
    if conversation and conversation[0]["role"] == "system":
        if conversation[0]["content"] == system:
            return conversation
        raise RowError("the `system` column differs from the system message that the conversation starts with")
    return [{"role": "system", "content": system}, *conversation]


def answer_of(value: Any, column: str) -> list[Message]:
    """A completion given as text (one assistant message), as one message, or as messages."""
    if isinstance(value, str):
        return [{"role": "assistant", "content": value}]
    if not isinstance(value, (list, dict)):
        raise RowError(
            f"`{column}` is {kind_of(value)}{'' if value is None else f' ({short(value)})'}, not text or messages"
        )
    return messages_of(value, column)


def is_whole(conversation: list[Message]) -> bool:
    """Whether messages given as an answer are a whole conversation: they begin with the system or the user."""
    return bool(conversation) and conversation[0]["role"] in ("system", "user")


def same(first: Message, second: Message) -> bool:
    if first["role"] != second["role"] or first["content"].strip() != second["content"].strip():
        return False
    return len(first) == len(second) == 2 or first == second


def starts_with(conversation: list[Message], beginning: list[Message]) -> bool:
    return len(conversation) > len(beginning) and all(map(same, conversation, beginning))


def split_shared(first: list[Message], second: list[Message]) -> tuple[list[Message], list[Message], list[Message]]:
    """Two whole conversations -> the messages they share from the start (the prompt) and what remains of each.

    At least one message remains on each side. When the sides part before the last answer, what remains holds user
    messages too: the audit compares those.
    """
    if not first or not second:
        raise RowError("a conversation without messages")
    shared = 0
    while shared < min(len(first), len(second)) - 1 and same(first[shared], second[shared]):
        shared += 1
    return first[:shared], first[shared:], second[shared:]


def is_transcript(value: Any) -> bool:
    """Whether a text is a dialogue of "\\n\\nHuman:" and "\\n\\nAssistant:" turns (Anthropic HH, arXiv:2204.05862)."""
    return isinstance(value, str) and value.lstrip().startswith("Human:") and "\n\nAssistant:" in value


def transcript_of(text: Any, column: str) -> list[Message]:
    """A Human/Assistant transcript -> messages; the blanks around each turn are no part of it."""
    if not is_transcript(text):
        found = f"text ({short(text)})" if isinstance(text, str) else kind_of(text)
        raise RowError(f"`{column}` is {found}, not a transcript of `Human:` and `Assistant:` turns")
    pieces = _TURN.split(text)
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[speaker], "content": turn.strip()}
        for speaker, turn in zip(pieces[1::2], pieces[2::2], strict=True)
    ]


def split_text(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Two texts that begin alike -> the shared beginning (the prompt) and the two endings.

    The cut is the last line break inside the shared beginning, or the last blank when there is none, so that answers
    which happen to begin with the same words keep them where the prompt ends with its line.
    """
    shared = os.path.commonprefix([chosen, rejected])
    if len(shared) == min(len(chosen), len(rejected)):
        shared = shared.rstrip()[:-1]
    lines, blanks = shared.rfind("\n"), max(shared.rfind(" "), shared.rfind("\t"))
    cut = lines if shared[: max(lines, 0)].strip() else blanks
    if not shared[: max(cut, 0)].strip():
        raise RowError("`chosen` and `rejected` share no beginning, so no prompt can be told from the answers")
    return chosen[:cut].rstrip(), chosen[cut:].lstrip(), rejected[cut:].lstrip()


# ---- rows ------------------------------------------------------------------------------------------------------------


Row = dict[str, Any]

PAIR = ("chosen", "rejected")
LARGEST = (2 - 2**-23) * 2.0**127
"""In fp32, in which losses are computed: what lies above is infinite there."""


def number(value: Any, column: str) -> float | None:
    """A finite number that fp32 can hold, also written as text as CSV does; null and "" are None."""
    if value is None or value == "":
        return None
    try:
        found = float(value) if isinstance(value, (int, float, str)) else math.nan
    except (ValueError, OverflowError):
        found = math.inf if isinstance(value, int) else math.nan
    if abs(found) > LARGEST:
        raise RowError(f"`{column}` is {short(value)}: larger than a number can be in fp32")
    if math.isnan(found):
        raise RowError(f"`{column}` is {kind_of(value)} ({short(value)}), not a number")
    return found


def numbers(value: Any, column: str, length: int) -> list[float]:
    """One finite number (or true and false as 1 and 0) for each of `length` completions."""
    if not isinstance(value, list):
        raise RowError(f"`{column}` is {kind_of(value)} ({short(value)}), not a list of numbers")
    if len(value) != length:
        raise RowError(f"`{column}` has {len(value)} entries for {length} completions")
    found = [number(item, column) for item in value]
    if None in found:
        raise RowError(f"`{column}` holds null")
    return found


def tools(value: Any) -> list[dict] | None:
    """The tools the model may call, as a list or as that list written in JSON."""
    if isinstance(value, str) and value.strip():
        try:
            value = clean(loads(value))
        except (ValueError, RecursionError):
            raise RowError(f"`tools` is text that is no JSON ({short(value)})") from None
    if value in (None, "", []):
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise RowError(f"`tools` is {kind_of(value)} ({short(value)}), not a list of objects")
    return value


def _comparison(row: Row, prompt: list, chosen: list, rejected: list) -> Comparison:
    margin = number(row.get("margin"), "margin")
    if margin is None:
        scores = [number(row.get(name), name) for name in ("score_chosen", "score_rejected")]
        margin = number(scores[0] - scores[1], "score_chosen - score_rejected") if None not in scores else None
    weight = number(row.get("weight"), "weight")
    if weight is not None and weight <= 0:
        raise RowError(f"`weight` is {weight:g}: a pair counts with a weight above 0")
    return Comparison(prompt, chosen, rejected, margin=margin, weight=1.0 if weight is None else weight)


def _prompt_and_answers(row: Row, *names: str) -> tuple[list[Message], list[list[Message]]]:
    """The prompt and the answers of these columns. Lists of turns on all sides (Chatbot Arena's files) are conversations."""
    asked, answered = turns(row["prompt"]), [turns(row[name]) for name in names]
    if asked is None or None in answered:
        return prompt_of(row["prompt"], row.get("system")), [answer_of(row[name], name) for name in names]
    for name, said in zip(names, answered, strict=True):
        if len(said) != len(asked):
            raise RowError(f"`prompt` has {len(asked)} turns and `{name}` {len(said)}")
    sides = [
        [turn for pair in zip(asked, said, strict=True) for turn in map(_turn, ("user", "assistant"), pair)]
        for said in answered
    ]
    prompt, first, second = split_shared(sides[0], sides[-1])
    return with_system(prompt, row.get("system")), [first, second][: len(names)]


def _turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def explicit(row: Row) -> Comparison:
    prompt, (chosen, rejected) = _prompt_and_answers(row, *PAIR)
    if is_whole(chosen) and is_whole(rejected):
        prompt, chosen, rejected = _without_prompt(row, prompt, chosen, rejected)
    return _comparison(row, prompt, chosen, rejected)


def _without_prompt(row: Row, prompt: list, chosen: list, rejected: list) -> tuple[list, list, list]:
    """Answers that are whole conversations, as in UltraFeedback: the prompt they repeat is cut off."""
    if starts_with(chosen, prompt) and starts_with(rejected, prompt):
        return prompt, chosen[len(prompt) :], rejected[len(prompt) :]
    if not isinstance(row["prompt"], str):
        return prompt, chosen, rejected
    asked = row["prompt"].strip()
    for name, conversation in (("chosen", chosen), ("rejected", rejected)):
        if not any(message["content"].strip() == asked for message in conversation[:-1]):
            raise RowError(f"`{name}` is a whole conversation in which `prompt` does not occur")
    shared, chosen, rejected = split_shared(chosen, rejected)
    return with_system(shared, row.get("system")), chosen, rejected


def concatenated(row: Row) -> Comparison:
    answers = []
    for name in PAIR:
        if not repeats_prompt(row["prompt"], row[name]):
            raise RowError(f"`{name}` does not begin with the text of `prompt`")
        answers.append(answer_of(row[name][len(row["prompt"]) :].lstrip(), name))
    return _comparison(row, prompt_of(row["prompt"].rstrip(), row.get("system")), *answers)


def repeats_prompt(prompt: Any, text: Any) -> bool:
    """Whether a text is the prompt, a blank, and more: "Hello" and "Hello! How are you" are a prompt and an answer."""
    if not isinstance(prompt, str) or not isinstance(text, str) or not prompt.strip() or not text.startswith(prompt):
        return False
    return prompt[-1].isspace() or text[len(prompt) : len(prompt) + 1].isspace()


def asked_in(column: str) -> Callable[[Row], Comparison]:
    """The converter of formats whose user message is the text of one column, after an optional system text."""

    def convert(row: Row) -> Comparison:
        prompt = prompt_of(row[column], row.get("system"), column)
        return _comparison(row, prompt, answer_of(row["chosen"], "chosen"), answer_of(row["rejected"], "rejected"))

    return convert


def alpaca(row: Row) -> Comparison:
    parts = [row["instruction"], row.get("input") or ""]
    if not all(isinstance(part, str) for part in parts):
        raise RowError("`instruction` and `input` must be text")
    return asked_in("instruction")(row | {"instruction": "\n".join(part for part in parts if part)})


def implicit(row: Row) -> Comparison:
    prompt, chosen, rejected = split_shared(*(messages_of(row[name], name) for name in PAIR))
    return _comparison(row, with_system(prompt, row.get("system")), chosen, rejected)


def sharegpt(row: Row) -> Comparison:
    if "conversations" not in row:
        return implicit(row)
    prompt = with_system(messages_of(row["conversations"], "conversations"), row.get("system"))
    return _comparison(row, prompt, answer_of(row["chosen"], "chosen"), answer_of(row["rejected"], "rejected"))


def transcript(row: Row) -> Comparison:
    if "prompt" not in row:
        return _comparison(row, *split_shared(*(transcript_of(row[name], name) for name in PAIR)))
    prompt = transcript_of(row["prompt"], "prompt")
    if prompt[-1] == {"role": "assistant", "content": ""}:  # the prompt ends with "Assistant:", where the answer goes
        prompt = prompt[:-1]
    answers = [transcript_of(row[name], name) if is_transcript(row[name]) else None for name in PAIR]
    if None not in answers:
        if not all(starts_with(answer, prompt) for answer in answers):
            raise RowError("`chosen` and `rejected` are whole transcripts that do not begin with `prompt`")
        return _comparison(row, prompt, *(answer[len(prompt) :] for answer in answers))
    stripped = [row[name].strip() if isinstance(row[name], str) else row[name] for name in PAIR]
    return _comparison(row, prompt, answer_of(stripped[0], "chosen"), answer_of(stripped[1], "rejected"))


def text(row: Row) -> Comparison:
    texts = [row[name] for name in PAIR]
    for name, text in zip(PAIR, texts, strict=True):
        if not isinstance(text, str):
            raise RowError(f"`{name}` is {kind_of(text)} ({short(text)}), not text")
        if is_transcript(text):
            raise RowError(f"`{name}` is a transcript of `Human:` and `Assistant:` turns among rows that are none")
    prompt, chosen, rejected = split_text(*texts)
    return _comparison(row, prompt_of(prompt), answer_of(chosen, "chosen"), answer_of(rejected, "rejected"))


def _winner(row: Row) -> list[float] | None:
    """Scores of answers a and b by the winner, which is a, b or tie by now (`winners.meaning`)."""
    winner = row.get("winner")
    if winner is None:
        return None
    if winner not in SCORES:
        raise RowError(
            f"`winner` is {short(winner)}: expected model_a, model_b, a, b or tie, or what --winner_values says"
        )
    return list(SCORES[winner])


def pairwise(row: Row) -> Ranking:
    return Ranking(*_prompt_and_answers(row, "response_a", "response_b"), _winner(row))


def arena(row: Row) -> Ranking:
    conversations = [messages_of(row[name], name) for name in ("conversation_a", "conversation_b")]
    prompt, first, second = split_shared(*conversations)
    return Ranking(prompt, [first, second], _winner(row))


def completions(row: Row) -> Ranking:
    if not isinstance(row["completions"], list) or not row["completions"]:
        raise RowError(
            f"`completions` is {kind_of(row['completions'])} ({short(row['completions'])}), not a list of completions"
        )
    answers = [
        in_steps(_steps(item, "completions")) if _is_in_steps(item) else answer_of(item, "completions")
        for item in row["completions"]
    ]
    return Ranking(prompt_of(row["prompt"], row.get("system")), answers)


def _is_in_steps(completion: Any) -> bool:
    return isinstance(completion, list) and bool(completion) and all(isinstance(step, str) for step in completion)


def ranking(row: Row) -> Ranking:
    ranking = completions(row)
    scores = numbers(row["scores"], "scores", len(ranking.completions)) if "scores" in row else None
    return Ranking(ranking.prompt, ranking.completions, scores)


def ranks(row: Row) -> Ranking:
    ranking = completions(row)
    ranks = numbers(row["ranks"], "ranks", len(ranking.completions)) if "ranks" in row else None
    return Ranking(ranking.prompt, ranking.completions, ranks and [-rank for rank in ranks])


def completion(row: Row) -> Ranking:
    return Ranking(*_prompt_and_answers(row, "completion"))


def conversation(row: Row) -> Ranking:
    conversation = messages_of(row["messages"], "messages")
    if not conversation or conversation[-1]["role"] != "assistant":
        raise RowError("`messages` does not end with an assistant message: there is nothing to score")
    return Ranking(conversation[:-1], [conversation[-1:]])


# ---- answers in steps ---------------------------------------------------------------------------------------------

STEP_TAG = "ки"
"""What stands at the end of a step in Math-Shepherd, where the label's text has + or -."""
FIRST_STEP = "Step 1:"
NEUTRAL = {"good": 1.0, "bad": 0.0, "ignore": None}
"""What a step rated 0, neither right nor wrong, is taken for."""


def _steps(value: Any, column: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(step, str) for step in value):
        raise RowError(f"`{column}` is {kind_of(value)} ({short(value)}), not a list of steps in text")
    for number, step in enumerate(value, 1):
        if not step.strip():
            raise RowError(f"step {number} of `{column}` is empty")
    return value


def _one_a_step(value: Any, column: str, steps: list[str]) -> list:
    if not isinstance(value, list):
        raise RowError(f"`{column}` is {kind_of(value)} ({short(value)}), not a list with an entry for each step")
    if len(value) != len(steps):
        raise RowError(f"`{column}` has {len(value)} entries for {len(steps)} steps")
    return value


def _step_label(value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, (bool, int, float)) or not 0 <= value <= 1:
        raise RowError(f"`labels` holds {short(value)}: expected true or false, 0 or 1, or probabilities")
    return float(value)


def _step_labels(value: Any, steps: list[str]) -> list[float | None]:
    """One label a step; null where nobody judged it. A list that ends with the first error leaves the rest unjudged."""
    if isinstance(value, list) and len(value) < len(steps) and value and value[-1] == 0 and all(value[:-1]):
        value = value + [None] * (len(steps) - len(value))
    labels = _one_a_step(value, "labels", steps)
    if len({isinstance(label, bool) for label in labels if label is not None}) > 1:
        raise RowError("`labels` mixes true or false with numbers")
    if not any(label is not None for label in labels):
        raise RowError("`labels` holds nothing but null")
    return [_step_label(label) for label in labels]


def stepwise(row: Row) -> Solution:
    steps = _steps(row["completions"], "completions")
    labels = _step_labels(row["labels"], steps) if "labels" in row else None
    return Solution(prompt_of(row["prompt"], row.get("system")), steps, labels)


def steps(row: Row) -> Solution:
    return Solution(prompt_of(row["prompt"], row.get("system")), _steps(row["steps"], "steps"))


class NeutralError(RowError):
    """A step is rated 0 and nobody has said what that means."""


def _rated(rating: Any, number: int, neutral: str | None) -> float | None:
    """The label of a step that was rated -1, 0 or 1, or not at all (null)."""
    if rating is None:
        return None
    if isinstance(rating, bool) or rating not in (-1, 0, 1):
        raise RowError(f"step {number} is rated {short(rating)}: expected -1, 0 or 1")
    if rating == 0 and neutral is None:
        raise NeutralError(f"step {number} is rated 0, neither right nor wrong: say what that means with --neutral")
    return NEUTRAL[neutral] if rating == 0 else float(rating == 1)


def ratings(row: Row) -> Solution:
    steps = _steps(row["completions"], "completions")
    given = _one_a_step(row["ratings"], "ratings", steps)
    labels = [_rated(rating, number, row.get("neutral")) for number, rating in enumerate(given, 1)]
    return Solution(prompt_of(row["prompt"], row.get("system")), steps, labels)


def prm800k(row: Row) -> Solution:
    """The solution that its labeller followed: the completion chosen at each step, or written by hand (then it is right).

    Where none was chosen the solution ends, with the completion rated worst.
    """
    steps, labels = [], []
    try:
        problem = row["question"]["problem"]
        for number, step in enumerate(row["label"]["steps"], 1):
            rated, chosen = step["completions"] or [], step.get("chosen_completion")
            by_hand = step.get("human_completion")
            if chosen is None and by_hand:
                steps.append(by_hand["text"] if isinstance(by_hand, dict) else by_hand)
                labels.append(1.0)
                continue
            if chosen is None and not rated:
                break
            if chosen is not None and (type(chosen) is not int or not 0 <= chosen < len(rated)):
                raise RowError(
                    f"`chosen_completion` of step {number} is {short(chosen)}: expected the place of one of "
                    f"{len(rated)} completions, counted from 0, or null"
                )
            worst = (
                min(rated, key=lambda one: 2 if one["rating"] is None else one["rating"]) if chosen is None else None
            )
            completion = worst or rated[chosen]
            steps.append(completion["text"])
            labels.append(_rated(completion["rating"], number, row.get("neutral")))
            if worst:
                break
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise RowError(f"the row is not as in PRM800K: {type(error).__name__} at {error}") from None
    return Solution(prompt_of(problem), _steps(steps, "label.steps"), labels)


def math_shepherd(row: Row) -> Solution:
    """The steps between the tags; the label is the same text with + or - in the place of each tag."""
    for name in ("input", "label"):
        if not isinstance(row[name], str):
            raise RowError(f"`{name}` is {kind_of(row[name])} ({short(row[name])}), not text")
    parts, place, steps, labels = row["input"].split(STEP_TAG), 0, [], []
    if parts[-1].strip():
        raise RowError(f"`input` does not end with the step tag {STEP_TAG}")
    for number, part in enumerate(parts[:-1], 1):
        place += len(part)
        mark = row["label"][place : place + 1]
        if row["label"][place - len(part) : place] != part or mark not in ("+", "-"):
            raise RowError(f"`label` does not repeat step {number} of `input` with + or - behind it")
        place += 1
        steps.append(part.strip())
        labels.append(float(mark == "+"))
    prompt, found, first = steps[0].partition(FIRST_STEP) if steps else ("", "", "")
    if not found:
        raise RowError(f"`input` has no {FIRST_STEP!r}, where the answer would begin")
    return Solution(prompt_of(prompt.strip()), _steps([found + first, *steps[1:]], "input"), labels)


def processbench(row: Row) -> Solution:
    """`label` is the place of the first error, counted from 0, or -1 for none. What follows an error is not judged."""
    steps, error = _steps(row["steps"], "steps"), row["label"]
    if isinstance(error, str) and re.fullmatch(r"\s*-?\d{1,9}\s*", error):  # as CSV holds it
        error = int(error)
    if isinstance(error, bool) or not isinstance(error, int) or not -1 <= error < len(steps):
        raise RowError(
            f"`label` is {short(error)}: expected the place of the first error among {len(steps)} steps, or -1"
        )
    judged = [1.0] * len(steps) if error < 0 else [1.0] * error + [0.0]
    labels = judged + [None] * (len(steps) - len(judged))
    return Solution(prompt_of(row["problem"], row.get("system"), "problem"), steps, labels)


def prompt(row: Row) -> Ranking:
    return Ranking(_to_be_answered(prompt_of(row["prompt"], row.get("system")), "prompt"), [])


def open_conversation(row: Row) -> Ranking:
    return Ranking(_to_be_answered(messages_of(row["messages"], "messages"), "messages"), [])


def _to_be_answered(conversation: list, column: str) -> list:
    if conversation and conversation[-1]["role"] == "assistant":
        raise RowError(f"`{column}` ends with an assistant message: there is nothing to answer")
    return conversation
