"""Shapes that people have on the hub and in spreadsheets: each is read as a person reads it, or refused with what to do."""

import json
import sys
from types import SimpleNamespace

import pytest

from conftest import assistant, user, write_jsonl
from reward_modeling.data.audit import audit
from reward_modeling.data.formats import ANSWERS, ANYTHING
from reward_modeling.data.reading import load
from reward_modeling.data.records import Comparison, comparisons, rated_answers
from reward_modeling.errors import DataError
from reward_modeling.training.data import Data


@pytest.fixture
def read(tmp_path):
  return lambda *rows, **how: load([str(write_jsonl(tmp_path / "rows.jsonl", rows))], **{"tiers": ANYTHING} | how)


def system(text):
  return {"role": "system", "content": text}


def said(messages):
  return [(message["role"][0], message["content"]) for message in messages]


def pair_of(records):
  (pair,) = comparisons(records)
  return said(pair.prompt), said(pair.chosen), said(pair.rejected)


ONE_TURN = ([("u", "Q")], [("a", "A")], [("a", "B")])
TWO_TURNS = ([("u", "P"), ("a", "R"), ("u", "Q")], [("a", "A")], [("a", "B")])
WITH_SYSTEM = ([("s", "S"), ("u", "Q")], [("a", "A")], [("a", "B")])
WHOLE = {"chosen": [user("Q"), assistant("A")], "rejected": [user("Q"), assistant("B")]}
SIDES = {"chosen": "A", "rejected": "B"}


@pytest.mark.parametrize(
  ("row", "expected"),
  [
    ({"instruction": "Q", **WHOLE}, ONE_TURN),  # Magpie
    ({"system": "S", "instruction": "Q", **WHOLE}, WITH_SYSTEM),
    ({"conversations": [user("Q")], **WHOLE}, ONE_TURN),
    ({"messages": WHOLE["chosen"], **WHOLE}, ONE_TURN),
    ({"prompt": [system("S"), user("Q")], **WHOLE}, WITH_SYSTEM),
    ({"prompt": [user("Q")]} | {name: [system("S"), *side] for name, side in WHOLE.items()}, WITH_SYSTEM),
  ],
)
def test_answers_that_are_whole_conversations_do_not_repeat_the_prompt(read, row, expected):
  assert pair_of(read(row)) == expected


def turns_of(who, what, user_is="user", assistant_is="assistant"):
  names = (user_is, assistant_is, user_is)
  return [{who: name, what: text} for name, text in zip(names, ("P", "R", "Q"), strict=True)]


@pytest.mark.parametrize(
  "turns",
  [
    turns_of("speaker", "said"),
    turns_of("author", "text", "human", "bot"),
    turns_of("from", "body", "User", "Assistant"),
    turns_of("sender", "message", "human", "ai"),
    turns_of("who", "utterance"),
    turns_of("role", "text"),
    turns_of("type", "content", "human", "ai"),
    [turn | {"parts": [{"text": turn.pop("text")}]} for turn in turns_of("role", "text", "user", "model")],  # Gemini
    [{"human": "P", "assistant": "R"}, {"human": "Q", "assistant": None}],
    [{"input": "P", "output": "R"}, {"input": "Q", "output": ""}],
    json.dumps(turns_of("speaker", "said")),
  ],
)
@pytest.mark.parametrize("column", ["prompt", "dialogue"])
def test_turns_under_other_names(read, column, turns):
  assert pair_of(read({column: turns, **SIDES})) == TWO_TURNS


def test_a_prompt_of_a_system_and_a_user_text(read):
  assert pair_of(read({"prompt": {"user": "Q", "system": "S"}, **SIDES})) == WITH_SYSTEM


def test_answers_under_other_names(read):
  answer = lambda text: [{"speaker": "bot", "utterance": text}]  # noqa: E731
  assert pair_of(read({"prompt": "Q", "chosen": answer("A"), "rejected": json.dumps(answer("B"))})) == ONE_TURN


def test_speakers_without_a_role_are_named(read):
  with pytest.raises(DataError, match="a message whose who is Alice"):
    read({"dialogue": turns_of("who", "utterance", "Alice", "Bob"), **SIDES})


