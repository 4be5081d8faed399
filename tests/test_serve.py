"""serve.py: every answer is what score.py gives, whoever else asks, and nothing that a client does ends the server."""

import json
import random
import signal
import socket
import string
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from public_models import EXAMPLES, REFERENCE

from conftest import SCRIPTS, assistant, run_main, save_tiny, start_script, user
from reward_modeling import ProcessRewardModel, RewardModel
from reward_modeling.ensemble import Rewards
from reward_modeling.errors import UsageError
from reward_modeling.pairwise import PairwiseModel
from reward_modeling.rendering import Conversation, Written
from reward_modeling.results import adapter
from serving import raw, serving

WORDS = ["apples", "basket", "red", "blue", "green", "one", "two", "three", "six", "world", "thank you", "no", "maybe"]
TURNS = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n"


def words(rng: random.Random, most: int = 12) -> str:
  return " ".join(rng.choices(WORDS, k=rng.randint(1, most)))


@pytest.fixture(scope="module")
def served(toy_model):
  with serving(toy_model[0]) as client:
    yield client


@pytest.fixture(scope="module")
def model(toy_model):
  return RewardModel.from_pretrained(str(toy_model[0]))


def mixed_requests(n: int, seed: int = 0) -> list[tuple[str, dict, list[tuple[str, str]]]]:
  """(route, body, the (prompt, completion)s whose rewards are in the answer), of every shape."""
  rng = random.Random(seed)
  asked = []
  for _ in range(n):
    prompt, answers = words(rng), [words(rng) for _ in range(rng.choice((1, 1, 2, 5, 16)))]
    pairs = [(prompt, answer) for answer in answers]
    other = words(rng)
    asked.append(
      rng.choice(
        (
          ("/v1/rewards", {"prompt": prompt, "completions": answers}, pairs),
          (
            "/v1/rewards",
            {
              "rows": [
                {"prompt": [user(prompt)], "completions": [[assistant(one)] for one in answers]},
                {"prompt": other, "completions": answers[:1]},
              ]
            },
            [*pairs, (other, answers[0])],
          ),
          ("/get_reward", {"query": [TURNS.format(*pair) for pair in pairs], "labels": None}, pairs),
          ("/classify", {"input": [TURNS.format(*pair).strip() for pair in pairs], "model": "x"}, pairs),
          ("/pooling", {"messages": [user(prompt), assistant(answers[0])]}, pairs[:1]),
          ("/v1/rerank", {"query": prompt, "documents": answers}, pairs),
        )
      )
    )
  return asked


def rewards_in(route: str, answer: dict) -> list[float]:
  if route == "/v1/rewards":
    return [reward for row in answer["rows"] for reward in row["rewards"]]
  if route == "/get_reward":
    return answer["rewards"]
  if route == "/v1/rerank":
    return [one["relevance_score"] for one in sorted(answer["results"], key=lambda one: one["index"])]
  return [one["probs" if route == "/classify" else "data"][0] for one in answer["data"]]


def check_all(served, asked, expected) -> None:
  with ThreadPoolExecutor(16) as clients:
    answers = list(clients.map(lambda one: served.post(one[0], json=one[1]), asked))
  for (route, _, pairs), answer in zip(asked, answers, strict=True):
    assert answer.status_code == 200, answer.text
    assert rewards_in(route, answer.json()) == pytest.approx([expected[pair] for pair in pairs], abs=1e-5)


def test_whatever_is_asked_at_the_same_time_each_gets_its_own_rewards(served, model):
  asked = mixed_requests(150)
  distinct = sorted({pair for _, _, pairs in asked for pair in pairs})
  expected = {pair: model.score([pair[0]], [pair[1]])[0] for pair in distinct}  # one at a time
  before = served.service.counts()["completions"]
  check_all(served, asked, expected)
  assert served.service.counts()["completions"] - before == sum(len(pairs) for _, _, pairs in asked)


