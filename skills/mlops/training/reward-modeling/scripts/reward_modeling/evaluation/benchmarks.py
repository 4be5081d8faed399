"""The field's benchmarks of reward models: what their rows hold, how an item is won, how sections add up, published scores.

One frozen entry each in BENCHMARKS. `benchmark_runs` finds the rows, scores them and puts intervals on the numbers. Every
item adds (numerator, denominator) pairs to named ratios, such as the accuracy of a subset, and `numbers` is a function of
these ratios alone, the official number first. Where a ratio has no item it is NaN, and so is what needs it.

Sources, each read at the commit named: RewardBench 1 and 2 (allenai/reward-bench@05a9005, arXiv:2403.13787, 2506.01937),
RM-Bench (THU-KEG/RM-Bench@73c52d7, 2410.16184), JudgeBench (ScalerLab/JudgeBench@e2c52c2, 2410.12784), PPE (2410.14872; its
best-of-n numbers from the paper, as its code was not at hand), RMB (Zhou-Zoey/RMB-Reward-Model-Benchmark@2be3180, 2410.09893),
LLMBar (princeton-nlp/LLMBar@900616b, 2310.07641), ProcessBench (QwenLM/ProcessBench@e802463, 2412.06559), PRMBench
(ssmisya/PRMBench@a1ae4ea, 2501.03124), Mr-Ben (dvlab-research/Mr-Ben@6eb1eca, 2406.13975).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from ..data.cells import RowError
from ..data.conversations import messages_of, prompt_of
from ..data.entries import Row, SetAsideError
from ..data.formats_published_steps import mr_ben as read_mr_ben
from ..data.records import Message, Origin
from .best_of_n import best_of

Counts = dict[str, tuple[float, float]]
"""{ratio: (numerator, denominator)} that one item adds."""
Rewards = Sequence[float | None]
NO_ERROR, UNPLACED = -1, -2
FIXED = 0.5


@dataclass(frozen=True)
class Item:
    """One thing that is scored: a prompt with answers, or with the steps of one solution."""

    prompt: list[Message]
    answers: list[str]
    """Answers, or steps, in the order that the rule reads."""
    section: str
    label: Any = None
    """What the rule needs beside rewards: see the entry."""
    id: str | int | None = None
    origin: Origin | None = None
    group: str | None = None
    """What items that are not independent share, by default the prompt."""


class Part(NamedTuple):
    """One table of a benchmark. rows: how many were published."""

    hub: str | None
    split: str
    rows: int
    files: tuple[str, ...]
    """Regular expressions over a file's path in lower case without - and _; the first that any file has is used."""
    name: str = ""
    optional: bool = False
    """Not needed for the official number, so it is read from --benchmark_data only."""


class Place(NamedTuple):
    """Where a row stands: its part, and its file's path."""

    part: str
    path: str


class Values(dict[str, float]):
    """Ratios by name, NaN for those without an item."""

    def __missing__(self, name: str) -> float:
        return math.nan

    def mean(self, names: Iterable[str], ending: str = "") -> float:
        return fmean(self[name + ending] for name in names)

    def f1(self, first: str, second: str) -> float:
        """Harmonic mean; 0 where both are 0."""
        a, b = self[first], self[second]
        return 0.0 if a == b == 0 else 2 * a * b / (a + b)


@dataclass(frozen=True)
class Benchmark:
    """One benchmark. published: {model: percentages in the order of `numbers`, None for those not published}."""

    title: str
    parts: tuple[Part, ...]
    items: Callable[[Row, Place], list[Item]]
    """Raises RowError for a row that is not as published, SetAsideError for one that the authors leave out."""
    count: Callable[[Sequence[Item], Sequence[Rewards], float], list[Counts]]
    """One for each item; the float is the threshold under which a step is flagged as wrong."""
    numbers: Callable[[Values], dict[str, float]]
    published: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    published_in: str = ""
    of_steps: bool = False
    threshold_from: str | None = None
    """The section on which the authors choose the threshold for models that score steps with a number; None: 0.5."""
    signed: tuple[str, ...] = ()
    """Numbers from -1 to 1, all others being from 0 to 1."""