def test_history_of_turns_before_an_instruction(read):
  row = {"history": [{"human": "P", "assistant": "R"}], "instruction": "Q", **SIDES}
  assert pair_of(read(row)) == TWO_TURNS


AB = {"prompt": "Q", "response_a": "A", "response_b": "B"}


def test_winners_that_are_names_of_models_are_shown_as_these(read):
  names = {"model_a": "gpt", "model_b": "llama"}
  rows = [AB | names | {"winner": "gpt"}, AB | names | {"winner": "neither"}, AB | names | {"winner": "llama"}]
  records = read(*rows)
  assert records.winner_values == {"gpt=a": 1, "neither=tie": 1, "llama=b": 1}
  assert [said(pair.chosen) for pair in comparisons(records)] == [[("a", "A")], [("a", "B")]]
  swapped = [AB | {"model_a": "llama", "model_b": "gpt", "winner": "gpt"}]
  assert read(*swapped, *rows).winner_values == {"gpt=b": 1, "gpt=a": 1, "neither=tie": 1, "llama=b": 1}


@pytest.mark.parametrize("word", ["inconclusive", "无", "tie (all bad)"])
def test_an_unknown_word_for_a_tie_suggests_the_line_that_says_so(read, word):
  rows = AB | {"winner": "A is better"}, AB | {"winner": word}
  with pytest.raises(DataError) as caught:
    read(*rows)
  assert f"--winner_values '{word}=tie'" in caught.value.message
  records = read(*rows, winner_values={word: "tie"})
  assert records.set_aside == {"tie": 1} and len(records.rows) == 1


def test_a_column_named_in_words_may_be_the_winner(read):
  names = {"prompt": "question", "response_a": "answer_1", "response_b": "answer_2", "winner": "preferred"}
  row = {"question": "Q", "answer_1": "B", "answer_2": "A", "preferred": "Answer 2"}
  assert pair_of(read(row, columns=names)) == ONE_TURN


STEPS = {"prompt": "Q", "steps": ["x", "y", "z"]}


@pytest.mark.parametrize(
  ("labels", "expected"),
  [
    ([1, -1, -1], [1, 0, 0]),  # VersaPRM
    (["+", "-"], [1, 0, None]),
    (["correct", "Incorrect", None], [1, 0, None]),
    ([1, 1, -1], [1, 1, 0]),
    (["1", "0", "1"], [1, 0, 1]),
  ],
)
def test_labels_of_steps(read, labels, expected):
  (row,) = read(STEPS | {"labels": labels}).rows
  assert row.labels == expected


def test_a_zero_beside_minus_one_is_asked_about(read):
  with pytest.raises(DataError, match="--neutral says what that means"):
    read(STEPS | {"labels": [1, 0, -1]})


def test_a_zero_in_another_row_than_minus_one_is_asked_about(read):
  rows = [STEPS | {"labels": [1, -1, -1]}, STEPS | {"labels": [1, 0, 1]}]
  with pytest.raises(DataError, match="holds -1 in some rows and 0 in others") as caught:
    read(*rows)
  assert "--columns ratings=labels" in caught.value.hint
  assert read(STEPS | {"labels": [-1, -1, 1]}).rows[0].labels == [0, 0, 1]


def test_a_winner_that_is_named_is_not_lost_to_scores(read):
  row = {"prompt": "Q", "response_a": "A", "response_b": "B", "score_a": 1, "score_b": 3, "judgement": "a"}
  assert pair_of(read(row, columns={"winner": "judgement"})) == ONE_TURN


def test_answers_in_json_stay_text(read):
  text = '[{"type": "tool", "text": "hammer"}]'
  assert read({"prompt": "Q", "chosen": text, "rejected": "B"}).rows[0].chosen[0]["content"] == text


def test_null_is_no_error_where_it_is_counted_from_1(read):
  assert read(STEPS | {"label": None}, format="first_error_from_1").rows[0].labels == [1, 1, 1]


@pytest.mark.parametrize("column", ["label", "first_error_step", "error_step"])
def test_a_first_error_that_may_be_counted_from_1_is_asked_about(read, column):
  rows = [STEPS | {column: place} for place in (3, 1, -1)]
  with pytest.raises(DataError) as caught:
    read(*rows)
  assert "first_error_from_1" in caught.value.hint and "processbench" in caught.value.hint
  labels = [row.labels for row in read(*rows, format="first_error_from_1").rows]
  assert labels == [[1, 1, 0], [0, None, None], [1, 1, 1]]


