"""Flags, recipes and help pages, made from dataclasses of settings. The one module that knows argparse.

Nothing heavy is imported here, so that `--help` answers at once.
"""

import argparse
import contextlib
import difflib
import inspect
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import Field, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TextIO, TypeVar

from .data import entries
from .errors import UsageError
from .old_flags import translated
from .packages import check_optional
from .precision import warn_if_emulated
from .results import SCRIPT_RESULTS, Row, json_schema, stdout

MAY_BE_EMPTY = ("prompt", "completions", "step_separator", "trainer_arguments")
SKILL_FOLDER = Path(__file__).resolve().parents[2]

T = TypeVar("T")


def _checked(expected: str, read: Callable[[str], T | None]) -> Callable[[str], T]:
  def parse(text: str) -> T:
    with contextlib.suppress(ValueError):
      if (value := read(text)) is not None:
        return value
    raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")

  return parse


def _number(expected: str, fits: Callable[[float], bool]) -> Callable[[str], float]:
  return _checked(expected, lambda text: value if math.isfinite(value := float(text)) and fits(value) else None)


_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
boolean = _checked("true or false", lambda text: _BOOLEANS.get(text.lower()))
positive_int = _checked("a whole number of at least 1", lambda text: (text.lstrip("+").isdigit() and int(text)) or None)
whole_number = _checked("a whole number of at least 0", lambda text: int(text) if text.isdigit() else None)
finite_number = _number("a finite number", math.isfinite)
fraction = _number("a number from 0 to below 1", lambda value: 0 <= value < 1)
positive_number = _number("a number above 0", lambda value: value > 0)
non_negative_number = _number("a number of at least 0", lambda value: value >= 0)
utf8 = _checked("text in UTF-8; give other text in a file", lambda text: text.encode().decode())


def escaped(text: str) -> str:
  return text.replace("\\n", "\n").replace("\\t", "\t")


def _pairs(expected: str, read: Callable[[str], tuple[str, str] | None]) -> Callable[[str], dict[str, str]]:
  pair = _checked(expected, read)
  return lambda text: dict(map(pair, list(filter(None, map(str.strip, text.split(",")))) or [text]))


def _column(text: str) -> tuple[str, str] | None:
  name, equals, column = map(str.strip, text.partition("="))
  return (name, column) if name and equals else None


def _winner(text: str) -> tuple[str, str] | None:
  value, _, side = map(str.strip, text.rpartition("="))
  meant = entries.WINNER_WORDS.get(side.lower())
  return (entries.key(value), meant) if value and meant else None


def _weight(text: str) -> tuple[str, float] | None:
  found = _column(text)
  return found and (found[0], finite_number(found[1]))


column_map = _pairs("NAME=COLUMN", _column)
"""`prompt=question,context=` -> {"prompt": "question", "context": ""}: an empty right side drops a column."""
winner_values = _pairs("VALUE=a, VALUE=b or VALUE=tie", _winner)
"""`1=a,0=b` -> {"1": "a", "0": "b"}."""


class _Merge(argparse.Action):
  def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: list[dict], *_: object):
    setattr(namespace, self.dest, {name: number for one in values for name, number in one.items()})


OF_TYPE = {
  "str": {"metavar": "TEXT"},
  "int": {"type": positive_int, "metavar": "N"},
  "float": {"type": positive_number, "metavar": "X"},
  "bool": {"type": boolean, "nargs": "?", "const": True, "metavar": "BOOL"},  # alone, or with a value
  "Sequence[str]": {"nargs": "+", "metavar": "TEXT"},
  "Sequence[int]": {"nargs": "+", "type": positive_int, "metavar": "N"},
  "Sequence[float]": {"nargs": "+", "type": finite_number, "metavar": "X"},
  "Mapping[str, str]": {"metavar": "A=B,..."},
  "Mapping[str, float]": {"nargs": "+", "type": _pairs("NAME=NUMBER", _weight), "action": _Merge, "metavar": "NAME=X"},
}
"""Type of a field -> what argparse is told."""


def flag(default: object, help: str, *, group: str | None = None, **more: object) -> Any:
  """A field with the flag of its name, in this group or that of its class. help: a default is written after it."""
  return field(default=default, metadata={"group": group, "flag": {"help": help, **more}})


def settings(kind: Callable[..., T], namespace: argparse.Namespace) -> T:
  return kind(**{one.name: getattr(namespace, one.name) for one in fields(kind) if one.name in namespace})


def check_required(settings: object, required: Iterable[str], prog: str) -> None:
  missing = [f"--{name}" for name in required if getattr(settings, name) in (None, [])]
  if missing:
    verb = "is" if len(missing) == 1 else "are"
    raise UsageError(f"{' and '.join(missing)} {verb} required", hint=f"{prog} --help shows an example")


