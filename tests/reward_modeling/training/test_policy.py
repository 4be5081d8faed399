"""A policy's prompts, answers and probabilities: what is written, what it is worth, and what batches must not change."""

import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from architectures import build, exact
from conftest import save_tiny
from reward_modeling.attention import shared_prefix
from reward_modeling.errors import ModelError, UsageError
from reward_modeling.training import actor_critic, ppo
from reward_modeling.training import policy as policies
from reward_modeling.training.actor_critic import AnswerBatch
from reward_modeling.training.loop import without_dropout
from reward_modeling.training.policy import Policy, sample

ASKED = [{"role": "user", "content": "hello world"}]
OTHERS = ["red", "one two three four five six", "What is the capital of France?"]


@pytest.fixture(scope="module", params=["qwen2", "llama", "gemma2"])
def policy(request, tiny):
  return Policy.from_pretrained(str(tiny(request.param)), device="cpu")


@pytest.fixture(scope="module")
def prompts(policy):
  return [policy.renderer.prompt_ids([{"role": "user", "content": text}]) for text in OTHERS]


# ---- prompts and answers ------------------------------------------------------------------------------------------


def test_a_prompt_ends_where_the_answer_begins_and_an_answer_comes_back_as_its_text(policy):
  head = policy.renderer.prompt_ids(ASKED)
  whole = policy.tokenizer(
    policy.renderer.text([*ASKED, {"role": "assistant", "content": "blue green"}]), add_special_tokens=False
  )["input_ids"]
  assert whole[: len(head)] == head
  answer = policies.up_to_end(whole[len(head) :], policy.end_tokens)
  assert policy.finished(answer) and not policy.finished(answer[:-1])
  assert policy.reply(answer) == policy.reply(answer[:-1]) == [{"role": "assistant", "content": "blue green"}]


def test_the_blank_that_a_template_writes_is_no_part_of_an_answer(tmp_path):
  """The project's default template ends its prompts with `Assistant:` and writes a blank before each answer."""
  from reward_modeling.tokenizer_setup import default_template

  def edit(tokenizer):
    tokenizer.chat_template = default_template(tokenizer)

  policy = Policy.from_pretrained(str(save_tiny("qwen2", tmp_path / "m", edit=edit)), device="cpu")
  assert policy.gap == " "
  ids = policy.tokenizer(" blue green", add_special_tokens=False)["input_ids"]
  assert policy.reply(ids)[0]["content"] == "blue green"


def test_the_token_that_the_template_writes_after_an_answer_ends_it_too(tmp_path):
  def edit(tokenizer):
    tokenizer.eos_token = "<|endoftext|>"  # while the template writes <|im_end|>

  policy = Policy.from_pretrained(str(save_tiny("qwen2", tmp_path / "m", edit=edit)), device="cpu")
  assert set(policy.tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])) <= set(policy.end_tokens)


# ---- sampling -----------------------------------------------------------------------------------------------------


def test_an_answer_depends_on_its_number_only(policy, prompts):
  """Not on the other rows, their order or the size of the batch; catches a shared random state and padding."""
  together = sample(policy, prompts, max_new_tokens=8, seed=5)
  assert together == sample(policy, prompts, max_new_tokens=8, seed=5, batch_size=1)
  turned = sample(policy, prompts[::-1], max_new_tokens=8, seed=5, numbers=[2, 1, 0])
  assert turned[::-1] == together
  assert sample(policy, prompts, max_new_tokens=8, seed=6) != together
  repeated = sample(policy, [prompts[0]] * 8, max_new_tokens=8, seed=5)
  assert len({tuple(answer) for answer in repeated}) > 1


def test_padding_is_not_read_where_a_tokenizer_names_no_mask(tiny):
  policy = Policy.from_pretrained(str(tiny("gemma2")), device="cpu")
  policy.tokenizer.model_input_names, policy.tokenizer.pad_token = ["input_ids"], policy.tokenizer.eos_token
  prompts = [policy.renderer.prompt_ids([{"role": "user", "content": text}]) for text in OTHERS]
  together = sample(policy, prompts, max_new_tokens=8, temperature=0)
  assert together == [sample(policy, [one], max_new_tokens=8, temperature=0)[0] for one in prompts]


def test_greedy_answers_are_those_of_repeated_argmax(policy, prompts):
  for prompt, answer in zip(prompts, sample(policy, prompts, max_new_tokens=5, temperature=0), strict=True):
    ids = list(prompt)
    with torch.no_grad():
      for token in answer:
        assert token == policy.model(torch.tensor([ids])).logits[0, -1].argmax().item()
        ids.append(token)


def test_tokens_are_drawn_with_the_probabilities_of_the_tempered_distribution():
  """4,000 draws of one step against softmax(logits / T); catches a temperature that multiplies."""
  logits = torch.tensor([2.0, 0.0, 1.0, -1.0, -torch.inf])
  draws = torch.stack([policies.uniforms(1, number, 1) for number in range(4000)])
  chosen = policies.Draw(draws, 2.0)(None, logits.expand(4000, -1)).argmax(-1)
  share = torch.bincount(chosen, minlength=5) / 4000
  assert torch.allclose(share, torch.softmax(logits / 2.0, -1), atol=0.025)
  assert share[4] == 0


