"""The fenced blocks of the documents, the files they expect to find, and a place to run them in as they stand.

A block that cannot run says why on the line before it: `<!-- doctest: skip REASON -->`. A block of text behind
`<!-- doctest: output -->` shows the last lines on stderr of the block before it; numbers may differ.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import public_process_models
import yaml

from conftest import DECODERS, process_model, tiny_config, tiny_tokenizer, toy_pairs, write_jsonl
from generate import REPOSITORY, SKILL
from warm_process import HANG, WarmProcess

SHELL = {"bash", "sh", "console"}
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*) *$")
SKIP = re.compile(r"^ *<!-- doctest: skip\b *(?P<reason>.*?) *-->$")
OUTPUT = "<!-- doctest: output -->"
COMMAND = re.compile(r"`(uv run (?:--with\S* \S+ torchrun [^`]*?)?scripts/\w+\.py [^`]+)`")
LEFT_OUT = re.compile(r"\.\.\.|…|\b[A-Z]{2,}\b")
"""Dots, or a word in capitals for the reader to replace."""
LONGEST = 2048
"""Tokens that a stand-in can read: documented commands generate up to some hundreds."""


@dataclass(frozen=True)
class Block:
  """One fenced block. line: of its fence, counted from 1. skip: the reason for not running it. is_output: see above."""

  document: Path
  line: int
  language: str
  text: str
  skip: str | None = None
  is_output: bool = False

  def __str__(self) -> str:
    return f"{self.document.relative_to(REPOSITORY)}:{self.line}"

  @property
  def runs(self) -> bool:
    return self.language in SHELL | {"python"} and self.skip is None


def blocks_of(document: Path) -> list[Block]:
  """All fenced blocks of a document, in order. Raises ValueError for a fence that is never closed."""
  blocks, before = [], ""
  lines = enumerate(document.read_text(encoding="utf-8").splitlines(), 1)
  for number, line in lines:
    if fence := FENCE.match(line):
      text = ""
      for _, inside in lines:
        if inside.strip() == "```":
          break
        text += inside.removeprefix(fence["indent"]) + "\n"
      else:
        raise ValueError(f"{document.name}:{number}: this fence is never closed")
      reason = SKIP.match(before)
      skip = reason and reason["reason"]
      blocks.append(Block(document, number, fence["language"], text, skip, before.strip() == OUTPUT))
    before = line
  return blocks


def without_numbers(text: str) -> list[str]:
  """The lines of a text, each number replaced by one sign."""
  return [re.sub(r"-?\d+(\.\d+)?", "#", line) for line in text.strip().splitlines()]


def commands_in_tables(document: Path) -> list[Block]:
  """The commands with arguments that stand in backticks in a document's tables, unless they leave something out.

  Without serve.py, which runs until it is told to stop: tests/test_serve.py runs it.
  """
  return [
    Block(document, number, "bash", f"{command}\n")
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1)
    if line.startswith("|")
    for command in COMMAND.findall(line)
    if not LEFT_OUT.search(command) and "scripts/serve.py" not in command
  ]


def jinja(text: str) -> None:
  import jinja2

  jinja2.Environment().parse(text)


def json_values(text: str) -> None:
  """One JSON value, or one on each line."""
  try:
    json.loads(text)
  except json.JSONDecodeError:
    for line in filter(None, text.splitlines()):
      json.loads(line)


PARSERS: dict[str, Callable[[str], object]] = {
  "": str,
  "text": str,
  "json": json_values,
  "yaml": yaml.safe_load,
  "toml": tomllib.loads,
  "jinja": jinja,
  "python": lambda text: compile(text, "<block>", "exec"),
  **dict.fromkeys(SHELL, lambda text: subprocess.run(["bash", "-n", "-c", text], check=True, capture_output=True)),
}
"""Language of a fence -> what raises an error when the block is not of that language."""


# Models and files that the documents speak of.


def base_model(family: str, folder: Path) -> Path:
  """A tiny base model of this family that reads long texts."""
  import torch
  from transformers import AutoModel, AutoModelForCausalLM

  tokenizer = tiny_tokenizer(family)
  config = tiny_config(family, len(tokenizer))
  tokenizer.model_max_length = config.max_position_embeddings = LONGEST
  torch.manual_seed(0)
  model = (AutoModelForCausalLM if family in DECODERS else AutoModel).from_config(config)
  model.save_pretrained(folder)
  tokenizer.save_pretrained(folder)
  return folder


def reward_model(seed: int, names: tuple[str, ...] = ()) -> Callable[[Path], object]:
  """Maker of an untrained outcome reward model, saved as a trained one is. names: of attributes."""

  def make(folder: Path) -> None:
    from reward_modeling import checkpoints
    from reward_modeling.attributes import Attribute
    from reward_modeling.rendering import Renderer

    base = base_model("qwen2", folder.with_name(f".{folder.name}-base"))
    heads = tuple(Attribute(name, "regression") for name in names)
    loaded = checkpoints.load_for_training(str(base), seed=seed, attributes=heads)
    renderer = Renderer(loaded.tokenizer, max_length=LONGEST // 2, scored_at=checkpoints.scored_at(loaded.model))
    reward = {"mean": 0.5, "std": 2.0, "n": 8}
    checkpoints.save(loaded.model.eval(), renderer, folder, training={}, reward=reward, attributes=heads)
    shutil.rmtree(base)

  return make


def process_reward_model(folder: Path) -> None:
  from reward_modeling import checkpoints

  made = process_model("qwen2", max_length=128)
  checkpoints.save(made.model, made.renderer, folder, training={}, reward={"mean": 0.5, "std": 0.1, "n": 8})


def text_of(row: dict, side: str) -> str:
  return f"\n\nHuman: {row['prompt'][0]['content']}\n\nAssistant: {row[side][0]['content']}"


def rows(make: Callable[[], list[dict]]) -> Callable[[Path], object]:
  return lambda path: write_jsonl(path, make())


def packed(make: Callable[[Path], object]) -> Callable[[Path], object]:
  def write(path: Path) -> None:
    make(path)
    path.write_bytes(gzip.compress(path.read_bytes()))

  return write


def pools() -> list[dict]:
  answers = [{"completion": f"thank you\nA: {value}", "correct": value == "6"} for value in "6565"]
  return [
    {
      "prompt": f"hello {i}: 2 + 2 + 2?",
      "completions": [answer["completion"] for answer in answers],
      "correct": [answer["correct"] for answer in answers],
    }
    for i in range(8)
  ]


def ratings() -> list[dict]:
  return [
    {"prompt": row["prompt"], "completion": row[side], "ratings": {"helpfulness": i + 3 * good, "verbosity": i % 2}}
    for i, row in enumerate(toy_pairs(12))
    for good, side in enumerate(("rejected", "chosen"))
  ]


def labelled_steps(n: int = 12) -> list[dict]:
  steps = ["2 + 2 = 4", "4 + 2 = 6", "the answer is 6"]
  return [
    {
      "prompt": f"hello {i}: 2 + 2 + 2?",
      "subject": "sums" if i < n // 2 else "greetings",
      "completions": steps if i % 2 else [steps[0], "4 + 2 = 7", "the answer is 7"],
      "labels": [True, bool(i % 2), bool(i % 2)],
      "answer": "6",
    }
    for i in range(n)
  ]


def points() -> list[dict]:
  return [{"run": "ppo", "kl": kl, "proxy": kl**0.5, "gold": kl**0.5 - 0.1 * kl} for kl in (0.0, 1.0, 4.0, 9.0, 25.0)]


def transcripts() -> list[dict]:
  return [{side: text_of(row, side) for side in ("chosen", "rejected")} for row in toy_pairs(12)]


def completions() -> list[dict]:
  answers = ["thank you", "no", "yes please", "sorry", "maybe", "hello", "red apples", "two"]
  return [{"prompt": row["prompt"], "completions": answers} for row in toy_pairs(4)]


def prompts() -> list[dict]:
  return [{"prompt": row["prompt"]} for row in toy_pairs(4)]


def questions() -> list[dict]:
  return [{"question": f"what is {n} + {n}?", "answer": f"{n} + {n} = {2 * n}\n#### {2 * n}"} for n in range(4)]


EXAMPLES: dict[str, Callable[[Path], object]] = {
  "pairs.jsonl": rows(lambda: toy_pairs(24)),
  "held_out.jsonl": rows(lambda: toy_pairs(12, seed=7)),
  "transcripts.jsonl": rows(transcripts),
  "completions.jsonl": rows(completions),
  "prompts.jsonl": rows(prompts),
  "ratings.jsonl": rows(ratings),
  "questions.jsonl": rows(questions),
  "pools.jsonl": rows(pools),
  "steps.jsonl": rows(labelled_steps),
  "other.jsonl": rows(labelled_steps),
  "solutions.jsonl": rows(labelled_steps),
  "mr_ben.train.jsonl.gz": packed(rows(labelled_steps)),
  "mr_ben.valid.jsonl.gz": packed(rows(labelled_steps)),
  "points.jsonl": rows(points),
  "runs/mine": reward_model(0),
  "runs/other": reward_model(1),
  "runs/rm": reward_model(2),
  "runs/attributes": reward_model(3, ("helpfulness", "verbosity")),
  "runs/sft": lambda folder: base_model("qwen2", folder),
  "runs/prm": process_reward_model,
  "MINILM": lambda folder: base_model("bert", folder),
}
"""Files and models that a reader of the documents has, or has made by an earlier command, and what makes a small one."""


def published_classifier(folder: Path) -> Path:
  """A tiny classifier with one label, as others publish reward models: without a card of this project."""
  import torch
  from transformers import AutoConfig, AutoModelForSequenceClassification

  base = base_model("qwen3", folder.with_name(f".{folder.name}-base"))
  torch.manual_seed(0)
  config = AutoConfig.from_pretrained(base, num_labels=1)
  AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
  for path in base.glob("*token*"):
    shutil.copy(path, folder)
  shutil.copy(base / "chat_template.jinja", folder)
  return folder


def pair_model(folder: Path) -> Path:
  return public_process_models.MODELS["llm-blender/PairRM-hf"](folder)


STAND_INS: dict[str, str | Callable[[Path], Path]] = {
  "Qwen/Qwen2.5-0.5B": "qwen2",
  "Qwen/Qwen2.5-0.5B-Instruct": "qwen2",
  "Qwen/Qwen3-0.6B": "qwen3",
  "google/gemma-2-2b-it": "gemma2",
  "meta-llama/Llama-3.1-8B-Instruct": "llama",
  "meta-llama/Llama-3.2-1B-Instruct": "llama",
  "my/dpo-model": "qwen2",
  "my/sft-model": "qwen2",
  "Skywork/Skywork-Reward-V2-Qwen3-0.6B": published_classifier,
  "llm-blender/PairRM-hf": pair_model,
}
"""Models on the hub -> the family of the tiny base model that is served under their id, or what makes one."""


def example(name: str, store: Path) -> Path:
  """The example of this name, made once and kept in `store`."""
  kept = store / name
  if not kept.exists():
    kept.parent.mkdir(parents=True, exist_ok=True)
    EXAMPLES[name](kept)
  return kept


def place_examples(text: str, folder: Path, store: Path) -> None:
  """Put the examples that a block reads into its folder, but not those that it writes or that are there already."""
  for name in EXAMPLES:
    found = re.search(rf"(--output_dir|--output|--picture|>)?[ =]*(?<![\w./-]){re.escape(name)}(?![\w.-])", text)
    if found and not found[1] and not (folder / name).exists():
      kept, place = example(name, store), folder / name
      place.parent.mkdir(parents=True, exist_ok=True)
      shutil.copytree(kept, place) if kept.is_dir() else shutil.copyfile(kept, place)


# Where blocks run.


def run_block(block: Block, warm: WarmProcess, folder: Path) -> subprocess.CompletedProcess:
  """Run a block as it stands, in this folder, as a reader would who pasted it there; Python comes from `warm`."""
  env = {**warm.env, "PATH": f"{warm.bin}{os.pathsep}{warm.env['PATH']}"}
  if block.language == "python":
    command, given = [warm.bin / "python", "-"], block.text
    env["PYTHONPATH"] = str(folder / "scripts")
  else:
    command, given = ["bash", "-euo", "pipefail", "-c", shell_text(block)], None
  return subprocess.run(command, cwd=folder, env=env, input=given, capture_output=True, text=True, timeout=HANG)


def shell_text(block: Block) -> str:
  """The commands of a shell block; of a console block, what stands behind its prompts."""
  if block.language != "console":
    return block.text
  return "".join(f"{line[2:]}\n" for line in block.text.splitlines() if line.startswith("$ "))


def home_of(document: Path) -> Path:
  """The folder that a document's commands are for: the skill, or the repository around it."""
  return SKILL if SKILL in document.parents else REPOSITORY
