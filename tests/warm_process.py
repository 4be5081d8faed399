"""A Python that has imported the large libraries: each command line given to it runs in a fork, which spares the imports.

    with WarmProcess() as warm:
        warm.run(["python", "script.py", "--flag"])        as subprocess.run
        warm.start(["python", "script.py", "--flag"])      as subprocess.Popen; signals reach the fork
    shared()                                               the one that all tests of a session use

    warm_process.py FOLDER PID        write the programs below to FOLDER/bin, say `ready`, then run what they hand over
    warm_process.py FOLDER PID cold   the same without the imports; both end when process PID is gone

The programs `python`, `uv`, `torchrun`, `accelerate` and `pip` in FOLDER/bin pass their arguments, folder, environment and standard
streams to the fork and end with its exit code, so pipes and redirections of a shell work as with the real ones. They take
the place of the real ones in this much only:

python      runs a file, a module, -c TEXT or standard input, in this interpreter.
uv run X    runs X here, whatever is asked for by --with; that the headers of the scripts list this environment's packages
            is tested elsewhere.
torchrun    starts its processes as forks, with the variables by which they find each other.
accelerate  is the real one, whose processes are forks, too.
pip install succeeds where everything named is installed, and installs nothing.

A fork differs from a fresh interpreter in what imports do: variables that libraries read when they are imported are those of
the process that it was forked from (`read_at_import`), and what an import prints is not seen. Tests of these start Python.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib.metadata
import json
import os
import re
import resource
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

LIBRARIES = ("torch", "transformers", "datasets", "peft", "accelerate", "scipy.stats", "rich.progress", "yaml")
CLASSES = {
  "trl": ("RewardConfig", "RewardTrainer", "GRPOTrainer", "RLOOTrainer"),
  "transformers": ("AutoModelForCausalLM", "AutoModelForSequenceClassification", "Trainer", "Qwen2Model"),
}
"""Imported late by these packages, on first use."""
QUIET = {
  "HF_HUB_DISABLE_TELEMETRY": "1",
  "TRANSFORMERS_VERBOSITY": "error",
  "HF_HUB_DISABLE_PROGRESS_BARS": "1",
  "TQDM_DISABLE": "1",
}
"""What the scripts set before they import anything, where stderr is no terminal."""
READ_AT_IMPORT = re.compile(
  "^(ACCELERATE|ATEN|CUDA|DATASETS|DNNL|HF|HUGGING|KMP|LD|LOGLEVEL|MALLOC|MKL|OMP|ONEDNN|PYTHON|TOKENIZERS|TORCH|TQDM|TRANSFORMERS|TRL|XDG|HOME)"
)
HARMLESS_THREADS = ("jemalloc_bg_thd",)
"""Of pyarrow's allocator, which starts its own again in a fork; any other that an import starts is refused."""
HANG = 3600
"""Seconds after which a command counts as hung: no limit that a slow machine meets."""
FOLDER, OWNER = "WARM_PROCESS_FOLDER", "WARM_PROCESS_OWNER"
"""Variables that name the folder of the shared process and the process that it ends with: set once a session, inherited
by the workers of xdist."""
SERVING: dict[frozenset, WarmProcess] = {}
"""Variables that are read at import -> the process that was started with them."""

PROGRAM = """#!{python} -SE
import json, os, socket, sys
channel = socket.socket(socket.AF_UNIX)
channel.connect({address!r})
socket.send_fds(channel, [b"!"], [0, 1, 2])
channel.sendall(json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode())
channel.shutdown(socket.SHUT_WR)
said = b"".join(iter(lambda: channel.recv(64), b"")).split()
code = int(said[1]) if len(said) == 2 else 70
sys.exit(code if code >= 0 else 128 - code)
"""


# ---- the side of the tests ----------------------------------------------------------------------------------------