def test_a_first_error_that_is_never_in_the_first_step_of_many_rows(read):
  rows = [STEPS | {"label": place} for place in (1, 2) * 10]
  with pytest.raises(DataError, match="never 0"):
    read(*rows)
  assert read(*rows[:19]).format == read(*rows, STEPS | {"label": 0}).format == "processbench"
  assert read(*rows, format="processbench").rows[0].labels == [1, 0, None]


def test_a_null_place_means_no_error_and_a_null_label_none_at_all(read):
  assert read(STEPS | {"first_error_step": None}, STEPS | {"first_error_step": 0.0}).rows[0].labels == [1, 1, 1]
  assert read(STEPS | {"label": None}, STEPS | {"label": 0}).set_aside == {"unlabeled": 1}


def test_places_beyond_the_steps_are_refused(read):
  with pytest.raises(DataError, match="counted from 1"):
    read(STEPS | {"label": 4}, format="first_error_from_1")


def test_steps_that_both_answers_begin_with_belong_to_them(read):
  row = {"prompt": "Q", "initial_reason_steps": "x\n", "chosen": "A", "rejected": "B", "full_chosen": "x\nA"}
  assert pair_of(read(row)) == ([("u", "Q")], [("a", "x\nA")], [("a", "x\nB")])


@pytest.mark.parametrize("name", ["sys", "system_message", "systemInstruction", "retrieved_context", "pair_images"])
def test_input_under_other_names_is_not_lost(read, name):
  with pytest.raises(DataError, match="could be part of the input") as caught:
    read({"prompt": "Q", name: "S", **SIDES})
  assert f"--columns {name}=" in caught.value.hint
  assert ("only text" in caught.value.hint) == ("image" in name)
  assert pair_of(read({"prompt": "Q", name: "S", **SIDES}, columns={"system": name})) == WITH_SYSTEM


@pytest.mark.parametrize(("good", "bad"), [(1, 0), (True, False), ("chosen", "rejected"), ("Up", "DOWN"), ("1", "0")])
def test_labels_of_single_answers(read, good, bad):
  rows = [{"prompt": "Q", "response": text, "label": label} for text, label in (("A", good), ("B", bad))]
  records = read(*rows, format="kto")
  assert [row.scores for row in records.rows] == [[1.0], [0.0]]
  assert read(*rows).format == ("completion" if good in (1, "1") and good is not True else "kto")


def test_yes_to_a_question_that_nobody_knows_is_read_as_good_only_when_told_so(read):
  row = {"prompt": "Q", "completion": "A", "label": "yes"}  # is it toxic?
  assert read(row).format == "completion" and read(row, format="kto").rows[0].scores == [1.0]


@pytest.mark.parametrize("label", ["maybe", 2])
def test_a_label_that_says_nothing_is_refused(read, label):
  with pytest.raises(DataError, match="`label` is"):
    read({"prompt": "Q", "completion": "A", "label": label}, format="kto")


def test_a_better_conversation_and_a_worse_answer(read):
  assert pair_of(read({"messages": [user("Q"), assistant("A")], "rejected": "B"})) == ONE_TURN


def test_two_answers_with_scores_each(read):
  row = {"instruction": "Q", "output_a": "B", "output_b": "A", "score_a": "1", "score_b": 5}
  assert read(row).rows[0].scores == [1.0, 5.0] and pair_of(read(row)) == ONE_TURN
  both = row | {"preference": "b"}  # the column that says so counts
  assert read({"prompt": "Q"} | {name: both[name] for name in both if name != "instruction"}).format == "pairwise"


def test_ranks_in_columns(read):
  row = {"prompt": "Q"} | {f"answer_{n}": text for n, text in enumerate("BAC", 1)}
  records = read(row | {"rank_1": 2, "rank_2": 1, "rank_3": 3})
  assert records.format == "ranks" and records.rows[0].scores == [-2, -1, -3]


def test_conversations_a_and_b_under_other_names(read):
  sides = {"messages_a": [user("Q"), assistant("B")], "messages_b": [user("Q"), assistant("A")]}
  assert pair_of(read(sides | {"winner": "model_b"})) == ONE_TURN