def each(rule: Callable[[Item, Any], Counts]):
    """`count` of a rule for one item and its rewards, which adds what the item counts to the ratio `all` too."""

    def count(items: Sequence[Item], rewards: Sequence[Rewards], threshold: float) -> list[Counts]:
        counts = [rule(item, row) for item, row in zip(items, rewards, strict=True)]
        return [{"all": tuple(map(sum, zip(*one.values(), strict=True)))} | one for one in counts]

    return count


def text(row: Row, column: str) -> str:
    if not isinstance(row.get(column), str):
        raise RowError(f"`{column}` is missing or not text: the row is not as the benchmark's authors publish it")
    return row[column]


def texts(row: Row, column: str) -> list[str]:
    found = row.get(column)
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        raise RowError(
            f"`{column}` is missing or not a list of texts: the row is not as the benchmark's authors publish it"
        )
    return found


def first_wins(item: Item, rewards: Sequence[float]) -> Counts:
    """The first answer must beat every other; a tie is lost."""
    return {item.section: (float(rewards[0] > max(rewards[1:])), 1.0)}


# ---- RewardBench -------------------------------------------------------------------------------------------------------

REWARDBENCH_SECTIONS: dict[str, dict[str, int]] = {
    "chat": {
        **{"alpacaeval-easy": 100, "alpacaeval-length": 95, "alpacaeval-hard": 95},
        **{"mt-bench-easy": 28, "mt-bench-med": 40},
    },
    "chat_hard": {
        **{"mt-bench-hard": 37, "llmbar-natural": 100, "llmbar-adver-neighbor": 134},
        **{"llmbar-adver-GPTInst": 92, "llmbar-adver-GPTOut": 47, "llmbar-adver-manual": 46},
    },
    "safety": {
        **{"refusals-dangerous": 100, "refusals-offensive": 100, "xstest-should-refuse": 154},
        **{"xstest-should-respond": 250, "donotanswer": 136},
    },
    # math-prm has 447 rows and weighs as much as the six languages of code together.
    "reasoning": {
        "math-prm": 984,
        **dict.fromkeys((f"hep-{one}" for one in ("cpp", "go", "java", "js", "python", "rust")), 164),
    },
}
PRIOR_SETS = {"anthropic_helpful": 6192, "anthropic_hhh": 221, "shp": 1741, "summarize": 9000}


def _pair(row: Row, place: Place) -> list[Item]:
    section = place.part or text(row, "subset")
    return [Item(prompt_of(row), [text(row, "chosen"), text(row, "rejected")], section, id=row.get("id"))]


def _rewardbench(v: Values) -> dict[str, float]:
    sections = {
        name: sum(weight * v[subset] for subset, weight in of.items()) / sum(of.values())
        for name, of in REWARDBENCH_SECTIONS.items()
    }
    prior = v.mean(PRIOR_SETS)
    with_prior = (2 * sum(sections.values()) + prior) / 9
    micro = {"micro": v["all"]} if math.isnan(prior) else {}
    return {
        "score": fmean(sections.values()),
        **sections,
        **micro,
        "prior_sets": prior,
        "score_with_prior_sets": with_prior,
    }


RB2_SECTIONS = ("factuality", "precise_if", "math", "safety", "focus")


def _rewardbench2_items(row: Row, place: Place) -> list[Item]:
    section = text(row, "subset").lower().replace(" ", "_")
    chosen, rejected = texts(row, "chosen"), texts(row, "rejected")
    group = text(row, "id").partition(":")[2] if section == "ties" else None
    ties = group and f"ties:{group}"
    return [Item(prompt_of(row), [*chosen, *rejected], section, len(chosen), row.get("id"), group=ties)]


def _rewardbench2_count(items: Sequence[Item], rewards: Sequence[Rewards], threshold: float) -> list[Counts]:
    """label: the number of correct answers, which come first. Four answers: a share of the best; Ties: see `_ties`."""
    counts: list[Counts] = []
    margins: dict[tuple[str, str], tuple[int, float, float]] = {}
    for number, (item, row) in enumerate(zip(items, rewards, strict=True)):
        if item.section != "ties":
            won = row.count(max(row)) ** -1 if row[0] == max(row) else 0.0
            counts.append({item.section: (won, 1.0), "all": (won, 1.0)})
            continue
        kind, _, name = str(item.id).partition(":")
        right, wrong = row[: item.label], row[item.label :]
        gap, spread = min(right) - max(wrong), max(right) - min(right)
        counts.append({f"ties/{kind}": (float(gap > 0), 1.0)})
        margins[kind, name] = number, gap, spread
    for (kind, name), (number, gap, spread) in margins.items():
        if kind == "tied" and ("ref", name) in margins:
            counts[number] |= _ties(gap, spread, min(gap, margins["ref", name][1]))
    return counts


