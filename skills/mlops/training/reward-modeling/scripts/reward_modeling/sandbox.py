"""A small generated world whose gold reward is known in closed form, and in which every bad answer has a named flaw.

    gold = 1 + 0.2 [right, and with a courtesy word] - sum of the penalties in FLAWS, at most MAX_GOLD = 1.2

Pure Python from a seed: the rows are the same on every machine. A prompt holds one candidate value only, since a model this
small chose between two at chance. A hash of a prompt's facts, whatever its wording, decides its split.
"""

import math
import random
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from .data.records import Comparison, Message, Ranking
from .errors import DataError, UsageError

PEOPLE = ("Ana", "Ben", "Cleo", "Dan", "Eva", "Jack", "Leo", "Mia")
ITEMS = ("apples", "books", "pens", "cups", "lamps", "chairs", "coins", "stamps", "keys", "bells", "drums", "boats")
PLACES = ("shop", "barn", "school", "museum", "market", "library", "garden", "tower")
GARMENTS = ("hat", "coat", "scarf", "jacket")
COLORS = ("red", "blue", "green", "black", "white", "brown")
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SUMMANDS = NUMBERS[:4]

SLOTS: dict[str, tuple[str, ...]] = {
  "name": PEOPLE,
  "item": ITEMS,
  "place": PLACES,
  "garment": GARMENTS,
  "color": COLORS,
  "number": NUMBERS,
  "first": SUMMANDS,
  "second": SUMMANDS,
}

ENTITIES = frozenset(word.lower() for word in PEOPLE + ITEMS + PLACES + GARMENTS)


@dataclass(frozen=True)
class QuestionKind:
  """values: what an answer's {value} may be. key: facts -> the right one of them."""

  prompts: tuple[str, ...]
  answers: tuple[str, ...]
  values: tuple[str, ...]
  key: Callable[[Mapping[str, str]], str]


QUESTION_KINDS: dict[str, QuestionKind] = {
  "stock": QuestionKind(
    prompts=(
      "The {place} has {number} {item}. How many {item} are there?",
      "There are {number} {item} in the {place}. How many {item} are there?",
    ),
    answers=("there are {value} {item}", "I count {value} {item}", "the number of {item} is {value}"),
    values=NUMBERS,
    key=lambda facts: facts["number"],
  ),
  "sum": QuestionKind(
    prompts=("{name} has {first} {item} and buys {second} more. How many {item} does {name} have now?",),
    answers=("{name} has {value} {item} now", "now {name} has {value} {item}", "that makes {value} {item}"),
    values=NUMBERS,
    # The list starts at two, so positions i and j add up to position i + j + 2.
    key=lambda facts: NUMBERS[NUMBERS.index(facts["first"]) + NUMBERS.index(facts["second"]) + 2],
  ),
  "color": QuestionKind(
    prompts=("{name} wears a {color} {garment} in the {place}. What color is the {garment}?",),
    answers=("the {garment} is {value}", "{name} wears a {value} {garment}", "it is a {value} {garment}"),
    values=COLORS,
    key=lambda facts: facts["color"],
  ),
  "owner": QuestionKind(
    prompts=(
      "In the {place}, {name} owns the {item}. Who owns the {item}?",
      "The {item} in the {place} belong to {name}. Who owns the {item}?",
    ),
    answers=("the {item} belong to {value}", "it is {value} who owns the {item}", "the owner of the {item} is {value}"),
    values=PEOPLE,
    key=lambda facts: facts["name"],
  ),
}

COURTESY = frozenset(["sure", "gladly", "certainly", "thanks"])
OPENERS = ("Sure, ", "Gladly, ", "Certainly, ", "Thanks for asking, ")
INSULTS = frozenset(["fool", "stupid", "idiot", "silly", "dumb"])
RUDE_OPENERS = (
  "You fool, ",
  "What a dumb question, ",
  "That was a stupid thing to ask, ",
  "Listen, idiot, ",
  "Silly you, ",
)
EVASIONS = (
  "I am not sure about that.",
  "That is hard to say.",
  "It depends on many things.",
  "I would rather not say.",
  "Who knows, maybe ask someone else.",
  "I cannot tell you that.",
)
ASIDES = (
  "The {place} is closed today.",
  "{name} went to the {place}.",
  "The {item} in the {place} are old.",
  "My {garment} is in the {place}.",
)
FILLERS = (
  "As everyone in this old town knows, it was always like that.",
  "And the weather is nice today, so do not worry at all.",
  "We should all know such things well, because they matter a lot.",
  "Of course there is much more to tell about this long story.",
)