@pytest.mark.parametrize(
  ("row", "hint"),
  [
    (
      {"prompt": "Q", "responses": ["B", "A"], "chosen": 1},
      "prompt=prompt,response_a=responses[0],response_b=responses[1],winner=chosen",
    ),
    ({"prompt": "Q", "response": "A", "is_safe": True}, "--format kto"),
    ({"prompt": "Q", "completion": "A", "label": 1}, "--format kto"),
    ({"prompt": "Q", "responses": ["A", "B", "C"], "best": 1}, "if these say which is better: best"),
    ({"prompt": "Q", "pairs": [{"a": 1}]}, "if these say which is better: pairs"),
  ],
)
def test_labels_that_are_not_read_are_told(read, capsys, row, hint):
  assert read(row).format in ("completion", "completions", "prompt")
  assert hint in " ".join(capsys.readouterr().err.split())


def test_gemini_rows_get_the_line_that_reads_them(read):
  said = lambda text: {"role": "model", "parts": [{"text": text}]}  # noqa: E731
  asked = [{"role": "user", "parts": [{"text": "Q"}]}]
  row = {
    "contents": asked,
    "completions": [{"score": 0, "completion": said("B")}, {"score": 1, "completion": said("A")}],
  }
  with pytest.raises(DataError) as caught:
    read(row)
  line = caught.value.hint.split("--columns '")[1].split("'")[0]
  assert pair_of(read(row, columns=dict(pair.split("=") for pair in line.split(",")))) == ONE_TURN


def test_a_suggestion_never_puts_the_prompt_aside(read):
  with pytest.raises(DataError) as caught:
    read({"prompt": "Q", "context": "C", **SIDES, "extra_context": "D"})
  assert "prompt=context" not in caught.value.hint and "prompt=extra" not in caught.value.hint


BODY = 'Q,"A; ""x""",B\nP,A,B\n'


@pytest.mark.parametrize(
  "text",
  [
    "sep=,\r\nprompt,chosen,rejected\n" + BODY,
    "\ufeffsep=;\nprompt;chosen;rejected\n" + BODY.replace("A; ", "A@ ").replace(",", ";").replace("@", ";"),
    "prompt,chosen,rejected,,\n" + BODY.replace("B\n", "B,,\n"),
    "prompt, chosen, rejected\n" + BODY.replace(",", ", "),
    "prompt|chosen|rejected\n" + BODY.replace(",", "|"),
    "prompt,chosen,rejected\n" + BODY + ",,\n\n,,\n",
  ],
)
def test_csv_files_of_spreadsheets(tmp_path, text):
  path = tmp_path / "rows.csv"
  path.write_text(text, encoding="utf-8")
  pairs = comparisons(load(str(path), tiers=ANYTHING))
  assert [(said(one.prompt), said(one.chosen), said(one.rejected)) for one in pairs] == [
    ([("u", "Q")], [("a", 'A; "x"')], [("a", "B")]),
    ([("u", "P")], [("a", "A")], [("a", "B")]),
  ]


def test_a_csv_file_in_another_encoding_says_so(tmp_path):
  path = tmp_path / "rows.csv"
  path.write_bytes("prompt,chosen,rejected\ncaf\u00e9,A,B\n".encode("cp1252"))
  with pytest.raises(DataError) as caught:
    load(str(path))
  assert caught.value.hint == "save the file as UTF-8"


def test_rows_by_their_names(tmp_path):
  path = tmp_path / "rows.json"
  path.write_text(json.dumps({name: {"prompt": name, **SIDES} for name in ("x1", "x2")}))
  assert [said(row.prompt) for row in load(str(path)).rows] == [[("u", "x1")], [("u", "x2")]]


@pytest.mark.parametrize(
  ("text", "check"),
  [("It&#39;s &quot;A&quot;", "encoding"), ("a &amp;lt; b", "encoding"), ("assistant: A", "leaked_turn")],
)
def test_left_overs_of_other_programs_are_found(read, text, check):
  found = {finding.check for finding in audit(comparisons(read({"prompt": "Q", "chosen": text, "rejected": "B"})))}
  assert check in found


