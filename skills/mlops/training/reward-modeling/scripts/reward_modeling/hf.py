"""Short names for types of libraries that take seconds to import, which whoever uses them does."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from datasets import Dataset as Dataset
  from peft import LoraConfig as LoraConfig
  from torch import Tensor as Tensor
  from transformers import PreTrainedConfig as Config
  from transformers import PreTrainedModel as Model
  from transformers import PreTrainedTokenizerBase as Tokenizer
  from transformers import TrainingArguments as Arguments
else:
  Arguments = Config = Dataset = LoraConfig = Model = Tensor = Tokenizer = Any
