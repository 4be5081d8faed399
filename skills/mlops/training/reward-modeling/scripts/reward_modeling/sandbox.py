"""A small generated world whose gold reward is known in closed form, and in which every bad answer has a named flaw.

    prompt   The lamps in the tower belong to Leo. Who owns the lamps?
    answer   Sure, the lamps belong to Leo.                                  gold  1.2
             Sure, the lamps belong to Mia.                       wrong      gold -1.5

    gold = 1 + 0.2 [right, and with a courtesy word] - sum of the penalties in FLAWS, at most MAX_GOLD = 1.2

`gold` reads nothing but the two texts (`parse_prompt` recovers the facts from the stored prompt), so whatever a
policy writes later can be judged. Generation is pure Python from a seed; the rows are the same on every machine.

What the world does not show. A prompt holds one candidate value only: worlds with two candidates of a kind ("the lamps
belong to Leo, the drums to Mia") were tried, and a model this small chose between them at chance. So `wrong` tests
copying and adding, not reading comprehension. And `minimal_pairs` in `comparisons` is a helping hand by the designer:
those pairs differ in the value alone, built knowing what `wrong` means; real preference data hold no such thing.

Train and test prompts are disjoint by construction: a hash of a prompt's facts, whatever its wording, decides its split.

The second half makes everything a reward model or a policy needs from nothing, with the settings of quickstart and tests:

    base_model("runs/sandbox/base", seed=0)     # tokenizer and decoder, an ordinary folder, in about twenty CPU seconds
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import DataError, UsageError
from .data.records import Comparison, Message, Ranking

NAMES = ("Ana", "Ben", "Cleo", "Dan", "Eva", "Jack", "Leo", "Mia")
ITEMS = ("apples", "books", "pens", "cups", "lamps", "chairs", "coins", "stamps", "keys", "bells", "drums", "boats")
PLACES = ("shop", "barn", "school", "museum", "market", "library", "garden", "tower")
GARMENTS = ("hat", "coat", "scarf", "jacket")
COLORS = ("red", "blue", "green", "black", "white", "brown")
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SUMMANDS = NUMBERS[:4]

SLOTS: dict[str, tuple[str, ...]] = {
    "name": NAMES,
    "item": ITEMS,
    "place": PLACES,
    "garment": GARMENTS,
    "color": COLORS,
    "number": NUMBERS,
    "first": SUMMANDS,
    "second": SUMMANDS,
}
"""What each {field} of a template may be."""

ENTITIES = frozenset(word.lower() for word in NAMES + ITEMS + PLACES + GARMENTS)


@dataclass(frozen=True)
class Kind:
    """One kind of question. `values`: what may stand in an answer's {value}; `key`: facts -> the right one of them."""

    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    values: tuple[str, ...]
    key: Callable[[Mapping[str, str]], str]


def _sum(facts: Mapping[str, str]) -> str:
    """The sum of two of NUMBERS. The list starts at two, so positions i and j add up to position i + j + 2."""
    return NUMBERS[NUMBERS.index(facts["first"]) + NUMBERS.index(facts["second"]) + 2]


