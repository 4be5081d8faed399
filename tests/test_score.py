"""score.py: every reward beside its own row, in input order; ranking and best-of-n are that order and nothing more."""

import json
from pathlib import Path

import pytest

from conftest import run_main, run_script, write_jsonl


def score(model: Path, *arguments):
  return run_main("score.py", "--model_name_or_path", model, *arguments)


def rewards_of(model, prompt: str, *completions: str) -> list[float]:
  """One at a time through Python: the second route."""
  from reward_modeling import RewardModel

  reward_model = RewardModel.from_pretrained(str(model))
  return [reward_model.score([prompt], [completion])[0] for completion in completions]


ROWS = [
  {"id": "b", "prompt": "hello red", "completions": ["no apples", "thank you apples", "maybe"], "source": "x"},
  {
    "id": "a",
    "prompt": "hello world blue",
    "completions": ["thank you", "no two three four five six"],
    "source": None,
  },
  {"id": "c", "prompt": "hello", "completions": ["yes", "no", "thank you world", "please"], "source": [1, 2]},
]


@pytest.fixture
def rows_file(tmp_path) -> Path:
  return write_jsonl(tmp_path / "rows.jsonl", ROWS)


def test_a_file_that_is_scored_in_slices_gives_the_same_rows(toy_model, tmp_path, monkeypatch):
  from reward_modeling import packing, scoring
  from reward_modeling.data import reading

  path = write_jsonl(tmp_path / "rows.jsonl", [{**ROWS[i % 3], "id": i} for i in range(11)])
  whole = score(toy_model[0], "--input", path, "--rank", "--output", tmp_path / "whole.jsonl").json
  monkeypatch.setattr(reading, "SLICE", 4)
  monkeypatch.setattr(packing, "WINDOW", 5)
  monkeypatch.setattr(scoring, "WINDOW", 5)
  sliced = score(toy_model[0], "--input", path, "--rank", "--output", tmp_path / "sliced.jsonl").json
  assert sliced["reward_mean"] == pytest.approx(whole["reward_mean"], abs=1e-5)
  assert {**sliced, "output": 0, "reward_mean": 0} == {**whole, "output": 0, "reward_mean": 0}
  rows = [[json.loads(line) for line in (tmp_path / name).open()] for name in ("whole.jsonl", "sliced.jsonl")]
  for a, b in zip(*rows, strict=True):
    assert a.pop("rewards") == pytest.approx(b.pop("rewards"), abs=1e-5)
    assert a == b
  assert [row["id"] for row in rows[0]] == list(range(11))


def test_rewards_stay_with_their_rows(toy_model, rows_file):
  done = score(toy_model[0], "--input", rows_file)
  assert done.returncode == 0, done.stderr
  rows = done.json["rows"]
  assert [(row["id"], row["source"]) for row in rows] == [("b", "x"), ("a", None), ("c", [1, 2])]
  for row, given in zip(rows, ROWS, strict=True):
    assert [completion[0]["content"] for completion in row["completions"]] == given["completions"]
    alone = rewards_of(toy_model[0], given["prompt"], *given["completions"])
    assert row["rewards"] == pytest.approx(alone, abs=1e-5)
  flat = [reward for row in rows for reward in row["rewards"]]
  assert (done.json["prompts"], done.json["completions"], done.json["not_scored"]) == (3, 9, 0)
  assert done.json["reward_mean"] == pytest.approx(sum(flat) / 9)
  assert rows[0]["rewards"][1] > rows[0]["rewards"][0], "the toy model has learnt to like thanks"


def test_small_batches_change_nothing(toy_model, rows_file):
  large = score(toy_model[0], "--input", rows_file).json["rows"]
  small = score(toy_model[0], "--input", rows_file, "--max_tokens_per_batch", "1").json["rows"]
  for one, other in zip(large, small, strict=True):
    assert one["rewards"] == pytest.approx(other["rewards"], abs=1e-5)


