"""Grade what an agent left in a folder against the assertions of a task in evals/evals.json.

    uv run python tests/skill/grade.py --list
    uv run python tests/skill/grade.py --task convert-transcripts --prepare work      writes the task's files, says what to ask
    uv run python tests/skill/grade.py --task convert-transcripts --output work       one JSON object; exits 1 if anything fails

A task is {id, name, prompt, expected_output, files, inputs, setup, assertions}. `inputs` holds its files: text as it is,
a list as JSON Lines. `setup` is a command to run in the skill's folder, {folder} standing for the place of the task.
An assertion is {text, file} or {text, absent} and any of the words in ASSERTIONS, all of which must hold.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

EVALS = Path(__file__).parents[2] / "evals" / "evals.json"


def rows_of(text: str) -> list[dict[str, Any]]:
  return [json.loads(line) for line in text.splitlines() if line.strip()]


def value_at(document: Any, path: str) -> Any:
  """`curve.0.n` -> document["curve"][0]["n"]. Raises KeyError or IndexError when there is nothing."""
  for name in path.split("."):
    document = document[int(name)] if isinstance(document, list) else document[name]
  return document


def number_at(text: str, path: str) -> float:
  return value_at(json.loads(text), path)


def falls(numbers: list[float | None]) -> bool:
  known = [number for number in numbers if number is not None]
  return all(first >= second for first, second in pairwise(known))


# word -> whether the text of the file passes, given the word's value and the whole assertion.
ASSERTIONS: dict[str, Callable[[str, Any, dict[str, Any]], bool]] = {
  "rows": lambda text, n, _: len(rows_of(text)) == n,
  "lines": lambda text, n, _: len(text.splitlines()) == n,
  "columns": lambda text, names, _: bool(rows_of(text)) and all(set(names) <= set(row) for row in rows_of(text)),
  "descending": lambda text, name, _: all(falls(row[name]) for row in rows_of(text)),
  "length": lambda text, of, _: all(len(row[name]) == n for row in rows_of(text) for name, n in of.items()),
  "contains": lambda text, words, _: all(word.lower() in text.lower() for word in words),
  "contains_any": lambda text, words, _: any(word.lower() in text.lower() for word in words),
  "lacks": lambda text, words, _: not any(word.lower() in text.lower() for word in words),
  "at": lambda text, path, _: value_at(json.loads(text), path) is not None,
  "equals": lambda text, value, of: value_at(json.loads(text), of["at"]) == value,
  "at_least": lambda text, least, of: number_at(text, of["at"]) >= least,
  "at_most": lambda text, most, of: number_at(text, of["at"]) <= most,
  "total": lambda text, n, of: sum(value_at(json.loads(text), of["at"]).values()) == n,
}
NOT_CHECKS = {"text", "file", "absent", "row"}


def tasks() -> list[dict[str, Any]]:
  return json.loads(EVALS.read_text(encoding="utf-8"))["evals"]


def task_called(name: str) -> dict[str, Any]:
  """The task of this name or number. Raises KeyError when there is none."""
  for task in tasks():
    if name in (task["name"], str(task["id"])):
      return task
  raise KeyError(f"no task {name}; there are {', '.join(task['name'] for task in tasks())}")


def prepare(task: dict[str, Any], folder: Path) -> None:
  """Write the task's input files."""
  folder.mkdir(parents=True, exist_ok=True)
  for name, content in task["inputs"].items():
    text = content if isinstance(content, str) else "".join(f"{json.dumps(row)}\n" for row in content)
    (folder / name).write_text(text, encoding="utf-8", newline="\n")


def holds(assertion: dict[str, Any], folder: Path) -> str | None:
  """None if the assertion holds in this folder, else why not. Raises KeyError for a word that ASSERTIONS lacks."""
  checks = {word: ASSERTIONS[word] for word in assertion if word not in NOT_CHECKS}
  if "absent" in assertion:
    return f"{assertion['absent']} is there" if (folder / assertion["absent"]).exists() else None
  file = folder / assertion["file"]
  if not file.is_file():
    return f"there is no {assertion['file']}"
  try:
    text = file.read_text(encoding="utf-8")
    if "row" in assertion:
      text = text.splitlines()[assertion["row"] - 1]
    failed = [word for word, check in checks.items() if not check(text, assertion[word], assertion)]
  except (ValueError, LookupError, TypeError, AttributeError) as error:
    return f"{assertion['file']}: {type(error).__name__}: {error}"
  return f"{assertion['file']}: not so: " + ", ".join(f"{w} {assertion[w]!r}" for w in failed) if failed else None


def grade(task: dict[str, Any], folder: Path) -> dict[str, Any]:
  """{task, passed, total, assertions: [{text, passed, why}]}."""
  results = []
  for assertion in task["assertions"]:
    why = holds(assertion, folder)
    results.append({"text": assertion["text"], "passed": why is None, "why": why})
  passed = sum(result["passed"] for result in results)
  return {"task": task["name"], "passed": passed, "total": len(results), "assertions": results}


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--list", action="store_true", help="the names of all tasks")
  parser.add_argument("--task", help="name or number of a task")
  parser.add_argument("--prepare", type=Path, metavar="FOLDER", help="write the task's files here")
  parser.add_argument("--output", type=Path, metavar="FOLDER", help="grade what lies here")
  args = parser.parse_args()
  if args.list or not args.task or not (args.prepare or args.output):
    print("\n".join(f"{task['id']:2} {task['name']}" for task in tasks()))
    return 0 if args.list else 2
  try:
    task = task_called(args.task)
  except KeyError as error:
    print(error.args[0], file=sys.stderr)
    return 2
  if args.prepare:
    prepare(task, args.prepare)
    setup = task.get("setup", "").replace("{folder}", str(args.prepare.resolve()))
    print(json.dumps({"task": task["name"], "prompt": task["prompt"], "run_first": setup or None}, indent=2))
    return 0
  result = grade(task, args.output)
  print(json.dumps(result, indent=2))
  return 0 if result["passed"] == result["total"] else 1


if __name__ == "__main__":
  raise SystemExit(main())