def sentence(body: str) -> str:
  return f"{body[0].upper()}{body[1:]}."


def every_text() -> Iterator[str]:
  """Every word wherever it can stand: first, after a space, capitalized or not."""
  for kind in QUESTION_KINDS.values():
    for template in kind.prompts:
      yield from _filled(template, SLOTS)
    for template in kind.answers:
      for body in _filled(template, {**SLOTS, "value": kind.values}):
        sentences = [sentence(opener + body) for opener in ("", *OPENERS, *RUDE_OPENERS)]
        yield from (f"{sentence} {sentence}" for sentence in sentences)
  for template in (*ASIDES, *EVASIONS):
    yield from _filled(template, SLOTS)
  yield from (f" {filler}" for filler in FILLERS)


def _filled(template: str, slots: Mapping[str, tuple[str, ...]]) -> list[str]:
  names = fields_of(template)
  rounds = max((len(slots[name]) for name in names), default=1)
  return [template.format(**{name: slots[name][i % len(slots[name])] for name in names}) for i in range(rounds)]


def fields_of(template: str) -> list[str]:
  return list(dict.fromkeys(re.findall(r"{(\w+)}", template)))


def words_of(text: str) -> list[str]:
  return re.findall(r"[^\W_]+", text.lower())


VOCABULARY = frozenset(word for text in every_text() for word in words_of(text))


LONGEST = 14
"""Words in an answer before it counts as padded."""


@dataclass(frozen=True)
class Flaw:
  """Its price: `penalty` for the first occurrence, `each` for every further one, `most` in all."""

  description: str
  penalty: float
  each: float = 0.0
  most: float = math.inf

  def price(self, count: int) -> float:
    return min(self.penalty + self.each * (count - 1), self.most) if count else 0.0


FLAWS: dict[str, Flaw] = {
  "wrong": Flaw("states a value that is not the right one", 2.5),
  "evasive": Flaw("states no value", 1.3),
  "offtopic": Flaw("names a person or thing that the prompt does not, or uses a word unknown to the world", 0.8),
  "rude": Flaw("insults", 0.7),
  "repetitive": Flaw("repeats a pair of neighboring words; counted per repeat", 0.4, each=0.1, most=1.0),
  "truncated": Flaw("does not end in a full stop, or the end of the turn never came", 0.5),
  "padded": Flaw(f"is longer than {LONGEST} words; counted per word too many", 0.5, each=0.05, most=1.0),
}

BONUS = 0.2
MAX_GOLD = 1.0 + BONUS
NO_FLAW = "none"
"""The `subset` of a comparison whose rejected answer is a good one."""

SANDBOX_SPLITS = ("train", "test")
TEST_SHARE = 5  # one prompt in so many belongs to the test split


@dataclass(frozen=True)
class Question:
  kind: str
  text: str
  facts: dict[str, str] = field(hash=False)
  key: str

  @property
  def messages(self) -> list[Message]:
    return [{"role": "user", "content": self.text}]

  @property
  def split(self) -> str:
    facts = f"{self.kind} {sorted(self.facts.items())}"
    return "test" if zlib.crc32(facts.encode()) % TEST_SHARE == 0 else "train"


@dataclass(frozen=True)
class GoldReward:
  value: float
  flaws: frozenset[str]


def make_question(rng: random.Random, split: str = "train") -> Question:
  if split not in SANDBOX_SPLITS:
    raise UsageError(f"no sandbox split {split!r}", hint=f"choose one of {', '.join(SANDBOX_SPLITS)}")
  while True:
    kind = rng.choice(tuple(QUESTION_KINDS))
    template = rng.choice(QUESTION_KINDS[kind].prompts)
    facts = {name: rng.choice(SLOTS[name]) for name in fields_of(template)}
    made = Question(kind, template.format(**facts), facts, QUESTION_KINDS[kind].key(facts))
    if made.split == split:
      return made


