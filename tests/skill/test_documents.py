"""The documents say what the code does, and survive the loaders that copy and scan them."""

import ast
import importlib.util
import pkgutil
import re
import sys
import tomllib

import pytest
import yaml

from conftest import REPOSITORY, SCRIPTS, processor_time, toy_pairs, write_jsonl

sys.path.insert(0, str(REPOSITORY / "tests" / "skill"))
from grade import EVALS

from blocks import SHELL, blocks_of, shell_text
from copies import tracked
from counts import FLAG, relative_links, tokens
from generate import SKILL, documents, generated

ENTRY_POINTS = sorted(path.name for path in SCRIPTS.glob("*.py"))
# Flags of other programs that the documents mention.
FOREIGN_FLAGS = {"help", "nproc_per_node", "cpu", "with", "revision", "local"}

REMOVED_CLASSES = {
  "AutoModelForCausalLMWithValueHead": "TRL before 0.12; the migration tables name it",
  "PPOTrainer": "TRL up to 1.12",
  "PPOConfig": "TRL up to 1.12",
  "PRMTrainer": "TRL up to 1.13",
  "PRMConfig": "TRL up to 1.13",
  "OnlineDPOTrainer": "TRL",
}
"""Names that the documents may mention because the libraries no longer have them."""

LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "huggingface_hub", "scipy")
CLASS = re.compile(r"`((?:Auto[A-Z]\w+)|(?:[A-Z]\w+(?:Trainer|Config)))\b")
DOTTED = re.compile(rf"`((?:{'|'.join(LIBRARIES)})(?:\.[A-Za-z_]\w*)+)")
MEASURED = re.compile(r"\d\.\d+ (?:\[|\()\d")
"""A number with its interval: somebody ran something."""
SOURCE = re.compile(r"benchmarks/\w+\.py|tests/[\w/]+\.py|scripts/\w+\.py|arXiv:\d|\]\(https?:")


def flags_of(parser) -> set[str]:
  return {option[2:] for action in parser._actions for option in action.option_strings if option.startswith("--")}


def parser_of(name: str):
  import importlib.util

  spec = importlib.util.spec_from_file_location(name.removesuffix(".py"), SCRIPTS / name)
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module  # where dataclasses look for the names in their annotations
  spec.loader.exec_module(module)
  return module.parser()


def known_flags() -> set[str]:
  known = set(FOREIGN_FLAGS)
  for name in ENTRY_POINTS:
    parser = parser_of(name)
    known |= flags_of(parser) | parser._trainer_fields
  for benchmark in (REPOSITORY / "benchmarks").glob("*.py"):
    known |= set(re.findall(r"add_argument\(\s*\"--(\w+)\"", benchmark.read_text(encoding="utf-8")))
  return known


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_generated_parts_are_current(document):
  text = document.read_text(encoding="utf-8")
  assert generated(text) == text, "run: uv run python tests/skill/generate.py"


def test_every_flag_in_the_documents_exists():
  known = known_flags()
  for document in documents():
    unknown = set(FLAG.findall(document.read_text(encoding="utf-8"))) - known
    assert not unknown, f"{document.name} names flags that no script has: {sorted(unknown)}"


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_flag_in_a_scripts_docstring_exists(name):
  doc = ast.get_docstring(ast.parse((SCRIPTS / name).read_text(encoding="utf-8")))
  assert set(FLAG.findall(doc)) <= known_flags()


NAMES = "|".join(name.removesuffix(".py") for name in ENTRY_POINTS)
IN_FULL = re.compile(
  rf"(?:scripts/)?(?:{NAMES})\.py (?:.*(?:\.jsonl|\bFILE\b|\.yaml)|--(?:help|json_schema|list_\w+)$)"
)
"""A span of a document that is a whole command, not a script with the flag that is spoken of."""


def commands_of(path) -> list[str]:
  """The lines of shell blocks and the spans that call a script; of a script or recipe, the indented lines of its head."""
  text = path.read_text(encoding="utf-8")
  if path.suffix == ".md":
    lines = [line for block in blocks_of(path) if block.language in SHELL for line in shell_text(block).splitlines()]
    spans = re.findall(r"`([^`\n]+)`", text)
    return [line for line in lines if re.search(r"scripts/\w+\.py|torchrun", line)] + [
      span for span in spans if IN_FULL.match(span) or re.match(r"python\S* |torchrun .*\.py", span)
    ]
  if path.suffix == ".json":
    return re.findall(r'"setup": "([^"]*)"', text)
  head = ast.get_docstring(ast.parse(text)) if path.suffix == ".py" else text
  return re.findall(rf"^(?:    |# )(.*\b(?:{NAMES})\.py --?\w.*)$", head, re.MULTILINE)