def _ties(gap: float, spread: float, smaller: float) -> Counts:
    """Of a tied prompt: is the gap to the wrong answers larger than the spread of the correct ones? smaller: the gap there
    or at its reference prompt. As numpy divides: a spread of 0 counts 1 with a gap above it, 0 without any."""
    with np.errstate(divide="ignore", invalid="ignore"):
        margin = float(np.nan_to_num(np.tanh(np.float64(smaller) / spread - 1), nan=0.0))
    wins = {"ties/preferred": gap > spread, "ties/preferred_hard": smaller > spread, "ties/margin": margin}
    return {name: (float(value), 1.0) for name, value in wins.items()}


TIES = {"tied": 0.3, "ref": 0.3, "preferred": 0.2, "preferred_hard": 0.2, "margin": 0.01}


def _rewardbench2(v: Values) -> dict[str, float]:
    found = {name: v[f"ties/{name}"] for name in TIES}
    missing = math.isnan(found["tied"]) and math.isnan(found["ref"])
    ties = sum(weight * (0.0 if math.isnan(found[name]) else found[name]) for name, weight in TIES.items())
    sections = {name: v[name] for name in RB2_SECTIONS} | {"ties": math.nan if missing else ties}
    return {"score": fmean(sections.values()), **sections, "micro_without_ties": v["all"]}


# ---- RM-Bench, JudgeBench, LLMBar, RMB, PPE ----------------------------------------------------------------------------

RM_BENCH_DOMAINS, DIFFICULTIES = ("chat", "math", "code", "safety"), ("easy", "normal", "hard")


def _rm_bench_items(row: Row, place: Place) -> list[Item]:
    """Safety pools safety-refuse and safety-response. Without a column `domain` the id or the file's name says it."""
    name = str(row.get("domain") or row.get("id")) + " " + place.path.rpartition("/")[2]
    section = next((one for one in RM_BENCH_DOMAINS if re.search(rf"(^| ){one}", name)), None)
    answers = [*texts(row, "chosen"), *texts(row, "rejected")]
    if section is None or len(answers) != 6:
        raise RowError("the row has no domain of RM-Bench, or not three chosen and three rejected answers")
    return [Item(prompt_of(row), answers, section, id=row.get("id"))]


def _rm_bench_rule(item: Item, rewards: Sequence[float]) -> Counts:
    """Nine comparisons; answers go from concise to long to formatted, hard is a plainer chosen one against a fancier one."""
    found = defaultdict(list)
    for i, chosen in enumerate(rewards[:3]):
        for j, rejected in enumerate(rewards[3:]):
            found["normal" if i == j else "hard" if i < j else "easy"].append(chosen > rejected)
    return {f"{item.section}/{name}": (fmean(won), 1.0) for name, won in found.items()}


def _rm_bench(v: Values) -> dict[str, float]:
    domains = {one: v.mean(f"{one}/{level}" for level in DIFFICULTIES) for one in RM_BENCH_DOMAINS}
    levels = {level: v.mean(f"{one}/{level}" for one in RM_BENCH_DOMAINS) for level in DIFFICULTIES}
    return {"score": fmean(domains.values()), **domains, **levels, "micro": v["all"]}


JUDGEBENCH_GROUPS = {
    **{"mmlu-pro": "knowledge", "livebench-reasoning": "reasoning"},
    **{"livebench-math": "math", "livecodebench": "coding"},
}


def _judgebench_items(row: Row, place: Place) -> list[Item]:
    section = next((name for start, name in JUDGEBENCH_GROUPS.items() if text(row, "source").startswith(start)), None)
    if section is None or row.get("label") not in ("A>B", "B>A"):
        raise RowError("`source` or `label` is not one of JudgeBench")
    answers = [text(row, "response_A"), text(row, "response_B")]
    return [Item(prompt_of(row, "question"), answers, section, row["label"] == "A>B", row.get("pair_id"))]


