"""The errors that a user can fix, each with its exit code; `program.main_guard` tells them without a traceback.

UserError                 the base
|-- UsageError    exit 2  flags, configuration, paths the user named
|-- DataError     exit 3  a file, a row, a column
|-- ModelError    exit 4  a model or tokenizer folder
`-- RunError      exit 5  the run itself: disk, memory, a NaN or infinite loss
"""

from __future__ import annotations

import errno


class UserError(Exception):
    """A mistake the user can fix. `where` is a file and row, or an origin that reads so, `hint` the next thing to try."""

    exit_code = 1

    def __init__(self, message: str, *, where: object = None, hint: str | None = None):
        super().__init__(message)
        self.message, self.where, self.hint = message, str(where) if where else None, hint

    def render(self) -> str:
        lines = [f"error: {self.message}"]
        if self.where:
            lines.append(f"  --> {self.where}")
        if self.hint:
            lines += ["", f"hint: {self.hint}"]
        return "\n".join(lines)


class UsageError(UserError):
    exit_code = 2


class DataError(UserError):
    exit_code = 3


class ModelError(UserError):
    exit_code = 4


class RunError(UserError):
    exit_code = 5


def is_full_disk(error: BaseException) -> bool:
    """Whether this error, or one that it was raised from, is a write that found no space."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # safetensors says it in words; torch.save says only that its zip file has not become as long as it should.
    signs = ("No space left on device", "PytorchStreamWriter failed writing", ". unexpected pos ")
    if any(sign in str(error) for sign in signs):
        return True
    before = error.__cause__ or error.__context__
    return before is not None and is_full_disk(before)
