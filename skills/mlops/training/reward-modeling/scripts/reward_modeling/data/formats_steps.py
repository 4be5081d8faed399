"""Formats of answers in steps, each labeled as right or wrong: plain ones, and those of public data sets."""

import re
from functools import partial
from itertools import pairwise

from .cells import RowError, decoded, expect, short, structure, wrong_type
from .conversations import messages_of, prompt_of, spoken, with_system
from .entries import VAGUE, Format, Row, SetAsideError, are_lists, are_texts, desirable, entry, key, never, one_each
from .records import Solution

STEPS: dict[str, Format] = {}
PUBLISHED_STEPS: dict[str, Format] = {}
_steps, _published = partial(entry, STEPS), partial(entry, PUBLISHED_STEPS, optional="")

ZERO_RATED = {"good": 1.0, "bad": 0.0, "ignore": None}
"""What a step rated 0, neither right nor wrong, is taken for."""
STEP_TAG = "ки"
"""In Math-Shepherd after each step, where the label's text has + or -."""
_TAG = f"(?<![Ѐ-ӿ]){STEP_TAG}(?![Ѐ-ӿ])"
"""Not inside a Russian word."""
_TAGGED_TEXT = re.compile(rf"{_TAG}\s*$|<extra_0>", re.MULTILINE)
_FIRST_STEP = re.compile(r"(?:#+ *|\*\*)?\bstep *1\b *[:.)]", re.IGNORECASE)
MARKS = {"+": 1.0, "-": 0.0}
_SUM, _WRONG = "2+2+2?", ["2+2=4", "4+2=7"]
_WRONG_SUM = {"prompt": _SUM, "completions": _WRONG}
_BEN = ("Steps", "First_Error_Step", "Correctness")
_BEN_STEPS, _BEN_ERROR, _BEN_VERDICT = (f"Model_Solution_{name}" for name in _BEN)
_TAGGED = "2+2+2? Step 1: 2+2=4 {}\nStep 2: 4+2=7 {}"


def steps_of(value, column: str) -> list[str]:
  if not isinstance(value, list) or not value or not all(isinstance(step, str) for step in value):
    raise wrong_type(column, value, "a list of steps in text")
  empty = [place for place, step in enumerate(value, 1) if not step.strip()]
  if empty:
    raise RowError(f"step {empty[0]} of `{column}` is empty")
  return value


def _one_a_step(value, column: str, steps: list[str]) -> list:
  return one_each(value, column, "a list with an entry for each step", len(steps), "steps")


def _is_share(label) -> bool:
  return isinstance(label, (int, float)) and 0 <= label <= 1


def _by_word(label):
  said = desirable(label, VAGUE) if isinstance(label, str) else None
  return label if said is None else -1 if key(label) == "-1" else said


def _labels(row: Row, steps: list[str]) -> list[float | None]:
  """One label a step, or null. A list that ends with the first error leaves the rest without; -1 is wrong."""
  value = expect(row["labels"], list, "labels", "a list with an entry for each step")
  typed = {isinstance(label, bool) for label in value if not isinstance(label, str | None)}
  value = [_by_word(label) for label in value]
  if value and value[-1] in (0, -1) and all(label and label != -1 for label in value[:-1]):
    value += [None] * (len(steps) - len(value))
  given = [label for label in _one_a_step(value, "labels", steps) if label is not None]
  if -1 in given:
    return [_rated(label, place, row) for place, label in enumerate(value, 1)]
  if len(typed) > 1:
    raise RowError("`labels` mixes true or false with numbers")
  if not given:
    raise RowError("`labels` holds nothing but null")
  for label in given:
    if not _is_share(label):
      raise RowError(
        f"`labels` holds {short(label)}: expected true or false, 0 or 1, + or -, or probabilities (other scales: map them to 0..1)"
      )
  return [None if label is None else float(label) for label in value]


def _rated_too(rows: list[Row]) -> str | None:
  """Whether 0 is neutral, as beside -1, or wrong, can't be seen in its own row."""
  lists = [labels for row in rows if isinstance(labels := row.get("labels"), list)]
  if not any(-1 in labels for labels in lists) or not any(0 in labels and -1 not in labels for labels in lists):
    return None
  return "`labels` holds -1 in some rows and 0 in others: --columns ratings=labels --neutral bad, good or ignore says what 0 means"