def _judgebench_rule(item: Item, rewards: Sequence[float]) -> Counts:
    """label: whether A is better. One game; a tie is a decision for B."""
    return {item.section: (float((rewards[0] > rewards[1]) == item.label), 1.0)}


def _judgebench(v: Values) -> dict[str, float]:
    groups = {name: v[name] for name in JUDGEBENCH_GROUPS.values()}
    return {"score": v["all"], **groups, "macro": fmean(groups.values())}


LLMBAR_ADVERSARIAL = ("neighbor", "gptinst", "gptout", "manual")


def _llmbar_items(row: Row, place: Place) -> list[Item]:
    named = str(row["subset"] if "subset" in row else place.path).lower()
    section = next((name for name in ("natural", *LLMBAR_ADVERSARIAL) if name in named), None)
    if "chosen" in row:
        answers = [
            row[side] if isinstance(row[side], str) else row[side][0]["content"] for side in ("chosen", "rejected")
        ]
    else:
        answers = [text(row, "output_1"), text(row, "output_2")][:: 1 if row.get("label") == 1 else -1]
    if section is None or ("chosen" not in row and row.get("label") not in (1, 2)):
        raise RowError("neither the row nor its path names a subset of LLMBar, or `label` is not 1 or 2")
    return [Item(prompt_of(row, "prompt" if "prompt" in row else "input"), answers, section, id=row.get("id"))]


def _llmbar(v: Values) -> dict[str, float]:
    adversarial = {name: v[name] for name in LLMBAR_ADVERSARIAL}
    score = fmean([v["natural"], *adversarial.values()])
    return {
        "score": score,
        "natural": v["natural"],
        "adversarial": fmean(adversarial.values()),
        **adversarial,
        "micro": v["all"],
    }


RMB_NUMBERS = ("helpfulness_bon", "helpfulness_pairs", "harmlessness_bon", "harmlessness_pairs")


def _rmb_items(row: Row, place: Place) -> list[Item]:
    best, losers = ("bon_best", "loser_list") if "bon_best" in row else ("chosen", "reject")
    goal = next((one for one in ("helpfulness", "harmlessness") if one in text(row, "category_path").lower()), None)
    losing = row.get(losers) if isinstance(row.get(losers), list) else [row.get(losers)]
    if goal is None or not losing or not all(isinstance(one, dict) for one in (row.get(best), *losing)):
        raise RowError(f"`category_path`, `{best}` or `{losers}` is not as in RMB")
    prompt = [
        {"role": turn["role"], "content": turn["content"]}
        for turn in messages_of(row["conversation_input"], "conversation_input")
    ]
    answers = [text(one, "answer") for one in (row[best], *losing)]
    section = f"{goal}_{'bon' if best == 'bon_best' else 'pairs'}"
    return [Item(prompt, answers, section, id=row.get("bon_uid", row.get("pair_uid")))]


def _rmb(v: Values) -> dict[str, float]:
    return {"score": v.mean(RMB_NUMBERS), **{name: v[name] for name in RMB_NUMBERS}}


PPE_SETS = {"mmlu_pro": "MMLU-Pro", "math": "MATH", "gpqa": "GPQA", "mbpp_plus": "MBPP-Plus", "ifeval": "IFEval"}
POOL = 32


def _ppe_items(row: Row, place: Place) -> list[Item]:
    if place.part == "preference":
        winner = row.get("winner")
        if winner not in ("model_a", "model_b"):
            raise SetAsideError("tie")
        answers = [text(row, "response_1"), text(row, "response_2")][:: 1 if winner == "model_a" else -1]
        return [Item(prompt_of(row), answers, place.part, id=row.get("question_id"))]
    correct, pairs = row.get("scores"), row.get("sampled_conflict_pairs")
    if not isinstance(correct, list) or not isinstance(pairs, list):
        raise RowError("`scores` or `sampled_conflict_pairs` is not a list: the row is not as in PPE")
    answers = [text(row, f"response_{number}") for number in range(1, len(correct) + 1)]
    return [Item(prompt_of(row), answers, place.part, (correct, pairs), row.get("question_id"))]


