"""Servers on this machine that run a small model, as vLLM, SGLang, text-embeddings-inference, OpenRLHF and serve.py answer."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Fake:
  """`text` and `value` are what the server does to a text (-> ids) and to a reward; `fail` may answer a status instead.

  requests: the bodies it got. longest: of texts that it takes.
  """

  def __init__(self, model, api, *, ids=None, value=None, fail=None, longest=None, reads=(), key=None):
    self.model, self.api, self.value, self.fail, self.longest = model, api, value or (lambda x: x), fail, longest
    self.tokenizer = model.renderer.tokenizer
    self.ids = ids or (lambda text: self.tokenizer(text, add_special_tokens=False)["input_ids"])
    self.reads, self.key, self.lock = set(reads), key, threading.Lock()
    self.requests, self.now, self.most = [], 0, 0

  def rewards(self, texts):
    """texts: or token ids, which nothing is done to."""
    rows = [self.ids(text) if isinstance(text, str) else list(text) for text in texts]
    if self.longest and any(len(row) > self.longest for row in rows):
      return None
    with self.lock:
      return [self.value(score) for score in self.model.score_ids(rows)]

  def answer(self, path, body):
    if self.api == "ours" and path == "/v1/rewards":
      with self.lock:
        rows = [self.model.score([row["prompt"]] * len(row["completions"]), row["completions"]) for row in body["rows"]]
      return {
        "model": "m",
        "rows": [{"rewards": [self.value(one) for one in row]} for row in rows],
        "not_scored": 0,
      }
    if self.api == "vllm" and path == "/classify":
      found = self.rewards(body["input"])
      if found and not any(
        body.get(name) is False for name in self.reads
      ):  # squashed unless a parameter it reads says not to
        found = [self.squash(one) for one in found]
      return found and {
        "data": [{"index": i, "probs": [one], "label": "REWARD"} for i, one in reversed(list(enumerate(found)))]
      }
    if self.api == "sglang" and path == "/classify":
      found = self.rewards(body.get("input_ids") or body["text"])
      return found and [{"embedding": [one], "meta_info": {}} for one in found]
    if self.api == "tei" and path == "/predict":
      found = self.rewards([one for (one,) in body["inputs"]])
      return found and [[{"score": one, "label": "REWARD"}] for one in found]
    if self.api == "infinity" and path == "/rerank":
      found = self.rewards([body["query"] + one for one in body["documents"]])
      if found and not body.get("raw_scores"):
        found = [self.squash(one) for one in found]
      order = found and sorted(range(len(found)), key=lambda i: -found[i])
      return found and {"results": [{"index": i, "relevance_score": found[i], "document": None} for i in order]}
    if self.api == "openrlhf" and path == "/get_reward":
      found = self.rewards(body["query"])
      return found and {"rewards": found, "scores": found, "extra_logs": {}}
    return 404

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
      said = None if status else fake.answer(self.path, body)
      if fake.key and self.headers.get("Authorization") != f"Bearer {fake.key}":
        status = 401
      if said == 404:
        status = 404
      elif said is None and not status:
        status = 400
      text = json.dumps({"error": {"message": f"no ({status})"}} if status else said).encode()
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
