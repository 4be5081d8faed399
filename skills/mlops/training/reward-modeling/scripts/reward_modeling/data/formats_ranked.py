"""Formats of public data sets of rankings that are known by their columns, and of trees of messages (OASST)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from .cells import RowError, objects, short, structure, wrong_type
from .conversations import Message, answer_of, is_transcript, prompt_of, said, transcript_of
from .entries import BAD, GOOD, USER, Format, Numbered, Problems, Row, entry, number
from .formats_rankings import ranks
from .records import Ranking

RANKED: dict[str, Format] = {}
_ranked = partial(entry, RANKED)


def _hold(column: str, *names: str):
    """Whether a column holds objects with these names; `a|b` stands for either."""

    def matches(row: Row) -> bool:
        found = objects(row.get(column))
        return found is not None and all(any(name in found[0] for name in either.split("|")) for either in names)

    return matches


def _items(row: Row, column: str, text: str, of: str) -> list[tuple[Row, list[Message]]]:
    """The objects of a column, each with the answer in it."""
    found = objects(row[column])
    if found is None:
        raise wrong_type(column, row[column], f"a list of objects with {text} and {of}")
    return [(item, answer_of(structure(item.get(text)), f"{column}.{text}")) for item in found]


def _by_rank(row: Row, prompt: list[Message], column: str, text: str) -> Ranking:
    """Rank 0 or 1 is best. Where no completion has a rank the row is unlabeled."""
    items = _items(row, column, text, "rank")
    found = [number(item.get("rank"), f"{column}.rank") for item, _ in items]
    if None in found and any(rank is not None for rank in found):
        raise RowError(f"some of `{column}` have no rank")
    return Ranking(prompt, [answer for _, answer in items], None if None in found else [-rank for rank in found])


@_ranked(
    "Nectar: a transcript and answers with ranks, 1 is best",
    ("prompt", "answers"),
    {"prompt": "\n\nHuman: 2+2?\n\nAssistant: ", "answers": [{"answer": "5", "rank": 2}, {"answer": "4", "rank": 1}]},
    _hold("answers", "answer", "rank"),
)
def nectar(row: Row) -> Ranking:
    prompt = transcript_of(row["prompt"], "prompt") if is_transcript(row["prompt"]) else prompt_of(row)
    if prompt and prompt[-1] == said("assistant", ""):
        prompt = prompt[:-1]
    return _by_rank(row, prompt, "answers", "answer")


@_ranked(
    "NeMo-RL: a context and completions with ranks, 0 is best",
    ("context|prompt", "completions"),
    {"context": USER, "completions": [{"rank": 1, "completion": BAD}, {"rank": 0, "completion": GOOD}]},
    _hold("completions", "completion", "rank"),
)
def nemo_rl(row: Row) -> Ranking:
    return _by_rank(row, prompt_of(row, "context"), "completions", "completion")


@_ranked(
    "UltraFeedback as published: completions with an overall score, or where that is missing the mean of their ratings",
    ("instruction|prompt", "completions"),
    {
        "instruction": "2+2?",
        "completions": [{"response": "5", "overall_score": 2}, {"response": "4", "overall_score": 9}],
    },
    _hold("completions", "response", "overall_score|fine-grained_score|annotations"),
)
def ultrafeedback(row: Row) -> Ranking:
    items = _items(row, "completions", "response", "overall_score")
    scores = [_rating(item.get("overall_score"), "overall_score") for item, _ in items]
    if None in scores:
        scores = [_mean_rating(item) for item, _ in items]
    if None in scores and any(score is not None for score in scores):
        raise RowError("some of `completions` have neither an overall score nor ratings")
    return Ranking(prompt_of(row, "instruction"), [answer for _, answer in items], None if None in scores else scores)


def _mean_rating(item: Row) -> float | None:
    annotations = structure(item.get("annotations")) or {}
    if not isinstance(annotations, dict):
        raise wrong_type("annotations", annotations, "an object with a Rating for each aspect")
    given = [_rating(aspect.get("Rating"), "Rating") for aspect in annotations.values() if isinstance(aspect, dict)]
    found = [rating for rating in given if rating is not None]
    return sum(found) / len(found) if found else _rating(item.get("fine-grained_score"), "fine-grained_score")


def _rating(value: Any, column: str) -> float | None:
    return None if value == "N/A" else number(value, column)


# ---- trees of messages -------------------------------------------------------------------------------------------------

_SPEAKERS = {"prompter": "user", "assistant": "assistant"}


def _message(node: Row) -> Message:
    role = _SPEAKERS.get(str(node.get("role")))
    if role is None or not isinstance(node.get("text"), str):
        raise RowError(f"a message has the role {short(node.get('role'))} and the text {short(node.get('text'))}")
    return said(role, node["text"])


def _rows_of(prompt: list[Message], replies: Iterable[Row], shared: Row) -> Iterator[Row]:
    """Rows of format `ranks`: the replies of the assistant that have a rank, and those that nobody ranked."""
    answers = [(reply, _message(reply)["content"]) for reply in replies if reply.get("role") == "assistant"]
    for ranked in (True, False):
        chosen = [(reply, text) for reply, text in answers if (reply.get("rank") not in (None, "")) == ranked]
        if chosen:
            given = [reply["rank"] for reply, _ in chosen] if ranked else None
            yield shared | {"prompt": prompt, "completions": [text for _, text in chosen], "ranks": given}


def _tree(numbered: Numbered, problems: Problems) -> Numbered:
    found: Numbered = []
    for number_, row in numbered:
        shared = {name: value for name, value in row.items() if name != "prompt"}
        try:
            rows, open_ = [], [(structure(row.get("prompt")), [])]
            while open_:
                node, before = open_.pop(0)
                if not isinstance(node, dict):
                    raise wrong_type("prompt", node, "a message with replies")
                said_so_far, replies = [*before, _message(node)], objects(node.get("replies"))
                if replies is None and structure(node.get("replies")) not in (None, "", []):
                    raise wrong_type("replies", node["replies"], "a list of messages")
                replies = replies or []
                if node["role"] == "prompter":
                    rows += _rows_of(said_so_far, replies, shared)
                open_ += [(reply, said_so_far) for reply in replies]
            if not rows:
                raise RowError("the tree holds no answer of the assistant")
            found += [(number_, one) for one in rows]
        except RowError as error:
            problems.append((number_, str(error)))
    return found


def _is_tree(row: Row) -> bool:
    root = structure(row["prompt"])
    return isinstance(root, dict) and {"text", "role", "replies"} <= root.keys()


@_ranked(
    "trees of OASST: every message of a prompter with the assistant's replies, ranked from 0, the best",
    ("prompt",),
    {
        "message_tree_id": "t",
        "prompt": {
            **{"text": "2+2?", "role": "prompter"},
            "replies": [
                {"text": "5", "role": "assistant", "rank": 1, "replies": []},
                {"text": "4", "role": "assistant", "rank": 0, "replies": []},
            ],
        },
    },
    _is_tree,
    optional=(),
    expand=_tree,
)
def oasst_trees(row: Row) -> Ranking:
    return ranks(row)


def _flat(numbered: Numbered, problems: Problems) -> Numbered:
    """The rows are the nodes of trees, each with the id of its parent; a row of a prompter becomes rankings of its replies."""
    nodes: dict[Any, tuple[int, Row]] = {}
    replies: dict[Any, list[Row]] = {}
    for number_, row in numbered:
        name, parent = row.get("message_id"), row.get("parent_id")
        if not isinstance(name, (str, int, float)) or not isinstance(parent, (str, int, float, type(None))):
            problems.append(
                (number_, f"`message_id` and `parent_id` are {short([name, parent])}, not names of messages")
            )
        elif name in nodes or name == "":
            problems.append((number_, f"`message_id` {short(name)} is empty or occurs twice"))
        else:
            nodes[row["message_id"]] = number_, row
            replies.setdefault(row.get("parent_id") or None, []).append(row)
    found = []
    for number_, row in nodes.values():
        try:
            path = _path(row, nodes)
            if row["role"] == "prompter":
                shared = {name: row[name] for name in row if name not in ("text", "role", "rank", "parent_id")}
                found += [(number_, one) for one in _rows_of(path, replies.get(row["message_id"], []), shared)]
        except RowError as error:
            problems.append((number_, str(error)))
    return found


def _path(row: Row, nodes: dict[Any, tuple[int, Row]]) -> list[Message]:
    """The messages from the root to this one."""
    path, seen = [_message(row)], {row["message_id"]}
    while row.get("parent_id") not in (None, ""):
        if row["parent_id"] not in nodes or row["parent_id"] in seen:
            raise RowError(
                f"its parent {short(row['parent_id'])} is not among these rows: name the file with whole trees, as "
                "OASST's *_trees.jsonl.gz"
            )
        row = nodes[row["parent_id"]][1]
        seen.add(row["message_id"])
        path.insert(0, _message(row))
    return path


@_ranked(
    "messages of OASST, one a row, with the id of the message that they answer; ranks from 0, the best",
    ("message_id", "parent_id", "text", "role", "rank"),
    {"message_id": "q", "parent_id": None, "text": "2+2?", "role": "prompter", "rank": None},
    lambda row: str(row.get("role")) in _SPEAKERS,
    optional=(),
    expand=_flat,
    one_piece=True,
)
def oasst_flat(row: Row) -> Ranking:
    return ranks(row)
