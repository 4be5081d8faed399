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
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

from .data import winners
from .errors import UsageError
from .old_flags import translated
from .packages import check_optional, is_installed, not_installed
from .precision import warn_if_emulated
from .rendering import OVERLONG
from .results import RESULTS, json_schema, stdout
from .step_rendering import STEPS_OVERLONG

# Where the fields of trl.RewardConfig are declared, base class first. A test compares this with the real dataclass.
TRAINING_ARGUMENTS = ("transformers", "training_args.py", "TrainingArguments")
TRAINER_FIELD_SOURCES = (
    TRAINING_ARGUMENTS,
    ("trl", "trainer/base_config.py", "_BaseConfig"),
    ("trl", "trainer/reward_config.py", "RewardConfig"),
)
# The same for trl.GRPOConfig and trl.RLOOConfig together.
POLICY_TRAINER_FIELD_SOURCES = (
    *TRAINER_FIELD_SOURCES[:2],
    ("trl", "trainer/grpo_config.py", "GRPOConfig"),
    ("trl", "trainer/rloo_config.py", "RLOOConfig"),
)


EVALUATE_ON = "add --val_set_size 0.1 or --eval_dataset_name FILE"

MAY_BE_EMPTY = ("prompt", "completions", "step_separator", "trainer_arguments")

T = TypeVar("T")

SKILL_FOLDER = Path(__file__).resolve().parents[2]


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, whose errors are UsageError in the style of every other error."""

    def __init__(self, doc: str | None, **kwargs: Any):
        summary, _, rest = (doc or "").strip().partition("\n")  # `python -OO` has no docstrings
        super().__init__(
            description=summary,
            epilog=rest.strip("\n") or None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **kwargs,
        )
        if self.prog in RESULTS:
            self.add_argument(
                "--json_schema", action=PrintSchema, help="print the JSON Schema of what goes to stdout, and exit"
            )

    def print_help(self, file: Any = None) -> None:
        """The help is what was asked for, so it goes to stdout, which `main_guard` otherwise keeps for the JSON."""
        super().print_help(file or stdout())
        stdout().flush()

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"{self.prog} --help lists every flag")


class PrintSchema(argparse.Action):
    """--json_schema, which like --help answers before anything else is looked at."""

    def __init__(self, option_strings: list[str], dest: str, help: str):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *args: Any) -> NoReturn:
        print(json.dumps(json_schema(parser.prog), indent=2), file=stdout(), flush=True)
        parser.exit()


def boolean(text: str) -> bool:
    """true/false, yes/no, 1/0 -> bool, for flags that may stand alone or carry a value as in Hugging Face's scripts."""
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return known[text.lower()]


def add_flag(group, name: str, help: str, default: bool | None = False) -> None:
    """A boolean flag: `--name`, `--name true` or `--name false`."""
    group.add_argument(name, type=boolean, nargs="?", const=True, default=default, metavar="BOOL", help=help)


SHARED_PREFIX_HELP = (
    "compute shared beginnings once, where the model allows it (on CPUs; true: on a GPU too, not measured there)"
)


WINNER_VALUES_HELP = (
    "what the values of a winner column mean: a, b or tie (words such as model_a are known, numbers never are)"
)


def parse_winner_values(text: str) -> dict[str, str]:
    """`1=a,0=b` -> {"1": "a", "0": "b"}, with the values written as `winners.key` writes them."""
    means = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        value, _, side = part.rpartition("=")
        if not value.strip() or winners.WORDS.get(side.strip().lower()) is None:
            raise argparse.ArgumentTypeError(f"expected VALUE=a, VALUE=b or VALUE=tie, got {part!r}")
        means[winners.key(value)] = winners.WORDS[side.strip().lower()]
    if not means:
        raise argparse.ArgumentTypeError("expected VALUE=a,VALUE=b, got nothing")
    return means


