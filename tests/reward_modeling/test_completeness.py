"""What a completion says is in its ids, or it is told, or the row is refused."""

import json
from pathlib import Path

import pytest

from conftest import run_main, tiny_tokenizer, write_jsonl
from reward_modeling.errors import DataError
from reward_modeling.rendering import Renderer

CASES = Path(__file__).parents[2].parent / "shared" / "cases"
PROMPT = [{"role": "user", "content": "hello red basket"}]
TEXT = '{"city": "basket"}'
WRITES = "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} {{ X }}</call>{% endfor %}"
OBJECT, AS_GIVEN = "c.function.arguments | tojson", "'' + c.function.arguments"
ITEMS = "{% for c in m.tool_calls or [] %}{% for k, v in c.function.arguments | items %}{{ c.function.name }} {{ k }}={{ v }}{% endfor %}{% endfor %}"
STRIPS = "{{ m.content.split('</think>')[-1] }}"


def renderer(body: str, **kwargs) -> Renderer:
  tokenizer = tiny_tokenizer("qwen2")
  tokenizer.chat_template = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n" + body + "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
  )
  return Renderer(tokenizer, max_length=None, **kwargs)


def call(arguments=TEXT, content=None):
  function = {"name": "look", "arguments": arguments}
  return [
    {
      "role": "assistant",
      "content": content,
      "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }
  ]


PLAIN = "{{ m.content }}"


@pytest.mark.parametrize(
  ("completion", "fields"),
  [
    (call(), "`tool_calls`"),
    (call(content=""), "`tool_calls`"),
    (
      [{"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": TEXT}}],
      "`function_call`",
    ),
    ([{"role": "assistant", "content": "", "reasoning_content": "because"}], "`reasoning_content`"),
    ([{"role": "assistant", "content": "", "refusal": "I will not"}], "`refusal`"),
  ],
)
def test_a_completion_of_which_nothing_is_left_is_refused(completion, fields):
  with pytest.raises(DataError, match=f"nothing of the completion reaches the model: .* leaves out {fields}") as error:
    renderer(PLAIN).render(PROMPT, completion, where="f:3")
  assert error.value.where == "f:3" and "content" in error.value.hint


def test_a_thought_alone_is_nothing_where_the_template_cuts_thoughts():
  with pytest.raises(DataError, match="nothing of the completion"):
    renderer(STRIPS).render(PROMPT, [{"role": "assistant", "content": "<think>hm</think>"}])


@pytest.mark.parametrize(
  ("body", "completion", "fields"),
  [
    (PLAIN, call(content="I look"), "`tool_calls`"),
    (PLAIN, call('{"city": "hello"}', "look hello"), "`tool_calls`"),
    (PLAIN, [{"role": "assistant", "content": "yes", "thinking": "because"}], "`thinking`"),
    (STRIPS, [{"role": "assistant", "content": "<think>why</think>yes"}], "`content`"),
    (PLAIN, [*call(content="I look"), {"role": "assistant", "content": "ok"}], "`tool_calls`"),
    (WRITES.replace("X", "''") + PLAIN, call(), "`tool_calls`"),
  ],
)
def test_what_is_left_out_is_counted(body, completion, fields):
  partly = renderer(body)
  assert partly.render(PROMPT, completion, where="f:1") is not None
  assert partly.counts["not_rendered"] == 1 and partly.first["not_rendered"] == f"{fields} of f:1"


@pytest.mark.parametrize(
  ("body", "completion"),
  [
    (PLAIN, [{"role": "assistant", "content": "yes"}]),
    (PLAIN, [{"role": "assistant", "content": ""}]),
    ("{{ m.content | trim }}", [{"role": "assistant", "content": " yes \n\n"}]),
    (PLAIN, [{"role": "assistant", "content": "yes", "name": "bot", "id": "17"}]),
    ("{{ m.content | replace('<think>', '<think>\n') }}", [{"role": "assistant", "content": "<think>a</think>b"}]),
    (PLAIN + "{{ m.reasoning_content or '' }}", [{"role": "assistant", "content": "yes", "reasoning": "because"}]),
    (WRITES.replace("X", OBJECT), call()),
    (WRITES.replace("X", OBJECT), call(json.loads(TEXT))),
    (ITEMS, call()),
    (
      PLAIN,
      [
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
      ],
    ),
  ],
)
def test_what_is_there_is_not_counted(body, completion):
  whole = renderer(body)
  assert whole.render(PROMPT, completion) is not None and not whole.counts["not_rendered"]


