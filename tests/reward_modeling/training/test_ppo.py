"""The arithmetic of PPO by hand, by its definitions and by enumeration, and a bandit whose optimum is known."""

import json
import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_modeling.errors import RunError
from reward_modeling.training import ppo, ppo_run
from reward_modeling.training.actor_critic import actor_critic
from reward_modeling.training.policy import Policy
from reward_modeling.training.prompts import Prompt
from reward_modeling.training.reinforcement import best_of_for, concerns
from reward_modeling.training.settings import PPORunSettings
from reward_modeling.training.step_rewards import Reward

T = torch.tensor


def lengths_mask(lengths, width):
  return torch.arange(width)[None] < T(lengths)[:, None]


# ---- token rewards, advantages, targets ---------------------------------------------------------------------------


def test_the_score_lands_on_the_last_token_and_the_penalty_on_every_token():
  live = lengths_mask([2, 3], 3)
  kl = T([[0.5, -1.0, 9.0], [0.0, 1.0, 2.0]])  # the 9 lies behind the first answer
  rewards = ppo.token_rewards(T([2.0, -1.0]), kl, live, 0.1)
  assert torch.allclose(rewards, T([[-0.05, 2.1, 0.0], [0.0, -0.1, -1.2]]))


def test_gae_by_hand():
  """gamma 0.5, lambda 0.5, V = (1, 2, 3), r = (0, 0, 4): deltas 0, -0.5, 1; A_3 = 1, A_2 = -0.5 + 0.25, A_1 = -0.0625."""
  live = lengths_mask([3], 3)
  advantages, returns = ppo.gae(T([[0.0, 0.0, 4.0]]), T([[1.0, 2.0, 3.0]]), live, 0.5, 0.5)
  assert torch.allclose(advantages, T([[-0.0625, -0.25, 1.0]]))
  assert torch.allclose(returns, T([[0.9375, 1.75, 4.0]])), "value targets are advantages plus values"


@settings(max_examples=40, deadline=None)
@given(
  st.lists(st.integers(1, 6), min_size=1, max_size=4),
  st.floats(0.1, 1.0),
  st.floats(0.0, 1.0),
  st.integers(0, 10**6),
)
def test_gae_is_the_sum_of_its_definition(lengths, gamma, lam, seed):
  """A_t = sum_l (gamma lam)^l delta_{t+l}, row by row without padding; catches values read behind the end."""
  generator = torch.Generator().manual_seed(seed)
  width = 6
  rewards, values = (torch.randn(len(lengths), width, generator=generator) for _ in range(2))
  live = lengths_mask(lengths, width)
  advantages, returns = ppo.gae(rewards * live, values, live, gamma, lam)
  for row, length in enumerate(lengths):
    v = [*values[row, :length].tolist(), 0.0]
    deltas = [rewards[row, t].item() + gamma * v[t + 1] - v[t] for t in range(length)]
    for t in range(length):
      expected = sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, length))
      assert advantages[row, t].item() == pytest.approx(expected, abs=1e-4)
      assert returns[row, t].item() == pytest.approx(expected + v[t], abs=1e-4)
    assert not advantages[row, length:].any() and not returns[row, length:].any()


def test_with_lambda_one_the_value_target_is_the_discounted_sum_of_rewards():
  live = lengths_mask([3], 3)
  _, returns = ppo.gae(T([[1.0, 2.0, 4.0]]), T([[7.0, -3.0, 5.0]]), live, 0.5, 1.0)
  assert torch.allclose(returns, T([[1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4, 4.0]]))


