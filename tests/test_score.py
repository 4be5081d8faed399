"""score.py: every reward beside its own row, in input order; ranking and best-of-n are that order and nothing more."""

import json
from pathlib import Path

import pytest

from conftest import run_main, run_script, write_jsonl


def score(model: Path, *arguments):
    return run_main("score.py", "--model_name_or_path", model, *arguments)


def rewards_of(model, prompt: str, *completions: str) -> list[float]:
    """One at a time through Python: the second route."""
    from reward_modeling import RewardModel

    reward_model = RewardModel.from_pretrained(str(model))
    return [reward_model.score([prompt], [completion])[0] for completion in completions]


ROWS = [
    {"id": "b", "prompt": "hello red", "completions": ["no apples", "thank you apples", "maybe"], "source": "x"},
    {
        "id": "a",
        "prompt": "hello world blue",
        "completions": ["thank you", "no two three four five six"],
        "source": None,
    },
    {"id": "c", "prompt": "hello", "completions": ["yes", "no", "thank you world", "please"], "source": [1, 2]},
]


@pytest.fixture
def rows_file(tmp_path) -> Path:
    return write_jsonl(tmp_path / "rows.jsonl", ROWS)


def test_rewards_stay_with_their_rows(toy_model, rows_file):
    done = score(toy_model[0], "--input", rows_file)
    assert done.returncode == 0, done.stderr
    rows = done.json["rows"]
    assert [(row["id"], row["source"]) for row in rows] == [("b", "x"), ("a", None), ("c", [1, 2])]
    for row, given in zip(rows, ROWS, strict=True):
        assert [completion[0]["content"] for completion in row["completions"]] == given["completions"]
        alone = rewards_of(toy_model[0], given["prompt"], *given["completions"])
        assert row["rewards"] == pytest.approx(alone, abs=1e-5)
    flat = [reward for row in rows for reward in row["rewards"]]
    assert (done.json["prompts"], done.json["completions"], done.json["not_scored"]) == (3, 9, 0)
    assert done.json["reward_mean"] == pytest.approx(sum(flat) / 9)
    assert rows[0]["rewards"][1] > rows[0]["rewards"][0], "the toy model has learnt to like thanks"


def test_small_batches_change_nothing(toy_model, rows_file):
    large = score(toy_model[0], "--input", rows_file).json["rows"]
    small = score(toy_model[0], "--input", rows_file, "--max_tokens_per_batch", "1").json["rows"]
    for one, other in zip(large, small, strict=True):
        assert one["rewards"] == pytest.approx(other["rewards"], abs=1e-5)


def test_rank_sorts_and_says_where_each_came_from(toy_model, rows_file):
    plain = score(toy_model[0], "--input", rows_file).json["rows"]
    for row, ranked in zip(plain, score(toy_model[0], "--input", rows_file, "--rank").json["rows"], strict=True):
        assert ranked["id"] == row["id"] and ranked["rewards"] == sorted(row["rewards"], reverse=True)
        assert [row["rewards"][place] for place in ranked["order"]] == ranked["rewards"]
        assert [row["completions"][place] for place in ranked["order"]] == ranked["completions"]


def test_best_of_looks_at_the_first_n_only(toy_model, rows_file):
    plain = score(toy_model[0], "--input", rows_file).json["rows"]
    done = score(toy_model[0], "--input", rows_file, "--best_of", "2")
    assert done.json["completions"] == 6
    for row, best in zip(plain, done.json["rows"], strict=True):
        assert best["reward"] == pytest.approx(max(row["rewards"][:2]), abs=1e-5)
        assert best["completion"] == row["completions"][best["index"]] and best["index"] < 2


def test_fewer_completions_than_best_of_asks_for(toy_model, rows_file):
    done = score(toy_model[0], "--input", rows_file, "--best_of", "3")
    assert done.returncode == 3
    lines = done.stderr.splitlines()
    line = lines.index("error: the prompt has 2 completions, fewer than --best_of 3")
    assert lines[line + 1] == f"  --> {rows_file}:2"


