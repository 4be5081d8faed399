"""The official numbers: equal to what the authors' code gives (benchmarks/official_numbers.py), to scores that others stored,
and to counts by hand."""

import gzip
import json
import math
from pathlib import Path

import numpy as np
import official_rows
import pytest
from test_json_schema import faults_of

from conftest import run_main, write_jsonl
from reward_modeling.errors import DataError, UsageError
from reward_modeling.evaluation.benchmark_entries import Item
from reward_modeling.evaluation.benchmark_runs import (
  LoadedBenchmark,
  check_names,
  diagnose_benchmark,
  flat_scores,
  load_benchmark,
  summarize,
)
from reward_modeling.evaluation.benchmarks import BENCHMARKS, PRIOR_SETS
from reward_modeling.evaluation.intervals import accuracy, measure

OFFICIAL = json.loads((Path(__file__).parents[2] / "official_numbers.json").read_text())
HALF = (0.5, "given")


def loaded(folder: Path, name: str, rows: list[dict], file: str | None = None) -> LoadedBenchmark:
  """The rows as the benchmark reads them from a file of its folder."""
  path = folder / name / (file or f"{name}.jsonl")
  path.parent.mkdir(parents=True, exist_ok=True)
  write_jsonl(path, rows)
  return load_benchmark(name, str(folder))


def folder_of(path: Path) -> Path:
  path.mkdir(parents=True)
  return path


def numbers_of(name: str, data: LoadedBenchmark, rewards, threshold=None) -> dict[str, float]:
  result, _ = summarize(name, data, rewards, threshold=threshold)
  return {number: one and one.value for number, one in result.numbers.items()}


@pytest.mark.parametrize("name", OFFICIAL["newest"])
def test_numbers_are_those_of_the_authors_code(name, tmp_path):
  """reward-bench 05a9005, PRMBench a1ae4ea, Mr-Ben 6eb1eca; RM-Bench's README 2119ec5, ProcessBench's script 04d347e."""
  rows, rewards = getattr(official_rows, name.replace("-", "_"))()
  data = loaded(tmp_path, name, rows)
  if data.set_aside:  # the repeated row of PRMBench
    assert data.set_aside == {"repeated": 1} and len(data.items) == len(rows) - 1
    rewards = rewards[:-1]
  found = numbers_of(name, data, rewards, HALF)
  expected = OFFICIAL["newest"][name]
  assert {number: found[number] for number in expected} == pytest.approx(expected, abs=1e-12)


def test_numbers_are_those_of_the_reward_bench_package(tmp_path):
  """Version 0.1.4, whose Ties leave out prompts without a spread in the margin: its repository no longer does."""
  for name, expected in OFFICIAL["wheel"].items():
    rows, rewards = getattr(official_rows, name)()
    found = numbers_of(name, loaded(tmp_path, name, rows), rewards)
    same = {
      number: value for number, value in expected.items() if name == "rewardbench" or number not in ("score", "ties")
    }
    assert {number: found[number] for number in same} == pytest.approx(same, abs=1e-12)


def won(subset: str, n: int, of: int) -> tuple[list[Item], list[list[float]]]:
  items = [Item([{"role": "user", "content": f"{subset} {i}"}], ["a", "b"], subset) for i in range(of)]
  return items, [[1.0, 0.0] if i < n else [0.0, 1.0] for i in range(of)]


