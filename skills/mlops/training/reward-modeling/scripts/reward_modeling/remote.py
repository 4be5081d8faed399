"""Rewards that servers give: requests side by side, answers in input order, and patience where a server is busy or restarts."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from . import losses
from .data.records import Message
from .errors import DataError, RunError, UsageError
from .rendering import Conversation, Renderer
from .scoring import Progress, Scores, Text, as_messages

if TYPE_CHECKING:
    from httpx2 import Response

TOGETHER = 32
"""Completions in a request."""
BUSY = frozenset((408, 425, 429, 502, 503, 504))
SECONDS = 300.0
"""Until a request is given up, and how long a server that has answered before may be away."""
FIRST_TRIES = 3
LONGEST_PAUSE = 10.0


class Asked(NamedTuple):
    """What a request holds of a conversation: ids are None where a text alone can be sent."""

    text: str
    ids: list[int]


@dataclass(frozen=True)
class Api:
    """route: with the path. ask: texts as the chat template wrote them -> body. read: the answer -> rewards in order."""

    route: str
    ask: Callable[[list[Asked]], dict[str, Any]]
    read: Callable[[Any], list[float]]
    others: dict[str, Callable[[list[Asked]], dict[str, Any]]]
    """Whose bodies differ: those of programs that ask this server for rewards."""
    by_text: bool = False


def _ids(asked: list[Asked]) -> list[list[int]]:
    return [one.ids for one in asked]


def _texts(asked: list[Asked]) -> list[str]:
    return [one.text for one in asked]


APIS = {
    # vllm/frontend/entrypoints/pooling/classify/protocol.py; verl/experimental/reward_loop asks for raw scores by `activation`.
    "vllm": Api(
        "/classify",
        lambda asked: {"input": _ids(asked), "use_activation": False},
        lambda said: [one["probs"][0] for one in sorted(said["data"], key=lambda one: one["index"])],
        {"verl": lambda asked: {"input": _texts(asked), "activation": False}},
    ),
    # sglang/srt/entrypoints/http_server.py: the raw numbers of /classify, where /v1/classify applies a softmax.
    "sglang": Api(
        "/classify",
        lambda asked: {"input_ids": _ids(asked)},
        lambda said: [one["embedding"][0] for one in said],
        {"a program that sends text": lambda asked: {"text": _texts(asked)}},
    ),
    # text-embeddings-inference, router/src/http/types.rs
    "tei": Api(
        "/predict",
        lambda asked: {"inputs": [[text] for text in _texts(asked)], "raw_scores": True, "truncate": False},
        lambda said: [one[0]["score"] for one in said],
        {},
        by_text=True,
    ),
    # openrlhf/cli/serve_rm.py and utils/remote_rm_utils.py
    "openrlhf": Api(
        "/get_reward",
        lambda asked: {"query": _texts(asked), "prompts": _texts(asked), "labels": [""] * len(asked)},
        lambda said: [one[0] if isinstance(one, list) else one for one in said["rewards"]],
        {},
        by_text=True,
    ),
}
OURS = "ours"
"""serve.py, which takes messages and renders them itself."""


class ServerRewards:
    """A reward function as TRL's GRPOTrainer and RLOOTrainer call it, and a model as score.py does.

    urls: asked in turn. api: "ours" or one of `APIS`; renderer: of the model, for those. key: sent as a bearer token.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        api: str = OURS,
        renderer: Renderer | None = None,
        concurrency: int = 16,
        key: str | None = None,
        ask: Callable[[list[Asked]], dict[str, Any]] | None = None,
    ):
        import httpx2

        self.__name__ = "server_rewards"  # by which TRL logs it
        self.urls = [urls.rstrip("/")] if isinstance(urls, str) else [url.rstrip("/") for url in urls]
        self.api, self.renderer, self.concurrency = APIS.get(api), renderer, concurrency
        if self.api and renderer is None:
            raise UsageError(
                f"the text for --api {api} is written here", hint="give the model with --model_name_or_path"
            )
        self._ask = ask or (self.api and self.api.ask)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx2.Limits(max_connections=concurrency)
        self._client = httpx2.Client(timeout=SECONDS, limits=limits, headers=headers)
        self._lost, self._turn, self._has_answered = httpx2.TransportError, itertools.count(), False
        self._stopped = threading.Event()

    def __call__(self, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> Scores:
        asked = [
            (as_messages(p, "user"), as_messages(c, "assistant")) for p, c in zip(prompts, completions, strict=True)
        ]
        return self.score_conversations([Conversation(*one) for one in asked])

    def score_conversations(self, conversations: Sequence[Conversation], progress: Progress = None) -> Scores:
        return [reward for reward, _ in self.score_in_columns(conversations, progress)]

    def score_in_columns(
        self, conversations: Sequence[Conversation], progress: Progress = None
    ) -> list[tuple[float | None, dict[str, Any]]]:
        """Of each the reward, None for what was left out, and what the server says beside it (`steps`, `attributes`)."""
        ask = self._rendered if self.api else self._rows
        parts = list(ask(conversations))
        found: list[tuple[float | None, dict[str, Any]]] = []
        pool = ThreadPoolExecutor(self.concurrency)
        try:
            for part in pool.map(lambda part: part(), parts):
                found += part
                if progress:
                    progress(len(part))
        except BaseException:
            self._stopped.set()  # whoever waits for a server
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        return found

    def render(self, conversations: Sequence[Conversation]) -> list[Any]:
        return self.renderer.render_all(conversations)

    def warn_of_losses(self) -> None:
        if self.renderer:
            losses.warn_of(self.renderer)

    def _rendered(self, conversations: Sequence[Conversation]) -> Iterator[Callable[[], list]]:
        rendered = self.renderer.render_all(conversations)
        for start in range(0, len(rendered), TOGETHER):
            own, part = conversations[start : start + TOGETHER], rendered[start : start + TOGETHER]
            kept = [one is not None and not (one.cut and self.api.by_text) for one in part]  # a cut text cannot be told
            asked = [
                Asked(self.renderer.text([*one.prompt, *one.completion], one.tools, where=one.origin), found.ids)
                for one, found, is_kept in zip(own, part, kept, strict=True)
                if is_kept
            ]

            def answered(own=own, kept=kept, asked=asked) -> list[tuple[float | None, dict]]:
                rewards = (
                    self._posted(self.api.route, self._ask(asked), own, self.api.read, len(asked)) if asked else []
                )
                left = iter(rewards)
                return [(next(left) if is_kept else None, {}) for is_kept in kept]

            yield answered

    def _rows(self, conversations: Sequence[Conversation]) -> Iterator[Callable[[], list]]:
        groups = [
            list(group) for _, group in groupby(conversations, key=lambda one: (one.prompt, one.tools, one.origin))
        ]
        for part in _together(groups):
            rows = [_row(group) for group in part]
            own = [one for group in part for one in group]
            yield lambda rows=rows, own=own: self._posted("/v1/rewards", {"rows": rows}, own, _of_rows, len(own))

    def _posted(
        self, route: str, body: dict[str, Any], own: Sequence[Conversation], read: Callable[[Any], list], n: int
    ) -> list:
        response = self._answer(route, body, own[0].origin)
        try:
            found = read(response.json())
        except (ValueError, KeyError, TypeError, IndexError) as error:
            what = f"{response.url} answered what --api does not expect: {response.text[:200]}"
            raise RunError(what, hint="is it another kind of server? See --api") from error
        if len(found) != n:
            raise RunError(f"{response.url} answered {len(found)} rewards to {n} texts")
        return found

    def _answer(self, route: str, body: dict[str, Any], origin: object) -> Response:
        """Of the first server that takes the request; RunError where none does for long."""
        since, tries = time.monotonic(), 0
        while True:
            url, pause = self.urls[next(self._turn) % len(self.urls)] + route, min(0.1 * 2**tries, LONGEST_PAUSE)
            tries += 1
            try:
                response = self._client.post(url, json=body)
                if response.status_code == 200:
                    self._has_answered = True
                    return response
                said = f"{response.status_code}: {_message(response)}"
                if response.status_code not in BUSY:
                    _refuse(url, response.status_code, said, origin)
                after = response.headers.get("Retry-After", "")
                pause = min(float(after), LONGEST_PAUSE) if after.isdigit() else pause
            except self._lost as error:
                said = str(error) or type(error).__name__
            gone = time.monotonic() - since
            if gone > SECONDS or (tries >= FIRST_TRIES * len(self.urls) and not self._has_answered):
                hint = "is it running, and is this its address?"
                raise RunError(f"{url} does not answer ({said}), tried {tries} times", hint=hint)
            if self._stopped.wait(pause * random.uniform(0.75, 1.25)):
                raise RunError("stopped, since another request failed")


def _together(groups: Iterable[list[Conversation]]) -> Iterator[list[list[Conversation]]]:
    part: list[list[Conversation]] = []
    for group in groups:
        if part and sum(map(len, part)) + len(group) > TOGETHER:
            yield part
            part = []
        part.append(group)
    if part:
        yield part


def _row(group: Sequence[Conversation]) -> dict[str, Any]:
    """Steps are sent as a list of texts."""
    row = {"prompt": list(group[0].prompt), "completions": [_steps(one.completion) for one in group]}
    return row | ({"tools": group[0].tools} if group[0].tools else {})


def _steps(completion: Sequence[Message]) -> list[Any]:
    return completion[0].get("steps") or list(completion) if completion else []


def _of_rows(said: Any) -> list[tuple[float | None, dict[str, Any]]]:
    found = []
    for row in said["rows"]:
        columns = {name: values for name, values in row.items() if name != "rewards"}
        found += [(own, {name: v[i] for name, v in columns.items()}) for i, own in enumerate(row["rewards"])]
    return found


def _message(response: Response) -> str:
    try:
        error = response.json()
        error = error.get("error") or error.get("detail") or error.get("message")
        return str(error.get("message") if isinstance(error, dict) else error)[:300]
    except (ValueError, AttributeError):
        return response.text[:300]


def _refuse(url: str, status: int, said: str, origin: object) -> None:
    if status in (401, 403):
        raise UsageError(f"{url} refuses the key ({said})", hint="give it with --key_file FILE")
    if status == 404:
        raise RunError(f"{url} is not there ({said})", hint="is it another kind of server? See --api")
    if status < 500:
        raise DataError(f"{url} refuses a request ({said})", where=origin)
    raise RunError(f"{url} failed ({said})", where=origin)