class Command:
  """A command that runs in a fork, with what tests use of `subprocess.Popen`. Its output is kept in files."""

  def __init__(self, address: Path, words: list, *, cwd: Path | None, env: dict[str, str]):
    self.args, self.returncode = [str(word) for word in words], None
    self.stdout, self.stderr = (tempfile.TemporaryFile("a+", encoding="utf-8") for _ in range(2))  # noqa: SIM115
    self.channel = socket.socket(socket.AF_UNIX)
    self.channel.connect(str(address))
    with open(os.devnull) as nothing:
      streams = [file.fileno() for file in (nothing, self.stdout, self.stderr)]
      socket.send_fds(self.channel, [b"!"], streams)
    program = Path(self.args[0]).name if Path(self.args[0]).name in PROGRAMS else "python"
    self.channel.sendall(json.dumps([[program, *self.args[1:]], str(cwd or Path.cwd()), env]).encode())
    self.channel.shutdown(socket.SHUT_WR)
    self.said = self.channel.makefile("r")
    self.pid = int(self.said.readline())

  def poll(self) -> int | None:
    """The exit code, negative for a signal, or None while it runs."""
    if self.returncode is None and select.select([self.channel], [], [], 0)[0]:
      self.returncode = int(self.said.readline() or 70)
    return self.returncode

  def wait(self, timeout: float = HANG) -> int:
    if self.returncode is None and not select.select([self.channel], [], [], timeout)[0]:
      self.kill()
      raise subprocess.TimeoutExpired(self.args, timeout)
    return self.poll()

  def send_signal(self, number: int) -> None:
    if self.poll() is None:
      os.kill(self.pid, number)

  def kill(self) -> None:
    self.send_signal(signal.SIGKILL)

  def communicate(self, timeout: float = HANG) -> tuple[str, str]:
    self.wait(timeout)
    for file in (self.stdout, self.stderr):
      file.seek(0)
    return self.stdout.read(), self.stderr.read()


class WarmProcess:
  """The process that forks, as a context. `bin` holds the programs that reach it.

  env: variables over those of this process that the libraries see when they are imported; None takes one away.
  imports: whether it imports the libraries before the first command. folder: where its socket is (a new one).
  """

  def __init__(self, env: dict[str, str | None] | None = None, *, imports: bool = True, folder: Path | None = None):
    self.given, self.arguments = env or {}, [] if imports else ["cold"]
    self.env = merged(self.given)
    self.env.pop("PYTHONPATH", None)
    self.folder = folder or Path(tempfile.mkdtemp(prefix="warm"))  # short: the path of a socket has 100 bytes
    self.bin = self.folder / "bin"

  def __enter__(self) -> WarmProcess:
    command = [sys.executable, __file__, str(self.folder), os.environ.get(OWNER, str(os.getpid()))]
    process = subprocess.Popen(
      [*command, *self.arguments],
      env={**QUIET, **self.env},
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      text=True,
      start_new_session=True,
    )
    with process.stdout:
      if process.stdout.readline() != "ready\n":
        raise RuntimeError("warm_process.py did not start")
    (self.folder / "pid").write_text(str(process.pid))
    return self

  def __exit__(self, *_: object) -> None:
    stop(self.folder)

  def seconds(self) -> float:
    """Processor time of everything run so far, without that of starting this process."""
    log = self.folder / "seconds"
    return sum(map(float, log.read_text().split())) if log.exists() else 0.0

  def start(self, words: list, *, cwd: Path | None = None, env: dict[str, str | None] | None = None) -> Command:
    """Start one of PROGRAMS; its input is empty. env: over the variables of this process."""
    return Command(self.folder / "socket", words, cwd=cwd, env=merged(self.given | (env or {})))

  def run(self, words: list, *, timeout: float = HANG, **options) -> subprocess.CompletedProcess:
    command = self.start(words, **options)
    stdout, stderr = command.communicate(timeout)
    return subprocess.CompletedProcess(command.args, command.returncode, stdout, stderr)


def merged(env: dict[str, str | None]) -> dict[str, str]:
  """The variables of this process with these over them; None takes a variable away."""
  return {name: value for name, value in {**os.environ, **env}.items() if value is not None}


def read_at_import(env: dict[str, str | None]) -> bool:
  """Whether one of these variables has its effect when a library is imported, so that a fork would not see it."""
  return any(READ_AT_IMPORT.match(name) for name in env)


