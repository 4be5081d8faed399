"""Messages and lists written as text are read as what they are or refused; other text stays text. Values no row may hold."""

import json

import pytest

from reward_modeling.data.cells import RowError, clean, decoded, loads
from reward_modeling.data.reading import load
from reward_modeling.data.records import Solution
from reward_modeling.data.writing import to_row
from reward_modeling.errors import DataError

Q, A, B = (
  [{"role": role, "content": text}] for role, text in (("user", "it's 2+2?\n"), ("assistant", "4"), ("assistant", "5"))
)
NUMPY = "[{{'role': 'user', 'content': \"it's 2+2?\\n\"}}\n {{'role': 'assistant', 'content': '{}'}}]"


@pytest.fixture
def read(tmp_path):
  def write_and_load(*rows, **options):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load([str(path)], **options)

  return write_and_load


WRITTEN = {
  "json": json.dumps,
  "json with spaces": lambda value: "\n " + json.dumps(value, indent=1),
  "json in json": lambda value: json.dumps(json.dumps(value)),
  "python": str,
  "numpy": lambda value: "[" + "\n ".join(map(str, value)) + "]",
  "numpy with a type": lambda value: "array([" + ",\n       ".join(map(str, value)) + "], dtype=object)",
  "with nan": lambda value: str([message | {"name": 0.5} for message in value]).replace("0.5", "nan"),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_messages_written_as_text_are_messages(read, how):
  write = WRITTEN[how]
  shapes = (
    {"prompt": write(Q), "chosen": write(A), "rejected": write(B)},
    {"chosen": write(Q + A), "rejected": write(Q + B)},
    {"prompt": "it's 2+2?\n", "chosen": write(Q + A), "rejected": write(Q + B)},
    {"conversation_a": write(Q + A), "conversation_b": write(Q + B), "winner": "model_a"},
  )
  for row in shapes:
    (pair,) = read(row).rows
    assert (pair.prompt, pair.chosen, pair.rejected) == (Q, A, B)
  (ranking,) = read({"prompt": write(Q), "completions": [write(A), write(B)], "scores": "[1. 0.5]"}).rows
  assert (ranking.prompt, ranking.completions, ranking.scores) == (Q, [A, B], [1.0, 0.5])
  (scored,) = read({"messages": write(Q + A)}).rows
  assert (scored.prompt, scored.completions) == (Q, [A])
  (one,) = read({"prompt": "p", "chosen": str(A[0]), "rejected": json.dumps(B[0])}).rows
  assert (one.chosen, one.rejected) == (A, B)


def test_lists_written_as_text_in_columns_of_lists(read):
  for steps, labels in (
    ('["a", "b c"]', "[true, null]"),
    ("['a', 'b c']", "[True, None]"),
    ("['a' 'b c']", "[1. nan]"),
  ):
    (solution,) = read({"prompt": "p", "completions": steps, "labels": labels}).rows
    assert isinstance(solution, Solution)
    assert (solution.steps, solution.labels) == (["a", "b c"], [1.0, None])


@pytest.mark.parametrize("write", [list, json.dumps, str])
def test_lists_of_turns_are_conversations(read, write):
  row = {"prompt": write(["a", "b"]), "response_a": write(["1", "2"]), "response_b": write(["1", None])}
  (pair,) = read(row | {"winner": "model_a"}).rows
  assert [message["content"] for message in pair.prompt] == ["a", "1", "b"]
  assert (pair.chosen[0]["content"], pair.rejected[0]["content"]) == ("2", "")
  with pytest.raises(DataError, match="`prompt` has 2 turns and `response_b` 1"):
    read(row | {"response_b": write(["1"]), "winner": "model_a"})


ORDINARY = (
  '{"a": 1}',
  "[1, 2, 3]",
  '["a", "b"]',
  '[{"name": "Bob", "age": 3}]',
  '[{"from": "Paris", "to": "Rome", "value": 3}]',
  '[{"employee": {"role": "cook", "content": "none"}}]',
  "[{role: user}] is not JSON",
  "{'role' in names}",
  '{"messages": 3}',
  "[citation needed] [{",
  '"quoted"',
  '```json\n[{"role": "user", "content": "x"}]\n```',
)


@pytest.mark.parametrize("answer", ORDINARY)
def test_answers_that_happen_to_be_json_stay_text(read, answer):
  (pair,) = read({"prompt": "p", "chosen": answer, "rejected": "b"}).rows
  assert pair.chosen == [{"role": "assistant", "content": answer}]
  (ranking,) = read({"prompt": answer, "completions": [answer]}).rows
  assert ranking.completions == [[{"role": "assistant", "content": answer}]]
  assert ranking.prompt == [{"role": "user", "content": answer}]


BROKEN = (
  "[{'role': 'user', 'content': 'cut off",
  "[{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'b...",
  "[{'role': 'user', 'content': datetime.date(2020, 1, 1)}]",
  "[{'role': 'user', 'content': 'a'} ... {'role': 'assistant', 'content': 'b'}]",
  '[{"role": "user", "content": "a"}, "b"]',
  '{"role": "assistant", "content": "a',
  '[{"role": "wizard", "content": "a"}]',
  "[{'role': 'user', 'content': " + "-" * 100_000 + "1}]",
  "[{'role': 'user', 'content': " + "[" * 100_000,
  '[{"role": "user", "content": "\\ud83d"}]',
  '[{"role": "user", "role": "assistant", "content": "a"}]',
  '[{"role": "user", "content": "' + "a" * 5_000_000 + '"}]',
)


NESTED = ({"messages": [{"role": "assistant", "content": "a"}]}, {"role": ["assistant"], "content": ["a"]})


@pytest.mark.parametrize("answer", [*NESTED, *map(json.dumps, NESTED), str(NESTED[1])])
def test_messages_inside_an_object_and_in_columns_of_lists_are_read(read, answer):
  (pair,) = read({"prompt": "p", "chosen": answer, "rejected": "b"}).rows
  assert pair.chosen == [{"role": "assistant", "content": "a"}]


@pytest.mark.parametrize("answer", BROKEN, ids=range(len(BROKEN)))
def test_text_that_looks_like_messages_is_never_an_answer(read, answer):
  good = {"prompt": "p", "chosen": "a", "rejected": "b"}
  records = read(good, good | {"chosen": answer}, good, leave_out_unreadable=True)
  assert [row.origin.row for row in records.rows] == [1, 3]
  assert records.set_aside == {"unreadable": 1}
  records = read(
    *[{"prompt": "p", "completions": ["a"]}] * 2,
    {"prompt": "p", "completions": [answer]},
    leave_out_unreadable=True,
  )
  assert records.set_aside == {"unreadable": 1}


def test_calls_of_tools_are_lists_and_their_arguments_objects(read):
  arguments = {"city": "Rome"}
  call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": arguments}}
  as_text = call | {"function": {"name": "look", "arguments": json.dumps(arguments)}}
  for calls in ([call], [as_text], json.dumps([as_text])):
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    (pair,) = read({"prompt": "p", "chosen": [message], "rejected": "b"}).rows
    assert pair.chosen == [{"role": "assistant", "content": "", "tool_calls": [call]}]
  (again,) = read(to_row(pair)).rows
  assert again.chosen == pair.chosen
  old = {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": json.dumps(arguments)}}
  (pair,) = read({"prompt": "p", "chosen": [old], "rejected": "b"}).rows
  assert pair.chosen[0]["tool_calls"] == [{"type": "function", "function": {"name": "look", "arguments": arguments}}]
  assert "function_call" not in pair.chosen[0]
  (kept,) = read(
    {"prompt": "p", "chosen": [old | {"function_call": {"name": "f", "arguments": "{"}}], "rejected": "b"}
  ).rows
  assert kept.chosen[0]["tool_calls"][0]["function"]["arguments"] == "{"


def test_nan_is_null_and_infinity_is_no_metadata(read):
  (pair,) = read(
    {"prompt": "p", "chosen": "a", "rejected": "b", "x": float("nan"), "y": [float("inf")], "margin": float("nan")}
  ).rows
  assert (pair.metadata, pair.margin) == ({"x": None, "y": [None]}, None)


UNBOUNDED = {
  "margin": ({"margin": float("inf")}, "`margin` is Infinity: larger than a number can be in fp32"),
  "margin in fp32": ({"margin": 1e39}, r"`margin` is 1e\+39: larger"),
  "margin as text": ({"margin": "1e999"}, "`margin` is 1e999: larger"),
  "weight": ({"weight": float("inf")}, "`weight` is Infinity: larger"),
  "scores": ({"score_chosen": -3e38, "score_rejected": 3e38}, r"`score_chosen - score_rejected` is -6e\+38: larger"),
  "310 digits": ({"margin": 10**310}, "`margin` is 1000.*: larger"),
}


@pytest.mark.parametrize("name", UNBOUNDED)
def test_numbers_that_training_cannot_hold_name_their_row(read, name):
  columns, message = UNBOUNDED[name]
  good = {"prompt": "p", "chosen": "a", "rejected": "b"}
  with pytest.raises(DataError, match=message) as caught:
    read(good, good | columns)
  assert caught.value.where.endswith(":2")
  with pytest.raises(DataError, match=r"`scores` is .*larger"):
    read({"prompt": "p", "completions": ["a", "b"], "scores": [1, float("inf")]})


def test_what_a_value_may_not_be():
  for value, reason in (
    (loads('{"a": {"b": 1, "b": 2}}'), "the key `b` occurs twice in one object"),
    (loads("[" + "9" * 5000 + "]"), "a number of 5000 digits"),
    (loads("[" * 70 + "]" * 70), "nests lists and objects more than 64 deep"),
    (["\ud83d"], "one half of a surrogate pair"),
    ({"\udce9": 1}, "the byte 0xe9 is not UTF-8"),
  ):
    with pytest.raises(RowError, match=reason):
      clean(value)
  assert decoded("[1, 2", "scores") == "[1, 2"


def test_exchanges_under_different_names_are_no_messages(read):
  mixed = [{"human": "P", "assistant": "R"}, {"input": "Q", "output": "S"}]
  assert decoded(mixed, "prompt") == mixed
  with pytest.raises(DataError, match="`prompt` holds"):
    read({"prompt": mixed, "chosen": "4", "rejected": "5"})


def test_a_part_whose_type_a_table_filled_with_null_is_text(read):
  content = [{"type": None, "text": "2+2?"}]
  (row,) = read({"prompt": [{"role": "user", "content": content}], "chosen": "4", "rejected": "5"}).rows
  assert row.prompt[0]["content"] == "2+2?"
