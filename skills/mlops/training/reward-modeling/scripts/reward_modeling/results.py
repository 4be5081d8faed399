"""What a script prints: one frozen dataclass, as one JSON object on stdout, whose JSON Schema comes from its types.

A field without a default is always there; one whose default is None is left out while it is None. NaN and infinity, which
JSON lacks, are null: such numbers have the type `Number`. A name may end in `_`, which JSON leaves out, and a field with
repr=False stays inside. The text below a field is its description in the schema.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import json
import math
import os
import sys
import textwrap
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise
from typing import Any, ClassVar, TextIO

from .errors import RunError, UserError

Number = float | None
"""A number; null in JSON where it is NaN or infinite."""

SCRIPT_RESULTS = {
    "check_data.py": "reward_modeling.data_check:CheckOutput",
    "train.py": "reward_modeling.training.results:ModelOutput",
    "train_process.py": "reward_modeling.training.results:ModelOutput",
    "score.py": "reward_modeling.row_scoring:Output",
    "evaluate.py": "reward_modeling.evaluation.results:EvaluationOutput",
    "ppo.py": "reward_modeling.training.results:PPOOutput",
    "grpo.py": "reward_modeling.training.results:GRPOOutput",
    "quickstart.py": "reward_modeling.training.results:Quickstart",
}
"""Script -> module:type of what it prints."""


class Result:
    """Base of what a script prints. The configuration is that of its JSON Schema, for pydantic, and holds for its parts."""

    __pydantic_config__: ClassVar = {
        "extra": "forbid",
        "alias_generator": lambda name: name.rstrip("_"),
    }


@dataclass(frozen=True)
class ErrorText:
    message: str
    where: str | None
    """FILE:ROW."""
    hint: str | None


@dataclass(frozen=True)
class Stopped(Result):
    """What is printed where an error in the data, the model or the run ends it before a result."""

    error: ErrorText


def adapter(script: str) -> Any:
    """pydantic's TypeAdapter of what this script prints."""
    from pydantic import TypeAdapter

    module, _, name = SCRIPT_RESULTS[script].partition(":")
    return TypeAdapter(getattr(importlib.import_module(module), name) | Stopped)


def json_schema(script: str) -> dict[str, Any]:
    """The JSON Schema of the object that this script writes to stdout."""
    from pydantic.json_schema import GenerateJsonSchema

    class Described(GenerateJsonSchema):
        def dataclass_schema(self, schema: Any) -> dict[str, Any]:
            made = super().dataclass_schema(schema)
            for one in made["properties"].values():
                one.pop("title", None)  # the name once more
            for name, text in descriptions(schema["cls"]).items():
                made["properties"][name.rstrip("_")]["description"] = text
            return made

    schema = adapter(script).json_schema(schema_generator=Described)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema, "title": f"stdout of {script}"}


def descriptions(result: type) -> dict[str, str]:
    """{field: the text below it} of a dataclass and its bases, in the order of the fields."""
    found = {}
    for base in filter(is_dataclass, result.__mro__):
        (defined,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        for one, below in pairwise(defined.body):
            if isinstance(one, ast.AnnAssign) and isinstance(below, ast.Expr):
                found[one.target.id] = " ".join(below.value.value.split())
    return {field.name: found[field.name] for field in fields(result) if field.name in found}


def finite(value: Any) -> Any:
    """A copy of `value` as JSON can carry it: dataclasses are objects, and NaN and infinity null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value):
        told = [(field, getattr(value, field.name)) for field in fields(value) if field.repr]
        return {f.name.rstrip("_"): finite(item) for f, item in told if item is not None or f.default is not None}
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if callable(getattr(value, "item", None)) and getattr(value, "ndim", 0) == 0:
        return finite(value.item())
    return value


def to_json(value: Any, **how: Any) -> str:
    """JSON text of anything, with null for what JSON cannot carry: every file and stdout is written by this."""
    return json.dumps(finite(value), ensure_ascii=False, default=str, allow_nan=False, **how)


_stdout = sys.stdout
_has_result = False


def stdout() -> TextIO:
    """What stdout was before `keep_stdout_for_results`: for what a script was asked to print."""
    return _stdout


def emit(result: Any) -> None:
    """Write the script's one JSON object to stdout."""
    if _stdout is None:
        raise RunError(
            "stdout is closed: there is nowhere to write the result", hint="redirect stdout to a file, or to /dev/null"
        )
    global _has_result
    _has_result = True
    try:
        _stdout.write(to_json(result, indent=2) + "\n")
        _stdout.flush()
    except OSError:
        discard(_stdout)
        raise


def emit_error(error: UserError) -> None:
    """Write what ended the run to stdout, where no result was written."""
    if _stdout is not None and not _has_result:
        with contextlib.suppress(OSError):
            emit(Stopped(ErrorText(error.message, error.where, error.hint)))


def discard(stream: TextIO) -> None:
    """Let what is left in a stream that cannot be written go to nowhere, or Python complains about it on leaving."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def keep_stdout_for_results() -> None:
    """Send everything that libraries, child processes and C code print to stderr; `emit` alone keeps stdout."""
    global _stdout
    if _stdout is not sys.stdout or sys.stdout is None:  # None: the caller closed it (`>&-`)
        return
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        saved = os.dup(1)
        os.dup2(2, 1)
        # A name of a file that is not UTF-8 must not end the run: its bytes are escaped, which JSON reads.
        _stdout = os.fdopen(saved, "w", encoding="utf-8", errors="backslashreplace")
