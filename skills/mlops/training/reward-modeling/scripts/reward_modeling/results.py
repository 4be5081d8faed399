"""What a script prints: one frozen dataclass, as one JSON object on stdout, whose JSON Schema comes from its types.

A field whose default is None is left out while it is None, one with repr=False always, and so is a `_` that ends a name.
"""

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
from .hf import TypeAdapter

Number = float | None
"""A number; null in JSON where it is NaN or infinite."""
Row = dict[str, object]
"""A JSON object, whose values are of any type until they are looked at."""

SCRIPT_RESULTS = {
  "check_data.py": "data_check:CheckOutput",
  "train.py": "training.results:ModelOutput",
  "train_process.py": "training.results:ModelOutput",
  "label_steps.py": "rollouts:RolloutLabels",
  "score.py": "score_settings:Output",
  "serve.py": "serving.settings:ServingResult",
  "evaluate.py": "evaluation.results:EvaluationOutput",
  "ppo.py": "training.results:PPOOutput",
  "grpo.py": "training.results:GRPOOutput",
  "quickstart.py": "training.results:Quickstart",
}
"""Script -> module:type of what it prints."""


class Result:
  """Its configuration is that of the JSON Schema, for pydantic."""

  __pydantic_config__: ClassVar = {"extra": "forbid", "alias_generator": lambda name: name.rstrip("_")}


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


def adapter(script: str) -> TypeAdapter:
  import pydantic

  module, _, name = SCRIPT_RESULTS[script].partition(":")
  return pydantic.TypeAdapter(getattr(importlib.import_module(f".{module}", __package__), name) | Stopped)


def json_schema(script: str) -> Row:
  """The text below a field is its description."""
  from pydantic.json_schema import GenerateJsonSchema

  class Described(GenerateJsonSchema):
    def dataclass_schema(self, schema: Row) -> Row:
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


def finite(value: object) -> Any:
  """A copy as JSON can carry it: dataclasses are objects, and NaN and infinity null."""
  if value is None or isinstance(value, (str, int)):
    return value
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


def to_json(value: object, **how: object) -> str:
  return json.dumps(finite(value), ensure_ascii=False, default=str, allow_nan=False, **how)


def sorted_json(value: object) -> str:
  """Equal for equal values, for hashes and keys."""
  return json.dumps(value, sort_keys=True, default=str)


_stdout = sys.stdout
_has_result = False


def stdout() -> TextIO:
  """What it was before `keep_stdout_for_results`."""
  return _stdout


def emit(result: object) -> None:
  global _has_result
  if _stdout is None:
    raise RunError("stdout is closed: there is nowhere to write the result", hint="redirect it to a file")
  _has_result = True
  try:
    _stdout.write(to_json(result, indent=2) + "\n")
    _stdout.flush()
  except OSError:
    discard(_stdout)
    raise


def emit_error(error: UserError) -> None:
  """Unless a result was written."""
  if _stdout is not None and not _has_result:
    with contextlib.suppress(OSError):
      emit(Stopped(ErrorText(error.message, error.where, error.hint)))


def discard(stream: TextIO) -> None:
  """Let what is left in a broken stream go nowhere, or Python complains on leaving."""
  os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def keep_stdout_for_results() -> None:
  """Send what libraries, child processes and C code print to stderr; `emit` alone keeps stdout."""
  global _stdout
  if _stdout is not sys.stdout or sys.stdout is None:  # None: the caller closed it (`>&-`)
    return
  with contextlib.suppress(OSError):
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    # A name of a file that is not UTF-8 must not end the run: its bytes are escaped, which JSON reads.
    _stdout = os.fdopen(saved, "w", encoding="utf-8", errors="backslashreplace")
