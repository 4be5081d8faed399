"""--reward_functions and --step_rewards of ppo.py and grpo.py: what runs learn from, and bad functions."""

import json
import math

import pytest

from conftest import process_model, run_main, run_script, write_jsonl

NUMBERS = ("one", "two", "three", "red", "green", "blue", "world", "apples")
ROWS = [{"prompt": f"hello {word}", "answer": str(n), "level": n} for n, word in enumerate(NUMBERS)]
FUNCTIONS = """
import math, time

def letters(prompts, completions, completion_ids, answer, level, **rest):
    assert [prompt[-1]["content"].split()[1] for prompt in prompts] == [WORDS[int(a)] for a in answer]
    assert [int(a) for a in answer] == level and len(completion_ids) == len(completions)
    return [float(one[0]["content"].count("e")) for one in completions]

def low(completion_ids, **rest):
    return [sum(token < 150 for token in ids) / len(ids) for ids in completion_ids]

def sometimes(completions, level, **rest):
    return [None if n % 2 else 10.0 for n in level]

def lazy(completions, level, **rest):
    yield from sometimes(completions, level)

def late(completions, **rest):
    for _ in completions:
        yield 1 / len([])

def never(completions, **rest):
    return [None for _ in completions]

def raises(completions, **rest):
    return [1 / len([]) for _ in completions]

def short(completions, **rest):
    return [1.0] * (len(completions) - 1)

def text(completions, **rest):
    return "a" * len(completions)

def nan(completions, level, **rest):
    return [math.nan if n == 3 else 0.0 for n in level]

def hangs(completions, **rest):
    while True:
        try:
            time.sleep(60)
        except Exception:
            pass

def needs(completions, solution):
    return [0.0 for _ in completions]

def number(completions, **rest):
    return 3.0
"""
SMALL = {
  "ppo.py": ("--response_length", 6, "--per_device_train_batch_size", 8, "--total_episodes", 16),
  "grpo.py": (
    *("--per_device_train_batch_size", 8, "--num_generations", 4, "--max_completion_length", 6),
    *("--max_steps", 2, "--save_strategy", "no"),
  ),
}


@pytest.fixture(scope="module")
def functions(tmp_path_factory):
  file = tmp_path_factory.mktemp("functions") / "rules.py"
  file.write_text(f"WORDS = {NUMBERS!r}\n{FUNCTIONS}")
  return file


@pytest.fixture(scope="module")
def spaced(tmp_path_factory):
  """A process reward model of random weights whose steps end at spaces, which the tiny policy writes often."""
  from reward_modeling import checkpoints
  from reward_modeling.step_rendering import StepRenderer

  made, folder = process_model("qwen2"), tmp_path_factory.mktemp("spaced") / "model"
  renderer = StepRenderer(made.renderer.tokenizer, max_length=128, scored_at="last_token", step_separator=" ")
  checkpoints.save(made.model, renderer, folder, training={}, reward={"mean": 0.5, "std": 0.1, "n": 1})
  return folder


@pytest.fixture
def command(tiny, tmp_path):
  data = write_jsonl(tmp_path / "prompts.jsonl", ROWS)

  def build(script, *more, out="out"):
    named = ("--model_name_or_path", tiny("qwen2"), "--dataset_name", data, "--output_dir", tmp_path / out)
    return [script, *map(str, (*named, *SMALL[script], "--learning_rate", 1e-3, *more))]

  return build


def log_of(folder):
  return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


BOTH = pytest.mark.parametrize("script", SMALL)


# ---- functions ----------------------------------------------------------------------------------------------------


@BOTH
def test_functions_alone_and_beside_a_model_are_added_up(command, functions, toy_model, tmp_path, script):
  """The function `letters` asserts that each row came with its own columns."""
  weights = ("--reward_function_weights", 0.5, 1)
  named = ("--reward_functions", f"{functions}:letters", "length_penalty", *weights)
  samples = ("--num_sample_generations", 9) if script == "ppo.py" else ("--missing_eos_penalty", 0)
  for models in ((), ("--reward_model_path", toy_model[0])):
    out = f"out{len(models)}"
    done = run_main(*command(script, *named, *models, *samples, out=out))
    assert done.returncode == 0, done.stderr
    assert done.json["reward_functions"] == [f"{functions}:letters", "length_penalty"]
    assert done.json["reward_models"] == [str(model) for model in models[1:]] and done.json["answer_steps"] is None
    entries = [entry for entry in log_of(tmp_path / out) if "reward" in entry]
    prefix = "reward" if script == "ppo.py" else "rewards"
    for entry in entries:
      parts = [entry[f"{prefix}/{name}"] for name in ("rules.py:letters", "length_penalty")]
      model = entry.get(f"{prefix}/{toy_model[0].name}", 0.0)
      assert bool(model) == bool(models)
      assert entry["reward"] == pytest.approx(0.5 * parts[0] + parts[1] + model, abs=1e-5)
    shown = entries[0]["samples"] if script == "ppo.py" else [entries[0]["sample"]]
    for one in [] if models else shown:
      text = one["completion"][0]["content"]
      assert one["reward"] == pytest.approx(0.5 * text.count("e"), abs=0.0061), "at most six tokens are paid for"


