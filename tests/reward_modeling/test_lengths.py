"""How much a model reads: all it can without a card of ours, and never more than it has positions for."""

import json

import pytest
import torch

from conftest import CHATML, QUICK, run_main, tiny_tokenizer, toy_pairs, write_jsonl
from reward_modeling import RewardModel, checkpoints
from reward_modeling.errors import UsageError
from reward_modeling.lengths import longest_input, positions

OFFSET = (
  "roberta",
  "xlm-roberta",
  "camembert",
  "roberta-prelayernorm",
  "xlm-roberta-xl",
  "data2vec-text",
  "longformer",
)
OFFSET += ("mpnet", "esm", "xmod", "luke", "ibert")


def of_type(name: str, positions: int = 66, vocabulary: int = 336, **kwargs):
  """A tiny sequence classifier of this architecture, with the config's own names for its sizes."""
  from transformers import AutoConfig, AutoModelForSequenceClassification

  sizes = {"vocab_size": vocabulary, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
  sizes |= {"intermediate_size": 64, "max_position_embeddings": positions, "num_labels": 1, "pad_token_id": 1}
  sizes |= {"longformer": {"attention_window": 8}, "xmod": {"default_language": "en_XX"}}.get(name, {})
  sizes |= {"esm": {"position_embedding_type": "absolute", "mask_token_id": 4}, "luke": {"entity_vocab_size": 4}}.get(
    name, {}
  )
  torch.manual_seed(0)
  return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(name, **{**sizes, **kwargs})).eval()


@pytest.mark.parametrize("name", [*OFFSET, "bert", "qwen2", "gpt2", "opt"])
def test_the_most_that_is_told_is_the_most_that_runs(name):
  model = of_type(name, **({"num_key_value_heads": 4} if name == "qwen2" else {"ffn_dim": 64} if name == "opt" else {}))
  most = positions(model)
  assert most == (64 if name in OFFSET else 66)
  row = torch.full((1, most), 7)
  with torch.no_grad():
    assert model(input_ids=row, attention_mask=torch.ones_like(row)).logits.isfinite().all()
    if name in OFFSET:
      with pytest.raises(Exception, match="index"):
        model(input_ids=torch.full((1, most + 1), 7), attention_mask=torch.ones((1, most + 1)).long())


def roberta(folder):
  tokenizer = tiny_tokenizer("modernbert")
  tokenizer.model_max_length = int(1e30)
  tokenizer.save_pretrained(folder)
  of_type("roberta", pad_token_id=3).save_pretrained(folder)
  return folder


def test_a_roberta_is_scored_and_trained_at_its_exact_maximum(tmp_path):
  folder = roberta(tmp_path / "roberta")
  model = RewardModel.from_pretrained(str(folder))
  assert model.renderer.max_length == model.renderer.longest == 66 - 3 - 1
  assert model.score(["hello"], ["apples " * 100])[0] is None
  assert model.score(["apples " * 100], ["yes"])[0] is not None and model.truncated == 1
  with pytest.raises(UsageError, match="more than the 62 tokens"):
    RewardModel.from_pretrained(str(folder), max_length=63)
  rows = [{**row, "prompt": [{"role": "user", "content": "one two three four " * 30}]} for row in toy_pairs(8)]
  words = ("--model_name_or_path", folder, "--dataset_name", write_jsonl(tmp_path / "rows.jsonl", rows))
  words += ("--output_dir", tmp_path / "out", *QUICK, "--max_steps", "1", "--val_set_size", "0", "--max_length", "62")
  done = run_main("train.py", *words, "--audit", "warn")
  assert done.returncode == 0, done.stderr