@pytest.mark.parametrize("api", ["vllm", "sglang", "tei", "infinity", "openrlhf", "llamafactory", "ours"])
def test_clients_of_other_servers_get_the_same_rewards(api, served, toy_model, toy_file):
  """As score.py asks such servers, and as the programs do that check_server knows."""
  url = "http://{}:{}".format(*served.address)
  named = ("--model_name_or_path", toy_model[0])
  asked = run_main("score.py", "--server", url, "--api", api, *(named if api != "ours" else ()), "--input", toy_file)
  direct = run_main("score.py", *named, "--input", toy_file)
  assert asked.returncode == direct.returncode == 0, asked.stderr
  for one, other in zip(asked.json["rows"], direct.json["rows"], strict=True):
    assert one["rewards"] == pytest.approx(other["rewards"], abs=1e-5)
  if api != "ours":
    checked = run_main("score.py", "--check_server", url, "--api", api, *named)
    assert checked.returncode == 0 and all(one["equal"] for one in checked.json["findings"]), checked.stderr


def test_pairs_and_predictions_as_vllm_sglang_and_tei_answer_them(served):
  yes, no = served.rewards("hello", "thank you", "no")
  text = TURNS.format("hello", "no")
  about = pytest.approx([yes, no], abs=1e-5)

  def posted(route, **body):
    answer = served.post(route, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()

  for names in (("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2"), ("queries", "items")):
    for before in ("hello", ["hello"], ["hello", "hello"]):
      found = posted("/v1/score", **dict(zip(names, (before, ["thank you", "no"]), strict=True)))["data"]
      assert [one["score"] for one in found] == about and [one["index"] for one in found] == [0, 1]
  verl = posted("/v1/embeddings", model="runs/mine", input=text)  # of SGLang; vLLM's is in APIS
  assert verl["data"][-1]["embedding"][-1] == pytest.approx(no, abs=1e-5)
  assert posted("/classify/", text=text, add_special_tokens=False, chat_template=None)["embedding"] == pytest.approx(
    [no], abs=1e-5
  )
  assert len(posted("/rerank", query="hello", documents=["a", "b"], top_n=0)["results"]) == 2
  assert [one["id"] for one in served.get("/v1/models").json()["data"]] == [served.service.name]
  assert posted("/classify", text=text)["embedding"] == pytest.approx([no], abs=1e-5)
  assert posted("/v1/classify", input=text)["data"][0]["probs"] == pytest.approx([no], abs=1e-5)
  assert posted("/predict", inputs=text, raw_scores=True)[0]["score"] == pytest.approx(no, abs=1e-5)
  assert posted("/predict", inputs=[[text]], raw_scores=True)[0][0]["score"] == pytest.approx(no, abs=1e-5)
  found = posted("/rerank", query="hello", texts=["thank you", "no"], raw_scores=True, return_text=True)
  assert {one["text"]: one["score"] for one in found} == pytest.approx({"thank you": yes, "no": no}, abs=1e-5)
  assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)


def test_what_would_be_squashed_elsewhere_or_mean_a_pair_is_refused(served):
  text = TURNS.format("hello", "no")
  for route, body in (
    ("/predict", {"inputs": text}),
    ("/rerank", {"query": "a", "texts": ["b"]}),
    ("/rerank", {"query": "a", "documents": ["b"], "raw_scores": False}),
  ):
    assert "say raw_scores true" in served.refused(route, body)
  assert "say use_activation false" in served.refused("/score", {"text_1": "a", "text_2": "b", "use_activation": True})
  assert "are a pair there" in served.refused("/predict", {"inputs": [text, text], "raw_scores": True})
  assert "2 texts and 3 make no pairs" in served.refused("/score", {"text_1": ["a", "b"], "text_2": ["c"] * 3})
  assert "give either" in served.refused("/classify", {"input": text, "text": text})
  assert served.head("/health").status_code == served.head("/ready").status_code == 200
  compressed = served.post("/v1/rewards", content=b"x", headers={"Content-Encoding": "gzip"})
  assert compressed.status_code == 415 and "compressed" in compressed.json()["error"]["message"]


def test_an_encoder_whose_batches_are_padded(tiny):
  folder = tiny("bert", head=1)
  direct, rng = RewardModel.from_pretrained(str(folder)), random.Random(1)
  rows = [(words(rng), [words(rng) for _ in range(3)]) for _ in range(40)]
  with serving(folder) as served, ThreadPoolExecutor(8) as clients:
    answers = list(clients.map(lambda row: served.rewards(row[0], *row[1]), rows))
  for (prompt, completions), got in zip(rows, answers, strict=True):
    assert got == pytest.approx(direct.score([prompt], [completions])[0], abs=1e-5)


