"""check_data.py cleans a file in one command: every planted row is found, and the clean file keeps the file's own layout."""

import csv
import json
import random

import pytest

from conftest import run_main

LONG = "word " * 200


def pair(n: int, **more) -> dict:
  return {
    "note": n,
    "rejected": f"poor {n}",
    "prompt": f"question {n}",
    "extra": {"b": n, "a": None},
    "chosen": f"good {n}",
  } | more


def planted() -> tuple[list[str], dict[str, set[int]]]:
  """2,000 lines, and by check the numbers of the lines that it must name."""
  rows = [("", pair(n)) for n in range(1900)]
  for n in range(20):
    rows += [
      ("contradiction", pair(9000 + n)),
      ("contradiction", pair(9000 + n, chosen=f"poor {9000 + n}", rejected=f"good {9000 + n}")),
    ]
    rows.append(("identical", pair(9100 + n, chosen="same", rejected="same")))
  rows += [("train_eval_overlap", pair(9200 + n)) for n in range(15)]
  rows += [("over_length", pair(9300 + n, chosen=LONG)) for n in range(14)]
  random.Random(0).shuffle(rows)
  rows += [("duplicate", pair(n)) for n in range(10)]
  rows.append(("unreadable", None))
  lines = [json.dumps(row) if row else '{"prompt": "cut' for _, row in rows]
  found: dict[str, set[int]] = {}
  for number, (check, _) in enumerate(rows, 1):
    found.setdefault(check, set()).add(number)
  return lines, found


def test_two_thousand_rows_in_one_command(tmp_path, tiny):
  lines, expected = planted()
  assert len(lines) == 2000
  data, output, findings = (tmp_path / name for name in ("pairs.jsonl", "clean.jsonl", "findings.jsonl"))
  data.write_text("\n".join(lines))
  held_out = tmp_path / "eval.jsonl"
  held_out.write_text("".join(json.dumps(pair(9200 + n, chosen="x", rejected="y")) + "\n" for n in range(15)))
  checks = [check for check in expected if check]
  command = ["check_data.py", data, "--eval_dataset_name", held_out, "--model_name_or_path", tiny("qwen2")]
  command += ["--max_length", 100, "--findings", findings]
  done = run_main(*command, "--drop", *checks, "--layout", "original", "--output", output)
  assert done.returncode == 0, done.stderr
  assert done.json["dropped_rows"] == {check: len(expected[check]) for check in checks}
  clean = [line for number, line in enumerate(lines, 1) if number in expected[""]]
  assert output.read_text().splitlines() == clean and done.json["kept"] == len(clean)
  told: dict[str, set[int]] = {}
  for line in map(json.loads, findings.read_text().splitlines()):
    if line["row"]:
      told.setdefault(line["check"], set()).add(int(line["row"].rpartition(":")[2]))
  assert {check: told[check] for check in checks} == {check: expected[check] for check in checks}
  again = run_main(*command[:1], output, *command[2:-2])
  assert not any(finding["severity"] != "info" for finding in again.json["findings"]), again.json["findings"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_table_stays_a_table(tmp_path, name):
  rows = [
    ["note", "rejected", "prompt", "chosen"],
    ["1", "x, y", "p\nq", 'a "b"\tc'],
    ["2", "s", "p", "s"],
    ["", "x", "r", "y"],
  ]
  with open(tmp_path / name, "w", newline="") as file:
    csv.writer(file, delimiter="\t" if name == "a.tsv" else ";").writerows(rows)
  output = tmp_path / f"clean.{name}"
  done = run_main("check_data.py", tmp_path / name, "--drop", "identical", "--layout", "original", "--output", output)
  assert done.returncode == 0, done.stderr
  with open(output, newline="") as file:
    assert list(csv.reader(file, delimiter="\t" if name == "a.tsv" else ",")) == [rows[0], rows[1], rows[3]]


def test_the_columns_of_the_file_stay_whatever_was_renamed_and_however_often_it_is_named(tmp_path):
  rows = [
    {"q": "2+2?", "good": "4", "bad": {"text": "5"}, "meta": 1},
    {"q": "p", "good": "x", "bad": {"text": "x"}, "meta": 2},
  ]
  data, output = tmp_path / "a.jsonl", tmp_path / "clean.jsonl"
  data.write_text("".join(json.dumps(row) + "\n" for row in rows))
  done = run_main(
        "check_data.py", data, data, "--columns", "prompt=q,chosen=good,rejected=bad.text",
        "--drop", "identical", "duplicate", "--layout", "original", "--output", output,
    )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert [json.loads(line) for line in output.read_text().splitlines()] == rows[:1]


def test_over_length_completions_leave_their_ranking(tmp_path, tiny):
  rows = [
    {"prompt": "p", "completions": ["a", LONG, "b"], "scores": [3, 2, 1]},
    {"prompt": "q", "completions": ["a", LONG], "scores": [2, 1]},
  ]
  data, output = tmp_path / "a.jsonl", tmp_path / "clean.jsonl"
  data.write_text("".join(json.dumps(row) + "\n" for row in rows))
  command = ["check_data.py", data, "--model_name_or_path", tiny("qwen2"), "--max_length", 100]
  command += ["--drop", "over_length", "--output", output]
  done = run_main(*command)
  assert (done.json["dropped_rows"], done.json["dropped_completions"]) == ({"over_length": 1}, {"over_length": 1})
  (kept,) = map(json.loads, output.read_text().splitlines())
  assert [answer[0]["content"] for answer in kept["completions"]] == ["a", "b"] and kept["scores"] == [3, 1]
  refused = run_main(*command, "--overwrite", "--layout", "original")
  assert refused.returncode == 3 and "only a part of this row stays" in refused.stderr
  assert f"--> {data}:1" in refused.stderr


def test_long_solutions_and_rows_to_be_scored_are_found(tmp_path, tiny):
  data, output = tmp_path / "a.jsonl", tmp_path / "clean.jsonl"
  for rows in (
    [{"prompt": "p", "completions": ["s", end], "labels": [1, 0]} for end in ("t", LONG)],
    [{"prompt": "p", "completion": end} for end in ("t", LONG)],
    [{"prompt": end} for end in ("t", LONG)],
  ):
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run_main(
            "check_data.py", data, "--model_name_or_path", tiny("qwen2"), "--max_length", 100,
            "--drop", "over_length", "--layout", "original", "--output", output, "--overwrite",
        )  # fmt: skip
    assert done.json["dropped_rows"] == {"over_length": 1}, done.stderr
    assert [json.loads(line) for line in output.read_text().splitlines()] == rows[:1]


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--max_length", 5], "--max_length needs --model_name_or_path"),
    (["--drop", "over_length", "--output", "x"], "--drop over_length needs --max_length"),
    (["--layout", "original"], "--layout original needs --output"),
  ],
)
def test_flags_that_lack_another(tmp_path, flags, message):
  (tmp_path / "a.jsonl").write_text(json.dumps(pair(1)) + "\n")
  done = run_main("check_data.py", tmp_path / "a.jsonl", *flags)
  assert done.returncode == 2 and message in done.stderr
