"""The traps of today's libraries, each beside what this project does about it.

Where a library's behaviour can be shown cheaply, the first half of a test shows it, so that a release that mends it is
noticed; the second half is ours.
"""

import json

import pytest
import torch

from conftest import save_tiny, tiny_tokenizer, write_jsonl
from reward_modeling import checkpoints
from reward_modeling.data.reading import load
from reward_modeling.data.records import comparisons
from reward_modeling.precision import precision
from reward_modeling.rendering import Renderer
from reward_modeling.scoring import RewardModel
from reward_modeling.tokenizer_setup import prepare_tokenizer
from reward_modeling.training.outcome import PaddedCollator
from reward_modeling.training.pairs import render_comparisons

MESSAGES = [{"role": "user", "content": "hello world"}, {"role": "assistant", "content": "thank you"}]


def rendered_texts(tmp_path, row: dict, family: str = "qwen2") -> list[str]:
  """What the model is shown of the two sides of one row of a file."""
  tokenizer = tiny_tokenizer(family)
  prepare_tokenizer(tokenizer)
  pairs = comparisons(load([str(write_jsonl(tmp_path / "row.jsonl", [row]))]))
  rows = render_comparisons(pairs, Renderer(tokenizer, max_length=None))
  return [tokenizer.decode(ids) for ids in rows.dataset[0]["sequences"]]


def chatml(*turns: tuple[str, str]) -> str:
  return "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what happens without a GPU")
def test_01_precision_follows_the_hardware(tmp_path):
  from trl import RewardConfig

  with pytest.raises(ValueError, match="bf16"):
    RewardConfig(str(tmp_path))
  config = RewardConfig(str(tmp_path), **precision())
  assert not config.bf16 and not config.fp16


def test_02_weights_are_trained_in_fp32_whatever_they_were_saved_in(tmp_path):
  from transformers import AutoModelForSequenceClassification

  folder = save_tiny("qwen2", tmp_path)
  AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.bfloat16).save_pretrained(folder)
  assert AutoModelForSequenceClassification.from_pretrained(folder).dtype == torch.bfloat16, "the trap"
  assert checkpoints.load_for_training(str(folder)).model.dtype == torch.float32


def test_03_strings_become_turns_and_are_not_glued_to_the_prompt(tmp_path):
  chosen, rejected = rendered_texts(tmp_path, {"prompt": "hello", "chosen": "yes", "rejected": "no"})
  assert chosen == chatml(("user", "hello"), ("assistant", "yes"))
  assert rejected == chatml(("user", "hello"), ("assistant", "no"))


def test_04_system_and_input_columns_reach_the_model(tmp_path):
  row = {"system": "be brief", "input": "hello", "chosen": "yes", "rejected": "no"}
  assert rendered_texts(tmp_path, row)[0] == chatml(("system", "be brief"), ("user", "hello"), ("assistant", "yes"))


def test_05_a_prompt_beside_full_conversations_is_not_doubled(tmp_path):
  user, yes, no = (
    {"role": role, "content": text} for role, text in (("user", "hello"), ("assistant", "yes"), ("assistant", "no"))
  )
  row = {"prompt": "hello", "chosen": [user, yes], "rejected": [user, no]}
  assert rendered_texts(tmp_path, row)[0] == chatml(("user", "hello"), ("assistant", "yes"))


def test_06_over_length_pairs_are_counted():
  from reward_modeling.data.records import Comparison

  pairs = [
    Comparison(MESSAGES[:1], [{"role": "assistant", "content": text}], [{"role": "assistant", "content": "no"}])
    for text in ("yes", "yes " * 50)
  ]
  rows = render_comparisons(pairs, Renderer(tiny_tokenizer("qwen2"), max_length=40, overlong="drop"))
  assert rows.counts == {
    "pairs": 2,
    "dropped_over_length": 1,
    "identical_after_truncation": 0,
    "truncated_sides": 0,
    "pairs_used": 1,
  }


def test_07_the_pipeline_gives_the_raw_score(tiny, tmp_path):
  from transformers import pipeline

  loaded = checkpoints.load_for_training(str(tiny("qwen2")))
  text = loaded.tokenizer.apply_chat_template(MESSAGES, tokenize=False)
  renderer = Renderer(loaded.tokenizer, max_length=None)
  checkpoints.save(loaded.model.eval(), renderer, tmp_path, training={}, reward={})
  raw = RewardModel(loaded.model, renderer).score(["hello world"], ["thank you"])[0]
  assert pipeline("text-classification", model=str(tmp_path))(text)[0]["score"] == pytest.approx(raw, abs=1e-6)
  config = json.loads((tmp_path / "config.json").read_text())
  (tmp_path / "config.json").write_text(json.dumps({**config, "problem_type": None}))
  squashed = pipeline("text-classification", model=str(tmp_path))(text)[0]["score"]
  assert squashed == pytest.approx(1 / (1 + 2.718281828**-raw), abs=1e-5), "the trap: a sigmoid"


