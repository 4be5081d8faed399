"""Step labels from rollouts: a policy finishes each prefix of a solution some times, a checker says which ends are right."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .checkers import CHECKERS, Checker
from .cli import check_required, escaped, flag, positive_number
from .data.reading import load
from .data.records import Ranking, Solution, to_score
from .data.writing import to_row
from .errors import DataError, RunError, UsageError
from .outputs import check_output_file, write_whole
from .process import steps_in
from .rendering import conversations_of
from .results import Result, to_json
from .settings import FormatSettings, SamplingSettings, split_flag
from .terminal import listed, log, progress, warn
from .training.settings import template_flag

if TYPE_CHECKING:
  from .training.policy import Policy

WINDOW_ROWS = 32
"""Solutions whose prefixes are finished together, and kept together when the run is killed."""
UNDECIDED = ("unfinished", "overlong", "without_answer", "checker_errors", "checker_timeouts")
MANY_UNDECIDED = 0.1


@dataclass(frozen=True, kw_only=True)
class RolloutSettings(SamplingSettings, FormatSettings):
  group: ClassVar = "rollouts"
  model_name_or_path: str = flag(None, "policy that finishes the solutions: a folder or hub id", metavar="POLICY")
  chat_template_path: str | None = template_flag()
  device: str | None = flag(None, "cpu, cuda, cuda:1, mps (the best there is)", metavar="DEVICE")
  input: Sequence[str] = flag(
    None, "files, folders or hub ids with prompt and steps, or completions", group="data", metavar="DATA"
  )
  dataset_split: str | None = split_flag(None)
  step_separator: str = flag("\n", "where texts are split, and what follows each step", type=escaped, group="data")
  output: str | None = flag(None, "JSONL file for the labeled solutions", metavar="FILE")
  overwrite: bool = flag(False, "replace --output if it exists")
  num_rollouts: int = flag(8, "completions of each prefix")
  search: str = flag("all", "label all steps, or look for the first error", choices=("all", "binary"))
  labels: str | None = flag(
    None, "the share of right completions, or whether any is (soft; of a binary search hard)", choices=("soft", "hard")
  )
  label_after_error: bool = flag(
    False,
    "label the steps after the first error too, as lost as it is (they have no label, as where people label steps)",
  )
  batch_size: int = flag(64, "completions written together")
  checker: str = flag(
    "answer", "answer (the same text or number), math_verify, or a function (solution, row) FILE:NAME", metavar="NAME"
  )
  reference_column: str = flag("answer", "column with the right answer, or a solution that states it", metavar="NAME")
  answer_pattern: str | None = flag(
    None, r"whose group is the final answer (\boxed{}, ####, A:, the answer is)", metavar="REGEX"
  )
  checker_seconds: float = flag(10.0, "longest check", type=positive_number)
  dry_run: bool = flag(False, "check the solutions as they are, say what the rollouts would cost, and stop")

  def __post_init__(self) -> None:
    check_required(self, ("model_name_or_path", "input", *["output"] * (not self.dry_run)), "label_steps.py")
    if self.search == "binary" and (self.labels == "soft" or self.label_after_error):
      flag_ = "--labels soft" if self.labels == "soft" else "--label_after_error"
      raise UsageError("--search binary finds the first error: its labels are hard", hint=f"leave out {flag_}")


@dataclass(frozen=True, kw_only=True)
class RolloutLabels(Result):
  model: str
  solutions: int
  steps: int
  right: int
  """Solutions whose own final answer is right."""
  wrong: int
  undecided: int
  rollouts_at_most: int
  tokens_at_most: int
  output: str | None = None
  dropped: int | None = None
  """Solutions without any label."""
  labeled_steps: int | None = None
  rollouts: int | None = None
  rollouts_right: int | None = None
  rollouts_undecided: dict[str, int] | None = None
  """By the reason; they count for no label. `overlong`: the prefix leaves no room for --max_new_tokens."""
  tokens: int | None = None


@dataclass
class Labeled:
  """A solution. first: the number of its first step among all. rollouts: [right, decided] after each step, or None."""

  ranking: Ranking
  id: str | int | None
  steps: list[str]
  first: int
  rollouts: list[list[int] | None]

  @property
  def row(self) -> dict[str, Any]:
    return {"prompt": self.ranking.prompt, **self.ranking.metadata}

  def span(self) -> tuple[int, int]:
    """The last number of steps with a right end, and the first after it with none: what a binary search has left."""
    known = [(k, own) for k, own in enumerate(self.rollouts, 1) if own]
    good = max((k for k, (right, _) in known if right), default=0)
    bad = (k for k, (right, decided) in known if k > good and decided and not right)
    return good, next(bad, len(self.steps) + 1)

  def wanted(self, search: str) -> list[int]:
    """After how many steps rollouts are needed; of a binary search those of the next round."""
    places = range(1, len(self.steps) + 1)
    if search == "binary":
      good, bad = self.span()
      places = places[-1:] if None in self.rollouts[-1:] else [(good + bad) // 2] * (bad > good + 1)
    return [k for k in places if self.rollouts[k - 1] is None]

  def at_most(self, search: str) -> int:
    """How many prefixes may need rollouts."""
    if search == "all" or not self.steps:
      return self.rollouts.count(None)
    unknown = self.rollouts[-1] is None
    return 0 if self.rollouts[-1] == [1, 1] else (len(self.steps) - 1 + unknown).bit_length() + unknown

  def labels(self, settings: RolloutSettings) -> list[float | None]:
    (good, bad), n = self.span(), len(self.steps)
    if settings.search == "binary":
      error = bad == good + 1 <= n
      return [1.0] * good + [0.0] * error + [None] * (n - good - error)
    soft, last = settings.labels != "hard", n if settings.label_after_error else bad
    counts = [own or (0, 0) for own in self.rollouts[:last]]
    labels = [(right / decided if soft else float(right > 0)) if decided else None for right, decided in counts]
    return labels + [None] * (n - len(labels))


def read_solutions(settings: RolloutSettings) -> list[Labeled]:
  """Every completion is one. Raises DataError for a row without the reference that its checker needs."""
  records = load(settings.input, split=settings.dataset_split, neutral="ignore", **settings.reading)
  found, first = [], 0
  for row in to_score(records, steps=True).rows:
    if settings.checker in CHECKERS and row.metadata.get(settings.reference_column) is None:
      hint = f"name it with --reference_column; there are {', '.join(row.metadata) or 'no other columns'}"
      raise DataError(f"no right answer in a column {settings.reference_column}", where=row.origin, hint=hint)
    for place, one in enumerate(conversations_of([row])):
      steps = steps_in(one, settings.step_separator)
      own = f"{row.id}:{place}" if row.id is not None and len(row.completions) > 1 else row.id
      found.append(Labeled(row, own, steps, first, [None] * len(steps)))
      first += len(steps)
  log(f"{len(found)} solutions of format {records.format}")
  return found


def label_steps(settings: RolloutSettings) -> RolloutLabels:
  from .training.policy import Policy
  from .training.prompts import MAX_NEW_TOKENS, new_tokens

  output = None if settings.dry_run else check_output_file(settings.output, settings.overwrite, settings.input)
  solutions, path = read_solutions(settings), settings.model_name_or_path
  check = (settings.checker, settings.reference_column, settings.answer_pattern)
  with Checker(*check, seconds=settings.checker_seconds) as checker:
    policy = Policy.from_pretrained(path, chat_template_path=settings.chat_template_path, device=settings.device)
    longest = new_tokens(policy, settings.max_new_tokens, MAX_NEW_TOKENS, "--max_new_tokens")
    run = Rollouts(settings, policy, checker, longest, solutions)
    plan = run.plan()
    log(f"the solutions themselves, and what the rollouts may cost: {listed(plan)}")
    return run.labeled(output, plan) if output else RolloutLabels(model=path, **plan)


class Rollouts:
  """Each has random numbers of its own: more of them only add to fewer, whatever else is computed with them."""

  def __init__(
    self, settings: RolloutSettings, policy: Policy, checker: Checker, longest: int, solutions: list[Labeled]
  ):
    self.settings, self.policy, self.checker, self.longest = settings, policy, checker, longest
    self.solutions, self.steps, self.counts = solutions, sum(len(one.steps) for one in solutions), Counter()

  def plan(self) -> dict[str, int]:
    """A whole solution is checked as it is: without rollouts, unless its answer cannot be told."""
    verdicts = Counter()
    for one in self.solutions:
      text = self.settings.step_separator.join(one.steps)
      right = self.checker(text, one.row)[0] if text else None
      verdicts[right] += 1
      if right is not None:
        one.rollouts[-1] = [int(right), 1]
    most = self.settings.num_rollouts * sum(one.at_most(self.settings.search) for one in self.solutions)
    verdicts = {"right": verdicts[True], "wrong": verdicts[False], "undecided": verdicts[None]}
    most = {"rollouts_at_most": most, "tokens_at_most": most * self.longest}
    return {"solutions": len(self.solutions), "steps": self.steps, **verdicts, **most}

  def labeled(self, output: Path, plan: dict[str, int]) -> RolloutLabels:
    """Roll out, write, and delete the journal. Raises RunError where no rollout was decided."""
    asked = {
      key: value
      for key, value in vars(self.settings).items()
      if key not in ("overwrite", "labels", "label_after_error")
    }
    identity = to_json([asked, [(one.row, one.steps) for one in self.solutions]])
    journal = Path(f"{output}.{hashlib.sha256(identity.encode()).hexdigest()[:8]}.rollouts")
    counts = self._all(journal)
    undecided = {name: counts[name] for name in UNDECIDED if counts[name]}
    lost, asked = sum(undecided.values()), counts["rollouts"] + counts["overlong"]
    labels = [one.labels(self.settings) for one in self.solutions]
    told = f"{lost} of {asked} rollouts are undecided ({listed(undecided)})"
    rows = [
      Solution(row.prompt, one.steps, own, id=one.id, metadata={**row.metadata, "rollouts": one.rollouts})
      for one, own in zip(self.solutions, labels, strict=True)
      if (row := one.ranking) and own.count(None) < len(own)
    ]
    if not rows or lost == asked > 0:
      journal.unlink()
      hint = "look at some answers (score.py --generate_with), --max_new_tokens and --answer_pattern"
      raise RunError(f"no step can be labeled by rollouts: {told}", hint=hint)
    if lost > MANY_UNDECIDED * asked:
      warn(f"{told}: they count for no label")
    if dropped := len(labels) - len(rows):
      warn(f"left out {dropped} of {len(labels)} solutions, of which no step could be labeled")
    log(f"wrote {write_whole(output, map(to_json, map(to_row, rows)))} labeled solutions to {output}")
    journal.unlink()
    return RolloutLabels(
      model=self.settings.model_name_or_path,
      **plan,
      output=str(output),
      dropped=dropped,
      labeled_steps=sum(label is not None for own in labels for label in own),
      rollouts_undecided=undecided,
      **{name: counts[name] for name in ("rollouts", "rollouts_right", "tokens")},
    )

  def _all(self, journal: Path) -> Counter[str]:
    """What the journal of a killed run does not hold. Its last line may be torn. All runs have the same windows and batches."""
    held, total, n = journal.read_text("utf-8") if journal.exists() else "", Counter(), len(self.solutions)
    held = held[: held.rfind("\n") + 1]
    kept = [json.loads(line) for line in held.splitlines()]
    if kept:
      log(f"{journal} holds {min(len(kept) * WINDOW_ROWS, n)} of {n} solutions")
    windows = [self.solutions[start : start + WINDOW_ROWS] for start in range(0, n, WINDOW_ROWS)]
    with journal.open("w", encoding="utf-8") as file, progress("rollouts", n) as advance:
      file.write(held)
      for part, (known, counts) in zip_longest(windows, kept, fillvalue=((), {})):
        self.counts = Counter(counts)
        for one, own in zip(part, known, strict=False):
          one.rollouts = own
        while wanted := [(one, k) for one in part for k in one.wanted(self.settings.search)]:
          self._roll_out(wanted)
        if not known:
          file.write(to_json([[one.rollouts for one in part], self.counts]) + "\n")
        file.flush()
        total.update(self.counts)
        advance(len(part))
    return total

  def _roll_out(self, wanted: Sequence[tuple[Labeled, int]]) -> None:
    from .training.policy import sample

    n, context, asked = self.settings.num_rollouts, self.policy.context, []
    for one, k in wanted:
      ids = prefix_ids(self.policy, one, k, self.settings.step_separator)
      fits = context is None or len(ids) + self.longest <= context
      self.counts["overlong"] += 0 if fits else n
      one.rollouts[k - 1] = [0, 0]
      asked += [(one, k, ids, i) for i in range(n)] * fits
    answers = sample(
      self.policy,
      [ids for _, _, ids, _ in asked],
      max_new_tokens=self.longest,
      temperature=self.settings.temperature,
      seed=self.settings.seed,
      numbers=[i * self.steps + one.first + k - 1 for one, k, _, i in asked],
      batch_size=self.settings.batch_size,
    )
    for (one, k, _, _), ids in zip(asked, answers, strict=True):
      right, why = None, "unfinished"
      if self.policy.finished(ids):
        before = "".join(step + self.settings.step_separator for step in one.steps[:k])
        said = self.policy.tokenizer.decode(ids[:-1], skip_special_tokens=True)
        right, why = self.checker(before + said, one.row)
      one.rollouts[k - 1][0] += right is True
      one.rollouts[k - 1][1] += right is not None
      self.counts.update({"rollouts": 1, "tokens": len(ids), "rollouts_right": int(right is True), why: 1})


def prefix_ids(policy: Policy, one: Labeled, k: int, separator: str) -> list[int]:
  """The prompt, then k steps as the start of the answer; special tokens in them are text."""
  renderer, special, row = policy.renderer, policy.renderer.special, one.ranking
  text = policy.gap + "".join(step + separator for step in one.steps[:k])
  return renderer.prompt_ids(row.prompt, where=row.origin) + special.ids(special.marked(text))
