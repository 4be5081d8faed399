"""What train.py can learn from: the table OBJECTIVES, with the loss of each and the paper that it is from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..attributes import Attribute, Attributes, by_head

if TYPE_CHECKING:  # torch takes seconds, and flags are made of this table
    from torch import Tensor


def log_sigmoid(values: Tensor) -> Tensor:
    import torch

    return torch.nn.functional.logsigmoid(values)


def bradley_terry(
    chosen: Tensor,
    rejected: Tensor,
    *,
    margin: Tensor | None = None,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Pairwise logistic loss: -log sigmoid(chosen - rejected - margin), weighted mean over pairs. Returns [].

    chosen, rejected: [P] rewards. margin: [P], how much better the chosen answer must be. weight: [P]; the sum is divided
    by P, not by the sum of the weights. label_smoothing: the share e of labels believed wrong: (1 - e) l(d) + e l(-d).
    arXiv:2203.02155 Eq. 1; margin: arXiv:2307.09288 Eq. 2; smoothing: arXiv:2403.00409.

    >>> bradley_terry(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0]))
    tensor(0.4100)
    """
    difference = chosen - rejected
    if margin is not None:
        difference = difference - margin
    loss = -log_sigmoid(difference)
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * log_sigmoid(-difference)
    return (loss if weight is None else loss * weight).mean()


def centering(chosen: Tensor, rejected: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared sum of a pair's rewards, which pulls their mean to zero. chosen, rejected, weight: [P]. Returns [].

    Bradley-Terry leaves the zero of the rewards free. Multiplied by `center_rewards_coefficient`. arXiv:2312.09244 Eq. 2.

    >>> centering(torch.tensor([1.0, 2.0]), torch.tensor([-1.0, 0.0]))
    tensor(2.)
    """
    squared = (chosen + rejected) ** 2
    return (squared if weight is None else squared * weight).mean()


PairTensors = Mapping[str, "Tensor"]
"""`chosen`, `rejected`: [P] places among the S rewards; `margin`, `weight`: [P]; `row`: [P] the ranking of each."""


def of_pairs(rewards: Tensor, pairs: PairTensors, label_smoothing: float) -> Tensor:
    how = {"margin": pairs["margin"], "weight": pairs["weight"], "label_smoothing": label_smoothing}
    return bradley_terry(rewards[pairs["chosen"]], rewards[pairs["rejected"]], **how)


def scaled(rewards: Tensor, pairs: PairTensors, label_smoothing: float) -> Tensor:
    """A pair counts as often as its margin says."""
    how = {"weight": pairs["weight"] * pairs["margin"], "label_smoothing": label_smoothing}
    return bradley_terry(rewards[pairs["chosen"]], rewards[pairs["rejected"]], **how)


def plackett_luce(rewards: Tensor, pairs: PairTensors, label_smoothing: float = 0.0) -> Tensor:
    """-log of the probability that an answer is drawn before all that are worse; mean over a ranking's answers. Returns [].

    Without ties this is the likelihood of the ranking, and of two answers Bradley-Terry. Equal scores are not compared.
    """
    import torch

    chosen, rows = pairs["chosen"], int(pairs["row"].max()) + 1
    among = torch.eye(len(rewards), dtype=torch.bool, device=rewards.device)  # [S, S]: itself, and what is worse
    among[chosen, pairs["rejected"]] = True
    drawn = torch.full_like(among, -torch.inf, dtype=rewards.dtype).masked_fill(among, 0.0)
    losses = (rewards + drawn).logsumexp(-1) - rewards  # 0 for the worst
    row_of = torch.zeros_like(chosen.new_empty(len(rewards))).index_copy(0, chosen, pairs["row"])
    stages = among.sum(-1) > 1
    counts = torch.bincount(row_of[stages], minlength=rows)
    weights = rewards.new_zeros(rows).index_add(0, pairs["row"], pairs["weight"].to(rewards.dtype))
    return (losses * weights[row_of] / counts[row_of].clamp(min=1))[stages].sum() / len(chosen)


def squared_error(logits: Tensor, ratings: Tensor, head: Attribute) -> Tensor:
    """Squared error of standardized ratings. logits: [n, 1]. Returns [n]."""
    return (logits[:, 0] - (ratings - head.mean) / head.std) ** 2


def ordinal(logits: Tensor, ratings: Tensor, head: Attribute) -> Tensor:
    """-log probability of a rating's being above, or not above, each level but the last. logits: [n, levels - 1]. Returns [n]."""
    above = ratings[:, None] > ratings.new_tensor(head.levels[:-1])
    return -log_sigmoid(logits.where(above, -logits)).sum(-1)


def binary(logits: Tensor, ratings: Tensor, head: Attribute) -> Tensor:
    """Cross-entropy of labels 1 and 0. logits: [n, 1]. Returns [n]."""
    return -log_sigmoid(logits[:, 0].where(ratings > 0, -logits[:, 0]))


@dataclass(frozen=True)
class Objective:
    """takes: "pairs" (a loss of rewards, pairs and the smoothing) or "ratings" (a loss of each rating of an attribute)."""

    takes: str
    formula: str
    source: str
    loss: Callable[..., Tensor]


OBJECTIVES: dict[str, Objective] = {
    "bradley_terry": Objective(
        "pairs",
        "-log sigmoid(chosen - rejected - margin)",
        "arXiv:2203.02155 Eq. 1; the margin: arXiv:2307.09288 Eq. 2",
        of_pairs,
    ),
    "scaled_bradley_terry": Objective(
        "pairs", "-margin log sigmoid(chosen - rejected)", "HelpSteer2-Preference, arXiv:2410.01257", scaled
    ),
    "plackett_luce": Objective(
        "pairs",
        "-log(exp(answer) / sum of exp over it and all worse ones), mean over a ranking",
        "Plackett 1975, Applied Statistics 24:193; as a loss Xia et al. 2008, ICML (ListMLE)",
        plackett_luce,
    ),
    "regression": Objective(
        "ratings",
        "(logit - (rating - mean) / std)^2",
        "HelpSteer2, arXiv:2406.08673 (without the scale)",
        squared_error,
    ),
    "ordinal": Objective(
        "ratings",
        "-log sigmoid(+-logit) for each level that the rating is above (+) or not (-)",
        "cumulative logits, McCullagh 1980, JRSS B 42:109; one head a level: Frank and Hall 2001, ECML",
        ordinal,
    ),
    "binary": Objective(
        "ratings",
        "-log sigmoid(+-logit) of desirable (+) or not (-)",
        "cross-entropy; the data: KTO, arXiv:2402.01306",
        binary,
    ),
}


def of_ratings(name: str, logits: Tensor, targets: Tensor, heads: Attributes) -> Tensor:
    """Mean over all ratings that are there. logits: [n, labels], targets: [n, heads] with NaN for missing ones. Returns []."""
    import torch

    loss, losses = OBJECTIVES[name].loss, []
    for head, own, ratings in zip(heads, by_head(logits, heads), targets.unbind(-1), strict=True):
        known = ~ratings.isnan()
        losses.append(loss(own[known], ratings[known], head))
    return torch.cat(losses).mean()