@pytest.mark.parametrize("given", [TEXT, json.loads(TEXT)])
@pytest.mark.parametrize(
  "body", [OBJECT, AS_GIVEN, "c.function.arguments if c.function.arguments is string else " + OBJECT]
)
def test_arguments_are_encoded_once_whatever_the_template_takes(body, given):
  text = renderer(WRITES.replace("X", body)).text(PROMPT + call(given, ""))
  assert '<call>look {"city": "basket"}</call>' in text


def test_an_older_model_is_given_its_arguments_as_it_was_trained():
  old = renderer(WRITES.replace("X", OBJECT), special_tokens_in_content="parsed")
  assert '<call>look "{\\"city\\": \\"basket\\"}"</call>' in old.text(PROMPT + call(TEXT, ""))


def test_no_published_template_loses_a_plain_answer_or_a_call_that_it_can_write():
  import trl

  lost = {}
  tokenizer = tiny_tokenizer("qwen2")
  tools = [
    {
      "type": "function",
      "function": {"name": "look", "description": "d", "parameters": {"type": "object", "properties": {}}},
    }
  ]
  for path in sorted((Path(trl.__file__).parent / "chat_templates").glob("q*.jinja")):
    tokenizer.chat_template = path.read_text()
    one = Renderer(tokenizer, max_length=None)
    one.render(PROMPT, [{"role": "assistant", "content": ' yes, "no" \n'}])
    if "tool_calls" in tokenizer.chat_template:
      one.render(PROMPT, call(content="I look"), tools)
    lost |= {path.name: dict(one.first)} if one.first else {}
  assert not lost


@pytest.mark.parametrize("script", ["train.py", "score.py", "evaluate.py"])
def test_scripts_refuse_calls_that_would_tie_as_empty_answers(script, toy_model, tiny, tmp_path):
  rows = [
    {"prompt": f"hello {word}", "chosen": call(), "rejected": call('{"city": "no"}')}
    for word in ("red", "blue", "green")
  ]
  data = write_jsonl(tmp_path / "calls.jsonl", rows)
  flags = {
    "train.py": ("--model_name_or_path", tiny("qwen2"), "--output_dir", tmp_path / "out", "--dataset_name", data),
    "score.py": ("--model_name_or_path", toy_model[0], "--input", data),
    "evaluate.py": ("--model_name_or_path", toy_model[0], "--dataset_name", data),
  }[script]
  done = run_main(script, *flags, *(("--audit", "warn") if script == "train.py" else ()))
  assert done.returncode == 3, done.stderr
  assert "nothing of the completion reaches the model" in done.stderr and "calls.jsonl:1" in done.stderr


def test_partly_rendered_answers_are_told_with_their_number_and_first_row(toy_model, tmp_path):
  rows = [
    {"prompt": "hello", "completions": [call(content="yes"), "no"]},
    {"prompt": "hello", "completions": ["yes"]},
  ]
  done = run_main(
    "score.py", "--model_name_or_path", toy_model[0], "--input", write_jsonl(tmp_path / "rows.jsonl", rows)
  )
  assert done.returncode == 0, done.stderr
  assert done.json["not_rendered"] == 1
  told = " ".join(done.stderr.split())
  assert "1 of 3 completions reach the model in part: its chat template leaves out `tool_calls`" in told
  assert "rows.jsonl:1" in told


@pytest.mark.parametrize("name", ["21-score_calls", "21-calls_no_tools", "21-old_function_call"])
def test_shapes_of_real_calls(name, toy_model):
  if not CASES.is_dir():
    pytest.skip("the cases are not beside this repository")
  done = run_main("score.py", "--model_name_or_path", toy_model[0], "--input", CASES / f"{name}.jsonl")
  assert done.returncode == 3 and f"{name}.jsonl:1" in done.stderr, done.stderr
