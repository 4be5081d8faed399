"""Texts that a template has made already: found, told, and with --text_format rendered read as they are. Rows that a template
refuses: told together, and left out or unscored where that is asked for."""

import json

import pytest

from conftest import CHATML, QUICK, run_main, save_tiny, toy_pairs, write_jsonl
from reward_modeling.data.audit.checks import is_templated

TEMPLATED = [
  "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
  "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi<|im_end|>",
  "<s>[INST] hi [/INST]",
  "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nhi [/INST]",
  "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n",
  "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>",
  "hi<|eot_id|>",
  "<|user|>\nhi<|end|>\n<|assistant|>\n",
  "<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜>",
  "<|start|>user<|message|>hi<|end|>",
  "Below is an instruction.\n\n### Instruction:\nhi\n\n### Response:\n",
  "A chat between a user and an assistant. USER: hi ASSISTANT:",
  " Human: hi Assistant:",
  "Human: hi\nAssistant: hello\nHuman: bye\nAssistant:",
  "\n\nHuman: hi\n\nAssistant:",
  "User: hi\nAssistant:",
]
PLAIN = [
  "What does <|im_end|> mean?",
  "Explain `[INST] hi [/INST]` and <s>.",
  "Why does my prompt '<|im_start|>user' fail?",
  "The Human: Assistant relation in fiction",
  "Human: a film. Who directed it?",
  "### Instructions\nSort the list.",
  "Write a play.\nUser: a man\nRobot: a machine",
  "<s>old</s> is struck through",
  "print('<|assistant|>')",
  "x <|y|> z",
  "",
]


@pytest.mark.parametrize("text", TEMPLATED)
def test_what_a_template_has_made_is_recognised(text):
  assert is_templated([text])
  assert is_templated(["Be brief.", text])


@pytest.mark.parametrize("text", PLAIN)
def test_what_only_speaks_of_templates_is_not(text):
  assert not is_templated([text])


def rendered(row: dict) -> dict:
  """A toy pair as the template of the toy model writes it, split where the answer begins."""
  asked = f"<|im_start|>user\n{row['prompt'][0]['content']}<|im_end|>\n<|im_start|>assistant\n"
  return {"prompt": asked, **{side: row[side][0]["content"] + "<|im_end|>\n" for side in ("chosen", "rejected")}}


def test_rendered_text_gives_the_rewards_of_the_messages_it_was_made_of_and_else_a_warning(toy_model, tmp_path):
  chats, texts = toy_pairs(6, seed=5), tmp_path / "texts.jsonl"
  write_jsonl(texts, map(rendered, chats))
  model = ("--model_name_or_path", toy_model[0])
  plain = run_main("score.py", *model, "--input", write_jsonl(tmp_path / "chats.jsonl", chats))
  taken = run_main("score.py", *model, "--input", texts, "--text_format", "rendered")
  twice = run_main("score.py", *model, "--input", texts)
  rewards = [[reward for row in done.json["rows"] for reward in row["rewards"]] for done in (plain, taken, twice)]
  assert rewards[0] == pytest.approx(rewards[1], abs=1e-6) and rewards[0] != pytest.approx(rewards[2], abs=1e-2)
  assert [done.json["templated"] for done in (plain, taken, twice)] == [0, 0, 12]
  assert (
    f"12 of 12 conversations have a prompt that is templated already, and are templated twice (the first: {texts}:1)"
    in (" ".join(twice.stderr.split()))
  )
  assert "templated" not in plain.stderr + taken.stderr
  judged = run_main("evaluate.py", *model, "--dataset_name", texts)
  assert "templated already" in " ".join(judged.stderr.split())