def test_rewardbench_sections_weigh_by_the_published_counts():
  """The counts of Lenovo-Reward-Gemma-2-27B and its four sections, as its submission states both (reward-bench PR 206)."""
  counts = {"alpacaeval-easy": (99, 100), "alpacaeval-hard": (90, 95), "alpacaeval-length": (90, 95)}
  counts |= {
    "mt-bench-easy": (28, 28),
    "mt-bench-med": (39, 40),
    "mt-bench-hard": (33, 37),
    "donotanswer": (105, 136),
  }
  counts |= {"llmbar-adver-GPTInst": (89, 92), "llmbar-adver-GPTOut": (41, 47), "llmbar-adver-manual": (39, 46)}
  counts |= {"llmbar-adver-neighbor": (121, 134), "llmbar-natural": (95, 100), "math-prm": (446, 447)}
  counts |= {"refusals-dangerous": (96, 100), "refusals-offensive": (99, 100)}
  counts |= {"xstest-should-refuse": (147, 154), "xstest-should-respond": (239, 250)}
  counts |= {
    f"hep-{one}": (n, 164)
    for one, n in zip(("cpp", "go", "java", "js", "python", "rust"), (161, 160, 163, 163, 160, 156), strict=True)
  }
  items, rewards = [], []
  for subset, (n, of) in counts.items():
    more = won(subset, n, of)
    items, rewards = items + more[0], rewards + more[1]
  result, _ = summarize("rewardbench", LoadedBenchmark(items, 2985, 2985, {}), rewards)
  found = {name: round(100 * one.value, 4) for name, one in result.numbers.items()}
  assert found == {
    "score": 94.9596,
    "chat": 96.6480,
    "chat_hard": 91.6667,
    "safety": 92.7027,
    "reasoning": 98.8211,
  } | {"micro": round(100 * 2859 / 2985, 4)}
  assert result.complete and result.numbers["score"].n == 2985


def test_prior_sets_weigh_one_half_of_a_section(tmp_path):
  rows, rewards = official_rows.rewardbench()
  loaded(tmp_path, "rewardbench", rows, "data/filtered-00000-of-00001.jsonl")
  for name in PRIOR_SETS:
    chat = {"prompt": [{"role": "user", "content": "?"}], "chosen": "a", "rejected": "b"}
    data = loaded(tmp_path, "rewardbench", [chat, chat], f"pref-test-sets/data/{name}-00000-of-00001.jsonl")
  right = [[1.0, 0.0], [0.0, 1.0]] * 4
  found = numbers_of("rewardbench", data, rewards + right)
  four = OFFICIAL["newest"]["rewardbench"]["score"]
  assert found["score"] == pytest.approx(four) and found["prior_sets"] == 0.5
  assert found["score_with_prior_sets"] == pytest.approx((8 * four + 0.5) / 9)
  assert data.rows == len(rows), "rows of the prior sets are no rows of the benchmark"


def test_ties_by_hand(tmp_path):
  """Tied prompts: both above every wrong answer; one gap above the spread; ref: one of two. 0.6 of accuracy by halves."""
  cells = {
    "ref:0": [[3], [1, 0]],
    "ref:1": [[2], [2.5, 0]],
    "tied:0": [[4, 3.5, 3], [1, 0.5]],
    "tied:1": [[5, 2], [1.5, 1]],
  }
  rows = [
    {"id": id, "subset": "Ties", "prompt": id, "chosen": ["x"] * len(right), "rejected": ["y"] * len(wrong)}
    for id, (right, wrong) in cells.items()
  ]
  data = loaded(tmp_path, "rewardbench2", rows)
  found = numbers_of("rewardbench2", data, [[*right, *wrong] for right, wrong in cells.values()])
  margin = (math.tanh(2 / 1 - 1) + math.tanh(-0.5 / 3 - 1)) / 2
  assert found["ties"] == pytest.approx(0.3 * 1 + 0.3 * 0.5 + 0.2 * 0.5 + 0.2 * 0.5 + 0.01 * margin)
  assert found["ties"] == pytest.approx(0.649692, abs=1e-6) and found["score"] is None


def test_a_shared_best_of_four_wins_its_share(tmp_path):
  row = {"subset": "Math", "prompt": "2+2?", "chosen": ["4"], "rejected": ["5", "6", "7"]}
  data = loaded(tmp_path, "rewardbench2", [row | {"id": str(i)} for i in range(5)])
  cases = [[2, 1, 1, 1], [2, 2, 1, 1], [1, 1, 1, 1], [1, 2, 2, 1], [0, 0, 0, 1]]
  assert numbers_of("rewardbench2", data, cases)["math"] == pytest.approx((1 + 1 / 2 + 1 / 4) / 5)


