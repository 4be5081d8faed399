"""The texts that `public_routes.py` scores by the code of others, and `public_models.py --compare` by ours."""

SOLUTIONS = [
  ("What is the sum of two and three and four?", ["First add two and three.", "Then add four: 9."]),
  ("What is 2 + 3?", ["Step 1: add.", "Step 2: the answer is five.", "So 5."]),
  ("Four and four?", ["Eight"]),
]
ANSWERS = [
  ("What is the sum of two and three?", "The sum is five.", "It is four, or the answer is here."),
  ("hello!", "hi!", "no"),
]
REFERENCE = "Two and three make five."