def test_rank_sorts_and_says_where_each_came_from(toy_model, rows_file):
  plain = score(toy_model[0], "--input", rows_file).json["rows"]
  for row, ranked in zip(plain, score(toy_model[0], "--input", rows_file, "--rank").json["rows"], strict=True):
    assert ranked["id"] == row["id"] and ranked["rewards"] == sorted(row["rewards"], reverse=True)
    assert [row["rewards"][place] for place in ranked["order"]] == ranked["rewards"]
    assert [row["completions"][place] for place in ranked["order"]] == ranked["completions"]


def test_best_of_looks_at_the_first_n_only(toy_model, rows_file):
  plain = score(toy_model[0], "--input", rows_file).json["rows"]
  done = score(toy_model[0], "--input", rows_file, "--best_of", "2")
  assert done.json["completions"] == 6
  for row, best in zip(plain, done.json["rows"], strict=True):
    assert best["reward"] == pytest.approx(max(row["rewards"][:2]), abs=1e-5)
    assert best["completion"] == row["completions"][best["index"]] and best["index"] < 2


def test_the_best_of_all_is_the_first_of_the_ranking(toy_model, tmp_path):
  """As the hint and references/scoring.md say, and with the column names of the example there."""
  rows = [{"question": row["prompt"], "answers": row["completions"][:2]} for row in ROWS]
  words = ("--input", write_jsonl(tmp_path / "rows.jsonl", rows), "--columns", "prompt=question,completions=answers")
  ranked, best = (score(toy_model[0], *words, *way).json["rows"] for way in (("--rank",), ("--best_of", "2")))
  assert [row["completions"][0] for row in ranked] == [row["completion"] for row in best]
  assert [row["order"][0] for row in ranked] == [row["index"] for row in best]


def test_fewer_completions_than_best_of_asks_for(toy_model, rows_file):
  done = score(toy_model[0], "--input", rows_file, "--best_of", "3")
  assert done.returncode == 3
  lines = done.stderr.splitlines()
  line = lines.index("error: the prompt has 2 completions, fewer than --best_of 3")
  assert lines[line + 1] == f"  --> {rows_file}:2"


def test_what_is_assumed_of_an_unknown_model_stands_in_the_json(toy_model, tiny, toy_file, rows_file):
  foreign = tiny("qwen2", head=1)
  ours = score(toy_model[0], "--input", rows_file)
  assert "notes" not in ours.json and "batches" in ours.json
  for done in (
    score(foreign, "--input", rows_file),
    run_main("evaluate.py", "--model_name_or_path", foreign, "--dataset_name", toy_file),
  ):
    (assumed,) = [note for note in done.json["notes"] if "is not a known public model" in note]
    assert "assumed are its own chat template and its score head, read at the last token" in assumed
  several = run_main("score.py", "--reward_model_path", toy_model[0], foreign, "--input", rows_file).json
  assert assumed in several["notes"]


def test_normalise_uses_the_mean_and_deviation_of_the_card(toy_model, rows_file):
  statistics = json.loads((toy_model[0] / "reward_model.json").read_text())["reward"]
  raw = score(toy_model[0], "--input", rows_file).json["rows"][0]["rewards"]
  normal = score(toy_model[0], "--input", rows_file, "--normalize").json["rows"][0]["rewards"]
  assert normal == pytest.approx([(value - statistics["mean"]) / statistics["std"] for value in raw])


def test_bfloat16_differs_a_little(toy_model, rows_file):
  full = score(toy_model[0], "--input", rows_file).json["rows"][2]["rewards"]
  half = score(toy_model[0], "--input", rows_file, "--dtype", "bfloat16").json["rows"][2]["rewards"]
  assert full != half and half == pytest.approx(full, abs=0.2)
  assert len(set(half)) == len(half), "the head stays in fp32, so rewards do not collapse into ties"


def test_output_is_written_whole_and_not_over_another_file(toy_model, rows_file, tmp_path):
  out = tmp_path / "scored.jsonl"
  done = score(toy_model[0], "--input", rows_file, "--output", out)
  assert done.returncode == 0 and "rows" not in done.json and done.json["output"] == str(out)
  written = out.read_text()
  assert [json.loads(line)["id"] for line in written.splitlines()] == ["b", "a", "c"]
  again = score(toy_model[0], "--input", rows_file, "--output", out)
  assert again.returncode == 2 and f"error: {out} exists already" in again.stderr.splitlines()
  assert out.read_text() == written
  assert score(toy_model[0], "--input", rows_file, "--output", out, "--overwrite", "--rank").returncode == 0
  assert out.read_text() != written
  assert [file.name for file in tmp_path.iterdir() if ".partial" in file.name] == []


