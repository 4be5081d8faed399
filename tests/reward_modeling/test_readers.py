"""Public reward models: recognized, rendered and read as their authors do; the formula by hand in plain torch."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from public_models import ANSWER, EXAMPLES, LLAMA, LLAMA3_TOKENS, QUESTION, REFERENCE, deberta_pair
from safetensors.torch import load_file, save_file

from conftest import run_main, write_jsonl
from reward_modeling import RewardModel, checkpoints, readers
from reward_modeling.errors import DataError, ModelError, UsageError
from reward_modeling.rendering import Conversation

SAVED = Path(__file__).parents[1] / "saved_by_0_1"
ASKED = [(QUESTION, ANSWER), (QUESTION, "There are twelve apples."), ("hello world", "thank you")]


def turns(question, answer):
  said = {"role": "assistant", "content": answer, "reference": REFERENCE}  # a field that POLAR reads alone
  return Conversation([{"role": "user", "content": question}], [said])


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_public_model_gives_the_number_of_its_formula(name, tmp_path):
  example = EXAMPLES[name]
  folder, trunk, tensors, made = example.write(tmp_path)
  assert readers.recognize_family(str(folder)) is readers.PUBLIC["linear head" if name == "skywork-vl" else name]
  model = RewardModel.from_pretrained(str(folder), device="cpu")
  scores = model.score_conversations([turns(*one) for one in ASKED])
  for score, (question, answer) in zip(scores, ASKED, strict=True):
    ids = made(example.text(question, answer), add_special_tokens=False)["input_ids"]
    (rendered,) = model.render([turns(question, answer)])
    assert rendered.ids == ids or name == "openrlhf"
    with torch.no_grad():
      hidden = getattr(trunk, "model", trunk)(input_ids=torch.tensor([ids])).last_hidden_state[0]
    assert score == pytest.approx(float(example.reward(hidden, tensors, ids)), abs=1e-5)
  packed = model.why_padded
  assert (packed is None) == (name != "oasst-mean"), packed
  alone = [model.score_conversations([turns(*one)])[0] for one in ASKED]
  padded = RewardModel.from_pretrained(str(folder), device="cpu", shared_prefix=False)
  for other in (alone, padded.score_conversations([turns(*one) for one in ASKED])):
    assert scores == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("name", [name for name, example in EXAMPLES.items() if example.attributes])
def test_attributes_stand_beside_the_reward(name, tmp_path):
  example = EXAMPLES[name]
  folder, trunk, tensors, made = example.write(tmp_path)
  model = RewardModel.from_pretrained(str(folder), device="cpu")
  ((reward, *values),) = model.score_attributes([turns(QUESTION, ANSWER)])
  ids = made(example.text(QUESTION, ANSWER), add_special_tokens=False)["input_ids"]
  with torch.no_grad():
    hidden = getattr(trunk, "model", trunk)(input_ids=torch.tensor([ids])).last_hidden_state[0]
  found = dict(zip(model.attributes, values, strict=True))
  for key, value in example.attributes(hidden, tensors, ids).items():
    assert found[key] == pytest.approx(value, abs=1e-5)
  if name == "armorm":
    scored = run_script(folder, tmp_path)
    assert scored["reward"] == pytest.approx(reward, abs=1e-5)
    assert scored["attributes"] == pytest.approx(found, abs=1e-5)


def run_script(folder, tmp_path, *flags):
  import score

  asked = ["--prompt", QUESTION, "--completions", ANSWER, "--device", "cpu", *flags]
  return score.main(["--model_name_or_path", str(folder), *asked]).rows[0]


def test_a_card_shows_whether_another_run_scores_alike(tmp_path):
  folder, *_ = EXAMPLES["athene"].write(tmp_path)
  card = ("--write_card", str(tmp_path / "card.json"))
  run_script(folder, tmp_path, *card)
  assert len(json.loads((tmp_path / "card.json").read_text())["golden"]) == 4
  run_script(folder, tmp_path, *card)  # compares
  with pytest.raises(ModelError, match="it renders the golden texts otherwise"):
    run_script(folder, tmp_path, *card, "--max_length", "12", "--overlong", "truncate_left")
  weights = load_file(folder / "model.safetensors")
  save_file({**weights, "v_head.weight": 2 * weights["v_head.weight"]}, folder / "model.safetensors", {"format": "pt"})
  with pytest.raises(ModelError, match=r"does not score as .* did: golden scores differ by"):
    run_script(folder, tmp_path, *card)


# ---- pairs of texts, and what a user overrides ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair_encoder(tmp_path_factory):
  from transformers import AutoModelForSequenceClassification, AutoTokenizer

  folder = deberta_pair(tmp_path_factory.mktemp("pair") / "reward-model-deberta-v3-large-v2")
  model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
  return folder, model, AutoTokenizer.from_pretrained(folder)


def test_a_pair_encoder_reads_two_texts(pair_encoder):
  folder, model, made = pair_encoder
  assert readers.recognize_family(str(folder)) is readers.PUBLIC["deberta-pair"]
  mine = RewardModel.from_pretrained(str(folder), device="cpu")
  scores = mine.score_conversations([turns(*one) for one in ASKED])
  for score, asked in zip(scores, ASKED, strict=True):
    with torch.no_grad():
      assert score == pytest.approx(model(**made(*asked, return_tensors="pt")).logits[0, 0].item(), abs=1e-5)
  chat = RewardModel.from_pretrained(str(folder), device="cpu", text_format="chat")
  assert chat.score([QUESTION], [ANSWER])[0] != pytest.approx(scores[0], abs=1e-3)
  short = RewardModel.from_pretrained(str(folder), device="cpu", max_length=12)
  (cut,) = short.render([turns("hello " * 30, "thank you")])
  assert cut.ids[0] == made.cls_token_id and len(cut.ids) == 12 and made.decode(cut.ids).endswith("thank you [SEP]")


def test_an_encoder_that_nobody_knows_can_be_told_that_it_reads_pairs(tmp_path):
  from transformers import AutoModelForSequenceClassification, AutoTokenizer

  from conftest import save_tiny

  folder = save_tiny("bert", tmp_path / "mine", head=1)
  model, made = (
    AutoModelForSequenceClassification.from_pretrained(folder).eval(),
    AutoTokenizer.from_pretrained(folder),
  )
  with torch.no_grad():
    expected = model(**made(QUESTION, ANSWER, return_tensors="pt")).logits[0, 0].item()  # with its token types
  assert run_script(folder, tmp_path, "--text_format", "pair")["reward"] == pytest.approx(expected, abs=1e-5)
  (folder / "chat_template.jinja").write_text("{% for message in messages %}{{ message['content'] + '|' }}{% endfor %}")
  assert run_script(folder, tmp_path, "--text_format", "pair")["reward"] == pytest.approx(expected, abs=1e-5)
  notes = RewardModel.from_pretrained(str(folder), device="cpu").notes
  assert any(
    "assumed are its own chat template and its classifier head, read at the first token" in note for note in notes
  )
  decoder = save_tiny("llama", tmp_path / "decoder", head=1)
  with pytest.raises(UsageError, match="is for encoders"):
    RewardModel.from_pretrained(str(decoder), text_format="pair")


def test_a_template_of_the_user_comes_before_that_of_the_family(tmp_path):
  folder, _, _, made = EXAMPLES["ultrarm"].write(tmp_path)
  (tmp_path / "mine.jinja").write_text("{% for message in messages %}{{ message['content'] + '|' }}{% endfor %}")
  model = RewardModel.from_pretrained(str(folder), device="cpu", chat_template_path=str(tmp_path / "mine.jinja"))
  (rendered,) = model.render([turns(QUESTION, ANSWER)])
  assert rendered.ids == made(f"{QUESTION}|{ANSWER}|")["input_ids"]


def test_a_model_of_ours_keeps_its_template():
  with pytest.raises(UsageError, match="renders text as in training"):
    RewardModel.from_pretrained(str(SAVED / "outcome"), chat_template_path="x.jinja")


# ---- bad input ------------------------------------------------------------------------------------------------------


def without(example, *names, **changes):
  return replace(example, renamed=lambda tensors: {k: v for k, v in tensors.items() if k not in names}, **changes)


@pytest.mark.parametrize(
  ("name", "changes", "message"),
  [
    ("armorm", {"names": ("gating.layers.3.bias", "gating.logit_scale")}, r"the head lacks a tensor \('scale'\)"),
    ("qwen-rm", {"names": ("score.0.bias", "model.layers.1.mlp.up_proj.weight")}, r"lacks 1 tensors"),
    (
      "athene",
      {"tokenizer": {**LLAMA, "tokens": LLAMA3_TOKENS[:3]}},
      r"has no token '<\|reserved_special_token_1\|>', after which",
    ),
    ("nemotron-principle", {"tokenizer": LLAMA}, r"has no token 'Yes', whose logit"),
    (
      "polar",
      {"tokenizer": {"tokens": ("[UNUSED_TOKEN_130]",)}},
      r"has no token '<\|reward\|>', which its authors write",
    ),
    ("skywork-vl", {"names": ("v_head.summary.weight",)}, r"with a head that no class"),
  ],
)
def test_what_is_missing_is_named(name, changes, message, tmp_path):
  folder, *_ = without(EXAMPLES[name], *changes.pop("names", ()), **changes).write(tmp_path)
  with pytest.raises(ModelError, match=message):
    RewardModel.from_pretrained(str(folder), device="cpu")


def test_a_head_of_several_numbers_is_not_taken_for_a_reward(tmp_path):
  two = {"v_head.summary.weight": torch.ones(2, 16), "v_head.summary.bias": torch.ones(2)}
  folder, *_ = replace(EXAMPLES["linear head"], heads=two).write(tmp_path)
  with pytest.raises(ModelError, match="the head gives 2 numbers"):
    RewardModel.from_pretrained(str(folder), device="cpu")


def test_of_a_pickle_only_tensors_are_read(tmp_path):
  folder, *_ = EXAMPLES["beaver"].write(tmp_path)
  expected = RewardModel.from_pretrained(str(folder), device="cpu").score([QUESTION], [ANSWER])
  torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
  (folder / "model.safetensors").unlink()
  model = RewardModel.from_pretrained(str(folder), device="cpu")
  assert model.score([QUESTION], [ANSWER]) == pytest.approx(expected, abs=1e-6)
  assert any("a pickle, of which only tensors are read" in note for note in model.notes)
  torch.save({"score_head.weight": Path("code")}, folder / "pytorch_model.bin")
  with pytest.raises(ModelError, match="holds more than tensors"):
    RewardModel.from_pretrained(str(folder), device="cpu")


def test_a_value_head_of_older_versions_lies_in_a_pickle(tmp_path):
  folder, *_ = EXAMPLES["linear head"].write(tmp_path)
  expected = RewardModel.from_pretrained(str(folder), device="cpu").score([QUESTION], [ANSWER])
  weights = load_file(folder / "model.safetensors")
  head = {name: weights.pop(name) for name in list(weights) if name.startswith("v_head.")}
  (folder / "model.safetensors").unlink()
  torch.save(weights, folder / "pytorch_model.bin")
  torch.save(head, folder / "value_head.bin")
  assert RewardModel.from_pretrained(str(folder), device="cpu").score([QUESTION], [ANSWER]) == pytest.approx(expected)


def test_a_reference_stands_in_the_row_or_the_message(tmp_path):
  folder, *_ = EXAMPLES["polar"].write(tmp_path)
  model = RewardModel.from_pretrained(str(folder), device="cpu")
  (wanted,) = model.score_conversations([turns(QUESTION, ANSWER)])
  several = [{"role": "assistant", "content": REFERENCE}]
  rows = [{"prompt": QUESTION, "completion": ANSWER, "reference": given} for given in (REFERENCE, several, "Another.")]
  done = run_main("score.py", "--model_name_or_path", folder, "--input", write_jsonl(tmp_path / "a.jsonl", rows))
  assert done.returncode == 0, done.stderr
  one, other, third = (row["reward"] for row in done.json["rows"])
  assert one == other == pytest.approx(wanted, abs=1e-5)
  assert third != pytest.approx(wanted, abs=1e-3)
  pair = {"prompt": QUESTION, "chosen": ANSWER, "rejected": REFERENCE, "reference": ANSWER}
  data, output = write_jsonl(tmp_path / "p.jsonl", [pair]), tmp_path / "scored.jsonl"
  done = run_main("evaluate.py", "--model_name_or_path", folder, "--dataset_name", data, "--output", output)
  assert done.returncode == 0, done.stderr
  found = json.loads(output.read_text())
  beside = Conversation(turns(QUESTION, "").prompt, [{"role": "assistant", "content": ANSWER, "reference": ANSWER}])
  assert found["reward_chosen"] == pytest.approx(model.score_conversations([beside])[0], abs=1e-5)
  run_script(
    folder, tmp_path, "--prompt", QUESTION, "--refused", "unscored", "--write_card", str(tmp_path / "card.json")
  )
  assert None not in json.loads((tmp_path / "card.json").read_text())["golden"]
  rows = [{"prompt": QUESTION, "completion": ANSWER}, {"prompt": QUESTION, "completion": ANSWER, "reference": 4}]
  done = run_main("score.py", "--model_name_or_path", folder, "--input", write_jsonl(tmp_path / "b.jsonl", rows))
  assert done.returncode == 3 and "the answer has no `reference`" in done.stderr
  long = turns("hello " * 20, ANSWER)
  (whole,) = model.render([long])
  model = RewardModel.from_pretrained(str(folder), device="cpu", max_length=len(whole.ids) - 9)
  (cut,) = model.render([long])
  assert len(cut.ids) == len(whole.ids) - 9 and cut.ids[-50:] == whole.ids[-50:]
  assert REFERENCE in model.renderer.tokenizer.decode(cut.ids), "the start of the prompt is cut alone"


def test_a_head_of_its_own_file_is_a_dictionary_of_tensors(tmp_path):
  folder, *_ = EXAMPLES["ldl"].write(tmp_path)
  torch.save(torch.nn.Linear(2, 2), folder / "gating_layer.pt")
  with pytest.raises(ModelError, match="holds more than tensors"):
    RewardModel.from_pretrained(str(folder), device="cpu")
  (folder / "gating_layer.pt").unlink()
  with pytest.raises(ModelError, match="the head lacks a tensor"):
    RewardModel.from_pretrained(str(folder), device="cpu")


def test_a_gate_that_was_cut_off_is_told(tmp_path):
  folder, *_ = EXAMPLES["qrm"].write(tmp_path)
  model = RewardModel.from_pretrained(str(folder), device="cpu", max_length=20, overlong="truncate_left")
  with pytest.raises(DataError, match=r"the text lacks .*, where the weights of the attributes are read"):
    model.score([QUESTION], ["There are twelve apples in the basket. " * 3])


@pytest.mark.parametrize(
  ("folder", "architecture", "reason"),
  [
    ("Ziya-LLaMA-7B-Reward", "LlamaRewardModel", "code of its own"),
  ],
)
def test_what_cannot_be_scored_is_refused_with_the_reason(folder, architecture, reason, tmp_path):
  (tmp_path / folder).mkdir()
  (tmp_path / folder / "config.json").write_text(json.dumps({"architectures": [architecture], "model_type": "llama"}))
  with pytest.raises(ModelError, match=reason):
    RewardModel.from_pretrained(str(tmp_path / folder))


def test_training_continues_from_plain_heads_and_refuses_the_others(tmp_path):
  folder, *_ = EXAMPLES["skywork-v2"].write(tmp_path)
  assert checkpoints.load_for_training(str(folder)).head == "loaded"
  folder, *_ = EXAMPLES["armorm"].write(tmp_path)
  with pytest.raises(
    ModelError, match=r"would be lost: training continues from one in `score.weight`, not from 19 attributes"
  ):
    checkpoints.load_for_training(str(folder))


def test_every_family_has_an_example_or_a_reason():
  known = {
    name
    for name, family in readers.PUBLIC.items()
    if family.kind == "outcome" and not (family.refused or family.compares)
  }
  assert known - EXAMPLES.keys() == {"deberta-pair"}, "which is above"
  listed = {one["family"]: one for one in readers.families()}
  assert listed.keys() == readers.PUBLIC.keys()
  assert {one["kind"] for one in listed.values()} == {"outcome", "process", "pairs", "refused"}
  assert all((one["kind"] == "refused") == (not one["checked"]) for one in listed.values())


def test_a_golden_text_that_does_not_fit_is_null_at_every_run(tmp_path):
  from types import SimpleNamespace

  from reward_modeling.golden import keep_card
  from reward_modeling.kinds import OUTCOME

  def model(last):
    scores = [0.5] * (len(OUTCOME.golden) - 1) + [last]
    told = {"render": lambda texts: [None] * len(texts), "score_conversations": lambda texts: scores}
    return SimpleNamespace(kind=OUTCOME, **told)

  card = tmp_path / "card.json"
  assert keep_card(model(None), "m", card, "float32") is None
  assert keep_card(model(None), "m", card, "float32") == 0.0
  with pytest.raises(ModelError, match="does not score as m did"):
    keep_card(model(0.5), "m", card, "float32")


def test_a_public_model_whose_download_was_cut_off_is_told_so(tmp_path):
  """And not that it is no reward model, as without its tensors it would seem."""
  folder = EXAMPLES["qwen-rm"].write(tmp_path)[0]
  (weights,) = Path(folder).glob("*.safetensors")
  weights.write_bytes(weights.read_bytes()[:-100])
  with pytest.raises(ModelError, match="incomplete metadata, file not fully covered"):
    RewardModel.from_pretrained(str(folder), device="cpu")
