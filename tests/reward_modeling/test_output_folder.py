"""What a run may write and delete in its output folder: its own names, alone, and with one way on after every kill."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import SCRIPTS
from reward_modeling import output_folder
from reward_modeling.errors import RunError, UsageError
from reward_modeling.output_folder import claim, is_complete_checkpoint, staged
from reward_modeling.training.resuming import damaged, resume_point, seal, start_run

IDENTITY = {"fingerprint": "f", "seed": "1"}
FOREIGN = (
  *("adapter_model.safetensors", "adapter_config.json", "model.safetensors", "pytorch_model.bin", "config.json"),
  *("tokenizer.json", "my_token_counts.json", "chat_template.jinja", "adapter/weights.safetensors", "README.md"),
  *("checkpoint-500/model.safetensors", "run.json", "log.jsonl"),
)


def fill(folder: Path, *names: str, text: str = "{}") -> Path:
  for name in names:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
  return folder


def names(folder: Path) -> set[str]:
  return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def saved(folder: Path, *files: str, text: str = "new") -> Path:
  with staged(folder) as staging:
    fill(staging, *files, text=text)
  return folder


def checkpoint(folder: Path, step: int, *, sealed: bool = True, end: int = 30) -> Path:
  made = fill(folder / f"checkpoint-{step}", "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")
  fill(made, "trainer_state.json", text=json.dumps({"global_step": step, "max_steps": end}))
  if sealed:
    seal(made)
  return made


@pytest.fixture
def out(tmp_path):
  return tmp_path / "out"


# ---- nothing of others --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOREIGN)
def test_a_folder_with_files_of_another_model_is_refused_with_overwriting_too(name, out):
  fill(out, name)
  for how in ({}, {"overwrite": True}, {"resuming": True}):
    with pytest.raises(UsageError) as refused:
      claim(out, **how)
    assert name.split("/")[0] in refused.value.render() and "--output_dir" in refused.value.hint
    assert names(out) == {name}


@pytest.mark.parametrize("name", ["notes.txt", "results/table.csv", "train.py", "data.jsonl"])
def test_other_files_are_refused_and_stay_when_overwriting_is_asked_for(name, out):
  fill(out, name)
  with pytest.raises(UsageError, match=f"that no run of these scripts wrote: {name.split('/')[0]}$") as refused:
    claim(out)
  assert "--overwrite_output_dir" in refused.value.hint
  held = claim(out, overwrite=True)
  start_run(held, 0, IDENTITY, None)
  saved(held, "config.json", "model.safetensors")
  assert names(out) == {name, "config.json", "model.safetensors", "run.json"}


def test_the_first_few_foreign_names_are_told(out):
  fill(out, *(f"{i}.txt" for i in range(8)))
  with pytest.raises(UsageError, match=r"wrote: 0\.txt, 1\.txt, 2\.txt, 3\.txt, 4\.txt and 3 more"):
    claim(out)


def test_hidden_files_and_the_file_that_the_log_goes_to_are_no_reason(out):
  fill(out, ".gitkeep")
  code = f"from reward_modeling.output_folder import claim; claim({str(out)!r})"
  with open(out / "log.txt", "w") as log:
    done = subprocess.run([sys.executable, "-c", code], stderr=log, cwd=SCRIPTS)
  assert done.returncode == 0, (out / "log.txt").read_text()


def test_overwriting_replaces_exactly_the_model_before(out):
  claim(out)
  start_run(out, 0, IDENTITY, None)
  saved(
    out,
    "config.json",
    "model-00001-of-00002.safetensors",
    "model.safetensors.index.json",
    "adapter/a.json",
    "x.txt",
  )
  checkpoint(out, 900)
  fill(out, "model-notes.txt", "log.jsonl", "runs/events")
  with pytest.raises(UsageError, match=r"already holds a model \(config\.json\)"):
    claim(out)
  held = claim(out, overwrite=True)
  start_run(held, 0, {**IDENTITY, "seed": "2"}, None)
  assert (out / "config.json").read_text() == "new" and not (out / "checkpoint-900").exists()
  saved(held, "config.json", "model.safetensors", text="newer")
  assert names(out) == {"config.json", "model.safetensors", "run.json", "model-notes.txt", "runs/events"}
  assert json.loads((out / "run.json").read_text())["files"] == ["config.json", "model.safetensors"]


def test_a_model_of_an_older_version_is_known_by_its_names(out):
  fill(out, "model.safetensors", "tokenizer.json", "adapter/adapter_model.safetensors", "README.md", "config.json")
  fill(out, "reward_model.json", "run.json", text=json.dumps(IDENTITY))
  fill(out, "model.txt", "checkpoint-10/trainer_state.json")
  held = claim(out, overwrite=True)
  start_run(held, 0, IDENTITY, None)
  saved(held, "config.json")
  assert names(out) == {"config.json", "run.json", "README.md", "model.txt"}


@pytest.mark.parametrize("read", ["", "base", "data/pairs.jsonl", "link"])
def test_an_output_folder_that_holds_what_is_read_is_refused(read, out):
  fill(out, "base/config.json", "data/pairs.jsonl")
  (out / "link").symlink_to("base")
  with pytest.raises(UsageError, match="holds what the run reads"):
    claim(out, overwrite=True, inputs=("some/hub-id", str(out / read)))
  with pytest.raises(UsageError, match="holds what the run reads"):
    (out.parent / "alias").symlink_to(out)
    claim(out.parent / "alias", overwrite=True, inputs=[str(out / read)])
  claim(out / "base" / "new", inputs=[str(out / read)]) if read != "" else None


def test_a_link_to_a_folder_is_followed(out, tmp_path):
  out.symlink_to(tmp_path / "disk" / "run")
  held = claim(out)
  start_run(held, 0, IDENTITY, None)
  saved(held, "config.json")
  assert out.is_symlink() and names(tmp_path / "disk" / "run") == {"config.json", "run.json"}


# ---- alone --------------------------------------------------------------------------------------------------------

HOLD = "import sys; from reward_modeling.output_folder import claim; held = claim(sys.argv[1]); print('held', flush=True); sys.stdin.read()"


def test_two_runs_in_one_folder(out):
  other = subprocess.Popen(
    [sys.executable, "-c", HOLD, out], cwd=SCRIPTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
  )
  assert other.stdout.readline() == "held\n"
  for how in ({}, {"overwrite": True}, {"resuming": True}):
    with pytest.raises(UsageError, match=f"another run is writing to {out}"):
      claim(out, **how)
  claim(out, dry_run=True)
  other.kill()  # nothing is left that could block the next run
  other.communicate()
  held = claim(out)
  with pytest.raises(UsageError):
    claim(out)
  del held
  claim(out)


def test_processes_of_one_run_share_it(out, monkeypatch):
  held = claim(out)
  monkeypatch.setenv("RANK", "1")
  assert claim(out) == held


def test_a_file_system_without_locks_is_a_warning(out, monkeypatch, capsys):
  import fcntl

  def refuse(*arguments):
    raise OSError(37, "No locks available")

  monkeypatch.setattr(fcntl, "flock", refuse)
  claim(out)
  assert "cannot be locked (No locks available)" in capsys.readouterr().err


# ---- after a kill -------------------------------------------------------------------------------------------------


def test_what_killed_runs_left_is_swept_and_what_others_write_is_not(out):
  ours = (".model.partial/a", ".checkpoint.partial/b", ".run.json.17.partial")
  others = (".other.partial", ".theirs.17.partial", ".cache/x")
  fill(out, *ours, ".run.json.partial", *others)
  claim(out)
  assert names(out) == set(others)


@pytest.mark.parametrize("resume", [None, True])
def test_a_run_killed_in_its_first_checkpoint_starts_anew_with_and_without_resuming(resume, out, capsys):
  held = claim(out)
  start_run(held, 0, IDENTITY, None)
  fill(out, "checkpoint-10/model.safetensors", "README.md", ".model.partial/x")
  del held
  held = claim(out, resuming=bool(resume))
  assert "started anew" in capsys.readouterr().err
  assert resume_point(resume, out) is None
  start_run(held, 0, {**IDENTITY, "seed": "2"}, None)
  assert names(out) == {"run.json", "README.md"}


def test_killed_while_the_model_moves_into_place(out, monkeypatch):
  held = claim(out)
  start_run(held, 0, IDENTITY, None)
  replace = Path.replace

  def killed(self, target):
    if self.name == "model.safetensors":
      raise KeyboardInterrupt
    return replace(self, target)

  monkeypatch.setattr(Path, "replace", killed)
  with pytest.raises(KeyboardInterrupt):
    saved(held, "a.json", "model.safetensors", "config.json")
  monkeypatch.undo()
  del held
  assert names(out) == {"a.json", "run.json"}
  held = claim(out)
  start_run(held, 0, IDENTITY, None)
  saved(held, "config.json")
  assert names(out) == {"config.json", "run.json"}


def test_a_run_that_replaces_a_model_can_be_resumed_until_its_own_is_saved(out):
  start_run(claim(out), 0, IDENTITY, None)
  saved(out, "config.json")
  checkpoint(out, 30)
  with pytest.raises(UsageError, match="is finished: its model was saved after 30 steps"):
    resume_point(True, out)
  start_run(claim(out, overwrite=True), 0, IDENTITY, None)
  last = checkpoint(out, 30)
  assert resume_point(True, out) == str(last), "the model that is there is the one before"


def test_a_finished_run_without_checkpoints_is_not_started_anew(out):
  start_run(claim(out), 0, IDENTITY, None)
  saved(out, "config.json")
  with pytest.raises(UsageError, match="is finished"):
    resume_point(True, out)


# ---- damage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  "name",
  ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "checkpoint.json"],
)
def test_a_damaged_checkpoint_is_named_with_the_way_on(name, out):
  start_run(claim(out), 0, IDENTITY, None)
  before, newest = checkpoint(out, 10), checkpoint(out, 20)
  assert resume_point(True, out) == str(newest) and damaged(newest) is None
  (newest / name).write_bytes(bytes([7]) + (newest / name).read_bytes()[1:])
  if name == "trainer_state.json":  # as of a run killed before it was written
    assert resume_point(True, out) == str(before)
    for file in before.iterdir():
      file.unlink()
    before.rmdir()
    with pytest.raises(RunError, match=f"damaged: {name}"):
      resume_point(True, out)
    return
  for resume in (True, str(newest)):
    with pytest.raises(RunError, match=f"the checkpoint is damaged: {name}") as refused:
      resume_point(resume, out)
    assert refused.value.where == str(newest / name)
    assert refused.value.hint.endswith(f"--resume_from_checkpoint {before}")
  (before / "optimizer.pt").write_text("x")
  with pytest.raises(RunError, match="damaged") as refused:
    resume_point(True, out)
  assert "--overwrite_output_dir" in refused.value.hint


def test_a_checkpoint_of_an_older_version_has_no_seal(out):
  folder = checkpoint(out, 10, sealed=False)
  assert is_complete_checkpoint(folder) and damaged(folder) is None
  (folder / "trainer_state.json").write_text('{"global')
  assert not is_complete_checkpoint(folder)


def test_a_checkpoint_killed_before_its_seal_gets_one_when_the_run_goes_on(out):
  start_run(claim(out), 0, IDENTITY, None)
  folder = checkpoint(out, 10, sealed=False)
  fill(out, "checkpoint-20/model.safetensors")
  start_run(claim(out, resuming=True), 0, IDENTITY, resume_point(True, out))
  assert (folder / "checkpoint.json").exists() and not (out / "checkpoint-20").exists()
  assert damaged(folder) is None


def test_a_checkpoint_of_two_processes_holds_the_state_of_both(out):
  start_run(out, 0, {**IDENTITY, "world_size": "2"}, None)
  folder = fill(checkpoint(out, 10, sealed=False), "rng_state_0.pth")
  assert not is_complete_checkpoint(folder)
  assert is_complete_checkpoint(fill(folder, "rng_state_1.pth"))


def test_a_library_call_deletes_no_checkpoints_of_others(out):
  checkpoint(out, 500, sealed=False)
  start_run(out, 0, IDENTITY, None)
  assert (out / "checkpoint-500" / "model.safetensors").exists()


def test_the_half_written_last_line_of_a_killed_run_is_no_obstacle(out):
  from reward_modeling.training.reinforcement import RunLog, entries_until

  log = fill(out, "log.jsonl", text='{"step": 1}\n{"step": 2, "kl": NaN}\n{"step": 3}\n{"ste') / "log.jsonl"
  resumed = RunLog(log, entries_until(log, 2), write=True)
  resumed.add({"step": 3, "kl": float("inf")})
  assert log.read_text() == '{"step": 1}\n{"step": 2, "kl": null}\n{"step": 3, "kl": null}\n'


def test_a_checkpoint_half_deleted_is_not_complete(out):
  folder = checkpoint(out, 10)
  (folder / "optimizer.pt").unlink()
  assert not is_complete_checkpoint(folder)
  output_folder.discard_checkpoints(out, only_incomplete=True)
  assert not folder.exists()
