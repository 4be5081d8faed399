"""evaluate.py: its numbers are those that a count over its own --output gives."""

import json
import math

import pytest

from conftest import run_main, run_script, toy_pairs, write_jsonl


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory):
    """Forty pairs the toy model did not see; every fourth is labelled the wrong way round, two are ties of its own."""
    rows = toy_pairs(40, seed=9)
    for i, row in enumerate(rows):
        row["subset"] = "easy" if i < 10 else "hard"
        if i % 4 == 3:
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    return write_jsonl(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", rows)


@pytest.fixture(scope="module")
def judged(toy_model, pairs_file, tmp_path_factory):
    """(the JSON of the script run as a user would, the rows of its --output, its stderr)."""
    out = tmp_path_factory.mktemp("judged") / "rewards.jsonl"
    words = ("--model_name_or_path", toy_model[0], "--dataset_name", pairs_file, "--output", out)
    done = run_script("evaluate.py", *words)
    assert done.returncode == 0, done.stderr
    return done.json, [json.loads(line) for line in out.open()], done.stderr


def test_numbers_agree_with_a_count_over_the_rows(judged, pairs_file):
    result, rows, _ = judged
    margins = [row["reward_chosen"] - row["reward_rejected"] for row in rows]
    right = [margin > 0 for margin in margins]
    assert [row["origin"] for row in rows] == [f"{pairs_file}:{i}" for i in range(1, 41)]
    assert [row["id"] for row in rows] == [f"toy-{i}" for i in range(40)]
    assert result["n_pairs"] == 40 and result["format"] == "explicit"
    assert result["accuracy"]["value"] == pytest.approx(sum(right) / 40)
    assert result["accuracy"]["low"] < sum(right) / 40 < result["accuracy"]["high"]
    assert sum(right) == 30, "the toy model knows its toy world: what is labelled wrongly counts as wrong"
    assert result["log_loss"] == pytest.approx(sum(math.log1p(math.exp(-margin)) for margin in margins) / 40)
    assert result["brier"] == pytest.approx(sum((1 - 1 / (1 + math.exp(-margin))) ** 2 for margin in margins) / 40)
    assert result["margin"]["mean"] == pytest.approx(sum(margins) / 40)
    assert result["ties"] == 0 and result["not_scored"] == 0
    assert result["subsets"]["easy"]["value"] == pytest.approx(sum(right[:10]) / 10)
    assert result["subsets"]["hard"]["value"] == pytest.approx(sum(right[10:]) / 30)
    macro = (sum(right[:10]) / 10 + sum(right[10:]) / 30) / 2
    assert result["macro_accuracy"]["value"] == pytest.approx(macro)


def test_length_baseline_agrees_with_a_count(judged, pairs_file):
    rows = [json.loads(line) for line in pairs_file.open()]
    longer = [len(row["chosen"][0]["content"]) > len(row["rejected"][0]["content"]) for row in rows]
    baseline = judged[0]["length"]["baseline_longer"]
    assert baseline["value"] == pytest.approx(sum(longer) / 40) and sum(longer) == 30


def test_rewards_are_those_of_score(judged, toy_model, pairs_file):
    scored = run_main("score.py", "--model_name_or_path", toy_model[0], "--input", pairs_file).json["rows"]
    for row, other in zip(judged[1], scored, strict=True):
        assert [row["reward_chosen"], row["reward_rejected"]] == pytest.approx(other["rewards"], abs=1e-5)


def test_stdout_has_every_key_and_stderr_a_table_and_no_noise(judged):
    result, _, stderr = judged
    keys = "model dataset format set_aside n_pairs n_prompts accuracy ties tie_share log_loss brier ece margin length"
    keys += " subsets macro_accuracy micro_accuracy reliability blind not_scored truncated readings output"
    assert set(keys.split()) <= set(result)
    assert "40 comparisons" in stderr and "accuracy" in stderr
    for noise in ("\r", "it/s]", "Warning", "Traceback"):
        assert noise not in stderr


def test_compare_counts_who_is_right_where(judged, toy_model, pairs_file, tiny, tmp_path):
    words = ("--model_name_or_path", tiny("qwen2"), "--dataset_name", pairs_file, "--output_dir", tmp_path / "other")
    trained = run_main("train.py", *words, "--max_steps", "1", "--save_strategy", "no", "--audit", "warn")
    assert trained.returncode == 0, trained.stderr
    other_rows = tmp_path / "other.jsonl"
    words = ("--model_name_or_path", tmp_path / "other", "--dataset_name", pairs_file)
    other = run_main("evaluate.py", *words, "--output", other_rows, "--compare", toy_model[0])
    assert other.returncode == 0, other.stderr
    comparison = other.json["comparison"]

    def right(rows):
        return [row["reward_chosen"] > row["reward_rejected"] for row in rows]

    a, b = right(json.loads(line) for line in other_rows.open()), right(judged[1])
    assert comparison["n_pairs"] == 40 and comparison["model"] == str(toy_model[0])
    assert comparison["only_a"] == sum(x and not y for x, y in zip(a, b, strict=True))
    assert comparison["only_b"] == sum(y and not x for x, y in zip(a, b, strict=True)) > 0
    assert comparison["both_right"] == sum(x and y for x, y in zip(a, b, strict=True))
    assert comparison["difference"]["value"] == pytest.approx((sum(a) - sum(b)) / 40)
    assert 0 < comparison["mcnemar_p"] <= 1


def test_compare_with_what_is_no_reward_model_is_refused_before_the_work(toy_model, pairs_file, tiny):
    words = ("--model_name_or_path", toy_model[0], "--dataset_name", pairs_file, "--compare", tiny("qwen2"))
    done = run_main("evaluate.py", *words)
    assert done.returncode == 4
    assert done.stderr.startswith(f"error: {tiny('qwen2')} is no reward model")


def test_a_subset_column_that_is_not_there(toy_model, pairs_file):
    words = ("--model_name_or_path", toy_model[0], "--dataset_name", pairs_file, "--subset_column", "topic")
    done = run_main("evaluate.py", *words)
    assert done.returncode == 3
    assert "error: no pair has the column topic" in done.stderr.splitlines()
    assert "hint: the data has subset" in done.stderr.splitlines()


def test_data_without_a_comparison(toy_model, tmp_path):
    row = {"prompt": "hello", "completions": ["yes", "no"], "scores": [1, 1]}
    data = write_jsonl(tmp_path / "even.jsonl", [row, row])
    done = run_main("evaluate.py", "--model_name_or_path", toy_model[0], "--dataset_name", data)
    assert done.returncode == 3
    lines = done.stderr.splitlines()
    assert lines[lines.index("error: the data holds no comparison") + 1] == f"  --> {data}"


def test_only_the_sides_of_this_evaluation_count_as_truncated(tiny):
    from reward_modeling import checkpoints
    from reward_modeling.evaluation.comparisons import judge
    from reward_modeling.records import Comparison
    from reward_modeling.rendering import Renderer
    from reward_modeling.scoring import RewardModel

    loaded = checkpoints.load_for_training(str(tiny("qwen2")))
    model = RewardModel(loaded.model.eval(), Renderer(loaded.tokenizer, max_length=24))
    prompt = [{"role": "user", "content": "one two three four five six " * 5}]
    pair = Comparison(prompt, [{"role": "assistant", "content": "yes"}], [{"role": "assistant", "content": "no"}])
    long = Comparison(prompt, pair.chosen, [{"role": "assistant", "content": "red " * 40}], metadata={"kind": "long"})
    for _ in range(2):  # the second time counts no more than the first
        judgement = judge(model, [pair, long])
        assert judgement.summary["truncated"] == 2 and judgement.summary["not_scored"] == 1
    rows = judgement.rows()
    assert rows[1]["reward_rejected"] is None and rows[1]["kind"] == "long" and rows[0]["reward_chosen"] is not None
