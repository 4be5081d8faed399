"""A chat template is a program of others: its text is that of transformers, and what it does wrong is one line."""

from pathlib import Path

import pytest

from conftest import CHATML, tiny_tokenizer
from reward_modeling import chat_templates
from reward_modeling.chat_templates import TemplateFaultError, apply
from reward_modeling.errors import DataError, ModelError
from reward_modeling.rendering import Renderer
from reward_modeling.tokenizer_setup import prepare_tokenizer

USER, ANSWER = (
  {"role": "user", "content": "hi there"},
  {"role": "assistant", "content": "<think>\nhm\n</think>\n\nyes é"},
)
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "look", "arguments": {"city": 'x " é'}}}
CITY = {"type": "object", "properties": {"city": {"type": "string", "description": "c"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "look", "description": "look up", "parameters": CITY}}]
CONVERSATIONS = (
  ([{"role": "system", "content": "s"}, USER, ANSWER, USER, ANSWER], None),
  (
    [
      USER,
      {"role": "assistant", "content": "", "tool_calls": [CALL]},
      {"role": "tool", "name": "look", "tool_call_id": "abcdefghi", "content": "sunny"},
      {"role": "assistant", "content": "fine", "reasoning_content": "why"},
    ],
    TOOLS,
  ),
  ([USER], None),
)


def templates() -> list[Path]:
  import trl

  return sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))


def test_the_text_of_every_template_at_hand_is_that_of_transformers():
  """Eighty published templates, `{% generation %}` blocks and tools included; the date apart, which is fixed."""
  tokenizer, compared = tiny_tokenizer("qwen2"), 0
  for path in templates():
    tokenizer.chat_template = path.read_text()
    for messages, tools in CONVERSATIONS:
      try:
        expected = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
      except Exception:
        with pytest.raises(TemplateFaultError):
          apply(tokenizer, messages, tools)
        continue
      if not chat_templates.writes_the_date(tokenizer):
        assert apply(tokenizer, messages, tools) == expected, path.name
        compared += 1
  assert compared > 100


GROWING = "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(60) %}{% set ns.x = X %}{% endfor %}{{ ns.x }}"
LAUGHING = "{% set ns = namespace(x=['a']) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
HUGE, NUMBER = "more work than a conversation can need", "a huge (width|number)"
EVIL = {
  "nested loops": ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", HUGE),
  "filtered loops": ("{% for a in range(99999) %}{% for b in range(99999) if 0 %}{% endfor %}{% endfor %}", HUGE),
  "calls in calls": ("{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}", HUGE),
  "a long text": ("{{ 'a' * 10**9 }}", HUGE),
  "a long list": ("{{ [0] * 10**9 }}", HUGE),
  "a text that doubles": (GROWING.replace("X", "ns.x + ns.x"), HUGE),
  "a text that doubles by ~": (GROWING.replace("X", "ns.x ~ ns.x"), HUGE),
  "a block that doubles": (GROWING.replace("ns.x = X %}", "ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}"), HUGE),
  "a list that holds itself": (LAUGHING + "{{ ns.x }}", HUGE),
  "the same as JSON": (LAUGHING + "{{ ns.x | tojson }}", HUGE),
  "a wide text": ("{{ 'a' | center(10**9) }}", HUGE),
  "a wide method": ("{{ 'a'.ljust(10**9) }}", HUGE),
  "a wide number": ("{{ '%1000000000d' % 1 }}", NUMBER),
  "a wide format": ("{{ '{:1000000000}'.format(1) }}", NUMBER),
  "a width as an argument": ("{{ '%*d' % (1000000000, 1) }}", HUGE),
  "replaced": ("{% set x = 'a' * 9999 %}{{ x.replace('a', x).replace('a', x) }}", HUGE),
  "joined": ("{{ range(99999) | join('a' * 99999) }}", HUGE),
  "indented": ("{{ {'a': [1]} | tojson(indent=10**9) }}", HUGE),
  "bytes": ("{{ (1).to_bytes(10**10, 'big') }}", HUGE),
  "a power": ("{{ 10 ** (10 ** 10) }}", NUMBER),
  "slices": ("{% set x = [0] * 10**6 %}{% for i in range(99999) %}{% set y = x[::-1] %}{% endfor %}", HUGE),
  "searches": ("{% set x = 'a' * 10**7 %}{% for i in range(99999) %}{{ 'b' in x }}{% endfor %}", HUGE),
  "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
  "nested brackets": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "RecursionError"),
  "division by zero": ("{{ 1 / 0 }}", "division by zero"),
  "an unknown attribute": ("{{ messages[0].a.b }}", "has no attribute 'a'"),
  "a broken template": ("{% if %}", "Expected an expression"),
  "another file": ("{% include 'x' %}", "TypeError"),
  "chance": ("{{ ['a', 'b'] | random }}", "draws at random"),
  "random words": ("{{ lipsum() }}", "draws at random"),
}


