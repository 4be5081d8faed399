"""What is sent to each route, as rows to score, and how it is answered: ours, and as engines and services that rerank have it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

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
    if self.prompt == "" and all(isinstance(one, str) and is_templated([one]) for one in self.completions):
      return Ranking([], [*map(Written, row["completions"])])  # as clients of infinity send
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
  """Whole conversations, as the chat template wrote them. LLaMA-Factory calls them messages."""

  query: list[str] = Field(min_length=1, validation_alias=AliasChoices("query", "messages"))

  def rankings(self, reads: Reads) -> list[Ranking]:
    return [Ranking([], [Written(text)]) for text in self.query]


ACTIVATIONS = ("use_activation", "activation", "softmax")
OTHER_TEXTS = (
  *("add_generation_prompt", "chat_template", "chat_template_kwargs", "continue_final_message", "encoding_format"),
  *("instruct", "instruction", "tools", "truncate_prompt_tokens"),
)
"""By which other servers are told to read or to answer otherwise."""


class Raw(BaseModel):
  """raw_scores: TEI's and infinity's, where they squash unless told."""

  model_config = ConfigDict(extra="allow")
  raw_scores: bool | None = None

  def check(self, *, squashes: bool = False) -> None:
    if any(map(self.model_extra.get, ACTIVATIONS)):
      raise ValueError("rewards are raw here: say use_activation false")
    if self.raw_scores is False or (squashes and not self.raw_scores):
      raise ValueError("rewards are raw here: say raw_scores true")
    for name in OTHER_TEXTS:
      if self.model_extra.get(name) not in (None, False, -1, "", "float", {}, []):
        raise ValueError(f"{name} cannot be chosen here (/v1/rewards takes tools)")


WrittenTexts = str | list[int] | list[str] | list[list[int]]


class Inputs(Raw):
  """`input` (vLLM; SGLang: `text`, `input_ids`): text that the chat template of this model wrote, or its token ids; or `messages`."""

  input: WrittenTexts | None = Field(None, min_length=1)
  text: str | list[str] | None = Field(None, min_length=1)
  input_ids: list[int] | list[list[int]] | None = Field(None, min_length=1)
  messages: Messages | None = None

  @property
  def of_sglang(self) -> WrittenTexts | None:
    return self.text if self.input_ids is None else self.input_ids

  def rankings(self, reads: Reads) -> list[Ranking]:
    self.check()
    given = [one for one in (self.input, self.text, self.input_ids, self.messages) if one is not None]
    if len(given) != 1:
      raise ValueError("give either `input` or `messages`")
    if self.messages is not None:
      *prompt, last = messages_of(clean(self.messages), "messages") or [{}]
      if last.get("role") != "assistant":
        raise ValueError("the last of `messages` is the answer, of role assistant")
      return [Ranking(prompt, [[last]])]
    inputs = clean([given[0]] if is_one(given[0]) else given[0])
    return [Ranking([], [Written(text) if isinstance(text, str) else Written(ids=text)]) for text in inputs]


def is_one(given: WrittenTexts) -> bool:
  return isinstance(given, str) or isinstance(given[0], int)


class Predicted(Raw):
  """`inputs`: a text that the chat template of this model wrote, or lists of one each."""

  inputs: str | list[str] | list[list[str]] = Field(min_length=1)

  def rankings(self, reads: Reads) -> list[Ranking]:
    self.check(squashes=True)
    texts = [[self.inputs]] if isinstance(self.inputs, str) else self.inputs
    texts = [texts] if isinstance(texts[0], str) else texts
    if any(len(one) != 1 for one in texts):
      raise ValueError("two texts are a pair there, which is not read here: send [[text], [text]]")
    return [Ranking([], [Written(text)]) for (text,) in clean(texts)]


class TextPairs(Raw):
  """Prompts and answers, one of each, or one prompt to all."""

  text_1: str | list[str] = Field(min_length=1, validation_alias=AliasChoices("text_1", "queries", "data_1"))
  text_2: str | list[str] = Field(min_length=1, validation_alias=AliasChoices("text_2", "documents", "items", "data_2"))

  def rankings(self, reads: Reads) -> list[Ranking]:
    self.check()
    prompts, answers = ([one] if isinstance(one, str) else one for one in (self.text_1, self.text_2))
    prompts = prompts * len(answers) if len(prompts) == 1 else prompts
    if len(prompts) != len(answers):
      raise ValueError(f"{len(prompts)} texts and {len(answers)} make no pairs")
    pairs = zip(prompts, answers, strict=True)
    return [AskedRow(prompt=prompt, completions=[answer]).ranking(reads) for prompt, answer in pairs]


class Document(BaseModel):
  text: str


class Documents(Raw):
  """The query is the prompt, the documents (TEI: `texts`) are its completions."""

  query: str
  documents: list[str | Document] | None = Field(None, min_length=1)
  texts: list[str] | None = Field(None, min_length=1)
  return_text: bool = False
  top_n: int | None = Field(None, ge=0)

  def rankings(self, reads: Reads) -> list[Ranking]:
    self.check(squashes=self.texts is not None)
    if (self.documents is None) == (self.texts is None):
      raise ValueError("give `documents`")
    return [AskedRow(prompt=self.query, completions=self.answers).ranking(reads)]

  @property
  def answers(self) -> list[str]:
    return self.texts or [one if isinstance(one, str) else one.text for one in self.documents]


Asked = AskedRows | Queries | Inputs | Predicted | TextPairs | Documents
"""Their `rankings` raise ValueError and RowError."""


def _rows(model: str, asked: AskedRows, scored: Sequence[Scored]) -> Answer:
  missing = sum(one["rewards"].count(None) for one in scored)
  return {"model": model, "rows": scored, "not_scored": missing}


def _answered(model: str, asked: Queries, scored: Sequence[Scored]) -> Answer:
  rewards = [one["rewards"][0] for one in scored]
  return {"rewards": rewards, "scores": rewards, "extra_logs": {}}


def _listed(item: Callable[[Scored], Answer]) -> Callable[[str, Asked, Sequence[Scored]], Answer]:
  """As OpenAI has it: what item makes of each."""

  def answer(model: str, asked: Asked, scored: Sequence[Scored]) -> Answer:
    data = [{"index": i, **item(one)} for i, one in enumerate(scored)]
    return {"id": "rewards", "object": "list", "created": int(time.time()), "model": model, "data": data}

  return answer


_classes = _listed(lambda one: {"label": "REWARD", "probs": one["rewards"], "num_classes": 1})


def _classified(model: str, asked: Inputs, scored: Sequence[Scored]) -> Answer | list[Answer]:
  if asked.of_sglang is None:
    return _classes(model, asked, scored)
  found = [{"embedding": one["rewards"], "meta_info": {}} for one in scored]
  return found[0] if is_one(asked.of_sglang) else found


def _predicted(model: str, asked: Predicted, scored: Sequence[Scored]) -> list[Answer] | list[list[Answer]]:
  found = [[{"label": "REWARD", "score": one["rewards"][0]}] for one in scored]
  return found if isinstance(asked.inputs[0], list) else found[0]


def _reranked(model: str, asked: Documents, scored: Sequence[Scored]) -> Answer | list[Answer]:
  rewards, texts = scored[0]["rewards"], asked.answers
  order = sorted(range(len(texts)), key=lambda i: -rewards[i])[: asked.top_n or None]
  if asked.texts:
    return [{"index": i, "score": rewards[i]} | ({"text": texts[i]} if asked.return_text else {}) for i in order]
  results = [{"index": i, "document": {"text": texts[i]}, "relevance_score": rewards[i]} for i in order]
  return {"id": "rewards", "model": model, "results": results}


@dataclass(frozen=True)
class Route:
  """nullable: a reward may be null."""

  asks: type[Asked]
  answer: Callable[[str, Asked, Sequence[Scored]], Answer | list]
  summary: str
  nullable: bool = False


ROUTES = {
  "/v1/rewards": Route(AskedRows, _rows, "The rewards of score.py: one row or many, null where there is none", True),
  **dict.fromkeys(
    ("/get_reward", "/v1/score/evaluation"), Route(Queries, _answered, "OpenRLHF's and LLaMA-Factory's remote reward")
  ),
  **dict.fromkeys(
    ("/classify", "/v1/classify"),
    Route(Inputs, _classified, "vLLM's, with the raw reward in `probs`, and SGLang's, with it in `embedding`"),
  ),
  "/pooling": Route(
    Inputs,
    _listed(lambda one: {"object": "pooling", "data": (one.get("step_rewards") or [one["rewards"]])[0]}),
    "vLLM's, with the raw reward, or those of steps, in `data`",
  ),
  "/v1/embeddings": Route(
    Inputs,
    _listed(lambda one: {"object": "embedding", "embedding": one["rewards"]}),
    "SGLang's, as verl asks it, with the raw reward in `embedding`",
  ),
  **dict.fromkeys(
    ("/score", "/v1/score"),
    Route(
      TextPairs,
      _listed(lambda one: {"object": "score", "score": one["rewards"][0]}),
      "vLLM's, with prompts and answers as pairs",
    ),
  ),
  "/predict": Route(Predicted, _predicted, "text-embeddings-inference's"),
  **dict.fromkeys(
    ("/rerank", "/v1/rerank", "/v2/rerank"),
    Route(Documents, _reranked, "Documents as answers to a query, best first, as Cohere, Jina, vLLM and TEI"),
  ),
}
