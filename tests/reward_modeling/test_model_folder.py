"""A model folder may come from anyone: nothing of it is run, nothing outside it is opened, and what is broken is named."""

import contextlib
import io
import json
import os
import shutil
import sys

import pytest
import torch
from folders import copied, edited

from conftest import CHATML, run_main, save_tiny
from reward_modeling import ProcessRewardModel, RewardModel, checkpoints
from reward_modeling.ensemble import Rewards
from reward_modeling.errors import ModelError, UsageError
from reward_modeling.model_folder import check_folder, own_code
from reward_modeling.training.policy import Policy

CODE = "from pathlib import Path\nPath({trace!r}).touch()\nclass X: pass\n"


# ---- code of its own ----------------------------------------------------------------------------------------------

TRAPS = {
  "config": (
    "config.json",
    {"model_type": "xnew", "auto_map": {"AutoConfig": "configuration_x.X", "AutoModel": "modeling_x.X"}},
    "configuration_x.py, modeling_x.py",
  ),
  "model": (
    "config.json",
    {
      "architectures": ["XForSequenceClassification"],
      "auto_map": {"AutoModelForSequenceClassification": "modeling_x.X", "AutoModelForCausalLM": "modeling_x.X"},
    },
    "modeling_x.py",
  ),
  "tokenizer": (
    "tokenizer_config.json",
    {"tokenizer_class": "XTokenizer", "auto_map": {"AutoTokenizer": ["tokenization_x.X", None]}},
    "tokenization_x.py",
  ),
}


@pytest.fixture
def trap(tmp_path, monkeypatch):
  """trap(name, folder) -> a copy whose code would leave a trace; stdin says "y" to whoever asks."""
  trace = tmp_path / "trace"
  monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 50))

  def plant(name, folder):
    file, fields, _ = TRAPS[name]
    planted = copied(folder, tmp_path / f"{name}_{folder.name}")
    edited(planted / file, **fields)
    for module in ("configuration_x", "modeling_x", "tokenization_x"):
      (planted / f"{module}.py").write_text(CODE.format(trace=str(trace)))
    return planted

  yield plant
  assert not trace.exists(), "code of the folder was run"
  assert sys.stdin.tell() == 0, "stdin was asked"


@pytest.fixture(scope="module")
def outcome_model(tmp_path_factory):
  return save_tiny("qwen2", tmp_path_factory.mktemp("outcome") / "rm", head=1)


