"""What the parts of gpu.py share: the machine and its clock, models of known sizes with random weights, and the work they get."""

from __future__ import annotations

import gc
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "scripts"), str(HERE)]

import torch  # noqa: E402 - the scripts' folder is on the path
from scoring import PAD, VOCABULARY, Shape, spelled  # noqa: E402

SIZES = {
    "0.5B": ("Qwen2", {"hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864}),
    "8B": ("Llama", {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336}),
}  # fmt: skip
"""Class and fields: the shapes of Qwen2.5-0.5B and Llama 3 8B, with a vocabulary of 16,384."""
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96}  # fmt: skip
WORK = {
  "pairs like HH": Shape(2, 512, (100, 400), (20, 150)),
  "pairs of single turns": Shape(2, 512, (15, 45), (50, 350)),
  "best of 16, 300-token prompts": Shape(16, 48, (300, 300), (50, 150)),
  "best of 16, 1000-token prompts": Shape(16, 24, (1000, 1000), (50, 150)),
  "nothing shared": Shape(1, 1024, (100, 400), (20, 150)),
}


Row = dict[str, Any]
Found = dict[str, Row]
"""What a part measured, by what it is of; its columns are those of the table."""


class OutOfTimeError(Exception):
  pass


def attempted(measure: Callable[[], Row]) -> Row:
  """Its numbers, or why there are none: one failure does not cost the others."""
  try:
    return measure()
  except OutOfTimeError as late:
    return {"note": str(late)}
  except Exception as error:
    return {"note": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}


@dataclass
class Machine:
  """tiny: small models and short texts, to try the command. limit: seconds after which nothing new is measured."""

  device: torch.device
  tiny: bool
  rounds: int = 2
  limit: float = 460.0
  rates: dict[str, float] = field(default_factory=dict)
  """Operations a second of a large matrix product, by dtype."""
  started: float = field(default_factory=time.perf_counter)

  @property
  def cuda(self) -> bool:
    return self.device.type == "cuda"

  @property
  def half(self) -> torch.dtype:
    return torch.bfloat16

  def name(self) -> str:
    if self.cuda:
      return torch.cuda.get_device_name(self.device)
    return "CPU (no GPU was used)"

  def wait(self) -> None:
    if self.cuda:
      torch.cuda.synchronize(self.device)

  def timed(self, run: Callable[[], Any], steps: int = 1, before: Callable[[], Any] = lambda: None) -> Row:
    """Median seconds of a run and its range; seconds a step until Python is done, when the card may not be; GiB at the
    peak; kernels compiled in the first run, which is not timed, and later. before: done before each, and not timed."""
    if time.perf_counter() - self.started > self.limit:
      raise OutOfTimeError(f"left out: {self.limit:.0f} seconds are over")
    before()
    none, first = compiled(), time.perf_counter()
    run()
    self.wait()
    warm, middle = time.perf_counter() - first, compiled()
    if self.cuda:
      torch.cuda.reset_peak_memory_stats(self.device)
    seconds, host = [], []
    for _ in range(self.rounds):
      before()
      self.wait()
      start = time.perf_counter()
      run()
      host.append((time.perf_counter() - start) / steps)
      self.wait()
      seconds.append(time.perf_counter() - start)
    return {
      "seconds": statistics.median(seconds),
      "range": [min(seconds), max(seconds)],
      "host seconds a step": statistics.median(host),
      "first seconds": warm,
      "GiB": torch.cuda.max_memory_allocated(self.device) / 2**30 if self.cuda else None,
      "compiled first": middle - none,
      "compiled later": compiled() - middle,
    }

  def free(self) -> None:
    gc.collect()
    if self.cuda:
      torch.cuda.empty_cache()

  def measure_rates(self) -> None:
    size = 256 if self.tiny else 8192
    for dtype in (torch.float32, self.half):
      a, b = (torch.randn(size, size, device=self.device, dtype=dtype) for _ in range(2))
      times = 1 if dtype == torch.float32 or self.tiny else 10

      def multiply(a: torch.Tensor = a, b: torch.Tensor = b, times: int = times) -> None:
        for _ in range(times):
          a @ b

      self.rates[str(dtype)[6:]] = times * 2 * size**3 / self.timed(multiply)["seconds"]

  def share(self, operations: float, seconds: float, dtype: torch.dtype) -> float:
    return operations / seconds / self.rates[str(dtype)[6:]]

  def shape(self, name: str, part: float = 1.0) -> Shape:
    """The work, or a part of its groups; tiny lengths where models are tiny."""
    whole = WORK[name]
    if not self.tiny:
      return Shape(whole.n, max(1, round(whole.groups * part)), whole.prompt, whole.completion)
    short = tuple(tuple(1 + n // 20 for n in lengths) for lengths in (whole.prompt, whole.completion))
    return Shape(whole.n, max(1, 16 // whole.n), *short)

  def model(self, size: str, dtype: torch.dtype, seed: int = 0) -> Any:
    """A sequence classifier with random weights."""
    import transformers

    kind, fields = SIZES[size]
    fields = TINY if self.tiny else fields
    config = getattr(transformers, f"{kind}Config")(
      vocab_size=VOCABULARY, max_position_embeddings=8192, pad_token_id=PAD, num_labels=1, **fields
    )
    torch.manual_seed(seed)
    torch.set_default_dtype(dtype)
    try:
      with self.device:
        return getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()
    finally:
      torch.set_default_dtype(torch.float32)


def compiled() -> int:
  """Graphs that torch has compiled in this process."""
  return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def linear_weights(model: Any) -> int:
  return sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))


def word_tokenizer() -> Any:
  """Every token id is a word: "w17 w4"."""
  from tokenizers import Tokenizer, models, pre_tokenizers
  from transformers import PreTrainedTokenizerFast

  words = Tokenizer(models.WordLevel({spelled([i]): i for i in range(VOCABULARY)}, unk_token=spelled([1])))
  words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  return PreTrainedTokenizerFast(tokenizer_object=words, pad_token=spelled([PAD]), model_max_length=8192)


def pair_rows(shape: Shape, pairs: int, batches: int, by_length: bool = False) -> list[list[dict[str, Any]]]:
  """Batches of pairs with TRL's columns and ours; by length they come from eight times as many."""
  rng, rows = random.Random(1), []

  def drawn(lengths: tuple[int, int]) -> list[int]:
    return [rng.randrange(1, VOCABULARY) for _ in range(rng.randint(*lengths))]

  for _ in range(pairs * batches * (8 if by_length else 1)):
    prompt = drawn(shape.prompt)
    chosen, rejected = (prompt + drawn(shape.completion) for _ in range(2))
    ours = {"sequences": [chosen, rejected], "chosen": [0], "rejected": [1], "margin": [0.0], "weight": [1.0]}
    rows.append({"chosen_ids": chosen, "rejected_ids": rejected, **ours})
  if by_length:
    rows.sort(key=lambda row: max(map(len, row["sequences"])))
  made = [rows[i : i + pairs] for i in range(0, len(rows), pairs)]
  return rng.sample(made, batches)
