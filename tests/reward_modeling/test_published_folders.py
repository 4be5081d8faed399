"""Reward models as people publish them: how they lie in a folder must not change a score, and what cannot be read says so."""

import importlib.util
import json

import pytest
import torch
from public_models import ANSWER, QUESTION
from public_process_models import pair_rm
from safetensors.torch import load_file

from conftest import CHATML, run_main, save_tiny, tiny_tokenizer, write_jsonl
from reward_modeling import ProcessRewardModel, RewardModel
from reward_modeling.errors import DataError, ModelError, UsageError
from reward_modeling.pairwise import PairwiseModel

ASKED = [(QUESTION, ANSWER), ("hello world", "thank you please"), ("yes no", "There are twelve apples in the basket.")]


def written(question, answer):
  return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"


def by_transformers(folder, *, pair=False):
  """Each answer alone, by the classes of transformers and no more."""
  from transformers import AutoModelForSequenceClassification, AutoTokenizer

  tokenizer = AutoTokenizer.from_pretrained(folder)
  model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
  found = []
  for asked in ASKED:
    texts, special = (asked, True) if pair else ([written(*asked)], False)
    inputs = tokenizer(*texts, return_tensors="pt", add_special_tokens=special)
    taken = {name: value for name, value in inputs.items() if name != "token_type_ids" or pair}
    with torch.no_grad():
      found.append(model(**taken).logits[0, 0].item())
  return found


def by_ours(folder, **how):
  model = RewardModel.from_pretrained(str(folder), device="cpu", **how)
  return model.score([question for question, _ in ASKED], [answer for _, answer in ASKED]), model.notes


def edit(file, **changes):
  fields = json.loads(file.read_text()) | changes
  file.write_text(json.dumps({name: value for name, value in fields.items() if value is not None}))


def sharded(folder):
  from transformers import AutoModelForSequenceClassification

  model = AutoModelForSequenceClassification.from_pretrained(folder)
  (folder / "model.safetensors").unlink()
  model.save_pretrained(folder, max_shard_size="20KB")
  assert (folder / "model.safetensors.index.json").is_file()


def pickled(folder):
  torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
  (folder / "model.safetensors").unlink()


def in_half(folder):
  from transformers import AutoModelForSequenceClassification

  AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)


def without_pad(folder):
  edit(folder / "config.json", pad_token_id=None)
  edit(folder / "tokenizer_config.json", pad_token=None)


def padded_with_eos(folder):
  edit(folder / "config.json", pad_token_id=2)
  edit(folder / "tokenizer_config.json", pad_token="<|im_end|>")


def template_in(file, value):
  def change(folder):
    (folder / "chat_template.jinja").unlink()
    if not (folder / file).exists():
      (folder / file).write_text("{}")
    edit(folder / file, chat_template=value)

  return change


def pad_without_embedding(folder):
  from transformers import AutoTokenizer

  tokenizer = AutoTokenizer.from_pretrained(folder)
  tokenizer.add_special_tokens({"pad_token": "<a new pad>"})
  tokenizer.save_pretrained(folder)


NAMED = [{"name": "default", "template": CHATML}, {"name": "rag", "template": "{% for m in messages %}X{% endfor %}"}]
SAME = {
  "one file": lambda folder: None,
  "shards": sharded,
  "a pickle": pickled,
  "bf16": in_half,
  "no pad token": without_pad,
  "pad is EOS": padded_with_eos,
  "a pad token without embedding": pad_without_embedding,
  "regression": lambda folder: edit(folder / "config.json", problem_type="regression"),
  "template in tokenizer_config.json": template_in("tokenizer_config.json", CHATML),
  "several named templates": template_in("tokenizer_config.json", NAMED),
  "template of a processor": template_in("chat_template.json", CHATML),
}


@pytest.mark.parametrize("how", SAME)
def test_how_a_model_lies_in_its_folder_does_not_change_its_scores(how, tmp_path):
  folder = save_tiny("qwen2", tmp_path / "model", head=1)
  plain = by_transformers(folder)
  SAME[how](folder)
  found, _ = by_ours(folder)
  assert found == pytest.approx(by_transformers(folder) if how == "bf16" else plain, abs=1e-5)


def test_two_texts_that_a_tokenizer_would_glue_together_are_turns(tmp_path):
  _, notes = by_ours(save_tiny("modernbert", tmp_path / "model", head=1))  # whose tiny tokenizer knows one text alone
  assert any("'User: ' and 'Assistant: ' before the turns" in note for note in notes)