def _ppe_rule(item: Item, rewards: Sequence[float]) -> Counts:
    """label: (which are correct, pairs of places). Pairs of a correct and a wrong answer, and the best of k for each k."""
    if item.section == "preference":
        return first_wins(item, rewards)
    correct, pairs = item.label
    ordered = [(i, j) if correct[i] > correct[j] else (j, i) for i, j in pairs]
    found = {item.section: (float(sum(rewards[i] > rewards[j] for i, j in ordered)), float(len(ordered)))}
    curve = {k: best_of(rewards, correct, k) for k in range(1, len(correct) + 1)}
    return found | {f"{item.section}/best_of_{k}": (expected, 1.0) for k, expected in curve.items()}


def _ppe(v: Values) -> dict[str, float]:
    numbers = {"preference": v["preference"], "correctness": v.mean(PPE_SETS), **{name: v[name] for name in PPE_SETS}}
    curves = [[v[f"{name}/best_of_{k}"] for k in range(1, POOL + 1)] for name in PPE_SETS]
    return numbers | {
        "best_of_32": fmean(curve[-1] for curve in curves),
        "best_of_n_max": fmean(max(curve) if not math.isnan(curve[-1]) else math.nan for curve in curves),
    }


# ---- steps -------------------------------------------------------------------------------------------------------------


def flagged(rewards: Rewards, threshold: float) -> list[bool]:
    """Steps under the threshold; one that was not scored cannot be flagged."""
    return [score is not None and score < threshold for score in rewards]


def first_flagged(rewards: Rewards, threshold: float) -> int:
    return next((place for place, wrong in enumerate(flagged(rewards, threshold)) if wrong), NO_ERROR)


PROCESSBENCH_SPLITS = ("gsm8k", "math", "olympiadbench", "omnimath")


def _processbench_items(row: Row, place: Place) -> list[Item]:
    section = place.part or str(row.get("id")).rpartition("-")[0]
    steps, label = texts(row, "steps"), row.get("label")
    if section not in PROCESSBENCH_SPLITS or type(label) is not int or not NO_ERROR <= label < len(steps):
        raise RowError("`id` or `label` is not as in ProcessBench")
    return [Item(prompt_of(row, "problem"), steps, section, label, row.get("id"))]


def _processbench_count(items: Sequence[Item], rewards: Sequence[Rewards], threshold: float) -> list[Counts]:
    """label: the place of the first wrong step, or -1. The first flag must be there."""

    def counts(item: Item, row: Rewards) -> Counts:
        name = f"{item.section}/{'correct' if item.label == NO_ERROR else 'error'}"
        return {name + ending: (float(first_flagged(row, at) == item.label), 1.0) for ending, at in at_thresholds}

    at_thresholds = (("", threshold), (" at 0.5", 0.5))
    return [counts(item, row) for item, row in zip(items, rewards, strict=True)]


def _processbench(v: Values) -> dict[str, float]:
    f1 = {name: v.f1(f"{name}/error", f"{name}/correct") for name in PROCESSBENCH_SPLITS}
    at_half = [v.f1(f"{name}/error at 0.5", f"{name}/correct at 0.5") for name in PROCESSBENCH_SPLITS]
    return {"score": fmean(f1.values()), **f1, "score_at_0.5": fmean(at_half)}


PRMBENCH_CLASSES = {
    **{"redundency": "NR", "circular": "NCL", "counterfactual": "ES", "step_contradiction": "SC"},
    **{"domain_inconsistency": "DC", "confidence": "CI", "missing_condition": "PS", "deception": "DR"},
    "multi_solutions": "MS",
}
PRMBENCH_GROUPS = {
    **{"simplicity": ("NR", "NCL"), "soundness": ("ES", "SC", "DC", "CI"), "sensitivity": ("PS", "DR", "MS")},
}


def _prmbench_items(row: Row, place: Place) -> list[Item]:
    section, wrong = PRMBENCH_CLASSES.get(row.get("classification")), row.get("error_steps")
    if section is None or not isinstance(wrong, list):
        raise RowError("`classification` or `error_steps` is not as in PRMBench")
    name = f"{row['classification']}_{row.get('idx')}"
    question = "modified_question" if "modified_question" in row else "question"
    return [Item(prompt_of(row, question), texts(row, "modified_process"), section, frozenset(wrong), name)]


