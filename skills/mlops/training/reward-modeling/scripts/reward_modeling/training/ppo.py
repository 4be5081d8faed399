"""Proximal policy optimization of a language model against a reward: the whole algorithm in this file.

    an update   sample answers -> their rewards, log-probabilities and values -> advantages -> clipped gradient steps

Shapes: B answers of at most N tokens. `live` [B, N] is True where an answer has a token, its end token included. Random
choices follow from the seed and the number of the update or answer, in whichever process or resumed run. All processes
know the whole rollout; each computes its share.

Sources: arXiv:1707.06347 (PPO, Eq. 7); arXiv:1506.02438 (GAE, Eq. 16); arXiv:1909.08593 (KL penalty, Eq. 2; adaptive KL,
2.2); arXiv:2403.17031 (the details in use); joschu.net/blog/kl-approx.html (k1 and k3).
"""

import contextlib
import functools
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from transformers import get_scheduler

from ..attention import language_logits, sent, shared_prefix
from ..data.records import Message
from ..errors import RunError
from ..heads import unwrapped
from .actor_critic import ActorCritic, AnswerBatch, log_probs_and_entropy, reference_of, why_padded
from .policy import Policy, sample
from .prompts import Prompt
from .rewards import PolicyRewards
from .settings import PPOSettings
from .step_rewards import placed

EXPLODED = 10.0
"""KL in nats per token at which a run is stopped: the policy writes what the reference finds impossible."""
TOO_FAST = "lower --learning_rate, or raise --kl_coef"
NOT_FINITE = "look at the reward model with score.py; of functions that reward alone one must not return None"


@dataclass
class Rollout:
  """One update's answers: B lists of ids. The tensors are [B, N], scores and finished [B], all on the CPU.

  scores: of which `earned` comes at the ends of steps.
  """

  prompts: list[Prompt]
  answers: list[list[int]]
  texts: list[list[Message]]
  scores: Tensor
  earned: Tensor
  finished: Tensor
  live: Tensor
  log_probs: Tensor
  reference: Tensor
  values: Tensor


# ---- advantages ----


def k1(log_p: Tensor, log_q: Tensor) -> Tensor:
  """log p - log q: unbiased for KL(p||q) under p; as a penalty in the reward its gradient is that of KL(p||q)."""
  return log_p - log_q


def k3(log_p: Tensor, log_q: Tensor) -> Tensor:
  """q/p - 1 - log(q/p): unbiased for KL(p||q) under p, never negative, of less variance.

  As a penalty it pulls weakly: its expected gradient, grad KL(p||q) - grad KL(q||p), vanishes where p and q are close.
  """
  return torch.expm1(log_q - log_p) - (log_q - log_p)


KL_ESTIMATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": k1, "k3": k3}


def token_rewards(scores: Tensor, kl: Tensor, live: Tensor, kl_coef: float) -> Tensor:
  """[B, N]: -kl_coef times the KL estimate of each token, plus the answer's score [B] at its last token."""
  rewards = -kl_coef * kl * live
  rewards[torch.arange(len(scores)), live.sum(1) - 1] += scores
  return rewards


def gae(rewards: Tensor, values: Tensor, live: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
  """(advantages, returns), both [B, N]: A_t = sum over l of (gamma lam)^l delta_{t+l}, returns = A + V.

  delta_t = r_t + gamma V_{t+1} - V_t; after an answer's last token V is 0. arXiv:1506.02438 Eq. 16.
  """
  values = values * live
  following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
  deltas = (rewards + gamma * following - values) * live
  advantages, running = torch.zeros_like(deltas), torch.zeros_like(deltas[:, 0])
  for t in reversed(range(deltas.shape[1])):
    running = deltas[:, t] + gamma * lam * running
    advantages[:, t] = running
  return advantages, advantages + values


def whiten(values: Tensor, live: Tensor, *, shift_mean: bool = True) -> Tensor:
  """`values` with the standard deviation of the live ones made 1, and their mean 0 where it is shifted."""
  mean, deviation = values[live].mean(), values[live].std() if live.sum() > 1 else torch.ones(())
  scaled = (values - mean) / (deviation + 1e-8)
  return (scaled if shift_mean else scaled + mean) * live


def targets_of(rollout: Rollout, settings: PPOSettings, kl_coef: float) -> tuple[Tensor, Tensor]:
  """(advantages, returns), both [B, N]: what policy and value function learn from a rollout."""
  scores = rollout.scores - rollout.earned.sum(1) - settings.missing_eos_penalty * (~rollout.finished).float()
  kl = KL_ESTIMATORS[settings.kl_estimator](rollout.log_probs, rollout.reference)
  rewards = token_rewards(scores, kl, rollout.live, kl_coef) + rollout.earned
  if settings.whiten_rewards:
    rewards = whiten(rewards, rollout.live, shift_mean=False)
  advantages, returns = gae(rewards, rollout.values, rollout.live, settings.gamma, settings.lam)
  return (whiten(advantages, rollout.live) if settings.whiten_advantages else advantages), returns


def adapted(kl_coef: float, kl: float, target: float | None) -> float:
  """The next KL coefficient, by a tenth of the relative error clipped to 0.2."""
  if target is None:
    return kl_coef
  return kl_coef * (1 + 0.1 * min(0.2, max(-0.2, (kl - target) / target)))


# ---- the loss ----


def policy_loss(log_probs: Tensor, old: Tensor, advantages: Tensor, cliprange: float) -> tuple[Tensor, Tensor]:
  """(loss, whether the clip took the gradient), per token: -min(r A, clip(r) A). Eq. 7."""
  ratio = torch.exp(log_probs - old)
  plain, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - cliprange, 1 + cliprange)
  return torch.maximum(plain, clipped), clipped > plain


