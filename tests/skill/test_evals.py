"""The tasks for agents can be solved with the scripts, and the grader tells a good folder from a bad one."""

import json
import shutil
import subprocess
import sys

import pytest

from conftest import REPOSITORY, run_main, write_jsonl

sys.path.insert(0, str(REPOSITORY / "tests" / "skill"))
from grade import ASSERTIONS, EVALS, NOT_CHECKS, grade, prepare, task_called, tasks

from generate import SKILL

GRADER = REPOSITORY / "tests" / "skill" / "grade.py"
OLD_PPO = "examples/scripts/ppo/ppo.py"


def script(folder, name, *words, to=None, code=0):
  """Run a script with paths of the task's folder, as {…} in the words, and keep its JSON under `to`."""
  done = run_main(name, *(str(word).format(folder) for word in words))
  assert done.returncode == code, done.stderr
  if to:
    (folder / to).write_text(json.dumps(done.json), encoding="utf-8")
  return done


def say(folder, name, text):
  (folder / name).write_text(text, encoding="utf-8")


def convert_transcripts(folder):
  dropping = ("--drop", "identical", "empty_answer", "duplicate", "leaked_turn")
  done = script(folder, "check_data.py", "{0}/transcripts.jsonl", *dropping, "--output", "{0}/canonical.jsonl")
  found = [f"- {f['check']}, {', '.join(f['rows'])}: {f['message']}" for f in done.json["findings"]]
  say(folder, "problems.md", "\n".join(found))


def rename_columns(folder):
  columns = ("--columns", "prompt=question,chosen=good,rejected=bad,system=context")
  script(folder, "check_data.py", "{0}/preferences.csv", *columns, "--output", "{0}/canonical.jsonl")


def count_ties(folder):
  script(folder, "check_data.py", "{0}/judgements.jsonl", to="report.json")


def find_the_broken_row(folder):
  done = script(folder, "check_data.py", "{0}/pairs.jsonl", code=3)
  say(folder, "answer.md", done.stderr)


def length_bias(folder):
  done = script(folder, "check_data.py", "{0}/pairs.jsonl", to="report.json")
  finding = next(f for f in done.json["findings"] if f["check"] == "longer_chosen")
  say(folder, "answer.md", f"{finding['message']}. {finding['advice']}")


def explain_constant_scores(folder):
  text = (SKILL / "references" / "troubleshooting.md").read_text(encoding="utf-8")
  say(folder, "answer.md", text.split("## Explain why everything scores 1.0")[1].split("\n## ")[0])


def translate_axolotl(folder):
  say(
    folder,
    "command.sh",
    "uv run scripts/train.py --model_name_or_path Qwen/Qwen2.5-0.5B-Instruct --dataset_name pairs.jsonl --val_set_size 0.1 "
    "--max_length 768 --per_device_train_batch_size 4 --gradient_accumulation_steps 8 --num_train_epochs 1 "
    "--optim adamw_torch --lr_scheduler_type linear --learning_rate 3e-5 --center_rewards_coefficient 0.01 "
    "--use_peft --lora_r 8 --lora_alpha 16 --output_dir out/rm",
  )


def overoptimized(folder):
  done = script(folder, "evaluate.py", "--overoptimization", "{0}/points.jsonl", to="report.json")
  say(folder, "answer.md", " ".join(done.json["diagnostics"]) + f" Keep KL {done.json['studies'][0]['best']['kl']}.")


SOLUTIONS = {
  "convert-transcripts": convert_transcripts,
  "rename-columns": rename_columns,
  "count-ties": count_ties,
  "find-the-broken-row": find_the_broken_row,
  "length-bias": length_bias,
  "explain-constant-scores": explain_constant_scores,
  "translate-axolotl": translate_axolotl,
  "overoptimized": overoptimized,
}
"""How a task that needs no model is solved with the scripts; the others are solved with a small world below."""

BAD = {
  "convert-transcripts": lambda folder: shutil.copy(folder / "transcripts.jsonl", folder / "canonical.jsonl"),
  "rename-columns": lambda folder: script(
    folder,
    "check_data.py",
    "{0}/preferences.csv",
    "--columns",
    "prompt=question,chosen=good,rejected=bad,context=",
    "--output",
    "{0}/canonical.jsonl",
    "--overwrite",
  ),
  "count-ties": lambda folder: say(folder, "report.json", '{"comparisons": 8, "format": "pairwise", "set_aside": {}}'),
  "find-the-broken-row": lambda folder: say(folder, "pairs.jsonl", ""),
  "length-bias": lambda folder: say(folder, "answer.md", "Yes, 1.0 is as good as it gets."),
  "explain-constant-scores": lambda folder: say(folder, "answer.md", "The model is broken, train it again."),
  "translate-axolotl": lambda folder: say(folder, "command.sh", "uv run scripts/train.py --sequence_len 768"),
  "overoptimized": lambda folder: say(folder, "report.json", '{"studies": [{"overoptimized": false}]}'),
}
"""What spoils a good folder."""


