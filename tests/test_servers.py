"""score.py --server and --check_server against servers that really run a model, rightly or wrongly."""

import json
from pathlib import Path

import pytest

from conftest import run_script, tiny_config, tiny_tokenizer, write_jsonl
from fake_servers import Fake, served

BOS = "<|endoftext|>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
  """A model that reads 1,024 tokens, and whose tokenizer has a BOS token."""
  import torch
  from transformers import AutoModelForSequenceClassification

  from reward_modeling import checkpoints
  from reward_modeling.rendering import Renderer

  place = tmp_path_factory.mktemp("served")
  tokenizer = tiny_tokenizer("qwen2")
  tokenizer.bos_token, tokenizer.model_max_length = BOS, 1024
  config = tiny_config("qwen2", len(tokenizer))
  config.max_position_embeddings, config.num_labels = 1024, 1
  torch.manual_seed(0)
  AutoModelForSequenceClassification.from_config(config).save_pretrained(place / "base")
  tokenizer.save_pretrained(place / "base")
  loaded = checkpoints.load_for_training(str(place / "base"))
  checkpoints.save(loaded.model, Renderer(loaded.tokenizer, max_length=1024), place / "model", training={}, reward={})
  return place / "model"


@pytest.fixture(scope="module")
def model(folder):
  from reward_modeling import RewardModel

  return RewardModel.from_pretrained(str(folder))


def score(folder, *arguments):
  return run_script("score.py", "--model_name_or_path", folder, *arguments)


ROWS = [
  {"id": i, "prompt": f"hello {i}", "completions": [f"thank you {k} {i}" for k in range(1 + i % 4)]} for i in range(90)
]


@pytest.fixture
def rows(tmp_path) -> Path:
  return write_jsonl(tmp_path / "rows.jsonl", ROWS)


def same_rows(one: list[dict], other: list[dict]) -> None:
  assert len(one) == len(other)
  for mine, theirs in zip(one, other, strict=True):
    for name in {"reward", "rewards"} & mine.keys():
      assert mine.pop(name) == pytest.approx(theirs.pop(name), abs=1e-5)
    assert mine == theirs


@pytest.mark.parametrize("api", ["ours", "vllm", "sglang", "tei", "infinity", "openrlhf", "llamafactory"])
def test_servers_give_the_rows_that_this_process_gives(folder, model, rows, api):
  fake = Fake(model, api, reads=("use_activation",))
  with served(fake) as url, served(fake) as second:
    flags = () if api == "ours" else ("--model_name_or_path", folder, "--api", api)
    done = run_script("score.py", "--server", url, second, "--input", rows, "--rank", "--concurrency", "3", *flags)
  assert done.returncode == 0, done.stderr
  alone = score(folder, "--input", rows, "--rank").json
  same_rows(done.json.pop("rows"), alone.pop("rows"))
  assert done.json.pop("reward_mean") == pytest.approx(alone.pop("reward_mean"), abs=1e-5)
  told = {"model": 0, "batches": None}  # how batches are made is the server's own
  assert {**done.json, **told} == {**alone, **told}
  assert len(fake.requests) >= 3 and fake.most <= 3, "not all at once, and not one at a time"


@pytest.mark.parametrize("fault", [429, 503, "drop"])
def test_a_busy_server_and_a_lost_connection_cost_no_row(model, folder, rows, fault):
  fake = Fake(model, "ours", fail=lambda number: fault if number % 3 == 2 else None)
  with served(fake) as url:
    done = run_script("score.py", "--server", url, "--input", rows)
  assert done.returncode == 0, done.stderr
  same_rows(done.json["rows"], score(folder, "--input", rows).json["rows"])


@pytest.mark.parametrize(("fault", "code", "told"), [
    (500, 5, "failed (500: "), (404, 5, "--api"), (422, 3, "refuses a request (422: "),
])  # fmt: skip
def test_what_a_retry_does_not_help_ends_the_run(model, rows, tmp_path, fault, code, told):
  fake = Fake(model, "ours", fail=lambda number: fault)
  with served(fake) as url:
    done = run_script("score.py", "--server", url, "--input", rows, "--output", tmp_path / "out.jsonl")
  assert done.returncode == code and told in done.stderr and len(fake.requests) <= (16 if code == 5 else 64)
  assert not (tmp_path / "out.jsonl").exists() and "Traceback" not in done.stderr


