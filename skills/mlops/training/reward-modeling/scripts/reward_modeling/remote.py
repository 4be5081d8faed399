"""Rewards that servers give: requests side by side, answers in input order, and patience where a server is busy or restarts."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import chain, count, groupby

from .errors import DataError, RunError, UsageError, UserError
from .hf import Response
from .rendering import Conversation, Rendered, Renderer
from .score_settings import SERVE
from .scoring import Progress, Scores, Text, as_messages

Body = dict[str, object]
Ask = Callable[[list[str], list[list[int]], str], Body]
"""Texts, as the chat template wrote them, their token ids and the BOS token -> the body of a request."""
Unit = list[int]
"""Places of conversations that are asked for together: a text's, or those of the completions of a prompt."""
Asking = tuple[list[Unit], Callable[[list[Unit]], Body]]
"""What to ask for, and the body that asks for some of it."""
Reply = float | tuple[float | None, dict[str, object]]
"""A reward, or one with what the server says beside it: `step_rewards`, `attributes`."""
IN_A_REQUEST = 32
BUSY = frozenset((408, 425, 429, 502, 503, 504))
OTHER_FAULTS = frozenset((404, 405, 424))
"""Of a server that has no such route; TEI's failed model."""
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
  # as vLLM 0.33 has it, and the reward loop of verl since 0.8: without the BOS, which vLLM adds
  "vllm": Api(
    "/classify",
    lambda said: [one["probs"][0] for one in _in_order(said["data"])],
    lambda texts, ids, bos: {"input": ids, "use_activation": False},
    {"verl": lambda texts, ids, bos: {"input": [one.removeprefix(bos) for one in texts], "use_activation": False}},
  ),
  # its own route; /v1/classify applies a softmax
  "sglang": Api(
    "/classify",
    lambda said: [one["embedding"][0] for one in said],
    lambda texts, ids, bos: {"input_ids": ids},
    {"one that sends text": lambda texts, ids, bos: {"text": texts}},
  ),
  # it cuts unless told
  "tei": Api(
    "/predict",
    lambda said: [one[0]["score"] for one in said],
    lambda texts, ids, bos: {"inputs": [[text] for text in texts], "raw_scores": True, "truncate": False},
    by_text=True,
  ),
  # its text is two, which are stripped and joined
  "infinity": Api(
    "/rerank",
    lambda said: [one["relevance_score"] for one in _in_order(said["results"])],
    lambda texts, ids, bos: {"query": "", "documents": texts, "raw_scores": True},
    by_text=True,
  ),
  # its serve_rm
  "openrlhf": Api(
    "/get_reward",
    lambda said: said["rewards"],
    lambda texts, ids, bos: {"query": texts, "prompts": texts, "labels": [""] * len(texts)},
    by_text=True,
  ),
  "llamafactory": Api(
    "/v1/score/evaluation",
    lambda said: said["scores"],
    lambda texts, ids, bos: {"model": "model", "messages": texts},
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
    own = dict.fromkeys(f"all://{host}" for host in ("127.0.0.1", "localhost", "[::1]", "[::]", IPv4Address(0)))
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
    units, body = (self._texts if self.ask else self._rows)(conversations)
    rewards, columns = [None] * len(conversations), [{} for _ in conversations]
    pool = ThreadPoolExecutor(self.concurrency)
    try:
      for found in pool.map(lambda asked: self._answers(asked, body, conversations), _requests(units)):
        for place, one in found:
          rewards[place], columns[place] = one if isinstance(one, tuple) else (float(one), {})
        if progress:
          progress(len(found))
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

  def _texts(self, conversations: Sequence[Conversation]) -> Asking:
    rendered, bos = self.render(conversations), self.renderer.tokenizer.bos_token or ""
    # what is cut is known by its token ids alone
    sent = [i for i, one in enumerate(rendered) if one and not (one.cut and self.api.by_text)]
    texts = {i: whole_text(conversations[i], self.renderer) for i in sent}

    def body(units: list[Unit]) -> Body:
      return self.ask([texts[i] for (i,) in units], [rendered[i].ids for (i,) in units], bos)

    return [[i] for i in sent], body

  def _rows(self, conversations: Sequence[Conversation]) -> Asking:
    groups = groupby(range(len(conversations)), key=lambda i: conversations[i]._replace(completion=()))

    return [list(group) for _, group in groups], lambda units: {"rows": [_asked(conversations, one) for one in units]}

  def _answers(
    self, units: list[Unit], body: Callable[[list[Unit]], Body], conversations: Sequence[Conversation]
  ) -> list[tuple[int, Reply]]:
    """What a server refuses is asked in halves: it may be too much, or one text may be too long."""
    places = list(chain.from_iterable(units))
    try:
      response = self._taken(body(units), conversations[places[0]].origin)
    except DataError:
      middle = len(units) // 2
      if not middle or self._stopped.is_set():
        raise
      halves = (self._answers(half, body, conversations) for half in (units[:middle], units[middle:]))
      return list(chain.from_iterable(halves))
    try:
      found = self.api.read(response.json())
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
      what = f"{response.url} does not answer as --api says: {response.text[:200]}"
      raise RunError(what, hint="is it another kind of server?") from error
    if len(found) != len(places):
      raise RunError(f"the server answers {len(found)} rewards to {len(places)} completions")
    return list(zip(places, found, strict=True))

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


def _requests(units: list[Unit]) -> Iterator[list[Unit]]:
  asked: list[Unit] = []
  for unit in units:
    asked.append(unit)
    if sum(map(len, asked)) >= IN_A_REQUEST:
      yield asked
      asked = []
  if asked:
    yield asked


def _asked(conversations: Sequence[Conversation], places: Unit) -> Body:
  completions = [conversations[i].completion for i in places]
  prompt, _, tools, *_ = conversations[places[0]]
  answers = [one[0].get("steps") or list(one) for one in completions]
  return {"prompt": list(prompt), "completions": answers} | ({"tools": tools} if tools else {})


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
  if status in OTHER_FAULTS or status >= 500:
    return RunError(f"{url} failed ({said})", where=origin, hint="is it another kind of server? See --api")
  return DataError(f"{url} refuses a request ({said})", where=origin)
