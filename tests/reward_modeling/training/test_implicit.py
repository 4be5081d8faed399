"""Implicit process rewards: their definition by enumeration, their loss by hand and by another library, and the saved model."""

import contextlib
import itertools
import json
import math
import shutil

import arithmetic
import pytest
import torch

from conftest import run_main, write_jsonl
from reward_modeling import sandbox_models
from reward_modeling.attention import shared_prefix
from reward_modeling.implicit import LogRatio
from reward_modeling.process import ProcessRewardModel
from reward_modeling.training.implicit import AnswerCollator, ImplicitTrainer
from reward_modeling.training.packed import PackedCollator

PROMPT, STEPS = "Start with five. Then add one, take one.", ["five add one is six", "six take one is five"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
  return sandbox_models.base_model(
    *(tmp_path_factory.mktemp("base") / "base", 0, sandbox_models.TrainingSettings(80, 16, 4e-3)),
    rows=arithmetic.conversations(1280, 0),
    texts=arithmetic.every_text(),
  )


def rows(n, seed):
  for one in arithmetic.chains(n, seed, error_share=0.5):
    yield {"prompt": one.prompt, "completion": "\n".join(one.steps), "label": one.metadata["error"] is None}


FLAGS = ("--objective", "implicit", "--learning_rate", "1e-3", "--per_device_train_batch_size", "16", "--beta", "0.1")


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
  """(the folder, the script's JSON)"""
  folder = tmp_path_factory.mktemp("implicit")
  done = run_main(
    *("train_process.py", "--model_name_or_path", base, "--output_dir", folder / "out", "--max_steps", 120),
    *("--dataset_name", write_jsonl(folder / "answers.jsonl", rows(1200, 1)), "--val_set_size", 0.2, *FLAGS),
  )
  assert done.returncode == 0, done.stderr
  return folder / "out", done.json


def log_probs(folder, ids, start):
  """Of each token after the start, by the plain model of transformers."""
  from transformers import AutoModelForCausalLM

  with torch.inference_mode():
    logits = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([ids])).logits[0].double()
  return logits.log_softmax(-1)[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[start:, 0]


def ids_of(tokenizer, steps):
  """(ids, where the answer starts, where each step ends): prompt, steps and separators one by one."""
  ids = tokenizer(f"<|user|>{PROMPT}<|end|><|assistant|>", add_special_tokens=False)["input_ids"]
  start, ends = len(ids), []
  for step in steps:
    ids = [*ids, *tokenizer(step)["input_ids"], *tokenizer("\n")["input_ids"]]
    ends.append(len(ids))
  return ids, start, ends


def test_step_scores_are_the_log_ratio_and_their_differences_add_up(base, trained):
  model = ProcessRewardModel.from_pretrained(trained[0], device="cpu")
  (found,) = model.score_steps([PROMPT], [STEPS])
  ids, start, ends = ids_of(model.renderer.tokenizer, STEPS)
  ratios = 0.1 * (log_probs(trained[0], ids, start - 1) - log_probs(base, ids, start - 1))
  assert found == pytest.approx([ratios[: end - start].sum().item() for end in ends], abs=1e-5)
  differences = [found[0], found[1] - found[0]]
  assert sum(differences) == pytest.approx(ratios.sum().item(), abs=1e-5)
  assert model.score([PROMPT], [STEPS]) == pytest.approx([ratios.sum().item()], abs=1e-5)  # `last`
  assert model.score_steps([PROMPT, PROMPT], [STEPS, STEPS[:1]])[1] == pytest.approx(found[:1], abs=1e-5)


def test_a_step_score_is_the_expectation_over_all_continuations(tmp_path):
  """q(prefix) = beta log E exp(r(y) / beta) over what the reference writes after it (arXiv:2412.01981, proposition 3.1).

  By enumeration of every continuation of 3 tokens in a vocabulary of 6, for each prefix of an answer.
  """
  from transformers import Qwen2Config, Qwen2ForCausalLM

  small = {"vocab_size": 6, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
  config = Qwen2Config(**small, num_attention_heads=2, num_key_value_heads=2, initializer_range=0.6)
  models = []
  for seed in (0, 1):
    torch.manual_seed(seed)
    models.append(Qwen2ForCausalLM(config).eval())
  beta, prompt, answer = 0.3, [1, 2], [3, 5, 0]
  ratio = LogRatio(*models, beta, of_steps=True)
  with torch.inference_mode():
    rows = torch.tensor([prompt + list(one) for one in itertools.product(range(6), repeat=3)])
    sums = ratio(rows, torch.ones_like(rows)).logits[..., 0]
    rewards = sums[:, -1] - sums[:, 1]
    logits = models[1](rows).logits.double().log_softmax(-1)
    reference = logits[:, :-1].gather(-1, rows[:, 1:, None])[..., 0][:, 1:]  # of each token of the answer
    whole = next(i for i, row in enumerate(rows.tolist()) if row[2:] == answer)
    for k in range(4):
      same = (rows[:, 2 : 2 + k] == torch.tensor(answer[:k])).all(1)
      after = reference[same, k:].sum(1)
      assert after.exp().sum() == pytest.approx(1.0)
      expected = beta * torch.logsumexp(after + rewards[same] / beta, 0)
      assert expected.item() == pytest.approx((sums[whole, 1 + k] - sums[whole, 1]).item(), abs=1e-6)


@pytest.mark.parametrize("packed", [False, True])
def test_the_loss_is_the_cross_entropy_of_the_log_ratio(base, trained, packed):
  """In float64, by hand from the plain models' probabilities: a right and two wrong answers of different lengths in one batch,
  of which a packed row computes the prompt and the first step once. Gradients of both batches are those of one at a time.
  """
  from transformers import AutoModelForCausalLM

  scorer = ProcessRewardModel.from_pretrained(trained[0], device="cpu")
  ids, start, _ = ids_of(scorer.renderer.tokenizer, STEPS)
  short, _, _ = ids_of(scorer.renderer.tokenizer, STEPS[:1])
  other, _, _ = ids_of(scorer.renderer.tokenizer, [STEPS[0], "six take one is six"])
  answers = [(ids, 1.0), (short, 0.25), (other, 0.0)]
  rows = [{"input_ids": one, "start": start - 1, "labels": [label]} for one, label in answers]
  model, reference = (AutoModelForCausalLM.from_pretrained(path).double().eval() for path in (trained[0], base))
  trainer = ImplicitTrainer.__new__(ImplicitTrainer)
  trainer.ratio, trainer.state = LogRatio(model, reference, 0.1, of_steps=True), None
  collator = AnswerCollator(0)
  collator = PackedCollator(collator.flat, True, model) if packed else collator
  batch = collator(rows)
  assert batch["input_ids"].numel() == (
    len({tuple(one[:n]) for one, _ in answers for n in range(1, 1 + len(one))}) if packed else 3 * len(ids)
  )
  with shared_prefix(model) if packed else contextlib.nullcontext():
    loss = trainer.compute_loss(model, batch)
    part = trainer.compute_loss(model, batch, num_items_in_batch=12)
    loss.backward()
  found = {name: weight.grad.clone() for name, weight in model.named_parameters()}
  model.zero_grad()
  wanted = 0.0
  for one, label in answers:
    sums = []
    for each in (model, reference):
      logits = each(torch.tensor([one])).logits[0, start - 1 : -1].log_softmax(-1)
      sums.append(logits.gather(-1, torch.tensor(one[start:])[:, None]).sum())
    p = torch.sigmoid(0.1 * (sums[0] - sums[1].detach()))
    wanted = wanted - (label * p.log() + (1 - label) * (1 - p).log()) / 3
  wanted.backward()
  assert loss.item() == pytest.approx(wanted.item(), abs=1e-9)
  assert part.item() == pytest.approx(wanted.item() / 4, abs=1e-9)
  for name, weight in model.named_parameters():
    torch.testing.assert_close(found[name], weight.grad, atol=1e-8, rtol=1e-6)


def test_what_is_trained_is_saved_and_evaluated(base, trained):
  folder, result = trained
  config = json.loads((folder / "config.json").read_text())
  assert config["architectures"] == ["Qwen2ForCausalLM"]
  own = config["implicit_reward"]
  assert (own["reference"], own["beta"], own["step_separator"]) == (str(base.resolve()), 0.1, "\n")
  assert result["reload_difference"] <= 1e-5 and result["training"]["batches"] == "packed"
  assert result["evaluation"]["auroc"]["value"] > 0.6  # 0.5 for one that learned nothing
  counts, right = result["counts"], sum(row["label"] for row in rows(1200, 1))
  assert counts["labels_used"] == counts["solutions_used"] == counts["solutions"] == 1200 - counts["answers_held_out"]
  assert counts["steps_unlabeled"] == counts["steps"] - counts["labels_used"], (
    "the last step of an answer has its label"
  )
  assert 0 < counts["correct_steps"] <= right and counts["correct_steps"] == pytest.approx(right * 0.8, rel=0.1)
  assert result["evaluation"]["step_accuracy"]["n"] == result["counts"]["answers_held_out"]


def test_scripts_read_it_as_a_process_model(trained, tmp_path):
  solutions = [{"prompt": one.prompt, "steps": one.steps} for one in arithmetic.chains(4, 2)]
  done = run_main(
    "score.py", "--model_name_or_path", trained[0], "--input", write_jsonl(tmp_path / "s.jsonl", solutions)
  )
  assert done.returncode == 0, done.stderr
  for row in done.json["rows"]:
    assert row["reward"] == pytest.approx(row["step_rewards"][-1])
  labeled = [{"prompt": o.prompt, "completions": o.steps, "labels": o.labels} for o in arithmetic.chains(40, 2)]
  data = write_jsonl(tmp_path / "steps.jsonl", labeled)
  done = run_main("evaluate.py", "--model_name_or_path", trained[0], "--dataset_name", data)
  assert done.returncode == 0, done.stderr
  assert done.json["auroc"]["value"] > 0.5


def test_log_ratios_are_flagged_under_any_number_and_by_default_under_the_best_on_held_out_answers(trained, tmp_path):
  folder, result = trained
  saved = json.loads((folder / "config.json").read_text())["implicit_reward"]
  assert saved["threshold"] == result["reward"]["threshold"] == result["evaluation"]["threshold"]["best"]
  held_out = result["evaluation"]
  assert saved["auroc_low"] == pytest.approx(held_out["auroc"]["low"]) and held_out["threshold"]["values"] == [0.0]
  ask = ("score.py", "--model_name_or_path", folder, "--prompt", PROMPT, "--completions", "\n".join(STEPS))
  plain = run_main(*ask).json
  assert plain["threshold"] == saved["threshold"]
  (row,) = plain["rows"]
  for threshold in (saved["threshold"], -3.5, 40.0):
    (own,) = (plain if threshold == saved["threshold"] else run_main(*ask, f"--threshold={threshold}").json)["rows"]
    places = [place for place, score in enumerate(row["step_rewards"]) if score < threshold]
    assert own["first_flagged"] == (places or [-1])[0]


def test_another_reference_is_refused_and_a_moved_one_can_be_named(base, trained, tmp_path):
  other = sandbox_models.base_model(
    *(tmp_path / "other", 1, sandbox_models.TrainingSettings(1, 4, 4e-3)),
    rows=arithmetic.conversations(4, 1),
    texts=arithmetic.every_text(),
  )
  ask = ("score.py", "--model_name_or_path", trained[0], "--prompt", PROMPT, "--completions", "\n".join(STEPS))
  done = run_main(*ask, "--reference_model_name_or_path", other)
  assert (done.returncode, "does not score as when it was saved" in done.stderr) == (4, True)
  copy = tmp_path / "copy"
  shutil.copytree(base, copy)
  moved = tmp_path / "moved"
  shutil.copytree(trained[0], moved)
  config = json.loads((moved / "config.json").read_text())
  config["implicit_reward"]["reference"] = str(tmp_path / "gone")
  (moved / "config.json").write_text(json.dumps(config))
  ask = ("score.py", "--model_name_or_path", moved, "--prompt", PROMPT, "--completions", "\n".join(STEPS))
  assert run_main(*ask).returncode == 4
  done = run_main(*ask, "--reference_model_name_or_path", copy)
  assert done.returncode == 0, done.stderr


SHORT = {
  "ppo.py": (
    "--response_length",
    24,
    "--per_device_train_batch_size",
    8,
    "--total_episodes",
    8,
    "--num_sample_generations",
    9,
  ),
  "grpo.py": (
    *("--max_completion_length", 24, "--per_device_train_batch_size", 8, "--num_generations", 4, "--max_steps", 1),
    *("--missing_eos_penalty", 0, "--save_strategy", "no", "--beta", 0),
  ),
}


@pytest.mark.parametrize("script", SHORT)
def test_a_policy_is_rewarded_by_log_ratios_as_score_py_does(base, trained, script, tmp_path):
  """By an implicit model at the ends of steps, and by a language model as DPO leaves one, at the end of the answer."""
  copy, dpo = tmp_path / "copy", tmp_path / "dpo"
  shutil.copytree(base, copy)
  shutil.copytree(trained[0], dpo)
  config = json.loads((dpo / "config.json").read_text())
  (dpo / "config.json").write_text(json.dumps({name: own for name, own in config.items() if name != "implicit_reward"}))
  prompts = write_jsonl(tmp_path / "p.jsonl", [{"prompt": one.prompt} for one in arithmetic.chains(8, 7)])
  for model, steps in ((trained[0], ("--step_rewards", "difference")), (dpo, ())):
    given = ("--reference_model_name_or_path", copy)
    out = tmp_path / f"out{len(steps)}"
    run = ("--model_name_or_path", base, "--dataset_name", prompts, "--output_dir", out, *SHORT[script])
    done = run_main(script, *run, "--reward_model_path", model, *steps, *given)
    assert done.returncode == 0, done.stderr
    entry = json.loads((out / "log.jsonl").read_text().splitlines()[0])
    samples = entry.get("samples") or [entry["sample"]]
    rows = write_jsonl(
      tmp_path / "r.jsonl", [{name: one[name] for name in ("prompt", "completion")} for one in samples]
    )
    scored = run_main("score.py", "--model_name_or_path", model, *given, "--input", rows)
    assert scored.returncode == 0, scored.stderr
    expected = [row["reward"] for row in scored.json["rows"]]
    assert [one["reward"] for one in samples] == pytest.approx(expected, abs=1e-5) and any(expected)
    assert done.json.get("answer_steps") is None or done.json["answer_steps"]["mean"] >= 1
  done = run_main(script, *run, "--reward_model_path", dpo)
  assert (done.returncode, "give the one before as --reference_model_name_or_path" in done.stderr) == (4, True)
  done = run_main(script, *run, "--reward_functions", "length_penalty", *given)
  assert (done.returncode, "--reference_model_name_or_path is of" in done.stderr) == (2, True), done.stderr


def test_lora_and_pairs(base, tmp_path):
  pairs = [
    {"prompt": row["prompt"], "chosen": row["completion"], "rejected": "five add one is two"} for row in rows(24, 3)
  ]
  done = run_main(
    *("train_process.py", "--model_name_or_path", base, "--output_dir", tmp_path / "out", "--max_steps", 1),
    *("--dataset_name", write_jsonl(tmp_path / "pairs.jsonl", pairs), "--use_peft", *FLAGS),
  )
  assert done.returncode == 0, done.stderr
  assert done.json["reload_difference"] <= 1e-4
  assert done.json["training"]["train_loss"] == pytest.approx(
    math.log(2), abs=1e-5
  )  # of the first step: every ratio is 1
  assert done.json["counts"]["solutions"] == 48 and (tmp_path / "out" / "adapter").is_dir()
  assert ProcessRewardModel.from_pretrained(tmp_path / "out", device="cpu").score([PROMPT], [STEPS])[0] is not None


@pytest.mark.parametrize(
  ("row", "told"),
  [
    ({"prompt": "q", "completions": ["a", "b"], "scores": [3, 1]}, "not labeled as right or wrong"),
    ({"prompt": "q", "steps": ["a", "b"]}, "not labeled as right or wrong"),
    ({"prompt": "q", "completions": ["a", "b"], "labels": [True, False]}, "not labeled as right or wrong"),
  ],
)
def test_answers_without_a_label_are_refused(base, tmp_path, row, told):
  data = write_jsonl(tmp_path / "rows.jsonl", [row] * 4)
  start = ("train_process.py", "--model_name_or_path", base, "--output_dir", tmp_path / "out", "--dataset_name", data)
  done = run_main(*start, *FLAGS)
  assert (done.returncode, told in done.stderr) == (3, True), done.stderr


@pytest.mark.parametrize(
  "flag", [("--class_weighting", "balanced"), ("--train_on_last_step_only",), ("--steps_per_solution", 2)]
)
def test_flags_of_step_labels_are_refused(base, tmp_path, flag):
  data = write_jsonl(tmp_path / "rows.jsonl", rows(4, 1))
  start = ("train_process.py", "--model_name_or_path", base, "--output_dir", tmp_path / "out", "--dataset_name", data)
  done = run_main(*start, *FLAGS, *flag)
  assert (done.returncode, f"{flag[0]} is for labels of steps" in done.stderr) == (2, True), done.stderr
  done = run_main(*start, *FLAGS, "--text_format", "rendered")
  assert (done.returncode, "leave out --text_format" in done.stderr) == (2, True), done.stderr


def test_a_checkpoint_of_its_training_is_not_taken_for_one(base, tmp_path):
  shutil.copytree(base, tmp_path / "checkpoint-1")
  config = json.loads((base / "config.json").read_text()) | {"implicit_reward": {"reference": "x", "beta": 0.1}}
  (tmp_path / "checkpoint-1" / "config.json").write_text(json.dumps(config))
  ask = ("score.py", "--model_name_or_path", tmp_path / "checkpoint-1", "--prompt", PROMPT, "--completions", "a")
  done = run_main(*ask)
  assert (done.returncode, "is not a reward model" in done.stderr) == (4, True), done.stderr