def test_a_process_reward_model_gives_the_rewards_of_steps(toy_process_model):
  direct = ProcessRewardModel.from_pretrained(str(toy_process_model))
  steps = ["one apples", "two apples", "so three"]
  with serving(toy_process_model) as served:
    body = {"prompt": "how many?", "completions": [steps, "one apples\ntwo apples"]}
    row = served.post("/v1/rewards", json=body).json()["rows"][0]
    assert row["steps"] == [steps, steps[:2]]
    for found, own in zip(row["step_rewards"], direct.score_steps(["how many?"], [[steps, steps[:2]]])[0], strict=True):
      assert found == pytest.approx(own, abs=1e-6)
    assert row["rewards"] == pytest.approx([min(found) for found in row["step_rewards"]])
    asked = {"messages": [user("how many?"), assistant("\n".join(steps))]}
    pooled = served.post("/pooling", json=asked).json()["data"][0]["data"]
    assert pooled == pytest.approx(row["step_rewards"][0], abs=1e-6)
    told = served.refused("/classify", {"input": TURNS.format("how many?", steps[0])})
    assert "takes no text that a template has written" in told and "/v1/rewards" in told


def test_an_ensemble(toy_model, tiny, tmp_path):
  other = save_tiny("qwen2", tmp_path / "other", seed=3, head=1)
  paths = [str(toy_model[0]), str(other)]
  how = {"reward_weights": [0.7, 0.3], "reward_combine": "mean"}
  direct = Rewards.from_pretrained(paths, weights=[0.7, 0.3], combine="mean")
  expected = direct([[user("hello")]] * 2, [[assistant("thank you")], [assistant("no")]])
  with serving(reward_model_path=paths, **how) as served:
    assert served.rewards("hello", "thank you", "no") == pytest.approx(expected, abs=1e-5)
    text = TURNS.format("hello", "no")
    assert served.post("/get_reward", json={"query": [text]}).json()["rewards"] == pytest.approx(expected[1:], abs=1e-5)


def test_a_model_that_compares_answers_keeps_two_requests_apart(tmp_path):
  """Requests with one prompt, scored together: each answer is compared with those of its own request."""
  from public_process_models import MODELS

  folder = MODELS["llm-blender/PairRM-hf"](tmp_path / "llm-blender--PairRM-hf", 0)
  answers = [["two", "three"], ["two", "nine and four"], ["six", "two", "three"]]
  direct = PairwiseModel.from_pretrained(str(folder), device="cpu")
  expected = [direct.score(["What is the sum?"], [own])[0] for own in answers]
  with serving(folder) as served, ThreadPoolExecutor(12) as clients:
    found = clients.map(lambda own: served.rewards("What is the sum?", *own), answers * 4)
    for own, got in zip(answers * 4, found, strict=True):
      assert got == pytest.approx(expected[answers.index(own)], abs=1e-5)
    assert "has only one here" in served.refused("/v1/rewards", {"prompt": "a", "completions": ["b"]})


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_text_as_its_authors_write_it_gets_the_reward_of_a_public_model(name, tmp_path):
  folder = EXAMPLES[name].write(tmp_path)[0]
  direct = RewardModel.from_pretrained(str(folder), device="cpu")
  question, answer = "What is the sum of two and three?", "five"
  asked = [Conversation([], Written(EXAMPLES[name].text(question, answer)))]
  said = [{"role": "assistant", "content": answer, "reference": REFERENCE}]  # which POLAR's text holds
  assert direct.score_conversations(asked) == pytest.approx(direct.score([question], [said]), abs=1e-5)


@pytest.mark.parametrize("cut", ["", "\n", "<|im_end|>\n"])
def test_a_text_that_lacks_the_end_of_its_answer_gets_it(served, model, cut):
  """OpenRLHF's query ends with the end token, at its limit of length without; score.py ends every answer."""
  text = TURNS.format("hello apples", "thank you")
  sent = text.removesuffix(cut)
  expected = model.score(["hello apples"], ["thank you"])
  before = served.service.counts()["completed"]
  assert served.post("/get_reward", json={"query": [sent]}).json()["rewards"] == pytest.approx(expected, abs=1e-5)
  assert served.service.counts()["completed"] - before == bool(cut)


