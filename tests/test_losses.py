"""Whatever has no score, or a score of a part, is told on stderr: how many, of how many, and what to do."""

import pytest

from conftest import process_model, run_main, write_jsonl
from reward_modeling import RewardModel
from reward_modeling.ensemble import Rewards

LONG = "apples " * 60


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
  """A reward model with random weights that was trained at 40 of its 128 tokens."""
  from reward_modeling import checkpoints
  from reward_modeling.rendering import Renderer

  loaded = checkpoints.load_for_training(str(tiny("qwen2")))
  folder = tmp_path_factory.mktemp("model") / "rm"
  renderer = Renderer(loaded.tokenizer, max_length=40)
  checkpoints.save(loaded.model.eval(), renderer, folder, training={}, reward={"mean": 0.0, "std": 1.0, "n": 1})
  return folder


def told(done) -> str:
  assert done.returncode == 0, done.stderr
  return " ".join(done.stderr.split())


UNSCORED = "of 4 completions are unscored: longer than 40 tokens under --overlong truncate_prompt. Raise --max_length"


@pytest.mark.parametrize("way", [("--best_of", "2"), ("--rank",), ()])
def test_a_prompt_that_lost_candidates_is_told(way, model, tmp_path):
  rows = [{"prompt": "hello", "completions": ["no", LONG]}, {"prompt": "hello", "completions": ["yes", "no"]}]
  done = run_main(
    "score.py", "--model_name_or_path", model, "--input", write_jsonl(tmp_path / "rows.jsonl", rows), *way
  )
  said = told(done)
  assert f"warning: 1 {UNSCORED} (the model reads 128), or choose --overlong truncate_left" in said
  assert ("1 of 2 prompts lost candidates" in said) == bool(way) and ("rows.jsonl:1" in said) == bool(way)
  assert (done.json["not_scored"], done.json["prompts_with_unscored"], done.json["truncated"]) == (1, 1, 0)


def test_cut_prompts_are_told_and_nothing_is_where_all_fits(model, tmp_path):
  words = ("--model_name_or_path", model, "--completions", "no", "yes", "--prompt")
  done = run_main("score.py", *words, LONG)
  assert "2 of 2 completions are scored with their start cut off: longer than 40 tokens" in told(done)
  assert done.json["truncated"] == 2
  done = run_main("score.py", *words, "hello")
  assert "warning" not in told(done) and done.json["prompts_with_unscored"] == done.json["not_rendered"] == 0


def test_evaluation_tells_what_it_could_not_score(model, tmp_path):
  rows = [{"prompt": "hello", "chosen": "yes", "rejected": "no"}, {"prompt": LONG, "chosen": "red", "rejected": LONG}]
  data = write_jsonl(tmp_path / "pairs.jsonl", rows)
  done = run_main("evaluate.py", "--model_name_or_path", model, "--dataset_name", data)
  said = told(done)
  assert f"1 {UNSCORED}" in said and "1 of 4 completions are scored with their start cut off" in said
  assert (done.json["not_scored"], done.json["truncated"], done.json["not_rendered"]) == (1, 1, 0)
  pools = [{"prompt": "hello", "completions": ["yes", LONG], "scores": [1, 0]}] * 2
  data = write_jsonl(tmp_path / "pools.jsonl", pools)
  done = run_main("evaluate.py", "--model_name_or_path", model, "--dataset_name", data, "--best_of_n", "1", "2")
  assert "of 2 completions are unscored" in told(done)


def test_python_callers_are_told_once_a_call(model, capsys):
  one = RewardModel.from_pretrained(str(model))
  for _ in range(2):
    capsys.readouterr()
    assert one.score(["hello"], [["no", LONG]])[0][1] is None
    assert " ".join(capsys.readouterr().err.split()).count("warning: 1 of 2 completions are unscored") == 1
  one.score(["hello"], ["no"])
  assert "warning" not in capsys.readouterr().err


def test_a_run_is_told_at_the_first_loss_of_a_kind_and_at_its_end(model, capsys):
  rewards = Rewards.from_pretrained(str(model))
  prompts, answers = [[{"role": "user", "content": "hello"}]], [[{"role": "assistant", "content": LONG}]]
  capsys.readouterr()
  for _ in range(3):
    rewards(prompts, answers)
  assert capsys.readouterr().err.count("start cut off") == 1
  rewards.warn_of_losses()
  assert "3 of 3 completions are scored" in " ".join(capsys.readouterr().err.split())


def test_steps_that_did_not_fit_are_told(capsys):
  made = process_model("qwen2", max_length=30)
  assert made.score_steps(["hello"], [["one two", LONG]])[0][1] is None
  said = " ".join(capsys.readouterr().err.split())
  assert "1 steps at the end of 1 solutions are unscored: longer than 30 tokens" in said