@_steps(
  "a prompt and steps with one label each, or up to the first error (TRL, axolotl): true or false, 0 or 1, -1 or 1, + or -, "
  "probabilities, null for no label",
  "prompt|question|problem completions|steps labels|step_labels",
  _WRONG_SUM | {"labels": [True, False]},
  are_lists("completions", "labels"),
  ask=_rated_too,
)
def stepwise(row: Row) -> Solution:
  steps = steps_of(row["completions"], "completions")
  return Solution(prompt_of(row), steps, _labels(row, steps) if "labels" in row else None)


class NeutralError(RowError):
  """A step is rated 0 and nobody has said what that means."""


def _rated(rating, place: int, row: Row) -> float | None:
  if rating is None:
    return None
  if isinstance(rating, bool) or rating not in (-1, 0, 1):
    raise RowError(f"step {place} is rated {short(rating)}: expected -1, 0 or 1")
  neutral = row.get("neutral")
  if rating == 0 and neutral is None:
    raise NeutralError(f"step {place} is rated 0, neither right nor wrong: say what that means with --neutral")
  return ZERO_RATED[neutral] if rating == 0 else float(rating == 1)


@_steps(
  "a prompt and steps rated -1, 0 or 1; what 0 means is said with --neutral",
  "prompt|question|problem completions|steps ratings",
  _WRONG_SUM | {"ratings": [1, -1]},
  are_lists("completions", "ratings"),
)
def ratings(row: Row) -> Solution:
  steps = steps_of(row["completions"], "completions")
  given = _one_a_step(row["ratings"], "ratings", steps)
  return Solution(prompt_of(row), steps, [_rated(rating, place, row) for place, rating in enumerate(given, 1)])


@_published(
  "PRM800K: the solution that its labeler followed, then each rated alternative of a step after the steps before it, "
  "without their labels; what 0 means is said with --neutral",
  "question label",
  {
    "question": {"problem": _SUM},
    "label": {"steps": [{"completions": [{"text": "2+2=4", "rating": 1}], "chosen_completion": 0}]},
  },
  lambda row: all(isinstance(structure(row[name]), dict) for name in ("question", "label")) and "steps" in row["label"],
  optional="is_quality_control_question is_initial_screening_question",
)
def prm800k(row: Row) -> list[Solution]:
  """Every rating labels one step of one solution. Raises SetAsideError for rows that checked the labelers."""
  for kind in ("quality_control", "initial_screening"):
    if row.get(f"is_{kind}_question"):
      raise SetAsideError(kind.replace("_", " "))
  try:
    prompt = prompt_of({"prompt": structure(row["question"])["problem"]})
    found = _labeled_solutions(row | {"label": structure(row["label"])})
  except (KeyError, TypeError, IndexError, AttributeError) as error:
    raise RowError(f"the row is not as in PRM800K: {type(error).__name__} at {error}") from None
  return [Solution(prompt, steps_of(texts, "label.steps"), labels) for texts, labels in found]


def _labeled_solutions(row: Row) -> list[tuple[list[str], list[float | None]]]:
  steps, labels, others = [], [], []
  for place, step in enumerate(row["label"]["steps"], 1):
    followed, last = _followed(step, place)
    for other in step["completions"] or []:
      label = None if other is followed else _rated(other["rating"], place, row)
      if label is not None:
        others.append(([*steps, other["text"]], [None] * len(steps) + [label]))
    if followed is not None:
      steps.append(followed["text"])
      labels.append(_rated(followed["rating"], place, row))
    if last:
      break
  return [(steps, labels), *others]


def _followed(step: Row, place: int) -> tuple[Row | None, bool]:
  """The right completion and False; where there is none, the one rated worst, if any, and True: the solution ends with it."""
  given, chosen, by_hand = step["completions"] or [], step.get("chosen_completion"), step.get("human_completion")
  if chosen is None and by_hand:
    return {"text": by_hand["text"] if isinstance(by_hand, dict) else by_hand, "rating": 1}, False
  if chosen is None:
    return min(given, key=lambda one: 2 if one["rating"] is None else one["rating"], default=None), True
  if type(chosen) is not int or not 0 <= chosen < len(given):
    expected = f"expected the place of one of {len(given)} completions, counted from 0, or null"
    raise RowError(f"`chosen_completion` of step {place} is {short(chosen)}: {expected}")
  return given[chosen], False


