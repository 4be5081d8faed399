"""A fork of the warm process is to a script what a fresh interpreter is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

import warm_process

TOLD = """
import atexit, json, os, sys, threading, random
import numpy
atexit.register(lambda: print("at exit", flush=True))
threading.Thread(target=lambda: (threading.main_thread().join(), print("thread", flush=True))).start()
print(json.dumps({
    "argv": sys.argv[1:], "name": __name__, "file": os.path.basename(__file__), "path": sys.path[0], "cwd": os.getcwd(),
    "env": [os.environ.get(name) for name in ("GIVEN", "TAKEN", "OMP_NUM_THREADS")], "input": sys.stdin.read(),
    "tty": [stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)], "main": __name__ in sys.modules,
    "handler": str(__import__("signal").getsignal(2)), "child": str(__import__("signal").getsignal(17)),
}), flush=True)
print("said", file=sys.stderr)
"""


@pytest.fixture(scope="module")
def cold_forks():
  """Forks of a process without imports: all but the libraries is the same."""
  with warm_process.WarmProcess(imports=False) as warm:
    yield warm


def both(warm, folder, text, *arguments, **env):
  """The script run in a fresh interpreter and in a fork: (exit code, stdout, stderr) of each."""
  (folder / "script.py").write_text(text, encoding="utf-8")
  command = [sys.executable, str(folder / "script.py"), *arguments]
  fresh = subprocess.run(
    command, cwd=folder, env=warm_process.merged(env), stdin=subprocess.DEVNULL, capture_output=True, text=True
  )
  fork = warm.run(command, cwd=folder, env=env)
  return [(done.returncode, done.stdout, done.stderr) for done in (fresh, fork)]


def test_arguments_folder_variables_streams_and_the_end_are_those_of_a_fresh_interpreter(
  cold_forks, tmp_path, monkeypatch
):
  monkeypatch.setenv("TAKEN", "1")
  fresh, fork = both(cold_forks, tmp_path, TOLD, "--flag", "a b", GIVEN="x\ny", TAKEN=None)
  assert fresh == fork and fork[::2] == (0, "said\n")
  told, *end = fork[1].splitlines()
  assert json.loads(told)["argv"] == ["--flag", "a b"] and end == ["thread", "at exit"]


@pytest.mark.parametrize(
  ("text", "code"),
  [
    ("raise SystemExit(3)", 3),
    ("raise SystemExit", 0),
    ("import sys; sys.exit('why')", 1),
    ("raise SystemExit(-1)", 255),
    ("import os; os._exit(7)", 7),
    ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ("print('half', end='')", 0),
  ],
)
def test_exit_codes(cold_forks, tmp_path, text, code):
  fresh, fork = both(cold_forks, tmp_path, text)
  assert fresh == fork and fork[0] == code


def test_a_traceback_is_printed(cold_forks, tmp_path):
  fresh, fork = both(cold_forks, tmp_path, "raise KeyError('seen')")
  assert fresh[0] == fork[0] == 1 and fresh[2].splitlines()[-1] == fork[2].splitlines()[-1] == "KeyError: 'seen'"


def test_signals_reach_the_fork(cold_forks, tmp_path):
  script = tmp_path / "wait.py"
  script.write_text(  # short sleeps: a signal that comes just before one does not end it
    "import time\ntry:\n    print('up', flush=True)\n    while True:\n        time.sleep(0.1)\nexcept KeyboardInterrupt:\n    exit(9)"
  )
  for number, code in ((signal.SIGINT, 9), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)):
    command = cold_forks.start([sys.executable, script])
    while not os.pread(command.stdout.fileno(), 2, 0):
      assert command.poll() is None
    command.send_signal(number)
    assert command.wait() == code and command.poll() == code and command.communicate() == ("up\n", "")


def test_nothing_is_left_of_one_command_in_the_next(cold_forks, tmp_path):
  dirt = "import sys, os, random; sys.modules['dirt'] = sys; os.environ['DIRT'] = '1'; os.chdir('/'); random.seed(0)"
  both(cold_forks, tmp_path, dirt)
  _, fork = both(
    cold_forks, tmp_path, "import sys, os; print('dirt' in sys.modules, 'DIRT' in os.environ, os.getcwd())"
  )
  assert fork[1] == f"False False {tmp_path}\n"
  draws = {both(cold_forks, tmp_path, "import random; print(random.random())")[1][1] for _ in range(3)}
  assert len(draws) == 3, "each fork draws its own random numbers, as each interpreter does"


def test_the_shared_process_has_the_libraries_and_computes_what_a_fresh_one_does(tmp_path):
  text = """
        import sys
        print("trl" in sys.modules)
        import torch
        torch.manual_seed(0)
        print(torch.randn(64, 64).mm(torch.ones(64, 1)).sum().item())
    """
  (tmp_path / "s.py").write_text(textwrap.dedent(text), encoding="utf-8")
  warm = warm_process.shared().run([sys.executable, tmp_path / "s.py"])
  import torch

  torch.manual_seed(0)
  expected = torch.randn(64, 64).mm(torch.ones(64, 1)).sum().item()
  assert warm.stdout.split() == ["True", str(expected)]
  assert warm_process.shared().folder == warm_process.shared().folder


@pytest.mark.parametrize(
  "name", ["HF_HUB_OFFLINE", "OMP_NUM_THREADS", "PYTHONPATH", "DNNL_MAX_CPU_ISA", "HOME", "TQDM_DISABLE"]
)
def test_variables_that_are_read_at_import_need_a_fresh_interpreter(name):
  assert warm_process.read_at_import({"COLUMNS": "80", name: None})
  assert not warm_process.read_at_import({"COLUMNS": "80", "RANK": "1"})
