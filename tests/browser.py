"""A headless Chromium by its debugging pipe: what a page says, fetches and looks like."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
NEEDED = "needs a browser: apt-get install chromium"
FLAGS = (
  *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
  *("--no-first-run", "--disable-background-networking", "--remote-debugging-pipe"),
)
HEIGHT = 900


@dataclass
class Browser:
  """One page. messages: of the console and of what failed; requests: every address that it asked for."""

  commands: int
  answers: int
  session: str | None = None
  messages: list[str] = field(default_factory=list)
  requests: list[str] = field(default_factory=list)
  loaded: bool = False
  number: int = 0
  rest: bytes = b""

  def ask(self, method: str, **parameters: object) -> dict:
    self.number += 1
    command = {"id": self.number, "method": method, "params": parameters}
    if self.session:
      command["sessionId"] = self.session
    os.write(self.commands, json.dumps(command).encode() + b"\0")
    while (answer := self._next()).get("id") != self.number:
      self._hear(answer)
    assert "error" not in answer, answer
    return answer["result"]

  def _next(self) -> dict:
    while b"\0" not in self.rest:
      read = os.read(self.answers, 1 << 20)
      assert read, "the browser ended"
      self.rest += read
    answer, _, self.rest = self.rest.partition(b"\0")
    return json.loads(answer)

  def _hear(self, event: dict) -> None:
    name, said = event.get("method"), event.get("params", {})
    if name in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
      self.messages.append(json.dumps(said))
    elif name == "Network.requestWillBeSent":
      self.requests.append(said["request"]["url"])
    self.loaded |= name == "Page.loadEventFired"

  def open(self, page: Path, width: int) -> None:
    """At this width in CSS pixels; a phone's when it is under 600."""
    self.ask("Emulation.setDeviceMetricsOverride", width=width, height=HEIGHT, deviceScaleFactor=1, mobile=width < 600)
    self.loaded = False
    self.ask("Page.navigate", url=page.resolve().as_uri())
    while not self.loaded:
      self._hear(self._next())

  def value(self, expression: str) -> object:
    found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
    assert "exceptionDetails" not in found, found
    return found["result"].get("value")

  def picture(self, top: float = 0, height: float | None = None) -> bytes:
    """PNG of the page from this pixel on, to its end unless a height is given."""
    width, whole = self.value("[document.documentElement.clientWidth, document.documentElement.scrollHeight]")
    clip = {"x": 0, "y": top, "width": width, "height": height or whole - top, "scale": 1}
    found = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
    return base64.b64decode(found["data"])

  def printed(self) -> bytes:
    """PDF on A4."""
    return base64.b64decode(self.ask("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"])


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
  """Chromium reads commands from its descriptor 3 and writes answers to 4."""
  theirs_in, ours_out = os.pipe()
  ours_in, theirs_out = os.pipe()
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:  # its children may write yet
    command = ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash", CHROMIUM, *FLAGS]
    process = subprocess.Popen(
      [*command, f"--user-data-dir={profile}", "about:blank"],
      pass_fds=(theirs_in, theirs_out),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
      found = Browser(ours_out, ours_in)
      target = found.ask("Target.createTarget", url="about:blank")["targetId"]
      found.session = found.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
      for domain in ("Page", "Runtime", "Log", "Network"):
        found.ask(f"{domain}.enable")
      yield found
    finally:
      os.close(ours_out)
      process.terminate()
      process.wait()
      os.close(ours_in)


CUT = """
const said = (e, what) => `${what}: ${e.tagName} ${e.textContent.slice(0, 60)}`
const cut = [...document.querySelectorAll("body, body :not(svg, svg *)")]
  .filter(e => getComputedStyle(e).display != "inline" && e.clientWidth && e.scrollWidth > e.clientWidth + 1)
  .map(e => said(e, "wider than it is shown"))
const over = [...document.querySelectorAll("svg")].flatMap(svg => {
  const inside = svg.getBoundingClientRect()
  const placed = [...svg.querySelectorAll("text")].map(e => [e, e.getBoundingClientRect()])
  return placed.filter(([e, a], i) =>
    a.left < inside.left - 1 || a.right > inside.right + 1 || a.top < inside.top - 1 || a.bottom > inside.bottom + 1 ||
    placed.slice(0, i).some(([_, b]) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
                                     && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1)
  ).map(([e]) => said(e, "over another or outside"))
})
cut.concat(over)
"""


def faults(page: Path) -> list[str]:
  """What readers on a phone, at a desk or of a printed copy would meet: errors, requests, text that is cut or covered."""
  found = []
  with browser() as window:
    for width, media in ((400, "screen"), (1200, "screen"), (720, "print")):  # A4 without its margins
      window.ask("Emulation.setEmulatedMedia", media=media)
      window.open(page, width)
      assert window.value("document.body.textContent.length") > 100
      found += [f"{media} of {width}: {said}" for said in window.value("{" + CUT + "}")]
    found += window.messages + [url for url in window.requests if url != page.resolve().as_uri()]
  return found
