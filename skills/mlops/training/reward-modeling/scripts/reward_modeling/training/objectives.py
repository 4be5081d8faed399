"""What train.py can learn from: the table OBJECTIVES, with the loss of each and the paper that it is from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from ..attributes import Attribute, Attributes, by_head
from ..hf import Tensor  # torch takes seconds, and flags are made of this table


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


PairTensors = Mapping[str, Tensor]
"""`chosen`, `rejected`: [P] places among the S rewards; `margin`, `weight`, `stage`: [P]."""


def of_pairs(rewards: Tensor, pairs: PairTensors, label_smoothing: float, *, scaled: bool = False) -> Tensor:
  margin, weight = pairs["margin"], pairs["weight"]
  how = {"weight": weight * margin} if scaled else {"weight": weight, "margin": margin}
  return bradley_terry(rewards[pairs["chosen"]], rewards[pairs["rejected"]], label_smoothing=label_smoothing, **how)


def plackett_luce(rewards: Tensor, pairs: PairTensors, label_smoothing: float = 0.0) -> Tensor:
  """-log of the probability that an answer is drawn before all worse ones; mean over the answers of a ranking. Returns [].

  Equal scores are not compared. `stage` shares a ranking's weight among its answers, of each among its pairs.
  """
  import torch

  among = torch.eye(len(rewards), dtype=torch.bool, device=rewards.device)  # itself, and what is worse
  among[pairs["chosen"], pairs["rejected"]] = True
  losses = rewards.expand_as(among).masked_fill(~among, -torch.inf).logsumexp(-1) - rewards
  return (losses[pairs["chosen"]] * pairs["stage"]).mean()


def squared_error(logits: Tensor, ratings: Tensor, head: Attribute) -> Tensor:
  return (logits[:, 0] - (ratings - head.mean) / head.std) ** 2


def cumulative(logits: Tensor, ratings: Tensor, head: Attribute) -> Tensor:
  above = ratings[:, None] > ratings.new_tensor(head.levels[:-1] or [0.0])
  return -log_sigmoid(logits.where(above, -logits)).sum(-1)


@dataclass(frozen=True)
class Objective:
  """loss: of rewards, pairs and label smoothing, or of logits [n, labels], ratings [n] and their head (-> [n])."""

  takes: str
  formula: str
  source: str
  loss: Callable[..., Tensor]


OBJECTIVES: dict[str, Objective] = {
  "bradley_terry": Objective(
    "pairs", "-log sigmoid(chosen - rejected - margin)", "arXiv:2203.02155 Eq. 1, arXiv:2307.09288 Eq. 2", of_pairs
  ),
  "scaled_bradley_terry": Objective(
    "pairs", "-margin log sigmoid(chosen - rejected)", "arXiv:2410.01257", partial(of_pairs, scaled=True)
  ),
  "plackett_luce": Objective(
    "pairs",
    "-log of softmax over an answer and all worse ones",
    "Plackett 1975, Applied Statistics 24:193",
    plackett_luce,
  ),
  "regression": Objective("ratings", "(logit - (rating - mean) / std)^2", "arXiv:2406.08673, unscaled", squared_error),
  "ordinal": Objective(
    "ratings",
    "-log sigmoid(+-logit), + for each level that the rating is above",
    "McCullagh 1980, JRSS B 42:109; a head a level: Frank and Hall 2001, ECML",
    cumulative,
  ),
  "binary": Objective("ratings", "-log sigmoid(+-logit), + where desirable", "cross-entropy", cumulative),
}


def of_ratings(name: str, logits: Tensor, targets: Tensor, heads: Attributes) -> Tensor:
  """Mean over all ratings that are there. logits: [n, labels], targets: [n, heads], NaN where missing. Returns []."""
  import torch

  losses = []
  for head, own, ratings in zip(heads, by_head(logits, heads), targets.unbind(-1), strict=True):
    known = ~ratings.isnan()
    losses.append(OBJECTIVES[name].loss(own[known], ratings[known], head))
  return torch.cat(losses).mean()
