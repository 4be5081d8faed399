"""The two kinds of reward model: what a saved one is, and the fixed texts whose scores prove that it came through saving."""

from dataclasses import dataclass
from typing import Any

from .base_rendering import content_rule
from .data.records import Message
from .hf import Tokenizer
from .rendering import Renderer
from .step_rendering import StepRenderer, default_separator


def _turns(*texts: str) -> list[Message]:
  return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


# Fixed for good: a card written today must be checkable by every later version.
GOLDEN_CONVERSATIONS = (
  _turns("Name the capital of France.", "Paris."),
  _turns("Name the capital of France.", "I would rather talk about boats."),
  _turns("What is 6 times 7?", "42.", "And 6 times 8? Show the step.", "6 * 8 = 6 * 7 + 6 = 42 + 6 = 48."),
  _turns("Say it again.", "again again again again again again again again"),
)


@dataclass(frozen=True)
class Kind:
  """called, scores: for messages. architecture: how the names of its classes end. task_type: PEFT's. labels: `id2label` of a model saved here. front:
  front matter of its page on the hub."""

  name: str
  called: str
  scores: str
  architecture: str
  task_type: str
  labels: dict[int, str]
  problem_type: str | None
  script: str
  golden: tuple[dict[str, Any], ...]
  renders: type[Renderer] | type[StepRenderer]
  front: tuple[str, ...]
  readme: str

  @property
  def wanted(self) -> str:
    return f"give {self.called} ({self.script} makes one), or data and flags of the other kind"

  @property
  def label2id(self) -> dict[str, int]:
    return {label: number for number, label in self.labels.items()}

  @property
  def auto_class(self) -> Any:
    import transformers

    return getattr(transformers, f"AutoModel{self.architecture}")

  def renderer(self, tokenizer: Tokenizer, scored_at: str, rendering: dict[str, Any]) -> Any:
    """By the `rendering` of a card, without a limit of length."""
    rules = {"scored_at": scored_at, "special_tokens_in_content": content_rule(rendering)}
    if self.renders is StepRenderer:
      rules["step_separator"] = rendering.get("step_separator") or default_separator(tokenizer)
    return self.renders(tokenizer, max_length=None, text_format=rendering.get("text_format") or "chat", **rules)


OUTCOME = Kind(
  name="outcome",
  called="an outcome reward model",
  scores="whole answers",
  architecture="ForSequenceClassification",
  task_type="SEQ_CLS",
  labels={0: "REWARD"},
  problem_type="regression",
  script="train.py",
  golden=tuple({"messages": messages} for messages in GOLDEN_CONVERSATIONS),
  renders=Renderer,
  front=("pipeline_tag: text-classification", "tags: [reward-model, bradley-terry]"),
  readme="""# Reward model

Scores an answer in the context of its conversation: one raw number, higher is better, comparable within a prompt only.

```python
from transformers import pipeline

pipe = pipeline("text-classification", model="PATH_OR_ID")
messages = [{{"role": "user", "content": "What is 2 + 2?"}}, {{"role": "assistant", "content": "4."}}]
text = pipe.tokenizer.apply_chat_template(messages, tokenize=False)
print(pipe(text, add_special_tokens=False)[0]["score"])
```

Render with this folder's chat template, add no special tokens, pad on the right, and stop at {max_length} tokens as in
training.
""",
)

PROCESS = Kind(
  name="process",
  called="a process reward model",
  scores="steps",
  architecture="ForTokenClassification",
  task_type="TOKEN_CLS",
  labels={0: "INCORRECT", 1: "CORRECT"},
  problem_type=None,
  script="train_process.py",
  golden=tuple(
    {"prompt": _turns(*prompt), "steps": steps}
    for prompt, steps in (
      (["What is 2 + 3 + 4?"], ["2 + 3 = 5.", "5 + 4 = 9.", "The answer is 9."]),
      (["What is 2 + 3 + 4?"], ["2 + 3 = 6.", "6 + 4 = 10.", "The answer is 10."]),
      (["Is 7 prime?", "Yes.", "And 9?"], ["9 = 3 * 3, so it is not prime."]),
    )
  ),
  renders=StepRenderer,
  front=("pipeline_tag: token-classification", "tags: [reward-model, process-reward-model]"),
  readme="""# Process reward model

Scores each step of a solution: the probability that the step is correct, read at the last token of the separator
{step_separator!r} after it.

```python
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

model = AutoModelForTokenClassification.from_pretrained("PATH_OR_ID").eval()
tokenizer = AutoTokenizer.from_pretrained("PATH_OR_ID")
prompt = [{{"role": "user", "content": "What is 2 + 3 + 4?"}}]
steps = ["2 + 3 = 5.", "5 + 4 = 9."]
ids = tokenizer(tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True), add_special_tokens=False)["input_ids"]
for step in steps:
    ids += tokenizer(step, add_special_tokens=False)["input_ids"] + {separator_ids}
    print(model(torch.tensor([ids])).logits[0, -1].softmax(-1)[1].item())
```

A decoder gives the same numbers in one pass. Prompt, steps and separator are tokenized one by one, at most {max_length} tokens
as in training.
""",
)

KINDS = {kind.name: kind for kind in (OUTCOME, PROCESS)}


def kind_of_architecture(architecture: str) -> Kind | None:
  return next((kind for kind in KINDS.values() if architecture.endswith(kind.architecture)), None)