COMMANDS = {
  "train.py": ("--model_name_or_path", "{trap}", "--dataset_name", "{data}", "--output_dir", "{out}"),
  "train.py template": (
    *("--model_name_or_path", "{base}", "--dataset_name", "{data}", "--output_dir", "{out}"),
    *("--chat_template_path", "{trap}"),
  ),
  "train_process.py": ("--model_name_or_path", "{trap}", "--dataset_name", "{steps}", "--output_dir", "{out}"),
  "score.py": ("--model_name_or_path", "{trap}", "--input", "{data}"),
  "score.py two models": ("--reward_model_path", "{good}", "{trap}", "--input", "{data}"),
  "score.py policy": (
    "--model_name_or_path",
    "{good}",
    "--input",
    "{data}",
    "--generate_with",
    "{trap}",
    "--best_of",
    "2",
  ),
  "evaluate.py": ("--model_name_or_path", "{trap}", "--dataset_name", "{data}"),
  "evaluate.py compare": ("--model_name_or_path", "{good}", "--compare", "{trap}", "--dataset_name", "{data}"),
  "ppo.py": (
    *("--model_name_or_path", "{trap}", "--reward_model_path", "{good}", "--dataset_name", "{data}"),
    *("--output_dir", "{out}"),
  ),
  "ppo.py reward": (
    *("--model_name_or_path", "{base}", "--reward_model_path", "{trap}", "--dataset_name", "{data}"),
    *("--output_dir", "{out}"),
  ),
  "ppo.py value": (
    *("--model_name_or_path", "{base}", "--reward_model_path", "{good}", "--value_model", "{trap}"),
    *("--dataset_name", "{data}", "--output_dir", "{out}"),
  ),
  "grpo.py": (
    *("--model_name_or_path", "{trap}", "--reward_model_path", "{good}", "--dataset_name", "{data}"),
    *("--output_dir", "{out}"),
  ),
  "grpo.py reward": (
    *("--model_name_or_path", "{base}", "--reward_model_path", "{trap}", "--dataset_name", "{data}"),
    *("--output_dir", "{out}", "--max_completion_length", "8"),
  ),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", TRAPS)
def test_no_script_runs_code_of_a_model(name, command, trap, tiny, outcome_model, toy_file, tmp_path):
  if command == "train.py template" and name != "tokenizer":
    pytest.skip("a template is read from a tokenizer")
  steps = tmp_path / "steps.jsonl"
  row = {"prompt": "What is 2 + 3?", "completions": ["2 + 3 = 5.", "It is 5."], "labels": [True, False]}
  steps.write_text(json.dumps(row) + "\n" + json.dumps({**row, "prompt": "And 4?"}) + "\n")
  trained_on = command in (
    "train.py",
    "train_process.py",
    "ppo.py",
    "grpo.py",
    "score.py policy",
    "train.py template",
  )
  planted = trap(name, tiny("qwen2") if trained_on else outcome_model)
  places = {"trap": planted, "base": tiny("qwen2"), "good": outcome_model, "data": toy_file}
  places |= {"steps": steps, "out": tmp_path / "out"}
  script, *_ = command.split()
  done = run_main(script, *(word.format(**places) for word in COMMANDS[command]))
  files = TRAPS[name][2]
  assert done.returncode == 4, done.stderr
  assert f"{planted} needs code of its own ({files}), which is never run" in done.stderr
  assert "trust_remote_code" not in done.stderr


@pytest.mark.parametrize("name", TRAPS)
def test_no_call_of_the_library_runs_code_of_a_model(name, trap, outcome_model):
  planted = str(trap(name, outcome_model))
  with contextlib.suppress(ModelError):
    checkpoints.read_chat_template(planted)
  for read in (
    RewardModel.from_pretrained,
    ProcessRewardModel.from_pretrained,
    Rewards.from_pretrained,
    Policy.from_pretrained,
    checkpoints.load_for_training,
    checkpoints.read_config if name != "tokenizer" else checkpoints.read_tokenizer,
    checkpoints.read_chat_template if name == "tokenizer" else checkpoints.check,
  ):
    with pytest.raises(ModelError, match=r"needs code of its own|not an outcome|writes no text|scores whole answers"):
      read(planted)


def test_a_stale_map_of_a_class_that_transformers_has_is_not_used_and_said(trap, outcome_model, tmp_path):
  planted = trap("model", outcome_model)
  edited(planted / "config.json", architectures=["Qwen2ForSequenceClassification"])
  edited(planted / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "tokenization_x.X"]})
  loaded = checkpoints.load(str(planted))
  assert type(loaded.model).__module__.startswith("transformers.")
  assert "modeling_x.py, tokenization_x.py: not run, the classes of transformers are used instead" in loaded.notes
  ours = [
    RewardModel.from_pretrained(str(folder)).score(["hello"], ["thank you"]) for folder in (planted, outcome_model)
  ]
  assert ours[0] == ours[1]


def test_files_whose_code_would_run_are_named_wherever_they_lie(outcome_model, tmp_path):
  planted = copied(outcome_model, tmp_path / "m", auto_map={"AutoModel": "someone/else--sub.modeling_x.X"})
  (planted / "processor_config.json").write_text('{"auto_map": {"AutoProcessor": "processing_x.X"}}')
  (planted / "custom_generate").mkdir()
  (planted / "custom_generate" / "generate.py").touch()
  assert own_code(str(planted)) == [
    "someone/else: sub.modeling_x.py",
    "processing_x.py",
    "custom_generate/generate.py",
  ]


def test_code_for_generating_is_not_run(trap, tiny, tmp_path):
  planted = copied(tiny("qwen2"), tmp_path / "m")
  (planted / "custom_generate").mkdir()
  (planted / "custom_generate" / "generate.py").write_text(
    CODE.format(trace=str(tmp_path / "trace")) + "generate = X\n"
  )
  Policy.from_pretrained(str(planted))


