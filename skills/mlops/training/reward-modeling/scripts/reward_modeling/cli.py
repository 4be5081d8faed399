"""Flags, recipes and help pages, made from dataclasses of settings. The one module that knows argparse.

Nothing heavy is imported here, so that `--help` answers at once. Fields of a trainer are flags by their own names too: the
trainer is imported, and they are checked against it, only where a flag is given that is not one of the script's own.
(transformers' HfArgumentParser reads those; it has no groups, no bounds and no recipes that flags override.)
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from .data import winners
from .errors import UsageError
from .old_flags import translated
from .packages import check_optional
from .precision import warn_if_emulated
from .results import SCRIPT_RESULTS, json_schema, stdout

MAY_BE_EMPTY = ("prompt", "completions", "step_separator", "trainer_arguments")
SKILL_FOLDER = Path(__file__).resolve().parents[2]

T = TypeVar("T")

# ---- values of flags ------------------------------------------------------------------------------------------------


def boolean(text: str) -> bool:
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return known[text.lower()]


def positive_int(text: str) -> int:
    if not text.lstrip("+").isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def _number(expected: str, fits: Callable[[float], bool]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a number, got {text!r}") from None
        if not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"expected a finite number, got {text!r}")
        if not fits(value):
            raise argparse.ArgumentTypeError(f"expected a number {expected}, got {text!r}")
        return value

    return parse


finite_number = _number("", math.isfinite)
fraction = _number("from 0 to below 1", lambda value: 0 <= value < 1)
positive_number = _number("above 0", lambda value: value > 0)
non_negative_number = _number("of at least 0", lambda value: value >= 0)


def utf8(text: str) -> str:
    """A text that is scored: the bytes of a command line that are not UTF-8 cannot be."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("the text is not UTF-8; give it in a file") from None
    return text


