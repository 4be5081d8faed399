"""Judging steps: numbers worked by hand, scikit-learn as the second route, enumeration for the threshold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from reward_modeling.console import DataError
from reward_modeling.evaluation import metrics, report, steps
from reward_modeling.process import StepScores
from reward_modeling.records import Solution


def solution(labels, prompt="2+2?", texts=None, **metadata):
    texts = texts or [f"step {i}" for i in range(len(labels))]
    return Solution([{"role": "user", "content": prompt}], texts, labels, metadata=metadata)


# The first: an error at step 1, of which the first flag is at step 0. The second: correct, and nothing is flagged.
# The third: an error at step 1, found.
SOLUTIONS = [solution([1, 0, 1], "a"), solution([1, 1], "b"), solution([1, 0], "c")]
SCORES = [[0.4, 0.3, 0.9], [0.8, 0.7], [0.6, 0.2]]


def test_figures_by_hand():
    data, values, left_out = steps.labelled_steps(SOLUTIONS, SCORES)
    found = steps.figures(data, values, np.full(3, 0.5))
    value = {name: estimate["value"] for name, estimate in found.items()}
    # Of 7 steps 3 are flagged, 2 of them rightly; both wrong steps are flagged.
    assert value["step_accuracy"] == pytest.approx(6 / 7)
    assert value["precision"] == pytest.approx(2 / 3) and value["recall"] == 1
    assert value["f1"] == pytest.approx(0.8)
    assert value["auroc"] == 1.0
    assert value["first_error_accuracy"] == pytest.approx(2 / 3)
    assert value["erroneous"] == 0.5 and value["correct"] == 1.0
    assert value["processbench_f1"] == pytest.approx(2 / 3)
    assert found["step_accuracy"]["n"] == 7 and found["step_accuracy"]["groups"] == 3
    assert left_out == {"not_scored_steps": 0, "not_judged_solutions": 0}


def test_what_is_not_labelled_or_not_scored():
    rows = [
        solution([1, 0], texts=["a", "b", "c", "d"]),  # labels stop at the error: all is known
        solution([1, 1], texts=["a", "b", "c"]),  # labels stop without an error: nobody knows
        solution([1, None, 1]),  # one label is missing within
        solution([1, 1, 0]),  # the error itself was not scored
        solution([0, 1]),  # scored up to the error
    ]
    scores = [[0.9, 0.1, 0.5, 0.5], [0.9] * 3, [0.9] * 3, [0.9, 0.9, None], [0.1, None]]
    data, values, left_out = steps.labelled_steps(rows, scores)
    assert data.first_error.tolist() == [1, steps.UNKNOWN, steps.NO_ERROR, steps.UNKNOWN, 0]
    assert data.owner.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4] and len(values) == 9
    assert data.place.tolist() == [0, 1, 0, 1, 0, 2, 0, 1, 0]
    assert left_out == {"not_scored_steps": 2, "not_judged_solutions": 2}
    with pytest.raises(DataError, match="no labelled step could be scored"):
        steps.labelled_steps([solution([1])], [[None]])


def test_soft_labels_are_wrong_under_one_half():
    data, _, _ = steps.labelled_steps([solution([0.9, 0.49, 0.5])], [[0.5] * 3])
    assert data.wrong.tolist() == [False, True, False]


flat = st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]), st.booleans()), min_size=2, max_size=40)


@settings(deadline=None)
@given(flat)
def test_step_figures_equal_scikit_learn(rows):
    scores, wrong = (np.array(column) for column in zip(*rows, strict=True))
    labels = [0.0 if bad else 1.0 for bad in wrong]
    data, values, _ = steps.labelled_steps([solution(labels)], [scores.tolist()])
    found = steps.figures(data, values, np.array([0.5]))
    flagged = scores < 0.5

    def same(name, expected, possible):
        assert (found[name] is not None) == bool(possible)
        if possible:
            assert found[name]["value"] == pytest.approx(expected(), abs=1e-12)

    same("step_accuracy", lambda: sklearn_metrics.accuracy_score(wrong, flagged), True)
    same("precision", lambda: sklearn_metrics.precision_score(wrong, flagged), flagged.any())
    same("recall", lambda: sklearn_metrics.recall_score(wrong, flagged), wrong.any())
    same("f1", lambda: sklearn_metrics.f1_score(wrong, flagged), (wrong | flagged).any())
    same("auroc", lambda: sklearn_metrics.roc_auc_score(wrong, -scores), wrong.any() and not wrong.all())


labelled = st.lists(
    st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.4, 0.6, 0.8]), st.booleans()), min_size=1, max_size=5),
    min_size=2,
    max_size=8,
)


@settings(max_examples=200)
@given(labelled)
def test_the_chosen_threshold_is_the_best_of_all(rows):
    """Every threshold between the scores is tried, with the figures that the report prints."""
    solutions = [solution([0.0 if bad else 1.0 for _, bad in row], str(i)) for i, row in enumerate(rows)]
    data, values, _ = steps.labelled_steps(solutions, [[score for score, _ in row] for row in rows])
    if not (data.first_error >= 0).any() or (data.first_error >= 0).all():
        with pytest.raises(DataError, match=r"with an error and solutions without; of those .* 0 have"):
            steps.choose_threshold(data, values)
        return

    def f1(threshold):
        thresholds = np.full(len(solutions), threshold)
        return steps.figures(data, values, thresholds)["processbench_f1"]["value"]

    threshold, reached = steps.choose_threshold(data, values)
    assert f1(threshold) == pytest.approx(reached, abs=1e-12)
    assert reached == pytest.approx(max(f1(t) for t in (0.05, 0.15, 0.3, 0.5, 0.7, 0.9)), abs=1e-12)


def test_intervals_cover_the_truth():
    """AUROC and harmonic mean with clusters: about 95 of 100 intervals hold the number of a large sample."""
    rng = np.random.default_rng(0)

    def sample(prompts):
        ease = np.repeat(rng.normal(0, 0.7, prompts), 3)
        wrong = rng.random(3 * prompts) < 0.4
        wrongness = rng.normal(0.8 * wrong + ease, 1)
        right = rng.random(3 * prompts) < 1 / (1 + np.exp(-ease - 0.5 * wrong))
        return wrongness, wrong, right, np.repeat(np.arange(prompts), 3)

    wrongness, wrong, right, groups = sample(60000)
    truth = steps.auroc(wrongness, wrong).value, steps.harmonic_mean(right, wrong).value
    hits = np.zeros(2)
    for _ in range(400):
        wrongness, wrong, right, groups = sample(60)
        estimates = steps.auroc(wrongness, wrong, groups), steps.harmonic_mean(right, wrong, groups)
        hits += [e.low <= t <= e.high for e, t in zip(estimates, truth, strict=True)]
    assert ((hits / 400 > 0.92) & (hits / 400 < 0.98)).all(), hits / 400


def test_smooth_of_a_mean_is_the_accuracy():
    outcomes, groups = np.array([1, 0, 1, 1, 0.5, 1]), [0, 0, 1, 2, 2, 3]
    expected = metrics.accuracy(outcomes, groups)
    found = metrics.smooth(outcomes.mean(), (outcomes - outcomes.mean()) / 6, groups)
    assert [found.value, found.low, found.high] == pytest.approx([expected.value, expected.low, expected.high])


class Judge:
    """Gives the first steps' probabilities from a table keyed by the prompt."""

    def __init__(self, table):
        self.table = table

    def score_solutions(self, solutions, progress=None):
        return [
            StepScores([float(np.log(p / (1 - p))) for p in self.table[prompt[0]["content"]]])
            for prompt, _, _ in solutions
        ]


