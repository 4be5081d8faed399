"""The field's benchmarks of steps. A step that was not scored cannot be flagged."""

import math
from collections.abc import Callable
from statistics import fmean

from ..aggregation import NO_ERROR, first_flag
from ..data.cells import RowError
from ..data.conversations import prompt_of
from ..data.entries import Row, SetAsideError
from ..data.formats_steps import mr_ben as read_mr_ben
from .benchmark_entries import Benchmark, Counted, Item, ItemRewards, Part, lists, one_of
from .intervals import Ratios
from .steps import FIXED, UNKNOWN, harmonic_mean

# ProcessBench: QwenLM/ProcessBench@e802463, 2412.06559

PROCESSBENCH_SPLITS = ("gsm8k", "math", "olympiadbench", "omnimath")


def _processbench_item(row: Row, place: str) -> Item:
  steps, label = lists(row, "steps"), row["label"]
  if type(label) is not int or not NO_ERROR <= label < len(steps):
    raise RowError(f"`label` is {label!r}: expected the place of a step, or -1")
  return Item(prompt_of(row, "problem"), steps, one_of(PROCESSBENCH_SPLITS, row["id"], "id"), label, row["id"])


def _processbench_rule(item: Item, rewards: ItemRewards, threshold: float) -> Counted:
  """label: the place of the first wrong step, where the first flag must be, or NO_ERROR."""
  name = f"{item.section}/{'correct' if item.label == NO_ERROR else 'error'}"
  first, fixed = (first_flag(rewards, at) == item.label for at in (threshold, FIXED))
  return {name: first, f"{name} at 0.5": fixed}


def _f1(split: str, at: str = "") -> Callable[[Ratios], float]:
  return lambda ratios: harmonic_mean(ratios[f"{split}/error{at}"], ratios[f"{split}/correct{at}"])


# PRMBench: ssmisya/PRMBench@a1ae4ea, 2501.03124

# fmt: off
CLASSES = {
  "redundency": "NR", "circular": "NCL", "counterfactual": "ES", "step_contradiction": "SC", "domain_inconsistency": "DC",
  "confidence": "CI", "missing_condition": "PS", "deception": "DR", "multi_solutions": "MS",
}
# fmt: on
CLASS_GROUPS = {"simplicity": ("NR", "NCL"), "soundness": ("ES", "SC", "DC", "CI"), "sensitivity": ("PS", "DR", "MS")}


def _prmbench_item(row: Row, place: str) -> Item:
  kind = one_of(CLASSES, row["classification"], "classification")
  steps, wrong = lists(row, "modified_process"), frozenset(lists(row, "error_steps", of=int))
  if min(wrong, default=1) < 1:
    raise RowError("`error_steps` counts from 1")
  return Item(prompt_of(row, "modified_question"), steps, CLASSES[kind], wrong, f"{kind}_{row['idx']}")


def _prmbench_rule(item: Item, rewards: ItemRewards, threshold: float) -> Counted:
  """label: the numbers of the wrong steps, from 1. Positive: a valid step, above the threshold; negative F1: a wrong one."""
  cells = [(one is None or one > threshold, number not in item.label) for number, one in enumerate(rewards, 1)]
  tp, tn = (2.0 * cells.count((kind, kind)) for kind in (True, False))
  errors = len(cells) - (tp + tn) / 2
  ratios = {"f1": (tp, tp + errors), "negative_f1": (tn, tn + errors)}
  return {f"{name}/{ratio}": pair for name in ("all", item.section) for ratio, pair in ratios.items()}


# Mr-Ben: dvlab-research/Mr-Ben@6eb1eca, 2406.13975. Half of its MR-Score is for reasons, which an LLM grades

SUBJECTS = ("math", "physics", "chemistry", "biology", "medicine", "logic")


