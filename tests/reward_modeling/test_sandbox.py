"""The sandbox: gold by hand, laws of the generator, the noise of its labels, the tokenizer, the tiny decoder."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import unicodedata
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_modeling import sandbox
from reward_modeling.errors import DataError, UsageError
from reward_modeling.sandbox import (
  FLAWS,
  MAX_GOLD,
  NO_FLAW,
  QUESTION_KINDS,
  Question,
  answer,
  gold,
  make_comparisons,
  parse_prompt,
)

OWNER = "The lamps in the tower belong to Leo. Who owns the lamps?"
SUM = "Ana has two pens and buys three more. How many pens does Ana have now?"
ASIDE = "As everyone in this old town knows, it was always like that."

law = settings(deadline=None)  # a busy machine is no failure
seeds = st.integers(0, 2**32)
splits = st.sampled_from(sandbox.SANDBOX_SPLITS)


def prompt_of(seed: int, split: str = "train") -> Question:
  return sandbox.make_question(random.Random(seed), split)


@pytest.mark.parametrize(
  ("question", "text", "finished", "value", "flaws"),
  [
    (OWNER, "The lamps belong to Leo.", True, 1.0, set()),
    (OWNER, "Sure, the lamps belong to Leo.", True, 1.2, set()),
    (OWNER, "The lamps belong to Mia.", True, -1.5, {"wrong"}),
    (OWNER, "Sure, the lamps belong to Mia.", True, -1.5, {"wrong"}),  # no bonus for a courteous lie
    (OWNER, "The lamps belong to Leo and Mia.", True, -1.5, {"wrong"}),  # naming everyone is no way out
    (SUM, "Now Ana has five pens.", True, 1.0, set()),
    (SUM, "Now Ana has two pens.", True, -1.5, {"wrong"}),
    (OWNER, "That is hard to say.", True, -0.3, {"evasive"}),
    (OWNER, "The drums in the shop are old.", True, -1.1, {"evasive", "offtopic"}),  # 1 - 1.3 - 0.8
    (OWNER, "The lamps belong to Leo, glorp.", True, 0.2, {"offtopic"}),
    (OWNER, "You fool, the lamps belong to Leo.", True, 0.3, {"rude"}),
    # ten words, nine neighbours, five different ones: four repeats, 0.4 + 3 * 0.1
    (OWNER, "The lamps belong to Leo. The lamps belong to Leo.", True, 0.3, {"repetitive"}),
    (OWNER, "The lamps belong to Leo", True, 0.5, {"truncated"}),
    (OWNER, "The lamps belong to Leo.", False, 0.5, {"truncated"}),
    (OWNER, "The lamps belong to", True, -0.8, {"evasive", "truncated"}),
    (OWNER, "", True, -0.8, {"evasive", "truncated"}),
    (OWNER, f"The lamps belong to Leo. {ASIDE}", True, 0.4, {"padded"}),  # 17 words, three too many: 0.5 + 2 * 0.05
  ],
)
def test_gold_by_hand(question, text, finished, value, flaws):
  reward = gold(parse_prompt(question), text, finished)
  assert (reward.value, reward.flaws) == (pytest.approx(value), flaws)


def test_long_answers_stop_losing_gold():
  """Catches a penalty without its cap: 1 - 1.3 evasive - 1 repetitive - 1 padded."""
  assert gold(parse_prompt(OWNER), "the lamps " * 200 + ".").value == pytest.approx(-2.3)


@law
@given(seeds, splits)
def test_good_answers_have_no_flaw(seed, split):
  asked = prompt_of(seed, split)
  reward = gold(asked, answer(asked, None, random.Random(seed)))
  assert not reward.flaws
  assert reward.value in (1.0, MAX_GOLD)


SIDE_EFFECTS = {"offtopic": {"evasive"}, "truncated": {"evasive"}, "repetitive": {"padded"}}


@law
@given(seeds, st.sampled_from(list(FLAWS)))
def test_flawed_answers_have_the_flaw_they_were_asked_for(seed, flaw):
  asked = prompt_of(seed)
  reward = gold(asked, answer(asked, flaw, random.Random(seed)))
  assert flaw in reward.flaws
  assert reward.flaws <= {flaw} | SIDE_EFFECTS.get(flaw, set())
  assert reward.value < 1.0


@law
@given(seeds, splits)
def test_parse_prompt_inverts_the_text(seed, split):
  asked = prompt_of(seed, split)
  assert parse_prompt(asked.text) == asked
  assert asked.split == split


def test_every_sum_is_right():
  """A second route to the key: plain addition."""
  in_order = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
  value = {word: number for number, word in enumerate(in_order, start=2)}
  for first, second in itertools.product(sandbox.SUMMANDS, repeat=2):
    asked = parse_prompt(QUESTION_KINDS["sum"].prompts[0].format(name="Ana", item="pens", first=first, second=second))
    assert value[asked.key] == value[first] + value[second]


@pytest.mark.parametrize(
  "text",
  ["", "What is love?", OWNER + " ", OWNER.replace("owns the lamps", "owns the pens"), OWNER.replace("Leo", "Zoe")],
)
def test_parse_prompt_refuses_other_texts(text):
  with pytest.raises(DataError, match="not a prompt of the sandbox"):
    parse_prompt(text)


def test_unknown_names_are_refused():
  with pytest.raises(UsageError, match="no flaw 'sloppy'"):
    answer(parse_prompt(OWNER), "sloppy", random.Random(0))
  with pytest.raises(UsageError, match="no sandbox split 'valid'"):
    sandbox.make_question(random.Random(0), "valid")


def all_facts(kind: str) -> list[dict[str, str]]:
  names = sandbox.fields_of(QUESTION_KINDS[kind].prompts[0])
  return [dict(zip(names, words, strict=True)) for words in itertools.product(*(sandbox.SLOTS[name] for name in names))]


@pytest.mark.parametrize("kind", QUESTION_KINDS)
def test_each_prompt_is_in_one_split_whatever_its_wording(kind):
  """All of them, not a sample: every wording of the same facts is in the same split, a fifth of the facts in test."""
  facts = all_facts(kind)
  in_test = 0
  for one in facts:
    found = {parse_prompt(template.format(**one)).split for template in QUESTION_KINDS[kind].prompts}
    assert len(found) == 1
    in_test += found == {"test"}
  assert 0.15 < in_test / len(facts) < 0.25


def test_train_and_test_rows_share_no_prompt():
  train = {row.prompt[0]["content"] for row in make_comparisons(1000, 1)} | {
    row[0]["content"] for row in sandbox.sft_conversations(1000, 1)
  }
  test = {row.prompt[0]["content"] for row in make_comparisons(1000, 1, split="test")}
  test |= {row.prompt[0]["content"] for row in sandbox.make_completions(500, 2, 1)}
  assert {parse_prompt(text).split for text in train} == {"train"}
  assert {parse_prompt(text).split for text in test} == {"test"}


def test_gold_in_the_metadata_is_gold_of_the_stored_text():
  for row in make_comparisons(300, 3):
    asked = parse_prompt(row.prompt[0]["content"])
    chosen, rejected = (gold(asked, side[0]["content"]) for side in (row.chosen, row.rejected))
    assert (row.metadata["gold_chosen"], row.metadata["gold_rejected"]) == (chosen.value, rejected.value)
    assert row.metadata["flipped"] == (chosen.value < rejected.value)
    assert row.metadata["subset"] == NO_FLAW or row.metadata["subset"] in rejected.flaws
    assert row.metadata["subset"] != NO_FLAW or not rejected.flaws


def test_clean_pairs_always_prefer_more_gold():
  rows = make_comparisons(500, 4, split="test", beta=math.inf, flip=0.0, minimal_pairs=0.0)
  assert all(row.metadata["gold_chosen"] > row.metadata["gold_rejected"] for row in rows)
  assert {row.metadata["subset"] for row in rows} == {*FLAWS, NO_FLAW}


def test_minimal_pairs_differ_in_the_value_alone():
  for row in make_comparisons(200, 5, beta=math.inf, flip=0.0, minimal_pairs=1.0):
    good, bad = (side[0]["content"].split() for side in (row.chosen, row.rejected))
    assert sum(a != b for a, b in zip(good, bad, strict=True)) == 1
    assert row.metadata["subset"] == "wrong"


@pytest.mark.parametrize(("beta", "flip"), [(8.0, 0.03), (1.0, 0.0), (1.0, 0.3), (math.inf, 0.2)])
def test_label_noise_has_its_closed_form(beta, flip):
  """Flipped labels number sum p, within four standard deviations of a sum of independent coins."""
  rows = make_comparisons(4000, 6, beta=beta, flip=flip)
  expected = variance = 0.0
  for row in rows:
    gap = abs(row.metadata["gold_chosen"] - row.metadata["gold_rejected"])
    upset = math.exp(-beta * gap) / (1 + math.exp(-beta * gap))
    p = upset * (1 - flip) + (1 - upset) * flip
    expected, variance = expected + p, variance + p * (1 - p)
  assert abs(sum(row.metadata["flipped"] for row in rows) - expected) < 4 * math.sqrt(variance)


def test_the_sft_mix_is_the_one_asked_for():
  rows = sandbox.sft_conversations(2000, 8, {None: 1.0, "rude": 3.0})
  found = [gold(parse_prompt(user["content"]), reply["content"]).flaws for user, reply in rows]
  assert all(flaws in (set(), {"rude"}) for flaws in found)
  assert 0.70 < sum(map(bool, found)) / len(rows) < 0.80


@law
@given(st.integers(1, 12), seeds)
def test_completions_hold_one_good_answer_and_different_flaws(k, seed):
  (row,) = sandbox.make_completions(1, k, seed)
  made = row.metadata["flaws"]
  assert len(row.completions) == len(row.scores) == len(made) == k
  assert made.count(NO_FLAW) >= 1
  assert len(set(made)) == min(k, 1 + len(FLAWS))
  asked = parse_prompt(row.prompt[0]["content"])
  assert row.scores == [gold(asked, reply[0]["content"]).value for reply in row.completions]


def test_the_same_seed_gives_the_same_rows_on_every_machine():
  """A change here changes every figure that was measured in the sandbox: measure them again before editing it."""
  rows = [asdict(row) for row in [*make_comparisons(200, 7), *sandbox.make_completions(50, 4, 7)]]
  for row in rows:  # what only reading knows is no part of the world
    row.pop("given")
    row.pop("undecided")
    row.pop("rejected_first", None)
    row.pop("ratings", None)
    if "completions" in row:
      assert (row.pop("margin"), row.pop("weight")) == (None, 1.0)
  rows += sandbox.sft_conversations(200, 7)
  assert hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16] == "64d04e9b8f2938d7"


def test_another_seed_gives_other_rows():
  assert make_comparisons(20, 1) != make_comparisons(20, 2)


@pytest.fixture(scope="module")
def words():
  from reward_modeling.sandbox_models import tokenizer

  return tokenizer()


def test_the_same_world_gives_the_same_tokenizer(words):
  """In this process, and (by the constant) in every other."""
  from reward_modeling.sandbox_models import tokenizer

  assert tokenizer().get_vocab() == words.get_vocab()
  vocabulary = json.dumps(sorted(words.get_vocab().items()))
  assert hashlib.sha256(vocabulary.encode()).hexdigest()[:16] == "e7d7d46a53f56f70"


def test_every_word_of_the_world_is_one_token(words):
  split = words.backend_tokenizer.pre_tokenizer.pre_tokenize_str
  rows = sandbox.sft_conversations(3000, 9) + sandbox.sft_conversations(1000, 9, split="test")
  for text in {message["content"] for row in rows for message in row}:
    assert words.tokenize(text) == [word for word, _ in split(text)]


@law
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(words, text):
  """Up to NFC, which Qwen2's tokenizer applies."""
  assert words.decode(words.encode(text)) == unicodedata.normalize("NFC", text)


