"""ppo.py as a user runs it: old command lines, what is left behind, killed and resumed, several processes, bad input."""

import json
import signal
import time

import pytest

import warm_process
from conftest import SCRIPTS, run_main, run_script, save_tiny, start_script, tensorboard_scalars, toy_pairs, write_jsonl

SHORT = ("--response_length", 6, "--per_device_train_batch_size", 8, "--total_episodes", 32, "--learning_rate", 1e-3)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
  rows = [{"prompt": row["prompt"]} for row in toy_pairs(12)] + [{"prompt": "hello world"}]
  return write_jsonl(tmp_path_factory.mktemp("prompts") / "prompts.jsonl", rows)


@pytest.fixture(scope="module")
def random_reward(tmp_path_factory):
  """A reward model folder without a card, of random weights: what it prefers does not matter here."""
  return save_tiny("qwen2", tmp_path_factory.mktemp("reward") / "rm", seed=1, head=1)


@pytest.fixture
def command(tiny, random_reward, prompts, tmp_path):
  """command(*more, policy=..., reward=..., data=..., out=...) -> arguments of ppo.py."""

  def build(*more, policy=None, reward=None, data=None, out=tmp_path / "out"):
    named = ("--model_name_or_path", policy or tiny("qwen2"), "--reward_model_path", reward or random_reward)
    words = (*named, "--dataset_name", data or prompts, "--output_dir", out, *SHORT, *more)
    return [str(word) for word in words]

  return build


def ppo(arguments):
  return run_main("ppo.py", *arguments)


def refused(done, code, message, hint=""):
  assert done.returncode == code, done.stderr
  assert f"error: {message}" in done.stderr and hint in done.stderr
  assert "Traceback" not in done.stderr


def same_weights(one, two, tolerance=0.0):
  import torch
  from safetensors.torch import load_file

  first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
  assert first.keys() == second.keys()
  return all(torch.allclose(first[name], second[name], atol=tolerance, rtol=0) for name in first)


# ---- what a run leaves behind -------------------------------------------------------------------------------------