@pytest.mark.parametrize(
  "path",
  [*documents(), *SCRIPTS.glob("*.py"), *SKILL.rglob("*.yaml"), EVALS],
  ids=lambda path: path.name,
)
def test_every_documented_command_begins_with_uv_run(path):
  """Whoever has uv has the packages: `python scripts/train.py` works only where somebody installed them."""
  for command in commands_of(path):
    start = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", command.strip())
    assert start.startswith(("uv run ", "pip install uv && uv run ")), f"{path.name}: {command}"


def test_commands_are_found_where_they_stand(tmp_path):
  file = tmp_path / "a.md"
  file.write_text(
    "```bash\npython scripts/x.py\nls\n```\n`score.py --rank`, `train.py --config a.yaml`, `python -m x`\n"
  )
  assert commands_of(file) == ["python scripts/x.py", "train.py --config a.yaml", "python -m x"]
  assert len(commands_of(SCRIPTS / "score.py")) == 6 and len(commands_of(SKILL / "assets/recipes/qwen.yaml")) == 1


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_relative_link_and_its_anchor_resolves(document):
  for target in relative_links(document):
    path, _, anchor = target.partition("#")
    file = (document.parent / path).resolve() if path else document
    assert file.exists(), f"{document.name} links to {target}"
    assert not anchor or anchor in anchors(file), f"{document.name} links to {target}"


def anchors(document) -> set[str]:
  headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
  return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_skill_documents_link_to_nothing_outside_the_skill():
  """Whoever installed the skill has nothing else."""
  for document in SKILL.rglob("*.md"):
    for target in relative_links(document):
      place = (document.parent / target.partition("#")[0]).resolve()
      assert place.is_relative_to(SKILL), f"{document.name} links to {target}"


def test_every_class_of_a_library_that_the_documents_name_exists():
  import transformers
  import trl

  there = {*dir(trl), *dir(transformers)}  # without importing what they list
  named = {name for document in documents() for name in CLASS.findall(document.read_text(encoding="utf-8"))}
  assert named - there - set(REMOVED_CLASSES) == set()
  assert there & set(REMOVED_CLASSES) == set(), "they are back: take them off the list, and mend the documents"


def test_every_dotted_name_of_a_library_exists():
  for document in documents():
    for name in DOTTED.findall(document.read_text(encoding="utf-8")):
      assert exists(name), f"{document.name} names {name}"


def exists(name: str) -> bool:
  parent, _, last = name.rpartition(".")
  try:
    # Lazily listed names count without their import.
    return last in dir(importlib.import_module(parent)) or importlib.util.find_spec(name) is not None
  except ImportError:
    return exists(parent) and hasattr(pkgutil.resolve_name(parent), last)


def package_names() -> dict[str, set[str]]:
  """{module of the package: the functions, classes and constants in it}."""
  found: dict[str, set[str]] = {}
  for path in (SCRIPTS / "reward_modeling").rglob("*.py"):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    found.setdefault(path.stem, set()).update(names)
  return found


def misnamed(text: str, files: set[str], names: dict[str, set[str]]) -> list[str]:
  """The Python files, and the names of the package in backticks as `module.name`, that are not there (any more)."""
  paths = re.findall(r"(?<![\w/.-])((?:[a-z_]\w*/)*[a-z_]\w*\.py)\b", text)
  wrong = [path for path in paths if not any(f"/{file}".endswith(f"/{path}") for file in files)]
  homes = {name: {module for module, own in names.items() if name in own} for own in names.values() for name in own}
  for module, name in re.findall(r"`(?:\w+\.)*?([a-z_]\w*)\.([A-Za-z_]\w+)(?:\.\w+)?[`(]", text):
    public_class = name[0].isupper() and homes.get(name)
    gone = module in names and name not in names[module] and name not in names and name != "py"
    if (public_class and module not in homes[name]) or (gone and module in ("arguments", "console", "checkpoints")):
      wrong.append(f"{module}.{name}")
  return wrong


FOREIGN_FILES = {"openrlhf/cli/train_rm.py", "modeling_x.py", "x.py", "rank.py", "script.py", "scripts/run_rm.py"}
"""Files of other projects, or of an example."""


def test_every_module_that_a_document_a_docstring_or_a_comment_names_is_there():
  files = {path.relative_to(REPOSITORY).as_posix() for path in tracked(REPOSITORY)} | FOREIGN_FILES
  names = package_names()
  for path in [*documents(), *map(REPOSITORY.joinpath, sorted(files - FOREIGN_FILES))]:
    if path.suffix == ".py":
      tree = ast.parse(path.read_text(encoding="utf-8"))
      kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
      docs = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
      text = "\n".join(docs + re.findall(r"# (.*)", path.read_text(encoding="utf-8")))
    elif path.suffix == ".md" and path.name != "CHANGELOG.md":  # which tells what was there
      text = path.read_text(encoding="utf-8")
    else:
      continue
    assert misnamed(text, files, names) == [], path.name


