"""train_process.py as its users run it."""

import json
import random
import shutil
import signal
import time

import pytest

from conftest import run_main, run_script, save_tiny, start_script, write_jsonl

WORDS = ["apples", "basket", "red", "blue", "green", "one", "two", "three", "four", "five", "six", "world"]
QUICK = ("--learning_rate", "3e-3", "--max_steps", "25", "--val_set_size", "0.25", "--save_steps", "10")


def toy_steps(n: int, seed: int = 0) -> list[dict]:
  """Solutions whose correct steps are polite: easy enough for a tiny model to learn in a few steps."""
  rng = random.Random(seed)
  rows = []
  for i in range(n):
    labels = [rng.random() < 0.6 for _ in range(rng.randint(1, 5))]
    steps = [f"{'thank you' if good else 'no'} {' '.join(rng.choices(WORDS, k=rng.randint(1, 4)))}" for good in labels]
    rows.append({"id": f"s{i}", "prompt": f"hello {i} {rng.choice(WORDS)}", "completions": steps, "labels": labels})
  return rows


@pytest.fixture(scope="module")
def toy_steps_file(tmp_path_factory):
  return write_jsonl(tmp_path_factory.mktemp("steps") / "steps.jsonl", toy_steps(96))


def flags(model, data, out, *more):
  return ("--model_name_or_path", model, "--dataset_name", data, "--output_dir", out, *more)


@pytest.fixture(scope="module")
def trained(tiny, toy_steps_file, tmp_path_factory):
  out = tmp_path_factory.mktemp("prm") / "out"
  done = run_script("train_process.py", *flags(tiny("qwen2"), toy_steps_file, out, *QUICK, "--show_labels", "1"))
  assert done.returncode == 0, done.stderr
  return out, done


def test_it_learns_and_judges_beside_the_baselines(trained):
  out, done = trained
  evaluation = done.json["evaluation"]
  assert evaluation["auroc"]["value"] > 0.9 and evaluation["step_accuracy"]["value"] > 0.8
  assert evaluation["threshold"]["chosen_on"].startswith("halves of the prompts")
  assert evaluation["baselines"]["all_correct"]["step_accuracy"]["value"] < 0.75
  card = json.loads((out / "reward_model.json").read_text())
  assert card["kind"] == "process" and card["rendering"]["step_separator"] == "\n"
  assert card["reload_difference"] <= 1e-5 and 0 < card["reward"]["mean"] < 1
  assert "label 1 at token" in done.stderr or "label 0 at token" in done.stderr


def test_the_threshold_of_the_run_flags_steps_of_new_solutions(trained, tmp_path):
  out, done = trained
  saved = json.loads((out / "reward_model.json").read_text())["reward"]["threshold"]
  assert saved == done.json["reward"]["threshold"] == done.json["evaluation"]["threshold"]["best"]
  rows = [
    {"prompt": row["prompt"], "completions": [row["completions"], row["completions"][:1]]} for row in toy_steps(6)
  ]
  words = ("--model_name_or_path", out, "--input", write_jsonl(tmp_path / "new.jsonl", rows))
  for more, threshold in (((), saved), (("--threshold", "0.999"), 0.999)):
    found = run_main("score.py", *words, *more).json
    for row in found["rows"]:
      under = [[i for i, reward in enumerate(own) if reward < threshold] for own in row["step_rewards"]]
      assert row["first_flagged"] == [(places or [-1])[0] for places in under]
    flagged = sum(place >= 0 for row in found["rows"] for place in row["first_flagged"])
    assert (found["threshold"], found["solutions_flagged"]) == (threshold, flagged)
  assert "notes" not in found
  outside = run_main("score.py", *words, "--threshold", "1.5")
  assert outside.returncode == 2 and "step scores of this model lie between 0 and 1" in outside.stderr
  few = [row for row in toy_steps(9) if all(row["labels"])][:1]
  words = ("--model_name_or_path", out, "--dataset_name", write_jsonl(tmp_path / "few.jsonl", few))
  found = run_main("evaluate.py", *words).json
  assert found["threshold"]["values"] == [saved] and found["threshold"]["chosen_on"].startswith(
    "that of the training run"
  )
  assert any(found["threshold"]["chosen_on"] in line for line in found["diagnostics"])


def test_flags_of_a_model_that_was_at_chance_come_with_a_caveat(trained, tmp_path):
  """Its own file has the low end of the AUROC; with one at 0.5 the log, the table and the JSON say what flags are worth."""
  blind = shutil.copytree(trained[0], tmp_path / "blind")
  card = json.loads((blind / "reward_model.json").read_text())
  assert card["reward"]["auroc_low"] == trained[1].json["evaluation"]["auroc"]["low"] > 0.5
  card["reward"]["auroc_low"] = 0.43
  (blind / "reward_model.json").write_text(json.dumps(card))
  words = ("--prompt", "hello", "--completions", "one two\nthree four")
  done = run_script("score.py", "--model_name_or_path", blind, *words)
  assert any("flags may be chance" in note for note in done.json["notes"])
  assert "warning: flags may be chance: training did not show" in done.stderr
  assert "first" in done.stderr and "flagged" in done.stderr
  card["reward"]["auroc_low"] = "low"
  (blind / "reward_model.json").write_text(json.dumps(card))
  assert run_main("score.py", "--model_name_or_path", blind, *words).returncode == 4