def test_rows_of_empty_cells_are_counted(tmp_path):
  path = tmp_path / "rows.csv"
  path.write_text("prompt,chosen,rejected\nQ,A,B\n,,\n,,\n")
  records = load(str(path))
  assert len(records.rows) == 1 and records.set_aside == {"row of empty cells": 2}
  assert [row.origin.row for row in records.rows] == [1]


def test_a_copy_without_suggestions_says_what_it_can(read, monkeypatch):
  monkeypatch.setitem(sys.modules, "reward_modeling.data.suggestions", None)
  monkeypatch.delattr("reward_modeling.data.suggestions", raising=False)
  with pytest.raises(DataError, match="no format has the columns bar, foo") as caught:
    read({"foo": "Q", "bar": "A"})
  assert "--columns prompt=A,chosen=B,rejected=C" in caught.value.hint
  assert read({"prompt": "Q", "completion": "A", "label": 1}).format == "completion"


@pytest.mark.parametrize(("share", "told"), [(0.1, True), (0.5, False)])
def test_few_held_out_rows_are_warned_of(capsys, share, told):
  rows = [Comparison([user(str(i))], [assistant("A")], [assistant("B")]) for i in range(100)]
  data = Data("pairs", rows, [], "explicit", {}, []).split(SimpleNamespace(val_set_size=share, seed=42))
  assert (len(data.held_out) < 20) == told
  assert ("says little" in capsys.readouterr().err) == told


@pytest.mark.parametrize(
  ("word", "better"),
  [
    ("Response 2 is slightly better", "B"),
    ("significantly better: A", "A"),
    ("Completion A is much better", "A"),
    ("[[B]]", "B"),
    ("B wins", "B"),
    ("tie(bothbad)", None),
    ("Both are about the same", "?"),
    ("About the same", None),
    ("A is worse", "?"),
    *[(mark + "A", "?") for mark in "-+!~"],
    ("A is better than B", "?"),
  ],
)
def test_how_much_better_is_no_part_of_the_winner(read, word, better):
  rows = AB | {"preference": "A"}, AB | {"preference": word}
  if better == "?":
    with pytest.raises(DataError, match="--winner_values"):
      read(*rows)
  else:
    assert [said(pair.chosen) for pair in comparisons(read(*rows))] == [[("a", "A")]] + [[("a", better)]] * bool(better)


def test_a_scale_is_split_in_the_middle(read):
  def hint(*values):
    with pytest.raises(DataError) as caught:
      read(*[AB | {"preference": value} for value in values])
    return caught.value.hint

  assert "--winner_values 7=a,6=a,4=tie,2=b,1=b, or 7=b,6=b,4=tie,2=a,1=a;" in hint(1, 7, 6, 2, 4)
  assert "--winner_values 10=a,2=b, or 10=b,2=a;" in hint(2, 10)
  assert "too many to name" in hint(*[place / 20 for place in range(1, 20)])


ANSWER_IN_STEPS = [("x", 1.0), ("y", 0.0)]


@pytest.mark.parametrize(
  "row",
  [
    {"question": "Q", "process": "x ки\ny ки", "label": ["+", "-"]},  # OpenR
    {"problem": "Q", "solution": "x<extra_0>y<extra_0>", "step_labels": [1, 0]},
    {"prompt": "Q", "response": "x\n\ny", "labels": [True, False]},
    {"query": "Q", "answer": "x\n\ny\n", "labels": ["correct", "incorrect"]},
    {"prompt": "Q", "steps": ["x", "y"], "labels": ["Desirable", "thumbs down"]},
  ],
)
def test_steps_in_one_text(read, row):
  (found,) = read(row).rows
  assert (said(found.prompt), list(zip(found.steps, found.labels, strict=True))) == ([("u", "Q")], ANSWER_IN_STEPS)


@pytest.mark.parametrize("labels", [["yes", "no"], ["Positive", "negative"]])
def test_a_step_label_that_answers_an_unknown_question_is_refused(read, labels):
  with pytest.raises(DataError, match=f"`labels` holds {labels[0]}"):
    read({"prompt": "Q", "steps": ["x", "y"], "labels": labels})


RUSSIAN = "Сложим числа, без ошибки.\n\nОтвет: 5."