def test_a_run_leaves_a_plain_language_model_a_log_a_picture_and_a_summary(command, tmp_path):
  from transformers import AutoModelForCausalLM, AutoTokenizer

  done = ppo(command("--num_sample_generations", 2, "--save_steps", 2))
  assert done.returncode == 0, done.stderr
  out = tmp_path / "out"
  assert AutoModelForCausalLM.from_pretrained(out / "checkpoint-2").generation_config.eos_token_id is not None
  assert AutoTokenizer.from_pretrained(out / "checkpoint-2").chat_template
  model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
  ids = tokenizer.apply_chat_template(
    [{"role": "user", "content": "hello"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
  )
  assert model.generate(**ids, max_new_tokens=2).shape[1] == ids["input_ids"].shape[1] + 2
  entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
  assert [entry["step"] for entry in entries] == [1, 2, 3, 4]
  assert entries[-1]["episode"] == 32 and entries[0]["first_ratio_error"] == 0.0
  assert len(entries[0]["samples"]) == 4 and "samples" not in entries[1]
  assert (out / "run.svg").read_text().startswith("<svg") and "nats per answer" in (out / "run.svg").read_text()
  assert json.loads((out / "ppo.json").read_text())["updates"] == done.json["updates"] == 4
  assert not (out / ".model.partial").exists()


def test_tensorboard_gets_the_numbers_of_the_log(command, tmp_path):
  out = tmp_path / "out"
  done = ppo(command("--report_to", "tensorboard"))
  assert done.returncode == 0, done.stderr
  logged = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
  shown = tensorboard_scalars(out)
  for name in ("reward", "kl", "policy_loss"):
    assert shown[name] == pytest.approx({entry["step"]: entry[name] for entry in logged}, rel=1e-6)


def test_the_reward_in_the_log_is_the_one_that_score_prints(command, random_reward, tmp_path):
  """The texts of the first update, scored by score.py from a file: the same rendering, the same scored token."""
  assert ppo(command("--num_sample_generations", 4)).returncode == 0
  entry = json.loads((tmp_path / "out" / "log.jsonl").read_text().splitlines()[0])
  rows = [{"prompt": sample["prompt"], "completion": sample["completion"]} for sample in entry["samples"]]
  file = write_jsonl(tmp_path / "rows.jsonl", rows)
  scored = run_main("score.py", "--model_name_or_path", random_reward, "--input", file)
  assert scored.returncode == 0, scored.stderr
  rewards = [row["reward"] for row in scored.json["rows"]]
  assert rewards == pytest.approx([sample["reward"] for sample in entry["samples"]], abs=1e-5)


def test_an_encoder_with_another_tokenizer_drives_a_decoder(command, minilm, tmp_path):
  """MiniLM with its real weights, under a head that was drawn."""
  from reward_modeling import checkpoints
  from reward_modeling.rendering import Renderer

  loaded = checkpoints.load_for_training(str(minilm))
  renderer = Renderer(loaded.tokenizer, max_length=128, scored_at=checkpoints.scored_at(loaded.model))
  encoder = tmp_path / "encoder"
  checkpoints.save(loaded.model, renderer, encoder, training={}, reward={"mean": 0.0, "std": 1.0, "n": 1})
  done = ppo(command(reward=encoder))
  assert done.returncode == 0, done.stderr
  assert done.json["updates"] == 4
  assert done.json["end"]["reward"] != 0


def test_lora_is_merged_and_its_adapter_kept(command, tmp_path):
  done = ppo(command("--use_peft", "--lora_r", 4, "--gradient_checkpointing", "--value_model", "shared"))
  assert done.returncode == 0, done.stderr
  out = tmp_path / "out"
  assert (out / "adapter" / "adapter_model.safetensors").exists()
  import torch
  from peft import AutoPeftModelForCausalLM
  from transformers import AutoModelForCausalLM

  ids = torch.tensor([[1, 5, 9]])
  merged, adapted = (
    auto.from_pretrained(path)
    for auto, path in ((AutoModelForCausalLM, out), (AutoPeftModelForCausalLM, out / "adapter"))
  )
  assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-4)


# ---- old command lines --------------------------------------------------------------------------------------------


def test_a_command_line_of_trl_runs(tiny, random_reward, prompts, tmp_path):
  """The flags of TRL's documentation, with the ones that have nothing to do here named in a warning each."""
  # fmt: off
  done = run_script(
        "ppo.py", "--dataset_name", prompts, "--dataset_train_split", "train", "--dataset_test_split", "validation",
        "--output_dir", tmp_path / "out", "--learning_rate", "3e-6", "--num_ppo_epochs", "1", "--num_mini_batches", "1",
        "--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "2", "--total_episodes", "16",
        "--model_name_or_path", tiny("qwen2"), "--sft_model_path", tiny("qwen2"), "--reward_model_path", random_reward,
        "--local_rollout_forward_batch_size", "4", "--missing_eos_penalty", "1.0", "--stop_token", "eos",
        "--response_length", "5", "--temperature", "0.7", "--kl_coef", "0.05", "--kl_estimator", "k3",
        "--cliprange", "0.2", "--cliprange_value", "0.2", "--vf_coef", "0.1", "--gamma", "1.0", "--lam", "0.95",
        "--whiten_rewards", "False", "--eval_strategy", "steps", "--eval_steps", "100",
    )
  # fmt: on
  assert done.returncode == 0, done.stderr
  assert done.json["updates"] == 2 and done.json["settings"]["kl_estimator"] == "k3"
  for flag in ("dataset_test_split", "eval_strategy", "eval_steps"):
    assert done.stderr.count(f"warning: --{flag} has no effect") == 1
  for noise in ("Traceback", "FutureWarning", "UserWarning", "it/s]"):
    assert noise not in done.stderr


def test_the_summary_begins_with_the_untrained_policy(command, tmp_path):
  """Its own rollout, at a KL of 0, not a mean over updates that have learned already."""
  done = ppo(command("--total_episodes", 160))
  assert done.returncode == 0, done.stderr
  log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
  assert len(log) == 20 and done.json["beginning"]["kl"] == pytest.approx(0, abs=1e-5) and log[1]["kl"] != 0
  for name in ("reward", "length", "eos_rate"):
    assert done.json["beginning"][name] == log[0][name]
    assert done.json["end"][name] == pytest.approx((log[18][name] + log[19][name]) / 2)


def test_what_was_done_not_what_was_planned_is_told(command, tmp_path):
  done = ppo(command("--total_episodes", 160, "--max_kl", 1e-9, "--learning_rate", "1e-3"))
  assert done.json["updates"] == 1 and "over --max_kl" in done.json["stopped"], done.stderr
  assert {"world_size", "batch_size"} <= done.json["settings"].keys()


def test_the_default_length_of_answers_fits_the_policy(tiny, random_reward, prompts, tmp_path):
  names = ("--model_name_or_path", "--reward_model_path", "--dataset_name", "--output_dir")
  small = save_tiny("qwen2", tmp_path / "small")
  config = json.loads((small / "config.json").read_text()) | {"max_position_embeddings": 80}
  (small / "config.json").write_text(json.dumps(config))
  for policy, longest in ((tiny("qwen2"), 53), (small, 40)):
    values = (policy, random_reward, prompts, tmp_path / "out")
    done = ppo([str(word) for pair in zip(names, values, strict=True) for word in pair] + ["--dry_run"])
    assert done.returncode == 0 and done.json["settings"]["response_length"] == longest, done.stderr


# ---- bad input ----------------------------------------------------------------------------------------------------


def test_models_in_the_wrong_place(command, tiny, random_reward, toy_process_model):
  base = tiny("qwen2")
  refused(ppo(command(reward=base)), 4, f"{base} is not a reward model", "train one: train.py")
  refused(ppo(command(reward=toy_process_model)), 4, f"{toy_process_model} is a process reward model")
  refused(ppo(command(policy=random_reward)), 4, f"{random_reward} is not a policy", "--reward_model_path")


def test_prompts_longer_than_the_context_are_named_or_left_out_and_counted(command, tmp_path):
  rows = [{"prompt": "hello"}, {"prompt": "apples " * 120}]
  data = write_jsonl(tmp_path / "rows.jsonl", rows)
  done = ppo(command(data=data))
  refused(done, 3, "1 of 2 prompts are longer than 122 tokens, the first has", "--overlong drop")
  assert f"{data}:2" in done.stderr
  done = ppo(command("--overlong", "drop", data=data))
  assert done.returncode == 0 and done.json["prompts"] == 1
  assert "left out 1 of 2 prompts, longer than 122 tokens" in done.stderr


@pytest.mark.parametrize("row", [{"prompt": ""}, {"prompt": "  "}, {"prompt": [{"role": "user", "content": ""}]}])
def test_an_empty_prompt_is_named_by_its_row(row, command, tmp_path):
  data = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "hello"}, row])
  done = ppo(command(data=data))
  assert done.returncode == 3 and f"{data}:2" in done.stderr, done.stderr