def test_a_function_that_does_not_apply_leaves_the_others(command, functions, tmp_path):
  """As in TRL: None takes no part, and in GRPO an answer to which nothing applies has no advantage; PPO has no such."""
  specs = [f"{functions}:{name}" for name in ("lazy", "never", "letters")]
  done = run_main(*command("ppo.py", "--reward_functions", *specs, "--num_sample_generations", 9))
  assert done.returncode == 0, done.stderr
  entry = log_of(tmp_path / "out")[0]
  assert entry["reward/rules.py:lazy"] == 10 and "reward/rules.py:never" not in entry
  for one in entry["samples"]:
    level = NUMBERS.index(one["prompt"][0]["content"].split()[1])
    assert one["reward"] == one["completion"][0]["content"].count("e") + 10 * (level % 2 == 0)
  done = run_main(*command("ppo.py", "--reward_functions", specs[1], out="never"))
  assert done.returncode == 5 and "must not return None" in done.stderr
  done = run_main(*command("grpo.py", "--reward_functions", specs[0], "--beta", 0, out="grpo"))
  assert done.returncode == 0, done.stderr
  assert log_of(tmp_path / "grpo")[0]["reward_std"] == pytest.approx(0, abs=1.01), "10, or 9 without an end"


@BOTH
@pytest.mark.parametrize(
  ("name", "said"),
  [
    ("raises", "raised ZeroDivisionError: division by zero"),
    ("late", "raised ZeroDivisionError: division by zero"),
    ("short", "returned 7 rewards for 8 completions"),
    ("text", "did not return a list of numbers and None"),
    ("number", "did not return a list of numbers and None"),
    ("nan", "returned NaN for completion"),
    ("needs", "raised TypeError: needs() got an unexpected keyword argument"),
    ("hangs", "took more than 0.2 seconds for 8 completions"),
  ],
)
def test_a_bad_function_ends_the_run_and_nothing_half_written_is_left(command, functions, tmp_path, script, name, said):
  limit = ("--reward_function_seconds", 0.2)
  done = run_main(*command(script, "--reward_functions", f"{functions}:{name}", *limit))
  assert done.returncode == 5, done.stderr
  where = f"the reward function rules.py:{name} {said}"
  assert where in done.stderr and "Traceback" not in done.stderr
  if name == "needs":
    assert "it is given" in done.stderr and "answer" in done.stderr and "completion_ids" in done.stderr
  if name in ("raises", "late", "hangs"):
    assert f"--> {functions}:" in done.stderr
  if name == "nan":
    assert f"--> {tmp_path / 'prompts.jsonl'}:4" in done.stderr
  assert "update 1 of" in done.stderr if script == "ppo.py" else "step 1:" in done.stderr
  assert not list((tmp_path / "out").glob("*.safetensors")) and not (tmp_path / "out" / "config.json").exists()


@BOTH
def test_what_is_refused_before_anything_is_read(command, functions, toy_model, toy_process_model, script):
  outcome, process = ("--reward_model_path", toy_model[0]), ("--reward_model_path", toy_process_model)
  cases = [
    ((), 2, "--reward_model_path or --reward_functions is required"),
    (("--reward_functions", "nothing"), 2, "no reward function 'nothing'"),
    (("--reward_functions", f"{functions}:lettres"), 2, "did you mean letters?"),
    (
      ("--reward_functions", "length_penalty", "length_penalty"),
      2,
      "the reward function length_penalty is given twice",
    ),
    (
      ("--reward_functions", "length_penalty", "--reward_function_weights", 1, 2),
      2,
      "2 weights for 1 reward functions",
    ),
    (("--step_rewards", "min", *outcome), 2, "--step_rewards is for process reward models"),
    (process, 4, f"{toy_process_model} is a process reward model: it scores steps"),
    (
      ("--step_rewards", "min", *process, "--normalize_rewards"),
      2,
      "no --reward_combine or --normalize_rewards",
    ),
  ]
  for words, code, said in cases:
    done = run_main(*command(script, *words))
    assert done.returncode == code and said in done.stderr, (words, done.stderr)


