"""What rows that no format fits hold, and a --columns line or a conversion with which they can be read."""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path

from .cells import RowError, are_messages, short, structure, type_of
from .columns import WINNER, root_of
from .entries import Row, desirable, number
from .files import suffix
from .formats import Tiers, is_input, is_system
from .writing import METADATA, RESULTS, unwrapped_metadata

COLUMNS = 12
# Words in the names of columns, the likeliest first.
_PROMPT = (
  "prompt question query instruction problem task post context input user ask title text "
  "trajectory conversation dialogue history message messages contents thread request x"
)
_CHOSEN = "chosen preferred better accepted winning winner win best good positive pos w"
_REJECTED = "rejected dispreferred worse losing loser lose worst bad negative neg l"
_MANY = "completions responses answers candidates generations outputs replies samples solutions comments choices "
_MANY += "completion response answer"
_DESIRED = "label labels chosen desirable safe liked thumbs thumb feedback vote accepted good better correct"
_ONE = "completion response answer output reply generation solution summary continuation"
_SCORE = "score scores rating ratings reward rewards stars star votes upvotes quality grade grades points marks likert"
_RANK = "rank ranks ranking"
_STEPS, _STEP_LABELS, _ERROR = (
  "steps step process thoughts thought reasoning rationale completion response solution",
  "labels label correctness correct scores score ratings rating values",
  "error mistake wrong incorrect",
)
_BODY = f"text content body {_ONE} message"
_A, _B = "a 0 1 first left one", "b 1 2 second right two"
_WINNER, _BEST = f"{WINNER} best likert comparison selected value", "ranked sorted ordered best"
_LABELED = (
  {"prompt": _PROMPT, "chosen": _CHOSEN, "rejected": _REJECTED},
  {"prompt": _PROMPT, "chosen": _ONE, "rejected": _REJECTED},
  {"prompt": _PROMPT, "completions": _MANY, "scores": _SCORE},
  {"prompt": _PROMPT, "completions": _MANY, "ranks": _RANK},
  {"prompt": _PROMPT, "response_a": _A, "response_b": _B, "winner": _WINNER},
  {"prompt": _PROMPT, "response_a": _A, "response_b": _B, "scores": _SCORE},
  {"prompt": _PROMPT, "completions": _STEPS, "labels": _STEP_LABELS},
  {"prompt": _PROMPT, "steps": _STEPS, "first_error_step": _ERROR},
  {"prompt": _PROMPT, "completion": _ONE, "ratings": "ratings attributes aspects axes scores annotations"},
  {"prompt": _PROMPT, "completion": _ONE, "score": _SCORE},
  {"prompt": _PROMPT, "completion": _ONE, "label": _DESIRED},
  {"messages": _PROMPT, "score": _SCORE},
  {"messages": _PROMPT, "label": _DESIRED},
  {"prompt": _PROMPT, "completions": _MANY, "correct": _DESIRED},
  {"prompt": _PROMPT, "completions": _BEST},
)
"""Those that say which answer is better."""
_BY_VALUES = ""
_VALUED = tuple(
  said | {label: _BY_VALUES}
  for label in ("score", "label")
  for said in ({"prompt": _PROMPT, "completion": _ONE}, {"messages": _PROMPT})
)
"""Those whose label has a name that says nothing: the one column of few small numbers, or of two words for good and bad."""
_ANSWERS = (
  *_LABELED,
  *_VALUED,
  {"prompt": _PROMPT, "response_a": _A, "response_b": _B},
  {"prompt": _PROMPT, "completions": _MANY},
  {"prompt": _PROMPT, "completion": _ONE},
  {"messages": _PROMPT},
)
LAYOUTS = {"any": (*_ANSWERS, {"prompt": _PROMPT}), "answers": _ANSWERS, "labeled": _LABELED, "valued": _VALUED}
_NAMES = "id ids uid uuid hash url name model models status critique"
"""What ends the names of columns that hold no text to score."""
_NO_LABELS = "id index rater annotator worker user reviewer judge turn turns round fold split year month age length "
_NO_LABELS += "len tokens words count num number seed level difficulty version"
"""In the names of columns whose small numbers rate no answer."""
_ORIGINAL = re.compile("orig(inal)?_")
_MEANING = {
  **dict.fromkeys(("score", "scores"), "a higher score must be better"),
  "ranks": "rank 1 must be best",
  **dict.fromkeys(("label", "correct"), "true or 1 must mean a good answer"),
  "best_first": "the best must come first",
}