def test_sizes_that_do_not_fit(command):
  refused(ppo(command("--num_mini_batches", 3)), 2, "8 answers a process", "--num_mini_batches")
  refused(ppo(command("--response_length", 128)), 2, "--response_length 128 leaves no room for a prompt")
  refused(ppo(command("--lora_r", 4)), 2, "--lora_r does nothing without --use_peft")
  refused(ppo(command("--report_to", "comet_ml")), 2, "--report_to comet_ml: comet_ml is not installed")


def test_a_dry_run_writes_nothing(command, tmp_path):
  done = ppo(command("--dry_run"))
  assert done.returncode == 0 and done.json["updates"] == 4 and done.json["settings"]["kl_coef"] == 0.05
  assert not list((tmp_path / "out").iterdir())


# ---- killed, resumed, several processes ---------------------------------------------------------------------------

LONGER = ("--total_episodes", 64, "--save_steps", 2, "--num_sample_generations", 0)


def test_a_killed_run_resumes_to_the_policy_of_an_undisturbed_one(command, tmp_path):
  whole, out = tmp_path / "whole", tmp_path / "out"
  assert ppo(command(*LONGER, out=whole)).returncode == 0
  process = start_script("ppo.py", *command(*LONGER, out=out))
  try:
    while not (out / "checkpoint-2" / "trainer_state.json").exists():
      assert process.poll() is None, process.communicate()
      time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
  finally:
    process.kill()
  assert not (out / "config.json").exists(), "a run that was killed must not look finished"
  other = ppo(command(*LONGER, "--kl_coef", 0.5, "--resume_from_checkpoint", out=out))
  refused(other, 5, "cannot resume: kl_coef (0.05 -> 0.5)")
  other = ppo(command(*LONGER, "--reward_weights", 2, "--resume_from_checkpoint", out=out))
  refused(other, 5, "cannot resume: reward_weights (None -> [2.0])")
  other = ppo(command(*LONGER, "--reward_combine", "min", "--resume_from_checkpoint", out=out))
  refused(other, 5, "cannot resume: reward_combine (sum -> min)")
  done = ppo(command(*LONGER, "--resume_from_checkpoint", out=out))
  assert done.returncode == 0, done.stderr
  assert done.json["resumed_from"].startswith(str(out / "checkpoint-"))
  assert same_weights(whole, out)
  steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
  assert steps == list(range(1, 9)), "the log goes on where the checkpoint was written"
  again = ppo(command(*LONGER, "--resume_from_checkpoint", out=out))
  assert again.returncode in (0, 2) and (out / "model.safetensors").exists()


