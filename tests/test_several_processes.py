"""score.py and evaluate.py under torchrun: N processes write what one writes, and what one of them finds ends all."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

import warm_process
from conftest import SCRIPTS, run_main, toy_pairs, write_jsonl


def torchrun(script: str, *arguments, n: int = 2) -> warm_process.Command:
  launch = ["torchrun", "--standalone", "--nproc_per_node", str(n)]
  return warm_process.shared().start([*launch, SCRIPTS / script, *arguments])


def ended(process: warm_process.Command) -> tuple[dict | None, str, int]:
  said, told = process.communicate(timeout=warm_process.HANG)
  return json.loads(said) if said.strip() else None, told, process.returncode


def rows(n: int) -> list[dict]:
  """Different lengths, and different numbers of completions."""
  pairs = toy_pairs(n)
  made = [
    {"id": i, "prompt": pair["prompt"], "completions": [pair["chosen"]] * (1 + i % 3)} for i, pair in enumerate(pairs)
  ]
  for row in made:
    row["completions"] = [
      [{**one[0], "content": f"{one[0]['content']} {k}"}] for k, one in enumerate(row["completions"])
    ]
  return made


def same_rows(one, other) -> None:
  one, other = ([json.loads(line) for line in path.open()] for path in (one, other))
  assert [row["id"] for row in one] == [row["id"] for row in other]
  for mine, theirs in zip(one, other, strict=True):
    for name in ("reward", "rewards", "step_rewards"):
      if name in mine:
        assert mine.pop(name) == pytest.approx(theirs.pop(name), abs=1e-6)
    assert mine == theirs


def check_same(alone: dict, shared: dict) -> None:
  assert {**shared, "output": 0, "reward_mean": 0} == {**alone, "output": 0, "reward_mean": 0}
  assert shared["reward_mean"] == pytest.approx(alone["reward_mean"], abs=1e-6)


def test_two_processes_write_what_one_writes(toy_model, tmp_path):
  data = write_jsonl(tmp_path / "rows.jsonl", rows(150))
  flags = (
    "--model_name_or_path",
    toy_model[0],
    "--input",
    data,
    "--max_length",
    "24",
    "--overlong",
    "truncate_prompt",
  )
  alone = run_main("score.py", *flags, "--output", tmp_path / "one.jsonl")
  shared, told, code = ended(torchrun("score.py", *flags, "--output", tmp_path / "two.jsonl"))
  assert code == 0, told
  assert alone.json["truncated"] > 0 and alone.json["not_scored"] > 0, "what renderers count is added up, too"
  check_same(alone.json, shared)
  same_rows(tmp_path / "one.jsonl", tmp_path / "two.jsonl")
  assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "one.jsonl", "two.jsonl"}


def alike(one, other) -> bool:
  """Numbers within 1e-6."""
  if isinstance(one, dict):
    return one.keys() == other.keys() and all(alike(one[name], other[name]) for name in one)
  if isinstance(one, list):
    return len(one) == len(other) and all(map(alike, one, other))
  return one == (pytest.approx(other, abs=1e-6) if isinstance(other, float) else other)


@pytest.mark.parametrize(
  ("script", "writes"), [("score.py", "output"), ("evaluate.py", "output"), ("evaluate.py", "report")]
)
def test_a_run_that_is_killed_goes_on_when_it_is_started_again(script, writes, toy_model, tmp_path):
  if script == "score.py":
    made = [{"id": i, "prompt": "a", "completions": [f"{i} {k}" for k in range(9)]} for i in range(1900)]
  else:
    made = [{"id": i, "prompt": "a", "chosen": f"{i} yes", "rejected": f"{i} no"} for i in range(8600)]
  data = write_jsonl(tmp_path / "rows.jsonl", made)  # over 16,384 answers, which are three shards
  flags = ("--model_name_or_path", toy_model[0], {"score.py": "--input"}.get(script, "--dataset_name"), data)
  alone = run_main(script, *flags, "--output", tmp_path / "one.jsonl").json
  command, shards = (script, *flags, "--output", tmp_path / "two.jsonl"), tmp_path / ".two.jsonl.shards"
  if writes == "report":
    command, shards = (script, *flags, "--report", tmp_path / "page"), tmp_path / "page" / ".report.shards"
  process = torchrun(*command)
  while process.poll() is None and not list(shards.glob("0*.json")):
    time.sleep(0.002)
  ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
  for pid in ranks:
    os.kill(int(pid), signal.SIGKILL)
  process.wait()
  assert len(ranks) == 2 and not (tmp_path / "two.jsonl").exists() and not [*tmp_path.glob("page/*.html")]
  kept = list(shards.glob("0*.json"))
  assert 0 < len(kept) < 3
  for shard in kept:  # a count that only these files have shows that they are read, and not scored again
    (first, counts, *more), *others = json.loads(shard.read_text())
    shard.write_text(json.dumps([[first, {**counts, "truncated": 1000}, *more], *others]))
  (shards / ".000002.json.partial").touch()  # what a process leaves that is killed while it writes
  shared, told, code = ended(torchrun(*command, "--overwrite", n=3))
  assert code == 0, told
  assert f"going on with the {len(kept)} shards" in told
  assert shared.pop("truncated") - alone.pop("truncated") == 1000 * len(kept)
  assert alike({**shared, "output": 0}, {**alone, "output": 0})
  assert not shards.exists()
  if writes == "output":
    one, two = ([json.loads(line) for line in (tmp_path / name).open()] for name in ("one.jsonl", "two.jsonl"))
    assert alike(one, two)
  else:
    assert {path.name for path in (tmp_path / "page").iterdir()} == {"report.html", "report.json", "README.md"}


def test_two_processes_evaluate_as_one(toy_model, tmp_path):
  data = write_jsonl(
    tmp_path / "pairs.jsonl", [{**pair, "subset": "ab"[i % 2]} for i, pair in enumerate(toy_pairs(60))]
  )
  flags = ("--model_name_or_path", toy_model[0], "--dataset_name", data, "--probes", "--max_length", "24")
  alone = run_main("evaluate.py", *flags, "--overlong", "truncate_left", "--output", tmp_path / "one.jsonl")
  shared, told, code = ended(
    torchrun("evaluate.py", *flags, "--overlong", "truncate_left", "--output", tmp_path / "two.jsonl")
  )
  assert code == 0, told
  assert alone.json["truncated"] > 0
  assert alike({**alone.json, "output": 0}, {**shared, "output": 0})
  one, two = ([json.loads(line) for line in (tmp_path / name).open()] for name in ("one.jsonl", "two.jsonl"))
  assert alike(one, two)


def test_two_processes_evaluate_steps_as_one(toy_process_model, tmp_path):
  steps = [{"prompt": f"q {i}", "completions": ["yes", "no"], "labels": [True, i % 2 == 0]} for i in range(31)]
  data = write_jsonl(tmp_path / "steps.jsonl", steps)
  flags = ("--model_name_or_path", toy_process_model, "--dataset_name", data, "--threshold_data", data)
  alone = run_main("evaluate.py", *flags).json
  shared, told, code = ended(torchrun("evaluate.py", *flags, n=3))
  assert code == 0, told
  assert alike(alone, shared)


def test_an_error_of_any_process_ends_all_and_is_told_once(toy_model, tmp_path):
  """What cannot be rendered is spread over the windows of both; all of it is named, as by one process."""
  long = [
    {"id": i, "prompt": "hello", "completions": ["thank you " * (200 if i % 40 == 39 else 1)]} for i in range(200)
  ]
  data = write_jsonl(tmp_path / "rows.jsonl", long)
  flags = (
    "--model_name_or_path",
    toy_model[0],
    "--input",
    data,
    "--overlong",
    "error",
    "--output",
    tmp_path / "out.jsonl",
  )
  alone = run_main("score.py", *flags)
  shared, told, code = ended(torchrun("score.py", *flags))
  assert alone.returncode == code == 3
  error = alone.stderr[alone.stderr.index("error: ") :]
  assert "5 of 200 conversations cannot be rendered" in error and f"{data}:200" in error
  assert told[told.index("error: ") :] == error
  assert shared["error"]["message"] in error
  assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(("flags", "code", "told"), [
    (("--input", "missing.jsonl", "--output", "out.jsonl"), 3, "no such file"),
    (("--prompt", "a", "--completions", "b"), 2, "add --output FILE"),
    (("--prompt", "a", "--completions", "b", "--rank", "--best_of", "2"), 2, "choose one of them"),
    (("--input", "README.md", "--best_of", "2", "--generate_with", "x", "--output", "o.jsonl"), 2, "or torchrun"),
])  # fmt: skip
def test_what_all_processes_find_wrong_is_told_once(toy_model, flags, code, told):
  _, said, found = ended(torchrun("score.py", "--model_name_or_path", toy_model[0], *flags))
  assert found == code and told in said and said.count("error: ") == 1, said


def test_what_all_find_wrong_is_told_if_the_first_is_the_last_to_find_it(tmp_path):
  script = tmp_path / "script.py"
  script.write_text(
    f"import os, sys, time; sys.path.insert(0, {str(SCRIPTS)!r})\n"
    "from reward_modeling import errors, program\n"
    "def main():\n"
    "    time.sleep(0 if int(os.environ['RANK']) else 2)\n"
    "    raise errors.UsageError('wrong')\n"
    "program.main_guard(main)\n"
  )
  _, told, code = ended(warm_process.shared().start(["torchrun", "--standalone", "--nproc_per_node", "3", script]))
  assert (code, told) == (2, "error: wrong\n")


def test_an_error_of_the_second_process_alone_is_told_by_the_first(tmp_path):
  """Of one that the first does not share, as a device out of memory is."""
  script = tmp_path / "script.py"
  script.write_text(
    f"import sys; sys.path.insert(0, {str(SCRIPTS)!r})\n"
    "from reward_modeling import processes, program\n"
    "def main():\n"
    "    team = processes.team()\n"
    "    if team.rank:\n"
    "        raise MemoryError('out of memory')\n"
    "    team.gather(1)\n"
    "program.main_guard(main)\n"
  )
  done = warm_process.shared().start(["torchrun", "--standalone", "--nproc_per_node", "3", script])
  shared, told, code = ended(done)
  assert code == 5 and told.count("error: out of memory") == 1 and "max_tokens_per_batch" in shared["error"]["hint"]


def test_several_models_in_two_processes_are_one_reward(toy_model, tiny, tmp_path):
  data = write_jsonl(tmp_path / "rows.jsonl", rows(40))
  models = ("--reward_model_path", toy_model[0], tiny("qwen2", head=1, seed=3), "--reward_weights", "0.7", "0.3")
  alone = run_main("score.py", *models, "--input", data, "--rank", "--output", tmp_path / "one.jsonl")
  shared, told, code = ended(
    torchrun("score.py", *models, "--input", data, "--rank", "--output", tmp_path / "two.jsonl")
  )
  assert code == 0, told
  check_same(alone.json, shared)
  same_rows(tmp_path / "one.jsonl", tmp_path / "two.jsonl")
