"""Reward modeling: train, judge and use models that score answers.

`RewardModel` and `ProcessRewardModel` are loaded on first use: importing the package imports neither torch nor transformers.
"""

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
