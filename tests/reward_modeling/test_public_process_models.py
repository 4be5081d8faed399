"""Public process, pairwise and log-ratio models: each formula by hand in plain torch, on texts written by hand."""

import math
import shutil

import pytest
import torch
from public_process_models import MODELS

from conftest import run_main, write_jsonl
from reward_modeling import ProcessRewardModel, RewardModel, process, readers
from reward_modeling.errors import DataError, ModelError, UsageError
from reward_modeling.pairwise import PairwiseModel
from reward_modeling.settings import ScoringSettings

SOLUTIONS = [("What is 2 + 3?", ["First add.", "It is five: 5.", "So 5"]), ("Four and four?", ["Eight"])]
SYSTEM = "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
LLAMA = "<|start_header_id|>{}<|end_header_id|>\n\n"
DATE = LLAMA.format("system") + "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
BOS = "<|begin_of_text|>"


@pytest.fixture(scope="session")
def public(tmp_path_factory):
  """public(id) -> the folder of its stand-in, whose path ends as the id does; made once a session."""
  root = tmp_path_factory.mktemp("public")

  def make(name: str, seed: int = 0) -> str:
    folder = root / str(seed) / name.replace("/", "--")
    return str(folder if folder.exists() else MODELS[name](folder, seed))

  return make


def weights(folder):
  from safetensors.torch import load_file

  return load_file(f"{folder}/model.safetensors")


def states(folder, ids):
  """[T, H] last hidden states of the trunk that these tensors are, by the causal class of transformers."""
  from transformers import AutoConfig, AutoModelForCausalLM

  config = AutoConfig.from_pretrained(folder)
  model = AutoModelForCausalLM.from_pretrained(folder, config=config).eval()
  with torch.no_grad():
    out = model(torch.tensor([ids]), output_hidden_states=True)
  return out.hidden_states[-1][0], out.logits[0]


def qwen(question, steps):
  return f"{SYSTEM}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n" + "".join(
    f"{step}<extra_0>" for step in steps
  )


def replies(question, steps):
  asked = [f"{question} {steps[0]}", *steps[1:]]
  turns = (f"{LLAMA.format('user')}{step}<|eot_id|>{LLAMA.format('assistant')}" for step in asked)
  return BOS + DATE + "+<|eot_id|>".join(turns)


def mlp(own, states):
  hidden = torch.relu(states @ own["score.0.weight"].T + own["score.0.bias"])
  return (hidden @ own["score.2.weight"].T + own["score.2.bias"]).softmax(-1)[:, 1]


def tokens(*pieces):
  """The probability of the first of two tokens, named as in the vocabulary."""

  def read(tokenizer, logits):
    good, bad = tokenizer.convert_tokens_to_ids(list(pieces))
    return torch.sigmoid(logits[:, good] - logits[:, bad])

  return read


