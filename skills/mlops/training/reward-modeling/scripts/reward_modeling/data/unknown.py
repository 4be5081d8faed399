"""Help for rows that no format fits: what was seen, the nearest formats, and a tried way to read them or a conversion."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from .cells import are_messages, short, type_of
from .entries import Row
from .files import suffix
from .formats import Tiers

COLUMNS = 12
# Words in the names of columns, the likeliest first.
_PROMPT = "prompt question query instruction problem task post context input user ask title text"
_CHOSEN = "chosen preferred better accepted winning winner win best good positive pos"
_REJECTED = "rejected dispreferred worse losing loser lose worst bad negative neg"
_MANY = "completions responses answers candidates generations outputs replies samples solutions comments choices"
_ONE = "completion response answer output reply generation solution"
_SCORE = "score scores rating ratings reward rewards votes upvotes quality grade"
_RANK = "rank ranks ranking"
_BODY = f"text content body {_ONE} message"
_A, _B = "a 1 first left one", "b 2 second right two"
_WINNER = "winner preference preferred choice better label chosen"
LAYOUTS = (
    {"prompt": _PROMPT, "chosen": _CHOSEN, "rejected": _REJECTED},
    {"prompt": _PROMPT, "completions": _MANY, "scores": _SCORE},
    {"prompt": _PROMPT, "completions": _MANY, "ranks": _RANK},
    {"prompt": _PROMPT, "response_a": _A, "response_b": _B, "winner": _WINNER},
    {"prompt": _PROMPT, "completions": "ranked sorted ordered best"},
    {"prompt": _PROMPT, "completions": _MANY},
    {"prompt": _PROMPT, "completion": _ONE},
)
LABELED_LAYOUTS = 5
"""So many say which answer is better, the last by its place in the list (format `best_first`)."""
_MEANING = {"scores": "a higher score must be better", "ranks": "rank 1 must be best"}


def seen(rows: list[Row]) -> str:
    """One line for each column: its type, nesting and a value, cut short."""
    columns = {name: value for row in reversed(rows) for name, value in row.items() if value is not None}
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [
        f"\n  {name}: {_shape(columns.get(name))}, as in {short(columns.get(name), 60)}" for name in names[:COLUMNS]
    ]
    return "".join(lines) + (f"\n  and {len(names) - COLUMNS} more columns" if len(names) > COLUMNS else "")


def _shape(value: Any, depth: int = 0) -> str:
    if are_messages(value):
        return "messages"
    if isinstance(value, dict):
        inside = ", ".join(f"{name} ({_shape(item, depth + 1)})" for name, item in list(value.items())[:6])
        return f"object with {inside}" if depth < 2 else "object"
    if isinstance(value, list):
        return f"list of {len(value)}: {_shape(value[0], depth + 1)}" if value else "empty list"
    return type_of(value).removeprefix("a ")


def nearest(rows: list[Row], tiers: Tiers) -> str:
    """The formats with the most columns in common, with what they lack."""
    present, found = {name for row in rows for name in row}, {}
    for entry in (entry for tier in tiers for entry in tier.values()):
        lacks = [names for names in entry.needs if present.isdisjoint(names.split("|"))]
        share = 1 - len(lacks) / len(entry.needs)
        if share and lacks:
            missing = ", ".join(names.replace("|", " or ") for names in lacks)
            found[entry.name] = (-share, f"`{entry.name}` (lacks {missing})")
    best = [said for _, said in sorted(found.values(), key=lambda one: one[0])[:3]]
    return f"\nthe nearest formats: {', '.join(best)}" if best else ""


def guess(rows: list[Row], works: Callable[[dict[str, str], str | None], bool], *, labeled: bool = False) -> str | None:
    """A --columns line that was tried on the rows and works, or None. What numbers mean is said, not guessed.

    labeled: only one that says which answer is better.
    """
    leaves = dict(_leaves(rows[0])) if rows else {}
    for place, layout in enumerate(LAYOUTS[: LABELED_LAYOUTS if labeled else None], start=1):
        format = "best_first" if place == LABELED_LAYOUTS else None
        choices = [list(_candidates(leaves, name, words))[:4] for name, words in layout.items()]
        for paths in product(*choices):
            columns = dict(zip(layout, paths, strict=True))
            if len(set(paths)) == len(paths) and _same_list(columns) and works(columns, format):
                written = ",".join(f"{name}={path}" for name, path in columns.items())
                meaning = "".join(f" ({_MEANING[name]})" for name in columns if name in _MEANING)
                flag, order = ("--format best_first ", " (the best must come first)") if format else ("", "")
                return f"these rows can be read with {flag}--columns '{written}'{meaning}{order}"
    return None


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of everything in a row that is not an object or a list of objects."""
    if isinstance(value, dict):
        for name, item in value.items():
            if re.fullmatch(r"[^.\[\],=]+", name):
                yield from _leaves(item, f"{path}.{name}" if path else name)
    elif (
        isinstance(value, list)
        and value
        and isinstance(value[0], dict)
        and not are_messages(value)
        and "[]" not in path
    ):
        yield from _leaves(value[0], f"{path}[]")
    else:
        yield path, value


