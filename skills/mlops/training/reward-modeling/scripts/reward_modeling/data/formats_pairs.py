"""Formats of pairs: a prompt, and two answers of which one is better."""

from collections.abc import Callable
from functools import partial

from .cells import RowError, are_messages, expect, objects, short, structure, turns, wrong_type
from .conversations import (
  Message,
  answer_of,
  held_answer,
  is_transcript,
  messages_of,
  prompt_and_answers,
  prompt_of,
  split_shared,
  split_text,
  spoken,
  starts_with,
  transcript_of,
  with_system,
)
from .entries import BAD, GOOD, MARGINS, PAIR, USER, Format, Row, Winner, are_lists, are_texts, entry, margin_and_weight
from .records import Comparison, Ranking

PairColumns = Comparison | Ranking
PAIRS: dict[str, Format] = {}
_WITH_MARGINS = f"system {MARGINS}"
_pairs = partial(entry, PAIRS, optional=_WITH_MARGINS)
PROMPT_NAMES = "question|query|problem|context|messages|conversation|dialogue|history"
_HUMAN = "\n\nHuman: 2+2?\n\nAssistant:"


def comparison(row: Row, prompt: list[Message], chosen, rejected) -> PairColumns:
  """chosen and rejected: an answer, or a list of which each makes a pair with each of the other side. Messages that
  repeat the prompt are cut."""
  better, worse = _answers(chosen, "chosen", prompt), _answers(rejected, "rejected", prompt)
  margin, weight = margin_and_weight(row)
  if len(better) == len(worse) == 1:
    prompt, better[0], worse[0] = _apart(prompt, better[0], worse[0])
  if len(better) == len(worse) == 1:
    return Comparison(prompt, better[0], worse[0], margin=margin, weight=weight)
  scores = [1.0] * len(better) + [0.0] * len(worse)
  return Ranking(prompt, better + worse, scores, margin=margin, weight=weight)


def _apart(prompt: list[Message], *sides: list[Message]) -> tuple[list[Message], list[Message], list[Message]]:
  """Of answers that are whole conversations, as in UltraFeedback, what they share is the prompt."""
  if not all(side and side[0]["role"] in ("system", "user") for side in sides):
    return prompt, *sides
  asked = {message["content"].strip() for message in prompt if message["role"] == "user"}
  for name, side in zip(PAIR, sides, strict=True):
    if not asked <= {message["content"].strip() for message in side[:-1]}:
      if prompt[-1]["role"] == "assistant" or len(asked) > 1:
        return prompt, *sides
      raise RowError(f"`{name}` is a whole conversation in which `prompt` does not occur")
  system = prompt[0]["content"] if prompt and prompt[0]["role"] == "system" else None
  shared, *sides = split_shared(*sides)
  return with_system(shared, system), *sides


def are_answers(value) -> bool:
  given = value if isinstance(value, list) else []
  return bool(given) and all(isinstance(one, (str, list)) or held_answer(one) is not None for one in given)


def _answers(value, column: str, prompt: list[Message]) -> list[list[Message]]:
  if value == []:
    raise RowError(f"`{column}` is an empty list")
  found = [answer_of(item, column) for item in (value if are_answers(value) else [value])]
  return [answer[len(prompt) :] if starts_with(answer, prompt) else answer for answer in found]


def columns(
  table: dict[str, Format],
  name: str,
  description: str,
  needs: str,
  *,
  winner: Winner | None = None,
  labels: str = "",
  example: Row | None = None,
  optional: str = "system",
  prepare: Callable[[Row], Row] = lambda row: row,
  margin: Callable[[Row], float] | None = None,
  **more,
) -> None:
  """An entry for rows of a prompt and two answers, without a winner the better one first. labels: more columns that it needs, if not the winner's."""
  names = [name.partition("|")[0] for name in needs.split()]
  needs = " ".join([needs, labels or " ".join(winner.columns if winner else ())])
  shown = ("2+2?", "5", "4") if winner else ("2+2?", "4", "5")

  def convert(row: Row) -> PairColumns:
    row = prepare(row)
    if winner:
      stated = margin(row) if margin and "winner" in row else None
      return by_winner(row, *prompt_and_answers(row, *names), stated)
    return comparison(row, prompt_of(row, names[0]), row[names[1]], row[names[2]])

  convert.__name__ = name
  example = dict(zip(names, shown, strict=True)) | (example or {})
  entry(table, description, needs, example, optional=optional, winner=winner, **more)(convert)