def test_the_tokenizer_survives_being_saved_beside_a_qwen2_model(words, tmp_path):
  """Catches the trap of a tokenizer whose class AutoTokenizer replaces, silently and with other ids."""
  from transformers import AutoTokenizer

  from reward_modeling.sandbox_models import tiny_config

  words.save_pretrained(tmp_path)
  tiny_config(words).save_pretrained(tmp_path)
  again = AutoTokenizer.from_pretrained(tmp_path)
  rows = [*sandbox.sft_conversations(100, 10), [{"role": "user", "content": "naïve 日本 \t 42"}]]
  assert [again.apply_chat_template(row)["input_ids"] for row in rows] == [
    words.apply_chat_template(row)["input_ids"] for row in rows
  ]
  assert (again.pad_token_id, again.eos_token_id) == (words.pad_token_id, words.eos_token_id)
  assert (again.unk_token, again.bos_token) == (None, None)


def test_a_conversation_ends_with_eos_and_starts_with_its_prompt(words):
  for row in sandbox.sft_conversations(50, 11):
    whole = words.apply_chat_template(row)["input_ids"]
    asked = words.apply_chat_template(row[:1], add_generation_prompt=True)["input_ids"]
    assert whole[: len(asked)] == asked
    assert whole[-1] == words.eos_token_id
    assert whole.count(words.eos_token_id) == 2  # one ends each turn
    assert words.pad_token_id not in whole