def parse_columns(text: str) -> dict[str, str]:
    """`prompt=question,chosen=good` -> {"prompt": "question", "chosen": "good"}. An empty right side drops a column."""
    pairs = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, column = part.partition("=")
        if not equals or not name.strip():
            raise argparse.ArgumentTypeError(f"expected NAME=COLUMN, got {part!r}")
        pairs[name.strip()] = column.strip()
    return pairs


def flag(default: Any, help: str, *, group: str | None = None, **more: Any) -> Any:
    """A field of a dataclass of settings that has a flag, in this group instead of that of its class. more: for argparse,
    beside what follows from the annotation of the field."""
    return field(default=default, metadata={"group": group, "flag": {"help": help, **more}})


def add_settings(parser: argparse.ArgumentParser, *kinds: type) -> None:
    """The flags of these dataclasses, each without those of its bases. `group`, of the class, is their title in the help."""
    groups = {group.title: group for group in parser._action_groups}
    types = {"int": {"type": positive_int}, "float": {"type": positive_number}}
    types["bool"] = {"type": boolean, "nargs": "?", "const": True, "metavar": "BOOL"}
    for kind in kinds:
        for one in fields(kind):
            if one.metadata and one.name in vars(kind)["__annotations__"]:
                title = one.metadata["group"] or kind.group
                groups[title] = groups.get(title) or parser.add_argument_group(title)
                more = types.get(one.type.removesuffix(" | None"), {}) | one.metadata["flag"]
                groups[title].add_argument(f"--{one.name}", default=one.default, **more)


def settings(kind: Callable[..., T], namespace: argparse.Namespace) -> T:
    """The typed settings of this dataclass, from the flags of the names of its fields; others keep their default."""
    given = vars(namespace)
    return kind(**{one.name: given[one.name] for one in fields(kind) if one.name in given})


@dataclass(frozen=True, kw_only=True)
class ReadingSettings:
    """Which data, and how it is read."""

    group: ClassVar = "data"
    dataset_name: Sequence[str] = flag(
        None,
        "files (JSONL, JSON, CSV, TSV, Parquet, .gz), folders, datasets saved to disk or hub ids; several are concatenated",
        nargs="+",
        metavar="DATA",
    )
    dataset_config: str | None = flag(None, "configuration of a hub dataset", metavar="NAME")
    format: str | None = flag(
        None, "format of the rows, instead of recognising it (check_data.py --list_formats)", metavar="NAME"
    )
    columns: Mapping[str, str] | None = flag(
        None,
        "read column B as A, as in prompt=question,chosen=good; B may reach into objects and lists, as in "
        "prompt=question.text,completions=answers[].answer; `context=` says that the column context is to be dropped",
        type=parse_columns,
        metavar="A=B,...",
    )
    winner_values: Mapping[str, str] | None = flag(
        None, WINNER_VALUES_HELP, type=parse_winner_values, metavar="1=a,0=b"
    )

    @property
    def reading(self) -> dict[str, Any]:
        """Arguments of `records.load`."""
        return {"config": self.dataset_config, "format": self.format, "columns": self.columns}


def add_dataset_arguments(
    parser: argparse.ArgumentParser, split_default: str | None = None, *, training: bool = False, stepwise: bool = False
):
    """Flags of `ReadingSettings` and splits. Training has a train and a test split, every other script one split.

    stepwise: for scripts that read labelled steps.
    """
    add_settings(parser, ReadingSettings)
    group = next(group for group in parser._action_groups if group.title == ReadingSettings.group)
    if training:
        group.add_argument("--dataset_train_split", default="train", metavar="SPLIT", help="split to train on (train)")
        group.add_argument("--dataset_test_split", metavar="SPLIT", help="split to evaluate on, when there is one")
    else:
        told = f"split of a hub dataset ({split_default or 'all of it'})"
        group.add_argument("--dataset_split", default=split_default, metavar="SPLIT", help=told)
    if stepwise:
        group.add_argument(
            "--neutral",
            choices=("good", "bad", "ignore"),
            help="what a step rated 0 is taken for (ratings, PRM800K); must be said where there are any",
        )
    return group