class Parser(argparse.ArgumentParser):
  """Flags of the dataclasses `kinds`, and `--config RECIPE`. Errors are UsageError.

  trainer: imports configuration classes; their fields go to `namespace.trainer_arguments`.
  """

  def __init__(
    self,
    doc: str | None,
    prog: str,
    *kinds: type,
    required: tuple[str, ...] = (),
    trainer: Callable[[], Iterable[type]] | None = None,
  ):
    summary, _, rest = (doc or "").strip().partition("\n")  # `python -OO` has no docstrings
    super().__init__(
      prog=prog,
      description=summary,
      epilog=rest.strip("\n") or None,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )
    self.required, self.trainer = required, trainer
    self.see_help = f"{prog} --help lists every flag"
    if prog in SCRIPT_RESULTS:
      said = "print the JSON Schema of what goes to stdout, and exit"
      self.add_argument("--json_schema", action="store_true", default=argparse.SUPPRESS, help=said)
    said = "YAML file with any of these flags as keys; flags override it"
    self.add_argument("--config", metavar="RECIPE", help=said)
    groups = {group.title: group for group in self._action_groups}
    for kind in kinds:
      for base in _with_bases(kind):
        for name in inspect.get_annotations(base):
          self._add(kind.__dataclass_fields__[name], base, groups)

  def _add(self, one: Field, base: type, groups: dict[str, argparse._ArgumentGroup]) -> None:
    if not one.metadata or f"--{one.name}" in self._option_string_actions:
      return
    title, own = one.metadata["group"] or base.group, one.metadata["flag"]
    groups[title] = groups.get(title) or self.add_argument_group(title)
    more = OF_TYPE.get(one.type.removesuffix(" | None"), {}) | own
    more["help"] = f"{more['help']}{_said(one.default)}".strip()
    if "choices" in own:
      more["metavar"] = own.get("metavar")
    groups[title].add_argument(more.pop("name", f"--{one.name}"), default=one.default, **more)

  def print_help(self, file: TextIO | None = None) -> None:
    super().print_help(file or stdout())
    stdout().flush()

  def error(self, message: str) -> NoReturn:
    raise UsageError(message, hint=self.see_help)

  def parse(self, argv: list[str] | None = None) -> argparse.Namespace:
    """Flags over those of the recipe. Raises UsageError for all unknown ones of one place at once."""
    words = sys.argv[1:] if argv is None else argv
    for name, count in Counter(word.partition("=")[0] for word in words).items():
      action = self._option_string_actions.get(name)
      if count > 1 and action and (name == "--config" or action.nargs in ("+", "*")):  # of others the last one counts
        raise UsageError(f"{name} is given twice", hint="give it once, with all of its values")
    first, _ = self.parse_known_args(words)
    if "json_schema" in first:
      print(json.dumps(json_schema(self.prog), indent=2), file=stdout(), flush=True)
      self.exit()
    _settle_texts(first)
    namespace, extra = argparse.Namespace(), []
    if first.config:
      namespace, extra = self._parsed(_recipe_words(Path(first.config)), namespace, first.config)
    namespace, more = self._parsed(words, namespace)
    _settle_texts(namespace)
    if self.trainer:
      namespace.trainer_arguments = extra + more
    given = _by_name(extra + more)
    check_optional({"report_to": getattr(namespace, "report_to", None) or ()} | given)
    alone = getattr(namespace, "estimate_memory", None)  # of the model, which comes first
    check_required(namespace, self.required[:1] if alone else self.required, self.prog)
    warn_if_emulated(vars(namespace) | {name: " ".join(values) or "true" for name, values in given.items()})
    return namespace

  def _parsed(
    self, words: list[str], namespace: argparse.Namespace, where: str | None = None
  ) -> tuple[argparse.Namespace, list[str]]:
    words, refused = translated(words, self.prog, self._knows, where)
    try:
      namespace, unknown = self.parse_known_args(words, namespace)
    except UsageError as error:
      raise UsageError(error.message, where=where, hint=error.hint) from error
    flags = [token.partition("=")[0][2:] for token in unknown if token.startswith("--")]
    advice = refused | {name: self._advice(name) for name in flags if name not in self._trainer_fields}
    if advice:
      several = len(advice) > 1
      what = f"unknown flag{'s' * several} {', '.join(f'--{name}' for name in advice)}"
      hint = "\n      ".join(f"--{name}: " * several + said for name, said in advice.items())
      raise UsageError(what, where=where, hint=hint)
    if unknown and not unknown[0].startswith("--"):
      raise UsageError(f"unexpected argument {unknown[0]!r}", where=where, hint=self.see_help)
    return namespace, unknown

  @cached_property
  def _trainer_fields(self) -> set[str]:
    return _field_names(self.trainer()) if self.trainer else set()

  def _knows(self, name: str) -> bool:
    return f"--{name}" in self._option_string_actions or name in self._trainer_fields

  def _advice(self, name: str) -> str:
    own = {option.lstrip("-") for option in self._option_string_actions}
    close = difflib.get_close_matches(name, sorted(own | self._trainer_fields), n=2, cutoff=0.7)
    if close:
      return f"did you mean {' or '.join(f'--{flag}' for flag in close)}?"
    if self.trainer:
      classes = " or ".join(kind.__name__ for kind in self.trainer())
      return f"{self.see_help}, and any field of {classes} is one too"
    from transformers import TrainingArguments

    if name in _field_names([TrainingArguments]):
      return "leave it out: it is a setting of transformers' trainer, which does not run here"
    return self.see_help


