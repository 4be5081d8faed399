"""Runs the application on one address until it is told to end, and then answers what it has taken."""

import contextlib
import signal
import socket
from dataclasses import fields
from types import FrameType

import uvicorn

from ..data.records import Ranking
from ..errors import DataError, UsageError
from ..score_settings import key_in
from ..terminal import log
from .app import Service, make_app
from .settings import ServeSettings, ServingResult

STALE_SECONDS = 30
"""A connection without a whole request head, or between two requests, is closed after once to twice as long."""
TICKS = 10
"""In a second, of uvicorn."""
MAX_CONNECTIONS = 512
"""The next is answered 503."""


class Server(uvicorn.Server):
  def __init__(self, service: Service, listener: socket.socket):
    quiet = {"log_config": None, "access_log": False, "server_header": False, "proxy_headers": False, "ws": "none"}
    limits = {"limit_concurrency": MAX_CONNECTIONS, "timeout_keep_alive": 2 * STALE_SECONDS}
    limits["timeout_graceful_shutdown"] = int(service.settings.request_timeout) + 1
    super().__init__(uvicorn.Config(make_app(service), **quiet, **limits))
    self.listener, self._idle = listener, {}

  def run(self, sockets: list[socket.socket] | None = None) -> None:
    super().run(sockets or [self.listener])

  def handle_exit(self, sig: int, frame: FrameType | None) -> None:
    """Without uvicorn's raising the signal once more when it has drained."""
    self.force_exit = self.should_exit and sig == signal.SIGINT
    self.should_exit = True

  async def startup(self, sockets: list[socket.socket] | None = None) -> None:
    _reuse(self.listener, True)  # by who starts again after this one
    await super().startup(sockets)
    address, port = self.listener.getsockname()[:2]
    log(f"listening on http://{f'[{address}]' if ':' in address else address}:{port} (/docs shows the routes)")

  async def on_tick(self, counter: int) -> bool:
    if counter % (STALE_SECONDS * TICKS) == 0:
      self.close_stale()
    return await super().on_tick(counter)

  def close_stale(self) -> None:
    """uvicorn has no limit for a head that comes a byte at a time."""
    before, self._idle = self._idle, {}
    for connection in self.server_state.connections:
      cycle = connection.cycle
      if cycle is None or cycle.response_complete:
        self._idle[connection] = cycle
    for connection, cycle in self._idle.items():
      if before.get(connection, connection) is cycle:
        connection.transport.close()


def serve(settings: ServeSettings) -> ServingResult:
  server, service = made(settings)
  server.run()
  service.model.warn_of_losses()
  counts = service.counts()
  names = [field.name for field in fields(ServingResult) if field.name != "model"]
  return ServingResult(service.name, **{name: counts[name] for name in names})


def made(settings: ServeSettings) -> tuple[Server, Service]:
  """A server that is ready to run. What is wrong with key, address or model is told here."""
  key, listener = key_in(settings.key_file), _bound(settings.host, settings.port)
  service = Service(settings.load(), settings, key)
  answers = [[{"role": "assistant", "content": text}] for text in ("4.", "A fish.")]
  with contextlib.suppress(DataError):  # the first pass takes longest, and finds a model that gives NaN
    service.score([Ranking([{"role": "user", "content": "What is 2 + 2?"}], answers)])
  return Server(service, listener), service


def _bound(host: str, port: int) -> socket.socket:
  """Not listening: before the model is loaded a client is refused, and does not wait."""
  try:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    _reuse(listener, True)
    listener.bind(address)
    _reuse(listener, False)  # or another could take the address, too, while this one loads its model
  except OSError as error:
    what = f"cannot listen on {host}:{port}: {error.strerror}"
    raise UsageError(what, hint="choose another --port, or 0 for a free one") from error
  return listener


def _reuse(listener: socket.socket, may: bool) -> None:
  listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, may)
