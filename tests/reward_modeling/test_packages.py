"""A package that is not installed is named with the command that installs it, wherever its import failed."""

import subprocess
import sys

import pytest
import train

from conftest import SCRIPTS, toy_pairs, write_jsonl
from reward_modeling import packages, program
from reward_modeling.errors import UsageError

BLOCKED = """
import runpy, sys
name, script, *rest = sys.argv[1:]
class Blocked:
    def find_spec(self, full, path=None, target=None):
        if full.partition(".")[0] == name or name == "all" and full.partition(".")[0] in THIRD_PARTY:
            raise ModuleNotFoundError(f"No module named {full!r}", name=full)
THIRD_PARTY = {"rich", "yaml", "torch", "transformers", "trl", "datasets", "peft", "accelerate", "scipy", "numpy", "pyarrow"}
sys.meta_path.insert(0, Blocked())
sys.argv = [script, *rest]
sys.path.insert(0, script.rpartition("/")[0])
runpy.run_path(script, run_name="__main__")
"""


def without(package: str, script: str, *arguments):
  command = [sys.executable, "-c", BLOCKED, package, SCRIPTS / script, *arguments]
  return subprocess.run(list(map(str, command)), capture_output=True, text=True)


@pytest.mark.parametrize(
  ("package", "script", "arguments"),
  [
    ("rich", "check_data.py", ["DATA"]),
    ("yaml", "train.py", ["--config", "RECIPE"]),
    ("pyarrow", "check_data.py", ["PARQUET"]),
    ("trl", "train.py", ["--weight_decay", "0.1"]),
    ("transformers", "train.py", ["--weight_decay", "0.1"]),
    ("torch", "score.py", ["--model_name_or_path", "MODEL", "--input", "DATA"]),
    (
      "accelerate",
      "ppo.py",
      ["--model_name_or_path", "MODEL", "--reward_model_path", "MODEL", "--dataset_name", "DATA"],
    ),
  ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(package, script, arguments, tmp_path):
  (tmp_path / "recipe.yaml").write_text("max_length: 64\n")
  (tmp_path / "rows.parquet").write_bytes(b"PAR1" + bytes(16) + b"PAR1")
  (tmp_path / "model").mkdir()
  (tmp_path / "model" / "config.json").write_text('{"architectures": ["Qwen2ForSequenceClassification"]}')
  files = {
    "DATA": write_jsonl(tmp_path / "rows.jsonl", toy_pairs(2)),
    "RECIPE": tmp_path / "recipe.yaml",
    "PARQUET": tmp_path / "rows.parquet",
    "MODEL": tmp_path / "model",
  }
  more = ["--output_dir", tmp_path / "out"] if script == "ppo.py" else []
  done = without(package, script, *[files.get(word, word) for word in arguments], *more)
  installed_as = "pyyaml" if package == "yaml" else package
  assert (done.returncode, done.stdout) == (2, "")
  assert done.stderr.splitlines()[-3:] == [
    f"error: {package} is not installed",
    "",
    f"hint: uv run scripts/{script} ... installs what it needs; elsewhere: pip install {installed_as}",
  ]


@pytest.mark.parametrize("script", ["check_data.py", "train.py", "ppo.py", "grpo.py", "score.py", "quickstart.py"])
def test_help_needs_no_package(script):
  done = without("all", script, "--help")
  assert (done.returncode, done.stderr) == (0, "") and "--config" in done.stdout


def raised(outer: Exception, inner: Exception) -> Exception:
  """`outer` as it is after `raise outer from inner`."""
  outer.__cause__ = inner
  return outer


def test_the_package_behind_another_error_is_found(monkeypatch):
  """transformers says "Could not import module X", trl "Failed to import trl.trainer": the cause tells which it was."""
  monkeypatch.setattr(packages, "is_installed", lambda name: name not in ("peft", "wandb"))
  peft = ModuleNotFoundError("No module named 'peft.utils'", name="peft.utils")
  lazy = raised(ModuleNotFoundError("Could not import module 'Trainer'"), peft)
  for error in (peft, lazy, raised(RuntimeError("Failed to import trl"), lazy)):
    assert packages.missing(error).message == "peft is not installed"
    assert program.known_run_error(error).exit_code == 2
  optional = ModuleNotFoundError("No module named 'wandb'", name="wandb")
  assert packages.missing(optional).hint == "uv run --with wandb scripts/NAME.py ..., or pip install wandb"
  assert packages.missing(raised(ValueError("a real error"), optional)) is None, "it was tried on the way"
  old = ImportError("cannot import name 'GRPOTrainer' from 'trl'", name="trl")
  assert packages.missing(old).message.startswith("the installed trl is not the version that is needed: cannot import")
  assert packages.missing(ValueError("other")) is None


def parse(words: list[str]):
  parser = train.parser()
  parser.required = ()
  return parser.parse(words)


@pytest.mark.parametrize(
  ("words", "message", "hint"),
  [
    (["--report_to", "wandb"], "--report_to wandb: wandb", "uv run --with wandb scripts/"),
    (["--report_to=mlflow"], "--report_to mlflow: mlflow", "pip install mlflow"),
    (["--report_to", "none", "comet_ml"], "--report_to comet_ml: comet_ml", "pip install comet-ml"),
    (["--optim", "adamw_bnb_8bit"], "--optim adamw_bnb_8bit: bitsandbytes", "--with bitsandbytes"),
    (["--optim", "paged_lion_8bit"], "--optim paged_lion_8bit: bitsandbytes", ""),
    (["--optim", "galore_adamw"], "--optim galore_adamw: galore_torch", "pip install galore-torch"),
    (["--deepspeed", "zero2.json"], "--deepspeed: deepspeed", "--with deepspeed"),
    (["--use_liger_kernel"], "--use_liger_kernel: liger_kernel", "pip install liger-kernel"),
  ],
)
def test_a_package_that_a_flag_needs_is_asked_for_before_data_is_read(words, message, hint, monkeypatch):
  monkeypatch.setattr(packages, "is_installed", lambda name: name in packages.OURS)
  with pytest.raises(UsageError) as caught:
    parse(words)
  assert caught.value.message == f"{message} is not installed" and hint in caught.value.hint


def test_what_needs_no_package_passes_and_an_unknown_reporter_does_not():
  for words in (["--report_to", "none"], ["--report_to", "tensorboard"], ["--optim", "adamw_torch_fused"]):
    parse(words)
  parse(["--use_liger_kernel", "False"])
  with pytest.raises(UsageError, match="--report_to wandbb is not known"):
    parse(["--report_to", "wandbb"])


def test_the_tables_name_what_transformers_knows():
  """Every reporter and every optimizer that needs a package of its own."""
  from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
  from transformers.training_args import OptimizerNames

  assert set(INTEGRATION_TO_CALLBACK) - set(packages.REPORTERS) == {"kubeflow"}, "kubeflow is an environment"
  builtin = {"adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused", "adafactor", "sgd"}
  builtin |= {"adagrad", "rmsprop", "adamw_anyprecision"}
  for name in OptimizerNames:
    assert any(name.value.startswith(start) for start in packages.OPTIMIZERS) == (name.value not in builtin), name