def test_without_a_threshold_nothing_is_flagged_and_what_was_not_scored_is_not_called_right(
  toy_process_model, toy_model, tmp_path
):
  steps = ["one two three " * 4] * 20
  file = write_jsonl(
    tmp_path / "long.jsonl", [{"prompt": "hello", "steps": steps}, {"prompt": "hello", "steps": steps[:1]}]
  )
  words = ("--model_name_or_path", toy_process_model, "--input", file)
  plain = run_main("score.py", *words).json
  assert "threshold" not in plain and "first_flagged" not in plain["rows"][0]
  long, short = run_main("score.py", *words, "--threshold", "0").json["rows"]
  assert None in long["step_rewards"] and (long["first_flagged"], short["first_flagged"]) == (None, -1)
  refused = run_main(
    "score.py", "--model_name_or_path", toy_model[0], "--prompt", "hello", "--completions", "no", "--threshold", "0.5"
  )
  assert refused.returncode == 2 and "--threshold is for one process reward model" in refused.stderr


def test_the_saved_model_is_a_plain_token_classifier(trained):
  """By the README beside the weights: transformers alone gives the scores that the card holds."""
  import torch
  from transformers import AutoModelForTokenClassification, AutoTokenizer

  out = trained[0]
  model, tokenizer = AutoModelForTokenClassification.from_pretrained(out).eval(), AutoTokenizer.from_pretrained(out)
  card = json.loads((out / "reward_model.json").read_text())
  assert model.config.id2label == {0: "INCORRECT", 1: "CORRECT"} and tokenizer.pad_token != tokenizer.eos_token
  for row in card["golden"]:
    text = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    for step, score in zip(row["steps"], row["score"], strict=True):
      ids += tokenizer(step, add_special_tokens=False)["input_ids"] + card["rendering"]["separator_ids"]
      with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1]
      assert logits.softmax(-1)[1].item() == pytest.approx(score, abs=1e-5)


def test_each_kind_of_model_is_named_where_the_other_is_wanted(trained, toy_model, toy_steps_file, tmp_path):
  from reward_modeling import checkpoints
  from reward_modeling.errors import ModelError

  with pytest.raises(ModelError, match=r"is an outcome reward model .*: it scores whole answers, not steps") as raised:
    checkpoints.load(str(toy_model[0]), kind=checkpoints.PROCESS)
  assert raised.value.hint.startswith("give a process reward model (train_process.py makes one)")
  with pytest.raises(ModelError, match=r"is a process reward model .*: it scores steps, not whole answers"):
    checkpoints.load(str(trained[0]))
  done = run_main("train_process.py", *flags(toy_model[0], toy_steps_file, tmp_path / "x"))
  assert done.returncode == 4 and "it scores whole answers, not steps" in done.stderr
  assert checkpoints.kind_of(str(trained[0])).name == "process"


def test_a_foreign_token_classifier_loads_with_a_note(tiny, tmp_path):
  from transformers import AutoModelForTokenClassification, AutoTokenizer

  from reward_modeling import checkpoints

  model = AutoModelForTokenClassification.from_pretrained(tiny("qwen2"), num_labels=2)
  model.save_pretrained(tmp_path)
  AutoTokenizer.from_pretrained(tiny("qwen2")).save_pretrained(tmp_path)
  loaded = checkpoints.load(str(tmp_path), kind=checkpoints.PROCESS)
  assert loaded.card is None and "no reward_model.json" in loaded.notes[0]


def test_a_changed_separator_is_refused(trained, tmp_path):
  from reward_modeling import checkpoints
  from reward_modeling.errors import ModelError

  folder = shutil.copytree(trained[0], tmp_path / "changed")
  card = json.loads((folder / "reward_model.json").read_text())
  card["rendering"]["step_separator"] = " ###"
  (folder / "reward_model.json").write_text(json.dumps(card))
  with pytest.raises(ModelError, match="renders text otherwise"):
    checkpoints.load(str(folder), kind=checkpoints.PROCESS)


def test_a_killed_run_resumes_to_the_same_model(trained, tiny, toy_steps_file, tmp_path):
  from reward_modeling.output_folder import is_complete_checkpoint

  out = tmp_path / "out"
  arguments = flags(tiny("qwen2"), toy_steps_file, out, *QUICK, "--eval_steps", "1", "--save_total_limit", "9")
  process = start_script("train_process.py", *arguments)
  try:
    while not is_complete_checkpoint(out / "checkpoint-10"):
      assert process.poll() is None, process.communicate()
      time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
  finally:
    process.kill()
  assert not (out / "config.json").exists()
  done = run_main("train_process.py", *arguments, "--resume_from_checkpoint")
  assert done.returncode == 0, done.stderr
  golden = [json.loads((folder / "reward_model.json").read_text())["golden"] for folder in (out, trained[0])]
  for again, before in zip(*golden, strict=True):
    assert again["score"] == pytest.approx(before["score"], abs=1e-6)
  other = run_main("train_process.py", *arguments, "--resume_from_checkpoint", "--class_weighting", "balanced")
  assert other.returncode in (2, 5)


