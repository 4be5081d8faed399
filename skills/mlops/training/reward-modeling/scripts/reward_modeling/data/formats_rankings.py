"""Formats of rankings: a prompt and any number of completions with scores or ranks, or without; trees of OASST."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

from . import entries
from .cells import RowError, objects, short, structure, wrong_type
from .conversations import (
  Message,
  answer_of,
  is_transcript,
  messages_of,
  prompt_and_answers,
  prompt_of,
  spoken,
  transcript_of,
  with_system,
)
from .entries import BAD, GOOD, USER, Format, Numbered, Problems, Row, are_lists, desirable, entry, number
from .formats_pairs import unanswered
from .formats_steps import steps_of
from .records import Ranking, Solution, in_steps

RANKINGS: dict[str, Format] = {}
RANKED: dict[str, Format] = {}
"""Public data sets, known by their columns."""
UNLABELED: dict[str, Format] = {}
"""Completions to be scored."""
OPEN: dict[str, Format] = {}
"""Prompts to be answered."""
_rankings, _ranked, _unlabeled, _open = (partial(entry, table) for table in (RANKINGS, RANKED, UNLABELED, OPEN))


_PROMPT = "prompt|question|instruction|query"


def _answer(given) -> list[Message]:
  """A list of texts is an answer in steps."""
  if isinstance(given, list) and given and all(isinstance(step, str) for step in given):
    return in_steps(steps_of(given, "completions"))
  return answer_of(given, "completions")


def _available(value, name: str) -> float | None:
  return None if str(value).strip().lower() == "n/a" else number(value, name)


def _ratings(given) -> dict[str, float | None]:
  found = structure(given)
  if not isinstance(found, dict) or not found:
    raise wrong_type("ratings", given, "an object with a number for each attribute")
  return {str(name): _available(value, f"ratings.{name}") for name, value in found.items()}


def _ratings_of_each(row: Row, count: int) -> list[dict[str, float | None]] | None:
  if "ratings" not in row:
    return None
  given = entries.one_each(structure(row["ratings"]), "ratings", "a list of objects", count, "completions")
  return [_ratings(item) for item in given]


def _score(value) -> float | None:
  """A number, or what a word as up or down says."""
  word = desirable(value) if isinstance(value, str) and not any(map(str.isdigit, value)) else None
  return number(value, "scores") if word is None else word


def _numbered(row: Row, column: str, sign: float = 1) -> Ranking:
  found = completions(row)
  if column not in row:
    return found
  given = entries.one_each(row[column], column, "a list of numbers", len(found.completions), "completions")
  numbers = [_score(item) if column == "scores" else number(item, column) for item in given]
  if None in numbers:
    raise RowError(f"`{column}` holds null")
  return replace(found, scores=[sign * value for value in numbers])


@_rankings(
  "a prompt and any number of completions with scores, higher is better, or true and false (or up and down) in `correct`",
  f"{_PROMPT} completions|responses|answers scores|correct",
  {"prompt": "2+2?", "completions": ["4", "5", "four"], "scores": [1.0, 0.0, 1.0]},
  are_lists("completions", "scores"),
  optional="system margin weight ratings",
)
def ranking(row: Row) -> Ranking:
  margin, weight = entries.margin_and_weight(row)
  found = _numbered(row, "scores")
  return replace(found, margin=margin, weight=weight, ratings=_ratings_of_each(row, len(found.completions)))


ULTRAFEEDBACK = ("instruction_following", "honesty", "truthfulness", "helpfulness")
HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def _within(value: float | None, name: str, lowest: float, highest: float, whose: str) -> float | None:
  if value is not None and not lowest <= value <= highest:
    what = f"`{name}` is {value:g}: {whose} rates from {lowest} to {highest}"
    raise RowError(f"{what} (another scale goes into an object `ratings`)")
  return value


def _is_rated(row: Row) -> bool:
  if "ratings" in row:
    return isinstance(structure(row["ratings"]), dict) or objects(row["ratings"]) is not None
  if isinstance(row.get("score"), str) and any(map(str.isdigit, row["score"])):
    return True  # as 4/5, of which reading it tells
  return any(_available(row[name], name) is not None for name in ("score", *HELPSTEER) if name in row)


def _all_ratings(row: Row) -> list[dict[str, float | None]]:
  """Of one completion."""
  ratings = _ratings(row["ratings"]) if "ratings" in row else {}
  ratings |= {name: _available(row[name], name) for name in ("score", *HELPSTEER) if name in row}
  of_helpsteer = ratings.keys() & HELPSTEER
  for name in sorted(of_helpsteer) if len(of_helpsteer) > 3 else ():
    _within(ratings[name], name, 0, 4, "HelpSteer")
  return [ratings or {"score": None}]


_RATINGS = f"ratings score|rating {' '.join(HELPSTEER)}"


@_rankings(
  "a prompt and one completion with a score, or with numbers for attributes in an object `ratings` or in HelpSteer's columns; "
  "also completions with a list of such objects",
  "prompt completion|response|completions|responses",
  {"prompt": "2+2?", "completion": "4", "ratings": {"helpfulness": 4, "verbosity": None}},
  _is_rated,
  optional=f"system {_RATINGS}",
)
def rated(row: Row) -> Ranking:
  given = row["completion"]
  if isinstance(structure(row.get("ratings")), list):
    found = completions(row | {"completions": given})
    return replace(found, ratings=_ratings_of_each(row, len(found.completions)))
  return replace(Ranking(*prompt_and_answers(row, "prompt", "completion")), ratings=_all_ratings(row))


@_rankings(
  "a conversation whose last message, the assistant's, is rated as in `rated`",
  "messages|conversations",
  {"messages": USER + GOOD, "score": 4},
  lambda row: _is_rated(row) and not _is_open(row) and not isinstance(structure(row.get("ratings")), list),
  optional=f"system {_RATINGS}",
)
def rated_conversation(row: Row) -> Ranking:
  prompt, answer = answered(row, "there is nothing that is rated")
  return Ranking(prompt, [answer], ratings=_all_ratings(row))


@_rankings(
  "a prompt and completions, the best first; only where --format names it",
  f"{_PROMPT} completions|responses|answers",
  {"prompt": "2+2?", "completions": ["4", "four", "5"]},
  entries.never,
)
def best_first(row: Row) -> Ranking:
  found = completions(row)
  return replace(found, scores=[-float(place) for place in range(len(found.completions))])


@_rankings(
  "a prompt and completions with ranks, 1 is best",
  f"{_PROMPT} completions|responses|answers ranks|rank",
  {"prompt": "2+2?", "completions": ["4", "5", "four"], "ranks": [1, 3, 2]},
  are_lists("completions", "ranks"),
)
def ranks(row: Row) -> Ranking:
  return _numbered(row, "ranks", -1)


@_rankings(
  "a prompt and completions, and in `best` the place of the best one, from 0 (which the first rows must have)",
  f"{_PROMPT} completions|responses|answers best|best_index|chosen_index",
  {"prompt": "2+2?", "completions": ["4", "5", "four"], "best": 0},
  lambda row: isinstance(row["completions"], list) and number(row["best"], "") in range(len(row["completions"])),
  whole=lambda rows: any(number(row["best"], "") == 0 for row in rows),
)
def best(row: Row) -> Ranking:
  found, place = completions(row), number(row["best"], "best")
  scores = [float(one == place) for one in range(len(found.completions))]
  if not any(scores):
    raise RowError(f"`best` is {short(row['best'])}: it is a place from 0 to {len(scores) - 1}")
  return replace(found, scores=scores)


@_rankings(
  "a prompt, answers a and b and a list of their two scores, higher is better",
  "prompt response_a response_b scores",
  {"prompt": "2+2?", "response_a": "5", "response_b": "4", "scores": [1, 9]},
  are_lists("scores"),
)
def scored_pair(row: Row) -> Ranking:
  return _numbered(row | {"completions": [row["response_a"], row["response_b"]]}, "scores")


@_unlabeled(
  "a prompt and any number of completions, to be scored",
  "prompt completions|responses",
  {"prompt": "2+2?", "completions": ["4", "5"]},
  are_lists("completions"),
)
def completions(row: Row) -> Ranking:
  given = row["completions"]
  if not isinstance(given, list) or not given:
    raise wrong_type("completions", given, "a list of completions")
  return Ranking(prompt_of(row), [_answer(item) for item in given])


@_unlabeled(
  "a prompt and answers a and b, to be scored",
  "prompt response_a response_b",
  {"prompt": "2+2?", "response_a": "5", "response_b": "4"},
)
def pair(row: Row) -> Ranking:
  return Ranking(*prompt_and_answers(row, "prompt", "response_a", "response_b"))


@_unlabeled(
  "a prompt and an answer in steps, each of which is to be scored",
  "prompt|problem steps",
  {"prompt": "2+2+2?", "steps": ["2+2=4", "4+2=6"]},
  are_lists("steps"),
)
def steps(row: Row) -> Solution:
  return Solution(prompt_of(row), steps_of(row["steps"], "steps"))


@_unlabeled(
  "a prompt and one completion, to be scored", "prompt completion|response", {"prompt": "2+2?", "completion": "4"}
)
def completion(row: Row) -> Ranking:
  return Ranking(*prompt_and_answers(row, "prompt", "completion"))


@_unlabeled(
  "a conversation whose last message, the assistant's, is to be scored",
  "messages|conversations",
  {"messages": USER + GOOD},
)
def conversation(row: Row) -> Ranking:
  prompt, answer = answered(row, "there is nothing to score")
  return Ranking(prompt, [answer])


def answered(row: Row, otherwise: str) -> tuple[list[Message], list[Message]]:
  whole = with_system(messages_of(row["messages"], "messages"), row.get("system"))
  if not whole or whole[-1]["role"] != "assistant":
    raise RowError(f"`messages` does not end with an assistant message: {otherwise}")
  return whole[:-1], whole[-1:]


def _to_be_answered(row: Row, column: str) -> Ranking:
  asked = prompt_of(row, column)
  if asked and asked[-1]["role"] == "assistant":
    raise RowError(f"`{column}` ends with an assistant message: there is nothing to answer")
  if not any(message["content"].strip() for message in asked):
    raise RowError("the prompt is empty")
  return Ranking(asked, [])


@_open("a prompt alone, to be answered by a policy", "prompt|question|query", {"prompt": "2+2?"})
def prompt(row: Row) -> Ranking:
  return _to_be_answered(row, "prompt")


def _is_open(row: Row) -> bool:
  asked = messages_of(row["messages"], "messages")
  return bool(asked) and asked[-1]["role"] != "assistant"


@_open(
  "a conversation that ends with the user, to be answered by a policy",
  "messages|conversations",
  {"messages": USER},
  _is_open,
)
def open_conversation(row: Row) -> Ranking:
  return _to_be_answered(row, "messages")


def _hold(column: str, *names: str):

  def matches(row: Row) -> bool:
    found = objects(row.get(column))
    return found is not None and all(any(name in found[0] for name in either.split("|")) for either in names)

  return matches


def _items(row: Row, column: str, text: str, of: str) -> tuple[list[Row], list[list[Message]]]:
  found = objects(row[column])
  if found is None:
    raise wrong_type(column, row[column], f"a list of objects with {text} and {of}")
  return found, [answer_of(structure(item.get(text)), f"{column}.{text}") for item in found]


def _all_or_none(values: list[float | None], lacking: str) -> list[float] | None:
  if None not in values:
    return values
  if any(value is not None for value in values):
    raise RowError(lacking)
  return None


def _by_rank(row: Row, prompt: list[Message], column: str, text: str) -> Ranking:
  items, answers = _items(row, column, text, "rank")
  found = [number(item.get("rank"), f"{column}.rank") for item in items]
  given = _all_or_none(found, f"some of `{column}` have no rank")
  return Ranking(prompt, answers, given and [-rank for rank in given])


@_ranked(
  "Nectar: a transcript and answers with ranks, 1 is best",
  "prompt answers",
  {"prompt": "\n\nHuman: 2+2?\n\nAssistant: ", "answers": [{"answer": "5", "rank": 2}, {"answer": "4", "rank": 1}]},
  _hold("answers", "answer", "rank"),
)
def nectar(row: Row) -> Ranking:
  prompt = transcript_of(row["prompt"], "prompt") if is_transcript(row["prompt"]) else prompt_of(row)
  return _by_rank(row, with_system(unanswered(prompt), row.get("system")), "answers", "answer")


@_ranked(
  "NeMo-RL: a context and completions with ranks, 0 is best",
  "context|prompt completions",
  {"context": USER, "completions": [{"rank": 1, "completion": BAD}, {"rank": 0, "completion": GOOD}]},
  _hold("completions", "completion", "rank"),
)
def nemo_rl(row: Row) -> Ranking:
  return _by_rank(row, prompt_of(row, "context"), "completions", "completion")


@_ranked(
  "UltraFeedback: completions with an overall score, or where one is missing the mean of their ratings",
  "instruction|prompt completions",
  {
    "instruction": "2+2?",
    "completions": [{"response": "5", "overall_score": 2}, {"response": "4", "overall_score": 9}],
  },
  _hold("completions", "response", "overall_score|fine-grained_score|annotations"),
)
def ultrafeedback(row: Row) -> Ranking:
  items, answers = _items(row, "completions", "response", "overall_score")
  overall = scores = [_rating(item, "overall_score", 10) for item in items]
  if None in scores:
    scores = [_mean_rating(item) for item in items]
  lacking = "some of `completions` have neither an overall score nor ratings"
  aspects = [{"overall_score": one, **_aspects(item)} for one, item in zip(overall, items, strict=True)]
  ratings = aspects if any(len(one) > 1 for one in aspects) else None
  return replace(Ranking(prompt_of(row, "instruction"), answers, _all_or_none(scores, lacking)), ratings=ratings)


def _aspects(item: Row) -> dict[str, float | None]:
  annotations = structure(item.get("annotations")) or {}
  if not isinstance(annotations, dict):
    raise wrong_type("annotations", annotations, "an object with a Rating for each aspect")
  return {
    name: _rating(aspect, "Rating", 5 if name in ULTRAFEEDBACK else None)
    for name, aspect in annotations.items()
    if isinstance(aspect, dict)
  }


def _mean_rating(item: Row) -> float | None:
  found = [rating for rating in _aspects(item).values() if rating is not None]
  return sum(found) / len(found) if found else _rating(item, "fine-grained_score")


def _rating(item: Row, name: str, highest: int | None = 5) -> float | None:
  """highest: of a scale from 1, None for one that nobody states."""
  value = _available(item.get(name), name)
  return _within(value, name, 1, highest, "UltraFeedback") if highest else value


_SPEAKERS = {"prompter": "user", "assistant": "assistant"}


def _message(node: Row) -> Message:
  role = _SPEAKERS.get(str(node.get("role")))
  if role is None or not isinstance(node.get("text"), str):
    raise RowError(f"a message has the role {short(node.get('role'))} and the text {short(node.get('text'))}")
  return spoken(role, node["text"])


def _rows_of(path: list[Message], replies: Iterable[Row], shared: Row) -> Iterator[Row]:
  answers = [(reply, _message(reply)["content"]) for reply in replies if reply.get("role") == "assistant"]
  for ranked in (True, False) if path[-1]["role"] == "user" else ():
    chosen = [(reply, text) for reply, text in answers if (reply.get("rank") not in (None, "")) == ranked]
    if chosen:
      given = [reply["rank"] for reply, _ in chosen] if ranked else None
      yield shared | {"prompt": path, "completions": [text for _, text in chosen], "ranks": given}


def _each(numbered: Numbered, problems: Problems, rows_of: Callable[[Row], Iterable[Row]]) -> Numbered:
  found: Numbered = []
  for place, row in numbered:
    try:
      found += [(place, one) for one in list(rows_of(row))]
    except RowError as error:
      problems.append((place, str(error)))
  return found


def _without(row: Row, *names: str) -> Row:
  return {name: value for name, value in row.items() if name not in names}


def _rows_of_tree(row: Row) -> list[Row]:
  rows, open_ = [], deque([(structure(row.get("prompt")), [])])
  while open_:
    node, before = open_.popleft()
    if not isinstance(node, dict):
      raise wrong_type("prompt", node, "a message with replies")
    path, replies = [*before, _message(node)], objects(node.get("replies"))
    if replies is None and structure(node.get("replies")) not in (None, "", []):
      raise wrong_type("replies", node["replies"], "a list of messages")
    rows += _rows_of(path, replies or (), _without(row, "prompt"))
    open_ += [(reply, path) for reply in replies or ()]
  if not rows:
    raise RowError("the tree holds no answer of the assistant")
  return rows


@_ranked(
  "trees of OASST: each message of a prompter with the assistant's replies; rank 0 is best",
  "prompt",
  {
    "prompt": {"text": "2+2?", "role": "prompter"}
    | {"replies": [{"text": str(5 - rank), "role": "assistant", "rank": 1 - rank} for rank in (0, 1)]}
  },
  lambda row: isinstance(root := structure(row["prompt"]), dict) and {"text", "role", "replies"} <= root.keys(),
  optional="",
  expand=partial(_each, rows_of=_rows_of_tree),
)
def oasst_trees(row: Row) -> Ranking:
  return ranks(row)


def _flat(numbered: Numbered, problems: Problems) -> Numbered:
  """Rows of prompters become rankings of their replies."""
  nodes: dict[object, tuple[int, Row]] = {}
  replies: defaultdict[object, list[Row]] = defaultdict(list)
  for place, row in numbered:
    name, parent = row.get("message_id"), row.get("parent_id")
    if not isinstance(name, (str, int, float)) or not isinstance(parent, (str, int, float, type(None))):
      problems.append((place, f"`message_id` and `parent_id` are {short([name, parent])}, not names of messages"))
    elif name in nodes or name == "":
      problems.append((place, f"`message_id` {short(name)} is empty or occurs twice"))
    else:
      nodes[name] = place, row
      replies[parent or None].append(row)

  def rows_of(row: Row) -> Iterator[Row]:
    shared = _without(row, "text", "role", "rank", "parent_id")
    return _rows_of(_path(row, nodes), replies[row["message_id"]], shared)

  return _each(nodes.values(), problems, rows_of)


def _path(row: Row, nodes: dict[object, tuple[int, Row]]) -> list[Message]:
  path, seen = [_message(row)], {row["message_id"]}
  while row.get("parent_id") not in (None, ""):
    if row["parent_id"] not in nodes or row["parent_id"] in seen:
      what = f"its parent {short(row['parent_id'])} is not among these rows"
      raise RowError(f"{what}: name the file with whole trees, as OASST's *_trees.jsonl.gz")
    row = nodes[row["parent_id"]][1]
    seen.add(row["message_id"])
    path.insert(0, _message(row))
  return path


@_ranked(
  "messages of OASST, one a row, with the id of the message that they answer; rank 0 is best",
  "message_id parent_id text role rank",
  {"message_id": "q", "parent_id": None, "text": "2+2?", "role": "prompter", "rank": None},
  lambda row: str(row.get("role")) in _SPEAKERS,
  optional="",
  expand=_flat,
  one_piece=True,
)
def oasst_flat(row: Row) -> Ranking:
  return ranks(row)
