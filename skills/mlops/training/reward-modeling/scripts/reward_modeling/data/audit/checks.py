"""What can be wrong with comparisons, rated answers, solutions in steps and rows to be scored: a table of checks for each."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from operator import attrgetter

from ..records import Comparison, Message, Ranking, Record, Solution, answers_of, in_steps
from .findings import Check, Link, Material, each_answer, hashed, outside, table_of, where

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")
# UTF-8 read as Latin-1 or Windows-1252: a two-byte letter (Ã©, Â£), the start of a typographic sign (â€™), of an emoji (ðŸ˜€).
_MOJIBAKE = re.compile("[\u00c2\u00c3][\u0080-\u00bf]|\u00e2(?:\u20ac|\u0080)|\u00f0(?:\u0178|\u009f)")
# Escaped for HTML, where code and mark-up rarely escape: apostrophes and quotes, and what is escaped twice.
_ENTITY = re.compile("&(?:#0?39|#x27|quot|amp;(?:#?\\w+));")
# What begins or ends a turn: of HH transcripts, of ChatML, Llama 3 and DeepSeek, of Gemma, of Llama 2, of Alpaca and Vicuna.
_TURN = re.compile(
  r"(?:\A\s*|\n\n(?:\w+ )?)(?:Human|[Aa]ssistant):|<[|｜][\w▁]+[|｜]>|<(?:start|end)_of_turn>|\[/?INST\]|</s>\s*\Z"
  r"|^###\s?(?:Instruction|Response|Human|Assistant|User)\b",
  re.MULTILINE,
)
# What a chat template writes before a turn. A question may name such a token: one counts only where it opens a line, and
# one that closes a turn only where it ends the text.
_FIRST = (
  r"<s>|<bos>|<[|｜](?:begin_of_text|begin▁of▁sentence|startoftext|endoftext)[|｜]>|\[gMASK\]\s?<sop>|<BOS_TOKEN>"
)
_OPENS = (
  r"<\|im_start\|>\s*(?:system|developer|user|human|assistant|tool)\b|<\|START_OF_TURN_TOKEN\|>"
  r"|<\|(?:start_header_id|header_start)\|>\s*\w+\s*<\|(?:end_header_id|header_end)\|>"
  r"|<start_of_turn>\s*(?:user|model)\b|<\|turn>\s*(?:system|user|model)\b|<\|start\|>(?:system|developer|user|assistant)\b"
  r"|<[|｜](?i:system|user|human|assistant|prompter|observation)[|｜]>|###\s?(?:Instruction|Response|Human|Assistant|User):"
)
_TEMPLATED = re.compile(
  rf"^[^\S\n]*(?:(?:{_FIRST})\s*)?(?:{_OPENS})|\A\s*<[|｜](?:begin_of_text|begin▁of▁sentence)[|｜]>"
  r"|(?:<\|(?:im_end|eot_id|eot|end|return|end_of_text|endoftext)\|>|<end_of_turn>|<｜end▁of▁sentence｜>)\s*\Z",
  re.MULTILINE,
)
_LLAMA2 = re.compile(r"\A\s*(?:<s>\s*)?(?:\[SYSTEM_PROMPT\]|\[INST\]|<<SYS>>)")
# "Human: ... Assistant:", "USER: ... ASSISTANT:", without the empty lines that stand between the turns of a transcript.
_ASKS = re.compile(r"(?:\A|\s)(?:Human|USER|User|prompter):\s")
_REPLIES = re.compile(r"\s(?:[Aa]ssistant|ASSISTANT):(?:\s|\Z)")
_REPLY_IS_NEXT = re.compile(r"\s(?:Assistant|ASSISTANT):\s*\Z")


def is_garbled(texts: Iterable[str]) -> bool:
  return any(
    _CONTROL.search(text) or ("&" in text and _ENTITY.search(text)) or (not text.isascii() and _MOJIBAKE.search(text))
    for text in texts
  )


def is_templated(texts: Iterable[str]) -> bool:
  """A prompt that is what a chat template makes of a conversation, and would be templated twice."""
  return any(map(_is_templated, texts))


def _is_templated(text: str) -> bool:
  if _TEMPLATED.search(text) or (_LLAMA2.match(text) and "[/" in text):
    return True
  asked = _ASKS.search(text)
  if asked is None or not _REPLIES.search(text, asked.end()):
    return False
  return not text[: asked.start()].strip() or bool(_REPLY_IS_NEXT.search(text[-40:]))


def _leaks_turn(answer: str) -> bool:
  asked = answer.find(" Human: ")
  return bool(_TURN.search(answer)) or (asked >= 0 and answer.find(" Assistant: ", asked) >= 0)


def contents(messages: Sequence[Message], role: str | None = None) -> list[str]:
  return [message["content"] for message in messages if role in (None, message["role"])]


_FOLLOWS = {"start": ("user",), "user": ("assistant",), "assistant": ("user", "tool"), "tool": ("tool", "assistant")}


def says_nothing(record: Record, answer: list[Message]) -> bool:
  said = [message for message in answer if message["role"] == "assistant"]
  return not any(message["content"].strip() or message.get("tool_calls") for message in said)


def _both(record: Record, answer: list[Message]) -> bool:
  return True  # what is wrong with the prompt is wrong with both sides


def _asked(side: list[Message]) -> list[tuple[str, str]]:
  return [(message["role"], message["content"].strip()) for message in side if message["role"] in ("user", "system")]


def _is_out_of_turn(messages: list[Message]) -> bool:
  roles = [message["role"] for message in messages]
  roles = roles[1:] if roles[:1] == ["system"] else roles
  return any(role not in _FOLLOWS[before] for before, role in zip(["start", *roles], roles, strict=False))


def _longer(pair: Comparison) -> int:
  chosen, rejected = (sum(map(len, contents(side, "assistant"))) for side in (pair.chosen, pair.rejected))
  return chosen - rejected


_RATER = re.compile("annotator|rater|worker|labell?er|voter|reviewer|judge", re.IGNORECASE).search


def _again(material: Material) -> list[list[Link]]:
  """To equal records with equal ratings, of the same person where a column names people."""
  return [
    [(hashed((own, getattr(row, "ratings", 0), [row.metadata[name] for name in filter(_RATER, row.metadata)])), 1)]
    for row, own in zip(material.records, material.links, strict=True)
  ]


CHECKS = table_of(
  Check(
    "empty_answer",
    "error",
    "have an answer that says nothing",
    "A failed generation, or a column read wrongly: the model learns to score the absence of text.",
    "drop these rows, or fix the column they come from",
    **each_answer(says_nothing),
  ),
  Check(
    "no_final_answer",
    "error",
    "have a side that does not end with an assistant message",
    "The score is read at the end of the answer: of the user's or a tool's words here.",
    "cut the conversations after their last assistant message, or drop these rows",
    **each_answer(lambda pair, answer: not answer or answer[-1]["role"] != "assistant"),
  ),
  Check(
    "prompts_differ",
    "error",
    "do not ask the same on both sides",
    "A difference in reward then measures the question and not the answer.",
    "drop these rows; if all have it, the sides come from different rows of the source",
    where(lambda pair: _asked(pair.chosen) != _asked(pair.rejected)),
  ),
  Check(
    "identical",
    "error",
    "have identical chosen and rejected answers",
    "They teach nothing and count as half right at best.",
    "drop these rows",
    lambda material: [index for index, (_, one, other) in enumerate(material.keys) if one == other],
  ),
  Check(
    "duplicate",
    "warning",
    "repeat an earlier pair",
    "They count twice in training, and may be evaluated on after they were seen.",
    "drop them, unless each is the label of another person",
    links=_again,
  ),
  Check(
    "contradiction",
    "warning",
    "also occur with the opposite label",
    "No model can satisfy both: they bound the accuracy that can be reached.",
    "keep all labels of several people, of which the share is learned; else drop both",
    links=attrgetter("links"),
    opposes=True,
  ),
  Check(
    "train_eval_overlap",
    "warning",
    "have a prompt of the evaluation set (but for case and whitespace)",
    "Accuracy on prompts that were trained on says little about new ones.",
    "drop these rows from the training set",
    attrgetter("seen"),
    of_answer=_both,
  ),
  Check(
    "roles",
    "warning",
    "have roles that do not alternate",
    "Chat templates refuse such conversations, or render what the base model never saw.",
    "merge consecutive messages of one role; put the system message first and once",
    **each_answer(lambda record, answer: _is_out_of_turn(record.prompt + answer)),
    of_chat=True,
  ),
  Check(
    "leaked_turn",
    "warning",
    "have an answer that holds the marker of a turn (Human:, <|im_end|>, [INST], ...)",
    "Generation went on into the next turn, or a template was written into it: the marker predicts the label.",
    "cut the answer at the marker, or drop these rows",
    **each_answer(lambda record, answer: any(map(_leaks_turn, contents(answer, "assistant")))),
    of_chat=True,
  ),
  Check(
    "templated",
    "warning",
    "have a prompt that is templated already (<|im_start|>user, [INST], Human: ... Assistant:)",
    "The chat template is written around it a second time.",
    "give the messages alone, or use --text_format rendered",
    where(lambda pair: is_templated(contents(pair.prompt))),
    of_chat=True,
    of_answer=_both,
  ),
  Check(
    "longer_chosen",
    "info",
    "the longer answer is chosen in {count} of {total} {called} whose answers differ in length ({percent})",
    "Far from one half, length alone predicts the label, and the model may learn it.",
    "compare with the length baseline, and on pairs where the shorter answer is chosen",
    where(lambda pair: _longer(pair) > 0),
    of=lambda material: sum(_longer(pair) != 0 for pair in material.records),
    grade=outside(0.3, 0.7),
  ),
  Check(
    "negative_margin",
    "warning",
    "have a margin below zero",
    "The scores contradict the labels: the rejected answer has the higher one.",
    "check that the score columns are not swapped, or drop these rows",
    where(lambda record: record.margin is not None and record.margin < 0),
  ),
  Check(
    "encoding",
    "warning",
    "hold control or replacement characters, wrongly decoded text or HTML entities",
    "A wrong encoding once (Ã© for é, &quot;): tokens the base model hardly knows.",
    "read the source again as UTF-8 (html.unescape for entities), or drop these rows",
    where(lambda record: is_garbled(contents([*record.prompt, *chain(*answers_of(record))]))),
    of_answer=lambda record, answer: is_garbled(contents(record.prompt + answer)),
  ),
)


def _by_rating(material: Material) -> list[list[Link]]:
  """To each rating of the same answer: on a side of its own."""
  return [
    [(hashed((key, name)), 1 << hashed(one) % RATING_SIDES) for name, one in row.ratings.items() if one is not None]
    for row, key in zip(material.records, material.keys, strict=True)
  ]


RATING_SIDES = 61
"""Two different ratings are taken for equal once in so many."""
RATED_CHECKS = table_of(
  *(CHECKS[name] for name in ("empty_answer", "no_final_answer", "duplicate", "train_eval_overlap", "roles")),
  replace(
    CHECKS["contradiction"],
    what="are rated otherwise elsewhere",
    advice="keep ratings by several people, whose mean is learned",
    links=_by_rating,
  ),
  *(CHECKS[name] for name in ("leaked_turn", "templated", "encoding")),
)


def _stumbles(row: Ranking) -> bool:
  """A prompt without completions is looked at as if it were answered."""
  answers = row.completions or [[{"role": "assistant", "content": ""}]]
  return any(_is_out_of_turn(row.prompt + answer) for answer in answers)


UNLABELED_CHECKS = table_of(
  replace(CHECKS["empty_answer"], severity="warning"),
  CHECKS["duplicate"],
  CHECKS["train_eval_overlap"],
  replace(CHECKS["roles"], find=where(_stumbles)),
  *(CHECKS[name] for name in ("leaked_turn", "templated", "encoding")),
)


def _separator_inside(whitespace: bool) -> Callable[[Material], list[int]]:
  def find(material: Material) -> list[int]:
    mark = material.separator
    if not mark or mark.isspace() != whitespace:
      return []
    return where(lambda record: any(mark in step for step in record.steps))(material)

  return find


def _labeled(record: Solution) -> list[tuple[int, float]]:
  return [(end, label) for end, label in enumerate(record.labels or (), 1) if label is not None]


def _prefixes(material: Material) -> list[list[Link]]:
  """The steps to each labeled one: on one side where it is right."""
  return [
    [(hashed(key[: 1 + end]), 1 if label >= 0.5 else 2) for end, label in _labeled(record)]
    for record, key in zip(material.records, material.keys, strict=True)
  ]


def _ends_wrong(record: Solution) -> bool:
  wrong = [label < 0.5 for _, label in _labeled(record)]
  return wrong[-1:] == [True] and sum(wrong) == 1


STEP_CHECKS = table_of(
  Check(
    "separator_in_step",
    "error",
    "have a step that holds the step separator",
    "Inside a step the separator has no label: the model learns that it means nothing.",
    "choose a --step_separator that occurs in no step, or split these steps",
    _separator_inside(whitespace=False),
  ),
  Check(
    "line_break_in_step",
    "warning",
    "have a step that holds the whitespace step separator",
    "A text that is split at the separator has other steps than the training data.",
    "score steps rather than texts, or choose another --step_separator",
    _separator_inside(whitespace=True),
  ),
  CHECKS["duplicate"],
  replace(
    CHECKS["contradiction"],
    what="have a step that is labeled otherwise elsewhere, after the same steps",
    advice="average the labels to a probability, or drop these rows",
    links=_prefixes,
  ),
  *(CHECKS[name] for name in ("train_eval_overlap", "leaked_turn", "templated")),
  Check(
    "wrong_steps",
    "info",
    "{count} of {total} labeled steps are incorrect ({percent})",
    "Where nearly all steps are alike, the model learns to call all of them so.",
    "compare with the baselines that call all steps alike; consider --class_weighting balanced",
    lambda material: [i for i, row in enumerate(material.records) for _, label in _labeled(row) if label < 0.5],
    of=lambda material: sum(len(_labeled(record)) for record in material.records),
    grade=outside(0.05, 0.95),
  ),
  Check(
    "ends_at_first_error",
    "info",
    "in {count} of {total} {called} the last labeled step is the first wrong one",
    "Late steps are then wrong more often: position alone predicts some labels.",
    "compare with a baseline that looks at the position alone",
    where(_ends_wrong),
  ),
  CHECKS["encoding"],
)


REFUSED, OVER_LENGTH = "refused", "over_length"
Render = Callable[[list, list], list]
"""`BaseRenderer.render_all`: the list gets (place, error) of what cannot be rendered."""

RENDERED_CHECKS = table_of(
  Check(
    REFUSED,
    "error",
    "cannot be rendered; the first: {refused}",
    "Training and scoring stop at them.",
    "fix them, or leave them out",
  ),
  Check(
    OVER_LENGTH,
    "warning",
    "hold a conversation longer than {max_length} tokens",
    "They are dropped or truncated, by --overlong; TRL alone drops them without a count.",
    "raise --max_length, or choose what is cut with --overlong",
  ),
)


def rendered_checks(render: Render, render_steps: Render | None, max_length: int | None) -> list[Check]:
  """RENDERED_CHECKS with a model's templates. render_steps: of solutions, for their lengths."""
  flawed: dict[str, set[int]] = {REFUSED: set(), OVER_LENGTH: set()}

  def look(material: Material) -> None:
    rows = {_key(row, answer): (row, answer) for row in material.records for answer in _answers(row)}
    keys, faults = list(rows), []
    asked = [(row.prompt, answer, row.tools, row.origin) for row, answer in rows.values()]
    done = render(asked, faults)
    flawed[REFUSED] |= {keys[place] for place, _ in faults}
    material.notes["max_length"] = max_length
    if faults:
      material.notes[REFUSED] = faults[0][1].message
    if max_length is None:
      return
    if render_steps:
      done = render_steps([(row.prompt, row.steps, row.origin) for row, _ in rows.values()], [])
    lengths = [len(one.ids) if one else 0 for one in done]
    flawed[OVER_LENGTH] |= {key for key, length in zip(keys, lengths, strict=True) if length > max_length}

  def check_of(name: str) -> Check:
    def of_answer(row: Record, answer: list[Message]) -> bool:
      return _key(row, answer) in flawed[name]

    def find(material: Material) -> list[int]:
      if name == REFUSED:  # the first of the two renders for both
        look(material)
      return where(lambda row: any(of_answer(row, answer) for answer in _answers(row)))(material)

    return replace(RENDERED_CHECKS[name], find=find, of_answer=of_answer)

  return [check_of(name) for name in ([REFUSED] if max_length is None else RENDERED_CHECKS)]


def _key(row: Record, answer: list[Message]) -> int:
  return hashed((row.prompt, answer, row.tools))


def _answers(record: Record) -> list[list[Message]]:
  if isinstance(record, Solution):
    return [in_steps(record.steps)]
  return answers_of(record) or [[{"role": "assistant", "content": "-"}]]
