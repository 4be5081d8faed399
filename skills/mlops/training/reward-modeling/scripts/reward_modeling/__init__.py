"""Reward modeling: train, judge and use models that score answers.

`RewardModel` is loaded on first use: importing the package imports neither torch nor transformers.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["RewardModel"]


def __getattr__(name: str) -> Any:
    if name == "RewardModel":
        from .scoring import RewardModel

        return RewardModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