@pytest.mark.parametrize(("api", "limit"), [("tei", 5), ("vllm", 1)])
def test_requests_are_as_large_as_a_server_takes(folder, model, rows, api, limit):
  fake = Fake(model, api, reads=("use_activation",), most_texts=limit)
  with served(fake) as url:
    done = score(folder, "--server", url, "--api", api, "--input", rows)
  assert done.returncode == 0, done.stderr
  same_rows(done.json["rows"], score(folder, "--input", rows).json["rows"])
  name = {"tei": "inputs", "vllm": "input"}[api]
  assert {len(body[name]) for body in fake.requests} >= {32, limit if limit == 1 else 4}


def test_a_text_that_is_too_long_for_the_server_is_named(folder, model, tmp_path):
  """And nothing is cut, though such a server cuts unless told."""
  data = write_jsonl(tmp_path / "long.jsonl", [*ROWS[:7], {"prompt": "hello " * 90, "completions": ["no"]}])
  for api, status in (("tei", 422), ("sglang", 400)):
    fake = Fake(model, api, longest=64)
    with served(fake) as url:
      done = score(folder, "--server", url, "--api", api, "--input", data, "--concurrency", "1")
    assert done.returncode == 3 and f"refuses a request ({status}: " in done.stderr and "long.jsonl:8" in done.stderr
    assert len(fake.requests) < 12, "of 17 texts, by halves"


def test_verl_sends_text_without_the_bos_which_vllm_adds():
  from reward_modeling.remote import APIS

  texts, ids = ["<s>hello", "<s>no"], [[1], [2]]
  assert APIS["vllm"].others["verl"](texts, ids, "<s>") == {"input": ["hello", "no"], "use_activation": False}
  assert APIS["vllm"].others["verl"](texts, ids, "")["input"] == texts


def test_a_server_that_is_not_there_and_one_with_a_key(model, rows, tmp_path):
  done = run_script("score.py", "--server", "http://127.0.0.1:9", "--input", rows)
  assert done.returncode == 5 and "does not answer" in done.stderr
  with served(Fake(model, "ours", key="secret")) as url:
    done = run_script("score.py", "--server", url, "--input", rows)
    assert done.returncode == 2 and "--key_file" in done.stderr
    (tmp_path / "key").write_text("secret\n")
    assert run_script("score.py", "--server", url, "--input", rows, "--key_file", tmp_path / "key").returncode == 0


@pytest.mark.parametrize(("flags", "told"), [
    (("--server", "http://a", "--max_length", "9", "--input", "x.jsonl"), "--max_length does nothing with --server"),
    (("--server", "http://a", "--normalize", "--input", "x.jsonl"), "--normalize does nothing with --server"),
    (("--server", "http://a", "--api", "vllm", "--input", "x.jsonl"), "--model_name_or_path"),
    (("--check_server", "http://a",), "--model_name_or_path"),
    (("--server", "http://a", "--check_server", "http://a", "--model_name_or_path", "m"), "--check_server does nothing"),
])  # fmt: skip
def test_flags_that_mean_nothing_are_refused(flags, told):
  done = run_script("score.py", *flags)
  assert done.returncode == 2 and told in done.stderr, done.stderr


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_server_of_this_machine_is_not_asked_by_way_of_a_proxy(address, model, monkeypatch):
  from reward_modeling.remote import ServerRewards

  for name in ("http_proxy", "all_proxy"):
    monkeypatch.setenv(name, "http://127.0.0.1:9")
  for name in ("no_proxy", "NO_PROXY"):
    monkeypatch.delenv(name, raising=False)
  with served(Fake(model, "ours")) as url:
    found = ServerRewards(url.replace("127.0.0.1", address))(prompts=["hello"], completions=["yes"])
  assert found == pytest.approx(model.score(["hello"], ["yes"]), abs=1e-5)


def test_a_threshold_for_a_server_that_scores_no_steps_is_refused(model, rows, tmp_path):
  out = tmp_path / "out.jsonl"
  with served(Fake(model, "ours")) as url:
    done = run_script("score.py", "--server", url, "--input", rows, "--threshold", "0.5", "--output", out)
  assert done.returncode == 2 and "--threshold is for one process reward model" in done.stderr
  assert not out.exists()


