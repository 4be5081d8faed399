"""Commands with hub ids, run as documented through the real client libraries, against a hub on this machine."""

from __future__ import annotations

from pathlib import Path

import official_rows
import pytest
from folders import copied

from conftest import CHATML, run_script, save_tiny, toy_pairs
from local_hub import LocalHub, jsonl, parquet

BASE = "Qwen/Qwen2.5-0.5B-Instruct"
DATASET = "trl-lib/ultrafeedback_binarized"
TRAINED = "someone/reward"  # made by train.py: it carries reward_model.json
FOREIGN = "Skywork/Skywork-Reward-V2-Qwen3-0.6B"  # made by others: it does not
QUICK = ("--max_steps", "3", "--per_device_train_batch_size", "2", "--save_strategy", "no")
OTHER_TEMPLATE = CHATML.replace("<|im_start|>", "<|endoftext|>")
ANSWERS = ("--prompt", "hello", "--completions", "thank you", "no")


def failure(done, code: int) -> tuple[str, str]:
  """The one error line and the one hint of a command that failed with this exit code."""
  assert done.returncode == code, done.stderr
  error, _, hint = done.stderr.strip().partition("\n\n")
  told = done.json and done.json.pop("error")  # check_data.py says it on stdout too
  assert not done.json and (told is None or error.startswith(f"error: {told['message']}"))
  assert "\n" not in hint and "Traceback" not in done.stderr
  return error, hint


@pytest.fixture(scope="module")
def trained(hub, tmp_path_factory):
  """The documented training command, and its model under a hub id: (folder, what the command printed).

  Its chat template is that of another model on the hub.
  """

  def other_template(tokenizer):
    tokenizer.chat_template = OTHER_TEMPLATE

  hub.add_model("someone/template", save_tiny("qwen2", tmp_path_factory.mktemp("template"), edit=other_template))
  out = tmp_path_factory.mktemp("trained") / "out"
  command = ("--model_name_or_path", BASE, "--dataset_name", DATASET, "--output_dir", out)
  done = run_script("train.py", *command, *QUICK, "--chat_template_path", "someone/template", env=hub.env)
  assert done.returncode == 0, done.stderr
  hub.add_model(TRAINED, out)
  return out, done


def test_the_documented_training_command_trains_and_reports_margins(trained):
  _, done = trained
  assert done.json["format"] == "implicit"
  assert done.json["counts"]["pairs"] == 32, "the train split, not the test split of 16"
  assert done.json["training"]["base_model"] == BASE
  assert "step 3/3" in done.stderr and "margin" in done.stderr
  # Every pair has a margin of 8 - 3.5 = 4.5, so an untrained model's loss is near softplus(4.5) = 4.51, not log 2.
  assert done.json["training"]["train_loss"] > 3


def test_the_chat_template_of_another_model_on_the_hub_is_used_and_saved(trained):
  folder, done = trained
  assert "chat template: the one given" in done.stderr
  assert (folder / "chat_template.jinja").read_text() == OTHER_TEMPLATE


def test_evaluate_reads_the_test_split_and_a_model_with_its_card(hub, trained):
  done = run_script(
    "evaluate.py",
    "--model_name_or_path",
    TRAINED,
    "--dataset_name",
    DATASET,
    "--dataset_split",
    "test",
    env=hub.env,
  )
  assert done.returncode == 0, done.stderr
  assert done.json["n_pairs"] == 16
  assert "has no reward_model.json" not in done.stderr


def test_score_gives_by_hub_id_what_it_gives_by_folder_and_refuses_a_model_whose_card_is_out_of_reach(hub, trained):
  from reward_modeling.scoring import RewardModel

  folder, _ = trained
  done = run_script("score.py", "--model_name_or_path", TRAINED, *ANSWERS, env=hub.env)
  assert done.returncode == 0, done.stderr
  expected = RewardModel.from_pretrained(folder).score(["hello"], [["thank you", "no"]])[0]
  assert done.json["rows"][0]["rewards"] == pytest.approx(expected, abs=1e-5)

  # Whoever loaded the model with transformers alone has everything in the cache but the card.
  cached = Path(hub.env["HF_HOME"]).glob("hub/models--someone--reward/snapshots/*/reward_model.json")
  next(cached).unlink()
  offline = run_script("score.py", "--model_name_or_path", TRAINED, *ANSWERS, env={**hub.env, "HF_HUB_OFFLINE": "1"})
  error, hint = failure(offline, 4)
  assert error == f"error: the reward_model.json of {TRAINED} is not in the cache, and the hub cannot be asked"
  assert hint.endswith(f"hf download {TRAINED} reward_model.json")


def test_score_takes_a_foreign_reward_model_and_says_so(hub, tiny):
  hub.add_model(FOREIGN, tiny("qwen3", head=1))
  done = run_script("score.py", "--model_name_or_path", FOREIGN, *ANSWERS, env=hub.env)
  assert done.returncode == 0, done.stderr
  assert f"{FOREIGN}: Skywork/Skywork-Reward-V2-*, read by a linear head at the last token" in done.stderr
  assert len(set(done.json["rows"][0]["rewards"])) == 2