def test_one_completion_a_row_other_columns_and_odd_values(toy_model, tmp_path):
  rows = [
    {"question": "hello", "answer": "thank you", "n": float("nan"), "when": "1 May"},
    {"question": "hello", "answer": "no", "n": 2.5, "when": None},
  ]
  data = write_jsonl(tmp_path / "rows.jsonl", rows)
  columns = ("--columns", "prompt=question,completion=answer")
  out = tmp_path / "scored.jsonl"
  done = score(toy_model[0], "--input", data, *columns, "--output", out)
  assert done.returncode == 0, done.stderr
  first, second = (json.loads(line, parse_constant=lambda text: pytest.fail(text)) for line in out.open())
  assert first["reward"] > second["reward"]
  assert (first["n"], first["when"], second["n"]) == (None, "1 May", 2.5), "NaN is not JSON"
  wrong = score(toy_model[0], "--input", data, "--columns", "prompt=qestion")
  assert wrong.returncode == 3 and "error: there is no column `qestion`" in wrong.stderr.splitlines()


def test_what_the_policy_leaves_out_is_counted_not_scored(toy_model, rows_file):
  done = score(toy_model[0], "--input", rows_file, "--max_length", "30", "--overlong", "drop")
  assert done.returncode == 0, done.stderr
  flat = [reward for row in done.json["rows"] for reward in row["rewards"]]
  assert done.json["not_scored"] == flat.count(None) > 0 and len(flat) == 9
  last = score(toy_model[0], "--input", rows_file, "--max_length", "30", "--overlong", "drop", "--rank").json["rows"]
  assert all(row["rewards"][-1] is None for row in last if None in row["rewards"])


def test_the_command_line_gives_one_json_object_and_no_noise(toy_model):
  arguments = ("--prompt", "hello red", "--completions", "no apples", "thank you apples", "--rank")
  done = run_script("score.py", "--model_name_or_path", toy_model[0], *arguments, cold=True)
  assert done.returncode == 0, done.stderr
  expected = rewards_of(toy_model[0], "hello red", "thank you apples", "no apples")
  assert done.json["rows"][0]["rewards"] == pytest.approx(expected, abs=1e-5)
  assert done.json["rows"][0]["order"] == [1, 0]
  for noise in ("\r", "it/s]", "Warning", "Traceback"):
    assert noise not in done.stderr


def test_input_and_prompt_exclude_each_other(rows_file):
  done = score(Path("unread"), "--input", rows_file, "--prompt", "hello", "--completions", "x")
  assert done.returncode == 2
  assert "error: give either --input, or --prompt with --completions" in done.stderr.splitlines()
  done = score(Path("unread"), "--input", rows_file, "--rank", "--best_of", "2")
  assert done.returncode == 2
  assert done.stderr.splitlines() == [
    "error: --rank orders all completions, --best_of keeps one: choose one of them",
    "",
    "hint: --rank writes all completions of a row, best first; --best_of 2 the best of its first 2 alone",
  ]


# ---- process reward models ----------------------------------------------------------------------------------------


STEPS = ["there are two", "two and two are four", "so four"]


def step_rewards_of(model, *solutions):
  """Each solution alone through Python: the second route."""
  from reward_modeling import ProcessRewardModel

  process_model = ProcessRewardModel.from_pretrained(str(model))
  return [process_model.score_steps(["hello"], [steps])[0] for steps in solutions]


def test_a_process_model_is_recognised_and_scores_steps(toy_process_model, tmp_path):
  rows = [
    {"id": 1, "prompt": "hello", "steps": STEPS, "source": "x"},
    {"id": 2, "prompt": "hello", "steps": STEPS[:2]},
  ]
  done = score(toy_process_model, "--input", write_jsonl(tmp_path / "steps.jsonl", rows))
  assert done.returncode == 0, done.stderr
  expected = step_rewards_of(toy_process_model, STEPS, STEPS[:2])
  assert [row["step_rewards"] for row in done.json["rows"]] == [pytest.approx(one, abs=1e-5) for one in expected]
  assert [row["reward"] for row in done.json["rows"]] == pytest.approx([min(one) for one in expected], abs=1e-5)
  assert done.json["rows"][0]["steps"] == STEPS and done.json["rows"][0]["source"] == "x"
  assert (done.json["steps"], done.json["steps_not_scored"], done.json["aggregate"]) == (5, 0, "min")
  assert "all steps of a solution in one pass" in done.stderr