def unanswered(transcript: list[Message]) -> list[Message]:
  return transcript[:-1] if transcript[-1:] == [spoken("assistant", "")] else transcript


@_pairs(
  "Human:/Assistant: dialogues (Anthropic HH), whole on both sides or with a prompt",
  "chosen rejected",
  {"chosen": f"{_HUMAN} 4", "rejected": f"{_HUMAN} 5"},
  lambda row: is_transcript(row.get("prompt", row["chosen"])),
  optional=f"prompt {MARGINS}",
)
def transcript(row: Row) -> PairColumns:
  if "prompt" not in row:
    return comparison(row, *split_shared(*(transcript_of(row[name], name) for name in PAIR)))
  prompt = unanswered(transcript_of(row["prompt"], "prompt"))
  answers = [row[name] for name in PAIR]
  if not all(map(is_transcript, answers)):
    return comparison(row, prompt, *(one.strip() if isinstance(one, str) else one for one in answers))
  answers = [transcript_of(row[name], name) for name in PAIR]
  if not all(starts_with(answer, prompt) for answer in answers):
    raise RowError("`chosen` and `rejected` are whole transcripts that do not begin with `prompt`")
  return comparison(row, prompt, *answers)


def _repeats_prompt(prompt, text) -> bool:
  """Whether whitespace follows: "Hello" and "Hello! How are you" are a prompt and an answer."""
  if not isinstance(prompt, str) or not isinstance(text, str) or not prompt.strip() or not text.startswith(prompt):
    return False
  return prompt[-1].isspace() or text[len(prompt) : len(prompt) + 1].isspace()


@_pairs(
  "texts in which both answers repeat the prompt",
  "prompt chosen rejected",
  {"prompt": "2+2 is", "chosen": "2+2 is 4", "rejected": "2+2 is 5"},
  lambda row: all(_repeats_prompt(row["prompt"], row[name]) for name in PAIR),
)
def concatenated(row: Row) -> PairColumns:
  for name in PAIR:
    if not _repeats_prompt(row["prompt"], row[name]):
      raise RowError(f"`{name}` does not begin with the text of `prompt`")
  answers = [row[name][len(row["prompt"]) :].lstrip() for name in PAIR]
  return comparison(row, prompt_of(row | {"prompt": row["prompt"].rstrip()}), *answers)


@_pairs(
  "a prompt and two answers, each as text, messages or a list of answers (RewardBench 2, RM-Bench: all pairs); messages "
  "that repeat the prompt are cut",
  "prompt chosen rejected",
  {"prompt": USER, "chosen": GOOD, "rejected": BAD},
)
def explicit(row: Row) -> PairColumns:
  if turns(row["prompt"]) is None:
    return comparison(row, prompt_of(row), row["chosen"], row["rejected"])
  prompt, answers = prompt_and_answers(row, "prompt", *PAIR)
  return comparison(row, prompt, *answers)


def _from(speaker: str, value: str) -> Row:
  return {"from": speaker, "value": value}


@_pairs(
  "from/value messages; the prompt in `conversations` (LLaMA-Factory) or shared by both sides",
  "chosen rejected",
  {"conversations": [_from("human", "2+2?")], "chosen": _from("gpt", "4"), "rejected": _from("gpt", "5")},
  lambda row: "conversations" in row or all("from" in (objects(row[name]) or [{}])[0] for name in PAIR),
  optional=f"conversations {_WITH_MARGINS}",
)
def sharegpt(row: Row) -> PairColumns:
  if "conversations" not in row:
    return implicit(row)
  prompt = with_system(messages_of(row["conversations"], "conversations"), row.get("system"))
  return comparison(row, prompt, row["chosen"], row["rejected"])


