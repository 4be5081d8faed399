"""The words of documents and messages: the glossary in CONTRIBUTING.md, and the walk-through there."""

from __future__ import annotations

import ast
import re
from importlib import import_module

import pytest

from conftest import REPOSITORY

SKILL = REPOSITORY / "skills/mlops/training/reward-modeling"
DOCUMENTS = [
  REPOSITORY / "README.md",
  REPOSITORY / "SKILL.md",
  SKILL / "SKILL.md",
  *sorted((SKILL / "references").glob("*.md")),
]
MODULES = sorted((SKILL / "scripts").rglob("*.py"))

AVOIDED = {
  "prefix or start": r"\b(shared|same|common) beginnings?\b|\bbeginnings\b",
  "whitespace or empty": r"\bblanks\b|\bis blank\b",
  "evaluate": r"\b(to|not|is|are|be) judged\b|\bjudging\b|\bunjudged\b|\bjudge (a|the|it|how|reward|process) \b",
  "NaN or infinite": r"\bno number\b|\bno finite number\b",
  "is not a": r"(?<!there )\bis no (file|folder|model|valid|whole|JSON|list|text|object|row|reward)\b",
  "after": r"\bbehind (it|them|the|each|a)\b",
  "fix": r"\bmend(s|ed|ing)?\b",
  "interval": r"\berror bars?\b",
  "American spelling": (
    r"\b\w*(labell(ed|ing)|ptimis(e|ed|es|er|ing|ation)|ecognis(e|ed|es|ing)|okenis(e|ed|es|er|ing|ation)|ormalis(ed|es|ing|ation)"
    r"|ehaviour|avour|olour|isspelt|aximis(e|ed|es|ing)|inimis(e|ed|es|ing)|uantis(e|ed|ation)|nitialis(e|ed|ation)"
    r"|ummaris(e|ed|es|ing))\b"
  ),
}
"""What a reader is told -> how it is not said. Not "judge" as such: an LLM judge is one."""


def sentences(path) -> list[tuple[int, str]]:
  """The lines of a document without its code; of a module its docstrings, comments and texts with a space in them."""
  text = path.read_text(encoding="utf-8")
  if path.suffix == ".md":
    text = re.sub(r"^```.*?^```", lambda block: "\n" * block[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL)
    return [(number, re.sub(r"`[^`]*`", "", line)) for number, line in enumerate(text.splitlines(), 1)]
  said = [
    (node.lineno, node.value)
    for node in ast.walk(ast.parse(text))
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip()
  ]
  return said + [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip().startswith("#")]


@pytest.mark.parametrize("word", AVOIDED)
def test_documents_and_messages_say_it_in_the_words_of_the_glossary(word):
  found = [
    f"{path.relative_to(REPOSITORY)}:{number}: {match[0]}"
    for path in (*DOCUMENTS, *MODULES)
    for number, text in sentences(path)
    for match in re.finditer(AVOIDED[word], text)
  ]
  assert not found, f"say {word}:\n" + "\n".join(found)


def names(path) -> set[str]:
  """The names of a module, and its texts of one word: keys of results, flags. Not those that old command lines have."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    given = [getattr(node, field, None) for field in ("id", "attr", "arg", "name", "value")]
    found |= {one for one in given if isinstance(one, str) and " " not in one}
  return found if path.name != "old_flags.py" else set()


def test_names_and_keys_are_spelled_as_americans_do():
  british = AVOIDED["American spelling"].replace(r"\b", "").replace("ormalis(ed|", "ormalis(e|ed|")
  found = [f"{path.name}: {name}" for path in MODULES for name in names(path) if re.search(british, name)]
  assert not found
  assert re.search(british, "steps_unlabelled") and re.search(british, "normalise")


def test_the_words_that_are_avoided_are_found():
  for word, text in {
        "evaluate": "how a model is judged", "fix": "mend the column", "after": "stands behind the label",
        "American spelling": "a labelled pair", "NaN or infinite": "a loss that is no number",
    }.items():  # fmt: skip
    assert re.search(AVOIDED[word], text)


def test_the_walk_through_names_functions_that_exist():
  text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
  section = re.search(r"^## One row.*?(?=^## )", text, re.MULTILINE | re.DOTALL)[0]
  names = [name for name in re.findall(r"`([a-z_]+(?:\.\w+)+)`", section) if not name.endswith((".py", ".json"))]
  assert len(names) > 12
  for name in names:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
      try:
        found = import_module(".".join(["reward_modeling", *parts[:length]]))
      except ModuleNotFoundError:
        continue
      for part in parts[length:]:
        found = getattr(found, part)
      break
    else:
      pytest.fail(f"CONTRIBUTING.md names {name}")