@pytest.mark.real
def test_two_processes_learn_what_one_learns_from_batches_twice_the_size(command, tmp_path):
  one, two = tmp_path / "one", tmp_path / "two"
  assert ppo(command(*LONGER, out=one)).returncode == 0
  launch = ["torchrun", "--standalone", "--nproc_per_node", "2"]
  arguments = command(*LONGER, "--per_device_train_batch_size", 4, out=two)
  done = warm_process.shared().run([*launch, SCRIPTS / "ppo.py", *arguments])
  assert done.returncode == 0, done.stderr
  result = json.loads(done.stdout)
  assert result["settings"]["world_size"] == 2 and result["updates"] == 8
  logs = [[json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()] for out in (one, two)]
  for alone, shared in zip(*logs, strict=True):
    assert shared["reward"] == pytest.approx(alone["reward"], abs=1e-4)
    assert shared["kl"] == pytest.approx(alone["kl"], abs=1e-4)
    assert shared["first_ratio_error"] == 0.0
  assert same_weights(one, two, tolerance=1e-4)


def test_output_that_is_there_is_not_replaced(command, tmp_path):
  (tmp_path / "out").mkdir()
  (tmp_path / "out" / "config.json").write_text("{}")
  refused(ppo(command()), 2, f"{tmp_path / 'out'} already holds a model", "--overwrite_output_dir")


def test_bf16_on_a_cpu_is_what_was_asked_for(command, tmp_path):
  """Updates in bf16 move the policy otherwise than in fp32, by what is left of eight bits, and nothing is refused."""
  plain, half = tmp_path / "plain", tmp_path / "half"
  assert ppo(command(out=plain)).returncode == 0
  done = run_script("ppo.py", *command("--bf16", "true", out=half))  # accelerate keeps one precision a process
  assert done.returncode == 0, done.stderr
  assert not same_weights(plain, half) and same_weights(plain, half, tolerance=0.05)