@pytest.mark.parametrize("u, token", [(0.0, 1), (0.25, 1), (0.5, 2), (0.999999, 2)])
def test_the_ends_of_the_unit_interval_draw_tokens_that_have_a_chance(u, token):
  logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]])
  assert policies.Draw(torch.tensor([[u]]), 1.0)(None, logits).argmax().item() == token


def test_generation_settings_of_the_checkpoint_do_not_leak_into_sampling(tmp_path):
  """A repetition penalty would sample from another distribution than the one whose probabilities are learned."""
  from transformers import GenerationConfig

  folder = save_tiny("qwen2", tmp_path / "m")
  plain = Policy.from_pretrained(str(folder), device="cpu")
  GenerationConfig(repetition_penalty=5.0, do_sample=True, top_k=1, eos_token_id=2).save_pretrained(folder)
  fussy = Policy.from_pretrained(str(folder), device="cpu")
  prompt = [plain.renderer.prompt_ids(ASKED)] * 4
  assert sample(plain, prompt, max_new_tokens=8) == sample(fussy, prompt, max_new_tokens=8)
  policies.save_policy(fussy, tmp_path / "saved", {})
  assert GenerationConfig.from_pretrained(tmp_path / "saved").repetition_penalty == 5.0, "it is put back on saving"


# ---- probabilities ------------------------------------------------------------------------------------------------


def alone(policy, prompt, answer, temperature):
  """Log-probability and entropy of each token of one answer, without batch, padding or cache."""
  with torch.no_grad():
    logits = policy.model(torch.tensor([prompt + answer])).logits[0].float() / temperature
  log_p = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]
  return log_p[range(len(answer)), answer], torch.distributions.Categorical(logits=log_p).entropy()


def padded(actor, policy, prompts, answers):
  return actor(AnswerBatch.of(prompts, answers, policy.model, policy.tokenizer.pad_token_id, packed=False))


def packed(actor, policy, prompts, answers):
  with shared_prefix(policy.model), shared_prefix(actor.trunk or policy.model):
    return actor(AnswerBatch.of(prompts, answers, policy.model, policy.tokenizer.pad_token_id, packed=True))


WAYS = pytest.mark.parametrize("way", [padded, packed])


@WAYS
def test_probabilities_in_a_batch_are_those_of_each_answer_alone(way, policy, prompts):
  answers = [[10, 20, 30, 40], [50], [60, 70]]
  actor = actor_critic.actor_critic(policy, "shared", 0.7)
  with torch.no_grad():
    log_probs, entropy, values = way(actor, policy, prompts, answers)
  assert log_probs.shape == entropy.shape == values.shape == (7,)
  each = [alone(policy, prompt, answer, 0.7) for prompt, answer in zip(prompts, answers, strict=True)]
  for found, expected in zip((log_probs, entropy), zip(*each, strict=True), strict=True):
    assert torch.allclose(found, torch.cat(expected), atol=1e-4)


@WAYS
def test_a_pad_token_inside_an_answer_is_read_like_any_other(way, policy, prompts):
  answer = [10, policy.tokenizer.pad_token_id, 30]
  with torch.no_grad():
    log_probs, _, _ = way(actor_critic.actor_critic(policy, "shared", 1.0), policy, prompts[:2], [answer, [40]])
  assert torch.allclose(log_probs[:3], alone(policy, prompts[0], answer, 1.0)[0], atol=1e-4)


@WAYS
def test_a_value_belongs_to_what_was_written_before_its_token(way, policy, prompts):
  """Changing answer token t changes the values from t + 1 on, not that of t."""
  actor = actor_critic.actor_critic(policy, "policy", 1.0)
  torch.nn.init.normal_(actor.head.weight)
  with torch.no_grad():
    first, second = (way(actor, policy, prompts[:1], [answer])[2] for answer in ([10, 20, 30], [10, 99, 30]))
  assert torch.equal(first[:2], second[:2]) and first[2] != second[2]


@WAYS
def test_value_models_start_at_nothing_or_at_the_reward_model(way, tiny, toy_model):
  policy = Policy.from_pretrained(str(tiny("qwen2")), device="cpu")
  prompt = policy.renderer.prompt_ids(ASKED)
  row = policy, [prompt], [[10, 20]]
  for kind in ("policy", "shared"):
    with torch.no_grad():
      assert not way(actor_critic.actor_critic(policy, kind, 1.0), *row)[2].any()
  with torch.no_grad():
    value = way(actor_critic.actor_critic(policy, str(toy_model[0]), 1.0), *row)[2][1]
  from reward_modeling.scoring import RewardModel

  reward = RewardModel.from_pretrained(str(toy_model[0])).score_ids([[*prompt, 10]])[0]
  assert value.item() == pytest.approx(reward, abs=1e-5), "the value after a token is the reward model's score of it"