def test_token_ids_are_taken_as_they_are(served, model):
  ids = model.renderer.tokenizer(TURNS.format("hello", "no"), add_special_tokens=False)["input_ids"]
  expected = model.score(["hello"], ["no"])
  for sent in (ids, [ids]):
    data = served.post("/classify", json={"input": sent}).json()["data"]
    assert [one["probs"][0] for one in data] == pytest.approx(expected, abs=1e-5)
  assert "token ids of this model are from 0 to" in served.refused("/classify", {"input": [5, 10**6]})


def test_a_bos_that_the_template_writes_is_put_back(tiny, tmp_path):
  """verl takes it off before it sends a text."""

  def with_bos(tokenizer):
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template

  folder = save_tiny("llama", tmp_path / "bos", head=1, edit=with_bos)
  expected = RewardModel.from_pretrained(str(folder)).score(["hello"], ["no"])
  with serving(folder) as served:
    for text in ("<|endoftext|>" + TURNS.format("hello", "no"), TURNS.format("hello", "no")):
      body = {"model": "x", "input": text, "use_activation": False}
      data = served.post("/classify", json=body).json()["data"]
      assert data[-1]["probs"][-1] == pytest.approx(expected[0], abs=1e-5)


def test_rerank_is_the_order_of_score_py(served, toy_model):
  documents = ["no apples", "thank you", "no", "thank you six"]
  body = {"query": "hello", "documents": [documents[0], {"text": documents[1]}, *documents[2:]], "top_n": 3}
  results = served.post("/rerank", json=body).json()["results"]
  flags = ("--model_name_or_path", toy_model[0], "--prompt", "hello", "--rank", "--completions", *documents)
  row = run_main("score.py", *flags).json["rows"][0]
  assert [one["index"] for one in results] == row["order"][:3]
  assert [one["document"]["text"] for one in results] == [documents[i] for i in row["order"][:3]]
  assert [one["relevance_score"] for one in results] == pytest.approx(row["rewards"][:3], abs=1e-5)


TEMPLATED = TURNS.format("hello", "no").partition("no<")[0]


@pytest.mark.parametrize(
  ("route", "body", "said"),
  [
    ("/v1/rewards", {"prompt": TEMPLATED, "completions": ["no"]}, "templated already"),
    ("/v1/rewards", {"rows": [{"prompt": TEMPLATED, "completions": ["no"]}]}, "templated already"),
    ("/rerank", {"query": TEMPLATED, "documents": ["no"]}, "templated already"),
    ("/classify", {"input": "hello no"}, "does not start with '<|im_start|>'"),
    ("/get_reward", {"query": [TURNS.format("a", "b"), "hello no"]}, "row 1: the text does not start"),
    ("/classify", {"input": TURNS.format("a", "b"), "use_activation": True}, "rewards are raw here"),
    ("/pooling", {"input": TURNS.format("a", "b"), "truncate_prompt_tokens": 5}, "cannot be chosen here"),
    ("/pooling", {"messages": [user("a")]}, "of role assistant"),
    ("/classify", {"messages": [user("a"), assistant("b")], "tools": [{"name": "f"}]}, "tools cannot be chosen here"),
    ("/classify", {"messages": [user("a"), assistant("b")], "add_generation_prompt": True}, "cannot be chosen here"),
    ("/classify", {"messages": [user("a"), assistant("b")], "chat_template_kwargs": {"a": 1}}, "cannot be chosen here"),
    ("/rerank", {"query": "a", "documents": ["b"], "instruction": "c"}, "instruction cannot be chosen here"),
    ("/v1/embeddings", {"input": TURNS.format("a", "b"), "encoding_format": "base64"}, "cannot be chosen here"),
    ("/classify", {}, "either `input` or `messages`"),
    ("/v1/rewards", {"prompt": "a"}, "either `prompt` and `completions`, or `rows`"),
    ("/v1/rewards", {"prompt": "a", "completions": ["b"], "answer": "c"}, "answer: Extra inputs"),
    (
      "/v1/rewards",
      {"prompt": "a", "completion": ["b"]},
      "completion: Extra inputs are not permitted; did you mean comp",
    ),
    (
      "/v1/rewards",
      {"rows": [{"prompt": "a", "completions": ["b"], "x": 1}]},
      "; choose from prompt, completions, tools",
    ),
    ("/v1/rewards", {"prompt": "a", "completions": [["b"]]}, "not a message with role and content"),
    ("/v1/rewards", {"prompt": "a", "completions": []}, "at least 1 item"),
    ("/v1/rewards", {"prompt": [{"role": "boss", "content": "a"}], "completions": ["b"]}, "expected one of system"),
    ("/v1/rewards", {"prompt": "a", "completions": ["b"], "tools": [{"name": "f"}]}, "no place for them"),
    ("/v1/rewards", b'{"prompt": "\\ud800", "completions": ["b"]}', "surrogate"),
    ("/v1/rewards", b"{", "JSON"),
  ],
)
def test_what_would_be_misread_is_refused(served, route, body, said):
  assert said in served.refused(route, body)