def test_rm_bench_by_hand(tmp_path):
  """Rewards that grow with style alone: easy is won, hard is lost, and equal styles tie, which is lost."""
  row = {"prompt": "?", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"]}
  data = loaded(tmp_path, "rm-bench", [row | {"id": 1}], "data/safety-refuse_filtered.jsonl")
  result, _ = summarize("rm-bench", data, [[1, 2, 3, 1, 2, 3]])
  assert result.subsets == {"safety/easy": 1.0, "safety/normal": 0.0, "safety/hard": 0.0, "all": pytest.approx(1 / 3)}
  assert result.numbers["safety"].value == pytest.approx(1 / 3)
  assert "easy" not in result.numbers, "the mean of four domains needs all four"


def test_judgebench_by_hand(tmp_path):
  """A tie is a decision for B, and the official number is micro."""
  sources = ["mmlu-pro-law", "mmlu-pro-law", "livebench-reasoning", "livebench-math", "livecodebench"]
  rows = [
    {"pair_id": str(i), "source": source, "question": f"{i}?", "response_A": "a", "response_B": "b", "label": label}
    for i, (source, label) in enumerate(zip(sources, ["A>B", "B>A", "A>B", "B>A", "A>B"], strict=True))
  ]
  data = loaded(tmp_path, "judgebench", rows, "dataset=judgebench,response_model=gpt-4o-2024-05-13.jsonl")
  found = numbers_of("judgebench", data, [[1, 0], [1, 1], [1, 1], [1, 0], [2, 1]])
  assert found == {"score": 3 / 5, "knowledge": 1.0, "reasoning": 0.0, "math": 0.0, "coding": 1.0, "macro": 0.5}


def test_llmbar_and_rmb_by_hand(tmp_path):
  row = {"input": "?", "output_1": "one", "output_2": "two"}
  for folder, label in {"Natural": 1, "Adversarial/Neighbor": 2, "Adversarial/GPTInst": 2}.items():
    loaded(tmp_path, "llmbar", [row | {"label": label}], f"Dataset/LLMBar/{folder}/dataset.json.tmp.jsonl")
  assert [item.answers for item in load_benchmark("llmbar", str(tmp_path)).items[:1]] == [["two", "one"]]
  pair = {"prompt": "?", "chosen": [{"role": "assistant", "content": "good"}], "rejected": "bad", "subset": "gptout"}
  (item,) = loaded(tmp_path / "flat", "llmbar", [pair]).items
  assert (item.section, item.answers) == ("gptout", ["good", "bad"])
  turns = [{"role": "user", "content": "Hi", "language": "English"}]
  best = {"conversation_input": turns, "bon_uid": "1", "category_path": "BoN_set/Harmlessness/S1"}
  best |= {"bon_best": {"answer": "no"}, "loser_list": [{"answer": "x"}, {"answer": "y"}]}
  pair = {"conversation_input": turns, "pair_uid": "2", "category_path": "Pairwise_set/Helpfulness/Chat"}
  pair |= {"chosen": {"answer": "yes"}, "reject": {"answer": "no"}}
  loaded(tmp_path, "rmb", [pair] * 2, "RMB_dataset/Pairwise_set/Helpfulness/Chat.jsonl")
  data = loaded(tmp_path, "rmb", [best] * 3, "RMB_dataset/BoN_set/Harmlessness/S1.jsonl")
  found = numbers_of("rmb", data, [[1, 0], [1, 1], [3, 2, 1], [2, 2, 1], [2, 1, 2]])
  assert found == {"score": None, "helpfulness_pairs": 0.5, "harmlessness_bon": pytest.approx(1 / 3)}
  assert data.items[0].prompt == [{"role": "user", "content": "Hi"}]


def test_ppe_by_hand(tmp_path):
  vote = {"question_id": "q", "prompt": "Hi", "response_1": "k", "response_2": "Hello!"}
  rows = [vote | {"winner": winner} for winner in ("model_b", "model_a", "tie", "tie (bothbad)")]
  loaded(tmp_path, "ppe", rows, "PPE-Human-Preference-V1/data/test.jsonl")
  pool = {
    "question_id": "m",
    "prompt": "2+2?",
    "scores": [True, False, True],
    "sampled_conflict_pairs": [[0, 1], [1, 2]],
  }
  pool |= {f"response_{i}": str(i) for i in (1, 2, 3)}
  data = loaded(tmp_path, "ppe", [pool], "PPE-MATH-Best-of-K/data/train.jsonl")
  assert data.set_aside == {"tie": 2} and data.items[0].answers == ["Hello!", "k"]
  result, counts = summarize("ppe", data, [[1, 0], [1, 1], [3.0, 2.0, 2.0]])
  assert result.numbers["preference"].value == 0.5 and result.numbers["math"].value == 0.5, "a tie is lost"
  curve = [counts[2][f"math/best_of_{k}"][0] for k in (1, 2, 3)]
  assert curve == pytest.approx([2 / 3, (1 + 1 + 0.5) / 3, 1.0])


def test_processbench_threshold_is_chosen_on_gsm8k(tmp_path):
  rows, rewards = official_rows.processbench()
  data = loaded(tmp_path, "processbench", rows)
  result, _ = summarize("processbench", data, rewards)
  assert result.threshold_from.startswith("the best on gsm8k")
  best = max(numbers_of("processbench", data, rewards, (at, ""))["gsm8k"] for at in np.linspace(0, 1, 501))
  assert result.numbers["gsm8k"].value >= best
  same = numbers_of("processbench", data, rewards, (result.threshold, ""))
  assert same == {number: one.value for number, one in result.numbers.items()}


def test_a_step_that_was_not_scored_cannot_be_flagged(tmp_path):
  rows, rewards = official_rows.prmbench()
  data = loaded(tmp_path, "prmbench", rows)
  short = [[*row[:-1], None] for row in rewards[:-1]]
  valid = [[*row[:-1], 1.0] for row in rewards[:-1]]
  result, _ = summarize("prmbench", data, short)
  assert numbers_of("prmbench", data, short) == numbers_of("prmbench", data, valid)
  assert result.unscored_steps == len(short) and "steps not read" in diagnose_benchmark(result)[-1]


def test_intervals_are_those_of_a_share_and_of_a_mean_of_shares(tmp_path):
  """A section has the interval of `accuracy`, clustered by prompt; the variance of a mean of sections is theirs over 16."""
  rows, rewards = official_rows.rewardbench()
  for row in rows:
    row["prompt"] = row["subset"] + str(row["id"] // 2)  # two rows a prompt, none in two subsets
  data = loaded(tmp_path, "rewardbench", rows)
  measured, _ = measure(BENCHMARKS["rewardbench"].count(data.items, rewards, 0.5), BENCHMARKS["rewardbench"].numbers)
  result, _ = summarize("rewardbench", data, rewards)
  outcomes = np.array([float(a > b) for a, b in rewards])
  expected = accuracy(outcomes, [row["prompt"] for row in rows])
  found = result.numbers["micro"]
  assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high), abs=1e-6)
  sections = [measured[name].influence for name in ("chat", "chat_hard", "safety", "reasoning")]
  np.testing.assert_allclose(measured["score"].influence, np.mean(sections, axis=0), atol=1e-9)