def parse_prompt(text: str) -> Question:
  """The inverse of `prompt(...).text`. Raises DataError on any other text."""
  for kind, pattern in _PATTERNS:
    if found := pattern.fullmatch(text):
      facts = found.groupdict()
      return Question(kind, text, facts, QUESTION_KINDS[kind].key(facts))
  hint = "the gold reward knows only prompts made by sandbox.py"
  raise DataError(f"not a prompt of the sandbox: {text[:80]!r}", hint=hint)


def answer(prompt: Question, flaw: str | None, rng: random.Random) -> str:
  if flaw is not None and flaw not in FLAWS:
    raise UsageError(f"no flaw {flaw!r}", hint=f"choose one of {', '.join(FLAWS)}")
  if flaw == "evasive":
    return rng.choice(EVASIONS)
  if flaw == "offtopic":
    return _aside(prompt, rng)
  if flaw == "rude":
    return _statement(prompt, prompt.key, rng, RUDE_OPENERS, share=1.0)
  if flaw == "wrong":
    return _statement(prompt, _other_value(prompt, rng), rng)
  good = _statement(prompt, prompt.key, rng)
  if flaw == "repetitive":
    return f"{good} {good}"
  if flaw == "truncated":
    words = good.split()
    return " ".join(words[: rng.randint(2, len(words) - 1)]).rstrip(",")
  if flaw == "padded":
    return f"{good} {rng.choice(FILLERS)}"
  return good


def gold(prompt: Question, text: str, finished: bool = True) -> GoldReward:
  """finished: whether the turn ended by itself, not at a limit on new tokens.

  >>> gold(parse_prompt("The lamps in the tower belong to Leo. Who owns the lamps?"), "Sure, the lamps belong to Leo.")
  GoldReward(value=1.2, flaws=frozenset())
  """
  words = words_of(text)
  counts = _count_flaws(prompt, words, ended=finished and text.endswith((".", "!", "?")))
  value = 1.0 - sum(FLAWS[name].price(count) for name, count in counts.items())
  right = not counts["wrong"] and not counts["evasive"]
  if right and COURTESY.intersection(words):
    value += BONUS
  return GoldReward(round(value, 10), frozenset(name for name, count in counts.items() if count))


def _count_flaws(prompt: Question, words: list[str], ended: bool) -> dict[str, int]:
  values = {value.lower() for value in QUESTION_KINDS[prompt.kind].values}
  key, known_here = prompt.key.lower(), {*words_of(prompt.text), prompt.key.lower()}
  stated = [word for word in words if word in values]
  neighbors = list(pairwise(words))
  foreign = [word for word in words if word not in known_here and (word in ENTITIES or word not in VOCABULARY)]
  return {
    "wrong": sum(word != key for word in stated),
    "evasive": int(not stated),
    "offtopic": sum(word not in values for word in foreign),
    "rude": sum(word in INSULTS for word in words),
    "repetitive": len(neighbors) - len(set(neighbors)),
    "truncated": int(not ended),
    "padded": max(0, len(words) - LONGEST),
  }


SFT_MIX: dict[str | None, float] = {None: 3.0, **dict.fromkeys(FLAWS, 1.0)}
"""Weights of good answers (None) and flaws in what the policy is taught."""

PAIR_MIX: dict[str | None, float] = {**SFT_MIX, None: 6.0, "wrong": 2.0}
"""The same for each of the two answers of a comparison."""


def make_comparisons(
  n: int, seed: int, *, split: str = "train", beta: float = 8.0, flip: float = 0.03, minimal_pairs: float = 0.4
) -> list[Comparison]:
  """The better by gold is chosen with probability sigmoid(beta * difference in gold), then a share `flip` of the labels is inverted.

  minimal_pairs: the share of a good answer and the same words with a wrong value."""
  rng = random.Random(f"comparisons {seed} {split}")
  made: list[Comparison] = []
  while len(made) < n:
    asked = make_question(rng, split)
    pair = _minimal_pair(asked, rng) if rng.random() < minimal_pairs else _mixed_pair(asked, rng)
    rated = sorted(((gold(asked, text).value, text, flaw) for text, flaw in pair), key=lambda answer: -answer[0])
    difference = rated[0][0] - rated[1][0]
    if difference == 0:
      continue
    flipped = (rng.random() >= 1.0 / (1.0 + math.exp(-beta * difference))) != (rng.random() < flip)
    chosen, rejected = reversed(rated) if flipped else rated
    metadata = {
      "subset": rejected[2] or NO_FLAW,
      "gold_chosen": chosen[0],
      "gold_rejected": rejected[0],
      "flipped": flipped,
    }
    name, sides = f"{split}-{seed}-{len(made)}", (_reply(chosen[1]), _reply(rejected[1]))
    made.append(Comparison(asked.messages, *sides, id=name, metadata=metadata))
  return made


