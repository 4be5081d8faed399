"""How many tokens a model reads."""

import sys

from .errors import UsageError
from .hf import Model, Tokenizer

DEFAULT_MAX_LENGTH = 1024
"""Tokens of a conversation in training, unless told otherwise."""
_NO_LIMIT = 10_000_000
"""Above it nobody set `model_max_length`: transformers writes 1e30."""
_LENGTH_FIELDS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")


def positions(model: Model) -> int | None:
  """None where nothing bounds it. RoBERTa numbers positions from padding_idx + 1: its table has more rows."""
  for name, module in model.named_modules():
    around, _, own = name.rpartition(".")
    padding = getattr(module, "padding_idx", None)
    if own == "position_embeddings" and padding is not None:
      within = model.get_submodule(around)
      # A method in some architectures, a function in others.
      places = (within, sys.modules[type(within).__module__])
      if any(hasattr(place, "create_position_ids_from_input_ids") for place in places):
        return module.weight.shape[0] - padding - 1
  told = (getattr(model.config.get_text_config(), name, None) for name in _LENGTH_FIELDS)
  return next((value for value in told if isinstance(value, int) and value > 0), None)


def longest_input(
  model: Model, tokenizer: Tokenizer, asked: int | None = None, default: int | None = DEFAULT_MAX_LENGTH
) -> int | None:
  """`asked`, or `default`, or less where the model or tokenizer ends earlier; None without any bound."""
  most = positions(model)
  if not asked:
    own = tokenizer.model_max_length
    return min(filter(None, (default, most, own if 0 < own < _NO_LIMIT else None)), default=None)
  if most and asked > most:
    what = f"--max_length {asked} is more than the {most} tokens the model can read"
    raise UsageError(what, hint=f"give --max_length {most} or less: a flag overrides the recipe of --config")
  return asked