def test_a_body_that_does_not_say_that_it_is_json(served):
  answer = served.post("/v1/rewards", content=b'{"prompt": "hello", "completions": ["no"]}')
  assert answer.status_code == 422 and "Content-Type: application/json" in answer.json()["error"]["hint"]


def test_text_that_is_too_long_is_null_where_there_is_a_place_for_it(toy_model, served):
  long = " ".join(["apples"] * 500)
  assert served.rewards("hello", "no", long)[1] is None
  told = served.refused("/get_reward", {"query": [TURNS.format("hello", long)]})
  assert "too long" in told and "--max_length" in told
  assert "too long" in served.refused("/rerank", {"query": "hello", "documents": ["no", long]})


def poisoned(toy_model, folder):
  """A model that gives NaN wherever the text has `blue`."""
  direct = RewardModel.from_pretrained(str(toy_model[0]))
  token = direct.renderer.tokenizer(" blue", add_special_tokens=False)["input_ids"][-1]
  with torch.no_grad():
    direct.model.get_input_embeddings().weight[token] = float("nan")
  direct.model.save_pretrained(folder)
  direct.renderer.tokenizer.save_pretrained(folder)
  return folder


def test_a_model_that_gives_nan_costs_only_those_who_asked_for_it(toy_model, model, tmp_path):
  good = [f"{word} green" for word in WORDS if word not in ("blue",)]
  with serving(poisoned(toy_model, tmp_path / "nan")) as served, ThreadPoolExecutor(16) as clients:
    asked = [{"prompt": "a blue" if i % 5 == 0 else good[i % len(good)], "completions": ["one"]} for i in range(60)]
    answers = list(clients.map(lambda body: served.post("/v1/rewards", json=body), asked))
    for body, answer in zip(asked, answers, strict=True):
      if "blue" in body["prompt"]:
        assert answer.status_code == 500
        assert "not finite" in answer.json()["error"]["message"]
      else:
        expected = model.score([body["prompt"]], ["one"])
        assert answer.json()["rows"][0]["rewards"] == pytest.approx(expected, abs=1e-5)
    assert served.get("/ready").status_code == 200


def test_limits(toy_model):
  with serving(toy_model[0], max_body=2000, max_completions=5) as served:
    assert "larger than 2000 bytes" in served.refused("/v1/rewards", b"x" * 3000, 413)
    assert "6 completions" in served.refused("/v1/rewards", {"prompt": "a", "completions": ["b"] * 6}, 413)
    head = (
      b"POST /v1/rewards HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n"
    )
    with raw(served.address, head + (b"3e8\r\n" + b"x" * 1000 + b"\r\n") * 3) as chunks:  # it never says how many
      assert chunks.recv(100).startswith(b"HTTP/1.1 413")
    assert served.rewards("a", *"bcdef")


def test_a_full_queue_is_429_and_a_slow_model_503(toy_model):
  with serving(toy_model[0], max_completions=4, request_timeout=0.5) as served:
    go, score = threading.Event(), served.service.batcher._score_rows
    served.service.batcher._score_rows = lambda rows: go.wait() and score(rows)
    with ThreadPoolExecutor(8) as clients:
      slow = clients.submit(served.post, "/v1/rewards", json={"prompt": "held", "completions": ["a"]})
      while served.service.batcher.waiting or not served.service.batcher._thread.is_alive():
        time.sleep(0.01)
      time.sleep(0.1)
      waits = clients.submit(served.post, "/v1/rewards", json={"prompt": "a", "completions": list("abcd")})
      while served.service.batcher.waiting < 4:
        time.sleep(0.01)
      full = served.post("/v1/rewards", json={"prompt": "a", "completions": ["b"]})
      assert full.status_code == 429 and int(full.headers["Retry-After"]) >= 1
      assert slow.result().status_code == waits.result().status_code == 503
      go.set()
    assert len(served.rewards("a", "b")) == 1
    assert served.service.counts()["completions"] == 4, "two of the trial, the held one, the last; not those given up"


