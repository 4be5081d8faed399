"""Packages that are not installed: which one, and the command that installs it, before data is read where a flag tells."""

from __future__ import annotations

import difflib
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .errors import UsageError
from .results import SCRIPT_RESULTS

OURS = (
    *("torch", "transformers", "trl", "datasets", "peft", "accelerate", "rich", "yaml", "scipy", "pydantic"),
    *("numpy", "pyarrow", "jinja2", "safetensors", "tokenizers", "huggingface_hub", "pandas", "dill"),
)
"""What the headers of the scripts list, and what these bring along, by the names under which they are imported."""

REPORTERS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in ("aim", "clearml", "codecarbon", "comet_ml", "dvclive", "mlflow", "neptune")},
    **{name: (name,) for name in ("swanlab", "trackio", "wandb")},
    "tensorboard": ("tensorboard", "tensorboardX"),
    "azure_ml": ("azureml",),
    "dagshub": ("dagshub",),
    "flyte": ("flytekit",),
}
"""Value of --report_to -> packages of which one must be installed."""
OPTIMIZERS = {
    **dict.fromkeys(("adamw_torch_4bit", "adamw_torch_8bit"), "torchao"),
    **dict.fromkeys(("galore_",), "galore_torch"),
    **dict.fromkeys(("lomo", "adalomo"), "lomo_optim"),
    **dict.fromkeys(("ademamix", "adamw_8bit", "lion", "paged_", "rmsprop_bnb", "adamw_bnb"), "bitsandbytes"),
    **{"grokadamw": "grokadamw", "schedule_free": "schedulefree", "apollo_": "apollo_torch", "stable_adamw": "optimi"},
}
"""Beginning of a value of --optim -> package."""
SWITCHES = {"deepspeed": "deepspeed", "use_liger_kernel": "liger_kernel", "use_vllm": "vllm"}
INSTALLED_AS = {
    **{"yaml": "pyyaml", "azureml": "azureml-core", "optimi": "torch-optimi", "lomo_optim": "lomo-optim"},
    **{"galore_torch": "galore-torch", "apollo_torch": "apollo-torch", "liger_kernel": "liger-kernel"},
}


def is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def check_optional(given: Mapping[str, Sequence[str]]) -> None:
    """Raises UsageError when a setting of a run, {name: values}, needs a package that is not installed."""
    for value in given.get("report_to", ()):
        if value in ("none", "all", "[]", "kubeflow"):
            continue
        if value not in REPORTERS:
            close = difflib.get_close_matches(value, REPORTERS, n=1) or [", ".join(REPORTERS)]
            raise UsageError(f"--report_to {value} is not known", hint=f"did you mean {close[0]}?")
        if not any(map(is_installed, REPORTERS[value])):
            raise not_installed(REPORTERS[value][0], f"--report_to {value}: ")
    for value in given.get("optim", ()):
        package = next((package for start, package in OPTIMIZERS.items() if value.startswith(start)), None)
        if package and not is_installed(package):
            raise not_installed(package, f"--optim {value}: ")
    for name, package in SWITCHES.items():
        is_off = [value.lower() for value in given.get(name, ["false"])] in (["false"], ["none"])
        if not is_off and not is_installed(package):
            raise not_installed(package, f"--{name}: ")


def not_installed(module: str, before: str = "") -> UsageError:
    """The error for a package that is needed and missing. before: what asked for it."""
    script = Path(sys.argv[0]).name
    script = script if script in SCRIPT_RESULTS else "NAME.py"
    package = INSTALLED_AS.get(module, module)
    if module in OURS:
        hint = f"uv run scripts/{script} ... installs what the script needs; elsewhere: pip install {package}"
    else:
        hint = f"uv run --with {package} scripts/{script} ..., or pip install {package}"
    return UsageError(f"{before}{module} is not installed", hint=hint)


def missing(error: BaseException) -> UsageError | None:
    """The error to tell instead of this one, where a package that is not there, or is another version, is its cause.

    Libraries try optional packages on their way to another error: those count only where they are the error itself.
    """
    for cause in _causes(error):
        name = (getattr(cause, "name", None) or "").partition(".")[0]
        if not isinstance(cause, ImportError) or not name or (name not in OURS and cause is not error):
            continue
        if not is_installed(name):
            return not_installed(name)
        if not isinstance(cause, ModuleNotFoundError):
            found = not_installed(name)
            return UsageError(f"the installed {name} is not the version that is needed: {cause}", hint=found.hint)
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
