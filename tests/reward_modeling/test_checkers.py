"""Checkers of final answers, and the process that survives those that raise, hang or die."""

import os
import sys
import time
from types import SimpleNamespace

import pytest

from reward_modeling.checkers import Checker, check_of
from reward_modeling.errors import UsageError
from reward_modeling.reward_functions import mathematics_agree, same_answer

FILE = """
import os, time

def check(text, row):
    print("this must not reach stdout")
    if text == "raise":
        raise KeyError("nothing")
    if text == "leave":
        raise SystemExit(3)
    if text == "die":
        os._exit(1)
    if text == "hang":
        while True:
            pass
    if text == "sleep":
        time.sleep(60)
    if text == "word":
        return "yes"
    if text == "pid":
        row["write"](os.getpid()) if callable(row.get("write")) else open(row["file"], "w").write(str(os.getpid()))
    return {"right": True, "one": 1, "wrong": False, "none": None}.get(text, 0.0)
"""


@pytest.fixture
def spec(tmp_path):
  (tmp_path / "checks.py").write_text(FILE)
  return f"{tmp_path / 'checks.py'}:check"


def test_a_checker_that_raises_hangs_or_dies_is_undecided_and_the_next_text_is_checked(spec, tmp_path, capfd):
  verdicts = {}
  with Checker(spec, "answer", None, seconds=1.0) as checker:
    for text in ("right", "raise", "leave", "hang", "one", "die", "wrong", "sleep", "word", "none", "other"):
      verdicts[text] = checker(text, {"answer": 1})
    checker("pid", {"file": str(tmp_path / "pid")})
  assert verdicts == {
    "right": (True, ""),
    "one": (True, ""),
    "wrong": (False, ""),
    "other": (False, ""),
    "none": (None, "without_answer"),
    **dict.fromkeys(("raise", "leave", "word", "die"), (None, "checker_errors")),
    **dict.fromkeys(("hang", "sleep"), (None, "checker_timeouts")),
  }
  assert capfd.readouterr().err.count("the checker fails, the first time by this: KeyError: 'nothing'") == 1
  pid = int((tmp_path / "pid").read_text())
  for _ in range(100):
    try:
      os.kill(pid, 0)
    except ProcessLookupError:
      break
    time.sleep(0.05)
  else:
    pytest.fail("the checker's process outlived it")


@pytest.mark.parametrize(
  ("text", "reference", "pattern", "right"),
  [
    ("so it is\nThe answer is: 1,200.", "1200", None, True),
    ("The answer is 1200.0", "he has 1000+200\n#### 1,200", None, True),
    (r"thus \boxed{\frac{1}{2}}", r"we get $\boxed{\frac{1}{2}}$", None, True),
    ("The answer is 12", 1200, None, False),
    ("#### 5\nno, #### is wrong\n#### 7", 7, None, True),
    ("A: $18.00", 18, None, True),
    ("twelve hundred", "1200", None, None),
    ("it makes 12 eggs", "12", r"makes (\d+)", True),
    ("", "12", None, None),
  ],
)
def test_the_final_answer_against_the_reference(text, reference, pattern, right):
  assert check_of("answer", "gold", pattern)(text, {"gold": reference}) is right
  if pattern is None:  # a reward takes a text without an answer for wrong, where rollouts are undecided
    assert same_answer([[{"role": "assistant", "content": text}]], [reference]) == [float(right or 0)]


@pytest.mark.parametrize(
  ("name", "pattern", "told"),
  [
    ("anser", None, "choose answer, math_verify or FILE:NAME"),
    ("answer", "(a", "--answer_pattern is not a regular expression"),
    ("answer", "a", "--answer_pattern has 0 groups"),
    ("nothing.py:f", None, "names no function of a file that exists"),
  ],
)
def test_what_is_not_a_checker(name, pattern, told):
  with pytest.raises(UsageError) as caught:
    check_of(name, "answer", pattern)
  assert told in caught.value.render()


def test_math_verify_is_asked_for_by_name_only(monkeypatch):
  """Its calls, recorded: the reference is written as mathematics, the text is parsed as it is."""
  calls = []
  stub = SimpleNamespace(parse=lambda text: calls.append(text) or ([] if text == "?" else [text]))
  stub.verify = lambda gold, found: gold == [f"${found[0]}$"]
  monkeypatch.setitem(sys.modules, "math_verify", stub)
  for text, right in (("1/2", True), ("2", False), ("?", None)):
    assert mathematics_agree(text, "1/2") is right
  assert calls == ["$1/2$", "1/2", "$1/2$", "2", "$1/2$", "?"]
  stub.parse = lambda text: [] if "?" in text else [text]
  assert mathematics_agree("2", "?") is None, "a reference that cannot be read says nothing of a text"
  monkeypatch.delitem(sys.modules, "math_verify")
  with pytest.raises(UsageError, match="math_verify is not installed") as caught:
    check_of("math_verify", "answer", None)
  assert "--with math-verify" in caught.value.hint
