"""Runs the application on one address until it is told to end, and then answers what it has taken."""

from __future__ import annotations

import signal
import socket
from dataclasses import fields
from types import FrameType
from typing import Any

import uvicorn

from ..data.records import Ranking
from ..errors import DataError, UsageError
from ..terminal import log
from .app import Service, make_app
from .settings import ServeSettings, ServingResult

STALE_SECONDS = 30
"""A connection without a whole request head, or between two requests, is closed after once to twice as long."""
TICKS = 10
"""In a second, of uvicorn."""
MAX_CONNECTIONS = 512
"""Open at a time; the next is answered 503."""


class Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, listener: socket.socket):
        super().__init__(config)
        self.listener = listener
        self._idle: dict[Any, Any] = {}

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        super().run(sockets or [self.listener])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains; a second SIGINT ends at once. uvicorn's own would raise the signal again when it is done."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        address, port = self.listener.getsockname()[:2]
        log(f"listening on http://{f'[{address}]' if ':' in address else address}:{port} (/docs shows the routes)")

    async def on_tick(self, counter: int) -> bool:
        if counter % (STALE_SECONDS * TICKS) == 0:
            self._close_stale()
        return await super().on_tick(counter)

    def _close_stale(self) -> None:
        """uvicorn has no limit for a head that comes a byte at a time."""
        waiting = {
            connection: connection.cycle
            for connection in self.server_state.connections
            if connection.cycle is None or connection.cycle.response_complete
        }
        for connection, cycle in waiting.items():
            if self._idle.get(connection, connection) is cycle:
                connection.transport.close()
        self._idle = waiting


def serve(settings: ServeSettings) -> ServingResult:
    server, service = made(settings)
    server.run()
    service.model.warn_of_losses()
    counts = service.counts()
    names = [field.name for field in fields(ServingResult) if field.name != "model"]
    return ServingResult(service.name, **{name: counts[name] for name in names})


def made(settings: ServeSettings) -> tuple[Server, Service]:
    """A server that is ready to run. What is wrong with key, address or model is told here."""
    settings.key()
    listener = _bound(settings.host, settings.port)
    service = Service(settings.load(), settings)
    _warm_up(service)
    config = uvicorn.Config(
        make_app(service),
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=2 * STALE_SECONDS,
        timeout_graceful_shutdown=int(settings.request_timeout) + 1,
    )
    return Server(config, listener), service


def _bound(host: str, port: int) -> socket.socket:
    """Not listening: before the model is loaded a client is refused, and does not wait."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except (OSError, OverflowError) as error:
        what = f"cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}"
        raise UsageError(what, hint="choose another --port, or 0 for a free one") from error
    return made


def _warm_up(service: Service) -> None:
    """The first forward pass, which chooses the layout of batches, and finds a model that gives NaN."""
    answers = [[{"role": "assistant", "content": text}] for text in ("4.", "A fish.")]
    try:
        service.score([Ranking([{"role": "user", "content": "What is 2 + 2?"}], answers)])
    except DataError as error:
        log(f"not tried before the first request: {error.message}")
