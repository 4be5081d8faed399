"""Write the generated parts of the documents: `uv run python tests/skill/generate.py`. A test fails when they differ.

A part stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`; BLOCKS says what makes it.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SKILL = REPOSITORY / "skills/mlops/training/reward-modeling"
sys.path.insert(0, str(SKILL / "scripts"))


def formats() -> str:
  """Formats by their columns, from FORMATS, and the names of those that one data set alone has."""
  from reward_modeling.data.formats import DATASETS, FORMATS, PUBLISHED_STEPS, RANKED

  own = DATASETS | RANKED | PUBLISHED_STEPS
  named: dict[str, list[str]] = {}
  for entry in (entry for name, entry in FORMATS.items() if name not in own):
    named.setdefault(", ".join(map(one_of, entry.needs)), []).append(f"`{entry.name}`")
  lines = ["| columns | formats |", "|---|---|", *(f"| {key} | {', '.join(names)} |" for key, names in named.items())]
  known = "Known by their columns, and read with the meaning that their cards give to numbers: "
  return "\n".join([*lines, "", known + ", ".join(f"`{name}`" for name in own) + "."])


def one_of(names: str) -> str:
  """`a` or `b`; of many the first."""
  first, *others = names.split("|")
  return f"`{first}` and the like" if len(others) > 2 else f"`{names}`".replace("|", "` or `")


def checks() -> str:
  """The audit's checks by severity and what they are about; `--list_checks` says why they matter and what to do."""
  from reward_modeling.data.audit import CHECKS, RATED_CHECKS, STEP_CHECKS, UNLABELED_CHECKS
  from reward_modeling.data.audit.checks import RENDERED_CHECKS

  tables = {
    "pairs": CHECKS,
    "ratings": RATED_CHECKS,
    "steps": STEP_CHECKS,
    "unlabeled": UNLABELED_CHECKS,
    "rendered": RENDERED_CHECKS,
  }
  lines = ["| of | errors | warnings | info |", "|---|---|---|---|"]
  for about, table in tables.items():
    by = {severity: [] for severity in ("error", "warning", "info")}
    for check in table.values():
      by[check.severity].append(f"`{check.name}`")
    lines.append(f"| {about} | {' | '.join(map(' '.join, by.values()))} |")
  return "\n".join(lines)


def objectives() -> str:
  """The table of objectives, from OBJECTIVES."""
  from reward_modeling.training.objectives import OBJECTIVES

  lines = ["| objective | of | loss | source |", "|---|---|---|---|"]
  return "\n".join(
    [*lines, *(f"| `{name}` | {one.takes} | {one.formula} | {one.source} |" for name, one in OBJECTIVES.items())]
  )


def benchmarks() -> str:
  """The names of the benchmarks and their rows, from BENCHMARKS."""
  from reward_modeling.evaluation.benchmarks import BENCHMARKS

  found = []
  for name, entry in BENCHMARKS.items():
    files = "" if entry.parts[0].hub else ", files only"
    found.append(f"`{name}` ({sum(part.rows for part in entry.parts if not part.optional):,}{files})")
  return f"Their rows: {', '.join(found)}."


def probes() -> str:
  """The probes by what the reward must do, from PROBES."""
  from reward_modeling.evaluation.probes import PROBES

  by = {
    must: [f"`{name}` ({one.what})" for name, one in PROBES.items() if one.must == must]
    for must in ("not rise", "fall")
  }
  return "\n".join(f"- It must {must}: {', '.join(found)}." for must, found in by.items())


def first_line(path: Path) -> str:
  """Of a file's docstring."""
  doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "marks the package"
  return doc.splitlines()[0].rstrip(".").replace("|", " or ")


OPTIONAL = (
  *("implicit.py", "pairwise.py", "reward_functions.py", "training/function_rewards.py"),
  *("quickstart.py", "sandbox.py", "sandbox_models.py", "serving/", "rollouts.py", "checkers.py", "remote.py"),
  *("server_check.py", "evaluation/benchmark", "evaluation/report", "evaluation/plots", "data/suggestions.py"),
  *("evaluation/overoptimization.py", "training/memory.py", "training/implicit.py", "training/folds.py"),
  *("training/run_report.py",),
)
"""Modules that SKILL.md does not name. A loader that copies only what is named refuses more than 1 MiB; these are what it
leaves out, and what nothing else needs."""


def is_optional(path: Path) -> bool:
  name = path.relative_to(SKILL / "scripts").as_posix() if path.is_relative_to(SKILL / "scripts") else path.as_posix()
  return name.removeprefix("reward_modeling/").startswith(OPTIONAL)


def files() -> str:
  """The names of the scripts and of the package's modules, in one block: some loaders copy only what is named."""
  paths = [path for path in (SKILL / "scripts").rglob("*.py") if not is_optional(path)]
  paths.sort(key=lambda path: (path.parent != SKILL / "scripts", path))
  return "\n".join(["```text", " ".join(path.relative_to(SKILL).as_posix() for path in paths), "```"])


def modules() -> str:
  """Every module of the package with the first line of its docstring."""
  package = SKILL / "scripts" / "reward_modeling"
  lines = ["| module | what it does |", "|---|---|"]
  for path in sorted(package.rglob("*.py"), key=lambda path: (path.parent != package, path)):
    lines.append(f"| `{path.relative_to(package).as_posix()}` | {first_line(path)} |")
  return "\n".join(lines)


def keys(result: type, prefix: str = "") -> list[str]:
  """Rows of a table: the fields of a result that are described, its own before those of its bases."""
  from reward_modeling.results import descriptions

  described = sorted(descriptions(result).items(), key=lambda item: item[0] not in result.__annotations__)
  return [f"| `{prefix}{name}` | {text.replace('|', chr(92) + '|')} |" for name, text in described]


def key_table(*rows: list[str]) -> str:
  return "\n".join(["| key | meaning |", "|---|---|", *(row for part in rows for row in part)])


def pair_keys() -> str:
  from reward_modeling.evaluation.pair_measures import LengthSummary, PairSummary

  return key_table(keys(PairSummary), keys(LengthSummary, "length."))


def rating_keys() -> str:
  from reward_modeling.evaluation.ratings import AttributeSummary

  return key_table(keys(AttributeSummary))


def step_keys() -> str:
  from reward_modeling.evaluation.steps import StepMeasures

  return key_table(keys(StepMeasures))


BLOCKS = {
  "pair_keys": pair_keys,
  "rating_keys": rating_keys,
  "step_keys": step_keys,
  "formats": formats,
  "checks": checks,
  "benchmarks": benchmarks,
  "objectives": objectives,
  "probes": probes,
  "files": files,
  "modules": modules,
}


def documents() -> list[Path]:
  return [*REPOSITORY.glob("*.md"), *SKILL.rglob("*.md")]


def generated(text: str) -> str:
  """The document with its generated parts made anew."""

  def fill(match: re.Match[str]) -> str:
    return f"<!-- {match[1]}: begin -->\n{BLOCKS[match[1]]()}\n<!-- {match[1]}: end -->"

  return re.sub(r"<!-- (\w+): begin -->\n.*?<!-- \1: end -->", fill, text, flags=re.DOTALL)


if __name__ == "__main__":
  for document in documents():
    before = document.read_text(encoding="utf-8")
    after = generated(before)
    if after != before:
      document.write_text(after, encoding="utf-8")
      print(f"wrote {document.relative_to(REPOSITORY)}")
