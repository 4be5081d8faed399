"""check_data.py from the command line: its JSON, its exit codes, its one clear line for each kind of bad input."""

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from conftest import run_main
from reward_modeling.data.formats import FORMATS
from reward_modeling.data.reading import load
from reward_modeling.data.records import comparisons, split_by_prompt
from warm_process import HANG

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPT = REPOSITORY / "scripts" / "check_data.py"

GOOD = [{"prompt": f"question {i}", "chosen": "good", "rejected": "poor", "subset": "a"} for i in range(20)]


def run(*arguments, cwd=None):
  return subprocess.run(
    [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, timeout=HANG, cwd=cwd
  )


def write(path, lines):
  path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
  return path


def test_clean_data(tmp_path):
  path, output = write(tmp_path / "a.jsonl", GOOD), tmp_path / "out" / "canonical.jsonl"
  done = run(path, "--output", output)
  assert done.returncode == 0
  assert json.loads(done.stdout) == {
    "format": "explicit",
    "files": [str(path)],
    "rows": 20,
    "kept": 20,
    "kinds": {"pairs": 20},
    "comparisons": 20,
    "prompts": 20,
    "equal_scores": 0,
    "set_aside": {},
    "winner_values": {},
    "columns_used": ["prompt", "chosen", "rejected"],
    "metadata_columns": ["subset"],
    "findings": [],
    "dropped": 0,
    "dropped_rows": {},
    "dropped_completions": {},
    "output": str(output),
    "errors": 0,
    "warnings": 0,
  }
  first = json.loads(output.read_text().splitlines()[0])
  assert first == {
    "prompt": [{"role": "user", "content": "question 0"}],
    "chosen": [{"role": "assistant", "content": "good"}],
    "rejected": [{"role": "assistant", "content": "poor"}],
    "subset": "a",
  }
  again = json.loads(run("--dataset_name", output).stdout)
  assert (again["format"], again["rows"], again["findings"]) == ("explicit", 20, [])


def test_errors_in_the_data_exit_with_3_and_still_print_the_json(tmp_path):
  path = write(tmp_path / "a.jsonl", [*GOOD, {"prompt": "p", "chosen": "same", "rejected": "same"}])
  done = run(path)
  assert done.returncode == 3
  result = json.loads(done.stdout)
  assert (result["errors"], result["findings"][0]["check"], result["findings"][0]["rows"]) == (
    1,
    "identical",
    [f"{path}:21"],
  )
  assert "1 of 21 pairs have identical chosen and rejected answers" in done.stderr
  assert "--drop identical" in done.stderr


def test_rows_of_a_finding_are_dropped_and_counted(tmp_path):
  path = write(tmp_path / "a.jsonl", [*GOOD, {"prompt": "p", "chosen": "same", "rejected": "same"}, GOOD[3]])
  output = tmp_path / "clean.jsonl"
  done = run(path, "--drop", "identical", "duplicate", "--output", output)
  assert done.returncode == 0
  result = json.loads(done.stdout)
  assert (result["dropped"], result["errors"], result["warnings"]) == (2, 0, 0)
  assert len(output.read_text().splitlines()) == 20


def test_rows_that_cannot_be_read_are_a_finding_and_are_left_out_on_demand(tmp_path):
  rows = [*GOOD[:5], {"prompt": "p", "chosen": 3, "rejected": "x"}, *GOOD[5:], {"prompt": "p", "chosen": "x"}]
  path, output = write(tmp_path / "a.jsonl", rows), tmp_path / "clean.jsonl"
  told = run(path)
  result = json.loads(told.stdout)
  assert (told.returncode, result["rows"], result["set_aside"]) == (3, 22, {"unreadable": 2})
  assert result["findings"][0]["rows"] == [f"{path}:6", f"{path}:22"]
  assert "2 of 22 rows cannot be read; the first: `chosen` is a number (3)" in told.stderr
  assert "--drop unreadable --output" in told.stderr
  refused = run(path, "--output", output)
  assert (refused.returncode, json.loads(refused.stdout)["error"]["where"], output.exists()) == (
    3,
    f"{path}:6, {path}:22",
    False,
  )
  done = run(path, "--drop", "unreadable", "--output", output)
  assert done.returncode == 0, done.stderr
  result = json.loads(done.stdout)
  assert (result["dropped_rows"], result["set_aside"], len(output.read_text().splitlines())) == (
    {"unreadable": 2},
    {},
    20,
  )


def test_rankings_stay_rankings_and_lose_what_a_finding_is_about(tmp_path):
  rows = [
    {"prompt": "p", "completions": ["x", "", "z"], "scores": [2, 0, 2]},
    {"prompt": "q", "completions": ["a", "", "b"], "scores": [0, 2, 1], "tags": ["A", "E", "B"]},
  ]
  path, output = write(tmp_path / "a.jsonl", rows), tmp_path / "clean.jsonl"
  result = json.loads(run(path, "--drop", "empty_answer", "--output", output).stdout)
  assert (result["comparisons"], result["equal_scores"], result["dropped"]) == (5, 1, 1)
  assert (result["dropped_rows"], result["dropped_completions"]) == ({"empty_answer": 1}, {"empty_answer": 1})
  (kept,) = map(json.loads, output.read_text().splitlines())
  assert (kept["scores"], kept["tags"]) == ([0.0, 1.0], ["A", "B"])
  assert kept["completions"][1] == [{"role": "assistant", "content": "b"}]


def test_a_share_without_a_file_and_a_file_without_rows_are_said(tmp_path):
  path, out = write(tmp_path / "a.jsonl", GOOD[:1]), tmp_path / "clean.jsonl"
  alone = run(path, "--output", out, "--val_set_size", "0.3")
  assert alone.returncode == 2 and "--val_set_size needs --held_out, which is not given" in alone.stderr
  for share, empty in (("0.0001", "--held_out"), ("0.9999", "--output")):
    more = ("--output", out, "--held_out", tmp_path / "held.jsonl", "--val_set_size", share, "--overwrite")
    done = run(path, *more)
    assert done.returncode == 0 and f"{empty} has no rows: change --val_set_size" in done.stderr


def test_evaluation_prompts_in_the_data_are_a_warning_that_strict_makes_fatal(tmp_path):
  train, held_out = write(tmp_path / "a.jsonl", GOOD), write(tmp_path / "b.jsonl", GOOD[:2])
  done = run(train, "--eval_dataset_name", held_out)
  assert done.returncode == 0
  assert json.loads(done.stdout)["findings"][0]["check"] == "train_eval_overlap"
  strict = run(train, "--eval_dataset_name", held_out, "--strict")
  assert (strict.returncode, json.loads(strict.stdout)["warnings"]) == (3, 1)


def test_step_labels_are_counted_and_audited(tmp_path):
  row = {"prompt": "p", "completions": ["one", "two\nthree", "four"], "labels": [True, False]}
  done = run(write(tmp_path / "a.jsonl", [row, row]), "--drop", "duplicate", "--output", tmp_path / "o.jsonl")
  result = json.loads(done.stdout)
  assert (done.returncode, result["format"], result["solutions"]) == (0, "stepwise", 2)
  assert (result["steps"], result["labeled_steps"], result["incorrect_steps"]) == (6, 4, 2)
  found = {finding["check"]: finding["count"] for finding in result["findings"]}
  assert found == {"duplicate": 1, "wrong_steps": 2, "ends_at_first_error": 2}
  (kept,) = map(json.loads, (tmp_path / "o.jsonl").read_text().splitlines())
  assert kept["labels"] == [1.0, 0.0, None]


def test_the_first_stays_when_a_file_is_named_twice_and_when_names_are_equal(tmp_path):
  (tmp_path / "one").mkdir()
  (tmp_path / "two").mkdir()
  first, second = write(tmp_path / "one/a.jsonl", GOOD), write(tmp_path / "two/a.jsonl", GOOD[5:])
  result = json.loads(run(first, first, second, "--drop", "duplicate", "--output", tmp_path / "o.jsonl").stdout)
  assert (result["rows"], result["kept"], result["dropped_rows"]) == (55, 20, {"duplicate": 35})
  kept = [json.loads(line)["prompt"][0]["content"] for line in (tmp_path / "o.jsonl").read_text().splitlines()]
  assert kept == [f"question {i}" for i in range(20)]


HOLDS = {
  "rankings": ({"prompt": "p", "completions": ["x", "y"], "scores": [1, 0]}, {"comparisons": 1}),
  "steps": (
    {"prompt": "p", "completions": ["a", "b"], "labels": [True, False]},
    {"solutions": 1, "labeled_steps": 2},
  ),
  "unlabeled_steps": ({"prompt": "p", "steps": ["a", "b"]}, {"solutions": 1, "steps": 2, "labeled_steps": 0}),
  "completions": ({"prompt": "p", "completions": ["x", "y"]}, {"prompts": 1, "completions": 2}),
  "prompts": ({"prompt": "p"}, {"prompts": 1, "completions": 0}),
}
MESSAGES = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x"}]


@pytest.mark.parametrize(
  ("kind", "row", "counts"),
  [
    *((kind, *known) for kind, known in HOLDS.items()),
    ("completions", {"prompt": "p", "response": "x"}, {"prompts": 1, "completions": 1}),
    ("completions", {"prompt": "p", "response_a": "x", "response_b": "y"}, {"prompts": 1, "completions": 2}),
    ("completions", {"messages": MESSAGES}, {"prompts": 1, "completions": 1}),
    ("prompts", {"messages": MESSAGES[:1]}, {"prompts": 1, "completions": 0}),
  ],
)
def test_what_rows_hold_is_told_for_every_kind_and_their_canonical_copy_is_the_same_again(tmp_path, kind, row, counts):
  path, output = write(tmp_path / "a.jsonl", [{**row, "tag": "T"}]), tmp_path / "o.jsonl"
  result = run_main("check_data.py", path, "--output", output).json
  assert (result["rows"], result["kept"], result["kinds"]) == (1, 1, {kind: 1})
  assert counts.items() <= result.items()
  again = run_main("check_data.py", output).json
  assert (again["kinds"], counts.items() <= again.items()) == ({kind: 1}, True)
  assert json.loads(output.read_text())["tag"] == "T"


def test_files_of_all_kinds_are_audited_and_counted_together(tmp_path):
  files = [write(tmp_path / f"{kind}.jsonl", [row, row]) for kind, (row, _) in HOLDS.items()]
  files.append(write(tmp_path / "pairs.jsonl", [GOOD[0], GOOD[0]]))
  result = run_main("check_data.py", *files, "--drop", "duplicate", "--output", tmp_path / "o.jsonl").json
  assert result["kinds"] == dict.fromkeys([*HOLDS, "pairs"], 2)
  # The unlabeled solution repeats the labeled one: the same steps of the same prompt.
  assert (result["rows"], result["kept"], result["dropped_rows"]) == (12, 5, {"duplicate": 7})


def test_rows_to_be_scored_are_audited_for_what_can_be_known(tmp_path):
  rows = [{"prompt": f"p{i}", "completions": ["x", "y"]} for i in range(7)]
  rows[1]["completions"][0] = " "
  rows[2]["completions"][1] = "4.\n\nHuman: And 5?"
  rows[3]["completions"][1] = "caf\u00c3\u00a9"
  rows[4]["prompt"] = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
  rows[5]["prompt"] = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
  rows[6] = rows[0]
  path = write(tmp_path / "a.jsonl", rows)
  done = run_main("check_data.py", path)
  found = {finding["check"]: finding["rows"] for finding in done.json["findings"]}
  assert found == {
    "empty_answer": [f"{path}:2"],
    "leaked_turn": [f"{path}:3"],
    "encoding": [f"{path}:4"],
    "templated": [f"{path}:5"],
    "roles": [f"{path}:6"],
    "duplicate": [f"{path}:7"],
  }
  assert (done.returncode, done.json["errors"], done.json["warnings"]) == (0, 0, 6)
  rendered = run_main("check_data.py", path, "--text_format", "rendered").json
  assert {finding["check"] for finding in rendered["findings"]} == {"empty_answer", "encoding", "duplicate"}


def test_metadata_that_are_named_like_columns_of_the_record_are_moved_said_and_read_back(tmp_path):
  rows = [{"prompt": "p", "completions": ["x", "y"], "labels": [1, 0], "scores": [0.5, 0.25], "subset": "s"}]
  path, output = write(tmp_path / "a.jsonl", rows), tmp_path / "o.jsonl"
  done = run_main("check_data.py", path, "--format", "ranking", "--output", output)
  assert done.json["metadata_moved"] == {"labels": 1}
  assert "in the column `metadata` (rows): labels 1" in done.stderr
  (row,) = map(json.loads, output.read_text().splitlines())
  assert (row["metadata"], row["subset"], row["scores"]) == ({"labels": [1, 0]}, "s", [0.5, 0.25])
  assert run_main("check_data.py", output).json["kinds"] == {"rankings": 1}


def test_numbers_that_json_cannot_carry_are_null_in_the_output(tmp_path):
  path = write(
    tmp_path / "a.jsonl", ['{"chosen": "a c", "rejected": "a d", "prompt": "hi", "x": NaN, "y": [1, -Infinity]}']
  )
  output = tmp_path / "o.jsonl"
  assert run_main("check_data.py", path, "--output", output).returncode == 0

  def refuse(constant):
    raise AssertionError(constant)

  row = json.loads(output.read_text(), parse_constant=refuse)
  assert (row["x"], row["y"]) == (None, [1, None])


BAD = {
  "missing file": (None, "error: no such file or folder: rows.jsonl", 3),
  "empty file": ([], "error: the file is empty", 3),
  "broken JSON": ([GOOD[0], *['{"prompt": "p", "chosen": }'] * 2], "rows.jsonl:2 (also 3)", 3),
  "wrong type": (
    [{"prompt": "p", "chosen": 1, "rejected": "y"}],
    "error: `chosen` is a number (1), not text or messages",
    3,
  ),
  "column missing in most rows": (
    [GOOD[0], *[{"prompt": "p", "chosen": "x"}] * 2],
    "error: 2 of 3 rows: column `rejected` is missing",
    3,
  ),
  "unused context": ([{**GOOD[0], "context": "Be rude."}], "error: column `context` could be part of the input", 3),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_with_one_clear_error(tmp_path, name):
  lines, message, code = BAD[name]
  if lines is not None:
    write(tmp_path / "rows.jsonl", lines)
  done = run("rows.jsonl", cwd=tmp_path)
  assert done.returncode == code
  assert list(json.loads(done.stdout)) == ["error"]
  assert json.loads(done.stdout)["error"]["message"] in done.stderr
  assert message in done.stderr
  assert "Traceback" not in done.stderr
  assert done.stderr.count("error: ") == 1


USAGE = {
  "nothing": ([], "no dataset was named"),
  "abbreviation": (["a.jsonl", "--outp", "x"], "unknown flag --outp"),
  "unknown check": (["a.jsonl", "--drop", "nothing", "--output", "x"], "invalid choice: 'nothing'"),
  "drop without output": (
    ["a.jsonl", "--drop", "identical"],
    "--drop needs --output, which is not given",
  ),
  "output exists": (["a.jsonl", "--output", "a.jsonl"], "a.jsonl exists already"),
  "unknown format": (["a.jsonl", "--format", "implict"], "did you mean implicit?"),
}


@pytest.mark.parametrize("name", USAGE)
def test_wrong_usage_exits_with_2(tmp_path, name):
  arguments, message = USAGE[name]
  write(tmp_path / "a.jsonl", GOOD)
  done = run(*arguments, cwd=tmp_path)
  assert (done.returncode, done.stdout) == (2, "")
  assert message in done.stderr


def test_formats_are_listed_with_an_example_that_is_read_as_that_format(tmp_path):
  formats = json.loads(run("--list_formats", "sharegpt").stdout)["formats"]
  entry = next(entry for entry in formats if entry["name"] == "sharegpt")
  done = run(write(tmp_path / "a.jsonl", [entry["example"]]))
  assert json.loads(done.stdout)["format"] == "sharegpt"


def test_the_dependencies_in_the_header_are_those_of_the_project():
  lines = SCRIPT.read_text().splitlines()
  block = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[1 : lines.index("# ///", 1)])
  project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
  header = tomllib.loads(block)
  others = ("matplotlib", "fastapi", "uvicorn", "prometheus-client", "httpx2")  # it draws nothing and serves nothing
  needed = [one for one in project["dependencies"] if not one.startswith(others)]
  assert header == {"requires-python": project["requires-python"], "dependencies": needed}
  assert ast.get_docstring(ast.parse(SCRIPT.read_text())).count("    uv run scripts/check_data.py ") >= 2


@pytest.mark.parametrize("how", ["the file itself", "a link to it", "another spelling"])
def test_what_is_read_is_never_overwritten(tmp_path, how):
  data = tmp_path / "pairs.jsonl"
  data.write_text('{"prompt": "2+2?", "chosen": "4", "rejected": "5", "note": "kept"}\n')
  before, output = data.read_bytes(), data
  if how == "a link to it":
    output = tmp_path / "link.jsonl"
    output.symlink_to(data)
  if how == "another spelling":
    (tmp_path / "sub").mkdir()
    output = tmp_path / "sub" / ".." / "pairs.jsonl"
  done = run_main("check_data.py", data, "--output", output, "--overwrite")
  assert (done.returncode, data.read_bytes()) == (2, before)
  assert f"{output} is what the run reads" in done.stderr


def test_a_template_of_its_own_decides_which_rows_are_refused(tmp_path, tiny):
  template = tmp_path / "strict.jinja"
  template.write_text(
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{{ m['content'] }}{% endfor %}"
  )
  data, clean = tmp_path / "pairs.jsonl", tmp_path / "clean.jsonl"
  good = {"prompt": [{"role": "user", "content": "a"}], "chosen": "b", "rejected": "c"}
  bad = good | {"prompt": [{"role": "user", "content": "a"}, {"role": "user", "content": "d"}]}
  data.write_text("".join(json.dumps(row) + "\n" for row in (good, bad, good | {"chosen": "e"})))
  model = ("--model_name_or_path", tiny("qwen2"))
  done = run_main(
    "check_data.py", data, *model, "--chat_template_path", template, "--drop", "refused", "--output", clean
  )
  assert done.json["dropped_rows"] == {"refused": 1}, done.stderr
  assert [finding["check"] for finding in run_main("check_data.py", data, *model).json["findings"]] != ["refused"]


@pytest.mark.parametrize("layout", ["canonical", "original"])
def test_a_file_to_evaluate_on_holds_other_prompts_and_is_what_training_would_hold_out(tmp_path, layout):
  rows = [{"prompt": f"p{i % 40}", "chosen": f"x{i}", "rejected": f"y{i}"} for i in range(200)]
  path, kept, held = write(tmp_path / "a.jsonl", rows), tmp_path / "train.jsonl", tmp_path / "test.jsonl"
  how = ["--output", kept, "--held_out", held, "--val_set_size", "0.25", "--layout", layout]
  result = run_main("check_data.py", path, *how).json
  parts = [[read_row(line) for line in file.read_text().splitlines()] for file in (kept, held)]
  assert sorted(parts[0] + parts[1]) == sorted((row["prompt"], row["chosen"]) for row in rows)
  train, test = ({prompt for prompt, _ in part} for part in parts)
  assert train.isdisjoint(test) and 2 <= len(test) <= 20
  assert (result["kept"], result["held_out"], result["prompts"]) == (200, len(parts[1]), 40)
  _, same = split_by_prompt(comparisons(load(str(path))), 0.25, 42)
  assert {pair.prompt[0]["content"] for pair in same} == test


def read_row(line):
  row = json.loads(line)
  text = lambda value: value if isinstance(value, str) else value[0]["content"]  # noqa: E731
  return text(row["prompt"]), text(row["chosen"])


def test_prompts_are_counted_once(tmp_path):
  rows = [{"prompt": prompt, "completion": answer} for prompt in "pq" for answer in "xyz"]
  result = run_main("check_data.py", write(tmp_path / "a.jsonl", rows)).json
  assert (result["prompts"], result["completions"]) == (2, 6)


def test_formats_are_named_in_one_line_each(tmp_path):
  done = run_main("check_data.py", "--list_formats")
  assert [set(entry) for entry in done.json["formats"]] == [{"name", "description"}] * len(FORMATS)
  shown = run_main("check_data.py", "--list_formats", "shp", "kto").json["formats"]
  assert [(entry["name"], entry["example"]) for entry in shown] == [(n, FORMATS[n].example) for n in ("shp", "kto")]
  assert run_main("check_data.py", "--list_formats", "shq").returncode == 2


RATED_ANSWERS = [("2+2?", "4", "ann", 5), ("2+2?", "5", "ann", 1), ("2+2?", "4", "bob", 4), ("3+3?", "6", "bob", 5)]


@pytest.mark.parametrize("rating", ["stars", "zeal"])
def test_rated_answers_in_a_spreadsheet_are_not_taken_for_prompts(tmp_path, rating):
  path = tmp_path / "ratings.csv"
  path.write_text("\n".join([f"question,answer,rater,{rating}", *(",".join(map(str, row)) for row in RATED_ANSWERS)]))
  done = run_main("check_data.py", path)
  columns = f"prompt=question,completion=answer,score={rating}"
  assert done.returncode == 3 and f"--columns '{columns}'" in done.stderr
  assert "--format prompt" in done.stderr and "drop" not in done.stderr
  read = run_main("check_data.py", path, "--columns", columns).json
  assert (read["format"], read["ratings"]) == ("rated", {"score": [4, 1, 5]})
  assert run_main("check_data.py", path, "--format", "prompt").json["format"] == "prompt"


def test_an_unread_answer_is_a_finding_and_its_rows_are_not_said_to_repeat(tmp_path):
  path = tmp_path / "answers.csv"
  path.write_text("\n".join(["question,answer,rater", *(",".join(row[:3]) for row in RATED_ANSWERS)]))
  findings = tmp_path / "findings.jsonl"
  done = run_main("check_data.py", path, "--findings", findings)
  found = {one["check"]: one for one in done.json["findings"]}
  assert (done.returncode, found.keys()) == (0, {"unread_columns", "duplicate"})
  assert "--columns 'prompt=question,completion=answer'" in found["unread_columns"]["advice"]
  assert found["unread_columns"]["rows"] == [f"{path}:1"] and found["unread_columns"]["count"] == 2
  assert "not duplicates" in found["duplicate"]["advice"] and "drop" not in found["duplicate"]["advice"]
  assert json.loads(findings.read_text().splitlines()[0])["check"] == "unread_columns"
  strict = run_main("check_data.py", path, "--strict")
  assert strict.returncode == 3 and f"hint: {found['unread_columns']['advice']}" in strict.stderr