# ---- files that block, are broken, or lead elsewhere --------------------------------------------------------------


def fifo(name):
  return lambda folder: ((folder / name).unlink(missing_ok=True), os.mkfifo(folder / name))


def device(name):
  return lambda folder: ((folder / name).unlink(missing_ok=True), (folder / name).symlink_to("/dev/zero"))


def config(**values):
  return lambda folder: edited(folder / "config.json", **values)


def text(name, content):
  return lambda folder: (folder / name).write_text(content)


def index(name="model.safetensors.index.json", shard="../weights.safetensors", **more):
  def write(folder):
    (folder / "model.safetensors").rename(folder.parent / "weights.safetensors")
    content = {"metadata": {}, "weight_map": {"score.weight": shard.format(up=folder.parent)}, **more}
    (folder / name).write_text(json.dumps(content))

  return write


def linked_shard(folder):
  index(shard="model-1.safetensors")(folder)
  (folder / "model-1.safetensors").symlink_to(folder.parent / "weights.safetensors")


def header(size):
  return lambda folder: (folder / "model.safetensors").write_bytes(size.to_bytes(8, "little") + b"{}")


ATTACKS = {
  "a pipe as config": (fifo("config.json"), "config.json is not a regular file", "config.json"),
  "a device as config": (device("config.json"), "config.json is not a regular file", "config.json"),
  "a pipe as weights": (fifo("model.safetensors"), "model.safetensors is not a regular", "model.safetensors"),
  "a pipe as tokenizer": (fifo("tokenizer.json"), "tokenizer.json is not a regular", "tokenizer.json"),
  "a pipe as template": (fifo("chat_template.jinja"), "chat_template.jinja is not", "chat_template.jinja"),
  "a pipe as card": (fifo("reward_model.json"), "reward_model.json is not", "reward_model.json"),
  "a list as config": (text("config.json", "[1]"), "config.json is not a JSON object", "config.json"),
  "a deep config": (text("config.json", "[" * 100_000), "config.json is not valid JSON: nested", "config.json"),
  "a deep value": (text("config.json", '{"a":' * 90_000 + "1"), "config.json is not valid JSON", "config.json"),
  "no text as config": (
    lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00"),
    "config.json is not valid JSON",
    "config.json",
  ),
  "an integer of 5,000 digits": (text("config.json", '{"a": ' + "9" * 5000 + "}"), "not valid JSON", "config.json"),
  "a huge config": (
    lambda folder: os.truncate(folder / "config.json", 2**33),
    "config.json has more than 64 MiB",
    "config.json",
  ),
  "an architecture of numbers": (config(architectures=[5]), r"`architectures` is \[5\]", "config.json"),
  "an architecture of text": (config(architectures="x"), "`architectures` is 'x'", "config.json"),
  "a type of numbers": (config(model_type=5), "`model_type` is 5", "config.json"),
  "labels of text": (config(num_labels="1", id2label=None), "`num_labels` is '1'", "config.json"),
  "no labels": (config(num_labels=0, id2label=None), "`num_labels` is 0", "config.json"),
  "labels in a list": (config(id2label=["a"]), r"`id2label` is \['a'\]", "config.json"),
  "a negative size": (config(hidden_size=-4), "`hidden_size` is -4", "config.json"),
  "a size of text": (config(vocab_size="330"), "`vocab_size` is '330'", "config.json"),
  "a size beyond all memory": (config(num_hidden_layers=10**12), "`num_hidden_layers` is 1000", "config.json"),
  "many layers": (
    config(num_hidden_layers=9_000, layer_types=None),
    "which describes 9000 layers",
    "config.json",
  ),
  "endless experts": (config(num_experts=10**8), "`num_experts` is 100000000, more than 10000", "config.json"),
  "a width beyond all memory": (config(hidden_size=10**6), "which describes .* parameters", "config.json"),
  "an inner width beyond all memory": (config(intermediate_size=10**10), "which describes .* param", "config.json"),
  "a vocabulary beyond all memory": (config(vocab_size=10**9), "which describes .* parameters", "config.json"),
  "a kernel to be fetched": (
    config(_attn_implementation="someone/kernels"),
    "`_attn_implementation` names code to be fetched",
    "config.json",
  ),
  "a kernel for a part": (
    config(text_config={"attn_implementation": {"": "someone/kernels"}}),
    "`attn_implementation` names code to be fetched",
    "config.json",
  ),
  "weights elsewhere": (
    config(transformers_weights="../w.safetensors"),
    "`transformers_weights` is '../w.safetensors', not a file of the folder",
    "config.json",
  ),
  "a broken tokenizer config": (
    text("tokenizer_config.json", "{"),
    "tokenizer_config.json is not",
    "tokenizer_config",
  ),
  "a shard above": (index(), "names a file outside its folder: '../weights", "index.json"),
  "an absolute shard": (index(shard="{up}/weights.safetensors"), "names a file outside its folder", "index.json"),
  "a shard that leads out": (linked_shard, "names a file outside its folder: 'model-1", "index.json"),
  "a pickled shard above": (
    index(name="pytorch_model.bin.index.json", shard="../weights.bin"),
    "pytorch_model.bin.index.json names a file outside its folder",
    "index.json",
  ),
  "a shard that is missing": (index(shard="model-1.safetensors"), "names 'model-1.safetensors', which is", "index"),
  "an index of nothing": (index(weight_map=[]), "is not an index of weights", "index.json"),
  "a header cut short": (header(10**6), "cannot load", None),
  "a header of many gigabytes": (header(2**40), "cannot load", None),
  "no header": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "cannot load", None),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_folder_that_blocks_is_broken_or_leads_elsewhere(attack, outcome_model, tmp_path):
  folder = copied(outcome_model, tmp_path / "model")
  do, message, where = ATTACKS[attack]
  do(folder)
  for read in (checkpoints.load, checkpoints.load_for_training):
    with pytest.raises(ModelError, match=message) as caught:
      read(str(folder))
    assert "\n" not in caught.value.message
    if where and "card" not in attack:
      assert where in caught.value.where
  if where == "config.json" and "describes" not in message:
    with pytest.raises(ModelError, match=message):
      checkpoints.kind_of(str(folder))


