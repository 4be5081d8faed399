"""Packages that are not installed: which one, and the command that installs it, before data is read where a flag tells."""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import UsageError, did_you_mean
from .results import SCRIPT_RESULTS

OURS = (
  *("torch", "transformers", "trl", "datasets", "peft", "accelerate", "rich", "yaml", "scipy", "pydantic"),
  *("numpy", "pyarrow", "jinja2", "safetensors", "tokenizers", "huggingface_hub", "pandas", "dill"),
  *("fastapi", "uvicorn", "prometheus_client"),
)
"""What the headers of the scripts list, and what these bring along, as they are imported."""

_SAME = "aim clearml codecarbon comet_ml dagshub dvclive mlflow neptune swanlab tensorboard trackio wandb"
REPORTERS = {name: name for name in _SAME.split()} | {"azure_ml": "azureml", "flyte": "flytekit"}
"""Value of --report_to -> package; instead of tensorboard, tensorboardX will do."""
OPTIMIZERS = {
  start: package
  for package, starts in {
    "torchao": "adamw_torch_4bit adamw_torch_8bit",
    "galore_torch": "galore_",
    "lomo_optim": "lomo adalomo",
    "bitsandbytes": "ademamix adamw_8bit lion paged_ rmsprop_bnb adamw_bnb",
    "grokadamw": "grokadamw",
    "schedulefree": "schedule_free",
    "apollo_torch": "apollo_",
    "optimi": "stable_adamw",
  }.items()
  for start in starts.split()
}
SWITCHES = {"deepspeed": "deepspeed", "use_liger_kernel": "liger_kernel", "use_vllm": "vllm"}
INSTALLED_AS = {"yaml": "pyyaml", "azureml": "azureml-core", "optimi": "torch-optimi"}


def is_installed(module: str) -> bool:
  try:
    return importlib.util.find_spec(module) is not None
  except (ImportError, ValueError):
    return False


def check_optional(given: Mapping[str, Sequence[str]]) -> None:
  needed = []
  for value in given.get("report_to", ()):
    if value in ("none", "all", "[]", "kubeflow"):
      continue
    if value not in REPORTERS:
      raise UsageError(f"--report_to {value} is not known", hint=did_you_mean(value, REPORTERS))
    if value == "tensorboard" and is_installed("tensorboardX"):
      continue
    needed.append((f"--report_to {value}: ", REPORTERS[value]))
  needed += [
    (f"--optim {value}: ", package)
    for value in given.get("optim", ())
    for start, package in OPTIMIZERS.items()
    if value.startswith(start)
  ]
  for name, package in SWITCHES.items():
    if [value.lower() for value in given.get(name, ["false"])] not in (["false"], ["none"]):
      needed.append((f"--{name}: ", package))
  for flag, package in needed:
    if not is_installed(package):
      raise not_installed(package, flag)


def not_installed(module: str, before: str = "") -> UsageError:
  script = Path(sys.argv[0]).name
  script = script if script in SCRIPT_RESULTS else "NAME.py"
  package = INSTALLED_AS.get(module, module.replace("_", "-"))
  if module in OURS:
    hint = f"uv run scripts/{script} ... installs what it needs; elsewhere: pip install {package}"
  else:
    hint = f"uv run --with {package} scripts/{script} ..., or pip install {package}"
  return UsageError(f"{before}{module} is not installed", hint=hint)


def missing(error: BaseException) -> UsageError | None:
  """The error to tell where a package that is missing, or of another version, is the cause.

  Libraries try optional packages on their way to another error: those count only where they are the error itself.
  """
  cause: BaseException | None = error
  while cause is not None:
    if isinstance(cause, ModuleNotFoundError) and str(cause.name).startswith("reward_modeling."):
      hint = "its loader copied a part of it: copy the whole folder, from a clone of the repository"
      return UsageError(f"this copy of the skill lacks scripts/{cause.name.replace('.', '/')}.py", hint=hint)
    name = (getattr(cause, "name", None) or "").partition(".")[0]
    if isinstance(cause, ImportError) and name.strip("_") == name != "" and (name in OURS or cause is error):
      told = not_installed(name)
      if is_installed(name):
        told.message = f"the installed {name} is not the version that is needed: {cause}"
      if not (is_installed(name) and isinstance(cause, ModuleNotFoundError)):
        return told
    cause = cause.__cause__ or cause.__context__
  return None
