"""The precision of a run, and one warning where the processor would have to emulate it.

On a CPU without bf16 instructions a bf16 matrix product takes 60 times as long as one in fp32.
"""

from collections.abc import Mapping
from os import environ
from types import MappingProxyType

from .errors import UsageError
from .hf import Device
from .terminal import warn

INSTRUCTIONS = {
  "bfloat16": ("amx_bf16", "avx512_bf16", "sve_bf16", "bf16"),
  "float16": ("amx_fp16", "avx512_fp16", "fp16_arith"),
}
"""Names of `torch.cpu.get_capabilities()` of which one is enough; the last are Arm's."""
TOO_LOW = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
"""Values of ONEDNN_MAX_CPU_ISA that switch all of them off."""
AUTOCAST = {"bf16": "bfloat16", "bf16_full_eval": "bfloat16", "fp16": "float16", "fp16_full_eval": "float16"}
LAUNCHED = ("ACCELERATE_MIXED_PRECISION", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS")
"""Of `accelerate launch`, whose trainers follow it without a word."""
BF16_FROM = 10e6
"""Parameters from which bf16 pays on a CPU with AMX: 22M train 1.5 to 1.9 times as fast, 0.02M at a third."""


def best_device() -> str:
  import torch

  if torch.cuda.is_available():
    local = environ.get("LOCAL_RANK")  # of torchrun: each process has a GPU of its own
    return f"cuda:{int(local) % torch.cuda.device_count()}" if local else "cuda"
  return "mps" if torch.backends.mps.is_available() else "cpu"


def where_it_fits(size: int, device: Device) -> Device:
  import torch

  if device.type != "cuda":
    return device
  torch.cuda.empty_cache()
  return device if 1.1 * size < torch.cuda.mem_get_info(device)[0] else torch.device("cpu")


def usable(device: str | None) -> str:
  """The best there is where none is named."""
  import torch

  device = device or best_device()
  try:
    torch.empty(1, device=device)
  except (RuntimeError, AssertionError, NotImplementedError) as error:
    what = f"cannot use --device {device}: {str(error).strip().splitlines()[0]}"
    raise UsageError(what, hint="leave it out to take the best there is") from error
  return device


def why_emulated(dtype: str) -> str | None:
  """None where this CPU computes in it."""
  import torch

  if dtype not in INSTRUCTIONS:
    return None
  has = torch.cpu.get_capabilities()
  if not any(has.get(name) for name in INSTRUCTIONS[dtype]):
    return f"this processor has no {dtype} instructions"
  if not torch.backends.mkldnn.is_available():
    return f"this build of PyTorch has no oneDNN, which uses the {dtype} instructions of a processor"
  if has["architecture"].startswith("x86"):
    name, limit = "ONEDNN_MAX_CPU_ISA", environ.get("ONEDNN_MAX_CPU_ISA")
    if not limit:
      name, limit = "DNNL_MAX_CPU_ISA", environ.get("DNNL_MAX_CPU_ISA", "")
    if limit.upper() in TOO_LOW or (limit.upper(), dtype) == ("AVX512_CORE_BF16", "float16"):
      return f"{name}={limit} switches the processor's {dtype} instructions off"
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
      limit = environ.get("ATEN_CPU_CAPABILITY")
      return f"ATEN_CPU_CAPABILITY={limit} switches the processor's {dtype} instructions off"
  return None


def warn_if_emulated(flags: Mapping[str, object]) -> None:
  """One warning for all flags, texts of the trainer's included, whose precision this CPU emulates."""
  asked = {f"--{name} {value}": value for name in ("dtype", "reward_dtype") if (value := flags.get(name))}
  on = [name for name in AUTOCAST if str(flags.get(name)).lower() in ("true", "t", "yes", "y", "1")]
  asked |= {f"--{name} true": AUTOCAST[name] for name in on}
  asked = {flag: dtype for flag, dtype in asked.items() if dtype != "float32"}
  forced = "cpu" if "use_cpu" in flags else None
  if not asked or not (flags.get("device") or forced or best_device()).startswith("cpu"):
    return
  if asked.pop("--fp16 true", None):
    warn("--fp16 true: float16 autocast needs a GPU, so the run is in float32: leave it out")
  reasons = {flag: reason for flag, dtype in asked.items() if (reason := why_emulated(dtype))}
  if reasons:
    named, why = " and ".join(reasons), "; ".join(dict.fromkeys(reasons.values()))
    warn(f"{named}: {why}. It is emulated, which takes up to 60 times as long as float32: leave {named} out")


def precision(given: Mapping[str, object] = MappingProxyType({}), parameters: float = 0) -> dict[str, bool]:
  """`bf16`, `fp16` and `use_cpu` of a training run; weights stay fp32.

  A GPU takes bf16 where it has it, else fp16; a CPU bf16 where it has the instructions and the model BF16_FROM parameters
  (0 for a policy). given: the user's fields, which win, but for fp16 on a CPU; the launcher's are taken away.
  """
  import torch

  launched, *_ = [environ.pop(name, None) for name in LAUNCHED]
  mps, cuda = torch.backends.mps.is_available(), torch.cuda.is_available()
  on_cpu = bool(given.get("use_cpu")) or not (cuda or mps)
  if on_cpu:
    bf16, fp16 = parameters >= BF16_FROM and not why_emulated("bfloat16"), False
  else:
    bf16 = cuda and torch.cuda.is_bf16_supported()
    fp16 = cuda and not bf16
  asked = bool(given.get("bf16") or (given.get("fp16") and not on_cpu))
  chosen = {"bf16": bf16 and not asked, "fp16": fp16 and not asked}
  chosen |= {name: bool(given[name]) for name in chosen if given.get(name) is not None}
  chosen["fp16"] &= not on_cpu
  if launched not in (None, "no") and not chosen.get(launched):
    warn(f"the launcher's mixed_precision {launched} has no effect: --bf16 and --fp16 choose")
  return chosen | {"use_cpu": on_cpu}
