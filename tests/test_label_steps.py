"""label_steps.py: labels from rollouts, against one prefix at a time, by hand, killed, and with checkers that fail."""

import json
import math
import signal
import time
from collections import Counter

import arithmetic
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_json_schema import faults_of

import warm_process
from conftest import SCRIPTS, run_main, run_script, write_jsonl
from reward_modeling import sandbox_models
from reward_modeling.data.reading import load
from reward_modeling.rollouts import Labeled, RolloutSettings, prefix_ids
from reward_modeling.training.policy import Policy, sample

PATTERN = r"is (\w+)"


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
  """Taught for a moment: it often slips, and sometimes does not end."""
  return sandbox_models.base_model(
    *(tmp_path_factory.mktemp("policy") / "base", 0, sandbox_models.TrainingSettings(30, 16, 4e-3)),
    rows=arithmetic.conversations(480, 0),
    texts=arithmetic.every_text(),
  )


def rows(n):
  return [
    {"prompt": one.prompt, "steps": one.steps, "answer": arithmetic.answer(one.prompt[0]["content"]), "id": place}
    for place, one in enumerate(arithmetic.chains(n, 3))
  ]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  return write_jsonl(tmp_path_factory.mktemp("solutions") / "solutions.jsonl", rows(70))


def flags(policy, file, *more):
  start = ("--model_name_or_path", policy, "--input", file, "--answer_pattern", PATTERN)
  every = ("--label_after_error",) * ("binary" not in more)
  return (*start, "--max_new_tokens", 24, "--num_rollouts", 3, *every, *more)


