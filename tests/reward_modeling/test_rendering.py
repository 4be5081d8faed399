"""One rendering for every consumer: what reaches the model, token by token."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import CHATML, tiny_tokenizer
from reward_modeling.errors import DataError, ModelError
from reward_modeling.rendering import Renderer
from reward_modeling.tokenizer_setup import FIXED_DATE, default_template, prepare_tokenizer

PROMPT = [{"role": "user", "content": "How many apples are there in the basket?"}]
ANSWER = [{"role": "assistant", "content": "There are twelve apples."}]

text = st.text(st.characters(codec="utf-8", exclude_characters="<|[]"), max_size=30)
turns = st.lists(text, min_size=1, max_size=5).map(
  lambda items: [{"role": ("user", "assistant")[i % 2], "content": item} for i, item in enumerate(items)]
)


def renderer(family="qwen2", **kwargs):
  tokenizer = tiny_tokenizer(family)
  prepare_tokenizer(tokenizer)
  scored_at = "pooled" if family in ("bert", "modernbert") else "last_token"
  return Renderer(tokenizer, **{"max_length": None, "scored_at": scored_at, **kwargs})


QWEN = renderer()
BERT = renderer("bert")


@given(turns, text)
@settings(max_examples=60, deadline=None)
def test_ids_are_those_of_the_tokenizers_own_chat_template(conversation, answer):
  reply = [{"role": "assistant", "content": answer}]
  own = QWEN.tokenizer.apply_chat_template(conversation + reply, tokenize=True, return_dict=True)["input_ids"]
  assert QWEN.render(conversation, reply).ids == own


@given(st.lists(st.tuples(turns, text), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_a_conversation_renders_alike_alone_and_among_others(rows):
  conversations = [(prompt, [{"role": "assistant", "content": answer}], None, None) for prompt, answer in rows]
  together = [row.ids for row in QWEN.render_all(conversations)]
  assert together == [QWEN.render(prompt, completion).ids for prompt, completion, _, _ in conversations]


@given(turns, text, st.integers(8, 40))
@settings(max_examples=80, deadline=None)
def test_truncate_prompt_keeps_the_answer_whole_or_leaves_the_row_out(prompt, answer, limit):
  reply = [{"role": "assistant", "content": answer}]
  whole = QWEN.render(prompt, reply).ids
  cut = renderer(max_length=limit, overlong="truncate_prompt").render(prompt, reply)
  alone = QWEN.tokenizer(QWEN.text(prompt, prompt_only=True), add_special_tokens=False)["input_ids"]
  answer_ids = whole[len(alone) :]
  if cut is None:
    assert len(answer_ids) > limit
  else:
    assert len(cut.ids) <= limit and cut.ids == whole[len(whole) - len(cut.ids) :]
    assert len(cut.ids) >= len(answer_ids), "the answer was cut"
    assert cut.cut == len(whole) - len(cut.ids)


def test_truncate_left_keeps_cls_and_the_end():
  whole = BERT.render(PROMPT, ANSWER).ids
  cut = renderer("bert", max_length=9, overlong="truncate_left").render(PROMPT, ANSWER).ids
  assert cut == whole[:1] + whole[-8:] and cut[0] == BERT.tokenizer.cls_token_id


def test_every_policy_counts_what_it_did():
  rows = [(PROMPT, ANSWER, None, None), (PROMPT[:0], [{"role": "assistant", "content": "yes"}], None, None)]
  whole = len(QWEN.render(PROMPT, ANSWER).ids)
  dropping = renderer(max_length=whole - 1, overlong="drop")
  assert [row is None for row in dropping.render_all(rows)] == [True, False]
  assert dropping.counts == {"rendered": 2, "over_length": 1, "dropped": 1}
  cutting = renderer(max_length=whole - 1)
  cutting.render_all(rows)
  assert cutting.counts == {"rendered": 2, "over_length": 1, "truncated": 1}
  with pytest.raises(DataError, match=f"{whole} tokens") as error:
    renderer(max_length=whole - 1, overlong="error").render(PROMPT, ANSWER, where="pairs.jsonl:7")
  assert error.value.where == "pairs.jsonl:7"


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_default_template_gives_an_encoder_its_cls_and_sep_once(family):
  encoder = renderer(family)
  ids = encoder.render(PROMPT, ANSWER).ids
  assert ids[0] == encoder.tokenizer.cls_token_id and ids.count(encoder.tokenizer.cls_token_id) == 1
  assert ids[-1] == encoder.tokenizer.sep_token_id and ids.count(encoder.tokenizer.sep_token_id) == 1


def test_default_template_writes_bos_only_where_the_tokenizer_would():
  from tokenizers import processors

  plain = tiny_tokenizer("qwen2")
  plain.add_special_tokens({"bos_token": "<|endoftext|>"})
  assert "endoftext" not in default_template(plain)
  plain._tokenizer.post_processor = processors.TemplateProcessing(
    single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
  )
  plain.chat_template = None
  prepare_tokenizer(plain)
  ids = Renderer(plain, max_length=None).render(PROMPT, ANSWER).ids
  assert ids[0] == 0 and ids.count(0) == 1, "a double BOS shifts every score"


def test_default_template_ends_at_eos_and_its_prompt_is_a_prefix():
  tokenizer = tiny_tokenizer("qwen2")
  tokenizer.chat_template = None
  prepare_tokenizer(tokenizer)
  plain = Renderer(tokenizer, max_length=None)
  assert (
    plain.text(PROMPT + ANSWER)
    == "User: How many apples are there in the basket?\n\nAssistant: There are twelve apples.<|im_end|>"
  )
  assert plain.text(PROMPT + ANSWER).startswith(plain.text(PROMPT, prompt_only=True))


def test_a_pad_token_that_is_eos_is_replaced():
  tokenizer = tiny_tokenizer("qwen2")
  tokenizer.pad_token = tokenizer.eos_token
  notes = prepare_tokenizer(tokenizer)
  assert tokenizer.pad_token == "<pad>" and any("hides EOS" in note for note in notes)
  size = len(tokenizer)
  without = tiny_tokenizer("qwen2")
  without.pad_token = without.eos_token
  without.get_vocab = lambda: {}
  prepare_tokenizer(without)
  assert without.pad_token_id == size, "a new token is added when the vocabulary has none to spare"


def test_a_tokenizer_without_end_token_and_template_is_refused():
  tokenizer = tiny_tokenizer("qwen2")
  tokenizer.chat_template = tokenizer.eos_token = None
  with pytest.raises(ModelError, match="neither a chat template nor an EOS"):
    prepare_tokenizer(tokenizer)


def test_a_template_that_writes_the_date_is_fixed():
  tokenizer = tiny_tokenizer("qwen2")
  tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}" + CHATML
  prepare_tokenizer(tokenizer)
  prepare_tokenizer(tokenizer)
  assert tokenizer.chat_template.count(FIXED_DATE) == 1
  assert Renderer(tokenizer, max_length=None).text(PROMPT).startswith("26 Jul 2024<|im_start|>")


def test_a_template_without_system_role_gets_it_in_the_user_turn():
  tokenizer = tiny_tokenizer("qwen2")
  tokenizer.chat_template = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
  )
  folding = Renderer(tokenizer, max_length=None)
  with_system = [{"role": "system", "content": "Be brief."}, *PROMPT]
  expected = [{"role": "user", "content": "Be brief.\n\n" + PROMPT[0]["content"]}]
  assert folding.render(with_system, ANSWER).ids == folding.render(expected, ANSWER).ids
  assert folding.counts["system_prompt_moved_into_user_turn"] == 1
  with pytest.raises(DataError, match="System role not supported"):
    folding.render([{"role": "system", "content": "Be brief."}], ANSWER)


def test_tools_that_the_template_would_drop_are_refused():
  with pytest.raises(ModelError, match="no place for them"):
    QWEN.render(PROMPT, ANSWER, tools=[{"name": "search"}])


def test_a_conversation_that_ends_with_the_pad_token_is_refused():
  tokenizer = tiny_tokenizer("qwen2")
  tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}<pad>"
  with pytest.raises(DataError, match="ends with the pad token"):
    Renderer(tokenizer, max_length=None).render(PROMPT, [{"role": "assistant", "content": "yes"}], where="f:1")


def test_fingerprint_changes_with_anything_that_changes_ids():
  base = renderer().fingerprint
  assert base == renderer().fingerprint == renderer(max_length=7, overlong="drop").fingerprint
  template, words, pad = tiny_tokenizer("qwen2"), tiny_tokenizer("qwen2"), tiny_tokenizer("qwen2")
  template.chat_template = CHATML + " "
  words.add_tokens(["Hello"])
  pad.pad_token = "[SEP]"
  prints = {Renderer(tokenizer, max_length=None).fingerprint for tokenizer in (template, words, pad)}
  assert len({base, *prints}) == 4
