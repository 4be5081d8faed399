"""Files that scripts write: whole or not at all, never a device, through links, by one run at a time, in valid JSON."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import SCRIPTS, run_main
from reward_modeling.errors import UsageError
from reward_modeling.outputs import check_output_file, write_whole
from reward_modeling.results import to_json


def names(folder: Path) -> list[str]:
  return sorted(path.name for path in folder.iterdir())


def test_devices_pipes_and_folders_are_refused(tmp_path):
  os.mkfifo(tmp_path / "pipe")
  (tmp_path / "link").symlink_to("/dev/null")
  for place in ("/dev/null", "/dev/full", tmp_path / "pipe", tmp_path / "link"):
    for overwrite in (False, True):
      with pytest.raises(UsageError, match="is not a regular file"):
        check_output_file(place, overwrite)
  assert stat.S_ISCHR(Path("/dev/null").stat().st_mode) and list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_kept_and_its_target_written(there, tmp_path):
  target, link = tmp_path / "far" / "rows.jsonl", tmp_path / "link"
  link.symlink_to("far/rows.jsonl")
  if there:
    target.parent.mkdir()
    target.write_text("old")
    target.chmod(0o600)
    with pytest.raises(UsageError, match="exists already"):
      check_output_file(link)
  assert write_whole(check_output_file(link, overwrite=True), ["a", "b"]) == 2
  assert link.is_symlink() and target.read_text() == "a\nb\n" and names(target.parent) == ["rows.jsonl"]
  assert not there or stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_link_in_a_circle_and_names_that_are_too_long(tmp_path):
  (tmp_path / "a").symlink_to("b")
  (tmp_path / "b").symlink_to("a")
  for name in ("a", "n" * 300, "x/" + "n" * 300):
    with pytest.raises(UsageError, match="cannot write"):
      check_output_file(tmp_path / name)
  longest = tmp_path / ("ä" * 127)
  assert write_whole(check_output_file(longest), ["x"]) == 1 and longest.read_text() == "x\n"


HOLD = (
  "import sys; from reward_modeling.outputs import check_output_file\n"
  "held = check_output_file(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
)


def test_one_run_at_a_time_and_nothing_is_left_of_a_killed_one(tmp_path):
  file = tmp_path / "rows.jsonl"
  other = subprocess.Popen(
    [sys.executable, "-c", HOLD, file], cwd=SCRIPTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
  )
  assert other.stdout.readline() == "held\n"
  with pytest.raises(UsageError, match=f"another run is writing to {file}"):
    check_output_file(file)
  with pytest.raises(UsageError, match="another run"):
    write_whole(file, ["x"])
  other.kill()
  other.communicate()
  held = check_output_file(file)
  with pytest.raises(UsageError):
    check_output_file(file)
  write_whole(held, ["x"])
  assert names(tmp_path) == ["rows.jsonl"]
  write_whole(held, ["y"])
  assert file.read_text() == "y\n"


def test_a_run_that_fails_leaves_the_file_before_and_nothing_else(tmp_path):
  file = tmp_path / "rows.jsonl"
  file.write_text("old")

  def lines():
    yield "new"
    raise ZeroDivisionError

  with pytest.raises(ZeroDivisionError):
    write_whole(check_output_file(file, overwrite=True), lines())
  check_output_file(tmp_path / "never.jsonl")  # let go without a line
  assert file.read_text() == "old" and names(tmp_path) == ["rows.jsonl"]


def test_what_json_cannot_carry_is_null():
  import numpy

  text = to_json({"a": float("nan"), "b": [float("inf"), numpy.float32("-inf")], 3: (1.5, {"c": numpy.int64(2)})})
  assert json.loads(text) == {"a": None, "b": [None, None], "3": [1.5, {"c": 2}]}


@pytest.mark.parametrize(
  ("script", "flags"),
  [
    ("score.py", ("--model_name_or_path", "m", "--input", "x", "--output", "")),
    ("score.py", ("--model_name_or_path", "", "--input", "x")),
    ("score.py", ("--model_name_or_path", "m", "--input", "x", "")),
    ("score.py", ("--config", "")),
    ("evaluate.py", ("--model_name_or_path", "m", "--dataset_name", "x", "--output", " ")),
    ("evaluate.py", ("--overoptimization", "x", "--picture", "")),
    ("check_data.py", ("x", "--output", "")),
    ("check_data.py", ("",)),
    ("train.py", ("--model_name_or_path", "m", "--dataset_name", "x", "--output_dir", "")),
    (
      "train.py",
      ("--model_name_or_path", "m", "--dataset_name", "x", "--output_dir", "o", "--chat_template_path", ""),
    ),
    ("train_process.py", ("--model_name_or_path", "m", "--dataset_name", "", "--output_dir", "o")),
    (
      "ppo.py",
      ("--model_name_or_path", "m", "--reward_model_path", "", "--dataset_name", "x", "--output_dir", "o"),
    ),
    (
      "grpo.py",
      ("--model_name_or_path", "m", "--reward_model_path", "r", "--dataset_name", "x", "--output_dir", ""),
    ),
    ("quickstart.py", ("--output_dir", "")),
  ],
)
def test_an_empty_path_is_a_usage_error(script, flags):
  done = run_main(script, *flags)
  assert done.returncode == 2 and " is empty\n" in done.stderr, done.stderr


def test_an_empty_path_in_a_recipe(tmp_path):
  (tmp_path / "recipe.yaml").write_text('output_dir: ""\nmodel_name_or_path: m\ndataset_name: x\n')
  done = run_main("train.py", "--config", tmp_path / "recipe.yaml")
  assert done.returncode == 2 and "--output_dir is empty" in done.stderr


def test_quickstart_does_not_write_into_a_folder_in_use(tmp_path):
  (tmp_path / "train.jsonl").write_text("mine")
  done = run_main("quickstart.py", "--output_dir", tmp_path)
  assert done.returncode == 2 and f"{tmp_path} is not empty" in done.stderr
  assert (tmp_path / "train.jsonl").read_text() == "mine"


def test_without_docstrings_and_with_closed_streams(tmp_path):
  """`python -OO`; with stderr closed no file that is opened may take its place."""
  script = SCRIPTS / "check_data.py"
  done = subprocess.run([sys.executable, "-OO", script, "--help"], capture_output=True, text=True)
  assert done.returncode == 0 and "--strict" in done.stdout
  code = (
    "import os, sys; from reward_modeling.outputs import write_whole; from reward_modeling.program import main_guard\n"
    "def main():\n    os.write(2, b'noise')\n    write_whole(sys.argv[1], ['row'])\n    os.write(2, b'noise')\n    return {'a': 1}\n"
    "main_guard(main)"
  )
  for closed in ("2>&-", "<&- 2>&-"):
    words = ["sh", "-c", f'exec "$0" -c "$1" "$2" {closed}', sys.executable, code, tmp_path / "rows.txt"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=SCRIPTS)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"a": 1})
    assert (tmp_path / "rows.txt").read_text() == "row\n"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_signals_end_a_script_alike(name, tmp_path):
  code = (
    "import os, signal, sys, time; from reward_modeling.outputs import check_output_file\n"
    "from reward_modeling.program import main_guard\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "def main():\n    held = check_output_file(sys.argv[1])\n    try:\n"
    "        print('ready', file=sys.stderr, flush=True)\n        [time.sleep(0.1) for _ in range(600)]\n    finally:\n"
    "        os.kill(os.getpid(), signal.SIGTERM)\n        print('cleared', file=sys.stderr, flush=True)\n"
    "main_guard(main)"
  )
  command = [sys.executable, "-c", code, tmp_path / "rows.txt"]
  run = subprocess.Popen(command, cwd=SCRIPTS, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  assert run.stderr.readline() == "ready\n"
  run.send_signal(getattr(signal, name))
  said = run.communicate(timeout=60)[1]
  assert (run.returncode, said) == (130, "cleared\ninterrupted: nothing half-written was kept\n")
  assert names(tmp_path) == []


def test_an_interruption_that_a_library_turns_into_its_own_error():
  code = (
    "import os, signal; from reward_modeling.program import main_guard\n"
    "def main():\n    try:\n        os.kill(os.getpid(), signal.SIGTERM)\n        for _ in range(10**6): pass\n"
    "    except KeyboardInterrupt as error:\n        raise ImportError('numpy could not be imported') from error\n"
    "main_guard(main)"
  )
  done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True)
  assert (done.returncode, done.stderr) == (130, "interrupted: nothing half-written was kept\n")