def shared() -> WarmProcess:
  """The one that serves all tests and workers of this session, started by whoever needs it first."""
  warm = WarmProcess(folder=Path(os.environ[FOLDER]))
  with (warm.folder / "lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not (warm.folder / "pid").exists():
      warm.__enter__()
  return warm


def stop(folder: Path) -> None:
  """End the process of this folder, with the forks that still run, and remove the folder."""
  if (folder / "pid").exists():
    with contextlib.suppress(ProcessLookupError):
      os.killpg(int((folder / "pid").read_text()), signal.SIGKILL)
  shutil.rmtree(folder, ignore_errors=True)


# ---- the side of the process that forks ---------------------------------------------------------------------------


def import_libraries() -> None:
  for module in LIBRARIES:
    __import__(module)
  for module, names in CLASSES.items():
    __import__(module, fromlist=names)


def serve(folder: Path, owner: int) -> None:
  """Answer command lines until this process is ended, or its owner is gone."""
  server = socket.socket(socket.AF_UNIX)
  server.bind(str(folder / "socket"))
  server.listen(64)
  write_programs(folder / "bin", folder / "socket")
  gc.freeze()  # the forks share these pages
  names = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
  assert not (threads := [name for name in names if name not in HARMLESS_THREADS][1:]), f"a fork would lack {threads}"
  woken, wakes = os.pipe()
  for end in (woken, wakes):
    os.set_blocking(end, False)
  signal.signal(signal.SIGCHLD, lambda *_: None)
  signal.set_wakeup_fd(wakes)
  running: dict[int, socket.socket] = {}
  print("ready", flush=True)
  sys.stdout = None  # nobody reads it now
  while alive(owner):
    ready, _, _ = select.select([server, woken], [], [], 5)
    if server in ready:
      channel, _ = server.accept()
      channel.setblocking(True)
      if not (child := os.fork()):
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        server.close()
        answer(channel, folder / "seconds")
      running[child] = channel
      with contextlib.suppress(OSError):
        channel.sendall(f"{child}\n".encode())
    if woken in ready:
      os.read(woken, 4096)
    report(running)


def alive(process: int) -> bool:
  try:
    os.kill(process, 0)
  except ProcessLookupError:
    return False
  return True


def report(running: dict[int, socket.socket]) -> None:
  """Tell those who wait for forks that have ended with which exit code, or by which signal."""
  while running:
    child, status = os.waitpid(-1, os.WNOHANG)
    if not child:
      return
    with running.pop(child) as channel, contextlib.suppress(OSError):
      channel.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def write_programs(folder: Path, address: Path) -> None:
  folder.mkdir()
  for name in PROGRAMS:
    (folder / name).write_text(PROGRAM.format(python=sys.executable, address=str(address)), encoding="utf-8")
    (folder / name).chmod(0o755)


def answer(channel: socket.socket, log: Path) -> None:
  """In a fork: become the process that was asked for, and never return. Its processor time goes into `log`."""
  _, streams, _, _ = socket.recv_fds(channel, 1, 3)
  request = b"".join(iter(lambda: channel.recv(65536), b""))
  channel.close()
  for number, stream in enumerate(streams):
    os.dup2(stream, number)
    os.close(stream)
  sys.stdin, sys.stdout, sys.stderr = (
    open(number, mode, encoding="utf-8", errors=errors, buffering=1 if number == 2 else -1, closefd=False)  # noqa: SIM115
    for number, mode, errors in ((0, "r", "strict"), (1, "w", "strict"), (2, "w", "backslashreplace"))
  )
  sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
  signal.signal(signal.SIGINT, signal.default_int_handler)
  words, folder, variables = json.loads(request)
  os.environ.clear()
  os.environ.update(variables)
  os.chdir(folder)
  sys.path[:] = [*filter(None, variables.get("PYTHONPATH", "").split(os.pathsep)), *sys.path[1:]]
  sys.modules["numpy"].random.seed() if "numpy" in sys.modules else None  # the only one that a fork does not seed anew
  code = exit_code(lambda: PROGRAMS[Path(words[0]).name](words[1:]))
  used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
  with contextlib.suppress(OSError), log.open("a") as file:
    file.write(f"{sum(usage.ru_utime + usage.ru_stime for usage in used)}\n")
  os._exit(code)


def exit_code(call: Callable[[], object]) -> int:
  """Run it as an interpreter runs its main module: a traceback for what it raises, everything flushed at the end."""
  code = 0
  try:
    call()
  except SystemExit as request:
    code = request.code if isinstance(request.code, int) else int(request.code is not None)
    if isinstance(request.code, str):
      print(request.code, file=sys.stderr)
  except BaseException:
    traceback.print_exc()
    code = 1
  with contextlib.suppress(Exception):
    threading._shutdown()
    atexit._run_exitfuncs()
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError, ValueError, AttributeError):
      stream.flush()
  return code & 0xFF


