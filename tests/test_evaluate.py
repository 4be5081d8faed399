"""evaluate.py: its numbers are those that a count over its own --output gives."""

import json
import math

import pytest

from conftest import run_main, run_script, toy_pairs, write_jsonl


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory):
  """Forty pairs the toy model did not see; every fourth is labelled the wrong way round, two are ties of its own."""
  rows = toy_pairs(40, seed=9)
  for i, row in enumerate(rows):
    row["subset"] = "easy" if i < 10 else "hard"
    if i % 4 == 3:
      row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
  return write_jsonl(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", rows)


@pytest.fixture(scope="module")
def judged(toy_model, pairs_file, tmp_path_factory):
  """(the JSON of the script run as a user would, the rows of its --output, its stderr)."""
  out = tmp_path_factory.mktemp("judged") / "rewards.jsonl"
  words = ("--model_name_or_path", toy_model[0], "--dataset_name", pairs_file, "--output", out)
  done = run_script("evaluate.py", *words)
  assert done.returncode == 0, done.stderr
  return done.json, [json.loads(line) for line in out.open()], done.stderr


def test_numbers_agree_with_a_count_over_the_rows(judged, pairs_file):
  result, rows, _ = judged
  margins = [row["reward_chosen"] - row["reward_rejected"] for row in rows]
  right = [margin > 0 for margin in margins]
  assert [row["origin"] for row in rows] == [f"{pairs_file}:{i}" for i in range(1, 41)]
  assert [row["id"] for row in rows] == [f"toy-{i}" for i in range(40)]
  assert result["n_pairs"] == 40 and result["format"] == "explicit"
  assert result["accuracy"]["value"] == pytest.approx(sum(right) / 40)
  assert result["accuracy"]["low"] < sum(right) / 40 < result["accuracy"]["high"]
  assert sum(right) == 30, "the toy model knows its toy world: what is labelled wrongly counts as wrong"
  assert result["log_loss"] == pytest.approx(sum(math.log1p(math.exp(-margin)) for margin in margins) / 40)
  assert result["brier"] == pytest.approx(sum((1 - 1 / (1 + math.exp(-margin))) ** 2 for margin in margins) / 40)
  assert result["margin"]["mean"] == pytest.approx(sum(margins) / 40)
  assert result["ties"] == 0 and result["not_scored"] == 0
  assert result["subsets"]["easy"]["value"] == pytest.approx(sum(right[:10]) / 10)
  assert result["subsets"]["hard"]["value"] == pytest.approx(sum(right[10:]) / 30)
  macro = (sum(right[:10]) / 10 + sum(right[10:]) / 30) / 2
  assert result["macro_accuracy"]["value"] == pytest.approx(macro)


def test_prompts_that_the_model_was_trained_on_are_counted(tiny, tmp_path):
  from reward_modeling import output_folder
  from reward_modeling.evaluation import inputs

  rows = toy_pairs(24, seed=3)
  for i, row in enumerate(rows):
    row["prompt"] = f"Which one is number {i}?"
  files = [write_jsonl(tmp_path / f"{i}.jsonl", part) for i, part in enumerate((rows[:8], rows[8:16], rows[16:]))]
  base, runs = tiny("qwen2"), [tmp_path / "first", tmp_path / "second"]
  for start, data, out in zip((base, runs[0]), files, runs, strict=False):
    words = ("--model_name_or_path", start, "--dataset_name", data, "--output_dir", out, "--val_set_size", "0")
    assert run_main("train.py", *words, "--max_steps", "1", "--save_strategy", "no").returncode == 0
  asked = [{**row, "prompt": f" which ONE is\nnumber {i}?"} for i, row in enumerate(rows)]
  asked = write_jsonl(tmp_path / "asked.jsonl", [*asked, *asked[:2]])
  for out, seen in zip(runs, (8, 16), strict=True):
    said = run_main("evaluate.py", "--model_name_or_path", out, "--dataset_name", asked).json["diagnostics"]
    assert [line.split(" (")[0] for line in said if "trained on" in line] == [
      f"the model was trained on {seen} of the 24 prompts"
    ]
    page = ("--report", tmp_path / f"report{seen}")
    assert run_main("evaluate.py", "--model_name_or_path", out, "--dataset_name", asked, *page).returncode == 0
    assert f"it was trained on {seen} of these. On these: " in (page[1] / "README.md").read_text()
    found = run_main("evaluate.py", "--model_name_or_path", out, "--dataset_name", files[2]).json
    assert found["prompts_trained_on"] == 0
    others = found["diagnostics"]
    more = ("--dataset_name", files[2], "--eval_dataset_name", asked, "--output_dir", tmp_path / f"more{seen}")
    dry = run_main("train.py", "--model_name_or_path", out, *more, "--dry_run")
    assert [line.split(" (")[0] for line in dry.json["diagnostics"]] == [
      f"the model was trained on {seen} of the 24 prompts"
    ], "before it is trained further"
    done = run_main("train.py", "--model_name_or_path", out, *more, "--max_steps", "1", "--save_strategy", "no")
    by_evaluation = run_main("evaluate.py", "--model_name_or_path", more[-1], "--dataset_name", asked).json[
      "diagnostics"
    ]
    assert done.json["diagnostics"][1:] == by_evaluation[1:] and len(by_evaluation) > 1
    assert not any("was trained on" in line for line in others)
  words = ("--model_name_or_path", base, "--dataset_name", write_jsonl(tmp_path / "bare.jsonl", without_prompts(8)))
  trained = run_main(
    *("train.py", *words, "--output_dir", tmp_path / "bare", "--val_set_size", "0", "--max_steps", "1"),
    *("--text_format", "rendered", "--save_strategy", "no"),
  )
  assert trained.returncode == 0, trained.stderr
  bare = write_jsonl(tmp_path / "others.jsonl", without_prompts(16)[8:])
  said = run_main("evaluate.py", "--model_name_or_path", tmp_path / "bare", "--dataset_name", bare).json["diagnostics"]
  assert not any("was trained on" in line for line in said), "rows without a prompt share none"
  said = run_main(
    "evaluate.py", "--model_name_or_path", tmp_path / "bare", "--dataset_name", asked, "--compare", runs[1]
  )
  (line,) = [line for line in said.json["diagnostics"] if "was trained on" in line]
  assert line.startswith(f"{runs[1]}: the model was trained on 16 of the 24 prompts")
  # Of a checkpoint the run says it; a run that begins in the folder forgets what the model before was trained on.
  checkpoint = runs[1] / "checkpoint-1"
  checkpoint.mkdir()
  assert len(inputs.trained_prompts(str(checkpoint))) == 16
  (checkpoint / output_folder.TRAINED_ON).write_text("0a\n")
  assert inputs.trained_prompts(str(checkpoint)) == {"0a"}, "a model that is only called so"
  output_folder.start(runs[1], {}, resuming=False)
  assert not inputs.trained_prompts(str(runs[1]))
  (runs[0] / output_folder.RECORD).unlink()
  assert output_folder.foreign_files(runs[0]) == [], "a model without the record of its run may be replaced"


def without_prompts(n):
  return [{"prompt": "", "chosen": f"thank you {i}", "rejected": f"no {i}"} for i in range(n)]


def test_length_baseline_agrees_with_a_count(judged, pairs_file):
  rows = [json.loads(line) for line in pairs_file.open()]
  longer = [len(row["chosen"][0]["content"]) > len(row["rejected"][0]["content"]) for row in rows]
  baseline = judged[0]["length"]["baseline_longer"]
  assert baseline["value"] == pytest.approx(sum(longer) / 40) and sum(longer) == 30


def test_rewards_are_those_of_score(judged, toy_model, pairs_file):
  scored = run_main("score.py", "--model_name_or_path", toy_model[0], "--input", pairs_file).json["rows"]
  for row, other in zip(judged[1], scored, strict=True):
    assert [row["reward_chosen"], row["reward_rejected"]] == pytest.approx(other["rewards"], abs=1e-5)


def test_stdout_has_every_key_and_stderr_a_table_and_no_noise(judged):
  result, _, stderr = judged
  keys = "model dataset format set_aside n_pairs n_prompts accuracy ties tie_share log_loss brier ece margin length"
  keys += " subsets macro_accuracy micro_accuracy reliability blind not_scored truncated diagnostics output"
  assert set(keys.split()) <= set(result)
  assert "40 pairs" in stderr and "accuracy" in stderr
  for noise in ("\r", "it/s]", "Warning", "Traceback"):
    assert noise not in stderr


def test_compare_counts_who_is_right_where(judged, toy_model, pairs_file, tiny, tmp_path):
  words = ("--model_name_or_path", tiny("qwen2"), "--dataset_name", pairs_file, "--output_dir", tmp_path / "other")
  trained = run_main("train.py", *words, "--max_steps", "1", "--save_strategy", "no", "--audit", "warn")
  assert trained.returncode == 0, trained.stderr
  other_rows = tmp_path / "other.jsonl"
  words = ("--model_name_or_path", tmp_path / "other", "--dataset_name", pairs_file)
  other = run_main("evaluate.py", *words, "--output", other_rows, "--compare", toy_model[0])
  assert other.returncode == 0, other.stderr
  comparison = other.json["comparison"]

  def right(rows):
    return [row["reward_chosen"] > row["reward_rejected"] for row in rows]

  a, b = right(json.loads(line) for line in other_rows.open()), right(judged[1])
  assert comparison["n_pairs"] == 40 and comparison["model"] == str(toy_model[0])
  assert comparison["only_a"] == sum(x and not y for x, y in zip(a, b, strict=True))
  assert comparison["only_b"] == sum(y and not x for x, y in zip(a, b, strict=True)) > 0
  assert comparison["both_right"] == sum(x and y for x, y in zip(a, b, strict=True))
  assert comparison["difference"]["value"] == pytest.approx((sum(a) - sum(b)) / 40)
  assert 0 < comparison["mcnemar_p"] <= 1


def test_compare_takes_a_dpo_model_with_its_reference_on_either_side(judged, toy_model, pairs_file, tiny, tmp_path):
  """The numbers of each model are those of its evaluation alone."""
  model, dpo, reference = toy_model[0], tiny("qwen2", seed=1), ("--reference_model_name_or_path", tiny("qwen2"))
  data = ("--dataset_name", pairs_file)
  alone = run_main("evaluate.py", "--model_name_or_path", dpo, *reference, *data)
  assert alone.returncode == 0, alone.stderr
  for first, second in ((model, dpo), (dpo, model), (dpo, tiny("qwen2"))):
    out = tmp_path / f"{second.name}.jsonl"
    flags = ("--compare", second, *reference, "--output", out, "--overwrite")
    done = run_main("evaluate.py", "--model_name_or_path", first, *data, *flags)
    assert done.returncode == 0, done.stderr
    found = {first: done.json["accuracy"], second: done.json["comparison"]["other"]["accuracy"]}
    wanted = {model: judged[0]["accuracy"], dpo: alone.json["accuracy"]}
    assert {path: found[path] for path in wanted.keys() & found.keys()} == {
      path: wanted[path] for path in wanted if path in found
    }
  rows = [json.loads(line) for line in out.open()]
  assert {row["other_reward_chosen"] for row in rows} == {0.0}, "the reference against itself"
  refused = run_main("evaluate.py", "--model_name_or_path", model, *data, "--compare", model, *reference)
  assert refused.returncode == 2 and "has a reward of its own" in refused.stderr


def test_compare_with_what_is_no_reward_model_is_refused_before_the_work(toy_model, pairs_file, tiny):
  words = ("--model_name_or_path", toy_model[0], "--dataset_name", pairs_file, "--compare", tiny("qwen2"))
  done = run_main("evaluate.py", *words)
  assert done.returncode == 4
  assert done.stderr.startswith(f"error: {tiny('qwen2')} is not a reward model")


def test_a_subset_column_that_is_not_there(toy_model, pairs_file):
  words = ("--model_name_or_path", toy_model[0], "--dataset_name", pairs_file, "--subset_column", "topic")
  done = run_main("evaluate.py", *words)
  assert done.returncode == 3
  assert "error: no pair has the column topic" in done.stderr.splitlines()
  assert "hint: the data has subset" in done.stderr.splitlines()


def test_data_without_a_comparison(toy_model, tmp_path):
  row = {"prompt": "hello", "completions": ["yes", "no"], "scores": [1, 1]}
  data = write_jsonl(tmp_path / "even.jsonl", [row, row])
  done = run_main("evaluate.py", "--model_name_or_path", toy_model[0], "--dataset_name", data)
  assert done.returncode == 3
  lines = done.stderr.splitlines()
  assert lines[lines.index("error: the data holds no comparison") + 1] == f"  --> {data}"


def test_only_the_sides_of_this_evaluation_count_as_truncated(tiny):
  from reward_modeling import checkpoints
  from reward_modeling.data.records import Comparison
  from reward_modeling.evaluation.pairs import evaluate_pairs
  from reward_modeling.rendering import Renderer
  from reward_modeling.scoring import RewardModel

  loaded = checkpoints.load_for_training(str(tiny("qwen2")))
  model = RewardModel(loaded.model.eval(), Renderer(loaded.tokenizer, max_length=24))
  prompt = [{"role": "user", "content": "one two three four five six " * 5}]
  pair = Comparison(prompt, [{"role": "assistant", "content": "yes"}], [{"role": "assistant", "content": "no"}])
  long = Comparison(prompt, pair.chosen, [{"role": "assistant", "content": "red " * 40}], metadata={"kind": "long"})
  for _ in range(2):  # the second time counts no more than the first
    evaluation = evaluate_pairs(model, [pair, long])
    assert evaluation.summary.truncated == 2 and evaluation.summary.not_scored == 1
  rows = evaluation.rows()
  assert rows[1]["reward_rejected"] is None and rows[1]["kind"] == "long" and rows[0]["reward_chosen"] is not None


# ---- step labels --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def steps_file(tmp_path_factory):
  """Thirty solutions, every other with an error at its second step; three steps each, or two where labels stop."""
  rows = [
    {
      "prompt": f"{i} apples and two?",
      "completions": [f"there are {i}", f"two more are {i + 2}", "six"][: 2 + i % 4 // 2],
      "labels": [True, i % 2 == 0, i % 2 == 0][: 2 + i % 4 // 2],
      "subject": "red" if i % 3 else "blue",
    }
    for i in range(30)
  ]
  return write_jsonl(tmp_path_factory.mktemp("steps") / "steps.jsonl", rows)


def test_step_figures_agree_with_a_count_over_the_rows(toy_process_model, steps_file, tmp_path):
  out = tmp_path / "out.jsonl"
  words = ("--model_name_or_path", toy_process_model, "--dataset_name", steps_file, "--output", out)
  done = run_script("evaluate.py", *words)
  assert done.returncode == 0, done.stderr
  result, rows = done.json, [json.loads(line) for line in out.open()]
  judged = [
    (score < row["threshold"], label == 0)
    for row in rows
    for score, label in zip(row["step_rewards"], row["labels"], strict=True)
  ]
  assert result["n_steps"] == len(judged) and result["wrong_steps"] == sum(wrong for _, wrong in judged) == 22
  assert result["step_accuracy"]["value"] == pytest.approx(sum(a == b for a, b in judged) / len(judged))
  found = [row["first_flagged"] == row["first_error"] for row in rows]
  assert [row["first_error"] for row in rows] == [1 if i % 2 else -1 for i in range(30)]
  for row, given in zip(rows, map(json.loads, steps_file.open()), strict=True):
    assert row["prompt"][-1]["content"] == given["prompt"] and row["steps"] == given["completions"]
    assert row["lengths"] == [len(step) for step in given["completions"]]
  bad, good = sum(found[1::2]) / 15, sum(found[::2]) / 15
  assert (result["erroneous"]["value"], result["correct"]["value"]) == pytest.approx((bad, good))
  assert result["processbench_f1"]["value"] == pytest.approx(2 * bad * good / (bad + good) if bad + good else 0)
  assert result["first_error_accuracy"]["value"] == pytest.approx(sum(found) / 30)
  assert len({row["threshold"] for row in rows}) == len(result["threshold"]["values"]) == 2
  assert set(result["subsets"]) == {"blue", "red"}
  assert result["baselines"]["all_correct"]["step_accuracy"]["value"] == pytest.approx(1 - 22 / len(judged))
  assert "halves of the prompts" in done.stderr and "baselines" in done.stderr and "Traceback" not in done.stderr
  given = run_main("evaluate.py", *words[:4], "--threshold", "0.5").json["threshold"]
  assert given == {"values": [0.5], "chosen_on": "given"}
  other = run_main("evaluate.py", *words[:4], "--threshold_data", steps_file).json["threshold"]
  assert other["chosen_on"] == "30 solutions of other data" and len(other["values"]) == 1


def test_a_process_model_judges_comparisons_by_its_aggregate(toy_process_model, pairs_file, tmp_path):
  words = ("--model_name_or_path", toy_process_model, "--dataset_name", pairs_file)
  done = run_main("evaluate.py", *words, "--aggregate", "prod")
  assert done.returncode == 0, done.stderr
  assert done.json["n_pairs"] == 40 and "reward of a solution: prod of its steps" in done.stderr


# ---- best of n ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pools_file(tmp_path_factory):
  """Twelve prompts with four answers each, the polite one of which is correct."""
  texts = ["no apples\nA: 1", "thank you\nA: 2", "no\nA: 1", "no basket\nA: 3"]
  rows = [
    {"prompt": f"hello {i}", "completions": texts, "correct": [text.startswith("thank") for text in texts]}
    for i in range(12)
  ]
  return write_jsonl(tmp_path_factory.mktemp("pools") / "pools.jsonl", rows)


def test_best_of_n_of_an_outcome_model(toy_model, pools_file, tmp_path):
  out = tmp_path / "out.jsonl"
  words = ("--model_name_or_path", toy_model[0], "--dataset_name", pools_file, "--best_of_n", "--output", out)
  done = run_script("evaluate.py", *words)
  assert done.returncode == 0, done.stderr
  by_n = {at["n"]: at for at in done.json["curve"]}
  assert list(by_n) == [1, 4] and done.json["majority_possible"]
  assert by_n[1]["model"]["value"] == by_n[1]["random"]["value"] == by_n[1]["majority"]["value"] == 0.25
  assert by_n[4]["model"]["value"] == by_n[4]["oracle"]["value"] == 1.0, "the toy model prefers what is polite"
  assert by_n[4]["majority"]["value"] == 0.0 and by_n[4]["gain"]["value"] == 0.75
  assert by_n[4]["model"]["groups"] == 12
  rows = [json.loads(line) for line in out.open()]
  assert len(rows) == 12 and all(max(row["rewards"]) == row["rewards"][1] for row in rows)
  for row, given in zip(rows, map(json.loads, pools_file.open()), strict=True):
    assert row["prompt"][-1]["content"] == given["prompt"] and row["correct"] == given["correct"]
    assert [answer[-1]["content"] for answer in row["completions"]] == given["completions"]
    assert row["lengths"] == [len(text) for text in given["completions"]] and "metadata" not in row
  assert "accuracy of the best-scored of n" in done.stderr and done.json["diagnostics"] == []
  shuffled = [json.loads(line) for line in pools_file.open()]
  for i, row in enumerate(shuffled):
    row["correct"] = [place == i % 4 for place in range(4)]
  blind = write_jsonl(tmp_path / "shuffled.jsonl", shuffled)
  said = run_main("evaluate.py", *words[:2], "--dataset_name", blind, "--best_of_n").json["diagnostics"]
  assert said[0].startswith("best of 4: 0.250 is not shown to be above random choice (0.250); gain +0.000 [")
  for row in shuffled:
    row["correct"] = [place != 1 for place in range(4)]  # all but the polite one, which the model prefers
  harmful = write_jsonl(tmp_path / "harmful.jsonl", shuffled)
  said = run_main("evaluate.py", *words[:2], "--dataset_name", harmful, "--best_of_n").json["diagnostics"]
  assert said[0].startswith("best of 4: 0.000 is below random choice (0.750); gain -0.750 [")
  assert not any("not shown" in one for one in said)


def test_best_of_n_of_a_process_model(toy_process_model, pools_file):
  words = ("--model_name_or_path", toy_process_model, "--dataset_name", pools_file, "--best_of_n", "2", "3")
  done = run_main("evaluate.py", *words, "--aggregate", "last")
  assert done.returncode == 0, done.stderr
  assert [at["n"] for at in done.json["curve"]] == [2, 3] and done.json["not_scored"] == 0
  assert done.json["curve"][1]["model"]["value"] in (0.0, 0.75), "the same answers everywhere: one is always preferred"


# ---- tables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("model", "data", "more", "cells"),
  [
    ("toy_process_model", "steps_file", (), ("longest step", "processbench f1", "erroneous", "blue")),
    (
      "toy_model",
      "pairs_file",
      ("--compare", "."),
      ("baseline longer", "blind model", "hard", "macro: mean over subsets"),
    ),
    ("toy_model", "pools_file", ("--best_of_n",), ("model", "longest", "oracle")),
  ],
)
def test_no_word_in_a_table_is_broken_at_80_columns(model, data, more, cells, request, monkeypatch):
  from reward_modeling import terminal

  model, data = request.getfixturevalue(model), request.getfixturevalue(data)
  monkeypatch.chdir(model[0] if isinstance(model, tuple) else model)  # a long path is broken: what else could be done

  def cells_at(columns: int) -> list[str]:
    """What stands between the lines of the tables, line by line."""
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal.console.cache_clear()
    done = run_main("evaluate.py", "--model_name_or_path", ".", "--dataset_name", data, *more)
    assert done.returncode == 0, done.stderr
    drawn = [line for line in done.stderr.splitlines() if line[:1] in ("│", "┃")]
    assert drawn and max(map(len, drawn)) <= columns
    return [cell.strip() for line in drawn for cell in line.replace("┃", "│").split("│")]

  narrow, wide = cells_at(80), cells_at(300)
  terminal.console.cache_clear()
  assert sorted(" ".join(narrow).split()) == sorted(" ".join(wide).split())
  assert set(cells) <= set(narrow), "none of these is wrapped either"


# ---- flags --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("more", "code", "line"),
  [
    (("--aggregate", "min"), 2, "error: --aggregate is for process reward models, which score steps"),
    (("--overlong", "drop_steps"), 2, "error: --overlong drop_steps is for process reward models"),
    (
      ("--threshold", "0.5"),
      2,
      "error: --threshold is for labels of steps, which the data does not hold for this model",
    ),
    (("--answer_column", "final"), 2, "error: --answer_column does nothing without --best_of_n"),
    (("--best_of_n", "2", "--compare", "x"), 2, "error: --compare evaluates two models on pairs"),
    (("--best_of_n", "9"), 2, "error: --best_of_n 9 is more than the 2 completions of the largest pool"),
  ],
)
def test_flags_that_do_not_go_together(toy_model, pairs_file, more, code, line):
  done = run_main("evaluate.py", "--model_name_or_path", toy_model[0], "--dataset_name", pairs_file, *more)
  assert done.returncode == code and line in done.stderr.splitlines()


def test_pools_without_correctness(toy_model, tmp_path):
  data = write_jsonl(tmp_path / "pools.jsonl", [{"prompt": "hello", "completions": ["yes", "no"]}])
  done = run_main("evaluate.py", "--model_name_or_path", toy_model[0], "--dataset_name", data, "--best_of_n")
  assert done.returncode == 3
  lines = done.stderr.splitlines()
  assert lines[lines.index("error: best-of-n needs to know which completions are correct") + 1] == f"  --> {data}:1"


def test_metadata_that_are_named_like_results_are_moved_and_said(toy_model, tmp_path):
  row = {"prompt": "hello", "chosen": "thank you", "rejected": "no", "reward_chosen": 7, "origin": "web"}
  path, output = write_jsonl(tmp_path / "rows.jsonl", [row, row]), tmp_path / "out.jsonl"
  done = run_main("evaluate.py", "--model_name_or_path", toy_model[0], "--dataset_name", path, "--output", output)
  assert done.json["metadata_moved"] == {"reward_chosen": 2, "origin": 2}
  for written in map(json.loads, output.open()):
    assert written["metadata"] == {"reward_chosen": 7, "origin": "web"}
    assert written["origin"].startswith(str(path)) and isinstance(written["reward_chosen"], float)


def test_votes_that_contradict_each_other_bound_the_accuracy(toy_model, tmp_path):
  """4 pairs with one vote of 5 against each: nobody is right on more than 80 %."""
  rows = [row for row in toy_pairs(4, seed=5) for _ in range(5)]
  rows[::5] = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows[::5]]
  data = write_jsonl(tmp_path / "votes.jsonl", rows)
  done = run_main("evaluate.py", "--model_name_or_path", toy_model[0], "--dataset_name", data)
  assert done.json["ceiling"] == done.json["micro_accuracy"]["value"] == pytest.approx(0.8)