def test_interval_of_a_harmonic_mean_agrees_with_deleting_one_prompt_at_a_time(tmp_path):
  rows, rewards = official_rows.processbench()
  data = loaded(tmp_path, "processbench", rows)
  counts = BENCHMARKS["processbench"].count(data.items, rewards, 0.5)
  counts = [one for item, one in zip(data.items, counts, strict=True) if item.section == "gsm8k"] * 8
  numbers, n = BENCHMARKS["processbench"].numbers, len(counts)
  whole = measure(counts, numbers)[0]["gsm8k"]
  without = [measure(counts[:i] + counts[i + 1 :], numbers)[0]["gsm8k"].value for i in range(n)]
  jackknife = (n - 1) / n * np.sum((np.array(without) - np.mean(without)) ** 2)
  assert np.sum(whole.influence**2) == pytest.approx(jackknife, rel=0.05)


def test_a_part_of_a_benchmark_has_no_official_number(tmp_path):
  rows, rewards = official_rows.rm_bench()
  kept = [i for i, row in enumerate(rows) if row["domain"] != "math"]
  data = loaded(tmp_path, "rm-bench", [rows[i] for i in kept])
  result, _ = summarize("rm-bench", data, [rewards[i] for i in kept])
  assert result.numbers["score"] is None and result.gain is None and not result.complete
  assert flat_scores({"rm-bench": result})["rm-bench"] is None
  assert "22 of 1327 rows were read" in diagnose_benchmark(result)[0]