def _candidates(leaves: dict[str, Any], name: str, words: str) -> list[str]:
    """Paths whose values could be this column, the likeliest first."""
    ranked = []
    for path, value in leaves.items():
        wanted = _rank(path, words)
        if wanted is not None and _could_be(path, value, name):
            ranked.append((wanted, path))
    return [path for _, path in sorted(ranked)]


def _rank(path: str, words: str) -> int | None:
    """How early a word of the list comes in the parts of a path; its last part counts most."""
    order, parts = words.split(), re.split(r"[.\[\]]+", path)
    if path.count("[]") and words is _MANY and parts[-1].lower() not in _BODY.split():
        return None
    found = []
    for back, part in enumerate(reversed(parts)):
        tokens = re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", part)
        found += [order.index(token.lower()) + 20 * back for token in tokens if token.lower() in order]
    return min(found, default=None)


def _could_be(path: str, value: Any, name: str) -> bool:
    many = "[]" in path
    if name in ("scores", "ranks"):
        values = [value] if many else value if isinstance(value, list) else [None]
        return bool(values) and all(isinstance(one, (int, float)) for one in values)
    if name == "winner":
        return isinstance(value, (str, int, float))
    if name == "completions":
        values = [value] if many else value if isinstance(value, list) and not are_messages(value) else [None]
        return bool(values) and all(isinstance(one, str) for one in values)
    return not many and (are_messages(value) or (isinstance(value, str) and bool(value.strip())))


def _same_list(columns: dict[str, str]) -> bool:
    return len({path.partition("[]")[0] for path in columns.values() if "[]" in path}) <= 1


def conversion(name: str, rows: list[Row]) -> str:
    """Three lines of Python that write pairs from these rows, with the names of columns to be filled in."""
    texts = [path for path, value in (_leaves(rows[0]) if rows else ()) if isinstance(value, str)]
    parts = [
        re.sub(r"([^.\[\]]+)|\[\]", lambda m: f"[{m[1]!r}]" if m[1] else "[0]", path).replace("].[", "][")
        for path in texts
    ]
    parts += ["['...']"] * (3 - len(parts))
    kind, module = suffix(Path(name)), "datasets"
    if kind in (".csv", ".tsv"):
        module, delimiter = "csv", "," if kind == ".csv" else "\t"
        read = f"list(csv.DictReader(open({name!r}, newline=''), delimiter={delimiter!r}))"
    else:
        loader = f"{'parquet' if kind == '.parquet' else 'json'!r}, data_files=" if kind else ""
        read = f"datasets.load_dataset({loader}{name!r}, split='train')"
    fields = ", ".join(f"{to!r}: row{part}" for to, part in zip(("prompt", "chosen", "rejected"), parts, strict=False))
    return (
        f"or convert them, with the right columns in these three places:\n  import {module}, json\n  rows = {read}\n"
        f"  open('pairs.jsonl', 'w').writelines(json.dumps({{{fields}}}) + '\\n' for row in rows)"
    )