def escaped(text: str) -> str:
    r"""Text in which \n and \t, typed as two characters each in a shell, stand for a line break and a tab."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def column_map(text: str) -> dict[str, str]:
    """`prompt=question,chosen=good` -> {"prompt": "question", "chosen": "good"}. An empty right side drops a column."""
    pairs = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, column = part.partition("=")
        if not equals or not name.strip():
            raise argparse.ArgumentTypeError(f"expected NAME=COLUMN, got {part!r}")
        pairs[name.strip()] = column.strip()
    return pairs


def winner_values(text: str) -> dict[str, str]:
    """`1=a,0=b` -> {"1": "a", "0": "b"}, with the values written as `winners.key` writes them."""
    means = {}
    for part in filter(None, map(str.strip, text.split(","))):
        value, _, side = part.rpartition("=")
        if not value.strip() or winners.WORDS.get(side.strip().lower()) is None:
            raise argparse.ArgumentTypeError(f"expected VALUE=a, VALUE=b or VALUE=tie, got {part!r}")
        means[winners.key(value)] = winners.WORDS[side.strip().lower()]
    if not means:
        raise argparse.ArgumentTypeError("expected VALUE=a,VALUE=b, got nothing")
    return means


OF_TYPE: dict[str, dict[str, Any]] = {
    "str": {"metavar": "TEXT"},
    "int": {"type": positive_int, "metavar": "N"},
    "float": {"type": positive_number, "metavar": "X"},
    "bool": {"type": boolean, "nargs": "?", "const": True, "metavar": "BOOL"},  # alone, or with a value
    "Sequence[str]": {"nargs": "+", "metavar": "TEXT"},
    "Sequence[int]": {"nargs": "+", "type": positive_int, "metavar": "N"},
    "Sequence[float]": {"nargs": "+", "type": finite_number, "metavar": "X"},
    "Mapping[str, str]": {"metavar": "A=B,..."},
}
"""Type of a field -> what argparse is told."""

# ---- settings -------------------------------------------------------------------------------------------------------


def flag(default: Any, help: str, *, group: str | None = None, **more: Any) -> Any:
    """A field of a dataclass of settings that has the flag of its name, in this group of the help or that of its class.

    help: a default that says something is written after it. more: for argparse, beside what follows from the type.
    """
    return field(default=default, metadata={"group": group, "flag": {"help": help, **more}})


def settings(kind: Callable[..., T], namespace: argparse.Namespace) -> T:
    """The typed settings of this dataclass, from the flags of the names of its fields; others keep their default."""
    given = vars(namespace)
    return kind(**{one.name: given[one.name] for one in fields(kind) if one.name in given})


def check_required(settings: object, required: Iterable[str], prog: str) -> None:
    """Raises UsageError for a required flag that was not given."""
    missing = [f"--{name}" for name in required if getattr(settings, name) in (None, [])]
    if missing:
        raise UsageError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} required",
            hint=f"{prog} --help shows an example",
        )


class Parser(argparse.ArgumentParser):
    """The flags of a script: those of the dataclasses `kinds`, and `--config RECIPE`.

    required: flags that must be given. trainer: imports the classes of a trainer's configuration, whose fields are taken as
    given, in `namespace.trainer_arguments`. No abbreviations; errors are UsageError.
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
        if prog in SCRIPT_RESULTS:
            told = "print the JSON Schema of what goes to stdout, and exit"
            self.add_argument("--json_schema", action=_PrintSchema, nargs=0, default=argparse.SUPPRESS, help=told)
        self.add_argument(
            "--config", metavar="RECIPE", help="YAML file with any of these flags as keys; flags override it"
        )
        for kind in kinds:
            self._add(kind)

    def _add(self, kind: type) -> None:
        """The flags of a dataclass, those of its bases first."""
        groups = {group.title: group for group in self._action_groups}
        for base in _with_bases(kind):
            for name in inspect.get_annotations(base):
                one = kind.__dataclass_fields__[name]
                if one.metadata and f"--{name}" not in self._option_string_actions:
                    title = one.metadata["group"] or base.group
                    groups[title] = groups.get(title) or self.add_argument_group(title)
                    more = OF_TYPE.get(one.type.removesuffix(" | None"), {}) | one.metadata["flag"]
                    more["help"] = f"{more['help']}{_said(one.default)}".strip()
                    if "choices" in one.metadata["flag"]:
                        more["metavar"] = one.metadata["flag"].get("metavar")
                    groups[title].add_argument(more.pop("name", f"--{name}"), default=one.default, **more)

    def print_help(self, file: Any = None) -> None:
        """The help is what was asked for, so it goes to stdout, which `main_guard` otherwise keeps for the JSON."""
        super().print_help(file or stdout())
        stdout().flush()

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"{self.prog} --help lists every flag")

    def parse(self, argv: list[str] | None = None) -> argparse.Namespace:
        """Flags over those of the recipe; those of other tools are answered by old_flags.py.

        Raises UsageError for unknown flags or keys, all of one place at once and each with what to do instead, for a recipe
        that is not a mapping, and for a missing required flag.
        """
        words = sys.argv[1:] if argv is None else argv
        first, _ = self.parse_known_args(words)
        _refuse_empty(first)
        namespace, extra = argparse.Namespace(), []
        if first.config:
            namespace, extra = self._parsed(_recipe_words(Path(first.config)), namespace, first.config)
        namespace, more = self._parsed(words, namespace)
        _refuse_empty(namespace)
        if self.trainer:
            namespace.trainer_arguments = extra + more
        check_optional({"report_to": getattr(namespace, "report_to", None) or ()} | _by_name(extra + more))
        check_required(namespace, self.required, self.prog)
        warn_if_emulated(vars(namespace))
        return namespace

    def _parsed(
        self, words: list[str], namespace: argparse.Namespace, where: str | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """(the namespace with what these words say, those of them that are the trainer's). where: the recipe they are from."""
        words, refused = translated(words, self.prog, self._knows, where)
        try:
            namespace, unknown = self.parse_known_args(words, namespace)
        except UsageError as error:
            raise UsageError(error.message, where=where, hint=error.hint) from error
        flags = [token.partition("=")[0][2:] for token in unknown if token.startswith("--")]
        advice = refused | {name: self._advice(name) for name in flags if name not in self._trainer_fields}
        if advice:
            several = len(advice) > 1
            raise UsageError(
                f"unknown flag{'s' if several else ''} {', '.join(f'--{name}' for name in advice)}",
                where=where,
                hint="\n      ".join(f"{f'--{name}: ' if several else ''}{said}" for name, said in advice.items()),
            )
        if unknown and not unknown[0].startswith("--"):
            raise UsageError(
                f"unexpected argument {unknown[0]!r}", where=where, hint=f"{self.prog} --help lists every flag"
            )
        return namespace, unknown

    @cached_property
    def _trainer_fields(self) -> set[str]:
        return _field_names(self.trainer()) if self.trainer else set()

    def _knows(self, name: str) -> bool:
        return f"--{name}" in self._option_string_actions or name in self._trainer_fields

    def _advice(self, name: str) -> str:
        """What to do about a flag that the script does not have."""
        own = {option.lstrip("-") for option in self._option_string_actions}
        close = difflib.get_close_matches(name, sorted(own | self._trainer_fields), n=2, cutoff=0.7)
        if close:
            return f"did you mean {' or '.join(f'--{flag}' for flag in close)}?"
        if self.trainer:
            fields = f", and any field of {' or '.join(kind.__name__ for kind in self.trainer())} is one too"
            return f"{self.prog} --help lists every flag{fields}"
        from transformers import TrainingArguments

        if name in _field_names([TrainingArguments]):
            return "leave it out: it is a setting of transformers' trainer, which does not run here"
        return f"{self.prog} --help lists every flag"


class _PrintSchema(argparse.Action):
    """--json_schema, which like --help answers before anything else is looked at."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(json.dumps(json_schema(parser.prog), indent=2), file=stdout(), flush=True)
        parser.exit()


def _with_bases(kind: type) -> Iterator[type]:
    """The dataclasses that a dataclass is made of, in the order of their bases, itself last."""
    for base in kind.__bases__:
        if base is not object:
            yield from _with_bases(base)
    yield kind


def _said(default: Any) -> str:
    """A default as the help says it."""
    if default is None or default is False or default == ():
        return ""
    if isinstance(default, int | float):
        return f" ({'on' if default is True else f'{default:g}'})"
    return f" ({default if isinstance(default, str) else ' '.join(default)})"


def _by_name(words: list[str]) -> dict[str, list[str]]:
    """["--optim", "lomo", "--a=1"] -> {"optim": ["lomo"], "a": ["1"]}; of a flag given twice, what stands last."""
    found: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found[name] = [value] if equals else []
        else:
            found[name].append(word)
    return found


def _refuse_empty(namespace: argparse.Namespace) -> None:
    """Raises UsageError for an empty path or name, such as a shell variable that is not set leaves behind."""
    for name, value in vars(namespace).items():
        texts = [value] if isinstance(value, str) else value
        if name in MAY_BE_EMPTY or not isinstance(texts, list):
            continue
        if any(isinstance(text, str) and not text.strip() for text in texts):
            raise UsageError(f"--{name} is empty", hint="give a value, or leave the flag out")


# ---- fields of a trainer --------------------------------------------------------------------------------------------


def _field_names(configs: Iterable[type]) -> set[str]:
    return {one.name for config in configs for one in fields(config) if one.init and not one.name.startswith("_")}


def trainer_fields(config_class: Callable[[], type], words: list[str], prog: str) -> dict[str, Any]:
    """`["--weight_decay", "0.1"]` -> {"weight_decay": 0.1}, with the types of the trainer's configuration class.

    Only the fields that were given; the class is imported, which takes seconds, only where there are any. Raises UsageError
    for a value of another type.
    """
    if not words:
        return {}
    from transformers import HfArgumentParser

    parser = HfArgumentParser(config_class(), allow_abbrev=False, prog=prog)
    parser.error = lambda message: Parser.error(parser, message)
    given = vars(parser.parse_args(words))
    return {name: given[name] for name in _by_name(words)}


# ---- recipes --------------------------------------------------------------------------------------------------------


def _recipe_words(path: Path) -> list[str]:
    """A recipe as the command line that says the same. Raises UsageError for one that cannot be read."""
    import yaml

    if not path.exists() and (SKILL_FOLDER / path).exists():
        path = SKILL_FOLDER / path  # a recipe named as the documents name it, from any folder
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = f"{path}:{error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else str(path)
        raise UsageError("the recipe is not valid YAML", where=where) from error
    if not isinstance(recipe, dict):
        raise UsageError("a recipe is a mapping of flags to values", where=str(path))
    words: list[str] = []
    for key, value in recipe.items():
        if isinstance(value, list):
            words += [f"--{key}", *map(_flag_value, value)]
        elif value is not None:
            text = _flag_value(value)
            # A value that looks like a flag (a prompt that starts with a dash) must be tied to its key.
            words += [f"--{key}={text}"] if text.startswith("-") else [f"--{key}", text]
    return words


def _flag_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, dict) else str(value)
