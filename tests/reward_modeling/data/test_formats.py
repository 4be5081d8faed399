"""Every format on a row as it is found in the wild, and what happens to input that a format does not use."""

import json

import pytest

from conftest import assistant, user, write_jsonl
from reward_modeling.data.entries import never
from reward_modeling.data.formats import ANYTHING, FORMATS, PROMPTS
from reward_modeling.data.reading import load
from reward_modeling.data.records import (
  Comparison,
  Ranking,
  Solution,
  comparisons,
  in_steps,
  prompts,
  solutions,
  to_score,
)
from reward_modeling.errors import DataError, UsageError


def system(text):
  return {"role": "system", "content": text}


@pytest.fixture
def read(tmp_path):
  """Write rows as JSON Lines and load them."""

  def write_and_load(*rows, **options):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load([str(path)], **options)

  return write_and_load


Q, A, B = [user("2+2?")], [assistant("4")], [assistant("5")]

PAIRS = {
  "strings": ("explicit", {"prompt": "2+2?", "chosen": "4", "rejected": "5"}, Q),
  "messages": ("explicit", {"prompt": Q, "chosen": A, "rejected": B}, Q),
  "one message a side": ("explicit", {"prompt": Q, "chosen": A[0], "rejected": B[0]}, Q),
  "ultrafeedback": ("explicit", {"prompt": "2+2?", "chosen": Q + A, "rejected": Q + B}, Q),
  "ultrafeedback with system": (
    "explicit",
    {"prompt": "2+2?", "chosen": [system("Count."), *Q, *A], "rejected": [system("Count."), *Q, *B]},
    [system("Count."), *Q],
  ),
  "prompt messages repeated": ("explicit", {"prompt": Q, "chosen": Q + A, "rejected": Q + B}, Q),
  "system column": (
    "explicit",
    {"system": "Count.", "prompt": "2+2?", "chosen": "4", "rejected": "5"},
    [system("Count."), *Q],
  ),
  "concatenated": (
    "concatenated",
    {"prompt": "2+2?\n", "chosen": "2+2?\n4", "rejected": "2+2?\n5"},
    Q,
  ),
  "implicit": ("implicit", {"chosen": Q + A, "rejected": Q + B}, Q),
  "text": ("text", {"chosen": "2+2? 4", "rejected": "2+2? 5"}, Q),
  "axolotl": (
    "axolotl",
    {"system": "Count.", "input": "2+2?", "chosen": "4", "rejected": "5"},
    [system("Count."), *Q],
  ),
  "axolotl, no system": ("axolotl", {"input": "2+2?", "chosen": "4", "rejected": "5"}, Q),
  "axolotl, empty system": ("axolotl", {"system": "", "input": "2+2?", "chosen": "4", "rejected": "5"}, Q),
  "axolotl, null system": ("axolotl", {"system": None, "input": "2+2?", "chosen": "4", "rejected": "5"}, Q),
  "orca": (
    "question",
    {"system": "Count.", "question": "2+2?", "chosen": "4", "rejected": "5"},
    [system("Count."), *Q],
  ),
  "alpaca": ("alpaca", {"instruction": "Add.", "input": "2+2", "chosen": "4", "rejected": "5"}, [user("Add.\n2+2")]),
  "hh": (
    "transcript",
    {"chosen": "\n\nHuman: 2+2?\n\nAssistant: 4", "rejected": "\n\nHuman: 2+2?\n\nAssistant: 5"},
    Q,
  ),
  "static hh": ("transcript", {"prompt": "\n\nHuman: 2+2?\n\nAssistant:", "chosen": " 4", "rejected": " 5"}, Q),
  "sharegpt": (
    "sharegpt",
    {
      "conversations": [{"from": "system", "value": "Count."}, {"from": "human", "value": "2+2?"}],
      "chosen": {"from": "gpt", "value": "4"},
      "rejected": {"from": "gpt", "value": "5"},
    },
    [system("Count."), *Q],
  ),
  "sharegpt, whole": (
    "sharegpt",
    {
      "chosen": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}],
      "rejected": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "5"}],
    },
    Q,
  ),
  "pairwise, b wins": (
    "pairwise",
    {"prompt": "2+2?", "response_a": "5", "response_b": "4", "winner": "model_b"},
    Q,
  ),
  "arena": ("arena", {"conversation_a": Q + A, "conversation_b": Q + B, "winner": "model_a"}, Q),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_real_shaped_row_is_recognised_and_says_the_same(read, name):
  format, row, prompt = PAIRS[name]
  records = read(row)
  assert records.format == format
  (record,) = records.rows
  assert (record.prompt, record.chosen, record.rejected) == (prompt, A, B)
  assert records.metadata_columns == ()


