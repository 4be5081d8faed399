"""What is sent to each route, as rows to score, and how it is answered: ours, OpenRLHF's, vLLM's, Cohere's and Jina's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from ..data.audit.checks import is_templated
from ..data.cells import clean
from ..data.conversations import answer_of, messages_of, prompt_of
from ..data.records import Message, Ranking, in_steps
from ..rendering import Written
from .batching import Scored

Messages = list[Message]
Completions = list[str | list[str] | Messages]
Answer = dict[str, object]


class Reads(NamedTuple):
  """How the model takes a row: of_steps, with completions in steps; rendered, without its chat template."""

  of_steps: bool
  rendered: bool


class AskedRow(BaseModel):
  """completions: texts, lists of messages, or of a process reward model lists of steps."""

  model_config = ConfigDict(extra="forbid")
  prompt: str | Messages
  completions: Completions = Field(min_length=1)
  tools: Messages | None = None

  def ranking(self, reads: Reads) -> Ranking:
    if isinstance(self.prompt, str) and not reads.rendered and is_templated([self.prompt]):
      raise ValueError("a prompt is templated already: send its messages, or the whole text to /classify")
    row = clean({"prompt": self.prompt, "completions": self.completions, "tools": self.tools})
    answers = [_answer(one, reads.of_steps) for one in row["completions"]]
    return Ranking(prompt_of(row) if self.prompt else [], answers, tools=row["tools"] or None)


def _answer(value: str | list[str] | Messages, of_steps: bool) -> list[Message]:
  if of_steps and isinstance(value, list) and value and isinstance(value[0], str):
    return in_steps(value)
  return answer_of(value, "completions")


class AskedRows(AskedRow):
  """`rows`, or one row as it is."""

  rows: list[AskedRow] | None = Field(None, min_length=1)
  prompt: str | Messages | None = None
  completions: Completions | None = Field(None, min_length=1)

  def rankings(self, reads: Reads) -> list[Ranking]:
    alone = self.prompt is not None and self.completions is not None
    if (self.rows is None) != alone:
      raise ValueError("give either `prompt` and `completions`, or `rows`")
    return [row.ranking(reads) for row in self.rows or [self]]


class Queries(BaseModel):
  query: list[str] = Field(min_length=1, description="whole conversations, as the chat template wrote them")

  def rankings(self, reads: Reads) -> list[Ranking]:
    return [Ranking([], [Written(text)]) for text in self.query]


class Inputs(BaseModel):
  """`input`: text that the chat template of this model wrote, or its token ids; or `messages`."""

  input: str | list[int] | list[str] | list[list[int]] | None = Field(None, min_length=1)
  messages: Messages | None = None
  use_activation: bool | None = None
  activation: bool | None = None
  softmax: bool | None = None
  truncate_prompt_tokens: int | None = None
  encoding_format: str = "float"

  def rankings(self, reads: Reads) -> list[Ranking]:
    if self.use_activation or self.activation or self.softmax:
      raise ValueError("rewards are raw here: say use_activation false")
    if self.truncate_prompt_tokens not in (None, -1) or self.encoding_format != "float":
      raise ValueError("truncate_prompt_tokens and encoding_format cannot be chosen here")
    if (self.input is None) == (self.messages is None):
      raise ValueError("give either `input` or `messages`")
    if self.messages is not None:
      *prompt, last = messages_of(clean(self.messages), "messages") or [{}]
      if last.get("role") != "assistant":
        raise ValueError("the last of `messages` is the answer, of role assistant")
      return [Ranking(prompt, [[last]])]
    one = isinstance(self.input, str) or isinstance(self.input[0], int)
    inputs = clean([self.input] if one else self.input)
    return [Ranking([], [Written(text) if isinstance(text, str) else Written(ids=text)]) for text in inputs]


class Document(BaseModel):
  text: str


class Documents(BaseModel):
  """The query is the prompt, the documents are its completions."""

  query: str
  documents: list[str | Document] = Field(min_length=1)
  top_n: int | None = Field(None, ge=1)

  @property
  def texts(self) -> list[str]:
    return [one if isinstance(one, str) else one.text for one in self.documents]

  def rankings(self, reads: Reads) -> list[Ranking]:
    return [AskedRow(prompt=self.query, completions=self.texts).ranking(reads)]


Asked = AskedRows | Queries | Inputs | Documents
"""Their `rankings` raise ValueError and RowError."""


def _rows(model: str, asked: AskedRows, scored: Sequence[Scored]) -> Answer:
  missing = sum(one["rewards"].count(None) for one in scored)
  return {"model": model, "rows": scored, "not_scored": missing}


def _openrlhf(model: str, asked: Queries, scored: Sequence[Scored]) -> Answer:
  rewards = [one["rewards"][0] for one in scored]
  return {"rewards": rewards, "scores": rewards, "extra_logs": {}}


def _listed(model: str, data: list[Answer]) -> Answer:
  data = [{"index": i, **one} for i, one in enumerate(data)]
  return {"id": "rewards", "object": "list", "created": int(time.time()), "model": model, "data": data}


def _classified(model: str, asked: Inputs, scored: Sequence[Scored]) -> Answer:
  return _listed(model, [{"label": "REWARD", "probs": one["rewards"], "num_classes": 1} for one in scored])


def _pooled(model: str, asked: Inputs, scored: Sequence[Scored]) -> Answer:
  data = [(one.get("step_rewards") or [one["rewards"]])[0] for one in scored]
  return _listed(model, [{"object": "pooling", "data": one} for one in data])


def _reranked(model: str, asked: Documents, scored: Sequence[Scored]) -> Answer:
  rewards, texts = scored[0]["rewards"], asked.texts
  order = sorted(range(len(texts)), key=lambda i: -rewards[i])[: asked.top_n]
  results = [{"index": i, "document": {"text": texts[i]}, "relevance_score": rewards[i]} for i in order]
  return {"id": "rewards", "model": model, "results": results}


@dataclass(frozen=True)
class Route:
  """nullable: a reward may be null."""

  asks: type[Asked]
  answer: Callable[[str, Asked, Sequence[Scored]], Answer]
  summary: str
  nullable: bool = False


ROUTES = {
  "/v1/rewards": Route(AskedRows, _rows, "The rewards of score.py: one row or many, null where there is none", True),
  "/get_reward": Route(Queries, _openrlhf, "OpenRLHF's remote reward model"),
  "/classify": Route(Inputs, _classified, "vLLM's, with the raw reward in `probs`"),
  "/pooling": Route(Inputs, _pooled, "vLLM's, with the raw reward, or those of steps, in `data`"),
  **dict.fromkeys(
    ("/rerank", "/v1/rerank", "/v2/rerank"),
    Route(Documents, _reranked, "Documents as answers to a query, best first, as Cohere, Jina and vLLM"),
  ),
}
