"""A saved model scores as the model in memory did, or the run says so."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from conftest import DECODERS, ENCODERS, SCRIPTS, save_tiny
from reward_modeling import checkpoints, heads, kinds
from reward_modeling.errors import ModelError, RunError, UsageError
from reward_modeling.output_folder import STAGING, claim
from reward_modeling.rendering import Renderer
from reward_modeling.scoring import RewardModel

PROMPT, ANSWER = [{"role": "user", "content": "hello world"}], [{"role": "assistant", "content": "thank you"}]
REWARD = {"mean": 0.5, "std": 2.0, "n": 2}


def trained(folder, family="qwen2", tiny=None):
  """An untrained reward model, saved as a trained one would be."""
  loaded = checkpoints.load_for_training(str(tiny(family)))
  renderer = Renderer(loaded.tokenizer, max_length=64, scored_at=checkpoints.scored_at(loaded.model))
  return checkpoints.save(loaded.model.eval(), renderer, folder, training={}, reward=REWARD)


@pytest.fixture
def saved(tiny, tmp_path):
  trained(tmp_path / "rm", tiny=tiny)
  return tmp_path / "rm"


@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
def test_a_saved_model_is_a_plain_classifier_with_one_raw_score(family, tiny, tmp_path):
  from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

  trained(tmp_path, family, tiny)
  ours = RewardModel.from_pretrained(str(tmp_path))
  score = ours.score(["hello world"], ["thank you"])[0]
  model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
  tokenizer = AutoTokenizer.from_pretrained(tmp_path)
  assert model.config.num_labels == 1 and model.config.problem_type == "regression"
  assert model.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
  text = tokenizer.apply_chat_template(PROMPT + ANSWER, tokenize=False)
  with torch.no_grad():
    plain = model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits[0, 0].item()
  assert score == pytest.approx(plain, abs=1e-6)
  piped = pipeline("text-classification", model=str(tmp_path))(text, add_special_tokens=False)
  assert piped[0]["score"] == pytest.approx(plain, abs=1e-6), "the pipeline squashed the score"


def test_card_names_what_was_saved(saved):
  card = checkpoints.read_card(str(saved))
  assert card["reward"] == REWARD and card["kind"] == "outcome"
  assert len(card["golden"]) == len(kinds.GOLDEN_CONVERSATIONS)
  assert card["reload_difference"] <= checkpoints.RELOAD_TOLERANCE
  assert not (saved / STAGING).exists()
  loaded = checkpoints.load(str(saved))
  again = checkpoints.golden_scores(loaded.model, Renderer(loaded.tokenizer, max_length=None))
  assert checkpoints.check_golden(again, [row["score"] for row in card["golden"]]) <= 1e-6


def test_a_changed_chat_template_is_an_error(saved):
  (saved / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}")
  with pytest.raises(
    ModelError, match="renders text otherwise than it did in training: chat_template_sha256, probe_ids_sha256"
  ):
    checkpoints.load(str(saved))


def test_a_changed_tokenizer_is_an_error(saved):
  from transformers import AutoTokenizer

  tokenizer = AutoTokenizer.from_pretrained(saved)
  tokenizer.add_tokens(["What is"])
  tokenizer.save_pretrained(saved)
  with pytest.raises(ModelError, match="probe_ids_sha256"):
    checkpoints.load(str(saved))


def test_a_model_that_changes_on_saving_fails_the_run(tiny, tmp_path, monkeypatch):
  loaded = checkpoints.load_for_training(str(tiny("qwen2")))
  save_pretrained = type(loaded.model).save_pretrained

  def lossy(self, folder, **kwargs):  # what a lost head looks like
    torch.nn.init.normal_(self.score.weight)
    save_pretrained(self, folder, **kwargs)

  monkeypatch.setattr(type(loaded.model), "save_pretrained", lossy)
  with pytest.raises(RunError, match="golden scores differ"):
    checkpoints.save(
      loaded.model.eval(), Renderer(loaded.tokenizer, max_length=64), tmp_path / "rm", training={}, reward={}
    )
  assert list((tmp_path / "rm").iterdir()) == [], "nothing half-written is left"


def test_golden_scores_that_are_no_numbers_fail():
  with pytest.raises(RunError):
    checkpoints.check_golden([float("nan")], [0.0])


def test_a_lost_head_is_refused(saved):
  from safetensors.torch import load_file, save_file

  weights = load_file(saved / "model.safetensors")
  save_file(
    {name: value for name, value in weights.items() if not name.startswith("score")},
    saved / "model.safetensors",
    metadata={"format": "pt"},
  )
  with pytest.raises(ModelError, match=r"score\.weight.*random"):
    checkpoints.load(str(saved))


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda tmp: tmp / "nowhere", "there is no model folder"),
    (lambda tmp: tmp, "no config.json"),
    (lambda tmp: save_tiny("qwen2", tmp / "m"), "is not a reward model: its architecture is Qwen2ForCausalLM"),
    (lambda tmp: save_tiny("qwen2", tmp / "m", head=2), "has 2 labels"),
  ],
)
def test_what_is_no_reward_model_is_refused(make, message, tmp_path):
  with pytest.raises(ModelError, match=message):
    checkpoints.load(str(make(tmp_path)))


def test_a_process_reward_model_and_an_adapter_are_named(saved, tmp_path):
  config = json.loads((saved / "config.json").read_text())
  (saved / "config.json").write_text(json.dumps({**config, "architectures": ["Qwen2ForTokenClassification"]}))
  with pytest.raises(ModelError, match="process reward model"):
    checkpoints.load(str(saved))
  (tmp_path / "adapter").mkdir()
  (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
  with pytest.raises(ModelError, match="LoRA adapter"):
    checkpoints.load(str(tmp_path / "adapter"))


def test_a_two_label_model_is_not_silently_given_a_new_head(tmp_path):
  with pytest.raises(ModelError, match="2 labels"):
    checkpoints.load_for_training(str(save_tiny("qwen2", tmp_path, head=2)))


def test_a_trained_head_is_kept(saved, tiny):
  assert checkpoints.load_for_training(str(tiny("qwen2"))).head == "new"
  again = checkpoints.load_for_training(str(saved))
  assert again.head == "loaded"
  before = checkpoints.load(str(saved)).model.score.weight
  assert torch.equal(again.model.score.weight, before)


def test_a_new_head_is_the_same_for_the_same_seed(tiny):
  weights = [checkpoints.load_for_training(str(tiny("qwen2")), seed=seed).model.score.weight for seed in (1, 1, 2)]
  assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_a_bf16_checkpoint_is_trained_in_fp32(tiny, tmp_path):
  from transformers import AutoModelForCausalLM

  shutil.copytree(tiny("qwen2"), tmp_path / "m")
  AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.bfloat16).save_pretrained(tmp_path / "m")
  assert json.loads((tmp_path / "m" / "config.json").read_text())["dtype"] == "bfloat16"
  assert {p.dtype for p in checkpoints.load_for_training(str(tmp_path / "m")).model.parameters()} == {torch.float32}


def test_an_added_pad_token_gets_an_embedding(tmp_path):
  def without_pad(tokenizer):
    tokenizer.pad_token = None
    tokenizer._tokenizer.add_special_tokens([])

  folder = save_tiny("llama", tmp_path, edit=without_pad)
  config = json.loads((folder / "tokenizer.json").read_text())
  config["added_tokens"] = [token for token in config["added_tokens"] if token["content"] != "<pad>"]
  config["model"]["vocab"]["renamed"] = config["model"]["vocab"].pop("<pad>")
  (folder / "tokenizer.json").write_text(json.dumps(config))
  loaded = checkpoints.load_for_training(str(folder))
  assert loaded.tokenizer.pad_token_id < loaded.model.get_input_embeddings().num_embeddings
  assert loaded.model.config.pad_token_id == loaded.tokenizer.pad_token_id != loaded.tokenizer.eos_token_id


def test_head_in_fp32_keeps_rewards_apart_under_bf16(saved):
  # Rewards near 8 with a spread of 0.3: bf16 steps by 1/32 there, so a bf16 head makes ties.
  def distinct(keep):
    loaded = checkpoints.load(str(saved))
    model = loaded.model.bfloat16()
    if keep:
      heads.keep_head_in_float32(model)
    model.score.weight.data.normal_(0, 8 / 32**0.5, generator=torch.Generator().manual_seed(0))
    ids = torch.randint(10, 300, (256, 8), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
      return len(set(model(input_ids=ids).logits[:, 0].tolist()))

  assert distinct(keep=True) > 240 > distinct(keep=False)


def test_output_folder_that_holds_a_model(saved, tmp_path):
  with pytest.raises(UsageError, match="already holds a model"):
    claim(saved, overwrite=False, resuming=False)
  claim(saved, overwrite=True, resuming=False)
  (tmp_path / "file").touch()
  with pytest.raises(UsageError, match="is a file"):
    claim(tmp_path / "file", overwrite=False, resuming=False)


def test_an_output_folder_into_which_nothing_came_is_gone_when_the_process_leaves(tmp_path):
  (tmp_path / "runs").mkdir()
  code = (
    "import sys; from pathlib import Path; from reward_modeling.output_folder import claim\n"
    "for name in ('runs/dry', 'new/deep/dry', 'runs/kept'):\n"
    "    claim(name, overwrite=False, resuming=False)\n"
    "Path('runs/kept/run.json').touch()"
  )
  subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": str(SCRIPTS)})
  assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
    "runs",
    "runs/kept",
    "runs/kept/run.json",
  ]


def test_a_foreign_reward_model_runs_as_its_author_would_run_it(tmp_path):
  from transformers import AutoModelForSequenceClassification, AutoTokenizer

  folder = save_tiny("qwen2", tmp_path, head=1)
  assert any("no reward_model.json" in note for note in checkpoints.load(str(folder)).notes)
  ours = RewardModel.from_pretrained(str(folder)).score(["hello world"], ["thank you"])[0]
  model, tokenizer = (
    AutoModelForSequenceClassification.from_pretrained(folder).eval(),
    AutoTokenizer.from_pretrained(folder),
  )
  ids = tokenizer.apply_chat_template(PROMPT + ANSWER, return_tensors="pt", return_dict=True)
  with torch.no_grad():
    assert ours == pytest.approx(model(**ids).logits[0, 0].item(), abs=1e-6)


def test_a_hub_that_does_not_answer_is_told_at_once(monkeypatch):
  """The hub's client alone tries six times, for 24 seconds."""
  monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: 1 / 0)
  monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
  with pytest.raises(ModelError, match="the hub does not answer"):
    checkpoints.read_config("nobody/has-this")