def test_folders_of_the_hub_cache_link_to_its_blobs(outcome_model, tmp_path):
  blobs, folder = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
  blobs.mkdir()
  shutil.copytree(outcome_model, folder)
  (folder / "model.safetensors").rename(blobs / "12ab")
  (folder / "model-1.safetensors").symlink_to("../../blobs/12ab")
  names = checkpoints.load(str(outcome_model)).model.state_dict()
  content = {"metadata": {}, "weight_map": dict.fromkeys(names, "model-1.safetensors")}
  (folder / "model.safetensors.index.json").write_text(json.dumps(content))
  check_folder(str(folder))
  assert checkpoints.load(str(folder)).head == "loaded"


# ---- pickles ------------------------------------------------------------------------------------------------------


class Trace:
  """What a pickle can do when it is read without protection."""

  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return open, (self.path, "w")


def test_of_pickled_weights_only_tensors_are_read_and_that_is_said(outcome_model, tmp_path):
  from safetensors.torch import load_file

  folder = copied(outcome_model, tmp_path / "m")
  weights = load_file(folder / "model.safetensors")
  torch.save(weights, folder / "pytorch_model.bin")
  assert not any("is a pickle" in note for note in checkpoints.load(str(folder)).notes), "safetensors come first"
  (folder / "model.safetensors").unlink()
  loaded = checkpoints.load(str(folder))
  assert torch.equal(loaded.model.score.weight, weights["score.weight"])
  assert "weights: pytorch_model.bin is a pickle, of which only tensors are read; safetensors are safer" in loaded.notes
  torch.save({**weights, "x": Trace(tmp_path / "trace")}, folder / "pytorch_model.bin")
  with pytest.raises(ModelError, match="a pickle among its files holds more than tensors") as caught:
    checkpoints.load(str(folder))
  assert not (tmp_path / "trace").exists()
  said = caught.value.render().replace(str(folder), "")
  assert "weights_only" not in said and "trust" not in said


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_pickles_of_a_checkpoint_are_not_run_on_resuming(name, tiny, toy_file, tmp_path):
  out = tmp_path / "out"
  flags = ("--model_name_or_path", tiny("qwen2"), "--dataset_name", toy_file, "--output_dir", out)
  flags += ("--max_steps", "2", "--save_steps", "1", "--per_device_train_batch_size", "2")
  assert run_main("train.py", *flags).returncode == 0
  foreign = tmp_path / "checkpoint-1"  # without a seal: it came from elsewhere
  shutil.copytree(out / "checkpoint-1", foreign, ignore=shutil.ignore_patterns("checkpoint.json"))
  torch.save({"state": Trace(tmp_path / "trace")}, foreign / name)
  done = run_main("train.py", *flags, "--overwrite_output_dir", "--resume_from_checkpoint", foreign)
  assert done.returncode in (4, 5) and not (tmp_path / "trace").exists(), done.stderr
  assert "weights_only" not in done.stderr and "trust the source" not in done.stderr