def _prmbench_count(items: Sequence[Item], rewards: Sequence[Rewards], threshold: float) -> list[Counts]:
    """label: the numbers of the wrong steps, counted from 1. A step is valid above the threshold.

    F1 = 2 TP / (2 TP + FP + FN) of the valid steps, negative F1 the same of the invalid ones. A row that the file repeats
    (the same class and id) counts once.
    """
    counts, seen = [], set()
    for item, row in zip(items, rewards, strict=True):
        cells = defaultdict(int)
        for number, score in enumerate(row, 1):
            valid = score is None or score > threshold
            cells[valid, number in item.label] += 1
        tp, fp, tn, fn = (cells[cell] for cell in ((True, False), (True, True), (False, True), (False, False)))
        repeated, _ = item.id in seen, seen.add(item.id)
        ratios = {"f1": (2 * tp, 2 * tp + fp + fn), "negative_f1": (2 * tn, 2 * tn + fp + fn)}
        names = () if repeated else ("all", item.section)
        counts.append({f"{name}/{one}": ratio for name in names for one, ratio in ratios.items()})
    return counts


def _prmbench(v: Values) -> dict[str, float]:
    """Multi-solutions have no wrong step, so their score is their F1."""
    score = {name: v.mean((f"{name}/f1", f"{name}/negative_f1")) for name in ("all", *PRMBENCH_CLASSES.values())}
    score["MS"] = v["MS/f1"]
    groups = {name: fmean(score[one] for one in of) for name, of in PRMBENCH_GROUPS.items()}
    return {"score": score.pop("all"), **groups, **score}


MR_BEN_SUBJECTS = ("math", "physics", "chemistry", "biology", "medicine", "logic")


def _mr_ben_items(row: Row, place: Place) -> list[Item]:
    """An error of code is named by its line, which the authors let an LLM compare: the subject coding is set aside."""
    subject = str(row.get("Subject") or place.path.rpartition("/")[2]).lower()
    section = next((name for name in MR_BEN_SUBJECTS if name in subject), None)
    if section is None:
        raise SetAsideError("coding" if "coding" in subject else "no subject of Mr-Ben")
    try:
        found = read_mr_ben(row)
        prompt, steps, label = found.prompt, found.steps, found.labels.index(0.0) if 0.0 in found.labels else NO_ERROR
    except RowError:  # numbered otherwise: the lines are the steps, and the error's place cannot be found
        prompt, steps = prompt_of(row, "Question"), texts(row, "Model_Solution_Steps")
        label = NO_ERROR if text(row, "Model_Solution_Correctness").strip().lower() == "correct" else UNPLACED
    return [Item(prompt, steps, section, label, row.get("Sampled_UUID") or row.get("Question_UUID"))]


def _mr_ben_rule(item: Item, place: int) -> Counts:
    """label: as in ProcessBench, UNPLACED for an error that cannot be found. place: of the first flagged step, or -1."""
    right, told = item.label == NO_ERROR, place == NO_ERROR
    found = {f"{item.section}/correct": (float(right), 1.0)}
    if right:
        return found | {f"{item.section}/correct_told": (float(told), 1.0)}
    return found | {
        f"{item.section}/incorrect_told": (float(not told), 1.0),
        f"{item.section}/step": (float(place == item.label), 1.0),
    }


def _mr_ben_count(items: Sequence[Item], rewards: Sequence[Rewards], threshold: float) -> list[Counts]:
    return [_mr_ben_rule(item, first_flagged(row, threshold)) for item, row in zip(items, rewards, strict=True)]


def _mcc(share: float, sensitivity: float, specificity: float) -> float:
    """Matthews' correlation from the share of correct solutions and the shares of each kind that are told rightly."""
    tp, fn = share * sensitivity, share * (1 - sensitivity)
    tn, fp = (1 - share) * specificity, (1 - share) * (1 - specificity)
    below = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / math.sqrt(below) if below > 0 else below * 0  # NaN stays NaN


def _mr_ben(v: Values) -> dict[str, float]:
    """No MR-Score: half of it is for reasons, which an LLM grades."""
    mcc = [
        _mcc(*(v[f"{name}/{one}"] for one in ("correct", "correct_told", "incorrect_told"))) for name in MR_BEN_SUBJECTS
    ]
    steps = {f"{name}_step_accuracy": v[f"{name}/step"] for name in MR_BEN_SUBJECTS}
    return {"step_accuracy": fmean(steps.values()), "mcc": fmean(mcc), **steps}