# id -> (the texts that are tokenized one by one, what stands at the places that are read, the score of each there)
BY_HAND = {
  "Qwen/Qwen2.5-Math-PRM-7B": (lambda q, s, t: [qwen(q, s)], "<extra_0>", lambda w, t, h, x: mlp(w, h)),
  "Gen-Verse/ReasonFlux-PRM-7B": (lambda q, s, t: [qwen(q, s)], "<extra_0>", lambda w, t, h, x: mlp(w, h)),
  "jinachris/PURE-PRM-7B": (
    lambda q, s, t: [q, *(part for step in s for part in (step, "\n"))],
    "Ċ",
    lambda w, t, h, x: 2 * mlp(w, h) - 1,
  ),
  "Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B": (
    lambda q, s, t: [f"<|endoftext|>{q}\n", *(part for step in s for part in (step, "\n"))],
    "Ċ",
    lambda w, t, h, x: torch.sigmoid(h @ w["v_head.summary.weight"][0] + w["v_head.summary.bias"]),
  ),
  "HuggingFaceH4/Qwen2.5-Math-1.5B-Instruct-PRM-0.2": (
    lambda q, s, t: [q, *(part for step in s for part in (step, "\n\n"))],
    "ĊĊ",
    lambda w, t, h, x: (h @ w["score.weight"].T + w["score.bias"]).softmax(-1)[:, 1],
  ),
  "peiyi9979/math-shepherd-mistral-7b-prm": (
    lambda q, s, t: [f"<s>{q} " + "\n".join(f"{step} ки" for step in s)],
    "▁ки",
    lambda w, t, h, x: tokens("▁+", "▁-")(t, x),
  ),
  "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data": (
    lambda q, s, t: [replies(q, s)],
    None,  # the last token of the header of each reply
    lambda w, t, h, x: tokens("+", "-")(t, x),
  ),
  "UW-Madison-Lee-Lab/VersaPRM": (
    lambda q, s, t: [f"{BOS}{q} \n\n" + "".join(f"{step} \n\n\n\n" for step in s)],
    "ĠĊĊĊĊ",
    lambda w, t, h, x: tokens("+", "-")(t, x),
  ),
  "openreasoner/Math-psa": (
    lambda q, s, t: [f"{q} \n\n" + "".join(f"{step} \n\n\n\n\n " for step in s)],
    "ĠĊĊĊĊĊ",
    lambda w, t, h, x: tokens("Ġ+", "Ġ-")(t, x),
  ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_steps_get_the_number_of_the_formula(name, public):
  text, read_at, score = BY_HAND[name]
  folder = public(name)
  model = ProcessRewardModel.from_pretrained(folder, device="cpu")
  tokenizer, own = model.renderer.tokenizer, weights(folder)
  wanted = []
  for question, steps in SOLUTIONS:
    ids = [i for part in text(question, steps, tokenizer) for i in tokenizer(part, add_special_tokens=False).input_ids]
    if read_at:
      tag = tokenizer.convert_tokens_to_ids(read_at)
      places = [i for i, token in enumerate(ids) if token == tag][-len(steps) :]
    else:
      reply = tokenizer.convert_tokens_to_ids("<|end_header_id|>")
      places = [i + 1 for i, token in enumerate(ids) if token == reply][2::2]
    hidden, logits = states(folder, ids)
    wanted.append(score(own, tokenizer, hidden[places], logits[places]).tolist())
  asked = [question for question, _ in SOLUTIONS], [steps for _, steps in SOLUTIONS]
  together = model.score_steps(*asked)
  assert model.why_padded is None
  padded = ProcessRewardModel.from_pretrained(folder, device="cpu", shared_prefix=False).score_steps(*asked)
  alone = [model.score_steps([question], [steps])[0] for question, steps in zip(*asked, strict=True)]
  for found in (together, padded, alone):
    for one, other in zip(found, wanted, strict=True):
      assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize(("size", "early"), [("7B", 1), ("34B", 0)])
def test_a_step_is_valid_unless_it_is_of_the_first_of_three_classes(size, early, public):
  folder, (question, steps) = public(f"GAIR/ReasonEval-{size}"), SOLUTIONS[0]
  model, own = ProcessRewardModel.from_pretrained(folder, device="cpu"), weights(folder)
  ids, places = [1], []
  for text in (f"Question:\n{question}\nAnswer:\nLet's think step by step.\n", *steps):
    ids += model.renderer.tokenizer(text, add_special_tokens=False).input_ids
    places.append(len(ids) - 1 - early)
  logits = states(folder, ids)[0][places[1:]] @ own["score_head.weight"].T + own.get("score_head.bias", 0.0)
  wanted = logits.softmax(-1)[:, 1:].sum(-1).tolist()
  assert model.score_steps([question], [steps])[0] == pytest.approx(wanted, abs=1e-5)
  assert model.why_padded is None and not model.renderer.counts["separator_in_step"]
  assert model.score([question], ["\n".join(steps)])[0] == pytest.approx(min(wanted), abs=1e-5)


def test_the_reward_is_the_authors_aggregate_unless_told(public):
  folder, (question, steps) = public("RLHFlow/Llama3.1-8B-PRM-Deepseek-Data"), SOLUTIONS[0]
  model = ProcessRewardModel.from_pretrained(folder, device="cpu")
  (scores,) = model.score_steps([question], [steps])
  assert model.score([question], [steps])[0] == pytest.approx(sum(scores) / len(scores))
  weakest = ProcessRewardModel.from_pretrained(folder, device="cpu", aggregate="min")
  assert weakest.score([question], ["\n\n".join(steps)])[0] == pytest.approx(min(scores)), "split where its authors do"


def test_steps_that_do_not_fit_are_dropped_whole(public):
  folder, (question, steps) = public("Qwen/Qwen2.5-Math-PRM-7B"), SOLUTIONS[0]
  whole = ProcessRewardModel.from_pretrained(folder, device="cpu")
  (solution,) = whole.renderer.render_all(whole._solutions([(question, steps, None)]))
  short = ProcessRewardModel.from_pretrained(folder, device="cpu", max_length=solution.positions[1] + 1)
  (cut,) = short.score_steps([question], [steps])
  assert cut == [*(pytest.approx(score, abs=1e-5) for score in whole.score_steps([question], [steps])[0][:2]), None]


# ---- log-ratios ------------------------------------------------------------------------------------------------------


def log_ratios(folders, ids):
  """Of each token but the first, by the plain models."""
  own = [
    states(folder, ids)[1].log_softmax(-1)[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[:, 0] for folder in folders
  ]
  return (own[0] - own[1]).double()


def test_an_implicit_process_model_sums_log_ratios(public):
  folder, reference = public("PRIME-RL/EurusPRM-Stage2"), public("Qwen/Qwen2.5-Math-7B-Instruct", 1)
  model = ProcessRewardModel.from_pretrained(folder, device="cpu", reference_model_name_or_path=reference)
  question, steps = SOLUTIONS[0]
  head = f"{SYSTEM}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
  tokenizer = model.renderer.tokenizer
  ids = tokenizer(head + "\n\n".join(steps) + "<|im_end|>\n").input_ids
  ratios = 0.001 * log_ratios([folder, reference], ids)
  start, wanted = len(tokenizer(head).input_ids), []
  for k in range(1, len(steps) + 1):  # as its card counts: the text up to the step with its end of turn
    counted = head + "\n\n".join(steps[:k]) + "<|im_end|>" + "\n\n" * (k < len(steps))
    wanted.append(ratios[start - 1 : len(tokenizer(counted).input_ids) - 1].sum().item())
  (found,) = model.score_steps([question], [steps])
  assert found == pytest.approx(wanted, abs=1e-7)
  assert model.score([question], [steps])[0] == pytest.approx(min(wanted), abs=1e-7)
  assert "two models" in model.why_padded
  several = model.score_steps([q for q, _ in SOLUTIONS], [s for _, s in SOLUTIONS])
  assert several[0] == pytest.approx(found, abs=1e-8)


def test_a_dpo_model_gives_the_log_ratio_of_the_answer(public, tmp_path):
  folder, reference = str(tmp_path / "dpo"), public("Qwen/Qwen2.5-Math-7B-Instruct", 1)
  shutil.copytree(public("Qwen/Qwen2.5-Math-7B-Instruct"), folder)
  model = RewardModel.from_pretrained(folder, device="cpu", reference_model_name_or_path=reference)
  found = model.score(["What is 2 + 3?", "hello"], [["It is five.", "no"], ["hi"]])
  for question, answer, reward in [("What is 2 + 3?", "It is five.", found[0][0]), ("hello", "hi", found[1][0])]:
    head = f"{SYSTEM}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    size = len(model.renderer.tokenizer(head).input_ids)
    ids = model.renderer.tokenizer(f"{head}{answer}<|im_end|>\n").input_ids
    assert reward == pytest.approx(log_ratios([folder, reference], ids)[size - 1 :].sum().item(), abs=1e-5)
  assert model.score(["What is 2 + 3?"], ["no"])[0] == pytest.approx(found[0][1], abs=1e-6)
  rewards = RewardModel.from_pretrained(reference, device="cpu", reference_model_name_or_path=reference)
  assert rewards.score(["hello"], ["hi"]) == [0.0]
  row = {"prompt": "What is 2 + 3?", "completions": ["It is five.", "no"]}
  flags = ("--reference_model_name_or_path", reference, "--input", write_jsonl(tmp_path / "a.jsonl", [row]))
  done = run_main("score.py", "--model_name_or_path", folder, *flags)
  assert done.json["rows"][0]["rewards"] == pytest.approx(found[0], abs=1e-6)


def test_a_log_ratio_without_its_reference_or_with_another_vocabulary(public):
  eurus = public("PRIME-RL/EurusPRM-Stage2")
  with pytest.raises(UsageError, match="reference model") as error:
    ProcessRewardModel.from_pretrained(eurus, device="cpu")
  assert "Qwen2.5-Math-7B-Instruct" in error.value.hint
  other = public("UW-Madison-Lee-Lab/VersaPRM")
  with pytest.raises(ModelError, match="other vocabularies"):
    ProcessRewardModel.from_pretrained(eurus, device="cpu", reference_model_name_or_path=other)
  with pytest.raises(UsageError, match="reward of its own"):
    RewardModel.from_pretrained(other, device="cpu", reference_model_name_or_path=eurus)


# ---- pairwise --------------------------------------------------------------------------------------------------------

ANSWERS = ["The sum is five.", "It is four, or the answer is here.", "no"]


def pair_rm_logit(folder, tokenizer, question, first, second):
  """One order of PairRM, by DebertaV2Model and its own tensors."""
  from transformers import AutoConfig, DebertaV2Model

  own, config = weights(folder), AutoConfig.from_pretrained(folder)
  trunk = DebertaV2Model(config).eval()
  trunk.load_state_dict({k.removeprefix("pretrained_model."): v for k, v in own.items() if k.startswith("pretrained")})
  ids = []
  for mark, text in (("source", question), ("candidate1", first), ("candidate2", second)):
    ids += tokenizer.encode(f"<|{mark}|>{text}")
  with torch.no_grad():
    hidden = trunk(torch.tensor([ids])).last_hidden_state[0]
  source, *answers = (
    hidden[ids.index(i)] for i in (config.source_prefix_id, config.cand1_prefix_id, config.cand2_prefix_id)
  )

  def head(answer):
    inner = torch.tanh(own["head_layer.1.weight"] @ torch.cat([source, answer]) + own["head_layer.1.bias"])
    return (own["head_layer.4.weight"] @ inner + own["head_layer.4.bias"]).mean().item()

  return head(answers[0]) - head(answers[1])


def preference_logit(folder, tokenizer, question, first, second):
  """One order of RLHFlow's pair model: the logit of A less that of B after the whole turn."""
  asked = f"[CONTEXT] \n\n<turn> user\n {question}\n [RESPONSE A] {first} [RESPONSE B] {second}"
  ids = tokenizer(f"{DATE}{LLAMA.format('user')}{asked}<|eot_id|>", add_special_tokens=False).input_ids
  a, b = tokenizer.convert_tokens_to_ids(["A", "B"])
  logits = states(folder, ids)[1][-1]
  return (logits[a] - logits[b]).item()


def steam_logit(folder, tokenizer, question, first, second):
  """The first token that SteamSHP would write: the logit of A less that of B."""
  from transformers import T5ForConditionalGeneration

  asked = f"POST: {question}\n\n RESPONSE A: {first}\n\n RESPONSE B: {second}\n\n Which response is better? RESPONSE"
  model = T5ForConditionalGeneration.from_pretrained(folder).eval()
  with torch.no_grad():
    ids = torch.tensor([tokenizer(asked).input_ids])
    logits = model(input_ids=ids, decoder_input_ids=torch.tensor([[0]])).logits[0, 0]
  a, b = tokenizer.convert_tokens_to_ids(["A", "B"])
  return (logits[a] - logits[b]).item()


def general_logit(folder, tokenizer, question, first, second):
  """GPM's `generate_high_dim_result_with_prompt`, over its tau of 0.1."""
  own = weights(folder)
  asked = f"{BOS}{BOS}{DATE}{LLAMA.format('user')}{question}<|eot_id|>"
  embedded = []
  for answer in (first, second):
    ids = tokenizer(f"{asked}{LLAMA.format('assistant')}{answer}<|eot_id|>", add_special_tokens=False).input_ids
    hidden = states(folder, [*ids[:-1], tokenizer.eos_token_id])[0]
    embedded.append(torch.nn.functional.normalize(own["value_head.weight"] @ hidden[-1], dim=0))
  size, place = len(embedded[0]), len(tokenizer(asked, add_special_tokens=False).input_ids) - 1
  block = torch.softmax(own["prompt_head.weight"] @ hidden[place], 0)
  skew = torch.zeros(size, size)
  for k in range(size // 2):
    skew[2 * k, 2 * k + 1], skew[2 * k + 1, 2 * k] = -block[k], block[k]
  return (embedded[0] @ skew.T @ embedded[1]).item() / 0.1


@pytest.mark.parametrize(
  ("name", "logit", "mean_of"),
  [
    ("stanfordnlp/SteamSHP-flan-t5-large", steam_logit, "p"),
    ("general-preference/GPM-Llama-3.1-8B", general_logit, "logits"),
    ("llm-blender/PairRM-hf", pair_rm_logit, "logits"),
    ("RLHFlow/pair-preference-model-LLaMA3-8B", preference_logit, "p"),
  ],
)
def test_a_pairwise_model_ranks_the_answers_of_a_prompt(name, logit, mean_of, public, tmp_path):
  folder, question = public(name), "What is the sum of two and three?"
  model = process.from_settings(ScoringSettings(model_name_or_path=folder, device="cpu"))
  assert isinstance(model, PairwiseModel)
  tokenizer = model.renderer.tokenizer

  def odds(i, j):
    one, other = (
      logit(folder, tokenizer, question, ANSWERS[i], ANSWERS[j]),
      -logit(folder, tokenizer, question, ANSWERS[j], ANSWERS[i]),
    )
    if mean_of == "logits":
      return (one + other) / 2
    p = (1 / (1 + math.exp(-one)) + 1 / (1 + math.exp(-other))) / 2
    return math.log(p / (1 - p))

  table = [[0.0 if i == j else odds(i, j) for j in range(3)] for i in range(3)]
  (found,) = model.score([question], [ANSWERS])
  assert found == pytest.approx([sum(row) / 3 for row in table], rel=1e-5, abs=1e-5)
  assert sum(found) == pytest.approx(0, rel=1e-5, abs=1e-5)
  first, second = model.score([question], [ANSWERS[:2]])[0]
  assert first - second == pytest.approx(table[0][1], rel=1e-5, abs=1e-5), (
    "of two answers the difference is their log-odds"
  )
  rows = [{"prompt": question, "completions": ANSWERS}, {"prompt": question, "completions": ANSWERS[::-1]}]
  done = run_main(
    "score.py", "--model_name_or_path", folder, "--input", write_jsonl(tmp_path / "a.jsonl", rows), "--rank"
  )
  assert done.returncode == 0, done.stderr
  best = sorted(range(3), key=lambda i: -found[i])
  for row in done.json["rows"]:
    assert row["rewards"] == pytest.approx([found[i] for i in best], rel=1e-5, abs=1e-5)
    wins = [sum(1 / (1 + math.exp(-table[i][j])) for j in range(3) if j != i) / 2 for i in best]
    assert [own["win_rate"] for own in row["attributes"]] == pytest.approx(wins, rel=1e-5, abs=1e-5)
  pairs = [
    {"prompt": question, "chosen": ANSWERS[0], "rejected": ANSWERS[1]},
    {"prompt": question, "chosen": ANSWERS[0], "rejected": ANSWERS[2]},
  ]
  done = run_main(
    "evaluate.py", "--model_name_or_path", folder, "--dataset_name", write_jsonl(tmp_path / "p.jsonl", pairs)
  )
  assert done.json["accuracy"]["value"] == sum(table[0][j] > 0 for j in (1, 2)) / 2, done.stderr


def test_a_pairwise_model_has_no_reward_across_prompts(public):
  model = PairwiseModel.from_pretrained(public("llm-blender/PairRM-hf"), device="cpu")
  with pytest.raises(DataError, match="compares the answers of one prompt"):
    model.score(["What is two?", "What is three?"], ["two", "three"])
  with pytest.raises(ModelError, match="compares answers"):
    RewardModel.from_pretrained(public("llm-blender/PairRM-hf"), device="cpu")


# ---- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("name", "token", "error"),
  [
    ("Qwen/Qwen2.5-Math-PRM-7B", "<extra_0>", "has no token '<extra_0>'"),
    ("llm-blender/PairRM-hf", "<|candidate1|>", "has no token '<|candidate1|>'"),
  ],
)
def test_a_mark_that_the_tokenizer_lacks(name, token, error, public, tmp_path):
  folder = tmp_path / name.replace("/", "--")
  shutil.copytree(public(name), folder)
  for file in ("tokenizer.json", "tokenizer_config.json"):
    text = (folder / file).read_text()
    (folder / file).write_text(text.replace(token, token[1:-1] + " or so"))
  kind = PairwiseModel if "Pair" in name else ProcessRewardModel
  with pytest.raises(ModelError, match=error.replace("|", r"\|")):
    kind.from_pretrained(str(folder), device="cpu")


def test_a_text_that_its_authors_could_not_write(public):
  model = ProcessRewardModel.from_pretrained(public("peiyi9979/math-shepherd-mistral-7b-prm"), device="cpu")
  with pytest.raises(DataError, match="hold 'ки'"):
    model.score_steps(["What is two?"], [["a ки", "b"]])
  turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
  with pytest.raises(DataError, match="turns of the assistant"):
    model.score_steps([turns], [["so"]])


@pytest.mark.parametrize(
  ("name", "changes", "error"),
  [
    ("GAIR/ReasonEval-34B", {"score_head.weight": torch.ones(2, 32)}, "the head gives 2 numbers"),
    ("general-preference/GPM-Llama-3.1-8B", {"value_head.weight": torch.ones(3, 32)}, "not pairs with a weight each"),
    ("general-preference/GPM-Llama-3.1-8B", {"prompt_head.weight": None}, "the head lacks a tensor"),
    (
      "stanfordnlp/SteamSHP-flan-t5-large",
      {"lm_head.weight": None, "decoder.embed_tokens.weight": None},
      "lacks its head",
    ),
  ],
)
def test_a_head_of_another_shape(name, changes, error, public, tmp_path):
  from safetensors.torch import save_file

  folder = tmp_path / name.replace("/", "--")
  shutil.copytree(public(name), folder)
  changed = {key: value for key, value in (weights(folder) | changes).items() if value is not None}
  save_file(changed, folder / "model.safetensors", {"format": "pt"})
  with pytest.raises(ModelError, match=error):
    (ProcessRewardModel if "Reason" in name else PairwiseModel).from_pretrained(str(folder), device="cpu")


def test_pure_and_reasonflux_are_told_from_what_has_their_tensors(public):
  found = {
    name: readers.recognize_family(public(f"{name}-PRM-7B"))
    for name in ("jinachris/PURE", "Gen-Verse/ReasonFlux", "Qwen/Qwen2.5-Math")
  }
  assert list(found.values()) == [readers.PUBLIC[name] for name in ("pure", "reasonflux-prm", "qwen-prm")]
  question, steps = SOLUTIONS[0]
  scores = ProcessRewardModel.from_pretrained(public("jinachris/PURE-PRM-7B"), device="cpu").score_steps(
    [question], [steps]
  )[0]
  assert min(scores) < 0, "p(correct) - p(incorrect) is not a probability"
  reasonflux = ProcessRewardModel.from_pretrained(public("Gen-Verse/ReasonFlux-PRM-7B"), device="cpu").renderer
  assert reasonflux.family.system is None, "unlike Qwen's"


def test_every_stand_in_is_recognized(public):
  families = readers.PUBLIC
  found = {name: readers.recognize_family(public(name)) for name in MODELS}
  assert found.pop("Qwen/Qwen2.5-Math-7B-Instruct") is None
  assert all(family in families.values() for family in found.values())