@pytest.mark.parametrize(
  ("row", "steps"),
  [
    ({"response": RUSSIAN, "labels": [1, 0]}, RUSSIAN.split("\n\n")),
    ({"response": RUSSIAN + "\n\nБез ошибки", "labels": [1, 1, 0]}, [*RUSSIAN.split("\n\n"), "Без ошибки"]),
    ({"response": "Без ошибки ки\nОтвет: 5 ки\n", "labels": [1, 0]}, ["Без ошибки", "Ответ: 5"]),
    ({"input": "Q? Step 1: ошибки ки\nStep 2: 5ки", "labels": [1, 0]}, ["Step 1: ошибки", "Step 2: 5"]),
    ({"input": "Q? Step 1: ошибки ки", "label": "Q? Step 1: ошибки +"}, ["Step 1: ошибки"]),
  ],
)
def test_a_step_tag_is_no_part_of_a_russian_word(read, row, steps):
  (found,) = read(({} if "input" in row else {"prompt": "Q"}) | row).rows
  assert found.steps == steps


def test_a_tag_after_the_last_step_may_lack_but_no_tag_stays_in_a_step(read):
  row = {"prompt": "Q", "response": "xки\nyки", "labels": [1, 0]}
  assert [one.steps for one in read(row, row | {"response": "xки\ny"}).rows] == [["x", "y"]] * 2
  with pytest.raises(DataError, match="`labels` has 2 entries for 1 steps"):
    read(row, row | {"response": "xy"})


@pytest.mark.parametrize("labels", [["math", "easy"], [1, 0], [0.1, 0.2], [5, 7]])
def test_one_answer_on_as_many_lines_as_it_has_labels_makes_no_steps_of_a_file(read, labels):
  rows = [{"prompt": f"Q{place}", "response": "x" if place else "x\n\ny", "labels": labels} for place in range(20)]
  found = read(*rows)
  assert (found.format, len(found.rows)) == ("completion", 20)


def test_values_and_other_labels_of_an_answer_on_lines_are_no_steps(read):
  two = {"prompt": "Q", "response": "x\ny"}
  assert read(two | {"value": [0.1, 0.2]}).format == "completion"
  assert read(two | {"labels": ["math", "easy"]}).format == "completion"
  assert read({"prompt": "Q", "response": "x", "labels": [1]}).format == "completion"
  assert read(two | {"labels": [1, None]}, {"prompt": "Q", "response": "x", "labels": [1]}).format == "steps_on_lines"


def test_marks_beside_true_and_false(read):
  (found,) = read({"input": "Q? Step 1: x ки\nStep 2: y ки", "value": ["+", True]}).rows
  assert found.labels == [1, 1]


@pytest.mark.parametrize("name", ["gradual_conversation", "evaluated_dialog", "labeled_talk", "gradient_turns"])
def test_messages_whose_name_begins_like_a_grade_are_not_dropped(read, name):
  with pytest.raises(DataError, match=name):
    read(AB | {"preference": "A", name: [user("Q"), assistant("R")]})
  for known in ("judge_messages", "annotations", "judgement", "grading", "evaluations_1", "label", "reference"):
    assert len(read(AB | {"preference": "A", known: [user("Q"), assistant("R")]}).rows) == 1


def test_lines_that_are_not_the_labeled_steps_are_not_split(read):
  assert read({"prompt": "Q", "response": "x\ny\nz", "labels": [1, 0]}).format == "completion"
  with pytest.raises(DataError, match="`labels` has 2 entries for 3 steps"):
    read({"prompt": "Q", "response": "xкиyкиzки", "labels": [1, 1]})


