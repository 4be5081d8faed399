"""Short names for types of libraries that take seconds to import, which whoever uses them does."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from datasets import Dataset as Dataset
  from httpx2 import Response as Response
  from peft import LoraConfig as LoraConfig
  from pydantic import TypeAdapter as TypeAdapter
  from rich.console import Console as Console
  from torch import Tensor as Tensor
  from torch import device as Device
  from torch import dtype as Dtype
  from torch.distributed import Store as Store
  from torch.nn import Module as Module
  from transformers import PreTrainedConfig as Config
  from transformers import PreTrainedModel as Model
  from transformers import PreTrainedTokenizerBase as Tokenizer
  from transformers import TrainingArguments as Arguments
else:
  Arguments = Config = Console = Dataset = Device = Dtype = LoraConfig = Model = Module = Response = Any
  Store = Tensor = Tokenizer = TypeAdapter = Any
