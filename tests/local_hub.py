"""A read-only Hugging Face hub on this machine, so that commands with hub ids run through the real client code.

It speaks the part of the hub's public protocol that loading needs: files with an ETag and their commit, repository
information, folder listings, and the error codes for what is not there. Whatever else is asked for is answered with 501
and kept in `unknown`: a new release of a library that needs another route says so by its name.

The libraries read HF_ENDPOINT when they are imported, so the hub serves child processes: run_script(..., env=hub.env).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

OTHER_SETTINGS = re.compile(r"^(HF|HUGGING|TRANSFORMERS)_?", re.IGNORECASE)
"""Names of variables that would point the libraries elsewhere."""

NAME = r"(?P<id>[^/]+(/[^/]+)?)"
FILE = re.compile(rf"^/(?P<kind>datasets/)?{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)$")
INFO = re.compile(rf"^/api/(?P<kind>models|datasets)/{NAME}(/revision/(?P<revision>[^/]+))?$")
TREE = re.compile(rf"^/api/(?P<kind>models|datasets)/{NAME}/tree/(?P<revision>[^/]+)(/(?P<path>.+))?$")


@dataclass(frozen=True)
class Repository:
  """The files of one model or dataset, by their path, at the one commit there is."""

  id: str
  files: dict[str, bytes]
  gated: bool = False

  @property
  def commit(self) -> str:
    """Made of the content, so that a cache never takes one stand-in for another."""
    return blob_id(b"".join(f"{path} {blob_id(self.files[path])}\n".encode() for path in sorted(self.files)))

  def listing(self, folder: str, recursive: bool) -> list[dict]:
    """The hub's tree answer: what lies in a folder, with sizes."""
    prefix = f"{folder}/" if folder else ""
    entries = {}
    for path, content in self.files.items():
      name, _, below = path.removeprefix(prefix).partition("/")
      if not path.startswith(prefix):
        continue
      if below:
        entries[prefix + name] = {"type": "directory", "oid": self.commit, "size": 0, "path": prefix + name}
      if not below or recursive:
        entries[path] = {"type": "file", "oid": blob_id(content), "size": len(content), "path": path}
    return list(entries.values())


def blob_id(content: bytes) -> str:
  return hashlib.sha1(content).hexdigest()


def parquet(rows: list[dict]) -> bytes:
  """Rows as a Parquet file. By plain pyarrow: `datasets` would embed a schema that only its own version reads."""
  import pyarrow
  import pyarrow.parquet

  file = io.BytesIO()
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
  return file.getvalue()


def jsonl(rows: list[dict]) -> bytes:
  return "".join(json.dumps(row) + "\n" for row in rows).encode()


class LocalHub:
  """The hub. `requests` holds every (method, path, status) so far, `unknown` those that no route here answers."""

  def __init__(self, cache: Path):
    self.repositories: dict[tuple[str, str], Repository] = {}
    self.requests: list[tuple[str, str, int]] = []
    self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": self}))
    self.server.daemon_threads = True
    Thread(target=self.server.serve_forever, daemon=True).start()
    self.env: dict[str, str | None] = {
      **{name: None for name in os.environ if OTHER_SETTINGS.match(name)},
      "HF_ENDPOINT": f"http://127.0.0.1:{self.server.server_port}",
      "HF_HOME": str(cache),
      "HF_HUB_DISABLE_XET": "1",
      "HF_HUB_DISABLE_TELEMETRY": "1",
      "HF_TOKEN": "hf_fake",
      "NO_PROXY": "127.0.0.1",
      "no_proxy": "127.0.0.1",
    }

  def add_model(self, id: str, folder: Path, *, gated: bool = False) -> None:
    """Offer the files of a saved model under a hub id. gated: to those whom its author let in, so not to us."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    self.repositories["models", id] = Repository(
      id, {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}, gated
    )

  def add_dataset(self, id: str, files: dict[str, bytes]) -> None:
    """Offer these files, by their path in the repository, as a dataset."""
    self.repositories["datasets", id] = Repository(id, files)

  @property
  def unknown(self) -> list[str]:
    return [f"{method} {path}" for method, path, status in self.requests if status == 501]

  def close(self) -> None:
    self.server.shutdown()
    self.server.server_close()


class Handler(BaseHTTPRequestHandler):
  """GET and HEAD of the three routes; every other request is a 501."""

  hub: LocalHub
  protocol_version = "HTTP/1.1"

  def do_GET(self) -> None:
    url = urlsplit(self.path)
    for route, answer in ((FILE, self.file), (INFO, self.info), (TREE, self.tree)):
      if found := route.match(url.path):  # before unquoting: the revision refs%2Fpr%2F1 is one segment
        parts = {name: unquote(value or "") for name, value in found.groupdict().items()}
        return self.in_repository(parts, url.query, answer)
    return self.send_error(501)

  def do_HEAD(self) -> None:
    self.do_GET()

  def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
    """A path without a route; the base class comes here for a method without one."""
    self.rfile.read(int(self.headers.get("Content-Length") or 0))  # a body left unread resets the connection
    self.hub.requests.append((self.command, self.path, code))
    super().send_error(code, message, explain)

  def in_repository(self, parts: dict[str, str], query: str, answer) -> None:
    kind = "datasets" if parts["kind"].startswith("datasets") else "models"
    repository = self.hub.repositories.get((kind, parts["id"]))
    if repository is None:
      return self.missing("RepoNotFound")
    if parts["revision"] not in ("", "main", repository.commit):
      return self.missing("RevisionNotFound")
    return answer(repository, parts, query)

  def file(self, repository: Repository, parts: dict[str, str], query: str) -> None:
    if repository.gated:
      return self.missing("GatedRepo", repository, status=403)
    content = repository.files.get(parts["path"])
    if content is None:
      return self.missing("EntryNotFound", repository)
    headers = {"ETag": f'"{blob_id(content)}"', "X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
    span = re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range", ""))
    if span is None:
      return self.send(200, content, headers)
    start, end = int(span[1]), min(int(span[2] or len(content)), len(content) - 1)
    headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
    return self.send(206, content[start : end + 1], headers)

  def info(self, repository: Repository, parts: dict[str, str], query: str) -> None:
    files = [{"rfilename": path} for path in repository.files]
    state = {"private": False, "gated": False, "disabled": False, "tags": []}
    self.send_json({"id": repository.id, "sha": repository.commit, "siblings": files, **state})

  def tree(self, repository: Repository, parts: dict[str, str], query: str) -> None:
    entries = repository.listing(parts["path"], recursive="recursive=true" in query.lower())
    if not entries:
      return self.missing("EntryNotFound", repository)
    return self.send_json(entries)

  def missing(self, code: str, repository: Repository | None = None, status: int = 404) -> None:
    commit = {"X-Repo-Commit": repository.commit} if repository else {}
    self.send(status, b"", {"X-Error-Code": code, "X-Error-Message": f"{code} (local hub)", **commit})

  def send_json(self, value: object) -> None:
    self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

  def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    self.hub.requests.append((self.command, self.path, status))
    self.send_response(status)
    for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
      self.send_header(name, value)
    self.end_headers()
    if self.command != "HEAD":
      self.wfile.write(body)

  def log_message(self, *args: object) -> None:
    """Keep the test's stderr to itself: `requests` is the log."""