def test_shipped_functions():
  from reward_modeling import reward_functions as own

  texts = [r"<think>2 + 2</think> It is \boxed{4}.", "The answer is 5.", "none", "<think>hm</think>"]
  completions = [[{"role": "assistant", "content": text}] for text in texts]
  assert own.think_format(completions) == [1.0, 0.0, 0.0, 0.0]
  assert own.length_penalty([[1, 2], []]) == [-0.002, 0.0]
  assert own.same_answer(completions, ["2 + 2 = 4\n#### 4.0", "4", "5", None]) == [1.0, 0.0, 0.0, None]


def test_math_is_checked_where_math_verify_is_installed(command, tmp_path):
  from reward_modeling import reward_functions as own
  from reward_modeling.packages import is_installed

  completions = [[{"role": "assistant", "content": text}] for text in (r"\boxed{\frac{1}{2}}", r"\boxed{3}")]
  if is_installed("math_verify"):
    assert own.math_correct(completions, ["0.5", None]) == [1.0, None]
  else:
    done = run_main(*command("ppo.py", "--reward_functions", "math_correct"))
    assert done.returncode in (2, 5) and "math_verify is not installed" in done.stderr
    assert "--with math-verify" in done.stderr


@BOTH
def test_a_run_that_learns_nothing_says_so_and_one_that_learns_does_not(command, functions, tmp_path, script):
  length = {"ppo.py": ("--total_episodes", 64), "grpo.py": ("--max_steps", 8)}[script]
  rewarded = ("--reward_functions", f"{functions}:low", "--missing_eos_penalty", 0, *length)
  said = {}
  for rate in (1e-8, 3e-3):
    done = run_main(*command(script, *rewarded, "--learning_rate", rate, out=str(rate)))
    assert done.returncode == 0, done.stderr
    said[rate] = [one for one in done.json["warnings"] if "learned nothing" in one]
    card = (tmp_path / str(rate) / "README.md").read_text()
    assert all(f"warning: {one}" in done.stderr and f"Warning: {one}." in card for one in done.json["warnings"])
    told = f"trained with {script[:-3].upper()} on 8 prompts for the reward of `{functions}:low`"
    assert told in card and f"| reward | {done.json['beginning']['reward']:.4g} |" in card and "TRL" not in card
  assert len(said[1e-8]) == 1 and not said[3e-3]
  assert "raise --learning_rate" in said[1e-8][0].lower()


# ---- steps --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["outcome", "difference", "min"])
def test_the_reward_of_an_answer_is_made_of_the_scores_that_score_py_gives_its_steps(command, spaced, tmp_path, form):
  named = ("--reward_model_path", spaced, "--step_rewards", form, "--step_temperature", 0.2)
  done = run_main(*command("ppo.py", *named, "--num_sample_generations", 9, "--response_length", 24))
  assert done.returncode == 0, done.stderr
  entry = log_of(tmp_path / "out")[0]
  rows = [{"prompt": one["prompt"], "completion": one["completion"]} for one in entry["samples"]]
  scored = run_main("score.py", "--model_name_or_path", spaced, "--input", write_jsonl(tmp_path / "rows.jsonl", rows))
  for one, row in zip(entry["samples"], scored.json["rows"], strict=True):
    scores = row["step_rewards"]
    weights = [math.exp(-score / 0.2) for score in scores]
    expected = {
      "outcome": row["reward"],
      "difference": scores[-1],
      "min": sum(w * s for w, s in zip(weights, scores, strict=True)) / sum(weights),
    }
    assert one["reward"] == pytest.approx(expected[form], abs=1e-5)
  counted = done.json["answer_steps"]
  assert counted["mean"] > 1 and counted["unscored"] == 0 == counted["empty"] and 0 <= counted["unsplit"] < 1
  assert entry["steps/mean"] > 0 and entry["explained_variance"] is not None


