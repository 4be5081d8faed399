"""The field's benchmarks of answers, and all by name. Comments name the sources, at the commit read; `benchmark_runs` scores them."""

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from ..data.cells import RowError
from ..data.conversations import answer_of, messages_of, prompt_of
from ..data.entries import Row, SetAsideError
from .benchmark_entries import Benchmark, Counted, Item, ItemRewards, Part, itself, lists, one_of, texts
from .benchmarks_of_steps import STEP_BENCHMARKS
from .best_of_n import best_of
from .intervals import Ratios


def won(item: Item, value: float) -> Counted:
  return dict.fromkeys((item.section,) if item.section in PRIOR_SETS else (item.section, "all"), value)


def first_wins(item: Item, rewards: Sequence[float]) -> Counted:
  """The first answer must beat every other; a tie is lost."""
  return won(item, rewards[0] > max(rewards[1:]))


# RewardBench 1 and 2: allenai/reward-bench@05a9005, arXiv:2403.13787, 2506.01937

PRIOR_SETS = {"anthropic_helpful": 6192, "anthropic_hhh": 221, "shp": 1741, "summarize": 9000}
# fmt: off
REWARDBENCH_SECTIONS: dict[str, dict[str, int]] = {
  "chat": {"alpacaeval-easy": 100, "alpacaeval-length": 95, "alpacaeval-hard": 95, "mt-bench-easy": 28, "mt-bench-med": 40},
  "chat_hard": {"mt-bench-hard": 37, "llmbar-natural": 100, "llmbar-adver-neighbor": 134, "llmbar-adver-GPTInst": 92,
                "llmbar-adver-GPTOut": 47, "llmbar-adver-manual": 46},
  "safety": {"refusals-dangerous": 100, "refusals-offensive": 100, "xstest-should-refuse": 154,
             "xstest-should-respond": 250, "donotanswer": 136},
  # math has 447 rows
  "reasoning": {"math-prm": 984, **{f"hep-{code}": 164 for code in ("cpp", "go", "java", "js", "python", "rust")}},
}
# fmt: on
RB2_SECTIONS = ("factuality", "precise_if", "math", "safety", "focus")
TIES = {"tied": 0.3, "ref": 0.3, "preferred": 0.2, "preferred_hard": 0.2, "margin": 0.01}


def _rewardbench_item(row: Row, place: str) -> Item:
  section = place if place in PRIOR_SETS else row["subset"]
  if not any(section in of for of in (PRIOR_SETS, *REWARDBENCH_SECTIONS.values())):
    raise RowError(f"the subset {section!r} is unknown")
  return Item(prompt_of(row), texts(row, "chosen", "rejected"), section, id=row.get("id"))


def _rewardbench2_item(row: Row, place: str) -> Item:
  section, right = one_of((*RB2_SECTIONS, "ties"), row["subset"].replace(" ", "_"), "subset"), lists(row, "chosen")
  kind, _, number = str(row["id"]).partition(":")
  group = f"ties {number}" if section == "ties" and one_of(("ref", "tied"), kind, "id") else None
  return Item(prompt_of(row), [*right, *lists(row, "rejected")], section, len(right), row["id"], group)


def _rewardbench2_rule(item: Item, rewards: Sequence[float]) -> Counted:
  """label: how many answers are correct, the first; one that shares the best reward wins its share. Ties have ids `ref:4`
  (one is correct) and `tied:4` (several are): is each correct answer above all wrong ones?"""
  if item.section == "ties":
    return {f"ties/{item.id.partition(':')[0]}": _gap(item, rewards) > 0}
  return won(item, (rewards[0] >= max(rewards)) / rewards.count(max(rewards)))


def _gap(item: Item, rewards: Sequence[float]) -> float:
  return min(rewards[: item.label]) - max(rewards[item.label :])


