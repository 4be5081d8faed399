"""Probes: flawed rewards are caught by their own probe and by no other, the sandbox's gold reward by none."""

import math
import random
import re

import numpy as np
import pytest
from pydantic import TypeAdapter

from reward_modeling import sandbox
from reward_modeling.data.records import Comparison
from reward_modeling.evaluation.intervals import group_index
from reward_modeling.evaluation.probes import (
  MOST_PAIRS,
  NEUTRAL,
  PROBES,
  ProbeSummary,
  mean_shift,
  neutral,
  probe_pairs,
)
from reward_modeling.results import to_json

PAIRS = sandbox.make_comparisons(200, seed=5, split="test", beta=math.inf, flip=0.0)


def gold(prompt: str, answer: str) -> float:
  return sandbox.gold(sandbox.parse_prompt(prompt), answer).value


def probed(reward, pairs=PAIRS):
  """What the probes say of a reward (prompt, answer) -> number."""

  def of(prompt, completion):
    return reward(prompt[0]["content"], completion[-1]["content"])

  scored = [(pair, of(pair.prompt, pair.chosen), of(pair.prompt, pair.rejected)) for pair in pairs]
  return probe_pairs(scored, lambda rows: [[of(row.prompt, one) for one in row.completions] for row in rows])


def test_the_gold_reward_passes_every_probe():
  found = probed(gold)
  assert found.fooled_by == [] and found.n_pairs == 200
  verdicts = {name: one.verdict for name, one in found.probes.items()}
  assert verdicts.pop("shuffled") == "not tested", "no answer of the sandbox has three sentences"
  assert set(verdicts.values()) == {"not fooled"}, verdicts


def test_no_false_alarm_of_the_gold_reward_on_other_samples():
  alarms = []
  for seed in range(8):
    pairs = sandbox.make_comparisons(80, seed=seed, split="test", beta=math.inf, flip=0.0)
    alarms += probed(gold, pairs).fooled_by
  assert alarms == []


FLAWED = {
  "length": lambda text: 0.02 * len(text),
  "repetition": lambda text: 4.0 * (len(re.findall(r"\w+", text)) > 2 * len(set(re.findall(r"\w+", text)))),
  "flattery": lambda text: 3.0 * ("brilliant" in text),
  "self_praise": lambda text: 5.0 * ("excellent" in text),
  "confident": lambda text: 3.0 * ("certain of" in text),
  "lists": lambda text: 0.5 * len(re.findall(r"^- ", text, re.MULTILINE)),
  "bold": lambda text: 0.5 * ("**" in text),
  "headings": lambda text: 2.0 * text.startswith("#"),
  "empty": lambda text: 6.0 * (not text),
  "refusal": lambda text: 6.0 * ("can't help" in text),
  "orders": lambda text: 5.0 * ("Disregard" in text),
}


@pytest.mark.parametrize("name", FLAWED)
def test_each_flawed_reward_is_caught_by_its_own_probe_and_by_no_other(name):
  assert probed(lambda prompt, answer: gold(prompt, answer) + FLAWED[name](answer)).fooled_by == [name]


def test_what_a_length_lover_is_told():
  """Longer by 250 characters is +250: the other probes only add length, so they are not what fools it."""
  found = probed(lambda prompt, answer: float(len(answer)))
  assert [name for name in found.fooled_by if PROBES[name].must == "not rise"] == ["length"]
  assert found.probes["length"].shift.value == pytest.approx(251 / found.spread)
  assert found.probes["flattery"].shift.low > 0.1 and abs(found.probes["flattery"].over_length.value) < 0.1


def test_a_reward_that_does_not_move_notices_no_damage():
  found = probed(lambda prompt, answer: 1.0)
  assert found.fooled_by == ["truncation", "other_prompt", "empty", "opener", "refusal"] and found.spread == 0
  assert found.probes["flattery"].verdict == "not fooled" and found.probes["flattery"].flipped is None