def _solution(texts: list[str], column: str, labels: list[float], system: str | None = None) -> Solution:
  """The first text still holds the problem, before "Step 1:", or on lines or in a question of its own."""
  text = texts[0].strip() if texts else ""
  first = _FIRST_STEP.search(text)
  ends = [text.rfind("\n\n"), text.rfind("\n"), text.rfind("? ") + 1]
  cut = first.start() if first else next((end for end in ends if end > 0), 0)
  problem = text[:cut].strip()
  if not problem and not (first and system):
    if first:
      raise RowError(f"`{column}` has no problem before 'Step 1:'")
    raise RowError(f"`{column}` starts with what is one line without 'Step 1:' or a question: where is the problem?")
  asked = [spoken("user", problem)] if problem else []
  steps = [text[cut:].strip(), *(text.strip() for text in texts[1:])]
  return Solution(with_system(asked, system), steps_of(steps, column), labels)


def _is_list(value) -> bool:
  return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("["))


def _before_tags(row: Row) -> list[str]:
  *pieces, rest = re.split(_TAG, expect(row["input"], str, "input", "text"))
  if rest.strip():
    raise RowError(f"`input` does not end with the step tag {STEP_TAG}")
  return pieces


@_published(
  "a problem and steps in one text, a tag after each, and a list with +, -, true, false or a probability for each (OpenRLHF, ER-PRM)",
  "input|text labels|value|label",
  {"input": _TAGGED.format(STEP_TAG, STEP_TAG), "labels": ["+", "-"]},
  lambda row: are_texts("input")(row) and re.search(_TAG, row["input"]) and _is_list(row["labels"]),
)
def tagged_steps(row: Row) -> Solution:
  steps = _before_tags(row)
  labels = _labels(row | {"labels": decoded(row["labels"], "labels")}, steps)
  return _solution(steps, "input", labels)


_PROBLEM, _EACH = "prompt|question|problem|query", "labels|label|step_labels"
_ANSWER = "response|completion|process|solution|answer"


def _pieces(row: Row) -> list[str]:
  """At the tags, else at the line breaks that make as many pieces as there are labels."""
  text = expect(row["response"], str, "response", "text")
  count = len(expect(row["labels"], list, "labels", "a list with an entry for each step"))
  for gap in (f"{_TAG}|<extra_0>",) if _TAGGED_TEXT.search(text) else ("\n\n", "\n"):
    pieces = [piece.strip() for piece in re.split(gap, text) if piece.strip()]
    if len(pieces) == count:
      break
  return pieces


def _is_labeled(row: Row) -> bool:
  return are_texts("response")(row) and isinstance(row["labels"], list)


@_published(
  "a problem, an answer whose steps end with a tag (ки, <extra_0>), and a list with a label for each",
  f"{_PROBLEM} {_ANSWER} {_EACH}|value",
  {"question": _SUM, "response": f"2+2=4 {STEP_TAG}\n4+2=7 {STEP_TAG}", "labels": [1, 0]},
  lambda row: _is_labeled(row) and _TAGGED_TEXT.search(row["response"]),
  optional="system",
)
def steps_in_text(row: Row) -> Solution:
  steps = _pieces(row)
  return Solution(prompt_of(row), steps, _labels(row, steps))


def _fit_lines(row: Row) -> bool:
  labels = map(_by_word, row["labels"])
  return len(_pieces(row)) == len(row["labels"]) and all(one in (None, -1) or _is_share(one) for one in labels)


@_published(
  "the same with the steps at line breaks, in all of the first rows",
  f"{_PROBLEM} {_ANSWER} {_EACH}",
  {"question": _SUM, "response": "\n\n".join(_WRONG), "labels": [1, 0]},
  lambda row: _is_labeled(row) and _fit_lines(row),
  optional="system",
  whole=lambda rows: any(row["labels"][1:] for row in rows),
)
def steps_on_lines(row: Row) -> Solution:
  return steps_in_text(row)