def test_mistakes_are_said_in_one_line(tmp_path):
  with pytest.raises(UsageError, match="helpsteer is not a valid --benchmark"):
    check_names(["helpsteer"])
  with pytest.raises(UsageError, match="of answers and of steps"):
    check_names(["judgebench", "prmbench"])
  with pytest.raises(DataError, match="holds no file of RMB"):
    load_benchmark("rmb", str(tmp_path))
  with pytest.raises(DataError, match="LLMBar is not on the hub"):
    load_benchmark("llmbar", None)
  with pytest.raises(DataError, match=r"the row is not one of JudgeBench.*: it lacks 'source'") as raised:
    loaded(tmp_path, "judgebench", [{"prompt": "?"}])
  assert raised.value.where.endswith("judgebench.jsonl:1")


JUDGED = {
  "pair_id": "1",
  "source": "livebench-math",
  "question": "?",
  "response_A": "a",
  "response_B": "b",
  "label": "A>B",
}
VOTE = {"question_id": "q", "prompt": "Hi", "response_1": "k", "response_2": "Hello!", "winner": "model_a"}
POOL = {"question_id": "m", "prompt": "?", "scores": [True, False], "sampled_conflict_pairs": [[0, 1]]}
POOL |= {"response_1": "x", "response_2": "y"}
BON = {"conversation_input": [{"role": "user", "content": "Hi"}], "bon_uid": "1", "category_path": "Helpfulness"}
BON |= {"bon_best": {"answer": "no"}, "loser_list": [{"answer": "x"}]}
SOUND = {
  "rewardbench": official_rows.rewardbench()[0][0],
  "rewardbench2": official_rows.rewardbench2()[0][-1],
  "judgebench": JUDGED,
  "ppe/PPE-Human-Preference-V1": VOTE,
  "ppe/PPE-MATH-Best-of-K": POOL,
  "rmb/BoN_set": BON,
  "llmbar/Natural": {"input": "?", "output_1": "one", "output_2": "two", "label": 1},
  "processbench": official_rows.processbench()[0][0],
  "prmbench": official_rows.prmbench()[0][0],
  "mr-ben": official_rows.mr_ben()[0][0],
}


def test_a_file_of_ties_alone_is_an_error(tmp_path):
  with pytest.raises(DataError, match="no row of PPE is left: 2 tie"):
    loaded(
      tmp_path, "ppe", [VOTE | {"winner": "tie"}, VOTE | {"winner": "tie (bothbad)"}], "PPE-Human-Preference-V1/a.jsonl"
    )


@pytest.mark.parametrize(
  ("of", "change", "said"),
  [
    ("rewardbench", {"subset": "alpacaeval"}, "the subset 'alpacaeval' is unknown"),
    ("rewardbench", {"chosen": ["yes"]}, "`chosen` is a list"),
    ("rewardbench2", {"subset": "Chat"}, "expected one of factuality"),
    ("rewardbench2", {"id": "7"}, "expected one of ref, tied"),
    ("rewardbench2", {"rejected": "b"}, "`rejected` is text (b), not a list"),
    ("rewardbench2", {"rejected": []}, "`rejected` is not a list of texts"),
    ("judgebench", {"response_model": "claude-3-5-sonnet-20240620"}, "it is of another `response_model`"),
    ("judgebench", {"label": "A=B"}, "expected one of a>b, b>a"),
    ("ppe/PPE-Human-Preference-V1", {"winner": "A"}, "expected one of model_a, model_b, tie"),
    ("ppe/PPE-Human-Preference-V1", {"winner": None}, "expected one of model_a, model_b, tie"),
    ("ppe/PPE-MATH-Best-of-K", {"sampled_conflict_pairs": [[0, 7]]}, "list index out of range"),
    ("ppe/PPE-MATH-Best-of-K", {"scores": [True, True]}, "not of a correct and a wrong one"),
    ("ppe/PPE-MATH-Best-of-K", {"scores": [True, None]}, "not of a correct and a wrong one"),
    ("rmb/BoN_set", {"loser_list": []}, "there is one answer alone"),
    ("llmbar/Natural", {"label": 3}, "expected one of 1, 2"),
    ("processbench", {"label": 99}, "`label` is 99"),
    ("processbench", {"id": "aime-1"}, "expected one of gsm8k"),
    ("prmbench", {"error_steps": ["1"]}, "not a list of whole numbers"),
    ("prmbench", {"error_steps": [0]}, "counts from 1"),
    ("mr-ben", {"Model_Solution_Correctness": "maybe"}, "expected one of correct, incorrect"),
  ],
)
def test_a_row_that_would_be_added_up_wrongly_is_an_error(of, change, said, tmp_path):
  name, _, folder = of.partition("/")
  file = f"{folder or 'data'}/rows.jsonl" if "llmbar" not in of else "natural/dataset.json.jsonl"
  assert len(loaded(tmp_path, name, [SOUND[of]], file).items) == 1
  with pytest.raises(DataError, match="the row is not one of") as raised:
    loaded(tmp_path, name, [SOUND[of], {**SOUND[of], **change}], file)
  assert said in raised.value.message and raised.value.where.endswith(":2")


