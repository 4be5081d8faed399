"""train.py as a user runs it: what it learns, what it says, and what is left when it is stopped, killed or misled."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from conftest import QUICK, run_main, run_script, start_script, tensorboard_scalars, toy_pairs, write_jsonl
from reward_modeling import terminal
from reward_modeling.output_folder import SEAL, TRAINED_ON, is_complete_checkpoint

SHORT = ("--learning_rate", "3e-3", "--max_steps", "3", "--save_strategy", "no", "--per_device_train_batch_size", "8")


def train(*arguments):
  """In this process, on the tiny Qwen2; `told` gives the lines on stderr."""
  return run_main("train.py", *arguments)


def command(model, data, out, *more) -> list[str]:
  words = ["--model_name_or_path", model, "--dataset_name", data, "--output_dir", out, *more]
  return [str(word) for word in words]


def scores(model: Path, data: Path) -> list[float]:
  done = run_main("score.py", "--model_name_or_path", model, "--input", data)
  assert done.returncode == 0, done.stderr
  return [reward for row in done.json["rows"] for reward in row["rewards"]]


def assert_quiet(stderr: str) -> None:
  """No bars redrawn where there is no terminal, no warnings that the user can do nothing about."""
  for noise in ("\r", "it/s]", "FutureWarning", "DeprecationWarning", "UserWarning", "Traceback"):
    assert noise not in stderr


# ---- stopped, killed, resumed -------------------------------------------------------------------------------------


def stop_after_first_checkpoint(arguments: list[str], out: Path, how: signal.Signals):
  """Start train.py, send it this signal once checkpoint-10 is complete. Returns (exit code, stdout, stderr)."""
  process = start_script("train.py", *arguments)
  try:
    while not is_complete_checkpoint(out / "checkpoint-10"):
      assert process.poll() is None, process.communicate()
      time.sleep(0.005)
    process.send_signal(how)
    stdout, stderr = process.communicate()
    return process.returncode, stdout, stderr
  finally:
    process.kill()


UNHURRIED = ("--eval_steps", "1", "--save_total_limit", "9")
"""Changes nothing that is learnt, and leaves time to stop the run between two checkpoints on a busy machine."""


@pytest.fixture(scope="module")
def killed(tiny, toy_file, toy_model, tmp_path_factory) -> Path:
  """The output folder of the run of `toy_model`, killed in the middle, its newest checkpoint half-written."""
  out = tmp_path_factory.mktemp("killed") / "out"
  arguments = command(tiny("qwen2"), toy_file, out, *QUICK, *UNHURRIED)
  code, stdout, _ = stop_after_first_checkpoint(arguments, out, signal.SIGKILL)
  assert (code, stdout) == (-signal.SIGKILL, "")
  assert not (out / "config.json").exists(), "a run that was killed must not look finished"
  for step in (20, 25):  # whatever came after checkpoint-10 is half-written, if only by this test
    half = out / f"checkpoint-{step}"
    if not half.exists():
      shutil.copytree(out / "checkpoint-10", half)
    (half / "trainer_state.json").unlink(missing_ok=True)
    (half / SEAL).unlink(missing_ok=True)
  (half / "trainer_state.json").write_text('{"global_step": 2')
  return out


def test_a_checkpoint_knows_its_prompts_wherever_it_is(toy_file, toy_model, tmp_path):
  moved = shutil.copytree(toy_model[0] / "checkpoint-20", tmp_path / "moved")
  assert (moved / TRAINED_ON).read_text() == (toy_model[0] / TRAINED_ON).read_text()
  found = run_main("evaluate.py", "--model_name_or_path", moved, "--dataset_name", toy_file).json
  held_out = toy_model[1]["evaluation"]["n_prompts"]
  assert found["prompts_trained_on"] == found["n_prompts"] - held_out > 0
  (moved / TRAINED_ON).unlink()
  again = run_main("evaluate.py", "--model_name_or_path", moved, "--dataset_name", toy_file).json
  assert again["prompts_trained_on"] is None, "unknown, and not that it was none"


def test_resuming_another_run_is_refused(killed, tiny, toy_file, tmp_path):
  resume = (*QUICK, *UNHURRIED, "--resume_from_checkpoint")
  other_rate = train(*command(tiny("qwen2"), toy_file, killed, *resume, "--learning_rate", "2e-3"))
  assert other_rate.returncode == 5
  assert "error: cannot resume: learning_rate (0.003 -> 0.002)" in other_rate.stderr.splitlines()
  assert f"  --> {killed / 'run.json'}" in other_rate.stderr.splitlines()
  data = write_jsonl(tmp_path / "other.jsonl", toy_pairs(96, seed=1))
  other_data = train(*command(tiny("qwen2"), data, killed, *resume, "--label_smoothing", "0.1", "--use_peft"))
  assert other_data.returncode == 5
  changed = next(line for line in other_data.stderr.splitlines() if line.startswith("error: cannot resume: "))
  for name in ("data_sha256 (", "label_smoothing (0.0 -> 0.1)", "lora (None -> [16, 32, 0.0, 'all-linear'])"):
    assert name in changed
  assert "learning_rate" not in changed


def test_a_killed_run_resumes_to_the_scores_of_an_undisturbed_one(killed, tiny, toy_file, toy_model):
  done = run_script(
    "train.py", *command(tiny("qwen2"), toy_file, killed, *QUICK, *UNHURRIED, "--resume_from_checkpoint")
  )
  assert done.returncode == 0, done.stderr
  assert done.json["resumed_from"] == str(killed / "checkpoint-10"), "half-written checkpoints are passed over"
  assert_quiet(done.stderr)
  assert f"continuing from {killed / 'checkpoint-10'}" in done.stderr
  assert scores(killed, toy_file) == pytest.approx(scores(toy_model[0], toy_file), abs=1e-6)
  undisturbed = json.loads((toy_model[0] / "reward_model.json").read_text())["training"]
  first_ten = next(entry["loss"] for entry in undisturbed["log"] if entry.get("step") == 10 and "loss" in entry)
  after = (undisturbed["steps"] * undisturbed["train_loss"] - 10 * first_ten) / (undisturbed["steps"] - 10)
  assert done.json["training"]["train_loss"] == pytest.approx(after, abs=1e-3), "of the steps since the checkpoint"


def test_a_lora_run_resumes_with_its_dropout(tiny, toy_file, tmp_path):
  steps = (
    *SHORT,
    "--max_steps",
    "6",
    "--save_strategy",
    "steps",
    "--save_steps",
    "3",
    "--use_peft",
    "--lora_dropout",
    "0.2",
  )
  whole, half = tmp_path / "whole", tmp_path / "half"
  assert train(*command(tiny("qwen2"), toy_file, whole, *steps)).returncode == 0
  shutil.copytree(whole / "checkpoint-3", half / "checkpoint-3")
  shutil.copy(whole / "run.json", half)
  done = train(*command(tiny("qwen2"), toy_file, half, *steps, "--resume_from_checkpoint"))
  assert done.returncode == 0, done.stderr
  assert done.json["resumed_from"] == str(half / "checkpoint-3") and (half / "adapter").is_dir()
  assert scores(half, toy_file) == pytest.approx(scores(whole, toy_file), abs=1e-6)
  plain = tmp_path / "plain"
  assert train(*command(tiny("qwen2"), toy_file, plain, *steps, "--lora_dropout", "0")).returncode == 0
  assert scores(plain, toy_file) != pytest.approx(scores(whole, toy_file), abs=1e-5), "it drops nothing"


def test_what_is_scored_before_its_run_is_finished_is_told(toy_file, toy_model, tmp_path):
  folder, _ = toy_model
  unfinished, checkpoint = tmp_path / "killed", tmp_path / "killed" / "checkpoint-3"
  shutil.copytree(folder, checkpoint)
  (checkpoint / "reward_model.json").unlink()
  (checkpoint / "trainer_state.json").write_text("{}")
  done = run_main("score.py", "--model_name_or_path", unfinished, "--input", toy_file)
  assert done.returncode == 4 and "--resume_from_checkpoint" in done.stderr
  done = run_main("score.py", "--model_name_or_path", checkpoint, "--input", toy_file)
  assert done.returncode == 0 and any("this is a checkpoint" in note for note in done.json["notes"]), done.stderr


def test_a_run_killed_before_it_deleted_an_old_checkpoint_deletes_it_when_resumed(tiny, toy_file, tmp_path):
  steps = (
    "--num_train_epochs",
    "1",
    "--per_device_train_batch_size",
    "32",
    "--save_steps",
    "1",
    "--save_total_limit",
  )
  whole, killed = tmp_path / "whole", tmp_path / "killed"
  assert train(*command(tiny("qwen2"), toy_file, whole, *steps, "9")).returncode == 0
  written = sorted(path.name for path in whole.glob("checkpoint-*"))
  assert len(written) > 2
  for name in written:  # no step is left that would save, and delete
    shutil.copytree(whole / name, killed / name)
  shutil.copy(whole / "run.json", killed)
  done = train(*command(tiny("qwen2"), toy_file, killed, *steps, "2", "--resume_from_checkpoint"))
  assert done.returncode == 0, done.stderr
  assert sorted(path.name for path in killed.glob("checkpoint-*")) == written[-2:]
  assert scores(killed, toy_file) == scores(whole, toy_file)


@pytest.mark.parametrize(
  ("more", "steps", "every"),
  [
    (("--max_steps", "10"), 10, 3),
    (("--num_train_epochs", "3", "--per_device_train_batch_size", "32"), 9, 3),
    (("--max_steps", "10", "--save_steps", "7"), 10, 7),
    (("--max_steps", "4000"), 4000, 500),
  ],
)
def test_a_short_run_is_saved_at_each_quarter(tiny, toy_file, tmp_path, more, steps, every):
  dry = train(*command(tiny("qwen2"), toy_file, tmp_path / "out", *more, "--dry_run")).json["settings"]
  assert (dry["optimizer_steps"], dry["save_steps"]) == (steps, every)
  if every == 3:
    done = train(*command(tiny("qwen2"), toy_file, tmp_path / "out", *more, "--save_total_limit", "9"))
    assert done.returncode == 0, done.stderr
    written = {int(path.name.rpartition("-")[2]) for path in (tmp_path / "out").glob("checkpoint-*")}
    assert written == {*range(3, steps + 1, 3), steps}


@pytest.mark.parametrize(
  "more",
  [(), ("--val_set_size=0.25", "--eval_steps=1", "--load_best_model_at_end", "--greater_is_better=true")],
  ids=["last", "another"],  # the model that is kept; "best" is here the one of the largest loss, the first
)
def test_a_run_killed_after_its_last_step_in_mid_epoch_trains_no_step_more(more, tiny, toy_file, tmp_path):
  steps = (*SHORT, "--max_steps", "5", "--save_strategy", "steps", "--save_steps", "1", "--save_total_limit", "9")
  whole, killed = tmp_path / "whole", tmp_path / "killed"
  done = train(*command(tiny("qwen2"), toy_file, whole, *steps, *more))
  assert done.returncode == 0, done.stderr
  shutil.copytree(whole / "checkpoint-5", killed / "checkpoint-5")
  shutil.copy(whole / "run.json", killed)
  state = json.loads((killed / "checkpoint-5" / "trainer_state.json").read_text())
  assert 0 < state["epoch"] < 1, "an epoch has more steps"
  assert not more or state["best_model_checkpoint"] == str(whole / "checkpoint-1")
  done = train(*command(tiny("qwen2"), toy_file, killed, *steps, *more, "--resume_from_checkpoint"))
  assert done.returncode == 0, done.stderr
  assert done.json["training"]["steps"] == 5
  assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_damaged_checkpoints_end_the_run_and_name_the_one_before(tiny, toy_file, tmp_path):
  """Those of older versions have no seal: what torch says of a broken file is told without its advice."""
  steps = (*SHORT, "--max_steps", "3", "--save_strategy", "steps", "--save_steps", "1", "--save_total_limit", "9")
  whole = tmp_path / "whole"
  assert train(*command(tiny("qwen2"), toy_file, whole, *steps)).returncode == 0
  for name, sealed in (
    ("optimizer.pt", True),
    ("optimizer.pt", False),
    ("rng_state.pth", False),
    ("scheduler.pt", False),
  ):
    out = tmp_path / f"{name}-{sealed}"
    for step in (1, 2):
      shutil.copytree(whole / f"checkpoint-{step}", out / f"checkpoint-{step}")
    shutil.copy(whole / "run.json", out)
    newest = out / "checkpoint-2"
    (newest / name).write_bytes(b"\x80" + bytes(range(256)))
    if not sealed:
      (newest / SEAL).unlink()
    done = train(*command(tiny("qwen2"), toy_file, out, *steps, "--resume_from_checkpoint"))
    assert done.returncode == 5, (name, done.stderr)
    said = (
      f"the checkpoint is damaged: {name} is not as it was written" if sealed else "the checkpoint cannot be read ("
    )
    assert f"error: {said}" in done.stderr and "weights_only" not in done.stderr
    assert done.stderr.endswith(
      f"hint: continue from the one before: --resume_from_checkpoint {out / 'checkpoint-1'}\n"
    )


def test_resuming_from_nothing_is_refused(tiny, toy_file, tmp_path):
  done = train(*command(tiny("qwen2"), toy_file, tmp_path, *QUICK, "--resume_from_checkpoint"))
  assert done.returncode == 2
  assert f"error: {tmp_path} holds no complete checkpoint to resume from" in done.stderr.splitlines()
  named = tmp_path / "checkpoint-7"
  named.mkdir()  # killed before anything was in it
  done = train(*command(tiny("qwen2"), toy_file, tmp_path, *QUICK, "--resume_from_checkpoint", named))
  assert done.returncode == 2
  assert f"error: {named} is not a complete checkpoint" in done.stderr.splitlines()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm(how, tiny, toy_file, tmp_path):
  out = tmp_path / "out"
  arguments = command(tiny("qwen2"), toy_file, out, *QUICK, "--max_steps", "2000")
  code, stdout, stderr = stop_after_first_checkpoint(arguments, out, how)
  assert (code, stdout) == (130, "")
  assert stderr.splitlines()[-1] == "interrupted: nothing half-written was kept"
  assert_quiet(stderr)
  for folder in out.glob("checkpoint-*"):
    json.loads((folder / "trainer_state.json").read_text())
  left = {file.name for file in out.iterdir() if not file.name.startswith("checkpoint-")}
  assert left <= {"run.json", "README.md"}


def test_an_interruption_that_a_library_swallowed_comes_again_at_the_next_step(
  tiny, toy_file, toy_model, tmp_path, monkeypatch
):
  monkeypatch.setattr(terminal, "interrupted", [signal.SIGINT])
  with pytest.raises(KeyboardInterrupt):
    train(*command(tiny("qwen2"), toy_file, tmp_path / "out", *QUICK))
  assert not list((tmp_path / "out").glob("checkpoint-*"))
  with pytest.raises(KeyboardInterrupt):
    scores(toy_model[0], toy_file)


def test_a_loss_that_is_no_number_ends_the_run_at_its_step(tiny, toy_file, tmp_path):
  done = train(*command(tiny("qwen2"), toy_file, tmp_path, *SHORT, "--max_steps", "9", "--learning_rate", "1e30"))
  assert done.returncode == 5
  assert "error: the loss became nan at step 3" in done.stderr.splitlines(), done.stderr
  assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_a_failed_run_leaves_the_model_it_was_to_replace(tiny, toy_file, toy_model, tmp_path):
  out = tmp_path / "model"
  shutil.copytree(toy_model[0], out)
  arguments = command(tiny("qwen2"), toy_file, out, *SHORT, "--learning_rate", "1e30", "--overwrite_output_dir")
  assert train(*arguments).returncode == 5
  assert scores(out, toy_file) == scores(toy_model[0], toy_file)


def test_overwriting_leaves_nothing_of_the_model_before(tiny, toy_file, toy_model, tmp_path):
  out = tmp_path / "model"
  shutil.copytree(toy_model[0], out)
  of_before = ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "adapter")
  for name in of_before:
    (out / name).mkdir() if name == "adapter" else (out / name).write_text("of the model before")
  record = json.loads((out / "run.json").read_text())
  (out / "run.json").write_text(json.dumps({**record, "files": [*record["files"], *of_before]}))
  (out / "notes.txt").write_text("not of a model")
  shutil.copytree(out / "checkpoint-25", out / "checkpoint-900")  # a longer run, which could be resumed by mistake
  done = train(*command(tiny("qwen2"), toy_file, out, *SHORT, "--overwrite_output_dir"))
  assert done.returncode == 0, done.stderr
  left = {file.name for file in out.iterdir()}
  assert {file for file in left if "checkpoint" in file or "0000" in file or "index" in file} == set()
  assert "adapter" not in left and "notes.txt" in left and "model.safetensors" in left
  assert scores(out, toy_file) != scores(toy_model[0], toy_file)


# ---- what it learns -----------------------------------------------------------------------------------------------


def test_the_result_says_what_was_done(toy_model):
  out, result = toy_model
  assert result["output_dir"] == str(out) and result["format"] == "explicit" and result["head"] == "new"
  pairs = result["counts"]["pairs"]
  assert pairs == result["counts"]["pairs_used"] and 60 < pairs < 84, "about three quarters are for training"
  evaluation = result["evaluation"]
  assert evaluation["n_pairs"] == 96 - pairs and evaluation["accuracy"]["value"] > 0.9
  assert result["training"]["steps"] == 25 and result["reload_difference"] < 1e-5
  assert result["reward"]["n"] == 2 * evaluation["n_pairs"] and result["reward"]["from"] == "held-out pairs"
  card = json.loads((out / "reward_model.json").read_text())
  assert card["fingerprint"] == result["fingerprint"] and card["reward"] == result["reward"]


def test_lora_trains_the_head_and_the_merged_model_scores_as_the_adapter_does(tiny, toy_file, tmp_path):
  import torch
  from peft import PeftModel
  from transformers import AutoModelForSequenceClassification, AutoTokenizer

  from reward_modeling import checkpoints
  from reward_modeling.rendering import Renderer

  done = train(*command(tiny("qwen2"), toy_file, tmp_path, *SHORT, "--use_peft", "--lora_r", "4"))
  assert done.returncode == 0, done.stderr
  fresh = checkpoints.load_for_training(str(tiny("qwen2")), seed=42)
  before = fresh.model.score.weight.clone()
  merged = AutoModelForSequenceClassification.from_pretrained(tmp_path)
  assert not torch.allclose(before, merged.score.weight, atol=1e-5), "the head was not trained"
  query = "model.layers.0.self_attn.q_proj.weight"
  assert not torch.equal(fresh.model.get_parameter(query), merged.get_parameter(query)), "the adapter was not merged"
  renderer = Renderer(AutoTokenizer.from_pretrained(tmp_path), max_length=None)
  adapted = PeftModel.from_pretrained(fresh.model, tmp_path / "adapter")
  saved = json.loads((tmp_path / "reward_model.json").read_text())["golden"]
  assert checkpoints.golden_scores(adapted, renderer) == pytest.approx([row["score"] for row in saved], abs=1e-4)
  assert checkpoints.golden_scores(merged, renderer) == pytest.approx([row["score"] for row in saved], abs=1e-4)


def test_a_trained_head_is_kept(toy_model, toy_file, tmp_path):
  arguments = command(toy_model[0], toy_file, tmp_path, *SHORT, "--learning_rate", "1e-12")
  done = train(*arguments)
  assert done.returncode == 0, done.stderr
  assert done.json["head"] == "loaded" and "head: loaded" in done.stderr.splitlines()
  assert scores(tmp_path, toy_file) == pytest.approx(scores(toy_model[0], toy_file), abs=1e-5)


def test_other_evaluation_data_every_few_steps(tiny, toy_file, tmp_path):
  held_out = write_jsonl(tmp_path / "held_out.jsonl", toy_pairs(7, seed=5))
  more = ("--eval_dataset_name", held_out, "--eval_steps", "2", "--max_steps", "4", "--logging_steps", "1")
  done = train(*command(tiny("qwen2"), toy_file, tmp_path / "out", *SHORT, *more))
  assert done.returncode == 0, done.stderr
  evaluated = [line.split()[1] for line in done.stderr.splitlines() if "eval_loss" in line]
  assert evaluated == ["2/4", "4/4"]
  assert done.json["evaluation"]["n_pairs"] == 7 and done.json["counts"]["pairs"] == 96
  nothing = train(*command(tiny("qwen2"), toy_file, tmp_path / "other", *SHORT, "--eval_steps", "2"))
  assert nothing.returncode == 2
  assert "error: --eval_steps needs something to evaluate on" in nothing.stderr.splitlines()


def test_a_split_that_a_file_does_not_have_is_not_the_training_rows_again(tiny, toy_file, tmp_path):
  done = train(*command(tiny("qwen2"), toy_file, tmp_path / "out", "--dataset_test_split", "validation"))
  assert done.returncode == 2, done.stderr
  assert "has no split validation: these are the rows to train on" in done.stderr and "--val_set_size" in done.stderr


def test_tensorboard_gets_the_losses(tiny, toy_file, tmp_path):
  words = ("--max_steps", 4, "--logging_steps", 1, "--report_to", "tensorboard")
  done = train(
    "--model_name_or_path", tiny("qwen2"), "--dataset_name", toy_file, "--output_dir", tmp_path / "out", *words
  )
  assert done.returncode == 0, done.stderr
  losses = tensorboard_scalars(tmp_path / "out")["train/loss"]
  assert list(losses) == [1, 2, 3, 4]
  assert sum(losses.values()) / 4 == pytest.approx(done.json["training"]["train_loss"], abs=2e-4)


def test_dry_run_shows_the_settings_and_writes_nothing(tiny, toy_file, tmp_path):
  recipe = tmp_path / "recipe.yaml"
  recipe.write_text("weight_decay: 0.3\nlearning_rate: 1e-3\nlogging_steps: 5\n")
  more = ("--config", recipe, "--weight_decay", "0.1", "--lr_scheduler_type", "linear", "--dry_run")
  out = tmp_path / "out"
  done = train(*command(tiny("qwen2"), toy_file, out, *more))
  assert done.returncode == 0, done.stderr
  settings = done.json["settings"]
  assert done.json["dry_run"] is True and not list(out.iterdir())
  assert settings["weight_decay"] == 0.1, "the flag wins over the recipe, and reaches the trainer"
  assert (settings["learning_rate"], settings["logging_steps"]) == (1e-3, 5)
  assert settings["lr_scheduler_type"] == "linear"
  assert (settings["per_device_train_batch_size"], settings["num_train_epochs"]) == (8, 2), "defaults for under 1B"
  assert settings["optimizer_steps"] == 2 * 96 / 8 and settings["lora"] is None
  lora = train(*command(tiny("qwen2"), toy_file, out, "--use_peft", "--lora_r", "4", "--dry_run")).json["settings"]
  assert lora["lora"] == {"r": 4, "alpha": 32, "dropout": 0.0, "target_modules": "all-linear"}


def test_rows_that_cannot_be_read_stop_the_run_or_are_left_out_and_counted(tiny, tmp_path):
  rows = toy_pairs(24)
  del rows[3]["rejected"]
  data = write_jsonl(tmp_path / "rows.jsonl", rows)
  asked = (*command(tiny("qwen2"), data, tmp_path / "out"), "--dry_run")
  stopped = train(*asked)
  assert stopped.returncode == 3 and f"{data}:4" in stopped.stderr
  done = train(*asked, "--audit", "drop")
  assert done.returncode == 0, done.stderr
  assert done.json["set_aside"] == {"unreadable": 1} and done.json["counts"]["pairs"] == 23
  assert done.json["audit"][0]["rows"] == [f"{data}:4"]


@pytest.mark.parametrize("kind", ["pairs", "answers", "solutions", "steps"])
@pytest.mark.parametrize("long", [1, 3])
def test_what_is_over_the_longest_length_is_a_warning_and_where_it_is_much_a_diagnostic(kind, long, tiny, tmp_path):
  """1 of 20 is not more than 5 %; 3 of 20 and of 40 steps are."""
  rows, script, more = [], "train.py", ()
  for place in range(20):
    answer = "thank you " * (60 if place < long else 1)
    if kind == "pairs":
      rows.append({"prompt": f"hello {place}", "chosen": answer, "rejected": "no"})
    elif kind == "answers":
      rows.append({"prompt": f"hello {place}", "completion": answer, "ratings": {"polite": place % 3}})
      more = ("--objective", "regression")
    else:
      rows.append({"prompt": f"hello {place}", "completions": ["yes", answer], "labels": [True, False]})
      script, more = "train_process.py", ("--overlong", "drop" if kind == "solutions" else "drop_steps")
  data = write_jsonl(tmp_path / "rows.jsonl", rows)
  asked = ("--max_length", "64", "--dry_run", "--audit", "warn", *more)
  done = run_main(script, *command(tiny("qwen2"), data, tmp_path / "out", *asked))
  assert done.returncode == 0, done.stderr
  total = 40 if kind == "steps" else 20
  (said,) = [line for line in done.stderr.splitlines() if "are not learned from" in line]
  assert f"warning: {long} of {total} {kind} ({long / total:.1%}) are not learned from: longer than 64 tokens" in said
  assert "Raise --max_length (the model reads 128)" in said
  assert done.json["diagnostics"] == ([said.removeprefix("warning: ")] if long / total > 0.05 else [])


def test_many_cut_sides_are_a_warning(tiny, tmp_path):
  rows = [{**row, "prompt": "hello world " * 40} for row in toy_pairs(12)]
  data = write_jsonl(tmp_path / "rows.jsonl", rows)
  done = train(*command(tiny("qwen2"), data, tmp_path / "out", "--max_length", "64", "--dry_run"))
  assert done.returncode == 0, done.stderr
  assert "warning: 24 of 24 sides are cut to 64 tokens" in done.stderr and done.json["diagnostics"] == []
  rated = [{"prompt": row["prompt"], "completion": "yes", "ratings": {"a": i}} for i, row in enumerate(rows)]
  data = write_jsonl(tmp_path / "rated.jsonl", rated)
  asked = ("--max_length", "64", "--dry_run", "--objective", "regression")
  done = train(*command(tiny("qwen2"), data, tmp_path / "out", *asked))
  assert "warning: 12 of 12 answers are cut to 64 tokens" in done.stderr, done.stderr


@pytest.mark.parametrize("script", ["train.py", "train_process.py", "grpo.py"])
def test_what_the_trainer_refuses_is_refused_before_data_is_read(script, tiny, toy_model, tmp_path):
  more = {
    "grpo.py": ("--reward_model_path", toy_model[0], "--num_generations", 3),
    "train.py": ("--val_set_size", 0.1, "--load_best_model_at_end", "true", "--save_strategy", "steps"),
  }
  more["train_process.py"] = more["train.py"]
  words = (
    "--model_name_or_path",
    tiny("qwen2"),
    "--dataset_name",
    "/nowhere.jsonl",
    "--output_dir",
    tmp_path / "out",
  )
  done = run_main(script, *words, *more[script], "--dry_run")
  assert done.returncode == 2 and "error: the trainer refuses these settings: " in done.stderr, done.stderr


@pytest.mark.parametrize(
  ("more", "message"),
  [
    (("--weight_decay", "abc"), "argument --weight_decay/--weight-decay: invalid float value: 'abc'"),
    (("--pad_token", "<pad>"), "unknown flag --pad_token"),
    (("--label_smoothing_factor", "0.1"), "unknown flag --label_smoothing_factor"),
    (("--eval_strategy", "steps"), "--eval_strategy needs something to evaluate on"),
    (("--lr_scheduler_type", "magic"), "argument --lr_scheduler_type/--lr-scheduler-type: invalid choice: 'magic'"),
  ],
)
def test_refused_trainer_fields(more, message, tiny, toy_file, tmp_path):
  done = train(*command(tiny("qwen2"), toy_file, tmp_path, *more))
  assert done.returncode == 2
  first = next(line for line in done.stderr.splitlines() if line.startswith("error:"))
  assert first.startswith(f"error: {message}")


def test_rankings_train_all_their_pairs(tiny, tmp_path):
  def ranking(pair: dict) -> dict:
    answers = [pair["chosen"][0]["content"], pair["rejected"][0]["content"], "maybe " * 3, "maybe"]
    return {"prompt": pair["prompt"][0]["content"], "completions": answers, "scores": [3, 1, 2, 2]}

  data = write_jsonl(tmp_path / "rankings.jsonl", [ranking(pair) for pair in toy_pairs(12)])
  done = train(*command(tiny("qwen2"), data, tmp_path / "out", *SHORT))
  assert done.returncode == 0, done.stderr
  assert done.json["format"] == "ranking"
  assert done.json["counts"]["pairs_used"] == 12 * 5, "six pairs each, one of them of equal scores"
  assert "training: 60 pairs in 12 rows, 1 process(es)" in done.stderr.splitlines()


def test_margins_change_the_loss_unless_told_otherwise(tiny, tmp_path):
  data = write_jsonl(tmp_path / "margins.jsonl", [{**pair, "margin": 2.0} for pair in toy_pairs(24)])
  plain = write_jsonl(tmp_path / "plain.jsonl", toy_pairs(24))

  def loss(file, *more):
    done = train(*command(tiny("qwen2"), file, tmp_path / "out", *SHORT, "--overwrite_output_dir", *more))
    assert done.returncode == 0, done.stderr
    return done.json["training"]["train_loss"]

  without = loss(plain)
  assert loss(data) > without + 0.3
  assert loss(data, "--use_margin", "false") == pytest.approx(without, abs=1e-6)


def test_rows_with_errors_stop_the_run_or_are_left_out_and_counted(tiny, tmp_path):
  rows = toy_pairs(48)
  for i in range(6, 48, 6):
    rows[i]["rejected"] = rows[i]["chosen"]
  data = write_jsonl(tmp_path / "rows.jsonl", rows)
  split = ("--val_set_size", "0.5")  # the audit looks at the held-out half too
  stopped = train(*command(tiny("qwen2"), data, tmp_path / "out", *SHORT, *split))
  assert stopped.returncode == 3
  said = stopped.stderr.splitlines()
  line = next(i for i, text in enumerate(said) if text.startswith("error:"))
  assert said[line] == "error: 7 of 48 pairs have identical chosen and rejected answers"
  assert said[line + 1] == "  --> " + ", ".join(f"{data}:{row}" for row in (7, 13, 19, 25, 31))
  done = train(*command(tiny("qwen2"), data, tmp_path / "out", *SHORT, *split, "--audit", "drop"))
  assert done.returncode == 0, done.stderr
  assert "warning: left out 7 of 48 pairs with errors" in done.stderr.splitlines()
  assert done.json["left_out"] == 7 and done.json["counts"]["pairs"] + done.json["evaluation"]["n_pairs"] == 41
  warned = train(*command(tiny("qwen2"), data, tmp_path / "kept", *SHORT, "--audit", "warn"))
  assert warned.json["left_out"] == 0 and warned.json["counts"]["identical_after_truncation"] == 7


def test_a_finished_run_is_not_resumed_over_its_model(tiny, toy_file, toy_model):
  """Its newest checkpoint is its end: one step more, at learning rate zero, would only replace the saved model."""
  out, _ = toy_model
  before = (out / "model.safetensors").read_bytes()
  flags = ("--model_name_or_path", tiny("qwen2"), "--dataset_name", toy_file, "--output_dir", out, *QUICK)
  done = run_main("train.py", *flags, "--resume_from_checkpoint")
  assert done.returncode == 2
  assert f"error: the run in {out} is finished: its model was saved after 25 steps" in done.stderr
  assert f"--model_name_or_path {out} --output_dir NEW" in done.stderr
  assert (out / "model.safetensors").read_bytes() == before


def test_lora_flags_without_lora_are_refused(tiny, toy_file, tmp_path):
  flags = ("--model_name_or_path", tiny("qwen2"), "--dataset_name", toy_file, "--output_dir", tmp_path / "out")
  done = run_main("train.py", *flags, "--lora_r", "8")
  assert done.returncode == 2 and "error: --lora_r does nothing without --use_peft" in done.stderr