def world(n, seed=0):
    """Solutions of two to four steps, and a judge that knows every wrong step but is off in its zero: 0.9 and 0.7."""
    rng, rows, table = np.random.default_rng(seed), [], {}
    for i in range(n):
        labels = [1.0] * int(rng.integers(1, 4)) + [float(rng.random() < 0.5)]
        rows.append(solution(labels, f"prompt {i}", subject="math" if i % 3 else "law"))
        table[f"prompt {i}"] = [0.9 if label else 0.7 for label in labels]
    return rows, Judge(table)


def test_halves_judge_each_other():
    rows, judge = world(40)
    judgement = steps.judge(judge, rows)
    summary = judgement.summary
    assert summary["threshold"]["values"] == [pytest.approx(0.8)], "0.5, the usual threshold, would find nothing"
    assert summary["processbench_f1"]["value"] == summary["auroc"]["value"] == 1.0
    assert set(summary["subsets"]) == {"law", "math"} and summary["subsets"]["law"]["f1"]["value"] == 1.0
    assert summary["n_solutions"] == summary["erroneous_solutions"] + summary["correct_solutions"] == 40
    assert judgement.rows[0]["first_flagged"] == judgement.rows[0]["first_error"]
    half = steps.halves(rows)
    assert 8 <= half.sum() <= 32 and (steps.halves(rows[::-1])[::-1] == half).all()


