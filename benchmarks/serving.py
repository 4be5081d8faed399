"""serve.py under load on this machine, each reward compared with scoring offline.

    OMP_NUM_THREADS=1 uv run python benchmarks/serving.py
    uv run python benchmarks/serving.py --requests 1500 --rounds 3 --batches 24
    OMP_NUM_THREADS=1 uv run python benchmarks/serving.py --hidden 32 --layers 1 --batches 0

A Qwen2 (1.6M parameters unless told) with random fp32 weights. 64 clients, each on a connection of its own, send requests of mixed shapes
(1 to 16 completions of one prompt, all routes) as fast as they are answered, in rounds; after each round the same rows are
scored offline in this process, in one call. The ratio of the two is the median over the rounds, with its range. Then requests
come at random at half the rate that was reached, for the percentiles. Last, best of 16 with 300-token prompts against a
FastAPI server around transformers' text-classification pipeline (16 texts a batch), in turns. That server has PyTorch's default
number of threads, as people start it, whatever OMP_NUM_THREADS gives this one (without it, the default, too); --plain_threads N gives it N.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "tests")]

CLIENTS, TOLERANCE = 64, 1e-5
GIVEN = dict(os.environ)
"""Before the tests' own helpers are imported, which set one thread for the processes that they start."""
WORDS = (
  "capital",
  "apples",
  "there",
  "basket",
  "hello",
  "world",
  "thank",
  "please",
  "maybe",
  "blue",
  "three",
  "twelve",
)
PIPELINE = """
import sys
import uvicorn
from fastapi import FastAPI
from transformers import pipeline

pipe = pipeline("text-classification", model=sys.argv[1], device="cpu")
app = FastAPI()

@app.post("/classify")
def classify(asked: dict) -> dict:
    found = pipe(asked["input"], function_to_apply="none", add_special_tokens=False, batch_size=16)
    return {"data": [{"probs": [one["score"]]} for one in found]}

@app.get("/ready")
def ready() -> dict:
    return {}

uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
"""


def write_model(folder: Path, hidden: int, layers: int) -> None:
  import torch
  from transformers import Qwen2Config, Qwen2ForSequenceClassification

  from conftest import tiny_tokenizer

  torch.manual_seed(0)
  tokenizer = tiny_tokenizer("qwen2")
  tokenizer.model_max_length = 4096
  config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=1,
        intermediate_size=8 * hidden // 3, max_position_embeddings=4096, pad_token_id=3, eos_token_id=2, num_labels=1,
        initializer_range=0.1 if hidden < 384 else 0.02,
    )  # fmt: skip
  Qwen2ForSequenceClassification(config).save_pretrained(folder)
  tokenizer.save_pretrained(folder)


Pair = tuple[str, str]
Asked = tuple[str, dict, list[Pair]]


def text(rng: random.Random, least: int, most: int) -> str:
  return " ".join(rng.choices(WORDS, k=rng.randint(least, most)))


def written(prompt: str, answer: str) -> str:
  return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"


def mixed(rng: random.Random) -> Asked:
  prompt = text(rng, 5, 40)
  answers = [text(rng, 3, 20) for _ in range(rng.choice((1, 1, 1, 2, 2, 4, 8, 16)))]
  pairs = [(prompt, answer) for answer in answers]
  return rng.choice(
    (
      ("/v1/rewards", {"prompt": prompt, "completions": answers}, pairs),
      ("/v1/rewards", {"rows": [{"prompt": one, "completions": [other]} for one, other in pairs]}, pairs),
      ("/get_reward", {"query": [written(*pair) for pair in pairs]}, pairs),
      ("/classify", {"input": [written(*pair) for pair in pairs]}, pairs),
      ("/rerank", {"query": prompt, "documents": answers}, pairs),
    )
  )


def best_of_16(rng: random.Random) -> Asked:
  prompt = text(rng, 300, 300)
  pairs = [(prompt, text(rng, 50, 150)) for _ in range(16)]
  return "/classify", {"input": [written(*pair) for pair in pairs]}, pairs


def rewards_in(route: str, answer: dict) -> list[float]:
  if route == "/v1/rewards":
    return [reward for row in answer["rows"] for reward in row["rewards"]]
  if route == "/get_reward":
    return answer["rewards"]
  if route == "/rerank":
    return [one["relevance_score"] for one in sorted(answer["results"], key=lambda one: one["index"])]
  return [one["probs"][0] for one in answer["data"]]