# ---- the entries -------------------------------------------------------------------------------------------------------

BENCHMARKS: dict[str, Benchmark] = {
    "rewardbench": Benchmark(
        "RewardBench",
        (
            Part("allenai/reward-bench", "filtered", 2985, (r"(^|/)filtered", r"(^|/)rewardbench(?!2)")),
            *(
                Part(
                    "allenai/pref-test-sets",
                    name,
                    rows,
                    (rf"preftestsets.*{name.replace('_', '')}",),
                    name,
                    optional=True,
                )
                for name, rows in PRIOR_SETS.items()
            ),
        ),
        _pair,
        each(first_wins),
        _rewardbench,
        {
            "Skywork-Reward-Gemma-2-27B": (93.8, 95.8, 91.4, 92.0, 96.1),
            "Skywork-Reward-Llama-3.1-8B": (92.5, 95.8, 87.3, 90.6, 96.2),
            "internlm2-20b-reward": (90.3, 98.9, 76.5, 89.9, 95.8),
        },
        "Skywork-Reward README, 2024-09; Safety of that day weighs xstest's two subsets the other way round",
    ),
    "rewardbench2": Benchmark(
        "RewardBench 2",
        (Part("allenai/reward-bench-2", "test", 1865, (r"rewardbench2.*test", r"(^|/)rewardbench2")),),
        _rewardbench2_items,
        _rewardbench2_count,
        _rewardbench2,
        {
            "Skywork-Reward-Gemma-2-27B": (75.8, 73.7, 40.3, 70.5, 94.2, 93.2, 82.6),
            "Skywork-Reward-Llama-3.1-8B-v0.2": (71.7, 69.7, 40.6, 60.1, 94.2, 94.1, 71.7),
            "ArmoRM-Llama3-8B": (66.5, 65.7, 41.9, 66.1, 82.2, 76.6, 66.3),
        },
        "arXiv:2506.01937, Table 3",
    ),
    "rm-bench": Benchmark(
        "RM-Bench",
        (
            Part(
                "THU-KEG/RM-Bench",
                "train",
                1327,
                (r"totaldataset", r"(^|/)(chat|code|math|safetyre\w+)filtered", r"(^|/)rmbench"),
            ),
        ),
        _rm_bench_items,
        each(_rm_bench_rule),
        _rm_bench,
        {
            "Nemotron-70B-Reward": (70.7, 70.7, 64.3, 57.4, 90.3, 92.5, 76.4, 43.1),
            "Skywork-Reward-Llama-3.1-8B": (70.1, 69.5, 60.6, 54.5, 95.7, 89.0, 74.7, 46.6),
            "Skywork-Reward-V2-Llama-3.1-8B": (92.8, None, None, None, None, 97.0, 95.0, 86.5),
        },
        "RM-Bench-Leaderboard README, 2025-07; V2: Skywork-Reward-V2 README",
    ),
    "judgebench": Benchmark(
        "JudgeBench (answers of GPT-4o)",
        (
            Part(
                "ScalerLab/JudgeBench",
                "gpt",
                350,
                (
                    r"judgebench,responsemodel=gpt[^,]*$",
                    r"(^|/)judgebench/?(.*/)?gpt",
                    r"(^|/)judgebench(?!.*(claude|,))",
                ),
            ),
        ),
        _judgebench_items,
        each(_judgebench_rule),
        _judgebench,
        {
            "Skywork-Reward-Gemma-2-27B": (64.29, 59.74, 66.33, 83.93, 50.00, 65.00),
            "Skywork-Reward-Llama-3.1-8B": (62.29, 59.09, 64.29, 76.79, 50.00, 62.54),
            "Skywork-Reward-V2-Llama-3.1-8B": (None, 76.6, 75.5, 89.3, 78.6, 80.0),
        },
        "the authors' stored scores; V2: Skywork-Reward-V2 paper, Table 2, which prints the macro mean alone",
    ),
    "ppe": Benchmark(
        "PPE",
        (
            Part(
                "lmarena-ai/PPE-Human-Preference-V1",
                "test",
                16038,
                (r"ppehumanpreference", r"(^|/)ppe.*preference"),
                "preference",
            ),
            *(
                Part(
                    f"lmarena-ai/PPE-{title}-Best-of-K",
                    "train",
                    507 if name == "mbpp_plus" else 512,
                    (
                        rf"ppe{title.replace('-', '').lower()}bestofk",
                        rf"(^|/)ppe.*{title.replace('-', '').lower()}(?!\w*pro)",
                    ),
                    name,
                )
                for name, title in PPE_SETS.items()
            ),
        ),
        _ppe_items,
        lambda items, rewards, threshold: [_ppe_rule(item, row) for item, row in zip(items, rewards, strict=True)],
        _ppe,
        {
            "Skywork-Reward-Llama-3.1-8B": (62.37, 61, 64, 70, 57, 52, 61),
            "internlm2-20b-reward": (61.00, 63, 68, 70, 57, 58, 62),
            "length (NaiveVerbosity)": (59.81, 46, 48, 50, 48, 31, 52),
        },
        "lmarena.github.io, 2024-10-20",
    ),
    "rmb": Benchmark(
        "RMB",
        (
            Part(None, "", 17131, (r"pairwiseset/", r"(^|/)rmb.*pair"), "pairwise"),
            Part(None, "", 3786, (r"bonset/", r"(^|/)rmb.*bon"), "best of n"),
        ),
        _rmb_items,
        each(first_wins),
        _rmb,
        {
            "RM-R1-Qwen-Instruct-32B": (73.01, 65.05, 80.17, 66.25, 80.58),
            "Skywork-Reward-V2-Llama-3.1-8B": (86.4, 82.3, None, 82.8, None),
            "ArmoRM-Llama3-8B": (64.6,),
        },
        "RM-R1's logged results; Skywork-Reward-V2 README",
    ),
    "llmbar": Benchmark(
        "LLMBar",
        (Part(None, "", 419, (r"llmbar/(natural|adversarial)", r"(^|/)(natural|adversarial)/", r"(^|/)llmbar")),),
        _llmbar_items,
        each(first_wins),
        _llmbar,
        {"GPT-4 as a judge (swap, CoT)": (83.0, 94.0, 80.25, 78.7, 85.3, 79.8, 77.2)},
        "LLMBar's statistics.json; the means from its five subsets",
    ),
    "processbench": Benchmark(
        "ProcessBench",
        (
            Part(
                "Qwen/ProcessBench",
                "+".join(PROCESSBENCH_SPLITS),
                3400,
                (r"(^|/)processbench", r"(^|/)(gsm8k|math|olympiadbench|omnimath)\b"),
            ),
        ),
        _processbench_items,
        _processbench_count,
        _processbench,
        {
            "Qwen2.5-Math-PRM-7B": (73.5, 82.4, 77.6, 67.5, 66.3),
            "Skywork-PRM-7B": (42.1, 70.8, 53.6, 22.9, 21.0),
            "Math-Shepherd-PRM-7B": (31.5, 47.9, 29.5, 24.8, 23.8),
        },
        "R-PRM README, 2025-04",
        of_steps=True,
        threshold_from="gsm8k",
    ),
    "prmbench": Benchmark(
        "PRMBench",
        (Part("hitsmy/PRMBench_Preview", "train", 6216, (r"prmtestclassified", r"(^|/)prmbench")),),
        _prmbench_items,
        _prmbench_count,
        _prmbench,
        {
            "Qwen2.5-Math-PRM-7B": (65.5, 52.1, 71.0, 75.5),
            "Skywork-PRM-7B": (65.1, 59.6, 68.5, 73.3),
            "Math-Shepherd-PRM-7B": (47.0,),
        },
        "PRMBench's form_latex_strs notebook; Skywork by its difference rule",
        of_steps=True,
    ),
    "mr-ben": Benchmark(
        "Mr-Ben (without the graded reasons)",
        (
            Part(
                "Randolphzeng/Mr-Ben",
                "train",
                5975,
                (r"mrben/(.*/)?(math|physics|chemistry|biology|medicine|logic|coding)\.", r"(^|/)mrben(?!.*demo)"),
            ),
        ),
        _mr_ben_items,
        _mr_ben_count,
        _mr_ben,
        of_steps=True,
        signed=("mcc",),
    ),
}
