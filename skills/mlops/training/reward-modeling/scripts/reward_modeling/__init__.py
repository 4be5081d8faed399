"""Reward modeling: train, evaluate and use models that score answers. The two classes are loaded on first use."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["ProcessRewardModel", "RewardModel"]


def __getattr__(name: str) -> Any:
  if name == "RewardModel":
    from .scoring import RewardModel

    return RewardModel
  if name == "ProcessRewardModel":
    from .process import ProcessRewardModel

    return ProcessRewardModel
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
