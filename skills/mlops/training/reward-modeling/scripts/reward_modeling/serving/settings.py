"""The flags of serve.py, and what it prints when it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..cli import flag
from ..errors import UsageError
from ..results import Result
from ..score_settings import ModelsSettings

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, kw_only=True)
class ServeSettings(ModelsSettings):
  group: ClassVar = "server"
  host: str = flag("127.0.0.1", "address to listen on; one that others reach needs --key_file", metavar="ADDRESS")
  port: int = flag(8000, "0 takes a free one, which the log names", type=int)
  root_path: str | None = flag(None, "path under which a proxy offers this server, as /rm", metavar="PATH")
  key_file: str | None = flag(
    None, "file with the key that requests must carry: `Authorization: Bearer KEY`", metavar="FILE"
  )
  batch_tokens: int = flag(16384, "about how many are scored together (4 characters each)", metavar="TOKENS")
  max_completions: int = flag(8192, "that may wait, in one request (else 413) or together (429)")
  max_body: int = flag(8_000_000, "bytes of one request", metavar="BYTES")
  request_timeout: float = flag(120.0, "seconds until a request is given up", metavar="SECONDS")

  def __post_init__(self) -> None:
    self.check_models("serve.py")
    if not 0 <= self.port < 65536:
      raise UsageError(f"--port is from 0 to 65535, not {self.port}")
    if not self.key_file and self.host not in LOOPBACK:
      what = f"--host {self.host} can be reached from other machines"
      raise UsageError(what, hint="give --key_file FILE, or leave --host out")


@dataclass(frozen=True)
class ServingResult(Result):
  model: str
  requests: int
  """Answered, whichever the status."""
  completions: int
  """Scored, those without a reward included."""
  not_scored: int
  truncated: int
  completed: int
  """Texts that lacked the end of an answer, which was written."""