def instructed(row: Row, column: str = "instruction") -> Row:
  """The row with the turns of `history` and the `input` below the instruction in its place."""
  history = structure(row.get("history") or [])
  asked, texts = [row[column], row.get("input") or ""], []
  if not are_messages(history):
    if not isinstance(history, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in history):
      raise wrong_type("history", history, "messages or a list of [question, answer]")
    texts = [text for turn in history for text in turn]
    history = [spoken("assistant" if place % 2 else "user", text) for place, text in enumerate(texts)]
  if not all(isinstance(text, str) for text in texts + asked):
    raise RowError(f"`{column}`, `input` and the turns of `history` must be text")
  return row | {column: [*messages_of(history, "history"), spoken("user", "\n".join(filter(None, asked)))]}


columns(
  PAIRS,
  "alpaca",
  "an instruction with an optional input below it, and two answers",
  "instruction chosen rejected",
  example={"input": "2+2"},
  optional=f"input history {_WITH_MARGINS}",
  prepare=instructed,
)
columns(
  PAIRS,
  "axolotl",
  "an input and two answers (axolotl bradley_terry.chat_template)",
  "input chosen rejected",
  example={"system": "Be brief."},
  optional=_WITH_MARGINS,
)


@_pairs(
  "a question, query, context or the messages so far, and two answers (Intel Orca pairs)",
  f"{PROMPT_NAMES} chosen rejected",
  {"system": "Be brief.", "question": "2+2?", "chosen": "4", "rejected": "5"},
  lambda row: isinstance(row["question"], (str, list)),
)
def question(row: Row) -> PairColumns:
  return explicit(row | {"prompt": row["question"]})


@_pairs(
  "two conversations as messages; what they share from the start is the prompt",
  "chosen rejected",
  {"chosen": USER + GOOD, "rejected": USER + BAD},
  are_lists(*PAIR),
)
def implicit(row: Row) -> PairColumns:
  prompt, chosen, rejected = split_shared(*(messages_of(row[name], name) for name in PAIR))
  return comparison(row, with_system(prompt, row.get("system")), chosen, rejected)


@_pairs(
  "two texts that begin alike; the prompt is what they share, up to its last line break or space",
  "chosen rejected",
  {"chosen": "2+2 is 4", "rejected": "2+2 is 5"},
  are_texts(*PAIR),
  optional=MARGINS,
)
def text(row: Row) -> PairColumns:
  for name in PAIR:
    if is_transcript(expect(row[name], str, name, "text")):
      raise RowError(f"`{name}` is a transcript of `Human:` and `Assistant:` turns among rows that are not")
  prompt, *answers = split_text(row["chosen"], row["rejected"])
  return comparison(row, prompt_of({"prompt": prompt}), *answers)


def by_winner(row: Row, prompt: list[Message], sides: list[list[Message]], margin: float | None = None) -> PairColumns:
  """A pair; of a tie and without a label a ranking."""
  winner = row.get("winner")
  if winner in (None, "tie"):
    return Ranking(prompt, sides, None if winner is None else [0.0, 0.0], margin=margin)
  if winner not in ("a", "b"):
    what = f"`winner` is {short(winner)}: expected a, b, tie, model_a or model_b, or a name in the columns of these"
    raise RowError(f"{what}; say it with --winner_values '{short(winner)}=tie', or =a or =b")
  second = winner == "b"
  return Comparison(prompt, *(sides[::-1] if second else sides), margin=margin, rejected_first=second)


columns(
  PAIRS,
  "pairwise",
  "a prompt, answers a and b, and which won",
  f"prompt|instruction|input|{PROMPT_NAMES} response_a response_b",
  winner=Winner(),
  labels="winner|preference|preferred|choice|better|chosen",
  example={"winner": "model_b"},
)


@_pairs(
  "conversations a and b, and which won (Chatbot Arena)",
  "conversation_a conversation_b winner",
  {"conversation_a": USER + GOOD, "conversation_b": USER + BAD, "winner": "model_a"},
  optional="",
  winner=Winner(),
)
def arena(row: Row, turn: int | None = None) -> PairColumns:
  """turn: after which the conversations end."""
  sides = []
  for name in ("conversation_a", "conversation_b"):
    messages = messages_of(row[name], name)
    asked = [place for place, message in enumerate(messages) if message["role"] == "user"]
    sides.append(messages[: asked[turn]] if turn and turn < len(asked) else messages)
  prompt, *answers = split_shared(*sides)
  return by_winner(row, prompt, answers)