def test_no_solution_sees_its_own_threshold():
    """In one half wrong steps score 0.7, in the other 0.5 of 0.6: judged by the other's threshold both halves fail."""
    rows, judge = world(40)
    for row, second in zip(rows, steps.halves(rows), strict=True):
        if second:
            name = row.prompt[0]["content"]
            judge.table[name] = [0.6 if label else 0.5 for label in row.labels]
    summary = steps.judge(judge, rows).summary
    assert summary["threshold"]["values"] == [pytest.approx(0.55), pytest.approx(0.8)]
    assert summary["processbench_f1"]["value"] < 0.5


def test_a_threshold_from_other_data_or_given():
    rows, judge = world(30)
    others, other_judge = world(30, seed=1)
    judge.table |= {f"other {name}": values for name, values in other_judge.table.items()}
    others = [solution(s.labels, f"other {s.prompt[0]['content']}") for s in others]
    chosen = steps.judge(judge, rows, threshold_data=others).summary
    assert chosen["threshold"]["values"] == [pytest.approx(0.8)]
    assert chosen["threshold"]["chosen_on"] == "30 solutions of other data"
    given_one = steps.judge(judge, rows, threshold=0.5).summary
    assert given_one["recall"]["value"] == 0.0 and given_one["threshold"] == {"values": [0.5], "chosen_on": "given"}
    # The baselines that count characters or steps have scales of their own, on which 0.5 means nothing.
    by_halves = steps.judge(judge, rows).summary["baselines"]
    assert given_one["baselines"] == by_halves
    assert (
        by_halves["longer_steps"]["f1"] != by_halves["all_wrong"]["f1"]
        or by_halves["later_steps"]["f1"] != by_halves["all_wrong"]["f1"]
    )


def test_baselines_by_hand():
    texts = ["long, very long", "short"]
    rows = [solution([1, 0], "a", texts), solution([1, 1], "b", texts), solution([0], "c", ["one"])]
    judge = Judge({"a": [0.5, 0.5], "b": [0.5, 0.5], "c": [0.5]})
    baselines = steps.judge(judge, rows, threshold=0.5).summary["baselines"]
    value = {
        name: {key: estimate and estimate["value"] for key, estimate in table.items()}
        for name, table in baselines.items()
    }
    assert value["all_correct"]["step_accuracy"] == pytest.approx(3 / 5) and value["all_correct"]["precision"] is None
    assert value["all_wrong"]["step_accuracy"] == pytest.approx(2 / 5) and value["all_wrong"]["recall"] == 1
    assert value["all_wrong"]["erroneous"] == 0.5, "the first step is the error of the third solution only"
    assert value["longest_step"]["step_accuracy"] == pytest.approx(2 / 5)
    for name in ("all_correct", "all_wrong", "longest_step"):
        assert value[name]["processbench_f1"] == 0
    assert value["all_correct"]["auroc"] == value["all_wrong"]["auroc"] == 0.5
    # The wrong steps have 5 and 3 characters, the correct ones 15, 15 and 5: one tie in six pairs, the rest the wrong way.
    assert value["longer_steps"]["auroc"] == pytest.approx(0.5 / 6)
    # Wrong steps are number 1 and 0, correct ones 0, 0 and 1: two pairs right, three ties, one wrong.
    assert value["later_steps"]["auroc"] == pytest.approx(3.5 / 6)


