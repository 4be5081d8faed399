"""evaluate.py --probes, --report and --compare together: what the page says, and that it is safe and complete."""

import json
import re
from html.parser import HTMLParser

import browser
import pytest

from conftest import run_main, toy_pairs, write_jsonl
from reward_modeling.evaluation.report import evaluated_on
from reward_modeling.training.settings import DataSettings

EVIL = '<script>alert("x")</script><img src="https://example.com/x.png">|`'


class Page(HTMLParser):
  """Whether tags are balanced, and what a browser would fetch."""

  EMPTY = ("meta", "br", "link", "img", "path", "circle", "use", "input")

  def __init__(self, text: str):
    super().__init__()
    self.open, self.seen, self.fetched, self.ids = [], [], [], []
    self.feed(text)
    self.close()
    assert self.open == [], "tags that are not closed"

  def handle_starttag(self, tag, attributes):
    self.seen.append(tag)
    self.open += [tag] if tag not in self.EMPTY else []
    named = dict(attributes)
    self.fetched += [named[key] for key in ("src", "href", "xlink:href", "data", "action") if key in named]
    self.ids += [named["id"]] if "id" in named else []

  def handle_startendtag(self, tag, attributes):
    self.seen.append(tag)
    self.ids += [dict(attributes)["id"]] if "id" in dict(attributes) else []

  def handle_endtag(self, tag):
    if tag not in self.EMPTY:
      assert self.open.pop() == tag


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  folder, pairs = tmp_path_factory.mktemp("report_data"), toy_pairs(40, seed=1)
  for i, row in enumerate(pairs):
    row["subset"] = "easy" if i % 2 else EVIL
    row["rejected"] = [{"role": "assistant", "content": EVIL + row["rejected"][-1]["content"]}]
  both = [
    {"prompt": row["prompt"], "completions": [row["chosen"], row["rejected"]], "correct": [True, False]}
    for row in toy_pairs(24, seed=2)
  ]
  points = [{"kl": kl, "proxy": kl**0.5, "gold": kl**0.5 - kl / 8} for kl in (0, 1, 4, 9, 16, 36)]
  names = {"pairs": pairs, "pools": both, "points": points}
  return {name: write_jsonl(folder / f"{name}.jsonl", rows) for name, rows in names.items()}


@pytest.fixture(scope="module")
def reported(data, toy_model, tiny, tmp_path_factory):
  """(folder, the JSON of the run on pairs, its rows) after three runs into one folder."""
  folder = tmp_path_factory.mktemp("report")
  words = ("--model_name_or_path", tiny("qwen2"), "--dataset_name", data["pairs"], "--output_dir", folder / "other")
  trained = run_main("train.py", *words, "--max_steps", "1", "--save_strategy", "no", "--audit", "warn")
  assert trained.returncode == 0, trained.stderr
  model = ("--model_name_or_path", toy_model[0], "--report", folder / "page")
  found = ("--probes", "--compare", folder / "other", "--output", folder / "rows.jsonl")
  done = run_main("evaluate.py", *model, "--dataset_name", data["pairs"], *found)
  for other in (("--dataset_name", data["pools"], "--best_of_n", "1", "2"), ("--overoptimization", data["points"])):
    again = run_main("evaluate.py", *(model if "--best_of_n" in other else model[2:]), *other)
    assert again.returncode == 0, again.stderr
  assert done.returncode == 0, done.stderr
  return folder / "page", done, [json.loads(line) for line in (folder / "rows.jsonl").open()]


def test_the_page_is_whole_harmless_and_needs_no_network(reported):
  text = (reported[0] / "report.html").read_text(encoding="utf-8")
  page = Page(text)
  assert page.seen.count("svg") > 3 and page.seen.count("details") == 3, "calibration, best of n, over-optimization"
  assert "script" not in page.seen and "img" not in page.seen and "link" not in page.seen
  assert all(url.startswith("#") for url in page.fetched)
  assert not re.search(r"(url\(|@import)\s*['\"]?(?!#)", text) and "default-src &#39;none&#39;" not in text
  assert "&lt;script&gt;alert" in text and EVIL not in text
  assert len(page.ids) == len(set(page.ids)), "ids of two plots collide"


@pytest.mark.skipif(not browser.CHROMIUM, reason=browser.NEEDED)
def test_a_browser_shows_the_page_whole_on_a_phone_and_on_paper(reported):
  assert browser.faults(reported[0] / "report.html") == []


def test_verdicts_come_first_and_answer_what_was_measured(reported):
  text = (reported[0] / "report.html").read_text(encoding="utf-8")
  verdicts = text[: text.index("<h2>")]
  for question in ("Which of the two", "Does it rank", "best of n", "which KL", "What fools it", "probability"):
    assert question in verdicts
  assert (
    "Yes: up to n = 2," in verdicts and "Only so far: rl: gold is best" in verdicts and "Not measured" not in verdicts
  )
  for title in ("Ranking and length", "Two models", "Calibration", "Probes of", "Best of n", "Over-optimization"):
    assert f"<h2>{title}" in text


def test_the_card_has_the_numbers_of_the_json(reported):
  card, found = (reported[0] / "README.md").read_text(encoding="utf-8"), reported[1].json
  right = found["accuracy"]
  assert card.startswith("---\n") and f"{right['value']:.3f} [{right['low']:.3f}, {right['high']:.3f}]" in card
  assert found["comparison"]["verdict"] in card
  rows = [line for line in card.splitlines() if line.startswith("|")]
  assert not any(re.search(r"(?<!\\)[<`]", line) for line in rows)
  saved = json.loads((reported[0] / "report.json").read_text(encoding="utf-8"))
  assert saved["parts"]["PairReport"]["accuracy"] == right and len(saved["parts"]) == 3


