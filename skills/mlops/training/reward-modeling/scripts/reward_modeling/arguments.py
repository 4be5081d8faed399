"""Flags shared by the scripts, recipes in YAML, and trainer fields accepted by their own names.

Nothing heavy is imported here: `--help` and a misspelt flag are answered at once. The names of the trainer's fields
are read from the source text of the installed transformers and trl, not by importing them.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.util
import json
import math
from pathlib import Path
from typing import Any, NoReturn

from .console import UsageError, results
from .rendering import OVERLONG

# Where the fields of trl.RewardConfig are declared, base class first. A test compares this with the real dataclass.
TRAINER_FIELD_SOURCES = (
    ("transformers", "training_args.py", "TrainingArguments"),
    ("trl", "trainer/base_config.py", "_BaseConfig"),
    ("trl", "trainer/reward_config.py", "RewardConfig"),
)


SKILL_FOLDER = Path(__file__).resolve().parents[2]


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, whose errors are UsageError in the style of every other error."""

    def __init__(self, doc: str, **kwargs: Any):
        summary, _, rest = doc.strip().partition("\n")
        super().__init__(
            description=summary,
            epilog=rest.strip("\n") or None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **kwargs,
        )

    def print_help(self, file: Any = None) -> None:
        """The help is what was asked for, so it goes to stdout, which `main_guard` otherwise keeps for the JSON."""
        super().print_help(file or results())
        results().flush()

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"{self.prog} --help lists every flag")


def boolean(text: str) -> bool:
    """true/false, yes/no, 1/0 -> bool, for flags that may stand alone or carry a value as in Hugging Face's scripts."""
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return known[text.lower()]


def add_flag(group, name: str, help: str, default: bool = False) -> None:
    """A boolean flag: `--name`, `--name true` or `--name false`."""
    group.add_argument(name, type=boolean, nargs="?", const=True, default=default, metavar="BOOL", help=help)


def parse_columns(text: str) -> dict[str, str]:
    """`prompt=question,chosen=good` -> {"prompt": "question", "chosen": "good"}. An empty right side drops a column."""
    pairs = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, column = part.partition("=")
        if not equals or not name.strip():
            raise argparse.ArgumentTypeError(f"expected NAME=COLUMN, got {part!r}")
        pairs[name.strip()] = column.strip()
    return pairs


def add_dataset_arguments(parser: argparse.ArgumentParser, split_default: str | None = None, *, training: bool = False):
    """--dataset_name and what belongs to it. Training has a train and a test split, every other script one split."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--dataset_name",
        nargs="+",
        metavar="DATA",
        help="files (JSONL, JSON, CSV, Parquet, .gz), folders, datasets saved to disk or hub ids; several are concatenated",
    )
    group.add_argument("--dataset_config", metavar="NAME", help="configuration of a hub dataset")
    if training:
        group.add_argument("--dataset_train_split", default="train", metavar="SPLIT", help="split to train on (train)")
        group.add_argument("--dataset_test_split", metavar="SPLIT", help="split to evaluate on, when there is one")
    else:
        group.add_argument(
            "--dataset_split",
            default=split_default,
            metavar="SPLIT",
            help=f"split of a hub dataset ({split_default or 'all of it'})",
        )
    group.add_argument(
        "--format", metavar="NAME", help="format of the rows, instead of recognising it (check_data.py --list_formats)"
    )
    group.add_argument(
        "--columns",
        type=parse_columns,
        metavar="A=B,...",
        help="read column B as A, as in prompt=question,chosen=good; `context=` says that the column context is to be dropped",
    )
    return group


def add_scoring_arguments(parser: argparse.ArgumentParser):
    """The reward model and how it is run: for every script that scores."""
    group = parser.add_argument_group("reward model")
    group.add_argument("--model_name_or_path", metavar="MODEL", help="folder or hub id of a reward model")
    group.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "bfloat16", "float16"),
        help="precision of the weights (float32)",
    )
    group.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, mps (the best there is)")
    group.add_argument(
        "--max_length",
        type=positive_int,
        metavar="TOKENS",
        help="longest rendered conversation (what the model was trained with)",
    )
    group.add_argument(
        "--overlong", choices=OVERLONG, help="what to do with longer ones (what the model was trained with)"
    )
    group.add_argument(
        "--max_tokens_per_batch",
        type=positive_int,
        metavar="TOKENS",
        help="tokens in one forward pass, each shared one counted once (chosen from the data)",
    )
    return group


def positive_int(text: str) -> int:
    if not text.lstrip("+").isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def fraction(text: str) -> float:
    value = _number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1, got {text!r}")
    return value


def positive_number(text: str) -> float:
    value = _number(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def non_negative_number(text: str) -> float:
    value = _number(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text!r}")
    return value


def parse(
    parser: Parser, argv: list[str] | None, *, required: tuple[str, ...] = (), trainer_fields: bool = False
) -> argparse.Namespace:
    """Parse flags over an optional `--config recipe.yaml`; flags win.

    With `trainer_fields`, flags the parser does not know but trl.RewardConfig has are returned, as given, in
    `namespace.trainer_arguments`. Raises UsageError for an unknown flag or key (with the closest known name), for a
    recipe that is not a mapping, and for a missing required flag.
    """
    parser.add_argument(
        "--config", metavar="RECIPE", help="YAML file with any of these flags as keys; flags override it"
    )
    first, _ = parser.parse_known_args(argv)
    namespace, extra = argparse.Namespace(), []
    if first.config:
        namespace, unknown = _parse_recipe(parser, first.config)
        extra += _trainer_arguments(parser, unknown, trainer_fields, where=first.config)
    namespace, unknown = parser.parse_known_args(argv, namespace)
    extra += _trainer_arguments(parser, unknown, trainer_fields)
    if trainer_fields:
        namespace.trainer_arguments = extra
    missing = [f"--{name}" for name in required if getattr(namespace, name) in (None, [])]
    if missing:
        raise UsageError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} required",
            hint=f"{parser.prog} --help shows an example",
        )
    return namespace


def _parse_recipe(parser: Parser, recipe: str) -> tuple[argparse.Namespace, list[str]]:
    """`parse_known_args` of a recipe's keys and values; what it refuses is said to be in the recipe."""
    arguments = _recipe_arguments(Path(recipe))
    try:
        return parser.parse_known_args(arguments)
    except UsageError as error:
        raise UsageError(error.message, where=recipe, hint=error.hint) from error


