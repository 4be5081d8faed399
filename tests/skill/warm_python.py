"""A Python that has imported the large libraries: each command line given to it runs in a fork, which spares the imports.

    warm_python.py FOLDER        write the programs below to FOLDER/bin, say `ready`, then run what they hand over
    warm_python.py FOLDER cold   the same without the imports

The programs `python`, `uv`, `torchrun` and `pip` in FOLDER/bin pass their arguments, folder, environment and standard
streams to the fork and end with its exit code, so pipes and redirections of a shell work as with the real ones. They take
the place of the real ones in this much only:

python      runs a file, a module, -c TEXT or standard input, in this interpreter.
uv run X    runs X here, whatever is asked for by --with; that the headers of the scripts list this environment's packages
            is tested elsewhere.
torchrun    starts its processes as forks, with the variables by which they find each other.
pip install succeeds where everything named is installed, and installs nothing.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import json
import os
import re
import resource
import runpy
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

LIBRARIES = ("torch", "transformers", "datasets", "peft", "accelerate", "scipy.stats", "rich.progress", "yaml")
CLASSES = {
    "trl": ("RewardConfig", "RewardTrainer", "GRPOTrainer", "RLOOTrainer"),
    "transformers": ("AutoModelForCausalLM", "AutoModelForSequenceClassification", "Trainer", "Qwen2Model"),
}
"""Imported late by these packages, on first use."""

PROGRAM = """#!{python} -SE
import json, os, socket, sys
channel = socket.socket(socket.AF_UNIX)
channel.connect({address!r})
socket.send_fds(channel, [b"!"], [0, 1, 2])
channel.sendall(json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode())
channel.shutdown(socket.SHUT_WR)
sys.exit(int(channel.recv(8) or 70))
"""


def import_libraries() -> None:
    for module in LIBRARIES:
        __import__(module)
    for module, names in CLASSES.items():
        __import__(module, fromlist=names)


def serve(folder: Path, parent: int) -> None:
    """Answer command lines until this process is ended, or its parent is gone."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(folder / "socket"))
    server.listen()
    write_programs(folder / "bin", folder / "socket")
    gc.freeze()  # the forks share these pages
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    print("ready", flush=True)
    server.settimeout(5)
    while os.getppid() == parent:
        try:
            channel, _ = server.accept()
        except TimeoutError:
            continue
        channel.settimeout(None)
        if os.fork() == 0:
            server.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            answer(channel, folder / "seconds")
        channel.close()


def write_programs(folder: Path, address: Path) -> None:
    folder.mkdir()
    for name in PROGRAMS:
        (folder / name).write_text(PROGRAM.format(python=sys.executable, address=str(address)), encoding="utf-8")
        (folder / name).chmod(0o755)


def answer(channel: socket.socket, log: Path) -> None:
    """In a fork: become the process that was asked for, and never return. Its processor time goes into `log`."""
    _, streams, _, _ = socket.recv_fds(channel, 1, 3)
    request = b"".join(iter(lambda: channel.recv(65536), b""))
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    words, folder, variables = json.loads(request)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.path[:] = [*filter(None, variables.get("PYTHONPATH", "").split(os.pathsep)), *sys.path[1:]]
    code = exit_code(lambda: PROGRAMS[Path(words[0]).name](words[1:]))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    with log.open("a") as file:
        file.write(f"{sum(usage.ru_utime + usage.ru_stime for usage in used)}\n")
    channel.sendall(str(code).encode())
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
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return code


def python(words: list[str]) -> None:
    match words:
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
        case ["run", "python" | "python3" | "torchrun" as name, *rest]:
            PROGRAMS[name](rest)
        case ["run", file, *_] if file.endswith(".py"):
            python(words[1:])
        case _:
            raise SystemExit(f"uv {' '.join(words)}: warm_python.py knows `uv run` of Python files and torchrun only")


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
    raise SystemExit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF for child in children))


def pip(words: list[str]) -> None:
    command, *names = (word for word in words if not word.startswith("-"))
    for name in names:
        bare = re.split(r"[<>=!~\[]", name)[0]
        try:
            importlib.metadata.version(bare)
        except importlib.metadata.PackageNotFoundError:
            if command != "install" or not shutil.which(bare):
                raise SystemExit(f"pip {command}: {bare} is not installed where the tests run") from None


PROGRAMS = {"python": python, "python3": python, "uv": uv, "torchrun": torchrun, "pip": pip}


if __name__ == "__main__":
    started_by = os.getppid()
    if sys.argv[2:] != ["cold"]:
        import_libraries()
    serve(Path(sys.argv[1]), started_by)