def test_rows_carry_texts_lengths_and_the_rewards_of_both_models(reported, data):
  rows, given = reported[2], [json.loads(line) for line in data["pairs"].open()]
  for row, pair in zip(rows, given, strict=True):
    assert row["chosen"][-1]["content"] == pair["chosen"][-1]["content"]
    assert row["length_rejected"] == len(pair["rejected"][-1]["content"])
    assert None not in (row["reward_chosen"], row["other_reward_chosen"], row["other_reward_rejected"])
  found = reported[1].json["comparison"]
  right = sum(row["other_reward_chosen"] > row["other_reward_rejected"] for row in rows)
  assert found["accuracy_b"]["value"] == pytest.approx(right / 40) == found["other"]["accuracy"]["value"]
  assert set(found["by_subset"]) == {"easy", EVIL} and set(found["probes"]["probes"]) == set(
    reported[1].json["probes"]["probes"]
  )


def test_the_report_of_another_model_and_a_card_that_no_report_wrote_are_left_alone(reported, data, tmp_path):
  words = ("--model_name_or_path", reported[0].parent / "other", "--dataset_name", data["pairs"])
  done = run_main("evaluate.py", *words, "--report", reported[0])
  assert done.returncode == 2 and "holds the report of" in done.stderr
  (tmp_path / "README.md").write_text("mine")
  done = run_main("evaluate.py", *words, "--report", tmp_path)
  assert done.returncode == 2 and "exists already" in done.stderr and (tmp_path / "README.md").read_text() == "mine"


def test_probes_are_for_pairs(data, toy_model):
  words = ("--model_name_or_path", toy_model[0], "--dataset_name", data["pools"], "--best_of_n", "--probes")
  done = run_main("evaluate.py", *words)
  assert done.returncode == 2 and "--probes change the answers of labeled pairs" in done.stderr


def test_training_reports_its_held_out_rows(data, tiny, tmp_path):
  words = (
    "--model_name_or_path",
    tiny("qwen2"),
    "--dataset_name",
    data["pairs"],
    "--audit",
    "warn",
    "--save_strategy",
    "no",
  )
  asked = ("--output_dir", tmp_path / "model", "--max_steps", "1", "--report", tmp_path / "page")
  refused = run_main("train.py", *words, *asked)
  assert refused.returncode == 2 and "--report needs something to evaluate on" in refused.stderr
  done = run_main("train.py", *words, *asked, "--val_set_size", "0.4")
  assert done.returncode == 0, done.stderr
  text = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
  Page(text)
  assert f"{done.json['evaluation']['n_pairs']} pairs of" in text and "Not tested: evaluate it with --probes." in text
  assert "Where it is most wrong" in text and "&lt;script&gt;" in text and EVIL not in text
  assert f"{data['pairs']} (held out by --val_set_size 0.4). Chance" in text


@pytest.mark.parametrize(
  ("given", "folds", "said"),
  [
    ({"eval_dataset_name": ("b", "c")}, None, ["b", "c"]),
    ({"eval_dataset_name": ("b",), "val_set_size": 0.1}, None, ["b"]),
    ({"eval_dataset_name": ("b",), "dataset_test_split": "dev"}, None, ["b (split dev)"]),
    ({"dataset_test_split": "dev"}, None, ["a (split dev)"]),
    ({"val_set_size": 0.1}, None, ["a (held out by --val_set_size 0.1)"]),
    ({}, 5, ["a (held out by --folds 5)"]),
  ],
)
def test_a_report_names_what_was_evaluated_and_not_what_was_trained_on(given, folds, said):
  assert evaluated_on(DataSettings(dataset_name=("a",), **given), folds) == said


def test_folds_are_evaluated_on_every_pair_and_reported(data, tiny, tmp_path):
  words = ("--model_name_or_path", tiny("qwen2"), "--dataset_name", data["pairs"], "--audit", "warn", "--folds", "2")
  asked = (
    "--max_steps",
    "1",
    "--save_strategy",
    "no",
    "--report",
    tmp_path / "page",
    "--output_dir",
    tmp_path / "model",
  )
  planned = run_main("train.py", *words, *asked, "--dry_run")
  assert (planned.json["settings"]["folds"], planned.json["settings"]["models_trained"]) == (2, 3)
  done = run_main("train.py", *words, *asked)
  assert done.returncode == 0, done.stderr
  assert done.json["evaluation"]["n_pairs"] == done.json["counts"]["pairs_used"]
  text = (tmp_path / "page" / "report.html").read_text("utf-8")
  assert f"{done.json['evaluation']['n_pairs']} pairs" in text and f"{data['pairs']} (held out by --folds 2)" in text


def test_a_process_model_reports_its_steps(tiny, tmp_path):
  rows = [
    {"prompt": f"{i}+2?", "completions": [f"{i}+2={i + 2}", f"so {i + 2 + i % 2}"], "labels": [True, i % 2 == 0]}
    for i in range(12)
  ]
  words = ("--model_name_or_path", tiny("qwen2"), "--dataset_name", write_jsonl(tmp_path / "steps.jsonl", rows[:6]))
  asked = (
    "--output_dir",
    tmp_path / "model",
    "--max_steps",
    "1",
    "--report",
    tmp_path / "page",
    "--eval_dataset_name",
    write_jsonl(tmp_path / "others.jsonl", rows[6:]),
  )
  done = run_main("train_process.py", *words, *asked, "--save_strategy", "no")
  assert done.returncode == 0, done.stderr
  text = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
  Page(text)
  assert "<h2>Steps: the model" in text and "processbench f1" in text and "all correct" in text
  assert f"6 prompts: {tmp_path / 'others.jsonl'}" in text and "steps.jsonl" not in text
  assert "Does it find wrong steps?" in text and "Does it rank answers" not in text