def test_a_name_that_is_gone_is_found():
  files, names = {"skills/a/console.py", "tests/test_a.py"}, {"console": {"UserError", "log"}, "scoring": {"Rewards"}}
  gone = "`schemas.py`, `tests/test_b.py`, `console.shout`, `rewards.Rewards` and `scoring.Rewards.__call__`"
  assert misnamed(gone, files, names) == ["schemas.py", "tests/test_b.py", "console.shout", "rewards.Rewards"]
  assert misnamed("`console.log(x)`, `a/console.py`, `console.UserError`", files, names) == []


def tables(document) -> list[tuple[int, int]]:
  """First and last line of each Markdown table, counted from 0."""
  lines = document.read_text(encoding="utf-8").splitlines()
  rows = [number for number, line in enumerate(lines) if line.startswith("|")]
  starts = [number for number in rows if number - 1 not in rows]
  ends = [number for number in rows if number + 1 not in rows]
  return list(zip(starts, ends, strict=True))


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_table_of_measured_numbers_names_its_source(document):
  """The command that makes it, the test that holds it, or a publication: in the table or within eight lines of it."""
  lines = document.read_text(encoding="utf-8").splitlines()
  for first, last in tables(document):
    if MEASURED.search("\n".join(lines[first : last + 1])):
      around = "\n".join(lines[max(0, first - 8) : last + 9])
      assert SOURCE.search(around), f"{document.name}:{first + 1}: where do these numbers come from?"


ONLY_IN = {
  "httpx2": {"score.py"},
  "matplotlib": {"train.py", "train_process.py", "evaluate.py", "ppo.py", "grpo.py", "quickstart.py"},
  **{package: {"serve.py"} for package in ("fastapi", "uvicorn", "prometheus-client")},
}
"""Packages that some scripts alone need."""


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_script_declares_the_projects_dependencies(name):
  block = re.match(r"# /// script\n((?:# ?.*\n)*?)# ///\n", (SCRIPTS / name).read_text(encoding="utf-8"))
  assert block, f"{name} has no PEP 723 header"
  declared = tomllib.loads(
    "".join(line.removeprefix("# ").removeprefix("#") for line in block[1].splitlines(keepends=True))
  )
  project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
  unused = {package for package, scripts in ONLY_IN.items() if name not in scripts}
  assert declared["dependencies"] == [
    one for one in project["dependencies"] if re.match(r"[\w-]+", one)[0] not in unused
  ]
  assert declared["requires-python"] == project["requires-python"]


def test_pins_lie_within_the_bounds():
  from packaging.requirements import Requirement

  project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
  pins = {
    req.name: next(iter(req.specifier)).version
    for req in map(Requirement, project["tool"]["uv"]["constraint-dependencies"])
  }
  for requirement in map(Requirement, project["project"]["dependencies"]):
    assert pins[requirement.name] in requirement.specifier


def test_no_document_is_too_long_to_read():
  document = (SKILL / "SKILL.md").read_text(encoding="utf-8")
  read = re.sub(r"<!-- files: begin -->.*<!-- files: end -->", "", document, flags=re.DOTALL)
  assert len(document.splitlines()) < 120
  # The specification allows 5,000 tokens; the list of files is for loaders, and a reader skips it.
  assert (tokens(read) or 0) < 2750 and (tokens(document) or 0) < 5000
  for reference in (SKILL / "references").glob("*.md"):
    text = reference.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 300, reference.name
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    listed = re.findall(r"^- \[(.+?)\]\(#", text, re.MULTILINE)
    assert headings == listed, f"the list of contents of {reference.name} is not its headings"


def test_top_level_scripts_is_a_link_to_the_skills_scripts():
  assert (REPOSITORY / "scripts").resolve() == (SKILL / "scripts").resolve()


@pytest.mark.parametrize("recipe", sorted((SKILL / "assets" / "recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_every_key_of_a_recipe_is_a_flag(recipe):
  args = parser_of("train.py").parse(["--config", str(recipe), "--dataset_name", "x", "--output_dir", "y"])
  keys = yaml.safe_load(recipe.read_text(encoding="utf-8"))
  assert args.model_name_or_path == keys["model_name_or_path"] and args.learning_rate == keys["learning_rate"]
  assert "--save_steps" in args.trainer_arguments


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_help_answers_at_once(name):
  assert processor_time(name, "--help") < 0.5


def test_ten_thousand_rows_are_checked_in_a_few_seconds(tmp_path):
  """About 3 beside other work; the limit is for what grows faster than the rows."""
  rows = write_jsonl(tmp_path / "pairs.jsonl", toy_pairs(10_000))
  assert processor_time("check_data.py", rows, "--output", tmp_path / "o.jsonl", "--overwrite") < 5