def _mr_ben_item(row: Row, place: str) -> Item:
  if "coding" in row["Subject"]:  # whose error is a line, which the authors let an LLM compare
    raise SetAsideError("coding")
  section = one_of(SUBJECTS, row["Subject"], "Subject")
  try:
    found = read_mr_ben(row)
    prompt, steps = found.prompt, found.steps
    label = found.labels.index(0.0) if 0.0 in found.labels else NO_ERROR
  except RowError:  # the place of the error cannot be found
    prompt, steps = prompt_of(row, "Question"), [*filter(str.strip, lists(row, "Model_Solution_Steps"))]
    verdict = one_of(("correct", "incorrect"), row["Model_Solution_Correctness"], "Model_Solution_Correctness")
    label = NO_ERROR if verdict == "correct" else UNKNOWN
  return Item(prompt, steps, section, label, row["Question_UUID"])


def _mr_ben_rule(item: Item, rewards: ItemRewards, threshold: float) -> Counted:
  """label: as of ProcessBench, or UNKNOWN."""
  place, right = first_flag(rewards, threshold), item.label == NO_ERROR
  told = {"specificity": place == NO_ERROR} if right else {"recall": place != NO_ERROR, "step": place == item.label}
  return {f"{item.section}/{name}": one for name, one in told.items()} | {f"{item.section}/correct": right}


def _mcc(ratios: Ratios) -> float:
  """Matthews' correlation, from the shares of correct solutions and of those told rightly."""
  found = []
  for subject in SUBJECTS:
    correct, specificity, recall = (ratios[f"{subject}/{name}"] for name in ("correct", "specificity", "recall"))
    told = correct * specificity + (1 - correct) * (1 - recall)  # of all, the share told to be correct
    product = correct * (1 - correct) * told * (1 - told)
    found.append(0.0 if product <= 0 else (specificity + recall - 1) * correct * (1 - correct) / math.sqrt(product))
  return fmean(found)


# fmt: off
STEP_BENCHMARKS: dict[str, Benchmark] = {
  "processbench": Benchmark(
    "ProcessBench",
    (Part("Qwen/ProcessBench", "+".join(PROCESSBENCH_SPLITS), 3400, ("/processbench", rf"/({'|'.join(PROCESSBENCH_SPLITS)})\b")),),
    _processbench_item, _processbench_rule,
    {"score": PROCESSBENCH_SPLITS, **{split: _f1(split) for split in PROCESSBENCH_SPLITS},
     "score_at_0.5": lambda ratios: fmean(_f1(split, " at 0.5")(ratios) for split in PROCESSBENCH_SPLITS)},
    {"Qwen2.5-Math-PRM-7B": (73.5, 82.4, 77.6, 67.5, 66.3), "Skywork-PRM-7B": (42.1, 70.8, 53.6, 22.9, 21.0)},
    "R-PRM README, 2025-04", of_steps=True, threshold_from="gsm8k",
  ),
  "prmbench": Benchmark(
    "PRMBench", (Part("hitsmy/PRMBench_Preview", "train", 6216, ("prmtestclassified/data/", "/prmbench")),),
    _prmbench_item, _prmbench_rule,
    # Multi-solutions (MS) have no wrong step, so their score is their F1.
    {"score": ("all/f1", "all/negative_f1"), **CLASS_GROUPS,
     **{name: (f"{name}/f1", f"{name}/negative_f1") for name in CLASSES.values()}, "MS": "MS/f1"},
    {"Qwen2.5-Math-PRM-7B": (65.5, 52.1, 71.0, 75.5), "Skywork-PRM-7B": (65.1, 59.6, 68.5, 73.3)},
    "PRMBench's notebook; Skywork's steps by the difference to the step before", of_steps=True, repeats=True,
  ),
  "mr-ben": Benchmark(
    "Mr-Ben without reasons",
    (Part("Randolphzeng/Mr-Ben", "train", 5975, (rf"mrben/(.*/)?({'|'.join(SUBJECTS)}|coding)\.", "/mrben")),),
    _mr_ben_item, _mr_ben_rule,
    {"step_accuracy": [f"{name}/step" for name in SUBJECTS], "mcc": _mcc,
     **{f"step_accuracy_{name}": f"{name}/step" for name in SUBJECTS}},
    of_steps=True, signed=("mcc",),
  ),
}
# fmt: on
