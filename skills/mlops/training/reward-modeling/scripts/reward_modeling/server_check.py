"""Does a server give this model's rewards? If not: what it does to the text or to the reward, and what sets it right."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import linear_regression

from .aggregation import probability
from .errors import DataError, RunError
from .golden import GOLDEN_TOLERANCE, golden_conversations, largest_difference
from .kinds import OUTCOME
from .remote import APIS, Ask, ServerRewards, whole_text
from .rendering import Conversation, Renderer, conversations_of
from .results import emit
from .row_scoring import read_rankings
from .score_settings import ScoreSettings, ServerCheck, ServerFinding, key_in
from .scoring import RewardModel
from .terminal import log

TOLERANCE = GOLDEN_TOLERANCE["float32"]
NOISE = 3.0
"""Times the difference that a lower precision makes here: other processors round otherwise."""
LENGTHS = (128, 256, 384, 512, 1024, 2048, 3072, 4096)
FEWEST_TO_FIT = 5
Told = dict[str, float | str]
"""What a sentence names."""
RAW = {
  "vllm": 'send "use_activation": false (`activation` is no longer read), or start it with '
  """--pooler-config '{"use_activation": false}'""",
  "sglang": "ask /classify: /v1/classify applies a softmax",
  **dict.fromkeys(("tei", "infinity"), 'send "raw_scores": true'),
  "": "ask for raw scores",
}
LONGER = {
  "vllm": "raise --max-model-len, send no truncate_prompt_tokens",
  "sglang": "raise --context-length, leave out --allow-auto-truncate",
  "tei": 'send "truncate": false, raise --max-batch-tokens',
  "openrlhf": "raise its --data.max_len",
  "": "raise --max_length",
}


@dataclass(frozen=True)
class Cause:
  """What a server does. fix: by api, "" for others. value: of a reward; text: of (the right text, renderer)."""

  says: str
  fix: dict[str, str]
  value: Callable[[float], float] | None = None
  text: Callable[[str, Renderer], str] | None = None


CAUSES = {
  "equal": Cause("gives the rewards of this model", {}, value=lambda reward: reward),
  "sigmoid": Cause("squashes rewards by a sigmoid", RAW, value=probability),
  "softmax": Cause("gives 1.0, the softmax of one label", RAW, value=lambda reward: 1.0),
  "scaled": Cause(
    "shifts or scales rewards ({a:.4g} * reward {b:+.4g})",
    {
      "vllm": "take logit_mean and logit_sigma out of --pooler-config",
      "sglang": "its heads of Qwen2 and Qwen3 have a bias, random where the folder has none: subtract it",
      "openrlhf": "leave out --reward.normalize_enable",
      "": "switch its normalization off",
    },
  ),
  "special_tokens": Cause(
    "adds special tokens (BOS) to text that the template has finished",
    {
      "vllm": 'send "add_special_tokens": false, or token ids',
      "sglang": "send token ids, as `input_ids`",
      "": "take BOS off the text, or the post_processor out of its tokenizer.json",
    },
  ),
  "end_missing": Cause(
    "leaves out the token that ends an answer",
    {"": "send the whole text, with its end"},
    text=lambda text, renderer: _without_end(text.rstrip(), renderer.tokenizer.all_special_tokens),
  ),
  "stripped": Cause(
    "strips the whitespace after the answer",
    {
      "": "send the text as it is",
      "infinity": "it cannot: take another server, or a template that ends in no whitespace",
    },
    text=lambda text, _: text.rstrip(),
  ),
  "end_added": Cause(
    "adds an end token after the template's",
    {"": "let it add none"},
    text=lambda text, renderer: text + (renderer.tokenizer.eos_token or ""),
  ),
  "templated_twice": Cause(
    "applies its chat template to text that is templated already",
    {"": "send the text as a completion, not as a chat"},
    text=lambda text, renderer: renderer.text([{"role": "user", "content": text}]),
  ),
  "cut": Cause("cuts texts to {length} tokens (their {side} is lost)", LONGER),
  "refused": Cause("refuses texts of {shortest} tokens", LONGER),
  "precision": Cause(
    "computes in {dtype}",
    {"": "start it in float32 (vLLM, SGLang, TEI: --dtype float32), or accept that: score.py --dtype {dtype}"},
  ),
  "unknown": Cause(
    "gives other rewards, for no reason that is known here",
    {"": "compare its weights, tokenizer and chat template with those of this model"},
  ),
}
VALUES = {name: cause.value for name, cause in CAUSES.items() if cause.value}


def check_server(settings: ScoreSettings) -> ServerCheck:
  """In fp32: --dtype says what the server may compute in. Raises RunError, once the result is printed, for other rewards."""
  rankings = read_rankings(settings)[0] if settings.input else []
  check = _Check(settings, conversations_of(rankings))
  findings = [check.finding(*asked) for asked in ({"score.py": None} | APIS[settings.api].others).items()]
  worst, *others = sorted(findings, key=lambda one: one.equal)
  said = f"{settings.check_server}, asked as {{0.asked_by}} does, {{0.says}}"
  for one in others:
    log(said.format(one))
  lengths = [ids and len(ids) for ids in check.ids]
  own = settings.model_name_or_path, settings.check_server, settings.api, worst.equal
  result = ServerCheck(*own, tokens=lengths, rewards=check.own, findings=findings)
  if not result.equal:
    emit(result)
    raise RunError(said.format(worst), hint=worst.fix)
  log(said.format(worst))
  return result


def _longer(model: RewardModel) -> Iterator[Conversation]:
  """Twice as long each, as far as the model reads; each part is another, so that a cut shows."""
  limit, n = min(model.renderer.max_length or LENGTHS[-1], LENGTHS[-1]), 8
  while model.kind is OUTCOME and n < limit:
    listed = " ".join(f"{i} and" for i in range(n))
    yield Conversation([{"role": "user", "content": listed}], [{"role": "assistant", "content": listed}])
    n *= 2


class _Check:
  """texts, ids, own: conversations that are neither cut nor left out, with their token ids and rewards here."""

  def __init__(self, settings: ScoreSettings, more: Sequence[Conversation]):
    self.settings, self.model = settings, replace(settings, dtype="float32").load()
    model, self.api = self.model, settings.api
    conversations = [*golden_conversations(model.kind), *_longer(model), *more]
    model.renderer.refused = []
    rendered = zip(conversations, model.render(conversations), strict=True)
    whole = [(one, found) for one, found in rendered if found and not getattr(found, "cut", 0)]
    self.texts = [one for one, _ in whole]
    self.ids = [found.ids if model.kind is OUTCOME else None for _, found in whole]
    self.own = model.score_conversations(self.texts)

  def finding(self, name: str, ask: Ask | None) -> ServerFinding:
    where, key = self.settings.check_server, key_in(self.settings.key_file)
    server = ServerRewards(where, api=self.api, renderer=self.model.renderer, key=key, ask=ask)
    given = [_given(server, one) for one in self.texts]
    answered = [i for i, one in enumerate(given) if one is not None]
    if not answered:
      raise RunError(f"{where} refuses all texts", hint="is it another kind of server?")
    rewards, own = [given[i] for i in answered], [self.own[i] for i in answered]
    causes, told = self._causes(answered, rewards, own)
    if len(answered) < len(given):
      told["shortest"] = min(len(self.ids[i] or ()) for i, one in enumerate(given) if one is None)
      causes.append("refused")
    causes = [cause for cause in causes if cause != "equal"] or ["equal"]
    fixes = (CAUSES[cause].fix.get(self.api, CAUSES[cause].fix.get("")) for cause in causes)
    fix = "; ".join(dict.fromkeys(filter(None, fixes))).replace("{dtype}", told.get("dtype", "")) or None
    says = " and ".join(CAUSES[cause].says.format(**told) for cause in causes)
    equal = causes == ["equal"] or (causes == ["precision"] and told["dtype"] == self.settings.dtype)
    return ServerFinding(name, equal, causes, says, fix, largest_difference(rewards, own), given)

  def _causes(self, places: list[int], given: list[float], own: list[float]) -> tuple[list[str], Told]:
    """With what their sentences name."""
    texts, closest = [self.texts[i] for i in places], (math.inf, ["equal", "equal"], {})
    for variant, scores, told in self._variants(places, own):
      for name, value in VALUES.items():
        found = largest_difference(given, [*map(value, scores)]), [variant, name], dict(told)
        if found[0] <= TOLERANCE:
          return found[1:]
        closest = min(closest, found, key=lambda one: one[0])
      if len(set(given)) >= FEWEST_TO_FIT and len(set(scores)) > 1:
        a, b = linear_regression(scores, given)
        if largest_difference(given, [a * score + b for score in scores]) <= TOLERANCE * min(1, abs(a)):
          return [variant, "scaled"], told | {"a": a, "b": b}
    off, causes, told = closest
    value = VALUES[causes[1]]
    for dtype in ("bfloat16", "float16"):
      other = replace(self.settings, dtype=dtype).load()
      rounded = [*map(value, other.score_conversations(texts))]
      if off <= NOISE * largest_difference(rounded, [*map(value, own)]):
        return [*causes, "precision"], told | {"dtype": dtype}
    return ["unknown"], {}

  def _variants(self, places: list[int], own: list[float]) -> Iterator[tuple[str, list[float], Told]]:
    """(cause, what the model gives to the texts that it makes, what its sentence names), where it changes any."""
    yield "equal", own, {}
    ids = [self.ids[i] for i in places]
    if self.model.kind is OUTCOME:
      texts = [whole_text(self.texts[i], self.model.renderer) for i in places]
      for name, rows, told in self._changed(ids, texts):
        if rows != ids and all(rows):
          yield name, self.model.score_ids(rows), told

  def _changed(self, ids: list[list[int]], texts: list[str]) -> Iterator[tuple[str, list, Told]]:
    renderer, tokenizer = self.model.renderer, self.model.renderer.tokenizer
    yield "special_tokens", tokenizer(texts)["input_ids"], {}
    if tokenizer.bos_token_id is not None:
      yield "special_tokens", [[tokenizer.bos_token_id, *row] for row in ids], {}
    for name, cause in CAUSES.items():
      if cause.text:
        with contextlib.suppress(DataError):  # of a template that takes no such conversation
          made = [cause.text(text, renderer) for text in texts]
          yield name, renderer.tokens(made), {}
    for length in (one for one in LENGTHS if one < max(map(len, ids))):
      yield "cut", [row[:length] for row in ids], {"length": length, "side": "end"}
      yield "cut", [row[-length:] for row in ids], {"length": length, "side": "start"}


def _given(server: ServerRewards, conversation: Conversation) -> float | None:
  with contextlib.suppress(DataError):
    return server.score_conversations([conversation])[0]


def _without_end(text: str, tokens: Sequence[str]) -> str:
  return text.removesuffix(next((token for token in tokens if text.endswith(token)), ""))