def test_advantages_inside_trls_trainer(command, spaced, toy_process_model, tmp_path, monkeypatch):
  """Where no answer ends a step they are TRL's own, and else per token: those before the first end are TRL's.

  Found by what the loss gets, beside what TRL's method returned.
  """
  import torch
  import trl

  seen = []
  theirs = trl.GRPOTrainer._generate_and_score_completions

  def watched(trainer, inputs):
    output = theirs(trainer, inputs)
    seen.append((dict(output), trainer.run))
    return output

  monkeypatch.setattr(trl.GRPOTrainer, "_generate_and_score_completions", watched)
  losses = []
  compute = trl.GRPOTrainer._compute_loss
  monkeypatch.setattr(
    trl.GRPOTrainer, "_compute_loss", lambda self, m, x: losses.append(x["advantages"]) or compute(self, m, x)
  )
  for model, form in ((toy_process_model, "difference"), (spaced, "min"), (spaced, "difference")):
    seen.clear(), losses.clear()
    named = ("--reward_model_path", model, "--step_rewards", form, "--max_completion_length", 20, "--max_steps", 1)
    done = run_main(*command("grpo.py", *named, out=f"{model.parent.name}-{form}"))
    assert done.returncode == 0, done.stderr
    (output, run), (used,) = seen[0], losses[:1]
    live = output["completion_mask"].bool()
    assert used.shape == live.shape and not used[~live].any()
    ends = [min((token for token, _ in reward.steps), default=0) for reward, _ in run.rewarded]
    before = torch.arange(live.shape[1]) <= torch.tensor(ends)[:, None]
    expected = output["advantages"][:, None].expand_as(used)
    # TRL shuffles what it generated before it is used: the rows are compared as sets of their first advantages.
    assert torch.allclose(used[:, 0].sort().values, output["advantages"].sort().values, atol=1e-5)
    single = [len(reward.steps) == 1 and reward.steps[0][0] == length - 1 for reward, length in run.rewarded]
    if model == toy_process_model:
      assert all(single), "the tiny policy wrote a line break: choose another seed"
      assert torch.allclose(used[live], used[:, :1].expand_as(used)[live])
    else:
      assert not all(single) and (used[:, :1].expand_as(used)[live] != used[live]).any()
    assert before.any() and expected.shape == used.shape


def test_rloo_takes_their_sum(command, spaced, tmp_path):
  named = ("--reward_model_path", spaced, "--step_rewards", "difference", "--algorithm", "rloo")
  done = run_main(*command("grpo.py", *named))
  assert done.returncode == 0, done.stderr
  assert "rloo" in done.stderr and "added up" in done.stderr
  assert done.json["answer_steps"]["mean"] > 1


def test_a_policy_that_never_ends_a_step_is_rewarded_for_one_step_and_said_to(command, toy_process_model, tmp_path):
  done = run_main(*command("ppo.py", "--reward_model_path", toy_process_model, "--step_rewards", "min"))
  assert done.returncode == 0, done.stderr
  assert done.json["answer_steps"] == {"mean": 1.0, "unsplit": 1.0, "unscored": 0, "empty": 0}
  (told,) = [one for one in done.json["warnings"] if "100% of the answers end no step" in one]
  assert f"warning: {told}" in done.stderr


def test_a_killed_run_with_steps_and_functions_resumes_only_with_the_same(command, spaced, functions, tmp_path):
  named = ("--reward_model_path", spaced, "--step_rewards", "min", "--total_episodes", 32, "--save_steps", 2)
  whole = run_main(*command("ppo.py", *named))
  assert whole.returncode == 0, whole.stderr
  for name in ("config.json", "model.safetensors"):
    (tmp_path / "out" / name).unlink()
  other = run_main(*command("ppo.py", *named, "--step_temperature", 0.5, "--resume_from_checkpoint"))
  assert other.returncode == 5 and "cannot resume: step_temperature (0.1 -> 0.5)" in other.stderr


def test_a_real_process(command, spaced, functions):
  """As users run it, with everything at once."""
  named = (
    "--reward_functions",
    f"{functions}:letters",
    "--reward_model_path",
    spaced,
    "--step_rewards",
    "difference",
  )
  done = run_script(*command("ppo.py", *named))
  assert done.returncode == 0, done.stderr
  assert done.json["updates"] == 2 and done.json["answer_steps"]["mean"] > 0


@pytest.mark.real
@BOTH
def test_two_processes(command, spaced, functions, tmp_path, script):
  """In PPO they learn what one learns from batches twice the size; in GRPO groups are spread over both of them."""
  import warm_process
  from conftest import SCRIPTS

  named = (
    "--reward_functions",
    f"{functions}:letters",
    "--reward_model_path",
    spaced,
    "--step_rewards",
    "difference",
  )
  launch = ["torchrun", "--standalone", "--nproc_per_node", "2"]
  words = command(script, *named, "--per_device_train_batch_size", 4, "--num_ppo_epochs", 1, out="two")
  if script == "grpo.py":
    words = command(script, *named, "--per_device_train_batch_size", 2, out="two")
  done = warm_process.shared().run([*launch, SCRIPTS / script, *words[1:]])
  assert done.returncode == 0, done.stderr
  if script == "ppo.py":
    one = run_main(*command(script, *named, "--num_ppo_epochs", 1))
    assert one.returncode == 0, one.stderr
    for alone, shared in zip(*(log_of(tmp_path / out) for out in ("out", "two")), strict=True):
      for name in ("reward", "kl", "value_loss", "policy_loss", "explained_variance"):
        assert shared[name] == pytest.approx(alone[name], abs=1e-4), name