@pytest.mark.parametrize("name", FORMATS)
def test_the_example_of_each_format_is_recognised_as_that_format(read, name):
  named = name if FORMATS[name].matches is never else None  # nothing in the rows says it
  assert read(FORMATS[name].example, tiers=ANYTHING, format=named).format == name


def test_multi_turn_transcripts_share_all_but_the_last_answer(read):
  start = "\n\nHuman: Hi\n\nAssistant: Hello.\nHow can I help?\n\nHuman: Capital of Italy?\n\nAssistant:"
  (pair,) = read({"chosen": start + " Rome.\n\nIt is old.", "rejected": start + " Paris."}).rows
  assert pair.prompt == [user("Hi"), assistant("Hello.\nHow can I help?"), user("Capital of Italy?")]
  assert pair.chosen == [assistant("Rome.\n\nIt is old.")]


def test_shared_text_is_cut_at_its_last_line_so_that_answers_keep_words_they_share(read):
  (pair,) = read({"chosen": "What is 2+2?\nThe sum is 4", "rejected": "What is 2+2?\nThe sum is 5"}).rows
  assert pair.prompt == [user("What is 2+2?")]
  assert pair.chosen == [assistant("The sum is 4")]


def test_answers_that_merely_begin_with_the_words_of_the_prompt_are_not_cut(read):
  records = read({"prompt": "Hello", "chosen": "Hello! How are you?", "rejected": "Hello."})
  assert records.format == "explicit"
  assert records.rows[0].chosen == [assistant("Hello! How are you?")]


def test_one_row_that_repeats_its_prompt_does_not_make_the_file_concatenated(read):
  rows = [{"prompt": f"say {i}", "chosen": "yes", "rejected": "no"} for i in range(4)]
  records = read({"prompt": "a", "chosen": "a b", "rejected": "a c"}, *rows)
  assert records.format == "explicit"
  assert records.rows[0].chosen == [assistant("a b")]


def test_at_least_one_message_stays_on_each_side_of_whole_conversations(read):
  (same, beginning) = read({"chosen": Q + A, "rejected": Q + A}, {"chosen": Q + A, "rejected": Q + A + Q + B}).rows
  assert (same.prompt, same.chosen, same.rejected) == (Q, A, A)
  assert (beginning.prompt, beginning.chosen, beginning.rejected) == (Q, A, A + Q + B)


def test_arena_conversations_keep_every_turn_after_the_first_difference(read):
  first, second = [user("Hi"), assistant("Yo"), *Q, *A], [user("Hi"), assistant("Hello"), *Q, *B]
  (pair,) = read({"conversation_a": first, "conversation_b": second, "winner": "model_b"}).rows
  assert pair.prompt == [user("Hi")]
  assert pair.chosen == second[1:]


def test_ties_and_missing_labels_are_counted_and_set_aside(read):
  row = {"prompt": "p", "response_a": "x", "response_b": "y"}
  winners = ["model_a", "tie", "tie (bothbad)", "b", None, "response_b"]
  records = read(*[row | {"winner": winner} for winner in winners])
  assert records.set_aside == {"tie": 2, "unlabeled": 1}
  assert [pair.chosen[0]["content"] for pair in records.rows] == ["x", "y", "y"]
  assert [pair.origin.row for pair in records.rows] == [1, 4, 6]