def public(folder, **kwargs):
  """A reward model as others publish them: no card, no limit in its tokenizer, padding by EOS."""
  tokenizer = tiny_tokenizer("qwen2")
  tokenizer.model_max_length = 131072
  tokenizer.chat_template = "{{ strftime_now('%d %b %Y') + '\n' }}" + CHATML if kwargs.pop("dated", False) else CHATML
  tokenizer.save_pretrained(folder)
  of_type(
    kwargs.pop("name", "qwen2"),
    positions=16384,
    vocabulary=len(tokenizer),
    num_key_value_heads=2,
    pad_token_id=3,
    initializer_range=0.2,
    **kwargs,
  ).save_pretrained(folder)
  return folder


def by_hand(folder, prompt: str, answers: list[str]) -> list[float]:
  """transformers alone, one conversation at a time."""
  from transformers import AutoModelForSequenceClassification, AutoTokenizer

  tokenizer = AutoTokenizer.from_pretrained(folder)
  model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
  scores = []
  for answer in answers:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
    with torch.no_grad():
      scores.append(model(**ids).logits[0, 0].item())
  return scores


@pytest.mark.parametrize("name", ["qwen2", "llama"])
def test_a_model_without_a_card_gives_the_numbers_of_transformers_short_and_at_8000_tokens(name, tmp_path):
  folder = public(tmp_path / "public", name=name)
  long = " ".join(f"apples {i}" for i in range(1800))
  answers = ["It is Paris.", long, "blue " + long]
  expected = by_hand(folder, "hello red", answers)
  assert RewardModel.from_pretrained(str(folder)).renderer.max_length == 16384
  done = run_main("score.py", "--model_name_or_path", folder, "--prompt", "hello red", "--completions", *answers)
  assert done.returncode == 0, done.stderr
  assert done.json["rows"][0]["rewards"] == pytest.approx(expected, abs=2e-5)
  assert done.json["not_scored"] == done.json["truncated"] == 0
  data = write_jsonl(
    tmp_path / "pairs.jsonl",
    [{"prompt": "hello red", "chosen": answers[0], "rejected": answer} for answer in answers[1:]],
  )
  words = ("--model_name_or_path", folder, "--dataset_name", data, "--output", tmp_path / "out.jsonl")
  done = run_main("evaluate.py", *words)
  assert done.returncode == 0, done.stderr
  rows = [json.loads(line) for line in (tmp_path / "out.jsonl").open()]
  assert [row["reward_rejected"] for row in rows] == pytest.approx(expected[1:], abs=2e-5)
  assert rows[0]["reward_chosen"] == pytest.approx(expected[0], abs=2e-5)
  ids = checkpoints.read_tokenizer(str(folder))(long)["input_ids"]
  assert len(ids) > 8000


def test_the_date_of_a_public_model_is_fixed_and_said(tmp_path):
  model = RewardModel.from_pretrained(str(public(tmp_path / "dated", dated=True)))
  assert any("today's date, which is fixed" in note for note in model.notes)
  assert model.renderer.text([{"role": "user", "content": "hi"}]).startswith("26 Jul 2024\n")


def test_lengths_of_models_with_and_without_limits(tmp_path):
  class Tokenizer:
    model_max_length = int(1e30)

  model = of_type("qwen2", positions=16384, num_key_value_heads=4)
  assert longest_input(model, Tokenizer) == 1024, "in training"
  assert longest_input(model, Tokenizer, default=None) == 16384
  Tokenizer.model_max_length = 512
  assert longest_input(model, Tokenizer, default=None) == 512
  assert longest_input(model, Tokenizer, 2000) == 2000
  named = public(tmp_path / "Skywork-Reward-V2-Qwen3-tiny")
  config = json.loads((named / "config.json").read_text())
  (named / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 40960}))
  assert RewardModel.from_pretrained(str(named)).renderer.max_length == 16384


def test_a_broken_template_of_a_public_model_shows_before_the_data_is_read(tmp_path):
  folder = public(tmp_path / "broken")
  (folder / "chat_template.jinja").write_text("{{ 1 / 0 }}")
  done = run_main("score.py", "--model_name_or_path", folder, "--prompt", "a", "--completions", "b")
  assert done.returncode == 4 and "broken chat template: division by zero" in done.stderr