def test_a_client_that_leaves_costs_only_its_own_work(toy_model):
  with serving(toy_model[0]) as served:
    go, score, scored = threading.Event(), served.service.batcher._score_rows, []
    served.service.batcher._score_rows = lambda rows: (go.wait() and scored.extend(rows)) or score(rows)

    def post(prompt: str) -> bytes:
      body = json.dumps({"prompt": prompt, "completions": ["a"]}).encode()
      head = b"POST /v1/rewards HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
      return head % len(body) + body

    with raw(served.address, post("held")) as held:
      time.sleep(0.2)
      leaves, stays = raw(served.address, post("leaves")), raw(served.address, post("stays"))
      while served.service.batcher.waiting < 2:
        time.sleep(0.01)
      leaves.close()
      time.sleep(0.3)
      go.set()
      for connection in (held, stays):
        assert connection.recv(2000).startswith(b"HTTP/1.1 200")
      stays.close()
    assert [row.prompt[0]["content"] for row in scored] == ["held", "stays"]


def test_connections_that_send_no_whole_request_are_closed_and_others_live(served):
  drip = raw(served.address, b"POST /v1/rewards HTTP/1.1\r\nHost:")
  assert served.rewards("hello", "no")
  while len(served.server.server_state.connections) < 2:
    time.sleep(0.01)
  loop = next(iter(served.server.server_state.connections)).loop
  for _ in range(2):
    loop.call_soon_threadsafe(served.server.close_stale)
  assert drip.recv(10) == b"", "it was closed"
  with httpx2.Client(base_url=served.base_url) as other:  # an idle connection of a client may be closed, too
    assert other.post("/v1/rewards", json={"prompt": "hello", "completions": ["no"]}).status_code == 200


def test_a_key_is_asked_of_every_route_but_two(toy_model, tmp_path):
  (tmp_path / "key").write_text("open-sesame\n")
  with serving(toy_model[0], key_file=str(tmp_path / "key")) as served:
    body = {"prompt": "hello", "completions": ["no"]}
    assert served.get("/health").status_code == served.get("/ready").status_code == 200
    assert [served.get(path).status_code for path in ("/metrics", "/docs", "/openapi.json", "/nothing")] == [401] * 4
    for wrong in ({}, {"Authorization": "Bearer open"}, {"Authorization": "Bearer \xe9"}):
      sent = {name: value.encode("latin-1") for name, value in wrong.items()}
      assert served.post("/v1/rewards", json=body, headers=sent).status_code == 401
    right = served.post("/v1/rewards", json=body, headers={"Authorization": "Bearer open-sesame"})
    assert right.status_code == 200


def test_behind_a_proxy_the_routes_are_found_with_and_without_its_path(toy_model, model, tmp_path):
  (tmp_path / "key").write_text("open-sesame\n")
  key = {"Authorization": "Bearer open-sesame"}
  with serving(toy_model[0], root_path="rm/", key_file=str(tmp_path / "key")) as served:
    assert [served.get(path).status_code for path in ("/health", "/rm/health", "/rm/metrics")] == [200, 200, 401]
    for start in ("", "/rm"):
      answer = served.post(f"{start}/v1/rewards", json={"prompt": "hello", "completions": ["no"]}, headers=key)
      assert answer.json()["rows"][0]["rewards"] == pytest.approx(model.score(["hello"], ["no"]), abs=1e-5)
      assert served.get(f"{start}/rmx/health", headers=key).status_code == 404
      assert served.get(f"{start}/openapi.json", headers=key).json()["servers"] == [{"url": "/rm"}]
      assert "/rm/openapi.json" in served.get(f"{start}/docs", headers=key).text