def test_lora_and_an_encoder(tiny, toy_steps_file, tmp_path):
  short = ("--max_steps", "2", "--save_strategy", "no", "--steps_per_solution", "1")
  lora = run_main("train_process.py", *flags(tiny("qwen2"), toy_steps_file, tmp_path / "a", *short, "--use_peft"))
  assert lora.returncode == 0 and (tmp_path / "a" / "adapter").is_dir()
  encoder = run_main("train_process.py", *flags(tiny("bert"), toy_steps_file, tmp_path / "b", *short))
  assert encoder.returncode == 0 and encoder.json["step_separator"] == "[SEP]"
  assert encoder.json["counts"]["rows"] == encoder.json["counts"]["solutions"] == 96


def test_a_dry_run_shows_the_labels_and_trains_nothing(tiny, toy_steps_file, tmp_path):
  out = tmp_path / "out"
  done = run_main("train_process.py", *flags(tiny("qwen2"), toy_steps_file, out, "--dry_run", "--show_labels", "3"))
  rows = toy_steps(96)
  assert done.json["dry_run"] and not list(out.iterdir())
  for shown, row in zip(done.json["labels_shown"], rows, strict=False):
    assert [entry["label"] for entry in shown] == row["labels"]
    assert [entry["text"].split("assistant\n")[-1] for entry in shown] == [step + "\n" for step in row["completions"]]


def test_the_separator_is_typed_with_an_escape(tiny, toy_steps_file, tmp_path):
  more = ("--dry_run", "--step_separator", r"\n\n")
  done = run_main("train_process.py", *flags(tiny("qwen2"), toy_steps_file, tmp_path, *more))
  assert done.json["step_separator"] == "\n\n"


BAD_ROWS = {
  "labels shorter": ({"completions": ["a", "b", "c"], "labels": [1, 1]}, "`labels` has 2 entries for 3 steps"),
  "labels longer": ({"completions": ["a"], "labels": [1, 0]}, "`labels` has 2 entries for 1 steps"),
  "empty step": ({"completions": ["a", ""], "labels": [1, 0]}, "step 2 of `completions` is empty"),
  "mixed types": ({"completions": ["a", "b"], "labels": [1, False]}, "`labels` mixes true or false with numbers"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_named(name, tiny, tmp_path):
  row, message = BAD_ROWS[name]
  data = write_jsonl(tmp_path / "rows.jsonl", [*toy_steps(3), {"prompt": "p", **row}])
  done = run_main("train_process.py", *flags(tiny("qwen2"), data, tmp_path / "out"))
  assert done.returncode == 3 and message in done.stderr and "rows.jsonl:4" in done.stderr


def test_a_separator_inside_a_step(tiny, tmp_path):
  data = write_jsonl(
    tmp_path / "rows.jsonl", [*toy_steps(4), {"prompt": "p", "completions": ["a ### b"], "labels": [1]}]
  )
  more = ("--step_separator", " ###", "--dry_run")
  done = run_main("train_process.py", *flags(tiny("qwen2"), data, tmp_path / "out", *more))
  assert done.returncode == 3 and "1 of 5 solutions have a step that holds the step separator" in done.stderr
  assert "rows.jsonl:5" in done.stderr
  dropped = run_main("train_process.py", *flags(tiny("qwen2"), data, tmp_path / "out", *more, "--audit", "drop"))
  assert dropped.json["left_out"] == 1


@pytest.mark.parametrize(
  ("more", "code", "message"),
  [
    (("--lora_r", "4"), 2, "--lora_r does nothing without --use_peft"),
    (("--eval_steps", "5"), 2, "--eval_steps needs something to evaluate on"),
    (("--label_smoothing_factor", "0.1"), 2, "unknown flag --label_smoothing_factor"),
    (("--center_rewards_coefficient", "0.1"), 2, "unknown flag --center_rewards_coefficient"),
    (("--max_length", "4"), 3, "no labeled step is left of 96 solutions"),
  ],
)
def test_flags_that_cannot_be_meant(more, code, message, tiny, toy_steps_file, tmp_path):
  done = run_main("train_process.py", *flags(tiny("qwen2"), toy_steps_file, tmp_path / "out", *more))
  assert done.returncode == code and message in done.stderr


def test_a_classifier_with_other_labels_is_refused(toy_steps_file, tmp_path):
  folder = save_tiny("qwen2", tmp_path / "m", head=2)
  done = run_main("train_process.py", *flags(folder, toy_steps_file, tmp_path / "out"))
  assert done.returncode == 4 and "scores whole answers" in done.stderr