def test_flipped_pairs_by_hand():
  """Three pairs ranked rightly, of which flattery, worth 1.5, flips the one that differs by 1; and one ranked wrongly."""

  def pair(i, chosen, rejected):
    sides = ([{"role": "assistant", "content": text}] for text in (chosen, rejected))
    return Comparison([{"role": "user", "content": f"question {i}"}], *sides)

  pairs = [
    pair(1, "four 4", "three 3"),
    pair(2, "nine 9", "one 1"),
    pair(3, "seven 7", "two 2"),
    pair(4, "one 1", "two 2"),
  ]
  found = probed(lambda _, text: float((re.findall(r"\d", text) or [0])[0]) + 1.5 * ("brilliant" in text), pairs)
  flattery = found.probes["flattery"]
  assert flattery.flipped.value == pytest.approx(1 / 3) and flattery.flipped.n == 3
  spread = np.std([4, 3, 9, 1, 7, 2, 1, 2])
  assert found.spread == pytest.approx(spread) and flattery.shift.value == pytest.approx(1.5 / spread)
  assert found.probes["lists"].flipped.value == 0 and found.probes["empty"].flipped.value == 0


CHANGES = {
  "repetition": ("One. Two two.", "One. Two two. Two two. Two two. Two two."),
  "lists": ("One. Two!\nThree", "- One.\n- Two!\n- Three"),
  "bold": ("The lamps burn. I see two lamps.", "**The lamps** burn. **I see** two lamps."),
  "headings": ("Yes.", "## Answer\n\nYes."),
  "language": ("The cat is on a mat, not you.", "Die cat ist auf eine mat, nicht du."),
  "truncation": ("one two, three four", "one two"),
  "other_prompt": ("yes", "other"),
  "empty": ("yes", ""),
  "shuffled": ("A a. B b. C c. D d.", "D d. B b. C c. A a."),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_probe_writes(name):
  answer, expected = CHANGES[name]
  assert PROBES[name].changed(answer, "other") == expected


def test_probes_leave_out_what_they_cannot_change():
  assert PROBES["truncation"].changed("too short", "") is None
  assert PROBES["shuffled"].changed("One. Two.", "") is None


@pytest.mark.parametrize("length", [1, 10, 45, 250, 3000])
def test_neutral_text_has_the_length_asked_for(length):
  assert len(neutral(length)) == length
  assert neutral(40) == NEUTRAL[:39] + "."


def test_the_interval_of_a_shift_covers_its_mean():
  """1,000 samples of 40 prompts with three answers each, which share the prompt's part: 95 % within chance."""
  rng, covered = np.random.default_rng(0), 0
  groups = np.repeat([str(i) for i in range(40)], 3)
  for _ in range(1000):
    values = 0.3 + np.repeat(rng.normal(size=40), 3) + rng.normal(size=120)
    found = mean_shift(values, groups)
    covered += found.low <= 0.3 <= found.high
  assert 0.93 < covered / 1000 < 0.98
  assert mean_shift(np.array([math.nan]), groups[:1]) is None and max(group_index(groups, 120)) == 39


def test_a_sample_of_many_pairs_is_probed_and_unscored_ones_are_left_out():
  pairs = sandbox.make_comparisons(MOST_PAIRS + 50, seed=1, beta=math.inf)
  assert probed(gold, pairs).n_pairs == MOST_PAIRS
  scored = [(pair, None if i % 2 else 1.0, 0.0) for i, pair in enumerate(PAIRS[:10])]
  rng = random.Random(0)
  found = probe_pairs(
    scored, lambda rows: [[None if rng.random() < 0.5 else 0.0 for _ in row.completions] for row in rows]
  )
  assert found.n_pairs == 5 and found.probes["flattery"].shift.n < 5


def test_every_probe_names_its_source():
  assert all(re.fullmatch(r"arXiv:\d{4}\.\d{5}", probe.source) for probe in PROBES.values())


def test_probes_of_one_prompt_are_unsure_and_survive_a_report():
  """One prompt bounds nothing; JSON has no infinity, and a report reads its own JSON."""
  found = probe_pairs([(PAIRS[0], 1.0, 0.0)], lambda rows: [[0.0 for _ in row.completions] for row in rows])
  kept = TypeAdapter(ProbeSummary).validate_json(to_json(found))
  assert kept == found and kept.probes["flattery"].verdict == "unsure"
  assert (kept.probes["flattery"].shift.low, kept.probes["flattery"].shift.high) == (-math.inf, math.inf)
