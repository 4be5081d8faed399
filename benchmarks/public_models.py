"""Do public reward models get the numbers of their cards, and tiny ones those of their authors' code?

    uv run benchmarks/public_models.py                                             # what there is to check
    uv run benchmarks/public_models.py --models Skywork/Skywork-Reward-V2-Qwen3-0.6B llm-blender/PairRM-hf   # needs a hub
    uv run benchmarks/public_models.py --models Qwen/Qwen2.5-Math-PRM-7B --folders /models --dtype bfloat16  # or folders
    uv run benchmarks/public_models.py --make_checkpoints /tmp/tiny                # then benchmarks/public_routes.py
    uv run benchmarks/public_models.py --compare routes.json --checkpoints /tmp/tiny

A printed number of a bf16 or fp16 run lies on a grid of its precision, so it is met within `tolerance`. The exit code is 1
where one is not. What was run, and where, is in benchmarks/public_models.md.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "tests"), str(Path(__file__).parent)]

JANE = (
  "Jane has 12 apples. She gives 4 apples to her friend Mark, then buys 1 more apple, and finally splits all her apples "
  "equally among herself and her 2 siblings. How many apples does each person get?"
)
_FIRST = (
  "1. Jane starts with 12 apples and gives 4 to Mark. 12 - 4 = 8. Jane now has 8 apples.\n2. Jane buys 1 more apple. "
  "8 + 1 = 9. Jane now has 9 apples.\n3. Jane splits the 9 apples equally among "
)
JANES = [
  _FIRST + "herself and her 2 siblings (3 people in total). 9 ÷ 3 = 3 apples each. Each person gets 3 apples.",
  _FIRST + "her 2 siblings (2 people in total). 9 ÷ 2 = 4.5 apples each. Each person gets 4 apples.",
]
FLAMINGOS = (
  "Sue lives in a fun neighborhood.  One weekend, the neighbors decided to play a prank on Sue.  On Friday morning, the "
  "neighbors placed 18 pink plastic flamingos out on Sue's front yard.  On Saturday morning, the neighbors took back one "
  "third of the flamingos, painted them white, and put these newly painted white flamingos back out on Sue's front yard.  "
  "Then, on Sunday morning, they added another 18 pink plastic flamingos to the collection. At noon on Sunday, how many "
  "more pink plastic flamingos were out than white plastic flamingos?"
)
STEPS = [
  "To find out how many more pink plastic flamingos were out than white plastic flamingos at noon on Sunday, we can break "
  "down the problem into steps. First, on Friday, the neighbors start with 18 pink plastic flamingos.",
  "On Saturday, they take back one third of the flamingos. Since there were 18 flamingos, (1/3 \\times 18 = 6) flamingos "
  "are taken back. So, they have (18 - 6 = 12) flamingos left in their possession. Then, they paint these 6 flamingos "
  "white and put them back out on Sue's front yard. Now, Sue has the original 12 pink flamingos plus the 6 new white ones. "
  "Thus, by the end of Saturday, Sue has (12 + 6 = 18) pink flamingos and 6 white flamingos.",
  "On Sunday, the neighbors add another 18 pink plastic flamingos to Sue's front yard. By the end of Sunday morning, Sue "
  "has (18 + 18 = 36) pink flamingos and still 6 white flamingos.",
  "To find the difference, subtract the number of white flamingos from the number of pink flamingos: (36 - 6 = 30). "
  "Therefore, at noon on Sunday, there were 30 more pink plastic flamingos out than white plastic flamingos. The answer is "
  "(\\boxed{30}).",
]

MINIMUM = (
  "Let $x,$ $y,$ and $z$ be positive real numbers such that $xyz(x + y + z) = 1.$  Find the minimum value "
  "of\n\\[(x + y)(y + z).\\]"
)
PROOF = [
  (
    "1. The problem asks us to find the minimum value of $(x + y)(y + z)$ given that $x,$ $y,$ and $z$ are "
    "positive real numbers and $xyz(x + y + z) = 1$."
  ),
  "2. By the AM-GM inequality, we have $x + y + z \\geq 3\\sqrt[3]{xyz}$.",
  (
    "3. By the given condition $xyz(x + y + z) = 1$, we can substitute $x + y + z$ with $\\sqrt[3]{xyz}$ in "
    "the inequality from step 2 to get $3\\sqrt[3]{xyz} \\geq 3$."
  ),
  "4. Simplifying the inequality from step 3 gives $\\sqrt[3]{xyz} \\geq 1$.",
  "5. By raising both sides of the inequality from step 4 to the power of 3, we have $xyz \\geq 1$.",
  "6. By the AM-GM inequality, we have $(x + y)(y + z) \\geq 2\\sqrt{(x + y)(y + z)}$.",
  (
    "7. By the given condition $xyz(x + y + z) = 1$, we can substitute $(x + y)(y + z)$ with $\\frac{1}{xyz}$ "
    "in the inequality from step 6 to get $2\\sqrt{(x + y)(y + z)} \\geq 2\\sqrt{\\frac{1}{xyz}}$."
  ),
  "8. Simplifying the inequality from step 7 gives $(x + y)(y + z) \\geq \\frac{2}{\\sqrt{xyz}}$.",
  "9. By the condition $xyz \\geq 1$ from step 5, we have $\\frac{2}{\\sqrt{xyz}} \\geq \\frac{2}{\\sqrt{1}} = 2$.",
  "10. Therefore, the minimum value of $(x + y)(y + z)$ is $\\boxed{2}$.",
]


@dataclass(frozen=True)
class Printed:
  """What a card or a public test prints. answers: each has a score, or, as one list of steps, each step."""

  prompt: str
  answers: list[str] | list[list[str]]
  scores: list[float]
  tolerance: float
  source: str
  reference: str | None = None


PRINTED: dict[str, Printed] = {
  "Skywork/Skywork-Reward-V2-Qwen3-0.6B": Printed(
    "What is the capital of France?",
    ["The capital of Brazil is Brasilia.", "The capital of France is Paris."],
    [-5.25, 2.6719],
    0.2,
    "bf16, NVIDIA-NeMo/RL 7ea279a test_reward_model_environment.py",
  ),
  "Skywork/Skywork-Reward-V2-Llama-3.1-8B": Printed(
    JANE, JANES, [23.0, 3.59375], 0.25, "bf16, SkyworkAI/Skywork-Reward-V2 4f380f4 README"
  ),
  "Skywork/Skywork-Reward-Gemma-2-27B": Printed(
    JANE, JANES, [9.1875, -17.875], 0.25, "bf16, SkyworkAI/Skywork-Reward 03c205f README"
  ),
  "Skywork/Skywork-Reward-Llama-3.1-8B-v0.2": Printed(
    JANE, JANES[:1], [13.8125], 0.2, "bf16, ms-swift 3602360 test_llm.py (jinja; 14.25 by its own template)"
  ),
  "internlm/internlm2-1_8b-reward": Printed(
    "Hello! What's your name?",
    ["My name is InternLM2! A helpful AI assistant. What can I do for you?"],
    [0.48681640625],
    0.01,
    "fp16, ms-swift 3602360 test_llm.py",
  ),
  "internlm/internlm2-20b-reward": Printed(
    "Hello! What's your name?",
    ["My name is InternLM2! A helpful AI assistant. What can I do for you?", "I have no idea."],
    [0.767578125, -2.22265625],
    0.02,
    "fp16, InternLM d4d1d93 model_cards/internlm2_reward.md",
  ),
  "Qwen/WorldPM-72B": Printed(
    "Tips for better sleep?",
    [
      "Three key tips for better sleep:\n1. Set a consistent bedtime and wake-up schedule\n2. Avoid screens 1 hour before "
      "bed\n3. Keep your bedroom cool and dark\n\nStart with these habits and you should notice improvement within a week.",
      "just try sleeping earlier or take some pills if u cant sleep lol. maybe watch tv until u get tired idk",
    ],
    [0.6298332214355469, -1.6425328254699707],
    0.03,
    "bf16, QwenLM/WorldPM c9b9b8c README",
  ),
  "PKU-Alignment/beaver-7b-v1.0-reward": Printed(
    "hello", ["Hello! How can I help you today?"], [-11.4375], 0.1, "bf16, its card"
  ),
  "LxzGordon/URM-LLaMa-3.1-8B": Printed(
    "What is the range of the numeric output of a sigmoid node in a neural network?",
    [
      "The output of a sigmoid node is bounded between -1 and 1.",
      "The output of a sigmoid node is bounded between 0 and 1.",
    ],
    [2.3285412788391113, 12.438033103942871],
    0.05,
    "fp32, its card",
  ),
  "Qwen/Qwen2.5-Math-PRM-7B": Printed(FLAMINGOS, [STEPS], [1.0, 0.1904296875, 0.9765625, 1.0], 0.02, "bf16, its card"),
  "Qwen/Qwen2.5-Math-7B-PRM800K": Printed(
    FLAMINGOS, [STEPS], [0.9921875, 0.2490234375, 0.70703125, 0.9375], 0.02, "bf16, ms-swift 3602360 test_llm.py"
  ),
  "GAIR/ReasonEval-7B": Printed(
    MINIMUM,
    [PROOF],
    [0.9492, 0.7863, 0.2520, 0.7860, 0.9125, 0.5916, 0.4494, 0.8189, 0.8240, 0.2671],
    0.002,
    "fp32, GAIR-NLP/ReasonEval 6c91c7a codes/examples.py",
  ),
  "internlm/POLAR-7B": Printed(
    "What is the capital of China?",
    ["Beijing.", "Shanghai."],
    [-0.5702977776527405, -11.030370712280273],
    0.1,
    "InternLM/POLAR 80626f3 README",
    reference="Beijing.",
  ),
  "llm-blender/PairRM-hf": Printed(
    "hello!",
    ["hi!", "f**k off!"],
    [1.9003021717071533],
    0.01,
    "fp32, LLM-Blender 2a67366 README (one order: A before B)",
  ),
}
"""Id -> what its authors or a peer print. Of PairRM the score is the logit of one order."""


def scored(folder: str, printed: Printed, dtype: str) -> list[float]:
  from reward_modeling import ProcessRewardModel, RewardModel, checkpoints, readers
  from reward_modeling.pairwise import PairwiseModel
  from reward_modeling.rendering import Conversation

  if checkpoints.kind_of(folder) is checkpoints.PROCESS:
    model = ProcessRewardModel.from_pretrained(folder, dtype=dtype)
    return model.score_steps([printed.prompt], printed.answers)[0]
  if (family := readers.recognize_family(folder)) and family.compares:
    model = PairwiseModel.from_pretrained(folder, dtype=dtype)
    answers = [{"role": "assistant", "content": answer} for answer in printed.answers]
    ((_, own),) = model._scored([Conversation([{"role": "user", "content": printed.prompt}], answers)], None)
    return own
  said = {"role": "assistant", "reference": printed.reference}
  answers = [[said | {"content": answer}] for answer in printed.answers]
  return RewardModel.from_pretrained(folder, dtype=dtype).score([printed.prompt], [answers])[0]


def check(models: list[str], folders: Path | None, dtype: str) -> bool:
  """Whether every model gives what is printed. Prints a line a model."""
  met = True
  for name in models:
    printed = PRINTED[name]
    found = scored(str(folders / name) if folders else name, printed, dtype)
    worst = max(abs(a - b) for a, b in zip(found, printed.scores, strict=True))
    met &= worst <= printed.tolerance
    print(
      f"{name}: {[round(one, 4) for one in found]}, printed {printed.scores} ({printed.source}); differs by {worst:.3g}"
    )
  return met


def make_checkpoints(folder: Path) -> None:
  import public_outcome_routes
  from public_models import EXAMPLES, deberta_pair
  from public_process_models import MODELS

  for seed, (name, make) in enumerate(MODELS.items()):
    make(folder / name.replace("/", "--"), seed)
  for name in public_outcome_routes.NAMES:
    pair = name == "deberta-pair" and deberta_pair(folder / name / "reward-model-deberta-v3-large-v2")
    path = pair or EXAMPLES[name].write(folder / name)[0]
    for file, own in (
      ("config.json", public_outcome_routes.FIELDS.get(name, {})),
      (
        "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast"},
      ),  # of the transformers of that time
    ):
      fields = json.loads((path / file).read_text()) | own
      if isinstance(fields.get("extra_special_tokens"), list):
        fields["additional_special_tokens"] = fields.pop("extra_special_tokens")
      (path / file).write_text(json.dumps(fields))


def compare(routes: Path, checkpoints: Path) -> bool:
  """Whether tiny checkpoints get here what their authors' code gave them (`public_routes.py`), within 1e-5 (of what is larger than 1, its 1e-5th)."""
  import shutil

  import public_outcome_routes
  from public_routes_inputs import ANSWERS, REFERENCE, SOLUTIONS

  from reward_modeling import ProcessRewardModel, RewardModel, readers
  from reward_modeling.pairwise import PairwiseModel

  reference, met = str(checkpoints / "Qwen--Qwen2.5-Math-7B-Instruct"), True
  for name, wanted in json.loads(routes.read_text()).items():
    folder = checkpoints / name.replace("/", "--")
    if same := {"DPO": "PRIME-RL/EurusPRM-Stage2", "TRL": "HuggingFaceH4/Qwen2.5-Math-1.5B-Instruct-PRM-0.2"}.get(name):
      # the same weights, under a name that says nothing
      shutil.copytree(checkpoints / same.replace("/", "--"), folder, dirs_exist_ok=True)
    if name in public_outcome_routes.NAMES:
      model = RewardModel.from_pretrained(str(next(folder.iterdir())), device="cpu")
      said = {"role": "assistant", "reference": REFERENCE}
      found = [model.score([question], [[said | {"content": one}]])[0] for question, *both in ANSWERS for one in both]
    elif name == "DPO":
      model = RewardModel.from_pretrained(str(folder), device="cpu", reference_model_name_or_path=reference)
      found = [reward for question, *answers in ANSWERS for reward in model.score([question], [answers])[0]]
    elif (family := readers.recognize_family(str(folder))) and family.compares:
      model, found = PairwiseModel.from_pretrained(str(folder), device="cpu"), []
      for question, *answers in ANSWERS:
        first, second = model.score([question], [answers])[0]
        found.append(first - second)
      if isinstance(wanted[0], list):  # logits of both orders
        wanted = [(a[0] - b[0]) / 2 for a, b in zip(wanted[::2], wanted[1::2], strict=True)]
      else:
        wanted = [math.log(p / (1 - p)) for p in wanted]
    else:
      needs = {"reference_model_name_or_path": reference} if "Eurus" in name else {}
      model = ProcessRewardModel.from_pretrained(str(folder), device="cpu", **needs)
      steps = model.score_steps([question for question, _ in SOLUTIONS], [own for _, own in SOLUTIONS])
      found, wanted = [*chain(*steps)], [*chain(*wanted)]
    worst = max(abs(a - b) / max(1, abs(b)) for a, b in zip(found, wanted, strict=True))
    met &= worst <= 1e-5
    print(f"{name}: {len(found)} scores, differ by {worst:.1e}")
  return met


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--models", nargs="+", choices=PRINTED, metavar="ID")
  parser.add_argument("--folders", type=Path, help="where ID lies as a folder (the hub)")
  parser.add_argument("--dtype", default="bfloat16", help="of the trunk (bfloat16, as most numbers were made)")
  parser.add_argument("--make_checkpoints", type=Path, metavar="FOLDER")
  parser.add_argument("--compare", type=Path, metavar="ROUTES")
  parser.add_argument("--checkpoints", type=Path, metavar="FOLDER")
  args = parser.parse_args()
  if args.make_checkpoints:
    make_checkpoints(args.make_checkpoints)
  elif args.compare:
    return not compare(args.compare, args.checkpoints)
  elif args.models:
    return not check(args.models, args.folders, args.dtype)
  else:
    for name, one in PRINTED.items():
      print(f"{name}: {one.scores} ({one.source})")
  return 0


if __name__ == "__main__":
  sys.exit(main())