@pytest.mark.parametrize("name", EVIL)
def test_what_a_template_does_wrong_is_one_line(name):
  """By counted steps, so that it is refused on every machine, and never by a clock."""
  template, reason = EVIL[name]
  tokenizer = tiny_tokenizer("qwen2")
  tokenizer.chat_template = template
  with pytest.raises(TemplateFaultError, match=reason) as fault:
    apply(tokenizer, [USER, ANSWER])
  assert "\n" not in str(fault.value)
  tokenizer.chat_template = CHATML
  assert apply(tokenizer, [USER]).endswith("there<|im_end|>\n"), "the next template has a budget of its own"


def test_a_row_that_a_template_fails_on_is_an_error_of_the_data_and_a_template_that_always_fails_one_of_the_model():
  tokenizer = tiny_tokenizer("qwen2")
  tokenizer.chat_template = "{{ 1 / (messages[0].content | length - 3) }}" + CHATML
  renderer = Renderer(tokenizer, max_length=None)
  assert len(renderer.fingerprint) == 16
  with pytest.raises(DataError, match="the chat template refuses this conversation: division by zero") as error:
    renderer.render([{"role": "user", "content": "abc"}], [ANSWER], where="rows.jsonl:7")
  assert error.value.where == "rows.jsonl:7" and error.value.hint
  tokenizer.chat_template = "{{ 1 / 0 }}"
  with pytest.raises(ModelError, match="broken chat template: division by zero"):
    Renderer(tokenizer, max_length=None).contract()


def test_all_refused_rows_are_told_at_once():
  tokenizer = tiny_tokenizer("qwen2")
  tokenizer.chat_template = "{% if 'bad' in messages[0].content %}{{ raise_exception('No!') }}{% endif %}" + CHATML
  renderer = Renderer(tokenizer, max_length=None)
  rows = [
    ([{"role": "user", "content": "bad" if i % 2 else "good"}], [ANSWER], None, f"rows.jsonl:{i + 1}")
    for i in range(14)
  ]
  with pytest.raises(DataError) as error:
    renderer.render_all(rows)
  assert error.value.message == (
    "7 of 14 conversations cannot be rendered (rows.jsonl:2, rows.jsonl:4, rows.jsonl:6, rows.jsonl:8, rows.jsonl:10 "
    "and 2 more); the first: the chat template refuses this conversation: No!"
  )
  refused = []
  rendered = renderer.render_all(rows, refused)
  assert [i for i, _ in refused] == [1, 3, 5, 7, 9, 11, 13] and refused[0][1].where == "rows.jsonl:2"
  assert [row is None for row in rendered] == [bool(i % 2) for i in range(14)]


@pytest.mark.parametrize(
  ("template", "written"),
  [
    ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
    ("{{ strftime_now('%Y-%m-%d') }}", "2024-07-26"),
    ("{% set day = strftime_now('%d %b %Y') if day is not defined %}{{ day }}", "26 Jul 2024"),
  ],
)
def test_the_date_of_any_template_is_fixed(template, written):
  tokenizer = tiny_tokenizer("qwen2")
  tokenizer.chat_template = template + CHATML
  assert Renderer(tokenizer, max_length=None).text([USER]).startswith(written + "<|im_start|>")


def test_several_templates_by_name_are_one_contract():
  tokenizer = tiny_tokenizer("qwen2")
  tokenizer.chat_template = {"default": CHATML, "tool_use": "{{ tools | tojson }}" + CHATML}
  prepare_tokenizer(tokenizer)
  renderer = Renderer(tokenizer, max_length=None)
  assert renderer.text([USER]) == "<|im_start|>user\nhi there<|im_end|>\n"
  assert renderer.text([USER], [{"name": "look"}]).startswith('[{"name": "look"}]<|im_start|>')
  before = renderer.fingerprint
  tokenizer.chat_template = {**tokenizer.chat_template, "tool_use": "{{ tools }}" + CHATML}
  assert Renderer(tokenizer, max_length=None).fingerprint != before
