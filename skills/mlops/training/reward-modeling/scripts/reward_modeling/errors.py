"""The errors that a user can fix, each with its exit code: flags and paths 2, data 3, a model folder 4, the run itself 5."""

import difflib
import errno
from collections.abc import Iterable


class UserError(Exception):
  """where: a file and row, or an origin. hint: the next thing to try."""

  exit_code = 1

  def __init__(self, message: str, *, where: object = None, hint: str | None = None):
    super().__init__(message)
    self.message, self.where, self.hint = message, str(where) if where else None, hint

  def render(self) -> str:
    where, hint = f"\n  --> {self.where}", f"\n\nhint: {self.hint}"
    return f"error: {self.message}{where if self.where else ''}{hint if self.hint else ''}"


class UsageError(UserError):
  exit_code = 2


class DataError(UserError):
  exit_code = 3


class ModelError(UserError):
  exit_code = 4


class RunError(UserError):
  exit_code = 5


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
  known = list(known)
  close = difflib.get_close_matches(name, known, n=1)
  return f"did you mean {close[0]}?" if close else otherwise or f"choose from {', '.join(known)}"


def is_full_disk(error: BaseException | None) -> bool:
  if error is None:
    return False
  # safetensors says it in words; torch.save says only that its zip file has not become as long as it should.
  signs = ("No space left on device", "File too large", "PytorchStreamWriter failed writing", ". unexpected pos ")
  return (
    getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    or any(sign in str(error) for sign in signs)
    or is_full_disk(error.__cause__ or error.__context__)
  )
