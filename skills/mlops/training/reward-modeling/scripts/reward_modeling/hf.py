"""Short names for types of transformers, which is imported by what uses it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from transformers import PreTrainedConfig as Config
  from transformers import PreTrainedModel as Model
  from transformers import PreTrainedTokenizerBase as Tokenizer
else:
  Config = Model = Tokenizer = Any