def shape(lengths):
  return st.lists(st.lists(st.integers(1, 63), **lengths), min_size=1, max_size=3)


@settings(max_examples=25, deadline=None)
@given(shape({"min_size": 1, "max_size": 24}), shape({"min_size": 1, "max_size": 12}), st.data())
def test_losses_and_gradients_of_packed_answers_are_those_of_padded_ones(exact_actor, prompts, answers, data):
  """Answers to one prompt, equal answers, and prompts that are a prefix of one another, in float64."""
  prompts = [prompts[0][:9], *prompts]
  rows = data.draw(st.lists(st.tuples(st.sampled_from(prompts), st.sampled_from(answers)), min_size=1, max_size=6))
  asked, written = map(list, zip(*rows, strict=True))
  count = sum(map(len, written))
  policy, actor = exact_actor
  old, advantages, returns = torch.randn(3, count, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
  found = []
  for way in (padded, packed):
    actor.zero_grad()
    log_probs, _, values = way(actor, policy, asked, written)
    loss = ppo.policy_loss(log_probs, old - 3, advantages, 0.2)[0] + ppo.value_loss(values, old, returns, 0.2)[0]
    loss.sum().backward()
    found.append([loss.detach(), *(p.grad.clone() for p in actor.parameters() if p.grad is not None)])
  assert len(found[0]) == len(found[1]) > 20
  for one, two in zip(*found, strict=True):
    assert torch.allclose(one, two, atol=1e-10 * (1 + one.abs().max().item()), rtol=0)


@pytest.fixture(scope="module", params=["policy", "shared"])
def exact_actor(request):
  model = exact(build("qwen2", {}, auto="AutoModelForCausalLM"))
  tokenizer = SimpleNamespace(pad_token_id=0)
  policy = SimpleNamespace(model=model, device=torch.device("cpu"), tokenizer=tokenizer)
  actor = actor_critic.actor_critic(policy, request.param, 0.7).double()
  torch.nn.init.normal_(actor.head.weight)
  return policy, actor


def test_a_value_model_with_another_tokenizer_is_refused(tiny, tmp_path):
  def edit(tokenizer):
    tokenizer.add_tokens(["<another>"])

  policy = Policy.from_pretrained(str(tiny("qwen2")), device="cpu")
  other = save_tiny("llama", tmp_path / "other", head=1, edit=edit)
  with pytest.raises(UsageError, match="another tokenizer than the policy"):
    actor_critic.actor_critic(policy, str(other), 1.0)
  encoder = save_tiny("bert", tmp_path / "encoder", head=1)
  with pytest.raises(UsageError, match="is an encoder"):
    actor_critic.actor_critic(policy, str(encoder), 1.0)


def test_dropout_is_switched_off(tmp_path):
  folder = save_tiny("qwen2", tmp_path / "m")
  policy = Policy.from_pretrained(str(folder), device="cpu")
  policy.model.model.layers[0].self_attn.attention_dropout = 0.5
  without_dropout(policy.model).train()
  ids = torch.tensor([[1, 2, 3]])
  assert torch.equal(policy.model(ids).logits, policy.model(ids).logits)


# ---- what is refused ----------------------------------------------------------------------------------------------


def test_a_reward_model_is_no_policy(toy_model):
  with pytest.raises(ModelError, match="is not a policy: its architecture is Qwen2ForSequenceClassification"):
    Policy.from_pretrained(str(toy_model[0]))


def test_a_policy_needs_a_template_and_an_end(tmp_path):
  def no_template(tokenizer):
    tokenizer.chat_template = None

  def no_end(tokenizer):
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.eos_token = None

  with pytest.raises(ModelError, match="has no chat template") as caught:
    Policy.from_pretrained(str(save_tiny("qwen2", tmp_path / "a", edit=no_template)))
  assert "--chat_template_path" in caught.value.hint
  endless = save_tiny("qwen2", tmp_path / "b", edit=no_end)
  (endless / "generation_config.json").unlink()
  config = json.loads((endless / "config.json").read_text())
  (endless / "config.json").write_text(json.dumps(config | {"eos_token_id": None}))
  with pytest.raises(ModelError, match="has no EOS token") as caught:
    Policy.from_pretrained(str(endless))
  assert "--stop_token_id" in caught.value.hint
  assert Policy.from_pretrained(str(endless), stop_token_id=7, device="cpu").end_tokens == (7,)


@pytest.mark.parametrize(
  ("context", "given", "expected"),
  [(None, None, 256), (512, None, 256), (4096, None, 256), (300, None, 150), (1, None, 1), (300, 280, 280)],
)
def test_the_default_length_of_answers_follows_the_policys_context(context, given, expected, capsys):
  from types import SimpleNamespace

  from reward_modeling.training.prompts import new_tokens

  assert new_tokens(SimpleNamespace(context=context), given, 256, "--max_new_tokens") == expected
  said = f"--max_new_tokens {expected}: half of the {context} tokens that the policy reads (otherwise 256)"
  assert (said in capsys.readouterr().err) == (given is None and expected < 256)