def _with_bases(kind: type) -> Iterator[type]:
  for base in kind.__bases__:
    if base is not object:
      yield from _with_bases(base)
  yield kind


def _said(default: object) -> str:
  if default is None or default is False or default == ():
    return ""
  if isinstance(default, int | float):
    return f" ({'on' if default is True else f'{default:g}'})"
  return f" ({default if isinstance(default, str) else ' '.join(default)})"


def _by_name(words: list[str]) -> dict[str, list[str]]:
  """["--optim", "lomo", "--a=1"] -> {"optim": ["lomo"], "a": ["1"]}."""
  found: dict[str, list[str]] = {}
  for word in words:
    if word.startswith("--"):
      name, equals, value = word[2:].partition("=")
      found[name] = [value] if equals else []
    else:
      found[name].append(word)
  return found


def _settle_texts(namespace: argparse.Namespace) -> None:
  """An unset shell variable makes an empty path or name; no shell expands the home of `--flag=~/x` or of a recipe."""
  for name, value in vars(namespace).items():
    texts = value if isinstance(value, list) else [value]
    if name in MAY_BE_EMPTY or not all(isinstance(text, str) for text in texts):
      continue
    if not all(map(str.strip, texts)):
      raise UsageError(f"--{name} is empty", hint="give a value, or leave the flag out")
    paths = [os.path.expanduser(text) if text.startswith("~/") else text for text in texts]  # noqa: PTH111
    setattr(namespace, name, paths if isinstance(value, list) else paths[0])


def _field_names(configs: Iterable[type]) -> set[str]:
  return {one.name for config in configs for one in fields(config) if one.init and not one.name.startswith("_")}


def trainer_fields(config_class: Callable[[], type], words: list[str], prog: str) -> Row:
  """`["--weight_decay", "0.1"]` -> {"weight_decay": 0.1}, with the types of the configuration class."""
  if not words:
    return {}
  from transformers import HfArgumentParser

  parser = HfArgumentParser(config_class(), allow_abbrev=False, prog=prog)
  parser.see_help = f"{prog} --help lists every flag"
  parser.error = lambda message: Parser.error(parser, message)
  given = parser.parse_args(words)
  values = {name: getattr(given, name) for name in _by_name(words)}
  for name, value in values.items():
    if isinstance(value, float) and not math.isfinite(value):
      parser.error(f"argument --{name}: expected a finite number, got '{value}'")
  return values


def _recipe_words(path: Path) -> list[str]:
  import yaml

  if not path.exists() and (SKILL_FOLDER / path).exists():
    path = SKILL_FOLDER / path  # a recipe named as the documents name it, from any folder
  try:
    text = path.read_text(encoding="utf-8-sig")
    recipe, node = yaml.safe_load(text), yaml.compose(text)
  except OSError as error:
    raise UsageError(f"cannot read the recipe {path}: {error.strerror}") from error
  except (yaml.YAMLError, UnicodeDecodeError) as error:
    where = f"{path}:{error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else str(path)
    raise UsageError("the recipe is not valid YAML", where=where, hint=getattr(error, "problem", None)) from error
  if not isinstance(recipe, dict):
    raise UsageError("a recipe is a mapping of flags to values", where=str(path))
  if "config" in recipe:
    raise UsageError("a recipe cannot name another by `config`", where=str(path), hint="copy its lines into this one")
  keys = [key.value for key, _ in node.value]
  if twice := [key for key in recipe if keys.count(key) > 1]:
    raise UsageError(f"`{twice[0]}` is given twice", where=str(path), hint="keep one of them")
  words: list[str] = []
  for key, value in recipe.items():
    if isinstance(value, list):
      if any(item is None or isinstance(item, list) for item in value):
        raise UsageError(f"`{key}` is a list with a list or nothing in it", where=str(path), hint="quote its texts")
      words += [f"--{key}", *map(_flag_value, value)]
    elif value is not None:
      text = _flag_value(value)
      words += [f"--{key}={text}"] if text.startswith("-") else [f"--{key}", text]  # it may look like a flag
  return words


def _flag_value(value: object) -> str:
  if isinstance(value, bool):
    return str(value).lower()
  return json.dumps(value) if isinstance(value, dict) else str(value)