class Client:
  """One connection that stays open. A client of a few lines: a library would take as much time as the server."""

  def __init__(self, port: int):
    self.port, self.stream = port, None

  async def post(self, route: str, body: bytes) -> bytes:
    if self.stream is None:
      self.stream = await asyncio.open_connection("127.0.0.1", self.port)
    reader, writer = self.stream
    head = f"POST {route} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    if not answer.startswith(b"HTTP/1.1 200"):
      raise RuntimeError(f"{answer!r} {await reader.read(500)!r}")
    length = int(answer.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    return await reader.readexactly(length)


async def closed_loop(port: int, asked: list[Asked], clients: int) -> tuple[float, list[bytes]]:
  """(seconds, answers in the order of the requests): each client sends its next request when it has an answer."""
  bodies = [json.dumps(body).encode() for _, body, _ in asked]
  answers, left = [b""] * len(asked), iter(range(len(asked)))

  async def work() -> None:
    client = Client(port)
    for number in left:
      answers[number] = await client.post(asked[number][0], bodies[number])
    client.stream and client.stream[1].close()

  started = time.perf_counter()
  await asyncio.gather(*(work() for _ in range(clients)))
  return time.perf_counter() - started, answers


async def open_loop(port: int, asked: list[Asked], rate: float) -> list[float]:
  """Seconds of each request, which come at random, `rate` a second, however slow the answers are."""
  rng, free, took = random.Random(1), [], []

  async def one(route: str, body: bytes) -> None:
    client, started = free.pop() if free else Client(port), time.perf_counter()
    await client.post(route, body)
    took.append(time.perf_counter() - started)
    free.append(client)

  tasks, due = [], time.perf_counter()
  for route, body, _ in asked:
    due += rng.expovariate(rate)
    await asyncio.sleep(max(0, due - time.perf_counter()))
    tasks.append(asyncio.create_task(one(route, json.dumps(body).encode())))
  await asyncio.gather(*tasks)
  return took


def started(command: list, port: int, env: dict[str, str] | None = None) -> subprocess.Popen:
  import socket

  process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)
  atexit.register(process.kill)
  while process.poll() is None:
    with socket.socket() as tried:
      if tried.connect_ex(("127.0.0.1", port)) == 0:
        return process
    time.sleep(0.1)
  raise RuntimeError("the server did not start")


def free_port() -> int:
  import socket

  with socket.create_server(("127.0.0.1", 0)) as found:
    return found.getsockname()[1]


def check(asked: list[Asked], answers: list[bytes], expected: list[float]) -> float:
  """The largest difference; every reward stands where it was asked for."""
  found = [rewards_in(route, json.loads(answer)) for (route, _, _), answer in zip(asked, answers, strict=True)]
  assert [len(own) for own in found] == [len(pairs) for _, _, pairs in asked], "an answer is of another length"
  return max(abs(a - b) for a, b in zip((one for own in found for one in own), expected, strict=True))


def offline(model, asked: list[Asked]) -> tuple[float, list[float]]:
  pairs = [pair for _, _, own in asked for pair in own]
  begun = time.perf_counter()
  rewards = model.score(*map(list, zip(*pairs, strict=True)))
  return time.perf_counter() - begun, rewards


def spread(ratios: list[float]) -> str:
  return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--requests", type=int, default=20_000)
  parser.add_argument("--rounds", type=int, default=10)
  parser.add_argument("--batches", type=int, default=32, help="requests of best of 16, to each server")
  parser.add_argument("--plain_threads", type=int, help="of the plain server (PyTorch's default)")
  parser.add_argument("--hidden", type=int, default=192)
  parser.add_argument("--layers", type=int, default=4)
  flags = parser.parse_args()
  from reward_modeling import RewardModel
  from reward_modeling.program import keep_freed_memory

  keep_freed_memory()
  rng, port, other = random.Random(0), free_port(), free_port()
  with tempfile.TemporaryDirectory() as folder:
    write_model(Path(folder), flags.hidden, flags.layers)
    model = RewardModel.from_pretrained(folder)
    server = started(
      [sys.executable, REPOSITORY / "scripts/serve.py", "--model_name_or_path", folder, "--port", port], port, GIVEN
    )
    variables = {name: value for name, value in GIVEN.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    variables |= {"OMP_NUM_THREADS": str(flags.plain_threads)} if flags.plain_threads else {}
    plain = started([sys.executable, "-c", PIPELINE, folder, other], other, variables)
    ratios, served, worst, completions = [], 0.0, 0.0, 0
    for _ in range(flags.rounds):
      asked = [mixed(rng) for _ in range(flags.requests // flags.rounds)]
      seconds, answers = asyncio.run(closed_loop(port, asked, CLIENTS))
      alone, expected = offline(model, asked)
      worst = max(worst, check(asked, answers, expected))
      served += seconds
      completions += len(expected)
      ratios.append(alone / seconds)
      print(f"  {len(asked)} requests in {seconds:.1f} s, offline {alone:.1f} s", file=sys.stderr)
    rate = flags.requests / served
    print(f"{flags.requests} requests of {CLIENTS} clients, {completions} completions: none lost or crossed,")
    print(f"  largest difference {worst:.1e} (allowed {TOLERANCE:g}), {rate:.0f} requests a second")
    print(f"throughput as a share of offline scoring: {spread(ratios)}")
    assert worst < TOLERANCE
    took = sorted(asyncio.run(open_loop(port, [mixed(rng) for _ in range(int(min(2000, 20 * rate)))], rate / 2)))
    p50, p99 = (1000 * took[int(share * len(took))] for share in (0.5, 0.99))
    print(f"at half that rate: p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    times = []
    for _ in range(flags.rounds if flags.batches else 0):
      asked = [best_of_16(rng) for _ in range(max(1, flags.batches // flags.rounds))]
      ours, answers = asyncio.run(closed_loop(port, asked, 8))
      theirs, plainly = asyncio.run(closed_loop(other, asked, 8))
      expected = [reward for answer in plainly for reward in rewards_in("/classify", json.loads(answer))]
      assert check(asked, answers, expected) < TOLERANCE
      times.append(theirs / ours)
    if times:
      threads = flags.plain_threads or "PyTorch's default number of"
      print(f"best of 16 with 300-token prompts: {spread(times)} times FastAPI around a pipeline, {threads} threads")
    plain.kill()
    server.terminate()
    told = json.loads(server.communicate()[0])
    assert server.returncode == 0
    print(f"the server ended with {told}")


if __name__ == "__main__":
  main()
