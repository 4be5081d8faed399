"""Functions of the user's own, named as FILE:NAME: from a local Python file, never from a hub."""

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from .errors import UsageError, did_you_mean


def load_function(spec: str) -> Callable:
  """The function NAME of FILE, which is run once however many of its functions are loaded.

  Raises UsageError where there is no such file or function, and where running the file raises.
  """
  path, _, name = spec.rpartition(":")
  file = Path(path)
  if file.suffix != ".py" or not file.is_file():
    hint = "write FILE:NAME, as in checks.py:is_right, with a Python file on this machine"
    raise UsageError(f"{spec} names no function of a file that exists", hint=hint)
  module = _module_of(file.resolve())
  function = getattr(module, name, None)
  if not callable(function):
    own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    what = f"{path} has no function {name}"
    raise UsageError(what, hint=did_you_mean(name, own, f"it has {', '.join(own) or 'none'}"))
  return function


def _module_of(file: Path) -> ModuleType:
  name = f"user_functions:{file}"
  if name in sys.modules:
    return sys.modules[name]
  if str(file.parent) not in sys.path:
    sys.path.append(str(file.parent))  # for what it imports from beside it, after everything installed
  spec = importlib.util.spec_from_file_location(name, file)
  sys.modules[name] = module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except Exception as error:
    del sys.modules[name]
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1]
    told = f"{file.name} cannot be run: {type(error).__name__}: {error}"
    raise UsageError(told, where=f"{file}:{line}") from error
  return module