def test_the_folder_nearest_to_a_file_names_its_subset(tmp_path):
  row = {"input": "?", "output_1": "one", "output_2": "two", "label": 1}
  for kind in ("GPTInst", "Neighbor"):
    file = write_jsonl(
      folder_of(tmp_path / "natural/manual/Dataset/LLMBar/Adversarial" / kind) / "dataset.json.jsonl", [row]
    )
    assert file.exists()
  found = load_benchmark("llmbar", str(tmp_path / "natural"))
  assert [item.section for item in found.items] == ["gptinst", "neighbor"]


@pytest.mark.parametrize(
  ("path", "given"),
  [
    ("reward-bench-2/data/test-00000-of-00001.jsonl", "."),
    ("reward-bench-2/data/test-00000-of-00001.jsonl", "reward-bench-2/data"),
    ("datasets--allenai--reward-bench-2/snapshots/0a1b/data/test-00000-of-00001.jsonl", "."),
    (
      "datasets--allenai--reward-bench-2/snapshots/0a1b/data/test-00000-of-00001.jsonl",
      "datasets--allenai--reward-bench-2/snapshots/0a1b",
    ),
  ],
)
def test_a_download_of_the_hub_is_found_wherever_the_folder_is_named(path, given, tmp_path):
  rows = [
    row | {"chosen": json.dumps(row["chosen"])} for row in official_rows.rewardbench2()[0][:3]
  ]  # as CSV has lists
  write_jsonl(folder_of((tmp_path / path).parent) / Path(path).name, rows)
  assert [item.answers for item in load_benchmark("rewardbench2", str(tmp_path / given)).items] == [
    ["a", "b", "c", "d"]
  ] * 3


@pytest.mark.parametrize("name", BENCHMARKS)
def test_published_scores_fit_the_numbers(name):
  numbers = list(BENCHMARKS[name].table)
  for row in BENCHMARKS[name].published.values():
    assert len(row) <= len(numbers) and all(value is None or 0 <= value <= 100 for value in row)
  for number, parts in {"rewardbench": 5, "rewardbench2": 7, "processbench": 5}.items():
    if name == number:  # the first is the mean of the others
      for row in BENCHMARKS[name].published.values():
        assert row[0] == pytest.approx(sum(row[1:parts]) / (parts - 1), abs=0.1)


# ---- stored scores of others -------------------------------------------------------------------------------------------


def stored(folder: Path, name: str) -> list[dict]:
  with gzip.open(folder / "benchmarks" / f"{name}.jsonl.gz", "rt") as file:
    return [json.loads(line) for line in file]


@pytest.mark.real
def test_judgebench_scores_of_five_models(shared_data):
  data = load_benchmark("judgebench", str(shared_data / "benchmarks"))
  by_model: dict[str, dict[str, list[float]]] = {}
  for row in stored(shared_data, "golden_judgebench_gpt_rm_scores"):
    by_model.setdefault(row["model"], {})[row["pair_id"]] = row["scores_AB"]
  found = {}
  for model, scores in by_model.items():
    result, _ = summarize("judgebench", data, [scores[item.id] for item in data.items])
    found[model] = [round(100 * one.value, 2) for one in result.numbers.values()]
    assert result.complete and result.baselines["longest"]["score"] == 0.46
  assert found == {
    "Skywork/Skywork-Reward-Llama-3.1-8B": [62.29, 59.09, 64.29, 76.79, 50.00, 62.54],
    "Skywork/Skywork-Reward-Gemma-2-27B": [64.29, 59.74, 66.33, 83.93, 50.00, 65.00],
    "internlm/internlm2-7b-reward": [59.43, 56.49, 61.22, 71.43, 50.00, 59.79],
    "internlm/internlm2-20b-reward": [63.43, 62.34, 69.39, 66.07, 50.00, 61.95],
    "Ray2333/GRM-Gemma-2B-rewardmodel-ft": [59.43, 62.99, 53.06, 64.29, 54.76, 58.77],
  }