def value_loss(values: Tensor, old: Tensor, returns: Tensor, cliprange: float) -> tuple[Tensor, Tensor]:
  """Per token: half the larger squared error of V and of V clipped around its old value."""
  plain = (values - returns) ** 2
  clipped = (old + (values - old).clamp(-cliprange, cliprange) - returns) ** 2
  return 0.5 * torch.maximum(plain, clipped), clipped > plain


# ---- the run ----


class PPO:
  """The updates of a run, which `ppo_run.run` makes one after the other; `done` of them so far.

  policy: with `actor` around its model. packed: rows of forward passes; None where models allow it on a CPU (on a GPU it
  was not measured).
  """

  def __init__(
    self,
    policy: Policy,
    actor: ActorCritic,
    rewards: PolicyRewards,
    prompts: Sequence[Prompt],
    settings: PPOSettings,
    accelerator: Accelerator,
    packed: bool | None = None,
  ):
    self.policy, self.rewards, self.prompts, self.settings = policy, rewards, prompts, settings
    self.accelerator = accelerator
    self.process_index, self.world = accelerator.process_index, accelerator.num_processes
    self.batch_size = settings.per_device_train_batch_size * settings.gradient_accumulation_steps * self.world
    self.updates = math.ceil(settings.total_episodes / self.batch_size)
    self.kl_coef, self.done = settings.kl_coef, 0
    self.seconds: dict[str, float] = defaultdict(float)
    self.plain, self.reference = actor, reference_of(policy)
    self.why_padded = why_padded(policy, actor, packed)
    self.optimizer = torch.optim.AdamW(
      actor.parameter_groups(settings.learning_rate, settings.value_learning_rate),
      eps=1e-5,
      weight_decay=settings.weight_decay,
    )
    self.scheduler = get_scheduler(
      settings.lr_scheduler_type, self.optimizer, settings.warmup_steps, num_training_steps=self.updates
    )
    self.actor = accelerator.prepare(actor)

  def update(self, update: int, *, sampled: bool = False) -> tuple[dict[str, Any], str | None]:
    """(the log entry of one update, with some answers if `sampled`; why nothing is learned from it, if so).

    Raises RunError for an exploded KL, and a reward, loss or gradient that is NaN or infinite.
    """
    settings, started, stopped = self.settings, time.perf_counter(), None
    rollout = self._roll_out(update)
    entry = self._measure(update, rollout)
    if settings.max_kl is not None and entry["kl"] > settings.max_kl:
      stopped = f"the KL was {entry['kl']:.2f} nats per answer, over --max_kl {settings.max_kl:g}"
    else:
      entry |= self._learn(update, rollout)
      self.kl_coef = adapted(self.kl_coef, entry["kl"], settings.target_kl)
      self.scheduler.step()
    if sampled:
      entry["samples"] = [
        {"prompt": asked.messages, "completion": text, "reward": score.item()}
        for asked, text, score in zip(rollout.prompts[:4], rollout.texts, rollout.scores, strict=False)
      ]
    return {**entry, "seconds": time.perf_counter() - started}, stopped

  # ---- what the policy does now ----

  def _roll_out(self, update: int) -> Rollout:
    settings, policy, first = self.settings, self.policy, update * self.batch_size
    prompts = [self._prompt(first + row) for row in range(self.batch_size)]
    mine = range(self.process_index, self.batch_size, self.world)
    self.plain.eval()
    with self._timed("sampling"), self.accelerator.autocast():
      written = sample(
        policy,
        [prompts[row].ids for row in mine],
        max_new_tokens=settings.response_length,
        temperature=settings.temperature,
        seed=settings.seed,
        numbers=[first + row for row in mine],
        batch_size=settings.local_rollout_forward_batch_size,
      )
      answers = self._shared(zip(mine, written, strict=True))
    texts = [policy.reply(answer) for answer in answers]
    with self._timed("rewards"):
      scored = self.rewards(*([every[row] for row in mine] for every in (prompts, texts, answers)))
      rewards = self._shared(zip(mine, scored, strict=True))
      scores = torch.tensor([reward.total for reward in rewards], dtype=torch.float32)
    if not torch.isfinite(scores).all():
      raise RunError("a reward is NaN or infinite", hint=NOT_FINITE)
    with self._timed("probabilities"), self._packing():
      tokens = self._probabilities(update, prompts, answers)
    live = _padded([[1.0] * len(answer) for answer in answers]).bool()
    finished = torch.tensor([policy.finished(answer) for answer in answers])
    return Rollout(prompts, answers, texts, scores, placed(rewards, live.shape[1]), finished, live, *tokens)

  def _prompt(self, episode: int) -> Prompt:
    """All prompts in a new order each epoch."""
    epoch, place = divmod(episode, len(self.prompts))
    return self.prompts[_order(self.settings.seed, epoch, len(self.prompts))[place]]

  @torch.no_grad()
  def _probabilities(self, update: int, prompts: list[Prompt], answers: list[list[int]]) -> list[Tensor]:
    """[log-probabilities by the policy, by the reference, values], each [B, N].

    In the very batches of the first inner epoch, so that the first ratio of new to old is exactly 1.
    """
    found = []
    for rows in chain.from_iterable(batches for _, batches in self._mini_batches(update, 1, answers)):
      batch = self._batch(prompts, answers, rows)
      log_probs, _, values = self.actor(batch)
      with self.reference() as reference, self.accelerator.autocast():
        logits, _ = language_logits(reference, batch.inputs, batch.rows, batch.places)
      expected, _ = log_probs_and_entropy(logits, batch.tokens, self.settings.temperature)
      lengths = [len(answers[row]) for row in rows]
      split = zip(*(tokens.cpu().split(lengths) for tokens in (log_probs, expected, values)), strict=True)
      found += [(row, [tokens.tolist() for tokens in own]) for row, own in zip(rows, split, strict=True)]
    return [_padded(tokens) for tokens in zip(*self._shared(found), strict=True)]

  def _measure(self, update: int, rollout: Rollout) -> dict[str, Any]:
    kl = k1(rollout.log_probs, rollout.reference)
    if not kl.isfinite().all() or kl[rollout.live].mean() > EXPLODED:
      what = f"the KL exploded to {kl[rollout.live].mean().item():.1f} nats per token"
      raise RunError(what, hint="lower --learning_rate, raise --kl_coef, or set a budget with --max_kl")
    per_answer = kl.sum(1)
    return {
      "step": update + 1,
      "episode": (update + 1) * self.batch_size,
      "reward": rollout.scores.mean().item(),
      "reward_std": rollout.scores.std().item() if len(per_answer) > 1 else 0.0,
      **self.rewards.logged("reward"),
      "kl": per_answer.mean().item(),
      "kl_k3": k3(rollout.log_probs, rollout.reference).sum(1).mean().item(),
      "kl_coef": self.kl_coef,
      "objective": (rollout.scores - self.kl_coef * per_answer).mean().item(),
      "length": rollout.live.sum(1).float().mean().item(),
      "eos_rate": rollout.finished.float().mean().item(),
      "learning_rate": self.optimizer.param_groups[0]["lr"],
    }

  # ---- what it learns from that ----

  def _learn(self, update: int, rollout: Rollout) -> dict[str, float]:
    targets = targets_of(rollout, self.settings, self.kl_coef)
    sums, first_ratio, tokens_seen = torch.zeros(6, device=self.accelerator.device), None, 0
    self.plain.train(self.plain.policy.is_activation_checkpointing)
    with self._timed("learning"), self._packing():
      for tokens, batches in self._mini_batches(update, self.settings.num_ppo_epochs, rollout.answers):
        found = [self._backward(rollout, targets, rows, tokens, last=rows is batches[-1]) for rows in batches]
        self._step(sum(loss for loss, *_ in found))
        sums, tokens_seen = sum((terms for _, terms, _ in found), start=sums), tokens_seen + tokens
        if first_ratio is None:
          first_ratio = max((off.item() for *_, off in found), default=0.0)
    means = (self.accelerator.reduce(sums, "sum") / tokens_seen).tolist()
    names = ("policy_loss", "value_loss", "policy_clip_fraction", "value_clip_fraction", "approx_kl", "entropy")
    returns, live = targets[1], rollout.live
    error, spread = (returns - rollout.values)[live].var().item(), returns[live].var().item()
    return {
      **dict(zip(names, means, strict=True)),
      "explained_variance": 1 - error / spread if spread > 0 else 0.0,
      "first_ratio_error": first_ratio,
    }

  def _backward(
    self, rollout: Rollout, targets: tuple[Tensor, Tensor], rows: list[int], tokens: int, last: bool
  ) -> tuple[Tensor, Tensor, Tensor]:
    """(the loss, sums over tokens for the log, largest |ratio - 1|). tokens: of the mini-batch. last: whether it ends it."""
    settings, live = self.settings, rollout.live[rows]
    with contextlib.nullcontext() if last else self.accelerator.no_sync(self.actor):
      log_probs, entropy, values = self.actor(self._batch(rollout.prompts, rollout.answers, rows))
      known = [tokens[rows][live] for tokens in (rollout.log_probs, rollout.values, *targets)]
      old, old_values, advantages, returns = sent(known, self.accelerator.device)
      policy, clipped = policy_loss(log_probs, old, advantages, settings.cliprange)
      value, value_clipped = value_loss(values, old_values, returns, settings.cliprange_value)
      # Summed, and divided by the tokens of the whole mini-batch: however it is cut up, the gradient is the same.
      loss = (policy + settings.vf_coef * value).sum() * self.world / tokens
      self.accelerator.backward(loss)
    change = (log_probs - old).detach()
    terms = (policy, value, clipped, value_clipped, 0.5 * change**2, entropy)
    return loss.detach(), torch.stack([term.detach().sum() for term in terms]), change.expm1().abs().max()

  def _step(self, loss: Tensor | int) -> None:
    """Policy and value are clipped apart, so that a large value error does not stall the policy."""
    if not math.isfinite(loss):
      raise RunError(f"the loss became {float(loss)}", hint=TOO_FAST)
    for group in filter(lambda group: group["params"], self.optimizer.param_groups):
      norm = self.accelerator.clip_grad_norm_(group["params"], self.settings.max_grad_norm)
      if not torch.isfinite(norm):
        raise RunError(f"the norm of the gradient became {norm.item()}", hint=TOO_FAST)
    self.optimizer.step()
    self.optimizer.zero_grad()

  # ---- batches and processes ----

  def _mini_batches(self, update: int, epochs: int, answers: list[list[int]]) -> Iterator[tuple[int, list[list[int]]]]:
    """For each mini-batch of these inner epochs: (its tokens, this process's rows in micro-batches of like length)."""
    size = self.settings.per_device_train_batch_size
    for epoch in range(epochs):
      order = numpy.random.default_rng([self.settings.seed, 2, update, epoch]).permutation(self.batch_size)
      for mini_batch in numpy.array_split(order, self.settings.num_mini_batches):
        rows = sorted(mini_batch.tolist(), key=lambda row: len(answers[row]))[self.process_index :: self.world]
        micro_batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        yield sum(len(answers[row]) for row in mini_batch), micro_batches

  def _batch(self, prompts: list[Prompt], answers: list[list[int]], rows: list[int]) -> AnswerBatch:
    model, pad = unwrapped(self.policy.model), self.policy.tokenizer.pad_token_id
    read = [prompts[row].ids for row in rows], [answers[row] for row in rows]
    return AnswerBatch.of(*read, model, pad, packed=not self.why_padded)

  @contextlib.contextmanager
  def _packing(self) -> Iterator[None]:
    """Attention of packed rows in all models that read them; answers are written without."""
    with contextlib.ExitStack() as stack:
      if not self.why_padded:
        with self.reference() as reference:
          read = filter(None, (self.policy.model, self.plain.trunk, reference))
        for model in map(unwrapped, read):
          stack.enter_context(shared_prefix(model))
      yield

  def _shared(self, mine: Iterable[tuple[int, object]]) -> list:
    return [value for _, value in sorted(gather_object(list(mine)), key=lambda pair: pair[0])]

  @contextlib.contextmanager
  def _timed(self, phase: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    self.seconds[phase] += time.perf_counter() - started


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> numpy.ndarray:
  return numpy.random.default_rng([seed, 1, epoch]).permutation(count)


def _padded(rows: Iterable[list[float]]) -> Tensor:
  """[B, N], zeros after each row."""
  return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
