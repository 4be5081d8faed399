"""Losses on rewards. Pure functions; shapes: P pairs. All means are over pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def bradley_terry(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    *,
    margin: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Pairwise logistic loss: -log sigmoid(chosen - rejected - margin), weighted mean over pairs.

    chosen, rejected: [P] rewards. margin: [P], how much better the chosen answer must be, or None. weight: [P], or
    None for all ones; the sum is divided by P, not by the sum of the weights.
    label_smoothing: the share e of labels believed wrong; the loss becomes (1 - e) l(d) + e l(-d). Returns [].
    log 2 when every pair ties. Unchanged by a constant added to all rewards: scores of two runs share no zero.
    arXiv:2203.02155 Eq. 1; margin: arXiv:2307.09288 Eq. 2; smoothing: arXiv:2403.00409 gives it for preference data.

    >>> bradley_terry(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0]))
    tensor(0.4100)
    """
    difference = chosen - rejected
    if margin is not None:
        difference = difference - margin
    loss = -F.logsigmoid(difference)
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * F.logsigmoid(-difference)
    if weight is not None:
        loss = loss * weight
    return loss.mean()


def centering(chosen: torch.Tensor, rejected: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Mean squared sum of a pair's rewards, which pulls their mean to zero. chosen, rejected, weight: [P]. Returns [].

    Bradley-Terry leaves the zero of the rewards free; this fixes it. Multiplied by `center_rewards_coefficient`, for
    which 0.01 is usual. arXiv:2312.09244 Eq. 2.

    >>> centering(torch.tensor([1.0, 2.0]), torch.tensor([-1.0, 0.0]))
    tensor(2.)
    """
    squared = (chosen + rejected) ** 2
    return (squared if weight is None else squared * weight).mean()
