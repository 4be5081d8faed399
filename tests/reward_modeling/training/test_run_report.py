"""Runs of reinforcement learning: the picture and the page of one, from its log."""

import math
import random
import sys
from types import SimpleNamespace

import browser
import pytest

from reward_modeling.evaluation.intervals import has_trend
from reward_modeling.training import reinforcement, run_report

ASKED = [{"role": "user", "content": "What is 2 + 2?"}]
HISTORY = [
  {
    "step": 0,
    "reward": 0.5,
    "kl": 0.0,
    "samples": [{"prompt": ASKED, "completion": "A <b>fish</b>.", "reward": 0.5}],
  },
  {"step": 1, "reward": 0.75},
  {"step": 2, "reward": 0.8, "sample": {"prompt": ASKED, "completion": [{"content": "4."}], "reward": 0.75}},
]
PANELS = {"reward": ("reward", "gold"), "KL": ("kl",)}


def trained(**said):
  return SimpleNamespace(
    beginning={"reward": 0.5}, end={"reward": 0.8}, **{"output_dir": "runs/ppo", "warnings": []} | said
  )


def test_a_run_is_drawn_from_what_its_log_has(tmp_path, monkeypatch, capsys):
  drawn = []
  monkeypatch.setattr("reward_modeling.training.run_report.svg", lambda panels: drawn.extend(panels) or "<svg/>")
  run_report.write(tmp_path, HISTORY, PANELS, trained())
  assert [(panel.title, panel.x_label, panel.y_label) for panel in drawn] == [
    ("reward", "step", "reward"),
    ("KL", "step", "kl"),
  ]
  assert [(series.name, series.points) for panel in drawn for series in panel.series] == [
    ("reward", [(0, 0.5), (1, 0.75), (2, 0.8)]),
    ("gold", []),
    ("kl", [(0, 0.0)]),
  ]
  assert (tmp_path / "run.svg").read_text() == "<svg/>\n" and "run.html" in capsys.readouterr().err


def test_the_page_says_what_happened_and_quotes_answers_early_and_late(tmp_path):
  run_report.write(
    tmp_path, HISTORY, PANELS, trained(warnings=["the policy is 12.0 nats away"], stopped="over --max_kl")
  )
  page = (tmp_path / "run.html").read_text()
  assert "Yes: from 0.5 (answers of the untrained policy) to 0.8" in page
  assert "Probably: the policy is 12.0 nats away." in page and "No: over --max_kl." in page
  assert "A &lt;b&gt;fish&lt;/b&gt;." in page, "texts are escaped"
  early, late = page.index("Answers early, step 0"), page.index("Answers late, step 2")
  assert early < page.index("fish") < late < page.rindex("4.") and page.count("What is 2 + 2?") == 2
  flat = [{**HISTORY[0], "reward": reward} for reward in (0.5, 0.9, 0.4, 0.8)]
  run_report.write(tmp_path, flat, PANELS, trained())
  assert "Not beyond its noise: from 0.5" in (tmp_path / "run.html").read_text()
  assert "default-src 'none'" in page and "<script" not in page and " src=" not in page


@pytest.mark.skipif(not browser.CHROMIUM, reason=browser.NEEDED)
def test_a_browser_shows_the_page_whole_on_a_phone_and_on_paper(tmp_path):
  long = HISTORY[0] | {"samples": [{"prompt": ASKED, "completion": "unbroken" * 60, "reward": 1 / 3}]}
  run_report.write(tmp_path, [long, *HISTORY], PANELS, trained(output_dir="runs/" + "of_a_long_name" * 8))
  assert browser.faults(tmp_path / "run.html") == []


def test_a_finished_run_is_not_lost_for_want_of_matplotlib(tmp_path, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, "matplotlib", None)
  reinforcement.draw(tmp_path, HISTORY, PANELS, trained())
  assert "warning: the run is not drawn: " in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_signs_of_a_gamed_reward_are_those_of_whole_answers_for_grpo_too():
  from reward_modeling.training.grpo import WARN_KL, _per_answer
  from reward_modeling.training.reinforcement import concerns

  start = {"reward": 0.5, "kl": 0.0, "completions/mean_length": 10.0, "completions/clipped_ratio": 0.25}
  end = {"reward": 2.0, "kl": 0.5, "completions/mean_length": 30.0, "completions/clipped_ratio": 0.75}
  assert _per_answer(end) == {"reward": 2.0, "kl": 15.0, "length": 30.0, "eos_rate": 0.25}
  found = concerns(_per_answer(start), _per_answer(end), WARN_KL, "raise --beta", "--max_completion_length")
  assert len(found) == 3 and "15.0 nats" in found[0] and "raise --beta" in found[0]
  assert (
    "25% of the answers end by themselves: raise --max_completion_length" in found[1] and "from 10 to 30" in found[2]
  )
  assert concerns(_per_answer(start), _per_answer(start), WARN_KL) == []


def test_a_trend_is_a_slope_of_more_than_two_standard_errors():
  """Beside scipy's regression; two points have no error."""
  from scipy.stats import linregress

  drawn = random.Random(0)
  found = []
  for rise in (0.0, 0.1, 0.3):
    for n in (3, 10, 40):
      rewards = [rise * step + drawn.gauss(0, 1) for step in range(n)]
      line = linregress(range(n), rewards)
      assert has_trend(rewards) == (abs(line.slope) > 2 * line.stderr)
      found.append(has_trend(rewards))
  assert {*found} == {True, False}
  assert not any(map(has_trend, ([], [1.0], [1.0, 2.0], [1.0] * 9)))
  assert not any(map(has_trend, ([0.0, 0.0, 1e-200], [None] * 9, [1e308, -1e308, 1e308], [math.inf, 1.0, 2.0])))
  assert has_trend([0.0, None, 2.0, 3.0, None, 5.0]), "a step without a reward has no place on the line"


def test_a_run_that_learned_nothing_is_told_by_kl_and_trend_together():
  still, flat, rising = (
    {"reward": 1.0, "kl": 1e-4, "length": 9.0, "eos_rate": 1.0},
    [1.0, 2.0, 1.0, 2.0],
    [1.0, 2.0, 3.0],
  )
  told = lambda end, rewards: reinforcement.concerns(still, end, 10.0, rewards=rewards)  # noqa: E731
  (only,) = told(still, flat)
  assert "0.0001 nats per answer" in only and "Raise --learning_rate" in only
  (only,) = told(still | {"kl_k3": 9e-5}, rising)
  assert "9e-05 nats" in only, "of so near a policy no trend is its own"
  assert told(still | {"kl": 0.009}, rising) == told(still | {"kl": 0.5}, flat) == told(still, [1.0]) == []
  assert told(still | {"kl": -0.083}, flat) == [], "RLOO's estimate may be below 0"
  unknown = {name: value for name, value in still.items() if name != "kl"}  # GRPO without --beta
  (only,) = told(unknown, flat)
  assert "its reward has no trend" in only and told(unknown, rising) == []
