"""Every command and every piece of Python in the documents runs as it stands."""

from __future__ import annotations

import json
import sys

import pytest

from conftest import REPOSITORY, ultrafeedback_rows

sys.path.insert(0, str(REPOSITORY / "tests" / "skill"))
from blocks import (
  PARSERS,
  STAND_INS,
  Block,
  base_model,
  blocks_of,
  commands_in_tables,
  home_of,
  place_examples,
  run_block,
  shell_text,
  without_numbers,
)
from copies import copied
from generate import SKILL, documents
from warm_process import WarmProcess

MOST_SKIPPED = 6


def every_block() -> list[Block]:
  return [block for document in documents() for block in blocks_of(document)]


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
  """A warm Python whose hub has tiny stand-ins under the documented ids; nothing outside this machine is asked."""
  from local_hub import LocalHub, parquet

  hub = LocalHub(cache=tmp_path_factory.mktemp("cache"))
  for name, made in STAND_INS.items():
    folder = tmp_path_factory.mktemp("model")
    hub.add_model(name, base_model(made, folder) if isinstance(made, str) else made(folder))
  train, test = (parquet(ultrafeedback_rows(16, seed)) for seed in (1, 2))
  hub.add_dataset("trl-lib/ultrafeedback_binarized", {"data/train-0.parquet": train, "data/test-0.parquet": test})
  with WarmProcess(hub.env) as python:
    yield python
  hub.close()
  assert not hub.unknown, f"the libraries now ask the hub for routes that local_hub.py lacks: {hub.unknown}"


def test_every_block_and_every_command_in_a_table_runs_as_it_stands(warm, tmp_path, capfd):
  """In order, document by document. Blocks and tables each in a fresh copy of the installed skill, or of the repository.

  One test for all of them: they share one warm Python, and its start is half of the time.
  """
  counts, failures = {"blocks": 0, "commands in tables": 0}, []
  for document in documents():
    for kind, found in (("blocks", blocks_of(document)), ("commands in tables", commands_in_tables(document))):
      folder = tmp_path / document.stem / kind / home_of(document).name
      for block in (block for block in found if block.runs):
        if not folder.exists():
          copied(home_of(document), folder)
        place_examples(block.text, folder, tmp_path / "examples")
        before = warm.seconds()
        done = run_block(block, warm, folder)
        counts[kind] += 1
        with capfd.disabled():
          print(f"{block}: {warm.seconds() - before:.1f} s, exit code {done.returncode}")
        if done.returncode:
          failures.append(f"{block}: exit code {done.returncode}\n{block.text}{done.stderr[-2000:]}")
        shown = output_of(block) if kind == "blocks" else []
        if shown and without_numbers(done.stderr)[-len(shown) :] != shown:
          failures.append(f"{block}: its last lines are not those shown\n{done.stderr[-2000:]}")
  with capfd.disabled():
    print(f"ran {counts}, {warm.seconds():.0f} s; skipped {sum(block.skip is not None for block in every_block())}")
  assert not failures, "\n\n".join(failures)


@pytest.mark.parametrize("name", ["ddp", "fsdp2"])
def test_the_launch_line_of_a_recipe_of_accelerate_runs_in_two_processes(name, warm, tmp_path):
  """As it stands but for the number of processes; then score.py, which gives the rewards of one process."""
  folder, recipe = tmp_path / "skill", f"assets/accelerate/{name}.yaml"
  copied(SKILL, folder)
  line = (SKILL / recipe).read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
  launch, few = line.partition("scripts/train.py --model")[0], ("--num_processes 8", "--num_processes 2")
  model = line.split()[-1]

  def done(text: str) -> dict:
    place_examples(text, folder, tmp_path / "examples")
    ran = run_block(Block(SKILL / recipe, 1, "bash", text.replace(*few)), warm, folder)
    assert ran.returncode == 0, ran.stderr[-9000:]
    return json.loads(ran.stdout)

  trained = done(line)
  assert trained["training"]["world_size"] == 2 and trained["reload_difference"] <= 1e-5
  score = f"scripts/score.py --model_name_or_path {model} --input completions.jsonl --output"
  two, one = (done(f"{start} {score} {i}.jsonl") for i, start in enumerate((launch, "uv run")))
  assert two["reward_mean"] == pytest.approx(one["reward_mean"], abs=1e-6) and two["completions"] == 32
  rewards = [[json.loads(row)["rewards"] for row in (folder / f"{i}.jsonl").open()] for i in (0, 1)]
  assert rewards[0] == [pytest.approx(own, abs=1e-6) for own in rewards[1]]


def output_of(block: Block) -> list[str]:
  """What the document shows as the last lines of this block, without numbers; nothing when it shows none."""
  behind = [other for other in blocks_of(block.document) if other.is_output and other.line > block.line]
  between = [other for other in blocks_of(block.document) if other.runs and other.line > block.line]
  if not behind or (between and between[0].line < behind[0].line):
    return []
  return without_numbers(behind[0].text)


@pytest.mark.parametrize("block", every_block(), ids=str)
def test_a_block_is_of_the_language_it_names(block):
  """What runs is parsed as well: a skipped block must at least be what it says."""
  PARSERS[block.language](shell_text(block) if block.language == "console" else block.text)


def test_few_blocks_are_skipped_and_each_says_why():
  skipped = [block for block in every_block() if block.skip is not None]
  assert len(skipped) <= MOST_SKIPPED
  assert all(len(block.skip.split()) >= 3 for block in skipped), "a reason is a sentence"
  markers = sum(document.read_text(encoding="utf-8").count("doctest: skip") for document in documents())
  mentions = sum(document.read_text(encoding="utf-8").count("doctest: skip REASON") for document in documents())
  assert markers - mentions == len(skipped), "a marker stands on the line before a fence"


@pytest.fixture
def cold():
  with WarmProcess({}, imports=False) as python:
    yield python


def test_the_harness_runs_text_as_a_shell_and_as_an_interpreter_do(cold, tmp_path):
  """Pipes, exit codes, environment, standard input and a traceback; a harness that swallowed these would pass anything."""

  def run(language: str, text: str):
    return run_block(Block(REPOSITORY / "README.md", 1, language, text), cold, tmp_path)

  assert run("bash", "python -c 'print(6 * 7)' | cat > answer\ncat answer").stdout == "42\n"
  assert run("bash", "A=5 python -c 'import os, sys; sys.exit(int(os.environ[\"A\"]))'").returncode == 5
  assert run("console", "$ echo 3 | python -c 'print(int(input()) + 1)'\n4\n").stdout == "4\n"
  assert run("bash", "pip install torch && python -c 'import sys; print(sys.argv)' x").stdout == "['-c', 'x']\n"
  assert run("bash", "pip install no-such-package-anywhere").returncode == 1
  failed = run("python", "import json\nraise KeyError('seen')\n")
  assert failed.returncode == 1 and "KeyError: 'seen'" in failed.stderr
  script = "import os\nprint(os.environ['RANK'], os.environ['WORLD_SIZE'])\n"
  (tmp_path / "rank.py").write_text(script, encoding="utf-8")
  for start in ("torchrun", "uv run --with-requirements rank.py torchrun"):
    assert sorted(run("bash", f"{start} --nproc_per_node 2 rank.py").stdout.splitlines()) == ["0 2", "1 2"]
  assert run("bash", "uv run rank.py").returncode == 1
