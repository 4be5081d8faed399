"""Servers on this machine that run a small model, as vLLM, SGLang, text-embeddings-inference, OpenRLHF and serve.py answer."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class RefusalError(Exception):
  """Status and body."""


class Fake:
  """`text` and `value` are what the server does to a text (-> ids) and to a reward; `fail` may answer a status instead.

  requests: the bodies it got. longest: of texts that it takes. most_texts: in a request.
  """

  def __init__(self, model, api, *, ids=None, value=None, fail=None, longest=None, most_texts=None, reads=(), key=None):
    self.model, self.api, self.value, self.fail, self.longest = model, api, value or (lambda x: x), fail, longest
    self.most_texts = most_texts or (32 if api == "tei" else None)
    self.tokenizer = model.renderer.tokenizer
    self.ids = ids or (lambda text: self.tokenizer(text, add_special_tokens=False)["input_ids"])
    self.reads, self.key, self.lock = set(reads), key, threading.Lock()
    self.requests, self.now, self.most = [], 0, 0

  def rewards(self, texts, *, cuts=False):
    """texts: or token ids, which nothing is done to."""
    if self.most_texts and len(texts) > self.most_texts:
      self.refuse(f"batch size {len(texts)} > maximum allowed batch size {self.most_texts}")
    rows = [self.ids(text) if isinstance(text, str) else list(text) for text in texts]
    if cuts:
      rows = [row[: self.longest] for row in rows]
    for row in rows:
      if self.longest and len(row) > self.longest:
        self.refuse(f"`inputs` must have less than {self.longest} tokens. Given: {len(row)}")
    with self.lock:
      return [self.value(score) for score in self.model.score_ids(rows)]

  def refuse(self, what):
    """As TEI, SGLang (_create_error_response) and vLLM (ErrorResponse) say it."""
    if self.api == "tei":
      raise RefusalError(422, {"error": f"Input validation error: {what}", "error_type": "Validation"})
    error = {"message": what} | ({"type": "BadRequestError", "param": None, "code": 400} if self.api == "vllm" else {})
    raise RefusalError(400, {"error": error})

  def answer(self, path, body):
    asked = {
      ("ours", "/v1/rewards"): self.ours,
      ("vllm", "/classify"): self.vllm,
      ("sglang", "/classify"): self.sglang,
      ("tei", "/predict"): self.tei,
      ("infinity", "/rerank"): self.infinity,
      ("openrlhf", "/get_reward"): self.openrlhf,
      ("llamafactory", "/v1/score/evaluation"): self.llamafactory,
    }.get((self.api, path))
    if not asked:
      raise RefusalError(404, {"detail": "Not Found"})
    return asked(body)

  def ours(self, body):
    with self.lock:
      rows = [self.model.score([row["prompt"]] * len(row["completions"]), row["completions"]) for row in body["rows"]]
    return {"model": "m", "rows": [{"rewards": [self.value(one) for one in row]} for row in rows], "not_scored": 0}

  def vllm(self, body):
    """0.33: its ClassificationResponse."""
    found = self.rewards(body["input"])
    if not any(body.get(name) is False for name in self.reads):  # squashed unless a parameter it reads says not to
      found = [self.squash(one) for one in found]
    data = [{"index": i, "label": "REWARD", "probs": [one], "num_classes": 1} for i, one in enumerate(found)]
    usage = {"prompt_tokens": 1, "total_tokens": 1, "completion_tokens": 0, "prompt_tokens_details": None}
    return {"id": "classify-1", "object": "list", "created": 1, "model": "m", "data": data[::-1], "usage": usage}

  def sglang(self, body):
    """0.5.23: its classify_request; one text is answered without a list."""
    given = body.get("input_ids") or body["text"]
    alone = isinstance(given, str) or isinstance(given[0], int)
    about = {"id": "1", "finish_reason": {"type": "stop", "matched": None}, "prompt_tokens": 1, "e2e_latency": 0.1}
    found = [{"embedding": [one], "meta_info": about} for one in self.rewards([given] if alone else given)]
    return found[0] if alone else found

  def tei(self, body):
    """Of July 2026: truncates unless told, and squashes unless told."""
    found = self.rewards([one for (one,) in body["inputs"]], cuts=body.get("truncate", True))
    if not body.get("raw_scores", False):
      found = [self.squash(one) for one in found]
    return [[{"score": one, "label": "LABEL_0"}] for one in found]

  def infinity(self, body):
    found = self.rewards([body["query"] + one for one in body["documents"]])
    if not body.get("raw_scores"):
      found = [self.squash(one) for one in found]
    order = sorted(range(len(found)), key=lambda i: -found[i])
    return {"results": [{"index": i, "relevance_score": found[i], "document": None} for i in order]}

  def openrlhf(self, body):
    found = self.rewards(body["query"])
    return {"rewards": found, "scores": found, "extra_logs": {"dummy_scores": found}}

  def llamafactory(self, body):
    found = self.rewards(body["messages"])
    return {"id": "scoreval-1", "object": "score.evaluation", "model": body["model"], "scores": found}

  @staticmethod
  def squash(score):
    from math import exp

    return 1 / (1 + exp(-score))


@contextmanager
def served(fake):
  """The address of a server that answers as the fake does."""

  class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
      body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
      with fake.lock:
        fake.now += 1
        fake.most = max(fake.most, fake.now)
        fake.requests.append(body)
        number = len(fake.requests)
      status = fake.fail(number) if fake.fail else None
      if status == "drop":
        self.connection.close()
        self.close_connection = True
        with fake.lock:
          fake.now -= 1
        return
      if fake.key and self.headers.get("Authorization") != f"Bearer {fake.key}":
        status = 401
      try:
        said = {"error": {"message": f"no ({status})"}} if status else fake.answer(self.path, body)
      except RefusalError as error:
        status, said = error.args
      text = json.dumps(said).encode()
      self.send_response(status or 200)
      if status == 429:
        self.send_header("Retry-After", "0")
      self.send_header("Content-Length", str(len(text)))
      self.end_headers()
      with fake.lock:
        fake.now -= 1
      self.wfile.write(text)

    def log_message(self, *_):
      pass

  server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  try:
    yield f"http://127.0.0.1:{server.server_port}"
  finally:
    server.shutdown()
    server.server_close()
