"""Reward models as a program uses them: conversations in, rewards out. Rendered by `rendering`, computed by `forward`."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from operator import mul
from pathlib import Path
from typing import Any, ClassVar, Self

from . import checkpoints, public_models
from .attributes import Attributes, combined, of_card
from .base_rendering import BaseRenderer
from .data.records import Message, check_attributes
from .errors import DataError, RunError, UsageError
from .gpu_speed import SCORING, Gain, compile_layers, speed_of
from .hf import Model, Tensor
from .kinds import KINDS, OUTCOME, Kind
from .lengths import DEFAULT_MAX_LENGTH, longest_input, positions
from .packing import WINDOW, TokenRow, unique_tokens
from .processes import Team
from .rendering import Conversation, Rendered
from .step_rendering import Steps

Scores = list[float | None]
Text = str | Sequence[Message]
Completion = Text | Sequence[str]
"""An answer, or the steps of one."""
Asked = tuple[Text, Completion, list[dict] | None]
"""Prompt, completion, tools."""
Found = tuple[int, list[float]] | None
"""Steps that did not fit, scores."""
Progress = Callable[[int], None] | None
"""Gets the number of inputs that a forward pass has finished."""


@dataclass(frozen=True)
class Ranked:
  index: int
  score: float | None
  completion: Completion


class Scorer:
  """Scores do not depend on batch, order or padding (within 1e-5 in fp32); None for what the over-length policy leaves out.

  A kind has `_rewards` of (prompt, completion, tools)s, `_is_several` (a list of completions?), and `_rows` to compute.
  """

  kind: ClassVar[Kind]
  compares: ClassVar[bool] = False
  """Its rewards hold only among the answers of one prompt."""

  def __init__(
    self,
    model: Model,
    renderer: BaseRenderer,
    *,
    card: dict[str, Any] | None = None,
    max_tokens_per_batch: int | None = None,
    shared_prefix: bool | None = None,
  ):
    self.model, self.renderer, self.card = model, renderer, card
    self.max_tokens_per_batch, self.shared_prefix = max_tokens_per_batch, shared_prefix
    self.notes: list[str] = []
    self._gain = Gain()
    self._reasons: list[str | None] = []
    self.team: Team | None = None
    """Processes that call this with the same inputs: each computes a part of them."""

  @classmethod
  def from_pretrained(
    cls,
    path: str,
    *,
    dtype: str = "float32",
    device: str | None = None,
    max_length: int | None = None,
    overlong: str | None = None,
    text_format: str | None = None,
    chat_template_path: str | None = None,
    refused: str = "stop",
    reference_model_name_or_path: str | None = None,
    attribute_weights: Mapping[str, float] | None = None,
    **own: object,
  ) -> Self:
    """Load a reward model from a folder or hub id; ModelError when it is not one of this kind.

    max_length, overlong, text_format ("chat", "rendered", "pair"): as in training unless given; without a card what its
    authors did (`public_table.PUBLIC`), or all that config and tokenizer allow. refused: "stop" raises DataError for what cannot
    be rendered, "unscored" gives it no score. dtype: of the weights; the head stays fp32. attribute_weights: see `weigh`.
    own: arguments of the class; shared_prefix None computes shared prefixes once where that is faster.
    """
    policies = cls.kind.renders.policies
    if overlong not in (None, *policies):
      other = next(kind.name for kind in KINDS.values() if kind is not cls.kind)
      what = f"--overlong {overlong} is for {other} reward models"
      raise UsageError(what, hint=f"choose {', '.join(policies)}")
    run = {"dtype": dtype, "device": device, "kind": cls.kind, "compares": cls.compares}
    loaded, family = public_models.load_any(path, reference_model_name_or_path, **run)
    trained = dict(loaded.rendering or own)
    trained["text_format"] = text_format or trained.get("text_format")
    assumed = None if loaded.card or chat_template_path else loaded.rendering.get("text_format")
    family = public_models.overridden(path, loaded, family, text_format or assumed, chat_template_path)
    if family and family.head == "Marked" and (max_length or str(overlong).startswith("truncate")):
      raise UsageError(
        f"{path} reads texts up to its authors' lengths", hint="give no --max_length; --overlong drop or error"
      )
    if family or reference_model_name_or_path:
      renderer = public_models.renderer_of(loaded, family, path, text_format, own.get("step_separator"))
    else:
      renderer = cls.kind.renderer(loaded.tokenizer, checkpoints.scored_at(loaded.model), trained)
    renderer.refused = [] if refused == "unscored" else None
    renderer.overlong = overlong or trained.get("overlong") or renderer.overlong
    _set_length(renderer, loaded, max_length)
    made = cls(loaded.model, renderer, card=loaded.card, **own)
    if attribute_weights:
      made.weigh(attribute_weights)
    if not loaded.card and (Path(path) / "trainer_state.json").is_file():
      loaded.notes.append("this is a checkpoint: how its training rendered texts and scaled scores is not in it")
    made.notes = loaded.notes
    return made

  def score(
    self,
    prompts: Sequence[Text],
    completions: Sequence[Completion],
    *,
    tools: Sequence[list[dict] | None] | None = None,
  ) -> list:
    """Rewards in input order: a float for one completion, a list for a list of completions.

    completions: [n], each a string or a list of messages (of a process reward model: of steps), or a list of these.
    """
    return self._shaped(prompts, completions, tools, self._rewards)

  def rank(self, prompt: Text, completions: Sequence[Completion], *, tools: list[dict] | None = None) -> list[Ranked]:
    """Best first: stable, unscored ones last."""
    n = len(completions)
    return ranked(self._shaped([prompt] * n, completions, [tools] * n, self._rewards), completions)

  def score_conversations(self, conversations: Sequence[Conversation], progress: Progress = None) -> Scores:
    """Rewards in input order, None for what was left out; RunError for one that is not finite."""
    raise NotImplementedError

  def render(self, conversations: Sequence[Conversation]) -> list[Any]:
    return self.renderer.render_all([one for one in self._inputs(conversations) if one])

  @property
  def truncated(self) -> int:
    return self.renderer.counts["truncated"]

  def warn_of_losses(self, before: dict[str, int] | None = None) -> None:
    self.renderer.warn_of_losses(before)

  def described(self) -> list[str]:
    return [*self.notes, f"scoring: {self.way()}"]

  def how(self) -> dict[str, object]:
    """Of results: how its rows were computed, how a model without a card is read."""
    return {"batches": self.way(), "notes": self.notes or None}

  def _inputs(self, conversations: Sequence[Conversation]) -> Sequence[Conversation | Steps | None]:
    return list(conversations)

  @cached_property
  def why_padded(self) -> str | None:
    """Why shared prefixes are not computed once, None where they are."""
    return self._reason_against(self.shared_prefix)

  @cached_property
  def _why_not_on_gpu(self) -> str | None:
    return self._reason_against(True)

  def _reason_against(self, wanted: bool | None) -> str | None:
    from .guard import reason_against

    return reason_against(checkpoints.unwrapped(self.model), wanted, getattr(self.renderer, "scored_at", "last_token"))

  def _reason_to_pad(self, rows: Sequence[TokenRow]) -> str | None:
    from .attention import flashes

    if self.why_padded or not flashes(self.model.device):
      return self.why_padded
    if self._gain.compiles:  # whatever is shared
      return self._why_not_on_gpu
    sequences, speed = [ids for ids, _ in rows], speed_of(SCORING, self.model.config.get_text_config().hidden_size)
    spent = speed and speed.seconds(sum(map(len, sequences)), unique_tokens(sequences))
    slower = self._gain.reason_against(spent, next(self.model.parameters()).element_size() == 2)
    if self.shared_prefix is None and (reason := slower or self._why_not_on_gpu):
      return reason
    if self._gain.compiles:
      compile_layers(checkpoints.unwrapped(self.model))
    return None

  def way(self) -> str:
    """How rows were computed, or will be, and why."""
    reasons = self._reasons or [self.why_padded]
    ways = [f"batches are padded, since {why}" if why else "shared prefixes are computed once" for why in reasons]
    return "; later ".join(ways)

  def _shaped(self, prompts, completions, tools, score: Callable[[list[Asked]], list]) -> list:
    if len(prompts) != len(completions):
      raise ValueError(f"{len(prompts)} prompts but {len(completions)} completions")
    several = list(map(self._is_several, completions))
    asked = [
      (prompt, one, tools[i] if tools else None)
      for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
      for one in (completion if several[i] else [completion])
    ]
    before = dict(self.renderer.counts)
    flat = iter(score(asked))
    self.warn_of_losses(before)
    return [
      [next(flat) for _ in completion] if many else next(flat)
      for completion, many in zip(completions, several, strict=True)
    ]

  def _scored(self, inputs: Sequence[Conversation | Steps], progress: Progress) -> list[Found]:
    found = []
    for start in range(0, len(inputs), WINDOW):
      part = inputs[start : start + WINDOW]
      found += self._shared(part, progress, start) if self.team else self._computed(part, progress, start)
    return found

  def _shared(self, inputs: Sequence[Conversation | Steps], progress: Progress, start: int) -> list[Found]:
    renderer, found = self.renderer, []
    refused, counts, first = renderer.refused, renderer.counts, renderer.first

    def compute(share: slice) -> tuple:
      renderer.counts, renderer.first, renderer.refused = Counter(), {}, None if refused is None else []
      own = self._computed(inputs[share], progress, start + share.start)
      faults = [(share.start + place, vars(error)) for place, error in renderer.refused or ()]
      return own, renderer.counts, renderer.first, faults

    for part, counted, examples, faults in self.team.shared(len(inputs), compute):
      found += part
      counts.update(counted)
      first.update(examples | first)
      if refused is not None:
        refused += [(place, DataError(**error)) for place, error in faults]
    renderer.counts, renderer.first, renderer.refused = counts, first, refused
    return found

  def _computed(self, inputs: Sequence[Conversation | Steps], progress: Progress, start: int) -> list[Found]:
    rendered = self.renderer.render_all(inputs)
    rows = [[] if one is None else self._rows(one) for one in rendered]
    flat = iter(self.score_rows(list(chain(*rows)), progress and _by_input(rows, progress)))
    scores = [[score for _ in own for score in next(flat)] for own in rows]
    _check_finite(scores, [one.origin for one in inputs], start)
    return [one and (getattr(one, "dropped", 0), own) for one, own in zip(rendered, scores, strict=True)]

  def score_rows(
    self, rows: Sequence[TokenRow], progress: Callable[[list[int]], None] | None = None
  ) -> list[list[float]]:
    """The scores at each row's positions; those of steps are log-odds. progress: gets the numbers of rows done."""
    from .forward import logits_at

    scores: list[list[float]] = [[] for _ in rows]
    run = {"pad_token_id": self._pad_token_id, "max_tokens": self.max_tokens_per_batch}
    reason = self._reason_to_pad(rows)
    if rows and reason not in self._reasons:
      self._reasons.append(reason)
    for numbers, logits in logits_at(self.model, rows, padded=bool(reason), **run):
      own = self._values(logits, [len(rows[number][1]) for number in numbers])
      for number, values in zip(numbers, own, strict=True):
        scores[number] = values
      if progress:
        progress(numbers)
    return scores

  def _values(self, logits: Tensor, counts: list[int]) -> list[list[float]]:
    from .forward import values_of

    return values_of(self.model, logits, counts)

  def weigh(self, weights: Mapping[str, float]) -> None:
    """Make the reward this sum of `attributes`. Raises UsageError for others."""
    names = () if self.compares else getattr(self, "attributes", ())
    check_attributes(weights, names, "attribute_weights")
    self.weights = tuple(weights.get(name, 0.0) for name in names)

  @property
  def _pad_token_id(self) -> int:
    """Its config's, by which the model finds the end of a row; a foreign tokenizer may have another."""
    configured = self.model.config.get_text_config().pad_token_id
    return self.renderer.tokenizer.pad_token_id if configured is None else configured


