"""Rewards that servers give: requests side by side, answers in input order, and patience where a server is busy or restarts."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, groupby
from typing import TYPE_CHECKING

from .errors import DataError, RunError, UsageError, UserError
from .rendering import Conversation, Rendered, Renderer
from .score_settings import SERVE
from .scoring import Progress, Scores, Text, as_messages

if TYPE_CHECKING:
  from httpx2 import Response

Body = dict[str, object]
Ask = Callable[[list[str], list[list[int]]], Body]
"""Texts, as the chat template wrote them, and their token ids -> the body of a request."""
Request = tuple[Body, list[int]]
"""Its body, and the places of what it holds."""
Reply = float | tuple[float | None, dict[str, object]]
"""A reward, or one with what the server says beside it: `step_rewards`, `attributes`."""
IN_A_REQUEST = 32
BUSY = frozenset((408, 425, 429, 502, 503, 504))
PATIENCE, LONGEST_PAUSE = 300.0, 10.0
"""Seconds that a server which has answered before may be away."""
FIRST_TRIES = 3


@dataclass(frozen=True)
class Api:
  """others: programs that ask such a server for rewards. by_text: takes no token ids."""

  route: str
  read: Callable[[dict | list], list[Reply]]
  ask: Ask | None = None
  others: dict[str, Ask] = field(default_factory=dict)
  by_text: bool = False


APIS = {
  SERVE: Api("/v1/rewards", lambda said: [one for row in said["rows"] for one in _of_row(row)]),
  # as vLLM 0.33 and the reward loop of verl have it
  "vllm": Api(
    "/classify",
    lambda said: [one["probs"][0] for one in _in_order(said["data"])],
    lambda texts, ids: {"input": ids, "use_activation": False},
    {"verl": lambda texts, ids: {"input": texts, "activation": False}},
  ),
  # its own route; /v1/classify applies a softmax
  "sglang": Api(
    "/classify",
    lambda said: [one["embedding"][0] for one in said],
    lambda texts, ids: {"input_ids": ids},
    {"one that sends text": lambda texts, ids: {"text": texts}},
  ),
  "tei": Api(
    "/predict",
    lambda said: [one[0]["score"] for one in said],
    lambda texts, ids: {"inputs": [[text] for text in texts], "raw_scores": True},
    by_text=True,
  ),
  # its text is two, which are stripped and joined
  "infinity": Api(
    "/rerank",
    lambda said: [one["relevance_score"] for one in _in_order(said["results"])],
    lambda texts, ids: {"query": "", "documents": texts, "raw_scores": True},
    by_text=True,
  ),
  # its serve_rm
  "openrlhf": Api(
    "/get_reward",
    lambda said: said["rewards"],
    lambda texts, ids: {"query": texts, "prompts": texts, "labels": [""] * len(texts)},
    by_text=True,
  ),
}


class ServerRewards:
  """A reward function as TRL's trainers call it, and a model as score.py does.

  urls: asked in turn. renderer: of the model, for all but "ours". key: a bearer token.
  """

  def __init__(
    self,
    urls: str | Sequence[str],
    *,
    api: str = SERVE,
    renderer: Renderer | None = None,
    concurrency: int = 16,
    key: str | None = None,
    ask: Ask | None = None,
  ):
    import httpx2

    self.__name__ = "server_rewards"  # by which TRL logs it
    self.urls = [urls] if isinstance(urls, str) else list(urls)
    self.api, self.renderer, self.concurrency = APIS[api], renderer, concurrency
    self.ask = ask or self.api.ask
    head = {"Authorization": f"Bearer {key}"} if key else {}
    # A proxy of the environment cannot reach this machine's own addresses.
    own = dict.fromkeys(("all://127.0.0.1", "all://localhost", "all://[::1]"))
    try:
      self._client = httpx2.Client(timeout=PATIENCE, headers=head, mounts=own)
    except (ImportError, OSError, ValueError) as error:
      hint = "see http_proxy, https_proxy, all_proxy, SSL_CERT_FILE and SSL_CERT_DIR"
      raise UsageError(f"the environment's proxy or certificates cannot be used: {error}", hint=hint) from error
    self._lost, self._turn = (httpx2.TransportError, httpx2.InvalidURL), count()
    self._has_answered, self._stopped = False, threading.Event()

  def __call__(self, prompts: Sequence[Text], completions: Sequence[Text], **columns: object) -> Scores:
    asked = zip(prompts, completions, strict=True)
    return self.score_conversations(
      [Conversation(as_messages(prompt, "user"), as_messages(one, "assistant")) for prompt, one in asked]
    )

  def score_conversations(self, conversations: Sequence[Conversation], progress: Progress = None) -> Scores:
    return self.score_in_columns(conversations, progress)[0]

  def score_in_columns(
    self, conversations: Sequence[Conversation], progress: Progress = None
  ) -> tuple[Scores, list[dict[str, object]]]:
    """Rewards, None for what was left out, and what the server says beside each."""
    requests = list((self._texts if self.ask else self._rows)(conversations))
    rewards, columns = [None] * len(conversations), [{} for _ in conversations]
    pool = ThreadPoolExecutor(self.concurrency)
    try:
      answers = pool.map(lambda asked: self._answers(asked[0], conversations[asked[1][0]].origin), requests)
      for (_, places), found in zip(requests, answers, strict=True):
        if len(found) != len(places):
          raise RunError(f"the server answers {len(found)} rewards to {len(places)} completions")
        for place, one in zip(places, found, strict=True):
          rewards[place], columns[place] = one if isinstance(one, tuple) else (float(one), {})
        if progress:
          progress(len(places))
    except BaseException:
      self._stopped.set()  # those who wait for a server
      raise
    finally:
      pool.shutdown(cancel_futures=True)
    return rewards, columns

  def render(self, conversations: Sequence[Conversation]) -> list[Rendered | None]:
    return self.renderer.render_all(conversations)

  def warn_of_losses(self) -> None:
    if self.renderer:
      self.renderer.warn_of_losses()

  def _texts(self, conversations: Sequence[Conversation]) -> Iterator[Request]:
    rendered = self.render(conversations)
    # what is cut is known by its token ids alone
    sent = [i for i, one in enumerate(rendered) if one and not (one.cut and self.api.by_text)]
    for start in range(0, len(sent), IN_A_REQUEST):
      places = sent[start : start + IN_A_REQUEST]
      texts = [whole_text(conversations[i], self.renderer) for i in places]
      yield self.ask(texts, [rendered[i].ids for i in places]), places

  def _rows(self, conversations: Sequence[Conversation]) -> Iterator[Request]:
    rows, places = [], []
    for _, group in groupby(enumerate(conversations), key=lambda one: one[1]._replace(completion=())):
      numbers, own = zip(*group, strict=True)
      answers = [one.completion[0].get("steps") or list(one.completion) for one in own]
      rows.append({"prompt": list(own[0].prompt), "completions": answers})
      rows[-1] |= {"tools": own[0].tools} if own[0].tools else {}
      places += numbers
      if len(places) >= IN_A_REQUEST:
        yield {"rows": rows}, places
        rows, places = [], []
    if rows:
      yield {"rows": rows}, places

  def _answers(self, body: Body, origin: object) -> list[Reply]:
    response = self._taken(body, origin)
    try:
      return self.api.read(response.json())
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
      what = f"{response.url} does not answer as --api says: {response.text[:200]}"
      raise RunError(what, hint="is it another kind of server?") from error

  def _taken(self, body: Body, origin: object) -> Response:
    """The answer of the first server that takes the request."""
    since, tries = time.monotonic(), 0
    while True:
      url = self.urls[next(self._turn) % len(self.urls)].rstrip("/") + self.api.route
      pause, tries = min(0.1 * 2**tries, LONGEST_PAUSE), tries + 1
      try:
        response = self._client.post(url, json=body)
        if response.status_code == 200:
          self._has_answered = True
          return response
        said = f"{response.status_code}: {response.text[:300]}"
        if response.status_code not in BUSY:
          raise _refusal(url, response.status_code, said, origin)
        after = response.headers.get("Retry-After", "")
        pause = min(float(after), LONGEST_PAUSE) if after.isdigit() else pause
      except self._lost as error:
        said = str(error) or type(error).__name__
      away = time.monotonic() - since
      if away > PATIENCE or (tries >= FIRST_TRIES * len(self.urls) and not self._has_answered):
        hint = "is it running, and is this its address?"
        raise RunError(f"{url} does not answer ({said}), tried {tries} times", hint=hint)
      if self._stopped.wait(pause * random.uniform(0.75, 1.25)):
        raise RunError("stopped, since another request failed")


def _in_order(found: list[dict]) -> list[dict]:
  return sorted(found, key=lambda one: one["index"])


def whole_text(conversation: Conversation, renderer: Renderer) -> str:
  return renderer.text([*conversation.prompt, *conversation.completion], conversation.tools)


def _of_row(row: dict[str, list]) -> list[Reply]:
  columns = {name: values for name, values in row.items() if name != "rewards"}
  return [(own, {name: values[i] for name, values in columns.items()}) for i, own in enumerate(row["rewards"])]


def _refusal(url: str, status: int, said: str, origin: object) -> UserError:
  if status in (401, 403):
    return UsageError(f"{url} refuses the key ({said})", hint="give it with --key_file FILE")
  if status == 404 or status >= 500:
    return RunError(f"{url} failed ({said})", where=origin, hint="is it another kind of server? See --api")
  return DataError(f"{url} refuses a request ({said})", where=origin)
