"""How much memory and time score.py takes for files of growing length: memory must not grow with them.

    uv run python benchmarks/stream.py
    uv run python benchmarks/stream.py --completions 50000 1000000
    uv run python benchmarks/stream.py --completions 10000 1000000 --processes 2

Sandbox prompts with 16 answers each, scored by the sandbox's two-layer decoder with random weights: the point is the
reading, planning and writing around the model. Each file is scored in a process of its own, on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "scripts"))

ANSWERS = 16


def model(folder: Path) -> Path:
  """A reward model of the sandbox's size, saved as train.py saves one, untrained."""
  from transformers import Qwen2ForCausalLM

  from reward_modeling import checkpoints, sandbox_models
  from reward_modeling.rendering import Renderer

  words = sandbox_models.tokenizer()
  Qwen2ForCausalLM(sandbox_models.tiny_config(words)).save_pretrained(folder / "base")
  words.save_pretrained(folder / "base")
  loaded = checkpoints.load_for_training(str(folder / "base"))
  renderer = Renderer(loaded.tokenizer, max_length=None)
  checkpoints.save(loaded.model, renderer, folder / "model", training={}, reward={})
  return folder / "model"


def write_completions(path: Path, count: int) -> None:
  from reward_modeling.sandbox import make_completions

  drawn = [
    {"prompt": row.prompt, "completions": row.completions}
    for row in make_completions(500, ANSWERS, seed=0, split="train")
  ]
  with open(path, "w", encoding="utf-8") as file:
    for i in range(count // ANSWERS):
      file.write(json.dumps({"id": i, **drawn[i % len(drawn)]}) + "\n")


def score(model: Path, data: Path, output: Path, processes: int) -> tuple[float, float]:
  """(wall seconds, peak megabytes of the largest process) of one run of score.py."""
  start = time.monotonic()
  torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
  command = [sys.executable, *(torchrun if processes > 1 else []), str(REPOSITORY / "scripts" / "score.py")]
  command += ["--model_name_or_path", str(model)]
  process = subprocess.Popen(
        [*command, "--input", str(data), "--output", str(output), "--overwrite"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
  _, status, usage = os.wait4(process.pid, 0)
  if status:
    raise SystemExit(f"score.py failed with status {status}")
  return time.monotonic() - start, usage.ru_maxrss / (1 if sys.platform == "darwin" else 1024)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument("--completions", nargs="+", type=int, default=[16_000, 160_000, 1_000_000])
  parser.add_argument("--processes", type=int, default=1)
  args = parser.parse_args()
  from reward_modeling.terminal import table

  lines, found = [], []
  with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    scorer = model(folder)
    for count in args.completions:
      write_completions(folder / "rows.jsonl", count)
      seconds, megabytes = score(scorer, folder / "rows.jsonl", folder / "scored.jsonl", args.processes)
      found.append({"completions": count, "processes": args.processes, "seconds": seconds, "peak_megabytes": megabytes})
      lines.append([f"{count:,}", f"{seconds:.0f}", f"{count / seconds:.0f}", f"{megabytes:.0f}"])
      table("score.py", ["completions", "seconds", "a second", "peak MB"], lines)
  print(json.dumps(found))


if __name__ == "__main__":
  main()