def written(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(policy, file, tmp_path_factory):
  """An undisturbed run: (its JSON, its file)."""
  out = tmp_path_factory.mktemp("whole") / "out.jsonl"
  done = run_main("label_steps.py", *flags(policy, file, "--output", out, "--seed", 5))
  assert done.returncode == 0, done.stderr
  assert [path.name for path in out.parent.iterdir()] == ["out.jsonl"]
  return done.json, out


def test_labels_are_those_of_one_prefix_at_a_time(policy, file, whole):
  """Each rollout alone, by transformers' own loop over tokens, with its random numbers drawn as documented."""
  loaded, labeled, steps = Policy.from_pretrained(str(policy)), written(whole[1]), 0
  total = sum(len(row["steps"]) for row in rows(70))
  counts = Counter()
  for row, found in zip(rows(70), labeled, strict=True):
    asked = arithmetic.gold(row["prompt"][0]["content"], row["steps"])
    assert found["labels"][-1] == (row["steps"][-1].endswith(f"is {row['answer']}"))
    assert len(asked) == len(found["labels"]) == len(found["rollouts"])
    for k in range(1, len(row["steps"])):
      text = sandbox_text(row["prompt"], row["steps"][:k])
      ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
      right = decided = 0
      for i in range(3):
        answer = one_token_at_a_time(loaded, ids, (5, i * total + steps + k - 1), 24)
        counts["tokens"] += len(answer)
        counts["unfinished"] += answer[-1] not in loaded.end_tokens
        if answer[-1] in loaded.end_tokens:
          said = text.partition("<|assistant|>")[2] + loaded.tokenizer.decode(answer[:-1])
          decided += 1
          right += said.split(" is ")[-1].split()[0] == row["answer"]
      assert found["rollouts"][k - 1] == [right, decided]
      assert found["labels"][k - 1] == (right / decided if decided else None)
    steps += len(row["steps"])
  assert counts["tokens"] == whole[0]["tokens"]
  assert counts["unfinished"] == whole[0]["rollouts_undecided"].get("unfinished", 0)


def sandbox_text(prompt, steps):
  return f"<|user|>{prompt[0]['content']}<|end|><|assistant|>" + "".join(f"{step}\n" for step in steps)


def one_token_at_a_time(policy, ids, seed, longest):
  import numpy

  draws = numpy.random.default_rng(list(seed)).random(longest, dtype=numpy.float32)
  answer = []
  with torch.inference_mode():
    while len(answer) < longest and (not answer or answer[-1] not in policy.end_tokens):
      logits = policy.model(input_ids=torch.tensor([ids + answer])).logits[0, -1]
      cumulative = logits.float().softmax(-1).cumsum(-1)
      drawn = torch.searchsorted(cumulative, draws[len(answer)] * cumulative[-1:], right=True)
      answer.append(int(drawn.clamp(max=len(cumulative) - 1)))
  return answer


def test_counts_add_up_and_training_reads_the_labels(policy, file, whole, tiny, tmp_path):
  result, out = whole
  assert faults_of("label_steps.py", result) == []
  labeled = written(out)
  made = [own for row in labeled for own in row["rollouts"][:-1]]
  assert result["rollouts"] == 3 * len(made) == result["rollouts_at_most"]
  assert result["tokens_at_most"] == 24 * result["rollouts_at_most"]
  assert sum(3 - decided for _, decided in made) == sum(result["rollouts_undecided"].values())
  assert sum(right for right, _ in made) == result["rollouts_right"] > 0
  assert result["right"] + result["wrong"] == result["solutions"] == 70 and result["undecided"] == 0
  labels = [label for row in labeled for label in row["labels"] if label is not None]
  assert result["labeled_steps"] == len(labels)
  assert any(0 < label < 1 for label in labels)
  assert [one.labels for one in load(str(out)).rows] == [row["labels"] for row in labeled]
  trained = run_main(
    *("train_process.py", "--model_name_or_path", tiny("qwen2"), "--dataset_name", out),
    *("--output_dir", tmp_path / "prm", "--dry_run"),
  )
  assert trained.returncode == 0, trained.stderr
  assert trained.json["counts"]["labels_used"] == len(labels)


def test_what_it_would_cost_is_said_before_and_nothing_is_written(policy, file, whole, tmp_path):
  done = run_main("label_steps.py", *flags(policy, file, "--dry_run", "--output", tmp_path / "o.jsonl"))
  assert done.returncode == 0, done.stderr
  assert done.json == {name: whole[0][name] for name in done.json}
  assert not list(tmp_path.iterdir())


def test_a_killed_run_goes_on_to_an_equal_file(policy, file, whole, tmp_path):
  command = [
    *("python", SCRIPTS / "label_steps.py"),
    *flags(policy, file, "--output", tmp_path / "out.jsonl", "--seed", 5),
  ]
  run = warm_process.shared().start(command)
  while run.poll() is None and not any("\n" in path.read_text() for path in tmp_path.glob("out.jsonl.*.rollouts")):
    time.sleep(0.005)
  run.send_signal(signal.SIGKILL)
  run.wait()
  (journal,) = tmp_path.glob("out.jsonl.*.rollouts")
  held = journal.read_text().count("\n")
  assert held >= 1 and not (tmp_path / "out.jsonl").exists()
  with journal.open("a") as torn:
    torn.write("[[[[1,")
  other = run_main("label_steps.py", *flags(policy, file, "--output", tmp_path / "out.jsonl", "--seed", 6))
  assert other.returncode == 0 and other.json["tokens"] != whole[0]["tokens"], "another run takes nothing of it"
  (tmp_path / "out.jsonl").unlink()
  done = run_main("label_steps.py", *flags(policy, file, "--output", tmp_path / "out.jsonl", "--seed", 5))
  assert done.returncode == 0, done.stderr
  assert f"holds {min(32 * held, 70)} of 70 solutions" in done.stderr
  assert (tmp_path / "out.jsonl").read_bytes() == whole[1].read_bytes()
  assert done.json == {**whole[0], "output": str(tmp_path / "out.jsonl")}
  assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_hard_labels_and_more_rollouts_which_only_add(policy, file, whole, tmp_path):
  out = tmp_path / "hard.jsonl"
  done = run_main("label_steps.py", *flags(policy, file, "--output", out, "--seed", 5, "--labels", "hard"))
  assert done.returncode == 0, done.stderr
  for hard, soft in zip(written(out), written(whole[1]), strict=True):
    assert hard["rollouts"] == soft["rollouts"]
    assert hard["labels"] == [None if label is None else float(label > 0) for label in soft["labels"]]
  more = run_main(
    *("label_steps.py", *flags(policy, file, "--output", tmp_path / "more.jsonl", "--seed", 5)),
    *("--num_rollouts", 5),
  )
  assert more.returncode == 0, more.stderr
  for five, three in zip(written(tmp_path / "more.jsonl"), written(whole[1]), strict=True):
    for (right, decided), (less, fewer) in zip(five["rollouts"][:-1], three["rollouts"][:-1], strict=True):
      assert less <= right <= less + 2 and fewer <= decided <= fewer + 2


def test_labels_stop_at_the_first_step_that_nothing_right_follows(policy, file, whole, tmp_path):
  start = ("--model_name_or_path", policy, "--input", file, "--answer_pattern", PATTERN, "--max_new_tokens", 24)
  done = run_main("label_steps.py", *start, "--num_rollouts", 3, "--seed", 5, "--output", tmp_path / "o.jsonl")
  assert done.returncode == 0, done.stderr
  cut = 0
  for row, every in zip(written(tmp_path / "o.jsonl"), written(whole[1]), strict=True):
    right = [k for k, (right, _) in enumerate(every["rollouts"], 1) if right]
    lost = [k for k, own in enumerate(every["rollouts"], 1) if k > max(right, default=0) and own[1] and not own[0]]
    end = min(lost, default=len(every["labels"]))
    assert row["labels"] == every["labels"][:end] + [None] * (len(every["labels"]) - end)
    cut += len(every["labels"]) - end
  assert cut > 0 and done.json["labeled_steps"] == whole[0]["labeled_steps"] - cut


def test_labels_by_hand():
  """Of four rollouts: the second step looks lost until the third succeeds; the fourth is the error, the fifth after it."""
  one = labeled(5)
  one.rollouts = [[3, 4], [0, 4], [1, 4], [0, 3], [0, 1]]
  common = {"model_name_or_path": "m", "input": ["i"], "output": "o"}
  assert one.labels(RolloutSettings(**common)) == [0.75, 0.0, 0.25, 0.0, None]
  assert one.labels(RolloutSettings(**common, labels="hard")) == [1.0, 0.0, 1.0, 0.0, None]
  assert one.labels(RolloutSettings(**common, label_after_error=True)) == [0.75, 0.0, 0.25, 0.0, 0.0]
  one.rollouts = [[3, 4], None, [0, 0], [0, 2], [0, 1]]
  assert one.labels(RolloutSettings(**common)) == [0.75, None, None, 0.0, None]


def labeled(steps, last=None):
  return Labeled(None, None, ["s"] * steps, 0, [None] * (steps - 1) + [last])


@given(st.integers(1, 40), st.data())
def test_a_binary_search_finds_what_a_scan_finds(steps, data):
  """By an oracle for which right ends are found before the first error and nowhere after it."""
  error = data.draw(st.integers(1, steps + 1))
  known = data.draw(st.booleans())
  one = labeled(steps, [int(error > steps), 1] if known else None)
  most, asked = one.at_most("binary"), 0
  while wanted := one.wanted("binary"):
    (k,) = wanted
    asked += 1
    one.rollouts[k - 1] = [0, 3] if k >= error else [data.draw(st.integers(1, 3)), 3]
  settings = RolloutSettings(model_name_or_path="m", input=["i"], output="o", search="binary")
  scan = [1.0] * (error - 1) + [0.0] * (error <= steps) + [None] * (steps - error)
  assert one.labels(settings) == scan
  assert asked <= most <= math.ceil(math.log2(steps + 1)) + 1
  assert not (known and error > steps and asked)


def test_what_a_binary_search_cannot_decide_stays_without_a_label():
  settings = RolloutSettings(model_name_or_path="m", input=["i"], output="o", search="binary")
  one = labeled(4, [0, 1])
  assert one.wanted("binary") == [2]
  one.rollouts[1] = [0, 0]
  assert one.wanted("binary") == []
  assert one.labels(settings) == [None] * 4
  one = labeled(5, [0, 1])
  one.rollouts[1], one.rollouts[2] = [2, 3], [0, 0]
  assert one.labels(settings) == [1.0, 1.0, None, None, None]


def test_a_binary_search_by_the_policy_labels_up_to_the_first_error(policy, file, tmp_path):
  out = tmp_path / "out.jsonl"
  done = run_main("label_steps.py", *flags(policy, file, "--output", out, "--search", "binary"))
  assert done.returncode == 0, done.stderr
  assert done.json["rollouts"] <= done.json["rollouts_at_most"]
  for row in written(out):
    labels = [label for label in row["labels"] if label is not None]
    assert labels == [1.0] * labels.count(1.0) + [0.0] * labels.count(0.0) and labels.count(0.0) <= 1
    if row["rollouts"][-1] == [1, 1]:
      assert row["rollouts"][:-1] == [None] * (len(row["steps" if "steps" in row else "completions"]) - 1)
      assert labels == [1.0] * len(row["labels"])


CHECKS = """
def fails(text, row):
    raise RuntimeError("no such table")

def some(text, row):
    if len(text) % 5 == 0:
        while True:
            pass
    if len(text) % 3 == 0:
        raise RuntimeError("no such table")
    return len(text) % 2 == 0 and row["answer"] in text
"""


def test_a_checker_that_hangs_or_raises_is_counted(policy, tmp_path):
  (tmp_path / "checks.py").write_text(CHECKS)
  small = write_jsonl(tmp_path / "small.jsonl", rows(3))
  start = flags(policy, small, "--output", tmp_path / "out.jsonl", "--checker_seconds", 0.3)
  done = run_script("label_steps.py", *start, "--checker", f"{tmp_path / 'checks.py'}:some")
  assert done.returncode == 0, done.stderr
  why = done.json["rollouts_undecided"]
  assert why["checker_timeouts"] > 0 and why["checker_errors"] > 0
  decided = sum(own[1] for row in written(tmp_path / "out.jsonl") for own in row["rollouts"])
  lost = sum(own[1] for row in written(tmp_path / "out.jsonl") for own in row["rollouts"][-1:])
  assert decided - lost + sum(why.values()) <= done.json["rollouts"]
  assert "the checker fails, the first time by this: " in done.stderr
  done = run_script("label_steps.py", *start, "--overwrite", "--checker", f"{tmp_path / 'checks.py'}:fails")
  assert done.returncode == 5
  assert "no step can be labeled by rollouts" in done.json["error"]["message"]


def test_a_policy_that_never_ends_is_told(tiny, file, tmp_path):
  """Rollouts that were cut are not wrong: nothing is labeled by them."""
  start = ("--model_name_or_path", tiny("qwen2"), "--input", file, "--answer_pattern", PATTERN, "--num_rollouts", 1)
  out = ("--output", tmp_path / "out.jsonl", "--temperature", 0)
  done = run_main("label_steps.py", *start, "--max_new_tokens", 2, *out)
  assert done.returncode == 5
  assert "134 of 134 rollouts are undecided (unfinished 134)" in done.stderr
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("more", "code", "told"),
  [
    (("--reference_column", "gold"), 3, "no right answer in a column gold"),
    (("--checker", "exact"), 2, "--checker exact is not known"),
    (("--search", "binary", "--labels", "soft"), 2, "leave out --labels"),
    (("--search", "binary", "--label_after_error"), 2, "leave out --label_after_error"),
    (("--seed", -1), 2, "--seed: expected a whole number of at least 0"),
    (("--model_name_or_path", "{file}"), 4, ""),
    (("--output", "{file}"), 2, "exists already"),
    (("--max_new_tokens", 100000), 5, "402 of 402 rollouts are undecided (overlong 402)"),
  ],
)
def test_what_is_wrong_is_said(policy, file, tmp_path, more, code, told):
  more = [str(word).format(file=file) for word in more]
  done = run_main("label_steps.py", *flags(policy, file, "--output", tmp_path / "out.jsonl"), *more)
  assert (done.returncode, told in done.stderr) == (code, True), done.stderr


