"""Arrows point down: no module of the package imports itself in a circle, and data/ imports nothing above it."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1] / "skills/mlops/training/reward-modeling/scripts"
MODULES = {
    ".".join(path.relative_to(SCRIPTS).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (SCRIPTS / "reward_modeling").rglob("*.py")
}


SAID = {f"reward_modeling.{name}" for name in ("console", "errors", "outputs", "results", "terminal")}
"""What every module may use."""


def imported(name: str) -> set[str]:
    """The modules of the package that a module imports, anywhere in it but under TYPE_CHECKING. A lazy `__getattr__` of a
    package imports nothing by itself.
    """
    path, found = MODULES[name], set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "__getattr__"]
    hidden += [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    skipped = {id(inner) for node in hidden for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or id(node) in skipped:
            continue
        parts = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
        base = ".".join([*parts, *([node.module] if node.module else [])])
        inside = {f"{base}.{alias.name}" for alias in node.names} & MODULES.keys()
        found |= inside or ({base} & MODULES.keys())
    return found - {name}


IMPORTS = {name: imported(name) for name in MODULES}


def test_no_module_imports_itself_in_a_circle():
    tuple(TopologicalSorter(IMPORTS).static_order())  # raises CycleError, which names the circle


def test_data_imports_only_data_and_the_console():
    wrong = {
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in others
        if name.startswith("reward_modeling.data.")
        and not other.startswith("reward_modeling.data.")
        and other not in SAID
    }
    assert not wrong
    assert "reward_modeling.data.formats" in IMPORTS["reward_modeling.data.reading"], "the imports were found"