def _ties_together(items: Sequence[Item], rewards: Sequence[ItemRewards], counts: list[Counted]) -> None:
  """Is the gap of a tied prompt, or the smaller one of it and its ref prompt, wider than the spread of its correct answers?
  `margin` without a spread is 1 with a gap, and 0 without."""
  gaps = {item.id: _gap(item, row) for item, row in zip(items, rewards, strict=True) if item.section == "ties"}
  for item, row, own in zip(items, rewards, counts, strict=True):
    ref = str(item.id).replace("tied:", "ref:")
    if item.section == "ties" and ref != item.id and ref in gaps:
      spread, gap = np.ptp(row[: item.label]), gaps[item.id]
      smaller = min(gap, gaps[ref])
      with np.errstate(divide="ignore", invalid="ignore"):
        margin = np.nan_to_num(np.tanh(np.float64(smaller) / spread - 1), nan=0.0)
      own |= {"ties/preferred": gap > spread, "ties/preferred_hard": smaller > spread, "ties/margin": margin}


def _ties(ratios: Ratios) -> float:
  """A ratio without an item counts 0, unless there are no ties at all."""
  found = [weight * ratios[f"ties/{name}"] for name, weight in TIES.items()]
  return math.nan if np.isnan(found[:2]).all() else float(np.nansum(found))


# RM-Bench (THU-KEG/RM-Bench@73c52d7, 2410.16184), JudgeBench (ScalerLab/JudgeBench@e2c52c2, 2410.12784)

DOMAINS, DIFFICULTIES = ("chat", "math", "code", "safety"), ("easy", "normal", "hard")
# fmt: off
JUDGEBENCH_GROUPS = {
  "mmlu-pro": "knowledge", "livebench-reasoning": "reasoning", "livebench-math": "math", "livecodebench": "coding",
}
# fmt: on


def _rm_bench_item(row: Row, place: str) -> Item:
  """Files of one domain say it in their name only."""
  named = row.get("domain") or (row["id"] if "/" in str(row.get("id")) else place.rpartition("/")[2])
  answers = lists(row, "chosen", "rejected")
  if len(answers) != 6:
    raise RowError(f"there are {len(answers)} answers, not three chosen and three rejected ones")
  return Item(prompt_of(row), answers, one_of(DOMAINS, named, "domain"), id=row.get("id"))


def _rm_bench_rule(item: Item, rewards: Sequence[float]) -> Counted:
  """Answers go from concise to long to formatted; hard: against one of a fancier style."""
  wins = np.greater.outer(rewards[:3], rewards[3:])
  cells = wins[np.tril_indices(3, -1)], wins.diagonal(), wins[np.triu_indices(3, 1)]
  levels = {f"{item.section}/{level}": float(found.mean()) for level, found in zip(DIFFICULTIES, cells, strict=True)}
  return {"all": fmean(levels.values())} | levels


def _judgebench_item(row: Row, place: str) -> Item:
  section = JUDGEBENCH_GROUPS[one_of(JUDGEBENCH_GROUPS, row["source"], "source")]
  if "gpt" not in row.get("response_model", "gpt"):
    raise RowError("it is of another `response_model`")
  a_wins = one_of(("a>b", "b>a"), row["label"], "label") == "a>b"
  return Item(prompt_of(row, "question"), texts(row, "response_A", "response_B"), section, a_wins, row["pair_id"])


def _judgebench_rule(item: Item, rewards: Sequence[float]) -> Counted:
  """label: whether A is better. A tie is a decision for B."""
  return won(item, (rewards[0] > rewards[1]) == item.label)


# LLMBar (princeton-nlp/LLMBar@900616b, 2310.07641), RMB (Zhou-Zoey/RMB-Reward-Model-Benchmark@2be3180, 2410.09893)

ADVERSARIAL = ("neighbor", "gptinst", "gptout", "manual")
GOALS = ("helpfulness", "harmlessness")
RMB_SECTIONS = [f"{goal}_{kind}" for goal in GOALS for kind in ("bon", "pairs")]


def _llmbar_item(row: Row, place: str) -> Item:
  """Of the authors' rows, or of chosen and rejected with the `subset`."""
  section = one_of(("natural", *ADVERSARIAL), row.get("subset", place), "subset")
  if "chosen" in row:
    answers = [answer_of(row[side], side)[0]["content"] for side in ("chosen", "rejected")]
    return Item(prompt_of(row), answers, section, id=row.get("id"))
  order = 1 if one_of("12", row["label"], "label") == "1" else -1
  return Item(prompt_of(row, "input"), texts(row, "output_1", "output_2")[::order], section)