def test_every_way_to_write_solutions_gives_the_same_rewards(toy_process_model, tmp_path):
  texts = ["\n".join(STEPS), "\n".join(STEPS[::-1])]
  expected = [sum(one) / len(one) for one in step_rewards_of(toy_process_model, STEPS, STEPS[::-1])]
  ways = {
    "texts": {"prompt": "hello", "completions": texts},
    "steps": {"prompt": "hello", "completions": [STEPS, STEPS[::-1]]},
    "correct": {"prompt": "hello", "completions": [STEPS, STEPS[::-1]], "correct": [True, False]},
  }
  for name, row in ways.items():
    path = write_jsonl(tmp_path / f"{name}.jsonl", [row])
    done = score(toy_process_model, "--input", path, "--aggregate", "mean")
    assert done.returncode == 0, done.stderr
    assert done.json["rows"][0]["rewards"] == pytest.approx(expected, abs=1e-5), name
    assert done.json["rows"][0]["steps"] == [STEPS, STEPS[::-1]]
  labelled = {"prompt": "hello", "completions": STEPS, "labels": [True, True, False]}
  done = score(toy_process_model, "--input", write_jsonl(tmp_path / "l.jsonl", [labelled]), "--aggregate", "mean")
  assert done.json["rows"][0]["reward"] == pytest.approx(expected[0], abs=1e-5)
  words = ("--prompt", "hello", "--completions", *[text.replace("\n", "##") for text in texts])
  done = score(toy_process_model, *words, "--aggregate", "mean", "--step_separator", "##")
  assert done.json["rows"][0]["rewards"] == pytest.approx(expected, abs=1e-5)


def test_tools_of_steps_are_refused_as_those_of_completions_are(toy_process_model, tmp_path):
  for answer in ({"steps": STEPS}, {"completion": "\n".join(STEPS)}):
    row = {"prompt": "hello", "tools": [{"type": "function", "function": {"name": "add"}}]} | answer
    done = score(toy_process_model, "--input", write_jsonl(tmp_path / "rows.jsonl", [row]))
    assert done.returncode == 4 and "a process reward model reads no `tools`" in done.stderr
    assert "rows.jsonl:1" in done.stderr and "--columns tools=" in done.stderr


def test_an_outcome_model_reads_steps_as_one_text(toy_model, tmp_path):
  rows = [{"prompt": "hello", "completions": [STEPS]}, {"prompt": "hello", "completions": ["\n".join(STEPS)]}]
  done = score(toy_model[0], "--input", write_jsonl(tmp_path / "rows.jsonl", rows))
  assert done.json["rows"][0]["reward"] == done.json["rows"][1]["reward"] and "steps" not in done.json["rows"][0]


def test_rank_and_best_of_go_by_the_aggregate(toy_process_model, tmp_path):
  solutions = [STEPS, STEPS[:1], STEPS[::-1]]
  expected = [one[-1] for one in step_rewards_of(toy_process_model, *solutions)]
  best = max(range(3), key=expected.__getitem__)
  path = write_jsonl(tmp_path / "pool.jsonl", [{"prompt": "hello", "completions": solutions}])
  row = score(toy_process_model, "--input", path, "--aggregate", "last", "--rank").json["rows"][0]
  assert row["rewards"] == pytest.approx(sorted(expected, reverse=True), abs=1e-5) and row["order"][0] == best
  assert row["steps"] == [solutions[i] for i in row["order"]]
  assert [rewards[-1] for rewards in row["step_rewards"]] == row["rewards"]
  row = score(toy_process_model, "--input", path, "--aggregate", "last", "--best_of", "3").json["rows"][0]
  assert row["index"] == best and row["steps"] == solutions[best] and row["reward"] == row["step_rewards"][-1]


