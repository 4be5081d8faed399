"""What people call their columns, and what they have beside pairs: read as what it says, or refused with a way to read it."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from conftest import assistant, run_script, user, write_jsonl
from reward_modeling.data import reading
from reward_modeling.data.audit.parts import kind_of_row
from reward_modeling.data.formats import ANYTHING
from reward_modeling.data.reading import load, stream
from reward_modeling.data.records import Solution, comparisons, to_score
from reward_modeling.data.writing import to_row
from reward_modeling.errors import DataError


def write_csv(path, rows):
  with open(path, "w", newline="") as file:
    out = csv.DictWriter(file, rows[0])
    out.writeheader()
    out.writerows(rows)
  return str(path)


@pytest.fixture
def read(tmp_path):
  return lambda *rows, **how: load([str(write_jsonl(tmp_path / "rows.jsonl", rows))], **{"tiers": ANYTHING} | how)


def texts(messages):
  return [message["content"] for message in messages]


def pairs_of(records):
  return [(texts(pair.prompt), texts(pair.chosen), texts(pair.rejected)) for pair in comparisons(records)]


AB = [(["Q"], ["A"], ["B"])]
NAMED = {
  "argilla": {"prompt": "Q", "chosen_response": "A", "rejected_response": "B", "chosen_rating": 5},
  "argilla, instruction": {"instruction": "Q", "chosen_response": "A", "rejected_response": "B"},
  "argilla, input": {"input": "Q", "response_chosen": "A", "response_rejected": "B"},
  "RewardBench's script": {"text_chosen": [user("Q"), assistant("A")], "text_rejected": [user("Q"), assistant("B")]},
  "accepted": {"prompt": "Q", "accepted": "A", "rejected": "B"},
  "preferred": {"prompt": "Q", "preferred": "A", "dispreferred": "B"},
  "better and worse": {"prompt": "Q", "better_answer": "A", "worse_answer": "B"},
  "reject": {"prompt": "Q", "chosen": "A", "reject": "B"},
  "both": {"chosen_response": "x", "rejected_response": "y", "prompt": "Q", "chosen": "A", "rejected": "B"},
  "winner and loser": {"prompt": "Q", "response_a": "A", "response_b": "B", "winner": "a", "loser": "b"},
  "query": {"query": "Q", "chosen": "A", "rejected": "B"},
  "messages": {"messages": [user("Q")], "chosen": [assistant("A")], "rejected": [assistant("B")]},
  "context": {"context": [user("Q")], "chosen": "A", "rejected": "B"},
  "instruction, a and b": {"instruction": "Q", "response_a": "A", "response_b": "B", "winner": "a"},
  "answers a and b": {"question": "Q", "answer_a": "A", "answer_b": "B", "preference": "A"},
  "outputs A and B": {"prompt": "Q", "output_A": "A", "output_B": "B", "preferred": "model_a"},
  "Capybara": {
    "conversation": [{"input": "Q", "output": "A"}],
    "chosen": [user("Q"), assistant("A")],
    "rejected": [user("Q"), assistant("B")],
  },
}


@pytest.mark.parametrize("name", NAMED)
def test_columns_whose_names_say_what_they_hold(read, name):
  records = read(NAMED[name])
  assert pairs_of(records) == AB
  assert (
    pairs_of(load([str(write_jsonl(Path(records.files[0]).with_name("copy.jsonl"), map(to_row, records.rows)))])) == AB
  )


def test_names_that_a_format_has_of_its_own_stay_what_they_are(read):
  assert read({"query": "Q", "response": "A", "rejected_response": "B"}).format == "ms_swift_query"
  assert read({"prompt": "Q", "chosen": "A", "rejected": "B", "better": "x", "worse": "y"}).metadata_columns == (
    "better",
    "worse",
  )
  with pytest.raises(DataError, match="`winner` holds numbers"):
    read({"prompt": "Q", "response_a": "A", "response_b": "B", "preference": 1})


ANSWERS = {
  "objects": ({"prompt": "Q", "answers": [{"text": "A", "pm_score": 3}, {"text": "B", "pm_score": 1}]}, {}),
  "1 and 2": ({"prompt": "Q", "text_1": "A", "text_2": "B", "preferred": 1}, {"winner_values": {"1": "a"}}),
  "best first": ({"prompt": "Q", "ranked_responses": ["A", "B"]}, {"format": "best_first"}),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_are_not_left_out_in_silence(read, name):
  row, how = ANSWERS[name]
  with pytest.raises(DataError, match="only the prompts of these rows fit a format") as caught:
    read(row)
  assert "for the prompts alone, --format prompt" in caught.value.hint
  columns = caught.value.hint.split("--columns '")[1].split("'")[0]
  assert ("--format best_first" in caught.value.hint) == ("format" in how)
  assert pairs_of(read(row, columns=dict(part.split("=") for part in columns.split(",")), **how)) == AB
  assert read(row, format="prompt").format == "prompt"


def test_answers_beside_prompts_are_said(read, capsys):
  assert read({"question": "2+2?", "answer": "4"}).format == "prompt"
  assert "--columns 'prompt=question,completion=answer'" in capsys.readouterr().err


KTO = {
  "TRL": {"prompt": "Q", "completion": "A", "label": True},
  "messages": {"messages": [user("Q"), assistant("A")], "label": True},
  "LLaMA-Factory": {
    "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}],
    "kto_tag": True,
  },
  "alpaca": {"instruction": "Q", "input": "", "output": "A", "kto_tag": "True"},
}


@pytest.mark.parametrize("name", KTO)
def test_labels_of_one_answer_are_checked_and_scored_and_make_no_pairs(read, tmp_path, name):
  tag = "label" if "label" in KTO[name] else "kto_tag"
  records = read(KTO[name], KTO[name] | {tag: False}, KTO[name] | {tag: None})
  assert (records.format, records.set_aside) == ("kto", {"unlabeled": 1})
  assert [(texts(row.prompt), row.scores, kind_of_row(row)) for row in records.rows] == [
    (["Q"], [1.0], "labeled_completions"),
    (["Q"], [0.0], "labeled_completions"),
  ]
  with pytest.raises(DataError, match=r"format `kto`\) label one answer each as desirable or not"):
    comparisons(records)
  assert [row.metadata[tag] for row in to_score(records).rows] == [KTO[name][tag], False, None]
  again = load([str(write_jsonl(tmp_path / "copy.jsonl", map(to_row, records.rows)))])
  assert (again.format, [row.scores for row in again.rows]) == ("kto", [[1.0], [0.0]])


def test_other_labels_of_one_answer_stay_metadata(read):
  assert read({"prompt": "Q", "completion": "A", "label": "math"}).format == "completion"


@pytest.mark.parametrize("write_list", [str, json.dumps])
def test_lists_of_texts_in_cells(tmp_path, write_list):
  several = {"prompt": "Q", "chosen": write_list(["A"]), "rejected": write_list(["B", "C"])}
  records = load([write_csv(tmp_path / "a.csv", [several])])
  assert pairs_of(records) == [*AB, (["Q"], ["A"], ["C"])]
  old = {"instruction": "Q", "output": write_list(["A", "B"])}
  assert pairs_of(load([write_csv(tmp_path / "b.csv", [old])])) == AB
  answers = [{"prompt": "Q", "chosen": "A", "rejected": '["x"]'}, {"prompt": "Q", "chosen": '["x"]', "rejected": "A"}]
  assert pairs_of(load([write_csv(tmp_path / "c.csv", answers)]))[0] == (["Q"], ["A"], ['["x"]'])


STEPS = {
  "with a point": "2+2+2? Step 1. 2+2=4",
  "a heading": "2+2+2?\n## Step 1: 2+2=4",
  "small": "2+2+2? step 1: 2+2=4",
  "a paragraph": "2+2+2?\n\nFirst, 2+2=4",
  "a line": "2+2+2?\nFirst, 2+2=4",
  "a question": "2+2+2? First, 2+2=4",
}


@pytest.mark.parametrize("name", STEPS)
def test_a_first_step_without_its_number(read, name):
  turns = [user(STEPS[name]), assistant("+"), user("Then 4+2=7"), assistant("-")]
  (row,) = read({"conversations": turns}).rows
  assert isinstance(row, Solution) and texts(row.prompt) == ["2+2+2?"]
  assert (row.steps[0].endswith("2+2=4"), row.steps[1], row.labels) == (True, "Then 4+2=7", [1.0, 0.0])


def test_public_benchmarks_by_name(read):
  row = {
    "chosen_model": "m",
    "rejected_model": "n",
    "subset": "s",
    "id": 7,
    "prompt": "Q",
    "chosen": "A",
    "rejected": "B",
  }
  records = read(row)
  assert (records.format, records.rows[0].metadata["subset"], pairs_of(records)) == ("rewardbench", "s", AB)
  asked = [user("Q") | {"language": "English"}]
  answer = lambda text: {"llm_name": "m", "answer": text}  # noqa: E731
  records = read({"pair_uid": "1", "conversation_input": asked, "chosen": answer("A"), "reject": answer("B")})
  assert (records.format, pairs_of(records)) == ("rmb", AB)
  best = {"conversation_input": asked, "bon_best": answer("A"), "loser_list": [answer("B"), answer("C")]}
  records = read(best)
  assert (records.format, pairs_of(records)) == ("rmb_best_of_n", [*AB, (["Q"], ["A"], ["C"])])


def test_messages_of_a_tree_are_read_together_across_slices(tmp_path, monkeypatch):
  monkeypatch.setattr(reading, "SLICE", 2)
  node = lambda name, parent, text, role, rank=None: {  # noqa: E731
    **{"message_id": name, "parent_id": parent, "text": text, "role": role, "rank": rank}
  }
  rows = [node("b", "q", "B", "assistant", 1), node("a", "q", "A", "assistant", 0), node("q", None, "Q", "prompter")]
  other = str(write_jsonl(tmp_path / "other.jsonl", [{"prompt": "Q", "completions": ["x"]}] * 3))
  read = list(stream([str(write_jsonl(tmp_path / "flat.jsonl", rows)), other]))
  assert [([texts(answer) for answer in row.completions], row.scores) for row in read[:1]] == [
    ([["B"], ["A"]], [-1, 0])
  ]
  assert len(read) == 4


def test_an_error_in_the_data_is_json_on_stdout_in_every_script(tmp_path, toy_model):
  model, _ = toy_model
  data = str(write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "Q", "chosen": 1, "rejected": "B"}]))
  runs = {
    "check_data.py": [data],
    "train.py": ["--model_name_or_path", model, "--dataset_name", data, "--output_dir", tmp_path / "out"],
    "score.py": ["--model_name_or_path", model, "--input", data],
    "evaluate.py": ["--model_name_or_path", model, "--dataset_name", data],
  }
  for script, arguments in runs.items():
    done = run_script(script, *arguments)
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["error"]["where"] == f"{data}:1"
    assert json.loads(done.stdout)["error"]["message"] == "`chosen` is a number (1), not text or messages"


CASES = Path(__file__).parents[3].parent / "shared" / "cases"
CASE_ROWS = {  # file: (rows in, format, kinds, set aside, labels of the first step data)
  "02-helpsteer2.jsonl": (12, "rated", {"rated_completions": 12}, {}, None),
  "03-helpsteer3_slight.jsonl": (6, "helpsteer3", {"pairs": 3}, {"tie": 3}, None),
  "12-kto.jsonl": (12, "kto", {"labeled_completions": 12}, {}, None),
  "12-kto_messages.jsonl": (12, "kto", {"labeled_completions": 12}, {}, None),
  "16-rlhflow_prm.jsonl": (6, "marked_turns", {"steps": 6}, {}, [1.0, 0.0]),
  "17-erprm.jsonl": (6, "tagged_steps", {"steps": 6}, {}, [0.9, 0.05]),
  "18-prm800k.jsonl": (1, "prm800k", {"steps": 7}, {}, [1.0, 1.0, 1.0]),
  "31-four_bad.jsonl": (40, "explicit", {"pairs": 40}, {}, None),
  "35-llama2_prompt.jsonl": (24, "explicit", {"pairs": 24}, {}, None),
  "35-templated_prompt.jsonl": (24, "explicit", {"pairs": 24}, {}, None),
  "19-jsonstrings.jsonl": (6, "explicit", {"pairs": 6}, {}, None),
  "19-jsonstrings_implicit.jsonl": (6, "implicit", {"pairs": 6}, {}, None),
  "19-pandas.csv": (6, "explicit", {"pairs": 6}, {}, None),
  "19-pandas_implicit.csv": (6, "implicit", {"pairs": 6}, {}, None),
  "19-pandas_numpy.csv": (6, "explicit", {"pairs": 6}, {}, None),
  "19-steps.csv": (4, "processbench", {"steps": 4}, {}, [1.0, 0.0]),
  "21-call_vs_text.jsonl": (24, "explicit", {"pairs": 24}, {}, None),
  "21-calls_no_tools.jsonl": (24, "explicit", {"pairs": 24}, {}, None),
  "21-calls_tools.jsonl": (24, "explicit", {"pairs": 24}, {}, None),
  "21-old_function_call.jsonl": (24, "explicit", {"pairs": 24}, {}, None),
  "21-score_calls.jsonl": (3, "completions", {"completions": 3}, {}, None),
  "28-openrlhf_prm.jsonl": (4, "tagged_steps", {"steps": 4}, {}, [1.0, 0.0]),
  "29-pb_strings.jsonl": (3, "processbench", {"steps": 3}, {}, [1.0, 0.0]),
  "30-nan.jsonl": (1, "explicit", {"pairs": 1}, {}, None),
  "31-one_bad.jsonl": (40, "explicit", {"pairs": 40}, {}, None),
  "32-array.jsonl": (3, "explicit", {"pairs": 3}, {}, None),
  "32-semicolon.csv": (4, "explicit", {"pairs": 4}, {}, None),
  "35-human_inline.jsonl": (24, "explicit", {"pairs": 24}, {}, None),
}
"""The others, whose chosen answers are known by their words, are in test_formats_datasets.py."""
WORSE = ("No idea", "Because it is", "Cucumber", "Five", "Someone old", "Ask a fish")


@pytest.mark.skipif(not CASES.is_dir(), reason="the files are not beside the repository")
@pytest.mark.parametrize("name", CASE_ROWS)
def test_files_of_the_shapes_that_people_have(name):
  rows, format, kinds, set_aside, labels = CASE_ROWS[name]
  records = load([str(CASES / name)], tiers=ANYTHING)
  assert (records.format, Counter(map(kind_of_row, records.rows)), records.set_aside) == (format, kinds, set_aside)
  assert len({row.origin for row in records.rows}) + sum(set_aside.values()) == rows
  if labels:
    assert records.rows[0].labels == labels
  for row in records.rows:
    if format in ("explicit", "implicit", "helpsteer3") and name[:2] in ("03", "19"):
      better, worse = row.chosen[0]["content"], row.rejected[0]["content"]
      assert worse.startswith(WORSE) != better.startswith(WORSE)
      assert better.startswith(WORSE) == (name == "03-helpsteer3_slight.jsonl")
    if name[:2] in ("31", "35"):
      better, worse = (answer[0]["content"].strip() for answer in (row.chosen, row.rejected))
      assert better.startswith("thank you") and worse.startswith("no ")
    if format == "kto":
      assert row.scores == [float(not row.completions[0][0]["content"].startswith(WORSE))]


def test_names_in_capitals_are_read_where_no_name_is_in_lower_case(read):
  records = read({"Prompt": "p?", "Chosen": "right", "Rejected": "wrong", "Id": 1})
  assert records.format == "explicit"
  assert records.rows[0].prompt[0]["content"] == "p?"
  assert records.rows[0].chosen[0]["content"] == "right"


def test_messages_under_an_unknown_name_are_never_left_out(read):
  row = {"trajectory": [{"from": "user", "value": "2+2?"}], "chosen": "It is four.", "rejected": "Not five."}
  turns = {**row, "chosen": [{"from": "gpt", "value": "4"}], "rejected": [{"from": "gpt", "value": "5"}]}
  for one in (row, turns):
    with pytest.raises(DataError, match="column `trajectory` could be part of the input") as caught:
      read(one)
    assert (
      caught.value.hint == "these rows can be read with --columns 'prompt=trajectory,chosen=chosen,rejected=rejected'"
    )
    assert read(one, columns={"prompt": "trajectory"}).rows[0].prompt[0]["content"] == "2+2?"


def test_messages_that_repeat_what_is_read_are_metadata(read):
  turns = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
  row = {"prompt": "2+2?", "chosen": turns, "rejected": [turns[0], {"role": "assistant", "content": "5"}]}
  assert read(row | {"whole": turns}).rows[0].metadata["whole"] == turns


def test_steps_and_labels_under_other_names_are_guessed(read):
  with pytest.raises(DataError) as caught:
    read({"question": "2+2+2?", "solution_steps": ["2+2=4", "4+2=7"], "step_scores": [0.9, 0.1]})
  assert "--columns 'prompt=question,completions=solution_steps,labels=step_scores'" in caught.value.hint


def test_numbered_answers_are_one_list_and_their_scores_another(tmp_path):
  rows = [
    {
      "prompt": "hi",
      "Answer 1": "a",
      "Answer 2": "b",
      "Answer 3": "",
      "rating_1": "1",
      "rating_2": "2.5",
      "rating_3": "",
    },
    {
      "prompt": "ho",
      "Answer 1": "a",
      "Answer 2": "b",
      "Answer 3": "c",
      "rating_1": "3",
      "rating_2": "1",
      "rating_3": "0",
    },
  ]
  records = load(write_csv(tmp_path / "rows.csv", rows))
  assert [[answer[0]["content"] for answer in one.completions] for one in records.rows] == [["a", "b"], ["a", "b", "c"]]
  assert [one.scores for one in records.rows] == [[1, 2.5], [3, 1, 0]]
  assert not any(one.metadata for one in records.rows)
  unrated = load(
    write_csv(tmp_path / "unrated.csv", [{"prompt": "p", "response_1": "a", "response_2": "b", "response_3": "c"}])
  )
  assert unrated.format == "completions" and len(unrated.rows[0].completions) == 3


def test_two_numbered_answers_are_not_taken_for_a_list(read):
  """Which is better may be in any other column."""
  assert read({"prompt": "p", "response_1": "a", "response_2": "b"}).format != "completions"


def test_a_vote_that_names_a_column_is_found_without_a_flag_in_the_hint(read):
  row = {"ticket": "7", "customer_message": "hello?", "draft_one": "x", "draft_two": "y", "reviewer_pick": "draft_two"}
  with pytest.raises(DataError) as caught:
    read(row)
  columns = "prompt=customer_message,response_a=draft_one,response_b=draft_two,winner=reviewer_pick"
  assert f"--columns '{columns}'" in caught.value.hint
  names = dict(pair.split("=") for pair in columns.split(","))
  assert read(row, columns=names).rows[0].chosen[0]["content"] == "y"


def test_scores_of_some_numbered_answers_are_metadata(tmp_path):
  row = {"prompt": "2+2?", "answer_1": "4", "answer_2": "5", "answer_3": "6", "score_1": 1, "score_2": 0}
  path = tmp_path / "rows.jsonl"
  path.write_text(json.dumps(row) + "\n")
  (found,) = load(str(path), tiers=ANYTHING).rows
  assert (len(found.completions), found.scores, found.metadata) == (3, None, {"score_1": 1, "score_2": 0})


def places(*best, name="best"):
  return [{"prompt": f"Q{i}", "completions": ["A", "B"], name: place} for i, place in enumerate(best)]


@pytest.mark.parametrize("name", ["best", "best_index", "chosen_index"])
def test_the_place_of_the_best_answer_is_counted_from_0(read, name):
  assert pairs_of(read(*places(1, 0, name=name))) == [(["Q0"], ["B"], ["A"]), (["Q1"], ["A"], ["B"])]


def test_a_place_that_may_count_from_1_is_read_only_where_the_format_is_named(read):
  assert read(*places(1, 1)).format == "completions" and read(*places(1, 2)).format == "completions"
  assert pairs_of(read(*places(1, 1), format="best")) == [(["Q0"], ["B"], ["A"]), (["Q1"], ["B"], ["A"])]
  with pytest.raises(DataError, match=r"`best` is 2: it is a place from 0 to 1"):
    read(*places(1, 0, 2), format="best")


LISTS = {
  "CodeUltraFeedback": {
    "instruction": "Q",
    "responses": [{"model": "m", "response": "A"}, {"model": "n", "response": "B"}],
    "annotations": [{"model": "m", "rating": "5"}, {"model": "n", "rating": "3"}],
  },
  "JudgeLM": {"question_body": "Q", "answer1_body": "A", "answer2_body": "B", "score": [7, 4], "text": "7 4"},
  "grades": {"question": "Q", "answers": ["A", "B"], "grades": [2, 1]},
  "points": {"task": "Q", "candidates": ["A", "B"], "points": [0.5, 0.25]},
}


@pytest.mark.parametrize("name", LISTS)
def test_scores_in_a_list_of_their_own_are_suggested_and_read(read, name):
  row = LISTS[name]
  with pytest.raises(DataError) as caught:
    read(row)
  line = caught.value.hint.partition("--columns '")[2].partition("'")[0]
  assert "scores=" in line
  columns = dict(one.split("=") for one in line.split(","))
  assert pairs_of(read(row, columns=columns)) == AB
  short = row | {key: value[:1] for key, value in row.items() if key == columns["scores"].partition("[")[0]}
  with pytest.raises(DataError):
    read(short, columns=columns)