def test_whitening_reads_live_tokens_only():
  """Live: 1, 3, 5 of mean 3 and standard deviation 2; the 99s lie behind the ends."""
  values, live = T([[1.0, 3.0], [5.0, 99.0], [99.0, 99.0]]), T([[1, 1], [1, 0], [0, 0]]).bool()
  assert torch.allclose(ppo.whiten(values, live), T([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))
  kept = ppo.whiten(values, live, shift_mean=False)
  assert torch.allclose(kept, T([[2.0, 3.0], [4.0, 0.0], [0.0, 0.0]]))
  assert ppo.whiten(T([[2.0]]), T([[True]])).isfinite().all(), "one token has no standard deviation"


# ---- losses -------------------------------------------------------------------------------------------------------


def test_the_policy_loss_is_clipped_only_where_it_would_gain():
  """Ratio 2 with A = 1 is clipped to 1.2; with A = -1 it is not; ratio 0.5 with A = -1 is clipped to 0.8."""
  old = torch.zeros(4)
  new = T([math.log(2), math.log(2), math.log(0.5), math.log(0.5)]).requires_grad_()
  loss, clipped = ppo.policy_loss(new, old, T([1.0, -1.0, -1.0, 1.0]), 0.2)
  assert torch.allclose(loss, T([-1.2, 2.0, 0.8, -0.5]))
  assert clipped.tolist() == [True, False, True, False]
  loss.sum().backward()
  assert new.grad.tolist() == pytest.approx([0.0, 2.0, 0.0, -0.5]), "no gradient where the clip holds"


def test_the_value_loss_takes_the_worse_of_clipped_and_plain():
  """V from 0 to 1 with return 1: plain error 0, clipped at 0.2 the error is 0.8; with return -1 the plain one is worse."""
  loss, clipped = ppo.value_loss(T([1.0, 1.0]), T([0.0, 0.0]), T([1.0, -1.0]), 0.2)
  assert torch.allclose(loss, T([0.5 * 0.64, 0.5 * 4.0]))
  assert clipped.tolist() == [True, False]


# ---- KL -----------------------------------------------------------------------------------------------------------


def distributions(seed, size=7):
  generator = torch.Generator().manual_seed(seed)
  p, q = (torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(2))
  return p, torch.log_softmax(q, 0)


@pytest.mark.parametrize("name", ppo.KL_ESTIMATORS)
@pytest.mark.parametrize("seed", range(5))
def test_the_expectation_of_each_estimator_under_p_is_the_kl(name, seed):
  """By enumeration of a vocabulary of seven; an estimator with the sign turned round gives -KL, or KL(q||p)."""
  logits, log_q = distributions(seed)
  log_p = torch.log_softmax(logits, 0)
  kl = sum(p * math.log(p / q) for p, q in zip(log_p.exp().tolist(), log_q.exp().tolist(), strict=True))
  expected = (log_p.exp() * ppo.KL_ESTIMATORS[name](log_p, log_q)).sum().item()
  assert kl > 0.1
  assert expected == pytest.approx(kl, rel=1e-9)


def test_k3_is_never_negative_and_k1_is():
  logits, log_q = distributions(0)
  log_p = torch.log_softmax(logits, 0)
  assert (ppo.k3(log_p, log_q) >= 0).all() and (ppo.k1(log_p, log_q) < 0).any()
  assert ppo.k3(T([0.0]), T([0.0])).item() == ppo.k1(T([0.0]), T([0.0])).item() == 0.0


def penalty_gradient(name, logits, log_q):
  """The expected policy gradient of a reward of minus the estimate, as a direction that descends: E[k(x) grad log p(x)]."""
  logits = logits.clone().requires_grad_()
  log_p = torch.log_softmax(logits, 0)
  weight = (log_p.exp() * ppo.KL_ESTIMATORS[name](log_p, log_q)).detach()
  return torch.autograd.grad((weight * log_p).sum(), logits)[0]


def kl_gradient(logits, log_q, forward=True):
  logits = logits.clone().requires_grad_()
  log_p = torch.log_softmax(logits, 0)
  kl = (log_p.exp() * (log_p - log_q)).sum() if forward else (log_q.exp() * (log_q - log_p)).sum()
  return torch.autograd.grad(kl, logits)[0]


@pytest.mark.parametrize("seed", range(3))
def test_as_a_penalty_k1_descends_the_kl_and_k3_the_difference_of_both_directions(seed):
  logits, log_q = distributions(seed)
  forward, backward = kl_gradient(logits, log_q), kl_gradient(logits, log_q, forward=False)
  assert torch.allclose(penalty_gradient("k1", logits, log_q), forward)
  assert torch.allclose(penalty_gradient("k3", logits, log_q), forward - backward)
  near = log_q + 0.01 * logits  # close to the reference k3 hardly pulls back
  pull = [penalty_gradient(name, near, log_q).norm().item() for name in ("k1", "k3")]
  assert pull[1] < 0.05 * pull[0]


def test_the_adaptive_coefficient_moves_a_tenth_of_the_clipped_error():
  assert ppo.adapted(0.1, 6.3, 6.0) == pytest.approx(0.1 * 1.005)
  assert ppo.adapted(0.1, 60.0, 6.0) == pytest.approx(0.1 * 1.02), "the error is clipped at 0.2"
  assert ppo.adapted(0.1, 0.0, 6.0) == pytest.approx(0.1 * 0.98)
  assert ppo.adapted(0.1, 60.0, None) == 0.1


def test_the_report_names_what_looks_like_a_gamed_reward():
  calm = {"reward": 1.0, "kl": 2.0, "length": 10.0, "eos_rate": 1.0}
  assert concerns(calm, calm, 10.0) == []
  (only,) = concerns(calm, calm | {"kl": 12.0, "reward": 2.0}, 10.0)
  assert "12.0 nats" in only and "over-optimized" in only and "from 1.00 to 2.00" in only
  both = concerns(calm, calm | {"length": 25.0, "eos_rate": 0.3}, 10.0)
  assert "only 30%" in both[0] and "from 10 to 25 tokens" in both[1]
  n = 50
  assert best_of_for(math.log(n) - (n - 1) / n) == pytest.approx(n, rel=0.03)


# ---- a run --------------------------------------------------------------------------------------------------------

DEFAULTS = {
  "seed": 0,
  "total_episodes": 256,
  "per_device_train_batch_size": 32,
  "gradient_accumulation_steps": 2,
  "num_mini_batches": 2,
  "num_ppo_epochs": 2,
  "learning_rate": 1e-3,
  "value_learning_rate": 1e-3,
  "lr_scheduler_type": "constant",
  "warmup_steps": 0,
  "weight_decay": 0.0,
  "max_grad_norm": 1.0,
  "response_length": 6,
  "temperature": 1.0,
  "local_rollout_forward_batch_size": 64,
  "kl_coef": 0.1,
  "kl_estimator": "k1",
  "target_kl": None,
  "max_kl": None,
  "warn_kl": 10.0,
  "cliprange": 0.2,
  "cliprange_value": 0.2,
  "vf_coef": 0.5,
  "gamma": 1.0,
  "lam": 0.95,
  "whiten_rewards": False,
  "whiten_advantages": True,
  "missing_eos_penalty": 0.0,
}
RUN = {"save_steps": 1000, "save_total_limit": 2, "logging_steps": 1000, "num_sample_generations": 0}


def by_words(prompts, completions, tools):
  """Favours answers with the letter e."""
  return [float(completion[0]["content"].count("e")) for completion in completions]


class Plain:
  """The numbers of a function, as `PolicyRewards` gives them."""

  def __init__(self, function):
    self.function = function

  def __call__(self, *asked):
    return [one if isinstance(one, Reward) else Reward(one) for one in self.function(*asked)]

  def logged(self, prefix):
    return {}


def run(made, out, resume=None, **changed):
  """The summary of the run of a PPO in the folder `out`, from a checkpoint where one is given."""
  return SimpleNamespace(**ppo_run.run_ppo(made, out, resume, PPORunSettings(**changed))[0])


@pytest.fixture
def make(tiny, tmp_path):
  """make(rewards, value_model=..., peft_config=..., **settings) -> a PPO run of the tiny Qwen2 on three prompts."""

  def build(rewards=by_words, value_model="policy", peft_config=None, out=tmp_path, prompts=3, packed=None, **changed):
    from accelerate import Accelerator

    chosen = ppo.PPOSettings(**DEFAULTS | changed)
    torch.manual_seed(0)
    policy = Policy.from_pretrained(str(tiny("qwen2")), device="cpu")
    policy.end_tokens += tuple(range(100, 160))  # so that random answers end, at any length
    asked = [[{"role": "user", "content": text}] for text in ("hello", "one two three four", "red apples")][:prompts]
    actor = actor_critic(policy, value_model, chosen.temperature, peft_config)
    ready = [Prompt(policy.renderer.prompt_ids(messages), messages) for messages in asked]
    made = ppo.PPO(policy, actor, Plain(rewards), ready, chosen, Accelerator(cpu=True), packed)
    made.run = partial(run, made, out)
    return made

  return build


def log_of(folder):
  return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("value_model", ["policy", "shared"])
def test_the_first_ratio_of_every_update_is_exactly_one(make, value_model, tmp_path):
  """Old log-probabilities come from the forward pass that the first inner step repeats, not from the sampler."""
  make(value_model=value_model, total_episodes=256).run(**RUN)
  entries = log_of(tmp_path)
  assert [entry["first_ratio_error"] for entry in entries] == [0.0] * 4
  assert entries[0]["kl"] == pytest.approx(0.0, abs=1e-5) and entries[-1]["kl"] != 0.0
  assert entries[0]["approx_kl"] > 0, "later inner steps do move the ratio"


def lora(**more):
  from peft import LoraConfig

  return LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=16, target_modules="all-linear", **more)