def test_a_model_of_rendered_text_says_so_in_its_card_and_is_scored_alike(tiny, tmp_path):
  data, out = write_jsonl(tmp_path / "texts.jsonl", map(rendered, toy_pairs(24))), tmp_path / "model"
  given = (
    "--model_name_or_path",
    tiny("qwen2"),
    "--dataset_name",
    data,
    "--output_dir",
    out,
    *QUICK,
    "--max_steps",
    "2",
  )
  told = run_main("train.py", *given, "--dry_run")
  assert {"templated", "leaked_turn"} <= {finding["check"] for finding in told.json["audit"]}
  done = run_main("train.py", *given, "--text_format", "rendered")
  assert done.returncode == 0, done.stderr
  assert not {"templated", "leaked_turn", "roles"} & {finding["check"] for finding in done.json["audit"]}
  card = json.loads((out / "reward_model.json").read_text())
  assert card["rendering"]["text_format"] == "rendered"
  assert "without a chat template" in (out / "README.md").read_text()
  row = rendered(toy_pairs(1, seed=9)[0])
  scored = run_main("score.py", "--model_name_or_path", out, "--input", write_jsonl(tmp_path / "one.jsonl", [row]))
  from transformers import AutoModelForSequenceClassification, AutoTokenizer

  tokenizer, model = AutoTokenizer.from_pretrained(out), AutoModelForSequenceClassification.from_pretrained(out)
  ids = tokenizer(row["prompt"] + row["chosen"], add_special_tokens=False, return_tensors="pt")
  assert scored.json["rows"][0]["rewards"][0] == pytest.approx(model(**ids).logits.item(), abs=1e-5)
  chat = run_main("score.py", "--model_name_or_path", out, "--input", write_jsonl(tmp_path / "c.jsonl", [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"},
                      {"role": "assistant", "content": "d"}]}
    ]))  # fmt: skip
  assert (chat.returncode, "several messages is not a text" in chat.stderr) == (3, True)


def test_formats_that_take_texts_apart_are_refused_for_rendered_text(tmp_path):
  row = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
  done = run_main("check_data.py", write_jsonl(tmp_path / "a.jsonl", [row]), "--text_format", "rendered")
  assert (done.returncode, "format `transcript` takes texts apart" in done.stderr) == (2, True)


def test_answers_with_a_place_or_scores_may_be_rendered_text(tmp_path):
  for row in ({"completions": ["b", "c"], "best": 0}, {"response_a": "b", "response_b": "c", "scores": [2, 1]}):
    done = run_main(
      "check_data.py", write_jsonl(tmp_path / "a.jsonl", [{"prompt": "a"} | row]), "--text_format", "rendered"
    )
    assert done.returncode == 0, done.stderr


def test_steps_of_rendered_text_are_read_after_the_text_as_it_is(toy_process_model):
  from reward_modeling import ProcessRewardModel

  prompt, steps = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n", ["one", "two"]
  chat = ProcessRewardModel.from_pretrained(str(toy_process_model))
  taken = ProcessRewardModel.from_pretrained(str(toy_process_model), text_format="rendered")
  assert taken.score_steps([prompt], [steps])[0] == pytest.approx(chat.score_steps(["hello"], [steps])[0], abs=1e-6)
  assert taken.renderer.counts["templated"] == 0
  chat.score_steps([prompt], [steps])
  assert chat.renderer.counts["templated"] == 1


def test_prompts_of_a_policy_that_are_templated_already_are_told(tiny, tmp_path):
  from reward_modeling.training.prompts import read_prompts

  rows = [{"prompt": "hi"}, {"prompt": "<s>[INST] hi [/INST]"}, {"prompt": "Human: hi Assistant:"}]
  data = write_jsonl(tmp_path / "a.jsonl", rows)
  with pytest.MonkeyPatch.context() as patch:
    said = []
    patch.setattr("reward_modeling.data.audit.warn", said.append)
    assert len(read_prompts([str(data)])) == 3
  (sentence,) = said
  assert sentence.startswith("2 of 3 rows have a prompt that is templated already")
  assert "(a.jsonl:2, 3)" in sentence


# ---- rows that a template refuses -------------------------------------------------------------------------------------

STRICT = (
  "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
  "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}" + CHATML
)


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
  """Folder of a tiny reward model with a template that wants roles in turn."""

  def edit(tokenizer):
    tokenizer.chat_template = STRICT

  return save_tiny("qwen2", tmp_path_factory.mktemp("strict"), head=1, edit=edit)


def pairs_with_refused(path, n=24, refused=(3, 7, 8, 15, 16, 20, 23)):
  rows = toy_pairs(n)
  for place in refused:
    rows[place]["prompt"] *= 2  # the user twice
  return write_jsonl(path, rows)