@pytest.mark.parametrize("family", ["bert"])
def test_an_encoder_without_a_chat_template_reads_two_texts(family, tmp_path):
  """As cross encoders and most published encoders; its scores then are those of `tokenizer(question, answer)`."""
  folder = save_tiny(family, tmp_path / "cross-encoder", head=1)
  edit(folder / "config.json", sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"})
  found, notes = by_ours(folder)
  assert found == pytest.approx(by_transformers(folder, pair=True), abs=1e-5)
  assert any("assumed are prompt and answer as a text pair" in note for note in notes)
  chat, _ = by_ours(folder, text_format="chat")
  assert chat != pytest.approx(found, abs=1e-3)
  (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}")
  with_template, notes = by_ours(folder)
  assert with_template != pytest.approx(found, abs=1e-3)
  assert any("assumed are its own chat template" in note for note in notes)


def test_a_decoder_without_a_chat_template_tells_what_is_assumed(tmp_path):
  folder = save_tiny("llama", tmp_path / "model", head=1)
  (folder / "chat_template.jinja").unlink()
  assert any("'User: ' and 'Assistant: ' before the turns" in note for note in by_ours(folder)[1])


def test_two_texts_need_a_token_between_them(tmp_path):
  folder = save_tiny("bert", tmp_path / "model", head=1)
  edit(folder / "tokenizer_config.json", sep_token=None, tokenizer_class="PreTrainedTokenizerFast")
  (folder / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}")
  with pytest.raises(ModelError, match="has no SEP token between two texts"):
    by_ours(folder, text_format="pair")


def only_gguf(folder):
  (folder / "model.safetensors").unlink()
  (folder / "model-Q4_K_M.gguf").write_bytes(b"GGUF")


def slow_tokenizer(folder):
  (folder / "tokenizer.json").unlink()
  edit(folder / "tokenizer_config.json", tokenizer_class="LlamaTokenizer")
  (folder / "tokenizer.model").write_bytes(b"no model")


def test_a_tokenizer_of_sentencepiece_says_what_to_install(tmp_path):
  if importlib.util.find_spec("sentencepiece"):
    pytest.skip("sentencepiece is installed")
  folder = save_tiny("llama", tmp_path / "model", head=1)
  slow_tokenizer(folder)
  with pytest.raises(ModelError) as caught:
    by_ours(folder)
  assert "--with sentencepiece" in caught.value.hint


@pytest.mark.parametrize("family", ["qwen3", "llama", "smollm3"])
def test_a_token_classifier_of_any_decoder_is_read_as_trl_trains_it(family, tmp_path):
  """One step at a time: the tokens of prompt, step and line break, softmax at the last."""
  from transformers import AutoConfig, AutoModelForTokenClassification

  tokenizer = tiny_tokenizer("qwen2")
  sizes = {
    "vocab_size": len(tokenizer),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "head_dim": 8,
  }
  more = {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "pad_token_id": 3,
    "num_labels": 2,
  }
  torch.manual_seed(0)
  ends = {"bos_token_id": None, "eos_token_id": 2}
  model = AutoModelForTokenClassification.from_config(AutoConfig.for_model(family, **sizes, **more, **ends)).eval()
  model.save_pretrained(tmp_path)
  tokenizer.save_pretrained(tmp_path)
  steps = ["It is Paris.", "two three"]
  ids, wanted = tokenizer(QUESTION, add_special_tokens=False)["input_ids"], []
  for step in steps:
    ids += (
      tokenizer(step, add_special_tokens=False)["input_ids"] + tokenizer("\n", add_special_tokens=False)["input_ids"]
    )
    with torch.no_grad():
      wanted.append(model(torch.tensor([ids])).logits[0, -1].softmax(-1)[1].item())
  (found,) = ProcessRewardModel.from_pretrained(str(tmp_path), device="cpu").score_steps([QUESTION], [steps])
  assert found == pytest.approx(wanted, abs=1e-5)


REFUSED = {
  "GGUF": (only_gguf, "holds GGUF weights"),
  "AWQ": (lambda folder: edit(folder / "config.json", quantization_config={"quant_method": "awq", "bits": 4}), "AWQ"),
  "bitsandbytes": (
    lambda folder: edit(
      folder / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}
    ),
    "bitsandbytes",
  ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_quantized_is_read_right_or_refused_in_a_line(name, tmp_path):
  folder = save_tiny("qwen2", tmp_path / "model", head=1)
  change, match = REFUSED[name]
  change(folder)
  try:
    by_ours(folder)
  except ModelError as error:
    assert match in error.message and error.hint.startswith("give the model without quantization")
  else:
    assert name == "bitsandbytes", "which is installed here"


def test_pair_rm_reads_to_the_lengths_of_its_authors(tmp_path):
  folder = str(pair_rm(tmp_path / "llm-blender--PairRM-hf"))
  long = ["two and three " * 500, "four"]
  cut = PairwiseModel.from_pretrained(folder, device="cpu").score(["What is two?"], [long])[0]
  same = PairwiseModel.from_pretrained(folder, device="cpu").score(
    ["What is two?"], [["two and three " * 700, "four"]]
  )[0]
  assert cut == pytest.approx(same, abs=1e-6), "what follows the cut is not read"
  assert PairwiseModel.from_pretrained(folder, device="cpu", overlong="drop").score(["?"], [long])[0] == [None, None]
  with pytest.raises(DataError, match="a text is longer than its authors read: 1224 tokens"):
    PairwiseModel.from_pretrained(folder, device="cpu", overlong="error").score(["?"], [long])
  for how in ({"overlong": "truncate_left"}, {"max_length": 100}):
    with pytest.raises(UsageError, match="up to its authors' lengths"):
      PairwiseModel.from_pretrained(folder, device="cpu", **how)
  data = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "What?", "completions": ["two", "three"]}])
  done = run_main("score.py", "--model_name_or_path", folder, "--input", data, "--overlong", "truncate_prompt")
  assert done.returncode == 2 and "Traceback" not in done.stderr