def test_a_tie_column_and_a_null_label_set_pairs_aside(read):
  row = {"prompt": "p", "chosen": "x", "rejected": "y"}
  records = read(row | {"tie": False, "label": 1}, row | {"tie": True, "label": 0}, row | {"tie": False, "label": None})
  assert records.set_aside == {"tie": 1, "unlabeled": 1}
  assert records.rows[0].metadata == {"tie": False, "label": 1}


def test_rankings_by_scores_ranks_and_verdicts(read):
  row = {"prompt": "2+2?", "completions": ["4", "5", "four"]}
  assert read(row | {"scores": [2, 0.5, 2]}).rows[0].scores == [2.0, 0.5, 2.0]
  assert read(row | {"ranks": [1, 3, 2]}).rows[0].scores == [-1.0, -3.0, -2.0]
  assert read(row | {"correct": [True, False, True]}).rows[0].scores == [1.0, 0.0, 1.0]
  assert read({"prompt": "2+2?", "responses": ["4", "5"], "scores": [1, 0]}).rows[0].completions == [A, B]


def test_score_columns_give_a_margin_and_a_margin_column_comes_first(read):
  row = {"prompt": "p", "chosen": "x", "rejected": "y"}
  assert read(row | {"score_chosen": 8.5, "score_rejected": 6.0}).rows[0].margin == 2.5
  assert read(row | {"chosen_score": 3, "rejected_score": 4}).rows[0].margin == -1.0
  assert read(row | {"margin": 0.25, "score_chosen": 9, "score_rejected": 1}).rows[0].margin == 0.25
  assert read(row | {"score_chosen": None, "score_rejected": 1}).rows[0].margin is None


def test_steps_are_recognised_and_refused_as_comparisons(read):
  row = {"prompt": "p", "completions": ["one", "two"], "labels": [True, False]}
  records = read(row)
  assert isinstance(records.rows[0], Solution)
  assert (records.rows[0].steps, records.rows[0].labels) == (["one", "two"], [1.0, 0.0])
  with pytest.raises(DataError, match="process reward models"):
    comparisons(records)
  with pytest.raises(DataError, match="process reward models"):
    to_score(records)
  assert to_score(records, steps=True).rows[0].completions == [in_steps(["one", "two"])]


def test_tools_are_read_as_a_list_or_as_json(read):
  row, tools = {"prompt": "p", "chosen": "x", "rejected": "y"}, [{"name": "search"}]
  assert read(row | {"tools": tools}).rows[0].tools == tools
  assert read(row | {"tools": json.dumps(tools)}).rows[0].tools == tools
  assert read(row | {"tools": None}).rows[0].tools is None