def test_08_the_end_of_the_answer_is_seen(tmp_path):
  """With pad = EOS transformers pools the token before EOS: an answer and its unfinished copy score the same."""

  def pad_is_eos(tokenizer):
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = None

  folder = save_tiny("llama", tmp_path, edit=pad_is_eos)
  loaded = checkpoints.load_for_training(str(folder))
  ids = Renderer(loaded.tokenizer, max_length=None).render(MESSAGES[:1], MESSAGES[1:]).ids
  assert ids[-1] == loaded.tokenizer.eos_token_id

  def scores():
    with torch.no_grad():
      return [loaded.model.eval()(input_ids=torch.tensor([row])).logits[0, 0].item() for row in (ids, ids[:-1])]

  finished, unfinished = scores()
  assert abs(finished - unfinished) > 1e-3
  loaded.model.config.pad_token_id = loaded.tokenizer.eos_token_id
  finished, unfinished = scores()
  assert finished == pytest.approx(unfinished, abs=1e-6), "the trap"


def test_09_training_and_scoring_read_the_same_token(tiny):
  from reward_modeling.data.records import Comparison

  loaded = checkpoints.load_for_training(str(tiny("qwen2")))
  model = RewardModel(loaded.model.eval(), Renderer(loaded.tokenizer, max_length=None))
  pair = Comparison(MESSAGES[:1], MESSAGES[1:], [{"role": "assistant", "content": "no"}])
  row = render_comparisons([pair], model.renderer).dataset[0]
  batch = PaddedCollator(loaded.tokenizer.pad_token_id)([row])
  with torch.no_grad():
    trained = loaded.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0].tolist()
  assert trained == pytest.approx(model.score(["hello world"], [["thank you", "no"]])[0], abs=1e-6)
  stopped_early = row["sequences"][0][:-1]
  assert abs(model.score_ids([stopped_early])[0] - trained[0]) > 1e-3, "the trap: scoring up to <|im_end|>"


@pytest.mark.parametrize("family", ["qwen2", "llama", "bert", "modernbert"])
def test_10_the_reward_in_grpo_is_the_reward_of_score(family, tiny, tmp_path):
  """TRL's GRPOTrainer templates the conversation, tokenises it without special tokens, pads right, forwards once."""
  from transformers import AutoModelForSequenceClassification, AutoTokenizer
  from trl.data_utils import apply_chat_template

  loaded = checkpoints.load_for_training(str(tiny(family)))
  renderer = Renderer(loaded.tokenizer, max_length=128, scored_at=checkpoints.scored_at(loaded.model))
  checkpoints.save(loaded.model.eval(), renderer, tmp_path, training={}, reward={})
  model, tokenizer = (
    AutoModelForSequenceClassification.from_pretrained(tmp_path).eval(),
    AutoTokenizer.from_pretrained(tmp_path),
  )
  answers = ["thank you", "no", "red apples in the basket"]
  texts = [
    apply_chat_template({"messages": [MESSAGES[0], {"role": "assistant", "content": answer}]}, tokenizer)["text"]
    for answer in answers
  ]
  with torch.no_grad():
    inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False)
    in_grpo = model(**inputs).logits[:, 0].tolist()
  assert RewardModel.from_pretrained(str(tmp_path)).score(["hello world"], [answers])[0] == pytest.approx(
    in_grpo, abs=1e-5
  )


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_11_an_encoder_without_eos_gets_cls_and_sep_in_training_and_scoring(family, tmp_path):
  tokenizer = tiny_tokenizer(family)
  assert tokenizer.eos_token is None, "TRL fails here: endswith first arg must be str"
  prepare_tokenizer(tokenizer)
  ids = Renderer(tokenizer, max_length=None, scored_at="pooled").render(MESSAGES[:1], MESSAGES[1:]).ids
  plain = tokenizer(tokenizer.decode(ids, skip_special_tokens=True))["input_ids"]
  assert (ids[0], ids[-1]) == (plain[0], plain[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