def may_label(column: str) -> bool:
  words = " ".join((_CHOSEN, _REJECTED, _SCORE, _RANK, WINNER, _STEP_LABELS, "order pairs responses"))
  return column not in RESULTS and _rank(column, words) is not None


def seen(rows: list[Row]) -> str:
  columns = dict.fromkeys(name for row in rows for name in row)
  columns |= {name: value for row in reversed(rows) for name, value in row.items() if value is not None}
  lines = [f"\n  {name}: {_shape(value)}, as in {short(value, 60)}" for name, value in columns.items()]
  more = len(lines) - COLUMNS
  return "".join(lines[:COLUMNS]) + (f"\n  and {more} more columns" if more > 0 else "")


def _shape(value, depth: int = 0) -> str:
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


def guess(rows: list[Row], works: Callable[[dict[str, str], str | None], bool], layouts: str) -> str | None:
  """A --columns line with which the rows can be read as one of these LAYOUTS."""
  row = rows[0]
  ours = {name for name in RESULTS if isinstance(row.get(name), str)}  # reward_chosen is no answer
  if unwrapped_metadata(row) is not row:
    ours.add(METADATA)  # of a canonical copy
  each = [dict(_leaves({name: value for name, value in one.items() if name not in ours})) for one in rows]
  for layout, leaves in product(LAYOUTS[layouts], _families(each[0])):
    format = "best_first" if layout is _LABELED[-1] else "kto" if "label" in layout else None
    found = {
      name: _candidates(leaves, name, words, row)[:4] if words else _valued(leaves, name, each)
      for name, words in layout.items()
    }
    if len(layout) > 2 and len(found.get("completion", ())) > 1:  # a label of which?
      continue
    others = [name for name in row if name not in leaves] if leaves is not each[0] else []
    repeats = {name: "" for name in others if row[name] and is_input(name, row[name])}
    for paths in product(*found.values()):
      columns = dict(zip(layout, paths, strict=True)) | repeats
      lists = {path.partition("[]")[0] for path in paths if "[]" in path}
      in_order = {"scores", "ranks"} & columns.keys()  # of answers in another list
      if len(set(paths)) == len(paths) and len(lists) <= 1 + len(in_order) and works(columns, format):
        line = ",".join(f"{name}={path}" for name, path in columns.items())
        meaning = " (both lists must be in one order)" if len(lists) > 1 else ""
        meaning += "".join(f" ({_MEANING[name]})" for name in (*columns, format) if name in _MEANING)
        flag = f"--format {format} " if format else ""
        return f"these rows can be read with {flag}--columns '{line}'{meaning}"
  return None


def _leaves(value, path: str = "") -> Iterator[tuple[str, object]]:
  two = isinstance(value, list) and len(value) == 2 and all(isinstance(item, str) for item in value)
  if two and "[" not in path and _rank(path, f"{_MANY} pair order") is not None:
    yield from ((f"{path}[{place}]", item) for place, item in enumerate(value))
  if path and _are_ratings(value):
    yield path, value
  if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict) and not are_messages(value):
    yield from _leaves(value[0], f"{path}[0]")  # of Label Studio
  with contextlib.suppress(RowError):
    if isinstance(value, str) and isinstance(inside := structure(value), dict):
      yield from _leaves(inside, path)
  if isinstance(value, dict) and not are_messages([value]):
    for name, item in value.items():
      if re.fullmatch(r"[^.\[\],=]+", name):
        yield from _leaves(item, f"{path}.{name}" if path else name)
  elif "[]" not in path and isinstance(value, list) and isinstance([*value, 0][0], dict) and not are_messages(value):
    yield from _leaves(value[0], f"{path}[]")
  else:
    yield path, value


def _families(leaves: Row) -> list[Row]:
  """Where an evaluator's `instruction` is beside the `orig_instruction` in it, the original columns by themselves first."""
  originals = {path: value for path, value in leaves.items() if _ORIGINAL.match(path)}
  repeated = any(_ORIGINAL.sub("", path, count=1) in leaves for path in originals)
  return [originals, leaves] if repeated else [leaves]


def _valued(leaves: Row, name: str, each: list[Row]) -> list[str]:
  """The one column whose values are a `score` (few small numbers) or a `label` (two words or true and false)."""
  fitting = []
  for path in (path for path in leaves if _rank(path, f"{_PROMPT} {_ONE}") is None):
    values = [one[path] for one in each if one.get(path) not in (None, "")]
    numbers = {_as_number(value) for value in values}
    if name == "score":
      fits = 1 < len(numbers) < min(12, len(values)) and all(one is not None and abs(one) <= 100 for one in numbers)
    else:
      fits = numbers == {None} and {desirable(value) for value in values} == {0.0, 1.0}
    if fits and "[" not in path and set(re.split(r"[._ ]", path.lower())).isdisjoint(_NO_LABELS.split()):
      fitting.append(path)
  return fitting if len(fitting) == 1 else []


