"""Tensors that a class has no place for change scores in silence: they are refused, and what the folder is is said."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
from folders import copied, edited, reweighted
from safetensors.torch import load_file, save_file

from conftest import SCRIPTS, save_tiny
from reward_modeling import RewardModel, checkpoints
from reward_modeling.errors import ModelError
from reward_modeling.training.policy import Policy


def rewritten(folder, to, change):
  """A copy of a model folder whose weights went through change(weights) -> weights."""
  return str(reweighted(copied(folder, to), change))


@pytest.fixture(scope="module")
def outcome_model(tmp_path_factory):
  return save_tiny("qwen2", tmp_path_factory.mktemp("outcome") / "rm", head=1)


def adding(name, *shape):
  return lambda weights: {**weights, name: torch.ones(*shape)}


def prefixed(prefix):
  return lambda weights: {prefix + key: value for key, value in weights.items()}


LAYER = "model.layers.0.self_attn.q_proj"
FOREIGN = {
  "LoRA": (adding(f"{LAYER}.lora_A.weight", 4, 32), "an adapter"),
  "LoRA of an adapter's name": (adding(f"{LAYER}.lora_B.default.weight", 32, 4), "an adapter"),
  "DoRA": (adding(f"{LAYER}.lora_magnitude_vector.weight", 32), "an adapter"),
  "a LoRA on the language-model head": (adding("lm_head.lora_A.weight", 4, 32), "an adapter"),
  "a base layer": (adding(f"{LAYER}.base_layer.weight", 32, 32), "an adapter"),
  "a module saved beside": (adding("score.modules_to_save.default.weight", 1, 32), "an adapter"),
  "the name of an unmerged model": (prefixed("base_model.model."), "an adapter"),
  "IA3": (adding(f"{LAYER}.ia3_l", 32, 1), "an adapter"),
  "torch.compile": (prefixed("_orig_mod."), "a wrapper"),
  "DistributedDataParallel": (prefixed("module."), "a wrapper"),
  "FSDP": (adding("model._fsdp_wrapped_module.norm.weight", 32), "a wrapper"),
  "a scale of 8 bits": (adding(f"{LAYER}.weight_scale", 32, 1), "quantization"),
  "GPTQ": (adding(f"{LAYER}.qweight", 4, 32), "quantization"),
  "bitsandbytes": (adding("model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4", 9), "quantization"),
  "a bias": (adding(f"{LAYER.replace('q_proj', 'o_proj')}.bias", 32), "what they would change is left out"),
  "a bias of the head": (adding("score.bias", 1), "what they would change is left out"),
}
HEADS = {
  "a value head": adding("v_head.summary.weight", 1, 32),
  "a value head of OpenRLHF": adding("value_head.weight", 1, 32),
  "a regression head": adding("regression_head.weight", 1, 32),
  "a reward head": adding("reward_head.weight", 1, 32),
  "rm_head": adding("rm_head.weight", 1, 32),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_tensors_of_a_wrapper_are_refused(name, outcome_model, tiny, tmp_path):
  change, writer = FOREIGN[name]
  with pytest.raises(ModelError, match=f"has no place for .*: .*{writer}") as caught:
    checkpoints.load(rewritten(outcome_model, tmp_path / "rm", change))
  assert caught.value.hint
  if "score" not in name and "head" not in name:
    base = rewritten(tiny("qwen2"), tmp_path / "base", change)
    for read in (checkpoints.load_for_training, Policy.from_pretrained):
      with pytest.raises(ModelError, match=writer):
        read(base)


@pytest.mark.parametrize("name", HEADS)
def test_another_head_beside_ours_is_refused(name, outcome_model, tiny, tmp_path):
  for folder, read in ((outcome_model, checkpoints.load), (tiny("qwen2"), checkpoints.load_for_training)):
    with pytest.raises(ModelError, match="would be lost"):
      read(rewritten(folder, tmp_path / read.__name__, HEADS[name]))
  Policy.from_pretrained(rewritten(tiny("qwen2"), tmp_path / "policy", HEADS[name]))  # writes text without it


def test_the_language_model_s_head_beside_a_reward_model_is_fine(outcome_model, tmp_path):
  with_head = rewritten(outcome_model, tmp_path / "m", adding("lm_head.weight", 330, 32))
  scores = [
    RewardModel.from_pretrained(str(folder)).score(["hello"], ["thank you"]) for folder in (with_head, outcome_model)
  ]
  assert scores[0] == scores[1]


def test_more_layers_than_the_config_names(outcome_model, tiny, tmp_path):
  change = adding("model.layers.2.mlp.up_proj.weight", 64, 32)
  with pytest.raises(ModelError, match=r"model\.layers\.2.*names fewer layers"):
    checkpoints.load(rewritten(outcome_model, tmp_path / "rm", change))
  loaded = checkpoints.load_for_training(rewritten(tiny("qwen2"), tmp_path / "base", change))
  assert any("1 tensors of the file are not used" in note for note in loaded.notes)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.float8_e4m3fn, torch.bool])
def test_weights_that_are_not_floating_point_numbers(dtype, outcome_model, tmp_path):
  with pytest.raises(ModelError, match="weights that are not floating-point numbers"):
    checkpoints.load(rewritten(outcome_model, tmp_path / "m", lambda w: {k: (10 * v).to(dtype) for k, v in w.items()}))


def test_weights_of_other_shapes_than_the_config_says(outcome_model, tmp_path):
  folder = rewritten(outcome_model, tmp_path / "m", lambda weights: {**weights, "model.norm.weight": torch.ones(31)})
  with pytest.raises(ModelError, match=r"model\.norm\.weight is \[31\], Qwen2ForSequenceClassification wants \[32\]"):
    checkpoints.load(folder)


def test_a_policy_that_lacks_weights(tiny, tmp_path):
  folder = rewritten(tiny("qwen2"), tmp_path / "m", lambda w: {k: v for k, v in w.items() if k != "lm_head.weight"})
  with pytest.raises(ModelError, match=r"lacks the weights of 1 layers \(lm_head\.weight\)"):
    Policy.from_pretrained(folder)


# ---- what it is instead -------------------------------------------------------------------------------------------


def obey(hint):
  """Run the command that a hint gives."""
  words = shlex.split(hint.splitlines()[-1])
  assert words[0] == "python"
  subprocess.run([sys.executable, *words[1:]], check=True)


def config_of(folder, **values):
  edited(folder / "config.json", **values)
  return str(folder)


@pytest.mark.parametrize("family", ["qwen2", "bert"])
@pytest.mark.parametrize(
  "fields",
  [
    {"architectures": ["Qwen2ForCausalLM"]},
    {"architectures": ["RewardModel"]},
    {"architectures": ["RewardModelForSequenceClassification"]},
    {"architectures": None},
    {"id2label": None, "label2id": None},
    {"architectures": ["RewardModel"], "id2label": None, "label2id": None, "num_labels": 1},
  ],
)
def test_a_reward_model_under_another_name_is_recognised_and_the_command_makes_it_load(family, fields, tmp_path):
  folder = save_tiny(family, tmp_path / "m", head=1)
  before = RewardModel.from_pretrained(str(folder)).score(["hello"], ["thank you"])
  path = config_of(folder, **fields)
  with pytest.raises(ModelError, match=r"is an outcome reward model by its weights \((score|classifier)\.") as caught:
    checkpoints.load(path)
  obey(caught.value.hint)
  assert RewardModel.from_pretrained(path).score(["hello"], ["thank you"]) == before


def test_heads_that_no_class_has_are_named(outcome_model, tmp_path):
  def two_layers(weights):
    weights.pop("score.weight")
    return {**weights, "score.0.weight": torch.ones(32, 32), "score.2.weight": torch.ones(1, 32)}

  folder = rewritten(outcome_model, tmp_path / "two", two_layers)
  with pytest.raises(ModelError, match=r"a head that no class of transformers has: score\.0\.weight \[32, 32\]"):
    checkpoints.load(config_of(tmp_path / "two", architectures=["SomeOtherModel"]))
  with pytest.raises(ModelError, match=r"score\.0\.weight"):
    checkpoints.load(config_of(tmp_path / "two", architectures=["Qwen2ForSequenceClassification"]))
  assert folder
  five = save_tiny("qwen2", tmp_path / "five", head=5)
  with pytest.raises(ModelError, match=r"another number of labels .*score\.weight \[5, 32\] instead of"):
    checkpoints.load(config_of(five, architectures=["RewardModel"]))


def test_the_lines_of_the_document_move_a_value_head(outcome_model, tmp_path, monkeypatch):
  page = (SCRIPTS.resolve().parent / "references" / "troubleshooting.md").read_text()
  lines = page.split("### Move another head to score.weight")[1].split("```python\n")[1].split("```")[0]
  other = copied(outcome_model, tmp_path / "runs" / "other", architectures=["Qwen2ForCausalLM"])
  before = RewardModel.from_pretrained(str(outcome_model)).score(["hello"], ["thank you"])
  head = load_file(outcome_model / "model.safetensors")["score.weight"]
  save_file({"v_head.summary.weight": head}, other / "value_head.safetensors", {"format": "pt"})
  reweighted(other, lambda weights: {key: value for key, value in weights.items() if key != "score.weight"})
  assert RewardModel.from_pretrained(str(other)).score(["hello"], ["thank you"]) == pytest.approx(before, abs=1e-6)
  with pytest.raises(ModelError, match="would be lost") as caught:
    checkpoints.load_for_training(str(other))
  assert "#move-another-head-to-scoreweight" in caught.value.hint
  monkeypatch.chdir(tmp_path)
  exec(lines, {})
  assert RewardModel.from_pretrained("runs/moved").score(["hello"], ["thank you"]) == pytest.approx(before, abs=1e-6)


# ---- adapters -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapters(tiny, tmp_path_factory):
  """Folder of a LoRA adapter by each way to make one: {name: (folder, rewards of the model in memory)}."""
  from peft import LoraConfig, get_peft_model
  from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

  base, out = tiny("qwen2"), tmp_path_factory.mktemp("adapters")
  ids = AutoTokenizer.from_pretrained(base)("hello", return_tensors="pt")
  made = {}
  for name, fields in {
    "SEQ_CLS": {"task_type": "SEQ_CLS"},
    "head without a task": {"modules_to_save": ["score"]},
    "no head": {},
    "CAUSAL_LM": {"task_type": "CAUSAL_LM"},
  }.items():
    torch.manual_seed(0)
    auto = AutoModelForCausalLM if name == "CAUSAL_LM" else AutoModelForSequenceClassification
    model = auto.from_pretrained(base, dtype=torch.float32, **({} if name == "CAUSAL_LM" else {"num_labels": 1}))
    model.config.pad_token_id = 3
    config = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False, **fields)
    model = get_peft_model(model, config).eval()
    model.save_pretrained(out / name)
    with torch.no_grad():
      made[name] = out / name, model(**ids).logits[0]
  return made


@pytest.mark.parametrize("name", ["SEQ_CLS", "head without a task", "CAUSAL_LM"])
def test_an_adapter_is_merged_by_the_lines_of_the_hint(name, adapters, tmp_path, monkeypatch):
  folder, expected = adapters[name]
  with pytest.raises(ModelError, match="is a LoRA adapter without its model") as caught:
    checkpoints.load(str(folder))
  lines = [line.strip() for line in caught.value.hint.splitlines() if line.startswith("  ")]
  monkeypatch.chdir(tmp_path)
  exec("\n".join(lines), {})
  from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

  ids = AutoTokenizer.from_pretrained("MERGED")("hello", return_tensors="pt")
  auto = AutoModelForCausalLM if name == "CAUSAL_LM" else AutoModelForSequenceClassification
  with torch.no_grad():
    merged = auto.from_pretrained("MERGED", dtype=torch.float32).eval()(**ids).logits[0]
  assert torch.allclose(merged, expected, atol=1e-4)
  if name != "CAUSAL_LM":
    assert checkpoints.load("MERGED").head == "loaded"


def test_an_adapter_whose_head_was_not_saved_cannot_be_brought_back(adapters):
  with pytest.raises(ModelError, match="without a score head: it was neither trained nor saved") as caught:
    checkpoints.load(str(adapters["no head"][0]))
  assert "TaskType.SEQ_CLS" in caught.value.hint


def test_an_adapter_of_a_folder_that_holds_the_merged_model(adapters, outcome_model, tmp_path):
  shutil.copytree(outcome_model, tmp_path / "out")
  shutil.copytree(adapters["SEQ_CLS"][0], tmp_path / "out" / "adapter")
  (tmp_path / "out" / "reward_model.json").touch()
  with pytest.raises(ModelError, match="LoRA adapter") as caught:
    checkpoints.load(str(tmp_path / "out" / "adapter"))
  assert caught.value.hint.startswith(f"use {tmp_path / 'out'}, which holds the model with this adapter merged")


def test_an_adapter_beside_a_model_is_refused(adapters, outcome_model, tiny, tmp_path):
  for read, folder in (
    (checkpoints.load, outcome_model),
    (checkpoints.load_for_training, tiny("qwen2")),
    (Policy.from_pretrained, tiny("qwen2")),
  ):
    to = tmp_path / re.sub(r"\W", "", read.__qualname__)
    shutil.copytree(folder, to)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
      shutil.copy(adapters["SEQ_CLS"][0] / file, to / file)
    with pytest.raises(ModelError, match="holds an adapter beside its model"):
      read(str(to))
