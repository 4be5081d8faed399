"""Arrows point down: no module of the package imports itself in a circle, and data/ imports nothing above it."""

import ast
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1] / "skills/mlops/training/reward-modeling/scripts"
MODULES = {
  ".".join(path.relative_to(SCRIPTS).with_suffix("").parts).removesuffix(".__init__"): path
  for path in (SCRIPTS / "reward_modeling").rglob("*.py")
}


SAID = {f"reward_modeling.{name}" for name in ("errors", "hub", "outputs", "results", "terminal")}
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
    if name.startswith("reward_modeling.data.") and not other.startswith("reward_modeling.data.") and other not in SAID
  }
  assert not wrong
  assert "reward_modeling.data.formats" in IMPORTS["reward_modeling.data.reading"], "the imports were found"


def top_level_names(tree: ast.Module) -> set[str]:
  names = set()
  for node in tree.body:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
      names.add(node.name)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
      targets = node.targets if isinstance(node, ast.Assign) else [node.target]
      names |= {target.id for target in targets if isinstance(target, ast.Name)}
  return names


def test_few_names_stand_for_two_things():
  """Not counted: names that a module keeps for itself (_rows)."""
  where = Counter(name for path in MODULES.values() for name in top_level_names(ast.parse(path.read_text("utf-8"))))
  several = sorted(name for name, count in where.items() if count > 1 and not name.startswith("_"))
  assert len(several) < 5, several


def functions() -> list[tuple[str, ast.FunctionDef]]:
  return [
    (f"{path.relative_to(SCRIPTS).as_posix()}: {node.name}", node)
    for path in sorted(SCRIPTS.rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text("utf-8")))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
  ]


BLOCKS = ast.If | ast.For | ast.While | ast.With | ast.Try


def depth(node: ast.AST) -> int:
  """How many blocks stand inside each other, those of a function inside not counted; `elif` is one inside the `if`."""
  inside = [
    0 if isinstance(one, ast.FunctionDef | ast.ClassDef | ast.Lambda) else depth(one) + isinstance(one, BLOCKS)
    for one in ast.iter_child_nodes(node)
  ]
  return max(inside, default=0)


def test_a_function_fits_on_a_screen_and_is_three_blocks_deep_at_most():
  assert not [name for name, node in functions() if node.end_lineno - node.lineno >= 60]
  assert not [name for name, node in functions() if depth(node) > 3]
  assert depth(ast.parse("if a:\n  for b in c:\n    with d:\n      pass")) == 3


def test_few_parameters_are_of_any_type():
  """None of those that read data: a row is `results.Row`, whose values are looked at before they are used."""
  found = [
    f"{name}({one.arg})"
    for name, node in functions()
    for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg)
    if one is not None
    and one.annotation
    and "Any" in {n.id for n in ast.walk(one.annotation) if isinstance(n, ast.Name)}
  ]
  assert len(found) < 40, found
  assert not [
    name
    for name in found
    if name.startswith(("reward_modeling/data", "reward_modeling/cli", "reward_modeling/results"))
  ]


def test_only_cli_knows_the_parser():
  """No other module imports argparse, and no function but a script's main has a namespace in hand."""
  for path in SCRIPTS.rglob("*.py"):
    text = path.read_text("utf-8")
    assert path.name == "cli.py" or "argparse" not in text, path
    for node in ast.walk(ast.parse(text)):
      if isinstance(node, ast.FunctionDef) and node.name != "main":
        arguments = {one.arg: one.annotation for one in (*node.args.args, *node.args.kwonlyargs)}
        assert "args" not in arguments or arguments["args"] is not None, f"{path}: {node.name}"