class RewardModel(Scorer):
  """Made by `from_pretrained`. Scores are raw fp32 logits."""

  kind = OUTCOME
  weights: tuple[float, ...] | None = None
  """Of the attributes, in place of the model's own."""

  def __init__(self, *model: object, attributes: Attributes | None = None, **run: object):
    super().__init__(*model, **run)
    self.heads = of_card(self.card) if attributes is None else attributes

  @property
  def attributes(self) -> tuple[str, ...]:
    """What a model gives beside its reward."""
    if self.heads:
      return tuple(one.name for one in self.heads) if len(self.heads) > 1 else ()
    return getattr(getattr(self.model, "score", None), "attributes", ())

  def _values(self, logits: Tensor, counts: list[int]) -> list[list[float]]:
    found = combined(logits, self.heads).tolist() if self.heads else super()._values(logits, counts)
    return found if self.weights is None else [[sum(map(mul, self.weights, rest)), *rest] for _, *rest in found]

  def score_conversations(self, conversations: Sequence[Conversation], progress: Progress = None) -> Scores:
    return [numbers and numbers[0] for numbers in self.score_attributes(conversations, progress)]

  def score_attributes(
    self, conversations: Sequence[Conversation], progress: Progress = None
  ) -> list[list[float] | None]:
    """[the reward, then each of `attributes`] of each conversation."""
    return [found and found[1] for found in self._scored(conversations, progress)]

  def score_ids(self, rows: Sequence[list[int]]) -> list[float]:
    scores = self.score_rows([self._row(ids) for ids in rows])
    _check_finite(scores, [None] * len(rows))
    return [own[0] for own in scores]

  def normalize(self, scores: Sequence[float | None]) -> Scores:
    """(score - mean) / std, as saved with the model."""
    if self.weights:
      what = "--attribute_weights make another reward than that whose mean and std were saved"
      raise UsageError(what, hint="score without normalizing")
    reward = (self.card or {}).get("reward") or {}
    if not reward.get("std"):
      hint = "score without normalizing, or train the model with train.py"
      raise RunError("the model's card has no reward mean and std", hint=hint)
    return [None if score is None else (score - reward["mean"]) / reward["std"] for score in scores]

  def _rewards(self, asked: Sequence[Asked]) -> Scores:
    texts = ((as_messages(prompt, "user"), as_messages(one, "assistant"), tools) for prompt, one, tools in asked)
    return self.score_conversations([Conversation(*own) for own in texts])

  def _is_several(self, completion: Completion | Sequence[Completion]) -> bool:
    return not isinstance(completion, str) and not (completion and isinstance(completion[0], dict))

  def _rows(self, rendered: Rendered) -> list[TokenRow]:
    if rendered.start is not None:
      return [(rendered.ids, [rendered.start - 1, len(rendered.ids) - 1])]
    return [self._row(rendered.ids)]

  def _row(self, ids: list[int]) -> TokenRow:
    """Without trailing pad tokens: a foreign decoder that pads with EOS is scored before it, as by transformers."""
    if self.renderer.scored_at in ("end", "prefix"):
      return ids, self.renderer.places_of(ids)
    end = len(ids)
    while self.renderer.scored_at == "last_token" and end > 1 and ids[end - 1] == self._pad_token_id:
      end -= 1
    return ids[:end], [end - 1]