@pytest.mark.real
def test_prmbench_labels_of_r_prm(shared_data):
  data = load_benchmark("prmbench", str(shared_data / "benchmarks"))
  assert (data.rows, len(data.items), data.set_aside) == (6216, 6211, {"repeated": 5})
  labels: dict[str, list[float]] = {}
  for row in stored(shared_data, "golden_prmbench_rprm7b_step_scores"):
    labels.setdefault(row["idx"], [float(label) for label in row["labels"]])
  result, _ = summarize("prmbench", data, [labels[item.id] for item in data.items])
  found = {name: round(100 * one.value, 2) for name, one in result.numbers.items() if name.isupper() or name == "score"}
  assert found == {"score": 64.92, "NR": 52.66, "NCL": 64.67, "ES": 70.12, "SC": 62.73, "DC": 63.36} | {
    **{"CI": 69.54, "PS": 61.43, "DR": 67.41, "MS": 98.30}
  }
  blind = result.baselines["no_step_wrong"]
  assert [round(100 * blind[name], 2) for name in ("score", "simplicity", "soundness", "sensitivity", "MS")] == [
    *(45.72, 44.27, 46.19, 63.34, 100.0)
  ]
  wrong, _ = summarize("prmbench", data, [[0.0] * len(item.answers) for item in data.items])
  assert round(100 * wrong.numbers["score"].value, 2) == 13.62


@pytest.mark.real
def test_rmb_scores_of_armorm(shared_data):
  rows = stored(shared_data, "golden_rmb_armorm_ideadev_849")
  items = [Item([{"role": "user", "content": row["pair_uid"]}], ["a", "b"], "helpfulness_pairs") for row in rows]
  rewards = [[row["chosen_reward"], row["reject_reward"]] for row in rows]
  found = numbers_of("rmb", LoadedBenchmark(items, 849, 20917, {}), rewards)
  assert found["helpfulness_pairs"] == 675 / 849


# ---- the script --------------------------------------------------------------------------------------------------------


def test_the_script_scores_several_benchmarks_and_writes_every_item(toy_model, tmp_path):
  for name in ("rewardbench2", "rm-bench"):
    loaded(tmp_path / "data", name, getattr(official_rows, name.replace("-", "_"))()[0])
  words = ("--model_name_or_path", toy_model[0], "--benchmark", "rewardbench2", "rm-bench", "--threshold", "0.5")
  done = run_main("evaluate.py", *words, "--benchmark_data", tmp_path / "data", "--output", tmp_path / "rows.jsonl")
  assert done.returncode == 0, done.stderr
  assert not faults_of("evaluate.py", done.json)
  rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").open()]
  assert len(rows) == sum(one["items"] for one in done.json["benchmarks"].values())
  for name, scores in {"rewardbench2": "rewardbench2/focus", "rm-bench": "rm-bench/chat"}.items():
    own = [row for row in rows if row["benchmark"] == name]
    found = numbers_of(name, load_benchmark(name, str(tmp_path / "data")), [row["rewards"] for row in own])
    assert done.json["scores"][scores] == pytest.approx(found[scores.partition("/")[2]])
  assert "RM-Bench: 29 items of 29 rows" in done.stderr and "Skywork-Reward-V2-Llama-3.1-8B" in done.stderr


def test_the_script_evaluates_a_process_reward_model(toy_process_model, tmp_path):
  loaded(tmp_path, "processbench", official_rows.processbench()[0])
  words = ("--model_name_or_path", toy_process_model, "--benchmark", "processbench", "--benchmark_data", tmp_path)
  done = run_main("evaluate.py", *words, "--threshold", "0.4")
  assert done.returncode == 0, done.stderr
  assert not faults_of("evaluate.py", done.json)
  assert done.json["benchmarks"]["processbench"]["threshold"] == 0.4
  refused = run_main("evaluate.py", *words, "--dataset_name", "x.jsonl")
  assert refused.returncode == 2 and "--dataset_name does nothing with --benchmark" in refused.stderr
