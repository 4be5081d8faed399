"""Rewards at the ends of steps: as tokens of a policy's answers, and the advantages that GRPO makes of them."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor


class Reward(NamedTuple):
  """`total`, NaN where nothing applies; of that `steps` come at these tokens, the rest at the end of the answer."""

  total: float
  steps: tuple[tuple[int, float], ...] = ()


def placed(rewards: Sequence[Reward], width: int) -> Tensor:
  """[B, N]: what each token ends."""
  tokens = torch.zeros(len(rewards), width)
  for row, reward in enumerate(rewards):
    for token, earned in reward.steps:
      tokens[row, token] += earned
  return tokens


def step_advantages(rewards: Sequence[Reward], lengths: Sequence[int], width: int, group: int, scale: str) -> Tensor:
  """[B, N]: what an answer still earns from the step of each token on, less the mean of that over its group.

  Over those of the group that got as far, so that the mean knows nothing of what this one does next (PRIME and PURE take
  one mean off each step, which makes steps cost). lengths: in tokens. scale: of trl.GRPOConfig.
  """
  advantages, known = torch.zeros(len(rewards), width), [not math.isnan(reward.total) for reward in rewards]
  totals = torch.tensor([reward.total for reward in rewards])
  for start in range(0, len(rewards), group):
    rows = [row for row in range(start, start + group) if known[row]]
    to_come = {row: _to_come(rewards[row], lengths[row]) for row in rows}
    for step in range(max(map(len, to_come.values()), default=0)):
      reached = {row: parts[step] for row, parts in to_come.items() if step < len(parts)}
      mean = fmean(rest for _, rest in reached.values())
      for row, (first, rest) in reached.items():
        advantages[row, first : lengths[row]] = rest - mean
    if scale == "group" and len(rows) > 1:
      advantages[rows] /= totals[rows].std() + 1e-4
  return advantages / (totals[known].std() + 1e-4) if scale == "batch" else advantages


def _to_come(reward: Reward, length: int) -> list[tuple[int, float]]:
  """(first token, what is earned from there on) of each step, and of what follows the last one."""
  found, left = {0: reward.total}, reward.total
  for token, earned in sorted(reward.steps):
    left -= earned
    if token + 1 < length:
      found[token + 1] = left
  return list(found.items())