def test_normalise_uses_the_mean_and_deviation_of_the_card(toy_model, rows_file):
    statistics = json.loads((toy_model[0] / "reward_model.json").read_text())["reward"]
    raw = score(toy_model[0], "--input", rows_file).json["rows"][0]["rewards"]
    normal = score(toy_model[0], "--input", rows_file, "--normalise").json["rows"][0]["rewards"]
    assert normal == pytest.approx([(value - statistics["mean"]) / statistics["std"] for value in raw])


def test_bfloat16_differs_a_little(toy_model, rows_file):
    full = score(toy_model[0], "--input", rows_file).json["rows"][2]["rewards"]
    half = score(toy_model[0], "--input", rows_file, "--dtype", "bfloat16").json["rows"][2]["rewards"]
    assert full != half and half == pytest.approx(full, abs=0.2)
    assert len(set(half)) == len(half), "the head stays in fp32, so rewards do not collapse into ties"


def test_output_is_written_whole_and_not_over_another_file(toy_model, rows_file, tmp_path):
    out = tmp_path / "scored.jsonl"
    done = score(toy_model[0], "--input", rows_file, "--output", out)
    assert done.returncode == 0 and "rows" not in done.json and done.json["output"] == str(out)
    written = out.read_text()
    assert [json.loads(line)["id"] for line in written.splitlines()] == ["b", "a", "c"]
    again = score(toy_model[0], "--input", rows_file, "--output", out)
    assert again.returncode == 2 and f"error: {out} exists already" in again.stderr.splitlines()
    assert out.read_text() == written
    assert score(toy_model[0], "--input", rows_file, "--output", out, "--overwrite", "--rank").returncode == 0
    assert out.read_text() != written
    assert [file.name for file in tmp_path.iterdir() if ".partial" in file.name] == []


def test_one_completion_a_row_other_columns_and_odd_values(toy_model, tmp_path):
    rows = [
        {"question": "hello", "answer": "thank you", "n": float("nan"), "when": "1 May"},
        {"question": "hello", "answer": "no", "n": 2.5, "when": None},
    ]
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    columns = ("--columns", "prompt=question,completion=answer")
    out = tmp_path / "scored.jsonl"
    done = score(toy_model[0], "--input", data, *columns, "--output", out)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line, parse_constant=lambda text: pytest.fail(text)) for line in out.open())
    assert first["reward"] > second["reward"]
    assert (first["n"], first["when"], second["n"]) == (None, "1 May", 2.5), "NaN is not JSON"
    wrong = score(toy_model[0], "--input", data, "--columns", "prompt=qestion")
    assert wrong.returncode == 3 and "error: there is no column `qestion`" in wrong.stderr.splitlines()


def test_what_the_policy_leaves_out_is_counted_not_scored(toy_model, rows_file):
    done = score(toy_model[0], "--input", rows_file, "--max_length", "30", "--overlong", "drop")
    assert done.returncode == 0, done.stderr
    flat = [reward for row in done.json["rows"] for reward in row["rewards"]]
    assert done.json["not_scored"] == flat.count(None) > 0 and len(flat) == 9
    last = score(toy_model[0], "--input", rows_file, "--max_length", "30", "--overlong", "drop", "--rank").json["rows"]
    assert all(row["rewards"][-1] is None for row in last if None in row["rewards"])


def test_the_command_line_gives_one_json_object_and_no_noise(toy_model):
    arguments = ("--prompt", "hello red", "--completions", "no apples", "thank you apples", "--rank")
    done = run_script("score.py", "--model_name_or_path", toy_model[0], *arguments)
    assert done.returncode == 0, done.stderr
    expected = rewards_of(toy_model[0], "hello red", "thank you apples", "no apples")
    assert done.json["rows"][0]["rewards"] == pytest.approx(expected, abs=1e-5)
    assert done.json["rows"][0]["order"] == [1, 0]
    for noise in ("\r", "it/s]", "Warning", "Traceback"):
        assert noise not in done.stderr


def test_input_and_prompt_exclude_each_other(rows_file):
    done = score(Path("unread"), "--input", rows_file, "--prompt", "hello", "--completions", "x")
    assert done.returncode == 2
    assert "error: give either --input, or --prompt with --completions" in done.stderr.splitlines()
    done = score(Path("unread"), "--input", rows_file, "--rank", "--best_of", "2")
    assert done.returncode == 2
    assert "error: --rank orders all completions, --best_of keeps one: choose one of them" in done.stderr.splitlines()