def test_training_lists_all_refused_rows_and_leaves_them_out_where_asked(strict, tmp_path):
  data = pairs_with_refused(tmp_path / "a.jsonl")
  given = ("--model_name_or_path", strict, "--dataset_name", data, "--output_dir", tmp_path / "out", "--dry_run")
  stopped = run_main("train.py", *given)
  said = " ".join(stopped.stderr.split())
  shown = ", ".join(f"{data}:{row}" for row in (4, 8, 9, 16, 17))
  assert (stopped.returncode, f"14 of 48 conversations cannot be rendered ({shown} and 2 more)" in said) == (3, True)
  assert "roles must alternate" in said and "leave such rows out with --audit drop" in said
  done = run_main("train.py", *given, "--audit", "drop")
  assert done.returncode == 0, done.stderr
  assert (done.json["left_out"], done.json["counts"]["dropped_refused"], done.json["counts"]["pairs_used"]) == (
    7,
    7,
    17,
  )
  assert "left out 7 pairs" in done.stderr


def test_check_data_finds_and_drops_what_a_model_refuses(strict, tmp_path):
  data, output = pairs_with_refused(tmp_path / "a.jsonl"), tmp_path / "o.jsonl"
  found = run_main("check_data.py", data, "--model_name_or_path", strict)
  assert found.returncode == 3
  given = ("--model_name_or_path", strict, "--drop", "refused", "--output", output)
  done = run_main("check_data.py", data, *given)
  (finding,) = (finding for finding in done.json["findings"] if finding["check"] == "refused")
  assert (finding["count"], finding["rows"][:2]) == (7, [f"{data}:4", f"{data}:8"])
  assert "roles must alternate" in finding["message"]
  assert (done.returncode, done.json["kept"], done.json["dropped_rows"]) == (0, 17, {"refused": 7})
  told = run_main("check_data.py", data, "--drop", "refused", "--output", tmp_path / "p.jsonl")
  assert (told.returncode, "needs --model_name_or_path" in told.stderr) == (2, True)


def test_training_on_steps_does_so_too(tiny, tmp_path):
  def edit(tokenizer):
    tokenizer.chat_template = STRICT

  base = save_tiny("qwen2", tmp_path / "base", edit=edit)
  rows = [
    {"prompt": pair["prompt"], "completions": ["one", "two"], "labels": [True, i % 2 == 0]}
    for i, pair in enumerate(toy_pairs(8))
  ]
  rows[2]["prompt"] = rows[5]["prompt"] = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
  data = write_jsonl(tmp_path / "a.jsonl", rows)
  given = ("--model_name_or_path", base, "--dataset_name", data, "--output_dir", tmp_path / "out", "--dry_run")
  stopped = run_main("train_process.py", *given)
  assert f"2 of 8 conversations cannot be rendered ({data}:3, {data}:6)" in " ".join(stopped.stderr.split())
  done = run_main("train_process.py", *given, "--audit", "drop")
  assert (done.json["left_out"], done.json["counts"]["solutions_used"]) == (2, 6)


def test_scoring_lists_all_refused_rows_or_gives_them_no_score(strict, tmp_path, monkeypatch):
  from reward_modeling import packing

  monkeypatch.setattr(packing, "WINDOW", 8)
  data, output = pairs_with_refused(tmp_path / "a.jsonl"), tmp_path / "scored.jsonl"
  given = ("--model_name_or_path", strict, "--input", data, "--output", output)
  stopped = run_main("score.py", *given)
  said = " ".join(stopped.stderr.split())
  assert (stopped.returncode, output.exists()) == (3, False)
  assert "14 of 48 conversations cannot be rendered" in said and "--refused unscored" in said
  done = run_main("score.py", *given, "--refused", "unscored")
  assert (done.returncode, done.json["refused"], done.json["not_scored"], done.json["completions"]) == (0, 14, 14, 48)
  rows = [json.loads(line) for line in output.open()]
  assert [i for i, row in enumerate(rows) if row["rewards"] == [None, None]] == [3, 7, 8, 15, 16, 20, 23]
  assert "14 of 48 completions are unscored: they cannot be rendered" in " ".join(done.stderr.split())