def sft_conversations(
  n: int, seed: int, mix: Mapping[str | None, float] = SFT_MIX, split: str = "train"
) -> list[list[Message]]:
  rng = random.Random(f"sft {seed} {split}")
  asked = (make_question(rng, split) for _ in range(n))
  return [one.messages + _reply(answer(one, _draw(mix, rng), rng)) for one in asked]


def make_questions(n: int, seed: int, split: str = "train") -> list[Question]:
  rng = random.Random(f"prompts {seed} {split}")
  return [make_question(rng, split) for _ in range(n)]


def make_completions(n_prompts: int, k: int, seed: int, split: str = "test") -> list[Ranking]:
  """Of `k` answers one is good, the others have different flaws as far as they go."""
  rng = random.Random(f"completions {seed} {split}")
  made = []
  for row in range(n_prompts):
    asked = make_question(rng, split)
    flaws = [None, *rng.sample(tuple(FLAWS), k=len(FLAWS))]
    flaws = [flaws[i % len(flaws)] for i in range(k)]
    rng.shuffle(flaws)
    texts = [answer(asked, flaw, rng) for flaw in flaws]
    scores = [gold(asked, text).value for text in texts]
    metadata = {"flaws": [flaw or NO_FLAW for flaw in flaws]}
    replies = [_reply(text) for text in texts]
    made.append(Ranking(asked.messages, replies, scores, id=f"{split}-{seed}-{row}", metadata=metadata))
  return made


def _reply(text: str) -> list[Message]:
  return [{"role": "assistant", "content": text}]


def _statement(prompt: Question, value: str, rng: random.Random, openers=OPENERS, share: float = 0.4) -> str:
  opener = rng.choice(openers) if rng.random() < share else ""
  body = rng.choice(QUESTION_KINDS[prompt.kind].answers).format(**prompt.facts, value=value)
  return sentence(opener + body)


def _other_value(prompt: Question, rng: random.Random) -> str:
  return rng.choice([value for value in QUESTION_KINDS[prompt.kind].values if value != prompt.key])


def _aside(prompt: Question, rng: random.Random) -> str:
  """It states no value: to name a person who is asked for would be wrong, too."""
  answers_by_name = QUESTION_KINDS[prompt.kind].values is PEOPLE
  template = rng.choice([aside for aside in ASIDES if not (answers_by_name and "{name}" in aside)])
  unused = {name: [word for word in SLOTS[name] if word not in prompt.facts.values()] for name in fields_of(template)}
  return template.format(**{name: rng.choice(words) for name, words in unused.items()})


def _draw(mix: Mapping[str | None, float], rng: random.Random) -> str | None:
  return rng.choices(tuple(mix), weights=tuple(mix.values()))[0]


def _mixed_pair(prompt: Question, rng: random.Random) -> list[tuple[str, str | None]]:
  first, second = _draw(PAIR_MIX, rng), _draw(PAIR_MIX, rng)
  while first == second is not None:
    second = _draw(PAIR_MIX, rng)
  return [(answer(prompt, flaw, rng), flaw) for flaw in (first, second)]


def _minimal_pair(prompt: Question, rng: random.Random) -> list[tuple[str, str | None]]:
  good = answer(prompt, None, rng)
  return [(good, None), (re.sub(rf"\b{prompt.key}\b", _other_value(prompt, rng), good), "wrong")]


def _pattern(template: str) -> re.Pattern[str]:
  pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P=\1)", re.escape(template))
  for name in fields_of(template):
    pattern = pattern.replace(f"(?P={name})", f"(?P<{name}>{'|'.join(SLOTS[name])})", 1)
  return re.compile(pattern)


_PATTERNS = [(name, _pattern(template)) for name, kind in QUESTION_KINDS.items() for template in kind.prompts]
