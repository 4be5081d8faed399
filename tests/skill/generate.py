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
    """The table of formats, from FORMATS."""
    from reward_modeling.data.formats import FORMATS

    lines = ["| format | columns | what it is |", "|---|---|---|"]
    for entry in FORMATS.values():
        columns = ", ".join(f"`{name}`".replace("|", "` or `") for name in entry.needs)
        lines.append(f"| `{entry.name}` | {columns} | {entry.description.replace('|', ' or ')} |")
    return "\n".join(lines)


def checks() -> str:
    """The table of audit checks, from CHECKS."""
    from reward_modeling.data.audit import CHECKS

    return table_of(CHECKS)


def step_checks() -> str:
    """The table of the checks of labelled steps, from STEP_CHECKS."""
    from reward_modeling.data.audit import STEP_CHECKS

    return table_of(STEP_CHECKS)


def unlabeled_checks() -> str:
    """The table of the checks of rows without labels, from UNLABELED_CHECKS."""
    from reward_modeling.data.audit import UNLABELED_CHECKS

    return table_of(UNLABELED_CHECKS)


def table_of(checks: dict) -> str:
    lines = ["| check | severity | why it matters | what to do |", "|---|---|---|---|"]
    for check in checks.values():
        severity = f"{check.severity}, by share" if check.grade else check.severity
        lines.append(f"| `{check.name}` | {severity} | {check.why} | {check.advice} |")
    return "\n".join(lines)


def benchmarks() -> str:
    """The table of benchmarks, from BENCHMARKS."""
    from reward_modeling.evaluation.benchmarks import BENCHMARKS, Values

    lines = ["| name | rows | from the hub | numbers, the official one first |", "|---|---|---|---|"]
    for name, entry in BENCHMARKS.items():
        rows = f"{sum(part.rows for part in entry.parts if not part.optional):,}"
        hub = f"`{entry.parts[0].hub}`" if entry.parts[0].hub else "no: files only"
        lines.append(f"| `{name}` | {rows} | {hub} | {', '.join(f'`{one}`' for one in entry.numbers(Values()))} |")
    return "\n".join(lines)


def first_line(path: Path) -> str:
    """Of a file's docstring."""
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "marks the package"
    return doc.splitlines()[0].rstrip(".").replace("|", " or ")


def files() -> str:
    """The names of all scripts and of the package's modules, in one line: some loaders copy only what is named."""
    paths = sorted((SKILL / "scripts").rglob("*.py"), key=lambda path: (path.parent != SKILL / "scripts", path))
    return ", ".join(f"`{path.relative_to(SKILL).as_posix()}`" for path in paths) + "."


def modules() -> str:
    """Every module of the package with the first line of its docstring."""
    package = SKILL / "scripts" / "reward_modeling"
    lines = ["| module | what it does |", "|---|---|"]
    for path in sorted(package.rglob("*.py"), key=lambda path: (path.parent != package, path)):
        lines.append(f"| `{path.relative_to(package).as_posix()}` | {first_line(path)} |")
    return "\n".join(lines)


BLOCKS = {
    "formats": formats,
    "checks": checks,
    "step_checks": step_checks,
    "unlabeled_checks": unlabeled_checks,
    "benchmarks": benchmarks,
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