@pytest.mark.parametrize(("root_path", "path"), [("/", "/v1/models"), ("/v1", "/v1/v1/models")])
def test_the_path_of_a_proxy_may_be_none_or_that_of_a_route(root_path, path, toy_model):
  with serving(toy_model[0], root_path=root_path) as served:
    assert served.get(path).status_code == 200


def test_metrics_count_requests_completions_and_what_was_lost(toy_model):
  with serving(toy_model[0]) as served:
    served.rewards("hello", "no", "yes", " ".join(["apples"] * 500))
    served.refused("/classify", {"input": "hello"})
    page = served.get("/metrics").text
  assert 'reward_request_seconds_count{route="/v1/rewards",status="200"} 1.0' in page
  assert 'reward_request_seconds_count{route="/classify",status="422"} 1.0' in page
  assert 'reward_completions{what="completions"} 5.0' in page, "two of the trial at the start"
  assert 'reward_completions{what="not_scored"} 1.0' in page and 'reward_completions{what="dropped"} 1.0' in page


def test_what_is_scored_again_since_another_row_failed_is_counted_once(toy_model, tmp_path):
  long = " ".join(["apples"] * 500)
  rows = [{"prompt": "hello", "completions": ["no", long]} for _ in range(6)]
  rows.insert(3, {"prompt": "a blue", "completions": ["one", long]})
  with serving(poisoned(toy_model, tmp_path / "nan")) as served:
    assert "not finite" in served.refused("/v1/rewards", {"rows": rows}, 500)
    counts = served.service.counts()
    assert (counts["completions"], counts["not_scored"], counts["dropped"]) == (2 + 2 * 6, 6, 6)
    assert counts["rendered"] == 2 + 2 * 6, "what gave NaN is told, and not counted"
    assert 'reward_completions{what="dropped"} 6.0' in served.get("/metrics").text


JSON = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=20),
  lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
  max_leaves=8,
)
NAMES = (
  "prompt",
  "completions",
  "rows",
  "query",
  "documents",
  "input",
  "messages",
  "tools",
  "role",
  "content",
  "top_n",
)
LIKELY = st.recursive(
  st.text(string.printable, max_size=12) | JSON,
  lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
  max_leaves=10,
)
ROUTES = (
  "/v1/rewards",
  "/get_reward",
  "/classify",
  "/pooling",
  "/rerank",
  "/v1/rerank",
  "/v2/rerank",
  "/score",
  "/predict",
  "/v1/embeddings",
  "/v1/score/evaluation",
  "/v1/models/",
  "/metrics",
  "/x",
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
  st.sampled_from(ROUTES),
  st.sampled_from(("POST", "POST", "POST", "GET", "PUT")),
  st.dictionaries(st.sampled_from(NAMES), LIKELY, max_size=4).map(lambda body: json.dumps(body).encode()) | st.binary(),
  st.sampled_from(("application/json", "text/plain", "multipart/form-data", "")),
)
def test_whatever_is_sent_the_answer_is_a_clear_refusal_or_rewards(served, route, method, body, kind):
  answer = served.request(method, route, content=body, headers={"Content-Type": kind})
  assert answer.status_code in (200, 400, 404, 405, 422), answer.text
  if answer.status_code != 200:
    assert answer.json()["error"]["message"]
    assert "Traceback" not in answer.text and "site-packages" not in answer.text


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    (["--host", "192.0.2.1"], "can be reached from other machines"),
    (["--key_file", "{tmp}/absent"], "cannot read --key_file"),
    (["--key_file", "{tmp}/empty"], "one key and nothing else"),
    (["--host", "192.0.2.1", "--key_file", "{tmp}/key"], "cannot listen on 192.0.2.1:8000"),
    (["--port", "70000"], "--port is from 0 to 65535"),
    (["--reward_model_path", "a", "b"], "give one of them"),
  ],
)
def test_what_cannot_be_served_is_told_before_the_model_is_read(tmp_path, flags, said):
  (tmp_path / "empty").write_text("")
  (tmp_path / "key").write_text("k")
  done = run_main("serve.py", "--model_name_or_path", "runs/none", *[one.format(tmp=tmp_path) for one in flags])
  assert done.returncode == 2 and said in done.stderr