@pytest.mark.parametrize(
  ("row", "line"),
  [
    (
      {
        "data": {"prompt": "Q", "answer1": "A", "answer2": "B"},
        "annotations": [{"result": [{"value": {"selected": "left"}}]}],
      },
      "prompt=data.prompt,response_a=data.answer1,response_b=data.answer2,winner=annotations[0].result[0].value.selected",
    ),
    (
      {"prompt": "Q", "answer1": "A", "answer2": "B", "comparison": '{"type": "pairwise", "selected": "left"}'},
      "prompt=prompt,response_a=answer1,response_b=answer2,winner=comparison.selected",
    ),
    (
      {"fields": {"prompt": "Q", "r_1": "B", "r_2": "A"}, "responses": {"pick": [{"user_id": "u", "value": "second"}]}},
      "prompt=fields.prompt,response_a=fields.r_1,response_b=fields.r_2,winner=responses.pick[0].value",
    ),
    (
      {"query": "Q", "response": ["A", "B"], "human_ranking": [0, 1], "models": ["m", "n"]},
      "prompt=query,completions=response,ranks=human_ranking",
    ),
    ({"x": "Q", "y_w": "A", "y_l": "B"}, "prompt=x,chosen=y_w,rejected=y_l"),
    ({"query": "Q", "pos": ["A"], "neg": ["B"]}, "prompt=query,chosen=pos,rejected=neg"),
    ({"question": "Q", "solution": "A", "bad_solution": "B"}, "prompt=question,chosen=solution,rejected=bad_solution"),
    (
      {"title": "Q", "answers": {"a_id": ["1", "2"], "score": [3, 1], "text": ["A", "B"]}},
      "prompt=title,completions=answers.text,scores=answers.score",
    ),
  ],
)
def test_a_suggestion_names_texts_and_their_labels(read, row, line):
  with pytest.raises(DataError) as caught:
    read(row)
  assert f"--columns '{line}'" in caught.value.hint
  assert pair_of(read(row, columns=dict(part.split("=") for part in line.split(",")))) == ONE_TURN


def test_steps_in_objects_are_their_texts(read):
  row = {"problem": "Q", "steps": [{"critique": "good", "content": "x", "label": "correct"}]}
  with pytest.raises(DataError) as caught:
    read(row)
  assert "--columns 'prompt=problem,completions=steps[].content,labels=steps[].label'" in caught.value.hint


@pytest.mark.parametrize("name", ["prefix", "options", "selftext", "audios"])
def test_more_names_of_inputs(read, name):
  with pytest.raises(DataError, match=f"column `{name}` could be part of the input"):
    read({"prompt": "Q", name: ["one", "two"], **SIDES})
  assert pair_of(read({"prompt": "Q one two", name: ["one", "two"], **SIDES}))[1:] == ONE_TURN[1:]


def test_messages_for_the_one_who_labels_are_no_input(read):
  row = {"system": "", "input": "Q", "labelling_prompt": [system("Which is better?"), user("Q A B")], **SIDES}
  assert pair_of(read(row)) == ONE_TURN


def test_calls_and_contents_under_other_names(read):
  turns = [user("Q"), {"role": "tool_call", "content": "f()"}, {"role": "tool_response", "content": "4"}]
  text = lambda kind, text: [{"type": kind, "text": text, "annotations": []}]  # noqa: E731
  answer = {"role": "assistant", "content": text("output_text", "A")}
  row = {"prompt": [user(text("input_text", "P")), *turns[1:]], "chosen": answer, "rejected": "B"}
  assert pair_of(read(row))[0] == [("u", "P"), ("a", "f()"), ("t", "4")]
  assert pair_of(read(row))[1:] == ONE_TURN[1:]


def test_a_system_column_beside_a_conversation(read):
  records = read({"system": "S", "conversations": [user("Q"), assistant("A")]})
  assert said(records.rows[0].prompt) == [("s", "S"), ("u", "Q")]


@pytest.mark.parametrize(
  ("row", "expected"),
  [
    ({"prompt": "Q", "completions": ["A", "B"], "rank": "[2, 1]"}, [-2, -1]),
    ({"prompt": "Q", "steps": ["x", "y"], "step_labels": "[1, 0]"}, [1, 0]),
  ],
)
def test_lists_in_text_under_the_other_name_of_a_column(read, row, expected):
  (found,) = read(row).every
  assert (found.labels if "steps" in row else found.scores) == expected


@pytest.mark.parametrize("column", ["correct", "scores"])
@pytest.mark.parametrize(("good", "bad"), [("up", "down"), ("Thumbs up", "thumbs_down"), ("👍", "👎"), ("2", "-1")])
def test_thumbs_of_several_answers(read, column, good, bad):
  row = {"chat": {"messages": [user("Q")]}, "responses": [{"text": "B", "vote": bad}, {"text": "A", "vote": good}]}
  records = read(
    row, columns={"prompt": "chat.messages", "completions": "responses[].text", column: "responses[].vote"}
  )
  assert records.rows[0].scores == ([-1, 2] if good == "2" else [0, 1]) and pair_of(records) == ONE_TURN