def test_steps_that_do_not_fit_are_null_and_counted(toy_process_model, tmp_path):
  long = [*STEPS, "one two three four five six " * 30, "so four"]
  path = write_jsonl(tmp_path / "long.jsonl", [{"prompt": "hello", "steps": long}])
  done = score(toy_process_model, "--input", path, "--output", tmp_path / "out.jsonl")
  row = json.loads((tmp_path / "out.jsonl").read_text())
  expected = step_rewards_of(toy_process_model, STEPS)[0]
  assert row["step_rewards"] == [*[pytest.approx(value, abs=1e-5) for value in expected], None, None]
  assert row["reward"] == pytest.approx(min(expected), abs=1e-5)
  assert (done.json["steps"], done.json["steps_not_scored"], done.json["not_scored"]) == (5, 2, 0)


def test_steps_in_the_wrong_column_are_noticed(toy_process_model, tmp_path):
  path = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "hello", "completions": STEPS}])
  done = score(toy_process_model, "--input", path)
  assert done.json["completions"] == 3 and "warning: no completion has more than one step" in done.stderr
  done = score(toy_process_model, "--input", path, "--columns", "steps=completions")
  assert done.json["completions"] == 1 and done.json["steps"] == 3 and "warning" not in done.stderr


def test_flags_of_the_other_kind(toy_model, toy_process_model):
  words = ("--prompt", "hello", "--completions", "one\ntwo")
  done = score(toy_process_model, *words, "--normalize")
  assert done.returncode == 2 and "error: --normalize is for outcome reward models" in done.stderr
  done = score(toy_process_model, *words, "--overlong", "truncate_left")
  assert done.returncode == 2 and "error: --overlong truncate_left is for outcome reward models" in done.stderr
  done = score(toy_model[0], *words, "--step_separator", "\\n")
  assert done.returncode == 2 and "error: --step_separator is for process reward models" in done.stderr


def test_best_of_completions_that_a_policy_writes(toy_model, tiny, tmp_path):
  """A larger N adds completions and keeps the others, so the best reward can only rise; each is score.py's own reward."""
  words = ("red", "blue", "green one", "world", "apples")
  file = write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": f"hello {word}", "id": word} for word in words])
  flags = (
    "--model_name_or_path",
    toy_model[0],
    "--input",
    file,
    "--generate_with",
    tiny("qwen2"),
    "--max_new_tokens",
    8,
  )
  few, more, again = (run_main("score.py", *flags, "--best_of", n, "--seed", 3).json for n in (2, 6, 6))
  assert more == again
  assert (more["prompts"], more["completions"]) == (5, 30)
  for two, six in zip(few["rows"], more["rows"], strict=True):
    assert six["id"] == two["id"]
    assert six["reward"] >= two["reward"]
    assert six["reward"] > two["reward"] or six["index"] == two["index"]
  assert any(six["reward"] > two["reward"] for two, six in zip(few["rows"], more["rows"], strict=True))
  assert 0 <= more["unfinished"] <= 30
  rows = [{"prompt": row["prompt"], "completion": row["completion"]} for row in more["rows"]]
  written = write_jsonl(tmp_path / "written.jsonl", rows)
  given = run_main("score.py", "--model_name_or_path", toy_model[0], "--input", written).json["rows"]
  assert [row["reward"] for row in given] == pytest.approx([row["reward"] for row in more["rows"]], abs=1e-5)
  kept = run_main("score.py", *flags, "--best_of", 6, "--seed", 3, "--rank").json["rows"]
  for best, every in zip(more["rows"], kept, strict=True):
    assert sorted(every["order"]) == [*range(6)] and every["rewards"] == sorted(every["rewards"], reverse=True)
    assert len(every["finished"]) == len(every["completions"]) == 6
    first = {"finished": every["finished"][0], "completion": every["completions"][0], "reward": every["rewards"][0]}
    assert {**first, "index": every["order"][0]} == {name: best[name] for name in (*first, "index")}