def parse_trainer_fields(dataclass: Any, arguments: list[str], prog: str) -> dict[str, Any]:
    """`["--weight_decay", "0.1"]` -> {"weight_decay": 0.1}, with the types of the trainer's configuration class.

    Only the fields that were given. Raises UsageError for a value of another type.
    """
    from transformers import HfArgumentParser

    fields = HfArgumentParser(dataclass, allow_abbrev=False, prog=prog)
    fields.error = lambda message: Parser.error(fields, message)
    given = vars(fields.parse_args(arguments))
    named = {token.partition("=")[0].removeprefix("--") for token in arguments if token.startswith("--")}
    return {name: value for name, value in given.items() if name in named}


def trainer_field_names() -> set[str]:
    """Every field of trl.RewardConfig, read from source: importing it takes seconds, this takes milliseconds."""
    names = set()
    for package, file, class_name in TRAINER_FIELD_SOURCES:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise UsageError(
                f"{package} is not installed",
                hint="run the script with `uv run`, or pip install the packages its header lists",
            )
        tree = ast.parse((Path(spec.submodule_search_locations[0]) / file).read_text(encoding="utf-8"))
        body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
        names |= {
            node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
    return {name for name in names if not name.startswith("_")}


def _recipe_arguments(path: Path) -> list[str]:
    import yaml

    if not path.exists() and (SKILL_FOLDER / path).exists():
        path = SKILL_FOLDER / path  # a recipe named as the documents name it, from any folder
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = f"{path}:{error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else str(path)
        raise UsageError("the recipe is no valid YAML", where=where) from error
    if not isinstance(recipe, dict):
        raise UsageError("a recipe is a mapping of flags to values", where=str(path))
    arguments: list[str] = []
    for key, value in recipe.items():
        if isinstance(value, list):
            arguments += [f"--{key}", *map(_flag_value, value)]
        elif value is not None:
            text = _flag_value(value)
            # A value that looks like a flag (a prompt that starts with a dash) must be tied to its key.
            arguments += [f"--{key}={text}"] if text.startswith("-") else [f"--{key}", text]
    return arguments


def _flag_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _trainer_arguments(parser: Parser, unknown: list[str], allowed: bool, where: str | None = None) -> list[str]:
    """The unknown arguments, if every flag among them is a field of the trainer."""
    fields = trainer_field_names() if allowed and unknown else set()
    for token in unknown:
        name = token.partition("=")[0]
        if not name.startswith("--"):
            continue
        if name[2:] not in fields:
            known = {flag.lstrip("-") for flag in parser._option_string_actions} | fields
            close = [f"--{flag}" for flag in difflib.get_close_matches(name[2:], sorted(known), n=2, cutoff=0.7)]
            hint = f"did you mean {' or '.join(close)}?" if close else f"{parser.prog} --help lists every flag"
            raise UsageError(f"unknown flag {name}", where=where, hint=hint)
    if unknown and not unknown[0].startswith("--"):
        raise UsageError(
            f"unexpected argument {unknown[0]!r}", where=where, hint=f"{parser.prog} --help lists every flag"
        )
    return unknown