# ---- tokenizers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["qwen2", "bert"])
def test_a_tokenizer_without_its_vocabulary(family, tmp_path):
  folder = save_tiny(family, tmp_path / "m", head=1)
  (folder / "tokenizer.json").unlink()
  for read in (checkpoints.load, checkpoints.load_for_training, checkpoints.read_chat_template):
    with pytest.raises(ModelError, match="gives different texts the same tokens") as caught:
      read(str(folder))
    assert "restore tokenizer.json" in caught.value.hint


def test_a_vocabulary_of_one_unknown_token(tmp_path):
  folder = save_tiny("qwen2", tmp_path / "m", head=1)
  tokenizer = json.loads((folder / "tokenizer.json").read_text())
  tokenizer["model"] = {"type": "WordLevel", "vocab": {"<unk>": 0}, "unk_token": "<unk>"}
  (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
  with pytest.raises(ModelError, match="gives different texts the same tokens"):
    checkpoints.load(str(folder))


def test_tokens_beyond_the_embeddings(tiny, tmp_path):
  def more(tokenizer):
    tokenizer.add_tokens(["Paris", "<extra>"])

  models = {"score": copied(save_tiny("qwen2", tmp_path / "m", head=1), tmp_path / "a")}
  models["policy"] = copied(tiny("qwen2"), tmp_path / "b")
  other = save_tiny("qwen2", tmp_path / "other", edit=more)
  for name, read in (("score", checkpoints.load), ("policy", Policy.from_pretrained)):
    shutil.copy(other / "tokenizer.json", models[name] / "tokenizer.json")
    with pytest.raises(ModelError, match="has token 331, but the model has 330 embeddings"):
      read(str(models[name]))


def test_a_padding_token_beyond_the_embeddings_is_replaced(tmp_path):
  def late_pad(tokenizer):
    tokenizer.add_special_tokens({"pad_token": "[LATE]"})

  folder = save_tiny("llama", tmp_path / "m", head=1, edit=late_pad)
  weights = checkpoints.load(str(folder)).model
  weights.resize_token_embeddings(330)
  weights.config.pad_token_id = None
  weights.save_pretrained(folder)
  loaded = checkpoints.load(str(folder))
  assert loaded.tokenizer.pad_token_id < 330 and any("its own has no embedding" in note for note in loaded.notes)
  assert RewardModel.from_pretrained(str(folder)).score(["hello"], [["thank you", "no"]])


def test_a_template_file_that_is_not_text(tmp_path):
  os.mkfifo(tmp_path / "pipe.jinja")
  (tmp_path / "latin.jinja").write_bytes(b"\xff{{ messages }}")
  for name, message in (("pipe", "is not a regular file"), ("latin", "is not UTF-8"), ("none", "No such file")):
    with pytest.raises(UsageError, match=message):
      checkpoints.read_chat_template(str(tmp_path / f"{name}.jinja"))


def test_the_template_of_a_folder_with_a_tokenizer_alone(tiny, tmp_path):
  for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
    shutil.copy(tiny("qwen2") / name, tmp_path / name)
  assert checkpoints.read_chat_template(str(tmp_path)) == CHATML