def python(words: list[str]) -> None:
  match words:
    case ["-u", *rest]:
      python(rest)
    case ["-m", module, *_]:
      sys.path.insert(0, str(Path.cwd()))
      sys.argv = words[1:]
      runpy.run_module(module, run_name="__main__", alter_sys=True)
    case ["-c", text, *_]:
      sys.path.insert(0, str(Path.cwd()))
      sys.argv = words[:1] + words[2:]
      exec(compile(text, "<string>", "exec"), {"__name__": "__main__"})
    case [] | ["-"]:
      sys.argv = ["-"]
      exec(compile(sys.stdin.read(), "<stdin>", "exec"), {"__name__": "__main__"})
    case [file, *_]:
      sys.path.insert(0, str(Path(file).resolve().parent))
      sys.argv = words
      runpy.run_path(file, run_name="__main__")


def uv(words: list[str]) -> None:
  match words:
    case ["run", "--with" | "--with-requirements", _, *rest]:
      uv(["run", *rest])
    case ["run", "python" | "python3" | "torchrun" | "accelerate" as name, *rest]:
      PROGRAMS[name](rest)
    case ["run", file, *_] if file.endswith(".py"):
      python(words[1:])
    case _:
      raise SystemExit(f"uv {' '.join(words)}: warm_process.py knows `uv run` of Python files and launchers only")


def torchrun(words: list[str]) -> None:
  """N forks in the places of torchrun's processes; its own parser reads the flags."""
  from torch.distributed.run import get_args_parser

  args = get_args_parser().parse_args(words)
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  count, children = int(args.nproc_per_node), []
  shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
  for rank in range(count):
    if not (child := os.fork()):
      own = {**shared, "RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0}
      os.environ.update({name: str(value) for name, value in own.items()})
      os._exit(exit_code(lambda: python([args.training_script, *args.training_script_args])))
    children.append(child)
  code = 0
  while children:
    child, status = os.wait()
    children.remove(child)
    if status and not code:
      code = os.waitstatus_to_exitcode(status) & 0xFF
      for other in children:  # torchrun ends them too: they would wait for the one that is gone
        os.kill(other, signal.SIGKILL)
  raise SystemExit(code)


def accelerate(words: list[str]) -> None:
  from accelerate.commands.accelerate_cli import main

  os.environ["PYTHON_EXEC"] = str(Path(sys.argv[1]) / "bin" / "python")  # by which torch starts the processes
  sys.argv = ["accelerate", *words]
  main()


def pip(words: list[str]) -> None:
  command, *names = (word for word in words if not word.startswith("-"))
  for name in names:
    bare = re.split(r"[<>=!~\[]", name)[0]
    try:
      importlib.metadata.version(bare)
    except importlib.metadata.PackageNotFoundError:
      if command != "install" or not shutil.which(bare):
        raise SystemExit(f"pip {command}: {bare} is not installed where the tests run") from None


PROGRAMS = {"python": python, "python3": python, "uv": uv, "torchrun": torchrun, "accelerate": accelerate, "pip": pip}


if __name__ == "__main__":
  if sys.argv[3:] != ["cold"]:
    import_libraries()
  serve(Path(sys.argv[1]), int(sys.argv[2]))