def test_tools_which_no_process_model_reads_are_refused_before_anything_is_written(policy, tmp_path):
  tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
  file = write_jsonl(tmp_path / "tools.jsonl", [rows(1)[0] | {"tools": tools}])
  done = run_main("label_steps.py", *flags(policy, file, "--output", tmp_path / "o.jsonl"))
  assert (done.returncode, "reads no `tools`" in done.stderr) == (4, True), done.stderr
  done = run_main("label_steps.py", *flags(policy, file, "--output", tmp_path / "o.jsonl", "--columns", "tools="))
  assert done.returncode == 0, done.stderr


def test_special_tokens_in_a_step_are_text(policy):
  loaded = Policy.from_pretrained(str(policy))
  (row,) = [Labeled(load_one(["a <|end|> b", "c"]), None, ["a <|end|> b", "c"], 0, [None, None])]
  ids = prefix_ids(loaded, row, 1, "\n")
  assert loaded.tokenizer.decode(ids).endswith("<|assistant|>a <|end|> b\n")
  assert ids.count(loaded.tokenizer.eos_token_id) == 1  # that of the prompt's turn


def load_one(steps):
  from reward_modeling.data.records import Ranking, in_steps

  return Ranking([{"role": "user", "content": "q"}], [in_steps(steps)])


def test_a_prefix_is_sampled_alike_in_any_company(policy, file):
  loaded = Policy.from_pretrained(str(policy))
  ids = [loaded.renderer.prompt_ids(row["prompt"]) for row in rows(6)]
  how = {"max_new_tokens": 12, "seed": 1}
  together = sample(loaded, ids, numbers=range(6), **how)
  assert together == [sample(loaded, [own], numbers=[n], **how)[0] for n, own in enumerate(ids)]