def _rmb_item(row: Row, place: str) -> Item:
  bon = "bon_best" in row
  rows = [row["bon_best"], *row["loser_list"]] if bon else [row["chosen"], row["reject"]]
  answers = lists({"answer": [one["answer"] for one in rows]}, "answer")
  section = f"{one_of(GOALS, row['category_path'], 'category_path')}_{'bon' if bon else 'pairs'}"
  turns = messages_of(row["conversation_input"], "conversation_input")
  prompt = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
  return Item(prompt, answers, section, id=row.get("bon_uid", row.get("pair_uid")))


# PPE: arXiv:2410.14872; best-of-n by the paper's words, since its code was not at hand

PPE_SETS = {"mmlu_pro": "MMLU-Pro", "math": "MATH", "gpqa": "GPQA", "mbpp_plus": "MBPP-Plus", "ifeval": "IFEval"}
POOL = 32


def _ppe_item(row: Row, place: str) -> Item:
  if place != "preference":
    scores, pairs = row["scores"], row["sampled_conflict_pairs"]
    if not all(one in (0, 1) for one in scores) or not all(scores[i] != scores[j] for i, j in pairs):
      raise RowError("`sampled_conflict_pairs` is not of a correct and a wrong one of `scores`")
    answers = texts(row, *(f"response_{number}" for number in range(1, len(scores) + 1)))
    return Item(prompt_of(row), answers, place, (scores, pairs), row["question_id"])
  winner = one_of(("model_a", "model_b", "tie"), row["winner"], "winner")
  if winner == "tie":
    raise SetAsideError("tie")
  answers = texts(row, "response_1", "response_2")[:: 1 if winner == "model_a" else -1]
  return Item(prompt_of(row), answers, place, id=row["question_id"])


def _ppe_rule(item: Item, rewards: Sequence[float]) -> Counted:
  """label: (whether each is correct, pairs of places of a correct and a wrong one)."""
  if item.section == "preference":
    return first_wins(item, rewards)
  correct, pairs = item.label
  right = sum(rewards[i] > rewards[j] if correct[i] > correct[j] else rewards[j] > rewards[i] for i, j in pairs)
  curve = {f"{item.section}/best_of_{k}": best_of(rewards, correct, k) for k in range(1, len(correct) + 1)}
  return {item.section: (float(right), float(len(pairs)))} | curve