KINDS: dict[str, Kind] = {
    "stock": Kind(
        prompts=(
            "The {place} has {number} {item}. How many {item} are there?",
            "There are {number} {item} in the {place}. How many {item} are there?",
        ),
        answers=("there are {value} {item}", "I count {value} {item}", "the number of {item} is {value}"),
        values=NUMBERS,
        key=lambda facts: facts["number"],
    ),
    "sum": Kind(
        prompts=("{name} has {first} {item} and buys {second} more. How many {item} does {name} have now?",),
        answers=("{name} has {value} {item} now", "now {name} has {value} {item}", "that makes {value} {item}"),
        values=NUMBERS,
        key=_sum,
    ),
    "color": Kind(
        prompts=("{name} wears a {color} {garment} in the {place}. What color is the {garment}?",),
        answers=("the {garment} is {value}", "{name} wears a {value} {garment}", "it is a {value} {garment}"),
        values=COLORS,
        key=lambda facts: facts["color"],
    ),
    "owner": Kind(
        prompts=(
            "In the {place}, {name} owns the {item}. Who owns the {item}?",
            "The {item} in the {place} belong to {name}. Who owns the {item}?",
        ),
        answers=(
            "the {item} belong to {value}",
            "it is {value} who owns the {item}",
            "the owner of the {item} is {value}",
        ),
        values=NAMES,
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
LONGEST = 14
"""Words in an answer before it counts as padded; no good answer reaches it."""


@dataclass(frozen=True)
class Flaw:
    """What is wrong, and its price: `penalty` for the first occurrence, `each` for every further one, `most` in all."""

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
    "repetitive": Flaw("repeats a pair of neighbouring words; counted per repeat", 0.4, each=0.1, most=1.0),
    "truncated": Flaw("does not end in a full stop, or the end of the turn never came", 0.5),
    "padded": Flaw(f"is longer than {LONGEST} words; counted per word too many", 0.5, each=0.05, most=1.0),
}
"""Name -> entry. An answer that states the right value and has no flaw is worth 1."""

BONUS = 0.2
MAX_GOLD = 1.0 + BONUS
NO_FLAW = "none"
"""The `subset` of a comparison whose rejected answer is a good one (label noise, or the less courteous of two)."""

SPLITS = ("train", "test")
TEST_SHARE = 5
"""One prompt in this many belongs to the test split."""


@dataclass(frozen=True)
class Prompt:
    """A question, the facts it was made from, and the right value, `key`."""

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
    """The gold reward of one answer, and which of FLAWS it has."""

    value: float
    flaws: frozenset[str]


def prompt(rng: random.Random, split: str = "train") -> Prompt:
    """A random prompt of one split. Raises UsageError when there is no such split."""
    if split not in SPLITS:
        raise UsageError(f"no sandbox split {split!r}", hint=f"choose one of {', '.join(SPLITS)}")
    while True:
        kind = rng.choice(tuple(KINDS))
        template = rng.choice(KINDS[kind].prompts)
        facts = {name: rng.choice(SLOTS[name]) for name in _fields(template)}
        made = Prompt(kind, template.format(**facts), facts, KINDS[kind].key(facts))
        if made.split == split:
            return made


def parse_prompt(text: str) -> Prompt:
    """The prompt that a text was made from: the inverse of `prompt(...).text`. Raises DataError on any other text."""
    for kind, pattern in _PATTERNS:
        if found := pattern.fullmatch(text):
            facts = found.groupdict()
            return Prompt(kind, text, facts, KINDS[kind].key(facts))
    raise DataError(
        f"not a prompt of the sandbox: {text[:80]!r}", hint="the gold reward knows only prompts made by sandbox.py"
    )


def answer(prompt: Prompt, flaw: str | None, rng: random.Random) -> str:
    """An answer with the named flaw, or a good one for None. It may bring a second flaw along: an answer cut before
    the value is evasive too. Raises UsageError on an unknown flaw."""
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


def gold(prompt: Prompt, text: str, finished: bool = True) -> GoldReward:
    """1 + 0.2 [right value and a courtesy word] - the penalties of the flaws found, from the texts alone.

    `finished`: whether the turn ended by itself, rather than at a limit on new tokens. Case and digits: words are
    compared in lower case, and numbers count as written words only, as the world writes them.

    >>> gold(parse_prompt("The lamps in the tower belong to Leo. Who owns the lamps?"), "Sure, the lamps belong to Leo.")
    GoldReward(value=1.2, flaws=frozenset())
    """
    words = _words(text)
    counts = _count_flaws(prompt, words, ended=finished and text.endswith((".", "!", "?")))
    value = 1.0 - sum(FLAWS[name].price(count) for name, count in counts.items())
    right = not counts["wrong"] and not counts["evasive"]
    if right and COURTESY.intersection(words):
        value += BONUS
    return GoldReward(round(value, 10), frozenset(name for name, count in counts.items() if count))


def _count_flaws(prompt: Prompt, words: list[str], ended: bool) -> dict[str, int]:
    """How often each flaw occurs; the words are in lower case."""
    values = {value.lower() for value in KINDS[prompt.kind].values}
    key, known_here = prompt.key.lower(), {*_words(prompt.text), prompt.key.lower()}
    stated = [word for word in words if word in values]
    neighbours = list(pairwise(words))
    foreign = [word for word in words if word not in known_here and (word in ENTITIES or word not in WORDS)]
    return {
        "wrong": sum(word != key for word in stated),
        "evasive": int(not stated),
        "offtopic": sum(word not in values for word in foreign),
        "rude": sum(word in INSULTS for word in words),
        "repetitive": len(neighbours) - len(set(neighbours)),
        "truncated": int(not ended),
        "padded": max(0, len(words) - LONGEST),
    }


SFT_MIX: dict[str | None, float] = {None: 3.0, **dict.fromkeys(FLAWS, 1.0)}
"""Weights of good answers (None) and of each flaw in what the tiny policy is taught: 30 % good, 10 % each flaw."""

FLAWED_MIX: dict[str | None, float] = {None: 2.0, **dict.fromkeys(FLAWS, 1.0), "evasive": 6.0, "offtopic": 3.0}
"""The same for a policy whose most likely answer is a flawed one: 2 good answers in 16, evasions the commonest. What
reinforcement learning gains here is more than making the likely likelier."""

PAIR_MIX: dict[str | None, float] = {None: 6.0, **dict.fromkeys(FLAWS, 1.0), "wrong": 2.0}
"""The same for each of the two answers of a comparison."""


def comparisons(
    n: int, seed: int, *, split: str = "train", beta: float = 8.0, flip: float = 0.03, minimal_pairs: float = 0.4
) -> list[Comparison]:
    """`n` labelled pairs. The better answer by gold is chosen with probability sigmoid(beta * difference in gold),
    the Bradley-Terry model with noise; then a share `flip` of the labels is turned round.

    beta=math.inf, flip=0 gives clean labels; a share `minimal_pairs` are a good answer and the same words with a wrong
    value. metadata: subset (the flaw that the rejected answer was made with, or "none"), gold_chosen, gold_rejected,
    flipped (the label contradicts the gold order).
    """
    rng = random.Random(f"comparisons {seed} {split}")
    made: list[Comparison] = []
    while len(made) < n:
        asked = prompt(rng, split)
        pair = _minimal_pair(asked, rng) if rng.random() < minimal_pairs else _mixed_pair(asked, rng)
        rated = sorted(((gold(asked, text).value, text, flaw) for text, flaw in pair), key=lambda answer: -answer[0])
        difference = rated[0][0] - rated[1][0]
        if difference == 0:
            continue
        flipped = (rng.random() >= better_wins(difference, beta)) != (rng.random() < flip)
        chosen, rejected = reversed(rated) if flipped else rated
        metadata = {
            "subset": rejected[2] or NO_FLAW,
            "gold_chosen": chosen[0],
            "gold_rejected": rejected[0],
            "flipped": flipped,
        }
        row = Comparison(
            asked.messages, _reply(chosen[1]), _reply(rejected[1]), id=f"{split}-{seed}-{len(made)}", metadata=metadata
        )
        made.append(row)
    return made


def better_wins(difference: float, beta: float) -> float:
    """sigmoid(beta * difference), difference > 0: how often a noisy judge prefers the answer with more gold."""
    return 1.0 / (1.0 + math.exp(-beta * difference))


def sft_conversations(
    n: int, seed: int, mix: Mapping[str | None, float] = SFT_MIX, split: str = "train"
) -> list[list[Message]]:
    """`n` conversations of one question and one answer, whose quality is drawn from `mix`."""
    rng = random.Random(f"sft {seed} {split}")
    made = []
    for _ in range(n):
        asked = prompt(rng, split)
        made.append(asked.messages + _reply(answer(asked, _draw(mix, rng), rng)))
    return made


def prompts(n: int, seed: int, split: str = "train") -> list[Prompt]:
    """`n` questions for a policy to answer."""
    rng = random.Random(f"prompts {seed} {split}")
    return [prompt(rng, split) for _ in range(n)]


def completions(n_prompts: int, k: int, seed: int, split: str = "test") -> list[Ranking]:
    """`n_prompts` prompts with `k` answers each, to be scored: one good, the others with different flaws as far as they
    go. `scores` is the gold reward; metadata: flaws, in the order of the completions."""
    rng = random.Random(f"completions {seed} {split}")
    made = []
    for row in range(n_prompts):
        asked = prompt(rng, split)
        flaws = [None, *rng.sample(tuple(FLAWS), k=len(FLAWS))]
        flaws = [flaws[i % len(flaws)] for i in range(k)]
        rng.shuffle(flaws)
        texts = [answer(asked, flaw, rng) for flaw in flaws]
        scores = [gold(asked, text).value for text in texts]
        metadata = {"flaws": [flaw or NO_FLAW for flaw in flaws]}
        replies = [_reply(text) for text in texts]
        made.append(Ranking(asked.messages, replies, scores, id=f"{split}-{seed}-{row}", metadata=metadata))
    return made


def every_text() -> Iterator[str]:
    """Texts that hold every word of the world wherever it can stand: first, after a space, capitalised or not."""
    for kind in KINDS.values():
        for template in kind.prompts:
            yield from _filled(template, SLOTS)
        for template in kind.answers:
            for body in _filled(template, {**SLOTS, "value": kind.values}):
                sentences = [_sentence(opener + body) for opener in ("", *OPENERS, *RUDE_OPENERS)]
                yield from (f"{sentence} {sentence}" for sentence in sentences)
    for template in (*ASIDES, *EVASIONS):
        yield from _filled(template, SLOTS)
    yield from (f" {filler}" for filler in FILLERS)


def _filled(template: str, slots: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The template filled so that each of its fields takes each of its words at least once."""
    names = _fields(template)
    rounds = max((len(slots[name]) for name in names), default=1)
    return [template.format(**{name: slots[name][i % len(slots[name])] for name in names}) for i in range(rounds)]


def _fields(template: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r"{(\w+)}", template)))


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _reply(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]


def _sentence(body: str) -> str:
    return f"{body[0].upper()}{body[1:]}."


def _statement(prompt: Prompt, value: str, rng: random.Random, openers: tuple[str, ...] = OPENERS, share=0.4) -> str:
    """A sentence that states `value`; a share of them begins with an opener."""
    opener = rng.choice(openers) if rng.random() < share else ""
    body = rng.choice(KINDS[prompt.kind].answers).format(**prompt.facts, value=value)
    return _sentence(opener + body)


def _other_value(prompt: Prompt, rng: random.Random) -> str:
    return rng.choice([value for value in KINDS[prompt.kind].values if value != prompt.key])


def _aside(prompt: Prompt, rng: random.Random) -> str:
    """A sentence about something else. It states no value: to name a person who is asked for would be wrong, too."""
    answers_by_name = KINDS[prompt.kind].values is NAMES
    template = rng.choice([aside for aside in ASIDES if not (answers_by_name and "{name}" in aside)])
    unused = {name: [word for word in SLOTS[name] if word not in prompt.facts.values()] for name in _fields(template)}
    return template.format(**{name: rng.choice(words) for name, words in unused.items()})


def _draw(mix: Mapping[str | None, float], rng: random.Random) -> str | None:
    return rng.choices(tuple(mix), weights=tuple(mix.values()))[0]


def _mixed_pair(prompt: Prompt, rng: random.Random) -> list[tuple[str, str | None]]:
    """Two answers with two different flaws, or one or both of them good."""
    first, second = _draw(PAIR_MIX, rng), _draw(PAIR_MIX, rng)
    while first == second is not None:
        second = _draw(PAIR_MIX, rng)
    return [(answer(prompt, flaw, rng), flaw) for flaw in (first, second)]


def _minimal_pair(prompt: Prompt, rng: random.Random) -> list[tuple[str, str | None]]:
    """A good answer, and the same words with another value."""
    good = answer(prompt, None, rng)
    return [(good, None), (re.sub(rf"\b{prompt.key}\b", _other_value(prompt, rng), good), "wrong")]


def _pattern(template: str) -> re.Pattern[str]:
    """A template as a regular expression with one named group a field; a field that returns must hold the same word."""
    parts = re.split(r"{(\w+)}", template)
    seen: set[str] = set()
    for i in range(1, len(parts), 2):
        name = parts[i]
        parts[i] = f"(?P={name})" if name in seen else f"(?P<{name}>{'|'.join(SLOTS[name])})"
        seen.add(name)
    parts[::2] = [re.escape(literal) for literal in parts[::2]]
    return re.compile("".join(parts))


_PATTERNS = [(name, _pattern(template)) for name, kind in KINDS.items() for template in kind.prompts]

WORDS = frozenset(word for text in every_text() for word in _words(text))
"""Every word of the world, in lower case."""


# ---- the tokenizer and the tiny decoder -------------------------------------------------------------------------------


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen2Config

PAD, END = "<|pad|>", "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
MAX_TOKENS = 512
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '" + END + "' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""Every turn ends with END, and nothing follows the last one: the token a reward model scores is END itself."""


@dataclass(frozen=True)
class TrainingSettings:
    """How one of the tiny models is trained: AdamW, 5 % warm-up, then a cosine down to zero, gradients clipped to 1."""

    steps: int
    batch_size: int
    learning_rate: float

    @property
    def rows(self) -> int:
        """Rows needed so that none is seen twice."""
        return self.steps * self.batch_size


SFT_DEFAULTS = TrainingSettings(steps=500, batch_size=32, learning_rate=4e-3)
"""Conversations for the decoder."""

REWARD_DEFAULTS = TrainingSettings(steps=600, batch_size=32, learning_rate=1.5e-3)
"""Pairs for the reward model, started from that decoder, with center_rewards_coefficient 0.01.

On three seeds kept for the purpose (30, 31, 32; 2,000 clean held-out pairs without minimal pairs): accuracy 0.914,
0.930, 0.883; the good answer above one with a given flaw in at least 0.94 of 200 pairs, for each flaw and seed. One
thread: 14 to 20 CPU seconds for the decoder, 29 to 31 for the reward model. Do not shorten it: after 400 steps two of
the three seeds had not found out yet what makes an answer wrong (0.76).
"""

PPO_DEFAULTS: dict[str, Any] = {
    "response_length": 28,
    "temperature": 1.0,
    "per_device_train_batch_size": 32,
    "gradient_accumulation_steps": 2,
    "num_mini_batches": 2,
    "num_ppo_epochs": 2,
    "learning_rate": 1e-3,
    "value_learning_rate": 1e-3,
    "kl_coef": 0.1,
    "vf_coef": 0.5,
    "normalize_rewards": True,
}
"""Flags of ppo.py for the decoder as policy and that reward model: 64 answers an update. benchmarks/ppo.py measures them."""


def tokenizer(texts: Iterable[str] | None = None) -> PreTrainedTokenizerBase:
    """A byte-level BPE in the Qwen2 format in which every word of the world, or of these texts, is one token.

    Any text is encoded and comes back, apart from Unicode normalisation: Qwen2's tokenizer composes to NFC.
    Why this class: `AutoTokenizer` gives Qwen2Tokenizer for any tokenizer saved beside a qwen2 model, whatever its own
    class was, and silently with other ids; so it has to be one from the start.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    special = {"eos_token": END, "pad_token": PAD, "unk_token": None, "additional_special_tokens": list(ROLES)}
    empty = Qwen2Tokenizer(vocab={}, merges=[], **special).backend_tokenizer
    words = sorted({word for text in texts or every_text() for word, _ in empty.pre_tokenizer.pre_tokenize_str(text)})

    # The words are split and spelled in the byte alphabet already, so the trainer needs no pre-tokenizer of its own.
    bpe = Tokenizer(models.BPE())
    never_reached = 1 << 16  # merging stops by itself, when every word is one token
    trainer = trainers.BpeTrainer(
        vocab_size=never_reached,
        show_progress=False,
        special_tokens=[PAD, END, *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(words, trainer)
    model = json.loads(bpe.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    return Qwen2Tokenizer(
        vocab=model["vocab"], merges=merges, chat_template=CHAT_TEMPLATE, model_max_length=MAX_TOKENS, **special
    )


def tiny_config(tokenizer: PreTrainedTokenizerBase, **overrides: Any) -> Qwen2Config:
    """A Qwen2 decoder of two layers and width 64, sized to the tokenizer. Any field of Qwen2Config can be overridden.

    Two choices matter. Initial weights of standard deviation 0.1: with less, copying is learned more slowly. Two heads
    of width 32: with four of 16, a reward model of 300 steps still took a wrong name for a right one (0.56 and 0.64 on
    two seeds, against 1.00 and 0.98), because comparing words needs the wider head.
    """
    from transformers import Qwen2Config

    fields = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": MAX_TOKENS,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
        "initializer_range": 0.1,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return Qwen2Config(**{**fields, **overrides})


def base_model(
    path: str | Path,
    seed: int,
    settings: TrainingSettings = SFT_DEFAULTS,
    mix: Mapping[str | None, float] = SFT_MIX,
    *,
    conversations: Callable[[int, int], list[list[Message]]] | None = None,
    texts: Iterable[str] | None = None,
    **overrides: Any,
) -> Path:
    """Train the tiny decoder on sandbox conversations and save it with its tokenizer as a Hugging Face folder.

    conversations: (n, seed) -> others to learn from, and texts: what their words occur in (see tests/arithmetic.py).

    Same seed, machine and thread count: same weights. `overrides` are fields of the config. The folder appears when it
    is complete. Raises UsageError when there is something at `path` already.
    """
    import torch
    from transformers import AutoModelForCausalLM

    path = Path(path)
    if path.exists():
        raise UsageError(f"{path} exists already", hint="give another path, or remove it")
    words = tokenizer(texts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(tiny_config(words, **overrides))
        rows = conversations(settings.rows, seed) if conversations else sft_conversations(settings.rows, seed, mix)
        _teach(model, words, rows, settings)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        model.save_pretrained(partial)
        words.save_pretrained(partial)
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return path


def _teach(
    model: PreTrainedModel, words: PreTrainedTokenizerBase, rows: list[list[Message]], settings: TrainingSettings
) -> None:
    """Supervised fine-tuning in one pass over the rows: cross-entropy on the tokens of the answer and its END."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_cosine(step, settings.steps))
    answer_starts = words.convert_tokens_to_ids("<|assistant|>")
    model.train()
    for step in range(settings.steps):
        batch = rows[step * settings.batch_size : (step + 1) * settings.batch_size]
        ids = words(words.apply_chat_template(batch, tokenize=False), padding=True, return_tensors="pt").input_ids
        in_answer = (ids == answer_starts).cumsum(dim=1).bool() & (ids != words.pad_token_id)
        hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        is_target = in_answer[:, 1:] & (ids[:, 1:] != answer_starts)
        logits = model.lm_head(hidden[is_target])
        torch.nn.functional.cross_entropy(logits, ids[:, 1:][is_target]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()


def _warm_cosine(step: int, steps: int) -> float:
    """The share of the peak learning rate: up in a line over 5 % of the steps, then down in half a cosine."""
    return min((step + 1) / (0.05 * steps), 0.5 * (1 + math.cos(math.pi * step / steps)))


def answers_of(
    path: str | Path, prompts: Sequence[Prompt], seed: int, temperature: float = 1.0
) -> list[tuple[str, GoldReward]]:
    """One answer of a policy to each prompt, and its gold reward. temperature 0: the most likely answers."""
    from .training.policy import Policy
    from .training.sampling import sample

    policy = Policy.from_pretrained(str(path))
    ids = [policy.prompt_ids(asked.messages) for asked in prompts]
    longest = PPO_DEFAULTS["response_length"]
    answers = sample(policy, ids, max_new_tokens=longest, temperature=temperature, seed=seed, batch_size=256)
    texts = [policy.reply(answer)[0]["content"] for answer in answers]
    return [
        (text, gold(asked, text, finished=policy.finished(answer)))
        for asked, text, answer in zip(prompts, texts, answers, strict=True)
    ]