@pytest.fixture(scope="module")
def two_configurations(hub):
  hub.add_dataset(
    "someone/two",
    {
      "README.md": b"---\nconfigs:\n- config_name: polite\n  data_files: polite.jsonl\n"
      b"- config_name: rude\n  data_files: rude.jsonl\n---\n",
      "polite.jsonl": jsonl(toy_pairs(6)),
      "rude.jsonl": jsonl(toy_pairs(3)),
    },
  )
  return "someone/two"


def test_check_data_reads_one_split_and_one_configuration(hub, two_configurations):
  split = run_script("check_data.py", DATASET, "--dataset_split", "test", env=hub.env)
  assert (split.returncode, split.json["comparisons"]) == (0, 16), split.stderr
  assert split.json["columns_used"] == ["chosen", "rejected", "score_chosen", "score_rejected"]
  chosen = run_script("check_data.py", two_configurations, "--dataset_config", "rude", env=hub.env)
  assert (chosen.returncode, chosen.json["comparisons"]) == (0, 3), chosen.stderr


def test_a_wrong_split_or_configuration_is_answered_with_the_right_ones(hub, two_configurations):
  error, hint = failure(run_script("check_data.py", DATASET, "--dataset_split", "dev", env=hub.env), 3)
  assert error == f"error: Unknown split \"dev\". Should be one of ['train', 'test'].\n  --> {DATASET}"
  assert "--dataset_split" in hint
  error, hint = failure(run_script("check_data.py", two_configurations, env=hub.env), 3)
  assert "Config name is missing" in error and "['polite', 'rude']" in error
  assert "--dataset_config" in hint


def test_benchmarks_come_from_the_hub(hub, toy_process_model):
  """All four splits of ProcessBench under its id; one that the hub does not give says where else it may come from."""
  rows, _ = official_rows.processbench()
  splits = ("gsm8k", "math", "olympiadbench", "omnimath")
  files = {one: [row for row in rows if row["id"].startswith(one)] for one in splits}
  hub.add_dataset(
    "Qwen/ProcessBench", {f"data/{one}-00000-of-00001.parquet": parquet(own) for one, own in files.items()}
  )
  words = ("evaluate.py", "--model_name_or_path", toy_process_model, "--benchmark")
  done = run_script(*words, "processbench", env=hub.env)
  assert done.returncode == 0, done.stderr
  assert done.json["benchmarks"]["processbench"]["rows"] == len(rows)
  assert done.json["scores"]["processbench"] is not None
  error, hint = failure(run_script(*words, "prmbench", env=hub.env), 3)
  assert "hitsmy/PRMBench_Preview is neither" in error and "--benchmark_data" in hint


def test_an_unknown_id_is_refused_at_once(hub):
  """Asked once or twice, not retried with growing pauses: the hub knows what it does not have."""
  before = len(hub.requests)
  error, _ = failure(run_script("check_data.py", "nobody/nothing", env=hub.env), 3)
  assert error.startswith("error: nobody/nothing is neither a file here nor a dataset that the hub gave: Dataset")
  error, _ = failure(run_script("score.py", "--model_name_or_path", "nobody/nothing", *ANSWERS, env=hub.env), 4)
  assert error.startswith("error: cannot load nobody/nothing: nobody/nothing is not a local folder and is not a valid")
  assert len(hub.requests) - before <= 7


def test_a_gated_model_is_refused_with_the_way_to_get_it(hub, tiny):
  hub.add_model("someone/gated", tiny("llama"), gated=True)
  done = run_script("score.py", "--model_name_or_path", "someone/gated", *ANSWERS, env=hub.env)
  assert failure(done, 4) == (
    "error: cannot load someone/gated: You are trying to access a gated repo",
    "hint: accept the terms on the model's page, then log in with `hf auth login`",
  )


def test_a_route_that_the_local_hub_lacks_is_refused_and_recorded(tmp_path):
  import urllib.error
  import urllib.request

  hub = LocalHub(tmp_path)
  for data in (None, b"{}"):
    request = urllib.request.Request(hub.env["HF_ENDPOINT"] + "/api/models/a/b/discussions", data=data)
    with pytest.raises(urllib.error.HTTPError, match="501"):
      urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)
  hub.close()
  assert hub.unknown == ["GET /api/models/a/b/discussions", "POST /api/models/a/b/discussions"]


def test_adapters_and_code_in_a_repository_are_named_and_not_run(hub, tmp_path):
  coded = copied(
    save_tiny("qwen2", tmp_path / "plain", head=1),
    tmp_path / "coded",
    model_type="xnew",
    auto_map={"AutoConfig": "modeling_x.X"},
  )
  (coded / "modeling_x.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')\nclass X: pass\n")
  (tmp_path / "adapter").mkdir()
  (tmp_path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/base"}')
  broken = copied(tmp_path / "plain", tmp_path / "broken", architectures=[5])
  hub.add_model("someone/coded", coded)
  hub.add_model("someone/adapter", tmp_path / "adapter")
  hub.add_model("someone/broken", broken)
  for name, message in (
    ("coded", "someone/coded needs code of its own (modeling_x.py), which is never run"),
    ("adapter", "someone/adapter is a LoRA adapter without its model (someone/base)"),
    ("broken", "config.json is not that of a model: `architectures` is [5], not a list of class names"),
  ):
    done = run_script("score.py", "--model_name_or_path", f"someone/{name}", *ANSWERS, env=hub.env)
    assert done.returncode == 4 and message in done.stderr, done.stderr
  assert not (tmp_path / "trace").exists()