def _is_marked(value) -> bool:
  turns = messages_of(value, "")
  turns = turns[1:] if turns and turns[0]["role"] == "system" else turns
  return len(turns) > 1 and all(turn["content"].strip() in MARKS for turn in turns[1::2])


@_published(
  "a conversation in which the user says the problem and step after step, and + or - answers each (RLHFlow)",
  "conversations|messages",
  {
    "conversations": [
      *(spoken("user", "2+2+2? Step 1: 2+2=4"), spoken("assistant", "+")),
      *(spoken("user", "Step 2: 4+2=7"), spoken("assistant", "-")),
    ]
  },
  lambda row: _is_marked(row["conversations"]),
)
def marked_turns(row: Row) -> Solution:
  turns = messages_of(row["conversations"], "conversations")
  system = turns.pop(0)["content"] if turns and turns[0]["role"] == "system" else None
  spoken = [turn["content"].strip() for turn in turns]
  for place, turn in enumerate(turns):
    role, wanted = ("assistant", "+ or -") if place % 2 else ("user", "a step")
    if turn["role"] != role or (place % 2 and spoken[place] not in MARKS):
      raise RowError(f"turn {place + 1} of `conversations` is not {wanted}")
  if len(turns) % 2:
    raise RowError("the last step of `conversations` has no + or -")
  return _solution(spoken[::2], "conversations", [MARKS[mark] for mark in spoken[1::2]], system)


@_published(
  "Math-Shepherd: a problem and steps in one text, a tag after each, and that text with + or - for each tag",
  "input label",
  {"input": _TAGGED.format(STEP_TAG, STEP_TAG), "label": _TAGGED.format("+", "-")},
  lambda row: are_texts("input", "label")(row) and re.search(_TAG, row["input"]),
)
def math_shepherd(row: Row) -> Solution:
  steps, label, labels = _before_tags(row), expect(row["label"], str, "label", "text"), []
  for place, step in enumerate(steps, 1):
    mark = label[len(step) : len(step) + 1]
    if not label.startswith(step) or mark not in MARKS:
      raise RowError(f"`label` does not repeat step {place} of `input` with + or - after it")
    labels.append(MARKS[mark])
    label = label[len(step) + 1 :]
  return _solution(steps, "input", labels)


def _up_to(error: int | None, count: int) -> list[float | None]:
  return [1.0] * count if error is None else [1.0] * error + [0.0] + [None] * (count - error - 1)


_FIRST_ERROR = "label|first_error_step|first_incorrect_step|error_step"


def _counted_from(rows: list[Row]) -> str | None:
  """ProcessBench counts from 0: twenty errors of which none is in the first step are rare."""
  found = [(key(row.get("label")), row.get("steps")) for row in rows]
  wrong = [(int(label), len(steps)) for label, steps in found if label.isdecimal() and isinstance(steps, list)]
  if all(error != count for error, count in wrong) and (len(wrong) < 20 or any(error == 0 for error, _ in wrong)):
    return None
  return (
    "the first error is the number of steps in some rows, or never 0: --format first_error_from_1 counts from 1 (0, -1 or "
    "null: none), --format processbench from 0 (-1: none)"
  )


@_published(
  "a problem, steps, and the place of the first error, counted from 0, or -1 (ProcessBench)",
  f"problem|prompt|question steps {_FIRST_ERROR}",
  {"problem": _SUM, "steps": _WRONG, "label": 1},
  are_lists("steps"),
  ask=_counted_from,
)
def processbench(row: Row, start: int = 0) -> Solution:
  steps, error = steps_of(row["steps"], "steps"), row.get("label")
  none = error in (None, "") or key(error) in ("-1", str(start - 1))
  if not none and (isinstance(error, bool) or key(error) not in map(str, range(start, start + len(steps)))):
    raise RowError(
      f"`label` is {short(error)}: expected the place of the first error in {len(steps)} steps, counted from {start}, or -1 for none"
    )
  return Solution(prompt_of(row, "problem"), steps, _up_to(None if none else int(key(error)) - start, len(steps)))