@pytest.mark.parametrize(
  ("extra", "message"),
  [
    ((), "--generate_with needs --best_of N"),
    (("--best_of", 2, "--completions", "no"), "--completions are given, --generate_with writes them"),
    (("--best_of", 2, "--seed", -1), "--seed: expected a whole number of at least 0, got '-1'"),
    (("--best_of", 2, "--max_new_tokens", 200), "--max_new_tokens 200 leaves no room for a prompt"),
  ],
)
def test_flags_that_do_not_go_with_a_policy(toy_model, tiny, extra, message):
  names = ("--model_name_or_path", toy_model[0], "--prompt", "hello", "--generate_with", tiny("qwen2"))
  done = run_main("score.py", *names, *extra)
  assert (done.returncode, message in done.stderr) == (2, True)


CLASHES = {
  "scores": {"prompt": "hello", "completions": ["no", "thank you"], "scores": [1, 0]},
  "winner": {"prompt": "hello", "response_a": "no", "response_b": "yes", "winner": "model_b"},
  "margin": {"prompt": "hello", "chosen": "yes", "rejected": "no", "margin": 2.5},
  "score_chosen": {"prompt": "hello", "chosen": "yes", "rejected": "no", "score_chosen": 4, "score_rejected": 1},
  "reward": {"prompt": "hello", "completion": "no", "reward": 0.25},
  "rewards": {"prompt": "hello", "completions": ["no", "yes"], "rewards": [0.25, 0.5], "order": "x", "index": 3},
}


@pytest.mark.parametrize("name", CLASHES)
@pytest.mark.parametrize("mode", [(), ("--rank",), ("--best_of", "1")])
def test_columns_of_the_input_survive_and_results_do_not_overwrite_them(toy_model, tmp_path, name, mode):
  row = CLASHES[name]
  path, output = write_jsonl(tmp_path / "rows.jsonl", [row, row]), tmp_path / "scored.jsonl"
  done = score(toy_model[0], "--input", path, *mode, "--output", output)
  assert done.returncode == 0, done.stderr
  texts = {"prompt", "completion", "completions", "response_a", "response_b", "chosen", "rejected"}
  for written in map(json.loads, output.open()):
    moved = written.get("metadata", {})
    for column, value in row.items():
      if column not in texts:
        assert moved.get(column, written.get(column)) == value
    assert done.json.get("metadata_moved", {}) == dict.fromkeys(moved, 2)
    if moved:
      assert all(f"{column} 2" in done.stderr for column in moved)
    single = "--best_of" in mode or ("--rank" not in mode and "completion" in row)
    own = [written["reward"]] if single else written["rewards"]
    assert all(isinstance(reward, float) and reward != 0.25 for reward in own)


def test_step_labels_and_an_input_of_step_rewards_survive_a_process_model(toy_process_model, tmp_path):
  row = {"prompt": "hello", "completions": ["one", "two"], "labels": [True, None], "step_rewards": "mine"}
  path = write_jsonl(tmp_path / "rows.jsonl", [row])
  (written,) = score(toy_process_model, "--input", path).json["rows"]
  assert (written["labels"], written["metadata"]) == ([True, None], {"step_rewards": "mine"})
  assert len(written["step_rewards"]) == 2


def test_scoring_scored_rows_again_loses_nothing(toy_model, tmp_path):
  files = [write_jsonl(tmp_path / "0.jsonl", [{"prompt": "hello", "completion": "no", "reward": 0.25}])]
  for number in (1, 2, 3):
    files.append(tmp_path / f"{number}.jsonl")
    assert score(toy_model[0], "--input", files[-2], "--output", files[-1]).returncode == 0
  (last,) = map(json.loads, files[-1].open())
  assert "0.25" in json.dumps(last["metadata"])
  assert last["reward"] == json.loads(files[1].read_text())["reward"]


def test_empty_answers_are_counted_and_warned_of(toy_model, tmp_path):
  rows = [{"prompt": "hello", "completions": ["thank you", " \n", ""]}, {"prompt": "hello", "completions": ["no", ""]}]
  data = write_jsonl(tmp_path / "rows.jsonl", rows)
  done = run_main("score.py", "--model_name_or_path", toy_model[0], "--input", data)
  assert (done.json["empty_completions"], done.json["not_scored"]) == (3, 0)
  assert "3 of 5 completions are empty" in " ".join(done.stderr.split())
