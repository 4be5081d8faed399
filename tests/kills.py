"""SIGKILL at random times: the next run must end where an undisturbed one does, delete nothing of others, leave nothing behind.

    uv run python tests/kills.py 60 --seed 0      # 60 kills over four scripts, a line each, and a summary

A run is a fork of this process, which has imported the large libraries: a real process under a real signal, without the
seconds of imports. (A kill during the imports finds nothing to spoil: `claim` makes the folder only before the data is read.)
"""

from __future__ import annotations

import argparse
import atexit
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "skill"))

from conftest import SCRIPTS, process_model, save_tiny, toy_pairs, write_jsonl

STEPS = ("--max_steps", "8", "--save_steps", "2", "--learning_rate", "1e-3", "--per_device_train_batch_size", "4")
UPDATES = (
  "--total_episodes",
  "32",
  "--save_steps",
  "1",
  "--per_device_train_batch_size",
  "4",
  "--response_length",
  "5",
)
NOTE = "notes.txt"


class World:
  """Models and data in a folder, and what an undisturbed run of each script leaves."""

  def __init__(self, folder: Path):
    from reward_modeling import checkpoints

    self.folder = folder
    base, pairs = save_tiny("qwen2", folder / "base"), write_jsonl(folder / "pairs.jsonl", toy_pairs(32))
    reward = save_tiny("qwen2", folder / "reward", seed=1, head=1)
    made = process_model("qwen2", max_length=128)
    checkpoints.save(made.model, made.renderer, folder / "prm", training={}, reward={"mean": 0.5, "std": 0.1, "n": 1})
    rows = [{"prompt": f"q {i}", "completions": ["yes", "no"], "labels": [True, i % 2 == 0]} for i in range(32)]
    steps = write_jsonl(folder / "steps.jsonl", rows)
    prompts = write_jsonl(folder / "prompts.jsonl", [{"prompt": row["prompt"]} for row in toy_pairs(12)])
    start = ("--model_name_or_path", base, "--dataset_name")
    self.commands = {
      "train": (*start, pairs, *STEPS),
      "train_process": (*start, steps, *STEPS),
      "ppo": (*start, prompts, "--reward_model_path", reward, *UPDATES),
      "score": ("--model_name_or_path", reward, "--input", pairs),
    }
    self.undisturbed: dict[str, tuple[float, dict[str, bytes]]] = {}

  def words(self, script: str, place: Path) -> list[str]:
    out = ("--output", place / "out.jsonl") if script == "score" else ("--output_dir", place / "out")
    return [str(word) for word in (*self.commands[script], *out)]

  def whole(self, script: str) -> tuple[float, dict[str, bytes]]:
    """(seconds, what is left) of an undisturbed run."""
    if script not in self.undisturbed:
      place = self.folder / "whole" / script
      place.mkdir(parents=True)
      started = time.perf_counter()
      code, said = finished(begun(script, self.words(script, place), self.folder / "said"))
      assert code == 0, said
      self.undisturbed[script] = time.perf_counter() - started, left(place)
    return self.undisturbed[script]


def left(place: Path) -> dict[str, bytes]:
  """All files below a folder; of those that hold times or paths, the name alone."""
  model = ("out/model.safetensors", "out.jsonl")
  files = (path for path in sorted(place.rglob("*")) if path.is_file())
  names = {path.relative_to(place).as_posix(): path for path in files}
  return {name: path.read_bytes() if name in model else b"" for name, path in names.items()}


