"""The HTTP application of serve.py: one model and its queue, asked by the routes of `shapes`."""

import asyncio
import hmac
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import count

import prometheus_client as prometheus
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..base_rendering import COUNTED
from ..data.cells import RowError
from ..data.records import Origin, Ranking
from ..errors import RunError, UserError, did_you_mean
from ..process import ProcessRewardModel
from ..rendering import Written, conversations_of
from ..row_scoring import by_name, parts_of, score_together
from ..score_settings import Model
from ..terminal import log
from .batching import Batcher, FullError, Scored
from .settings import ServeSettings
from .shapes import ROUTES, Asked, AskedRows, Reads, Route

WITHOUT_KEY = ("/health", "/ready")
NO_KEY, TOO_LARGE, ENCODED, UNREAD, FULL, LEFT, FAILED, UNAVAILABLE = 401, 413, 415, 422, 429, 499, 500, 503
COUNTS = ("completions", "not_scored", "completed", *COUNTED)


def refused(
  status: int, message: str, hint: str | None = None, where: str | None = None, **headers: str
) -> HTTPException:
  return HTTPException(status, {"message": message, "where": where, "hint": hint}, headers)


def told(error: Exception, where: str | None = None) -> HTTPException:
  """What a client gets to know: messages of the package, and of other errors nothing but that there was one."""
  if isinstance(error, HTTPException):
    return error
  if isinstance(error, FullError):
    return refused(FULL, "too many completions are waiting", **{"Retry-After": str(error.args[0])})
  if isinstance(error, TimeoutError):
    return refused(UNAVAILABLE, "no answer in time", **{"Retry-After": "1", "Connection": "close"})
  if isinstance(error, UserError) and not isinstance(error, RunError):
    return refused(UNREAD, error.message, error.hint, where)
  known = isinstance(error, RunError)
  log(f"error: {error.message if known else type(error).__name__}")
  return refused(FAILED, error.message if known else "the model failed", where=where)


class Service:
  def __init__(self, model: Model, settings: ServeSettings, key: str | None):
    self.model, self.settings, self.key = model, settings, key and key.encode()
    self.name = " + ".join(getattr(model, "names", [])) or settings.model_name_or_path.rstrip("/").split("/")[-1]
    self.renderers = [one.renderer for one in parts_of(model)]
    self.reads = Reads(isinstance(model, ProcessRewardModel), settings.rendered)
    self.numbers, self.own = count(1), Counter()
    self.batcher = Batcher(self.score, settings.batch_tokens, settings.max_completions)

  def score(self, rows: Sequence[Ranking]) -> list[Scored]:
    """By the thread of the queue, as score.py does. Rows that it fails on are not counted: they come again, one by one."""
    kept = [renderer.counts.copy() for renderer in self.renderers]
    for renderer in self.renderers:
      renderer.refused = [] if self.settings.refused == "unscored" else None
    try:
      scored = list(score_together(self.model, rows, conversations_of(rows), self.settings.normalize, None))
    except Exception:
      for renderer, counts in zip(self.renderers, kept, strict=True):
        renderer.counts = counts
      raise
    found = []
    for _, rewards, columns in scored:
      found.append({"rewards": rewards, **by_name(columns)})
      self.own.update(completions=len(rewards), not_scored=rewards.count(None))
    return found

  def counts(self) -> Counter[str]:
    return sum((renderer.counts.copy() for renderer in self.renderers), self.own)

  async def answers(self, rows: Sequence[Ranking]) -> list[Scored]:
    """In their order. When it is cancelled, what the queue still holds of them is left out."""
    completions = sum(len(row.completions) for row in rows)
    if completions > self.settings.max_completions:
      what = f"{completions} completions in one request, more than {self.settings.max_completions}"
      raise refused(TOO_LARGE, what, "send several requests")
    written = any(isinstance(row.completions[0], Written) for row in rows)
    if written and not all(renderer.reads_written for renderer in self.renderers):
      what = "this model takes no text that a template has written"
      raise refused(UNREAD, what, "send prompts and completions to /v1/rewards")
    request = f"request {next(self.numbers)}"
    placed = [replace(row, origin=Origin(request, i)) for i, row in enumerate(rows)]
    found = await asyncio.gather(*map(asyncio.wrap_future, self.batcher.submit(placed)), return_exceptions=True)
    for i, one in enumerate(found):
      if isinstance(one, Exception):
        raise told(one, f"row {i}")
    return found