def test_a_lora_policy_is_its_own_reference(make, tmp_path):
  run = make(peft_config=lora(), total_episodes=192, learning_rate=1e-2, value_learning_rate=1e-2)
  frozen = {name: p.clone() for name, p in run.plain.named_parameters() if not p.requires_grad}
  summary = run.run(**RUN)
  entries = log_of(tmp_path)
  assert [entry["first_ratio_error"] for entry in entries] == [0.0] * 3
  assert entries[0]["kl"] == pytest.approx(0.0, abs=1e-5), "fresh adapters change nothing"
  assert entries[-1]["kl"] > 1e-3
  assert all(torch.equal(p, frozen[name]) for name, p in run.plain.named_parameters() if name in frozen)
  assert summary.updates == 3


def test_gradients_do_not_depend_on_how_a_mini_batch_is_cut_up(make, tmp_path):
  """Micro-batches of 8 and 32: catches a mean of means, and padding that reaches the loss."""
  losses = []
  for size in (8, 32):
    out = tmp_path / str(size)
    out.mkdir()
    run = make(out=out, total_episodes=128, per_device_train_batch_size=size, gradient_accumulation_steps=64 // size)
    run.run(**RUN)
    losses.append([torch.cat([p.detach().flatten() for p in run.plain.parameters()]), log_of(out)])
  assert torch.allclose(losses[0][0], losses[1][0], atol=2e-4)
  for small, large in zip(losses[0][1], losses[1][1], strict=True):
    assert small["policy_loss"] == pytest.approx(large["policy_loss"], abs=1e-4)
    assert small["value_loss"] == pytest.approx(large["value_loss"], abs=1e-4)


@pytest.mark.parametrize("value_model", ["policy", "shared"])
def test_packed_rows_are_the_same_run_as_padded_ones(make, value_model, tmp_path):
  """Three prompts in batches of 32 answers: each stands once in a row. Answers, batches and order are the same."""
  logs, weights = [], []
  for packed in (True, False):
    out = tmp_path / str(packed)
    out.mkdir()
    run = make(out=out, value_model=value_model, packed=packed, total_episodes=64, learning_rate=1e-4)
    assert (run.why_padded is None) == packed
    before = run.policy.model.config._attn_implementation
    run.run(**RUN)
    assert run.policy.model.config._attn_implementation == before
    logs.append(log_of(out))
    weights.append(torch.cat([p.detach().flatten() for p in run.plain.parameters()]))
  (packed,), (padded,) = logs
  assert packed["first_ratio_error"] == padded["first_ratio_error"] == 0.0
  for name in {*padded} - {"seconds"}:
    assert packed[name] == pytest.approx(padded[name], abs=1e-5), name
  assert torch.allclose(*weights, atol=1e-5)


def test_what_lies_behind_an_answer_changes_nothing(make):
  """A value function that explodes behind the end leaves advantages and returns alone."""
  run = make()
  rollout = run._roll_out(0)
  assert not rollout.live.all(), "some answers must be shorter than the longest for this to test anything"
  before = ppo.targets_of(rollout, run.settings, run.kl_coef)
  rollout.values = torch.where(rollout.live, rollout.values, T(1e6))
  after = ppo.targets_of(rollout, run.settings, run.kl_coef)
  assert all(torch.equal(old[rollout.live], new[rollout.live]) for old, new in zip(before, after, strict=True))


def test_an_answer_that_did_not_end_pays_for_it(make):
  free, fined = make(), make(missing_eos_penalty=2.0)
  rollout = free._roll_out(0)
  assert 0 < rollout.finished.sum() < len(rollout.finished)
  paid = (
    ppo.targets_of(rollout, free.settings, free.kl_coef)[1] - ppo.targets_of(rollout, fined.settings, fined.kl_coef)[1]
  )
  last = rollout.live.sum(1) - 1
  at_end = paid[torch.arange(len(last)), last]
  assert torch.allclose(at_end, 2.0 * (~rollout.finished).float())


def test_a_bandit_ends_near_the_optimum_of_the_penalised_objective(make, tmp_path):
  """One-token answers with a reward table: the optimum of E[r] - beta KL(p||q) is p proportional to q exp(r / beta)."""
  beta, out = 0.5, tmp_path
  generator = torch.Generator().manual_seed(3)
  table = torch.rand(400, generator=generator)

  def rewards(prompts, completions, tools):
    return [table[int(completion[0]["content"])].item() for completion in completions]

  run = make(
    rewards,
    out=out,
    prompts=1,
    response_length=1,
    kl_coef=beta,
    total_episodes=24 * 256,
    per_device_train_batch_size=128,
    local_rollout_forward_batch_size=256,
    learning_rate=3e-3,
    lr_scheduler_type="linear",
  )
  run.prompts = [Prompt([1], run.prompts[0].messages)]
  run.policy.reply = lambda ids: [{"role": "assistant", "content": str(ids[0])}]
  ids = T([run.prompts[0].ids])

  def distribution():
    with torch.no_grad():
      return torch.softmax(run.policy.model(ids).logits[0, -1], -1)

  q = distribution()
  optimum = q * torch.exp(table[: len(q)] / beta)
  optimum = optimum / optimum.sum()

  def objective(p):
    return ((p * table[: len(q)]).sum() - beta * (p * (p / q).log()).sum()).item()

  run.run(**RUN)
  p = distribution()
  distance = [0.5 * (one - optimum).abs().sum().item() for one in (q, p)]
  assert distance[0] > 0.2, "the reward must matter for this to test anything"
  assert distance[1] < 0.35 * distance[0]
  gain = (objective(p) - objective(q)) / (objective(optimum) - objective(q))
  assert gain > 0.9


# ---- stopping -----------------------------------------------------------------------------------------------------


def test_a_reward_that_is_no_number_stops_the_run_at_its_update(make):
  calls = []

  def rewards(prompts, completions, tools):
    calls.append(1)
    return [math.nan if len(calls) == 2 else 0.0 for _ in completions]

  with pytest.raises(RunError, match="update 2 of 4: a reward is NaN or infinite") as caught:
    make(rewards).run(**RUN | {"save_steps": 1})
  assert "checkpoint-1 is the last good checkpoint" in caught.value.where


def test_a_loss_that_is_no_number_stops_the_run_before_the_weights_are_touched(make, monkeypatch):
  run, targets = make(), ppo.targets_of
  monkeypatch.setattr(ppo, "targets_of", lambda *given: tuple(tensor * math.nan for tensor in targets(*given)))
  with pytest.raises(RunError, match="update 1 of 4: the loss became nan"):
    run.run(**RUN)
  assert all(p.isfinite().all() for p in run.plain.parameters())


def test_an_exploded_kl_stops_the_run(make, monkeypatch):
  monkeypatch.setattr(ppo, "EXPLODED", 0.02)
  with pytest.raises(RunError, match=r"update [234] of 4: the KL exploded to 0\.\d nats per token") as caught:
    make(learning_rate=1e-2, kl_coef=0.0).run(**RUN)
  assert "--max_kl" in caught.value.hint


def test_the_kl_budget_ends_the_run_with_the_policy_that_was_measured(make, tmp_path):
  run = make(learning_rate=5e-3, kl_coef=0.0, max_kl=0.3, total_episodes=64 * 50)
  summary = run.run(**RUN)
  entries = log_of(tmp_path)
  assert summary.updates < 50 and "over --max_kl 0.3" in summary.stopped
  assert entries[-1]["kl"] > 0.3 >= max(entry["kl"] for entry in entries[:-1])
  assert "policy_loss" not in entries[-1], "nothing is learned from the update that is over the budget"


def test_the_adaptive_controller_raises_the_price_of_a_kl_over_its_target(make, tmp_path):
  make(learning_rate=5e-3, target_kl=0.01, total_episodes=64 * 4).run(**RUN)
  prices = [entry["kl_coef"] for entry in log_of(tmp_path)]
  assert prices[1] == pytest.approx(0.1 * 0.98) and prices[3] > prices[2]


# ---- resuming -----------------------------------------------------------------------------------------------------


def test_a_resumed_run_ends_where_an_undisturbed_one_does(make, tmp_path):
  changed = {"target_kl": 0.05, "lr_scheduler_type": "linear", "total_episodes": 64 * 4}
  whole = make(out=tmp_path / "whole", **changed)
  (tmp_path / "whole").mkdir()
  whole.run(**RUN | {"save_steps": 2})
  resumed = make(out=tmp_path / "resumed", **changed)
  (tmp_path / "resumed").mkdir()
  resumed.run(str(tmp_path / "whole" / "checkpoint-2"), **RUN)
  for one, two in zip(whole.plain.parameters(), resumed.plain.parameters(), strict=True):
    assert torch.equal(one, two)
  first, second = log_of(tmp_path / "whole")[2:], log_of(tmp_path / "resumed")
  for entry in (*first, *second):
    entry.pop("seconds")
  assert first == second


@pytest.mark.parametrize("peft_config", [False, True], ids=["whole", "lora"])
def test_a_checkpoint_is_a_policy_that_samples_as_the_run_did_and_resumes_to_the_same_weights(
  make, tmp_path, peft_config
):
  changed = {"total_episodes": 64 * 4, "learning_rate": 5e-3}
  (tmp_path / "whole").mkdir(), (tmp_path / "resumed").mkdir()
  whole = make(out=tmp_path / "whole", peft_config=lora() if peft_config else None, **changed)
  learn, at_two = whole._learn, {}

  def watched(update, rollout):
    if update == 2:
      ids = rollout.prompts[0].ids
      at_two["logits"] = whole.policy.model(T([ids])).logits.detach()
      at_two["ids"] = ids
    return learn(update, rollout)

  whole._learn = watched
  whole.run(**RUN | {"save_steps": 2})
  checkpoint = tmp_path / "whole" / "checkpoint-2"
  policy = Policy.from_pretrained(str(checkpoint), device="cpu")
  with torch.no_grad():
    found = policy.model(T([at_two["ids"]])).logits
  assert torch.allclose(found, at_two["logits"], atol=1e-4)
  assert policy.generation_config.eos_token_id == whole.policy.generation_config.eos_token_id
  resumed = make(out=tmp_path / "resumed", peft_config=lora() if peft_config else None, **changed)
  resumed.run(str(checkpoint), **RUN)
  for one, two in zip(whole.plain.parameters(), resumed.plain.parameters(), strict=True):
    assert torch.equal(one, two)