# fmt: off
BENCHMARKS: dict[str, Benchmark] = {
  "rewardbench": Benchmark(
    "RewardBench",
    (Part("allenai/reward-bench", "filtered", 2985, ("/filtered", "/rewardbench(?!2)")),
     *(Part("allenai/pref-test-sets", name, rows, (f"preftestsets.*{name.replace('_', '')}",), name, True)
       for name, rows in PRIOR_SETS.items())),
    _rewardbench_item, first_wins,
    {"score": REWARDBENCH_SECTIONS.keys(), **REWARDBENCH_SECTIONS, "micro": "all", "prior_sets": PRIOR_SETS.keys(),
     "score_with_prior_sets": dict.fromkeys(REWARDBENCH_SECTIONS, 2) | {"prior_sets": 1}},
    {"Skywork-Reward-Gemma-2-27B": (93.8, 95.8, 91.4, 92.0, 96.1),
     "Skywork-Reward-Llama-3.1-8B": (92.5, 95.8, 87.3, 90.6, 96.2)},
    "Skywork-Reward README, 2024-09, with the weights of xstest's subsets swapped",
  ),
  "rewardbench2": Benchmark(
    "RewardBench 2", (Part("allenai/reward-bench-2", "test", 1865, ("/rewardbench2",)),),
    _rewardbench2_item, _rewardbench2_rule,
    {"score": (*RB2_SECTIONS, "ties"), **itself(*RB2_SECTIONS), "ties": _ties, "micro_without_ties": "all"},
    {"Skywork-Reward-Gemma-2-27B": (75.8, 73.7, 40.3, 70.5, 94.2, 93.2, 82.6),
     "Skywork-Reward-Llama-3.1-8B-v0.2": (71.7, 69.7, 40.6, 60.1, 94.2, 94.1, 71.7)},
    "arXiv:2506.01937, Table 3", together=_ties_together,
  ),
  "rm-bench": Benchmark(
    "RM-Bench",
    (Part("THU-KEG/RM-Bench", "train", 1327,
          ("totaldataset", r"/(chat|code|math|safetyre\w+)filtered", "/rmbench")),),
    _rm_bench_item, _rm_bench_rule,
    {"score": DOMAINS, **{domain: [f"{domain}/{level}" for level in DIFFICULTIES] for domain in DOMAINS},
     **{level: [f"{domain}/{level}" for domain in DOMAINS] for level in DIFFICULTIES}, "micro": "all"},
    {"Skywork-Reward-V2-Llama-3.1-8B": (92.8, None, None, None, None, 97.0, 95.0, 86.5),
     "Skywork-Reward-Llama-3.1-8B": (70.1, 69.5, 60.6, 54.5, 95.7, 89.0, 74.7, 46.6)},
    "RM-Bench-Leaderboard README, 2025-07; V2: its README",
  ),
  "judgebench": Benchmark(
    "JudgeBench, answers of GPT-4o",
    (Part("ScalerLab/JudgeBench", "gpt", 350,
          ("judgebench,responsemodel=gpt[^,]*$", "/judgebench/?(.*/)?gpt", "/judgebench[^,]*$")),),
    _judgebench_item, _judgebench_rule,
    {"score": "all", **itself(*JUDGEBENCH_GROUPS.values()), "macro": JUDGEBENCH_GROUPS.values()},
    {"Skywork-Reward-V2-Llama-3.1-8B": (None, 76.6, 75.5, 89.3, 78.6, 80.0),
     "Skywork-Reward-Gemma-2-27B": (64.29, 59.74, 66.33, 83.93, 50.00, 65.00)},
    "the authors' stored scores; V2: its paper, Table 2, which has the macro mean only",
  ),
  "ppe": Benchmark(
    "PPE",
    (Part("lmarena-ai/PPE-Human-Preference-V1", "test", 16038, ("ppehumanpreference", "/ppe.*preference"), "preference"),
     *(Part(f"lmarena-ai/PPE-{title}-Best-of-K", "train", 507 if name == "mbpp_plus" else 512,
            (f"{(plain := name.replace('_', ''))}bestofk", rf"/ppe.*{plain}"), name) for name, title in PPE_SETS.items())),
    _ppe_item, _ppe_rule,
    {"preference": "preference", "correctness": PPE_SETS.keys(), **itself(*PPE_SETS),
     "best_of_32": [f"{name}/best_of_{POOL}" for name in PPE_SETS], "best_of_n_highest":
     lambda ratios: fmean(np.max([ratios[f"{name}/best_of_{k + 1}"] for k in range(POOL)]) for name in PPE_SETS)},
    {"Skywork-Reward-Llama-3.1-8B": (62.37, 61, 64, 70, 57, 52, 61),
     "internlm2-20b-reward": (61.00, 63, 68, 70, 57, 58, 62)},
    "lmarena.github.io, 2024-10-20",
  ),
  "rmb": Benchmark(
    "RMB",
    (Part(None, "", 17131, ("rmbdataset/pairwiseset/", "/pairwiseset/", "/rmb.*pair"), "pairs"),
     Part(None, "", 3786, ("rmbdataset/bonset/", "/bonset/", "/rmb.*bon"), "best of n")),
    _rmb_item, first_wins, {"score": RMB_SECTIONS, **itself(*RMB_SECTIONS)},
    {"Skywork-Reward-V2-Llama-3.1-8B": (86.4, 82.3, None, 82.8, None),
     "RM-R1-Qwen-Instruct-32B": (73.01, 65.05, 80.17, 66.25, 80.58)},
    "Skywork-Reward-V2 README; RM-R1's logged results",
  ),
  "llmbar": Benchmark(
    "LLMBar", (Part(None, "", 419, (r"(natural|adversarial/\w+)/dataset\.json", "/llmbar")),),
    _llmbar_item, first_wins,
    {"score": ("natural", *ADVERSARIAL), "natural": "natural", "adversarial": ADVERSARIAL, **itself(*ADVERSARIAL), "micro": "all"},
    {"GPT-4 as a judge": (83.0, 94.0, 80.25, 78.7, 85.3, 79.8, 77.2)},
    "statistics.json, swap and CoT; the means are of its five subsets",
  ),
} | STEP_BENCHMARKS
# fmt: on
