"""What is said in the sandbox's world: its words, its questions, and the sentences that answer them."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

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
"""What each {field} of a template may be."""

ENTITIES = frozenset(word.lower() for word in PEOPLE + ITEMS + PLACES + GARMENTS)


@dataclass(frozen=True)
class QuestionKind:
    """One kind of question. values: what an answer's {value} may be. key: facts -> the right one of them."""

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
        answers=(
            "the {item} belong to {value}",
            "it is {value} who owns the {item}",
            "the owner of the {item} is {value}",
        ),
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