def test_a_port_that_is_taken(toy_model):
  with socket.create_server(("127.0.0.1", 0)) as taken:
    done = run_main("serve.py", "--model_name_or_path", toy_model[0], "--port", taken.getsockname()[1])
  assert done.returncode == 2 and "cannot listen on 127.0.0.1" in done.stderr and "--port" in done.stderr


def test_an_address_is_taken_before_the_model_is_loaded():
  """Of two that start at once one is told; and one that starts after the other has ended gets it."""
  from reward_modeling.serving.server import _bound, _reuse

  first = _bound("127.0.0.1", 0)
  port = first.getsockname()[1]
  with pytest.raises(UsageError, match="cannot listen on 127"):
    _bound("127.0.0.1", port)
  _reuse(first, True)  # as when it has loaded
  first.listen()
  with socket.create_connection(("127.0.0.1", port)):
    first.accept()[0].close()  # this side closes first, and waits a minute
  first.close()
  _bound("127.0.0.1", port).close()


def free_port() -> int:
  with socket.create_server(("127.0.0.1", 0)) as found:
    return found.getsockname()[1]


def started(model, port: int):
  process = start_script("serve.py", "--model_name_or_path", model, "--port", port)
  for _ in range(6000):
    try:
      if httpx2.get(f"http://127.0.0.1:{port}/ready").status_code == 200:
        return process
    except httpx2.TransportError:
      assert process.poll() is None
    time.sleep(0.02)
  raise AssertionError("the server is not ready")


def test_sigterm_under_load_answers_what_it_took_and_ends_with_0(toy_model, model):
  port = free_port()
  process = started(toy_model[0], port)
  rng, answers, stop = random.Random(5), [], threading.Event()
  bodies = [(words(rng), [words(rng) for _ in range(4)]) for _ in range(50)]

  def ask(number: int) -> None:
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
      while not stop.is_set():
        prompt, completions = bodies[(number + len(answers)) % len(bodies)]
        try:
          answer = client.post("/v1/rewards", json={"prompt": prompt, "completions": completions})
        except httpx2.TransportError:  # not taken any more
          return
        answers.append((prompt, completions, answer))

  with ThreadPoolExecutor(8) as clients:
    asking = [clients.submit(ask, i) for i in range(8)]
    while len(answers) < 40:
      time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate()
    stop.set()
    [one.result() for one in asking]
  assert process.returncode == 0
  adapter("serve.py").validate_json(out, strict=True)
  told = json.loads(out)
  assert told["completions"] == sum(len(completions) for _, completions, _ in answers) + 2
  for prompt, completions, answer in answers:
    assert answer.status_code == 200
    expected = model.score([prompt], [completions])[0]
    assert answer.json()["rows"][0]["rewards"] == pytest.approx(expected, abs=1e-5)


def test_a_client_that_tries_again_finishes_over_a_killed_server(toy_model, model):
  port, rng = free_port(), random.Random(6)
  rows, found, process = [(words(rng), words(rng)) for _ in range(120)], [], started(toy_model[0], free_port())
  process.kill()
  process = started(toy_model[0], port)
  with httpx2.Client(base_url=f"http://127.0.0.1:{port}") as client:
    for number, (prompt, completion) in enumerate(rows):
      if number == 50:
        process.kill()
        process.wait()
        again = threading.Thread(target=lambda: found.append(started(toy_model[0], port)))
        again.start()
      while True:
        try:
          answer = client.post("/v1/rewards", json={"prompt": prompt, "completions": [completion]})
          break
        except httpx2.TransportError:
          time.sleep(0.05)
      expected = model.score([prompt], [completion])
      assert answer.json()["rows"][0]["rewards"] == pytest.approx(expected, abs=1e-5)
  again.join()
  found[0].kill()


def test_the_reward_function_of_the_document(served, model):
  text = (SCRIPTS.resolve().parent / "references/scaling.md").read_text(encoding="utf-8")
  block = text.partition("```python\nfrom reward_modeling.remote")[2].partition("```")[0]
  address = str(served.base_url).rstrip("/")
  names: dict = {}
  exec("from reward_modeling.remote" + block.replace("http://127.0.0.1:8000", address), names)
  prompts, completions = [[user("hello")], [user("red apples")]], [[assistant("thank you")], [assistant("no")]]
  found = names["reward"](prompts, completions, other=[1, 2])
  assert found == pytest.approx(model.score(prompts, completions), abs=1e-5)
