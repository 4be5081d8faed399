"""Implicit process rewards: a language model learns which answers are right, and its log-ratio to its start scores every step.

r = beta * log(pi(y | x) / pi_start(y | x)); cross-entropy of sigmoid(r) with the label (arXiv:2412.01981, equation 5).
An answer is a solution whose last step alone has a label.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .. import checkpoints
from ..attention import language_logits, shared_prefix
from ..data.records import Records, Solution, to_score
from ..errors import DataError, UsageError
from ..evaluation.steps import StepEvaluation, choose_threshold, evaluate_steps, labeled_steps
from ..golden import check_golden
from ..heads import unwrapped
from ..hf import Arguments, Model, Tokenizer
from ..implicit import LogRatio, LogRatioRenderer, golden_ratios
from ..output_folder import staged
from ..packing import right_padded
from ..process import ProcessRewardModel, steps_in
from ..rendering import conversations_of
from ..step_rendering import STEP_SEPARATOR, default_separator
from . import loop
from .data import Data, Rows, read_data
from .policy import Policy
from .process import IGNORED, ProcessTrainer, StepCollator
from .results import RewardStatistics
from .settings import DataSettings, Settings
from .steps import StepLabels


class AnswerCollator(StepCollator):
  """Of S answers of at most K tokens: `ends` [S, K], where each token is predicted, `targets` [S, K] the tokens, IGNORED after
  an answer's last, and `labels` [S, 2], of which the second counts.
  """

  @staticmethod
  def flat(rows: list[dict[str, list]]) -> tuple[list[list[int]], Tensor, dict[str, Tensor]]:
    sequences = [row["input_ids"] for row in rows]
    tokens = [torch.tensor(row["input_ids"][row["start"] + 1 :]) for row in rows]
    targets = pad_sequence(tokens, batch_first=True, padding_value=int(IGNORED))
    starts, places = torch.tensor([row["start"] for row in rows]), torch.arange(targets.shape[1])
    ends = (starts[:, None] + places) * (targets != IGNORED)
    labels = torch.tensor([[IGNORED, *row["labels"]] for row in rows])  # transformers counts those after the first
    return sequences, ends, {"targets": targets, "labels": labels}

  def __call__(self, rows: list[dict[str, list]]) -> dict[str, Tensor]:
    sequences, ends, rest = self.flat(rows)
    ids, mask = right_padded(sequences, self.pad_token_id)
    return {"input_ids": ids, "attention_mask": mask, "ends": ends, **rest}


def answer_log_probs(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
  """[S] sums over the tokens of each answer of a batch of `AnswerCollator`, padded or packed."""
  own = {name: part for name, part in inputs.items() if name not in ("ends", "targets", "labels")}
  ends, targets, written = inputs["ends"], inputs["targets"], inputs["targets"] != IGNORED
  # The one packed row, or each its own.
  rows = torch.arange(len(own["input_ids"]), device=ends.device)[:, None].expand_as(ends)
  logits, _ = language_logits(model, own, rows[written], ends[written])
  tokens = -F.cross_entropy(logits, targets[written], reduction="none")
  return tokens.new_zeros(ends.shape).masked_scatter(written, tokens).sum(1)


class ImplicitTrainer(ProcessTrainer):
  def __init__(self, *, ratio: LogRatio, **kwargs: object):
    super().__init__(**kwargs)
    self.ratio, self.compute_metrics = ratio, None

  def compute_loss(
    self,
    model: nn.Module,
    inputs: dict[str, Tensor],
    return_outputs: bool = False,
    num_items_in_batch: Tensor | int | None = None,
  ):
    start, labels = self.ratio.reference, inputs["labels"][:, 1]
    with torch.no_grad(), shared_prefix(start) if "layout" in inputs else contextlib.nullcontext():
      before = answer_log_probs(start, inputs)
    rewards = self.ratio.scale * (answer_log_probs(model, inputs) - before)
    count = len(labels) if num_items_in_batch is None else num_items_in_batch
    loss = F.binary_cross_entropy_with_logits(rewards, labels.to(rewards), reduction="sum") / count
    return (loss, {"logits": rewards}) if return_outputs else loss


@dataclass(frozen=True, kw_only=True)
class ImplicitRewards(StepLabels):
  def __post_init__(self) -> None:
    given = [name for name in super().loss if getattr(self, name) != getattr(StepLabels, name)]
    if given:
      raise UsageError(f"--{given[0]} is for labels of steps", hint="leave it out, or leave out --objective implicit")

  @property
  def loss(self) -> dict[str, Any]:
    return {"objective": self.objective, "beta": self.beta}

  def load(self, settings: Settings) -> checkpoints.Loaded:
    path = settings.model_name_or_path
    policy = Policy.from_pretrained(path, chat_template_path=settings.chat_template_path, device="cpu")
    policy.model.generation_config = policy.generation_config
    start = str(Path(path).resolve()) if Path(path).exists() else path
    policy.model.config.implicit_reward = {"reference": start, "beta": self.beta}
    return checkpoints.Loaded(policy.model, policy.tokenizer, "language model", [])

  def read(self, settings: DataSettings) -> Data:
    return read_data(settings, "answers", self.answers)[0].split(settings)

  def answers(self, records: Records) -> list[Solution]:
    found, separator = [], self.step_separator or STEP_SEPARATOR
    for row in to_score(records, steps=True).rows:
      if not all(0 <= score <= 1 for score in row.scores or [-1]):
        hint = "give pairs, `completion` with a true or false `label`, or `completions` with `scores` from 0 to 1"
        raise DataError("the answers are not labeled as right or wrong", where=row.origin, hint=hint)
      for one, score in zip(conversations_of([row]), row.scores, strict=True):
        steps = steps_in(one, separator)
        labels = [*[None] * (len(steps) - 1), float(score)]
        found.append(Solution(row.prompt, steps, labels, origin=row.origin))
    return found

  def renderer(self, tokenizer: Tokenizer, **common: object) -> LogRatioRenderer:
    if common["text_format"] != "chat":
      raise UsageError("--objective implicit writes the chat template", hint="leave out --text_format")
    rules = {**common, "scored_at": "last_token", "overlong": "error" if self.overlong == "error" else "drop"}
    return LogRatioRenderer(tokenizer, step_separator=self.step_separator or default_separator(tokenizer), **rules)

  def audited(self, data: Data, renderer: LogRatioRenderer, settings: DataSettings) -> Data:
    return data  # labels of answers are not labels of steps

  def fit(
    self, model: Model, renderer: LogRatioRenderer, rows: Rows, config: Arguments, **run: object
  ) -> tuple[Model, dict[str, Any]]:
    own = {"ratio": log_ratio(model.to(config.device)), "loss": self.loss, "shared_prefix": self.shared_prefix}
    own |= {"data_collator": AnswerCollator(0)}
    return loop.fit(ImplicitTrainer, model, renderer, rows, config, **own, **run)

  def evaluate(
    self, model: Model, renderer: LogRatioRenderer, held_out: Sequence[Solution], trained_on: Sequence[Solution]
  ) -> tuple[StepEvaluation | None, list[float], str]:
    """Of last steps alone: an answer is taken for right where its reward is above 0."""
    scorer = ProcessRewardModel(log_ratio(model), renderer)
    scorer.value = float
    answers = held_out or trained_on
    evaluation = evaluate_steps(scorer, answers, threshold=0.0)
    rewards = [row["step_rewards"][-1] for row in evaluation.rows]
    with contextlib.suppress(DataError):
      last = [replace(one, steps=one.steps[-1:], labels=one.labels[-1:]) for one in answers]
      best, _ = choose_threshold(labeled_steps(last, [[one] for one in rewards]))
      threshold = replace(evaluation.summary.threshold, best=best)
      evaluation = replace(evaluation, summary=replace(evaluation.summary, threshold=threshold))
    return evaluation if held_out else None, [one for one in rewards if one is not None], "answers"

  def save(
    self, model: Model, renderer: LogRatioRenderer, output_dir: Path, *, reward: RewardStatistics, **_: object
  ) -> dict[str, Any]:
    """A causal language model whose config says what its reward is, for `public_table.implicit_family`."""
    with staged(output_dir) as folder:
      if hasattr(model, "merge_and_unload"):
        model.save_pretrained(folder / checkpoints.ADAPTER)
        model = model.merge_and_unload()
      golden = golden_ratios(log_ratio(model), renderer)
      own = {"step_separator": renderer.step_separator, "max_length": renderer.max_length, "golden": golden}
      own |= {"threshold": reward.threshold, "auroc_low": reward.auroc_low}
      model.config.implicit_reward = model.config.implicit_reward | own
      model.save_pretrained(folder)
      renderer.tokenizer.save_pretrained(folder)
      again = ProcessRewardModel.from_pretrained(str(folder), device=str(model.device))
      difference = check_golden(golden_ratios(again.model, again.renderer), golden)
    return {"fingerprint": renderer.fingerprint, "reload_difference": difference}


def log_ratio(model: Model) -> LogRatio:
  own = unwrapped(model).config.implicit_reward
  start = Policy.from_pretrained(own["reference"], device=str(model.device)).model
  return LogRatio(model.eval(), start, own["beta"], of_steps=True)