# ---- sentences ----------------------------------------------------------------------------------------------------


def readings(judge, rows, **keys):
    return report.step_verdict(steps.judge(judge, rows, **keys).summary)


def test_flags_that_the_step_number_gives_too_are_no_achievement():
    """Twenty errors at the second step, twenty solutions of one right step. The judge finds each second error only."""
    rows = [solution([1, 0] if i % 2 else [1], str(i)) for i in range(40)]
    judge = Judge({str(i): [0.9, 0.1 if i % 4 == 1 else 0.9] if i % 2 else [0.9] for i in range(40)})
    lines = readings(judge, rows, threshold_data=rows)
    # 10 of 20 wrong steps are flagged and nothing else; of solutions one half and all are judged rightly: 2/3 both times.
    best = "is not shown to be above that of the best baseline: later steps 1.000 ["
    for name in ("F1 of wrong steps", "ProcessBench F1"):
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert line.startswith(f"{name} 0.667 [") and best in line
        assert line.endswith("Next: evaluate on more solutions (40 here), or train on more.")


def test_what_gets_0_itself_is_not_sent_to_figures_of_which_the_baseline_gets_0():
    """Wrong steps score higher and are shorter: every figure of the judge is 0, with a threshold that flags nothing wrong."""
    texts = ["long, very long", "short"]
    rows = [solution([1, 0] if i % 2 else [1, 1], str(i), texts) for i in range(40)]
    judge = Judge({str(i): [0.6, 0.9 if i % 2 else 0.7] for i in range(40)})
    lines = readings(judge, rows, threshold=0.65)
    zero = "0.000 [0.000, 0.088]"
    assert (
        f"ProcessBench F1 {zero} is not shown to be above that of the best baseline: all correct {zero}. "
        "Next: evaluate on more solutions (40 here), or train on more."
    ) in lines
    (f1,) = [line for line in lines if line.startswith("F1 of wrong steps 0.000 [")]
    assert "best baseline: later steps 0.667 [" in f1, "flags 40 second steps, 20 of them wrong: 2 * 20 / (40 + 20)"
    (accuracy,) = [line for line in lines if line.startswith("step accuracy 0.250 ")]
    assert accuracy.endswith("(0.750). Next: go by F1 and ProcessBench F1, each against its best baseline.")
    (shortcut,) = [line for line in lines if "length and position alone" in line]
    assert ", longer steps 0.167, later steps 0.833 (an AUROC below 0.5 ranks the wrong way round). Next:" in shortcut


def test_overlapping_intervals_count_as_not_above():
    """The same judge, right in nine of ten, beside a baseline that gets 0: enough solutions, and the sentence goes."""

    def said(n):
        rows = [solution([0, 1] if i % 2 else [1, 1], str(i)) for i in range(n)]
        table = {str(i): [0.1 if (i % 2 == 1) != (i % 20 > 17) else 0.9, 0.9] for i in range(n)}
        return "".join(readings(Judge(table), rows, threshold=0.5))

    assert "above that of the best baseline" in said(4) and "above that of the best baseline" not in said(200)


def test_a_good_judge_needs_no_remark_and_figures_without_a_value_get_none():
    rows, judge = world(200)
    assert readings(judge, rows) == []
    right = [solution([1, 1], str(i)) for i in range(5)]
    lines = readings(Judge({str(i): [0.9, 0.8] for i in range(5)}), right, threshold=0.5)
    assert [line.split()[0] for line in lines] == ["step"], "there is no wrong step that flags could find"


def test_the_table_of_baselines_says_what_an_auroc_below_one_half_means(capsys):
    rows, judge = world(200)
    summary = {**steps.judge(judge, rows).summary, "subsets": {}}
    said = "baselines: steps (an AUROC below 0.5 ranks the wrong way round)"
    for value, expected in ((0.5, False), (0.2, True)):
        for baseline in summary["baselines"].values():
            baseline["auroc"]["value"] = value
        report.show_steps(summary, "good")
        assert (said in capsys.readouterr().err) == expected