@pytest.mark.parametrize("name", SOLUTIONS)
def test_a_solved_task_passes_an_empty_folder_and_a_spoilt_one_fail(name, tmp_path):
  task, folder = task_called(name), tmp_path / "work"
  prepare(task, folder)
  assert grade(task, folder)["passed"] < len(task["assertions"])
  SOLUTIONS[name](folder)
  assert [result for result in grade(task, folder)["assertions"] if not result["passed"]] == []
  BAD[name](folder)
  assert grade(task, folder)["passed"] < len(task["assertions"])


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny, toy_model):
  """What the quickstart leaves, in small: an untrained base model, a reward model of toys, data of the sandbox."""
  from reward_modeling import sandbox
  from reward_modeling.data.writing import to_row

  folder = tmp_path_factory.mktemp("world")
  rows = {
    "train": [to_row(row) for row in sandbox.make_comparisons(64, 0)],
    "completions": [to_row(row) for row in sandbox.make_completions(50, 8, 0)],
    "prompts": [{"prompt": asked.messages} for asked in sandbox.make_questions(8, 0)],
  }
  for name, of in rows.items():
    write_jsonl(folder / f"{name}.jsonl", of)
  shutil.copytree(tiny("qwen2"), folder / "base_model")
  shutil.copytree(toy_model[0], folder / "reward_model")
  return folder


def lora_dry_run(folder):
  words = ("--config", "assets/recipes/llama3.2-1b-lora.yaml", "--model_name_or_path", "{0}/world/base_model")
  data = (
    "--dataset_name",
    "{0}/world/train.jsonl",
    "--output_dir",
    "{0}/runs/lora",
    "--max_length",
    128,
    "--dry_run",
  )
  script(folder, "train.py", *words, *data, to="plan.json")


def keep_the_best(folder):
  words = ("--model_name_or_path", "{0}/world/reward_model", "--input", "{0}/world/completions.jsonl")
  script(folder, "score.py", *words, "--best_of", 8, "--output", "{0}/best.jsonl")
  script(folder, "score.py", *words, "--rank", "--output", "{0}/ranked.jsonl")


def old_ppo_command(folder):
  command = (folder / "run.sh").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()[-1]
  words = command.split(OLD_PPO)[1].split()
  placed = [f"{{0}}/{word}" if word.startswith("world/") or word == "policy" else word for word in words]
  script(folder, "ppo.py", *placed)


def judge_a_process_model(folder):
  words = (
    "--model_name_or_path",
    "{0}/world/base_model",
    "--dataset_name",
    "{0}/steps.jsonl",
    "--output_dir",
    "{0}/prm",
  )
  script(folder, "train_process.py", *words, "--max_steps", 3)
  judged = ("--model_name_or_path", "{0}/prm", "--dataset_name", "{0}/held_out.jsonl")
  done = script(folder, "evaluate.py", *judged, "--threshold_data", "{0}/steps.jsonl", to="report.json")
  baseline = done.json["baselines"]["all_correct"]["processbench_f1"]
  say(folder, "answer.md", f"{done.json['processbench_f1']} against {baseline} for calling every step correct")


def best_of_n_curve(folder):
  words = ("--model_name_or_path", "{0}/world/reward_model", "--dataset_name", "{0}/pools.jsonl")
  script(folder, "evaluate.py", *words, "--best_of_n", 1, 2, 4, to="report.json")


WITH_A_MODEL = {
  "lora-dry-run": lora_dry_run,
  "keep-the-best": keep_the_best,
  "old-ppo-command": old_ppo_command,
  "judge-a-process-model": judge_a_process_model,
  "best-of-n-curve": best_of_n_curve,
}


@pytest.mark.parametrize("name", WITH_A_MODEL)
def test_a_task_with_a_model_can_be_solved(name, world, tmp_path):
  task = task_called(name)
  prepare(task, tmp_path)
  (tmp_path / "world").symlink_to(world)
  assert grade(task, tmp_path)["passed"] < len(task["assertions"])
  WITH_A_MODEL[name](tmp_path)
  assert [result for result in grade(task, tmp_path)["assertions"] if not result["passed"]] == []


def test_the_grader_exits_with_1_where_something_fails_and_with_0_where_nothing_does(tmp_path):
  def run(*words):
    return subprocess.run([sys.executable, GRADER, *map(str, words)], capture_output=True, text=True)

  task = ("--task", "explain-constant-scores")
  assert json.loads(run(*task, "--prepare", tmp_path).stdout)["run_first"] is None
  failed = run(*task, "--output", tmp_path)
  assert failed.returncode == 1 and json.loads(failed.stdout)["assertions"][0]["why"] == "there is no answer.md"
  explain_constant_scores(tmp_path)
  assert run(*task, "--output", tmp_path).returncode == 0
  assert run("--task", "no-such-task", "--output", tmp_path).returncode == 2


def test_the_tasks_have_the_form_that_skill_creator_reads():
  document = json.loads(EVALS.read_text(encoding="utf-8"))
  assert document["skill_name"] == SKILL.name
  assert [task["id"] for task in tasks()] == list(range(1, len(tasks()) + 1)) and len(tasks()) >= 12
  assert len({task["name"] for task in tasks()}) == len(tasks())
  for task in tasks():
    assert {"prompt", "expected_output", "files", "assertions"} <= set(task)
    assert task["files"] == list(task["inputs"])
    for assertion in task["assertions"]:
      assert assertion["text"] and ("file" in assertion) != ("absent" in assertion)
      assert set(assertion) <= NOT_CHECKS | set(ASSERTIONS)
  assert {task["name"] for task in tasks()} == {*SOLUTIONS, *WITH_A_MODEL, "train-and-judge"}


def test_the_trigger_queries():
  queries = json.loads((EVALS.parent / "triggers.json").read_text(encoding="utf-8"))
  assert len(queries) == 20 == len({query["query"] for query in queries})
  assert all(set(query) == {"query", "should_trigger"} for query in queries)
  assert 8 <= sum(query["should_trigger"] for query in queries) <= 12
