"""Answers of the sandbox rated by attributes that are known in closed form."""

import random

from reward_modeling import sandbox

WEIGHTS = {"information": 1.0, "politeness": 0.5, "length": -0.1}


def ratings(asked: sandbox.Question, text: str) -> dict[str, float]:
  """information: 4 where a value is stated, else 0. politeness: 4 courteous, 2 neither, 0 rude. length: in words.

  correctness: 4 right, 2 without a value, 0 wrong: it alone needs the prompt.
  """
  said, flaws = sandbox.words_of(text), sandbox.gold(asked, text).flaws
  polite = 0 if "rude" in flaws else 4 if sandbox.COURTESY.intersection(said) else 2
  stated = 0 if "evasive" in flaws else 4
  return {
    **{"information": stated, "politeness": polite, "length": len(said)},
    "correctness": 0 if "wrong" in flaws else 2 + stated / 2,
  }


def rows(
  prompts: int, seed: int, *, split: str = "train", missing: float = 0.0, contrasts: float = 0.5, minimal: float = 0.0
) -> list[dict]:
  """Two answers to each prompt. contrasts: the share of prompts with a right and a wrong one; minimal: of these, that with the same
  words but for the value, as `sandbox.make_comparisons` has them. missing: of ratings that are null.
  """
  rng = random.Random(f"attributes {seed} {split}")
  made = []
  for _ in range(prompts):
    asked = sandbox.make_question(rng, split)
    contrast = rng.random() < contrasts
    flaws = [None, "wrong"] if contrast else rng.sample([None, None, *sandbox.FLAWS], 2)
    alike = contrast and minimal and rng.random() < minimal
    texts = (
      [text for text, _ in sandbox._minimal_pair(asked, rng)]
      if alike
      else [sandbox.answer(asked, flaw, rng) for flaw in flaws]
    )
    for text in texts:
      own = ratings(asked, text)
      given = {name: None if rng.random() < missing else value for name, value in own.items()}
      made.append({"prompt": asked.text, "completion": text, "ratings": given, "true": own})
  return made
