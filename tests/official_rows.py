"""Invented rows and rewards of every benchmark, the same on every machine: what the authors' code and ours are given."""

import random

SECTIONS = {
  **{"alpacaeval-easy": 5, "alpacaeval-length": 4, "alpacaeval-hard": 4, "mt-bench-easy": 3, "mt-bench-med": 3},
  **{"mt-bench-hard": 3, "llmbar-natural": 5, "llmbar-adver-neighbor": 6, "llmbar-adver-GPTInst": 4},
  **{"llmbar-adver-GPTOut": 3, "llmbar-adver-manual": 3, "refusals-dangerous": 4, "refusals-offensive": 4},
  **{
    "xstest-should-refuse": 5,
    "xstest-should-respond": 7,
    "donotanswer": 5,
    "math-prm": 6,
    "hep-cpp": 4,
    "hep-go": 4,
  },
  **{"hep-java": 4, "hep-js": 4, "hep-python": 4, "hep-rust": 4},
}


def rewards(dice: random.Random, n: int) -> list[float]:
  """Multiples of one half, so that some are equal."""
  return [dice.randint(-3, 3) / 2 for _ in range(n)]


def rewardbench() -> tuple[list[dict], list[list[float]]]:
  dice = random.Random(1)
  rows = [
    {"id": i, "prompt": f"{subset} {i}", "chosen": "yes", "rejected": "no!", "subset": subset}
    for subset, count in SECTIONS.items()
    for i in range(count)
  ]
  return rows, [rewards(dice, 2) for _ in rows]


def rewardbench2() -> tuple[list[dict], list[list[float]]]:
  dice = random.Random(2)
  rows = [
    {"id": f"{subset}-{i}", "subset": subset, "chosen": ["a"], "rejected": ["b", "c", "d"]}
    for subset in ("Factuality", "Precise IF", "Math", "Safety", "Focus")
    for i in range(9)
  ]
  for i in range(8):
    for kind, correct in (("ref", 1), ("tied", dice.randint(2, 5))):
      texts = [f"{kind}{j}" for j in range(correct + dice.randint(2, 6))]
      rows.append({"id": f"{kind}:{i}", "subset": "Ties", "chosen": texts[:correct], "rejected": texts[correct:]})
  scores = [rewards(dice, len(row["chosen"]) + len(row["rejected"])) for row in rows]
  for row, own in zip(rows, scores, strict=True):
    row |= {"prompt": row["id"], "num_correct": len(row["chosen"])}
    if row["subset"] == "Ties" and dice.random() < 0.6:  # else hardly any is won
      own[: row["num_correct"]] = [value + 2.0 for value in own[: row["num_correct"]]]
    if row["id"] in ("ref:7", "tied:7"):  # no spread, a gap: the margin is infinite
      own[:] = [4.0] * row["num_correct"] + [1.0] * len(row["rejected"])
  return rows, scores


def rm_bench() -> tuple[list[dict], list[list[float]]]:
  dice = random.Random(3)
  domains = {"chat": 5, "math": 7, "code": 6, "safety-refuse": 8, "safety-response": 3}
  rows = [
    {"id": f"{domain}/{i}", "prompt": f"{domain} {i}", "domain": domain}
    | {"chosen": ["a", "aa", "aaa"], "rejected": ["b", "bb", "bbb"]}
    for domain, count in domains.items()
    for i in range(count)
  ]
  return rows, [rewards(dice, 6) for _ in rows]


def processbench() -> tuple[list[dict], list[list[float]]]:
  dice = random.Random(4)
  rows = []
  for split in ("gsm8k", "math", "olympiadbench", "omnimath"):
    for i in range(30):
      steps = [f"step {j}" for j in range(dice.randint(1, 6))]
      label = dice.choice([-1, -1, *range(len(steps))])
      rows.append({"id": f"{split}-{i}", "problem": f"{split} {i}", "steps": steps, "label": label})
  scores = [[dice.random() * (0.6 if j == row["label"] else 1.0) for j in range(len(row["steps"]))] for row in rows]
  return rows, scores


def prmbench() -> tuple[list[dict], list[list[float]]]:
  dice = random.Random(5)
  classes = ("redundency", "circular", "counterfactual", "step_contradiction", "domain_inconsistency", "confidence")
  rows = []
  for kind in (*classes, "missing_condition", "deception", "multi_solutions"):
    for i in range(12):
      steps = [f"{i}: step {j}" for j in range(dice.randint(3, 9))]
      wrong = sorted(dice.sample(range(1, len(steps) + 2), 2)) if kind != "multi_solutions" else []
      rows.append(
        {"idx": f"p{i}", "classification": kind, "modified_process": steps, "error_steps": wrong}
        | {
          "modified_question": f"question {i}",
          "original_question": f"question {i}",
          "original_process": steps,
        }
      )
  rows.append(dict(rows[3]))  # as five published ones are
  scores = [
    [dice.random() * (0.7 if j + 1 in row["error_steps"] else 1.4) for j in range(len(row["modified_process"]))]
    for row in rows
  ]
  return rows, scores


def mr_ben() -> tuple[list[dict], list[list[float]]]:
  dice = random.Random(6)
  rows = []
  for subject in ("college_math", "physics", "chemistry", "biology", "medicine", "logic"):
    for i in range(20):
      steps = [f"Step {j}: text {j}" for j in range(1, dice.randint(3, 7))]
      error = dice.choice([None, *range(1, len(steps) + 1)])
      rows.append(
        {"Question_UUID": f"{subject}{i}", "Subject": subject, "Question": f"{subject} {i}", "Options": ""}
        | {"Model_Solution_Steps": steps, "Model_Solution_Correctness": "incorrect" if error else "correct"}
        | {"Model_Solution_First_Error_Step": str(error or "N/A")}
      )
  return rows, [[dice.random() + 0.2 for _ in row["Model_Solution_Steps"]] for row in rows]