def add_text_format_argument(group) -> None:
    """--text_format: whether the texts of the data are messages, or what a template has made of them."""
    group.add_argument(
        "--text_format",
        choices=("chat", "rendered"),
        help="rendered: prompt and answer are templated already, their text is read as it is; chat: the chat template is "
        "written around them (what the model was trained with, else chat)",
    )


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
        "--overlong",
        choices=tuple(dict.fromkeys((*OVERLONG, *STEPS_OVERLONG))),
        help="what to do with longer ones (what the model was trained with)",
    )
    group.add_argument(
        "--max_tokens_per_batch",
        type=positive_int,
        metavar="TOKENS",
        help="tokens in one forward pass, each shared one counted once (chosen from the data)",
    )
    add_flag(group, "--shared_prefix", SHARED_PREFIX_HELP, default=None)
    add_text_format_argument(group)
    group.add_argument(
        "--refused",
        choices=("stop", "unscored"),
        default="stop",
        help="what to do with rows that the chat template refuses: stop, or give them no score (stop)",
    )
    return group


def add_process_arguments(parser: argparse.ArgumentParser):
    """How a process reward model's step scores become rewards: for the scripts that take either kind of reward model."""
    from .aggregation import AGGREGATIONS, DEFAULT_AGGREGATE

    group = parser.add_argument_group("process reward model")
    group.add_argument(
        "--aggregate",
        choices=tuple(AGGREGATIONS),
        help=f"how the steps of a solution make its reward ({DEFAULT_AGGREGATE}: one wrong step is enough, however many there are)",
    )
    group.add_argument(
        "--step_separator",
        type=escaped,
        metavar="TEXT",
        help=r"where solutions in text are split into steps (that of the model if it is blank, else a line break, \n)",
    )
    return group


def add_several_models_arguments(group) -> None:
    """One outcome reward model, several with weights, or an ensemble: what `ensemble.Rewards` is made of."""
    from .ensemble import COMBINATIONS

    group.add_argument(
        "--reward_model_path", nargs="+", metavar="MODEL", help="folders or hub ids of one or more reward models"
    )
    group.add_argument(
        "--reward_weights",
        nargs="+",
        type=_number,
        metavar="W",
        help="one for each reward model (1); -1 turns a reward round",
    )
    group.add_argument(
        "--reward_combine",
        choices=tuple(COMBINATIONS),
        default="sum",
        help="; ".join(f"{name}: {entry.description}" for name, entry in COMBINATIONS.items()) + " (sum)",
    )


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
    parser: Parser,
    argv: list[str] | None,
    *,
    required: tuple[str, ...] = (),
    trainer_fields: bool | tuple = False,
) -> argparse.Namespace:
    """Parse flags over an optional `--config recipe.yaml`; flags win. Flags of other tools are answered by old_flags.py.

    With `trainer_fields` (the sources of the trainer's fields, or True for those of trl.RewardConfig), flags the parser
    does not know but the trainer has are returned, as given, in `namespace.trainer_arguments`. Raises UsageError for
    unknown flags or keys, all of one place at once and each with what to do instead, for a recipe that is not a mapping,
    and for a missing required flag.
    """
    parser.add_argument(
        "--config", metavar="RECIPE", help="YAML file with any of these flags as keys; flags override it"
    )
    sources = TRAINER_FIELD_SOURCES if trainer_fields is True else trainer_fields or ()
    words = sys.argv[1:] if argv is None else argv
    first, _ = parser.parse_known_args(words)
    refuse_empty(first)
    namespace, extra = argparse.Namespace(), []
    if first.config:
        namespace, extra = _parse_words(parser, _recipe_arguments(Path(first.config)), namespace, sources, first.config)
    namespace, more = _parse_words(parser, words, namespace, sources)
    refuse_empty(namespace)
    if trainer_fields:
        namespace.trainer_arguments = extra + more
    check_optional({"report_to": getattr(namespace, "report_to", None) or ()} | _by_name(extra + more))
    check_required(namespace, required, parser.prog)
    warn_if_emulated(vars(namespace))
    return namespace


