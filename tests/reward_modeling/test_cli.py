"""Flags, recipes and trainer fields: what is accepted, and the one line for what is not."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest

from conftest import SCRIPTS, run_script
from reward_modeling import cli
from reward_modeling.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Settings:
  group: ClassVar = "flags"
  learning_rate: float | None = cli.flag(None, "")
  steps: int = cli.flag(7, "how many")
  share: float | None = cli.flag(None, "", type=cli.fraction)
  coefficient: float | None = cli.flag(None, "", type=cli.non_negative_number)
  prompt: str | None = cli.flag(None, "")
  names: Sequence[str] | None = cli.flag(None, "", nargs="+")
  columns: Mapping[str, str] | None = cli.flag(None, "", type=cli.column_map)
  overwrite: bool = cli.flag(False, "replace it")
  unsaid: int = 3


@dataclass(frozen=True, kw_only=True)
class MoreSettings(Settings):
  group: ClassVar = "more"
  extra: int = cli.flag(2, "one more")
  steps: int = cli.flag(9, "more of them")


def trainer():
  from transformers import TrainingArguments

  return [TrainingArguments]


def parser(trainer=None, required=()) -> cli.Parser:
  return cli.Parser("A script.", "script.py", Settings, required=required, trainer=trainer)


def parse(*argv, **how):
  return parser(**how).parse([str(word) for word in argv])


def refused(*argv, **kwargs) -> str:
  with pytest.raises(UsageError) as caught:
    parse(*argv, **kwargs)
  return caught.value.render()


@pytest.fixture
def recipe(tmp_path):
  """recipe("steps: 3") -> the path of a YAML file with this text."""

  def write(text: str):
    (tmp_path / "recipe.yaml").write_text(text)
    return tmp_path / "recipe.yaml"

  return write


def test_flags_win_over_the_recipe_and_the_recipe_over_the_defaults(recipe):
  file = recipe("steps: 3\nlearning_rate: 2e-5\nnames: [a, b]\noverwrite: true\nshare: null\n")
  args = parse("--config", file, "--learning_rate", "0.5")
  assert (args.steps, args.learning_rate, args.names, args.overwrite, args.share) == (3, 0.5, ["a", "b"], True, None)
  assert parse("--config", file, "--overwrite", "false").overwrite is False
  assert parse("--config", file).learning_rate == 2e-5, "PyYAML reads 2e-5 as a string"
  assert parse().steps == 7


def test_a_recipe_value_that_looks_like_a_flag_is_a_value(recipe):
  assert parse("--config", recipe("prompt: --help me\n")).prompt == "--help me"


def test_the_home_folder_is_expanded_where_no_shell_does_and_texts_are_kept(recipe, monkeypatch):
  monkeypatch.setenv("HOME", "/home/me")
  args = parse("--config", recipe("names: [~/a, b~/c]\n"), "--prompt=~/x")
  assert (args.names, args.prompt) == (["/home/me/a", "b~/c"], "~/x")


def test_trainer_fields_are_passed_on_as_given_and_flags_come_last(recipe):
  file = recipe("weight_decay: 0.3\nlogging_steps: 5\n")
  args = parse("--config", file, "--weight_decay", "0.1", trainer=trainer)
  assert args.trainer_arguments == ["--weight_decay", "0.3", "--logging_steps", "5", "--weight_decay", "0.1"]
  assert "unknown flag --weight_decay" in refused("--weight_decay", "0.1"), "scripts without a trainer know no fields"


@pytest.mark.parametrize(
  ("argv", "message"),
  [
    (["--step", "3"], "error: unknown flag --step\n\nhint: did you mean --steps?"),
    (["--qqq"], "error: unknown flag --qqq\n\nhint: script.py --help lists every flag"),
    (["stray"], "error: unexpected argument 'stray'\n\nhint: script.py --help lists every flag"),
    (["--steps", "3.5"], "error: argument --steps: expected a whole number of at least 1, got '3.5'"),
    (["--steps", "-1"], "error: argument --steps: expected a whole number of at least 1, got '-1'"),
    (["--steps"], "error: argument --steps: expected one argument"),
    (["--share", "1"], "error: argument --share: expected a number from 0 to below 1, got '1'"),
    (["--share", "half"], "error: argument --share: expected a number from 0 to below 1, got 'half'"),
    (["--learning_rate", "0"], "error: argument --learning_rate: expected a number above 0, got '0'"),
    (["--learning_rate", "nan"], "error: argument --learning_rate: expected a number above 0, got 'nan'"),
    (["--coefficient", "-0.1"], "error: argument --coefficient: expected a number of at least 0, got '-0.1'"),
    (["--overwrite", "perhaps"], "error: argument --overwrite: expected true or false, got 'perhaps'"),
    (["--columns", "prompt"], "error: argument --columns: expected NAME=COLUMN, got 'prompt'"),
    (["--config", "/nowhere.yaml"], "error: cannot read the recipe /nowhere.yaml: No such file or directory"),
  ],
)
def test_refused_flags(argv, message):
  assert refused(*argv).startswith(message)


@pytest.mark.parametrize("script", ["train", "train_process", "score", "ppo", "grpo", "label_steps", "quickstart"])
def test_no_script_takes_a_negative_seed(script):
  with pytest.raises(UsageError, match="argument --seed: expected a whole number of at least 0, got '-1'"):
    importlib.import_module(script).parser().parse(["--seed", "-1"])


def test_missing_required_flags_are_all_named():
  text = refused("--steps", "3", required=("prompt", "names"))
  assert text == "error: --prompt and --names are required\n\nhint: script.py --help shows an example"


@pytest.mark.parametrize(
  ("text", "message", "line"),
  [
    ("stepps: 3\n", "error: unknown flag --stepps", ""),
    ("steps: many\n", "error: argument --steps: expected a whole number of at least 1, got 'many'", ""),
    ("names: []\n", "error: argument --names: expected at least one argument", ""),
    ("- steps\n", "error: a recipe is a mapping of flags to values", ""),
    ("", "error: a recipe is a mapping of flags to values", ""),
    ("steps: 3\nsteps: 4\n", "error: `steps` is given twice", ""),
    ("config: other.yaml\n", "error: a recipe cannot name another by `config`", ""),
    ("names: [a, ~]\n", "error: `names` is a list with a list or nothing in it", ""),
    ("steps: 3\nnames: [a, b\n", "error: the recipe is not valid YAML", ":3"),
  ],
)
def test_a_refused_recipe_is_named(recipe, text, message, line):
  file = recipe(text)
  said = refused("--config", file)
  assert said.splitlines()[:2] == [message, f"  --> {file}{line}"]
  if "stepps" in text:
    assert said.endswith("hint: did you mean --steps?")


def test_trainer_fields_get_the_types_of_the_trainer_and_only_the_given_ones():
  from trl import RewardConfig

  words = ["--weight_decay", "0.1", "--logging_steps=5", "--report_to", "none"]
  parsed = cli.trainer_fields(lambda: RewardConfig, words, "train.py")
  assert parsed == {"weight_decay": 0.1, "logging_steps": 5.0, "report_to": "none"}
  for words, message in [
    (["--weight_decay", "abc"], "argument --weight_decay/--weight-decay: invalid float value: 'abc'"),
    (["--weight_decay", "0.1", "stray"], "unrecognized arguments: stray"),
  ]:
    with pytest.raises(UsageError) as caught:
      cli.trainer_fields(lambda: RewardConfig, words, "train.py")
    assert caught.value.message == message


def test_a_misspelt_trainer_field_is_refused_before_data_is_read():
  words = ("train.py", "--model_name_or_path", "m", "--dataset_name", "d", "--weigth_decay", "0.1")
  done = run_script(*words)
  assert (done.returncode, done.stdout) == (2, "")
  assert done.stderr == "error: unknown flag --weigth_decay\n\nhint: did you mean --weight_decay?\n"


def test_flags_come_from_the_fields_of_the_dataclass_and_its_bases():
  args = parse("--steps", "3", "--prompt", "x")
  assert cli.settings(Settings, args) == Settings(steps=3, prompt="x")
  more = cli.Parser("A script.", "script.py", MoreSettings)
  assert cli.settings(MoreSettings, more.parse(["--extra", "4"])) == MoreSettings(extra=4, steps=9)
  help = " ".join(more.format_help().split())
  assert "flags: --learning_rate X" in help and "--steps N more of them (9)" in help
  assert "more: --extra N one more (2)" in help and "unsaid" not in help
  assert "--overwrite [BOOL] replace it" in help


@pytest.mark.parametrize("script", ["check_data.py", "train.py", "score.py", "evaluate.py"])
def test_help_goes_to_stdout_and_lists_every_flag(script):
  done = subprocess.run([sys.executable, SCRIPTS / script, "--help"], capture_output=True, text=True)
  assert (done.returncode, done.stderr) == (0, "")
  known = importlib.import_module(script.removesuffix(".py")).parser()._option_string_actions
  listed = {word.strip(",[]") for word in done.stdout.split()}
  assert set(known) | {"--config"} <= listed


@pytest.mark.parametrize(
  ("script", "argv", "required"),
  [
    ("train.py", [], "--model_name_or_path and --dataset_name and --output_dir are required"),
    ("train.py", ["--model_name_or_path", "m", "--dataset_name", "d"], "--output_dir is required"),
    ("score.py", [], "--model_name_or_path is required"),
    ("score.py", ["--model_name_or_path", "m"], "give either --input, or --prompt with --completions"),
    ("score.py", ["--model_name_or_path", "m", "--prompt", "p"], "--prompt and --completions belong together"),
    ("evaluate.py", ["--model_name_or_path", "m"], "--dataset_name is required"),
    ("check_data.py", [], "no dataset was named"),
  ],
)
def test_what_is_required(script, argv, required):
  done = run_script(script, *argv, cold=True)
  assert (done.returncode, done.stdout) == (2, "")
  assert done.stderr.splitlines()[0] == f"error: {required}"


@pytest.mark.parametrize(
  "words", ["--weight_decay nan", "--adam_beta1=-inf", "--logging_steps inf", "--warmup_steps=nan"]
)
def test_numbers_of_the_trainer_are_finite(words):
  from trl import RewardConfig

  flag, value = words.replace("=", " ").split()
  with pytest.raises(UsageError, match=f"argument {flag}: expected a finite number, got '{value}'"):
    cli.trainer_fields(lambda: RewardConfig, words.split(), "train.py")


@pytest.mark.parametrize("flag", ["--config", "--names"])
def test_a_second_list_or_recipe_does_not_drop_the_first(flag):
  assert f"{flag} is given twice" in refused(flag, "a", "b", f"{flag}=c")
  assert parse("--steps", "1", "--steps=2").steps == 2
