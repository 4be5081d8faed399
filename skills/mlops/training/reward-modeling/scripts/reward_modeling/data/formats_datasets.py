"""Formats of public data sets of pairs, known by their columns: the numbers in them mean what their cards say."""

from dataclasses import replace
from functools import partial

from .cells import RowError, expect, objects, short, structure, turns, wrong_type
from .conversations import answer_of, messages_of, prompt_of, split_shared, spoken
from .entries import BAD, DESIRABLE, GOOD, MARGINS, PAIR, USER, VAGUE, Format, Row, Winner, desirable, entry, number
from .formats_pairs import PairColumns, are_answers, arena, by_winner, columns, comparison, instructed
from .formats_rankings import answered
from .records import Ranking

DATASETS: dict[str, Format] = {}
_pairs, _columns = partial(entry, DATASETS, optional=""), partial(columns, DATASETS)

_FIRST_IS_0 = {"0": "a", "1": "b"}


_ONE_HOT = {"winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}


def _one_hot(*values) -> str:
  return "/".join(f"{number(value, 'winner'):g}" if value not in (None, "") else "null" for value in values)


def _difference(*scores) -> float:
  first, second = (number(score, f"score_{place}") for place, score in enumerate(scores))
  if first is None or second is None:
    raise RowError("one of `score_0` and `score_1` is null")
  return first - second


def _higher(*scores) -> str:
  difference = _difference(*scores)
  return "score_0 higher" if difference > 0 else "score_1 higher" if difference < 0 else "equal"


def _full_text(row: Row) -> Row:
  question = structure(row["question"])
  return row | {"question": question.get("full_text") if isinstance(question, dict) else question}


def _written_out(row: Row) -> Row:
  return {name: structure(value) for name, value in row.items()}


def _first_or_second(preference) -> object:
  value = number(preference, "preference")
  if not 1 < value < 2 or value == 1.5:
    return value
  return "1 to 1.5" if value < 1.5 else "1.5 to 2"


_columns(
  "shp",
  "SHP: a post and two comments; in `labels` 1 means that human_ref_A is better, 0 human_ref_B",
  "history human_ref_A human_ref_B",
  winner=Winner(("labels",), {"1": "a", "0": "b"}),
  example={"labels": 0},
)
for _name, _column, _what in (
  ("pku_saferlhf", "better_response_id", ": two answers and the place of the more helpful one"),
  ("pku_saferlhf_safer", "safer_response_id", " without the more helpful answer: the place of the safer one"),
):
  _winner = Winner((_column,), _FIRST_IS_0)
  _columns(_name, f"PKU-SafeRLHF{_what}", "prompt response_0 response_1", winner=_winner, example={_column: 1})
_columns(
  "judgebench",
  "JudgeBench: a question and two answers; `label` is A>B or B>A",
  "question response_A response_B",
  winner=Winner(("label",), {"a>b": "a", "b>a": "b", "a=b": "tie"}),
  example={"label": "B>A"},
)
_columns(
  "ppe",
  "PPE human preference: two answers, and which model won; model_a gave response_1",
  "prompt response_1 response_2",
  winner=Winner(),
  labels="winner|preference|preferred|choice|better|chosen",
  example={"winner": "model_b"},
)
_columns(
  "stack_exchange_paired",
  "stack-exchange-paired: a question and two answers; response_j has more votes",
  "question response_j response_k",
)
_columns(
  "step_dpo",
  "Math-Step-DPO: a problem, the steps that both answers begin with, and the next step, right and wrong",
  "prompt chosen rejected",
  labels="initial_reason_steps",
  example={"initial_reason_steps": "2+2="},
  prepare=lambda row: row | {name: f"{row['initial_reason_steps']}{row[name]}" for name in PAIR},
)
_columns(
  "rmb",
  "RMB, pairs: a conversation and two answers, each beside the name of its model",
  "conversation_input chosen rejected",
  example={"conversation_input": USER, "chosen": {"llm_name": "m", "answer": "4"}, "rejected": {"answer": "5"}},
  prepare=_written_out,
)
_columns(
  "rmb_best_of_n",
  "RMB, best of n: a conversation, the best answer and the others",
  "conversation_input bon_best loser_list",
  example={"conversation_input": USER, "bon_best": {"answer": "4"}, "loser_list": [{"answer": "5"}]},
  prepare=_written_out,
)
_columns(
  "rewardbench",
  "RewardBench 1: a prompt, two answers, the models that gave them and the subset",
  "prompt chosen rejected",
  beside=lambda row: {"chosen_model", "rejected_model", "subset"} <= row.keys(),
  example={"chosen_model": "m", "rejected_model": "n", "subset": "xstest-should-refuse"},
)
_columns(
  "helpsteer3",
  "HelpSteer 2 and 3: below 0 response 1 is better, above 0 response 2, 0 is a tie; the strength is the margin",
  "context|prompt response1|response_1 response2|response_2",
  winner=Winner(("overall_preference",), {str(one): "a" if one < 0 else "b" if one else "tie" for one in range(-3, 4)}),
  labels="overall_preference|preference_strength",
  example={"context": USER, "overall_preference": 2},
  optional="",
  margin=lambda row: abs(number(row["overall_preference"], "overall_preference")),
)
_columns(
  "webgpt",
  "WebGPT comparisons: a question, two answers and their scores; equal ones are ties, the difference is the margin",
  "question answer_0 answer_1",
  winner=Winner(("score_0", "score_1"), {"score_0 higher": "a", "score_1 higher": "b", "equal": "tie"}, _higher),
  example={"question": {"full_text": "2+2?"}, "score_0": -1.0, "score_1": 1.0},
  optional="",
  prepare=_full_text,
  margin=lambda row: abs(_difference(row["score_0"], row["score_1"])),
)
_columns(
  "arena_55k",
  "Chatbot Arena 55k: prompt and answers, also as lists of turns in JSON, and three columns of which one is 1",
  "prompt response_a response_b",
  winner=Winner(tuple(_ONE_HOT), {"1/0/0": "a", "0/1/0": "b", "0/0/1": "tie"}, _one_hot),
  example=_ONE_HOT,
)
_columns(
  "alpaca_farm",
  "AlpacaFarm and AlpacaEval: two outputs; `preference` is 1 or nearer to it for output_1, 2 or nearer to it for output_2, 0 or 1.5 for a tie",
  "instruction output_1 output_2",
  winner=Winner(
    ("preference",), {"1": "a", "2": "b", "1 to 1.5": "a", "1.5 to 2": "b", "0": "tie", "1.5": "tie"}, _first_or_second
  ),
  example={"preference": 2},
  optional="input",
  prepare=instructed,
)
_columns(
  "ms_swift_query",
  "ms-swift with a query, a response and a rejected one; earlier turns in `history`",
  "query response rejected_response",
  optional=f"history system {MARGINS}",
  prepare=partial(instructed, column="query"),
)


@_pairs(
  "summarize_from_feedback: a post or an article, two summaries and the place of the better one",
  "info summaries choice",
  {"info": {"title": "Sums", "post": "2+2"}, "summaries": [{"text": "5"}, {"text": "4"}], "choice": 1},
  lambda row: isinstance(structure(row["info"]), dict) and objects(row["summaries"]) is not None,
  winner=Winner(("choice",), _FIRST_IS_0),
)
def summarize_from_feedback(row: Row) -> PairColumns:
  """Laid out as in trl-lib/tldr-preference."""
  info = expect(structure(row["info"]), dict, "info", "an object with a post or an article")
  summaries = objects(row["summaries"])
  if summaries is None or len(summaries) != 2:
    raise wrong_type("summaries", row["summaries"], "a list of two objects with a text")
  body = info.get("post") or info.get("article")
  if not isinstance(body, str):
    raise RowError("`info` has neither a post nor an article in text")
  heads = {"subreddit": "SUBREDDIT: r/", "title": "TITLE: "}
  parts = [f"{head}{info[name]}" for name, head in heads.items() if info.get(name)]
  parts += [f"POST: {body}" if info.get("post") else body, "TL;DR:"]
  answers = [answer_of(summary.get("text"), "summaries.text") for summary in summaries]
  return by_winner(row, [spoken("user", "\n\n".join(parts))], answers)


@_pairs(
  "MT-bench human judgments: conversations a and b, which won, and the turn that was compared, which ends them",
  "conversation_a conversation_b winner turn",
  {"conversation_a": USER + GOOD, "conversation_b": USER + BAD, "winner": "model_a", "turn": 1, "judge": "author_1"},
  winner=Winner(),
  # Chatbot Arena 33k has both, and its `turn` counts the turns.
  beside=lambda row: "judge" in row and "tstamp" not in row,
)
def mt_bench(row: Row) -> PairColumns:
  turn = number(row["turn"], "turn")
  if turn is None or turn < 1 or turn != int(turn):
    raise wrong_type("turn", row["turn"], "the number of a turn, counted from 1")
  return arena(row, int(turn))


_KTO = (("messages",), ("prompt", "completion"), ("instruction", "output", "input", "history"))
"""What is read together, what must be there first."""


def _kto_columns(row: Row) -> tuple[str, ...]:
  return next((names for names in _KTO if row.keys() >= set(names[:2])), ())


_UNCLEAR = ("1", "0", "-1", "+", "-", *VAGUE)
"""Read with --format kto."""


def _is_kto(row: Row) -> bool:
  return bool(_kto_columns(row)) and desirable(row.get("label"), _UNCLEAR) is not None


@_pairs(
  "KTO (TRL, LLaMA-Factory, ms-swift): a prompt and a completion, or a conversation that ends with it, and whether it is "
  "desirable (true or false, chosen or rejected; 1 or 0 with --format kto); it can be scored, and makes no pair",
  "label|kto_tag",
  {"prompt": "2+2?", "completion": "4", "label": True},
  _is_kto,
  optional="prompt completion|response messages|conversations instruction input output history system",
)
def kto(row: Row) -> Ranking:
  names = _kto_columns(row)
  if not names:
    raise RowError("the row has a label and no completion")
  unread = [name for other in _KTO for name in other if name not in names and row.get(name)]
  if unread:
    advice = f"put it into the prompt yourself, or leave it out with --columns {unread[0]}="
    raise RowError(f"`{unread[0]}` is not read beside `{names[0]}`: {advice}")
  if names == ("messages",):
    prompt, answer = answered(row, "there is nothing that the label is of")
  else:
    prompt = instructed(row)["instruction"] if "instruction" in names else row["prompt"]
    answer = answer_of(row[names[1]], names[1])
  label = row.get("label")
  if label is not None and desirable(label) is None:
    raise wrong_type("label", label, f"one of {', '.join(DESIRABLE)}")
  scores = None if label is None else [desirable(label)]
  return Ranking(prompt_of({"prompt": prompt, "system": row.get("system")}), [answer], scores)


@_pairs(
  "preference rows of OpenAI: `input` with messages and tools, and two outputs",
  "input preferred_output non_preferred_output",
  {"input": {"messages": USER}, "preferred_output": GOOD, "non_preferred_output": BAD},
)
def openai_preference(row: Row) -> PairColumns:
  asked = structure(row["input"])
  asked = asked if isinstance(asked, dict) else {"messages": asked}
  prompt = messages_of(asked.get("messages"), "input.messages")
  pair = comparison(row, prompt, *(structure(row[name]) for name in ("preferred_output", "non_preferred_output")))
  return replace(pair, tools=asked.get("tools") or None)


@_pairs(
  "ms-swift: a conversation that ends with the better answer, and another answer or conversation, or a list of answers",
  "messages rejected_response|rejected_messages|rejected",
  {"messages": USER + GOOD, "rejected_response": "5"},
  optional=f"system {MARGINS}",
  beside=lambda row: "chosen" not in row,
)
def ms_swift(row: Row) -> PairColumns:
  asked, better = answered(row, "there is no better answer")
  whole, other = asked + better, row["rejected_response"]
  others = [answer_of(item, "rejected_response") for item in (other if are_answers(other) else [other])]
  others = [asked + one if one and one[0]["role"] == "assistant" else one for one in others]
  shared = min(len(split_shared(whole, one)[0]) for one in others)
  prompt = prompt_of({"prompt": whole[:shared], "system": row.get("system")})
  return comparison(row, prompt, whole[shared:], [one[shared:] for one in others])


@_pairs(
  "LLaMA-Factory's old form: an instruction, and in `output` the better and the worse answer",
  "instruction output",
  {"instruction": "Add.", "input": "2+2", "output": ["4", "5"]},
  lambda row: isinstance(row["output"], list) and turns(row["output"]) is not None,  # text may be an answer in JSON
  optional="input history system",
)
def llama_factory_old(row: Row) -> PairColumns:
  given = row["output"]
  if not isinstance(given, list) or len(given) != 2 or not all(isinstance(text, str) for text in given):
    raise RowError(f"`output` is {short(given)}: expected a list of two texts, the better one first")
  return comparison(row, prompt_of(instructed(row), "instruction"), *given)