def test_tool_calls_and_tool_results_stay_in_the_messages(read):
  call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add"}}], "name": None}
  turns = [*Q, call, {"role": "tool", "content": "4"}]
  (pair,) = read({"chosen": [*turns, *A], "rejected": [*turns, *B]}).rows
  assert pair.prompt[1] == {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add"}}]}
  assert (pair.prompt[2]["role"], pair.chosen) == ("tool", A)


def test_text_parts_are_joined_and_images_refused(read):
  parts = [{"type": "text", "text": "2+"}, {"type": "text", "text": "2?"}]
  row = {"prompt": [{"role": "user", "content": parts}], "chosen": "4", "rejected": "5"}
  assert read(row).rows[0].prompt == Q
  row["prompt"] = [{"role": "user", "content": [{"type": "image", "image": "x.png"}]}]
  with pytest.raises(DataError, match="content of type image: only text can be read"):
    read(row)


def test_ids_and_other_columns_are_kept(read):
  records = read({"id": 7, "subset": "math", "prompt": "p", "chosen": "x", "rejected": "y"})
  assert (records.rows[0].id, records.rows[0].metadata) == (7, {"subset": "math"})
  assert records.metadata_columns == ("subset",)
  assert records.columns_used == ("prompt", "chosen", "rejected", "id")


@pytest.mark.parametrize("column", ["context", "question", "history", "documents", "Instruction"])
def test_an_unused_column_that_could_be_input_is_an_error_that_names_it(read, column):
  row = {"prompt": "p", "chosen": "x", "rejected": "y"}
  with pytest.raises(DataError, match=f"column `{column}` could be part of the input") as caught:
    read(row, row | {column: "The sky is green."})
  assert caught.value.where.endswith("rows.jsonl:2")
  assert f"--columns {column}=" in caught.value.hint


def test_an_unused_column_that_repeats_the_record_or_is_empty_loses_nothing(read):
  row = {"prompt": "2+2?", "chosen": "4", "rejected": "5", "messages": Q + A, "question": "2+2?", "context": ""}
  assert read(row).format == "explicit"
  with pytest.raises(DataError, match="`messages`"):
    read(row | {"messages": [user("Something else"), *A]})


def test_columns_can_be_mapped_and_dropped(read):
  row = {"q": "2+2?", "chosen": "4", "rejected": "5", "context": "The sky is green."}
  (pair,) = read(row, columns={"prompt": "q", "context": ""}).rows
  assert (pair.prompt, pair.metadata) == (Q, {})
  with pytest.raises(DataError, match="no column `contxt`") as caught:
    read(row, columns={"prompt": "contxt"})
  assert caught.value.hint == "did you mean context?"


def test_a_format_can_be_forced_and_its_name_is_checked(read):
  row = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
  assert read({"chosen": "Human: a b", "rejected": "Human: a c"}, format="text").format == "text"
  with pytest.raises(UsageError) as caught:
    read(row, format="transcrpt")
  assert caught.value.hint == "did you mean transcript?"


BAD = [
  ({"prompt": "p", "chosen": 3, "rejected": "y"}, "`chosen` is a number (3), not text or messages"),
  ({"prompt": "p", "chosen": None, "rejected": "y"}, "column `chosen` is null"),
  ({"prompt": "p", "chosen": "x"}, "column `rejected` is missing"),
  ({"prompt": "p", "chosen": "x", "rejected": "y", "margin": "big"}, "`margin` is text (big), not a number"),
  (
    {"prompt": "p", "chosen": "x", "rejected": "y", "weight": 0},
    "`weight` is 0: a pair counts with a weight above 0",
  ),
  ({"prompt": "p", "chosen": "x", "rejected": "y", "tools": "none"}, "`tools` is text (none), not a list of objects"),
  ({"prompt": [{"role": "wizard", "content": "p"}], "chosen": "x", "rejected": "y"}, "whose role is wizard"),
  ({"prompt": [{"role": "user", "content": 5}], "chosen": "x", "rejected": "y"}, "content is a number (5), not text"),
  ({"prompt": "p", "chosen": Q + A, "rejected": Q + B}, "conversation in which `prompt` does not occur"),
]


@pytest.mark.parametrize(("row", "reason"), BAD)
def test_a_row_that_cannot_be_read_is_named_with_its_reason(read, row, reason):
  good = {"prompt": "p", "chosen": "x", "rejected": "y"}
  with pytest.raises(DataError) as caught:
    read(good, good, row, good)
  assert reason in caught.value.message
  assert caught.value.where.endswith("rows.jsonl:3")


OTHER_BAD = [
  ({"prompt": "p", "completions": ["x", "y"], "scores": [1]}, "`scores` has 1 entries for 2 completions"),
  (
    {"prompt": "p", "response_a": "x", "response_b": "y", "winner": 2},
    "`winner` holds numbers, which do not say which answer is better: 2 (1 rows)",
  ),
  (
    {"prompt": "p", "response_a": "x", "response_b": "y", "winner": "foremost"},
    "`winner` is foremost: expected a, b, tie",
  ),
  ({"chosen": "left", "rejected": "right"}, "share no prefix"),
  ({"a": 1, "b": 2}, "no format has the columns a, b"),
]


@pytest.mark.parametrize(("row", "reason"), OTHER_BAD)
def test_other_formats_name_their_bad_rows_too(read, row, reason):
  with pytest.raises(DataError) as caught:
    read(row)
  assert reason in caught.value.message


def test_rows_without_labels_are_scored_and_no_comparisons(read):
  records = read({"prompt": "p", "completion": "x"})
  assert to_score(records).rows == records.rows
  with pytest.raises(DataError, match="format `completion`\\) do not say which answer is better") as caught:
    comparisons(records)
  assert caught.value.where.endswith("rows.jsonl")


def test_rows_to_be_scored_keep_ties_and_their_label_columns_in_the_order_of_the_file(read):
  row = {"prompt": "p", "response_a": "x", "response_b": "y"}
  records = read(*[row | {"winner": winner} for winner in ("tie", "b", None, "a")])
  assert ([pair.origin.row for pair in records.rows], records.set_aside) == ([2, 4], {"tie": 1, "unlabeled": 1})
  scored = to_score(records)
  assert [one.origin.row for one in scored.rows] == [1, 2, 3, 4] and scored.set_aside == {}
  assert [one.scores for one in scored.rows] == [[0.0, 0.0], [0.0, 1.0], None, [1.0, 0.0]]
  assert [one.completions[0][0]["content"] for one in scored.rows] == ["x"] * 4
  assert [one.metadata for one in scored.rows] == [{"winner": winner} for winner in ("tie", "b", None, "a")]


def test_mixed_formats_in_one_file_are_an_error(read):
  with pytest.raises(DataError, match="mixed formats") as caught:
    read(*[{"prompt": "p", "chosen": "x", "rejected": "y"}] * 3, {"chosen": Q + A, "rejected": Q + B})
  assert caught.value.where.endswith("rows.jsonl:4")


def test_all_bad_rows_are_counted_and_five_shown(read):
  bad = [{"prompt": "p", "chosen": 1, "rejected": "y"}] * 7
  with pytest.raises(DataError) as caught:
    read({"prompt": "p", "chosen": "x", "rejected": "y"}, *bad)
  assert caught.value.message == "7 of 8 rows: `chosen` is a number (1), not text or messages"
  assert caught.value.where.endswith("rows.jsonl:2 (also 3, 4, 5, 6, ...)")


SCORED = {
  "completion": ({"prompt": "2+2?", "completion": "4"}, [A], None),
  "response messages": ({"prompt": Q, "response": A}, [A], None),
  "completions": ({"prompt": "2+2?", "responses": ["4", "5"]}, [A, B], None),
  "conversation": ({"messages": Q + A}, [A], None),
  "pair": ({"prompt": "2+2?", "chosen": "4", "rejected": "5"}, [A, B], [1.0, 0.0]),
  "tied pair": ({"prompt": "2+2?", "chosen": "4", "rejected": "5", "tie": True}, [A, B], [0.0, 0.0]),
  "winner keeps the order of the file": (
    {"prompt": "2+2?", "response_a": "5", "response_b": "4", "winner": "b"},
    [B, A],
    [0.0, 1.0],
  ),
  "no winner": ({"prompt": "2+2?", "response_a": "5", "response_b": "4"}, [B, A], None),
  "ranking": ({"prompt": "2+2?", "completions": ["4", "5"], "scores": [3, 1]}, [A, B], [3.0, 1.0]),
}


@pytest.mark.parametrize("name", SCORED)
def test_rows_to_be_scored_become_rankings_in_the_order_of_the_file(read, name):
  row, completions, scores = SCORED[name]
  records = to_score(read(row | {"id": "r1"}))
  (ranking,) = records.rows
  assert isinstance(ranking, Ranking)
  assert (ranking.prompt, ranking.completions, ranking.scores, ranking.id) == (Q, completions, scores, "r1")
  assert records.set_aside == {}


def test_winner_formats_become_comparisons_with_their_id_and_metadata(read):
  row = {"prompt": "p", "response_a": "x", "response_b": "y", "winner": "a", "id": "r", "judge": "me"}
  (pair,) = read(row).rows
  assert isinstance(pair, Comparison)
  assert (pair.id, pair.metadata, pair.margin, pair.weight) == ("r", {"judge": "me"}, None, 1.0)


@pytest.mark.parametrize(
  ("row", "format"),
  [
    ({"prompt": "Hi"}, "prompt"),
    ({"question": "Hi", "answer": "unused"}, "prompt"),
    ({"prompt": "Hi", "completion": "kept as metadata"}, "prompt"),
    ({"messages": [user("Hi")]}, "open_conversation"),
    ({"messages": [user("Hi"), assistant("Hello.")]}, "conversation"),
    ({"prompt": "Hi", "chosen": "Hello.", "rejected": "No."}, "explicit"),
    ({"prompt": "Hi", "completions": ["2+2=4", "4+2=7"], "labels": [True, False]}, "stepwise"),
  ],
)
def test_prompts_are_read_from_any_format(read, row, format):
  records = prompts(read(row, tiers=PROMPTS))
  assert (records.format, records.rows[0].prompt, records.rows[0].completions) == (format, [user("Hi")], [])


@pytest.mark.parametrize(
  ("row", "message"),
  [
    ({"prompt": "  "}, "the prompt is empty"),
    ({"prompt": None}, "`prompt` or `question` or `query` is null"),
    ({"prompt": [user("Hi"), assistant("Yes")]}, "ends with an assistant message: there is nothing to answer"),
    ({"prompt": "Hi", "context": "lost"}, "column `context` could be part of the input"),
  ],
)
def test_prompts_that_cannot_be_answered_are_refused(read, row, message):
  with pytest.raises(DataError, match=message):
    prompts(read(row, tiers=PROMPTS))


def test_prompts_alone_are_no_comparisons(read):
  with pytest.raises(DataError, match="no format has the columns prompt"):
    read({"prompt": "Hi"})


# ---- answers in steps ---------------------------------------------------------------------------------------------


PRM800K = {
  "question": {"problem": "2+2?"},
  "label": {
    "steps": [
      {"completions": [{"text": "a", "rating": 1}, {"text": "b", "rating": -1}], "chosen_completion": 0},
      {"completions": [{"text": "c", "rating": 0}], "chosen_completion": 0},
      {"completions": [{"text": "d", "rating": 0}], "human_completion": {"text": "e"}, "chosen_completion": None},
      {"completions": [{"text": "f", "rating": 1}, {"text": "g", "rating": -1}], "chosen_completion": None},
      {"completions": [{"text": "never reached", "rating": 1}], "chosen_completion": 0},
    ]
  },
}
SHEPHERD = {"input": "2+2? Step 1: a ки\nStep 2: b ки\n", "label": "2+2? Step 1: a +\nStep 2: b -\n", "task": "GSM8K"}

STEPS = {
  "booleans": ({"prompt": "2+2?", "completions": ["a", "b"], "labels": [True, False]}, ["a", "b"], [1, 0]),
  "messages": ({"prompt": Q, "completions": ["a", "b"], "labels": [1, 0]}, ["a", "b"], [1, 0]),
  "probabilities": ({"prompt": Q, "completions": ["a", "b"], "labels": [0.25, 1]}, ["a", "b"], [0.25, 1]),
  "up to the first error": ({"prompt": Q, "completions": list("abc"), "labels": [1, 0]}, list("abc"), [1, 0, None]),
  "not judged": ({"prompt": Q, "completions": list("abc"), "labels": [1, None, 0]}, list("abc"), [1, None, 0]),
  "math_shepherd": (SHEPHERD, ["Step 1: a", "Step 2: b"], [1, 0]),
  "processbench": ({"problem": "2+2?", "steps": list("abc"), "label": 1}, list("abc"), [1, 0, None]),
  "processbench correct": ({"problem": "2+2?", "steps": list("abc"), "label": -1}, list("abc"), [1, 1, 1]),
}


@pytest.mark.parametrize("name", STEPS)
def test_labelled_steps_in_every_writing(read, name):
  row, steps, labels = STEPS[name]
  (solution,) = solutions(read(row))
  assert isinstance(solution, Solution) and solution.prompt == Q
  assert (solution.steps, solution.labels) == (steps, labels)


@pytest.mark.parametrize(("neutral", "label"), [("good", 1.0), ("bad", 0.0), ("ignore", None)])
def test_a_neutral_rating_is_what_one_says_it_is(read, neutral, label):
  solution, *alternatives = read(PRM800K, neutral=neutral).rows
  assert solution.steps == ["a", "c", "e", "g"] and solution.labels == [1.0, label, 1.0, 0.0]
  rated = {"".join(one.steps): one.labels for one in alternatives}
  expected = {"b": [0.0], "acd": [None, None, label], "acef": [None, None, None, 1.0]}
  assert rated == {steps: labels for steps, labels in expected.items() if labels[-1] is not None}
  (rated,) = read({"prompt": Q, "completions": list("abc"), "ratings": [1, 0, -1]}, neutral=neutral).rows
  assert rated.labels == [1.0, label, 0.0]


BAD_STEPS = {
  "too few labels": ({"completions": list("abc"), "labels": [1, 1]}, "`labels` has 2 entries for 3 steps"),
  "too many labels": ({"completions": ["a"], "labels": [1, 0]}, "`labels` has 2 entries for 1 steps"),
  "empty step": ({"completions": ["a", " "], "labels": [1, 0]}, "step 2 of `completions` is empty"),
  "mixed labels": ({"completions": ["a", "b"], "labels": [True, 0]}, "`labels` mixes true or false with numbers"),
  "a word": ({"completions": ["a"], "labels": ["fine"]}, "`labels` holds fine: expected true or false"),
  "out of range": ({"completions": ["a"], "labels": [-2]}, "`labels` holds -2: expected true or false, 0 or 1"),
  "nothing judged": ({"completions": ["a"], "labels": [None]}, "`labels` holds nothing but null"),
  "no steps": ({"completions": [], "labels": []}, "not a list of steps in text"),
  "neutral": (
    {"completions": ["a"], "ratings": [0]},
    "1 of 1 steps are rated 0, neither right nor wrong: --neutral says what",
  ),
  "rating": ({"completions": ["a"], "ratings": [2]}, "step 1 is rated 2: expected -1, 0 or 1"),
  "place of the error": (
    {"steps": ["a"], "label": 2},
    "expected the place of the first error in 1 steps, counted from 0, or -1 for none",
  ),
}


@pytest.mark.parametrize("name", BAD_STEPS)
def test_bad_steps_name_the_row(read, name):
  row, message = BAD_STEPS[name]
  with pytest.raises(DataError, match=message) as caught:
    read({"prompt": Q, **row})
  assert caught.value.where.endswith("rows.jsonl:1")


def test_bad_math_shepherd_rows(read):
  with pytest.raises(DataError, match="does not repeat step 2 of `input` with \\+ or - after it"):
    read({**SHEPHERD, "label": SHEPHERD["label"].replace("-", "?")})
  with pytest.raises(DataError, match="is one line without 'Step 1:'"):
    read({name: text.replace("Step 1", "First").replace("?", ".") for name, text in SHEPHERD.items()})


def test_pairs_have_no_steps_and_steps_no_pairs(read):
  with pytest.raises(DataError, match="format `explicit`\\) have no steps"):
    solutions(read({"prompt": Q, "chosen": A, "rejected": B}))
  with pytest.raises(DataError, match="process reward models"):
    comparisons(read(STEPS["processbench"][0]))


def test_steps_rated_0_are_counted_and_each_choice_is_shown(read):
  rows = [
    {"prompt": Q, "completions": list("abcd"), "ratings": [1, 0, 0, -1]},
    {"prompt": Q, "completions": ["a"], "ratings": [1]},
  ]
  with pytest.raises(DataError) as caught:
    read(*rows, leave_out_unreadable=True)
  assert caught.value.message.startswith("2 of 5 steps are rated 0, neither right nor wrong")
  assert caught.value.where.endswith("rows.jsonl:1")
  for neutral, words in (
    ("good", "(then 4 right, 1 wrong)"),
    ("bad", "(2 right, 3 wrong)"),
    ("ignore", "(2 right, 1 wrong)"),
  ):
    assert words in caught.value.hint
    labels = [label for row in read(*rows, neutral=neutral).rows for label in row.labels]
    assert words.endswith(f"{labels.count(1.0)} right, {labels.count(0.0)} wrong)")
  assert "drop" not in caught.value.hint


@pytest.mark.parametrize("chosen", [-1, 2, True, "0", 0.0, 10**400, [0], {}])
def test_a_chosen_completion_of_prm800k_that_is_not_there_is_refused(read, chosen):
  rated = [{"text": "a", "rating": 1}, {"text": "b", "rating": -1}]
  row = {"question": {"problem": "2+2?"}, "label": {"steps": [{"completions": rated, "chosen_completion": chosen}]}}
  with pytest.raises(
    DataError, match=r"`chosen_completion` of step 1 is .* expected the place of one of 2 completions"
  ):
    read(PRM800K, row, neutral="good")


@pytest.mark.parametrize("cell", [3, None, [], {"a": 1}, True])
def test_cells_of_math_shepherd_that_are_not_text_name_their_row(read, cell):
  for name in ("input", "label"):
    with pytest.raises(DataError) as caught:
      read(SHEPHERD, SHEPHERD, SHEPHERD | {name: cell})
    assert f"`{name}` is" in caught.value.message and caught.value.where.endswith(":3")


def test_the_place_of_the_first_error_may_be_text_as_in_csv(read):
  for label, expected in (("1", [1, 0, None]), (" -1", [1, 1, 1])):
    (solution,) = read({"problem": "2+2?", "steps": list("abc"), "label": label}).rows
    assert solution.labels == expected
  with pytest.raises(DataError, match=r"`label` is 1\.5: expected the place"):
    read({"problem": "2+2?", "steps": list("abc"), "label": "1.5"})


def test_one_row_that_lacks_a_column_does_not_change_the_format_of_the_others(read):
  row = {"instruction": "Add.", "input": "2+2", "chosen": "4", "rejected": "5"}
  short = {name: value for name, value in row.items() if name != "instruction"}
  records = read(row, short, row, row, leave_out_unreadable=True)
  assert (records.format, records.set_aside) == ("alpaca", {"unreadable": 1})


def test_a_repeated_completion_leaves_the_other_pairs_of_its_ranking(read):
  records = read({"prompt": "p", "completions": ["a", "a", "b"], "scores": [1, 1, 0]})
  assert [(pair.chosen[0]["content"], pair.rejected[0]["content"]) for pair in comparisons(records)] == [("a", "b")] * 2


IGNORED = {
  ("prm800k", "is_quality_control_question"): "it says that the row is set aside",
  ("prm800k", "is_initial_screening_question"): "it says that the row is set aside",
  ("prmbench", "question"): "the question before it was modified",
  ("oasst_flat", "id"): "the example has no reply, so there is no record",
  ("oasst_flat", "tools"): "the example has no reply, so there is no record",
}


@pytest.mark.parametrize("name", FORMATS)
def test_no_column_that_a_format_reads_is_lost(name, tmp_path):
  """It is in the record, or an error: KTO's `history` beside a prompt and Nectar's `system` were neither."""
  entry = FORMATS[name]
  for column in {one for names in entry.columns for one in names} - entry.example.keys():
    for value in ("lost", [["lost", "y"]], [{"role": "user", "content": "lost"}], [{"name": "lost"}]):
      path = tmp_path / "row.jsonl"
      path.write_text(json.dumps(entry.example | {column: value}) + "\n")
      try:
        records = load(str(path), format=name, tiers=ANYTHING, neutral="good")
      except DataError:
        continue
      kept = "lost" in repr([(row, row.given) for row in records.every])
      assert kept or (name, column) in IGNORED, f"{column} = {value}"


def test_a_transcript_may_begin_with_a_system_text(tmp_path):
  sides = {
    name: f"System: Be brief.\n\nHuman: 2+2?\n\nAssistant: {text}"
    for name, text in (("chosen", "4"), ("rejected", "5"))
  }
  (pair,) = load(str(write_jsonl(tmp_path / "rows.jsonl", [sides]))).rows
  assert [(message["role"], message["content"]) for message in pair.prompt] == [
    ("system", "Be brief."),
    ("user", "2+2?"),
  ]
  assert pair.chosen == [{"role": "assistant", "content": "4"}]
