"""What every script says to bad files, bad models, bad places and closed pipes: one clear line and the right exit code.

The data faults run each script as a user would; they are found before anything heavy is imported. Faults of models run
inside this process (`run_main`), once each script's start has been paid for.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import QUICK, SCRIPTS, run_main, run_script, save_tiny, toy_pairs, write_jsonl

ASK = {
  "check_data.py": ("--dataset_name",),
  "train.py": ("--model_name_or_path", "unread", "--output_dir", "{tmp}/out", "--dataset_name"),
  "score.py": ("--model_name_or_path", "{tmp}/unread", "--input"),
  "evaluate.py": ("--model_name_or_path", "unread", "--dataset_name"),
}


def edited(path: Path, edit) -> Path:
  """Twenty good rows, then `edit(rows)`."""
  rows = toy_pairs(20)
  edit(rows)
  return write_jsonl(path, rows)


def broken_json(path: Path) -> Path:
  lines = [json.dumps(row) for row in toy_pairs(20)]
  lines[16] = lines[16][:50]
  path.write_text("\n".join(lines) + "\n")
  return path


FAULTS = {
  "missing file": (lambda path: path, "no such file or folder: {path}", None),
  "empty file": (lambda path: path.touch() or path, "the file is empty", "{path}"),
  "broken JSON": (broken_json, "broken JSON: Unterminated string starting at at column 46", "{path}:17"),
  "wrong type": (
    lambda path: edited(path, lambda rows: rows[4].update(chosen=3)),
    "`chosen` is a number (3), not text or messages",
    "{path}:5",
  ),
  "wrong type in every row": (
    lambda path: edited(path, lambda rows: [row.update(rejected=7) for row in rows]),
    "20 of 20 rows: `rejected` is a number (7), not text or messages",
    "{path}:1 (also 2, 3, 4, 5, ...)",
  ),
  "column missing in one row": (
    lambda path: edited(path, lambda rows: rows[8].pop("rejected")),
    "column `rejected` is missing",
    "{path}:9",
  ),
  "unused context": (
    lambda path: edited(path, lambda rows: [row.update(context="a document") for row in rows]),
    "column `context` could be part of the input, but format `explicit` does not use it (20 of 20 rows)",
    "{path}:1",
  ),
}


ONE_ROW = ("broken JSON", "wrong type", "column missing in one row")
"""Faults with which the other rows can be read."""


def told(done, code: int, message: str, where: object = None) -> None:
  """The script ended with this code and this error, and with nothing else in the place of the error."""
  assert done.returncode == code, done.stderr
  assert "Traceback" not in done.stderr
  assert not done.stdout or list(json.loads(done.stdout)) == ["error"]  # check_data.py says it in JSON too
  lines = done.stderr.splitlines()
  assert f"error: {message}" in lines
  assert sum(line.startswith("error:") for line in lines) == 1
  if where:
    assert lines[lines.index(f"error: {message}") + 1] == f"  --> {where}"


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("script", ASK)
def test_bad_data(script, fault, tmp_path):
  make, message, where = FAULTS[fault]
  path = make(tmp_path / "pairs.jsonl")
  (tmp_path / "unread").mkdir()  # its kind is read, and nothing else of it
  (tmp_path / "unread" / "config.json").write_text('{"architectures": ["Qwen2ForSequenceClassification"]}')
  arguments = [word.format(tmp=tmp_path) for word in ASK[script]]
  done = run_script(script, *arguments, path)
  message, where = message.format(path=path), where and where.format(path=path)
  if script == "check_data.py" and fault in ONE_ROW:  # a finding among others, with the JSON
    assert done.returncode == 3 and f"the first: {message}\n  --> {where}\n" in done.stderr
    return
  told(done, 3, message, where)
  assert done.stderr.startswith("error:"), "nothing comes before the error"


def test_an_answer_that_is_over_length_everywhere(tiny, toy_file, tmp_path):
  done = run_main("train.py", *base(tiny), "--dataset_name", toy_file, "--output_dir", tmp_path, "--max_length", "5")
  told(done, 3, "no pair is left of 96: 96 are longer than 5 tokens")


# ---- models -------------------------------------------------------------------------------------------------------


def base(tiny) -> tuple:
  return "--model_name_or_path", tiny("qwen2")


@pytest.fixture
def asked_with(toy_file):
  """asked_with(script, model): the script run with this model on the toy pairs."""

  def ask(script: str, model, *more):
    data = "--input" if script == "score.py" else "--dataset_name"
    return run_main(script, "--model_name_or_path", model, data, toy_file, *more)

  return ask


def train(model, data, out, *more):
  return run_main("train.py", "--model_name_or_path", model, "--dataset_name", data, "--output_dir", out, *more)


@pytest.mark.parametrize("script", ["score.py", "evaluate.py"])
def test_a_base_model_is_no_reward_model(script, tiny, toy_file):
  model, data = tiny("qwen2"), "--input" if script == "score.py" else "--dataset_name"
  done = run_script(script, "--model_name_or_path", model, data, toy_file)
  message = f"{model} is not a reward model: its architecture is Qwen2ForCausalLM, without a score head"
  told(done, 4, message)
  assert f"hint: train one: train.py --model_name_or_path {model}" in done.stderr


@pytest.mark.parametrize("script", ["score.py", "evaluate.py"])
def test_folders_that_hold_no_model(script, asked_with, tmp_path):
  told(asked_with(script, tmp_path / "none"), 4, f"there is no model folder {tmp_path / 'none'}")
  told(asked_with(script, tmp_path), 4, f"{tmp_path} is not a model folder: it has no config.json")


def test_a_model_with_two_labels(tmp_path, toy_file, asked_with):
  model = save_tiny("qwen2", tmp_path / "two", head=2)
  told(asked_with("score.py", model), 4, f"{model} has 2 labels; an outcome reward model has 1")
  told(asked_with("evaluate.py", model), 4, f"{model} has 2 labels; an outcome reward model has 1")
  done = train(model, toy_file, tmp_path / "out")
  told(done, 4, f"{model} has 2 labels; an outcome reward model has 1")


def test_a_missing_pad_token_is_added_and_said(tmp_path, toy_file, asked_with):
  def forget_pad(tokenizer):
    tokenizer.pad_token = None

  model = save_tiny("llama", tmp_path / "padless", edit=forget_pad)
  done = train(model, toy_file, tmp_path / "out", "--max_steps", "1")
  assert done.returncode == 0, done.stderr
  assert "pad token: <pad> (it was missing)" in done.stderr.splitlines()
  assert json.loads((tmp_path / "out" / "config.json").read_text())["pad_token_id"] == 3
  assert asked_with("score.py", tmp_path / "out").returncode == 0


def test_no_eos_and_no_template(tmp_path, toy_file):
  def forget_end(tokenizer):
    tokenizer.eos_token = tokenizer.chat_template = None

  model = save_tiny("qwen2", tmp_path / "endless", edit=forget_end)
  message = (
    "the tokenizer has neither a chat template nor an EOS or SEP token: "
    "nothing would tell the model where an answer ends"
  )
  told(train(model, toy_file, tmp_path / "out"), 4, message)


def changed(path: Path, **values) -> None:
  path.write_text(json.dumps(json.loads(path.read_text()) | values))


def cut_short(name: str):
  return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-90])


DAMAGE = {
  "a classification of one label": (
    lambda folder: changed(folder / "config.json", problem_type="single_label_classification"),
    r"cannot load \S+: `problem_type=.*",
  ),
  "weights cut short": (cut_short("model.safetensors"), r"cannot load \S+: Error while deserializing header: .*"),
  "no weights": (
    lambda folder: (folder / "model.safetensors").unlink(),
    r"cannot load \S+: Error no file named model.safetensors, .*",
  ),
  "config cut short": (cut_short("config.json"), r"config\.json is not valid JSON: Unterminated string .*"),
  "tokenizer cut short": (cut_short("tokenizer.json"), r"cannot load \S+: Expecting .*"),
  "no tokenizer": (
    lambda folder: (folder / "tokenizer.json").unlink(),
    r"the tokenizer of \S+ gives different texts the same tokens: it came without its vocabulary",
  ),
  "another template": (
    lambda folder: (folder / "chat_template.jinja").write_text("{{ messages[0].content }}"),
    r"\S+ renders text otherwise than it did in training: chat_template_sha256, .* changed, .*",
  ),
  "a broken template": (
    lambda folder: (folder / "chat_template.jinja").write_text("{% if %}"),
    r"\S+ has a broken chat template: .*",
  ),
  "card cut short": (cut_short("reward_model.json"), r"reward_model\.json is not valid JSON: .*"),
  "a card of another kind": (
    lambda folder: (folder / "reward_model.json").write_text("[]"),
    r"reward_model\.json is not a JSON object",
  ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_model_folders(damage, toy_model, asked_with, tmp_path):
  folder = tmp_path / "model"
  shutil.copytree(toy_model[0], folder, ignore=shutil.ignore_patterns("checkpoint-*"))
  do, message = DAMAGE[damage]
  do(folder)
  done = asked_with("score.py", folder)
  first = next(line for line in done.stderr.splitlines() if line.startswith("error:"))
  assert done.returncode == 4 and re.fullmatch(f"error: {message}", first), done.stderr


def test_a_device_that_is_not_there(toy_model, asked_with):
  done = asked_with("score.py", toy_model[0], "--device", "nonsense")
  assert done.returncode == 2 and "error: cannot use --device nonsense: " in done.stderr


def test_more_tokens_than_the_model_has_positions(tiny, toy_model, toy_file, asked_with, tmp_path):
  message = "--max_length 4096 is more than the 128 tokens the model can read"
  done = train(tiny("qwen2"), toy_file, tmp_path, "--max_length", "4096")
  told(done, 2, message)
  assert "hint: give --max_length 128 or less" in done.stderr
  told(asked_with("evaluate.py", toy_model[0], "--max_length", "4096"), 2, message)


# ---- places -------------------------------------------------------------------------------------------------------


def test_an_output_folder_that_holds_a_model(tiny, toy_model, toy_file):
  out, _ = toy_model
  before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
  done = run_script("train.py", *base(tiny), "--dataset_name", toy_file, "--output_dir", out)
  told(done, 2, f"{out} already holds a model (config.json)")
  assert "--resume_from_checkpoint" in done.stderr and "--overwrite_output_dir" in done.stderr
  assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before


@pytest.mark.parametrize(
  ("place", "message"),
  [
    ("{file}/out", "cannot write to {place}: Not a directory"),
    ("{file}", "{place} is a file, not a folder"),
    ("/proc/model", "cannot write to {place}: No such file or directory"),  # root cannot write there either
  ],
)
def test_an_output_folder_that_cannot_be_written(place, message, tiny, toy_file):
  place = place.format(file=toy_file)
  done = run_script("train.py", *base(tiny), "--dataset_name", toy_file, "--output_dir", place)
  told(done, 2, message.format(place=place))


@pytest.mark.parametrize("script", ["check_data.py", "score.py", "evaluate.py"])
def test_an_output_file_that_cannot_be_written(script, toy_file, tmp_path):
  arguments = [word.format(tmp=tmp_path) for word in ASK[script]]
  for place in ("/proc/rows.jsonl", "/proc/none/rows.jsonl"):
    told(
      run_script(script, *arguments, toy_file, "--output", place),
      2,
      f"cannot write {place}: No such file or directory",
    )
  told(run_script(script, *arguments, toy_file, "--output", toy_file), 2, f"{toy_file} exists already")
  told(run_script(script, *arguments, toy_file, "--output", tmp_path), 2, f"{tmp_path} is a folder, not a file")


@pytest.fixture
def small_disk(tmp_path):
  """small_disk(kilobytes) -> a folder on a file system of that size."""
  mounted = []

  def mount(kilobytes: int) -> Path:
    place = tmp_path / f"disk{kilobytes}"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", place]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
      pytest.skip("a small tmpfs cannot be mounted here (it needs root)")
    mounted.append(place)
    return place

  yield mount
  for place in mounted:
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_fills_up_while_a_checkpoint_is_written(small_disk, tiny, toy_file):
  # The weights fit and the optimizer's state does not; torch says then "PytorchStreamWriter failed writing file".
  out = small_disk(240) / "out"
  done = run_script("train.py", *base(tiny), "--dataset_name", toy_file, "--output_dir", out, *QUICK)
  told(done, 5, "the disk is full")
  # TRL writes a README.md before the checkpoint.
  assert {file.name for file in out.iterdir()} <= {"run.json", "README.md"}, "something half-written was left"


@pytest.mark.parametrize("kilobytes", [60, 124])  # in the middle of the weights; after them
def test_a_disk_that_fills_up_while_the_model_is_saved(kilobytes, small_disk, tiny, toy_file):
  out = small_disk(kilobytes) / "out"
  done = train(tiny("qwen2"), toy_file, out, "--max_steps", "1", "--save_strategy", "no")
  told(done, 5, "the disk is full")
  assert [file.name for file in out.iterdir()] == ["run.json"], "something half-written was left"


def test_a_disk_that_fills_up_while_rows_are_written(small_disk, toy_model, toy_file, asked_with):
  place = small_disk(8)
  told(asked_with("score.py", toy_model[0], "--output", place / "s.jsonl"), 5, "the disk is full")
  told(asked_with("evaluate.py", toy_model[0], "--output", place / "e.jsonl"), 5, "the disk is full")
  checked = run_script("check_data.py", toy_file, "--output", place / "c.jsonl")
  told(checked, 5, "the disk is full")
  assert not list(place.iterdir()), "something half-written was left"


# ---- streams ------------------------------------------------------------------------------------------------------


def test_stdout_that_nobody_reads(toy_model, toy_file):
  command = [sys.executable, SCRIPTS / "score.py", "--model_name_or_path", toy_model[0], "--input", toy_file]
  run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  run.stdout.close()  # as `| head -c 1` does when it has its character
  said = run.stderr.read()
  run.stderr.close()
  assert run.wait(120) == 5
  assert "Traceback" not in said and "Exception ignored" not in said and "error:" not in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_stdout_that_is_full():
  with open("/dev/full", "w") as full:
    command = [sys.executable, SCRIPTS / "check_data.py", "--list_formats"]
    done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
  assert done.returncode == 5
  assert done.stderr.endswith(
    "error: the disk is full\n\nhint: free some space (or raise the limit: a quota, `ulimit -f`), then run again\n"
  )


@pytest.mark.parametrize(
  ("closed", "code", "said"),
  [(">&-", 5, "error: stdout is closed: there is nowhere to write the result"), ("2>&-", 0, "")],
)
def test_closed_streams(closed, code, said):
  command = f"'{sys.executable}' '{SCRIPTS / 'check_data.py'}' --list_formats {closed}"
  done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
  assert (done.returncode, "Traceback" in done.stderr) == (code, False)
  assert said in done.stderr and bool(done.stdout) == (code == 0)


def test_a_log_on_a_full_disk_and_a_lost_folder_end_with_the_documented_code(tmp_path):
  script, python = SCRIPTS / "check_data.py", sys.executable
  full = subprocess.run(["bash", "-c", f"{python} {script} --bad 2>/dev/full"])
  assert full.returncode == 2
  gone = f"mkdir {tmp_path}/g && cd {tmp_path}/g && rmdir {tmp_path}/g && {python} {script} --list_formats"
  done = subprocess.run(["bash", "-c", gone], capture_output=True, text=True)
  told(done, 2, "the folder that this was started in is gone")


@pytest.mark.parametrize(
  ("error", "message"),
  [
    (ImportError("libtorch_cpu.so: failed to map segment from shared object", name="_C"), "out of memory: "),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "out of memory: "),
    (OSError(12, "Cannot allocate memory"), "out of memory: "),
    (OSError(27, "File too large"), "the disk is full"),
    (RuntimeError("Failed to import x because of the following error:\ncause"), "RuntimeError: Failed to import x"),
  ],
)
def test_what_machines_run_out_of(error, message):
  from reward_modeling.program import known_run_error

  told_as = known_run_error(error)
  assert (told_as.exit_code, told_as.message[: len(message)]) == (5, message)
  assert "following error" not in told_as.message or told_as.message.endswith("cause")