class Gate:
  """Each request passes its key, its limits of size and time, and is counted; no error leaves it but as JSON."""

  def __init__(self, app: ASGIApp, service: Service, registry: prometheus.CollectorRegistry):
    self.app, self.service, self.settings = app, service, service.settings
    labels = ["route", "status"]
    self._seconds = prometheus.Histogram("reward_request_seconds", "To the answer", labels, registry=registry)

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
      return await self.app(scope, receive, send)
    started, status, size = time.perf_counter(), 0, 0
    root = (self.settings.root_path or "").strip("/")
    scope["root_path"] = root = root and f"/{root}"
    scope["path"] = root + scope["path"].rstrip("/").removeprefix(root)

    async def limited() -> Message:
      nonlocal size
      event = await receive()
      size += len(event.get("body", b""))
      if size > self.settings.max_body:
        raise refused(TOO_LARGE, f"the request is larger than {self.settings.max_body} bytes")
      return event

    async def counted(event: Message) -> None:
      nonlocal status
      status = event.get("status", status)
      await send(event)

    try:
      self._check_head(scope)
      async with asyncio.timeout(self.settings.request_timeout):
        await self.app(scope, limited, counted)
    except Exception as error:
      if not status:
        await (await _as_json(None, told(error)))(scope, receive, counted)
    route = getattr(scope.get("route"), "path", "other")
    self._seconds.labels(route, str(status)).observe(time.perf_counter() - started)
    self.service.own["requests"] += 1

  def _check_head(self, scope: Scope) -> None:
    headers = dict(scope["headers"])
    if headers.get(b"content-encoding", b"identity") != b"identity":
      raise refused(ENCODED, "a compressed body is not read", "send it without Content-Encoding")
    given = headers.get(b"authorization", b"").removeprefix(b"Bearer ")
    key = self.service.key
    if (
      key and scope["path"].removeprefix(scope["root_path"]) not in WITHOUT_KEY and not hmac.compare_digest(given, key)
    ):
      raise refused(NO_KEY, "the key is missing or wrong", **{"WWW-Authenticate": "Bearer"})


def make_app(service: Service) -> FastAPI:
  @asynccontextmanager
  async def life(app: FastAPI) -> AsyncIterator[None]:
    yield
    await asyncio.to_thread(service.batcher.close)

  registry = prometheus.CollectorRegistry()
  gauge = partial(prometheus.Gauge, registry=registry)
  gauge("reward_waiting_completions", "In the queue").set_function(lambda: service.batcher.waiting)
  completions = gauge("reward_completions", "By what became of them", labelnames=["what"])
  for name in COUNTS:
    completions.labels(name).set_function(lambda name=name: service.counts()[name])
  app = FastAPI(title="Reward model", lifespan=life)
  app.add_middleware(Gate, service=service, registry=registry)
  for kind in (RequestValidationError, HTTPException):
    app.add_exception_handler(kind, _as_json)
  for path, route in ROUTES.items():
    app.add_api_route(path, _handler(route, service), methods=["POST"], summary=route.summary, name=path)

  @app.head("/health", include_in_schema=False)
  @app.head("/ready", include_in_schema=False)
  @app.get("/health")
  @app.get("/ready")
  async def ready() -> dict[str, str]:
    if not service.batcher.is_alive:
      raise refused(UNAVAILABLE, "the server is ending")
    return {"status": "ready", "model": service.name}

  @app.get("/v1/models")
  async def models() -> dict[str, object]:
    return {"object": "list", "data": [{"id": service.name, "object": "model", "created": 0, "owned_by": "user"}]}

  @app.get("/metrics")
  async def metrics() -> Response:
    return Response(prometheus.generate_latest(registry), media_type="text/plain; version=0.0.4")

  return app


def _handler(route: Route, service: Service) -> Callable[..., Awaitable[Response]]:
  async def handle(asked: Asked, request: Request) -> Response:
    try:
      rows = asked.rankings(service.reads)
    except (RowError, ValueError) as error:
      raise refused(UNREAD, str(error)) from error
    answers, left = asyncio.ensure_future(service.answers(rows)), asyncio.ensure_future(request.receive())
    try:
      await asyncio.wait({answers, left}, return_when=asyncio.FIRST_COMPLETED)
      if not answers.done():
        return Response(status_code=LEFT)
      scored = answers.result()
    finally:
      answers.cancel()
      left.cancel()
    if not route.nullable and any(None in one["rewards"] for one in scored):
      hint = "see --max_length and --overlong of serve.py, or ask /v1/rewards, which answers null"
      raise refused(UNREAD, "a text has no reward: it is too long, or cannot be rendered", hint)
    return JSONResponse(route.answer(service.name, asked, scored))

  handle.__annotations__["asked"] = route.asks
  return handle


async def _as_json(request: Request | None, error: Exception) -> JSONResponse:
  """Without the value that was sent."""
  if isinstance(error, RequestValidationError):
    first, where = error.errors()[0], ".".join(map(str, error.errors()[0]["loc"][1:]))
    is_json = "json" in request.headers.get("content-type", "")
    hint = None if is_json else "say Content-Type: application/json"
    if first["type"] == "extra_forbidden":
      hint = did_you_mean(str(first["loc"][-1]), AskedRows.model_fields)
    error = refused(UNREAD, first["msg"], hint, where)
  if isinstance(error.detail, str):
    error = refused(error.status_code, error.detail, **(error.headers or {}))
  return JSONResponse({"error": error.detail}, error.status_code, error.headers)
