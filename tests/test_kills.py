"""A few of the kills of kills.py: which moment they hit differs from run to run, what must hold does not."""

import pytest

from kills import World, import_all, killed


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  import_all()
  return World(tmp_path_factory.mktemp("kills"))


@pytest.mark.parametrize(
  ("script", "share"),
  [("train", 0.5), ("train", 0.9), ("train_process", 0.7), ("ppo", 0.5), ("ppo", 0.9), ("score", 0.6)],
)
def test_a_killed_run_goes_on_to_the_same_end(script, share, world, tmp_path):
  killed(world, script, share, tmp_path / "place")