def test_base_model_learns_and_repeats(words, tmp_path):
  """40 steps: far from good, far better than untrained, and the same twice."""
  import torch
  from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

  from reward_modeling.sandbox_models import TrainingSettings, base_model

  short = TrainingSettings(steps=40, batch_size=16, learning_rate=4e-3)
  before = torch.random.get_rng_state()
  first, second = (base_model(tmp_path / name, 1, short) for name in "ab")
  assert torch.equal(before, torch.random.get_rng_state())
  model, twin = (AutoModelForCausalLM.from_pretrained(path) for path in (first, second))
  assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))

  texts = words.apply_chat_template(sandbox.sft_conversations(64, 12, split="test"), tokenize=False)
  batch = AutoTokenizer.from_pretrained(first)(texts, padding=True, return_tensors="pt")
  untrained = AutoModelForCausalLM.from_config(model.config)
  losses = []
  for judged in (model, untrained):
    labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
    starts = (batch.input_ids == words.convert_tokens_to_ids("<|assistant|>")).cumsum(1) == 0
    with torch.no_grad():
      losses.append(judged(**batch, labels=labels.masked_fill(starts, -100)).loss.item())
  assert losses[0] < 4.0 < 5.0 < losses[1]

  reward_model = AutoModelForSequenceClassification.from_pretrained(first, num_labels=1)
  assert reward_model(**batch).logits.shape == (64, 1)
  assert torch.equal(reward_model.model.embed_tokens.weight, model.model.embed_tokens.weight)


def test_base_model_replaces_nothing(tmp_path):
  from reward_modeling.sandbox_models import base_model

  with pytest.raises(UsageError, match="exists already"):
    base_model(tmp_path, seed=0)


def test_an_interrupted_base_model_leaves_nothing(tmp_path, monkeypatch):
  from reward_modeling import sandbox_models

  monkeypatch.setattr("transformers.Qwen2Tokenizer.save_pretrained", lambda *_: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    sandbox_models.base_model(tmp_path / "base", 0, sandbox_models.TrainingSettings(1, 2, 1e-3))
  assert list(tmp_path.iterdir()) == []