def _parse_words(
    parser: Parser, words: list[str], namespace: argparse.Namespace, sources: tuple, where: str | None = None
) -> tuple[argparse.Namespace, list[str]]:
    """(the namespace with what these words say, those of them that are the trainer's). where: the recipe they are from."""
    known = _Known(parser, sources)
    words, refused = translated(words, parser.prog, known.__contains__, where)
    try:
        namespace, unknown = parser.parse_known_args(words, namespace)
    except UsageError as error:
        raise UsageError(error.message, where=where, hint=error.hint) from error
    flags = [token.partition("=")[0][2:] for token in unknown if token.startswith("--")]
    advice = refused | {name: known.advice(name) for name in flags if name not in known.fields}
    if advice:
        names = [f"--{name}" for name in advice]
        several = len(names) > 1
        raise UsageError(
            f"unknown flag{'s' if several else ''} {', '.join(names)}",
            where=where,
            hint="\n      ".join(f"{f'--{name}: ' if several else ''}{said}" for name, said in advice.items()),
        )
    if unknown and not unknown[0].startswith("--"):
        raise UsageError(
            f"unexpected argument {unknown[0]!r}", where=where, hint=f"{parser.prog} --help lists every flag"
        )
    return namespace, unknown


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


class _Known:
    """The flags of a script: those of its parser and, read when the first one is not among them, the trainer's fields."""

    def __init__(self, parser: Parser, sources: tuple):
        self.parser, self.sources = parser, sources
        self.flags = {flag.lstrip("-") for flag in parser._option_string_actions}

    @cached_property
    def fields(self) -> set[str]:
        return trainer_field_names(self.sources) if self.sources else set()

    def __contains__(self, name: str) -> bool:
        return name in self.flags or name in self.fields

    def advice(self, name: str) -> str:
        """What to do about a flag that the script does not have."""
        close = difflib.get_close_matches(name, sorted(self.flags | self.fields), n=2, cutoff=0.7)
        if close:
            return f"did you mean {' or '.join(f'--{flag}' for flag in close)}?"
        if name in trainer_field_names():
            return "leave it out: it is a setting of transformers' trainer, which does not run here"
        return f"{self.parser.prog} --help lists every flag{self._and_fields()}"

    def _and_fields(self) -> str:
        classes = [source[-1] for source in self.sources]
        return f", and any field of {classes[-1]} is one too" if classes else ""


def refuse_empty(namespace: argparse.Namespace) -> None:
    """Raises UsageError for an empty path or name, such as a shell variable that is not set leaves behind."""
    for name, value in vars(namespace).items():
        if name in MAY_BE_EMPTY or not isinstance(value, str | list):
            continue
        if any(isinstance(text, str) and not text.strip() for text in ([value] if isinstance(value, str) else value)):
            raise UsageError(f"--{name} is empty", hint="give a value, or leave the flag out")


def check_required(namespace: argparse.Namespace, required: tuple[str, ...], prog: str) -> None:
    """Raises UsageError for a required flag that was not given."""
    missing = [f"--{name}" for name in required if getattr(namespace, name) in (None, [])]
    if missing:
        raise UsageError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} required",
            hint=f"{prog} --help shows an example",
        )


def trainer_fields(config_class: Callable[[], type], words: list[str], prog: str) -> dict[str, Any]:
    """`parse_trainer_fields`, where any were given. config_class: imports the class, which takes seconds."""
    return parse_trainer_fields(config_class(), words, prog) if words else {}


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


def trainer_field_names(sources: tuple = TRAINER_FIELD_SOURCES) -> set[str]:
    """Every field of the trainer's configuration, read from source: importing it takes seconds, this milliseconds."""
    names = set()
    for package, file, class_name in sources:
        spec = importlib.util.find_spec(package) if is_installed(package) else None
        if spec is None or not spec.submodule_search_locations:
            raise not_installed(package)
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