def _set_length(renderer: BaseRenderer, loaded: checkpoints.Loaded, asked: int | None) -> None:
  trained, family = loaded.rendering.get("max_length"), getattr(renderer, "family", None)
  default = DEFAULT_MAX_LENGTH if loaded.card else family and family.max_length
  renderer.max_length = longest_input(loaded.model, loaded.tokenizer, asked or trained, default)
  renderer.longest = positions(loaded.model)
  if not loaded.card:
    renderer.probe_ids()  # a broken template should show before the data is read
    loaded.notes.append(f"longest input: {renderer.max_length or 'unlimited'} tokens")


def _check_finite(scores: Sequence[list[float]], origins: Sequence[object], before: int = 0) -> None:
  bad = [i for i, own in enumerate(scores) if not all(map(math.isfinite, own))]
  if bad:
    raise RunError(
      f"the model gave {len(bad)} rewards that are not finite numbers, the first for completion {before + bad[0] + 1}",
      where=origins[bad[0]],
      hint="score with --dtype float32",
    )


def _by_input(rows: Sequence[Sequence[TokenRow]], progress: Callable[[int], None]) -> Callable[[list[int]], None]:
  owner = [i for i, own in enumerate(rows) for _ in own]
  left = [len(own) for own in rows]

  def done(numbers: list[int]) -> None:
    finished = 0
    for number in numbers:
      left[owner[number]] -= 1
      finished += left[owner[number]] == 0
    progress(finished)

  return done


def ranked(scores: Sequence[float | None], completions: Sequence[Completion]) -> list[Ranked]:
  order = sorted(range(len(scores)), key=lambda i: (scores[i] is None, -(scores[i] or 0.0)))
  return [Ranked(i, scores[i], completions[i]) for i in order]


def as_messages(text: Text, role: str) -> list[Message]:
  """An empty prompt is not a message."""
  if isinstance(text, str):
    return [{"role": role, "content": text}] if text or role == "assistant" else []
  return list(text)