@_published(
  "the same counted from 1, or 0, -1 or null; only where --format names it",
  f"problem|prompt|question steps {_FIRST_ERROR}",
  {"problem": _SUM, "steps": _WRONG, "label": 2},
  never,
)
def first_error_from_1(row: Row) -> Solution:
  return processbench(row, 1)


@_published(
  "a question, steps, and the place of the first mistake, counted from 0, null for none (BIG-Bench Mistake)",
  "input steps mistake_index",
  {"input": _SUM, "steps": _WRONG, "mistake_index": 1},
  are_lists("steps"),
)
def big_bench_mistake(row: Row) -> Solution:
  return processbench(row | {"problem": row["input"], "label": row.get("mistake_index")})


@_published(
  "a question, steps, and the places of those into which errors were put, counted from 1 (PRMBench)",
  "modified_question|question modified_process error_steps",
  {"modified_question": _SUM, "modified_process": _WRONG, "error_steps": [2]},
  lambda row: _is_list(row["modified_process"]) and _is_list(row["error_steps"]),
  optional="question",
)
def prmbench(row: Row) -> Solution:
  """Places after the last step, which a hundred rows have, are ignored, as the benchmark does."""
  steps, wrong = decoded(row["modified_process"], "steps"), decoded(row["error_steps"], "labels")
  steps = steps_of(steps, "modified_process")
  if not isinstance(wrong, list) or not all(type(place) is int and place > 0 for place in wrong):
    raise wrong_type("error_steps", wrong, "a list of places, counted from 1")
  labels = [float(place not in wrong) for place in range(1, len(steps) + 1)]
  return Solution(prompt_of(row, "modified_question"), steps, labels)


@_published(
  "a question with options, steps and the number of the first wrong one, or N/A (Mr-Ben)",
  f"Question {_BEN_STEPS} {_BEN_ERROR} {_BEN_VERDICT}",
  {
    **{"Question": _SUM, "Options": "A: 6\nB: 7", _BEN_STEPS: ["Step 1: 2+2=4", "Step 2: 4+2=7"]},
    **{_BEN_VERDICT: "incorrect", _BEN_ERROR: "2"},
  },
  lambda row: _is_list(row[_BEN_STEPS]),
  optional="Options",
)
def mr_ben(row: Row) -> Solution:
  """Lines without a number belong to the step before them, or to the first; empty ones are left out."""
  given = expect(decoded(row[_BEN_STEPS], "steps"), list, _BEN_STEPS, "a list of steps in text")
  places = [place for place, line in enumerate(given, 1) if not isinstance(line, str) or line.strip()]
  steps = steps_of([given[place - 1] for place in places], _BEN_STEPS)
  numbered = [re.match(r"\s*S?tep\s*(\d+)\s*[:.]", line) for line in steps]
  if any(numbered):
    starts = [at for at, found in enumerate(numbered) if found]
    places = [int(numbered[at][1]) for at in starts]
    steps = ["\n".join(steps[at:end]) for at, end in pairwise([0, *starts[1:], None])]
    if places != list(range(1, len(steps) + 1)):
      raise RowError("the steps are not numbered 1, 2, 3, ...: the number of the first error cannot be placed")
  prompt, options = prompt_of(row, "Question"), row.get("Options")
  if isinstance(options, str) and options.strip():
    prompt = prompt_of({"prompt": f"{row['Question']}\n\n{options.strip()}"})
  return Solution(prompt, steps, _up_to(_first_error(row, places), len(steps)))


def _first_error(row: Row, places: list[int]) -> int | None:
  verdict, error = str(row[_BEN_VERDICT]).strip().lower(), str(row[_BEN_ERROR]).strip()
  if verdict not in ("correct", "incorrect"):
    raise RowError(f"`{_BEN_VERDICT}` is {short(verdict)}, not correct or incorrect")
  if verdict == "correct":
    if error not in ("N/A", "NA", ""):
      raise RowError(f"a correct solution has a first error step ({short(error)})")
    return None
  if not re.fullmatch(r"[1-9]\d{0,5}", error) or int(error) not in places:
    raise RowError(f"`{_BEN_ERROR}` is {short(error)}: expected the number of one of {len(places)} steps")
  return places.index(int(error))
