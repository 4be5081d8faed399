"""Formats of public data sets of pairs that are known by their columns: the numbers in them mean what their cards say.

Each entry is named after its data set. `winner` is a, b or tie when a converter is called (winners.py), and a value that
the data set does not have stops the run.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from .cells import RowError, objects, short, structure, turns, wrong_type
from .conversations import answer_of, messages_of, prompt_of, said, split_shared
from .entries import BAD, GOOD, MARGINS, PAIR, USER, Format, Row, entry, number
from .formats_pairs import after_history, are_answers, columns, comparison, instructed, scores_of
from .records import Comparison, Message, Ranking
from .winners import WORDS, Winner

DATASETS: dict[str, Format] = {}
_pairs = partial(entry, DATASETS)

FIRST_IS_0 = {"0": "a", "1": "b"}
STRENGTHS = {str(value): "a" if value < 0 else "b" if value else "tie" for value in range(-3, 4)}


def _two(row: Row, prompt: list[Message], first: Any, second: Any, margin: float | None = None) -> Ranking:
    """The prompt and answers a and b, with what the row says of them."""
    return Ranking(prompt, [answer_of(first, "a"), answer_of(second, "b")], scores_of(row), margin=margin)


# fmt: off
_SHORT: dict[str, tuple[str, tuple[str, str, str], Winner | None, Row]] = {
    "shp": (
        "SHP (stanfordnlp/SHP): a post and two comments; in `labels` 1 means that human_ref_A is better, 0 human_ref_B",
        ("history", "human_ref_A", "human_ref_B"), Winner(("labels",), {"1": "a", "0": "b"}), {"labels": 0},
    ),
    "pku_saferlhf": (
        "PKU-SafeRLHF: two answers and the place of the more helpful one; which is safer stays metadata",
        ("prompt", "response_0", "response_1"), Winner(("better_response_id",), FIRST_IS_0), {"better_response_id": 1},
    ),
    "pku_saferlhf_safer": (
        "PKU-SafeRLHF without the more helpful answer: two answers and the place of the safer one",
        ("prompt", "response_0", "response_1"), Winner(("safer_response_id",), FIRST_IS_0), {"safer_response_id": 1},
    ),
    "judgebench": (
        "JudgeBench: a question and two answers; `label` is A>B or B>A",
        ("question", "response_A", "response_B"), Winner(("label",), {"a>b": "a", "b>a": "b", "a=b": "tie"}), {"label": "B>A"},
    ),
    "ppe": (
        "answers 1 and 2, and which model won (PPE human preference): model_a gave response_1",
        ("prompt", "response_1", "response_2"), Winner(means=WORDS | {"response_1": "a", "response_2": "b"}), {"winner": "model_b"},
    ),
    "stack_exchange_paired": (
        "stack-exchange-paired: a question and two answers, of which response_j has more votes",
        ("question", "response_j", "response_k"), None, {},
    ),
    "rmb": (
        "RMB, pairs: a conversation, a better answer and one in `reject`, each beside the name of its model",
        ("conversation_input", "chosen", "rejected"), None,
        {"conversation_input": USER, "chosen": {"llm_name": "m", "answer": "4"}, "rejected": {"answer": "5"}},
    ),
    "rmb_best_of_n": (
        "RMB, best of n: a conversation, the best answer and the others",
        ("conversation_input", "bon_best", "loser_list"), None,
        {"conversation_input": USER, "bon_best": {"answer": "4"}, "loser_list": [{"answer": "5"}]},
    ),
}
# fmt: on
"""name: (description, columns of the prompt and the answers, what says which is better, an example of other values)."""
for _name, (_description, _names, _winner, _example) in _SHORT.items():
    columns(DATASETS, _name, _description, _names, winner=_winner, example=_example)
columns(
    DATASETS,
    "rewardbench",
    "RewardBench 1: a prompt, the better and the worse answer, the models that gave them and the subset",
    ("prompt", *PAIR),
    beside=lambda row: {"chosen_model", "rejected_model", "subset"} <= row.keys(),
    example={"chosen_model": "m", "rejected_model": "n", "subset": "xstest-should-refuse"},
)


@_pairs(
    "HelpSteer 3, and the preferences of HelpSteer 2: -3 to -1 mean that response 1 is better, 1 to 3 response 2, 0 is a "
    "tie; the strength is the margin",
    ("context|prompt", "response1|response_1", "response2|response_2", "overall_preference|preference_strength"),
    {"context": USER, "response1": "5", "response2": "4", "overall_preference": 2},
    optional=(),
    winner=Winner(("overall_preference",), STRENGTHS),
)
def helpsteer3(row: Row) -> Ranking:
    strength = abs(number(row["overall_preference"], "overall_preference")) if "winner" in row else None
    return _two(row, prompt_of(row, "context"), row["response1"], row["response2"], strength)


def _higher(first: Any, second: Any) -> str:
    scores = [number(first, "score_0"), number(second, "score_1")]
    if None in scores:
        raise RowError("one of `score_0` and `score_1` is null")
    return "score_0 higher" if scores[0] > scores[1] else "score_1 higher" if scores[0] < scores[1] else "equal"


@_pairs(
    "WebGPT comparisons: a question, two answers and a score of each; equal scores are ties, the difference is the margin",
    ("question", "answer_0", "answer_1", "score_0", "score_1"),
    {"question": {"full_text": "2+2?"}, "answer_0": "5", "answer_1": "4", "score_0": -1.0, "score_1": 1.0},
    optional=(),
    winner=Winner(("score_0", "score_1"), {"score_0 higher": "a", "score_1 higher": "b", "equal": "tie"}, _higher),
)
def webgpt(row: Row) -> Ranking:
    question = structure(row["question"])
    if isinstance(question, dict):
        question = question.get("full_text")
    margin = abs(number(row["score_0"], "score_0") - number(row["score_1"], "score_1")) if "winner" in row else None
    return _two(
        row, prompt_of({"question.full_text": question}, "question.full_text"), row["answer_0"], row["answer_1"], margin
    )


@_pairs(
    "summarize_from_feedback: a post (TL;DR) or an article, two summaries and the place of the better one",
    ("info", "summaries", "choice"),
    {
        "info": {"subreddit": "math", "title": "Sums", "post": "2+2"},
        "summaries": [{"text": "5"}, {"text": "4"}],
        "choice": 1,
    },
    lambda row: isinstance(structure(row["info"]), dict) and objects(row["summaries"]) is not None,
    optional=(),
    winner=Winner(("choice",), FIRST_IS_0),
)
def summarize_from_feedback(row: Row) -> Ranking:
    info, summaries = structure(row["info"]), objects(row["summaries"])
    if not isinstance(info, dict):
        raise wrong_type("info", info, "an object with a post or an article")
    if summaries is None or len(summaries) != 2:
        raise wrong_type("summaries", row["summaries"], "a list of two objects with a text")
    texts = [summary.get("text") for summary in summaries]
    return _two(row, [said("user", _to_summarize(info))], *texts)


def _to_summarize(info: Row) -> str:
    """The post as prompts of TL;DR are laid out (arXiv:2009.01325, trl-lib/tldr-preference)."""
    body = info.get("post") or info.get("article")
    if not isinstance(body, str):
        raise RowError("`info` has neither a post nor an article in text")
    parts = [f"SUBREDDIT: r/{info['subreddit']}"] if info.get("subreddit") else []
    parts += [f"TITLE: {info['title']}"] if info.get("title") else []
    return "\n\n".join([*parts, f"POST: {body}" if info.get("post") else body, "TL;DR:"])


def _one_hot(*values: Any) -> str:
    return "/".join(f"{number(value, 'winner'):g}" if value not in (None, "") else "null" for value in values)


columns(
    DATASETS,
    "arena_55k",
    "Chatbot Arena 55k (lmsys-arena-human-preference-55k): prompt and answers, also as lists of turns in JSON, and one "
    "of three columns that is 1",
    ("prompt", "response_a", "response_b"),
    winner=Winner(
        ("winner_model_a", "winner_model_b", "winner_tie"), {"1/0/0": "a", "0/1/0": "b", "0/0/1": "tie"}, _one_hot
    ),
    example={
        **{"prompt": '["2+2?"]', "response_a": '["5"]', "response_b": '["4"]'},
        **{"winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0},
    },
)


@_pairs(
    "MT-bench human judgments: conversations a and b, which of them won, and the turn that was compared, which ends them",
    ("conversation_a", "conversation_b", "winner", "turn"),
    {"conversation_a": USER + GOOD, "conversation_b": USER + BAD, "winner": "model_a", "turn": 1, "judge": "author_1"},
    optional=(),
    winner=Winner(),
    # Chatbot Arena 33k has both, and its `turn` counts the turns.
    beside=lambda row: "judge" in row and "tstamp" not in row,
)
def mt_bench(row: Row) -> Ranking:
    turn = number(row["turn"], "turn")
    if turn is None or turn < 1 or turn != int(turn):
        raise wrong_type("turn", row["turn"], "the number of a turn, counted from 1")
    sides = [_until(messages_of(row[name], name), int(turn)) for name in ("conversation_a", "conversation_b")]
    prompt, *answers = split_shared(*sides)
    return Ranking(prompt, answers, scores_of(row))


def _until(conversation: list[Message], turn: int) -> list[Message]:
    """A conversation to the end of a turn, where the user speaks the next time."""
    asked = [place for place, message in enumerate(conversation) if message["role"] == "user"]
    return conversation[: asked[turn]] if len(asked) > turn else conversation


def _first_or_second(preference: Any) -> Any:
    value = number(preference, "preference")
    if not 1 < value < 2 or value == 1.5:
        return value
    return "1 to 1.5" if value < 1.5 else "1.5 to 2"


@_pairs(
    "AlpacaFarm and AlpacaEval: two outputs; `preference` is 1 for output_1, 2 for output_2, 0 or 1.5 for a tie, or between "
    "1 and 2 the nearer one",
    ("instruction", "output_1", "output_2", "preference"),
    {"instruction": "2+2?", "output_1": "5", "output_2": "4", "preference": 2},
    optional=("input",),
    winner=Winner(
        ("preference",),
        {"1": "a", "2": "b", "1 to 1.5": "a", "1.5 to 2": "b", "0": "tie", "1.5": "tie"},
        _first_or_second,
    ),
)
def alpaca_farm(row: Row) -> Ranking:
    return _two(row, prompt_of({"prompt": instructed(row)}), row["output_1"], row["output_2"])


# ---- rows whose columns say which answer is better ---------------------------------------------------------------------


def _is_kto(row: Row) -> bool:
    answered = "messages" in row or {"prompt", "completion"} <= row.keys() or {"instruction", "output"} <= row.keys()
    return answered and str(row.get("label")).strip().lower() in ("true", "false")


@_pairs(
    "KTO (TRL, LLaMA-Factory, ms-swift): a prompt and one completion, or a conversation that ends with it, and whether it is "
    "desirable, true or false; it can be checked and scored, and makes no pair",
    ("label|kto_tag",),
    {"prompt": "2+2?", "completion": "4", "label": True},
    _is_kto,
    optional=("prompt", "completion", "messages|conversations", "instruction", "input", "output", "history", "system"),
)
def kto(row: Row) -> Ranking:
    if "messages" in row:
        said = messages_of(row["messages"], "messages")
        if not said or said[-1]["role"] != "assistant":
            raise RowError("`messages` does not end with an assistant message, which the label is of")
        prompt, answer = said[:-1], said[-1:]
    elif {"prompt", "completion"} <= row.keys():
        prompt, answer = row["prompt"], answer_of(row["completion"], "completion")
    elif {"instruction", "output"} <= row.keys():
        prompt, answer = after_history(row, instructed(row)), answer_of(row["output"], "output")
    else:
        raise RowError("the row has a label and no completion")
    label = row.get("label")
    scores = None if label is None else [float(str(label).strip().lower() == "true")]
    return Ranking(prompt_of({"prompt": prompt, "system": row.get("system")}), [answer], scores)


@_pairs(
    "preference rows of OpenAI: `input` with messages and tools, the output that is preferred and the one that is not",
    ("input", "preferred_output", "non_preferred_output"),
    {
        "input": {"messages": USER},
        "preferred_output": GOOD,
        "non_preferred_output": BAD,
    },
    optional=(),
)
def openai_preference(row: Row) -> Comparison | Ranking:
    asked = structure(row["input"])
    asked = asked if isinstance(asked, dict) else {"messages": asked}
    prompt = messages_of(asked.get("messages"), "input.messages")
    pair = comparison(row, prompt, *(structure(row[name]) for name in ("preferred_output", "non_preferred_output")))
    return replace(pair, tools=asked.get("tools") or None)


@_pairs(
    "ms-swift: a conversation that ends with the better answer, and another answer, conversation or list of answers",
    ("messages", "rejected_response|rejected_messages"),
    {"messages": USER + GOOD, "rejected_response": "5"},
    optional=("system", *MARGINS),
)
def ms_swift(row: Row) -> Comparison | Ranking:
    whole, other = messages_of(row["messages"], "messages"), row["rejected_response"]
    if not whole or whole[-1]["role"] != "assistant":
        raise RowError("`messages` does not end with an assistant message, the better answer")
    others = [_rejected(item, whole) for item in (other if are_answers(other) else [other])]
    shared = min(shared for shared, _ in others)
    rejected = [conversation[shared:] for _, conversation in others]
    prompt = prompt_of({"prompt": whole[:shared], "system": row.get("system")})
    return comparison(row, prompt, whole[shared:], rejected)


def _rejected(value: Any, whole: list[Message]) -> tuple[int, list[Message]]:
    """(messages shared with the whole conversation, the whole rejected conversation)."""
    answer = answer_of(value, "rejected_response")
    if answer and answer[0]["role"] == "assistant":
        return len(whole) - 1, whole[:-1] + answer
    return len(split_shared(whole, answer)[0]), answer


@_pairs(
    "ms-swift with `query` and `response`, which is better than `rejected_response`; earlier turns in `history`",
    ("query", "response", "rejected_response"),
    {"query": "2+2?", "response": "4", "rejected_response": "5"},
    optional=("history", "system", *MARGINS),
)
def ms_swift_query(row: Row) -> Comparison | Ranking:
    return comparison(
        row, prompt_of(row | {"prompt": after_history(row, row["query"])}), row["response"], row["rejected_response"]
    )


@_pairs(
    "LLaMA-Factory's old form: an instruction, and in `output` the better and the worse answer",
    ("instruction", "output"),
    {"instruction": "Add.", "input": "2+2", "output": ["4", "5"]},
    lambda row: isinstance(row["output"], list) and turns(row["output"]) is not None,  # text may be an answer in JSON
    optional=("input", "history", "system"),
)
def llama_factory_old(row: Row) -> Comparison | Ranking:
    given = row["output"]
    if not isinstance(given, list) or len(given) != 2 or not all(isinstance(text, str) for text in given):
        raise RowError(f"`output` is {short(row['output'])}: expected a list of two texts, the better one first")
    return comparison(row, prompt_of(row | {"prompt": after_history(row, instructed(row))}), *given)
