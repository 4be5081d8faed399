"""Help for rows that no format fits."""

import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from .cells import are_messages, short, type_of
from .entries import Row
from .files import suffix
from .formats import Tiers
from .writing import METADATA, unwrapped_metadata

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
"""So many say which answer is better."""
_MEANING = {"scores": "a higher score must be better", "ranks": "rank 1 must be best"}


def seen(rows: list[Row]) -> str:
    columns = dict.fromkeys(name for row in rows for name in row)
    columns |= {name: value for row in reversed(rows) for name, value in row.items() if value is not None}
    lines = [f"\n  {name}: {_shape(value)}, as in {short(value, 60)}" for name, value in columns.items()]
    more = len(lines) - COLUMNS
    return "".join(lines[:COLUMNS]) + (f"\n  and {more} more columns" if more > 0 else "")


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
    present, found = {name for row in rows for name in row}, {}
    for entry in (entry for tier in tiers for entry in tier.values()):
        lacks = [names.replace("|", " or ") for names in entry.needs if present.isdisjoint(names.split("|"))]
        if 0 < len(lacks) < len(entry.needs):
            found[f"`{entry.name}` (lacks {', '.join(lacks)})"] = len(lacks) / len(entry.needs)
    return f"\nthe nearest formats: {', '.join(sorted(found, key=found.get)[:3])}" if found else ""


def guess(row: Row, works: Callable[[dict[str, str], str | None], bool], *, labeled: bool = False) -> str | None:
    """A --columns line with which the row can be read. labeled: that says which answer is better."""
    written = unwrapped_metadata(row) is not row  # metadata of a canonical copy are nothing to be read
    leaves = dict(_leaves({name: value for name, value in row.items() if not (written and name == METADATA)}))
    for place, layout in enumerate(LAYOUTS[: LABELED_LAYOUTS if labeled else None], start=1):
        format = "best_first" if place == LABELED_LAYOUTS else None
        for paths in product(*(_candidates(leaves, name, words)[:4] for name, words in layout.items())):
            columns = dict(zip(layout, paths, strict=True))
            lists = {path.partition("[]")[0] for path in paths if "[]" in path}
            if len(set(paths)) == len(paths) and len(lists) <= 1 and works(columns, format):
                line = ",".join(f"{name}={path}" for name, path in columns.items())
                meaning = "".join(f" ({_MEANING[name]})" for name in columns if name in _MEANING)
                flag, order = ("--format best_first ", " (the best must come first)") if format else ("", "")
                return f"these rows can be read with {flag}--columns '{line}'{meaning}{order}"
    return None


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            if re.fullmatch(r"[^.\[\],=]+", name):
                yield from _leaves(item, f"{path}.{name}" if path else name)
    elif "[]" not in path and isinstance(value, list) and isinstance([*value, 0][0], dict) and not are_messages(value):
        yield from _leaves(value[0], f"{path}[]")
    else:
        yield path, value


def _candidates(leaves: dict[str, Any], name: str, words: str) -> list[str]:
    ranked = ((_rank(path, words), path) for path, value in leaves.items() if _could_be(path, value, name))
    return [path for rank, path in sorted(one for one in ranked if one[0] is not None)]


def _rank(path: str, words: str) -> int | None:
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
    if name == "winner":
        return isinstance(value, (str, int, float))
    if name not in ("scores", "ranks", "completions"):
        return not many and (are_messages(value) or (isinstance(value, str) and bool(value.strip())))
    values, wanted = [value] if many else value, str if name == "completions" else (int, float)
    return isinstance(values, list) and bool(values) and all(isinstance(one, wanted) for one in values)


def conversion(name: str, row: Row) -> str:
    """Three lines of Python that write pairs."""
    paths = [path for path, value in _leaves(row) if isinstance(value, str)]
    parts = [
        re.sub(r"([^.\[\]]+)|\[\]|\.", lambda m: f"[{m[1]!r}]" if m[1] else "[0]" * (m[0] != "."), path)
        for path in paths
    ]
    kind, module = suffix(Path(name)), "datasets"
    if kind in (".csv", ".tsv"):
        module, delimiter = "csv", "," if kind == ".csv" else "\t"
        read = f"list(csv.DictReader(open({name!r}, newline=''), delimiter={delimiter!r}))"
    else:
        loader = f"{'parquet' if kind == '.parquet' else 'json'!r}, data_files=" if kind else ""
        read = f"datasets.load_dataset({loader}{name!r}, split='train')"
    columns = zip(("prompt", "chosen", "rejected"), [*parts, *["['...']"] * 3], strict=False)
    fields = ", ".join(f"{to!r}: row{part}" for to, part in columns)
    return (
        f"or convert them, with the right columns in these three places:\n  import {module}, json\n  rows = {read}\n"
        f"  open('pairs.jsonl', 'w').writelines(json.dumps({{{fields}}}) + '\\n' for row in rows)"
    )