def begun(script: str, words: list[str], said: Path) -> tuple[int, Path]:
  """A fork of this process that is scripts/SCRIPT.py with these arguments."""
  sys.stdout.flush()
  sys.stderr.flush()
  number = os.fork()
  if number:
    return number, said
  code = 70
  try:
    os.setpgid(0, 0)
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
      os.dup2(file, stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", closefd=False) for stream in (1, 2))
    atexit._clear()
    run(script, words)
  except SystemExit as leaving:
    code = leaving.code
    atexit._run_exitfuncs()
  finally:
    sys.stderr.flush()
    os._exit(code)


def run(script: str, words: list[str]) -> None:
  import importlib.util

  from reward_modeling import program, results, terminal

  results._stdout = sys.stdout
  terminal.console.cache_clear()
  spec = importlib.util.spec_from_file_location(f"killed_{script}", SCRIPTS / f"{script}.py")
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module
  spec.loader.exec_module(module)
  program.main_guard(lambda: module.main(words))


def finished(run: tuple[int, Path]) -> tuple[int, str]:
  number, said = run
  _, status = os.waitpid(number, 0)
  return os.waitstatus_to_exitcode(status), said.read_text(encoding="utf-8")


def killed(world: World, script: str, share: float, place: Path) -> str:
  """Kill a run after this share of its time and go on from there. Returns how; raises AssertionError for what went wrong."""
  seconds, expected = world.whole(script)
  place.mkdir(parents=True)
  words = world.words(script, place)
  running, started = begun(script, words, world.folder / "said"), time.perf_counter()
  while (took := time.perf_counter() - started) < share * seconds:
    if os.waitid(os.P_PID, running[0], os.WEXITED | os.WNOHANG | os.WNOWAIT):
      break
    time.sleep(0.002)
  os.kill(running[0], signal.SIGKILL)
  code, said = finished(running)
  if code == 0:  # ended before the kill: the machine is less busy than in the undisturbed run
    world.undisturbed[script] = took, expected
    shutil.rmtree(place)
    return killed(world, script, share, place)
  assert code == -signal.SIGKILL, said
  out = place / "out"
  if script != "score" and out.exists():
    (out / NOTE).write_text("mine")
    expected = {**expected, f"out/{NOTE}": b""}
  ways = {"resumed": ("--resume_from_checkpoint",), "started again beside the note": ("--overwrite_output_dir",)}
  for how, more in ({"again": ()} if script == "score" else ways).items():  # noqa: B007 - returned
    code, said = finished(begun(script, [*words, *more], world.folder / "said"))
    assert code in (0, 2), said
    if code == 0 or "is finished" in said or "exists already" in said:
      break
  else:
    raise AssertionError(said)
  found = left(place)
  assert found.keys() == expected.keys(), f"left behind or lost: {sorted(found.keys() ^ expected.keys())}"
  assert found == expected, "another model"
  if code == 2:
    return "had ended"
  return "started anew" if "started anew" in said else how


def import_all() -> None:
  """What the forks would import."""
  import importlib

  from warm_process import import_libraries

  import_libraries()
  for name in ("outcome", "process", "ppo", "policy", "resuming"):
    importlib.import_module(f"reward_modeling.training.{name}")
  for name in ("evaluation.pairs", "evaluation.steps", "process", "scoring", "packing", "attention"):
    importlib.import_module(f"reward_modeling.{name}")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("count", type=int)
  parser.add_argument("--seed", type=int, default=0)
  args = parser.parse_args()
  import_all()
  rng, failed, hows = random.Random(args.seed), 0, {}
  with tempfile.TemporaryDirectory() as folder:
    world = World(Path(folder))
    scripts = list(world.commands)
    for number in range(args.count):
      script, share = scripts[number % len(scripts)], rng.uniform(0.02, 1.0)
      place = world.folder / f"kill-{number}"
      try:
        how = killed(world, script, share, place)
      except AssertionError as error:
        failed, how = failed + 1, f"FAILED: {error}"
      shutil.rmtree(place, ignore_errors=True)
      hows[how.partition(":")[0]] = hows.get(how.partition(":")[0], 0) + 1
      print(
        f"{number + 1:3} {script:14} at {share:4.0%} of {world.whole(script)[0]:.1f} s: {how}",
        flush=True,
      )
  print(f"{args.count} kills, {failed} failed; {hows}")
  raise SystemExit(failed > 0)


if __name__ == "__main__":
  main()