def test_servers_are_a_reward_function_of_trl(model):
  from reward_modeling.remote import ServerRewards

  with served(Fake(model, "ours")) as url:
    reward = ServerRewards(url)
    prompts = [[{"role": "user", "content": "hello"}], [{"role": "user", "content": "hello world"}]]
    completions = [[{"role": "assistant", "content": "yes"}], [{"role": "assistant", "content": "no"}]]
    given = reward(prompts=prompts, completions=completions, completion_ids=[[1], [2]], trainer_state=None)
    assert given == pytest.approx(model.score(prompts, completions), abs=1e-5)
    assert reward(["hello"], ["yes"]) == pytest.approx(model.score(["hello"], ["yes"]), abs=1e-5)
    assert reward.__name__ == "server_rewards"


def test_serve_py_gives_the_rows_that_this_process_gives(folder, toy_process_model, rows, tmp_path):
  """And is found right, by an independent route: its own HTTP application."""
  from serving import serving

  key = tmp_path / "key"
  key.write_text("secret")
  with serving(folder, key_file=str(key)) as client:
    url = "http://{}:{}".format(*client.address)
    done = run_script("score.py", "--server", url, "--input", rows, "--key_file", key)
    checked = score(folder, "--check_server", url, "--key_file", key)
    by_vllm = score(folder, "--check_server", url, "--api", "vllm", "--key_file", key)
  assert done.returncode == 0, done.stderr
  same_rows(done.json["rows"], score(folder, "--input", rows).json["rows"])
  assert checked.returncode == 0 and checked.json["equal"], checked.stderr
  assert [one["causes"] for one in by_vllm.json["findings"]] == [["equal"], ["equal"]], by_vllm.stderr
  steps = [{"id": i, "prompt": f"What is {i}?", "steps": ["one", f"it is {i}"]} for i in range(40)]
  data = write_jsonl(tmp_path / "steps.jsonl", steps)
  flags = ("--model_name_or_path", toy_process_model, "--input", data)
  with serving(toy_process_model) as client:
    url = "http://{}:{}".format(*client.address)
    done = run_script("score.py", *flags, "--server", url)
    checked = run_script("score.py", *flags, "--check_server", url)
    flagged = run_script("score.py", *flags, "--server", url, "--threshold", "0.5")
  assert {row["first_flagged"] for row in flagged.json["rows"]} <= {-1, 0, 1}, flagged.stderr
  alone = run_script("score.py", *flags).json
  for one, other in zip(done.json["rows"], alone["rows"], strict=True):
    assert one.pop("step_rewards") == pytest.approx(other.pop("step_rewards"), abs=1e-5)
    assert one.pop("reward") == pytest.approx(other.pop("reward"), abs=1e-5)
    assert one == other
  assert done.json["steps"] == 80 and checked.returncode == 0, checked.stderr


# ---- --check_server -----------------------------------------------------------------------------------------------


def plain(model):
  return lambda text: model.renderer.tokenizer(text, add_special_tokens=False)["input_ids"]


def bos(model):
  return lambda text: [model.renderer.tokenizer.bos_token_id, *plain(model)(text)]


def endless(model):
  return lambda text: plain(model)(text.rstrip().removesuffix("<|im_end|>"))


def stripped(model):
  return lambda text: plain(model)(text.strip())


def twice(model):
  return lambda text: plain(model)(model.renderer.text([{"role": "user", "content": text}]))


