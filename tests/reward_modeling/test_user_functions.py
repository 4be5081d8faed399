import re

import pytest

from reward_modeling.errors import UsageError
from reward_modeling.user_functions import load_function

SOURCE = """
import beside
LIMIT = 3
made = []
made.append(beside.NUMBER)

def is_right(text, row):
    return text == row["answer"]

def runs():
    return made
"""


@pytest.fixture
def file(tmp_path):
  (tmp_path / "beside.py").write_text("NUMBER = 7\n")
  path = tmp_path / "checks.py"
  path.write_text(SOURCE)
  return path


def test_a_function_of_a_file_is_called_and_its_file_runs_once(file):
  assert load_function(f"{file}:is_right")("4", {"answer": "4"}) is True
  assert load_function(f"{file}:runs")() == [7]
  assert load_function(f"{file}:runs").__globals__ is load_function(f"{file}:is_right").__globals__


@pytest.mark.parametrize(
  ("spec", "told"),
  [
    ("checks.py", "names no function of a file that exists"),
    ("{folder}/checks.py:", "has no function"),
    ("{folder}/checks.py:is right", "did you mean is_right"),
    ("{folder}/others.py:is_right", "names no function of a file that exists"),
    ("owner/name:is_right", "names no function of a file that exists"),
    ("{folder}:is_right", "names no function of a file that exists"),
    ("{folder}/checks.py:is_wright", "did you mean is_right?"),
    ("{folder}/checks.py:zzz", "it has is_right, runs"),
    ("{folder}/checks.py:LIMIT", "has no function LIMIT"),
    ("{folder}/raises.py:f", r"ZeroDivisionError: division by zero\n  --> .*raises.py:2"),
    ("{folder}/syntax.py:f", r"SyntaxError: [\s\S]*syntax.py:1"),
  ],
)
def test_what_is_wrong_is_said_with_a_hint(file, spec, told):
  (file.parent / "raises.py").write_text("x = 1\nx / 0\n")
  (file.parent / "syntax.py").write_text("def f(:\n")
  with pytest.raises(UsageError) as caught:
    load_function(spec.format(folder=file.parent))
  assert re.search(told, caught.value.render()), caught.value.render()
