"""A server of serve.py in this process, for tests of what it answers."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2

from reward_modeling.serving.app import Service
from reward_modeling.serving.server import Server, made
from reward_modeling.serving.settings import ServeSettings


class Served(httpx2.Client):
  """A client of the server; `rewards` asks for one prompt's."""

  def __init__(self, server: Server, service: Service):
    self.server, self.service = server, service
    self.address = server.listener.getsockname()[:2]
    super().__init__(base_url="http://{}:{}".format(*self.address), timeout=60)

  def rewards(self, prompt, *completions, **more) -> list[float | None]:
    answer = self.post("/v1/rewards", json={"prompt": prompt, "completions": completions, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()["rows"][0]["rewards"]

  def refused(self, route: str, body, status: int = 422) -> str:
    content = body if isinstance(body, bytes) else json.dumps(body)
    answer = self.post(route, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "where", "hint"}
    return f"{error['where']}: {error['message']}; {error['hint']}"


@contextmanager
def serving(path=None, **settings) -> Iterator[Served]:
  model = {"model_name_or_path": str(path)} if path else {}
  server, service = made(ServeSettings(port=0, **model, **settings))
  thread = threading.Thread(target=server.run)
  thread.start()
  while not server.started:
    time.sleep(0.01)
  try:
    with Served(server, service) as client:
      yield client
  finally:
    server.should_exit = True
    thread.join()


def raw(address: tuple[str, int], sent: bytes) -> socket.socket:
  connection = socket.create_connection(address, timeout=60)
  connection.sendall(sent)
  return connection
