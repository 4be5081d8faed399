"""Stepwise solutions become token ids in which every label has one known place."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import tiny_tokenizer
from reward_modeling.errors import DataError, ModelError
from reward_modeling.step_rendering import StepRenderer, default_separator, split_steps, supervised_text
from reward_modeling.tokenizer_setup import prepare_tokenizer

PROMPT = [{"role": "user", "content": "hello world"}]
STEP = st.text(alphabet="abc xyz,.?é\n", min_size=1, max_size=12).filter(str.strip)


def renderer(family="qwen2", **kwargs):
  tokenizer = tiny_tokenizer(family)
  prepare_tokenizer(tokenizer)
  kwargs = {"max_length": None, "step_separator": default_separator(tokenizer), **kwargs}
  return StepRenderer(tokenizer, **kwargs)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEP, min_size=1, max_size=6), family=st.sampled_from(["qwen2", "bert", "modernbert"]))
def test_a_beginning_renders_to_a_beginning(steps, family):
  """Catches a token that spans two steps: the single pass would then differ from a call for each prefix."""
  r = renderer(family)
  whole = r.render(PROMPT, steps)
  for k in range(1, len(steps) + 1):
    part = r.render(PROMPT, steps[:k])
    assert part.ids == whole.ids[: len(part.ids)] and part.positions == whole.positions[:k]
    assert whole.ids[whole.positions[k - 1]] == r.separator_ids[-1]


@settings(max_examples=80, deadline=None)
@given(
  steps=st.lists(STEP, min_size=1, max_size=6),
  limit=st.integers(1, 60),
  overlong=st.sampled_from(["drop_steps", "truncate_prompt", "drop"]),
)
def test_truncation_never_moves_a_label(steps, limit, overlong):
  """Each kept position still has its own step's tokens in front of it, whatever was cut."""
  r = renderer(max_length=limit, overlong=overlong)
  whole = renderer().render(PROMPT, steps)
  cut = r.render(PROMPT, steps)
  if cut is None:
    return
  assert len(cut.ids) <= limit and len(cut.positions) + cut.dropped == len(steps)
  starts = [len(whole.ids) - sum(_sizes(whole)), *[place + 1 for place in whole.positions]]
  for k, place in enumerate(cut.positions):
    own = whole.ids[starts[k] : whole.positions[k] + 1]
    assert cut.ids[place + 1 - len(own) : place + 1] == own
  assert cut.cut == 0 or overlong == "truncate_prompt"


def _sizes(solution):
  ends = solution.positions
  return [ends[0] + 1 - _prompt_size(), *[b - a for a, b in pairwise(ends)]]


def _prompt_size():
  r = renderer()
  return len(r.tokenizer(r.text(PROMPT, prompt_only=True), add_special_tokens=False)["input_ids"])


def test_last_steps_are_dropped_and_counted():
  r = renderer()
  sizes = [len(r.render(PROMPT, ["one"] * k).ids) for k in (1, 2, 3)]
  short = renderer(max_length=sizes[1])
  kept = short.render(PROMPT, ["one"] * 3)
  assert len(kept.positions) == 2 and kept.dropped == 1 and short.counts["steps_dropped"] == 1
  assert renderer(max_length=sizes[0] - 1).render(PROMPT, ["one"]) is None
  with pytest.raises(DataError, match=f"has {sizes[2]} tokens, more than --max_length {sizes[1]}"):
    renderer(max_length=sizes[1], overlong="error").render(PROMPT, ["one"] * 3)


def test_cutting_the_prompt_keeps_all_steps_and_the_opening_token():
  whole = renderer("bert").render(PROMPT, ["one", "two"])
  r = renderer("bert", max_length=len(whole.ids) - 2, overlong="truncate_prompt")
  cut = r.render(PROMPT, ["one", "two"])
  assert cut.cut == 2 and cut.dropped == 0 and r.counts["truncated"] == 1
  assert cut.ids == whole.ids[:1] + whole.ids[3:] and cut.positions == [place - 2 for place in whole.positions]


def test_the_text_is_the_templates_with_each_step_and_its_separator_behind_it():
  r = renderer()
  solution = r.render(PROMPT, ["one two", "three"])
  assert r.tokenizer.decode(solution.ids) == (
    "<|im_start|>user\nhello world<|im_end|>\n<|im_start|>assistant\none two\nthree\n"
  )
  shown = supervised_text(r.tokenizer, solution.ids, solution.positions)
  assert [text.split("\n")[-2] for text, _ in shown] == ["one two", "three"]


def test_the_blank_that_a_template_writes_before_an_answer_belongs_to_the_first_step():
  """`Assistant:` and ` one` are two tokens in a finished conversation; glued, the model would read `Assistant:one`."""
  tokenizer = tiny_tokenizer("qwen2")
  tokenizer.chat_template = None
  prepare_tokenizer(tokenizer)
  solution = StepRenderer(tokenizer, max_length=None).render(PROMPT, ["one", "two"])
  assert tokenizer.decode(solution.ids) == "User: hello world\n\nAssistant: one\ntwo\n"


def test_an_encoder_gets_a_row_for_each_step_that_ends_with_it():
  r = renderer("bert", scored_at="prefix")
  solution = r.render(PROMPT, ["one", "two two"])
  assert r.rows(solution) == [
    (solution.ids[: solution.positions[0] + 1], [solution.positions[0]]),
    (solution.ids, [solution.positions[1]]),
  ]


def test_a_separator_that_is_no_token_is_refused_with_one_that_is():
  tokenizer = tiny_tokenizer("bert")
  prepare_tokenizer(tokenizer)
  with pytest.raises(ModelError, match=r"'\\n' is not a token") as caught:
    StepRenderer(tokenizer, max_length=None, step_separator="\n")
  assert "--step_separator [SEP]" in caught.value.hint and default_separator(tokenizer) == "[SEP]"


@pytest.mark.parametrize(("steps", "message"), [([], "no steps"), (["one", " \n"], "step 2 is empty")])
def test_bad_steps_are_named(steps, message):
  with pytest.raises(DataError, match=message) as caught:
    renderer().render(PROMPT, steps, where="rows.jsonl:7")
  assert caught.value.where == "rows.jsonl:7"


def test_the_fingerprint_knows_the_separator_and_the_rows():
  prints = {renderer(**kwargs).fingerprint for kwargs in ({}, {"step_separator": " ###"}, {"scored_at": "prefix"})}
  assert len(prints) == 3
  assert renderer(max_length=9).fingerprint == renderer().fingerprint


def test_splitting_keeps_no_blank_step():
  assert split_steps("one\n\n two\n") == ["one", " two"]
