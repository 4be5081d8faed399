"""Rewards at the ends of steps: by hand, by their laws, on the tokens of a policy, and as GRPO's advantages."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import tiny_tokenizer
from reward_modeling.aggregation import STEP_FORMS
from reward_modeling.rendering import Conversation
from reward_modeling.step_rendering import split_steps, steps_and_ends
from reward_modeling.training import ppo
from reward_modeling.training.policy import Policy
from reward_modeling.training.step_rewards import Reward, placed, step_advantages

SCORES = st.lists(st.floats(-5, 5), min_size=1, max_size=6)
T = torch.tensor


# ---- what a step earns --------------------------------------------------------------------------------------------


def test_by_hand():
  """Scores 0.9, 0.4, 0.8. Differences 0.9, -0.5, 0.4. At T = 0.1 the weights are e^-5, 1 and e^-4 over their sum."""
  assert STEP_FORMS["difference"]([0.9, 0.4, 0.8], 0.1) == pytest.approx([0.9, -0.5, 0.4])
  small, whole = (math.exp(-5), math.exp(-4)), 1 + math.exp(-5) + math.exp(-4)
  expected = [0.9 * small[0] / whole, 0.4 / whole, 0.8 * small[1] / whole]
  assert STEP_FORMS["min"]([0.9, 0.4, 0.8], 0.1) == pytest.approx(expected)


@given(SCORES)
def test_differences_add_up_to_the_last_score(scores):
  earned = STEP_FORMS["difference"](scores, 0.1)
  assert math.fsum(earned) == pytest.approx(scores[-1], abs=1e-9)
  assert [math.fsum(earned[: k + 1]) for k in range(len(scores))] == pytest.approx(scores, abs=1e-9)


@given(SCORES, st.floats(0.01, 10))
def test_the_min_form_is_a_weighted_mean_that_approaches_the_lowest_score_and_the_mean(scores, temperature):
  """Weights are positive and add up to 1, larger for lower scores: from T = 0 (the lowest) to infinity (the mean)."""
  total = math.fsum(STEP_FORMS["min"](scores, temperature))
  assert min(scores) - 1e-9 <= total <= math.fsum(scores) / len(scores) + 1e-9
  assert math.fsum(STEP_FORMS["min"](scores, 1e6)) == pytest.approx(math.fsum(scores) / len(scores), abs=1e-3)
  constant = STEP_FORMS["min"]([1.0] * len(scores), temperature)
  assert constant == pytest.approx([1 / len(scores)] * len(scores))


@pytest.mark.parametrize("name", ["difference", "min"])
@pytest.mark.parametrize("score", [0.0, 0.3, -2.0])
def test_a_single_step_earns_its_score(name, score):
  assert STEP_FORMS[name]([score], 0.1) == [score]


# ---- on which token -----------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["a", "bb", " ", "\n", "\n\n", "é", "🙂"]), max_size=12))
def test_steps_are_those_that_the_model_reads_and_end_after_their_separator(pieces):
  text = "".join(pieces)
  for separator in ("\n", "\n\n"):
    found = steps_and_ends(text, separator)
    assert [step for step, _ in found] == split_steps(text, separator)
    for step, end in found:
      assert f"{text}{separator}"[:end].endswith(step + separator)


def policy_of(tokenizer, gap=""):
  from reward_modeling.rendering import Renderer

  return Policy(None, Renderer(tokenizer, max_length=None), (2,), gap, None)


@pytest.mark.parametrize("gap", ["", "\n"])
@pytest.mark.parametrize("end", [[2], []])
@pytest.mark.parametrize("text", ["one two\nthree\n", "one two\nthree", "é🙂é\n\nred\nblue", "one"])
def test_a_step_is_rewarded_at_the_token_with_which_it_ends(text, gap, end):
  """Found one token after the other here; the last step without a separator ends with the answer, its end token included."""
  tokenizer = tiny_tokenizer("qwen2")
  ids = tokenizer(gap + text, add_special_tokens=False)["input_ids"] + end
  found = policy_of(tokenizer, gap).tokens_at(ids, [end for _, end in steps_and_ends(text, "\n")])
  expected = []
  for _, characters in steps_and_ends(text, "\n"):
    so_far = [len(tokenizer.decode(ids[: n + 1], skip_special_tokens=True)) for n in range(len(ids))]
    reached = [n for n, length in enumerate(so_far) if length >= characters + len(gap)]
    expected.append(reached[0] if reached else len(ids) - 1)
  assert found == expected
  if text.endswith("\n"):
    assert found[-1] == len(ids) - 1 - len(end)
  else:
    assert found[-1] == len(ids) - 1


# ---- in PPO -------------------------------------------------------------------------------------------------------


def test_tokens_of_ppo_by_hand():
  """0.7 of which 0.9 and -0.5 come at tokens 1 and 2 of four, so 0.3 at the end; gamma = lambda = 1 and V = 0."""
  reward = Reward(0.7, ((1, 0.9), (2, -0.5)))
  earned, live = placed([reward, Reward(0.2)], 4), T([[True] * 4, [True, True, False, False]])
  assert torch.allclose(earned, T([[0, 0.9, -0.5, 0], [0, 0, 0, 0.0]]))
  at_end = T([0.7, 0.2]) - earned.sum(1)
  tokens = ppo.token_rewards(at_end, torch.zeros(2, 4), live, 0.0) + earned
  advantages, _ = ppo.gae(tokens, torch.zeros(2, 4), live, 1.0, 1.0)
  assert torch.allclose(advantages, T([[0.7, 0.7, -0.2, 0.3], [0.2, 0.2, 0, 0]]))


# ---- in GRPO ------------------------------------------------------------------------------------------------------


def of_trl(totals, group, scale):
  """GRPOTrainer._generate_and_score_completions, by its formula."""
  grouped = T(totals).view(-1, group)
  found = (grouped - grouped.mean(1, keepdim=True)).flatten()
  if scale == "group":
    found = found / (grouped.std(1).repeat_interleave(group) + 1e-4)
  return found / (T(totals).std() + 1e-4) if scale == "batch" else found


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_answers_in_one_step_have_the_advantages_of_outcome_rewards(scale):
  """Whether their reward comes at the end, or at their last token as that of a step."""
  totals, lengths = [1.0, 0.5, -1.0, 0.0, 0.0, 2.0], [3, 1, 2, 4, 2, 1]
  expected = of_trl(totals, 3, scale)
  for rewards in (
    [Reward(total) for total in totals],
    [Reward(total, ((length - 1, total),)) for total, length in zip(totals, lengths, strict=True)],
  ):
    found = step_advantages(rewards, lengths, 5, 3, scale)
    live = torch.arange(5) < T(lengths)[:, None]
    assert torch.allclose(found, expected[:, None] * live)


def test_advantages_by_hand():
  """Two answers of four tokens: 0.9 then -0.5 at tokens 1 and 3; 0.2 at token 0, then nothing more, and 0.4 at the end.

  From their first step on: 0.4 and 0.6, mean 0.5. From the second on: -0.5 and 0.4, mean -0.05.
  """
  rewards = [Reward(0.4, ((1, 0.9), (3, -0.5))), Reward(0.6, ((0, 0.2),))]
  found = step_advantages(rewards, [4, 4], 4, 2, "none")
  assert torch.allclose(found, T([[-0.1, -0.1, -0.45, -0.45], [0.1, 0.45, 0.45, 0.45]]))


def test_the_first_step_is_credited_with_everything_and_a_step_that_none_reached_with_nothing():
  rewards = [Reward(1.0, ((0, 0.5), (2, 0.5))), Reward(0.0, ((1, 0.0),)), Reward(math.nan)]
  found = step_advantages(rewards, [4, 2, 3], 4, 3, "none")
  assert found[0].tolist() == [0.5, 0, 0, 0], "no other answer got to a second step, to be compared with"
  assert found[1, :2].tolist() == [-0.5, -0.5] and not found[2].any()


def test_the_expected_gradient_is_that_of_the_expected_reward():
  """By enumeration of all pairs of answers of a policy that decides after its first step whether it writes a second one.

  Tokens: one of two first steps, then stop or go on, and a second step of two. In a group of two the mean takes in the
  answer itself, which halves each of the two gradients.
  """
  logits = T([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
  first, goes_on, second = torch.sigmoid(logits)
  answers = []
  for a in (0, 1):
    answers.append((((first if a else 1 - first) * (1 - goes_on)), [a, 0], ((0, float(a)),)))
    for b in (0, 1):
      chance = (first if a else 1 - first) * goes_on * (second if b else 1 - second)
      answers.append((chance, [a, 1, b], ((0, float(a)), (2, 2.0 * b - 0.5))))

  def logp(one):
    choices = [first if one[1][0] else 1 - first, goes_on if one[1][1] else 1 - goes_on]
    if len(one[1]) == 3:
      choices.append(second if one[1][2] else 1 - second)
    return torch.stack(choices).log()

  objective = torch.zeros((), dtype=torch.float64)
  for one in answers:
    for other in answers:
      rewards = [Reward(sum(earned for _, earned in each[2]), each[2]) for each in (one, other)]
      lengths = [len(each[1]) for each in (one, other)]
      weights = step_advantages(rewards, lengths, 3, 2, "none").double()
      surrogate = sum((w[:n] * logp(each)).sum() for w, n, each in zip(weights, lengths, (one, other), strict=True))
      objective = objective + (one[0] * other[0]).detach() * surrogate
  found = torch.autograd.grad(objective, logits, retain_graph=True)[0]
  expected = sum(one[0] * sum(earned for _, earned in one[2]) for one in answers)
  truth = torch.autograd.grad(expected, logits)[0]
  assert torch.allclose(found, truth, atol=1e-6)


# ---- of what a policy writes --------------------------------------------------------------------------------------


@pytest.fixture
def rewarded(toy_process_model):
  """rewarded(texts, **settings) -> (rewards, PolicyRewards) of these replies to a prompt, by the toy process model."""
  from reward_modeling.training.prompts import Prompt
  from reward_modeling.training.rewards import PolicyRewards
  from reward_modeling.training.settings import RewardSettings

  def reward(texts, **settings):
    tokenizer = tiny_tokenizer("qwen2")
    chosen = RewardSettings(reward_model_path=[str(toy_process_model)], **settings)
    made = PolicyRewards(chosen, policy_of(tokenizer), [], "cpu")
    asked = Prompt([], [{"role": "user", "content": "hello"}])
    replies = [[{"role": "assistant", "content": text}] for text in texts]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] + [2] for text in texts]
    return made([asked] * len(texts), replies, ids), made

  return reward


@pytest.mark.parametrize("form", ["outcome", "difference", "min"])
def test_answers_without_a_step_and_steps_that_do_not_fit_are_counted_and_earn_nothing(rewarded, form):
  whole, made = rewarded(["red\nblue\ngreen", "", " \n"], step_rewards=form)
  assert [one.total for one in whole[1:]] == [0, 0] and not whole[1].steps
  assert made.finish()[0]["answer_steps"] == {"mean": 1.0, "unsplit": 0.0, "unscored": 0, "empty": 2}
  long = "red\nblue\n" * 60
  (cut,), made = rewarded([long], step_rewards=form)
  conversation = Conversation([{"role": "user", "content": "hello"}], [{"role": "assistant", "content": long}])
  scores = made.models.models["model"].score_in_steps([conversation])[0][1]
  assert scores.dropped > 0 and made.finish()[0]["answer_steps"] == {
        "mean": 120.0, "unsplit": 0.0, "unscored": scores.dropped, "empty": 0,
    }  # fmt: skip
  known = [one for one in scores.probabilities if one is not None]
  expected = {"outcome": min(known), "difference": known[-1], "min": math.fsum(STEP_FORMS["min"](known, 0.1))}
  assert cut.total == pytest.approx(expected[form], abs=1e-6)
  assert len(cut.steps) == (0 if form == "outcome" else len(known))


def test_one_step_earns_what_the_outcome_is_worth_at_the_end(rewarded):
  outcome, _ = rewarded(["red apples"], step_rewards="outcome")
  for form in ("difference", "min"):
    (found,), made = rewarded(["red apples"], step_rewards=form)
    assert found.total == pytest.approx(outcome[0].total, abs=1e-6)
    (token, earned), last = found.steps[0], len(made.ids[0]) - 1
    assert token == last and earned == found.total
    live = torch.ones(1, last + 1, dtype=torch.bool)
    whole = ppo.token_rewards(T([outcome[0].total]), torch.zeros(1, last + 1), live, 0.0)
    assert torch.allclose(placed([found], last + 1), whole)


def test_weights_hold_for_steps(rewarded):
  plain, _ = rewarded(["red\nblue"], step_rewards="difference")
  half, _ = rewarded(["red\nblue"], step_rewards="difference", reward_weights=[-0.5])
  assert half[0].total == pytest.approx(-0.5 * plain[0].total)
  for (_, one), (_, two) in zip(half[0].steps, plain[0].steps, strict=True):
    assert one == pytest.approx(-0.5 * two)


def test_the_reward_does_not_depend_on_what_else_is_in_the_batch(rewarded):
  texts = ["red\nblue\ngreen", "one", "two three\nfour\n", "hello world\n\nred"]
  together, _ = rewarded(texts, step_rewards="min")
  for text, one in zip(texts, together, strict=True):
    (alone,), _ = rewarded([text], step_rewards="min")
    assert alone.total == pytest.approx(one.total, abs=1e-5)
    assert [token for token, _ in alone.steps] == [token for token, _ in one.steps]