def _as_number(value) -> float | None:
  with contextlib.suppress(RowError):
    return None if isinstance(value, bool) else number(value, "")
  return None


def _candidates(leaves: Row, name: str, words: str, row: Row) -> list[str]:
  """A column of that name may not be put aside for another."""
  there = {path: value for path, value in leaves.items() if name not in row or root_of(path, row) == name}
  fitting = [path for path, value in there.items() if _could_be(path, value, name)]
  ranked = [(rank, not _is_body(path), path) for path in fitting if (rank := _rank(path, words)) is not None]
  return [path for *_, path in sorted(ranked)]


def _is_body(path: str, more: Iterable[str] = ()) -> bool:
  return not {*_BODY.split(), *more}.isdisjoint(re.split(r"[._]", path.lower().rpartition(".")[2]))


def _rank(path: str, words: str) -> int | None:
  if path.endswith(("[0]", "[1]")):
    return 99
  order, parts = words.split(), re.split(r"[.\[\]]+", path)
  last = re.findall(r"[a-z]+", parts[-1].lower())
  if (last and last[-1] in _NAMES.split()) or (words is _BEST and not set(last) & set(order)):
    return None
  if words in (_MANY, _STEPS) and len(parts) > 1 and not _is_body(path, order):
    return None
  found = []
  for back, part in enumerate(reversed(parts)):
    tokens = re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", part)
    found += [order.index(token.lower()) + 20 * back for token in tokens if token.lower() in order]
  return min(found, default=None)


def _could_be(path: str, value, name: str) -> bool:
  many = "[]" in path
  if path.endswith(("[0]", "[1]")):
    return name == ("response_a" if path.endswith("[0]") else "response_b")
  if name == "winner":
    one = value[0] if isinstance(value, list) and len(value) == 1 else value
    return not many and isinstance(one, (str, int, float)) and not str(one).startswith("{")
  if "[0]" in path:
    return False
  if name == "score":
    return _as_number(value) is not None
  if name in ("label", "correct"):
    values = [value] if many or name == "label" else value
    return isinstance(values, list) and bool(values) and all(desirable(one) is not None for one in values)
  if name == "messages":
    return are_messages(value)
  if name == "completion" and "reference" in path.lower():
    return False
  if name == "ratings":
    return _are_ratings(value)
  if name == "first_error_step":
    return value is None or type(value) is int
  if name == "prompt" and is_system(path):
    return False
  if name not in ("scores", "ranks", "labels", "completions", "steps"):
    said = value[0] if name in ("chosen", "rejected") and isinstance(value, list) and value else value  # of several
    texts = are_messages(value) or are_messages([value]) or (isinstance(said, str) and bool(said.strip()))
    return texts and not many
  values, wanted = [value] if many else value, (str, dict) if name in ("completions", "steps") else (int, float, str)
  return isinstance(values, list) and bool(values) and all(isinstance(one, wanted) for one in values)


def _are_ratings(value) -> bool:
  numbers = [one for one in value.values() if one is not None] if isinstance(value, dict) else []
  return any(type(one) is not bool for one in numbers) and all(isinstance(one, (int, float)) for one in numbers)


def conversion(name: str, row: Row) -> str:
  """Three lines of Python that write pairs."""
  texts = [path for path, value in _leaves(row) if isinstance(value, str) and desirable(value) is None]
  paths = [path.split(".") for path in texts if "[" not in path]
  columns = zip(("prompt", "chosen", "rejected"), [*paths, *[["..."]] * 3], strict=False)
  fields = ", ".join(f"{to!r}: row{''.join(f'[{part!r}]' for part in path)}" for to, path in columns)
  kind = suffix(Path(name)).removeprefix(".")
  loader = f"{'parquet' if kind == 'parquet' else 'json'!r}, data_files=" if kind else ""
  module, read = "datasets", f"load_dataset({loader}{name!r}, split='train')"
  if sign := {"csv": ",", "tsv": "\t"}.get(kind):
    module = "pandas"
    read = f"read_csv({name!r}, sep={sign!r}, dtype=str, keep_default_na=False).to_dict('records')"
  return (
    f"or convert them, with the right columns in these three places:\n  import {module}, json\n  rows = {module}.{read}\n"
    f"  open('pairs.jsonl', 'w').writelines(json.dumps({{{fields}}}) + '\\n' for row in rows)"
  )