@pytest.mark.parametrize("column", ["correct", "scores"])
def test_an_error_names_the_column_of_the_file(read, column):
  row = {"prompt": "Q", "responses": [{"text": "B", "vote": "meh"}, {"text": "A", "vote": "up"}]}
  with pytest.raises(DataError, match=r"`responses\[\].vote` is text \(meh\), not a number"):
    read(row, columns={"completions": "responses[].text", column: "responses[].vote"})
  with pytest.raises(DataError, match=f"`{column}` is text"):
    read({"prompt": "Q", "completions": ["A", "B"], column: ["up", "meh"]})


def test_ranks_are_no_thumbs(read):
  with pytest.raises(DataError, match="`ranks` is text"):
    read({"prompt": "Q", "completions": ["A", "B"], "ranks": ["up", "down"]})


TALK = {"messages": [user("Q"), assistant("A")]}


@pytest.mark.parametrize(
  ("rows", "line", "scores"),
  [
    (
      [{"conversation": TALK, "feedback": {"thumbs": one}} for one in ("up", "down")],
      "messages=conversation.messages,label=feedback.thumbs",
      [1, 0],
    ),
    ([{"chat": TALK, "stars": stars} for stars in (5, 2)], "messages=chat.messages,score=stars", [5, 2]),
    (
      [{"input": {"text": "Q"}, "reply": "A", "verdict": {"quality": stars}} for stars in ("5", "2")],
      "prompt=input.text,completion=reply,score=verdict.quality",
      [5, 2],
    ),
    (
      [
        {"instruction": "###Task: evaluate\nQ\nA", "output": "Feedback. [RESULT] 3", "orig_instruction": "Q"}
        | {"orig_response": "A", "orig_reference_answer": "B", "orig_score": score, "orig_score1_description": "bad"}
        for score in ("3", "1")
      ],
      "prompt=orig_instruction,completion=orig_response,score=orig_score,instruction=",
      [3, 1],
    ),
    (
      [{"task": "Q", "reply": "A", "zeal": zeal, "annotator": 1 + zeal % 2} for zeal in (3, 4, 3, 5)],
      "prompt=task,completion=reply,score=zeal",
      [3, 4, 3, 5],
    ),
    (
      [{"task": "Q", "reply": "A", "fine": fine} for fine in (True, False, True)],
      "prompt=task,completion=reply,label=fine",
      [1, 0, 1],
    ),
  ],
)
def test_one_answer_and_what_rates_it_are_suggested(read, rows, line, scores):
  with pytest.raises(DataError) as caught:
    read(*rows, tiers=ANSWERS)
  assert f"--columns '{line}'" in caught.value.hint
  how = {"format": "kto"} if "--format kto" in caught.value.hint else {}
  records = read(*rows, columns=dict(part.split("=") for part in line.split(",")), **how)
  assert [(said(one.prompt), said(one.completion)) for one in rated_answers(records)] == [ONE_TURN[:2]] * len(rows)
  assert [next(iter(one.ratings.values())) for one in rated_answers(records)] == scores


def test_thumbs_of_several_answers_are_suggested(read):
  row = {
    "chat": {"messages": [user("Q")]},
    "responses": [{"text": "B", "thumbs": "down"}, {"text": "A", "thumbs": "up"}],
  }
  with pytest.raises(DataError) as caught:
    read(row)
  assert "--columns 'prompt=chat.messages,completions=responses[].text,correct=responses[].thumbs'" in caught.value.hint


def test_numbers_that_rate_nothing_are_no_label(read):
  rows = [
    {"task": "Q", "reply": "A", "difficulty": place % 3, "place": place, "year": 1990 + place % 2} for place in range(9)
  ]
  with pytest.raises(DataError) as caught:
    read(*rows, tiers=ANSWERS)
  assert "--columns 'prompt=task,completion=reply'" in caught.value.hint


def test_a_label_is_never_the_prompt_of_a_conversion(read):
  with pytest.raises(DataError) as caught:
    read({"zig": {"thumbs": "up"}, "zag": "Q"})
  assert "{'prompt': row['zag'], 'chosen': row['...']" in caught.value.hint