CASES = {
    # name: (api, what the fake does, the causes of score.py's request, those of the other program's, what must be said)
    "right": ("ours", {}, ["equal"], None, None),
    "right vllm": ("vllm", {"reads": ("use_activation", "activation")}, ["equal"], ["equal"], None),
    "right tei": ("tei", {}, ["equal"], None, None),
    "vllm since it renamed the parameter": ("vllm", {"reads": ("use_activation",)}, ["equal"], ["equal"], None),
    "vllm before": ("vllm", {"reads": ("activation",)}, ["sigmoid"], ["sigmoid"], '"use_activation": false'),
    "vllm that squashes whatever is sent": ("vllm", {}, ["sigmoid"], ["sigmoid"], "--pooler-config"),
    "softmax": ("sglang", {"value": lambda score: 1.0}, ["softmax"], ["softmax"], "/v1/classify applies a softmax"),
    "shifted and scaled": ("openrlhf", {"value": lambda score: 2.5 * score - 3}, ["scaled"], None, "2.5 * reward -3"),
    "scaled, ours": ("ours", {"value": lambda score: (score - 0.7) / 1.3}, ["scaled"], None, "normalization"),
    "bos": ("vllm", {"reads": ("use_activation", "activation"), "ids": bos}, ["equal"], ["special_tokens"], '"add_special_tokens": false'),
    "bos of text": ("tei", {"ids": bos}, ["special_tokens"], None, "post_processor"),
    "no end token": ("openrlhf", {"ids": endless}, ["end_missing"], None, "with its end"),
    "one end more": ("openrlhf", {"ids": lambda model: lambda text: plain(model)(text + "<|im_end|>")}, ["end_added"], None, "let it add none"),
    "stripped": ("tei", {"ids": stripped}, ["stripped"], None, "as it is"),
    "infinity": ("infinity", {"ids": stripped}, ["stripped"], None, "ends in no whitespace"),
    "refuses, since told not to cut": ("tei", {"longest": 512}, ["refused"], None, '"truncate": false, raise --max-batch-tokens'),
    "a random bias": ("sglang", {"value": lambda score: score + 0.03}, ["scaled"], ["scaled"], "random where the folder has none"),
    "cut on the right": ("tei", {"ids": lambda model: lambda text: plain(model)(text)[:512]}, ["cut"], None, "512 tokens (their end is lost)"),
    "cut on the left": ("openrlhf", {"ids": lambda model: lambda text: plain(model)(text)[-256:]}, ["cut"], None, "raise its --data.max_len"),
    "refuses": ("vllm", {"reads": ("use_activation", "activation"), "longest": 300}, ["refused"], ["refused"], "--max-model-len"),
    "templated twice": ("openrlhf", {"ids": twice}, ["templated_twice"], None, "not as a chat"),
    "bos and sigmoid": ("tei", {"ids": bos, "value": Fake.squash}, ["special_tokens", "sigmoid"], None, '"raw_scores": true'),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_a_server_does_to_text_or_reward_is_told(folder, model, name):
  api, does, causes, others, told = CASES[name]
  does = {key: value(model) if key == "ids" else value for key, value in does.items()}
  with served(Fake(model, api, **does)) as url:
    done = score(folder, "--check_server", url, "--api", api)
  found = done.json["findings"]
  assert [one["causes"] for one in found] == [causes, others] if others else [causes], done.stderr
  right = all(one["causes"] == ["equal"] for one in found)
  assert done.returncode == (0 if right else 5) and done.json["equal"] is right
  assert told is None or told in done.stderr, done.stderr
  assert done.json["tokens"][-1] > 512, "texts as long as the model reads"


def test_a_server_in_bf16_is_told_and_can_be_accepted(folder, model):
  from reward_modeling import RewardModel

  half = RewardModel.from_pretrained(str(folder), dtype="bfloat16")
  with served(Fake(half, "tei")) as url:
    done = score(folder, "--check_server", url, "--api", "tei")
    assert done.returncode == 5 and done.json["findings"][0]["causes"] == ["precision"], done.json
    assert "computes in bfloat16" in done.stderr and "--dtype bfloat16" in done.stderr
    accepted = score(folder, "--check_server", url, "--api", "tei", "--dtype", "bfloat16")
    assert accepted.returncode == 0 and accepted.json["findings"][0]["causes"] == ["precision"]
    assert 1e-4 < accepted.json["findings"][0]["largest_difference"] < 0.2


def test_another_model_is_told_and_rows_of_the_user_are_compared(folder, model, tiny, tmp_path):
  from reward_modeling import RewardModel

  other = RewardModel.from_pretrained(str(tiny("qwen2", seed=5, head=1)))
  data = write_jsonl(tmp_path / "rows.jsonl", ROWS[:5])
  with served(Fake(other, "tei")) as url:
    done = score(folder, "--check_server", url, "--api", "tei", "--input", data)
  assert done.returncode == 5 and done.json["findings"][0]["causes"] == ["unknown"]
  alone = score(folder, "--input", data).json["rows"]
  flat = [reward for row in alone for reward in row.get("rewards", [row.get("reward")])]
  assert done.json["rewards"][-len(flat) :] == pytest.approx(flat, abs=1e-5)


def test_a_server_that_refuses_everything(folder, model):
  with served(Fake(model, "tei", longest=1)) as url:
    done = score(folder, "--check_server", url, "--api", "tei")
  assert done.returncode == 5 and "refuses all texts" in done.stderr
  assert json.loads(done.stdout)["error"]["message"] in done.stderr
